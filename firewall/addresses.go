package firewall

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-router/postern/match"
)

// MaxAddresses is how many entries all address lists can have together.
const MaxAddresses = 1000

// addressSet is the addresses in any of ranges, which are sorted and do not overlap; with not, all
// others.
type addressSet struct {
	not    bool
	ranges []match.Addresses
}

func (s addressSet) none() bool { return !s.not && len(s.ranges) == 0 }

// has reports whether a is in the set.
func (s addressSet) has(a netip.Addr) bool {
	a = a.Unmap()
	_, found := slices.BinarySearchFunc(s.ranges, a, func(r match.Addresses, a netip.Addr) int {
		switch {
		case r.To.Less(a):
			return -1
		case a.Less(r.From):
			return 1
		}
		return 0
	})
	return found != s.not
}

// String writes the ranges with commas between them, and "!" before them if not is set.
func (s addressSet) String() string {
	var b strings.Builder
	if s.not {
		b.WriteByte('!')
	}
	for i, r := range s.ranges {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(r.String())
	}
	return b.String()
}

// listed returns the set that a matcher means: the list of its name or, with "!" before that, all
// others. An empty matcher means all.
func listed(word string, lists map[string][]match.Addresses) addressSet {
	name, not := strings.CutPrefix(word, "!")
	if name == "" {
		return addressSet{not: true}
	}
	return addressSet{not, lists[name]}
}

// disjoint returns lists with the same addresses whose ranges are sorted and neither overlap
// nor touch.
func disjoint(lists map[string][]match.Addresses) map[string][]match.Addresses {
	all := make(map[string][]match.Addresses, len(lists))
	for name, ranges := range lists {
		ranges = slices.SortedFunc(slices.Values(ranges), func(a, b match.Addresses) int { return a.From.Compare(b.From) })
		var merged []match.Addresses
		for _, r := range ranges {
			if n := len(merged); n > 0 && (r.From.Compare(merged[n-1].To) <= 0 || merged[n-1].To.Next() == r.From) {
				if merged[n-1].To.Less(r.To) {
					merged[n-1].To = r.To
				}
				continue
			}
			merged = append(merged, r)
		}
		all[name] = merged
	}
	return all
}

// sets are the interfaces and the addresses of lists that a rule matches.
type sets struct {
	in, out  Interfaces
	src, dst addressSet
}

// anywhere is the sets of a rule that names none.
var anywhere = sets{Interfaces{Not: true}, Interfaces{Not: true}, addressSet{not: true}, addressSet{not: true}}

// sets returns those of a rule of c, whose address lists are disjoint.
func (r Rule) sets(c Config) sets {
	s := sets{src: listed(r.SrcAddressList, c.AddressLists), dst: listed(r.DstAddressList, c.AddressLists)}
	s.in, s.out = r.interfaces(c.Lists)
	return s
}

func (s sets) none() bool { return s.in.none() || s.out.none() || s.src.none() || s.dst.none() }

// member is a member of a set: an interface, or a range of addresses.
type member struct {
	name        string
	first, last netip.Addr
}

// side is one of the sets of a rule.
type side struct {
	name string
	not  bool
	// option is that of an interface, an address or a network, ranges that of another range; "" for interfaces.
	option, ranges string
	members        []member
}

// words returns the matches of a packet that has m.
func (s *side) words(m member) []string {
	if s.ranges == "" {
		return []string{s.option, m.name}
	}
	a := match.Addresses{From: m.first, To: m.last}
	if _, ok := a.Prefix(); ok {
		return []string{s.option, a.String()}
	}
	return []string{"-m", "iprange", s.ranges, m.first.String() + "-" + m.last.String()}
}

// sides are the sets that a packet is compared with: first interfaces, which cost less.
func (s sets) sides() []side {
	interfaces := func(name, option string, set Interfaces) side {
		m := side{name: name, not: set.Not, option: option}
		for _, n := range set.Names {
			m.members = append(m.members, member{name: n})
		}
		return m
	}
	addresses := func(name, option, ranges string, set addressSet) side {
		m := side{name: name, not: set.not, option: option, ranges: ranges}
		if len(set.ranges) > 1 {
			m.members = make([]member, len(set.ranges))
		}
		for i := range m.members {
			m.members[i] = member{first: set.ranges[i].From, last: set.ranges[i].To}
		}
		return m
	}
	return []side{
		interfaces("in", "-i", s.in), interfaces("out", "-o", s.out),
		addresses("src", "-s", "--src-range", s.src), addresses("dst", "-d", "--dst-range", s.dst),
	}
}

// several reports whether the rule needs chains of its own for its sets.
func (s sets) several() bool {
	return len(s.in.Names) > 1 || len(s.out.Names) > 1 || len(s.src.ranges) > 1 || len(s.dst.ranges) > 1
}
