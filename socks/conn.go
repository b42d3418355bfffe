package socks

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// state is how far a connection is.
type state int

const (
	handshaking state = iota // the request is not complete
	connecting               // resolving a name, calling the server
	calling                  // a BIND waits to be called
	established
)

// timeout is the reason when the time for a state is over.
func (s state) timeout() error {
	switch s {
	case handshaking:
		return errHandshakeTimeout
	case connecting:
		return errConnectTimeout
	default:
		return errBindTimeout
	}
}

// conn is a connection with a client, and what becomes of it.
type conn struct {
	number uint64
	client *net.TCPConn
	src    netip.AddrPort
	meter  meter
	// end ends the connection for a reason, from outside of its goroutine. The
	// first call counts.
	end context.CancelCauseFunc

	// Server.mu guards the rest.

	timer   *time.Timer   // calls Server.checkTime
	waiting *list.Element // in Server.handshakes
	state   state
	limit   time.Time // when the state must be over; zero when established
	typ     Type
	dst     netip.AddrPort
	// judged is the destination that the access list decided about. It is dst
	// but for the port of a BIND that was called.
	judged netip.AddrPort
	rule   int
	user   string
}

// until returns how long the connection has if nothing moves.
func (c *conn) until(idle time.Duration) time.Duration {
	rest := time.Until(c.meter.lastMoved().Add(idle))
	if !c.limit.IsZero() {
		rest = min(rest, time.Until(c.limit))
	}
	return rest
}

func (c *conn) limitOver() bool { return !c.limit.IsZero() && time.Until(c.limit) <= 0 }

// enter puts c in a state that may take d; 0 is for ever.
func (s *Server) enter(c *conn, to state, d time.Duration) {
	c.meter.touch()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveHandshake(c)
	c.state = to
	c.limit = time.Time{}
	if d > 0 {
		c.limit = time.Now().Add(d)
	}
	if s.conns[c.number] == c {
		c.timer.Reset(c.until(s.cfg.ConnectionIdleTimeout))
	}
}

// serve is the life of a connection.
func (s *Server) serve(ctx context.Context, c *conn) {
	remote, early, err := s.begin(ctx, c)
	verb := "refused"
	if err == nil {
		verb = "closed"
		err = relay(ctx, &s.buffers, c.client, remote, early, &c.meter)
	} else if ctx.Err() != nil {
		err = context.Cause(ctx)
	}

	s.mu.Lock()
	s.drop(c)
	s.mu.Unlock()
	c.end(nil) // releases ctx
	if remote == nil {
		reply(c.client, appendReply(nil, replyRejected, netip.AddrPort{}))
		hangUp(c.client)
	} else {
		c.client.Close()
		remote.Close()
	}
	reason := "both sides ended"
	if err != nil {
		reason = err.Error()
	}
	s.log.printf("connection %d %s: %s tx=%d rx=%d duration=%v reason=%q", c.number, verb, s.describe(c),
		c.meter.tx.Load(), c.meter.rx.Load(), time.Since(c.meter.born).Round(time.Millisecond), reason)
}

// describe is what the opening and the closing line of c have in common.
func (s *Server) describe(c *conn) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	dst := "none"
	if c.dst.IsValid() {
		dst = c.dst.String()
	}
	return fmt.Sprintf("type=%s src=%s dst=%s rule=%s user=%q", c.typ, c.src, dst, ruleName(c.rule), c.user)
}

