package netcfg

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
)

func TestWaiting(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts[0], twoPorts[1], Port{"ether3", "k2"})
	w, err := m.Waiting()
	require.NoError(t, err)
	assert.Equal(t, Waiting{}, w, "nothing is configured")
	c := bridged()
	c.BridgePorts = append(c.BridgePorts, BridgePort{Bridge: "bridge1", Interface: "ether3"},
		BridgePort{Bridge: "bridge1", Interface: "ether3", Disabled: true})
	c.VLANs = []VLAN{{Name: "v1", Interface: "ether3", ID: 1}, {Name: "v2", Interface: "ether3", ID: 2, Disabled: true}}
	c.BridgePorts[1].Interface, c.BridgePorts[2].Interface = "v1", "v1"
	c.Addresses = append(c.Addresses, address("10.3.0.1/24", "ether3"), address("10.4.0.1/24", "v2"))
	c.Addresses[3].Disabled = true
	c.Routes = append(c.Routes, by("10.5.0.0/16", "10.3.0.9", 1), by("10.6.0.0/16", "10.3.0.9", 1))
	c.Routes[3].Disabled = true
	require.NoError(t, m.Apply(c))
	w, err = m.Waiting()
	require.NoError(t, err)
	assert.Equal(t, Waiting{VLANs: []int{0}, BridgePorts: []int{1}, Addresses: []int{2}, Routes: []int{2}}, w)

	c.Links = append(c.Links, Link{Name: "ether1"})
	c.Links[0].Disabled = true
	c.Links = c.Links[:1]
	require.NoError(t, m.Apply(c))
	w, err = m.Waiting()
	require.NoError(t, err)
	assert.Equal(t, []int{0, 2}, w.Addresses, "their ports are disabled, or missing")
	assert.Equal(t, []int{0, 2}, w.Routes)
}

func TestDynamic(t *testing.T) {
	lab(t, "k0", "k1", "other")
	ip(t, "link set other up")
	ip(t, "addr add 10.9.0.1/24 dev other")
	ip(t, "route add 10.10.0.0/16 via 10.9.0.2 metric 7")
	m := newManager(t, twoPorts...)
	require.NoError(t, m.Apply(bridged()))
	addresses, routes, err := m.Dynamic()
	require.NoError(t, err)
	assert.Equal(t, []Address{address("10.9.0.1/24", "other")}, addresses)
	assert.ElementsMatch(t, []KernelRoute{
		{netip.MustParsePrefix("10.0.0.0/24"), netip.Addr{}, "ether1", 0},
		{netip.MustParsePrefix("10.9.0.0/24"), netip.Addr{}, "other", 0},
		{netip.MustParsePrefix("10.10.0.0/16"), netip.MustParseAddr("10.9.0.2"), "other", 7},
		{netip.MustParsePrefix("192.168.0.0/24"), netip.Addr{}, "bridge1", 0},
	}, routes)
}

func TestNeighbors(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	c := router()
	c.Routes = nil // gateways have an entry
	require.NoError(t, m.Apply(c))
	ip(t, "neigh add 192.168.0.7 lladdr 02:00:00:00:00:07 dev ether2 nud reachable")
	ip(t, "neigh add 10.0.0.7 lladdr 02:00:00:00:00:08 dev ether1 nud permanent")
	ip(t, "neigh add 10.0.0.8 lladdr 02:00:00:00:00:08 dev ether1 nud noarp")
	ip(t, "neigh add 10.0.0.9 dev ether1 nud incomplete")
	neighbors, err := m.Neighbors()
	require.NoError(t, err)
	assert.ElementsMatch(t, []Neighbor{
		{netip.MustParseAddr("10.0.0.7"), ether.MAC{2, 0, 0, 0, 0, 8}, "ether1", true},
		{netip.MustParseAddr("10.0.0.9"), ether.MAC{}, "ether1", false},
		{netip.MustParseAddr("192.168.0.7"), ether.MAC{2, 0, 0, 0, 0, 7}, "ether2", false},
	}, neighbors)
}

