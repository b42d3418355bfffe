package console

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-router/postern/netcfg"
)

// This file has the VLANs of bridges (https://help.mikrotik.com/docs/spaces/ROS/pages/328068/Bridging+and+Switching).

func bridgeVLANs(c *Config) *[]netcfg.BridgeVLAN { return &c.BridgeVLANs }

func cloneBridgeVLAN(v *netcfg.BridgeVLAN) {
	v.IDs, v.Tagged, v.Untagged = slices.Clone(v.IDs), slices.Clone(v.Tagged), slices.Clone(v.Untagged)
}

const bridgeVLANPath = "interface bridge vlan"

func bridgeVLANMenu() *menu {
	return &menu{
		path: bridgeVLANPath, help: "which ports of bridges with vlan-filtering=yes are in which VLANs",
		commands: commandsLike(listCommands, "move"), legend: "Flags: X - disabled, D - dynamic", flags: []string{"XD"},
		items: itemLists[bridgeVLANItems],
		rows:  (*execution).bridgeVLANRows, dynamic: (*execution).dynamicBridgeVLANs, identify: []string{"bridge", "vlan-ids"},
		columns: []column{{"bridge", 16}, {"vlan-ids", 14}, {"current-tagged", 22}, {"current-untagged", 0}},
		readOnly: []readOnly{
			{name: "current-tagged", help: "ports with a carrier by which its frames go out with a tag, as it is now"},
			{name: "current-untagged", help: "ports with a carrier by which its frames go out without a tag, as it is now"},
		},
		properties: bindItems(bridgeVLANs,
			prop("bridge", linkOf(netcfg.BridgeType), "", "bridge that it is about", func(v *netcfg.BridgeVLAN) *string { return &v.Bridge }),
			prop("vlan-ids", vlanRanges(), "", "tags of the VLANs", func(v *netcfg.BridgeVLAN) *[]netcfg.VLANRange { return &v.IDs }),
			prop("tagged", bridgePortNames(), "", "ports, and the bridge itself, by which its frames go out with a tag",
				func(v *netcfg.BridgeVLAN) *[]string { return &v.Tagged }),
			prop("untagged", bridgePortNames(), "", "ports, and the bridge itself, by which its frames go out without a tag",
				func(v *netcfg.BridgeVLAN) *[]string { return &v.Untagged }),
			disabled(func(v *netcfg.BridgeVLAN) *bool { return &v.Disabled }),
			comment(func(v *netcfg.BridgeVLAN) *string { return &v.Comment }),
		),
	}
}

// vlanPortFields are the properties that a bridge with VLAN filtering and its ports have in common.
func vlanPortFields[P any](of func(P) *netcfg.VLANPort) []field[P] {
	return []field[P]{
		prop("pvid", portVLAN(), "1", "with vlan-filtering=yes: VLAN of frames that come in without a tag", func(p P) *int { return &of(p).PVID }),
		prop("frame-types", frameTypes(), "admit-all", "with vlan-filtering=yes: frames that may come in", func(p P) *netcfg.FrameTypes { return &of(p).Admit }),
		prop("ingress-filtering", inverse(boolean()), "yes",
			"whether only frames of VLANs that the port is in come in; no has no effect, as there is no other way",
			func(p P) *bool { return &of(p).NoIngressFiltering }),
	}
}

// portVLAN is the ID of a VLAN, of which 1 is the zero value.
func portVLAN() kind[int] {
	k := integer(1, 4094)
	parse := k.parse
	k.parse = func(s string) (int, error) {
		id, err := parse(s)
		if id == 1 {
			id = 0
		}
		return id, err
	}
	k.format = func(id int) string { return strconv.Itoa(max(1, id)) }
	return k
}

// frameTypes is the kind of the frames that may come in by a port.
func frameTypes() kind[netcfg.FrameTypes] {
	const all = "admit-all"
	k := enum[netcfg.FrameTypes](all, string(netcfg.AdmitUntagged), string(netcfg.AdmitTagged))
	parse := k.parse
	k.parse = func(s string) (netcfg.FrameTypes, error) {
		v, err := parse(s)
		if v == all {
			v = netcfg.AdmitAll
		}
		return v, err
	}
	k.format = func(v netcfg.FrameTypes) string {
		if v == netcfg.AdmitAll {
			return all
		}
		return string(v)
	}
	return k
}

// vlanRanges is the kind of IDs of VLANs and ranges of them.
func vlanRanges() kind[[]netcfg.VLANRange] {
	id := integer(1, 4094)
	k := listOf(kind[netcfg.VLANRange]{
		accepts: "1..4094 or a range (10-20)",
		parse: func(s string) (r netcfg.VLANRange, err error) {
			from, to, isRange := strings.Cut(s, "-")
			if !isRange {
				to = from
			}
			first, err1 := id.parse(from)
			last, err2 := id.parse(to)
			if err := errors.Join(err1, err2); err != nil || first > last {
				return r, errNoMatch
			}
			return netcfg.VLANRange{From: first, To: last}, nil
		},
		format: rangeText,
	}, 128)
	k.unset = ""
	parse := k.parse
	k.parse = func(s string) ([]netcfg.VLANRange, error) {
		if s == "" {
			return nil, errNoMatch
		}
		return parse(s)
	}
	return k
}

