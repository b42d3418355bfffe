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

// link is a network device as the kernel has it, or shall have it.
type link struct {
	index int
	name  string
	// kind is what makes it: bridge, vlan; "" for the driver of a device.
	kind string
	// own: it is in the group of what this package makes.
	own      bool
	up       bool // IFF_UP, the administrator's switch
	running  bool // IFF_LOWER_UP, there is a carrier; IFF_RUNNING says so up to a second later
	loopback bool
	mtu      int
	mac      MAC
	// master is the bridge that it is a port of, parent the link that a VLAN is on;
	// "" for none.
	master, parent string
	vlanID         int
	stp            bool

	masterIndex, parentIndex int
	rxBytes, txBytes         uint64
	rxPackets, txPackets     uint64
}

// group marks what this package makes, so that it is known again: "post".
const group = 0x706f7374

// addr is an IPv4 address as the kernel has it, on the link of that name. peer is
// the address itself unless the link is point-to-point.
type addr struct {
	link   string
	prefix netip.Prefix
	peer   netip.Addr
}

// route is an IPv4 route of table main and protocol static. oif is the name of
// the link that it leaves by, "" for the one that the kernel finds.
type route struct {
	dst    netip.Prefix
	gw     netip.Addr
	metric int
	oif    string
}

// conn is what the lists of one pass are read from. The library's list of links
// leaves out what a bridge was set to, and brings along the code for every kind of
// link that there is: links are read here.
type conn struct {
	*netlink.Handle
	links *nl.NetlinkSocket
}

func (c *conn) Close() {
	c.Handle.Close()
	c.links.Close()
}

// dial opens the sockets that the lists of one pass are read from.
func dial() (*conn, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	if err := h.SetStrictCheck(true); err != nil { // lists filtered by the kernel
		h.Close()
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	s, err := nl.Subscribe(unix.NETLINK_ROUTE) // to nothing: a plain socket
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &conn{h, s}, nil
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

// listLinks lists every device, in the order of their indexes. Who is on what is
// known by index alone: see nameLinks.
func listLinks(c *conn) ([]link, error) {
	messages, err := list("links", func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: c.links}}
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	})
	if err != nil {
		return nil, err
	}
	links := make([]link, len(messages))
	for i, message := range messages {
		if links[i], err = parseLink(message); err != nil {
			return nil, fmt.Errorf("list links: %w", err)
		}
	}
	return links, nil
}

// parseLink reads a message of type RTM_NEWLINK (rtnetlink(7)).
func parseLink(message []byte) (link, error) {
	if len(message) < unix.SizeofIfInfomsg {
		return link{}, fmt.Errorf("message of %d bytes", len(message))
	}
	head := nl.DeserializeIfInfomsg(message)
	l := link{
		index:    int(head.Index),
		up:       head.Flags&unix.IFF_UP != 0,
		running:  head.Flags&unix.IFF_LOWER_UP != 0,
		loopback: head.Flags&unix.IFF_LOOPBACK != 0,
	}
	err := attributes(message[unix.SizeofIfInfomsg:], func(typ uint16, value []byte) error {
		switch typ {
		case unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(value)
		case unix.IFLA_MTU:
			l.mtu = number(value)
		case unix.IFLA_MASTER:
			l.masterIndex = number(value)
		case unix.IFLA_LINK:
			l.parentIndex = number(value)
		case unix.IFLA_GROUP:
			l.own = number(value) == group
		case unix.IFLA_ADDRESS:
			if len(value) == len(l.mac) {
				l.mac = MAC(value)
			}
		case unix.IFLA_STATS64: // struct rtnl_link_stats64, linux/if_link.h
			for i, counter := range []*uint64{&l.rxPackets, &l.txPackets, &l.rxBytes, &l.txBytes} {
				if len(value) >= 8*(i+1) {
					*counter = nl.NativeEndian().Uint64(value[8*i:])
				}
			}
		case unix.IFLA_LINKINFO:
			return l.parseInfo(value)
		}
		return nil
	})
	return l, err
}

// parseInfo reads the attribute IFLA_LINKINFO: of what kind a link is, and before
// that, or behind, what only this kind has.
func (l *link) parseInfo(info []byte) error {
	var data []byte
	if err := attributes(info, func(typ uint16, value []byte) error {
		switch typ {
		case unix.IFLA_INFO_KIND:
			l.kind = unix.ByteSliceToString(value)
		case unix.IFLA_INFO_DATA:
			data = value
		}
		return nil
	}); err != nil {
		return err
	}
	return attributes(data, func(typ uint16, value []byte) error {
		switch {
		case l.kind == bridgeKind && typ == nl.IFLA_BR_STP_STATE:
			l.stp = number(value) != 0
		case l.kind == vlanKind && typ == nl.IFLA_VLAN_ID && len(value) >= 2:
			l.vlanID = int(nl.NativeEndian().Uint16(value))
		}
		return nil
	})
}

// attributes calls f for each of the attributes that b consists of.
func attributes(b []byte, f func(typ uint16, value []byte) error) error {
	for len(b) >= unix.SizeofRtAttr {
		size, typ := int(nl.NativeEndian().Uint16(b)), nl.NativeEndian().Uint16(b[2:])
		if size < unix.SizeofRtAttr || size > len(b) {
			return fmt.Errorf("attribute %d of %d bytes, where there are %d", typ, size, len(b))
		}
		if err := f(typ&^unix.NLA_F_NESTED, b[unix.SizeofRtAttr:size]); err != nil {
			return err
		}
		b = b[min((size+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b)):]
	}
	return nil
}

