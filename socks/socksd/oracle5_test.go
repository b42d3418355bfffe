package main

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
)

// greeting5 is that of a client of version 5 that offers no method but "none".
const greeting5 = "\x05\x01\x00"

func ask5(command byte, dst string) string {
	a := netip.MustParseAddrPort(dst)
	ip := a.Addr().As4()
	return string([]byte{5, command, 0, 1}) + string(ip[:]) + string([]byte{byte(a.Port() >> 8), byte(a.Port())})
}

func askName5(command byte, host string, port uint16) string {
	return string([]byte{5, command, 0, 3, byte(len(host))}) + host + string([]byte{byte(port >> 8), byte(port)})
}

func (s *stage) connect5() string { return greeting5 + ask5(commandConnect, s.target.Addr().String()) }

func (s *stage) targetPort() uint16 { return s.target.Addr().(*net.TCPAddr).AddrPort().Port() }

// method notes the method that the proxy chooses, or how the connection ended instead.
func (s *stage) method(c peer) {
	s.t.Helper()
	b := make([]byte, 2)
	if n, err := io.ReadFull(c, b); err != nil {
		s.note("no method: %s", ending(b[:n], err))
		return
	}
	s.note("%02x", b)
}

// reply5 notes a reply of version 5, and returns its address.
func (s *stage) reply5(c peer) netip.AddrPort {
	s.t.Helper()
	b := make([]byte, 10)
	n, err := io.ReadFull(c, b)
	if err != nil {
		s.note("no reply: %s", ending(b[:n], err))
		return netip.AddrPort{}
	}
	if !slices.Equal(b[:4], []byte{5, b[1], 0, 1}) {
		s.note("reply % x", b)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), uint16(b[8])<<8|uint16(b[9]))
	s.note("%02x %s", b[1], s.words(at))
	return at
}

