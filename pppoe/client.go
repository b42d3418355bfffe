package pppoe

import (
	"bytes"
	"cmp"
	cryptorand "crypto/rand"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/kmsg"
)

// Status is what a client does, in RouterOS's words.
type Status string

// What a client can be doing.
const (
	Disconnected Status = "disconnected"
	Dialing      Status = "dialing..."
	Verifying    Status = "verifying password..."
	Connected    Status = "connected"
	Terminating  Status = "terminating..."
)

var statuses = []Status{Disconnected, Dialing, Verifying, Connected, Terminating}

// Settings are what a client dials by.
type Settings struct {
	// MAC is the address of the interface that it dials over.
	MAC ether.MAC
	// Service and AC are the names of the service and of the access concentrator that are wanted;
	// "" is any.
	Service, AC    string
	User, Password string
	// MTU and MRU are the longest packets, in bytes, that are sent and received: 576..MaxMTU.
	MTU, MRU int
	// Allow are the ways in which the password may be proved.
	Allow Methods
	// Keepalive is from one echo to the next; with 0 there are none.
	Keepalive time.Duration
	// NameServers asks for the server's name servers.
	NameServers bool
	// Previous is a session of a client before, which is ended first: a server may allow one.
	Previous Session
}

// Link is what a server has given, checked.
type Link struct {
	Local netip.Addr
	// Remote is the server's end; the zero Addr if it did not tell.
	Remote netip.Addr
	// NameServers are at most two.
	NameServers []netip.Addr
	MTU, MRU    int
}

// valid reports whether l is what Link promises.
func (l *Link) valid() bool {
	return usable(l.Local) && (!l.Remote.IsValid() || usable(l.Remote)) && l.Remote != l.Local && len(l.NameServers) <= 2 &&
		!slices.ContainsFunc(l.NameServers, func(a netip.Addr) bool { return !usable(a) }) &&
		l.MTU >= minMTU && l.MTU <= MaxMTU && l.MRU >= minMTU && l.MRU <= 1500
}

func (l *Link) equal(o *Link) bool {
	return l.Local == o.Local && l.Remote == o.Remote && slices.Equal(l.NameServers, o.NameServers) && l.MTU == o.MTU && l.MRU == o.MRU
}

const (
	// firstWait is for the answer to a packet of the discovery; doubled for each further one.
	firstWait = time.Second
	longWait  = time.Minute
	// requestTries is how often a session is asked for.
	requestTries = 4
	// openTime is how long PID 1 may take to open a session in the kernel.
	openTime = 30 * time.Second
	// negotiationSlices are how many times negotiationSlice a server may take from the session to the
	// address. Time is counted so that a stall is no more than one of them.
	negotiationSlices = 20
	negotiationSlice  = 3 * time.Second
	// firstPause is from the end of a connection to the next try, doubled for each further failure
	// up to longWait; those for a password that was refused are longer: accounts are locked by who
	// tries too often.
	firstPause        = time.Second
	firstRefusedPause = 10 * time.Second
	longRefusedPause  = 5 * time.Minute
	// maxAnew is how often the server may begin anew within a session.
	maxAnew = 16
	// steady is after which time a connection counts as one that works.
	steady = time.Minute
	// maxMissed is after how many echoes without an answer the server is taken to be gone.
	maxMissed = 3
	// lostTime is how long the reason is waited for when the kernel has ended a session: the server's
	// PADT, which ends it there too, or PID 1, which may be about to end the client.
	lostTime = 2 * time.Second
	// leaveTime is how long the server may take to confirm the end, leaveTries how often it is told.
	leaveTime  = 500 * time.Millisecond
	leaveTries = 2
)

// errorLines is how many lines about errors that servers tell go to the log: whoever is on the link can send them.
var errorLines = kmsg.Limit{Burst: 10, Pause: 10 * time.Minute}

// phase is what a client waits for.
type phase int

const (
	waiting     phase = iota // until it dials again
	discovering              // for an offer
	requesting               // for a session
	opening                  // for PID 1
	running                  // for whatever comes by the session
	leaving                  // for the end to be confirmed
	left
)

// wires is what a client sends, and whom it tells. Nothing of it waits for the network.
type wires struct {
	// discover sends a frame, and control a packet of PPP over the session.
	discover, control func(frame []byte)
	// report tells PID 1. Its error ends the session.
	report func(Report) error
	logf   func(format string, args ...any)
}

