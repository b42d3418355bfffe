package netcfg

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// This file has the VLANs of bridges (IEEE 802.1Q): which ports are in which, and in what order a
// change of that reaches the kernel.
//
// No frame passes from one VLAN to another while a change is under way. Ports leave VLANs and bridges
// before others come in, and a bridge begins to filter before it gets new ports, which are in no VLAN
// at first. So what differs may lose frames for a moment. What stays as it is loses none.

// MaxMemberships is how many times all bridges together can have a port in a VLAN, the bridges
// themselves included. The kernel takes some 300 bytes for each.
const MaxMemberships = 8192

// VLANPort is how a port of a bridge with VLANFiltering treats frames; for the bridge itself, those
// between it and this machine.
type VLANPort struct {
	// PVID is the VLAN of frames that come in without a tag, 1..4094; 0 stands for 1. Unless Admit is
	// AdmitTagged, the frames of this VLAN go out without a tag, if no BridgeVLAN says otherwise.
	PVID int
	// Admit is which frames may come in.
	Admit FrameTypes
	// NoIngressFiltering is kept for RouterOS's files and has no effect: a frame of a VLAN that the port
	// is not in never comes in, as Linux knows nothing else.
	NoIngressFiltering bool
}

// FrameTypes are the frames that may come in by a port, by RouterOS's names.
type FrameTypes string

const (
	AdmitAll    FrameTypes = "" // admit-all
	AdmitTagged FrameTypes = "admit-only-vlan-tagged"
	// AdmitUntagged lets in frames with a tag of the port's own PVID too: Linux makes no difference.
	AdmitUntagged FrameTypes = "admit-only-untagged-and-priority-tagged"
)

// BridgeVLAN says which ports of a bridge are in VLANs. It has no effect on a bridge without
// VLANFiltering, nor for a port that is in another bridge or in none.
type BridgeVLAN struct {
	Bridge string
	IDs    []VLANRange
	// Tagged are the ports by which the frames of these VLANs go out with a tag, Untagged those without.
	// The bridge itself may be among them.
	Tagged, Untagged []string
	Disabled         bool
	Comment          string
}

// VLANRange is the VLANs From..To.
type VLANRange struct{ From, To int }

// VLANMembers are the ports that VLANs of a bridge have in the kernel, and that have a carrier.
type VLANMembers struct {
	Bridge           string
	IDs              VLANRange
	Tagged, Untagged []string
}

// vlanFlags is how a link is in a VLAN of its bridge; 0 is not at all.
type vlanFlags uint16

const (
	vlanMember   vlanFlags = 1 << iota
	vlanPVID               // BRIDGE_VLAN_INFO_PVID (linux/if_bridge.h)
	vlanUntagged           // BRIDGE_VLAN_INFO_UNTAGGED
)

// maxVLAN is the highest ID of a VLAN.
const maxVLAN = 4094

// vlanTable has the flags of each VLAN.
type vlanTable [maxVLAN + 1]vlanFlags

// vlanRun is VLANs in a row with the same flags. Its PVID is a run of its own.
type vlanRun struct {
	VLANRange
	flags vlanFlags
}

// runs are the VLANs of t that are not 0, in order.
func (t *vlanTable) runs() []vlanRun {
	var all []vlanRun
	for id, flags := range t {
		last := len(all) - 1
		switch {
		case flags == 0:
		case last >= 0 && all[last].To == id-1 && all[last].flags == flags && flags&vlanPVID == 0:
			all[last].To = id
		default:
			all = append(all, vlanRun{VLANRange{id, id}, flags})
		}
	}
	return all
}

// table is the inverse of runs. It leaves out what is no VLAN.
func table(runs []vlanRun) *vlanTable {
	t := new(vlanTable)
	for _, r := range runs {
		for id := max(1, r.From); id <= min(r.To, maxVLAN); id++ {
			t[id] = r.flags
		}
	}
	return t
}

