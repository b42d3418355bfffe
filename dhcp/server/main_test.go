package server

import (
	"cmp"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/internal/dhcptest"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/match"
)

func TestMain(m *testing.M) { testnet.Main(m) }

// lan is a server and a host on a cable.
type lan struct {
	*process
	router, host *testnet.Host
	index        int
}

func newLAN(t *testing.T, c Config) *lan {
	l := &lan{router: testnet.New(t, "router"), host: testnet.New(t, "host")}
	require.NoError(t, testnet.Link(l.router, "eth0", l.host, "eth0"))
	require.NoError(t, l.router.IP("addr add 192.168.0.1/20 dev eth0"))
	l.process = &process{conns: map[int][]*ether.Conn{}, core: newCore(t.Logf, func() {})}
	var mac ether.MAC
	var sockets []*os.File
	require.NoError(t, l.router.Do(func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		l.index, mac = i.Index, ether.MAC(i.HardwareAddr)
		for _, open := range []func() (*os.File, error){
			func() (*os.File, error) { return dhcp.OpenUDP(l.index, dhcp.ServerPort) },
			func() (*os.File, error) { return dhcp.OpenARP(l.index) },
			func() (*os.File, error) { return dhcp.Park("eth0", dhcp.ServerPort) },
		} {
			f, err := open()
			if err != nil {
				return err
			}
			sockets = append(sockets, f)
		}
		return nil
	}))
	require.NoError(t, l.setLink(l.index, mac, sockets[0], sockets[1]))
	t.Cleanup(func() {
		l.core.stop()
		l.unlink(l.index)
		sockets[2].Close()
		l.reading.Wait()
	})
	require.NoError(t, c.Validate())
	l.core.setPlan(c.Compile(func(string) (LinkState, bool) {
		return LinkState{l.index, []netip.Prefix{netip.MustParsePrefix("192.168.0.1/20")}}, true
	}, []netip.Addr{ip("9.9.9.9")}))
	return l
}

// find returns the path of a program, also where only root looks for it.
func find(t *testing.T, program string) string {
	if filepath.IsAbs(program) {
		e2e.Needs(t, program)
		return program
	}
	for _, folder := range []string{"/sbin", "/usr/sbin", "/bin", "/usr/bin"} {
		if _, err := os.Stat(filepath.Join(folder, program)); err == nil {
			return filepath.Join(folder, program)
		}
	}
	e2e.Needs(t, program)
	return program
}

// Real clients, one after the other on a host, take an address and use it.
func TestClients(t *testing.T) {
	c := home()
	c.Networks[0].Address = netip.MustParsePrefix("192.168.0.0/20")
	for _, client := range dhcptest.Clients {
		t.Run(client.Name, func(t *testing.T) {
			program := find(t, client.Program)
			l := newLAN(t, c)
			line, err := client.Line(t.TempDir())
			require.NoError(t, err)
			if line[0] == client.Program {
				line[0] = program
			}
			var out strings.Builder
			cmd := l.host.Command(line[0], line[1:]...)
			cmd.Stdout, cmd.Stderr = &out, &out
			require.NoError(t, cmd.Start())
			defer func() {
				_ = cmd.Process.Kill() // it may have ended
				_ = cmd.Wait()
				t.Log(out.String())
			}()
			var address string
			require.Eventually(t, func() bool {
				shown, _ := l.host.Command("ip", "-4", "addr", "show", "dev", "eth0").Output()
				found := regexp.MustCompile(`inet (192\.168\.0\.1\d)/20`).FindSubmatch(shown)
				if found != nil {
					address = string(found[1])
				}
				return found != nil
			}, 2*time.Minute, 50*time.Millisecond)
			require.Eventually(t, func() bool {
				return l.host.Run("ping", "-c", "1", "-W", "5", "192.168.0.1") == nil
			}, time.Minute, 50*time.Millisecond, "it has the address, and the router knows the way")
			require.Eventually(t, func() bool { // the client's script sets it after the address
				routes, _ := l.host.Command("ip", "route").Output()
				return strings.Contains(string(routes), "default via 192.168.0.1 dev eth0")
			}, time.Minute, 50*time.Millisecond)
			l.core.mu.Lock()
			defer l.core.mu.Unlock()
			e := l.core.table.entries[ip(address)]
			require.NotNil(t, e)
			assert.Equal(t, Bound, e.Status)
		})
	}
}