// client is the machine of states of a client. Its methods are told what happens, and when; it has no
// clock, no goroutine and no socket.
type client struct {
	settings Settings
	wires

	phase    phase
	deadline time.Time // of the phase, except of running
	wait     time.Duration
	tries    int
	uniq     []byte    // by which answers are known
	offer    discovery // that a session was asked of
	session  Session
	ac       string
	service  string

	status Status
	reason string // why there is no connection
	link   *Link  // nil while there is no connection
	since  time.Time

	lcp       *lcp
	lcpState  automaton
	ipcp      *ipcp
	ipcpState automaton
	proof     proof
	id        byte // of other packets of LCP
	slices    int  // that are left for the negotiation
	sliceEnd  time.Time
	echoAt    time.Time
	missed    int
	noEcho    bool // the server does not know it
	// lostEnd is when a session ends that the kernel has ended; the zero Time if it has not.
	lostEnd  time.Time
	anew     int // how often the server has begun anew
	failures int
	refusals int
	// lines are those of errorLines, since began.
	lines kmsg.Limit
	began time.Time
}

func newClient(s Settings, w wires) *client {
	c := &client{settings: s, wires: w, lines: errorLines}
	c.proof = proof{user: s.User, password: s.Password, send: c.sendControl}
	return c
}

func (c *client) sendControl(protocol uint16, p packet) { c.control(p.frame(protocol)) }

// start begins to dial.
func (c *client) start(now time.Time) {
	c.began = now
	if c.settings.Previous.valid() {
		c.terminate(c.settings.Previous)
	}
	c.dial(now)
}

// terminate tells a server that a session has ended.
func (c *client) terminate(s Session) {
	d := discovery{to: s.Server, from: c.settings.MAC, code: codePADT, session: s.ID}
	c.discover(d.frame())
}

// set tells PID 1 what the client does.
func (c *client) set(now time.Time, s Status) {
	c.status = s
	r := Report{Status: s, Reason: c.reason, AC: c.ac, Service: c.service, Session: c.session}
	if c.link != nil {
		link := *c.link
		r.Link = &link
	}
	if err := c.report(r); err != nil && c.session != (Session{}) {
		c.end(now, err, true)
	}
}

// dial looks for an access concentrator.
func (c *client) dial(now time.Time) {
	c.phase, c.wait = discovering, firstWait
	c.uniq = make([]byte, 8)
	cryptorand.Read(c.uniq)
	c.ac, c.service = "", ""
	c.set(now, Dialing)
	c.look(now)
}

// look sends a PADI.
func (c *client) look(now time.Time) {
	c.discover(discovery{to: ether.Broadcast, from: c.settings.MAC, code: codePADI,
		tags: []tag{{tagServiceName, []byte(c.settings.Service)}, {tagHostUniq, c.uniq}}}.frame())
	c.deadline = now.Add(spread(c.wait))
	c.wait = min(2*c.wait, longWait)
}

// spread makes a time that differs by up to a tenth, so that clients which were switched on together
// do not dial together.
func spread(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }

// linkUp is told that the interface can send again.
func (c *client) linkUp(now time.Time) {
	if c.phase == discovering || c.phase == waiting && c.refusals == 0 {
		c.dial(now)
	}
}

// takeDiscovery takes a frame of the discovery.
func (c *client) takeDiscovery(now time.Time, frame []byte) {
	d, err := parseDiscovery(frame)
	if err != nil || d.to != c.settings.MAC || !d.from.IsHost() || d.from == c.settings.MAC {
		return
	}
	switch {
	case d.code == codePADT && c.session != Session{} && (Session{d.from, d.session}) == c.session:
		why := "the server has ended the session"
		if text, has := d.get(tagGenericError); has && printable(text) != "" {
			why += ": " + printable(text)
		} else if text := d.refusal(); text != "" {
			why += ": " + text
		}
		c.session = Session{} // the server need not be told
		c.end(now, errors.New(why), false)
	case d.code == codePADO && c.phase == discovering && d.has(tagHostUniq, c.uniq):
		c.takeOffer(now, d)
	case d.code == codePADS && c.phase == requesting && d.from == c.offer.from && d.has(tagHostUniq, c.uniq):
		s := Session{d.from, d.session}
		if why := d.refusal(); why != "" || !s.valid() {
			c.end(now, errors.New("the access concentrator refuses a session: "+cmp.Or(why, "it has none")), false)
			return
		}
		c.session, c.phase, c.deadline = s, opening, now.Add(openTime)
		c.set(now, Dialing)
	}
}

