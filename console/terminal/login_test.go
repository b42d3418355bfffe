package terminal

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console/internal/consoletest"
)

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
			g := consoletest.Guard{Password: test.password}
			u := openTerminalAt(t, 80, terminalKnows, g.At)
			u.wait("", func(screen string) bool { return strings.HasSuffix(screen, " |") })
			u.send(test.keys)
			u.expect(test.screen)
			g.Locked(func() { assert.Equal(t, test.asked, g.Asked) })
			_, all := u.look()
			if test.password != "" {
				assert.NotContains(t, all, test.password)
			}
		})
	}
}

// Neither the login nor a password is in the history.
func TestLoginHistory(t *testing.T) {
	g := consoletest.Guard{Password: "secret"}
	u := openTerminalAt(t, 80, terminalKnows, g.At)
	u.send("admin\rsecret\r")
	u.wait("", func(screen string) bool { return strings.HasSuffix(screen, prompt+"|") })
	u.send("/ip\r/user set admin pass\\\r word=other\r")
	u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "ip> |") })
	u.send("\x1b[A")
	u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "ip> /ip|") })
	u.send("\x1b[A\x1b[Ax") // the x tells that the keys before it were handled
	u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "ip> /ipx|") })
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
			g := consoletest.Guard{Password: test.before}
			u := openTerminalAt(t, 80, terminalKnows, g.At)
			if test.before != "" {
				u.send("admin\r" + test.before + "\r")
			}
			u.wait("", func(screen string) bool { return strings.HasSuffix(screen, prompt+"|") })
			u.send("/password\r" + test.keys)
			u.wait(test.screen+prompt+"|", func(screen string) bool { return strings.HasSuffix(screen, test.screen+prompt+"|") })
			g.Locked(func() { assert.Equal(t, test.after, g.Password) })
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
			g := consoletest.Guard{Held: test.held}
			u := openTerminalAt(t, 120, terminalKnows, g.At)
			u.expect(start + prompt + "|")
			u.send(test.keys)
			want := start + strings.ReplaceAll(test.screen, "> \n", ">\n")
			u.expect(want)
			g.Locked(func() { assert.Equal(t, test.did, g.Did) })
			if test.ends {
				err := <-u.done
				u.done <- err
				require.NoError(t, err)
			}
		})
	}
	t.Run("unavailable", func(t *testing.T) {
		u := openTerminal(t, 80, terminalKnows)
		u.send("\x18")
		u.expect("[admin@postern] >\nfailure: Safe Mode unavailable\n" + prompt + "|")
	})
}
