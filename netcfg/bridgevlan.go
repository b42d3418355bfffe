package netcfg

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
)

// Kinds of links that this package makes, by the kernel's names.
const (
	bridgeKind = "bridge"
	vlanKind   = "vlan"
	pppKind    = "ppp"
)

// validateBridgesAndVLANs checks bridges, their ports and VLANs.
func (c Config) validateBridgesAndVLANs(ports []Port) error {
	names := map[string]string{} // of what kind
	for _, p := range ports {
		names[p.Name] = "port"
	}
	take := func(name, kind string) error {
		if err := checkName(name); err != nil {
			return fmt.Errorf("%s: name=%q: %w", kind, name, err)
		}
		if other, taken := names[name]; taken {
			return fmt.Errorf("%s: name=%s: expected a name of its own, a %s has this one", kind, name, other)
		}
		names[name] = kind
		return nil
	}
	for _, b := range c.Bridges {
		if err := take(b.Name, bridgeKind); err != nil {
			return err
		}
		if err := checkMTU(b.MTU, "the smallest of its ports'"); err != nil {
			return fmt.Errorf("bridge %s: mtu=%d: %w", b.Name, b.MTU, err)
		}
		if b.MAC[0]&1 != 0 {
			return fmt.Errorf("bridge %s: admin-mac=%s: expected the address of one host, not of a group", b.Name, b.MAC)
		}
		if b.OwnMAC && b.MAC == (ether.MAC{}) {
			return fmt.Errorf("bridge %s: auto-mac=no: expected admin-mac=", b.Name)
		}
	}
	for _, v := range c.VLANs {
		if err := take(v.Name, vlanKind); err != nil {
			return err
		}
	}
	for _, p := range c.PPPs {
		if err := take(p.Name, pppKind); err != nil {
			return err
		}
	}
	if err := c.validateBridgePorts(names); err != nil {
		return err
	}
	if err := c.validateVLANFiltering(names); err != nil {
		return err
	}
	return c.validateVLANs(names)
}

func (c Config) validateBridgePorts(names map[string]string) error {
	bridgeOf := map[string]string{} // of enabled ports
	for _, p := range c.BridgePorts {
		if names[p.Bridge] != bridgeKind {
			return fmt.Errorf("bridge port %s: bridge=%s: expected a bridge", p.Interface, p.Bridge)
		}
		if kind := names[p.Interface]; kind != "port" && kind != vlanKind {
			return fmt.Errorf("bridge port: interface=%s: expected a port or a VLAN", p.Interface)
		}
		if p.Disabled {
			continue
		}
		if other, taken := bridgeOf[p.Interface]; taken {
			return fmt.Errorf("bridge port: interface=%s: expected each interface once, it is a port of %s already", p.Interface, other)
		}
		bridgeOf[p.Interface] = p.Bridge
	}
	// Walk from each bridge to the bridges that its ports are VLANs of, and on from there.
	// A way back to the start is a loop. There are no more steps than bridges.
	for _, b := range c.Bridges {
		reached := []string{b.Name}
		for i := 0; i < len(reached); i++ {
			for _, v := range c.VLANs {
				if v.Disabled || bridgeOf[v.Name] != reached[i] || names[v.Interface] != bridgeKind {
					continue
				}
				if v.Interface == b.Name {
					return fmt.Errorf("bridge port: interface=%s: this VLAN of %s would make a loop", v.Name, b.Name)
				}
				if !slices.Contains(reached, v.Interface) {
					reached = append(reached, v.Interface)
				}
			}
		}
	}
	return nil
}

func (c Config) validateVLANs(names map[string]string) error {
	type tag struct {
		link string
		id   int
	}
	seen := map[tag]string{}
	for _, v := range c.VLANs {
		if kind := names[v.Interface]; kind != "port" && kind != bridgeKind {
			return fmt.Errorf("VLAN %s: interface=%s: expected a port or a bridge", v.Name, v.Interface)
		}
		if v.ID < 1 || v.ID > 4094 {
			return fmt.Errorf("VLAN %s: vlan-id=%d: expected 1..4094", v.Name, v.ID)
		}
		if err := checkMTU(v.MTU, "that of its interface"); err != nil {
			return fmt.Errorf("VLAN %s: mtu=%d: %w", v.Name, v.MTU, err)
		}
		if limit := c.mtuOf(v.Interface); limit != 0 && v.MTU > limit {
			return fmt.Errorf("VLAN %s: mtu=%d: expected no more than %d, the MTU of %s", v.Name, v.MTU, limit, v.Interface)
		}
		if v.Disabled {
			continue
		}
		if bridge := c.Actual(v.Interface); bridge != v.Interface {
			return fmt.Errorf("VLAN %s: interface=%s: expected no port of a bridge, it is one of %s", v.Name, v.Interface, bridge)
		}
		t := tag{v.Interface, v.ID}
		if other, taken := seen[t]; taken {
			return fmt.Errorf("VLAN %s: vlan-id=%d: expected each once on %s, %s has this one", v.Name, v.ID, v.Interface, other)
		}
		seen[t] = v.Name
	}
	return nil
}

