package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Parent is PID 1's view of one process of a service: it serves what the process asks, and
// believes nothing that it has not checked.
type Parent interface {
	// Handle is the Handler of the link.
	Handle(ctx context.Context, r *Request) ([]byte, error)
	// Ended is called when the process and the link are gone, and Handle has returned.
	Ended()
}

// Desired is what a service shall do.
type Desired struct {
	// Configure tells a process, by its Parent. It is called for each process after its start,
	// and again when an answer did not come in time. nil if there is nothing to tell.
	Configure func(ctx context.Context, p Parent) error
	// Listeners are the sockets of a service that starts OnConnection: a connection that waits in
	// one, or a packet, starts it.
	Listeners []*os.File
}

// State is what a service is doing.
type State int

// The states of a service.
const (
	Off        State = iota // not enabled
	Sleeping                // waits for a connection
	Starting                // has a process, which has not taken its configuration yet
	Running                 // has a process, which has
	Stopping                // the process was told to end
	BackingOff              // the process has ended, and is started again after a pause
	Stopped                 // for good
)

func (s State) String() string {
	return [...]string{"off", "sleeping", "starting", "running", "stopping", "backing off", "stopped"}[s]
}

// Status is how a service is.
type Status struct {
	State State
	Since time.Time
	// Silent is how many questions in a row the process has not answered.
	Silent int
	// Restarts is how often a process had to be started again.
	Restarts int
	// Err is why the last process ended, or was refused its configuration; nil once one runs.
	Err error
}

// Options are what a Service has beside its Spec.
type Options struct {
	// Parent returns PID 1's view of a new process; nil if the process asks nothing and is told
	// nothing.
	Parent func(*Link) Parent
	// Terminal is the device that the process has as a terminal, "" for none.
	Terminal string
	// Label is what the log calls the service; the Spec's name, if it is empty.
	Label string
}

const (
	// questionTime is how long one question to a process waits for its answer, and maxSilent
	// how many in a row may be without one. Together they outlive a host that serves the
	// process badly for half a minute, and end one that hangs before the watchdog resets the
	// router.
	questionTime = 10 * time.Second
	maxSilent    = 5
)

// Service keeps processes of a Spec running while it is enabled. No method but Stop waits for
// a process.
type Service struct {
	supervisor *Supervisor
	spec       Spec
	options    Options
	log        Log
	// question is questionTime, but in tests.
	question time.Duration

	mu         sync.Mutex
	desired    *Desired // nil if it is off
	generation uint64   // counts changes of desired
	pending    []*Change
	parent     Parent // of the process that has taken a configuration; nil if there is none
	status     Status
	stopped    bool

	changed chan struct{} // has an element when desired or stopped has changed
	ended   chan struct{} // closed after the last process
}

// Change is a desired state on its way to the process.
type Change struct {
	generation uint64
	done       chan struct{}
	err        error
}

// Wait waits until the process has taken the desired state, or a later one, and returns nil
// then; when the service was turned off, until the process is gone. It returns an error if the
// process cannot be started, ended before it had taken a configuration, or refuses it, and the
// cause of ctx when that ends. The state is desired in each case. Of a nil Change, that of a service
// which was never changed, it waits for nothing.
func (c *Change) Wait(ctx context.Context) error {
	if c == nil {
		return nil
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// NewService returns a service that is off.
func (s *Supervisor) NewService(spec Spec, options Options) *Service {
	if options.Label == "" {
		options.Label = spec.Name
	}
	if options.Parent == nil {
		options.Parent = func(*Link) Parent { return silentParent{} }
	}
	v := &Service{supervisor: s, spec: spec, options: options, log: s.Log(spec.topic()), question: questionTime,
		changed: make(chan struct{}, 1), ended: make(chan struct{})}
	v.status.Since = time.Now()
	s.mu.Lock()
	v.stopped = s.stopped
	s.services = append(s.services, v)
	s.mu.Unlock()
	go v.run()
	return v
}

// silentParent is that of a process that has nothing to ask.
type silentParent struct{}

func (silentParent) Handle(context.Context, *Request) ([]byte, error) {
	return nil, fmt.Errorf("%w: a request", ErrBreach)
}

func (silentParent) Ended() {}

// Set makes d what the service shall do, and turns it off if d is nil. It returns at once.
func (s *Service) Set(d *Desired) *Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &Change{done: make(chan struct{})}
	if s.stopped {
		if d != nil {
			c.err = ErrStopped
		}
		close(c.done)
		return c
	}
	s.generation++
	c.generation = s.generation
	s.desired = d
	s.pending = append(s.pending, c)
	s.wake()
	return c
}

// wake has run look at what has changed. The caller holds mu.
func (s *Service) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Parent returns that of the process, or nil if none has taken a configuration.
func (s *Service) Parent() Parent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parent
}

// Status returns how the service is.
func (s *Service) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Health returns why the service, if it is enabled, does not serve anybody, or nil.
func (s *Service) Health() error {
	switch st := s.Status(); st.State {
	case Starting, BackingOff:
		if st.Err != nil {
			return fmt.Errorf("%s does not run: %w", s.options.Label, st.Err)
		}
		return fmt.Errorf("%s does not run", s.options.Label)
	}
	return nil
}

