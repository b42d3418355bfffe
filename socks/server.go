package socks

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options are what a Server is made with, once.
type Options struct {
	// Logf, if set, is given one line at the opening and one at the closing of a
	// connection, and one when accepting fails. It is called from one goroutine,
	// and may take its time: lines that it does not keep up with are dropped.
	Logf func(format string, args ...any)
	// Open, if set, is called when a BIND listens, before its first reply: the
	// firewall shall let o.Peer in to o.Local. listener is a duplicate of the
	// socket that listens there, for the time of the call. The function that it
	// returns undoes it, and is called once, when the wait ends. An error refuses
	// the request. ctx ends with the connection.
	Open func(ctx context.Context, o Opening, listener *os.File) (undo func(), err error)
	// SocketMemory, in bytes, is shared out as socket buffers among the connections:
	// a third of it among all that come, the rest among those that move much in a short
	// time. All have at least 4.5 kB, also when nothing is left. 0 leaves the buffers to
	// the kernel, which bounds them all together only.
	SocketMemory int
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
// may be done at a time for connections that wait.
type limits struct {
	handshake, connect, bind time.Duration
	attend                   time.Duration // how old a connection is before its peers are watched
	lookups                  int           // names resolved at a time
	openings                 int           // calls of Options.Open at a time
	addresses                int           // of one name that are tried
}

func defaultLimits() limits {
	return limits{
		handshake: 10 * time.Second, connect: 30 * time.Second, bind: 2 * time.Minute,
		attend:  10 * time.Second,
		lookups: 8, openings: 8, addresses: 8,
	}
}

// Why the server itself ends a connection: the reason in its closing line.
var (
	errHandshakeTimeout = errors.New("handshake timeout")
	errConnectTimeout   = errors.New("connect timeout")
	errBindTimeout      = errors.New("nobody called in time")
	errIdle             = errors.New("idle timeout")
	errLeft             = fmt.Errorf("client left: %w", io.EOF)
	errReplaced         = errors.New("replaced: the table is full")
	errByUser           = errors.New("closed by number")
	errDeniedNow        = errors.New("denied by the new access list")
	errDisabled         = errors.New("the service was disabled")
	errShutdown         = errors.New("shutdown")
)

// ErrClosed is returned by Configure after Shutdown.
var ErrClosed = errors.New("the SOCKS server has been shut down")

// Server is a SOCKS4 server. Its methods may be called from any goroutine.
//
// One goroutine, the loop, waits for every socket of the server and does all
// that does not wait; names are resolved and the firewall is opened by others.
type Server struct {
	log      *limitedLog
	open     func(context.Context, Opening, *os.File) (func(), error)
	allowOwn bool
	limits   limits
	lookup   lookupFunc
	running  sync.WaitGroup

	// mu is held by the loop but for the time that it waits. It guards the rest.
	mu       sync.Mutex
	cfg      Config
	hits     []uint64 // of each rule of cfg.Access
	conns    map[uint64]*conn
	last     uint64    // the highest number given
	pending  list.List // of *conn, those whose request is not complete, oldest first
	names    queue     // resolution
	openings queue     // the firewall
	closed   bool
	poller   *poller // nil before the first listener
	listener int     // descriptor
	// acceptAt is when to accept, by the clock; acceptPause how long the last
	// failure lets it rest.
	acceptAt, acceptPause time.Duration
	clock
	// checkAt is the first time at which any connection can be over.
	checkAt time.Duration
	ready   []*conn // those that can go on without waiting
	probe   ownProbe

	// socketMemory is Options', memoryFast what directions have of the part for those that
	// are fast, memoryAny what has been given of the rest; in bytes.
	socketMemory, memoryFast, memoryAny int
	machineMemory                       func() (free, all uint64) // see there

	// For relaying.
	pipes     []*pipe // not in use
	pipesMade int
	pipeSize  int // bytes
	// copies is that bytes are copied, not spliced, but for flows that are fast: what is
	// spliced keeps the whole page of each packet in the send queue too.
	copies  bool
	scratch []byte
}

// New returns a Server that is not enabled.
func New(o Options) *Server { return newServer(o, defaultLimits()) }

func newServer(o Options, l limits) *Server {
	return &Server{
		log:      newLimitedLog(o.Logf),
		open:     o.Open,
		allowOwn: o.AllowOwnAddresses,
		limits:   l,
		lookup:   newLookup(l.lookups),
		clock:    newClock(),
		cfg:      DefaultConfig(),
		conns:    map[uint64]*conn{},
		names:    queue{free: l.lookups},
		openings: queue{free: l.openings},
		listener: none,
		checkAt:  never,
		probe:    ownProbe{fd: none},
		pipeSize: pipeSize(),

		socketMemory:  o.SocketMemory,
		machineMemory: machineMemory,
		copies:        o.SocketMemory > 0,
		scratch:       make([]byte, scratchSize),
	}
}

// Configure puts cfg in force. l, if not nil, is where to accept from now on, in
// place of the listener before; it belongs to the Server, which closes it also
// when Configure fails. It must be plain TCP, not the Multipath TCP that
// net.Listen asks for. cfg.Port is not looked at beyond its range: who makes the
// listener obeys it.
//
// Not enabled means off: the listener is closed, and being enabled again takes a
// new one; every connection is closed, and each has its line in the log. When
// Configure returns nil and cfg is enabled, the server accepts. Open connections
// stay, but for those that the access list now denies; a lower MaxConnections
// closes none, a new idle timeout counts from when each last moved something.
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
	cfg.Access, cfg.NameServers = slices.Clone(cfg.Access), slices.Clone(cfg.NameServers)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if cfg.Enabled && l == nil && s.listener == none {
		return errors.New("enabled, but there is no listener")
	}
	if s.poller == nil {
		var err error
		if s.poller, err = newPoller(); err != nil {
			return err
		}
		s.running.Go(s.loop)
	}
	listener := none
	if l != nil && cfg.Enabled {
		var err error
		if listener, err = detach(l); err != nil {
			return err
		}
		if err := s.poller.add(listener, ofServer, 0); err != nil {
			unix.Close(listener)
			return err
		}
	}
	// Nothing fails from here on.
	s.hits = carryHits(cfg.Access, s.cfg.Access, s.hits)
	s.cfg = cfg
	s.tick()
	for _, c := range s.conns {
		if !cfg.Enabled {
			s.end(c, errDisabled)
		} else if c.judged.IsValid() {
			rule, action := decide(cfg.Access, c.src, c.judged)
			c.rule = rule
			if action == Deny {
				s.end(c, errDeniedNow)
			}
		}
	}
	if listener != none || !cfg.Enabled {
		s.closeListener()
		s.listener, s.acceptAt = listener, 0
	}
	if l != nil && !cfg.Enabled {
		l.Close()
	}
	s.checkAt = 0 // the idle timeout may be another
	s.poller.wake()
	return nil
}

