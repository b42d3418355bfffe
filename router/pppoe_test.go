package router

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/internal/pppoetest"
	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/pppoe"
	"github.com/postern-router/postern/service"
)

// testDialers are PPPoE clients whose layers and sessions the test has: the machine's kernel need not
// have PPP.
type testDialers struct {
	*pppoeClients
	said   func() string
	lock   sync.Mutex
	layers map[string]Layer
	// sessions are those that are open, each with its interface.
	sessions map[pppoe.Session]string
	// refuse are the kernel's errors for a session and for its interface.
	refuseSession, refuseUnit error
	// wire makes the file of a session.
	wire func(s pppoe.Session) (file *os.File, end func(), err error)
}

// fakeChannel is a session.
type fakeChannel struct {
	d       *testDialers
	session pppoe.Session
	file    *os.File
	end     func()
}

func (c *fakeChannel) File() *os.File { return c.file }

func (c *fakeChannel) OpenUnit(name string, mtu int) (*os.File, error) {
	c.d.lock.Lock()
	defer c.d.lock.Unlock()
	if c.d.refuseUnit != nil {
		return nil, c.d.refuseUnit
	}
	c.d.sessions[c.session] = name
	r, w, err := os.Pipe() // which nothing comes by
	if err == nil {
		end := c.end
		c.end = func() { end(); w.Close() }
	}
	return r, err
}

func (c *fakeChannel) Close() {
	c.file.Close()
	c.d.lock.Lock()
	defer c.d.lock.Unlock()
	c.end()
	delete(c.d.sessions, c.session)
}

func newTestDialers(t *testing.T, supervise func(*kmsg.Logger, func() string) *service.Supervisor) *testDialers {
	log, said := testLog(t)
	supervisor := newSupervisor(log)
	if supervise != nil {
		supervisor = supervise(log, said)
	} else {
		supervisor.Program = "/no-program"
		t.Cleanup(supervisor.Stop)
	}
	d := &testDialers{pppoeClients: newPPPoEClients(supervisor, log), said: said, layers: map[string]Layer{}, sessions: map[pppoe.Session]string{}}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.find = func(string) (int, ether.MAC, bool) { return 1, ether.MAC{2, 0, 0, 0, 0, 1}, true }
	d.discover = func(int) (*os.File, error) { return os.Open(os.DevNull) }
	d.wire = func(pppoe.Session) (*os.File, func(), error) {
		f, err := os.Open(os.DevNull)
		return f, func() {}, err
	}
	d.open = func(_ string, s pppoe.Session) (pppChannel, error) {
		d.lock.Lock()
		defer d.lock.Unlock()
		if d.refuseSession != nil {
			return nil, d.refuseSession
		}
		file, end, err := d.wire(s)
		d.sessions[s] = ""
		return &fakeChannel{d, s, file, end}, err
	}
	if supervise == nil {
		d.attach = func(*pppoe.Process, string, pppoe.Session, *os.File) {}
	}
	d.setLayer = func(source string, l Layer) error {
		d.lock.Lock()
		defer d.lock.Unlock()
		d.layers[source] = l
		return nil
	}
	t.Cleanup(d.Stop)
	return d
}

func (d *testDialers) apply(t *testing.T, words string) {
	t.Helper()
	require.NoError(t, d.Apply(clientConfig(t, "/interface pppoe-client add name=isp interface=ether1 disabled=no "+words)))
}

// await waits for the layer of the client.
func (d *testDialers) await(t *testing.T, want string) {
	t.Helper()
	got := ""
	require.Eventually(t, func() bool {
		d.lock.Lock()
		defer d.lock.Unlock()
		got = strings.ReplaceAll(inShort(d.layers["pppoe-client isp"]), "invalid IP%", "")
		return got == want
	}, 30*time.Second, time.Millisecond, "expected %q", want)
}

// kernel are the sessions that the kernel has.
func (d *testDialers) kernel() map[pppoe.Session]string {
	d.lock.Lock()
	defer d.lock.Unlock()
	all := map[pppoe.Session]string{}
	for s, name := range d.sessions {
		all[s] = name
	}
	return all
}

func (d *testDialers) state(t *testing.T) console.PPPoEClientState {
	t.Helper()
	states, err := d.states()
	require.NoError(t, err)
	return states[0]
}

var testSession = pppoe.Session{Server: ether.MAC{2, 0, 0, 0, 0, 9}, ID: 7}

