package router

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/neighbor"
	"github.com/postern-router/postern/service"
)

const (
	// maxNeighbors is how many devices the table has of one interface. Those that come when it is
	// full are not taken: nobody drives another out.
	maxNeighbors = 64
	// listenEvery is after how many announcements of its own the router reads those of others,
	// unless somebody asks. Until then they wait in the sockets.
	listenEvery = 2
	// parseTime is how long the process may take to read them.
	parseTime = 10 * time.Second
)

// neighborService announces the router to its neighbors, and knows those that announce themselves. PID 1
// sends the announcements, and takes those of others out of its sockets without a look at them: a process
// reads them, for less than a second, once a minute where there are any and when somebody looks. One that ran
// all the time would take 0.6 MB.
type neighborService struct {
	log            *kmsg.Logger
	ports          []string
	version, board string
	find           func(name string) (index int, mac ether.MAC, ok bool)
	open           func(index int, protocol string) (*os.File, error)
	run            func(context.Context, service.Job) error
	uptime         func() time.Duration

	ctx     context.Context
	stop    context.CancelFunc
	done    sync.WaitGroup
	start   sync.Once
	changed signal // has an element when config has changed
	// listening is held while frames are read: none shall be taken for newer than one that is
	// still on its way.
	listening sync.Mutex

	mu     sync.Mutex
	config console.Config
	links  map[neighborLink]*neighborSocket
	table  map[neighborKey]*heardNeighbor
	number uint16
}

// neighborLink is an interface of the kernel, and a protocol on it.
type neighborLink struct{ name, protocol string }

type neighborSocket struct {
	index int
	mac   ether.MAC
	conn  *ether.Conn
}

type neighborKey struct {
	neighborLink
	mac ether.MAC
}

type heardNeighbor struct {
	neighbor.Neighbor
	at time.Time
}

func newNeighborService(ports []string, version, board string, run func(context.Context, service.Job) error, log *kmsg.Logger) *neighborService {
	s := &neighborService{log: log, ports: ports, version: version, board: board, find: findLink, open: neighbor.Open, run: run, uptime: kmsg.Uptime,
		changed: newSignal(), links: map[neighborLink]*neighborSocket{}, table: map[neighborKey]*heardNeighbor{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

func (*neighborService) Name() string { return "neighbor" }

// Taken does not wait: nobody waits for an announcement.
func (*neighborService) Taken(context.Context) error { return nil }

// Health is nil: a router that nobody finds does what it is for.
func (*neighborService) Health() error { return nil }

func (s *neighborService) Show(live *console.Live) { live.Discovered = s.discovered }

// Apply announces the router anew if what it says may have changed.
func (s *neighborService) Apply(next console.Config) error {
	s.mu.Lock()
	s.config = next // which nobody changes in place
	s.mu.Unlock()
	if next.Discovery.List != "none" {
		s.start.Do(func() { s.done.Go(s.watch) })
	}
	s.changed.send()
	return nil
}

// Stop tells the neighbors that the router goes away.
func (s *neighborService) Stop() {
	s.stop()
	s.done.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.links {
		s.close(l)
	}
}

// watch announces the router until Stop.
func (s *neighborService) watch() {
	ticks := time.NewTicker(neighbor.Interval)
	defer ticks.Stop()
	for n := 1; ; n++ {
		s.announce()
		if n%listenEvery == 0 {
			if err := s.listen(s.ctx); err != nil && s.ctx.Err() == nil {
				s.log.Printf(kmsg.Warning, "read what neighbors say: %v", err)
			}
		}
		select {
		case <-s.ctx.Done():
			return
		case <-ticks.C:
		case <-s.changed:
		}
	}
}

// wanted are the interfaces, and the protocols on them. LLDP belongs to a cable, so it has the ports; MNDP is
// above IP, so it has what has addresses.
func (s *neighborService) wanted() map[neighborLink]bool {
	network, discovers := s.config.Network(), s.config.Discovers()
	wanted := map[neighborLink]bool{}
	add := func(name, protocol string) {
		if s.config.Discovery.Has(protocol) && discovers(name) {
			wanted[neighborLink{name, protocol}] = true
		}
	}
	for _, p := range s.ports {
		add(p, neighbor.LLDP)
		if network.Actual(p) == p {
			add(p, neighbor.MNDP)
		}
	}
	for _, b := range network.Bridges {
		add(b.Name, neighbor.MNDP)
	}
	for _, v := range network.VLANs {
		if network.Actual(v.Name) == v.Name {
			add(v.Name, neighbor.MNDP)
		}
	}
	return wanted
}

// announce brings the sockets to the configuration and the interfaces that there are, and sends an
// announcement by each.
func (s *neighborService) announce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := s.wanted()
	for l := range maps.Clone(s.links) {
		if index, mac, ok := s.find(l.name); !wanted[l] || !ok || index != s.links[l].index || mac != s.links[l].mac {
			s.close(l)
		}
	}
	for l := range wanted {
		index, mac, ok := s.find(l.name)
		if s.links[l] != nil || !ok {
			continue
		}
		f, err := s.open(index, l.protocol)
		var conn *ether.Conn
		if err == nil {
			conn, err = ether.NewConn(f)
		}
		if err != nil {
			s.log.Printf(kmsg.Warning, "%s on %s: %v", l.protocol, l.name, err)
			continue
		}
		s.links[l] = &neighborSocket{index, mac, conn}
	}
	s.number++
	for l, socket := range s.links {
		s.send(l, socket, false)
	}
}

// send sends an announcement. What cannot be sent is lost, as on a cable. The caller holds mu.
func (s *neighborService) send(l neighborLink, socket *neighborSocket, gone bool) {
	network := s.config.Network()
	a := neighbor.Announcement{MAC: socket.mac, Identity: s.config.Identity, Platform: "Postern", Version: s.version, Board: s.board,
		Interface: s.config.Called(l.name), Uptime: s.uptime(), Bridge: network.Actual(l.name) != l.name}
	for _, address := range network.Addresses {
		if !address.Disabled && network.Actual(address.Interface) == network.Actual(l.name) {
			a.Address = address.Address.Addr()
			break
		}
	}
	switch {
	case l.protocol == neighbor.LLDP:
		_ = socket.conn.Write(a.LLDP(socket.index, gone))
	case !gone:
		_ = socket.conn.Write(a.MNDP(s.number))
	}
}

// close ends a protocol on an interface. The caller holds mu.
func (s *neighborService) close(l neighborLink) {
	s.send(l, s.links[l], true)
	s.links[l].conn.Close()
	delete(s.links, l)
	maps.DeleteFunc(s.table, func(k neighborKey, _ *heardNeighbor) bool { return k.neighborLink == l })
}

// listen has a process read what waits in the sockets.
func (s *neighborService) listen(ctx context.Context) error {
	s.listening.Lock()
	defer s.listening.Unlock()
	frames, from := s.waiting()
	if len(frames) == 0 {
		return nil
	}
	ctx, cancel := service.WithTimeout(ctx, parseTime)
	defer cancel()
	now := time.Now()
	return s.run(ctx, neighbor.Job(frames, func(place int, n neighbor.Neighbor) { s.take(from[place], n, now) }))
}

// waiting takes frames out of the sockets: of each as many as of the others.
func (s *neighborService) waiting() (frames []neighbor.Frame, from []neighborLink) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.links) == 0 {
		return nil, nil
	}
	share := max(1, neighbor.MaxFrames/len(s.links))
	b := make([]byte, ether.MaxFrame)
	for l, socket := range s.links {
		for range share {
			n, sumReady, err := socket.conn.ReadNow(b)
			if err != nil || len(frames) == neighbor.MaxFrames {
				break
			}
			frames = append(frames, neighbor.Frame{Protocol: l.protocol, Bytes: slices.Clone(b[:n]), SumReady: sumReady})
			from = append(from, l)
		}
	}
	return frames, from
}