// takeOffer asks for a session if that is an offer of what is wanted.
func (c *client) takeOffer(now time.Time, d discovery) {
	name, _ := d.get(tagACName)
	if c.settings.AC != "" && string(name) != c.settings.AC || c.settings.Service != "" && !d.has(tagServiceName, []byte(c.settings.Service)) {
		return
	}
	if why := d.refusal(); why != "" {
		if dropped, passes := c.lines.Pass(now.Sub(c.began)); passes {
			if dropped > 0 {
				c.logf("%d errors of access concentrators left out", dropped)
			}
			c.logf("access concentrator %s %q: %s", d.from, printable(name), why)
		}
		return
	}
	ask := discovery{to: d.from, from: c.settings.MAC, code: codePADR,
		tags: []tag{{tagServiceName, []byte(c.settings.Service)}, {tagHostUniq, c.uniq}}}
	for _, typ := range []uint16{tagCookie, tagRelaySession} {
		if value, has := d.get(typ); has {
			if len(value) > maxEcho {
				return
			}
			ask.tags = append(ask.tags, tag{typ, bytes.Clone(value)})
		}
	}
	c.ac, c.service = printable(name), c.settings.Service
	c.offer = discovery{from: d.from}
	c.phase, c.wait, c.tries = requesting, firstWait, 0
	c.offer.tags = ask.tags
	c.request(now)
}

// request sends a PADR.
func (c *client) request(now time.Time) {
	c.tries++
	c.discover(discovery{to: c.offer.from, from: c.settings.MAC, code: codePADR, tags: c.offer.tags}.frame())
	c.deadline = now.Add(spread(c.wait))
	c.wait *= 2
}

// opened is told that the kernel has the session, and that control sends over it.
func (c *client) opened(now time.Time, s Session) {
	if c.phase != opening || s != c.session {
		return
	}
	c.phase, c.link = running, nil
	c.lcp = newLCP(c.settings.Allow, c.settings.MRU)
	c.lcpState = automaton{negotiator: c.lcp, send: func(p packet) { c.sendControl(protocolLCP, p) }}
	c.ipcpState = automaton{}
	c.missed, c.noEcho, c.anew, c.lostEnd = 0, false, 0, time.Time{}
	c.negotiate(now)
	c.lcpState.start(now)
}

// negotiate gives the server its time anew.
func (c *client) negotiate(now time.Time) {
	c.slices, c.sliceEnd = negotiationSlices, now.Add(negotiationSlice)
}

// again follows a server that begins anew within the session. The connection stays meanwhile.
func (c *client) again(now time.Time) {
	if c.anew++; c.anew > maxAnew {
		c.end(now, errors.New("the server begins anew again and again"), true)
		return
	}
	c.negotiate(now)
	c.set(now, Dialing)
}

// lost is told that the kernel has ended the session, or its interface.
func (c *client) lost(now time.Time, s Session) {
	if c.phase == running && s == c.session && c.lostEnd.IsZero() {
		c.lostEnd = now.Add(lostTime)
	}
}

// leave ends the connection in order.
func (c *client) leave(now time.Time) {
	if c.phase == leaving {
		return
	}
	if c.phase == running && c.lcpState.state != closed {
		c.phase, c.tries = leaving, 0
		if c.set(now, Terminating); c.phase == leaving {
			c.sayGoodbye(now)
		}
		return
	}
	c.finish(now)
}

func (c *client) sayGoodbye(now time.Time) {
	c.tries++
	c.id++
	c.sendControl(protocolLCP, packet{terminateRequest, c.id, nil})
	c.deadline = now.Add(leaveTime)
}

// finish ends the client.
func (c *client) finish(now time.Time) {
	if c.session != (Session{}) {
		c.terminate(c.session)
	}
	c.session, c.link, c.reason, c.phase = Session{}, nil, "", left
	c.set(now, Disconnected)
}

// end ends a connection, or what was to become one, and dials again later. With polite the server
// is told by LCP too.
func (c *client) end(now time.Time, why error, polite bool) {
	if c.phase == leaving {
		c.finish(now)
		return
	}
	if c.session != (Session{}) {
		if polite && c.phase == running {
			c.id++
			c.sendControl(protocolLCP, packet{terminateRequest, c.id, nil})
		}
		c.terminate(c.session)
		c.session = Session{}
	}
	if c.link != nil && now.Sub(c.since) >= steady {
		c.failures, c.refusals = 0, 0
	}
	var refused refusedError
	pause := min(firstPause<<min(c.failures, 10), longWait)
	if errors.As(why, &refused) {
		pause = min(firstRefusedPause<<min(c.refusals, 10), longRefusedPause)
		c.refusals++
	} else {
		c.failures++
	}
	c.phase, c.deadline = waiting, now.Add(spread(pause))
	c.link, c.reason = nil, why.Error()
	c.lcpState.stop()
	c.set(now, Disconnected)
}

