package server

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/match"
)

// core is the servers of a Plan. Its methods may be called from several goroutines.
type core struct {
	// logf writes a line to the log.
	logf func(format string, args ...any)
	// changed is called when there is something for changes; it does not wait.
	changed func()

	mu    sync.Mutex
	plan  Plan
	links map[int]*link
	table table
	// wake drops what has expired, at wakeAt.
	wake   *time.Timer
	wakeAt time.Time
	quiet  map[string]*quiet
}

// link is an interface, by its index.
type link struct {
	index int
	mac   ether.MAC
	// udp and arp send frames. They do not wait.
	udp, arp func(frame []byte)
}

// quiet counts the lines of one kind that were not written.
type quiet struct {
	at   time.Time
	left int
}

// quietTime is the least time between two lines of one kind.
const quietTime = 10 * time.Minute

// The kinds of lines that clients can cause at will.
const (
	lineExhausted = "exhausted"
	lineFull      = "full"
	lineConflict  = "conflict"
	lineDeclined  = "declined"
	lineReserved  = "reserved"
	lineTooLong   = "too long"
)

func newCore(logf func(format string, args ...any), changed func()) *core {
	return &core{logf: logf, changed: changed, links: map[int]*link{}, table: newTable(), quiet: map[string]*quiet{}}
}

// logRarely writes a line, unless there was one of that kind and server a short while ago.
func (c *core) logRarely(kind, server, format string, args ...any) {
	key := kind + " " + server
	q := c.quiet[key]
	if q == nil {
		q = &quiet{}
		c.quiet[key] = q
	}
	if !q.at.IsZero() && time.Since(q.at) < quietTime {
		q.left++
		return
	}
	if q.left > 0 {
		format += " (and %d times more before)"
		args = append(args, q.left)
	}
	q.at, q.left = time.Now(), 0
	c.logf(format, args...)
}

// stop ends all timers.
func (c *core) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wake != nil {
		c.wake.Stop()
	}
	for _, e := range c.table.entries {
		if e.timer != nil {
			e.timer.Stop()
		}
	}
}

// setPlan makes p what is served. Leases stay: those that do not fit p are refused when they are to
// be renewed.
func (c *core) setPlan(p Plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plan = p
	clear(c.quiet)
	clear(c.table.clients)
	for _, e := range c.table.entries {
		if e.key == "" {
			continue
		}
		if !slices.ContainsFunc(p.Servers, func(s PlanServer) bool { return s.Name == e.Server }) {
			// Its server has another name now, perhaps.
			i := slices.IndexFunc(p.Servers, func(s PlanServer) bool {
				return len(within(s.Ranges, []netip.Prefix{netip.PrefixFrom(e.Address, 32)})) > 0
			})
			if i >= 0 {
				e.Server = p.Servers[i].Name
				c.table.dirty[e.Address] = true
			}
		}
		// Its client may have a static lease now, or none any more.
		e.key = c.clientKey(e.Server, e.MAC, e.ClientID)
		keep := e
		if other := c.table.clients[e.key]; other != nil {
			// A machine that had two leases is one client now. It keeps the address that is its own.
			drop := other
			if l := p.static(e.Server, e.MAC, e.ClientID); l == nil || l.Address != e.Address {
				keep, drop = other, e
			}
			c.table.drop(drop)
		}
		c.table.clients[e.key] = keep
	}
	c.settle()
}

// setLink adds an interface, or replaces it; one without udp is gone.
func (c *core) setLink(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.udp == nil {
		delete(c.links, l.index)
	} else {
		c.links[l.index] = l
	}
}

// restore adds leases of before the start. Those that are there already stay.
func (c *core) restore(all []Binding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range all {
		key := c.clientKey(b.Server, b.MAC, b.ClientID)
		if len(c.table.entries) >= MaxLeases || c.table.entries[b.Address] != nil || c.table.clients[key] != nil || b.Left <= 0 {
			continue
		}
		b.Status = Bound
		c.table.add(&entry{Binding: b, key: key, expires: time.Now().Add(b.Left)})
		delete(c.table.dirty, b.Address) // who says so knows
	}
	c.settle()
}

// remove forgets leases.
func (c *core) remove(all []netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range all {
		if e := c.table.entries[a]; e != nil {
			c.table.drop(e)
		}
	}
	c.settle()
}

