package firewall

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/match"
)

// TestMain makes the tests root of a network of their own, with a lock file of their own.
func TestMain(m *testing.M) { testnet.Main(m) }

// newRouter puts the goroutine, and the processes that it starts, on a new host.
func newRouter(t *testing.T) *testnet.Host {
	t.Helper()
	h := testnet.New(t, "router")
	require.NoError(t, h.Enter())
	return h
}

// withEach runs test in a fresh network namespace, with each kind of iptables.
func withEach(t *testing.T, test func(t *testing.T, program string, router *testnet.Host)) {
	for _, program := range []string{"iptables-legacy", "iptables-nft"} {
		t.Run(program, func(t *testing.T) {
			if _, err := exec.LookPath(program); err != nil {
				t.Fatalf("%v: install the Debian package iptables", err)
			}
			test(t, program, newRouter(t))
		})
	}
}

func newFirewall(t *testing.T, program string) *Firewall {
	f, err := New(program)
	require.NoError(t, err)
	return f
}

func openFirewall(f *Firewall, o ...Opening) error  { return f.ChangeOpenings(nil, o) }
func closeFirewall(f *Firewall, o ...Opening) error { return f.ChangeOpenings(o, nil) }

// save returns what iptables-save prints, without the comments.
func save(t *testing.T, program string, args ...string) string {
	out, err := exec.Command(program+"-save", args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func saveTables(t *testing.T, program string) string {
	return withSets(t, save(t, program, "-t", "filter")+save(t, program, "-t", "nat"))
}

// withSets returns rules with what the sets have in the place of their names.
func withSets(t *testing.T, text string) string {
	return regexp.MustCompile(setPrefix+`\d+`).ReplaceAllStringFunc(text, func(name string) string {
		return "{" + strings.Join(setOf(t, name), " ") + "}"
	})
}

// setOf returns the elements of a set, with "until" behind those that end.
func setOf(t *testing.T, name string) (all []string) {
	require.NoError(t, readSet(name, func(p netip.Prefix, left time.Duration) {
		text := p.String()
		if left > 0 {
			text += " until"
		}
		all = append(all, text)
	}))
	slices.Sort(all)
	return all
}

// bothCounters returns the counters of the tables filter and nat.
func bothCounters(f *Firewall) (filter, nat []Counter, err error) {
	if filter, err = f.Counters(Filter); err == nil {
		nat, err = f.Counters(NAT)
	}
	return filter, nat, err
}

const emptyNAT = `*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
COMMIT
`

const locked = `*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:postern-open - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -j postern-open
-A OUTPUT -o lo -m mark --mark 0xffffffff -j DROP
COMMIT
`

// full uses everything that a rule can say.
var full = Config{
	Filter: []Rule{
		{Chain: "input", Action: "accept", ConnectionState: "established,related"},
		{Chain: "input", Action: "accept", Protocol: "icmp", ICMPOptions: "8:0", Comment: `a "quoted" \ comment`},
		{Chain: "forward", Action: "drop", SrcAddress: addresses("192.168.0.0/24"), Protocol: "tcp", DstPort: ports("21")},
		{Chain: "input", Action: "drop", InInterface: "ether1", Disabled: true},
		{Chain: "forward", Action: "reject", Protocol: "tcp", DstPort: ports("!25,100-200"), RejectWith: "tcp-reset"},
		{Chain: "forward", Action: "passthrough", InInterface: "!ether1", OutInterface: "ether2"},
		{Chain: "output", Action: "drop", DstAddress: addresses("!10.0.0.1-10.0.0.9"), Protocol: "udp", SrcPort: ports("!53")},
		{Chain: "input", Action: "log", LogPrefix: `in "x": `},
		{Chain: "input", Action: "drop", Protocol: "!47"},
	},
	NAT: []Rule{
		{Chain: "srcnat", Action: "masquerade", SrcAddress: addresses("192.168.0.0/24")},
		{Chain: "dstnat", Action: "dst-nat", Protocol: "tcp", DstPort: ports("80"), ToAddresses: addresses("192.168.0.2"), ToPorts: ports("8080")},
		{Chain: "dstnat", Action: "redirect", Protocol: "udp", DstPort: ports("53"), ToPorts: ports("5353")},
		{Chain: "srcnat", Action: "src-nat", Protocol: "tcp", ToAddresses: addresses("1.2.3.4-1.2.3.9"), ToPorts: ports("1000-2000")},
		{Chain: "dstnat", Action: "passthrough"},
	},
}

const fullSaved = `*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:postern-open - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -j postern-open
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -m icmp --icmp-type 8/0 -m comment --comment "a \"quoted\" \\ comment" -j ACCEPT
-A INPUT -m limit --limit 20/sec --limit-burst 40 -j LOG --log-prefix "in \"x\": " --log-level 6
-A INPUT
-A INPUT ! -p gre -j DROP
-A INPUT -j ACCEPT
-A FORWARD -s 192.168.0.0/24 -p tcp -m tcp --dport 21 -j DROP
-A FORWARD -p tcp -m multiport ! --dports 25,100:200 -j REJECT --reject-with tcp-reset
-A FORWARD ! -i ether1 -o ether2
-A FORWARD -j ACCEPT
-A OUTPUT -o lo -m mark --mark 0xffffffff -j DROP
-A OUTPUT -p udp -m iprange ! --dst-range 10.0.0.1-10.0.0.9 -m udp ! --sport 53 -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.168.0.2:8080
-A PREROUTING -p udp -m udp --dport 53 -j REDIRECT --to-ports 5353
-A PREROUTING
-A POSTROUTING -s 192.168.0.0/24 -j MASQUERADE
-A POSTROUTING -p tcp -j SNAT --to-source 1.2.3.4-1.2.3.9:1000-2000
COMMIT
`

func TestLockAndApply(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		f := newFirewall(t, program)
		require.NoError(t, f.Lock())
		assert.Equal(t, locked+emptyNAT, saveTables(t, program))
		filter, nat, err := bothCounters(f)
		require.NoError(t, err)
		assert.Empty(t, filter)
		assert.Empty(t, nat)

		require.NoError(t, f.Apply(full))
		assert.Equal(t, fullSaved, saveTables(t, program))
		require.NoError(t, f.Apply(full), "again")
		assert.Equal(t, fullSaved, saveTables(t, program))

		open := strings.Replace(locked, "-A OUTPUT", "-A INPUT -j ACCEPT\n-A FORWARD -j ACCEPT\n-A OUTPUT", 1)
		require.NoError(t, f.Apply(Config{}))
		assert.Equal(t, open+emptyNAT, saveTables(t, program))
		require.NoError(t, f.Lock())
		assert.Equal(t, locked+emptyNAT, saveTables(t, program))
	})
}

