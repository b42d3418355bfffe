// Package client is a DHCP client (RFC 2131): it gets an address for an interface, and keeps it. It
// promises:
//   - An address that somebody else on the link has is not taken (RFC 5227), and given back.
//   - What a server says is checked before anybody is told of it: Lease holds only addresses that a
//     host, a gateway and a server can have, and a bounded number of them.
//   - It never gives up. It asks more and more seldom, at least once a minute, and at once when the
//     link comes up.
//   - A renewal of the same lease changes nothing for who uses the address.
//   - A process that is started again goes on with a lease where it is (Settings.Lease): while nothing is
//     due there need be none.
//   - Whoever sends packets on the link costs no more than reading them: answers count only with the
//     number of the question, a refusal only from a server that may refuse, and each further refusal
//     in a row makes the client wait longer.
//
// A client has packet sockets of PID 1's making, one for UDP to port 68 and one for ARP, and sends
// its own frames: also a renewal, to the hardware address that the lease came from. So it works
// behind a relay and with a server outside of the subnet, and needs no address and no route of the
// kernel.
package client

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/kmsg"
)

// Status is what a client does, in RouterOS's words.
type Status string

// What a client can be doing.
const (
	Stopped    Status = "stopped"
	Searching  Status = "searching..."
	Requesting Status = "requesting..."
	Bound      Status = "bound"
	Renewing   Status = "renewing..."
	Rebinding  Status = "rebinding..."
)

var statuses = []Status{Stopped, Searching, Requesting, Bound, Renewing, Rebinding}

// Settings are what a client says of itself.
type Settings struct {
	MAC ether.MAC
	// HostName is option 12; none is sent if it is empty.
	HostName string
	// ClientID sends 01 and the hardware address as option 61.
	ClientID bool
	// Previous is the address of a lease that may still hold, from Server; the zero Addr if there
	// is none. The client asks for it first (INIT-REBOOT).
	Previous netip.Addr
	// Lease is a lease that the client goes on with where a process before left it (BOUND, RENEWING
	// or REBINDING, by the time that it is), nil if there is none. Previous does not count then.
	Lease *Lease
}

const (
	firstWait = 2 * time.Second // for an answer; doubled for each further try
	longWait  = time.Minute
	// requestTries is how often an offer, or a previous address, is asked for.
	requestTries = 4
	// renewWait is the least pause between two tries to renew (RFC 2131 4.4.5); less if the lease
	// is short.
	renewWait = time.Minute
	// declineWait is the pause after an address that somebody had (RFC 2131 3.1.5).
	declineWait = 10 * time.Second
	// probes are sent for a new address, probeWait apart. RFC 5227 has seconds: a household that
	// is switched on waits for this.
	probes    = 2
	probeWait = 250 * time.Millisecond
)

// saidLines is how many lines go to the log: whoever is on the link can cause them.
var saidLines = kmsg.Limit{Burst: 20, Pause: 10 * time.Minute}

// received is a message from a server.
type received struct {
	message *dhcp.Message
	from    ether.MAC // of the frame
}

// wires is what a client sends and gets. Nothing of it waits but for probe.
type wires struct {
	// send sends a message to everybody, or if to is not nil to this server.
	send func(m *dhcp.Message, from netip.Addr, to *hop)
	// in has answers to the message with the number that expect was told last.
	in     <-chan received
	expect func(xid uint32)
	// probe reports whether somebody else on the link has an address.
	probe func(ctx context.Context, address netip.Addr) bool
}

// hop is where a message to a server goes.
type hop struct {
	mac    ether.MAC
	server netip.Addr
}

// Event is something that the client is told.
type Event int

// What a client can be told.
const (
	LinkUp  Event = iota // the link came up: the client asks whether its lease holds
	Renew                // to renew the lease now
	Release              // to give the lease back, and to look for one anew
	leave                // gives the lease back and ends
)

// client is a client of one interface.
type client struct {
	settings Settings
	wires
	events <-chan Event
	// report is told each change: what the client does, and its lease. keep says that a lease which
	// PID 1 has for the interface still holds. seen is how many events the client has taken: what it
	// reports is what came of them.
	report func(s Status, l *Lease, keep bool, seen uint64)
	logf   func(format string, args ...any)

	status  Status
	lease   *Lease
	started time.Time
	// asked is when the last message was sent.
	asked time.Time
	// refusals is how many refusals came in a row.
	refusals int
	// seen is how many events it has taken.
	seen uint64
	// keep is set until it is known whether Previous holds.
	keep bool
	// left is set when the client has left.
	left bool
	// lines are those of saidLines, since began.
	lines kmsg.Limit
	began time.Time
}

