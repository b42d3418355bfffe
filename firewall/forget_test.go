package firewall

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/testnet"
)

const (
	clientIP = "192.168.0.2"
	serverIP = "10.5.8.8"
)

// site is a client and a server with a router between them, which tracks connections and
// masquerades those of the client.
type site struct {
	*testing.T
	client, router, server *testnet.Host
	firewall               *Firewall
}

// newSite returns a site. The goroutine is on the router.
func newSite(t *testing.T) *site {
	t.Helper()
	runtime.LockOSThread()
	s := &site{T: t, client: testnet.New(t, "client"), router: testnet.New(t, "router"), server: testnet.New(t, "server")}
	require.NoError(t, testnet.Link(s.client, "eth0", s.router, "ether2"))
	require.NoError(t, testnet.Link(s.server, "eth0", s.router, "ether1"))
	require.NoError(t, s.client.IP("addr add "+clientIP+"/24 dev eth0", "route add default via 192.168.0.1"))
	require.NoError(t, s.server.IP("addr add "+serverIP+"/24 dev eth0", "route add 192.168.0.0/24 via 10.5.8.1"))
	require.NoError(t, s.router.IP("addr add 192.168.0.1/24 dev ether2", "addr add 10.5.8.1/24 dev ether1"))
	require.NoError(t, s.router.Set("net.ipv4.ip_forward", "1"))
	require.NoError(t, s.router.Enter())
	s.firewall = newFirewall(t, "iptables-legacy")
	s.apply(masquerade)
	return s
}

var masquerade = []Rule{{Chain: "srcnat", Action: "masquerade", SrcAddress: addresses("192.168.0.0/24")}}

func (s *site) apply(nat []Rule) {
	s.Helper()
	require.NoError(s, s.firewall.Apply(Config{
		Filter: []Rule{{Chain: "forward", Action: "drop", ConnectionState: "invalid"}},
		NAT:    nat,
	}))
}

// tracked waits until the kernel tracks a connection with that protocol and state.
func (s *site) tracked(protocol, state string) (found Tracked) {
	s.Helper()
	require.Eventually(s, func() bool {
		for _, c := range s.list() {
			if c.Protocol == protocol && c.State == state {
				found = c
				return true
			}
		}
		return false
	}, time.Minute, time.Millisecond, "%s %s", protocol, state)
	return found
}

// list lists what the router tracks. It may be called on any thread.
func (s *site) list() (all []Tracked) {
	s.Helper()
	require.NoError(s, s.router.Do(func() (err error) {
		all, err = ListTracked()
		return err
	}))
	return all
}

// tcp connects the client with the server.
func (s *site) tcp() (client, server net.Conn) {
	s.Helper()
	l, err := s.server.Listen(serverIP + ":0")
	require.NoError(s, err)
	defer l.Close()
	client, err = s.client.Dial(&net.Dialer{}, l.Addr().String())
	require.NoError(s, err)
	server, err = l.Accept()
	require.NoError(s, err)
	s.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// udp returns a socket of the server, and one of the client that has sent it a datagram and got
// an answer.
func (s *site) udp() (client, server *net.UDPConn) {
	s.Helper()
	require.NoError(s, s.server.Do(func() (err error) {
		server, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(serverIP)})
		return err
	}))
	require.NoError(s, s.client.Do(func() (err error) {
		client, err = net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
		return err
	}))
	s.Cleanup(func() { client.Close(); server.Close() })
	from := s.exchange(client, server)
	_, err := server.WriteToUDPAddrPort([]byte("answer"), from)
	require.NoError(s, err)
	_, err = client.Read(make([]byte, 10))
	require.NoError(s, err)
	return client, server
}

// exchange sends the server a datagram, and returns whom it comes from.
func (s *site) exchange(client, server *net.UDPConn) netip.AddrPort {
	s.Helper()
	_, err := client.Write([]byte("ask"))
	require.NoError(s, err)
	require.NoError(s, server.SetReadDeadline(time.Now().Add(time.Minute)))
	_, from, err := server.ReadFromUDPAddrPort(make([]byte, 10))
	require.NoError(s, err)
	return from
}

