package netcfg

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// parameter reads a parameter below net.ipv4.
func parameter(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(parameterFolder + "/" + name)
	require.NoError(t, err)
	return strings.TrimSpace(string(text))
}

func TestSettings(t *testing.T) {
	lab(t, "k0")
	m := newManager(t, Port{"ether1", "k0"}, Port{"ether2", "k1"})
	for _, c := range []struct {
		name     string
		settings Settings
		want     map[string]string // of each link
		cookies  string
	}{
		{"closed by default", Settings{}, map[string]string{"rp_filter": "1", "send_redirects": "0", "accept_redirects": "0",
			"secure_redirects": "0", "accept_source_route": "0", "arp_ignore": "1", "arp_announce": "2", "log_martians": "0", "promote_secondaries": "1"}, "1"},
		{"open", Settings{RPFilterNo, true, true, true, true, true, ""}, map[string]string{"rp_filter": "0", "send_redirects": "1",
			"accept_redirects": "1", "secure_redirects": "1", "accept_source_route": "1", "arp_ignore": "1"}, "0"},
		{"loose", Settings{RPFilter: RPFilterLoose}, map[string]string{"rp_filter": "2", "send_redirects": "0"}, "1"},
		{"strict by name", Settings{RPFilter: RPFilterStrict}, map[string]string{"rp_filter": "1"}, "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, m.Apply(Config{Forwarding: true, Settings: c.settings}))
			for name, value := range c.want {
				for _, link := range []string{"all", "default", "lo", "ether1"} {
					assert.Equal(t, value, parameter(t, "conf/"+link+"/"+name), "%s of %s", name, link)
				}
			}
			assert.Equal(t, c.cookies, parameter(t, "tcp_syncookies"))
			assert.Equal(t, "3", parameter(t, "ip_no_pmtu_disc"))
		})
	}
	t.Run("a link that comes later", func(t *testing.T) {
		plug(t, "k1")
		require.NoError(t, m.Apply(Config{Forwarding: true, Settings: Settings{RPFilter: RPFilterLoose}}))
		assert.Equal(t, "0", parameter(t, "conf/ether2/send_redirects"))
		assert.Equal(t, "2", parameter(t, "conf/ether2/rp_filter"))
	})
	t.Run("a refused change goes back", func(t *testing.T) {
		bad := Config{Settings: Settings{RPFilter: RPFilterNo}, Addresses: []Address{address("10.8.0.1/24", "ether1")},
			Routes: []Route{by("10.9.0.0/16", "10.8.0.255", 1)}}
		require.ErrorContains(t, m.Apply(bad), "10.9.0.0/16")
		assert.Equal(t, "2", parameter(t, "conf/ether1/rp_filter"))
	})
	t.Run("no such value", func(t *testing.T) {
		require.EqualError(t, m.Apply(Config{Settings: Settings{RPFilter: "some"}}), `settings: rp-filter="some": expected strict, loose or no`)
	})
}

// A bridge learns no more hardware addresses than there is room for, whoever sends from how
// many.
func TestBridgeLearnsFew(t *testing.T) {
	lab(t, "k0")
	m := newManager(t, Port{"ether1", "k0"})
	require.NoError(t, m.Apply(Config{Bridges: []Bridge{{Name: "b1"}}, BridgePorts: []BridgePort{{Bridge: "b1", Interface: "ether1"}}}))
	require.Eventually(t, func() bool { return strings.Contains(ip(t, "link show ether1"), "LOWER_UP") }, patience, 10*time.Millisecond)
	link, err := net.InterfaceByName("x-k0")
	require.NoError(t, err)
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	require.NoError(t, err)
	defer unix.Close(s)
	for i := range 3 * maxLearned {
		frame := append([]byte{2, 0, 0, 0, 0, 1, 2, 1, 0, 0, byte(i >> 8), byte(i), 0x88, 0xb5}, make([]byte, 46)...)
		require.NoError(t, unix.Sendto(s, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index}))
	}
	out, err := exec.Command("bridge", "fdb", "show", "br", "b1").CombinedOutput()
	require.NoError(t, err, "%s", out)
	// The kernel of the other end sends by itself, from its own address, which takes a place too.
	learned := strings.Count(string(out), "02:01:00:00:")
	assert.LessOrEqual(t, learned, maxLearned)
	assert.GreaterOrEqual(t, learned, maxLearned-1)
}

// wire is the other end of a cable.
type wire struct {
	*testing.T
	socket, link int
	mac          []byte // of the port
}

