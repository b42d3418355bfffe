package terminal

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/consoletest"
	"github.com/postern-router/postern/console/session"
)

func TestEditorKeys(t *testing.T) {
	for _, test := range []struct{ name, keys, want string }{
		{"typed", "/ip socks", "/ip socks|"},
		{"left", "ac\x1b[Db", "ab|c"},
		{"left, SS3", "ac\x1bODb", "ab|c"},
		{"Ctrl-B, Ctrl-F", "abc\x02\x02\x06", "ab|c"},
		{"right", "ab\x1b[D\x1b[D\x1b[C", "a|b"},
		{"left of the beginning", "a\x1b[D\x1b[D\x1b[Db", "b|a"},
		{"Ctrl-A", "bc\x01a", "a|bc"},
		{"home", "bc\x1b[Ha", "a|bc"},
		{"home, SS3", "bc\x1bOHa", "a|bc"},
		{"home, VT220", "bc\x1b[1~a", "a|bc"},
		{"home, rxvt", "bc\x1b[7~a", "a|bc"},
		{"home with Shift", "bc\x1b[1;2Ha", "a|bc"},
		{"Ctrl-E", "ab\x01\x05c", "abc|"},
		{"end", "ab\x01\x1b[Fc", "abc|"},
		{"end, SS3", "ab\x01\x1bOFc", "abc|"},
		{"end, VT220", "ab\x01\x1b[4~c", "abc|"},
		{"end, rxvt", "ab\x01\x1b[8~c", "abc|"},
		{"by words", "one two three\x1b[1;5D\x1b[1;3D", "one |two three"},
		{"by words back", "one two three\x01\x1b[1;5C", "one |two three"},
		{"backspace", "abc\x7f", "ab|"},
		{"backspace, Ctrl-H", "abc\b", "ab|"},
		{"backspace inside", "abc\x1b[D\x7f", "a|c"},
		{"backspace at the beginning", "\x7fabc\x01\x7f", "|abc"},
		{"delete", "abc\x01\x1b[3~", "|bc"},
		{"delete, Ctrl-D", "abc\x01\x04", "|bc"},
		{"delete at the end", "abc\x1b[3~\x04", "abc|"},
		{"delete on an empty line", "\x1b[3~abc", "abc|"},
		{"Ctrl-K", "abc\x02\x0b", "ab|"},
		{"Ctrl-U", "abc\x02\x15", "|c"},
		{"Ctrl-W", "one two\x17", "one |"},
		{"Ctrl-T", "ba\x14", "ab|"},
		{"unknown control characters", "a\x00\x0f\x11\x12\x13\x16\x19\x1a\x1c\x1d\x1e\x1fb", "ab|"},
		{"unknown keys", "a\x1b[5~\x1b[6~\x1b[15~\x1b[24~\x1bOQ\x1b[[B\x1b[Z\x1b[2~\x1b[?1;2c\x1b[Pb", "ab|"},
		{"escape alone", "a\x1bb", "ab|"},
		{"escape twice", "ac\x1b\x1b[Db", "ab|c"},
		{"a sequence cut off", "a\x1b[1;\x7fb", "b|"},
		{"a sequence without end", "a\x1b[" + strings.Repeat("1;", 3000) + "zb", "ab|"},
		{"UTF-8", "äb\x1b[D\x1b[Dé", "é|äb"},
		{"bad UTF-8", "a\xff\xc3\xe2\x82b\x80", "ab|"},
		{"C1 and other characters that cannot be seen", "a\u009b31m\u200b\u202eb", "a31mb|"},
		{"a strange width", "a\x1b[1;3R\x1b[1;99999R\x1b[R\x1b[1;-9R\x1bOR\x1b[1;99999999999999999999Rb", "ab|"},

		{"Tab completes", "/ip so\t", "/ip socks |"},
		{"Tab completes inside", "/ip so pr\x02\x02\x02\t", "/ip socks | pr"},
		{"Tab completes what is common", "/ip socks access add s\t", "/ip socks access add src-|"},
		{"Tab on a bad line", "/foo x\t", "/foo x|"},
		{"Tab where anything goes", "/system identity set name=\tx", "/system identity set name=x|"},
		{"? in quotes", `/system identity set name="a?\"?`, `/system identity set name="a?\"?|`},
		{"? in a comment", "/ip; # what?", "/ip; # what?|"},
		{"paste with marks", "\x1b[200~/ip so\tx?\x01\x1b[201~s\x1b[Dy", "/ip so x?y|s"},
	} {
		for _, width := range []int{80, 40} {
			t.Run(fmt.Sprintf("%s, %d", test.name, width), func(t *testing.T) {
				t.Parallel()
				u := openTerminal(t, width, terminalKnows)
				u.send(test.keys)
				u.expect(wrapped(prompt+test.want, width))
			})
		}
	}
}

