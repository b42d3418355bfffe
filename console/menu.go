package console

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/socks"
)

// menu is a menu of the language: its commands, its properties and what it lists.
type menu struct {
	// path is the words from the root, "ip socks access"; "" is the root.
	path, help string
	commands   []command
	// ifUnknown says what must not be done with a configuration in which a line of this menu,
	// or of one below it, is missing because it was not understood.
	ifUnknown Without
	// needs reports whether the menu has an effect on this system; nil means always.
	needs      func(Live) bool
	properties []property
	// readOnly are further properties of rows, which cannot be set.
	readOnly []readOnly
	// items is set for a menu of items: properties are then those of each item.
	items *items
	// isPorts is set if the items are the ports of the machine: none can be added or removed.
	isPorts bool
	// isAlias is set if another menu exports the items, as a property.
	isAlias bool
	// allLinks is set for /interface, whose items are those of the menus below it.
	allLinks bool
	// fixed are the names of the items of a menu that always has just these. exportedAs is the number
	// that the first has in RouterOS's exports, if not 0.
	fixed []string
	// initial are the names of the first items of Default: an export sets them, where they still are, and adds the others.
	initial    []string
	exportedAs string
	// rows returns rows that are not, or not only, made from the configuration; dynamic, those
	// that the system has added to the items of the configuration.
	rows, dynamic func(*execution) ([]row, error)
	// changesDynamic is set if commands can change what dynamic returns, which then has keys.
	changesDynamic bool
	// identify names the properties that identify a row which only the system has; nil means
	// all properties.
	identify []string
	// live returns what the system adds to the properties of a menu without items.
	live func(*execution) ([]Pair, error)
	// legend explains the flags of rows. flags are the columns for them, with the letters that
	// can stand in each. packed is set if a column without a letter takes no room.
	legend string
	flags  []string
	packed bool
	// unnumbered is set if the rows have no numbers on the screen.
	unnumbered bool
	// columns is set for rows that are printed as a table. One that is rare is left out while no
	// row has its property.
	columns []column
	rare    []string
	// stats adds what "print stats" shows to rows, and statColumns is the table for it.
	stats       func(*execution, *menu, []row) error
	statColumns []column
	// indent is how far the longest name on the screen of a menu without items is indented.
	indent int
	// temporary reports whether an item ends by itself: it is shown as dynamic, and not exported. nil is none.
	temporary func(c *Config, item int) bool
	// warnings returns what is printed below the screen of a menu without items, or below rows.
	warnings func(*execution) []string
}

// readOnly is a property that cannot be set. of returns it for an item of the configuration;
// it is nil if the rows have it already.
type readOnly struct {
	name, help string
	of         func(c *Config, item int) Pair
	counted    bool // only "print stats" shows it
	// after is the property that it stands behind on the screen of a menu without items; "" is
	// the last.
	after string
}

// property is a setting: the entry of a table that parsing, print, export, help and error
// texts share. get and set take the value as text.
type property struct {
	name, help string
	// accepts describes the type and the range.
	accepts string
	// def is the default. It is "" for a property that can be unset, and then unset says what
	// that means; and for one that must be given, and then unset is "" too.
	def, unset string
	// defs are the defaults of the items of a menu with fixed ones, if they differ; def is then the first.
	defs        []string
	typ         Type
	values      []string
	isInterface bool // the value is an interface, after "!" perhaps, or a list of them
	isList      bool // the value is an interface list, after "!" perhaps, or several
	// links are the kinds of interfaces that the value can name; nil is all.
	links []netcfg.LinkType
	list  bool // the value is a list of values
	flag  bool // "yes" is written by the name alone
	// implied reports whether an export leaves a value out because another property says it; nil is never.
	implied func(value string) bool
	// waived reports whether an item does without the property, although it is required; nil is never.
	waived func(c *Config, item int) bool
	// waivedBy says of which items that is.
	waivedBy string
	// offers returns values that it can have, besides values, in a menu; nil is none.
	offers func(*execution, *menu) []Choice
	// hashed is set for a password, which has no value of its own: set only checks it, and its
	// hash becomes the value of the property hashed.
	hashed *property
	// sensitive is set if an export shows the property only on request.
	sensitive bool
	// detail is set if print shows the property of a menu without items only on request, as long
	// as it and all others of its menu that are so have their defaults.
	detail bool

	get func(c *Config, item int) string
	set func(c *Config, item int, value string) error
}

