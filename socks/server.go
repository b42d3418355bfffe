package socks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/machine"
	"github.com/postern-router/postern/resolve"
)

// Options are set once, when a Server is made.
type Options struct {
	// Logf, if set, is called with one line when a connection is opened, one when it is
	// closed, and one when accepting fails. It is called from one goroutine and may block:
	// lines that it does not take in time are dropped.
	Logf func(format string, args ...any)
	// Open, if set, is called when a BIND listens or the socket of a UDP ASSOCIATE is bound,
	// before the reply, to have the firewall let o.Peer in to o.Local. listener is a duplicate
	// of the socket that waits there, valid during the call. The function that Open returns undoes it,
	// and is called once, when the wait or the association ends. An error rejects the request. ctx ends with
	// the connection.
	Open func(ctx context.Context, o Opening, listener *os.File) (undo func(), err error)
	// SocketMemory, in bytes, is divided among the connections as socket buffers: a third
	// of it among all connections, the rest among those that move a lot in a short time.
	// Each connection has at least 4.5 kB, even when nothing is left. 0 leaves the buffers
	// to the kernel, which only bounds their sum.
	SocketMemory int
	// AllowOwnAddresses lets clients connect to the machine that the server runs on, for
	// tests. It gives them everything that listens on loopback.
	AllowOwnAddresses bool
}

// Opening is a call that a BIND waits for, or the datagrams of the client of a UDP ASSOCIATE.
type Opening struct {
	// Peer may call; 0.0.0.0 is anyone. Of a UDP ASSOCIATE it is the client.
	Peer netip.Addr
	// Local is where the server listens, on a port that the kernel chose, other
	// than Config.Port.
	Local netip.AddrPort
	// UDP says that Local is a UDP port, not a TCP port.
	UDP bool
}

// String returns the opening as it is written in errors and in the log.
func (o Opening) String() string {
	protocol := "tcp"
	if o.UDP {
		protocol = "udp"
	}
	return fmt.Sprintf("%s %s for %s", protocol, o.Local, o.Peer)
}

// Connection is one of the active connections.
type Connection struct {
	// Number identifies the connection. The first one of a server is 1, and no number is
	// used twice.
	Number uint64
	// Src is the client. Dst is the server of a CONNECT or the caller of a BIND; while
	// a BIND waits, it is the peer that may call and the port on which it may; of a
	// UDP ASSOCIATE it is the peer that the client sent to last. Before that it is the zero
	// AddrPort.
	Src, Dst netip.AddrPort
	// Tx is bytes from the client to the server, Rx from the server to the client.
	Tx, Rx uint64
	Type   Type
	// Age is the time since the client connected. Idle is the time since anything last
	// moved, without stalls of the machine: it is what the idle timeout is compared with.
	Age, Idle time.Duration
	// UserID is what the client calls itself: 0..255 bytes other than NUL.
	UserID string
}

// limits are how long the states of a connection may last, and how many slow tasks may run
// at a time.
type limits struct {
	handshake, connect, bind time.Duration
	deliver                  time.Duration // until the peers have taken what they are still sent
	dismiss                  time.Duration // until a refused client has taken the reply
	watch                    time.Duration // how old a connection is before its peers are watched
	files                    int           // files of the machine read at a time, for names
	lookups                  int           // names resolved at a time
	openings                 int           // calls of Options.Open at a time
	addresses                int           // of one name that are tried
}

func defaultLimits() limits {
	return limits{
		handshake: 10 * time.Second, connect: 30 * time.Second, bind: 2 * time.Minute,
		deliver: 10 * time.Minute, dismiss: 5 * time.Second,
		watch: 10 * time.Second,
		files: 2, lookups: 32, openings: 8, addresses: 8,
	}
}

// Reasons for which the server ends a connection, for its closing line in the log.
var (
	errHandshakeTimeout = errors.New("handshake timeout")
	errConnectTimeout   = errors.New("connect timeout")
	errBindTimeout      = errors.New("nobody called in time")
	errIdle             = errors.New("idle timeout")
	errUndelivered      = errors.New("a peer did not take what it was sent in time")
	errLeft             = fmt.Errorf("client left: %w", io.EOF)
	errReplaced         = errors.New("replaced: the table is full")
	errYielded          = errors.New("the client has ended its side, and others wait for a lookup")
	errRemoved          = errors.New("removed")
	errMoved            = errors.New("the machine has another address now")
	errDeniedNow        = errors.New("denied by the new access list")
	errDisabled         = errors.New("the service was disabled")
	errVersion          = errors.New("the server does not speak version 5 any more")
	errPasswordNow      = errors.New("the server asks for a password now")
	errNewPassword      = errors.New("the user has another password now")
	errUserDisabled     = errors.New("the user was disabled")
	errGaveWay          = errors.New("the user may have one connection (only-one), and has made the next")
	errUserRemoved      = errors.New("the user was removed")
	errShutdown         = errors.New("shutdown")
)

// ErrClosed is returned by Configure after Shutdown.
var ErrClosed = errors.New("the SOCKS server has been shut down")

