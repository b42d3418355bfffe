package router

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/dhcp/client"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/service"
)

// testClients are clients whose layers the test has.
type testClients struct {
	*dhcpClients
	said func() string
	lock sync.Mutex
	// layers are those of now, and changes how often one was set.
	layers  map[string]Layer
	changes int
}

// newTestClients makes clients that have no process, unless supervise makes a supervisor that starts one.
func newTestClients(t *testing.T, keeper valueStore, supervise func(*kmsg.Logger, func() string) *service.Supervisor) *testClients {
	log, said := testLog(t)
	supervisor := newSupervisor(log)
	if supervise != nil {
		supervisor = supervise(log, said)
	} else {
		supervisor.Program = "/no-program"
		t.Cleanup(supervisor.Stop)
	}
	d := &testClients{dhcpClients: newDHCPClients(supervisor, log, keeper), said: said, layers: map[string]Layer{}}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.find = func(name string) (int, ether.MAC, bool) { return 1, ether.MAC{2, 0, 0, 0, 0, 1}, true }
	d.open = func(string, int) ([]*os.File, error) {
		f, err := os.Open(os.DevNull)
		return []*os.File{f, f}, err
	}
	d.park = func(string) (*os.File, error) { return os.Open(os.DevNull) }
	d.setLayer = func(source string, l Layer) error {
		d.lock.Lock()
		defer d.lock.Unlock()
		d.layers[source] = l
		d.changes++
		return nil
	}
	t.Cleanup(d.Stop)
	return d
}

// await waits for the layer of an interface in short: addresses, routes, name servers.
func (d *testClients) await(t *testing.T, name, want string) {
	t.Helper()
	got := ""
	require.Eventually(t, func() bool {
		d.lock.Lock()
		defer d.lock.Unlock()
		got = inShort(d.layers["dhcp-client "+name])
		return got == want
	}, 30*time.Second, time.Millisecond, "expected %q", want)
}

func inShort(l Layer) string {
	var all []string
	for _, a := range l.Addresses {
		all = append(all, a.Address.String())
	}
	for _, r := range l.Routes {
		gateway := r.Gateway.String()
		if r.Interface != "" {
			gateway += "%" + r.Interface
		}
		all = append(all, fmt.Sprintf("%s by %s at %d", r.Destination, gateway, r.Distance))
	}
	for _, s := range l.NameServers {
		all = append(all, "dns "+s.String())
	}
	for _, s := range l.TimeServers {
		all = append(all, "ntp "+s)
	}
	return strings.Join(all, ", ")
}

func clientConfig(t *testing.T, line string) console.Config {
	cfg, err := console.Load("client", strings.NewReader("/ip address add address=192.168.0.1/24 interface=ether2\n"+line+"\n"))
	require.NoError(t, err)
	return cfg
}

func testLease(change ...func(*client.Lease)) *client.Lease {
	at := netip.MustParseAddr
	l := &client.Lease{Address: netip.MustParsePrefix("192.0.2.10/24"), Server: at("192.0.2.1"), Gateway: at("192.0.2.1"),
		NameServers: []netip.Addr{at("9.9.9.9")}, TimeServers: []netip.Addr{at("192.0.2.3")}, Expires: time.Now().Add(time.Hour)}
	for _, f := range change {
		f(l)
	}
	return l
}

// A lease that is in the way of what the user sets later is given up, which the log says once, and the
// console as long as it is so.
func TestDHCPClientGivesWay(t *testing.T) {
	d := newTestClients(t, &memory{values: map[string]string{}}, nil)
	const bound = "192.0.2.10/24, 0.0.0.0/0 by 192.0.2.1 at 1, dns 9.9.9.9, ntp 192.0.2.3"
	cfg := clientConfig(t, "/ip dhcp-client add interface=ether1")
	require.NoError(t, d.Apply(cfg))
	require.NoError(t, d.take(client.Report{Interface: "ether1", Status: client.Bound, Lease: testLease()}))
	d.await(t, "ether1", bound)
	require.NoError(t, d.Apply(clientConfig(t, "/ip address add address=192.0.2.1/16 interface=ether3\n/ip dhcp-client add interface=ether1")))
	d.await(t, "ether1", "")
	for range 3 { // looks, whatever wakes it
		d.news.send()
		require.Eventually(t, func() bool { return len(d.news) == 0 }, 30*time.Second, time.Millisecond)
		states, err := d.states()
		require.NoError(t, err)
		assert.Equal(t, "error", states[0].Status)
	}
	require.NoError(t, d.Apply(cfg))
	d.await(t, "ether1", bound)
	assert.Equal(t, 1, strings.Count(d.said(), "the lease is not used"), "%s", d.said())
}

