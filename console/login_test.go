package console

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// guard is what a router knows of passwords and Safe Mode.
type guard struct {
	mu       sync.Mutex
	password string
	asked    []string // user:password
	held     bool     // Safe Mode, by another session
	did      []string // in Safe Mode
	ended    int
}

func (g *guard) locked(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

// at gives a router what g knows.
func (g *guard) at(r *router) {
	r.live.Requests = []Request{ChangePassword}
	r.optional = func() Handler {
		return Handler{
			HasPassword: func() (has bool) {
				g.locked(func() { has = g.password != "" })
				return has
			},
			Login: func(user, password string) (ok bool) {
				g.locked(func() {
					g.asked = append(g.asked, user+":"+password)
					ok = user == "admin" && password == g.password
				})
				return ok
			},
			SetPassword: func(_ *Session, old, new string) (err error) {
				g.locked(func() {
					if old != g.password {
						err = errors.New("failure: old password is wrong")
					} else {
						g.password = new
					}
				})
				return err
			},
			SafeMode: func(s *Session, request SafeRequest) (err error) {
				g.locked(func() {
					g.did = append(g.did, []string{"take", "unroll and take", "release and take", "release", "unroll"}[request])
					if request == TakeSafeMode && g.held {
						err = ErrSafeModeHeld
						return
					}
					s.Safe = request < ReleaseSafeMode
				})
				return err
			},
			End: func(*Session) { g.locked(func() { g.ended++ }) },
		}
	}
}

func TestLogin(t *testing.T) {
	const failed = "Login failed, incorrect username or password\n\n"
	for _, test := range []struct {
		name, password, keys, screen string
		asked                        []string
	}{
		{"none is set", "", "", "No password is set: /password sets one.\n" + prompt + "|", nil},
		{"right", "secret", "admin\rsecret\r", "Login: admin\nPassword:\n" + prompt + "|", []string{"admin:secret"}},
		{"wrong and right", "secret", "admin\rsecre\radmin\rsecret\r",
			"Login: admin\nPassword:\n\n" + failed + "Login: admin\nPassword:\n" + prompt + "|", []string{"admin:secre", "admin:secret"}},
		{"another user", "secret", "root\rsecret\r", "Login: root\nPassword:\n\n" + failed + "Login: |", []string{"root:secret"}},
		{"no user", "secret", "\r\r", "Login:\nLogin:\nLogin: |", nil},
		{"no password", "secret", "admin\r\r", "Login: admin\nPassword:\n\n" + failed + "Login: |", []string{"admin:"}},
		{"Ctrl-D", "secret", "\x04admin\r\x04", "Login:\nLogin: admin\nPassword:\nLogin: |", nil},
		{"Ctrl-C", "secret", "ad\x03admin\rsec\x03", "Login: ad\nLogin: admin\nPassword:\nLogin: |", nil},
		{"keys that edit", "se?ret", "afmin\x1b[D\x1b[D\x1b[D\x7f\x1b[3~\x1b[D\x05\x01\x0badmin\rse?ret\x1b[Dx\x7f\r",
			"Login: admin\nPassword:\n" + prompt + "|", []string{"admin:se?ret"}},
		{"keys without a meaning here", "secret", "\tadmin\x18\x1bOP\x1b[A\r\tsec\x18\x1bOP\x1b[Aret\r",
			"Login: admin\nPassword:\n" + prompt + "|", []string{"admin:secret"}},
		{"not a line that goes on", `secret\`, "admin\rsecret\\\r", "Login: admin\nPassword:\n" + prompt + "|", []string{`admin:secret\`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := guard{password: test.password}
			u := sitDownAt(t, 80, terminalKnows, g.at)
			u.wait("", func(screen string) bool { return strings.HasSuffix(screen, " |") })
			u.send(test.keys)
			u.expect(test.screen)
			g.locked(func() { assert.Equal(t, test.asked, g.asked) })
			_, all := u.look()
			if test.password != "" {
				assert.NotContains(t, all, test.password)
			}
		})
	}
}

// Whoever is logged in has not left the login in the history, nor a password.
func TestLoginHistory(t *testing.T) {
	g := guard{password: "secret"}
	u := sitDownAt(t, 80, terminalKnows, g.at)
	u.send("admin\rsecret\r")
	u.wait("", func(screen string) bool { return strings.HasSuffix(screen, prompt+"|") })
	u.send("/ip\r/user set admin pass\\\r word=other\r")
	u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "ip> |") })
	u.send("\x1b[A")
	u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "ip> /ip|") })
	u.send("\x1b[A\x1b[A")
	time.Sleep(50 * time.Millisecond)
	u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "ip> /ip|") })
}

func TestLoginByLines(t *testing.T) {
	g := guard{password: "secret"}
	near, far := socketpair(t)
	r := router{cfg: Default()}
	g.at(&r)
	done := make(chan error)
	go func() { done <- Serve(far, r.handler(far)) }()
	// Nothing but an answer is heeded: no line is carried out, nothing is completed.
	for _, step := range []struct{ send, want frame }{
		{frame{kind: frameInterrupt}, frame{kind: frameAsk, text: "Login: "}},
		{frame{kind: frameWidth, text: "\x00\x50"}, frame{}},
		{frame{kind: frameLine, text: "/system reboot"}, frame{}},
		{frame{kind: frameLine, text: "/ip"}, frame{kind: frameSecret, text: "Password: "}},
		{frame{kind: frameComplete, text: "/ip "}, frame{kind: frameOutput, text: "\nLogin failed, incorrect username or password\n\n"}},
	} {
		if step.want.kind != 0 {
			kind, text, err := receive(near)
			require.NoError(t, err)
			assert.Equal(t, step.want, frame{kind: kind, text: text})
		}
		require.NoError(t, send(near, step.send.kind, step.send.text))
	}
	require.EqualError(t, <-done, "console session: unexpected frame 'T' of 4 bytes")
	assert.Equal(t, 1, g.ended)
}

// Whatever comes in the place of a terminal, without the password it gets no further.
func FuzzLogin(f *testing.F) {
	for _, in := range []string{
		"", "L\x00\x00\x00\x05adminL\x00\x00\x00\x06secretL\x00\x00\x00\x05/quit", "L\x00\x00\x00\x05adminL\x00\x00\x00\x00L\x00\x00\x00\x03/ip",
		"L\x00\x00\x00\x01xD\x00\x00\x00\x00X\x00\x00\x00\x00", "I\x00\x00\x00\x00W\x00\x00\x00\x02\x00\x28T\x00\x00\x00\x01/",
	} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		near, far := net.Pipe()
		g := guard{password: "secret"}
		r := router{cfg: Default()}
		g.at(&r)
		handler := r.handler(far)
		touched := false
		execute, prompt, complete, help := handler.Execute, handler.Prompt, handler.Complete, handler.Help
		handler.Execute = func(s *Session, line string) (Result, error) { touched = true; return execute(s, line) }
		handler.Prompt = func(s *Session) string { touched = true; return prompt(s) }
		handler.Complete = func(s *Session, before string) (string, []Choice) { touched = true; return complete(s, before) }
		handler.Help = func(s *Session, before string) string { touched = true; return help(s, before) }
		done := make(chan error)
		go func() { done <- Serve(far, handler) }()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		go func() { _, _ = near.Write(in); near.Close() }()
		<-done
		known := slices.Contains(g.asked, "admin:secret")
		assert.Equal(t, known, touched)
		assert.True(t, known || g.did == nil, "Safe Mode")
		assert.Equal(t, 1, g.ended)
	})
}

func TestChangePassword(t *testing.T) {
	const asked = prompt + "/password\n"
	for _, test := range []struct{ name, before, keys, screen, after string }{
		{"the first", "", "new\rnew\r", asked + "new password:\nretype new password:\n", "new"},
		{"another", "old", "old\rnew\rnew\r", asked + "old password:\nnew password:\nretype new password:\n", "new"},
		{"none any more", "old", "old\r\r\r", asked + "old password:\nnew password:\nretype new password:\n", ""},
		{"the old one is wrong", "old", "odl\rnew\rnew\r",
			asked + "old password:\nnew password:\nretype new password:\nfailure: old password is wrong\n", "old"},
		{"they differ", "old", "old\rnew\rnwe\r",
			asked + "old password:\nnew password:\nretype new password:\nfailure: new passwords do not match\n", "old"},
		{"too long", "old", "old\r" + strings.Repeat(strings.Repeat("x", 65)+"\r", 2),
			asked + "old password:\nnew password:\nretype new password:\nfailure: bad new password; expected printable string: 0..64 bytes\n", "old"},
		{"given up", "old", "old\rnew\x03", asked + "old password:\nnew password:\n", "old"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := guard{password: test.before}
			u := sitDownAt(t, 80, terminalKnows, g.at)
			if test.before != "" {
				u.send("admin\r" + test.before + "\r")
			}
			u.wait("", func(screen string) bool { return strings.HasSuffix(screen, prompt+"|") })
			u.send("/password\r" + test.keys)
			u.wait(test.screen+prompt+"|", func(screen string) bool { return strings.HasSuffix(screen, test.screen+prompt+"|") })
			g.locked(func() { assert.Equal(t, test.after, g.password) })
		})
	}
}

func TestSafeMode(t *testing.T) {
	const safe = "[admin@postern] <SAFE> "
	const held = prompt + "\nAnother session is in Safe Mode: unroll its changes, release it or don't take it [u/r/d]: "
	start := "No password is set: /password sets one.\n"
	for _, test := range []struct {
		name   string
		held   bool
		keys   string
		screen string
		did    []string
		ends   bool
	}{
		{"in and out", false, "\x18/ip\r\x18", prompt + "\n[Safe Mode taken]\n" + safe + "> /ip\n" + safe + "ip>\n[Safe Mode released]\n[admin@postern] ip> |",
			[]string{"take", "release"}, false},
		{"F4, with a line begun", false, "/ip so\x1bOS", prompt + "/ip so\n[Safe Mode taken]\n" + safe + "> |", []string{"take"}, false},
		{"F4, VT220", false, "\x1b[14~", prompt + "\n[Safe Mode taken]\n" + safe + "> |", []string{"take"}, false},
		{"F4, the Linux console's", false, "\x1b[[D", prompt + "\n[Safe Mode taken]\n" + safe + "> |", []string{"take"}, false},
		{"Ctrl-D undoes", false, "\x18\x04", prompt + "\n[Safe Mode taken]\n" + safe + ">\n[Safe Mode unrolled]\n" + prompt + "|", []string{"take", "unroll"}, false},
		{"Ctrl-D twice", false, "\x18\x04\x04", prompt + "\n[Safe Mode taken]\n" + safe + ">\n[Safe Mode unrolled]\n[admin@postern] >\n|", []string{"take", "unroll"}, true},
		{"held, don't", true, "\x18d\r", held + "d\n" + prompt + "|", []string{"take"}, false},
		{"held, Ctrl-C", true, "\x18\x03", strings.TrimSuffix(held, " ") + "\n" + prompt + "|", []string{"take"}, false},
		{"held, unroll", true, "\x18u\r", held + "u\n[Safe Mode taken]\n" + safe + "> |", []string{"take", "unroll and take"}, false},
		{"held, release", true, "\x18r\r", held + "r\n[Safe Mode taken]\n" + safe + "> |", []string{"take", "release and take"}, false},
		{"not in a paste", false, "\x1b[200~/ip\x18\x1b[201~", prompt + "/ip|", nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := guard{held: test.held}
			u := sitDownAt(t, 120, terminalKnows, g.at)
			u.expect(start + prompt + "|")
			u.send(test.keys)
			want := start + strings.ReplaceAll(test.screen, "> \n", ">\n")
			u.expect(want)
			g.locked(func() { assert.Equal(t, test.did, g.did) })
			if test.ends {
				err := <-u.done
				u.done <- err
				require.NoError(t, err)
			}
		})
	}
	t.Run("unavailable", func(t *testing.T) {
		u := sitDown(t, 80, terminalKnows)
		u.send("\x18")
		u.expect("[admin@postern] >\nfailure: Safe Mode unavailable\n" + prompt + "|")
	})
}

// However a session ends, its end is told.
func TestServeEnd(t *testing.T) {
	for _, test := range []struct{ name, line string }{
		{"quit", "/quit"}, {"panic", "panic"}, {"hung up", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var g guard
			near, far := socketpair(t)
			r := router{cfg: Default()}
			g.at(&r)
			done := make(chan error)
			go func() { done <- Serve(far, r.handler(far)) }()
			if test.line == "" {
				near.Close()
			} else {
				require.NoError(t, send(near, frameLine, test.line))
			}
			<-done
			assert.Equal(t, 1, g.ended)
		})
	}
}

func TestRefuse(t *testing.T) {
	near, far := net.Pipe()
	go Refuse(far, "failure: too many sessions")
	for _, want := range []frame{{kind: frameOutput, text: "failure: too many sessions\n"}, {kind: frameEnd}} {
		kind, text, err := receive(near)
		require.NoError(t, err)
		assert.Equal(t, want, frame{kind: kind, text: text})
	}
	_, _, err := receive(near)
	assert.Equal(t, io.EOF, err)
}
