package netcfg

import (
	"bytes"
	"encoding/binary"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
)

// bridged is the router with its second port in a bridge, which has the addresses.
func bridged() Config {
	c := router()
	c.Bridges = []Bridge{{Name: "bridge1"}}
	c.BridgePorts = []BridgePort{{Bridge: "bridge1", Interface: "ether2"}}
	c.Addresses[1].Interface = "bridge1"
	return c
}

// The bridge has the longest name, so it is shown last.
const bridgedShown = `
	link lo up mtu 65536
	link ether1 up mtu 1492
	link ether2 up mtu 1500
	link bridge1 up mtu 1500
	addr lo inet 127.0.0.1/8 scope host lo
	addr ether1 inet 10.0.0.2/24 brd 10.0.0.255 scope global ether1
	addr bridge1 inet 192.168.0.1/24 brd 192.168.0.255 scope global bridge1
	route default via 10.0.0.1 dev ether1 proto static metric 1
	route 10.0.0.0/24 dev ether1 proto kernel scope link src 10.0.0.2
	route 172.16.0.0/12 via 192.168.0.9 dev bridge1 proto static metric 5
	route 192.168.0.0/24 dev bridge1 proto kernel scope link src 192.168.0.1
	forwarding true`

// masters returns the ports of bridges, as ip(8) prints them: "port-bridge ".
func masters(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, line := range strings.Split(ip(t, "-o link"), "\n") {
		f := strings.Fields(line)
		for i, word := range f {
			if word == "master" {
				name, _, _ := strings.Cut(strings.TrimSuffix(f[1], ":"), "@")
				b.WriteString(name + "-" + f[i+1] + " ")
			}
		}
	}
	return b.String()
}

