// Package pppoetest is a PPPoE server for tests: an access concentrator (RFC 2516) that speaks PPP (RFC
// 1661, 1332, 1334, 1994, 2759) and carries IP packets. It reads and writes packets by itself, with
// nothing of package pppoe, so that a mistake there is none here.
package pppoetest

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
)

// Config is what a server does. The zero value gives addresses to nobody.
type Config struct {
	MAC         [6]byte
	AC, Service string
	// Auth is pap, chap, mschap2 or "" for none. A client that refuses one is offered the next of
	// them, if there are several, separated by blanks.
	Auth           string
	User, Password string
	// Local is the server's address, and Remote the client's.
	Local, Remote netip.Addr
	DNS           []netip.Addr
	// MRU is what the server says that it receives; 0 says nothing.
	MRU int
	// IP gets the packets of the client, which it must not keep.
	IP func(packet []byte)
}

// Server is a server with at most one session. Its methods may be called from any goroutine.
type Server struct {
	config Config

	mu   sync.Mutex
	send func(frame []byte)

	client    [6]byte
	session   uint16
	last      uint16
	silent    bool
	magic     uint32
	id        byte // of the last request
	missed    bool // the first request of a session, for which the client's kernel was not ready
	auths     []string
	challenge []byte
	lcp, ipcp side
	proved    bool
	log       []string
}

// side is the negotiation of one protocol.
type side struct{ acked, agreed bool }

func (s side) open() bool { return s.acked && s.agreed }

// New returns a server that sends frames by send, which must not call it.
func New(c Config, send func(frame []byte)) *Server {
	return &Server{config: c, send: send}
}

const (
	discovery = 0x8863
	data      = 0x8864
)

// SetSilent makes the server take nothing and say nothing, or end that.
func (s *Server) SetSilent(silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = silent
}

// Up reports whether a client has its address.
func (s *Server) Up() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session != 0 && s.ipcp.open()
}

// Session is the number of the session; 0 is none.
func (s *Server) Session() uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

// Log is what the clients did, a line each.
func (s *Server) Log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.log...)
}

func (s *Server) logf(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

// SetConfig changes what the next session gets.
func (s *Server) SetConfig(change func(*Config)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.config)
}

// Terminate ends the session by LCP, and Hangup by a PADT.
func (s *Server) Terminate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != 0 {
		s.ppp(0xC021, 5, 77, []byte("maintenance"))
	}
}

// Hangup is described at Terminate.
func (s *Server) Hangup() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != 0 {
		s.frame(discovery, 0xA7, s.session, nil)
		s.session = 0
	}
}

// Forget forgets the session, and tells nobody, as after a power cut.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session = 0
}

// Renegotiate begins LCP anew within the session, as a server does that takes over from another.
func (s *Server) Renegotiate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin()
}

// Send sends an IP packet to the client, if it is up.
func (s *Server) Send(packet []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != 0 && s.ipcp.open() && !s.silent {
		s.frame(data, 0, s.session, append([]byte{0, 0x21}, packet...))
	}
}

// Control sends any packet of PPP.
func (s *Server) Control(protocol uint16, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frame(data, 0, s.session, append(binary.BigEndian.AppendUint16(nil, protocol), body...))
}

func (s *Server) frame(typ uint16, code byte, session uint16, payload []byte) {
	b := append(append([]byte(nil), s.client[:]...), s.config.MAC[:]...)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = append(b, 0x11, code)
	b = binary.BigEndian.AppendUint16(b, session)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	s.send(append(b, payload...))
}

func (s *Server) ppp(protocol uint16, code, id byte, body []byte) {
	b := binary.BigEndian.AppendUint16(nil, protocol)
	b = append(b, code, id)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(body)))
	s.frame(data, 0, s.session, append(b, body...))
}

func pairs(b []byte, head int, each func(typ uint16, value []byte)) {
	for len(b) >= head {
		var typ uint16
		var size, whole int
		if head == 4 { // a tag
			typ, size = binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
			whole = 4 + size
		} else {
			typ, whole = uint16(b[0]), int(b[1])
			size = whole - 2
		}
		if size < 0 || whole > len(b) {
			return
		}
		each(typ, b[head:whole])
		b = b[whole:]
	}
}

