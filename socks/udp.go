package socks

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// MaxAssociations is how many UDP ASSOCIATE there may be at once. Each has a rule of the firewall,
// with which the kernel compares every packet for the router, and takes three sockets.
const MaxAssociations = 128

// Bounds of one association. All times are those of the server's clock.
const (
	// Datagrams that are read of each of its two sockets: datagramRate a second, and
	// datagramBurst at once. 2,000 full packets are 20 Mbit/s, which is more than the lines and
	// processors of small routers carry this way; a game or a call has 50 to 130 a second.
	datagramRate  = 2000
	datagramBurst = 200
	// datagramPause is how long a socket is not read once these are used up. The kernel drops
	// what its receive buffer has no room for, which costs the server nothing.
	datagramPause = 50 * time.Millisecond
	// datagramBatch is how many of each socket are read in one turn.
	datagramBatch = 8

	// maxPeers is how many peers may answer: those that the client has sent to last.
	maxPeers = 64
	// New peers: peerRate a second, peerBurst at once. Each is an entry in the kernel's table of
	// connections for half a minute or more.
	peerRate  = 32
	peerBurst = 2 * maxPeers
	// judgeTime is how long the decision about a peer holds: an address may become one of this
	// machine. A new access list is in force at once.
	judgeTime = time.Second

	// Names that are looked up: lookupRate a second, lookupBurst at once, one after the other.
	lookupRate  = 4
	lookupBurst = 16
	// maxNames is how many results are kept, each for nameTime, or for failedTime if there was
	// no address. Their TTL is not asked for, and may be less: each lookup costs datagrams, as one alone
	// waits for it, and can send those behind it to another of the name's addresses, which knows
	// nothing of what they belong to.
	maxNames   = 4
	nameTime   = 30 * time.Second
	failedTime = 5 * time.Second
	// maxWaiting is the size of the largest datagram that waits for a lookup. One can, so that
	// the first one to a name is not lost.
	maxWaiting = 1472

	// datagramSize is the size of the buffer for one datagram: more than a header and the 65,507
	// bytes that UDP carries.
	datagramSize = 64 << 10
)

var (
	errNoUDP       error = replyError{reply5Command, "UDP ASSOCIATE is off"}
	errUDPEnded          = errors.New("UDP ASSOCIATE was turned off")
	errOutnumbered       = fmt.Errorf("replaced: all %d UDP ASSOCIATE are taken, most by this client's address", MaxAssociations)
)

// association is a UDP ASSOCIATE of a client. Its two sockets cannot be confused: whatever
// comes to that for the client is from the client or is dropped, and whatever comes to that for
// its peers is from a peer that the client has sent to, or is dropped.
type association struct {
	client, peers inlet
	local         netip.AddrPort // where the client sends to
	// source is where the client sends from. The port is 0 until the first datagram.
	source  netip.AddrPort
	undo    func() // closes the firewall
	known   []peer
	fresh   meter  // of new peers
	uses    uint64 // of all peers
	names   []name
	lookups meter
	// waiting is what the lookup that is under way is for. Its data are its own, or nil if they
	// are too many to wait.
	waiting *datagram
}

// inlet is a socket that datagrams are read from.
type inlet struct {
	fd    int
	try   bool // there may be datagrams
	meter meter
	// resume is when to read again, after the meter said no.
	resume time.Duration
}

// peer is one that the client has sent to. There may be maxPeers times max-connections of them.
type peer struct {
	addr    [4]byte
	port    uint16
	allowed bool
	judged  time.Duration // when allowed was decided
	used    uint64        // of association.uses, the last time
}

func newPeer(at netip.AddrPort) peer { return peer{addr: at.Addr().As4(), port: at.Port()} }

func (p *peer) at() netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom4(p.addr), p.port) }

// name is a result of a lookup.
type name struct {
	host  string
	addr  netip.Addr // zero if there is none
	until time.Duration
}

// meter counts events that may happen at a rate, and some of them at once.
type meter struct{ full time.Duration } // when all of the burst is there again

// has reports whether one more may happen.
func (m *meter) has(now time.Duration, rate, burst time.Duration) bool {
	return max(m.full, now)-now <= (burst-1)*(time.Second/rate)
}

// take counts one.
func (m *meter) take(now time.Duration, rate time.Duration) {
	m.full = max(m.full, now) + time.Second/rate
}

