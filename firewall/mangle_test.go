package firewall

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/match"
)

func TestMangleArgs(t *testing.T) {
	c := Config{RoutingTables: map[string]uint8{"isp1": 1, "isp2": 250}}
	for _, test := range []struct {
		table Table
		rule  Rule
		want  string
	}{
		{Mangle, Rule{Chain: "prerouting", Action: "mark-connection", NewConnectionMark: "a", ConnectionMark: NoMark},
			"-m connmark --mark 0x0/0xffff -j CONNMARK --set-xmark A/0xffff"},
		{Mangle, Rule{Chain: "forward", Action: "mark-packet", NewPacketMark: "a", PacketMark: "!a"}, "-m mark ! --mark A/0xffff -j MARK --set-xmark A/0xffff"},
		{Mangle, Rule{Chain: "forward", Action: "mark-packet", NewPacketMark: NoMark}, "-j MARK --set-xmark 0x0/0xffff"},
		{Mangle, Rule{Chain: "prerouting", Action: "mark-routing", NewRoutingMark: "isp2", RoutingMark: "isp1"}, "-m mark --mark 0x10000/0xff0000 -j MARK --set-xmark 0xfa0000/0xff0000"},
		{Mangle, Rule{Chain: "output", Action: "mark-routing", NewRoutingMark: "main", RoutingMark: "!main"}, "-m mark ! --mark 0x0/0xff0000 -j MARK --set-xmark 0x0/0xff0000"},
		{Mangle, Rule{Chain: "forward", Action: "change-mss", Protocol: "tcp", NewMSS: "1400"}, "-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400"},
		{Mangle, Rule{Chain: "forward", Action: "change-mss", Protocol: "tcp", NewMSS: "1400", TCPMSS: "1401-65535"}, "-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400"},
		{Mangle, Rule{Chain: "forward", Action: "change-mss", Protocol: "tcp", NewMSS: "1400", TCPMSS: "!0-1400"}, "-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400"},
		{Mangle, Rule{Chain: "forward", Action: "change-mss", Protocol: "6", TCPFlags: "syn", NewMSS: ClampMSS}, "-p 6 -m tcp --tcp-flags SYN SYN -j TCPMSS --clamp-mss-to-pmtu"},
		{Mangle, Rule{Chain: "postrouting", Action: "change-ttl", NewTTL: "set:64"}, "-j TTL --ttl-set 64"},
		{Mangle, Rule{Chain: "postrouting", Action: "change-ttl", NewTTL: "increment:1"}, "-j TTL --ttl-inc 1"},
		{Mangle, Rule{Chain: "postrouting", Action: "change-ttl", NewTTL: "decrement:255"}, "-j TTL --ttl-dec 255"},
		{Mangle, Rule{Chain: "postrouting", Action: "change-dscp", NewDSCP: "46"}, "-j DSCP --set-dscp 46"},
		{Raw, Rule{Chain: "prerouting", Action: "notrack"}, "-j CT --notrack"},
		{Raw, Rule{Chain: "output", Action: "drop", Protocol: "udp"}, "-p udp -j DROP"},
		{NAT, Rule{Chain: "dstnat", Action: "netmap", ToAddresses: addresses("10.1.0.0/16")}, "-j NETMAP --to 10.1.0.0/16"},
		{NAT, Rule{Chain: "srcnat", Action: "same", ToAddresses: addresses("10.1.0.1-10.1.0.9")}, "-j SNAT --to-source 10.1.0.1-10.1.0.9"},
		{NAT, Rule{Chain: "srcnat", Action: "same", SameNotByDst: true, ToAddresses: addresses("10.1.0.1-10.1.0.9")}, "-j SNAT --to-source 10.1.0.1-10.1.0.9 --persistent"},
		{Filter, Rule{Chain: "input", Action: "drop", ConnectionMark: "!" + NoMark}, "-m connmark ! --mark 0x0/0xffff -j DROP"},
	} {
		require.NoError(t, test.rule.Validate(test.table), test.rule)
		c.Mangle = []Rule{test.rule}
		e := entries(test.table, []Rule{test.rule}, c, nil)[0]
		a := fmt.Sprintf("0x%x", uint16(sum("a")))
		assert.Equal(t, strings.ReplaceAll(test.want, "A/", a+"/"), strings.Join(slices.Concat(e.match, e.target), " "))
	}
}

