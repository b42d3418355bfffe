package dns

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/resolve"
)

const greedy, honest = "127.0.0.2", "127.0.0.3"

// ofClient is how many of a share a client has.
func ofClient(s *server, of *shares, client string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return of.by[netip.MustParseAddr(client)]
}

// askUDP has a client ask the server's sockets for a name that somebody knows.
func askUDP(t *testing.T, client, name string) {
	t.Helper()
	conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(client)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(limit)))
	_, err = conn.Write(message(name, typeA, 0))
	require.NoError(t, err)
	b := make([]byte, plainSize)
	n, err := conn.Read(b)
	require.NoError(t, err)
	assert.Equal(t, 1, answerCount(b[:n]), name)
}

func dialTCP(t *testing.T, client string) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTCP("tcp4", &net.TCPAddr{IP: net.ParseIP(client)}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(limit)))
	return conn
}

// unlessDead answers all names but those that end so.
func unlessDead(q *query, _ string) []byte {
	if strings.HasSuffix(q.name, ".dead") {
		return nil
	}
	return withAddress(q, 60)
}

// One client asks for any number of names whose servers are silent. It gets half of the places, another client is served as
// before, and what needs no place is answered to both.
func TestFloodOfQuestions(t *testing.T) {
	u := serveAt(t, "127.0.1.1", unlessDead)
	s := testServer(t, func(c *Config) {
		forever(c)
		c.MaxQueries = 16
		c.Static = []Static{{Name: "nas.lan", Type: "A", Address: someone}}
	}, u)
	serveSockets(t, s)
	conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(greedy)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	require.NoError(t, err)
	defer conn.Close()
	half, asked := s.config.MaxQueries/2, 0
	flood := func() {
		for range 4 * s.config.MaxQueries {
			_, _ = conn.Write(message(fmt.Sprintf("host%d.dead", asked), typeA, 0))
			asked++
		}
	}
	flood()
	require.Eventually(t, func() bool { return ofClient(s, &s.waiting, greedy) == half }, limit, time.Millisecond)
	for i := range half {
		flood()
		askUDP(t, honest, fmt.Sprintf("host%d.example", i))
		askUDP(t, honest, "nas.lan")
	}
	askUDP(t, greedy, "nas.lan")
	askUDP(t, greedy, "host0.example") // from the cache
	assert.Equal(t, half, ofClient(s, &s.waiting, greedy))
	require.Eventually(t, func() bool { return ofClient(s, &s.waiting, honest) == 0 }, limit, time.Millisecond)
	dead := 0
	for _, q := range u.questions() {
		if strings.HasSuffix(q, ".dead") {
			dead++
		}
	}
	assert.LessOrEqual(t, dead, half)
}

// One client opens any number of connections. It has half of them, the rest are closed, and another client is served. When
// those end there is room again.
func TestFloodOfConnections(t *testing.T) {
	u := serveAt(t, "127.0.1.1", unlessDead)
	s := testServer(t, func(c *Config) { c.MaxSessions = 8 }, u)
	serveSockets(t, s)
	half := s.config.MaxSessions / 2
	var kept []*net.TCPConn
	for i := range 4 * s.config.MaxSessions {
		conn := dialTCP(t, greedy)
		if i < half {
			require.Eventually(t, func() bool { return ofClient(s, &s.sessions, greedy) == i+1 }, limit, time.Millisecond)
			kept = append(kept, conn)
			continue
		}
		_, err := conn.Read(make([]byte, 1))
		require.True(t, errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET), "closed: %v", err)
	}
	ask := func(conn *net.TCPConn, name string) {
		require.NoError(t, resolve.WriteTCP(conn, message(name, typeA, 0)))
		b, err := resolve.ReadTCP(conn, maxQuery)
		require.NoError(t, err)
		assert.Equal(t, 1, answerCount(b))
	}
	ask(dialTCP(t, honest), "a.example")
	for _, conn := range kept { // they have not been taken away
		ask(conn, "b.example")
		require.NoError(t, conn.Close())
	}
	require.Eventually(t, func() bool { return ofClient(s, &s.sessions, greedy) == 0 }, limit, time.Millisecond)
	ask(dialTCP(t, greedy), "c.example")
}

// A connection ends when its client asks nothing, does not end a query, or does not take the answer, for sessionIdle; and after
// sessionQueries.
func TestSessions(t *testing.T) {
	query := message("nas.lan", typeA, 0)
	exchange := func(t *testing.T, conn net.Conn) {
		require.NoError(t, resolve.WriteTCP(conn, query))
		b, err := resolve.ReadTCP(conn, maxQuery)
		require.NoError(t, err)
		require.Equal(t, 1, answerCount(b))
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T, conn net.Conn)
		// took is how long the session took.
		took time.Duration
	}{
		{"nothing", func(*testing.T, net.Conn) {}, sessionIdle},
		{"a part of a query", func(t *testing.T, conn net.Conn) {
			_, err := conn.Write([]byte{0, byte(len(query)), query[0]})
			require.NoError(t, err)
		}, sessionIdle},
		{"a byte of it a second", func(t *testing.T, conn net.Conn) {
			_, _ = conn.Write([]byte{0, byte(len(query))})
			for _, b := range query {
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, sessionIdle},
		{"an answer that is not taken", func(t *testing.T, conn net.Conn) { require.NoError(t, resolve.WriteTCP(conn, query)) }, sessionIdle},
		{"pauses", func(t *testing.T, conn net.Conn) {
			for range 3 {
				exchange(t, conn)
				time.Sleep(sessionIdle - time.Second)
			}
		}, 3*(sessionIdle-time.Second) + time.Second},
		{"very many queries", func(t *testing.T, conn net.Conn) {
			for range sessionQueries {
				exchange(t, conn)
			}
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := testServer(t, func(c *Config) { c.Static = []Static{{Name: "nas.lan", Type: "A", Address: someone}} })
				began := time.Now()
				far, near := net.Pipe()
				ended := make(chan time.Duration)
				go func() {
					s.session(near, someone)
					near.Close()
					ended <- time.Since(began)
				}()
				c.do(t, far)
				assert.Equal(t, c.took, <-ended)
			})
		})
	}
}
