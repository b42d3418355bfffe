package netcfg

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// LinkState is what the kernel says of a port, a bridge or a VLAN.
type LinkState struct {
	Name string
	Type LinkType
	// Present: there is such a link; a port has a device. If not, the rest is zero.
	Present bool
	// Up is the administrator's switch, Running is a carrier.
	Up, Running bool
	MTU         int // bytes
	MAC         MAC
	// Bridge is the one that the link is a port of, "" if none.
	Bridge               string
	RxBytes, TxBytes     uint64
	RxPackets, TxPackets uint64
}

// LinkType is what a link is.
type LinkType string

// What a link can be, as RouterOS calls it.
const (
	Ether      LinkType = "ether"
	BridgeType LinkType = "bridge"
	VLANType   LinkType = "vlan"
)

// State asks the kernel for the state of the ports, in the order that New was
// given them, and then of the bridges and VLANs of the Config in force.
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
	return states, nil
}

// look lists the links that the Manager owns, and changes nothing. What else is to be
// listed is read from the socket, which the caller closes.
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

// Waiting tells which items of a Config have no effect though they are not
// disabled, by their indexes.
type Waiting struct{ VLANs, BridgePorts, Addresses, Routes []int }

// Waiting compares the Config in force with the kernel: an item waits if what it is
// on is not there, or is disabled.
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
	for i, r := range c.Routes {
		wanted := route{r.Destination, r.Gateway, r.Distance, ""}
		if !r.Disabled && !slices.ContainsFunc(routes, wanted.covers) {
			w.Routes = append(w.Routes, i)
		}
	}
	return w, nil
}

// KernelRoute is an IPv4 route that no Config asked for.
type KernelRoute struct {
	Destination netip.Prefix
	// Gateway is the zero Addr if the destination is on the Interface itself.
	Gateway   netip.Addr
	Interface string
	Distance  int
}

// Dynamic lists what the kernel has and the Config in force not: IPv4 addresses,
// of the loopback link none, and the routes of table main, among them those to the
// networks of the addresses.
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
		// One of many ways has no link of its own, a blackhole none at all.
		if r.protocol != unix.RTPROT_STATIC && r.oif != "" {
			routes = append(routes, KernelRoute{Destination: r.dst, Gateway: r.gw, Interface: r.oif, Distance: r.metric})
		}
	}
	return addresses, routes, nil
}

// Neighbor is an entry of the table of ARP (RFC 826).
type Neighbor struct {
	Address   netip.Addr
	MAC       MAC // none if it is not known
	Interface string
}

// Neighbors lists the table of ARP: whom the kernel knows, or asks for, in its order.
// The kernel bounds it (net.ipv4.neigh.default.gc_thresh3).
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
