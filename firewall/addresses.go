package firewall

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/match"
)

const (
	// MaxAddresses is how many entries all address lists can have together, those with a timeout among them.
	MaxAddresses = 1000
	// maxPrefixes is how many prefixes these entries can be: a range can be 62.
	maxPrefixes = 4096
	// maxLists is how many lists rules can name, also such that have no entries: each is a set of the kernel's, of some KiB.
	maxLists = 128
	// maxFilled is how many lists rules can add addresses to; one counts once for each timeout (CheckFilled).
	maxFilled = 16
	// maxKept is how many addresses stay in lists, in all, that were added by rules which add no more.
	maxKept = 2048
)

// Temporary is addresses that are in a list until a time.
type Temporary struct {
	match.Addresses
	Until time.Time
}

// addressList is an address list as a rule matches it: by the sets of the kernel that have its entries, of which one
// has what the user has listed, and the others, if rules add to the list, what these have added, one for each of their
// timeouts. Without sets it is all addresses.
//
// These are several, because what rules add would have the length of the longest prefix in the set (hash:net), and because
// what a packet adds again gets the timeout of that rule, which must not shorten what the user or another rule has said.
type addressList struct {
	not  bool
	sets []string
}

// several reports whether a rule of the kernel's cannot match the list alone: it matches what is in all sets that it names.
func (l addressList) several() bool { return !l.not && len(l.sets) > 1 }

// listed returns the list that a matcher names. An empty matcher means all addresses.
func listed(word string, lists map[string]kernelList) addressList {
	name, not := strings.CutPrefix(word, "!")
	if name == "" {
		return addressList{}
	}
	l := addressList{not: not, sets: []string{lists[name].set}}
	for _, filled := range lists[name].filled {
		l.sets = append(l.sets, filled.set)
	}
	return l
}

// kernelList is how the kernel has an address list that rules name.
type kernelList struct {
	// set has what the user has listed, which is listed, and what rules have added that add no more: together elements. Both
	// are sorted.
	set              string
	listed, elements []element
	// filled have what rules add, sorted by timeouts.
	filled []filledSet
}

// filledSet is a set that rules with one timeout add to.
type filledSet struct {
	timeout time.Duration
	set     string
}

// filledBy is the set that a rule with this timeout adds to.
func (l kernelList) filledBy(timeout time.Duration) string {
	for _, s := range l.filled {
		if s.timeout == timeout {
			return s.set
		}
	}
	return ""
}

// kernelLists returns what the kernel should have of each address list that a rule names, without names of sets but for an "x"
// for those that rules fill.
func (c *Config) kernelLists() map[string]kernelList {
	all := c.namedLists()
	now := time.Now()
	for name, l := range all {
		l.listed = c.elements(name, now)
		l.elements = l.listed
		all[name] = l
	}
	return all
}

// namedLists are the address lists that a rule names, without what is in them.
func (c *Config) namedLists() map[string]kernelList {
	all := map[string]kernelList{}
	for _, t := range Tables {
		rules := c.Rules(t)
		for i := range rules {
			r := &rules[i]
			for _, word := range []string{r.SrcAddressList, r.DstAddressList} {
				if name := strings.TrimPrefix(word, "!"); name != "" && !r.Disabled {
					all[name] = kernelList{}
				}
			}
		}
	}
	// A disabled rule keeps its set.
	for name, timeouts := range c.filledLists() {
		l := kernelList{}
		for _, d := range timeouts {
			l.filled = append(l.filled, filledSet{d, "x"})
		}
		all[name] = l
	}
	return all
}

// filledLists are the lists that rules of c add to, disabled rules too, each with the timeouts of these, sorted.
func (c *Config) filledLists() map[string][]time.Duration {
	all := map[string][]time.Duration{}
	for _, t := range Tables {
		rules := c.Rules(t)
		for i := range rules {
			r := &rules[i]
			if at, found := slices.BinarySearch(all[r.AddressList], r.AddressListTimeout); r.AddressList != "" && !found {
				all[r.AddressList] = slices.Insert(all[r.AddressList], at, r.AddressListTimeout)
			}
		}
	}
	return all
}

