package firewall

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/testnet"
)

func TestInterfaces(t *testing.T) {
	names := []string{"a", "b", "c", "elsewhere"}
	var sets []Interfaces
	for _, s := range [][]string{nil, {"a"}, {"c", "b"}, {"b", "a", "a"}} {
		sets = append(sets, Interfaces{Names: s}, Interfaces{true, s})
	}
	for _, s := range sets {
		for _, other := range sets {
			both, either := s.And(other), s.Or(other)
			for _, name := range names {
				assert.Equal(t, s.Has(name) && other.Has(name), both.Has(name), "%s in %s and %s", name, s, other)
				assert.Equal(t, s.Has(name) || other.Has(name), either.Has(name), "%s in %s or %s", name, s, other)
				assert.Equal(t, !s.Has(name), s.Others().Has(name), "%s in others of %s", name, s)
			}
			assert.True(t, slices.IsSorted(both.Names), both)
			assert.Equal(t, both, other.And(s))
			assert.Equal(t, either, other.Or(s))
		}
	}
}

// ofLists are lists for tests: each has the letters of its name, as to1, to2 and to3.
var ofLists = map[string]Interfaces{
	"none": {}, "all": {Not: true}, "a": {Names: []string{"to1"}}, "ab": {Names: []string{"to2", "to1"}},
	"bc": {Names: []string{"to2", "to3"}}, "abc": {Names: []string{"to1", "to2", "to3"}}, "notab": {true, []string{"to1", "to2"}},
	"gone": {Names: []string{"to8", "to9"}},
}

// Each rule must count exactly the packets whose interfaces are in its lists.
func TestInterfaceLists(t *testing.T) {
	withEach(t, func(t *testing.T, program string, router *testnet.Host) {
		peers := make([]*testnet.Host, 3)
		for i := range peers {
			peers[i] = testnet.New(t, fmt.Sprintf("peer%d", i+1))
			connect(t, router, peers[i], byte(i+1))
		}
		require.NoError(t, router.Set("net.ipv4.ip_forward", "1"))
		lists := []string{""}
		for name := range ofLists {
			lists = append(lists, name, "!"+name)
		}
		slices.Sort(lists)
		config := Config{Lists: ofLists}
		for _, in := range lists {
			for _, out := range lists {
				config.Filter = append(config.Filter, Rule{Chain: "forward", Action: "passthrough", Protocol: "udp", InInterfaceList: in, OutInterfaceList: out})
			}
			config.Filter = append(config.Filter,
				Rule{Chain: "forward", Action: "passthrough", Protocol: "udp", InInterfaceList: in, InInterface: "to1"},
				Rule{Chain: "forward", Action: "passthrough", Protocol: "udp", InInterfaceList: in, InInterface: "!to1", OutInterface: "to3"},
				Rule{Chain: "input", Action: "passthrough", Protocol: "udp", InInterfaceList: in},
				Rule{Chain: "output", Action: "passthrough", Protocol: "udp", OutInterfaceList: in})
		}
		f := newFirewall(t, program)
		require.NoError(t, f.Apply(config))

		type packet struct{ chain, in, out string }
		var packets []packet
		for i, from := range peers {
			for j := range peers {
				to := fmt.Sprintf("10.0.%d.2:9", j+1)
				p := packet{"forward", fmt.Sprintf("to%d", i+1), fmt.Sprintf("to%d", j+1)}
				if i == j {
					to, p = fmt.Sprintf("10.0.%d.1:9", j+1), packet{"input", p.in, ""}
				}
				require.NoError(t, from.Do(func() error { send(t, to, "x"); return nil }))
				packets = append(packets, p)
			}
			send(t, fmt.Sprintf("10.0.%d.2:9", i+1), "x")
			packets = append(packets, packet{"output", "", fmt.Sprintf("to%d", i+1)})
		}
		const size = 20 + 8 + 1
		want := make([]Counter, len(config.Filter))
		for i, r := range config.Filter {
			matches := func(word, name string) bool {
				list, not := strings.CutPrefix(word, "!")
				return word == "" || ofLists[list].Has(name) != not
			}
			only := func(word, name string) bool {
				one, not := strings.CutPrefix(word, "!")
				return word == "" || (one == name) != not
			}
			for _, p := range packets {
				if r.Chain == p.chain && matches(r.InInterfaceList, p.in) && matches(r.OutInterfaceList, p.out) &&
					only(r.InInterface, p.in) && only(r.OutInterface, p.out) {
					want[i].Packets, want[i].Bytes = want[i].Packets+1, want[i].Bytes+size
				}
			}
		}
		check := func(when string) {
			t.Helper()
			got, err := f.Counters(Filter)
			require.NoError(t, err)
			for i, r := range config.Filter {
				assert.Equal(t, want[i], got[i], "%s: %s", when, r)
			}
		}
		check("at first")

		// Another rule ahead, and other members: the counters stay with their rules.
		config.Filter = slices.Insert(slices.Clone(config.Filter), 0, Rule{Chain: "input", Action: "drop", Protocol: "tcp"})
		want = slices.Insert(want, 0, Counter{})
		config.Lists = map[string]Interfaces{}
		for name := range ofLists {
			config.Lists[name] = Interfaces{Names: []string{"to1", "to4"}}
		}
		require.NoError(t, f.Apply(config))
		check("with other members")
		for name := range ofLists {
			config.Lists[name] = Interfaces{}
		}
		require.NoError(t, f.Apply(config))
		check("with no members")
		require.NoError(t, f.Apply(Config{Filter: config.Filter, Lists: ofLists}))
		check("with the old members")
	})
}

