package router

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
)

// everything changes each part of the system.
const everything = "/system identity set name=new; /system clock manual set time-zone=+05:30; /ip address add address=10.0.0.1/8 interface=ether1; " +
	"/ip firewall filter add chain=forward action=drop; /ip socks set port=1081 version=5 auth-method=password; " +
	"/ip socks users add name=alice password=secret"

// has reports the parts of the system by what they have: the old or the new configuration.
func (g *rig) has(new bool) {
	g.Helper()
	n, name, zone := 0, "postern", time.Duration(0)
	if new {
		n, name, zone = 1, "new", 5*time.Hour+30*time.Minute
	}
	assert.Len(g, g.firewall.config.Filter, n, "firewall")
	assert.Len(g, g.network.config.Addresses, n, "network")
	assert.Equal(g, name, g.machine.name, "names")
	assert.Equal(g, zone, g.machine.zone, "time zone")
	assert.Len(g, g.second.config.Socks.Users, n, "users of SOCKS")
	assert.Equal(g, 4+n, g.second.config.Socks.Version, "version of SOCKS")
	assert.Equal(g, name, g.first.config.Identity, "first service")
	assert.Equal(g, name, g.second.config.Identity, "second service")
	assert.Equal(g, name, g.r.snapshot().config.Identity, "configuration")
}

// Whatever part refuses a change, the others go back, the last first, and nothing is kept.
func TestApplyAndUndo(t *testing.T) {
	parts := []string{"firewall", "network", "names", "first", "second"}
	for i, part := range parts {
		t.Run(part, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := started(t)
				g.fail(part, errFake)
				_, err := g.run(&session.Session{}, everything)
				require.ErrorIs(t, err, errFake)
				g.has(false)
				assert.Empty(t, g.kept)
				var want []string
				want = append(want, parts[:i+1]...)
				for j := i - 1; j >= 0; j-- {
					want = append(want, parts[j])
				}
				assert.Equal(t, want, g.calls())
				g.must(everything)
				g.has(true)
				assert.Equal(t, parts, g.calls())
			})
		})
		// Undo goes on behind one that fails. The next change is then made of all parts, though
		// most of them have, as far as is known, what they are to have.
		for j, stuck := range parts[:i] {
			t.Run(part+", and "+stuck+" does not go back", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g := started(t)
					g.fail(part, errFake)
					g.fail(stuck, nil, errors.New("stuck"))
					_, err := g.run(&session.Session{}, everything)
					require.ErrorIs(t, err, errFake)
					assert.Contains(t, g.log(), "system,error undo: stuck")
					assert.Len(t, g.calls(), 2*i+1, "all others go back")
					_ = j
					g.fail(parts[len(parts)-1], errFake)
					_, err = g.run(&session.Session{}, "/ip socks set port=1082")
					require.ErrorIs(t, err, errFake, "one more that fails does not make it sure")
					g.must("/ip socks set port=1082")
					g.has(false)
					g.calls()
					g.must("/ip socks set port=1083")
					assert.Equal(t, []string{"names", "first", "second"}, g.calls(), "now only what differs")
				})
			})
		}
	}
}

// A firewall that is neither the old nor the new one is brought back by the next change, whatever that is about.
func TestApplyUnsure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.fail("firewall", fmt.Errorf("refused: %w", firewall.ErrUnsure))
		_, err := g.run(&session.Session{}, everything)
		require.ErrorIs(t, err, firewall.ErrUnsure)
		g.calls()
		g.must("/system identity set name=other")
		assert.Contains(t, g.calls(), "firewall")
		g.must("/system identity set name=third")
		assert.NotContains(t, g.calls(), "firewall")
	})
}

