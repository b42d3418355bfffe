package router

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/dhcp/server"
	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/service"
)

// namesPause is the least time from one change of the hosts' names to the next: hosts that come and
// go all the time cost no more than that.
const namesPause = time.Second

// dnsService is the DNS server for the LAN. Its sockets are PID 1's: who asks while the process is
// away waits in their queues.
type dnsService struct {
	log     *kmsg.Logger
	process *service.Service
	listen  func() (udp, tcp *os.File, err error)
	// looks has an element when leased may return something else.
	looks signal
	stop  chan struct{}
	done  sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	// leased returns the names of hosts that have a lease, of a router with that name.
	leased   func(router string) map[string]dns.Host
	wanted   *dnsConfig // never changed, only replaced
	hosts    map[string]dns.Host
	identity string
	networks []server.Network
	udp, tcp *os.File // nil while it is disabled
	change   *service.Change
	// leftOut is set once the log has been told that there are too many names.
	leftOut bool
}

// dnsConfig is what the process is told besides names of hosts.
type dnsConfig struct {
	dns.Config
	servers []netip.Addr
}

// dnsProcess is a process, and what it has been told. Another configuration empties its cache, so
// that it gets none for the sake of a name.
type dnsProcess struct {
	*dns.Process
	config *dnsConfig
	hosts  map[string]dns.Host
}

func newDNSService(s *service.Supervisor, log *kmsg.Logger) *dnsService {
	v := &dnsService{log: log, listen: dns.Listen, looks: newSignal(), stop: make(chan struct{}), wanted: &dnsConfig{},
		leased: func(string) map[string]dns.Host { return nil }}
	v.process = s.NewService(dns.Spec, service.Options{Label: "DNS server",
		Parent: func(l *service.Link) service.Parent { return &dnsProcess{Process: dns.NewProcess(l)} }})
	v.done.Go(v.follow)
	return v
}

// nameHosts has the server answer for the names of hosts that have a lease: leased returns them for a
// router with that name, and look says when there may be others.
func (s *dnsService) nameHosts(leased func(router string) map[string]dns.Host) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leased = leased
}

func (*dnsService) Name() string { return "dns" }

func (s *dnsService) Show(live *console.Live) {
	live.DNSCache, live.FlushDNS, live.CacheUsed = s.cache, s.flush, s.used
}

// Health tells what the supervisor knows.
func (s *dnsService) Health() error { return s.process.Health() }

// Apply brings the server to next, or leaves it as it was.
func (s *dnsService) Apply(next console.Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return service.ErrStopped
	}
	wanted := &dnsConfig{next.DNSServer, slices.Clone(next.DNS)}
	wanted.Static = slices.Clone(wanted.Static)
	if wanted.Enabled && s.udp == nil {
		udp, tcp, err := s.listen()
		if err != nil {
			return err
		}
		s.udp, s.tcp = udp, tcp
	}
	s.identity, s.networks = next.Identity, slices.Clone(next.DHCPServer.Networks)
	same := reflect.DeepEqual(wanted, s.wanted)
	if !same {
		s.wanted = wanted
	}
	if !wanted.Enabled {
		s.close()
		s.hosts = nil
		if !same {
			s.change = s.process.Set(nil)
		}
		return nil
	}
	if renamed := s.name(); renamed || !same {
		s.tell()
	}
	return nil
}

// tell brings the process to what is wanted. The caller holds mu.
func (s *dnsService) tell() {
	wanted, hosts, udp, tcp := s.wanted, s.hosts, s.udp, s.tcp
	s.change = s.process.Set(&service.Desired{Configure: func(ctx context.Context, parent service.Parent) error {
		p := parent.(*dnsProcess)
		if p.config != wanted {
			if err := p.Configure(ctx, wanted.Config, wanted.servers, udp, tcp); err != nil {
				return err
			}
			p.config = wanted
		}
		if maps.Equal(p.hosts, hosts) {
			return nil
		}
		left, err := p.Names(ctx, hosts)
		if err != nil {
			return err
		}
		p.hosts = hosts
		s.tellLeftOut(left)
		return nil
	}})
}

