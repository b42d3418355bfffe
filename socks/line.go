package socks

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// What is to be done for connections is done for one address after the other, one thing for each: a change of one
// connection's sockets, or a call. So an address with hundreds of connections that all have something to be done at once,
// which takes seconds on a slow router, has the others wait for one of these at a time.

const (
	// turnSize is how many things are done in a turn of the loop. Then it looks whether something has come that is for
	// an address which had nothing to wait for.
	turnSize = 16
	// maxCalls is how many calls are accepted before they are dealt with, so that it is not the kernel's queue, which has
	// one order for all addresses, that decides who waits.
	maxCalls = 64
	// callPatience is how long a call waits before others of its address are refused for want of room. If none were, the
	// kernel's queue would stay full of them, and drop who comes from elsewhere.
	callPatience = 200 * time.Millisecond
)

// call is a connection that was accepted and has no slot yet.
type call struct {
	fd   int
	src  netip.AddrPort
	came time.Duration // by the clock
}

// agenda is what is to be done for the connections of an address.
type agenda struct {
	changed fifo[*conn] // have events that were not handled yet
	calls   fifo[call]
	// called says that a call was the last thing that was done.
	called bool
	inLine bool // is in Server.line
}

func (a *agenda) empty() bool { return a.changed.len() == 0 && a.calls.len() == 0 }

// note has an event of one of c's sockets handled when it is the turn of c.
func (s *Server) note(c *conn, is role, events uint32) {
	c.events[is] |= uint16(events) // those that epoll_wait(2) returns have less than 16 bits
	if !c.changed {
		c.changed = true
		c.source.agenda.changed.push(c)
		s.queue(c.source)
	}
}

// noteCall has a call dealt with when it is the turn of its address.
func (s *Server) noteCall(fd int, src netip.AddrPort) {
	from := s.sourceOf(src.Addr())
	from.agenda.calls.push(call{fd, src, s.now})
	s.calls++
	s.queue(from)
}

// mostCalls returns the source that has the most calls that wait.
func (s *Server) mostCalls() *source {
	var most *source
	for _, from := range s.sources {
		if most == nil || from.agenda.calls.len() > most.agenda.calls.len() {
			most = from
		}
	}
	return most
}

// mayAccept reports whether a call may be accepted: if there is room for it or, if not, if those of the address that has the
// most have waited for long. Then refuseCall has to make room.
func (s *Server) mayAccept() bool {
	if s.calls < maxCalls {
		return true
	}
	calls := &s.mostCalls().agenda.calls
	return s.now-calls.items[calls.first].came >= callPatience
}

// refuseCall resets the last call of the address that has the most, if there are too many.
func (s *Server) refuseCall() {
	if s.calls <= maxCalls {
		return
	}
	last := s.mostCalls().agenda.calls.popLast()
	s.calls--
	reset(last.fd)
	closeSocket(last.fd)
	s.log.printf("connection refused: src=%s reason=%q", last.src, fmt.Sprintf("%d wait to be dealt with", maxCalls))
}

func (s *Server) queue(from *source) {
	if !from.agenda.inLine {
		from.agenda.inLine = true
		s.line.push(from)
	}
}

// serve does the next things that are to be done, n at most, and returns how many it did.
func (s *Server) serve(n int) (done int) {
	for done < n && s.line.len() > 0 {
		from := s.line.pop()
		from.agenda.inLine = false
		a := &from.agenda
		if a.calls.len() > 0 && (!a.called || a.changed.len() == 0) {
			a.called = true
			next := a.calls.pop()
			s.calls--
			s.take(next.fd, next.src)
			done++
		} else if a.changed.len() > 0 {
			a.called = false
			if s.serveChanged(a.changed.pop()) {
				done++
			}
		}
		if !a.empty() {
			s.queue(from)
		}
		s.forget(from)
	}
	return done
}

// serveChanged handles the events of c. It reports whether there was anything to do.
func (s *Server) serveChanged(c *conn) bool {
	events := c.events
	c.changed, c.events = false, [len(c.events)]uint16{}
	served := false
	for is, e := range events {
		if e != 0 && !c.over {
			s.event(c, role(is), uint32(e))
			served = true
		}
	}
	return served
}

// dropCalls closes the connections that wait for a slot.
func (s *Server) dropCalls() {
	for _, from := range s.sources {
		for from.agenda.calls.len() > 0 {
			unix.Close(from.agenda.calls.pop().fd)
			s.calls--
		}
		s.forget(from)
	}
}

// fifo is a queue. It takes new memory only when it holds more than before.
type fifo[T any] struct {
	items []T
	first int // of items
}

func (q *fifo[T]) len() int { return len(q.items) - q.first }

func (q *fifo[T]) push(item T) {
	if len(q.items) == cap(q.items) && q.first > len(q.items)/2 {
		n := copy(q.items, q.items[q.first:])
		clear(q.items[n:])
		q.items, q.first = q.items[:n], 0
	}
	q.items = append(q.items, item)
}

// popLast removes the last item of a queue that has one.
func (q *fifo[T]) popLast() T {
	var none T
	end := len(q.items) - 1
	item := q.items[end]
	q.items[end] = none
	if q.items = q.items[:end]; q.first == end {
		q.items, q.first = q.items[:0], 0
	}
	return item
}

// pop removes the first item of a queue that has one.
func (q *fifo[T]) pop() T {
	var none T
	item := q.items[q.first]
	q.items[q.first] = none
	if q.first++; q.first == len(q.items) {
		q.items, q.first = q.items[:0], 0
	}
	return item
}
