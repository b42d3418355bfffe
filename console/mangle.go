package console

import (
	"slices"
	"strings"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
)

// This file has the menus of the firewall's rules, and what those of mangle and raw have besides the others'.

// ruleMenu is the menu of the rules of one table.
func ruleMenu(t firewall.Table, help string, list int, fields []field[*firewall.Rule]) *menu {
	return &menu{
		path: "ip firewall " + string(t), help: help,
		commands: packetRuleCommands(), legend: legendRule, flags: flagsRule,
		items:      itemLists[list],
		properties: bindItems(func(c *Config) *[]firewall.Rule { return rulesOf(c, t) }, fields...),
		readOnly:   ruleCounters(),
		stats:      (*execution).ruleStats, statColumns: ruleColumns,
	}
}

// rulesOf are the rules of a table.
func rulesOf(c *Config, t firewall.Table) *[]firewall.Rule {
	switch t {
	case firewall.Filter:
		return &c.Firewall.Filter
	case firewall.NAT:
		return &c.Firewall.NAT
	case firewall.Mangle:
		return &c.Firewall.Mangle
	}
	return &c.Firewall.Raw
}

// ruleItems is the list of a table's rules.
func ruleItems(t firewall.Table) int {
	switch t {
	case firewall.Filter:
		return filterItems
	case firewall.NAT:
		return natItems
	case firewall.Mangle:
		return mangleItems
	}
	return rawItems
}

// eachRule calls f for each rule of the firewall.
func (cfg *Config) eachRule(f func(*firewall.Rule)) {
	for _, t := range firewall.Tables {
		itemLists[ruleItems(t)].own(cfg)
		rules := *rulesOf(cfg, t)
		for i := range rules {
			f(&rules[i])
		}
	}
}

// mangleFields are the properties of a mangle rule, in the order of the manual.
func mangleFields() []field[*firewall.Rule] {
	return slices.Concat([]field[*firewall.Rule]{
		prop("chain", chainName("prerouting", "input", "forward", "output", "postrouting"), "",
			"packets before routing, to the router, through it, from it, or after routing; or a chain of your own, for action=jump",
			func(r *firewall.Rule) *string { return &r.Chain }),
		prop("action", enum[string](slices.Concat([]string{"accept"}, firewall.MangleActions, []string{"log", "passthrough", "jump", "return",
			"add-src-to-address-list", "add-dst-to-address-list"})...), "accept",
			"what happens to a packet that matches",
			func(r *firewall.Rule) *string { return &r.Action }),
		jumpTarget(), addedTo(), addedFor(),
		prop("new-connection-mark", newMark("new-connection-mark"), "", "mark that action=mark-connection gives the packet's connection",
			func(r *firewall.Rule) *string { return &r.NewConnectionMark }),
		prop("new-packet-mark", newMark("new-packet-mark"), "", "mark that action=mark-packet gives the packet",
			func(r *firewall.Rule) *string { return &r.NewPacketMark }),
		prop("new-routing-mark", tableName("none"), "", "table of routes that action=mark-routing has the packet take",
			func(r *firewall.Rule) *string { return &r.NewRoutingMark }),
		prop("new-mss", optional(taken(firewall.NewMSSAccepted, firewall.TakesNewMSS), "none"), "",
			"largest segment that action=change-mss leaves both ends of a TCP connection; clamp-to-pmtu: what the route's MTU has room for",
			func(r *firewall.Rule) *string { return &r.NewMSS }),
		prop("tcp-mss", optional(taken(firewall.TCPMSSAccepted, firewall.TakesTCPMSS), "any"), "", "MSS of the packet, for action=change-mss: of those that new-mss changes",
			func(r *firewall.Rule) *string { return &r.TCPMSS }),
		prop("new-ttl", optional(taken(firewall.NewTTLAccepted, firewall.TakesNewTTL), "none"), "", "time to live that action=change-ttl sets, or what it adds or takes",
			func(r *firewall.Rule) *string { return &r.NewTTL }),
		prop("new-dscp", optional(taken(firewall.NewDSCPAccepted, firewall.TakesNewDSCP), "none"), "", "code point (DSCP) that action=change-dscp sets",
			func(r *firewall.Rule) *string { return &r.NewDSCP }),
		prop("passthrough", optional(inverse(boolean()), "yes"), "", "whether the next rules see a packet that this one has changed",
			func(r *firewall.Rule) *bool { return &r.Final }),
	}, matchFields(), []field[*firewall.Rule]{connectionNATState(),
		disabled(func(r *firewall.Rule) *bool { return &r.Disabled }),
		comment(func(r *firewall.Rule) *string { return &r.Comment }),
	})
}

