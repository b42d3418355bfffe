package login

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/postern-router/postern/service"
)

// Authority is what PID 1 decides. Its functions are called from several goroutines.
type Authority struct {
	// CheckPassword returns the Proof of a password that is right, else "". It may take long.
	CheckPassword func(Login, string) (proof string)
	// Failures is how many wrong passwords there were lately of where a login comes from; who has fewer goes first (Rank). Nil is none.
	Failures func(Login) int
	// MaySetFirst reports whether a client may set the first password of a router that has none, and SetFirst does that and
	// returns its Proof. Nil is that nobody may.
	MaySetFirst func(Login) bool
	SetFirst    func(l Login, new string) (proof string)
	// Manages reports whether a login is of a user who manages the router: there is room for one of these beside MaxSessions others.
	// Nil is that none is.
	Manages func(Login) bool
	// LoggedIn is told that there is a login, LoggedOut that it is over. They are called one at a time, and do not wait for
	// Login.End.
	LoggedIn, LoggedOut func(Login)
	// Serve holds a session and closes conn.
	Serve func(conn net.Conn, from Login)
}

// Process is PID 1's end of the process.
type Process struct {
	link      *service.Link
	authority Authority

	mu       sync.Mutex
	checks   int
	checking map[netip.Addr]int  // the checks of each address
	untold   int                 // verdicts that the process has not taken
	max      int                 // of logins
	logins   map[uint64]Login    // by their numbers, which the process chooses
	left     uint64              // the number of a login that has been left (Entry.Leave), 0 if there is none
	over     map[uint64]bool     // numbers of logins that PID 1 has ended, and of which the process may not know yet
	sessions map[net.Conn]uint64 // the number of the login of each
}

// NewProcess is for service.Options.
func NewProcess(link *service.Link, a Authority) *Process {
	return &Process{link: link, authority: a, checking: map[netip.Addr]int{}, logins: map[uint64]Login{}, over: map[uint64]bool{}, sessions: map[net.Conn]uint64{}}
}

// Configure puts a configuration in force, with extra, which is what the service adds: 1 KiB at most. The
// process accepts on listener, of which the caller keeps its own copy, and speaks TLS if there is a key.
func (p *Process) Configure(ctx context.Context, c Config, tls TLS, extra string, listener *os.File) error {
	p.mu.Lock()
	p.max = c.MaxSessions
	p.mu.Unlock()
	var e service.Encoder
	e.String(extra)
	e.String(tls.Chain)
	e.String(tls.Key)
	e.Uint(uint64(len(c.From)))
	for _, from := range c.From {
		e.Addr(from.Addr())
		e.Uint(uint64(from.Bits()))
	}
	return p.link.Call(ctx, opConfigure, e.Bytes(), nil, listener)
}

// Handle serves the process. It does not wait for the check of a password. What it does not know is a
// breach: a service that has requests of its own looks at them first.
func (p *Process) Handle(_ context.Context, r *service.Request) ([]byte, error) {
	switch r.Op {
	case opPassword, opFirst:
		number, from, secret := DecodeNumber(r.Decoder), Decode(r.Decoder), r.String(MaxPassword)
		if r.End() != nil {
			break
		}
		return nil, p.check(r.Op == opFirst, number, from, secret)
	case opLogout:
		number := DecodeNumber(r.Decoder)
		if r.End() != nil {
			break
		}
		p.logout(number)
		return nil, nil
	case opLeave:
		number := DecodeNumber(r.Decoder)
		if r.End() != nil {
			break
		}
		p.leave(number)
		return nil, nil
	case opSession:
		return nil, p.Session(r, p.authority.Serve)
	}
	return nil, fmt.Errorf("%w: request %d", service.ErrBreach, r.Op)
}

// Encode and Decode are the form of a login in a request.
func (l Login) Encode(e *service.Encoder) {
	e.String(l.User)
	e.Addr(l.From)
	e.Bool(l.REST)
}

func Decode(d *service.Decoder) Login {
	l := Login{User: d.String(MaxUser), From: d.Addr(), REST: d.Bool()}
	if !l.From.Is4() {
		d.Fail(errors.New("no IPv4 address"))
	}
	return l
}

// DecodeNumber reads the number of a login.
func DecodeNumber(d *service.Decoder) uint64 { return d.Uint(maxID) }