// value is the typed value for an item, or for a menu without items (item 0).
func (p property) value(c *Config, item int) Value { return valueOf(p.typ, p.get(c, item)) }

// defaultOf is the default of an item.
func (p property) defaultOf(item int) string {
	if p.defs != nil {
		return p.defs[item]
	}
	return p.def
}

func (p property) required() bool { return p.def == "" && p.unset == "" }

// column is a column of a table, as wide as its widest usual value. Its title is the name of
// the property that it shows.
type column struct {
	name  string
	width int
}

// field is a property of what a P points to, before it is known where in the configuration that is.
// It takes the pointer for its type: the compiler makes one function for all pointers, but one for each
// struct, which were 0.2 MB of the program.
type field[P any] struct {
	property
	get func(P) string
	set func(P, string) error
}

// prop makes a field of kind k with default def, for the part that at returns.
func prop[P, V any](name string, k kind[V], def, help string, at func(P) *V) field[P] {
	// The functions keep what they need of k, not k.
	parse, format, accepts, optional, listed := k.parse, k.format, k.accepts, k.unset != "", len(k.values) > 0 || k.isInterface || k.isList
	return field[P]{
		property: property{
			name: name, help: help, accepts: k.accepts, typ: k.typ,
			def: def, unset: k.unset, values: k.values, isInterface: k.isInterface, links: k.links, list: k.list, isList: k.isList, offers: k.offers,
		},
		get: func(t P) string { return format(*at(t)) },
		set: func(t P, s string) error {
			var v V
			if s != "" || !optional {
				var err error
				if v, err = parse(s); err != nil {
					return valueError(name, s, accepts, listed, err)
				}
			}
			*at(t) = v
			return nil
		},
	}
}

// valueError is the error of a bad value, in the words of RouterOS, with what was expected
// and what was given.
func valueError(name, value, accepts string, listed bool, err error) error {
	expected := "; expected " + accepts + ", not \"" + shown(value) + "\""
	var r rangeError
	var word *firewall.WordError
	switch {
	case errors.As(err, &word) && word.Word != value:
		return errors.New("invalid value for argument " + name + "; expected " + word.Expected + ", not \"" + shown(word.Word) + "\"")
	case errors.As(err, &r):
		return errors.New("value of " + name + " out of range (" + r.Error() + ")")
	case errors.Is(err, errAmbiguous):
		return errors.New("ambiguous value of " + name + ", more than one possible value matches input; expected " +
			strings.ReplaceAll(err.Error(), ", ", " | ") + ", not \"" + shown(value) + "\"")
	case errors.Is(err, errNoMatch) && name == "action" && value != "" && strings.Contains(absentActions, " "+value+" "):
		return errors.New("Postern has no action=" + value + "; expected " + accepts)
	case errors.Is(err, errNoMatch) && listed:
		return errors.New("input does not match any value of " + name + expected)
	}
	why := ""
	var refusal match.Refusal
	if errors.As(err, &refusal) {
		why = ": " + refusal.Error()
	}
	return errors.New("invalid value for argument " + name + expected + why)
}

// shown is a value as errors show it: the beginning if it is long.
func shown(value string) string {
	const longest = 40
	if len(value) > longest {
		value = value[:longest] + "..."
	}
	return Printable(value)
}

// bind makes properties of fields, for the T that at finds in a configuration.
func bind[P any](at func(c *Config, item int) P, fields ...field[P]) []property {
	all := make([]property, len(fields))
	for i, f := range fields {
		p, get, set := f.property, f.get, f.set
		p.get = func(c *Config, item int) string { return get(at(c, item)) }
		p.set = func(c *Config, item int, value string) error { return set(at(c, item), value) }
		if p.isInterface {
			p.byName()
		}
		all[i] = p
	}
	return all
}

