package socks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// The bytes of the protocol, from the memo.
const (
	version        = 4
	commandConnect = 1
	commandBind    = 2
	replyGranted   = 90
	replyRejected  = 91
)

// maxField is the length of the longest user id and of the longest host name.
const maxField = 255

// maxRequest is the length of the longest request: VN, CD, DSTPORT, DSTIP, then
// the user id and the host name with their NULs.
const maxRequest = 8 + 2*(maxField+1)

// request is the request of a client.
type request struct {
	command byte
	// addr is DSTIP; 0.0.0.0 asks for a BIND for anyone. It means nothing if there is a
	// host.
	addr netip.Addr
	port uint16
	user string
	// host is the name of a SOCKS 4a request, else empty.
	host string
}

// parseRequest reads the request at the beginning of b and returns its length. n is 0 if
// more bytes are needed, which is never so for maxRequest bytes. An invalid request is an
// error as early as possible: version, command, CONNECT to port 0, a user id or host name
// of more than 255 bytes, an empty host name.
func parseRequest(b []byte) (r request, n int, err error) {
	if len(b) >= 1 && b[0] != version {
		return request{}, 0, fmt.Errorf("version %d is not 4", b[0])
	}
	if len(b) >= 2 && b[1] != commandConnect && b[1] != commandBind {
		return request{}, 0, fmt.Errorf("command %d is not CONNECT or BIND", b[1])
	}
	if len(b) < 8 {
		return request{}, 0, nil
	}
	r.command = b[1]
	r.port = binary.BigEndian.Uint16(b[2:])
	r.addr = netip.AddrFrom4([4]byte(b[4:8]))
	if r.command == commandConnect && r.port == 0 {
		return request{}, 0, errors.New("CONNECT to port 0")
	}
	user, complete, err := field("user id", b[8:])
	if err != nil || !complete {
		return request{}, 0, err
	}
	n = 8 + len(user) + 1
	// 4a: DSTIP 0.0.0.x with x other than 0 announces a host name.
	if b[4] == 0 && b[5] == 0 && b[6] == 0 && b[7] != 0 {
		host, complete, err := field("host name", b[n:])
		if err != nil || !complete {
			return request{}, 0, err
		}
		if len(host) == 0 {
			return request{}, 0, errors.New("empty host name")
		}
		r.host = string(host)
		n += len(host) + 1
	}
	r.user = string(user)
	return r, n, nil
}

// field returns the bytes of b before its first NUL, and whether there is one.
func field(name string, b []byte) (value []byte, complete bool, err error) {
	end := bytes.IndexByte(b, 0)
	if end > maxField || end < 0 && len(b) > maxField {
		return nil, false, fmt.Errorf("%s of more than %d bytes", name, maxField)
	}
	if end < 0 {
		return nil, false, nil
	}
	return b[:end], true, nil
}

// appendReply appends the 8 bytes of a reply. An addr that is not IPv4 is
// written as 0.0.0.0:0, which the memo lets a client ignore.
func appendReply(b []byte, code byte, addr netip.AddrPort) []byte {
	b = append(b, 0, code)
	if !addr.Addr().Is4() {
		return append(b, 0, 0, 0, 0, 0, 0)
	}
	b = binary.BigEndian.AppendUint16(b, addr.Port())
	ip := addr.Addr().As4()
	return append(b, ip[:]...)
}
