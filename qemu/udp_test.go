package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/socks"
)

// floodTime is how long TestUDPAssociate floods the router, and floodLook from one look at it to the
// next.
const (
	floodTime = 20 * time.Second
	floodLook = time.Second
)

// datagrams returns a UDP socket of a host, on a free port if port is 0.
func (r *router) datagrams(t *testing.T, h host, port int) (conn *net.UDPConn, at netip.AddrPort) {
	t.Helper()
	require.NoError(t, r.n.on(h, func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	return conn, conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// associate asks for a UDP ASSOCIATE of a host, and returns the code of the reply and where to send
// to.
func (r *router) associate(t *testing.T, from host) (conn net.Conn, code byte, at netip.AddrPort) {
	t.Helper()
	reply := make([]byte, 12)
	require.NoError(t, retry(func() (err error) {
		if conn, err = r.n.dial(from, socksAddress, patience); err != nil {
			return err
		}
		if _, err = io.WriteString(conn, "\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"); err == nil {
			err = conn.SetReadDeadline(time.Now().Add(patience))
		}
		if err == nil {
			_, err = io.ReadFull(conn, reply)
		}
		// On a host that is very slow the time for a handshake may be over before the router has read it.
		if err != nil && string(reply[:2]) == "\x05\xff" {
			conn.Close()
			return errors.New("the handshake took too long")
		}
		require.NoError(t, err)
		return nil
	}))
	t.Cleanup(func() { conn.Close() })
	require.Equal(t, "\x05\x00\x05", string(reply[:3]))
	at = netip.AddrPortFrom(netip.AddrFrom4([4]byte(reply[6:])), binary.BigEndian.Uint16(reply[10:]))
	return conn, reply[3], at
}

// withHeader is a datagram between a client and the SOCKS service (RFC 1928, section 7).
func withHeader(peer netip.AddrPort, data string) []byte {
	b := append([]byte{0, 0, 0, 1}, peer.Addr().AsSlice()...)
	return append(binary.BigEndian.AppendUint16(b, peer.Port()), data...)
}

// exchange sends a datagram until another one has arrived, which is want: the first ones may be
// lost while addresses are resolved. It returns where want came from.
func exchange(t *testing.T, from *net.UDPConn, to netip.AddrPort, data []byte, at *net.UDPConn, want []byte) (source netip.AddrPort) {
	t.Helper()
	b := make([]byte, 2048)
	require.NoError(t, retry(func() error {
		if _, err := from.WriteToUDPAddrPort(data, to); err != nil {
			return err
		}
		if err := at.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		n, addr, err := at.ReadFromUDPAddrPort(b)
		if err != nil {
			return err
		}
		require.Equal(t, string(want), string(b[:n]))
		source = addr
		return nil
	}))
	return source
}

// TestUDPAssociate has a client send datagrams through the smallest board, whose firewall lets in
// none of the LAN but what is opened for it. Then there are as many associations and other
// connections as there may be, and the associations are flooded.
func TestUDPAssociate(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	const name = "malta"
	skipWithout(t, name)
	r := startRouter(t, name, func(o *machineOptions) {
		o.configuration += "/ip firewall filter add chain=input action=drop protocol=udp\n" +
			// Until the honest one is served, which a flood can make last, no connection shall be idle for too long.
			fmt.Sprintf("/ip socks set version=5 udp=yes connection-idle-timeout=1h max-connections=%d\n", slowStreams)
		o.capture = false
	})
	r.awaitService(t)
	r.awaitLinks(t)

	server, _ := r.datagrams(t, serverOfSite, 5005)
	peer := netip.MustParseAddrPort(serverAddress + ":5005")
	inner, _ := r.datagrams(t, client, 0)
	conn, code, at := r.associate(t, client)
	require.Zero(t, code)
	require.Equal(t, lanAddress, at.Addr().String())
	outside := exchange(t, inner, at, withHeader(peer, "question"), server, []byte("question"))
	assert.Equal(t, wanAddress, outside.Addr().String())
	exchange(t, server, outside, []byte("answer"), inner, withHeader(peer, "answer"))
	assert.Regexp(t, `(?m)^ 0 D comment="socks udp" chain=input action=accept src-address=192\.168\.0\.2 dst-address=192\.168\.0\.1 dst-port=`+
		fmt.Sprint(at.Port())+` protocol=udp$`, r.command(t, "/ip firewall filter print terse"))
	assert.Contains(t, r.command(t, "/ip socks connections print"), peer.String())

	// Nobody else gets in: not from the LAN, from the port that is open, nor from outside.
	for from, to := range map[host]netip.AddrPort{other: at, stranger: outside, gateway: outside} {
		evil, _ := r.datagrams(t, from, 0)
		for range 3 {
			_, err := evil.WriteToUDPAddrPort(withHeader(peer, "evil"), to)
			require.NoError(t, err)
		}
	}
	exchange(t, inner, at, withHeader(peer, "question"), server, []byte("question"))
	exchange(t, server, outside, []byte("answer"), inner, withHeader(peer, "answer"))
	// The access list has no rule for this port but the last, which denies.
	denied, _ := r.datagrams(t, serverOfSite, 53)
	_, err := inner.WriteToUDPAddrPort(withHeader(netip.MustParseAddrPort(serverAddress+":53"), "evil"), at)
	require.NoError(t, err)
	exchange(t, inner, at, withHeader(peer, "behind it"), server, []byte("behind it"))
	require.NoError(t, denied.SetReadDeadline(time.Now()))
	_, _, err = denied.ReadFromUDPAddrPort(make([]byte, 10))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	conn.Close()
	closed := func() error {
		if out := r.command(t, "/ip firewall filter print terse"); strings.Contains(out, "socks udp") {
			return errors.New("still open: " + out)
		}
		return nil
	}
	require.NoError(t, retry(closed))

	before, _ := r.freeMemory(t)
	start := time.Now()
	var conns []net.Conn
	var ports []netip.AddrPort
	for range socks.MaxAssociations {
		conn, code, at := r.associate(t, client)
		require.Zero(t, code)
		conns, ports = append(conns, conn), append(ports, at)
	}
	_, code, _ = r.associate(t, client)
	assert.EqualValues(t, 1, code, "one more of the same client")
	conn, code, _ = r.associate(t, other)
	assert.Zero(t, code, "another client takes a place of the one that has the most")
	assertClosed(t, conns[0])
	conns[0] = conn
	opened := time.Since(start)
	with, _ := r.freeMemory(t)
	echo := r.echo(t, 5006)
	for len(conns) < slowStreams-1 {
		conn, reply := r.request(t, client, commandConnect, echo)
		require.EqualValues(t, granted, reply.code)
		conns = append(conns, conn)
	}
	idle, took := r.freeMemory(t)
	t.Logf("%d associations in %v; free memory: %.1f MiB before, %.1f MiB with them, %.1f MiB with %d connections in all; the console answers in %v",
		len(ports), opened.Round(time.Millisecond), before, with, idle, len(conns), took.Round(time.Millisecond))
	require.NoError(t, server.SetReadDeadline(time.Time{}))
	var sent, arrived, answered atomic.Int64
	go func() {
		for b := make([]byte, 2048); ; {
			n, from, err := server.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			arrived.Add(1)
			_, _ = server.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	go func() {
		for b := make([]byte, 2048); ; {
			if err := inner.SetReadDeadline(time.Time{}); err != nil {
				return
			}
			if _, _, err := inner.ReadFromUDPAddrPort(b); err != nil {
				return
			}
			answered.Add(1)
		}
	}()
	stop := make(chan struct{})
	go func() {
		large := withHeader(peer, strings.Repeat("x", 1200))
		// On a slow host a look takes long, and a flood of minutes lets no answer to a keepalive through.
		end := time.Now().Add(2 * floodTime)
		for time.Now().Before(end) {
			for _, at := range ports {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := inner.WriteToUDPAddrPort(large, at); err != nil {
					return
				}
				sent.Add(1)
			}
		}
	}()
	lowest := idle
	for start := time.Now(); time.Since(start) < floodTime; time.Sleep(floodLook) {
		free, took := r.freeMemory(t)
		lowest = min(lowest, free)
		t.Logf("%5.0f s: free %.1f MiB, the console answers in %v; sent %d, arrived %d, answered %d",
			time.Since(start).Seconds(), free, took.Round(time.Millisecond), sent.Load(), arrived.Load(), answered.Load())
	}
	// One more is served meanwhile. Of what the hosts send nearly all is lost at the router's port, so
	// a handshake may be over before its request has come through.
	var honest net.Conn
	require.NoError(t, retry(func() error {
		conn, err := r.n.dial(client, socksAddress, patience)
		if err != nil {
			return err
		}
		reply, err := requestSOCKS(conn, commandConnect, netip.MustParseAddrPort(echo))
		if err == nil && reply.code != granted {
			err = fmt.Errorf("reply %d", reply.code)
		}
		if err != nil {
			conn.Close()
			return err
		}
		honest = conn
		return nil
	}))
	assertEcho(t, honest)
	close(stop)
	assert.GreaterOrEqual(t, lowest, slowFreeMemory, "MiB of free memory")
	n, err := r.connections(t)
	require.NoError(t, err)
	assert.Equal(t, slowStreams, n, "none was lost")
	assert.NotRegexp(t, `(?i)out of memory|oom|page allocation failure|table full|socksd.*(ended|exit|restart)`, r.m.screen.all())
	for _, c := range append(conns, honest) {
		c.Close()
	}
	require.NoError(t, retry(closed))
	after, _ := r.freeMemory(t)
	t.Logf("free memory: %.1f MiB before, %.1f MiB the least, %.1f MiB after", before, lowest, after)
}
