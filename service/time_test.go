package service

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeClock has time go by as a test says.
type fakeClock struct {
	time   time.Time
	timers []*fakeTimer
}

type fakeTimer struct {
	at   time.Time
	f    func()
	done bool
}

func (c *fakeClock) now() time.Time { return c.time }

func (c *fakeClock) after(d time.Duration, f func()) func() bool {
	timer := &fakeTimer{at: c.time.Add(d), f: f}
	c.timers = append(c.timers, timer)
	return func() bool {
		was := timer.done
		timer.done = true
		return !was
	}
}

// run has time go by, with every timer on time.
func (c *fakeClock) run(d time.Duration) {
	for end := c.time.Add(d); ; {
		var next *fakeTimer
		for _, timer := range c.timers {
			if !timer.done && (next == nil || timer.at.Before(next.at)) {
				next = timer
			}
		}
		if next == nil || next.at.After(end) {
			c.time = end
			return
		}
		if next.at.After(c.time) {
			c.time = next.at
		}
		next.done = true
		next.f()
	}
}

// stall has the machine stand still: every timer that has passed fires at its end.
func (c *fakeClock) stall(d time.Duration) {
	c.time = c.time.Add(d)
	c.run(0)
}

func TestWithTimeout(t *testing.T) {
	const limit = 10 * time.Second
	ended := func(ctx context.Context) bool {
		// The end comes by a goroutine.
		for range 1000 {
			if ctx.Err() != nil {
				return true
			}
			time.Sleep(time.Millisecond)
		}
		return false
	}
	start := func() (*fakeClock, context.Context, context.CancelFunc) {
		c := &fakeClock{time: time.Unix(0, 0)}
		ctx, cancel := withTimeout(c, context.Background(), limit)
		return c, ctx, cancel
	}
	t.Run("time that goes by", func(t *testing.T) {
		c, ctx, cancel := start()
		defer cancel()
		c.run(limit - time.Millisecond)
		require.NoError(t, ctx.Err())
		c.run(time.Millisecond)
		require.True(t, ended(ctx))
		assert.Equal(t, ErrTimeout, context.Cause(ctx))
	})
	t.Run("a stall", func(t *testing.T) {
		c, ctx, cancel := start()
		defer cancel()
		c.run(3 * time.Second)
		c.stall(2 * time.Minute)
		c.run(6 * time.Second)
		require.NoError(t, ctx.Err(), "a stall of two minutes counts for a second at the most")
		c.run(time.Second)
		require.True(t, ended(ctx))
	})
	t.Run("a stall at the end", func(t *testing.T) {
		c, ctx, cancel := start()
		defer cancel()
		c.run(limit - time.Millisecond)
		c.stall(2 * time.Minute)
		require.NoError(t, ctx.Err(), "the others have time to run after it")
		c.run(time.Second)
		require.True(t, ended(ctx))
	})
	t.Run("stalls without end", func(t *testing.T) {
		c, ctx, cancel := start()
		defer cancel()
		for range 100 {
			c.stall(time.Minute)
		}
		require.True(t, ended(ctx))
	})
	t.Run("late by a little, as on a busy machine", func(t *testing.T) {
		c, ctx, cancel := start()
		defer cancel()
		for range 10 {
			c.stall(1900 * time.Millisecond)
		}
		require.True(t, ended(ctx), "a step counts for its length")
	})
	t.Run("cancelled", func(t *testing.T) {
		c, ctx, cancel := start()
		cancel()
		assert.Equal(t, context.Canceled, context.Cause(ctx))
		c.run(2 * limit)
		for _, timer := range c.timers {
			assert.True(t, timer.done, "no timer is left")
		}
	})
	t.Run("the real clock", func(t *testing.T) {
		ctx, cancel := WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		<-ctx.Done()
		assert.Equal(t, ErrTimeout, context.Cause(ctx))
	})
}