// A host behind a relay gets its address by that, and renews it and gives it back without: the relay is gone by then.
func TestClientsBehindRelay(t *testing.T) {
	c := home()
	far, err := match.ParseAddresses("10.9.0.10-10.9.0.19")
	require.NoError(t, err)
	c.Servers = append(c.Servers, Server{Name: "far", Interface: "ether2", Pool: "far", LeaseTime: 30 * time.Minute, Relay: ip("10.9.0.1"), Authoritative: Authoritative})
	c.Pools = append(c.Pools, Pool{Name: "far", Ranges: []match.Addresses{far}})
	c.Networks = append(c.Networks, Network{Address: netip.MustParsePrefix("10.9.0.0/24"), Gateway: []netip.Addr{ip("10.9.0.1")}})
	for _, client := range dhcptest.Clients {
		if client.Renew == 0 {
			continue
		}
		t.Run(client.Name, func(t *testing.T) {
			program, relayProgram := find(t, client.Program), find(t, "dnsmasq")
			l := newLAN(t, c)
			host := testnet.New(t, "far")
			require.NoError(t, testnet.Link(l.host, "eth1", host, "eth0"))
			require.NoError(t, l.host.IP("addr add 192.168.0.2/20 dev eth0", "addr add 10.9.0.1/24 dev eth1"))
			require.NoError(t, l.host.Set("net.ipv4.ip_forward", "1"))
			start := func(h *testnet.Host, line ...string) (cmd *exec.Cmd, end func()) {
				cmd = h.Command(line[0], line[1:]...)
				var said strings.Builder
				cmd.Stdout, cmd.Stderr = &said, &said
				require.NoError(t, cmd.Start())
				end = sync.OnceFunc(func() {
					_ = cmd.Process.Kill() // it may have ended
					_ = cmd.Wait()
					t.Logf("%s:\n%s", line[0], said.String())
				})
				t.Cleanup(end)
				return cmd, end
			}
			// Not ISC's relay, which passes on what is sent to the server itself too.
			_, endRelay := start(l.host, relayProgram, "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root", "--pid-file=",
				"--log-dhcp", "--log-facility=-", "--dhcp-relay=10.9.0.1,192.168.0.1")
			line, err := client.Line(t.TempDir())
			require.NoError(t, err)
			if line[0] == client.Program {
				line[0] = program
			}
			cmd, _ := start(host, line...)

			// expires is when the lease of the only host ends, the zero time if there is none.
			expires := func() (end time.Time) {
				l.core.mu.Lock()
				defer l.core.mu.Unlock()
				for a, e := range l.core.table.entries {
					if e.Status == Bound {
						assert.True(t, c.Networks[1].Address.Contains(a), a)
						end = e.expires
					}
				}
				return end
			}
			require.Eventually(t, func() bool { return !expires().IsZero() }, 2*time.Minute, 20*time.Millisecond)
			require.Eventually(t, func() bool { return host.Run("ping", "-c", "1", "-W", "5", "192.168.0.2") == nil }, 2*time.Minute, 50*time.Millisecond,
				"it has the address, and the default route")
			endRelay()
			before := expires()
			require.NoError(t, cmd.Process.Signal(client.Renew))
			require.Eventually(t, func() bool { return expires().After(before) }, 2*time.Minute, 20*time.Millisecond, "a renewal")
			require.NoError(t, cmd.Process.Signal(client.Release))
			require.Eventually(t, func() bool { return expires().IsZero() }, 2*time.Minute, 20*time.Millisecond, "it was given back")
		})
	}
}

// A host that has an address without a lease is heard by ARP.
func TestConflictOnTheCable(t *testing.T) {
	c := home()
	c.Pools[0].Ranges[0].To = ip("192.168.0.11")
	l := newLAN(t, c)
	require.NoError(t, l.host.IP("addr add 192.168.0.10/20 dev eth0"))
	var conn *ether.Conn
	require.NoError(t, l.host.Do(func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		f, err := dhcp.OpenUDP(i.Index, dhcp.ClientPort)
		if err == nil {
			conn, err = ether.NewConn(f)
		}
		return err
	}))
	defer conn.Close()
	b := &bench{T: t}
	payload, err := b.message(mac(1), dhcp.Discover, requested("192.168.0.10"), func(m *dhcp.Message) { m.Flags = dhcp.FlagBroadcast }).Marshal(dhcp.MaxMessage)
	require.NoError(t, err)
	require.NoError(t, conn.Write(dhcp.Packet{FromMAC: mac(1), ToMAC: ether.Broadcast, From: netip.MustParseAddrPort("0.0.0.0:68"),
		To: netip.MustParseAddrPort("255.255.255.255:67"), Payload: payload}.Append(nil)))
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	frame := make([]byte, ether.MaxFrame)
	n, ready, err := conn.Read(frame)
	require.NoError(t, err)
	p, err := dhcp.ParsePacket(frame[:n], ready)
	require.NoError(t, err)
	m, err := dhcp.Parse(p.Payload)
	require.NoError(t, err)
	assert.Equal(t, ip("192.168.0.11"), m.Your)
}

