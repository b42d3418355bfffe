package console

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/netcfg"
)

// This file has the menus of tables of routes besides main, and of the rules that choose one.

// RoutingTable is a table of routes besides main.
type RoutingTable struct {
	Name string
	// FIB is whether packets with the routing mark of its name take it.
	FIB     bool
	Comment string
	// number is the kernel's, from when it got its name on; 0 if that is not known: see tableNumbers.
	number uint8
}

// maxTables bounds what is looked through for each packet that has no mark.
const maxTables = 64

const (
	routingTablePath = "routing table"
	routingRulePath  = "routing rule"
	routePath        = "ip route"
)

func routingTables(c *Config) *[]RoutingTable { return &c.RoutingTables }
func routingRules(c *Config) *[]netcfg.Rule   { return &c.RoutingRules }

// https://help.mikrotik.com/docs/spaces/ROS/pages/59965508/Policy+Routing
func routingTableMenu() *menu {
	fib := prop("fib", boolean(), "no", "whether packets take it whose routing-mark is its name", func(t *RoutingTable) *bool { return &t.FIB })
	fib.flag = true
	return &menu{
		path: routingTablePath, help: "tables of routes besides main",
		commands: plainCommands(),
		items:    itemLists[routingTableItems],
		columns:  []column{{"name", 16}, {"fib", 0}},
		properties: numbering(renaming(bindItems(routingTables,
			prop("name", ruleName("name of the table: 1..64 bytes, not main"), "", "name of the table", func(t *RoutingTable) *string { return &t.Name }),
			fib,
			comment(func(t *RoutingTable) *string { return &t.Comment }),
		), func(c *Config, name string) bool { return slices.Contains(c.tableNames(), name) }, (*Config).renameTable)),
	}
}

// numbering gives a table its number when it gets its name.
func numbering(properties []property) []property {
	p := &properties[0]
	set := p.set
	p.set = func(c *Config, item int, value string) error {
		err := set(c, item, value)
		if err == nil {
			c.RoutingTables[item].number = c.tableNumbers()[item]
		}
		return err
	}
	return properties
}

func routingRuleMenu() *menu {
	return &menu{
		path: routingRulePath, help: "which table of routes a packet takes, behind those of routing marks; first match decides", ifUnknown: CloseRouter,
		commands: listCommands, legend: legendItem, flags: flagsItem,
		items: itemLists[routingRuleItems],
		properties: bindItems(routingRules,
			prop("dst-address", optional(network(), "any"), "", "network of the destination", func(r *netcfg.Rule) *netip.Prefix { return &r.DstAddress }),
			prop("src-address", optional(network(), "any"), "", "network of the source", func(r *netcfg.Rule) *netip.Prefix { return &r.SrcAddress }),
			prop("interface", optional(portName(), "any"), "", "interface by which the packet comes in", func(r *netcfg.Rule) *string { return &r.Interface }),
			prop("routing-mark", tableName("any"), "", "mark that mangle has given the packet, main for none", func(r *netcfg.Rule) *string { return &r.Mark }),
			prop("action", enum[string](netcfg.RuleActions...), netcfg.RuleActions[0],
				"what happens to a packet that matches; lookup: the next rule if the table has no route, lookup-only-in-table: it is dropped then",
				func(r *netcfg.Rule) *string { return &r.Action }),
			prop("table", tableName("none"), "", "table for action=lookup and lookup-only-in-table", func(r *netcfg.Rule) *string { return &r.Table }),
			disabled(func(r *netcfg.Rule) *bool { return &r.Disabled }),
			comment(func(r *netcfg.Rule) *string { return &r.Comment }),
		),
	}
}

// tableName is the name of a table of routes.
func tableName(unset string) kind[string] {
	k := optional(ruleName("main | name of a table of routes"), unset)
	k.offers = func(x *execution, _ *menu) []Choice {
		all := []Choice{{netcfg.MainTable, "the table of all other routes"}}
		for _, name := range x.cfg.tableNames() {
			all = append(all, Choice{name, "a table of routes"})
		}
		return all
	}
	return k
}

// routeTable is the property of a route; main is the one that it has without.
func routeTable() field[*netcfg.Route] {
	k := tableName(netcfg.MainTable)
	parse := k.parse
	k.parse = func(s string) (string, error) {
		if s == netcfg.MainTable {
			return "", nil
		}
		return parse(s)
	}
	return prop("routing-table", k, "", "table that it is in", func(r *netcfg.Route) *string { return &r.Table })
}

