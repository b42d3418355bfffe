package netcfg

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

var twoPorts = []Port{{"ether1", "k0"}, {"ether2", "k1"}}

func router() Config {
	return Config{
		Links:      []Link{{Name: "ether1", MTU: 1492}},
		Addresses:  []Address{address("10.0.0.2/24", "ether1"), address("192.168.0.1/24", "ether2")},
		Routes:     []Route{by("0.0.0.0/0", "10.0.0.1", 1), by("172.16.0.0/12", "192.168.0.9", 5)},
		Forwarding: true,
	}
}

const routerShown = `
	link lo up mtu 65536
	link ether1 up mtu 1492
	link ether2 up mtu 1500
	addr lo inet 127.0.0.1/8 scope host lo
	addr ether1 inet 10.0.0.2/24 brd 10.0.0.255 scope global ether1
	addr ether2 inet 192.168.0.1/24 brd 192.168.0.255 scope global ether2
	route default via 10.0.0.1 dev ether1 proto static metric 1
	route 10.0.0.0/24 dev ether1 proto kernel scope link src 10.0.0.2
	route 172.16.0.0/12 via 192.168.0.9 dev ether2 proto static metric 5
	route 192.168.0.0/24 dev ether2 proto kernel scope link src 192.168.0.1
	forwarding true`

// Each case edits the router's configuration. The result must be the same if it is applied
// over the old one and if it is applied just after boot.
func TestApply(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"the same again", func(c *Config) {}, routerShown},
		{"another MTU", func(c *Config) { c.Links[0].MTU = 1400 },
			strings.Replace(routerShown, "mtu 1492", "mtu 1400", 1)},
		{"the driver's MTU", func(c *Config) { c.Links = nil },
			strings.Replace(routerShown, "mtu 1492", "mtu 1500", 1)},
		{"another prefix length", func(c *Config) { c.Addresses[0] = address("10.0.0.2/16", "ether1") },
			strings.NewReplacer("10.0.0.2/24 brd 10.0.0.255", "10.0.0.2/16 brd 10.0.255.255", "10.0.0.0/24", "10.0.0.0/16").Replace(routerShown)},
		{"another address of the same network", func(c *Config) { c.Addresses[0] = address("10.0.0.3/24", "ether1") },
			strings.NewReplacer("10.0.0.2/", "10.0.0.3/", "src 10.0.0.2", "src 10.0.0.3").Replace(routerShown)},
		{"a /31 has no broadcast address", func(c *Config) { c.Addresses[0] = address("10.0.0.0/31", "ether1") },
			strings.NewReplacer("10.0.0.2/24 brd 10.0.0.255", "10.0.0.0/31", "10.0.0.0/24", "10.0.0.0/31", "src 10.0.0.2", "src 10.0.0.0").Replace(routerShown)},
		{"the addresses change places", func(c *Config) {
			c.Addresses[0].Interface, c.Addresses[1].Interface = "ether2", "ether1"
		}, `
			link lo up mtu 65536
			link ether1 up mtu 1492
			link ether2 up mtu 1500
			addr lo inet 127.0.0.1/8 scope host lo
			addr ether1 inet 192.168.0.1/24 brd 192.168.0.255 scope global ether1
			addr ether2 inet 10.0.0.2/24 brd 10.0.0.255 scope global ether2
			route default via 10.0.0.1 dev ether2 proto static metric 1
			route 10.0.0.0/24 dev ether2 proto kernel scope link src 10.0.0.2
			route 172.16.0.0/12 via 192.168.0.9 dev ether1 proto static metric 5
			route 192.168.0.0/24 dev ether1 proto kernel scope link src 192.168.0.1
			forwarding true`},
		{"another gateway", func(c *Config) { c.Routes[0] = by("0.0.0.0/0", "10.0.0.7", 1) },
			strings.Replace(routerShown, "default via 10.0.0.1", "default via 10.0.0.7", 1)},
		{"another distance", func(c *Config) { c.Routes[0].Distance = 255 },
			strings.Replace(routerShown, "metric 1\n", "metric 255\n", 1)},
		{"a second way", func(c *Config) { c.Routes = append(c.Routes, by("0.0.0.0/0", "192.168.0.254", 2)) },
			strings.Replace(routerShown, "\troute 10.0.0.0/24", "\troute default via 192.168.0.254 dev ether2 proto static metric 2\n\troute 10.0.0.0/24", 1)},
		{"routes that lead nowhere", func(c *Config) {
			// One takes the place of a route by a gateway, whatever else it has.
			c.Routes[0].Type = Prohibit
			c.Routes[1] = Route{Destination: netip.MustParsePrefix("172.16.0.0/12"), Type: Blackhole, Distance: 5, Down: true}
			c.Routes = append(c.Routes, Route{Destination: netip.MustParsePrefix("10.0.0.0/8"), Type: Unreachable, Distance: 250, PrefSrc: netip.MustParseAddr("10.9.9.9")})
		}, strings.NewReplacer("\troute default via 10.0.0.1 dev ether1 proto static metric 1\n", "\troute prohibit default proto static metric 1\n",
			"\troute 172.16.0.0/12 via 192.168.0.9 dev ether2 proto static metric 5", "\troute unreachable 10.0.0.0/8 proto static metric 250\n\troute blackhole 172.16.0.0/12 proto static metric 5").Replace(routerShown)},
		{"a route disabled", func(c *Config) { c.Routes[0].Disabled = true },
			strings.Replace(routerShown, "\troute default via 10.0.0.1 dev ether1 proto static metric 1\n", "", 1)},
		{"a port disabled keeps its address and loses its routes", func(c *Config) { c.Links = append(c.Links, Link{Name: "ether2", Disabled: true}) }, `
			link lo up mtu 65536
			link ether1 up mtu 1492
			link ether2 down mtu 1500
			addr lo inet 127.0.0.1/8 scope host lo
			addr ether1 inet 10.0.0.2/24 brd 10.0.0.255 scope global ether1
			addr ether2 inet 192.168.0.1/24 brd 192.168.0.255 scope global ether2
			route default via 10.0.0.1 dev ether1 proto static metric 1
			route 10.0.0.0/24 dev ether1 proto kernel scope link src 10.0.0.2
			forwarding true`},
		{"an address disabled", func(c *Config) { c.Addresses[1].Disabled = true; c.Routes = c.Routes[:1] }, `
			link lo up mtu 65536
			link ether1 up mtu 1492
			link ether2 up mtu 1500
			addr lo inet 127.0.0.1/8 scope host lo
			addr ether1 inet 10.0.0.2/24 brd 10.0.0.255 scope global ether1
			route default via 10.0.0.1 dev ether1 proto static metric 1
			route 10.0.0.0/24 dev ether1 proto kernel scope link src 10.0.0.2
			forwarding true`},
		{"nothing", func(c *Config) { *c = Config{} }, `
			link lo up mtu 65536
			link ether1 up mtu 1500
			link ether2 up mtu 1500
			addr lo inet 127.0.0.1/8 scope host lo
			forwarding false`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := router()
			tt.edit(&c)

			lab(t, "k0", "k1")
			m := newManager(t, twoPorts...)
			require.NoError(t, m.Apply(router()))
			looks(t, routerShown)
			require.NoError(t, m.Apply(c))
			looks(t, tt.want, "after the router's configuration")

			lab(t, "k0", "k1")
			require.NoError(t, newManager(t, twoPorts...).Apply(c))
			looks(t, tt.want, "after boot")
		})
	}
}