// renaming makes a change of the name of an item, which is the first of properties, change all that
// refers to the item: follow does that. there reports whether an item has a name.
func renaming(properties []property, there func(c *Config, name string) bool, follow func(c *Config, from, to string)) []property {
	p := &properties[0]
	set := p.set
	p.set = func(c *Config, item int, value string) error {
		old := p.get(c, item)
		if err := set(c, item, value); err != nil {
			return err
		}
		// A copy first has the name of the original, to which the references belong.
		if old != "" && !there(c, old) {
			follow(c, old, p.get(c, item))
		}
		return nil
	}
	return properties
}

// byName makes a property that names an interface use the name that users know, so that it
// changes when a port is renamed.
func (p *property) byName() {
	get, set := p.get, p.set
	each := func(value string, as func(name string) string) (string, bool) {
		parts := strings.Split(value, ",") // of which no name has one
		for i, part := range parts {
			name, not := strings.CutPrefix(part, "!")
			if parts[i] = as(name); parts[i] == "" && name != "" {
				return "", false
			}
			if not {
				parts[i] = "!" + parts[i]
			}
		}
		return strings.Join(parts, ","), true
	}
	p.get = func(c *Config, item int) string {
		called, _ := each(get(c, item), c.Called)
		return called
	}
	p.set = func(c *Config, item int, value string) error {
		devices, ok := each(value, c.device)
		if !ok {
			return valueError(p.name, value, p.accepts, true, errNoMatch)
		}
		return set(c, item, devices)
	}
}

// interfacesIn are the interfaces that the value of a property names, if that names interfaces.
func interfacesIn(value string) []string {
	var names []string
	for part := range strings.SplitSeq(value, ",") {
		if name := strings.TrimPrefix(part, "!"); name != "" && !strings.Contains(name, "/") { // a network is none
			names = append(names, name)
		}
	}
	return names
}

func bindItems[T any](of func(*Config) *[]T, fields ...field[*T]) []property {
	return bind(func(c *Config, i int) *T { return &(*of(c))[i] }, fields...)
}

const (
	legendRule  = "Flags: X - disabled, I - invalid, D - dynamic"
	legendRoute = "Flags: X - disabled, I - inactive, A - active, D - dynamic, C - connect, S - static, " +
		"B - blackhole, U - unreachable, P - prohibit"
	legendItem = "Flags: X - disabled"
)

// The columns of these flags.
var (
	flagsRule  = []string{"XID"}
	flagsRoute = []string{"XIA", "D", "CS", "BUP"}
	flagsItem  = []string{"X"}
)