// take notes what a device has said, as far as the process tells it.
func (s *neighborService) take(l neighborLink, n neighbor.Neighbor, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := neighborKey{l, n.MAC}
	if s.links[l] == nil || n.MAC == s.links[l].mac {
		return
	}
	if n.Hold == 0 {
		delete(s.table, k)
		return
	}
	if s.table[k] == nil {
		s.expire(now)
		there := 0
		for other := range s.table {
			if other.neighborLink == l {
				there++
			}
		}
		if there >= maxNeighbors {
			return
		}
	}
	s.table[k] = &heardNeighbor{n, now}
}

// expire forgets what does not hold any more. The caller holds mu.
func (s *neighborService) expire(now time.Time) {
	maps.DeleteFunc(s.table, func(_ neighborKey, h *heardNeighbor) bool { return now.Sub(h.at) >= h.Hold })
}

// discovered is what the console shows: a device that speaks both protocols on an interface is one.
func (s *neighborService) discovered() ([]console.DiscoveredNeighbor, error) {
	if err := s.listen(s.ctx); err != nil {
		return nil, fmt.Errorf("read what neighbors say: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.expire(now)
	var all []console.DiscoveredNeighbor
	for k, h := range s.table {
		d := console.DiscoveredNeighbor{Neighbor: h.Neighbor, Interface: k.name, By: k.protocol, Age: now.Sub(h.at)}
		other := s.table[neighborKey{neighborLink{k.name, neighbor.MNDP}, k.mac}]
		switch {
		case k.protocol == neighbor.LLDP && other != nil:
			d.By += "," + neighbor.MNDP
			d.Age = min(d.Age, now.Sub(other.at))
			d.Neighbor = merged(h.Neighbor, other.Neighbor)
		case k.protocol == neighbor.MNDP && s.table[neighborKey{neighborLink{k.name, neighbor.LLDP}, k.mac}] != nil:
			continue
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b console.DiscoveredNeighbor) int {
		return cmp.Or(cmp.Compare(a.Interface, b.Interface), slices.Compare(a.MAC[:], b.MAC[:]))
	})
	return all, nil
}

// merged is what a device says by both protocols. MNDP says more.
func merged(lldp, mndp neighbor.Neighbor) neighbor.Neighbor {
	mndp.Description, mndp.Can, mndp.Does = lldp.Description, lldp.Can, lldp.Does
	mndp.Identity = cmp.Or(mndp.Identity, lldp.Identity)
	mndp.Interface = cmp.Or(mndp.Interface, lldp.Interface)
	if mndp.Address == (netip.Addr{}) {
		mndp.Address = lldp.Address
	}
	return mndp
}
