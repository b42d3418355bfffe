package main

import (
	"fmt"
	"net"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
)

// behindBoth is an address that each of two providers has.
const behindBoth = "10.9.9.9"

// TestTwoProviders types two default routes, one asked by an echo request and one by ARP. A provider dies, the other has the packets, and
// when the first is back it has them again; then the other dies. Then hosts are known by their hardware addresses alone.
func TestTwoProviders(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	k := newKeeper(t, boards()[0])
	const secondAddress = "10.1.0.105"
	pings := map[host]*net.IPConn{}
	for _, provider := range []host{gateway, stranger} {
		require.NoError(t, k.n[provider].IP("addr add "+behindBoth+"/32 dev lo"))
		require.NoError(t, k.n.on(provider, func() error {
			// It tells who it is.
			l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(behindBoth), Port: 7000})
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					_, from, err := l.ReadFromUDPAddrPort(make([]byte, 1))
					if err != nil {
						return
					}
					_, _ = l.WriteToUDPAddrPort([]byte(provider), from)
				}
			}()
			pings[provider], err = net.ListenIP("ip4:icmp", &net.IPAddr{IP: net.ParseIP(behindBoth)})
			return err
		}))
		t.Cleanup(func() { pings[provider].Close() })
	}
	// answers is which provider answers the client.
	answers := func() (who host) {
		t.Helper()
		require.NoError(t, retry(func() error {
			var conn net.Conn
			if err := k.n.on(client, func() (err error) {
				conn, err = net.Dial("udp4", behindBoth+":7000")
				return err
			}); err != nil {
				return err
			}
			defer conn.Close()
			b := make([]byte, 64)
			if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
				return err
			}
			if _, err := conn.Write([]byte{1}); err != nil {
				return err
			}
			n, err := conn.Read(b)
			who = host(b[:n])
			return err
		}))
		return who
	}
	// pingedFrom is the address from which the router itself sends to a provider.
	pingedFrom := func(provider host) string {
		t.Helper()
		k.command(t, "/ping "+behindBoth+" count=3 interval=100ms")
		require.NoError(t, pings[provider].SetReadDeadline(time.Now().Add(patience)))
		for b := make([]byte, 100); ; {
			_, from, err := pings[provider].ReadFrom(b)
			require.NoError(t, err)
			if b[0] == 8 { // an echo request, and no error about a datagram
				return from.String()
			}
		}
	}
	// shows waits until the routes are as they should be.
	shows := func(what string, lines ...string) {
		t.Helper()
		began := time.Now()
		require.NoError(t, retry(func() error {
			screen := k.command(t, "/ip route print where dst-address=0.0.0.0/0")
			for _, line := range lines {
				if !regexp.MustCompile(`(?m)^ ?\d+ ` + line + `$`).MatchString(screen) {
					return fmt.Errorf("%q is not on the screen:\n%s", line, screen)
				}
			}
			return nil
		}))
		t.Logf("%s: %s after %v", k.b.Name, what, time.Since(began).Round(100*time.Millisecond))
	}
	const first, second = ` +0\.0\.0\.0/0 +10\.1\.0\.1 +1`, ` +0\.0\.0\.0/0 +10\.1\.0\.66 +2`

	k.start(t, "postern", nil)
	k.command(t, "/ip address add interface=ether1 address="+wanAddress+"/24; /ip address add interface=ether1 address="+secondAddress+"/24")
	// The default's rule would put the first address of ether1 on what the router itself sends, too.
	k.command(t, "/ip firewall nat set [find] src-address=192.168.0.0/24")
	k.command(t, "/ip route add gateway="+gatewayAddress+" distance=1 check-gateway=ping")
	k.command(t, "/ip route add gateway="+strangerAddress+" distance=2 check-gateway=arp pref-src="+secondAddress)
	shows("both are there", "A S"+first, "  S"+second)
	assert.Equal(t, gateway, answers())
	assert.Equal(t, wanAddress, pingedFrom(gateway))

	require.NoError(t, k.n[gateway].IP("link set eth0 down"))
	shows("the first is dead", "I S"+first, "A S"+second)
	assert.Equal(t, stranger, answers())
	assert.Equal(t, secondAddress, pingedFrom(stranger))

	require.NoError(t, k.n[gateway].IP("link set eth0 up"))
	require.NoError(t, k.n[stranger].IP("link set eth0 down"))
	shows("the first is back", "A S"+first)
	assert.Equal(t, gateway, answers())
	shows("the second is dead", "A S"+first, "I S"+second)

	// Routes that lead nowhere, in both forms of RouterOS.
	k.command(t, "/ip route add dst-address=10.8.0.0/16 blackhole distance=250; /ip route add dst-address=10.7.0.0/16 type=unreachable")
	screen := k.command(t, "/ip route print where !connect")
	assert.Regexp(t, `(?m)^ ?\d+ A SB 10\.8\.0\.0/16 +250$`, screen)
	assert.Regexp(t, `(?m)^ ?\d+ A SU 10\.7\.0\.0/16 +1$`, screen)
	_, err := k.n.dial(client, "10.7.0.1:80", patience)
	assert.ErrorContains(t, err, "no route to host")
	_, err = k.n.dial(client, "10.8.0.1:80", 2*time.Second)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	assert.True(t, timeout.Timeout(), "%v", err)

	// Who is in the table is answered, and nobody else.
	require.NoError(t, k.n.awaitPing(other, lanAddress))
	require.NoError(t, k.n.awaitPing(client, lanAddress))
	k.command(t, "/ip arp make-static [find address="+clientAddress+"]")
	assert.Regexp(t, `(?m)^ ?\d+  C 192\.168\.0\.2 +(\w\w:){5}\w\w ether2$`, k.command(t, "/ip arp print"))
	k.command(t, "/ip arp remove [find address="+otherAddress+"]")
	k.command(t, "/interface ethernet set ether2 arp=reply-only")
	require.NoError(t, k.n[other].IP("neigh flush dev eth0"))
	_, err = k.n.dial(other, lanAddress+":9", patience)
	assert.ErrorContains(t, err, "no route to host", "it is in no table")
	require.NoError(t, k.n[client].IP("neigh flush dev eth0"))
	require.NoError(t, k.n.awaitPing(client, lanAddress))
	k.command(t, "/interface ethernet set ether2 arp=enabled")
	require.NoError(t, k.n.awaitPing(other, lanAddress))
}
