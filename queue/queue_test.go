package queue

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
)

// simple is a queue with defaults.
func simple(name, target string) Simple {
	return Simple{Name: name, Target: target, Priority: [2]uint64{8, 8}, Bucket: [2]uint64{100, 100}}
}

func (q Simple) limit(up, down uint64) Simple { q.MaxLimit = [2]uint64{up, down}; return q }
func (q Simple) in(parent string) Simple      { q.Parent = parent; return q }
func (q Simple) with(dst string) Simple       { q.Dst = dst; return q }

// network is a router with a WAN on ether1, a LAN on the bridge that ether2 is a port of, and another on ether3, behind which there is one more network.
func network() netcfg.Config {
	address := func(on, text string) netcfg.Address {
		return netcfg.Address{Interface: on, Address: netip.MustParsePrefix(text)}
	}
	return netcfg.Config{
		Bridges: []netcfg.Bridge{{Name: "lan"}}, BridgePorts: []netcfg.BridgePort{{Bridge: "lan", Interface: "ether2"}},
		Addresses: []netcfg.Address{address("ether1", "203.0.113.2/24"), address("lan", "192.168.88.1/24"), address("ether3", "10.0.0.1/24")},
		Routes: []netcfg.Route{
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("203.0.113.1"), Distance: 1},
			{Destination: netip.MustParsePrefix("10.9.0.0/16"), Gateway: netip.MustParseAddr("10.0.0.9"), Distance: 1},
		},
	}
}

