// Package netcfg brings the network of a Linux machine to a Config and keeps it there: the
// names of ports, links, bridges and their VLANs, VLANs, IPv4 addresses, IPv4 routes and forwarding.
//
// It reads what the kernel has, compares it with what is wanted, and changes only the
// difference. It promises:
//
//   - All or nothing. What the kernel refuses is an error that names the item, and
//     [Manager.Apply] undoes what it has changed before.
//   - Repair. [Manager.Run] puts back what others change, and sets up a port when its
//     device appears. A port without a device is no error: what is wanted on it waits.
//   - Neighbours stay. [Manager.KeepNeighbors] has the kernel keep gateways and hosts that have answered
//     while others fill its ARP table.
//   - Fail closed. Forwarding is turned off before anything else changes, and turned on
//     after everything else has.
//
// It owns the ports that it was given, the bridges and VLANs that it makes (they are in a
// link group of their own), every IPv4 address on these, every route of protocol "static"
// in the main table and, once a Config has a [Table] or a [Rule], in tables 1 to [MaxTable], the rules of the priorities
// 900 to 9999 and, once a Config says anything of ARP, the ARP entries that stay on its links, and table 251; once a Config has [LinkQueues], the root queue of its links that has QueueMajor; net.ipv4.ip_forward, and the parameters of all links that [Settings]
// tells of. It also has the kernel process the packets of all devices in threads, and shortens
// their receive rings by the memory of the machine. It changes nothing else.
package netcfg

import (
	"net/netip"

	"github.com/postern-router/postern/ether"
)

// Config is the wanted network of a machine. The zero value is a machine that has no
// addresses and forwards nothing.
type Config struct {
	Links       []Link
	Bridges     []Bridge
	VLANs       []VLAN
	BridgePorts []BridgePort
	BridgeVLANs []BridgeVLAN
	PPPs        []PPP
	Addresses   []Address
	Routes      []Route
	Tables      []Table
	Rules       []Rule
	Neighbors   []StaticNeighbor
	// Queues are of links that there may not be yet: then they wait.
	Queues []LinkQueues
	// Forwarding is net.ipv4.ip_forward.
	Forwarding bool
	Settings   Settings
}

// Port gives a network device the name of a port. Device is the device's name in the
// kernel, or its path in sysfs or that of a folder above it: what /sys/class/net/X/device
// resolves to, without "/sys/devices/". Device may be a pattern of path/filepath.Match:
// the first device that matches is the port.
type Port struct {
	Name   string
	Device string
}

// Link is the wanted state of one port. A port without a Link is enabled, with the MTU and
// the address of its driver.
type Link struct {
	Name string
	// MTU is in bytes, 68..65535. 0 stands for the driver's.
	MTU int
	// MAC is a unicast address. The zero value stands for the driver's.
	MAC ether.MAC
	// Advertise are the modes that it offers to its neighbor, of those that its card can; none stands
	// for all. With NoAutoNegotiation it offers none: Fixed is the mode, or that which it has if 0.
	Advertise         Modes
	NoAutoNegotiation bool
	Fixed             Modes
	// ARP is one of ARPModes, or "" for the usual one; on a port of a bridge that of the bridge counts.
	ARP      string
	Disabled bool
	Comment  string
}

// Bridge is a switch between links. A disabled bridge passes nothing.
type Bridge struct {
	Name string
	// MTU is in bytes, 68..65535. 0 stands for the smallest of its ports', or 1500 if it
	// has no ports.
	MTU int
	// OwnMAC is whether its hardware address is MAC, a unicast address. If not it is the lowest
	// of its ports' addresses, and MAC has no effect.
	OwnMAC bool
	MAC    ether.MAC
	// STP turns the spanning tree protocol on (IEEE 802.1D). A port then passes nothing
	// for the first 30 seconds.
	STP bool
	// VLANFiltering is whether a frame passes only between ports that are in its VLAN (IEEE 802.1Q):
	// see BridgeVLAN. Without it VLANPort has no effect, nor that of its ports.
	VLANFiltering bool
	VLANPort
	ARP      string // see Link
	Disabled bool
	Comment  string
}

// BridgePort makes a port or a VLAN a port of a bridge. The bridge then has the addresses
// of that interface.
type BridgePort struct {
	Bridge, Interface string
	VLANPort
	Disabled bool
	Comment  string
}

