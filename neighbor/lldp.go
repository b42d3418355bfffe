package neighbor

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/postern-router/postern/ether"
)

// The fields of LLDP: seven bits of type and nine of length, then the value (IEEE 802.1AB-2016, 8.4). The first
// three are the chassis, the port and the time to live.
const (
	lldpEnd          = 0
	lldpChassis      = 1
	lldpPort         = 2
	lldpTime         = 3
	lldpName         = 5
	lldpDescription  = 6
	lldpCapabilities = 7
	lldpAddress      = 8

	chassisMAC   = 4 // kinds of a chassis and of a port
	portMAC      = 3
	portName     = 5
	familyIPv4   = 1 // IANA's number
	byIndex      = 2 // the number of an interface is its index
	lldpHold     = 4 * Interval
	maxFieldSize = 1<<9 - 1
)

// LLDP is the frame with which the router announces itself. index is the interface's number in the kernel. gone says
// that it goes away.
func (a Announcement) LLDP(index int, gone bool) []byte {
	b := append(append([]byte(nil), Group[:]...), a.MAC[:]...)
	b = binary.BigEndian.AppendUint16(b, EtherType)
	field := func(kind uint16, value ...byte) {
		b = append(binary.BigEndian.AppendUint16(b, kind<<9|uint16(min(len(value), maxFieldSize))), value...)
	}
	field(lldpChassis, append([]byte{chassisMAC}, a.MAC[:]...)...)
	field(lldpPort, append([]byte{portName}, cut(a.Interface, MaxText)...)...)
	hold := uint16(lldpHold / time.Second)
	if gone {
		hold = 0
	}
	field(lldpTime, binary.BigEndian.AppendUint16(nil, hold)...)
	field(lldpName, []byte(cut(a.Identity, MaxText))...)
	field(lldpDescription, []byte(cut(a.Platform+" "+a.Version+" "+a.Board, MaxText))...)
	can := uint16(canRoute)
	if a.Bridge {
		can |= canBridge
	}
	field(lldpCapabilities, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, can), can)...)
	if a.Address.Is4() {
		address := append([]byte{5, familyIPv4}, a.Address.AsSlice()...)
		address = binary.BigEndian.AppendUint32(append(address, byIndex), uint32(index))
		field(lldpAddress, append(address, 0)...) // no object identifier
	}
	field(lldpEnd)
	return b
}

// parseLLDP reads a frame with an announcement.
func parseLLDP(frame []byte) (Neighbor, error) {
	n := Neighbor{Protocol: LLDP}
	if len(frame) < ether.Header || binary.BigEndian.Uint16(frame[12:]) != EtherType {
		return n, errors.New("no announcement by LLDP")
	}
	n.MAC = ether.MAC(frame[6:12])
	if !n.MAC.IsHost() {
		return n, errors.New("no announcement by LLDP of one device")
	}
	b := frame[ether.Header:]
	for place := 1; ; place++ {
		if len(b) < 2 {
			return n, errors.New("a frame of LLDP without an end")
		}
		kind, size := int(b[0]>>1), int(binary.BigEndian.Uint16(b)&maxFieldSize)
		if len(b)-2 < size {
			return n, errors.New("a field of LLDP that is not whole")
		}
		value := b[2:][:size]
		b = b[2+size:]
		if (place <= lldpTime) != (kind >= lldpChassis && kind <= lldpTime) || place <= lldpTime && kind != place {
			return n, errors.New("a frame of LLDP that does not begin with chassis, port and time")
		}
		switch {
		case kind == lldpEnd:
			return n, nil
		case (kind == lldpChassis || kind == lldpPort || kind == lldpTime) && size < 2:
			return n, errors.New("a field of LLDP that is too short")
		case kind == lldpPort && value[0] == portMAC && size == 7:
			n.Interface = ether.MAC(value[1:]).String()
		case kind == lldpPort:
			n.Interface = text(value[1:])
		case kind == lldpTime:
			n.Hold = min(time.Duration(binary.BigEndian.Uint16(value))*time.Second, maxHold)
		case kind == lldpName:
			n.Identity = text(value)
		case kind == lldpDescription:
			n.Description = text(value)
		case kind == lldpCapabilities && size == 4:
			n.Can, n.Does = binary.BigEndian.Uint16(value), binary.BigEndian.Uint16(value[2:])
		case kind == lldpAddress && size >= 6 && value[0] == 5 && value[1] == familyIPv4 && !n.Address.IsValid():
			n.Address = netip.AddrFrom4([4]byte(value[2:]))
		}
	}
}
