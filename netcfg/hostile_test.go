package netcfg

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
)

// This file sends a router with the settings of a Config raw packets that no honest host sends.

func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	sum = sum&0xffff + sum>>16
	return ^uint16(sum&0xffff + sum>>16)
}

// ipv4 is a packet with options of so many words in its header.
func ipv4(protocol byte, from, to string, options, payload []byte) []byte {
	length := 20 + len(options)
	p := []byte{0x40 | byte(length/4), 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0}
	p = append(p, netip.MustParseAddr(from).AsSlice()...)
	p = append(append(p, netip.MustParseAddr(to).AsSlice()...), options...)
	binary.BigEndian.PutUint16(p[2:], uint16(length+len(payload)))
	binary.BigEndian.PutUint16(p[10:], checksum(p))
	return append(p, payload...)
}

// icmp is an ICMP message (RFC 792): rest is the second word of its header.
func icmp(typ, code byte, rest uint32, payload []byte) []byte {
	m := binary.BigEndian.AppendUint32([]byte{typ, code, 0, 0}, rest)
	m = append(m, payload...)
	binary.BigEndian.PutUint16(m[2:], checksum(m))
	return m
}

// wireUp is onWire once the cables named pass frames: the kernel throws away what is sent while it has not dealt with their carrier yet.
func wireUp(t *testing.T, name string, cables ...string) wire {
	t.Helper()
	for _, end := range append([]string{name, "x-k0"}, cables...) {
		require.Eventually(t, func() bool { return strings.Contains(ip(t, "link show "+end), "state UP") }, patience, 10*time.Millisecond, end)
	}
	return onWire(t, name)
}

// packet sends an IPv4 packet.
func (w wire) packet(p []byte) {
	w.Helper()
	w.send(unix.ETH_P_IP, p)
}

// settled waits until the router has dealt with what was sent before: it answers what follows.
func (w wire) settled(own string) {
	w.Helper()
	w.who(own)
	require.Equal(w, own, w.answered())
}

// hear returns a socket that gets the IPv4 packets that come to a device, which is another end of a cable.
func hear(t *testing.T, device string) int {
	t.Helper()
	return wireOf(t, device, unix.ETH_P_IP).socket
}

// next returns the next packet that the socket gets and want accepts; nil if there is none until timeout.
func next(t *testing.T, socket int, timeout time.Duration, want func(p []byte) bool) []byte {
	t.Helper()
	for end, frame := time.Now().Add(timeout), make([]byte, 2048); ; {
		left := max(time.Until(end), time.Millisecond)
		value := unix.NsecToTimeval(left.Nanoseconds())
		require.NoError(t, unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &value))
		n, _, err := unix.Recvfrom(socket, frame, 0)
		if err == nil && n >= 34 && want(frame[14:n]) {
			return frame[14:n]
		}
		if err != nil && err != unix.EINTR || left == time.Millisecond {
			return nil
		}
	}
}

// wayTo is the route that the kernel would take to a host: with "cache" in it if it keeps an exception, another MTU or gateway than the route
// has. The list of exceptions (ip route show cache) has only those that were used since.
func wayTo(t *testing.T, host string) string {
	t.Helper()
	return ip(t, "route get "+host)
}

// Only what TCP has checked is believed of the MTU of a path: else anybody could have the kernel keep an exception of a route for each
// address that there is, with a message about an answer to an echo request that he has sent in its name.
func TestPathMTU(t *testing.T) {
	lab(t, "k0")
	m := newManager(t, Port{"ether1", "k0"})
	require.NoError(t, m.Apply(Config{Forwarding: true, Addresses: []Address{address("10.9.1.1/24", "ether1")}}))
	ip(t, "link set x-k0 arp off") // the same kernel
	w := wireUp(t, "ether1")
	needed := func(quoted []byte) { // fragmentation needed, the MTU is 600
		w.packet(ipv4(unix.IPPROTO_ICMP, "10.9.1.7", "10.9.1.1", nil, icmp(3, 4, 600, quoted)))
	}
	t.Run("answers to echo requests", func(t *testing.T) {
		for i := 20; i < 40; i++ {
			needed(ipv4(unix.IPPROTO_ICMP, "10.9.1.1", fmt.Sprintf("10.9.1.%d", i), nil, icmp(0, 0, 1, nil)))
		}
		w.settled("10.9.1.1")
		assert.NotContains(t, wayTo(t, "10.9.1.20"), "mtu")
		assert.NotContains(t, wayTo(t, "10.9.1.39"), "mtu")
	})
	t.Run("UDP", func(t *testing.T) {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		require.NoError(t, err)
		defer unix.Close(s)
		require.NoError(t, unix.Bind(s, &unix.SockaddrInet4{Addr: [4]byte{10, 9, 1, 1}, Port: 5353}))
		needed(ipv4(unix.IPPROTO_UDP, "10.9.1.1", "10.9.1.8", nil, []byte{5353 >> 8, 5353 & 0xff, 0, 53, 0, 8, 0, 0}))
		w.settled("10.9.1.1")
		assert.NotContains(t, wayTo(t, "10.9.1.8"), "mtu")
	})
	t.Run("a connection of TCP", func(t *testing.T) {
		ip(t, "neigh replace 10.9.1.9 lladdr 02:00:00:00:00:09 dev ether1")
		ear := hear(t, "x-k0")
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		require.NoError(t, err)
		defer unix.Close(s)
		require.ErrorIs(t, unix.Connect(s, &unix.SockaddrInet4{Addr: [4]byte{10, 9, 1, 9}, Port: 80}), unix.EINPROGRESS)
		syn := next(t, ear, patience, func(p []byte) bool { return p[9] == unix.IPPROTO_TCP })
		require.NotNil(t, syn)
		needed(syn)
		w.settled("10.9.1.1")
		assert.Contains(t, wayTo(t, "10.9.1.9"), "mtu 600")
	})
}

