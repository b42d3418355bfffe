package socks

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// The bytes of a datagram between a client and its association (RFC 1928, section 7):
//
//	RSV 2, FRAG 1, ATYP 1, DST.ADDR 4 | 1 + n | 16, DST.PORT 2, data
//
// headerLength is the length of a header with an IPv4 address.
const headerLength = 10

// Reasons for which a datagram of a client is dropped.
var (
	errShortHeader = errors.New("the header is not complete")
	errFragment    = errors.New("a fragment: FRAG is not 0")
	errAddressType = errors.New("the address is neither IPv4 nor a name")
	errEmptyName   = errors.New("the name is empty")
	errNoPort      = errors.New("the port is 0")
)

// datagram is what a client sends to its association. Its slices are parts of what was
// parsed.
type datagram struct {
	addr netip.Addr // zero if there is a name
	host []byte     // 1..255 bytes, nil if there is an address
	port uint16     // not 0
	data []byte     // may be empty
}

// parseDatagram reads a datagram of a client. Fragments are an error, as RFC 1928 allows, and
// so are IPv6 addresses.
func parseDatagram(b []byte) (datagram, error) {
	if len(b) < 5 { // up to the first byte of the address
		return datagram{}, errShortHeader
	}
	if b[2] != 0 {
		return datagram{}, errFragment
	}
	var d datagram
	rest := b[4:]
	switch b[3] {
	case addressIPv4:
		if len(rest) < 4 {
			return datagram{}, errShortHeader
		}
		d.addr, rest = netip.AddrFrom4([4]byte(rest)), rest[4:]
	case addressName:
		end := 1 + int(rest[0])
		if end == 1 {
			return datagram{}, errEmptyName
		}
		if len(rest) < end {
			return datagram{}, errShortHeader
		}
		d.host, rest = rest[1:end], rest[end:]
	default:
		return datagram{}, errAddressType
	}
	if len(rest) < 2 {
		return datagram{}, errShortHeader
	}
	if d.port = binary.BigEndian.Uint16(rest); d.port == 0 {
		return datagram{}, errNoPort
	}
	d.data = rest[2:]
	return d, nil
}

// putHeader writes the header of a datagram of the peer from, an IPv4 address, at the
// beginning of b.
func putHeader(b *[headerLength]byte, from netip.AddrPort) {
	ip := from.Addr().As4()
	*b = [headerLength]byte{3: addressIPv4}
	copy(b[4:], ip[:])
	binary.BigEndian.PutUint16(b[8:], from.Port())
}
