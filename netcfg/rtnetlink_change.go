package netcfg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
)

func setName(index int, name string) error {
	return setLink(index, 0, 0, nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
}

func setMTU(index, mtu int) error {
	return setLink(index, 0, 0, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))))
}

func setUp(index int, up bool) error {
	flags := uint32(0)
	if up {
		flags = unix.IFF_UP
	}
	return setLink(index, flags, unix.IFF_UP)
}

func setMAC(index int, mac ether.MAC) error {
	return setLink(index, 0, 0, nl.NewRtAttr(unix.IFLA_ADDRESS, mac[:]))
}

// setMaster makes a link a port of the bridge of index master, 0 for none.
func setMaster(index, master int) error {
	return setLink(index, 0, 0, nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(master))))
}

func setSTP(index int, stp bool) error {
	info, data := infoOf(bridgeKind)
	data.AddRtAttr(nl.IFLA_BR_STP_STATE, stpState(stp))
	return changeLink(unix.RTM_NEWLINK, index, 0, 0, info)
}

func setFiltering(index int, on bool) error {
	info, data := infoOf(bridgeKind)
	value := uint8(0)
	if on {
		value = 1
	}
	data.AddRtAttr(nl.IFLA_BR_VLAN_FILTERING, nl.Uint8Attr(value))
	return changeLink(unix.RTM_NEWLINK, index, 0, 0, info)
}

func setDefaultPVID(index, id int) error {
	info, data := infoOf(bridgeKind)
	data.AddRtAttr(nl.IFLA_BR_VLAN_DEFAULT_PVID, nl.Uint16Attr(uint16(id)))
	return changeLink(unix.RTM_NEWLINK, index, 0, 0, info)
}

// changeVLANs puts a port of a bridge into VLANs, or a bridge itself, by RTM_SETLINK, or takes it out by
// RTM_DELLINK.
func changeVLANs(index int, isBridge bool, typ int, runs []vlanRun) error {
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	if isBridge {
		spec.AddRtAttr(nl.IFLA_BRIDGE_FLAGS, nl.Uint16Attr(nl.BRIDGE_FLAGS_SELF))
	}
	add := func(flags vlanFlags, id int) {
		info := nl.BridgeVlanInfo{Flags: uint16(flags &^ vlanMember), Vid: uint16(id)}
		spec.AddRtAttr(nl.IFLA_BRIDGE_VLAN_INFO, info.Serialize())
	}
	for _, r := range runs {
		if r.From == r.To {
			add(r.flags, r.From)
			continue
		}
		add(r.flags|nl.BRIDGE_VLAN_INFO_RANGE_BEGIN, r.From)
		add(r.flags|nl.BRIDGE_VLAN_INFO_RANGE_END, r.To)
	}
	head := nl.NewIfInfomsg(unix.AF_BRIDGE)
	head.Index = int32(index)
	return request(typ, 0, head, []*nl.RtAttr{spec})
}

// setLink sets the flags of a link that are in change to those in flags, and attributes.
func setLink(index int, flags, change uint32, attrs ...*nl.RtAttr) error {
	return changeLink(unix.RTM_SETLINK, index, flags, change, attrs...)
}

func changeLink(typ, index int, flags, change uint32, attrs ...*nl.RtAttr) error {
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index, head.Flags, head.Change = int32(index), flags, change
	return request(typ, 0, head, attrs)
}

func deleteLink(index int) error { return changeLink(unix.RTM_DELLINK, index, 0, 0) }

const (
	// maxLearned is how many hardware addresses a bridge learns. A host behind it could otherwise
	// fill the memory by sending from ever new ones, which are kept for 5 minutes. Frames to those
	// that are not known go to all ports.
	maxLearned = 1024
	// attrMaxLearned is IFLA_BR_FDB_MAX_LEARNED (linux/if_link.h, since Linux 6.7).
	attrMaxLearned = 49
)

// makeBridge and makeVLAN make links of our group. They are down.
func makeBridge(name string, stp bool) error {
	info, data := infoOf(bridgeKind)
	data.AddRtAttr(nl.IFLA_BR_STP_STATE, stpState(stp))
	data.AddRtAttr(attrMaxLearned, nl.Uint32Attr(maxLearned))
	data.AddRtAttr(nl.IFLA_BR_VLAN_DEFAULT_PVID, nl.Uint16Attr(0)) // a new port is in no VLAN
	return newLink(name, info)
}

func makeVLAN(name string, parent, id int) error {
	info, data := infoOf(vlanKind)
	data.AddRtAttr(nl.IFLA_VLAN_ID, nl.Uint16Attr(uint16(id)))
	return newLink(name, info, nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(parent))))
}

