package router

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/dhcp/client"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/service"
)

// dhcpClients are the DHCP clients of this router. PID 1 opens their sockets and has their leases:
// a lease lives on while the process is replaced, and is over at its end whatever the process says.
//
// The process sleeps, that is, there is none, while no client has anything to do: each has a lease, and
// the first renewal is some time away. What is due starts it (due), and it goes on with the leases
// where they are.
type dhcpClients struct {
	log     *kmsg.Logger
	process *service.Service
	keeper  valueStore
	// setLayer is Router.SetLayer, which waits for changes that are under way.
	setLayer func(source string, l Layer) error
	lines    *kmsg.Limited // what servers can cause at will
	// find returns an interface of the kernel; open opens the sockets for it.
	find func(name string) (index int, mac ether.MAC, ok bool)
	open func(name string, index int) ([]*os.File, error)
	park func(name string) (*os.File, error)
	// restTime and leastSleep are the constants, but in tests.
	restTime, leastSleep time.Duration
	// news has an element when leases may have changed.
	news signal
	stop chan struct{}
	done sync.WaitGroup

	mu       sync.Mutex
	stopped  bool
	applied  bool
	config   []client.Config
	network  netcfg.Config
	hostName string
	// change is the last of the process, and taken that which it has taken last.
	change, taken *service.Change
	// asleep is set while there is to be no process.
	asleep bool
	links  map[string]*clientLink // by the interface's name
	// leaving are clients that were ended while there was no process: their leases are to be given back.
	leaving []leaving
	// farewells has the interfaces for which the process runs a client of leaving: what that reports
	// is not of the client that may be there by now.
	farewells map[string]bool
	// began is when the process was last told what its clients are.
	began time.Time
}

// clientLink is an interface with a client.
type clientLink struct {
	dhcpLink
	settings client.Settings
	status   client.Status
	lease    *client.Lease
	// parked keeps the kernel from answering what comes to the client's port.
	parked *os.File
	// asked is how many events the process was told of for the client, and seen how many of them its
	// last report had behind it. reported is when that came; zero if none has of this process.
	asked, seen uint64
	reported    time.Time
	// process is the one that has the client, nil if there is none.
	process *clientProcess
	// resume is the lease that the next process goes on with, and events are what it is told then; nil
	// if there is none, or a process has the client.
	resume *client.Lease
	events []client.Event
	// refused says why the router does not take the lease, "" if it does.
	refused string
}

// leaving is a client on an interface that is given up.
type leaving struct {
	name string
	link *clientLink
}

func (l *clientLink) close() {
	l.dhcpLink.close()
	l.parked.Close()
}

// stateClient is the name of the address that a client had, with its interface behind it.
const stateClient = "dhcp-client-"

// keepInterval is the least time between two writes of addresses to flash: a server may give ever
// new ones.
const keepInterval = time.Hour

const (
	// restTime is how long no client reports anything before the process is ended, and the pause before
	// a process that has refused a client is told again. leastSleep is the
	// least time that it must have nothing to do from then on: a start of a process is not for
	// nothing. A server with short leases keeps it running.
	restTime   = 30 * time.Second
	leastSleep = 2 * time.Minute
)

func newDHCPClients(s *service.Supervisor, log *kmsg.Logger, keeper valueStore) *dhcpClients {
	d := &dhcpClients{log: log, keeper: keeper, find: findLink, open: openClient, park: parkClient,
		restTime: restTime, leastSleep: leastSleep, asleep: true, news: newSignal(), stop: make(chan struct{}),
		links: map[string]*clientLink{}, farewells: map[string]bool{}, lines: log.Limited("changes of the router's leases", leaseLines)}
	d.process = s.NewService(client.Spec, service.Options{Label: "DHCP client", Parent: func(l *service.Link) service.Parent {
		return &clientProcess{Process: client.NewProcess(l, d.take), has: map[string]*clientLink{}, ended: d.ended}
	}})
	d.done.Go(d.watch)
	return d
}