func TestApplyAgainChangesNothing(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	require.NoError(t, m.Apply(router()))
	assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(router())) }), "the same Manager")
	again := newManager(t, twoPorts...)
	assert.Empty(t, monitored(t, func() { require.NoError(t, again.Apply(router())) }), "a Manager of the next process")
}

// The kernel drops the secondary addresses of a network with its primary one.
func TestSecondaryAddressSurvives(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	c := Config{Addresses: []Address{
		address("10.0.0.2/24", "ether1"), address("10.0.0.3/24", "ether1"), address("10.0.0.4/24", "ether1"),
	}}
	require.NoError(t, m.Apply(c))
	c.Addresses = c.Addresses[1:]
	// Not for a moment are they gone: the kernel would forget the connections behind them.
	changed := monitored(t, func() { require.NoError(t, m.Apply(c)) })
	assert.Regexp(t, `Deleted \d+: ether1 +inet 10\.0\.0\.2/24`, changed)
	assert.NotContains(t, changed, "inet 10.0.0.4/24")
	looks(t, `
		link lo up mtu 65536
		link ether1 up mtu 1500
		link ether2 up mtu 1500
		addr lo inet 127.0.0.1/8 scope host lo
		addr ether1 inet 10.0.0.3/24 brd 10.0.0.255 scope global ether1
		addr ether1 inet 10.0.0.4/24 brd 10.0.0.255 scope global secondary ether1
		route 10.0.0.0/24 dev ether1 proto kernel scope link src 10.0.0.3
		forwarding false`)
}

