package router

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/dhcp/server"
	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/service"
)

const (
	// leaseInterval is the least time between two writes of the leases to flash. That holds for leaseWrites; then one is
	// given back each leaseRefill. So two erase blocks of 100,000 cycles last for 22 years, whoever comes and goes.
	leaseInterval = 5 * time.Minute
	leaseWrites   = 24
	leaseRefill   = time.Hour
	// stateLeases is the name of their value.
	stateLeases = "leases"
	// leaseBurst is how many leases the log is told of at once, leasePause the time after which it
	// is told of one more.
	leaseBurst = 20
	leasePause = 10 * time.Second
)

// leaseLines is how many lines about leases the log takes.
var leaseLines = kmsg.Limit{Burst: leaseBurst, Pause: leasePause}

// dhcpService is the DHCP server on this router. PID 1 opens the sockets, and knows all leases.
type dhcpService struct {
	log     *kmsg.Logger
	process *service.Service
	keeper  valueStore
	// find returns an interface of the kernel; open opens the sockets for it, and openARP the one that a process has besides:
	// what that gets would fill its buffer while the server sleeps.
	find    func(name string) (index int, mac ether.MAC, ok bool)
	open    func(name string, index int) ([]*os.File, error)
	openARP func(index int) (*os.File, error)
	// onNames is told that hostNames may have changed. It does not wait.
	onNames func()
	// setLayer is Router.SetLayer, which waits for changes that are under way.
	setLayer func(source string, l Layer) error
	// arpNews holds an element when the leases that add-arp is about may have changed.
	arpNews signal
	stop    chan struct{}
	done    sync.WaitGroup

	mu      sync.Mutex
	applied bool
	stopped bool
	config  server.Config
	network netcfg.Config
	names   []netip.Addr
	plan    server.Plan
	links   map[string]*dhcpLink
	change  *service.Change
	leases  map[netip.Addr]*lease
	// loaded is set once the kept leases have been read. unkept means that a lease has changed
	// since they were written.
	loaded, unkept bool
	lines          *kmsg.Limited
}

// lease is an address that the process has given.
type lease struct {
	server.Binding
	until, seen time.Time
	// since is when the client first called itself by its present name.
	since time.Time
	// granted is how long the client may keep it without asking again, from when it got it.
	granted time.Duration
}

func newDHCPService(s *service.Supervisor, log *kmsg.Logger, keeper valueStore, onNames func()) *dhcpService {
	d := &dhcpService{log: log, keeper: keeper, find: findLink, open: openServed, openARP: dhcp.OpenARP, onNames: onNames, arpNews: newSignal(), stop: make(chan struct{}),
		links: map[string]*dhcpLink{}, leases: map[netip.Addr]*lease{}, lines: log.Limited("changes of leases", leaseLines)}
	d.process = s.NewService(server.Spec, service.Options{Label: "DHCP server", Parent: func(l *service.Link) service.Parent {
		return &dhcpProcess{Process: server.NewProcess(l, d.take), has: map[int]*dhcpLink{}}
	}})
	d.done.Go(d.watch)
	d.done.Go(d.watchARP)
	return d
}

// dhcpProcess is a process, and what it has been told.
type dhcpProcess struct {
	*server.Process
	has      map[int]*dhcpLink
	restored bool
}

func openServed(name string, index int) ([]*os.File, error) {
	return openSockets(
		func() (*os.File, error) { return dhcp.OpenUDP(index, dhcp.ServerPort) },
		func() (*os.File, error) { return dhcp.Park(name, dhcp.ServerPort) },
	)
}

func (*dhcpService) Name() string { return "dhcp-server" }

// Health is nil: the supervisor starts a process again that has ended or hangs, and hosts that have
// their addresses would only lose by a restart of the router.
func (*dhcpService) Health() error { return nil }

// Show wraps what the console asks about invalid items, as one kind of them is the service's.
func (d *dhcpService) Show(live *console.Live) {
	live.Leases, live.RemoveLeases = d.list, d.remove
	others := live.Invalid
	live.Invalid = func(menu string) ([]int, error) {
		if menu == "ip dhcp-server" {
			return d.invalid(), nil
		}
		return others(menu)
	}
}