// pvid is the VLAN of frames without a tag.
func (v VLANPort) pvid() int {
	if v.PVID == 0 {
		return 1
	}
	return v.PVID
}

// vlansOf are the VLANs that a port of a bridge is in, or the bridge itself. How it treats frames
// without a tag is in v.
func (c Config) vlansOf(bridge, port string, v VLANPort) *vlanTable {
	t := new(vlanTable)
	if port == bridge {
		// As in RouterOS since 7.16, a VLAN on a bridge needs no further word.
		for _, on := range c.VLANs {
			if on.Interface == bridge && !on.Disabled {
				t[on.ID] = vlanMember
			}
		}
	}
	if v.Admit != AdmitTagged {
		t[v.pvid()] = vlanMember | vlanUntagged
	}
	for _, b := range c.BridgeVLANs {
		if b.Bridge != bridge || b.Disabled {
			continue
		}
		flags := vlanFlags(0)
		switch {
		case slices.Contains(b.Tagged, port):
			flags = vlanMember
		case slices.Contains(b.Untagged, port):
			flags = vlanMember | vlanUntagged
		}
		for _, ids := range b.IDs {
			for id := ids.From; id <= ids.To && flags != 0; id++ {
				t[id] = flags
			}
		}
	}
	if v.Admit != AdmitTagged {
		t[v.pvid()] |= vlanPVID
	}
	return t
}