// A link can go, as that of a PPPoE client does when the server ends it, between the look at what the
// kernel has and the change of it.
func TestAddressGoesWithItsLink(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	require.NoError(t, m.Apply(Config{Addresses: []Address{address("10.0.0.2/24", "ether1")}}))
	nl, err := dial()
	require.NoError(t, err)
	defer nl.Close()
	have, err := m.ownAddrs(nl)
	require.NoError(t, err)
	require.Len(t, have, 1)
	ip(t, "link del ether1")
	var p pass
	m.reconcileAddrs(nl, &p, have, nil)
	assert.NoError(t, p.err())
	assert.Empty(t, p.changes)
}

func TestForeignIsUntouched(t *testing.T) {
	lab(t, "k0", "k1", "other")
	ip(t, "link set other up mtu 1300")
	ip(t, "addr add 10.9.0.1/24 dev other")
	ip(t, "route add 10.10.0.0/16 via 10.9.0.2")
	ip(t, "route add 10.11.0.0/16 via 10.9.0.2 proto bird metric 1")
	foreign := []string{"link other up mtu 1300", "addr other inet 10.9.0.1/24 scope global other",
		"route 10.10.0.0/16 via 10.9.0.2 dev other", "route 10.11.0.0/16 via 10.9.0.2 dev other proto bird metric 1"}

	m := newManager(t, twoPorts...)
	for _, c := range []Config{router(), {}} {
		require.NoError(t, m.Apply(c))
		for _, line := range foreign {
			assert.Contains(t, withoutCarrier(shown(t)), line+"\n")
		}
	}

	t.Run("a gateway on a link that is not ours", func(t *testing.T) {
		c := Config{Routes: []Route{by("10.12.0.0/16", "10.9.0.3", 1)}}
		require.NoError(t, m.Apply(c))
		assert.Contains(t, withoutCarrier(shown(t)), "route 10.12.0.0/16 via 10.9.0.3 dev other proto static metric 1\n")
		assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(c)) }))
	})
	t.Run("the place of a foreign route", func(t *testing.T) {
		before := withoutCarrier(shown(t))
		err := m.Apply(Config{Routes: []Route{by("10.11.0.0/16", "10.9.0.4", 1)}})
		require.ErrorIs(t, err, unix.EEXIST)
		require.ErrorContains(t, err, "add route 10.11.0.0/16 by 10.9.0.4 distance 1: a route that is not ours")
		looks(t, before)
	})
}

func TestRefusedLeavesWhatWas(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Config)
		err  string
	}{
		{"a gateway that is a broadcast address", func(c *Config) {
			// Much besides changes, for the undo to have work.
			c.Links = []Link{{Name: "ether1", MTU: 1300}, {Name: "ether2", Disabled: true}}
			c.Addresses = []Address{address("10.5.0.1/24", "ether1"), address("10.0.0.2/24", "ether2")}
			c.Routes = []Route{by("0.0.0.0/0", "10.5.0.9", 1), by("10.6.0.0/24", "10.5.0.255", 1), by("10.8.0.0/24", "10.7.0.1", 1)}
			c.Forwarding = false
		}, "add route 10.6.0.0/24 by 10.5.0.255 distance 1: invalid argument (Nexthop has invalid gateway)"},
		{"a gateway that an address change made a broadcast address", func(c *Config) {
			c.Addresses[0] = address("10.0.0.2/31", "ether1")
			c.Addresses = append(c.Addresses, address("10.0.0.0/31", "ether2"))
			c.Addresses[1] = address("192.168.0.6/30", "ether2")
			c.Routes[1].Gateway = c.Addresses[1].Address.Addr().Next()
		}, "add route 172.16.0.0/12 by 192.168.0.7 distance 5: invalid argument (Nexthop has invalid gateway)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lab(t, "k0", "k1")
			m := newManager(t, twoPorts...)
			require.NoError(t, m.Apply(router()))
			c := router()
			tt.edit(&c)
			require.EqualError(t, m.Apply(c), tt.err)
			looks(t, routerShown)

			changes, err := m.repair()
			require.NoError(t, err)
			assert.Empty(t, changes, "the configuration before stays in force")
		})
	}

	t.Run("the first configuration", func(t *testing.T) {
		lab(t, "k0", "k1")
		m := newManager(t, twoPorts...)
		c := router()
		c.Routes[0].Gateway = c.Routes[0].Gateway.Next().Next().Next()
		c.Routes[1].Gateway = address("192.168.0.255/24", "").Address.Addr()
		require.Error(t, m.Apply(c))
		looks(t, `
			link lo up mtu 65536
			link ether1 down mtu 1500
			link ether2 down mtu 1500
			addr lo inet 127.0.0.1/8 scope host lo
			forwarding false`)
	})

	t.Run("an invalid one", func(t *testing.T) {
		lab(t, "k0", "k1")
		m := newManager(t, twoPorts...)
		before := withoutCarrier(shown(t))
		require.ErrorContains(t, m.Apply(Config{Links: []Link{{Name: "k0"}}}), "link: name=k0: expected a port")
		looks(t, before)
	})
}