func TestBridge(t *testing.T) {
	for _, test := range []struct {
		name    string
		edit    func(*Config)
		want    string
		masters string
	}{
		{"the same again", func(*Config) {}, bridgedShown, "ether2-bridge1 "},
		{"the address of a port is the bridge's", func(c *Config) { c.Addresses[1].Interface = "ether2" }, bridgedShown, "ether2-bridge1 "},
		{"no bridge", func(c *Config) { *c = router() }, routerShown, ""},
		{"a port less", func(c *Config) { c.BridgePorts = nil }, bridgedShown, ""},
		{"a port disabled", func(c *Config) { c.BridgePorts[0].Disabled = true }, bridgedShown, ""},
		{"another MTU", func(c *Config) { c.Bridges[0].MTU = 1300 },
			strings.Replace(bridgedShown, "link bridge1 up mtu 1500", "link bridge1 up mtu 1300", 1), "ether2-bridge1 "},
		{"the MTU of its ports", func(c *Config) { c.Links = append(c.Links, Link{Name: "ether2", MTU: 1400}) },
			strings.NewReplacer("ether2 up mtu 1500", "ether2 up mtu 1400", "bridge1 up mtu 1500", "bridge1 up mtu 1400").Replace(bridgedShown), "ether2-bridge1 "},
		{"both ports", func(c *Config) {
			c.BridgePorts = append(c.BridgePorts, BridgePort{Bridge: "bridge1", Interface: "ether1"})
			c.Addresses, c.Routes = c.Addresses[1:], c.Routes[1:]
		}, `
			link lo up mtu 65536
			link ether1 up mtu 1492
			link ether2 up mtu 1500
			link bridge1 up mtu 1492
			addr lo inet 127.0.0.1/8 scope host lo
			addr bridge1 inet 192.168.0.1/24 brd 192.168.0.255 scope global bridge1
			route 172.16.0.0/12 via 192.168.0.9 dev bridge1 proto static metric 5
			route 192.168.0.0/24 dev bridge1 proto kernel scope link src 192.168.0.1
			forwarding true`, "ether1-bridge1 ether2-bridge1 "},
		{"disabled", func(c *Config) { c.Bridges[0].Disabled = true }, `
			link lo up mtu 65536
			link ether1 up mtu 1492
			link ether2 up mtu 1500
			link bridge1 down mtu 1500
			addr lo inet 127.0.0.1/8 scope host lo
			addr ether1 inet 10.0.0.2/24 brd 10.0.0.255 scope global ether1
			addr bridge1 inet 192.168.0.1/24 brd 192.168.0.255 scope global bridge1
			route default via 10.0.0.1 dev ether1 proto static metric 1
			route 10.0.0.0/24 dev ether1 proto kernel scope link src 10.0.0.2
			forwarding true`, "ether2-bridge1 "},
		{"another name", func(c *Config) {
			c.Bridges[0].Name, c.BridgePorts[0].Bridge, c.Addresses[1].Interface = "lan", "lan", "lan"
		}, `
			link lo up mtu 65536
			link lan up mtu 1500
			link ether1 up mtu 1492
			link ether2 up mtu 1500
			addr lo inet 127.0.0.1/8 scope host lo
			addr lan inet 192.168.0.1/24 brd 192.168.0.255 scope global lan
			addr ether1 inet 10.0.0.2/24 brd 10.0.0.255 scope global ether1
			route default via 10.0.0.1 dev ether1 proto static metric 1
			route 10.0.0.0/24 dev ether1 proto kernel scope link src 10.0.0.2
			route 172.16.0.0/12 via 192.168.0.9 dev lan proto static metric 5
			route 192.168.0.0/24 dev lan proto kernel scope link src 192.168.0.1
			forwarding true`, "ether2-lan "},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := bridged()
			test.edit(&c)

			lab(t, "k0", "k1")
			m := newManager(t, twoPorts...)
			require.NoError(t, m.Apply(bridged()))
			looks(t, bridgedShown)
			require.NoError(t, m.Apply(c))
			// A bridge without ports loses its carrier, but not at once.
			now := func() string { return withoutCarrier(shown(t)) }
			assert.Equal(t, golden(test.want), now(), "after the bridge")
			assert.Equal(t, test.masters, masters(t))
			assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(c)) }), "the same Manager")
			again := newManager(t, twoPorts...)
			assert.Empty(t, monitored(t, func() { require.NoError(t, again.Apply(c)) }), "a Manager of the next process")
			require.NoError(t, again.Apply(Config{}))
			assert.NotContains(t, shown(t), "bridge1", "the next process knows what it owns")

			lab(t, "k0", "k1")
			require.NoError(t, newManager(t, twoPorts...).Apply(c))
			assert.Equal(t, golden(test.want), now(), "after boot")
		})
	}
}

func TestBridgeSpanningTree(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	c := bridged()
	for _, on := range []bool{true, false, true} {
		c.Bridges = []Bridge{{Name: "bridge1", STP: on}}
		require.NoError(t, m.Apply(c))
		want := " stp_state 0 "
		if on {
			want = " stp_state 1 "
		}
		assert.Contains(t, ip(t, "-d link show bridge1"), want)
		assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(c)) }))
	}
}

// The bridges of others are left alone, and their names are not taken.
func TestForeignBridge(t *testing.T) {
	lab(t, "k0", "k1")
	ip(t, "link add theirs type bridge")
	ip(t, "link set theirs mtu 1400 up")
	m := newManager(t, twoPorts...)
	require.NoError(t, m.Apply(bridged()))
	before := withoutCarrier(shown(t))
	assert.Contains(t, before, "link theirs up mtu 1400\n")
	c := bridged()
	c.Bridges = append(c.Bridges, Bridge{Name: "theirs"})
	require.ErrorIs(t, m.Apply(c), unix.EEXIST)
	looks(t, before)
	require.NoError(t, m.Apply(Config{}))
	assert.Contains(t, shown(t), "link theirs up mtu 1400\n")
	assert.NotContains(t, shown(t), "bridge1")
}

