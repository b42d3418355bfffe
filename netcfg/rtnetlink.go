package netcfg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The dozen rtnetlink messages that this package needs, by hand.
// github.com/vishvananda/netlink knows them all, but adds 110 KB (xz) to a MIPS
// program where this whole package adds 51 KB, and takes 64 KB of fresh memory
// for each datagram that it receives.

// link is a network device as the kernel has it.
type link struct {
	index    int
	name     string
	up       bool // IFF_UP, the administrator's switch
	running  bool // IFF_LOWER_UP, there is a carrier; IFF_RUNNING says so up to a second later
	loopback bool
	mtu      int
	mac      net.HardwareAddr
	stats    stats
}

type stats struct{ rxPackets, txPackets, rxBytes, txBytes uint64 }

// addr is an IPv4 address as the kernel has it. peer is the address itself
// unless the link is point-to-point.
type addr struct {
	index  int
	prefix netip.Prefix
	peer   netip.Addr
}

// route is an IPv4 route of table main and protocol static. oif is the index of
// the link that it leaves by, 0 for the one that the kernel finds.
type route struct {
	dst    netip.Prefix
	gw     netip.Addr
	metric int
	oif    int
}

// conn is a netlink socket to the kernel's routing family. It needs no timeout:
// the kernel answers before sendto returns.
type conn struct {
	fd  int
	seq uint32
	buf []byte
}

func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	c := &conn{fd: fd, buf: make([]byte, 16<<10)}
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		// Errors in words, without the request that they answer.
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1),
		// Dumps filtered by the kernel.
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1),
	)
	if err != nil {
		c.close()
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	return c, nil
}

func (c *conn) close() { unix.Close(c.fd) }

// subscribe opens a socket that hears of changes to links, IPv4 addresses, IPv4
// routes and forwarding. Its buffer in the kernel is small: what overflows it is
// read as ENOBUFS, and that too says that something changed.
func subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	var groups uint32
	for _, g := range []uint{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_NETCONF} {
		groups |= 1 << (g - 1)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<10),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}),
	)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("subscribe to netlink: %w", err)
	}
	return f, nil
}

// request is a netlink message in the making: the header, the fixed part of its
// type, attributes.
type request []byte

func newRequest(typ, flags uint16, fixed []byte) request {
	r := make(request, unix.NLMSG_HDRLEN, 96)
	binary.NativeEndian.PutUint16(r[4:], typ)
	binary.NativeEndian.PutUint16(r[6:], flags|unix.NLM_F_REQUEST)
	return append(r, fixed...)
}

func (r request) attr(typ uint16, data []byte) request {
	r = binary.NativeEndian.AppendUint16(r, uint16(unix.SizeofRtAttr+len(data)))
	r = binary.NativeEndian.AppendUint16(r, typ)
	r = append(r, data...)
	for len(r)%unix.NLMSG_ALIGNTO != 0 {
		r = append(r, 0)
	}
	return r
}

func (r request) attr32(typ uint16, n int) request {
	return r.attr(typ, binary.NativeEndian.AppendUint32(nil, uint32(n)))
}

func (r request) attrIP(typ uint16, a netip.Addr) request {
	return r.attr(typ, a.AsSlice())
}

// do sends r, calls each, if there is one, with every message of the answer, and
// returns the kernel's verdict. A message is valid only during the call.
func (c *conn) do(r request, each func(syscall.NetlinkMessage) error) error {
	c.seq++
	binary.NativeEndian.PutUint32(r[0:], uint32(len(r)))
	binary.NativeEndian.PutUint32(r[8:], c.seq)
	if err := unix.Sendto(c.fd, r, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("netlink send: %w", err)
	}
	var failed error
	interrupted := false
	for {
		msgs, err := c.receive()
		if err != nil {
			return fmt.Errorf("netlink receive: %w", err)
		}
		for _, msg := range msgs {
			if msg.Header.Seq != c.seq {
				continue // left over from a request that failed half-way
			}
			interrupted = interrupted || msg.Header.Flags&unix.NLM_F_DUMP_INTR != 0
			switch msg.Header.Type {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				if err := verdict(msg); err != nil {
					return err
				}
				if failed == nil && interrupted {
					return errInterrupted
				}
				return failed
			default:
				if each != nil && failed == nil {
					failed = each(msg)
				}
			}
		}
	}
}

func (c *conn) receive() ([]syscall.NetlinkMessage, error) {
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case n > len(c.buf):
			return nil, fmt.Errorf("message of %d bytes, expected at most %d", n, len(c.buf))
		}
		if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == 0 { // the kernel
			return syscall.ParseNetlinkMessage(c.buf[:n])
		}
	}
}

