package daemon

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/socks"
)

// associate asks for a UDP ASSOCIATE, and returns where to send to.
func associate(t *testing.T, addr string) (net.Conn, netip.AddrPort) {
	t.Helper()
	near, err := net.Dial("tcp4", addr)
	require.NoError(t, err)
	t.Cleanup(func() { near.Close() })
	near.SetDeadline(time.Now().Add(patience))
	_, err = near.Write([]byte("\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"))
	require.NoError(t, err)
	b := make([]byte, 12)
	_, err = io.ReadFull(near, b)
	require.NoError(t, err)
	require.Equal(t, "\x05\x00\x05\x00\x00\x01", string(b[:6]))
	return near, netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[6:])), uint16(b[10])<<8|uint16(b[11]))
}

// TestAssociateUnderParent has a confined socksd show its socket and get its opening, which is
// closed with the association or when socksd dies. What it receives costs it no more than that: an
// address of this machine is refused.
func TestAssociateUnderParent(t *testing.T) {
	var fw firewall
	p := start(t, &fw)
	cfg := socks.DefaultConfig()
	cfg.Enabled, cfg.Version, cfg.UDP = true, 5, true
	listener, addr, _ := listen(t)
	p.configure(t, cfg, listener)

	near, at := associate(t, addr)
	opened := fmt.Sprintf("open 127.0.0.1 %s udp", at)
	fw.await(t, opened)
	inner, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer inner.Close()
	own, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer own.Close()
	port := own.LocalAddr().(*net.UDPAddr).Port
	for _, datagram := range []string{
		"\x00\x00\x00\x01\x7f\x00\x00\x01" + string([]byte{byte(port >> 8), byte(port)}) + "evil",
		"\x00\x00\x00\x03\x09localhost" + string([]byte{byte(port >> 8), byte(port)}) + "evil",
	} {
		_, err = inner.WriteToUDPAddrPort([]byte(datagram), at)
		require.NoError(t, err)
	}
	near.Close()
	closed := fmt.Sprintf("close 127.0.0.1 %s udp", at)
	fw.await(t, opened, closed)
	p.said.await(t, "connection 1 closed: type=out")
	own.SetReadDeadline(time.Now())
	_, _, err = own.ReadFromUDPAddrPort(make([]byte, 4))
	assert.Error(t, err)
	assert.NotContains(t, p.said.String(), "not permitted")

	_, again := associate(t, addr)
	p.off(t)
	fw.await(t, opened, closed, fmt.Sprintf("open 127.0.0.1 %s udp", again), fmt.Sprintf("close 127.0.0.1 %s udp", again))
}
