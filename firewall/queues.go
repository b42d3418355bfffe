package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// QueueMajor is the first half of the kernel's numbers of classes (tc(8)): that of the queues of all links. CLASSIFY puts a packet into the class of
// that number on whatever link it leaves by, if there is one, else into none.
const QueueMajor = 0x5051

// MaxQueueRules is how many QueueRules a Config can have.
const MaxQueueRules = 1024

// QueueRule puts packets that leave into a class. A matcher's zero value matches everything.
type QueueRule struct {
	Class uint16
	// Src and Dst are networks, before a source is translated and after a destination is translated back: a host of the LAN has its own address.
	Src, Dst netip.Prefix
	// In and Out are the names of links. What the router itself sends came in by none.
	In, Out string
	// PacketMark is the name of a mark of mangle's, or NoMark.
	PacketMark string
	// Time is a value of the matcher time.
	Time string
}

const (
	// queueChain has the rules, and queueEnd accepts behind them. classPrefix begins the names of the chains that put a packet into a class: a chain is left by
	// its end, so that the first rule decides.
	queueChain  = "postern-queues"
	queueEnd    = "postern-queues-end"
	classPrefix = "postern-class-"
)

// withQueues adds to the chains of Mangle, which are those of es, what puts packets into classes. A rule of the kernel's last chain that accepts would hide
// a packet from it, so there queueEnd accepts.
//
// The kernel does not know any more there by which link a packet came in. So where packets are forwarded they get a mark for it.
func withQueues(chains []kernelChain, es []entry, queues []QueueRule, m marks) []kernelChain {
	if len(queues) == 0 {
		return chains
	}
	links := queueLinks(queues)
	k := kernelChains{place: map[string]int{}}
	for _, name := range []string{queueChain, queueEnd} {
		k.chain(-1, name)
	}
	for i := range queues {
		q := &queues[i]
		class := classPrefix + strconv.Itoa(int(q.Class))
		if _, ok := k.place[class]; !ok {
			k.chain(-1, class)
			k.add(class, kernelRule{entry: -1, target: []string{"-j", "CLASSIFY", "--set-class", fmt.Sprintf("%x:%x", QueueMajor, q.Class)}})
		}
		k.add(queueChain, kernelRule{entry: -1, match: q.matches(links, m), target: []string{"-g", class}})
	}
	k.add(queueEnd, kernelRule{entry: -1, target: []string{"-j", queueChain}})
	k.add(queueEnd, kernelRule{entry: -1, target: []string{"-j", "ACCEPT"}})

	chains = endBy(chains, es, "POSTROUTING", queueChain, queueEnd, func(e entry) bool { return e.chain == "POSTROUTING" })
	for i, c := range chains {
		if c.name == "FORWARD" {
			var first []kernelRule
			for n, name := range links {
				first = append(first, kernelRule{entry: -1, match: []string{"-i", name}, target: []string{"-j", "MARK", "--set-xmark", masked(uint32(n+1)<<linkShift, linkMask)}})
			}
			chains[i].rules = slices.Concat(first, c.rules)
		}
	}
	return append(chains, k.all...)
}

// queueLinks are the links by which packets of queues come in. A link's mark is its place, from 1.
func queueLinks(queues []QueueRule) (links []string) {
	for i := range queues {
		if in := queues[i].In; in != "" && !slices.Contains(links, in) {
			links = append(links, in)
		}
	}
	slices.Sort(links)
	return links
}

// matches returns the matches of a rule as an iptables command line has them.
func (q *QueueRule) matches(links []string, m marks) (a []string) {
	if q.Src.IsValid() {
		a = append(a, "-s", q.Src.String())
	}
	if q.Dst.IsValid() {
		a = append(a, "-d", q.Dst.String())
	}
	if q.Out != "" {
		a = append(a, "-o", q.Out)
	}
	if q.In != "" {
		a = append(a, "-m", "mark", "--mark", masked(uint32(slices.Index(links, q.In)+1)<<linkShift, linkMask))
	}
	a = append(a, m.matches(&Rule{PacketMark: q.PacketMark})...)
	if q.Time != "" {
		words, _ := daytime(q.Time) // Validate has accepted it
		a = append(append(a, "-m", "time"), words...)
	}
	return a
}

// checkQueues refuses what iptables would, or would read in another sense.
func (c *Config) checkQueues() error {
	if len(c.Queues) > MaxQueueRules {
		return fmt.Errorf("queues: their targets and marks need %d rules, expected at most %d", len(c.Queues), MaxQueueRules)
	}
	if n := len(queueLinks(c.Queues)); n > linkMask>>linkShift {
		return fmt.Errorf("queues: expected at most %d interfaces as targets, got %d", linkMask>>linkShift, n)
	}
	for i := range c.Queues {
		q := &c.Queues[i]
		for _, p := range []netip.Prefix{q.Src, q.Dst} {
			if p.IsValid() && (!p.Addr().Is4() || p != p.Masked()) {
				return fmt.Errorf("queue: %v: expected an IPv4 network", p)
			}
		}
		for _, name := range []string{q.In, q.Out} {
			if err := checkInterface("interface", name); err != nil || strings.HasPrefix(name, "!") {
				return fmt.Errorf("queue: interface=%s: expected the name of an interface", name)
			}
		}
		if err := checkName("packet-marks", q.PacketMark); err != nil {
			return err
		}
		if q.Class == 0 || q.Time != "" && CheckTime(q.Time) != nil {
			return fmt.Errorf("queue: class=%d time=%s: expected a class and a time", q.Class, q.Time)
		}
	}
	return nil
}
