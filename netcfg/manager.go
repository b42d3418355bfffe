package netcfg

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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
}

// device is what is remembered of a port's device for as long as it is there.
type device struct {
	port string
	// driverMTU is the MTU that the device had before it was given another; 0 if
	// it was not.
	driverMTU int
}

// state is what the kernel has or shall have of what a Manager owns.
type state struct {
	links      []link // named as their ports
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
func (m *Manager) undo(nl *netlink.Handle, before state) error {
	var p pass
	now, err := m.prepare(nl, &p)
	if err != nil {
		return err
	}
	before.addrs = slices.DeleteFunc(before.addrs, func(a addr) bool { return m.devices[a.index] == nil })
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

// prepare does what holds under every Config, lo up and the ports named, and
// reads the state of what the Manager owns.
func (m *Manager) prepare(nl *netlink.Handle, p *pass) (state, error) {
	links, err := listLinks(nl)
	if err != nil {
		return state{}, err
	}
	m.match(links)
	m.rename(p, links)

	var s state
	for _, l := range links {
		if l.loopback && !l.up {
			p.did("set "+l.name+" up", setUp(l.index, true))
		}
		if d := m.devices[l.index]; d != nil {
			l.name = d.port
			s.links = append(s.links, l)
		}
	}
	if s.addrs, err = m.ownAddrs(nl); err != nil {
		return state{}, err
	}
	if s.routes, err = listRoutes(nl); err != nil {
		return state{}, err
	}
	s.forwarding, err = forwarding()
	return s, err
}

func (m *Manager) ownAddrs(nl *netlink.Handle) ([]addr, error) {
	addrs, err := listAddrs(nl)
	return slices.DeleteFunc(addrs, func(a addr) bool { return m.devices[a.index] == nil }), err
}

// match finds the devices of the ports. A device keeps its port until it
// vanishes, for once it is renamed its kernel name says nothing any more.
func (m *Manager) match(links []link) {
	missing := slices.Clone(m.ports)
	for index, d := range m.devices {
		if !slices.ContainsFunc(links, func(l link) bool { return l.index == index }) {
			delete(m.devices, index)
			continue
		}
		missing = slices.DeleteFunc(missing, func(p Port) bool { return p.Name == d.port })
	}
	find := func(is func(Port, link) bool) {
		missing = slices.DeleteFunc(missing, func(p Port) bool {
			for _, l := range links {
				if m.devices[l.index] == nil && !l.loopback && is(p, l) {
					m.devices[l.index] = &device{port: p.Name}
					return true
				}
			}
			return false
		})
	}
	find(m.isDevice)
	// A port that is known by its kernel name and was named by an earlier run of
	// the program.
	find(func(p Port, l link) bool { return l.name == p.Name && !strings.Contains(p.Device, "/") })
}

// isDevice says whether l is the device that p names.
func (m *Manager) isDevice(p Port, l link) bool {
	if l.name == p.Device {
		return true
	}
	// A link to ../../devices/pci0000:00/0000:00:12.0/virtio0/net/eth0. It saves
	// resolving X/device component by component. There is none for a device that
	// vanished meanwhile.
	path, err := os.Readlink(filepath.Join(m.sysfs, "class/net", l.name))
	if err != nil {
		return false
	}
	_, path, _ = strings.Cut(path, "/devices/")
	return strings.HasPrefix(path, p.Device+"/")
}

// rename gives the ports' devices their names, and changes links accordingly. A
// device that holds the name of a port, be it a port itself or not, is named
// after its index: it gets its own name later or keeps that one.
func (m *Manager) rename(p *pass, links []link) {
	for i := range links {
		l := &links[i]
		d := m.devices[l.index]
		if d == nil || l.name == d.port {
			continue
		}
		if h := slices.IndexFunc(links, func(o link) bool { return o.name == d.port }); h >= 0 {
			holder := &links[h]
			wasUp := holder.up
			rename(p, holder, fmt.Sprintf("dev%d", holder.index))
			if wasUp && m.devices[holder.index] == nil {
				p.did("set "+holder.name+" up", setUp(holder.index, true))
			}
		}
		rename(p, l, d.port)
	}
}

// rename takes l down for it, without which kernels before 6.2 refuse.
func rename(p *pass, l *link, name string) {
	what := fmt.Sprintf("rename link %s to %s", l.name, name)
	if l.up {
		if err := setUp(l.index, false); err != nil {
			p.did(what, fmt.Errorf("set down: %w", err))
			return
		}
		l.up = false
	}
	err := setName(l.index, name)
	if err == nil {
		l.name = name
	}
	p.did(what, err)
}

// want says what of c the kernel shall have now that it has these links.
func (m *Manager) want(c Config, have state) state {
	w := state{forwarding: c.Forwarding}
	for _, l := range have.links {
		conf := Link{}
		if i := slices.IndexFunc(c.Links, func(k Link) bool { return k.Name == l.name }); i >= 0 {
			conf = c.Links[i]
		}
		l.up = !conf.Disabled
		switch d := m.devices[l.index]; {
		case conf.MTU != 0:
			l.mtu = conf.MTU
		case d.driverMTU != 0:
			l.mtu = d.driverMTU
		}
		w.links = append(w.links, l)
	}
	for _, a := range c.Addresses {
		i := slices.IndexFunc(w.links, func(l link) bool { return l.name == a.Interface })
		if i >= 0 && !a.Disabled {
			w.addrs = append(w.addrs, addr{w.links[i].index, a.Address, a.Address.Addr()})
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

// nexthop returns the index of the link on which gw is reached. If that link is
// missing or down, the route waits. If c has no address beside gw, index is 0:
// the kernel may know one, on a link that is not ours, or refuse the route.
func nexthop(c Config, links []link, gw netip.Addr) (index int, waits bool) {
	bits := -1
	for _, a := range c.Addresses {
		if a.Disabled || !a.Address.Contains(gw) {
			continue
		}
		i := slices.IndexFunc(links, func(l link) bool { return l.name == a.Interface && l.up })
		if i < 0 {
			waits = true
		} else if a.Address.Bits() > bits {
			index, bits = links[i].index, a.Address.Bits()
		}
	}
	return index, waits && index == 0
}

// reconcile changes what differs between have and want. The order: a link before
// its addresses, the addresses before the routes whose gateways they reach, and
// no forwarding while any of it is unfinished.
func (m *Manager) reconcile(nl *netlink.Handle, p *pass, have, want state) {
	if have.forwarding && !want.forwarding {
		p.did("turn forwarding off", setForwarding(false))
	}
	for _, h := range have.links {
		if i := slices.IndexFunc(want.links, func(w link) bool { return w.index == h.index }); i >= 0 {
			m.reconcileLink(p, h, want.links[i])
		}
	}
	m.reconcileAddrs(nl, p, have.addrs, want.addrs)
	if len(p.changes) > 0 {
		// A link that went down, or lost its last address, took its routes along.
		routes, err := listRoutes(nl)
		if err != nil {
			p.errs = append(p.errs, err)
			return
		}
		have.routes = routes
	}
	m.reconcileRoutes(p, have.routes, want.routes)
	if !have.forwarding && want.forwarding && len(p.errs) == 0 {
		p.did("turn forwarding on", setForwarding(true))
	}
}

func (m *Manager) reconcileLink(p *pass, have, want link) {
	d := m.devices[have.index]
	if have.mtu != want.mtu {
		err := setMTU(have.index, want.mtu)
		switch {
		case err != nil:
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
		p.did(fmt.Sprintf("set link %s %s", want.name, word), setUp(have.index, want.up))
	}
}

func (m *Manager) reconcileAddrs(nl *netlink.Handle, p *pass, have, want []addr) {
	what := func(verb string, a addr) string {
		return fmt.Sprintf("%s address %s on %s", verb, a.prefix, m.devices[a.index].port)
	}
	deleted := false
	for _, h := range have {
		if slices.Contains(want, h) {
			continue
		}
		err := deleteAddr(h)
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			continue // it went with the primary address of its network
		}
		p.did(what("delete", h), err)
		deleted = true
	}
	if deleted {
		// A wanted address may have gone with the primary address of its network,
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
		if err := addAddr(w); !errors.Is(err, unix.EEXIST) {
			p.did(what("add", w), err)
		}
	}
}

func (m *Manager) reconcileRoutes(p *pass, have, want []route) {
	what := func(verb string, r route) string {
		return fmt.Sprintf("%s route %s by %s distance %d", verb, r.dst, r.gw, r.metric)
	}
	// The new before the old goes: there is no moment without a route.
	for _, w := range want {
		if slices.Contains(have, w) {
			continue
		}
		// A route on a link that is the kernel's choice is put to the kernel even
		// if it stands: the kernel keeps routes whose gateway went out of reach,
		// and would refuse them after the next boot.
		stands := slices.ContainsFunc(have, w.covers)
		replace := slices.ContainsFunc(have, func(h route) bool { return h.dst == w.dst && h.metric == w.metric })
		err := addRoute(w, replace)
		if errors.Is(err, unix.EEXIST) {
			err = fmt.Errorf("a route that is not ours has this destination and distance: %w", err)
		}
		if err != nil || !stands {
			p.did(what("add", w), err)
		}
	}
	for _, h := range have {
		if slices.ContainsFunc(want, func(w route) bool { return w.covers(h) }) {
			continue
		}
		if err := deleteRoute(h); !errors.Is(err, unix.ESRCH) { // replaced, or gone with its link
			p.did(what("delete", h), err)
		}
	}
}

// covers says whether h is what w asks for.
func (w route) covers(h route) bool {
	if w.oif == 0 {
		h.oif = 0
	}
	return w == h
}

// ipForward belongs to the network namespace of whoever opens it.
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

// LinkState is what the kernel says of a port.
type LinkState struct {
	Name string
	// Present: the port has a device. If it has none, the rest is zero.
	Present bool
	// Up is the administrator's switch, Running is a carrier.
	Up, Running          bool
	MTU                  int // bytes
	MAC                  net.HardwareAddr
	RxBytes, TxBytes     uint64
	RxPackets, TxPackets uint64
}

// State asks the kernel for the state of the ports, in the order that New was
// given them.
func (m *Manager) State() ([]LinkState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	nl, err := dial()
	if err != nil {
		return nil, err
	}
	defer nl.Close()
	links, err := listLinks(nl)
	if err != nil {
		return nil, err
	}
	m.match(links)

	var states []LinkState
	for _, p := range m.ports {
		s := LinkState{Name: p.Name}
		for _, l := range links {
			if d := m.devices[l.index]; d != nil && d.port == p.Name {
				s = LinkState{
					Name: p.Name, Present: true, Up: l.up, Running: l.running, MTU: l.mtu, MAC: l.mac,
					RxBytes: l.stats.RxBytes, TxBytes: l.stats.TxBytes,
					RxPackets: l.stats.RxPackets, TxPackets: l.stats.TxPackets,
				}
			}
		}
		states = append(states, s)
	}
	return states, nil
}