// Who sends by the longer way is not told of the shorter one, unless the settings say so.
func TestRedirectsOut(t *testing.T) {
	lab(t, "k0")
	m := newManager(t, Port{"ether1", "k0"})
	c := Config{Forwarding: true, Addresses: []Address{address("10.9.1.1/24", "ether1")}, Routes: []Route{by("10.8.0.0/16", "10.9.1.3", 1)}}
	require.NoError(t, m.Apply(c))
	ip(t, "link set x-k0 arp off")
	for _, host := range []string{"10.9.1.3", "10.9.1.7"} {
		ip(t, "neigh replace "+host+" lladdr 02:00:00:00:00:09 dev ether1")
	}
	w := wireUp(t, "ether1")
	ear := hear(t, "x-k0")
	for _, send := range []bool{false, true} {
		t.Run(fmt.Sprint(send), func(t *testing.T) {
			c.Settings.SendRedirects = send
			require.NoError(t, m.Apply(c))
			w.packet(ipv4(unix.IPPROTO_ICMP, "10.9.1.7", "10.8.0.1", nil, icmp(8, 0, 7, nil)))
			// It is sent on in either case, and a redirect would go before it (ip_forward in net/ipv4/ip_forward.c).
			var redirected bool
			on := next(t, ear, patience, func(p []byte) bool {
				redirected = redirected || p[9] == unix.IPPROTO_ICMP && p[20] == 5
				return p[9] == unix.IPPROTO_ICMP && p[20] == 8 && p[8] == 63
			})
			require.NotNil(t, on, "it was not sent on")
			assert.Equal(t, send, redirected)
		})
	}
}

// A redirect is not believed, unless the settings say so.
func TestRedirectsIn(t *testing.T) {
	lab(t, "k0")
	m := newManager(t, Port{"ether1", "k0"})
	// Not a router: the kernel believes those that a router gets only if both its settings say so.
	c := Config{Addresses: []Address{address("10.9.1.1/24", "ether1")}, Routes: []Route{by("10.8.0.0/16", "10.9.1.3", 1)}}
	ip(t, "link set x-k0 arp off")
	for _, forwarding := range []bool{true, false} {
		for _, accept := range []bool{false, true} {
			t.Run(fmt.Sprintf("forwarding %v, accepted %v", forwarding, accept), func(t *testing.T) {
				c.Forwarding, c.Settings.AcceptRedirects = forwarding, accept
				require.NoError(t, m.Apply(c))
				ip(t, "route flush cache")
				for _, host := range []string{"10.9.1.3", "10.9.1.4"} {
					ip(t, "neigh replace "+host+" lladdr 02:00:00:00:00:09 dev ether1")
				}
				w := wireUp(t, "ether1")
				gateway := binary.BigEndian.Uint32(netip.MustParseAddr("10.9.1.4").AsSlice())
				quoted := ipv4(unix.IPPROTO_ICMP, "10.9.1.1", "10.8.0.1", nil, icmp(0, 0, 1, nil))
				w.packet(ipv4(unix.IPPROTO_ICMP, "10.9.1.3", "10.9.1.1", nil, icmp(5, 1, gateway, quoted)))
				w.settled("10.9.1.1")
				gatewayIs := "via 10.9.1.3"
				if accept {
					gatewayIs = "via 10.9.1.4"
				}
				assert.Contains(t, wayTo(t, "10.8.0.1"), gatewayIs)
			})
		}
	}
}

