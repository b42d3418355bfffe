package socks

import (
	"bytes"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sending counts the TCP sockets of the kernel that have bytes, or their end, to send from a port
// or to one of another host, whether a process has them open or not.
func sending(t *testing.T, about func(local, remote netip.AddrPort) bool) int {
	t.Helper()
	table, err := os.ReadFile("/proc/thread-self/net/tcp") // other tests move threads to other networks
	require.NoError(t, err)
	parse := func(s string) netip.AddrPort {
		address, port, _ := strings.Cut(s, ":")
		n, err := strconv.ParseUint(address, 16, 32)
		require.NoError(t, err)
		p, err := strconv.ParseUint(port, 16, 16)
		require.NoError(t, err)
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}), uint16(p))
	}
	count := 0
	for line := range strings.Lines(string(table)) {
		// proc(5): sl local_address rem_address st tx_queue:rx_queue
		const listens = "0A"
		f := strings.Fields(line)
		if f[0] == "sl" || f[3] == listens {
			continue
		}
		if unsent, _, _ := strings.Cut(f[4], ":"); strings.Trim(unsent, "0") != "" && about(parse(f[1]), parse(f[2])) {
			count++
		}
	}
	return count
}

// toClients is for sending: the server's sockets with its clients.
func (u *setup) toClients(local, _ netip.AddrPort) bool { return local.String() == u.addr }

// endUnread opens a connection whose both sides end, and whose client has the server's bytes to
// take still.
func (u *setup) endUnread(t *testing.T, buffer int, data []byte) (near client) {
	t.Helper()
	l := listen(t, "127.0.0.1")
	near = dial(t, u.addr)
	require.NoError(t, near.SetReadBuffer(buffer))
	near.send(ask(commandConnect, l.Addr().String(), "user"))
	near.reply(replyGranted)
	far := accept(t, l)
	require.NoError(t, near.CloseWrite())
	far.ended()
	_, err := far.Write(data)
	require.NoError(t, err)
	require.NoError(t, far.Close())
	return near
}

// TestUndelivered has clients that end and do not read what they asked for. What they are still
// sent keeps their slots, until the idle timeout; then nothing is left of it.
func TestUndelivered(t *testing.T) {
	const slots = 5
	var clock movedClock
	u := start(t, func(o *options) {
		clock.use(o)
		o.cfg.MaxConnections = slots
	})
	for range slots {
		u.endUnread(t, 4096, make([]byte, 600_000))
	}
	require.Eventually(t, func() bool {
		u.Server.mu.Lock()
		defer u.Server.mu.Unlock()
		n := 0
		for _, c := range u.conns {
			if c.state == ending {
				n++
				assert.Equal(t, none, c.remote, "its server has taken everything")
			}
		}
		return n == slots
	}, patience, time.Millisecond)
	for range 3 {
		dial(t, u.addr).rejected()
	}
	assert.Len(t, u.Connections(), slots)
	assert.EqualValues(t, 600_000, u.Connections()[0].Rx)
	// Those who were refused acknowledge that after a while.
	require.Eventually(t, func() bool { return sending(t, u.toClients) == slots }, patience, time.Millisecond)
	for passed := time.Duration(0); passed < u.cfg.ConnectionIdleTimeout-2*time.Second; passed += lateness / 2 {
		clock.forward(lateness / 2)
		clock.awaitTurn(t, u)
	}
	require.Len(t, u.Connections(), slots)
	clock.forwardUntil(t, u, func() bool { return len(u.Connections()) == 0 })
	assert.Zero(t, sending(t, u.toClients))
	u.awaitLog(t, "connection 1 closed", "rx=600000", errUndelivered.Error())
}

// TestDeliveredSlowly has a client that takes longer for the rest than the idle timeout, but
// takes some of it all the time.
func TestDeliveredSlowly(t *testing.T) {
	var clock movedClock
	u := start(t, func(o *options) {
		clock.use(o)
		o.cfg.ConnectionIdleTimeout = 3 * time.Second
	})
	data := bytes.Repeat([]byte("postern"), 100_000)
	near := u.endUnread(t, 64<<10, data)
	u.awaitCount(t, 1)
	got := make([]byte, 0, len(data))
	for len(got) < len(data)/2 {
		n, err := near.Read(got[len(got):min(len(got)+16<<10, len(data))])
		require.NoError(t, err)
		got = got[:len(got)+n]
		clock.forward(lateness / 2)
		clock.awaitTurn(t, u)
	}
	require.Greater(t, clock.ahead.Load(), int64(2*u.cfg.ConnectionIdleTimeout))
	require.Len(t, u.Connections(), 1, "ended: %s", u.logged())
	rest, err := io.ReadAll(near)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(data, append(got, rest...)))
	u.awaitCount(t, 0)
	u.awaitLog(t, "closed", "rx=700000", "both sides ended")
}