func TestLeftovers(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		earlier := newFirewall(t, program)
		require.NoError(t, earlier.Apply(full))
		require.NoError(t, openFirewall(earlier, Opening{Port: 4000}))
		for _, args := range []string{
			"-N stray", "-I INPUT -j stray", "-A stray -j ACCEPT", "-P FORWARD ACCEPT", "-N " + rehearsalChain,
			"-t nat -N stray", "-t nat -I OUTPUT -j stray", "-t nat -N " + rehearsalChain,
		} {
			out, err := exec.Command(program, strings.Fields(args)...).CombinedOutput()
			require.NoError(t, err, "%s: %s", args, out)
		}

		f := newFirewall(t, program)
		require.NoError(t, f.Lock())
		assert.Equal(t, locked, save(t, program, "-t", "filter"))
		require.NoError(t, f.Apply(full))
		assert.Equal(t, fullSaved, saveTables(t, program))
	})
}

// TestRefusal goes past Validate, which lets nothing through that this kernel would
// refuse.
func TestRefusal(t *testing.T) {
	accept := Rule{Chain: "forward", Action: "accept"}
	off := Rule{Chain: "forward", Action: "accept", Disabled: true}
	for _, test := range []struct {
		name   string
		config Config
		want   string
	}{
		{"by the kernel, in filter",
			Config{Filter: []Rule{off, accept, {Chain: "forward", Action: "masquerade"}, accept}},
			"filter rule 2 (chain=forward action=masquerade): iptables-restore: "},
		{"by iptables, in filter",
			Config{Filter: []Rule{accept, {Chain: "forward", Action: "drop", Protocol: "nosuch"}}},
			"filter rule 1 (chain=forward action=drop protocol=nosuch): iptables-restore: unknown protocol"},
		{"by iptables, in nat, for its ports",
			Config{NAT: []Rule{{Chain: "srcnat", Action: "masquerade"}, {Chain: "dstnat", Action: "dst-nat", ToPorts: ports("80")}}},
			"nat rule 1 (chain=dstnat action=dst-nat to-ports=80): iptables-restore: "},
		{"by iptables, in nat",
			Config{Filter: []Rule{accept}, NAT: []Rule{{Chain: "dstnat", Action: "drop"}}},
			`nat rule 0 (chain=dstnat action=drop): iptables-restore: The "nat" table is not intended for filtering`},
		// In the rehearsal, which hangs on no hook, the kernel takes this one: the
		// filter table is swapped by then, and has to be swapped back.
		{"by the kernel, after filter",
			Config{Filter: []Rule{accept}, NAT: []Rule{{Chain: "dstnat", Action: "masquerade"}}},
			"nat"}, // the table as a whole, or from nft the rule
	} {
		t.Run(test.name, func(t *testing.T) {
			withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
				f := newFirewall(t, program)
				require.NoError(t, f.Lock())
				assert.ErrorContains(t, f.apply(test.config), test.want)
				assert.Equal(t, locked+emptyNAT, saveTables(t, program), "locked still")

				require.NoError(t, f.Apply(full))
				require.NoError(t, openFirewall(f, Opening{Port: 4000}))
				before := saveTables(t, program)
				err := f.apply(test.config)
				require.ErrorContains(t, err, test.want)
				assert.NotContains(t, err.Error(), "putting the old rules back")
				assert.Equal(t, before, saveTables(t, program), "the old rules stand")
				_, err = f.Counters(Filter)
				assert.NoError(t, err)
			})
		})
	}
}

