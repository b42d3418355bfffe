package login

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/service"
)

// local is an address of this machine.
func local(n byte) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 1, n}) }

// Failures are forgotten after a while, and those of the oldest when there are too many addresses.
func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := failures{}
		assert.Zero(t, f.rank(local(0)))
		for range someFailures {
			f.add(local(0))
			assert.Equal(t, 1, f.rank(local(0)))
		}
		f.add(local(0))
		assert.Equal(t, 2, f.rank(local(0)))
		time.Sleep(forgetTime)
		assert.Equal(t, 2, f.rank(local(0)))
		time.Sleep(time.Nanosecond)
		assert.Zero(t, f.rank(local(0)))
		f.add(local(0))
		assert.Equal(t, 1, f.rank(local(0)), "it begins again")
		for i := range maxFailed {
			time.Sleep(time.Nanosecond)
			f.add(local(byte(1 + i)))
		}
		assert.Len(t, f, maxFailed)
		assert.Zero(t, f.rank(local(0)), "the oldest")
		assert.Equal(t, 1, f.rank(local(1)))
		f.add(local(1))
		assert.Len(t, f, maxFailed)
	})
}

// guessRig is the process of a service that takes one line, a password, and answers with PID 1's verdict. Only "right" is right; PID 1 takes
// for ever to say that "slow" is wrong, and the service to serve "stuck" and "known", which is of somebody who has logged in elsewhere.
type guessRig struct {
	*testing.T
	process *Process
	port    int
	over    chan struct{}
	release func() // closes over

	mu     sync.Mutex
	server *Server
}

func newGuessRig(t *testing.T) *guessRig {
	g := &guessRig{T: t, over: make(chan struct{})}
	g.release = sync.OnceFunc(func() { close(g.over) })
	spec := testSpec
	spec.Main = func(p *service.Child) error {
		g.mu.Lock()
		var s *Server
		s = NewServer(p, func(c *Conn) {
			_, _ = c.Write([]byte("hello\n"))
			line, err := bufio.NewReader(c).ReadString('\n')
			if err != nil {
				return
			}
			if said := strings.TrimSpace(line); said == "stuck" || said == "known" {
				if said == "known" {
					c.Known()
				}
				fmt.Fprintln(c, said)
				<-g.over
				return
			}
			e, v, err := s.Password(c.Context, Login{User: "admin", From: c.From}, strings.TrimSpace(line))
			if v == Right {
				c.Trust()
				defer e.Logout()
			}
			fmt.Fprintln(c, v, err)
		})
		g.server = s
		g.mu.Unlock()
		return s.Run()
	}
	ctx, cancel := context.WithCancel(context.Background())
	link, ended, err := service.Simulate(ctx, spec, func(l *service.Link) service.Handler {
		g.process = NewProcess(l, Authority{
			CheckPassword: func(_ Login, secret string) string {
				if secret == "right" {
					return "proof"
				}
				if secret == "slow" {
					<-g.over
				}
				return ""
			},
			LoggedIn: func(Login) {}, LoggedOut: func(Login) {},
		})
		return g.process.Handle
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		g.release()
		cancel()
		link.Close()
		<-ended
	})
	l, err := service.Listen(netip.MustParseAddrPort("0.0.0.0:0"))
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	name, err := unix.Getsockname(int(l.Fd()))
	require.NoError(t, err)
	g.port = name.(*unix.SockaddrInet4).Port
	require.NoError(t, g.process.Configure(t.Context(), Config{MaxSessions: 1}, TLS{}, "", l))
	return g
}

// line is what the service says next on a connection; "" if that is over.
func (g *guessRig) line(c net.Conn) string {
	g.Helper()
	require.NoError(g, c.SetReadDeadline(time.Now().Add(patience)))
	text, err := bufio.NewReader(c).ReadString('\n')
	require.NotErrorIs(g, err, os.ErrDeadlineExceeded)
	return strings.TrimSpace(text)
}

