package router

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/dhcp/client"
	"github.com/postern-router/postern/netcfg"
)

// onePort is a board with one port.
var onePort = board.Board{Name: "one-port", LAN: "ether1", Ports: []board.Port{{Name: "ether1", Device: "pci0/1"}}}

func TestFallback(t *testing.T) {
	fallback := netcfg.Address{Address: lanDefault, Interface: "ether1", Comment: fallbackSource}
	given := Layer{Addresses: []netcfg.Address{fallback}}
	leased := address("10.0.0.5/8", "ether1")
	// asking is the configuration of a port that asks for an address and has these.
	asking := func(addresses ...netcfg.Address) console.Config {
		c := console.Default()
		c.DHCPClients = []client.Config{{Interface: "ether1"}}
		c.Addresses = addresses
		return c
	}
	for _, c := range []struct {
		name string
		play func(apply func(console.Config), after func(time.Duration, ...Layer))
	}{
		{"somebody answers in time", func(apply func(console.Config), after func(time.Duration, ...Layer)) {
			apply(asking())
			after(fallbackAfter - time.Second)
			apply(asking(leased))
			after(time.Hour)
		}},
		{"a lease ends and comes again", func(apply func(console.Config), after func(time.Duration, ...Layer)) {
			apply(asking(leased))
			after(time.Hour)
			apply(asking())
			apply(asking())
			after(fallbackAfter - time.Second)
			after(time.Second, given)
			apply(asking(fallback)) // as the router tells it then
			after(time.Hour)
			apply(asking(fallback, leased))
			after(0, Layer{})
		}},
		{"the user asks for none", func(apply func(console.Config), after func(time.Duration, ...Layer)) {
			apply(console.Default())
			after(time.Hour)
			apply(asking())
			after(fallbackAfter, given)
			disabled := asking(fallback)
			disabled.DHCPClients[0].Disabled = true
			apply(disabled)
			after(0, Layer{})
		}},
		{"the user set an address, even this one", func(apply func(console.Config), after func(time.Duration, ...Layer)) {
			apply(asking(address("192.168.0.1/24", "ether1")))
			after(time.Hour)
		}},
		{"an address that is disabled is none", func(apply func(console.Config), after func(time.Duration, ...Layer)) {
			disabled := leased
			disabled.Disabled = true
			apply(asking(disabled))
			after(fallbackAfter, given)
		}},
		{"the port is a bridge's, which asks", func(apply func(console.Config), after func(time.Duration, ...Layer)) {
			bridged := asking()
			bridged.Bridges = []netcfg.Bridge{{Name: "bridge"}}
			bridged.BridgePorts = []netcfg.BridgePort{{Bridge: "bridge", Interface: "ether1"}}
			bridged.DHCPClients[0].Interface = "bridge"
			apply(bridged)
			after(fallbackAfter, given)
			bridged.Addresses = []netcfg.Address{fallback, address("10.0.0.5/8", "bridge")}
			apply(bridged)
			after(0, Layer{})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, said := testLog(t)
				var mu sync.Mutex
				var layers []Layer
				s := newFallbackService(onePort, log)
				s.setLayer = func(source string, l Layer) error {
					assert.Equal(t, fallbackSource, source)
					if !l.empty() {
						assert.Contains(t, said(), "ether1 has no address in 30s: the router is at 192.168.0.1")
					}
					mu.Lock()
					defer mu.Unlock()
					layers = append(layers, l)
					return nil
				}
				c.play(func(c console.Config) { require.NoError(t, s.Apply(c)) }, func(d time.Duration, want ...Layer) {
					t.Helper()
					time.Sleep(d)
					synctest.Wait()
					mu.Lock()
					defer mu.Unlock()
					assert.Equal(t, want, layers)
					layers = nil
				})
				s.Stop()
				require.NoError(t, s.Apply(asking()))
				require.NoError(t, s.Apply(console.Default()))
				time.Sleep(time.Hour)
				assert.Empty(t, layers, "after Stop")
			})
		})
	}
	t.Run("what is refused is tried again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log, said := testLog(t)
			s := newFallbackService(onePort, log)
			var tries atomic.Int32
			s.setLayer = func(string, Layer) error {
				if tries.Add(1) < 3 {
					return errFake
				}
				return nil
			}
			require.NoError(t, s.Apply(asking()))
			time.Sleep(2*fallbackAfter + time.Second)
			synctest.Wait()
			assert.EqualValues(t, 2, tries.Load())
			assert.Contains(t, said(), errFake.Error())
			time.Sleep(time.Hour)
			s.Stop()
			assert.EqualValues(t, 3, tries.Load())
		})
	})
	t.Run("stopped before it began", func(t *testing.T) {
		log, _ := testLog(t)
		s := newFallbackService(onePort, log)
		s.Stop()
		require.NoError(t, s.Apply(asking()))
	})
	t.Run("a board with more ports", func(t *testing.T) {
		log, _ := testLog(t)
		malta, err := board.ByName("malta")
		require.NoError(t, err)
		s := newFallbackService(malta, log)
		require.NoError(t, s.Apply(asking()))
		s.Stop()
	})
}

// TestFallbackOfRouter has the router of a board with one port, with what such a board starts with.
func TestFallbackOfRouter(t *testing.T) {
	g := newRig(t)
	b := onePort
	mr3020, err := board.ByName("tl-mr3020")
	require.NoError(t, err)
	g.r.board = b
	g.network.state = func() ([]netcfg.LinkState, error) {
		return []netcfg.LinkState{{Name: "ether1", Present: true}}, nil
	}
	g.file("default.rsc", mr3020.DefaultConfiguration())
	synctest.Test(t, func(t *testing.T) {
		s := newFallbackService(b, g.r.log)
		defer s.Stop()
		s.setLayer = g.r.SetLayer
		g.r.services = []Service{s}
		g.r.changing, g.r.stopped = make(chan struct{}, 1), make(chan struct{}) // of this bubble
		g.r.start()
		require.True(t, g.r.snapshot().forwarding, g.log())
		shown := func() string {
			t.Helper()
			synctest.Wait()
			out, err := g.run(&session.Session{}, "/ip address print")
			require.NoError(t, err)
			return out
		}
		assert.NotContains(t, shown(), "192.168.0.1")
		time.Sleep(fallbackAfter)
		assert.Regexp(t, `(?m)^ 0 D 192\.168\.0\.1/24 `, shown())
		// The network is that of a router which also is at 192.168.0.1.
		lease := Layer{Addresses: []netcfg.Address{address("192.168.0.57/24", "ether1")},
			Routes: []netcfg.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: lanDefault.Addr(), Distance: 1}}}
		require.NoError(t, g.r.SetLayer("dhcp ether1", lease))
		out := shown()
		assert.NotContains(t, out, "192.168.0.1/")
		assert.Contains(t, out, "192.168.0.57/24")
		assert.Equal(t, lease.Routes, g.network.config.Routes)
	})
}