func TestApplyValidates(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		f := newFirewall(t, program)
		require.NoError(t, f.Lock())
		assert.ErrorContains(t, f.Apply(Config{Filter: []Rule{{Chain: "input", Action: "allow"}}}),
			"firewall: apply: filter rule 0: action=allow: expected")
		assert.Equal(t, locked, save(t, program, "-t", "filter"))
	})
}

func TestCounters(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		count := Rule{Chain: "output", Action: "passthrough", Protocol: "udp", DstPort: ports("4001")}
		twice := Rule{Chain: "output", Action: "passthrough", Protocol: "udp", DstPort: ports("4001-4002")}
		off := Rule{Chain: "output", Action: "passthrough", Disabled: true}
		natOff := Rule{Chain: "srcnat", Action: "passthrough", Disabled: true}
		nat := Rule{Chain: "srcnat", Action: "passthrough", Protocol: "udp", DstPort: ports("4002"), Comment: "-c 7 8"}
		// No connection is tracked, and so none met by nat, until a rule asks for it.
		track := Rule{Chain: "output", Action: "passthrough", ConnectionState: "invalid"}
		f := newFirewall(t, program)
		require.NoError(t, f.Apply(Config{Filter: []Rule{off, count, off, twice, count, track}, NAT: []Rule{natOff, nat}}))

		send(t, "127.0.0.1:4001", "four")
		send(t, "127.0.0.1:4002", "four")
		const size = 20 + 8 + 4 // IPv4 header, UDP header, text
		one, two := Counter{1, size}, Counter{2, 2 * size}
		gotFilter, gotNAT, err := bothCounters(f)
		require.NoError(t, err)
		assert.Equal(t, []Counter{{}, one, {}, two, one, {}}, gotFilter)
		assert.Equal(t, []Counter{{}, one}, gotNAT)

		// The rules moved, one lost its comment, one of two equal ones went.
		nat.Comment = ""
		fresh := Rule{Chain: "input", Action: "drop", Protocol: "tcp"}
		require.NoError(t, f.Apply(Config{Filter: []Rule{fresh, twice, count, off}, NAT: []Rule{nat}}))
		send(t, "127.0.0.1:4001", "four")
		gotFilter, gotNAT, err = bothCounters(f)
		require.NoError(t, err)
		assert.Equal(t, []Counter{{}, {3, 3 * size}, two, {}}, gotFilter)
		assert.Equal(t, []Counter{one}, gotNAT)

		out, err := exec.Command(program, "-I", "OUTPUT", "-j", "ACCEPT").CombinedOutput()
		require.NoError(t, err, "%s", out)
		_, err = f.Counters(Filter)
		assert.ErrorContains(t, err, "list filter: chain OUTPUT: expected 3 rules, got 4")
		assert.NoError(t, f.Apply(Config{}))
	})
}