// The kernel takes every action in the chain of a rule, and the first rule that matches decides.
func TestInterfaceListActions(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		f := newFirewall(t, program)
		var config Config
		for _, list := range []string{"ab", "!ab"} {
			for _, action := range Filter.actions("input") {
				r := Rule{Chain: "input", Action: action, InInterfaceList: list, Comment: "x y"}
				if action == "jump" {
					r.JumpTarget = "own"
				}
				if strings.HasSuffix(action, "-to-address-list") {
					r.AddressList = "listed"
				}
				config.Filter = append(config.Filter, r)
			}
			config.NAT = append(config.NAT,
				Rule{Chain: "srcnat", Action: "masquerade", OutInterfaceList: list},
				Rule{Chain: "srcnat", Action: "src-nat", OutInterfaceList: list, ToAddresses: addresses("1.2.3.4")},
				Rule{Chain: "dstnat", Action: "redirect", InInterfaceList: list},
				Rule{Chain: "dstnat", Action: "dst-nat", InInterfaceList: list, ToAddresses: addresses("1.2.3.4")})
		}
		config.Filter = append(config.Filter, Rule{Chain: "own", Action: "return", InInterfaceList: "ab"}, Rule{Chain: "own", Action: "drop"})
		assert.ErrorContains(t, f.Apply(config), `filter rule 0: in-interface-list=ab: expected a list that there is, and there is none`)
		config.Lists = ofLists
		require.NoError(t, f.Apply(config))
		require.NoError(t, f.Apply(config), "again")
		_, err := f.Counters(Filter)
		require.NoError(t, err)

		require.NoError(t, f.Apply(Config{
			Filter: []Rule{{Chain: "forward", Action: "drop", Protocol: "tcp", InInterfaceList: "ab", OutInterfaceList: "!bc"}},
			NAT:    []Rule{{Chain: "srcnat", Action: "masquerade", OutInterfaceList: "a", Comment: "one"}, {Chain: "dstnat", Action: "redirect", InInterfaceList: "none"}},
			Lists:  ofLists,
		}))
		assert.Equal(t, `*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:postern-08bfdf44 - [0:0]
:postern-08bfdf44-in - [0:0]
:postern-08bfdf44-out - [0:0]
:postern-open - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -j postern-open
-A INPUT -j ACCEPT
-A FORWARD -p tcp -j postern-08bfdf44-in
-A FORWARD -j ACCEPT
-A OUTPUT -o lo -m mark --mark 0xffffffff -j DROP
-A postern-08bfdf44 -j DROP
-A postern-08bfdf44-in -i to1 -g postern-08bfdf44-out
-A postern-08bfdf44-in -i to2 -g postern-08bfdf44-out
-A postern-08bfdf44-out -o to2 -j RETURN
-A postern-08bfdf44-out -o to3 -j RETURN
-A postern-08bfdf44-out -g postern-08bfdf44
COMMIT
`, save(t, program, "-t", "filter"))
		assert.Contains(t, save(t, program, "-t", "nat"), ":POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o to1 -m comment --comment one -j MASQUERADE\nCOMMIT\n")

		// A refusal of a rule with a chain names the rule.
		err = f.apply(Config{NAT: []Rule{{Chain: "srcnat", Action: "accept"}, {Chain: "srcnat", Action: "drop", OutInterfaceList: "ab"}}, Lists: ofLists})
		assert.ErrorContains(t, err, "nat rule 1 (chain=srcnat action=drop out-interface-list=ab): ")
		assert.NotContains(t, save(t, program, "-t", "nat"), rehearsalChain)
		_, err = f.Counters(Filter)
		require.NoError(t, err)
	})
}

