package router

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
)

// SessionSocket is where a console calls.
const SessionSocket = "/run/init.sock"

// maxSessions is how many there may be at once.
const maxSessions = 8

// acceptSessions serves whoever connects, until that fails.
func (r *Router) acceptSessions(l net.Listener, from session.Origin) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go r.Serve(conn, from)
	}
}

// Serve holds a session with the terminal at the other end of conn, and closes conn when it
// is over. From is where the terminal is. If there are too many sessions it refuses.
func (r *Router) Serve(conn net.Conn, from session.Origin) {
	select {
	case r.sessions <- struct{}{}:
		defer func() { <-r.sessions }()
	default:
		session.Refuse(conn, fmt.Sprintf("failure: %d sessions are there, and there can be no more", maxSessions))
		return
	}
	if err := session.Serve(conn, from, session.Handler{
		Execute: r.execute, Prompt: r.prompt, Complete: r.complete, Help: r.help,
		Import: r.importLines, HasPassword: r.hasPassword, Login: r.login, SetPassword: r.setPassword,
		SafeMode: r.safe, End: r.endSession, Confirmed: r.confirmed, Stream: r.stream,
	}); err != nil {
		r.log.Printf(kmsg.Info, "%v", err)
	}
}

// serveSessions listens for consoles.
func (r *Router) serveSessions() error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: SessionSocket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("sessions: %w", err)
	}
	// Whoever connects is admin: the consoles are, socksd is not.
	if err := errors.Join(os.Chown(SessionSocket, 0, consoleID), os.Chmod(SessionSocket, 0o660)); err != nil {
		l.Close()
		return fmt.Errorf("sessions: %w", err)
	}
	go func() {
		for {
			err := r.acceptSessions(l, session.Origin{Via: session.Console})
			r.log.Printf(kmsg.Error, "sessions: %v", err)
			time.Sleep(time.Second)
		}
	}()
	return nil
}