// wrapped is how a line with a cursor in it looks on a screen.
func wrapped(line string, width int) string {
	cursor := strings.IndexByte(line, '|')
	text := []rune(strings.Replace(line, "|", "", 1))
	cursor = utf8.RuneCountInString(line[:cursor])
	var b strings.Builder
	for i := 0; i <= len(text); i++ {
		if i > 0 && i%width == 0 && (i < len(text) || cursor != len(text)) {
			b.WriteString("\n")
		}
		if i == cursor {
			b.WriteString("|")
		}
		if i < len(text) {
			b.WriteRune(text[i])
		}
	}
	return b.String()
}

func TestEditorScreens(t *testing.T) {
	help := (&console.Session{}).Help(console.Default(), console.Live{}, "/ip socks set enabled=")
	for _, test := range []struct {
		name       string
		width      int
		keys, want string
	}{
		{"the manual's session", 80, "ip socks access\radd src-address=192.168.0.2 dst-port=21 \\\raction=allow\rprint\r", `
[admin@postern] > ip socks access
[admin@postern] ip socks access> add src-address=192.168.0.2 dst-port=21 \
\... action=allow
[admin@postern] ip socks access> print
Flags: X - disabled
 0   src-address=192.168.0.2 dst-port=21 action=allow
[admin@postern] ip socks access> |`},
		{"with line feeds", 80, "/ip\nsocks\r\n\n", `
[admin@postern] > /ip
[admin@postern] ip> socks
[admin@postern] ip socks>
[admin@postern] ip socks> |`},
		{"history", 80, "/ip\r/ip\r \r/\rsocks\x1b[A\x1b[A\x1b[A\x1b[A", `
[admin@postern] > /ip
[admin@postern] ip> /ip
[admin@postern] ip>
[admin@postern] ip> /
[admin@postern] > /ip|`},
		{"history and back", 80, "/ip\r/\rsocks\x1bOA\x10\x1b[B\x1bOB\x0e", `
[admin@postern] > /ip
[admin@postern] ip> /
[admin@postern] > socks|`},
		{"history of a continued line", 80, "/ip \\\r  \\\r socks\r\x1b[A", `
[admin@postern] > /ip \
\...   \
\...  socks
[admin@postern] ip socks> /ip socks|`},
		{"Ctrl-C", 80, "/ip\x03/ip \\\rso\x03\r\x1b[A", `
[admin@postern] > /ip
[admin@postern] > /ip \
\... so
[admin@postern] >
[admin@postern] > |`},
		{"Tab lists", 40, "/ip socks access add src-\tp", `
src-address  src-port
[admin@postern] > /ip socks access add s
rc-p|`},
		{"Tab lists inside a long line", 40, "/ip socks access add src- action=allow\x1b[1~" + strings.Repeat("\x1b[C", 25) + "\t", `
src-address  src-port
[admin@postern] > /ip socks access add s
rc-| action=allow`},
		{"Tab in a continuation", 80, "/ip socks \\\racc\tp\t", `
[admin@postern] > /ip socks \
\... access print |`},
		{"? explains", 80, "/ip socks set enabled=?y", `
HELP[admin@postern] > /ip socks set enabled=y|`},
		{"F1 explains", 80, "/ip socks set enabled=\x1bOPy", `
HELP[admin@postern] > /ip socks set enabled=y|`},
		{"F1 of a VT220", 80, "/ip socks set enabled=\x1b[11~y", `
HELP[admin@postern] > /ip socks set enabled=y|`},
		{"F1 of the Linux console", 80, "/ip socks set enabled=\x1b[[Ay", `
HELP[admin@postern] > /ip socks set enabled=y|`},
		{"Ctrl-L", 80, "/ip\rsocks\x1b[D\x0c", "\n[admin@postern] ip> sock|s"},
		{"a long line", 40, "0123456789012345678901234567890123456789\x01/\x05-", `
[admin@postern] > /012345678901234567890
1234567890123456789-|`},
		{"back over the margin", 40, "012345678901234567890123456\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f", `
[admin@postern] > 0123456789012345678|`},
		{"at the margin", 40, "#123456789012345678901\x1b[D\x1b[C2", `
[admin@postern] > #123456789012345678901
2|`},
		{"a line to the margin", 40, "#123456789012345678901\r", `
[admin@postern] > #123456789012345678901
[admin@postern] > |`},
		{"a bad line", 80, "foo\r", `
[admin@postern] > foo
bad command name foo (line 1 column 1); expected system, interface, routing, ip,
 queue, log, quit, export
[admin@postern] > |`},
		{"panic", 80, "panic\r", `
[admin@postern] > panic

Connection to the router lost; the last line may have had no effect.
[admin@postern] > |`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			u := openTerminal(t, test.width, terminalKnows)
			u.send(test.keys)
			u.expect(strings.Replace(strings.TrimPrefix(test.want, "\n"), "HELP", help, 1))
		})
	}
}