// verdict reads the error number of an ack or of a dump's end, with the kernel's
// words if it has any.
func verdict(msg syscall.NetlinkMessage) error {
	if len(msg.Data) < 4 {
		return nil
	}
	errno := -int32(binary.NativeEndian.Uint32(msg.Data))
	if errno == 0 {
		return nil
	}
	attrs := msg.Data[4:]
	if msg.Header.Type == unix.NLMSG_ERROR {
		attrs = attrs[min(len(attrs), unix.NLMSG_HDRLEN):] // the header of the request
	}
	for msg.Header.Flags&unix.NLM_F_ACK_TLVS != 0 && len(attrs) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(attrs))
		typ := binary.NativeEndian.Uint16(attrs[2:])
		if n < unix.SizeofRtAttr || n > len(attrs) {
			break
		}
		if typ == unix.NLMSGERR_ATTR_MSG {
			return fmt.Errorf("%w (%s)", unix.Errno(errno), cString(attrs[unix.SizeofRtAttr:n]))
		}
		attrs = attrs[min(len(attrs), (n+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
	}
	return unix.Errno(errno)
}

var errInterrupted = errors.New("netlink dump interrupted by changes")

// dump calls each with the attributes of everything that r asks for. The kernel
// says when the list changed under the reader; then reset is called and the
// list read again.
func (c *conn) dump(r request, reset func(), each func(msg syscall.NetlinkMessage, attrs []syscall.NetlinkRouteAttr)) error {
	var err error
	for range 5 {
		reset()
		err = c.do(r, func(msg syscall.NetlinkMessage) error {
			attrs, err := syscall.ParseNetlinkRouteAttr(&msg)
			if err != nil {
				return fmt.Errorf("parse netlink message of type %d: %w", msg.Header.Type, err)
			}
			each(msg, attrs)
			return nil
		})
		if !errors.Is(err, errInterrupted) {
			break
		}
	}
	return err
}

// links lists every device, in the order of their indexes.
func (c *conn) links() ([]link, error) {
	var links []link
	r := newRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfInfomsg))
	err := c.dump(r, func() { links = nil }, func(msg syscall.NetlinkMessage, attrs []syscall.NetlinkRouteAttr) {
		flags := binary.NativeEndian.Uint32(msg.Data[8:])
		l := link{
			index:    int(binary.NativeEndian.Uint32(msg.Data[4:])),
			up:       flags&unix.IFF_UP != 0,
			running:  flags&unix.IFF_LOWER_UP != 0,
			loopback: flags&unix.IFF_LOOPBACK != 0,
		}
		for _, a := range attrs {
			switch a.Attr.Type {
			case unix.IFLA_IFNAME:
				l.name = cString(a.Value)
			case unix.IFLA_MTU:
				l.mtu = int(binary.NativeEndian.Uint32(a.Value))
			case unix.IFLA_ADDRESS:
				l.mac = append(net.HardwareAddr(nil), a.Value...)
			case unix.IFLA_STATS64:
				n := func(i int) uint64 { return binary.NativeEndian.Uint64(a.Value[8*i:]) }
				l.stats = stats{rxPackets: n(0), txPackets: n(1), rxBytes: n(2), txBytes: n(3)}
			}
		}
		links = append(links, l)
	})
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return links, nil
}