// dialed and connected are what a process reports: it has a session, and then a connection.
func dialed() pppoe.Report {
	return pppoe.Report{Name: "isp", Status: pppoe.Dialing, AC: "ac1", Session: testSession}
}

func connected(change ...func(*pppoe.Link)) pppoe.Report {
	at := netip.MustParseAddr
	r := dialed()
	r.Status = pppoe.Connected
	r.Link = &pppoe.Link{Local: at("203.0.113.7"), Remote: at("10.64.0.1"), NameServers: []netip.Addr{at("9.9.9.9")}, MTU: 1492, MRU: 1492}
	for _, f := range change {
		f(r.Link)
	}
	return r
}

func TestPPPoELayer(t *testing.T) {
	for _, c := range []struct {
		name, words string
		change      func(*pppoe.Link)
		want        string
	}{
		{"nothing but the address", "", func(*pppoe.Link) {}, "203.0.113.7/32, 10.64.0.1/32 by isp at 1"},
		{"all of it", "add-default-route=yes use-peer-dns=yes", func(*pppoe.Link) {}, "203.0.113.7/32, 10.64.0.1/32 by isp at 1, 0.0.0.0/0 by isp at 1, dns 9.9.9.9"},
		{"a distance", "add-default-route=yes default-route-distance=5", func(*pppoe.Link) {}, "203.0.113.7/32, 10.64.0.1/32 by isp at 1, 0.0.0.0/0 by isp at 5"},
		{"the server does not tell its address", "add-default-route=yes", func(l *pppoe.Link) { l.Remote = netip.Addr{} }, "203.0.113.7/32, 0.0.0.0/0 by isp at 1"},
		{"the server has the address of a host of the LAN", "", func(l *pppoe.Link) { l.Remote = netip.MustParseAddr("192.168.0.5") }, "203.0.113.7/32"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newTestDialers(t, nil)
			d.apply(t, c.words)
			require.NoError(t, d.take(nil, dialed()))
			require.NoError(t, d.take(nil, connected(c.change)))
			d.await(t, c.want)
		})
	}
}

func TestPPPoEConnection(t *testing.T) {
	const all = "203.0.113.7/32, 10.64.0.1/32 by isp at 1, 0.0.0.0/0 by isp at 1"
	d := newTestDialers(t, nil)
	d.apply(t, "add-default-route=yes")
	assert.Equal(t, console.PPPoEClientState{Name: "isp", Status: "dialing..."}, d.state(t))
	require.NoError(t, d.take(nil, dialed()))
	assert.Equal(t, map[pppoe.Session]string{testSession: ""}, d.kernel())
	d.await(t, "")
	require.NoError(t, d.take(nil, connected()))
	assert.Equal(t, map[pppoe.Session]string{testSession: "isp"}, d.kernel())
	d.await(t, all)
	s := d.state(t)
	assert.Equal(t, "connected 203.0.113.7 10.64.0.1 ac1 02:00:00:00:00:09", strings.Join([]string{s.Status, s.Local.String(), s.Remote.String(), s.AC, s.Server.String()}, " "))
	assert.Contains(t, d.said(), `PPPoE client isp got address 203.0.113.7 from "ac1" (02:00:00:00:00:09)`)

	// What is negotiated anew stays.
	renewed := connected()
	renewed.Status = pppoe.Verifying
	require.NoError(t, d.take(nil, renewed))
	d.await(t, all)
	// When the connection has ended, all of it is gone, and the reason is told.
	require.NoError(t, d.take(nil, pppoe.Report{Name: "isp", Status: pppoe.Disconnected, Reason: "authentication failed"}))
	d.await(t, "")
	assert.Empty(t, d.kernel())
	assert.Equal(t, "disconnected - authentication failed", d.state(t).Status)
	assert.Contains(t, d.said(), "warning PPPoE client isp: authentication failed")
	assert.Contains(t, d.said(), "PPPoE client isp lost address 203.0.113.7")

	// Another session takes the place of one.
	require.NoError(t, d.take(nil, dialed()))
	next := connected()
	next.Session.ID = 8
	require.NoError(t, d.take(nil, next))
	assert.Equal(t, map[pppoe.Session]string{next.Session: "isp"}, d.kernel())
	d.await(t, all)

	// With its process the connection ends, and the next process tells the server.
	(&pppoeProcess{clients: d.pppoeClients}).Ended()
	d.await(t, "")
	assert.Empty(t, d.kernel())
	assert.Equal(t, next.Session, d.links["isp"].settings.Previous)
	d.apply(t, "add-default-route=yes user=other")
	assert.Equal(t, next.Session, d.links["isp"].settings.Previous)

	// A client that is disabled has no connection, and one over a port of a bridge none either.
	require.NoError(t, d.take(nil, connected()))
	d.await(t, all)
	require.NoError(t, d.Apply(clientConfig(t, "/interface pppoe-client add name=isp interface=ether1")))
	d.await(t, "")
	require.NoError(t, d.take(nil, connected()), "a client that was ended meanwhile")
	require.NoError(t, d.Apply(clientConfig(t, "/interface bridge add name=b\n/interface bridge port add bridge=b interface=ether1\n/interface pppoe-client add name=isp interface=ether1 disabled=no")))
	assert.True(t, d.state(t).Slave)
	assert.Empty(t, d.links)
}

