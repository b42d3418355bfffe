// Package queue has the queues of /queue simple: it turns them into classes of what links send, which package netcfg has
// the kernel keep, and into rules of package firewall, which say what packet is in which class.
//
// A queue bounds what its target sends (upload) and what it is sent (download). Both are bounded where they leave the router:
// an upload on the links that do not lead to the target, a download on those that do. So what passes several links the one or
// the other way has the limit on each of them.
//
// It promises:
//   - The first queue that matches has the packet, and the queues whose parent a queue is come before it.
//   - The same queues always get the same classes, and one that stays keeps its classes whatever becomes of others, unless two names
//     have the same hash.
//   - What it returns is bounded: see MaxQueues, MaxParts and netcfg.MaxClasses.
//   - It does no I/O.
package queue

import (
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/netcfg"
)

// The two directions, as places in the pairs of a Simple.
const (
	Up   = 0 // from the target
	Down = 1 // to the target
)

const (
	// MaxQueues is how many queues there can be, and MaxParts how many parts a target or the marks of a queue can have.
	MaxQueues = 64
	MaxParts  = 16
	// MaxDepth is how many queues can be one within the other. The kernel has 8 levels (TC_HTB_MAXDEPTH, linux/pkt_sched.h), of which one queue takes
	// two if it has a burst, and one more is for what is in a queue but in none of those within it.
	MaxDepth = 3
	// MinRate and MaxRate are the bounds of a rate in bits per second that is not 0.
	MinRate = 8000
	MaxRate = 10_000_000_000
)

// Simple is one queue.
type Simple struct {
	Name string
	// Target is whose traffic it is: networks and names of interfaces separated by commas, "" for anybody's. Dst is with
	// whom: a network or the name of an interface, "" for anybody.
	Target, Dst string
	// PacketMarks are names of packets' marks, separated by commas, of which a packet has one, or firewall.NoMark; "" for any.
	PacketMarks string
	// Parent is the name of the queue whose limits this one shares with others; "" is none.
	Parent string
	// Time is a value of the firewall's matcher time; "" is always.
	Time string
	// Of the pairs the first is for uploads, the second for downloads. Priority is 1..8: of queues within one that want more than
	// LimitAt the lowest goes first.
	Priority [2]uint64
	// Type is what the user calls the kind of queue: "default/default". All are alike.
	Type string
	// LimitAt is what it has whatever others do, MaxLimit what it never exceeds but for a burst; bits per second, 0 for none.
	LimitAt, MaxLimit [2]uint64
	// After a while of little traffic it has BurstLimit, until it had so much as RouterOS's average over BurstTime seconds would let through before
	// it exceeds BurstThreshold. One of them that is 0 is no burst.
	BurstLimit, BurstThreshold [2]uint64
	BurstTime                  [2]uint64
	// Bucket is how long it may exceed MaxLimit after a pause, in thousandths of the time that the bytes of it take at MaxLimit: 0..10000.
	Bucket   [2]uint64
	Disabled bool
	Comment  string
}

// part is one of a Target, or Dst.
type part struct {
	prefix netip.Prefix // not valid for an interface
	link   string
}

// parts reads a Target or Dst: none are any.
func parts(text string) (all []part, err error) {
	if text == "" {
		return nil, nil
	}
	for word := range strings.SplitSeq(text, ",") {
		p := part{link: word}
		if strings.Contains(word, "/") {
			prefix, err := match.ParsePrefix(word)
			if err != nil {
				return nil, err
			}
			if prefix.Bits() == 0 {
				return nil, nil
			}
			p = part{prefix: prefix.Masked()}
		}
		all = append(all, p)
	}
	return all, nil
}

// CheckBurst returns the error of a burst-limit below max-limit. It is no burst, and RouterOS's manual wants it above; kept configurations of
// earlier versions may have it.
func (q *Simple) CheckBurst() error {
	for d := range 2 {
		if q.BurstLimit[d] > 0 && q.BurstLimit[d] < q.MaxLimit[d] {
			return fmt.Errorf("queue %s: burst-limit: expected more than max-limit, or 0 for no burst", q.Name)
		}
	}
	return nil
}

