package router

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/store"
)

// The values of the state, each a line name=value.
const (
	stateTime    = "time"    // when it last ran, in seconds since 1970
	stateSeed    = "seed"    // for the kernel's random numbers, see seed.go
	statePorts   = "ports"   // that were there before an upgrade
	stateFailure = "failure" // of an upgrade: slot, sequence number and why
	stateHostKey = "ssh-host-key"
)

// timeInterval is how often the time is written, besides at an orderly restart: at this rate
// two erase blocks of 100,000 cycles last 22 years.
const timeInterval = time.Hour

// maxStateValue is how many bytes a value of the state has at most.
const maxStateValue = 40 << 10

// valueStore keeps values over a restart.
type valueStore interface {
	kept() bool
	// room is how many bytes a value can have.
	room() int
	get(name string) string
	put(map[string]string) error
}

// values returns where values are kept: in the state or, if the flash has no room for that, with the configuration.
func values(s *stateStore, k *configStore) valueStore {
	if s.kept() {
		return s
	}
	return noteStore{k}
}

// stateStore keeps what the router itself needs at its next start, and nobody sets. It is on
// a partition of its own, if the flash has room for one. If it cannot be written the log says
// so, and the router goes on without it.
type stateStore struct {
	log *kmsg.Logger

	mu     sync.Mutex
	store  medium // nil if there is none
	values map[string]string
	// last returns what else is to be kept at the end; nil if there is nothing.
	last func() map[string]string
}

// openState reads the state from its partition.
func openState(log *kmsg.Logger, sys, dev string) *stateStore {
	k := &stateStore{log: log}
	path, err := findPartition(sys, dev, board.StatePartition)
	if err != nil {
		log.Printf(kmsg.Info, "time and random seed are not kept: no partition is named %s", board.StatePartition)
		return k
	}
	if err := k.open(path); err != nil {
		log.Printf(kmsg.Error, "state: %v", err)
	}
	return k
}

func (k *stateStore) open(path string) error {
	s, err := store.Open(path)
	if err != nil {
		return err
	}
	k.store, k.values = s, map[string]string{}
	text, _, err := k.store.Load()
	if err != nil && !errors.Is(err, store.ErrEmpty) {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			k.values[name] = value
		}
	}
	return nil
}

// get returns a value, "" if there is none.
func (k *stateStore) get(name string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.values[name]
}

// put changes values, and returns when they are on flash.
func (k *stateStore) put(change map[string]string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.store == nil {
		return errors.New("there is no flash for the state")
	}
	next := maps.Clone(k.values)
	for name, value := range change {
		// A value is one line.
		next[name] = strings.Join(strings.Fields(value), " ")
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(next)) {
		fmt.Fprintf(&text, "%s=%s\n", name, next[name])
	}
	if err := k.store.Save([]byte(text.String())); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	k.values = next
	return nil
}

// room is how many bytes a value can have, and leaves the others theirs.
func (k *stateStore) room() int { return maxStateValue }

// kept reports whether there is a place for the state.
func (k *stateStore) kept() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.store != nil
}

// startClock sets the clock to when the router last ran, if it is behind that: without a
// battery it begins in 1970. How long the power was off is not known. The clock is never set
// back.
func (k *stateStore) startClock(now time.Time, set func(time.Time) error) {
	seconds, err := strconv.ParseInt(k.get(stateTime), 10, 64)
	if err != nil {
		return // none is kept
	}
	// The clock of 32-bit systems ends in 2038.
	last := time.Unix(seconds, 0)
	if !last.After(now) || last.Year() > 2037 {
		return
	}
	if err := set(last); err != nil {
		k.log.Printf(kmsg.Error, "%v", err)
		return
	}
	k.log.Printf(kmsg.Info, "the clock goes on from %s, when it last ran", last.UTC().Format(time.DateTime))
}

// times is the time as a value of the state, or nil if it is not known.
func times(now kmsg.Clock) map[string]string {
	if !now.Set {
		return nil
	}
	return map[string]string{stateTime: fmt.Sprint(now.Now.Unix())}
}

// keepTime writes the time every timeInterval, until stop is closed. Where there is no place for it the log has said so.
func (k *stateStore) keepTime(stop <-chan struct{}) {
	if !k.kept() {
		return
	}
	ticks := time.NewTicker(timeInterval)
	defer ticks.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticks.C:
		}
		if change := times(kmsg.ClockNow()); change != nil {
			if err := k.put(change); err != nil {
				k.log.Printf(kmsg.Warning, "%v", err)
			}
		}
	}
}

// close writes what the next start wants to know. Nothing is put from then on.
func (k *stateStore) close() {
	if !k.kept() {
		return
	}
	change := times(kmsg.ClockNow())
	if change == nil {
		change = map[string]string{}
	}
	if seed, err := newSeed(); err == nil {
		change[stateSeed] = seed
	}
	if k.last != nil {
		maps.Copy(change, k.last())
	}
	if err := k.put(change); err != nil {
		k.log.Printf(kmsg.Error, "%v", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.store.Close(); err != nil {
		k.log.Printf(kmsg.Warning, "%v", err)
	}
	k.store = nil
}