func TestMangleRefuses(t *testing.T) {
	forward := Rule{Chain: "forward"}
	with := func(change func(*Rule)) Rule { r := forward; change(&r); return r }
	for _, test := range []struct {
		table Table
		rule  Rule
		want  string
	}{
		{Mangle, with(func(r *Rule) { r.Action = "drop" }), "action=drop: expected accept, log, passthrough, jump, return, add-src-to-address-list, add-dst-to-address-list, change-dscp, change-mss, change-ttl, mark-connection or mark-packet in chain=forward"},
		{Mangle, with(func(r *Rule) { r.Action, r.NewRoutingMark = "mark-routing", "a" }), "action=mark-routing: expected "},
		{Mangle, with(func(r *Rule) { r.Action = "mark-packet" }), "action=mark-packet: needs new-packet-mark"},
		{Mangle, with(func(r *Rule) { r.Action, r.NewConnectionMark = "mark-packet", "a" }), "new-connection-mark=a: needs action=mark-connection"},
		{Mangle, with(func(r *Rule) { r.Action, r.NewMSS = "change-mss", "1400" }), "action=change-mss: needs protocol=tcp"},
		{Mangle, with(func(r *Rule) { r.Action, r.NewMSS, r.Protocol, r.TCPFlags = "change-mss", "1400", "tcp", "!syn" }), "tcp-flags=!syn: only packets with syn"},
		{Mangle, with(func(r *Rule) { r.Action, r.NewMSS, r.Protocol = "change-mss", "65496", "tcp" }), "new-mss=65496: expected clamp-to-pmtu | integer: 1..65495"},
		{Mangle, with(func(r *Rule) { r.Chain, r.Action, r.NewMSS, r.Protocol = "input", "change-mss", ClampMSS, "tcp" }), "new-mss=clamp-to-pmtu: not known in chain=input"},
		{Mangle, with(func(r *Rule) { r.Action, r.NewMSS, r.Protocol, r.TCPMSS = "change-mss", "1400", "tcp", "1402-65535" }), "tcp-mss=1402-65535: expected action=change-mss, and the range"},
		{Mangle, with(func(r *Rule) { r.Action, r.NewMSS, r.Protocol, r.TCPMSS = "change-mss", ClampMSS, "tcp", "1402-65535" }), "tcp-mss=1402-65535: expected "},
		{Mangle, with(func(r *Rule) { r.Action, r.TCPMSS = "accept", "1-65535" }), "tcp-mss=1-65535: expected "},
		{Mangle, with(func(r *Rule) { r.Action, r.NewTTL = "change-ttl", "increment:0" }), "new-ttl=increment:0: expected "},
		{Mangle, with(func(r *Rule) { r.Action, r.NewTTL = "change-ttl", "64" }), "new-ttl=64: expected "},
		{Mangle, with(func(r *Rule) { r.Action, r.NewDSCP = "change-dscp", "64" }), "new-dscp=64: expected integer: 0..63"},
		{Mangle, with(func(r *Rule) { r.Action, r.Final = "accept", true }), "passthrough=no: needs an action that changes packets"},
		{Mangle, with(func(r *Rule) { r.Chain, r.Action, r.OutInterface = "prerouting", "accept", "ether1" }), "out-interface=ether1: not known in chain=prerouting"},
		{Mangle, with(func(r *Rule) { r.Chain, r.Action, r.InInterface = "postrouting", "accept", "ether1" }), "in-interface=ether1: not known in chain=postrouting"},
		{Filter, with(func(r *Rule) { r.Action, r.ConnectionMark = "accept", "!" }), "connection-mark=!: expected the name of a mark"},
		{Raw, with(func(r *Rule) { r.Chain, r.Action, r.ConnectionState = "prerouting", "drop", "new" }), "connection-state=new: not known in table raw"},
		{Raw, with(func(r *Rule) { r.Chain, r.Action, r.ConnectionMark = "prerouting", "drop", "a" }), "connection-mark=a: not known in table raw"},
		{Raw, with(func(r *Rule) { r.Action = "drop" }), "chain=forward: expected prerouting or output, or a name"},
		{NAT, with(func(r *Rule) { r.Chain, r.Action = "srcnat", "same" }), "action=same: needs to-addresses"},
		{NAT, with(func(r *Rule) { r.Chain, r.Action, r.ToAddresses = "dstnat", "same", addresses("1.2.3.4") }), "action=same: expected accept, "},
		{NAT, with(func(r *Rule) { r.Chain, r.Action, r.SameNotByDst = "srcnat", "masquerade", true }), "same-not-by-dst=yes: needs action=same"},
		{NAT, with(func(r *Rule) { r.Chain, r.Action = "srcnat", "netmap" }), "action=netmap: needs to-addresses"},
		{NAT, with(func(r *Rule) { r.Chain, r.Action, r.ToAddresses = "srcnat", "netmap", addresses("1.2.3.4-1.2.3.6") }), "to-addresses=1.2.3.4-1.2.3.6: expected a network"},
	} {
		assert.ErrorContains(t, test.rule.Validate(test.table), test.want)
	}

	mark := Rule{Chain: "prerouting", Action: "mark-routing", NewRoutingMark: "isp1"}
	assert.ErrorContains(t, Config{Mangle: []Rule{mark}}.Validate(), "mangle rule 0: new-routing-mark=isp1: expected main")
	assert.NoError(t, Config{Mangle: []Rule{mark}, RoutingTables: map[string]uint8{"isp1": 7}}.Validate())
	assert.ErrorContains(t, Config{RoutingTables: map[string]uint8{"isp1": 7, "isp2": 7}}.Validate(), "routing mark isp2: number=7: expected one of its own of 1..250")
	assert.ErrorContains(t, Config{RoutingTables: map[string]uint8{"isp1": 251}}.Validate(), "routing mark isp1: number=251: expected one of its own of 1..250")
	clamp := Rule{Chain: "x", Action: "change-mss", NewMSS: ClampMSS, Protocol: "tcp"}
	jump := Rule{Chain: "forward", Action: "jump", JumpTarget: "x"}
	assert.NoError(t, Config{Mangle: []Rule{jump, clamp}}.Validate())
	jump.Chain = "prerouting"
	assert.ErrorContains(t, Config{Mangle: []Rule{jump, clamp}}.Validate(), "mangle rule 1: new-mss=clamp-to-pmtu: packets come to chain=x from chain=prerouting")

	var c Config
	for i := range MaxMarks + 1 {
		c.Mangle = append(c.Mangle, Rule{Chain: "forward", Action: "mark-packet", NewPacketMark: fmt.Sprint("m", i)})
	}
	assert.ErrorContains(t, c.Validate(), "marks: expected at most 256 names of connections' marks and as many of packets' marks, got 0 and 257")
	c.Mangle = c.Mangle[:MaxMarks]
	require.NoError(t, c.Validate())
	seen := map[uint16]bool{0: true}
	for _, n := range c.marks().packet {
		assert.False(t, seen[n])
		seen[n] = true
	}
	// The others keep their numbers.
	few := Config{Mangle: c.Mangle[:2]}
	assert.Equal(t, few.marks().packet["m1"], c.marks().packet["m1"])
}

