package firewall

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink/nl"

	"github.com/postern-router/postern/internal/nlattr"
	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/match"
)

func TestPrefixes(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1":                  "10.0.0.1/32",
		"10.0.0.0/24":               "10.0.0.0/24",
		"10.0.0.1-10.0.0.6":         "10.0.0.1/32 10.0.0.2/31 10.0.0.4/31 10.0.0.6/32",
		"0.0.0.0/0":                 "0.0.0.0/1 128.0.0.0/1", // the kernel's sets have no /0
		"0.0.0.0-128.0.0.0":         "0.0.0.0/1 128.0.0.0/32",
		"255.255.255.255":           "255.255.255.255/32",
		"127.255.255.255-128.0.0.1": "127.255.255.255/32 128.0.0.0/31",
	} {
		var got []string
		for p := range prefixes(addresses(text)) {
			got = append(got, p.String())
		}
		assert.Equal(t, want, strings.Join(got, " "), text)
	}
	n := 0
	for range prefixes(addresses("0.0.0.1-255.255.255.254")) {
		n++
	}
	assert.Equal(t, 62, n)
}

// passes sends a packet that a rule with action=drop may stop.
func passes(t *testing.T, to string) bool {
	t.Helper()
	c, err := net.Dial("udp4", net.JoinHostPort(to, "9"))
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("x"))
	return err == nil
}

func byList(entries ...string) map[string][]match.Addresses {
	var all []match.Addresses
	for _, e := range entries {
		all = append(all, addresses(e))
	}
	return map[string][]match.Addresses{"list": all}
}

// A list alone changes without a process: one entry by one message, more of them by another set. What other entries
// say goes on.
func TestListChangesAlone(t *testing.T) {
	newRouter(t)
	f := newFirewall(t, "iptables-legacy")
	c := Config{Filter: []Rule{{Chain: "output", Action: "drop", Protocol: "udp", DstPort: ports("9"), DstAddressList: "list"}}}
	require.NoError(t, f.Apply(c))
	assert.True(t, passes(t, "127.0.0.1"), "an empty list")
	f.restoreProgram = "/nowhere"
	set := f.lists["list"].set
	for _, step := range []struct {
		name string
		list []string
		want string
	}{
		{"one", []string{"127.0.0.1"}, "127.0.0.1/32"},
		{"one more", []string{"127.0.0.1", "127.0.0.8/29"}, "127.0.0.1/32 127.0.0.8/29"},
		{"the same twice", []string{"127.0.0.1", "127.0.0.8/29", "127.0.0.8-127.0.0.15"}, "127.0.0.1/32 127.0.0.8/29"},
		{"another", []string{"127.0.0.2", "127.0.0.8/29"}, "127.0.0.2/32 127.0.0.8/29"},
		{"a range", []string{"127.0.0.2", "127.0.0.8/29", "127.1.0.1-127.1.0.4"}, "127.0.0.2/32 127.0.0.8/29 127.1.0.1/32 127.1.0.2/31 127.1.0.4/32"},
		{"one less", []string{"127.0.0.8/29", "127.1.0.1-127.1.0.4"}, "127.0.0.8/29 127.1.0.1/32 127.1.0.2/31 127.1.0.4/32"},
		{"all", []string{"0.0.0.0/0"}, "0.0.0.0/1 128.0.0.0/1"},
		{"none", nil, ""},
	} {
		c.AddressLists = byList(step.list...)
		require.NoError(t, f.Apply(c), step.name)
		assert.Equal(t, step.want, strings.Join(setOf(t, set), " "), step.name)
		for _, to := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.9", "127.1.0.3", "127.1.0.5"} {
			in := slices.ContainsFunc(c.AddressLists["list"], func(a match.Addresses) bool { return a.Match(netip.MustParseAddr(to)) })
			assert.Equal(t, !in, passes(t, to), "%s: %s", step.name, to)
		}
	}
	numbers, err := setNumbers()
	require.NoError(t, err)
	assert.Len(t, numbers, 1)
}

