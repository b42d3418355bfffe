package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
)

// What the lab says to type opens a shell on the client.
func TestEnter(t *testing.T) {
	e2e.Boots(t)
	n, err := newNetwork("-" + filepath.Base(t.TempDir()))
	require.NoError(t, err)
	t.Cleanup(n.close)
	shell := exec.Command("sh", "-c", n.enter(client))
	shell.Stdin = strings.NewReader("ip -brief address show dev eth0\n")
	out, err := shell.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), clientAddress+"/24")
}
