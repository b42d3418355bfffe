package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/internal/dhcptest"
	"github.com/postern-router/postern/internal/e2e"
)

// TestDHCPPeers has each board take an address from the DHCP servers that providers run, and give
// addresses to the clients that people have: all take, renew and give back, one after the other with
// one router as it is shipped.
func TestDHCPPeers(t *testing.T) {
	e2e.Boots(t)
	for _, s := range dhcptest.Servers {
		e2e.Needs(t, s.Program)
	}
	for _, c := range dhcptest.Clients {
		e2e.Needs(t, c.Program)
	}
	t.Parallel()
	for _, b := range boards() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testDHCPPeers(t, b)
		})
	}
}

func testDHCPPeers(t *testing.T, b board.Board) {
	k := newKeeper(t, b)
	for _, h := range []host{client, other} {
		require.NoError(t, k.n[h].IP("addr flush dev eth0"))
	}
	began := time.Now()
	first := k.startProvider(t, 0)
	k.start(t, "postern", nil)
	require.Empty(t, k.command(t, "/ip dhcp-server set 0 lease-time=1m")) // the least
	t.Logf("%s: started after %v", b.Name, time.Since(began).Round(time.Second))

	// Those that renew in their own time do so while the servers are tried.
	var now, early []*dhcpHost
	hosts := []host{client, other}
	for _, c := range dhcptest.Clients {
		if c.Renew == 0 {
			early = append(early, k.startClient(t, c, hosts[len(early)]))
		}
	}
	for i, s := range dhcptest.Servers {
		t.Run(s.Name, func(t *testing.T) {
			p := first
			if i > 0 {
				p = k.startProvider(t, i)
				// The lease of the one before is given back to nobody, and the router looks for another.
				k.command(t, "/ip dhcp-client release 0")
			}
			defer p.stop()
			p.test(t)
		})
	}
	for _, h := range early {
		t.Run(h.client.Name, h.test)
	}
	for _, c := range dhcptest.Clients {
		if c.Renew != 0 {
			now = append(now, k.startClient(t, c, hosts[len(now)]))
		}
	}
	for _, h := range now {
		t.Run(h.client.Name, h.test)
	}
	t.Run("perfdhcp", func(t *testing.T) { k.perfdhcp(t) })
	t.Logf("%s: %v", b.Name, time.Since(began).Round(time.Second))
}

// overheard are the DHCP messages that have come to a host.
type overheard struct {
	mu  sync.Mutex
	all []*dhcp.Message
}

// overhear notes the DHCP messages that come to a UDP port of a host on eth0, until the test ends.
func (k *keeper) overhear(t *testing.T, h host, port uint16) *overheard {
	t.Helper()
	var conn *ether.Conn
	require.NoError(t, k.n.on(h, func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		f, err := dhcp.OpenUDP(i.Index, port)
		if err == nil {
			conn, err = ether.NewConn(f)
		}
		return err
	}))
	o := &overheard{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn.ReadAll(func(frame []byte, sumReady bool) {
			p, err := dhcp.ParsePacket(frame, sumReady)
			if err != nil {
				return
			}
			if m, err := dhcp.Parse(p.Payload); err == nil {
				o.mu.Lock()
				o.all = append(o.all, m)
				o.mu.Unlock()
			}
		})
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return o
}

// await waits for a message of that type from or to a host that has the address already, as a renewal is.
func (o *overheard) await(t *testing.T, typ dhcp.Type, address netip.Addr) {
	t.Helper()
	require.NoError(t, retry(func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		var seen []string
		for _, m := range o.all {
			if m.Options.Type() == typ && m.Client == address {
				return nil
			}
			seen = append(seen, fmt.Sprint(m.Options.Type(), " of ", m.Client))
		}
		return fmt.Errorf("no %s of %s, but %q", typ, address, seen)
	}))
}

// provider is a DHCP server on the gateway.
type provider struct {
	k     *keeper
	offer dhcptest.Offer
	heard *overheard
	stop  func()
}