// Each action of mangle does to the packets that it takes what it says, and nothing to the others; each matcher of marks finds what they
// have left.
func TestMangleTraffic(t *testing.T) {
	withEach(t, func(t *testing.T, program string, router *testnet.Host) {
		peer := testnet.New(t, "peer")
		connect(t, router, peer, 1)
		to := func(port string) Rule { return Rule{Chain: "prerouting", Protocol: "udp", DstPort: ports(port)} }
		does := func(r Rule, change func(*Rule)) Rule { change(&r); return r }
		c := Config{
			RoutingTables: map[string]uint8{"isp1": 3, "isp2": 4},
			Lists:         map[string]Interfaces{"both": {Names: []string{"to1", "to2"}}},
			AddressLists:  map[string][]match.Addresses{"two": {addresses("10.0.1.2"), addresses("10.0.1.9")}},
			// No answers.
			Raw: []Rule{
				{Chain: "output", Action: "drop", Protocol: "icmp"},
				does(to("12"), func(r *Rule) { r.Action = "notrack" }),
				does(to("13"), func(r *Rule) { r.Action = "drop" }),
				// What it accepts meets no other rule of this table.
				does(to("11"), func(r *Rule) { r.Action = "accept" }),
				does(to("10,11"), func(r *Rule) { r.Action = "passthrough" }),
				does(to("11"), func(r *Rule) { r.Action, r.AddressList = "add-src-to-address-list", "never" }),
				does(to("10"), func(r *Rule) { r.Action, r.AddressList = "add-src-to-address-list", "raw" }),
			},
			Mangle: []Rule{
				does(to("7"), func(r *Rule) { r.Action, r.NewPacketMark = "mark-packet", "seven" }),
				does(to("7"), func(r *Rule) { r.Action, r.NewRoutingMark = "mark-routing", "isp2" }),
				// It does not match any more when it has marked, and accepts all the same.
				does(to("7,8"), func(r *Rule) {
					r.Action, r.NewConnectionMark, r.ConnectionMark, r.Final = "mark-connection", "c", NoMark, true
					r.InInterfaceList, r.SrcAddressList = "both", "two"
				}),
				does(to("7,8"), func(r *Rule) { r.Action = "passthrough" }), // 3: nothing
				does(to("9"), func(r *Rule) { r.Action, r.NewTTL = "change-ttl", "set:5" }),
				does(to("9"), func(r *Rule) { r.Action, r.NewDSCP = "change-dscp", "46" }),
				does(to("10"), func(r *Rule) { r.Action, r.NewTTL = "change-ttl", "decrement:3" }),
				does(to("11"), func(r *Rule) { r.Action, r.NewTTL = "change-ttl", "increment:3" }),
				does(to("9"), func(r *Rule) { r.Action, r.JumpTarget = "jump", "own" }),
				{Chain: "own", Action: "return", Protocol: "udp"},
				{Chain: "own", Action: "mark-packet", NewPacketMark: "never", Protocol: "udp"}, // 10
				{Chain: "input", Action: "passthrough", RoutingMark: "isp2", Protocol: "udp"},  // 11
				{Chain: "input", Action: "passthrough", RoutingMark: "!isp2", Protocol: "udp"}, // 12
				{Chain: "input", Action: "accept", Protocol: "udp", DstPort: ports("11")},
				{Chain: "input", Action: "passthrough", Protocol: "udp", DstPort: ports("10,11")},
				{Chain: "input", Action: "add-dst-to-address-list", AddressList: "never", Protocol: "udp", DstPort: ports("11")},
				{Chain: "input", Action: "add-dst-to-address-list", AddressList: "mangle", Protocol: "udp", DstPort: ports("10")},
			},
			NAT: []Rule{
				{Chain: "dstnat", Action: "add-src-to-address-list", AddressList: "nat", DstAddress: addresses("10.9.0.0/24")},
				{Chain: "dstnat", Action: "netmap", DstAddress: addresses("10.9.0.0/24"), ToAddresses: addresses("10.0.1.0/24")},
				{Chain: "dstnat", Action: "add-dst-to-address-list", AddressList: "never", DstAddress: addresses("10.9.0.0/24")},
			},
		}
		udp := Rule{Chain: "input", Action: "passthrough", Protocol: "udp"}
		cases := []struct {
			rule Rule
			want uint64
		}{
			// Two packets to each of the ports 7..13, from sockets of their own.
			{does(udp, func(r *Rule) { r.PacketMark = "seven" }), 2},
			{does(udp, func(r *Rule) { r.PacketMark = "!seven" }), 11},
			{does(udp, func(r *Rule) { r.PacketMark = NoMark }), 11},
			{does(udp, func(r *Rule) { r.PacketMark = "never" }), 0},
			{does(udp, func(r *Rule) { r.RoutingMark = "isp2" }), 2},
			{does(udp, func(r *Rule) { r.RoutingMark = "isp1" }), 0},
			{does(udp, func(r *Rule) { r.RoutingMark = NoRoutingMark }), 11},
			{does(udp, func(r *Rule) { r.ConnectionMark = "c" }), 4},
			{does(udp, func(r *Rule) { r.ConnectionMark = "!c" }), 7}, // not those that are not tracked
			{does(udp, func(r *Rule) { r.ConnectionMark = NoMark }), 7},
			{udp.with("ttl", "equal:5"), 2}, {udp.with("ttl", "not-equal:5"), 11}, {udp.with("ttl", "less-than:62"), 4}, {udp.with("ttl", "greater-than:64"), 2},
			{udp.with("ttl", "equal:61"), 2}, {udp.with("ttl", "equal:67"), 2},
			{udp.with("dscp", "46"), 2}, {udp.with("dscp", "!46"), 11}, {udp.with("dscp", "0"), 11},
			{does(udp, func(r *Rule) { r.ConnectionState = "untracked" }), 2},
			{does(udp, func(r *Rule) { r.DstPort = ports("13") }), 0},
			{does(udp, func(r *Rule) { r.DstPort = ports("14") }), 1}, // by netmap
			{udp.with("nth", "2,1"), 7}, {udp.with("nth", "2,2"), 6}, {udp.with("nth", "13,13"), 1}, {udp.with("nth", "14,14"), 0},
			{does(udp.with("nth", "2,1"), func(r *Rule) { r.Log = true }), 7},
		}
		for _, test := range cases {
			c.Filter = append(c.Filter, test.rule)
		}
		f := newFirewall(t, program)
		require.NoError(t, f.Apply(c))
		require.NoError(t, os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", []byte("3600"), 0))
		require.NoError(t, peer.Do(func() error {
			for range 2 {
				for port := 7; port <= 13; port++ {
					send(t, fmt.Sprint("10.0.1.1:", port), "x")
				}
			}
			send(t, "10.9.0.1:14", "x")
			return nil
		}))
		got, err := f.Counters(Filter)
		require.NoError(t, err)
		for i, test := range cases {
			assert.Equal(t, test.want, got[i].Packets, test.rule)
		}
		got, err = f.Counters(Mangle)
		require.NoError(t, err)
		for i, want := range []uint64{2, 2, 4, 0, 2, 2, 2, 2, 2, 2, 0, 2, 11, 2, 2} {
			assert.Equal(t, want, got[i].Packets, c.Mangle[i])
		}
		got, err = f.Counters(Raw)
		require.NoError(t, err)
		for i, want := range []uint64{2, 2, 2, 2} {
			assert.Equal(t, want, got[1+i].Packets, c.Raw[1+i])
		}
		filled, _, err := f.Filled(10)
		require.NoError(t, err)
		listed := map[string]string{}
		for _, a := range filled {
			listed[a.List] = a.Address.String()
		}
		assert.Equal(t, map[string]string{"raw": "10.0.1.2", "mangle": "10.0.1.1", "nat": "10.0.1.2"}, listed)

		// What stays is not written, and keeps its counters.
		if program == "iptables-legacy" {
			restore := f.restoreProgram
			f.restoreProgram = "/no-program"
			require.NoError(t, f.Apply(c), "nothing is written")
			f.restoreProgram = restore
		}
		c.Mangle[4].NewTTL = "set:6"
		c.Raw = c.Raw[1:]
		require.NoError(t, f.Apply(c))
		got, err = f.Counters(Mangle)
		require.NoError(t, err)
		assert.Equal(t, []uint64{2, 0, 2}, []uint64{got[0].Packets, got[4].Packets, got[5].Packets})
		require.NoError(t, f.ResetCounters(Mangle, []int{0}))
		got, err = f.Counters(Mangle)
		require.NoError(t, err)
		assert.Equal(t, []uint64{0, 2, 4}, []uint64{got[0].Packets, got[1].Packets, got[2].Packets})
		require.NoError(t, f.Apply(Config{}))
		assert.NotContains(t, save(t, program, "-t", "mangle")+save(t, program, "-t", "raw"), "-A ")
	})
}

// Of many packets some meet random=50, and others do not; a rule that logs draws once.
func TestRandomTraffic(t *testing.T) {
	withEach(t, func(t *testing.T, program string, router *testnet.Host) {
		peer := testnet.New(t, "peer")
		connect(t, router, peer, 1)
		half := Rule{Chain: "prerouting", Action: "mark-packet", NewPacketMark: "half", Protocol: "udp", Final: true}.with("random", "50")
		f := newFirewall(t, program)
		require.NoError(t, f.Apply(Config{
			Raw:    []Rule{{Chain: "output", Action: "drop", Protocol: "icmp"}},
			Mangle: []Rule{half, {Chain: "prerouting", Action: "passthrough", Protocol: "udp"}},
			Filter: []Rule{{Chain: "input", Action: "passthrough", PacketMark: "half"}},
		}))
		require.NoError(t, peer.Do(func() error {
			for range 100 {
				send(t, "10.0.1.1:7", "x")
			}
			return nil
		}))
		mangle, err := f.Counters(Mangle)
		require.NoError(t, err)
		filter, err := f.Counters(Filter)
		require.NoError(t, err)
		assert.NotContains(t, []uint64{0, 100}, mangle[0].Packets) // but once in 2^99
		assert.Equal(t, uint64(100), mangle[0].Packets+mangle[1].Packets)
		assert.Equal(t, mangle[0].Packets, filter[0].Packets)
	})
}

// change-mss lowers the MSS of connections that it takes, in whatever chain and by whatever lists, and never raises one.
func TestChangeMSS(t *testing.T) {
	withEach(t, func(t *testing.T, program string, router *testnet.Host) {
		peer := testnet.New(t, "peer")
		connect(t, router, peer, 1)
		to := func(port, mss string) Rule {
			return Rule{Chain: "input", Action: "change-mss", Protocol: "tcp", DstPort: ports(port), NewMSS: mss}
		}
		final := to("72", "800")
		final.Final, final.TCPFlags, final.SrcAddressList = true, "syn", "two"
		clamp := Rule{Chain: "output", Action: "change-mss", Protocol: "tcp", SrcPort: ports("73"), NewMSS: ClampMSS}
		require.NoError(t, newFirewall(t, program).Apply(Config{
			Mangle:       []Rule{to("71", "900"), final, to("72", "500"), to("74", "60000"), clamp},
			AddressLists: map[string][]match.Addresses{"two": {addresses("10.0.1.2"), addresses("10.0.1.9")}},
		}))
		const timestamps = 12
		for port, want := range map[int]int{70: 1460 - timestamps, 71: 900 - timestamps, 72: 800 - timestamps, 73: 1460 - timestamps, 74: 1460 - timestamps} {
			l, err := router.Listen(fmt.Sprint("10.0.1.1:", port))
			require.NoError(t, err)
			c, err := peer.Dial(&net.Dialer{Timeout: time.Minute}, fmt.Sprint("10.0.1.1:", port))
			require.NoError(t, err)
			s, err := l.AcceptTCP()
			require.NoError(t, err)
			raw, err := s.SyscallConn()
			require.NoError(t, err)
			var mss int
			require.NoError(t, raw.Control(func(fd uintptr) { mss, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) }))
			require.NoError(t, err)
			assert.Equal(t, want, mss, port)
			c.Close()
			s.Close()
			l.Close()
		}
	})
}

