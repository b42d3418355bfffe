package firewall

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/match"
)

// After any number of changes the kernel has the same rules as if the last ones had been written at once.
func TestChangesInKernel(t *testing.T) {
	newRouter(t)
	const program = "iptables-legacy"
	r := rand.New(rand.NewPCG(19, 2))
	one := func(values ...string) string { return values[r.IntN(len(values))] }
	rule := func() Rule {
		chain := one("input", "forward", "output", "own", "other")
		rule := Rule{Chain: chain, Action: one("passthrough", "log", "accept", "return", "drop"), Protocol: one("", "udp"),
			SrcAddressList: one("", "", "few", "!few", "many"), DstAddressList: one("", "", "many", "!many", "none"), Log: r.IntN(4) == 0,
			Comment: one("", "", "x y"), Disabled: r.IntN(8) == 0}
		if r.IntN(5) == 0 {
			rule.Extra[4] = "10,5"
		}
		return rule
	}
	ends := []Rule{{Chain: "input", Action: "jump", JumpTarget: "own"}, {Chain: "own", Action: "jump", JumpTarget: "other"}, {Chain: "other", Action: "passthrough"}}
	nat := []Rule{{Chain: "srcnat", Action: "masquerade", SrcAddressList: "many"}}
	c := Config{AddressLists: map[string][]match.Addresses{"few": apart(5), "many": apart(300)}}
	f := newFirewall(t, program)
	require.NoError(t, f.Lock())
	var filter []Rule
	for n := range 150 {
		switch at := r.IntN(len(filter) + 1); r.IntN(8) {
		default:
			filter = slices.Insert(slices.Clone(filter), at, rule())
		case 0, 1:
			if at < len(filter) {
				filter = slices.Delete(slices.Clone(filter), at, at+1)
			}
		case 2, 3:
			c.AddressLists = map[string][]match.Addresses{"few": apart(1 + r.IntN(12)), "many": slices.Clone(c.AddressLists["many"])}
			many := c.AddressLists["many"]
			a := netip.AddrFrom4([4]byte{127, 1, byte(r.IntN(256)), byte(r.IntN(256))})
			c.AddressLists["many"][r.IntN(len(many))] = match.Addresses{From: a, To: a}
		case 4:
			if len(nat) > 1 || r.IntN(2) == 0 {
				nat = slices.Delete(slices.Clone(nat), 0, len(nat)-1)
			} else {
				nat = append(slices.Clone(nat), Rule{Chain: "dstnat", Action: "accept", Protocol: one("udp", "tcp")})
			}
		}
		c.Filter, c.NAT = slices.Concat(filter, ends), nat
		require.NoError(t, f.Apply(c))
		if n%10 == 0 {
			require.NoError(t, f.ChangeOpenings(f.Openings(), []Opening{{Port: uint16(1000 + n)}}))
		}
		if n > 1 {
			assert.True(t, f.known(), "change %d", n)
		}
		if n%5 != 0 {
			continue
		}
		got := saveTables(t, program)
		other := newRouterOf(t, func() {
			whole := newFirewall(t, program)
			require.NoError(t, whole.Apply(c))
			require.NoError(t, whole.ChangeOpenings(nil, f.Openings()))
		}, program)
		require.Equal(t, other, got, "change %d", n)
		_, err := f.Counters(Filter)
		require.NoError(t, err)
	}
}

// newRouterOf returns the tables of a fresh network namespace after do, and comes back from there.
func newRouterOf(t *testing.T, do func(), program string) (tables string) {
	t.Helper()
	h := testnet.New(t, "other")
	require.NoError(t, h.Do(func() error {
		do()
		tables = saveTables(t, program)
		return nil
	}))
	return tables
}