// A configuration that the system refuses at the start leaves the router closed but for its
// LAN, with an address to be found at.
func TestStart(t *testing.T) {
	const (
		lan      = "/ip address add address=172.16.0.1/16 interface=ether2\n"
		wan      = "/ip address add address=10.0.0.1/8 interface=ether1\n"
		rescueAt = "forwarding is closed, the router is at "
	)
	for _, c := range []struct {
		name, defaults string
		fails          map[string][]error
		// addresses are what the network has then, config how many the user sees.
		addresses []string
		config    int
		closed    bool
		said      string
	}{
		{"all is well", lan + wan, nil, []string{"172.16.0.1/16", "10.0.0.1/8"}, 2, false, ""},
		{"the firewall refuses", lan + wan, map[string][]error{"firewall": {errFake}}, []string{"172.16.0.1/16"}, 2, true, rescueAt + "172.16.0.1"},
		{"a service refuses", wan, map[string][]error{"second": {errFake}}, []string{"192.168.0.1/24"}, 1, true, rescueAt + "192.168.0.1"},
		{"a line is wrong", lan + "/ip nothing\n", nil, []string{"172.16.0.1/16"}, 1, true, "default.rsc:2: "},
		{"an interface that is not there", "/ip address add address=10.0.0.1/8 interface=ether9\n", nil, []string{"192.168.0.1/24"}, 1, true, rescueAt + "192.168.0.1"},
		{"no firewall at all", lan, map[string][]error{"firewall": {errFake, errFake}}, []string{"172.16.0.1/16"}, 1, true, "rescue configuration: refused"},
		{"nothing at all", lan, map[string][]error{"firewall": {errFake, errFake}, "network": {errFake, errFake}}, nil, 1, true, "LAN: refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t)
				g.file("default.rsc", c.defaults)
				g.fails = c.fails
				if c.fails == nil {
					g.fails = map[string][]error{}
				}
				g.r.start()
				var addresses []string
				for _, a := range g.network.config.Addresses {
					addresses = append(addresses, a.Address.String())
				}
				assert.Equal(t, c.addresses, addresses)
				assert.Equal(t, !c.closed, g.network.config.Forwarding)
				assert.Len(t, g.r.snapshot().config.Addresses, c.config)
				assert.Contains(t, g.log(), c.said)
				if c.closed {
					require.Error(t, g.r.health())
				} else {
					require.NoError(t, g.r.health())
				}
				require.NoError(t, g.r.Alive(), "a reset would not help")
				// A person mends it.
				g.fails = map[string][]error{}
				g.must("/ip address remove [find interface!=ether2]; /ip firewall filter add chain=forward action=accept")
				assert.True(t, g.network.config.Forwarding)
				require.NoError(t, g.r.health())
			})
		})
	}
	t.Run("no file", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t)
			g.r.defaults += ".gone"
			g.r.start()
			assert.Contains(t, g.log(), "default.rsc.gone: no such file")
			assert.Contains(t, g.log(), "the router is at 192.168.0.1")
		})
	})
}

// What a version before kept and nobody can set any more is in force after the start all the
// same, and can be changed.
func TestKeptAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		g.onFlash("/ip address\nadd address=192.168.0.1/24 interface=ether2\nadd address=192.168.0.1/24 interface=ether1\n" +
			"add address=10.0.0.0/8 interface=ether1\n")
		g.r.start()
		require.NoError(t, g.r.health())
		assert.Len(t, g.network.config.Addresses, 3)
		assert.True(t, g.network.config.Forwarding)
		g.must("/system identity set name=x; /ip address comment 0 LAN")
		_, err := g.run(&session.Session{}, "/ip address add address=10.1.0.0/16 interface=ether1")
		require.EqualError(t, err, "/ip address 3: address=10.1.0.0/16: expected the address of a host, this is the address of the network itself")
		_, err = g.r.importLines(&session.Session{}, "/ip address\nremove 1\nadd address=192.168.0.1/16 interface=ether1\nadd address=192.168.0.1/8 interface=ether1\n", console.ImportArguments{})
		require.ErrorContains(t, err, "(line 4)")
		g.must("/ip address remove 1,2")
		_, err = g.run(&session.Session{}, "/ip address add address=192.168.0.1/24 interface=ether1")
		require.EqualError(t, err, "/ip address 1: address=192.168.0.1/24: expected each address on one interface, ether2 has 192.168.0.1/24 already")
	})
}