// Take takes a frame of the link.
func (s *Server) Take(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent || len(frame) < 20 || frame[14] != 0x11 {
		return
	}
	typ, code, session := binary.BigEndian.Uint16(frame[12:]), frame[15], binary.BigEndian.Uint16(frame[16:])
	length := int(binary.BigEndian.Uint16(frame[18:]))
	if length > len(frame)-20 {
		return
	}
	from, payload := [6]byte(frame[6:12]), frame[20:20+length]
	switch {
	case typ == discovery && (code == 0x09 || bytes.Equal(frame[:6], s.config.MAC[:])):
		s.discover(from, code, session, payload)
	case typ == data && from == s.client && session == s.session && session != 0 && len(payload) >= 2:
		s.control(binary.BigEndian.Uint16(payload), payload[2:])
	}
}

func appendTag(b []byte, typ uint16, value []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, typ)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(value))), value...)
}

var cookie = []byte("a cookie")

func (s *Server) discover(from [6]byte, code byte, session uint16, payload []byte) {
	service, answer, hasCookie := "", []byte(nil), false
	pairs(payload, 4, func(typ uint16, value []byte) {
		switch typ {
		case 0x0101:
			service = string(value)
			answer = appendTag(answer, typ, value)
		case 0x0103, 0x0110:
			answer = appendTag(answer, typ, value)
		case 0x0104:
			hasCookie = bytes.Equal(value, cookie)
		}
	})
	if service != "" && service != s.config.Service {
		return
	}
	switch code {
	case 0x09:
		s.logf("PADI %q", service)
		old := s.client
		s.client = from
		s.frame(discovery, 0x07, 0, appendTag(appendTag(answer, 0x0102, []byte(s.config.AC)), 0x0104, cookie))
		if s.session != 0 {
			s.client = old
		}
	case 0x19:
		if !hasCookie {
			s.logf("PADR without the cookie")
			return
		}
		s.logf("PADR %q", service)
		s.last++
		s.client, s.session = from, s.last
		s.frame(discovery, 0x65, s.session, answer)
		s.begin()
		s.missed = true
	case 0xA7:
		s.logf("PADT %d", session)
		if session == s.session && from == s.client {
			s.session = 0
		}
	}
}

// begin begins LCP.
func (s *Server) begin() {
	s.lcp, s.ipcp, s.proved = side{}, side{}, s.config.Auth == ""
	s.auths = nil
	for _, a := range bytes.Fields([]byte(s.config.Auth)) {
		s.auths = append(s.auths, string(a))
	}
	s.magic = 0x51515151
	s.request()
}

func (s *Server) request() {
	var b []byte
	if s.config.MRU != 0 {
		b = binary.BigEndian.AppendUint16(append(b, 1, 4), uint16(s.config.MRU))
	}
	if len(s.auths) > 0 {
		b = append(b, map[string][]byte{"pap": {3, 4, 0xC0, 0x23}, "chap": {3, 5, 0xC2, 0x23, 5}, "mschap2": {3, 5, 0xC2, 0x23, 0x81}}[s.auths[0]]...)
	}
	b = binary.BigEndian.AppendUint32(append(b, 5, 6), s.magic)
	s.id++
	s.ppp(0xC021, 1, s.id, b)
}

func (s *Server) control(protocol uint16, b []byte) {
	if protocol == 0x0021 {
		if s.ipcp.open() && s.config.IP != nil {
			s.config.IP(b)
		}
		return
	}
	if len(b) < 4 || int(binary.BigEndian.Uint16(b[2:])) > len(b) || binary.BigEndian.Uint16(b[2:]) < 4 {
		return
	}
	code, id, body := b[0], b[1], b[4:binary.BigEndian.Uint16(b[2:])]
	switch protocol {
	case 0xC021:
		s.takeLCP(code, id, body)
	case 0xC023, 0xC223:
		s.takeProof(protocol, code, id, body)
	case 0x8021:
		s.takeIPCP(code, id, body)
	default:
		s.logf("protocol %04x", protocol)
	}
}