// A packet whose sender has chosen its way is dropped, unless the settings say so.
func TestSourceRoutes(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, Port{"ether1", "k0"}, Port{"ether2", "k1"})
	c := Config{Forwarding: true, Addresses: []Address{address("10.9.1.1/24", "ether1"), address("10.9.2.1/24", "ether2")}}
	require.NoError(t, m.Apply(c))
	for _, end := range []string{"x-k0", "x-k1"} {
		ip(t, "link set "+end+" arp off")
	}
	ip(t, "neigh replace 10.9.2.8 lladdr 02:00:00:00:00:08 dev ether2")
	w, ear := wireUp(t, "ether1", "ether2", "x-k1"), hear(t, "x-k1")
	for _, kind := range []struct {
		name   string
		option byte // RFC 791, section 3.1
	}{{"loose", 131}, {"strict", 137}} {
		for _, accept := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, accepted %v", kind.name, accept), func(t *testing.T) {
				c.Settings.AcceptSourceRoute = accept
				require.NoError(t, m.Apply(c))
				// To the router, and from there to 10.9.2.8.
				route := []byte{kind.option, 7, 4, 10, 9, 2, 8, 0}
				w.packet(ipv4(unix.IPPROTO_ICMP, "10.9.1.7", "10.9.1.1", route, icmp(8, 0, 1, nil)))
				// An honest packet by the same way follows it.
				w.packet(ipv4(unix.IPPROTO_ICMP, "10.9.1.7", "10.9.2.8", nil, icmp(8, 0, 2, nil)))
				arrived := false
				honest := next(t, ear, patience, func(p []byte) bool {
					length := int(p[0]&15) * 4
					if p[9] != unix.IPPROTO_ICMP || len(p) < length+8 || p[length] != 8 {
						return false
					}
					number := binary.BigEndian.Uint32(p[length+4:])
					arrived = arrived || number == 1
					return number == 2
				})
				require.NotNil(t, honest)
				assert.Equal(t, accept, arrived)
			})
		}
	}
}

// The entries of gateways are out of reach of who fills the ARP table.
func TestGatewaysKept(t *testing.T) {
	lab(t, "k0")
	m := newManager(t, Port{"ether1", "k0"})
	const gateway = "10.9.1.3"
	to := func(routes ...Route) Config {
		return Config{Forwarding: true, Addresses: []Address{address("10.9.1.1/24", "ether1")}, Routes: routes}
	}
	c := to(by("0.0.0.0/0", gateway, 1), by("10.8.0.0/16", gateway, 2))
	entry := func() string { return ip(t, "neigh show "+gateway+" dev ether1") }
	isKept := func() bool { return strings.Contains(entry(), "managed extern_learn") }
	require.NoError(t, m.Apply(c))
	require.True(t, isKept(), "%s", entry())
	t.Run("who asks for it leaves it so", func(t *testing.T) {
		w := wireUp(t, "ether1")
		answer := []byte{0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 9, 10, 9, 1, 3}
		answer = append(append(answer, w.mac...), 10, 9, 1, 1)
		w.send(unix.ETH_P_ARP, answer)
		require.Eventually(t, func() bool { return strings.Contains(entry(), "02:00:00:00:00:09") }, patience, 10*time.Millisecond)
		require.True(t, isKept(), "%s", entry())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		m.AskNeighbor(ctx, netip.MustParseAddr(gateway), "")
		assert.Contains(t, entry(), "extern_learn")
		require.NoError(t, m.Apply(c))
		assert.True(t, isKept(), "%s", entry())
	})
	t.Run("a user forgets it", func(t *testing.T) {
		require.NoError(t, m.ForgetNeighbors([]Neighbor{{Address: netip.MustParseAddr(gateway), Interface: "ether1"}}))
		assert.True(t, isKept(), "%s", entry())
		assert.NotContains(t, entry(), "02:00:00:00:00:09")
	})
	t.Run("an entry that stays is better", func(t *testing.T) {
		static := c
		static.Neighbors = []StaticNeighbor{{Address: netip.MustParseAddr(gateway), MAC: ether.MAC{2, 0, 0, 0, 0, 5}, Interface: "ether1"}}
		require.NoError(t, m.Apply(static))
		assert.Contains(t, entry(), "02:00:00:00:00:05 PERMANENT")
		require.NoError(t, m.Apply(static))
		assert.Contains(t, entry(), "02:00:00:00:00:05 PERMANENT")
		require.NoError(t, m.Apply(c))
		assert.True(t, isKept(), "%s", entry())
	})
	t.Run("nobody asks where none shall", func(t *testing.T) {
		for _, mode := range []string{ARPReplyOnly, ARPDisabled} {
			closed := c
			closed.Links = []Link{{Name: "ether1", ARP: mode}}
			require.NoError(t, m.Apply(closed))
			assert.Empty(t, entry(), mode)
		}
		require.NoError(t, m.Apply(c))
		require.True(t, isKept(), "%s", entry())
	})
	t.Run("no gateway any more", func(t *testing.T) {
		require.NoError(t, m.Apply(to()))
		assert.Empty(t, entry())
		require.NoError(t, m.Apply(to(by("0.0.0.0/0", "10.9.1.4", 1))))
		assert.Empty(t, entry())
	})
	t.Run("the link was down", func(t *testing.T) {
		require.NoError(t, m.Apply(c))
		running(t, m)
		ip(t, "link set x-k0 down")
		ip(t, "link set x-k0 up")
		require.Eventually(t, isKept, patience, 10*time.Millisecond)
	})
}
