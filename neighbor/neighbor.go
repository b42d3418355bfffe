// Package neighbor finds the devices on a link, and has them find the router, by MikroTik's neighbor discovery
// protocol (MNDP, UDP port 5678) and by the link layer discovery protocol (LLDP, IEEE 802.1AB). It promises:
//   - A frame that a stranger has sent is read in a process that has nothing but that frame.
//   - What it makes of a frame is bounded: texts of at most MaxText bytes, all of them printable.
//   - To announce the router nothing is read, so that PID 1 can do it.
package neighbor

import (
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/postern-router/postern/ether"
)

const (
	// Port is MNDP's, in UDP.
	Port = 5678
	// EtherType is LLDP's (IEEE 802.1AB-2016, 7.3).
	EtherType = 0x88CC
	// Interval is the time between two announcements of a device. LLDP recommends it.
	Interval = 30 * time.Second
	// MaxText is how many bytes a text of a Neighbor has at most.
	MaxText = 128
	// maxHold is how long an announcement holds at most, whatever it says.
	maxHold = time.Hour
	// mndpHold is how long one by MNDP holds, which does not say it: devices of RouterOS send one
	// each minute.
	mndpHold = 3 * time.Minute
)

// The protocols, as /ip neighbor calls them.
const (
	MNDP = "mndp"
	LLDP = "lldp"
)

// Group is the address that LLDP's frames are sent to: no bridge forwards them.
var Group = ether.MAC{0x01, 0x80, 0xC2, 0x00, 0x00, 0x0E}

// Config is what can be set (/ip neighbor discovery-settings).
type Config struct {
	// List is the interface list by whose interfaces the router announces itself and hears of others. "!" before
	// it means the interfaces that are not on it.
	List string
	// Protocols are MNDP, LLDP or both, separated by a comma.
	Protocols string
}

// Has reports whether c has a protocol.
func (c Config) Has(protocol string) bool {
	for p := range strings.SplitSeq(c.Protocols, ",") {
		if p == protocol {
			return true
		}
	}
	return false
}

// Neighbor is what a device says of itself. A field that it does not say is zero.
type Neighbor struct {
	// Protocol is MNDP or LLDP.
	Protocol string
	MAC      ether.MAC // it sent the frame
	Address  netip.Addr
	Identity string
	Platform string
	Version  string
	Board    string
	// Interface is the device's own name of the interface by which it sent the frame.
	Interface   string
	Description string
	SoftwareID  string
	Uptime      time.Duration // in whole seconds
	// Can and Does are what LLDP's device could do and what it is set to, in the bits of Capabilities.
	Can, Does uint16
	// Hold is how long this holds; 0 says that the device goes away.
	Hold time.Duration
}

// Capabilities are names of the bits of Neighbor.Can and Does, from the lowest (IEEE 802.1AB-2016, 8.5.8.1).
var Capabilities = []string{"other", "repeater", "bridge", "wlan-ap", "router", "telephone", "docsis-cable-device", "station-only",
	"cvlan", "svlan", "tpmr"}

const (
	canBridge = 1 << 2
	canRoute  = 1 << 4
)

// Names are the Capabilities in bits, separated by commas.
func Names(bits uint16) string {
	var all []string
	for i, name := range Capabilities {
		if bits&(1<<i) != 0 {
			all = append(all, name)
		}
	}
	return strings.Join(all, ",")
}

// Announcement is what the router says of itself on an interface.
type Announcement struct {
	MAC       ether.MAC
	Address   netip.Addr // IPv4, or the zero Addr
	Identity  string
	Platform  string
	Version   string
	Board     string
	Interface string
	Uptime    time.Duration
	// Bridge says that the interface is a port of a bridge.
	Bridge bool
}

// text is at most MaxText bytes of b, without what a terminal might obey.
func text(b []byte) string {
	b = b[:min(len(b), MaxText)]
	return cut(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, string(b)), MaxText)
}

// cut is at most n bytes of a text, in whole characters.
func cut(s string, n int) string {
	for len(s) > n {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
