package socks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// state is the state of a connection.
type state uint8

const (
	handshaking state = iota // the request is not complete
	resolving                // a name
	connecting               // to the server
	opening                  // the firewall, for a BIND or a UDP ASSOCIATE
	calling                  // a BIND waits for the call
	established
	associated // a UDP ASSOCIATE
	ending     // both sides have ended, and are still sent something
)

// conn is a connection of a client, and the connection that the server makes or takes for
// it. The server's mu guards it. Times are those of the server's clock, which leaves stalls
// out; came is that of the machine's.
type conn struct {
	number               uint64
	client, remote, call int // descriptors: see role
	state                state
	step                 step  // of the handshake
	version              uint8 // of the protocol, in which the client is answered
	claim                claim
	queued               bool // is in Server.ready
	over                 bool
	watched              bool // see watchPeers
	changed              bool // is in the agenda of its source, with events that were not handled yet, by role
	events               [ofCall + 1]uint16
	// judged is the port of the destination that the access list decided about, 0 before that. It differs from that of
	// dst only for a BIND that was called.
	judged           uint16
	taken            string // of a message of the handshake: see peek
	tx, rx           flow   // client to server, server to client
	came, born, last time.Duration
	limit            time.Duration // the deadline of the state
	source           *source       // of its client
	before, after    *conn         // in the list of source for its claim
	attempt          *attempt      // nil before the request and once it is answered; of a UDP ASSOCIATE also for a lookup
	udp              *association  // nil unless it is a UDP ASSOCIATE
	reason           error         // why it is ending
	unsent           int32         // bytes that its peers had not acknowledged at the last look, while ending
	called           bool          // by the peer of a BIND
	memory           int           // for socket buffers, in bytes, without that of the flows; 0: the kernel decides
	rule             int
	src, dst         netip.AddrPort
	user             string
	// account is the user of version 5 who has logged in, try what waits for that.
	account *account
	try     *try
}

// attempt is what a connection needs until it is established.
type attempt struct {
	request
	one      [1]netip.Addr // the address, if the client gave no name
	deadline time.Duration // for all addresses together
	addrs    []netip.Addr  // not tried yet
	failures []error
	peer     netip.Addr // may call, of a BIND
	local    netip.AddrPort
	undo     func() // closes the firewall
	task     *task  // runs, or waits in queue
	queue    *queue
	found    func([]netip.Addr, error) // takes the result of a lookup
}

// overAt returns the deadline of c if nothing moves.
func (c *conn) overAt(idle time.Duration) time.Duration {
	at := c.last + idle
	if at < c.last { // overflow: an idle timeout of centuries
		at = never
	}
	return min(at, c.limit)
}

// enter puts c in a state that may last for d; never is without a limit.
func (s *Server) enter(c *conn, to state, d time.Duration) {
	c.state, c.last, c.limit = to, s.now, never
	if d != never {
		c.limit = s.now + d
	}
	s.checkAt = min(s.checkAt, c.overAt(s.cfg.ConnectionIdleTimeout))
	s.judgeClaim(c)
}

// timeout handles a deadline that c has reached.
func (s *Server) timeout(c *conn) {
	switch {
	case c.state == ending:
		s.late(c)
	case c.limit > s.now && c.state == established && s.settled(c):
		s.finish(c, errIdle)
	case c.limit > s.now:
		s.end(c, errIdle)
	case c.state == handshaking:
		s.end(c, errHandshakeTimeout)
	case c.state == connecting && len(c.attempt.addrs) > 0:
		s.failed(c, fmt.Errorf("connect to %s: %w", c.dst, errConnectTimeout))
	case c.state == calling:
		s.end(c, errBindTimeout)
	default:
		s.end(c, errConnectTimeout)
	}
}

