package router

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/ping"
)

// fakeGateways are gateways that answer or not.
type fakeGateways struct {
	mu     sync.Mutex
	silent map[string]bool
	asked  map[string]int
	links  map[string]string
}

func (f *fakeGateways) probe(ctx context.Context, g gateway, q question) bool {
	f.mu.Lock()
	silent := f.silent[g.String()]
	f.asked[g.String()]++
	f.links[g.String()] = q.link
	f.mu.Unlock()
	if !silent {
		return true
	}
	<-ctx.Done()
	return false
}

func (f *fakeGateways) set(silent bool, gateways ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range gateways {
		f.silent[g] = silent
	}
}

func (f *fakeGateways) asking() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.links)
}

func (f *fakeGateways) counts() map[string]int {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.asked)
}

func newFakeGateways() *fakeGateways {
	return &fakeGateways{silent: map[string]bool{}, asked: map[string]int{}, links: map[string]string{}}
}

const routesByTwo = "/routing table add fib name=isp2\n" +
	"/ip route add check-gateway=ping distance=1 gateway=10.0.0.9\n/ip route add check-gateway=ping distance=2 gateway=10.0.0.10%ether1\n" +
	"/ip route add gateway=10.0.0.9 routing-table=isp2\n/ip route add check-gateway=ping distance=3 gateway=10.0.0.11 disabled=yes\n"

// A gateway is asked every 10 seconds. When it has not answered twice all its routes are inactive, in all tables and in one change,
// until it answers.
func TestCheckGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		fake := newFakeGateways()
		s := newGatewayService(g.r.log, g.network)
		s.probe, s.setDown = fake.probe, g.r.setDown
		g.r.services = append(g.r.services, s)
		defer s.Stop()
		g.file("default.rsc", "/ip address add address=10.0.0.2/24 interface=ether1\n"+routesByTwo)
		g.r.start()
		down := func() (all []bool) {
			synctest.Wait()
			for _, r := range g.network.config.Routes {
				all = append(all, r.Down)
			}
			return all
		}
		none := []bool{false, false, false, false}
		time.Sleep(time.Minute + time.Second)
		assert.Equal(t, none, down(), g.log())
		assert.Equal(t, map[string]int{"10.0.0.9": 7, "10.0.0.10%ether1": 7}, fake.counts())
		assert.Equal(t, map[string]string{"10.0.0.9": "ether1", "10.0.0.10%ether1": "ether1"}, fake.links)
		assert.Equal(t, 1, count(g.calls(), "network"), "the start alone")

		fake.set(true, "10.0.0.9", "10.0.0.10%ether1")
		time.Sleep(9*time.Second + 2*gatewayPause - time.Second)
		assert.Equal(t, none, down())
		assert.Zero(t, count(g.calls(), "network"))
		time.Sleep(time.Second)
		assert.Equal(t, []bool{true, true, true, false}, down())
		assert.Equal(t, 1, count(g.calls(), "network"), "at once")
		assert.Contains(t, g.log(), "gateway 10.0.0.9 does not answer: its routes are inactive")

		// What a user changes leaves that, and is kept; what the gateways do is not.
		g.must("/system identity set name=x")
		assert.Equal(t, []bool{true, true, true, false}, down())
		kept := len(g.kept)
		fake.set(false, "10.0.0.9")
		time.Sleep(gatewayPause)
		assert.Equal(t, []bool{false, true, false, false}, down())
		assert.Len(t, g.kept, kept)
		assert.Contains(t, g.log(), "gateway 10.0.0.9 answers")

		// One that is not asked any more is believed to be there.
		g.must("/ip route set 1 check-gateway=none")
		time.Sleep(gatewayPause)
		assert.Equal(t, none, down())
		g.must("/ip route set 0 check-gateway=none")
		asked := fake.counts()
		time.Sleep(time.Hour)
		assert.Equal(t, asked, fake.counts())
	})
}

// A gateway in the networks of two links is asked by that which the routes take, whichever of them is up.
func TestGatewayOnTwoLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		fake := newFakeGateways()
		s := newGatewayService(g.r.log, g.network)
		s.probe, s.setDown = fake.probe, g.r.setDown
		g.r.services = append(g.r.services, s)
		defer s.Stop()
		g.file("default.rsc", "/ip address add address=10.0.0.2/24 interface=ether1\n/ip address add address=10.0.0.3/24 interface=ether2\n"+
			"/ip address add address=10.1.0.2/24 interface=ether1\n/ip route add check-gateway=ping gateway=10.0.0.9\n"+
			"/ip route add check-gateway=arp gateway=10.0.0.8 distance=2\n/ip route add check-gateway=arp gateway=10.0.0.7%ether1 distance=3\n/ip route add check-gateway=arp gateway=10.1.0.9 distance=4\n")
		var up sync.Mutex
		link := "ether2"
		s.linkTo = func(netip.Addr) string {
			up.Lock()
			defer up.Unlock()
			return link
		}
		g.r.start()
		synctest.Wait()
		assert.Equal(t, map[string]string{"10.0.0.9": "ether2", "10.0.0.8": "ether2", "10.0.0.7%ether1": "ether1", "10.1.0.9": "ether1"}, fake.asking())
		// While neither is up, by none but its own.
		up.Lock()
		link = ""
		up.Unlock()
		time.Sleep(gatewayPause)
		synctest.Wait()
		assert.Equal(t, map[string]string{"10.0.0.9": "ether1", "10.0.0.8": "ether1", "10.0.0.7%ether1": "ether1", "10.1.0.9": "ether1"}, fake.asking())
	})
}