func rangeText(r netcfg.VLANRange) string {
	if r.From == r.To {
		return strconv.Itoa(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// bridgePortNames is the kind of a list of ports of a bridge, and perhaps the bridge.
func bridgePortNames() kind[[]string] {
	one := linkOf(netcfg.Ether, netcfg.VLANType, netcfg.BridgeType)
	k := listOf(one, 64)
	k.isInterface, k.links = one.isInterface, one.links
	return k
}

// vlanMembers are the VLANs that bridges have now, with users' names for the ports.
func (x *execution) vlanMembers() ([]netcfg.VLANMembers, error) {
	if x.live.VLANMembers == nil {
		return nil, nil
	}
	all, err := x.live.VLANMembers()
	if err != nil {
		return nil, fmt.Errorf("list the VLANs of bridges: %w", err)
	}
	for _, v := range all {
		for _, names := range [][]string{v.Tagged, v.Untagged} {
			for i := range names {
				names[i] = x.cfg.Called(names[i])
			}
		}
	}
	return all, nil
}

// bridgeVLANRows are the items of the menu, with the ports that they have now.
func (x *execution) bridgeVLANRows() ([]row, error) {
	members, err := x.vlanMembers()
	if err != nil {
		return nil, err
	}
	rows := x.configured(x.menu(bridgeVLANPath))
	for i := range rows {
		item := x.cfg.BridgeVLANs[i]
		if item.Disabled {
			continue
		}
		var now netcfg.VLANMembers
		for _, v := range members {
			overlaps := func(r netcfg.VLANRange) bool { return r.From <= v.IDs.To && v.IDs.From <= r.To }
			if v.Bridge == item.Bridge && slices.ContainsFunc(item.IDs, overlaps) {
				now.Tagged, now.Untagged = union(now.Tagged, v.Tagged), union(now.Untagged, v.Untagged)
			}
		}
		rows[i].pairs = append(rows[i].pairs, memberPairs(now)...)
	}
	return rows, nil
}

// union returns a with what of b it has not.
func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

func memberPairs(v netcfg.VLANMembers) (pairs []Pair) {
	for _, list := range []struct {
		name  string
		ports []string
	}{{"current-tagged", v.Tagged}, {"current-untagged", v.Untagged}} {
		pairs = append(pairs, Pair{list.name, Value{Type: List, text: strings.Join(list.ports, ",")}})
	}
	return pairs
}

// dynamicBridgeVLANs are the VLANs that bridges have by a pvid or a VLAN on them alone.
func (x *execution) dynamicBridgeVLANs() ([]row, error) {
	members, err := x.vlanMembers()
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, v := range members {
		set := func(id int) bool {
			return slices.ContainsFunc(x.cfg.BridgeVLANs, func(item netcfg.BridgeVLAN) bool {
				return item.Bridge == v.Bridge && !item.Disabled &&
					slices.ContainsFunc(item.IDs, func(r netcfg.VLANRange) bool { return r.From <= id && id <= r.To })
			})
		}
		for id := v.IDs.From; id <= v.IDs.To; id++ {
			if set(id) {
				continue
			}
			// In RouterOS's words.
			why := "added by pvid"
			if x.cfg.hasVLANOn(v.Bridge, id) && len(v.Untagged) == 0 {
				why = "added by vlan on bridge"
			}
			rows = append(rows, row{comment: why, pairs: append([]Pair{textPair("bridge", v.Bridge), textPair("vlan-ids", strconv.Itoa(id))}, memberPairs(v)...)})
		}
	}
	return rows, nil
}

// hasVLANOn reports whether a bridge has an enabled VLAN of that tag on it.
func (cfg Config) hasVLANOn(bridge string, id int) bool {
	return slices.ContainsFunc(cfg.VLANs, func(v netcfg.VLAN) bool { return v.Interface == bridge && v.ID == id && !v.Disabled })
}

// ingressWarning is printed while somebody may believe that ingress-filtering=no has an effect.
func (x *execution) ingressWarning() []string {
	for _, b := range x.cfg.Bridges {
		if !b.VLANFiltering {
			continue
		}
		loose := func(p netcfg.BridgePort) bool { return p.Bridge == b.Name && p.NoIngressFiltering }
		if b.NoIngressFiltering || slices.ContainsFunc(x.cfg.BridgePorts, loose) {
			return []string{"ingress-filtering=no has no effect: a frame of a VLAN that its port is not in never comes in"}
		}
	}
	return nil
}
