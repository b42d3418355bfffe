package match

import (
	"encoding/binary"
	"net/netip"
)

// NotHost says what a valid IPv4 address is in its network, if no host can have it, else "". A
// network of two addresses or one has only hosts (RFC 3021).
func NotHost(p netip.Prefix) string {
	if p.Bits() >= 31 {
		return ""
	}
	four := p.Addr().As4()
	switch host := binary.BigEndian.Uint32(four[:]) << p.Bits(); host {
	case 0:
		return "address of the network itself"
	case ^uint32(0) << p.Bits():
		return "broadcast address of " + p.Masked().String()
	}
	return ""
}