// startProvider starts one of dhcptest.Servers, which has addresses of its own, in place of the one before.
func (k *keeper) startProvider(t *testing.T, i int) *provider {
	t.Helper()
	s := dhcptest.Servers[i]
	p := &provider{k: k, heard: k.overhear(t, gateway, dhcp.ServerPort), offer: dhcptest.Offer{
		Interface: "eth0", Network: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr(gatewayAddress),
		First: netip.AddrFrom4([4]byte{10, 1, 0, byte(110 + 10*i)}), Last: netip.AddrFrom4([4]byte{10, 1, 0, byte(119 + 10*i)}),
		NameServers: []netip.Addr{netip.MustParseAddr(gatewayAddress), netip.MustParseAddr(serverAddress)}, TimeServer: netip.MustParseAddr(serverAddress),
		Routes: []dhcp.Route{
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr(gatewayAddress)},
			{Destination: netip.MustParsePrefix("10.7.0.0/16"), Gateway: netip.MustParseAddr(strangerAddress)},
		},
		Time: 10 * time.Minute,
	}}
	folder := filepath.Join(k.dir, s.Program)
	require.NoError(t, os.MkdirAll(folder, 0o755))
	line, err := s.Line(p.offer, folder)
	require.NoError(t, err)
	cmd, said := k.n.command(gateway, line[0], line[1:]...), &logBuffer{}
	cmd.Stdout, cmd.Stderr = said, said
	require.NoError(t, cmd.Start())
	p.stop = sync.OnceFunc(func() { kill(cmd) })
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s:\n%s", s.Name, said)
		}
	})
	require.NoError(t, retry(func() error {
		out, err := k.n.command(gateway, "ss", "-Hlun", "sport", "=", ":67").Output()
		if err == nil && len(out) == 0 {
			err = fmt.Errorf("%s does not listen yet: %s", s.Name, said)
		}
		return err
	}))
	return p
}

// bound waits until the router has an address of this server, and returns it and how long it may
// keep that.
func (p *provider) bound(t *testing.T) (address netip.Addr, left time.Duration) {
	t.Helper()
	require.NoError(t, retry(func() error {
		shown, err := p.k.m.command("/ip dhcp-client print detail")
		if err != nil {
			return err
		}
		shown = strings.Join(strings.Fields(shown), " ")
		found := regexp.MustCompile(` status=bound address=(\S+)/24 gateway=10\.1\.0\.1 dhcp-server=10\.1\.0\.1 primary-dns=10\.1\.0\.1 secondary-dns=10\.5\.8\.8 primary-ntp=10\.5\.8\.8 expires-after=(\S+)`).
			FindStringSubmatch(shown)
		if found == nil {
			return errors.New(shown)
		}
		if address, err = netip.ParseAddr(found[1]); err != nil {
			return err
		}
		if address.Less(p.offer.First) || p.offer.Last.Less(address) {
			return fmt.Errorf("%s is of another server", address)
		}
		left, err = time.ParseDuration(found[2])
		return err
	}))
	return address, left
}

// log is what the router's log says of its DHCP client. Of its server it may say more at any time: hosts take addresses.
func (p *provider) log(t *testing.T) (lines []string) {
	t.Helper()
	for line := range strings.Lines(p.k.command(t, "/log print where topics~\"dhcp\"")) {
		if strings.Contains(line, "DHCP client") {
			lines = append(lines, line)
		}
	}
	require.NotEmpty(t, lines)
	return lines
}