// event handles a change of one of c's descriptors.
func (s *Server) event(c *conn, is role, events uint32) {
	if c.state == associated {
		s.associationEvent(c, is, events)
		return
	}
	// Also before both sides are connected: the relay begins with it.
	const arrived = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLERR | unix.EPOLLHUP
	if from := c.from(is); from != nil {
		from.try = from.try || events&arrived != 0 && !from.full
		from.urgent = from.urgent || events&unix.EPOLLPRI != 0
		from.ending = from.ending || events&(unix.EPOLLRDHUP|unix.EPOLLERR|unix.EPOLLHUP) != 0
		from.failed = from.failed || events&unix.EPOLLERR != 0
	}
	switch {
	case c.state == established:
		s.moved(c, is, events)
		return
	case c.state == ending && events&unix.EPOLLERR != 0:
		s.undelivered(c, is)
		return
	case c.state == ending:
		s.deliver(c)
		return
	}
	if is == ofClient && events&unix.EPOLLERR != 0 {
		s.end(c, fmt.Errorf("client left: %w", socketError(c.client)))
		return
	}
	if c.tx.ending {
		s.judgeClaim(c)
		s.runTasks(&s.names) // others may wait for its place
		if c.over {
			return
		}
	}
	switch {
	case c.state == handshaking && is == ofClient && c.tx.try:
		s.readHandshake(c)
	case c.state == connecting && is == ofRemote:
		var err error
		if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			err = connect(c.remote, c.dst) // returns the result
		}
		s.connected(c, err)
	case c.state == calling && is == ofCall:
		s.called(c)
	case (c.state == calling || c.state == opening) && c.tx.ending:
		s.end(c, errLeft)
	}
}

// from returns the flow whose source is the descriptor with that role.
func (c *conn) from(is role) *flow {
	switch is {
	case ofClient:
		return &c.tx
	case ofRemote:
		return &c.rx
	}
	return nil
}

// socket returns the socket with that role, of an established connection.
func (c *conn) socket(is role) int {
	if is == ofClient {
		return c.client
	}
	return c.remote
}

// moved handles a change of one of the sockets of an established connection.
func (s *Server) moved(c *conn, is role, events uint32) {
	from, to, fd := &c.tx, &c.rx, c.client
	if is == ofRemote {
		from, to, fd = &c.rx, &c.tx, c.remote
	}
	if from.full && events&unix.EPOLLERR != 0 {
		// A reset. What came before it cannot be passed on now.
		s.abort(c, fmt.Errorf("read: %w", socketError(fd)), is)
		return
	}
	if from.full && events&unix.EPOLLIN != 0 {
		s.lookForMissed(from, fd)
	}
	if to.full && events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		to.try = true
	}
	if (from.try || to.try) && !c.queued {
		s.relay(c)
	}
}

// socketError returns the pending error of a socket, and clears it.
func socketError(fd int) error {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	return unix.Errno(n)
}

// resolved continues with the addresses of a request.
func (s *Server) resolved(c *conn, addrs []netip.Addr) {
	c.attempt.addrs = addrs
	if c.attempt.command == commandBind {
		s.bind(c)
	} else {
		s.connectNext(c)
	}
}

// allow returns an error if the access list denies c access to dst. Otherwise it makes dst
// the destination of c, which a new list decides about again.
func (s *Server) allow(c *conn, dst netip.AddrPort) error {
	rule, action := decide(s.cfg.Access, c.src, dst)
	c.rule, c.dst = rule, dst
	if action == Deny {
		return notAllowed("rule %d denies %s", rule, dst)
	}
	c.judged = dst.Port()
	return nil
}

// count counts c for the rule that has decided about it. It is called once, when the request is
// granted for good or refused: a name can have many addresses, and a BIND is judged twice.
func (s *Server) count(c *conn) {
	if c.rule != noRule {
		s.hits[c.rule]++
	}
}

// allowName returns an error if the access list denies c every address that its name may
// have. A client that may connect to nothing has no name server asked either: a question
// can carry bytes to whoever owns the name.
func (s *Server) allowName(c *conn) error {
	port := c.attempt.port
	if c.attempt.command == commandBind {
		port = 0 // the list judges the port that the server will listen on
	}
	rule, denied := deniedAnywhere(s.cfg.Access, c.src, port)
	if !denied {
		return nil
	}
	c.rule = rule
	return notAllowed("rule %d denies every address that %s may have", rule, c.attempt.host)
}

// reachable returns an error if no client may be connected to addr.
func (s *Server) reachable(addr netip.Addr) error {
	if s.allowOwn {
		return nil
	}
	return s.probe.checkForeign(addr)
}