// A server whose leases are refused one after another does not fill the log with errors.
func TestDHCPClientLogsFewErrors(t *testing.T) {
	d := newTestClients(t, &memory{values: map[string]string{}}, nil)
	require.NoError(t, d.Apply(clientConfig(t, "/ip dhcp-client add interface=ether1")))
	for i := range 100 {
		overlaps := testLease(func(l *client.Lease) { l.Address = netip.MustParsePrefix(fmt.Sprintf("192.168.0.%d/16", 10+i)) })
		require.NoError(t, d.take(client.Report{Interface: "ether1", Status: client.Bound, Lease: overlaps}))
		require.Eventually(t, func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return strings.HasPrefix(d.links["ether1"].refused, overlaps.Address.String())
		}, 30*time.Second, time.Millisecond)
	}
	said := d.said()
	assert.Contains(t, said, "error DHCP client on ether1: the lease is not used: 192.168.0.10/16 overlaps")
	assert.LessOrEqual(t, strings.Count(said, "\n"), 2*leaseBurst)
}

func TestDHCPClientLayer(t *testing.T) {
	route := func(to, by string) dhcp.Route {
		return dhcp.Route{Destination: netip.MustParsePrefix(to), Gateway: netip.MustParseAddr(by)}
	}
	classless := func(routes ...dhcp.Route) func(*client.Lease) {
		return func(l *client.Lease) { l.HasRoutes, l.Routes = true, routes }
	}
	for _, c := range []struct {
		name, words string
		change      func(*client.Lease)
		want        string
	}{
		{"all of it", "", func(*client.Lease) {}, "192.0.2.10/24, 0.0.0.0/0 by 192.0.2.1 at 1, dns 9.9.9.9, ntp 192.0.2.3"},
		{"nothing but the address", "add-default-route=no use-peer-dns=no use-peer-ntp=no", func(*client.Lease) {}, "192.0.2.10/24"},
		{"a distance", "default-route-distance=5 use-peer-dns=no use-peer-ntp=no", func(*client.Lease) {}, "192.0.2.10/24, 0.0.0.0/0 by 192.0.2.1 at 5"},
		{"option 121 counts", "use-peer-dns=no use-peer-ntp=no", classless(route("10.0.0.0/8", "192.0.2.2")), "192.0.2.10/24, 10.0.0.0/8 by 192.0.2.2 at 1"},
		{"and so does option 3", "add-default-route=special-classless use-peer-dns=no use-peer-ntp=no", classless(route("10.0.0.0/8", "192.0.2.2")),
			"192.0.2.10/24, 10.0.0.0/8 by 192.0.2.2 at 1, 0.0.0.0/0 by 192.0.2.1 at 1"},
		{"a default route in option 121", "use-peer-dns=no use-peer-ntp=no", classless(route("0.0.0.0/0", "192.0.2.9"), route("0.0.0.0/0", "192.0.2.8")),
			"192.0.2.10/24, 0.0.0.0/0 by 192.0.2.9 at 1"},
		{"none is wanted", "add-default-route=no use-peer-dns=no use-peer-ntp=no", classless(route("0.0.0.0/0", "192.0.2.9")), "192.0.2.10/24"},
		{"routes into the LAN", "use-peer-dns=no use-peer-ntp=no", classless(route("192.168.0.50/32", "192.0.2.9"), route("192.168.0.0/24", "192.0.2.9"), route("192.168.0.0/16", "192.0.2.9")),
			"192.0.2.10/24, 192.168.0.0/16 by 192.0.2.9 at 1"},
		{"a /32", "use-peer-dns=no use-peer-ntp=no", func(l *client.Lease) {
			l.Address, l.Gateway = netip.MustParsePrefix("192.0.2.10/32"), netip.MustParseAddr("10.9.0.1")
		}, "192.0.2.10/32, 0.0.0.0/0 by 10.9.0.1%ether1 at 1"},
		{"a gateway in the LAN", "use-peer-dns=no use-peer-ntp=no", func(l *client.Lease) { l.Gateway = netip.MustParseAddr("192.168.0.5") }, "192.0.2.10/24"},
		{"a route by the LAN", "use-peer-dns=no use-peer-ntp=no", classless(route("10.0.0.0/8", "192.168.0.5")), "192.0.2.10/24"},
		{"a route that takes the link away", "use-peer-dns=no use-peer-ntp=no", classless(route("192.0.2.0/25", "192.0.2.9")), "192.0.2.10/24"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newTestClients(t, &memory{values: map[string]string{}}, nil)
			require.NoError(t, d.Apply(clientConfig(t, "/ip dhcp-client add interface=ether1 "+c.words)))
			require.NoError(t, d.take(client.Report{Interface: "ether1", Status: client.Bound, Lease: testLease(c.change)}))
			d.await(t, "ether1", c.want)
		})
	}
}

