package netcfg

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/internal/nlattr"
)

// This file has how links find out hardware addresses (ARP, RFC 826): modes, and entries that stay.

// The modes of ARP of a link, as RouterOS names them. "" is the usual one: the router asks for the hardware addresses of neighbours, and
// answers who asks for its own.
const (
	// ARPDisabled neither asks nor answers: there are the Neighbors of the Config alone.
	ARPDisabled = "disabled"
	// ARPReplyOnly asks for none, and answers only those that are Neighbors of the Config.
	ARPReplyOnly = "reply-only"
	// ProxyARP answers also for what the router has a route to by another link, and LocalProxyARP for the other hosts of the same link.
	ProxyARP      = "proxy-arp"
	LocalProxyARP = "local-proxy-arp"
)

// ARPModes are these modes.
var ARPModes = []string{ARPDisabled, ARPReplyOnly, ProxyARP, LocalProxyARP}

// StaticNeighbor is an entry of the ARP table that stays as it is, whatever others say.
type StaticNeighbor struct {
	Address netip.Addr
	// MAC is a unicast address. With the zero value there is no entry but what Published makes.
	MAC       ether.MAC
	Interface string
	// Published has the router answer with its own hardware address on Interface who asks for Address, which it reaches by
	// another link.
	Published bool
	Disabled  bool
	Comment   string
}

// MaxNeighbors is how many StaticNeighbors a Config can have.
const MaxNeighbors = 1024

// arpTable is a table of routes that no packet takes: it says who in the networks of links with ARPReplyOnly nothing is sent to. See
// Config.wantReplyOnly.
const arpTable = MaxTable + 1

// arpPriority is the priority of the rules that lead there: before all others of ours, as none may lead to whom arpTable refuses.
const arpPriority = 900

func checkARP(mode string) error {
	if mode != "" && !slices.Contains(ARPModes, mode) {
		return fmt.Errorf("arp=%s: expected %s", mode, strings.Join(ARPModes, ", "))
	}
	return nil
}

func (c Config) validateARP(interfaces []string) error {
	for _, l := range c.Links {
		if err := checkARP(l.ARP); err != nil {
			return fmt.Errorf("link %s: %w", l.Name, err)
		}
	}
	for _, b := range c.Bridges {
		if err := checkARP(b.ARP); err != nil {
			return fmt.Errorf("bridge %s: %w", b.Name, err)
		}
	}
	for _, v := range c.VLANs {
		if err := checkARP(v.ARP); err != nil {
			return fmt.Errorf("VLAN %s: %w", v.Name, err)
		}
	}
	if len(c.Neighbors) > MaxNeighbors {
		return fmt.Errorf("arp: expected at most %d entries, got %d", MaxNeighbors, len(c.Neighbors))
	}
	type place struct {
		link string
		ip   netip.Addr
	}
	seen := map[place]bool{}
	for _, n := range c.Neighbors {
		if !n.Address.Is4() || !isUnicast(n.Address) {
			return fmt.Errorf("arp: address=%s: expected an IPv4 host address", addressText(n.Address))
		}
		if n.MAC[0]&1 != 0 {
			return fmt.Errorf("arp %s: mac-address=%s: expected the address of one host, not of a group", n.Address, n.MAC)
		}
		if (n.MAC == ether.MAC{}) && !n.Published {
			return fmt.Errorf("arp %s: needs mac-address or published", n.Address)
		}
		if !slices.Contains(interfaces, n.Interface) {
			return fmt.Errorf("arp %s: interface=%s: expected an interface (%s)", n.Address, n.Interface, strings.Join(interfaces, ", "))
		}
		if slices.ContainsFunc(c.PPPs, func(p PPP) bool { return p.Name == n.Interface }) {
			return fmt.Errorf("arp %s: interface=%s: expected one that has ARP", n.Address, n.Interface)
		}
		if n.Disabled {
			continue
		}
		p := place{c.Actual(n.Interface), n.Address}
		if seen[p] {
			return fmt.Errorf("arp: address=%s: expected each address once on %s", n.Address, n.Interface)
		}
		seen[p] = true
	}
	return nil
}

