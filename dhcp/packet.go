package dhcp

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/postern-router/postern/ether"
)

const (
	ipHeader    = 20
	udpHeader   = 8
	protocolUDP = 17
)

// Packet is a UDP datagram over IPv4 in an Ethernet frame.
type Packet struct {
	FromMAC, ToMAC ether.MAC
	From, To       netip.AddrPort
	Payload        []byte
}

// Append appends the frame to b.
func (p Packet) Append(b []byte) []byte {
	b = append(append(b, p.ToMAC[:]...), p.FromMAC[:]...)
	b = binary.BigEndian.AppendUint16(b, ether.IPv4)
	ip := len(b)
	from, to := p.From.Addr().As4(), p.To.Addr().As4()
	length := uint16(udpHeader + len(p.Payload))
	b = append(b, 0x45, 0x10) // version and length; low delay, as other clients and servers have it
	b = binary.BigEndian.AppendUint16(b, ipHeader+length)
	b = append(b, 0, 0, 0, 0, 64, protocolUDP, 0, 0) // no fragment; time to live
	b = append(append(b, from[:]...), to[:]...)
	binary.BigEndian.PutUint16(b[ip+10:], checksum(0, b[ip:]))
	udp := len(b)
	b = binary.BigEndian.AppendUint16(b, p.From.Port())
	b = binary.BigEndian.AppendUint16(b, p.To.Port())
	b = binary.BigEndian.AppendUint16(b, length)
	b = append(append(b, 0, 0), p.Payload...)
	sum := checksum(pseudoHeader(from, to, length), b[udp:])
	if sum == 0 {
		sum = 0xFFFF // zero is no checksum (RFC 768)
	}
	binary.BigEndian.PutUint16(b[udp+6:], sum)
	return b
}

// ParsePacket reads a frame, whose memory Payload shares. Unless sumReady is true, the UDP
// checksum is not looked at: see Conn.Read.
func ParsePacket(frame []byte, sumReady bool) (Packet, error) {
	var p Packet
	if len(frame) < ether.Header+ipHeader+udpHeader {
		return p, errors.New("the frame is too short")
	}
	copy(p.ToMAC[:], frame)
	copy(p.FromMAC[:], frame[6:])
	ip := frame[ether.Header:]
	header := 4 * int(ip[0]&0x0F)
	total := int(binary.BigEndian.Uint16(ip[2:]))
	if binary.BigEndian.Uint16(frame[12:]) != ether.IPv4 || ip[0]>>4 != 4 || ip[9] != protocolUDP {
		return p, errors.New("no UDP over IPv4")
	}
	// The frame may be longer: Ethernet has at least 60 bytes.
	if header < ipHeader || total < header+udpHeader || total > len(ip) {
		return p, errors.New("a wrong length in the IPv4 header")
	}
	if binary.BigEndian.Uint16(ip[6:])&0x3FFF != 0 {
		return p, errors.New("a fragment")
	}
	if checksum(0, ip[:header]) != 0 {
		return p, errors.New("a wrong checksum of the IPv4 header")
	}
	from, to := [4]byte(ip[12:]), [4]byte(ip[16:])
	udp := ip[header:total]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if length < udpHeader || length > len(udp) {
		return p, errors.New("a wrong length in the UDP header")
	}
	udp = udp[:length]
	if sumReady && binary.BigEndian.Uint16(udp[6:]) != 0 && checksum(pseudoHeader(from, to, uint16(length)), udp) != 0 {
		return p, errors.New("a wrong UDP checksum")
	}
	p.From = netip.AddrPortFrom(netip.AddrFrom4(from), binary.BigEndian.Uint16(udp))
	p.To = netip.AddrPortFrom(netip.AddrFrom4(to), binary.BigEndian.Uint16(udp[2:]))
	p.Payload = udp[udpHeader:]
	return p, nil
}

// pseudoHeader is the sum of what UDP's checksum has besides the datagram (RFC 768).
func pseudoHeader(from, to [4]byte, length uint16) uint32 {
	return sum(sum(0, from[:]), to[:]) + protocolUDP + uint32(length)
}

// sum adds b, as big-endian numbers of 16 bits. It does not overflow: b is a packet.
func sum(start uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		start += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		start += uint32(b[0]) << 8
	}
	return start
}

// checksum is the Internet checksum (RFC 1071) of b and what start has summed.
func checksum(start uint32, b []byte) uint16 {
	n := sum(start, b)
	n = n>>16 + n&0xFFFF
	n += n >> 16
	return ^uint16(n)
}
