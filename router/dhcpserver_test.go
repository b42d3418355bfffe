package router

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/dhcp/server"
	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/service"
)

// testDHCP is a service without a process, on interfaces that the test makes.
type testDHCP struct {
	*dhcpService
	index map[string]int
	said  func() string
	opens int
}

func newTestDHCP(t *testing.T, keeper valueStore) *testDHCP {
	log, said := testLog(t)
	supervisor := newSupervisor(log)
	supervisor.Program = "/no-program"
	d := &testDHCP{dhcpService: newDHCPService(supervisor, log, keeper, func() {}), index: map[string]int{"ether2": 2}, said: said}
	d.mu.Lock() // find and open are called with it held
	defer d.mu.Unlock()
	d.find = func(name string) (int, ether.MAC, bool) {
		i, ok := d.index[name]
		return i, ether.MAC{2, 0, 0, 0, 0, byte(i)}, ok
	}
	d.open = func(string, int) ([]*os.File, error) {
		d.opens++
		f, err := os.Open(os.DevNull)
		return []*os.File{f}, err
	}
	t.Cleanup(func() {
		d.Stop()
		supervisor.Stop()
	})
	return d
}

// make makes an interface.
func (d *testDHCP) make(name string, index int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.index[name] = index
}

// opened is how often sockets were opened.
func (d *testDHCP) opened() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opens
}

func dhcpConfig(t *testing.T) console.Config {
	cfg, err := console.Load("home", strings.NewReader(`
/interface bridge add name=lan
/interface bridge port add bridge=lan interface=ether3
/ip address add address=192.168.0.1/24 interface=ether2
/ip address add address=192.168.1.1/24 interface=ether3
/ip pool add name=lan ranges=192.168.0.10-192.168.0.99
/ip dhcp-server add name=home interface=ether2 address-pool=lan
/ip dhcp-server add name=bridged interface=ether3 address-pool=lan
/ip dhcp-server lease add address=192.168.0.200 mac-address=02:00:00:00:00:c8
`))
	require.NoError(t, err)
	return cfg
}

func bound(address string, last byte, name string) server.Change {
	return server.Change{Address: netip.MustParseAddr(address), MAC: ether.MAC{2, 0, 0, 0, 0, last}, HostName: name, Server: "home",
		Status: server.Bound, Left: 30 * time.Minute}
}

// What the process says is believed only as far as it can be.
func TestDHCPServiceTakes(t *testing.T) {
	d := newTestDHCP(t, &stateStore{})
	require.NoError(t, d.Apply(dhcpConfig(t)))
	require.NoError(t, d.take([]server.Change{bound("192.168.0.10", 10, "laptop"), bound("192.168.0.200", 0xc8, "")}))
	assert.Contains(t, d.said(), "home assigned 192.168.0.10 for 02:00:00:00:00:0A laptop")
	assert.Contains(t, d.said(), "leases are not kept over a restart: there is no flash for them")
	for name, c := range map[string]server.Change{
		"of no pool":           bound("10.0.0.1", 1, ""),
		"for longer than ever": {Address: netip.MustParseAddr("192.168.0.12"), Status: server.Bound, Left: 1000 * 24 * time.Hour},
		"a name for a screen":  bound("192.168.0.12", 1, "\x1b[2J"),
	} {
		assert.ErrorContains(t, d.take([]server.Change{c, bound("192.168.0.10", 10, "laptop")}), "cannot be", name)
	}
	all, err := d.list()
	require.NoError(t, err)
	require.Len(t, all, 2)
	assert.Equal(t, "laptop", all[0].HostName)
	require.NoError(t, d.take([]server.Change{{Address: netip.MustParseAddr("192.168.0.10")}}))
	assert.Contains(t, d.said(), "home deassigned 192.168.0.10 from 02:00:00:00:00:0A")
	for i := range byte(90) {
		require.NoError(t, d.take([]server.Change{bound("192.168.0."+netip.AddrFrom4([4]byte{0, 0, 0, 10 + i}).String()[6:], i, "")}))
	}
	assert.Less(t, strings.Count(d.said(), " assigned "), leaseBurst+1, "a flood does not fill the log")
}

