package netcfg

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
)

// reconcile changes what differs between have and want. Links come before their addresses,
// addresses before the routes whose gateways they reach. Forwarding is off until all of it
// is done.
func (m *Manager) reconcile(nl *conn, p *pass, have, want state) {
	if have.forwarding && !want.forwarding {
		p.did("turn forwarding off", setForwarding(false))
	}
	m.reconcileSettings(p, have.settings, want.settings)
	m.reconcileLinks(nl, p, have.links, want.links)
	want.settings.loosen(p)
	if len(p.changes) > 0 { // a link that goes takes its addresses and queues along
		if m.queued {
			queues, err := m.listQueues(nl, m.owned())
			if err != nil {
				p.errs = append(p.errs, err)
				return
			}
			have.queues = queues
		}
		addrs, err := m.ownAddrs(nl)
		if err != nil {
			p.errs = append(p.errs, err)
			return
		}
		have.addrs = addrs
	}
	m.reconcileQueues(p, have.queues, want.queues)
	m.reconcileAddrs(nl, p, have.addrs, want.addrs)
	if len(p.changes) > 0 {
		// A link that goes down, or loses its last address, takes its routes along.
		routes, err := listRoutes(nl, m.links)
		if err != nil {
			p.errs = append(p.errs, err)
			return
		}
		have.routes = routes
	}
	if m.arped {
		m.reconcileNeighbors(nl, p, want.neighbors)
	}
	m.reconcileRoutes(p, have.routes, want.routes, func() { m.reconcileRules(p, have.rules, want.rules) })
	m.keepGateways(nl, p, want)
	if !have.forwarding && want.forwarding && len(p.errs) == 0 {
		p.did("turn forwarding on", setForwarding(true))
		if want.settings != nil && want.settings.AcceptRedirects {
			// The kernel has reset that.
			m.reconcileSettings(p, nil, want.settings)
		}
	}
}

// reconcileSettings changes the settings if they differ.
func (m *Manager) reconcileSettings(p *pass, have, want *Settings) {
	if want == nil || have != nil && *have == *want {
		return
	}
	m.set = nil // until it is known what the kernel has
	err := want.set()
	if err == nil {
		m.set = want
	}
	p.did("change the settings of IPv4", err)
}

// ownAddrs lists the addresses of the links that the Manager owns.
func (m *Manager) ownAddrs(nl *conn) ([]addr, error) { return listAddrs(nl, m.owned()) }

// owned are the links that the Manager owns.
func (m *Manager) owned() []link {
	return slices.DeleteFunc(slices.Clone(m.links), func(l link) bool { return !l.own && m.devices[l.index] == nil })
}

// reconcileLink sets the properties of a link. The kernel chooses the hardware address of
// a bridge or VLAN.
func (m *Manager) reconcileLink(p *pass, have, want link) {
	d := m.devices[have.index]
	if want.mac != (ether.MAC{}) && have.mac != want.mac {
		err := setMAC(have.index, want.mac)
		if errors.Is(err, unix.EBUSY) && have.up { // some drivers refuse while the link is up
			if err = setUp(have.index, false); err == nil {
				have.up = false
				err = setMAC(have.index, want.mac)
			}
		}
		switch {
		case err != nil, d == nil:
		case d.driverMAC == ether.MAC{}:
			d.driverMAC = have.mac
		case d.driverMAC == want.mac:
			d.driverMAC = ether.MAC{}
		}
		p.did(fmt.Sprintf("set link %s mac-address %s", want.name, want.mac), err)
	}
	if want.kind == bridgeKind && have.stp != want.stp {
		word := "off"
		if want.stp {
			word = "on"
		}
		p.did(fmt.Sprintf("turn the spanning tree of %s %s", want.name, word), setSTP(have.index, want.stp))
	}
	m.reconcileModes(p, d, want)
	if m.arped && have.arp != want.arp && want.kind != pppKind {
		p.did(fmt.Sprintf("set link %s arp %s", want.name, cmp.Or(want.arp, "enabled")), setARP(have, want.arp))
	}
	if have.mtu != want.mtu {
		err := setMTU(have.index, want.mtu)
		switch {
		case err != nil, d == nil:
		case d.driverMTU == 0:
			d.driverMTU = have.mtu
		case d.driverMTU == want.mtu:
			d.driverMTU = 0
		}
		p.did(fmt.Sprintf("set link %s mtu %d", want.name, want.mtu), err)
	}
	if have.up != want.up {
		word := "down"
		if want.up {
			word = "up"
		}
		what, err := fmt.Sprintf("set link %s %s", want.name, word), setUp(have.index, want.up)
		if err == nil && want.up && have.kind == pppKind {
			return // a PPP link is made down, by its client: this is no repair
		}
		p.did(what, err)
	}
}