// NewSharedReplyOnly returns two addresses of the very same network on two links of which the first has ARPReplyOnly: what that closes, by
// destinations, is closed on the other one too. Two links that share the network in old already are passed over.
func (c Config) NewSharedReplyOnly(old Config) (closed, other Address, shared bool) {
	for a, b := range c.sharedReplyOnly {
		isOld := false
		for was, with := range old.sharedReplyOnly {
			isOld = isOld || was.Address.Masked() == a.Address.Masked() && was.Interface == a.Interface && with.Interface == b.Interface
		}
		if !isOld {
			return a, b, true
		}
	}
	return Address{}, Address{}, false
}

// sharedReplyOnly calls yield for each such two addresses, until it returns false.
func (c Config) sharedReplyOnly(yield func(closed, other Address) bool) {
	modes := map[string]string{}
	for _, l := range c.Links {
		modes[l.Name] = l.ARP
	}
	for _, b := range c.Bridges {
		modes[b.Name] = b.ARP
	}
	for _, v := range c.VLANs {
		modes[v.Name] = v.ARP
	}
	for _, a := range c.Addresses {
		on := c.Actual(a.Interface)
		if a.Disabled || modes[on] != ARPReplyOnly {
			continue
		}
		for _, b := range c.Addresses {
			if !b.Disabled && c.Actual(b.Interface) != on && b.Address.Masked() == a.Address.Masked() && !yield(a, b) {
				return
			}
		}
	}
}

// usesARP reports whether c says anything of ARP.
func (c Config) usesARP() bool {
	return len(c.Neighbors) > 0 ||
		slices.ContainsFunc(c.Links, func(l Link) bool { return l.ARP != "" }) ||
		slices.ContainsFunc(c.Bridges, func(b Bridge) bool { return b.ARP != "" }) ||
		slices.ContainsFunc(c.VLANs, func(v VLAN) bool { return v.ARP != "" })
}

// isNeighbor reports whether packets to a host are sent to it by a link: it is in a network of that, a gateway there, or behind a route to
// the link itself.
func (c Config) isNeighbor(host netip.Addr, on string) bool {
	return slices.ContainsFunc(c.Addresses, func(a Address) bool { return !a.Disabled && c.Actual(a.Interface) == on && a.Address.Contains(host) }) ||
		slices.ContainsFunc(c.Routes, func(r Route) bool {
			return !r.Disabled && r.Type == "" && r.Interface != "" && c.Actual(r.Interface) == on &&
				(r.Gateway == host || !r.Gateway.IsValid() && r.Destination.Contains(host))
		})
}

// neighbor is an entry that stays, as the kernel has it.
type neighbor struct {
	link    string
	address netip.Addr
	mac     ether.MAC // zero of one that is published
	proxy   bool
	// kept is whether it is a gateway's, see keepGateways.
	kept bool
}

// wantNeighbors are those on links that are there and up: the kernel drops the entries of a link that goes down.
func (c Config) wantNeighbors(links []link) (all []neighbor) {
	for _, n := range c.Neighbors {
		on := c.Actual(n.Interface)
		if i := linkNamed(links, on); n.Disabled || i < 0 || !links[i].up {
			continue
		}
		if n.MAC != (ether.MAC{}) {
			all = append(all, neighbor{link: on, address: n.Address, mac: n.MAC})
		}
		if n.Published {
			all = append(all, neighbor{link: on, address: n.Address, proxy: true})
		}
	}
	return all
}