// menus is the whole language, in the order of an export: what a line refers to comes before
// the line. It is made when it is first asked for: the processes that have no console do without
// its 170 KB. It is never changed.
var menus = sync.OnceValue(func() []*menu {
	return owning(slices.Concat([]*menu{
		{path: "", help: "all menus", commands: []command{pingCommand, passwordCommand, importCommand, undoCommand, redoCommand, quitCommand}},
		{path: "system", help: "the router itself", commands: []command{rebootCommand, shutdownCommand, resetConfigurationCommand, upgradeCommand}},
		{
			path: "system resource", help: "time, memory and load of the machine", commands: []command{printResourceCommand, getSetting},
			live: (*execution).resource, indent: 2,
			readOnly: []readOnly{
				{name: "uptime", help: "time since the start"},
				{name: "version", help: "version of RouterOS whose language this is, for programs"},
				{name: "postern-version", help: "version of the software"},
				{name: "free-memory", help: "memory that programs can still get"},
				{name: "total-memory", help: "memory that the kernel manages"},
				{name: "cpu-count", help: "number of processors"},
				{name: "cpu-load", help: "share of time that they are busy, in percent"},
				{name: "architecture-name", help: "kind of processor"},
				{name: "board-name", help: "name of the board"},
			},
		},
		{
			path: "system clock", help: "time of day", commands: []command{setClockCommand, printClockCommand, getSetting},
			needs: func(l Live) bool { return l.Now != nil },
			live:  (*execution).clock, indent: 2,
			readOnly: []readOnly{
				{name: "time", help: "time of day"},
				{name: "date", help: "day"},
				{name: "time-zone-name", help: "where the time zone comes from"},
				{name: "gmt-offset", help: "how far local time is ahead of UTC"},
			},
		},
		{
			path: "system clock manual", help: "time zone",
			commands: singleCommands(), indent: 2,
			needs: func(l Live) bool { return l.Now != nil },
			properties: bind(func(c *Config, _ int) *Config { return c },
				prop("time-zone", offset(), "+00:00", "how far local time is ahead of UTC, all year",
					func(c *Config) *time.Duration { return &c.TimeZone }),
			),
		},
		{
			path: "system identity", help: "name of the router",
			commands: singleCommands(), indent: 2,
			properties: bind(func(c *Config, _ int) *Config { return c },
				prop("name", text(1, 64), "postern", "name of the router, in the prompt and on the network",
					func(c *Config) *string { return &c.Identity }),
			),
		},
		noteMenu(), loggingMenu(), loggingAction(), historyMenu(),
		ntpMenu(), ntpClient(), ntpServersMenu(), partitionsMenu(), routerboardMenu(), packageMenu(), packageUpdateMenu(), healthMenu(),
		userGroupMenu(), userMenu(), sshKeysMenu(), activeUsersMenu(),
	}, certificateMenus(), []*menu{
		interfaceMenu(), ethernetMenu(), bridgeMenu(), vlanMenu(), bridgePortMenu(),
		bridgeVLANMenu(),
		pppoeMenu(), interfaceListMenu(), listMemberMenu(),
		{path: "routing", help: "tables of routes"}, routingTableMenu(),
		{path: "ip", help: "IPv4"},
		{
			path: "ip address", help: "addresses of the router",
			commands: listCommands, legend: legendRule, flags: flagsRule,
			items: itemLists[addressItems],
			properties: bindItems(addresses,
				prop("address", prefix(), "", "address of the router with the length of its network",
					func(a *netcfg.Address) *netip.Prefix { return &a.Address }),
				prop("interface", portName(), "", "port, bridge or VLAN that has the address",
					func(a *netcfg.Address) *string { return &a.Interface }),
				disabled(func(a *netcfg.Address) *bool { return &a.Disabled }),
				comment(func(a *netcfg.Address) *string { return &a.Comment }),
			),
			readOnly: []readOnly{{name: "network", help: "network of the address",
				of: func(c *Config, i int) Pair { return addressPair("network", c.Addresses[i].Address.Masked().Addr()) }}},
			dynamic: (*execution).dynamicAddresses, identify: []string{"address", "interface"},
			columns: []column{{"address", 18}, {"network", 15}, {"interface", 0}},
		},
		{
			path: "ip route", help: "routes by a gateway, and such as lead nowhere",
			commands: listCommands, legend: legendRoute, flags: flagsRoute,
			items:      itemLists[routeItems],
			properties: routeProperties(),
			dynamic:    func(x *execution) ([]row, error) { made, _, err := x.routeRows(); return made, err },
			rows:       func(x *execution) ([]row, error) { _, set, _ := x.routeRows(); return set, nil },
			columns:    []column{{"dst-address", 18}, {"gateway", 15}, {"routing-table", 13}, {"distance", 0}}, rare: []string{"routing-table"}, identify: []string{"dst-address", "gateway"},
		},
		routingRuleMenu(),
		dnsMenu(), dnsCacheMenu(), dnsCacheAllMenu(), dnsStaticMenu(),
		dhcpClientMenu(), poolMenu(), poolUsedMenu(), dhcpServerMenu(), dhcpOptionMenu(), dhcpNetworkMenu(), dhcpLeaseMenu(),
		ipSettingsMenu(), neighborMenu(), discoverySettingsMenu(), serviceMenu(),
		{path: "ip firewall", help: "packet filter and address translation", ifUnknown: CloseRouter},
		addressListMenu(),
		filterMenu(),
		ruleMenu(firewall.Mangle, "packets to mark and to change, first match without passthrough decides", mangleItems, mangleFields()),
		ruleMenu(firewall.NAT, "addresses to translate, first match decides", natItems, natFields()),
		ruleMenu(firewall.Raw, "packets to drop or not to track, before anything else is done with them", rawItems, rawFields()),
		{
			path: "ip firewall connection", help: "connections that the router tracks", commands: trackedCommands(),
			needs: func(l Live) bool { return l.Tracked != nil },
			rows:  (*execution).trackedRows, identify: []string{"protocol", "src-address", "dst-address"},
			columns: []column{{"protocol", 8}, {"src-address", 21}, {"dst-address", 21}, {"tcp-state", 11}, {"timeout", 0}},
			readOnly: []readOnly{
				{name: "protocol", help: "IP protocol"},
				{name: "src-address", help: "address and port that opened it"},
				{name: "dst-address", help: "address and port that it was opened to"},
				{name: "tcp-state", help: "state of a TCP connection"},
				{name: "timeout", help: "time after which it is forgotten if no packet comes"},
			},
		},
		trackingMenu(), helperMenu(),
		{path: "queue", help: "limits of traffic"}, queueMenu(),
		arpMenu(),
		{
			// https://help.mikrotik.com/docs/spaces/ROS/pages/73826308/SOCKS
			path: "ip socks", help: "SOCKS server", ifUnknown: DisableSOCKS,
			commands: commandsLike(singleCommands(), "", printSocksCommand), indent: 4, warnings: (*execution).socksWarnings,
			properties: append(bind(func(c *Config, _ int) *socks.Config { return &c.Socks },
				prop("enabled", boolean(), "no", "whether the server runs",
					func(s *socks.Config) *bool { return &s.Enabled }),
				prop("port", integer[uint16](1, 65535), "1080", "TCP port on which the server listens",
					func(s *socks.Config) *uint16 { return &s.Port }),
				// The page gives no range; no idle connection is of use for longer than a week.
				prop("connection-idle-timeout", duration(time.Second, 7*24*time.Hour), "2m",
					"time after which idle connections are closed",
					func(s *socks.Config) *time.Duration { return &s.ConnectionIdleTimeout }),
				prop("max-connections", integer(1, socks.MaxMaxConnections), "200",
					"how many connections there can be at once",
					func(s *socks.Config) *int { return &s.MaxConnections }),
			), socksVersionProperties()...),
		},
		{
			path: "ip socks access", help: "who may use the SOCKS server for what, first match decides",
			commands: accessCommands(), stats: (*execution).accessStats, statColumns: accessColumns,
			legend: legendItem, flags: flagsItem,
			items:    itemLists[accessItems],
			readOnly: []readOnly{{name: "hits", help: "requests that the rule has decided", counted: true}},
			properties: bindItems(accessRules,
				prop("src-address", addressMatch(), "", "address of the client",
					func(r *socks.Rule) *match.Addresses { return &r.SrcAddress }),
				prop("src-port", portMatch(), "", "TCP port of the client",
					func(r *socks.Rule) *match.Ports { return &r.SrcPort }),
				prop("dst-address", addressMatch(), "", "address of the server",
					func(r *socks.Rule) *match.Addresses { return &r.DstAddress }),
				prop("dst-port", portMatch(), "", "TCP port of the server",
					func(r *socks.Rule) *match.Ports { return &r.DstPort }),
				prop("action", enum[socks.Action](string(socks.Allow), string(socks.Deny)), string(socks.Allow),
					"what happens to a request that matches",
					func(r *socks.Rule) *socks.Action { return &r.Action }),
				disabled(func(r *socks.Rule) *bool { return &r.Disabled }),
				comment(func(r *socks.Rule) *string { return &r.Comment }),
			),
		},
		socksUsersMenu(),
		{
			path: "ip socks connections", help: "connections through the SOCKS server", commands: connectionCommands(),
			rows:    (*execution).connectionRows,
			columns: []column{{"src-address", 26}, {"dst-address", 26}, {"tx", 10}, {"rx", 10}, {"user", 0}}, rare: []string{"user"},
			readOnly: []readOnly{
				{name: "src-address", help: "address and port of the client"},
				{name: "dst-address", help: "address and port of the server"},
				{name: "type", help: "out: to a server; in: from a server; unknown: has just begun"},
				{name: "tx", help: "bytes sent"},
				{name: "rx", help: "bytes received"},
				{name: "age", help: "time since the client connected"},
				{name: "idle", help: "time since anything last moved"},
				{name: "user", help: "user of /ip socks users, by whose password the client came in"},
				{name: "user-id", help: "user that the client says it is, which nobody has checked"},
			},
		},
		fileMenu(),
		{
			path: "log", help: "log of the router", commands: []command{printLogCommand},
			rows: (*execution).logRows,
			readOnly: []readOnly{
				{name: "time", help: "when"},
				{name: "topics", help: "subject and severity"},
				{name: "message", help: "what happened"},
			},
		},
		{path: "tool", help: "tools", commands: []command{tracerouteCommand, pingCommand, torchCommand()},
			needs: func(l Live) bool { return slices.Contains(l.Requests, Traceroute) }},
	}))
})

