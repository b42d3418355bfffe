package terminal

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/console/internal/consoletest"
	"github.com/postern-router/postern/console/internal/wire"
)

const more = "-- [Q quit|D dump|down]|"

// numbered are the lines first..last of the line "pages" of consoletest.
func numbered(first, last int) string {
	var b strings.Builder
	for i := first; i <= last; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

// A long print stops at the end of each page of a screen of 24 rows.
func TestPages(t *testing.T) {
	for _, test := range []struct {
		name, keys, want string
		lines            int
	}{
		{"fits", "", numbered(1, 23) + prompt + "|", 23},
		{"first page", "", numbered(1, 23) + more, 24},
		{"down by a page", " ", numbered(24, 46) + more, 100},
		{"Page Down", "\x1b[6~", numbered(24, 46) + more, 100},
		{"down by a line", "\x1b[B", numbered(2, 24) + more, 100},
		{"Enter is a line", "\r", numbered(2, 24) + more, 100},
		{"to the end", "  \x1b[B  ", numbered(78, 100) + prompt + "|", 100},
		{"quit", "q", numbered(1, 23) + prompt + "|", 100},
		{"Ctrl-C", "\x03", numbered(1, 23) + prompt + "|", 100},
		{"dump", "D", numbered(78, 100) + prompt + "|", 100},
		{"other keys mean nothing", "\x1b[A\x1b[C\x07\t", numbered(1, 23) + more, 100},
		{"the next line has begun", "/", numbered(1, 23) + prompt + "/|", 100},
	} {
		for _, who := range []knows{kernelKnows, terminalKnows} {
			t.Run(fmt.Sprintf("%s, %d", test.name, who), func(t *testing.T) {
				t.Parallel()
				u := openTerminal(t, 80, who)
				u.send(fmt.Sprintf("pages %d\r", test.lines))
				if test.lines > 23 {
					u.expect(numbered(1, 23) + more)
				}
				for _, key := range keysOf(test.keys) {
					_, before := u.look()
					u.send(key)
					if !strings.HasPrefix(test.name, "other") {
						u.wait("", func(string) bool {
							_, all := u.look()
							return len(all) > len(before) && (strings.HasSuffix(all, more[:len(more)-1]) || strings.Contains(all[len(before):], prompt))
						})
					}
				}
				u.expect(test.want)
			})
		}
	}
}

// A key that is held down sends several at once, also several bytes each; they are no paste.
func TestHeldPageKeys(t *testing.T) {
	for _, test := range []struct{ name, keys, want string }{
		{"two Spaces", "  ", numbered(47, 69) + more},
		{"three downs", "\x1b[B\x1b[B\x1b[B", numbered(4, 26) + more},
		{"Enters", "\r\r", numbered(3, 25) + more},
		{"Enters of two bytes", "\r\n\r\n", numbered(3, 25) + more},
		{"Spaces and text", "  /", numbered(78, 100) + prompt + "  /|"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			u := openTerminal(t, 80, kernelKnows)
			u.send("pages 100\r")
			u.expect(numbered(1, 23) + more)
			u.send(test.keys)
			u.expect(test.want)
		})
	}
}

// keysOf are the keys one by one.
func keysOf(text string) (keys []string) {
	for text != "" {
		n := 1
		for text[0] == 0x1b && n < len(text) && (n < 3 || text[n] == '~') {
			n++
		}
		keys, text = append(keys, text[:n]), text[n:]
	}
	return keys
}

// Pages are for who sees them: nothing stops where the height is not known, and no pasted line is lost.
func TestNoPages(t *testing.T) {
	t.Run("nobody knows the height", func(t *testing.T) {
		u := openTerminal(t, 80, nobodyKnows)
		u.send("pages 100\r")
		u.expect(numbered(78, 100) + prompt + "|")
	})
	t.Run("the kernel knows no height", func(t *testing.T) {
		u := openTerminal(t, 80, kernelKnows)
		require.NoError(t, unix.IoctlSetWinsize(int(u.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 80}))
		u.send("pages 100\r")
		u.expect(numbered(78, 100) + prompt + "|")
	})
	t.Run("a paste", func(t *testing.T) {
		u := openTerminal(t, 80, kernelKnows)
		u.send("pages 100\r/ip\rsocks\r")
		u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "\n[admin@postern] ip socks> |") })
		_, all := u.look()
		assert.NotContains(t, all, "[Q quit")
	})
	t.Run("a paste at the end of a page", func(t *testing.T) {
		u := openTerminal(t, 80, kernelKnows)
		u.send("pages 100\r")
		u.expect(numbered(1, 23) + more)
		u.send("/ip\rsocks\r")
		u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "\n[admin@postern] ip socks> |") })
	})
	t.Run("by lines", func(t *testing.T) {
		socket := filepath.Join(t.TempDir(), "console")
		listen(t, socket)
		var out bytes.Buffer
		require.NoError(t, Run(dialer(socket), strings.NewReader("pages 100\n"), &out))
		assert.Equal(t, prompt+numbered(1, 100)+prompt, out.String())
	})
	t.Run("one line of SSH", func(t *testing.T) {
		socket := filepath.Join(t.TempDir(), "console")
		listen(t, socket)
		conn, err := dialer(socket)()
		require.NoError(t, err)
		defer conn.Close()
		var out bytes.Buffer
		require.NoError(t, Exec(conn, "pages 100", 80, strings.NewReader(""), &out))
		assert.Equal(t, strings.ReplaceAll(numbered(1, 100), "\n", "\r\n"), out.String())
	})
}

