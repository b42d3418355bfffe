package socks

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/resolve"
)

// nameServer returns a socket on a free port of loopback, as a name server has one.
func nameServer(t *testing.T) (conn *net.UDPConn, at netip.AddrPort) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn, conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestNameServers asks the name servers of the configuration.
func TestNameServers(t *testing.T) {
	conn, at := nameServer(t)
	asked := make(chan string, 10)
	go func() {
		const question = 12 + len("\x03ftp\x04test\x00") + 4
		b := make([]byte, 512)
		for {
			_, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			asked <- string(b[12 : question-4])
			// RFC 1035: the question again, and an answer with one A record.
			answer := append([]byte{}, b[:question]...)
			binary.BigEndian.PutUint16(answer[2:], 0x8180)
			binary.BigEndian.PutUint16(answer[6:], 1)
			answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1)
			conn.WriteTo(answer, from)
		}
	}()
	configured := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	l := listen(t, "127.0.0.1")
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	u := start(t, func(o *options) {
		o.cfg.NameServers = configured
		lookup := newLookup(newResolver(1))
		o.lookup = func(ctx context.Context, host string, servers resolve.Servers) ([]netip.Addr, error) {
			assert.Equal(t, resolve.ServersAt(configured...), servers)
			return lookup(ctx, host, resolve.Servers{at})
		}
	})
	near := dial(t, u.addr)
	near.send(askName(commandConnect, "ftp.test.", port))
	assert.Equal(t, l.Addr().String(), near.reply(replyGranted).String())
	assert.Equal(t, "\x03ftp\x04test\x00", <-asked)
}

// TestDeniedNames checks that no name server is asked for a client that may connect to
// nothing.
func TestDeniedNames(t *testing.T) {
	for _, command := range []byte{commandConnect, commandBind} {
		u := start(t, func(o *options) {
			o.cfg.Access = []Rule{rule(t, Allow, "", "", "", "81"), rule(t, Deny, "127.0.0.1", "", "", "1-80,82-65535"), {Action: Deny}}
			if command == commandBind {
				o.cfg.Access = o.cfg.Access[2:]
			}
			o.lookup = func(context.Context, string, resolve.Servers) ([]netip.Addr, error) {
				assert.Fail(t, "a name was looked up")
				return nil, resolve.ErrNotFound
			}
		})
		near := dial(t, u.addr)
		near.send(askName(command, "secret.x.test", 80))
		near.rejected()
		u.awaitLog(t, "connection 1 refused", "denies every address that secret.x.test may have")
		var hits uint64
		for _, n := range u.Hits() {
			hits += n
		}
		assert.EqualValues(t, 1, hits)
	}
}

// TestLookupsEndWithTheirClients has clients that ask for a name whose server is silent, and
// leave. Their lookups must be over when their connections are: otherwise clients could make
// the server use any number of descriptors.
func TestLookupsEndWithTheirClients(t *testing.T) {
	const requests = 50
	silent, at := nameServer(t)
	u := start(t, func(o *options) {
		lookup := newLookup(newResolver(o.limits.lookups))
		o.lookup = func(ctx context.Context, host string, _ resolve.Servers) ([]netip.Addr, error) {
			return lookup(ctx, host, resolve.Servers{at})
		}
	})
	before := countDescriptors()
	for range requests {
		near := dial(t, u.addr)
		near.send(askName(commandConnect, "x.test", 80))
		require.NoError(t, silent.SetReadDeadline(time.Now().Add(patience)))
		_, _, err := silent.ReadFrom(make([]byte, 512))
		require.NoError(t, err, "no lookup began")
		require.NoError(t, near.SetLinger(0))
		require.NoError(t, near.Close())
		u.awaitCount(t, 0)
	}
	assert.LessOrEqual(t, countDescriptors(), before+u.limits.lookups)
}