// What is typed at the end of a line is echoed byte for byte, also at the margin, where the
// terminal wraps it.
func TestEditorBytes(t *testing.T) {
	line := "# " + strings.Repeat("0123456789", 20)
	for _, test := range []struct {
		name  string
		width int
		who   knows
		begin string
	}{
		{"80", 80, terminalKnows, prompt + sizeQuery},
		// The answer comes when the prompt is there.
		{"40", 40, terminalKnows, prompt + sizeQuery + "\x1b[18D\x1b[K" + prompt},
		{"40, not known", 40, nobodyKnows, prompt + sizeQuery},
		{"40, known", 40, kernelKnows, prompt},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			u := openTerminal(t, test.width, test.who)
			sent := func(want string) {
				t.Helper()
				u.wait("", func(string) bool { _, all := u.look(); return all == want })
			}
			sent(test.begin)
			for i := range line {
				u.send(line[i : i+1])
				sent(test.begin + line[:i+1])
			}
			u.expect(wrapped(prompt+line+"|", test.width))
			u.send("\r")
			sent(test.begin + line + "\r\n" + prompt)
		})
	}
}

// A terminal is asked for its width after Enter on an empty line, which is what users press
// after they have plugged it in.
func TestEditorWidth(t *testing.T) {
	t.Run("asked on an empty line", func(t *testing.T) {
		u := openTerminal(t, 40, nobodyKnows)
		line := prompt + strings.Repeat("0123456789", 4) + "|"
		u.send("\r")
		u.expect(prompt[:len(prompt)-1] + "\n" + prompt + "|")
		u.mu.Lock()
		u.screen.answer = func(s string) { _, _ = io.WriteString(u.master, s) }
		u.mu.Unlock()
		first := prompt[:len(prompt)-1]
		u.send("\r")
		u.expect(first + "\n" + first + "\n" + prompt + "|")
		u.send(line[len(prompt):len(line)-1] + "\x01/")
		u.expect(first + "\n" + first + "\n" + wrapped(prompt+"/|0123456789012345678901234567890123456789", 40))
	})
	t.Run("known to the kernel", func(t *testing.T) {
		u := openTerminal(t, 40, kernelKnows)
		u.send("#1234567890123456789012345\x01\r\r/ip so\tacc\t")
		first := prompt[:len(prompt)-1]
		u.expect(first + " #123456789012345678901\n2345\n" + first + "\n" + prompt + "/ip socks access |")
		_, all := u.look()
		assert.NotContains(t, all, sizeQuery)
	})
	t.Run("told to the server", func(t *testing.T) {
		for _, who := range []knows{terminalKnows, kernelKnows, nobodyKnows} {
			u := openTerminal(t, 40, who)
			u.send("\r/ip socks access add src-address=192.168.0.1 dst-port=21 action=deny\r\x0c/ip socks access print\r")
			want := " 0   src-address=192.168.0.1\n     dst-port=21 action=deny\n"
			if who == nobodyKnows { // it is left whole, and the terminal wraps it
				want = " 0   src-address=192.168.0.1 dst-port=21\n action=deny\n"
			}
			u.wait(want, func(screen string) bool { return strings.Contains(screen, want) })
		}
	})
}