// checkGateway is the property of a route; none is what it has without.
func checkGateway() field[*netcfg.Route] {
	const none = "none"
	k := optional(enum[string](netcfg.CheckARP, netcfg.CheckPing), none)
	parse := k.parse
	k.accepts = none + " | " + k.accepts
	k.parse = func(s string) (string, error) {
		if s == none {
			return "", nil
		}
		return parse(s)
	}
	return prop("check-gateway", k, "", "arp, ping: the gateway is asked so every 10 seconds, and all routes by it are inactive after two requests without an answer",
		func(r *netcfg.Route) *string { return &r.CheckGateway })
}

// blackhole and routeType are the properties of a route that leads nowhere: RouterOS 7 has the first of them alone, RouterOS 6 the
// second. An export has the first where that says all.
func blackhole() field[*netcfg.Route] {
	k := optional(boolean(), "no")
	f := prop("blackhole", k, "", "whether packets are dropped without a word; no gateway is needed then",
		func(r *netcfg.Route) *bool { is := r.Type == netcfg.Blackhole; return &is })
	f.flag = true
	f.set = func(r *netcfg.Route, s string) error {
		drops := false
		if s != "" {
			var err error
			if drops, err = k.parse(s); err != nil {
				return valueError(f.name, s, k.accepts, true, err)
			}
		}
		switch {
		case drops:
			r.Type = netcfg.Blackhole
		case r.Type == netcfg.Blackhole:
			r.Type = ""
		}
		return nil
	}
	return f
}

func routeType() field[*netcfg.Route] {
	const unicast = "unicast"
	k := optional(enum[string](netcfg.RouteTypes...), unicast)
	parse := k.parse
	k.accepts = unicast + " | " + k.accepts
	k.parse = func(s string) (string, error) {
		if s == unicast {
			return "", nil
		}
		return parse(s)
	}
	f := prop("type", k, "", "what is done with packets if there is no gateway: they are dropped, and the sender is told nothing, that there is no such host, or that it is forbidden",
		func(r *netcfg.Route) *string { return &r.Type })
	f.implied = func(value string) bool { return value == netcfg.Blackhole }
	return f
}

// routeProperties are those of a route. Its gateway is a router's address, that with % and an interface, or an interface alone.
func routeProperties() []property {
	gateway := field[*netcfg.Route]{
		property: property{name: "gateway", typ: Address, accepts: "IP address | IP address%interface | interface",
			help: "router that forwards the packets, with % and the interface it is on if no address there is of its network; or an interface, as a PPPoE client"},
		get: func(r *netcfg.Route) string {
			switch {
			case r.Interface == "" && !r.Gateway.IsValid(): // of a route that needs none
				return ""
			case r.Interface == "":
				return r.Gateway.String()
			case !r.Gateway.IsValid():
				return r.Interface
			}
			return r.Gateway.String() + "%" + r.Interface
		},
		set: func(r *netcfg.Route, s string) (err error) {
			if s == "" {
				r.Gateway, r.Interface = netip.Addr{}, ""
				return nil
			}
			if strings.Contains(s, ",") {
				return valueError("gateway", s, "IP address | IP address%interface | interface", false,
					match.Refusal("a route is by one gateway: give each a route, with a distance of its own"))
			}
			// RouterOS 7 names the table in which it looks for the gateway.
			address, name, both := strings.Cut(strings.TrimSuffix(s, "@"+netcfg.MainTable), "%")
			a, err := match.ParseIPv4(address)
			if err != nil && !both && strings.ContainsFunc(s, unicode.IsLetter) {
				a, name, err = netip.Addr{}, s, nil
			}
			if err == nil && (both || name != "") {
				_, err = portName().parse(name)
			}
			if err != nil {
				return valueError("gateway", s, "IP address | IP address%interface | interface", false, err)
			}
			r.Gateway, r.Interface = a, name
			return nil
		},
	}
	all := bindItems(routes,
		prop("dst-address", network(), "0.0.0.0/0", "destination network",
			func(r *netcfg.Route) *netip.Prefix { return &r.Destination }),
		gateway, blackhole(), routeType(), routeTable(),
		prop("pref-src", optional(address(), "none"), "", "address of the router that it sends from to the destination; the route is inactive while no interface has it",
			func(r *netcfg.Route) *netip.Addr { return &r.PrefSrc }),
		checkGateway(),
		prop("distance", integer(1, 255), "1", "of two routes to one destination, the lower distance wins",
			func(r *netcfg.Route) *int { return &r.Distance }),
		disabled(func(r *netcfg.Route) *bool { return &r.Disabled }),
		comment(func(r *netcfg.Route) *string { return &r.Comment }),
	)
	// Users know the interface by another name perhaps.
	p := &all[1]
	get, set := p.get, p.set
	named := func(value string, name func(string) string) string {
		before, after, both := strings.Cut(value, "%")
		switch _, err := netip.ParseAddr(before); {
		case value == "":
		case both:
			return before + "%" + name(after)
		case err != nil:
			return name(before)
		}
		return value
	}
	p.waived = func(c *Config, item int) bool { return c.Routes[item].Type != "" }
	p.waivedBy = "type=" + strings.Join(netcfg.RouteTypes, " | ")
	p.get = func(c *Config, item int) string { return named(get(c, item), c.Called) }
	p.set = func(c *Config, item int, value string) error {
		err := set(c, item, named(value, func(name string) string { return cmp.Or(c.device(name), name) }))
		if err != nil {
			return set(c, item, value) // the error shows what was typed
		}
		return nil
	}
	return all
}