func TestResetCounters(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		f := newFirewall(t, program)
		assert.EqualError(t, f.ResetCounters(Filter, nil), "firewall: reset counters: no rules are in force")
		count := Rule{Chain: "output", Action: "passthrough", Protocol: "udp", DstPort: ports("4001")}
		listed := Rule{Chain: "output", Action: "passthrough", Protocol: "udp", DstAddressList: "two"}
		nat := Rule{Chain: "srcnat", Action: "passthrough", Protocol: "udp"}
		track := Rule{Chain: "output", Action: "drop", ConnectionState: "invalid"} // see TestCounters
		require.NoError(t, f.Apply(Config{Filter: []Rule{count, listed, count, track}, NAT: []Rule{nat, nat},
			AddressLists: map[string][]match.Addresses{"two": {addresses("127.0.0.1"), addresses("127.0.0.9")}}}))
		require.NoError(t, openFirewall(f, Opening{Port: 4000}))
		packets := func() (all []uint64) {
			filter, nat, err := bothCounters(f)
			require.NoError(t, err)
			for _, c := range append(filter, nat...) {
				all = append(all, c.Packets)
			}
			return all
		}
		send(t, "127.0.0.1:4001", "x")
		assert.Equal(t, []uint64{1, 1, 1, 0, 1, 1}, packets())
		require.NoError(t, f.ResetCounters(Filter, []int{1, 2}))
		assert.Equal(t, []uint64{1, 0, 0, 0, 1, 1}, packets())
		require.NoError(t, f.ResetCounters(NAT, []int{0}))
		assert.Equal(t, []uint64{1, 0, 0, 0, 0, 1}, packets())
		send(t, "127.0.0.9:4001", "x")
		assert.Equal(t, []uint64{2, 1, 1, 0, 1, 2}, packets())
		assert.EqualError(t, f.ResetCounters(NAT, []int{0, 2}), "firewall: reset counters: no nat rule 2")
		assert.Equal(t, []uint64{2, 1, 1, 0, 1, 2}, packets(), "all or nothing")
		assert.Contains(t, save(t, program, "-t", "filter"), "-A postern-open -p tcp -m tcp --dport 4000 -j ACCEPT")

		// The kernel has no rule for an empty list, and so not its counters either.
		require.NoError(t, f.Apply(Config{Filter: []Rule{count, listed, count, track}, NAT: []Rule{nat, nat}}))
		assert.Equal(t, []uint64{2, 1, 1, 0, 1, 2}, packets())
		assert.EqualError(t, f.ResetCounters(Filter, []int{0, 1, 4}), "firewall: reset counters: no filter rule 4")
		assert.Equal(t, []uint64{2, 1, 1, 0, 1, 2}, packets(), "all or nothing")
		restore := f.restoreProgram
		f.restoreProgram = "/no-program"
		assert.ErrorContains(t, f.ResetCounters(Filter, []int{0, 1}), "firewall: reset counters: run /no-program")
		f.restoreProgram = restore
		assert.Equal(t, []uint64{2, 1, 1, 0, 1, 2}, packets(), "all or nothing")
		require.NoError(t, f.ResetCounters(Filter, []int{0, 1}))
		assert.Equal(t, []uint64{0, 0, 1, 0, 1, 2}, packets())
	})
}

func send(t *testing.T, to, text string) {
	c, err := net.Dial("udp", to)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte(text))
	require.NoError(t, err)
}

