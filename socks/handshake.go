package socks

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"

	"golang.org/x/sys/unix"
)

// step is the message for which a connection in the state handshaking waits.
type step uint8

const (
	stepFirst    step = iota // a request of version 4, or a greeting of version 5
	stepLogin                // a name and password (RFC 1929)
	stepChecking             // none, until the password has been checked
	stepRequest              // a request of version 5
)

// readHandshake reads the messages of c's client that have come.
func (s *Server) readHandshake(c *conn) {
	for more := true; more; {
		more = s.readMessage(c)
	}
}

// readMessage reads one message of c's handshake once it is complete, and does what it asks
// for. It reports whether the next one may be there too.
func (s *Server) readMessage(c *conn) (more bool) {
	if c.step == stepChecking {
		return false
	}
	b, err := s.peek(c)
	if err == unix.EAGAIN {
		return false
	}
	if err != nil {
		s.end(c, fmt.Errorf("read request: %w", err))
		return false
	}
	if c.step == stepFirst {
		c.version = s.versionOf(b[0])
	}
	// What the parsers return of b is valid behind consume, which leaves b as it is.
	switch {
	case c.step == stepLogin:
		name, password, length, err := parseLogin(b)
		if s.consume(c, b, length, err) {
			s.login(c, name, password)
		}
	case c.step == stepRequest:
		r, length, err := parseRequest5(b)
		if s.consume(c, b, length, err) {
			s.requested(c, r)
		}
	case c.version == version5:
		methods, length, err := parseGreeting(b)
		return s.consume(c, b, length, err) && s.greeted(c, methods) && c.tx.try
	default:
		r, length, err := parseRequest4(b)
		if s.consume(c, b, length, err) {
			c.user = r.user
			s.requested(c, r)
		}
	}
	return false
}

// peek returns what has come of the message that c waits for, and perhaps of what follows it,
// in the server's buffer.
//
// A message stays in the kernel until it is complete, so that a connection needs no memory for
// it. What comes after the last one stays there for the relay. But if a byte of a message is
// urgent, the kernel shows nothing from there on until all that came before is read: see take.
func (s *Server) peek(c *conn) ([]byte, error) {
	b := s.scratch[:maxRequest]
	taken := copy(b, c.taken)
	n, err := receive(c.client, b[taken:], unix.MSG_PEEK)
	switch {
	case err != nil:
		return nil, err
	case n == 0 && taken > 0:
		return nil, io.ErrUnexpectedEOF
	case n == 0:
		return nil, io.EOF
	}
	return b[:taken+n], nil
}

// discard removes the first length bytes of what peek has returned.
func (c *conn) discard(b []byte, length int) error {
	taken := len(c.taken)
	c.taken = ""
	return discard(b[taken:length], c.receive)
}

// receive is receive of the client's socket.
func (c *conn) receive(p []byte, flags int) (int, error) { return receive(c.client, p, flags) }

// take reads what peek has returned, which is less than a message, and keeps it.
func (c *conn) take(b []byte) error {
	if err := discard(b[len(c.taken):], c.receive); err != nil {
		return err
	}
	c.taken = string(b)
	return nil
}

// versionOf returns the version in which a client is answered whose first byte is that.
func (s *Server) versionOf(first byte) uint8 {
	if s.cfg.Version == version5 && first != version4 {
		return version5
	}
	return version4
}

// consume removes a message of length bytes from the client's socket, of the bytes b that
// have come. It reports whether there is a message: with length 0 more bytes are needed, and
// err is what is wrong with the message. In that case c ends.
func (s *Server) consume(c *conn, b []byte, length int, err error) bool {
	if err != nil {
		s.end(c, fmt.Errorf("request: %w", err))
		return false
	}
	c.heard(s.now)
	switch {
	case length > 0:
		err = c.discard(b, length)
	case c.tx.urgent:
		if err = c.take(b); err == nil {
			s.readHandshake(c) // there may be more
			return false
		}
	case c.tx.ending:
		err = io.ErrUnexpectedEOF
	default:
		return false
	}
	if err != nil {
		s.end(c, fmt.Errorf("read request: %w", err))
		return false
	}
	c.tx.try = len(b) > length || c.tx.ending || c.tx.urgent // more has come already
	return true
}

// greeted chooses one of the methods that a client of version 5 offers. It reports whether
// the handshake goes on.
func (s *Server) greeted(c *conn, methods []byte) bool {
	method, next := byte(methodNone), stepRequest
	if s.needsPassword() {
		method, next = methodPassword, stepLogin
	}
	if bytes.IndexByte(methods, method) < 0 {
		s.end(c, fmt.Errorf("greeting: the client does not offer method %d", method))
		return false
	}
	c.step = next
	if err := reply(c.client, []byte{version5, method}); err != nil {
		s.end(c, err)
		return false
	}
	return true
}

// requested begins to do what a client asks for.
func (s *Server) requested(c *conn, r request) {
	if err := s.admit(c); err != nil {
		s.end(c, err)
		return
	}
	s.newAttempt(c, r)
	if r.command == commandAssociate {
		s.associate(c)
		return
	}
	if r.host == "" {
		s.resolved(c, c.attempt.one[:])
		return
	}
	if err := s.allowName(c); err != nil {
		s.end(c, err)
		return
	}
	s.enter(c, resolving, s.limits.connect)
	s.lookUp(c, r.host, func(addrs []netip.Addr, err error) {
		if err != nil {
			s.end(c, nameError{err})
			return
		}
		s.resolved(c, addrs)
	})
}