func TestDHCPClientLease(t *testing.T) {
	const all = "192.0.2.10/24, 0.0.0.0/0 by 192.0.2.1 at 1, dns 9.9.9.9, ntp 192.0.2.3"
	keeper := &memory{values: map[string]string{}}
	d := newTestClients(t, keeper, nil)
	require.NoError(t, d.Apply(clientConfig(t, "/ip dhcp-client add interface=ether1")))
	report := func(s client.Status, l *client.Lease, keep bool) {
		t.Helper()
		require.NoError(t, d.take(client.Report{Interface: "ether1", Status: s, Lease: l, Keep: keep}))
	}
	status := func() string {
		states, err := d.states()
		require.NoError(t, err)
		return states[0].Status + " " + states[0].Address.String()
	}
	report(client.Bound, testLease(), false)
	d.await(t, "ether1", all)
	// The router has the address: it is no other network in the way of the gateway.
	require.NoError(t, d.Apply(clientConfig(t, "/ip address add address=192.0.2.10/24 interface=ether1\n/ip dhcp-client add interface=ether1")))
	assert.Equal(t, "bound 192.0.2.10/24", status())
	assert.Contains(t, d.said(), "DHCP client on ether1 got address 192.0.2.10/24 from 192.0.2.1")

	// A renewal of the same changes nothing; nor does a process that starts anew.
	report(client.Renewing, testLease(), false)
	report(client.Bound, testLease(func(l *client.Lease) { l.Expires = l.Expires.Add(time.Hour) }), false)
	report(client.Requesting, nil, true)
	assert.Equal(t, "requesting... 192.0.2.10/24", status())
	report(client.Bound, testLease(), false)
	// What overlaps another network is not taken.
	report(client.Bound, testLease(func(l *client.Lease) { l.Address = netip.MustParsePrefix("192.168.0.77/16") }), false)
	d.await(t, "ether1", "")
	require.Eventually(t, func() bool { return status() == "error 192.168.0.77/16" }, 30*time.Second, time.Millisecond)
	assert.Contains(t, d.said(), "the lease is not used: 192.168.0.77/16 overlaps the network of 192.168.0.1/24 on ether2")
	d.lock.Lock()
	assert.Equal(t, 2, d.changes, "the lease, and its end")
	d.lock.Unlock()
	report(client.Bound, testLease(), false)
	d.await(t, "ether1", all)
	// The next start asks for the same address.
	require.Eventually(t, func() bool { return keeper.get(stateClient+"ether1") == "192.0.2.10" }, 30*time.Second, time.Millisecond)

	// Flash is written at most once an hour.
	report(client.Bound, testLease(func(l *client.Lease) { l.Address = netip.MustParsePrefix("192.0.2.11/24") }), false)
	d.await(t, "ether1", strings.Replace(all, ".10/", ".11/", 1))
	report(client.Bound, testLease(), false)
	d.await(t, "ether1", all)
	keeper.mu.Lock()
	assert.Equal(t, 1, keeper.writes)
	keeper.mu.Unlock()

	// It is over when its time is over, whatever a process says or does not say.
	report(client.Renewing, testLease(func(l *client.Lease) { l.Expires = time.Now().Add(20 * time.Millisecond) }), false)
	d.await(t, "ether1", "")
	require.Eventually(t, func() bool { return strings.Contains(d.said(), "lost address 192.0.2.10/24: the lease has ended") }, 30*time.Second, time.Millisecond)
	report(client.Bound, testLease(), false)
	d.await(t, "ether1", all)
	report(client.Searching, nil, false)
	d.await(t, "ether1", "")

	// A client that is disabled has no lease, and one on a port of a bridge none either.
	report(client.Bound, testLease(), false)
	d.await(t, "ether1", all)
	require.NoError(t, d.Apply(clientConfig(t, "/ip dhcp-client add interface=ether1 disabled=yes")))
	d.await(t, "ether1", "")
	require.NoError(t, d.Apply(clientConfig(t, "/interface bridge add name=b\n/interface bridge port add bridge=b interface=ether1\n/ip dhcp-client add interface=ether1")))
	states, err := d.states()
	require.NoError(t, err)
	assert.True(t, states[0].Slave)
	require.NoError(t, d.take(client.Report{Interface: "ether1", Status: client.Bound, Lease: testLease()}), "a client that was ended meanwhile")
	assert.Equal(t, "stopped invalid Prefix", status())
}

