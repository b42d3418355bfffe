package socks

import "golang.org/x/sys/unix"

// Socket memory is given to a connection when it comes and taken back when it
// goes: a part of what is left, so that few connections have large buffers and
// many have small ones. It cannot be taken from one that is there, as bytes that
// wait for a slow receiver stay where they are.
const (
	// memoryPart: each connection gets one part in so many of what is left.
	memoryPart = 6
	// leastMemory is what any connection gets, in bytes, also when nothing is left.
	leastMemory = 4608
	// leastWindow is the window that goes with it: one packet.
	leastWindow = 1460
	// mostMemory is what the kernel gives at most on a small machine.
	mostMemory = 192 << 10
)

// giveMemory gives c its part of the memory for socket buffers.
func (s *Server) giveMemory(c *conn) {
	if s.socketMemory == 0 {
		return
	}
	c.memory = min(max((s.socketMemory-s.memoryGiven)/memoryPart, leastMemory), mostMemory)
	s.memoryGiven += c.memory
}

// limitBuffers bounds what the kernel holds for a socket of c. A connection fills
// two buffers if its receiver is slow: what came in, and what is to go out.
func (c *conn) limitBuffers(fd int) {
	if c.memory == 0 {
		return
	}
	size := c.memory / 2
	// The kernel doubles what it is told (socket(7)), and counts its own
	// bookkeeping, so that less fits. One packet always does.
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size/2)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, size/2)
	// The kernel's least buffers are larger than leastMemory's part. These bound what
	// waits for the receiver's window, and what the sender may send (tcp(7)).
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, size/2)
	if c.memory == leastMemory {
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, leastWindow)
	}
}
