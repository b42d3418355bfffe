package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/login"
)

// maxSessions is how many there may be at once on serial lines.
const maxSessions = 8

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
	r.serve(conn, from, "", 0, false)
}

// serve holds a session. user has logged in already, by the login of that number, unless it is "". If first is set
// that was without a password, and it has to be set before anything else.
func (r *Router) serve(conn net.Conn, from session.Origin, user string, number uint64, first bool) {
	prompt := r.prompt
	if user == "" { // else it is known already who has logged in
		begun := false
		prompt = func(s *session.Session) string {
			if !begun {
				begun = true
				user = cmp.Or(s.User, console.Admin)
				r.active.enter(&activeUser{user: user, from: from, proof: proofOf(r.snapshot().config, user, ""), end: func() { closeRead(conn) }})
			}
			return r.prompt(s)
		}
		defer func() {
			if begun {
				r.active.leave(user, from, 0)
			}
		}()
	}
	setPassword := r.setPassword
	if first {
		setPassword = func(s *session.Session, old, new string) error {
			if !first {
				return r.setPassword(s, old, new)
			}
			err := r.changePassword(s, old, new, r.firstOnly(way{from.Via, from.TLS}, login.Login{User: user, From: from.Address}))
			first = err != nil
			return err
		}
	}
	if err := session.Serve(conn, from, session.Handler{
		User: user, Login: number, NeedsPassword: first, Execute: r.execute, Prompt: prompt, Complete: r.complete, Help: r.help,
		Note: func(*session.Session) string { return r.snapshot().config.LoginNote() }, Import: r.importLines, Unlocked: r.unlocked, HasPassword: r.hasPassword, CheckPassword: r.login, SetPassword: setPassword,
		SafeMode: r.safe, End: r.endSession,
		// The question may have been there for long.
		Confirmed: func(request console.Request) error {
			if !r.permits(user, console.Result{Request: request}) {
				return console.ErrNotPermitted
			}
			r.logRequest(request, user, from)
			return r.confirmed(request)
		},
		Stream: func(ctx context.Context, result console.Result, out io.Writer) error {
			if !r.permits(user, result) {
				return console.ErrNotPermitted
			}
			r.logRequest(result.Request, user, from)
			return r.stream(ctx, result, out)
		},
	}); err != nil && !errors.Is(err, net.ErrClosed) { // the console's process has gone, which is told
		r.log.Printf(kmsg.Info, "%v", err)
	}
}

// permits reports whether a user may still have a request carried out.
func (r *Router) permits(user string, result console.Result) bool {
	return r.snapshot().config.Denied(cmp.Or(user, console.Admin))&result.Needs() == 0
}

// closeRead ends a session: what it has asked is answered first.
func closeRead(conn net.Conn) {
	if half, ok := conn.(interface{ CloseRead() error }); ok {
		_ = half.CloseRead()
		return
	}
	conn.Close()
}
