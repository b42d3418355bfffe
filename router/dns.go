package router

import (
	"context"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"sync"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/service"
)

// dnsService is the DNS server for the LAN. Its sockets are PID 1's: who asks while the process is
// away waits in their queues.
type dnsService struct {
	log     *kmsg.Logger
	process *service.Service
	listen  func() (udp, tcp *os.File, err error)

	mu       sync.Mutex
	stopped  bool
	config   dns.Config
	servers  []netip.Addr
	udp, tcp *os.File // nil while it is disabled
	change   *service.Change
}

func newDNSService(s *service.Supervisor, log *kmsg.Logger) *dnsService {
	return &dnsService{log: log, listen: dns.Listen, process: s.NewService(dns.Spec, service.Options{Label: "DNS server",
		Parent: func(l *service.Link) service.Parent { return dns.NewProcess(l) }})}
}

func (*dnsService) Name() string { return "dns" }

func (*dnsService) Show(*console.Live) {}

// Health tells what the supervisor knows.
func (s *dnsService) Health() error { return s.process.Health() }

// Apply brings the server to next, or leaves it as it was.
func (s *dnsService) Apply(next console.Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return service.ErrStopped
	}
	config, servers := next.DNSServer, next.DNS
	if reflect.DeepEqual(config, s.config) && slices.Equal(servers, s.servers) {
		return nil
	}
	if config.Enabled && s.udp == nil {
		udp, tcp, err := s.listen()
		if err != nil {
			return err
		}
		s.udp, s.tcp = udp, tcp
	}
	config.Static, servers = slices.Clone(config.Static), slices.Clone(servers)
	s.config, s.servers = config, servers
	if !config.Enabled {
		s.close()
		s.change = s.process.Set(nil)
		return nil
	}
	udp, tcp := s.udp, s.tcp
	s.change = s.process.Set(&service.Desired{Configure: func(ctx context.Context, p service.Parent) error {
		return p.(*dns.Process).Configure(ctx, config, servers, udp, tcp)
	}})
	return nil
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
	if change == nil {
		return nil
	}
	return change.Wait(ctx)
}

// Stop ends the server.
func (s *dnsService) Stop() {
	s.mu.Lock()
	s.stopped = true
	s.close()
	s.mu.Unlock()
	s.process.Stop()
}