// connect connects from an address, and returns nil if the service has no place.
func (g *guessRig) connect(from netip.Addr) net.Conn {
	g.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	c, err := d.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", g.port))
	require.NoError(g, err)
	g.Cleanup(func() { c.Close() })
	if g.line(c) == "" {
		return nil
	}
	return c
}

// say says a line, and returns what is answered.
func (g *guessRig) say(c net.Conn, text string) string {
	g.Helper()
	_, err := fmt.Fprintln(c, text)
	require.NoError(g, err)
	return g.line(c)
}

// await waits until the service knows an address by a rank.
func (g *guessRig) await(from netip.Addr, rank int) {
	g.Helper()
	require.Eventually(g, func() bool {
		g.server.mu.Lock()
		defer g.server.mu.Unlock()
		return g.server.failures.rank(from) == rank
	}, patience, time.Millisecond)
}

// Whoever has failed leaves his place to who has not, also while PID 1 still checks his password, or has him wait.
func TestGuessersYield(t *testing.T) {
	g := newGuessRig(t)
	honest := netip.MustParseAddr("127.0.0.1")
	// The fast ones have places, and no failure yet.
	var places []net.Conn
	for i := range MaxStrangers {
		places = append(places, g.connect(local(byte(i))))
		require.NotNil(t, places[i])
	}
	assert.Nil(t, g.connect(honest), "nobody is worse than he is")
	for i, c := range places {
		assert.Equal(t, fmt.Sprint(Wrong, nil), g.say(c, "wrong"))
		g.await(local(byte(i)), 1)
	}
	for i := range MaxStrangers {
		require.Eventually(t, func() bool {
			places[i] = g.connect(local(byte(i)))
			return places[i] != nil
		}, patience, time.Millisecond)
		_, err := fmt.Fprintln(places[i], "slow")
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		g.process.mu.Lock()
		defer g.process.mu.Unlock()
		return g.process.checks == MaxStrangers
	}, patience, time.Millisecond)
	assert.Nil(t, g.connect(local(MaxStrangers-1)), "as bad as the others, and with as many places")
	// No check is over: each of these gets the place of one that has failed.
	for i := range MaxStrangers {
		var c net.Conn
		require.Eventually(t, func() bool { c = g.connect(local(byte(100 + i))); return c != nil }, patience, time.Millisecond, "%d: the displaced one is gone before its check is over", i)
		assert.Empty(t, g.line(places[i]), "the oldest of those that have failed")
	}
	assert.Nil(t, g.connect(local(0)))
}

// Those that leave slowly do not have who has failed less wait for one another, and are bounded.
func TestSlowToLeave(t *testing.T) {
	g := newGuessRig(t)
	for i := range MaxStrangers {
		require.Equal(t, fmt.Sprint(Wrong, nil), g.say(g.connect(local(byte(i))), "wrong"))
		g.await(local(byte(i)), 1)
	}
	var last net.Conn
	for i := range MaxStrangers {
		from := local(byte(i / 2)) // one address has two, which one with the same failures and none may displace
		require.Eventually(t, func() bool {
			last = g.connect(from)
			return last != nil
		}, patience, time.Millisecond)
		require.Equal(t, "stuck", g.say(last, "stuck"))
	}
	assert.NotNil(t, g.connect(local(MaxStrangers-1)), "has failed as often, and has no place")
	assert.Nil(t, g.connect(local(MaxStrangers-2)), "the last one has not gone yet")
	for i := range maxLeaving - 1 {
		assert.NotNil(t, g.connect(local(byte(100+i))))
	}
	assert.Nil(t, g.connect(local(byte(100+maxLeaving))))
}