// Apply brings the servers to next.
func (d *dhcpService) Apply(next console.Config) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return service.ErrStopped
	}
	if !d.loaded {
		d.loaded = true
		d.load()
	}
	d.arpNews.send()
	d.config, d.network, d.names = next.Clone().DHCPServer, next.Clone().Network(), slices.Clone(next.DNS)
	return d.update()
}

// update brings sockets and process to the configuration and the interfaces that there are. The
// caller holds mu.
func (d *dhcpService) update() error {
	wanted := map[string]bool{}
	for _, s := range d.config.Servers {
		if !s.Disabled && len(wanted) < server.MaxLinks {
			wanted[d.network.Actual(s.Interface)] = true
		}
	}
	var old []*dhcpLink
	fresh := false
	for name, l := range d.links {
		if index, mac, ok := d.find(name); !wanted[name] || !ok || index != l.index || mac != l.mac {
			old = append(old, l)
			delete(d.links, name)
		}
	}
	for name := range wanted {
		index, mac, ok := d.find(name)
		if d.links[name] != nil || !ok {
			continue
		}
		sockets, err := d.open(name, index)
		if err != nil {
			d.log.Printf(kmsg.Error, "DHCP server on %s: %v", name, err)
			continue
		}
		d.links[name], fresh = &dhcpLink{index, mac, sockets}, true
	}
	plan := d.config.Compile(func(name string) (server.LinkState, bool) {
		actual := d.network.Actual(name)
		l := d.links[actual]
		if l == nil {
			return server.LinkState{}, false
		}
		state := server.LinkState{Index: l.index}
		for _, a := range d.network.Addresses {
			if !a.Disabled && d.network.Actual(a.Interface) == actual {
				state.Prefixes = append(state.Prefixes, a.Address)
			}
		}
		return state, true
	}, d.names)
	if d.applied && !fresh && len(old) == 0 && reflect.DeepEqual(plan, d.plan) {
		return nil
	}
	if len(plan.Servers) > 0 && len(d.plan.Servers) == 0 && !d.keeper.kept() {
		d.tellUnkept()
	}
	d.applied, d.plan = true, plan
	if len(plan.Servers) == 0 {
		d.change = d.process.Set(nil)
	} else {
		links := map[int]*dhcpLink{}
		for _, l := range d.links {
			links[l.index] = l
		}
		var listeners []*os.File
		for _, l := range d.links {
			listeners = append(listeners, l.sockets[0])
		}
		d.change = d.process.Set(&service.Desired{Listeners: listeners, Configure: func(ctx context.Context, p service.Parent) error {
			return d.configure(ctx, p.(*dhcpProcess), plan, links)
		}})
	}
	if len(old) > 0 {
		// A message that hands them over may still be on its way.
		change := d.change
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_ = change.Wait(ctx) // whatever comes of it, they are not needed any more
			for _, l := range old {
				l.close()
			}
		}()
	}
	return nil
}

// configure brings a process to plan, on links.
func (d *dhcpService) configure(ctx context.Context, p *dhcpProcess, plan server.Plan, links map[int]*dhcpLink) error {
	if !p.restored {
		if err := p.Restore(ctx, d.bindings()); err != nil {
			return err
		}
		p.restored = true
	}
	// Before the sockets: the message that has started the process waits in one of them.
	if err := p.Plan(ctx, plan); err != nil {
		return err
	}
	for index, l := range p.has {
		if links[index] != l {
			if err := p.Link(ctx, index, l.mac); err != nil {
				return err
			}
			delete(p.has, index)
		}
	}
	for index, l := range links {
		if p.has[index] == nil {
			arp, err := d.openARP(index)
			if err != nil {
				return err
			}
			err = p.Link(ctx, index, l.mac, l.sockets[0], arp)
			arp.Close() // the process has a copy
			if err != nil {
				return err
			}
			p.has[index] = l
		}
	}
	return nil
}

// Taken waits until the process has the last change.
func (d *dhcpService) Taken(ctx context.Context) error {
	d.mu.Lock()
	change := d.change
	d.mu.Unlock()
	return change.Wait(ctx)
}

