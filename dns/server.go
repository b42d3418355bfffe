package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// port is the port of name servers.
	port = 53
	// maxQuery is how many bytes a query has at most.
	maxQuery = 4096
	// sessionIdle is how long a TCP connection of a client waits for the next query, for the rest
	// of one or for the client to take an answer, sessionQueries how many it can ask.
	sessionIdle    = 10 * time.Second
	sessionQueries = 100
	// maxLarge is how many answers can be on their way over TCP at once: each can have 64 KiB.
	maxLarge = 4
	// pause is from an error of a socket to the next attempt.
	pause = 100 * time.Millisecond
	// patience is how long one server is waited for before the next is asked besides: a dead one
	// costs the client no more than that, and a slow one may still answer.
	patience = 500 * time.Millisecond
	// maxBesides is how many such further questions there can be at once.
	maxBesides = 32
)

// shares counts what each client has of something.
type shares struct {
	total int
	by    map[netip.Addr]int
}

// enter gives a client one more of max, if it has less than there are free: one client gets half at
// most, and leaves room for the next.
func (s *shares) enter(client netip.Addr, max int) bool {
	if s.by[client] >= max-s.total {
		return false
	}
	if s.by == nil {
		s.by = map[netip.Addr]int{}
	}
	s.total++
	s.by[client]++
	return true
}

func (s *shares) leave(client netip.Addr) {
	s.total--
	if s.by[client]--; s.by[client] == 0 {
		delete(s.by, client)
	}
}

// server answers clients.
type server struct {
	ctx  context.Context
	port uint16 // of upstream servers
	work sync.WaitGroup
	// large has an element for each exchange over TCP, besides for each server that is asked
	// besides another one.
	large, besides chan struct{}

	mu       sync.Mutex
	config   Config
	servers  []netip.Addr
	names    names
	cache    cache
	current  int // of servers: the one that works
	flights  map[string][]*waiter
	waiting  shares
	sessions shares
	// changes counts configurations: what was asked before one is not kept after it.
	changes int
}

// waiter is a client that waits for an answer of an upstream server, of size bytes at most.
type waiter struct {
	q      *query
	key    string
	client netip.Addr
	stream bool
	size   int
	outcome
	reply func([]byte)
}

// fit returns what of the answer b the client gets. The router's own lookups do not keep what the
// configuration says: it changes at once.
func (w *waiter) fit(b []byte) []byte {
	if w.client.IsLoopback() && (w.outcome.answer != nil || w.alias != nil) {
		_, _ = eachRecord(b, func(_ int, r record) {
			if r.typ != typeOPT {
				clear(b[r.ttlAt:][:4])
			}
		})
	}
	return w.q.fit(b, w.size)
}

func newServer(ctx context.Context) *server {
	return &server{ctx: ctx, port: port, large: make(chan struct{}, maxLarge), besides: make(chan struct{}, maxBesides),
		flights: map[string][]*waiter{}}
}

// configure brings the server to a configuration. Of the cache everything is forgotten, since other
// servers may say something else.
func (s *server) configure(c Config, servers []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hosts := s.names.hosts
	s.config, s.servers, s.names, s.current = c, servers, newNames(c.Static), 0
	s.names.hosts = hosts
	s.forget()
}

// forget empties the cache. The caller holds mu.
func (s *server) forget() {
	s.cache = cache{limit: s.config.CacheSize << 10}
	s.changes++
}

// flush empties the cache.
func (s *server) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
}

// setNames sets the names of hosts that have a lease, in place of those that were set before.
func (s *server) setNames(all map[string]netip.Addr) {
	hosts := newHosts(all)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names.hosts = hosts
}