// Stop turns the service off for good, and returns when its process is gone or was given up.
func (s *Service) Stop() {
	s.mu.Lock()
	s.stopped, s.desired = true, nil
	s.generation++
	s.wake()
	s.mu.Unlock()
	<-s.ended
}

// wanted returns what the service shall do now.
func (s *Service) wanted() (d *Desired, generation uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.desired, s.generation
}

func (s *Service) set(state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.State, s.status.Since = state, time.Now()
}

// resolve ends the waiting for changes up to a generation.
func (s *Service) resolve(generation uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var later []*Change
	for _, c := range s.pending {
		if c.generation > generation {
			later = append(later, c)
			continue
		}
		c.err = err
		close(c.done)
	}
	s.pending = later
}

// run is the life of the service.
func (s *Service) run() {
	defer close(s.ended)
	var pause backoff
	for {
		d, generation := s.awaitEnabled()
		if d == nil {
			return
		}
		if s.spec.Start == OnConnection {
			s.set(Sleeping)
			s.resolve(generation, nil)
			if !s.awaitConnection(d, generation) {
				continue
			}
		}
		began := time.Now()
		told, err := s.live()
		if told {
			continue
		}
		if err == nil && s.spec.Start == OnConnection {
			pause = backoff{} // it was idle: the next caller shall not wait for that
		}
		wait := max(pause.next(time.Since(began)), s.spec.LeastPause)
		s.mu.Lock()
		s.status.Err = err
		if err != nil {
			s.status.Restarts++
		}
		if err != nil || s.spec.Start != OnConnection {
			s.status.State, s.status.Since = BackingOff, time.Now()
		}
		s.mu.Unlock()
		if err != nil {
			s.log.Printf(levelWarning, "%s: %v; starting it again in %v", s.options.Label, err, wait)
		}
		s.pause(wait, generation)
	}
}

// awaitEnabled returns what the service shall do when it is enabled, nil when it was stopped.
func (s *Service) awaitEnabled() (*Desired, uint64) {
	for {
		s.mu.Lock()
		d, generation, stopped := s.desired, s.generation, s.stopped
		s.mu.Unlock()
		if d != nil && !stopped {
			return d, generation
		}
		if stopped {
			s.set(Stopped)
		} else {
			s.set(Off)
		}
		s.resolve(generation, nil)
		if stopped {
			return nil, 0
		}
		<-s.changed
	}
}

// pause waits, or until the user has another wish than that of the generation.
func (s *Service) pause(d time.Duration, generation uint64) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		if _, now := s.wanted(); now != generation {
			return
		}
		select {
		case <-timer.C:
			return
		case <-s.changed:
		}
	}
}

// awaitConnection waits for a connection, without taking it. It returns false if something else
// is desired.
func (s *Service) awaitConnection(d *Desired, generation uint64) bool {
	came := make(chan struct{}, len(d.Listeners))
	for _, l := range d.Listeners {
		// A descriptor of its own, for as long as this takes: no other wakes PID 1 for each
		// connection when a process is there.
		f, err := duplicate(l)
		if err != nil {
			s.log.Printf(levelError, "%s: wait for a connection: %v", s.options.Label, err)
			continue
		}
		raw, err := f.SyscallConn()
		if err != nil {
			f.Close()
			continue
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if raw.Read(readable) == nil {
				came <- struct{}{}
			}
		}()
		defer func() {
			f.Close() // which ends the Read
			<-done
		}()
	}
	for {
		if _, now := s.wanted(); now != generation {
			return false
		}
		select {
		case <-came:
			return true
		case <-s.changed:
		}
	}
}

// duplicate returns another descriptor of a listening socket, for the poller.
func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var second *os.File
	controlErr := raw.Control(func(fd uintptr) {
		if err = unix.SetNonblock(int(fd), true); err != nil {
			return
		}
		var n int
		if n, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			second = os.NewFile(uintptr(n), f.Name())
		}
	})
	return second, errors.Join(controlErr, err)
}

// readable reports whether a connection waits.
func readable(fd uintptr) bool {
	polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(polled, 0)
	return err == nil && n > 0
}

// answer is how a question to a process went.
type answer struct {
	configured bool   // it was a configuration
	generation uint64 // of that
	err        error
}