// An interface that is not there yet, or is made anew, is followed; a server on a bridge's port is on
// the bridge.
func TestDHCPServiceLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTestDHCP(t, &stateStore{})
		require.NoError(t, d.Apply(dhcpConfig(t)))
		assert.Equal(t, []int{1}, d.invalid(), "the bridge is missing")
		assert.Equal(t, 1, d.opened())
		d.make("lan", 7)
		time.Sleep(linkLook + time.Second)
		synctest.Wait()
		assert.Empty(t, d.invalid())
		assert.Equal(t, 2, d.opened())
		d.make("lan", 8)
		time.Sleep(linkLook + time.Second)
		synctest.Wait()
		assert.Equal(t, 3, d.opened(), "it is another one of the same name")
		require.NoError(t, d.Apply(dhcpConfig(t)))
		assert.Equal(t, 3, d.opened(), "nothing has changed")
	})
}

// A lease ends, whether or not there is a process to say so.
func TestDHCPServiceForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTestDHCP(t, &stateStore{})
		require.NoError(t, d.Apply(dhcpConfig(t)))
		require.NoError(t, d.take([]server.Change{bound("192.168.0.10", 10, "laptop")}))
		assert.False(t, d.hostNames("postern")["laptop"].Ending)
		time.Sleep(30*time.Minute - time.Second)
		assert.Equal(t, dns.Host{Address: netip.MustParseAddr("192.168.0.10"), Ending: true}, d.hostNames("postern")["laptop"], "whom nobody shall remember")
		assert.NotContains(t, d.said(), "deassigned")
		time.Sleep(2*linkLook + 2*time.Second)
		synctest.Wait()
		assert.Contains(t, d.said(), "home deassigned 192.168.0.10 from 02:00:00:00:00:0A\n")
		d.mu.Lock()
		assert.Empty(t, d.leases, "nothing of it is left")
		assert.True(t, d.unkept)
		d.mu.Unlock()
		require.NoError(t, d.take([]server.Change{{Address: netip.MustParseAddr("192.168.0.10")}}), "late")
		assert.Equal(t, 1, strings.Count(d.said(), "deassigned"))
	})
}

