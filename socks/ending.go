package socks

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// What the kernel still has to send for a socket that is closed belongs to nobody: no bound of
// the server counts it, and a peer that acknowledges nothing, or reads nothing, keeps it for
// minutes. So a socket is closed when its peer has acknowledged everything, the end included,
// and reset when it takes too long for that.

// finish ends c once its peers have taken everything. Either both of its sides have ended and
// were told so, and err is nil, or both were silent for too long and have nothing to take but
// the end.
func (s *Server) finish(c *conn, err error) {
	limit := s.limits.deliver
	if err != nil {
		endWriting(c.client)
		endWriting(c.remote)
		limit = s.limits.dismiss
	}
	c.reason = err
	s.enter(c, ending, limit)
	s.deliver(c)
}

// deliver closes each socket of c whose peer has acknowledged everything, and ends c once both
// have. The poller reports when that may be: the kernel then changes the state of the socket,
// from FIN-WAIT-1, CLOSING or LAST-ACK (RFC 9293, section 3.6).
func (s *Server) deliver(c *conn) {
	unsent := 0
	for _, fd := range [...]*int{&c.client, &c.remote} {
		n := outstanding(*fd)
		if n == 0 && *fd != none {
			closeSocket(*fd)
			*fd = none
		}
		unsent += n
	}
	if c.client == none && c.remote == none {
		s.end(c, c.reason)
		return
	}
	if unsent < int(c.unsent) {
		c.heard(s.now)
	}
	c.unsent = int32(unsent)
	if unsent > bothEnds {
		s.checkAt = min(s.checkAt, s.now+lookTime)
	}
}

// bothEnds is what the ends of two sockets count among the bytes that their peers have not acknowledged.
const bothEnds = 2

// settled reports whether the peers of c have taken all that was sent to them.
func (s *Server) settled(c *conn) bool {
	return c.tx.pipe == nil && c.rx.pipe == nil && outstanding(c.client) == 0 && outstanding(c.remote) == 0
}

// late handles that a deadline of c has passed while it was ending.
func (s *Server) late(c *conn) {
	s.deliver(c)
	if c.over || c.overAt(s.cfg.ConnectionIdleTimeout) > s.now {
		return
	}
	if c.reason == nil {
		c.reason = errUndelivered
	}
	s.end(c, c.reason)
}

// undelivered handles that a socket of c has failed, although it may have had more to send.
func (s *Server) undelivered(c *conn, is role) {
	fd, from := &c.client, ofRemote
	if is == ofRemote {
		fd, from = &c.remote, ofClient
	}
	if *fd == none {
		return
	}
	if outstanding(*fd) > 1 {
		s.abort(c, fmt.Errorf("write: %w", failure(*fd)), from)
		return
	}
	// All that was missing is that it acknowledges the end.
	closeSocket(*fd)
	*fd = none
	s.deliver(c)
}

// maxDismissed is how many clients that were refused are waited for.
const maxDismissed = 32

// dismissed is the socket of a client that was refused, and has no slot any more.
type dismissed struct {
	fd    int
	until time.Duration // by the clock
}

// dismiss ends a refused client's connection, which is not watched any more, and leaves it a few seconds to take the reply.
// The one that was refused before maxDismissed others has no more time.
func (s *Server) dismiss(fd int) {
	if endWriting(fd) != nil {
		closeSocket(fd) // the client has gone
		return
	}
	if len(s.dismissed) == maxDismissed {
		s.dismissed[0].close()
		s.dismissed = append(s.dismissed[:0], s.dismissed[1:]...)
	}
	d := dismissed{fd, s.now + s.limits.dismiss}
	s.dismissed = append(s.dismissed, d)
	s.checkAt = min(s.checkAt, d.until)
}

// checkDismissed closes the connections of clients that had time enough.
func (s *Server) checkDismissed() {
	late := 0
	for ; late < len(s.dismissed) && s.dismissed[late].until <= s.now; late++ {
		s.dismissed[late].close()
	}
	s.dismissed = append(s.dismissed[:0], s.dismissed[late:]...)
	if len(s.dismissed) > 0 {
		s.checkAt = min(s.checkAt, s.dismissed[0].until)
	}
}

// close reads what has arrived, which would otherwise make the close a reset.
func (d dismissed) close() {
	resetUnsent(d.fd)
	for range 64 {
		if n, err := receive(d.fd, make([]byte, maxRequest), unix.MSG_TRUNC); n <= 0 || err != nil {
			break
		}
	}
	closeSocket(d.fd)
}
