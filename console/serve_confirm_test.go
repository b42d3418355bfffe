package console

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestServeConfirms(t *testing.T) {
	for _, c := range []struct {
		line, question, answer, want string
		done                         []Request
		err                          error
	}{
		{"/system reboot", "Reboot, yes? [y/N]: ", "y", "system will reboot shortly\n", []Request{Reboot}, nil},
		{"/system reboot", "Reboot, yes? [y/N]: ", "", "action cancelled\n", nil, nil},
		{"/system shutdown", "Shutdown, yes? [y/N]: ", "y", "system will shutdown promptly\n", []Request{Shutdown}, nil},
		{"/system reset-configuration", "Dangerous! Reset anyway? [y/N]: ", " YES", "system configuration will be reset\n", []Request{ResetConfiguration}, nil},
		{"/system reset-configuration", "Dangerous! Reset anyway? [y/N]: ", "y", "failure: the flash is worn\n", []Request{ResetConfiguration}, errors.New("failure: the flash is worn")},
		{"/system reset-configuration", "Dangerous! Reset anyway? [y/N]: ", "n", "action cancelled\n", nil, nil},
		{"/system reset-configuration", "Dangerous! Reset anyway? [y/N]: ", "ye", "action cancelled\n", nil, nil},
	} {
		t.Run(c.line+" "+strings.TrimSpace(c.answer+" "+c.want), func(t *testing.T) {
			terminal, conn := net.Pipe()
			var done []Request
			served := make(chan error, 1)
			go func() {
				served <- Serve(conn, Handler{
					Execute: func(s *Session, line string) (Result, error) {
						return s.Execute(Default(), Live{Requests: []Request{ResetConfiguration}}, line)
					},
					Prompt:    func(*Session) string { return "> " },
					Confirmed: func(r Request) error { done = append(done, r); return c.err },
				})
			}()
			expect := expectFrames(t, terminal)
			expect(framePrompt, "> ")
			require.NoError(t, send(terminal, frameLine, c.line))
			expect(frameAsk, c.question)
			assert.Empty(t, done, "it was not asked for yet")
			require.NoError(t, send(terminal, frameLine, c.answer))
			expect(frameOutput, c.want)
			expect(framePrompt, "> ")
			assert.Equal(t, c.done, done)
			terminal.Close()
			require.NoError(t, <-served)
		})
	}
	t.Run("hang up at the question", func(t *testing.T) {
		terminal, conn := net.Pipe()
		served := make(chan error, 1)
		go func() {
			served <- Serve(conn, Handler{
				Execute:   func(*Session, string) (Result, error) { return Result{Request: ResetConfiguration}, nil },
				Prompt:    func(*Session) string { return "> " },
				Confirmed: func(Request) error { t.Error("reset without a yes"); return nil },
			})
		}()
		_, _, err := receive(terminal)
		require.NoError(t, err)
		require.NoError(t, send(terminal, frameLine, "reset"))
		_, _, err = receive(terminal)
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
				served <- Serve(conn, Handler{
					Execute: func(s *Session, line string) (Result, error) {
						return s.Execute(Default(), Live{Requests: []Request{Upgrade}}, line)
					},
					Prompt: func(*Session) string { return "> " },
					Stream: func(_ context.Context, r Result, out io.Writer) error {
						assert.Equal(t, UpgradeArguments{From: "http://h/f", Force: true}, r.Upgrade)
						_, err := io.WriteString(out, "writing\n")
						return err
					},
				})
			}()
			expect := expectFrames(t, terminal)
			expect(framePrompt, "> ")
			require.NoError(t, send(terminal, frameLine, "/system upgrade http://h/f force=yes"))
			expect(frameAsk, "Upgrade and restart? [y/N]: ")
			require.NoError(t, send(terminal, frameLine, c.answer))
			if c.answer == "y" {
				expect(frameFollow, "")
			}
			expect(frameOutput, c.want)
			expect(framePrompt, "> ")
			terminal.Close()
			require.NoError(t, <-served)
		})
	}
}

// expectFrames returns a function that takes the next frame for a terminal, which has to
// be that one.
func expectFrames(t *testing.T, terminal net.Conn) func(kind byte, text string) {
	return func(kind byte, text string) {
		t.Helper()
		k, got, err := receive(terminal)
		require.NoError(t, err)
		require.Equal(t, string(kind)+text, string(k)+got)
	}
}
