package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
)

// What the lab says to type opens a shell on the client.
func TestEnter(t *testing.T) {
	e2e.Boots(t)
	n, err := newNetwork()
	require.NoError(t, err)
	t.Cleanup(n.close)
	shell := exec.Command("sh", "-c", n.enter(client))
	shell.Stdin = strings.NewReader("ip -brief address show dev eth0\n")
	out, err := shell.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), clientAddress+"/24")
}

// A program whose owner is gone is ended, and one whose owner is here is not.
func TestSweep(t *testing.T) {
	e2e.Boots(t)
	gone := exec.Command("true")
	require.NoError(t, gone.Run())
	n, err := newNetwork()
	require.NoError(t, err)
	t.Cleanup(n.close)
	start := func(owner int) *exec.Cmd {
		cmd := n.command(client, "sh", "-c", "echo ready; exec sleep 1000")
		cmd.Env = append(cmd.Env, ownedBy(owner))
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { kill(cmd) })
		_, err = bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		return cmd
	}
	left, ours := start(gone.Process.Pid), start(os.Getpid())
	require.NoError(t, sweep())
	assert.Error(t, left.Wait(), "it was killed")
	assert.NoError(t, ours.Process.Signal(syscall.Signal(0)))
}
