package socks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// The bytes of version 4, from the memo. The commands are those of version 5 too.
const (
	version4       = 4
	commandConnect = 1
	commandBind    = 2
	replyGranted   = 90
	replyRejected  = 91
)

// maxField is the length in bytes of the longest user id, host name, name of a user and
// password.
const maxField = 255

// maxRequest is the length of the longest request of version 4: VN, CD, DSTPORT, DSTIP, then
// the user id and the host name with their NULs. No message of version 5 is longer.
const maxRequest = 8 + 2*(maxField+1)

// request is the request of a client.
type request struct {
	command byte
	// addr is the destination; 0.0.0.0 asks for a BIND for anyone. It means nothing if
	// there is a host.
	addr netip.Addr
	port uint16
	// user is the user id of version 4.
	user string
	// host is the name of the destination, if the client gave a name.
	host string
}

// parseRequest4 reads the request of version 4 at the beginning of b and returns its length.
// n is 0 if more bytes are needed, which is never so for maxRequest bytes. An invalid request
// is an error as early as possible: version, command, CONNECT to port 0, a user id or host
// name of more than 255 bytes, an empty host name.
func parseRequest4(b []byte) (r request, n int, err error) {
	if len(b) >= 1 && b[0] != version4 {
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

// appendReply4 appends the 8 bytes of a reply of version 4. An addr that is not IPv4 is
// written as 0.0.0.0:0, which the memo lets a client ignore.
func appendReply4(b []byte, code byte, addr netip.AddrPort) []byte {
	b = append(b, 0, code)
	if !addr.Addr().Is4() {
		return append(b, 0, 0, 0, 0, 0, 0)
	}
	b = binary.BigEndian.AppendUint16(b, addr.Port())
	ip := addr.Addr().As4()
	return append(b, ip[:]...)
}