func TestRefusedLeavesBridges(t *testing.T) {
	broadcast := by("10.6.0.0/24", "10.0.0.255", 1)
	for _, test := range []struct {
		name          string
		before, after Config
		shown         string
	}{
		{"made", router(), bridged(), routerShown},
		{"deleted", bridged(), router(), bridgedShown},
	} {
		t.Run(test.name, func(t *testing.T) {
			lab(t, "k0", "k1")
			m := newManager(t, twoPorts...)
			require.NoError(t, m.Apply(test.before))
			was := masters(t)
			test.after.Routes = append(test.after.Routes, broadcast)
			require.ErrorContains(t, m.Apply(test.after), "add route 10.6.0.0/24 by 10.0.0.255")
			looks(t, test.shown)
			assert.Equal(t, was, masters(t))
		})
	}
}

func TestRunRepairsBridges(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(t *testing.T)
	}{
		{"deleted", func(t *testing.T) { ip(t, "link del bridge1") }},
		{"set down", func(t *testing.T) { ip(t, "link set bridge1 down") }},
		{"renamed", func(t *testing.T) {
			ip(t, "link set bridge1 down")
			ip(t, "link set bridge1 name mine")
		}},
		{"another MTU", func(t *testing.T) { ip(t, "link set bridge1 mtu 1000") }},
		{"its port taken out", func(t *testing.T) { ip(t, "link set ether2 nomaster") }},
		{"its port gone and back", func(t *testing.T) {
			ip(t, "link del ether2")
			plug(t, "k1")
		}},
		{"a port put into someone else's", func(t *testing.T) {
			ip(t, "link add name zz type bridge")
			ip(t, "link set ether1 master zz")
			becomes(t, strings.Replace(bridgedShown, "\tlink ether1", "\tlink zz down mtu 1500\n\tlink ether1", 1))
			ip(t, "link del zz")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			lab(t, "k0", "k1")
			m := newManager(t, twoPorts...)
			running(t, m)
			require.NoError(t, m.Apply(bridged()))
			test.damage(t)
			becomes(t, bridgedShown)
			require.Eventually(t, func() bool { return masters(t) == "ether2-bridge1 " }, patience, 50*time.Millisecond)
		})
	}
}

// A frame that comes in by one port of a bridge leaves by the other.
func TestBridgePasses(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	c := Config{Bridges: []Bridge{{Name: "bridge1"}}}
	for _, p := range []string{"ether1", "ether2"} {
		c.BridgePorts = append(c.BridgePorts, BridgePort{Bridge: "bridge1", Interface: p})
	}
	require.NoError(t, m.Apply(c))
	var states []LinkState
	require.Eventually(t, func() bool { // until it has its carrier
		var err error
		states, err = m.State()
		require.NoError(t, err)
		require.Len(t, states, 3)
		return states[2].Running
	}, patience, 20*time.Millisecond)
	assert.Equal(t, []string{"bridge1", "bridge1", ""}, []string{states[0].Bridge, states[1].Bridge, states[2].Bridge})
	bridge := states[2]
	assert.Equal(t, "bridge1", bridge.Name)
	assert.Equal(t, BridgeType, bridge.Type)
	assert.True(t, bridge.Present && bridge.Up && bridge.Running)
	assert.NotEqual(t, ether.MAC{}, bridge.MAC)

	// An EtherType for experiments (IEEE 802).
	frame := append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, 0x42, 0x88, 0xb5, 'x')
	from, to := packetSocket(t, "x-k0"), packetSocket(t, "x-k1")
	require.Eventually(t, func() bool {
		_, err := unix.Write(from, frame)
		require.NoError(t, err)
		buf := make([]byte, 2000)
		n, err := unix.Read(to, buf)
		return err == nil && bytes.Equal(buf[:n], frame)
	}, patience, 50*time.Millisecond)
}

// packetSocket sends and receives whole frames on a link.
func packetSocket(t *testing.T, name string) int {
	t.Helper()
	link, err := net.InterfaceByName(name)
	require.NoError(t, err)
	protocol := binary.NativeEndian.Uint16([]byte{0x88, 0xb5})
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK, int(protocol))
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(s) })
	require.NoError(t, unix.Bind(s, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index}))
	return s
}