// associate begins the UDP ASSOCIATE that c asks for.
func (s *Server) associate(c *conn) {
	if err := s.allowAssociation(c); err != nil {
		s.end(c, err)
		return
	}
	at, err := localAddr(c.client)
	if err == nil && !at.Addr().Is4() {
		err = fmt.Errorf("UDP ASSOCIATE on %s: not IPv4", at)
	}
	if err != nil {
		s.end(c, err)
		return
	}
	if err := s.takePlace(c); err != nil {
		s.end(c, err)
		return
	}
	u := &association{client: inlet{fd: none}, peers: inlet{fd: none}, source: netip.AddrPortFrom(c.src.Addr(), 0)}
	c.udp = u
	// The address of the request says from where the client will send. It is of use if it is
	// the one that the client has here; one behind NAT does not know its port.
	if a := c.attempt.addr; a.IsValid() && (a.IsUnspecified() || a == c.src.Addr()) {
		u.source = netip.AddrPortFrom(c.src.Addr(), c.attempt.port)
	}
	if u.client.fd, u.local, err = s.bindDatagrams(c, at.Addr()); err == nil {
		u.peers.fd, _, err = s.bindDatagrams(c, netip.IPv4Unspecified())
	}
	if err != nil {
		s.end(c, err)
		return
	}
	if s.datagram == nil {
		s.datagram = make([]byte, datagramSize)
	}
	if s.open == nil {
		s.associated(c)
		return
	}
	s.openFirewall(c, Opening{Peer: c.src.Addr(), Local: u.local, UDP: true}, u.client.fd, func() { s.associated(c) })
}

// allowAssociation returns an error if UDP is off, or if the access list denies c everything.
func (s *Server) allowAssociation(c *conn) error {
	if !s.cfg.UDP {
		return errNoUDP
	}
	rule, denied := deniedAnywhere(s.cfg.Access, c.src, 0)
	if !denied {
		return nil
	}
	c.rule = rule
	return notAllowed("rule %d denies every destination", rule)
}

// takePlace returns an error if there is no place for an association of c. If all are taken, c
// replaces one of the address that has the most, the one that was silent for longest. That address
// must still have as many as that of c then.
func (s *Server) takePlace(c *conn) error {
	all, of := 0, map[netip.Addr]int{}
	for _, other := range s.conns {
		if other.udp != nil {
			all++
			of[other.src.Addr()]++
		}
	}
	if all < MaxAssociations {
		return nil
	}
	var most *conn
	for _, other := range s.conns {
		if other.udp != nil && (most == nil || cmp.Or(
			cmp.Compare(of[most.src.Addr()], of[other.src.Addr()]),
			cmp.Compare(other.last, most.last),
			cmp.Compare(other.number, most.number)) < 0) {
			most = other
		}
	}
	if of[most.src.Addr()] < of[c.src.Addr()]+2 {
		return fmt.Errorf("all %d UDP ASSOCIATE are taken", MaxAssociations)
	}
	s.end(most, errOutnumbered)
	return nil
}

// bindDatagrams returns a UDP socket of c on a free port of the address local.
func (s *Server) bindDatagrams(c *conn, local netip.Addr) (fd int, at netip.AddrPort, err error) {
	fd, at, err = datagramsOn(local)
	if err == nil && at.Port() == s.cfg.Port {
		// Free, but the port of the SOCKS server is never opened. While this socket exists, the
		// next gets another port.
		defer closeSocket(fd)
		fd, at, err = datagramsOn(local)
	}
	if err != nil {
		return none, netip.AddrPort{}, err
	}
	s.limitBuffers(c, fd)
	return fd, at, nil
}

// associated tells the client where to send to, and begins to relay.
func (s *Server) associated(c *conn) {
	if c.tx.ending {
		s.end(c, errLeft)
		return
	}
	u, a := c.udp, c.attempt
	u.undo, a.undo = a.undo, nil
	c.attempt = nil
	if u.source.Port() != 0 {
		u.connect()
	}
	if c.memory != 0 {
		// What the client sends by TCP is not read.
		unix.SetsockoptInt(c.client, unix.SOL_SOCKET, unix.SO_RCVBUF, leastReceive/2)
	}
	s.enter(c, associated, never)
	s.checkAt = min(s.checkAt, c.born+s.limits.watch)
	s.log.line(func() string { return fmt.Sprintf("connection %d opened: %s", c.number, c) })
	err := s.poller.add(u.client.fd, ofCall, c.number)
	if err == nil {
		err = s.poller.add(u.peers.fd, ofRemote, c.number)
	}
	if err == nil {
		err = c.grant(u.local)
	}
	if err != nil {
		s.end(c, err)
	}
}

// connect has the kernel drop what others than the client send to the client's socket. If it
// fails, the server still does.
func (u *association) connect() { connect(u.client.fd, u.source) }