// rawFields are the properties of a raw rule, in the order of the manual.
func rawFields() []field[*firewall.Rule] {
	return slices.Concat([]field[*firewall.Rule]{
		prop("chain", chainName("prerouting", "output"), "",
			"packets that come in, or from the router; or a chain of your own, for action=jump",
			func(r *firewall.Rule) *string { return &r.Chain }),
		prop("action", enum[string]("accept", "drop", "notrack", "log", "passthrough", "jump", "return",
			"add-src-to-address-list", "add-dst-to-address-list"), "accept",
			"what happens to a packet that matches; notrack: no connection is tracked for it, and the next rules see it",
			func(r *firewall.Rule) *string { return &r.Action }),
		jumpTarget(), addedTo(), addedFor(),
	}, slices.DeleteFunc(matchFields(), func(f field[*firewall.Rule]) bool { return strings.HasPrefix(f.name, "connection-") }), []field[*firewall.Rule]{
		disabled(func(r *firewall.Rule) *bool { return &r.Disabled }),
		comment(func(r *firewall.Rule) *string { return &r.Comment }),
	})
}

// connectionNATState is the matcher of what is translated, which rules of nat do not know.
func connectionNATState() field[*firewall.Rule] {
	return prop("connection-nat-state", wordList(match.NATStates...), "",
		"what address translation has made of the packet's connection",
		func(r *firewall.Rule) *string { return &r.ConnectionNATState })
}

// markFields are the matchers of marks.
func markFields() []field[*firewall.Rule] {
	mark := func(of string) kind[string] {
		k := optional(negatable(ruleName("name of a mark | "+firewall.NoMark)), "any")
		k.offers = markChoices(of, firewall.NoMark)
		return k
	}
	routing := optional(negatable(ruleName("main | name of a table of routes")), "any")
	routing.offers = tableName("").offers
	return []field[*firewall.Rule]{
		prop("connection-mark", mark("new-connection-mark"), "", "mark of the packet's connection",
			func(r *firewall.Rule) *string { return &r.ConnectionMark }),
		prop("packet-mark", mark("new-packet-mark"), "", "mark of the packet", func(r *firewall.Rule) *string { return &r.PacketMark }),
		prop("routing-mark", routing, "", "table of routes that mangle has the packet take", func(r *firewall.Rule) *string { return &r.RoutingMark }),
	}
}

// newMark is the name of a mark that a rule of mangle sets.
func newMark(property string) kind[string] {
	k := optional(ruleName("name of a mark | "+firewall.NoMark), "none")
	k.offers = markChoices(property, firewall.NoMark)
	return k
}

// markChoices offers the marks that rules of mangle set by a property, and none.
func markChoices(property, none string) func(*execution, *menu) []Choice {
	set := valuesOf("ip firewall mangle", property, "a mark")
	return func(x *execution, m *menu) []Choice {
		all := slices.DeleteFunc(set(x, m), func(c Choice) bool { return c.Name == "" || c.Name == none })
		return append([]Choice{{none, "none of them"}}, all...)
	}
}

// taken is text of which takes says whether it is a value.
func taken(accepts string, takes func(string) bool) kind[string] {
	return checked(accepts, func(s string) error {
		if !takes(s) {
			return errNoMatch
		}
		return nil
	})
}

// checked is text for which check returns no error.
func checked(accepts string, check func(string) error) kind[string] {
	return kind[string]{
		accepts: accepts,
		parse:   func(s string) (string, error) { return s, check(s) },
		format:  func(v string) string { return v },
	}
}