// attrPPPFile is IFLA_PPP_DEV_FD (linux/if_link.h).
const attrPPPFile = 1

// MakePPP makes the PPP of that name of a descriptor of /dev/ppp, with an MTU in bytes. It is down
// until Run has seen it, and there for as long as the file is open. The kernel refuses with EBUSY while
// another one is made.
func MakePPP(name string, mtu, file int) error {
	info, data := infoOf(pppKind)
	data.AddRtAttr(attrPPPFile, nl.Uint32Attr(uint32(file)))
	return newLink(name, info, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))))
}

func newLink(name string, attrs ...*nl.RtAttr) error {
	attrs = append(attrs, nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)), nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	return request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nl.NewIfInfomsg(unix.AF_UNSPEC), attrs)
}

// infoOf returns the attribute IFLA_LINKINFO of a kind of links, and the attribute in it
// for what only this kind has.
func infoOf(kind string) (info, data *nl.RtAttr) {
	info = nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, []byte(kind))
	return info, info.AddRtAttr(unix.IFLA_INFO_DATA, nil)
}

func stpState(on bool) []byte {
	if on {
		return nl.Uint32Attr(1)
	}
	return nl.Uint32Attr(0)
}

func addAddr(index int, a addr) error {
	return changeAddr(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, a)
}

func deleteAddr(index int, a addr) error { return changeAddr(unix.RTM_DELADDR, 0, index, a) }

// changeAddr adds or deletes an address. A /31 has no broadcast address (RFC 3021), nor has
// a point-to-point address.
func changeAddr(typ, flags, index int, a addr) error {
	head := nl.NewIfAddrmsg(unix.AF_INET)
	head.Index, head.Prefixlen = uint32(index), uint8(a.prefix.Bits())
	local := a.prefix.Addr().As4()
	attrs := []*nl.RtAttr{nl.NewRtAttr(unix.IFA_LOCAL, local[:]), nl.NewRtAttr(unix.IFA_ADDRESS, a.peer.AsSlice())}
	if bits := a.prefix.Bits(); bits < 31 && a.peer == a.prefix.Addr() {
		last := binary.BigEndian.Uint32(local[:]) | (1<<(32-bits) - 1)
		attrs = append(attrs, nl.NewRtAttr(unix.IFA_BROADCAST, binary.BigEndian.AppendUint32(nil, last)))
	}
	return request(typ, flags, head, attrs)
}

// addRoute adds r. With replace, it takes the place of the route with the same destination
// and metric, without a moment between them. To replace a route by itself changes
// nothing, but the kernel checks the gateway.
func addRoute(oif int, r route, replace bool) error {
	flags := unix.NLM_F_CREATE | unix.NLM_F_EXCL
	if replace {
		flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	return changeRoute(unix.RTM_NEWROUTE, flags, nl.NewRtMsg(), oif, r)
}

func deleteRoute(oif int, r route) error {
	return changeRoute(unix.RTM_DELROUTE, 0, nl.NewRtDelMsg(), oif, r) // of any scope and type
}

func changeRoute(typ, flags int, head *nl.RtMsg, oif int, r route) error {
	head.Family, head.Protocol, head.Dst_len = unix.AF_INET, unix.RTPROT_STATIC, uint8(r.dst.Bits())
	head.Table = r.table
	if r.onlink {
		head.Flags |= unix.RTNH_F_ONLINK
	}
	attrs := []*nl.RtAttr{
		nl.NewRtAttr(unix.RTA_DST, r.dst.Addr().AsSlice()),
		nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(uint32(r.metric))),
	}
	switch {
	case r.typ != 0:
		head.Type = r.typ
	case !r.gw.IsValid() && typ == unix.RTM_NEWROUTE:
		head.Scope = unix.RT_SCOPE_LINK
	}
	if r.gw.IsValid() {
		attrs = append(attrs, nl.NewRtAttr(unix.RTA_GATEWAY, r.gw.AsSlice()))
	}
	if oif != 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(oif))))
	}
	if r.src.IsValid() {
		attrs = append(attrs, nl.NewRtAttr(unix.RTA_PREFSRC, r.src.AsSlice()))
	}
	return request(typ, flags, head, attrs)
}

// request asks the kernel for a change and waits for the answer.
func request(typ, flags int, head nl.NetlinkRequestData, attrs []*nl.RtAttr) error {
	req := nl.NewNetlinkRequest(typ, flags|unix.NLM_F_ACK)
	req.AddData(head)
	for _, a := range attrs {
		req.AddData(a)
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return explained(err)
}

// explained puts the kernel's explanation of a refusal, if there is one, in parentheses.
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
