package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/e2e"
)

// scanBatch is how many packets a scan sends before it waits for the answer to an echo request: less than the smallest
// board's network card holds (32), so that none is lost before the router has seen it.
const scanBatch = 24

// scan asks an address, from one port, and hears what answers.
type scan struct {
	from, to netip.Addr
	port     uint16
	udp      *net.UDPConn
	tcp      *net.IPConn
	icmp     *net.IPConn
	others   []*net.IPConn // one for each of strangeProtocols
	raw      int
	echoes   chan uint16
	hearing  sync.WaitGroup
	sequence uint16 // of the last echo request

	mu    sync.Mutex
	heard map[string]bool
}

// startScan begins to hear what comes from an address to a port of a host that has the address from; end ends that.
func (n network) startScan(h host, from, to string, port uint16) (s *scan, err error) {
	s = &scan{from: netip.MustParseAddr(from), to: netip.MustParseAddr(to), port: port, raw: -1, echoes: make(chan uint16, 16), heard: map[string]bool{}}
	if err := n.on(h, func() (err error) {
		at := &net.IPAddr{IP: s.from.AsSlice()}
		if s.udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: at.IP, Port: int(port)}); err != nil {
			return err
		}
		if s.tcp, err = net.ListenIP("ip4:tcp", at); err != nil {
			return err
		}
		if s.icmp, err = net.ListenIP("ip4:icmp", at); err != nil {
			return err
		}
		for _, protocol := range strangeProtocols {
			if protocol == unix.IPPROTO_RAW {
				continue // which a socket can send only
			}
			conn, err := net.ListenIP(fmt.Sprintf("ip4:%d", protocol), at)
			if err != nil {
				return err
			}
			s.others = append(s.others, conn)
		}
		s.raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	}); err != nil {
		s.end()
		return nil, err
	}
	s.hear(s.udp, s.hearUDP)
	s.hear(s.tcp, s.hearTCP)
	s.hear(s.icmp, s.hearICMP)
	for _, conn := range s.others {
		s.hear(conn, func([]byte, uint16) string { return "another protocol answers" })
	}
	return s, nil
}

func (s *scan) end() {
	if s.udp != nil {
		s.udp.Close()
	}
	if s.tcp != nil {
		s.tcp.Close()
	}
	if s.icmp != nil {
		s.icmp.Close()
	}
	for _, conn := range s.others {
		conn.Close()
	}
	s.hearing.Wait()
	if s.raw >= 0 {
		unix.Close(s.raw)
	}
}

// hear calls f for what comes to a socket from the address that is scanned.
func (s *scan) hear(conn net.PacketConn, f func(b []byte, port uint16) string) {
	s.hearing.Go(func() {
		for b := make([]byte, 2048); ; {
			n, from, err := conn.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			var a netip.AddrPort
			switch from := from.(type) {
			case *net.UDPAddr:
				a = from.AddrPort()
			case *net.IPAddr:
				ip, _ := netip.AddrFromSlice(from.IP)
				a = netip.AddrPortFrom(ip, 0)
			}
			if a.Addr().Unmap() != s.to {
				continue
			}
			if what := f(b[:n], a.Port()); what != "" {
				s.mu.Lock()
				s.heard[what] = true
				s.mu.Unlock()
			}
		}
	})
}

func (s *scan) hearUDP(_ []byte, port uint16) string { return fmt.Sprintf("udp %d answers", port) }

func (s *scan) hearTCP(b []byte, _ uint16) string {
	const syn, rst = 2, 4
	if len(b) < 20 || binary.BigEndian.Uint16(b[2:]) != s.port {
		return "" // of another connection
	}
	port := binary.BigEndian.Uint16(b)
	switch {
	case b[13]&rst != 0:
		return fmt.Sprintf("tcp %d refuses", port)
	case b[13]&syn != 0:
		return fmt.Sprintf("tcp %d is open", port)
	}
	return fmt.Sprintf("tcp %d answers", port)
}

func (s *scan) hearICMP(b []byte, _ uint16) string {
	switch {
	case len(b) >= 8 && b[0] == 0: // an echo
		if binary.BigEndian.Uint16(b[4:]) == s.port {
			select {
			case s.echoes <- binary.BigEndian.Uint16(b[6:]):
			default: // nobody waits for so many
			}
		}
		return ""
	case len(b) >= 8+20+4 && b[0] == 3 && b[1] == 2: // unreachable: what was sent follows
		return fmt.Sprintf("icmp says that there is no protocol %d", b[8+9])
	case len(b) >= 8+20+4 && b[0] == 3:
		return fmt.Sprintf("icmp says %d of protocol %d, port %d", b[1], b[8+9], binary.BigEndian.Uint16(b[8+int(b[8]&15)*4+2:]))
	case b[0] == 8: // the router's own question
		return ""
	}
	return fmt.Sprintf("icmp of type %d", b[0])
}

