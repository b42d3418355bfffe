package session_test

import (
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
	"github.com/postern-router/postern/console/session"
)

func TestServeImport(t *testing.T) {
	const end, paste = "\x00leave", "Paste the lines; one with a dot alone ends them, Ctrl-C gives them up.\n"
	for _, test := range []struct {
		name  string
		lines []string
		want  string
		text  string // that reached the handler
	}{
		{"lines", []string{"/ip socks", "set port=1", "."}, "Script loaded and executed successfully\n", "/ip socks\nset port=1\n"},
		{"given up", []string{"/ip socks", end}, "action cancelled\n", ""},
		{"a line too long", []string{strings.Repeat("x", console.MaxLine), "/ip socks", " . "}, "failure: line longer than 4095 bytes; nothing was changed\n", ""},
		{"too many", append(slices.Repeat([]string{strings.Repeat("#", 1000)}, console.MaxImport/1000), "."), "failure: longer than 262144 bytes; nothing was changed\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := ""
			terminal, served := serveImport(func(text string, a console.ImportArguments) {
				assert.False(t, a.Replace)
				got = text
			})
			expect := expectFrames(t, terminal)
			expect(wire.Prompt, "> ")
			require.NoError(t, wire.Send(terminal, wire.Line, "/import"))
			expect(wire.Output, paste)
			for _, line := range test.lines {
				expect(wire.Ask, "")
				if line == end {
					require.NoError(t, wire.Send(terminal, wire.Leave, ""))
					continue
				}
				require.NoError(t, wire.Send(terminal, wire.Line, line))
			}
			expect(wire.Output, test.want)
			expect(wire.Prompt, "> ")
			assert.Equal(t, test.text, got)
			terminal.Close()
			require.NoError(t, <-served)
		})
	}
}

// Before lines replace all that is set the user is asked.
func TestServeReplace(t *testing.T) {
	const paste = "Paste the lines; one with a dot alone ends them, Ctrl-C gives them up.\n"
	for answer, want := range map[string]string{"y": "/ip socks\n", "n": "", "": "", "/ip socks": ""} {
		t.Run(answer, func(t *testing.T) {
			got := ""
			terminal, served := serveImport(func(text string, a console.ImportArguments) {
				assert.True(t, a.Replace)
				got = text
			})
			expect := expectFrames(t, terminal)
			expect(wire.Prompt, "> ")
			require.NoError(t, wire.Send(terminal, wire.Line, "/import replace=yes"))
			expect(wire.Output, paste)
			for _, line := range []string{"/ip socks", "."} {
				expect(wire.Ask, "")
				require.NoError(t, wire.Send(terminal, wire.Line, line))
			}
			expect(wire.Ask, "Replace the whole configuration? [y/N]: ")
			require.NoError(t, wire.Send(terminal, wire.Line, answer))
			if want == "" {
				expect(wire.Output, "action cancelled\n")
			} else {
				expect(wire.Output, "Script loaded and executed successfully\n")
			}
			expect(wire.Prompt, "> ")
			assert.Equal(t, want, got)
			terminal.Close()
			require.NoError(t, <-served)
		})
	}
}

// Nobody is asked about what changes nothing.
func TestServeDryRun(t *testing.T) {
	terminal, served := serveImport(func(_ string, a console.ImportArguments) {
		assert.Equal(t, console.ImportArguments{Replace: true, SkipErrors: true, DryRun: true}, a)
	})
	expect := expectFrames(t, terminal)
	expect(wire.Prompt, "> ")
	require.NoError(t, wire.Send(terminal, wire.Line, "/import replace=yes skip-errors=yes dry-run=yes"))
	expect(wire.Output, "Paste the lines; one with a dot alone ends them, Ctrl-C gives them up.\n")
	expect(wire.Ask, "")
	require.NoError(t, wire.Send(terminal, wire.Line, "."))
	expect(wire.Output, "nothing was changed\n")
	expect(wire.Prompt, "> ")
	terminal.Close()
	require.NoError(t, <-served)
}

// serveImport serves a terminal whose imports take calls, and returns its other end and what
// Serve will return.
func serveImport(take func(text string, a console.ImportArguments)) (terminal net.Conn, served chan error) {
	terminal, conn := net.Pipe()
	served = make(chan error, 1)
	go func() {
		served <- session.Serve(conn, session.Origin{Via: session.Console}, session.Handler{
			Execute: func(s *session.Session, line string) (console.Result, error) {
				return s.Execute(console.Default(), console.Live{Requests: []console.Request{console.Import}}, line)
			},
			Prompt: func(*session.Session) string { return "> " },
			Import: func(_ *session.Session, text string, a console.ImportArguments) (console.Result, error) {
				take(text, a)
				if a.DryRun {
					return console.Result{Output: "nothing was changed\n"}, nil
				}
				return console.Result{}, nil
			},
		})
	}()
	return terminal, served
}