// Rules and lists change together: if a rule is refused, the lists stay too.
func TestListsChangeWithRules(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		f := newFirewall(t, program)
		drop := Rule{Chain: "output", Action: "drop", Protocol: "udp", DstPort: ports("9"), DstAddressList: "list"}
		old := Config{Filter: []Rule{drop}, AddressLists: byList("127.0.0.1")}
		require.NoError(t, f.Apply(old))
		next := old
		next.Filter = []Rule{drop, {Chain: "output", Action: "passthrough", Protocol: "udp", DstAddressList: "other"}}
		next.NAT = []Rule{{Chain: "dstnat", Action: "masquerade"}} // refused after filter was swapped, see TestRefusal
		next.AddressLists = byList("127.0.0.2")
		require.Error(t, f.apply(next))
		numbers, err := setNumbers()
		require.NoError(t, err)
		assert.Len(t, numbers, 1, "the new ones have gone")
		assert.False(t, passes(t, "127.0.0.1"))
		assert.True(t, passes(t, "127.0.0.2"))

		next.NAT = nil
		require.NoError(t, f.Apply(next))
		assert.True(t, passes(t, "127.0.0.1"))
		assert.False(t, passes(t, "127.0.0.2"))
		numbers, err = setNumbers()
		require.NoError(t, err)
		assert.Len(t, numbers, 2, "the old one has gone")

		// Another Firewall takes over what there is.
		f = newFirewall(t, program)
		require.NoError(t, f.Lock())
		require.NoError(t, f.Apply(old))
		assert.False(t, passes(t, "127.0.0.1"))
		assert.True(t, passes(t, "127.0.0.2"))
		numbers, err = setNumbers()
		require.NoError(t, err)
		assert.Len(t, numbers, 1)
		require.NoError(t, f.Apply(Config{}))
		numbers, err = setNumbers()
		require.NoError(t, err)
		assert.Empty(t, numbers)
	})
}

// timeouts are the elements of a set that end, and when.
func timeouts(t *testing.T, set string) map[string]time.Duration {
	all := map[string]time.Duration{}
	require.NoError(t, readSet(set, func(p netip.Prefix, left time.Duration) { all[p.String()] = left }))
	return all
}

// An entry with a timeout is there until then, and no change of other entries prolongs it.
func TestTemporary(t *testing.T) {
	newRouter(t)
	f := newFirewall(t, "iptables-legacy")
	c := Config{
		Filter:       []Rule{{Chain: "output", Action: "drop", Protocol: "udp", DstPort: ports("9"), DstAddressList: "list"}},
		AddressLists: byList("127.0.0.1"),
	}
	now := time.Now()
	until := func(a string, d time.Duration) Temporary { return Temporary{addresses(a), now.Add(d)} }
	near := func(want time.Duration, set, prefix string) {
		t.Helper()
		got := timeouts(t, set)
		require.Contains(t, got, prefix)
		assert.InDelta(t, time.Until(now.Add(want)).Seconds(), got[prefix].Seconds(), 2, "%s of %v", prefix, got)
	}
	for _, step := range []struct {
		name      string
		temporary []Temporary
	}{
		{"one", []Temporary{until("127.0.0.2", time.Hour)}},
		{"more", []Temporary{until("127.0.0.2", time.Hour), until("127.0.0.8/30", MaxListTimeout), until("127.0.0.1", time.Minute), until("127.0.0.3", 0)}},
		{"longer", []Temporary{until("127.0.0.2", 2*time.Hour), until("127.0.0.8/30", MaxListTimeout)}},
		{"twice", []Temporary{until("127.0.0.2", time.Hour), until("127.0.0.2", 2*time.Hour)}},
	} {
		c.Temporary = map[string][]Temporary{"list": step.temporary}
		require.NoError(t, f.Apply(c), step.name)
		set := f.lists["list"].set
		last := map[string]time.Duration{}
		for _, e := range step.temporary {
			last[e.Addresses.String()] = max(last[e.Addresses.String()], e.Until.Sub(now))
		}
		size := 1
		for a, d := range last {
			prefix := a
			if !strings.Contains(a, "/") {
				prefix += "/32"
			}
			if d > 0 && a != "127.0.0.1" {
				near(d, set, prefix)
				size++
			}
		}
		got := timeouts(t, set)
		assert.Len(t, got, size, "%s: %v", step.name, got)
		assert.Zero(t, got["127.0.0.1/32"], "%s: it is listed for ever", step.name)
		assert.Contains(t, got, "127.0.0.1/32")
	}
	assert.False(t, passes(t, "127.0.0.2"))
}

