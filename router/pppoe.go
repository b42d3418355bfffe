package router

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/pppoe"
	"github.com/postern-router/postern/service"
)

// pppoeClients are the PPPoE clients of this router. PID 1 opens their sockets, and has their sessions
// and interfaces in the kernel: all of that is over when the process that speaks for them ends.
type pppoeClients struct {
	log     *kmsg.Logger
	process *service.Service
	// setLayer is Router.SetLayer, which waits for changes that are under way.
	setLayer func(source string, l Layer) error
	lines    *kmsg.Limited // what servers can cause at will
	// find returns an interface of the kernel, discover opens the socket for it, and open a session.
	find     func(name string) (index int, mac ether.MAC, ok bool)
	discover func(index int) (*os.File, error)
	open     func(device string, s pppoe.Session) (pppChannel, error)
	// attach hands a descriptor of a session over.
	attach func(p *pppoe.Process, name string, s pppoe.Session, f *os.File)
	// news has an element when connections may have changed.
	news signal
	stop chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	applied bool
	config  []pppoe.Config
	network netcfg.Config
	change  *service.Change
	links   map[string]*pppoeLink // by the client's name
}

// pppChannel is a session in the kernel.
type pppChannel interface {
	// File has the session's control packets.
	File() *os.File
	// OpenUnit makes the interface of that name; the file has the control packets of it.
	OpenUnit(name string, mtu int) (*os.File, error)
	Close()
}

type kernelChannel struct{ *pppoe.Channel }

func (k kernelChannel) File() *os.File { return k.Control }

func (k kernelChannel) OpenUnit(name string, mtu int) (*os.File, error) {
	return k.Channel.OpenUnit(func(fd int) error { return netcfg.MakePPP(name, mtu, fd) })
}

func openChannel(device string, s pppoe.Session) (pppChannel, error) {
	c, err := pppoe.OpenChannel(device, s)
	if err != nil {
		return nil, err
	}
	return kernelChannel{c}, nil
}

// pppoeLink is a client that runs.
type pppoeLink struct {
	index    int
	mac      ether.MAC
	socket   *os.File
	settings pppoe.Settings
	*connection
}

// connection is what a client has. It outlives a change of the client's settings, up to the process's
// next report.
type connection struct {
	status      pppoe.Status
	reason      string
	ac, service string
	session     pppoe.Session
	channel     pppChannel
	unit        *os.File
	link        *pppoe.Link
	since       time.Time
	// refused says why the router does not take what the server gives, "" if it does.
	refused string
}

// close ends the session in the kernel, and with it its interface.
func (c *connection) close() {
	if c.unit != nil {
		c.unit.Close()
	}
	if c.channel != nil {
		c.channel.Close()
	}
	c.session, c.channel, c.unit, c.link, c.refused = pppoe.Session{}, nil, nil, nil, ""
}

func newPPPoEClients(s *service.Supervisor, log *kmsg.Logger) *pppoeClients {
	d := &pppoeClients{log: log, find: findLink, discover: pppoe.OpenDiscovery, open: openChannel, attach: attach, news: newSignal(), stop: make(chan struct{}),
		links: map[string]*pppoeLink{}, lines: log.Limited("changes of PPPoE connections", leaseLines)}
	d.process = s.NewService(pppoe.Spec, service.Options{Label: "PPPoE client", Parent: func(l *service.Link) service.Parent {
		p := &pppoeProcess{has: map[string]*pppoeLink{}, clients: d}
		p.Process = pppoe.NewProcess(l, func(r pppoe.Report) error { return d.take(p.Process, r) })
		return p
	}})
	d.done.Go(d.watch)
	return d
}

// pppoeProcess is a process, and which clients it has.
type pppoeProcess struct {
	*pppoe.Process
	has     map[string]*pppoeLink
	clients *pppoeClients
}

