package socks

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/machine"
)

// flow is one direction of a connection.
type flow struct {
	moved uint64 // bytes that the kernel took for the sink
	// room is how much the sink has room for at least, in bytes: nobody else writes to it.
	room int
	// pipe holds bytes that the sink did not take although it had room. That is rare; it
	// is nil otherwise.
	pipe *pipe
	// memory is what the flow has for socket buffers beside the connection's, in bytes.
	// before is what moved was at the time since, and looked what it was at the last look
	// for quiet flows.
	memory         int
	since          time.Duration
	before, looked uint64
	// receive is the size of the source's receive buffer unless the kernel takes too little of it for
	// data, window what its window was limited to, size and clamp what the kernel was told last or has set
	// since, all in bytes; they are 0 where they are not limited. ratio is how much of a buffer the kernel takes
	// for data, in 256ths, and 0 until it has measured a packet.
	receive, window, size, clamp int
	// The smaller fields are last, so that a connection takes less memory.
	ratio int32
	// last is how much the last step took from the source; short is that this was less than the step had asked for.
	last int32
	// drops is how many packets the kernel had dropped at the source at the last look, missed that bytes
	// were among them which the peer had been offered room for, and widened the size of the buffer if it is
	// larger for that, in bytes.
	drops   uint32
	widened int32
	// packet is how many bytes the packets of the source's peer have, at most. It is 0 if windows of the
	// source are scaled: the kernel then offers all that there is room for, and otherwise only whole packets.
	packet int32
	missed bool
	// unasked says that the source's peer is not asked whether it is there: its answers would not count.
	unasked bool
	short   bool
	try     bool // something may have changed at the source or the sink
	// urgent says that there is urgent data. splice(2) does not move past it, and a read stops
	// there once.
	urgent bool
	// apart says that memory counts against the part for fast flows.
	apart bool
	// fast says that it has moved fastSize within growTime, and was not quiet since.
	fast   bool
	ending bool // the source has ended or failed; there may be bytes before that
	failed bool // the source has failed: a reset, or its peer is out of reach
	full   bool // waits for the sink
	spent  bool // waits for the limit of its user
	done   bool // the end of the source has been seen
}

// pipe is a pipe through which bytes move from socket to socket without being copied.
type pipe struct {
	out, in int
	held    int // bytes
	slots   int // how many pieces it can hold, of a page at most
}

// Sizes of a step, in bytes.
const (
	// newRoom is what every socket has room for before it is written to.
	newRoom = 4096
	minPipe = 64 << 10
	// pipePart: a pipe can hold 1/pipePart of all memory. An empty one takes none. It has a
	// place for each page, and one packet fills a page, mostly with 1448 bytes: with 64 kB a
	// step is 23 kB at most.
	pipePart = 128
	maxPipe  = 1 << 20 // what an ordinary user may have (pipe(7))
	// smallStep: a step that is smaller than this, like the last one, is copied and not
	// spliced: then a copy costs less than the pipe's bookkeeping.
	smallStep = 2048
	// turnSteps is how many steps a direction takes in one turn: more than one, because
	// what has just moved is still in the processor's cache.
	turnSteps = 4
	// scratchSize is the most that a step copies, when it cannot splice.
	scratchSize = 32 << 10
)

// maxPipes is how many pipes there may be. One suffices for all connections, unless sinks
// take less than they have room for.
const maxPipes = 4

// borrowPipe returns an empty pipe, or nil if there is none left.
func (s *Server) borrowPipe() *pipe {
	if n := len(s.pipes); n > 0 {
		p := s.pipes[n-1]
		s.pipes = s.pipes[:n-1]
		return p
	}
	if s.pipesMade == maxPipes {
		return nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return nil // no descriptor left: copying needs none
	}
	size, err := unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, s.pipeSize)
	if err != nil { // its user has all the pipe memory that a user may have: a small one works too
		size = os.Getpagesize()
	}
	s.pipesMade++
	return &pipe{out: fds[0], in: fds[1], slots: size / os.Getpagesize()}
}

// dropPipe takes the pipe of f back, if it has one. What the pipe holds is lost.
func (s *Server) dropPipe(f *flow) {
	p := f.pipe
	switch f.pipe = nil; {
	case p == nil:
	case p.held > 0:
		p.close()
		s.pipesMade--
	default:
		s.pipes = append(s.pipes, p)
	}
}

