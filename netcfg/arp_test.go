package netcfg

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/internal/testnet"
)

func static(address, on string, mac byte) StaticNeighbor {
	n := StaticNeighbor{Address: netip.MustParseAddr(address), Interface: on}
	if mac != 0 {
		n.MAC = ether.MAC{2, 0, 0, 0, 0, mac}
	}
	return n
}

func TestValidateARP(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(*Config)
		err  string
	}{
		{"an entry", func(c *Config) { c.Neighbors = []StaticNeighbor{static("192.168.0.9", "ether2", 9)} }, ""},
		{"one address on two links", func(c *Config) {
			c.Neighbors = []StaticNeighbor{static("192.168.0.9", "ether1", 9), static("192.168.0.9", "ether2", 9)}
		}, ""},
		{"twice", func(c *Config) {
			c.Neighbors = []StaticNeighbor{static("192.168.0.9", "ether2", 9), static("192.168.0.9", "ether2", 8)}
		}, "arp: address=192.168.0.9: expected each address once on ether2"},
		{"no MAC", func(c *Config) { c.Neighbors = []StaticNeighbor{static("192.168.0.9", "ether2", 0)} }, "arp 192.168.0.9: needs mac-address or published"},
		{"a group's", func(c *Config) {
			c.Neighbors = []StaticNeighbor{static("192.168.0.9", "ether2", 9)}
			c.Neighbors[0].MAC[0] = 1
		}, "arp 192.168.0.9: mac-address=01:00:00:00:00:09: expected the address of one host, not of a group"},
		{"no host", func(c *Config) { c.Neighbors = []StaticNeighbor{static("224.0.0.1", "ether2", 9)} }, "arp: address=224.0.0.1: expected an IPv4 host address"},
		{"no link", func(c *Config) { c.Neighbors = []StaticNeighbor{static("192.168.0.9", "lan", 9)} }, "arp 192.168.0.9: interface=lan: expected an interface (ether1, ether2)"},
		{"no ARP", func(c *Config) {
			c.PPPs, c.Neighbors = []PPP{{Name: "ppp1"}}, []StaticNeighbor{static("192.168.0.9", "ppp1", 9)}
		}, "arp 192.168.0.9: interface=ppp1: expected one that has ARP"},
		{"a mode", func(c *Config) { c.Links[0].ARP = ProxyARP }, ""},
		{"no mode", func(c *Config) { c.Links[0].ARP = "on" }, "link ether1: arp=on: expected disabled, reply-only, proxy-arp, local-proxy-arp"},
	} {
		c := router()
		test.edit(&c)
		if err := c.Validate(twoPorts); test.err == "" {
			assert.NoError(t, err, test.name)
		} else {
			assert.EqualError(t, err, test.err, test.name)
		}
	}
}

// arpShown is what ip(8) shows of entries that stay, and of those that are published. Those of gateways it always shows.
func arpShown(t *testing.T) string {
	lines := strings.Split(ip(t, "-4 neigh show nud permanent")+"\n"+ip(t, "-4 neigh show proxy"), "\n")
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return l == "" || strings.Contains(l, "extern_learn") }), "\n")
}

