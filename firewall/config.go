package firewall

import (
	"reflect"
	"time"

	"github.com/postern-router/postern/match"
)

// Config holds all rules of a router, in the order in which they are tried. In each chain
// the first rule that matches decides. What no rule matches is accepted.
type Config struct {
	Filter []Rule
	NAT    []Rule
	Mangle []Rule
	Raw    []Rule
	// FTP is the helper for FTP: with it a client behind address translation can have the server open the connections for data (its
	// active mode), and a server the client. It reads connections that begin through the router, as far as no rule of Raw has notrack for them, and
	// those of the router itself that a rule accepts in a chain of Raw which prerouting uses as well.
	FTP Helper
	// RoutingTables are the routing marks that rules name, each with a number of 1..MaxRoutingMarks of its own: see
	// RoutingMark. NoRoutingMark is none of them.
	RoutingTables map[string]uint8
	// Lists are the interface lists that rules name.
	Lists map[string]Interfaces
	// Clamp are interfaces whose packets are shorter than Ethernet's, as those of PPPoE: of TCP
	// connections through the router that pass one of them, either side is told to send no longer
	// segments than fit (the MSS of RFC 9293, section 3.7.1). Without it they stand still where ICMP
	// is dropped on the way.
	Clamp []string
	// Queues say which packets that leave are in which class of the links' queues; the first that matches decides. They come after
	// all rules of Mangle, but for a packet that a user's chain has accepted there for good.
	Queues []QueueRule
	// AddressLists are the address lists that rules name: at most MaxAddresses addresses and
	// ranges in all, none with Not, and Temporary among them. A list that is not there is empty.
	AddressLists map[string][]match.Addresses
	// Temporary are more entries of them. One whose time has come is none.
	Temporary map[string][]Temporary
}

