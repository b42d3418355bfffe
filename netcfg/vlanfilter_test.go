package netcfg

import (
	"encoding/binary"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// office is a bridge with a trunk (ether1), a port in VLAN 20 and one in VLAN 30. The router is in
// VLAN 20 by a VLAN on the bridge, and in VLAN 1.
func office() Config {
	return Config{
		Bridges: []Bridge{{Name: "bridge1", VLANFiltering: true}},
		BridgePorts: []BridgePort{
			{Bridge: "bridge1", Interface: "ether1"},
			{Bridge: "bridge1", Interface: "ether2", VLANPort: VLANPort{PVID: 20, Admit: AdmitUntagged}},
			{Bridge: "bridge1", Interface: "ether3", VLANPort: VLANPort{PVID: 30}},
		},
		VLANs:       []VLAN{{Name: "v20", Interface: "bridge1", ID: 20}},
		BridgeVLANs: []BridgeVLAN{{Bridge: "bridge1", IDs: []VLANRange{{20, 20}, {30, 30}, {50, 59}}, Tagged: []string{"ether1"}}},
	}
}

var threePorts = []Port{{"ether1", "k0"}, {"ether2", "k1"}, {"ether3", "k2"}}

// filters reports whether the kernel of the machine filters VLANs. If not, Apply says so, and leaves
// everything as it was. The end-to-end tests run on a kernel that does.
func filters(t *testing.T) bool {
	t.Helper()
	lab(t, "k0", "k1", "k2")
	ip(t, "link add probe type bridge")
	defer ip(t, "link del probe")
	if exec.Command("ip", "link", "set", "probe", "type", "bridge", "vlan_filtering", "1").Run() == nil {
		return true
	}
	m := newManager(t, threePorts...)
	c := office()
	c.VLANs, c.Bridges[0].VLANFiltering = nil, false
	require.NoError(t, m.Apply(c))
	before := withoutCarrier(shown(t))
	c.BridgePorts, c.Bridges = c.BridgePorts[:2], []Bridge{{Name: "bridge1", VLANFiltering: true}}
	err := m.Apply(c)
	require.ErrorIs(t, err, errNoFiltering)
	assert.ErrorContains(t, err, "turn VLAN filtering of bridge1 on: the kernel of this machine cannot filter VLANs: ")
	assert.Equal(t, before, withoutCarrier(shown(t)))
	assert.Equal(t, "ether1-bridge1 ether2-bridge1 ether3-bridge1 ", masters(t))
	return false
}

// tap sends and receives whole frames on a link, with their tags.
type tap struct {
	socket, index int
	over          int // index of the other end of its cable, or 0
}

func tapOn(t *testing.T, name string) tap {
	t.Helper()
	link, err := net.InterfaceByName(name)
	require.NoError(t, err)
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK, int(all))
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(s) })
	require.NoError(t, unix.Bind(s, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}))
	require.NoError(t, unix.SetsockoptInt(s, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1))
	require.NoError(t, unix.SetsockoptInt(s, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	p := tap{socket: s, index: link.Index}
	if number, ok := strings.CutPrefix(name, "x-k"); ok {
		end, err := net.InterfaceByName("ether" + string(number[0]+1))
		require.NoError(t, err)
		p.over = end.Index
	}
	return p
}

const noTag = -1

// send sends a broadcast frame of the type for experiments (IEEE 802), with a mark and a tag.
func (p tap) send(mark byte, tag int) error { return p.sendBy(p.index, mark, tag) }

func (p tap) sendBy(link int, mark byte, tag int) error {
	frame := append(slices.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, byte(p.index), mark)
	if tag != noTag {
		frame = append(frame, 0x81, 0, byte(tag>>8), byte(tag))
	}
	frame = append(frame, 0x88, 0xb5, mark)
	frame = append(frame, make([]byte, 46)...)
	for {
		err := unix.Sendto(p.socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: link})
		if err != unix.EAGAIN { // the frames before this are still on their way
			return err
		}
		runtime.Gosched()
	}
}

