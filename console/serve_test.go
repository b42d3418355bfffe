package console

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// handler is the router, and lines that no router has.
func (r *router) handler(conn net.Conn) Handler {
	beats := 0
	if r.optional == nil {
		r.optional = func() Handler { return Handler{} }
	}
	o := r.optional()
	return Handler{
		HasPassword: o.HasPassword, Login: o.Login, SetPassword: o.SetPassword, SafeMode: o.SafeMode, End: o.End,
		Execute: func(s *Session, line string) (Result, error) {
			switch word, _, _ := strings.Cut(line, " "); {
			case line == "hang up":
				conn.Close()
				return Result{}, nil
			case line == "panic":
				var list []int
				return Result{}, fmt.Errorf("not reached: %d", list[beats])
			case line == "beat", line == "follow":
				beats++
				return Result{Output: fmt.Sprintf("beat %d\nbeat %d\n", beats, beats), Repeat: 50 * time.Millisecond, Follow: line == "follow"}, nil
			case word == "long":
				return Result{Output: strings.Repeat("0123456789\n", 10000)}, nil
			}
			result, err := s.Execute(r.cfg, r.live, line)
			r.cfg = result.Config
			return result, err
		},
		Prompt:   func(s *Session) string { return s.Prompt(r.cfg.Identity) },
		Complete: func(s *Session, before string) (string, []Choice) { return s.Complete(r.cfg, r.live, before) },
		Help:     func(s *Session, before string) string { return s.Help(r.cfg, r.live, before) },
	}
}

// listen serves sessions on one router at a socket, until the test ends.
func listen(t *testing.T, socket string, changes ...func(*router)) {
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	r := router{cfg: Default()}
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
			err = Serve(conn, r.handler(conn))
			if err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "panic") {
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
		{"long output", "long\n", "[admin@postern] > " + strings.Repeat("0123456789\n", 10000) + "[admin@postern] > "},
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
				done <- Serve(far, Handler{
					Execute: func(*Session, string) (Result, error) {
						t.Error("executed")
						return Result{}, nil
					},
					Prompt: func(*Session) string { return "> " },
				})
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
		done <- Serve(far, Handler{
			Execute: func(s *Session, _ string) (Result, error) {
				widths <- s.Width
				return Result{Request: Quit}, nil
			},
			Prompt: func(*Session) string { return "" },
		})
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

// The terminal asks, the server answers.
func TestServeAnswers(t *testing.T) {
	help := (&Session{Width: 40}).Help(Default(), Live{}, "/ip ")
	many := make([]Choice, 10000)
	for i := range many {
		many[i].Name = fmt.Sprintf("name%04d", i)
	}
	type frames []frame
	for _, test := range []struct {
		name       string
		sent, want frames
	}{
		{"complete", frames{{kind: frameComplete, text: "/ip so"}}, frames{{kind: frameChoices, text: "cks \nsocks"}}},
		{"complete one of many", frames{{kind: frameComplete, text: "/ip socks access add s"}},
			frames{{kind: frameChoices, text: "rc-\nsrc-address\nsrc-port"}}},
		{"complete a bad line", frames{{kind: frameComplete, text: "/foo x"}}, frames{{kind: frameChoices}}},
		{"complete too long a line", frames{{kind: frameComplete, text: strings.Repeat("x", maxFrame)}}, frames{{kind: frameChoices}}},
		{"more choices than fit", frames{{kind: frameComplete, text: "many"}}, frames{{kind: frameChoices, text: encodeChoices("", many[:maxFrame/9])}}},
		{"help", frames{{kind: frameWidth, text: "\x00\x28"}, {kind: frameExplain, text: "/ip "}}, frames{{kind: frameHelp, text: help}}},
		{"help that is too long", frames{{kind: frameExplain, text: "many"}}, frames{{kind: frameHelp, text: strings.Repeat("x", maxFrame)}}},
		{"an interrupt too late", frames{{kind: frameInterrupt}, {kind: frameLine, text: "/ip"}}, frames{{kind: framePrompt, text: "[admin@postern] ip> "}}},
		{"replace", frames{{kind: frameLine, text: "beat"}}, frames{
			{kind: frameOutput, text: "beat 1\nbeat 1\n"}, {kind: frameReplace},
			{kind: frameOutput, text: "beat 2\nbeat 2\n"}, {kind: frameReplace}}},
		{"an interrupt ends it", frames{{kind: frameLine, text: "follow"}, {kind: frameInterrupt}}, frames{
			{kind: frameOutput, text: "beat 1\nbeat 1\n"}, {kind: frameFollow}, {kind: framePrompt, text: prompt}}},
		{"quit", frames{{kind: frameLine, text: "/quit"}}, frames{{kind: frameEnd}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, far := socketpair(t)
			done := make(chan error)
			r := router{cfg: Default()}
			handler := r.handler(far)
			complete, explain := handler.Complete, handler.Help
			handler.Complete = func(s *Session, before string) (string, []Choice) {
				if before == "many" {
					return "", many
				}
				return complete(s, before)
			}
			handler.Help = func(s *Session, before string) string {
				if before == "many" {
					return strings.Repeat("x", maxFrame+1)
				}
				return explain(s, before)
			}
			go func() { done <- Serve(far, handler) }()
			kind, text, err := receive(near)
			require.NoError(t, err)
			require.Equal(t, "P"+prompt, string(kind)+text)
			for _, f := range test.sent {
				require.NoError(t, send(near, f.kind, f.text))
			}
			for _, want := range test.want {
				kind, text, err := receive(near)
				require.NoError(t, err)
				assert.Equal(t, want, frame{kind: kind, text: text})
			}
			near.Close()
			<-done
		})
	}
}

func socketpair(t *testing.T) (near, far net.Conn) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	require.NoError(t, err)
	defer l.Close()
	near, err = net.Dial("unix", l.Addr().String())
	require.NoError(t, err)
	far, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	return near, far
}

