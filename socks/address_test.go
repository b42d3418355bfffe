package socks

import (
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/testnet"
)

// TestOwnAddresses probes on a host with the addresses and routes of a router.
func TestOwnAddresses(t *testing.T) {
	router, far := testnet.New(t, "router"), testnet.New(t, "far")
	require.NoError(t, testnet.Link(router, "ether1", far, "far1"))
	require.NoError(t, testnet.Link(router, "ether2", far, "far2"))
	require.NoError(t, router.IP(
		"address add 10.1.0.104/24 brd + dev ether1",
		"address add 192.168.0.1/24 brd + dev ether2",
		"address add 192.168.0.9/24 brd + dev ether2",
		"route add default via 10.1.0.1",
		"route add local 172.20.0.0/16 dev lo"))
	// One for all cases: an address that it may not bind must not spoil the next.
	probe := ownProbe{fd: none}
	defer probe.close()
	for _, c := range []struct {
		name, addr string
		foreign    bool
		local      string // from which the kernel would send there
	}{
		{"far", "10.5.8.8", true, "10.1.0.104"},
		{"default route", defaultRouteProbe.String(), true, "10.1.0.104"},
		{"neighbour", "192.168.0.2", true, "192.168.0.1"},
		{"own WAN", "10.1.0.104", false, ""},
		{"own LAN", "192.168.0.1", false, ""},
		{"own second address", "192.168.0.9", false, ""},
		{"local route", "172.20.3.4", false, ""},
		{"loopback", "127.0.0.1", false, ""},
		{"loopback elsewhere", "127.9.9.9", false, ""},
		{"this network", "0.0.0.0", false, ""},
		{"this network, a host", "0.1.2.3", false, ""},
		{"broadcast of a subnet", "192.168.0.255", false, ""},
		{"limited broadcast", "255.255.255.255", false, ""},
		{"multicast", "224.0.0.1", false, ""},
		{"multicast, far", "239.1.2.3", false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, router.Enter())
			addr := netip.MustParseAddr(c.addr)
			if !c.foreign {
				err := probe.checkForeign(addr)
				assert.Error(t, err)
				assert.EqualValues(t, reply5NotAllowed, code5(err))
				return
			}
			assert.NoError(t, probe.checkForeign(addr))
			local, err := localTowards(addr)
			require.NoError(t, err)
			assert.Equal(t, c.local, local.String())
		})
	}
}

// TestNonlocalBind: where every address can be bound, none is connected to, and the error says why.
func TestNonlocalBind(t *testing.T) {
	host := testnet.New(t, "host")
	require.NoError(t, host.Enter())
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ip_nonlocal_bind", []byte("1"), 0))
	probe := ownProbe{fd: none}
	defer probe.close()
	for range 2 {
		require.EqualError(t, probe.checkForeign(netip.MustParseAddr("192.0.2.1")),
			"nothing can tell whether 192.0.2.1 is an address of this machine: net.ipv4.ip_nonlocal_bind is 1")
	}
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ip_nonlocal_bind", []byte("0"), 0))
	require.NoError(t, probe.checkForeign(netip.MustParseAddr("192.0.2.1")))
}