// checkGateways refuses routes by an interface that there is not.
func (cfg Config) checkGateways(interfaces []namedLink) error {
	for i, r := range cfg.Routes {
		if name := cfg.Called(r.Interface); r.Type == "" && r.Interface != "" && !has(interfaces, name) {
			var names []string
			for _, l := range interfaces {
				names = append(names, l.name)
			}
			return fmt.Errorf("/ip route %d: input does not match any value of gateway: %s; expected an IP address, or %s", i, name, strings.Join(names, " | "))
		}
	}
	return nil
}

func (cfg Config) tableNames() (names []string) {
	for _, t := range cfg.RoutingTables {
		names = append(names, t.Name)
	}
	return names
}

// renameTable changes all references to one table into references to another.
func (cfg *Config) renameTable(from, to string) {
	var names []*string
	for i := range cfg.Routes {
		names = append(names, &cfg.Routes[i].Table)
	}
	for i := range cfg.RoutingRules {
		names = append(names, &cfg.RoutingRules[i].Table, &cfg.RoutingRules[i].Mark)
	}
	cfg.eachRule(func(r *firewall.Rule) { names = append(names, &r.NewRoutingMark, &r.RoutingMark) })
	replaceNames(names, from, to)
}

// tableNumbers are the kernel's numbers of the tables. A table keeps its own whatever others come and go: with another, packets that
// are marked already would take another table.
func (cfg Config) tableNumbers() []uint8 {
	numbers, used := make([]uint8, len(cfg.RoutingTables)), map[uint8]bool{}
	for i, t := range cfg.RoutingTables {
		if t.number != 0 && !used[t.number] {
			numbers[i], used[t.number] = t.number, true
		}
	}
	for i, t := range cfg.RoutingTables {
		if numbers[i] == 0 {
			numbers[i] = firewall.NumberRoutingMark(t.Name, used)
			used[numbers[i]] = true
		}
	}
	return numbers
}

// routingMarks are the numbers of the tables that packets with a mark take.
func (cfg Config) routingMarks() map[string]uint8 {
	marks := map[string]uint8{}
	for i, number := range cfg.tableNumbers() {
		if t := cfg.RoutingTables[i]; t.FIB {
			marks[t.Name] = number
		}
	}
	return marks
}

// MayAnswerBy reports whether what the router itself sends to a host may take a table besides main, by a rule or a mark of mangle.
func (cfg Config) MayAnswerBy(table string, host netip.Addr) bool {
	return slices.ContainsFunc(cfg.RoutingRules, func(r netcfg.Rule) bool {
		return !r.Disabled && r.Table == table && r.Interface == "" && (!r.DstAddress.IsValid() || r.DstAddress.Contains(host))
	}) || slices.ContainsFunc(cfg.Firewall.Mangle, func(r firewall.Rule) bool {
		return !r.Disabled && r.NewRoutingMark == table && r.Chain != "prerouting"
	})
}

// kernelTables are the tables as the kernel has them.
func (cfg Config) kernelTables() []netcfg.Table {
	var all []netcfg.Table
	for i, number := range cfg.tableNumbers() {
		t := cfg.RoutingTables[i]
		k := netcfg.Table{Name: t.Name, Number: number}
		if t.FIB {
			k.Mark, k.Mask = firewall.RoutingMark(k.Number)
		}
		all = append(all, k)
	}
	return all
}

// olderTables translates the routing-mark of a route of RouterOS 6, where a table is made by naming it.
func (x *execution) olderTables(words []word) ([]word, error) {
	words = slices.Clone(words)
	for i := range words {
		w := &words[i]
		if !w.assigned || w.key != "routing-mark" {
			continue
		}
		w.key = "routing-table"
		if w.text == "" || w.text == netcfg.MainTable || slices.Contains(x.cfg.tableNames(), w.text) {
			continue
		}
		tables := x.menu(routingTablePath)
		at, err := x.append(tables)
		if err != nil {
			return nil, err
		}
		name, _ := tables.property("name")
		if err := name.set(&x.cfg, at, w.text); err != nil {
			return nil, err
		}
		x.cfg.RoutingTables[at].FIB = true
		if err := x.checkCount(tables); err != nil {
			return nil, err
		}
	}
	return words, nil
}