// print stops, but not export, and not with without-paging.
func TestPagedCommands(t *testing.T) {
	for line, paged := range map[string]bool{
		"print": true, "print detail": true, "print without-paging": false, "/export": false, "find": false, "/ip socks print": false, // it is short
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			u := openTerminal(t, 80, kernelKnows)
			u.send("/ip socks access\r")
			for i := range 30 {
				u.send(fmt.Sprintf("add dst-port=%d comment=\"a note\"\r", i+1))
			}
			u.wait("", func(screen string) bool {
				return strings.HasSuffix(screen, "\n[admin@postern] ip socks access> |") && strings.Contains(screen, "dst-port=30 ")
			})
			u.send(line + "\r")
			u.wait("", func(screen string) bool {
				return strings.HasSuffix(screen, more) == paged && (paged || strings.HasSuffix(screen, "\n[admin@postern] ip socks access> |") && strings.Contains(screen, "> "+line) == (line == "find" || strings.HasPrefix(line, "/ip")))
			})
			_, all := u.look()
			assert.Equal(t, paged, strings.Contains(all, "[Q quit"))
		})
	}
}

// Of a screen that repeats itself as much is shown as fits, from its top, with the keys below it.
func TestRepeatedScreens(t *testing.T) {
	const hint = "-- [Q quit|D dump|C-z pause]|"
	var r *consoletest.Router
	begin := func(t *testing.T, line string) *user {
		u := openTerminalAt(t, 80, kernelKnows, func(of *consoletest.Router) { r = of })
		u.expect(prompt + "|")
		u.send(line + "\r")
		return u
	}
	// shown is the number of the beat on the screen, below the line that was typed at first.
	shown := func(u *user) int64 {
		screen, _ := u.look()
		found := regexp.MustCompile(`(?m)^beat (\d+)$`).FindAllStringSubmatch(screen, -1)
		if found == nil {
			return 0
		}
		n, _ := strconv.ParseInt(found[len(found)-1][1], 10, 64)
		return n
	}
	t.Run("what fits", func(t *testing.T) {
		u := begin(t, "beats 100")
		u.wait("", func(string) bool { return shown(u) >= 3 })
		u.wait("", func(screen string) bool {
			return regexp.MustCompile(`^beat \d+\n` + numbered(1, 22) + regexp.QuoteMeta(hint) + `$`).MatchString(screen)
		})
		u.send("q")
		u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "\n"+prompt+"|") })
	})
	t.Run("a short one", func(t *testing.T) {
		u := begin(t, "beats 2")
		u.wait("", func(string) bool { return shown(u) >= 3 })
		u.wait("", func(screen string) bool {
			return regexp.MustCompile(`^` + regexp.QuoteMeta(prompt) + `beats 2\nbeat \d+\n` + numbered(1, 2) + regexp.QuoteMeta(hint) + `$`).MatchString(screen)
		})
		u.send("\r")
		u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "\n"+prompt+"|") })
	})
	t.Run("another height", func(t *testing.T) {
		u := begin(t, "beats 100")
		u.wait("", func(string) bool { return shown(u) >= 1 })
		require.NoError(t, unix.IoctlSetWinsize(int(u.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 80, Row: 12}))
		u.wait("", func(string) bool {
			_, all := u.look()
			return strings.HasSuffix(all, "\r\n"+strings.ReplaceAll(numbered(1, 10), "\n", "\r\n")+hint[:len(hint)-1])
		})
		u.send("q")
		u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "\n"+prompt+"|") })
	})
	t.Run("all of it", func(t *testing.T) {
		u := begin(t, "beats 100")
		u.wait("", func(string) bool { return shown(u) >= 1 })
		u.send("d")
		u.wait("", func(screen string) bool { return strings.HasSuffix(screen, numbered(90, 100)+"|") })
		u.send("q")
		u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "\n"+prompt+"|") })
	})
	t.Run("a pause", func(t *testing.T) {
		u := begin(t, "beats 100")
		u.wait("", func(string) bool { return shown(u) >= 1 })
		u.send("\x1a")
		u.wait("", func(string) bool { return r.Beats.Load() > shown(u)+20 })
		before := shown(u)
		u.send("\x1a")
		u.wait("", func(string) bool { return shown(u) > before+20 })
		u.send("\x1a")
		u.wait("", func(string) bool { return r.Beats.Load() > shown(u)+20 })
		u.send("q")
		u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "\n"+prompt+"|") })
	})
}