// Not every kernel has VLANs. Without them Apply says so and undoes what it has done. The
// end-to-end tests run on a kernel that has them.
func TestVLAN(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	require.NoError(t, m.Apply(bridged()))
	c := bridged()
	c.VLANs = []VLAN{{Name: "vlan10", Interface: "bridge1", ID: 10}, {Name: "guests", Interface: "ether1", ID: 20, MTU: 1400},
		{Name: "off", Interface: "ether1", ID: 30, Disabled: true}}
	c.Addresses = append(c.Addresses, address("192.168.10.1/24", "vlan10"))
	err := m.Apply(c)
	if exec.Command("ip", "link", "add", "link", "x-k0", "name", "probe", "type", "vlan", "id", "1").Run() != nil {
		require.ErrorIs(t, err, unix.EOPNOTSUPP)
		assert.ErrorContains(t, err, "make vlan vlan10: ")
		looks(t, bridgedShown)
		return
	}
	ip(t, "link del probe")
	require.NoError(t, err)
	assert.Contains(t, shown(t), "link vlan10 up mtu 1500\n")
	assert.Contains(t, shown(t), "link guests up mtu 1400\n")
	assert.NotContains(t, shown(t), "link off")
	assert.Contains(t, ip(t, "-d link show guests"), "802.1Q id 20 ")
	assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(c)) }))
	c.VLANs[1].ID = 21
	c.Links = append(c.Links, Link{Name: "ether2", MTU: 1300})
	require.NoError(t, m.Apply(c))
	assert.Contains(t, ip(t, "-d link show guests"), "802.1Q id 21 ")
	assert.Contains(t, shown(t), "link vlan10 up mtu 1300\n")
	c.Bridges[0].Disabled = true
	require.NoError(t, m.Apply(c))
	assert.Contains(t, shown(t), "link vlan10 down mtu 1300\n")
	require.NoError(t, m.Apply(router()))
	looks(t, routerShown)
}

// What is wanted depends only on the Config and on the ports that are there, so this tests
// VLANs on any kernel.
func TestWantMade(t *testing.T) {
	ports := []link{{name: "ether1", up: true, mtu: 1492}, {name: "ether2", mtu: 1500}}
	c := Config{
		Bridges:     []Bridge{{Name: "b1"}, {Name: "b2", Disabled: true, MTU: 1450, STP: true}, {Name: "b3"}},
		BridgePorts: []BridgePort{{Bridge: "b1", Interface: "v1"}, {Bridge: "b3", Interface: "v2"}},
		VLANs: []VLAN{{Name: "v1", Interface: "ether1", ID: 1}, {Name: "v2", Interface: "b1", ID: 2},
			{Name: "v3", Interface: "b2", ID: 3, MTU: 100}, {Name: "v4", Interface: "usb1", ID: 4}, {Name: "v5", Interface: "ether2", ID: 5},
			{Name: "v6", Interface: "ether2", ID: 6, Disabled: true}},
	}
	require.NoError(t, c.Validate([]Port{{"ether1", "a"}, {"ether2", "b"}, {"usb1", "c"}}))
	assert.Equal(t, []link{
		ports[0], ports[1],
		{name: "b1", kind: "bridge", own: true, up: true, mtu: 1492},
		{name: "b2", kind: "bridge", own: true, mtu: 1450, stp: true},
		{name: "b3", kind: "bridge", own: true, up: true, mtu: 1492},
		{name: "v1", kind: "vlan", own: true, up: true, mtu: 1492, parent: "ether1", vlanID: 1, master: "b1"},
		{name: "v2", kind: "vlan", own: true, up: true, mtu: 1492, parent: "b1", vlanID: 2, master: "b3"},
		{name: "v3", kind: "vlan", own: true, mtu: 100, parent: "b2", vlanID: 3},
		{name: "v5", kind: "vlan", own: true, mtu: 1500, parent: "ether2", vlanID: 5},
	}, c.wantBridgesAndVLANs(ports))
}

