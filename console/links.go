package console

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/netcfg"
)

// This file has the menus of links: ports, bridges and VLANs. PPPoE clients are in pppoe.go.

const legendLink = "Flags: X - disabled, I - invalid, R - running, S - slave"

var flagsLink = []string{"XI", "R", "S"}

var (
	// portCommands are for ports, and linkCommands for links that can be added.
	portCommands = sync.OnceValue(func() []command { return commandsLike(linkCommands(), "add remove") })
	linkCommands = sync.OnceValue(func() []command { return commandsLike(ruleCommands(), "move") })

	// interfaceProperties are those that all links have, in the order in which they are set.
	// The name is last: numbers may refer to the item by its old name.
	interfaceProperties = []string{"mtu", "disabled", "comment", "name"}

	linkColumns      = []column{{"name", 16}, {"type", 9}, {"mtu", 5}, {"mac-address", 0}}
	linkStatsColumns = []column{{"name", 16}, {"rx-byte", 15}, {"tx-byte", 15}, {"rx-packet", 12}, {"tx-packet", 0}}
)

// defaultName is the name of the property with the board's name for a port.
const defaultName = "default-name"

func bridges(c *Config) *[]netcfg.Bridge         { return &c.Bridges }
func bridgePorts(c *Config) *[]netcfg.BridgePort { return &c.BridgePorts }
func vlans(c *Config) *[]netcfg.VLAN             { return &c.VLANs }

// The menu /interface and those below it.
var (
	macReadOnly = readOnly{name: "mac-address", help: "hardware address"}
	mtuReadOnly = readOnly{name: "actual-mtu", help: "largest packet in bytes, as it is now"}
)

func interfaceMenu() *menu {
	set := command{name: "set", help: "change properties of items", run: (*execution).setInterfaces,
		positional: []string{"numbers"}, arguments: append([]argument{numbersArgument}, interfaceArguments()...)}
	return &menu{
		path: "interface", help: "ports, bridges, VLANs and PPPoE clients", allLinks: true,
		commands: commandsLike(portCommands(), "unset edit", set, monitorTraffic(), printNumbered("show what there is", detailWord, terseWord, countWord, statsWord)),
		rows:     (*execution).interfaceRows, legend: legendLink, flags: flagsLink,
		columns: linkColumns, stats: (*execution).linkStats, statColumns: linkStatsColumns,
		readOnly: append([]readOnly{
			{name: "name", help: "name of the interface"},
			{name: "type", help: "kind: ether, bridge, vlan or pppoe-out"},
			{name: "mtu", help: "largest packet in bytes"},
			macReadOnly,
		}, linkCounters()...),
	}
}

func ethernetMenu() *menu {
	return &menu{
		path: "interface ethernet", help: "ethernet ports, by name",
		commands: commandsLike(portCommands(), "", monitorEthernet), isPorts: true,
		rows: (*execution).ethernetRows, legend: legendLink, flags: flagsLink,
		columns: []column{{"name", 16}, {"mtu", 5}, {"mac-address", 0}},
		stats:   (*execution).linkStats, statColumns: linkStatsColumns,
		readOnly: append(linkCounters(), readOnly{name: defaultName, help: "the board's name for the port"}),
		items:    itemLists[linkItems],
		properties: append([]property{portNameProperty()}, bindItems(links, joined([]field[*Port]{
			prop("mtu", optional(integer(68, 65535), "the driver's"), "", "largest packet in bytes",
				func(l *Port) *int { return &l.MTU }),
			prop("mac-address", optional(macAddress(), "the card's own"), "", "hardware address",
				func(l *Port) *ether.MAC { return &l.MAC }),
			arpMode(func(l *Port) *string { return &l.ARP }),
		}, modeFields(),
			disabled(func(l *Port) *bool { return &l.Disabled }),
			comment(func(l *Port) *string { return &l.Comment }),
		)...)...),
	}
}

