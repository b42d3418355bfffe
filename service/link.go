package service

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxFrame is how long a frame may be, in bytes. A longer message goes in several. The kernel keeps it in a block of
	// 2 KiB, and who reads has room for one on its stack as long as the link is there: 16 KiB of stack with frames of 8 KiB, 4 with these.
	maxFrame = 1536
	// maxFiles is how many descriptors may come with a message.
	maxFiles = 8
	// MaxCalls is how many requests an end may have under way, those whose time was up
	// included: so it bounds what the other end has to keep.
	MaxCalls = 16
	// socketBuffer is how many bytes the kernel holds of what the other end has not read. It
	// counts its own part of each frame, too.
	socketBuffer = 64 << 10
)

// A frame is one packet of a SOCK_SEQPACKET socket: a byte of what it is, the message's
// number as a varint and a piece of its body. The first piece of a request begins with a byte
// for what is asked. The pieces of a message follow each other. A first piece where another
// was expected takes the place of a message whose sender gave up.
const (
	frameRequest = 1
	frameReply   = 2
	frameFailure = 3 // a reply whose body is an error text
	frameEnd     = 4 // no message but a wish, PID 1's: the process shall end in order
	frameKind    = 0x0F
	frameFirst   = 0x10
	frameLast    = 0x20
)

// Requests that are not a service's own.
const (
	opAlive  = 0   // every link answers it by itself, in turn with the others
	opOutput = 255 // a text of a process with a job, for a person
)

// maxOutput is how long such a text may be, in bytes.
const maxOutput = 4 << 10

// Request is what the other end of a link asks. Its body is read by the Decoder.
type Request struct {
	Op byte
	*Decoder
	id    uint64
	files []*os.File
}

// TakeFile returns the next descriptor that came with the request, which is then the caller's
// to close, or nil. What nobody takes is closed.
func (r *Request) TakeFile() *os.File {
	if len(r.files) == 0 {
		return nil
	}
	f := r.files[0]
	r.files = r.files[1:]
	return f
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Handler serves the requests of the other end, one at a time, in the order in which they
// came. It returns the body of the reply. An error is told to the other end, unless it wraps
// ErrBreach, or the request's body is not what it should be: that ends the link. ctx ends
// when the link does.
type Handler func(ctx context.Context, r *Request) (reply []byte, err error)

var (
	// ErrBreach is wrapped by the error of a link whose other end does not keep to the
	// protocol.
	ErrBreach = errors.New("breach of the control protocol")
	// ErrGone is the error of calls on a link that has ended.
	ErrGone = errors.New("the process has gone")
)

// RemoteError is what the other end's handler said.
type RemoteError string

func (e RemoteError) Error() string { return string(e) }

// Link is one end of the connection between PID 1 and a process. Either end asks and replies:
//
//   - A message arrives whole or not at all, with its descriptors. A call whose time is up
//     returns an error, its late reply is dropped, and the link lives on: no end ever has to
//     be quick.
//   - Everything is bounded: the length of a message, its descriptors, the requests under way.
//     An end that goes beyond that, or sends what is no message, ends the link.
//
// Its methods may be called from any goroutine.
type Link struct {
	conn    *net.UnixConn
	handler Handler
	max     int
	onEnd   func()        // called when nothing comes any more
	toEnd   func()        // called when the other end wants the process to end; nil of PID 1's end, which obeys nobody
	sending chan struct{} // holds an element while someone sends
	slots   chan struct{} // holds an element for each call under way

	mu       sync.Mutex
	last     uint64
	calls    map[uint64]chan message // a reply is awaited; nil if nobody does any more
	underWay int                     // requests of the other end that have no reply yet
	err      error

	requests chan *Request
	ended    chan struct{}      // closed when nothing comes any more
	ctx      context.Context    // of the handler
	stop     context.CancelFunc // ends ctx
	done     chan struct{}      // closed when the handler has returned, too
}

// message is a whole one, a request or a reply.
type message struct {
	kind  byte
	id    uint64
	body  []byte
	files []*os.File
}

// newLink takes over file, one end of a socket pair; start begins to use it. max is how many
// bytes the body of a message may have, in either direction.
func newLink(file *os.File, max int) (*Link, error) {
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return nil, fmt.Errorf("control link: %w", err)
	}
	packets, ok := conn.(*net.UnixConn)
	if !ok || conn.LocalAddr().Network() != "unixpacket" {
		conn.Close()
		return nil, errors.New("control link: not a Unix socket for packets")
	}
	return &Link{
		conn: packets, max: max, onEnd: func() {},
		sending: make(chan struct{}, 1), slots: make(chan struct{}, MaxCalls), calls: map[uint64]chan message{},
		requests: make(chan *Request, MaxCalls), ended: make(chan struct{}), done: make(chan struct{}),
	}, nil
}

