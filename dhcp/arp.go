package dhcp

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/postern-router/postern/ether"
)

// ARP is an ARP packet for IPv4 over Ethernet (RFC 826).
type ARP struct {
	Reply                bool // else a request
	SenderMAC, TargetMAC ether.MAC
	Sender, Target       netip.Addr
}

// Probe asks whether anyone on the link has address, without saying that self has one (RFC 5227
// 1.1).
func Probe(self ether.MAC, address netip.Addr) ARP {
	return ARP{SenderMAC: self, Sender: netip.IPv4Unspecified(), Target: address}
}

// Has reports whether the packet says that a machine other than self has address, or probes for
// it, too (RFC 5227 2.1.1).
func (a ARP) Has(address netip.Addr, self ether.MAC) bool {
	if a.SenderMAC == self {
		return false
	}
	return a.Sender == address || !a.Reply && a.Sender.IsUnspecified() && a.Target == address
}

// arpHeader is Ethernet (1), IPv4, and the lengths of their addresses.
const arpHeader = 1<<48 | ether.IPv4<<32 | 6<<24 | 4<<16

const arpSize = ether.Header + 28

// Append appends the frame to b: a request to everybody, a reply to its target.
func (a ARP) Append(b []byte) []byte {
	to, operation := ether.Broadcast, uint64(1)
	if a.Reply {
		to, operation = a.TargetMAC, 2
	}
	b = append(append(b, to[:]...), a.SenderMAC[:]...)
	b = binary.BigEndian.AppendUint16(b, ether.ARP)
	b = binary.BigEndian.AppendUint64(b, arpHeader|operation)
	sender, target := a.Sender.As4(), a.Target.As4()
	b = append(append(b, a.SenderMAC[:]...), sender[:]...)
	return append(append(b, a.TargetMAC[:]...), target[:]...)
}

// ParseARP reads a frame.
func ParseARP(frame []byte) (ARP, error) {
	if len(frame) < arpSize || binary.BigEndian.Uint16(frame[12:]) != ether.ARP {
		return ARP{}, errors.New("no ARP packet")
	}
	head := binary.BigEndian.Uint64(frame[ether.Header:])
	operation := head & 0xFFFF
	if head&^0xFFFF != arpHeader || operation != 1 && operation != 2 {
		return ARP{}, errors.New("no ARP packet for IPv4 over Ethernet")
	}
	b := frame[ether.Header+8:]
	return ARP{Reply: operation == 2, SenderMAC: ether.MAC(b), Sender: addr(b[6:]), TargetMAC: ether.MAC(b[10:]), Target: addr(b[16:])}, nil
}