// Who has logged in, and has no room for a connection that stays, is cut off by no stranger meanwhile, and has not failed to log in.
func TestKnownAmongStrangers(t *testing.T) {
	g := newGuessRig(t)
	user := local(1)
	require.Equal(t, fmt.Sprint(Wrong, nil), g.say(g.connect(user), "wrong"))
	g.await(user, 1)
	var known []net.Conn
	for range 3 {
		c := g.connect(user)
		require.Equal(t, "known", g.say(c, "known"))
		known = append(known, c)
	}
	g.await(user, 0)
	for i := range MaxStrangers - len(known) {
		require.NotNil(t, g.connect(local(byte(100+i))))
	}
	assert.Nil(t, g.connect(local(99)), "the user has the most places, and keeps them")
	for _, c := range known {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	}
	g.release()
	for _, c := range known {
		assert.Empty(t, g.line(c))
	}
	require.Eventually(t, func() bool {
		g.server.mu.Lock()
		defer g.server.mu.Unlock()
		return len(g.server.strangers[user]) == 0
	}, patience, time.Millisecond)
	g.await(user, 0)
}

// Who has the right password gets in among guesses that are being checked.
func TestRightAmongGuesses(t *testing.T) {
	g := newGuessRig(t)
	for i := range MaxStrangers {
		c := g.connect(local(byte(i)))
		require.Equal(t, fmt.Sprint(Wrong, nil), g.say(c, "wrong"))
		g.await(local(byte(i)), 1)
	}
	for i := range MaxStrangers {
		require.Eventually(t, func() bool {
			c := g.connect(local(byte(i)))
			if c == nil {
				return false
			}
			_, err := fmt.Fprintln(c, "slow")
			return err == nil
		}, patience, time.Millisecond)
	}
	honest := netip.MustParseAddr("127.0.0.1")
	c := g.connect(honest)
	require.NotNil(t, c)
	assert.Equal(t, fmt.Sprint(Right, nil), g.say(c, "right"))
}

// Who hangs up before the verdict has failed as others have, and so has who says nothing. Who was let in, or could not be asked about, has not.
func TestFailuresOfTheGone(t *testing.T) {
	g := newGuessRig(t)
	g.connect(local(1)).Close()
	g.await(local(1), 1)
	c := g.connect(local(2))
	_, err := fmt.Fprintln(c, "wrong")
	require.NoError(t, err)
	c.Close()
	g.await(local(2), 1)
	c = g.connect(local(1))
	assert.Equal(t, fmt.Sprint(Right, nil), g.say(c, "right"))
	g.await(local(1), 0)

	// MaxChecksOf are being checked: no more are asked about.
	for range MaxChecksOf {
		_, err = fmt.Fprintln(g.connect(local(3)), "slow")
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		g.process.mu.Lock()
		defer g.process.mu.Unlock()
		return g.process.checking[local(3)] == MaxChecksOf
	}, patience, time.Millisecond)
	c = g.connect(local(3))
	assert.Contains(t, g.say(c, "right"), "too many passwords are being checked")
	assert.Empty(t, g.line(c))
	g.server.mu.Lock()
	assert.NotContains(t, g.server.failures, local(3))
	g.server.mu.Unlock()
}

// PID 1 keeps checks for who has failed less.
func TestChecksKept(t *testing.T) {
	var failed sync.Map // how often each address has
	release := make(chan struct{})
	link, child, err := service.LinkPair(t.Context(), testSpec, func(l *service.Link) service.Handler {
		return NewProcess(l, Authority{
			CheckPassword: func(Login, string) string { <-release; return "" },
			Failures:      func(l Login) int { n, _ := failed.Load(l.From); return n.(int) },
		}).Handle
	}, func(_ context.Context, r *service.Request) ([]byte, error) {
		_, _ = r.Uint(maxID), r.Uint(uint64(Full))
		return nil, r.End()
	})
	require.NoError(t, err)
	t.Cleanup(func() { close(release); link.Close(); child.Close() })
	number := byte(0)
	for _, test := range []struct{ failures, room int }{{someFailures + 1, MaxChecks - 2*checksKept}, {1, checksKept}, {0, checksKept}} {
		for n := range test.room + 1 {
			number++
			failed.Store(netip.AddrFrom4([4]byte{10, 0, 0, number}), test.failures)
			err := askPassword(t, child, number)
			if n < test.room {
				require.NoError(t, err, "%d failures, check %d", test.failures, n)
			} else {
				require.ErrorContains(t, err, "too many passwords are being checked", "%d failures", test.failures)
			}
		}
	}
}
