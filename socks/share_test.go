package socks

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// deaf returns the address of a server that does not answer: its queue is full.
func deaf(t *testing.T) string {
	t.Helper()
	fd, err := newSocket()
	require.NoError(t, err)
	t.Cleanup(func() { closeSocket(fd) })
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, unix.Listen(fd, 0))
	at, err := localAddr(fd)
	require.NoError(t, err)
	for full := false; !full; {
		c, err := net.DialTimeout("tcp4", at.String(), 100*time.Millisecond)
		if full = err != nil; !full {
			t.Cleanup(func() { c.Close() })
		}
	}
	return at.String()
}

// TestHalfOpenFlood has a client send its request in two segments, between which another address
// opens twice as many connections as there are slots and sends nothing.
func TestHalfOpenFlood(t *testing.T) {
	const flooder, honest = "127.0.0.2", "127.0.0.3"
	u := start(t, func(o *options) { o.cfg.MaxConnections = 200 })
	l := listen(t, "127.0.0.1")
	request := ask(commandConnect, l.Addr().String(), "user")
	flood := func() {
		for range 2 * u.cfg.MaxConnections {
			dialFrom(t, flooder, u.addr)
		}
		require.Eventually(t, func() bool { return len(u.Connections()) == u.cfg.MaxConnections }, patience, time.Millisecond)
	}
	flood()
	for range 10 {
		near := dialFrom(t, honest, u.addr)
		near.send(request[:4])
		flood()
		near.send(request[4:])
		near.reply(replyGranted)
		accept(t, l)
	}
}

// TestSharesOfWaiting has one address take all slots with connections that wait. Another gets its
// half of them, and what the first keeps is its own.
func TestSharesOfWaiting(t *testing.T) {
	const slots, first, second, third = 60, "127.0.0.2", "127.0.0.3", "127.0.0.4"
	for _, c := range []struct {
		name, request string
		reply         bool
		change        func(*options)
	}{
		{name: "BIND", request: ask(commandBind, "127.0.0.9:21", ""), reply: true},
		{name: "names", request: askName(commandConnect, "slow.test", 80), change: func(o *options) { o.lookup = waitForEnd }},
		{name: "the firewall", request: ask(commandBind, "127.0.0.9:21", ""), change: func(o *options) {
			o.Open = func(ctx context.Context, _ Opening, _ *os.File) (func(), error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}},
		{name: "CONNECT", request: ask(commandConnect, deaf(t), "")},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, func(o *options) {
				o.cfg.MaxConnections = slots
				if c.change != nil {
					c.change(o)
				}
			})
			wait := func(from string) client {
				near := dialFrom(t, from, u.addr)
				near.send(c.request)
				if c.reply {
					near.reply(replyGranted)
				}
				return near
			}
			count := func(from string) (n int) {
				u.Server.mu.Lock()
				defer u.Server.mu.Unlock()
				for _, c := range u.conns {
					if c.src.Addr().String() == from && c.claim == waiting {
						n++
					}
				}
				return n
			}
			awaitShares := func(want ...int) {
				t.Helper()
				require.EventuallyWithT(t, func(t *assert.CollectT) {
					assert.Equal(t, want, []int{count(first), count(second), count(third)})
				}, patience, time.Millisecond)
			}
			oldest := wait(first)
			for n := 1; n < slots; n++ {
				wait(first)
				awaitShares(n+1, 0, 0)
			}
			dialFrom(t, first, u.addr).rejected()
			for n := range slots / 2 {
				wait(second)
				awaitShares(slots-n-1, n+1, 0)
			}
			oldest.rejected()
			for range 3 {
				dialFrom(t, second, u.addr).rejected()
				dialFrom(t, first, u.addr).rejected()
			}
			for n := range slots / 3 { // of the two in turn
				wait(third)
				awaitShares(slots/2-(n+2)/2, slots/2-(n+1)/2, n+1)
			}
			dialFrom(t, third, u.addr).rejected()
			u.awaitLog(t, "refused", "replaced: the table is full")
		})
	}
}