// take answers the query b of a client, with nil if it gets no answer. What has to be asked for is
// not answered yet: that is for wait. stream says that the query came over TCP, where an answer has
// any size.
func (s *server) take(b []byte, client netip.Addr, stream bool) (answer []byte, later *waiter) {
	q, answered, err := parseQuery(b)
	switch {
	case !answered:
		return nil, nil
	case q.unsupported:
		return q.reply(codeNotImplemented), nil
	case err != nil:
		return q.reply(codeFormat), nil
	case q.badVersion:
		return q.addOPT(q.reply(codeOK), 1), nil // BADVERS
	case q.typ == typeAXFR || q.typ == typeIXFR: // is no question for a cache
		return q.fail(codeNotImplemented), nil
	case q.typ == typeANY && !stream:
		// Its large answers are for who forges the address of another (RFC 8482, section 4.4).
		return q.tooLarge(codeOK), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &waiter{q: q, key: q.key(), client: client, stream: stream, outcome: s.names.answer(q), size: math.MaxInt}
	if !stream {
		w.size = min(q.size, s.config.MaxUDP, safeSize)
	}
	if w.outcome.answer != nil {
		return w.fit(w.outcome.answer), nil
	}
	if w.alias == nil {
		most := seconds(s.config.MaxTTL)
		if a, age, ok := s.cache.get(w.key, time.Now(), most); ok {
			return w.fit(w.final(q, a, age, most)), nil
		}
	}
	q.question = slices.Clone(q.question) // b is the caller's
	return nil, w
}

// wait has what w waits for asked. reply is called once, mostly later, with nil if there is no answer.
func (s *server) wait(w *waiter, reply func([]byte)) {
	w.reply = func(b []byte) { reply(w.fit(b)) }
	s.mu.Lock()
	if !s.waiting.enter(w.client, s.config.MaxQueries) {
		s.mu.Unlock()
		if w.stream {
			reply(w.q.fail(codeFailure))
		} else {
			reply(nil) // the client asks again by itself
		}
		return
	}
	others, asked := s.flights[w.key]
	s.flights[w.key] = append(others, w)
	s.mu.Unlock()
	if !asked {
		s.work.Go(func() { s.fly(w.key, w.q, w.outcome) })
	}
}

// fly asks upstream and gives the answer to all who wait for it.
func (s *server) fly(key string, q *query, o outcome) {
	asked := q
	if o.target != "" {
		asked = q.about(o.target)
	}
	a, age, err := s.lookup(asked, o.server)
	s.mu.Lock()
	waiters := s.flights[key]
	delete(s.flights, key)
	for _, w := range waiters {
		s.waiting.leave(w.client)
	}
	most := seconds(s.config.MaxTTL)
	s.mu.Unlock()
	for _, w := range waiters {
		switch {
		case err == nil && (!a.truncated || !w.stream):
			w.reply(o.final(w.q, a, age, most))
		case o.known:
			w.reply(o.final(w.q, answer{code: codeFailure}, 0, most))
		default:
			w.reply(w.q.fail(codeFailure))
		}
	}
}

// lookup returns the answer of an upstream server, or of the cache.
func (s *server) lookup(q *query, forward netip.Addr) (answer, uint32, error) {
	s.mu.Lock()
	key, changes := q.key(), s.changes
	if a, age, ok := s.cache.get(key, time.Now(), seconds(s.config.MaxTTL)); ok {
		s.mu.Unlock()
		return a, age, nil
	}
	servers, first, config := s.servers, s.current, s.config
	s.mu.Unlock()
	if forward.IsValid() {
		servers, first = []netip.Addr{forward}, 0
	}
	a, last, err := s.exchangeAny(q, servers, first, config)
	if err != nil {
		return a, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == changes {
		if !forward.IsValid() && last >= 0 {
			s.current = last
		}
		s.cache.put(key, a, time.Now())
	}
	return a, 0, nil
}

var errNoServer = errors.New("no server answers")

// exchangeAny asks servers in turn, beginning with the first, until one knows: the next one when one
// fails, or says nothing for a moment. It returns the one to begin with next time, the first that was
// alive; -1 if none was.
func (s *server) exchangeAny(q *query, servers []netip.Addr, first int, c Config) (answer, int, error) {
	ctx, cancel := context.WithTimeout(s.ctx, c.TotalTimeout)
	defer cancel()
	type result struct {
		server int
		answer
		err error
	}
	var ask []int // servers, in this order
	for i := range servers {
		ask = append(ask, (first+i)%len(servers))
	}
	var second answer // of a server that lives, but does not know, or cannot say all
	alive, running := -1, 0
	results := make(chan result)
	next := time.NewTimer(0)
	defer next.Stop()
	for len(ask) > 0 || running > 0 {
		select {
		case <-next.C:
			next.Reset(patience)
			if len(ask) == 0 {
				continue
			}
			besides := running > 0
			if besides {
				select {
				case s.besides <- struct{}{}:
				default:
					continue
				}
			}
			n := ask[0]
			ask = ask[1:]
			running++
			s.work.Go(func() {
				a, err := s.exchange(ctx, q, servers[n], c.ServerTimeout)
				if besides {
					<-s.besides
				}
				select {
				case results <- result{n, a, err}:
				case <-ctx.Done():
				}
			})
		case r := <-results:
			running--
			var timeout net.Error
			switch {
			case errors.As(r.err, &timeout) && timeout.Timeout() && second.message == nil:
				ask = append(ask, r.server) // the message may be lost
			case r.err != nil: // a host that says that it is no server is not asked again
			default:
				if alive < 0 {
					alive = r.server
				}
				if !r.truncated && (r.code == codeOK || r.code == codeNoName) {
					return r.answer, alive, nil
				}
				if second.message == nil || r.truncated {
					second = r.answer
				}
			}
			next.Reset(0)
		case <-ctx.Done():
			ask, running = nil, 0
		}
	}
	if second.message == nil {
		return answer{}, -1, errNoServer
	}
	return second, alive, nil
}

// exchange asks one server: over UDP, and over TCP if the answer is too large for that. If the latter
// fails it returns the truncated answer.
func (s *server) exchange(ctx context.Context, q *query, to netip.Addr, limit time.Duration) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	a, err := s.exchangeBy(ctx, "udp4", q, to)
	if err == nil && q.edns && !a.edns && (a.code == codeFormat || a.code == codeNotImplemented) {
		plain := *q // without what it may not understand (RFC 6891, section 6.2.2)
		plain.edns = false
		q = &plain
		a, err = s.exchangeBy(ctx, "udp4", q, to)
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // not that the socket was closed because of that
	}
	if err != nil || !a.truncated {
		return a, err
	}
	select {
	case s.large <- struct{}{}:
	case <-ctx.Done():
		return a, nil
	}
	defer func() { <-s.large }()
	if whole, err := s.exchangeBy(ctx, "tcp4", q, to); err == nil && !whole.truncated {
		return whole, nil
	}
	return a, nil
}

// exchangeBy asks over one protocol, by a socket of its own: it has a port that nobody can guess, and
// being connected it takes messages of this server only.
func (s *server) exchangeBy(ctx context.Context, network string, q *query, to netip.Addr) (answer, error) {
	// Not DialContext: with it comes the resolver of package net, 0.15 MB of the program.
	var dialer net.Dialer
	var conn net.Conn
	var err error
	if server := netip.AddrPortFrom(to, s.port); network == "tcp4" {
		conn, err = dialer.DialTCP(ctx, network, netip.AddrPort{}, server)
	} else {
		conn, err = dialer.DialUDP(ctx, network, netip.AddrPort{}, server)
	}
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return answer{}, err
		}
	}
	var random [2]byte
	if _, err := rand.Read(random[:]); err != nil {
		return answer{}, err
	}
	id := binary.BigEndian.Uint16(random[:])
	message := q.ask(id)
	if network == "tcp4" {
		if err := writeStream(conn, message); err != nil {
			return answer{}, err
		}
		b, err := readStream(conn, 65535)
		if err != nil {
			return answer{}, err
		}
		a, ok := parseAnswer(b, q, id)
		if !ok {
			return a, errMalformed
		}
		return a, nil
	}
	if _, err := conn.Write(message); err != nil {
		return answer{}, err
	}
	b := make([]byte, 2048)
	for {
		n, err := conn.Read(b)
		if err != nil {
			return answer{}, err
		}
		if a, ok := parseAnswer(b[:n], q, id); ok {
			a.message = slices.Clone(a.message)
			return a, nil
		}
	}
}

