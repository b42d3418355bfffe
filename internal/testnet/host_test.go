package testnet

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pair is two hosts that a cable connects: 192.0.2.1 and .2.
func pair(t *testing.T) (a, b *Host) {
	t.Helper()
	a, b = New(t, "a"), New(t, "b")
	require.NoError(t, Link(a, "eth0", b, "eth1"))
	require.NoError(t, a.IP("addr add 192.0.2.1/24 dev eth0", "route add default via 192.0.2.2"))
	require.NoError(t, b.IP("addr add 192.0.2.2/24 dev eth1"))
	return a, b
}

func TestConnection(t *testing.T) {
	a, b := pair(t)
	listener, err := b.Listen("192.0.2.2:0")
	require.NoError(t, err)
	defer listener.Close()
	conn, err := a.Dial(&net.Dialer{LocalAddr: &net.TCPAddr{Port: 4000}}, listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	accepted, err := listener.Accept()
	require.NoError(t, err)
	defer accepted.Close()
	assert.Equal(t, "192.0.2.1:4000", accepted.RemoteAddr().String())

	_, err = b.Dial(nil, "192.0.2.1:4000")
	assert.ErrorContains(t, err, "connection refused")
	_, err = b.Listen("192.0.2.1:80")
	assert.ErrorContains(t, err, "cannot assign requested address")
	_, err = net.Dial("tcp4", listener.Addr().String())
	assert.Error(t, err, "from the tests' own namespace")
}

func names(t *testing.T) string {
	t.Helper()
	links, err := net.Interfaces()
	require.NoError(t, err)
	var b strings.Builder
	for _, l := range links {
		b.WriteString(l.Name + " ")
	}
	return b.String()
}

func TestDoAndEnter(t *testing.T) {
	a, b := pair(t)
	require.NoError(t, a.Do(func() error {
		assert.Equal(t, "lo eth0 ", names(t))
		return nil
	}))
	assert.Equal(t, "lo ", names(t))
	t.Run("entered", func(t *testing.T) {
		require.NoError(t, a.Enter())
		assert.Equal(t, "lo eth0 ", names(t))
		require.NoError(t, b.Enter())
		assert.Equal(t, "lo eth1 ", names(t))
	})
	assert.Equal(t, "lo ", names(t))

	refused := errors.New("refused")
	assert.Equal(t, refused, a.Do(func() error { return refused }))
	assert.ErrorContains(t, a.Do(func() error { runtime.Goexit(); return nil }), "the function did not return")
}

func TestCommand(t *testing.T) {
	a, b := pair(t)
	dir := t.TempDir()
	cmd := a.Command("sh", "-c", `pwd; cat; echo "$WORD" "$1"; ip -br link show eth0 | cut -c-4; echo $$`, "sh", "an argument")
	cmd.Dir, cmd.Env, cmd.Stdin = dir, append(os.Environ(), "WORD=word"), strings.NewReader("input\n")
	out, err := cmd.Output()
	require.NoError(t, err)
	lines := strings.Split(string(out), "\n")
	require.Len(t, lines, 6)
	assert.Equal(t, []string{dir, "input", "word an argument", "eth0"}, lines[:4])

	before, err := os.ReadFile("/etc/hosts")
	require.NoError(t, err)
	require.NoError(t, b.Overlay("/etc/hosts", "192.0.2.1 a\n"))
	require.NoError(t, b.Overlay("/etc/resolv.conf", "nameserver 192.0.2.1\n"))
	cmd = b.Command("sh", "-c", `pwd; cat /etc/hosts /etc/resolv.conf; ip -br link show eth1 | cut -c-4; printf "%s|" "$@"`, "sh", "--", "an argument", "--")
	cmd.Dir = dir
	out, err = cmd.Output()
	require.NoError(t, err)
	assert.Equal(t, dir+"\n192.0.2.1 a\nnameserver 192.0.2.1\neth1\n--|an argument|--|", string(out))
	after, err := os.ReadFile("/etc/hosts")
	require.NoError(t, err)
	assert.Equal(t, before, after)

	require.NoError(t, b.Overlay("/etc/no-such-file", ""))
	err = b.Run("true", "or", "not")
	assert.ErrorContains(t, err, "true or not on b: exit status 126: mount:")
}

func TestRefusals(t *testing.T) {
	a := New(t, "a")
	assert.NoError(t, a.Run("true"))
	assert.ErrorContains(t, a.Run("sh", "-c", "echo why >&2; exit 3"), "on a: exit status 3: why")
	assert.ErrorContains(t, a.IP("link set lo up", "link set eth7 up", "link set lo down"), "ip on a: exit status 1: Cannot find device \"eth7\"")
	require.NoError(t, a.Do(func() error {
		lo, err := net.InterfaceByName("lo")
		if err == nil {
			assert.NotZero(t, lo.Flags&net.FlagUp, "the line behind the refused one was not carried out")
		}
		return err
	}))
	assert.Error(t, Link(a, "eth0", New(t, "b"), "lo"))
	assert.ErrorIs(t, a.Set("net.ipv4.no_such_parameter", "1"), os.ErrNotExist)
	assert.NoError(t, a.Set("net.ipv4.ip_forward", "1"))
	here, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	require.NoError(t, err)
	assert.Equal(t, "0\n", string(here), "of the tests' own namespace")

	closed, err := NewHost("closed")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	assert.ErrorIs(t, closed.Close(), os.ErrClosed)
	assert.Error(t, closed.Do(func() error { return nil }))
	assert.Error(t, closed.Enter())
}

// The programs of a host end with it, also those that have left their group, and those
// of another do not.
func TestClose(t *testing.T) {
	a, b := New(t, "a"), New(t, "b")
	// It goes on starting programs after it has said that it is ready.
	const program = "(setsid sleep 1000 &); echo ready; for i in 1 2 3 4 5 6 7 8 9; do (setsid sleep 1000 &); done; sleep 1000"
	stays := b.Command("sh", "-c", program)
	stayed, err := stays.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, stays.Start())
	ends := a.Command("sh", "-c", program)
	ended, err := ends.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, ends.Start())
	for _, r := range []io.Reader{stayed, ended} {
		_, err := io.ReadFull(r, make([]byte, len("ready\n")))
		require.NoError(t, err)
	}

	require.NoError(t, a.Kill())
	_, err = ended.Read(make([]byte, 1))
	assert.ErrorIs(t, err, io.EOF, "all that had the pipe are gone")
	assert.Error(t, ends.Wait())
	assert.NoError(t, stays.Process.Signal(syscall.Signal(0)))
	require.NoError(t, b.Kill())
	assert.Error(t, stays.Wait())
}
