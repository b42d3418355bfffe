package firewall

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/testnet"
)

func TestTracking(t *testing.T) {
	s := newSite(t)
	kernel := func(name string) string {
		text, err := os.ReadFile(trackingFolder + name)
		require.NoError(s, err)
		return strings.TrimSpace(string(text))
	}
	require.NoError(t, DefaultTracking().Set())
	assert.Equal(t, "7440", kernel("tcp_timeout_established"))
	assert.Equal(t, "180", kernel("udp_timeout_stream"))
	assert.Equal(t, "1", kernel("tcp_loose"))
	tracking := Tracking{Strict: true}
	for i := range tracking.Timeouts {
		tracking.Timeouts[i] = time.Duration(i+100) * time.Second
	}
	require.NoError(t, tracking.Set())
	for i, timeout := range Timeouts {
		assert.Equal(t, fmt.Sprint(i+100), kernel(timeout.parameter), timeout.Name)
	}
	assert.Equal(t, "0", kernel("tcp_loose"))
	require.NoError(t, Tracking{}.Set())
	for _, timeout := range Timeouts {
		assert.Equal(t, fmt.Sprint(int(timeout.Default.Seconds())), kernel(timeout.parameter), timeout.Name)
	}
	s.tcp()
	entries, limit, err := TableSize()
	require.NoError(t, err)
	assert.Positive(t, entries)
	assert.Greater(t, limit, entries)
	all, err := ListTracked()
	require.NoError(t, err)
	assert.True(t, slices.ContainsFunc(all, func(c Tracked) bool { return c.Protocol == "tcp" && c.Bytes >= 60 && c.ReplyBytes >= 60 }), all)
}

// However many connections there are, all are listed, and can be forgotten.
func TestListAndForgetAll(t *testing.T) {
	s := newSite(t)
	require.NoError(t, DefaultTracking().Set())
	const first, connections = 10_000, 5000
	var from *net.UDPConn
	require.NoError(t, s.client.Do(func() (err error) {
		from, err = net.ListenUDP("udp4", nil)
		return err
	}))
	defer from.Close()
	var all []Tracked
	for deadline := time.Now().Add(time.Minute); len(all) < connections; all = s.list() {
		require.True(t, time.Now().Before(deadline), "%d connections", len(all))
		for i := range connections { // some may be lost
			_, _ = from.WriteToUDP([]byte("x"), &net.UDPAddr{IP: net.ParseIP(serverIP), Port: first + i})
		}
	}
	n, err := Forget(all)
	require.NoError(t, err)
	assert.Equal(t, connections, n)
	assert.Empty(t, s.list())
}

func TestFairShare(t *testing.T) {
	for _, c := range []struct {
		name   string
		counts []int
		excess int
		want   int // of each
		gone   int
	}{
		{"nothing to do", []int{5, 3}, 0, 1 << 30, 0},
		{"one host", []int{100}, 30, 70, 30},
		{"the greatest alone", []int{100, 20, 10}, 50, 50, 50},
		{"down to the second", []int{100, 20, 10}, 80, 20, 80},
		{"two", []int{100, 80, 10}, 100, 40, 100},
		{"two, an odd number", []int{100, 80, 10}, 101, 39, 102},
		{"all", []int{9, 9, 9}, 9, 6, 9},
		{"more than there are", []int{5, 3}, 100, 0, 8},
		{"nobody", nil, 5, 1 << 30, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			gone := 0
			share := fairShare(c.counts, c.excess)
			assert.Equal(t, c.want, min(share, 1<<30))
			for _, n := range c.counts {
				gone += max(0, n-share)
			}
			assert.Equal(t, c.gone, gone)
		})
	}
}