// newProvidedClients makes clients with the process that is shipped, on a host whose ether1 leads to a
// server that people use. It returns the server's host and what the server says, too.
func newProvidedClients(t *testing.T, leaseTime string, words ...string) (d *testClients, home *testnet.Host, p provided) {
	provider, home := testnet.New(t, "provider"), testnet.New(t, "home")
	require.NoError(t, testnet.Link(provider, "eth0", home, "ether1"))
	require.NoError(t, provider.IP("addr add 192.0.2.1/24 dev eth0"))
	server := provider.Command("dnsmasq", append([]string{"--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root", "--interface=eth0",
		"--dhcp-range=192.0.2.10,192.0.2.20," + leaseTime, "--dhcp-authoritative", "--no-ping", "--dhcp-option=option:dns-server,9.9.9.9", "--log-dhcp", "--log-facility=-",
		"--pid-file=", "--dhcp-leasefile=" + t.TempDir() + "/leases"}, words...)...)
	output, err := os.Create(filepath.Join(t.TempDir(), "server.log"))
	require.NoError(t, err)
	server.Stdout, server.Stderr = output, output
	require.NoError(t, server.Start())
	said := func() string {
		text, err := os.ReadFile(output.Name())
		require.NoError(t, err)
		return string(text)
	}
	t.Cleanup(func() {
		assert.NoError(t, server.Process.Kill())
		_ = server.Wait() // killed
		output.Close()
		if t.Failed() {
			t.Logf("the server:\n%s", said())
		}
	})
	d = newTestClients(t, &memory{values: map[string]string{}}, func(log *kmsg.Logger, said func() string) *service.Supervisor { return realSupervisor(t, log, said) })
	d.mu.Lock()
	defer d.mu.Unlock()
	d.find = func(name string) (index int, mac ether.MAC, ok bool) {
		_ = home.Do(func() error { index, mac, ok = findLink(name); return nil }) // it always succeeds
		return index, mac, ok
	}
	d.open = func(name string, index int) (files []*os.File, err error) {
		err = home.Do(func() error { files, err = openClient(name, index); return err })
		return files, err
	}
	d.park = func(name string) (f *os.File, err error) {
		err = home.Do(func() error { f, err = parkClient(name); return err })
		return f, err
	}
	return d, home, provided{provider, said}
}

// provided is the server of newProvidedClients.
type provided struct {
	host *testnet.Host
	said func() string
}

// bound is the address of the first client, "" if it is not bound.
func (d *testClients) bound(t *testing.T) string {
	states, err := d.states()
	require.NoError(t, err)
	if states[0].Status != string(client.Bound) {
		return ""
	}
	return states[0].Address.String()
}

// The process that is shipped, and a server that people use.
func TestDHCPClientProcess(t *testing.T) {
	e2e.Needs(t, "dnsmasq")
	d, home, _ := newProvidedClients(t, "1h")
	require.NoError(t, d.Apply(clientConfig(t, "/system identity set name=home\n/ip dhcp-client add interface=ether1")))
	address := func() string { return d.bound(t) }
	require.Eventually(t, func() bool { return address() != "" }, 30*time.Second, time.Millisecond)
	first := address()
	d.await(t, "ether1", first+", 0.0.0.0/0 by 192.0.2.1 at 1, dns 9.9.9.9")

	// The process is replaced: the lease lives on, and is asked for again.
	parent := d.process.Parent()
	require.NotNil(t, parent)
	require.NoError(t, home.IP("addr add "+first+" dev ether1"))
	require.NoError(t, d.release([]string{"ether1"}))
	require.Eventually(t, func() bool { return strings.Count(d.said(), "got address") == 2 }, 30*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return address() != "" }, 30*time.Second, time.Millisecond)
	d.linkUp("ether1")
	require.NoError(t, d.renew([]string{"ether1"}))

	// Without a client there is no process either.
	require.NoError(t, d.Apply(clientConfig(t, "")))
	d.await(t, "ether1", "")
	require.Eventually(t, func() bool { return d.process.Status().State == service.Off }, 30*time.Second, time.Millisecond)
	assert.False(t, slices.ContainsFunc(strings.Split(d.said(), "\n"), func(l string) bool { return strings.Contains(l, "error") }))
}

