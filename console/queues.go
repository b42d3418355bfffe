package console

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/queue"
	"github.com/postern-router/postern/socks"
)

func queues(c *Config) *[]queue.Simple { return &c.Queues }

// queueTypes are RouterOS's names of ready-made queues. All have what ours have: packets wait, and connections share the rate. In those of pcqTypes
// addresses share it, which is said where queues are printed.
var queueTypes = []string{"default", "default-small", "ethernet-default", "fq-codel-default", "multi-queue-ethernet-default", "pcq-download-default",
	"pcq-upload-default", "synchronous-default", "wireless-default"}

// pcqTypes begins the names of those that sort by addresses.
const pcqTypes = "pcq-"

// queueMenu is the menu /queue simple (https://help.mikrotik.com/docs/spaces/ROS/pages/328088/Queues).
func queueMenu() *menu {
	properties := renaming(bindItems(queues,
		prop("name", label(1, 64), "", "name of the queue", func(q *queue.Simple) *string { return &q.Name }),
		prop("target", queueParts(queue.MaxParts), "", "whose traffic it is: what it sends is the upload, what it is sent the download",
			func(q *queue.Simple) *string { return &q.Target }),
		prop("dst", queueParts(1), "", "with whom: only traffic to and from it", func(q *queue.Simple) *string { return &q.Dst }),
		prop("parent", queueParent(), "none", "queue whose limits this one shares with others", func(q *queue.Simple) *string { return &q.Parent }),
		prop("packet-marks", packetMarks(), "", "marks of mangle that packets have", func(q *queue.Simple) *string { return &q.PacketMarks }),
		prop("priority", pair("integer: 1..8", func(s string) (uint64, error) {
			n, err := integer(1, 8).parse(s)
			return uint64(n), err
		}, func(n uint64) string { return strconv.FormatUint(n, 10) }), "8/8", "of queues with one parent the lowest has first what is left behind limit-at",
			func(q *queue.Simple) *[2]uint64 { return &q.Priority }),
		prop("queue", queueType(), "default-small/default-small", "kind of queue: with each of them packets wait, and connections share the rate, also with pcq",
			func(q *queue.Simple) *string { return &q.Type }),
		prop("limit-at", rates(), "0/0", "bits per second that it has whatever others do", func(q *queue.Simple) *[2]uint64 { return &q.LimitAt }),
		prop("max-limit", rates(), "0/0", "bits per second that it never exceeds, but for a burst; 0 is no limit", func(q *queue.Simple) *[2]uint64 { return &q.MaxLimit }),
		prop("burst-limit", rates(), "0/0", "bits per second in a burst", func(q *queue.Simple) *[2]uint64 { return &q.BurstLimit }),
		prop("burst-threshold", rates(), "0/0", "a burst ends when the average over burst-time exceeds this", func(q *queue.Simple) *[2]uint64 { return &q.BurstThreshold }),
		prop("burst-time", pair("time: 0s..1h", func(s string) (uint64, error) {
			d, err := duration(0, time.Hour).parse(s)
			if d%time.Second != 0 {
				return 0, errors.New("not whole seconds")
			}
			return uint64(d / time.Second), err
		}, func(n uint64) string { return formatDuration(time.Duration(n) * time.Second) }), "0s/0s", "time of that average", func(q *queue.Simple) *[2]uint64 { return &q.BurstTime }),
		prop("bucket-size", pair("number: 0..10, with at most 3 digits behind the point", parseThousandths, formatThousandths), "0.1/0.1",
			"seconds of max-limit that may be sent at once after a pause", func(q *queue.Simple) *[2]uint64 { return &q.Bucket }),
		prop("time", optional(checked(firewall.TimeAccepted, firewall.CheckTime), "always"), "", "time of the day and days of the week in which it is in force", func(q *queue.Simple) *string { return &q.Time }),
		disabled(func(q *queue.Simple) *bool { return &q.Disabled }),
		comment(func(q *queue.Simple) *string { return &q.Comment }),
	), func(c *Config, name string) bool {
		return slices.ContainsFunc(c.Queues, func(q queue.Simple) bool { return q.Name == name })
	}, func(c *Config, from, to string) {
		for i := range c.Queues {
			if c.Queues[i].Parent == from {
				c.Queues[i].Parent = to
			}
		}
	})
	for i := range properties {
		if p := &properties[i]; p.name == "target" || p.name == "dst" {
			p.isInterface = true
			p.byName()
		}
	}
	return &menu{
		path: "queue simple", help: "limits of what hosts and networks send and are sent, first match decides",
		commands: commandsLike(ruleCommands(), "", resetQueueCounters, resetAllQueueCounters), legend: legendRule, flags: flagsRule,
		items: itemLists[queueItems], properties: properties, warnings: (*execution).queueWarning,
		readOnly: []readOnly{
			{name: "rate", help: "bits per second of the last seconds", counted: true},
			{name: "packet-rate", help: "packets per second", counted: true},
			{name: "bytes", help: "bytes that were sent", counted: true},
			{name: "packets", help: "packets that were sent", counted: true},
			{name: "dropped", help: "packets that were dropped, as too many waited", counted: true},
			{name: "queued-bytes", help: "bytes that wait", counted: true},
			{name: "queued-packets", help: "packets that wait", counted: true},
		},
		stats:       (*execution).queueStats,
		statColumns: []column{{"name", 16}, {"target", 18}, {"rate", 19}, {"bytes", 23}, {"packets", 17}, {"dropped", 0}},
	}
}

