package console

import (
	"cmp"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// This file has what undo and redo need: the difference between two configurations, and its name.
// https://help.mikrotik.com/docs/spaces/ROS/pages/40992791/Configuration+Management

// Delta is how to make one configuration of another: small if they differ little.
type Delta struct {
	// settings is all that is in no list; nil if it does not differ.
	settings *Config
	lists    []listDelta
}

// listDelta is the part of a list that differs.
type listDelta struct {
	list int
	// count items from at on become those with the IDs ids. length is that of the whole list.
	at, count, length int
	ids               []ID
	// items are a copy of those of ids that are new or changed, and brought are their places in ids. The others
	// are among the count items.
	items   any
	brought []int
}

// DeltaOf returns how to make to of from. It shares no items with either, so that it keeps neither in memory.
func DeltaOf(from, to Config) Delta {
	from, to = from.identified(), to.identified()
	var d Delta
	if before, after := from.withoutItems(), to.withoutItems(); !reflect.DeepEqual(before, after) {
		d.settings = &after
	}
	for list, l := range itemLists {
		had, has := from.ids[list], to.ids[list]
		if l.shared(&from, &to) && slices.Equal(had, has) {
			continue
		}
		same := func(i, j int) bool { return i >= 0 && had[i] == has[j] && l.same(&from, &to, i, j) }
		start, end := 0, 0
		for start < min(len(had), len(has)) && same(start, start) {
			start++
		}
		for end < min(len(had), len(has))-start && same(len(had)-1-end, len(has)-1-end) {
			end++
		}
		part := listDelta{list: list, at: start, count: len(had) - start - end, length: len(had), ids: slices.Clone(has[start : len(has)-end])}
		if part.count+len(part.ids) == 0 {
			continue
		}
		var which []int
		for i, id := range part.ids {
			if !same(slices.Index(had, id), start+i) {
				part.brought, which = append(part.brought, i), append(which, start+i)
			}
		}
		part.items = l.take(&to, which)
		d.lists = append(d.lists, part)
	}
	return d
}

// Apply returns the configuration that the delta makes of c, which must be the one that it was made from. Items have the
// IDs that they had.
func (d Delta) Apply(c Config) (Config, error) {
	c = c.Clone().identified()
	if d.settings != nil {
		items := c
		c = d.settings.Clone()
		for _, l := range itemLists {
			l.adopt(&c, &items)
		}
	}
	for _, part := range d.lists {
		if l := itemLists[part.list]; l.count(&c) != part.length || !l.replace(&c, part) {
			return Config{}, errors.New("failure: the configuration was changed meanwhile")
		}
	}
	return c, nil
}

// ChangesAddressLists reports whether the delta makes entries of address lists others.
func (d Delta) ChangesAddressLists() bool {
	return slices.ContainsFunc(d.lists, func(part listDelta) bool { return part.list == addressListItems })
}

// Size is about how many bytes of memory the delta takes.
func (d Delta) Size() int {
	size := int(reflect.TypeFor[Delta]().Size()) + sizeOf(reflect.ValueOf(d.lists))
	for _, part := range d.lists {
		size += sizeOf(reflect.ValueOf(part.items))
	}
	if d.settings != nil {
		size += int(reflect.TypeFor[Config]().Size()) + sizeOf(reflect.ValueOf(d.settings).Elem())
	}
	return size
}

// sizeOf is about how many bytes v refers to, without its own.
func sizeOf(v reflect.Value) (size int) {
	switch v.Kind() {
	case reflect.String:
		return v.Len()
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			size += sizeOf(v.Index(i))
		}
		if v.Kind() == reflect.Slice {
			size += v.Len() * int(v.Type().Elem().Size())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			size += sizeOf(v.Field(i))
		}
	}
	return size
}

// identified is c in which each item has an ID.
func (c Config) identified() Config {
	for list, l := range itemLists {
		if count := l.count(&c); len(c.ids[list]) != count {
			c.ids[list] = make([]ID, count)
			for i := range count {
				c.ids[list][i] = placeID(list, i)
			}
		}
	}
	return c
}

// withoutItems is c with empty lists.
func (c Config) withoutItems() Config {
	var none Config
	for _, l := range itemLists {
		l.adopt(&c, &none)
	}
	return c
}

// itemNouns are what RouterOS calls an item of a menu, or its settings, in the names of changes; all others
// are called by the words of the menu.
var itemNouns = sync.OnceValue(func() map[string]string {
	return map[string]string{
		"interface": "device", "interface ethernet": "device", "interface bridge": "device", "interface vlan": "device", "interface pppoe-client": "device",
		"interface bridge port": "bridge port", "interface bridge vlan": "bridge vlan",
		"interface list": "interface list", "interface list member": "interface list member",
		"ip address": "address", "ip route": "route", "ip arp": "arp", "ip pool": "pool",
		"ip dns": "dns", "ip dns static": "static dns entry",
		"ip dhcp-client": "dhcp client", "ip dhcp-server": "dhcp server", "ip dhcp-server network": "dhcp network",
		"ip dhcp-server lease": "dhcp lease", "ip dhcp-server option": "dhcp option",
		"ip firewall address-list": "address list entry", "ip firewall filter": "filter rule", "ip firewall nat": "nat rule",
		"ip firewall mangle": "mangle rule", "ip firewall raw": "raw rule", "ip firewall connection tracking": "connection tracking",
		"system clock manual": "system time zone settings", "system logging": "log rule", "system logging action": "log action",
		"system ntp client": "ntp client", "user ssh-keys": "user ssh key",
	}
})

