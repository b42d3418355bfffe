package console

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-router/postern/firewall"
)

// InterfaceList is a named set of interfaces (/interface list), for rules of the firewall: its
// members, and those of the lists in Include, without those of the lists in Exclude.
type InterfaceList struct {
	Name string
	// Include and Exclude are names of lists, separated by commas.
	Include, Exclude string
	Comment          string
}

// ListMember makes an interface a member of a list (/interface list member).
type ListMember struct {
	List, Interface string
	Disabled        bool
	Comment         string
}

// builtinLists are the lists that are always there, in RouterOS's order. dynamic is for
// interfaces that nobody has set up, of which Postern has none.
var builtinLists = []struct {
	name, comment string
	set           firewall.Interfaces
}{
	{"all", "contains all interfaces", firewall.Interfaces{Not: true}},
	{"none", "contains no interfaces", firewall.Interfaces{}},
	{"dynamic", "contains dynamic interfaces", firewall.Interfaces{}},
	{"static", "contains static interfaces", firewall.Interfaces{Not: true}},
}

func interfaceLists(c *Config) *[]InterfaceList { return &c.InterfaceLists }
func listMembers(c *Config) *[]ListMember       { return &c.ListMembers }

const legendList = "Flags: * - builtin, D - dynamic"

// The menus of interface lists. They come behind all interfaces in an export.
func interfaceListMenu() *menu {
	return &menu{
		path: "interface list", help: "lists of interfaces, for rules of the firewall", ifUnknown: CloseRouter,
		commands: plainCommands(),
		legend:   legendList, flags: []string{"*D"},
		items:   itemLists[interfaceListItems],
		dynamic: (*execution).builtinListRows, identify: []string{"name"},
		columns: []column{{"name", 16}, {"include", 10}, {"exclude", 0}}, rare: []string{"include", "exclude"},
		properties: renaming(bindItems(interfaceLists,
			prop("name", newListName(), "", "name of the list", func(l *InterfaceList) *string { return &l.Name }),
			prop("include", knownLists(), "", "lists whose members are members of this one too", func(l *InterfaceList) *string { return &l.Include }),
			prop("exclude", knownLists(), "", "lists whose members are not members of this one", func(l *InterfaceList) *string { return &l.Exclude }),
			comment(func(l *InterfaceList) *string { return &l.Comment }),
		), func(c *Config, name string) bool { return slices.Contains(c.listNames(), name) }, (*Config).renameList),
	}
}

func listMemberMenu() *menu {
	return &menu{
		path: "interface list member", help: "interfaces of each list",
		commands: listCommands, legend: legendRule, flags: flagsRule,
		items:   itemLists[listMemberItems],
		columns: []column{{"list", 10}, {"interface", 0}},
		properties: bindItems(listMembers,
			prop("list", knownList(), "", "list that it belongs to", func(m *ListMember) *string { return &m.List }),
			prop("interface", portName(), "", "port, bridge, VLAN or PPPoE client", func(m *ListMember) *string { return &m.Interface }),
			disabled(func(m *ListMember) *bool { return &m.Disabled }),
			comment(func(m *ListMember) *string { return &m.Comment }),
		),
	}
}

// newListName is the kind of a name for a list.
func newListName() kind[string] {
	return kind[string]{
		accepts: `name: 1..64 printable bytes, without "," and no "!" first`,
		parse: func(s string) (string, error) {
			if s == "" || len(s) > 64 || Printable(s) != s || strings.HasPrefix(s, "!") || strings.ContainsRune(s, ',') {
				return "", errors.New("not a name")
			}
			return s, nil
		},
		format: func(v string) string { return v },
	}
}

// knownList is the name of a list that there is, and listMatch matches the packets of its members.
func knownList() kind[string] {
	k := newListName()
	k.accepts, k.isList = "interface list", true
	return k
}

func listMatch() kind[string] { return optional(negatable(knownList()), "any") }

// knownLists is the names of lists that there are, separated by commas.
func knownLists() kind[string] {
	one := knownList()
	k := one
	k.typ, k.list, k.accepts, k.unset = List, true, "interface list[,interface list...]", "none"
	k.parse = func(s string) (string, error) {
		names := strings.Split(s, ",")
		for i, name := range names {
			if _, err := one.parse(name); err != nil {
				return "", err
			}
			if slices.Contains(names[:i], name) {
				return "", errNoMatch
			}
		}
		return s, nil
	}
	return k
}

// listNames are the names of all lists, those that are always there first.
func (cfg Config) listNames() []string {
	var names []string
	for _, l := range builtinLists {
		names = append(names, l.name)
	}
	for _, l := range cfg.InterfaceLists {
		names = append(names, l.Name)
	}
	return names
}

