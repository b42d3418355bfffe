package netcfg

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// card is a driver with modes, as ethtool(8) speaks to it.
type card struct {
	supported, advertising Modes
	autoNegotiation        bool
	speed                  uint32
	duplex                 uint8
	refuses                error
	changes                int
}

const gigabit = 1<<6 - 1 // the first six modes

func (c *card) request(_ string, r *modeMessage) error {
	const words = 4
	if r.command == unix.ETHTOOL_GLINKSETTINGS && r.words != words {
		r.words = -words
		return nil
	}
	if r.words != words {
		return unix.EINVAL
	}
	supported, advertising := modeMask{}.with(c.supported), modeMask{}.with(c.advertising)
	supported[0], advertising[0] = supported[0]|1<<6|1<<13, advertising[0]|1<<6|1<<13 // Autoneg, Pause
	switch r.command {
	case unix.ETHTOOL_GLINKSETTINGS:
		r.speed, r.duplex, r.autoNegotiation, r.master = c.speed, c.duplex, 0, 3
		if c.autoNegotiation {
			r.autoNegotiation = 1
		}
		copy(r.masks[:words], supported[:])
		copy(r.masks[words:], advertising[:words])
	case unix.ETHTOOL_SLINKSETTINGS:
		if c.refuses != nil {
			return c.refuses
		}
		var mask modeMask
		copy(mask[:words], r.masks[words:2*words])
		if r.master != 0 || mask[0]&(1<<6|1<<13) != 1<<6|1<<13 {
			return unix.EINVAL
		}
		c.autoNegotiation, c.advertising = r.autoNegotiation == 1, mask.modes()
		if !c.autoNegotiation {
			c.speed, c.duplex = r.speed, r.duplex
		}
		c.changes++
	default:
		return unix.EPERM
	}
	return nil
}

func TestModes(t *testing.T) {
	lab(t, "k0")
	m := newManager(t, Port{"ether1", "k0"})
	c := &card{supported: gigabit, advertising: gigabit, autoNegotiation: true, speed: 1000, duplex: 1}
	m.modeRequest = c.request
	apply := func(l Link) error {
		l.Name = "ether1"
		return m.Apply(Config{Links: []Link{l}})
	}
	mode := ModeNamed
	for _, step := range []struct {
		name    string
		link    Link
		want    card
		refused string
	}{
		{"nothing said", Link{}, card{advertising: gigabit, autoNegotiation: true, speed: 1000, duplex: 1}, ""},
		{"the same is no change", Link{Advertise: gigabit}, card{advertising: gigabit, autoNegotiation: true, speed: 1000, duplex: 1}, ""},
		{"some, and one that it cannot", Link{Advertise: mode("100M-baseT-full") | mode("10M-full") | mode("10G-baseT")},
			card{advertising: mode("10M-baseT-full") | mode("100M-full"), autoNegotiation: true, speed: 1000, duplex: 1, changes: 1}, ""},
		{"fixed", Link{NoAutoNegotiation: true, Fixed: mode("100M-baseT-half")}, card{advertising: gigabit, speed: 100, changes: 2}, ""},
		{"fixed to what it has", Link{NoAutoNegotiation: true}, card{advertising: gigabit, speed: 1000, duplex: 1, changes: 3}, ""},
		{"a speed without effect", Link{Fixed: mode("10M-half")}, card{advertising: gigabit, autoNegotiation: true, speed: 1000, duplex: 1, changes: 4}, ""},
		{"none that it can", Link{Advertise: mode("10G-baseT")}, card{advertising: gigabit, autoNegotiation: true, speed: 1000, duplex: 1, changes: 4},
			"set link ether1 auto-negotiation=yes advertise=: the card refuses: expected one of the modes that the card can offer: " +
				"10M-baseT-half,10M-baseT-full,100M-baseT-half,100M-baseT-full,1G-baseT-half,1G-baseT-full"},
	} {
		err := apply(step.link)
		if step.refused != "" {
			require.EqualError(t, err, step.refused, step.name)
		} else {
			require.NoError(t, err, step.name)
		}
		step.want.supported = gigabit
		assert.Equal(t, step.want, *c, step.name)
	}
	t.Run("refused, after another change", func(t *testing.T) {
		c.refuses = unix.EOPNOTSUPP
		defer func() { c.refuses = nil }()
		before := shown(t)
		require.EqualError(t, apply(Link{MTU: 1400, NoAutoNegotiation: true, Fixed: mode("100M-full")}),
			"set link ether1 auto-negotiation=no speed=100M-baseT-full: the card refuses: operation not supported")
		assert.Equal(t, before, shown(t))
	})
	t.Run("undone with the rest", func(t *testing.T) {
		before := c.changes
		bad := Config{Links: []Link{{Name: "ether1", Advertise: mode("10M-full")}}, Addresses: []Address{address("10.8.0.1/24", "ether1")},
			Routes: []Route{by("10.9.0.0/16", "10.8.0.255", 1)}}
		require.ErrorContains(t, m.Apply(bad), "10.9.0.0/16")
		assert.Equal(t, card{supported: gigabit, advertising: gigabit, autoNegotiation: true, speed: 1000, duplex: 1, changes: before + 2}, *c)
	})
	t.Run("repaired", func(t *testing.T) {
		require.NoError(t, apply(Link{Advertise: mode("10M-full")}))
		c.advertising = gigabit
		changes, err := m.repair()
		require.NoError(t, err)
		assert.Equal(t, []string{"set link ether1 auto-negotiation=yes advertise=10M-baseT-full"}, changes)
		require.NoError(t, apply(Link{}))
		assert.EqualValues(t, gigabit, c.advertising)
	})
	t.Run("asked", func(t *testing.T) {
		modes, err := m.PortModes("ether1")
		require.NoError(t, err)
		assert.Equal(t, PortModes{AutoNegotiation: true, Speed: 1000, FullDuplex: true, Advertising: gigabit, Supported: gigabit}, modes)
	})
	t.Run("not valid", func(t *testing.T) {
		require.EqualError(t, apply(Link{Fixed: 3}), "link ether1: speed=10M-baseT-half,10M-baseT-full: expected one")
		require.EqualError(t, apply(Link{Advertise: 1 << 15}), "link ether1: advertise=, speed=: expected modes that there are")
	})
}

// A card without modes, as the cable of a test is, says so by the kernel's own words.
func TestModesOfVirtualCards(t *testing.T) {
	lab(t, "k0")
	m := newManager(t, Port{"ether1", "k0"})
	require.NoError(t, m.Apply(Config{}))
	modes, err := m.PortModes("ether1")
	require.NoError(t, err)
	assert.Equal(t, PortModes{Speed: 10000, FullDuplex: true}, modes)
	before := shown(t)
	for want, l := range map[string]Link{
		"set link ether1 auto-negotiation=yes advertise=: the card refuses: expected one of the modes that the card can offer: none": {Advertise: gigabit},
		"set link ether1 auto-negotiation=no speed=100M-baseT-full: the card refuses: operation not supported":                       {NoAutoNegotiation: true, Fixed: ModeNamed("100M-full")},
	} {
		l.Name = "ether1"
		require.EqualError(t, m.Apply(Config{Links: []Link{l}}), want)
		assert.Equal(t, before, shown(t))
	}
}