// The hardware address of a bridge is the lowest of its ports', whose own may follow from others.
func TestWantMAC(t *testing.T) {
	ports := []link{{name: "ether1", mac: ether.MAC{2, 0, 0, 0, 0, 9}}, {name: "ether2", mac: ether.MAC{2, 0, 0, 0, 0, 8}}, {name: "usb1"}}
	c := Config{
		Bridges: []Bridge{{Name: "b1"}, {Name: "b2"}, {Name: "b3", OwnMAC: true, MAC: ether.MAC{2, 0, 0, 0, 0, 1}}, {Name: "b4"}, {Name: "b5"}, {Name: "b6", MAC: ether.MAC{2}}},
		VLANs:   []VLAN{{Name: "v1", Interface: "ether1", ID: 1}, {Name: "v2", Interface: "b2", ID: 2}, {Name: "v3", Interface: "b3", ID: 3}},
		BridgePorts: []BridgePort{{Bridge: "b1", Interface: "v2"}, {Bridge: "b2", Interface: "ether2"}, {Bridge: "b2", Interface: "v1"},
			{Bridge: "b4", Interface: "v3"}, {Bridge: "b5", Interface: "usb1"}},
	}
	wanted := map[string]byte{}
	for _, l := range c.wantBridgesAndVLANs(ports) {
		wanted[l.name] = l.mac[5]
	}
	assert.Equal(t, map[string]byte{"ether1": 9, "ether2": 8, "usb1": 0, "b1": 8, "b2": 8, "b3": 1, "b4": 1, "b5": 0, "b6": 0,
		"v1": 0, "v2": 0, "v3": 0}, wanted, "that of a VLAN is the kernel's doing")
}