// A route whose gateway is in the network of no address waits for one, whichever of the two
// changes first.
func TestRouteWaitsForItsGateway(t *testing.T) {
	const moved = "10.5.0.2/24"
	shownMoved := strings.NewReplacer("10.0.0.2/24 brd 10.0.0.255", "10.5.0.2/24 brd 10.5.0.255", "10.0.0.0/24", "10.5.0.0/24",
		"src 10.0.0.2", "src 10.5.0.2", "via 10.0.0.1", "via 10.5.0.1").Replace(routerShown)
	without := func(shown, route string) string {
		t.Helper()
		require.Contains(t, shown, route)
		return strings.Replace(shown, route, "", 1)
	}
	withoutDefault := without(routerShown, "\troute default via 10.0.0.1 dev ether1 proto static metric 1\n")
	movedWithoutDefault := without(shownMoved, "\troute default via 10.5.0.1 dev ether1 proto static metric 1\n")
	type step struct {
		edit    func(*Config)
		want    string
		waiting []int
	}
	address1 := func(p string) func(*Config) { return func(c *Config) { c.Addresses[0] = address(p, "ether1") } }
	gateway := func(g string) func(*Config) { return func(c *Config) { c.Routes[0] = by("0.0.0.0/0", g, 1) } }
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"the address first", []step{{address1(moved), movedWithoutDefault, []int{0}}, {gateway("10.5.0.1"), shownMoved, nil}}},
		{"the gateway first", []step{{gateway("10.5.0.1"), withoutDefault, []int{0}}, {address1(moved), shownMoved, nil}}},
		{"there and back", []step{{address1(moved), movedWithoutDefault, []int{0}}, {address1("10.0.0.2/24"), routerShown, nil}}},
		// The kernel keeps a route of a link that still has another address.
		{"the link has other addresses", []step{
			{func(c *Config) { c.Addresses = append(c.Addresses, address(moved, "ether1")) }, strings.NewReplacer(
				"\taddr ether2", "\taddr ether1 inet 10.5.0.2/24 brd 10.5.0.255 scope global ether1\n\taddr ether2",
				"\troute 172", "\troute 10.5.0.0/24 dev ether1 proto kernel scope link src 10.5.0.2\n\troute 172").Replace(routerShown), nil},
			{func(c *Config) { c.Addresses = c.Addresses[1:] }, movedWithoutDefault, []int{0}},
		}},
		{"a way of a greater distance", []step{
			{func(c *Config) { c.Routes = append(c.Routes, by("0.0.0.0/0", "192.168.0.254", 2)) },
				strings.Replace(routerShown, "\troute 10", "\troute default via 192.168.0.254 dev ether2 proto static metric 2\n\troute 10", 1), nil},
			{address1(moved), strings.Replace(movedWithoutDefault, "\troute 10", "\troute default via 192.168.0.254 dev ether2 proto static metric 2\n\troute 10", 1), []int{0}},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			lab(t, "k0", "k1")
			m := newManager(t, twoPorts...)
			c := router()
			require.NoError(t, m.Apply(c))
			for _, s := range test.steps {
				s.edit(&c)
				require.NoError(t, m.Apply(c))
				looks(t, s.want)
				w, err := m.Waiting()
				require.NoError(t, err)
				assert.Equal(t, Waiting{Routes: s.waiting}, w)
				assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(c)) }))
			}
			looks(t, test.steps[len(test.steps)-1].want)
		})
	}
}

