package router

import (
	"context"
	"net/netip"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/socks"
	"github.com/postern-router/postern/socks/daemon"
)

const (
	// askTime is how long a question of a person waits for socksd's answer, and listTime one
	// for all connections, which come a page after the other.
	askTime  = 5 * time.Second
	listTime = 20 * time.Second
)

// openings is the part of the firewall that lets a peer reach the port that a BIND or a UDP
// ASSOCIATE waits on.
type openings interface {
	ChangeOpenings(closed, opened []firewall.Opening) error
}

// socksService is SOCKS on this router. The listening socket is PID 1's: while socksd is away,
// callers wait in its queue instead of being refused.
type socksService struct {
	log      *kmsg.Logger
	firewall openings
	process  *service.Service

	mu sync.Mutex // held for a moment only
	// applied says that a configuration was applied before.
	applied bool
	config  socks.Config
	// listener is on config's port, nil while SOCKS is disabled.
	listener *os.File
	// change is the last one on its way to the process, nil if there was none.
	change  *service.Change
	stopped bool
}

func newSocksService(s *service.Supervisor, log *kmsg.Logger, fw openings) *socksService {
	v := &socksService{log: log, firewall: fw}
	v.process = s.NewService(daemon.Spec, service.Options{Parent: func(l *service.Link) service.Parent {
		return daemon.NewClient(l, v.changeFirewall)
	}})
	return v
}

func (*socksService) Name() string { return "socks" }

func (s *socksService) Show(live *console.Live) {
	live.Connections, live.CloseConnections, live.Hits = s.connections, s.closeConnections, s.hits
}

// Health tells what the supervisor knows.
func (s *socksService) Health() error { return s.process.Health() }

// Apply brings the service to next, or leaves it as it was. Disabled, it ends every connection.
func (s *socksService) Apply(next console.Config) error {
	config := next.Socks
	config.NameServers = next.Resolvers() // socksd cannot read resolv.conf
	config.Access = next.AccessRules()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return service.ErrStopped
	}
	first := !s.applied
	if !first && reflect.DeepEqual(config, s.config) {
		return nil
	}
	s.applied = true
	if !config.Enabled {
		s.config = config
		s.closeListener()
		s.change = s.process.Set(nil)
		return nil
	}
	fresh := s.listener == nil || s.config.Port != config.Port
	if fresh {
		// On every address: who may reach it is the firewall's to say.
		l, err := service.Listen(netip.AddrPortFrom(netip.IPv4Unspecified(), config.Port))
		if err != nil {
			return err
		}
		s.closeListener()
		s.listener = l
	}
	s.config = config
	// The process has a copy of the listener, of which it may be told after this one is closed.
	listener := s.listener
	accepts := func() {}
	if fresh {
		// What is shown while the router starts would later run across the screen of whoever
		// opens the port.
		level := kmsg.Info
		if first {
			level = kmsg.Notice
		}
		accepts = sync.OnceFunc(func() {
			s.log.Printf(level, "socks accepts on port %d after %s", config.Port, kmsg.Uptime())
		})
	}
	s.change = s.process.Set(&service.Desired{Configure: func(ctx context.Context, p service.Parent) error {
		err := p.(*daemon.Client).Configure(ctx, config, listener)
		if err == nil {
			accepts()
		}
		return err
	}})
	return nil
}

// Taken waits until socksd has the last change: at the prompt it is in force.
func (s *socksService) Taken(ctx context.Context) error {
	s.mu.Lock()
	change := s.change
	s.mu.Unlock()
	return change.Wait(ctx)
}

// closeListener closes the listening socket, if there is one. The caller holds mu.
func (s *socksService) closeListener() {
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
}

// Stop ends the service for good: first nobody can connect, then the connections are ended.
func (s *socksService) Stop() {
	s.mu.Lock()
	s.stopped = true
	s.closeListener()
	s.mu.Unlock()
	s.process.Stop()
}

func (s *socksService) connections() ([]socks.Connection, error) {
	client, ok := s.process.Parent().(*daemon.Client)
	if !ok {
		return nil, nil
	}
	ctx, cancel := service.WithTimeout(context.Background(), listTime)
	defer cancel()
	return client.Connections(ctx)
}

// Leave ends what runs by addresses that the router will not have again. It does not wait.
func (s *socksService) Leave(gone []netip.Addr) {
	client, ok := s.process.Parent().(*daemon.Client)
	if !ok {
		return
	}
	go func() {
		ctx, cancel := service.WithTimeout(context.Background(), askTime)
		defer cancel()
		if err := client.Leave(ctx, gone); err != nil {
			s.log.Printf(kmsg.Warning, "%v", err)
		}
	}()
}

// closeConnections ends the connections with these numbers.
func (s *socksService) closeConnections(numbers []uint64) error {
	client, ok := s.process.Parent().(*daemon.Client)
	if !ok {
		return nil // without the process there are none
	}
	ctx, cancel := service.WithTimeout(context.Background(), askTime)
	defer cancel()
	return client.CloseConnections(ctx, numbers)
}

// hits returns how often each rule of the access list has decided.
func (s *socksService) hits() ([]uint64, error) {
	client, ok := s.process.Parent().(*daemon.Client)
	if !ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		return make([]uint64, len(s.config.Access)), nil
	}
	ctx, cancel := service.WithTimeout(context.Background(), askTime)
	defer cancel()
	return client.Hits(ctx)
}

// changeFirewall lets peers reach the ports that BINDs and UDP ASSOCIATEs wait on, or undoes that.
func (s *socksService) changeFirewall(closed, opened []socks.Opening) error {
	err := s.firewall.ChangeOpenings(firewallOpenings(closed), firewallOpenings(opened))
	if err != nil && len(opened) == 0 { // otherwise socksd says so
		s.log.Printf(kmsg.Error, "%v", err)
	}
	return err
}

func firewallOpenings(openings []socks.Opening) []firewall.Opening {
	list := make([]firewall.Opening, len(openings))
	for i, o := range openings {
		list[i] = firewall.Opening{Peer: o.Peer, Local: o.Local.Addr(), Port: o.Local.Port(), UDP: o.UDP}
	}
	return list
}
