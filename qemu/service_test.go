package main

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// serviceSteps are what the SOCKS service does to connections that are open and to
// the firewall and the log around it.
func (r *router) serviceSteps(step func(string, func(*testing.T))) {
	step("a changed list closes what it denies", func(t *testing.T) {
		_, stayPort := hostPort(t, r.echo(t, 5005))
		_, endPort := hostPort(t, r.echo(t, 5006))
		stays, reply := r.request(t, client, commandConnect, net.JoinHostPort(serverAddress, stayPort))
		require.EqualValues(t, granted, reply.code)
		ends, reply := r.request(t, client, commandConnect, net.JoinHostPort(serverAddress, endPort))
		require.EqualValues(t, granted, reply.code)
		assertEcho(t, stays)
		assertEcho(t, ends)
		r.command(t, "/ip socks access add place-before=0 dst-port="+endPort+" action=deny")
		assertClosed(t, ends)
		assertEcho(t, stays)
		// Not by its number: that is still the one of the rule that was first when they were printed.
		assert.Empty(t, r.command(t, "/ip socks access remove [find dst-port="+endPort+"]"))
		r.awaitLog(t, `dst=10\.5\.8\.8:`+endPort+` .*reason="denied by the new access list"`)
	})
	step("the firewall shows what it has opened for a BIND", func(t *testing.T) {
		dynamic := regexp.MustCompile(`(?m)^ *\d+ +D `)
		require.NotRegexp(t, dynamic, r.command(t, "/ip firewall filter print"))
		conn, reply := r.request(t, client, commandBind, serverAddress+":21")
		require.EqualValues(t, granted, reply.code)
		opened := r.command(t, "/ip firewall filter print")
		assert.Regexp(t, dynamic, opened)
		assert.Regexp(t, fmt.Sprintf(`src-address=%s\b.*\s.*dst-port=%d\b`, regexp.QuoteMeta(serverAddress), reply.addr.Port()), opened)
		require.NoError(t, conn.Close())
		require.NoError(t, retry(func() error {
			if now := r.command(t, "/ip firewall filter print"); dynamic.MatchString(now) {
				return fmt.Errorf("still open though the client has left:\n%s", now)
			}
			return nil
		}))
	})
	step("a flood of requests does not flood the log", func(t *testing.T) {
		// As many as a router is too slow to log one by one, however slow this host is.
		const atOnce, most = 200, 4000
		denied := serverAddress + ":80"
		ask := func() {
			conn, reply := r.request(t, client, commandConnect, denied)
			require.EqualValues(t, rejected, reply.code)
			require.NoError(t, conn.Close())
		}
		start, sent := time.Now(), 0
		for dropped := false; !dropped; {
			for range atOnce {
				ask()
			}
			sent += atOnce
			// What was dropped is told with the next line that there is room for.
			time.Sleep(200 * time.Millisecond)
			ask()
			dropped = strings.Contains(r.command(t, "/log print where message~\"dropped\""), " log lines dropped")
			require.Less(t, sent, most, "requests, and no line dropped")
		}
		word, err := find(r.command(t, `/log print count-only where message~"refused: .*dst=10[.]5[.]8[.]8:80"`), `(\d+)`)
		require.NoError(t, err)
		logged, err := strconv.Atoi(word)
		require.NoError(t, err)
		took := time.Since(start)
		t.Logf("%d lines of %d requests in %v", logged, sent, took.Round(time.Millisecond))
		assert.Positive(t, logged)
		assert.LessOrEqual(t, float64(logged), 48+10*took.Seconds(), "20 lines and 10 a second, and what was logged before")
	})
}

// hostPort splits an address.
func hostPort(t *testing.T, address string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	return host, port
}