// A terminal that is resized while a line is typed, or at the end of a page, has its new size with the next key.
func TestResize(t *testing.T) {
	u := openTerminal(t, 80, kernelKnows)
	resize := func(columns, rows int) {
		require.NoError(t, unix.IoctlSetWinsize(int(u.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(columns), Row: uint16(rows)}))
		u.mu.Lock()
		defer u.mu.Unlock()
		u.screen.width = columns
	}
	u.send("/ip socks access\radd src-address=192.168.0.1 dst-port=21 action=deny\rprint")
	u.wait("", func(screen string) bool { return strings.HasSuffix(screen, "> print|") })
	resize(40, 24)
	u.send("\r")
	u.wait("", func(screen string) bool {
		return strings.Contains(screen, " 0   src-address=192.168.0.1\n     dst-port=21 action=deny\n")
	})
	u.send("pages 100\r")
	u.wait("", func(screen string) bool { return strings.HasSuffix(screen, more) })
	resize(60, 11)
	_, before := u.look()
	u.send(" ")
	u.wait("", func(string) bool {
		_, all := u.look()
		return strings.HasSuffix(all, strings.ReplaceAll("\r\x1b[K"+numbered(24, 33), "\n", "\r\n")+more[:len(more)-1]) && len(all) > len(before)
	})
	u.send("q")
}

// Enter is two bytes on some terminals.
func TestPagesByTwoBytes(t *testing.T) {
	u := openTerminal(t, 80, kernelKnows)
	u.send("pages 100\r\n")
	u.expect(numbered(1, 23) + more)
	u.send("\r\n")
	u.expect(numbered(2, 24) + more)
	u.send("q")
}

// What comes at once is a paste, but for a key that is two bytes, and Ctrl-C.
func TestMoreAtOnce(t *testing.T) {
	for _, test := range []struct {
		keys, answer string
		err          error
		left         string
	}{
		{"\r\n", wire.NextLine, nil, ""},
		{"\n", wire.NextLine, nil, ""},
		{"\x03/ip\r", "", errLeave, "/ip\r"},
		{"q/ip\r", wire.Dump, nil, "q/ip\r"},
	} {
		done := make(chan struct{})
		defer close(done)
		e := newEditor(readAhead(strings.NewReader(test.keys), done), io.Discard, func() (int, int) { return 80, 24 })
		e.begin(nil)
		answer, err := e.more("-- more")
		assert.Equal(t, test.err, err, "%q", test.keys)
		assert.Equal(t, test.answer, answer, "%q", test.keys)
		assert.Equal(t, test.left, string(e.in.ahead), "%q", test.keys)
	}
}

// Whatever is typed at the end of a page, the terminal neither hangs nor sends an answer that is none.
func FuzzMore(f *testing.F) {
	for _, keys := range []string{"q", "d", " ", "\r\n", "\x1b[B", "\x1b[6~", "/ip\r", "\x1b", "\xff\xc3", "\x03", "\x1b[24;80R"} {
		f.Add([]byte(keys))
	}
	f.Fuzz(func(t *testing.T, keys []byte) {
		done := make(chan struct{})
		defer close(done)
		e := newEditor(readAhead(bytes.NewReader(keys), done), io.Discard, func() (int, int) { return 80, 24 })
		e.begin(nil)
		answer, err := e.more("-- more")
		if err != nil {
			assert.Contains(t, []error{io.EOF, errLeave}, err)
			return
		}
		assert.Contains(t, []string{"", "line", "dump"}, answer)
	})
}