// What ends this very moment is not put in: without any time left it would stay for ever.
func TestTemporaryEndsNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		assert.NoError(t, changeSet(nl.IPSET_CMD_ADD, "no-such-set", []element{{netip.MustParsePrefix("127.0.0.1/32"), time.Now()}}))
	})
}

// Packets put addresses into a list, which other rules match from then on.
func TestFilledLists(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		f := newFirewall(t, program)
		f.room = 4
		add := Rule{Chain: "output", Action: "add-dst-to-address-list", Protocol: "udp", DstPort: ports("4001"), AddressList: "list", AddressListTimeout: time.Minute}
		drop := Rule{Chain: "output", Action: "drop", Protocol: "udp", DstPort: ports("9"), DstAddressList: "list"}
		c := Config{Filter: []Rule{add, drop}, AddressLists: byList("127.1.0.0/16")}
		require.NoError(t, f.Apply(c))
		assert.True(t, passes(t, "127.0.0.1"))
		send(t, "127.0.0.1:4001", "x")
		send(t, "127.1.0.1:4001", "x") // of a network that is listed: the host alone is added
		assert.False(t, passes(t, "127.0.0.1"))
		assert.True(t, passes(t, "127.0.0.2"))

		filled := func() map[string]time.Duration {
			t.Helper()
			all, more, err := f.Filled(100)
			assert.Zero(t, more)
			require.NoError(t, err)
			got := map[string]time.Duration{}
			for _, a := range all {
				got[a.List+" "+a.Address.String()] = a.Left
			}
			return got
		}
		got := filled()
		assert.Len(t, got, 2)
		assert.LessOrEqual(t, got["list 127.0.0.1"], time.Minute)
		assert.Positive(t, got["list 127.0.0.1"])

		// They stay while rules and entries change, and while the rule is disabled. A packet begins the time anew.
		add.AddressListTimeout, add.Comment = time.Hour, "x"
		c.Filter = []Rule{{Chain: "output", Action: "passthrough"}, add, drop}
		c.AddressLists = byList("127.1.0.0/16", "127.2.0.0/16")
		require.NoError(t, f.Apply(c))
		assert.Len(t, filled(), 2)
		send(t, "127.0.0.1:4001", "x")
		got = filled()
		assert.Greater(t, got["list 127.0.0.1"], 2*time.Minute)
		assert.LessOrEqual(t, got["list 127.1.0.1"], time.Minute)
		c.Filter[1].Disabled = true
		require.NoError(t, f.Apply(c))
		assert.False(t, passes(t, "127.0.0.1"))
		send(t, "127.0.0.2:4001", "x")
		assert.True(t, passes(t, "127.0.0.2"))
		c.Filter[1].Disabled = false
		require.NoError(t, f.Apply(c))

		// So many and no more.
		full, _, err := f.Full()
		require.NoError(t, err)
		assert.Empty(t, full)
		for _, to := range []string{"127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6"} {
			send(t, to+":4001", "x")
		}
		assert.Len(t, filled(), 5, "one more with the time of before")
		assert.False(t, passes(t, "127.0.0.5"))
		assert.True(t, passes(t, "127.0.0.6"))
		some, more, err := f.Filled(3)
		require.NoError(t, err)
		assert.Len(t, some, 3)
		assert.Equal(t, 2, more)
		full, room, err := f.Full()
		require.NoError(t, err)
		assert.Equal(t, []string{"list"}, full)
		assert.Equal(t, 4, room)

		gone := []Filled{{List: "list", Address: netip.MustParseAddr("127.0.0.1")}, {List: "list", Address: netip.MustParseAddr("127.9.9.9")}, {List: "no"}}
		require.NoError(t, f.RemoveFilled(gone))
		assert.Len(t, filled(), 4)
		assert.True(t, passes(t, "127.0.0.1"))

		// They stay when no rule adds to the list any more, or to none, as in RouterOS; and one can be removed.
		c.Filter = []Rule{drop}
		require.NoError(t, f.Apply(c))
		assert.Len(t, filled(), 4)
		assert.False(t, passes(t, "127.0.0.3"))
		require.NoError(t, f.RemoveFilled([]Filled{{List: "list", Address: netip.MustParseAddr("127.0.0.3")}}))
		assert.True(t, passes(t, "127.0.0.3"))
		assert.False(t, passes(t, "127.0.0.4"))
		c.Filter = nil
		require.NoError(t, f.Apply(c))
		assert.Len(t, filled(), 3)
		c.AddressLists = nil
		c.Filter = []Rule{drop}
		require.NoError(t, f.Apply(c))
		assert.False(t, passes(t, "127.0.0.4"))
		// A rule for another list has nothing of theirs.
		add.AddressList = "other"
		c.Filter = []Rule{add, drop}
		require.NoError(t, f.Apply(c))
		assert.Len(t, filled(), 3)
		assert.NotContains(t, fmt.Sprint(filled()), "other")
		// A rule that is typed again does not bring back what was removed.
		all, _, err := f.Filled(100)
		require.NoError(t, err)
		require.NoError(t, f.RemoveFilled(all))
		add.AddressList = "list"
		c.Filter = []Rule{add, drop}
		require.NoError(t, f.Apply(c))
		assert.Empty(t, filled())
		assert.True(t, passes(t, "127.0.0.4"))
	})
}