// wantReplyOnly adds to w what has links with ARPReplyOnly talk with their neighbours alone: packets to others in the networks of such a
// link are refused, whatever hardware address the kernel has learnt, as it does from requests and announcements. So with arp_filter it
// answers no request of theirs, and the check of sources drops what they send. Neighbours, and smaller networks behind other links or
// gateways, are left to the rules and tables that follow.
func (c Config) wantReplyOnly(w *state) {
	var closed []netip.Prefix
	is := func(name string) bool {
		i := linkNamed(w.links, name)
		return i >= 0 && w.links[i].up && w.links[i].arp == ARPReplyOnly
	}
	for _, a := range w.addrs {
		if dst := a.prefix.Masked(); is(a.link) && !slices.Contains(closed, dst) {
			closed = append(closed, dst)
		}
	}
	var routes []route
	add := func(dst netip.Prefix, typ uint8) {
		r := route{dst: dst, metric: 1, table: arpTable, typ: typ}
		within := func(p netip.Prefix) bool { return p.Bits() < dst.Bits() && p.Contains(dst.Addr()) }
		if (typ != unix.RTN_THROW || !slices.Contains(closed, dst) && slices.ContainsFunc(closed, within)) && !slices.Contains(routes, r) {
			routes = append(routes, r)
		}
	}
	for _, n := range w.neighbors {
		if is(n.link) && !n.proxy {
			add(netip.PrefixFrom(n.address, n.address.BitLen()), unix.RTN_THROW)
		}
	}
	for _, a := range w.addrs {
		add(a.prefix.Masked(), unix.RTN_THROW)
	}
	for i, r := range w.routes {
		if r.gw.IsValid() || !is(r.oif) {
			add(r.dst, unix.RTN_THROW)
		}
		// A gateway is a neighbour as others are: by one that is none nothing is sent, nor by the next best route.
		known := func(n neighbor) bool { return n.link == r.oif && n.address == r.gw && !n.proxy }
		if r.gw.IsValid() && is(r.oif) && !slices.ContainsFunc(w.neighbors, known) {
			w.routes[i] = route{dst: r.dst, metric: r.metric, table: r.table, typ: unix.RTN_UNREACHABLE}
		}
	}
	for _, dst := range closed {
		add(dst, unix.RTN_UNREACHABLE)
		w.rules = append(w.rules, rule{priority: arpPriority, dst: dst, action: unix.FR_ACT_TO_TBL, table: arpTable})
	}
	w.routes = append(w.routes, routes...)
}

// The parameters of a link that its mode of ARP sets, with their folders below parameterFolder and the values of the usual mode.
var arpParameters = []struct{ folder, name, usual string }{
	{"conf", "proxy_arp", "0"}, {"conf", "proxy_arp_pvlan", "0"}, {"conf", "arp_filter", "0"}, {"neigh", "mcast_solicit", "3"}, {"neigh", "ucast_solicit", "3"},
}

// parametersOf are the values of arpParameters in a mode.
func parametersOf(mode string) []string {
	values := make([]string, len(arpParameters))
	for i, p := range arpParameters {
		values[i] = p.usual
	}
	switch mode {
	case ProxyARP:
		values[0] = "1"
	case LocalProxyARP:
		values[1] = "1"
	case ARPReplyOnly:
		values[2], values[3], values[4] = "1", "0", "0"
	}
	return values
}

// readARP reads the mode of each link. One whose parameters are those of no mode has the mode "?".
func readARP(links []link) {
	for i := range links {
		l := &links[i]
		values := make([]string, len(arpParameters))
		for j, p := range arpParameters {
			text, _ := os.ReadFile(filepath.Join(parameterFolder, p.folder, l.name, p.name)) // a link that has just gone has none
			values[j] = strings.TrimSpace(string(text))
		}
		l.arp = "?"
		for _, mode := range append([]string{""}, ARPModes...) {
			if slices.Equal(values, parametersOf(mode)) && l.noARP == (mode == ARPDisabled) {
				l.arp = mode
			}
		}
	}
}

