package pppoe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/postern-router/postern/ether"
)

// Session is a connection to an access concentrator. The zero Session is none.
type Session struct {
	Server ether.MAC
	ID     uint16 // 1..65534: 0 is none, and 65535 is reserved (RFC 2516, section 4)
}

func (s Session) valid() bool { return s.Server.IsHost() && s.ID != 0 && s.ID != 0xFFFF }

// Codes of packets of the discovery stage (RFC 2516, appendix A).
const (
	codePADO = 0x07 // an offer
	codePADI = 0x09 // looks for an access concentrator
	codePADR = 0x19 // asks for a session
	codePADS = 0x65 // confirms the session
	codePADT = 0xA7 // ends a session, from either side
)

// Tags of such packets (RFC 2516, appendix A).
const (
	tagEnd          = 0x0000
	tagServiceName  = 0x0101
	tagACName       = 0x0102
	tagHostUniq     = 0x0103
	tagCookie       = 0x0104
	tagRelaySession = 0x0110
	tagServiceError = 0x0201
	tagSystemError  = 0x0202
	tagGenericError = 0x0203
)

const (
	pppoeHeader = 6
	versionType = 0x11
	// maxEcho is how many bytes of a tag of the server's are sent back: a PADR has room for a
	// cookie and a relay's identifier of that size.
	maxEcho = 512
)

// tag is a value of a discovery packet.
type tag struct {
	typ   uint16
	value []byte
}

// discovery is a packet of the discovery stage.
type discovery struct {
	to, from ether.MAC
	code     byte
	session  uint16
	tags     []tag
}

var errDiscovery = errors.New("no packet of PPPoE's discovery")

// parseDiscovery reads a frame. The tags are part of it.
func parseDiscovery(frame []byte) (discovery, error) {
	var d discovery
	if len(frame) < ether.Header+pppoeHeader || binary.BigEndian.Uint16(frame[12:]) != ether.PPPoEDiscovery || frame[ether.Header] != versionType {
		return d, errDiscovery
	}
	d.to, d.from = ether.MAC(frame[:6]), ether.MAC(frame[6:])
	b := frame[ether.Header:]
	d.code, d.session = b[1], binary.BigEndian.Uint16(b[2:])
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length > len(b)-pppoeHeader {
		return d, fmt.Errorf("%w: a length of %d, where there are %d bytes", errDiscovery, length, len(b)-pppoeHeader)
	}
	for b = b[pppoeHeader : pppoeHeader+length]; len(b) >= 4; {
		t := tag{typ: binary.BigEndian.Uint16(b)}
		size := int(binary.BigEndian.Uint16(b[2:]))
		if t.typ == tagEnd {
			return d, nil
		}
		if size > len(b)-4 {
			return d, fmt.Errorf("%w: a tag of %d bytes, where there are %d", errDiscovery, size, len(b)-4)
		}
		t.value = b[4 : 4+size]
		d.tags = append(d.tags, t)
		b = b[4+size:]
	}
	if len(b) > 0 {
		return d, fmt.Errorf("%w: %d bytes that are no tag", errDiscovery, len(b))
	}
	return d, nil
}

// frame returns the packet as a frame.
func (d discovery) frame() []byte {
	b := append(append(make([]byte, 0, 128), d.to[:]...), d.from[:]...)
	b = binary.BigEndian.AppendUint16(b, ether.PPPoEDiscovery)
	b = append(b, versionType, d.code)
	b = binary.BigEndian.AppendUint16(b, d.session)
	b = binary.BigEndian.AppendUint16(b, 0)
	for _, t := range d.tags {
		b = binary.BigEndian.AppendUint16(b, t.typ)
		b = binary.BigEndian.AppendUint16(b, uint16(len(t.value)))
		b = append(b, t.value...)
	}
	binary.BigEndian.PutUint16(b[ether.Header+4:], uint16(len(b)-ether.Header-pppoeHeader))
	return b
}

// get returns the first tag of a type.
func (d discovery) get(typ uint16) ([]byte, bool) {
	for _, t := range d.tags {
		if t.typ == typ {
			return t.value, true
		}
	}
	return nil, false
}

// has reports whether a tag of the type has that value.
func (d discovery) has(typ uint16, value []byte) bool {
	for _, t := range d.tags {
		if t.typ == typ && bytes.Equal(t.value, value) {
			return true
		}
	}
	return false
}

// refusal returns the error that the packet tells, "" if it tells none.
func (d discovery) refusal() string {
	for _, e := range []struct {
		typ  uint16
		name string
	}{{tagServiceError, "it does not have the service"}, {tagSystemError, "it has an error"}, {tagGenericError, "it refuses"}} {
		if value, has := d.get(e.typ); has {
			if text := printable(value); text != "" {
				return e.name + ": " + text
			}
			return e.name
		}
	}
	return ""
}

// maxText is how much of a text of the server's is shown.
const maxText = 80

// printable makes a text of the server's fit for a line of the log.
func printable(b []byte) string { return clean(b[:min(len(b), maxText)]) }

// clean replaces what is no letter, digit or sign of ASCII.
func clean(b []byte) string {
	b = bytes.Clone(b)
	for i, c := range b {
		if c < 0x20 || c > 0x7E {
			b[i] = '?'
		}
	}
	return string(bytes.TrimSpace(b))
}