// Ended ends the connections: nobody speaks for them any more. The next process tells the servers.
func (p *pppoeProcess) Ended() {
	d := p.clients
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, l := range d.links {
		if l.session != (pppoe.Session{}) {
			d.lines.Printf(kmsg.Warning, "PPPoE client %s: its process has ended", name)
			fresh := *l
			fresh.settings.Previous = l.session
			d.links[name] = &fresh
		}
		l.connection.close()
		l.status = pppoe.Disconnected
	}
	d.news.send()
}

func (*pppoeClients) Name() string { return "pppoe-client" }

// Health is nil: a router without a connection does what it is for. A process that hangs is replaced.
func (*pppoeClients) Health() error { return nil }

// Taken does not wait: a connection comes when it comes.
func (*pppoeClients) Taken(context.Context) error { return nil }

func (d *pppoeClients) Show(live *console.Live) { live.PPPoEClients = d.states }

// Apply brings the clients to next. Connections of a client that is gone are ended.
func (d *pppoeClients) Apply(next console.Config) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return service.ErrStopped
	}
	next = next.Clone()
	if d.applied && reflect.DeepEqual(d.config, next.PPPoEClients) && reflect.DeepEqual(d.network, next.Network()) {
		return nil
	}
	d.applied, d.config, d.network = true, next.PPPoEClients, next.Network()
	d.update()
	d.news.send()
	return nil
}

// of returns the client of that name as it is set.
func (d *pppoeClients) of(name string) pppoe.Config {
	i := slices.IndexFunc(d.config, func(c pppoe.Config) bool { return c.Name == name })
	if i < 0 {
		return pppoe.Config{}
	}
	return d.config[i]
}

// runs reports whether a client can run: a port of a bridge gets no packets itself.
func (d *pppoeClients) runs(c pppoe.Config) bool {
	return c.Interface != "" && !c.Disabled && d.network.Actual(c.Interface) == c.Interface
}

func pppoeSettings(c pppoe.Config, mac ether.MAC) pppoe.Settings {
	return pppoe.Settings{MAC: mac, Service: c.Service, AC: c.AC, User: c.User, Password: c.Password,
		MTU: c.MTU(), MRU: c.MRU(), Allow: c.Allow, Keepalive: c.Keepalive, NameServers: c.PeerDNS}
}

// update brings sockets and process to the configuration and the interfaces that there are. The
// caller holds mu.
func (d *pppoeClients) update() {
	changed := false
	var old []*pppoeLink
	for name, l := range d.links {
		c := d.of(name)
		index, mac, ok := d.find(c.Interface)
		same := ok && index == l.index && mac == l.mac
		settings := pppoeSettings(c, mac)
		settings.Previous = l.settings.Previous
		if d.runs(c) && same && settings == l.settings {
			continue
		}
		if d.runs(c) && same { // it dials otherwise
			fresh := *l
			fresh.settings = settings
			d.links[name] = &fresh
		} else {
			delete(d.links, name)
			old = append(old, l)
		}
		changed = true
	}
	for _, c := range d.config {
		index, mac, ok := d.find(c.Interface)
		if !d.runs(c) || d.links[c.Name] != nil || !ok {
			continue
		}
		socket, err := d.discover(index)
		if err != nil {
			d.log.Printf(kmsg.Error, "PPPoE client %s: %v", c.Name, err)
			continue
		}
		d.links[c.Name] = &pppoeLink{index: index, mac: mac, socket: socket, settings: pppoeSettings(c, mac), connection: &connection{status: pppoe.Dialing}}
		changed = true
	}
	if !changed {
		return
	}
	if d.idle() && len(old) == 0 {
		d.change = d.process.Set(nil)
		return
	}
	d.hand()
	change := d.change
	// The farewell of a client that is gone may still be on its way, over its session. The last
	// process ends behind it.
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = change.Wait(ctx) // whatever comes of it, they are not needed any more
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, l := range old {
			l.connection.close()
			l.socket.Close()
		}
		if !d.stopped && d.change == change && d.idle() {
			d.change = d.process.Set(nil)
		}
	}()
}