func (m *Manager) reconcileAddrs(nl *conn, p *pass, have, want []addr) {
	what := func(verb string, a addr) string {
		return fmt.Sprintf("%s address %s on %s", verb, a.prefix, a.link)
	}
	deleted := false
	for _, h := range have {
		if slices.Contains(want, h) {
			continue
		}
		err := deleteAddr(m.index(h.link), h)
		if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
			continue // it went with the primary address of its network, or with its link
		}
		p.did(what("delete", h), err)
		deleted = true
	}
	if deleted {
		// With the primary address of a network the kernel deletes its other addresses,
		// unless net.ipv4.conf.*.promote_secondaries is on.
		var err error
		if have, err = m.ownAddrs(nl); err != nil {
			p.errs = append(p.errs, err)
			return
		}
	}
	for _, w := range want {
		if slices.Contains(have, w) {
			continue
		}
		if err := addAddr(m.index(w.link), w); !errors.Is(err, unix.EEXIST) {
			p.did(what("add", w), err)
		}
	}
}

// reconcileRoutes adds routes, calls between, and deletes others.
func (m *Manager) reconcileRoutes(p *pass, have, want []route, between func()) {
	what := func(verb string, r route) string {
		by := "by " + r.oif
		switch {
		case r.gw.IsValid():
			by = "by " + r.gw.String()
		case r.typ == unix.RTN_THROW:
			by = "of type throw"
		}
		for name, typ := range kernelTypes {
			if typ == r.typ {
				by = "of type " + name
			}
		}
		text := fmt.Sprintf("%s route %s %s distance %d", verb, r.dst, by, r.metric)
		if r.table != unix.RT_TABLE_MAIN {
			text += fmt.Sprint(" table ", r.table)
		}
		return text
	}
	// New routes are added before the old ones are deleted, so that there is no moment
	// without a route.
	var reachable []route
	for _, w := range want {
		if slices.Contains(have, w) {
			reachable = append(reachable, w)
			continue
		}
		// A route whose link the kernel chooses is added again even if it is there: the
		// kernel keeps a route whose gateway cannot be reached any more, and would refuse
		// it after the next boot.
		stands := slices.ContainsFunc(have, w.covers)
		replace := slices.ContainsFunc(have, func(h route) bool { return h.dst == w.dst && h.metric == w.metric && h.table == w.table })
		err := addRoute(m.index(w.oif), w, replace)
		if w.oif == "" && errors.Is(err, unix.ENETUNREACH) {
			continue // it waits until its gateway is in the network of an address
		}
		reachable = append(reachable, w)
		if errors.Is(err, unix.EEXIST) {
			err = fmt.Errorf("a route that is not ours has this destination and distance: %w", err)
		}
		if err != nil || !stands {
			p.did(what("add", w), err)
		}
	}
	// No rule leads to a table whose routes are gone already: such packets would take table main.
	between()
	for _, h := range have {
		if slices.ContainsFunc(reachable, func(w route) bool {
			if !h.src.IsValid() { // it was replaced, and to delete one of any source would delete the other
				w.src = h.src
			}
			return w.covers(h)
		}) {
			continue
		}
		if err := deleteRoute(m.index(h.oif), h); !errors.Is(err, unix.ESRCH) { // replaced, or gone with its link
			p.did(what("delete", h), err)
		}
	}
}

// covers reports whether h is the route that w asks for.
func (w route) covers(h route) bool {
	if w.oif == "" {
		h.oif = ""
	}
	return w == h
}

// ipForward is the switch of the network namespace of the thread that opens it.
const ipForward = "/proc/sys/net/ipv4/ip_forward"

func forwarding() (bool, error) {
	b, err := os.ReadFile(ipForward)
	if err != nil {
		return false, fmt.Errorf("read forwarding: %w", err)
	}
	return strings.TrimSpace(string(b)) != "0", nil
}

func setForwarding(on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	return os.WriteFile(ipForward, []byte(value), 0)
}