// next returns the next frame of that type that came in, if there is one.
func (p tap) next(t *testing.T) (mark byte, tag int, ok bool) {
	t.Helper()
	frame, control := make([]byte, 2000), make([]byte, 100)
	for {
		n, controls, _, _, err := unix.Recvmsg(p.socket, frame, control, 0)
		if err == unix.EAGAIN {
			return 0, 0, false
		}
		require.NoError(t, err)
		if n < 15 || frame[12] != 0x88 || frame[13] != 0xb5 {
			continue
		}
		messages, err := unix.ParseSocketControlMessage(control[:controls])
		require.NoError(t, err)
		require.Len(t, messages, 1)
		// struct tpacket_auxdata (linux/if_packet.h): the kernel takes the tag off.
		data := messages[0].Data
		if binary.NativeEndian.Uint32(data)&unix.TP_STATUS_VLAN_VALID == 0 {
			return frame[14], noTag, true
		}
		return frame[14], int(binary.NativeEndian.Uint16(data[16:]) & 0xfff), true
	}
}

// spread returns where a frame goes, as "bridge1 v20 x-k0:20": with its tag, or none.
func spread(t *testing.T, ports map[string]tap, from string, tag int) string {
	t.Helper()
	const mark, end = 'm', 'e'
	// On one processor: see below.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var was, one unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &was))
	for i := range 1024 {
		if was.IsSet(i) {
			one.Set(i)
			break
		}
	}
	require.NoError(t, unix.SchedSetaffinity(0, &one))
	defer func() { require.NoError(t, unix.SchedSetaffinity(0, &was)) }()

	require.NoError(t, ports[from].send(mark, tag))
	// All packets of a processor are in one queue. When a frame that was put there has come out, so have
	// those before it, and what these became is in front of the next.
	var reached []string
	for range 2 {
		for _, p := range ports {
			if p.over != 0 {
				require.NoError(t, p.sendBy(p.over, end, noTag))
			}
		}
		for name, p := range ports {
			for ended := false; !ended; {
				require.Eventually(t, func() bool {
					got, tag, ok := p.next(t)
					switch {
					case !ok:
						ended = p.over == 0 // it has none of its own, and is told in the same moment as the ports
					case got == end:
						ended = true
					case got == mark && tag == noTag:
						reached = append(reached, name)
					case got == mark:
						reached = append(reached, fmt.Sprintf("%s:%d", name, tag))
					}
					return ok || ended
				}, patience, time.Millisecond)
			}
		}
	}
	slices.Sort(reached)
	return strings.Join(reached, " ")
}

// awaitCarrier waits until links can send.
func awaitCarrier(t *testing.T, links ...string) {
	t.Helper()
	for _, name := range links {
		require.Eventually(t, func() bool {
			return strings.Contains(ip(t, "link show "+name), "LOWER_UP") && !strings.Contains(ip(t, "link show "+name), "NO-CARRIER")
		},
			patience, 10*time.Millisecond)
	}
}

// bridgeVLANs returns the VLANs of a port as bridge(8) prints them, separated by commas.
func bridgeVLANs(t *testing.T, port string) string {
	t.Helper()
	out, err := exec.Command("bridge", "vlan", "show", "dev", port).CombinedOutput()
	require.NoError(t, err, "%s", out)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var all []string
	for _, line := range lines[1:] {
		all = append(all, strings.Join(strings.Fields(strings.TrimPrefix(line, port)), " "))
	}
	return strings.Join(all, ",")
}

