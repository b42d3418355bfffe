package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	// quiet is how long there must be no change before a text is written. So a pasted
	// script is one write.
	quiet = time.Second
	// atMost is the longest time that a change waits for quiet.
	atMost = 5 * time.Second
	// burst is how many writes may follow each other like this. A person makes fewer
	// changes in a long evening.
	burst = 100
	// refill is the time after which one write of the burst is given back. So it is the
	// time between writes in the long run.
	refill = 5 * time.Minute
	// retryFirst is the time from a failed write to the next try. It doubles with each
	// failure up to retryMax, since each try may wear the flash.
	retryFirst = 5 * time.Second
	retryMax   = time.Hour
)

// A Keeper saves a text that changes, without making the one who changes it wait: after a
// second without a change, and at the latest 5 seconds after the first change that is not
// saved. After a burst of 100 writes there is one write in 5 minutes. If a write fails, the
// Keeper reports it and tries again after 5, 10, 20 seconds and so on, up to an hour, with
// the text that is the newest then.
type Keeper struct {
	save   func(text []byte) error
	report func(error)
	wake   chan struct{} // has room for one
	done   chan struct{} // closed when the last attempt is over

	mu sync.Mutex
	// text is the newest text, nil when it is saved. If make is set, it returns that: see PutLater.
	text []byte
	make func() []byte
	// pending says that text must be written. first and last are the times of the first
	// and the last change since the last write.
	pending     bool
	first, last time.Time
	// err is why the newest text is not saved, or nil.
	err error
	// spent is the time when all writes of the burst will have been given back.
	spent time.Time
	// retry is the earliest time of the next try after failures, that many in a row.
	retry    time.Time
	failures int
	closed   bool
}

// NewKeeper starts a Keeper that calls save, one call at a time. That is a Store's Save, or
// without flash a function that returns the reason. report gets each error, and nil
// when a text has been saved after errors. It is called between two writes and must not
// call Close.
func NewKeeper(save func(text []byte) error, report func(error)) *Keeper {
	k := &Keeper{save: save, report: report, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go k.run()
	return k
}

// Put gives the Keeper the newest text. It never waits. After Close it does nothing.
func (k *Keeper) Put(text []byte) {
	text = bytes.Clone(text)
	k.PutLater(func() []byte { return text })
}

// PutLater is Put of the text that make returns, which is called once, when the text is to be written: who changes something
// need not wait until it is made. If make returns nil there is nothing to write. A later Put takes its place.
func (k *Keeper) PutLater(make func() []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	k.make = make
	k.last = time.Now()
	if !k.pending {
		k.pending, k.first = true, k.last
	}
	k.signal()
}

// Close writes what is not saved, without waiting for quiet, for a write of the burst or
// for the time of the next try, and ends the Keeper. It returns when the newest text is on
// the medium, or why it is not; save is not called again then. If ctx ends first, a save
// that hangs is left behind. A second Close returns os.ErrClosed.
func (k *Keeper) Close(ctx context.Context) error {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return fmt.Errorf("close: keeper %w", os.ErrClosed)
	}
	k.closed = true
	k.signal()
	k.mu.Unlock()
	select {
	case <-k.done:
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.err
	case <-ctx.Done():
		return fmt.Errorf("close: %w", ctx.Err())
	}
}

// signal makes run look again.
func (k *Keeper) signal() {
	select {
	case k.wake <- struct{}{}:
	default: // it has not looked yet since the last time
	}
}

func (k *Keeper) run() {
	defer close(k.done)
	for {
		k.mu.Lock()
		pending, due, closed := k.pending, k.due(), k.closed
		k.mu.Unlock()

		var timer <-chan time.Time
		switch {
		case closed:
			if pending {
				k.attempt()
			}
			return
		case pending && !time.Now().Before(due):
			k.attempt()
			continue
		case pending:
			timer = time.After(time.Until(due))
		}
		select {
		case <-k.wake:
		case <-timer:
		}
	}
}

// due returns the time at which the pending text is to be written.
func (k *Keeper) due() time.Time {
	due := k.last.Add(quiet)
	if latest := k.first.Add(atMost); latest.Before(due) {
		due = latest
	}
	for _, notBefore := range []time.Time{k.spent.Add(-(burst - 1) * refill), k.retry} {
		if notBefore.After(due) {
			due = notBefore
		}
	}
	return due
}

// attempt writes the newest text, which is pending.
func (k *Keeper) attempt() {
	k.mu.Lock()
	text, make := k.text, k.make
	k.make, k.pending = nil, false
	k.mu.Unlock()
	if make != nil {
		if text = make(); text == nil {
			k.nothing()
			return
		}
		k.mu.Lock()
		k.text = text
		k.mu.Unlock()
	}

	err := k.save(text)
	if recovered := k.settle(err); err != nil || recovered {
		k.report(err)
	}
}

// nothing goes on where there was nothing to write. A text that could not be written before is still to be written.
func (k *Keeper) nothing() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.text != nil && k.failures > 0 {
		k.pending = true
	}
}

// settle records the result of a write and reports whether it is the first success after
// failures.
func (k *Keeper) settle(err error) (recovered bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if k.spent.Before(now) {
		k.spent = now
	}
	k.spent = k.spent.Add(refill)
	k.err = err
	if err == nil {
		if !k.pending || k.make != nil {
			k.text = nil
		}
		recovered = k.failures > 0
		k.failures, k.retry = 0, time.Time{}
		return recovered
	}
	if errors.Is(err, ErrTooLong) {
		// This text will not get shorter, and the flash works: only the next text is
		// tried, without waiting.
		k.failures, k.retry = max(k.failures, 1), time.Time{}
		return false
	}
	k.retry = now.Add(min(retryFirst<<min(k.failures, 16), retryMax))
	k.failures++
	k.pending = true
	return false
}