// watch follows the interfaces and keeps the leases, until Stop.
func (d *dhcpService) watch() {
	looks := time.NewTicker(linkLook)
	defer looks.Stop()
	// next is when the leases may be written again, spent when all writes will have been given back.
	var next, spent time.Time
	for {
		select {
		case <-d.stop:
			return
		case <-looks.C:
		}
		d.mu.Lock()
		if len(d.config.Servers) > 0 && !d.stopped {
			_ = d.update() // it has said so in the log
		}
		d.expire()
		now := time.Now()
		due := d.unkept && !now.Before(next) && !now.Before(spent.Add(-(leaseWrites-1)*leaseRefill))
		d.mu.Unlock()
		d.onNames() // leases may have ended
		d.arpNews.send()
		if due && d.keep() {
			next = now.Add(leaseInterval)
			if spent.Before(now) {
				spent = now
			}
			spent = spent.Add(leaseRefill)
		}
	}
}

// expire forgets the leases that have ended. A process that runs says so too, somewhat sooner. The
// caller holds mu.
func (d *dhcpService) expire() {
	for address, l := range d.leases {
		if time.Until(l.until) > -linkLook {
			continue
		}
		d.forget(address, l)
	}
}

// forget forgets a lease that has ended. The caller holds mu.
func (d *dhcpService) forget(address netip.Addr, l *lease) {
	if l.Status == server.Bound {
		d.lines.Printf(kmsg.Info, "%s deassigned %s from %s", l.Server, l.Address, strings.ToUpper(l.MAC.String()))
		d.unkept = true
	}
	delete(d.leases, address)
}

// Stop ends the process. The leases are kept by then.
func (d *dhcpService) Stop() {
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

// invalid are the servers that serve nobody though they are enabled.
func (d *dhcpService) invalid() []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []int
	for i, s := range d.config.Servers {
		if !s.Disabled && !slices.ContainsFunc(d.plan.Servers, func(p server.PlanServer) bool { return p.Name == s.Name }) {
			all = append(all, i)
		}
	}
	return all
}

// bindings are the leases, as a new process is told of them.
func (d *dhcpService) bindings() []server.Binding {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []server.Binding
	for _, l := range d.leases {
		b := l.Binding
		if b.Left = time.Until(l.until); b.Status == server.Bound && b.Left > 0 {
			all = append(all, b)
		}
	}
	return all
}