// A host with many connections loses some, others and the router lose none.
func TestTrim(t *testing.T) {
	s := newSite(t)
	require.NoError(t, s.client.IP("addr add 192.168.0.3/24 dev eth0"))
	require.NoError(t, DefaultTracking().Set())
	l, err := s.server.Listen(serverIP + ":0")
	require.NoError(t, err)
	defer l.Close()
	open := func(from string) {
		t.Helper()
		conn, err := s.client.Dial(&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}, l.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
	}
	for range 90 {
		open(clientIP)
	}
	for range 5 {
		open("192.168.0.3")
	}
	// The router's own, and one to it.
	own, err := s.router.Dial(&net.Dialer{}, l.Addr().String())
	require.NoError(t, err)
	defer own.Close()
	socks, err := s.router.Listen("192.168.0.1:0")
	require.NoError(t, err)
	defer socks.Close()
	for range 10 {
		conn, err := s.client.Dial(&net.Dialer{}, socks.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
	}
	count := func() map[string]int {
		n := map[string]int{}
		for _, c := range s.list() {
			if c.Protocol == "tcp" && c.State == "established" {
				n[c.Src.Addr().String()+" "+c.Dst.Addr().String()]++
			}
		}
		return n
	}
	before := map[string]int{"192.168.0.2 10.5.8.8": 90, "192.168.0.3 10.5.8.8": 5, "10.5.8.1 10.5.8.8": 1, "192.168.0.2 192.168.0.1": 10}
	require.Eventually(t, func() bool { return assert.ObjectsAreEqual(before, count()) }, time.Minute, 10*time.Millisecond)
	mine := []netip.Addr{netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("10.5.8.1")}

	trimmed, err := Trim(len(s.list()), mine)
	require.NoError(t, err)
	assert.Empty(t, trimmed, "there is room")
	trimmed, err = Trim(len(s.list())-25, mine)
	require.NoError(t, err)
	assert.Equal(t, []Trimmed{{netip.MustParseAddr(clientIP), 90, 25}}, trimmed)
	assert.Equal(t, map[string]int{"192.168.0.2 10.5.8.8": 65, "192.168.0.3 10.5.8.8": 5, "10.5.8.1 10.5.8.8": 1, "192.168.0.2 192.168.0.1": 10}, count())
	_, err = Trim(0, mine)
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"10.5.8.1 10.5.8.8": 1, "192.168.0.2 192.168.0.1": 10}, count())
}

// What could not be forgotten is not said to be.
func TestTrimInVain(t *testing.T) {
	s := newSite(t)
	require.NoError(t, DefaultTracking().Set())
	s.tcp()
	s.tracked("tcp", "established")
	// Another program's rule, ahead of those of this package.
	require.NoError(t, s.router.Run("iptables-legacy", "-t", "raw", "-I", "OUTPUT", "-s", "192.168.0.0/24", "-j", "DROP"))
	trimmed, err := Trim(0, nil)
	require.EqualError(t, err, "none of 1 connections could be forgotten")
	assert.Empty(t, trimmed)
	s.tracked("tcp", "established")
}

// useSome opens a connection from each of the addresses silent of the client, and so many others of its own that are used when
// the first were silent for some seconds. It returns what counts how many the router knows of either.
func (s *site) useSome(silent []string, uses int) (count func() (left, inUse int)) {
	s.Helper()
	l, err := s.server.Listen(serverIP + ":0")
	require.NoError(s, err)
	defer l.Close()
	used := map[string]bool{}
	// Without probes of Go's, each 15 seconds: on a busy host they would come meanwhile, and who is probed is not silent.
	open := func(from string) (near, far net.Conn) {
		near, err := s.client.Dial(&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, KeepAlive: -1}, l.Addr().String())
		require.NoError(s, err)
		s.Cleanup(func() { near.Close() })
		far, err = l.Accept()
		require.NoError(s, err)
		s.Cleanup(func() { far.Close() })
		_ = far.(*net.TCPConn).SetKeepAlive(false)
		return near, far
	}
	for _, from := range silent {
		open(from)
	}
	var near, far []net.Conn
	for range uses {
		n, f := open(clientIP)
		near, far = append(near, n), append(far, f)
		used[n.LocalAddr().String()] = true
	}
	// The kernel says how long a connection was silent in whole seconds.
	of := func(long time.Duration) (left, inUse int) {
		for _, c := range s.list() {
			switch {
			case c.Protocol != "tcp" || c.State != "established":
			case used[c.Src.String()]:
				inUse++
			case Timeouts[2].Default-c.Timeout >= long:
				left++
			}
		}
		return left, inUse
	}
	require.Eventually(s, func() bool { left, _ := of(2 * time.Second); return left == len(silent) }, time.Minute, 100*time.Millisecond)
	for i := range near {
		_, err := near[i].Write([]byte("x"))
		require.NoError(s, err)
		_, err = far[i].Read(make([]byte, 1))
		require.NoError(s, err)
	}
	return func() (int, int) { return of(0) }
}