// pair opens a pair of connected sockets in the place of one for an interface, and returns its ends.
func pair(t *testing.T) (near, far *os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	near, far = os.NewFile(uintptr(p[0]), "near"), os.NewFile(uintptr(p[1]), "far")
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// cabled is a service with a process, and the far end of its socket for UDP.
func cabled(t *testing.T) (d *dhcpService, far *os.File, arps *atomic.Int32, said func() string) {
	t.Helper()
	log, said := testLog(t)
	d = newDHCPService(realSupervisor(t, log, said), log, &stateStore{}, func() {})
	t.Cleanup(d.Stop)
	near, far := pair(t)
	arps = &atomic.Int32{}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.find = func(name string) (int, ether.MAC, bool) { return 2, ether.MAC{2, 0, 0, 0, 0, 1}, name == "ether2" }
	d.open = func(string, int) ([]*os.File, error) { return []*os.File{near}, nil }
	d.openARP = func(int) (*os.File, error) {
		arps.Add(1)
		near, _ := pair(t)
		return near, nil
	}
	return d, far, arps, said
}

// A message starts the process. It ends when nobody sends one any more, and the next message starts
// another.
func TestDHCPServerSleeps(t *testing.T) {
	t.Parallel()
	d, far, arps, said := cabled(t)
	require.NoError(t, d.Apply(dhcpConfig(t)))
	await := func(s service.State) {
		t.Helper()
		require.Eventually(t, func() bool { return d.process.Status().State == s }, 5*time.Minute, 10*time.Millisecond, "%v: %s", s, said())
	}
	require.NoError(t, d.Taken(t.Context()))
	for i := range 2 {
		await(service.Sleeping)
		assert.EqualValues(t, i, arps.Load(), "while it sleeps nothing comes in by ARP")
		_, err := far.Write(make([]byte, 300)) // no DHCP message, which only the process can tell
		require.NoError(t, err)
		await(service.Running)
	}
	assert.Zero(t, d.process.Status().Restarts)
	assert.NoError(t, d.process.Status().Err)
}

// The message that starts the process is answered, which used to be lost. Whoever has an address is shown with it at
// once: the process used to say so up to 200 ms later.
func TestLeaseShownAtOnce(t *testing.T) {
	t.Parallel()
	d, far, _, said := cabled(t)
	require.NoError(t, d.Apply(dhcpConfig(t)))
	conn, err := ether.NewConn(far)
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Minute)))
	ask := func(host byte, change func(*dhcp.Message)) *dhcp.Message {
		m := dhcp.Message{Op: dhcp.BootRequest, XID: uint32(host), HardwareType: 1, Hardware: net.HardwareAddr{2, 0, 0, 0, 1, host}}
		change(&m)
		payload, err := m.Marshal(dhcp.MaxMessage)
		require.NoError(t, err)
		require.NoError(t, conn.Write(dhcp.Packet{FromMAC: ether.MAC(m.Hardware), ToMAC: ether.Broadcast, From: netip.MustParseAddrPort("0.0.0.0:68"),
			To: netip.MustParseAddrPort("255.255.255.255:67"), Payload: payload}.Append(nil)))
		frame := make([]byte, ether.MaxFrame)
		n, ready, err := conn.Read(frame)
		require.NoError(t, err, said())
		p, err := dhcp.ParsePacket(frame[:n], ready)
		require.NoError(t, err)
		reply, err := dhcp.Parse(p.Payload)
		require.NoError(t, err)
		return reply
	}
	for host := range byte(5) {
		offer := ask(host, func(m *dhcp.Message) { m.Options.SetByte(dhcp.OptionType, byte(dhcp.Discover)) })
		require.Equal(t, dhcp.Offer, offer.Options.Type())
		lease := ask(host, func(m *dhcp.Message) {
			m.Options.SetByte(dhcp.OptionType, byte(dhcp.Request))
			m.Options.SetAddrs(dhcp.OptionRequested, offer.Your)
			m.Options.SetAddrs(dhcp.OptionServerID, offer.Options.Addr(dhcp.OptionServerID))
		})
		require.Equal(t, dhcp.ACK, lease.Options.Type())
		all, err := d.list()
		require.NoError(t, err)
		i := slices.IndexFunc(all, func(l console.LeaseState) bool { return l.Address == lease.Your })
		require.GreaterOrEqual(t, i, 0)
		assert.Equal(t, server.Bound, all[i].Status)
	}
}

func TestHostNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTestDHCP(t, &stateStore{})
		require.NoError(t, d.Apply(dhcpConfig(t)))
		require.NoError(t, d.take([]server.Change{bound("192.168.0.10", 10, "Laptop")}))
		time.Sleep(time.Second)
		require.NoError(t, d.take([]server.Change{
			bound("192.168.0.11", 11, "laptop"), bound("192.168.0.12", 12, "postern"), bound("192.168.0.13", 13, "a b"), bound("192.168.0.14", 14, "-x"),
			bound("192.168.0.15", 15, "localhost"), bound("192.168.0.16", 16, "printer"), bound("192.168.0.17", 17, "10.0.0.1"), bound("192.168.0.18", 18, "a.example"),
			bound("192.168.0.19", 19, "WPAD"), bound("192.168.0.20", 20, "isatap"),
		}))
		assert.Equal(t, map[string]dns.Host{"laptop": {Address: netip.MustParseAddr("192.168.0.10")}, "printer": {Address: netip.MustParseAddr("192.168.0.16")}}, d.hostNames("Postern"))
		require.NoError(t, d.take([]server.Change{bound("192.168.0.10", 10, "Laptop")}))
		assert.Equal(t, "192.168.0.10", d.hostNames("Postern")["laptop"].Address.String(), "a renewal does not give the name away")
		time.Sleep(31 * time.Minute)
		assert.Empty(t, d.hostNames("Postern"), "the leases have ended")
	})
}