// TestClientsThatLeft fills the table with clients that have ended their side before they are
// answered. Each new connection takes the slot of one of them, also from the same address.
func TestClientsThatLeft(t *testing.T) {
	const slots = 50
	silent := deaf(t)
	for _, c := range []struct {
		name, request string
		change        func(*options)
	}{
		{name: "during CONNECT", request: ask(commandConnect, silent, "")},
		{name: "during a lookup", request: askName(commandConnect, "slow.test", 80), change: func(o *options) { o.lookup = waitForEnd }},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, func(o *options) {
				o.cfg.MaxConnections = slots
				if c.change != nil {
					c.change(o)
				}
			})
			for range slots {
				near := dial(t, u.addr)
				near.send(c.request)
				require.NoError(t, near.CloseWrite())
			}
			require.Eventually(t, func() bool {
				u.Server.mu.Lock()
				defer u.Server.mu.Unlock()
				n := 0
				for _, c := range u.conns {
					if c.claim == unfinished && c.state != handshaking {
						n++
					}
				}
				return n == slots
			}, patience, time.Millisecond)
			for range slots {
				u.connect(t)
			}
			dial(t, u.addr).rejected()
		})
	}
}

// TestHalfClosedRequest has a client end its side right behind its request, which is no reason to
// end the connection.
func TestHalfClosedRequest(t *testing.T) {
	u := start(t, nil)
	l := listen(t, "127.0.0.1")
	near := dial(t, u.addr)
	near.send(ask(commandConnect, l.Addr().String(), "") + "question")
	require.NoError(t, near.CloseWrite())
	near.reply(replyGranted)
	far := accept(t, l)
	assert.Equal(t, "question", far.receive(8))
	far.ended()
	far.send("answer")
	far.Close()
	assert.Equal(t, "answer", near.receive(6))
	near.ended()
}