// Ever more hosts with a connection each, as from outside by dst-nat, do not end what a host of the LAN uses.
func TestTrimManyHosts(t *testing.T) {
	s := newSite(t)
	const uses, excess = 20, 150
	require.NoError(t, DefaultTracking().Set())
	var hosts []string
	for i := range 200 {
		hosts = append(hosts, fmt.Sprint("192.168.0.", 20+i))
		require.NoError(t, s.client.IP("addr add "+hosts[i]+"/24 dev eth0"))
	}
	count := s.useSome(hosts, uses)
	trimmed, err := Trim(len(s.list())-excess, nil)
	require.NoError(t, err)
	assert.Len(t, trimmed, excess)
	left, inUse := count()
	assert.Equal(t, len(hosts)-excess, left)
	assert.Equal(t, uses, inUse)
}

// However many one host has, and wherever in the table they are, those that it uses stay while there are others.
func TestTrimTheSilent(t *testing.T) {
	s := newSite(t)
	const unused, uses = maxTrim / 2, maxTrim
	require.NoError(t, DefaultTracking().Set())
	count := s.useSome(slices.Repeat([]string{clientIP}, unused), uses)
	trimmed, err := Trim(len(s.list())-unused, nil)
	require.NoError(t, err)
	assert.Equal(t, []Trimmed{{netip.MustParseAddr(clientIP), unused + uses, unused}}, trimmed)
	left, inUse := count()
	assert.Zero(t, left)
	assert.Equal(t, uses, inUse)
}

// Of any number, those that were silent for longest are kept, whatever their order.
func TestSilentest(t *testing.T) {
	const room = 7
	for _, n := range []int{0, 1, room - 1, room, room + 1, 50} {
		for seed := range 20 {
			s := silentest{room: room, silence: func(c Tracked) time.Duration { return c.Timeout }}
			var all, kept []int
			for _, i := range rand.New(rand.NewPCG(uint64(seed), uint64(n))).Perm(n) {
				i /= 2 // some are equal
				all = append(all, i)
				s.add(Tracked{Timeout: time.Duration(i)})
			}
			for _, c := range s.all {
				kept = append(kept, int(c.Timeout))
			}
			slices.Sort(all)
			slices.Sort(kept)
			assert.Equal(t, all[max(0, n-room):], kept)
		}
	}
}

// How long a connection was silent follows from how long it will be remembered, and from what for: the kernel gives one whose data
// is under way less time.
func TestSilences(t *testing.T) {
	newSite(t)
	require.NoError(t, DefaultTracking().Set())
	silence, err := silences()
	require.NoError(t, err)
	for _, c := range []struct {
		protocol, state string
		left, want      time.Duration
	}{
		{"tcp", "established", 2*time.Hour + 4*time.Minute, 0},
		{"tcp", "established", 2 * time.Hour, 4 * time.Minute},
		{"tcp", "established", 5 * time.Minute, 0},
		{"tcp", "established", 3 * time.Minute, 2 * time.Minute},
		{"tcp", "time_wait", 10 * time.Second, MaxTimeout},
		{"udp", "", 3 * time.Minute, 0},
		{"udp", "", time.Minute, 2 * time.Minute},
		{"icmp", "", 20 * time.Second, 10 * time.Second},
		{"gre", "", 9 * time.Minute, time.Minute},
	} {
		assert.Equal(t, c.want, silence(Tracked{Protocol: c.protocol, State: c.state, Timeout: c.left}), c)
	}
}