// Entries that stay are there for as long as their links are up, and come back with them.
func TestStaticNeighbors(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	require.NoError(t, m.Apply(router()))
	ip(t, "neigh add 192.168.0.5 lladdr 02:00:00:00:00:05 dev ether2 nud permanent")
	assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(router())) }), "who says nothing of ARP changes nothing")
	assert.Contains(t, arpShown(t), "192.168.0.5")

	c := router()
	published := static("192.168.0.77", "ether2", 0)
	published.Published = true
	c.Neighbors = []StaticNeighbor{static("192.168.0.9", "ether2", 9), published}
	require.NoError(t, m.Apply(c))
	const both = "192.168.0.9 dev ether2 lladdr 02:00:00:00:00:09 PERMANENT\n192.168.0.77 dev ether2 proxy"
	assert.Equal(t, both, arpShown(t))
	c.Neighbors[0].MAC[5] = 10
	require.NoError(t, m.Apply(c))
	assert.Equal(t, strings.Replace(both, ":09 ", ":0a ", 1), arpShown(t))
	changes, err := m.repair()
	require.NoError(t, err)
	assert.Empty(t, changes)

	ip(t, "link set ether2 down")
	assert.NotContains(t, arpShown(t), "PERMANENT")
	_, err = m.repair()
	require.NoError(t, err)
	assert.Equal(t, strings.Replace(both, ":09 ", ":0a ", 1), arpShown(t))

	require.NoError(t, m.ForgetNeighbors([]Neighbor{{Address: netip.MustParseAddr("192.168.0.9"), Interface: "ether2"}, {Address: netip.MustParseAddr("192.168.0.10"), Interface: "ether2"}}))
	_, err = m.repair()
	require.NoError(t, err)
	assert.Contains(t, arpShown(t), "192.168.0.9 ", "one of the configuration comes back")

	// On a port of a bridge the entry is the bridge's.
	c.Bridges, c.BridgePorts, c.Addresses = []Bridge{{Name: "lan"}}, []BridgePort{{Bridge: "lan", Interface: "ether2"}}, c.Addresses[:1]
	require.NoError(t, m.Apply(c))
	assert.Equal(t, strings.NewReplacer("ether2", "lan", ":09 ", ":0a ").Replace(both), arpShown(t))
	c.Neighbors[0].Disabled, c.Neighbors[1].Disabled = true, true
	require.NoError(t, m.Apply(c))
	assert.Empty(t, arpShown(t))
}

// An entry waits while nothing is sent to its address by its link: what is published is elsewhere, and a gateway may be outside the networks.
func TestStaticNeighborsWait(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	c := router()
	published := static("10.9.0.77", "ether2", 0)
	published.Published = true
	disabled := static("10.9.0.78", "ether2", 8)
	disabled.Disabled = true
	c.Neighbors = []StaticNeighbor{static("192.168.0.9", "ether2", 9), static("10.9.0.1", "ether2", 1), published, disabled, static("192.168.0.9", "ether1", 9),
		static("10.8.0.1", "ether2", 2), static("10.7.0.1", "ether2", 3)}
	c.Routes = append(c.Routes, Route{Destination: netip.MustParsePrefix("10.6.0.0/16"), Gateway: netip.MustParseAddr("10.8.0.1"), Interface: "ether2", Distance: 1},
		Route{Destination: netip.MustParsePrefix("10.7.0.0/16"), Interface: "ether2", Distance: 1})
	require.NoError(t, m.Apply(c))
	w, err := m.Waiting()
	require.NoError(t, err)
	assert.Equal(t, []int{1, 4}, w.Neighbors)
	ip(t, "link set ether2 down")
	w, err = m.Waiting()
	require.NoError(t, err)
	assert.Equal(t, []int{0, 1, 4, 5, 6}, w.Neighbors)
}

// arpRig is a router, and hosts on its two links. The namespaces of this test are not those of the others.
type arpRig struct {
	router, lan, wan *testnet.Host
	m                *Manager
}