// TestRanking changes connections of many addresses at random, and compares what the server would
// replace with a look at all of them.
func TestRanking(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	s := newServer(Options{}, defaultLimits())
	s.cfg.MaxConnections = 60
	var all []*conn
	address := func() netip.Addr { return netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", random.IntN(12))) }
	for step := range 20_000 {
		switch {
		case len(all) < s.cfg.MaxConnections && random.IntN(3) > 0:
			c := &conn{number: uint64(step), src: netip.AddrPortFrom(address(), 1)}
			s.occupy(c)
			s.judgeClaim(c)
			all = append(all, c)
		case len(all) > 0 && random.IntN(2) == 0:
			s.setClaim(all[random.IntN(len(all))], kept+claim(random.IntN(int(claims-kept))))
		case len(all) > 0 && random.IntN(2) == 0:
			all[random.IntN(len(all))].last = time.Duration(random.Int64N(int64(keptSilence)))
			s.now = time.Duration(random.Int64N(int64(2 * keptSilence)))
		case len(all) > 0:
			i := random.IntN(len(all))
			s.vacate(all[i])
			all = append(all[:i], all[i+1:]...)
		}
		slots, of := map[netip.Addr]int{}, map[netip.Addr]*[claims]int{}
		for _, c := range all {
			a := c.src.Addr()
			if slots[a]++; of[a] == nil {
				of[a] = &[claims]int{}
			}
			of[a][c.claim]++
		}
		require.Len(t, s.sources, len(slots))
		var most [claims]int
		for a, n := range of {
			require.Equal(t, slots[a], s.sources[a].slots)
			for k := kept; k < claims; k++ {
				require.Equal(t, n[k], s.sources[a].of[k].n)
				most[k] = max(most[k], n[k])
			}
		}
		newcomer := address()
		share := s.cfg.MaxConnections / len(slots)
		if slots[newcomer] == 0 {
			share = s.cfg.MaxConnections / (len(slots) + 1)
			of[newcomer] = &[claims]int{}
		}
		switch got := s.replaceable(newcomer); {
		case most[unfinished] > 0:
			require.Equal(t, unfinished, got.claim)
			require.Equal(t, most[unfinished], of[got.src.Addr()][unfinished])
			if of[newcomer][unfinished] == most[unfinished] {
				require.Equal(t, newcomer, got.src.Addr())
			}
		case most[waiting] > share && slots[newcomer] < share:
			require.Equal(t, waiting, got.claim)
			require.Equal(t, most[waiting], of[got.src.Addr()][waiting])
		case most[kept] > 0 && slots[newcomer] < share:
			first := s.most[kept].sources[0]
			require.Equal(t, most[kept], of[first.addr][kept])
			var quietest *conn
			for _, c := range all {
				if c.source == first && c.claim == kept && (quietest == nil || c.last < quietest.last) {
					quietest = c
				}
			}
			if slots[first.addr] > share && (slots[newcomer] == 0 || s.now-quietest.last >= keptSilence) {
				require.Same(t, first, got.source)
				require.Equal(t, kept, got.claim)
				require.Equal(t, quietest.last, got.last)
			} else {
				require.Nil(t, got)
			}
		default:
			require.Nil(t, got)
		}
	}
}

// TestSharesOfEstablished has one address fill the table with established connections. What another
// one gets depends on how quiet they are.
func TestSharesOfEstablished(t *testing.T) {
	const slots, first, second, third = 12, "127.0.0.2", "127.0.0.3", "127.0.0.4"
	l := listen(t, "127.0.0.1")
	fill := func(t *testing.T) (u *setup, clock *movedClock, near, far []client) {
		clock = &movedClock{}
		u = start(t, func(o *options) { clock.use(o); o.cfg.MaxConnections = slots })
		for range slots {
			n, f := connectFrom(t, u, first, l)
			near, far = append(near, n), append(far, f)
		}
		return u, clock, near, far
	}
	pass := func(t *testing.T, u *setup, clock *movedClock, d time.Duration) {
		for ; d > 0; d -= lateness / 2 {
			clock.forward(lateness / 2)
			clock.awaitTurn(t, u)
		}
	}
	echo := func(near, far client) {
		near.send("x")
		assert.Equal(near.t, "x", far.receive(1))
		far.send("y")
		assert.Equal(near.t, "y", near.receive(1))
	}
	t.Run("quiet ones give way up to the share", func(t *testing.T) {
		u, clock, near, far := fill(t)
		pass(t, u, clock, keptSilence)
		echo(near[0], far[0]) // a download that runs
		for range slots / 2 {
			connectFrom(t, u, second, l)
		}
		for n := 1; n <= slots/2; n++ {
			near[n].ended()
			far[n].ended()
		}
		u.awaitLog(t, "closed", "replaced: the table is full")
		pass(t, u, clock, keptSilence)
		for range 3 {
			dialFrom(t, second, u.addr).rejected()
			dialFrom(t, first, u.addr).rejected()
		}
		// A third one takes its share from both.
		for range slots / 3 {
			connectFrom(t, u, third, l)
		}
		dialFrom(t, third, u.addr).rejected()
		assert.Equal(t, map[string]int{first: slots / 3, second: slots / 3, third: slots / 3}, u.slots())
	})
	t.Run("others get one even if none is quiet", func(t *testing.T) {
		u, clock, near, far := fill(t)
		pass(t, u, clock, keptSilence-time.Second)
		for n := range slots {
			if n != 3 {
				echo(near[n], far[n])
			}
		}
		connectFrom(t, u, second, l)
		near[3].ended()
		far[3].ended()
		for range 3 {
			dialFrom(t, second, u.addr).rejected()
		}
		assert.Equal(t, map[string]int{first: slots - 1, second: 1}, u.slots())
	})
	t.Run("not for the same address", func(t *testing.T) {
		u, clock, _, _ := fill(t)
		pass(t, u, clock, 2*keptSilence)
		dialFrom(t, first, u.addr).rejected()
		assert.Len(t, u.Connections(), slots)
	})
}

// connectFrom connects a client with that address to l, through u.
func connectFrom(t *testing.T, u *setup, from string, l *net.TCPListener) (near, far client) {
	t.Helper()
	near = dialFrom(t, from, u.addr)
	near.send(ask(commandConnect, l.Addr().String(), ""))
	near.reply(replyGranted)
	return near, accept(t, l)
}

// slots returns how many connections each client address has.
func (u *setup) slots() map[string]int {
	n := map[string]int{}
	for _, c := range u.Connections() {
		n[c.Src.Addr().String()]++
	}
	return n
}
