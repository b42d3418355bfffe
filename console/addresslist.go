package console

import (
	"slices"
	"strings"
	"unicode"

	"github.com/postern-router/postern/match"
)

// ListedAddress is an entry of an address list (/ip firewall address-list), for rules of the
// firewall.
type ListedAddress struct {
	List     string
	Address  match.Addresses
	Disabled bool
	Comment  string
}

func addressLists(c *Config) *[]ListedAddress { return &c.AddressLists }

func addressListMenu() *menu {
	return &menu{
		path: "ip firewall address-list", help: "lists of addresses, for rules of the firewall",
		commands: listCommands, legend: legendItem, flags: flagsItem,
		items:   itemLists[addressListItems],
		columns: []column{{"list", 16}, {"address", 0}},
		properties: bindItems(addressLists,
			prop("address", listedAddress(), "", "address, network or range", func(a *ListedAddress) *match.Addresses { return &a.Address }),
			prop("list", listName(), "", "list that it belongs to", func(a *ListedAddress) *string { return &a.List }),
			disabled(func(a *ListedAddress) *bool { return &a.Disabled }),
			comment(func(a *ListedAddress) *string { return &a.Comment }),
		),
	}
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

// listedAddresses are the addresses of each list.
func (cfg Config) listedAddresses() map[string][]match.Addresses {
	lists := map[string][]match.Addresses{}
	for _, a := range cfg.AddressLists {
		if !a.Disabled {
			lists[a.List] = append(lists[a.List], a.Address)
		}
	}
	return lists
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