// associationEvent handles a change of one of the sockets of an association.
func (s *Server) associationEvent(c *conn, is role, events uint32) {
	// Also an error of ICMP: reading clears it.
	arrived := events&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP) != 0
	switch is {
	case ofClient:
		// An association ends with its connection (RFC 1928, section 7). What the client
		// sends there means nothing and is not read.
		if events&unix.EPOLLERR != 0 {
			s.end(c, fmt.Errorf("client left: %w", socketError(c.client)))
			return
		}
		if events&(unix.EPOLLRDHUP|unix.EPOLLHUP) != 0 {
			s.end(c, errLeft)
			return
		}
	case ofCall:
		c.udp.client.try = c.udp.client.try || arrived
	case ofRemote:
		c.udp.peers.try = c.udp.peers.try || arrived
	}
	if !c.queued {
		s.relayDatagrams(c)
	}
}

// relayDatagrams passes on some of the datagrams that have come to c's sockets.
func (s *Server) relayDatagrams(c *conn) {
	u, more := c.udp, false
	for _, in := range [...]*inlet{&u.client, &u.peers} {
		f := &c.tx
		if in == &u.peers {
			f = &c.rx
		}
		for n := 0; in.try && s.now >= in.resume; n++ {
			if n == datagramBatch {
				more = true
				break
			}
			if !in.meter.has(s.now, datagramRate, datagramBurst) || s.credit(c, f) == 0 {
				in.resume = s.now + datagramPause
				break
			}
			b := s.datagram
			if in == &u.peers {
				b = b[headerLength:]
			}
			size, from, err := receiveFrom(in.fd, b)
			if err == unix.EAGAIN {
				in.try = false
				break
			}
			in.meter.take(s.now, datagramRate)
			switch {
			case err != nil || size > len(b): // ICMP said that the client's port is closed
			case in == &u.client:
				s.fromClient(c, from, b[:size])
			default:
				s.fromPeer(c, from, size)
			}
		}
		if in.try && in.resume > s.now {
			s.checkAt = min(s.checkAt, in.resume)
		}
	}
	if more && !c.queued {
		c.queued = true
		s.ready = append(s.ready, c)
	}
}

// fromClient handles a datagram that came to the client's socket.
func (s *Server) fromClient(c *conn, from netip.AddrPort, b []byte) {
	u := c.udp
	if from.Addr() != u.source.Addr() || u.source.Port() != 0 && from != u.source {
		return
	}
	d, err := parseDatagram(b)
	if err != nil {
		return
	}
	if u.source.Port() == 0 {
		// From now on it is the client's port: answers go there, and to no other.
		u.source = from
		u.connect()
	}
	if d.host == nil {
		s.toPeer(c, netip.AddrPortFrom(d.addr, d.port), d.data)
		return
	}
	i := slices.IndexFunc(u.names, func(n name) bool { return n.host == string(d.host) })
	switch {
	case i < 0 || u.names[i].until <= s.now:
		s.lookUpPeer(c, d)
	case u.names[i].addr.IsValid():
		s.toPeer(c, netip.AddrPortFrom(u.names[i].addr, d.port), d.data)
	}
}

// toPeer sends data to a peer, if it may have it.
func (s *Server) toPeer(c *conn, dst netip.AddrPort, data []byte) {
	u := c.udp
	p := u.find(dst)
	if p == nil {
		if !u.fresh.has(s.now, peerRate, peerBurst) {
			return
		}
		u.fresh.take(s.now, peerRate)
		p = u.replace(dst)
		c.rule = s.judge(c, p)
		s.count(c)
	} else if s.now-p.judged >= judgeTime {
		s.judge(c, p)
	}
	u.uses++
	p.used = u.uses
	if !p.allowed || sendTo(u.peers.fd, data, dst) != nil {
		return
	}
	c.dst = dst
	s.passed(c, &c.tx, len(data), u.client.fd, u.peers.fd)
}

// fromPeer passes on a datagram that came to the peers' socket. Its bytes are in the buffer,
// behind the place for the header.
func (s *Server) fromPeer(c *conn, from netip.AddrPort, size int) {
	u := c.udp
	p := u.find(from)
	if p == nil || !p.allowed {
		return
	}
	u.uses++
	p.used = u.uses
	putHeader((*[headerLength]byte)(s.datagram), from)
	if sendTo(u.client.fd, s.datagram[:headerLength+size], u.source) == nil {
		s.passed(c, &c.rx, size, u.peers.fd, u.client.fd)
	}
}

// passed counts the bytes of a datagram that was passed on.
func (s *Server) passed(c *conn, f *flow, size, source, sink int) {
	f.moved += uint64(size)
	c.spend(f, size)
	c.heard(s.now)
	s.grow(c, f, source, sink)
}