// Of two hosts with one name the first keeps it, also over restarts.
func TestHostNamesKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flash := &memory{values: map[string]string{}}
		d := newTestDHCP(t, flash)
		require.NoError(t, d.Apply(dhcpConfig(t)))
		// The first has the highest address.
		for i := range 20 {
			require.NoError(t, d.take([]server.Change{bound(fmt.Sprint("192.168.0.", 40-i), byte(40-i), "laptop")}))
			time.Sleep(time.Second)
		}
		first := map[string]dns.Host{"laptop": {Address: netip.MustParseAddr("192.168.0.40")}}
		require.Equal(t, first, d.hostNames("postern"))
		for range 3 {
			for name, value := range d.last() {
				require.NoError(t, flash.put(map[string]string{name: value}))
			}
			d = newTestDHCP(t, flash)
			require.NoError(t, d.Apply(dhcpConfig(t)))
			for range 20 {
				require.Equal(t, first, d.hostNames("postern"))
			}
			require.NoError(t, d.take([]server.Change{bound("192.168.0.10", 10, "laptop"), bound("192.168.0.40", 40, "laptop")}))
			require.Equal(t, first, d.hostNames("postern"))
		}
	})
}

// memory keeps values, and counts how often.
type memory struct {
	mu     sync.Mutex
	values map[string]string
	writes int
	err    error // of a write
}

func (*memory) kept() bool { return true }

func (*memory) room() int { return maxNote }

func (m *memory) get(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[name]
}

func (m *memory) put(change map[string]string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	if m.err != nil {
		return m.err
	}
	for name, value := range change {
		m.values[name] = value
	}
	return nil
}

// Leases come back after a restart, and renewals wear nothing out.
func TestKeptLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flash := &memory{values: map[string]string{}}
		d := newTestDHCP(t, flash)
		require.NoError(t, d.Apply(dhcpConfig(t)))
		require.NoError(t, d.take([]server.Change{bound("192.168.0.10", 10, "laptop")}))
		time.Sleep(2 * linkLook)
		synctest.Wait()
		require.Equal(t, 1, flash.writes)
		for range 50 {
			require.NoError(t, d.take([]server.Change{bound("192.168.0.10", 10, "laptop")}))
			time.Sleep(time.Minute)
		}
		assert.Equal(t, 1, flash.writes, "renewals")
		for i := range byte(50) {
			require.NoError(t, d.take([]server.Change{bound("192.168.0.11", i, "")}))
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		assert.LessOrEqual(t, flash.writes, 12, "at most one in 5 minutes")
		require.NoError(t, d.take([]server.Change{bound("192.168.0.10", 10, "laptop"), bound("192.168.0.12", 12, "late")}))
		for name, value := range d.last() {
			flash.values[name] = value
		}

		again := newTestDHCP(t, flash)
		require.NoError(t, again.Apply(dhcpConfig(t)))
		var shown []string
		for _, b := range again.bindings() {
			assert.Equal(t, server.Bound, b.Status)
			assert.Equal(t, 30*time.Minute, b.Left, "the whole time: no lease is over before its client knows")
			shown = append(shown, b.Address.String()+" "+b.HostName)
		}
		assert.ElementsMatch(t, []string{"192.168.0.10 laptop", "192.168.0.11 ", "192.168.0.12 late"}, shown)
	})
}

// Leases that could not be written are written when that can be, and else at an orderly end.
func TestLeasesWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flash := &memory{values: map[string]string{}, err: errors.New("no room")}
		d := newTestDHCP(t, flash)
		require.NoError(t, d.Apply(dhcpConfig(t)))
		require.NoError(t, d.take([]server.Change{bound("192.168.0.10", 10, "laptop")}))
		time.Sleep(2 * linkLook)
		synctest.Wait()
		require.Equal(t, 1, flash.writes)
		assert.Contains(t, d.said(), "leases are not kept: no room")
		assert.NotEmpty(t, d.last()[stateLeases])

		time.Sleep(leaseInterval - 3*linkLook)
		synctest.Wait()
		require.Equal(t, 1, flash.writes, "no more often than others")
		flash.mu.Lock()
		flash.err = nil
		flash.mu.Unlock()
		time.Sleep(4 * linkLook)
		synctest.Wait()
		assert.Equal(t, 2, flash.writes)
		assert.Contains(t, flash.get(stateLeases), "192.168.0.10,")
		assert.Empty(t, d.last())
	})
}

