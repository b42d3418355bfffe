package socks

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Options are what a Server is made with, once.
type Options struct {
	// Logf, if set, is given one line at the opening and one at the closing of a
	// connection, and one when accepting fails. It must not call the Server.
	Logf func(format string, args ...any)
	// Open, if set, is called when a BIND listens, before its first reply: the
	// firewall shall let o.Peer in to o.Local. listener is the socket that
	// listens there. The function that it returns undoes it, and is called once,
	// when the wait ends. An error refuses the request. ctx ends with the
	// connection.
	Open func(ctx context.Context, o Opening, listener *net.TCPListener) (undo func(), err error)
	// AllowOwnAddresses lets clients connect to the machine that the server runs
	// on, as a laboratory needs. It opens everything that listens on loopback.
	AllowOwnAddresses bool
}

// Opening is a call that a BIND waits for.
type Opening struct {
	// Peer may call; 0.0.0.0 is anyone.
	Peer netip.Addr
	// Local is where the server listens, on a port that the kernel chose, other
	// than Config.Port.
	Local netip.AddrPort
}

// Connection is one of the active connections.
type Connection struct {
	// Number is the connection's own for the life of the server, from 1 up.
	Number uint64
	// Src is the client. Dst is the server of a CONNECT or the caller of a BIND;
	// while a BIND waits, who may call and the port that waits. It is the zero
	// AddrPort before that.
	Src, Dst netip.AddrPort
	// Tx is bytes from the client to the server, Rx from the server to the client.
	Tx, Rx uint64
	Type   Type
	// Age is the time since the client connected, Idle since anything last moved.
	Age, Idle time.Duration
	// UserID is what the client says, 0..255 bytes of anything but NUL.
	UserID string
}

// limits are the times that the states of a connection may take, and how much
// name resolution there may be.
type limits struct {
	handshake, connect, bind time.Duration
	lookups                  int // at a time
	addresses                int // of one name that are tried
}

func defaultLimits() limits {
	return limits{handshake: 10 * time.Second, connect: 30 * time.Second, bind: 2 * time.Minute, lookups: 8, addresses: 8}
}

// Why the server itself ends a connection: the reason in its closing line.
var (
	errHandshakeTimeout = errors.New("handshake timeout")
	errConnectTimeout   = errors.New("connect timeout")
	errBindTimeout      = errors.New("nobody called in time")
	errIdle             = errors.New("idle timeout")
	errReplaced         = errors.New("replaced: the table is full")
	errByUser           = errors.New("closed by number")
	errDeniedNow        = errors.New("denied by the new access list")
	errShutdown         = errors.New("shutdown")
)

// ErrClosed is returned by Configure after Shutdown.
var ErrClosed = errors.New("the SOCKS server has been shut down")

// Server is a SOCKS4 server. Its methods may be called from any goroutine.
type Server struct {
	log      limitedLog
	open     func(context.Context, Opening, *net.TCPListener) (func(), error)
	allowOwn bool
	limits   limits
	lookup   func(ctx context.Context, host string) ([]netip.Addr, error)
	lookups  chan struct{} // a slot for each name that is being resolved
	buffers  sync.Pool     // of *buffer
	running  sync.WaitGroup

	mu         sync.Mutex
	cfg        Config
	hits       []uint64 // of each rule of cfg.Access
	listener   *net.TCPListener
	conns      map[uint64]*conn
	handshakes list.List // of *conn, those whose request is not complete, oldest first
	last       uint64    // the highest number given
	closed     bool
}

// New returns a Server that is not enabled.
func New(o Options) *Server { return newServer(o, defaultLimits()) }

func newServer(o Options, l limits) *Server {
	s := &Server{
		log:      limitedLog{logf: o.Logf},
		open:     o.Open,
		allowOwn: o.AllowOwnAddresses,
		limits:   l,
		lookups:  make(chan struct{}, l.lookups),
		buffers:  sync.Pool{New: func() any { return new(buffer) }},
		cfg:      DefaultConfig(),
		conns:    map[uint64]*conn{},
	}
	// The resolver in Go needs no thread a name, unlike libc's.
	resolver := &net.Resolver{PreferGo: true}
	s.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
		return resolver.LookupNetIP(ctx, "ip4", host)
	}
	return s
}

// Configure puts cfg in force. l, if not nil, is where to accept from now on, in
// place of the listener before; it belongs to the Server, which closes it also
// when Configure fails. cfg.Port is not looked at beyond its range: who makes
// the listener obeys it.
//
// Not enabled means that nothing is accepted: the listener is closed, and being
// enabled again takes a new one. When Configure returns nil and cfg is enabled,
// the server accepts. Open connections stay, but for those that the access list
// now denies; a lower MaxConnections closes none, a new idle timeout counts from
// when each last moved something.
//
// An error (a value out of range, enabled without a listener, ErrClosed) leaves
// all as it was.
func (s *Server) Configure(cfg Config, l *net.TCPListener) error {
	if err := s.configure(cfg, l); err != nil {
		if l != nil {
			l.Close()
		}
		return fmt.Errorf("configure SOCKS: %w", err)
	}
	return nil
}