// The gateway of a route with an interface is there, in whatever network it is: as for a lease of a
// /32. The route goes with the link, and comes back with it.
func TestRouteOnLink(t *testing.T) {
	const line = "\troute default via 10.0.0.1 dev ether1 proto static metric 1"
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	c := router()
	c.Addresses[0] = address("192.0.2.7/32", "ether1")
	c.Routes[0].Interface = "ether1"
	require.NoError(t, m.Apply(c))
	shown := strings.NewReplacer("10.0.0.2/24 brd 10.0.0.255", "192.0.2.7/32", line, line+" onlink",
		"\troute 10.0.0.0/24 dev ether1 proto kernel scope link src 10.0.0.2\n", "").Replace(routerShown)
	require.NotEqual(t, routerShown, shown)
	looks(t, shown)
	assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(c)) }), "nothing is left to do")
	w, err := m.Waiting()
	require.NoError(t, err)
	assert.Empty(t, w.Routes)

	c.Routes[0].Interface = ""
	require.NoError(t, m.Apply(c))
	looks(t, strings.Replace(shown, line+" onlink\n", "", 1))
	c.Routes[0].Interface = "ether1"
	links := c.Links
	c.Links = []Link{{Name: "ether1", Disabled: true}}
	require.NoError(t, m.Apply(c))
	w, err = m.Waiting()
	require.NoError(t, err)
	assert.Equal(t, []int{0}, w.Routes)
	c.Links = links
	require.NoError(t, m.Apply(c))
	looks(t, shown)
}

// A route whose gateway is down waits, and comes back.
func TestRouteDown(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	c := router()
	require.NoError(t, m.Apply(c))
	looks(t, routerShown)
	c.Routes = slices.Clone(c.Routes)
	c.Routes[0].Down = true
	require.NoError(t, m.Apply(c))
	looks(t, strings.Replace(routerShown, "\troute default via 10.0.0.1 dev ether1 proto static metric 1\n", "", 1))
	w, err := m.Waiting()
	require.NoError(t, err)
	assert.Equal(t, Waiting{Routes: []int{0}}, w)
	assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(c)) }), "nothing is left to do")
	c.Routes[0].Down = false
	require.NoError(t, m.Apply(c))
	looks(t, routerShown)
}

// A gateway on a link, in no network of an address, is heard while its routes are down, or they would be so for good: the
// kernel's strict check of sources lets nobody in to whom there is no way.
func TestRouteDownOnLink(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	c := router()
	c.Addresses[0] = address("192.0.2.7/32", "ether1")
	c.Routes[0].Interface = "ether1"
	c.Routes = append(c.Routes, by("0.0.0.0/0", "192.168.0.9", 2))
	c.Settings.RPFilter = RPFilterStrict
	heard := func() bool {
		return exec.Command("ip", "route", "get", "192.0.2.7", "from", "10.0.0.1", "iif", "ether1").Run() == nil
	}
	routes := func() string { return ip(t, "route show proto static") }
	require.NoError(t, m.Apply(c))
	require.True(t, heard())
	before := routes()
	down := func(all ...int) {
		t.Helper()
		c.Routes = slices.Clone(c.Routes)
		for i := range c.Routes {
			c.Routes[i].Down = slices.Contains(all, i)
		}
		require.NoError(t, m.Apply(c))
		w, err := m.Waiting()
		require.NoError(t, err)
		assert.Equal(t, all, w.Routes)
		assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(c)) }), "nothing is left to do")
	}
	down(0)
	assert.True(t, heard())
	assert.NotContains(t, routes(), "via 10.0.0.1")
	down()
	assert.Equal(t, before, routes())

	// The route is there once, and not if there is another of the user's, or another link has such a gateway.
	c.Routes = append(c.Routes, by("10.7.0.0/16", "10.0.0.1", 1))
	c.Routes[3].Interface = "ether1"
	down(0, 3)
	assert.True(t, heard())
	c.Routes[3] = Route{Destination: netip.MustParsePrefix("10.0.0.1/32"), Interface: "ether1", Distance: 1}
	down(0)
	assert.True(t, heard())
	c.Routes[3] = by("10.7.0.0/16", "10.0.0.1", 1)
	c.Routes[3].Interface = "ether2"
	down(0)
	assert.NotContains(t, routes(), "10.0.0.1 dev ether1")
	// An address of a network is that of a host there.
	c.Routes = c.Routes[:3]
	c.Routes[0].Gateway = netip.MustParseAddr("192.168.0.77")
	down(0)
	assert.NotContains(t, routes(), "192.168.0.77")
}