// password is the kind of a password as it is typed.
func password() kind[string] { return text(0, 64) }

// anyText is whatever a password may have been: it is compared, and no error shows it.
func anyText() kind[string] {
	same := func(s string) string { return s }
	return kind[string]{accepts: "password", parse: func(s string) (string, error) { return s, nil }, format: same, unset: "none"}
}

// CheckPassword returns an error if a user may not choose this password. The error does not
// show the password.
func CheckPassword(new string) error {
	kind := password()
	if _, err := kind.parse(new); err != nil {
		return errors.New("failure: bad new password; expected " + kind.accepts)
	}
	return nil
}

// passwordProperties are a hash, which at returns, and the password that it is made of. without
// is what it means that there is no hash.
func passwordProperties(at func(c *Config, item int) *string, typed kind[string], help, without string) []property {
	kept := hash()
	kept.unset = without
	all := bind(at,
		prop("password-hash", kept, "", "hash of the password, as an export shows it", func(hash *string) *string { return hash }),
		prop("password", typed, "", help, func(typed *string) *string { return typed }),
	)
	all[0].sensitive, all[1].hashed = true, &all[0]
	all[1].get = func(*Config, int) string { return "" }
	all[1].set = func(_ *Config, _ int, value string) error {
		if _, err := typed.parse(value); err != nil { // valueError would show the password
			return errors.New("invalid value for argument password; expected " + typed.accepts)
		}
		return nil
	}
	return all
}