// connectNext connects c to the next address that is permitted. The addresses share the
// time that is left.
func (s *Server) connectNext(c *conn) {
	a := c.attempt
	for len(a.addrs) > 0 {
		dst := netip.AddrPortFrom(a.addrs[0], a.port)
		share := (a.deadline - s.now) / time.Duration(len(a.addrs))
		a.addrs = a.addrs[1:]
		if err := s.dial(c, dst); err != nil {
			a.failures = append(a.failures, err)
			continue
		}
		s.enter(c, connecting, share)
		// The first segment says by how much windows are scaled, which depends on the size
		// of the buffer at that time. With a bounded buffer they are not scaled, but a fast
		// flow needs more than 64 kB. The first segment also offers a window of 64 kB, which
		// is too much when there are many connections.
		many := c.memory == leastMemory
		if many {
			if s.socketMemory < roomyMemory {
				c.rx.packet = smallPacket
			}
			s.limitBuffers(c, c.remote)
		}
		err := connect(c.remote, dst)
		if !many {
			s.limitBuffers(c, c.remote)
		}
		s.connected(c, err)
		return
	}
	s.end(c, errors.Join(a.failures...))
}

// dial makes a socket for c to connect to dst, if that is permitted.
func (s *Server) dial(c *conn, dst netip.AddrPort) error {
	if err := s.reachable(dst.Addr()); err != nil {
		return err
	}
	if err := s.allow(c, dst); err != nil {
		return err
	}
	fd, err := newSocket()
	if err != nil {
		return err
	}
	err = prepare(fd)
	if err == nil {
		err = s.poller.add(fd, ofRemote, c.number)
	}
	if err != nil {
		closeSocket(fd)
		return err
	}
	c.remote = fd
	return nil
}

// connected continues when the connection to the server is made, or tries the next address.
// err is what connect returned.
func (s *Server) connected(c *conn, err error) {
	if err == unix.EINPROGRESS || err == unix.EALREADY {
		return
	}
	if err != nil {
		s.failed(c, fmt.Errorf("connect to %s: %w", c.dst, err))
		return
	}
	s.establish(c, Out, c.dst)
}

// failed continues when c could not be connected to an address.
func (s *Server) failed(c *conn, err error) {
	closeSocket(c.remote)
	c.events[ofRemote] = 0
	c.remote, c.rx = none, flow{} // what was told of this socket is not true of the next
	c.attempt.failures = append(c.attempt.failures, err)
	s.connectNext(c)
}

// establish tells the client that it is connected to dst, and starts the relay.
func (s *Server) establish(c *conn, typ Type, dst netip.AddrPort) {
	c.called, c.dst = typ == In, dst
	s.count(c)
	s.enter(c, established, never)
	s.checkAt = min(s.checkAt, c.born+s.limits.watch)
	s.log.line(func() string { return fmt.Sprintf("connection %d opened: %s", c.number, c) })
	told := dst
	var err error
	if c.version == version5 && typ == Out {
		told, err = localAddr(c.remote) // RFC 1928, section 6
	}
	if err == nil {
		err = c.grant(told)
	}
	if err != nil {
		s.abort(c, err, ofClient)
		return
	}
	s.dropAttempt(c)
	c.tx.room, c.rx.room = newRoom, newRoom
	if c.tx.try || c.rx.try {
		s.relay(c)
	}
}

// maxSpare is how many attempts are kept for connections to come.
const maxSpare = 32

// newAttempt gives c an attempt for r.
func (s *Server) newAttempt(c *conn, r request) {
	var a *attempt
	if last := len(s.spare) - 1; last >= 0 {
		a, s.spare = s.spare[last], s.spare[:last]
	} else {
		a = &attempt{}
	}
	*a = attempt{request: r, one: [...]netip.Addr{r.addr}, deadline: s.now + s.limits.connect}
	c.attempt = a
}

// dropAttempt takes the attempt from c, which is established, for the next connection: what is left for the garbage
// collector takes memory until there is some MB of it.
func (s *Server) dropAttempt(c *conn) {
	a := c.attempt
	c.attempt = nil
	if len(s.spare) < maxSpare {
		*a = attempt{}
		s.spare = append(s.spare, a)
	}
}

// typ returns the type of c.
func (c *conn) typ() Type {
	switch {
	case c.state < established:
		return Unknown
	case c.called:
		return In
	}
	return Out
}

