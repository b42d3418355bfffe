package firewall

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/match"
)

// packet is a UDP packet that the router sends to itself.
type packet struct{ src, dst netip.AddrPort }

// model counts what packets do in chain=output of config, by the meaning of the rules alone.
type model struct {
	Config
	counts []Counter
	// filled is what rules have added to lists.
	filled map[string][]netip.Addr
}

// pass has a packet meet the rules of a chain. It reports whether one has decided about it.
func (m *model) pass(chain string, p packet, size uint64) (decided bool) {
	for i, r := range m.Filter {
		if r.Chain != chain || r.Disabled || !m.matches(r, p) {
			continue
		}
		m.counts[i].Packets, m.counts[i].Bytes = m.counts[i].Packets+1, m.counts[i].Bytes+size
		switch r.Action {
		case "accept":
			return true
		case "return":
			return chain == "output"
		case "jump":
			if m.pass(r.JumpTarget, p, size) {
				return true
			}
		case "add-src-to-address-list":
			m.filled[r.AddressList] = append(m.filled[r.AddressList], p.src.Addr())
		case "add-dst-to-address-list":
			m.filled[r.AddressList] = append(m.filled[r.AddressList], p.dst.Addr())
		}
	}
	return false
}

func (m *model) matches(r Rule, p packet) bool {
	listed := func(word string, a netip.Addr) bool {
		name, not := strings.CutPrefix(word, "!")
		in := slices.ContainsFunc(m.AddressLists[name], func(of match.Addresses) bool { return of.Match(a) }) || slices.Contains(m.filled[name], a)
		return word == "" || in != not
	}
	either := r.Port.Match(p.src.Port()) || r.Port.Match(p.dst.Port())
	if r.Port.Not {
		either = r.Port.Match(p.src.Port()) && r.Port.Match(p.dst.Port())
	}
	out, not := strings.CutPrefix(r.OutInterfaceList, "!")
	return listed(r.SrcAddressList, p.src.Addr()) && listed(r.DstAddressList, p.dst.Addr()) && either &&
		r.SrcAddress.Match(p.src.Addr()) && (out == "" || m.Lists[out].Has("lo") != not)
}