// As many leases as there can be do not keep the rest of the state from being kept.
func TestTooManyLeases(t *testing.T) {
	d := newTestDHCP(t, &stateStore{})
	for i := range server.MaxLeases {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		d.leases[a] = &lease{Binding: server.Binding{Address: a, Status: server.Bound, ClientID: strings.Repeat("x", server.MaxClientID), Server: "home"}, until: time.Now().Add(time.Hour), granted: time.Hour}
	}
	d.unkept = true
	text := d.leaseText()
	assert.LessOrEqual(t, len(text), maxStateValue)
	assert.Greater(t, len(text), maxStateValue/2)
	k := &stateStore{log: d.log, values: map[string]string{}}
	require.NoError(t, k.open(filepath.Join(t.TempDir(), "state")))
	defer k.close()
	require.NoError(t, k.put(map[string]string{stateLeases: text, stateTime: "1"}))
}

func FuzzParseLease(f *testing.F) {
	f.Add(formatLease(server.Binding(bound("192.168.0.10", 10, "laptop")), 30*time.Minute))
	f.Add("192.168.0.10,02,,,1,")
	f.Fuzz(func(t *testing.T, text string) {
		b, ok := parseLease(text)
		if !ok {
			return
		}
		again, ok := parseLease(formatLease(b, b.Left))
		assert.True(t, ok)
		assert.Equal(t, b, again)
	})
}

// The ARP table has an entry for each lease of a server with add-arp, on its interface, and for no other.
func TestAddARP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTestDHCP(t, &stateStore{})
		var mu sync.Mutex
		var has []string
		d.setLayer = func(source string, l Layer) error {
			mu.Lock()
			defer mu.Unlock()
			has = []string{source}
			for _, n := range l.Neighbors {
				has = append(has, fmt.Sprint(n.Address, " ", n.MAC, " ", n.Interface))
			}
			return nil
		}
		now := func() []string {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return has
		}
		cfg := dhcpConfig(t)
		require.NoError(t, d.Apply(cfg))
		require.NoError(t, d.take([]server.Change{bound("192.168.0.11", 11, ""), bound("192.168.0.10", 10, "laptop")}))
		assert.Empty(t, now(), "no server adds any")
		cfg = cfg.Clone()
		cfg.DHCPServer.Servers[0].AddARP = true
		require.NoError(t, d.Apply(cfg))
		assert.Equal(t, []string{"dhcp-server arp", "192.168.0.10 02:00:00:00:00:0a ether2", "192.168.0.11 02:00:00:00:00:0b ether2"}, now())
		require.NoError(t, d.take([]server.Change{{Address: netip.MustParseAddr("192.168.0.10")}}))
		assert.Equal(t, []string{"dhcp-server arp", "192.168.0.11 02:00:00:00:00:0b ether2"}, now())
		time.Sleep(31 * time.Minute)
		assert.Equal(t, []string{"dhcp-server arp"}, now(), "the lease has ended")

		// Of too many leases the highest have none, and the log says so once, until they fit again.
		cfg = cfg.Clone()
		pool := &cfg.DHCPServer.Pools[0]
		ranges, err := match.ParseAddresses("192.168.0.10-192.168.7.99")
		require.NoError(t, err)
		pool.Ranges = []match.Addresses{ranges}
		require.NoError(t, d.Apply(cfg))
		last := netip.MustParseAddr("192.168.0.9")
		more := func(n int) {
			var all []server.Change
			for range n {
				last = last.Next()
				b := bound(last.String(), 1, "")
				b.MAC[4], b.MAC[5] = last.As4()[2], last.As4()[3]
				all = append(all, b)
			}
			require.NoError(t, d.take(all))
		}
		warned := func() int {
			return strings.Count(d.said(), "add-arp: expected at most 512 leases, got 513: the highest addresses have no entry")
		}
		more(512)
		assert.Len(t, now(), 513)
		assert.Zero(t, warned())
		more(1)
		assert.Len(t, now(), 513)
		assert.Equal(t, 1, warned())
		more(1)
		assert.NotContains(t, strings.Join(now(), "\n"), last.String()+" ")
		assert.Equal(t, 1, strings.Count(d.said(), "have no entry"))
		require.NoError(t, d.take([]server.Change{{Address: last}, {Address: last.Prev()}}))
		now()
		last = last.Prev().Prev()
		more(1)
		now()
		assert.Equal(t, 2, warned(), "anew")
	})
}