// atRest reports whether a process that begins anew, with restore, would know all that c does:
// nothing has changed since the last call of changes, and no address is being tested, offered or
// avoided.
func (c *core) atRest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.table.entries {
		if e.Status != Bound {
			return false
		}
	}
	return len(c.table.dirty) == 0
}

// changes are what has changed since the last call.
func (c *core) changes() []Change {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.table.changes(time.Now())
}

// settle drops what has expired, has itself called when the next entry does, and tells of changes.
// The caller holds mu.
func (c *core) settle() {
	next := c.table.expire(time.Now())
	if !next.IsZero() && (c.wakeAt.IsZero() || next.Before(c.wakeAt)) {
		if c.wake != nil {
			c.wake.Stop()
		}
		c.wakeAt = next
		c.wake = time.AfterFunc(time.Until(next), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.wakeAt = time.Time{}
			c.settle()
		})
	}
	if len(c.table.dirty) > 0 {
		c.changed()
	}
}

// query is a client's message, with what the server knows of it.
type query struct {
	server *PlanServer
	link   *link
	packet dhcp.Packet
	msg    *dhcp.Message
	mac    ether.MAC
	id     string // of the client, bytes; "" if it gives none
	key    string
	// subnets are those that the client can have an address of.
	subnets []netip.Prefix
	// relayed is set if a relay has passed the message on; behind if the client is in a relay's network, whether or
	// not the relay did: a renewal and a release come from the client itself (RFC 2131 4.4.5, 4.4.6).
	relayed, behind bool
	static          *PlanLease
}

// clientKey identifies a client of a server: by its hardware address and its identifier, as RouterOS does. One identifier
// may be that of several machines, as that of virtual ones that are copies, and one machine has several identifiers, as
// its ROM and what it starts. A machine whose address is reserved for its hardware address is one client, whichever of
// its identifiers it gives.
func (c *core) clientKey(server string, mac ether.MAC, id string) string {
	if l := c.plan.static(server, mac, id); l != nil && l.ClientID == "" && l.Address.IsValid() {
		id = ""
	}
	return server + " " + string(mac[:]) + id
}

// static returns the static lease of a client of a server; nil if there is none. One with the client's identifier stands
// before one without.
func (p *Plan) static(server string, mac ether.MAC, id string) (found *PlanLease) {
	for i := range p.Leases {
		l := &p.Leases[i]
		if (l.Server == "" || l.Server == server) && (l.MAC == ether.MAC{} || l.MAC == mac) && (l.ClientID == "" || l.ClientID == id) &&
			(found == nil || l.ClientID != "") {
			found = l
		}
	}
	return found
}

// receive takes a packet that came by an interface.
func (c *core) receive(index int, p dhcp.Packet) {
	m, err := dhcp.Parse(p.Payload)
	if err != nil || m.Op != dhcp.BootRequest || m.HardwareType != 1 || len(m.Hardware) != 6 || m.Hardware[0]&1 != 0 {
		return
	}
	p.Payload = nil // whose memory is the next packet's
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.query(index, p, m)
	if q == nil {
		return
	}
	c.table.expire(time.Now())
	switch m.Options.Type() {
	case dhcp.Discover:
		c.discover(q)
	case dhcp.Request:
		c.request(q)
	case dhcp.Decline:
		c.decline(q)
	case dhcp.Release:
		if e := c.table.clients[q.key]; e != nil && e.Address == m.Client && e.Status == Bound {
			c.table.drop(e)
		}
	case dhcp.Inform:
		c.inform(q)
	}
	c.settle()
}

