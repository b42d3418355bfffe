package socks

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
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
			conn.WriteTo(addressAnswer(b[:question]), from)
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

// TestNamesThatNeedNoQuestion has a client wait for as many silent names as it may have asked for, and
// for more behind them. Names that nobody must be asked for, by the resolver as it is, are not among these.
func TestNamesThatNeedNoQuestion(t *testing.T) {
	const resolver, silent = "/etc/resolv.conf", 34
	_, err := os.Stat(resolver)
	require.NoError(t, err, "the file of the machine, over which package testnet puts its own")
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 53), Port: 53})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if strings.HasPrefix(string(b[12:n]), "\x04good") {
				conn.WriteTo(addressAnswer(b[:n]), from)
			}
		}
	}()
	require.NoError(t, os.WriteFile(resolver, []byte("nameserver 127.0.0.53\n"), 0o644))
	t.Cleanup(func() { assert.NoError(t, os.WriteFile(resolver, nil, 0o644)) })
	for _, c := range []struct {
		name    string
		servers []netip.Addr
		known   []string
	}{
		{"of the system", nil, []string{"127.0.0.1", "good.test", "localhost"}},
		{"of the configuration", []netip.Addr{netip.MustParseAddr("127.0.0.53")}, []string{"127.0.0.1", "good.test"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, func(o *options) { o.cfg.NameServers = c.servers })
			l := listen(t, "127.0.0.1")
			port := l.Addr().(*net.TCPAddr).AddrPort().Port()
			granted := func(host string) {
				near := dial(t, u.addr)
				near.send(askName(commandConnect, host, port))
				near.reply(replyGranted)
				accept(t, l)
			}
			granted("good.test") // it is asked for, and known from now on
			for i := range silent {
				dial(t, u.addr).send(askName(commandConnect, fmt.Sprintf("silent%d.test", i), 80))
			}
			require.Eventually(t, func() bool {
				u.Server.mu.Lock()
				defer u.Server.mu.Unlock()
				return len(u.names.running) == u.limits.lookups/2 && len(u.names.tasks) == silent-u.limits.lookups/2
			}, patience, time.Millisecond)
			for _, host := range c.known {
				granted(host)
			}
			near := dial(t, u.addr)
			near.send(askName(commandConnect, "not..a.name", port))
			near.rejected()
		})
	}
}

// addressAnswer answers a question for the address of a name with 127.0.0.1, for a minute (RFC 1035).
func addressAnswer(question []byte) []byte {
	b := append([]byte{}, question...)
	binary.BigEndian.PutUint16(b[2:], 0x8180)
	binary.BigEndian.PutUint16(b[6:], 1)
	return append(b, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1)
}