// checkInterfaceLists refuses names that are taken, and lists that include or exclude themselves.
func (cfg Config) checkInterfaceLists() error {
	names := cfg.listNames()
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("failure: already have interface list with such name: %s", name)
		}
	}
	for i, l := range cfg.InterfaceLists {
		if cfg.reaches(l, l.Name, map[string]bool{}) {
			return fmt.Errorf("/interface list %d: include and exclude of %s lead back to it; expected other lists", i, l.Name)
		}
	}
	for i, m := range cfg.ListMembers {
		if slices.ContainsFunc(cfg.ListMembers[:i], func(o ListMember) bool { return o.List == m.List && o.Interface == m.Interface }) {
			return fmt.Errorf("/interface list member %d: failure: already have such member: %s in %s", i, cfg.Called(m.Interface), m.List)
		}
	}
	return nil
}

// others are the lists that l includes or excludes.
func (l InterfaceList) others() []string {
	return strings.FieldsFunc(l.Include+","+l.Exclude, func(r rune) bool { return r == ',' })
}

// reaches reports whether what l includes or excludes, directly or by way of others, has the
// list of that name. seen are the lists that were looked at.
func (cfg Config) reaches(l InterfaceList, name string, seen map[string]bool) bool {
	for _, other := range l.others() {
		if other == name {
			return true
		}
		i := slices.IndexFunc(cfg.InterfaceLists, func(l InterfaceList) bool { return l.Name == other })
		if i < 0 || seen[other] {
			continue
		}
		seen[other] = true
		if cfg.reaches(cfg.InterfaceLists[i], name, seen) {
			return true
		}
	}
	return false
}

// interfaceSets are the interfaces of each list. actual returns the interface by which the kernel
// says that packets of an interface come in.
func (cfg Config) interfaceSets(actual func(string) string) map[string]firewall.Interfaces {
	sets := map[string]firewall.Interfaces{}
	for _, l := range builtinLists {
		sets[l.name] = l.set
	}
	var set func(name string) firewall.Interfaces
	set = func(name string) firewall.Interfaces {
		if s, ok := sets[name]; ok {
			return s
		}
		sets[name] = firewall.Interfaces{} // of a list that leads back to itself, which is refused
		i := slices.IndexFunc(cfg.InterfaceLists, func(l InterfaceList) bool { return l.Name == name })
		if i < 0 {
			return sets[name]
		}
		var s firewall.Interfaces
		for _, m := range cfg.ListMembers {
			if m.List == name && !m.Disabled {
				s = s.Or(firewall.Interfaces{Names: []string{actual(m.Interface)}})
			}
		}
		for other := range strings.SplitSeq(cfg.InterfaceLists[i].Include, ",") {
			if other != "" {
				s = s.Or(set(other))
			}
		}
		for other := range strings.SplitSeq(cfg.InterfaceLists[i].Exclude, ",") {
			if other != "" {
				s = s.And(set(other).Others())
			}
		}
		sets[name] = s
		return s
	}
	for _, l := range cfg.InterfaceLists {
		set(l.Name)
	}
	return sets
}

// renameList changes all references to one list into references to another.
func (cfg *Config) renameList(from, to string) {
	for i := range cfg.ListMembers {
		if m := &cfg.ListMembers[i]; m.List == from {
			m.List = to
		}
	}
	for i := range cfg.InterfaceLists {
		for _, names := range []*string{&cfg.InterfaceLists[i].Include, &cfg.InterfaceLists[i].Exclude} {
			all := strings.Split(*names, ",")
			for j := range all {
				if all[j] == from {
					all[j] = to
				}
			}
			*names = strings.Join(all, ",")
		}
	}
	matchers := []*string{&cfg.Discovery.List}
	cfg.eachRule(func(r *firewall.Rule) { matchers = append(matchers, &r.InInterfaceList, &r.OutInterfaceList) })
	for _, name := range matchers {
		switch *name {
		case from:
			*name = to
		case "!" + from:
			*name = "!" + to
		}
	}
}

// builtinListRows are the lists that are always there.
func (x *execution) builtinListRows() ([]row, error) {
	var rows []row
	for _, l := range builtinLists {
		rows = append(rows, row{flags: flagBuiltin | flagDynamic, comment: l.comment, pairs: []Pair{textPair("name", l.name)}})
	}
	return rows, nil
}

// listChoices are the lists that can be the value of a property.
func (x *execution) listChoices() []Choice {
	var all []Choice
	for _, name := range x.cfg.listNames() {
		all = append(all, Choice{name, "an interface list"})
	}
	return all
}

// checkList returns the error of a list that there is not: which there are, or what uses one that
// was there before.
func (p property) checkList(cfg *Config, item int, before []string) error {
	value := p.get(cfg, item)
	there := cfg.listNames()
	for name := range strings.SplitSeq(strings.TrimPrefix(value, "!"), ",") {
		switch {
		case name == "" || slices.Contains(there, name):
		case slices.Contains(before, name):
			return fmt.Errorf("input does not match any value of %s: %s; it is in use by %s", p.name, value,
				strings.Join(cfg.itemsWith(func(p property, value string) bool {
					return p.isList && slices.Contains(strings.Split(strings.TrimPrefix(value, "!"), ","), name)
				}), ", "))
		default:
			return fmt.Errorf("input does not match any value of %s: %s; expected %s", p.name, value, strings.Join(there, " | "))
		}
	}
	return nil
}