// queueWarning is printed while somebody may believe that hosts have equal shares.
func (x *execution) queueWarning() []string {
	for _, q := range x.cfg.Queues {
		if strings.Contains(q.Type, pcqTypes) {
			return []string{"queue=" + q.Type + " is as default: connections share the rate, not addresses; a queue for each host in a parent does that"}
		}
	}
	return nil
}

var (
	resetQueueCounters = command{name: "reset-counters", help: "set the counters of items to zero", positional: []string{"numbers"}, arguments: []argument{numbersArgument},
		able: func(l Live) bool { return l.ResetQueueCounters != nil }, run: (*execution).resetQueueCounters}
	resetAllQueueCounters = command{name: "reset-counters-all", help: "set the counters of all items to zero",
		able: resetQueueCounters.able, run: (*execution).resetQueueCounters}
)

// queueStats adds to rows what the queues have sent, uploads before downloads.
func (x *execution) queueStats(m *menu, rows []row) error {
	if x.live.QueueCounters == nil {
		return unavailable("counters")
	}
	counters, err := x.live.QueueCounters()
	if err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	items, err := x.counted(m, rows, len(x.cfg.Queues))
	if err != nil {
		return err
	}
	totals := queue.Total(x.cfg.Queues)
	for i, q := range x.cfg.Queues {
		var up, down netcfg.ClassCounters
		if ids, ok := totals[q.Name]; ok {
			up, down = counters[ids[queue.Up]], counters[ids[queue.Down]]
		}
		number := func(name string, of func(netcfg.ClassCounters) uint64) Pair {
			return textPair(name, strconv.FormatUint(of(up), 10)+"/"+strconv.FormatUint(of(down), 10))
		}
		items[i].pairs = append(items[i].pairs,
			textPair("rate", rateOf(up.Rate*8)+"/"+rateOf(down.Rate*8)),
			number("packet-rate", func(c netcfg.ClassCounters) uint64 { return c.PacketRate }),
			number("bytes", func(c netcfg.ClassCounters) uint64 { return c.Bytes }),
			number("packets", func(c netcfg.ClassCounters) uint64 { return c.Packets }),
			number("dropped", func(c netcfg.ClassCounters) uint64 { return c.Dropped }),
			number("queued-bytes", func(c netcfg.ClassCounters) uint64 { return c.QueuedBytes }),
			number("queued-packets", func(c netcfg.ClassCounters) uint64 { return c.QueuedPackets }))
	}
	return nil
}

// resetQueueCounters has the counters of queues set to zero.
func (x *execution) resetQueueCounters(m *menu, a arguments) error {
	indices, err := x.countedItems(m, a)
	if err != nil {
		return err
	}
	totals := queue.Total(x.cfg.Queues)
	for _, i := range indices {
		if ids, ok := totals[x.cfg.Queues[i].Name]; ok {
			x.result.Action.ResetQueues = append(x.result.Action.ResetQueues, ids[:]...)
		}
	}
	return nil
}

// pair is a value for uploads and one for downloads, "10M/20M". One alone is for both.
func pair(accepts string, parse func(string) (uint64, error), format func(uint64) string) kind[[2]uint64] {
	return kind[[2]uint64]{
		accepts: "UPLOAD/DOWNLOAD, or one for both: " + accepts,
		parse: func(s string) (both [2]uint64, err error) {
			up, down, some := strings.Cut(s, "/")
			if !some {
				down = up
			}
			for i, word := range []string{up, down} {
				if both[i], err = parse(word); err != nil {
					return both, err
				}
			}
			return both, nil
		},
		format: func(both [2]uint64) string { return format(both[0]) + "/" + format(both[1]) },
	}
}