var oracles5 = []oracle{
	{name: "CONNECT", play: func(s *stage) {
		near := s.client(greeting5)
		s.method(near)
		near.send(ask5(commandConnect, s.target.Addr().String()))
		s.reply5(near)
		s.relays(near, s.accept())
	}, ours: "0500; 00 198.51.100.1:port; ping pong"},
	{name: "CONNECT, everything in one segment", play: func(s *stage) {
		near := s.client(s.connect5() + "early")
		s.method(near)
		s.reply5(near)
		s.note("server gets %q", s.accept().receive(5))
	}, ours: `0500; 00 198.51.100.1:port; server gets "early"`},
	{name: "CONNECT a byte at a time", play: func(s *stage) {
		near := s.client(strings.Split(s.connect5()+"early", "")...)
		s.method(near)
		s.reply5(near)
		s.note("server gets %q", s.accept().receive(5))
	}, ours: `0500; 00 198.51.100.1:port; server gets "early"`},
	{name: "CONNECT and half-close at once", play: func(s *stage) {
		near := s.client(s.connect5() + "question")
		require.NoError(s.t, near.CloseWrite())
		s.method(near)
		s.reply5(near)
		far := s.accept()
		s.gets("server", far)
		far.send("answer")
		far.Close()
		s.gets("client", near)
	}, ours: `0500; 00 198.51.100.1:port; server gets "question", then end; client gets "answer", then end`},
	{name: "CONNECT by name", play: func(s *stage) {
		near := s.client(greeting5 + askName5(commandConnect, serverName, s.targetPort()))
		s.method(near)
		s.reply5(near)
		s.relays(near, s.accept())
	}, ours: "0500; 00 198.51.100.1:port; ping pong"},
	{name: "CONNECT by a name that does not exist", play: func(s *stage) {
		near := s.client(greeting5 + askName5(commandConnect, "nowhere.invalid", 80))
		s.method(near)
		s.reply5(near)
		s.gets("client", near)
	}, ours: "0500; 04 0.0.0.0:0; client gets end",
		dante: `0500; reply 05 04 00 03 0f 6e 6f 77 68 65; 04 15.110.111.119:port; client gets "re.invalid\x00P", then end`,
		why:   "an address in a reply is an IPv4 address in ours: many clients read 10 bytes and no more"},
	{name: "CONNECT refused", play: func(s *stage) {
		s.target.Close()
		near := s.client(s.connect5())
		s.method(near)
		s.reply5(near)
		s.gets("client", near)
	}, ours: "0500; 05 0.0.0.0:0; client gets end",
		dante: "0500; 05 198.51.100.1:port; client gets end",
		why:   "RFC 1928 does not say what the address is if a request is refused: ours is 0"},
	{name: "CONNECT to the proxy's loopback", play: func(s *stage) {
		own := s.l.listen(s.t, proxyHost, "127.0.0.1:0")
		near := s.client(greeting5 + ask5(commandConnect, own.Addr().String()))
		s.method(near)
		s.reply5(near)
	}, ours: "0500; 02 0.0.0.0:0",
		dante: "0500; 00 198.51.100.1:port",
		why:   "no way round the input firewall: nothing that listens on the router's own addresses can be reached, whatever its rules say"},
	{name: "CONNECT to an IPv6 address", play: func(s *stage) {
		near := s.client(greeting5 + "\x05\x01\x00\x04" + strings.Repeat("\x20", 16) + "\x00\x50")
		s.method(near)
		s.reply5(near)
	}, ours: "0500; 08 0.0.0.0:0",
		dante: "0500; reply 05 08 00 04 20 20 20 20 20 20; 08 32.32.32.32:port",
		why:   "an address in a reply is an IPv4 address in ours: many clients read 10 bytes and no more"},
	{name: "an unknown command", play: func(s *stage) {
		near := s.client(greeting5 + ask5(9, s.target.Addr().String()))
		s.method(near)
		s.reply5(near)
	}, ours: "0500; 07 0.0.0.0:0",
		dante: "0500; no reply: end",
		why:   "RFC 1928, section 6, has a code for it"},
	{name: "an unknown type of address", play: func(s *stage) {
		near := s.client(greeting5 + "\x05\x01\x00\x02")
		s.method(near)
		s.reply5(near)
	}, ours: "0500; 08 0.0.0.0:0",
		dante: "0500; no reply: end",
		why:   "RFC 1928, section 6, has a code for it"},
	{name: "odd methods", play: func(s *stage) {
		near := s.client("\x05\x03\x01\x03\x80")
		s.method(near)
		s.gets("client", near)
	}, ours: "05ff; client gets end"},
	{name: "no methods", play: func(s *stage) {
		near := s.client("\x05\x00")
		s.method(near)
		s.gets("client", near)
	}, ours: "05ff; client gets end"},
	{name: "BIND, the peer calls", play: func(s *stage) {
		near := s.client(greeting5 + ask5(commandBind, serverAddress+":21"))
		s.method(near)
		at := s.reply5(near)
		far := s.call(serverAddress, at)
		s.reply5(near)
		s.relays(near, far)
	}, ours: "0500; 00 198.51.100.1:port; 00 198.51.100.2:port; ping pong"},
	{name: "BIND, another calls", play: func(s *stage) {
		near := s.client(greeting5 + ask5(commandBind, serverAddress+":21"))
		s.method(near)
		at := s.reply5(near)
		s.wrongCall(strangerAddress, at)
		s.reply5(near)
		s.closed(at)
	}, ours: "0500; 00 198.51.100.1:port; caller gets reset; 02 0.0.0.0:0; port closed",
		dante: "0500; 00 198.51.100.1:port; caller gets end; 02 198.51.100.3:port; port closed",
		why:   "ours tells the caller nothing, as if nobody listened, and the client no address"},
	{name: "BIND for anyone", play: func(s *stage) {
		near := s.client(greeting5 + ask5(commandBind, "0.0.0.0:0"))
		s.method(near)
		at := s.reply5(near)
		far := s.call(strangerAddress, at)
		s.reply5(near)
		s.relays(near, far)
	}, ours: "0500; 00 198.51.100.1:port; 00 198.51.100.3:port; ping pong"},
	{name: "BIND by name", play: func(s *stage) {
		near := s.client(greeting5 + askName5(commandBind, serverName, 21))
		s.method(near)
		at := s.reply5(near)
		s.call(serverAddress, at)
		s.reply5(near)
	}, ours: "0500; 00 198.51.100.1:port; 00 198.51.100.2:port"},
	{name: "the client resets", play: func(s *stage) {
		near := s.client(s.connect5())
		s.method(near)
		s.reply5(near)
		far := s.accept()
		near.reset()
		s.gets("server", far)
	}, ours: "0500; 00 198.51.100.1:port; server gets reset",
		dante: "0500; 00 198.51.100.1:port; server gets end",
		why:   "who was sent a reset must not take a cut stream for a whole one: ours passes the reset on"},
	{name: "the server resets", play: func(s *stage) {
		near := s.client(s.connect5())
		s.method(near)
		s.reply5(near)
		s.accept().reset()
		s.gets("client", near)
	}, ours: "0500; 00 198.51.100.1:port; client gets reset",
		dante: "0500; 00 198.51.100.1:port; client gets end",
		why:   "who was sent a reset must not take a cut stream for a whole one: ours passes the reset on"},
}

// TestOracle5 runs each case of version 5 with socksd and with Dante.
func TestOracle5(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	l := newLab(t, serverAddress)
	ours := l.socksd(t, self(t), "--socks-version=5")
	l.compare(t, oracles5, ours, l.danted(t, "socks_v5"))
}
