package socks

import (
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestCallsOfAddressesInTurn has one address call many times, and another once behind it, before the server looks. The
// number of a connection tells when it was dealt with.
func TestCallsOfAddressesInTurn(t *testing.T) {
	const rude, honest = "127.0.0.2", "127.0.0.3"
	u := start(t, nil)
	u.Server.mu.Lock()
	for range maxCalls - 1 {
		dialFrom(t, rude, u.addr)
	}
	dialFrom(t, honest, u.addr)
	u.Server.mu.Unlock()
	u.awaitCount(t, maxCalls)
	place := 0
	for i, c := range u.Connections() {
		if c.Src.Addr().String() == honest {
			place = i + 1
		}
	}
	assert.Equal(t, 2, place)
}

// TestManyCallsAtOnce has more calls wait than are accepted at a time, of connections that have something to say meanwhile.
// All are served.
func TestManyCallsAtOnce(t *testing.T) {
	var clock movedClock // on a busy host calls wait for so long that some are refused
	u := start(t, func(o *options) {
		clock.use(o)
		o.cfg.MaxConnections = MaxMaxConnections
	})
	l := listen(t, "127.0.0.1")
	request := ask(commandConnect, l.Addr().String(), "")
	const calls = 2*maxCalls + 10
	u.Server.mu.Lock()
	clients := make([]client, calls)
	for i := range clients {
		clients[i] = dial(t, u.addr)
		clients[i].send(request[:5])
	}
	u.Server.mu.Unlock()
	u.awaitCount(t, calls)
	for _, c := range clients {
		c.send(request[5:] + "x")
	}
	for _, c := range clients {
		c.reply(replyGranted)
	}
	for range clients {
		far := accept(t, l)
		_, err := io.ReadFull(far, make([]byte, 1))
		require.NoError(t, err)
	}
}

// unlooped returns a server without its loop, whose part the test plays.
func unlooped(t *testing.T) *Server {
	s := newServer(Options{AllowOwnAddresses: true}, defaultLimits())
	var err error
	s.poller, err = newPoller()
	require.NoError(t, err)
	t.Cleanup(s.release)
	return s
}

// fading returns a connection that ends with its next event.
func (s *Server) fading(addr string) *conn {
	s.last++
	c := &conn{number: s.last, client: none, remote: none, call: none, state: ending, src: netip.MustParseAddrPort(addr + ":1000")}
	s.occupy(c)
	s.conns[c.number] = c
	return c
}

// TestChangesOfAddressesInTurn has many connections of one address change before one of another does.
func TestChangesOfAddressesInTurn(t *testing.T) {
	s := unlooped(t)
	const many = 100
	for range many {
		s.note(s.fading("127.0.0.2"), ofClient, unix.EPOLLIN)
	}
	c := s.fading("127.0.0.3")
	s.note(c, ofClient, unix.EPOLLIN)
	s.note(c, ofRemote, unix.EPOLLHUP) // in one go with the other
	assert.Equal(t, 2, s.serve(2))
	assert.True(t, c.over)
	assert.Zero(t, s.wait(), "the loop does not sleep")
	assert.Equal(t, many-1, s.serve(2*many))
	assert.Zero(t, s.serve(1))
	assert.Empty(t, s.conns)
	assert.Empty(t, s.sources)
	assert.EqualValues(t, -1, s.wait())
}

// TestChangesAndCallsInTurn has an address both call and change: neither waits for the end of the other.
func TestChangesAndCallsInTurn(t *testing.T) {
	s := unlooped(t)
	l := listen(t, "127.0.0.1")
	at := l.Addr().String()
	fd, err := detach(l)
	require.NoError(t, err)
	defer unix.Close(fd)
	const each = 5
	for range each {
		s.note(s.fading("127.0.0.2"), ofClient, unix.EPOLLIN)
		dialFrom(t, "127.0.0.2", at)
		called, src, err := acceptFrom(fd)
		require.NoError(t, err)
		s.noteCall(called, src)
	}
	for n := range each {
		assert.Equal(t, 2, s.serve(2))
		changed, taken := 0, 0
		for _, c := range s.conns {
			if c.state == ending {
				changed++
			} else {
				taken++
			}
		}
		assert.Equal(t, each-n-1, changed)
		assert.Equal(t, n+1, taken)
	}
	for _, c := range s.conns {
		s.end(c, errShutdown)
	}
}

// TestStaleChange has a connection that ended between an event and its turn, and one whose socket was replaced.
func TestStaleChange(t *testing.T) {
	s := unlooped(t)
	gone, next := s.fading("127.0.0.2"), s.fading("127.0.0.2")
	s.note(gone, ofClient, unix.EPOLLIN)
	s.note(next, ofClient, unix.EPOLLIN)
	s.end(gone, nil)
	assert.Equal(t, 1, s.serve(1), "who has gone takes nobody's turn")
	assert.True(t, next.over)

	c := s.fading("127.0.0.2")
	c.state, c.attempt = connecting, &attempt{addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1")}}
	s.note(c, ofRemote, unix.EPOLLERR|unix.EPOLLHUP)
	l := listen(t, "127.0.0.1")
	c.attempt.request = request{command: commandConnect, port: l.Addr().(interface{ AddrPort() netip.AddrPort }).AddrPort().Port()}
	c.attempt.deadline = s.now + time.Minute
	s.failed(c, errConnectTimeout) // a deadline came first
	require.Equal(t, connecting, c.state)
	s.serve(1)
	assert.False(t, c.over)
	assert.Len(t, c.attempt.addrs, 1, "the second address was given up for what was said of the first")
	s.end(c, errShutdown)
}

// TestSourceInLine has an address call again whose connections have all ended between an event and its turn. It is one address
// all the same: its calls are counted, and so are its connections.
func TestSourceInLine(t *testing.T) {
	s := unlooped(t)
	const addr = "127.0.0.2"
	gone := s.fading(addr)
	s.note(gone, ofClient, unix.EPOLLIN)
	s.end(gone, nil)
	for range maxCalls + 1 {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		require.NoError(t, err)
		defer unix.Close(pair[1])
		s.noteCall(pair[0], netip.MustParseAddrPort(addr+":1000"))
	}
	s.serve(1)
	require.Equal(t, maxCalls, s.calls)
	assert.False(t, s.mayAccept(), "who has called last has not waited yet")
	s.serve(maxCalls)
	require.Len(t, s.conns, maxCalls+1)
	for _, c := range s.conns {
		assert.Same(t, s.sources[netip.MustParseAddr(addr)], c.source)
	}
	assert.Equal(t, 1, s.holders)
	for _, c := range s.conns {
		s.end(c, errShutdown)
	}
	assert.Zero(t, s.serve(1))
	assert.Empty(t, s.sources)
}

// TestCallsDropped closes calls that wait when the service goes.
func TestCallsDropped(t *testing.T) {
	s := unlooped(t)
	before := countDescriptors()
	for range 3 {
		fd, err := newSocket()
		require.NoError(t, err)
		s.noteCall(fd, netip.MustParseAddrPort("127.0.0.2:1000"))
	}
	s.dropCalls()
	assert.Equal(t, before, countDescriptors())
	assert.Zero(t, s.calls)
	assert.Zero(t, s.serve(1))
	assert.Empty(t, s.sources)
}

// TestCallsThatWaitForLong has an address call more often than is served in time. Its last calls are refused, so that the
// kernel's queue has room for who calls from elsewhere.
func TestCallsThatWaitForLong(t *testing.T) {
	s := unlooped(t)
	pair := func() (fd, peer int) {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		require.NoError(t, err)
		t.Cleanup(func() { unix.Close(pair[1]) })
		return pair[0], pair[1]
	}
	ended := func(peer int) bool {
		n, err := unix.Read(peer, make([]byte, 1))
		return n == 0 && err == nil
	}
	var peers []int
	call := func(from string) {
		fd, peer := pair()
		peers = append(peers, peer)
		s.noteCall(fd, netip.MustParseAddrPort(from+":1000"))
		s.refuseCall()
	}
	for n := range maxCalls {
		require.True(t, s.mayAccept())
		if n < 3 {
			call("127.0.0.3")
		} else {
			call("127.0.0.2")
		}
	}
	assert.False(t, s.mayAccept(), "they have not waited yet")
	s.now += callPatience
	assert.True(t, s.mayAccept())
	call("127.0.0.4")
	for n, peer := range peers {
		assert.Equal(t, n == maxCalls-1, ended(peer), "call %d", n)
	}
	call("127.0.0.2")
	assert.True(t, ended(peers[maxCalls+1]), "the last one of the address that has the most")
	assert.Equal(t, maxCalls, s.calls)
	s.dropCalls()
	assert.Zero(t, s.calls)
}

func TestFifo(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var q fifo[int]
	var want []int
	for n := range 10_000 {
		if random.IntN(2+n/3000) != 0 && len(want) < 100 {
			q.push(n)
			want = append(want, n)
		} else if len(want) > 0 && random.IntN(10) == 0 {
			require.Equal(t, want[len(want)-1], q.popLast())
			want = want[:len(want)-1]
		} else if len(want) > 0 {
			require.Equal(t, want[0], q.pop())
			want = want[1:]
		}
		require.Equal(t, len(want), q.len())
	}
	assert.LessOrEqual(t, cap(q.items), 512)
}