func onWire(t *testing.T, name string) wire {
	t.Helper()
	port, err := net.InterfaceByName(name)
	require.NoError(t, err)
	w := wireOf(t, "x-k0", unix.ETH_P_ARP)
	w.mac = port.HardwareAddr
	return w
}

// wireOf is a wire whose socket gets what comes to a device by a protocol of Ethernet.
func wireOf(t *testing.T, device string, protocol uint16) wire {
	t.Helper()
	peer, err := net.InterfaceByName(device)
	require.NoError(t, err)
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(s) })
	require.NoError(t, unix.Bind(s, &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: peer.Index}))
	return wire{t, s, peer.Index, nil}
}

func (w wire) send(protocol uint16, payload []byte) {
	w.Helper()
	frame := append(append([]byte{}, w.mac...), 2, 0, 0, 0, 0, 9, byte(protocol>>8), byte(protocol))
	require.NoError(w, unix.Sendto(w.socket, append(frame, payload...), 0, &unix.SockaddrLinklayer{Ifindex: w.link}))
}

// datagram sends an empty UDP datagram.
func (w wire) datagram(from, to string) {
	w.Helper()
	head := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0}
	for _, a := range []string{from, to} {
		head = append(head, netip.MustParseAddr(a).AsSlice()...)
	}
	sum := uint32(0)
	for i := 0; i < len(head); i += 2 {
		sum += uint32(head[i])<<8 | uint32(head[i+1])
	}
	sum = sum&0xffff + sum>>16
	sum = ^(sum&0xffff + sum>>16)
	head[10], head[11] = byte(sum>>8), byte(sum)
	w.send(0x0800, append(head, 0, 9, 0, 9, 0, 8, 0, 0))
}

// who asks for the hardware address of an IP address.
func (w wire) who(target string) {
	w.Helper()
	request := []byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 9, 1, 9, 0, 0, 0, 0, 0, 0}
	w.send(0x0806, append(request, netip.MustParseAddr(target).AsSlice()...))
}

// answered returns the first address that an answer to ARP is about.
func (w wire) answered() string {
	w.Helper()
	require.NoError(w, unix.SetsockoptTimeval(w.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience.Seconds())}))
	for frame := make([]byte, 2048); ; {
		n, _, err := unix.Recvfrom(w.socket, frame, 0)
		require.NoError(w, err)
		if n >= 42 && frame[21] == 2 {
			a, _ := netip.AddrFromSlice(frame[28:32])
			return a.String()
		}
	}
}

// Packets whose source cannot be behind the link that they come in by are dropped, and counted.
func TestFalseSources(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, Port{"ether1", "k0"}, Port{"ether2", "k1"})
	c := Config{Forwarding: true, Addresses: []Address{
		{Address: netip.MustParsePrefix("10.9.1.1/24"), Interface: "ether1"}, {Address: netip.MustParsePrefix("10.9.2.1/24"), Interface: "ether2"}}}
	require.NoError(t, m.Apply(c))
	for _, end := range []string{"x-k0", "x-k1"} {
		ip(t, "link set "+end+" arp off") // the same kernel: it would count what it is asked, too
	}
	w := onWire(t, "ether1")
	for _, test := range []struct {
		name, from, to string
		filter         string
		dropped        uint64
	}{
		{"its own", "10.9.1.7", "10.9.1.1", "", 0},
		{"that of another link", "10.9.2.7", "10.9.1.1", "", 1},
		{"that of another link, through", "10.9.2.7", "10.9.2.8", "", 1},
		{"none that is known", "198.51.100.1", "10.9.1.1", "", 1},
		{"the router's", "10.9.1.1", "10.9.1.1", "", 1},
		{"the router's other", "10.9.2.1", "10.9.1.1", "", 1},
		{"loopback", "127.0.0.1", "10.9.1.1", "", 1},
		{"broadcast", "255.255.255.255", "10.9.1.1", "", 1},
		{"multicast", "224.0.0.1", "10.9.1.1", "", 1},
		{"that of another link, loose", "10.9.2.7", "10.9.1.1", RPFilterLoose, 0},
		{"none that is known, loose", "198.51.100.1", "10.9.1.1", RPFilterLoose, 1},
		{"none that is known, no filter", "198.51.100.1", "10.9.1.1", RPFilterNo, 0},
		{"the router's, no filter", "10.9.1.1", "10.9.1.1", RPFilterNo, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.Settings.RPFilter = test.filter
			require.NoError(t, m.Apply(c))
			before, err := FalseSources()
			require.NoError(t, err)
			w.datagram(test.from, test.to)
			// A packet behind it, which is answered once the first has been dealt with.
			w.who("10.9.1.1")
			require.Equal(t, "10.9.1.1", w.answered())
			after, err := FalseSources()
			require.NoError(t, err)
			assert.Equal(t, test.dropped, after-before)
		})
	}
	t.Run("the other link's address is not answered for", func(t *testing.T) {
		w.who("10.9.2.1")
		w.who("10.9.1.1")
		assert.Equal(t, "10.9.1.1", w.answered())
	})
}