// setARP sets the mode of a link.
func setARP(l link, mode string) error {
	flags := uint32(0)
	if mode == ARPDisabled {
		flags = unix.IFF_NOARP
	}
	failed := []error{setLink(l.index, flags, unix.IFF_NOARP)}
	for i, value := range parametersOf(mode) {
		p := arpParameters[i]
		failed = append(failed, writeExisting(filepath.Join(parameterFolder, p.folder, l.name, p.name), value))
	}
	return errors.Join(failed...)
}

func (m *Manager) reconcileNeighbors(nl *conn, p *pass, want []neighbor) {
	have, err := listStatic(nl, m.links)
	if err != nil {
		p.errs = append(p.errs, err)
		return
	}
	what := func(verb string, n neighbor) string {
		if n.proxy {
			return fmt.Sprintf("%s published address %s on %s", verb, n.address, n.link)
		}
		return fmt.Sprintf("%s ARP entry %s %s on %s", verb, n.address, n.mac, n.link)
	}
	for _, h := range have {
		i := slices.IndexFunc(m.links, func(l link) bool { return l.name == h.link })
		mine := i >= 0 && (m.links[i].own || m.devices[m.links[i].index] != nil)
		again := func(w neighbor) bool { return w.link == h.link && w.address == h.address && w.proxy == h.proxy }
		if mine && !slices.ContainsFunc(want, again) {
			if err := changeNeighbor(unix.RTM_DELNEIGH, 0, m.index(h.link), h, 0); !errors.Is(err, unix.ENOENT) {
				p.did(what("delete", h), err)
			}
		}
	}
	for _, w := range want {
		if !slices.Contains(have, w) {
			p.did(what("add", w), changeNeighbor(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, m.index(w.link), w, unix.NUD_PERMANENT))
		}
	}
}

// gatewayFlags and gatewayMore are the flags of an entry that keepGateways has made: NTF_EXT_LEARNED and NTF_EXT_MANAGED of linux/neighbour.h.
// The first keeps it out of the garbage collector's reach and out of what gc_thresh3 counts; the second has the kernel ask for it by itself.
const (
	gatewayFlags = unix.NTF_EXT_LEARNED
	gatewayMore  = 1
	ndaFlagsExt  = 15 // NDA_FLAGS_EXT
)

// keepGateways has the kernel keep the entries of the gateways of want's routes. Others it drops when the table is full, those first that nobody
// has sent anything to for some seconds, and makes no new ones. Whoever makes it ask for hosts that do not exist, or says that he is
// ever other hosts, fills it for all links; with these entries the way out stays. A kernel that refuses serves them as any neighbour.
func (m *Manager) keepGateways(socket *conn, p *pass, want state) {
	var gateways []neighbor
	for _, r := range want.routes {
		i := linkNamed(want.links, r.oif)
		if !r.gw.IsValid() || i < 0 {
			continue
		}
		l, n := want.links[i], neighbor{link: r.oif, address: r.gw}
		stays := func(o neighbor) bool { return o.link == n.link && o.address == n.address }
		if l.up && l.kind != pppKind && l.arp != ARPDisabled && l.arp != ARPReplyOnly && !slices.Contains(gateways, n) && !slices.ContainsFunc(want.neighbors, stays) {
			gateways = append(gateways, n)
		}
	}
	if len(gateways) == 0 && !m.keeps {
		return
	}
	m.keeps = len(gateways) > 0
	type entry struct {
		neighbor
		kept, stays bool
	}
	have, err := list(socket, "neighbours", unix.RTM_GETNEIGH, (&nlNeighbor{}).Serialize(), func(message []byte) (e entry, err error) {
		n, err := parseNeighbor(message, m.links)
		if err == nil {
			e = entry{neighbor{link: nameOf(m.links, number(message[4:])), address: n.Address}, isKept(message) && isManaged(message), n.Stays}
		}
		return e, err
	})
	if err != nil {
		p.errs = append(p.errs, err)
		return
	}
	for _, h := range have {
		if h.kept && linkNamed(want.links, h.link) >= 0 && !slices.Contains(gateways, h.neighbor) {
			_ = changeNeighbor(unix.RTM_DELNEIGH, 0, m.index(h.link), h.neighbor, 0)
		}
	}
	for _, g := range gateways {
		if !slices.ContainsFunc(have, func(h entry) bool { return h.neighbor == g && (h.kept || h.stays) }) {
			more := nl.NewRtAttr(ndaFlagsExt, nl.Uint32Attr(gatewayMore))
			_ = request(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE, &nlNeighbor{index: m.index(g.link), flags: gatewayFlags},
				[]*nl.RtAttr{nl.NewRtAttr(unix.NDA_DST, g.address.AsSlice()), more})
		}
	}
}

