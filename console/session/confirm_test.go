package session_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
	"github.com/postern-router/postern/console/session"
)

func TestServeConfirms(t *testing.T) {
	for _, c := range []struct {
		line, question, answer, want string
		done                         []console.Request
		err                          error
	}{
		{"/system reboot", "Reboot, yes? [y/N]: ", "y", "system will reboot shortly\n", []console.Request{console.Reboot}, nil},
		{"/system reboot", "Reboot, yes? [y/N]: ", "", "action cancelled\n", nil, nil},
		{"/system shutdown", "Shutdown, yes? [y/N]: ", "y", "system will shutdown promptly\n", []console.Request{console.Shutdown}, nil},
		{"/system reset-configuration", "Dangerous! Reset anyway? [y/N]: ", " YES", "system configuration will be reset\n", []console.Request{console.ResetConfiguration}, nil},
		{"/system reset-configuration", "Dangerous! Reset anyway? [y/N]: ", "y", "failure: the flash is worn\n", []console.Request{console.ResetConfiguration}, errors.New("failure: the flash is worn")},
		{"/system reset-configuration", "Dangerous! Reset anyway? [y/N]: ", "n", "action cancelled\n", nil, nil},
		{"/system reset-configuration", "Dangerous! Reset anyway? [y/N]: ", "ye", "action cancelled\n", nil, nil},
	} {
		t.Run(c.line+" "+strings.TrimSpace(c.answer+" "+c.want), func(t *testing.T) {
			terminal, conn := net.Pipe()
			var done []console.Request
			served := make(chan error, 1)
			go func() {
				served <- session.Serve(conn, session.Origin{Via: session.Console}, session.Handler{
					Execute: func(s *session.Session, line string) (console.Result, error) {
						return s.Execute(console.Default(), console.Live{Requests: []console.Request{console.ResetConfiguration}}, line)
					},
					Prompt:    func(*session.Session) string { return "> " },
					Confirmed: func(r console.Request) error { done = append(done, r); return c.err },
				})
			}()
			expect := expectFrames(t, terminal)
			expect(wire.Prompt, "> ")
			require.NoError(t, wire.Send(terminal, wire.Line, c.line))
			expect(wire.Ask, c.question)
			assert.Empty(t, done, "it was not asked for yet")
			require.NoError(t, wire.Send(terminal, wire.Line, c.answer))
			expect(wire.Output, c.want)
			expect(wire.Prompt, "> ")
			assert.Equal(t, c.done, done)
			terminal.Close()
			require.NoError(t, <-served)
		})
	}
	t.Run("hang up at the question", func(t *testing.T) {
		terminal, conn := net.Pipe()
		served := make(chan error, 1)
		go func() {
			served <- session.Serve(conn, session.Origin{Via: session.Console}, session.Handler{
				Execute: func(*session.Session, string) (console.Result, error) {
					return console.Result{Request: console.ResetConfiguration}, nil
				},
				Prompt:    func(*session.Session) string { return "> " },
				Confirmed: func(console.Request) error { t.Error("reset without a yes"); return nil },
			})
		}()
		_, _, err := wire.Receive(terminal)
		require.NoError(t, err)
		require.NoError(t, wire.Send(terminal, wire.Line, "reset"))
		_, _, err = wire.Receive(terminal)
		require.NoError(t, err)
		terminal.Close()
		require.NoError(t, <-served)
	})
}

func TestServeUpgrade(t *testing.T) {
	for _, c := range []struct{ answer, want string }{{"y", "writing\n"}, {"n", "action cancelled\n"}} {
		t.Run(c.answer, func(t *testing.T) {
			terminal, conn := net.Pipe()
			served := make(chan error, 1)
			go func() {
				served <- session.Serve(conn, session.Origin{Via: session.Console}, session.Handler{
					Execute: func(s *session.Session, line string) (console.Result, error) {
						return s.Execute(console.Default(), console.Live{Requests: []console.Request{console.Upgrade}}, line)
					},
					Prompt: func(*session.Session) string { return "> " },
					Stream: func(_ context.Context, r console.Result, out io.Writer) error {
						assert.Equal(t, console.UpgradeArguments{From: "http://h/f", Force: true}, r.Upgrade)
						_, err := io.WriteString(out, "writing\n")
						return err
					},
				})
			}()
			expect := expectFrames(t, terminal)
			expect(wire.Prompt, "> ")
			require.NoError(t, wire.Send(terminal, wire.Line, "/system upgrade http://h/f force=yes"))
			expect(wire.Ask, "Upgrade and restart? [y/N]: ")
			require.NoError(t, wire.Send(terminal, wire.Line, c.answer))
			if c.answer == "y" {
				expect(wire.Follow, "")
			}
			expect(wire.Output, c.want)
			expect(wire.Prompt, "> ")
			terminal.Close()
			require.NoError(t, <-served)
		})
	}
}

// expectFrames returns a function that receives a frame and compares it.
func expectFrames(t *testing.T, terminal net.Conn) func(kind byte, text string) {
	return func(kind byte, text string) {
		t.Helper()
		k, got, err := wire.Receive(terminal)
		require.NoError(t, err)
		require.Equal(t, string(kind)+text, string(k)+got)
	}
}