// Of several rules that add one address the timeout of each holds, whichever was the last: the address is there as long as one of them says.
func TestFilledByTimeouts(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		f := newFirewall(t, program)
		add := func(port string, timeout time.Duration) Rule {
			return Rule{Chain: "output", Action: "add-dst-to-address-list", Protocol: "udp", DstPort: ports(port), AddressList: "list", AddressListTimeout: timeout}
		}
		in := Rule{Chain: "output", Action: "drop", Protocol: "udp", DstPort: ports("9"), DstAddressList: "list"}
		out := Rule{Chain: "output", Action: "drop", Protocol: "udp", DstPort: ports("10"), DstAddressList: "!list"}
		c := Config{Filter: []Rule{add("4001", 24*time.Hour), add("4002", 2*time.Second), add("4003", 0), in, out}}
		require.NoError(t, f.Apply(c))
		left := func(to string) time.Duration {
			t.Helper()
			all, _, err := f.Filled(100)
			require.NoError(t, err)
			for _, a := range all {
				if a.Address.String() == to {
					return a.Left
				}
			}
			return -1
		}
		send(t, "127.0.0.1:4001", "x")
		send(t, "127.0.0.1:4002", "x")
		assert.Greater(t, left("127.0.0.1"), 23*time.Hour, "the short one is the last, and the long one holds")
		send(t, "127.0.0.2:4002", "x")
		assert.False(t, passes(t, "127.0.0.1"))
		assert.False(t, passes(t, "127.0.0.2"))
		all, more, err := f.Filled(1)
		require.NoError(t, err)
		assert.Len(t, all, 1)
		assert.Equal(t, 1, more, "one that is in two sets counts once")
		for end := time.Now().Add(time.Minute); left("127.0.0.2") >= 0; time.Sleep(50 * time.Millisecond) {
			require.True(t, time.Now().Before(end), "it ends")
		}
		assert.True(t, passes(t, "127.0.0.2"))
		assert.False(t, passes(t, "127.0.0.1"))
		send(t, "127.0.0.3:4003", "x")
		send(t, "127.0.0.3:4001", "x")
		assert.Zero(t, left("127.0.0.3"), "until a restart")

		// What a rule has added keeps its time when another timeout is set, or the rule goes.
		c.Filter[0].AddressListTimeout = time.Minute
		require.NoError(t, f.Apply(c))
		assert.Greater(t, left("127.0.0.1"), 23*time.Hour)
		send(t, "127.0.0.1:4001", "x")
		assert.Greater(t, left("127.0.0.1"), 23*time.Hour)
		send(t, "127.0.0.4:4001", "x")
		assert.LessOrEqual(t, left("127.0.0.4"), time.Minute)
		c.Filter = []Rule{add("4002", time.Hour), in, out}
		require.NoError(t, f.Apply(c))
		assert.Greater(t, left("127.0.0.1"), 23*time.Hour)
		assert.Positive(t, left("127.0.0.4"))
		assert.Zero(t, left("127.0.0.3"))
		assert.False(t, passes(t, "127.0.0.3"))
		numbers, err := setNumbers()
		require.NoError(t, err)
		assert.Len(t, numbers, 2)
		require.NoError(t, f.RemoveFilled([]Filled{{List: "list", Address: netip.MustParseAddr("127.0.0.1")}}))
		assert.EqualValues(t, -1, left("127.0.0.1"))
		assert.True(t, passes(t, "127.0.0.1"))
		assert.False(t, passes(t, "127.0.0.3"))
	})
}

