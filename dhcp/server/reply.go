package server

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
)

// broadcast is the address of all hosts on a link.
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// identifier is the address by which the server calls itself to a client with address a.
func (q *query) identifier(a netip.Addr) netip.Addr {
	if q.server.Address.IsValid() {
		return q.server.Address
	}
	for _, p := range q.server.Prefixes {
		if p.Contains(a) {
			return p.Addr()
		}
	}
	return q.server.Prefixes[0].Addr()
}

// reply sends an offer of a, or its lease.
func (c *core) reply(q *query, typ dhcp.Type, a netip.Addr) {
	m := q.answer(typ, a)
	m.Your = a
	m.Options.SetUint32(dhcp.OptionLeaseTime, uint32(q.leaseTime(a)/time.Second))
	c.tell(q, m, a)
	c.send(q, m, a)
}

// inform tells a client that has an address from elsewhere what it asks for.
func (c *core) inform(q *query) {
	a := q.msg.Client
	if a.IsUnspecified() || q.blocked() || !slices.ContainsFunc(q.subnets, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return
	}
	m := q.answer(dhcp.ACK, a)
	m.Client = a
	c.tell(q, m, a)
	c.send(q, m, netip.Addr{})
}

// refuse tells a client that it cannot have the address that it asks for.
func (c *core) refuse(q *query) {
	m := q.answer(dhcp.NAK, netip.Addr{})
	m.Client = netip.Addr{}
	if q.relayed {
		m.Flags |= dhcp.FlagBroadcast // its address is none (RFC 2131 4.3.2)
	}
	c.send(q, m, broadcast)
}

// answer is a reply without what depends on the client's address.
func (q *query) answer(typ dhcp.Type, a netip.Addr) *dhcp.Message {
	m := &dhcp.Message{Op: dhcp.BootReply, XID: q.msg.XID, Flags: q.msg.Flags, Relay: q.msg.Relay, HardwareType: 1, Hardware: q.msg.Hardware}
	if typ == dhcp.ACK {
		m.Client = q.msg.Client
	}
	m.Options.SetByte(dhcp.OptionType, byte(typ))
	m.Options.SetAddrs(dhcp.OptionServerID, q.identifier(a))
	return m
}

// tell puts into m what clients with address a are told.
func (c *core) tell(q *query, m *dhcp.Message, a netip.Addr) {
	var best *PlanNetwork
	for i := range c.plan.Networks {
		if n := &c.plan.Networks[i]; n.Prefix.Contains(a) && (best == nil || n.Prefix.Bits() > best.Prefix.Bits()) {
			best = n
		}
	}
	var options []PlanOption
	if best != nil {
		options, m.Next = best.Options, best.Next
	} else {
		for _, p := range q.subnets {
			if p.Contains(a) {
				options = []PlanOption{{dhcp.OptionSubnetMask, true, mask(p.Bits())}}
			}
		}
	}
	if q.static != nil {
		for _, o := range q.static.Options {
			options = override(options, o)
		}
	}
	asked, any := q.msg.Options.Get(dhcp.OptionParameters)
	for _, o := range options {
		if o.Force || !any || slices.Contains(asked, o.Code) {
			m.Options.Set(o.Code, o.Value)
		}
	}
}

// send sends m: to the relay, to an address that the client has, to the one that it gets (your), or
// to all (RFC 2131 4.1).
func (c *core) send(q *query, m *dhcp.Message, your netip.Addr) {
	if agent, ok := q.msg.Options.Get(dhcp.OptionRelayAgent); ok {
		m.Options.Set(dhcp.OptionRelayAgent, agent) // last (RFC 3046 2.1)
	}
	room := dhcp.MinMaxSize
	if n, ok := q.msg.Options.Uint16(dhcp.OptionMaxSize); ok {
		room = min(max(room, int(n)-28), dhcp.MaxMessage) // it counts the headers of IP and UDP
	}
	payload, err := m.Marshal(room)
	for errors.Is(err, dhcp.ErrTooLong) && len(m.Options) > essential {
		c.logRarely(lineTooLong, q.server.Name, "%s: the options are too long for %s: some are left out", q.server.Name, client(q.mac))
		m.Options = withoutLongest(m.Options)
		payload, err = m.Marshal(room)
	}
	if err != nil {
		return
	}
	p := dhcp.Packet{FromMAC: q.link.mac, ToMAC: ether.Broadcast, Payload: payload}
	to, port := broadcast, uint16(dhcp.ClientPort)
	wants := q.msg.Flags&dhcp.FlagBroadcast != 0 || q.server.Broadcast || q.static != nil && q.static.Broadcast
	switch {
	case q.relayed:
		// By the way that the request came.
		to, port, p.ToMAC = q.msg.Relay, dhcp.ServerPort, q.packet.FromMAC
	case q.behind:
		to, p.ToMAC = q.msg.Client, q.packet.FromMAC // also a refusal, which no broadcast takes there
	case your == broadcast:
	case !q.msg.Client.IsUnspecified():
		to, p.ToMAC = q.msg.Client, q.packet.FromMAC
	case !wants && your.IsValid():
		to, p.ToMAC = your, q.mac
	}
	identifier := m.Options.Addr(dhcp.OptionServerID)
	p.From, p.To = netip.AddrPortFrom(identifier, dhcp.ServerPort), netip.AddrPortFrom(to, port)
	q.link.udp(p.Append(nil))
}

// essential are how many options at the beginning of a reply are never left out: the type, the
// server, the time.
const essential = 3

// withoutLongest leaves out the longest option.
func withoutLongest(all dhcp.Options) dhcp.Options {
	longest := essential
	for i, o := range all {
		if i > essential && o.Code != dhcp.OptionRelayAgent && (len(o.Value) > len(all[longest].Value) || all[longest].Code == dhcp.OptionRelayAgent) {
			longest = i
		}
	}
	return slices.Delete(all, longest, longest+1)
}
