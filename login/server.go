package login

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/service"
)

// Calls are the system calls that a Server makes, for the service.Spec.
var Calls = service.Calls{
	Any:     []uint32{unix.SYS_ACCEPT4, unix.SYS_SETSOCKOPT},
	Checked: []service.Check{service.Equals(unix.SYS_SOCKETPAIR, 0, unix.AF_UNIX)},
}

// aliveTime is how long a connection is silent before the kernel asks whether the client is
// there, and from one such question to the next.
const aliveTime = time.Minute

// idleTime is how long the process stays when nobody is connected, callTime how long a question of its own
// to PID 1 waits for its answer, handshakeTime how long a client may take for the handshake of TLS. Tests change them.
var (
	idleTime      = time.Minute
	callTime      = 20 * time.Second
	handshakeTime = 15 * time.Second
)

// Server is the process: it accepts connections, and asks PID 1 who is a user.
type Server struct {
	process  *service.Child
	acceptor *service.Acceptor
	serve    func(*Conn)

	mu     sync.Mutex
	config Config // From alone: PID 1 listens on the port and counts the logins
	extra  string
	secure security // nil without TLS
	// strangers are the connections of each address that have not logged in, the oldest first, and strange counts them. displaced is one that
	// had to go and is still being served, or nil.
	strange   int
	strangers map[netip.Addr][]net.Conn
	displaced net.Conn
	// verdicts are where those are waited for, by the numbers of the logins. last is the last number.
	last     uint64
	verdicts map[uint64]chan Verdict
	// entries are the logins that there are, or may be.
	entries map[uint64]*Entry
}

// NewServer returns a Server that calls serve for each connection, which is closed afterwards.
func NewServer(p *service.Child, serve func(*Conn)) *Server {
	s := &Server{process: p, serve: serve, strangers: map[netip.Addr][]net.Conn{}, verdicts: map[uint64]chan Verdict{}, entries: map[uint64]*Entry{}}
	s.acceptor = p.NewAcceptor(idleTime, s.admit)
	return s
}

// Run accepts connections until the process has been idle for idleTime, or shall end.
func (s *Server) Run() error {
	served := make(chan error, 1)
	go func() { served <- s.process.Serve(s.handle) }()
	s.acceptor.Wait()
	s.process.Stop()
	return <-served
}

// Context ends with the process.
func (s *Server) Context() context.Context { return s.process.Context() }

// Hold keeps the process, also when nobody is connected, until release is called: for users who log in once for many
// connections.
func (s *Server) Hold() (release func()) { return s.acceptor.Hold() }

// Extra is what PID 1 has added to the configuration.
func (s *Server) Extra() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.extra
}

