package netcfg

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file has the speeds of ports: what they offer to their neighbor (IEEE 802.3, auto-negotiation)
// or are fixed to. A port of which a Config says nothing is left as its driver set it up, and not asked.

// Modes is a set of speeds with half or full duplex: bit i stands for modeTable[i].
type Modes uint16

// modeTable has the modes of ports with copper cables, the slowest first.
var modeTable = []struct {
	name   string // RouterOS's since version 7
	old    string // that of version 6
	bit    int    // that of the kernel (enum ethtool_link_mode_bit_indices, linux/ethtool.h)
	speed  uint32 // Mbit/s
	duplex uint8  // 0 half, 1 full
}{
	{"10M-baseT-half", "10M-half", 0, 10, 0}, {"10M-baseT-full", "10M-full", 1, 10, 1},
	{"100M-baseT-half", "100M-half", 2, 100, 0}, {"100M-baseT-full", "100M-full", 3, 100, 1},
	{"1G-baseT-half", "1000M-half", 4, 1000, 0}, {"1G-baseT-full", "1000M-full", 5, 1000, 1},
	{"2.5G-baseT", "2.5G-full", 47, 2500, 1}, {"5G-baseT", "5G-full", 48, 5000, 1}, {"10G-baseT", "10G-full", 12, 10000, 1},
}

// ModeNames are the modes that there are, by RouterOS's names since version 7.
func ModeNames() (names []string) {
	for _, m := range modeTable {
		names = append(names, m.name)
	}
	return names
}

// ModeNamed returns the mode of that name, which may be that of RouterOS 6 (10M-full), or 0.
func ModeNamed(name string) Modes {
	for i, m := range modeTable {
		if name == m.name || name == m.old {
			return 1 << i
		}
	}
	return 0
}

// Names are the modes of a set, the slowest first.
func (s Modes) Names() (names []string) {
	for i, m := range modeTable {
		if s&(1<<i) != 0 {
			names = append(names, m.name)
		}
	}
	return names
}

func (s Modes) String() string { return strings.Join(s.Names(), ",") }

func (l Link) validateModes() error {
	switch all := Modes(1)<<len(modeTable) - 1; {
	case l.Advertise&^all != 0 || l.Fixed&^all != 0:
		return errors.New("advertise=, speed=: expected modes that there are")
	case l.Fixed&(l.Fixed-1) != 0:
		return fmt.Errorf("speed=%s: expected one", l.Fixed)
	}
	return nil
}

// modeWords is how many words of 32 modes the kernel may have; Linux 6.12 has 4.
const modeWords = 8

type modeMask [modeWords]uint32

// noModes are the bits that are no speed: Autoneg, TP, AUI, MII, FIBRE, BNC, Pause, Asym_Pause, Backplane,
// and FEC_NONE, RS, BASER and LLRS.
var noModes = []int{6, 7, 8, 9, 10, 11, 13, 14, 16, 49, 50, 51, 74}

// modes are those of the mask that have a name here.
func (m modeMask) modes() (s Modes) {
	for i, mode := range modeTable {
		if m[mode.bit/32]&(1<<(mode.bit%32)) != 0 {
			s |= 1 << i
		}
	}
	return s
}

// with is the mask with these speeds and no others.
func (m modeMask) with(s Modes) modeMask {
	var kept modeMask
	for _, bit := range noModes {
		kept[bit/32] |= m[bit/32] & (1 << (bit % 32))
	}
	for i, mode := range modeTable {
		if s&(1<<i) != 0 {
			kept[mode.bit/32] |= 1 << (mode.bit % 32)
		}
	}
	return kept
}

// unknownSpeed is the speed of a port without a carrier (SPEED_UNKNOWN).
const unknownSpeed = ^uint32(0)

// modeSettings is what a port is set to, and what it can.
type modeSettings struct {
	autoNegotiation                   bool
	speed                             uint32 // Mbit/s, as it is now or is fixed
	duplex                            uint8
	supported, advertising, neighbors modeMask
}

// same reports whether both are set to the same.
func (s *modeSettings) same(o *modeSettings) bool {
	if s.autoNegotiation || o.autoNegotiation {
		return s.autoNegotiation == o.autoNegotiation && s.advertising == o.advertising
	}
	return s.speed == o.speed && s.duplex == o.duplex
}

// modeMessage is struct ethtool_link_settings (linux/ethtool.h) with room for its masks, which follow
// one another with as many words each as the kernel says.
type modeMessage struct {
	command, speed               uint32
	duplex, port, phy            uint8
	autoNegotiation              uint8
	mdio, crossing, wantCrossing uint8
	words                        int8
	transceiver                  uint8
	wantMaster, master           uint8
	rateMatching                 uint8
	_                            [7]uint32
	masks                        [3 * modeWords]uint32
}

// modeRequest has a device's driver read or write its modes.
func modeRequest(name string, r *modeMessage) error { return ethtool(name, unsafe.Pointer(r)) }

