package session_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/consoletest"
	"github.com/postern-router/postern/console/internal/wire"
	"github.com/postern-router/postern/console/session"
)

// A terminal that breaks the protocol ends only its own session.
func TestServeBadFrames(t *testing.T) {
	for _, test := range []struct{ name, send, want string }{
		{"hung up", "", ""},
		{"unknown", "Z\x00\x00\x00\x00", `console session: unexpected frame 'Z' of 0 bytes`},
		{"long line", "L\x00\x00\x10\x01" + strings.Repeat("x", 4097), `console session: unexpected frame 'L' of 4097 bytes`},
		{"width", "W\x00\x00\x00\x01x", `console session: unexpected frame 'W' of 1 bytes`},
		{"huge", "L\xff\xff\xff\xff", `console session: frame of 4294967295 bytes, more than 32768`},
		{"interrupt with a text", "I\x00\x00\x00\x01x", `console session: unexpected frame 'I' of 1 bytes`},
		{"a server's", "P\x00\x00\x00\x00", `console session: unexpected frame 'P' of 0 bytes`},
		{"cut head", "L\x00", `console session: unexpected EOF`},
		{"cut", "L\x00\x00\x00\x05", `console session: read frame of 5 bytes: unexpected EOF`},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, far := net.Pipe()
			done := make(chan error)
			go func() {
				done <- session.Serve(far, session.Origin{Via: session.Console}, session.Handler{
					Execute: func(*session.Session, string) (console.Result, error) {
						t.Error("executed")
						return console.Result{}, nil
					},
					Prompt: func(*session.Session) string { return "> " },
				})
			}()
			kind, text, err := wire.Receive(near)
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
		done <- session.Serve(far, session.Origin{Via: session.Console}, session.Handler{
			Execute: func(s *session.Session, _ string) (console.Result, error) {
				widths <- s.Width
				return console.Result{Request: console.Quit}, nil
			},
			Prompt: func(*session.Session) string { return "" },
		})
	}()
	_, _, err := wire.Receive(near)
	require.NoError(t, err)
	require.NoError(t, wire.Send(near, wire.Size, wire.EncodeSize(258, 0)))
	require.NoError(t, wire.Send(near, wire.Line, ""))
	kind, _, err := wire.Receive(near)
	require.NoError(t, err)
	assert.Equal(t, byte(wire.End), kind)
	assert.Equal(t, 258, <-widths)
	require.NoError(t, <-done)
}