// writeStream writes a message with its length ahead of it (RFC 1035, section 4.2.2).
func writeStream(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, len(b)+2), uint16(len(b))), b...))
	return err
}

// readStream reads such a message of at most max bytes.
func readStream(r io.Reader, max int) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if n > max {
		return nil, errMalformed
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

// serveUDP answers what comes to a socket, from the address that was asked, until it is closed.
func (s *server) serveUDP(conn *net.UDPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return // it is closed
	}
	b := newBatch()
	n := 0
	receive := func(fd uintptr) bool {
		n, err = b.receive(fd)
		return err != unix.EAGAIN
	}
	send := func(fd uintptr) bool { b.send(fd); return true }
	for {
		switch closed := raw.Read(receive); {
		case closed != nil:
			return
		case err == unix.EINTR:
			continue
		case err != nil:
			time.Sleep(pause)
			continue
		}
		for i := range n {
			message, from, control := b.datagram(i)
			if message == nil {
				continue
			}
			answer, later := s.take(message, from.Addr(), false)
			if answer != nil {
				b.answer(i, answer)
			}
			if later != nil {
				source := slices.Clone(control)
				fromAsked(source)
				s.wait(later, func(answer []byte) {
					if answer != nil {
						// What cannot be sent is lost, as on a cable: the client asks again.
						_, _, _ = conn.WriteMsgUDPAddrPort(answer, source, from)
					}
				})
			}
		}
		if b.answers > 0 && raw.Write(send) != nil {
			return
		}
	}
}