// mtuOf returns the MTU that is set for a port or a bridge, or 0 if none is set.
func (c Config) mtuOf(name string) int {
	for _, l := range c.Links {
		if l.Name == name {
			return l.MTU
		}
	}
	for _, b := range c.Bridges {
		if b.Name == name {
			return b.MTU
		}
	}
	return 0
}

// interfaces returns the names of everything that can have an address.
func (c Config) interfaces(ports []Port) []string {
	var names []string
	for _, p := range ports {
		names = append(names, p.Name)
	}
	for _, b := range c.Bridges {
		names = append(names, b.Name)
	}
	for _, v := range c.VLANs {
		names = append(names, v.Name)
	}
	for _, p := range c.PPPs {
		names = append(names, p.Name)
	}
	return names
}

// Actual returns the name of the link that has the addresses of an interface. For the port
// of a bridge, which gets no IP packets itself, that is the bridge.
func (c Config) Actual(name string) string {
	for _, p := range c.BridgePorts {
		if p.Interface == name && !p.Disabled {
			return p.Bridge
		}
	}
	return name
}

// wantBridgesAndVLANs adds to the links of ports the bridges and the VLANs that c asks for,
// and sets which bridge each of them is a port of.
func (c Config) wantBridgesAndVLANs(links []link) []link {
	for _, b := range c.Bridges {
		l := link{name: b.Name, kind: bridgeKind, own: true, up: !b.Disabled, mtu: b.MTU, stp: b.STP, filtering: b.VLANFiltering, arp: b.ARP}
		if b.OwnMAC {
			l.mac = b.MAC
		}
		links = append(links, l)
	}
	for _, v := range c.VLANs {
		i := linkNamed(links, v.Interface)
		if v.Disabled || i < 0 { // without its port the VLAN waits
			continue
		}
		// The kernel refuses to set a VLAN up while its link is down.
		links = append(links, link{name: v.Name, kind: vlanKind, own: true, up: links[i].up, mtu: v.MTU, parent: v.Interface, vlanID: v.ID, arp: v.ARP})
	}
	for i := range links {
		links[i].master = ""
		if bridge := c.Actual(links[i].name); bridge != links[i].name {
			links[i].master = bridge
		}
	}
	for i := range links {
		resolveMTU(links, i)
		resolveMAC(links, i)
	}
	c.wantVLANs(links)
	return links
}

// resolveMAC gives a bridge without a hardware address the lowest of its ports', and a VLAN that of
// the link that it is on. It stays zero if there is none. The kernel does the same until a bridge
// has been given an address, and not from then on (br_stp_recalculate_bridge_id).
func resolveMAC(links []link, i int) ether.MAC {
	l := &links[i]
	switch {
	case l.mac != ether.MAC{}:
	case l.kind == vlanKind:
		return resolveMAC(links, linkNamed(links, l.parent))
	case l.kind == bridgeKind:
		for j, port := range links {
			if port.master != l.name {
				continue
			}
			if mac := resolveMAC(links, j); mac != (ether.MAC{}) && (l.mac == ether.MAC{} || bytes.Compare(mac[:], l.mac[:]) < 0) {
				l.mac = mac
			}
		}
	}
	return l.mac
}

// resolveMTU gives a bridge or VLAN without an MTU the one that follows from the links that
// it is on. There are no loops: see validateBridgePorts.
func resolveMTU(links []link, i int) int {
	l := &links[i]
	if l.mtu != 0 {
		return l.mtu
	}
	if l.kind == vlanKind {
		l.mtu = resolveMTU(links, linkNamed(links, l.parent))
		return l.mtu
	}
	smallest := 0
	for j, port := range links {
		if port.master != l.name {
			continue
		}
		if mtu := resolveMTU(links, j); smallest == 0 || mtu < smallest {
			smallest = mtu
		}
	}
	if smallest == 0 {
		smallest = 1500
	}
	l.mtu = smallest
	return l.mtu
}