// query finds the server that a message is for, nil if there is none.
func (c *core) query(index int, p dhcp.Packet, m *dhcp.Message) *query {
	q := &query{link: c.links[index], packet: p, msg: m, mac: ether.MAC(m.Hardware)}
	if q.link == nil {
		return nil
	}
	q.relayed = m.Relay.IsValid() && !m.Relay.IsUnspecified()
	// near is an address in the network that the client is in, if that is not the interface's.
	near := m.Relay
	if far := c.farClient(q); q.relayed || far.IsValid() {
		q.behind = true
		if !q.relayed {
			near = far
		}
	}
	holder, best := c.table.entries[near], 0
	for i := range c.plan.Servers {
		s, rank := &c.plan.Servers[i], 0
		direct := !s.Relay.IsValid()
		switch {
		case s.Link != index || direct == q.behind:
		case direct || s.Relay == near:
			rank = 4
		case !q.relayed && holder != nil && holder.Server == s.Name:
			rank = 3
		case !q.relayed && c.sameNetwork(s.Relay, near):
			rank = 2
		case s.Relay == AnyRelay:
			rank = 1
		}
		if rank > best {
			q.server, best = s, rank
		}
	}
	if q.server == nil {
		return nil
	}
	if q.behind {
		q.subnets = c.networksOf(near)
	} else {
		for _, p := range q.server.Prefixes {
			q.subnets = append(q.subnets, p.Masked())
		}
	}
	if id, _ := m.Options.Get(dhcp.OptionClientID); len(id) <= MaxClientID {
		q.id = string(id)
	}
	q.key, q.static = c.clientKey(q.server.Name, q.mac, q.id), c.plan.static(q.server.Name, q.mac, q.id)
	return q
}

// farClient returns the address of a client behind a relay that sends a message to the server itself, and the zero
// Addr if q is of another. It is one that has an address, which no server of the interface gives to hosts there. What
// comes by broadcast is of a host on the link, which may have come from such a network.
func (c *core) farClient(q *query) netip.Addr {
	a, to := q.msg.Client, q.packet.To.Addr()
	if q.relayed || !a.IsValid() || a.IsUnspecified() || !to.IsValid() || to == broadcast {
		return netip.Addr{}
	}
	far := false
	for _, s := range c.plan.Servers {
		if s.Link != q.link.index {
			continue
		}
		if slices.ContainsFunc(s.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return netip.Addr{}
		}
		far = far || s.Relay == AnyRelay || s.Relay.IsValid() && c.sameNetwork(s.Relay, a)
	}
	if !far || len(c.networksOf(a)) == 0 {
		return netip.Addr{}
	}
	return a
}

// networksOf are the networks that an address is in.
func (c *core) networksOf(a netip.Addr) []netip.Prefix {
	var all []netip.Prefix
	for _, n := range c.plan.Networks {
		if n.Prefix.Contains(a) {
			all = append(all, n.Prefix)
		}
	}
	return all
}

// sameNetwork reports whether one network has both addresses.
func (c *core) sameNetwork(a, b netip.Addr) bool {
	return slices.ContainsFunc(c.networksOf(a), func(p netip.Prefix) bool { return p.Contains(b) })
}

func (q *query) blocked() bool { return q.static != nil && q.static.Block }

// authoritative reports whether the server speaks for all addresses of the network.
func (q *query) authoritative() bool { return q.server.After >= 0 && q.asked() >= q.server.After }

// asked is how long the client says that it has been asking.
func (q *query) asked() time.Duration { return time.Duration(q.msg.Secs) * time.Second }

// usable reports whether the client may have an address, if nobody else has it.
func (c *core) usable(q *query, a netip.Addr) bool {
	if !slices.ContainsFunc(q.subnets, func(p netip.Prefix) bool { return p.Contains(a) && match.NotHost(netip.PrefixFrom(a, p.Bits())) == "" }) {
		return false
	}
	for _, s := range c.plan.Servers {
		if slices.ContainsFunc(s.Prefixes, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return false
		}
	}
	if q.static != nil && q.static.Address.IsValid() {
		if a == q.static.Address {
			return true
		}
		if c.reservedIsFree(q) {
			return false // its own address is there for it
		}
	}
	reserved := slices.ContainsFunc(c.plan.Leases, func(l PlanLease) bool {
		return l.Address == a && (l.Server == "" || l.Server == q.server.Name)
	})
	return !reserved && slices.ContainsFunc(q.server.Ranges, func(r match.Addresses) bool { return r.Match(a) })
}

// reservedIsFree reports whether the client can have the address that is reserved for it.
func (c *core) reservedIsFree(q *query) bool {
	e := c.table.entries[q.static.Address]
	return (e == nil || e.key == q.key) && slices.ContainsFunc(q.subnets, func(p netip.Prefix) bool { return p.Contains(q.static.Address) })
}