// A route by a source waits until a link has it, and changes in its place.
func TestRouteSource(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	c := router()
	const line = "default via 10.0.0.1 dev ether1 proto static metric 1"
	from := func(src string, want string, waiting ...int) {
		t.Helper()
		c.Routes = slices.Clone(c.Routes)
		if c.Routes[0].PrefSrc = (netip.Addr{}); src != "" {
			c.Routes[0].PrefSrc = netip.MustParseAddr(src)
		}
		require.NoError(t, m.Apply(c))
		looks(t, want)
		w, err := m.Waiting()
		require.NoError(t, err)
		assert.Equal(t, waiting, w.Routes)
		assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(c)) }), "nothing is left to do")
	}
	by := func(src string) string {
		return strings.Replace(routerShown, line, strings.Replace(line, "static", "static src "+src, 1), 1)
	}
	own, other := "10.0.0.2", "192.168.0.1"
	require.Contains(t, routerShown, other+"/24")
	from("", routerShown)
	from(own, strings.Replace(routerShown, line, "default via 10.0.0.1 dev ether1 proto static src "+own+" metric 1", 1))
	from(other, by(other))
	from("", routerShown)
	from("192.0.2.1", strings.Replace(routerShown, "\troute "+line+"\n", "", 1), 0)
	from(other, by(other))
	addresses := c.Addresses
	c.Addresses = slices.DeleteFunc(slices.Clone(addresses), func(a Address) bool { return a.Address.Addr().String() == other })
	require.NoError(t, m.Apply(c))
	w, err := m.Waiting()
	require.NoError(t, err)
	assert.Contains(t, w.Routes, 0)
	c.Addresses = addresses
	require.NoError(t, m.Apply(c))
	looks(t, by(other))
	c.Routes[0].PrefSrc = netip.MustParseAddr("224.0.0.1")
	assert.ErrorContains(t, m.Apply(c), "route 0.0.0.0/0: pref-src=224.0.0.1: expected an IPv4 host address")
}

// A route without a gateway is for what is on the link itself.
func TestRouteWithoutGateway(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	c := router()
	c.Routes[0].Gateway, c.Routes[0].Interface = netip.Addr{}, "ether1"
	require.NoError(t, m.Apply(c))
	shown := strings.Replace(routerShown, "route default via 10.0.0.1 dev ether1 proto static metric 1", "route default dev ether1 proto static scope link metric 1", 1)
	require.NotEqual(t, routerShown, shown)
	looks(t, shown)
	assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(c)) }), "nothing is left to do")
	w, err := m.Waiting()
	require.NoError(t, err)
	assert.Empty(t, w.Routes)
	c.Routes[0].Interface = "ether2"
	require.NoError(t, m.Apply(c))
	looks(t, strings.Replace(shown, "default dev ether1", "default dev ether2", 1))
	require.NoError(t, m.Apply(router()))
	looks(t, routerShown)
	c.Routes[0].Interface = ""
	assert.ErrorContains(t, m.Apply(c), "expected a gateway, which only type=")
}

// A link of a connection has what it is given while it is there, and can be wanted while it is not.
func TestPPPWaits(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	c := router()
	c.PPPs = []PPP{{Name: "pppoe-out1"}}
	c.Addresses = append(c.Addresses, address("203.0.113.7/32", "pppoe-out1"))
	c.Routes[0].Gateway, c.Routes[0].Interface = netip.Addr{}, "pppoe-out1"
	require.NoError(t, m.Apply(c))
	w, err := m.Waiting()
	require.NoError(t, err)
	assert.Equal(t, Waiting{Addresses: []int{len(c.Addresses) - 1}, Routes: []int{0}}, w)
	states, err := m.State()
	require.NoError(t, err)
	assert.Equal(t, LinkState{Name: "pppoe-out1", Type: PPPType}, states[len(states)-1])
	c.Bridges = []Bridge{{Name: "pppoe-out1"}}
	assert.ErrorContains(t, m.Apply(c), "expected a name of its own, a bridge has this one")
	c.Bridges = []Bridge{{Name: "bridge"}}
	c.BridgePorts = []BridgePort{{Bridge: "bridge", Interface: "pppoe-out1"}}
	assert.ErrorContains(t, m.Apply(c), "expected a port or a VLAN")
}

// Fail closed: forwarding ends before anything else changes, and begins when everything
// else has.
func TestForwardingOrder(t *testing.T) {
	const on, off = "inet all forwarding on", "inet all forwarding off"
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)

	lines := strings.Split(strings.TrimSpace(monitored(t, func() { require.NoError(t, m.Apply(router())) })), "\n")
	at := lineWith(t, lines, on)
	for _, l := range lines[at:] {
		assert.NotContains(t, l, "10.0.0", "after forwarding was turned on")
		assert.NotContains(t, l, "proto static", "after forwarding was turned on")
	}
	assert.Contains(t, strings.Join(lines[:at], "\n"), "172.16.0.0/12 via 192.168.0.9")

	lines = strings.Split(strings.TrimSpace(monitored(t, func() { require.NoError(t, m.Apply(Config{})) })), "\n")
	at = lineWith(t, lines, off)
	for _, l := range lines[:at] {
		assert.NotContains(t, l, "eleted", "before forwarding was turned off")
	}
	assert.Contains(t, strings.Join(lines[at:], "\n"), "eleted")
}

