package socks

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// Socket memory is shared out by what connections can use. Each gets little when it
// comes. A direction whose bytes move is given more of what is left, and gives it
// back when it has been quiet with empty buffers: bytes that wait for a slow receiver
// stay where they are, so that nothing can be taken from a connection that is stuck.
// It is the kernel that holds a connection to what it has: a packet beyond the receive
// buffer is dropped, and sent again later.
const (
	// firstPart: a connection gets one part in so many of what is left when it comes.
	firstPart = 64
	// leastMemory is what any connection gets, in bytes, also when nothing is left.
	leastMemory = 4608
	// leastWindow is the window that goes with it: one packet.
	leastWindow = 1460

	// morePart: a direction that can use more gets one part in so many of what is left.
	morePart = 4
	// mostMemory is what it has at most, in bytes. Half of it is for what waits to be
	// read, of which packets fill a half: a window of some 128 kB.
	mostMemory = 512 << 10
	// A direction can use more that has moved as much as it has within growTime.
	growTime = 2 * time.Second
	// anyPart: of all the memory one part in so many is for whoever comes. The rest is
	// for those that have moved fastSize bytes within growTime: what waits on the way to
	// a slow receiver must not come by it. What the fast have counts against that rest alone, if it
	// fits there: who comes when others are fast must be able to become so too.
	anyPart  = 3
	fastSize = 1 << 20
	// quietTime is how often it is looked for directions that are quiet.
	quietTime = time.Second
)

// The kernel lets each socket have one packet to read and one to send whatever its limits
// are (tcp_data_queue and tcp_wmem_schedule in net/ipv4), so that 500 connections that are
// stuck both ways can hold more than a machine with 32 MB has. Before there is none:
const (
	// tightPart: with less than one part in so many of all memory free, nothing is accepted;
	tightPart = 10
	// shortPart: with less than this, the connections end that were silent for longest,
	shortPart = 12
	// mostSpared: so many of them in a turn of the loop.
	mostSpared = 8
)

var (
	errTight = errors.New("memory is short")
	errShort = errors.New("memory is short, and no connection was silent for longer")
)

// machineMemory is how much memory the machine has free, and in all, in bytes. What the
// kernel could free of cached files counts as taken: socket memory is bounded on routers,
// and a router's files are in memory.
func machineMemory() (free, all uint64) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, 0
	}
	return uint64(info.Freeram) * uint64(info.Unit), uint64(info.Totalram) * uint64(info.Unit)
}

// less reports whether less than one part in so many of the machine's memory is free,
// where socket memory is bounded at all.
func (s *Server) less(part uint64) bool {
	if s.socketMemory == 0 {
		return false
	}
	free, all := s.machineMemory()
	return free < all/part
}

// spare ends connections for the memory that they hold, if that is short.
func (s *Server) spare() {
	for range min(mostSpared, len(s.conns)) {
		if !s.less(shortPart) {
			return
		}
		var silent *conn
		for _, c := range s.conns {
			if silent == nil || c.last < silent.last {
				silent = c
			}
		}
		s.end(silent, errShort)
	}
}

// left is how much there is of the part for fast directions, or of that for all.
func (s *Server) left(apart bool) int {
	forAny := s.socketMemory / anyPart
	if apart {
		return s.socketMemory - forAny - s.memoryFast
	}
	return forAny - s.memoryAny
}

// account is where what f has is counted.
func (s *Server) account(f *flow) *int {
	if f.apart {
		return &s.memoryFast
	}
	return &s.memoryAny
}

// giveMemory gives c its first part of the memory for socket buffers.
func (s *Server) giveMemory(c *conn) {
	if s.socketMemory == 0 {
		return
	}
	c.memory = max(s.left(false)/firstPart, leastMemory)
	s.memoryAny += c.memory
}

// takeMemory takes back all that c has.
func (s *Server) takeMemory(c *conn) {
	s.memoryAny -= c.memory
	*s.account(&c.tx) -= c.tx.memory
	*s.account(&c.rx) -= c.rx.memory
}

// grow gives f more, if it can use that and there is some. It is called when bytes
// have moved that the sink took.
func (s *Server) grow(c *conn, f *flow, source, sink int) {
	if s.socketMemory == 0 {
		return
	}
	if s.now-f.since > growTime {
		f.since, f.before = s.now, f.moved
		return
	}
	has, moved := c.memory+f.memory, f.moved-f.before
	if moved < uint64(has) {
		return
	}
	fast, apart, more := f.fast || moved >= fastSize, f.apart, s.left(f.apart)/morePart
	if left := s.left(true); fast && !apart && left >= f.memory {
		// What it has is of the other part from now on.
		apart, more = true, min(left/morePart, left-f.memory)
	}
	more = min(more, mostMemory-has)
	if more < has/4 {
		more = 0 // not worth the system calls
	}
	if more == 0 && fast == f.fast && apart == f.apart {
		return
	}
	*s.account(f) -= f.memory
	f.since, f.before, f.fast, f.apart = s.now, f.moved, fast, apart
	f.memory += more
	*s.account(f) += f.memory
	c.limitSource(source, f)
	c.limitSink(sink, f)
	s.checkAt = min(s.checkAt, s.now+quietTime)
}

// shrink takes back what f was given more, if it has been quiet since the last look
// and holds nothing.
func (s *Server) shrink(c *conn, f *flow, source, sink int) {
	if f.memory == 0 && !f.fast {
		return
	}
	s.checkAt = min(s.checkAt, s.now+quietTime)
	if f.looked != f.moved {
		f.looked = f.moved
		return
	}
	for fd, request := range map[int]uint{source: unix.SIOCINQ, sink: unix.SIOCOUTQ} {
		if n, err := unix.IoctlGetInt(fd, request); n > 0 || err != nil {
			return
		}
	}
	*s.account(f) -= f.memory
	f.memory, f.fast, f.apart = 0, false, false
	c.limitSource(source, f)
	c.limitSink(sink, f)
}

// limitBuffers bounds what the kernel holds for a socket of c that is not connected
// with its other yet.
func (c *conn) limitBuffers(fd int) {
	c.limitSource(fd, &flow{})
	c.limitSink(fd, &flow{})
}

// limitSource bounds what waits at the source of f, a socket of c. That and what is to
// go out at its sink are what f fills if its receiver is slow: each has half.
func (c *conn) limitSource(fd int, f *flow) {
	if c.memory == 0 {
		return
	}
	size := (c.memory + f.memory) / 2
	// The kernel doubles what it is told (socket(7)), and counts its own
	// bookkeeping, so that less fits. One packet always does.
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size/2)
	// The window stays what it was at the start of the connection unless it is set too
	// (tcp(7)). And the kernel's least buffer is larger than leastMemory's part.
	window := size
	if c.memory == leastMemory && f.memory == 0 {
		window = leastWindow
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, window)
}

// limitSink bounds what waits at the sink of f, a socket of c.
func (c *conn) limitSink(fd int, f *flow) {
	if c.memory == 0 {
		return
	}
	size := (c.memory + f.memory) / 2
	if f.fast {
		// It is spliced: the kernel counts the bytes that wait, not the pages that hold them,
		// mostly two packets in each.
		size = size * 2 / 3
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, size/2)
	// What waits for the receiver's window; the kernel's least buffer is larger here too.
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, size/2)
}