func (s *Server) takeLCP(code, id byte, body []byte) {
	switch code {
	case 1:
		if s.lcp.open() { // the client begins anew
			s.begin()
		}
		s.lcp.agreed = true
		s.ppp(0xC021, 2, id, body)
		if s.missed {
			s.missed = false
			s.request()
		}
	case 2:
		if s.lcp.acked {
			return
		}
		s.lcp.acked, s.missed = true, false
	case 3, 4:
		if len(s.auths) > 1 {
			s.auths = s.auths[1:]
		} else {
			s.logf("the client refuses")
		}
		s.request()
		return
	case 5:
		s.logf("terminated by the client")
		s.ppp(0xC021, 6, id, nil)
		return
	case 6:
		s.logf("terminated")
		return
	case 8:
		s.logf("protocol reject %x", body[:min(2, len(body))])
		return
	case 9:
		s.ppp(0xC021, 10, id, append(binary.BigEndian.AppendUint32(nil, s.magic), body[min(4, len(body)):]...))
		return
	case 10:
		s.logf("echo reply %d %q", id, body[min(4, len(body)):])
		return
	default:
		s.logf("LCP code %d", code)
		return
	}
	if !s.lcp.open() {
		return
	}
	if len(s.auths) == 0 {
		s.id++
		s.ppp(0x8021, 1, s.id, s.address())
		return
	}
	if s.auths[0] != "pap" {
		s.challenge = make([]byte, 16)
		rand.Read(s.challenge)
		s.ppp(0xC223, 1, 9, append(append([]byte{16}, s.challenge...), "server"...))
	}
}

func (s *Server) address() []byte { return append([]byte{3, 6}, s.config.Local.AsSlice()...) }

func (s *Server) takeProof(protocol uint16, code, id byte, body []byte) {
	if len(s.auths) == 0 || !s.lcp.open() || len(body) < 1 {
		return
	}
	n := int(body[0])
	if n+1 > len(body) {
		return
	}
	value, rest := body[1:1+n], body[1+n:]
	ok, text := false, "welcome"
	switch {
	case protocol == 0xC023 && code == 1 && s.auths[0] == "pap":
		ok = string(value) == s.config.User && len(rest) > 0 && string(rest[1:]) == s.config.Password
	case protocol == 0xC223 && code == 2 && s.auths[0] == "chap":
		sum := md5.Sum([]byte(string(id) + s.config.Password + string(s.challenge)))
		ok = string(rest) == s.config.User && bytes.Equal(sum[:], value)
	case protocol == 0xC223 && code == 2 && s.auths[0] == "mschap2":
		ok, text = checkMSCHAP2(value, s.challenge, string(rest), s.config.Password)
		ok = ok && string(rest) == s.config.User
	default:
		return
	}
	accept, refuse := byte(2), byte(3)
	if protocol == 0xC223 {
		accept, refuse = 3, 4
	}
	message := []byte(text)
	if !ok {
		s.logf("wrong password")
		message = []byte("who are you")
	}
	if protocol == 0xC023 {
		message = append([]byte{byte(len(message))}, message...)
	}
	if !ok {
		s.ppp(protocol, refuse, id, message)
		return
	}
	if !s.proved {
		s.logf("%s by %s", s.config.User, s.auths[0])
	}
	s.proved = true
	s.ppp(protocol, accept, id, message)
	s.id++
	s.ppp(0x8021, 1, s.id, s.address())
}

func (s *Server) takeIPCP(code, id byte, body []byte) {
	if !s.proved {
		return
	}
	switch code {
	case 1:
		var nak, reject []byte
		pairs(body, 2, func(typ uint16, value []byte) {
			want := s.config.Remote
			switch {
			case typ == 3:
			case typ == 129 && len(s.config.DNS) > 0:
				want = s.config.DNS[0]
			case typ == 131 && len(s.config.DNS) > 1:
				want = s.config.DNS[1]
			default:
				reject = append(append(reject, byte(typ), byte(2+len(value))), value...)
				return
			}
			if !bytes.Equal(value, want.AsSlice()) {
				nak = append(append(nak, byte(typ), 6), want.AsSlice()...)
			}
		})
		switch {
		case len(reject) > 0:
			s.ppp(0x8021, 4, id, reject)
		case len(nak) > 0:
			s.ppp(0x8021, 3, id, nak)
		default:
			s.ipcp.agreed = true
			s.ppp(0x8021, 2, id, body)
		}
	case 2:
		s.ipcp.acked = true
	}
}
