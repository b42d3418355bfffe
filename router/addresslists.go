package router

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/kmsg"
)

const (
	// fullLook is how often lists that rules add to are looked at.
	fullLook = 10 * time.Second
	// expirePause is the time after which what could not be removed is tried again.
	expirePause = time.Minute
)

// addressListService removes entries of address lists from the configuration when their time has come (the kernel does without
// it), and tells the log of lists that rules have filled.
type addressListService struct {
	log *kmsg.Logger
	// full is Firewall.Full. expire removes what has ended from the configuration. It waits for changes that are under way, so
	// Apply does not call it.
	full   func() (lists []string, room int, err error)
	expire func() error

	stop    context.CancelFunc
	stopped context.Context
	done    sync.WaitGroup
	start   sync.Once
	change  signal // holds an element when next or fills may have changed

	mu    sync.Mutex
	next  time.Time // when the next entry ends; zero for never
	fills bool      // rules add to lists
	told  []string  // lists that were full when the log was told
}

func newAddressListService(log *kmsg.Logger, full func() ([]string, int, error)) *addressListService {
	s := &addressListService{log: log, full: full, change: newSignal()}
	s.stopped, s.stop = context.WithCancel(context.Background())
	return s
}

func (*addressListService) Name() string { return "address lists" }

func (s *addressListService) Apply(next console.Config) error {
	_, ends := next.ExpireAddresses(time.Time{})
	fills := slices.ContainsFunc(firewall.Tables[:], func(t firewall.Table) bool {
		return slices.ContainsFunc(next.Firewall.Rules(t), func(r firewall.Rule) bool { return r.AddressList != "" && !r.Disabled })
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next.Equal(ends) && s.fills == fills {
		return nil
	}
	s.next, s.fills = ends, fills
	s.change.send()
	s.start.Do(func() { s.done.Go(s.watch) })
	return nil
}

func (*addressListService) Taken(context.Context) error { return nil }

func (*addressListService) Health() error { return nil }

func (*addressListService) Show(*console.Live) {}

// Stop ends the watch.
func (s *addressListService) Stop() {
	s.stop()
	s.done.Wait()
}

// watch does what is to be done until the service is stopped.
func (s *addressListService) watch() {
	for {
		s.mu.Lock()
		next, fills := s.next, s.fills
		s.mu.Unlock()
		var ends, looks <-chan time.Time
		if !next.IsZero() {
			ends = time.After(time.Until(next))
		}
		if fills {
			looks = time.After(fullLook)
		}
		select {
		case <-s.stopped.Done():
			return
		case <-s.change:
		case <-looks:
			s.look()
		case <-ends:
			if err := s.expire(); err != nil {
				s.log.Printf(kmsg.Warning, "entries of address lists that have ended: %v", err)
				select {
				case <-s.stopped.Done():
					return
				case <-time.After(expirePause):
				}
			}
		}
	}
}

// look tells of each list that has become full, once until it has room again.
func (s *addressListService) look() {
	lists, room, err := s.full()
	if err != nil {
		return // a change has just removed one
	}
	for _, list := range lists {
		if !slices.Contains(s.told, list) {
			s.log.Printf(kmsg.Warning, "address list %s is full: rules add no more than %d addresses to it", list, room)
		}
	}
	s.told = lists
}

// expireAddresses removes entries of address lists that have ended.
func (r *Router) expireAddresses() error {
	if err := r.beginChange(); err != nil {
		return err
	}
	defer r.endChange()
	now := time.Now()
	next := r.now
	next.config, _ = next.config.ExpireAddresses(now)
	next.running, _ = next.running.ExpireAddresses(now)
	next.history = next.history.afterExpiry()
	next.revision++
	if err := r.apply(next); err != nil {
		return err
	}
	if r.safeMode != nil { // nor does leaving Safe Mode bring them back
		r.mu.Lock()
		defer r.mu.Unlock()
		before := &r.safeMode.before
		before.config, _ = before.config.ExpireAddresses(now)
		before.running, _ = before.running.ExpireAddresses(now)
		before.history = before.history.afterExpiry()
	}
	return nil
}
