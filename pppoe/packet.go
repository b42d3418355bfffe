package pppoe

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Protocols of PPP (RFC 1661, section 2, and the IANA's list).
const (
	protocolIP   = 0x0021
	protocolIPCP = 0x8021
	protocolLCP  = 0xC021
	protocolPAP  = 0xC023
	protocolCHAP = 0xC223
)

// Codes of the packets of LCP (RFC 1661, section 5), of which IPCP has the first seven.
const (
	configureRequest = 1
	configureAck     = 2
	configureNak     = 3
	configureReject  = 4
	terminateRequest = 5
	terminateAck     = 6
	codeReject       = 7
	protocolReject   = 8
	echoRequest      = 9
	echoReply        = 10
	discardRequest   = 11
)

// packet is a packet of a control protocol: LCP, IPCP, PAP or CHAP.
type packet struct {
	code, id byte
	data     []byte
}

var errPacket = errors.New("no packet of a control protocol")

// parsePacket reads a packet. What is behind its length is padding.
func parsePacket(b []byte) (packet, error) {
	if len(b) < 4 {
		return packet{}, fmt.Errorf("%w: %d bytes", errPacket, len(b))
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	if length < 4 || length > len(b) {
		return packet{}, fmt.Errorf("%w: a length of %d, where there are %d bytes", errPacket, length, len(b))
	}
	return packet{b[0], b[1], b[4:length]}, nil
}

// bytes returns the packet as it is sent, without its protocol.
func (p packet) bytes() []byte {
	b := binary.BigEndian.AppendUint16([]byte{p.code, p.id}, uint16(4+len(p.data)))
	return append(b, p.data...)
}

// frame returns the packet as the kernel takes it: behind its protocol.
func (p packet) frame(protocol uint16) []byte {
	return append(binary.BigEndian.AppendUint16(nil, protocol), p.bytes()...)
}

// option is a configuration option (RFC 1661, section 6).
type option struct {
	typ  byte
	data []byte
}

// parseOptions reads all options of a packet. They are part of it.
func parseOptions(b []byte) ([]option, error) {
	var all []option
	for len(b) > 0 {
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return nil, fmt.Errorf("%w: an option that is none", errPacket)
		}
		all = append(all, option{b[0], b[2:b[1]]})
		b = b[b[1]:]
	}
	return all, nil
}

func appendOptions(b []byte, all []option) []byte {
	for _, o := range all {
		b = append(append(b, o.typ, byte(2+len(o.data))), o.data...)
	}
	return b
}