// What was asked before a user said that nobody asks any more is no news.
func TestGatewayNotAskedAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		fake := newFakeGateways()
		fake.set(true, "10.0.0.9")
		s := newGatewayService(g.r.log, g.network)
		s.probe, s.setDown = fake.probe, g.r.setDown
		g.r.services = append(g.r.services, s)
		defer s.Stop()
		g.file("default.rsc", "/ip address add address=10.0.0.2/24 interface=ether1\n/ip route add check-gateway=ping gateway=10.0.0.9\n")
		g.r.start()
		time.Sleep(2*gatewayPause - time.Second)
		g.must("/ip route set 0 check-gateway=none")
		g.calls()
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Zero(t, count(g.calls(), "network"), g.log())
		assert.NotContains(t, g.log(), "does not answer")
	})
}

func count(all []string, what string) (n int) {
	for _, s := range all {
		if s == what {
			n++
		}
	}
	return n
}

// A change that the router refuses is tried again, and Safe Mode's undo leaves what the gateways do.
func TestGatewayDownStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t, "/ip address add address=10.0.0.2/24 interface=ether1\n"+routesByTwo)
		nine := gateway{address: netip.MustParseAddr("10.0.0.9")}
		g.fail("network", errFake, nil)
		require.ErrorIs(t, g.r.setDown(map[gateway]bool{nine: true}), errFake)
		assert.Empty(t, g.r.snapshot().down)
		s := &session.Session{}
		require.NoError(t, g.r.safe(s, session.TakeSafeMode))
		_, err := g.run(s, "/ip route add dst-address=10.9.0.0/16 gateway=10.0.0.9")
		require.NoError(t, err)
		require.NoError(t, g.r.setDown(map[gateway]bool{nine: true}))
		g.r.endSession(s)
		assert.Len(t, g.network.config.Routes, 4)
		assert.True(t, g.network.config.Routes[0].Down)
		assert.False(t, g.network.config.Routes[1].Down)
	})
}

func TestGatewayAnswers(t *testing.T) {
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0\n"), 0o644))
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	assert.True(t, answers(context.Background(), gateway{address: netip.MustParseAddr("127.0.0.1")}, ""))
	assert.True(t, answers(context.Background(), gateway{address: netip.MustParseAddr("127.0.0.1")}, "lo"))
	assert.False(t, answers(context.Background(), gateway{address: netip.MustParseAddr("192.0.2.1")}, ""), "no route")
	assert.False(t, answers(soon(), gateway{address: netip.MustParseAddr("127.0.0.1")}, "no-link"))
}

// Who is not the gateway, or does not know what it was asked, does not answer for it: the kernel compares neither.
func TestGatewayAnsweredByAnother(t *testing.T) {
	out, err := exec.Command("sh", "-c", "ip link add gw0 type veth peer name gw1 && ip link set gw1 up && ip addr add 198.51.100.2/24 dev gw0 && ip link set gw0 up").CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "gw0").Run() })
	forger, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	require.NoError(t, err)
	defer unix.Close(forger)
	for _, source := range []string{"198.51.100.2", "198.51.100.1"} {
		for _, size := range []int{8, 24} {
			socket, err := ping.Open(ping.From{})
			require.NoError(t, err)
			defer socket.Close()
			require.NoError(t, socket.SetDeadline(time.Now().Add(100*time.Millisecond)))
			raw, err := socket.SyscallConn()
			require.NoError(t, err)
			answered := make(chan error, 1)
			go func() { answered <- exchange(socket, netip.MustParseAddr("198.51.100.1")) }()
			ident := 0
			for ident == 0 { // it is that of the request
				require.NoError(t, raw.Control(func(fd uintptr) {
					own, err := unix.Getsockname(int(fd))
					require.NoError(t, err)
					ident = own.(*unix.SockaddrInet4).Port
				}))
			}
			require.NoError(t, unix.Sendto(forger, echoReply(netip.MustParseAddr(source), ident, size), 0, &unix.SockaddrInet4{Addr: [4]byte{198, 51, 100, 2}}))
			assert.ErrorIs(t, <-answered, os.ErrDeadlineExceeded, "%s, %d bytes", source, size)
		}
	}
}