func (s *Server) closeListener() {
	if s.listener != none {
		s.poller.remove(s.listener)
		unix.Close(s.listener)
		s.listener = none
	}
}

// Connections returns the active connections in the order of their numbers.
func (s *Server) Connections() []Connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tick()
	all := make([]Connection, 0, len(s.conns))
	for _, c := range s.conns {
		all = append(all, Connection{
			Number: c.number, Src: c.src, Dst: c.dst, Type: c.typ, UserID: c.user,
			Tx: c.tx.moved, Rx: c.rx.moved, Age: s.seen - c.came, Idle: s.now - c.last,
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
	s.tick()
	s.end(c, errByUser)
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
// released. Log lines that Options.Logf has not taken a second later are lost.
func (s *Server) Shutdown() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		s.closeListener()
		s.tick()
		for _, c := range s.conns {
			s.end(c, errShutdown)
		}
		if s.poller != nil {
			s.poller.wake()
		}
	}
	s.mu.Unlock()
	s.running.Wait()
	s.log.close()
}

// accept takes connections that wait for it, a bounded number at a time.
func (s *Server) accept() {
	for range batch {
		fd, src, err := none, netip.AddrPort{}, errTight
		if !s.less(tightPart) {
			fd, src, err = acceptFrom(s.listener)
		}
		switch {
		case err == unix.EAGAIN:
			s.acceptAt = never // until the poller says so
			return
		case err != nil:
			// Descriptors or memory are short. The kernel holds the connections
			// meanwhile; trying again at once would spin.
			pause := min(max(2*s.acceptPause, 5*time.Millisecond), time.Second)
			s.acceptAt = s.now + pause
			if pause != s.acceptPause { // it is not said again and again
				s.log.printf("accept: %v; again in %v", err, pause)
			}
			s.acceptPause = pause
			return
		}
		s.acceptPause = 0
		s.take(fd, src)
	}
	s.acceptAt = s.now // go on, when the others had their turn
}

// take gives a new connection a slot, or refuses it.
func (s *Server) take(fd int, src netip.AddrPort) {
	if limit := s.cfg.MaxConnections; len(s.conns) >= limit {
		oldest := s.pending.Front()
		if oldest == nil {
			reply(fd, replyRejected, netip.AddrPort{})
			hangUp(fd)
			s.log.printf("connection refused: src=%s reason=%q", src, fmt.Sprintf("all %d connections are taken", limit))
			return
		}
		s.end(oldest.Value.(*conn), errReplaced)
	}
	s.last++
	c := &conn{
		number: s.last, client: fd, remote: none, call: none, src: src,
		came: s.seen, born: s.now, last: s.now, typ: Unknown, rule: noRule,
	}
	c.waiting = s.pending.PushBack(c)
	s.conns[c.number] = c
	s.giveMemory(c)
	c.limitBuffers(fd)
	s.enter(c, handshaking, s.limits.handshake)
	if err := s.poller.add(fd, ofClient, c.number); err != nil {
		s.end(c, err)
		return
	}
	s.readRequest(c) // which is mostly there already: clients do not wait to be accepted
}