// clientProcess is a process, and which clients it has.
type clientProcess struct {
	*client.Process
	has   map[string]*clientLink
	ended func()
}

// Ended is described at service.Parent.
func (p *clientProcess) Ended() { p.ended() }

func openClient(_ string, index int) ([]*os.File, error) {
	return openSockets(
		func() (*os.File, error) { return dhcp.OpenUDP(index, dhcp.ClientPort) },
		func() (*os.File, error) { return dhcp.OpenARP(index) },
	)
}

func parkClient(name string) (*os.File, error) { return dhcp.Park(name, dhcp.ClientPort) }

func (*dhcpClients) Name() string { return "dhcp-client" }

// Health is nil: a router without a lease does what it is for. A process that hangs is replaced.
func (*dhcpClients) Health() error { return nil }

// Taken does not wait: a lease comes when it comes.
func (*dhcpClients) Taken(context.Context) error { return nil }

func (d *dhcpClients) Show(live *console.Live) {
	live.DHCPClients, live.RenewLeases, live.ReleaseLeases = d.states, d.renew, d.release
}

// Apply brings the clients to next. Of a client that is gone the lease is given back.
func (d *dhcpClients) Apply(next console.Config) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return service.ErrStopped
	}
	next = next.Clone()
	if d.applied && reflect.DeepEqual(d.config, next.DHCPClients) && reflect.DeepEqual(d.network, next.Network()) && d.hostName == next.Identity {
		return nil
	}
	d.applied, d.config, d.network, d.hostName = true, next.DHCPClients, next.Network(), next.Identity
	d.update()
	d.news.send()
	return nil
}

// of returns the client of an interface as it is set.
func (d *dhcpClients) of(name string) client.Config {
	i := slices.IndexFunc(d.config, func(c client.Config) bool { return c.Interface == name })
	if i < 0 {
		return client.Config{}
	}
	return d.config[i]
}

// runs reports whether a client can run: a port of a bridge has no address.
func (d *dhcpClients) runs(c client.Config) bool {
	return c.Interface != "" && !c.Disabled && d.network.Actual(c.Interface) == c.Interface
}

// update brings sockets and process to the configuration and the interfaces that there are. The
// caller holds mu.
func (d *dhcpClients) update() {
	// due is set if the process has something to do for it.
	changed, due := false, false
	var old []*clientLink
	for name, l := range d.links {
		index, mac, ok := d.find(name)
		c := d.of(name)
		same := ok && index == l.index && mac == l.mac
		if d.runs(c) && same && reflect.DeepEqual(d.settings(c, mac), l.settings) {
			if !d.asleep && l.sockets == nil { // they are opened again
				changed, due = true, true
			}
			continue
		}
		if d.runs(c) && same { // it says something else of itself
			fresh := *l
			fresh.settings = d.settings(c, mac)
			fresh.resume, fresh.events = nil, nil // the server is told
			d.links[name] = &fresh
			due = true
		} else {
			l.lease = nil
			delete(d.links, name)
			old = append(old, l)
			if l.resume != nil && !d.runs(c) {
				d.leaving = append(d.leaving, leaving{name, l})
				due = true
			}
		}
		changed = true
	}
	for _, c := range d.config {
		index, mac, ok := d.find(c.Interface)
		if !d.runs(c) || d.links[c.Interface] != nil || !ok {
			continue
		}
		l := &clientLink{dhcpLink: dhcpLink{index: index, mac: mac}, settings: d.settings(c, mac), status: client.Searching}
		var err error
		if l.parked, err = d.park(c.Interface); err == nil {
			if l.sockets, err = d.open(c.Interface, index); err != nil {
				l.parked.Close()
			}
		}
		if err != nil {
			d.log.Printf(kmsg.Error, "DHCP client on %s: %v", c.Interface, err)
			continue
		}
		d.links[c.Interface] = l
		changed, due = true, true
	}
	if changed && (due || !d.asleep) {
		d.start(old...)
		return
	}
	for _, l := range old {
		l.close()
	}
}