func newARPRig(t *testing.T) *arpRig {
	r := &arpRig{router: testnet.New(t, "router"), lan: testnet.New(t, "lan"), wan: testnet.New(t, "wan")}
	require.NoError(t, testnet.Link(r.router, "k0", r.wan, "eth0"))
	require.NoError(t, testnet.Link(r.router, "k1", r.lan, "eth0"))
	require.NoError(t, r.wan.IP("addr add 10.0.0.1/24 dev eth0"))
	require.NoError(t, r.lan.IP("link set eth0 address 02:00:00:00:00:09", "addr add 192.168.0.9/24 dev eth0", "addr add 192.168.0.8/24 dev eth0"))
	// The kernel gives up after three requests, a second each.
	for h, links := range map[*testnet.Host][]string{r.router: {"k0", "k1"}, r.lan: {"eth0"}} {
		require.NoError(t, h.Do(func() error {
			for _, link := range links {
				if err := os.WriteFile("/proc/sys/net/ipv4/neigh/"+link+"/retrans_time_ms", []byte("100"), 0); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	r.m = newManager(t, twoPorts...)
	return r
}

func (r *arpRig) apply(t *testing.T, c Config) {
	t.Helper()
	require.NoError(t, r.router.Do(func() error { return r.m.Apply(c) }))
}

// eventually repeats what may fail on a busy host, where answers come late, until it succeeds.
func eventually(t *testing.T, f func() bool, about ...any) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if f() {
			return
		}
	}
	assert.Fail(t, "never", about...)
}

// finds reports whether a host learns a hardware address when it sends to an address from one of its own.
func finds(t *testing.T, h *testnet.Host, from, to string) bool {
	t.Helper()
	_ = h.IP("neigh flush to " + to + " dev eth0")
	var out []byte
	require.NoError(t, h.Do(func() error {
		// Nobody need answer the datagram.
		_ = exec.Command("bash", "-c", fmt.Sprintf("ip route replace %s/32 dev eth0 src %s; echo > /dev/udp/%s/9", to, from, to)).Run()
		return nil
	}))
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		require.NoError(t, h.Do(func() (err error) {
			out, err = exec.Command("ip", "neigh", "show", "to", to, "dev", "eth0").CombinedOutput()
			return err
		}))
		switch text := string(out); {
		case strings.Contains(text, "lladdr"):
			return true
		case strings.Contains(text, "FAILED") || text == "":
			return false
		}
	}
	t.Fatalf("%s: %s", to, out)
	return false
}

// The modes of a link, seen by hosts.
func TestARPModes(t *testing.T) {
	r := newARPRig(t)
	c := router()
	c.Routes = nil
	c.Links = append(c.Links, Link{Name: "ether2"})
	mode := func(name string) {
		c.Links[1].ARP = name
		r.apply(t, c)
		require.NoError(t, r.router.Do(func() error {
			changes, err := r.m.repair()
			assert.Empty(t, changes, name)
			return err
		}))
	}
	mode("")
	eventually(t, func() bool { return finds(t, r.lan, "192.168.0.9", "192.168.0.1") })
	assert.False(t, finds(t, r.lan, "192.168.0.9", "10.0.0.1"))

	mode(ProxyARP)
	eventually(t, func() bool { return finds(t, r.lan, "192.168.0.9", "10.0.0.1") }, "behind the other link")
	assert.False(t, finds(t, r.lan, "192.168.0.9", "192.168.0.55"), "a host of the same link")

	mode(LocalProxyARP)
	assert.False(t, finds(t, r.lan, "192.168.0.9", "10.0.0.1"))
	eventually(t, func() bool { return finds(t, r.lan, "192.168.0.9", "192.168.0.55") })

	mode(ARPDisabled)
	assert.False(t, finds(t, r.lan, "192.168.0.9", "192.168.0.1"))
	assert.False(t, r.asks(t, "192.168.0.9"))

	mode(ARPReplyOnly)
	assert.False(t, finds(t, r.lan, "192.168.0.9", "192.168.0.1"), "without entries nobody is answered")
	assert.False(t, r.asks(t, "192.168.0.9"))
	c.Neighbors = []StaticNeighbor{static("192.168.0.9", "ether2", 9)}
	mode(ARPReplyOnly)
	eventually(t, func() bool { return finds(t, r.lan, "192.168.0.9", "192.168.0.1") })
	assert.False(t, finds(t, r.lan, "192.168.0.8", "192.168.0.1"), "another host")
	require.NoError(t, r.router.Do(func() error {
		assert.Equal(t, "192.168.0.9 lladdr 02:00:00:00:00:09 PERMANENT", ip(t, "-4 neigh show dev ether2"), "nothing was learnt")
		return nil
	}))
	eventually(t, func() bool { return r.asks(t, "192.168.0.9") })
	assert.False(t, r.asks(t, "192.168.0.8"))
	// One that asks for an address of another network of the link is not answered either.
	c.Addresses = append(c.Addresses, Address{Address: netip.MustParsePrefix("192.168.5.1/24"), Interface: "ether2"})
	mode(ARPReplyOnly)
	assert.False(t, finds(t, r.lan, "192.168.0.8", "192.168.5.1"))
	eventually(t, func() bool { return finds(t, r.lan, "192.168.0.9", "192.168.5.1") })
	c.Addresses = c.Addresses[:len(c.Addresses)-1]

	// A published address, in the usual mode.
	c.Neighbors = []StaticNeighbor{{Address: netip.MustParseAddr("10.0.0.1"), Interface: "ether2", Published: true}}
	mode("")
	eventually(t, func() bool { return finds(t, r.lan, "192.168.0.9", "10.0.0.1") })
	assert.False(t, finds(t, r.lan, "192.168.0.9", "10.0.0.3"))
	c.Neighbors = nil
	mode("")
	eventually(t, func() bool { return finds(t, r.lan, "192.168.0.8", "192.168.0.1") })
	require.NoError(t, r.router.Do(func() error {
		assert.NotContains(t, ip(t, "rule"), fmt.Sprint(arpTable))
		text, err := os.ReadFile("/proc/sys/net/ipv4/neigh/ether2/mcast_solicit")
		assert.Equal(t, "3\n", string(text))
		return err
	}))
}

// With reply-only nothing is sent to who is not listed, whatever the kernel has learnt of him, and by whatever rule or route.
func TestReplyOnlyIsClosed(t *testing.T) {
	r := newARPRig(t)
	prefix, address := netip.MustParsePrefix, netip.MustParseAddr
	c := router()
	c.Routes = []Route{
		{Destination: prefix("10.77.0.0/16"), Gateway: address("192.168.0.8"), Distance: 1},
		{Destination: prefix("10.78.0.0/16"), Gateway: address("192.168.0.9"), Distance: 1},
		{Destination: prefix("192.168.0.128/26"), Gateway: address("10.0.0.1"), Distance: 1},
		{Destination: prefix("192.168.0.192/26"), Interface: "ether2", Distance: 1},
		{Destination: prefix("0.0.0.0/0"), Gateway: address("10.0.0.1"), Distance: 1},
		{Destination: prefix("10.77.0.0/16"), Gateway: address("192.168.0.8"), Distance: 1, Table: "t"},
	}
	c.Tables = []Table{{Name: "t", Number: 7}}
	c.Rules = []Rule{
		{SrcAddress: prefix("10.0.0.66/32"), Action: "unreachable"},
		{SrcAddress: prefix("10.0.0.67/32"), Action: "lookup", Table: MainTable},
	}
	c.Links = append(c.Links, Link{Name: "ether2", ARP: ARPReplyOnly})
	c.Neighbors = []StaticNeighbor{static("192.168.0.9", "ether2", 9)}
	for range 2 { // with the rules there, too
		r.apply(t, c)
		require.NoError(t, r.router.Do(func() error {
			changes, err := r.m.repair()
			assert.Empty(t, changes)
			return err
		}))
	}
	way := func(what string) (link string) {
		require.NoError(t, r.router.Do(func() error {
			out, err := exec.Command("ip", append([]string{"route", "get"}, strings.Fields(what)...)...).CombinedOutput()
			if _, after, found := strings.Cut(string(out), " dev "); err == nil && found {
				link = strings.Fields(after)[0]
			}
			return nil
		}))
		return link
	}
	learnt := func() {
		require.NoError(t, r.router.Do(func() error {
			ip(t, "neigh replace 192.168.0.8 lladdr 02:00:00:00:00:09 nud stale dev ether2")
			return nil
		}))
	}
	learnt()
	for what, want := range map[string]string{
		"192.168.0.9":                           "ether2",
		"192.168.0.8":                           "",
		"192.168.0.8 from 192.168.0.1":          "",
		"192.168.0.9 from 10.0.0.5 iif ether1":  "ether2",
		"192.168.0.8 from 10.0.0.5 iif ether1":  "",
		"192.168.0.9 from 10.0.0.66 iif ether1": "", // by the user's own rule, which holds for who is listed
		"192.168.0.8 from 10.0.0.67 iif ether1": "",
		"10.0.0.5 from 192.168.0.9 iif ether2":  "ether1",
		"10.0.0.5 from 192.168.0.8 iif ether2":  "",
		"10.78.0.1":                             "ether2",
		"10.77.0.1":                             "", // not by the default route either
		"192.168.0.130":                         "ether1",
		"192.168.0.200":                         "",
		"203.0.113.9":                           "ether1",
		"192.168.0.255":                         "ether2", // broadcasts, as of DHCP
	} {
		assert.Equal(t, want, way(what), what)
	}
	// Nor is one answered that the kernel knew before he asks.
	assert.False(t, finds(t, r.lan, "192.168.0.8", "192.168.0.1"))
	c.Links[1].ARP = ""
	r.apply(t, c)
	assert.Equal(t, "ether2", way("192.168.0.8"))
	assert.Equal(t, "ether2", way("10.77.0.1"))
}

// asks reports whether the router finds a neighbour on ether2.
func (r *arpRig) asks(t *testing.T, address string) (answered bool) {
	t.Helper()
	require.NoError(t, r.router.Do(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		answered = r.m.AskNeighbor(ctx, netip.MustParseAddr(address), "")
		return ctx.Err()
	}))
	return answered
}

// A neighbour that does not answer any more is not there, although the kernel still has its hardware address.
func TestAskNeighbor(t *testing.T) {
	r := newARPRig(t)
	c := router()
	c.Routes = nil
	r.apply(t, c)
	eventually(t, func() bool { return r.asks(t, "192.168.0.9") })
	eventually(t, func() bool { return r.asks(t, "192.168.0.9") }, "again")
	assert.False(t, r.asks(t, "192.168.0.55"))
	assert.False(t, r.asks(t, "203.0.113.5"), "on no link")
	require.NoError(t, r.lan.IP("link set eth0 arp off"))
	assert.False(t, r.asks(t, "192.168.0.9"))
	assert.False(t, r.asks(t, "192.168.0.9"))
	require.NoError(t, r.lan.IP("link set eth0 arp on"))
	eventually(t, func() bool { return r.asks(t, "192.168.0.9") })
}

// Of links whose networks have a gateway, routes take one that is up, of the longest network, and LinkTo says which.
func TestLinkTo(t *testing.T) {
	r := newARPRig(t)
	require.Empty(t, r.m.LinkTo(netip.MustParseAddr("10.0.0.9")), "before the first Config")
	c := router()
	c.Addresses = append(c.Addresses, address("10.0.0.3/24", "ether2"), address("192.168.0.2/16", "ether1"))
	c.Routes = []Route{by("0.0.0.0/0", "10.0.0.9", 1)}
	check := func(gateway, want string) {
		t.Helper()
		require.NoError(t, r.router.Do(func() error {
			assert.Equal(t, want, r.m.LinkTo(netip.MustParseAddr(gateway)), gateway)
			return nil
		}))
	}
	way := func() (link string) {
		require.NoError(t, r.router.Do(func() error {
			out, err := exec.Command("ip", "route", "show", "default").CombinedOutput()
			_, after, _ := strings.Cut(string(out), " dev ")
			link, _, _ = strings.Cut(after, " ")
			return err
		}))
		return link
	}
	r.apply(t, c)
	check("10.0.0.9", "ether1")
	assert.Equal(t, "ether1", way())
	check("192.168.0.9", "ether2")
	check("203.0.113.9", "")
	c.Links[0].Disabled = true
	r.apply(t, c)
	check("10.0.0.9", "ether2")
	assert.Equal(t, "ether2", way())
	c.Links = append(c.Links, Link{Name: "ether2", Disabled: true})
	r.apply(t, c)
	check("10.0.0.9", "")
}