func lineWith(t *testing.T, lines []string, word string) int {
	t.Helper()
	for i, l := range lines {
		if strings.Contains(l, word) {
			return i
		}
	}
	require.Fail(t, "no line", "%q in\n%s", word, strings.Join(lines, "\n"))
	return 0
}

func TestPacketsAreTakenInThreads(t *testing.T) {
	lab(t)
	m := newManager(t, twoPorts...)
	var said []string
	m.logf = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	threaded := func(name string) string { return filepath.Join(m.sysfs, "class/net", name, "threaded") }
	plug(t, "k0")
	plug(t, "k1")
	plug(t, "conduit") // no port, but what the ports of a switch are reached through
	// k1 is as a device that has vanished since it was listed.
	for _, name := range []string{"ether1", "conduit", "lo", "bridge1"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(threaded(name)), 0o755))
		require.NoError(t, os.WriteFile(threaded(name), []byte("0\n"), 0o644))
	}
	require.NoError(t, m.Apply(Config{Bridges: []Bridge{{Name: "bridge1"}}}))
	for name, want := range map[string]string{"ether1": "1\n", "conduit": "1\n", "lo": "0\n", "bridge1": "0\n"} {
		got, err := os.ReadFile(threaded(name))
		require.NoError(t, err)
		assert.Equal(t, want, string(got), name)
	}
	assert.NoFileExists(t, threaded("ether2"))
	assert.Empty(t, said)

	// What the kernel refuses is told, and keeps nothing else from being done.
	require.NoError(t, os.Remove(threaded("ether1")))
	require.NoError(t, os.Mkdir(threaded("ether1"), 0o755))
	require.NoError(t, m.Apply(Config{}))
	require.Len(t, said, 1)
	assert.Contains(t, said[0], "ether1")
}

func TestPortNames(t *testing.T) {
	const slot1, slot2 = "pci0000:00/0000:00:01.0", "pci0000:00/0000:00:02.0"
	tests := []struct {
		name    string
		kernel  map[string]string // kernel name: sysfs path of the device, "" for none
		ports   []Port
		up      string            // a link that is up before
		renamed map[string]string // kernel name: name after
	}{
		{"by kernel name", map[string]string{"k0": "", "k1": ""}, twoPorts, "",
			map[string]string{"k0": "ether1", "k1": "ether2"}},
		{"named by an earlier process", map[string]string{"ether1": "", "k1": ""}, twoPorts, "",
			map[string]string{"ether1": "ether1", "k1": "ether2"}},
		{"by the path of the device itself", map[string]string{"k0": slot2, "k1": slot1},
			[]Port{{"ether1", slot1}, {"ether2", slot2}}, "",
			map[string]string{"k0": "ether2", "k1": "ether1"}},
		{"by a path above the device, whole components", map[string]string{"k0": slot1 + "0/virtio0", "k1": slot1 + "/virtio1"},
			[]Port{{"ether1", slot1}}, "", map[string]string{"k0": "k0", "k1": "ether1"}},
		{"on a platform bus", map[string]string{"k0": "platform/a003e00.virtio_mmio/virtio1"},
			[]Port{{"ether1", "platform/a003e00.virtio_mmio"}}, "", map[string]string{"k0": "ether1"}},
		{"by a pattern", map[string]string{"k0": "platform/soc/1c30000.ethernet", "k1": "platform/soc/1c1b000.usb/usb2/2-1/2-1:1.0"},
			[]Port{{"ether1", "platform/soc/*.usb"}}, "", map[string]string{"k0": "k0", "k1": "ether1"}},
		{"kernel names in the wrong order", map[string]string{"k0": slot2, "k1": slot1},
			[]Port{{"k0", slot1}, {"k1", slot2}}, "k0", map[string]string{"k0": "k1", "k1": "k0"}},
		{"kernel names swapped by name", map[string]string{"k0": "", "k1": ""},
			[]Port{{"k0", "k1"}, {"k1", "k0"}}, "", map[string]string{"k0": "k1", "k1": "k0"}},
		{"the name is a foreign device's", map[string]string{"k0": slot2, "k1": slot1},
			[]Port{{"k0", slot1}}, "k0", map[string]string{"k0": "dev%", "k1": "k0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lab(t)
			m := newManager(t, tt.ports...)
			macs := map[string]string{}
			i := 0
			for name, device := range tt.kernel {
				plug(t, name)
				i++
				macs[name] = "02:00:00:00:00:0" + string(rune('0'+i))
				ip(t, "link set "+name+" address "+macs[name])
				if device != "" {
					sysfsDevice(t, m.sysfs, name, device)
				}
			}
			if tt.up != "" {
				ip(t, "link set "+tt.up+" up")
			}
			for range 2 { // the second time nothing is left to do
				require.NoError(t, m.Apply(Config{}))
				for name, want := range tt.renamed {
					line := ""
					for _, l := range strings.Split(ip(t, "-o link"), "\n") {
						if strings.Contains(l, macs[name]) {
							line = l
						}
					}
					got, _, _ := strings.Cut(strings.Fields(line)[1], "@")
					if want == "dev%" {
						assert.Regexp(t, `^dev\d+$`, got)
					} else {
						assert.Equal(t, want, got)
					}
					if name == tt.up {
						assert.Contains(t, line, ",UP", "it was up before")
					}
				}
			}
			changes, err := m.repair()
			require.NoError(t, err)
			assert.Empty(t, changes)
		})
	}
}

