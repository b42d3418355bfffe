package session_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
	"github.com/postern-router/postern/console/session"
)

func TestOrigin(t *testing.T) {
	for want, o := range map[string]session.Origin{
		"ttyS0":       {Via: session.Console, Terminal: "ttyS0"},
		"192.168.0.2": {Via: "ssh", Address: netip.MustParseAddr("192.168.0.2")},
		"console":     {Via: session.Console},
	} {
		assert.Equal(t, want, o.String())
	}
}

// Login is told the origin of the session, and after it the session has the user's name.
func TestServeOrigin(t *testing.T) {
	from := session.Origin{Via: "ssh", Address: netip.MustParseAddr("192.168.0.2")}
	terminal, conn := net.Pipe()
	served, at := make(chan error, 1), make(chan session.Origin, 1)
	go func() {
		served <- session.Serve(conn, from, session.Handler{
			Unlocked: func() string { return "" },
			CheckPassword: func(s *session.Session, user, password string) bool {
				at <- s.Origin
				return user == "me" && password == "secret"
			},
			Prompt: func(s *session.Session) string { return s.Prompt("box") },
			Execute: func(s *session.Session, _ string) (console.Result, error) {
				return console.Result{Output: s.User + " " + s.Origin.String(), Request: console.Quit}, nil
			},
		})
	}()
	expect := expectFrames(t, terminal)
	expect(wire.Ask, "Login: ")
	require.NoError(t, wire.Send(terminal, wire.Line, "me"))
	expect(wire.Secret, "Password: ")
	require.NoError(t, wire.Send(terminal, wire.Line, "secret"))
	assert.Equal(t, from, <-at)
	expect(wire.Prompt, "[me@box] > ")
	require.NoError(t, wire.Send(terminal, wire.Line, ""))
	expect(wire.Output, "me 192.168.0.2")
	expect(wire.End, "")
	require.NoError(t, <-served)
}