func TestEditorEnds(t *testing.T) {
	t.Run("Ctrl-D", func(t *testing.T) {
		u := openTerminal(t, 80, terminalKnows)
		u.send("a\x7f\x04")
		err := <-u.done
		u.done <- err
		require.NoError(t, err)
		u.expect("[admin@postern] >\n|")
		after, err := unix.IoctlGetTermios(int(u.slave.Fd()), unix.TCGETS)
		require.NoError(t, err)
		assert.Equal(t, u.before, after, "the terminal is left as it was")
	})
	t.Run("the terminal goes", func(t *testing.T) {
		u := openTerminal(t, 80, terminalKnows)
		u.send("/ip")
		u.master.Close()
		err := <-u.done
		u.done <- err
		require.ErrorIs(t, err, unix.EIO)
		require.ErrorIs(t, err, errTerminal)
	})
	t.Run("the router goes while a line is typed", func(t *testing.T) {
		u := openTerminal(t, 80, terminalKnows)
		u.send("hang up\r")
		u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "effect.\n"+prompt+"|") })
		u.send("/ip \t")
		u.wait("", func(screen string) bool { return strings.HasSuffix(screen, prompt+"/ip |") })
	})
}

func TestEditorRepeats(t *testing.T) {
	const first, second = "[admin@postern] > beat\n", "[admin@postern] > follow\n"
	// At least n beats, since one that is replaced may never be seen.
	beats := func(u *user, n int) {
		u.t.Helper()
		u.wait("", func(screen string) bool {
			found := regexp.MustCompile(`beat (\d+)\n`).FindAllStringSubmatch(screen, -1)
			if found == nil {
				return false
			}
			last, err := strconv.Atoi(found[len(found)-1][1])
			return err == nil && last >= n
		})
	}
	for _, test := range []struct{ name, key, then string }{
		{"Ctrl-C", "\x03", ""},
		{"q", "q", ""},
		{"space", " ", ""},
		{"Enter", "\r", ""},
		{"another key is kept", "/", "/"},
		{"Ctrl-C throws away what was typed before", "ab\x03c", "c"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			u := openTerminal(t, 80, terminalKnows)
			u.send("beat\r")
			beats(u, 3)
			u.send(test.key)
			u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "\n"+prompt+test.then+"|") })
			screen, _ := u.look()
			assert.Regexp(t, `^\[admin@postern\] > beat\nbeat \d+\nbeat \d+\n\[admin@postern\] > `+test.then+`\|$`, screen, "replaced")
			u.send("\x03")
		})
	}
	t.Run("follow", func(t *testing.T) {
		t.Parallel()
		u := openTerminal(t, 80, terminalKnows)
		u.send("follow\r")
		beats(u, 3)
		screen, _ := u.look()
		assert.True(t, strings.HasPrefix(screen, second+"beat 1\nbeat 1\nbeat 2\nbeat 2\nbeat 3\n"), screen)
		u.send("\x03/ip\r")
		u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "ip> |") })
	})
	t.Run("a paste goes on", func(t *testing.T) {
		t.Parallel()
		u := openTerminal(t, 80, terminalKnows)
		u.send("beat\r/ip\r")
		u.expect(first + "beat 1\nbeat 1\n[admin@postern] > /ip\n[admin@postern] ip> |")
	})
	t.Run("by lines", func(t *testing.T) {
		t.Parallel()
		socket := filepath.Join(t.TempDir(), "console")
		listen(t, socket)
		var out sharedBuffer
		in, keys := io.Pipe()
		done := make(chan error)
		go func() { done <- Run(dialer(socket), in, &out) }()
		_, _ = io.WriteString(keys, "follow\n")
		require.Eventually(t, func() bool { return strings.Contains(out.String(), "beat 3\n") }, 30*time.Second, 5*time.Millisecond)
		_, _ = io.WriteString(keys, "follow\n")
		keys.Close()
		require.NoError(t, <-done)
		assert.Regexp(t, `^\[admin@postern\] > beat 1\nbeat 1\nbeat 2\nbeat 2\n(beat \d+\n)+\[admin@postern\] > (beat \d+\n)+\[admin@postern\] > $`, out.String())
	})
}