// parameters are those that Forget changes.
func parameters(t *testing.T) (all []string) {
	t.Helper()
	for _, p := range forgetting {
		text, err := os.ReadFile(trackingFolder + p.name)
		require.NoError(t, err)
		all = append(all, strings.TrimSpace(string(text)))
	}
	return all
}

func TestForget(t *testing.T) {
	for _, c := range []struct {
		name  string
		begin func(s *site) Tracked
	}{
		{"TCP", func(s *site) Tracked { s.tcp(); return s.tracked("tcp", "established") }},
		{"TCP, with data", func(s *site) Tracked {
			client, server := s.tcp()
			for _, from := range []net.Conn{client, server} {
				_, err := from.Write(make([]byte, 100_000))
				require.NoError(s, err)
			}
			return s.tracked("tcp", "established")
		}},
		{"TCP, ended", func(s *site) Tracked {
			client, server := s.tcp()
			client.Close()
			server.Close()
			return s.tracked("tcp", "time_wait")
		}},
		{"TCP without an answer", func(s *site) Tracked {
			require.NoError(s, s.server.IP("link set eth0 down"))
			dialed := make(chan struct{})
			go func() {
				defer close(dialed)
				_, err := s.client.Dial(&net.Dialer{Timeout: time.Second}, serverIP+":9")
				assert.Error(s, err)
			}()
			s.Cleanup(func() { <-dialed })
			return s.tracked("tcp", "syn_sent")
		}},
		{"UDP", func(s *site) Tracked { s.udp(); return s.tracked("udp", "") }},
		{"UDP of long standing", func(s *site) Tracked {
			client, server := s.udp()
			// The kernel takes it for a stream after 2 seconds.
			require.Eventually(s, func() bool {
				_, err := server.WriteToUDPAddrPort([]byte("more"), s.exchange(client, server))
				return err == nil && s.tracked("udp", "").Timeout > 60*time.Second
			}, time.Minute, 100*time.Millisecond)
			return s.tracked("udp", "")
		}},
		{"ICMP", func(s *site) Tracked {
			require.NoError(s, s.client.Run("ping", "-c", "1", serverIP))
			return s.tracked("icmp", "")
		}},
		{"TCP by dst-nat", func(s *site) Tracked {
			l, err := s.client.Listen(clientIP + ":7200")
			require.NoError(s, err)
			defer l.Close()
			s.apply(append(masquerade, Rule{Chain: "dstnat", Action: "dst-nat", Protocol: "tcp", DstAddress: addresses("10.5.8.1"), DstPort: ports("8080"),
				ToAddresses: addresses(clientIP), ToPorts: ports("7200")}))
			conn, err := s.server.Dial(&net.Dialer{}, "10.5.8.1:8080")
			require.NoError(s, err)
			s.Cleanup(func() { conn.Close() })
			return s.tracked("tcp", "established")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			doomed := c.begin(s)
			before := parameters(t)
			n, err := Forget([]Tracked{doomed})
			require.NoError(t, err)
			assert.Equal(t, 1, n)
			for _, left := range s.list() {
				assert.NotEqual(t, doomed.flow(), left.flow())
			}
			assert.Equal(t, before, parameters(t))
		})
	}
	t.Run("others stay", func(t *testing.T) {
		s := newSite(t)
		client, server := s.udp()
		s.tcp()
		kept := s.tracked("tcp", "established")
		_, err := Forget([]Tracked{s.tracked("udp", "")})
		require.NoError(t, err)
		assert.Equal(t, kept.flow(), s.tracked("tcp", "established").flow())
		// Neither end was told of anything, and what is sent begins a new one.
		require.NoError(t, client.SetReadDeadline(time.Now().Add(time.Millisecond)))
		_, err = client.Read(make([]byte, 10))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		s.exchange(client, server)
		s.tracked("udp", "")
	})
	t.Run("a connection goes on", func(t *testing.T) {
		s := newSite(t)
		client, server := s.tcp()
		n, err := Forget([]Tracked{s.tracked("tcp", "established")})
		require.NoError(t, err)
		assert.Equal(t, 1, n)
		_, err = client.Write([]byte("x"))
		require.NoError(t, err)
		require.NoError(t, server.SetReadDeadline(time.Now().Add(time.Minute)))
		_, err = server.Read(make([]byte, 1))
		require.NoError(t, err, "it is taken up again in the middle")
	})
	t.Run("none", func(t *testing.T) {
		n, err := Forget(nil)
		require.NoError(t, err)
		assert.Zero(t, n)
	})
	t.Run("one of another protocol", func(t *testing.T) {
		newSite(t)
		n, err := Forget([]Tracked{{Protocol: "gre", Src: netip.MustParseAddrPort("10.0.0.1:0"), Dst: netip.MustParseAddrPort("10.0.0.2:0")}})
		require.NoError(t, err)
		assert.Equal(t, 1, n, "it is not there")
	})
}