// serveTCP answers the connections of a listener until it is closed.
func (s *server) serveTCP(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(pause)
			continue
		}
		from, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
		client := from.Addr().Unmap()
		s.mu.Lock()
		ok := s.sessions.enter(client, s.config.MaxSessions)
		s.mu.Unlock()
		if !ok {
			conn.Close()
			continue
		}
		s.work.Go(func() {
			defer func() {
				conn.Close()
				s.mu.Lock()
				defer s.mu.Unlock()
				s.sessions.leave(client)
			}()
			defer context.AfterFunc(s.ctx, func() { conn.Close() })()
			s.session(conn, client)
		})
	}
}

// session answers one connection, a query after the other.
func (s *server) session(conn net.Conn, client netip.Addr) {
	for range sessionQueries {
		if conn.SetDeadline(time.Now().Add(sessionIdle)) != nil {
			return
		}
		b, err := readStream(conn, maxQuery)
		if err != nil {
			return
		}
		answer, later := s.take(b, client, true)
		if later != nil {
			replies := make(chan []byte, 1)
			s.wait(later, func(b []byte) { replies <- b })
			answer = <-replies // at the latest when the time for upstream servers is over
		}
		if answer == nil || conn.SetDeadline(time.Now().Add(sessionIdle)) != nil || writeStream(conn, answer) != nil {
			return
		}
	}
}

// Listen opens the sockets that the server answers at, UDP and TCP, for Configure: port 53 of all
// addresses, as who may reach it is the firewall's to say.
func Listen() (udp, tcp *os.File, err error) {
	return listen(netip.AddrPortFrom(netip.IPv4Unspecified(), port))
}

func listen(at netip.AddrPort) (udp, tcp *os.File, err error) {
	if udp, err = socketAt(at, unix.SOCK_DGRAM); err != nil {
		return nil, nil, err
	}
	if tcp, err = socketAt(at, unix.SOCK_STREAM); err != nil {
		udp.Close()
		return nil, nil, err
	}
	return udp, tcp, nil
}

func socketAt(at netip.AddrPort, typ int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if typ == unix.SOCK_STREAM {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	} else {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())})
	}
	if err == nil && typ == unix.SOCK_STREAM {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("listen for DNS on "+at.String(), err)
	}
	return os.NewFile(uintptr(fd), "DNS at "+at.String()), nil
}