func bridgeMenu() *menu {
	return &menu{
		path: "interface bridge", help: "bridges between interfaces",
		commands: linkCommands(),
		rows:     func(x *execution) ([]row, error) { return x.createdRows("interface bridge") }, legend: legendLink, flags: flagsLink,
		columns: []column{{"name", 16}, {"actual-mtu", 10}, {"mac-address", 17}, {"protocol-mode", 0}},
		stats:   (*execution).linkStats, statColumns: linkStatsColumns,
		readOnly: append(linkCounters(), mtuReadOnly, macReadOnly),
		items:    itemLists[bridgeItems],
		warnings: (*execution).ingressWarning,
		properties: renamingLinks(bindItems(bridges, joined([]field[*netcfg.Bridge]{
			prop("name", linkName(), "", "name of the bridge", func(b *netcfg.Bridge) *string { return &b.Name }),
			prop("mtu", automatic(optional(integer(68, 65535), "the smallest of its ports'")), "", "largest packet in bytes",
				func(b *netcfg.Bridge) *int { return &b.MTU }),
			prop("auto-mac", inverse(boolean()), "yes", "whether its hardware address is the lowest of its ports' addresses",
				func(b *netcfg.Bridge) *bool { return &b.OwnMAC }),
			prop("admin-mac", optional(macAddress(), "none"), "", "its hardware address with auto-mac=no", func(b *netcfg.Bridge) *ether.MAC { return &b.MAC }),
			arpMode(func(b *netcfg.Bridge) *string { return &b.ARP }),
			prop("protocol-mode", spanningTree(), "none", "whether it speaks the spanning tree protocol",
				func(b *netcfg.Bridge) *bool { return &b.STP }),
			prop("vlan-filtering", boolean(), "no", "whether frames pass only between ports that are in their VLAN: see vlan",
				func(b *netcfg.Bridge) *bool { return &b.VLANFiltering }),
		}, vlanPortFields(func(b *netcfg.Bridge) *netcfg.VLANPort { return &b.VLANPort }),
			disabled(func(b *netcfg.Bridge) *bool { return &b.Disabled }),
			comment(func(b *netcfg.Bridge) *string { return &b.Comment }),
		)...)),
	}
}

func vlanMenu() *menu {
	return &menu{
		path: "interface vlan", help: "tagged links within others (IEEE 802.1Q)",
		commands: linkCommands(),
		rows:     func(x *execution) ([]row, error) { return x.createdRows("interface vlan") }, legend: legendLink, flags: flagsLink,
		columns: []column{{"name", 16}, {"actual-mtu", 10}, {"vlan-id", 7}, {"interface", 0}},
		stats:   (*execution).linkStats, statColumns: linkStatsColumns,
		readOnly: append(linkCounters(), mtuReadOnly, macReadOnly),
		items:    itemLists[vlanItems],
		properties: renamingLinks(bindItems(vlans,
			prop("name", linkName(), "", "name of the VLAN", func(v *netcfg.VLAN) *string { return &v.Name }),
			prop("interface", linkOf(netcfg.Ether, netcfg.BridgeType), "", "port or bridge that it is in",
				func(v *netcfg.VLAN) *string { return &v.Interface }),
			prop("vlan-id", integer(1, 4094), "1", "its tag", func(v *netcfg.VLAN) *int { return &v.ID }),
			prop("mtu", optional(integer(68, 65535), "that of its interface"), "", "largest packet in bytes",
				func(v *netcfg.VLAN) *int { return &v.MTU }),
			arpMode(func(v *netcfg.VLAN) *string { return &v.ARP }),
			disabled(func(v *netcfg.VLAN) *bool { return &v.Disabled }),
			comment(func(v *netcfg.VLAN) *string { return &v.Comment }),
		)),
	}
}

func bridgePortMenu() *menu {
	return &menu{
		path: "interface bridge port", help: "ports of bridges",
		commands: listCommands, legend: legendRule, flags: flagsRule,
		items:    itemLists[bridgePortItems],
		columns:  []column{{"interface", 16}, {"bridge", 16}, {"pvid", 4}, {"frame-types", 0}},
		warnings: (*execution).ingressWarning,
		properties: bindItems(bridgePorts, joined([]field[*netcfg.BridgePort]{
			prop("interface", linkOf(netcfg.Ether, netcfg.VLANType), "", "port or VLAN", func(p *netcfg.BridgePort) *string { return &p.Interface }),
			prop("bridge", linkOf(netcfg.BridgeType), "", "bridge that it belongs to", func(p *netcfg.BridgePort) *string { return &p.Bridge }),
		}, vlanPortFields(func(p *netcfg.BridgePort) *netcfg.VLANPort { return &p.VLANPort }),
			disabled(func(p *netcfg.BridgePort) *bool { return &p.Disabled }),
			comment(func(p *netcfg.BridgePort) *string { return &p.Comment }),
		)...),
	}
}

// joined are fields, then others, then the last.
func joined[P any](first, then []field[P], last ...field[P]) []field[P] {
	return slices.Concat(first, then, last)
}

// interfaceArguments are the arguments of /interface set. Their values are parsed by the menu
// of each link.
func interfaceArguments() []argument {
	var all []argument
	ethernet := ethernetMenu()
	for _, name := range interfaceProperties {
		p, _ := ethernet.property(name)
		p.def, p.unset = "", "as it is"
		all = append(all, argument{item: true, property: p})
	}
	return all
}

