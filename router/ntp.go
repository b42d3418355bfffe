package router

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/ntp"
	"github.com/postern-router/postern/service"
)

const (
	// stepAbove is how far the clock must be off to be set at once. Less is made up for
	// slowly, so that no time comes twice.
	stepAbove = 500 * time.Millisecond
	// freshSample is how long after an answer the clock counts as synchronized: two of the
	// longest pauses.
	freshSample = 2 * 1024 * time.Second
)

// timeService keeps the time client running while it is enabled, and sets the clock by
// what it says. Between two requests, a minute to 17 minutes, there is no process: it would take 0.6 MB of
// a small machine.
type timeService struct {
	log *kmsg.Logger
	// notBefore is a time that has passed: the version's. No server's word goes before it.
	notBefore time.Time
	process   *service.Service

	mu     sync.Mutex
	config ntp.Config
	names  []netip.Addr
	run    uint64      // counts the configurations
	wake   *time.Timer // starts the process again; nil before its first rest
	last   ntp.Sample
	at     time.Duration // of last, since the start; 0 if there was none
}

func newTimeService(s *service.Supervisor, log *kmsg.Logger, notBefore time.Time) *timeService {
	t := &timeService{log: log, notBefore: notBefore}
	t.process = s.NewService(ntp.Spec, service.Options{Label: "time client",
		Parent: func(l *service.Link) service.Parent { return ntp.NewProcess(l, t.take, t.rest) }})
	return t
}

func (*timeService) Name() string { return "ntp" }

// Taken does not wait: who is asked for the time takes it from its first answer on.
func (*timeService) Taken(context.Context) error { return nil }

// Health is nil: a router whose clock is wrong does what it is for.
func (*timeService) Health() error { return nil }

func (s *timeService) Show(live *console.Live) { live.NTP = s.state }

// Apply brings the client to a configuration and the name servers that it asks.
func (s *timeService) Apply(next console.Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	config, names := next.NTP, next.Resolvers()
	if reflect.DeepEqual(config, s.config) && slices.Equal(names, s.names) {
		return nil
	}
	config.Servers, names = slices.Clone(config.Servers), slices.Clone(names)
	s.config, s.names, s.at = config, names, 0
	s.run++
	if s.wake != nil {
		s.wake.Stop()
	}
	if !s.running() {
		s.process.Set(nil)
		return nil
	}
	s.start("")
	return nil
}

// start has a process follow the configuration, from where the one before it was in that state. The caller
// holds mu.
func (s *timeService) start(state string) {
	config, names, run := s.config, s.names, s.run
	s.process.Set(&service.Desired{Configure: func(ctx context.Context, p service.Parent) error {
		return p.(*ntp.Process).Configure(ctx, config, names, run, state)
	}})
}

// rest ends the process, and starts it again when its pause is over.
func (s *timeService) rest(r ntp.Rest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Run != s.run || !s.running() {
		return errors.New("the configuration is another")
	}
	s.process.Set(nil)
	if s.wake != nil {
		s.wake.Stop() // one rest, however often a process asks for it before it ends
	}
	s.wake = time.AfterFunc(r.Pause, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.Run == s.run {
			s.start(r.State)
		}
	})
	return nil
}

// running reports whether there is somebody to ask. The caller holds mu.
func (s *timeService) running() bool { return s.config.Enabled && len(s.config.Servers) > 0 }

// take sets the clock by a sample.
func (s *timeService) take(sample ntp.Sample) error {
	now := time.Now()
	right := now.Add(sample.Offset)
	if right.Before(s.notBefore) || right.Year() > 2037 {
		return fmt.Errorf("time server %s says %s, which cannot be", sample.Server, right.UTC().Format(time.DateTime))
	}
	s.mu.Lock()
	asked, first := s.running() && slices.Contains(s.config.Servers, sample.Server), s.at == 0
	if asked {
		s.last, s.at = sample, kmsg.Uptime()
	}
	s.mu.Unlock()
	if !asked {
		return fmt.Errorf("time server %s is none of the configuration", sample.Server)
	}
	if sample.Offset.Abs() > stepAbove {
		if err := settime(right); err != nil {
			return err
		}
		s.log.Printf(kmsg.Info, "the clock was set by %s to %s", sample.Server, right.UTC().Format(time.DateTime))
		return nil
	}
	if first {
		s.log.Printf(kmsg.Info, "the clock agrees with %s", sample.Server)
	}
	return slew(sample.Offset)
}

// slew has the kernel make up for an offset, half a millisecond each second (adjtime(3)).
func slew(offset time.Duration) error {
	const offsetSingleshot = 0x8001 // ADJ_OFFSET_SINGLESHOT of linux/timex.h
	change := unix.Timex{Modes: offsetSingleshot}
	assign(&change.Offset, offset.Microseconds())
	if _, err := unix.Adjtimex(&change); err != nil {
		return fmt.Errorf("adjust the clock: %w", err)
	}
	return nil
}

// assign is for a field whose type is the architecture's.
func assign[T int32 | int64](field *T, value int64) { *field = T(value) }

// state is what the console shows.
func (s *timeService) state() (console.NTPState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.running():
		return console.NTPState{Status: "stopped"}, nil
	case s.at == 0:
		return console.NTPState{Status: "waiting"}, nil
	}
	st := console.NTPState{Status: "synchronized", Server: s.last.Server, Stratum: s.last.Stratum, Offset: s.last.Offset}
	if kmsg.Uptime()-s.at > freshSample {
		st.Status = "waiting"
	}
	return st, nil
}

// Stop ends the client.
func (s *timeService) Stop() {
	s.mu.Lock()
	s.run++ // nothing starts it again
	if s.wake != nil {
		s.wake.Stop()
	}
	s.mu.Unlock()
	s.process.Stop()
}
