package firewall

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/match"
)

// with returns a rule with the value of one of Matchers.
func (r Rule) with(name, value string) Rule {
	r.Extra[slices.IndexFunc(Matchers[:], func(m Matcher) bool { return m.Name == name })] = value
	return r
}

func TestMatchers(t *testing.T) {
	for _, test := range []struct{ name, value, want string }{
		{"dst-address-type", "local", "-m addrtype --dst-type LOCAL"},
		{"dst-address-type", "!local,broadcast", "-m addrtype ! --dst-type LOCAL,BROADCAST"},
		{"src-address-type", "unicast", "-m addrtype --src-type UNICAST"},
		{"src-address-type", "any", ""}, {"src-address-type", "local,local", ""}, {"src-address-type", "", ""}, {"src-address-type", "LOCAL", ""},
		{"src-mac-address", "00:aa:bb:cc:dd:ee", "-m mac --mac-source 00:AA:BB:CC:DD:EE"},
		{"src-mac-address", "!00:AA:BB:CC:DD:EE", "-m mac ! --mac-source 00:AA:BB:CC:DD:EE"},
		{"src-mac-address", "00:aa:bb:cc:dd", ""}, {"src-mac-address", "00:aa:bb:cc:dd:ee:ff:00", ""},
		{"packet-size", "100", "-m length --length 100:100"}, {"packet-size", "!0-1500", "-m length ! --length 0:1500"},
		{"packet-size", "100-99", ""}, {"packet-size", "65536", ""}, {"packet-size", "-1", ""}, {"packet-size", "1-", ""},
		{"limit", "10,5:packet", "-m limit --limit 10/second --limit-burst 5"}, {"limit", "10,5", "-m limit --limit 10/second --limit-burst 5"},
		{"limit", "50/5s,2:packet", "-m limit --limit 10/second --limit-burst 2"}, {"limit", "5/1m,0", "-m limit --limit 5/minute --limit-burst 1"},
		{"limit", "1/30s,1", "-m limit --limit 2/minute --limit-burst 1"}, {"limit", "10000,1", "-m limit --limit 10000/second --limit-burst 1"},
		{"limit", "600000/1m,1", ""}, {"limit", "60000/1m,1", "-m limit --limit 1000/second --limit-burst 1"},
		{"limit", "1/7s,1", ""}, {"limit", "10001,1", ""}, {"limit", "0,1", ""}, {"limit", "1/0s,1", ""}, {"limit", "1,10001", ""}, {"limit", "1000,1:bit", ""},
		{"limit", "20000/2s,1", "-m limit --limit 10000/second --limit-burst 1"}, {"limit", "20001/2s,1", ""}, {"limit", "7/7m,1", "-m limit --limit 1/minute --limit-burst 1"},
		{"limit", "1/1d,1", "-m limit --limit 1/day --limit-burst 1"}, {"limit", "1/1d,2", ""}, {"limit", "5/1d,5", "-m limit --limit 5/day --limit-burst 5"},
		{"limit", "1/1h,24", "-m limit --limit 1/hour --limit-burst 24"}, {"limit", "1/1h,25", ""}, {"limit", "1/1h,120", ""}, {"limit", "1/1m,1440", "-m limit --limit 1/minute --limit-burst 1440"},
		{"limit", "1/1m,7159", ""}, {"limit", "14/14d,1", "-m limit --limit 1/day --limit-burst 1"}, {"limit", "1/14d,1", ""}, {"limit", "9999/9999d,1", "-m limit --limit 1/day --limit-burst 1"},
		{"limit", "99999/9999d,10", ""}, {"limit", "99990/9999d,10", "-m limit --limit 10/day --limit-burst 10"}, {"limit", "7/1s,10000", "-m limit --limit 7/second --limit-burst 10000"},
		{"limit", "7/1d,7", "-m limit --limit 7/day --limit-burst 7"}, {"limit", "7/1d,8", ""},
		{"limit", "!1,1", ""}, {"limit", "1", ""}, {"limit", "1/1w,1", ""},
		{"connection-limit", "100,32", "-m connlimit --connlimit-above 100 --connlimit-mask 32"},
		{"connection-limit", "!5,24", "-m connlimit --connlimit-upto 5 --connlimit-mask 24"},
		{"connection-limit", "5", ""}, {"connection-limit", "5,33", ""}, {"connection-limit", "65536,1", ""},
	} {
		r := Rule{Chain: "input", Action: "drop"}.with(test.name, test.value)
		err := r.Validate(Filter)
		if test.want == "" && test.value != "" {
			assert.ErrorContains(t, err, test.name+"="+quoteIfNeeded(test.value)+": expected ", test.value)
			continue
		}
		require.NoError(t, err, test.value)
		assert.Equal(t, test.want, strings.Join(append(r.extra(false), r.extra(true)...), " "))
		if test.value == "" {
			assert.NotContains(t, r.String(), test.name)
		} else {
			assert.Contains(t, r.String(), test.name+"="+test.value)
		}
		assert.Equal(t, test.value == "", r.Certain())
	}
	mac := Rule{Action: "accept"}.with("src-mac-address", "00:AA:BB:CC:DD:EE")
	mac.Chain = "output"
	assert.ErrorContains(t, mac.Validate(Filter), "src-mac-address=00:AA:BB:CC:DD:EE: not known in chain=output")
	mac.Chain = "x"
	jump := Rule{Chain: "input", Action: "jump", JumpTarget: "x"}
	require.NoError(t, Config{Filter: []Rule{jump, mac}}.Validate())
	jump.Chain = "output"
	assert.ErrorContains(t, Config{Filter: []Rule{jump, mac}}.Validate(), "filter rule 1: src-mac-address=00:AA:BB:CC:DD:EE: packets come to chain=x from chain=output")
}