// start has handler serve requests until the link or ctx has ended.
func (l *Link) start(ctx context.Context, handler Handler) {
	l.handler = handler
	l.ctx, l.stop = context.WithCancel(ctx)
	go l.read()
	go l.serve()
}

// socketPair returns the two ends of a link.
func socketPair() (parent, child *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("control link: %w", err)
	}
	for _, fd := range fds {
		// Less is not worth an error: the kernel's default holds more.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer)
	}
	return os.NewFile(uintptr(fds[0]), "control link"), os.NewFile(uintptr(fds[1]), "control link"), nil
}

// LinkPair returns both ends of a link as those of a Spec, in one process: for tests of what is
// above it. attach is as in Options, and child serves the child's end.
func LinkPair(ctx context.Context, s Spec, attach func(*Link) Handler, child Handler) (parentEnd, childEnd *Link, err error) {
	a, b, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	parentEnd, err = newLink(a, s.maxMessage())
	if err == nil {
		childEnd, err = newLink(b, s.maxMessage())
	}
	if err != nil {
		return nil, nil, err
	}
	parentEnd.start(ctx, attach(parentEnd))
	childEnd.start(ctx, child)
	return parentEnd, childEnd, nil
}

// Simulate runs the Main of a Spec in this process, unconfined, and returns PID 1's end of its link
// and what Main returns: for tests. The process ends with ctx, or when its link is closed.
func Simulate(ctx context.Context, s Spec, attach func(*Link) Handler) (*Link, <-chan error, error) {
	a, b, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	parent, err := newLink(a, s.maxMessage())
	if err != nil {
		return nil, nil, err
	}
	child, err := newLink(b, s.maxMessage())
	if err != nil {
		return nil, nil, err
	}
	parent.start(ctx, attach(parent))
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	child.onEnd, child.toEnd = cancel, cancel
	go func() {
		defer child.Close()
		defer cancel()
		ended <- s.Main(&Child{ctx: ctx, stop: cancel, link: child})
	}()
	return parent, ended, nil
}

// Call sends a request and waits for its reply, whose body decode reads; nil expects none. It
// returns the RemoteError of the other end's handler; the cause of ctx, when that ends, with
// the request under way still; ErrGone when the link ends. A reply that is not as decode reads
// it ends the link.
func (l *Link) Call(ctx context.Context, op byte, body []byte, decode func(*Decoder), files ...*os.File) error {
	if len(body) > l.max {
		return fmt.Errorf("a message of %d bytes, and %d is the most", len(body), l.max)
	}
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.ended:
		return ErrGone
	}
	reply := make(chan message, 1)
	l.mu.Lock()
	l.last++
	id := l.last
	l.calls[id] = reply
	l.mu.Unlock()
	if err := l.send(ctx, message{frameRequest, id, append([]byte{op}, body...), files}); err != nil {
		// The other end has not got all of it, and will not reply.
		l.forget(id)
		return err
	}
	select {
	case m := <-reply:
		return l.decode(m, decode)
	case <-l.ended:
		select {
		case m := <-reply: // it was the last that came
			return l.decode(m, decode)
		default:
			return ErrGone
		}
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		if _, ok := l.calls[id]; ok {
			l.calls[id] = nil // its slot is free when it comes
		}
		return context.Cause(ctx)
	}
}

