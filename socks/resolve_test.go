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

// TestNameServers asks name servers of the configuration: the first is not there.
func TestNameServers(t *testing.T) {
	conn, err := net.ListenPacket("udp4", "127.77.0.2:53")
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	asked := make(chan string, 10)
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			asked <- string(b[12 : 12+10]) // the name of the first question
			// RFC 1035: the question again, as an answer with one A record.
			answer := append([]byte{}, b[:12+10+4]...)
			_ = n // what follows (EDNS) is not repeated
			binary.BigEndian.PutUint16(answer[2:], 0x8180)
			binary.BigEndian.PutUint16(answer[6:], 1)
			binary.BigEndian.PutUint16(answer[10:], 0)
			answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1)
			conn.WriteTo(answer, from)
		}
	}()
	l := listen(t, "127.0.0.1")
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	u := start(t, func(o *options) {
		o.cfg.NameServers = []netip.Addr{netip.MustParseAddr("127.77.0.1"), netip.MustParseAddr("127.77.0.2")}
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
	const server, requests = "127.77.0.3", 50
	silent, err := net.ListenPacket("udp4", server+":53")
	require.NoError(t, err)
	t.Cleanup(func() { silent.Close() })
	u := start(t, func(o *options) { o.cfg.NameServers = []netip.Addr{netip.MustParseAddr(server)} })
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
