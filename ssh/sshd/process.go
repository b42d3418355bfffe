package sshd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/ssh"
)

// Spec is the process.
var Spec = service.Spec{
	Name: "sshd", Topic: "ssh", Start: service.OnConnection, Main: runProcess,
	Calls: service.Calls{
		Any:     []uint32{unix.SYS_ACCEPT4, unix.SYS_SETSOCKOPT, unix.SYS_SHUTDOWN},
		Checked: []service.Check{service.Equals(unix.SYS_SOCKETPAIR, 0, unix.AF_UNIX)},
	},
	Limits: service.Limits{Files: 96, Memory: 4 << 20},
}

// The requests of PID 1.
const (
	opConfigure = 1
	opVerdict   = 2
)

// The requests of the process.
const (
	opPassword = 1
	opKnown    = 2
	opKeyLogin = 3
	opSession  = 4
	opLogout   = 5
	opSign     = 6
)

const (
	// maxChecks is how many passwords are being checked at once: those of connections that have
	// not logged in.
	maxChecks = maxStrangers
	// maxChecksOf is how many of them are of one address: who hangs up does not end the check,
	// nor the pause after a wrong one.
	maxChecksOf = 3
	// maxSigned bounds what is signed with the host key, the hash of a key exchange, and the signature.
	maxSigned = 64
	// maxID bounds the numbers that the process chooses.
	maxID = 1 << 62
)

// Login is who has logged in, and from where.
type Login struct {
	User string
	From netip.Addr
}

// Authority is what PID 1 decides. Its functions are called from several goroutines.
type Authority struct {
	// HostKey is the public key of the router, and Sign signs with it.
	HostKey [ssh.KeySize]byte
	Sign    func(data []byte) []byte
	// CheckPassword may take long.
	CheckPassword func(Login, string) bool
	// Known reports whether a key is one of the user's. LoggedIn is told that it was used, and LoggedOut
	// that a connection with a login is over.
	Known               func(Login, [ssh.KeySize]byte) bool
	LoggedIn, LoggedOut func(Login)
	// Serve holds a session and closes conn.
	Serve func(conn net.Conn, from Login)
}

// Process is PID 1's end of the process. It lets nobody have a session whom it has not let in itself.
type Process struct {
	link      *service.Link
	authority Authority

	mu       sync.Mutex
	checks   int
	checking map[netip.Addr]int // the checks of each address
	max      int                // of logins
	last     uint64             // number of a login
	logins   map[uint64]Login   // by their numbers
	sessions map[net.Conn]bool
}

// NewProcess is for service.Options.
func NewProcess(link *service.Link, a Authority) *Process {
	return &Process{link: link, authority: a, checking: map[netip.Addr]int{}, logins: map[uint64]Login{}, sessions: map[net.Conn]bool{}}
}

// Configure puts a configuration in force. The process accepts on listener, of which the caller keeps
// its own copy.
func (p *Process) Configure(ctx context.Context, c ssh.Config, listener *os.File) error {
	p.mu.Lock()
	p.max = c.MaxSessions
	p.mu.Unlock()
	var e service.Encoder
	e.Uint(uint64(c.Port))
	e.Uint(uint64(c.MaxSessions))
	e.String(string(p.authority.HostKey[:]))
	e.Uint(uint64(len(c.From)))
	for _, from := range c.From {
		e.Addr(from.Addr())
		e.Uint(uint64(from.Bits()))
	}
	return p.link.Call(ctx, opConfigure, e.Bytes(), nil, listener)
}

// configuration is what the process is told.
type configuration struct {
	ssh.Config
	hostKey string
}

func decodeConfiguration(d *service.Decoder) (configuration, error) {
	c := configuration{Config: ssh.Config{Port: uint16(d.Uint(1<<16 - 1)), MaxSessions: int(d.Uint(ssh.MaxSessions))}}
	c.hostKey = d.String(ssh.KeySize)
	for range d.Count(ssh.MaxPrefixes) {
		c.From = append(c.From, netip.PrefixFrom(d.Addr(), int(d.Uint(32))))
	}
	if len(c.hostKey) != ssh.KeySize || c.MaxSessions == 0 {
		d.Fail(errors.New("no host key or no sessions"))
	}
	return c, d.End()
}