// A server that gives ever new addresses does not fill the log.
func TestDHCPClientLogIsBounded(t *testing.T) {
	d := newTestClients(t, &memory{values: map[string]string{}}, nil)
	require.NoError(t, d.Apply(clientConfig(t, "/ip dhcp-client add interface=ether1")))
	for i := range byte(100) {
		require.NoError(t, d.take(client.Report{Interface: "ether1", Status: client.Bound, Lease: testLease(func(l *client.Lease) {
			l.Address = netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, 10 + i}), 24)
		})}))
	}
	// More pass on a host that takes ten seconds for it.
	assert.Less(t, strings.Count(d.said(), " got address "), 100/2)
}

// What the process may sleep through, and what ends its sleep.
func TestDHCPClientSchedule(t *testing.T) {
	const rest = 24 * time.Hour // the clients' own loop does not get there
	for _, c := range []struct {
		name   string
		change func(d *dhcpClients, l *clientLink)
		asleep bool
	}{
		{"nothing is due", func(*dhcpClients, *clientLink) {}, true},
		{"for ever", func(_ *dhcpClients, l *clientLink) { l.lease.Renew = l.lease.Renew.AddDate(68, 0, 0) }, true},
		{"the renewal is near", func(_ *dhcpClients, l *clientLink) {
			l.lease.Renew = l.reported.Add(rest + leastSleep - time.Nanosecond)
		}, false},
		{"it has just reported", func(_ *dhcpClients, l *clientLink) { l.reported = l.reported.Add(time.Nanosecond) }, false},
		{"it renews", func(_ *dhcpClients, l *clientLink) { l.status = client.Renewing }, false},
		{"the lease is refused elsewhere", func(_ *dhcpClients, l *clientLink) { l.refused = "overlaps" }, true},
		{"the lease has ended", func(_ *dhcpClients, l *clientLink) { l.lease = nil }, false},
		{"it was told something that it has not taken", func(_ *dhcpClients, l *clientLink) { l.asked++ }, false},
		{"the process has ended", func(d *dhcpClients, l *clientLink) { l.reported = time.Time{} }, false},
		{"it has not started yet", func(_ *dhcpClients, l *clientLink) { l.resume = l.lease }, false},
		{"a change is on its way", func(d *dhcpClients, _ *clientLink) { d.taken = nil }, false},
		{"the only client was removed", func(d *dhcpClients, l *clientLink) { delete(d.links, "ether1"); l.close() }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newTestClients(t, &memory{values: map[string]string{}}, nil)
			d.mu.Lock()
			d.restTime = rest
			d.mu.Unlock()
			require.NoError(t, d.Apply(clientConfig(t, "/ip dhcp-client add interface=ether1")))
			lease := testLease(func(l *client.Lease) {
				l.Since, l.Renew, l.Rebind, l.Expires = time.Now(), time.Now().Add(30*24*time.Hour), time.Now().Add(40*24*time.Hour), time.Now().Add(50*24*time.Hour)
			})
			require.NoError(t, d.take(client.Report{Interface: "ether1", Status: client.Bound, Lease: lease}))
			require.Eventually(t, func() bool {
				d.mu.Lock()
				defer d.mu.Unlock()
				return d.taken == d.change
			}, 30*time.Second, time.Millisecond)
			d.mu.Lock()
			defer d.mu.Unlock()
			l := d.links["ether1"]
			now := l.reported.Add(rest)
			c.change(d.dhcpClients, l)
			next := d.schedule(now)
			assert.Equal(t, c.asleep, d.asleep)
			assert.Positive(t, next)
			if !d.asleep || len(d.links) == 0 {
				return
			}
			assert.Nil(t, l.sockets, "what others send is not kept")
			assert.Equal(t, min(time.Hour, l.lease.Renew.Sub(now)), next)
			assert.Equal(t, time.Second, d.schedule(l.lease.Renew.Add(-time.Second)))
			assert.True(t, d.asleep)
			d.schedule(l.lease.Renew)
			assert.False(t, d.asleep, "the renewal is due")
			assert.NotNil(t, l.sockets)
			assert.Equal(t, l.lease, l.resume)
		})
	}
}

