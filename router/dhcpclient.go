package router

import (
	"context"
	"errors"
	"fmt"
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
type dhcpClients struct {
	log     *kmsg.Logger
	process *service.Service
	keeper  leaseKeeper
	// setLayer is Router.SetLayer, which waits for changes that are under way.
	setLayer func(source string, l Layer) error
	lines    *kmsg.Limited // what servers can cause at will
	// find returns an interface of the kernel; open opens the sockets for it.
	find func(name string) (index int, mac ether.MAC, ok bool)
	open func(name string, index int) ([]*os.File, error)
	// news has an element when leases may have changed.
	news chan struct{}
	stop chan struct{}
	done sync.WaitGroup

	mu       sync.Mutex
	stopped  bool
	applied  bool
	config   []client.Config
	network  netcfg.Config
	hostName string
	change   *service.Change
	links    map[string]*clientLink // by the interface's name
}

// clientLink is an interface with a client.
type clientLink struct {
	dhcpLink
	settings client.Settings
	status   client.Status
	lease    *client.Lease
	// refused says why the router does not take the lease, "" if it does.
	refused string
}

func (l *clientLink) refuse(err error) {
	if l.refused = ""; err != nil {
		l.refused = err.Error()
	}
}

// stateClient is the name of the address that a client had, with its interface behind it.
const stateClient = "dhcp-client-"

// keepInterval is the least time between two writes of addresses to flash: a server may give ever
// new ones.
const keepInterval = time.Hour

func newDHCPClients(s *service.Supervisor, log *kmsg.Logger, keeper leaseKeeper) *dhcpClients {
	d := &dhcpClients{log: log, keeper: keeper, find: findLink, open: openClient, news: make(chan struct{}, 1), stop: make(chan struct{}),
		links: map[string]*clientLink{}, lines: log.Limited("changes of the router's leases", leaseLines)}
	d.process = s.NewService(client.Spec, service.Options{Label: "DHCP client", Parent: func(l *service.Link) service.Parent {
		return &clientProcess{Process: client.NewProcess(l, d.take), has: map[string]*clientLink{}}
	}})
	d.done.Go(d.watch)
	return d
}

// clientProcess is a process, and which clients it has.
type clientProcess struct {
	*client.Process
	has map[string]*clientLink
}

func openClient(name string, index int) ([]*os.File, error) {
	return openSockets(
		func() (*os.File, error) { return dhcp.OpenUDP(index, dhcp.ClientPort) },
		func() (*os.File, error) { return dhcp.OpenARP(index) },
		func() (*os.File, error) { return dhcp.Park(name, dhcp.ClientPort) },
	)
}

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
	d.wake()
	return nil
}

func (d *dhcpClients) wake() {
	select {
	case d.news <- struct{}{}:
	default: // it wakes anyway
	}
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
	changed := false
	var old []*clientLink
	for name, l := range d.links {
		index, mac, ok := d.find(name)
		c := d.of(name)
		same := ok && index == l.index && mac == l.mac
		if d.runs(c) && same && reflect.DeepEqual(d.settings(c, mac), l.settings) {
			continue
		}
		if !d.runs(c) || !same {
			l.lease = nil
		}
		if d.runs(c) && same { // it says something else of itself
			fresh := *l
			fresh.settings = d.settings(c, mac)
			d.links[name] = &fresh
		} else {
			delete(d.links, name)
			old = append(old, l)
		}
		changed = true
	}
	for _, c := range d.config {
		index, mac, ok := d.find(c.Interface)
		if !d.runs(c) || d.links[c.Interface] != nil || !ok {
			continue
		}
		sockets, err := d.open(c.Interface, index)
		if err != nil {
			d.log.Printf(kmsg.Error, "DHCP client on %s: %v", c.Interface, err)
			continue
		}
		d.links[c.Interface] = &clientLink{dhcpLink: dhcpLink{index, mac, sockets}, settings: d.settings(c, mac), status: client.Searching}
		changed = true
	}
	if !changed {
		return
	}
	if len(d.links) == 0 && !slices.ContainsFunc(d.config, d.runs) && len(old) == 0 {
		d.change = d.process.Set(nil)
		return
	}
	links := map[string]*clientLink{}
	for name, l := range d.links {
		links[name] = l
	}
	d.change = d.process.Set(&service.Desired{Configure: func(ctx context.Context, p service.Parent) error {
		return d.configure(ctx, p.(*clientProcess), links)
	}})
	change := d.change
	// A message that hands the sockets over may still be on its way, and so may the farewell of a
	// client whose lease is given back. The last process ends behind it.
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = change.Wait(ctx) // whatever comes of it, they are not needed any more
		for _, l := range old {
			l.close()
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if !d.stopped && d.change == change && len(d.links) == 0 && !slices.ContainsFunc(d.config, d.runs) {
			d.change = d.process.Set(nil)
		}
	}()
}

func (d *dhcpClients) settings(c client.Config, mac ether.MAC) client.Settings {
	s := client.Settings{MAC: mac, ClientID: c.Says(client.OptionClientID)}
	if c.Says(client.OptionHostName) {
		s.HostName = d.hostName
	}
	return s
}

// configure brings a process to the clients on links.
func (d *dhcpClients) configure(ctx context.Context, p *clientProcess, links map[string]*clientLink) error {
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
	for name, l := range links {
		if p.has[name] != nil {
			continue
		}
		s := l.settings
		// A server gives the address of before a restart again, if it is asked for that.
		s.Previous, _ = netip.ParseAddr(d.keeper.get(stateClient + name))
		d.mu.Lock()
		if l.lease != nil {
			s.Previous = l.lease.Address.Addr()
		}
		d.mu.Unlock()
		if err := p.Start(ctx, name, s, l.sockets[0], l.sockets[1]); err != nil {
			return err
		}
		p.has[name] = l
	}
	return nil
}

// take takes what a process says, which package client has checked for itself.
func (d *dhcpClients) take(r client.Report) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.links[r.Interface]
	if l == nil {
		return nil // its client was ended meanwhile
	}
	l.status = r.Status
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
	d.wake()
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
		next := time.Hour
		d.mu.Lock()
		now := time.Now()
		layers := map[string]Layer{}
		for name, l := range d.links {
			if l.lease == nil {
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
			l.refuse(err)
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
				l.refuse(err)
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

// linkChanged is told of each change of a port's link.
func (d *dhcpClients) linkChanged(port string, up bool) {
	d.mu.Lock()
	running := d.links[port] != nil && !d.stopped
	d.mu.Unlock()
	if up && running {
		// Whoever tells of links waits for nobody.
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), askTime)
			defer cancel()
			_ = d.ask(func(p *client.Process) error { return p.LinkUp(ctx, port) }) // without a process there is nobody to tell
		}()
	}
}

var errNoClient = errors.New("failure: the DHCP client does not run")

// ask asks the process for something.
func (d *dhcpClients) ask(f func(p *client.Process) error) error {
	p, ok := d.process.Parent().(*clientProcess)
	if !ok {
		return errNoClient
	}
	return f(p.Process)
}

func (d *dhcpClients) renew(names []string) error   { return d.each(names, (*client.Process).Renew) }
func (d *dhcpClients) release(names []string) error { return d.each(names, (*client.Process).Release) }

func (d *dhcpClients) each(names []string, f func(p *client.Process, ctx context.Context, name string) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	for _, name := range names {
		if err := d.ask(func(p *client.Process) error { return f(p, ctx, name) }); err != nil {
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