// list is what the console shows. A process that does not answer keeps nobody from seeing what it said before.
func (d *dhcpService) list() ([]console.LeaseState, error) {
	if p, ok := d.process.Parent().(*dhcpProcess); ok {
		ctx, cancel := service.WithTimeout(context.Background(), askTime)
		_ = p.Tell(ctx)
		cancel()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []console.LeaseState
	for _, l := range d.leases {
		b := l.Binding
		if b.Left = time.Until(l.until); b.Left > 0 {
			all = append(all, console.LeaseState{Binding: b, Seen: time.Since(l.seen)})
		}
	}
	slices.SortFunc(all, func(a, b console.LeaseState) int { return a.Address.Compare(b.Address) })
	return all, nil
}

// remove has the process forget leases, for a user.
func (d *dhcpService) remove(all []netip.Addr) error {
	defer d.onNames()
	defer d.arpNews.send()
	p, ok := d.process.Parent().(*dhcpProcess)
	if !ok {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, a := range all {
			delete(d.leases, a)
		}
		d.unkept = true
		return nil
	}
	ctx, cancel := service.WithTimeout(context.Background(), askTime)
	defer cancel()
	if err := p.Remove(ctx, all); err != nil {
		return fmt.Errorf("dhcp-server: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range all {
		delete(d.leases, a) // the process will say so, too
	}
	d.unkept = true
	return nil
}

// take takes what the process says has changed. It can give away only what the configuration lets
// it.
func (d *dhcpService) take(changes []server.Change) error {
	defer d.onNames()
	defer d.arpNews.send()
	d.mu.Lock()
	defer d.mu.Unlock()
	var refused error
	for _, c := range changes {
		old := d.leases[c.Address]
		if c.Status == 0 {
			if old != nil {
				d.forget(c.Address, old)
			}
			continue
		}
		// What has left the table may come behind what has taken its place.
		if !d.plausible(c) || old == nil && len(d.leases) >= 2*server.MaxLeases {
			refused = fmt.Errorf("dhcp-server: %s for %s cannot be", c.Address, c.MAC)
			continue
		}
		l := &lease{Binding: c, until: time.Now().Add(c.Left), seen: time.Now(), since: time.Now(), granted: c.Left}
		if old != nil && old.MAC == c.MAC && old.HostName == c.HostName {
			l.since = old.since
		}
		same := old != nil && old.Status == c.Status && old.MAC == c.MAC && old.ClientID == c.ClientID && old.HostName == c.HostName && old.Server == c.Server
		if c.Status == server.Bound && !same {
			d.unkept = true
			if old == nil || old.Status != server.Bound || old.MAC != c.MAC {
				line := fmt.Sprintf("%s assigned %s for %s %s", c.Server, c.Address, strings.ToUpper(c.MAC.String()), c.HostName)
				d.lines.Printf(kmsg.Info, "%s", strings.TrimSpace(line))
			}
		}
		d.leases[c.Address] = l
	}
	return refused
}

// watchARP gives the router an entry of the ARP table for each lease of a server with add-arp, until Stop.
func (d *dhcpService) watchARP() {
	told := newToldLayers("dhcp-server", func(source string, l Layer) error { return d.setLayer(source, l) })
	// Hosts could have the number go up and down.
	rarely := d.log.Limited("warnings of add-arp", kmsg.Limit{Burst: 3, Pause: time.Hour})
	full := false
	for {
		select {
		case <-d.stop:
			return
		case <-d.arpNews:
		}
		layers := map[string]Layer{}
		all := d.arpEntries()
		was := full
		if full = len(all) > maxLayerNeighbors; full {
			if !was {
				rarely.Printf(kmsg.Warning, "add-arp: expected at most %d leases, got %d: the highest addresses have no entry", maxLayerNeighbors, len(all))
			}
			all = all[:maxLayerNeighbors]
		}
		if len(all) > 0 {
			layers["arp"] = Layer{Neighbors: all}
		}
		told.tell(layers, func(_ string, err error) {
			if err != nil {
				d.log.Printf(kmsg.Warning, "add-arp: %v", err)
			}
		})
	}
}

// arpEntries are those of the leases, in the order of their addresses.
func (d *dhcpService) arpEntries() []netcfg.StaticNeighbor {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []netcfg.StaticNeighbor
	for _, l := range d.leases {
		i := slices.IndexFunc(d.config.Servers, func(s server.Server) bool { return s.Name == l.Server && s.AddARP && !s.Disabled && !s.Relay.IsValid() })
		if i < 0 || l.Status != server.Bound || time.Until(l.until) <= 0 || !l.MAC.IsHost() {
			continue
		}
		all = append(all, netcfg.StaticNeighbor{Address: l.Address, MAC: l.MAC, Interface: d.config.Servers[i].Interface})
	}
	slices.SortFunc(all, func(a, b netcfg.StaticNeighbor) int { return a.Address.Compare(b.Address) })
	return all
}

// plausible reports whether an address is one of a server, or of a static lease, or was given
// before a change of the configuration.
func (d *dhcpService) plausible(c server.Change) bool {
	if c.Status < server.Testing || c.Status > server.Conflict || c.Left > 366*24*time.Hour || console.Printable(c.HostName) != c.HostName || console.Printable(c.Server) != c.Server {
		return false
	}
	if d.leases[c.Address] != nil {
		return true
	}
	within := func(r match.Addresses) bool { return r.Match(c.Address) }
	return slices.ContainsFunc(d.config.Pools, func(p server.Pool) bool { return slices.ContainsFunc(p.Ranges, within) }) ||
		slices.ContainsFunc(d.config.Leases, func(l server.Lease) bool { return l.Address == c.Address })
}

// notHosts are names that programs trust: what has one of them could lead all hosts astray. By wpad
// they find a proxy, by isatap a way to IPv6.
var notHosts = []string{"localhost", "wpad", "isatap"}

// hostNames are the names of hosts that have a lease, in lower case. A host that calls itself as
// the router, or as another that had the name before, has none.
func (d *dhcpService) hostNames(router string) map[string]dns.Host {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := map[string]dns.Host{}
	for _, l := range d.leases {
		name := strings.ToLower(l.HostName)
		if l.Status != server.Bound || !isLabel(name) || name == strings.ToLower(router) || slices.Contains(notHosts, name) || time.Until(l.until) <= 0 {
			continue
		}
		if h, taken := names[name]; taken && firstNamed(d.leases[h.Address], l) < 0 {
			continue
		}
		// It is looked for leases that end each linkLook.
		names[name] = dns.Host{Address: l.Address, Ending: time.Until(l.until) <= dns.HostTTL+2*linkLook}
	}
	return names
}