// begin does what comes before the relaying: it returns the other side, to which
// the client has been told that it is connected, and what the client sent behind
// its request.
func (s *Server) begin(ctx context.Context, c *conn) (remote *net.TCPConn, early []byte, err error) {
	if err := prepare(c.client); err != nil {
		return nil, nil, err
	}
	req, early, err := readRequest(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	c.user = req.user
	s.mu.Unlock()
	s.enter(c, connecting, s.limits.connect)
	if req.command == commandBind {
		remote, err = s.bind(ctx, c, req)
	} else {
		remote, err = s.connect(ctx, c, req)
	}
	return remote, early, err
}

// readRequest reads the client's request, and returns what came behind it too.
func readRequest(ctx context.Context, c *conn) (request, []byte, error) {
	stop := context.AfterFunc(ctx, func() { c.client.SetDeadline(longAgo) })
	defer stop()
	b := make([]byte, 0, maxRequest)
	for {
		n, err := c.client.Read(b[len(b):cap(b)])
		if err != nil {
			return request{}, nil, fmt.Errorf("read request after %d bytes: %w", len(b), err)
		}
		c.meter.touch()
		b = b[:len(b)+n]
		req, length, err := parseRequest(b)
		if err != nil {
			return request{}, nil, fmt.Errorf("request: %w", err)
		}
		if length > 0 {
			return req, b[length:], nil
		}
	}
}

// allow returns an error if the access list denies c to dst, and makes dst its
// destination otherwise. Both in one step: a list that is changed later finds
// the connection and judges it again.
func (s *Server) allow(c *conn, dst netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rule, action := decide(s.cfg.Access, c.src, dst)
	if rule != noRule {
		s.hits[rule]++
	}
	c.rule, c.dst = rule, dst
	if action == Deny {
		return fmt.Errorf("rule %d denies %s", rule, dst)
	}
	c.judged = dst
	return nil
}

// reachable returns an error if addr is one that nobody may be connected to.
func (s *Server) reachable(addr netip.Addr) error {
	if s.allowOwn {
		return nil
	}
	return checkForeign(addr)
}

// addresses returns the addresses that req means.
func (s *Server) addresses(ctx context.Context, req request) ([]netip.Addr, error) {
	if req.host == "" {
		return []netip.Addr{req.addr}, nil
	}
	select {
	case s.lookups <- struct{}{}:
		defer func() { <-s.lookups }()
	case <-ctx.Done():
		return nil, fmt.Errorf("resolve %q: %w", req.host, ctx.Err())
	}
	found, err := s.lookup(ctx, req.host)
	if err != nil {
		return nil, fmt.Errorf("resolve %q: %w", req.host, err)
	}
	var addrs []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); a.Is4() && len(addrs) < s.limits.addresses {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("resolve %q: no IPv4 address", req.host)
	}
	return addrs, nil
}

// connect serves CONNECT. The addresses of a name share the time that there is.
func (s *Server) connect(ctx context.Context, c *conn, req request) (*net.TCPConn, error) {
	deadline := time.Now().Add(s.limits.connect)
	addrs, err := s.addresses(ctx, req)
	if err != nil {
		return nil, err
	}
	var failures []error
	for i, addr := range addrs {
		share := time.Until(deadline) / time.Duration(len(addrs)-i)
		remote, err := s.dial(ctx, c, netip.AddrPortFrom(addr, req.port), share)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		s.opened(c, Out, netip.AddrPortFrom(addr, req.port))
		if err := reply(c.client, appendReply(nil, replyGranted, netip.AddrPortFrom(addr, req.port))); err != nil {
			remote.Close()
			return nil, err
		}
		return remote, nil
	}
	return nil, errors.Join(failures...)
}

// dial connects to dst if that is permitted.
func (s *Server) dial(ctx context.Context, c *conn, dst netip.AddrPort, timeout time.Duration) (*net.TCPConn, error) {
	if err := s.reachable(dst.Addr()); err != nil {
		return nil, err
	}
	if err := s.allow(c, dst); err != nil {
		return nil, err
	}
	var dialer net.Dialer
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	remote, err := dialer.DialContext(ctx, "tcp4", dst.String())
	if err != nil {
		return nil, err
	}
	if err := prepare(remote.(*net.TCPConn)); err != nil {
		remote.Close()
		return nil, err
	}
	return remote.(*net.TCPConn), nil
}

// opened makes c an established connection with dst.
func (s *Server) opened(c *conn, typ Type, dst netip.AddrPort) {
	s.mu.Lock()
	c.typ, c.dst = typ, dst
	s.mu.Unlock()
	s.enter(c, established, 0)
	s.log.printf("connection %d opened: %s", c.number, s.describe(c))
}