// Rules of the user do not keep connections from being forgotten, and neither see nor log what ends them.
func TestForgetPastRules(t *testing.T) {
	s := newSite(t)
	lan := addresses("192.168.0.0/24")
	c := Config{
		Filter: []Rule{{Chain: "output", Action: "passthrough", SrcAddress: lan}, {Chain: "input", Action: "passthrough", InInterface: "lo"}},
		Mangle: []Rule{{Chain: "output", Action: "passthrough", SrcAddress: lan}, {Chain: "prerouting", Action: "passthrough", InInterface: "lo"}},
		Raw:    []Rule{{Chain: "output", Action: "drop", SrcAddress: lan}, {Chain: "prerouting", Action: "passthrough", InInterface: "lo"}},
		NAT:    masquerade,
	}
	require.NoError(t, s.firewall.Apply(c))
	s.tcp()
	s.udp()
	require.NoError(t, s.client.Run("ping", "-c", "1", serverIP))
	doomed := []Tracked{s.tracked("tcp", "established"), s.tracked("udp", ""), s.tracked("icmp", "")}
	n, err := Forget(doomed)
	require.NoError(t, err)
	assert.Equal(t, 3, n)
	assert.Empty(t, s.list())
	for _, table := range []Table{Filter, Mangle, Raw} {
		counters, err := s.firewall.Counters(table)
		require.NoError(t, err)
		assert.Equal(t, make([]Counter, 2), counters, table)
	}
	// They see what else leaves by that interface.
	require.NoError(t, s.router.Run("ping", "-c", "1", "10.5.8.1"))
	for table, want := range map[Table]uint64{Filter: 0, Mangle: 2, Raw: 2} {
		counters, err := s.firewall.Counters(table)
		require.NoError(t, err)
		assert.Equal(t, want, counters[1].Packets, table)
	}
}

// However many forget at once, the parameters are in the end what they were.
func TestForgetAtOnce(t *testing.T) {
	s := newSite(t)
	require.NoError(t, DefaultTracking().Set())
	s.udp()
	doomed := []Tracked{s.tracked("udp", "")}
	before := parameters(t)
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			assert.NoError(t, s.router.Do(func() error {
				for range 50 {
					if _, err := Forget(doomed); err != nil {
						return err
					}
					if err := DefaultTracking().Set(); err != nil {
						return err
					}
				}
				return nil
			}))
		})
	}
	running.Wait()
	assert.Equal(t, before, parameters(t))
}

// What was sent to everybody, as each host does that asks for an address, keeps no other connection.
func TestForgetBroadcasts(t *testing.T) {
	s := newSite(t)
	s.tcp()
	for _, to := range []string{"255.255.255.255:67", "192.168.0.255:137"} {
		require.NoError(t, s.client.Do(func() error {
			c, err := net.Dial("udp4", to)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("all"))
			return err
		}))
		require.Eventually(t, func() bool {
			return slices.ContainsFunc(s.list(), func(c Tracked) bool { return c.Dst.String() == to })
		}, time.Minute, time.Millisecond, to)
	}
	s.tracked("tcp", "established")
	all := s.list()
	require.Len(t, all, 3)
	// The one that is to be forgotten last stands behind the others.
	slices.SortStableFunc(all, func(a, b Tracked) int { return strings.Compare(b.Protocol, a.Protocol) })
	n, err := Forget(all)
	require.NoError(t, err)
	assert.Equal(t, 3, n)
	assert.Empty(t, s.list())
}
