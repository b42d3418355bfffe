package console

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
)

// trafficLive is a router at a time that the test moves, through which always the same goes: a download of a host behind
// ether2 by ether1, where the router masquerades, a ping, and a connection to the router itself.
func trafficLive(now *time.Time) Live {
	began := *now
	at := netip.MustParseAddrPort
	passed := func(perSecond int) uint64 { return uint64(now.Sub(began).Seconds() * float64(perSecond)) }
	l := fullLive()
	l.Now = func() time.Time { return *now }
	l.Links = func() ([]netcfg.LinkState, error) {
		return []netcfg.LinkState{
			{Name: "ether1", Type: netcfg.Ether, Present: true, RxBytes: 1 << 40, RxPackets: passed(7), TxBytes: passed(47), TxPackets: passed(3)},
			{Name: "ether2", Type: netcfg.Ether, Present: true, RxBytes: passed(1625), RxPackets: 9, TxBytes: passed(300_000_000), TxPackets: passed(250_000)},
		}, nil
	}
	l.Addresses = func() ([]netcfg.Address, error) {
		return []netcfg.Address{{Address: netip.MustParsePrefix("10.9.0.2/24"), Interface: "ether1"}, {Address: netip.MustParsePrefix("192.168.0.1/24"), Interface: "ether2"}}, nil
	}
	l.Routes = func() ([]DynamicRoute, error) {
		return []DynamicRoute{
			{Destination: netip.MustParsePrefix("192.168.0.0/24"), Interface: "ether2"}, {Destination: netip.MustParsePrefix("10.9.0.0/24"), Interface: "ether1"},
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.9.0.1"), Interface: "ether1", Distance: 1},
		}, nil
	}
	l.Invalid = nil
	l.Tracked = func() ([]firewall.Tracked, error) {
		return []firewall.Tracked{
			{Protocol: "tcp", Src: at("10.9.0.7:5"), Dst: at("10.9.0.2:22"), ReplySrc: at("10.9.0.2:22"), ReplyDst: at("10.9.0.7:5"), Bytes: passed(10), ReplyBytes: passed(20)},
			{Protocol: "udp", Src: at("192.168.0.2:9"), Dst: at("8.8.8.8:53"), ReplySrc: at("8.8.8.8:53"), ReplyDst: at("10.9.0.2:9"), Bytes: 100, ReplyBytes: 100},
			{Protocol: "tcp", Src: at("192.168.0.2:1238"), Dst: at("10.5.8.8:21"), ReplySrc: at("10.5.8.8:21"), ReplyDst: at("10.9.0.2:1238"), Bytes: passed(125), ReplyBytes: passed(1_000_000)},
			// Two of them, which cannot be told apart.
			{Protocol: "icmp", Src: at("192.168.0.2:0"), Dst: at("10.5.8.8:0"), ReplySrc: at("10.5.8.8:0"), ReplyDst: at("10.9.0.2:0"), Bytes: passed(84), ReplyBytes: passed(84)},
			{Protocol: "icmp", Src: at("192.168.0.2:0"), Dst: at("10.5.8.8:0"), ReplySrc: at("10.5.8.8:0"), ReplyDst: at("10.9.0.2:0"), Bytes: passed(84)},
			{Protocol: "udp", Src: at("10.9.0.2:123"), Dst: at("10.5.8.9:123"), ReplySrc: at("10.5.8.9:123"), ReplyDst: at("10.9.0.2:123"), Bytes: passed(76), ReplyBytes: passed(75)},
		}, nil
	}
	return l
}