// A table without rules is not made: each takes memory, and some of each packet's time.
func TestEmptyTables(t *testing.T) {
	t.Parallel()
	newRouter(t)
	tables := func() string {
		names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
		require.NoError(t, err)
		return string(names)
	}
	f := newFirewall(t, "iptables-legacy")
	require.NoError(t, f.Lock())
	require.NoError(t, f.Apply(full))
	require.NoError(t, f.Apply(Config{}))
	require.Error(t, f.apply(Config{NAT: []Rule{{Chain: "dstnat", Action: "drop"}}}))
	for _, table := range []Table{Mangle, Raw} {
		_, err := f.Counters(table)
		require.NoError(t, err)
		assert.NotContains(t, tables(), string(table))
	}
	require.NoError(t, f.Apply(Config{Raw: []Rule{{Chain: "prerouting", Action: "notrack"}}}))
	assert.Contains(t, tables(), "raw")
	assert.NotContains(t, tables(), "mangle")
}

// What the kernel refuses of one table leaves all as they were, and the error names the rule.
func TestMangleAllOrNothing(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		f := newFirewall(t, program)
		good := Rule{Chain: "forward", Action: "mark-packet", NewPacketMark: "a"}
		require.NoError(t, f.Apply(Config{Filter: full.Filter, Mangle: []Rule{good}, Clamp: []string{"wan"}}))
		before := save(t, program)
		bad := Rule{Chain: "prerouting", Action: "change-mss", NewMSS: ClampMSS, Protocol: "tcp"} // Validate refuses it
		err := f.apply(Config{Mangle: []Rule{good, bad}, Raw: []Rule{{Chain: "prerouting", Action: "notrack"}}})
		require.ErrorContains(t, err, "mangle")
		require.NotContains(t, err.Error(), "putting the old rules back")
		assert.Equal(t, before, strings.ReplaceAll(save(t, program), save(t, program, "-t", "raw"), ""))
		assert.NotContains(t, save(t, program, "-t", "raw"), "-A ")
		require.NoError(t, f.Apply(Config{}))
	})
}