// What cannot be ends the session, and the client is told why.
func TestPPPoERefuses(t *testing.T) {
	d := newTestDialers(t, nil)
	d.apply(t, "")
	d.refuseSession = errors.New("no PPPoE")
	require.EqualError(t, d.take(nil, dialed()), "no PPPoE")
	assert.Equal(t, pppoe.Session{}, d.links["isp"].session)
	d.refuseSession = nil
	require.EqualError(t, d.take(nil, connected(func(l *pppoe.Link) { l.Local = netip.MustParseAddr("192.168.0.9") })), "192.168.0.9 is in the network of 192.168.0.1/24 on ether2")
	d.refuseUnit = errors.New("no interface")
	require.EqualError(t, d.take(nil, connected()), "no interface")
	d.await(t, "")
	d.refuseUnit = nil
	require.NoError(t, d.take(nil, connected()))
	d.await(t, "203.0.113.7/32, 10.64.0.1/32 by isp at 1")
	// A network of the user's that comes later goes before it.
	cfg := clientConfig(t, "/interface pppoe-client add name=isp interface=ether1 disabled=no\n/ip address add address=203.0.113.1/24 interface=ether2")
	require.NoError(t, d.Apply(cfg))
	d.await(t, "")
	require.Eventually(t, func() bool {
		return strings.Contains(d.said(), "the address is not used: 203.0.113.7 is in the network of 203.0.113.1/24 on ether2")
	}, 30*time.Second, time.Millisecond)
	assert.True(t, strings.HasPrefix(d.state(t).Status, "disconnected - 203.0.113.7 is in"))
}

// A server that ends each connection does not fill the log.
func TestPPPoELogIsBounded(t *testing.T) {
	d := newTestDialers(t, nil)
	d.apply(t, "")
	for range 100 {
		require.NoError(t, d.take(nil, dialed()))
		require.NoError(t, d.take(nil, connected()))
		require.NoError(t, d.take(nil, pppoe.Report{Name: "isp", Status: pppoe.Disconnected, Reason: "the server has ended the session"}))
	}
	assert.Less(t, strings.Count(d.said(), "isp got address "), 100/2)
}