// elements are the entries of a list, sorted. Of several for the same prefix the last to end counts.
func (c *Config) elements(name string, now time.Time) []element {
	all := make([]element, 0, len(c.AddressLists[name]))
	add := func(a match.Addresses, until time.Time) {
		if a.From == a.To { // as most are
			all = append(all, element{netip.PrefixFrom(a.From.Unmap(), 32), until})
			return
		}
		for p := range prefixes(a) {
			all = append(all, element{p, until})
		}
	}
	for _, a := range c.AddressLists[name] {
		add(a, time.Time{})
	}
	for _, t := range c.Temporary[name] {
		if t.Until.After(now) {
			add(t.Addresses, t.Until)
		}
	}
	return sorted(all)
}

// sorted sorts elements. Of several for the same prefix the last to end stays.
func sorted(all []element) []element {
	slices.SortFunc(all, func(a, b element) int {
		if order := comparePrefixes(a.Prefix, b.Prefix); order != 0 {
			return order
		}
		return b.order().Compare(a.order())
	})
	return slices.CompactFunc(all, func(a, b element) bool { return a.Prefix == b.Prefix })
}

// order is until, but greater than all others where it has no end.
func (e element) order() time.Time {
	if e.until.IsZero() {
		return time.Unix(1<<40, 0)
	}
	return e.until
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits())
}

// prefixes yields the fewest prefixes of 1 to 32 bits that have the addresses of an IPv4 range.
func prefixes(a match.Addresses) func(yield func(netip.Prefix) bool) {
	number := func(a netip.Addr) uint64 { b := a.As4(); return uint64(binary.BigEndian.Uint32(b[:])) }
	return func(yield func(netip.Prefix) bool) {
		for from, to := number(a.From), number(a.To); from <= to; {
			free := min(bits.TrailingZeros64(from|1<<31), bits.Len64(to-from+1)-1) // the kernel has no /0
			address := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(from))))
			if !yield(netip.PrefixFrom(address, 32-free)) {
				return
			}
			from += 1 << free
		}
	}
}

// difference returns what has to be added to the elements old and what removed, so that they are next. Both are sorted. What has ended
// of old is neither.
func difference(old, next []element, now time.Time) (add, remove []element) {
	for len(old) > 0 || len(next) > 0 {
		order := 0
		switch {
		case len(old) == 0:
			order = 1
		case len(next) == 0:
			order = -1
		default:
			order = comparePrefixes(old[0].Prefix, next[0].Prefix)
		}
		switch {
		case order < 0:
			if old[0].until.IsZero() || old[0].until.After(now) {
				remove = append(remove, old[0])
			}
			old = old[1:]
		case order > 0:
			add = append(add, next[0])
			next = next[1:]
		default:
			if !old[0].until.Equal(next[0].until) {
				add = append(add, next[0])
			}
			old, next = old[1:], next[1:]
		}
	}
	return add, remove
}

// ranges is the addresses in any of some ranges, sorted so that they neither overlap nor touch.
type ranges []match.Addresses

// has reports whether a is in one of them.
func (s ranges) has(a netip.Addr) bool {
	_, found := slices.BinarySearchFunc(s, a.Unmap(), func(r match.Addresses, a netip.Addr) int {
		switch {
		case r.To.Less(a):
			return -1
		case a.Less(r.From):
			return 1
		}
		return 0
	})
	return found
}

// String writes them with commas between them.
func (s ranges) String() string {
	var b strings.Builder
	for i, r := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(r.String())
	}
	return b.String()
}