// Server is a SOCKS server. Its methods may be called from any goroutine.
//
// One goroutine, the loop, waits for every socket of the server and does everything that
// does not block. Other goroutines resolve names and open the firewall.
type Server struct {
	log      *limitedLog
	open     func(context.Context, Opening, *os.File) (func(), error)
	allowOwn bool
	limits   limits
	lookup   lookupFunc
	// known is what lookup would return at once, and knownSystem that, if not nil, when there are no
	// servers, and files of the machine are read.
	known       func(host string, servers resolve.Servers) ([]netip.Addr, error, bool)
	knownSystem func(host string) ([]netip.Addr, error, bool)
	running     sync.WaitGroup

	// mu guards everything below. The loop holds it except while it waits.
	mu      sync.Mutex
	cfg     Config
	hits    []uint64 // of each rule of cfg.Access
	conns   map[uint64]*conn
	last    uint64 // the number of the newest connection
	sources map[netip.Addr]*source
	// holders is how many sources have slots.
	holders int
	line    fifo[*source]   // of sources for which there is something to do
	calls   int             // how many wait for a slot
	most    [claims]ranking // of the sources
	// dismissed are clients that were refused, those that have been for longest first.
	dismissed []dismissed
	files     queue // of hosts(5) and resolv.conf(5) that are read
	names     queue // lookups
	openings  queue // calls of open, and of the functions that undo them
	closed    bool
	spare     []*attempt // of connections that are established, for the next ones: see dropAttempt
	// accounts are the users who may log in, by their names. decoy is the hash of one, which
	// is checked for a name that nobody has.
	accounts  map[string]*account
	decoy     string
	marks     hash.Hash               // makes them; nil before the first user
	tries     []*try                  // passwords that wait to be checked
	nextCheck time.Duration           // when the next check may begin
	checking  *try                    // the one that is being checked
	guessers  map[netip.Addr]*guesser // addresses from which wrong passwords came
	matches   func(hash, secret string) bool
	poller    *poller // nil before the first listener
	listener  int     // descriptor
	// acceptAt is when to accept next, by the clock. acceptPause is the pause after the
	// last failure.
	acceptAt, acceptPause time.Duration
	clock
	// collectAt is when garbage may be collected next because memory is short.
	collectAt time.Duration
	// relieveAt is when connections may be closed next because of that.
	relieveAt time.Duration
	// checkAt is the earliest time at which a connection can have reached a deadline.
	// lookAt is when a check asks the kernel about sockets next.
	checkAt, lookAt time.Duration
	ready           []*conn // have more to relay at once
	probe           ownProbe

	// socketMemory is that of Options. memoryFast is how much of the part for fast
	// directions is given away, and memoryAny how much of the part for all; in bytes.
	socketMemory, memoryFast, memoryAny int
	// wider is how many directions have a wider receive buffer (widen).
	wider         int
	machineMemory func() (free, all uint64) // machine.Memory: a router's files are in memory anyway

	// For relaying.
	pipes     []*pipe // not in use
	pipesMade int
	pipeSize  int // bytes
	// copies says that slow flows are copied, not spliced: what is spliced keeps the
	// whole page of each packet in the send queue too.
	copies  bool
	scratch []byte
	// datagram is the buffer for a datagram with its header, nil before the first UDP ASSOCIATE.
	datagram []byte
}

// New returns a Server that is not enabled.
func New(o Options) *Server { return newServer(o, defaultLimits()) }

func newServer(o Options, l limits) *Server {
	names := newResolver(l.lookups)
	return &Server{
		log:         newLimitedLog(o.Logf),
		open:        o.Open,
		allowOwn:    o.AllowOwnAddresses,
		limits:      l,
		lookup:      newLookup(names),
		known:       names.Known,
		knownSystem: names.KnownSystem,
		clock:       newClock(),
		cfg:         DefaultConfig(),
		conns:       map[uint64]*conn{},
		guessers:    map[netip.Addr]*guesser{},
		matches:     matches,
		sources:     map[netip.Addr]*source{},
		most:        [claims]ranking{kept: {claim: kept}, waiting: {claim: waiting}, unfinished: {claim: unfinished}},
		files:       queue{kind: ofFiles, free: l.files},
		names:       queue{kind: ofNames, free: l.lookups},
		openings:    queue{kind: ofOpenings, free: l.openings},
		listener:    none,
		checkAt:     never,
		probe:       ownProbe{fd: none},
		pipeSize:    pipeSize(),

		socketMemory:  o.SocketMemory,
		machineMemory: machine.Memory,
		copies:        o.SocketMemory > 0,
		scratch:       make([]byte, scratchSize),
	}
}