func TestTranslationByLists(t *testing.T) {
	connection := Tracked{Protocol: "udp"}
	nat := func(list string, members ...string) string {
		rules := []Rule{{Chain: "srcnat", Action: "masquerade", OutInterfaceList: list}, {Chain: "srcnat", Action: "accept"}}
		return connection.translation(translations(Config{NAT: rules, Lists: map[string]Interfaces{"WAN": {Names: members}, "LAN": {Names: members}}}, nil))
	}
	accept := connection.translation(translations(Config{NAT: []Rule{{Chain: "srcnat", Action: "accept"}}}, nil))
	byName := connection.translation(translations(Config{NAT: []Rule{
		{Chain: "srcnat", Action: "masquerade", OutInterface: "ether1"}, {Chain: "srcnat", Action: "accept"}}}, nil))
	assert.Equal(t, accept, nat("WAN"), "an empty list")
	assert.Equal(t, byName, nat("WAN", "ether1"))
	assert.Equal(t, byName, nat("LAN", "ether1"), "another list with the same member")
	assert.Equal(t, nat("WAN", "a", "b"), nat("WAN", "b", "a"), "in another order")
	assert.NotEqual(t, nat("WAN", "a", "b"), nat("WAN", "a"), "another member")
	assert.NotEqual(t, nat("WAN", "a"), nat("!WAN", "a"), "all others")
}

// No packet comes by IPsec: a rule that accepts such packets must accept none, in the kernel and
// in what is concluded from the rules.
func TestIPsecPolicyMatchesNothing(t *testing.T) {
	ipsec := Rule{Chain: "forward", Action: "accept", IPsecPolicy: "in,ipsec"}
	none := Rule{Chain: "forward", Action: "drop", IPsecPolicy: "in,none", InInterface: "ether1"}
	config := Config{Filter: []Rule{ipsec, none}}
	require.NoError(t, config.Validate())
	newRouter(t)
	f := newFirewall(t, "iptables-legacy")
	require.NoError(t, f.Apply(config))
	assert.Contains(t, save(t, "iptables-legacy", "-t", "filter"), "-A FORWARD -i ether1 -j DROP\n-A FORWARD -j ACCEPT\n")
	assert.NotContains(t, strings.Replace(save(t, "iptables-legacy", "-t", "filter"), "-A FORWARD -j ACCEPT", "", 1), "-A FORWARD -j ACCEPT")
	counters, err := f.Counters(Filter)
	require.NoError(t, err)
	assert.Equal(t, []Counter{{}, {}}, counters)
	assert.False(t, config.InInterfaces(ipsec).Has("ether1"))
	assert.Empty(t, translations(Config{NAT: []Rule{{Chain: "srcnat", Action: "masquerade", IPsecPolicy: "out,ipsec"}}}, nil))
}
