package socks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/resolve"
)

// nameBook is a lookup: names that begin with "slow" have no answer until they are told.
type nameBook struct {
	mu      sync.Mutex
	asked   map[string]int
	answers map[string]chan error
}

func (b *nameBook) use(o *options) {
	b.asked, b.answers = map[string]int{}, map[string]chan error{}
	o.lookup = func(ctx context.Context, host string, _ resolve.Servers) ([]netip.Addr, error) {
		b.mu.Lock()
		b.asked[host]++
		if b.answers[host] == nil {
			b.answers[host] = make(chan error)
		}
		answer := b.answers[host]
		b.mu.Unlock()
		if strings.HasPrefix(host, "slow") {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case err := <-answer:
				if err != nil {
					return nil, err
				}
			}
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
}

// answer answers a name that somebody waits for.
func (b *nameBook) answer(host string, err error) {
	b.mu.Lock()
	answer := b.answers[host]
	b.mu.Unlock()
	answer <- err
}

func (b *nameBook) awaitAsked(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.asked) == n
	}, patience, time.Millisecond, "%d names asked for", n)
}

// TestSilentNames has a client ask for a hundred names whose servers are silent. It gets half of the
// places, and another client's name is found at once; so is its own when those have left that
// have a place.
func TestSilentNames(t *testing.T) {
	const greedy, honest, names = "127.0.0.2", "127.0.0.3", 100
	var book nameBook
	u := start(t, book.use)
	l := listen(t, "127.0.0.1")
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	var all []client
	for i := range names {
		near := dialFrom(t, greedy, u.addr)
		near.send(askName(commandConnect, fmt.Sprintf("slow%d.test", i), 80))
		all = append(all, near)
	}
	u.awaitCount(t, names)
	half := u.limits.lookups / 2
	book.awaitAsked(t, half)
	near := dialFrom(t, honest, u.addr)
	near.send(askName(commandConnect, "good.test", port))
	near.reply(replyGranted)
	accept(t, l)
	book.awaitAsked(t, half+1)

	// The end of a client's side alone does not end its lookup, but gives its place to others.
	for _, c := range all {
		require.NoError(t, c.CloseWrite())
	}
	near = dialFrom(t, greedy, u.addr)
	near.send(askName(commandConnect, "better.test", port))
	near.reply(replyGranted)
	accept(t, l)
}

// TestHalfClosedNames has clients end their side right behind a request for a name. One loses its place
// if another client can have it then, and no other does.
func TestHalfClosedNames(t *testing.T) {
	const first, second, third = "127.0.0.2", "127.0.0.3", "127.0.0.4"
	request := func(u *setup, from, host string, port uint16) client {
		near := dialFrom(t, from, u.addr)
		near.send(askName(commandConnect, host, port))
		return near
	}
	l := listen(t, "127.0.0.1")
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	// served checks that a client whose name is answered now is connected.
	served := func(book *nameBook, near client, host string) {
		book.answer(host, nil)
		near.reply(replyGranted)
		accept(t, l)
	}
	t.Run("who waits may have no more places", func(t *testing.T) {
		var book nameBook
		u := start(t, book.use)
		half := u.limits.lookups / 2
		for n := range half + 1 {
			request(u, first, fmt.Sprintf("slow%d.test", n), 80)
		}
		u.awaitCount(t, half+1)
		near := request(u, second, "slow.test", port)
		book.awaitAsked(t, half+1)
		require.NoError(t, near.CloseWrite())
		u.awaitLeft(t, 1)
		request(u, first, "slower.test", 80) // has the places looked at once more
		u.awaitCount(t, half+3)
		served(&book, near, "slow.test")
	})
	t.Run("there is a place already", func(t *testing.T) {
		var book nameBook
		stuck := make(chan struct{})
		u := start(t, func(o *options) {
			book.use(o)
			lookup := o.lookup
			o.lookup = func(ctx context.Context, host string, servers resolve.Servers) ([]netip.Addr, error) {
				defer func() {
					if ctx.Err() != nil {
						<-stuck // a lookup that takes its time to end
					}
				}()
				return lookup(ctx, host, servers)
			}
			o.limits.lookups = 2
		})
		end := sync.OnceFunc(func() { close(stuck) })
		t.Cleanup(end)
		left := request(u, first, "slow1.test", 80)
		book.awaitAsked(t, 1)
		near := request(u, second, "slow2.test", port)
		book.awaitAsked(t, 2)
		require.NoError(t, left.CloseWrite())
		require.NoError(t, near.CloseWrite())
		u.awaitLeft(t, 2)
		other := request(u, third, "slow3.test", port)
		left.rejected()
		u.awaitLog(t, "connection 1 refused", errYielded.Error())
		request(u, third, "slow4.test", 80)
		u.awaitCount(t, 3)
		end()
		book.awaitAsked(t, 3)
		served(&book, other, "slow3.test")
		book.awaitAsked(t, 4)
		served(&book, near, "slow2.test")
	})
}

// awaitLeft waits until the server knows of n clients that they have ended their side.
func (u *setup) awaitLeft(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		u.Server.mu.Lock()
		defer u.Server.mu.Unlock()
		left := 0
		for _, c := range u.conns {
			if c.tx.ending {
				left++
			}
		}
		return left == n
	}, patience, time.Millisecond, "%d clients have left", n)
}

// TestPlacesOfManyClients: each further address gets half of the places that are left.
func TestPlacesOfManyClients(t *testing.T) {
	var book nameBook
	u := start(t, book.use)
	asked := 0
	for i, want := range []int{16, 8, 4, 2, 1} {
		for n := range 34 {
			dialFrom(t, fmt.Sprintf("127.0.1.%d", i+1), u.addr).send(askName(commandConnect, fmt.Sprintf("slow%d-%d.test", i, n), 80))
		}
		asked += want
		book.awaitAsked(t, asked)
	}
}

