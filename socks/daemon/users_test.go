package daemon

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/password"
	"github.com/postern-router/postern/socks"
)

const testHash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"

func TestParseUsers(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []socks.User
		err        string
	}{
		{name: "nobody"},
		{name: "comments and empty lines", text: "# people\n\n#alice:x\n"},
		{name: "one", text: "alice:" + testHash + "\n", want: []socks.User{{Name: "alice", Password: testHash}}},
		{name: "no line end", text: "alice:" + testHash, want: []socks.User{{Name: "alice", Password: testHash}}},
		{name: "all options, line ends of Windows", text: "a b:" + testHash + ":only-one:rate-limit=1500k:disabled\r\nbob:" + testHash + ":rate-limit=10M\r\n",
			want: []socks.User{{Name: "a b", Password: testHash, OnlyOne: true, RateLimit: 1_500_000, Disabled: true}, {Name: "bob", Password: testHash, RateLimit: 10_000_000}}},
		{name: "the longest name", text: strings.Repeat("n", 255) + ":" + testHash, want: []socks.User{{Name: strings.Repeat("n", 255), Password: testHash}}},
		{name: "no hash", text: "\n\nalice\n", err: "f:3: expected NAME:HASH[:only-one][:rate-limit=RATE][:disabled], as socksd passwd NAME writes it"},
		{name: "a password", text: "alice:secret\n",
			err: `f:1: user "alice": the hash is not one that socksd passwd writes: another kind of hash; expected $argon2id$v=19$m=2048,t=3,p=1$SALT$KEY`},
		{name: "no name", text: ":" + testHash, err: "f:1: a user's name of 0 bytes: expected 1..255"},
		{name: "a long name", text: strings.Repeat("n", 256) + ":" + testHash, err: "f:1: a user's name of 256 bytes: expected 1..255"},
		{name: "a name that cannot be printed", text: "a\x1b[31m:" + testHash, err: `f:1: user "a\x1b[31m": expected a name that can be printed`},
		{name: "a name twice", text: "alice:" + testHash + "\n#\nalice:" + testHash + ":disabled", err: `f:3: user "alice" is in line 1 too`},
		{name: "another option", text: "alice:" + testHash + ":only-one=yes", err: `f:1: user "alice": expected only-one, rate-limit=RATE or disabled, not "only-one=yes"`},
		{name: "an empty option", text: "alice:" + testHash + ":", err: `f:1: user "alice": expected only-one, rate-limit=RATE or disabled, not ""`},
		{name: "an option twice", text: "alice:" + testHash + ":rate-limit=1M:rate-limit=2M", err: `f:1: user "alice": rate-limit is there twice`},
		{name: "a rate that is none", text: "alice:" + testHash + ":rate-limit=fast", err: `f:1: user "alice": rate-limit=fast: expected bits per second, 1k..10G`},
		{name: "no rate", text: "alice:" + testHash + ":rate-limit=0", err: `f:1: user "alice": rate-limit=0: expected bits per second, 1k..10G`},
	} {
		t.Run(c.name, func(t *testing.T) {
			users, err := parseUsers("f", []byte(c.text))
			if c.err != "" {
				require.EqualError(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, users)
		})
	}
}

// What is read is a configuration that socksd takes, unless the users are too many for it.
func FuzzParseUsers(f *testing.F) {
	f.Add([]byte("alice:" + testHash + ":only-one:rate-limit=10M\n# bob\nbob:" + testHash + ":disabled"))
	f.Add([]byte("::::\n\r\n#"))
	f.Fuzz(func(t *testing.T, text []byte) {
		users, err := parseUsers("f", text)
		if err != nil {
			require.Regexp(t, `^f:[0-9]+: .`, err.Error())
			return
		}
		cfg := socks.DefaultConfig()
		cfg.Users = users
		if len(text) < socks.MaxUserBytes && len(users) <= socks.MaxUsers {
			require.NoError(t, cfg.Validate())
		}
	})
}

// passwd runs "socksd passwd" with that standard input.
func passwd(t *testing.T, name string, stdin *os.File) (stdout string, p process) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "passwd", name)
	cmd.Env = append(os.Environ(), "POSTERN_TEST_SOCKSD=1")
	cmd.Stdin = stdin
	path := filepath.Join(t.TempDir(), "stdout")
	out, err := os.Create(path)
	require.NoError(t, err)
	defer out.Close()
	cmd.Stdout = out
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return path, process{cmd, bufio.NewReader(stderr)}
}

// checkPasswd checks that the file is a line of users with that password.
func checkPasswd(t *testing.T, path, name, secret string) {
	t.Helper()
	users, err := readUsers(path)
	require.NoError(t, err)
	require.Len(t, users, 1)
	assert.Equal(t, name, users[0].Name)
	h, err := password.Parse(users[0].Password)
	require.NoError(t, err)
	assert.True(t, h.Matches(secret))
	assert.False(t, h.Matches(secret+"x"))
}