func (p *pipe) close() {
	unix.Close(p.out)
	unix.Close(p.in)
}

// progress is the result of a step of a flow.
type progress int

const (
	again    progress = iota // there may be more at once
	atSource                 // waits for the source
	atSink                   // waits for the sink
	atLimit                  // waits for the limit of its user
	ended                    // the source is at its end
)

// step moves bytes of f from source to sink, as many as the sink has room for but no more
// than one pipe or most, and returns how many.
//
// It asks for the room first. So bytes that the sink would not take stay in the receive
// buffer of the source, where the kernel bounds them, and a connection that waits holds no
// pipe.
func (s *Server) step(f *flow, source, sink, most int) (n int, p progress, err error) {
	if f.pipe != nil {
		return s.flush(f, sink)
	}
	// The kernel is only asked if more may come than there is room for, as far as is known.
	if f.room < max(2*int(f.last), newRoom/4) {
		if f.room, err = room(sink); err != nil || f.room == 0 {
			return 0, atSink, err
		}
	}
	if f.pipe = s.borrowPipe(); f.pipe == nil {
		return s.pass(f, source, sink, most)
	}
	// Only a read tells the end reliably: it comes where the end is to be expected.
	if s.copies && !f.fast || f.last < smallStep || f.urgent || f.ending && f.short {
		return s.copy(f, source, sink, most)
	}
	asked := min(f.room, s.pipeSize, most)
	n, err = splice(source, f.pipe.in, asked)
	if n == 0 && err == nil {
		// It is the end, or there is urgent data and the end behind it (tcp_splice_read in the
		// kernel's net/ipv4/tcp.c).
		return s.copy(f, source, sink, most)
	}
	if err != nil {
		s.dropPipe(f)
		return nothing(err)
	}
	f.pipe.held = n
	f.room, f.last, f.short = f.room-n, int32(n), n < asked
	drained := n < min(f.pipe.slots, most) && !f.ending
	if n, p, err = s.flush(f, sink); drained && p == again && f.pipe == nil {
		// No more came although the pipe had places left: the poller will report more.
		p = atSource
	}
	return n, p, err
}

// copy is a step that reads and writes. The pipe of f, which is empty, is for what the sink
// does not take although it had room.
func (s *Server) copy(f *flow, source, sink, most int) (n int, p progress, err error) {
	b := s.scratch[:min(f.room, len(s.scratch), f.pipe.slots*os.Getpagesize(), most)]
	got, err := s.receiveWindow(f, source, b, 0)
	if err != nil || got == 0 {
		s.dropPipe(f)
		f.urgent = false // it is all read
		return nothing(err)
	}
	f.room, f.last, f.short = f.room-got, int32(got), got < len(b)
	n, err = send(sink, b[:got])
	if n == got {
		s.dropPipe(f)
		if got < len(b) && !f.ending && !f.urgent {
			return n, atSource, nil // the poller will report more
		}
		return n, again, nil
	}
	if err != nil && err != unix.EAGAIN {
		return 0, 0, fmt.Errorf("write: %w", err)
	}
	if f.pipe.held, err = unix.Write(f.pipe.in, b[n:got]); err != nil || f.pipe.held != got-n {
		return n, 0, fmt.Errorf("pipe took %d of %d bytes: %w", f.pipe.held, got-n, err)
	}
	return n, atSink, nil
}

// flush moves what the pipe of f holds to the sink.
func (s *Server) flush(f *flow, sink int) (n int, p progress, err error) {
	n, err = splice(f.pipe.out, sink, f.pipe.held)
	if err == unix.EAGAIN {
		return 0, atSink, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("write: %w", err)
	}
	if f.pipe.held -= n; f.pipe.held == 0 {
		s.dropPipe(f)
	}
	return n, again, nil
}

