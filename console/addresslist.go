package console

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
)

// ListedAddress is an entry of an address list (/ip firewall address-list), for rules of the
// firewall.
type ListedAddress struct {
	List    string
	Address match.Addresses
	// Until is when it ends; zero for never. One that ends is dynamic: it is not exported, and so not kept.
	Until    time.Time
	Disabled bool
	Comment  string
}

func addressLists(c *Config) *[]ListedAddress { return &c.AddressLists }

var removeListed = command{name: "remove", help: "remove items, and addresses that rules have added",
	positional: []string{"numbers"}, arguments: []argument{numbersArgument}, run: (*execution).removeListed}

func addressListMenu() *menu {
	return &menu{
		path: "ip firewall address-list", help: "lists of addresses, for rules of the firewall",
		commands: commandsLike(listCommands, "", removeListed), legend: "Flags: X - disabled, D - dynamic", flags: []string{"XD"},
		items:     itemLists[addressListItems],
		columns:   []column{{"list", 16}, {"address", 18}, {"timeout", 0}},
		temporary: func(c *Config, i int) bool { return !c.AddressLists[i].Until.IsZero() },
		dynamic:   (*execution).filledRows, changesDynamic: true, identify: []string{"list", "address"}, warnings: (*execution).filledWarnings,
		properties: bindItems(addressLists,
			prop("address", listedAddress(), "", "address, network or range", func(a *ListedAddress) *match.Addresses { return &a.Address }),
			prop("list", listName(), "", "list that it belongs to", func(a *ListedAddress) *string { return &a.List }),
			prop("timeout", remaining(), "", "time after which it goes: it is not exported, nor kept over a restart",
				func(a *ListedAddress) *time.Time { return &a.Until }),
			disabled(func(a *ListedAddress) *bool { return &a.Disabled }),
			comment(func(a *ListedAddress) *string { return &a.Comment }),
		),
	}
}

// remaining is a time of this machine's monotonic clock, written as how far away it is.
func remaining() kind[time.Time] {
	k := duration(time.Second, firewall.MaxListTimeout)
	return kind[time.Time]{
		typ: k.typ, accepts: k.accepts, unset: "for ever",
		parse: func(s string) (time.Time, error) {
			d, err := k.parse(s)
			if err != nil {
				return time.Time{}, err
			}
			return time.Now().Add(d), nil
		},
		format: func(t time.Time) string {
			if t.IsZero() {
				return ""
			}
			return k.format(max(time.Until(t).Round(time.Second), time.Second))
		},
	}
}

// ExpireAddresses returns the configuration without entries of address lists that have ended at a time, and when the next
// one ends; zero for never.
func (cfg Config) ExpireAddresses(now time.Time) (left Config, next time.Time) {
	left = cfg
	ends := false
	for i := range cfg.AddressLists {
		if until := cfg.AddressLists[i].Until; !until.IsZero() {
			if ends = ends || !until.After(now); next.IsZero() || until.Before(next) {
				next = until
			}
		}
	}
	if !ends {
		return left, next
	}
	next = time.Time{}
	left.AddressLists, left.ids[addressListItems] = nil, nil
	ids := cfg.ids[addressListItems] // of a configuration that no line has changed there are none
	for i, a := range cfg.AddressLists {
		if !a.Until.IsZero() && !a.Until.After(now) {
			continue
		}
		if !a.Until.IsZero() && (next.IsZero() || a.Until.Before(next)) {
			next = a.Until
		}
		left.AddressLists = append(left.AddressLists, a)
		if i < len(ids) {
			left.ids[addressListItems] = append(left.ids[addressListItems], ids[i])
		}
	}
	return left, next
}

// maxFilled is how many addresses that rules have added are shown.
const maxFilled = 1000

// filledRows are the addresses that rules have added, without those that this line removes.
func (x *execution) filledRows() ([]row, error) {
	if x.live.Filled == nil {
		return nil, nil
	}
	filled, more, err := x.live.Filled(maxFilled)
	if err != nil {
		return nil, err
	}
	x.leftOut = more
	seen := map[ID]int{}
	var rows []row
	for _, f := range filled {
		if slices.ContainsFunc(x.result.Action.RemoveFilled, func(r firewall.Filled) bool { return r.List == f.List && r.Address == f.Address }) {
			continue
		}
		r := row{flags: flagDynamic, pairs: []Pair{addressPair("address", f.Address), textPair("list", f.List)}}
		if f.Left > 0 {
			r.pairs = append(r.pairs, durationPair("timeout", f.Left))
		}
		r.id = liveID(x.menu("ip firewall address-list"), r, seen)
		r.key = key{id: r.id}
		rows = append(rows, r)
	}
	return rows, nil
}