func (d *pppoeClients) idle() bool {
	return len(d.links) == 0 && !slices.ContainsFunc(d.config, d.runs)
}

// hand has the process brought to the clients. The caller holds mu.
func (d *pppoeClients) hand() {
	d.change = d.process.Set(&service.Desired{Configure: func(ctx context.Context, p service.Parent) error {
		return d.configure(ctx, p.(*pppoeProcess))
	}})
}

// configure brings a process to the clients.
func (d *pppoeClients) configure(ctx context.Context, p *pppoeProcess) error {
	d.mu.Lock()
	links := map[string]*pppoeLink{}
	for name, l := range d.links {
		links[name] = l
	}
	d.mu.Unlock()
	for name, l := range p.has {
		if links[name] == nil {
			if err := p.End(ctx, name); err != nil {
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
		if err := p.Start(ctx, name, l.settings, l.socket); err != nil {
			return err
		}
		p.has[name] = l
	}
	return nil
}

// take takes what a process says, which package pppoe has checked for itself. An error ends the
// client's session.
func (d *pppoeClients) take(p *pppoe.Process, r pppoe.Report) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.links[r.Name]
	if l == nil || d.stopped {
		return nil // its client was ended meanwhile
	}
	defer d.news.send()
	c := d.of(r.Name)
	was := l.link
	if r.Session != l.session {
		l.connection.close()
		if r.Session != (pppoe.Session{}) {
			channel, err := d.open(c.Interface, r.Session)
			if err != nil {
				return err
			}
			l.session, l.channel = r.Session, channel
			d.attach(p, r.Name, r.Session, channel.File())
		}
	}
	if r.Link != nil && l.unit == nil {
		if _, err := d.layer(c, r.Link); err != nil {
			return err
		}
		unit, err := l.channel.OpenUnit(c.Name, r.Link.MTU)
		if err != nil {
			return err
		}
		l.unit, l.since = unit, time.Now()
		d.attach(p, r.Name, r.Session, unit)
	}
	if r.Reason != l.reason && r.Reason != "" {
		d.lines.Printf(kmsg.Warning, "PPPoE client %s: %s", r.Name, r.Reason)
	}
	if r.Link != nil && was == nil {
		d.lines.Printf(kmsg.Info, "PPPoE client %s got address %s from %q (%s)", r.Name, r.Link.Local, r.AC, r.Session.Server)
	}
	if r.Link == nil && was != nil {
		d.lines.Printf(kmsg.Info, "PPPoE client %s lost address %s", r.Name, was.Local)
	}
	l.status, l.reason, l.ac, l.service, l.link = r.Status, r.Reason, r.AC, r.Service, r.Link
	return nil
}

// attach hands a descriptor over. The process waits for the answer to its report meanwhile.
func attach(p *pppoe.Process, name string, s pppoe.Session, f *os.File) {
	// The file may be closed by then, and the process gone: then there is no session either.
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), askTime)
		defer cancel()
		_ = p.Attach(ctx, name, s, f)
	}()
}

// layer is what a connection says of the network.
func (d *pppoeClients) layer(c pppoe.Config, l *pppoe.Link) (Layer, error) {
	var layer Layer
	elsewhere := func(a netip.Addr) *netcfg.Address {
		i := slices.IndexFunc(d.network.Addresses, func(o netcfg.Address) bool { return !o.Disabled && o.Interface != c.Name && o.Address.Contains(a) })
		if i < 0 {
			return nil
		}
		return &d.network.Addresses[i]
	}
	if o := elsewhere(l.Local); o != nil {
		return layer, fmt.Errorf("%s is in the network of %s on %s", l.Local, o.Address, o.Interface)
	}
	const comment = "pppoe"
	layer.Addresses = []netcfg.Address{{Address: netip.PrefixFrom(l.Local, 32), Interface: c.Name, Comment: comment}}
	if l.Remote.IsValid() && elsewhere(l.Remote) == nil {
		layer.Routes = append(layer.Routes, netcfg.Route{Destination: netip.PrefixFrom(l.Remote, 32), Interface: c.Name, Distance: 1, Comment: comment})
	}
	if c.DefaultRoute {
		layer.Routes = append(layer.Routes, netcfg.Route{Destination: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Interface: c.Name, Distance: c.Distance, Comment: comment})
	}
	if c.PeerDNS {
		layer.NameServers = l.NameServers
	}
	return layer, nil
}