// watchPeers turns keepalive on for the peers of c, once c is old enough. Most connections
// end before that, and need no timers and system calls.
func (s *Server) watchPeers(c *conn) {
	if c.watched || c.state < established {
		return
	}
	if at := c.born + s.limits.watch; at > s.now {
		s.checkAt = min(s.checkAt, at)
		return
	}
	c.watched = true
	for _, fd := range [...]int{c.client, c.remote} {
		if fd == none {
			continue // a UDP ASSOCIATE
		}
		if err := keepAlive(fd); err != nil {
			s.log.printf("connection %d: %v", c.number, err) // the idle timeout still ends it
		}
	}
}

// bind listens for the call that the client asks for. The reply has room for one address:
// the one for the first peer that is permitted.
func (s *Server) bind(c *conn) {
	a := c.attempt
	for _, peer := range a.addrs {
		local, err := s.listen(c, peer)
		if err != nil {
			a.failures = append(a.failures, err)
			continue
		}
		a.peer, a.local = peer, local
		if s.open != nil {
			s.openFirewall(c, Opening{Peer: peer, Local: local}, c.call, func() { s.awaitCall(c) })
		} else {
			s.awaitCall(c)
		}
		return
	}
	s.end(c, errors.Join(a.failures...))
}

// listen makes c listen on an address that peer can reach, if peer may call.
func (s *Server) listen(c *conn, peer netip.Addr) (netip.AddrPort, error) {
	local, err := s.bindAddress(c, peer)
	if err != nil {
		return netip.AddrPort{}, err
	}
	fd, port, err := listenOn(local)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if port == s.cfg.Port {
		// The port is free on this address, but the firewall would be opened for the
		// port of the SOCKS server. While this listener exists, the next gets another port.
		defer closeSocket(fd)
		if fd, port, err = listenOn(local); err != nil {
			return netip.AddrPort{}, err
		}
	}
	if err := s.allow(c, netip.AddrPortFrom(peer, port)); err != nil {
		closeSocket(fd)
		return netip.AddrPort{}, err
	}
	c.call = fd
	return netip.AddrPortFrom(local, port), nil
}

// bindAddress returns the address that peer can call.
func (s *Server) bindAddress(c *conn, peer netip.Addr) (netip.Addr, error) {
	if !peer.IsUnspecified() {
		if err := s.reachable(peer); err != nil {
			return netip.Addr{}, err
		}
		return localTowards(peer)
	}
	if local, err := localTowards(defaultRouteProbe); err == nil {
		return local, nil
	}
	at, err := localAddr(c.client)
	return at.Addr(), err
}

// openFirewall makes an opening of the firewall for c, whose socket waits there, and then calls
// opened.
func (s *Server) openFirewall(c *conn, o Opening, socket int, opened func()) {
	if c.tx.ending {
		// The event that told so is over: no other will come.
		s.end(c, errLeft)
		return
	}
	a := c.attempt
	failed := func(err error) {
		s.end(c, fmt.Errorf("open the firewall for %s to %s: %w", o.Peer, o.Local, err))
	}
	s.enter(c, opening, s.limits.connect)
	s.addTask(c, &s.openings, &task{}, func(ctx context.Context) {
		var undo func()
		listener, err := s.duplicate(c, socket, o.Local)
		if err == nil {
			undo, err = s.open(ctx, o, listener)
			listener.Close()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.over {
			if err == nil {
				s.runNext(&s.openings, undo)
			}
			return
		}
		s.tick()
		a.task = nil
		if err != nil {
			failed(err)
			return
		}
		a.undo = undo
		opened()
	})
}

// duplicate returns a duplicate of a socket of c, which is bound to local, for Options.Open: that may outlast the
// connection and its descriptor. It is made when its turn has come, so that those that wait have no more
// descriptors than others.
func (s *Server) duplicate(c *conn, socket int, local netip.AddrPort) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.over { // socket is closed, and may be another by now
		return nil, net.ErrClosed
	}
	fd, err := unix.FcntlInt(uintptr(socket), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate the socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "socket on "+local.String()), nil
}

// awaitCall tells the client the address for the call, and waits for it.
func (s *Server) awaitCall(c *conn) {
	if c.tx.ending {
		s.end(c, errLeft)
		return
	}
	s.enter(c, calling, s.limits.bind)
	err := c.grant(c.attempt.local)
	if err == nil {
		// If somebody has called already, there is an event at once.
		err = s.poller.add(c.call, ofCall, c.number)
	}
	if err != nil {
		s.end(c, err)
	}
}

