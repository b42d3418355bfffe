package firewall

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/machine"
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
		{"dst-limit", "50,50,src-and-dst-addresses/10s", "-m hashlimit --hashlimit-upto 50/second --hashlimit-burst 50 --hashlimit-mode srcip,dstip ROOM --hashlimit-htable-expire 10000 --hashlimit-name "},
		{"dst-limit", "!2/1m,0,src-address", "-m hashlimit --hashlimit-above 2/minute --hashlimit-burst 1 --hashlimit-mode srcip ROOM --hashlimit-htable-expire 100000 --hashlimit-name "},
		{"dst-limit", "1,1,addresses-and-dst-port/1m40s", "-m hashlimit --hashlimit-upto 1/second --hashlimit-burst 1 --hashlimit-mode srcip,dstip,dstport ROOM --hashlimit-htable-expire 100000 --hashlimit-name "},
		{"dst-limit", "1,1", ""}, {"dst-limit", "1,1,src/10s", ""}, {"dst-limit", "1,1,src-address/", ""}, {"dst-limit", "1,1,src-address/0s", ""},
		{"dst-limit", "1,1,src-address/2d", ""}, {"dst-limit", "1/7s,1,src-address", ""}, {"dst-limit", "src-address", ""},
		{"time", "8h-17h,mon,tue", "-m time --timestart 08:00:00 --timestop 16:59:59 --weekdays Mon,Tue --kerneltz"},
		{"time", "0s-1d,sun,mon,tue,wed,thu,fri,sat", "-m time --kerneltz"}, {"time", "0s-1d,sat", "-m time --weekdays Sat --kerneltz"},
		{"time", "22h-6h30m,fri", "-m time --timestart 22:00:00 --timestop 06:29:59 --contiguous --weekdays Fri --kerneltz"},
		{"time", "08:30-24:00:00", "-m time --timestart 08:30:00 --kerneltz"}, {"time", "20h-0s,sat", "-m time --timestart 20:00:00 --weekdays Sat --kerneltz"},
		{"time", "08:00:01-8h3s", "-m time --timestart 08:00:01 --timestop 08:00:02 --kerneltz"},
		// One second the kernel would take for all day.
		{"time", "08:00:01-8h2s", ""}, {"time", "0s-1s", ""}, {"time", "23:59:59-1d", ""}, {"time", "23:59:59-0s,mon", ""},
		{"time", "8h-8h", ""}, {"time", "8h", ""}, {"time", "8h-25h", ""}, {"time", "1d-8h", ""}, {"time", "8h-17h,", ""}, {"time", "8h-17h,mon,mon", ""}, {"time", "8h-17h,monday", ""},
		{"time", "!8h-17h", ""}, {"time", "8-17", ""}, {"time", "17m8h-20h", ""}, {"time", "24:30-1h", ""}, {"time", "8:00-9:00", ""}, {"time", "-8h", ""}, {"time", "+1:00-02:00", ""},
		{"per-connection-classifier", "src-address:65536/0", ""}, {"per-connection-classifier", "src-address:2/2", ""}, {"per-connection-classifier", "src-address:0/0", ""},
		{"per-connection-classifier", "address:2/0", ""}, {"per-connection-classifier", "src-address", ""}, {"per-connection-classifier", "src-address:2", ""},
		{"connection-limit", "5", ""}, {"connection-limit", "5,33", ""}, {"connection-limit", "65536,1", ""},
	} {
		r := Rule{Chain: "input", Action: "drop"}.with(test.name, test.value)
		err := r.Validate(Filter)
		if test.want == "" && test.value != "" {
			assert.ErrorContains(t, err, test.name+"="+quoteIfNeeded(test.value)+": expected ", test.value)
			continue
		}
		require.NoError(t, err, test.value)
		_, memory := machine.Memory()
		want := strings.Replace(test.want, "ROOM", fmt.Sprint("--hashlimit-htable-size 256 --hashlimit-htable-max ", roomFor(memory)), 1)
		assert.Equal(t, want, strings.Join(append(r.extra(false), r.extra(true)...), " "))
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

// ruleCase is how many packets a rule shall have matched.
type ruleCase struct {
	rule Rule
	want uint64
}

// kernelZone is how far behind UTC the kernel's local time is (settimeofday(2)).
func kernelZone(t *testing.T) time.Duration {
	var zone struct{ minutesWest, dst int32 }
	_, _, errno := unix.Syscall(unix.SYS_GETTIMEOFDAY, 0, uintptr(unsafe.Pointer(&zone)), 0)
	require.Zero(t, errno)
	return time.Duration(zone.minutesWest) * time.Minute
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
		cases := []ruleCase{
			// Five packets of 29 bytes to port 7, three of 128 to port 8, all from sockets of their own.
			{udp.with("packet-size", "29"), 5}, {udp.with("packet-size", "!29"), 3}, {udp.with("packet-size", "100-128"), 3}, {udp.with("packet-size", "30-127"), 0},
			{udp.with("src-mac-address", mac), 8}, {udp.with("src-mac-address", "!"+mac), 0},
			{udp.with("dst-address-type", "local"), 8}, {udp.with("dst-address-type", "!local"), 0}, {udp.with("src-address-type", "unicast"), 8},
			{udp.with("limit", "1/1h,6"), 6}, {udp.with("limit", "1/1h,0"), 1},
			{listed(udp).with("limit", "1/1h,2"), 2}, {log, 2}, // what comes to port 8 first does not count
			{udp.with("connection-limit", "3,32"), 5}, {udp.with("connection-limit", "!3,32"), 3}, {udp.with("connection-limit", "8,32"), 0},
			{Rule{Chain: "input", Action: "jump", JumpTarget: "own", Protocol: "udp"}, 8}, {back, 2}, {Rule{Chain: "own", Action: "passthrough", Protocol: "udp"}, 6},
			{out.with("dst-address-type", "local"), 0}, {out.with("dst-address-type", "unicast"), 1},
			// Of two rules that say the same each counts for itself.
			{udp.with("dst-limit", "1/1h,2,src-address"), 2}, {udp.with("dst-limit", "1/1h,2,src-address"), 2}, {udp.with("dst-limit", "!1/1h,2,src-address/1m"), 6},
			{udp.with("dst-limit", "1/1h,2,dst-port"), 4}, {udp.with("dst-limit", "1/1h,4,addresses-and-dst-port"), 7}, {listed(udp).with("dst-limit", "1/1h,2,dst-address/1d"), 2},
		}
		share := func(name string, port uint16, denominator int) int {
			return remainderOf(t, name, ipv4("10.0.1.2", "10.0.1.1", 17, 1, port, 0), denominator)
		}
		for name, shares := range map[string]map[int]uint64{
			"src-address": {share("src-address", 7, 16): 8}, "both-addresses": {share("both-addresses", 7, 16): 8},
			"dst-port": {share("dst-port", 7, 16): 5, share("dst-port", 8, 16): 3}, "dst-address-and-port": {share("dst-address-and-port", 7, 16): 5, share("dst-address-and-port", 8, 16): 3},
		} {
			for r := range 16 {
				value := fmt.Sprintf("%s:16/%d", name, r)
				cases = append(cases, ruleCase{udp.with("per-connection-classifier", value), shares[r]}, ruleCase{udp.with("per-connection-classifier", "!"+value), 8 - shares[r]})
			}
		}
		local := time.Now().UTC().Add(-kernelZone(t))
		clock := func(in time.Duration) string { return local.Add(in).Format("15:04:05") }
		other := weekdays[(local.Weekday()+3)%7] // even if the test runs past midnight
		for value, want := range map[string]uint64{
			"0s-1d": 8, clock(-6*time.Hour) + "-" + clock(6*time.Hour): 8, clock(6*time.Hour) + "-" + clock(-6*time.Hour): 0, "0s-1d," + other: 0,
			"0s-1d," + strings.Join(slices.DeleteFunc(slices.Clone(weekdays), func(day string) bool { return day == other }), ","): 8,
		} {
			cases = append(cases, ruleCase{udp.with("time", value), want})
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
