// Package ether has the frames of Ethernet links, for protocols that are below IP or begin before there
// is an address (DHCP, ARP, PPPoE). It promises:
//   - A socket that root has opened, by Open, is of use in a process without capabilities.
//   - It gets the frames that its filter lets through, from the moment in which it is open, and no others.
//   - What comes in takes no more memory than a small buffer, and sending never waits.
package ether

import "net"

// MAC is an Ethernet address. The zero value stands for none.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// IsHost reports whether m can be the address of one host: it is neither zero nor a group's.
func (m MAC) IsHost() bool { return m != MAC{} && m[0]&1 == 0 }

// Broadcast is every machine on a link.
var Broadcast = MAC{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}

const (
	// Header is how many bytes are ahead of a frame's data: the addresses of receiver and sender,
	// and the protocol.
	Header = 14
	// MaxFrame is how many bytes a frame has at most, without its checksum.
	MaxFrame = Header + 1500
)

// Protocols (linux/if_ether.h).
const (
	IPv4           = 0x0800
	ARP            = 0x0806
	PPPoEDiscovery = 0x8863
)