// sharedBuffer is a buffer that can be read while it is written.
type sharedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *sharedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *sharedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// A pasted configuration comes faster than its lines are executed.
func TestEditorPaste(t *testing.T) {
	t.Parallel()
	u := openTerminal(t, 80, terminalKnows)
	var paste strings.Builder
	paste.WriteString("/ip socks access\r")
	const rules = 200
	for i := range rules {
		fmt.Fprintf(&paste, "add src-address=192.168.0.2 dst-port=%d \\\r\n    action=allow comment=\"why?\"\r\n", i+1)
	}
	u.send(paste.String() + "print count-only\r")
	u.wait("", func(screen string) bool {
		return strings.Contains(screen, fmt.Sprintf("> print count-only\n%d\n", rules))
	})
}

// A line that is too long is refused, not cut.
func TestEditorTooLong(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, unit string
		n          int
		ok         bool
	}{
		{"longest", "x", console.MaxLine - 1, true},
		{"too long", "x", console.MaxLine, false},
		{"very long", "x", 3 * console.MaxLine, false},
		{"too long, é", "é", console.MaxLine / 2, false},
		{"very long, é", "é", 2 * console.MaxLine, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			u := openTerminal(t, 80, terminalKnows)
			u.send("#" + strings.Repeat(test.unit, test.n) + "\r/ip\r")
			refused := "\nline longer than 4096 bytes\n"
			u.wait("", func(screen string) bool {
				return strings.HasSuffix(screen, "[admin@postern] > /ip\n[admin@postern] ip> |") && strings.Contains(screen, refused) != test.ok
			})
		})
	}
}

// What is pasted behind the longest line costs next to nothing: x/term copies the line for each
// character, which made 100,000 bytes half a minute of a small router. It runs alone, before the
// parallel tests.
func TestEditorDropsCheaply(t *testing.T) {
	const pasted = 100_000
	done := make(chan struct{})
	defer close(done)
	e := newEditor(readAhead(strings.NewReader("#"+strings.Repeat("x", pasted)+"\r"), done), io.Discard, func() (int, int) { return 80, 24 })
	e.begin(nil)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	line, err := e.readLine("", "> ")
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	assert.Greater(t, len(line), console.MaxLine)
	copied := after.TotalAlloc - before.TotalAlloc
	t.Logf("%d MB", copied>>20)
	assert.Less(t, copied, uint64(200)*pasted*4, "bytes")
}