// bind serves BIND.
func (s *Server) bind(ctx context.Context, c *conn, req request) (*net.TCPConn, error) {
	addrs, err := s.addresses(ctx, req)
	if err != nil {
		return nil, err
	}
	// Only one address can be told in the reply: the first that is permitted.
	var failures []error
	for _, peer := range addrs {
		l, err := s.listen(c, peer)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		defer l.Close()
		return s.awaitCall(ctx, c, peer, l)
	}
	return nil, errors.Join(failures...)
}

// listen returns a listener that peer can reach, if peer may call.
func (s *Server) listen(c *conn, peer netip.Addr) (*net.TCPListener, error) {
	var local netip.Addr
	var err error
	if peer.IsUnspecified() {
		if local, err = localTowards(defaultRouteProbe); err != nil {
			local = unmapped(c.client.LocalAddr().(*net.TCPAddr).AddrPort()).Addr()
		}
	} else {
		if err := s.reachable(peer); err != nil {
			return nil, err
		}
		if local, err = localTowards(peer); err != nil {
			return nil, err
		}
	}
	l, err := listenTCP(local)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	own := s.cfg.Port
	s.mu.Unlock()
	if l.Addr().(*net.TCPAddr).AddrPort().Port() == own {
		// Free on this address, but then the firewall would be opened for the
		// port of the SOCKS server. With this one held, the next is another.
		defer l.Close()
		if l, err = listenTCP(local); err != nil {
			return nil, err
		}
	}
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	if err := s.allow(c, netip.AddrPortFrom(peer, port)); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// listenTCP returns a listener on a free port of local.
func listenTCP(local netip.Addr) (*net.TCPListener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // which Go would ask for
	l, err := lc.Listen(context.Background(), "tcp4", netip.AddrPortFrom(local, 0).String())
	if err != nil {
		return nil, fmt.Errorf("listen for a call on %s: %w", local, err)
	}
	return l.(*net.TCPListener), nil
}

// awaitCall tells the client where l listens, waits for the call of peer, and
// tells the client who called.
func (s *Server) awaitCall(ctx context.Context, c *conn, peer netip.Addr, l *net.TCPListener) (*net.TCPConn, error) {
	local := unmapped(l.Addr().(*net.TCPAddr).AddrPort())
	if s.open != nil {
		undo, err := s.open(ctx, Opening{Peer: peer, Local: local}, l)
		if err != nil {
			return nil, fmt.Errorf("open the firewall for %s to %s: %w", peer, local, err)
		}
		defer undo()
	}
	s.enter(c, calling, s.limits.bind)
	if err := reply(c.client, appendReply(nil, replyGranted, local)); err != nil {
		return nil, err
	}

	// While nothing is read from the client, somebody must notice that it left.
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if err := awaitEnd(c.client); err != nil {
			c.end(fmt.Errorf("client left: %w", err))
		}
	}()
	stop := context.AfterFunc(ctx, func() { l.SetDeadline(longAgo) })
	remote, err := l.AcceptTCP()
	stop()
	c.client.SetReadDeadline(longAgo)
	<-watched
	c.client.SetReadDeadline(time.Time{})
	if err != nil {
		return nil, fmt.Errorf("wait for %s on %s: %w", peer, local, err)
	}
	if err := s.answer(c, peer, local.Port(), remote); err != nil {
		// A reset, so that a caller that may not call is told nothing.
		remote.SetLinger(0)
		remote.Close()
		return nil, err
	}
	return remote, nil
}

// answer takes a call if it is from peer.
func (s *Server) answer(c *conn, peer netip.Addr, port uint16, remote *net.TCPConn) error {
	caller := unmapped(remote.RemoteAddr().(*net.TCPAddr).AddrPort())
	if peer.IsUnspecified() {
		if err := s.allow(c, netip.AddrPortFrom(caller.Addr(), port)); err != nil {
			return fmt.Errorf("call: %w", err)
		}
	} else if caller.Addr() != peer {
		return fmt.Errorf("call from %s, not from %s", caller, peer)
	}
	if err := prepare(remote); err != nil {
		return err
	}
	s.opened(c, In, caller)
	return reply(c.client, appendReply(nil, replyGranted, caller))
}