// start brings the process to the clients that there are, and starts it if it sleeps. What is open for
// the clients that were ended is closed when it is no longer needed. The caller holds mu.
func (d *dhcpClients) start(old ...*clientLink) {
	d.reopen()
	links, farewell := maps.Clone(d.links), slices.Clone(d.leaving)
	d.change = d.process.Set(&service.Desired{Configure: func(ctx context.Context, p service.Parent) error {
		return d.configure(ctx, p.(*clientProcess), links, farewell)
	}})
	d.asleep, d.began = false, time.Now()
	change := d.change
	// A message that hands the sockets over may still be on its way, and so may the farewell of a
	// client whose lease is given back. The last process ends behind it.
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = change.Wait(ctx) // whatever comes of it, they are not needed any more
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, l := range old {
			l.close()
			l.sockets, l.resume = nil, nil // for a process that starts later
		}
		d.leaving = slices.DeleteFunc(d.leaving, func(l leaving) bool { return slices.Contains(old, l.link) })
		if d.change == change {
			d.taken = change
			d.news.send()
		}
	}()
}

// reopen opens the sockets that were closed when the process went to sleep. What cannot be opened is
// tried again by update. The caller holds mu.
func (d *dhcpClients) reopen() {
	reopen := func(name string, l *clientLink) {
		if l.sockets != nil {
			return
		}
		var err error
		if l.sockets, err = d.open(name, l.index); err != nil {
			d.log.Printf(kmsg.Error, "DHCP client on %s: %v", name, err)
		}
	}
	for name, l := range d.links {
		reopen(name, l)
	}
	for _, l := range d.leaving {
		reopen(l.name, l.link)
	}
}

// schedule ends the process when no client has anything to do, and starts it when one has. It returns
// how long that stays so, unless something happens. The caller holds mu.
func (d *dhcpClients) schedule(now time.Time) time.Duration {
	next := time.Hour
	if d.asleep {
		for _, l := range d.links {
			if l.resume == nil {
				next = 0
			} else {
				next = min(next, l.resume.Renew.Sub(now))
			}
		}
		if next <= 0 {
			d.start()
			next = d.restTime
		}
		return next
	}
	if d.taken != d.change {
		return next
	}
	for _, l := range d.links {
		// The process has refused the client, and package service tells it nothing again by itself.
		if l.resume != nil && l.sockets != nil {
			if wait := d.began.Add(d.restTime).Sub(now); wait > 0 {
				return min(next, wait)
			}
			d.start()
			return max(d.restTime, time.Second)
		}
	}
	var awake time.Duration // for which the process stays
	for _, l := range d.links {
		if l.resume != nil || l.reported.IsZero() || l.seen < l.asked || l.status != client.Bound || l.lease == nil || l.lease.Renew.Sub(now) < d.leastSleep {
			return next // a report will come
		}
		awake = max(awake, d.restTime-now.Sub(l.reported))
	}
	if awake > 0 {
		return awake
	}
	d.asleep = true
	d.change = d.process.Set(nil)
	d.taken = d.change
	for _, l := range d.links {
		l.resume = l.lease
		next = min(next, l.lease.Renew.Sub(now))
		// What comes meanwhile would take memory, and be old when it is read.
		l.dhcpLink.close()
		l.sockets = nil
	}
	return next
}

// ended notes that a process is gone: what the next one does is not known yet.
func (d *dhcpClients) ended() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.links {
		l.process, l.reported = nil, time.Time{}
	}
	clear(d.farewells)
}

func (d *dhcpClients) settings(c client.Config, mac ether.MAC) client.Settings {
	s := client.Settings{MAC: mac, ClientID: c.Says(client.OptionClientID)}
	if c.Says(client.OptionHostName) {
		s.HostName = d.hostName
	}
	return s
}

