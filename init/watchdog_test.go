package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
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
}

func (h *hardware) KeepAlive() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beats++
	return nil
}

func (h *hardware) MagicClose() error {
	h.stopped = true
	return nil
}

func (h *hardware) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.beats
}

func TestWatchdog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	said := func() string {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(text)
	}

	h := &hardware{}
	w := &watchdog{log: kmsg.New(f), device: h, beat: 5 * time.Millisecond, patience: 200 * time.Millisecond, ask: 5 * time.Millisecond}
	w.well.Store(int64(kmsg.Uptime()))
	var wedged sync.Mutex
	go w.run()
	go w.watch(func() error {
		wedged.Lock()
		defer wedged.Unlock()
		return nil
	})
	require.Eventually(t, func() bool { return h.count() > 60 }, 10*time.Second, time.Millisecond, "it is told longer than without a word")
	wedged.Lock()
	require.Eventually(t, func() bool { return strings.Contains(said(), "the watchdog will reset it") }, 10*time.Second, 5*time.Millisecond)
	n := h.count()
	time.Sleep(50 * time.Millisecond)
	assert.Equal(t, n, h.count(), "a router that is stuck tells nothing")
	wedged.Unlock()
	require.Eventually(t, func() bool { return h.count() > n }, 10*time.Second, time.Millisecond)
	w.leave(false)
	assert.False(t, h.stopped, "a restart that hangs is ended by the hardware")
	time.Sleep(50 * time.Millisecond)
	n = h.count()
	time.Sleep(50 * time.Millisecond)
	assert.Equal(t, n, h.count())
	w.leave(true)
	assert.True(t, h.stopped)
	none := &watchdog{}
	none.leave(true)
}