// setInterfaces changes links of any kind.
func (x *execution) setInterfaces(m *menu, a arguments) error {
	for _, name := range interfaceProperties {
		w, given := a.items[name]
		if !given {
			continue
		}
		if w.find != nil {
			return &lineError{message: "syntax error", place: w.value, expected: quotesExpected}
		}
		if err := x.setOne(m, a, name, w.text); err != nil {
			return err
		}
	}
	return nil
}

func linkCounters() []readOnly {
	return []readOnly{
		{name: "rx-byte", help: "bytes received", counted: true},
		{name: "tx-byte", help: "bytes sent", counted: true},
		{name: "rx-packet", help: "packets received", counted: true},
		{name: "tx-packet", help: "packets sent", counted: true},
	}
}

// linkName is the kind of a name for a link. iptables accepts these names, and none of them
// is a number, which would refer to an item.
func linkName() kind[string] { return nameOfAtMost(15) }

// maxPortName is the greatest length of a name that users give a port. The kernel does not know it, and
// exports of RouterOS have longer ones than the kernel takes.
const maxPortName = 32

func nameOfAtMost(length int) kind[string] {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	return kind[string]{
		accepts: fmt.Sprintf("name: 1..%d of a-z, A-Z, 0-9 and ._-, a letter first", length),
		parse: func(s string) (string, error) {
			if s == "" || len(s) > length || !strings.Contains(letters, s[:1]) || strings.Trim(s, letters+"0123456789._-") != "" {
				return "", errors.New("not a name")
			}
			return s, nil
		},
		format: func(v string) string { return v },
	}
}

// portNameProperty is the name that users give a port. The board's name for the port unsets
// it.
func portNameProperty() property {
	p := bindItems(links, prop("name", optional(nameOfAtMost(maxPortName), "the board's name for it"), "", "name of the port, everywhere",
		func(l *Port) *string { return &l.Renamed }))[0]
	set := p.set
	p.set = func(c *Config, item int, value string) error {
		if value == c.Links[item].Name {
			value = ""
		}
		return set(c, item, value)
	}
	return p
}

// renamingLinks makes a change of the name of a bridge, VLAN or PPPoE client change everything that refers to it.
func renamingLinks(properties []property) []property {
	return renaming(properties, func(c *Config, name string) bool {
		return c.Called(name) != name || slices.Contains(c.createdLinks(), name)
	}, (*Config).renameReferences)
}

// createdLinks are the names of the bridges, VLANs and PPPoE clients.
func (cfg Config) createdLinks() []string {
	var names []string
	for _, b := range cfg.Bridges {
		names = append(names, b.Name)
	}
	for _, v := range cfg.VLANs {
		names = append(names, v.Name)
	}
	for _, c := range cfg.PPPoEClients {
		names = append(names, c.Name)
	}
	return names
}

// renameReferences changes all references to one interface into references to another.
func (cfg *Config) renameReferences(from, to string) {
	var names []*string
	for i := range cfg.VLANs {
		names = append(names, &cfg.VLANs[i].Interface)
	}
	for i := range cfg.BridgePorts {
		names = append(names, &cfg.BridgePorts[i].Interface, &cfg.BridgePorts[i].Bridge)
	}
	for i := range cfg.BridgeVLANs {
		v := &cfg.BridgeVLANs[i]
		names = append(names, &v.Bridge)
		for _, ports := range [][]string{v.Tagged, v.Untagged} {
			for j := range ports {
				names = append(names, &ports[j])
			}
		}
	}
	for i := range cfg.ListMembers {
		names = append(names, &cfg.ListMembers[i].Interface)
	}
	for i := range cfg.Queues {
		for _, parts := range []*string{&cfg.Queues[i].Target, &cfg.Queues[i].Dst} {
			words := strings.Split(*parts, ",")
			for j := range words {
				if words[j] == from {
					words[j] = to
				}
			}
			*parts = strings.Join(words, ",")
		}
	}
	for i := range cfg.PPPoEClients {
		names = append(names, &cfg.PPPoEClients[i].Interface)
	}
	for i := range cfg.DHCPClients {
		names = append(names, &cfg.DHCPClients[i].Interface)
	}
	for i := range cfg.Addresses {
		names = append(names, &cfg.Addresses[i].Interface)
	}
	for i := range cfg.DHCPServer.Servers {
		names = append(names, &cfg.DHCPServer.Servers[i].Interface)
	}
	for i := range cfg.Routes {
		names = append(names, &cfg.Routes[i].Interface)
	}
	for i := range cfg.ARP {
		names = append(names, &cfg.ARP[i].Interface)
	}
	for i := range cfg.RoutingRules {
		names = append(names, &cfg.RoutingRules[i].Interface)
	}
	cfg.eachRule(func(r *firewall.Rule) { names = append(names, &r.InInterface, &r.OutInterface) })
	replaceNames(names, from, to)
}

