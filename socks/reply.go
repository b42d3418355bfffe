package socks

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/resolve"
)

// replyError is an error of which a client of version 5 is told by a code of its own.
type replyError struct {
	code byte
	text string
}

func (e replyError) Error() string { return e.text }

// notAllowed is a replyError for what the server does not allow.
func notAllowed(format string, args ...any) error {
	return replyError{reply5NotAllowed, fmt.Sprintf(format, args...)}
}

// nameError is an error of the lookup of a name.
type nameError struct{ error }

func (e nameError) Unwrap() error { return e.error }

// code5 returns the code of the reply of version 5 that says what err is. If several
// addresses were tried, it is what says most about one of them: that a machine answered
// comes before that none did, and that before what was not tried at all.
func code5(err error) byte {
	for _, c := range [...]struct {
		cause error
		code  byte
	}{
		{unix.ECONNREFUSED, reply5Refused},
		{unix.ETIMEDOUT, reply5TimedOut},
		{errConnectTimeout, reply5TimedOut},
		{errBindTimeout, reply5TimedOut},
		{errHandshakeTimeout, reply5TimedOut},
		{errIdle, reply5TimedOut},
		{unix.EHOSTUNREACH, reply5HostUnreachable},
		{unix.EHOSTDOWN, reply5HostUnreachable},
		{unix.ENETUNREACH, reply5NetworkUnreachable},
		{unix.ENETDOWN, reply5NetworkUnreachable},
		// A route of type prohibit, and a rule of the firewall that drops.
		{unix.EACCES, reply5NotAllowed},
		{unix.EPERM, reply5NotAllowed},
		{errDeniedNow, reply5NotAllowed},
		{errDisabled, reply5NotAllowed},
		{errVersion, reply5NotAllowed},
		{errPasswordNow, reply5NotAllowed},
		{errNewPassword, reply5NotAllowed},
		{errUserDisabled, reply5NotAllowed},
		{errUserRemoved, reply5NotAllowed},
		{resolve.ErrNoServers, reply5Failed},
	} {
		if errors.Is(err, c.cause) {
			return c.code
		}
	}
	if name := (nameError{}); errors.As(err, &name) {
		return reply5HostUnreachable
	}
	if told := (replyError{}); errors.As(err, &told) {
		return told.code
	}
	return reply5Failed
}

// appendRefusal appends what tells the client of c that it is refused, for err, in the
// version that it speaks and at the step at which it is.
func (c *conn) appendRefusal(b []byte, err error) []byte {
	switch {
	case c.version == version4:
		return appendReply4(b, replyRejected, netip.AddrPort{})
	case c.state == handshaking && c.step == stepFirst:
		return append(b, version5, methodRefused)
	case c.state == handshaking && c.step != stepRequest:
		return append(b, loginVersion, loginRefused)
	}
	return appendReply5(b, code5(err), netip.AddrPort{})
}

// refuse tells the client of c that it is refused, if it is still there.
func (c *conn) refuse(err error) {
	var b [maxReply]byte
	send(c.client, c.appendRefusal(b[:0], err))
}

// turnAway refuses a new client that gets no slot, and closes fd.
func (s *Server) turnAway(fd int) {
	c := conn{client: fd, version: version4}
	if s.cfg.Version == version5 {
		// What it speaks is mostly there already: clients do not wait to be accepted.
		var first [1]byte
		receive(fd, first[:], unix.MSG_PEEK)
		c.version = s.versionOf(first[0])
	}
	if s.socketMemory > 0 {
		s.limitBuffers(&conn{memory: leastMemory}, fd)
	}
	c.refuse(nil)
	s.dismiss(fd)
}

// grant tells the client of c that its request is granted, and the address of the reply.
func (c *conn) grant(addr netip.AddrPort) error {
	var b [maxReply]byte
	if c.version == version4 {
		return reply(c.client, appendReply4(b[:0], replyGranted, addr))
	}
	return reply(c.client, appendReply5(b[:0], reply5Granted, addr))
}

// maxReply is the length of the longest reply.
const maxReply = 10

// reply sends a message of the handshake. It never blocks: the messages of all steps fit
// into the smallest send buffer.
func reply(fd int, message []byte) error {
	if _, err := send(fd, message); err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	return nil
}