// While the firewall lacks lines nothing but a change of the firewall opens the router, and
// nothing is kept. The address of the rescue is a dynamic one, and goes with it.
func TestUnmended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		g.onFlash("/ip firewall filter\nadd chain=forward action=drop tls-host=x\nadd chain=forward action=drop\n" +
			"/ip address\nadd address=10.0.0.1/8 interface=ether1\n")
		g.r.start()
		assert.Contains(t, g.must("/ip address print"), "D 192.168.0.1/24")
		s := &session.Session{}
		out, err := g.run(s, "/system identity set name=x")
		require.NoError(t, err)
		assert.Equal(t, "warning: forwarding stays closed and changes are not kept until /ip firewall or /interface list is changed\n", out)
		assert.False(t, g.network.config.Forwarding)
		assert.Equal(t, "x", g.machine.name)
		assert.Empty(t, g.kept)
		require.EqualError(t, g.r.health(), "the configuration could not be applied, forwarding is closed")
		require.ErrorContains(t, g.r.safe(s, session.TakeSafeMode), "the rescue configuration is running")
		// With an address of its own the LAN needs no other.
		g.must("/ip address add address=172.16.0.1/16 interface=ether2")
		assert.NotContains(t, g.must("/ip address print"), "192.168.0.1")
		assert.Len(t, g.network.config.Addresses, 1)
		g.must("/ip address remove [find interface=ether2]")
		assert.Contains(t, g.must("/ip address print"), "D 192.168.0.1/24")

		out, err = g.run(s, "/ip firewall filter add chain=input action=accept")
		require.NoError(t, err)
		assert.Empty(t, out)
		assert.True(t, g.network.config.Forwarding)
		assert.NotContains(t, g.must("/ip address print"), "192.168.0.1")
		assert.Len(t, g.lastKept().Addresses, 1, "the rescue address is not kept")
		require.NoError(t, g.r.health())
	})
}

// A line that was not understood may be of an interface list, which rules go by. Who mends the
// list opens the router too.
func TestUnmendedList(t *testing.T) {
	for _, mend := range []string{"/interface list add name=WAN", "/interface list member add list=LAN interface=ether2"} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t)
			g.onFlash("/interface list\nadd name=LAN\nadd name=WAN nonsense=x\n/ip firewall filter\nadd chain=input action=drop in-interface-list=!LAN\n")
			g.r.start()
			assert.Contains(t, g.must("/system identity set name=x"), "forwarding stays closed")
			assert.False(t, g.network.config.Forwarding)
			assert.Empty(t, g.must(mend))
			assert.True(t, g.network.config.Forwarding)
			require.NoError(t, g.r.health())
		})
	}
}

func route(destination, gateway string, distance int) netcfg.Route {
	return netcfg.Route{Destination: netip.MustParsePrefix(destination), Gateway: netip.MustParseAddr(gateway), Distance: distance}
}

func address(prefix, on string) netcfg.Address {
	return netcfg.Address{Address: netip.MustParsePrefix(prefix), Interface: on}
}

