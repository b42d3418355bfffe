package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
)

// TestVersion5 sets version 5 with a user at the console: the password lets a client through, and
// still does after a restart; another does not.
func TestVersion5(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	k := newKeeper(t, boards()[0])
	s, err := startSite(k.n, filepath.Join(k.dir, "site"))
	require.NoError(t, err)
	t.Cleanup(s.close)
	fetched := filepath.Join(k.dir, "fetched")
	curl := func(password string, more ...string) *exec.Cmd {
		return k.n.command(client, "curl", append([]string{"--silent", "--show-error", "--proxy", "socks5h://" + lanAddress + ":1080",
			"--proxy-user", "alice:" + password, "--output", fetched, "http://" + serverAddress + "/" + fileName}, more...)...)
	}
	passes := func(t *testing.T) {
		t.Helper()
		require.NoError(t, os.RemoveAll(fetched))
		out, err := curl("s3 cret").CombinedOutput()
		require.NoError(t, err, "%s", out)
		got, err := os.ReadFile(fetched)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(s.file, got), "the file that arrived has %d bytes and is another", len(got))
	}
	refused := func(t *testing.T, password string) {
		t.Helper()
		out, err := curl(password).CombinedOutput()
		require.Error(t, err)
		assert.Contains(t, string(out), "User was rejected by the SOCKS5 server")
	}

	k.start(t, "postern", nil)
	k.command(t, "/ip address add interface=ether1 address="+wanAddress+"/24; /ip route add gateway="+gatewayAddress)
	assert.Empty(t, k.command(t, "/ip socks set version=5 auth-method=password"))
	assert.Contains(t, k.command(t, "/ip socks set enabled=yes"), "warning: nobody can use this server")
	refused(t, "s3 cret")
	assert.Empty(t, k.command(t, `/ip socks users add name=alice password="s3 cret" only-one=yes`))
	passes(t)
	refused(t, "secret")

	slow := curl("s3 cret", "--limit-rate", "100k")
	require.NoError(t, slow.Start())
	t.Cleanup(func() { kill(slow) })
	require.NoError(t, retry(func() error {
		if out := k.command(t, "/ip socks connections print count-only where user=alice dst-address=\""+serverAddress+":80\""); out != "1\n" {
			return fmt.Errorf("%q connections of alice", out)
		}
		return nil
	}))
	out, err := curl("s3 cret").CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "Can't complete SOCKS5 connection to "+serverAddress+". (2)", "she may have one only")
	// Who is disabled is cut off.
	k.command(t, "/ip socks users disable alice")
	require.Error(t, slow.Wait())
	k.command(t, "/ip socks users enable alice")
	passes(t)

	assert.Contains(t, k.command(t, "/ip socks export"), "/ip socks\nset auth-method=password enabled=yes version=5\n/ip socks users\nadd name=alice only-one=yes\n")
	assert.Contains(t, k.command(t, "/ip socks users export show-sensitive terse"), `add name=alice only-one=yes password-hash="\$argon2id\$v=19\$m=2048,t=3,p=1\$`)
	assert.NotContains(t, k.command(t, "/ip socks users print detail"), "password")
	require.NoError(t, k.m.send("/system reboot\ry\r"))
	require.NoError(t, k.m.wait())

	k.start(t, "postern", nil)
	assert.NotContains(t, k.said, "kept configuration:")
	passes(t)
	refused(t, "secret")
	k.m.kill()
}

// requestSOCKS5Within sends a request of version 5 without a password, and returns the reply to it, granted or rejected as in version 4,
// if each answer comes within limit.
func requestSOCKS5Within(conn net.Conn, command byte, to netip.AddrPort, limit time.Duration) (socksReply, error) {
	request := append([]byte{5, 1, 0, 5, command, 0, 1}, to.Addr().AsSlice()...)
	if _, err := conn.Write(binary.BigEndian.AppendUint16(request, to.Port())); err != nil {
		return socksReply{}, fmt.Errorf("SOCKS request: %w", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return socksReply{}, err
	}
	var method [2]byte
	if _, err := io.ReadFull(conn, method[:]); err != nil || method != [2]byte{5, 0} {
		return socksReply{}, fmt.Errorf("SOCKS method %v: %w", method, err)
	}
	return readReplySOCKS5(conn, limit)
}

// readReplySOCKS5 waits for a reply of version 5 (RFC 1928, section 6), at most limit.
func readReplySOCKS5(conn net.Conn, limit time.Duration) (socksReply, error) {
	if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return socksReply{}, err
	}
	var b [10]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return socksReply{}, fmt.Errorf("SOCKS reply: %w", err)
	}
	if b[0] != 5 || b[3] != 1 {
		return socksReply{}, fmt.Errorf("SOCKS reply %v: not one of version 5 with an IPv4 address", b)
	}
	reply := socksReply{rejected, netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), binary.BigEndian.Uint16(b[8:]))}
	if b[1] == 0 {
		reply.code = granted
	}
	return reply, conn.SetReadDeadline(time.Time{})
}