// shown are the classes of links and the rules, with the names of queues in the place of numbers.
func shown(t *testing.T, all []Simple, c netcfg.Config) string {
	require.NoError(t, Validate(all))
	names := map[uint16]string{0: "-"}
	_, nodes := tree(all)
	for _, n := range nodes {
		for d, way := range []string{"up", "down"} {
			for role, what := range []string{"", "+", "*"} {
				names[n.id(d, role)] = n.Name + "." + way + what
			}
		}
	}
	var b strings.Builder
	c.Queues = Links(all, c)
	require.NoError(t, c.Validate(ports()))
	for _, l := range c.Queues {
		for _, k := range l.Classes {
			leaf := ""
			if k.Leaf {
				leaf = " leaf"
			}
			fmt.Fprintf(&b, "%s: %s in %s rate %d ceil %d burst %d prio %d%s\n", l.Interface, names[k.ID], names[k.Parent], k.Rate, k.Ceil, k.CeilBurst, k.Priority, leaf)
		}
	}
	rules := Rules(all, c.Actual)
	require.NoError(t, firewall.Config{Queues: rules}.Validate())
	for _, r := range rules {
		fmt.Fprintf(&b, "%s:", names[r.Class])
		for _, p := range []struct{ name, value string }{{"from", r.Src.String()}, {"to", r.Dst.String()}, {"in", r.In}, {"out", r.Out}, {"mark", r.PacketMark}, {"time", r.Time}} {
			if p.value != "" && p.value != "invalid Prefix" {
				fmt.Fprintf(&b, " %s %s", p.name, p.value)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func ports() (all []netcfg.Port) {
	for _, name := range []string{"ether1", "ether2", "ether3"} {
		all = append(all, netcfg.Port{Name: name, Device: name})
	}
	return all
}

func TestPlan(t *testing.T) {
	marked := simple("marked", "192.168.88.0/24")
	marked.PacketMarks, marked.Time = "a,no-mark", "8h-17h,mon"
	burst := simple("burst", "192.168.88.9/32").limit(8_000_000, 0)
	burst.BurstLimit, burst.BurstThreshold, burst.BurstTime = [2]uint64{16_000_000, 16_000_000}, [2]uint64{6_000_000, 6_000_000}, [2]uint64{4, 4}
	child := simple("child", "10.9.0.7/32").limit(800_000, 0).in("top")
	child.LimitAt, child.Priority = [2]uint64{80_000, 16_000_000}, [2]uint64{1, 2}
	off := simple("off", "ether1")
	off.Disabled = true
	for name, test := range map[string]struct {
		all  []Simple
		want string
	}{
		"none": {nil, ""},
		"a host of the LAN, bounded where it leaves": {[]Simple{simple("pc", "192.168.88.7/32").limit(1_000_000, 8_000_000)}, `
			ether1: pc.up in - rate 125000 ceil 125000 burst 12500 prio 7 leaf
			ether3: pc.up in - rate 125000 ceil 125000 burst 12500 prio 7 leaf
			lan: pc.down in - rate 1000000 ceil 1000000 burst 100000 prio 7 leaf
			pc.up: from 192.168.88.7/32
			pc.down: to 192.168.88.7/32`},
		"a port of a bridge, and a dst": {[]Simple{simple("bridge", "ether2").with("ether1").limit(8000, 0)}, `
			ether1: bridge.up in - rate 1000 ceil 1000 burst 3200 prio 7 leaf
			lan: bridge.down in - rate 1250000000 ceil 1250000000 burst 4194304 prio 7 leaf
			bridge.up: in lan out ether1
			bridge.down: in ether1 out lan`},
		"anybody": {[]Simple{simple("all", "0.0.0.0/0").limit(8_000_000, 8_000_000)}, `
			ether1: all.up in - rate 1000000 ceil 1000000 burst 100000 prio 7 leaf
			ether3: all.up in - rate 1000000 ceil 1000000 burst 100000 prio 7 leaf
			lan: all.up in - rate 1000000 ceil 1000000 burst 100000 prio 7 leaf
			all.up:
			all.down:`},
		"anybody with the WAN": {[]Simple{simple("wan", "").with("ether1").limit(8_000_000, 8_000_000)}, `
			ether1: wan.up in - rate 1000000 ceil 1000000 burst 100000 prio 7 leaf
			ether3: wan.down in - rate 1000000 ceil 1000000 burst 100000 prio 7 leaf
			lan: wan.down in - rate 1000000 ceil 1000000 burst 100000 prio 7 leaf
			wan.up: out ether1
			wan.down: in ether1`},
		"both networks of a target, and one that no link leads to": {[]Simple{simple("two", "10.0.0.0/24,192.168.88.0/24").with("198.18.0.0/15").limit(8_000_000, 8_000_000)}, `
			ether1: two.up in - rate 1000000 ceil 1000000 burst 100000 prio 7 leaf
			ether3: two.up in - rate 1000000 ceil 1000000 burst 100000 prio 7 leaf
			ether3: two.down in - rate 1000000 ceil 1000000 burst 100000 prio 7 leaf
			lan: two.up in - rate 1000000 ceil 1000000 burst 100000 prio 7 leaf
			lan: two.down in - rate 1000000 ceil 1000000 burst 100000 prio 7 leaf
			two.up: from 10.0.0.0/24 to 198.18.0.0/15
			two.up: from 192.168.88.0/24 to 198.18.0.0/15
			two.down: from 198.18.0.0/15 to 10.0.0.0/24
			two.down: from 198.18.0.0/15 to 192.168.88.0/24`},
		"marks and times": {[]Simple{marked.with("ether1").limit(8_000_000, 8_000_000)}, `
			ether1: marked.up in - rate 1000000 ceil 1000000 burst 100000 prio 7 leaf
			lan: marked.down in - rate 1000000 ceil 1000000 burst 100000 prio 7 leaf
			marked.up: from 192.168.88.0/24 out ether1 mark a time 8h-17h,mon
			marked.up: from 192.168.88.0/24 out ether1 mark no-mark time 8h-17h,mon
			marked.down: to 192.168.88.0/24 in ether1 mark a time 8h-17h,mon
			marked.down: to 192.168.88.0/24 in ether1 mark no-mark time 8h-17h,mon`},
		"a burst upwards, and none without a limit": {[]Simple{burst.with("ether1")}, `
			ether1: burst.up in - rate 2000000 ceil 2000000 burst 200000 prio 7
			ether1: burst.up+ in burst.up rate 1000 ceil 1000000 burst 1600000 prio 7 leaf
			lan: burst.down in - rate 1250000000 ceil 1250000000 burst 4194304 prio 7 leaf
			burst.up+: from 192.168.88.9/32 out ether1
			burst.down: to 192.168.88.9/32 in ether1`},
		"one in another": {[]Simple{simple("top", "10.0.0.0/8").with("ether1").limit(1_600_000, 8_000_000), off, simple("in off", "ether3").in("off"), child.with("ether1")}, `
			ether1: top.up in - rate 200000 ceil 200000 burst 20000 prio 7
			ether1: child.up in top.up rate 10000 ceil 100000 burst 10000 prio 0 leaf
			ether1: top.up* in top.up rate 1000 ceil 200000 burst 20000 prio 7 leaf
			ether3: top.down in - rate 1000000 ceil 1000000 burst 100000 prio 7
			ether3: child.down in top.down rate 1000000 ceil 1000000 burst 100000 prio 1 leaf
			ether3: top.down* in top.down rate 1000 ceil 1000000 burst 100000 prio 7 leaf
			child.up: from 10.9.0.7/32 out ether1
			child.down: to 10.9.0.7/32 in ether1
			top.up*: from 10.0.0.0/8 out ether1
			top.down*: to 10.0.0.0/8 in ether1`},
	} {
		t.Run(name, func(t *testing.T) {
			want := strings.ReplaceAll(strings.TrimPrefix(test.want, "\n"), "\t", "")
			if want != "" {
				want += "\n"
			}
			assert.Equal(t, want, shown(t, test.all, network()))
		})
	}
}

// The numbers of the classes of a queue stay when others come and go or change their places.
func TestNumbersStay(t *testing.T) {
	var all []Simple
	for i := range MaxQueues {
		all = append(all, simple(fmt.Sprint("queue", i), "ether1"))
	}
	require.NoError(t, Validate(all))
	before, seen := Total(all), map[uint16]bool{}
	for _, ids := range before {
		for _, id := range ids {
			assert.False(t, seen[id] || id == 0)
			seen[id] = true
		}
	}
	slices.Reverse(all)
	assert.Equal(t, before, Total(all))
	moved := 0
	for name, ids := range Total(all[1:]) {
		if before[name] != ids {
			moved++
		}
	}
	assert.LessOrEqual(t, moved, 1, "one that had to give way")
}

// The deepest queues that Validate takes, all with a burst, fit into the kernel's levels.
func TestDepth(t *testing.T) {
	bursting := func(name, parent string) Simple {
		q := simple(name, "ether1").limit(8_000_000, 8_000_000).in(parent)
		q.BurstLimit, q.BurstThreshold, q.BurstTime = [2]uint64{16_000_000, 16_000_000}, [2]uint64{6_000_000, 6_000_000}, [2]uint64{4, 4}
		return q
	}
	all := []Simple{bursting("a", ""), bursting("b", "a"), bursting("c", "b")}
	require.NoError(t, Validate(all))
	depth := map[uint16]int{}
	for _, l := range Links(all, network()) {
		for _, k := range l.Classes {
			depth[k.ID] = depth[k.Parent] + 1
			assert.LessOrEqual(t, depth[k.ID], 6)
		}
	}
	assert.ErrorContains(t, Validate(append(all, bursting("d", "c"))), "queue 3 (d): parent=c: expected at most 3 queues one within the other")
}

func TestRefused(t *testing.T) {
	for want, change := range map[string]func(*Simple){
		"queue 1 (b): target: expected at most 16, got 17":                                              func(q *Simple) { q.Target = strings.Repeat("ether1,", 16) + "ether1" },
		"queue 1 (b): dst: expected at most 1, got 2":                                                   func(q *Simple) { q.Dst = "ether1,ether2" },
		"queue 1 (b): priority=9: expected 1..8":                                                        func(q *Simple) { q.Priority[1] = 9 },
		"queue 1 (b): limit-at: expected no more than max-limit":                                        func(q *Simple) { q.LimitAt[0], q.MaxLimit[0] = 9000, 8000 },
		"queue 1 (b): a rate of 7999: expected 0, or 8000..10000000000 bits per second":                 func(q *Simple) { q.BurstLimit[0] = 7999 },
		"queue 1 (b): parent=x: expected the name of a queue":                                           func(q *Simple) { q.Parent = "x" },
		"queue 1 (b): parent=b: expected at most 3 queues one within the other, and none within itself": func(q *Simple) { q.Parent = "b" },
		"queue 1: name=a: expected a name of its own":                                                   func(q *Simple) { q.Name = "a" },
		"queue 1 (b): time=8h: expected TIME-TIME[,DAY,...], not \"8h\"":                                func(q *Simple) { q.Time = "8h" },
		`queue 1 (b): prefix length "33" is not a number of 0..32 or a netmask`:                         func(q *Simple) { q.Target = "10.0.0.0/33" },
	} {
		all := []Simple{simple("a", ""), simple("b", "ether1")}
		require.NoError(t, Validate(all))
		change(&all[1])
		assert.EqualError(t, Validate(all), want)
		// What Validate refuses makes no trouble: the network of a configuration is asked for before it is checked.
		Links(all, network())
		Rules(all, network().Actual)
	}
	assert.EqualError(t, Validate(make([]Simple, MaxQueues+1)), "expected at most 64 queues, got 65")
}

// A gateway that is in networks of two links is on that of the smaller one, each time.
func TestGatewayInTwoNetworks(t *testing.T) {
	c := netcfg.Config{
		Addresses: []netcfg.Address{
			{Address: netip.MustParsePrefix("10.0.0.1/8"), Interface: "ether1"},
			{Address: netip.MustParsePrefix("10.1.0.1/24"), Interface: "ether2"},
			{Address: netip.MustParsePrefix("172.16.0.1/24"), Interface: "ether3"},
		},
		Routes: []netcfg.Route{{Destination: netip.MustParsePrefix("192.168.77.0/24"), Gateway: netip.MustParseAddr("10.1.0.9")}},
	}
	all := []Simple{{Name: "q", Target: "192.168.77.0/24", Priority: [2]uint64{8, 8}, MaxLimit: [2]uint64{1e6, 1e6}}}
	down := Total(all)["q"][Down]
	for range 50 { // a map has another order each time
		var on []string
		for _, l := range Links(all, c) {
			if slices.ContainsFunc(l.Classes, func(k netcfg.Class) bool { return k.ID == down }) {
				on = append(on, l.Interface)
			}
		}
		assert.Equal(t, []string{"ether2"}, on)
	}
}

// What passes between two networks of one link leaves by the link that it came by.
func TestTwoNetworksOfALink(t *testing.T) {
	c := netcfg.Config{Addresses: []netcfg.Address{
		{Address: netip.MustParsePrefix("192.168.1.1/24"), Interface: "ether1"},
		{Address: netip.MustParsePrefix("192.168.2.1/24"), Interface: "ether1"},
		{Address: netip.MustParsePrefix("10.0.0.1/24"), Interface: "ether2"},
		{Address: netip.MustParsePrefix("10.0.0.2/24"), Interface: "ether2"}, // no other network
	}}
	classes := func(q Simple) (all []string) {
		q = q.limit(1e6, 1e6)
		total := Total([]Simple{q})[q.Name]
		for _, l := range Links([]Simple{q}, c) {
			for _, k := range l.Classes {
				for d, way := range []string{"up", "down"} {
					if k.ID == total[d] {
						all = append(all, l.Interface+" "+way)
					}
				}
			}
		}
		return all
	}
	assert.Equal(t, []string{"ether1 up", "ether1 down"}, classes(simple("between", "192.168.1.0/24").with("192.168.2.0/24")))
	assert.Equal(t, []string{"ether1 up", "ether1 down", "ether2 up"}, classes(simple("with all", "192.168.1.0/24")))
	assert.Equal(t, []string{"ether1 up", "ether2 down"}, classes(simple("one", "10.0.0.0/24")))
}
