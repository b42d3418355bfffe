package netcfg

import (
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
)

// This file has what the kernel's messages are about (rtnetlink(7)), as values that can be
// compared; rtnetlink_list.go reads them, and rtnetlink_change.go changes them.
//
// Of github.com/vishvananda/netlink only package nl is used, which writes messages. What
// the library builds on it leaves out how a bridge is set, and brings along the code of
// every kind of link and route: tens of kilobytes of flash.
//
// A pass reads each list once, and again only where the kernel may have changed it by
// itself. Lists have a socket and a buffer of this package: the library reads each
// datagram into a new buffer of 64 KB, and each look at a list would fill the memory of
// PID 1 until the next garbage collection.
//
// Changes use the sockets that the library opens for each request: only there does the
// kernel explain a refusal ("Nexthop has invalid gateway"). The library has one switch for
// that for the whole process.
func init() { nl.EnableErrorMessageReporting = true }

// link is a network device as the kernel has it, or should have it.
type link struct {
	index int
	name  string
	// kind is bridge, vlan or ppp, or another kind of the kernel's; "" for a hardware device.
	kind string
	// own says that this package has made it: it is in our group.
	own      bool
	up       bool // IFF_UP: it is enabled
	running  bool // IFF_LOWER_UP: it has a carrier; IFF_RUNNING tells up to a second later
	loopback bool
	mtu      int
	mac      ether.MAC
	// master is the bridge that it is a port of, parent the link that a VLAN is on, or "".
	master, parent string
	vlanID         int
	stp            bool
	// noARP is IFF_NOARP, and arp the mode of ARP that this is a part of: see readARP.
	noARP bool
	arp   string
	// modes is set for a port whose modes are to be looked at: see readModes.
	modes *modeSettings
	// filtering says that a bridge filters VLANs, defaultPVID is the VLAN that it puts new ports into, or
	// 0. vlans are those that a port of a bridge is in, or the bridge itself: see readVLANs.
	filtering   bool
	defaultPVID int
	vlans       []vlanRun

	masterIndex, parentIndex int
	rxBytes, txBytes         uint64
	rxPackets, txPackets     uint64
}

// group is the group of the links that this package makes, by which it knows them again.
// It spells "post".
const group = 0x706f7374

// addr is an IPv4 address as the kernel has it, on the link of that name. Unless the link
// is point-to-point, peer is the address itself.
type addr struct {
	link   string
	prefix netip.Prefix
	peer   netip.Addr
}

// route is an IPv4 route of protocol static. oif is the name of the link
// that its packets leave by, or "" if the kernel chooses it.
type route struct {
	dst    netip.Prefix
	gw     netip.Addr
	metric int
	oif    string
	// onlink says that gw is on the link, although it is in no network of an address.
	onlink bool
	table  uint8
	// src is the address that is sent from; the zero Addr leaves it to the kernel.
	src netip.Addr
	// typ is what the kernel does with the packets (RTN_...), 0 for RTN_UNICAST. Another has no gateway, link or source.
	typ uint8
}

// kernelTypes are the types of routes of RouteTypes.
var kernelTypes = map[string]uint8{Blackhole: unix.RTN_BLACKHOLE, Unreachable: unix.RTN_UNREACHABLE, Prohibit: unix.RTN_PROHIBIT}

// wanted is the route that the kernel shall have for r, by the link oif or by one that the kernel chooses.
func (c Config) wanted(r Route, oif string) route {
	w := route{dst: r.Destination, metric: r.Distance, table: c.table(r.Table), typ: kernelTypes[r.Type]}
	if r.Type == "" {
		w.gw, w.oif, w.onlink, w.src = r.Gateway, oif, r.onlink(), r.PrefSrc
	}
	return w
}