// A change leaves the counters of all other rules alone, also those of rules whose list it changes, and brings those
// that have to be written anew along.
func TestChangesKeepCounters(t *testing.T) {
	newRouter(t)
	f := newFirewall(t, "iptables-legacy")
	count := func(port, list string) Rule {
		return Rule{Chain: "output", Action: "passthrough", Protocol: "udp", DstPort: ports(port), DstAddressList: list}
	}
	list := func(addresses_ ...string) map[string][]match.Addresses {
		var all []match.Addresses
		for _, a := range addresses_ {
			all = append(all, addresses(a))
		}
		return map[string][]match.Addresses{"list": all}
	}
	two, three := list("127.0.0.1", "127.0.0.9"), list("127.0.0.1", "127.0.0.5", "127.0.0.9")
	a, b, c := count("4001", ""), count("4001", "list"), count("4001-4002", "")
	require.NoError(t, f.Lock())
	require.NoError(t, f.Apply(Config{Filter: []Rule{a, b, c}, AddressLists: two}))
	drop := Rule{Chain: "output", Action: "drop", Protocol: "tcp", DstPort: ports("9")}
	commented, disabled := b, b
	commented.Comment, disabled.Disabled = "x", true
	var n uint64
	for _, step := range []struct {
		name   string
		config Config
		reset  bool
	}{
		{"a rule more", Config{Filter: []Rule{drop, a, b, c}, AddressLists: two}, false},
		{"a longer list", Config{Filter: []Rule{drop, a, b, c}, AddressLists: three}, false},
		{"another order", Config{Filter: []Rule{c, drop, b, a}, AddressLists: three}, false},
		{"a comment", Config{Filter: []Rule{c, commented, a}, AddressLists: three}, false},
		{"one address", Config{Filter: []Rule{c, commented, a}, AddressLists: list("127.0.0.1")}, false},
		{"none", Config{Filter: []Rule{c, b, a}}, false},
		{"both again", Config{Filter: []Rule{a, b, c}, AddressLists: two}, false},
		{"disabled", Config{Filter: []Rule{a, disabled, c}, AddressLists: two}, true},
	} {
		if step.name != "both again" {
			send(t, "127.0.0.1:4001", "x")
			n++
		}
		require.NoError(t, f.Apply(step.config), step.name)
		filter, err := f.Counters(Filter)
		require.NoError(t, err, step.name)
		for i, r := range step.config.Filter {
			want := n
			if r.Action == "drop" || step.reset && r.Disabled {
				want = 0
			}
			assert.Equal(t, want, filter[i].Packets, "%s: %s", step.name, r)
		}
	}
	require.NoError(t, f.ResetCounters(Filter, []int{2}))
	filter, err := f.Counters(Filter)
	require.NoError(t, err)
	assert.Equal(t, []uint64{n, 0, 0}, []uint64{filter[0].Packets, filter[1].Packets, filter[2].Packets})
}

// What somebody else has made of the tables is replaced by a change of any rule.
func TestChangesHeal(t *testing.T) {
	newRouter(t)
	const program = "iptables-legacy"
	f := newFirewall(t, program)
	first, second := full, full
	second.Filter = slices.Concat(full.Filter, []Rule{{Chain: "output", Action: "accept", Protocol: "udp"}})
	for _, args := range []string{"-I FORWARD -j ACCEPT", "-F INPUT", "-N stray", "-X postern-open", "-t nat -A POSTROUTING -j ACCEPT", "-D FORWARD 1"} {
		require.NoError(t, f.Apply(second))
		want := saveTables(t, program)
		require.NoError(t, f.Apply(first))
		require.True(t, f.known())
		for range 2 { // of postern-open
			if args == "-X postern-open" {
				_ = exec.Command(program, "-D", "INPUT", "2").Run()
			}
		}
		out, err := exec.Command(program, strings.Fields(args)...).CombinedOutput()
		require.NoError(t, err, "%s: %s", args, out)
		require.NoError(t, f.Apply(second), args)
		assert.Equal(t, want, saveTables(t, program), args)
	}
}

// One more entry of a long list, or one more rule, is a change of few lines.
func TestChangesAreSmall(t *testing.T) {
	lines := func(old, next Config) int {
		was, is := newRuleSet(old, old.kernelLists()), newRuleSet(next, next.kernelLists())
		var s script
		for _, t := range []Table{Filter, NAT} {
			chains := layout(t, is.table(t))
			s.change(t, is.table(t), newWritten(layout(t, was.table(t))).changes(chains, newWritten(chains)), false)
		}
		return len(s.lines)
	}
	c := Config{AddressLists: map[string][]match.Addresses{"many": apart(MaxAddresses - 1)}}
	for i := range 250 {
		c.Filter = append(c.Filter, Rule{Chain: "forward", Action: "passthrough", Protocol: "udp", DstPort: ports(fmt.Sprint(1000 + i))})
	}
	for _, list := range []string{"many", "!many"} {
		c.Filter = append(c.Filter, Rule{Chain: "forward", Action: "drop", SrcAddressList: list, DstAddressList: list})
	}
	assert.Equal(t, 4, lines(c, c), "nothing changes")
	for _, at := range []int{0, 100, len(c.Filter)} {
		next := c
		next.Filter = slices.Insert(slices.Clone(c.Filter), at, Rule{Chain: "forward", Action: "accept", Protocol: "tcp"})
		assert.Equal(t, 5, lines(c, next), at)
	}
	next := c
	next.AddressLists = map[string][]match.Addresses{"many": append(slices.Clone(c.AddressLists["many"]), addresses("127.9.9.9"))}
	assert.Equal(t, 4, lines(c, next), "a list changes alone")
}