// isKept and isManaged report whether the entry in a message of type RTM_NEWNEIGH has these flags of keepGateways.
func isKept(message []byte) bool { return message[10]&gatewayFlags != 0 }

func isManaged(message []byte) (is bool) {
	_ = nlattr.Each(message[unix.SizeofNdMsg:], func(typ uint16, value []byte) error {
		is = is || typ == ndaFlagsExt && len(value) == 4 && nl.NativeEndian().Uint32(value)&gatewayMore != 0
		return nil
	})
	return is
}

// changeNeighbor adds, changes or deletes an entry of the ARP table (rtnetlink(7)).
func changeNeighbor(typ, flags, index int, n neighbor, state uint16) error {
	head := &nlNeighbor{index: index, state: state}
	if n.kept {
		head.flags = gatewayFlags
	}
	attrs := []*nl.RtAttr{nl.NewRtAttr(unix.NDA_DST, n.address.AsSlice())}
	switch {
	case n.proxy:
		head.flags = unix.NTF_PROXY
	case n.mac != ether.MAC{}:
		attrs = append(attrs, nl.NewRtAttr(unix.NDA_LLADDR, n.mac[:]))
	case state == 0 && typ == unix.RTM_NEWNEIGH:
		head.flags |= unix.NTF_USE
	}
	return request(typ, flags, head, attrs)
}

// nlNeighbor is the head of such a message: struct ndmsg, linux/neighbour.h.
type nlNeighbor struct {
	index int
	state uint16
	flags uint8
}

func (*nlNeighbor) Len() int { return unix.SizeofNdMsg }

func (n *nlNeighbor) Serialize() []byte {
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = unix.AF_INET
	nl.NativeEndian().PutUint32(b[4:], uint32(n.index))
	nl.NativeEndian().PutUint16(b[8:], n.state)
	b[10] = n.flags
	return b
}

// listStatic lists the entries that stay, and those that are published.
func listStatic(s *conn, links []link) ([]neighbor, error) {
	head := &nlNeighbor{}
	static, err := list(s, "neighbours", unix.RTM_GETNEIGH, head.Serialize(), func(message []byte) (neighbor, error) {
		return parseStatic(message, links, false)
	})
	if err != nil {
		return nil, err
	}
	head.flags = unix.NTF_PROXY
	published, err := list(s, "published addresses", unix.RTM_GETNEIGH, head.Serialize(), func(message []byte) (neighbor, error) {
		return parseStatic(message, links, true)
	})
	return slices.DeleteFunc(append(static, published...), func(n neighbor) bool { return n.link == "" }), err
}

// parseStatic reads a message of type RTM_NEWNEIGH. Entries that come and go have no link.
func parseStatic(message []byte, links []link, proxy bool) (neighbor, error) {
	entry, err := parseNeighbor(message, links)
	if err != nil {
		return neighbor{}, err
	}
	n := neighbor{link: entry.Interface, address: entry.Address, mac: entry.MAC, proxy: proxy}
	switch order := nl.NativeEndian(); {
	case proxy && message[10]&unix.NTF_PROXY != 0:
		n.link, n.mac = nameOf(links, number(message[4:])), ether.MAC{}
	case proxy || order.Uint16(message[8:])&unix.NUD_PERMANENT == 0:
		n.link = ""
	}
	return n, nil
}