func TestRowsOf(t *testing.T) {
	for _, test := range []struct {
		text string
		want int
	}{
		{"", 0}, {"a\n", 1}, {"a\nb\n", 2}, {"\n\n", 2}, {"0123456789\n", 1}, {"0123456789a\n", 2}, {"ééééé ééééé\n", 2},
	} {
		assert.Equal(t, test.want, rowsOf(test.text, 10), "%q", test.text)
	}
}

func TestInColumns(t *testing.T) {
	names := strings.Fields("one two three four five six")
	assert.Equal(t, "one    two    three  four   five   six\n", inColumns(names, 80))
	assert.Equal(t, "one    two\nthree  four\nfive   six\n", inColumns(names, 19))
	assert.Equal(t, "one    two    three\nfour   five   six\n", inColumns(names, 20))
	assert.Equal(t, "one\ntwo\nthree\nfour\nfive\nsix\n", inColumns(names, 3))
	assert.Equal(t, "", inColumns(nil, 80))
}

func TestLiteral(t *testing.T) {
	for _, test := range []struct {
		before string
		want   bool
	}{
		{"", false}, {"ip ", false}, {`x="`, true}, {`x="a"`, false}, {`x="a\"`, true}, {`x="a\\"`, false}, {`x="a" y="`, true},
		{"#", true}, {"  # a", true}, {"a # b", false}, {"a; # b", true}, {"# a\nb", false}, {`"#" #`, false}, {"a #", false},
	} {
		assert.Equal(t, test.want, literal(test.before), "%q", test.before)
	}
}

func TestHistory(t *testing.T) {
	var h history
	for _, line := range []string{"a", "a", "", " ", "b"} {
		h.remember(line)
	}
	require.Equal(t, 2, h.Len())
	assert.Equal(t, "b", h.At(0))
	assert.Equal(t, "a", h.At(1))
	for i := range 3 * maxHistory {
		h.remember(strconv.Itoa(i))
	}
	assert.Equal(t, maxHistory, h.Len())
	for i := range maxHistory {
		h.remember(strconv.Itoa(i) + strings.Repeat("x", console.MaxLine-8))
	}
	assert.LessOrEqual(t, h.bytes, maxHistoryBytes)
	assert.Equal(t, 8, h.Len())
}

// Whatever a terminal sends, the editor neither hangs nor spins, and writes only printable
// characters and what a VT100 understands.
func FuzzEditor(f *testing.F) {
	for _, keys := range []string{
		"ip socks\r", "a\x1b[D\x1b[1;5Cb\x01\x0b\x15\x17\r", "\x1b[A\x1b[B\r", "\x1b[1;40R0123456789012345678901234567890\x01x\r",
		"/ip so\t?\x1bOP\x1b[200~\t?\x1b[201~\r", "a\x03\x04", "\xff\xc3\x1b[\x1b[1\x1b", "x \\\r y\r", "\x1b[1;20R\x1b[1;99R\x0c",
		strings.Repeat("\x1b[9", 200), strings.Repeat("é", 200) + "\x14\x08\r",
	} {
		f.Add([]byte(keys))
	}
	f.Fuzz(func(t *testing.T, keys []byte) {
		if len(keys) > 2000 {
			return
		}
		near, far := consoletest.Socketpair(t)
		r := consoletest.Router{Config: console.Default()}
		served := make(chan error)
		go func() { served <- session.Serve(far, session.Origin{Via: session.Console}, r.Handler(far)) }()
		screen := newVT(80, func(string) {})
		done := make(chan struct{})
		in := readAhead(bytes.NewReader(keys), done)
		u := Terminal{in: in, out: screen, editor: newEditor(in, screen, func() (int, int) { return 0, 0 })}
		ended := make(chan error)
		go func() { ended <- u.Talk(near) }()
		<-ended
		near.Close()
		close(done)
		<-served
		assert.Empty(t, screen.unknown)
		assert.LessOrEqual(t, u.editor.history.bytes, maxHistoryBytes)
	})
}