// check begins to check a password. The verdict goes to the process. A right one
// makes the login of that number. With first, secret is the first password of a router that has none, or "" to ask for it.
func (p *Process) check(first bool, number uint64, from Login, secret string) error {
	room := MaxChecks
	if p.authority.Failures != nil {
		room -= checksKept * Rank(p.authority.Failures(from))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.checks >= room || p.checking[from.From] == MaxChecksOf || p.untold >= MaxChecks {
		return errors.New("too many passwords are being checked")
	}
	p.checks++
	p.checking[from.From]++
	go func() {
		v := Wrong
		switch {
		case !first:
			from.Proof = p.authority.CheckPassword(from, secret)
		case p.authority.MaySetFirst == nil || !p.authority.MaySetFirst(from):
			from.Proof = p.authority.CheckPassword(from, "") // which is told, and delayed
		default:
			v = Unset
			from.Proof = p.authority.SetFirst(from, secret)
		}
		if from.Proof != "" {
			v = Right
			if p.Admit(number, from) != nil {
				v = Full
			}
		}
		p.mu.Lock()
		p.untold++
		p.checks--
		if p.checking[from.From]--; p.checking[from.From] == 0 {
			delete(p.checking, from.From)
		}
		p.mu.Unlock()
		var e service.Encoder
		e.Uint(number)
		e.Uint(uint64(v))
		// Without a time limit: a process that was slow would take the verdict after the logout, and ask for a session
		// of a login that is none.
		if err := p.link.Call(context.Background(), opVerdict, e.Bytes(), nil); err != nil {
			p.logout(number) // nobody knows of it
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.untold--
	}()
	return nil
}

// Admit makes a login with a number that the process has chosen. It is an error if there are too many.
func (p *Process) Admit(number uint64, from Login) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.logins[number]; ok || p.over[number] {
		return fmt.Errorf("%w: two logins of one number", service.ErrBreach)
	}
	room := p.max
	if room > 0 && p.authority.Manages != nil && p.authority.Manages(from) {
		room++
	}
	there := len(p.logins)
	if _, ok := p.logins[p.left]; ok {
		there-- // it needs no place
	}
	if there >= room {
		return ErrFull
	}
	from.Number, from.end = number, func() { p.end(number) }
	p.logins[number] = from
	p.authority.LoggedIn(from)
	return nil
}

// maxOver bounds the logins that PID 1 has ended and of which the process does not say that they are over.
const maxOver = 64

// end is Login.End.
func (p *Process) end(number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from, ok := p.logins[number]
	if !ok {
		return
	}
	delete(p.logins, number)
	if len(p.over) == maxOver {
		clear(p.over)
	}
	p.over[number] = true
	for conn, of := range p.sessions {
		if half, ok := conn.(interface{ CloseRead() error }); ok && of == number {
			_ = half.CloseRead() // the answer to what it has asked still goes out
		}
	}
	p.authority.LoggedOut(from)
	go func() {
		var e service.Encoder
		e.Uint(number)
		_ = p.link.Call(context.Background(), opEnd, e.Bytes(), nil)
	}()
}

// leave gives the place of a login to others, while a request of it is still carried out. One at a time can be so: more could be more logins
// than there may be.
func (p *Process) leave(number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.logins[p.left]; !ok {
		p.left = number
	}
}

// logout ends a login, if there is one of that number, and its sessions.
func (p *Process) logout(number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.over, number)
	from, ok := p.logins[number]
	if !ok {
		return
	}
	delete(p.logins, number)
	for conn, of := range p.sessions {
		if of == number {
			conn.Close()
		}
	}
	p.authority.LoggedOut(from)
}

// Session serves a request for a session of a login, which serve holds; that closes conn. A service calls it for a session of a kind
// that it alone has (Entry.Open).
func (p *Process) Session(r *service.Request, serve func(conn net.Conn, from Login)) error {
	number, file := DecodeNumber(r.Decoder), r.TakeFile()
	if file != nil {
		defer file.Close()
	}
	if r.End() != nil || file == nil {
		return fmt.Errorf("%w: a request that is not whole", service.ErrBreach)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	from, ok := p.logins[number]
	if p.over[number] {
		return errors.New("the login has ended")
	}
	if !ok {
		return fmt.Errorf("%w: a session without a login", service.ErrBreach)
	}
	of := 0
	for _, n := range p.sessions {
		if n == number {
			of++
		}
	}
	// The total also counts sessions that are still ending after their login.
	if of >= SessionsOf || len(p.sessions) >= SessionsOf*MaxLogins {
		return errors.New("too many sessions")
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return fmt.Errorf("%w: session: %w", service.ErrBreach, err)
	}
	p.sessions[conn] = number
	go func() {
		serve(conn, from)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.sessions, conn)
	}()
	return nil
}

// Ended ends all sessions.
func (p *Process) Ended() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, from := range p.logins {
		p.authority.LoggedOut(from)
	}
	clear(p.logins)
	clear(p.over)
	p.max = 0 // a password that is still being checked makes no login
	for conn := range p.sessions {
		conn.Close()
	}
}
