package console

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// listen serves sessions on one router at a socket, until the test ends.
func listen(t *testing.T, socket string) {
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	r := router{cfg: Default()}
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			err = Serve(conn, func(s *Session, line string) (string, Request, error) {
				if line == "hang up" {
					conn.Close()
					return "", None, nil
				}
				result, err := s.Execute(r.cfg, r.live, line)
				r.cfg = result.Config
				if strings.HasPrefix(line, "# long") {
					result.Output = strings.Repeat("0123456789\n", 10000)
				}
				return result.Output, result.Request, err
			}, func(s *Session) string { return s.Prompt(r.cfg.Identity) })
			if err != nil && !errors.Is(err, net.ErrClosed) {
				t.Errorf("serve: %v", err)
			}
		}
	}()
}

func TestTerminal(t *testing.T) {
	long := strings.Repeat("x", MaxLine+1)
	for _, test := range []struct{ name, in, want string }{
		{"the manual's session", "ip socks access\nadd src-address=192.168.0.2 dst-port=21 \\\naction=allow\nprint\n/quit\nnot read\n",
			"[admin@postern] > [admin@postern] ip socks access> \\... [admin@postern] ip socks access> " +
				"Flags: X - disabled\n 0   src-address=192.168.0.2 dst-port=21 action=allow\n[admin@postern] ip socks access> "},
		{"end of input", "foo\r\n/ip", "[admin@postern] > bad command name foo (line 1 column 1); expected system, interface, ip, log, quit, export\n" +
			"[admin@postern] > [admin@postern] ip> "},
		{"end in a continuation", "foo \\\n", "[admin@postern] > \\... "},
		{"long line", long + "\n/ip\n", "[admin@postern] > line longer than 4096 bytes\n[admin@postern] > [admin@postern] ip> "},
		{"very long line", strings.Repeat(long, 5) + "\n/ip\n", "[admin@postern] > line longer than 4096 bytes\n[admin@postern] > [admin@postern] ip> "},
		{"long continuation", strings.Repeat("x\\\n", 2048) + "/ip\n", "[admin@postern] > " + strings.Repeat(`\... `, 1365) +
			"line longer than 4096 bytes\n[admin@postern] > " + strings.Repeat(`\... `, 682) + "bad command name xxx"},
		{"longest line", "#" + long[:MaxLine-1] + "\n/ip\n", "[admin@postern] > [admin@postern] > [admin@postern] ip> "},
		{"long output", "# long\n", "[admin@postern] > " + strings.Repeat("0123456789\n", 10000) + "[admin@postern] > "},
		{"connection lost", "hang up\n/ip\n", "[admin@postern] > \nConnection to the router lost; the last line may have had no effect.\n" +
			"[admin@postern] > [admin@postern] ip> "},
	} {
		t.Run(test.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "console")
			listen(t, socket)
			var out bytes.Buffer
			require.NoError(t, RunTerminal(socket, strings.NewReader(test.in), &out))
			if test.name == "long continuation" {
				assert.True(t, strings.HasPrefix(out.String(), test.want), out.String())
				return
			}
			assert.Equal(t, test.want, out.String())
		})
	}
}

func TestTerminalWaits(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "console")
	var out bytes.Buffer
	done := make(chan error)
	go func() { done <- RunTerminal(socket, strings.NewReader("/quit\n"), &out) }()
	time.Sleep(retry / 2)
	listen(t, socket)
	require.NoError(t, <-done)
	assert.Equal(t, fmt.Sprintf("Waiting for the router: dial unix %s: connect: no such file or directory\n[admin@postern] > ", socket), out.String())
}

type brokenTerminal struct{ writes int }

func (b *brokenTerminal) Write(p []byte) (int, error) {
	if b.writes--; b.writes < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func TestTerminalBreaks(t *testing.T) {
	for writes, want := range []string{"terminal: write: ", "terminal: write: "} {
		socket := filepath.Join(t.TempDir(), "console")
		listen(t, socket)
		err := RunTerminal(socket, strings.NewReader("/ip\n/ip\n"), &brokenTerminal{writes})
		require.ErrorIs(t, err, io.ErrClosedPipe)
		assert.ErrorContains(t, err, want)
	}
}

// A terminal that breaks the protocol ends its session, and nothing else.
func TestServeBadFrames(t *testing.T) {
	for _, test := range []struct{ name, send, want string }{
		{"hung up", "", ""},
		{"unknown", "X\x00\x00\x00\x00", `console session: unexpected frame 'X' of 0 bytes`},
		{"long line", "L\x00\x00\x10\x01" + strings.Repeat("x", 4097), `console session: unexpected frame 'L' of 4097 bytes`},
		{"width", "W\x00\x00\x00\x01x", `console session: unexpected frame 'W' of 1 bytes`},
		{"huge", "L\xff\xff\xff\xff", `console session: frame of 4294967295 bytes, more than 32768`},
		{"cut head", "L\x00", `console session: unexpected EOF`},
		{"cut", "L\x00\x00\x00\x05", `console session: read frame of 5 bytes: unexpected EOF`},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, far := net.Pipe()
			done := make(chan error)
			go func() {
				done <- Serve(far, func(*Session, string) (string, Request, error) {
					t.Error("executed")
					return "", None, nil
				}, func(*Session) string { return "> " })
			}()
			kind, text, err := receive(near)
			require.NoError(t, err)
			assert.Equal(t, "P> ", string(kind)+text)
			_, err = io.WriteString(near, test.send)
			require.NoError(t, err)
			near.Close()
			if err := <-done; test.want == "" {
				assert.NoError(t, err)
			} else {
				assert.EqualError(t, err, test.want)
			}
		})
	}
}

func TestWidth(t *testing.T) {
	near, far := net.Pipe()
	widths := make(chan int, 1)
	done := make(chan error)
	go func() {
		done <- Serve(far, func(s *Session, _ string) (string, Request, error) {
			widths <- s.Width
			return "", Quit, nil
		}, func(*Session) string { return "" })
	}()
	_, _, err := receive(near)
	require.NoError(t, err)
	require.NoError(t, send(near, frameWidth, "\x01\x02"))
	require.NoError(t, send(near, frameLine, ""))
	kind, _, err := receive(near)
	require.NoError(t, err)
	assert.Equal(t, byte(frameEnd), kind)
	assert.Equal(t, 258, <-widths)
	require.NoError(t, <-done)
}
