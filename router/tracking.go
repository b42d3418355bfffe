package router

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
)

const (
	// trackingLook is how often the table of connections is looked at, trackingSoon how often while
	// it is more than half full, and trackingRetry if no room could be made.
	trackingLook  = time.Second
	trackingSoon  = 200 * time.Millisecond
	trackingRetry = 10 * time.Second
	// falseSourceLook is how often packets with false sources are counted.
	falseSourceLook = 10 * time.Second
	// trimLog and falseSourceLog are the least times between two lines of the log about either.
	trimLog        = 30 * time.Second
	falseSourceLog = 10 * time.Minute
)

// trackingService keeps room in the kernel's table of connections, and tells the log who fills
// it, and of packets with false sources.
type trackingService struct {
	log *kmsg.Logger
	// The kernel's part, but in tests.
	set          func(firewall.Tracking) error
	size         func() (entries, limit int, err error)
	trim         func(limit int, own []netip.Addr) ([]firewall.Trimmed, error)
	falseSources func() (uint64, error)

	config firewall.Tracking
	stop   context.CancelFunc // nil before the first Apply
	ended  chan struct{}
}

func newTrackingService(log *kmsg.Logger) *trackingService {
	return &trackingService{log: log, set: firewall.Tracking.Set, size: firewall.TableSize, trim: firewall.Trim, falseSources: netcfg.FalseSources}
}

func (*trackingService) Name() string { return "connection tracking" }

// Apply sets the timeouts. The first time it begins to look after the table.
func (s *trackingService) Apply(next console.Config) error {
	if s.stop != nil && next.Tracking == s.config {
		return nil
	}
	if err := s.set(next.Tracking); err != nil {
		return err
	}
	s.config = next.Tracking
	if s.stop == nil {
		var ctx context.Context
		ctx, s.stop = context.WithCancel(context.Background())
		s.ended = make(chan struct{})
		go func() {
			defer close(s.ended)
			s.watch(ctx)
		}()
	}
	return nil
}

func (*trackingService) Taken(context.Context) error { return nil }

func (*trackingService) Health() error { return nil }

func (s *trackingService) Show(live *console.Live) { live.TableSize = s.size }

// Stop ends the watch.
func (s *trackingService) Stop() {
	if s.stop != nil {
		s.stop()
		<-s.ended
	}
}

// watch looks after the table until ctx is done.
func (s *trackingService) watch(ctx context.Context) {
	var guard tableGuard
	var counted, told uint64 // packets with a false source
	var toldAt, lookedAt time.Time
	for pause := trackingLook; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = guard.look(s)
		if time.Since(lookedAt) < falseSourceLook {
			continue
		}
		lookedAt = time.Now()
		now, err := s.falseSources()
		if err != nil {
			continue
		}
		if now < counted { // it counts to 2^32
			told = 0
		}
		counted = now
		if counted > told && (toldAt.IsZero() || time.Since(toldAt) >= falseSourceLog) {
			s.log.Printf(kmsg.Warning, "%d packets with a false source dropped: an address of the router, of loopback or multicast, or one to which the way back is not by the interface that they came by (/ip settings rp-filter)", counted-told)
			told, toldAt = counted, time.Now()
		}
	}
}

// tableGuard makes room in the table of connections, and says so.
type tableGuard struct {
	failed bool
	lost   map[netip.Addr]int // since the last line
	more   bool               // others have lost some too
	at     time.Time          // of that
}

// look makes room if the table is three quarters full, so that a quarter is left for all others
// and for the router itself. It returns the pause until the next look.
func (g *tableGuard) look(s *trackingService) (pause time.Duration) {
	entries, limit, err := s.size()
	var trimmed []firewall.Trimmed
	pause = trackingLook
	if err == nil && entries >= limit/2 {
		pause = trackingSoon
	}
	if err == nil && entries >= limit/4*3 {
		trimmed, err = s.trim(limit/8*5, ownAddresses())
		// To look through it all takes a while.
		switch {
		case len(trimmed) > 0:
		case err != nil:
			pause = trackingRetry
		default: // it is full of what the kernel itself makes room in the place of
			pause = trackingLook
		}
		// The list of connections is much for a small machine.
		debug.FreeOSMemory()
	}
	if err != nil && !g.failed {
		s.log.Printf(kmsg.Warning, "keep room for connections: %v", err)
	}
	g.failed = err != nil
	if g.lost == nil {
		g.lost = map[netip.Addr]int{}
	}
	const most = 16 // hosts that the log can be told of
	for _, t := range trimmed {
		if _, known := g.lost[t.Source]; known || len(g.lost) < most {
			g.lost[t.Source] += t.Lost
		} else {
			g.more = true
		}
	}
	if len(g.lost) > 0 && (g.at.IsZero() || time.Since(g.at) >= trimLog) {
		g.at = time.Now()
		source, lost, hosts := g.greatest()
		line := fmt.Sprintf("connection tracking: the table of %d entries is nearly full: %d connections of %s forgotten", limit, lost, source)
		switch {
		case g.more:
			line += fmt.Sprintf(", and some of more than %d other hosts", hosts-1)
		case hosts > 1:
			line += fmt.Sprintf(", and some of %d other hosts", hosts-1)
		}
		s.log.Printf(kmsg.Warning, "%s", line)
		g.lost, g.more = nil, false
	}
	return pause
}

// greatest returns the host that has lost most.
func (g *tableGuard) greatest() (source netip.Addr, lost, hosts int) {
	for s, n := range g.lost {
		if n > lost || n == lost && s.Less(source) {
			source, lost = s, n
		}
	}
	return source, lost, len(g.lost)
}

// ownAddresses are the machine's addresses.
func ownAddresses() (own []netip.Addr) {
	// Without them, and the error is the system's, no connection counts as the router's own.
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr())
		}
	}
	return own
}

// forget has the kernel forget connections, for a user.
func (r *Router) forget(connections []firewall.Tracked) error {
	n, err := firewall.Forget(connections)
	if err == nil {
		r.log.About("firewall").Printf(kmsg.Info, "%d tracked connections removed by a user", n)
	}
	return err
}

// forgetRetranslated has the kernel forget the connections that rules of nat treat otherwise now, and those that a helper reads no more.
// They would go on as they were for as long as packets come.
func (r *Router) forgetRetranslated(old, next firewall.Config) {
	log := r.log.About("firewall")
	n, err := r.firewall.ForgetRetranslated(old, next)
	if err != nil {
		log.Printf(kmsg.Warning, "open connections keep the address translation that they had: %v", err)
	} else if n > 0 {
		log.Printf(kmsg.Info, "%d tracked connections forgotten, as nat treats them otherwise now", n)
	}
}
