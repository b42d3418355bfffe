package netcfg

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

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
	links   []link          // all that the kernel had when they were last listed
}

// device is what is remembered of a port's device for as long as it is there.
type device struct {
	port string
	// driverMTU is the MTU that the device had before it was given another; 0 if
	// it was not. driverMAC is the same of its address.
	driverMTU int
	driverMAC MAC
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
				if m.devices[l.index] == nil && !l.loopback && !l.own && is(p, l) {
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
	// As many of its names as Device has, and more.
	names, depth := strings.Split(path, "/"), strings.Count(p.Device, "/")+1
	if len(names) <= depth {
		return false
	}
	matches, err := filepath.Match(p.Device, strings.Join(names[:depth], "/"))
	return err == nil && matches
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

// thread has the kernel take the packets of devices in threads of its own (threaded
// NAPI, Documentation/networking/napi.rst), which share the processor with
// programs. In soft interrupts, where it takes them otherwise, packets go before
// every program: a router that forwards all it can would answer nobody, the
// watchdog included, for as long as that lasts.
func (m *Manager) thread(links []link) {
	for _, l := range links {
		if l.loopback || l.own {
			continue
		}
		err := writeExisting(filepath.Join(m.sysfs, "class/net", l.name, "threaded"), "1\n")
		// Gone meanwhile, or a device whose driver does not poll.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EOPNOTSUPP) {
			m.logf("take the packets of %s in threads: %v", l.name, err)
		}
	}
}

// writeExisting writes to a file of the kernel's, and makes none.
func writeExisting(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
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

// reconcile changes what differs between have and want. The order: a link before
// its addresses, the addresses before the routes whose gateways they reach, and
// no forwarding while any of it is unfinished.
func (m *Manager) reconcile(nl *conn, p *pass, have, want state) {
	if have.forwarding && !want.forwarding {
		p.did("turn forwarding off", setForwarding(false))
	}
	m.reconcileLinks(nl, p, have.links, want.links)
	if len(p.changes) > 0 { // a link takes its addresses along
		addrs, err := m.ownAddrs(nl)
		if err != nil {
			p.errs = append(p.errs, err)
			return
		}
		have.addrs = addrs
	}
	m.reconcileAddrs(nl, p, have.addrs, want.addrs)
	if len(p.changes) > 0 {
		// A link that went down, or lost its last address, took its routes along.
		routes, err := listRoutes(nl, m.links)
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

// ownAddrs lists the addresses of the links that the Manager owns.
func (m *Manager) ownAddrs(nl *conn) ([]addr, error) {
	return listAddrs(nl, slices.DeleteFunc(slices.Clone(m.links), func(l link) bool {
		return !l.own && m.devices[l.index] == nil
	}))
}

// reconcileLink sets the properties of a link. The address of a bridge or VLAN is
// the kernel's choice.
func (m *Manager) reconcileLink(p *pass, have, want link) {
	d := m.devices[have.index]
	if d != nil && have.mac != want.mac {
		err := setMAC(have.index, want.mac)
		if errors.Is(err, unix.EBUSY) && have.up { // most drivers do it while the link is up
			if err = setUp(have.index, false); err == nil {
				have.up = false
				err = setMAC(have.index, want.mac)
			}
		}
		switch {
		case err != nil:
		case d.driverMAC == MAC{}:
			d.driverMAC = have.mac
		case d.driverMAC == want.mac:
			d.driverMAC = MAC{}
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
		p.did(fmt.Sprintf("set link %s %s", want.name, word), setUp(have.index, want.up))
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
		if err := addAddr(m.index(w.link), w); !errors.Is(err, unix.EEXIST) {
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
		err := addRoute(m.index(w.oif), w, replace)
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
		if err := deleteRoute(m.index(h.oif), h); !errors.Is(err, unix.ESRCH) { // replaced, or gone with its link
			p.did(what("delete", h), err)
		}
	}
}

// covers says whether h is what w asks for.
func (w route) covers(h route) bool {
	if w.oif == "" {
		h.oif = ""
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
