package netcfg

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/internal/nlattr"
)

// conn is a socket from which lists are read.
type conn struct {
	fd  int
	seq uint32
	// buf takes a datagram. The kernel makes the datagrams of a list no larger than the
	// buffer of the reader (netlink_dump in net/netlink/af_netlink.c).
	buf [16 << 10]byte
}

// listTimeout bounds the wait for a kernel that does not answer. No such kernel is known.
const listTimeout = 10 // seconds

// dial opens the socket for the lists of one pass.
func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	c := &conn{fd: fd}
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1), // lists filtered by the kernel
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: listTimeout}),
	); err != nil {
		c.Close()
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	return c, nil
}

func (c *conn) Close() { unix.Close(c.fd) }

// errInterrupted says that a list has changed while it was read.
var errInterrupted = errors.New("changed again and again")

// dump asks for a list (netlink(7)) and calls f with each of its messages. A message is
// valid until f returns.
func (c *conn) dump(get int, head []byte, f func(message []byte) error) error {
	c.seq++
	req := nl.NewNetlinkRequest(get, unix.NLM_F_DUMP)
	req.Seq = c.seq
	req.AddRawData(head)
	if err := unix.Sendto(c.fd, req.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	interrupted := false
	for {
		n, _, flags, _, err := unix.Recvmsg(c.fd, c.buf[:], nil, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if flags&unix.MSG_TRUNC != 0 {
			return fmt.Errorf("datagram of more than %d bytes", len(c.buf))
		}
		// The answer to RTM_GETLINK is RTM_NEWLINK, which is 2 less, and so with all.
		done, err := c.messages(c.buf[:n], uint16(get-2), &interrupted, f)
		if err != nil {
			return err
		}
		if done && interrupted {
			return errInterrupted
		}
		if done {
			return nil
		}
	}
}

// messages calls f with the messages of type want in a datagram, and reports whether the
// list ends there.
func (c *conn) messages(b []byte, want uint16, interrupted *bool, f func(message []byte) error) (done bool, err error) {
	order := nl.NativeEndian()
	for len(b) >= unix.NLMSG_HDRLEN {
		// struct nlmsghdr: length, type, flags, sequence number, port.
		size, typ, flags, seq := int(order.Uint32(b)), order.Uint16(b[4:]), order.Uint16(b[6:]), order.Uint32(b[8:])
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return false, fmt.Errorf("message of %d bytes, where there are %d", size, len(b))
		}
		body := b[unix.NLMSG_HDRLEN:size]
		b = b[min((size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
		if seq != c.seq {
			continue
		}
		if flags&unix.NLM_F_DUMP_INTR != 0 {
			*interrupted = true
		}
		switch {
		case typ == unix.NLMSG_DONE || typ == unix.NLMSG_ERROR:
			if errno := int32(number(body)); errno < 0 {
				return false, unix.Errno(-errno)
			}
			return true, nil
		case typ == want:
			if err := f(body); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// list asks for all things of a kind: get is the type of the message, head what all its
// requests begin with. It reads each answer with parse. It asks again if the kernel says
// that the list has changed meanwhile.
func list[T any](c *conn, what string, get int, head []byte, parse func([]byte) (T, error)) ([]T, error) {
	var all []T
	var err error
	for range 5 {
		all = nil
		if err = c.dump(get, head, func(message []byte) error {
			one, err := parse(message)
			all = append(all, one)
			return err
		}); err != errInterrupted {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", what, err)
	}
	return all, nil
}

// listLinks lists all links, in the order of their indexes. Of masters and parents it
// knows only the index: see nameLinks.
func listLinks(s *conn) ([]link, error) {
	return list(s, "links", unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg), parseLink)
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
		noARP:    head.Flags&unix.IFF_NOARP != 0,
	}
	err := nlattr.Each(message[unix.SizeofIfInfomsg:], func(typ uint16, value []byte) error {
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
				l.mac = ether.MAC(value)
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

// parseInfo reads the attribute IFLA_LINKINFO: the kind of a link, and what only this kind
// has, in either order.
func (l *link) parseInfo(info []byte) error {
	var data []byte
	if err := nlattr.Each(info, func(typ uint16, value []byte) error {
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
	return nlattr.Each(data, func(typ uint16, value []byte) error {
		switch {
		case l.kind == bridgeKind && typ == nl.IFLA_BR_STP_STATE:
			l.stp = number(value) != 0
		case l.kind == bridgeKind && typ == nl.IFLA_BR_VLAN_FILTERING && len(value) >= 1:
			l.filtering = value[0] != 0
		case l.kind == bridgeKind && typ == nl.IFLA_BR_VLAN_DEFAULT_PVID && len(value) >= 2:
			l.defaultPVID = int(nl.NativeEndian().Uint16(value))
		case l.kind == vlanKind && typ == nl.IFLA_VLAN_ID && len(value) >= 2:
			l.vlanID = int(nl.NativeEndian().Uint16(value))
		}
		return nil
	})
}

// number returns an attribute's value of type u32, or 0 if it is too short.
func number(value []byte) int {
	if len(value) < 4 {
		return 0
	}
	return int(nl.NativeEndian().Uint32(value))
}

// nameLinks sets the names of masters and parents. The parent of a VLAN may be a link of
// another namespace: then it has none here.
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
func listAddrs(s *conn, links []link) ([]addr, error) {
	head := nl.NewIfAddrmsg(unix.AF_INET).Serialize()
	all, err := list(s, "addresses", unix.RTM_GETADDR, head, func(message []byte) (addr, error) {
		return parseAddr(message, links)
	})
	return slices.DeleteFunc(all, func(a addr) bool { return a.link == "" }), err
}

// parseAddr reads a message of type RTM_NEWADDR. The link is "" if it is not among links.
func parseAddr(message []byte, links []link) (addr, error) {
	if len(message) < unix.SizeofIfAddrmsg {
		return addr{}, fmt.Errorf("message of %d bytes", len(message))
	}
	head := nl.DeserializeIfAddrmsg(message)
	var local, peer netip.Addr
	err := nlattr.Each(message[unix.SizeofIfAddrmsg:], func(typ uint16, value []byte) error {
		switch typ {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(value)
		case unix.IFA_ADDRESS: // the same, unless the link is point-to-point
			peer, _ = netip.AddrFromSlice(value)
		}
		return nil
	})
	return addr{nameOf(links, int(head.Index)), netip.PrefixFrom(local, int(head.Prefixlen)), peer}, err
}

// kernelRoute is any IPv4 route.
type kernelRoute struct {
	route
	oifIndex int // 0 for a route with several next hops, or none
	protocol uint8
	cloned   bool
}

// listRoutes lists the routes of protocol static, in table main and in those that can be ours.
func listRoutes(s *conn, links []link) ([]route, error) {
	all, err := listAllRoutes(s, links, unix.RTPROT_STATIC)
	routes := make([]route, len(all))
	for i, r := range all {
		routes[i] = r.route
	}
	return routes, err
}

// listAllRoutes lists the routes of a protocol in these tables. Protocol 0 stands for all.
func listAllRoutes(s *conn, links []link, protocol uint8) ([]kernelRoute, error) {
	// The kernel is not asked to filter by table: a list of table main is an error before
	// its first route is made.
	head := nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_INET, Protocol: protocol}}
	all, err := list(s, "routes", unix.RTM_GETROUTE, head.Serialize(), func(message []byte) (kernelRoute, error) {
		return parseRoute(message, links)
	})
	return slices.DeleteFunc(all, func(r kernelRoute) bool {
		return r.table != unix.RT_TABLE_MAIN && (r.table == 0 || r.table > arpTable) || r.cloned
	}), err
}

// parseRoute reads a message of type RTM_NEWROUTE.
func parseRoute(message []byte, links []link) (kernelRoute, error) {
	if len(message) < unix.SizeofRtMsg {
		return kernelRoute{}, fmt.Errorf("message of %d bytes", len(message))
	}
	head := nl.DeserializeRtMsg(message)
	r := kernelRoute{protocol: head.Protocol, cloned: head.Flags&unix.RTM_F_CLONED != 0}
	r.table = head.Table // RT_TABLE_COMPAT if the number does not fit
	r.onlink = head.Flags&unix.RTNH_F_ONLINK != 0
	if head.Type != unix.RTN_UNICAST {
		r.typ = head.Type
	}
	dst := netip.IPv4Unspecified()
	err := nlattr.Each(message[unix.SizeofRtMsg:], func(typ uint16, value []byte) error {
		switch typ {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(value)
		case unix.RTA_GATEWAY:
			r.gw, _ = netip.AddrFromSlice(value)
		case unix.RTA_PREFSRC:
			r.src, _ = netip.AddrFromSlice(value)
		case unix.RTA_PRIORITY:
			r.metric = number(value)
		case unix.RTA_OIF:
			r.oifIndex = number(value)
		}
		return nil
	})
	r.dst, r.oif = netip.PrefixFrom(dst, int(head.Dst_len)), nameOf(links, r.oifIndex)
	return r, err
}

// listNeighbors lists the IPv4 neighbours that the kernel knows or is asking for.
func listNeighbors(s *conn, links []link) ([]Neighbor, error) {
	head := make([]byte, unix.SizeofNdMsg)
	head[0] = unix.AF_INET
	all, err := list(s, "neighbours", unix.RTM_GETNEIGH, head, func(message []byte) (Neighbor, error) {
		return parseNeighbor(message, links)
	})
	return slices.DeleteFunc(all, func(n Neighbor) bool { return n.Interface == "" || !n.Address.IsValid() }), err
}

// parseNeighbor reads a message of type RTM_NEWNEIGH. The interface is "" for entries that
// are left out: addresses that need no ARP, such as those of loopback and multicast, and
// neighbours that have not answered.
func parseNeighbor(message []byte, links []link) (Neighbor, error) {
	if len(message) < unix.SizeofNdMsg {
		return Neighbor{}, fmt.Errorf("message of %d bytes", len(message))
	}
	// struct ndmsg, linux/neighbour.h: family, padding, ifindex, state, flags, type.
	var n Neighbor
	state := nl.NativeEndian().Uint16(message[8:])
	if state != unix.NUD_NONE && state&(unix.NUD_NOARP|unix.NUD_FAILED) == 0 {
		n.Interface = nameOf(links, number(message[4:]))
	}
	n.Stays = state&unix.NUD_PERMANENT != 0
	err := nlattr.Each(message[unix.SizeofNdMsg:], func(typ uint16, value []byte) error {
		switch {
		case typ == unix.NDA_DST:
			n.Address, _ = netip.AddrFromSlice(value)
		case typ == unix.NDA_LLADDR && len(value) == len(n.MAC):
			n.MAC = ether.MAC(value)
		}
		return nil
	})
	return n, err
}

// The messages that list the VLANs of bridges and their ports (linux/if_bridge.h, linux/rtnetlink.h).
const (
	getVLAN         = 114 // RTM_GETVLAN
	sizeofVLANHead  = 8   // struct br_vlan_msg: family, 3 bytes of padding, ifindex
	attrVLANEntry   = 1   // BRIDGE_VLANDB_ENTRY
	attrVLANInfo    = 1   // BRIDGE_VLANDB_ENTRY_INFO, in that
	attrVLANRangeTo = 2   // BRIDGE_VLANDB_ENTRY_RANGE
)

// listVLANs lists the VLANs of all bridges and ports of bridges, by the index of each. A kernel that
// cannot filter VLANs has none.
func listVLANs(s *conn) (map[int]*vlanTable, error) {
	head := make([]byte, sizeofVLANHead)
	head[0] = unix.AF_BRIDGE
	type some struct {
		index int
		runs  []vlanRun
	}
	all, err := list(s, "VLANs of bridges", getVLAN, head, func(message []byte) (some, error) {
		index, runs, err := parseVLANs(message)
		return some{index, runs}, err
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	tables := map[int]*vlanTable{}
	for _, part := range all { // a link with many has several messages
		t := table(part.runs)
		if before := tables[part.index]; before != nil {
			for id, flags := range before {
				t[id] |= flags
			}
		}
		tables[part.index] = t
	}
	return tables, err
}

// parseVLANs reads a message of type RTM_NEWVLAN.
func parseVLANs(message []byte) (index int, runs []vlanRun, err error) {
	if len(message) < sizeofVLANHead {
		return 0, nil, fmt.Errorf("message of %d bytes", len(message))
	}
	index = number(message[4:])
	err = nlattr.Each(message[sizeofVLANHead:], func(typ uint16, entry []byte) error {
		if typ != attrVLANEntry {
			return nil
		}
		var r vlanRun
		err := nlattr.Each(entry, func(typ uint16, value []byte) error {
			switch {
			case typ == attrVLANInfo && len(value) >= nl.SizeofBridgeVlanInfo: // struct bridge_vlan_info: flags, vid
				order := nl.NativeEndian()
				r.flags = vlanMember | vlanFlags(order.Uint16(value))&(vlanPVID|vlanUntagged)
				r.From = int(order.Uint16(value[2:]))
				r.To = max(r.To, r.From)
			case typ == attrVLANRangeTo && len(value) >= 2:
				r.To = int(nl.NativeEndian().Uint16(value))
			}
			return nil
		})
		runs = append(runs, r)
		return err
	})
	return index, runs, err
}

// nameOf returns the name of the link with that index, or "" if there is none.
func nameOf(links []link, index int) string {
	for _, l := range links {
		if l.index == index {
			return l.name
		}
	}
	return ""
}
