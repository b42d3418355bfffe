package firewall

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// planLists returns the lists that the kernel should have, by the sets that there are: changed are those whose entries it has
// otherwise, and fresh those that lack a set. kept is what stays of what rules have added that add no more.
func (f *Firewall) planLists(want map[string]kernelList) (lists map[string]kernelList, kept map[string][]element, changed, fresh []string, err error) {
	lists = map[string]kernelList{}
	now := time.Now()
	if kept, err = f.keep(want, now); err != nil {
		return nil, nil, nil, nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		l, old := want[name], f.lists[name]
		if len(kept[name]) > 0 {
			l.elements = sorted(slices.Concat(l.listed, kept[name]))
		}
		l.set = old.set
		l.filled = slices.Clone(l.filled)
		lacks := old.set == ""
		for i := range l.filled {
			l.filled[i].set = old.filledBy(l.filled[i].timeout)
			lacks = lacks || l.filled[i].set == ""
		}
		if lacks {
			fresh = append(fresh, name)
		} else if add, remove := difference(old.elements, l.elements, now); len(add)+len(remove) > 0 {
			changed = append(changed, name)
		}
		lists[name] = l
	}
	return lists, kept, changed, fresh, nil
}

// keep returns what stays in each list until it ends, though the rules that have added it add no more when lists are as want says.
func (f *Firewall) keep(want map[string]kernelList, now time.Time) (map[string][]element, error) {
	kept := map[string][]element{}
	n := 0
	for name, all := range f.kept {
		all = slices.DeleteFunc(slices.Clone(all), func(e element) bool { return !e.until.IsZero() && !e.until.After(now) })
		if len(all) > 0 {
			kept[name] = all
			n += len(all)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.lists)) {
		var all []element
		for _, s := range f.lists[name].filled {
			if want[name].filledBy(s.timeout) != "" {
				continue
			}
			if err := readSet(s.set, func(p netip.Prefix, left time.Duration) {
				e := element{Prefix: p}
				if left > 0 {
					e.until = now.Add(left)
				}
				all = append(all, e)
			}); err != nil && !errors.Is(err, unix.ENOENT) { // somebody else has removed it
				return nil, fmt.Errorf("address list %s: %w", name, err)
			}
		}
		if len(all) == 0 {
			continue
		}
		before := len(kept[name])
		all = sorted(append(all, kept[name]...))
		if room := maxKept - n + before; len(all) > room { // the last to end stay
			slices.SortFunc(all, func(a, b element) int { return b.order().Compare(a.order()) })
			all = sorted(all[:room])
		}
		n += len(all) - before
		kept[name] = slices.Clip(all)
	}
	return kept, nil
}

// makeLists gives new sets to those of lists that are changed or fresh: rules that name them come into force together with what
// they have. What rules have added to a list stays. It returns the sets that it has made.
func (f *Firewall) makeLists(lists map[string]kernelList, names []string) (made []string, err error) {
	make := func(limit, room int, elements []element) string {
		var name string
		if err == nil {
			if name, err = f.makeSet(limit, room, elements); err == nil {
				made = append(made, name)
			}
		}
		return name
	}
	for _, name := range names {
		l := lists[name]
		l.set = make(maxPrefixes+maxKept, len(l.elements), l.elements)
		for i := range l.filled {
			if l.filled[i].set == "" {
				l.filled[i].set = make(f.room, f.room, nil)
			}
		}
		lists[name] = l
	}
	if err != nil {
		f.removeSets(made)
		return nil, fmt.Errorf("address lists: %w", err)
	}
	return made, nil
}

// makeSet makes a set with a name that none has had, as createSet does, and puts elements in.
func (f *Firewall) makeSet(limit, room int, elements []element) (name string, err error) {
	if f.lastSet == 0 {
		numbers, err := setNumbers()
		if err != nil {
			return "", err
		}
		f.lastSet = slices.Max(append(numbers, 0))
	}
	f.lastSet++
	name = setName(f.lastSet)
	if err := createSet(name, limit, room); err != nil {
		return "", err
	}
	if err := changeSet(nl.IPSET_CMD_ADD, name, elements); err != nil {
		f.removeSets([]string{name})
		return "", err
	}
	return name, nil
}

// removeSets removes sets that no rule names any more. One that cannot be removed is tried again.
func (f *Firewall) removeSets(names []string) {
	for _, name := range names {
		if destroySet(name) != nil {
			f.stray = true
		}
	}
}

// changeList changes the entries of a list while its rules stay: to a packet that is one change. So for more than one it fills
// another set, and swaps.
func (f *Firewall) changeList(old, next kernelList) error {
	add, remove := difference(old.elements, next.elements, time.Now())
	switch {
	case len(add)+len(remove) == 0:
		return nil
	case len(add)+len(remove) != 1:
		name, err := f.makeSet(maxPrefixes+maxKept, len(next.elements), next.elements)
		if err == nil {
			err = swapSets(name, old.set)
			f.removeSets([]string{name})
		}
		return err
	case len(add) == 1:
		return changeSet(nl.IPSET_CMD_ADD, old.set, add)
	}
	return changeSet(nl.IPSET_CMD_DEL, old.set, remove)
}