// Validate returns the error of the first queue that makes no sense beside the others, or nil.
func Validate(all []Simple) error {
	if len(all) > MaxQueues {
		return fmt.Errorf("expected at most %d queues, got %d", MaxQueues, len(all))
	}
	byName := map[string]*Simple{}
	for i := range all {
		q := &all[i]
		if byName[q.Name] != nil {
			return fmt.Errorf("queue %d: name=%s: expected a name of its own", i, q.Name)
		}
		byName[q.Name] = q
	}
	for i := range all {
		if err := all[i].validate(byName); err != nil {
			return fmt.Errorf("queue %d (%s): %w", i, all[i].Name, err)
		}
	}
	return nil
}

func (q *Simple) validate(byName map[string]*Simple) error {
	for _, p := range []struct {
		name, value string
		most        int
	}{{"target", q.Target, MaxParts}, {"dst", q.Dst, 1}, {"packet-marks", q.PacketMarks, MaxParts}} {
		if n := strings.Count(p.value, ",") + 1; n > p.most {
			return fmt.Errorf("%s: expected at most %d, got %d", p.name, p.most, n)
		}
	}
	for _, text := range []string{q.Target, q.Dst} {
		if _, err := parts(text); err != nil {
			return err
		}
	}
	if q.Time != "" {
		if err := firewall.CheckTime(q.Time); err != nil {
			return fmt.Errorf("time=%s: %w", q.Time, err)
		}
	}
	for d := range 2 {
		if q.LimitAt[d] > q.MaxLimit[d] && q.MaxLimit[d] > 0 {
			return fmt.Errorf("limit-at: expected no more than max-limit")
		}
		if q.Priority[d] < 1 || q.Priority[d] > 8 {
			return fmt.Errorf("priority=%d: expected 1..8", q.Priority[d])
		}
		for _, rate := range []uint64{q.LimitAt[d], q.MaxLimit[d], q.BurstLimit[d], q.BurstThreshold[d]} {
			if rate > MaxRate || rate > 0 && rate < MinRate {
				return fmt.Errorf("a rate of %d: expected 0, or %d..%d bits per second", rate, MinRate, uint64(MaxRate))
			}
		}
	}
	depth := 1
	for p := q.Parent; p != ""; depth++ {
		parent := byName[p]
		if parent == nil {
			return fmt.Errorf("parent=%s: expected the name of a queue", p)
		}
		if depth >= MaxDepth {
			return fmt.Errorf("parent=%s: expected at most %d queues one within the other, and none within itself", q.Parent, MaxDepth)
		}
		p = parent.Parent
	}
	return nil
}

// The classes of a queue in one direction, as they are numbered. A queue has main; with a burst it has inner too, and where other queues are in
// it rest, which has what is in none of them.
const (
	main = iota
	inner
	rest
	roles = 4 // so many numbers are for one direction
)

// node is a queue among those that are in force.
type node struct {
	*Simple
	slot     uint16
	parent   *node
	children []*node
	target   []part
	dst      []part
}

// tree returns the queues that are in force: those that are not disabled, nor within one that is. The first ones are those without
// a parent.
func tree(all []Simple) (tops, nodes []*node) {
	byName := map[string]*node{}
	names := make([]string, 0, len(all))
	for i := range all {
		n := &node{Simple: &all[i]}
		n.target, _ = parts(n.Target) // Validate has accepted them
		n.dst, _ = parts(n.Dst)
		byName[n.Name] = n
		names = append(names, n.Name)
	}
	slices.Sort(names)
	used := map[uint16]bool{}
	for _, name := range names {
		h := fnv.New32a()
		_, _ = h.Write([]byte(name)) // never fails
		slot := uint16(h.Sum32()%slots) + 1
		for used[slot] {
			slot = slot%slots + 1
		}
		byName[name].slot, used[slot] = slot, true
	}
	on := func(n *node) bool {
		for range MaxDepth {
			if n.Disabled {
				return false
			}
			if n = byName[n.Parent]; n == nil {
				return true
			}
		}
		return false // which Validate refuses
	}
	for i := range all {
		n := byName[all[i].Name]
		if !on(n) {
			continue
		}
		nodes = append(nodes, n)
		if n.parent = byName[n.Parent]; n.parent == nil {
			tops = append(tops, n)
		} else {
			n.parent.children = append(n.parent.children, n)
		}
	}
	return tops, nodes
}

// slots is how many numbers of queues there are: with their roles they fit into 16 bits, and none is 0.
const slots = 4096

func (n *node) id(direction, role int) uint16 {
	return n.slot*2*roles + uint16(direction*roles+role)
}