// handle serves PID 1.
func (s *Server) handle(_ context.Context, r *service.Request) ([]byte, error) {
	switch r.Op {
	case opConfigure:
		config := Config{}
		extra := r.String(maxExtra)
		pair := TLS{r.String(maxTLS), r.String(maxTLS)}
		for range r.Count(MaxPrefixes) {
			config.From = append(config.From, netip.PrefixFrom(r.Addr(), int(r.Uint(32))))
		}
		file := r.TakeFile()
		if file != nil {
			defer file.Close()
		}
		if r.End() != nil || file == nil {
			break
		}
		var secure security
		if pair.Key != "" {
			var err error
			if secure, err = newSecurity(pair); err != nil {
				return nil, fmt.Errorf("certificate: %w", err)
			}
		}
		l, err := net.FileListener(file)
		if err != nil {
			return nil, fmt.Errorf("listener: %w", err)
		}
		tcp, ok := l.(*net.TCPListener)
		if !ok {
			l.Close()
			return nil, errors.New("the listener is not of TCP")
		}
		s.mu.Lock()
		s.config, s.extra, s.secure = config, extra, secure
		s.mu.Unlock()
		s.acceptor.Listen(tcp)
		return nil, nil
	case opVerdict:
		number, v := DecodeNumber(r.Decoder), Verdict(r.Uint(uint64(Unset)))
		if r.End() != nil {
			break
		}
		s.mu.Lock()
		waiting := s.verdicts[number]
		delete(s.verdicts, number)
		s.mu.Unlock()
		if waiting != nil {
			waiting <- v
		} else if v == Right {
			go s.logout(number) // the client has gone
		}
		return nil, nil
	case opEnd:
		number := DecodeNumber(r.Decoder)
		if r.End() != nil {
			break
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if e := s.entries[number]; e != nil && !e.ended {
			e.ended = true
			if e.onEnd != nil {
				go e.onEnd()
			}
		}
		return nil, nil
	}
	return nil, fmt.Errorf("%w: request %d", service.ErrBreach, r.Op)
}

// security puts TLS over a connection: the handshake is that of whoever first reads or writes, or HandshakeContext.
type security func(net.Conn) secureConn

type secureConn interface {
	net.Conn
	HandshakeContext(ctx context.Context) error
}

// Conn is a connection, of a stranger at first.
type Conn struct {
	net.Conn
	From netip.Addr
	// Secure says that it is one over TLS.
	Secure bool
	// Trust says that somebody has logged in: there is room for another stranger.
	Trust func()
}

// admit takes a connection, unless its address may not connect or there are too many that have not logged in. Then it may displace one of
// an address that has more of them: a few addresses alone cannot keep others out for longer than a password's check takes.
func (s *Server) admit(conn *net.TCPConn) (serve func()) {
	peer := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.config.Allows(peer) || len(s.strangers[peer]) >= MaxStrangersOf || s.strange >= MaxStrangers && !s.displace(peer) {
		return nil
	}
	s.strange++
	s.strangers[peer] = append(s.strangers[peer], conn)
	_ = conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: aliveTime, Interval: aliveTime, Count: 3})
	secure := s.secure
	return func() {
		trust := sync.OnceFunc(func() { s.forgetStranger(peer, conn) })
		defer trust()
		c := &Conn{Conn: conn, From: peer, Trust: trust}
		if secure != nil {
			over := secure(conn)
			if !s.shakeHands(over) {
				return
			}
			defer over.Close()
			c.Conn, c.Secure = over, true
		}
		s.serve(c)
	}
}

// shakeHands reports whether the client has completed the handshake of TLS in time.
func (s *Server) shakeHands(conn secureConn) bool {
	ctx, cancel := service.WithTimeout(s.process.Context(), handshakeTime)
	defer cancel()
	return conn.HandshakeContext(ctx) == nil
}

// displace ends a connection of the address with the most strangers, if these are so many more than peer's that peer still has fewer with one
// more. One at a time: the memory of the last one is given back first. The caller holds mu.
func (s *Server) displace(peer netip.Addr) bool {
	var most netip.Addr
	for from, conns := range s.strangers {
		if len(conns) > len(s.strangers[most]) {
			most = from
		}
	}
	if s.displaced != nil || len(s.strangers[most]) <= len(s.strangers[peer])+1 {
		return false
	}
	s.displaced = s.strangers[most][0]
	s.removeStranger(most, s.displaced)
	s.displaced.Close()
	return true
}

// forgetStranger makes room for another stranger, after one has logged in or has gone.
func (s *Server) forgetStranger(peer netip.Addr, conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeStranger(peer, conn)
	if s.displaced == conn {
		s.displaced = nil
	}
}

// removeStranger removes a connection from those of strangers, if it is one. The caller holds mu.
func (s *Server) removeStranger(peer netip.Addr, conn net.Conn) {
	i := slices.Index(s.strangers[peer], conn)
	if i < 0 {
		return
	}
	s.strange--
	if s.strangers[peer] = slices.Delete(s.strangers[peer], i, i+1); len(s.strangers[peer]) == 0 {
		delete(s.strangers, peer)
	}
}

// Call asks PID 1 what the service alone has, by an op from FirstOp on.
func (s *Server) Call(op byte, e service.Encoder, decode func(*service.Decoder)) error {
	ctx, cancel := service.WithTimeout(s.process.Context(), callTime)
	defer cancel()
	return s.process.Call(ctx, op, e.Bytes(), decode)
}