// itemNames are the properties that the name of a change has behind the noun of an item, the first of them that is set. Rules have
// none: what they match would be long, and their numbers are others after the change.
var itemNames = sync.OnceValue(func() map[string][]string {
	name, on, address := []string{"name"}, []string{"interface"}, []string{"address"}
	return map[string][]string{
		"interface bridge": name, "interface vlan": name, "interface pppoe-client": name,
		"interface bridge port": on, "interface list": name, "interface list member": on, "interface bridge vlan": {"vlan-ids"},
		"ip address": address, "ip arp": address, "ip route": {"dst-address"}, "ip pool": name, "routing table": name,
		"ip dns static": {"name", "regexp"}, "ip dhcp-client": on, "ip dhcp-server": name, "ip dhcp-server network": address,
		"ip dhcp-server lease": {"address", "mac-address", "client-id"}, "ip dhcp-server option": name,
		"ip firewall address-list": address, "ip socks users": name, "queue simple": name, "certificate": name,
		"system logging": {"topics"}, "system logging action": name, "user": name, "user group": name, "user ssh-keys": {"user"},
	}
})

// maxNamed is how many items of a menu the name of a change has.
const maxNamed = 3

// usersPolicy is the policy that whoever changes users needs besides write.
const usersPolicy = "policy"

// maxActions is how many actions the name of a change lists.
const maxActions = 3

// Description is what a change did.
type Description struct {
	// Action names it as RouterOS does ("filter rule added"), and Policy has the policies that a user needs who undoes it.
	Action, Policy string
	// Others is Action without what was done to users, groups and keys; "" if that was all.
	Others string
	// Kind and OthersKind are Action and Others without the names of items: changes of many items have the same.
	Kind, OthersKind string
}

// Describe describes a change of before to after. delta makes before of after.
func Describe(before, after Config, delta Delta) Description {
	return describe(menus(), before, after, delta)
}

func describe(menus []*menu, before, after Config, delta Delta) Description {
	before, after = before.identified(), after.identified()
	var actions, others, kinds, otherKinds []string
	policies := []string{"write"}
	note := func(m *menu, item, did string) {
		noun := cmp.Or(itemNouns()[m.path], strings.ReplaceAll(m.path, "-", " "))
		named := noun
		if item != "" {
			named += " " + item
		}
		if action := named + " " + did; !slices.Contains(actions, action) {
			actions, kinds = append(actions, action), append(kinds, noun+" "+did)
			if !m.isUsers() {
				others, otherKinds = append(others, action), append(otherKinds, noun+" "+did)
			}
		}
		if m.isUsers() && !slices.Contains(policies, usersPolicy) {
			policies = append(policies, usersPolicy)
		}
	}
	for _, m := range menus {
		switch {
		case m.isAlias || m.properties == nil:
		case m.items != nil:
			if item, did := changedItems(m, &before, &after, delta); did != "" {
				note(m, item, did)
			}
		default:
			for i := range max(1, len(m.fixed)) {
				if slices.ContainsFunc(m.properties, func(p property) bool { return p.get(&before, i) != p.get(&after, i) }) {
					item := ""
					if m.fixed != nil {
						item = m.fixed[i]
					}
					note(m, item, "changed")
				}
			}
		}
	}
	named := func(actions []string) string {
		if len(actions) == 0 || len(actions) > maxActions {
			return "configuration changed"
		}
		return strings.Join(actions, ", ")
	}
	d := Description{Action: named(actions), Kind: named(kinds), Policy: strings.Join(policies, ",")}
	if len(others) > 0 {
		d.Others, d.OthersKind = named(others), named(otherKinds)
	}
	return d
}