func TestValidateMade(t *testing.T) {
	base := func() Config {
		return Config{
			Bridges:     []Bridge{{Name: "b1"}, {Name: "b2"}},
			BridgePorts: []BridgePort{{Bridge: "b1", Interface: "ether2"}},
			VLANs:       []VLAN{{Name: "v1", Interface: "ether1", ID: 1}, {Name: "v2", Interface: "b1", ID: 4094}},
			Addresses:   []Address{address("10.0.0.1/24", "b1"), address("10.0.1.1/24", "v2")},
		}
	}
	require.NoError(t, base().Validate(twoPorts))
	for _, test := range []struct {
		err  string
		edit func(*Config)
	}{
		{"bridge: name=ether1: expected a name of its own, a port has this one", func(c *Config) { c.Bridges[1].Name = "ether1" }},
		{"vlan: name=b1: expected a name of its own, a bridge has this one", func(c *Config) { c.VLANs[0].Name = "b1" }},
		{"vlan: name=v2: expected a name of its own, a vlan has this one", func(c *Config) { c.VLANs[0].Name = "v2" }},
		{`bridge: name="sixteen-letters-": expected an interface name of 1..15 bytes`, func(c *Config) { c.Bridges[1].Name = "sixteen-letters-" }},
		{`vlan: name="lo": expected an interface name of 1..15 bytes`, func(c *Config) { c.VLANs[0].Name = "lo" }},
		{"bridge b2: mtu=67: expected 68..65535, or 0 for the smallest of its ports'", func(c *Config) { c.Bridges[1].MTU = 67 }},
		{"bridge port ether2: bridge=v1: expected a bridge", func(c *Config) { c.BridgePorts[0].Bridge = "v1" }},
		{"bridge port: interface=b2: expected a port or a VLAN", func(c *Config) { c.BridgePorts[0].Interface = "b2" }},
		{"bridge port: interface=ether2: expected each interface once, it is a port of b1 already", func(c *Config) {
			c.BridgePorts = append(c.BridgePorts, BridgePort{Bridge: "b2", Interface: "ether2"})
		}},
		{"bridge port: interface=v2: this VLAN of b1 would make a loop", func(c *Config) { c.BridgePorts[0].Interface = "v2" }},
		{"bridge port: interface=v3: this VLAN of b1 would make a loop", func(c *Config) {
			c.VLANs = append(c.VLANs, VLAN{Name: "v3", Interface: "b2", ID: 1})
			c.VLANs[1].Interface = "b1"
			c.BridgePorts = []BridgePort{{Bridge: "b2", Interface: "v2"}, {Bridge: "b1", Interface: "v3"}}
			c.VLANs[1].Interface, c.VLANs[2].Interface = "b1", "b1"
		}},
		{"VLAN v1: interface=v2: expected a port or a bridge", func(c *Config) { c.VLANs[0].Interface = "v2" }},
		{"VLAN v1: interface=ether2: expected no port of a bridge, it is one of b1", func(c *Config) { c.VLANs[0].Interface = "ether2" }},
		{"VLAN v1: vlan-id=0: expected 1..4094", func(c *Config) { c.VLANs[0].ID = 0 }},
		{"VLAN v2: vlan-id=4095: expected 1..4094", func(c *Config) { c.VLANs[1].ID = 4095 }},
		{"VLAN v1: mtu=70000: expected 68..65535, or 0 for that of its interface", func(c *Config) { c.VLANs[0].MTU = 70000 }},
		{"VLAN v1: mtu=1401: expected no more than 1400, the MTU of ether1", func(c *Config) {
			c.Links = []Link{{Name: "ether1", MTU: 1400}}
			c.VLANs[0].MTU = 1401
		}},
		{"VLAN v3: vlan-id=1: expected each once on ether1, v1 has this one", func(c *Config) {
			c.VLANs = append(c.VLANs, VLAN{Name: "v3", Interface: "ether1", ID: 1})
		}},
		{"address 10.0.1.1/24: interface=v2: expected an interface (ether1, ether2, b1, b2, v1)", func(c *Config) { c.VLANs = c.VLANs[:1] }},
		{"address: address=10.0.0.1/24: expected each address once, b1 has 10.0.0.1/24 already", func(c *Config) {
			c.Addresses = append([]Address{address("10.0.0.1/24", "ether2")}, c.Addresses...)
		}},
		{"bridge b1: admin-mac=01:00:00:00:00:01: expected the address of one host, not of a group", func(c *Config) {
			c.Bridges[0].MAC = ether.MAC{1, 0, 0, 0, 0, 1}
		}},
		{"bridge b1: auto-mac=no: expected admin-mac=", func(c *Config) { c.Bridges[0].OwnMAC = true }},
		{"link ether1: mac-address=01:00:00:00:00:01: expected the address of one host, not of a group", func(c *Config) {
			c.Links = []Link{{Name: "ether1", MAC: ether.MAC{1, 0, 0, 0, 0, 1}}}
		}},
	} {
		t.Run(test.err, func(t *testing.T) {
			c := base()
			test.edit(&c)
			require.EqualError(t, c.Validate(twoPorts), test.err)
		})
	}
	t.Run("a loop through two bridges", func(t *testing.T) {
		c := Config{
			Bridges:     []Bridge{{Name: "b1"}, {Name: "b2"}, {Name: "b3"}},
			VLANs:       []VLAN{{Name: "v1", Interface: "b1", ID: 1}, {Name: "v2", Interface: "b2", ID: 1}},
			BridgePorts: []BridgePort{{Bridge: "b2", Interface: "v1"}, {Bridge: "b3", Interface: "v2"}},
		}
		require.NoError(t, c.Validate(nil))
		c.BridgePorts[1].Bridge = "b1"
		require.EqualError(t, c.Validate(nil), "bridge port: interface=v1: this VLAN of b1 would make a loop")
		c.VLANs[0].Disabled = true
		require.NoError(t, c.Validate(nil))
	})
}

