package netcfg

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
)

// LinkState is the state of a port, a bridge, a VLAN or a PPP in the kernel.
type LinkState struct {
	Name string
	Type LinkType
	// Present says that there is such a link: that a port has a device. If not, the
	// fields below are zero.
	Present bool
	// Up says that the link is enabled, Running that it has a carrier.
	Up, Running bool
	MTU         int // bytes
	MAC         ether.MAC
	// Bridge is the bridge that the link is a port of, or "".
	Bridge               string
	RxBytes, TxBytes     uint64
	RxPackets, TxPackets uint64
}

// LinkType is the kind of a link.
type LinkType string

// The kinds of links, as RouterOS calls them.
const (
	Ether      LinkType = "ether"
	BridgeType LinkType = "bridge"
	VLANType   LinkType = "vlan"
	PPPType    LinkType = "pppoe-out"
)

// State asks the kernel for the state of the ports, in the order in which New got them, and
// then of the bridges, VLANs and PPPs of the Config in force.
func (m *Manager) State() ([]LinkState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	nl, own, err := m.look()
	if err != nil {
		return nil, err
	}
	defer nl.Close()
	var states []LinkState
	add := func(name string, kind LinkType, is func(link) bool) {
		s := LinkState{Name: name, Type: kind}
		if i := slices.IndexFunc(own, is); i >= 0 {
			l := own[i]
			s = LinkState{
				Name: name, Type: kind, Present: true, Up: l.up, Running: l.running, MTU: l.mtu, MAC: l.mac, Bridge: l.master,
				RxBytes: l.rxBytes, TxBytes: l.txBytes, RxPackets: l.rxPackets, TxPackets: l.txPackets,
			}
		}
		states = append(states, s)
	}
	for _, p := range m.ports {
		add(p.Name, Ether, func(l link) bool { return m.devices[l.index] != nil && m.devices[l.index].port == p.Name })
	}
	if m.config == nil {
		return states, nil
	}
	for _, b := range m.config.Bridges {
		add(b.Name, BridgeType, func(l link) bool { return l.own && l.kind == bridgeKind && l.name == b.Name })
	}
	for _, v := range m.config.VLANs {
		add(v.Name, VLANType, func(l link) bool { return l.own && l.kind == vlanKind && l.name == v.Name })
	}
	for _, p := range m.config.PPPs {
		add(p.Name, PPPType, func(l link) bool { return l.own && l.kind == pppKind && l.name == p.Name })
	}
	return states, nil
}

// look lists the links that the Manager owns, and changes nothing. The caller may read
// other lists from the socket, and closes it.
func (m *Manager) look() (*conn, []link, error) {
	nl, err := dial()
	if err != nil {
		return nil, nil, err
	}
	links, err := listLinks(nl)
	if err != nil {
		nl.Close()
		return nil, nil, err
	}
	m.match(links)
	return nl, m.own(links), nil
}

// Waiting has the indexes of the items of a Config that are enabled and have no effect.
type Waiting struct{ VLANs, BridgePorts, Addresses, Routes, Neighbors []int }

// Waiting compares the Config in force with the kernel. An item waits if the link that it
// needs is missing or disabled, a route also if no network of an address has its gateway, or if that is Down.
func (m *Manager) Waiting() (Waiting, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var w Waiting
	if m.config == nil {
		return w, nil
	}
	nl, own, err := m.look()
	if err != nil {
		return w, err
	}
	defer nl.Close()
	routes, err := listRoutes(nl, m.links)
	if err != nil {
		return w, err
	}
	c := *m.config
	find := func(name string) link {
		if i := linkNamed(own, name); i >= 0 {
			return own[i]
		}
		return link{}
	}
	for i, v := range c.VLANs {
		if l := find(v.Name); !v.Disabled && !(l.up && l.kind == vlanKind) {
			w.VLANs = append(w.VLANs, i)
		}
	}
	for i, p := range c.BridgePorts {
		if !p.Disabled && find(p.Interface).master != p.Bridge {
			w.BridgePorts = append(w.BridgePorts, i)
		}
	}
	for i, a := range c.Addresses {
		if !a.Disabled && !find(c.Actual(a.Interface)).up {
			w.Addresses = append(w.Addresses, i)
		}
	}
	for i, n := range c.Neighbors {
		if on := c.Actual(n.Interface); !n.Disabled && !n.Published && !(find(on).up && c.isNeighbor(n.Address, on)) {
			w.Neighbors = append(w.Neighbors, i)
		}
	}
	for i, r := range c.Routes {
		oif := ""
		if r.Interface != "" {
			oif = c.Actual(r.Interface)
		}
		wanted := c.wanted(r, oif)
		if !r.Disabled && (r.Down && r.Type == "" || !slices.ContainsFunc(routes, wanted.covers)) {
			w.Routes = append(w.Routes, i)
		}
	}
	return w, nil
}

// KernelRoute is an IPv4 route that is not in a Config.
type KernelRoute struct {
	Destination netip.Prefix
	// Gateway is the zero Addr if the destination is on the link of Interface itself.
	Gateway   netip.Addr
	Interface string
	Distance  int
}

// Dynamic lists the IPv4 addresses and the routes of table main that the kernel has and
// the Config in force has not. It leaves out the addresses of lo. Among the routes are
// those to the networks of the addresses.
func (m *Manager) Dynamic() ([]Address, []KernelRoute, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	nl, _, err := m.look()
	if err != nil {
		return nil, nil, err
	}
	defer nl.Close()
	others := slices.DeleteFunc(slices.Clone(m.links), func(l link) bool { return l.loopback })
	addrs, err := listAddrs(nl, others)
	if err != nil {
		return nil, nil, err
	}
	var addresses []Address
	for _, a := range addrs {
		set := m.config != nil && slices.ContainsFunc(m.config.Addresses, func(c Address) bool {
			return !c.Disabled && c.Address == a.prefix && m.config.Actual(c.Interface) == a.link
		})
		if !set {
			addresses = append(addresses, Address{Address: a.prefix, Interface: a.link})
		}
	}
	all, err := listAllRoutes(nl, m.links, 0)
	if err != nil {
		return nil, nil, err
	}
	var routes []KernelRoute
	for _, r := range all {
		// A route with several next hops has no link of its own, and a blackhole has none.
		if r.protocol != unix.RTPROT_STATIC && r.oif != "" && r.table == unix.RT_TABLE_MAIN {
			routes = append(routes, KernelRoute{Destination: r.dst, Gateway: r.gw, Interface: r.oif, Distance: r.metric})
		}
	}
	return addresses, routes, nil
}

// Neighbor is an entry of the ARP table (RFC 826).
type Neighbor struct {
	Address   netip.Addr
	MAC       ether.MAC // zero if it is not known
	Interface string
	// Stays is set of one that somebody has set (NUD_PERMANENT).
	Stays bool
}

// Neighbors lists the ARP table, in the kernel's order: the neighbours that the kernel
// knows, and those that it is asking for. The kernel bounds their number
// (net.ipv4.neigh.default.gc_thresh3).
func (m *Manager) Neighbors() ([]Neighbor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	nl, _, err := m.look()
	if err != nil {
		return nil, err
	}
	defer nl.Close()
	return listNeighbors(nl, m.links)
}
