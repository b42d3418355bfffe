package terminal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/consoletest"
	"github.com/postern-router/postern/console/session"
)

// listen serves sessions of one router at a socket until the test ends.
func listen(t *testing.T, socket string, changes ...func(*consoletest.Router)) {
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	r := consoletest.Router{Config: console.Default()}
	for _, change := range changes {
		change(&r)
	}
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			err = session.Serve(conn, session.Origin{Via: session.Console}, r.Handler(conn))
			if err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "panic") {
				t.Errorf("serve: %v", err)
			}
		}
	}()
}

// dialer connects to the server at a socket.
func dialer(socket string) func() (net.Conn, error) {
	return func() (net.Conn, error) { return net.Dial("unix", socket) }
}

func TestTerminal(t *testing.T) {
	long := strings.Repeat("x", console.MaxLine+1)
	for _, test := range []struct{ name, in, want string }{
		{"the manual's session", "ip socks access\nadd src-address=192.168.0.2 dst-port=21 \\\naction=allow\nprint\n/quit\nnot read\n",
			"[admin@postern] > [admin@postern] ip socks access> \\... [admin@postern] ip socks access> " +
				"Flags: X - disabled\n 0   src-address=192.168.0.2 dst-port=21 action=allow\n[admin@postern] ip socks access> "},
		{"end of input", "foo\r\n/ip", "[admin@postern] > bad command name foo (line 1 column 1); expected system, interface, routing, ip, queue, log, quit, export\n" +
			"[admin@postern] > [admin@postern] ip> "},
		{"end in a continuation", "foo \\\n", "[admin@postern] > \\... "},
		{"long line", long + "\n/ip\n", "[admin@postern] > line longer than 4096 bytes\n[admin@postern] > [admin@postern] ip> "},
		{"very long line", strings.Repeat(long, 5) + "\n/ip\n", "[admin@postern] > line longer than 4096 bytes\n[admin@postern] > [admin@postern] ip> "},
		{"long continuation", strings.Repeat("x\\\n", 2048) + "/ip\n", "[admin@postern] > " + strings.Repeat(`\... `, 1365) +
			"line longer than 4096 bytes\n[admin@postern] > " + strings.Repeat(`\... `, 682) + "bad command name xxx"},
		{"longest line", "#" + long[:console.MaxLine-1] + "\n/ip\n", "[admin@postern] > [admin@postern] > [admin@postern] ip> "},
		{"long output", "long\n", "[admin@postern] > " + strings.Repeat("0123456789\n", 10000) + "[admin@postern] > "},
		{"connection lost", "hang up\n/ip\n", "[admin@postern] > \nConnection to the router lost; the last line may have had no effect.\n" +
			"[admin@postern] > [admin@postern] ip> "},
	} {
		t.Run(test.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "console")
			listen(t, socket)
			var out bytes.Buffer
			require.NoError(t, Run(dialer(socket), strings.NewReader(test.in), &out))
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
	done, failed := make(chan error), make(chan struct{})
	var once sync.Once
	go func() {
		done <- Run(func() (net.Conn, error) {
			conn, err := dialer(socket)()
			if err != nil {
				once.Do(func() { close(failed) })
			}
			return conn, err
		}, strings.NewReader("/quit\n"), &out)
	}()
	<-failed
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
		err := Run(dialer(socket), strings.NewReader("/ip\n/ip\n"), &brokenTerminal{writes})
		require.ErrorIs(t, err, io.ErrClosedPipe)
		assert.ErrorContains(t, err, want)
	}
}

// A terminal need not be a file: it can be a channel of SSH, whose client tells the width.
func TestTalkWithoutFiles(t *testing.T) {
	in, keys := io.Pipe()
	near, far := net.Pipe()
	defer near.Close()
	r := consoletest.Router{Config: console.Default()}
	served := make(chan error, 1)
	go func() { served <- session.Serve(far, session.Origin{Via: "ssh"}, r.Handler(far)) }()
	screen := newVT(40, func(s string) { t.Errorf("asked for its width, and answered %q", s) })
	terminal := New(in, screen, func() (int, int) { return 40, 24 })
	defer terminal.Close()
	talked := make(chan error, 1)
	go func() { talked <- terminal.Talk(near) }()
	_, err := io.WriteString(keys, "/ip so\tset po\t1081\r/ip socks pr\t\r\x04")
	require.NoError(t, err)
	require.NoError(t, <-talked)
	require.NoError(t, <-served)
	assert.Equal(t, "[admin@postern] > /ip socks set port=108\n1\n[admin@postern] > /ip socks print\n"+
		"                    enabled: no\n                       port: 1081\n    connection-idle-timeout: 2m\n"+
		"            max-connections: 200\n[admin@postern] >\n|", screen.String())
	assert.Empty(t, screen.unknown)
}
