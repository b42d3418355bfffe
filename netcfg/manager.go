package netcfg

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/internal/machine"
)

// Manager brings the network of this machine, or of the network namespace of this process,
// to a Config and keeps it there. Its methods may be called from any goroutine.
type Manager struct {
	ports []Port
	logf  func(format string, args ...any)
	sysfs string // "/sys" except in tests
	// OnLink, if it is set before the first Apply, is told each change of a port's link: whether
	// there is one, as with a cable to a device that runs. It must not wait, nor call the Manager.
	OnLink func(port string, up bool)
	// OnUp is the same of each interface by which other hosts may be reached from now on: one whose link came up, and
	// the bridge of such a port and the VLANs on it, whether or not they had a link before.
	OnUp func(name string)
	// PlainQueues, if it is set before the first Apply, has the packets of a class first come, first served: for kernels
	// without fq_codel, as tests may run on.
	PlainQueues bool

	mu sync.Mutex
	// ruled is set once a Config has had tables or rules. Before that the kernel is not asked for any, for one that has none.
	ruled bool
	// arped is the same of what a Config says of ARP.
	arped bool
	// keeps says that there were gateways to keep, see keepGateways.
	keeps bool
	// queued is that of queues. counted are what classes had counted when their counters were reset.
	queued  bool
	counted map[classKey]ClassCounters
	// dropped is what was dropped in classes that are gone, or whose packets are in other classes now, by those that they were in.
	dropped map[classKey]uint64
	config  *Config         // the one in force, nil before the first Apply
	set     *Settings       // those that the kernel was given last, nil before
	devices map[int]*device // by interface index
	links   []link          // all links of the kernel when they were last listed
	// receiveRing is how many packets the receive ring of a device may have, ringsSeen has the
	// interface indexes of those that were looked at, and ringRequest is the function but in tests.
	receiveRing uint32
	ringsSeen   map[int]bool
	ringRequest func(name string, p *ringParameters) error
	modeRequest func(name string, r *modeMessage) error // but in tests the function of that name
	// mostKept is how many neighbours KeepNeighbors keeps.
	mostKept int
}

// state is what the kernel has, or should have, of what a Manager owns.
type state struct {
	links      []link
	addrs      []addr
	routes     []route
	rules      []rule
	neighbors  []neighbor
	queues     []classes
	forwarding bool
	// settings are nil where they are not known, and then left alone.
	settings *Settings
}

// New returns a Manager of these ports. It changes nothing yet. logf gets a line for what
// Run repairs and for what it cannot repair.
func New(ports []Port, logf func(format string, args ...any)) (*Manager, error) {
	if err := checkPorts(ports); err != nil {
		return nil, err
	}
	_, memory := machine.Memory()
	return &Manager{
		ports:       slices.Clone(ports),
		logf:        logf,
		sysfs:       "/sys",
		devices:     map[int]*device{},
		receiveRing: receiveRing(memory),
		mostKept:    keptNeighbors(memory),
		ringsSeen:   map[int]bool{},
		ringRequest: ringRequest,
		modeRequest: modeRequest,
	}, nil
}

// Apply brings the kernel to c, now and once. It returns an error if c is not valid (see
// Config.Validate) or if the kernel refuses a part of it. After an error the kernel has
// what it had before, and the Config applied before stays in force. But the ports keep
// their names, which no Config changes.
//
// What c says of a missing port waits for the port. A route waits for as long as its
// gateway cannot be reached: it is in the network of no address, or only of addresses on
// ports that are missing or disabled.
func (m *Manager) Apply(c Config) error {
	if err := c.Validate(m.ports); err != nil {
		return err
	}
	c.Links = slices.Clone(c.Links)
	c.Bridges = slices.Clone(c.Bridges)
	c.VLANs = slices.Clone(c.VLANs)
	c.BridgePorts = slices.Clone(c.BridgePorts)
	c.BridgeVLANs = slices.Clone(c.BridgeVLANs)
	c.PPPs = slices.Clone(c.PPPs)
	c.Addresses = slices.Clone(c.Addresses)
	c.Routes = slices.Clone(c.Routes)
	c.Tables = slices.Clone(c.Tables)
	c.Rules = slices.Clone(c.Rules)
	c.Neighbors = slices.Clone(c.Neighbors)
	c.Queues = slices.Clone(c.Queues)

	m.mu.Lock()
	defer m.mu.Unlock()
	m.arped = m.arped || c.usesARP()
	m.ruled = m.ruled || m.arped || len(c.Tables)+len(c.Rules) > 0
	m.queued = m.queued || len(c.Queues) > 0
	nl, err := dial()
	if err != nil {
		return err
	}
	defer nl.Close()

	var p pass
	before, err := m.prepare(nl, &p)
	if err != nil {
		return err
	}
	m.readModes(&p, before.links, c)
	m.reconcile(nl, &p, before, m.want(c, before))
	if err := p.err(); err != nil {
		if undoErr := m.undo(nl, before); undoErr != nil {
			return fmt.Errorf("%w; going back: %w", err, undoErr)
		}
		return err
	}
	m.config = &c
	return nil
}