// VLAN is a link on another, which is a port or a bridge. The frames that it sends have a
// tag (IEEE 802.1Q), and it gets the frames with this tag. A disabled VLAN does not
// exist in the kernel.
type VLAN struct {
	Name      string
	Interface string
	ID        int // 1..4094
	// MTU is in bytes, 68..65535, and no more than that of Interface. 0 stands for that
	// of Interface.
	MTU      int
	ARP      string // see Link
	Disabled bool
	Comment  string
}

// PPP is a point-to-point link that comes and goes with a connection: MakePPP makes it, and it is
// gone when its connection is. A disabled one is not there.
type PPP struct {
	Name     string
	Disabled bool
}

// Address is an IPv4 address, with the length of its network's prefix, on an interface.
type Address struct {
	Address   netip.Prefix
	Interface string
	Disabled  bool
	Comment   string
}

// Route is an IPv4 route by way of a gateway, which is a neighbour on some link, or one of those RouteTypes that lead nowhere.
type Route struct {
	Destination netip.Prefix
	// Type is one of RouteTypes, or "" for a route by a gateway. With a Type the gateway, Interface, PrefSrc and CheckGateway have no
	// effect: nothing is sent, and the route waits for nothing.
	Type string
	// Gateway is the zero Addr if the destination is on the link of Interface itself, as behind a
	// PPP.
	Gateway netip.Addr
	// Interface is where the gateway is, although it is in no network of an address; "" if it is in
	// one (RTNH_F_ONLINK of rtnetlink(7)). Some providers lease a /32.
	Interface string
	// PrefSrc is the address of this machine that it sends from to the destination, where a program has chosen none; the zero Addr
	// leaves it to the kernel. While no link has it the route waits.
	PrefSrc netip.Addr
	// Table is the name of the table that it is in, "" for MainTable.
	Table string
	// Distance is the kernel's metric, 1..255. Of several routes to one destination in a table the
	// one with the lowest is used.
	Distance int
	// CheckGateway is how whoever uses a Config shall learn whether the gateway answers: CheckPing, CheckARP, or "" for not at all. A
	// Manager looks at Down alone: then the route waits, as one whose gateway is in no network does.
	CheckGateway string
	Down         bool
	Disabled     bool
	Comment      string
}

// RouteTypes are what a route without a gateway does with its packets, as RouterOS names it: it drops them without a word, or tells the
// sender that there is no such host (RFC 1812, section 5.2.7.1), or that it is forbidden.
var RouteTypes = []string{Blackhole, Unreachable, Prohibit}

// The Route.Type of these.
const (
	Blackhole   = "blackhole"
	Unreachable = "unreachable"
	Prohibit    = "prohibit"
)

// The Route.CheckGateway by echo requests, and by Manager.AskNeighbor.
const (
	CheckPing = "ping"
	CheckARP  = "arp"
)

// MainTable is the name of the table of routes that packets take if no rule gives them another, and by which the
// gateways of all tables are reached.
const MainTable = "main"

// MaxTable is the greatest number of a table. The kernel's own are above it.
const MaxTable = 250

// Table is a table of routes besides MainTable.
type Table struct {
	Name string
	// Number is the kernel's, 1..MaxTable.
	Number uint8
	// Packets whose mark has the value Mark in the bits of Mask take the table, if it has a route for them. A Mask of 0 is none.
	Mark, Mask uint32
}

// Rule says which table of routes a packet takes. The first rule that matches and whose table has a route for the packet decides,
// behind the marks of Tables; then comes MainTable.
type Rule struct {
	// SrcAddress and DstAddress are networks; the zero Prefix is all.
	SrcAddress, DstAddress netip.Prefix
	// Interface is the link by which the packet comes in; "" is any.
	Interface string
	// Mark is the name of the table whose mark the packet has; "" is any, and MainTable none.
	Mark string
	// Action is one of RuleActions. The first two look for a route in Table, and lookup-only-in-table drops the packet if
	// there is none.
	Action string
	// Table is the name of a table.
	Table    string
	Disabled bool
	Comment  string
}

// RuleActions are what a Rule can do, as RouterOS names it.
var RuleActions = []string{"lookup", "lookup-only-in-table", "drop", "unreachable"}