func addrs(list ...string) (all []netip.Addr) {
	for _, a := range list {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

// What the user set comes first, then the layers by the names of their sources; what
// contradicts what comes before it has no effect.
func TestMerge(t *testing.T) {
	ports := []string{"ether1", "ether2"}
	user := console.Default()
	user.Bridges = []netcfg.Bridge{{Name: "bridge1"}}
	user.BridgePorts = []netcfg.BridgePort{{Bridge: "bridge1", Interface: "ether2"}}
	user.Addresses = []netcfg.Address{address("192.168.0.1/24", "bridge1"), {Address: netip.MustParsePrefix("10.0.0.5/8"), Interface: "ether1", Disabled: true}}
	user.Routes = []netcfg.Route{route("0.0.0.0/0", "10.0.0.254", 1)}
	user.DNS, user.NTP.Servers = addrs("9.9.9.9"), []string{"ntp.example"}
	for _, c := range []struct {
		name   string
		layers layers
		want   Layer
	}{
		{"none", nil, Layer{}},
		{"all", layers{"dhcp": {[]netcfg.Address{address("10.0.0.2/8", "ether1")}, []netcfg.Route{route("0.0.0.0/0", "10.0.0.1", 2)},
			addrs("10.0.0.1"), []string{"10.0.0.1"}, nil}},
			Layer{[]netcfg.Address{address("10.0.0.2/8", "ether1")}, []netcfg.Route{route("0.0.0.0/0", "10.0.0.1", 2)}, addrs("10.0.0.1"), []string{"10.0.0.1"}, nil}},
		{"what the user has", layers{"dhcp": {[]netcfg.Address{address("192.168.0.1/16", "ether2")}, []netcfg.Route{route("0.0.0.0/0", "10.0.0.1", 1)},
			addrs("9.9.9.9"), []string{"ntp.example"}, nil}}, Layer{}},
		{"what the user has disabled", layers{"dhcp": {Addresses: []netcfg.Address{address("10.0.0.5/8", "ether1")}}},
			Layer{Addresses: []netcfg.Address{address("10.0.0.5/8", "ether1")}}},
		{"an interface that is not there", layers{"dhcp": {Addresses: []netcfg.Address{address("10.0.0.2/8", "vlan7")}}}, Layer{}},
		{"the user's gateway", layers{"dhcp": {Addresses: []netcfg.Address{address("10.0.0.254/8", "ether1")}}}, Layer{}},
		{"a gateway that is the router", layers{"a": {Routes: []netcfg.Route{route("172.16.0.0/12", "192.168.0.1", 1), route("172.16.0.0/12", "10.0.0.2", 2)}},
			"b": {Addresses: []netcfg.Address{address("10.0.0.2/8", "ether1")}}}, Layer{Addresses: []netcfg.Address{address("10.0.0.2/8", "ether1")}}},
		{"two sources", layers{
			"b": {[]netcfg.Address{address("10.0.0.2/8", "ether1")}, []netcfg.Route{route("0.0.0.0/0", "10.0.0.1", 2)}, addrs("1.1.1.1"), []string{"b"}, nil},
			"a": {[]netcfg.Address{address("10.0.0.2/16", "ether1")}, []netcfg.Route{route("0.0.0.0/0", "10.0.0.9", 2)}, addrs("1.1.1.1", "2.2.2.2"), []string{"a"}, nil}},
			Layer{[]netcfg.Address{address("10.0.0.2/16", "ether1")}, []netcfg.Route{route("0.0.0.0/0", "10.0.0.9", 2)}, addrs("1.1.1.1", "2.2.2.2"), []string{"a", "b"}, nil}},
		{"too many servers", layers{"a": {NameServers: addrs("1.0.0.1", "1.0.0.2", "1.0.0.3", "1.0.0.4", "1.0.0.5", "1.0.0.6", "1.0.0.7", "1.0.0.8"),
			TimeServers: []string{"a", "b", "c", "d"}}},
			Layer{NameServers: addrs("1.0.0.1", "1.0.0.2", "1.0.0.3", "1.0.0.4", "1.0.0.5", "1.0.0.6", "1.0.0.7"), TimeServers: []string{"a", "b", "c"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := user.Clone()
			assert.Equal(t, c.want, c.layers.effective(user, ports))
			merged := c.layers.merge(user, ports)
			assert.Equal(t, append(before.Clone().Addresses, c.want.Addresses...), merged.Addresses)
			assert.Equal(t, append(before.Clone().Routes, c.want.Routes...), merged.Routes)
			assert.Equal(t, append(before.Clone().DNS, c.want.NameServers...), merged.DNS)
			assert.Equal(t, append(before.Clone().NTP.Servers, c.want.TimeServers...), merged.NTP.Servers)
			assert.Equal(t, before, user, "what the user set stays as it is")
			network := merged.Network()
			require.NoError(t, network.Validate([]netcfg.Port{{Name: "ether1"}, {Name: "ether2"}}))
		})
	}
}

func TestSetLayer(t *testing.T) {
	lease := func() Layer {
		return Layer{[]netcfg.Address{address("10.0.0.2/8", "ether1")}, []netcfg.Route{route("0.0.0.0/0", "10.0.0.1", 1)}, addrs("10.0.0.1"), []string{"10.0.0.1"}, nil}
	}
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.network.wait = netcfg.Waiting{Addresses: []int{0}}
		l := lease()
		require.NoError(t, g.r.SetLayer("dhcp", l))
		l.NameServers[0] = netip.Addr{} // it is the caller's again
		// Everybody is told, and the console shows it as dynamic.
		assert.Equal(t, lease().Addresses, g.network.config.Addresses)
		assert.Equal(t, lease().Routes, g.network.config.Routes)
		assert.True(t, g.network.config.Forwarding)
		assert.Equal(t, addrs("10.0.0.1"), g.machine.servers)
		for _, s := range []*fakeService{g.first, g.second} {
			assert.Equal(t, lease().NameServers, s.config.DNS)
			assert.Equal(t, lease().TimeServers, s.config.NTP.Servers)
			assert.Equal(t, lease().Addresses, s.config.Addresses)
		}
		assert.Contains(t, g.must("/ip address print"), "0 D 10.0.0.2/8")
		assert.Contains(t, g.must("/ip route print"), "0 ADS  0.0.0.0/0")
		assert.Contains(t, g.must("/ip dns print"), "                      servers:\n              dynamic-servers: 10.0.0.1\n")
		assert.Equal(t, lease().TimeServers, g.r.system(g.r.snapshot()).DynamicNTP())
		assert.NotContains(t, g.must("/export"), "10.0.0.")
		assert.Empty(t, g.kept)
		// A user's change goes over it, and is kept without it.
		g.must("/ip address add address=192.168.0.1/24 interface=ether2")
		assert.Len(t, g.network.config.Addresses, 2)
		assert.Len(t, g.lastKept().Addresses, 1)
		// A gateway that cannot be reached.
		g.must("/ip route add dst-address=172.16.0.0/12 gateway=192.168.0.9")
		g.network.wait = netcfg.Waiting{Routes: []int{1}}
		assert.Regexp(t, ` 0 IDS  0\.0\.0\.0/0 .*\n 1 A S  172\.`, g.must("/ip route print"))
		g.network.wait = netcfg.Waiting{Routes: []int{0}}
		assert.Regexp(t, ` 0 ADS  0\.0\.0\.0/0 .*\n 1 I S  172\.`, g.must("/ip route print"))

		// One of the user's to the same destination, as far away, is taken, and both are shown. It may wait, too.
		g.network.wait = netcfg.Waiting{}
		g.must("/ip route add gateway=192.168.0.8")
		assert.Regexp(t, ` 0  DS  0\.0\.0\.0/0 +10\.0\.0\.1 .*\n 1 A S  172\..*\n 2 A S  0\.0\.0\.0/0 +192\.168\.0\.8 `, g.must("/ip route print"))
		g.network.wait = netcfg.Waiting{Routes: []int{1}}
		assert.Regexp(t, ` 0  DS  0\.0\.0\.0/0 .*\n 1 A S  172\..*\n 2 I S  0\.0\.0\.0/0 `, g.must("/ip route print"))
		// In another table it is none of these.
		g.must("/routing table add name=isp2; /ip route set [find dst-address=0.0.0.0/0 and !dynamic] routing-table=isp2")
		g.network.wait = netcfg.Waiting{}
		assert.Regexp(t, ` 0 ADS  0\.0\.0\.0/0 .*\n 1 A S  172\..*\n 2 A S  0\.0\.0\.0/0 `, g.must("/ip route print"))
		g.must("/ip route remove [find dst-address=0.0.0.0/0 and !dynamic]; /routing table remove isp2")

		// Another lease replaces it, in Safe Mode too; undo does not bring the old one back.
		s := &session.Session{}
		require.NoError(t, g.r.safe(s, session.TakeSafeMode))
		_, err := g.run(s, "/system identity set name=x")
		require.NoError(t, err)
		other := Layer{Addresses: []netcfg.Address{address("10.0.0.3/8", "ether1")}}
		require.NoError(t, g.r.SetLayer("dhcp", other))
		require.NoError(t, g.r.safe(s, session.UnrollSafeMode))
		assert.Equal(t, []netcfg.Address{address("192.168.0.1/24", "ether2"), other.Addresses[0]}, g.network.config.Addresses)
		assert.Equal(t, "postern", g.machine.name)

		// One that is refused leaves the one before.
		g.calls()
		g.fail("second", errFake)
		require.ErrorIs(t, g.r.SetLayer("dhcp", lease()), errFake)
		assert.Equal(t, other.Addresses, g.network.config.Addresses[1:])
		assert.Equal(t, []string{"network", "names", "first", "second", "first", "names", "network"}, g.calls())
		require.NoError(t, g.r.SetLayer("dhcp", Layer{}))
		assert.Len(t, g.network.config.Addresses, 1)
		assert.Empty(t, g.r.snapshot().layers)
		// What runs by the address ends when there is another one, and not when the same one comes back.
		assert.Equal(t, addrs("10.0.0.2"), g.first.left)
		require.NoError(t, g.r.SetLayer("dhcp", other))
		require.NoError(t, g.r.SetLayer("dhcp", other))
		assert.Equal(t, addrs("10.0.0.2"), g.first.left)
		require.NoError(t, g.r.SetLayer("dhcp", Layer{}))
		require.NoError(t, g.r.SetLayer("dhcp", lease()))
		assert.Equal(t, addrs("10.0.0.2", "10.0.0.3"), g.first.left)
	})
	t.Run("before the start", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t)
			require.NoError(t, g.r.SetLayer("dhcp", lease()))
			assert.Empty(t, g.calls(), "the rules come first")
			g.r.start()
			assert.Equal(t, lease().Addresses, g.network.config.Addresses)
			g.r.Shutdown()
			require.ErrorIs(t, g.r.SetLayer("dhcp", Layer{}), errStopped)
		})
	})
	t.Run("wrong", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := started(t)
			for want, l := range map[string]Layer{
				"layer dhcp: address: address=10.0.0.2/0: ":           {Addresses: []netcfg.Address{address("10.0.0.2/0", "ether1")}},
				"layer dhcp: route 0.0.0.0/0: distance=0: ":           {Routes: []netcfg.Route{route("0.0.0.0/0", "10.0.0.1", 0)}},
				"layer dhcp: name server ::1: expected an IPv4":       {NameServers: addrs("::1")},
				"layer dhcp: 65 items, expected at most 64 of a kind": {TimeServers: make([]string, 65)},
			} {
				require.ErrorContains(t, g.r.SetLayer("dhcp", l), want)
			}
			for i := range maxLayers {
				require.NoError(t, g.r.SetLayer(fmt.Sprint(i), Layer{TimeServers: []string{"x"}}))
			}
			require.EqualError(t, g.r.SetLayer("dhcp", lease()), "layer more than 16 sources")
			assert.Len(t, g.r.snapshot().layers, maxLayers)
		})
	})
}