func links(c *Config) *[]Port               { return &c.Links }
func addresses(c *Config) *[]netcfg.Address { return &c.Addresses }
func routes(c *Config) *[]netcfg.Route      { return &c.Routes }
func accessRules(c *Config) *[]socks.Rule   { return &c.Socks.Access }
func socksUsers(c *Config) *[]socks.User    { return &c.Socks.Users }

func disabled[P any](at func(P) *bool) field[P] {
	return prop("disabled", boolean(), "no", "whether the item is kept without effect", at)
}

func comment[P any](at func(P) *string) field[P] {
	return prop("comment", note(), "", "a note for people", at)
}

func filterMenu() *menu {
	m := ruleMenu(firewall.Filter, "packets to accept and to drop, first match decides", filterItems, filterFields())
	m.dynamic = (*execution).openings
	return m
}

// filterFields are the properties of a filter rule, in the order of the manual.
func filterFields() []field[*firewall.Rule] {
	return append(append([]field[*firewall.Rule]{
		prop("chain", chainName("input", "forward", "output"), "",
			"packets to the router, through it, or from it; or a chain of your own, for action=jump",
			func(r *firewall.Rule) *string { return &r.Chain }),
		prop("action", enum[string]("accept", "drop", "reject", "log", "passthrough", "jump", "return", "fasttrack-connection",
			"add-src-to-address-list", "add-dst-to-address-list"), "accept",
			"what happens to a packet that matches; fasttrack-connection only counts it, as passthrough does",
			func(r *firewall.Rule) *string { return &r.Action }),
		jumpTarget(), addedTo(), addedFor(),
	}, matchFields()...),
		connectionNATState(),
		prop("reject-with", optional(enum[string](firewall.RejectAnswers...), firewall.RejectAnswers[0]), "",
			"answer of action=reject",
			func(r *firewall.Rule) *string { return &r.RejectWith }),
		disabled(func(r *firewall.Rule) *bool { return &r.Disabled }),
		comment(func(r *firewall.Rule) *string { return &r.Comment }),
	)
}