// What stays of rules that add no more is bounded, and a refused change loses nothing.
func TestKeptAddressesAreBounded(t *testing.T) {
	newRouter(t)
	f := newFirewall(t, "iptables-legacy")
	f.room = maxKept
	add := Rule{Chain: "output", Action: "add-dst-to-address-list", Protocol: "udp", DstPort: ports("4001")}
	const lists, each = 3, maxKept/2 - 10
	var want []string
	for i := range lists {
		add.AddressList, add.AddressListTimeout = fmt.Sprint("list", i), time.Duration(i+1)*time.Hour
		require.NoError(t, f.Apply(Config{Filter: []Rule{add}}))
		var elements []element
		for n := range each {
			elements = append(elements, element{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), byte(n >> 8), byte(n)}), 32), time.Now().Add(add.AddressListTimeout)})
		}
		require.NoError(t, changeSet(nl.IPSET_CMD_ADD, f.lists[add.AddressList].filled[0].set, elements))
		want = append(want, add.AddressList)
	}
	require.NoError(t, f.Apply(Config{}))
	filled, more, err := f.Filled(10)
	require.NoError(t, err)
	assert.Len(t, filled, 10)
	assert.Equal(t, maxKept, len(filled)+more)
	assert.ElementsMatch(t, want, slices.Collect(maps.Keys(f.kept)))
	numbers, err := setNumbers()
	require.NoError(t, err)
	assert.Empty(t, numbers)
	// All that a list can have at once fits into a set.
	var c Config
	c.AddressLists = map[string][]match.Addresses{"list0": nil}
	for i := range MaxAddresses {
		c.AddressLists["list0"] = append(c.AddressLists["list0"], addresses(fmt.Sprintf("172.16.%d.%d", i>>8, i&255)))
	}
	c.Filter = []Rule{{Chain: "input", Action: "drop", SrcAddressList: "list0"}}
	require.NoError(t, f.Apply(c))
	assert.Len(t, setOf(t, f.lists["list0"].set), MaxAddresses+each)

	bad := c
	bad.NAT = []Rule{{Chain: "srcnat", Action: "masquerade", InInterface: "x"}}
	require.Error(t, f.Apply(bad))
	_, more, err = f.Filled(0)
	require.NoError(t, err)
	assert.Equal(t, maxKept, more)

	// A set that somebody else has removed has nothing to keep.
	require.NoError(t, f.Apply(Config{Filter: []Rule{add}}))
	require.NoError(t, newFirewall(t, "iptables-legacy").Lock())
	require.NoError(t, exec.Command("iptables-legacy", "-F").Run())
	require.NoError(t, destroySet(f.lists[add.AddressList].filledBy(add.AddressListTimeout)))
	require.NoError(t, f.Apply(Config{}))
}

// Rules name so many lists and no more: each is a set in the kernel, though it has no entries.
func TestNamedListsAreBounded(t *testing.T) {
	var c Config
	for i := range maxLists {
		c.Filter = append(c.Filter, Rule{Chain: "input", Action: "drop", SrcAddressList: fmt.Sprint("list", i)})
	}
	require.NoError(t, c.Validate())
	c.NAT = []Rule{{Chain: "srcnat", Action: "masquerade", DstAddressList: "one more"}}
	assert.EqualError(t, c.Validate(), "address lists: expected at most 128 lists that rules name, got 129")
	c.NAT[0].Disabled = true
	require.NoError(t, c.Validate())
}

// Packets fill a list to its end: the kernel does not make room for what they add, as it does for a program.
func TestFilledListTakesAll(t *testing.T) {
	newRouter(t)
	f := newFirewall(t, "iptables-legacy")
	f.room = 2048
	require.NoError(t, f.Apply(Config{Raw: []Rule{{Chain: "output", Action: "add-dst-to-address-list", Protocol: "udp", AddressList: "list"}}}))
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer c.Close()
	for i := range f.room {
		_, err := c.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 9, byte(i >> 8), byte(i)}), 9))
		require.NoError(t, err)
	}
	all, _, err := f.Filled(f.room)
	require.NoError(t, err)
	assert.Len(t, all, f.room)
	full, _, err := f.Full()
	require.NoError(t, err)
	assert.Equal(t, []string{"list"}, full)
}