func TestPasswdReadsALine(t *testing.T) {
	for _, c := range []struct{ name, input, secret, err string }{
		{"a line", "s3 cret\n", "s3 cret", ""},
		{"no line end", "s3cret", "s3cret", ""},
		{"more lines", "s3cret\r\nmore\n", "s3cret", ""},
		{"the longest", strings.Repeat("x", 255) + "\n", strings.Repeat("x", 255), ""},
		{"nothing", "", "", "a password of 0 bytes: expected 1..255"},
		{"an empty line", "\nx\n", "", "a password of 0 bytes: expected 1..255"},
		{"too long", strings.Repeat("x", 256) + "\n", "", "a password of 256 bytes: expected 1..255"},
		{"endless", strings.Repeat("x", 100_000), "", "a password of 1024 bytes: expected 1..255"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "stdin")
			require.NoError(t, os.WriteFile(file, []byte(c.input), 0o600))
			stdin, err := os.Open(file)
			require.NoError(t, err)
			defer stdin.Close()
			path, p := passwd(t, "alice", stdin)
			says, code := p.awaitExit(t)
			if c.err != "" {
				assert.Equal(t, 1, code)
				assert.Equal(t, "socksd: passwd: "+c.err+"\n", says)
				return
			}
			assert.Zero(t, code, says)
			assert.Empty(t, says)
			checkPasswd(t, path, "alice", c.secret)
		})
	}
}

// openTerminal returns both ends of a pseudo terminal.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	master = os.NewFile(uintptr(fd), "master")
	t.Cleanup(func() { master.Close() })
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// echoes reports whether a terminal shows what is typed.
func echoes(t *testing.T, terminal *os.File) bool {
	t.Helper()
	raw, err := terminal.SyscallConn()
	require.NoError(t, err)
	var state *unix.Termios
	require.NoError(t, raw.Control(func(fd uintptr) { state, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) }))
	require.NoError(t, err)
	return state.Lflag&unix.ECHO != 0
}

// awaitPrompt reads the prompt and waits until what is typed is not shown.
func (p process) awaitPrompt(t *testing.T, prompt string, terminal *os.File) {
	t.Helper()
	kill := time.AfterFunc(patience, func() { p.Process.Kill() })
	defer kill.Stop()
	b := make([]byte, len(prompt))
	_, err := io.ReadFull(p.stderr, b)
	require.NoError(t, err)
	require.Equal(t, prompt, string(b))
	require.Eventually(t, func() bool { return !echoes(t, terminal) }, patience, 5*time.Millisecond)
}

func TestPasswdOnATerminal(t *testing.T) {
	for _, c := range []struct{ name, first, second, err string }{
		{"twice the same", "s3 cret", "s3 cret", ""},
		{"two others", "s3cret", "secret", "the two passwords differ"},
		{"nothing", "", "", "a password of 0 bytes: expected 1..255"},
	} {
		t.Run(c.name, func(t *testing.T) {
			master, slave := openTerminal(t)
			path, p := passwd(t, "alice", slave)
			p.awaitPrompt(t, "Password: ", slave)
			_, err := master.WriteString(c.first + "\n")
			require.NoError(t, err)
			p.awaitPrompt(t, "\nAgain: ", slave)
			_, err = master.WriteString(c.second + "\n")
			require.NoError(t, err)
			says, code := p.awaitExit(t)
			assert.True(t, echoes(t, slave), "the terminal is as it was")
			require.NoError(t, master.SetReadDeadline(time.Now().Add(time.Millisecond)))
			shown, _ := io.ReadAll(master) // up to the deadline
			assert.Empty(t, strings.TrimSpace(string(bytes.ReplaceAll(shown, []byte("\r\n"), nil))), "what was typed is not shown")
			if c.err != "" {
				assert.Equal(t, 1, code)
				assert.Equal(t, "\nsocksd: passwd: "+c.err+"\n", says)
				return
			}
			assert.Zero(t, code, says)
			checkPasswd(t, path, "alice", c.first)
		})
	}
	t.Run("ended by a signal", func(t *testing.T) {
		_, slave := openTerminal(t)
		path, p := passwd(t, "alice", slave)
		p.awaitPrompt(t, "Password: ", slave)
		require.NoError(t, p.Process.Signal(syscall.SIGINT))
		says, code := p.awaitExit(t)
		assert.Equal(t, "\n", says)
		assert.Equal(t, 130, code)
		assert.True(t, echoes(t, slave), "the terminal is as it was")
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Empty(t, text)
	})
}