// live is one process, to its end. It returns told if it was told to end, and otherwise why
// it has ended: nil if that is its right.
func (s *Service) live() (told bool, err error) {
	var parent Parent
	p, err := s.supervisor.start(s.spec, s.options.Terminal, func(l *Link) Handler {
		parent = s.options.Parent(l)
		return parent.Handle
	})
	if err != nil {
		_, generation := s.wanted()
		s.resolve(generation, err)
		return false, err
	}
	s.set(Starting)
	answers := make(chan answer, 1)
	var cancel context.CancelFunc // of the question that is under way
	var asked answer              // which that is
	defer func() {
		if cancel != nil {
			cancel()
			<-answers
		}
		s.gone(p, parent)
	}()
	ask := func(a answer, f func(context.Context, Parent) error) {
		var ctx context.Context
		ctx, cancel = WithTimeout(context.Background(), s.question)
		asked = a
		go func() {
			if f != nil {
				a.err = f(ctx, parent)
			} else if p.link != nil && !a.configured {
				a.err = p.link.Call(ctx, opAlive, nil, nil)
			}
			answers <- a
		}()
	}
	var next <-chan time.Time // for the question whether it is well
	var taken uint64
	for {
		d, generation := s.wanted()
		if d == nil {
			s.set(Stopping)
			if err := p.end(); err != nil {
				s.log.Printf(levelError, "%v", err)
			}
			return true, nil
		}
		switch {
		case generation == taken:
		case cancel == nil:
			ask(answer{configured: true, generation: generation}, d.Configure)
		case asked.generation != generation:
			cancel() // it is not wanted any more, or can wait
		}
		select {
		case <-p.exited:
			return false, s.exit(p, taken)
		case <-p.linkEnded():
			return false, s.linkEnded(p, taken)
		case <-s.changed:
		case <-next:
			next = nil
			if cancel == nil {
				ask(answer{generation: generation}, s.spec.Alive)
			}
		case a := <-answers:
			cancel()
			cancel = nil
			if err := s.take(p, parent, a, &taken); err != nil {
				return false, err
			}
			next = s.nextQuestion(a.err)
		}
	}
}

// nextQuestion is when to ask whether the process is well, after a question that went so.
func (s *Service) nextQuestion(err error) <-chan time.Time {
	switch {
	case errors.Is(err, ErrTimeout):
		return time.After(0)
	case err != nil && s.Status().Silent > 0:
		return time.After(s.question)
	}
	return time.After(s.spec.askEvery())
}

// take takes how a question went. An error means that the process was ended for it.
func (s *Service) take(p *process, parent Parent, a answer, taken *uint64) error {
	var refused RemoteError
	switch {
	case a.err == nil:
		s.answered(parent)
		if a.configured {
			*taken = a.generation
			s.resolve(a.generation, nil)
		}
		return nil
	case errors.Is(a.err, context.Canceled), errors.Is(a.err, ErrGone), errors.Is(a.err, ErrBreach):
		return nil // asked again, or the end of the process follows
	case errors.As(a.err, &refused) && !a.configured:
		s.log.Printf(levelWarning, "%s is not well: %v", s.options.Label, a.err)
	case !errors.Is(a.err, ErrTimeout) && a.configured:
		s.resolve(a.generation, a.err)
		if *taken == 0 {
			// It would serve nothing.
			return errors.Join(a.err, p.end())
		}
		*taken = a.generation // it goes on with what it had
		return nil
	}
	s.mu.Lock()
	s.status.Silent++
	silent := s.status.Silent
	s.mu.Unlock()
	if silent < maxSilent {
		return nil
	}
	s.log.Printf(levelError, "%s hangs: it is ended", s.options.Label)
	return errors.Join(fmt.Errorf("no answer to %d questions", silent), p.kill())
}

// answered notes that the process runs.
func (s *Service) answered(parent Parent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Silent = 0
	if s.status.State != Starting {
		return
	}
	if s.status.Err != nil {
		s.log.Printf(levelNotice, "%s is back", s.options.Label)
	}
	s.status.State, s.status.Since, s.status.Err = Running, time.Now(), nil
	s.parent = parent
}

// exit returns why a process has ended by itself.
func (s *Service) exit(p *process, taken uint64) error {
	if p.waitErr == nil && (s.spec.MayEnd || s.spec.Start == OnConnection) {
		return nil
	}
	err := errors.New("it " + p.how())
	if taken == 0 {
		_, generation := s.wanted()
		s.resolve(generation, fmt.Errorf("%s %s", s.spec.Name, p.how()))
	}
	return err
}

// linkEnded ends a process whose link has ended, and returns why.
func (s *Service) linkEnded(p *process, taken uint64) error {
	broke := p.link.Err()
	if broke != nil {
		return errors.Join(broke, p.kill())
	}
	// It closed its link, which is its end as a rule.
	if !p.awaitExit(s.spec.stopTime()) {
		return errors.Join(errors.New("it closed its control link"), p.kill())
	}
	return s.exit(p, taken)
}

// gone tidies up behind a process.
func (s *Service) gone(p *process, parent Parent) {
	s.mu.Lock()
	s.parent = nil
	s.status.Silent = 0
	s.mu.Unlock()
	if p.link != nil {
		p.link.Close()
		<-p.link.Done()
		parent.Ended()
	}
}

// backoff is the pause before a process is started again: short after a long life, then longer
// with each quick end.
type backoff struct{ pause time.Duration }

const (
	firstPause = 50 * time.Millisecond
	longPause  = 10 * time.Second
	longLife   = 30 * time.Second
)

// next returns the pause after a life of that length.
func (b *backoff) next(life time.Duration) time.Duration {
	switch {
	case life >= longLife:
		b.pause = firstPause
	case b.pause == 0:
		b.pause = firstPause
	default:
		b.pause = min(2*b.pause, longPause)
	}
	return b.pause
}