// called accepts the call for a BIND if it comes from the right peer.
func (s *Server) called(c *conn) {
	a := c.attempt
	fd, caller, err := acceptFrom(c.call)
	if err == unix.EAGAIN {
		return
	}
	if err != nil {
		s.end(c, fmt.Errorf("wait for %s on %s: %w", a.peer, a.local, err))
		return
	}
	if a.peer.IsUnspecified() {
		if err = s.allow(c, netip.AddrPortFrom(caller.Addr(), a.local.Port())); err != nil {
			err = fmt.Errorf("call: %w", err)
		}
	} else if caller.Addr() != a.peer {
		err = notAllowed("call from %s, not from %s", caller, a.peer)
	}
	if err == nil {
		err = s.poller.add(fd, ofRemote, c.number)
	}
	if err != nil {
		// A reset tells a caller that may not call nothing.
		reset(fd)
		closeSocket(fd)
		s.end(c, err)
		return
	}
	s.limitBuffers(c, fd)
	c.remote = fd
	s.endCall(c)
	s.establish(c, In, caller)
}

// endCall stops waiting for a call.
func (s *Server) endCall(c *conn) {
	if c.call != none {
		s.poller.remove(c.call)
		closeSocket(c.call)
		c.call, c.events[ofCall] = none, 0
	}
	if a := c.attempt; a != nil && a.undo != nil {
		s.runNext(&s.openings, a.undo)
		a.undo = nil
	}
}

// abort ends an established connection because one direction, that from a side, failed.
// Both sides are reset.
func (s *Server) abort(c *conn, err error, from role) {
	reset(c.client)
	reset(c.remote)
	name := "client to server"
	if from == ofRemote {
		name = "server to client"
	}
	s.end(c, fmt.Errorf("%s: %w", name, err))
}

// end ends c and frees its slot. err is the reason, nil if both sides have ended. The end of one
// connection can be that of others, whose places tasks get (runTasks): who goes on with a connection
// behind that looks whether it is over. One that is over stays as it is.
func (s *Server) end(c *conn, err error) {
	if c.over {
		return
	}
	c.over = true
	delete(s.conns, c.number)
	s.vacate(c)
	s.leaveTry(c)
	if a := c.attempt; a != nil && a.task != nil {
		s.leaveTask(c)
	}
	s.endCall(c)
	s.endAssociation(c)
	c.attempt = nil
	s.dropPipe(&c.tx)
	s.dropPipe(&c.rx)
	verb := "closed"
	if c.state < established {
		verb = "refused"
		s.count(c)
		c.refuse(err)
		if c.remote != none {
			reset(c.remote) // it may have been connected meanwhile
		}
	}
	if c.state < established || c.state == associated {
		s.poller.remove(c.client)
		s.dismiss(c.client)
		c.client = none
	}
	for _, fd := range [...]int{c.client, c.remote} {
		if fd == none {
			continue
		}
		if err != nil {
			resetUnsent(fd)
		}
		closeSocket(fd)
	}
	s.takeMemory(c)
	log := s.log.line
	switch err {
	case errDisabled, errDeniedNow, errUDPEnded, errRemoved, errMoved, errShutdown, errVersion, errPasswordNow, errNewPassword, errUserDisabled, errUserRemoved:
		log = s.log.unlimited
	}
	log(func() string {
		reason := "both sides ended"
		if err != nil {
			reason = err.Error()
		}
		return fmt.Sprintf("connection %d %s: %s tx=%d rx=%d duration=%v reason=%q", c.number, verb, c,
			c.tx.moved, c.rx.moved, (s.seen - c.came).Round(time.Millisecond), reason)
	})
}

// String returns what the opening and the closing line of c have in common.
func (c *conn) String() string {
	dst := "none"
	if c.dst.IsValid() {
		dst = c.dst.String()
	}
	about := fmt.Sprintf("type=%s src=%s dst=%s rule=%s user=%s", c.typ(), c.src, dst, ruleName(c.rule), shortQuote(c.user))
	if c.udp != nil {
		about += " udp=" + c.udp.local.String()
	}
	return about
}
