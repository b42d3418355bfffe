package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// TestDHCPServer has a real client take an address of the router, before and after a restart.
func TestDHCPServer(t *testing.T) {
	e2e.Boots(t)
	e2e.Needs(t, "busybox")
	for _, b := range boards() {
		t.Run(b.Name, func(t *testing.T) { testDHCPServer(t, b) })
	}
}

// join has a client that remembers nothing ask for an address, and returns it.
func (k *keeper) join(t *testing.T, h host) string {
	t.Helper()
	folder := t.TempDir()
	script, told := filepath.Join(folder, "script"), filepath.Join(folder, "told")
	text := "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr flush dev $interface\nip addr add $ip/$mask dev $interface\n" +
		"ip route replace default via $router\necho $ip $mask $router $dns $domain > " + told + "\n"
	require.NoError(t, os.WriteFile(script, []byte(text), 0o755))
	out, err := k.n.command(h, "busybox", "udhcpc", "-f", "-q", "-n", "-t", "60", "-T", "5", "-i", "eth0", "-x", "hostname:"+string(h), "-s", script).CombinedOutput()
	require.NoError(t, err, "%s", out)
	got, err := os.ReadFile(told)
	require.NoError(t, err, "%s", out)
	address, rest, _ := strings.Cut(strings.TrimSpace(string(got)), " ")
	assert.Equal(t, "24 192.168.0.1 192.168.0.1 lan", rest)
	return address
}

func testDHCPServer(t *testing.T, b board.Board) {
	k := newKeeper(t, b)
	k.start(t, "postern", nil)
	for _, line := range []string{
		"/ip pool set default-dhcp ranges=192.168.0.10-192.168.0.99", // of the default configuration
		"/ip dhcp-server network set 0 domain=lan",
	} {
		assert.Empty(t, k.command(t, line))
	}
	first := k.join(t, client)
	require.NoError(t, k.n.awaitPing(client, lanAddress))
	screen := ""
	bound := func() error {
		screen = k.command(t, "/ip dhcp-server lease print")
		if !strings.Contains(screen, first+" ") || !strings.Contains(screen, " client ") || !strings.Contains(screen, " bound ") {
			return errors.New("the lease is not shown:\n" + screen)
		}
		return nil
	}
	require.NoError(t, retry(bound))
	assert.Regexp(t, `(?m)^ 0 D `+first, screen)
	// The first write comes at once; then they are 5 minutes apart.
	k.pass(t, 12*time.Second)
	k.m.kill() // as when the power is cut
	k.start(t, "postern", nil)
	require.NoError(t, bound(), "before anybody has asked")
	second := k.join(t, other)
	assert.NotEqual(t, first, second)
	require.NoError(t, k.n.awaitPing(other, lanAddress))
	require.NoError(t, retry(func() error {
		if used := k.command(t, "/ip pool print"); !strings.Contains(used, " 90       2      88") {
			return fmt.Errorf("two addresses are used:\n%s", used)
		}
		return nil
	}))
	t.Logf("%s:\n%s%s", b.Name, k.command(t, "/ip dhcp-server lease print"), k.command(t, "/system resource print"))

	require.NoError(t, k.m.send("/system reboot\ry\r"))
	require.NoError(t, k.m.wait())
	k.start(t, "postern", nil)
	require.NoError(t, bound(), "before anybody has asked")
	assert.Equal(t, second, k.join(t, other), "the other asks first")
	assert.Equal(t, first, k.join(t, client))
	k.command(t, "/ip dhcp-server lease make-static [find host-name=other]")
	assert.Contains(t, k.command(t, "/export"), "add address="+second+" mac-address=")
	k.m.kill()
}