func linkNamed(links []link, name string) int {
	return slices.IndexFunc(links, func(l link) bool { return l.name == name })
}

// same reports whether h is the link that w asks for, even if some properties must be
// changed. The parent and the ID of a VLAN cannot be changed.
func (w link) same(h link) bool {
	return w.name == h.name && w.kind == h.kind && w.own == h.own && w.parent == h.parent && w.vlanID == h.vlanID
}

// reconcileLinks brings the links to what is wanted. First it deletes those that are not
// wanted, VLANs before the bridges that they may be on. Then it makes the new ones but PPPs, in the
// other order, puts each into its bridge and its VLANs, in the order that vlanfilter.go explains, and
// sets the properties: those of VLANs last, since the links that they are on bound them.
func (m *Manager) reconcileLinks(nl *conn, p *pass, have, want []link) {
	done := len(p.changes)
	for _, kind := range []string{vlanKind, bridgeKind, pppKind} {
		for _, h := range have {
			if !h.own || h.kind != kind || slices.ContainsFunc(want, func(w link) bool { return w.same(h) }) {
				continue
			}
			if err := deleteLink(h.index); !errors.Is(err, unix.ENODEV) { // it went with the link that it was on
				p.did("delete "+kind+" "+h.name, err)
			}
		}
	}
	have = m.again(nl, p, have, &done)
	for _, kind := range []string{bridgeKind, vlanKind} {
		for _, w := range want {
			if w.kind == kind && w.own && !slices.ContainsFunc(have, w.same) {
				p.did("make "+kind+" "+w.name, m.makeLink(w))
				have = m.again(nl, p, have, &done)
			}
		}
	}
	for _, w := range want {
		if i := linkNamed(have, w.name); i >= 0 && have[i].master != "" && have[i].master != w.master {
			p.did("take "+w.name+" out of "+have[i].master, setMaster(have[i].index, 0))
		}
	}
	have = m.again(nl, p, have, &done)
	m.switchFiltering(p, have, want)
	have = m.again(nl, p, have, &done)
	for _, w := range want {
		i := linkNamed(have, w.name)
		if i < 0 || have[i].master == w.master || w.master == "" {
			continue
		}
		if in, as := linkNamed(have, w.master), linkNamed(want, w.master); in >= 0 && as >= 0 && want[as].filtering && !have[in].filtering {
			continue // it would be together with what it must not: that the bridge does not filter is an error already
		}
		p.did("put "+w.name+" into "+w.master, setMaster(have[i].index, m.index(w.master)))
	}
	have = m.again(nl, p, have, &done)
	m.joinVLANs(p, have, want, "")
	for _, vlans := range []bool{false, true} {
		have = m.again(nl, p, have, &done)
		for _, w := range want {
			if i := linkNamed(have, w.name); i >= 0 && (w.kind == vlanKind && w.own) == vlans {
				m.reconcileLink(p, have[i], w)
			}
		}
	}
}

// again lists the owned links again if anything was changed since done: with one link the
// kernel may change others.
func (m *Manager) again(nl *conn, p *pass, have []link, done *int) []link {
	if len(p.changes) == *done {
		return have
	}
	*done = len(p.changes)
	links, err := listLinks(nl)
	if err == nil {
		links = m.own(links)
		if m.arped {
			readARP(links)
		}
		err = readVLANs(nl, links)
	}
	if err != nil {
		p.errs = append(p.errs, err)
		return have
	}
	return links
}

// index returns the index of the link of this name, or 0 if there is none.
func (m *Manager) index(name string) int {
	if i := linkNamed(m.links, name); i >= 0 && name != "" {
		return m.links[i].index
	}
	return 0
}

// makeLink makes a bridge or a VLAN. It is down.
func (m *Manager) makeLink(w link) error {
	if w.kind == bridgeKind {
		return makeBridge(w.name, w.stp)
	}
	parent := m.index(w.parent)
	if parent == 0 {
		return fmt.Errorf("%s is not there", w.parent)
	}
	return makeVLAN(w.name, parent, w.vlanID)
}