// The process that is shipped sleeps between the renewals that a server wants, and whatever is due
// wakes it. The router's address is the same all the time.
func TestDHCPClientSleeps(t *testing.T) {
	e2e.Needs(t, "dnsmasq")
	d, home, served := newProvidedClients(t, "10m", "--dhcp-option=option:T1,5", "--dhcp-option=option:T2,500")
	d.mu.Lock()
	d.restTime, d.leastSleep = 0, time.Second
	d.mu.Unlock()
	const line = "/ip dhcp-client add interface=ether1"
	require.NoError(t, d.Apply(clientConfig(t, line)))
	asleep := func() {
		t.Helper()
		require.Eventually(t, func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.asleep && d.process.Status().State == service.Off
		}, time.Minute, time.Millisecond)
	}
	// await waits until the server has said something once more than when f began.
	await := func(what string, f func()) {
		t.Helper()
		before := strings.Count(served.said(), what)
		f()
		require.Eventually(t, func() bool { return strings.Count(served.said(), what) > before }, time.Minute, 5*time.Millisecond, "%s", what)
	}
	asleep()
	address := d.bound(t)
	require.NotEmpty(t, address)
	layer := address + ", 0.0.0.0/0 by 192.0.2.1 at 1, dns 9.9.9.9"
	d.await(t, "ether1", layer)
	require.NoError(t, home.IP("addr add "+address+" dev ether1")) // the server asks for it by ARP
	ack := "DHCPACK(eth0) " + strings.TrimSuffix(address, "/24") + " "
	expires := func() time.Time {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.links["ether1"].lease.Expires
	}

	for range 2 {
		before := expires()
		await(ack, asleep) // at T1
		require.Eventually(t, func() bool { return expires().After(before) }, time.Minute, time.Millisecond)
	}
	// From here on nothing but what the test does wakes it.
	idle := func() {
		t.Helper()
		require.Eventually(t, func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.asleep {
				later := *d.links["ether1"].resume
				later.Renew = time.Now().Add(5 * time.Minute)
				d.links["ether1"].resume = &later
			}
			return d.asleep
		}, time.Minute, time.Millisecond)
	}
	for _, c := range []struct {
		name, what string
		do         func()
	}{
		{"a renewal by command", ack, func() { require.NoError(t, d.renew([]string{"ether1"})) }},
		{"a link that comes up", ack, func() { d.linkUp("ether1") }},
		{"another name", "client provides name: other", func() {
			require.NoError(t, d.Apply(clientConfig(t, "/system identity set name=other\n"+line)))
		}},
		{"a release by command", "DHCPRELEASE(eth0)", func() { require.NoError(t, d.release([]string{"ether1"})) }},
	} {
		idle()
		if c.what != "DHCPRELEASE(eth0)" {
			assert.Equal(t, address, d.bound(t), "before %s", c.name)
			d.lock.Lock()
			assert.Equal(t, 1, d.changes, "before %s", c.name)
			d.lock.Unlock()
			assert.Equal(t, 1, strings.Count(d.said(), "\n"), "nothing of it is logged: %s", d.said())
		}
		await(c.what, c.do)
	}
	assert.Zero(t, d.process.Status().Restarts)

	// A process that is killed is started again.
	idle()
	d.mu.Lock()
	d.restTime = time.Hour
	d.mu.Unlock()
	await("DHCPACK(eth0)", func() { require.NoError(t, d.renew([]string{"ether1"})) })
	await("DHCPACK(eth0)", func() { killChildren(t, "dhcpc") })
	assert.Equal(t, 1, d.process.Status().Restarts)

	// What wakes it before it has ended finds the same process.
	require.Eventually(t, func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.restTime = 0
		d.schedule(time.Now())
		d.restTime = time.Hour
		if d.asleep {
			d.start()
		}
		return d.links["ether1"].resume != nil
	}, time.Minute, time.Millisecond)
	require.Eventually(t, func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.links["ether1"].resume == nil
	}, time.Minute, time.Millisecond)
	await("DHCPACK(eth0)", func() { require.NoError(t, d.renew([]string{"ether1"})) })
	d.mu.Lock()
	d.restTime = 0
	d.mu.Unlock()

	// The lease of a client that is removed while there is no process is given back.
	idle()
	await("DHCPRELEASE(eth0)", func() { require.NoError(t, d.Apply(clientConfig(t, ""))) })
	asleep()
	d.mu.Lock()
	defer d.mu.Unlock()
	assert.Empty(t, d.leaving)
}

// A client is removed while there is no process, and the next process cannot start: a later one has no
// farewell to send on sockets that are closed.
func TestDHCPClientFarewellFails(t *testing.T) {
	d := newTestClients(t, &memory{values: map[string]string{}}, nil)
	const stays = "/ip dhcp-client add interface=ether3"
	require.NoError(t, d.Apply(clientConfig(t, "/ip dhcp-client add interface=ether1\n"+stays)))
	d.mu.Lock()
	gone := d.links["ether1"]
	for _, l := range d.links {
		l.resume = testLease(func(l *client.Lease) { l.Renew = l.Expires })
		l.lease = l.resume
	}
	d.asleep = true
	d.mu.Unlock()
	require.NoError(t, d.Apply(clientConfig(t, stays)))
	require.Eventually(t, func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.leaving) == 0
	}, 30*time.Second, time.Millisecond)
	d.mu.Lock()
	assert.Nil(t, gone.resume)
	assert.Nil(t, gone.sockets)
	d.mu.Unlock()
	assert.NoError(t, d.farewell(t.Context(), nil, leaving{"ether1", gone}), "nothing is left to send")
}

