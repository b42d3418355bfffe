package router

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/neighbor"
	"github.com/postern-router/postern/service"
)

// newNeighborOn is the service of a router whose links are a host's, with the lines as configuration.
func newNeighborOn(t *testing.T, h *testnet.Host, ports []string, run func(context.Context, service.Job) error, lines string) *neighborService {
	log, _ := testLog(t)
	s := newNeighborService(ports, "v1.2", "malta", run, log)
	s.find = func(name string) (index int, mac ether.MAC, ok bool) {
		_ = h.Do(func() error { index, mac, ok = findLink(name); return nil }) // it always succeeds
		return index, mac, ok
	}
	s.open = func(index int, protocol string) (f *os.File, err error) {
		err = h.Do(func() error { f, err = neighbor.Open(index, protocol); return err })
		return f, err
	}
	c, err := console.Load("test", strings.NewReader(lines))
	require.NoError(t, err)
	require.NoError(t, s.Apply(c))
	t.Cleanup(s.Stop)
	return s
}

// Two routers find each other, one by the port of a bridge. Each frame is read by the process that is shipped.
func TestNeighbors(t *testing.T) {
	log, said := testLog(t)
	supervisor := realSupervisor(t, log, said)
	a, b := testnet.New(t, "a"), testnet.New(t, "b")
	require.NoError(t, testnet.Link(a, "ether2", b, "ether5"))
	require.NoError(t, b.IP("link add bridge type bridge", "link set ether5 master bridge", "link set bridge up"))
	first := newNeighborOn(t, a, []string{"ether1", "ether2"}, supervisor.Run, `/system identity set name=first
/interface ethernet set ether2 name=inside
/ip address add address=192.168.0.1/24 interface=inside
/ip neighbor discovery-settings set discover-interface-list=all`)
	second := newNeighborOn(t, b, []string{"ether5"}, supervisor.Run, `/system identity set name=second
/interface bridge add name=bridge
/interface bridge port add bridge=bridge interface=ether5
/interface list add name=LAN
/interface list member add list=LAN interface=bridge
/ip neighbor discovery-settings set discover-interface-list=LAN`)
	show := func(s *neighborService) string {
		all, err := s.discovered()
		require.NoError(t, err)
		var text strings.Builder
		for _, d := range all {
			assert.Less(t, d.Age, time.Hour)
			fmt.Fprintln(&text, d.Interface, d.Identity, d.Address, d.Board+d.Description, d.Neighbor.Interface, neighbor.Names(d.Does), d.By)
		}
		return text.String()
	}
	for s, want := range map[*neighborService]string{
		// By the port itself and by the bridge above it, which has the port's address.
		first:  "ether2 second invalid IP maltaPostern v1.2 malta bridge bridge,router lldp,mndp\n",
		second: "bridge first 192.168.0.1 malta inside  mndp\nether5 first 192.168.0.1 Postern v1.2 malta inside router lldp\n",
	} {
		var got string
		assert.Eventually(t, func() bool {
			first.announce() // a socket may not have been open yet, or a bridge have passed nothing
			second.announce()
			got = show(s)
			return got == want
		}, time.Minute, 10*time.Millisecond)
		assert.Equal(t, want, got)
	}
	// One that goes away says so, by LLDP.
	first.Stop()
	assert.Eventually(t, func() bool { return !strings.Contains(show(second), "lldp") }, time.Minute, 10*time.Millisecond)
}

// Nothing is sent, and no socket opened, unless somebody has asked for it.
func TestNeighborsAreOff(t *testing.T) {
	a := testnet.New(t, "a")
	require.NoError(t, a.IP("link add ether1 type veth peer name peer1", "link set ether1 up"))
	s := newNeighborOn(t, a, []string{"ether1"}, nil, "")
	sockets := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.links)
	}
	s.announce()
	assert.Zero(t, sockets())
	all, err := s.discovered()
	require.NoError(t, err)
	assert.Empty(t, all)

	c := console.Default()
	c.Discovery = neighbor.Config{List: "all", Protocols: neighbor.LLDP}
	require.NoError(t, s.Apply(c))
	s.announce()
	assert.Equal(t, 1, sockets())
	require.NoError(t, s.Apply(console.Default()))
	s.announce()
	assert.Zero(t, sockets())
}

// The table is bounded for each interface, and what is in it ends.
func TestNeighborTable(t *testing.T) {
	a := testnet.New(t, "a")
	require.NoError(t, a.IP("link add ether1 type veth peer name peer1", "link set ether1 up", "link add ether2 type veth peer name peer2", "link set ether2 up"))
	s := newNeighborOn(t, a, []string{"ether1", "ether2"}, func(context.Context, service.Job) error { return nil },
		"/ip neighbor discovery-settings set discover-interface-list=all")
	s.announce()
	now := time.Now()
	lldp1, mndp1, lldp2 := neighborLink{"ether1", neighbor.LLDP}, neighborLink{"ether1", neighbor.MNDP}, neighborLink{"ether2", neighbor.LLDP}
	n := func(i int, hold time.Duration) neighbor.Neighbor {
		return neighbor.Neighbor{MAC: ether.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}, Hold: hold, Address: netip.AddrFrom4([4]byte{10, 0, 0, 1})}
	}
	for i := range 3 * maxNeighbors {
		s.take(lldp1, n(i, time.Minute), now)
	}
	assert.Len(t, s.table, maxNeighbors)
	s.take(lldp1, n(maxNeighbors+1, time.Minute), now.Add(time.Minute))
	assert.Len(t, s.table, 1, "the others do not hold any more")
	s.take(lldp2, n(0, time.Minute), now)
	s.take(mndp1, n(maxNeighbors+1, time.Hour), now)
	all, err := s.discovered()
	require.NoError(t, err)
	assert.Len(t, all, 2, "by two protocols it is one")
	s.take(lldp2, n(0, 0), now)
	all, err = s.discovered()
	require.NoError(t, err)
	assert.Len(t, all, 1, "it went away")
	s.take(neighborLink{"ether9", neighbor.LLDP}, n(9, time.Minute), now)
	s.take(lldp1, neighbor.Neighbor{MAC: s.links[lldp1].mac, Hold: time.Minute}, now)
	all, err = s.discovered()
	require.NoError(t, err)
	assert.Len(t, all, 1, "the router itself is no neighbor")
}
