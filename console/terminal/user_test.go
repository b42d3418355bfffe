package terminal

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/console/internal/consoletest"
)

// openPTY returns both ends of a pseudo terminal.
func openPTY(t *testing.T) (master, slave *os.File) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { master.Close() })
	raw, err := master.SyscallConn()
	require.NoError(t, err)
	number := 0
	require.NoError(t, raw.Control(func(fd uintptr) {
		require.NoError(t, unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0))
		number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		require.NoError(t, err)
	}))
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// user is a user at a terminal that Run serves.
type user struct {
	t             *testing.T
	master, slave *os.File
	before        *unix.Termios
	done          chan error

	mu     sync.Mutex
	screen *vt
	all    bytes.Buffer // what the terminal was sent
}

// knows says who knows the width of a terminal.
type knows int

const (
	terminalKnows knows = iota // it answers when it is asked, as on a serial line
	nobodyKnows
	kernelKnows // as of a terminal that is a window
)

// openTerminal starts Run on a terminal of that width, and waits for the prompt.
func openTerminal(t *testing.T, width int, who knows) *user {
	u := openTerminalAt(t, width, who)
	u.expect("[admin@postern] > |")
	if who != kernelKnows {
		// It is asked behind the prompt, and who types before it has answered types at
		// another width.
		u.wait("", func(string) bool { _, all := u.look(); return strings.Contains(all, sizeQuery) })
	}
	return u
}

// openTerminalAt is openTerminal for a router that is changed first. It does not wait for the prompt.
func openTerminalAt(t *testing.T, width int, who knows, changes ...func(*consoletest.Router)) *user {
	socket := filepath.Join(t.TempDir(), "console")
	listen(t, socket, changes...)
	master, slave := openPTY(t)
	u := &user{t: t, master: master, slave: slave, done: make(chan error, 1)}
	u.screen = newVT(width, func(s string) {
		if who == terminalKnows {
			_, _ = io.WriteString(master, s)
		}
	})
	var err error
	if who == kernelKnows {
		require.NoError(t, unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(width), Row: 24}))
	}
	u.before, err = unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	require.NoError(t, err)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			if err != nil {
				return
			}
			u.mu.Lock()
			u.all.Write(buf[:n])
			_, _ = u.screen.Write(buf[:n])
			u.mu.Unlock()
		}
	}()
	go func() { u.done <- Run(dialer(socket), slave, slave) }()
	t.Cleanup(func() {
		assert.Empty(t, u.screen.unknown, "sent to the terminal")
		master.Close()
		<-u.done
	})
	return u
}

func (u *user) send(keys string) {
	u.t.Helper()
	_, err := io.WriteString(u.master, keys)
	require.NoError(u.t, err)
}

func (u *user) look() (screen, all string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.screen.String(), u.all.String()
}

// expect waits until the screen is want.
func (u *user) expect(want string) {
	u.t.Helper()
	u.wait(want, func(screen string) bool { return screen == want })
}

// wait waits until ok is true for the screen. It counts attempts instead of time, so that a
// host that stands still fails no test.
func (u *user) wait(want string, ok func(screen string) bool) {
	u.t.Helper()
	for range 6000 {
		if screen, _ := u.look(); ok(screen) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	screen, all := u.look()
	require.Equal(u.t, want, screen, "%q", all)
}

const prompt = consoletest.Prompt