// The kernel takes every limit that is valid, and no longer or shorter bursts than it says.
func TestLimitsInKernel(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		var c Config
		for _, limit := range []string{"1/1d,1", "5/1d,5", "1/1h,24", "1/1m,1440", "10000,10000", "100/1m,10000"} {
			c.Filter = append(c.Filter, Rule{Chain: "forward", Action: "accept"}.with("limit", limit))
		}
		require.NoError(t, newFirewall(t, program).Apply(c))
	})
}

// Each matcher takes the packets that it should, and leaves the others.
func TestMatchersTraffic(t *testing.T) {
	withEach(t, func(t *testing.T, program string, router *testnet.Host) {
		peer := testnet.New(t, "peer")
		connect(t, router, peer, 1)
		var mac string
		require.NoError(t, peer.Do(func() error {
			i, err := net.InterfaceByName("eth0")
			mac = i.HardwareAddr.String()
			return err
		}))
		udp := Rule{Chain: "input", Action: "passthrough", Protocol: "udp"}
		out := Rule{Chain: "output", Action: "passthrough", Protocol: "udp"}
		listed := func(r Rule) Rule { r.DstPort, r.SrcAddressList = ports("7"), "two"; return r }
		back := Rule{Chain: "own", Action: "return", Protocol: "udp", SrcAddressList: "two", DstPort: ports("7")}.with("limit", "1/1h,2")
		log := listed(udp).with("limit", "1/1h,2")
		log.Log = true
		f := newFirewall(t, program)
		cases := []struct {
			rule Rule
			want uint64
		}{
			// Five packets of 29 bytes to port 7, three of 128 to port 8, all from sockets of their own.
			{udp.with("packet-size", "29"), 5}, {udp.with("packet-size", "!29"), 3}, {udp.with("packet-size", "100-128"), 3}, {udp.with("packet-size", "30-127"), 0},
			{udp.with("src-mac-address", mac), 8}, {udp.with("src-mac-address", "!"+mac), 0},
			{udp.with("dst-address-type", "local"), 8}, {udp.with("dst-address-type", "!local"), 0}, {udp.with("src-address-type", "unicast"), 8},
			{udp.with("limit", "1/1h,6"), 6}, {udp.with("limit", "1/1h,0"), 1},
			{listed(udp).with("limit", "1/1h,2"), 2}, {log, 2}, // what comes to port 8 first does not count
			{udp.with("connection-limit", "3,32"), 5}, {udp.with("connection-limit", "!3,32"), 3}, {udp.with("connection-limit", "8,32"), 0},
			{Rule{Chain: "input", Action: "jump", JumpTarget: "own", Protocol: "udp"}, 8}, {back, 2}, {Rule{Chain: "own", Action: "passthrough", Protocol: "udp"}, 6},
			{out.with("dst-address-type", "local"), 0}, {out.with("dst-address-type", "unicast"), 1},
		}
		config := Config{AddressLists: map[string][]match.Addresses{"two": {addresses("10.0.1.2"), addresses("10.0.1.9")}}}
		for _, c := range cases {
			config.Filter = append(config.Filter, c.rule)
		}
		// No answers. The packets themselves must pass: connlimit soon forgets a connection that is
		// dropped, in which case the counts depended on how fast the packets came.
		config.Filter = append(config.Filter, Rule{Chain: "output", Action: "drop", Protocol: "icmp"})
		require.NoError(t, f.Apply(config))
		require.NoError(t, router.Do(func() error { // a test that stands still loses no connection
			return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", []byte("3600"), 0)
		}))
		require.NoError(t, peer.Do(func() error {
			for range 3 {
				send(t, "10.0.1.1:8", strings.Repeat("x", 100))
			}
			for range 5 {
				send(t, "10.0.1.1:7", "x")
			}
			return nil
		}))
		send(t, "10.0.1.2:9", "x")
		got, err := f.Counters(Filter)
		require.NoError(t, err)
		for i, c := range cases {
			assert.Equal(t, c.want, got[i].Packets, c.rule)
		}
	})
}