// askModes asks a device's driver for its modes.
func (m *Manager) askModes(name string) (*modeMessage, *modeSettings, error) {
	r := &modeMessage{command: unix.ETHTOOL_GLINKSETTINGS}
	if err := m.modeRequest(name, r); err != nil {
		return nil, nil, err
	}
	// The kernel has said how many words a mask has, as a negative number.
	words := -int(r.words)
	if words < 1 || words > modeWords {
		return nil, nil, fmt.Errorf("the kernel has masks of %d words, expected 1..%d", words, modeWords)
	}
	*r = modeMessage{command: unix.ETHTOOL_GLINKSETTINGS, words: int8(words)}
	if err := m.modeRequest(name, r); err != nil {
		return nil, nil, err
	}
	s := &modeSettings{autoNegotiation: r.autoNegotiation == 1, speed: r.speed, duplex: r.duplex}
	for i, mask := range []*modeMask{&s.supported, &s.advertising, &s.neighbors} {
		copy(mask[:words], r.masks[i*words:])
	}
	return r, s, nil
}

// setModes has a device's driver change its modes.
func (m *Manager) setModes(name string, want *modeSettings) error {
	r, have, err := m.askModes(name)
	if err != nil {
		return err
	}
	if want.autoNegotiation && want.advertising.modes() == 0 {
		return fmt.Errorf("expected one of the modes that the card can offer: %s", orNone(have.supported.modes()))
	}
	r.command, r.autoNegotiation = unix.ETHTOOL_SLINKSETTINGS, 0
	r.wantMaster, r.master = 0, 0 // the kernel takes no others by this request
	if want.autoNegotiation {
		r.autoNegotiation = 1
	} else {
		r.speed, r.duplex = want.speed, want.duplex
	}
	words := int(r.words)
	copy(r.masks[words:2*words], want.advertising[:words])
	return m.modeRequest(name, r)
}

func orNone(s Modes) string {
	if s == 0 {
		return "none"
	}
	return s.String()
}

// hasModes reports whether l says something of modes.
func (l Link) hasModes() bool { return l.Advertise != 0 || l.NoAutoNegotiation }

// readModes reads the modes of the ports of links, where c says something of them or they are not as
// the driver set them.
func (m *Manager) readModes(p *pass, links []link, c Config) {
	for i, l := range links {
		d := m.devices[l.index]
		conf := slices.IndexFunc(c.Links, func(k Link) bool { return k.Name == l.name })
		if d == nil || d.driverModes == nil && (conf < 0 || !c.Links[conf].hasModes()) {
			continue
		}
		_, have, err := m.askModes(l.name)
		if err != nil {
			p.errs = append(p.errs, fmt.Errorf("link %s: auto-negotiation, speed, advertise: the card tells nothing of these: %w", l.name, err))
			continue
		}
		links[i].modes = have
	}
}

// wantModes returns what l asks for on a port that has and that its driver had set to driver, or nil.
// It is nil too where nothing is asked for, or where have is not known.
func (l Link) wantModes(have, driver *modeSettings) *modeSettings {
	if have == nil || driver == nil && !l.hasModes() {
		return nil
	}
	w := *have
	if driver != nil {
		w = *driver
	}
	switch {
	case l.NoAutoNegotiation:
		w.autoNegotiation = false
		for i, mode := range modeTable {
			if l.Fixed&(1<<i) != 0 {
				w.speed, w.duplex = mode.speed, mode.duplex
			}
		}
	case l.Advertise != 0:
		w.autoNegotiation = true
		w.advertising = w.advertising.with(l.Advertise & have.supported.modes())
	}
	if !w.autoNegotiation && w.speed == unknownSpeed { // without a carrier
		w.speed, w.duplex = have.speed, have.duplex
	}
	return &w
}

// reconcileModes sets the modes of a port.
func (m *Manager) reconcileModes(p *pass, d *device, want link) {
	if want.modes == nil || d == nil {
		return
	}
	_, have, err := m.askModes(want.name)
	if err == nil && have.same(want.modes) {
		return
	}
	if err == nil {
		err = m.setModes(want.name, want.modes)
	}
	switch {
	case err != nil:
		err = fmt.Errorf("the card refuses: %w", err)
	case d.driverModes == nil:
		d.driverModes = have
	case d.driverModes.same(want.modes):
		d.driverModes = nil
	}
	p.did(fmt.Sprintf("set link %s %s", want.name, want.modes), err)
}

func (s *modeSettings) String() string {
	if s.autoNegotiation {
		return "auto-negotiation=yes advertise=" + s.advertising.modes().String()
	}
	for _, m := range modeTable {
		if m.speed == s.speed && m.duplex == s.duplex {
			return "auto-negotiation=no speed=" + m.name
		}
	}
	return "auto-negotiation=no"
}

// PortModes is what a port does now.
type PortModes struct {
	// AutoNegotiation says that it negotiates. Speed is in Mbit/s, 0 without a carrier, FullDuplex goes with it.
	AutoNegotiation bool
	Speed           int
	FullDuplex      bool
	// Advertising are the modes that it offers, Neighbors those that its neighbor offers, Supported those that it can.
	Advertising, Neighbors, Supported Modes
}

// PortModes asks the driver of a port. Not all drivers know modes: then the error is EOPNOTSUPP.
func (m *Manager) PortModes(port string) (PortModes, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, s, err := m.askModes(port)
	if err != nil {
		return PortModes{}, fmt.Errorf("modes of %s: %w", port, err)
	}
	p := PortModes{AutoNegotiation: s.autoNegotiation, FullDuplex: s.duplex == 1,
		Advertising: s.advertising.modes(), Neighbors: s.neighbors.modes(), Supported: s.supported.modes()}
	if s.speed != unknownSpeed {
		p.Speed = int(s.speed)
	}
	return p, nil
}
