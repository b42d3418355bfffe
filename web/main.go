package web

import (
	"context"
	"net/netip"
	"strings"

	"github.com/postern-router/postern/api"
	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/service"
)

// Spec is the process. It ends a minute after the last connection, or with the last login.
var Spec = service.Spec{
	Name: "www", Start: service.OnConnection, Main: runProcess,
	Calls:  login.Calls,
	Limits: service.Limits{Files: 96, Memory: 4 << 20},
}

// TLSSpec is the process over TLS. It shares no login with the other.
var TLSSpec = service.Spec{
	Name: "www-ssl", Start: service.OnConnection, Main: runProcess,
	Calls:  login.Calls,
	Limits: service.Limits{Files: 96},
}

// Extra is what PID 1 adds to the configuration (login.Process.Configure): the names of the router, for which browsers may
// ask; as many are taken as fit.
func Extra(names []string) string {
	const room = 1000
	text := ""
	for _, n := range names {
		if n = strings.ToLower(n); !strings.ContainsAny(n, " \t\r\n") && len(text)+len(n) < room {
			text += " " + n
		}
	}
	return text
}

// runProcess is the process.
func runProcess(p *service.Child) error {
	var l *login.Server
	check := func(ctx context.Context, from netip.Addr, name, secret string, rest bool) (Account, error) {
		entry, verdict, err := l.Password(ctx, login.Login{User: name, From: from, REST: rest}, secret)
		switch {
		case err != nil:
			return nil, err
		case verdict == login.Full:
			return nil, errFull
		case verdict != login.Right:
			return nil, nil
		}
		return api.LoggedIn{Entry: entry}, nil
	}
	first := func(ctx context.Context, from netip.Addr, name, new string) (Account, bool, error) {
		entry, verdict, err := l.FirstPassword(ctx, login.Login{User: name, From: from}, new)
		switch {
		case err != nil:
			return nil, false, err
		case verdict == login.Full:
			return nil, false, errFull
		case verdict != login.Right:
			return nil, verdict == login.Unset, nil
		}
		return api.LoggedIn{Entry: entry}, false, nil
	}
	s := newServer(check, first, func() func() { return l.Hold() }, func() string { return l.Extra() })
	l = login.NewServer(p, func(conn *login.Conn) {
		s.serve(conn.Context, conn.Conn, conn.From, conn.Secure, func(stays bool) {
			if stays {
				conn.Trust()
			} else {
				conn.Known()
			}
		})
	})
	return l.Run()
}