// perfRate is how many hosts a second TestPerfdhcp has ask, if this variable of the environment has none. See docs/HACKING.md.
const perfRate, perfVariable = "100", "POSTERN_TEST_PERFDHCP"

// perfdhcp asks 100 times a second for 250 hosts, here and of dnsmasq. It tells the figures.
func TestPerfdhcp(t *testing.T) {
	program := find(t, "perfdhcp")
	e2e.Needs(t, program)
	rate := cmp.Or(os.Getenv(perfVariable), perfRate)
	perSecond, err := strconv.Atoi(rate)
	require.NoError(t, err)
	// perf asks five seconds long. perfdhcp plays a relay, at 192.168.0.2.
	perf := func(t *testing.T, host *testnet.Host) []dhcptest.Exchange {
		// The pause is for answers that are late, in microseconds.
		report, err := host.Command(program, "-4", "-l", "192.168.0.2", "-r", rate, "-R", "250", "-n", strconv.Itoa(5*perSecond), "-W", "1000000", "192.168.0.1").CombinedOutput()
		all, wrong := dhcptest.Exchanges(report)
		require.NoError(t, wrong, "%v\n%s", err, report)
		t.Logf("%s a second: %v", rate, all)
		return all
	}
	c := home()
	ranges, err := match.ParseAddresses("192.168.1.0-192.168.2.255")
	require.NoError(t, err)
	c.Pools[0].Ranges = []match.Addresses{ranges}
	c.Servers[0].Relay = AnyRelay
	c.Networks[0].Address = netip.MustParsePrefix("192.168.0.0/20")
	t.Run("postern", func(t *testing.T) {
		l := newLAN(t, c)
		require.NoError(t, l.host.IP("addr add 192.168.0.2/20 dev eth0"))
		stall := stalls()
		all := perf(t, l.host)
		longest := stall()
		t.Logf("the longest stall of this process: %v", longest)
		if perSecond <= 100 && longest < 500*time.Millisecond { // what comes meanwhile has room in the socket
			for _, e := range all {
				assert.GreaterOrEqual(t, e.Received, e.Sent*95/100, "%v", e)
			}
		}
		assert.Greater(t, all[0].Received+all[1].Received, 100, "a host that stands still loses some")
		l.core.mu.Lock()
		defer l.core.mu.Unlock()
		assert.LessOrEqual(t, len(l.core.table.entries), 250)
		assert.GreaterOrEqual(t, len(l.core.table.entries), min(150, all[1].Received/4), "of 500 that are drawn from 250 some are the same")
		assert.Len(t, l.core.table.clients, len(l.core.table.entries))
		for key, e := range l.core.table.clients {
			assert.Equal(t, clientKeyOf(e), key)
		}
	})
	t.Run("dnsmasq", func(t *testing.T) {
		dnsmasq := find(t, "dnsmasq")
		router, host := testnet.New(t, "router"), testnet.New(t, "host")
		require.NoError(t, testnet.Link(router, "eth0", host, "eth0"))
		require.NoError(t, router.IP("addr add 192.168.0.1/20 dev eth0"))
		require.NoError(t, host.IP("addr add 192.168.0.2/20 dev eth0"))
		server := router.Command(dnsmasq, "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root", "--pid-file=", "--interface=eth0",
			"--no-ping", "--dhcp-authoritative", "--dhcp-range=192.168.1.0,192.168.2.255,255.255.240.0,30m", "--log-facility=/dev/null", "--dhcp-leasefile="+t.TempDir()+"/leases")
		require.NoError(t, server.Start())
		t.Cleanup(func() {
			_ = server.Process.Kill() // it may have ended
			_ = server.Wait()
		})
		require.Eventually(t, func() bool {
			sockets, _ := router.Command("cat", "/proc/net/udp").Output()
			return strings.Contains(string(sockets), ":0043 ")
		}, time.Minute, 10*time.Millisecond, "it has begun to listen")
		perf(t, host)
	})
}

// stalls looks for how long this process does not run. It returns a function that ends it and says for how long at most.
func stalls() func() time.Duration {
	end, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		var most time.Duration
		ticks := time.NewTicker(10 * time.Millisecond)
		defer ticks.Stop()
		for last := time.Now(); ; {
			select {
			case <-ticks.C:
			case <-end:
				longest <- max(most, time.Since(last))
				return
			}
			most, last = max(most, time.Since(last)), time.Now()
		}
	}()
	return func() time.Duration { close(end); return <-longest }
}

// clientKeyOf is the key of a client without a static lease.
func clientKeyOf(e *entry) string { return new(core).clientKey(e.Server, e.MAC, e.ClientID) }