// A hardware address is set, put back when others change it, and taken back.
// A bridge has the lowest address of its ports, or the one that it is given.
func TestBridgeMAC(t *testing.T) {
	lab(t, "k0", "k1")
	ip(t, "link set k0 address 02:00:00:00:00:05")
	ip(t, "link set k1 address 02:00:00:00:00:07")
	m := newManager(t, twoPorts...)
	running(t, m)
	has := func(mac string) {
		t.Helper()
		assert.Eventually(t, func() bool { return strings.Contains(ip(t, "-o link show bridge1"), "link/ether "+mac+" ") }, patience, 50*time.Millisecond, mac)
	}
	c := Config{
		Bridges:     []Bridge{{Name: "bridge1"}},
		BridgePorts: []BridgePort{{Bridge: "bridge1", Interface: "ether2"}, {Bridge: "bridge1", Interface: "ether1"}},
	}
	apply := func(edit func()) {
		t.Helper()
		edit()
		require.NoError(t, m.Apply(c))
		assert.Empty(t, monitored(t, func() { require.NoError(t, newManager(t, twoPorts...).Apply(c)) }), "a Manager of the next process")
	}
	apply(func() {})
	has("02:00:00:00:00:05")
	apply(func() { c.Bridges[0].MAC = ether.MAC{2, 0, 0, 0, 0, 0x99} })
	has("02:00:00:00:00:05")
	apply(func() { c.Bridges[0].OwnMAC = true })
	has("02:00:00:00:00:99")
	ip(t, "link set bridge1 address 02:00:00:00:00:55")
	has("02:00:00:00:00:99")
	bad := c
	bad.Bridges = []Bridge{{Name: "bridge1", OwnMAC: true, MAC: ether.MAC{2, 0, 0, 0, 0, 0x77}}}
	bad.Addresses = []Address{address("10.0.0.1/24", "bridge1")}
	bad.Routes = []Route{by("10.6.0.0/24", "10.0.0.255", 1)}
	require.Error(t, m.Apply(bad))
	has("02:00:00:00:00:99") // undone
	// Back to the ports', also of those that have changed meanwhile.
	apply(func() { c.Bridges[0].OwnMAC = false })
	has("02:00:00:00:00:05")
	apply(func() { c.Links = []Link{{Name: "ether2", MAC: ether.MAC{2, 0, 0, 0, 0, 1}}} })
	has("02:00:00:00:00:01")
	apply(func() { c.BridgePorts[0].Disabled = true })
	has("02:00:00:00:00:05")
}

func TestMAC(t *testing.T) {
	lab(t, "k0", "k1")
	ip(t, "link set k0 address 02:00:00:00:00:01")
	m := newManager(t, twoPorts...)
	running(t, m)
	require.NoError(t, m.Apply(router()))
	c := router()
	c.Links[0].MAC = ether.MAC{2, 0, 0, 0, 0, 0x99}
	for range 2 {
		require.NoError(t, m.Apply(c))
		assert.Contains(t, ip(t, "-o link show ether1"), "link/ether 02:00:00:00:00:99 ")
		looks(t, routerShown)
		c.Links = []Link{{Name: "ether1", MTU: 1492, MAC: c.Links[0].MAC}}
		require.NoError(t, m.Apply(router()))
		assert.Contains(t, ip(t, "-o link show ether1"), "link/ether 02:00:00:00:00:01 ")
		looks(t, routerShown)
	}
	require.NoError(t, m.Apply(c))
	ip(t, "link set ether1 address 02:00:00:00:00:55")
	require.Eventually(t, func() bool {
		return strings.Contains(ip(t, "-o link show ether1"), "link/ether 02:00:00:00:00:99 ")
	}, patience, 50*time.Millisecond)
	c.Routes = append(c.Routes, by("10.6.0.0/24", "10.0.0.255", 1))
	c.Links[0].MAC[5] = 0x77
	require.Error(t, m.Apply(c))
	assert.Contains(t, ip(t, "-o link show ether1"), "link/ether 02:00:00:00:00:99 ", "undone")
	require.NoError(t, m.Apply(router()))
	assert.Contains(t, ip(t, "-o link show ether1"), "link/ether 02:00:00:00:00:01 ")
}