func TestOpenings(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		chain := func() string {
			out, err := exec.Command(program, "-S", openChain).CombinedOutput()
			require.NoError(t, err, "%s", out)
			return strings.ReplaceAll(string(out), "-A "+openChain+" ", "")
		}
		const header = "-N " + openChain + "\n"
		peer, local := netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("5.6.7.8")
		one := Opening{Peer: peer, Local: local, Port: 4000}
		f := newFirewall(t, program)
		assert.Error(t, openFirewall(f, one), "before Lock")
		require.NoError(t, f.Lock())

		require.NoError(t, openFirewall(f, one))
		require.NoError(t, openFirewall(f, one), "again")
		require.NoError(t, openFirewall(f, Opening{Peer: netip.IPv4Unspecified(), Local: netip.MustParseAddr("::ffff:5.6.7.8"), Port: 4001}))
		const first = "-s 1.2.3.4/32 -d 5.6.7.8/32 -p tcp -m tcp --dport 4000 -j ACCEPT\n"
		const others = "-d 5.6.7.8/32 -p tcp -m tcp --dport 4000 -j DROP\n"
		const both = "-d 5.6.7.8/32 -p tcp -m tcp --dport 4001 -j ACCEPT\n" + first + others
		assert.Equal(t, header+both, chain())
		assert.Equal(t, []Opening{one, {Local: local, Port: 4001}}, f.Openings())
		require.NoError(t, f.Apply(full))
		assert.Equal(t, header+both, chain(), "after Apply")
		assert.Error(t, f.apply(Config{Filter: []Rule{{Chain: "input", Action: "masquerade"}}}))
		assert.Equal(t, header+both, chain(), "after a refused Apply")

		require.NoError(t, closeFirewall(f, Opening{Local: local, Port: 4001}))
		require.NoError(t, closeFirewall(f, Opening{Local: local, Port: 4001}), "again")
		require.NoError(t, closeFirewall(f, Opening{Port: 9}), "never open")
		assert.Equal(t, header+first+others, chain())

		require.NoError(t, openFirewall(f, Opening{Port: 4002}))
		require.NoError(t, closeFirewall(f, Opening{Port: 4002}))
		datagrams := one
		datagrams.UDP = true
		require.NoError(t, openFirewall(f, datagrams), "the UDP port of the same number")
		assert.Equal(t, []Opening{one, datagrams}, f.Openings())
		require.NoError(t, closeFirewall(f, one))
		assert.Equal(t, header+strings.ReplaceAll(first+others, "tcp", "udp"), chain())
		require.NoError(t, closeFirewall(f, datagrams))
		assert.Equal(t, header, chain())
		assert.Empty(t, f.Openings())
		assert.Equal(t, fullSaved, saveTables(t, program))

		require.NoError(t, openFirewall(f, one))
		out, err := exec.Command(program, "-F", openChain).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.NoError(t, closeFirewall(f, one), "taken away by someone else")
		assert.Equal(t, header, chain())

		require.NoError(t, openFirewall(f, one, datagrams))
		require.NoError(t, f.ChangeOpenings([]Opening{one, {Port: 9}}, []Opening{{Local: local, Port: 4001}, datagrams, one}), "one is closed, and then open")
		assert.Equal(t, []Opening{datagrams, {Local: local, Port: 4001}, one}, f.Openings())
		out, err = exec.Command(program, "-D", openChain, "3").CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.NoError(t, f.ChangeOpenings([]Opening{datagrams, {Local: local, Port: 4001}}, []Opening{{Port: 4002}}))
		assert.Equal(t, header+"-p tcp -m tcp --dport 4002 -j ACCEPT\n"+first+others, chain(),
			"somebody took the first one away: all is as it should be nevertheless")
		require.Error(t, f.ChangeOpenings([]Opening{one}, []Opening{{Port: 4003}, {}}))
		assert.Equal(t, []Opening{one, {Port: 4002}}, f.Openings(), "all or nothing")

		require.NoError(t, openFirewall(f, one))
		require.NoError(t, f.Lock())
		assert.Empty(t, f.Openings())
		assert.Equal(t, locked, save(t, program, "-t", "filter"))

		assert.ErrorContains(t, openFirewall(f, Opening{Peer: netip.MustParseAddr("2001:db8::1"), Port: 1}), "2001:db8::1 is not an IPv4 address")
		assert.ErrorContains(t, openFirewall(f, Opening{Peer: peer}), "port 0")
	})
}

// TestConcurrency leaves it to the race detector to object, and looks at the sum.
func TestConcurrency(t *testing.T) {
	withEach(t, func(t *testing.T, program string, router *testnet.Host) {
		f := newFirewall(t, program)
		require.NoError(t, f.Lock())
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				require.NoError(t, router.Enter())
				o := Opening{Port: uint16(4000 + i)}
				assert.NoError(t, openFirewall(f, o))
				assert.NoError(t, f.Apply(full))
				_, err := f.Counters(Filter)
				assert.NoError(t, err)
				f.Openings()
				assert.NoError(t, closeFirewall(f, o))
			})
		}
		wg.Wait()
		assert.Equal(t, fullSaved, saveTables(t, program))
	})
}

