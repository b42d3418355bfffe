package router

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/program"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
)

// errAsksPerson is the error of a command that asks for text.
var errAsksPerson = errors.New("failure: this command asks a person for text")

// programWidth is the width of the screen, in columns, for what a program has run as a line.
const programWidth = 80

// serveProgram holds the session of a program whose user has logged in, and closes conn when it is over.
func (r *Router) serveProgram(conn net.Conn, from session.Origin, user string, number uint64) {
	s := &session.Session{Session: console.Session{User: user, Width: programWidth}, Origin: from, Login: number}
	if err := program.Serve(conn, r.programHandler(s)); err != nil && !errors.Is(err, net.ErrClosed) {
		r.log.Printf(kmsg.Info, "session of a program by %s: %v", from.Via, err)
	}
}

func (r *Router) programHandler(s *session.Session) program.Handler {
	return program.Handler{
		Query: func(path string, where []console.Condition, proplist []string) ([]console.Row, error) {
			st := r.snapshot()
			return console.Query(st.config, r.live(st, s.User), path, where, proplist)
		},
		Do: func(path, command string, arguments []console.Argument) (console.Result, error) {
			return r.run(s, func(_ *console.Session, st state, live console.Live) (console.Result, error) {
				result, err := console.Do(st.config, live, path, command, arguments...)
				result.Ping.Rows = true
				return result, err
			})
		},
		Execute: func(line string) (console.Result, error) { return r.execute(s, line) },
		Finish: func(ctx context.Context, result console.Result, out io.Writer) error {
			r.logRequest(result.Request, s.User, s.Origin)
			switch result.Request {
			case console.Reboot, console.Shutdown, console.ResetConfiguration:
				return r.confirmed(result.Request)
			case console.Ping, console.Traceroute, console.Upgrade, console.CheckForUpdates:
				return r.stream(ctx, result, out)
			case console.Import:
				if result.Import.File == "" {
					return errAsksPerson
				}
				result, err := r.importLines(s, "", result.Import)
				if err == nil {
					_, err = io.WriteString(out, result.Output)
				}
				return err
			case console.ChangePassword:
				p := result.Password
				if !p.Given() {
					return errors.New("failure: expected old-password=, new-password= and confirm-new-password=")
				}
				if err := p.Check(); err != nil {
					return err
				}
				return r.setPassword(s, p.Old, p.New)
			case console.Edit:
				return errAsksPerson
			}
			return nil
		},
	}
}