// addrs lists every IPv4 address.
func (c *conn) addrs() ([]addr, error) {
	var addrs []addr
	r := newRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP, addrMessage(addr{}))
	err := c.dump(r, func() { addrs = nil }, func(msg syscall.NetlinkMessage, attrs []syscall.NetlinkRouteAttr) {
		a := addr{index: int(binary.NativeEndian.Uint32(msg.Data[4:]))}
		for _, at := range attrs {
			switch at.Attr.Type {
			case unix.IFA_LOCAL:
				a.prefix = netip.PrefixFrom(ip4(at.Value), int(msg.Data[1]))
			case unix.IFA_ADDRESS:
				a.peer = ip4(at.Value)
			}
		}
		addrs = append(addrs, a)
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return addrs, nil
}

// routes lists the routes of protocol static in table main.
func (c *conn) routes() ([]route, error) {
	var routes []route
	fixed := routeMessage(route{dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}, unix.RT_SCOPE_UNIVERSE)
	fixed[4] = 0 // any table: asking for main is an error before its first route
	fixed[7] = 0 // of any type
	r := newRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP, fixed)
	err := c.dump(r, func() { routes = nil }, func(msg syscall.NetlinkMessage, attrs []syscall.NetlinkRouteAttr) {
		if table, protocol := msg.Data[4], msg.Data[5]; table != unix.RT_TABLE_MAIN || protocol != unix.RTPROT_STATIC {
			return
		}
		dst := netip.IPv4Unspecified()
		var rt route
		for _, a := range attrs {
			switch a.Attr.Type {
			case unix.RTA_DST:
				dst = ip4(a.Value)
			case unix.RTA_GATEWAY:
				rt.gw = ip4(a.Value)
			case unix.RTA_PRIORITY:
				rt.metric = int(binary.NativeEndian.Uint32(a.Value))
			case unix.RTA_OIF:
				rt.oif = int(binary.NativeEndian.Uint32(a.Value))
			}
		}
		rt.dst = netip.PrefixFrom(dst, int(msg.Data[1]))
		routes = append(routes, rt)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return routes, nil
}

func (c *conn) setName(index int, name string) error {
	r := newRequest(unix.RTM_SETLINK, unix.NLM_F_ACK, linkMessage(index, 0, 0))
	return c.do(r.attr(unix.IFLA_IFNAME, append([]byte(name), 0)), nil)
}

func (c *conn) setMTU(index, mtu int) error {
	r := newRequest(unix.RTM_SETLINK, unix.NLM_F_ACK, linkMessage(index, 0, 0))
	return c.do(r.attr32(unix.IFLA_MTU, mtu), nil)
}

func (c *conn) setUp(index int, up bool) error {
	var flags uint32
	if up {
		flags = unix.IFF_UP
	}
	return c.do(newRequest(unix.RTM_SETLINK, unix.NLM_F_ACK, linkMessage(index, flags, unix.IFF_UP)), nil)
}

func (c *conn) addAddr(a addr) error {
	r := newRequest(unix.RTM_NEWADDR, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, addrMessage(a))
	r = r.attrIP(unix.IFA_LOCAL, a.prefix.Addr()).attrIP(unix.IFA_ADDRESS, a.peer)
	// The kernel sets no broadcast address of its own. A /31 has none (RFC 3021).
	if bits := a.prefix.Bits(); bits < 31 && a.peer == a.prefix.Addr() {
		b := a.prefix.Addr().As4()
		n := binary.BigEndian.Uint32(b[:]) | ^uint32(0)>>bits
		r = r.attr(unix.IFA_BROADCAST, binary.BigEndian.AppendUint32(nil, n))
	}
	return c.do(r, nil)
}

func (c *conn) deleteAddr(a addr) error {
	r := newRequest(unix.RTM_DELADDR, unix.NLM_F_ACK, addrMessage(a))
	return c.do(r.attrIP(unix.IFA_LOCAL, a.prefix.Addr()).attrIP(unix.IFA_ADDRESS, a.peer), nil)
}

// addRoute adds rt; with replace, in the place of the route to the same
// destination with the same metric, without a moment between them. Replacing a
// route by itself changes nothing, but the kernel checks its gateway.
func (c *conn) addRoute(rt route, replace bool) error {
	flags := uint16(unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_EXCL)
	if replace {
		flags = unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	return c.do(routeAttrs(newRequest(unix.RTM_NEWROUTE, flags, routeMessage(rt, unix.RT_SCOPE_UNIVERSE)), rt), nil)
}

func (c *conn) deleteRoute(rt route) error {
	fixed := routeMessage(rt, unix.RT_SCOPE_NOWHERE) // matches any scope
	fixed[7] = 0                                     // and this any type
	return c.do(routeAttrs(newRequest(unix.RTM_DELROUTE, unix.NLM_F_ACK, fixed), rt), nil)
}

// linkMessage is a struct ifinfomsg.
func linkMessage(index int, flags, change uint32) []byte {
	b := make([]byte, 4, unix.SizeofIfInfomsg)
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

// addrMessage is a struct ifaddrmsg.
func addrMessage(a addr) []byte {
	b := []byte{unix.AF_INET, byte(max(a.prefix.Bits(), 0)), 0, unix.RT_SCOPE_UNIVERSE}
	return binary.NativeEndian.AppendUint32(b, uint32(a.index))
}

// routeMessage is a struct rtmsg.
func routeMessage(rt route, scope byte) []byte {
	return []byte{
		unix.AF_INET, byte(rt.dst.Bits()), 0, 0,
		unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, scope, unix.RTN_UNICAST,
		0, 0, 0, 0,
	}
}

func routeAttrs(r request, rt route) request {
	if rt.dst.Bits() > 0 {
		r = r.attrIP(unix.RTA_DST, rt.dst.Addr())
	}
	if rt.gw.IsValid() {
		r = r.attrIP(unix.RTA_GATEWAY, rt.gw)
	}
	if rt.oif != 0 {
		r = r.attr32(unix.RTA_OIF, rt.oif)
	}
	return r.attr32(unix.RTA_PRIORITY, rt.metric)
}

func ip4(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

func cString(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}