func TestVLANFiltering(t *testing.T) {
	if !filters(t) {
		return
	}
	lab(t, "k0", "k1", "k2")
	m := newManager(t, threePorts...)
	c := office()
	require.NoError(t, m.Apply(c))
	awaitCarrier(t, "ether1", "ether2", "ether3", "bridge1", "v20")
	ports := map[string]tap{}
	for _, name := range []string{"x-k0", "x-k1", "x-k2", "bridge1", "v20"} {
		ports[name] = tapOn(t, name)
	}
	type frame struct {
		name, from string
		tag        int
		reaches    string
	}
	check := func(t *testing.T, frames ...frame) {
		for _, f := range frames {
			assert.Equal(t, f.reaches, spread(t, ports, f.from, f.tag), f.name)
		}
	}
	check(t,
		frame{"trunk, no tag", "x-k0", noTag, "bridge1"},
		frame{"trunk to an access port and the router", "x-k0", 20, "bridge1:20 v20 x-k1"},
		frame{"trunk to the other access port", "x-k0", 30, "x-k2"},
		frame{"trunk, a VLAN that nobody else is in", "x-k0", 55, ""},
		frame{"trunk, a VLAN that it is not in", "x-k0", 60, ""},
		frame{"trunk, an ID that is no VLAN", "x-k0", 4095, ""},
		frame{"access port", "x-k1", noTag, "bridge1:20 v20 x-k0:20"},
		frame{"access port, priority-tagged", "x-k1", 0, "bridge1:20 v20 x-k0:20"},
		frame{"access port, its own tag", "x-k1", 20, "bridge1:20 v20 x-k0:20"},
		frame{"access port, the tag of another VLAN", "x-k1", 30, ""},
		frame{"access port, the tag of the trunk's VLAN 1", "x-k1", 1, ""},
		frame{"the other access port", "x-k2", noTag, "x-k0:30"},
		frame{"the router's VLAN", "v20", noTag, "x-k0:20 x-k1"},
		frame{"the router, no tag", "bridge1", noTag, "x-k0"},
		frame{"the router, a tag that it has not", "bridge1", 30, ""},
	)
	assert.Equal(t, "1 PVID Egress Untagged,20,30,50,51,52,53,54,55,56,57,58,59", bridgeVLANs(t, "ether1"))
	assert.Equal(t, "20 PVID Egress Untagged", bridgeVLANs(t, "ether2"))
	assert.Equal(t, "1 PVID Egress Untagged,20", bridgeVLANs(t, "bridge1"))
	assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(c)) }), "the same again")
	members, err := m.VLANMembers()
	require.NoError(t, err)
	assert.Equal(t, []VLANMembers{
		{Bridge: "bridge1", IDs: VLANRange{1, 1}, Untagged: []string{"bridge1", "ether1"}},
		{Bridge: "bridge1", IDs: VLANRange{20, 20}, Tagged: []string{"bridge1", "ether1"}, Untagged: []string{"ether2"}},
		{Bridge: "bridge1", IDs: VLANRange{30, 30}, Tagged: []string{"ether1"}, Untagged: []string{"ether3"}},
		{Bridge: "bridge1", IDs: VLANRange{50, 59}, Tagged: []string{"ether1"}},
	}, members)

	t.Run("frames with a tag only", func(t *testing.T) {
		c := office()
		c.BridgePorts[0].Admit, c.Bridges[0].Admit = AdmitTagged, AdmitTagged
		require.NoError(t, m.Apply(c))
		check(t,
			frame{"no tag", "x-k0", noTag, ""},
			frame{"priority-tagged", "x-k0", 0, ""},
			frame{"a tag", "x-k0", 20, "bridge1:20 v20 x-k1"},
			frame{"the router, no tag", "bridge1", noTag, ""},
		)
	})
	t.Run("tagged and not, and PVID apart from both", func(t *testing.T) {
		c := office()
		c.BridgePorts[1].Admit = AdmitAll
		c.BridgeVLANs = []BridgeVLAN{
			{Bridge: "bridge1", IDs: []VLANRange{{20, 20}}, Tagged: []string{"ether2", "bridge1"}},
			{Bridge: "bridge1", IDs: []VLANRange{{30, 30}}, Untagged: []string{"ether2"}},
			{Bridge: "bridge1", IDs: []VLANRange{{40, 40}}, Tagged: []string{"ether1", "ether2"}, Disabled: true},
		}
		require.NoError(t, m.Apply(c))
		check(t,
			frame{"into its PVID", "x-k1", noTag, "bridge1:20 v20"},
			frame{"out of its PVID, tagged", "v20", noTag, "x-k1:20"},
			frame{"out of another without a tag", "x-k2", noTag, "x-k1"},
			frame{"a disabled item", "x-k0", 40, ""},
		)
	})
	t.Run("off and on", func(t *testing.T) {
		off := office()
		off.Bridges[0].VLANFiltering = false
		require.NoError(t, m.Apply(off))
		check(t, frame{"everywhere", "x-k1", noTag, "bridge1 x-k0 x-k2"}, frame{"with its tag", "x-k1", 30, "bridge1:30 x-k0:30 x-k2:30"})
		assert.Empty(t, bridgeVLANs(t, "ether1"))
		require.NoError(t, m.Apply(office()))
		check(t, frame{"again", "x-k1", noTag, "bridge1:20 v20 x-k0:20"}, frame{"not again", "x-k1", 30, ""})
	})
	t.Run("repair", func(t *testing.T) {
		require.NoError(t, m.Apply(office()))
		running(t, m)
		for _, damage := range []string{"bridge vlan add dev ether2 vid 30", "bridge vlan del dev ether1 vid 20", "bridge vlan add dev bridge1 vid 30 self",
			"ip link set bridge1 type bridge vlan_filtering 0", "ip link set ether2 nomaster"} {
			f := strings.Fields(damage)
			out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Eventually(t, func() bool {
				return bridgeVLANs(t, "ether1") == "1 PVID Egress Untagged,20,30,50,51,52,53,54,55,56,57,58,59" &&
					bridgeVLANs(t, "ether2") == "20 PVID Egress Untagged" && bridgeVLANs(t, "bridge1") == "1 PVID Egress Untagged,20" &&
					strings.Contains(ip(t, "-d link show bridge1"), " vlan_filtering 1 ")
			}, patience, 20*time.Millisecond, damage)
		}
	})
	t.Run("refused", func(t *testing.T) {
		require.NoError(t, m.Apply(office()))
		bad := office()
		bad.BridgePorts[1].PVID = 30
		bad.Bridges[0].VLANFiltering = false
		bad.Addresses = []Address{address("10.0.0.1/24", "bridge1")}
		bad.Routes = []Route{by("10.6.0.0/24", "10.0.0.255", 1)}
		require.ErrorContains(t, m.Apply(bad), "add route 10.6.0.0/24 by 10.0.0.255")
		assert.Equal(t, "20 PVID Egress Untagged", bridgeVLANs(t, "ether2"))
		assert.Contains(t, ip(t, "-d link show bridge1"), " vlan_filtering 1 ")
	})
	t.Run("all VLANs", func(t *testing.T) {
		c := office()
		c.BridgeVLANs[0].IDs = []VLANRange{{2, 4094}}
		require.NoError(t, m.Apply(c))
		assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(c)) }), "the same again")
		odd := office()
		odd.BridgeVLANs[0].IDs = nil
		for id := 3; id <= maxVLAN; id += 2 {
			odd.BridgeVLANs[0].IDs = append(odd.BridgeVLANs[0].IDs, VLANRange{id, id})
		}
		require.NoError(t, m.Apply(odd))
		assert.Empty(t, monitored(t, func() { require.NoError(t, m.Apply(odd)) }), "every other, again")
		check(t, frame{"one that is there", "x-k0", 4093, ""})
	})
	t.Run("gone", func(t *testing.T) {
		require.NoError(t, m.Apply(Config{}))
		assert.NotContains(t, shown(t), "bridge1")
	})
}

