package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// socksAddress is where the router's SOCKS service is for its LAN.
const socksAddress = lanAddress + ":1080"

// Codes of SOCKS4.
const (
	commandConnect = 1
	commandBind    = 2
	granted        = 90
	rejected       = 91
)

// socksReply is a reply of a SOCKS4 server.
type socksReply struct {
	code byte
	addr netip.AddrPort
}

// requestSOCKS sends a SOCKS4 request and returns the reply to it.
func requestSOCKS(conn net.Conn, command byte, to netip.AddrPort) (socksReply, error) {
	request := []byte{4, command}
	request = binary.BigEndian.AppendUint16(request, to.Port())
	request = append(request, to.Addr().AsSlice()...)
	if _, err := conn.Write(append(request, 0)); err != nil {
		return socksReply{}, fmt.Errorf("SOCKS request: %w", err)
	}
	return readReplySOCKS(conn)
}

// requestNameSOCKS sends a SOCKS 4a request for CONNECT and returns the reply to it.
func requestNameSOCKS(conn net.Conn, name string, port uint16) (socksReply, error) {
	request := binary.BigEndian.AppendUint16([]byte{4, commandConnect}, port)
	request = append(request, 0, 0, 0, 1, 0) // no address, no user id
	if _, err := conn.Write(append(append(request, name...), 0)); err != nil {
		return socksReply{}, fmt.Errorf("SOCKS 4a request: %w", err)
	}
	return readReplySOCKS(conn)
}

// readReplySOCKS waits for a reply, at most 20 s.
func readReplySOCKS(conn net.Conn) (socksReply, error) {
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return socksReply{}, err
	}
	var reply [8]byte
	if _, err := io.ReadFull(conn, reply[:]); err != nil {
		return socksReply{}, fmt.Errorf("SOCKS reply: %w", err)
	}
	if reply[0] != 0 {
		return socksReply{}, fmt.Errorf("SOCKS reply %v: version %d, not 0", reply, reply[0])
	}
	return socksReply{reply[1], netip.AddrPortFrom(netip.AddrFrom4([4]byte(reply[4:])), binary.BigEndian.Uint16(reply[2:]))},
		conn.SetReadDeadline(time.Time{})
}