// Entry is a login that PID 1 has admitted.
type Entry struct {
	server *Server
	number uint64
	// ended says that PID 1 has ended it, and onEnd is told so. Server.mu guards both.
	ended bool
	onEnd func()
}

// OnEnd has f called, in a goroutine of its own, when PID 1 ends the login.
func (e *Entry) OnEnd(f func()) {
	e.server.mu.Lock()
	defer e.server.mu.Unlock()
	if e.ended {
		go f()
		return
	}
	e.onEnd = f
}

// newEntry is for a login that PID 1 is about to be asked for.
func (s *Server) newEntry() *Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	e := &Entry{server: s, number: s.last}
	s.entries[e.number] = e
	return e
}

// forget forgets a login that is none, or is over.
func (s *Server) forget(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, number)
}

// Password asks PID 1 whether a password is right. If it is, there is a login.
func (s *Server) Password(ctx context.Context, from Login, secret string) (*Entry, Verdict, error) {
	return s.ask(ctx, opPassword, from, secret)
}

// FirstPassword asks PID 1 to set the first password of a router that has none. If it does, there is a login. With "" the verdict
// says whether it would (Unset).
func (s *Server) FirstPassword(ctx context.Context, from Login, new string) (*Entry, Verdict, error) {
	return s.ask(ctx, opFirst, from, new)
}

func (s *Server) ask(ctx context.Context, op byte, from Login, secret string) (*Entry, Verdict, error) {
	if len(from.User) > MaxUser || len(secret) > MaxPassword {
		return nil, Wrong, nil
	}
	answer := make(chan Verdict, 1)
	e := s.newEntry()
	number := e.number
	s.mu.Lock()
	s.verdicts[number] = answer
	s.mu.Unlock()
	err := s.callLogin(op, number, from, secret)
	if err == nil {
		select {
		case v := <-answer:
			if v == Right {
				return e, v, nil
			}
			s.forget(number)
			return nil, v, nil
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	// Nobody waits any more, so no login may stay. The verdict may still come: see handle.
	s.mu.Lock()
	delete(s.verdicts, number)
	s.mu.Unlock()
	go s.logout(number)
	return nil, Wrong, err
}

// Enter asks PID 1 for a login by a way that the service alone has: by op, with the number, the login and
// what proves it.
func (s *Server) Enter(op byte, from Login, proof string) (*Entry, error) {
	e := s.newEntry()
	if err := s.callLogin(op, e.number, from, proof); err != nil {
		go s.logout(e.number) // the answer may be late
		return nil, err
	}
	return e, nil
}

func (s *Server) callLogin(op byte, number uint64, from Login, secret string) error {
	var e service.Encoder
	e.Uint(number)
	from.Encode(&e)
	e.String(secret)
	return s.Call(op, e, nil)
}

// logout ends a login, if there is one of that number.
func (s *Server) logout(number uint64) {
	defer s.forget(number)
	s.tell(opLogout, number)
}

// tell tells PID 1 what has become of a login. Not with callTime: a login that stayed would have its place until the process ends, when
// PID 1 forgets all.
func (s *Server) tell(op byte, number uint64) {
	var e service.Encoder
	e.Uint(number)
	_ = s.process.Call(s.process.Context(), op, e.Bytes(), nil)
}

// Leave says that the user has gone while a request of his is still carried out, an upgrade perhaps: another may have the place of the
// login, which goes on until Logout.
func (e *Entry) Leave() { e.server.tell(opLeave, e.number) }

// Logout ends the login and its sessions.
func (e *Entry) Logout() { e.server.logout(e.number) }

// Session begins a session of the login.
func (e *Entry) Session() (net.Conn, error) { return e.Open(opSession) }

// Open begins a session of a kind that the service alone has, by an op from FirstOp on (Process.Session).
func (e *Entry) Open(op byte) (net.Conn, error) {
	ctx, cancel := service.WithTimeout(e.server.process.Context(), callTime)
	defer cancel()
	var body service.Encoder
	body.Uint(e.number)
	return e.server.process.Connect(ctx, op, body.Bytes())
}