// choose returns a free address for the client.
func (c *core) choose(q *query) (netip.Addr, bool) {
	free := func(a netip.Addr) bool { return c.table.entries[a] == nil && c.usable(q, a) }
	if q.static != nil && q.static.Address.IsValid() {
		if free(q.static.Address) {
			return q.static.Address, true
		}
		if e := c.table.entries[q.static.Address]; e != nil {
			c.logRarely(lineReserved, q.server.Name, "%s: %s is reserved for %s, and %s has it: another address is offered for now",
				q.server.Name, q.static.Address, client(q.mac), client(e.MAC))
		}
	}
	if a := q.msg.Options.Addr(dhcp.OptionRequested); a.IsValid() && free(a) {
		return a, true
	}
	ranges := within(q.server.Ranges, q.subnets)
	most := len(c.table.entries) + len(c.plan.Leases) + 2*len(q.subnets) + len(c.plan.Servers) + 1
	return search(ranges, q.key[len(q.server.Name):], most+reserve, free)
}

// reserve is for addresses of the router's own.
const reserve = 64

// forgetConflict drops the address of the pool that was found in use the longest time ago: it may
// be free by now, and it is tested again.
func (c *core) forgetConflict(q *query) bool {
	var oldest *entry
	for _, e := range c.table.entries {
		if e.key == "" && (oldest == nil || e.expires.Before(oldest.expires)) && c.usable(q, e.Address) {
			oldest = e
		}
	}
	if oldest == nil || !q.server.Probe {
		return false
	}
	c.table.drop(oldest)
	return true
}

func (c *core) discover(q *query) {
	if q.blocked() || q.asked() < q.server.Delay {
		return
	}
	e := c.table.clients[q.key]
	if e != nil && !c.usable(q, e.Address) {
		c.table.drop(e)
		e = nil
	}
	if e != nil {
		switch e.Status {
		case Testing:
			e.waiting = q // its newest one
			return
		case Offered:
			e.expires = time.Now().Add(offerTime)
		}
		c.reply(q, dhcp.Offer, e.Address)
		return
	}
	c.offer(q)
}

// offer offers an address to a client that has none.
func (c *core) offer(q *query) {
	a, ok := c.choose(q)
	if !ok && c.forgetConflict(q) {
		a, ok = c.choose(q)
	}
	switch {
	case !ok && len(q.server.Ranges) == 0:
		return // it serves the clients of static leases only
	case !ok:
		c.logRarely(lineExhausted, q.server.Name, "%s: no address is free for %s: the pool is exhausted", q.server.Name, client(q.mac))
		return
	case len(c.table.entries) >= MaxLeases:
		c.logRarely(lineFull, q.server.Name, "%s: no address for %s: there are %d leases and offers, and can be no more", q.server.Name, client(q.mac), MaxLeases)
		return
	}
	e := &entry{Binding: Binding{Address: a, MAC: q.mac, ClientID: q.id, HostName: hostName(q.msg), Server: q.server.Name, Status: Offered},
		key: q.key, expires: time.Now().Add(offerTime)}
	// A relay's network cannot be asked by ARP.
	if q.server.Probe && !q.server.Relay.IsValid() && q.link.arp != nil {
		e.Status, e.waiting = Testing, q
		c.test(e, probes)
		c.table.add(e)
		return
	}
	c.table.add(e)
	c.reply(q, dhcp.Offer, a)
}

// An address is asked for twice, and counts as free when nobody has answered. A host of a LAN answers
// within some milliseconds, and every new client waits so long before it gets an offer.
const (
	probes    = 2
	probeTime = 100 * time.Millisecond
)

// test asks for the address of e by ARP, so often, and offers it then.
func (c *core) test(e *entry, more int) {
	l := e.waiting.link
	l.arp(dhcp.Probe(l.mac, e.Address).Append(nil))
	end := time.Now().Add(probeTime)
	e.timer = time.AfterFunc(probeTime, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.table.entries[e.Address] != e || e.Status != Testing {
			return
		}
		// Where the whole process stood still, an answer may wait to be read: three times more at most.
		late := time.Since(end) > probeTime/2 && more > -2
		if more > 1 || late {
			c.test(e, more-1)
			return
		}
		q := e.waiting
		e.Status, e.waiting, e.timer, e.expires = Offered, nil, nil, time.Now().Add(offerTime)
		c.table.dirty[e.Address] = true
		c.reply(q, dhcp.Offer, e.Address)
		c.settle()
	})
}

