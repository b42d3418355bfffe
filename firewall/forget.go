package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// trackingFolder has the parameters of connection tracking of the network namespace of the
// thread that opens it (Documentation/networking/nf_conntrack-sysctl.rst).
const trackingFolder = "/proc/sys/net/netfilter/nf_conntrack_"

// parametersTurn is held while parameters of connection tracking are written.
var parametersTurn sync.Mutex

// forgetting are the parameters while connections are forgotten: a reset counts whatever its
// sequence number, and what a packet belongs to is over at once.
var forgetting = []struct{ name, value string }{
	{"tcp_be_liberal", "1"},
	{"tcp_ignore_invalid_rst", "1"},
	{"tcp_timeout_close", "0"},
	{"udp_timeout", "0"},
	{"udp_timeout_stream", "0"},
	{"icmp_timeout", "0"},
}

// Forget has the kernel forget connections that it tracks: a packet of one of them begins a new
// one, which the rules decide about anew. It returns how many of them are gone; one whose peers
// go on talking may be back by then, and is not counted. Only those of TCP, UDP and ICMP can be
// forgotten.
//
// The kernels of the boards have no netlink messages for this (CONFIG_NF_CT_NETLINK), which
// would cost 20 KB. So a packet of the connection is made that ends it, and goes no further than
// the loopback interface, where its checksum is wrong: the timeouts, which the kernel takes from
// its parameters at each packet, are 0 meanwhile. That takes some milliseconds. Other
// connections of UDP and ICMP whose packets come in just these are forgotten too; a client's next
// packet begins them again.
func Forget(connections []Tracked) (forgotten int, err error) {
	if len(connections) == 0 {
		return 0, nil
	}
	var failed error // of those that there is no packet for: the others are forgotten all the same
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return 0, fmt.Errorf("forget connections: %w", err)
	}
	defer unix.Close(s)
	if err := unix.BindToDevice(s, "lo"); err != nil {
		return 0, fmt.Errorf("forget connections: %w", err)
	}
	// A host that asks by DHCP has a connection to everybody.
	if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
		return 0, fmt.Errorf("forget connections: %w", err)
	}
	if err := end(s, connections); err != nil {
		failed = fmt.Errorf("forget connections: %w", err)
	}
	doomed := make(map[flow]bool, len(connections))
	for _, c := range connections {
		doomed[c.flow()] = true
	}
	forgotten = len(doomed)
	// What is over leaves the table when it is read.
	err = eachTracked(func(c Tracked) bool {
		if doomed[c.flow()] {
			forgotten--
		}
		return true
	})
	return max(0, forgotten), errors.Join(failed, err)
}

// end sends the last packets of connections by the socket s, while the parameters are those of
// forgetting. One that cannot be sent keeps no other back; its error is the first of them.
func end(s int, connections []Tracked) error {
	parametersTurn.Lock()
	defer parametersTurn.Unlock()
	before, err := setParameters()
	if err != nil {
		return errors.Join(err, restoreParameters(before))
	}
	for _, c := range connections {
		p := c.lastPacket()
		if p == nil {
			continue
		}
		to := unix.SockaddrInet4{Addr: c.Dst.Addr().As4()}
		// A packet that a rule of the output chain drops was seen all the same.
		if sendErr := unix.Sendto(s, p, 0, &to); sendErr != nil && !errors.Is(sendErr, unix.EPERM) && err == nil {
			err = fmt.Errorf("end %s %s to %s: %w", c.Protocol, c.Src, c.Dst, sendErr)
		}
	}
	return errors.Join(err, restoreParameters(before))
}

// flow tells a connection from others.
type flow struct {
	protocol string
	src, dst netip.AddrPort
	id       uint16
}

func (c Tracked) flow() flow { return flow{c.Protocol, c.Src, c.Dst, c.id} }

// setParameters sets those of forgetting, and returns what they were.
func setParameters() (before []string, err error) {
	for _, p := range forgetting {
		old, err := os.ReadFile(trackingFolder + p.name)
		if err == nil {
			err = os.WriteFile(trackingFolder+p.name, []byte(p.value), 0)
		}
		if err != nil {
			return before, err
		}
		before = append(before, strings.TrimSpace(string(old)))
	}
	return before, nil
}

// restoreParameters sets the first parameters of forgetting back to what they were.
func restoreParameters(before []string) error {
	var failed []error
	for i, value := range before {
		failed = append(failed, os.WriteFile(trackingFolder+forgetting[i].name, []byte(value), 0))
	}
	return errors.Join(failed...)
}

// lastPacket is a packet of a connection that ends it for the kernel's table, or nil if none
// does. The kernel adds the checksum of its head. That of its payload is wrong, so that whoever
// gets the packet drops it without an answer: the table's part looks at the checksums of what
// comes in alone.
func (c Tracked) lastPacket() []byte {
	var protocol byte
	var payload []byte
	ports := func(size int) []byte {
		b := make([]byte, size)
		binary.BigEndian.PutUint16(b, c.Src.Port())
		binary.BigEndian.PutUint16(b[2:], c.Dst.Port())
		return b
	}
	const wrong = 0xdead
	switch c.Protocol {
	case "tcp":
		const dataOffset, reset = 5 << 4, 4
		protocol, payload = unix.IPPROTO_TCP, ports(20)
		payload[7], payload[12], payload[13] = 1, dataOffset, reset // a sequence number of 0 means something else
		binary.BigEndian.PutUint16(payload[16:], wrong)
	case "udp":
		protocol, payload = unix.IPPROTO_UDP, ports(8)
		payload[5] = 8 // its length
		binary.BigEndian.PutUint16(payload[6:], wrong)
	case "icmp":
		protocol, payload = unix.IPPROTO_ICMP, make([]byte, 8)
		payload[0], payload[1] = c.icmpType, c.icmpCode
		binary.BigEndian.PutUint16(payload[2:], wrong)
		binary.BigEndian.PutUint16(payload[4:], c.id)
	default:
		return nil
	}
	src, dst := c.Src.Addr().As4(), c.Dst.Addr().As4()
	head := []byte{0x45, 0, 0, byte(20 + len(payload)), 0, 0, 0, 0, 64, protocol, 0, 0}
	return slices.Concat(head, src[:], dst[:], payload)
}