// ForgetNeighbors deletes entries of the ARP table. The kernel asks anew for whom it needs. One that is gone already does not
// matter, and one of the Config in force comes back.
func (m *Manager) ForgetNeighbors(all []Neighbor) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	socket, own, err := m.look()
	if err != nil {
		return err
	}
	defer socket.Close()
	for _, n := range all {
		i := slices.IndexFunc(m.links, func(l link) bool { return l.name == n.Interface })
		if i < 0 {
			continue
		}
		if err := changeNeighbor(unix.RTM_DELNEIGH, 0, m.links[i].index, neighbor{address: n.Address}, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("arp %s on %s: %w", n.Address, n.Interface, err)
		}
	}
	var p pass
	if m.config != nil {
		m.keepGateways(socket, &p, m.want(*m.config, state{links: own}))
	}
	return p.err()
}

// AskNeighbor has the kernel ask for the hardware address of a neighbour, and reports whether there is an answer before ctx ends. The
// link is that of the network that has the address if it is not given. An entry that stays counts as an answer.
func (m *Manager) AskNeighbor(ctx context.Context, address netip.Addr, on string) bool {
	const pause = 100 * time.Millisecond
	for asked := false; ; asked = true {
		answered, asking, err := m.askNeighbor(address, on, !asked)
		if err != nil || answered || asked && !asking {
			return answered
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
}

// LinkTo returns the name of the link on which the gateway of a route without Interface is reached now: of networks that have it the longest
// whose link is up, of equal ones the first of the Config in force. It is "" if there is none.
func (m *Manager) LinkTo(gateway netip.Addr) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.config == nil {
		return ""
	}
	socket, own, err := m.look()
	if err != nil {
		return ""
	}
	socket.Close()
	on, _ := nexthop(*m.config, own, Route{Gateway: gateway})
	return on
}

// askNeighbor is a look at the entry of a neighbour, and with start the beginning of a question.
func (m *Manager) askNeighbor(address netip.Addr, on string, start bool) (answered, asking bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	socket, _, err := m.look()
	if err != nil {
		return false, false, err
	}
	defer socket.Close()
	if on == "" && m.config != nil {
		on, _ = nexthop(*m.config, m.links, Route{Gateway: address})
	}
	i := slices.IndexFunc(m.links, func(l link) bool { return l.name == on })
	if i < 0 {
		return false, false, nil
	}
	var found neighbor
	state := uint16(unix.NUD_NONE)
	head := &nlNeighbor{}
	if _, err := list(socket, "neighbours", unix.RTM_GETNEIGH, head.Serialize(), func(message []byte) (struct{}, error) {
		entry, err := parseNeighbor(message, m.links)
		if err == nil && entry.Address == address && number(message[4:]) == m.links[i].index {
			found, state = neighbor{mac: entry.MAC, kept: isKept(message)}, nl.NativeEndian().Uint16(message[8:])
		}
		return struct{}{}, err
	}); err != nil {
		return false, false, err
	}
	switch {
	case state&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0:
		return state&unix.NUD_PERMANENT != 0, false, nil
	case !start:
		return state&unix.NUD_REACHABLE != 0, state&(unix.NUD_INCOMPLETE|unix.NUD_PROBE|unix.NUD_DELAY) != 0, nil
	case state&(unix.NUD_REACHABLE|unix.NUD_STALE|unix.NUD_DELAY) != 0:
		// It is asked again, whatever was heard of it lately.
		return false, true, changeNeighbor(unix.RTM_NEWNEIGH, unix.NLM_F_REPLACE, m.links[i].index, neighbor{address: address, mac: found.mac, kept: found.kept}, unix.NUD_PROBE)
	}
	return false, true, changeNeighbor(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE, m.links[i].index, neighbor{address: address, kept: found.kept}, 0)
}
