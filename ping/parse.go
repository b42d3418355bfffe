package ping

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Types of ICMP messages (RFC 792).
const (
	icmpEchoReply   = 0
	icmpUnreachable = 3
	icmpEcho        = 8
	icmpExceeded    = 11
)

// parseTTL returns the time to live of a packet, from the control messages that came with
// it, or 0 if it is not there.
func parseTTL(oob []byte) int {
	ttl := 0
	controlMessages(oob, func(typ int32, data []byte) {
		if typ == unix.IP_TTL && len(data) >= 4 {
			ttl = int(binary.NativeEndian.Uint32(data))
		}
	})
	return ttl
}

// parseFailure reads an entry of a socket's error queue (ip(7), IP_RECVERR). packet is the
// beginning of the request that the error is about, from its ICMP header on. The control
// messages in oob tell what is wrong, and who says so.
func parseFailure(packet, oob []byte) (seq uint16, e echo, found bool) {
	if len(packet) < icmpHeader || packet[0] != icmpEcho {
		return 0, echo{}, false
	}
	controlMessages(oob, func(typ int32, data []byte) {
		// struct sock_extended_err (linux/errqueue.h): errno of 4 bytes, origin, type,
		// code: 16 bytes in all. The sockaddr_in of the error's sender follows.
		if typ != unix.IP_RECVERR || len(data) < 16 {
			return
		}
		found = true
		switch data[4] {
		case unix.SO_EE_ORIGIN_ICMP:
			e.status = icmpStatus(data[5], data[6])
			if len(data) >= 24 {
				e.from = netip.AddrFrom4([4]byte(data[20:24]))
			}
		default:
			e.status = sendStatus(unix.Errno(binary.NativeEndian.Uint32(data)))
		}
	})
	return binary.BigEndian.Uint16(packet[6:]), e, found
}

// controlMessages calls f for each control message of IP (cmsg(3)) in oob.
func controlMessages(oob []byte, f func(typ int32, data []byte)) {
	for len(oob) >= unix.CmsgLen(0) {
		head, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return
		}
		if head.Level == unix.IPPROTO_IP {
			f(head.Type, data)
		}
		oob = rest
	}
}

// icmpStatus returns the meaning of an ICMP error.
func icmpStatus(typ, code byte) string {
	switch typ {
	case icmpExceeded:
		if code == 0 {
			return "TTL exceeded"
		}
		return "fragment reassembly time exceeded"
	case icmpUnreachable:
		if text, ok := map[byte]string{
			0: "net unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable",
			4: "fragmentation needed and DF set", 9: "net prohibited", 10: "host prohibited", 13: "admin prohibited",
		}[code]; ok {
			return text
		}
	}
	return fmt.Sprintf("ICMP type %d code %d", typ, code)
}

// sendStatus returns the reason why this machine did not send a request.
func sendStatus(errno unix.Errno) string {
	switch errno {
	case unix.ENETUNREACH, unix.EHOSTUNREACH:
		return "no route to host"
	case unix.EPERM, unix.EACCES:
		return "packet rejected"
	case unix.EINVAL: // the kernel's word for a route of type blackhole
		return "packet dropped"
	case unix.EMSGSIZE:
		return "packet too large"
	}
	return errno.Error()
}