// configure brings a process to the clients on links. The leases of those that leave are given back.
func (d *dhcpClients) configure(ctx context.Context, p *clientProcess, links map[string]*clientLink, farewell []leaving) error {
	for name, l := range p.has {
		if links[name] == nil {
			if err := p.End(ctx, name, true); err != nil {
				return err
			}
			delete(p.has, name)
		} else if links[name] != l {
			delete(p.has, name)
		}
	}
	for _, l := range farewell {
		// The other clients need their leases, whatever becomes of this one.
		if err := d.farewell(ctx, p, l); err != nil {
			d.log.Printf(kmsg.Warning, "DHCP client on %s: the lease is not given back: %v", l.name, err)
		}
	}
	for name, l := range links {
		d.mu.Lock()
		resumes := l.resume != nil // also in a process that was to end, and was wanted again before it did
		d.mu.Unlock()
		if p.has[name] != nil && !resumes {
			continue
		}
		if err := d.startClient(ctx, p, name, l); err != nil {
			return err
		}
	}
	return nil
}

// farewell has a process give the lease of a client back that was ended while there was no process.
func (d *dhcpClients) farewell(ctx context.Context, p *clientProcess, l leaving) error {
	d.mu.Lock()
	s, sockets := l.link.settings, l.link.sockets
	s.Lease = l.link.resume
	if s.Lease == nil || sockets == nil {
		d.mu.Unlock()
		return nil // that was done, or cannot be
	}
	d.farewells[l.name] = true
	d.mu.Unlock()
	if err := p.Start(ctx, l.name, s, sockets[0], sockets[1]); err != nil {
		return err
	}
	if err := p.End(ctx, l.name, true); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l.link.resume = nil
	return nil
}

// startClient has a process run a client, and tells it what has happened while there was none.
func (d *dhcpClients) startClient(ctx context.Context, p *clientProcess, name string, l *clientLink) error {
	s := l.settings
	// A server gives the address of before a restart again, if it is asked for that.
	s.Previous, _ = netip.ParseAddr(d.keeper.get(stateClient + name))
	d.mu.Lock()
	delete(d.farewells, name)
	if l.lease != nil {
		s.Previous = l.lease.Address.Addr()
	}
	s.Lease = l.resume
	l.process, l.asked, l.seen, l.reported = nil, 0, 0, time.Time{}
	sockets := l.sockets
	d.mu.Unlock()
	if sockets == nil {
		return nil // later
	}
	if err := p.Start(ctx, name, s, sockets[0], sockets[1]); err != nil {
		return err
	}
	for {
		d.mu.Lock()
		if len(l.events) == 0 {
			l.resume, l.process = nil, p // from now on it is told at once
			d.mu.Unlock()
			p.has[name] = l
			return nil
		}
		e := l.events[0]
		l.asked++
		d.mu.Unlock()
		if err := p.Tell(ctx, name, e); err != nil {
			return err
		}
		d.mu.Lock()
		l.events = l.events[1:]
		d.mu.Unlock()
	}
}

// take takes what a process says, which package client has checked for itself.
func (d *dhcpClients) take(r client.Report) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.links[r.Interface]
	if l == nil || d.farewells[r.Interface] {
		return nil // its client was ended meanwhile
	}
	l.status, l.seen, l.reported = r.Status, r.Seen, time.Now()
	switch {
	case r.Lease != nil:
		if l.lease == nil || l.lease.Address != r.Lease.Address {
			d.lines.Printf(kmsg.Info, "DHCP client on %s got address %s from %s", r.Interface, r.Lease.Address, r.Lease.Server)
		}
		l.lease = r.Lease
	case !r.Keep && l.lease != nil:
		d.lines.Printf(kmsg.Info, "DHCP client on %s lost address %s", r.Interface, l.lease.Address)
		l.lease = nil
	}
	if l.resume != nil {
		l.resume = l.lease // the process may end before it is known to have the client
	}
	d.news.send()
	return nil
}