// Rules in chains of their own, by lists of addresses and of interfaces, with every action that goes on
// elsewhere, count the packets that they should, and no others.
func TestChainsAndLists(t *testing.T) {
	r := rand.New(rand.NewPCG(19, 1))
	address := func() netip.Addr {
		return netip.AddrFrom4([4]byte{127, byte(1 + r.IntN(2)), byte(r.IntN(3)), byte(1 + r.IntN(254))})
	}
	list := func(size int) (all []match.Addresses) {
		for range size {
			switch a := address(); r.IntN(3) {
			case 0:
				all = append(all, match.Addresses{From: a, To: a})
			case 1:
				all = append(all, match.AddressesFromPrefix(netip.PrefixFrom(a, 28+r.IntN(5))))
			default:
				to := a
				for range r.IntN(5) {
					to = to.Next()
				}
				all = append(all, match.Addresses{From: a, To: to})
			}
		}
		return all
	}
	one := func(values ...string) string { return values[r.IntN(len(values))] }
	random := func() Config {
		c := Config{
			AddressLists: map[string][]match.Addresses{"one": list(1), "few": list(8), "many": list(20 + r.IntN(60)), "very many": apart(120), "none": nil},
			Lists:        map[string]Interfaces{"lo": {Names: []string{"lo"}}, "more": {Names: []string{"a", "lo"}}, "no": {Names: []string{"a", "b"}}},
		}
		chains := []string{"output", "first", "second", "third"}
		lists := []string{"", "", "", "one", "!one", "few", "!few", "many", "!many", "very many", "!very many", "none", "!none", "absent", "!absent", "filled"}
		for range 40 {
			n := r.IntN(len(chains))
			rule := Rule{
				Chain: chains[n], Action: one("passthrough", "passthrough", "log", "accept", "return", "return", "jump", "add-src-to-address-list", "add-dst-to-address-list"), Protocol: "udp",
				SrcAddressList: one(lists...), DstAddressList: one(lists...), OutInterfaceList: one("", "", "lo", "!lo", "more", "!more", "no", "!no"),
				Log: r.IntN(4) == 0, Disabled: r.IntN(10) == 0,
			}
			if r.IntN(4) == 0 {
				rule.Port = ports(one("53", "!53", "53,1000-2000", "!1000"))
			}
			if r.IntN(6) == 0 {
				rule.SrcAddress = addresses(one("127.1.0.0/16", "!127.1.0.5-127.1.1.9"))
			}
			if strings.HasSuffix(rule.Action, "-to-address-list") {
				rule.AddressList, rule.AddressListTimeout = one("few", "none", "absent", "filled"), time.Duration(r.IntN(2))*time.Hour
			}
			if rule.Action == "jump" {
				if n == len(chains)-1 {
					rule.Action = "accept"
				} else {
					rule.JumpTarget = chains[n+1+r.IntN(len(chains)-1-n)]
				}
			}
			c.Filter = append(c.Filter, rule)
		}
		for _, chain := range chains { // each has a rule
			c.Filter = append(c.Filter, Rule{Chain: chain, Action: "passthrough", Protocol: "udp"})
		}
		return c
	}
	newRouter(t)
	const program = "iptables-legacy" // nf_tables has no chains as deep
	f := newFirewall(t, program)
	for n := range 30 {
		require.NoError(t, f.Apply(Config{})) // so that the lists
		f.kept = nil
		require.NoError(t, f.Lock()) // and the counters begin anew
		m := model{Config: random(), filled: map[string][]netip.Addr{}}
		m.counts = make([]Counter, len(m.Filter))
		require.NoError(t, f.Apply(m.Config))
		for range 60 {
			p := packet{netip.AddrPortFrom(address(), 0), netip.AddrPortFrom(address(), uint16(r.IntN(2)*947+53))}
			p.src = sendFrom(t, p.src, p.dst)
			m.pass("output", p, 20+8+1)
		}
		check := func(when string) {
			t.Helper()
			got, err := f.Counters(Filter)
			require.NoError(t, err)
			for i, r := range m.Filter {
				assert.Equal(t, m.counts[i], got[i], "configuration %d, %s: rule %d (%s)", n, when, i, r)
			}
		}
		check("at first")
		var want []string
		for list, all := range m.filled {
			for _, a := range all {
				want = append(want, list+" "+a.String())
			}
		}
		slices.Sort(want)
		filled, _, err := f.Filled(1000)
		require.NoError(t, err)
		var got []string
		for _, a := range filled {
			got = append(got, a.List+" "+a.Address.String())
		}
		slices.Sort(got)
		assert.Equal(t, slices.Compact(want), got, "what rules have added")
		m.Filter = slices.Insert(slices.Clone(m.Filter), 0, Rule{Chain: "fourth", Action: "drop"})
		m.counts = slices.Insert(slices.Clone(m.counts), 0, Counter{})
		require.NoError(t, f.Apply(m.Config))
		check("behind another rule")
		if t.Failed() {
			t.Log(saveTables(t, program))
			return
		}
	}
}

// sendFrom sends a packet and returns where it came from.
func sendFrom(t *testing.T, from, to netip.AddrPort) netip.AddrPort {
	c, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("x"))
	require.NoError(t, err)
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// The kernel has exactly these rules.
func TestChainsInKernel(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		f := newFirewall(t, program)
		require.NoError(t, f.Apply(Config{
			Filter: []Rule{
				{Chain: "input", Action: "jump", JumpTarget: "from outside", InInterface: "ether1", Log: true, LogPrefix: "in"},
				{Chain: "from outside", Action: "return", Protocol: "tcp", SrcAddressList: "friends", DstPort: ports("22"), Log: true},
				{Chain: "from outside", Action: "drop", SrcAddressList: "!one"},
				{Chain: "from outside", Action: "add-dst-to-address-list", AddressList: "friends", AddressListTimeout: 90 * time.Second},
				{Chain: "forward", Action: "drop", DstAddressList: "!friends", Comment: "x y"},
				{Chain: "forward", Action: "return", Protocol: "icmp"},
			},
			NAT: []Rule{
				{Chain: "srcnat", Action: "jump", JumpTarget: "own"},
				{Chain: "own", Action: "masquerade", OutInterface: "ether1", Log: true},
			},
			AddressLists: map[string][]match.Addresses{"friends": {addresses("10.0.0.9"), addresses("10.1.0.0/16"), addresses("10.0.0.10")}, "one": {addresses("10.0.0.0/30")}},
		}))
		assert.Equal(t, `*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:postern-chain-431fc39e - [0:0]
:postern-d7328c05 - [0:0]
:postern-d7328c05-rest - [0:0]
:postern-d7328c05-src - [0:0]
:postern-open - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -j postern-open
-A INPUT -i ether1 -m limit --limit 20/sec --limit-burst 40 -j LOG --log-prefix in --log-level 6
-A INPUT -i ether1 -j postern-chain-431fc39e
-A INPUT -j ACCEPT
-A FORWARD -m set ! --match-set {10.0.0.10/32 10.0.0.9/32 10.1.0.0/16} dst -m set ! --match-set {} dst -m comment --comment "x y" -j DROP
-A FORWARD -p icmp -j ACCEPT
-A FORWARD -j ACCEPT
-A OUTPUT -o lo -m mark --mark 0xffffffff -j DROP
-A postern-chain-431fc39e -p tcp -m tcp --dport 22 -g postern-d7328c05-src
-A postern-chain-431fc39e -g postern-d7328c05-rest
-A postern-d7328c05 -m limit --limit 20/sec --limit-burst 40 -j LOG --log-level 6
-A postern-d7328c05 -j RETURN
-A postern-d7328c05-rest -m set ! --match-set {10.0.0.0/30} src -j DROP
-A postern-d7328c05-rest -j SET --add-set {} dst --exist --timeout 90
-A postern-d7328c05-src -m set --match-set {10.0.0.10/32 10.0.0.9/32 10.1.0.0/16} src -g postern-d7328c05
-A postern-d7328c05-src -m set --match-set {} src -g postern-d7328c05
-A postern-d7328c05-src -g postern-d7328c05-rest
COMMIT
`, withSets(t, save(t, program, "-t", "filter")))
		assert.Contains(t, save(t, program, "-t", "nat"), "-A POSTROUTING -j postern-chain-3eaec225\n-A postern-chain-3eaec225 -o ether1 -m limit --limit 20/sec --limit-burst 40 -j LOG --log-level 7\n"+
			"-A postern-chain-3eaec225 -o ether1 -j MASQUERADE\n")
	})
}

