package main

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// TestREADME types the command by which README starts an image in QEMU, and finds a router
// with a LAN on which this machine is 192.168.0.2, as it says there.
func TestREADME(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	text, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	at := slices.IndexFunc(blocks, func(b []string) bool { return strings.Contains(b[1], "image qemu ") })
	require.GreaterOrEqual(t, at, 0, "README has no such command any more")
	// The image of that name has been built.
	command := regexp.MustCompile(`(?m)^make image .*\n`).ReplaceAllString(blocks[at][1], "")
	name, err := find(command, `image qemu (\S+?)\)`)
	require.NoError(t, err)
	skipWithout(t, name)

	m := &machine{screen: newScreen(), stderr: newScreen(), exited: make(chan struct{})}
	m.board, err = board.ByName(name)
	require.NoError(t, err)
	m.cmd = exec.Command("bash", "-c", command)
	m.cmd.Dir = ".."
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	m.cmd.Stdout, m.cmd.Stderr = m.screen, m.stderr
	keys, in, err := os.Pipe()
	require.NoError(t, err)
	m.cmd.Stdin, m.serial = keys, &serialLine{in: in}
	require.NoError(t, m.cmd.Start())
	go func() {
		m.exitErr = m.cmd.Wait()
		close(m.exited)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-m.cmd.Process.Pid, syscall.SIGKILL)
		keys.Close()
		in.Close()
	})

	_, err = m.expect("\n[admin@postern] > ")
	require.NoError(t, err)
	require.NoError(t, retry(func() error { // the cards may still look for a carrier
		screen, err := m.command("/ping " + clientAddress + " count=1")
		if err == nil {
			_, err = find(screen, `(sent=1 received=1 )`)
		}
		return err
	}))
	screen, err := m.command("/interface print")
	require.NoError(t, err)
	for _, port := range m.board.Ports {
		assert.Regexp(t, `(?m)^ \d  R  `+port.Name+` `, screen)
	}
	// Ctrl-A x ends a QEMU that has -nographic.
	require.NoError(t, m.send("\x01x"))
	require.NoError(t, m.wait())
}