// replaceNames changes those of the names that are from, or all but from, to the same of to.
func replaceNames(names []*string, from, to string) {
	for _, name := range names {
		switch *name {
		case from:
			*name = to
		case "!" + from:
			*name = "!" + to
		}
	}
}

// macAddress is the kind of an Ethernet address of a single host.
func macAddress() kind[ether.MAC] {
	return kind[ether.MAC]{
		accepts: "MAC address: xx:xx:xx:xx:xx:xx, not a group's",
		parse: func(s string) (ether.MAC, error) {
			mac, err := net.ParseMAC(s)
			if err != nil {
				return ether.MAC{}, err
			}
			if len(mac) != len(ether.MAC{}) || !ether.MAC(mac).IsHost() {
				return ether.MAC{}, errors.New("not the address of a host")
			}
			return ether.MAC(mac), nil
		},
		format: func(m ether.MAC) string { return strings.ToUpper(m.String()) },
	}
}

// automatic makes k accept "auto" too, for the empty value.
func automatic[V any](k kind[V]) kind[V] {
	parse := k.parse
	k.accepts += " | auto"
	k.parse = func(s string) (v V, err error) {
		if s == "auto" {
			return v, nil
		}
		return parse(s)
	}
	return k
}

// spanningTree is the kind of a bridge's protocol: whether it speaks STP.
func spanningTree() kind[bool] {
	k := boolean()
	k.typ, k.accepts, k.values = Enumeration, "none | stp", []string{"none", "stp"}
	k.parse = func(s string) (bool, error) {
		if s == "rstp" || s == "mstp" {
			return false, match.Refusal("Postern has no " + s + "; a neighbour that speaks it falls back to stp")
		}
		full, err := oneOf(s, k.values...)
		return full == "stp", err
	}
	k.format = func(on bool) string {
		if on {
			return "stp"
		}
		return "none"
	}
	return k
}

// interfaceNames are the names of the ports, bridges, VLANs and PPPoE clients that exist, or nil if it is not
// known which ports exist.
func (x *execution) interfaceNames() []string {
	if x.live.Links == nil {
		return nil
	}
	ports, err := x.ports()
	if err != nil {
		return nil // the items are as good without the flag that this is for
	}
	names := []string{}
	for _, p := range ports {
		if p.Present {
			names = append(names, p.Name)
		}
	}
	for _, b := range x.cfg.Bridges {
		names = append(names, b.Name)
	}
	for _, v := range x.cfg.VLANs {
		if !v.Disabled && slices.Contains(names, v.Interface) {
			names = append(names, v.Name)
		}
	}
	for _, c := range x.cfg.PPPoEClients {
		if !c.Disabled && slices.Contains(names, c.Interface) {
			names = append(names, c.Name)
		}
	}
	for i, name := range names {
		names[i] = x.cfg.Called(name)
	}
	return names
}

// slave reports whether the interface is a port of a bridge.
func (x *execution) slave(name string) bool {
	return slices.ContainsFunc(x.cfg.BridgePorts, func(p netcfg.BridgePort) bool { return p.Interface == name && !p.Disabled })
}

// interfaceChoices are the interfaces that can be the value of p.
func (x *execution) interfaceChoices(p property) []Choice {
	var all []Choice
	if p.names(netcfg.Ether) {
		all = x.portChoices()
	}
	for _, b := range x.cfg.Bridges {
		if p.names(netcfg.BridgeType) {
			all = append(all, Choice{b.Name, "a bridge"})
		}
	}
	for _, v := range x.cfg.VLANs {
		if p.names(netcfg.VLANType) {
			all = append(all, Choice{v.Name, "a VLAN"})
		}
	}
	for _, c := range x.cfg.PPPoEClients {
		if p.names(netcfg.PPPType) {
			all = append(all, Choice{c.Name, "a PPPoE client"})
		}
	}
	return all
}

// names reports whether the value can name an interface of that kind.
func (p property) names(kind netcfg.LinkType) bool {
	return p.links == nil || slices.Contains(p.links, kind)
}

