package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/socks"
)

// serveSockets has a server answer at the sockets of Listen.
func serveSockets(t *testing.T, s *server) {
	t.Helper()
	first, second, err := Listen()
	require.NoError(t, err)
	udp, tcp, err := sockets(first, second)
	require.NoError(t, err)
	s.work.Go(func() { s.serveUDP(udp) })
	s.work.Go(func() { s.serveTCP(tcp) })
	t.Cleanup(func() { udp.Close(); tcp.Close() })
}

// A client of the SOCKS server asks for names of a dead zone, and is gone before they are known. The server's lookups end with
// it, those of the DNS server behind it do not: they are at that client's expense, and not at that of all who use SOCKS.
func TestRudeClientOfSOCKS(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte {
		if strings.HasSuffix(q.name, ".dead") {
			return nil
		}
		return addRecord(q.reply(codeOK), q.name, typeA, 60, []byte{127, 0, 0, 1})
	})
	s := testServer(t, func(c *Config) {
		forever(c)
		c.MaxQueries = 20
		c.Static = []Static{{Name: "nas.lan", Type: "CNAME", CNAME: "nas.example"}}
	}, u)
	serveSockets(t, s)

	l := listenTCP(t)
	server := socks.New(socks.Options{AllowOwnAddresses: true})
	t.Cleanup(server.Shutdown)
	cfg := socks.DefaultConfig()
	cfg.Enabled, cfg.NameServers = true, []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	require.NoError(t, server.Configure(cfg, l))
	dial := func(from string, name string, port uint16) *net.TCPConn {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp4", l.Addr().String())
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(limit)))
		_, err = conn.Write(append(binary.BigEndian.AppendUint16([]byte{4, 1}, port), "\x00\x00\x00\x01\x00"+name+"\x00"...)) // SOCKS 4a
		require.NoError(t, err)
		return conn.(*net.TCPConn)
	}
	for i := range s.config.MaxQueries + 1 {
		name := fmt.Sprintf("host%d.dead", i)
		conn := dial("127.0.0.2", name, 80)
		// It has its place upstream, or the server has no more of them for it.
		full := func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.waiting.total == s.config.MaxQueries/2
		}
		require.Eventually(t, func() bool { return full() || len(u.questions()) == i+1 }, limit, time.Millisecond)
		require.NoError(t, conn.SetLinger(0))
		require.NoError(t, conn.Close())
	}
	conn := dial("127.0.0.3", "nas.lan", uint16(listenTCP(t).Addr().(*net.TCPAddr).Port))
	defer conn.Close()
	reply := make([]byte, 8)
	_, err := io.ReadFull(conn, reply)
	require.NoError(t, err)
	assert.Equal(t, byte(90), reply[1], "granted")
}

func listenTCP(t *testing.T) *net.TCPListener {
	t.Helper()
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	l, err := plain.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// The router's own lookups ask other servers when the server says that it has no place for them: it says so at once. A host of
// the LAN asks again by itself.
func TestNoPlace(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(*query, string) []byte { return nil })
	s := testServer(t, func(c *Config) { forever(c); c.MaxQueries = 1 }, u)
	begin(t, s, netip.MustParseAddr("192.168.0.10"), message("a.example", typeA, 0), false)
	for _, c := range []struct {
		client   string
		stream   bool
		answered bool
	}{{"127.0.0.1", false, true}, {"127.168.0.9", false, true}, {"192.168.0.9", false, false}, {"192.168.0.9", true, true}} {
		b := await(t, begin(t, s, netip.MustParseAddr(c.client), message("b.example", typeA, 0), c.stream))
		assert.Equal(t, c.answered, b != nil, c.client)
		if b != nil {
			assert.Equal(t, codeFailure, code(b))
		}
	}
}
