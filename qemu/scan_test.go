package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
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

// scan asks the ports of an address, from one port, and hears what answers.
type scan struct {
	from, to netip.Addr
	port     uint16
	udp      *net.UDPConn
	tcp      *net.IPConn
	icmp     *net.IPConn
	raw      int
	echoes   chan uint16
	hearing  sync.WaitGroup

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
		s.raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	}); err != nil {
		s.end()
		return nil, err
	}
	s.hear(s.udp, s.hearUDP)
	s.hear(s.tcp, s.hearTCP)
	s.hear(s.icmp, s.hearICMP)
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
	case len(b) >= 8+20+4 && b[0] == 3: // unreachable: what was sent follows
		return fmt.Sprintf("icmp says %d of protocol %d, port %d", b[1], b[8+9], binary.BigEndian.Uint16(b[8+int(b[8]&15)*4+2:]))
	case b[0] == 8: // the router's own question
		return ""
	}
	return fmt.Sprintf("icmp of type %d", b[0])
}

// ask sends a SYN and a datagram to each of the ports, as fast as the router takes them, and returns what has answered.
func (s *scan) ask(ports []uint16) ([]string, error) {
	var batch [][]byte
	sequence := uint16(0)
	flush := func() error {
		for _, p := range batch {
			to := unix.SockaddrInet4{Addr: s.to.As4()}
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
		batch = batch[:0]
		sequence++
		return s.echo(sequence)
	}
	for _, port := range ports {
		batch = append(batch, synPacket(s.from, s.to, s.port, port), udpPacket(s.from, s.to, s.port, port, knock(port)))
		if len(batch) >= scanBatch {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
	if err := flush(); err != nil {
		return nil, err
	}
	// What a process says, such as a name server, comes later than an echo.
	time.Sleep(time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for what := range s.heard {
		all = append(all, what)
	}
	clear(s.heard)
	slices.Sort(all)
	return all, nil
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

// scanAll scans the router's WAN address from its gateway: all 65,535 ports of TCP and of UDP. First it sees that it sees
// what is open, and at the end that the router has dropped each single packet.
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

	// Two ports at which somebody listens, and two at which nobody does.
	for _, rule := range []string{"protocol=tcp dst-port=53,40001", "protocol=udp dst-port=53,40002"} {
		require.Empty(t, k.command(t, "/ip firewall filter add place-before=0 chain=input action=accept comment=scan "+rule))
	}
	seen, err := start(54321).ask([]uint16{1, 53, 80, 40000, 40001, 40002, 40003, math.MaxUint16})
	require.NoError(t, err)
	assert.Equal(t, []string{"icmp says 3 of protocol 17, port 40002", "tcp 40001 refuses", "tcp 53 is open", "udp 53 answers"}, seen)
	require.Empty(t, k.command(t, "/ip firewall filter remove [find comment=scan]"))

	dropped := func() int {
		t.Helper()
		shown, err := find(k.command(t, "/ip firewall filter print stats where comment~\"not coming from LAN\""), `input +drop +\d+ +(\d+)`)
		require.NoError(t, err)
		n, err := strconv.Atoi(shown)
		require.NoError(t, err)
		return n
	}
	before := dropped()
	ports := make([]uint16, math.MaxUint16)
	for i := range ports {
		ports[i] = uint16(i + 1)
	}
	seen, err = start(54322).ask(ports) // from another port: to the one the answer belongs to what is known
	require.NoError(t, err)
	assert.Empty(t, seen)
	all := dropped() - before
	assert.GreaterOrEqual(t, all, 2*len(ports), "packets did not arrive")
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
	seen, err := start(54321).ask([]uint16{1, 80, math.MaxUint16})
	require.NoError(t, err)
	assert.Equal(t, []string{"icmp says 3 of protocol 17, port 1", "icmp says 3 of protocol 17, port 65535", "icmp says 3 of protocol 17, port 80",
		"tcp 1 refuses", "tcp 65535 refuses", "tcp 80 is open"}, seen)
	for _, rule := range []string{"-p icmp --icmp-type echo-request -j ACCEPT", "-j DROP"} {
		require.NoError(t, n.run(stranger, "iptables", append([]string{"-A", "INPUT"}, strings.Fields(rule)...)...))
	}
	seen, err = start(54322).ask([]uint16{1, 80, math.MaxUint16})
	require.NoError(t, err)
	assert.Empty(t, seen)
}
