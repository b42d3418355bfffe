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

// endMark is the mark of the packets that end connections: no other leaves by the loopback interface with it. It names a routing
// mark that there is not, so they take the routes of the table main.
const endMark = 0xffffffff

// lastPacket are the matches of a packet that ends a connection.
var lastPacket = []string{"-o", "lo", "-m", "mark", "--mark", "0xffffffff"}

// passLastPackets has the packets that end connections pass by the rules of table t, which are for others: they would be dropped
// ahead of connection tracking, or logged. None of these packets goes further than the table filter.
func (k *kernelChains) passLastPackets(t Table) {
	target := []string{"-j", "ACCEPT"}
	place, ok := k.place["OUTPUT"]
	switch {
	case t == Filter:
		target[1] = "DROP"
	case !ok || t == NAT || len(k.all[place].rules) == 0:
		return
	}
	rules := &k.all[place].rules
	*rules = slices.Insert(*rules, 0, kernelRule{entry: -1, match: lastPacket, target: target})
}

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
// the table filter, or if that is not this package's the loopback interface, where its checksum is wrong: the timeouts, which the kernel takes from
// its parameters at each packet, are 0 meanwhile. That takes some milliseconds. Other
// connections of UDP and ICMP whose packets come in just these are forgotten too; a client's next
// packet begins them again.
func Forget(connections []Tracked) (forgotten int, err error) {
	gone, err := forget(connections)
	for _, is := range gone {
		if is {
			forgotten++
		}
	}
	return forgotten, err
}

// forget is Forget. It tells of each connection whether it is gone; nil if none was tried.
func forget(connections []Tracked) (gone map[flow]bool, err error) {
	if len(connections) == 0 {
		return nil, nil
	}
	var failed error // of those that there is no packet for: the others are forgotten all the same
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("forget connections: %w", err)
	}
	defer unix.Close(s)
	if err := unix.BindToDevice(s, "lo"); err != nil {
		return nil, fmt.Errorf("forget connections: %w", err)
	}
	mark := uint32(endMark)
	if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_MARK, int(int32(mark))); err != nil {
		return nil, fmt.Errorf("forget connections: %w", err)
	}
	// A host that asks by DHCP has a connection to everybody.
	if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
		return nil, fmt.Errorf("forget connections: %w", err)
	}
	// Some at a time: the timeouts are those of forgetting no longer than that takes.
	for some := range slices.Chunk(connections, maxTrim) {
		if err := end(s, some); err != nil && failed == nil {
			failed = fmt.Errorf("forget connections: %w", err)
		}
	}
	gone = make(map[flow]bool, len(connections))
	for _, c := range connections {
		gone[c.flow()] = true
	}
	// What is over leaves the table when it is read.
	err = eachTracked(func(c Tracked) {
		if f := c.flow(); gone[f] {
			gone[f] = false
		}
	})
	return gone, errors.Join(failed, err)
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
		to := unix.SockaddrInet4{Addr: c.Dst.Addr().As4()}
		for _, p := range c.lastPackets() {
			// A packet that a rule drops, as that for lastPacket does, was seen all the same.
			if sendErr := unix.Sendto(s, p, 0, &to); sendErr != nil && !errors.Is(sendErr, unix.EPERM) && err == nil {
				err = fmt.Errorf("end %s %s to %s: %w", c.Protocol, c.Src, c.Dst, sendErr)
			}
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

// forgettable reports whether there are packets that end a connection.
func (c Tracked) forgettable() bool {
	return c.Protocol == "tcp" || c.Protocol == "udp" || c.Protocol == "icmp"
}

// lastPackets are packets of a connection that end it for the kernel's table, none if there are no such.
// The kernel adds the checksum of their heads. That of their payloads is wrong, so that whoever
// gets one drops it without an answer: the table's part looks at the checksums of what
// comes in alone.
//
// A reset ends a connection that is established if its sequence number is the one that the other side
// has acknowledged, which the table does not tell. It does, whatever its number, behind a SYN
// of the same side, which the table lets through and does not understand (nf_conntrack_tcp_packet). Without, what
// masquerade translates would be over, as the loopback interface is another than its own, and nothing else.
func (c Tracked) lastPackets() [][]byte {
	ports := func(size int) []byte {
		b := make([]byte, size)
		binary.BigEndian.PutUint16(b, c.Src.Port())
		binary.BigEndian.PutUint16(b[2:], c.Dst.Port())
		return b
	}
	packet := func(protocol byte, payload []byte, checksum int) []byte {
		const wrong = 0xdead
		binary.BigEndian.PutUint16(payload[checksum:], wrong)
		src, dst := c.Src.Addr().As4(), c.Dst.Addr().As4()
		head := []byte{0x45, 0, 0, byte(20 + len(payload)), 0, 0, 0, 0, 64, protocol, 0, 0}
		return slices.Concat(head, src[:], dst[:], payload)
	}
	switch c.Protocol {
	case "tcp":
		const dataOffset, syn, reset = 5 << 4, 2, 4
		segment := func(flags byte) []byte {
			b := ports(20)
			b[7], b[12], b[13] = 1, dataOffset, flags // a sequence number of 0 means something else
			return packet(unix.IPPROTO_TCP, b, 16)
		}
		if c.State == "established" {
			return [][]byte{segment(syn), segment(reset)}
		}
		return [][]byte{segment(reset)}
	case "udp":
		b := ports(8)
		b[5] = 8 // its length
		return [][]byte{packet(unix.IPPROTO_UDP, b, 6)}
	case "icmp":
		b := make([]byte, 8)
		b[0], b[1] = c.icmpType, c.icmpCode
		binary.BigEndian.PutUint16(b[4:], c.id)
		return [][]byte{packet(unix.IPPROTO_ICMP, b, 2)}
	}
	return nil
}
