package resolve

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
)

// AskUDP sends a DNS message to a server, and gives take what comes back, datagram by datagram, until
// take returns true. Each is at most size bytes long, the rest is cut off, and it is take's until
// take returns. The socket is new, and so its port is random (RFC 6056); it receives datagrams of that
// server only. Its address may be that of WithClient. It returns an error of package net, which says that the socket is closed once ctx
// has ended.
func AskUDP(ctx context.Context, server netip.AddrPort, message []byte, size int, take func(datagram []byte) bool) error {
	// Not DialContext: with it comes the resolver of package net, 0.15 MB of the program.
	var d net.Dialer
	conn, err := d.DialUDP(ctx, family("udp", server), source(ctx, server), server)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write(message); err != nil {
		return err
	}
	b := make([]byte, size)
	for {
		n, err := conn.Read(b)
		if err != nil {
			return err
		}
		if take(b[:n]) {
			return nil
		}
	}
}

// AskTCP sends a DNS message to a server over a new connection, and returns the one that comes back,
// of at most size bytes. Each has its length ahead of it, in two bytes (RFC 1035, section 4.2.2).
func AskTCP(ctx context.Context, server netip.AddrPort, message []byte, size int) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialTCP(ctx, family("tcp", server), source(ctx, server), server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := WriteTCP(conn, message); err != nil {
		return nil, err
	}
	return ReadTCP(conn, size)
}

// WriteTCP writes a message with its length, in one go.
func WriteTCP(w io.Writer, message []byte) error {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(message)), uint16(len(message)))
	_, err := w.Write(append(b, message...))
	return err
}

// ReadTCP reads such a message of at most size bytes.
func ReadTCP(r io.Reader, size int) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, fmt.Errorf("ended the connection without an answer: %w", err)
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n > size {
		return nil, fmt.Errorf("sent an answer of %d bytes, more than %d", n, size)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("ended the connection within an answer: %w", err)
	}
	return b, nil
}

// clientKey is the key of WithClient.
type clientKey struct{}

// WithClient says for whom the lookups of the context are. A name server on this machine that shares what it has among its
// clients, as package dns does, knows only who asks it, and would take all clients of a proxy for one. So it is asked from an
// address of 127.128.0.0/10 that ends as the client's does: all of 127.0.0.0/8 is this machine. Other servers do not see it.
func WithClient(ctx context.Context, client netip.Addr) context.Context {
	return context.WithValue(ctx, clientKey{}, client)
}

// source is the address from which a server is asked, the zero value if the kernel is to choose it.
func source(ctx context.Context, server netip.AddrPort) netip.AddrPort {
	client, ok := ctx.Value(clientKey{}).(netip.Addr)
	if !ok || !client.Is4() || !server.Addr().Is4() || !server.Addr().IsLoopback() {
		return netip.AddrPort{}
	}
	a := client.As4()
	// So it is never 127.0.0.1, from which the machine's own programs ask, nor the broadcast address of 127.0.0.0/8.
	a[0], a[1] = 127, 128|a[1]&63
	return netip.AddrPortFrom(netip.AddrFrom4(a), 0)
}

// family is the network of package net for a protocol and the address of a server.
func family(protocol string, server netip.AddrPort) string {
	if server.Addr().Is6() {
		return protocol + "6"
	}
	return protocol + "4"
}