// tellLeftOut says once that there are more names than the server takes.
func (s *dnsService) tellLeftOut(count int) {
	s.mu.Lock()
	first := count > 0 && !s.leftOut
	s.leftOut = s.leftOut || first
	s.mu.Unlock()
	if first {
		s.log.Printf(kmsg.Warning, "%d names of DHCP leases are left out: the server takes %d", count, dns.MaxHosts)
	}
}

// name looks for the names of hosts, and reports whether they are others than before. The caller
// holds mu.
//
// A host has the name that it calls itself, which has no dot, and that in the domain of its network.
func (s *dnsService) name() (changed bool) {
	hosts := map[string]dns.Host{}
	for name, h := range s.leased(s.identity) {
		hosts[name] = h
		if domain := s.domain(h.Address); domain != "" && len(name)+1+len(domain) <= dns.MaxName {
			hosts[name+"."+domain] = h
		}
	}
	changed = !maps.Equal(hosts, s.hosts)
	s.hosts = hosts
	return changed
}

// domain is that of the smallest network that has the address, in lower case; "" if there is none.
// The caller holds mu.
func (s *dnsService) domain(a netip.Addr) string {
	domain, bits := "", -1
	for _, n := range s.networks {
		if n.Address.Contains(a) && n.Address.Bits() > bits {
			domain, bits = n.Domain, n.Address.Bits()
		}
	}
	domain = strings.ToLower(strings.Trim(domain, "."))
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > dns.MaxLabel {
			return "" // it can be in no message
		}
	}
	return domain
}

// look has the server look for the names of hosts soon. It does not wait.
func (s *dnsService) look() { s.looks.send() }

// follow tells the process of new names, until Stop.
func (s *dnsService) follow() {
	for {
		select {
		case <-s.stop:
			return
		case <-s.looks:
		}
		s.mu.Lock()
		changed := !s.stopped && s.udp != nil && s.name()
		if changed {
			s.tell()
		}
		s.mu.Unlock()
		if !changed {
			continue
		}
		select {
		case <-s.stop:
			return
		case <-time.After(namesPause):
		}
	}
}

// cache is what the console shows: nothing while the server is disabled.
func (s *dnsService) cache() (list []dns.CacheEntry, left int, err error) {
	err = s.ask(func(ctx context.Context, p *dnsProcess) error {
		list, left, err = p.Cache(ctx)
		return err
	})
	slices.SortFunc(list, func(a, b dns.CacheEntry) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), strings.Compare(a.Data, b.Data), cmp.Compare(b.TTL, a.TTL))
	})
	// There is an answer for each form of a question, as with EDNS and without.
	list = slices.CompactFunc(list, func(a, b dns.CacheEntry) bool {
		a.TTL = b.TTL
		return a == b
	})
	return list, left, err
}

func (s *dnsService) flush() error {
	return s.ask(func(ctx context.Context, p *dnsProcess) error { return p.Flush(ctx) })
}

func (s *dnsService) used() (bytes int, err error) {
	err = s.ask(func(ctx context.Context, p *dnsProcess) error {
		bytes, err = p.Used(ctx)
		return err
	})
	return bytes, err
}

// ask asks the process for a person, if there is one.
func (s *dnsService) ask(question func(context.Context, *dnsProcess) error) error {
	p, ok := s.process.Parent().(*dnsProcess)
	if !ok {
		return nil
	}
	ctx, cancel := service.WithTimeout(context.Background(), askTime)
	defer cancel()
	return question(ctx, p)
}

// close closes the sockets, if there are any. The caller holds mu.
func (s *dnsService) close() {
	if s.udp != nil {
		s.udp.Close()
		s.tcp.Close()
		s.udp, s.tcp = nil, nil
	}
}

// Taken waits until the process has the last change.
func (s *dnsService) Taken(ctx context.Context) error {
	s.mu.Lock()
	change := s.change
	s.mu.Unlock()
	return change.Wait(ctx)
}

// Stop ends the server.
func (s *dnsService) Stop() {
	s.mu.Lock()
	s.stopped = true
	s.close()
	s.mu.Unlock()
	close(s.stop)
	s.done.Wait()
	s.process.Stop()
}