// A rule by flags takes the packets that have them, and leaves the others.
func TestTCPFlags(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		f := newFirewall(t, program)
		var config Config
		var want []Counter
		for flags, packets := range map[string]uint64{"syn": 1, "syn,!ack": 1, "syn,ack": 0, "rst,ack": 1, "!syn": 1, "!syn,!rst": 0, "fin": 0} {
			config.Filter = append(config.Filter, Rule{Chain: "output", Action: "passthrough", Protocol: "tcp", TCPFlags: flags, Port: ports("4009")})
			want = append(want, Counter{Packets: packets})
		}
		require.NoError(t, f.Apply(config))
		_, err := net.Dial("tcp", "127.0.0.1:4009") // a SYN, and a RST that acknowledges it
		require.Error(t, err)
		got, err := f.Counters(Filter)
		require.NoError(t, err)
		for i, r := range config.Filter {
			assert.Equal(t, want[i].Packets, got[i].Packets, r)
		}
	})
}

// A chain of nat translates what is sent there, and what returns from it goes on.
func TestTranslationByChains(t *testing.T) {
	at := netip.MustParseAddrPort
	connection := Tracked{Protocol: "tcp", Src: at("192.168.0.2:1238"), Dst: at("10.5.8.8:21"), ReplySrc: at("10.5.8.8:21"), ReplyDst: at("10.1.0.104:1238")}
	lists := map[string][]match.Addresses{"lan": {addresses("192.168.0.0/25"), addresses("192.168.1.0/24")}, "other": {addresses("192.168.9.0/24")}}
	of := func(rules ...Rule) string {
		return connection.translation(translations(Config{NAT: rules, AddressLists: lists}, nil))
	}
	jump := Rule{Chain: "srcnat", Action: "jump", JumpTarget: "x"}
	masquerade, accept := Rule{Chain: "srcnat", Action: "masquerade"}, Rule{Chain: "x", Action: "accept"}
	back := Rule{Chain: "x", Action: "return"}
	by := func(r Rule, change func(*Rule)) Rule { change(&r); return r }
	assert.NotEqual(t, of(jump, accept, masquerade), of(masquerade), "the chain decides first")
	assert.Equal(t, of(jump, accept, masquerade), of(jump, accept), "nothing behind the chain is asked")
	assert.NotEqual(t, of(jump, back, accept, masquerade), of(jump, back, accept), "it returns")
	assert.NotEqual(t, of(jump, by(back, func(r *Rule) { r.OutInterface = "ether1" }), accept, masquerade),
		of(jump, by(back, func(r *Rule) { r.OutInterface = "ether1" }), accept), "it may return")
	assert.NotEqual(t, of(by(jump, func(r *Rule) { r.OutInterface = "ether1" }), accept, masquerade), of(by(jump, func(r *Rule) { r.OutInterface = "ether1" }), accept), "it may not come there")
	assert.Equal(t, of(by(jump, func(r *Rule) { r.SrcAddressList = "other" }), accept, masquerade), of(masquerade), "it does not come there")
	assert.Equal(t, of(by(masquerade, func(r *Rule) { r.SrcAddressList = "lan" })), of(masquerade), "it is in the list")
	assert.Equal(t, of(by(masquerade, func(r *Rule) { r.SrcAddressList = "!lan" })), of(), "it is")
	assert.Equal(t, of(by(masquerade, func(r *Rule) { r.DstAddressList = "!lan" })), of(masquerade), "its destination is not")
	assert.Equal(t, of(by(masquerade, func(r *Rule) { r.Protocol, r.Port = "tcp", ports("21") })), of(masquerade))
	assert.Equal(t, of(by(masquerade, func(r *Rule) { r.Protocol, r.Port = "tcp", ports("!21") })), of())
	assert.NotEqual(t, of(by(masquerade, func(r *Rule) { r.Protocol, r.TCPFlags = "tcp", "syn" })), of(masquerade), "nobody knows")
}