// The answers of the server to what a terminal sends.
func TestServeAnswers(t *testing.T) {
	help := (&console.Session{Width: 40}).Help(console.Default(), console.Live{}, "/ip ")
	many, names := make([]console.Choice, 10000), make([]string, 10000)
	for i := range many {
		names[i] = fmt.Sprintf("name%04d", i)
		many[i].Name = names[i]
	}
	type frames []frame
	for _, test := range []struct {
		name       string
		sent, want frames
	}{
		{"complete", frames{{kind: wire.Complete, text: "/ip so"}}, frames{{kind: wire.Choices, text: "cks \nsocks"}}},
		{"complete one of many", frames{{kind: wire.Complete, text: "/ip socks access add s"}},
			frames{{kind: wire.Choices, text: "rc-\nsrc-address\nsrc-port"}}},
		{"complete a bad line", frames{{kind: wire.Complete, text: "/foo x"}}, frames{{kind: wire.Choices}}},
		{"complete too long a line", frames{{kind: wire.Complete, text: strings.Repeat("x", wire.MaxFrame)}}, frames{{kind: wire.Choices}}},
		{"more choices than fit", frames{{kind: wire.Complete, text: "many"}}, frames{{kind: wire.Choices, text: wire.EncodeChoices("", names[:wire.MaxFrame/9])}}},
		{"help", frames{{kind: wire.Size, text: wire.EncodeSize(40, 3)}, {kind: wire.Explain, text: "/ip "}}, frames{{kind: wire.Help, text: help}}},
		{"help that is too long", frames{{kind: wire.Explain, text: "many"}}, frames{{kind: wire.Help, text: strings.Repeat("x", wire.MaxFrame)}}},
		{"an interrupt too late", frames{{kind: wire.Interrupt}, {kind: wire.Line, text: "/ip"}}, frames{{kind: wire.Prompt, text: "[admin@postern] ip> "}}},
		{"replace", frames{{kind: wire.Line, text: "beat"}}, frames{
			{kind: wire.Output, text: "beat 1\nbeat 1\n"}, {kind: wire.Replace},
			{kind: wire.Output, text: "beat 2\nbeat 2\n"}, {kind: wire.Replace}}},
		{"replace what fits, then all below", frames{{kind: wire.Size, text: wire.EncodeSize(80, 2)}, {kind: wire.Line, text: "beat"}, {kind: wire.Whole}}, frames{
			{kind: wire.Output, text: "beat 1\n"}, {kind: wire.Replace, text: "-- [Q quit|D dump|C-z pause]"},
			{kind: wire.Output, text: "beat 2\nbeat 2\n"}, {kind: wire.Follow}}},
		{"another size while it repeats", frames{{kind: wire.Size, text: wire.EncodeSize(80, 24)}, {kind: wire.Line, text: "beat"}, {kind: wire.Size, text: wire.EncodeSize(80, 2)}}, frames{
			{kind: wire.Output, text: "beat 1\nbeat 1\n"}, {kind: wire.Replace, text: "-- [Q quit|D dump|C-z pause]"},
			{kind: wire.Output, text: "beat 2\n"}, {kind: wire.Replace, text: "-- [Q quit|D dump|C-z pause]"}}},
		{"all of it too late", frames{{kind: wire.Whole}, {kind: wire.Line, text: "/ip"}}, frames{{kind: wire.Prompt, text: "[admin@postern] ip> "}}},
		{"an interrupt ends it", frames{{kind: wire.Line, text: "follow"}, {kind: wire.Interrupt}}, frames{
			{kind: wire.Output, text: "beat 1\nbeat 1\n"}, {kind: wire.Follow}, {kind: wire.Prompt, text: consoletest.Prompt}}},
		{"quit", frames{{kind: wire.Line, text: "/quit"}}, frames{{kind: wire.End}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, far := consoletest.Socketpair(t)
			done := make(chan error)
			r := consoletest.Router{Config: console.Default()}
			handler := r.Handler(far)
			complete, explain := handler.Complete, handler.Help
			handler.Complete = func(s *session.Session, before string) (string, []console.Choice) {
				if before == "many" {
					return "", many
				}
				return complete(s, before)
			}
			handler.Help = func(s *session.Session, before string) string {
				if before == "many" {
					return strings.Repeat("x", wire.MaxFrame+1)
				}
				return explain(s, before)
			}
			go func() { done <- session.Serve(far, session.Origin{Via: session.Console}, handler) }()
			kind, text, err := wire.Receive(near)
			require.NoError(t, err)
			require.Equal(t, "P"+consoletest.Prompt, string(kind)+text)
			for _, f := range test.sent {
				require.NoError(t, wire.Send(near, f.kind, f.text))
			}
			for _, want := range test.want {
				kind, text, err := wire.Receive(near)
				require.NoError(t, err)
				assert.Equal(t, want, frame{kind: kind, text: text})
			}
			near.Close()
			<-done
		})
	}
}

// frame is a frame that is sent or received.
type frame struct {
	kind byte
	text string
}

