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
	return requestSOCKSWithin(conn, command, to, patience)
}

// requestSOCKSWithin does so if the reply comes within a time.
func requestSOCKSWithin(conn net.Conn, command byte, to netip.AddrPort, limit time.Duration) (socksReply, error) {
	request := []byte{4, command}
	request = binary.BigEndian.AppendUint16(request, to.Port())
	request = append(request, to.Addr().AsSlice()...)
	if _, err := conn.Write(append(request, 0)); err != nil {
		return socksReply{}, fmt.Errorf("SOCKS request: %w", err)
	}
	return readReplySOCKS(conn, limit)
}

// readReplySOCKS waits for a reply, at most limit.
func readReplySOCKS(conn net.Conn, limit time.Duration) (socksReply, error) {
	if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
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
