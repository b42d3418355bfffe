package netcfg

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestReceiveRing(t *testing.T) {
	for _, c := range []struct {
		memory uint64 // kB
		want   uint32
	}{
		{28_476, 64}, {60_000, 128}, {120_000, 256}, {4 << 20, 8192}, {1, 1}, {1 << 50, 1 << 31},
	} {
		assert.Equal(t, c.want, receiveRing(c.memory<<10), "%d kB", c.memory)
	}
}

func TestRingsAreShortened(t *testing.T) {
	lab(t)
	m := newManager(t, twoPorts...)
	m.receiveRing = 64
	var said, written []string
	m.logf = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	rings := map[string]uint32{"ether1": 256, "ether2": 32, "conduit": 512, "fixed": 512}
	asked := map[string]int{}
	m.ringRequest = func(name string, p *ringParameters) error {
		ring, ok := rings[name]
		switch p.command {
		case unix.ETHTOOL_GRINGPARAM:
			if asked[name]++; !ok {
				return unix.EOPNOTSUPP
			}
			p.maxReceive, p.maxSend, p.receive, p.send = 1024, 1024, ring, 256
			return nil
		case unix.ETHTOOL_SRINGPARAM:
			if name == "fixed" {
				return unix.EINVAL
			}
			assert.EqualValues(t, 256, p.send, "the other rings stay")
			written = append(written, fmt.Sprintf("%s %d", name, p.receive))
			return nil
		}
		return unix.EPERM
	}
	for _, name := range []string{"k0", "k1", "conduit", "fixed", "bare"} {
		plug(t, name)
	}
	require.NoError(t, m.Apply(Config{Bridges: []Bridge{{Name: "bridge1"}}}))
	require.NoError(t, m.Apply(Config{}))
	slices.Sort(written)
	assert.Equal(t, []string{"conduit 64", "ether1 64"}, written)
	assert.Equal(t, []string{"netcfg: receive ring of fixed with 64 packets: invalid argument"}, said, "once")
	assert.NotContains(t, slices.Collect(maps.Keys(asked)), "bridge1")
	assert.NotContains(t, slices.Collect(maps.Keys(asked)), "lo")
}

// A device that has vanished is forgotten: another one can come with its index.
func TestRingsOfVanishedDevices(t *testing.T) {
	var asked []string
	m := &Manager{receiveRing: 64, ringsSeen: map[int]bool{}, ringRequest: func(name string, _ *ringParameters) error {
		asked = append(asked, name)
		return unix.EOPNOTSUPP
	}}
	stays := link{index: 2, name: "stays"}
	for range 2 {
		m.shortenRings([]link{stays, {index: 3, name: "vanishes"}})
		m.shortenRings([]link{stays})
	}
	assert.Equal(t, []string{"stays", "vanishes", "vanishes"}, asked)
	assert.Equal(t, map[int]bool{2: true}, m.ringsSeen)
}

// The kernel takes the request for what it is: a device without rings has none to be read.
func TestRingRequest(t *testing.T) {
	lab(t)
	plug(t, "k0")
	for _, command := range []uint32{unix.ETHTOOL_GRINGPARAM, unix.ETHTOOL_SRINGPARAM} {
		assert.ErrorIs(t, ringRequest("k0", &ringParameters{command: command}), unix.EOPNOTSUPP)
		assert.ErrorIs(t, ringRequest("nobody", &ringParameters{command: command}), unix.ENODEV)
	}
}
