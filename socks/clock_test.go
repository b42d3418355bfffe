package socks

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestClock(t *testing.T) {
	for _, c := range []struct {
		name                  string
		asked, passed, counts time.Duration
	}{
		{"woken at once", time.Second, 0, 0},
		{"as asked", time.Second, time.Second, time.Second},
		{"a little late", time.Second, 2 * time.Second, 2 * time.Second},
		{"a stall", time.Second, 2*time.Second + 1, stallCredit},
		{"a stall of a day", 0, 24 * time.Hour, stallCredit},
		{"nothing to wait for", never, 24 * time.Hour, 24 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newClock()
			k.machine = func() time.Duration { return time.Hour + c.passed }
			k.seen, k.now, k.asked = time.Hour, time.Minute, c.asked
			k.tick()
			assert.Equal(t, time.Minute+c.counts, k.now)
		})
	}
}

// TestSilenceBehindStall has a connection silent behind a stall for as long as TCP may wait until it
// has tried twice again: that is not idle. Longer is.
func TestSilenceBehindStall(t *testing.T) {
	for _, c := range []struct {
		name          string
		stall, silent time.Duration // how long it may be silent then, with an idle timeout of 20 s
		sends         string        // what the client sends before it is silent
	}{
		{"30 s", 30 * time.Second, 110 * time.Second, ""},
		{"30 s, and bytes that were on their way", 30 * time.Second, 110 * time.Second, "x"},
		{"an hour", time.Hour, 20*time.Second + 2*longestRetry, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var clock movedClock
			u := start(t, func(o *options) {
				clock.use(o)
				o.cfg.ConnectionIdleTimeout = 20 * time.Second
			})
			near, far := u.connect(t)
			clock.forward(c.stall)
			clock.awaitTurn(t, u)
			near.send(c.sends)
			far.receive(len(c.sends))
			passed := time.Duration(0)
			for passed < c.silent-2*time.Second {
				clock.forward(lateness / 2)
				passed += lateness / 2
				clock.awaitTurn(t, u)
			}
			require.Len(t, u.Connections(), 1, "ended after %v of silence: %s", passed, u.logged())
			require.Eventually(t, func() bool {
				clock.forward(lateness / 2)
				return len(u.Connections()) == 0
			}, patience, time.Millisecond)
			u.awaitLog(t, "connection 1", "idle timeout")
		})
	}
}

// movedClock is a server's clock that stands still but for what a test puts it forward: however
// slow the host is, no more time passes.
type movedClock struct {
	ahead, looks atomic.Int64 // nanoseconds, and how often it was read
}

func (m *movedClock) use(o *options) {
	o.clock = newClock()
	o.clock.machine = func() time.Duration {
		m.looks.Add(1)
		return time.Duration(m.ahead.Load())
	}
}

func (m *movedClock) forward(d time.Duration) { m.ahead.Add(int64(d)) }

// awaitTurn waits until the loop has done all that there was to do.
func (m *movedClock) awaitTurn(t *testing.T, u *setup) {
	t.Helper()
	looks := m.looks.Load()
	require.Eventually(t, func() bool {
		u.poller.wake()
		return m.looks.Load() >= looks+2 // it looks at the beginning of each turn
	}, patience, time.Millisecond)
}

// forwardUntil lets time pass, in steps that are no stall, until done.
func (m *movedClock) forwardUntil(t *testing.T, u *setup, done func() bool) {
	t.Helper()
	for start := time.Now(); !done(); {
		require.Less(t, time.Since(start), patience, "it does not happen")
		m.forward(lateness / 2)
		m.awaitTurn(t, u)
	}
}

// TestStall makes the machine stand still for longer than every deadline, with a connection
// in each state that has one. No connection may end by that, and each must end at its deadline
// when time passes again.
func TestStall(t *testing.T) {
	for _, c := range []struct {
		name   string
		begin  func(t *testing.T, u *setup)
		reason string
		time   time.Duration // that the state may take
	}{
		{"idle", func(t *testing.T, u *setup) { u.connect(t) }, "idle timeout", 20 * time.Second},
		{"handshake", func(t *testing.T, u *setup) { dial(t, u.addr).send("\x04\x01") }, "handshake timeout", 10 * time.Second},
		{"handshake of version 5", func(t *testing.T, u *setup) {
			dial(t, u.addr).send(greetingPassword + login("alice", "secret") + "\x05")
		}, "handshake timeout", 10 * time.Second},
		{"password", func(t *testing.T, u *setup) {
			dial(t, u.addr).send(greetingPassword + login("alice", "wrong"))
		}, "handshake timeout", 10 * time.Second},
		{"CONNECT", func(t *testing.T, u *setup) { dial(t, u.addr).send(askName(commandConnect, "slow.test", 80)) }, "connect timeout", 15 * time.Second},
		{"UDP ASSOCIATE", func(t *testing.T, u *setup) { u.associate(t, anywhere) }, "idle timeout", 20 * time.Second},
		{"BIND", func(t *testing.T, u *setup) {
			near := dial(t, u.addr)
			near.send(ask(commandBind, "127.0.0.1:21", ""))
			near.reply(replyGranted)
		}, "nobody called in time", 12 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			var clock movedClock
			u := start(t, func(o *options) {
				clock.use(o)
				o.cfg.ConnectionIdleTimeout = 20 * time.Second
				o.limits.handshake, o.limits.connect, o.limits.bind = 10*time.Second, 15*time.Second, 12*time.Second
				o.lookup = waitForEnd
				if strings.Contains(c.name, "5") || c.name == "password" {
					o.cfg.Version, o.cfg.AuthMethod, o.cfg.Users = 5, AuthPassword, []User{{Name: "alice", Password: hashOf("secret")}}
				}
				if c.name == "UDP ASSOCIATE" {
					withUDP(o)
				}
				o.matches = func(hash, secret string) bool {
					if secret == "wrong" {
						<-t.Context().Done()
					}
					return hash == hashOf(secret)
				}
			})
			c.begin(t, u)
			u.awaitCount(t, 1)
			for range 10 {
				clock.forward(time.Hour)
				clock.awaitTurn(t, u)
				require.Len(t, u.Connections(), 1, "ended by a stall: %s", u.logged())
			}
			assert.Less(t, u.Connections()[0].Idle, c.time)
			assert.GreaterOrEqual(t, u.Connections()[0].Age, 10*time.Hour, "the age is by the machine's clock")
			// The same time, in steps that are not a stall.
			require.Eventually(t, func() bool {
				clock.forward(lateness / 2)
				return len(u.Connections()) == 0
			}, patience, time.Millisecond)
			u.awaitLog(t, "connection 1", c.reason)
		})
	}
}