// sleepingClient is a client on ether1 whose process sleeps, with a lease that needs nothing for long.
func sleepingClient(t *testing.T) (*testClients, *clientLink) {
	t.Helper()
	d := newTestClients(t, &memory{values: map[string]string{}}, nil)
	require.NoError(t, d.Apply(clientConfig(t, "/ip dhcp-client add interface=ether1")))
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.links["ether1"]
	l.lease = testLease(func(l *client.Lease) {
		l.Since, l.Renew, l.Rebind, l.Expires = time.Now(), time.Now().Add(30*24*time.Hour), time.Now().Add(40*24*time.Hour), time.Now().Add(50*24*time.Hour)
	})
	l.status, l.resume = client.Bound, l.lease
	return d, l
}

// What a client says whose lease is given back is not of the client that is there by now.
func TestDHCPClientFarewellReports(t *testing.T) {
	d, l := sleepingClient(t)
	d.mu.Lock()
	lease := l.lease
	l.lease, l.resume, l.status = nil, nil, client.Searching
	d.farewells["ether1"] = true
	d.mu.Unlock()
	bound := client.Report{Interface: "ether1", Status: client.Bound, Lease: lease}
	require.NoError(t, d.take(bound))
	d.mu.Lock()
	assert.Nil(t, l.lease)
	assert.Equal(t, client.Searching, l.status)
	d.mu.Unlock()
	d.ended()
	require.NoError(t, d.take(bound))
	d.mu.Lock()
	defer d.mu.Unlock()
	assert.Equal(t, lease, l.lease, "from another process it is the client's")
}

// The next process goes on with what the last one has reported, although that did not live to have the client.
func TestDHCPClientResumesWhatWasReported(t *testing.T) {
	d, l := sleepingClient(t)
	renewed := *l.lease
	renewed.Renew = renewed.Renew.Add(time.Hour)
	require.NoError(t, d.take(client.Report{Interface: "ether1", Status: client.Bound, Lease: &renewed}))
	d.mu.Lock()
	assert.Equal(t, &renewed, l.resume)
	d.mu.Unlock()
	require.NoError(t, d.take(client.Report{Interface: "ether1", Status: client.Searching}))
	d.mu.Lock()
	defer d.mu.Unlock()
	assert.Nil(t, l.resume, "it was given back")
}

// A process that has refused a client is asked again, after a pause.
func TestDHCPClientIsAskedAgain(t *testing.T) {
	d, l := sleepingClient(t)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asleep, d.restTime, d.taken = false, time.Hour, d.change
	now := d.began
	assert.Equal(t, 20*time.Minute, d.schedule(now.Add(40*time.Minute)))
	before := d.change
	assert.Positive(t, d.schedule(now.Add(time.Hour)))
	assert.NotSame(t, before, d.change)
	assert.Equal(t, l.lease, l.resume)
	assert.False(t, d.asleep)
}

// An interface that vanishes wakes no process.
func TestDHCPClientSleepsOnWithoutInterface(t *testing.T) {
	d, l := sleepingClient(t)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asleep = true
	before := d.change
	d.find = func(string) (int, ether.MAC, bool) { return 0, ether.MAC{}, false }
	d.update()
	assert.Empty(t, d.links)
	assert.Same(t, before, d.change)
	assert.True(t, d.asleep)
	assert.ErrorIs(t, l.parked.Close(), os.ErrClosed)
}

