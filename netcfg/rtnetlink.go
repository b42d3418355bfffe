package netcfg

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What this package needs of github.com/vishvananda/netlink, in values that can
// be compared. The library adds 110 KB (xz) to a MIPS program, and reads each
// datagram into a fresh buffer of 64 KB: a list is read once a pass, and again
// only where the kernel may have changed it on its own account.
//
// It has the kernel explain a refusal, "Nexthop has invalid gateway", only on the
// sockets that its package functions open for each request, and for the whole
// process. So changes go by these functions. Lists go by a Handle, without
// explanations: v1.3.1 panics on a list that fails with one.
func init() { nl.EnableErrorMessageReporting = true }

// link is a network device as the kernel has it.
type link struct {
	index    int
	name     string
	up       bool // IFF_UP, the administrator's switch
	running  bool // IFF_LOWER_UP, there is a carrier; IFF_RUNNING says so up to a second later
	loopback bool
	mtu      int
	mac      net.HardwareAddr
	stats    netlink.LinkStatistics
}

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

// dial opens the socket that the lists of one pass are read from.
func dial() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	if err := h.SetStrictCheck(true); err != nil { // lists filtered by the kernel
		h.Close()
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	return h, nil
}

// list calls f again if the kernel says that the list changed under the reader.
func list[T any](what string, f func() ([]T, error)) ([]T, error) {
	var all []T
	var err error
	for range 5 {
		if all, err = f(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", what, err)
	}
	return all, nil
}

// listLinks lists every device, in the order of their indexes.
func listLinks(h *netlink.Handle) ([]link, error) {
	all, err := list("links", h.LinkList)
	var links []link
	for _, k := range all {
		a := k.Attrs()
		l := link{
			index:    a.Index,
			name:     a.Name,
			up:       a.RawFlags&unix.IFF_UP != 0,
			running:  a.RawFlags&unix.IFF_LOWER_UP != 0,
			loopback: a.RawFlags&unix.IFF_LOOPBACK != 0,
			mtu:      a.MTU,
			mac:      slices.Clone(a.HardwareAddr), // a part of the whole datagram
		}
		if a.Statistics != nil {
			l.stats = *a.Statistics
		}
		links = append(links, l)
	}
	return links, err
}

// listAddrs lists every IPv4 address.
func listAddrs(h *netlink.Handle) ([]addr, error) {
	all, err := list("addresses", func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_V4) })
	var addrs []addr
	for _, a := range all {
		local := prefix(a.IPNet)
		peer := local
		if a.Peer != nil { // then it has the prefix length
			peer = prefix(a.Peer)
		}
		addrs = append(addrs, addr{a.LinkIndex, netip.PrefixFrom(local.Addr(), peer.Bits()), peer.Addr()})
	}
	return addrs, err
}

// listRoutes lists the routes of protocol static in table main. The filter names
// no table, which stands for main: a list of main itself is an error before its
// first route.
func listRoutes(h *netlink.Handle) ([]route, error) {
	all, err := list("routes", func() ([]netlink.Route, error) {
		filter := &netlink.Route{Protocol: unix.RTPROT_STATIC}
		return h.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_PROTOCOL)
	})
	var routes []route
	for _, r := range all {
		gw, _ := netip.AddrFromSlice(r.Gw)
		routes = append(routes, route{prefix(r.Dst), gw, r.Priority, r.LinkIndex})
	}
	return routes, err
}

func setName(index int, name string) error {
	return explained(netlink.LinkSetName(linkOf(index), name))
}

func setMTU(index, mtu int) error {
	return explained(netlink.LinkSetMTU(linkOf(index), mtu))
}

func setUp(index int, up bool) error {
	if up {
		return explained(netlink.LinkSetUp(linkOf(index)))
	}
	return explained(netlink.LinkSetDown(linkOf(index)))
}

func addAddr(a addr) error { return explained(netlink.AddrAdd(nil, a.netlink())) }

func deleteAddr(a addr) error { return explained(netlink.AddrDel(nil, a.netlink())) }

// addRoute adds r; with replace, in the place of the route to the same
// destination with the same metric, without a moment between them. Replacing a
// route by itself changes nothing, but the kernel checks its gateway.
func addRoute(r route, replace bool) error {
	if replace {
		return explained(netlink.RouteReplace(r.netlink()))
	}
	return explained(netlink.RouteAdd(r.netlink()))
}

func deleteRoute(r route) error {
	n := r.netlink()
	n.Scope = netlink.SCOPE_NOWHERE // matches any scope
	return explained(netlink.RouteDel(n))
}

// explained puts the kernel's explanation of a refusal, if it gave one, in
// parentheses.
func explained(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	if text, ok := strings.CutPrefix(err.Error(), errno.Error()+": "); ok {
		return fmt.Errorf("%w (%s)", errno, text)
	}
	return err
}

func linkOf(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// netlink is a as the library wants it, which finds the broadcast address itself;
// a /31 has none (RFC 3021), and a point-to-point address gets none here.
func (a addr) netlink() *netlink.Addr {
	n := &netlink.Addr{LinkIndex: a.index, IPNet: ipNet(a.prefix)}
	if a.peer != a.prefix.Addr() {
		n.Peer = ipNet(netip.PrefixFrom(a.peer, a.prefix.Bits()))
		n.Broadcast = net.IPv4zero // stands for none
	}
	return n
}

func (r route) netlink() *netlink.Route {
	return &netlink.Route{
		Dst: ipNet(r.dst), Gw: r.gw.AsSlice(), Priority: r.metric, LinkIndex: r.oif,
		Protocol: unix.RTPROT_STATIC,
	}
}

func prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	ip, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), bits)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// subscribe opens a socket that hears of changes to links, IPv4 addresses, IPv4
// routes and forwarding. Its buffer in the kernel is small: what overflows it is
// read as ENOBUFS, and that too says that something changed.
func subscribe() (*os.File, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_NETCONF)
	if err != nil {
		return nil, fmt.Errorf("subscribe to netlink: %w", err)
	}
	defer s.Close()
	if err := s.SetReceiveBufferSize(8<<10, false); err != nil {
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	// s can only receive whole datagrams, and would hold its 64 KB for as long as
	// it waits. As a file the socket can be read just to hear that there is one.
	fd, err := unix.FcntlInt(uintptr(s.GetFd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate netlink socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}
