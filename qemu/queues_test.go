package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
)

// The least free memory that 16 queues of a household may cost, in MiB.
const queuesMemory = 1.5

// TestQueues has 16 queues on a board with 32 MB, bounds a host's traffic by masquerade and what SOCKS sends it, and matches by the
// board's kernel and iptables what only they have.
func TestQueues(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	skipWithout(t, "malta")
	r := startRouter(t, "malta", func(o *machineOptions) { o.capture = false })
	r.awaitService(t)
	r.awaitLinks(t)
	to := r.echo(t, badDayPort)
	masquerade := func() net.Conn {
		conn, err := r.n.dial(client, to, patience)
		require.NoError(t, err)
		return conn
	}
	socks := func() net.Conn {
		conn, reply := r.request(t, client, commandConnect, to)
		require.EqualValues(t, granted, reply.code)
		return conn
	}
	// bounce sends bytes to a server that sends them back, and returns how long that took.
	bounce := func(conn net.Conn, size int) time.Duration {
		defer conn.Close()
		began := time.Now()
		require.NoError(t, conn.SetDeadline(began.Add(patience)))
		sent := make(chan error, 1)
		go func() {
			_, err := conn.Write(make([]byte, size))
			sent <- err
		}()
		_, err := io.ReadFull(conn, make([]byte, size))
		require.NoError(t, err)
		require.NoError(t, <-sent)
		return time.Since(began)
	}
	bounce(masquerade(), 100_000)
	bounce(socks(), 100_000)

	before, _ := r.freeMemory(t)
	assert.Empty(t, r.command(t, "/queue simple add name=house target=192.168.0.0/24 max-limit=20M/50M"))
	assert.Empty(t, r.command(t, "/queue simple add name=pc parent=house target="+clientAddress+" max-limit=4M/8M"))
	for i := range 14 {
		assert.Empty(t, r.command(t, fmt.Sprintf("/queue simple add name=q%d parent=house target=192.168.0.%d max-limit=2M/8M", i, 100+i)))
	}
	// PID 1 gives back what the changes took when it has nothing to do, which may be late on a busy host.
	require.NoError(t, retry(func() error {
		after, _ := r.freeMemory(t)
		if before-after > queuesMemory {
			return fmt.Errorf("%.1f MiB less than without queues", before-after)
		}
		t.Logf("free memory: %.1f MiB without queues, %.1f MiB with 16", before, after)
		return nil
	}))

	const size, segment = 1_000_000, 64 << 10
	for _, by := range []struct {
		name string
		dial func() net.Conn
		most func(seconds float64) float64
	}{
		// The upload is the slower one of the two; by SOCKS it leaves with the address of the router, and the download alone is bounded.
		{"masquerade", masquerade, func(s float64) float64 { return 0.5e6*s + 0.05e6 }},
		{"SOCKS", socks, func(s float64) float64 { return 1e6*s + 0.1e6 }},
	} {
		assert.Empty(t, r.command(t, "/queue simple reset-counters-all"))
		took := bounce(by.dial(), size)
		assert.LessOrEqual(t, float64(size), by.most(took.Seconds())+segment, "%s, in %v", by.name, took)
		shown := r.command(t, "/queue simple print stats detail where name=pc")
		t.Logf("%s: %.2f Mbit/s each way\n%s", by.name, size*8/took.Seconds()/1e6, shown)
		word, err := find(shown, `(?:^|\s)bytes=(\S+)`)
		require.NoError(t, err)
		var up, down int
		_, err = fmt.Sscanf(word, "%d/%d", &up, &down)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, down, size)
		assert.Equal(t, by.name == "masquerade", up >= size, "%d bytes of uploads", up)
	}

	// The kernel's matchers: shares, a limit of each address, and the local time.
	for _, rule := range []string{"comment=all", "comment=half per-connection-classifier=both-addresses-and-ports:2/0", "comment=half per-connection-classifier=both-addresses-and-ports:2/1",
		"comment=two dst-limit=1/1h,2,src-address", "comment=rest dst-limit=!1/1h,2,src-address"} {
		assert.Empty(t, r.command(t, "/ip firewall mangle add chain=prerouting action=passthrough protocol=tcp dst-port=7 src-address="+clientAddress+" "+rule))
	}
	for range 20 {
		conn, err := r.n.dial(client, gatewayAddress+":7", patience)
		if err == nil {
			conn.Close()
		}
	}
	counts := map[string]int{}
	for _, name := range []string{"all", "half", "two", "rest"} {
		for line := range strings.Lines(r.command(t, "/ip firewall mangle print stats terse where comment="+name)) {
			word, err := find(line, `packets=(\d+)`)
			require.NoError(t, err, line)
			n := 0
			_, err = fmt.Sscan(word, &n)
			require.NoError(t, err)
			if name == "half" {
				assert.Greater(t, n, 0, "a share of 20 ports")
			}
			counts[name] += n
		}
	}
	assert.GreaterOrEqual(t, counts["all"], 20)
	assert.Equal(t, counts["all"], counts["half"])
	assert.Equal(t, 2, counts["two"])
	assert.Equal(t, counts["all"], counts["two"]+counts["rest"])

	assert.Empty(t, r.command(t, "/ip firewall mangle add chain=prerouting action=passthrough protocol=icmp comment=late time=20h-22h"))
	late := func() bool {
		require.NoError(t, r.n.awaitPing(client, lanAddress))
		return r.command(t, "/ip firewall mangle print count-only where comment=late packets>0") != "0\n"
	}
	assert.Empty(t, r.command(t, "/system clock set date="+strings.ToLower(time.Now().UTC().Format("Jan/02/2006"))+" time=18:00:00"))
	assert.False(t, late())
	assert.Empty(t, r.command(t, "/system clock manual set time-zone=+03:00"))
	assert.True(t, late(), "it is 21 o'clock there")
	assert.Empty(t, r.command(t, "/queue simple remove [find]"))
	final, _ := r.freeMemory(t)
	t.Logf("free memory: %.1f MiB when they are gone", final)
	assert.NotRegexp(t, `(?i)out of memory|oom|page allocation failure|netcfg: (repaired|cannot)`, r.m.screen.all())
}