// layer is what a lease says of the network.
func (d *dhcpClients) layer(c client.Config, l *client.Lease) (Layer, error) {
	for _, a := range d.network.Addresses {
		// With one network on two interfaces neither is reached.
		if !a.Disabled && a.Interface != c.Interface && a.Address.Overlaps(l.Address) {
			return Layer{}, fmt.Errorf("%s overlaps the network of %s on %s", l.Address, a.Address, a.Interface)
		}
	}
	layer := Layer{Addresses: []netcfg.Address{{Address: l.Address, Interface: c.Interface, Comment: "dhcp"}}}
	add := func(to netip.Prefix, gateway netip.Addr) {
		r := netcfg.Route{Destination: to, Gateway: gateway, Distance: c.Distance, Comment: "dhcp"}
		if !l.Address.Contains(gateway) {
			r.Interface = c.Interface // as providers do that lease a /32
		}
		layer.Routes = append(layer.Routes, r)
	}
	// elsewhere reports whether an address is in a network of another interface. What is on this one
	// may be this lease's own.
	elsewhere := func(gateway netip.Addr) bool {
		return slices.ContainsFunc(d.network.Addresses, func(a netcfg.Address) bool {
			return !a.Disabled && a.Interface != c.Interface && a.Address.Contains(gateway)
		})
	}
	everything := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	hasDefault := false
	for _, r := range l.Routes {
		if r.Destination == everything && c.DefaultRoute == client.DefaultRouteNo {
			continue
		}
		if elsewhere(r.Gateway) {
			continue // packets would go to a host of the LAN
		}
		if within(r.Destination, l.Address) || hasDefault && r.Destination == everything {
			continue // it would take away the link itself
		}
		if slices.ContainsFunc(d.network.Addresses, func(a netcfg.Address) bool {
			return !a.Disabled && within(r.Destination, a.Address)
		}) {
			continue // and so it would hosts of the user's own networks
		}
		hasDefault = hasDefault || r.Destination == everything
		if !slices.ContainsFunc(layer.Routes, func(o netcfg.Route) bool { return o.Destination == r.Destination }) {
			add(r.Destination, r.Gateway)
		}
	}
	if l.Gateway.IsValid() && !elsewhere(l.Gateway) && !hasDefault && (c.DefaultRoute == client.DefaultRouteYes && !l.HasRoutes || c.DefaultRoute == client.DefaultRouteSpecialClassless) {
		add(everything, l.Gateway)
	}
	if !c.NoPeerDNS {
		layer.NameServers = l.NameServers
	}
	if !c.NoPeerNTP {
		for _, a := range l.TimeServers {
			layer.TimeServers = append(layer.TimeServers, a.String())
		}
	}
	return layer, nil
}

// within reports whether all of one network is in another.
func within(inner, outer netip.Prefix) bool {
	return outer.Overlaps(inner) && inner.Bits() >= outer.Bits()
}

// watch tells the router what the leases say, ends those that are over, and follows the
// interfaces, until Stop.
func (d *dhcpClients) watch() {
	told := newToldLayers("dhcp-client", func(source string, l Layer) error { return d.setLayer(source, l) })
	looks := time.NewTicker(linkLook)
	defer looks.Stop()
	var written time.Time // when addresses were last written to flash
	for {
		d.mu.Lock()
		now := time.Now()
		next := d.schedule(now)
		layers := map[string]Layer{}
		for name, l := range d.links {
			if l.lease == nil {
				l.refused = ""
				continue
			}
			left := l.lease.Expires.Sub(now)
			if left <= 0 {
				d.lines.Printf(kmsg.Info, "DHCP client on %s lost address %s: the lease has ended", name, l.lease.Address)
				l.lease = nil
				continue
			}
			next = min(next, left)
			layer, err := d.layer(d.of(name), l.lease)
			if err == nil {
				layers[name] = layer
				err = told.refusal(name)
			} else if l.refused != err.Error() {
				d.lines.Printf(kmsg.Error, "DHCP client on %s: the lease is not used: %v", name, err)
			}
			l.refused = reasonOf(err)
		}
		kept := map[string]string{}
		for name, l := range layers {
			if address := l.Addresses[0].Address.Addr().String(); d.keeper.kept() && d.keeper.get(stateClient+name) != address {
				kept[stateClient+name] = address
			}
		}
		if len(kept) > 0 && !written.IsZero() && now.Sub(written) < keepInterval {
			next = min(next, keepInterval-now.Sub(written))
			kept = nil
		}
		d.mu.Unlock()
		told.tell(layers, func(name string, err error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if l := d.links[name]; l != nil {
				l.refused = reasonOf(err)
			}
			if err != nil {
				d.lines.Printf(kmsg.Error, "DHCP client on %s: %v", name, err)
			}
		})
		if len(kept) > 0 { // that is when an address is new
			written = time.Now()
			if err := d.keeper.put(kept); err != nil {
				d.log.Printf(kmsg.Warning, "DHCP client: %v", err)
			}
		}
		timer := time.NewTimer(next)
		select {
		case <-d.stop:
			timer.Stop()
			return
		case <-d.news:
		case <-timer.C:
		case <-looks.C:
			d.mu.Lock()
			if len(d.config) > 0 && !d.stopped {
				d.update()
			}
			d.mu.Unlock()
		}
		timer.Stop()
	}
}