// bursts reports whether the queue has a burst.
func (n *node) bursts(d int) bool {
	return n.MaxLimit[d] > 0 && n.BurstLimit[d] > n.MaxLimit[d] && n.BurstThreshold[d] > 0 && n.BurstTime[d] > 0
}

// holds is the class that other queues are in, and leaf that which has the packets.
func (n *node) holds(d int) uint16 {
	if n.bursts(d) {
		return n.id(d, inner)
	}
	return n.id(d, main)
}

func (n *node) leaf(d int) uint16 {
	if len(n.children) > 0 {
		return n.id(d, rest)
	}
	return n.holds(d)
}

// Total is the class through which all packets of a queue go, by its name.
func Total(all []Simple) map[string][2]uint16 {
	_, nodes := tree(all)
	classes := make(map[string][2]uint16, len(nodes))
	for _, n := range nodes {
		classes[n.Name] = [2]uint16{n.id(Up, main), n.id(Down, main)}
	}
	return classes
}

// Rules say which packets are in which class. actual is the link on which the kernel sees the packets of an interface:
// netcfg.Config.Actual.
func Rules(all []Simple, actual func(string) string) []firewall.QueueRule {
	tops, _ := tree(all)
	var rules []firewall.QueueRule
	var add func(n *node)
	add = func(n *node) {
		for _, c := range n.children {
			add(c)
		}
		marks := strings.Split(n.PacketMarks, ",")
		for d := range 2 {
			from, to := n.target, n.dst
			if d == Down {
				from, to = to, from
			}
			for _, src := range orAny(from) {
				for _, dst := range orAny(to) {
					for _, mark := range marks {
						r := firewall.QueueRule{Class: n.leaf(d), Src: src.prefix, Dst: dst.prefix, PacketMark: mark, Time: n.Time}
						if src.link != "" {
							r.In = actual(src.link)
						}
						if dst.link != "" {
							r.Out = actual(dst.link)
						}
						rules = append(rules, r)
					}
				}
			}
		}
	}
	for _, n := range tops {
		add(n)
	}
	return rules
}

func orAny(all []part) []part {
	if len(all) == 0 {
		return []part{{}}
	}
	return all
}

// Links are the classes of each link, in the order of their names. c is the network, whose addresses and routes say which links lead to a target.
func Links(all []Simple, c netcfg.Config) []netcfg.LinkQueues {
	tops, nodes := tree(all)
	if len(nodes) == 0 {
		return nil
	}
	ways := waysOf(c, nodes)
	names := make([]string, 0, len(ways))
	for name := range ways {
		names = append(names, name)
	}
	slices.Sort(names)
	// Where a queue is on a link, so are those that it is in.
	there := map[string]map[uint16]bool{}
	for _, n := range nodes {
		up, down := n.links(ways, names, c.Actual)
		for d, links := range [2][]string{up, down} {
			for _, link := range links {
				if there[link] == nil {
					there[link] = map[uint16]bool{}
				}
				for p := n; p != nil; p = p.parent {
					there[link][p.id(d, main)] = true
				}
			}
		}
	}
	var queues []netcfg.LinkQueues
	for _, name := range names {
		if there[name] == nil {
			continue
		}
		l := netcfg.LinkQueues{Interface: name}
		for _, n := range tops {
			for d := range 2 {
				n.classes(d, 0, unlimited, there[name], &l.Classes)
			}
		}
		queues = append(queues, l)
	}
	return queues
}

// waysOf are the networks that the links of c lead to: those of their addresses and of routes by them, the default routes aside. The links that
// queues name are among them.
func waysOf(c netcfg.Config, nodes []*node) map[string][]netip.Prefix {
	ways := map[string][]netip.Prefix{}
	for _, a := range c.Addresses {
		if !a.Disabled {
			on := c.Actual(a.Interface)
			ways[on] = append(ways[on], a.Address.Masked())
		}
	}
	for _, r := range c.Routes {
		on := c.Actual(r.Interface)
		bits := -1
		for _, link := range slices.Sorted(maps.Keys(ways)) { // of several that have the gateway always the same
			for _, p := range ways[link] {
				if r.Interface == "" && p.Contains(r.Gateway) && p.Bits() > bits {
					on, bits = link, p.Bits()
				}
			}
		}
		if !r.Disabled && r.Destination.Bits() > 0 && on != "" {
			ways[on] = append(ways[on], r.Destination)
		}
	}
	for _, n := range nodes {
		for _, p := range slices.Concat(n.target, n.dst) {
			if p.link != "" {
				ways[c.Actual(p.link)] = slices.Clip(ways[c.Actual(p.link)])
			}
		}
	}
	return ways
}