var errTooMany = errors.New("failure: there are as many connections as max-sessions allows")

// Handle serves the process. It does not wait for the check of a password.
func (p *Process) Handle(_ context.Context, r *service.Request) ([]byte, error) {
	var reply service.Encoder
	switch r.Op {
	case opSign:
		data := r.String(maxSigned)
		if r.End() != nil || len(data) != sha256.Size {
			break
		}
		reply.String(string(p.authority.Sign([]byte(data))))
		return reply.Bytes(), nil
	case opPassword:
		number, from, secret := r.Uint(maxID), decodeLogin(r.Decoder), r.String(ssh.MaxPassword)
		if r.End() != nil {
			break
		}
		return nil, p.check(number, from, secret)
	case opKnown, opKeyLogin:
		from, key := decodeLogin(r.Decoder), r.String(ssh.KeySize)
		if r.End() != nil || len(key) != ssh.KeySize {
			break
		}
		known := p.authority.Known(from, [ssh.KeySize]byte([]byte(key)))
		if r.Op == opKnown {
			reply.Bool(known)
			return reply.Bytes(), nil
		}
		if !known {
			return nil, errors.New("the key is not known any more")
		}
		number, err := p.enter(from)
		if err != nil {
			return nil, err
		}
		p.authority.LoggedIn(from)
		reply.Uint(number)
		return reply.Bytes(), nil
	case opLogout:
		number := r.Uint(maxID)
		if r.End() != nil {
			break
		}
		p.mu.Lock()
		from, ok := p.logins[number]
		delete(p.logins, number)
		p.mu.Unlock()
		if ok {
			p.authority.LoggedOut(from)
		}
		return nil, nil
	case opSession:
		number, file := r.Uint(maxID), r.TakeFile()
		if file != nil {
			defer file.Close()
		}
		if r.End() != nil || file == nil {
			break
		}
		return nil, p.session(number, file)
	}
	return nil, fmt.Errorf("%w: request %d", service.ErrBreach, r.Op)
}

func encodeLogin(e *service.Encoder, l Login) {
	e.String(l.User)
	e.Addr(l.From)
}

func decodeLogin(d *service.Decoder) Login {
	l := Login{User: d.String(ssh.MaxUser), From: d.Addr()}
	if !l.From.Is4() {
		d.Fail(errors.New("no IPv4 address"))
	}
	return l
}

// check begins to check a password. The verdict goes to the process: 0, or the number of a login.
func (p *Process) check(number uint64, from Login, secret string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.checks == maxChecks || p.checking[from.From] == maxChecksOf {
		return errors.New("too many passwords are being checked")
	}
	p.checks++
	p.checking[from.From]++
	go func() {
		var login uint64
		var full error
		if p.authority.CheckPassword(from, secret) {
			login, full = p.enter(from)
		}
		p.mu.Lock()
		p.checks--
		if p.checking[from.From]--; p.checking[from.From] == 0 {
			delete(p.checking, from.From)
		}
		p.mu.Unlock()
		var e service.Encoder
		e.Uint(number)
		e.Uint(login)
		e.Bool(full != nil)
		ctx, cancel := service.WithTimeout(context.Background(), callTime)
		defer cancel()
		_ = p.link.Call(ctx, opVerdict, e.Bytes(), nil) // it may have ended meanwhile
	}()
	return nil
}

// enter makes a login.
func (p *Process) enter(from Login) (number uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.logins) >= p.max {
		return 0, errTooMany
	}
	p.last++
	p.logins[p.last] = from
	return p.last, nil
}

// session begins a session of a login.
func (p *Process) session(number uint64, file *os.File) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	from, ok := p.logins[number]
	if !ok {
		return fmt.Errorf("%w: a session without a login", service.ErrBreach)
	}
	if len(p.sessions) >= maxChannels*ssh.MaxSessions {
		return errors.New("too many sessions")
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return fmt.Errorf("%w: session: %w", service.ErrBreach, err)
	}
	p.sessions[conn] = true
	go func() {
		p.authority.Serve(conn, from)
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
	p.max = 0 // of who is let in from now on
	for conn := range p.sessions {
		conn.Close()
	}
}