// Nobody knows whether what a rule has added was there when a connection began.
func TestTranslationByFilledLists(t *testing.T) {
	at := netip.MustParseAddrPort
	connection := Tracked{Protocol: "tcp", Src: at("192.168.0.2:1238"), Dst: at("10.5.8.8:21"), ReplySrc: at("10.5.8.8:21"), ReplyDst: at("10.1.0.104:1238")}
	add := Rule{Chain: "dstnat", Action: "add-src-to-address-list", AddressList: "filled"}
	of := func(lists map[string][]match.Addresses, rules ...Rule) string {
		return connection.translation(translations(Config{NAT: append(rules, add), AddressLists: lists}, nil))
	}
	listed := func(list string) Rule { return Rule{Chain: "srcnat", Action: "accept", SrcAddressList: list} }
	masquerade := Rule{Chain: "srcnat", Action: "masquerade"}
	filled := func(entry string) map[string][]match.Addresses {
		return map[string][]match.Addresses{"filled": {addresses(entry)}}
	}
	for _, list := range []string{"filled", "!filled"} {
		assert.NotEqual(t, of(nil, masquerade), of(nil, listed(list), masquerade), "it may accept")
		assert.NotEqual(t, of(nil, listed(list)), of(nil, listed(list), masquerade), "it may not")
		assert.Equal(t, of(nil, listed(list), masquerade), of(filled("1.2.3.4"), listed(list), masquerade), "another entry is none of its")
	}
	kept := map[string][]element{"left": nil}
	was := translations(Config{NAT: []Rule{listed("left"), masquerade}}, kept)
	kept["left"] = []element{{Prefix: netip.MustParsePrefix("192.168.0.2/32")}}
	assert.NotEqual(t, connection.translation(was), connection.translation(translations(Config{NAT: []Rule{listed("left"), masquerade}}, kept)), "what rules have added that are gone")
	assert.Equal(t, of(filled("192.168.0.2"), listed("filled")), of(filled("192.168.0.2"), listed("filled"), masquerade), "it is listed")
	assert.Equal(t, of(nil, masquerade), of(filled("192.168.0.2"), listed("!filled"), masquerade), "it is listed")
}

func TestDifference(t *testing.T) {
	now := time.Now()
	at := func(prefix string, d time.Duration) element {
		e := element{Prefix: netip.MustParsePrefix(prefix)}
		if d != 0 {
			e.until = now.Add(d)
		}
		return e
	}
	a, b, c := at("10.0.0.0/8", 0), at("10.0.0.0/9", time.Hour), at("10.0.0.1/32", 0)
	for _, test := range []struct {
		name                   string
		old, next, add, remove []element
	}{
		{"none", nil, nil, nil, nil},
		{"all", nil, []element{a, b}, []element{a, b}, nil},
		{"nothing left", []element{a, b}, nil, nil, []element{a, b}},
		{"the same", []element{a, b}, []element{a, b}, nil, nil},
		{"another length", []element{a, c}, []element{b, c}, []element{b}, []element{a}},
		{"another time", []element{a, b}, []element{a, at("10.0.0.0/9", time.Minute)}, []element{at("10.0.0.0/9", time.Minute)}, nil},
		{"has ended", []element{a, at("10.0.0.0/9", -time.Second)}, []element{a}, nil, nil},
	} {
		add, remove := difference(test.old, test.next, now)
		assert.Equal(t, test.add, add, test.name)
		assert.Equal(t, test.remove, remove, test.name)
	}
}

func TestRoomFor(t *testing.T) {
	assert.Equal(t, 2048, roomFor(32<<20))
	assert.Equal(t, 1024, roomFor(0))
	assert.Equal(t, 65536, roomFor(64<<30))
}

// Answers of the kernel's sets.
func FuzzSetAnswer(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x05\x00\x01\x00\x06\x00\x00\x00"))
	f.Add([]byte("\x02\x00\x00\x00\x20\x00\x08\x80\x1c\x00\x07\x80\x0c\x00\x01\x80\x08\x00\x01\x40\x7f\x00\x00\x01\x05\x00\x03\x00\x20\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, message []byte) {
		_ = ipsetAttributes(message, func(_ uint16, value []byte) error {
			return nlattr.Each(value, func(_ uint16, value []byte) error {
				_, _, err := parseElement(value)
				return err
			})
		})
	})
}
