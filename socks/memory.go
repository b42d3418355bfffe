package socks

import (
	"cmp"
	"errors"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Socket memory is divided by what connections can use. A new connection gets little. A
// direction whose bytes move gets more of what is left. It gives that back when nothing has
// moved for a while and its buffers are empty: bytes that wait for a slow receiver stay
// where they are, so nothing can be taken from a connection that is stuck. The kernel
// enforces the limits: it drops a packet that does not fit the receive buffer, and the peer
// sends it again.
const (
	// firstPart: a new connection gets 1/firstPart of what is left.
	firstPart = 64
	// leastMemory is what every connection gets, in bytes, even if nothing is left.
	leastMemory = 4608

	// morePart: a direction that can use more gets 1/morePart of what is left.
	morePart = 4
	// mostMemory is the most that a direction has, in bytes. Half of it is for bytes that
	// wait to be read, and packets fill only half of that: a window of some 128 kB.
	mostMemory = 512 << 10
	// A direction can use more if it has moved as much as its memory within growTime.
	growTime = 2 * time.Second
	// anyPart: 1/anyPart of all the memory is for every connection. The rest is for fast
	// directions, which have moved fastSize bytes within growTime: bytes that wait for a
	// slow receiver must not get it. The memory of a fast direction counts against that rest
	// alone, if it fits there, so that a connection that comes later can become fast too.
	anyPart  = 3
	fastSize = 1 << 20
)

// The kernel lets each socket have one packet to read and one to send whatever its limits
// are (tcp_data_queue and tcp_wmem_schedule in net/ipv4). So 500 connections that are stuck
// in both directions can hold more than a machine with 32 MB has. To keep some free:
const (
	// collectPart: with less than 1/collectPart, Go's garbage is collected and returned, at most
	// each collectPause. By itself Go keeps up to 1 MB of it, and returns it half a minute later.
	collectPart  = 6
	collectPause = 5 * time.Second
	// tightPart: with less than 1/tightPart of all memory free, nothing is accepted.
	tightPart = 10
	// shortPart: with less than 1/shortPart, the connections that were silent for longest
	// are closed,
	shortPart = 12
	// mostClosed of them in each turn of the loop, if they hold more than leastHeld bytes or take more than leastTaken
	// for them, which is more than the small packets of who talks. The others would give nearly nothing back: it is
	// not they who have the memory. If there are none of the others either, the loop looks again
	// after relievePause.
	mostClosed   = 8
	leastHeld    = leastWindow
	leastTaken   = 8 << 10
	relievePause = time.Second
)

var (
	errTight = errors.New("memory is short")
	errShort = errors.New("memory is short, and no connection was silent for longer")
)

// memoryBelow reports whether less than 1/part of the machine's memory is free. Where socket
// memory is not bounded, it never is.
func (s *Server) memoryBelow(part uint64) bool {
	if s.socketMemory == 0 {
		return false
	}
	free, all := s.machineMemory()
	return free < all/part
}

// relieveMemory closes connections if the machine's memory is short.
func (s *Server) relieveMemory() {
	if s.socketMemory == 0 {
		return
	}
	// Asked for once: that is a system call in each turn of the loop.
	free, all := s.machineMemory()
	if s.collectAt <= s.now && free < all/collectPart {
		s.collectAt = s.now + collectPause
		s.running.Go(debug.FreeOSMemory)
	}
	if s.relieveAt > s.now || free >= all/shortPart {
		return
	}
	silent := slices.SortedFunc(maps.Values(s.conns), func(a, b *conn) int { return cmp.Compare(a.last, b.last) })
	closed := 0
	for _, c := range silent {
		if c.over || !c.holdsMemory() {
			continue
		}
		s.end(c, errShort)
		if closed++; closed == mostClosed || !s.memoryBelow(shortPart) {
			return
		}
	}
	if closed == 0 {
		s.relieveAt = s.now + relievePause // others have the memory
	}
}

// holdsMemory reports whether the sockets of c hold more than leastHeld bytes, or packets that take more than
// leastTaken: of pieces of one byte, or behind a hole, there are few bytes to read.
func (c *conn) holdsMemory() bool {
	bytes, taken := 0, 0
	for _, fd := range [...]int{c.client, c.remote} {
		if fd != none {
			bytes += arrived(fd) + outstanding(fd)
			taken += held(fd)
		}
	}
	if u := c.udp; u != nil {
		taken += held(u.client.fd) + held(u.peers.fd)
	}
	return bytes > leastHeld || taken > leastTaken
}

// left returns how much is left of the part for fast directions (apart), or of that for all.
func (s *Server) left(apart bool) int {
	forAny := s.socketMemory / anyPart
	if apart {
		return s.socketMemory - forAny - s.memoryFast
	}
	return forAny - s.memoryAny
}

// account returns the sum in which the memory of f is counted.
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
	s.narrow(&c.tx)
	s.narrow(&c.rx)
	s.memoryAny -= c.memory
	*s.account(&c.tx) -= c.tx.memory
	*s.account(&c.rx) -= c.rx.memory
}

// grow gives f more memory, if f can use it and there is some. It is called when the sink
// has taken bytes.
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
		// What it has counts against the other part from now on.
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
	s.limitSource(c, source, f)
	c.limitSink(sink, f)
	s.checkAt = min(s.checkAt, s.now+lookTime)
}

// grown reports whether f has memory that shrink could take back.
func (f *flow) grown() bool { return f.memory != 0 || f.fast }

// shrinkBoth is shrink of both directions of c.
func (s *Server) shrinkBoth(c *conn) {
	near, far := c.client, c.remote
	if u := c.udp; u != nil {
		near, far = u.client.fd, u.peers.fd
	}
	s.shrink(c, &c.tx, near, far)
	s.shrink(c, &c.rx, far, near)
}

// shrink takes back the memory that grow gave f, if nothing has moved since the last look
// and its buffers are empty.
func (s *Server) shrink(c *conn, f *flow, source, sink int) {
	if !f.grown() {
		return
	}
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
	s.limitSource(c, source, f)
	c.limitSink(sink, f)
}

// limitBuffers bounds what the kernel holds for a socket of c before it is connected to
// the other side.
func (s *Server) limitBuffers(c *conn, fd int) {
	source, sink := &c.rx, &c.tx
	if fd == c.client {
		source, sink = sink, source
	}
	s.limitSource(c, fd, source)
	c.limitSink(fd, sink)
}

// limitSink bounds what waits to be sent at the sink of f, a socket of c.
func (c *conn) limitSink(fd int, f *flow) {
	if c.memory == 0 {
		return
	}
	size := (c.memory + f.memory) / 2
	if f.fast {
		// It is spliced. The kernel then counts the bytes that wait and not the pages that
		// hold them, which mostly have two packets each.
		size = size * 2 / 3
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, size/2)
	// What waits for the receiver's window; the kernel's least buffer is larger here too.
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, size/2)
}