// A port that a rule translates to needs its protocol in whatever chain the kernel has the rule.
func TestPortsOfLists(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		c := Config{Lists: map[string]Interfaces{"both": {Names: []string{"ether1", "ether2"}}}}
		list := Rule{InInterfaceList: "both", Protocol: "udp"}
		redirect, reject := list, list
		redirect.Chain, redirect.Action, redirect.ToPorts = "dstnat", "redirect", ports("53")
		reject.Chain, reject.Action, reject.Protocol, reject.RejectWith = "input", "reject", "tcp", "tcp-reset"
		c.Filter, c.NAT = []Rule{reject}, []Rule{redirect}
		require.NoError(t, newFirewall(t, program).Apply(c))
	})
}

// One host gets one new address by same-not-by-dst, whomever it talks to, and several without.
func TestSame(t *testing.T) {
	withEach(t, func(t *testing.T, program string, router *testnet.Host) {
		peer, server := testnet.New(t, "peer"), testnet.New(t, "server")
		connect(t, router, peer, 1)
		connect(t, router, server, 2)
		require.NoError(t, router.Set("net.ipv4.ip_forward", "1"))
		f := newFirewall(t, program)
		for _, persistent := range []bool{true, false} {
			rule := Rule{Chain: "srcnat", Action: "same", OutInterface: "to2", ToAddresses: addresses("10.0.2.100-10.0.2.199"), SameNotByDst: persistent}
			require.NoError(t, f.Apply(Config{NAT: []Rule{rule}}))
			require.NoError(t, peer.Do(func() error {
				for i := range 16 {
					send(t, fmt.Sprintf("10.0.2.%d:7", 10+i), "x")
				}
				return nil
			}))
			seen := map[string]bool{}
			tracked, err := ListTracked()
			for _, c := range tracked {
				if c.Protocol == "udp" && c.Src.Addr().String() == "10.0.1.2" {
					seen[c.ReplyDst.Addr().String()] = true
				}
			}
			require.NoError(t, err)
			if persistent {
				assert.Len(t, seen, 1)
			} else {
				assert.Greater(t, len(seen), 2)
			}
		}
	})
}