// PID 1 holds the other end: what goes wrong there ends the session alone.
func TestServePanics(t *testing.T) {
	for _, test := range []struct {
		name    string
		handler Handler
		want    string
	}{
		{"division", Handler{Execute: func(s *Session, _ string) (Result, error) {
			return Result{Output: fmt.Sprint(1 / s.Width)}, nil
		}}, "panic: runtime error: integer divide by zero in console.TestServePanics.func1 (serve_test.go:"},
		{"panic", Handler{Execute: func(*Session, string) (Result, error) { panic("oh") }}, "panic: oh in console.TestServePanics.func2 (serve_test.go:"},
		{"nil function", Handler{}, "panic: runtime error: invalid memory address or nil pointer dereference in console.(*server).run (serve.go:"},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, far := net.Pipe()
			test.handler.Prompt = func(*Session) string { return "" }
			done := make(chan error)
			go func() { done <- Serve(far, test.handler) }()
			_, _, err := receive(near)
			require.NoError(t, err)
			require.NoError(t, send(near, frameLine, ""))
			require.ErrorContains(t, <-done, "console session: "+test.want)
			_, _, err = receive(near)
			assert.Equal(t, io.EOF, err, "the connection is closed")
		})
	}
}

// slowConn makes the time run faster for what is written.
type slowConn struct{ net.Conn }

func (c slowConn) SetWriteDeadline(t time.Time) error {
	return c.Conn.SetWriteDeadline(time.Now().Add(time.Until(t) / 1000))
}

// A terminal that takes nothing does not hold the session for ever.
func TestServeWriteTimeout(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	r := router{cfg: Default()}
	done := make(chan error)
	go func() { done <- Serve(slowConn{far}, r.handler(far)) }()
	_, _, err := receive(near)
	require.NoError(t, err)
	require.NoError(t, send(near, frameLine, "long"))
	require.ErrorIs(t, <-done, os.ErrDeadlineExceeded)
}

// Whatever comes in place of a terminal: the session ends, and what it made of the
// bytes is the same as it would make of them again.
func FuzzServe(f *testing.F) {
	for _, in := range []string{
		"", "L\x00\x00\x00\x03/ip", "W\x00\x00\x00\x02\x00\x28?\x00\x00\x00\x00", "T\x00\x00\x00\x06/ip so", "I\x00\x00\x00\x00",
		"L\x00\x00\x00\x04beatI\x00\x00\x00\x00L\x00\x00\x00\x05/quit", "L\xff\xff\xff\xff", "L\x00\x00\x80\x00", "T\x00\x00\x00",
	} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		near, far := net.Pipe()
		r := router{cfg: Default()}
		done := make(chan error)
		go func() { done <- Serve(far, r.handler(far)) }()
		go func() { _, _ = near.Write(in); near.Close() }()
		go func() {
			for {
				kind, text, err := receive(near)
				if err != nil {
					return
				}
				if strings.IndexByte("ORFCHPASE", kind) < 0 {
					t.Errorf("server sent %q", kind)
				}
				if insert, names := decodeChoices(text); kind == frameChoices && encodeChoices(insert, choicesNamed(names)) != text {
					t.Errorf("choices %q", text)
				}
			}
		}()
		if err := <-done; err != nil && strings.Contains(err.Error(), "panic") && !bytes.Contains(in, []byte("panic")) {
			t.Error(err)
		}
	})
}

func choicesNamed(names []string) []Choice {
	all := make([]Choice, len(names))
	for i := range names {
		all[i].Name = names[i]
	}
	return all
}

// A frame that was read is the one that was sent; nothing is read beyond it.
func FuzzReceive(f *testing.F) {
	for _, in := range []string{"", "L", "L\x00\x00\x00\x00", "L\x00\x00\x00\x02ab", "L\x00\x00\x80\x01", "L\x00\x00\x00\x02a", "X\x00\x00\x00\x01abc"} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		kind, text, err := receive(r)
		if err != nil {
			assert.True(t, len(in) > 0 || err == io.EOF, "%v", err)
			return
		}
		var again bytes.Buffer
		require.NoError(t, send(&again, kind, text))
		assert.Equal(t, string(in[:len(in)-r.Len()]), again.String())
		assert.LessOrEqual(t, len(text), maxFrame)
	})
}