// disjoint returns the same addresses as ranges that are sorted and neither overlap nor touch.
func disjoint(list []match.Addresses) (merged ranges) {
	for _, r := range slices.SortedFunc(slices.Values(list), func(a, b match.Addresses) int { return a.From.Compare(b.From) }) {
		if n := len(merged); n > 0 && (r.From.Compare(merged[n-1].To) <= 0 || merged[n-1].To.Next() == r.From) {
			if merged[n-1].To.Less(r.To) {
				merged[n-1].To = r.To
			}
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// sets are the interfaces and the addresses of lists that a rule matches.
type sets struct {
	in, out  Interfaces
	src, dst addressList
}

// sets returns those of a rule of a Config with these interface lists, whose address lists the kernel has as lists says.
func (r *Rule) sets(interfaces map[string]Interfaces, lists map[string]kernelList) sets {
	s := sets{src: listed(r.SrcAddressList, lists), dst: listed(r.DstAddressList, lists)}
	s.in, s.out = r.interfaces(interfaces)
	return s
}

func (s sets) none() bool { return s.in.none() || s.out.none() }

// side is one of the sets of a rule, of which a packet can have one or another member.
type side struct {
	name string
	not  bool
	// members are the matches of packets that have one of them.
	members [][]string
}

// sides are the sets that several matches stand for, each of which a packet can have: first interfaces, which cost less.
func (s sets) sides() (all []side) {
	for _, of := range []struct {
		name, option string
		set          Interfaces
	}{{"in", "-i", s.in}, {"out", "-o", s.out}} {
		if len(of.set.Names) > 1 {
			m := side{name: of.name, not: of.set.Not}
			for _, n := range of.set.Names {
				m.members = append(m.members, []string{of.option, n})
			}
			all = append(all, m)
		}
	}
	for _, of := range []struct {
		name string
		list addressList
	}{{"src", s.src}, {"dst", s.dst}} {
		if of.list.several() {
			m := side{name: of.name}
			for _, set := range of.list.sets {
				m.members = append(m.members, []string{"-m", "set", "--match-set", set, of.name})
			}
			all = append(all, m)
		}
	}
	return all
}

// several reports whether the rule needs chains of its own for its sets.
func (s sets) several() bool {
	return len(s.in.Names) > 1 || len(s.out.Names) > 1 || s.src.several() || s.dst.several()
}

// words are the matches of addresses of the list, as source or destination, if one rule can have them.
func (l addressList) words(side string) (all []string) {
	if l.several() {
		return nil
	}
	for _, set := range l.sets {
		all = append(all, "-m", "set")
		if l.not {
			all = append(all, "!")
		}
		all = append(all, "--match-set", set, side)
	}
	return all
}

// CheckFilled refuses more sets for rules to add to than maxFilled, unless before had as many: configurations that were kept when a list had
// one set for all timeouts still hold.
func (c *Config) CheckFilled(before *Config) error {
	count := func(c *Config) (n int) {
		for _, timeouts := range c.filledLists() {
			n += len(timeouts)
		}
		return n
	}
	if n := count(c); n > maxFilled && n > count(before) {
		return fmt.Errorf("address lists: expected at most %d lists that rules add to, each counted once for each address-list-timeout, got %d", maxFilled, n)
	}
	return nil
}

// checkAddressLists refuses what the kernel's sets cannot hold.
func (c Config) checkAddressLists() error {
	count, size := 0, 0
	check := func(name string, a match.Addresses) error {
		if a.Not || !is4Range(a) {
			return fmt.Errorf("address list %s: expected IPv4 addresses, prefixes and ranges, got %v to %v", name, a.From, a.To)
		}
		count++
		if a.From == a.To {
			size++
			return nil
		}
		for range prefixes(a) {
			size++
		}
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(c.AddressLists)) {
		for _, a := range c.AddressLists[name] {
			if err := check(name, a); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Temporary)) {
		for _, t := range c.Temporary[name] {
			if err := check(name, t.Addresses); err != nil {
				return err
			}
		}
	}
	if count > MaxAddresses {
		return fmt.Errorf("address lists: expected at most %d entries in all, got %d", MaxAddresses, count)
	}
	if size > maxPrefixes {
		return fmt.Errorf("address lists: expected ranges of at most %d prefixes in all, got %d", maxPrefixes, size)
	}
	if named := len(c.namedLists()); named > maxLists {
		return fmt.Errorf("address lists: expected at most %d lists that rules name, got %d", maxLists, named)
	}
	if filled := len(c.filledLists()); filled > maxFilled {
		return fmt.Errorf("address lists: expected at most %d lists that rules add to, got %d", maxFilled, filled)
	}
	return nil
}
