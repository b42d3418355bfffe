package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/postern-router/postern/internal/e2e"
)

// pySocksUDP sends its standard input as one datagram through PySocks, and writes the answer.
// Its arguments: proxy, its port, host, port, and perhaps user and password.
const pySocksUDP = `
import socket, socks, sys
proxy, proxy_port, host, port, *login = sys.argv[1:]
s = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
s.set_proxy(socks.SOCKS5, proxy, int(proxy_port), True, *login)
s.sendto(sys.stdin.buffer.read(), (host, int(port)))
data, peer = s.recvfrom(65507)
assert peer[1] == int(port), peer
sys.stdout.buffer.write(data)
`

// plainUDP does the same without knowing of SOCKS, on a socket that is connected to the peer or not.
// (dig sends by sendmmsg(2), of which dante-client does not know: its question comes without a header.)
const plainUDP = `
import socket, sys
how, host, port = sys.argv[1:]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
peer = (host, int(port))
data = sys.stdin.buffer.read()
if how == "connected":
    s.connect(peer)
    s.send(data)
    data = s.recv(65507)
else:
    s.sendto(data, peer)
    data, source = s.recvfrom(65507)
    assert source == peer, source
sys.stdout.buffer.write(data)
`

// danteUDP is a configuration of socksify for datagrams.
func danteUDP(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socks.conf")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, `route {
	from: 0.0.0.0/0 to: 0.0.0.0/0 via: %s port = %s
	protocol: udp
	proxyprotocol: socks_v5
	command: udpassociate
	method: none
}
`, proxyAddress, socksdPort), 0o644))
	return path
}

// datagrams returns a UDP socket of a host.
func (l *lab) datagrams(t *testing.T, h host, addr string) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	require.NoError(t, l.hosts[h].Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

// TestDatagramClients tests clients of UDP ASSOCIATE.
func TestDatagramClients(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	l := newLab(t, serverAddress)
	s := l.socksd(t, self(t), "--socks-version", "5", "--udp")
	echo := l.datagrams(t, serverHost, serverAddress+":0")
	require.NoError(t, echo.SetDeadline(time.Time{}))
	var serving sync.WaitGroup
	t.Cleanup(func() { echo.Close(); serving.Wait() })
	serving.Go(func() {
		for b := make([]byte, 1<<16); ; {
			n, from, err := echo.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			echo.WriteToUDPAddrPort(b[:n], from)
		}
	})
	port := fmt.Sprint(echo.LocalAddr().(*net.UDPAddr).Port)

	question := randomBytes(1400, 5)
	for _, name := range []string{serverAddress, serverName} {
		t.Run("PySocks to "+name, func(t *testing.T) {
			cmd := l.command(t, clientHost, "/usr/bin/python3", "-c", pySocksUDP, proxyAddress, socksdPort, name, port)
			assert.Equal(t, question, run(t, cmd, question))
			s.awaitLog(t, "closed: type=out", "dst="+echo.LocalAddr().String(), "udp="+proxyAddress, "tx=1400 rx=1400", "client left")
		})
	}
	for _, how := range []string{"connected", "unconnected"} {
		t.Run("dante-client "+how, func(t *testing.T) {
			cmd := l.command(t, clientHost, "socksify", "/usr/bin/python3", "-c", plainUDP, how, serverAddress, port)
			cmd.Env = append(os.Environ(), "SOCKS_CONF="+danteUDP(t))
			assert.Equal(t, question, run(t, cmd, question))
			s.awaitLog(t, "closed: type=out", "dst="+echo.LocalAddr().String(), "udp="+proxyAddress, "tx=1400 rx=1400", "client left")
		})
	}
	t.Run("dig by dante-client", func(t *testing.T) {
		names := l.datagrams(t, serverHost, serverAddress+":0")
		answered := make(chan error, 1)
		go func() { answered <- answer(names, netip.MustParseAddr("192.0.2.55")) }()
		// dig sends by sendmmsg, which dante-client knows nothing of, unless the kernel has none.
		cmd := l.command(t, clientHost, need(t, "strace"), "-f", "-o", os.DevNull, "-e", "trace=sendmmsg", "-e", "inject=sendmmsg:error=ENOSYS",
			"socksify", need(t, "dig"), "+short", "+tries=1", "+time=60", "@"+serverAddress, "-p", fmt.Sprint(names.LocalAddr().(*net.UDPAddr).Port), serverName)
		cmd.Env = append(os.Environ(), "SOCKS_CONF="+danteUDP(t))
		assert.Equal(t, "192.0.2.55\n", string(run(t, cmd, nil)))
		require.NoError(t, <-answered)
		s.awaitLog(t, "closed: type=out", "dst="+names.LocalAddr().String(), "udp="+proxyAddress, "client left")
	})
	s.awaitQuiet(t)
}

// answer answers a question for an address of a name, the first that comes.
func answer(conn *net.UDPConn, address netip.Addr) error {
	b := make([]byte, 512)
	n, from, err := conn.ReadFromUDPAddrPort(b)
	if err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(b[:n]); err != nil {
		return err
	}
	m.Response, m.Additionals = true, nil // without an OPT record, as old servers
	m.Answers = []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 60},
		Body:   &dnsmessage.AResource{A: address.As4()},
	}}
	if b, err = m.Pack(); err != nil {
		return err
	}
	_, err = conn.WriteToUDPAddrPort(b, from)
	return err
}

// TestDatagramsToTheRouter: no datagram reaches the machine of socksd, by whichever of its addresses,
// nor a broadcast, and none comes in that the client has not asked for.
func TestDatagramsToTheRouter(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	l := newLab(t, serverAddress)
	s := l.socksd(t, self(t), "--socks-version", "5", "--udp")
	near := l.peer(t, clientHost, "", s.addr)
	near.send("\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00")
	reply := near.receive(12)
	require.Equal(t, "\x05\x00\x05\x00\x00\x01", reply[:6])
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte([]byte(reply[6:]))), uint16(reply[10])<<8|uint16(reply[11]))
	require.Equal(t, proxyAddress, at.Addr().String())

	inner, server := l.datagrams(t, clientHost, clientAddress+":0"), l.datagrams(t, serverHost, serverAddress+":0")
	own := l.datagrams(t, proxyHost, "0.0.0.0:7007")
	anyone := l.datagrams(t, serverHost, "0.0.0.0:7007") // takes broadcasts too
	send := func(to, data string) {
		t.Helper()
		peer := netip.MustParseAddrPort(to)
		ip := peer.Addr().As4()
		header := "\x00\x00\x00\x01" + string(ip[:]) + string([]byte{byte(peer.Port() >> 8), byte(peer.Port())})
		_, err := inner.WriteToUDPAddrPort([]byte(header+data), at)
		require.NoError(t, err)
	}
	receive := func(conn *net.UDPConn) (string, netip.AddrPort) {
		t.Helper()
		b := make([]byte, 2048)
		n, from, err := conn.ReadFromUDPAddrPort(b)
		require.NoError(t, err)
		return string(b[:n]), from
	}
	for _, to := range []string{
		proxyAddress, outerAddress, "127.0.0.1", "127.1.2.3", "0.0.0.0", "198.51.100.255", "192.0.2.255", "255.255.255.255", "224.0.0.1",
	} {
		send(to+":7007", "evil")
	}
	send(server.LocalAddr().String(), "good")
	data, outside := receive(server)
	assert.Equal(t, "good", data)
	assert.Equal(t, outerAddress, outside.Addr().String())
	for _, conn := range []*net.UDPConn{own, anyone} {
		require.NoError(t, conn.SetReadDeadline(time.Now()))
		_, _, err := conn.ReadFromUDPAddrPort(make([]byte, 10))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	}

	for _, from := range []string{strangerAddress + ":0", serverAddress + ":0"} {
		_, err := l.datagrams(t, serverHost, from).WriteToUDPAddrPort([]byte("evil"), outside)
		require.NoError(t, err)
	}
	_, err := server.WriteToUDPAddrPort([]byte("answer"), outside)
	require.NoError(t, err)
	data, from := receive(inner)
	assert.Equal(t, at, from)
	require.Len(t, data, 10+len("answer"))
	assert.Equal(t, "answer", data[10:])
	near.Close()
	s.awaitLog(t, "connection 1 closed", "tx=4 rx=6", "client left")
}
