package netcfg

import (
	"net/netip"

	"github.com/vishvananda/netlink/nl"
)

// What this package says to the kernel (rtnetlink(7)), and hears of it, in values that
// can be compared. Of github.com/vishvananda/netlink it takes the messages, package nl,
// and not what is built on them: that leaves out what a bridge was set to, and brings
// along the code of every kind of link and route, tens of kilobytes in flash.
//
// A list is read once a pass, and again only where the kernel may have changed it on
// its own account. Lists come by a socket and a buffer of this package: the library
// reads each datagram into a fresh buffer of 64 KB, and what a person looks at would
// fill the memory of PID 1 until it is collected.
//
// The kernel explains a refusal, "Nexthop has invalid gateway", only on the sockets
// that the library opens for each request, and that is switched for the whole process.
// So changes go by these.
func init() { nl.EnableErrorMessageReporting = true }

// link is a network device as the kernel has it, or shall have it.
type link struct {
	index int
	name  string
	// kind is what makes it: bridge, vlan; "" for the driver of a device.
	kind string
	// own: it is in the group of what this package makes.
	own      bool
	up       bool // IFF_UP, the administrator's switch
	running  bool // IFF_LOWER_UP, there is a carrier; IFF_RUNNING says so up to a second later
	loopback bool
	mtu      int
	mac      MAC
	// master is the bridge that it is a port of, parent the link that a VLAN is on;
	// "" for none.
	master, parent string
	vlanID         int
	stp            bool

	masterIndex, parentIndex int
	rxBytes, txBytes         uint64
	rxPackets, txPackets     uint64
}

// group marks what this package makes, so that it is known again: "post".
const group = 0x706f7374

// addr is an IPv4 address as the kernel has it, on the link of that name. peer is
// the address itself unless the link is point-to-point.
type addr struct {
	link   string
	prefix netip.Prefix
	peer   netip.Addr
}

// route is an IPv4 route of table main and protocol static. oif is the name of
// the link that it leaves by, "" for the one that the kernel finds.
type route struct {
	dst    netip.Prefix
	gw     netip.Addr
	metric int
	oif    string
}
