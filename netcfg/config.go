// Package netcfg keeps the network of a Linux machine as a Config says: port
// names, links, bridges, VLANs, IPv4 addresses, IPv4 routes and forwarding.
//
// It reads what the kernel has, compares it with what is wanted and changes only
// the difference. It owns the ports that it was given, the bridges and VLANs that
// it made (they are in a link group of their own), every IPv4 address on these,
// every route of protocol "static" in the main table, and net.ipv4.ip_forward; it
// has the packets of every device taken by threads of the kernel, and touches
// nothing else. A configuration is taken whole or refused whole: what the kernel
// refuses is an error that names the item, and what was changed before it is
// undone. A port that is not there is no error: what is wanted on it waits, and
// Manager.Run gives it to the port that appears, as it repairs whatever else is
// changed behind the package's back. Forwarding is turned off before all else and
// turned on after all else.
package netcfg

import (
	"net"
	"net/netip"
)

// Config is what the network of a machine should be. The zero value is a
// machine with no addresses that forwards nothing.
type Config struct {
	Links       []Link
	Bridges     []Bridge
	VLANs       []VLAN
	BridgePorts []BridgePort
	Addresses   []Address
	Routes      []Route
	// Forwarding is net.ipv4.ip_forward.
	Forwarding bool
}

// Port gives a network device its port name: the device whose sysfs path
// (/sys/class/net/X/device, resolved, without "/sys/devices/") is Device or
// lies below it, or whose kernel name is Device. Device may be a pattern, as
// path/filepath.Match has it: the first device that matches is the port.
type Port struct {
	Name   string
	Device string
}

// MAC is an Ethernet address. Its zero value stands for none.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Link is the wanted state of one port. A port that has no Link is enabled, with
// the driver's MTU and address.
type Link struct {
	Name string
	// MTU in bytes, 68..65535; 0 leaves the driver's.
	MTU int
	// MAC is a unicast address; its zero value leaves the driver's.
	MAC      MAC
	Disabled bool
	Comment  string
}

// Bridge is a switch between links. Its hardware address is the kernel's choice,
// the lowest of its ports'. A bridge that is disabled passes nothing.
type Bridge struct {
	Name string
	// MTU in bytes, 68..65535; 0 is the smallest of its ports', 1500 without any.
	MTU int
	// STP lets it speak the spanning tree protocol (IEEE 802.1D): a port then passes
	// nothing for the first 30 seconds.
	STP      bool
	Disabled bool
	Comment  string
}

// BridgePort makes a port or a VLAN a port of a bridge. Addresses of that
// interface are then the bridge's.
type BridgePort struct {
	Bridge, Interface string
	Disabled          bool
	Comment           string
}

// VLAN is a link within another, a port or a bridge: what it sends has a tag
// (IEEE 802.1Q), and it gets what has this tag. One that is disabled is not there.
type VLAN struct {
	Name      string
	Interface string
	ID        int // 1..4094
	// MTU in bytes, 68..65535 and no more than that of Interface; 0 is the same.
	MTU      int
	Disabled bool
	Comment  string
}

// Address is an IPv4 address with its prefix length on a link.
type Address struct {
	Address   netip.Prefix
	Interface string
	Disabled  bool
	Comment   string
}

// Route is an IPv4 route by a gateway that is reached on a link.
type Route struct {
	Destination netip.Prefix
	Gateway     netip.Addr
	// Distance is the kernel's metric, 1..255: of two routes to one destination
	// the lower wins.
	Distance int
	Disabled bool
	Comment  string
}
