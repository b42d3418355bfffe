package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/internal/pppoetest"
)

// TestPPPoE has a household behind a provider with PPPoE: a computer of the LAN has a page by its name,
// also a long one where no ICMP comes through, and has it again when the provider ends the connection,
// is silent, gives another address, and when the router starts anew.
func TestPPPoE(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range boards() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testPPPoE(t, b)
		})
	}
}

const (
	pppoeServer = "10.64.0.1"
	pppoeClient = "203.0.113.7"
	pppoeOther  = "203.0.113.8"
)

// householdMemory is how many MiB malta has left with all on that a household needs, by PPPoE, when what was asked is answered: half a minute later
// the DHCP server's process sleeps.
const householdMemory = 12.5

// pppoeHousehold is a household whose provider speaks PPPoE.
type pppoeHousehold struct {
	*household
	k    *keeper
	peer *pppoetest.Live
}

func newPPPoEHousehold(t *testing.T, k *keeper) *pppoeHousehold {
	h, err := startHousehold(k.n, filepath.Join(k.dir, "household"))
	require.NoError(t, err)
	t.Cleanup(h.close)
	kill(h.provider)
	p := &pppoeHousehold{household: h, k: k}
	require.NoError(t, k.n.on(gateway, func() (err error) {
		p.peer, err = pppoetest.Serve("eth0", "peer", pppoetest.Config{AC: "ac1", Service: "internet", Auth: "mschap2 chap pap", User: "me@isp", Password: "a secret", MRU: 1492,
			Local: netip.MustParseAddr(pppoeServer), Remote: netip.MustParseAddr(pppoeClient), DNS: []netip.Addr{netip.MustParseAddr(pppoeServer)}})
		return err
	}))
	t.Cleanup(p.peer.Close)
	require.NoError(t, k.n[gateway].IP("addr add "+pppoeServer+" peer "+pppoeClient+" dev peer", "link set peer mtu 1492 up", "route add "+pppoeOther+" dev peer",
		"addr flush dev eth0"))
	// Packets that are too long are dropped, and nobody is told.
	k.run(t, gateway, "iptables-legacy", "-A", "OUTPUT", "-p", "icmp", "--icmp-type", "fragmentation-needed", "-j", "DROP")
	h.provider = k.n.command(gateway, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--user=root", "--group=root",
		"--no-resolv", "--no-hosts", "--listen-address="+pppoeServer, "--bind-interfaces", "--log-facility=-", "--address=/"+pageName+"/"+serverAddress)
	h.provider.Stdout, h.provider.Stderr = h.log, h.log
	require.NoError(t, h.provider.Start())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the provider saw:\n%s", strings.Join(p.peer.Log(), "\n"))
			out, err := k.m.command("/log print where topics~\"pppoe\"")
			t.Logf("the log: %v\n%s", err, out)
		}
	})
	return p
}

// await waits until the router has that address, and a page can be had behind it.
func (p *pppoeHousehold) await(t *testing.T, address string) {
	t.Helper()
	require.NoError(t, retry(func() error {
		shown, err := p.k.m.command("/interface pppoe-client monitor pppoe-out1 once")
		if err == nil && !regexp.MustCompile(`(?m)^ +local-address: `+regexp.QuoteMeta(address)+`$`).MatchString(shown) {
			err = fmt.Errorf("no address %s:\n%s", address, shown)
		}
		return err
	}))
	require.NoError(t, retry(p.page))
	assert.NoError(t, p.site.askedFrom(address), "masqueraded")
}

