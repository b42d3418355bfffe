package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/e2e"
)

// TestSerialLineWaits boots a board whose serial line nobody reads until the router answers
// on the network, as on a host that is busy: no letter of it is lost.
func TestSerialLineWaits(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	b := boards()[0]
	r := layNetwork(t, b.Name)
	r.boot(t, machineOptions{
		image:         filepath.Join(imageDir, b.Name),
		configuration: manualConfiguration(b),
		commandLine:   "ignore_loglevel", // all that the kernel's log has is printed
	})
	// On some boards another driver prints until then, and waits for as long as it takes.
	r.expect(t, "console ["+b.Consoles[0]+"] enabled")
	r.m.screen.mu.Lock() // the reader stands still here
	err := r.n.awaitPing(client, lanAddress)
	r.m.screen.mu.Unlock()
	require.NoError(t, err)
	r.expect(t, "socks accepts on port 1080")
	r.expect(t, "\n[admin@postern] > ")
	logged := regexp.MustCompile(`(?m)^[\d:]+ (\S+ .*)$`).FindAllStringSubmatch(r.command(t, "/log print"), -1)
	assert.Greater(t, len(logged), 2)
	screen := r.m.screen.all()
	for _, line := range logged {
		shown := "postern: " + line[1]
		if _, text, ofKernel := strings.Cut(line[1], " kernel: "); ofKernel {
			shown = "] " + text // behind the kernel's own time
		}
		assert.True(t, strings.Contains(screen, shown+"\r\n"), "not on the screen as it is in the log: %s", line[1])
	}
}

// A serial line keeps what is printed while nobody reads, and its end has all of it.
func TestSerialLine(t *testing.T) {
	s := newScreen()
	s.mu.Lock()
	l, err := openSerialLine(filepath.Join(t.TempDir(), "serial"), s)
	require.NoError(t, err)
	defer l.close()
	machine := openPipe(t, l.path+".out")
	const printed = 100_000 // one by one, as QEMU does
	for i := range printed {
		_, err := machine.Write([]byte{'a' + byte(i%26)})
		require.NoError(t, err)
	}
	require.NoError(t, machine.Close())
	s.mu.Unlock()
	l.drain()
	assert.Len(t, s.all(), printed)
	assert.True(t, strings.HasPrefix(s.all(), "abcdefghijklmnopqrstuvwxyzabc"))

	typed := openPipe(t, l.path+".in")
	_, err = l.in.WriteString("/export\r")
	require.NoError(t, err)
	got := make([]byte, 8)
	require.NoError(t, typed.SetReadDeadline(time.Now().Add(patience)))
	_, err = typed.Read(got)
	require.NoError(t, err)
	assert.Equal(t, "/export\r", string(got))
}

// openPipe opens a named pipe as QEMU does.
func openPipe(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}