// number is an attribute's value of type u32; 0 if it is too short for one.
func number(value []byte) int {
	if len(value) < 4 {
		return 0
	}
	return int(nl.NativeEndian().Uint32(value))
}

// nameLinks says by name who is on what. A VLAN's index may be that of a link in
// another namespace: then it has no parent here.
func nameLinks(links []link) {
	name := func(index int) string {
		for _, l := range links {
			if l.index == index && index != 0 {
				return l.name
			}
		}
		return ""
	}
	for i := range links {
		l := &links[i]
		l.master, l.parent = name(l.masterIndex), ""
		if l.kind == vlanKind {
			l.parent = name(l.parentIndex)
		}
	}
}

// listAddrs lists the IPv4 addresses of links.
func listAddrs(c *conn, links []link) ([]addr, error) {
	all, err := list("addresses", func() ([]netlink.Addr, error) { return c.AddrList(nil, netlink.FAMILY_V4) })
	var addrs []addr
	for _, a := range all {
		local := prefix(a.IPNet)
		peer := local
		if a.Peer != nil { // then it has the prefix length
			peer = prefix(a.Peer)
		}
		i := slices.IndexFunc(links, func(l link) bool { return l.index == a.LinkIndex })
		if i < 0 {
			continue
		}
		addrs = append(addrs, addr{links[i].name, netip.PrefixFrom(local.Addr(), peer.Bits()), peer.Addr()})
	}
	return addrs, err
}

// listRoutes lists the routes of protocol static in table main. The filter names
// no table, which stands for main: a list of main itself is an error before its
// first route.
func listRoutes(c *conn, links []link) ([]route, error) {
	all, err := list("routes", func() ([]netlink.Route, error) {
		filter := &netlink.Route{Protocol: unix.RTPROT_STATIC}
		return c.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_PROTOCOL)
	})
	var routes []route
	for _, r := range all {
		gw, _ := netip.AddrFromSlice(r.Gw)
		routes = append(routes, route{prefix(r.Dst), gw, r.Priority, nameOf(links, r.LinkIndex)})
	}
	return routes, err
}

// nameOf is the name of a link, "" if there is none of that index.
func nameOf(links []link, index int) string {
	for _, l := range links {
		if l.index == index {
			return l.name
		}
	}
	return ""
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

func setMAC(index int, mac MAC) error {
	return explained(netlink.LinkSetHardwareAddr(linkOf(index), mac[:]))
}

// setMaster makes a link a port of the bridge of index master, 0 for none.
func setMaster(index, master int) error {
	return explained(netlink.LinkSetMasterByIndex(linkOf(index), master))
}

func deleteLink(index int) error { return explained(netlink.LinkDel(linkOf(index))) }

// makeBridge and makeVLAN make links of our group, which are down.
func makeBridge(name string, stp bool) error {
	req := newLink(name)
	addKind(req, bridgeKind).AddRtAttr(nl.IFLA_BR_STP_STATE, stpState(stp))
	return execute(req)
}

func makeVLAN(name string, parent, id int) error {
	req := newLink(name)
	req.AddData(nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(parent))))
	addKind(req, vlanKind).AddRtAttr(nl.IFLA_VLAN_ID, nl.Uint16Attr(uint16(id)))
	return execute(req)
}

func setSTP(index int, stp bool) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	req.AddData(head)
	addKind(req, bridgeKind).AddRtAttr(nl.IFLA_BR_STP_STATE, stpState(stp))
	return execute(req)
}

func newLink(name string) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	return req
}

// addKind adds the attribute IFLA_LINKINFO and returns what is inside it, the
// properties of the kind.
func addKind(req *nl.NetlinkRequest, kind string) *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, []byte(kind))
	data := info.AddRtAttr(unix.IFLA_INFO_DATA, nil)
	req.AddData(info)
	return data
}

func stpState(on bool) []byte {
	if on {
		return nl.Uint32Attr(1)
	}
	return nl.Uint32Attr(0)
}

func execute(req *nl.NetlinkRequest) error {
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return explained(err)
}

func addAddr(index int, a addr) error { return explained(netlink.AddrAdd(nil, a.netlink(index))) }

func deleteAddr(index int, a addr) error { return explained(netlink.AddrDel(nil, a.netlink(index))) }

// addRoute adds r; with replace, in the place of the route to the same
// destination with the same metric, without a moment between them. Replacing a
// route by itself changes nothing, but the kernel checks its gateway.
func addRoute(oif int, r route, replace bool) error {
	if replace {
		return explained(netlink.RouteReplace(r.netlink(oif)))
	}
	return explained(netlink.RouteAdd(r.netlink(oif)))
}

func deleteRoute(oif int, r route) error {
	n := r.netlink(oif)
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
func (a addr) netlink(index int) *netlink.Addr {
	n := &netlink.Addr{LinkIndex: index, IPNet: ipNet(a.prefix)}
	if a.peer != a.prefix.Addr() {
		n.Peer = ipNet(netip.PrefixFrom(a.peer, a.prefix.Bits()))
		n.Broadcast = net.IPv4zero // stands for none
	}
	return n
}

func (r route) netlink(oif int) *netlink.Route {
	return &netlink.Route{
		Dst: ipNet(r.dst), Gw: r.gw.AsSlice(), Priority: r.metric, LinkIndex: oif,
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