// next is when tick is to be called; the zero Time if nothing is due by itself.
func (c *client) next() time.Time {
	if c.phase == left {
		return time.Time{}
	}
	if c.phase != running {
		return c.deadline
	}
	at := c.lostEnd
	earlier := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	for _, a := range []*automaton{&c.lcpState, &c.ipcpState} {
		if a.pending() {
			earlier(a.deadline)
		}
	}
	if c.proof.pending() {
		earlier(c.proof.deadline)
	}
	if c.status != Connected {
		earlier(c.sliceEnd)
	} else if c.echoes() {
		earlier(c.echoAt)
	}
	return at
}

func (c *client) echoes() bool { return c.settings.Keepalive > 0 && !c.noEcho }

// tick does what is due.
func (c *client) tick(now time.Time) {
	if c.phase == running {
		c.tickRunning(now)
		return
	}
	if now.Before(c.deadline) {
		return
	}
	switch c.phase {
	case waiting:
		c.dial(now)
	case discovering:
		c.look(now)
	case requesting:
		if c.tries == requestTries {
			c.end(now, errors.New("the access concentrator does not answer"), false)
			return
		}
		c.request(now)
	case opening:
		c.end(now, errors.New("the session was not opened"), false)
	case leaving:
		if c.tries == leaveTries {
			c.finish(now)
			return
		}
		c.sayGoodbye(now)
	}
}

func (c *client) tickRunning(now time.Time) {
	if !c.lostEnd.IsZero() && !now.Before(c.lostEnd) {
		c.end(now, errors.New("the session has ended"), true) // the interface may have gone, and the session not
		return
	}
	c.lcpState.tick(now)
	c.ipcpState.tick(now)
	if err := c.proof.tick(now); err != nil {
		c.end(now, err, true)
		return
	}
	if c.overdue(now) {
		return
	}
	if c.status != Connected && !now.Before(c.sliceEnd) {
		c.sliceEnd = now.Add(negotiationSlice)
		if c.slices--; c.slices <= 0 {
			c.end(now, errors.New("the server does not come to an agreement"), true)
			return
		}
	}
	if c.status == Connected && c.echoes() && !now.Before(c.echoAt) {
		if c.missed == maxMissed {
			c.end(now, errors.New("the server does not answer any more"), true)
			return
		}
		c.missed++
		c.id++
		c.sendControl(protocolLCP, packet{echoRequest, c.id, c.magic()})
		c.echoAt = now.Add(c.settings.Keepalive)
	}
}

// overdue ends a connection whose negotiation came to nothing.
func (c *client) overdue(now time.Time) bool {
	switch {
	case c.lcp.loops > maxLoops:
		c.end(now, errors.New("the line is looped back"), true)
	case c.lcpState.failed || c.ipcpState.failed:
		c.end(now, errors.New("the server does not come to an agreement"), true)
	default:
		return false
	}
	return true
}

func (c *client) magic() []byte { return binary.BigEndian.AppendUint32(nil, c.lcp.magic) }

// takeControl takes a packet of PPP that came by the session: the protocol, and what it carries.
func (c *client) takeControl(now time.Time, frame []byte) {
	if len(frame) < 2 {
		return
	}
	protocol, body := binary.BigEndian.Uint16(frame), frame[2:]
	if c.phase == leaving {
		if p, err := parsePacket(body); err == nil && protocol == protocolLCP && (p.code == terminateAck || p.code == terminateRequest) {
			c.finish(now)
		}
		return
	}
	if c.phase != running || protocol == protocolIP {
		return
	}
	p, err := parsePacket(body)
	if protocol == protocolLCP {
		if err == nil {
			c.takeLCP(now, p)
		}
		return
	}
	if c.lcpState.state != opened {
		return // RFC 1661, section 3.4
	}
	switch protocol {
	case protocolPAP, protocolCHAP:
		if err == nil {
			c.takeProof(now, protocol, p)
		}
	case protocolIPCP:
		if err == nil && c.proof.done {
			c.takeIPCP(now, p)
		}
	default:
		c.id++
		c.sendControl(protocolLCP, packet{protocolReject, c.id, bytes.Clone(frame[:min(len(frame), minMTU-4)])})
	}
}

