package console

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/queue"
)

func TestQueueValues(t *testing.T) {
	for _, test := range []struct{ words, want string }{
		{"", ""},
		{"max-limit=10M", "max-limit=10M/10M"}, {"max-limit=10000000/512000", "max-limit=10M/512k"}, {"max-limit=0/1G", "max-limit=0/1G"},
		{"limit-at=1M/1M max-limit=2M/2M", "limit-at=1M/1M max-limit=2M/2M"},
		{"target=10.0.0.7", "target=10.0.0.7/32"}, {"target=10.0.0.7/8,ether2", "target=10.0.0.0/8,ether2"}, {"target=0.0.0.0/0", "target=0.0.0.0/0"},
		{"dst=ether1 target=ether2", "dst=ether1 target=ether2"}, {"packet-marks=a,no-mark", "packet-marks=a,no-mark"},
		{"priority=1", "priority=1/1"}, {"priority=8/8 queue=default-small parent=none bucket-size=0.1 time=\"\"", ""},
		{"queue=default", "queue=default/default"}, {"queue=default-small/default-small", ""},
		{"queue=pcq-upload-default/pcq-download-default", "queue=pcq-upload-default/pcq-download-default"}, {"bucket-size=10/0.025", "bucket-size=10/0.025"}, {"burst-time=10s/1m", "burst-time=10s/1m"},
		{"time=8h-17h,mon", "time=8h-17h,mon"}, {"total-max-limit=0 direction=both interface=all total-queue=default-small", ""},

		{"max-limit=10", "!max-limit"}, {"max-limit=11G", "!max-limit"}, {"max-limit=1/2/3", "!max-limit"}, {"max-limit=/", "!max-limit"},
		{"limit-at=3M max-limit=2M", "!limit-at: expected no more than max-limit"}, {"target=ether9", "!/queue simple 0: input does not match any value of target: ether9; expected IP address/netmask | ether1 | ether2"},
		{"target=10.0.0.0/33", "!target"}, {"dst=ether1,ether2", "!dst"}, {"target=2001:db8::/32", "!target"}, {"priority=9", "!priority"}, {"priority=0", "!priority"},
		{"queue=pcq-2M/pcq-2M", "!Postern has no kinds of queues of one's own"}, {"queue=red", "!queue"}, {"bucket-size=10.001", "!bucket-size"}, {"bucket-size=.1", "!bucket-size"}, {"bucket-size=0.0001", "!bucket-size"},
		{"burst-time=1500ms", "!burst-time"}, {"time=8h", "!time"}, {"parent=other", "!parent=other: expected the name of a queue"}, {"parent=q", "!none within itself"},
		{"total-max-limit=1M", "!Postern has no total-max-limit=1M"}, {"packet-marks=" + strings.Repeat("m,", 16) + "m", "!packet-marks"},
		{"target-addresses=10.0.0.0/8", "!Postern has no target-addresses"},
	} {
		t.Run(test.words, func(t *testing.T) {
			result, err := new(Session).Execute(Default(), fullLive(), "/queue simple add name=q "+test.words)
			if err == nil {
				err = Validate(result.Config, []string{"ether1", "ether2"})
			}
			if want, refused := strings.CutPrefix(test.want, "!"); refused {
				require.ErrorContains(t, err, want)
				return
			}
			require.NoError(t, err)
			words := append(strings.Fields(test.want), "name=q")
			line := strings.TrimSpace(strings.TrimPrefix(Export(result.Config), "/queue simple\n"))
			assert.ElementsMatch(t, append([]string{"add"}, words...), strings.Fields(line))
		})
	}
}

// Queues follow the names of their parents and of interfaces.
func TestQueueNames(t *testing.T) {
	run := func(cfg Config, line string) Config {
		result, err := new(Session).Execute(cfg, fullLive(), line)
		require.NoError(t, err, line)
		require.NoError(t, Validate(result.Config, []string{"ether1", "ether2", "usb1"}))
		return result.Config
	}
	cfg := run(Default(), "/interface bridge add name=lan; /queue simple add name=all target=lan dst=ether1; /queue simple add name=one parent=all target=10.0.0.1,lan")
	cfg = run(cfg, "/queue simple set all name=every; /interface bridge set lan name=home; /interface ethernet set ether1 name=wan")
	assert.Contains(t, Export(cfg), "/queue simple\nadd dst=wan name=every target=home\nadd name=one parent=every target=10.0.0.1/32,home\n")
	result, err := new(Session).Execute(cfg, fullLive(), "/interface bridge remove home")
	require.NoError(t, err)
	assert.ErrorContains(t, ValidateChange(cfg, result.Config, []string{"ether1", "ether2", "usb1"}), "it is in use by /queue simple 0 (every), /queue simple 1 (one)")
	result, err = new(Session).Execute(cfg, fullLive(), "/queue simple remove every")
	require.NoError(t, err)
	assert.ErrorContains(t, Validate(result.Config, []string{"ether1", "ether2", "usb1"}), "/queue simple: queue 0 (one): parent=every: expected the name of a queue")
	cfg = run(cfg, "/queue simple move one destination=0")
	assert.Equal(t, "one", cfg.Queues[0].Name)
}