// linkUp is told that other hosts may be reached by an interface.
func (d *dhcpClients) linkUp(name string) {
	d.mu.Lock()
	running := d.links[name] != nil && !d.stopped
	d.mu.Unlock()
	if running {
		// Whoever tells of links waits for nobody.
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), askTime)
			defer cancel()
			_ = d.tell(ctx, name, client.LinkUp) // without a process there is nobody to tell
		}()
	}
}

var errNoClient = errors.New("failure: the DHCP client does not run")

// tell tells the client of an interface something, and starts its process for it if that sleeps.
func (d *dhcpClients) tell(ctx context.Context, name string, e client.Event) error {
	d.mu.Lock()
	l := d.links[name]
	switch {
	case l != nil && l.resume != nil && !d.stopped:
		if !slices.Contains(l.events, e) {
			l.events = append(l.events, e)
		}
		if d.asleep {
			d.start()
		}
		d.mu.Unlock()
		return nil // it is told when it has started
	case len(d.links) == 0 || l != nil && l.process == nil:
		d.mu.Unlock()
		return errNoClient
	case l == nil:
		d.mu.Unlock()
		return nil
	}
	l.asked++
	p := l.process
	d.mu.Unlock()
	err := p.Tell(ctx, name, e)
	if err != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		l.asked-- // it will not be among those that the client has taken
	}
	return err
}

func (d *dhcpClients) renew(names []string) error   { return d.each(names, client.Renew) }
func (d *dhcpClients) release(names []string) error { return d.each(names, client.Release) }

func (d *dhcpClients) each(names []string, e client.Event) error {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	for _, name := range names {
		if err := d.tell(ctx, name, e); err != nil {
			return err
		}
	}
	return nil
}

// states are what the clients do, in the order of the configuration.
func (d *dhcpClients) states() ([]console.DHCPClientState, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]console.DHCPClientState, len(d.config))
	for i, c := range d.config {
		s := &all[i]
		s.Interface, s.Status = c.Interface, string(client.Stopped)
		s.Slave = !c.Disabled && d.network.Actual(c.Interface) != c.Interface
		l := d.links[c.Interface]
		if l == nil {
			continue
		}
		s.Status = string(l.status)
		if l.refused != "" {
			s.Status = "error"
		}
		if l.lease != nil {
			s.Address, s.Server, s.Gateway = l.lease.Address, l.lease.Server, l.lease.Gateway
			s.NameServers, s.TimeServers = l.lease.NameServers, l.lease.TimeServers
			s.Left = time.Until(l.lease.Expires)
			s.Endless = l.lease.Infinite
		}
	}
	return all, nil
}

// Stop ends the process. The leases stay the router's, for its next start.
func (d *dhcpClients) Stop() {
	d.mu.Lock()
	d.stopped = true
	d.mu.Unlock()
	close(d.stop)
	d.done.Wait()
	d.process.Stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, l := range d.links {
		l.close()
		delete(d.links, name)
	}
}
