package netcfg

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// Manager brings the network of this machine, or of the network namespace that
// the process runs in, to a Config and keeps it there. Its methods may be called
// from any goroutine.
type Manager struct {
	ports []Port
	logf  func(format string, args ...any)
	sysfs string // "/sys", but for tests

	mu      sync.Mutex
	config  *Config         // the last one that was applied, nil before
	devices map[int]*device // by interface index
	links   []link          // all that the kernel had when they were last listed
}

// state is what the kernel has or shall have of what a Manager owns.
type state struct {
	links      []link
	addrs      []addr
	routes     []route
	forwarding bool
}

// New returns a Manager of these ports. It touches nothing yet. logf hears what
// Run repairs and what it cannot.
func New(ports []Port, logf func(format string, args ...any)) (*Manager, error) {
	if err := checkPorts(ports); err != nil {
		return nil, err
	}
	return &Manager{
		ports:   slices.Clone(ports),
		logf:    logf,
		sysfs:   "/sys",
		devices: map[int]*device{},
	}, nil
}

// Apply brings the kernel to c, once, now. It returns an error if c is not valid
// (see Config.Validate) or if the kernel refuses a part of it; then the kernel
// has again what it had before, and the Config applied before stays in force.
// The names of the ports, which no Config changes, stay given either way.
//
// What c says of a port that is not there waits for the port. So does a route by
// a gateway that is reached only on a port that is missing or disabled.
func (m *Manager) Apply(c Config) error {
	if err := c.Validate(m.ports); err != nil {
		return err
	}
	c.Links = slices.Clone(c.Links)
	c.Bridges = slices.Clone(c.Bridges)
	c.VLANs = slices.Clone(c.VLANs)
	c.BridgePorts = slices.Clone(c.BridgePorts)
	c.Addresses = slices.Clone(c.Addresses)
	c.Routes = slices.Clone(c.Routes)

	m.mu.Lock()
	defer m.mu.Unlock()
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

// undo brings back a state that the kernel had. It compares anew rather than
// reverse what was done: the kernel drops routes and secondary addresses on its
// own account when a link or an address goes.
func (m *Manager) undo(nl *conn, before state) error {
	var p pass
	now, err := m.prepare(nl, &p)
	if err != nil {
		return err
	}
	gone := func(l link) bool { return !l.own && linkNamed(now.links, l.name) < 0 }
	before.links = slices.DeleteFunc(before.links, gone)
	before.addrs = slices.DeleteFunc(before.addrs, func(a addr) bool { return linkNamed(before.links, a.link) < 0 })
	m.reconcile(nl, &p, now, before)
	return p.err()
}

// repair brings the kernel to the Config in force and returns what it had to do.
// What the kernel refuses does not keep the rest from being done.
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
	m.reconcile(nl, &p, have, m.want(*m.config, have))
	return p.changes, p.err()
}

// pass is what one reconciliation did.
type pass struct {
	changes []string
	errs    []error
}

// did notes the change what, which ended with err.
func (p *pass) did(what string, err error) {
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("%s: %w", what, err))
		return
	}
	p.changes = append(p.changes, what)
}

func (p *pass) err() error { return errors.Join(p.errs...) }

// prepare does what holds under every Config, lo up, the ports named and their
// packets taken by threads, and reads the state of what the Manager owns.
func (m *Manager) prepare(nl *conn, p *pass) (state, error) {
	links, err := listLinks(nl)
	if err != nil {
		return state{}, err
	}
	m.match(links)
	m.rename(p, links)
	m.thread(links)

	for i, l := range links {
		if l.loopback && !l.up {
			p.did("set "+l.name+" up", setUp(l.index, true))
			links[i].up = true
		}
	}
	s := state{links: m.own(links)}
	if s.addrs, err = listAddrs(nl, s.links); err != nil {
		return state{}, err
	}
	if s.routes, err = listRoutes(nl, m.links); err != nil {
		return state{}, err
	}
	s.forwarding, err = forwarding()
	return s, err
}

// own remembers the links of the kernel and returns those that the Manager owns.
func (m *Manager) own(links []link) []link {
	nameLinks(links)
	m.links = links
	var own []link
	for _, l := range links {
		if l.own || m.devices[l.index] != nil {
			own = append(own, l)
		}
	}
	return own
}

// want says what of c the kernel shall have now that it has these links.
func (m *Manager) want(c Config, have state) state {
	w := state{forwarding: c.Forwarding}
	for _, l := range have.links {
		if l.own {
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
		case conf.MAC != MAC{}:
			l.mac = conf.MAC
		case d.driverMAC != MAC{}:
			l.mac = d.driverMAC
		}
		w.links = append(w.links, l)
	}
	w.links = c.wantBridgesAndVLANs(w.links)
	for _, a := range c.Addresses {
		on := c.Actual(a.Interface)
		if !a.Disabled && linkNamed(w.links, on) >= 0 {
			w.addrs = append(w.addrs, addr{on, a.Address, a.Address.Addr()})
		}
	}
	for _, r := range c.Routes {
		oif, waits := nexthop(c, w.links, r.Gateway)
		if !r.Disabled && !waits {
			w.routes = append(w.routes, route{r.Destination, r.Gateway, r.Distance, oif})
		}
	}
	return w
}

// nexthop returns the name of the link on which gw is reached. If that link is
// missing or down, the route waits. If c has no address beside gw, it is "": the
// kernel may know one, on a link that is not ours, or refuse the route.
func nexthop(c Config, links []link, gw netip.Addr) (oif string, waits bool) {
	bits := -1
	for _, a := range c.Addresses {
		if a.Disabled || !a.Address.Contains(gw) {
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