// natFields are the properties of a nat rule, in the order of the manual.
func natFields() []field[*firewall.Rule] {
	return append(append([]field[*firewall.Rule]{
		prop("chain", chainName("srcnat", "dstnat"), "",
			"after routing, for source addresses, or before it, for destinations; or a chain of your own, for action=jump",
			func(r *firewall.Rule) *string { return &r.Chain }),
		prop("action", enum[string]("accept", "masquerade", "src-nat", "same", "dst-nat", "redirect", "netmap", "log", "passthrough", "jump", "return",
			"add-src-to-address-list", "add-dst-to-address-list"),
			"accept", "what happens to a connection that matches",
			func(r *firewall.Rule) *string { return &r.Action }),
		jumpTarget(), addedTo(), addedFor(),
		prop("same-not-by-dst", optional(boolean(), "no"), "", "whether action=same takes one new address for a host whomever it talks to",
			func(r *firewall.Rule) *bool { return &r.SameNotByDst }),
		prop("to-addresses", addressRange(), "", "new address of src-nat, same and dst-nat, new network of netmap",
			func(r *firewall.Rule) *match.Addresses { return &r.ToAddresses }),
		prop("to-ports", portRange(), "", "new port of src-nat, dst-nat, redirect and masquerade",
			func(r *firewall.Rule) *match.Ports { return &r.ToPorts }),
	}, matchFields()...),
		disabled(func(r *firewall.Rule) *bool { return &r.Disabled }),
		comment(func(r *firewall.Rule) *string { return &r.Comment }),
	)
}

func jumpTarget() field[*firewall.Rule] {
	k := optional(ruleName("name of a chain of your own"), "none")
	k.offers = valuesOf("", "chain", "a chain of your own")
	return prop("jump-target", k, "", "chain that action=jump goes to",
		func(r *firewall.Rule) *string { return &r.JumpTarget })
}

// chainName is the name of one of the chains that packets enter, or of one of the user's. RouterOS
// has a chain of the user's for any name, and so a shortened name means neither here.
func chainName(builtin ...string) kind[string] {
	k := ruleName(strings.Join(builtin, " | ") + " | name of a chain of your own")
	parse := k.parse
	k.values, k.offers = builtin, valuesOf("", "chain", "a chain of your own")
	k.parse = func(s string) (string, error) {
		if full, err := oneOf(s, builtin...); err == nil && full != s {
			return "", match.Refusal("it could be " + full)
		}
		return parse(s)
	}
	return k
}

// ruleName is the name of a chain or of an address list.
func ruleName(accepts string) kind[string] {
	k := label(1, firewall.MaxName)
	parse := k.parse
	k.accepts = accepts
	k.parse = func(s string) (string, error) {
		if strings.HasPrefix(s, "!") {
			return "", errNoMatch
		}
		return parse(s)
	}
	return k
}

// matchFields are the properties that rules of all tables have in common.
func matchFields() []field[*firewall.Rule] {
	return slices.Concat(ownMatchFields(), markFields(), extraFields())
}

// extraFields are the matchers of firewall.Matchers.
func extraFields() (all []field[*firewall.Rule]) {
	for i, m := range firewall.Matchers {
		all = append(all, prop(m.Name, optional(checked(m.Accepts, m.Check), "any"), "", m.Help, func(r *firewall.Rule) *string { return &r.Extra[i] }))
	}
	return all
}

