package neighbor

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
)

// The fields of MNDP: type and length, two bytes each and big-endian, then the value. MikroTik has
// published no description; Wireshark's packet-mndp.c has this one.
const (
	mndpMAC        = 1
	mndpIdentity   = 5
	mndpVersion    = 7
	mndpPlatform   = 8
	mndpUptime     = 10 // seconds, little-endian
	mndpSoftwareID = 11
	mndpBoard      = 12
	mndpInterface  = 16
	mndpAddress    = 17

	// mndpHeader is two bytes that nobody explains, and a number that counts the announcements.
	mndpHeader = 4
)

// MNDP is the frame with which the router announces itself, the one of that number.
func (a Announcement) MNDP(number uint16) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, 0}, number)
	field := func(kind uint16, value []byte) {
		if len(value) > 0 {
			b = binary.BigEndian.AppendUint16(b, kind)
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(value))), value...)
		}
	}
	field(mndpMAC, a.MAC[:])
	field(mndpIdentity, []byte(cut(a.Identity, MaxText)))
	field(mndpVersion, []byte(cut(a.Version, MaxText)))
	field(mndpPlatform, []byte(cut(a.Platform, MaxText)))
	field(mndpUptime, binary.LittleEndian.AppendUint32(nil, uint32(a.Uptime/time.Second)))
	field(mndpBoard, []byte(cut(a.Board, MaxText)))
	field(mndpInterface, []byte(cut(a.Interface, MaxText)))
	from := netip.IPv4Unspecified()
	if a.Address.Is4() {
		from = a.Address
		field(mndpAddress, from.AsSlice())
	}
	everybody := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return dhcp.Packet{FromMAC: a.MAC, ToMAC: ether.Broadcast, From: netip.AddrPortFrom(from, Port), To: netip.AddrPortFrom(everybody, Port), Payload: b}.Append(nil)
}

// parseMNDP reads a frame with an announcement. sumReady is as ether.Conn.Read says it.
func parseMNDP(frame []byte, sumReady bool) (Neighbor, error) {
	p, err := dhcp.ParsePacket(frame, sumReady)
	if err != nil {
		return Neighbor{}, err
	}
	if p.To.Port() != Port || !p.FromMAC.IsHost() || len(p.Payload) < mndpHeader {
		return Neighbor{}, errors.New("no announcement by MNDP")
	}
	n := Neighbor{Protocol: MNDP, MAC: p.FromMAC, Hold: mndpHold}
	if from := p.From.Addr(); !from.IsUnspecified() {
		n.Address = from
	}
	said := false // by a request nobody says anything
	for b := p.Payload[mndpHeader:]; len(b) > 0; {
		if len(b) < 4 || len(b)-4 < int(binary.BigEndian.Uint16(b[2:])) {
			return Neighbor{}, errors.New("a field of MNDP that is not whole")
		}
		kind, value := binary.BigEndian.Uint16(b), b[4:][:binary.BigEndian.Uint16(b[2:])]
		b = b[4+len(value):]
		said = true
		switch kind {
		case mndpIdentity:
			n.Identity = text(value)
		case mndpVersion:
			n.Version = text(value)
		case mndpPlatform:
			n.Platform = text(value)
		case mndpSoftwareID:
			n.SoftwareID = text(value)
		case mndpBoard:
			n.Board = text(value)
		case mndpInterface:
			n.Interface = text(value)
		case mndpUptime:
			if len(value) == 4 {
				n.Uptime = time.Duration(binary.LittleEndian.Uint32(value)) * time.Second
			}
		case mndpAddress:
			if len(value) == 4 {
				n.Address = netip.AddrFrom4([4]byte(value))
			}
		}
	}
	if !said {
		return Neighbor{}, errors.New("no announcement by MNDP, but a request for some")
	}
	return n, nil
}
