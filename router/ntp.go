package router

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/ntp"
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
// what it says.
type timeService struct {
	log *kmsg.Logger
	// notBefore is a time that has passed: the version's. No server's word goes before it.
	notBefore time.Time

	mu     sync.Mutex
	config ntp.Config
	names  []netip.Addr
	stop   context.CancelFunc // nil if it does not run
	ended  chan struct{}
	last   ntp.Sample
	at     time.Duration // of last, since the start; 0 if there was none
}

func newTimeService(log *kmsg.Logger, notBefore time.Time) *timeService {
	return &timeService{log: log, notBefore: notBefore}
}

func (*timeService) Name() string { return "ntp" }

func (*timeService) Health() error { return nil }

func (s *timeService) Show(live *console.Live) { live.NTP = s.state }

// Apply brings the client to a configuration and the name servers that it asks.
func (s *timeService) Apply(next console.Config) error {
	s.apply(next.NTP, next.DNS)
	return nil
}

func (s *timeService) apply(config ntp.Config, names []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reflect.DeepEqual(config, s.config) && slices.Equal(names, s.names) {
		return
	}
	if s.stop != nil {
		s.stop()
		// Its goroutine asks for mu, which is ours, to note an answer.
		ended := s.ended
		s.mu.Unlock()
		<-ended
		s.mu.Lock()
		s.stop, s.at = nil, 0
	}
	s.config, s.names = ntp.Config{Enabled: config.Enabled, Servers: slices.Clone(config.Servers)}, slices.Clone(names)
	if !config.Enabled || len(config.Servers) == 0 {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop, s.ended = stop, make(chan struct{})
	go func(ended chan struct{}, arguments []string) {
		defer close(ended)
		s.run(ctx, arguments)
	}(s.ended, ntp.Arguments(s.config, s.names))
}

// run keeps a process of nobody's going until ctx is done.
func (s *timeService) run(ctx context.Context, arguments []string) {
	var pause backoff
	for {
		start := time.Now()
		cmd := processOfNobody(ctx, "ntp", arguments)
		cmd.Stderr = s.log
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err == nil {
			s.read(out)
			err = cmd.Wait()
		}
		if ctx.Err() != nil {
			return
		}
		wait := max(pause.next(time.Since(start)), time.Minute)
		s.log.Printf(kmsg.Warning, "time client ended (%v); starting it again in %v", err, wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// read takes what the process says, to its end. A line that is no sample ends it.
func (s *timeService) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(make([]byte, 0, 512), 512)
	for lines.Scan() {
		sample, err := ntp.ParseSample(lines.Text())
		if err == nil {
			err = s.take(sample)
		}
		if err != nil {
			s.log.Printf(kmsg.Warning, "%v", err)
			return
		}
	}
}

// take sets the clock by a sample.
func (s *timeService) take(sample ntp.Sample) error {
	now := time.Now()
	right := now.Add(sample.Offset)
	if right.Before(s.notBefore) || right.Year() > 2037 {
		return fmt.Errorf("time server %s says %s, which cannot be", sample.Server, right.UTC().Format(time.DateTime))
	}
	s.mu.Lock()
	first := s.at == 0
	s.last, s.at = sample, kmsg.Uptime()
	s.mu.Unlock()
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
	case s.stop == nil:
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
func (s *timeService) Stop() { s.apply(ntp.Config{}, nil) }