func testPPPoE(t *testing.T, b board.Board) {
	k := newKeeper(t, b)
	p := newPPPoEHousehold(t, k)
	long := strings.Repeat("0123456789abcdef\n", 20_000)
	require.NoError(t, os.WriteFile(filepath.Join(p.site.dir, "ftp", "long"), []byte(long), 0o644))
	k.start(t, "postern", nil)
	for _, line := range []string{
		"/ip dhcp-client disable 0",
		`/interface pppoe-client add name=pppoe-out1 interface=` + b.WAN + ` user="me@isp" password="a secret" service-name=internet add-default-route=yes use-peer-dns=yes keepalive-timeout=2 disabled=no`,
		"/interface list member add list=WAN interface=pppoe-out1",
	} {
		assert.Empty(t, k.command(t, line))
	}
	_, err := p.connect(client, k.n.command)
	require.NoError(t, err)
	p.await(t, pppoeClient)
	t.Logf("%s:\n%s%s%s%s%s%s", b.Name, k.command(t, "/interface pppoe-client print"), k.command(t, "/interface pppoe-client monitor 0 once"), k.command(t, "/ip address print"),
		k.command(t, "/ip route print"), k.command(t, "/ip dns print"), k.command(t, "/system resource print"))
	assert.Contains(t, p.peer.Log(), "me@isp by mschap2")
	assert.Regexp(t, `(?m)^ *\d+ A?DS?A?S? +0\.0\.0\.0/0 +pppoe-out1 +1$`, k.command(t, "/ip route print"))
	assert.Regexp(t, `(?m)^ *\d+ +R +pppoe-out1 +pppoe-out +1492`, k.command(t, "/interface print"))

	t.Run("segments fit", func(t *testing.T) {
		assert.Equal(t, 1452, p.peer.MSS(), "what the client says that it receives")
		conn, err := k.n.dial(client, serverAddress+":80", time.Minute)
		require.NoError(t, err)
		defer conn.Close()
		assert.LessOrEqual(t, segmentSize(t, conn), 1452, "what the client sends")
		out, err := k.n.command(client, "curl", "--silent", "--show-error", "--max-time", "300", "http://"+serverAddress+"/long").CombinedOutput()
		require.NoError(t, err, "%.200s", out)
		assert.True(t, string(out) == long, "the long page is whole")
	})
	t.Run("nobody outside gets an answer but to an echo", func(t *testing.T) {
		k.closedOutside(t, gateway, pppoeServer, pppoeClient)
	})
	if !thorough(b) {
		return
	}
	if b.Name == "malta" {
		t.Run("memory with all on that a household can have", func(t *testing.T) {
			r := &router{T: t, b: b, n: k.n, dir: k.dir, m: k.m}
			// PPPoE is connected, the DHCP client asks whoever does not answer, and a computer has an address and has asked for names.
			k.command(t, "/ip dhcp-client enable 0")
			free, _ := r.freeMemory(t)
			t.Logf("%.1f MiB are free while a computer is served", free)
			r.awaitFree(t, householdMemory, "with DHCP client, DHCP server, DNS and PPPoE")
			k.command(t, "/ip socks set enabled=yes")
			k.awaitLog(t, "socks accepts on port ")
			r.awaitFree(t, 0, "with SOCKS besides")
			k.command(t, "/ip socks set enabled=no; /ip dhcp-client disable 0")
		})
	}
	// The queue of the connection is there again with it.
	assert.Empty(t, k.command(t, "/queue simple add name=line target=192.168.0.0/24 dst=pppoe-out1 max-limit=50M"))
	queued := func(t *testing.T) {
		assert.Regexp(t, `(?m)^ 0 +line +192\.168\.0\.0/24 .* [1-9]\d+/[1-9]\d+ +[1-9]\d*/[1-9]\d* +\d+/\d+$`, k.command(t, "/queue simple print stats"))
	}
	t.Run("the provider ends it", func(t *testing.T) {
		p.peer.SetConfig(func(c *pppoetest.Config) { c.Remote, c.Auth = netip.MustParseAddr(pppoeOther), "pap" })
		p.peer.Terminate()
		p.await(t, pppoeOther)
		assert.NotContains(t, k.command(t, "/ip address print"), pppoeClient)
		k.awaitLog(t, "pppoe-out1: the server has ended the connection: maintenance")
		assert.Contains(t, p.peer.Log(), "me@isp by pap")
		queued(t)
	})
	t.Run("the provider hangs up", func(t *testing.T) {
		p.peer.SetConfig(func(c *pppoetest.Config) { c.Remote, c.Auth = netip.MustParseAddr(pppoeClient), "chap" })
		p.peer.Hangup()
		p.await(t, pppoeClient)
		assert.Contains(t, p.peer.Log(), "me@isp by chap")
	})
	t.Run("the provider is silent", func(t *testing.T) {
		p.peer.SetSilent(true)
		require.NoError(t, retry(func() error {
			shown, err := k.m.command("/ip route print")
			if err == nil && strings.Contains(shown, "pppoe-out1") {
				err = errors.New("the route is there:\n" + shown)
			}
			return err
		}))
		assert.NotContains(t, k.command(t, "/ip address print"), pppoeClient)
		p.peer.Forget()
		p.peer.SetSilent(false)
		p.await(t, pppoeClient)
		k.awaitLog(t, "pppoe-out1: the server does not answer any more")
	})
	t.Run("the client is disabled", func(t *testing.T) {
		before := len(p.peer.Log())
		k.command(t, "/interface pppoe-client disable pppoe-out1")
		require.NoError(t, retry(func() error {
			if log := p.peer.Log()[before:]; !slices.Contains(log, "terminated by the client") || p.peer.Session() != 0 {
				return fmt.Errorf("the provider is not told: %q", log)
			}
			return nil
		}))
		require.NoError(t, retry(func() error {
			shown, err := k.m.command("/ip address print")
			if err == nil && strings.Contains(shown, pppoeClient) {
				err = errors.New("the address is there:\n" + shown)
			}
			return err
		}))
		k.command(t, "/interface pppoe-client enable pppoe-out1")
		p.await(t, pppoeClient)
	})
	t.Run("the router starts anew", func(t *testing.T) {
		before := len(p.peer.Log())
		require.NoError(t, k.m.send("/system reboot\ry\r"))
		require.NoError(t, k.m.wait())
		require.NoError(t, retry(func() error { // the peer may read a packet after its sender has ended
			if log := p.peer.Log()[before:]; !slices.Contains(log, "terminated by the client") {
				return fmt.Errorf("not ended: %q", log)
			}
			return nil
		}))
		k.start(t, "postern", nil)
		p.await(t, pppoeClient)
		queued(t)
	})
}