// echoReply is a packet of IPv4 with an echo reply, to 198.51.100.2.
func echoReply(from netip.Addr, ident, size int) []byte {
	packet := make([]byte, 20+size)
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_ICMP
	copy(packet[12:], from.AsSlice())
	copy(packet[16:], []byte{198, 51, 100, 2})
	icmp := packet[20:]
	binary.BigEndian.PutUint16(icmp[4:], uint16(ident))
	binary.BigEndian.PutUint16(icmp[2:], ^uint16(ident)) // the only word that is not zero
	return packet
}

// RouterOS's words are taken, and those that Postern lacks are told.
func TestCheckGatewayLine(t *testing.T) {
	for line, want := range map[string]string{
		"/ip route add gateway=10.0.0.9 check-gateway=ping": "",
		"/ip route add gateway=10.0.0.9 check-gateway=none": "",
		"/ip route add gateway=10.0.0.9 check-gateway=arp":  "",
		"/ip route add gateway=10.0.0.9 check-gateway=bfd":  "input does not match any value of check-gateway",
		"/ip route add gateway=ether1 check-gateway=ping":   "route 0.0.0.0/0: check-gateway=ping: expected ping or arp, and a gateway with an address",
		"/ip route add gateway=10.0.0.9 pref-src=10.0.0.2":  "",
		"/ip route add gateway=10.0.0.9 pref-src=\"\"":      "",
		"/ip route add gateway=10.0.0.9 pref-src=224.0.0.1": "pref-src=224.0.0.1: expected an IPv4 host address",
	} {
		result, err := (&console.Session{}).Execute(console.Default(), console.Live{Links: func() ([]netcfg.LinkState, error) { return nil, nil }}, line)
		if err == nil {
			err = console.Validate(result.Config, []string{"ether1"})
		}
		if want == "" {
			assert.NoError(t, err, line)
		} else {
			assert.ErrorContains(t, err, want, line)
		}
	}
}

// A gateway is asked by ARP if no route asks it by an echo request, on the kernel's link.
func TestCheckGatewayByARP(t *testing.T) {
	s := newGatewayService(nil, &fakeNetwork{})
	s.start.Do(func() {}) // nothing is asked
	for _, test := range []struct {
		name, lines string
		want        map[gateway]question
	}{
		{"arp", "/ip route add check-gateway=arp gateway=10.0.0.9\n", map[gateway]question{{netip.MustParseAddr("10.0.0.9"), ""}: {link: "", arp: true}}},
		{"both", "/ip route add check-gateway=ping gateway=10.0.0.9\n/ip route add check-gateway=arp gateway=10.0.0.9 distance=2\n" +
			"/ip route add check-gateway=ping gateway=10.0.0.9 distance=3\n", map[gateway]question{{netip.MustParseAddr("10.0.0.9"), ""}: {link: "", arp: false}}},
		{"on a port of a bridge", "/interface bridge add name=lan\n/interface bridge port add bridge=lan interface=ether1\n/ip route add check-gateway=arp gateway=\"10.0.0.9%ether1\"\n",
			map[gateway]question{{netip.MustParseAddr("10.0.0.9"), "ether1"}: {link: "lan", arp: true}}},
		{"one that leads nowhere", "/ip route add blackhole check-gateway=arp gateway=10.0.0.9\n", nil},
	} {
		c, err := console.Load(test.name, strings.NewReader(test.lines))
		require.NoError(t, err)
		require.NoError(t, s.Apply(c))
		assert.Equal(t, test.want, s.asks, test.name)
	}
	network := &askedNetwork{}
	s = newGatewayService(nil, network)
	assert.True(t, s.probe(t.Context(), gateway{netip.MustParseAddr("10.0.0.9"), "ether1"}, question{link: "lan", arp: true}))
	assert.Equal(t, "10.0.0.9 lan", network.asked)
}

// askedNetwork notes who is asked by ARP.
type askedNetwork struct {
	fakeNetwork
	asked string
}

func (n *askedNetwork) AskNeighbor(_ context.Context, address netip.Addr, link string) bool {
	n.asked = address.String() + " " + link
	return true
}

// What the router refuses is told again, and is one line of the log until that changes.
func TestRefusedGateways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		fake := newFakeGateways()
		s := newGatewayService(g.r.log, &fakeNetwork{})
		refuse, told := errors.New("refused"), 0
		var mu sync.Mutex
		s.probe, s.setDown = fake.probe, func(map[gateway]bool) error {
			mu.Lock()
			defer mu.Unlock()
			told++
			return refuse
		}
		defer s.Stop()
		fake.set(true, "10.0.0.9")
		c, err := console.Load("routes", strings.NewReader("/ip route add check-gateway=ping gateway=10.0.0.9\n"))
		require.NoError(t, err)
		require.NoError(t, s.Apply(c))
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		assert.Greater(t, told, 3)
		assert.Equal(t, 1, strings.Count(g.log(), "refused"), g.log())
		refuse = errors.New("no more")
		mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, 1, strings.Count(g.log(), "no more"), g.log())
		mu.Lock()
		refuse = nil
		mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Contains(t, g.log(), "gateway 10.0.0.9 does not answer")
	})
}