// vlanPorts calls f for each bridge that filters, and for each of its enabled ports.
func (c Config) vlanPorts(f func(bridge, port string, v VLANPort) error) error {
	for _, b := range c.Bridges {
		if !b.VLANFiltering {
			continue
		}
		if err := f(b.Name, b.Name, b.VLANPort); err != nil {
			return err
		}
		for _, p := range c.BridgePorts {
			if p.Bridge == b.Name && !p.Disabled {
				if err := f(b.Name, p.Interface, p.VLANPort); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// wantVLANs sets the VLANs of links.
func (c Config) wantVLANs(links []link) {
	for i := range links {
		links[i].vlans = nil
	}
	// f returns no error.
	_ = c.vlanPorts(func(bridge, port string, v VLANPort) error {
		if i := linkNamed(links, port); i >= 0 {
			links[i].vlans = c.vlansOf(bridge, port, v).runs()
		}
		return nil
	})
}

// validateVLANFiltering checks what bridges that filter need, given what kind of link has each name.
func (c Config) validateVLANFiltering(names map[string]string) error {
	for _, b := range c.Bridges {
		if err := b.VLANPort.validate(); err != nil {
			return fmt.Errorf("bridge %s: %w", b.Name, err)
		}
	}
	for _, p := range c.BridgePorts {
		if err := p.VLANPort.validate(); err != nil {
			return fmt.Errorf("bridge port %s: %w", p.Interface, err)
		}
	}
	if err := c.validateBridgeVLANs(names); err != nil {
		return err
	}
	count := 0
	return c.vlanPorts(func(bridge, port string, v VLANPort) error {
		for id, flags := range c.vlansOf(bridge, port, v) {
			if flags == 0 {
				continue
			}
			if count++; count > MaxMemberships {
				return fmt.Errorf("bridge %s: expected no more than %d times a port in a VLAN, all bridges together", bridge, MaxMemberships)
			}
			if v.Admit == AdmitUntagged && id != v.pvid() && flags&vlanUntagged == 0 {
				return fmt.Errorf("bridge %s: frame-types=%s: expected %s in no VLAN with a tag, it is so in VLAN %d: "+
					"Linux lets the frames of such a VLAN in too", bridge, AdmitUntagged, port, id)
			}
		}
		return nil
	})
}

func (v VLANPort) validate() error {
	if v.PVID < 0 || v.PVID > maxVLAN {
		return fmt.Errorf("pvid=%d: expected 1..%d", v.PVID, maxVLAN)
	}
	switch v.Admit {
	case AdmitAll, AdmitTagged, AdmitUntagged:
		return nil
	}
	return fmt.Errorf("frame-types=%s: expected %s, %s or none", v.Admit, AdmitTagged, AdmitUntagged)
}

func (c Config) validateBridgeVLANs(names map[string]string) error {
	seen := map[string]*vlanTable{} // the VLANs of enabled items, for each bridge
	for i, v := range c.BridgeVLANs {
		if names[v.Bridge] != bridgeKind {
			return fmt.Errorf("bridge vlan %d: bridge=%s: expected a bridge", i, v.Bridge)
		}
		if len(v.IDs) == 0 {
			return fmt.Errorf("bridge vlan %d: expected vlan-ids=", i)
		}
		if seen[v.Bridge] == nil {
			seen[v.Bridge] = new(vlanTable)
		}
		for _, ids := range v.IDs {
			if ids.From < 1 || ids.To > maxVLAN || ids.From > ids.To {
				return fmt.Errorf("bridge vlan %d: vlan-ids=%d-%d: expected 1..%d, the lower first", i, ids.From, ids.To, maxVLAN)
			}
			for id := ids.From; id <= ids.To && !v.Disabled; id++ {
				if seen[v.Bridge][id] != 0 {
					return fmt.Errorf("bridge vlan %d: vlan-ids=%d: expected each VLAN once in a bridge, %s has it already", i, id, v.Bridge)
				}
				seen[v.Bridge][id] = vlanMember
			}
		}
		for _, ports := range []struct {
			name  string
			names []string
		}{{"tagged", v.Tagged}, {"untagged", v.Untagged}} {
			for _, name := range ports.names {
				if kind := names[name]; kind != "port" && kind != vlanKind && name != v.Bridge {
					return fmt.Errorf("bridge vlan %d: %s=%s: expected ports, VLANs or %s itself", i, ports.name, name, v.Bridge)
				}
			}
		}
		for _, name := range v.Tagged {
			if slices.Contains(v.Untagged, name) {
				return fmt.Errorf("bridge vlan %d: untagged=%s: expected what is not among tagged", i, name)
			}
		}
	}
	return nil
}

// readVLANs sets the VLANs of links, which are all in the kernel, if there are bridges of this package.
func readVLANs(nl *conn, links []link) error {
	if !slices.ContainsFunc(links, func(l link) bool { return l.own && l.kind == bridgeKind }) {
		return nil
	}
	tables, err := listVLANs(nl)
	for i, l := range links {
		links[i].vlans = nil
		if t := tables[l.index]; t != nil && (l.own && l.kind == bridgeKind || l.master != "") {
			links[i].vlans = t.runs()
		}
	}
	return err
}

// errNoFiltering is the error of a kernel without CONFIG_BRIDGE_VLAN_FILTERING.
var errNoFiltering = errors.New("the kernel of this machine cannot filter VLANs")

// switchFiltering sets whether bridges filter, of those that there are. Those that begin have their
// VLANs before, and those that end lose them after, so neither has a moment without the right ones.
func (m *Manager) switchFiltering(p *pass, have, want []link) {
	each := func(f func(h, w link)) {
		for _, w := range want {
			if i := linkNamed(have, w.name); i >= 0 && w.own && w.kind == bridgeKind && w.same(have[i]) {
				f(have[i], w)
			}
		}
	}
	set := func(h, w link) {
		word := "off"
		if w.filtering {
			word = "on"
		}
		err := setFiltering(h.index, w.filtering)
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("%w: %w", errNoFiltering, err)
		}
		p.did(fmt.Sprintf("turn VLAN filtering of %s %s", w.name, word), err)
	}
	each(func(h, w link) {
		if h.defaultPVID != 0 {
			p.did("leave new ports of "+w.name+" in no VLAN", setDefaultPVID(h.index, 0))
		}
		if h.filtering && !w.filtering {
			set(h, w)
		}
	})
	m.leaveVLANs(p, have, want)
	each(func(h, w link) {
		if !h.filtering && w.filtering {
			m.joinVLANs(p, have, want, w.name)
			set(h, w)
		}
	})
}

// leaveVLANs takes links out of VLANs. It brings those that stay in one to what it has in common with
// what is wanted: neither PVID nor without a tag, if it is not to be that.
func (m *Manager) leaveVLANs(p *pass, have, want []link) {
	for _, w := range want {
		i := linkNamed(have, w.name)
		if i < 0 || slices.Equal(have[i].vlans, w.vlans) {
			continue
		}
		h := have[i]
		had, wanted := table(h.vlans), table(w.vlans)
		var gone, less vlanTable
		for id := range had {
			switch {
			case wanted[id] == 0:
				gone[id] = had[id] & vlanMember
			case had[id]&^wanted[id] != 0:
				less[id] = had[id] & wanted[id]
			}
		}
		m.changeVLANs(p, h, unix.RTM_DELLINK, gone.runs())
		m.changeVLANs(p, h, unix.RTM_SETLINK, less.runs())
	}
}

// joinVLANs puts links into VLANs: those of a bridge, and that itself, or all if bridge is "".
func (m *Manager) joinVLANs(p *pass, have, want []link, bridge string) {
	for _, w := range want {
		i := linkNamed(have, w.name)
		if i < 0 || bridge != "" && w.name != bridge && (w.master != bridge || have[i].master != bridge) || have[i].master != w.master {
			continue
		}
		if slices.Equal(have[i].vlans, w.vlans) {
			continue // as nearly always: a table takes 8 KB
		}
		had := table(have[i].vlans)
		more := table(w.vlans)
		for id, flags := range more {
			if had[id] == flags {
				more[id] = 0
			}
		}
		m.changeVLANs(p, have[i], unix.RTM_SETLINK, more.runs())
	}
}

// changeVLANs has the kernel change the VLANs of a link, by a message of that type.
func (m *Manager) changeVLANs(p *pass, l link, typ int, runs []vlanRun) {
	if len(runs) == 0 {
		return
	}
	bridge := l.name
	if l.master != "" {
		bridge = l.master
	}
	p.did(fmt.Sprintf("change the VLANs of %s in %s", l.name, bridge), changeVLANs(l.index, l.master == "", typ, runs))
}

// VLANMembers lists the VLANs that bridges with VLANFiltering have now, with their ports in the order
// of the links: consecutive ones together if they have the same. VLANs without a port that has a
// carrier are among them.
func (m *Manager) VLANMembers() ([]VLANMembers, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	nl, own, err := m.look()
	if err != nil {
		return nil, err
	}
	defer nl.Close()
	if err := readVLANs(nl, own); err != nil {
		return nil, err
	}
	return membersOf(own), nil
}

func membersOf(links []link) []VLANMembers {
	var all []VLANMembers
	for _, b := range links {
		if b.kind != bridgeKind || !b.own || !b.filtering {
			continue
		}
		ports := []link{b}
		for _, l := range links {
			if l.master == b.name {
				ports = append(ports, l)
			}
		}
		tables := make([]*vlanTable, len(ports))
		for i, l := range ports {
			tables[i] = table(l.vlans)
		}
		for id := 1; id <= maxVLAN; id++ {
			v := VLANMembers{Bridge: b.name, IDs: VLANRange{id, id}}
			some := false
			for i, t := range tables {
				switch some = some || t[id] != 0; {
				case t[id] == 0 || !ports[i].running:
				case t[id]&vlanUntagged != 0:
					v.Untagged = append(v.Untagged, ports[i].name)
				default:
					v.Tagged = append(v.Tagged, ports[i].name)
				}
			}
			if !some {
				continue
			}
			if last := len(all) - 1; last >= 0 && all[last].Bridge == b.name && all[last].IDs.To == id-1 &&
				slices.Equal(all[last].Tagged, v.Tagged) && slices.Equal(all[last].Untagged, v.Untagged) {
				all[last].IDs.To = id
				continue
			}
			all = append(all, v)
		}
	}
	return all
}
