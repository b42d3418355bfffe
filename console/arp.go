package console

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/netcfg"
)

// This file has the ARP table, and how interfaces use ARP (https://help.mikrotik.com/docs/spaces/ROS/pages/24805439/ARP).

const (
	arpPath   = "ip arp"
	legendARP = "Flags: X - disabled, I - invalid, D - dynamic, H - DHCP, P - published, C - complete"
)

// Who has a lease, or is published, is complete as a rule.
var flagsARP = []string{"XID", "HPC"}

func arpEntries(c *Config) *[]netcfg.StaticNeighbor { return &c.ARP }

var (
	removeARP = command{name: "remove", help: "remove items: the router asks anew for the address of a dynamic one",
		positional: []string{"numbers"}, arguments: []argument{numbersArgument}, run: (*execution).removeARP}
	makeARPStatic = command{name: "make-static", help: "keep dynamic entries as they are", positional: []string{"numbers"},
		arguments: []argument{numbersArgument}, able: func(l Live) bool { return l.Neighbors != nil }, run: (*execution).makeARPStatic}
)

func arpMenu() *menu {
	return &menu{
		path: arpPath, help: "hardware addresses of the neighbours", commands: commandsLike(listCommands, "move", removeARP, makeARPStatic, printConnections),
		needs:  func(l Live) bool { return l.Neighbors != nil },
		legend: legendARP, flags: flagsARP, items: itemLists[arpItems], changesDynamic: true,
		dynamic: (*execution).neighborRows, rows: (*execution).staticNeighborRows, identify: []string{"address", "interface"},
		columns: []column{{"address", 15}, {"mac-address", 17}, {"interface", 0}},
		properties: bindItems(arpEntries,
			prop("address", address(), "", "IP address", func(n *netcfg.StaticNeighbor) *netip.Addr { return &n.Address }),
			prop("mac-address", noMAC(optional(macAddress(), "none, for a published address")), "", "hardware address",
				func(n *netcfg.StaticNeighbor) *ether.MAC { return &n.MAC }),
			prop("interface", linkOf(netcfg.Ether, netcfg.BridgeType, netcfg.VLANType), "", "interface that the neighbour is on",
				func(n *netcfg.StaticNeighbor) *string { return &n.Interface }),
			prop("published", boolean(), "no", "whether the router answers for the address on the interface, and reaches it by another",
				func(n *netcfg.StaticNeighbor) *bool { return &n.Published }),
			disabled(func(n *netcfg.StaticNeighbor) *bool { return &n.Disabled }),
			comment(func(n *netcfg.StaticNeighbor) *string { return &n.Comment }),
		),
	}
}

// noMAC is a kind of hardware address that exports write as zeros if there is none.
func noMAC(k kind[ether.MAC]) kind[ether.MAC] {
	parse := k.parse
	k.parse = func(s string) (ether.MAC, error) {
		if s == "00:00:00:00:00:00" {
			return ether.MAC{}, nil
		}
		return parse(s)
	}
	return k
}

// arpMode is the property of an interface.
func arpMode[P any](at func(P) *string) field[P] {
	const usual = "enabled"
	k := enum[string](append([]string{usual}, netcfg.ARPModes...)...)
	parse := k.parse
	k.parse = func(s string) (string, error) {
		mode, err := parse(s)
		if mode == usual {
			mode = ""
		}
		return mode, err
	}
	k.format = func(mode string) string {
		if mode == "" {
			return usual
		}
		return mode
	}
	return prop("arp", k, usual, "whom the router asks for hardware addresses, and answers; reply-only: those of /ip arp alone; "+
		"proxy-arp: also for hosts behind its other interfaces; local-proxy-arp: also for hosts of the same interface", at)
}

// staticNeighborRows are the entries that stay.
func (x *execution) staticNeighborRows() ([]row, error) {
	rows := x.configured(x.menu(arpPath))
	for i := range rows {
		r, n := &rows[i], x.cfg.ARP[i]
		if n.Published {
			r.flags |= flagPublished
		}
		if n.MAC != (ether.MAC{}) {
			r.flags |= flagComplete
		}
		r.pairs = slices.DeleteFunc(r.pairs, func(p Pair) bool { return p.Name == "published" }) // a flag tells it
	}
	return rows, nil
}

// neighborRows are the entries that come and go, and those of the DHCP server.
func (x *execution) neighborRows() ([]row, error) {
	if x.live.Neighbors == nil {
		return nil, nil
	}
	if !x.neighborsAsked {
		neighbors, err := x.live.Neighbors()
		if err != nil {
			return nil, fmt.Errorf("list neighbours: %w", err)
		}
		x.neighborsAsked, x.neighbors = true, neighbors
	}
	seen := map[ID]int{}
	var rows []row
	for _, n := range x.neighbors {
		if x.isStatic(n) || slices.Contains(x.result.Action.ForgetNeighbors, n) {
			continue
		}
		r := row{flags: flagDynamic, pairs: []Pair{addressPair("address", n.Address)}}
		if mac := macText(n.MAC); mac != "" {
			r.flags |= flagComplete
			r.pairs = append(r.pairs, textPair("mac-address", mac))
		}
		if n.Stays {
			r.flags |= flagDHCP
		}
		r.pairs = append(r.pairs, textPair("interface", x.cfg.Called(n.Interface)))
		r.id = liveID(x.menu(arpPath), r, seen)
		r.key = key{id: r.id}
		rows = append(rows, r)
	}
	return rows, nil
}

// isStatic reports whether an entry of the table is one of the configuration.
func (x *execution) isStatic(n Neighbor) bool {
	network := netcfg.Config{BridgePorts: x.cfg.BridgePorts}
	return slices.ContainsFunc(x.cfg.ARP, func(s netcfg.StaticNeighbor) bool {
		return !s.Disabled && s.MAC != (ether.MAC{}) && s.Address == n.Address && network.Actual(s.Interface) == n.Interface
	})
}

// chosenNeighbors are the dynamic entries and the indices of the static ones that an argument refers to.
func (x *execution) chosenNeighbors(m *menu, a arguments) (dynamic []Neighbor, static []int, err error) {
	rows, static, err := x.chosenOf(m, a, x.neighborRows)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range rows {
		for _, n := range x.neighbors {
			if n.Address.String() == r.value("address") && x.cfg.Called(n.Interface) == r.value("interface") {
				dynamic = append(dynamic, n)
			}
		}
	}
	return dynamic, static, nil
}

func (x *execution) removeARP(m *menu, a arguments) error {
	dynamic, static, err := x.chosenNeighbors(m, a)
	if err != nil {
		return err
	}
	x.removeItems(m, static)
	for _, n := range dynamic {
		if n.Stays {
			return errors.New("failure: " + n.Address.String() + " is there by add-arp of a DHCP server, for as long as the lease")
		}
		x.result.Action.ForgetNeighbors = append(x.result.Action.ForgetNeighbors, n)
	}
	return nil
}

// makeARPStatic keeps entries. What is static already stays as it is.
func (x *execution) makeARPStatic(m *menu, a arguments) error {
	dynamic, _, err := x.chosenNeighbors(m, a)
	if err != nil {
		return err
	}
	for _, n := range dynamic {
		if n.MAC == (ether.MAC{}) {
			return errors.New("failure: the hardware address of " + n.Address.String() + " is not known; expected an entry with the flag C")
		}
		i, err := x.append(m)
		if err != nil {
			return err
		}
		x.cfg.ARP[i].Address, x.cfg.ARP[i].MAC, x.cfg.ARP[i].Interface = n.Address, n.MAC, n.Interface
	}
	return x.checkCount(m)
}