func (p *provider) test(t *testing.T) {
	k := p.k
	address, least := p.bound(t)
	assert.Equal(t, address.String(), k.ownAddress(t, ""))
	routes := k.command(t, "/ip route print")
	for _, line := range []string{`0\.0\.0\.0/0 +10\.1\.0\.1 +1`, `10\.7\.0\.0/16 +10\.1\.0\.66 +1`} {
		assert.Regexp(t, `(?m)^ *\d+ +[AD]\S* +`+line+`$`, routes)
	}
	assert.Regexp(t, `(?m)^ +dynamic-servers: `+regexp.QuoteMeta(gatewayAddress+","+serverAddress)+`$`, k.command(t, "/ip dns print"))
	require.NoError(t, k.n.awaitPing(client, serverAddress), "masqueraded behind it")

	// A renewal: the router may keep its address for longer than before, and nothing else changes.
	log := p.log(t)
	require.NoError(t, retry(func() error {
		again, left := p.bound(t)
		if again != address {
			return fmt.Errorf("another address: %s", again)
		}
		if left > least {
			return nil
		}
		// The screen has whole seconds: some must be over before a renewal is seen.
		if left < p.offer.Time-5*time.Second {
			least = min(least, left)
			k.command(t, "/ip dhcp-client renew 0")
		}
		return fmt.Errorf("%v are left", left)
	}))
	p.heard.await(t, dhcp.Request, address)
	assert.Equal(t, log, p.log(t))

	// The server gets its address back, and gives one again.
	k.command(t, "/ip dhcp-client release 0")
	p.heard.await(t, dhcp.Release, address)
	again, _ := p.bound(t)
	assert.Equal(t, again.String(), k.ownAddress(t, ""))
}

// dhcpHost is a client of the LAN.
type dhcpHost struct {
	k      *keeper
	client dhcptest.Client
	host   host
	folder string
	cmd    *exec.Cmd
	said   *logBuffer
	heard  *overheard
}

// startClient starts a client on a host.
func (k *keeper) startClient(t *testing.T, c dhcptest.Client, h host) *dhcpHost {
	t.Helper()
	d := &dhcpHost{k: k, client: c, host: h, folder: filepath.Join(k.dir, string(h)+"-"+c.Name), said: &logBuffer{}, heard: k.overhear(t, h, dhcp.ClientPort)}
	require.NoError(t, os.MkdirAll(d.folder, 0o755))
	line, err := c.Line(d.folder)
	require.NoError(t, err)
	d.cmd = k.n.command(h, line[0], line[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = d.said, d.said
	require.NoError(t, d.cmd.Start())
	t.Cleanup(func() {
		kill(d.cmd)
		if t.Failed() {
			t.Logf("%s:\n%s", c.Name, d.said)
		}
	})
	return d
}

// test waits until the host has an address, uses it, renews it and gives it back.
func (d *dhcpHost) test(t *testing.T) {
	k, n := d.k, d.k.n
	var address netip.Addr
	require.NoError(t, retry(func() error {
		shown, err := n.command(d.host, "ip", "-4", "addr", "show", "dev", "eth0").Output()
		if err != nil {
			return err
		}
		found, err := find(string(shown), `inet (192\.168\.0\.\d+)/24 `)
		if err == nil {
			address, err = netip.ParseAddr(found)
		}
		return err
	}))
	require.NoError(t, n.awaitPing(d.host, lanAddress))
	leases := func() (string, error) { return k.m.command("/ip dhcp-server lease print") }
	require.NoError(t, retry(func() error {
		shown, err := leases()
		if err == nil && !regexp.MustCompile(`(?m)^ *\d+ D `+regexp.QuoteMeta(address.String())+` .* `+d.client.Name+` .* bound `).MatchString(shown) {
			err = errors.New("no lease of " + d.client.Name + ":\n" + shown)
		}
		return err
	}))
	require.NoError(t, retry(func() error { // its script sets it after the address
		return n.run(d.host, "ping", "-c", "1", "-W", "1", serverAddress)
	}))
	if d.client.Renew != 0 {
		require.NoError(t, d.cmd.Process.Signal(d.client.Renew))
	}
	d.heard.await(t, dhcp.ACK, address)

	if d.client.Release != 0 {
		require.NoError(t, d.cmd.Process.Signal(d.client.Release))
	} else {
		line, err := d.client.ReleaseLine(d.folder)
		require.NoError(t, err)
		k.run(t, d.host, line[0], line[1:]...)
	}
	require.NoError(t, retry(func() error {
		shown, err := leases()
		if err == nil && slices.Contains(strings.Fields(shown), address.String()) {
			err = fmt.Errorf("%s is not given back:\n%s", address, shown)
		}
		return err
	}))
	kill(d.cmd)
	require.NoError(t, n[d.host].IP("addr flush dev eth0"))
}