// say writes a line to the log, if there were not too many.
func (c *client) say(format string, args ...any) {
	dropped, passes := c.lines.Pass(time.Since(c.began))
	if !passes {
		return
	}
	if dropped > 0 {
		c.logf("%d lines left out", dropped)
	}
	c.logf(format, args...)
}

func (c *client) set(s Status) {
	c.status = s
	c.report(s, c.lease, c.keep, c.seen)
}

// step is what comes next.
type step func(context.Context) step

// run runs the client until ctx is done. The lease is not given back: see giveBack.
func (c *client) run(ctx context.Context) {
	c.lines, c.began = saidLines, time.Now()
	next := c.discover
	switch {
	case c.settings.Lease != nil:
		c.lease = c.settings.Lease
		c.settings.Previous = c.lease.Address.Addr()
		next = c.hold
	case c.settings.Previous.IsValid():
		c.keep = true
		next = c.reboot
	}
	for next != nil && ctx.Err() == nil && !c.left {
		next = next(ctx)
	}
}

// wake is why a wait has ended.
type wake struct {
	answer *received
	event  Event
	what   int // answered, happened, late or ended
}

const (
	late = iota
	answered
	happened
	ended
)

func (c *client) wait(ctx context.Context, d time.Duration) wake {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return wake{what: ended}
	case r := <-c.in:
		return wake{what: answered, answer: &r}
	case e := <-c.events:
		c.seen++
		if e == leave {
			c.giveBack()
			c.left = true
			return wake{what: ended}
		}
		return wake{what: happened, event: e}
	case <-timer.C:
		return wake{what: late}
	}
}

// pause waits without listening, but for events.
func (c *client) pause(ctx context.Context, d time.Duration) {
	until := time.Now().Add(d)
	for {
		w := c.wait(ctx, time.Until(until))
		if w.what != answered {
			return
		}
	}
}

// spread makes a time that differs by up to a tenth, so that clients which were switched on
// together do not ask together (RFC 2131 4.1).
func spread(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// question makes a message with a new number.
func (c *client) question(t dhcp.Type) *dhcp.Message {
	mac := c.settings.MAC
	m := &dhcp.Message{Op: dhcp.BootRequest, XID: rand.Uint32(), HardwareType: 1, Hardware: mac[:]}
	m.Options.SetByte(dhcp.OptionType, byte(t))
	if c.settings.ClientID {
		m.Options.Set(dhcp.OptionClientID, c.settings.identifier())
	}
	if t == dhcp.Discover || t == dhcp.Request {
		if c.settings.HostName != "" {
			m.Options.Set(dhcp.OptionHostName, []byte(c.settings.HostName))
		}
		m.Options.Set(dhcp.OptionMaxSize, []byte{byte(dhcp.MaxMessage >> 8), byte(dhcp.MaxMessage & 0xFF)})
		// 121 stands before 3 (RFC 3442).
		m.Options.Set(dhcp.OptionParameters, []byte{dhcp.OptionSubnetMask, dhcp.OptionClasslessRoutes, dhcp.OptionRouter,
			dhcp.OptionNameServers, dhcp.OptionDomain, dhcp.OptionStaticRoutes, dhcp.OptionNTPServers, dhcp.OptionVendor, dhcp.OptionCAPWAP})
		if !c.started.IsZero() {
			m.Secs = uint16(min(time.Since(c.started)/time.Second, 65535))
		}
	}
	c.expect(m.XID)
	c.drain()
	return m
}

func (c *client) transmit(m *dhcp.Message, from netip.Addr, to *hop) {
	c.asked = time.Now()
	c.send(m, from, to)
}

// drain drops answers to earlier questions.
func (c *client) drain() {
	for {
		select {
		case <-c.in:
		default:
			return
		}
	}
}

// discover looks for a server, until there is one.
func (c *client) discover(ctx context.Context) step {
	c.lease = nil
	c.started = time.Now()
	c.set(Searching)
	if c.refusals > 1 {
		c.pause(ctx, min(firstWait<<min(c.refusals-2, 5), longWait))
		if c.left {
			return nil
		}
	}
	m := c.question(dhcp.Discover)
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		m.Secs = uint16(min(time.Since(c.started)/time.Second, 65535))
		c.transmit(m, netip.IPv4Unspecified(), nil)
		for until := time.Now().Add(spread(wait)); ; {
			w := c.wait(ctx, time.Until(until))
			switch {
			case w.what == ended:
				return nil
			case w.what == happened:
				// The link came up, or a person wants it now.
				return c.discover
			case w.what == answered && w.answer.message.Options.Type() == dhcp.Offer:
				l, err := readLease(w.answer.message, c.asked)
				if err != nil {
					c.say("an offer of %s was not taken: %v", w.answer.message.Options.Addr(dhcp.OptionServerID), err)
					continue
				}
				return func(ctx context.Context) step { return c.request(ctx, l) }
			case w.what == late:
			default:
				continue
			}
			break
		}
	}
}

