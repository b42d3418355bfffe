package firewall

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/testnet"
)

// Queues are behind the rules of mangle, see what these accept for good, and come and go without a rule losing what it has counted.
func TestQueueRules(t *testing.T) {
	withEach(t, func(t *testing.T, program string, router *testnet.Host) {
		f := newFirewall(t, program)
		c := Config{
			Mangle: []Rule{
				{Chain: "postrouting", Action: "mark-packet", NewPacketMark: "a", Protocol: "udp", DstPort: ports("7"), Final: true},
				{Chain: "postrouting", Action: "accept", Protocol: "udp"},
				{Chain: "prerouting", Action: "accept", Protocol: "tcp"},
			},
			Queues: []QueueRule{
				{Class: 0x18, Src: netip.MustParsePrefix("192.168.88.0/24"), Out: "ether1", Time: "8h-17h,mon"},
				{Class: 0x19, In: "ether2", Dst: netip.MustParsePrefix("198.51.100.0/24"), PacketMark: "a"},
				{Class: 0x18, PacketMark: NoMark},
			},
		}
		require.NoError(t, f.Apply(c))
		var rules []string
		for line := range strings.Lines(save(t, program, "-t", "mangle")) {
			if strings.HasPrefix(line, "-A ") {
				rules = append(rules, strings.TrimSpace(line))
			}
		}
		text := strings.Join(rules, "\n")
		for _, want := range []string{
			"-A FORWARD -i ether2 -j MARK --set-xmark 0x1000000/0xff000000",
			"-A POSTROUTING -p udp -j postern-queues-end", "-A POSTROUTING -j postern-queues",
			"-A PREROUTING -p tcp -j ACCEPT",
			"-A postern-queues -s 192.168.88.0/24 -o ether1 -m time --timestart 08:00:00 --timestop 16:59:59 --weekdays Mon",
			"-A postern-queues -d 198.51.100.0/24 -m mark --mark 0x1000000/0xff000000 -m mark --mark ",
			"-A postern-class-24 -j CLASSIFY --set-class 5051:0018", "-A postern-class-25 -j CLASSIFY --set-class 5051:0019",
			"-A postern-queues-end -j postern-queues\n-A postern-queues-end -j ACCEPT",
		} {
			assert.Contains(t, text, want)
		}
		assert.Equal(t, 2, strings.Count(text, "-j postern-queues-end"), "the other is in the chain of the rule that marks")

		connect(t, router, testnet.New(t, "peer"), 1)
		send(t, "10.0.1.2:7", "x")
		send(t, "10.0.1.2:8", "x")
		counted := func() (packets [2]uint64) {
			counters, err := f.Counters(Mangle)
			require.NoError(t, err)
			return [2]uint64{counters[0].Packets, counters[1].Packets}
		}
		assert.Equal(t, [2]uint64{1, 1}, counted())
		c.Queues = c.Queues[:1]
		require.NoError(t, f.Apply(c))
		assert.Equal(t, [2]uint64{1, 1}, counted())
		assert.NotContains(t, save(t, program, "-t", "mangle"), "MARK --set-xmark 0x1000000", "no queue names an interface any more")
		c.Queues = nil
		require.NoError(t, f.Apply(c))
		assert.Equal(t, [2]uint64{1, 1}, counted())
		assert.NotContains(t, save(t, program, "-t", "mangle"), "postern-queues")
	})
}

func TestQueueRulesRefused(t *testing.T) {
	for want, q := range map[string]QueueRule{
		"queue: class=0 time=: expected a class and a time":               {},
		"queue: class=1 time=8h: expected a class and a time":             {Class: 1, Time: "8h"},
		"queue: 10.0.0.1/8: expected an IPv4 network":                     {Class: 1, Src: netip.MustParsePrefix("10.0.0.1/8")},
		"queue: ::/0: expected an IPv4 network":                           {Class: 1, Dst: netip.MustParsePrefix("::/0")},
		"queue: interface=ether+: expected the name of an interface":      {Class: 1, In: "ether+"},
		"queue: interface=!ether1: expected the name of an interface":     {Class: 1, Out: "!ether1"},
		`packet-marks="a\nb": expected a name without control characters`: {Class: 1, PacketMark: "a\nb"},
		"queues: their targets and marks need 1025 rules, expected at":    {Class: 9},
	} {
		c := Config{Queues: []QueueRule{q}}
		if q.Class == 9 {
			c.Queues = make([]QueueRule, MaxQueueRules+1)
		}
		assert.ErrorContains(t, c.Validate(), want)
	}
}