// knocks are a SYN and a datagram to each of the ports.
func (s *scan) knocks(ports []uint16) (packets [][]byte) {
	for _, port := range ports {
		packets = append(packets, synPacket(s.from, s.to, s.port, port), udpPacket(s.from, s.to, s.port, port, knock(port)))
	}
	return packets
}

// Types of ICMP that ask for something, or that tell a host what to do (RFC 792, 950, 1256, 8335).
const (
	icmpRedirect     = 5
	icmpSolicitation = 10
	icmpTimestamp    = 13
	icmpInformation  = 15
	icmpMask         = 17
	icmpExtendedEcho = 42
)

// strangeProtocols are some that routers know, by IANA's numbers: IGMP, IPIP, IPv6 in IPv4, GRE, ESP, AH, OSPF, PIM, VRRP, L2TP,
// SCTP, UDP-Lite, and two that are nobody's.
var strangeProtocols = []byte{2, 4, 41, 47, 50, 51, 89, 103, 112, 115, 132, 136, 253, 255}

// strange are messages of ICMP besides echo requests, and a packet of each of strangeProtocols.
func (s *scan) strange() (packets [][]byte) {
	sent := udpPacket(s.to, netip.MustParseAddr(serverAddress), 53, 53, nil) // by the router, perhaps
	for _, message := range [][]byte{
		append([]byte{icmpRedirect, 1, 0, 0, 10, 1, 0, 77}, sent...),
		append([]byte{icmpTimestamp, 0, 0, 0, 0, 1, 0, 1}, make([]byte, 12)...),
		{icmpInformation, 0, 0, 0, 0, 1, 0, 1},
		{icmpMask, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0},
		{icmpSolicitation, 0, 0, 0, 0, 0, 0, 0},
		{icmpExtendedEcho, 0, 0, 0, 0, 1, 0, 1, 0x20, 0, 0, 0, 0, 8, 3, 1, 'l', 'o', 0, 0}, // the interface lo
	} {
		if message[0] != icmpRedirect && message[0] != icmpSolicitation {
			// The identifier: with another scan's the message would be of a connection that is tracked, and pass.
			binary.BigEndian.PutUint16(message[4:], s.port)
		}
		binary.BigEndian.PutUint16(message[2:], checksum(message))
		p := packet(unix.IPPROTO_ICMP, s.from, s.to, 0, 1, len(message))
		copy(p[20:], message)
		packets = append(packets, p)
	}
	for _, protocol := range strangeProtocols {
		packets = append(packets, packet(protocol, s.from, s.to, 0, 1, 32))
	}
	return packets
}

// send sends packets as fast as the router takes them, which it has all seen then.
func (s *scan) send(packets [][]byte) error {
	to := unix.SockaddrInet4{Addr: s.to.As4()}
	for batch := range slices.Chunk(packets, scanBatch) {
		for _, p := range batch {
			for {
				err := unix.Sendto(s.raw, p, 0, &to)
				if err == nil {
					break
				}
				if err != unix.ENOBUFS && err != unix.EINTR {
					return fmt.Errorf("send a packet: %w", err)
				}
			}
		}
		s.sequence++
		if err := s.echo(s.sequence); err != nil {
			return err
		}
	}
	return nil
}

// answers are what has been heard since the start.
func (s *scan) answers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.heard))
}

// answersSoon is answers a while later: what a process says, such as a name server, comes later than an echo.
func (s *scan) answersSoon() []string {
	time.Sleep(time.Second)
	return s.answers()
}

// awaitAnswers waits until these have been heard, and no others.
func (s *scan) awaitAnswers(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	require.NoError(t, retry(func() error {
		if got := s.answers(); !slices.Equal(got, want) {
			return fmt.Errorf("heard %q, not %q", got, want)
		}
		return nil
	}))
}

// echo waits for the answer to an echo request, which the router sees behind all that was sent before.
func (s *scan) echo(sequence uint16) error {
	p := echoRequest(s.from, s.to, s.port)
	binary.BigEndian.PutUint16(p[26:], sequence)
	binary.BigEndian.PutUint16(p[22:], 0)
	binary.BigEndian.PutUint16(p[22:], checksum(p[20:]))
	return retry(func() error {
		if err := unix.Sendto(s.raw, p, 0, &unix.SockaddrInet4{Addr: s.to.As4()}); err != nil {
			return err
		}
		for late := time.After(5 * time.Second); ; {
			select {
			case heard := <-s.echoes:
				if heard == sequence {
					return nil
				}
			case <-late:
				return os.ErrDeadlineExceeded
			}
		}
	})
}

// knock is what a service at a UDP port answers: a question for the addresses of the root (RFC 1035), or what the protocol
// of that port asks.
func knock(port uint16) []byte {
	switch port {
	case 67:
		return discover
	case 123: // NTP, version 4, from a client
		return append([]byte{4<<3 | 3}, make([]byte, 47)...)
	case 5678: // who asks for neighbors by MNDP
		return make([]byte, 4)
	}
	return []byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1}
}

