package socks

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBucket(t *testing.T) {
	const rate = 160_000 // 20,000 bytes a second, 5,000 at once
	var b bucket
	now := time.Hour
	n, _ := b.credit(rate, now)
	assert.Equal(t, 5000, n, "no more than the burst, however long nothing moved")
	b.spend(5000, rate)
	n, at := b.credit(rate, now)
	assert.Zero(t, n)
	assert.Equal(t, now+80*time.Millisecond, at, "a quarter of the burst, at the next tick")
	n, _ = b.credit(rate, at)
	assert.Equal(t, 1600, n)
	b.spend(11600, rate)
	n, at = b.credit(rate, now+200*time.Millisecond)
	assert.Zero(t, n)
	assert.Equal(t, now+660*time.Millisecond, at, "what was too much is paid first")

	for _, rate := range []uint64{MinRateLimit, MaxRateLimit} {
		var b bucket
		all, moved := uint64(0), uint64(0)
		for now := time.Duration(0); now < time.Hour; now += 200 * time.Millisecond {
			n, _ := b.credit(rate, now)
			b.spend(n, rate)
			moved += uint64(n)
		}
		all = rate / 8 * 3600
		assert.InEpsilon(t, all, moved, 0.02, "%d bits per second for an hour", rate)
	}
}

// TestRateLimit counts what moves by the server's clock, which the test alone puts forward.
func TestRateLimit(t *testing.T) {
	const (
		rate = 160_000                // bits per second
		size = 60_000                 // bytes, which are all on their way before time passes
		step = 100 * time.Millisecond // 2,000 bytes
	)
	data := bytes.Repeat([]byte("x"), size)
	for _, c := range []struct {
		name   string
		names  []string // the users of the connections
		tx, rx bool
		spent  int // sums of tx and of rx of all after 1 s
	}{
		{name: "to the client", names: []string{"alice"}, rx: true, spent: 25_000},
		{name: "to the server", names: []string{"alice"}, tx: true, spent: 25_000},
		{name: "each direction by itself", names: []string{"alice"}, tx: true, rx: true, spent: 25_000},
		{name: "all connections together", names: []string{"alice", "alice", "alice"}, rx: true, spent: 25_000},
		{name: "another user", names: []string{"bob"}, rx: true, spent: size},
	} {
		t.Run(c.name, func(t *testing.T) {
			var clock movedClock
			u := startWithUsers(t, &passwordChecks{}, func(o *options) {
				clock.use(o)
				o.cfg.Users[0].RateLimit = rate
			})
			var nears, fars []client
			for _, name := range c.names {
				near, far := u.connectAs(t, name, map[string]string{"alice": "secret", "bob": "hidden"}[name])
				nears, fars = append(nears, near), append(fars, far)
			}
			send := func(all []client) {
				for _, one := range all {
					n, err := one.Write(data)
					require.NoError(t, err)
					require.Equal(t, size, n)
				}
			}
			if c.tx {
				send(nears)
			}
			if c.rx {
				send(fars)
			}
			sums := func() (tx, rx int) {
				for _, one := range u.Connections() {
					tx, rx = tx+int(one.Tx), rx+int(one.Rx)
				}
				return tx, rx
			}
			check := func(most int) {
				t.Helper()
				tx, rx := sums()
				for _, n := range []struct {
					moves bool
					bytes int
				}{{c.tx, tx}, {c.rx, rx}} {
					if n.moves {
						assert.LessOrEqual(t, n.bytes, most)
						// A part of the burst is waited for, until the next tick.
						assert.GreaterOrEqual(t, n.bytes, most-burst(rate)/burstPart-rate/8/50)
					} else {
						assert.Zero(t, n.bytes)
					}
				}
			}
			// All that is on its way is read when the loop has had its turns.
			settle := func() {
				tx, rx := -1, -1
				require.Eventually(t, func() bool {
					beforeTx, beforeRx := tx, rx
					clock.awaitTurn(t, u)
					tx, rx = sums()
					return tx == beforeTx && rx == beforeRx
				}, patience, time.Millisecond)
			}
			settle()
			if c.spent < size {
				check(5_000)
			}
			for range 10 {
				clock.forward(step)
				settle()
			}
			check(c.spent)
			u.cfg.Users[0].RateLimit = 0
			require.NoError(t, u.Configure(u.cfg, nil))
			require.Eventually(t, func() bool {
				tx, rx := sums()
				return (!c.tx || tx == size*len(c.names)) && (!c.rx || rx == size*len(c.names))
			}, patience, time.Millisecond)
		})
	}
}

// TestRateLimitAtTheEnd has a stream end, and another be reset, while they wait for the limit.
func TestRateLimitAtTheEnd(t *testing.T) {
	limited := func(o *options) { o.cfg.Users[0].RateLimit = 400_000 }
	t.Run("end", func(t *testing.T) {
		u := startWithUsers(t, &passwordChecks{}, limited)
		near, far := u.connectAs(t, "alice", "secret")
		far.send(string(make([]byte, 30_000)))
		far.Close()
		assert.Len(t, near.receive(30_000), 30_000)
		near.ended()
	})
	t.Run("reset", func(t *testing.T) {
		u := startWithUsers(t, &passwordChecks{}, limited)
		near, far := u.connectAs(t, "alice", "secret")
		far.send(string(make([]byte, 30_000)))
		near.SetLinger(0)
		near.Close()
		far.wasReset()
		u.awaitCount(t, 0)
	})
}

// TestRateLimitOfDatagrams has a user send more datagrams than the limit allows.
func TestRateLimitOfDatagrams(t *testing.T) {
	const size = 1000 // bytes, of which 4096 may go at once
	var clock movedClock
	u := startWithUsers(t, &passwordChecks{}, func(o *options) {
		clock.use(o)
		o.cfg.UDP = true
		o.cfg.Users[0].RateLimit = 8_000
	})
	near := dial(t, u.addr)
	near.send(greetingPassword + login("alice", "secret") + ask5(commandAssociate, "0.0.0.0:0"))
	require.Equal(t, mayLogIn, near.receive(4))
	at := near.reply5(reply5Granted)
	client, peer := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0")
	for range 10 {
		client.send(at, to(peer.at, strings.Repeat("x", size)))
	}
	tx := func() uint64 { return u.Connections()[0].Tx }
	require.Eventually(t, func() bool { return tx() == 4*size }, patience, time.Millisecond)
	for n := range 6 {
		require.Eventually(t, func() bool {
			if tx() >= uint64(5+n)*size {
				return true
			}
			clock.forward(100 * time.Millisecond)
			clock.awaitTurn(t, u)
			return false
		}, patience, time.Millisecond)
	}
	u.Server.mu.Lock()
	defer u.Server.mu.Unlock()
	assert.LessOrEqual(t, 10*size, leastBurst+int(u.now/time.Second+1)*1000)
}