func TestTraffic(t *testing.T) {
	const torchHead = "IP-PROTOCOL SRC-ADDRESS           DST-ADDRESS                  TX        RX\n"
	for _, test := range []struct {
		line string
		// rounds are what it shows each second, until it ends. The first time it only counts.
		rounds []string
		ends   bool
		err    string
	}{
		{line: "/interface monitor-traffic ether1 once", ends: true, rounds: []string{"", "                     name: ether1\n    rx-packets-per-second:      7\n" +
			"       rx-bits-per-second:   0bps\n    tx-packets-per-second:      3\n       tx-bits-per-second: 376bps\n"}},
		{line: "/interface monitor-traffic ether2,ether1,ether2 duration=2s", ends: true, rounds: []string{"",
			"                     name:   ether2 ether1\n    rx-packets-per-second:        0      7\n       rx-bits-per-second: 13.0kbps   0bps\n" +
				"    tx-packets-per-second:   250000      3\n       tx-bits-per-second:  2.4Gbps 376bps\n",
			"                     name:   ether2 ether1\n    rx-packets-per-second:        0      7\n       rx-bits-per-second: 13.0kbps   0bps\n" +
				"    tx-packets-per-second:   250000      3\n       tx-bits-per-second:  2.4Gbps 376bps\n"}},
		{line: "/interface monitor-traffic interface=ether9", err: "input does not match any value of interface; expected ether1 | ether2, not \"ether9\""},
		{line: "/interface monitor-traffic", err: "missing value(s) of argument(s) interface"},
		{line: "/tool torch ether2", rounds: []string{"", torchHead +
			"tcp         192.168.0.2:1238      10.5.8.8:21             8.0Mbps   1.0kbps\n" +
			"icmp        192.168.0.2           10.5.8.8                 672bps   1.3kbps\n" +
			"                                  2 of 2                  8.0Mbps   2.3kbps\n"}},
		// On the side where the router masquerades.
		{line: "/tool torch interface=ether1 once", ends: true, rounds: []string{"", torchHead +
			"tcp         10.9.0.2:1238         10.5.8.8:21             1.0kbps   8.0Mbps\n" +
			"icmp        10.9.0.2              10.5.8.8                1.3kbps    672bps\n" +
			"udp         10.9.0.2:123          10.5.8.9:123             608bps    600bps\n" +
			"tcp         10.9.0.7:5            10.9.0.2:22              160bps     80bps\n" +
			"                                  4 of 4                  3.1kbps   8.0Mbps\n"}},
		{line: "/tool torch ether1 port=22 src-address=10.9.0.0/24 dst-address=!10.5.0.0/16 ip-protocol=tcp", rounds: []string{"", torchHead +
			"tcp         10.9.0.7:5            10.9.0.2:22              160bps     80bps\n" +
			"                                  1 of 1                   160bps     80bps\n"}},
		{line: "/tool torch ether2 ip-protocol=udp", rounds: []string{"", torchHead + "                                  0 of 0                     0bps      0bps\n"}},
		{line: "/tool torch ether9", err: "input does not match any value of interface; expected ether1 | ether2, not \"ether9\""},
		{line: "/interface monitor-traffic ether1; /ip", err: "failure: interval and follow need a line of their own"},
	} {
		t.Run(test.line, func(t *testing.T) {
			now := time.Date(2030, 1, 31, 22, 59, 58, 0, time.UTC)
			live := trafficLive(&now)
			s := Session{}
			for i := range max(1, len(test.rounds)) {
				result, err := s.Execute(Default(), live, test.line)
				if test.err != "" {
					require.EqualError(t, err, test.err)
					return
				}
				require.NoError(t, err)
				assert.Equal(t, test.rounds[i], result.Output)
				assert.Equal(t, test.ends && i == len(test.rounds)-1, result.Repeat == 0)
				assert.False(t, result.Follow)
				now = now.Add(time.Second)
			}
			s.EndRepeat()
			assert.Nil(t, s.measured)
		})
	}
}

// However many connections there are, torch shows the first few.
func TestTorchIsBounded(t *testing.T) {
	now := time.Date(2030, 1, 31, 22, 59, 58, 0, time.UTC)
	live := trafficLive(&now)
	const connections = 10_000
	live.Tracked = func() (all []firewall.Tracked, err error) {
		for i := range connections {
			src, dst := netip.AddrPortFrom(netip.MustParseAddr("192.168.0.2"), uint16(i+1)), netip.MustParseAddrPort("10.5.8.8:80")
			all = append(all, firewall.Tracked{Protocol: "tcp", Src: src, Dst: dst, ReplySrc: dst, ReplyDst: src, Bytes: uint64(now.Second() * i * 125)})
		}
		return all, nil
	}
	s := Session{}
	for range 2 {
		result, err := s.Execute(Default(), live, "/tool torch ether2")
		require.NoError(t, err)
		if now = now.Add(time.Second); now.Second() == 59 {
			continue
		}
		assert.Contains(t, result.Output, "\ntcp         192.168.0.2:10000     10.5.8.8:80                0bps  10.0Mbps\n")
		assert.Contains(t, result.Output, " 20 of 9999 ")
		assert.Len(t, result.Output, 22*76)
	}
}

func TestRateOf(t *testing.T) {
	for bits, want := range map[uint64]string{0: "0bps", 376: "376bps", 999: "999bps", 1000: "1.0kbps", 12_960: "13.0kbps", 2_345_678: "2.3Mbps", 2_400_000_000: "2.4Gbps", 9_999_000_000_000: "9999.0Gbps"} {
		assert.Equal(t, want, rateOf(bits))
	}
	assert.EqualValues(t, 100, perSecond(250, 50, 2))
	assert.EqualValues(t, 25, perSecond(50, 250, 2), "it counts anew")
}

// A gateway on an interface, in no network of an address, is where its route says, of a user's or of a lease.
func TestTorchGatewayOnInterface(t *testing.T) {
	for _, test := range []struct {
		name   string
		lines  string
		routes []DynamicRoute
	}{
		{"a user's", "/ip route add gateway=10.99.0.1%ether1", nil},
		{"a lease's", "", []DynamicRoute{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.99.0.1"), Interface: "ether1", Distance: 1}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := time.Date(2030, 1, 31, 22, 59, 58, 0, time.UTC)
			live := trafficLive(&now)
			live.Routes = func() ([]DynamicRoute, error) {
				return append(test.routes, DynamicRoute{Destination: netip.MustParsePrefix("192.168.0.0/24"), Interface: "ether2"}), nil
			}
			s, cfg := Session{}, Default()
			if test.lines != "" {
				result, err := s.Execute(cfg, live, test.lines)
				require.NoError(t, err)
				cfg = result.Config
			}
			var shown string
			for range 2 {
				result, err := s.Execute(cfg, live, "/tool torch ether1 port=21")
				require.NoError(t, err)
				shown = result.Output
				now = now.Add(time.Second)
			}
			assert.Contains(t, shown, "tcp         10.9.0.2:1238         10.5.8.8:21             1.0kbps   8.0Mbps\n")
		})
	}
}
