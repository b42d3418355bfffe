// Package netcfg keeps the network of a Linux machine as a Config says: port
// names, links, IPv4 addresses, IPv4 routes and forwarding.
//
// It reads what the kernel has, compares it with what is wanted and changes only
// the difference. It owns the ports that it was given, every IPv4 address on
// them, every route of protocol "static" in the main table, and
// net.ipv4.ip_forward; it touches nothing else. A configuration is taken whole
// or refused whole: what the kernel refuses is an error that names the item, and
// what was changed before it is undone. A port that is not there is no error:
// what is wanted on it waits, and Manager.Run gives it to the port that appears,
// as it repairs whatever else is changed behind the package's back.
// Forwarding is turned off before all else and turned on after all else.
package netcfg

import "net/netip"

// Config is what the network of a machine should be. The zero value is a
// machine with no addresses that forwards nothing.
type Config struct {
	Links     []Link
	Addresses []Address
	Routes    []Route
	// Forwarding is net.ipv4.ip_forward.
	Forwarding bool
}

// Port gives a network device its port name: the device whose sysfs path
// (/sys/class/net/X/device, resolved, without "/sys/devices/") is Device or
// lies below it, or whose kernel name is Device.
type Port struct {
	Name   string
	Device string
}

// Link is the wanted state of one port. A port that has no Link is enabled, with
// the driver's MTU.
type Link struct {
	Name string
	// MTU in bytes, 68..65535; 0 leaves the driver's.
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
