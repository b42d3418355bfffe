package firewall

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
)

// planLists returns the lists that the kernel should have, by the sets that there are: changed are those whose entries it has
// otherwise, and fresh those that lack a set.
func (f *Firewall) planLists(want map[string]kernelList) (lists map[string]kernelList, changed, fresh []string) {
	lists = map[string]kernelList{}
	now := time.Now()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		l, old := want[name], f.lists[name]
		filled := cmp.Or(old.filled, f.leftOf(name))
		if old.set == "" || l.filled != "" && filled == "" {
			fresh = append(fresh, name)
		} else if add, remove := difference(old.elements, l.elements, now); len(add)+len(remove) > 0 {
			changed = append(changed, name)
		}
		if l.set = old.set; l.filled != "" {
			l.filled = filled
		}
		lists[name] = l
	}
	return lists, changed, fresh
}

// makeLists gives new sets to those of lists that are changed or fresh: rules that name them come into force together with what
// they have. What rules have added to a list stays. It returns the sets that it has made.
func (f *Firewall) makeLists(want, lists map[string]kernelList, names []string) (made []string, err error) {
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
		l.set = make(maxPrefixes, len(l.elements), l.elements)
		if want[name].filled != "" && l.filled == "" {
			l.filled = make(f.room, f.room, nil)
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
	case len(add)+len(remove) != 1:
		name, err := f.makeSet(maxPrefixes, len(next.elements), next.elements)
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

// leftSet is a set that rules have filled for a list.
type leftSet struct{ list, set string }

// leftOf returns the set that rules have filled for a list, before none did any more; "" if there is none.
func (f *Firewall) leftOf(list string) string {
	for _, l := range f.left {
		if l.list == list {
			return l.set
		}
	}
	return ""
}

// setLists says that rules by these lists are in force, and removes the sets of all others, but for what rules have added.
func (f *Firewall) setLists(lists map[string]kernelList) {
	used := map[string]bool{}
	fills := 0
	for _, l := range lists {
		used[l.set], used[l.filled] = true, true
		if l.filled != "" {
			fills++
		}
	}
	f.left = slices.DeleteFunc(f.left, func(l leftSet) bool { return used[l.set] })
	var unused []string
	for _, list := range slices.Sorted(maps.Keys(f.lists)) {
		l := f.lists[list]
		if !used[l.set] && l.set != "" {
			unused = append(unused, l.set)
		}
		if !used[l.filled] && l.filled != "" {
			f.left = append(f.left, leftSet{list, l.filled})
		}
	}
	for len(f.left) > 0 && fills+len(f.left) > maxFilled {
		unused = append(unused, f.left[0].set)
		f.left = f.left[1:]
	}
	for _, l := range f.left {
		used[l.set] = true
	}
	f.mu.Lock()
	f.lists = lists
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

// Filled is an address that a rule has added to a list. Left is how long it will be there if no more packet comes, or 0 until a
// restart.
type Filled struct {
	List    string
	Address netip.Addr
	Left    time.Duration
}

// filled returns the sets that rules add to, each by its list.
func (f *Firewall) filled() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	sets := map[string]string{}
	for name, l := range f.lists {
		if l.filled != "" {
			sets[name] = l.filled
		}
	}
	return sets
}

// Filled returns at most limit addresses that rules have added to lists, sorted by lists and addresses, and how many more there are. It
// never waits for a process.
func (f *Firewall) Filled(limit int) (all []Filled, more int, err error) {
	sets := f.filled()
	for _, list := range slices.Sorted(maps.Keys(sets)) {
		first := len(all)
		if err := readSet(sets[list], func(p netip.Prefix, left time.Duration) {
			if len(all) == limit {
				more++
				return
			}
			all = append(all, Filled{list, p.Addr(), left})
		}); err != nil {
			return nil, 0, fmt.Errorf("firewall: address list %s: %w", list, err)
		}
		slices.SortFunc(all[first:], func(a, b Filled) int { return a.Address.Compare(b.Address) })
	}
	return all, more, nil
}

// RemoveFilled removes addresses that rules have added to lists. It is no error if one has gone meanwhile.
func (f *Firewall) RemoveFilled(filled []Filled) error {
	sets := f.filled()
	bySet := map[string][]element{}
	for _, a := range filled {
		if set := sets[a.List]; set != "" && a.Address.Is4() {
			bySet[set] = append(bySet[set], element{Prefix: netip.PrefixFrom(a.Address, 32)})
		}
	}
	for set, elements := range bySet {
		if err := changeSet(nl.IPSET_CMD_DEL, set, elements); err != nil {
			return fmt.Errorf("firewall: %w", err)
		}
	}
	return nil
}

// Full returns the lists to which rules could add no more address, sorted, and how many addresses one takes.
func (f *Firewall) Full() (lists []string, room int, err error) {
	sets := f.filled()
	for _, list := range slices.Sorted(maps.Keys(sets)) {
		n, err := setSize(sets[list])
		if err != nil {
			return nil, 0, fmt.Errorf("firewall: address list %s: %w", list, err)
		}
		if n >= f.room {
			lists = append(lists, list)
		}
	}
	return lists, f.room, nil
}

// roomFor is how many addresses rules can add to one list, on a machine with so many bytes of memory: one takes some 30 bytes.
func roomFor(memory uint64) int { return int(min(max(memory/(16<<10), 1024), 65536)) }