func (s *Server) configure(cfg Config, l *net.TCPListener) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg.Access = slices.Clone(cfg.Access)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if cfg.Enabled && l == nil && s.listener == nil {
		return errors.New("enabled, but there is no listener")
	}
	s.hits = carryHits(cfg.Access, s.cfg.Access, s.hits)
	s.cfg = cfg
	for _, c := range s.conns {
		if c.judged.IsValid() {
			rule, action := decide(cfg.Access, c.src, c.judged)
			c.rule = rule
			if action == Deny {
				c.end(errDeniedNow)
			}
		}
		c.timer.Reset(0) // the idle timeout may be another
	}
	if s.listener != nil && (l != nil || !cfg.Enabled) {
		s.listener.Close()
		s.listener = nil
	}
	switch {
	case l == nil:
	case !cfg.Enabled:
		l.Close()
	default:
		s.listener = l
		s.running.Go(func() { s.accept(l) })
	}
	return nil
}

// Connections returns the active connections in the order of their numbers.
func (s *Server) Connections() []Connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Connection, 0, len(s.conns))
	for _, c := range s.conns {
		all = append(all, Connection{
			Number: c.number, Src: c.src, Dst: c.dst, Type: c.typ, UserID: c.user,
			Tx: c.meter.tx.Load(), Rx: c.meter.rx.Load(),
			Age: time.Since(c.meter.born), Idle: time.Since(c.meter.lastMoved()),
		})
	}
	slices.SortFunc(all, func(a, b Connection) int { return cmp.Compare(a.Number, b.Number) })
	return all
}

// CloseConnection closes the connection of that number, and returns an error if
// there is none.
func (s *Server) CloseConnection(number uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.conns[number]
	if !ok {
		return fmt.Errorf("close SOCKS connection %d: no such connection", number)
	}
	c.end(errByUser)
	return nil
}

// Hits returns how many new connections each rule of the access list has
// decided about. A rule keeps its count when the list changes around it.
func (s *Server) Hits() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.hits)
}

// Shutdown stops accepting, closes every connection, and returns when all is
// released.
func (s *Server) Shutdown() {
	s.mu.Lock()
	s.closed = true
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
	for _, c := range s.conns {
		c.end(errShutdown)
	}
	s.mu.Unlock()
	s.running.Wait()
}

// accept takes connections from l until it is closed.
func (s *Server) accept(l *net.TCPListener) {
	var pause time.Duration
	for {
		client, err := l.AcceptTCP()
		if err == nil {
			pause = 0
			s.take(client)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// Descriptors or memory are short. The kernel holds the connections
		// meanwhile; trying again at once would spin.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.log.printf("accept on %s: %v; again in %v", l.Addr(), err, pause)
		time.Sleep(pause)
	}
}

// take gives a new connection a slot, or refuses it.
func (s *Server) take(client *net.TCPConn) {
	src := unmapped(client.RemoteAddr().(*net.TCPAddr).AddrPort())
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		client.Close()
		return
	}
	if limit := s.cfg.MaxConnections; len(s.conns) >= limit {
		oldest := s.handshakes.Front()
		if oldest == nil {
			s.mu.Unlock()
			reply(client, appendReply(nil, replyRejected, netip.AddrPort{}))
			hangUp(client)
			s.log.printf("connection refused: src=%s reason=%q", src, fmt.Sprintf("all %d connections are taken", limit))
			return
		}
		c := oldest.Value.(*conn)
		s.drop(c)
		c.end(errReplaced)
	}
	s.last++
	ctx, cancel := context.WithCancelCause(context.Background())
	c := &conn{
		number: s.last, client: client, src: src, end: cancel,
		meter: meter{born: time.Now()}, typ: Unknown, rule: noRule, state: handshaking,
	}
	c.limit = c.meter.born.Add(s.limits.handshake)
	c.waiting = s.handshakes.PushBack(c)
	s.conns[c.number] = c
	c.timer = time.AfterFunc(c.until(s.cfg.ConnectionIdleTimeout), func() { s.checkTime(c) })
	s.mu.Unlock()
	s.running.Go(func() { s.serve(ctx, c) })
}

// drop takes c out of the table, if it is still there: its slot is free. s.mu is
// held.
func (s *Server) drop(c *conn) {
	delete(s.conns, c.number)
	s.leaveHandshake(c)
	c.timer.Stop()
}

func (s *Server) leaveHandshake(c *conn) {
	if c.waiting != nil {
		s.handshakes.Remove(c.waiting)
		c.waiting = nil
	}
}

// checkTime ends c if its time is over, else sets its timer anew. The timer is
// not touched when bytes move: it asks here, late, how long the silence is.
func (s *Server) checkTime(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns[c.number] != c {
		return
	}
	rest := c.until(s.cfg.ConnectionIdleTimeout)
	switch {
	case rest > 0:
		c.timer.Reset(rest)
	case c.limitOver():
		c.end(c.state.timeout())
	default:
		c.end(errIdle)
	}
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
