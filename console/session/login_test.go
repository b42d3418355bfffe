package session_test

import (
	"io"
	"net"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/consoletest"
	"github.com/postern-router/postern/console/internal/wire"
	"github.com/postern-router/postern/console/session"
)

func TestLoginByLines(t *testing.T) {
	g := consoletest.Guard{Password: "secret"}
	near, far := consoletest.Socketpair(t)
	r := consoletest.Router{Config: console.Default()}
	g.At(&r)
	done := make(chan error)
	go func() { done <- session.Serve(far, session.Origin{Via: session.Console}, r.Handler(far)) }()
	// Only answers are accepted: no line is executed, and nothing is completed.
	for _, step := range []struct{ send, want frame }{
		{frame{kind: wire.Interrupt}, frame{kind: wire.Ask, text: "Login: "}},
		{frame{kind: wire.Size, text: "\x00\x50\x00\x18"}, frame{}},
		{frame{kind: wire.Line, text: "/system reboot"}, frame{}},
		{frame{kind: wire.Line, text: "/ip"}, frame{kind: wire.Secret, text: "Password: "}},
		{frame{kind: wire.Complete, text: "/ip "}, frame{kind: wire.Output, text: "\nLogin failed, incorrect username or password\n\n"}},
	} {
		if step.want.kind != 0 {
			kind, text, err := wire.Receive(near)
			require.NoError(t, err)
			assert.Equal(t, step.want, frame{kind: kind, text: text})
		}
		require.NoError(t, wire.Send(near, step.send.kind, step.send.text))
	}
	require.EqualError(t, <-done, "console session: unexpected frame 'T' of 4 bytes")
	assert.Equal(t, 1, g.Ended)
}

// A note is shown behind the login and not before, and before the first prompt alone.
func TestNoteAtLogin(t *testing.T) {
	g := consoletest.Guard{Password: "secret"}
	near, far := consoletest.Socketpair(t)
	r := consoletest.Router{Config: console.Default()}
	r.Config.Note = "Authorised people only\nCall 112"
	g.At(&r)
	handler := r.Handler(far)
	handler.Note = func(s *session.Session) string {
		assert.Equal(t, "admin", s.User)
		return r.Config.LoginNote()
	}
	done := make(chan error)
	go func() { done <- session.Serve(far, session.Origin{Via: session.Console}, handler) }()
	for _, step := range []struct {
		want frame
		send string
	}{
		{frame{kind: wire.Ask, text: "Login: "}, "admin"}, {frame{kind: wire.Secret, text: "Password: "}, "wrong"},
		{frame{kind: wire.Output, text: "\nLogin failed, incorrect username or password\n\n"}, ""},
		{frame{kind: wire.Ask, text: "Login: "}, "admin"}, {frame{kind: wire.Secret, text: "Password: "}, "secret"},
		{frame{kind: wire.Note, text: "Authorised people only\nCall 112\n"}, ""},
		{frame{kind: wire.Prompt, text: "[admin@postern] > "}, " "}, {frame{kind: wire.Prompt, text: "[admin@postern] > "}, "/quit"},
	} {
		kind, text, err := wire.Receive(near)
		require.NoError(t, err)
		assert.Equal(t, step.want, frame{kind: kind, text: text})
		if step.send != "" {
			require.NoError(t, wire.Send(near, wire.Line, step.send))
		}
	}
	require.NoError(t, <-done)
}

// Whatever a terminal sends, it gets no further than the login without the password.
func FuzzLogin(f *testing.F) {
	for _, in := range []string{
		"", "L\x00\x00\x00\x05adminL\x00\x00\x00\x06secretL\x00\x00\x00\x05/quit", "L\x00\x00\x00\x05adminL\x00\x00\x00\x00L\x00\x00\x00\x03/ip",
		"L\x00\x00\x00\x01xD\x00\x00\x00\x00X\x00\x00\x00\x00", "I\x00\x00\x00\x00W\x00\x00\x00\x04\x00\x28\x00\x18T\x00\x00\x00\x01/",
	} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		near, far := net.Pipe()
		g := consoletest.Guard{Password: "secret"}
		r := consoletest.Router{Config: console.Default()}
		g.At(&r)
		handler := r.Handler(far)
		touched := false
		execute, prompt, complete, help := handler.Execute, handler.Prompt, handler.Complete, handler.Help
		handler.Execute = func(s *session.Session, line string) (console.Result, error) { touched = true; return execute(s, line) }
		handler.Prompt = func(s *session.Session) string { touched = true; return prompt(s) }
		handler.Complete = func(s *session.Session, before string) (string, []console.Choice) {
			touched = true
			return complete(s, before)
		}
		handler.Help = func(s *session.Session, before string) string { touched = true; return help(s, before) }
		done := make(chan error)
		go func() { done <- session.Serve(far, session.Origin{Via: session.Console}, handler) }()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		go func() { _, _ = near.Write(in); near.Close() }()
		<-done
		known := slices.Contains(g.Asked, "admin:secret")
		assert.Equal(t, known, touched)
		assert.True(t, known || g.Did == nil, "Safe Mode")
		assert.Equal(t, 1, g.Ended)
	})
}

// End is called for whatever reason a session ends.
func TestServeEnd(t *testing.T) {
	for _, test := range []struct{ name, line string }{
		{"quit", "/quit"}, {"panic", "panic"}, {"hung up", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var g consoletest.Guard
			near, far := consoletest.Socketpair(t)
			r := consoletest.Router{Config: console.Default()}
			g.At(&r)
			done := make(chan error)
			go func() { done <- session.Serve(far, session.Origin{Via: session.Console}, r.Handler(far)) }()
			if test.line == "" {
				near.Close()
			} else {
				require.NoError(t, wire.Send(near, wire.Line, test.line))
			}
			<-done
			assert.Equal(t, 1, g.Ended)
		})
	}
}

func TestRefuse(t *testing.T) {
	near, far := net.Pipe()
	go session.Refuse(far, "failure: too many sessions")
	for _, want := range []frame{{kind: wire.Output, text: "failure: too many sessions\n"}, {kind: wire.End}} {
		kind, text, err := wire.Receive(near)
		require.NoError(t, err)
		assert.Equal(t, want, frame{kind: kind, text: text})
	}
	_, _, err := wire.Receive(near)
	assert.Equal(t, io.EOF, err)
}