// request asks for what was offered.
func (c *client) request(ctx context.Context, offer *Lease) step {
	c.set(Requesting)
	m := c.question(dhcp.Request)
	m.Options.SetAddrs(dhcp.OptionRequested, offer.Address.Addr())
	m.Options.SetAddrs(dhcp.OptionServerID, offer.Server)
	return c.ask(ctx, m, netip.IPv4Unspecified(), offer.Server, c.discover)
}

// reboot asks whether the address from before still holds (RFC 2131 3.2). A server that is silent
// does not know: another may be found.
func (c *client) reboot(ctx context.Context) step {
	address := c.settings.Previous
	if c.lease != nil {
		address = c.lease.Address.Addr()
	}
	c.started = time.Now()
	c.set(Requesting)
	m := c.question(dhcp.Request)
	m.Options.SetAddrs(dhcp.OptionRequested, address)
	otherwise := c.discover
	if c.lease != nil {
		otherwise = c.hold // it holds for as long as it was given
	}
	return c.ask(ctx, m, netip.IPv4Unspecified(), netip.Addr{}, otherwise)
}

// ask sends a request until it is answered, requestTries times. server is whose answer counts; the
// zero Addr is anybody's.
func (c *client) ask(ctx context.Context, m *dhcp.Message, from, server netip.Addr, otherwise step) step {
	wait := firstWait
	for range requestTries {
		c.transmit(m, from, nil)
		for until := time.Now().Add(spread(wait)); ; {
			w := c.wait(ctx, time.Until(until))
			switch w.what {
			case ended:
				return nil
			case happened:
				return c.happen(w.event, otherwise)
			case answered:
				if next := c.answer(ctx, w.answer, server); next != nil {
					return next
				}
				continue
			}
			break
		}
		wait *= 2
	}
	return otherwise
}

// happen is what comes next when something has happened while there is no lease, or one of before.
func (c *client) happen(e Event, otherwise step) step {
	if e == Release {
		c.giveBack()
		return c.discover
	}
	if c.lease != nil {
		return c.reboot
	}
	return otherwise
}

// answer takes an answer to a request, and returns what comes next; nil if it says nothing.
func (c *client) answer(ctx context.Context, r *received, server netip.Addr) step {
	id := r.message.Options.Addr(dhcp.OptionServerID)
	if server.IsValid() && id != server {
		return nil
	}
	switch r.message.Options.Type() {
	case dhcp.NAK:
		c.refusals++
		c.keep = false
		text := r.message.Options.Text(dhcp.OptionMessage)
		if text != "" {
			text = ": " + text[:min(len(text), 80)]
		}
		c.say("%s refuses the address%s", id, text)
		return c.discover
	case dhcp.ACK:
		l, err := readLease(r.message, c.asked)
		if err != nil {
			c.say("an answer of %s was not taken: %v", id, err)
			return nil
		}
		l.ServerMAC = r.from
		return func(ctx context.Context) step { return c.bind(ctx, l) }
	}
	return nil
}

// bind takes a lease. An address that is new is probed first.
func (c *client) bind(ctx context.Context, l *Lease) step {
	mine := c.lease != nil && c.lease.Address.Addr() == l.Address.Addr() || c.keep && c.settings.Previous == l.Address.Addr()
	if !mine && c.probe(ctx, l.Address.Addr()) {
		if ctx.Err() != nil {
			return nil
		}
		c.say("%s is in use by another machine; it was given back", l.Address.Addr())
		m := c.question(dhcp.Decline)
		m.Options.SetAddrs(dhcp.OptionRequested, l.Address.Addr())
		m.Options.SetAddrs(dhcp.OptionServerID, l.Server)
		c.transmit(m, netip.IPv4Unspecified(), nil)
		c.lease, c.keep = nil, false
		c.set(Searching)
		c.pause(ctx, declineWait)
		return c.discover
	}
	c.keep = false
	c.settings.Previous = l.Address.Addr()
	c.lease = l
	return c.hold
}