func rates() kind[[2]uint64] {
	return pair("bits per second, as 512k or 10M: 0, or 8000..10G", func(s string) (uint64, error) {
		n, err := socks.ParseRate(s)
		if err == nil && (n > queue.MaxRate || n > 0 && n < queue.MinRate) {
			err = errNoMatch
		}
		return n, err
	}, socks.FormatRate)
}

// parseThousandths reads "0.1" as 100.
func parseThousandths(s string) (uint64, error) {
	whole, rest, _ := strings.Cut(s, ".")
	if len(rest) > 3 {
		return 0, errNoMatch
	}
	n, err := decimal(whole + rest + strings.Repeat("0", 3-len(rest)))
	if err != nil || whole == "" || n > 10_000 {
		return 0, errNoMatch
	}
	return uint64(n), nil
}

func formatThousandths(n uint64) string {
	text := fmt.Sprintf("%d.%03d", n/1000, n%1000)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

const networkAccepted = "IP address/netmask"

// queueParts are at most so many networks and interfaces.
func queueParts(limit int) kind[string] {
	accepts := networkAccepted + " | interface name"
	if limit > 1 {
		accepts += fmt.Sprintf(", or a list of at most %d", limit)
	}
	return optional(kind[string]{
		typ: List, list: limit > 1, accepts: accepts,
		parse: func(s string) (string, error) {
			if s == "" {
				return "", nil
			}
			words := strings.Split(s, ",")
			if len(words) > limit {
				return "", errNoMatch
			}
			for i, word := range words {
				if p, err := match.ParsePrefix(word); err == nil {
					words[i] = p.Masked().String()
				} else if words[i], err = portName().parse(word); err != nil {
					return "", err
				}
			}
			return strings.Join(words, ","), nil
		},
		format: func(s string) string { return s },
	}, "any")
}

func packetMarks() kind[string] {
	one := ruleName("")
	k := optional(kind[string]{
		typ: List, list: true, accepts: fmt.Sprintf("name of a mark | no-mark, or a list of at most %d", queue.MaxParts),
		parse: func(s string) (string, error) {
			if s == "" {
				return "", nil
			}
			words := strings.Split(s, ",")
			if len(words) > queue.MaxParts {
				return "", errNoMatch
			}
			for _, word := range words {
				if _, err := one.parse(word); err != nil {
					return "", err
				}
			}
			return s, nil
		},
		format: func(s string) string { return s },
	}, "any")
	k.offers = markChoices("new-packet-mark", "no-mark")
	return k
}

// noneOr is a kind of text in which none is the empty one.
func noneOr(k kind[string]) kind[string] {
	parse := k.parse
	k.accepts = "none | " + k.accepts
	k.parse = func(s string) (string, error) {
		if s == "none" {
			return "", nil
		}
		return parse(s)
	}
	k.format = func(s string) string {
		if s == "" {
			return "none"
		}
		return s
	}
	return k
}

// queueParent is the name of a queue, or none.
func queueParent() kind[string] {
	k := noneOr(label(1, 64))
	names := valuesOf("", "name", "a queue")
	k.offers = func(x *execution, m *menu) []Choice {
		return append(names(x, m), Choice{"none", "the queue stands alone"})
	}
	return k
}

// queueType is one of queueTypes for uploads and one for downloads.
func queueType() kind[string] {
	return kind[string]{
		accepts: "UPLOAD/DOWNLOAD, or one for both: " + strings.Join(queueTypes, " | "),
		parse: func(s string) (string, error) {
			up, down, some := strings.Cut(s, "/")
			if !some {
				down = up
			}
			for _, word := range []string{up, down} {
				if strings.HasPrefix(word, pcqTypes) && !slices.Contains(queueTypes, word) {
					return "", match.Refusal("Postern has no kinds of queues of one's own: a queue for each host in a parent bounds hosts")
				}
				if !slices.Contains(queueTypes, word) {
					return "", errNoMatch
				}
			}
			return up + "/" + down, nil
		},
		format: func(s string) string { return s },
		offers: func(*execution, *menu) (all []Choice) {
			for _, name := range queueTypes {
				all = append(all, Choice{name, "packets wait, and connections share the rate"})
			}
			return all
		},
	}
}
