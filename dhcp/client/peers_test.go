package client

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
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
)

// patience is how long a test waits for what has to happen; only a test that fails waits so long.
const patience = time.Minute

// peer is a server on a host of its own, at 192.0.2.1, the client's host, and another one on the
// same link.
type peer struct {
	server, client, other *testnet.Host
	folder                string
	mac                   ether.MAC
	index                 int
}

func newPeer(t *testing.T) *peer {
	p := &peer{server: testnet.New(t, "server"), client: testnet.New(t, "client"), other: testnet.New(t, "other"), folder: t.TempDir()}
	require.NoError(t, testnet.Link(p.server, "eth0", p.client, "eth0"))
	require.NoError(t, testnet.Link(p.server, "eth1", p.other, "eth0"))
	require.NoError(t, p.server.IP("link add br0 type bridge", "link set eth0 master br0", "link set eth1 master br0", "link set br0 up",
		"addr add 192.0.2.1/24 dev br0"))
	require.NoError(t, p.client.Do(func() error {
		i, err := net.InterfaceByName("eth0")
		if err == nil {
			p.mac, p.index = ether.MAC(i.HardwareAddr), i.Index
		}
		return err
	}))
	return p
}

// start runs a server on the host until the returned function is called, or the test ends.
func (p *peer) start(t *testing.T, s dhcptest.Server, classless bool) (stop func()) {
	o := dhcptest.Offer{Interface: "br0", Network: netip.MustParsePrefix("192.0.2.0/24"), First: netip.MustParseAddr("192.0.2.10"), Last: netip.MustParseAddr("192.0.2.20"),
		Gateway: netip.MustParseAddr("192.0.2.1"), NameServers: []netip.Addr{netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("8.8.8.8")},
		TimeServer: netip.MustParseAddr("192.0.2.3"), Time: 2 * time.Minute}
	if classless {
		o.Routes = []dhcp.Route{
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.0.2.1")},
			{Destination: netip.MustParsePrefix("10.0.0.0/8"), Gateway: netip.MustParseAddr("192.0.2.2")},
		}
	}
	line, err := s.Line(o, p.folder)
	require.NoError(t, err)
	return p.startProgram(t, line[0], line[1:]...)
}

// startProgram does so with any program.
func (p *peer) startProgram(t *testing.T, program string, args ...string) (stop func()) {
	cmd := p.server.Command(program, args...)
	output := &lines{}
	cmd.Stdout, cmd.Stderr = output, output
	require.NoError(t, cmd.Start())
	var once sync.Once
	stop = func() {
		once.Do(func() {
			_ = cmd.Process.Kill() // it may have ended
			_ = cmd.Wait()         // killed
		})
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("%s:\n%s", program, output)
		}
	})
	return stop
}

// lines is what a program says.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// watched is a client that runs, and what it has reported.
type watched struct {
	*running
	mu     sync.Mutex
	status Status
	lease  *Lease
	told   []Status
}

func (p *peer) run(t *testing.T, s Settings) *watched {
	s.MAC = p.mac
	var sockets []*os.File
	require.NoError(t, p.client.Do(func() error {
		for _, open := range []func() (*os.File, error){
			func() (*os.File, error) { return dhcp.OpenUDP(p.index, dhcp.ClientPort) },
			func() (*os.File, error) { return dhcp.OpenARP(p.index) },
		} {
			f, err := open()
			if err != nil {
				return err
			}
			sockets = append(sockets, f)
		}
		return nil
	}))
	w := &watched{}
	r, err := run(t.Context(), s, sockets[0], sockets[1], t.Logf, func(_ context.Context, r Report) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.status, w.lease, w.told = r.Status, r.Lease, append(w.told, r.Status)
	})
	require.NoError(t, err)
	w.running = r
	t.Cleanup(func() { r.stop(); <-r.done })
	return w
}

// await waits for a status, and returns the lease then.
func (w *watched) await(t *testing.T, s Status) *Lease {
	t.Helper()
	var l *Lease
	require.Eventually(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		l = w.lease
		return w.status == s
	}, patience, 5*time.Millisecond, "it is never %s", s)
	return l
}

func TestServers(t *testing.T) {
	for _, s := range dhcptest.Servers {
		t.Run(s.Name, func(t *testing.T) {
			e2e.Needs(t, s.Program)
			p := newPeer(t)
			stop := p.start(t, s, false)
			w := p.run(t, Settings{HostName: "router", ClientID: true})
			l := w.await(t, Bound)
			require.NotNil(t, l)
			assert.True(t, netip.MustParsePrefix("192.0.2.0/24").Contains(l.Address.Addr()) && l.Address.Bits() == 24, l.Address)
			assert.Equal(t, "192.0.2.1 192.0.2.1 [9.9.9.9 8.8.8.8] [192.0.2.3] []", fmt.Sprint(l.Server, " ", l.Gateway, " ", l.NameServers, " ", l.TimeServers, " ", l.Routes))
			assert.False(t, l.HasRoutes)

			// A renewal by unicast, of the client's own frames. The server finds the address by
			// ARP, which the kernel answers once it has it.
			require.NoError(t, p.client.IP("addr add "+l.Address.String()+" dev eth0"))
			w.events <- Renew
			require.Eventually(t, func() bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				return strings.Contains(fmt.Sprint(w.told), "bound renewing... bound")
			}, patience, 5*time.Millisecond)
			assert.Equal(t, l.Address, w.await(t, Bound).Address)
			require.NoError(t, p.client.IP("addr flush dev eth0"))

			// Another client has another address; this one gets its own again at a restart of both.
			w.stop()
			<-w.done
			stop()
			p.start(t, s, false)
			again := p.run(t, Settings{HostName: "router", ClientID: true, Previous: l.Address.Addr()})
			assert.Equal(t, l.Address, again.await(t, Bound).Address)
			// The server may have been slow to start, and udhcpd, which has written its leases nowhere, has refused.
			// Now it is there and knows the client.
			again.stop()
			<-again.done
			again = p.run(t, Settings{HostName: "router", ClientID: true, Previous: l.Address.Addr()})
			assert.Equal(t, l.Address, again.await(t, Bound).Address)
			again.mu.Lock()
			assert.Equal(t, []Status{Requesting, Bound}, again.told, "it did not search")
			again.mu.Unlock()

			// It moves to what another network gives.
			again.stop()
			<-again.done
			moved := p.run(t, Settings{ClientID: true, Previous: netip.MustParseAddr("198.51.100.7")})
			assert.True(t, netip.MustParsePrefix("192.0.2.0/24").Contains(moved.await(t, Bound).Address.Addr()))

			// What it gives back the server knows to be free.
			moved.events <- Release
			require.Eventually(t, func() bool {
				moved.mu.Lock()
				defer moved.mu.Unlock()
				return strings.Contains(fmt.Sprint(moved.told), "bound searching... requesting... bound")
			}, patience, 5*time.Millisecond)
		})
	}
}