func (c *client) takeLCP(now time.Time, p packet) {
	before := c.lcpState.state
	switch p.code {
	case configureRequest, configureAck, configureNak, configureReject:
		c.lcpState.take(now, p)
		if c.overdue(now) {
			return
		}
		switch after := c.lcpState.state; {
		case after == opened && before != opened:
			c.authenticate(now)
		case after != opened && before == opened:
			c.proof.start(now, 0)
			c.proof.done = false
			c.ipcpState.stop()
			c.again(now)
		}
	case terminateRequest:
		c.sendControl(protocolLCP, packet{terminateAck, p.id, nil})
		why := "the server has ended the connection"
		if text := printable(p.data); text != "" {
			why += ": " + text
		}
		c.end(now, errors.New(why), false)
	case terminateAck:
	case codeReject:
		switch {
		case len(p.data) > 0 && p.data[0] == echoRequest:
			c.noEcho = true
		case len(p.data) > 0 && p.data[0] <= codeReject:
			c.end(now, errors.New("the server does not know LCP"), false)
		}
	case protocolReject:
		if len(p.data) >= 2 {
			if protocol := binary.BigEndian.Uint16(p.data); protocol == protocolLCP || protocol == protocolIPCP || protocol == protocolPAP || protocol == protocolCHAP {
				c.end(now, errors.New("the server refuses a protocol that a connection needs"), true)
			}
		}
	case echoRequest:
		if c.lcpState.state != opened || len(p.data) < 4 {
			return
		}
		if c.looped(now, p) {
			return
		}
		c.sendControl(protocolLCP, packet{echoReply, p.id, append(c.magic(), p.data[4:]...)})
	case echoReply:
		if c.lcpState.state == opened && len(p.data) >= 4 && !c.looped(now, p) {
			c.missed = 0
		}
	case discardRequest:
	default:
		c.id++
		c.sendControl(protocolLCP, packet{codeReject, c.id, p.bytes()[:min(4+len(p.data), minMTU-4)]})
	}
}

// looped ends a connection on which this side's own packets come back.
func (c *client) looped(now time.Time, p packet) bool {
	if c.lcp.magic != 0 && binary.BigEndian.Uint32(p.data) == c.lcp.magic {
		c.lcp.loops++
	}
	return c.overdue(now)
}

// authenticate begins to prove who this side is, as the server wants.
func (c *client) authenticate(now time.Time) {
	c.proof.start(now, c.lcp.method)
	if c.proof.done {
		c.configure(now)
		return
	}
	c.set(now, Verifying)
}

func (c *client) takeProof(now time.Time, protocol uint16, p packet) {
	before := c.proof.done
	var err error
	if protocol == protocolPAP {
		err = c.proof.takePAP(p)
	} else {
		err = c.proof.takeCHAP(p)
	}
	switch {
	case err != nil:
		c.end(now, err, true)
	case c.proof.done && !before:
		c.configure(now)
	}
}

// configure begins to ask for an address.
func (c *client) configure(now time.Time) {
	c.ipcp = newIPCP(c.settings.NameServers)
	c.ipcpState = automaton{negotiator: c.ipcp, send: func(p packet) { c.sendControl(protocolIPCP, p) }}
	c.ipcpState.start(now)
}

func (c *client) takeIPCP(now time.Time, p packet) {
	before := c.ipcpState.state
	if before == closed {
		return
	}
	switch p.code {
	case configureRequest, configureAck, configureNak, configureReject:
		c.ipcpState.take(now, p)
		if c.overdue(now) {
			return
		}
		switch after := c.ipcpState.state; {
		case after == opened && before != opened:
			c.up(now)
		case after != opened && before == opened:
			c.again(now)
		}
	case terminateRequest:
		c.sendControl(protocolIPCP, packet{terminateAck, p.id, nil})
		c.end(now, errors.New("the server has ended IP"), true)
	case terminateAck:
	case codeReject:
		c.end(now, errors.New("the server does not know IPCP"), true)
	default:
		c.id++
		c.sendControl(protocolIPCP, packet{codeReject, c.id, p.bytes()[:min(4+len(p.data), minMTU-4)]})
	}
}

// up takes what was agreed.
func (c *client) up(now time.Time) {
	mru := c.lcp.mru
	if mru == 0 {
		mru = 1500 // of who says nothing
	}
	link := &Link{Local: c.ipcp.local, Remote: c.ipcp.remote, NameServers: c.ipcp.nameServers(),
		MTU: min(c.settings.MTU, c.lcp.peerMRU), MRU: mru}
	switch {
	case !usable(link.Local):
		c.end(now, errors.New("the server gives no address"), true)
		return
	case !link.valid():
		c.end(now, errors.New("the server gives its own address"), true)
		return
	case c.link != nil && !c.link.equal(link):
		c.end(now, errors.New("the server gives another address"), true)
		return
	case c.link == nil:
		c.since = now
	}
	c.link, c.reason = link, ""
	c.missed, c.echoAt = 0, now.Add(c.settings.Keepalive)
	c.set(now, Connected)
}