// 256 rules and 1,000 entries are one change, of bounded size.
func TestManyAddresses(t *testing.T) {
	newRouter(t)
	f := newFirewall(t, "iptables-legacy")
	c := Config{AddressLists: map[string][]match.Addresses{"many": apart(MaxAddresses)}}
	for i := range 253 {
		c.Filter = append(c.Filter, Rule{Chain: "output", Action: "passthrough", Protocol: "udp", DstPort: ports(fmt.Sprint(1000 + i))})
	}
	for _, list := range []string{"many", "!many"} {
		c.Filter = append(c.Filter, Rule{Chain: "output", Action: "passthrough", Protocol: "udp", DstAddressList: list})
	}
	c.Filter = append(c.Filter, Rule{Chain: "output", Action: "drop", Protocol: "udp", DstAddressList: "many"})
	require.NoError(t, f.Apply(c))
	for _, to := range []string{"127.1.0.1", "127.1.0.2", "127.1.0.3", "127.1.7.207", "127.1.7.208", "127.1.7.209"} {
		conn, err := net.Dial("udp", to+":9")
		require.NoError(t, err)
		_, err = conn.Write([]byte("x"))
		assert.Equal(t, slices.ContainsFunc(c.AddressLists["many"], func(a match.Addresses) bool { return a.Match(netip.MustParseAddr(to)) }), err != nil, to)
		conn.Close()
	}
	got, err := f.Counters(Filter)
	require.NoError(t, err)
	assert.Equal(t, []uint64{3, 3, 3}, []uint64{got[253].Packets, got[254].Packets, got[255].Packets})
	require.NoError(t, f.Apply(c), "again")
}

// A rule logs a burst and then few packets a second, and what it does and counts is about all of them.
func TestLogIsBounded(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		const packets = 4000 // half of which are sent: more than it may log in a minute and a half
		f := newFirewall(t, program)
		udp := Rule{Chain: "output", Action: "log", Protocol: "udp", DstPort: ports("9")}
		some := udp.with("limit", "1/10m,100")
		passes, returns := udp, udp
		passes.Action, passes.Log = "passthrough", true
		returns.Action, returns.Log = "return", true
		require.NoError(t, f.Apply(Config{Filter: []Rule{udp, some, passes, returns.with("limit", "1/10m,100"), returns}}))
		c, err := net.Dial("udp4", "127.0.0.1:9")
		require.NoError(t, err)
		defer c.Close()
		for range packets {
			_, _ = c.Write([]byte("x")) // nobody listens, which some of the calls say
		}
		got, err := f.Counters(Filter)
		require.NoError(t, err)
		sent := got[0].Packets
		assert.GreaterOrEqual(t, sent, uint64(packets/2))
		assert.Equal(t, []uint64{sent, 100, sent, 100, sent - 100}, []uint64{got[0].Packets, got[1].Packets, got[2].Packets, got[3].Packets, got[4].Packets})
		logged := 0
		for line := range strings.Lines(save(t, program, "-c", "-t", "filter")) {
			if strings.Contains(line, "-j LOG") {
				var n, bytes uint64
				_, err := fmt.Sscanf(line, "[%d:%d]", &n, &bytes)
				require.NoError(t, err)
				assert.GreaterOrEqual(t, n, uint64(kmsg.PacketBurst), line)
				assert.Less(t, n, sent, line)
				logged++
			}
		}
		assert.Equal(t, 5, logged)
	})
}