func TestServersClassless(t *testing.T) {
	for _, s := range dhcptest.Servers {
		t.Run(s.Name, func(t *testing.T) {
			e2e.Needs(t, s.Program)
			p := newPeer(t)
			p.start(t, s, true)
			l := p.run(t, Settings{}).await(t, Bound)
			assert.True(t, l.HasRoutes)
			assert.ElementsMatch(t, []string{"{0.0.0.0/0 192.0.2.1}", "{10.0.0.0/8 192.0.2.2}"}, strings.Split(strings.Trim(strings.ReplaceAll(fmt.Sprint(l.Routes), "} {", "};{"), "[]"), ";"))
		})
	}
}

// TestBehindARelay: the server is in another network, and a relay passes messages on. A renewal goes to
// the server itself, by the gateway. When the way there is cut the client asks everybody, which the
// relay hears.
func TestBehindARelay(t *testing.T) {
	e2e.Needs(t, "dhcpd")
	e2e.Needs(t, "dnsmasq")
	p := newPeer(t) // its server is the relay here
	server := testnet.New(t, "far")
	require.NoError(t, testnet.Link(p.server, "uplink", server, "eth0"))
	require.NoError(t, p.server.IP("addr add 198.51.100.2/24 dev uplink"))
	require.NoError(t, p.server.Set("net.ipv4.ip_forward", "1"))
	require.NoError(t, server.IP("addr add 198.51.100.1/24 dev eth0", "route add 192.0.2.0/24 via 198.51.100.2"))
	for name, content := range map[string]string{"dhcpd.leases": "", "dhcpd.conf": `authoritative; ddns-update-style none; ping-check false;
default-lease-time 24; max-lease-time 24; min-lease-time 24;
subnet 198.51.100.0 netmask 255.255.255.0 { }
subnet 192.0.2.0 netmask 255.255.255.0 { range 192.0.2.10 192.0.2.20; option routers 192.0.2.1; }
`} {
		require.NoError(t, os.WriteFile(filepath.Join(p.folder, name), []byte(content), 0o644))
	}
	far := *p
	far.server = server
	far.startProgram(t, "dhcpd", "-4", "-f", "-d", "-cf", filepath.Join(p.folder, "dhcpd.conf"), "-lf", filepath.Join(p.folder, "dhcpd.leases"), "--no-pid", "eth0")
	// Not ISC's relay, which passes on what is sent to the server itself too.
	p.startProgram(t, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root", "--pid-file=",
		"--log-dhcp", "--log-facility=-", "--dhcp-relay=192.0.2.1,198.51.100.1")

	w := p.run(t, Settings{})
	l := w.await(t, Bound)
	assert.Equal(t, "198.51.100.1 192.0.2.1", fmt.Sprint(l.Server, " ", l.Gateway))
	assert.True(t, netip.MustParsePrefix("192.0.2.0/24").Contains(l.Address.Addr()), l.Address)
	require.NoError(t, p.client.IP("addr add "+l.Address.String()+" dev eth0", "route add default via 192.0.2.1"))
	awaitTold := func(want string) {
		t.Helper()
		require.Eventually(t, func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return strings.Contains(fmt.Sprint(w.told), want)
		}, patience, 5*time.Millisecond, want)
	}
	awaitTold("bound renewing... bound")
	require.NoError(t, p.server.Set("net.ipv4.ip_forward", "0"))
	awaitTold("renewing... rebinding... bound")
	assert.Equal(t, l.Address, w.await(t, Bound).Address)
}

// An address that another machine has is given back, and the client gets one that is free.
func TestAddressInUse(t *testing.T) {
	e2e.Needs(t, "dnsmasq")
	p := newPeer(t)
	stop := p.start(t, dhcptest.Servers[0], false)
	w := p.run(t, Settings{})
	taken := w.await(t, Bound).Address
	w.stop()
	<-w.done
	stop()
	require.NoError(t, os.Remove(filepath.Join(p.folder, "leases")))
	require.NoError(t, p.other.IP("addr add "+taken.String()+" dev eth0"))
	p.start(t, dhcptest.Servers[0], false)
	assert.NotEqual(t, taken, p.run(t, Settings{}).await(t, Bound).Address)
}