// linkState is the state of a link. One that the system does not know does not exist.
func (x *execution) linkState(name string) netcfg.LinkState {
	for _, l := range x.links {
		if l.Name == name {
			return l
		}
	}
	return netcfg.LinkState{Name: name}
}

// linkFlags are the flags of a link.
func (x *execution) linkFlags(disabled, invalid bool, l netcfg.LinkState) flags {
	var set flags
	switch {
	case disabled:
		set = flagDisabled
	case invalid:
		set = flagInvalid
	}
	if l.Running {
		set |= flagRunning
	}
	if x.slave(l.Name) {
		set |= flagSlave
	}
	return set
}

// ethernetRows are the ports and their settings. An MTU or address that is not set is the
// driver's.
func (x *execution) ethernetRows() ([]row, error) {
	ports, err := x.ports()
	if err != nil {
		return nil, err
	}
	rows := make([]row, len(ports))
	for i, p := range ports {
		var set Port
		if n := slices.IndexFunc(x.cfg.Links, func(l Port) bool { return l.Name == p.Name }); n >= 0 {
			set = x.cfg.Links[n]
		}
		pairs := []Pair{textPair("name", x.cfg.Called(p.Name)), textPair(defaultName, p.Name)}
		if n := cmp.Or(set.MTU, p.MTU); n > 0 {
			pairs = append(pairs, numberPair("mtu", n))
		}
		if mac := cmp.Or(macText(set.MAC), macText(p.MAC)); mac != "" {
			pairs = append(pairs, textPair("mac-address", mac))
		}
		pairs = append(pairs, wordPair("arp", cmp.Or(set.ARP, "enabled")), booleanPair("auto-negotiation", !set.NoAutoNegotiation))
		if set.Advertise != 0 {
			pairs = append(pairs, Pair{"advertise", Value{Type: List, text: set.Advertise.String()}})
		}
		if set.Fixed != 0 {
			pairs = append(pairs, wordPair("speed", set.Fixed.String()))
		}
		rows[i] = row{key: key{port: p.Name}, flags: x.linkFlags(set.Disabled, !p.Present, p), comment: set.Comment, pairs: pairs}
	}
	return rows, nil
}

func macText(m ether.MAC) string { return optional(macAddress(), "none").format(m) }

// createdRows are the bridges or the VLANs, with the state of each.
func (x *execution) createdRows(path string) ([]row, error) {
	if _, err := x.ports(); err != nil {
		return nil, err
	}
	rows := x.configured(x.menu(path))
	for i := range rows {
		r := &rows[i]
		l := x.linkState(r.value("name"))
		r.flags = x.linkFlags(r.flags&flagDisabled != 0, r.flags&flagInvalid != 0, l)
		if l.Present {
			r.pairs = append(r.pairs, numberPair("actual-mtu", l.MTU), textPair("mac-address", macText(l.MAC)))
		}
	}
	return rows, nil
}

// interfaceRows are all links with their state.
func (x *execution) interfaceRows() ([]row, error) {
	if x.live.Links == nil {
		return nil, unavailable("interfaces")
	}
	var rows []row
	for _, kind := range []struct {
		name netcfg.LinkType
		rows func() ([]row, error)
	}{
		{netcfg.Ether, x.ethernetRows},
		{netcfg.BridgeType, func() ([]row, error) { return x.createdRows("interface bridge") }},
		{netcfg.VLANType, func() ([]row, error) { return x.createdRows("interface vlan") }},
		{netcfg.PPPType, x.pppoeRows},
	} {
		some, err := kind.rows()
		if err != nil {
			return nil, err
		}
		for _, r := range some {
			l := x.linkState(x.cfg.device(r.value("name")))
			r.pairs = []Pair{textPair("name", r.value("name")), wordPair("type", string(kind.name))}
			if l.Present {
				r.pairs = append(r.pairs, numberPair("mtu", l.MTU))
				if mac := macText(l.MAC); mac != "" {
					r.pairs = append(r.pairs, textPair("mac-address", mac))
				}
			}
			rows = append(rows, r)
		}
	}
	return rows, x.linkStats(nil, rows)
}

// linkStats adds the counters of each link to rows.
func (x *execution) linkStats(_ *menu, rows []row) error {
	for i := range rows {
		r := &rows[i]
		if l := x.linkState(x.cfg.device(r.value("name"))); l.Present && r.value("rx-byte") == "" {
			r.pairs = append(r.pairs, bytesPair("rx-byte", l.RxBytes), bytesPair("tx-byte", l.TxBytes),
				numberPair("rx-packet", l.RxPackets), numberPair("tx-packet", l.TxPackets))
		}
	}
	return nil
}