// links are those on which the uploads and the downloads of a queue leave. names are all.
func (n *node) links(ways map[string][]netip.Prefix, names []string, actual func(string) string) (up, down []string) {
	// to are the links that lead to parts; all if none is known to.
	to := func(all []part) (links []string) {
		for _, name := range names {
			if slices.ContainsFunc(all, func(p part) bool {
				return p.link != "" && actual(p.link) == name || p.link == "" && slices.ContainsFunc(ways[name], p.prefix.Overlaps)
			}) {
				links = append(links, name)
			}
		}
		if links == nil {
			return names
		}
		return links
	}
	// What comes by one link does not leave by it, unless it leads to two networks.
	but := func(links, others []string, some bool) []string {
		if !some || len(others) != 1 || apart(ways[others[0]]) {
			return links
		}
		return slices.DeleteFunc(slices.Clone(links), func(name string) bool { return name == others[0] })
	}
	side, far := to(n.target), to(n.dst)
	up, down = but(far, side, n.target != nil), but(side, far, n.dst != nil)
	if n.target == nil && n.dst == nil {
		return up, nil // every packet is an upload
	}
	return up, down
}

// apart reports whether two of the networks have no address in common.
func apart(all []netip.Prefix) bool {
	for i, p := range all {
		if slices.ContainsFunc(all[:i], func(o netip.Prefix) bool { return !o.Overlaps(p) }) {
			return true
		}
	}
	return false
}

// Rates of the kernel's are in bytes per second. One without a bound has unlimited, and one to which nothing is promised has minRate, as 0 is none.
const (
	unlimited = MaxRate / 8
	minRate   = MinRate / 8
)

// classes adds the classes of a queue in one direction, if they are on a link, and of those within it. parent is the class that they are in, whose rate is
// ceil at most.
func (n *node) classes(d int, parent uint16, ceil uint64, there map[uint16]bool, all *[]netcfg.Class) {
	if !there[n.id(d, main)] {
		return
	}
	limit := ceil
	if n.MaxLimit[d] > 0 {
		limit = min(limit, n.MaxLimit[d]/8)
	}
	bucket := func(rate uint64) uint32 {
		// No less than the kernel's clock lets through at once, nor than two packets.
		return uint32(max(min(rate*max(n.Bucket[d], 12)/1000, maxBurst), minBurst))
	}
	add := func(id, parent uint16, rate, ceil uint64, burst uint32, leaf bool) {
		*all = append(*all, netcfg.Class{
			ID: id, Parent: parent, Rate: uint32(rate), Ceil: uint32(ceil), Burst: bucket(rate), CeilBurst: burst, Priority: uint8(n.Priority[d] - 1), Leaf: leaf,
		})
	}
	// What is in no other class has nothing to borrow from: its rate is the limit.
	promised := max(min(n.LimitAt[d]/8, limit), minRate)
	isLeaf := len(n.children) == 0
	if !n.bursts(d) {
		rate := limit
		if parent != 0 {
			rate = promised
		}
		add(n.id(d, main), parent, rate, limit, bucket(limit), isLeaf)
	} else {
		// The outer class has the rate of the burst. The inner one may exceed its own by as many bytes as RouterOS lets through above it.
		peak := min(ceil, n.BurstLimit[d]/8)
		rate := peak
		if parent != 0 {
			rate = promised
		}
		add(n.id(d, main), parent, rate, peak, bucket(peak), false)
		all := float64(n.BurstThreshold[d]) / 8 * float64(n.BurstTime[d])
		extra := uint64(all * float64(n.BurstLimit[d]-n.MaxLimit[d]) / float64(n.BurstLimit[d]))
		extra = min(extra+uint64(bucket(limit)), limit*maxBurstTime)
		add(n.id(d, inner), n.id(d, main), promised, limit, uint32(min(extra, 1<<31)), isLeaf)
	}
	if isLeaf {
		return
	}
	for _, c := range n.children {
		c.classes(d, n.holds(d), limit, there, all)
	}
	add(n.id(d, rest), n.holds(d), minRate, limit, bucket(limit), true)
}

const (
	minBurst = 3200    // bytes
	maxBurst = 4 << 20 // bytes
	// maxBurstTime is for how many seconds a class may save up what it does not send (HTB's mbuffer, net/sched/sch_htb.c).
	maxBurstTime = 60
)
