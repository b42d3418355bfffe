package api

import (
	"context"

	"github.com/postern-router/postern/console/program"
	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/service"
)

// Spec is the process. It ends a minute after the last connection.
var Spec = service.Spec{
	Name: "api", Start: service.OnConnection, Main: runProcess,
	Calls:  login.Calls,
	Limits: service.Limits{Files: 64, Memory: 4 << 20},
}

// TLSSpec is the process of the API over TLS.
var TLSSpec = service.Spec{
	Name: "api-ssl", Start: service.OnConnection, Main: runProcess,
	Calls:  login.Calls,
	Limits: service.Limits{Files: 64},
}

// runProcess is the process.
func runProcess(p *service.Child) error {
	var s *login.Server
	s = login.NewServer(p, func(conn *login.Conn) {
		serve(conn.Context, conn, func(ctx context.Context, user, secret string) (Account, error) {
			entry, v, err := s.Password(ctx, login.Login{User: user, From: conn.From}, secret)
			switch {
			case err != nil:
				return nil, &trap{general, err.Error()}
			case v == login.Full:
				return nil, &trap{general, login.ErrFull.Error()}
			case v != login.Right:
				return nil, nil
			}
			return LoggedIn{entry}, nil
		}, conn.Trust)
	})
	return s.Run()
}

// LoggedIn is the Account of a login that PID 1 has admitted.
type LoggedIn struct{ *login.Entry }

// Session begins a session of the login.
func (l LoggedIn) Session() (Session, error) {
	conn, err := l.Entry.Session()
	if err != nil {
		return nil, err
	}
	return program.NewClient(conn), nil
}
