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
func (r *Router) acceptSessions(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		select {
		case r.sessions <- struct{}{}:
			go func() {
				defer func() { <-r.sessions }()
				r.serveSession(conn)
			}()
		default:
			session.Refuse(conn, fmt.Sprintf("failure: %d sessions are there, and there can be no more", maxSessions))
		}
	}
}

func (r *Router) serveSession(conn net.Conn) {
	if err := session.Serve(conn, session.Origin{Via: session.Console}, session.Handler{
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
			err := r.acceptSessions(l)
			r.log.Printf(kmsg.Error, "sessions: %v", err)
			time.Sleep(time.Second)
		}
	}()
	return nil
}