// TestOneQuestionForAName has several clients wait for the same name: it is asked for once, who
// leaves does not take it from the others, and all are told the same.
func TestOneQuestionForAName(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
	}{{"an address", nil}, {"none", errors.New("no such thing")}} {
		t.Run(c.name, func(t *testing.T) {
			var book nameBook
			u := start(t, book.use)
			l := listen(t, "127.0.0.1")
			port := l.Addr().(*net.TCPAddr).AddrPort().Port()
			var all []client
			for i, host := range []string{"slow.test", "SLOW.test", "slow.test.", "slow.test"} {
				near := dial(t, u.addr)
				near.send(askName(commandConnect, host, port))
				u.awaitCount(t, i+1)
				book.awaitAsked(t, 1)
				all = append(all, near)
			}
			require.NoError(t, all[0].SetLinger(0))
			require.NoError(t, all[0].Close())
			u.awaitCount(t, len(all)-1)
			book.answer("slow.test", c.err)
			for _, near := range all[1:] {
				if c.err != nil {
					near.rejected()
					continue
				}
				near.reply(replyGranted)
				accept(t, l)
			}
			assert.Equal(t, map[string]int{"slow.test": 1}, book.asked)
		})
	}
}

// TestKnownNames: what is known needs no place.
func TestKnownNames(t *testing.T) {
	var book nameBook
	u := start(t, func(o *options) {
		book.use(o)
		o.limits.lookups = 1
	})
	l := listen(t, "127.0.0.1")
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	u.Server.mu.Lock()
	u.known = func(host string, _ resolve.Servers) ([]netip.Addr, error, bool) {
		switch host {
		case "known.test":
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil, true
		case "nowhere.test":
			return nil, resolve.ErrNotFound, true
		}
		return nil, nil, false
	}
	u.Server.mu.Unlock()
	dial(t, u.addr).send(askName(commandConnect, "slow.test", 80))
	book.awaitAsked(t, 1)
	near := dial(t, u.addr)
	near.send(askName(commandConnect, "known.test", port))
	near.reply(replyGranted)
	accept(t, l)
	near = dial(t, u.addr)
	near.send(askName(commandConnect, "nowhere.test", port))
	near.rejected()
	u.awaitLog(t, "refused", resolve.ErrNotFound.Error())
}

// TestLookupsLeft has a client ask for more names at once than it has places for, whose server is
// silent, and then leave one connection after the other: each time one that has a place while others
// wait for it. Each ends once, and nothing of them is left.
func TestLookupsLeft(t *testing.T) {
	const names = 40
	reset := func(c client) {
		require.NoError(c.t, c.SetLinger(0))
		require.NoError(c.t, c.Close())
	}
	for _, c := range []struct {
		name   string
		leave  func(client)
		reason string // in the log
	}{
		{"reset", reset, "client left: connection reset by peer"},
		{"half-closed", func(c client) {
			require.NoError(c.t, c.CloseWrite())
			c.rejected()
			require.NoError(c.t, c.Close())
		}, errYielded.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			silent, at := nameServer(t)
			require.NoError(t, silent.SetReadDeadline(time.Now().Add(patience)))
			u := start(t, func(o *options) {
				o.SocketMemory = 1 << 20
				o.limits.connect = time.Hour // however slow the host is
				lookup := newLookup(resolve.New(resolve.Options{Limit: o.limits.lookups, Wait: time.Hour, Total: time.Hour}))
				o.lookup = func(ctx context.Context, host string, _ resolve.Servers) ([]netip.Addr, error) {
					return lookup(ctx, host, resolve.Servers{at})
				}
			})
			before := countDescriptors()
			all := map[string]client{}
			for i := range names {
				host := fmt.Sprintf("n%02d.test", i)
				all[host] = dial(t, u.addr)
				all[host].send(askName(commandConnect, host, 80))
			}
			u.awaitCount(t, names)
			// asked returns a name that the server has not been asked for before.
			seen := map[string]bool{}
			asked := func() string {
				for {
					b := make([]byte, 512)
					n, _, err := silent.ReadFrom(b)
					require.NoError(t, err, "%d names asked for", len(seen))
					require.Greater(t, n, 13+len("n00"))
					host := string(b[13:13+len("n00")]) + ".test"
					if !seen[host] {
						seen[host] = true
						return host
					}
				}
			}
			running := fifo[string]{}
			for range u.limits.lookups / 2 {
				running.push(asked())
			}
			for left := names - 1; left >= 0; left-- {
				u.Server.log.allow()
				near := all[running.pop()]
				if len(seen) == names { // none waits
					reset(near)
				} else {
					c.leave(near)
					running.push(asked())
				}
				u.awaitCount(t, left)
			}
			require.Eventually(t, func() bool {
				u.Server.mu.Lock()
				defer u.Server.mu.Unlock()
				return len(u.sources) == 0 && u.holders == 0 && u.memoryAny == 0
			}, patience, time.Millisecond, "something is left of the address")
			require.Eventually(t, func() bool { return countDescriptors() <= before+maxDismissed }, patience, time.Millisecond)
			u.awaitLog(t, fmt.Sprintf("connection %d refused", names))
			u.awaitLog(t, "connection 1 refused", c.reason)
			assert.Equal(t, names, u.endings(t))
		})
	}
}

// allow has the next lines of the log pass, however many there were.
func (l *limitedLog) allow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spent = 0
}
