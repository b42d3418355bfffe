package login

import (
	"cmp"
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
	// strangers are the connections of each address that have not logged in, the oldest first, and strange counts them. leaving is how many
	// had to go and are still being served. failures are those of addresses.
	strange   int
	admitted  uint64 // how many there were
	strangers map[netip.Addr][]*stranger
	leaving   int
	failures  failures
	// verdicts are those that PID 1 has not given yet, by the numbers of the logins. last is the last number.
	last     uint64
	verdicts map[uint64]awaited
	// entries are the logins that there are, or may be.
	entries map[uint64]*Entry
}

// stranger is a connection that has not logged in.
type stranger struct {
	conn   net.Conn
	number uint64             // how many were there before it
	end    context.CancelFunc // of its context
	// answered says that PID 1 has answered somebody at the address: a wrong password was counted then.
	answered bool
	// known says that somebody has logged in on it all the same: see Conn.Known.
	known bool
	// displaced says that it had to leave its place.
	displaced bool
}

// awaited is a verdict that is waited for, and the client's address; answer is nil if he has gone.
type awaited struct {
	from   netip.Addr
	answer chan Verdict
}

// NewServer returns a Server that calls serve for each connection, which is closed afterwards.
func NewServer(p *service.Child, serve func(*Conn)) *Server {
	s := &Server{process: p, serve: serve, strangers: map[netip.Addr][]*stranger{}, failures: failures{},
		verdicts: map[uint64]awaited{}, entries: map[uint64]*Entry{}}
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
		waiting, known := s.verdicts[number]
		delete(s.verdicts, number)
		if known {
			s.answered(waiting.from)
		}
		if known && v == Wrong {
			s.failures.add(waiting.from)
		}
		s.mu.Unlock()
		if waiting.answer != nil {
			waiting.answer <- v
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
	// Context ends with the process, and when a stranger has to go: what he has asked is not waited for.
	Context context.Context
	// Trust says that somebody has logged in: there is room for another stranger.
	Trust func()
	// Known says that somebody has logged in on a connection that ends with its answer, as the service has no room for one more that
	// stays. Until then it keeps the place of a stranger, which nobody takes from it, and that it ends is no failure to log in.
	Known func()
}

// admit takes a connection, unless its address may not connect or there are too many that have not logged in. Then it may displace one
// of another address: neither a few addresses nor those that fail again and again keep others out.
func (s *Server) admit(conn *net.TCPConn) (serve func()) {
	peer := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.config.Allows(peer) || len(s.strangers[peer]) >= MaxStrangersOf || s.strange >= MaxStrangers && !s.displace(peer) {
		return nil
	}
	ctx, end := context.WithCancel(s.process.Context())
	who := &stranger{conn: conn, number: s.admitted, end: end}
	s.admitted++
	s.strange++
	s.strangers[peer] = append(s.strangers[peer], who)
	_ = conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: aliveTime, Interval: aliveTime, Count: 3})
	secure := s.secure
	return func() {
		defer s.forgetStranger(peer, who)
		c := &Conn{Conn: conn, From: peer, Context: ctx, Trust: sync.OnceFunc(func() { s.trust(peer, who) }), Known: func() { s.know(peer, who) }}
		if secure != nil {
			over := secure(conn)
			if !shakeHands(ctx, over) {
				return
			}
			defer over.Close()
			c.Conn, c.Secure = over, true
		}
		s.serve(c)
	}
}

// shakeHands reports whether the client has completed the handshake of TLS in time.
func shakeHands(ctx context.Context, conn secureConn) bool {
	ctx, cancel := service.WithTimeout(ctx, handshakeTime)
	defer cancel()
	return conn.HandshakeContext(ctx) == nil
}

// displace ends the oldest unknown connection of the address that has failed most lately (Rank) and, of these, has the most strangers, if that has failed
// more than peer, or as much and has so many more strangers that peer still has fewer with one more. One at a time, as the memory of the last one
// is given back first, but for those who have failed less: others that displace one another shall not keep them out. The caller holds mu.
func (s *Server) displace(peer netip.Addr) bool {
	var from netip.Addr
	var worst []*stranger
	rank := -1
	for other, all := range s.strangers {
		there := slices.DeleteFunc(slices.Clone(all), func(w *stranger) bool { return w.known })
		if len(there) == 0 {
			continue
		}
		r := s.failures.rank(other)
		if cmp.Or(cmp.Compare(r, rank), cmp.Compare(len(there), len(worst))) > 0 || r == rank && len(there) == len(worst) && there[0].number < worst[0].number {
			from, worst, rank = other, there, r
		}
	}
	switch of := s.failures.rank(peer); {
	case worst == nil, rank < of, rank == of && (len(worst) <= len(s.strangers[peer])+1 || s.leaving > 0), s.leaving >= maxLeaving:
		return false
	}
	oldest := worst[0]
	s.removeStranger(from, oldest)
	s.leaving++
	oldest.displaced = true
	oldest.conn.Close()
	oldest.end()
	return true
}

// trust makes room for another stranger, after one has logged in.
func (s *Server) trust(peer netip.Addr, who *stranger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeStranger(peer, who)
	delete(s.failures, peer)
}

// know is for Conn.Known.
func (s *Server) know(peer netip.Addr, who *stranger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	who.known = true
	delete(s.failures, peer)
}

// forgetStranger is the end of a connection. Who has not logged in has failed, also without a password: he had a place.
func (s *Server) forgetStranger(peer netip.Addr, who *stranger) {
	who.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removeStranger(peer, who) && !who.answered && !who.known {
		s.failures.add(peer)
	}
	if who.displaced {
		s.leaving--
	}
}

// removeStranger removes a connection from those of strangers, and reports whether it was one. The caller holds mu.
func (s *Server) removeStranger(peer netip.Addr, who *stranger) bool {
	i := slices.Index(s.strangers[peer], who)
	if i < 0 {
		return false
	}
	s.strange--
	if s.strangers[peer] = slices.Delete(s.strangers[peer], i, i+1); len(s.strangers[peer]) == 0 {
		delete(s.strangers, peer)
	}
	return true
}

// answered notes that PID 1 has answered somebody at an address. The caller holds mu.
func (s *Server) answered(from netip.Addr) {
	for _, who := range s.strangers[from] {
		who.answered = true
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
	s.verdicts[number] = awaited{from.From, answer}
	s.mu.Unlock()
	err := s.callLogin(op, number, from, secret)
	asked := err == nil
	if asked {
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
	// Nobody waits any more, so no login may stay. The verdict may still come, and counts: see handle.
	s.mu.Lock()
	if _, ok := s.verdicts[number]; ok && asked {
		s.verdicts[number] = awaited{from: from.From}
	} else {
		delete(s.verdicts, number)
		s.answered(from.From)
	}
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
