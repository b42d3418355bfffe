package console

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-router/postern/netcfg"
)

// identity is what makes an item itself, whatever is set for it: its address in
// memory. It has a byte because things of no size may share one.
type identity struct{ _ byte }

// The lists of a configuration.
const (
	linkItems = iota
	addressItems
	routeItems
	filterItems
	natItems
	accessItems
	bridgeItems
	vlanItems
	bridgePortItems
	logItems
	lists
)

// unidentified are the identities of items that a program put into a configuration,
// by their place: the same ones each time that they are looked at.
var unidentified [MaxItems]identity

// items is a list in the configuration.
type items struct {
	count func(*Config) int
	add   func(*Config) // at the end
	// move puts an item in the place of another, which makes room.
	move   func(c *Config, from, to int)
	remove func(*Config, int)
	ids    func(*Config) *[]*identity
}

// itemsOf is the list that of returns.
func itemsOf[T any](list int, of func(*Config) *[]T) *items {
	return &items{
		count: func(c *Config) int { return len(*of(c)) },
		add: func(c *Config) {
			var zero T
			*of(c) = append(*of(c), zero)
			c.ids[list] = append(c.ids[list], new(identity))
		},
		move: func(c *Config, from, to int) {
			*of(c) = moved(*of(c), from, to)
			c.ids[list] = moved(c.ids[list], from, to)
		},
		remove: func(c *Config, i int) {
			*of(c) = removed(*of(c), i)
			c.ids[list] = removed(c.ids[list], i)
		},
		ids: func(c *Config) *[]*identity { return &c.ids[list] },
	}
}

// moved and removed make new lists: others may still look at the old one.
func moved[T any](s []T, from, to int) []T {
	return slices.Insert(slices.Delete(slices.Clone(s), from, from+1), to, s[from])
}

func removed[T any](s []T, i int) []T {
	if len(s) == 1 {
		return nil // as it was before the first was added
	}
	return slices.Delete(slices.Clone(s), i, i+1)
}

// identify sees to it that every item has its identity.
func (x *execution) identify() {
	for _, m := range x.menus {
		if m.items == nil {
			continue
		}
		ids, count := m.items.ids(&x.cfg), m.items.count(&x.cfg)
		if len(*ids) == count {
			continue
		}
		*ids = nil
		for i := range count {
			if i < len(unidentified) {
				*ids = append(*ids, &unidentified[i])
			} else {
				*ids = append(*ids, new(identity))
			}
		}
	}
	x.before = x.cfg.ids
}

var errNoSuchItem = errors.New("no such item")

func noSuchItem(item string) error { return fmt.Errorf("%w: %s", errNoSuchItem, Printable(item)) }

// keys are what stands for the items of m, in their order: the names of the ports,
// or identities.
func (x *execution) keys(m *menu) ([]any, error) {
	var keys []any
	if m.gathers {
		rows, err := m.rows(x)
		for _, r := range rows {
			keys = append(keys, r.key)
		}
		return keys, err
	}
	if m.names {
		ports, err := x.ports()
		for _, p := range ports {
			keys = append(keys, p.Name)
		}
		return keys, err
	}
	for _, id := range *m.items.ids(&x.cfg) {
		keys = append(keys, id)
	}
	return keys, nil
}

// numbered is what the numbers of m refer to: what the last print of the session
// showed, or without one the items as they are now, which then stay numbered so.
func (x *execution) numbered(m *menu) ([]any, error) {
	if keys, ok := x.numbers[m.path]; ok {
		return keys, nil
	}
	if keys, ok := x.printed[m.path]; ok {
		return keys, nil
	}
	keys, err := x.keys(m)
	if err == nil {
		x.numbers[m.path] = keys
	}
	return keys, err
}

// resolve returns the indices of the items that a word refers to, each of them once:
// numbers and ranges of them, as 0,2-4, for ports names too, or [find ...]. It may
// be none, if nothing is found.
func (x *execution) resolve(m *menu, w word) ([]int, error) {
	if m.only != "" {
		if w.find == nil {
			if w.text != m.only && w.text != "0" {
				return nil, noSuchItem(w.text)
			}
			return []int{0}, nil
		}
		found, err := x.found(m, w)
		if err != nil || len(found) == 0 {
			return nil, err
		}
		return []int{0}, nil
	}
	keys, err := x.chosen(m, w)
	if err != nil {
		return nil, err
	}
	var indices []int
	seen := map[any]bool{}
	for _, key := range keys {
		if seen[key] {
			continue
		}
		seen[key] = true
		i := 0
		if name, isPort := key.(string); isPort {
			if i, err = x.link(m, name); err != nil {
				return nil, err
			}
		} else {
			i = slices.IndexFunc(*m.items.ids(&x.cfg), func(id *identity) bool { return id == key })
		}
		indices = append(indices, i)
	}
	return indices, nil
}

// found returns the keys of the items that [find ...] finds: nothing can be done with
// what the system made.
func (x *execution) found(m *menu, w word) ([]any, error) {
	where, err := x.conditions(m, w.find[1:])
	if err != nil {
		return nil, err
	}
	if m.names && x.live.Links == nil && len(where) == 1 && len(where[0]) == 1 {
		if c := where[0][0]; c.name == defaultName && c.test == "=" {
			return []any{c.value}, nil // in a file, where nobody knows which ports there are
		}
	}
	rows, err := x.itemRows(m)
	if err != nil {
		return nil, err
	}
	if rows, err = x.matching(m, rows, where); err != nil {
		return nil, err
	}
	var keys []any
	for _, r := range rows {
		keys = append(keys, r.key)
	}
	return keys, nil
}