// While ports change their VLANs, no frame reaches a port of another, and no other port loses one.
func TestVLANFilteringWhileFramesPass(t *testing.T) {
	if !filters(t) {
		return
	}
	for _, test := range []struct {
		name     string
		one, two func(c *Config)
		apart    []string // frames of the first never reach the second
	}{
		{"two ports change places",
			func(*Config) {},
			func(c *Config) { c.BridgePorts[1].PVID, c.BridgePorts[2].PVID = 30, 20 }, []string{"x-k1", "x-k2"}},
		{"a port comes, and the bridge begins to filter",
			func(c *Config) { c.BridgePorts, c.Bridges[0].VLANFiltering = c.BridgePorts[:2], false },
			func(*Config) {}, []string{"x-k1", "x-k2"}},
		{"by the table alone",
			func(c *Config) {
				c.BridgePorts[1].Admit, c.BridgePorts[1].PVID, c.BridgePorts[2].PVID = AdmitAll, 20, 99
				c.BridgeVLANs = append(c.BridgeVLANs, BridgeVLAN{Bridge: "bridge1", IDs: []VLANRange{{21, 21}}, Untagged: []string{"ether3"}})
			},
			func(c *Config) {
				c.BridgePorts[1].Admit, c.BridgePorts[1].PVID, c.BridgePorts[2].PVID = AdmitAll, 21, 99
				c.BridgeVLANs = append(c.BridgeVLANs, BridgeVLAN{Bridge: "bridge1", IDs: []VLANRange{{22, 22}}, Untagged: []string{"ether3"}})
			}, []string{"x-k1", "x-k2"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			lab(t, "k0", "k1", "k2", "k3", "k4")
			m := newManager(t, append(slices.Clone(threePorts), Port{"ether4", "k3"}, Port{"ether5", "k4"})...)
			configs := make([]Config, 2)
			for i, edit := range []func(*Config){test.one, test.two} {
				configs[i] = office()
				edit(&configs[i])
				for _, p := range []string{"ether4", "ether5"} { // which stay as they are
					configs[i].BridgePorts = append(configs[i].BridgePorts, BridgePort{Bridge: "bridge1", Interface: p, VLANPort: VLANPort{PVID: 40}})
				}
			}
			require.NoError(t, m.Apply(configs[0]))
			awaitCarrier(t, "ether1", "ether2", "ether3", "ether4", "ether5")
			from, to := tapOn(t, test.apart[0]), tapOn(t, test.apart[1])
			stays, hears := tapOn(t, "x-k3"), tapOn(t, "x-k4")
			require.NoError(t, unix.SetsockoptInt(hears.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
			var sending sync.WaitGroup
			var stop atomic.Bool
			var sent atomic.Int64
			sending.Go(func() {
				for n := 0; !stop.Load(); n++ {
					assert.NoError(t, from.send('f', noTag))
					if n%8 == 0 {
						assert.NoError(t, stays.send('s', noTag))
						sent.Add(1)
					}
				}
			})
			defer func() { // also of a test that fails
				stop.Store(true)
				sending.Wait()
			}()
			for i := range 60 {
				require.NoError(t, m.Apply(configs[(i+1)%2]))
				for {
					mark, tag, ok := to.next(t)
					if !ok {
						break
					}
					require.NotEqual(t, byte('f'), mark, "after change %d, with tag %d", i, tag)
				}
			}
			stop.Store(true)
			sending.Wait()
			heard := int64(0)
			require.Eventually(t, func() bool {
				for {
					mark, _, ok := hears.next(t)
					if !ok {
						return heard == sent.Load()
					}
					if mark == 's' {
						heard++
					}
				}
			}, patience, time.Millisecond, "not all frames of the ports that stay")
			assert.Greater(t, heard, int64(100))
			t.Logf("%d frames of others meanwhile", heard)
		})
	}
}

// What is wanted depends only on the Config, so this tests it on any kernel.
func TestWantVLANs(t *testing.T) {
	c := office()
	c.Bridges[0].PVID, c.Bridges[0].Admit = 99, AdmitTagged
	c.BridgePorts = append(c.BridgePorts, BridgePort{Bridge: "bridge1", Interface: "v9"})
	c.VLANs = append(c.VLANs, VLAN{Name: "v9", Interface: "ether4", ID: 9}, VLAN{Name: "v21", Interface: "bridge1", ID: 21, Disabled: true})
	links := []link{{name: "ether1"}, {name: "ether2"}, {name: "ether4"}}
	got := map[string][]vlanRun{}
	for _, l := range c.wantBridgesAndVLANs(links) {
		got[l.name] = l.vlans
	}
	assert.Equal(t, map[string][]vlanRun{
		"ether1":  {{VLANRange{1, 1}, vlanMember | vlanPVID | vlanUntagged}, {VLANRange{20, 20}, vlanMember}, {VLANRange{30, 30}, vlanMember}, {VLANRange{50, 59}, vlanMember}},
		"ether2":  {{VLANRange{20, 20}, vlanMember | vlanPVID | vlanUntagged}},
		"ether4":  nil,
		"bridge1": {{VLANRange{20, 20}, vlanMember}},
		"v20":     nil,
		"v9":      {{VLANRange{1, 1}, vlanMember | vlanPVID | vlanUntagged}},
	}, got)
}

func TestVLANRuns(t *testing.T) {
	runs := []vlanRun{{VLANRange{1, 3}, vlanMember}, {VLANRange{4, 4}, vlanMember | vlanUntagged | vlanPVID},
		{VLANRange{5, 5}, vlanMember | vlanUntagged}, {VLANRange{7, 4094}, vlanMember}}
	assert.Equal(t, runs, table(runs).runs())
	assert.Equal(t, []vlanRun{{VLANRange{1, 4094}, vlanMember}}, table([]vlanRun{{VLANRange{-1, 70000}, vlanMember}}).runs())
}

func TestValidateVLANFiltering(t *testing.T) {
	for _, test := range []struct {
		want string
		edit func(*Config)
	}{
		{"", func(*Config) {}},
		{"bridge bridge1: pvid=4095: expected 1..4094", func(c *Config) { c.Bridges[0].PVID = 4095 }},
		{"bridge port ether2: pvid=-1: expected 1..4094", func(c *Config) { c.BridgePorts[1].PVID = -1 }},
		{"bridge port ether1: frame-types=some: expected admit-only-vlan-tagged, admit-only-untagged-and-priority-tagged or none", func(c *Config) { c.BridgePorts[0].Admit = "some" }},
		{"bridge vlan 0: bridge=ether1: expected a bridge", func(c *Config) { c.BridgeVLANs[0].Bridge = "ether1" }},
		{"bridge vlan 0: expected vlan-ids=", func(c *Config) { c.BridgeVLANs[0].IDs = nil }},
		{"bridge vlan 0: vlan-ids=0-5: expected 1..4094, the lower first", func(c *Config) { c.BridgeVLANs[0].IDs[0] = VLANRange{0, 5} }},
		{"bridge vlan 0: vlan-ids=6-5: expected 1..4094, the lower first", func(c *Config) { c.BridgeVLANs[0].IDs[0] = VLANRange{6, 5} }},
		{"bridge vlan 0: vlan-ids=30: expected each VLAN once in a bridge, bridge1 has it already", func(c *Config) { c.BridgeVLANs[0].IDs[0] = VLANRange{30, 30} }},
		{"bridge vlan 0: tagged=bridge2: expected ports, VLANs or bridge1 itself", func(c *Config) {
			c.Bridges = append(c.Bridges, Bridge{Name: "bridge2"})
			c.BridgeVLANs[0].Tagged[0] = "bridge2"
		}},
		{"bridge vlan 0: untagged=ether1: expected what is not among tagged", func(c *Config) { c.BridgeVLANs[0].Untagged = []string{"ether1"} }},
		{"bridge bridge1: frame-types=admit-only-untagged-and-priority-tagged: expected ether2 in no VLAN with a tag, it is so in VLAN 30: Linux lets the frames of such a VLAN in too",
			func(c *Config) {
				c.BridgeVLANs[0].Tagged, c.BridgeVLANs[0].IDs = []string{"ether2"}, []VLANRange{{30, 30}}
			}},
		{"bridge bridge1: frame-types=admit-only-untagged-and-priority-tagged: expected bridge1 in no VLAN with a tag, it is so in VLAN 20: Linux lets the frames of such a VLAN in too",
			func(c *Config) { c.Bridges[0].Admit = AdmitUntagged }},
		{"bridge bridge1: expected no more than 8192 times a port in a VLAN, all bridges together", func(c *Config) {
			c.BridgeVLANs[0].IDs = []VLANRange{{2, 4094}}
			c.BridgeVLANs[0].Tagged = []string{"ether1", "ether3", "bridge1"}
		}},
	} {
		c := office()
		test.edit(&c)
		err := c.Validate(threePorts)
		if test.want == "" {
			require.NoError(t, err)
			continue
		}
		assert.EqualError(t, err, test.want)
	}
}

// A message of the kernel's, or of whoever pretends to be it, is read within its bounds.
func FuzzParseVLANs(f *testing.F) {
	f.Add([]byte{unix.AF_BRIDGE, 0, 0, 0, 3, 0, 0, 0, 20, 0, 1, 0, 8, 0, 1, 0, 0, 0, 20, 0, 6, 0, 2, 0, 30, 0, 0, 0})
	f.Fuzz(func(t *testing.T, message []byte) {
		_, runs, err := parseVLANs(message)
		if err == nil {
			table(runs).runs()
		}
	})
}