func TestMissingPrograms(t *testing.T) {
	_, err := New("iptables-nosuch")
	assert.ErrorIs(t, err, exec.ErrNotFound)
	assert.ErrorContains(t, err, "firewall: no program iptables-nosuch (Debian: package iptables)")

	lone := filepath.Join(t.TempDir(), "iptables")
	require.NoError(t, os.WriteFile(lone, []byte("#!/bin/sh\n"), 0o755))
	_, err = New(lone)
	assert.ErrorIs(t, err, os.ErrNotExist)
	assert.ErrorContains(t, err, "has no -restore program beside it")
}

// TestProcesses counts the processes of each operation: on a small board one costs
// 20 to 50 ms, and power-on to service is to take a second.
func TestProcesses(t *testing.T) {
	newRouter(t)
	dir := t.TempDir()
	journal := filepath.Join(dir, "journal")
	for _, name := range []string{"", "-restore"} {
		real, err := exec.LookPath("iptables-legacy" + name)
		require.NoError(t, err, "install the Debian package iptables")
		wrapper := fmt.Sprintf("#!/bin/sh\necho >>%s\nexec %s \"$@\"\n", journal, real)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "iptables"+name), []byte(wrapper), 0o755))
	}
	var f *Firewall
	config := Config{Filter: full.Filter[:3], NAT: full.NAT[:1]}
	marked := config
	marked.Filter = []Rule{config.Filter[1], config.Filter[0], config.Filter[2]}
	for _, dscp := range []string{"1", "3", "4"} {
		marked.Mangle = append(marked.Mangle, Rule{Chain: "forward", Action: "change-dscp", NewDSCP: dscp})
	}
	for _, op := range []struct {
		name string
		do   func() error
		want int
	}{
		{"New", func() (err error) { f, err = New(filepath.Join(dir, "iptables")); return }, 0},
		{"Lock", func() error { return f.Lock() }, 1},
		{"first Apply", func() error { return f.Apply(config) }, 1},
		{"first Counters: one, and the version", func() error { _, err := f.Counters(Filter); return err }, 2},
		{"Counters", func() error { _, err := f.Counters(Filter); return err }, 1},
		{"Apply of the same: the version", func() error { return f.Apply(config) }, 1},
		{"Apply of the same", func() error { return f.Apply(config) }, 0},
		{"Apply of a rule more", func() error {
			return f.Apply(Config{Filter: append(slices.Clone(config.Filter), Rule{Chain: "input", Action: "drop"}), NAT: config.NAT})
		}, 1},
		{"Apply in another order, with the counters", func() error {
			return f.Apply(Config{Filter: []Rule{config.Filter[1], config.Filter[0], config.Filter[2]}, NAT: config.NAT})
		}, 3},
		{"first Apply of mangle", func() error { return f.Apply(marked) }, 1},
		{"Apply of another rule of mangle", func() error {
			marked.Mangle[0].NewDSCP = "2"
			return f.Apply(marked)
		}, 1},
		{"Apply of an invalid rule", func() error { assert.Error(t, f.Apply(Config{Filter: []Rule{{}}})); return nil }, 0},
		{"Open", func() error { return openFirewall(f, Opening{Port: 1}) }, 1},
		{"Open again", func() error { return openFirewall(f, Opening{Port: 1}) }, 0},
		{"Open another", func() error { return openFirewall(f, Opening{Port: 2}) }, 1},
		{"Close", func() error { return closeFirewall(f, Opening{Port: 1}) }, 1},
		{"Close again", func() error { return closeFirewall(f, Opening{Port: 1}) }, 0},
		{"several at once", func() error {
			return f.ChangeOpenings([]Opening{{Port: 2}, {Port: 1}}, []Opening{{Port: 3}, {Port: 4}})
		}, 1},
	} {
		require.NoError(t, os.WriteFile(journal, nil, 0o600))
		require.NoError(t, op.do(), op.name)
		lines, err := os.ReadFile(journal)
		require.NoError(t, err)
		assert.Len(t, lines, op.want, op.name)
	}
}