// Rule is one rule. A matcher's zero value matches everything.
type Rule struct {
	// Chain is input, forward or output in Filter; srcnat or dstnat in NAT; prerouting, input, forward, output or
	// postrouting in Mangle; prerouting or output in Raw; or a chain of the
	// user's, of any other name, which packets enter by rules with the action jump.
	Chain string
	// Action is accept, log, passthrough, jump or return in all tables, drop or reject in Filter,
	// masquerade, src-nat or same in chain srcnat, dst-nat or redirect in chain dstnat, netmap in either,
	// mark-connection, mark-packet, mark-routing, change-mss, change-ttl or change-dscp in Mangle,
	// drop or notrack in Raw. After
	// log and passthrough, which only counts, the next rule is tried. So it is after notrack, after those of
	// Mangle unless Final is set, and after
	// fasttrack-connection in Filter: RouterOS's shorter way through the router is not there.
	// add-src-to-address-list and add-dst-to-address-list put the packet's address into AddressList, in all chains,
	// and the next rule is tried.
	// jump tries the rules of JumpTarget, and then the next rule. return goes on behind the rule
	// that jumped here; in a chain that none has jumped to it accepts.
	Action string
	// JumpTarget is the user's chain that the action jump goes to. It has rules, and none of them
	// leads back.
	JumpTarget string

	SrcAddress, DstAddress match.Addresses
	// Protocol is tcp, udp, icmp or a number of 1..255 (iptables reads 0 as all), with "!"
	// in front any other protocol. Empty matches all. Ports need tcp or udp.
	Protocol         string
	SrcPort, DstPort match.Ports
	// Port is the source or the destination port.
	Port match.Ports
	// SrcAddressList and DstAddressList are names in Config.AddressLists: the address is in that
	// list, or with "!" in front in no entry of it.
	SrcAddressList, DstAddressList string
	// AddressList is the list that add-src-to-address-list or add-dst-to-address-list adds to, for AddressListTimeout (at
	// most MaxListTimeout, in whole seconds) from the last packet on, or if that is 0 until a restart. A list takes so many of them as memory
	// allows. They go when no rule adds to the list any more.
	AddressList        string
	AddressListTimeout time.Duration
	// TCPFlags are flags that are set, or with "!" in front of each not set, separated by commas: fin,
	// syn, rst, psh, ack and urg. They need Protocol tcp.
	TCPFlags string
	// InInterface and OutInterface are names of interfaces, with "!" in front any other.
	InInterface, OutInterface string
	// InInterfaceList and OutInterfaceList are names in Config.Lists: the interface is one of
	// that list, or with "!" in front any other. A list may be empty.
	InInterfaceList, OutInterfaceList string
	// ConnectionState is a list of established, related, new, invalid and untracked,
	// separated by commas; with "!" in front, any other state.
	ConnectionState string
	// ConnectionNATState is srcnat, dstnat or both, separated by a comma: the connection's
	// source or destination was translated. With "!" in front it is any other connection. Rules
	// of the filter table have it.
	ConnectionNATState string
	// ConnectionMark, PacketMark and RoutingMark are the mark that the packet's connection or the packet has: a name,
	// NoMark for none of them, NoRoutingMark for none of the last. With "!" in front it is any other, or none.
	ConnectionMark, PacketMark, RoutingMark string
	// Extra are the values of Matchers, in their order; "" matches all.
	Extra [len(Matchers)]string
	// IPsecPolicy is "in,none", "in,ipsec", "out,none" or "out,ipsec": whether the packet came in or
	// leaves by IPsec. There is no IPsec, so none matches every packet, and ipsec no packet.
	IPsecPolicy string
	// ICMPOptions is an ICMP type as "type" or "type:code", as in RouterOS
	// (8:0 is an echo request). It needs Protocol icmp.
	ICMPOptions string

	// ToAddresses and ToPorts are the new address and ports of src-nat and dst-nat.
	// redirect and masquerade take only ToPorts; dst-nat may have only ToPorts. They are
	// one port or one range. netmap takes only ToAddresses, a network, in which the host's part of the address stays.
	ToAddresses match.Addresses
	ToPorts     match.Ports
	// Log has a line logged for each packet that the rule matches, as the action log does. LogPrefix
	// comes first in each such line: at most 29 bytes.
	Log       bool
	LogPrefix string
	// RejectWith is the ICMP answer of the action reject, as RouterOS names it:
	// icmp-network-unreachable (the default), icmp-host-unreachable,
	// icmp-port-unreachable, icmp-protocol-unreachable, icmp-net-prohibited,
	// icmp-host-prohibited, icmp-admin-prohibited or tcp-reset.
	RejectWith string

	// SameNotByDst has same, which translates as src-nat does, take one new address for a host whomever it talks to.
	SameNotByDst bool
	// NewConnectionMark, NewPacketMark and NewRoutingMark are what mark-connection, mark-packet and mark-routing set: a name,
	// NoMark, or NoRoutingMark.
	NewConnectionMark, NewPacketMark, NewRoutingMark string
	// NewMSS is of change-mss: "clamp-to-pmtu", or the greatest MSS in bytes, 1..65495. A smaller one stays.
	NewMSS string
	// TCPMSS is the MSS of packets that change-mss takes, "LOW-65535" or "!0-HIGH", where it takes no others anyway: those above NewMSS.
	TCPMSS string
	// NewTTL is of change-ttl: "set:N", "increment:N" or "decrement:N", N of 0..255.
	NewTTL string
	// NewDSCP is of change-dscp: 0..63 (RFC 2474).
	NewDSCP string
	// Final has the actions of Mangle accept the packet after they have changed it.
	Final bool

	// Disabled keeps the rule out of the kernel. It must be valid all the same.
	Disabled bool
	// Comment is at most 255 bytes (XT_MAX_COMMENT_LEN less the closing NUL, linux/netfilter/xt_comment.h) in any
	// encoding. The kernel has it with blanks for control characters.
	Comment string
}

// Equal reports whether both say the same.
func (c Config) Equal(other Config) bool {
	for _, t := range Tables {
		ours, theirs := c.Rules(t), other.Rules(t)
		if len(ours) != len(theirs) {
			return false
		}
		if len(ours) > 0 && &ours[0] == &theirs[0] {
			continue
		}
		for i := range ours {
			if !ours[i].Equal(&theirs[i]) {
				return false
			}
		}
	}
	c.Filter, c.NAT, c.Mangle, c.Raw = nil, nil, nil, nil
	other.Filter, other.NAT, other.Mangle, other.Raw = nil, nil, nil, nil
	return reflect.DeepEqual(c, other)
}

// Rules are the rules of a table.
func (c Config) Rules(t Table) []Rule {
	switch t {
	case Filter:
		return c.Filter
	case NAT:
		return c.NAT
	case Mangle:
		return c.Mangle
	}
	return c.Raw
}
