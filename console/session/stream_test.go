package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/consoletest"
	"github.com/postern-router/postern/console/internal/wire"
	"github.com/postern-router/postern/console/session"
)

// streaming serves a session whose Stream is f. It returns the terminal's end, after the first
// prompt, and the result of Serve.
func streaming(t *testing.T, f func(ctx context.Context, r console.Result, out io.Writer) error) (net.Conn, <-chan error) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close() })
	r := consoletest.Router{Config: console.Default(), Live: console.Live{Requests: []console.Request{console.Ping, console.Traceroute}}}
	h := r.Handler(far)
	h.Stream = f
	served := make(chan error, 1)
	go func() { served <- session.Serve(far, session.Origin{Via: session.Console}, h) }()
	expectFrame(t, near, wire.Prompt, "[admin@postern] > ")
	return near, served
}

func expectFrame(t *testing.T, conn net.Conn, kind byte, text string) {
	t.Helper()
	gotKind, got, err := wire.Receive(conn)
	require.NoError(t, err)
	assert.Equal(t, string(kind)+text, string(gotKind)+got)
}

func TestStream(t *testing.T) {
	t.Run("to its end", func(t *testing.T) {
		conn, _ := streaming(t, func(_ context.Context, r console.Result, out io.Writer) error {
			fmt.Fprintf(out, "to %s\nhalf a ", r.Ping.Address)
			fmt.Fprint(out, "line\n\x1b[2J\nno end")
			return nil
		})
		for range 2 { // the session goes on
			require.NoError(t, wire.Send(conn, wire.Line, "/ping 10.0.0.1"))
			expectFrame(t, conn, wire.Follow, "")
			expectFrame(t, conn, wire.Output, "to 10.0.0.1\n")
			expectFrame(t, conn, wire.Output, "half a line\n")
			expectFrame(t, conn, wire.Output, "\\1B[2J\n")
			expectFrame(t, conn, wire.Output, "no end\n")
			expectFrame(t, conn, wire.Prompt, "[admin@postern] > ")
		}
	})
	t.Run("an error", func(t *testing.T) {
		conn, _ := streaming(t, func(context.Context, console.Result, io.Writer) error { return errors.New("broken") })
		require.NoError(t, wire.Send(conn, wire.Line, "/tool traceroute 10.0.0.1"))
		expectFrame(t, conn, wire.Follow, "")
		expectFrame(t, conn, wire.Output, "broken\n")
		expectFrame(t, conn, wire.Prompt, "[admin@postern] > ")
	})
	t.Run("a panic", func(t *testing.T) {
		conn, _ := streaming(t, func(context.Context, console.Result, io.Writer) error { panic("bad") })
		require.NoError(t, wire.Send(conn, wire.Line, "/ping 10.0.0.1"))
		expectFrame(t, conn, wire.Follow, "")
		kind, text, err := wire.Receive(conn)
		require.NoError(t, err)
		assert.Equal(t, byte(wire.Output), kind)
		assert.Contains(t, text, "failure: panic in session_test.TestStream")
		expectFrame(t, conn, wire.Prompt, "[admin@postern] > ")
	})
	t.Run("a long line", func(t *testing.T) {
		conn, _ := streaming(t, func(_ context.Context, _ console.Result, out io.Writer) error {
			_, err := fmt.Fprint(out, strings.Repeat("x", 10000), "\nnext\n")
			return err
		})
		require.NoError(t, wire.Send(conn, wire.Line, "/ping 10.0.0.1"))
		expectFrame(t, conn, wire.Follow, "")
		expectFrame(t, conn, wire.Output, strings.Repeat("x", 512)+"\n")
		expectFrame(t, conn, wire.Output, "next\n")
	})
	t.Run("a key", func(t *testing.T) {
		conn, _ := streaming(t, func(ctx context.Context, _ console.Result, out io.Writer) error {
			fmt.Fprintln(out, "begins")
			<-ctx.Done()
			fmt.Fprintln(out, "sum")
			return nil
		})
		for range 2 {
			require.NoError(t, wire.Send(conn, wire.Line, "/ping 10.0.0.1"))
			expectFrame(t, conn, wire.Follow, "")
			expectFrame(t, conn, wire.Output, "begins\n")
			require.NoError(t, wire.Send(conn, wire.Interrupt, ""))
			expectFrame(t, conn, wire.Output, "sum\n")
			expectFrame(t, conn, wire.Prompt, "[admin@postern] > ")
		}
	})
	t.Run("the session ends", func(t *testing.T) {
		ended := make(chan struct{})
		conn, served := streaming(t, func(ctx context.Context, _ console.Result, out io.Writer) error {
			<-ctx.Done()
			close(ended)
			return nil
		})
		require.NoError(t, wire.Send(conn, wire.Line, "/ping 10.0.0.1"))
		expectFrame(t, conn, wire.Follow, "")
		conn.Close()
		<-ended
		require.NoError(t, <-served)
	})
	t.Run("a frame that is none", func(t *testing.T) {
		conn, served := streaming(t, func(ctx context.Context, _ console.Result, _ io.Writer) error {
			<-ctx.Done()
			return nil
		})
		require.NoError(t, wire.Send(conn, wire.Line, "/ping 10.0.0.1"))
		expectFrame(t, conn, wire.Follow, "")
		require.NoError(t, wire.Send(conn, wire.Line, "/ping 10.0.0.1"))
		require.ErrorContains(t, <-served, "unexpected frame 'L'")
	})
}