// undo brings back a state that the kernel had. It compares again, and does not just
// reverse each change: when a link or an address goes, the kernel drops routes and
// secondary addresses by itself.
func (m *Manager) undo(nl *conn, before state) error {
	var p pass
	now, err := m.prepare(nl, &p)
	if err != nil {
		return err
	}
	gone := func(l link) bool { return (!l.own || l.kind == pppKind) && linkNamed(now.links, l.name) < 0 }
	before.links = slices.DeleteFunc(before.links, gone)
	before.queues = slices.DeleteFunc(before.queues, func(c classes) bool { return linkNamed(before.links, c.link) < 0 })
	before.addrs = slices.DeleteFunc(before.addrs, func(a addr) bool { return linkNamed(before.links, a.link) < 0 })
	before.neighbors = slices.DeleteFunc(before.neighbors, func(n neighbor) bool { return linkNamed(before.links, n.link) < 0 })
	m.reconcile(nl, &p, now, before)
	return p.err()
}

// repair brings the kernel to the Config in force and returns what it has changed. It goes
// on with the rest if the kernel refuses something.
func (m *Manager) repair() (changes []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.config == nil {
		return nil, nil
	}
	nl, err := dial()
	if err != nil {
		return nil, err
	}
	defer nl.Close()

	var p pass
	have, err := m.prepare(nl, &p)
	if err != nil {
		return nil, err
	}
	m.readModes(&p, have.links, *m.config)
	m.reconcile(nl, &p, have, m.want(*m.config, have))
	return p.changes, p.err()
}

// pass collects what one reconciliation has done.
type pass struct {
	changes []string
	errs    []error
}

// did records that the change what has ended with err.
func (p *pass) did(what string, err error) {
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("%s: %w", what, err))
		return
	}
	p.changes = append(p.changes, what)
}

func (p *pass) err() error { return errors.Join(p.errs...) }

// prepare does what does not depend on the Config: it sets lo up, names the ports and has
// their packets processed in threads, and shortens their rings. Then it reads the state of what the Manager owns.
func (m *Manager) prepare(nl *conn, p *pass) (state, error) {
	links, err := listLinks(nl)
	if err != nil {
		return state{}, err
	}
	m.match(links)
	m.rename(p, links)
	m.thread(links)
	m.shortenRings(links)

	for i, l := range links {
		if l.loopback && !l.up {
			p.did("set "+l.name+" up", setUp(l.index, true))
			links[i].up = true
		}
	}
	s := state{links: m.own(links), settings: m.set}
	if err := readVLANs(nl, s.links); err != nil {
		return state{}, err
	}
	if s.addrs, err = listAddrs(nl, s.links); err != nil {
		return state{}, err
	}
	if s.routes, err = listRoutes(nl, m.links); err != nil {
		return state{}, err
	}
	if m.arped {
		readARP(s.links)
		if s.neighbors, err = listStatic(nl, s.links); err != nil {
			return state{}, err
		}
	}
	if m.ruled {
		if s.rules, err = listRules(nl); err != nil {
			return state{}, err
		}
	}
	if m.queued {
		if s.queues, err = m.listQueues(nl, s.links); err != nil {
			return state{}, err
		}
	}
	s.forwarding, err = forwarding()
	return s, err
}

// tellLinks tells what has changed of links since the last list.
func (m *Manager) tellLinks(links []link) {
	came := map[string]bool{}
	for _, l := range links {
		before := slices.IndexFunc(m.links, func(o link) bool { return o.index == l.index })
		if before < 0 || m.links[before].running == l.running {
			continue
		}
		if d := m.devices[l.index]; d != nil && m.OnLink != nil {
			m.OnLink(d.port, l.running)
		}
		came[l.name] = l.running
	}
	if len(came) == 0 || m.OnUp == nil {
		return
	}
	isOver := func(l link) bool {
		return l.kind == vlanKind && came[l.parent] || slices.ContainsFunc(links, func(p link) bool { return p.master == l.name && came[p.name] })
	}
	for more := true; more; {
		more = false
		for _, l := range links {
			if l.running && !came[l.name] && isOver(l) {
				came[l.name], more = true, true
			}
		}
	}
	for _, l := range links {
		if came[l.name] && (l.own || m.devices[l.index] != nil) {
			m.OnUp(l.name)
		}
	}
}