// udpPacket is a datagram without a checksum, which IPv4 allows.
func udpPacket(from, to netip.Addr, fromPort, toPort uint16, payload []byte) []byte {
	p := packet(unix.IPPROTO_UDP, from, to, 0, 1, 8+len(payload))
	udp := p[20:]
	binary.BigEndian.PutUint16(udp, fromPort)
	binary.BigEndian.PutUint16(udp[2:], toPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	copy(udp[8:], payload)
	return p
}

// scanAll scans the router's WAN address from its gateway: all 65,535 ports of TCP and of UDP, and what strange has. First it
// sees that it sees what answers, and at the end that the router has dropped each single packet.
func (k *keeper) scanAll(t *testing.T, address string) {
	t.Helper()
	began := time.Now()
	start := func(port uint16) *scan {
		t.Helper()
		s, err := k.n.startScan(gateway, gatewayAddress, address, port)
		require.NoError(t, err)
		t.Cleanup(s.end)
		return s
	}

	// Two ports at which somebody listens, two at which nobody does, and two other protocols.
	for _, rule := range []string{"protocol=tcp dst-port=53,40001", "protocol=udp dst-port=53,40002", "protocol=icmp", "protocol=sctp"} {
		require.Empty(t, k.command(t, "/ip firewall filter add place-before=0 chain=input action=accept comment=scan "+rule))
	}
	open := start(54321)
	require.NoError(t, open.send(append(open.knocks([]uint16{1, 53, 80, 40000, 40001, 40002, 40003, math.MaxUint16}), open.strange()...)))
	open.awaitAnswers(t, "icmp says 3 of protocol 17, port 40002", "tcp 40001 refuses", "tcp 53 is open", "udp 53 answers",
		"icmp of type 14", "icmp says that there is no protocol 132")
	require.Empty(t, k.command(t, "/ip firewall filter remove [find comment=scan]"))

	dropped := func() (sum int) {
		t.Helper()
		shown := k.command(t, "/ip firewall filter print stats where chain=input action=drop")
		rules := regexp.MustCompile(`(?m)\binput +drop +\d+ +(\d+)`).FindAllStringSubmatch(shown, -1)
		require.Len(t, rules, 2, shown) // what is invalid, and what does not come from the LAN
		for _, r := range rules {
			n, err := strconv.Atoi(r[1])
			require.NoError(t, err)
			sum += n
		}
		return sum
	}
	before := dropped()
	ports := make([]uint16, math.MaxUint16)
	for i := range ports {
		ports[i] = uint16(i + 1)
	}
	closed := start(54322) // another port: to the one before the answer belongs to what is known
	packets := append(closed.knocks(ports), closed.strange()...)
	require.NoError(t, closed.send(packets))
	assert.Empty(t, closed.answersSoon())
	all := dropped() - before
	assert.GreaterOrEqual(t, all, len(packets), "packets did not arrive")
	t.Logf("%s: %d packets to %d ports dropped in %v, none answered", k.b.Name, all, len(ports), time.Since(began).Round(time.Second))
}

// TestScan scans a host of its own: one that answers, and one that drops everything but echo requests.
func TestScan(t *testing.T) {
	e2e.Boots(t)
	n, err := newNetwork()
	require.NoError(t, err)
	t.Cleanup(n.close)
	l, err := n.listen(stranger, 80)
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, n[stranger].Set("net.ipv4.icmp_ratemask", "0"))
	start := func(port uint16) *scan {
		s, err := n.startScan(gateway, gatewayAddress, strangerAddress, port)
		require.NoError(t, err)
		t.Cleanup(s.end)
		return s
	}
	ports := []uint16{1, 80, math.MaxUint16}
	open := start(54321)
	require.NoError(t, open.send(open.knocks(ports)))
	open.awaitAnswers(t, "icmp says 3 of protocol 17, port 1", "icmp says 3 of protocol 17, port 65535", "icmp says 3 of protocol 17, port 80",
		"tcp 1 refuses", "tcp 65535 refuses", "tcp 80 is open")
	strange := start(54322)
	require.NoError(t, strange.send(strange.strange()))
	require.NoError(t, retry(func() error { // which other protocols there are depends on this machine
		if got := strange.answers(); !slices.Contains(got, "icmp of type 14") || !slices.Contains(got, "icmp says that there is no protocol 253") {
			return fmt.Errorf("heard %q", got)
		}
		return nil
	}))
	t.Logf("answers to what is strange: %q", strange.answers())

	for _, rule := range []string{"-p icmp --icmp-type echo-request -j ACCEPT", "-j DROP"} {
		require.NoError(t, n.run(stranger, "iptables", append([]string{"-A", "INPUT"}, strings.Fields(rule)...)...))
	}
	closed := start(54323)
	require.NoError(t, closed.send(append(closed.knocks(ports), closed.strange()...)))
	assert.Empty(t, closed.answersSoon())
}
