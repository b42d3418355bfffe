package service

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrTimeout is why a context of WithTimeout ended (context.Cause).
var ErrTimeout = errors.New("no answer in time")

// A machine or process that stood still, because its host was busy, it was suspended or flash
// was erased, finds every deadline passed when it goes on, though nobody had a chance to meet
// them. So time is waited for here in steps. A step counts for its length, however late its
// timer fires. One that was more than twice as long as it should be counts for half: then there
// is always some time left in which the others run, too.

const (
	// stepsOfWait is in how many steps a time is waited for, and longestStep how long one is
	// at the most: a stall is seen if it is longer.
	stepsOfWait  = 10
	longestStep  = time.Second
	shortestStep = time.Millisecond
)

// clock is the machine's, but in tests.
type clock interface {
	now() time.Time
	// after calls f in a goroutine of its own after d, unless it is stopped.
	after(d time.Duration, f func()) (stop func() bool)
}

type realClock struct{}

func (realClock) now() time.Time { return time.Now() }

func (realClock) after(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }

// wait is a time that is waited for in steps.
type wait struct {
	clock clock
	f     func()

	mu      sync.Mutex
	left    time.Duration
	step    time.Duration
	longest time.Duration // of the steps
	began   time.Time     // when the step did
	stop    func() bool
	stopped bool
}

// afterRunning calls f in a goroutine of its own when the process has run for d. The function
// that it returns keeps that from happening if it has not yet.
func afterRunning(c clock, d time.Duration, f func()) (stop func()) {
	w := &wait{clock: c, f: f, left: d, longest: min(max(d/stepsOfWait, shortestStep), longestStep)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next()
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stopped = true
		w.stop()
	}
}

// next begins a step. The caller holds mu.
func (w *wait) next() {
	w.step = min(w.left, w.longest)
	w.began = w.clock.now()
	w.stop = w.clock.after(w.step, w.ended)
}

// ended counts the step that has ended.
func (w *wait) ended() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	counted := w.step
	if w.step > shortestStep && w.clock.now().Sub(w.began) > 2*w.step+longestStep/4 {
		counted /= 2
	}
	if w.left -= counted; w.left > 0 {
		w.next()
		return
	}
	w.stopped = true
	go w.f()
}

// WithTimeout returns a context that ends, because of ErrTimeout, when this process has run for
// d: time in which it or its machine stood still counts for little. cancel frees what it takes.
func WithTimeout(parent context.Context, d time.Duration) (ctx context.Context, cancel context.CancelFunc) {
	return withTimeout(realClock{}, parent, d)
}

func withTimeout(c clock, parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	stop := afterRunning(c, d, func() { cancel(ErrTimeout) })
	return ctx, func() {
		stop()
		cancel(context.Canceled)
	}
}