// receiveARP takes an ARP packet that came by an interface.
func (c *core) receiveARP(index int, a dhcp.ARP) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, address := range []netip.Addr{a.Sender, a.Target} {
		e := c.table.entries[address]
		l := c.links[index]
		if e == nil || l == nil || e.Status != Testing || e.waiting.link.index != index || a.SenderMAC == e.MAC || !a.Has(address, l.mac) {
			continue
		}
		q := e.waiting
		c.logRarely(lineConflict, q.server.Name, "%s: %s has %s without a lease: another address is offered", q.server.Name, client(a.SenderMAC), address)
		c.inUse(e, Conflict, a.SenderMAC)
		c.offer(q)
		c.settle()
		return
	}
}

// inUse makes e an address that is left alone for a while, because somebody else has it.
func (c *core) inUse(e *entry, status Status, mac ether.MAC) {
	c.table.drop(e)
	c.table.add(&entry{Binding: Binding{Address: e.Address, MAC: mac, Server: e.Server, Status: status}, expires: time.Now().Add(conflictTime)})
}

func (c *core) request(q *query) {
	id, chosen := q.msg.Options.Get(dhcp.OptionServerID)
	want := q.msg.Options.Addr(dhcp.OptionRequested)
	e := c.table.clients[q.key]
	switch {
	case chosen && !c.isServer(q, id):
		// It takes another server's offer.
		if e != nil && (e.Status == Offered || e.Status == Testing) {
			c.table.drop(e)
		}
		return
	case want.IsValid() && !want.IsUnspecified():
	case !chosen && !q.msg.Client.IsUnspecified():
		want = q.msg.Client
	default:
		return
	}
	holder := c.table.entries[want]
	switch {
	case q.blocked(), !c.usable(q, want), holder != nil && holder.key != q.key:
		// A reserved address that another client holds is that client's until it asks for more time.
		if chosen || q.authoritative() {
			c.refuse(q)
			if e != nil && e.Address == want {
				c.table.drop(e) // for whoever it is reserved for; it is tested before it is offered
			}
		}
		return
	case holder == nil && !chosen && !q.authoritative():
		return // another server may know of it
	case holder == nil && e == nil && len(c.table.entries) >= MaxLeases:
		c.logRarely(lineFull, q.server.Name, "%s: no address for %s: there are %d leases and offers, and can be no more", q.server.Name, client(q.mac), MaxLeases)
		return
	}
	if e != nil && e.Address != want {
		c.table.drop(e)
		e = nil
	}
	if e == nil {
		e = &entry{Binding: Binding{Address: want}, key: q.key}
	}
	if e.timer != nil {
		e.timer.Stop()
	}
	e.timer, e.waiting = nil, nil
	e.MAC, e.ClientID, e.Server, e.Status = q.mac, q.id, q.server.Name, Bound
	if name := hostName(q.msg); name != "" {
		e.HostName = name
	}
	e.expires = time.Now().Add(q.leaseTime(want))
	c.table.add(e)
	c.reply(q, dhcp.ACK, want)
}

// isServer reports whether an identifier is that of the server.
func (c *core) isServer(q *query, id []byte) bool {
	a, ok := netip.AddrFromSlice(id)
	return ok && (a == q.server.Address || slices.ContainsFunc(q.server.Prefixes, func(p netip.Prefix) bool { return p.Addr() == a }))
}

func (c *core) decline(q *query) {
	id, _ := q.msg.Options.Get(dhcp.OptionServerID)
	e := c.table.clients[q.key]
	if e == nil || e.Address != q.msg.Options.Addr(dhcp.OptionRequested) || !c.isServer(q, id) || e.Status == Testing {
		return
	}
	c.logRarely(lineDeclined, q.server.Name, "%s: %s says that somebody else has %s", q.server.Name, client(q.mac), e.Address)
	c.inUse(e, Declined, ether.MAC{})
}

// leaseTime is how long the client gets an address for.
func (q *query) leaseTime(a netip.Addr) time.Duration {
	d := q.server.LeaseTime
	if q.static == nil {
		return d
	}
	if a != q.static.Address {
		return min(d, temporaryTime)
	}
	if q.static.LeaseTime > 0 {
		d = q.static.LeaseTime
	}
	return d
}

// hostName is what a client calls itself.
func hostName(m *dhcp.Message) string {
	name := m.Options.Text(dhcp.OptionHostName)
	return name[:min(len(name), maxHostName)]
}

func client(mac ether.MAC) string { return strings.ToUpper(mac.String()) }