// watch tells the router what the connections say, and follows the interfaces, until Stop.
func (d *pppoeClients) watch() {
	told := newToldLayers("pppoe-client", func(source string, l Layer) error { return d.setLayer(source, l) })
	looks := time.NewTicker(linkLook)
	defer looks.Stop()
	for {
		d.mu.Lock()
		layers := map[string]Layer{}
		for name, l := range d.links {
			if l.link == nil || l.unit == nil {
				continue
			}
			layer, err := d.layer(d.of(name), l.link)
			if err == nil {
				layers[name] = layer
				err = told.refusal(name)
			} else if l.refused != err.Error() {
				d.lines.Printf(kmsg.Error, "PPPoE client %s: the address is not used: %v", name, err)
			}
			l.refused = reasonOf(err)
		}
		d.mu.Unlock()
		told.tell(layers, func(name string, err error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if l := d.links[name]; l != nil {
				l.refused = reasonOf(err)
			}
			if err != nil {
				d.lines.Printf(kmsg.Error, "PPPoE client %s: %v", name, err)
			}
		})
		select {
		case <-d.stop:
			return
		case <-d.news:
		case <-looks.C:
			d.mu.Lock()
			if len(d.config) > 0 && !d.stopped {
				d.update()
			}
			d.mu.Unlock()
		}
	}
}

// linkUp is told that other hosts may be reached by an interface.
func (d *pppoeClients) linkUp(by string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.links {
		if d.stopped || d.of(name).Interface != by {
			continue
		}
		// Whoever tells of links waits for nobody.
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), askTime)
			defer cancel()
			if p, ok := d.process.Parent().(*pppoeProcess); ok {
				_ = p.LinkUp(ctx, name) // without a process there is nobody to tell
			}
		}()
	}
}

// states are what the clients do, in the order of the configuration.
func (d *pppoeClients) states() ([]console.PPPoEClientState, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]console.PPPoEClientState, len(d.config))
	for i, c := range d.config {
		s := &all[i]
		s.Name, s.Status = c.Name, string(pppoe.Disconnected)
		s.Slave = !c.Disabled && d.network.Actual(c.Interface) != c.Interface
		l := d.links[c.Name]
		if l == nil {
			continue
		}
		s.Status = string(l.status)
		switch {
		case l.refused != "":
			s.Status = string(pppoe.Disconnected) + " - " + l.refused
		case l.status == pppoe.Disconnected && l.reason != "":
			s.Status += " - " + l.reason
		}
		if l.session != (pppoe.Session{}) {
			s.AC, s.Service, s.Server = l.ac, l.service, l.session.Server
		}
		if l.link != nil {
			s.Local, s.Remote, s.NameServers, s.MTU, s.MRU = l.link.Local, l.link.Remote, l.link.NameServers, l.link.MTU, l.link.MRU
			s.Uptime = time.Since(l.since)
		}
	}
	return all, nil
}

// Stop ends the connections in order, and the process.
func (d *pppoeClients) Stop() {
	close(d.stop)
	d.done.Wait()
	d.mu.Lock()
	d.stopped = true
	d.mu.Unlock()
	d.process.Stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, l := range d.links {
		l.connection.close()
		l.socket.Close()
		delete(d.links, name)
	}
}