// TestResetWhileEnding has a client reset a connection of which it has not taken everything.
func TestResetWhileEnding(t *testing.T) {
	u := start(t, nil)
	near := u.endUnread(t, 4096, make([]byte, 600_000))
	require.Eventually(t, func() bool {
		u.Server.mu.Lock()
		defer u.Server.mu.Unlock()
		return u.conns[1].state == ending
	}, patience, time.Millisecond)
	require.NoError(t, near.SetLinger(0))
	near.Close()
	u.awaitCount(t, 0)
	u.awaitLog(t, "connection 1 closed", "server to client: write: connection reset by peer")
}

// vanish makes the host with that address of loopback unreachable until the test ends.
func vanish(t *testing.T, address string) {
	t.Helper()
	route := func(what string) {
		out, err := exec.Command("ip", "route", what, "blackhole", address, "table", "local").CombinedOutput()
		assert.NoError(t, err, "%s", out)
	}
	route("add")
	t.Cleanup(func() { route("delete") })
}

// TestRefusedDoNotStay refuses many more clients than are waited for, none of which
// acknowledges the reply.
func TestRefusedDoNotStay(t *testing.T) {
	const address, clients = "127.0.0.9", 3 * maxDismissed
	for _, c := range []struct {
		name string
		max  int
	}{
		{"for their request", clients + 1},
		{"for want of a slot", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var clock movedClock
			u := start(t, func(o *options) {
				clock.use(o)
				o.cfg.MaxConnections = c.max
			})
			u.connect(t)
			before := countDescriptors()
			var all []client
			for range clients {
				all = append(all, dialFrom(t, address, u.addr))
				if c.max > 1 {
					u.awaitCount(t, len(all)+1)
				}
			}
			toVanished := func(local, remote netip.AddrPort) bool {
				return u.toClients(local, remote) && remote.Addr().String() == address
			}
			u.Server.mu.Lock() // the server looks at nothing until they are gone
			for _, near := range all {
				near.Write([]byte{9})
			}
			vanish(t, address)
			u.Server.mu.Unlock()
			u.awaitCount(t, 1)
			clock.awaitTurn(t, u)
			assert.LessOrEqual(t, sending(t, toVanished), maxDismissed)
			assert.LessOrEqual(t, countDescriptors(), before+clients+maxDismissed) // the clients' are in this process
			clock.forwardUntil(t, u, func() bool { return sending(t, toVanished) == 0 })
		})
	}
}

// TestEndUnacknowledged has a client vanish when all that is missing is that it acknowledges the
// end: its slot is kept for that.
func TestEndUnacknowledged(t *testing.T) {
	const address = "127.0.0.10"
	var clock movedClock
	u := start(t, func(o *options) { clock.use(o) })
	l := listen(t, "127.0.0.1")
	near := dialFrom(t, address, u.addr)
	near.send(ask(commandConnect, l.Addr().String(), ""))
	near.reply(replyGranted)
	far := accept(t, l)
	require.NoError(t, near.CloseWrite())
	far.ended()
	vanish(t, address)
	require.NoError(t, far.Close())
	require.Eventually(t, func() bool { return sending(t, u.toClients) == 1 }, patience, time.Millisecond)
	assert.Len(t, u.Connections(), 1)
	clock.forwardUntil(t, u, func() bool { return len(u.Connections()) == 0 })
	assert.Zero(t, sending(t, u.toClients))
}

// TestIdleEnds has connections end by the idle timeout whose peers do not answer any more.
func TestIdleEnds(t *testing.T) {
	const address = "127.0.0.11"
	var clock movedClock
	u := start(t, func(o *options) { clock.use(o) })
	l := listen(t, "127.0.0.1")
	near := dialFrom(t, address, u.addr)
	near.send(ask(commandConnect, l.Addr().String(), ""))
	near.reply(replyGranted)
	far := accept(t, l)
	vanish(t, address)
	end := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(far, make([]byte, 1))
		end <- err
	}()
	clock.forwardUntil(t, u, func() bool { return len(end) > 0 })
	require.ErrorIs(t, <-end, io.EOF)
	clock.forwardUntil(t, u, func() bool { return len(u.Connections()) == 0 })
	u.awaitLog(t, "connection 1 closed", "idle timeout")
	assert.Zero(t, sending(t, u.toClients))
}