// A renewal, a rebinding, the same address at a link that comes up and by a process that starts anew: not one packet of
// an open connection is lost, and the kernel is told to change nothing of the address and its routes.
func TestDHCPClientLosesNothing(t *testing.T) {
	e2e.Needs(t, "dnsmasq")
	e2e.Needs(t, "iptables-legacy")
	d, home, served := newProvidedClients(t, "10m", "--dhcp-option=option:T1,4", "--dhcp-option=option:T2,7", "--dhcp-option=option:router,192.0.2.1")
	cfg := clientConfig(t, "/ip dhcp-client add interface=ether1")
	var network *netcfg.Manager
	require.NoError(t, home.Do(func() (err error) {
		network, err = netcfg.New([]netcfg.Port{{Name: "ether1", Device: "ether1"}}, t.Logf)
		return err
	}))
	n := cfg.Network()
	n.Addresses = nil // of a port that is not there
	d.mu.Lock()
	d.restTime, d.leastSleep = 0, time.Second
	d.setLayer = func(source string, l Layer) error {
		return home.Do(func() error {
			with := n
			with.Addresses, with.Routes = l.Addresses, append(slices.Clone(n.Routes), l.Routes...)
			return network.Apply(with)
		})
	}
	d.mu.Unlock()

	monitor := home.Command("ip", "-4", "monitor", "address", "route")
	told, err := os.Create(filepath.Join(t.TempDir(), "monitor.log"))
	require.NoError(t, err)
	defer told.Close()
	monitor.Stdout, monitor.Stderr = told, told
	require.NoError(t, monitor.Start())
	defer func() {
		_ = monitor.Process.Kill() // its end is not waited for before
		_ = monitor.Wait()         // killed
	}()
	changes := func() string {
		text, err := os.ReadFile(told.Name())
		require.NoError(t, err)
		return string(text)
	}
	require.Eventually(t, func() bool {
		require.NoError(t, home.IP("route add 203.0.113.0/24 dev lo", "route del 203.0.113.0/24 dev lo"))
		return strings.Contains(changes(), "203.0.113.0/24")
	}, time.Minute, 10*time.Millisecond, "the monitor has started")
	require.NoError(t, d.Apply(cfg))
	require.Eventually(t, func() bool { return strings.Contains(changes(), "default via 192.0.2.1 dev ether1") }, time.Minute, time.Millisecond)
	address := strings.TrimSuffix(d.bound(t), "/24")
	require.NotEmpty(t, address)
	begin := changes()

	// The connection: each datagram is answered before the next is sent, and one that is lost never is.
	provider := served.host
	var echo, conn net.PacketConn
	require.NoError(t, provider.Do(func() (err error) { echo, err = net.ListenPacket("udp4", "192.0.2.1:7777"); return err }))
	defer echo.Close()
	require.NoError(t, home.Do(func() (err error) { conn, err = net.ListenPacket("udp4", address+":0"); return err }))
	defer conn.Close()
	var talking sync.WaitGroup
	talking.Go(func() {
		b := make([]byte, 64)
		for {
			n, from, err := echo.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = echo.WriteTo(b[:n], from) // the other end sees what is lost
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	answered := 0
	var lost error
	talking.Go(func() {
		defer echo.Close()
		for b := make([]byte, 64); ctx.Err() == nil; answered++ {
			if _, lost = conn.WriteTo([]byte(fmt.Sprint(answered)), echo.LocalAddr()); lost != nil {
				return
			}
			if lost = conn.SetReadDeadline(time.Now().Add(2 * time.Minute)); lost != nil {
				return
			}
			var n int
			if n, _, lost = conn.ReadFrom(b); lost != nil || string(b[:n]) != fmt.Sprint(answered) {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})

	ack := "DHCPACK(eth0) " + address + " "
	await := func(what string) {
		t.Helper()
		before := strings.Count(served.said(), ack)
		start := time.Now()
		require.Eventually(t, func() bool { return strings.Count(served.said(), ack) > before }, 2*time.Minute, 5*time.Millisecond, "%s", what)
		t.Logf("%s: after %v", what, time.Since(start).Round(time.Millisecond))
	}
	await("a renewal")
	require.NoError(t, provider.Run("iptables-legacy", "-A", "INPUT", "-p", "udp", "--dport", "67", "-d", "192.0.2.1", "-j", "DROP"))
	await("a rebinding: nothing else reaches the server")
	require.NoError(t, provider.Run("iptables-legacy", "-F", "INPUT"))
	d.linkUp("ether1")
	await("a link that comes up")
	d.mu.Lock()
	for _, l := range d.links {
		l.resume = nil // as after a process that has crashed
	}
	d.mu.Unlock()
	d.process.Set(nil)
	require.Eventually(t, func() bool { return d.process.Status().State == service.Off }, time.Minute, time.Millisecond)
	d.mu.Lock()
	d.start()
	d.mu.Unlock()
	await("a process that starts anew")
	await("and renews")
	cancel()
	talking.Wait()
	assert.NoError(t, lost)
	assert.Positive(t, answered)
	require.Eventually(t, func() bool { return d.bound(t) == address+"/24" }, time.Minute, time.Millisecond, "the answer is taken")
	assert.Equal(t, begin, changes(), "of addresses and routes")
	t.Logf("%d datagrams, and as many answers", answered)
}