func TestState(t *testing.T) {
	lab(t, "k0")
	ip(t, "link set k0 address 02:00:00:00:00:01")
	m := newManager(t, twoPorts...)
	require.NoError(t, m.Apply(router()), "ether2 is missing, which is no error")

	udp, err := net.Dial("udp", "10.0.0.9:9")
	require.NoError(t, err)
	defer udp.Close()
	_, err = udp.Write([]byte("who has 10.0.0.9?"))
	require.NoError(t, err)

	// The kernel may send of its own accord between the two readings.
	var states []LinkState
	require.Eventually(t, func() bool {
		states, err = m.State()
		require.NoError(t, err)
		require.Len(t, states, 2)
		lines := strings.Split(ip(t, "-s link show ether1"), "\n")
		rx, tx := strings.Fields(lines[3]), strings.Fields(lines[5])
		s := states[0]
		return s.TxPackets > 0 && slices.Equal(
			[]string{fmt.Sprint(s.RxBytes), fmt.Sprint(s.RxPackets), fmt.Sprint(s.TxBytes), fmt.Sprint(s.TxPackets)},
			[]string{rx[0], rx[1], tx[0], tx[1]})
	}, patience, 50*time.Millisecond, "the counters that ip -s shows")
	one := states[0]
	assert.Equal(t, LinkState{Name: "ether2", Type: Ether}, states[1])
	assert.True(t, one.Present && one.Up && one.Running)
	assert.Equal(t, "ether1", one.Name)
	assert.Equal(t, 1492, one.MTU)
	assert.Equal(t, "02:00:00:00:00:01", one.MAC.String())

	ip(t, "link set x-k0 down")
	states, err = m.State()
	require.NoError(t, err)
	assert.True(t, states[0].Up)
	assert.False(t, states[0].Running, "no carrier")
}

// A route that leads nowhere answers as its type says, waits for nothing, and gives way to a route by a gateway and back.
func TestRouteTypes(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	c := router()
	c.Routes = append(c.Routes, Route{Destination: netip.MustParsePrefix("203.0.113.0/24"), Distance: 1})
	says := map[string]string{Blackhole: "Invalid argument", Unreachable: "No route to host", Prohibit: "Permission denied", "": "via 10.0.0.1"}
	for _, typ := range []string{Blackhole, Unreachable, Prohibit, "", Blackhole} {
		r := &c.Routes[2]
		r.Type, r.Gateway = typ, netip.Addr{}
		if typ == "" {
			r.Gateway = netip.MustParseAddr("10.0.0.1")
		}
		require.NoError(t, m.Apply(c))
		out, err := exec.Command("ip", "route", "get", "203.0.113.9").CombinedOutput()
		assert.Equal(t, typ == "", err == nil, "%s: %s", typ, out)
		assert.Contains(t, string(out), says[typ])
		waiting, err := m.Waiting()
		require.NoError(t, err)
		assert.Empty(t, waiting.Routes, typ)
		assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(c)) }), typ)
	}
	c.Routes = c.Routes[:2]
	require.NoError(t, m.Apply(c))
	looks(t, routerShown)
}