// What hosts outside have opened by dst-nat is theirs, not the router's at whose address it is.
func TestTrimTranslated(t *testing.T) {
	s := newSite(t)
	require.NoError(t, DefaultTracking().Set())
	l, err := s.client.Listen(clientIP + ":7200")
	require.NoError(t, err)
	defer l.Close()
	s.apply(append(masquerade, Rule{Chain: "dstnat", Action: "dst-nat", Protocol: "tcp", DstAddress: addresses("10.5.8.1"), DstPort: ports("8080"),
		ToAddresses: addresses(clientIP), ToPorts: ports("7200")}))
	for range 90 {
		conn, err := s.server.Dial(&net.Dialer{KeepAlive: -1}, "10.5.8.1:8080")
		require.NoError(t, err)
		defer conn.Close()
	}
	require.Eventually(t, func() bool {
		n := 0
		for _, c := range s.list() {
			if c.Assured {
				n++
			}
		}
		return n == 90
	}, time.Minute, 10*time.Millisecond)
	mine := []netip.Addr{netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("10.5.8.1")}
	trimmed, err := Trim(len(s.list())-25, mine)
	require.NoError(t, err)
	assert.Equal(t, []Trimmed{{netip.MustParseAddr(serverIP), 90, 25}}, trimmed)
	assert.Len(t, s.list(), 65)
}

// However many hosts call a server of the LAN by dst-nat, no other host of the LAN loses a connection for it; and of these callers the one with most
// loses some.
func TestTrimManyCallers(t *testing.T) {
	s := newSite(t)
	const callers, most = 100, 60
	require.NoError(t, DefaultTracking().Set())
	require.NoError(t, s.client.IP("addr add 192.168.0.3/24 dev eth0"))
	inside, err := s.client.Listen("192.168.0.3:7200")
	require.NoError(t, err)
	defer inside.Close()
	outside, err := s.server.Listen(serverIP + ":0")
	require.NoError(t, err)
	defer outside.Close()
	s.apply(append(masquerade, Rule{Chain: "dstnat", Action: "dst-nat", Protocol: "tcp", DstAddress: addresses("10.5.8.1"), DstPort: ports("8080"),
		ToAddresses: addresses("192.168.0.3"), ToPorts: ports("7200")}))
	call := func(h *testnet.Host, from, to string) {
		t.Helper()
		conn, err := h.Dial(&net.Dialer{KeepAlive: -1, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}, to)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
	}
	for range 40 {
		call(s.client, clientIP, outside.Addr().String())
	}
	for i := range callers {
		from := netip.AddrFrom4([4]byte{10, 5, 8, byte(20 + i)})
		require.NoError(t, s.server.IP("addr add "+from.String()+"/24 dev eth0"))
		call(s.server, from.String(), "10.5.8.1:8080")
	}
	for range most {
		call(s.server, "10.5.8.20", "10.5.8.1:8080")
	}
	count := func() map[string]int {
		n := map[string]int{}
		for _, c := range s.list() {
			switch source := c.Src.Addr().String(); {
			case c.Protocol != "tcp" || !c.Assured:
			case source == clientIP, source == "10.5.8.20":
				n[source]++
			default:
				n["others"]++
			}
		}
		return n
	}
	require.Eventually(t, func() bool {
		return assert.ObjectsAreEqual(map[string]int{clientIP: 40, "10.5.8.20": most + 1, "others": callers - 1}, count())
	}, time.Minute, 10*time.Millisecond)
	mine := []netip.Addr{netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("10.5.8.1")}
	trimmed, err := Trim(40+most+callers-20, mine)
	require.NoError(t, err)
	assert.Equal(t, []Trimmed{{netip.MustParseAddr("10.5.8.20"), most + 1, 20}}, trimmed)
	_, err = Trim(40+80, mine)
	require.NoError(t, err)
	n := count()
	assert.Equal(t, 40, n[clientIP], n)
	assert.Equal(t, 80, n["others"]+n["10.5.8.20"], n)
}