// find returns the peer at an address, nil if the client has not sent to it.
func (u *association) find(at netip.AddrPort) *peer {
	addr, port := at.Addr().As4(), at.Port()
	for i := range u.known {
		if u.known[i].addr == addr && u.known[i].port == port {
			return &u.known[i]
		}
	}
	return nil
}

// replace returns a new peer. If there are too many, it is in the place of the one that was
// used least recently.
func (u *association) replace(at netip.AddrPort) *peer {
	if len(u.known) < maxPeers {
		u.known = append(u.known, newPeer(at))
		return &u.known[len(u.known)-1]
	}
	oldest := &u.known[0]
	for i := range u.known {
		if u.known[i].used < oldest.used {
			oldest = &u.known[i]
		}
	}
	*oldest = newPeer(at)
	return oldest
}

// judge decides whether c may send to p, and returns the rule of the access list that says so.
func (s *Server) judge(c *conn, p *peer) (rule int) {
	p.judged, p.allowed = s.now, false
	at := p.at()
	if s.reachable(at.Addr()) != nil {
		return noRule
	}
	rule, action := decide(s.cfg.Access, c.src, at)
	p.allowed = action == Allow
	return rule
}

// judgeAgain applies a new configuration to an association. An error ends it.
func (s *Server) judgeAgain(c *conn) error {
	if !s.cfg.UDP {
		return errUDPEnded
	}
	if rule, denied := deniedAnywhere(s.cfg.Access, c.src, 0); denied {
		c.rule = rule
		return errDeniedNow
	}
	c.rule = noRule
	for i := range c.udp.known {
		rule := s.judge(c, &c.udp.known[i])
		if c.udp.known[i].at() == c.dst {
			c.rule = rule
		}
	}
	return nil
}

// lookUpPeer has the name of d looked up, for which d waits. While another one is looked up, or
// when there were too many, d is dropped.
func (s *Server) lookUpPeer(c *conn, d datagram) {
	u := c.udp
	if u.waiting != nil || !u.lookups.has(s.now, lookupRate, lookupBurst) {
		return
	}
	// As for CONNECT: a question could carry bytes past the list.
	if _, denied := deniedAnywhere(s.cfg.Access, c.src, d.port); denied {
		return
	}
	u.lookups.take(s.now, lookupRate)
	u.waiting = &datagram{port: d.port}
	if len(d.data) <= maxWaiting {
		u.waiting.data = bytes.Clone(d.data)
	}
	host := string(d.host)
	c.attempt = &attempt{request: request{host: host, port: d.port}}
	s.lookUp(c, host, func(addrs []netip.Addr, _ error) {
		c.attempt = nil
		s.foundPeer(c, host, addrs)
	})
}

// foundPeer continues with the addresses of a name, none if it has none.
func (s *Server) foundPeer(c *conn, host string, addrs []netip.Addr) {
	u := c.udp
	d := u.waiting
	u.waiting = nil
	found := name{host: host, until: s.now + failedTime}
	if len(addrs) > 0 {
		found.addr, found.until = addrs[0], s.now+nameTime
		// Nobody says whether a datagram has arrived, so that one address has to do: the first
		// one that is allowed.
		for _, a := range addrs {
			p := newPeer(netip.AddrPortFrom(a, d.port))
			if s.judge(c, &p); p.allowed {
				found.addr = a
				break
			}
		}
	}
	u.keep(found)
	if found.addr.IsValid() && d.data != nil {
		s.toPeer(c, netip.AddrPortFrom(found.addr, d.port), d.data)
	}
}

// keep remembers the result of a lookup: in the place of the last one for that name or, if there
// are too many, of the one that is over first.
func (u *association) keep(n name) {
	i := slices.IndexFunc(u.names, func(o name) bool { return o.host == n.host })
	if i < 0 && len(u.names) < maxNames {
		u.names = append(u.names, n)
		return
	}
	if i < 0 {
		i = 0
		for j := range u.names {
			if u.names[j].until < u.names[i].until {
				i = j
			}
		}
	}
	u.names[i] = n
}

// endAssociation closes the sockets of c's association, if it has one, and the firewall.
func (s *Server) endAssociation(c *conn) {
	u := c.udp
	if u == nil {
		return
	}
	for _, in := range [...]*inlet{&u.client, &u.peers} {
		if in.fd != none {
			s.poller.remove(in.fd)
			closeSocket(in.fd)
			in.fd = none
		}
	}
	if u.undo != nil {
		s.runNext(&s.openings, u.undo)
		u.undo = nil
	}
}
