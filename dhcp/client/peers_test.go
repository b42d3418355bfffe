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

// start runs the server until the returned function is called, or the test ends.
func (p *peer) start(t *testing.T, program string, args ...string) (stop func()) {
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

// servers are the programs that are tried, each with addresses of .10 to .20, gateway .1, name
// servers 9.9.9.9 and 8.8.8.8, time server .3, a route to 10.0.0.0/8 if wanted, and leases of two
// minutes.
var servers = []struct {
	name, program string
	start         func(t *testing.T, p *peer, classless bool) (stop func())
}{
	{"dnsmasq", "dnsmasq", func(t *testing.T, p *peer, classless bool) func() {
		args := []string{"--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root", "--interface=br0", "--no-ping",
			"--dhcp-range=192.0.2.10,192.0.2.20,2m", "--dhcp-authoritative", "--dhcp-option=option:dns-server,9.9.9.9,8.8.8.8",
			"--dhcp-option=option:ntp-server,192.0.2.3", "--log-dhcp", "--log-facility=-", "--pid-file=",
			"--dhcp-leasefile=" + filepath.Join(p.folder, "leases")}
		if classless {
			args = append(args, "--dhcp-option=121,0.0.0.0/0,192.0.2.1,10.0.0.0/8,192.0.2.2")
		}
		return p.start(t, "dnsmasq", args...)
	}},
	{"ISC dhcpd", "dhcpd", func(t *testing.T, p *peer, classless bool) func() {
		text := `authoritative; ddns-update-style none; ping-check false; default-lease-time 120; max-lease-time 120;
option classless code 121 = array of integer 8;
subnet 192.0.2.0 netmask 255.255.255.0 { range 192.0.2.10 192.0.2.20; option routers 192.0.2.1;
option domain-name-servers 9.9.9.9, 8.8.8.8; option ntp-servers 192.0.2.3; `
		if classless {
			text += "option classless 0, 192,0,2,1, 8,10, 192,0,2,2; "
		}
		for name, content := range map[string]string{"dhcpd.conf": text + "}\n", "dhcpd.leases": ""} {
			path := filepath.Join(p.folder, name)
			if _, err := os.Stat(path); err != nil {
				require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
			}
		}
		return p.start(t, "dhcpd", "-4", "-f", "-d", "-cf", filepath.Join(p.folder, "dhcpd.conf"), "-lf", filepath.Join(p.folder, "dhcpd.leases"),
			"--no-pid", "br0")
	}},
	{"udhcpd", "busybox", func(t *testing.T, p *peer, classless bool) func() {
		leases := filepath.Join(p.folder, "leases")
		text := "start 192.0.2.10\nend 192.0.2.20\ninterface br0\nlease_file " + leases + "\npidfile " + filepath.Join(p.folder, "pid") +
			"\nmax_leases 11\nmin_lease 60\nopt lease 120\nopt subnet 255.255.255.0\nopt router 192.0.2.1\nopt dns 9.9.9.9 8.8.8.8\nopt ntpsrv 192.0.2.3\n"
		if classless {
			text += "opt staticroutes 0.0.0.0/0 192.0.2.1, 10.0.0.0/8 192.0.2.2\n"
		}
		path := filepath.Join(p.folder, "udhcpd.conf")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		f, err := os.OpenFile(leases, os.O_CREATE, 0o644)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		return p.start(t, "busybox", "udhcpd", "-f", path)
	}},
	{"kea", "kea-dhcp4", func(t *testing.T, p *peer, classless bool) func() {
		options := `{"name": "routers", "data": "192.0.2.1"}, {"name": "domain-name-servers", "data": "9.9.9.9, 8.8.8.8"}, {"name": "ntp-servers", "data": "192.0.2.3"}`
		if classless {
			options += `, {"code": 121, "csv-format": false, "data": "00C0000201080AC0000202"}`
		}
		path := filepath.Join(p.folder, "kea.json")
		require.NoError(t, os.WriteFile(path, []byte(`{"Dhcp4": {"interfaces-config": {"interfaces": ["br0"]}, "authoritative": true,
"lease-database": {"type": "memfile", "persist": true, "lfc-interval": 0, "name": "`+filepath.Join(p.folder, "leases.csv")+`"},
"valid-lifetime": 120, "subnet4": [{"subnet": "192.0.2.0/24", "pools": [{"pool": "192.0.2.10 - 192.0.2.20"}], "option-data": [`+options+`]}],
"loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout"}]}]}}`), 0o644))
		return p.start(t, "env", "KEA_PIDFILE_DIR="+p.folder, "KEA_LOCKFILE_DIR="+p.folder, "kea-dhcp4", "-c", path)
	}},
}

func TestServers(t *testing.T) {
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			e2e.Needs(t, s.program)
			p := newPeer(t)
			stop := s.start(t, p, false)
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
			s.start(t, p, false)
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
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			e2e.Needs(t, s.program)
			p := newPeer(t)
			s.start(t, p, true)
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
	far.start(t, "dhcpd", "-4", "-f", "-d", "-cf", filepath.Join(p.folder, "dhcpd.conf"), "-lf", filepath.Join(p.folder, "dhcpd.leases"), "--no-pid", "eth0")
	// Not ISC's relay, which passes on what is sent to the server itself too.
	p.start(t, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root", "--pid-file=",
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
	stop := servers[0].start(t, p, false)
	w := p.run(t, Settings{})
	taken := w.await(t, Bound).Address
	w.stop()
	<-w.done
	stop()
	require.NoError(t, os.Remove(filepath.Join(p.folder, "leases")))
	require.NoError(t, p.other.IP("addr add "+taken.String()+" dev eth0"))
	servers[0].start(t, p, false)
	assert.NotEqual(t, taken, p.run(t, Settings{}).await(t, Bound).Address)
}