// setLists says that rules by these lists are in force, and what stays of those that rules have added, and removes the sets of all others.
func (f *Firewall) setLists(lists map[string]kernelList, kept map[string][]element) {
	used := map[string]bool{}
	for _, l := range lists {
		for _, set := range l.sets() {
			used[set] = true
		}
	}
	var unused []string
	for _, list := range slices.Sorted(maps.Keys(f.lists)) {
		for _, set := range f.lists[list].sets() {
			if !used[set] {
				unused = append(unused, set)
			}
		}
	}
	f.mu.Lock()
	f.lists, f.kept = lists, kept
	f.mu.Unlock()
	if f.stray {
		f.stray = false
		numbers, _ := setNumbers() // fails for a kernel without sets
		unused = unused[:0]
		for _, n := range numbers {
			if name := setName(n); !used[name] {
				unused = append(unused, name)
			}
		}
	}
	f.removeSets(unused)
}

// sets are all sets of the list.
func (l kernelList) sets() []string {
	all := []string{l.set}
	for _, s := range l.filled {
		all = append(all, s.set)
	}
	return all
}

// Filled is an address that a rule has added to a list. Left is how long it will be there if no more packet comes, or 0 until a
// restart.
type Filled struct {
	List    string
	Address netip.Addr
	Left    time.Duration
}

// filled returns the sets that rules add to, and what stays of those that add no more, by lists.
func (f *Firewall) filled() (sets map[string][]filledSet, kept map[string][]element) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sets = map[string][]filledSet{}
	for name, l := range f.lists {
		if l.filled != nil {
			sets[name] = l.filled
		}
	}
	return sets, f.kept
}

// Filled returns at most limit addresses that rules have added to lists, also such as add no more, sorted by lists and addresses, and how
// many more there are. It never waits for a process.
func (f *Firewall) Filled(limit int) (all []Filled, more int, err error) {
	sets, kept := f.filled()
	names := slices.AppendSeq(slices.Collect(maps.Keys(sets)), maps.Keys(kept))
	slices.Sort(names)
	now := time.Now()
	for _, list := range slices.Compact(names) {
		var of []Filled
		for _, e := range kept[list] {
			switch left := e.until.Sub(now); {
			case e.until.IsZero():
				of = append(of, Filled{list, e.Addr(), 0})
			case left > 0:
				of = append(of, Filled{list, e.Addr(), (left + time.Second - 1).Truncate(time.Second)})
			}
		}
		for _, s := range sets[list] {
			if err := readSet(s.set, func(p netip.Prefix, left time.Duration) { of = append(of, Filled{list, p.Addr(), left}) }); err != nil {
				return nil, 0, fmt.Errorf("firewall: address list %s: %w", list, err)
			}
		}
		// An address is there as long as the last of the rules says.
		slices.SortFunc(of, func(a, b Filled) int {
			return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(uint64(b.Left-1), uint64(a.Left-1))) // 0 is the longest
		})
		of = slices.CompactFunc(of, func(a, b Filled) bool { return a.Address == b.Address })
		shown := min(len(of), limit-len(all))
		all, more = append(all, of[:shown]...), more+len(of)-shown
	}
	return all, more, nil
}

// RemoveFilled removes addresses that rules have added to lists. It is no error if one has gone meanwhile.
func (f *Firewall) RemoveFilled(filled []Filled) error {
	f.lockTurn()
	defer f.turn.Unlock()
	gone := map[string][]element{}
	for _, a := range filled {
		if a.Address.Is4() {
			gone[a.List] = append(gone[a.List], element{Prefix: netip.PrefixFrom(a.Address, 32)})
		}
	}
	for name, elements := range gone {
		if err := f.removeFrom(name, elements); err != nil {
			return fmt.Errorf("firewall: address list %s: %w", name, err)
		}
	}
	return nil
}

// removeFrom removes what rules have added to a list.
func (f *Firewall) removeFrom(name string, elements []element) error {
	l, there := f.lists[name]
	for _, s := range l.filled {
		if err := changeSet(nl.IPSET_CMD_DEL, s.set, elements); err != nil {
			return err
		}
	}
	kept := slices.DeleteFunc(slices.Clone(f.kept[name]), func(e element) bool {
		return slices.ContainsFunc(elements, func(o element) bool { return o.Prefix == e.Prefix })
	})
	if len(kept) == len(f.kept[name]) {
		return nil
	}
	next := l
	next.elements = sorted(slices.Concat(l.listed, kept))
	if there {
		if err := f.changeList(l, next); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// Who reads without the lock has the maps of before.
	f.lists, f.kept = maps.Clone(f.lists), maps.Clone(f.kept)
	if there {
		f.lists[name] = next
	}
	if f.kept[name] = kept; len(kept) == 0 {
		delete(f.kept, name)
	}
	return nil
}

// Full returns the lists to which rules could add no more address, sorted, and how many addresses one takes.
func (f *Firewall) Full() (lists []string, room int, err error) {
	sets, _ := f.filled()
	for _, list := range slices.Sorted(maps.Keys(sets)) {
		for _, s := range sets[list] {
			n, err := setSize(s.set)
			if err != nil {
				return nil, 0, fmt.Errorf("firewall: address list %s: %w", list, err)
			}
			if n >= f.room {
				lists = append(lists, list)
				break
			}
		}
	}
	return lists, f.room, nil
}

// roomFor is how many addresses rules can add to one list, on a machine with so many bytes of memory: one takes some 30 bytes.
func roomFor(memory uint64) int { return int(min(max(memory/(16<<10), 1024), 65536)) }