// message returns a netlink message.
func message(typ, flags uint16, seq uint32, body ...byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	return append(append(b, 0, 0, 0, 0), body...)
}

func TestMessages(t *testing.T) {
	const ours = 7
	number := func(n int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }
	for _, test := range []struct {
		name     string
		datagram []byte
		want     []string
		done     bool
		err      string
	}{
		{"a list goes on", slices.Concat(message(16, 2, ours, 'a', 0, 0, 0), message(16, 2, ours, 'b', 0, 0, 0)), []string{"a", "b"}, false, ""},
		{"and ends", slices.Concat(message(16, 2, ours, 'a', 0, 0, 0), message(unix.NLMSG_DONE, 2, ours, number(0)...)), []string{"a"}, true, ""},
		{"an answer to another request", message(16, 2, ours-1, 'a', 0, 0, 0), nil, false, ""},
		{"of another type", message(20, 2, ours, 'a', 0, 0, 0), nil, false, ""},
		{"a refusal", message(unix.NLMSG_ERROR, 0, ours, number(-int32(unix.EINVAL))...), nil, false, "invalid argument"},
		{"a list that fails", message(unix.NLMSG_DONE, 2, ours, number(-int32(unix.ENODEV))...), nil, false, "no such device"},
		{"cut off", message(16, 2, ours, 'a', 0, 0, 0)[:18], nil, false, "message of 20 bytes, where there are 18"},
		{"too short", append(number(3), make([]byte, 12)...), nil, false, "message of 3 bytes, where there are 16"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := conn{seq: ours}
			var got []string
			interrupted := false
			done, err := c.messages(test.datagram, 16, &interrupted, func(body []byte) error {
				got = append(got, string(body[:1]))
				return nil
			})
			assert.Equal(t, test.want, got)
			assert.Equal(t, test.done, done)
			assert.False(t, interrupted)
			if test.err == "" {
				assert.NoError(t, err)
			} else {
				assert.EqualError(t, err, test.err)
			}
		})
	}
	c := conn{seq: ours}
	interrupted := false
	_, err := c.messages(message(16, unix.NLM_F_DUMP_INTR, ours), 16, &interrupted, func([]byte) error { return nil })
	require.NoError(t, err)
	assert.True(t, interrupted)
}

// The parsers must neither panic nor read beyond a message, even though the kernel is
// trusted.
func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(append(make([]byte, 16), 8, 0, 4, 0, 0xdc, 5, 0, 0, 5, 0, 3, 0, 'a'))
	f.Add(append(make([]byte, 16), 20, 0, 18, 0, 11, 0, 1, 0, 'b', 'r', 'i', 'd', 'g', 'e', 0, 0, 4, 0, 2, 0))
	f.Add(append([]byte{2, 24, 0, 0, 1, 0, 0, 0}, 8, 0, 2, 0, 10, 0, 0, 1, 8, 0, 1, 0, 10, 0, 0, 1))
	f.Add(append(make([]byte, 12), 8, 0, 1, 0, 10, 0, 0, 1, 10, 0, 2, 0, 2, 0, 0, 0, 0, 1))
	links := []link{{index: 1, name: "a"}}
	f.Fuzz(func(t *testing.T, message []byte) {
		l, err := parseLink(message)
		assert.LessOrEqual(t, len(l.name), len(message))
		if err == nil {
			assert.GreaterOrEqual(t, len(message), 16)
		}
		a, err := parseAddr(message, links)
		if err == nil {
			assert.Contains(t, []string{"", "a"}, a.link)
		}
		_, _ = parseRoute(message, links)
		_, _ = parseRule(message)
		var c conn
		interrupted := false
		_, _ = c.messages(message, unix.RTM_NEWLINK, &interrupted, func([]byte) error { return nil })
		_, _ = parseNeighbor(message, links)
	})
}