// hold keeps a lease until it is time to renew it.
func (c *client) hold(ctx context.Context) step {
	now := time.Now()
	if !now.Before(c.lease.Expires) {
		return c.expire
	}
	if !now.Before(c.lease.Rebind) {
		return c.rebind
	}
	if !now.Before(c.lease.Renew) {
		return c.renew
	}
	c.set(Bound)
	if c.lease.Infinite {
		return c.idle(ctx, 365*24*time.Hour)
	}
	return c.idle(ctx, time.Until(c.lease.Renew))
}

// idle waits for so long, or for an event.
func (c *client) idle(ctx context.Context, d time.Duration) step {
	for until := time.Now().Add(d); ; {
		switch w := c.wait(ctx, time.Until(until)); w.what {
		case ended:
			return nil
		case late:
			if time.Since(c.lease.Since) >= longWait {
				c.refusals = 0
			}
			return c.hold
		case happened:
			switch w.event {
			case Renew:
				return c.renew
			case LinkUp:
				return c.reboot
			}
			return c.happen(w.event, c.hold)
		}
	}
}

// renew asks the server that gave the lease, rebind everybody, until the next deadline.
func (c *client) renew(ctx context.Context) step {
	to := c.lease.from()
	return c.extend(ctx, Renewing, &to, c.lease.Rebind, c.rebind)
}

func (c *client) rebind(ctx context.Context) step {
	return c.extend(ctx, Rebinding, nil, c.lease.Expires, c.expire)
}

func (c *client) extend(ctx context.Context, s Status, to *hop, deadline time.Time, otherwise step) step {
	c.started = time.Now()
	c.set(s)
	m := c.question(dhcp.Request)
	m.Client = c.lease.Address.Addr()
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return otherwise
		}
		m.Secs = uint16(min(time.Since(c.started)/time.Second, 65535))
		c.transmit(m, c.lease.Address.Addr(), to)
		least := max(min(renewWait, c.lease.Expires.Sub(c.lease.Since)/16), time.Second)
		for until := time.Now().Add(min(max(left/2, least), left)); ; {
			w := c.wait(ctx, time.Until(until))
			switch w.what {
			case ended:
				return nil
			case happened:
				if w.event == Renew {
					c.transmit(m, c.lease.Address.Addr(), to)
					continue
				}
				return c.happen(w.event, otherwise)
			case answered:
				// A server of several addresses may grant by another one. But only who gave the lease
				// was asked, so nobody else can refuse it.
				refusal := w.answer.message.Options.Type() == dhcp.NAK
				if to != nil && refusal && w.answer.message.Options.Addr(dhcp.OptionServerID) != to.server {
					continue
				}
				if next := c.answer(ctx, w.answer, netip.Addr{}); next != nil {
					return next
				}
				continue
			}
			break
		}
	}
}

// expire ends the lease.
func (c *client) expire(context.Context) step {
	c.say("the lease of %s has ended", c.lease.Address.Addr())
	return c.discover
}

// giveBack tells the server that the address is free again.
func (c *client) giveBack() {
	if c.lease == nil {
		return
	}
	m := c.question(dhcp.Release)
	m.Client = c.lease.Address.Addr()
	m.Options.SetAddrs(dhcp.OptionServerID, c.lease.Server)
	to := c.lease.from()
	c.transmit(m, c.lease.Address.Addr(), &to)
	c.lease, c.keep = nil, false
	c.settings.Previous = netip.Addr{}
}

// read reads a frame, and reports whether it can be an answer to the message of that number. sumReady is that of
// dhcp.ParsePacket.
func (s Settings) read(frame []byte, sumReady bool, xid uint32) (received, bool) {
	packet, err := dhcp.ParsePacket(frame, sumReady)
	if err != nil {
		return received{}, false
	}
	m, err := dhcp.Parse(packet.Payload)
	if err != nil || m.XID != xid || !s.fromServer(packet, m) {
		return received{}, false
	}
	return received{m, packet.FromMAC}, true
}

// fromServer reports whether a message can be an answer to the client. A server that repeats the
// client's identifier repeats it as it is (RFC 6842).
func (s Settings) fromServer(p dhcp.Packet, m *dhcp.Message) bool {
	id, has := m.Options.Get(dhcp.OptionClientID)
	if has && !(s.ClientID && slices.Equal(id, s.identifier())) {
		return false
	}
	return p.From.Port() == dhcp.ServerPort && m.Op == dhcp.BootReply && slices.Equal(m.Hardware, s.MAC[:])
}

// identifier is option 61: the type of the hardware address, and the address.
func (s Settings) identifier() []byte { return append([]byte{1}, s.MAC[:]...) }