// chosen returns the keys of the items that a word refers to.
func (x *execution) chosen(m *menu, w word) ([]any, error) {
	var chosen []any
	if w.find != nil {
		return x.found(m, w)
	}
	keys, err := x.keys(m)
	if err != nil {
		return nil, err
	}
	there := map[any]bool{}
	for _, key := range keys {
		there[key] = true
	}
	for item := range strings.SplitSeq(w.text, ",") {
		keys, err := x.item(m, there, item)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, keys...)
	}
	return chosen, nil
}

// item returns the keys of the items that a number, a range of them or the name of a
// link refers to, of those that are there.
func (x *execution) item(m *menu, there map[any]bool, item string) ([]any, error) {
	from, to, isRange := strings.Cut(item, "-")
	if !isRange {
		to = from
	}
	first, err1 := decimal(from)
	last, err2 := decimal(to)
	if err1 != nil || err2 != nil {
		if device := x.cfg.device(item); m.names && device != "" {
			return []any{device}, nil
		}
		if key := x.called(m, item); key != nil {
			return []any{key}, nil
		}
		return nil, noSuchItem(item)
	}
	numbered, err := x.numbered(m)
	if err != nil {
		return nil, err
	}
	if first > last || last >= int64(len(numbered)) {
		return nil, noSuchItem(item)
	}
	chosen := numbered[first : last+1]
	for i, key := range chosen {
		switch {
		case key == nil:
			return nil, fmt.Errorf("failure: can not change dynamic item: %d", first+int64(i))
		case !there[key]:
			return nil, noSuchItem(fmt.Sprint(first + int64(i)))
		}
	}
	return chosen, nil
}

// called returns the key of the item of that name, of a menu whose items have names.
func (x *execution) called(m *menu, name string) any {
	if m.gathers {
		rows, err := m.rows(x)
		if i := slices.IndexFunc(rows, func(r row) bool { return r.value("name") == name }); err == nil && i >= 0 {
			return rows[i].key
		}
		return nil
	}
	p, ok := m.property("name")
	if !ok || m.names {
		return nil
	}
	for i, id := range *m.items.ids(&x.cfg) {
		if p.get(&x.cfg, i) == name {
			return id
		}
	}
	return nil
}

// gathered returns the menu that an item of m belongs to, which may be another if m
// gathers them, and its index there.
func (x *execution) gathered(key any) (*menu, int, error) {
	if name, isPort := key.(string); isPort {
		m := x.menu("interface ethernet")
		i, err := x.link(m, name)
		return m, i, err
	}
	for _, path := range []string{"interface bridge", "interface vlan"} {
		m := x.menu(path)
		if i := slices.IndexFunc(*m.items.ids(&x.cfg), func(id *identity) bool { return id == key }); i >= 0 {
			return m, i, nil
		}
	}
	return nil, 0, errNoSuchItem
}

// link returns the index of a port's settings, which are made if nothing was set
// for it yet. If it is not known which ports there are, as in a file, any name is
// taken, and Validate tells.
func (x *execution) link(m *menu, name string) (int, error) {
	ports, err := x.ports()
	if err != nil {
		return 0, err
	}
	_, bad := portName().parse(name)
	if bad != nil || x.live.Links != nil &&
		!slices.ContainsFunc(ports, func(p netcfg.LinkState) bool { return p.Name == name }) {
		return 0, noSuchItem(name)
	}
	for i, l := range x.cfg.Links {
		if l.Name == name {
			return i, nil
		}
	}
	i, err := x.append(m)
	if err != nil {
		return 0, err
	}
	x.cfg.Links[i].Name = name
	return i, nil
}

// ports lists the ports of the machine, in its order, then those that it does not
// have but that have settings: all of these if the machine cannot be asked.
func (x *execution) ports() ([]netcfg.LinkState, error) {
	var ports []netcfg.LinkState
	if x.live.Links != nil {
		if x.links == nil {
			states, err := x.live.Links()
			if err != nil {
				return nil, fmt.Errorf("list interfaces: %w", err)
			}
			x.links = states
		}
		for _, l := range x.links {
			if l.Type == netcfg.Ether {
				ports = append(ports, l)
			}
		}
	}
	for _, l := range x.cfg.Links {
		if !slices.ContainsFunc(ports, func(p netcfg.LinkState) bool { return p.Name == l.Name }) {
			ports = append(ports, netcfg.LinkState{Name: l.Name, Type: netcfg.Ether, Present: x.live.Links == nil})
		}
	}
	return ports, nil
}

// append adds an item with the defaults to m and returns its index.
func (x *execution) append(m *menu) (int, error) {
	i := m.items.count(&x.cfg)
	if i >= MaxItems {
		return 0, fmt.Errorf("failure: no more than %d items in /%s", MaxItems, m.path)
	}
	m.items.add(&x.cfg)
	for _, p := range m.properties {
		if p.def != "" {
			if err := p.set(&x.cfg, i, p.def); err != nil {
				return 0, err
			}
		}
	}
	return i, nil
}
