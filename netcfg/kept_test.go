package netcfg

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A neighbour that has answered is kept until it is gone or was silent for long; gateways stay as they are.
func TestNeighborsKept(t *testing.T) {
	r := newARPRig(t)
	c := router()
	c.Routes = []Route{by("0.0.0.0/0", "10.0.0.1", 1)}
	r.apply(t, c)
	look := func() (host, gateway string) {
		t.Helper()
		require.NoError(t, r.router.Do(func() error {
			require.NoError(t, r.m.keepNeighbors())
			host, gateway = ip(t, "neigh show 192.168.0.9 dev ether2"), ip(t, "neigh show 10.0.0.1 dev ether1")
			return nil
		}))
		return host, gateway
	}
	kept := func() {
		t.Helper()
		eventually(t, func() bool { return r.asks(t, "192.168.0.9") })
		host, gateway := look()
		assert.Regexp(t, `lladdr 02:00:00:00:00:09 .*extern_learn`, host)
		assert.NotContains(t, host, "managed")
		assert.Regexp(t, `managed.* extern_learn`, gateway)
	}
	kept()
	kept() // and looked at again
	t.Run("there is no room", func(t *testing.T) {
		most := r.m.mostKept
		r.m.mostKept = 0
		host, gateway := look()
		assert.Contains(t, host, "lladdr 02:00:00:00:00:09")
		assert.NotContains(t, host, "extern_learn")
		assert.Regexp(t, `managed.* extern_learn`, gateway)
		r.m.mostKept = most
		kept()
	})
	t.Run("it is gone", func(t *testing.T) {
		require.NoError(t, r.lan.IP("link set eth0 arp off"))
		assert.False(t, r.asks(t, "192.168.0.9"))
		eventually(t, func() bool { host, _ := look(); return host == "" })
		require.NoError(t, r.lan.IP("link set eth0 arp on"))
		kept()
	})
	t.Run("none is to be learnt", func(t *testing.T) {
		closed := c
		closed.Links = []Link{{Name: "ether2", ARP: ARPReplyOnly}}
		r.apply(t, closed)
		host, _ := look()
		assert.NotContains(t, host, "extern_learn")
	})
}

// Links share what can be kept; on each those kept already go first, then who was heard last.
func TestChooseKept(t *testing.T) {
	at := func(link string, number byte, kept bool, silence time.Duration) known {
		return known{link, netip.AddrFrom4([4]byte{192, 168, 0, number}), kept, silence}
	}
	for _, test := range []struct {
		name string
		all  []known
		most int
		want []bool
	}{
		{"none", nil, 2, []bool{}},
		{"all", []known{at("a", 1, false, 0), at("b", 2, true, time.Minute)}, 2, []bool{true, true}},
		{"no room", []known{at("a", 1, true, 0)}, 0, []bool{false}},
		{"silent for too long", []known{at("a", 1, true, keptFor), at("a", 2, true, keptFor-time.Second)}, 2, []bool{false, true}},
		{"kept before", []known{at("a", 1, false, 0), at("a", 2, true, time.Minute)}, 1, []bool{false, true}},
		{"heard last", []known{at("a", 1, false, time.Second), at("a", 2, false, 0), at("a", 3, false, 2*time.Second)}, 2, []bool{true, true, false}},
		{"a crowd on another link", []known{at("a", 1, true, 0), at("a", 2, true, 0), at("a", 3, true, 0), at("b", 4, false, 0)}, 2, []bool{true, false, false, true}},
		{"what some do not need", []known{at("a", 1, true, 0), at("a", 2, true, 0), at("a", 3, true, 0), at("b", 4, false, 0)}, 4, []bool{true, true, true, true}},
	} {
		assert.Equal(t, test.want, chooseKept(test.all, test.most), test.name)
	}
	assert.Equal(t, 128, keptNeighbors(25<<20))
	assert.Equal(t, 4096, keptNeighbors(8<<30))
}