// pass is a step without a pipe. It looks at what has arrived, offers it to the sink, and then
// removes from the source what the sink took. So it never holds bytes either.
func (s *Server) pass(f *flow, source, sink, most int) (n int, p progress, err error) {
	seen, err := receive(source, s.scratch[:min(len(s.scratch), most)], unix.MSG_PEEK)
	if err != nil || seen == 0 {
		f.urgent = false // it is all read
		return nothing(err)
	}
	f.room = 0 // it is not counted here
	n, err = send(sink, s.scratch[:seen])
	if err == unix.EAGAIN {
		return 0, atSink, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("write: %w", err)
	}
	if err := discard(s.scratch[:n], func(p []byte, flags int) (int, error) { return s.receiveWindow(f, source, p, flags) }); err != nil {
		return n, 0, fmt.Errorf("read: %w", err)
	}
	return n, again, nil
}

// nothing returns the result of a step that found nothing in the source: its end, or err.
func nothing(err error) (int, progress, error) {
	switch err {
	case nil:
		return 0, ended, nil
	case unix.EAGAIN:
		return 0, atSource, nil
	}
	return 0, 0, fmt.Errorf("read: %w", err)
}

// advance takes steps of f until it waits, at most turnSteps, and returns the result of the
// last one.
func (s *Server) advance(c *conn, f *flow, source, sink int) (p progress, err error) {
	for range turnSteps {
		n, most := 0, unlimited
		if f.pipe == nil { // what it holds must leave it
			most = s.credit(c, f)
		}
		if most == 0 {
			return atLimit, nil
		}
		n, p, err = s.step(f, source, sink, most)
		if n > 0 {
			f.moved += uint64(n)
			c.spend(f, n)
			c.heard(s.now)
		}
		if n > 0 && err == nil && p != atSink {
			s.grow(c, f, source, sink)
		}
		if p != again || err != nil {
			break
		}
	}
	return p, err
}

// relay gives each direction of c that may have something to do its turn. It ends c when
// both directions are done or one failed.
func (s *Server) relay(c *conn) {
	more := false
	for _, from := range [...]role{ofClient, ofRemote} {
		f, back, source, sink := &c.tx, &c.rx, c.client, c.remote
		if from == ofRemote {
			f, back, source, sink = &c.rx, &c.tx, c.remote, c.client
		}
		if !f.try || f.done {
			continue
		}
		if back.missed && back.widened == 0 && (f.pipe != nil || arrived(source) > 0) {
			s.widen(back, sink) // what is sent now offers the room
		}
		p, err := s.advance(c, f, source, sink)
		if err != nil {
			s.abort(c, err, from)
			return
		}
		f.try = p == again
		f.full = p == atSink
		if f.full {
			s.lookForMissed(f, source)
		} else if f.unasked {
			f.unasked = askWhetherThere(source, true) != nil
		}
		if f.window > 0 && f.ratio == 0 {
			f.learn(source)
			f.resize(source)
		}
		f.spent = p == atLimit
		f.done = p == ended
		more = more || f.try
		if f.done {
			// This fails if the sink has been reset, which the other direction reports.
			endWriting(sink)
		}
		if c.tx.done && c.rx.done {
			s.finish(c, nil)
			return
		}
	}
	for _, from := range [...]role{ofClient, ofRemote} {
		if f := c.from(from); f.done && f.failed {
			s.abort(c, fmt.Errorf("after its end: %w", failure(c.socket(from))), from)
			return
		}
	}
	if more && !c.queued {
		c.queued = true
		s.ready = append(s.ready, c)
	}
}

// relaySpent relays the directions of c that waited for the limit of their user.
func (s *Server) relaySpent(c *conn) {
	if !c.tx.spent && !c.rx.spent {
		return
	}
	c.tx.try = c.tx.try || c.tx.spent
	c.rx.try = c.rx.try || c.rx.spent
	if !c.queued {
		s.relay(c)
	}
}

// failure returns the pending error of a socket whose peer had ended before, and clears it.
func failure(fd int) error {
	err := socketError(fd)
	if err == unix.EPIPE { // so the kernel calls a reset behind the end (tcp_reset)
		err = unix.ECONNRESET
	}
	return err
}

// pipeSize returns how large the pipes are on this machine, in bytes: 256 kB with 32 MB of
// memory (the kernel keeps some of it, so it is rounded up), and 1 MB from 128 MB on.
func pipeSize() int {
	_, memory := machine.Memory()
	size := minPipe
	for size < maxPipe && uint64(size)*pipePart <= memory {
		size *= 2
	}
	return size
}
