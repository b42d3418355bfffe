package router

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/dhcp/client"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
)

const (
	// fallbackSource is the source of the layer of fallbackService, and the comment of its address.
	fallbackSource = "fallback"
	// fallbackAfter is how long the only port of a board is without an address before it is
	// given one.
	fallbackAfter = 30 * time.Second
)

// lanDefault is the address by which a router can be reached that has no other on its LAN.
var lanDefault = netip.MustParsePrefix("192.168.0.1/24")

// fallbackService gives the port of a board that has only one an address, while the port asks for
// one by DHCP and nobody answers, so that the board can be reached. On a board with more ports it
// does nothing.
type fallbackService struct {
	log  *kmsg.Logger
	port string // "" on a board with more
	// setLayer is Router.SetLayer. It waits for changes that are under way, so Apply does not
	// call it.
	setLayer func(source string, l Layer) error
	stop     context.CancelFunc
	stopped  context.Context
	done     sync.WaitGroup
	start    sync.Once

	mu     sync.Mutex
	wanted bool
	change signal // holds an element when wanted has changed
}

func newFallbackService(b board.Board, log *kmsg.Logger) *fallbackService {
	s := &fallbackService{log: log, change: newSignal()}
	if b.WAN == "" {
		s.port = b.LAN
	}
	s.stopped, s.stop = context.WithCancel(context.Background())
	return s
}

func (*fallbackService) Name() string { return "fallback address" }

// Apply begins to wait for an address, or ends that.
func (s *fallbackService) Apply(next console.Config) error {
	if s.port == "" {
		return nil
	}
	network := next.Network()
	port := network.Actual(s.port) // of a port of a bridge, that bridge
	asks := slices.ContainsFunc(next.DHCPClients, func(c client.Config) bool { return !c.Disabled && c.Interface == port })
	has := slices.ContainsFunc(next.Addresses, func(a netcfg.Address) bool {
		return !a.Disabled && a != s.address() && network.Actual(a.Interface) == port
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if wanted := asks && !has; wanted != s.wanted {
		s.wanted = wanted
		s.change.send()
		s.start.Do(func() { s.done.Go(s.watch) })
	}
	return nil
}

// address is the one that the port is given.
func (s *fallbackService) address() netcfg.Address {
	return netcfg.Address{Address: lanDefault, Interface: s.port, Comment: fallbackSource}
}

// watch sets the layer, and takes it back, until the service is stopped.
func (s *fallbackService) watch() {
	var set bool
	var due <-chan time.Time // when it is set, or tried again
	for {
		late := false
		select {
		case <-s.stopped.Done():
			return
		case <-s.change:
		case <-due:
			late = true
		}
		s.mu.Lock()
		wanted := s.wanted
		s.mu.Unlock()
		if wanted == set {
			due = nil
			continue
		}
		if wanted && !late {
			if due == nil {
				due = time.After(fallbackAfter)
			}
			continue
		}
		var layer Layer
		if wanted {
			s.log.Printf(kmsg.Notice, "%s has no address in %s: the router is at %s", s.port, fallbackAfter, lanDefault.Addr())
			layer.Addresses = []netcfg.Address{s.address()}
		}
		due = nil
		if err := s.setLayer(fallbackSource, layer); err != nil {
			if s.stopped.Err() == nil {
				s.log.Printf(kmsg.Warning, "%v", err)
			}
			due = time.After(fallbackAfter)
			continue
		}
		set = wanted
	}
}

func (*fallbackService) Taken(context.Context) error { return nil }

func (*fallbackService) Health() error { return nil }

func (*fallbackService) Show(*console.Live) {}

// Stop ends the watch.
func (s *fallbackService) Stop() {
	s.stop()
	s.start.Do(func() {}) // none begins from here on
	s.done.Wait()
}