// changedItems is what was done to items of m, "" if nothing was, and the names of the items if they are few.
func changedItems(m *menu, before, after *Config, delta Delta) (items, did string) {
	list := slices.Index(itemLists[:], m.items)
	of := slices.IndexFunc(delta.lists, func(part listDelta) bool { return part.list == list })
	if of < 0 {
		return "", ""
	}
	part := delta.lists[of]
	had, has := part.ids, after.ids[list][part.at:part.at+part.count]
	both := func(id ID) bool { return slices.Contains(had, id) && slices.Contains(has, id) }
	changed := func(id ID) bool {
		return both(id) && !m.items.same(before, after, slices.Index(before.ids[list], id), slices.Index(after.ids[list], id))
	}
	kept := 0
	for _, id := range has {
		if both(id) {
			kept++
		}
	}
	from, ids := after, has
	var gone []ID // of before, besides ids
	switch {
	case m.isPorts: // which are always there
		// What is set of one for the first time is a new item of the list, and one that has all defaults again is none.
		did, ids = "changed", slices.DeleteFunc(slices.Clone(has), func(id ID) bool { return both(id) && !changed(id) })
		gone = slices.DeleteFunc(slices.Clone(had), both)
	case kept == 0 && len(had) == 0:
		did = "added"
	case kept == 0 && len(has) == 0:
		did, from, ids = "removed", before, had
	case kept == len(had) && kept == len(has) && !slices.ContainsFunc(has, changed):
		did = "moved"
	case kept == len(had) && !slices.ContainsFunc(has, changed):
		did, ids = "added", slices.DeleteFunc(slices.Clone(has), both)
	case kept == len(has) && !slices.ContainsFunc(has, changed):
		did, from, ids = "removed", before, slices.DeleteFunc(slices.Clone(had), both)
	default:
		did = "changed"
		if some := slices.DeleteFunc(slices.Clone(has), func(id ID) bool { return !changed(id) }); len(some) > 0 {
			ids = some
		}
	}
	if len(ids)+len(gone) > maxNamed {
		return "", did
	}
	var names []string
	add := func(of *Config, ids []ID) {
		for _, id := range ids {
			i, name := slices.Index(of.ids[list], id), ""
			if m.isPorts {
				name = after.Called(of.Links[i].Name)
			}
			for _, property := range itemNames()[m.path] {
				if p, ok := m.property(property); ok && name == "" {
					name = shown(p.get(of, i))
				}
			}
			if name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	add(before, gone)
	add(from, ids)
	if m.isPorts {
		slices.Sort(names)
	}
	return strings.Join(names, ","), did
}

// HistoryEntry is a change that can be undone, or done again.
type HistoryEntry struct {
	// Number is its own for as long as it is there.
	Number uint32
	// Action and Policy are those of Describe, and By is the user who made the change.
	Action, By, Policy string
	// For is how long ago that was.
	For time.Duration
	// Undone says that the change is undone, and can be done again. Floating is one that the end of Safe Mode undoes.
	Undone, Floating bool
}

var (
	undoCommand = command{name: "undo", help: "undo the last change of the configuration", able: func(l Live) bool { return l.Undo != nil },
		run: func(x *execution, _ *menu, _ arguments) error { return x.undo(x.live.Undo, -1) }}
	redoCommand = command{name: "redo", help: "do the change again that was undone last", able: func(l Live) bool { return l.Redo != nil },
		run: func(x *execution, _ *menu, _ arguments) error { return x.undo(x.live.Redo, +1) }}
)

// undo makes the configuration the one that step returns.
func (x *execution) undo(step func() (Config, error), steps int) error {
	next, err := step()
	if err != nil {
		return err
	}
	if d := describe(x.menus, x.cfg, next, DeltaOf(next, x.cfg)); x.live.Denied&MayPolicy != 0 && strings.Contains(d.Policy, usersPolicy) {
		return ErrNotPermitted
	}
	if x.live.Denied&MayPolicy != 0 && !x.cfg.SameUsers(next) {
		return ErrNotPermitted
	}
	x.cfg, x.result.History = next.identified(), steps
	return nil
}

func historyMenu() *menu {
	return &menu{
		path: "system history", help: "changes of the configuration that can be undone, or done again", commands: []command{printLive},
		needs: func(l Live) bool { return l.History != nil && l.Now != nil }, rows: (*execution).historyRows,
		legend: "Flags: U - undoable, R - redoable, F - floating-undo", flags: []string{"URF"}, unnumbered: true,
		columns: []column{{"action", 32}, {"by", 8}, {"policy", 12}, {"time", 0}},
		readOnly: []readOnly{
			{name: "action", help: "what was changed"},
			{name: "by", help: "who has changed it"},
			{name: "policy", help: "what a user must be allowed to do who undoes it"},
			{name: "time", help: "when"},
		},
	}
}

// historyRows are the changes, the last first.
func (x *execution) historyRows() ([]row, error) {
	var rows []row
	for _, e := range slices.Backward(x.live.History()) {
		flag := flagUndoable
		switch {
		case e.Undone:
			flag = flagRedoable
		case e.Floating:
			flag = flagFloating
		}
		at := x.live.Now().Add(-e.For).UTC().Add(x.cfg.TimeZone)
		rows = append(rows, row{id: firstLive | ID(e.Number), flags: flag, pairs: []Pair{
			textPair("action", e.Action), textPair("by", e.By), {"policy", Value{Type: List, text: e.Policy}}, textPair("time", at.Format(time.DateTime)),
		}})
	}
	return rows, nil
}
