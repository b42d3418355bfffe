package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/kmsg"
)

// hardware is a watchdog that counts.
type hardware struct {
	mu      sync.Mutex
	beats   int
	stopped bool
	err     error
}

func (h *hardware) KeepAlive() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beats++
	return h.err
}

func (h *hardware) MagicClose() error {
	h.stopped = true
	return nil
}

func (h *hardware) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

// count returns the beats since the last time.
func (h *hardware) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.beats
	h.beats = 0
	return n
}

const willReset = "the watchdog will reset it"

func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "log")
		f, err := os.Create(path)
		require.NoError(t, err)
		defer f.Close()
		said := func(text string) int {
			log, err := os.ReadFile(path)
			require.NoError(t, err)
			return strings.Count(string(log), text)
		}
		var stall atomic.Int64                  // how long the machine stood still
		var answer atomic.Pointer[func() error] // of the router
		set := func(f func() error) { answer.Store(&f) }
		well := func() error { return nil }
		set(well)
		start, h := time.Now(), &hardware{}
		w := &watchdog{log: kmsg.New(f), device: h, beat: watchdogBeat, patience: patience, ask: askBeat,
			uptime: func() time.Duration { return time.Since(start) + time.Duration(stall.Load()) }}
		go w.run()
		go w.watch(func() error { return (*answer.Load())() })
		time.Sleep(10*time.Minute + time.Second)
		assert.Equal(t, 121, h.count(), "as long as all is well it is told")

		stall.Add(int64(10 * time.Minute))
		time.Sleep(time.Minute)
		assert.Equal(t, 12, h.count(), "a machine that stood still is well")
		assert.Zero(t, said(willReset))

		hang := make(chan error)
		for _, ill := range []func() error{
			func() error { return errors.New("it is ill") },
			func() error { return <-hang },
		} {
			set(ill)
			time.Sleep(askBeat + patience + watchdogBeat)
			assert.NotZero(t, h.count(), "it may take a while")
			time.Sleep(10 * time.Minute)
			assert.Zero(t, h.count(), "then nothing is told any more")
			set(well)
			select {
			case hang <- nil:
			default:
			}
			time.Sleep(2 * watchdogBeat)
			assert.NotZero(t, h.count())
		}
		assert.Equal(t, 2, said(willReset))
		assert.Equal(t, 1, said("the router is not well: it is ill"), "once, however often it is asked")

		h.fail(errors.New("no such device"))
		time.Sleep(watchdogBeat)
		assert.Equal(t, 1, said("watchdog: no such device"))
		h.fail(nil)
		w.leave(false)
		assert.False(t, h.stopped, "a restart that hangs is ended by the hardware")
		h.count()
		time.Sleep(time.Minute)
		assert.Zero(t, h.count())
		w.leave(true)
		assert.True(t, h.stopped)
	})
	none := &watchdog{}
	none.leave(true)
}
