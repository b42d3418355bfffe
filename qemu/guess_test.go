package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
)

const (
	// guessers are the addresses from which passwords are guessed, guessTime for how long by the
	// router's clock.
	guessers  = 8
	guessTime = time.Minute
	// guessPause is for how long the router may work on other things while nothing moves of the download: for less than a check takes,
	// 0.4 s. What the host keeps the router from doing is not in it.
	guessPause = 300 * time.Millisecond
)

// TestGuessedPasswords has wrong passwords of version 5 come from several addresses, without a pause,
// while the smallest board relays a download. From each answer that an address gets to its next the
// download has gone on, no address gets more answers than the router's clock allows, and whoever has
// the right password is served from another address.
func TestGuessedPasswords(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	r, _, _ := startLoaded(t, func(*net.TCPConn) {})
	for _, line := range []string{
		`/ip socks users add name=alice password="alice's" only-one=yes`,
		`/ip socks users add name=bob password="bob's"`,
		"/ip socks set version=5 auth-method=password",
	} {
		assert.Empty(t, r.command(t, line))
	}
	var sources []string
	for i := range guessers {
		sources = append(sources, fmt.Sprintf("192.168.0.%d", 10+i))
		require.NoError(t, r.n[other].IP("addr add "+sources[i]+"/24 dev eth0"))
	}
	endless, err := r.n.listen(serverOfSite, sourcePort+40)
	require.NoError(t, err)
	t.Cleanup(func() { endless.Close() })
	go serveAll(endless, func(conn net.Conn) {
		for data := make([]byte, 64<<10); ; {
			if _, err := conn.Write(data); err != nil {
				return
			}
		}
	})
	source := netip.MustParseAddrPort(fmt.Sprintf("%s:%d", serverAddress, sourcePort+40))
	echo := netip.MustParseAddrPort(r.echo(t, sourcePort+41))
	uptime := func() time.Duration {
		word, err := find(r.command(t, "/system resource print"), `uptime: (\S+)`)
		require.NoError(t, err)
		d, err := time.ParseDuration(word)
		require.NoError(t, err)
		return d
	}
	count := func(user string, want int) {
		t.Helper()
		require.NoError(t, retry(func() error {
			if out := r.command(t, "/ip socks connections print count-only where user="+user); out != fmt.Sprintf("%d\n", want) {
				return fmt.Errorf("%q connections of %s, not %d", out, user, want)
			}
			return nil
		}))
	}
	// Who hangs up while his password is checked asks again: on a slow host a check may take longer than
	// the handshake may.
	login := func(h host, from, name, password string) (conn net.Conn, code byte) {
		t.Helper()
		require.NoError(t, retry(func() (err error) {
			conn, code, err = r.loginSOCKS5(h, from, name, password, echo)
			return err
		}))
		return conn, code
	}

	conn, code, err := r.loginSOCKS5(client, clientAddress, "bob", "bob's", source)
	require.NoError(t, err)
	require.Zero(t, code)
	t.Cleanup(func() { conn.Close() })
	// Bytes of the download, its longest pause in nanoseconds, the longest for which the router's processor ran in one, and how often that
	// was more than guessPause.
	var moved, longest, work, worked atomic.Int64
	broken := make(chan error, 1)
	go func() {
		last := time.Now()
		asked := last // when the time of the router's processor was asked for
		ran, err := r.m.processorTime()
		for data := make([]byte, 64<<10); ; {
			var n int
			if err == nil {
				n, err = conn.Read(data)
			}
			now, paused := time.Now(), time.Since(last)
			if err == nil && now.Sub(asked) > guessPause/10 {
				before := ran
				asked = now
				if ran, err = r.m.processorTime(); paused > guessPause/2 {
					work.Store(max(work.Load(), int64(ran-before)))
					if ran-before > guessPause {
						worked.Add(1)
					}
				}
			}
			if err != nil {
				broken <- err
				return
			}
			moved.Add(int64(n))
			longest.Store(max(longest.Load(), int64(paused)))
			last = now
		}
	}()
	require.NoError(t, retry(func() error {
		if n := moved.Load(); n < 1<<20 {
			return fmt.Errorf("the download has %d bytes", n)
		}
		return nil
	}))
	count("bob", 1)
	count("alice", 0)

	began := uptime()
	start, before := time.Now(), moved.Load()
	longest.Store(0)
	work.Store(0)
	worked.Store(0)
	var running sync.WaitGroup
	stop := make(chan struct{})
	answers := make([][]time.Time, guessers) // when an address learned that a password is wrong
	var given atomic.Int64                   // how many guesses were given up, as the time for a handshake was over
	for i, from := range sources {
		running.Go(func() {
			var last int64
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				conn, _, err := r.loginSOCKS5(other, from, []string{"alice", "bob", "nobody"}[n%3], fmt.Sprintf("guess %d", n), echo)
				switch {
				case errors.Is(err, errWrongSOCKS5):
					now := moved.Load()
					// A second and more by the router's clock has passed since the answer before.
					assert.Greater(t, now, last, "bytes of the download at answer %d for %s", len(answers[i]), from)
					last = now
					answers[i] = append(answers[i], time.Now())
				case err == nil:
					conn.Close()
					t.Errorf("guess %d from %s is right", n, from)
					return
				default:
					given.Add(1)
				}
			}
		})
	}
	ended := sync.OnceFunc(func() {
		close(stop)
		running.Wait()
	})
	t.Cleanup(ended)
	// alice's first login is checked like a guess; later ones are by what is remembered of it.
	var logins []time.Duration
	for uptime()-began < guessTime {
		begin := time.Now()
		first, code := login(other, otherAddress, "alice", "alice's")
		require.Zero(t, code)
		logins = append(logins, time.Since(begin))
		assertEcho(t, first)
		_, code = login(client, clientAddress, "alice", "alice's")
		assert.EqualValues(t, 2, code, "she may have one connection")
		count("alice", 1)
		count("bob", 1)
		first.Close()
		count("alice", 0)
	}
	free, _ := r.freeMemory(t)
	ended()
	passed := uptime() - began + time.Second // it is told in seconds
	select {
	case err := <-broken:
		t.Errorf("the download: %v", err)
	default:
	}
	t.Logf("the download has %.1f Mbit/s, and its longest pause was %v; in none did the router's processor run for more than %v, and in %d for more than %v; free memory: %.1f MiB",
		float64(8*(moved.Load()-before))/1e6/time.Since(start).Seconds(), time.Duration(longest.Load()).Round(time.Millisecond),
		time.Duration(work.Load()).Round(time.Millisecond), worked.Load(), guessPause, free)
	require.Greater(t, len(logins), 1)
	t.Logf("the right password was served %d times: the first in %v, later ones in at most %v", len(logins), logins[0].Round(time.Millisecond), slices.Max(logins[1:]).Round(time.Millisecond))
	all := 0
	for i := range answers {
		all += len(answers[i])
		assert.LessOrEqual(t, len(answers[i]), guessesWithin(passed), "answers for %s in %v", sources[i], passed)
		var gaps []time.Duration
		for k := 1; k < len(answers[i]); k++ {
			gaps = append(gaps, answers[i][k].Sub(answers[i][k-1]).Round(100*time.Millisecond))
		}
		t.Logf("%s: %d guesses answered, after pauses of %v", sources[i], len(answers[i]), gaps)
	}
	assert.Positive(t, all)
	// If the relay waited for checks, there would be one such pause at least for each.
	assert.LessOrEqual(t, worked.Load(), int64(all/4), "pauses of the download in which the router did other things for more than %v", guessPause)
	t.Logf("%d guesses were not answered in time; by %v of the router's clock there may be %d answers for an address", given.Load(), passed, guessesWithin(passed))

	// Who has guessed wrong waits, and is served with the right password.
	begin := time.Now()
	late, code := login(other, sources[0], "bob", "bob's")
	require.Zero(t, code)
	assertEcho(t, late)
	count("bob", 2)
	late.Close()
	count("bob", 1)
	t.Logf("the right password from an address of wrong ones: after %v", time.Since(begin).Round(time.Millisecond))
	conn.Close()
	count("bob", 0)
	assert.NotRegexp(t, `(?i)out of memory|oom|page allocation failure|table full|socksd.*(ended|exit|restart)`, r.m.screen.all())
}