// filledWarnings says that not all addresses are shown.
func (x *execution) filledWarnings() []string {
	if x.leftOut == 0 {
		return nil
	}
	return []string{strconv.Itoa(x.leftOut) + " more addresses that rules have added are left out"}
}

func (x *execution) removeListed(m *menu, a arguments) error {
	keys, err := x.chosen(m, a.items["numbers"])
	if err != nil {
		return err
	}
	rows, err := x.filledRows()
	if err != nil {
		return err
	}
	for _, k := range keys {
		if i := slices.Index(*m.items.ids(&x.cfg), k.id); i >= 0 {
			m.items.remove(&x.cfg, i)
		} else if i := slices.IndexFunc(rows, func(r row) bool { return r.key == k }); i >= 0 {
			address, err := netip.ParseAddr(rows[i].value("address"))
			if err != nil {
				return err
			}
			x.result.Action.RemoveFilled = append(x.result.Action.RemoveFilled, firewall.Filled{List: rows[i].value("list"), Address: address})
		}
	}
	return nil
}

// listedAddress is an address, a network or a range.
func listedAddress() kind[match.Addresses] {
	k := addressRange()
	k.unset = ""
	k.parse = func(s string) (match.Addresses, error) {
		a, err := match.ParseAddresses(s)
		switch {
		case err != nil && strings.ContainsFunc(s, unicode.IsLetter):
			err = match.Refusal("no name is looked up for a list")
		case a.Not:
			err = match.Refusal(`"!" is not possible here`)
		case err == nil && a.Any():
			err = match.Refusal("an entry needs an address")
		}
		return a, err
	}
	return k
}

// listName is the name of an address list.
func listName() kind[string] {
	k := ruleName("name of the list: 1..64 bytes")
	k.offers = valuesOf("", "list", "an address list")
	return k
}

// addressListMatch is the name of an address list, perhaps after "!". There need not be such a list.
func addressListMatch() kind[string] {
	k := optional(negatable(ruleName("name of an address list")), "any")
	k.offers = valuesOf("ip firewall address-list", "list", "an address list")
	return k
}

// addedTo is the list that a rule adds to.
func addedTo() field[*firewall.Rule] {
	k := optional(ruleName("name of an address list"), "none")
	k.offers = valuesOf("ip firewall address-list", "list", "an address list")
	return prop("address-list", k, "", "list that action=add-src-to-address-list and add-dst-to-address-list add to",
		func(r *firewall.Rule) *string { return &r.AddressList })
}

// addedFor is for how long.
func addedFor() field[*firewall.Rule] {
	const always = "none-dynamic"
	k := duration(time.Second, firewall.MaxListTimeout)
	k.unset = always
	parse, format := k.parse, k.format
	k.accepts = always + " | " + k.accepts
	k.parse = func(s string) (time.Duration, error) {
		switch s {
		case always, "0s", "00:00:00":
			return 0, nil
		case "none-static":
			return 0, match.Refusal("what packets cause is not kept over a restart")
		}
		return parse(s)
	}
	k.format = func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return format(d)
	}
	return prop("address-list-timeout", k, "", "how long it stays there after the last packet; none-dynamic is until a restart",
		func(r *firewall.Rule) *time.Duration { return &r.AddressListTimeout })
}

// listedAddresses are the addresses of each list, and those that end.
func (cfg Config) listedAddresses() (lists map[string][]match.Addresses, temporary map[string][]firewall.Temporary) {
	lists, temporary = map[string][]match.Addresses{}, map[string][]firewall.Temporary{}
	count := map[string]int{}
	for _, a := range cfg.AddressLists {
		if !a.Disabled && a.Until.IsZero() {
			count[a.List]++
		}
	}
	for name, n := range count {
		lists[name] = make([]match.Addresses, 0, n)
	}
	for _, a := range cfg.AddressLists {
		switch {
		case a.Disabled:
		case a.Until.IsZero():
			lists[a.List] = append(lists[a.List], a.Address)
		default:
			temporary[a.List] = append(temporary[a.List], firewall.Temporary{Addresses: a.Address, Until: a.Until})
		}
	}
	return lists, temporary
}

// valuesOf offers the values that items of a menu have for a property, each once. path "" is the menu
// of the property that offers them.
func valuesOf(path, name, help string) func(*execution, *menu) []Choice {
	return func(x *execution, m *menu) []Choice {
		if path != "" {
			m = x.menu(path)
		}
		p, _ := m.property(name)
		var all []Choice
		for i := range m.items.count(&x.cfg) {
			value := p.get(&x.cfg, i)
			if !slices.Contains(p.values, value) && !slices.ContainsFunc(all, func(c Choice) bool { return c.Name == value }) {
				all = append(all, Choice{value, help})
			}
		}
		return all
	}
}