// FuzzApply: a comment, in one line, and a log prefix that Validate lets through come back from
// the kernel as they were, and the rules around them stay as they are.
func FuzzApply(f *testing.F) {
	for _, s := range []string{"", " ", `"`, `\`, `\"`, `a b`, "'$(reboot)'", "-j", "!", "# x", "COMMIT", "ü", "--table nat", "-t", "T\xfcr", "a\r\nb"} {
		f.Add(s, s)
	}
	router := testnet.New(f, "router")
	f.Fuzz(func(t *testing.T, comment, prefix string) {
		if len(prefix) > maxLogPrefix {
			prefix = prefix[:maxLogPrefix]
		}
		r := Rule{Chain: "forward", Action: "log", Comment: comment, LogPrefix: prefix}
		if r.Validate(Filter) != nil {
			return
		}
		require.NoError(t, router.Enter())
		fw := newFirewall(t, "iptables-legacy")
		require.NoError(t, fw.Apply(Config{Filter: []Rule{r}}))
		count := []string{"-A", "FORWARD"}
		if comment != "" {
			count = append(count, "-m", "comment", "--comment", oneLine(comment))
		}
		want := append(slices.Clone(count), "-m", "limit", "--limit", "20/sec", "--limit-burst", "40", "-j", "LOG")
		if prefix != "" {
			want = append(want, "--log-prefix", prefix)
		}
		want = append(want, "--log-level", "6")
		lines := strings.Split(save(t, "iptables-legacy", "-t", "filter"), "\n")
		require.Len(t, lines, 14)
		assert.Equal(t, want, words(lines[8]))
		assert.Equal(t, count, words(lines[9]))
		assert.Equal(t, "-A FORWARD -j ACCEPT", lines[10])
	})
}

// TestNoGap sends packets without pause through and to a router whose rules change
// a hundred times: not one that is forbidden may pass, not one that is allowed may
// be lost. Lost means that it never comes, and not that this machine had no time for
// the receivers until their buffers were full: the sender is never further ahead of
// them than what these hold.
func TestNoGap(t *testing.T) {
	withEach(t, func(t *testing.T, program string, router *testnet.Host) {
		f := newFirewall(t, program)
		require.NoError(t, f.Lock())

		// client 10.0.1.2 -- 10.0.1.1 router 10.0.2.1 -- 10.0.2.2 server
		client, server := testnet.New(t, "client"), testnet.New(t, "server")
		connect(t, router, client, 1)
		connect(t, router, server, 2)
		require.NoError(t, router.Set("net.ipv4.ip_forward", "1"))

		allowed := []Rule{
			{Chain: "input", Action: "drop", Protocol: "udp", DstPort: ports("1000")},
			{Chain: "forward", Action: "drop", Protocol: "udp", DstPort: ports("1000")},
		}
		nat := []Rule{{Chain: "dstnat", Action: "dst-nat", InInterface: "to1", Protocol: "udp", DstPort: ports("3000"), ToAddresses: addresses("10.0.2.2")}}
		configs := []Config{
			{Filter: allowed, NAT: nat},
			{
				Filter: append([]Rule{{Chain: "forward", Action: "passthrough"}, {Chain: "input", Action: "passthrough"}}, allowed...),
				NAT:    append([]Rule{{Chain: "dstnat", Action: "passthrough"}}, nat...),
			},
		}
		require.NoError(t, f.Apply(configs[0]))

		toRouter1000, toRouter2000 := listen(t, "10.0.1.1:1000"), listen(t, "10.0.1.1:2000")
		require.NoError(t, server.Enter())
		toServer1000, toServer2000, toServer3000 := listen(t, "10.0.2.2:1000"), listen(t, "10.0.2.2:2000"), listen(t, "10.0.2.2:3000")
		require.NoError(t, router.Enter())

		const window = 256 // a receiver's buffer holds 2000 and more
		stop, sent := make(chan struct{}), make(chan int)
		go func() {
			n := 0
			defer func() { sent <- n }()
			if !assert.NoError(t, client.Enter()) {
				return
			}
			for {
				select {
				case <-stop:
					return
				default:
				}
				// A new socket each time, so that each packet is a new connection,
				// the only ones to meet the nat table.
				for _, to := range []string{"10.0.1.1:1000", "10.0.1.1:2000", "10.0.2.2:1000", "10.0.2.2:2000", "10.0.1.1:3000"} {
					send(t, to, "x")
				}
				n++
				// Half the time is for the receivers.
				time.Sleep(200 * time.Microsecond)
				if !within(n-window, toRouter2000, toServer2000, toServer3000) {
					return
				}
			}
		}()
		for i := range 100 {
			require.NoError(t, f.Apply(configs[(i+1)%2]))
		}
		close(stop)
		n := <-sent
		within(n, toRouter2000, toServer2000, toServer3000)
		time.Sleep(100 * time.Millisecond) // for those that must not come
		t.Logf("%d packets of each kind", n)
		assert.Greater(t, n, 100)
		assert.EqualValues(t, 0, toRouter1000.Load(), "forbidden, to the router")
		assert.EqualValues(t, 0, toServer1000.Load(), "forbidden, to the server")
		assert.EqualValues(t, n, toRouter2000.Load(), "allowed, to the router")
		assert.EqualValues(t, n, toServer2000.Load(), "allowed, to the server")
		assert.EqualValues(t, n, toServer3000.Load(), "to the server by dst-nat")
	})
}