// The process that is shipped, under its limits, and a server on a link. The test is the kernel that
// carries the sessions' packets.
func TestPPPoEProcess(t *testing.T) {
	provider, home := testnet.New(t, "provider"), testnet.New(t, "home")
	require.NoError(t, testnet.Link(provider, "eth0", home, "ether1"))
	var server *pppoetest.Live
	require.NoError(t, provider.Do(func() (err error) {
		server, err = pppoetest.Serve("eth0", "", pppoetest.Config{AC: "ac1", Auth: "chap", User: "me", Password: "secret", MRU: 1492,
			Local: netip.MustParseAddr("10.64.0.1"), Remote: netip.MustParseAddr("203.0.113.7"), DNS: []netip.Addr{netip.MustParseAddr("9.9.9.9")}})
		return err
	}))
	t.Cleanup(server.Close)
	d := newTestDialers(t, func(log *kmsg.Logger, said func() string) *service.Supervisor { return realSupervisor(t, log, said) })
	d.mu.Lock()
	d.find = func(name string) (index int, mac ether.MAC, ok bool) {
		_ = home.Do(func() error { index, mac, ok = findLink(name); return nil }) // it always succeeds
		return index, mac, ok
	}
	d.discover = func(index int) (f *os.File, err error) {
		err = home.Do(func() error { f, err = pppoe.OpenDiscovery(index); return err })
		return f, err
	}
	index, mac, ok := d.find("ether1")
	require.True(t, ok)
	d.wire = func(s pppoe.Session) (f *os.File, end func(), err error) {
		err = home.Do(func() error { f, end, err = sessionWire(index, mac, s); return err })
		return f, end, err
	}
	d.mu.Unlock()
	const words = "user=me password=secret use-peer-dns=yes"
	d.apply(t, words)
	d.await(t, "203.0.113.7/32, 10.64.0.1/32 by isp at 1, dns 9.9.9.9")
	assert.True(t, server.Up())
	first := server.Session()

	await := func(what string) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.Contains(strings.Join(server.Log(), "\n"), what) }, 30*time.Second, time.Millisecond, what)
	}
	server.Terminate()
	d.await(t, "")
	d.await(t, "203.0.113.7/32, 10.64.0.1/32 by isp at 1, dns 9.9.9.9")
	assert.Greater(t, server.Session(), first)
	assert.Contains(t, d.said(), "PPPoE client isp: the server has ended the connection: maintenance")
	// Another password takes effect at once.
	d.apply(t, words+" comment=again max-mtu=1400")
	await("terminated by the client")
	require.Eventually(t, func() bool { return d.state(t).MTU == 1400 }, 30*time.Second, time.Millisecond)
	d.linkUp("ether1")

	// The session of a process that has ended is ended by the next.
	lost := server.Session()
	parent := d.process.Parent()
	require.NotNil(t, parent)
	d.process.Set(nil)
	require.Eventually(t, func() bool { return d.process.Status().State == service.Off }, 30*time.Second, time.Millisecond)
	assert.Equal(t, uint16(0), server.Session(), "ended in order")
	d.mu.Lock()
	d.hand()
	d.mu.Unlock()
	require.Eventually(t, func() bool { return server.Session() > lost && d.state(t).Local.IsValid() }, 30*time.Second, time.Millisecond)

	// Without a client there is no process either, and the server is told.
	before := len(server.Log())
	require.NoError(t, d.Apply(clientConfig(t, "")))
	d.await(t, "")
	require.Eventually(t, func() bool { return d.process.Status().State == service.Off && len(d.kernel()) == 0 }, 30*time.Second, time.Millisecond)
	assert.Contains(t, server.Log()[before:], "terminated by the client")
	assert.False(t, slices.ContainsFunc(strings.Split(d.said(), "\n"), func(l string) bool { return strings.Contains(l, "error") }))
}

// sessionWire carries the packets of a session, as the kernel's PPPoE does: one packet of PPP for each
// read and write of the file.
func sessionWire(index int, mac ether.MAC, s pppoe.Session) (*os.File, func(), error) {
	const header = ether.Header + 6
	socket, err := ether.Open(index, 0x8864, nil)
	if err != nil {
		return nil, nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	near, far := os.NewFile(uintptr(fds[0]), "session"), os.NewFile(uintptr(fds[1]), "session")
	go func() {
		b := make([]byte, 2048)
		for {
			n, err := far.Read(b)
			if err != nil || n == 0 {
				return
			}
			frame := append(append(slices.Clone(s.Server[:]), mac[:]...), 0x88, 0x64, 0x11, 0)
			frame = binary.BigEndian.AppendUint16(frame, s.ID)
			frame = binary.BigEndian.AppendUint16(frame, uint16(n))
			_, _ = socket.Write(append(frame, b[:n]...)) // lost as on a cable
		}
	}()
	go func() {
		b := make([]byte, 2048)
		for {
			n, err := socket.Read(b)
			if err != nil {
				return
			}
			if n < header || [6]byte(b[:6]) != [6]byte(mac) || binary.BigEndian.Uint16(b[16:]) != s.ID {
				continue
			}
			if length := int(binary.BigEndian.Uint16(b[18:])); length <= n-header {
				_, _ = far.Write(b[header:][:length])
			}
		}
	}()
	return near, func() { far.Close(); socket.Close() }, nil
}

// What a connection gave has no effect from the moment on in which its client is disabled.
func TestPPPoELayerOfDisabledClient(t *testing.T) {
	address := netcfg.Address{Address: netip.MustParsePrefix("203.0.113.7/32"), Interface: "isp"}
	ls := layers{}.with("pppoe-client isp", Layer{Addresses: []netcfg.Address{address}})
	const line = "/interface pppoe-client add name=isp interface=ether1 disabled="
	assert.Equal(t, []netcfg.Address{address}, ls.effective(clientConfig(t, line+"no"), []string{"ether1"}).Addresses)
	assert.Empty(t, ls.effective(clientConfig(t, line+"yes"), []string{"ether1"}).Addresses)
}