// An interface is told when other hosts may be reached by it: also a bridge, one of whose ports has a new cable.
func TestOnUp(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, Port{"ether1", "k0"}, Port{"ether2", "k1"})
	told := make(chan string, 100)
	m.OnUp = func(name string) { told <- name }
	ip(t, "link set x-k1 down")
	require.NoError(t, m.Apply(Config{
		Bridges:     []Bridge{{Name: "bridge1"}},
		BridgePorts: []BridgePort{{Interface: "ether1", Bridge: "bridge1"}, {Interface: "ether2", Bridge: "bridge1"}},
	}))
	running(t, m)
	require.Eventually(t, func() bool { return strings.Contains(ip(t, "link show bridge1"), "LOWER_UP") }, patience, time.Millisecond)
	ip(t, "link set x-k1 up")
	for name, plugged := "", false; !plugged || name != "bridge1"; plugged = plugged || name == "ether2" {
		select {
		case name = <-told:
		case <-time.After(patience):
			t.Fatal("not told")
		}
	}
}

// TestOnUpOver: who is told by which links come up. VLANs are none of the kernel's that tests run on.
func TestOnUpOver(t *testing.T) {
	lan := func(ether1, ether2, bridge1, vlan10, vlan20 bool) []link {
		return []link{
			{index: 1, name: "ether1", running: ether1},
			{index: 2, name: "ether2", running: ether2, masterIndex: 4},
			{index: 3, name: "ether3", running: true, masterIndex: 4},
			{index: 4, name: "bridge1", kind: bridgeKind, own: true, running: bridge1},
			{index: 5, name: "vlan10", kind: vlanKind, own: true, running: vlan10, parentIndex: 1},
			{index: 6, name: "vlan20", kind: vlanKind, own: true, running: vlan20, parentIndex: 4},
			{index: 7, name: "other", running: ether1},
		}
	}
	for _, test := range []struct {
		name          string
		before, after []link
		want          []string
	}{
		{"nothing", lan(true, true, true, true, true), lan(true, true, true, true, true), nil},
		{"a port with a VLAN", lan(false, true, true, false, true), lan(true, true, true, true, true), []string{"ether1", "vlan10"}},
		{"the VLAN later", lan(false, true, true, false, true), lan(true, true, true, false, true), []string{"ether1"}},
		{"and then", lan(true, true, true, false, true), lan(true, true, true, true, true), []string{"vlan10"}},
		{"a second port of a bridge", lan(true, false, true, true, true), lan(true, true, true, true, true), []string{"ether2", "bridge1", "vlan20"}},
		{"a bridge that passes nothing yet", lan(true, false, false, true, false), lan(true, true, false, true, false), []string{"ether2"}},
		{"a cable that is pulled", lan(true, true, true, true, true), lan(false, false, true, false, true), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var told []string
			m := &Manager{devices: map[int]*device{1: {port: "ether1"}, 2: {port: "ether2"}, 3: {port: "ether3"}}, OnUp: func(name string) { told = append(told, name) }}
			m.own(test.before)
			require.Empty(t, told)
			m.own(test.after)
			assert.Equal(t, test.want, told)
		})
	}
}

// The links of ports are told when they change, also where the driver says nothing.
func TestOnLink(t *testing.T) {
	lab(t, "k0")
	m := newManager(t, Port{"ether1", "k0"})
	told := make(chan string, 100)
	m.OnLink = func(port string, up bool) { told <- fmt.Sprint(port, " ", up) }
	require.NoError(t, m.Apply(Config{}))
	running(t, m)
	next := func(want string) {
		t.Helper()
		select {
		case got := <-told:
			assert.Equal(t, want, got)
		case <-time.After(patience):
			t.Fatalf("not told: %s", want)
		}
	}
	next("ether1 true")
	ip(t, "link set x-k0 down")
	next("ether1 false")
	ip(t, "link set x-k0 up")
	next("ether1 true")
}