// After the end nothing is changed any more: a line that waited runs never, and nothing of
// it reaches the system.
func TestShutdownIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.network.hangs = make(never)
		done := make(chan error, 3)
		go func() { _, err := g.run(&session.Session{}, everything); done <- err }()
		synctest.Wait() // it is being applied
		for _, line := range []string{"/system identity set name=queued", "/ip dns set servers=1.1.1.1"} {
			go func() { _, err := g.run(&session.Session{}, line); done <- err }()
		}
		synctest.Wait() // these wait for it
		ended := make(chan struct{})
		go func() { g.r.Shutdown(); close(ended) }()
		synctest.Wait()
		close(g.network.hangs)
		<-ended
		var errs []error
		for range 3 {
			errs = append(errs, <-done)
		}
		assert.Equal(t, []error{nil, errStopped, errStopped}, sorted(errs))
		calls := g.calls()
		assert.Equal(t, []string{"stop second", "stop first", "network", "lock"}, calls[len(calls)-4:])
		assert.False(t, g.network.config.Forwarding)
		assert.True(t, g.firewall.locked)
		for _, do := range []func() error{
			func() error { _, err := g.run(&session.Session{}, "/ip address print"); return err },
			func() error { return g.r.safe(&session.Session{}, session.TakeSafeMode) },
			func() error { return g.r.setPassword(&session.Session{}, "", "x") },
			func() error { return g.r.upgradeTo(t.Context(), console.UpgradeArguments{From: "/x"}, nil) },
		} {
			require.ErrorIs(t, do(), errStopped)
		}
		assert.Empty(t, g.calls())
	})
	t.Run("with a change that hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := started(t)
			g.fail("network", nil, errFake)
			g.fail("lock", errFake)
			g.firewall.config.Filter = []firewall.Rule{{}}
			g.r.changing <- struct{}{}
			start := time.Now()
			g.r.Shutdown()
			assert.Equal(t, shutdownWait, time.Since(start))
			assert.Contains(t, g.log(), "a change of the configuration has not ended within 20s")
			assert.Contains(t, g.log(), "system,warning refused by the test")
		})
	})
}

// sorted puts nil first.
func sorted(errs []error) []error {
	for i, err := range errs {
		if err == nil {
			errs[0], errs[i] = errs[i], errs[0]
		}
	}
	return errs
}