func (l *Link) decode(m message, decode func(*Decoder)) error {
	if m.kind == frameFailure {
		return RemoteError(m.body)
	}
	d := NewDecoder(m.body)
	if decode != nil {
		decode(d)
	}
	if err := d.End(); err != nil {
		err = fmt.Errorf("%w: reply: %w", ErrBreach, err)
		l.fail(err)
		return err
	}
	return nil
}

// tellToEnd has the process at the other end told to end in order.
func (l *Link) tellToEnd(ctx context.Context) error {
	return l.send(ctx, message{kind: frameEnd})
}

// forget ends a call that has no reply to come.
func (l *Link) forget(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.calls[id]; ok {
		delete(l.calls, id)
		<-l.slots
	}
}

// send sends a message, whose body begins with the op if it is a request.
func (l *Link) send(ctx context.Context, m message) error {
	select {
	case l.sending <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.ended:
		return ErrGone
	}
	defer func() { <-l.sending }()
	// A write that waits, because the other end does not read, ends with ctx.
	unblocked := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(unblocked)
		l.conn.SetWriteDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-unblocked
			l.conn.SetWriteDeadline(time.Time{})
		}
	}()
	var rights []byte
	if len(m.files) > 0 {
		fds := make([]int, len(m.files))
		for i, f := range m.files {
			raw, err := f.SyscallConn()
			if err == nil {
				err = raw.Control(func(fd uintptr) { fds[i], err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
			}
			if err != nil {
				return fmt.Errorf("send a descriptor: %w", err)
			}
			defer unix.Close(fds[i])
		}
		rights = unix.UnixRights(fds...)
	}
	frame := make([]byte, 0, min(maxFrame, 1+binary.MaxVarintLen64+len(m.body)))
	for first := true; first || len(m.body) > 0; first = false {
		kind := m.kind
		if first {
			kind |= frameFirst
		}
		n := min(len(m.body), maxFrame-1-binary.MaxVarintLen64)
		if n == len(m.body) {
			kind |= frameLast
		}
		frame = append(binary.AppendUvarint(append(frame[:0], kind), m.id), m.body[:n]...)
		m.body = m.body[n:]
		if _, _, err := l.conn.WriteMsgUnix(frame, rights, nil); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return context.Cause(ctx)
			}
			if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed) {
				return ErrGone
			}
			return fmt.Errorf("control link: send: %w", err)
		}
		rights = nil
	}
	return nil
}

// read takes what comes, to the end of the link.
func (l *Link) read() {
	err := l.receive()
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.mu.Unlock()
	close(l.ended)
	l.onEnd()
	l.stop()
	close(l.requests)
	l.conn.Close()
}

// receive returns why nothing comes any more: nil if the other end has closed the link.
func (l *Link) receive() error {
	frame := make([]byte, maxFrame)
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	var partial message // whose last piece has not come
	defer func() { closeAll(partial.files) }()
	for {
		n, oobn, flags, _, err := l.conn.ReadMsgUnix(frame, oob)
		files, filesErr := descriptors(oob[:oobn])
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ECONNRESET):
			return nil
		case err != nil:
			return fmt.Errorf("control link: receive: %w", err)
		case filesErr != nil:
			return filesErr
		case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
			closeAll(files)
			return fmt.Errorf("%w: a frame of more than %d bytes or %d descriptors", ErrBreach, maxFrame, maxFiles)
		}
		piece, flag, err := parseFrame(frame[:n])
		if err != nil {
			closeAll(files)
			return err
		}
		if flag&frameFirst != 0 {
			closeAll(partial.files)
			partial = message{kind: piece.kind, id: piece.id, files: files}
		} else if partial.kind != piece.kind || partial.id != piece.id || len(files) > 0 {
			closeAll(files)
			return fmt.Errorf("%w: a piece of no message", ErrBreach)
		}
		if len(partial.body)+len(piece.body) > l.max+1 {
			return fmt.Errorf("%w: a message of more than %d bytes", ErrBreach, l.max)
		}
		partial.body = append(partial.body, piece.body...)
		if flag&frameLast == 0 {
			continue
		}
		whole := partial
		partial = message{}
		if err := l.deliver(whole); err != nil {
			closeAll(whole.files)
			return err
		}
	}
}