// own remembers the links of the kernel and returns those that the Manager owns.
func (m *Manager) own(links []link) []link {
	nameLinks(links)
	m.tellLinks(links)
	m.links = links
	var own []link
	for _, l := range links {
		if l.own || m.devices[l.index] != nil {
			own = append(own, l)
		}
	}
	return own
}

// want returns what the kernel should have under c, with the links that it has.
func (m *Manager) want(c Config, have state) state {
	w := state{forwarding: c.Forwarding, settings: &c.Settings, rules: c.rules()}
	for _, l := range have.links {
		if l.own {
			if l.kind == pppKind && slices.ContainsFunc(c.PPPs, func(p PPP) bool { return p.Name == l.name && !p.Disabled }) {
				l.up = true
				w.links = append(w.links, l)
			}
			continue
		}
		conf := Link{}
		if i := slices.IndexFunc(c.Links, func(k Link) bool { return k.Name == l.name }); i >= 0 {
			conf = c.Links[i]
		}
		l.up = !conf.Disabled
		d := m.devices[l.index]
		switch {
		case conf.MTU != 0:
			l.mtu = conf.MTU
		case d.driverMTU != 0:
			l.mtu = d.driverMTU
		}
		switch {
		case conf.MAC != ether.MAC{}:
			l.mac = conf.MAC
		case d.driverMAC != ether.MAC{}:
			l.mac = d.driverMAC
		}
		l.modes, l.arp = conf.wantModes(l.modes, d.driverModes), conf.ARP
		w.links = append(w.links, l)
	}
	w.links = c.wantBridgesAndVLANs(w.links)
	w.queues = c.wantQueues(w.links)
	for _, a := range c.Addresses {
		on := c.Actual(a.Interface)
		if !a.Disabled && linkNamed(w.links, on) >= 0 {
			w.addrs = append(w.addrs, addr{on, a.Address, a.Address.Addr()})
		}
	}
	for _, r := range c.Routes {
		oif, waits := nexthop(c, w.links, r)
		has := func(a addr) bool { return a.prefix.Addr() == r.PrefSrc }
		if !r.Disabled && (r.Type != "" || !r.Down && !waits && (!r.PrefSrc.IsValid() || slices.ContainsFunc(w.addrs, has))) {
			w.routes = append(w.routes, c.wanted(r, oif))
		}
	}
	w.routes = append(w.routes, c.waysToDown(w)...)
	w.neighbors = c.wantNeighbors(w.links)
	c.wantReplyOnly(&w)
	w.settings.loose = looseLinks(w.routes)
	return w
}

// waysToDown are routes to the gateways themselves that are Down and in no network of an address, as far as w has none. Without one
// the strict check of sources, and the loose one where there is no other route, would drop what such a gateway answers: its
// routes would never be active again.
func (c Config) waysToDown(w state) (all []route) {
	for _, r := range c.Routes {
		oif, waits := nexthop(c, w.links, r)
		if r.Disabled || r.Type != "" || !r.Down || !r.onlink() || waits {
			continue
		}
		to := netip.PrefixFrom(r.Gateway, r.Gateway.BitLen())
		there := func(o route) bool { return o.dst == to && o.table == unix.RT_TABLE_MAIN }
		in := func(a Address) bool { return !a.Disabled && a.Address.Contains(r.Gateway) }
		// Of gateways with one address on several links another may be in use.
		elsewhere := func(o Route) bool {
			return !o.Disabled && o.Type == "" && o.Gateway == r.Gateway && c.Actual(o.Interface) != oif
		}
		if !slices.ContainsFunc(w.routes, there) && !slices.ContainsFunc(all, there) && !slices.ContainsFunc(c.Addresses, in) && !slices.ContainsFunc(c.Routes, elsewhere) {
			all = append(all, route{dst: to, metric: r.Distance, oif: oif, table: unix.RT_TABLE_MAIN})
		}
	}
	return all
}

// onlink reports whether the gateway of r is on its link, although it is in no network of an address.
func (r Route) onlink() bool { return r.Interface != "" && r.Gateway.IsValid() }

// nexthop returns the name of the link on which the gateway of r is reached. If that link is missing
// or down, the route waits. The name is "" if the gateway is in no network of c's addresses: the
// kernel may reach it on a link that is not ours; if it does not, the route waits too.
func nexthop(c Config, links []link, r Route) (oif string, waits bool) {
	if r.Interface != "" {
		oif = c.Actual(r.Interface)
		i := linkNamed(links, oif)
		return oif, i < 0 || !links[i].up
	}
	bits := -1
	for _, a := range c.Addresses {
		if a.Disabled || !a.Address.Contains(r.Gateway) {
			continue
		}
		i := linkNamed(links, c.Actual(a.Interface))
		if i < 0 || !links[i].up {
			waits = true
		} else if a.Address.Bits() > bits {
			oif, bits = links[i].name, a.Address.Bits()
		}
	}
	return oif, waits && oif == ""
}