// guessesWithin is how many wrong passwords of one address can be answered within d: the first makes the
// next one wait a second, each further one twice as long, up to 8 s (package socks).
func guessesWithin(d time.Duration) int {
	n := 1
	for delay := time.Second; d >= delay; delay = min(2*delay, 8*time.Second) {
		d -= delay
		n++
	}
	return n
}

// errWrongSOCKS5 says that a server of version 5 does not take name and password.
var errWrongSOCKS5 = errors.New("wrong name or password")

// loginSOCKS5 connects from an address of a host through the router, by version 5 with name and
// password (RFC 1928 and 1929). It returns the connection if the reply's code is 0, which is success.
func (r *router) loginSOCKS5(h host, from, name, password string, to netip.AddrPort) (_ net.Conn, code byte, err error) {
	conn, err := r.n[h].Dial(&net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}, socksAddress)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil || code != 0 {
			conn.Close()
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, 0, err
	}
	ask := func(request []byte, answer int) ([]byte, error) {
		b := make([]byte, answer)
		_, err := conn.Write(request)
		if err == nil {
			_, err = io.ReadFull(conn, b)
		}
		return b, err
	}
	b, err := ask([]byte{5, 1, 2}, 2)
	if err == nil && (b[0] != 5 || b[1] != 2) {
		err = fmt.Errorf("method %v, not that of a password", b)
	}
	if err != nil {
		return nil, 0, err
	}
	login := append([]byte{1, byte(len(name))}, name...)
	b, err = ask(append(append(login, byte(len(password))), password...), 2)
	if err == nil && b[1] != 0 {
		err = errWrongSOCKS5
	}
	if err != nil {
		return nil, 0, err
	}
	request := append([]byte{5, 1, 0, 1}, to.Addr().AsSlice()...)
	b, err = ask(binary.BigEndian.AppendUint16(request, to.Port()), 10)
	if err != nil {
		return nil, 0, err
	}
	return conn, b[1], conn.SetDeadline(time.Time{})
}