// Configure puts cfg in force. If l is not nil, it replaces the listener. It belongs to
// the Server from then on, which closes it even if Configure fails. It must be plain TCP,
// not the Multipath TCP that net.Listen asks for. Of cfg.Port only the range is checked:
// it is for whoever makes the listener.
//
// Not enabled means off: the listener is closed, and being enabled again takes a
// new one; every connection is closed, and each has its line in the log. When
// Configure returns nil and cfg is enabled, the server accepts. Open connections
// stay, but for those that the access list now denies; a lower MaxConnections
// closes none, a new idle timeout counts from when each last moved something.
//
// On an error (a value out of range, enabled without a listener, ErrClosed) nothing
// changes.
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
	users := cfg.Users
	cfg.Users = nil // they are in accounts
	cfg.Access, cfg.NameServers = slices.Clone(cfg.Access), slices.Clone(cfg.NameServers)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if cfg.Enabled && l == nil && s.listener == none {
		return errors.New("enabled, but there is no listener")
	}
	if s.marks == nil && len(users) > 0 {
		var err error
		if s.marks, err = newMarks(); err != nil {
			return err
		}
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
	old := s.cfg.Access
	s.cfg = cfg
	s.setUsers(users)
	s.tick()
	for _, c := range s.conns {
		if !cfg.Enabled {
			s.end(c, errDisabled)
		} else if err := s.unfit(c, users); err != nil {
			s.end(c, err)
		}
	}
	// Up to here connections had rules of the old list.
	s.hits = carryHits(cfg.Access, old, s.hits)
	for _, c := range s.conns {
		if c.judged != 0 {
			rule, action := decide(cfg.Access, c.src, netip.AddrPortFrom(c.dst.Addr(), c.judged))
			c.rule = rule
			if action == Deny {
				s.end(c, errDeniedNow)
			}
		} else if c.udp != nil {
			if err := s.judgeAgain(c); err != nil {
				s.end(c, err)
			}
		}
	}
	if !cfg.Enabled {
		s.dropCalls()
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
			Number: c.number, Src: c.src, Dst: c.dst, Type: c.typ(), UserID: c.user,
			Tx: c.tx.moved, Rx: c.rx.moved, Age: s.seen - c.came, Idle: max(0, s.now-c.last),
		})
	}
	slices.SortFunc(all, func(a, b Connection) int { return cmp.Compare(a.Number, b.Number) })
	return all
}

// CloseConnection closes the connection with that number. It returns an error if there is
// none.
func (s *Server) CloseConnection(number uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.conns[number]
	if !ok {
		return fmt.Errorf("close SOCKS connection %d: no such connection", number)
	}
	s.tick()
	s.end(c, errRemoved)
	return nil
}

// Leave ends what runs by addresses that the machine had and will not have again: their peers send to nobody, and both ends
// would wait until they are tired of it.
func (s *Server) Leave(gone []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tick()
	for _, c := range s.conns {
		var at netip.AddrPort
		switch {
		case c.remote != none && c.state != associated: // datagrams go by whatever address there is
			at, _ = localAddr(c.remote) // its failure is no address
		case c.attempt != nil:
			at = c.attempt.local // which a BIND waits on
		}
		if !slices.Contains(gone, at.Addr()) {
			continue
		}
		if c.state >= established {
			reset(c.client)
		}
		s.end(c, errMoved)
	}
}

// Hits returns for each rule of the access list about how many requests it has decided: once
// each, when the request is granted or refused, and for UDP ASSOCIATE once for each
// destination. A rule keeps its count when other rules change: see Rule.ID.
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

// accept accepts connections, of which a bounded number may wait.
func (s *Server) accept() {
	for range batch {
		if !s.mayAccept() {
			break
		}
		fd, src, err := none, netip.AddrPort{}, errTight
		if !s.memoryBelow(tightPart) {
			fd, src, err = acceptFrom(s.listener)
		}
		switch {
		case err == unix.EAGAIN:
			s.acceptAt = never // until the poller says so
			return
		case err != nil:
			// There are too few descriptors or too little memory. The kernel keeps the
			// connections. To try again at once would be a busy loop.
			pause := min(max(2*s.acceptPause, 5*time.Millisecond), time.Second)
			s.acceptAt = s.now + pause
			if pause != s.acceptPause { // the longest pause is logged once
				s.log.printf("accept: %v; again in %v", err, pause)
			}
			s.acceptPause = pause
			return
		}
		s.acceptPause = 0
		s.noteCall(fd, src)
		s.refuseCall()
	}
	s.acceptAt = s.now // there may be more, after the others have had their turn
}

// take gives a new connection a slot, or rejects it.
func (s *Server) take(fd int, src netip.AddrPort) {
	if limit := s.cfg.MaxConnections; len(s.conns) >= limit {
		other := s.replaceable(src.Addr())
		if other == nil {
			s.turnAway(fd)
			s.log.printf("connection refused: src=%s reason=%q", src, fmt.Sprintf("all %d connections are taken", limit))
			return
		}
		s.end(other, errReplaced)
	}
	s.last++
	c := &conn{
		number: s.last, client: fd, remote: none, call: none, src: src, version: uint8(s.cfg.Version),
		came: s.seen, born: s.now, last: s.now, rule: noRule,
	}
	s.occupy(c)
	s.conns[c.number] = c
	s.giveMemory(c)
	s.limitBuffers(c, fd)
	s.enter(c, handshaking, s.limits.handshake)
	if err := s.poller.add(fd, ofClient, c.number); err != nil {
		s.end(c, err)
		return
	}
	s.readHandshake(c) // it is mostly there already: clients do not wait to be accepted
}