// What a host has with the router itself counts too, but for TCP for which there is a socket: the router's services bound these.
func TestTrimToTheRouter(t *testing.T) {
	s := newSite(t)
	const asks, calls, excess = 60, 40, 50
	require.NoError(t, DefaultTracking().Set())
	require.NoError(t, s.client.IP("addr add 192.168.0.3/24 dev eth0"))
	mine := []netip.Addr{netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("10.5.8.1")}
	// One that answers, as the DNS server does.
	service, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP("192.168.0.1")})
	require.NoError(t, err)
	defer service.Close()
	go func() {
		for buf := make([]byte, 10); ; {
			n, from, err := service.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = service.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	var asking []net.Conn
	ask := func(from string) {
		t.Helper()
		require.NoError(t, s.client.Do(func() error {
			conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, service.LocalAddr().(*net.UDPAddr))
			asking = append(asking, conn)
			return err
		}))
		t.Cleanup(func() { asking[0].Close(); asking = asking[1:] })
	}
	for range asks {
		ask(clientIP)
	}
	for range 5 {
		ask("192.168.0.3")
	}
	socks, err := s.router.Listen("192.168.0.1:0")
	require.NoError(t, err)
	defer socks.Close()
	server, err := s.server.Listen(serverIP + ":0")
	require.NoError(t, err)
	defer server.Close()
	const (
		stays = iota
		halfClosed
		ends
		vanishes // at the router, which says nothing of it
	)
	connect := func(from *testnet.Host, l net.Listener, what int) {
		t.Helper()
		conn, err := from.Dial(&net.Dialer{KeepAlive: -1}, l.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		accepted, err := l.Accept()
		require.NoError(t, err)
		_ = accepted.(*net.TCPConn).SetKeepAlive(false)
		t.Cleanup(func() { accepted.Close() })
		switch what {
		case halfClosed:
			require.NoError(t, conn.CloseWrite())
		case ends:
			conn.Close()
			accepted.Close()
		case vanishes:
			raw, err := accepted.(*net.TCPConn).SyscallConn()
			require.NoError(t, err)
			require.NoError(t, raw.Control(func(fd uintptr) {
				assert.NoError(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1))
			}))
			accepted.Close()
		}
	}
	for range calls {
		connect(s.client, socks, ends)
		connect(s.router, server, ends)
	}
	for range 5 {
		connect(s.client, socks, stays)
		connect(s.client, socks, halfClosed)
		connect(s.client, socks, vanishes)
		connect(s.client, server, stays)
		connect(s.router, server, stays)
		connect(s.router, server, halfClosed)
	}
	count := func() map[string]int {
		n := map[string]int{}
		for _, c := range s.list() {
			if c.Assured {
				n[strings.TrimSpace(c.Protocol+" "+c.Src.Addr().String()+" "+c.Dst.Addr().String()+" "+strings.TrimPrefix(c.State, "established"))]++
			}
		}
		return n
	}
	sockets := map[string]int{"tcp 192.168.0.2 192.168.0.1": 5, "tcp 192.168.0.2 192.168.0.1 close_wait": 5, "tcp 10.5.8.1 10.5.8.8": 5, "tcp 10.5.8.1 10.5.8.8 close_wait": 5}
	before := maps.Clone(sockets)
	before["tcp 192.168.0.2 192.168.0.1"] += 5 // that have vanished
	before["udp 192.168.0.2 192.168.0.1"], before["udp 192.168.0.3 192.168.0.1"], before["tcp 192.168.0.2 10.5.8.8"] = asks, 5, 5
	before["tcp 192.168.0.2 192.168.0.1 time_wait"], before["tcp 10.5.8.1 10.5.8.8 time_wait"] = calls, calls
	require.NoError(t, os.WriteFile(trackingFolder+"tcp_timeout_time_wait", []byte("600"), 0))
	// The kernel takes UDP for a stream after 2 seconds. What is over was given its time before.
	require.Eventually(t, func() bool {
		for _, conn := range asking {
			_, _ = conn.Write([]byte("x"))
		}
		n := count()
		return n["udp 192.168.0.2 192.168.0.1"] == asks && n["udp 192.168.0.3 192.168.0.1"] == 5
	}, time.Minute, 100*time.Millisecond)
	require.Equal(t, before, count())

	total := 0
	for _, n := range before {
		total += n
	}
	trimmed, err := Trim(total-excess, mine)
	require.NoError(t, err)
	// The others, with fewer than it has then, have lost none.
	assert.Equal(t, []Trimmed{{netip.MustParseAddr(clientIP), asks + calls + 5, excess}}, trimmed)
	n := count()
	for what, want := range before {
		if what != "udp 192.168.0.2 192.168.0.1" && what != "tcp 192.168.0.2 192.168.0.1 time_wait" && what != "tcp 192.168.0.2 192.168.0.1" {
			assert.Equal(t, want, n[what], what)
		}
	}
	_, err = Trim(0, mine)
	require.NoError(t, err)
	assert.Equal(t, sockets, count(), "what there is a socket for")
}