// The server is PID 1: a panic of the handler ends only the session.
func TestServePanics(t *testing.T) {
	for _, test := range []struct {
		name    string
		handler session.Handler
		want    string
	}{
		{"division", session.Handler{Execute: func(s *session.Session, _ string) (console.Result, error) {
			return console.Result{Output: fmt.Sprint(1 / s.Width)}, nil
		}}, "panic: runtime error: integer divide by zero in session_test.TestServePanics.func1 (serve_test.go:"},
		{"panic", session.Handler{Execute: func(*session.Session, string) (console.Result, error) { panic("oh") }}, "panic: oh in session_test.TestServePanics.func2 (serve_test.go:"},
		{"nil function", session.Handler{}, "panic: runtime error: invalid memory address or nil pointer dereference in session.(*server).run (serve.go:"},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, far := net.Pipe()
			test.handler.Prompt = func(*session.Session) string { return "" }
			done := make(chan error)
			go func() { done <- session.Serve(far, session.Origin{Via: session.Console}, test.handler) }()
			_, _, err := wire.Receive(near)
			require.NoError(t, err)
			require.NoError(t, wire.Send(near, wire.Line, ""))
			require.ErrorContains(t, <-done, "console session: "+test.want)
			_, _, err = wire.Receive(near)
			assert.Equal(t, io.EOF, err, "the connection is closed")
		})
	}
}

// An error can have names in any encoding: no byte of it controls a terminal.
func TestServeErrors(t *testing.T) {
	near, far := net.Pipe()
	go func() {
		_ = session.Serve(far, session.Origin{Via: session.Console}, session.Handler{
			Prompt: func(*session.Session) string { return "" },
			Execute: func(*session.Session, string) (console.Result, error) {
				return console.Result{}, errors.New("queue T\xfcr \x9b2J:\nfull\u009b")
			},
		})
	}()
	defer near.Close()
	_, _, err := wire.Receive(near)
	require.NoError(t, err)
	require.NoError(t, wire.Send(near, wire.Line, ""))
	_, text, err := wire.Receive(near)
	require.NoError(t, err)
	assert.Equal(t, `queue T\FCr \9B2J:`+"\n"+`full\C2\9B`+"\n", text)
}

// slowConn makes write deadlines a thousand times shorter.
type slowConn struct{ net.Conn }

func (c slowConn) SetWriteDeadline(t time.Time) error {
	return c.Conn.SetWriteDeadline(time.Now().Add(time.Until(t) / 1000))
}

// A session ends if its terminal stops reading.
func TestServeWriteTimeout(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	r := consoletest.Router{Config: console.Default()}
	done := make(chan error)
	go func() { done <- session.Serve(slowConn{far}, session.Origin{Via: session.Console}, r.Handler(far)) }()
	_, _, err := wire.Receive(near)
	require.NoError(t, err)
	require.NoError(t, wire.Send(near, wire.Line, "long"))
	require.ErrorIs(t, <-done, os.ErrDeadlineExceeded)
}

// Whatever a terminal sends, the session ends without a panic, and the server sends only valid
// frames.
func FuzzServe(f *testing.F) {
	for _, in := range []string{
		"", "L\x00\x00\x00\x03/ip", "W\x00\x00\x00\x02\x00\x28?\x00\x00\x00\x00", "T\x00\x00\x00\x06/ip so", "I\x00\x00\x00\x00",
		"L\x00\x00\x00\x04beatI\x00\x00\x00\x00L\x00\x00\x00\x05/quit", "L\xff\xff\xff\xff", "L\x00\x00\x80\x00", "T\x00\x00\x00",
	} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		near, far := net.Pipe()
		r := consoletest.Router{Config: console.Default()}
		done := make(chan error)
		go func() { done <- session.Serve(far, session.Origin{Via: session.Console}, r.Handler(far)) }()
		go func() { _, _ = near.Write(in); near.Close() }()
		go func() {
			for {
				kind, text, err := wire.Receive(near)
				if err != nil {
					return
				}
				if strings.IndexByte("ORFCHPASE", kind) < 0 {
					t.Errorf("server sent %q", kind)
				}
				if insert, names := wire.DecodeChoices(text); kind == wire.Choices && wire.EncodeChoices(insert, names) != text {
					t.Errorf("choices %q", text)
				}
			}
		}()
		if err := <-done; err != nil && strings.Contains(err.Error(), "panic") && !bytes.Contains(in, []byte("panic")) {
			t.Error(err)
		}
	})
}