// TestOpeningForOne opens a port for one host. Another, which the user's rules let in, reaches every
// port but that: the first call of a BIND would end it.
func TestOpeningForOne(t *testing.T) {
	withEach(t, func(t *testing.T, program string, router *testnet.Host) {
		f := newFirewall(t, program)
		require.NoError(t, f.Lock())
		peer, other := testnet.New(t, "peer"), testnet.New(t, "other")
		connect(t, router, peer, 1)
		connect(t, router, other, 2)
		require.NoError(t, f.Apply(Config{}))
		one := Opening{Peer: netip.MustParseAddr("10.0.1.2"), Local: netip.MustParseAddr("10.0.1.1"), Port: 1000, UDP: true}
		all := Opening{Local: netip.MustParseAddr("10.0.1.1"), Port: 1500, UDP: true}
		require.NoError(t, openFirewall(f, one, all))
		opened, anybody, plain := listen(t, "10.0.1.1:1000"), listen(t, "10.0.1.1:1500"), listen(t, "10.0.1.1:2000")
		call := func(h *testnet.Host) {
			require.NoError(t, h.Enter())
			// The last one tells that the others have come, or never will.
			for _, to := range []string{"10.0.1.1:1000", "10.0.1.1:1500", "10.0.1.1:2000"} {
				send(t, to, "x")
			}
			require.NoError(t, router.Enter())
		}
		call(other)
		require.True(t, within(1, anybody, plain))
		call(peer)
		require.True(t, within(2, anybody, plain))
		require.True(t, within(1, opened))
		assert.EqualValues(t, 1, opened.Load(), "the peer's alone")
		require.NoError(t, closeFirewall(f, one))
		call(other)
		require.True(t, within(2, opened), "closed again, it is the user's rules' as any port")
	})
}

// connect ties router and peer, which gets a default route, by the network 10.0.n.0/24.
func connect(t *testing.T, router, peer *testnet.Host, n byte) {
	t.Helper()
	require.NoError(t, testnet.Link(router, fmt.Sprintf("to%d", n), peer, "eth0"))
	require.NoError(t, router.IP(fmt.Sprintf("addr add 10.0.%d.1/24 dev to%[1]d", n)))
	require.NoError(t, peer.IP(fmt.Sprintf("addr add 10.0.%d.2/24 dev eth0", n), fmt.Sprintf("route add default via 10.0.%d.1", n)))
}

// listen counts the packets that arrive at address until the test ends.
func listen(t *testing.T, address string) *atomic.Int64 {
	c, err := net.ListenPacket("udp4", address)
	require.NoError(t, err)
	require.NoError(t, c.(*net.UDPConn).SetReadBuffer(1<<20))
	t.Cleanup(func() { c.Close() })
	n := new(atomic.Int64)
	go func() {
		for buffer := make([]byte, 64); ; n.Add(1) {
			if _, _, err := c.ReadFrom(buffer); err != nil {
				return
			}
		}
	}()
	return n
}

// within waits until each of the receivers has n packets. It returns false if one gets
// none for as long as no machine is busy.
func within(n int, receivers ...*atomic.Int64) bool {
	for _, r := range receivers {
		last, since := r.Load(), time.Now()
		for last < int64(n) {
			time.Sleep(time.Millisecond)
			switch now := r.Load(); {
			case now > last:
				last, since = now, time.Now()
			case time.Since(since) > 10*time.Second:
				return false
			}
		}
	}
	return true
}
