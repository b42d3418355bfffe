package socks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// The bytes of version 5, from RFC 1928, and those of its method 2, from RFC 1929.
const (
	version5         = 5
	commandAssociate = 3 // UDP ASSOCIATE

	methodNone     = 0
	methodPassword = 2
	methodRefused  = 0xff

	addressIPv4 = 1
	addressName = 3
	addressIPv6 = 4

	loginVersion  = 1
	loginAccepted = 0
	loginRefused  = 1
)

// The codes of a reply of version 5 (RFC 1928, section 6).
const (
	reply5Granted            = 0
	reply5Failed             = 1
	reply5NotAllowed         = 2
	reply5NetworkUnreachable = 3
	reply5HostUnreachable    = 4
	reply5Refused            = 5
	reply5TimedOut           = 6 // the RFC calls it "TTL expired"
	reply5Command            = 7
	reply5AddressType        = 8
)

// parseGreeting reads the message with which a client of version 5 begins, and returns the
// methods that the client offers. n is its length, or 0 if more bytes are needed.
func parseGreeting(b []byte) (methods []byte, n int, err error) {
	if len(b) >= 1 && b[0] != version5 {
		return nil, 0, fmt.Errorf("version %d is not 4 or 5", b[0])
	}
	if len(b) < 2 || len(b) < 2+int(b[1]) {
		return nil, 0, nil
	}
	n = 2 + int(b[1])
	return b[2:n], n, nil
}

// parseLogin reads the name and password of RFC 1929 at the beginning of b, 1..255 bytes each.
// n is their length, or 0 if more bytes are needed.
func parseLogin(b []byte) (name, password []byte, n int, err error) {
	if len(b) >= 1 && b[0] != loginVersion {
		return nil, nil, 0, fmt.Errorf("version %d of the login is not %d", b[0], loginVersion)
	}
	end := 2 // of the name's length, then of the name
	if len(b) < end {
		return nil, nil, 0, nil
	}
	end += int(b[1])
	if len(b) < end+1 || len(b) < end+1+int(b[end]) {
		return nil, nil, 0, nil
	}
	name, password = b[2:end], b[end+1:end+1+int(b[end])]
	if len(name) == 0 || len(password) == 0 {
		return nil, nil, 0, errors.New("login: empty name or password")
	}
	return name, password, end + 1 + len(password), nil
}

// parseRequest5 reads the request of version 5 at the beginning of b and returns its length.
// n is 0 if more bytes are needed, which is never so for maxRequest bytes. An invalid request
// is an error once all of it has come, because the client reads no reply before that; only
// a wrong version, and an address of a type whose length nobody knows, are errors at once.
func parseRequest5(b []byte) (r request, n int, err error) {
	if len(b) >= 1 && b[0] != version5 {
		return request{}, 0, fmt.Errorf("version %d of the request is not 5", b[0])
	}
	// VER, CMD, RSV, ATYP, DST.ADDR, DST.PORT
	const head, port = 4, 2
	if len(b) < head {
		return request{}, 0, nil
	}
	var addr int
	switch b[3] {
	case addressIPv4:
		addr = 4
	case addressIPv6:
		addr = 16
	case addressName:
		if len(b) == head {
			return request{}, 0, nil
		}
		addr = 1 + int(b[head])
	default:
		return request{}, 0, replyError{reply5AddressType, fmt.Sprintf("address type %d is not IPv4, IPv6 or a name", b[3])}
	}
	if n = head + addr + port; len(b) < n {
		return request{}, 0, nil
	}
	r.command = b[1]
	r.port = binary.BigEndian.Uint16(b[n-port:])
	switch {
	case r.command != commandConnect && r.command != commandBind && r.command != commandAssociate:
		return request{}, 0, replyError{reply5Command, fmt.Sprintf("command %d is not CONNECT, BIND or UDP ASSOCIATE", r.command)}
	case b[3] == addressIPv6:
		return request{}, 0, replyError{reply5AddressType, "the destination is an IPv6 address"}
	case b[3] == addressName && addr == 1:
		return request{}, 0, replyError{reply5Failed, "empty host name"}
	case r.command == commandConnect && r.port == 0:
		return request{}, 0, replyError{reply5Failed, "CONNECT to port 0"}
	case b[3] == addressName:
		r.host = string(b[head+1 : head+addr])
	default:
		r.addr = netip.AddrFrom4([4]byte(b[head : head+addr]))
	}
	return r, n, nil
}

// appendReply5 appends the 10 bytes of a reply of version 5. An addr that is not IPv4 is
// written as 0.0.0.0:0.
func appendReply5(b []byte, code byte, addr netip.AddrPort) []byte {
	b = append(b, version5, code, 0, addressIPv4)
	if !addr.Addr().Is4() {
		return append(b, 0, 0, 0, 0, 0, 0)
	}
	ip := addr.Addr().As4()
	b = append(b, ip[:]...)
	return binary.BigEndian.AppendUint16(b, addr.Port())
}