func ownMatchFields() []field[*firewall.Rule] {
	return []field[*firewall.Rule]{
		prop("src-address", addressMatch(), "", "source address of the packet",
			func(r *firewall.Rule) *match.Addresses { return &r.SrcAddress }),
		prop("dst-address", addressMatch(), "", "destination address of the packet",
			func(r *firewall.Rule) *match.Addresses { return &r.DstAddress }),
		prop("src-address-list", addressListMatch(), "", "list of the source address of the packet",
			func(r *firewall.Rule) *string { return &r.SrcAddressList }),
		prop("dst-address-list", addressListMatch(), "", "list of the destination address of the packet",
			func(r *firewall.Rule) *string { return &r.DstAddressList }),
		prop("src-port", portMatch(), "", "source port; needs protocol=tcp or udp",
			func(r *firewall.Rule) *match.Ports { return &r.SrcPort }),
		prop("dst-port", portMatch(), "", "destination port; needs protocol=tcp or udp",
			func(r *firewall.Rule) *match.Ports { return &r.DstPort }),
		prop("port", portMatch(), "", "source or destination port; needs protocol=tcp or udp",
			func(r *firewall.Rule) *match.Ports { return &r.Port }),
		prop("protocol", protocol(), "", "IP protocol",
			func(r *firewall.Rule) *string { return &r.Protocol }),
		prop("tcp-flags", tcpFlags(), "", "flags that are set, or with ! not set; needs protocol=tcp",
			func(r *firewall.Rule) *string { return &r.TCPFlags }),
		prop("in-interface", portNameMatch(), "", "interface by which the packet came in",
			func(r *firewall.Rule) *string { return &r.InInterface }),
		prop("out-interface", portNameMatch(), "", "interface by which the packet leaves",
			func(r *firewall.Rule) *string { return &r.OutInterface }),
		prop("in-interface-list", listMatch(), "", "list of the interface by which the packet came in",
			func(r *firewall.Rule) *string { return &r.InInterfaceList }),
		prop("out-interface-list", listMatch(), "", "list of the interface by which the packet leaves",
			func(r *firewall.Rule) *string { return &r.OutInterfaceList }),
		prop("connection-state", wordList(match.ConnectionStates...), "",
			"state of the packet's connection",
			func(r *firewall.Rule) *string { return &r.ConnectionState }),
		prop("ipsec-policy", optional(enum[string](firewall.IPsecPolicies...), "any"), "",
			"whether the packet came in or leaves by IPsec: as there is none, ipsec matches nothing",
			func(r *firewall.Rule) *string { return &r.IPsecPolicy }),
		prop("icmp-options", icmpOptions(), "", "ICMP type and code; needs protocol=icmp",
			func(r *firewall.Rule) *string { return &r.ICMPOptions }),
		prop("log", optional(boolean(), "no"), "", "whether each packet that matches is a line of the log",
			func(r *firewall.Rule) *bool { return &r.Log }),
		prop("log-prefix", text(0, 29), "", "beginning of the line of log=yes and action=log",
			func(r *firewall.Rule) *string { return &r.LogPrefix }),
	}
}

func ruleCounters() []readOnly {
	return []readOnly{
		{name: "bytes", help: "bytes that the rule has matched", counted: true},
		{name: "packets", help: "packets that the rule has matched", counted: true},
	}
}

// name is the last word of a menu's path.
func (m *menu) name() string { return m.path[strings.LastIndexByte(m.path, ' ')+1:] }

// parent is the path without its last word.
func (m *menu) parent() string { return m.path[:max(0, strings.LastIndexByte(m.path, ' '))] }

// numbersLive reports whether the rows of m are those that only the system has, and have numbers.
func (m *menu) numbersLive() bool {
	return m.items == nil && !m.allLinks && slices.ContainsFunc(m.commands, func(c command) bool { return c.find })
}

// property returns the property of that exact name.
func (m *menu) property(name string) (property, bool) {
	for _, p := range m.properties {
		if p.name == name {
			return p, true
		}
	}
	return property{}, false
}
