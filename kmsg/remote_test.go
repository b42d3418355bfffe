package kmsg

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSyslogMessage(t *testing.T) {
	rec := record{sequence: 1, level: Warning, at: 1500 * time.Millisecond, topics: "socks,warning", message: "socksd ended"}
	unset := Clock{time.Date(1970, 1, 1, 0, 0, 9, 0, time.UTC), 9 * time.Second, false}
	set := Clock{time.Date(2030, 1, 31, 23, 59, 59, 0, time.UTC), 9 * time.Second, true}
	assert.Equal(t, "<28>1 - postern postern - socks,warning - socksd ended", syslogMessage(rec, "postern", unset))
	assert.Equal(t, "<28>1 2030-01-31T23:59:51.500Z postern postern - socks,warning - socksd ended", syslogMessage(rec, "postern", set))
	rec.topics = strings.Repeat("x", 40)
	assert.Contains(t, syslogMessage(rec, "postern", set), " "+strings.Repeat("x", 32)+" - ")
	assert.Equal(t, "the-r-uter-", syslogName("the röuter\n"))
}

// syslogLab is a log that the test writes, and a server.
type syslogLab struct {
	*testing.T
	remote *Remote
	kmsg   *testKernel
	server *net.UDPConn
	said   string // file of what the router's own log was told
}

func newSyslogLab(t *testing.T) *syslogLab {
	dir := t.TempDir()
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	l := &syslogLab{T: t, server: server, said: filepath.Join(dir, "said")}
	said, err := os.Create(l.said)
	require.NoError(t, err)
	l.kmsg = newTestKernel(t)
	l.remote = NewRemote(New(said), l.kmsg.journal)
	l.remote.retry = 20 * time.Millisecond
	t.Cleanup(func() {
		l.remote.Set(Destination{}, true)
		said.Close()
		l.server.Close()
	})
	return l
}

func (l *syslogLab) address() netip.AddrPort {
	return l.server.LocalAddr().(*net.UDPAddr).AddrPort()
}

// log writes a record.
func (l *syslogLab) log(sequence int, text string) {
	l.Helper()
	l.kmsg.record("14,%d,1000000,-;postern: system,info %s\n", sequence, text)
}

// expect waits for a message that ends so.
func (l *syslogLab) expect(want string) {
	l.Helper()
	require.NoError(l, l.server.SetReadDeadline(time.Now().Add(30*time.Second)))
	buf := make([]byte, 4096)
	n, err := l.server.Read(buf)
	require.NoError(l, err, want)
	assert.True(l, strings.HasSuffix(string(buf[:n]), want), "%q, not %q", buf[:n], want)
}

func TestRemoteLog(t *testing.T) {
	l := newSyslogLab(t)
	all := func(string) (string, bool) { return "", true }
	l.remote.Set(Destination{Server: l.address(), Sends: all, Host: "one"}, true)
	l.log(10, "first")
	l.expect(" one postern - system,info - first")
	l.log(11, "second")
	l.expect("second")
	// Some were overwritten.
	l.log(15, "third")
	l.expect(" system,warning - 3 lines of the log were overwritten before they could be read")
	l.expect("third")
	// The name changes.
	l.remote.Set(Destination{Server: l.address(), Sends: all, Host: "two"}, false)
	l.log(16, "fourth")
	l.expect(" two postern - system,info - fourth")
	// A prefix stands before the message.
	l.remote.Set(Destination{Server: l.address(), Host: "two", Sends: func(topics string) (string, bool) { return "gw: ", true }}, false)
	l.log(17, "with a prefix")
	l.expect(" two postern - system,info - gw: with a prefix")
	// What the destination does not want is not sent.
	wants := func(message string) { // by topics, of which all lines here have the same
		l.remote.Set(Destination{Server: l.address(), Host: "two", Sends: func(topics string) (string, bool) { return "", topics == message }}, false)
	}
	wants("socks,info")
	l.log(18, "unsent")
	wants("system,info")
	l.log(19, "sent")
	l.expect("sent")
	// Nobody is sent anything any more.
	l.remote.Set(Destination{}, true)
	l.log(20, "fifth")
	require.NoError(t, l.server.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	_, err := l.server.Read(make([]byte, 100))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	assert.Empty(t, l.told())
}

func (l *syslogLab) told() string {
	text, err := os.ReadFile(l.said)
	require.NoError(l, err)
	return string(text)
}

// A server that is out of reach is tried on, holds nobody up, and is told of once.
func TestRemoteLogOutOfReach(t *testing.T) {
	l := newSyslogLab(t)
	address := l.address()
	require.NoError(t, l.server.Close())
	l.remote.Set(Destination{Server: address, Sends: func(string) (string, bool) { return "gw: ", true }, Host: "one"}, true)
	// Of a server that does not listen the kernel hears behind the first line, which is
	// lost; the next is kept and tried again.
	l.log(1, "lost")
	l.log(2, "second")
	require.Eventually(t, func() bool { return strings.Contains(l.told(), "connection refused") }, 30*time.Second, 10*time.Millisecond)
	var err error
	l.server, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(address))
	require.NoError(t, err)
	l.log(3, "third")
	buf := make([]byte, 4096)
	for got := ""; !strings.HasSuffix(got, "third"); {
		require.NoError(t, l.server.SetReadDeadline(time.Now().Add(30*time.Second)))
		n, err := l.server.Read(buf)
		require.NoError(t, err)
		got = string(buf[:n])
	}
	assert.Equal(t, 1, strings.Count(l.told(), "remote log: "), l.told())
}
