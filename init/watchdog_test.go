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
	mu    sync.Mutex
	beats int
	text  string
}

func (h *hardware) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beats++
	h.text = string(p)
	return len(p), nil
}

func (h *hardware) Close() error { return nil }

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
	w := &watchdog{log: kmsg.New(f), file: h, beat: 5 * time.Millisecond, patience: 200 * time.Millisecond, ask: 5 * time.Millisecond}
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
	time.Sleep(50 * time.Millisecond)
	n = h.count()
	time.Sleep(50 * time.Millisecond)
	assert.Equal(t, n, h.count())
	w.leave(true)
	assert.Equal(t, "V", h.text)
	none := &watchdog{}
	none.leave(true)
}