// Who asks for equal shares of hosts is told that connections have them.
func TestQueueKindWarns(t *testing.T) {
	said := func(lines string) string {
		result, err := new(Session).Execute(Default(), fullLive(), lines+"; /queue simple print terse")
		require.NoError(t, err)
		return result.Output
	}
	assert.NotContains(t, said("/queue simple add name=a queue=default"), "addresses")
	assert.Contains(t, said("/queue simple add name=a; /queue simple add name=b queue=default/pcq-download-default"),
		"queue=default/pcq-download-default is as default: connections share the rate, not addresses; a queue for each host in a parent does that\n")
}

// What is shown and set to zero are the classes that all packets of a queue go through.
func TestQueueCounters(t *testing.T) {
	result, err := new(Session).Execute(Default(), fullLive(), "/queue simple add name=a target=10.0.0.0/8 max-limit=1M; /queue simple add name=b target=ether2 disabled=yes")
	require.NoError(t, err)
	cfg := result.Config
	live := fullLive()
	var reset []uint16
	live.ResetQueueCounters = func(ids []uint16) error { reset = ids; return nil }
	live.QueueCounters = func() (map[uint16]netcfg.ClassCounters, error) {
		return map[uint16]netcfg.ClassCounters{queue.Total(cfg.Queues)["a"][queue.Down]: {Bytes: 12345, Packets: 12, Rate: 125_000, Dropped: 1}}, nil
	}
	result, err = new(Session).Execute(cfg, live, "/queue simple print stats")
	require.NoError(t, err)
	assert.Equal(t, `Flags: X - disabled, I - invalid, D - dynamic
 #   NAME             TARGET             RATE                BYTES                   PACKETS           DROPPED
 0   a                10.0.0.0/8         0bps/1.0Mbps        0/12345                 0/12              0/1
 1 X b                ether2             0bps/0bps           0/0                     0/0               0/0
`, result.Output)
	// A long value makes its column wider, and the others stay below their titles.
	for _, width := range []int{0, 200} {
		result, err = (&Session{Width: width}).Execute(cfg, live, "/queue simple set b target=192.168.0.1,192.168.0.2; /queue simple print stats")
		require.NoError(t, err)
		assert.Equal(t, `Flags: X - disabled, I - invalid, D - dynamic
 #   NAME             TARGET                        RATE                BYTES                   PACKETS           DROPPED
 0   a                10.0.0.0/8                    0bps/1.0Mbps        0/12345                 0/12              0/1
 1 X b                192.168.0.1/32,192.168.0.2/32 0bps/0bps           0/0                     0/0               0/0
`, result.Output)
	}
	result, err = new(Session).Execute(cfg, live, "/queue simple reset-counters a")
	require.NoError(t, err)
	require.NoError(t, result.Action.CarryOut(live))
	ids := queue.Total(cfg.Queues)["a"]
	assert.Equal(t, ids[:], reset)
	_, err = new(Session).Execute(cfg, live, "/queue simple remove b; reset-counters-all")
	require.Error(t, err)
}

// Tab knows the queues and their kinds.
func TestQueueChoices(t *testing.T) {
	result, err := new(Session).Execute(Default(), fullLive(), "/queue simple add name=all; /queue simple add name=one")
	require.NoError(t, err)
	for line, want := range map[string]string{
		"parent=": "all one none", "parent=a": "all", "queue=def": "default default-small",
		"queue=default/": "", "packet-marks=": "no-mark",
	} {
		_, choices := new(Session).Complete(result.Config, fullLive(), "/queue simple add "+line)
		assert.Equal(t, want, strings.Join(choiceNames(choices), " "), line)
	}
}

// A burst below the limit is refused where it is set, and not what an earlier version has kept.
func TestQueueBurstBelowLimit(t *testing.T) {
	const add, refused = "/queue simple add name=q target=10.0.0.0/8 max-limit=2M/8M ", "/queue simple: queue q: burst-limit: expected more than max-limit, or 0 for no burst"
	ports := []string{"ether1"}
	run := func(cfg Config, line string) (Config, error) {
		result, err := new(Session).Execute(cfg, fullLive(), line)
		require.NoError(t, err)
		return result.Config, ValidateChange(cfg, result.Config, ports)
	}
	for _, burst := range []string{"1M/16M", "4M/4M"} {
		kept, err := run(Default(), add+"burst-limit="+burst)
		assert.EqualError(t, err, refused)
		require.NoError(t, Validate(kept, ports))
		_, err = run(kept, "/queue simple set q comment=x")
		assert.NoError(t, err)
		_, err = run(kept, "/queue simple set q max-limit=4M/16M burst-limit=3M")
		assert.EqualError(t, err, refused)
	}
	for _, burst := range []string{"0/0", "4M/0", "2M/8M", "4M/16M"} {
		_, err := run(Default(), add+"burst-limit="+burst)
		assert.NoError(t, err, burst)
	}
}