// parseFrame takes a frame apart. The body is part of b.
func parseFrame(b []byte) (m message, flag byte, err error) {
	if len(b) == 0 {
		return m, 0, fmt.Errorf("%w: an empty frame", ErrBreach)
	}
	m.kind, flag = b[0]&frameKind, b[0]&^frameKind
	id, n := binary.Uvarint(b[1:])
	if n <= 0 || m.kind < frameRequest || m.kind > frameEnd || flag&^(frameFirst|frameLast) != 0 {
		return m, 0, fmt.Errorf("%w: a frame that is none", ErrBreach)
	}
	m.id, m.body = id, b[1+n:]
	return m, flag, nil
}

// descriptors returns those of a control message.
func descriptors(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: descriptors: %w", ErrBreach, err)
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("%w: descriptors: %w", ErrBreach, err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "from a control link"))
		}
	}
	return files, nil
}

// deliver takes a message that is whole. It never waits.
func (l *Link) deliver(m message) error {
	if m.kind == frameRequest {
		if len(m.body) == 0 {
			return fmt.Errorf("%w: an empty request", ErrBreach)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.underWay == MaxCalls {
			return fmt.Errorf("%w: more than %d requests at once", ErrBreach, MaxCalls)
		}
		l.underWay++
		// There is room: what is in there is under way.
		l.requests <- &Request{Op: m.body[0], Decoder: NewDecoder(m.body[1:]), id: m.id, files: m.files}
		return nil
	}
	if m.kind == frameEnd && l.toEnd != nil && len(m.body)+len(m.files) == 0 {
		l.toEnd()
		return nil
	}
	if m.kind == frameEnd {
		return fmt.Errorf("%w: a wish that is none of this end's", ErrBreach)
	}
	if len(m.files) > 0 {
		return fmt.Errorf("%w: a reply with descriptors", ErrBreach)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	reply, ok := l.calls[m.id]
	if !ok {
		return fmt.Errorf("%w: a reply that nothing was asked for", ErrBreach)
	}
	delete(l.calls, m.id)
	<-l.slots
	if reply != nil {
		reply <- m
	}
	return nil
}

// serve answers requests to the end of the link, or of ctx.
func (l *Link) serve() {
	for l.ctx.Err() == nil {
		select {
		case <-l.ctx.Done():
		case r := <-l.requests:
			if r == nil {
				break // closed, and ctx has ended
			}
			if err := l.answer(r); err != nil {
				l.fail(err)
			}
		}
	}
	close(l.done)
	for r := range l.requests {
		closeAll(r.files)
	}
}

// answer serves one request.
func (l *Link) answer(r *Request) error {
	defer func() { closeAll(r.files) }()
	var body []byte
	var err error
	if r.Op != opAlive {
		body, err = l.handler(l.ctx, r)
	}
	if errors.Is(err, ErrBreach) {
		return err
	}
	// A handler that refused need not have read all.
	if wrong := r.Decoder.err; wrong != nil || err == nil && r.End() != nil {
		return fmt.Errorf("%w: request %d: %w", ErrBreach, r.Op, r.End())
	}
	reply := message{kind: frameReply, id: r.id, body: body}
	if err == nil && len(body) > l.max {
		err = fmt.Errorf("a reply of %d bytes, and %d is the most", len(body), l.max)
	}
	if err != nil {
		text := err.Error()
		reply = message{kind: frameFailure, id: r.id, body: []byte(text[:min(len(text), l.max)])}
	}
	l.mu.Lock()
	l.underWay--
	l.mu.Unlock()
	// It waits for the other end as long as that takes, and keeps no one else waiting but
	// further requests of that end.
	if err := l.send(context.Background(), reply); err != nil && !errors.Is(err, ErrGone) {
		return err
	}
	return nil
}

// fail ends the link with an error.
func (l *Link) fail(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.mu.Unlock()
	l.conn.Close()
}

// Close ends the link. Requests that came before are not served any more.
func (l *Link) Close() { l.conn.Close() }

// Done is closed when the link has ended and its handler has returned.
func (l *Link) Done() <-chan struct{} { return l.done }

// Err returns why the link ended; nil if either end closed it, or while it lives.
func (l *Link) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
