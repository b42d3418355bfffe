package terminal

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A value is changed where it stands, with the checks of set.
func TestEdit(t *testing.T) {
	const asked = "name: postern|"
	for _, test := range []struct{ name, keys, want string }{
		{"Ctrl-O", "\x7f\x7f\x0f", "[admin@poste] > |"},
		{"Enter", "2\r", "[admin@postern2] > |"},
		{"in the middle", "\x1b[D\x1b[D?\x0f", "[admin@poste?rn] > |"},
		{"from the beginning", "\x01my \x0f", "[admin@my postern] > |"},
		{"Ctrl-C", "xyz\x03", "[admin@postern] > |"},
		{"nothing changed", "\x0f", "[admin@postern] > |"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			u := openTerminal(t, 80, kernelKnows)
			u.send("/system identity edit name\r")
			u.wait(asked, func(screen string) bool { return strings.HasSuffix(screen, asked) })
			for _, key := range keysOf(test.keys) {
				u.send(key)
			}
			u.wait(test.want, func(screen string) bool { return strings.HasSuffix(screen, test.want) })
		})
	}
	t.Run("what set refuses is asked for again", func(t *testing.T) {
		t.Parallel()
		u := openTerminal(t, 80, kernelKnows)
		u.send("/system identity edit name\r")
		u.wait(asked, func(screen string) bool { return strings.HasSuffix(screen, asked) })
		u.send(strings.Repeat("x", 64) + "\x0f")
		again := "name: postern" + strings.Repeat("x", 64)
		u.wait(again, func(screen string) bool {
			joined := strings.ReplaceAll(screen, "\n", "")
			return strings.Contains(joined, "invalid value for argument name") && strings.HasSuffix(joined, again+"|")
		})
		u.send(strings.Repeat("\x7f", 64) + "3\x0f")
		const done = "[admin@postern3] > |"
		u.wait(done, func(screen string) bool { return strings.HasSuffix(screen, done) })
	})
	t.Run("a pasted line is not the value", func(t *testing.T) {
		t.Parallel()
		u := openTerminal(t, 80, kernelKnows)
		u.send("/system identity edit name\r/system identity set name=other\r")
		const done = "[admin@other] > |"
		u.wait(done, func(screen string) bool { return strings.HasSuffix(screen, done) })
		screen, _ := u.look()
		assert.NotContains(t, screen, "name: ")
	})
}
