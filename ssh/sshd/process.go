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
		Any:     []uint32{unix.SYS_ACCEPT4, unix.SYS_SETSOCKOPT},
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
	// CheckPassword reports whether a password is right. It may take long.
	CheckPassword func(Login, string) bool
	// Known reports whether a key is one of the user's.
	Known func(Login, [ssh.KeySize]byte) bool
	// LoggedIn is told that there is a connection with a login, LoggedOut that it is over. They are called
	// one at a time.
	LoggedIn, LoggedOut func(Login)
	// Serve holds a session and closes conn.
	Serve func(conn net.Conn, from Login)
}

// Process is PID 1's end of the process. It gives a session only to a login that it has admitted itself.
type Process struct {
	link      *service.Link
	authority Authority

	mu       sync.Mutex
	checks   int
	checking map[netip.Addr]int  // the checks of each address
	untold   int                 // verdicts that the process has not taken
	max      int                 // of logins
	logins   map[uint64]Login    // by their numbers, which the process chooses
	sessions map[net.Conn]uint64 // the number of the login of each
}

// NewProcess is for service.Options.
func NewProcess(link *service.Link, a Authority) *Process {
	return &Process{link: link, authority: a, checking: map[netip.Addr]int{}, logins: map[uint64]Login{}, sessions: map[net.Conn]uint64{}}
}

// Configure puts a configuration in force. The process accepts on listener, of which the caller keeps
// its own copy.
func (p *Process) Configure(ctx context.Context, c ssh.Config, listener *os.File) error {
	p.mu.Lock()
	p.max = c.MaxSessions
	p.mu.Unlock()
	var e service.Encoder
	e.String(string(p.authority.HostKey[:]))
	e.Uint(uint64(len(c.From)))
	for _, from := range c.From {
		e.Addr(from.Addr())
		e.Uint(uint64(from.Bits()))
	}
	return p.link.Call(ctx, opConfigure, e.Bytes(), nil, listener)
}

// configuration is what the process is told. Of the settings it has From alone: PID 1 listens on the port and
// counts the logins.
type configuration struct {
	ssh.Config
	hostKey string
}

func decodeConfiguration(d *service.Decoder) (configuration, error) {
	c := configuration{hostKey: d.String(ssh.KeySize)}
	for range d.Count(ssh.MaxPrefixes) {
		c.From = append(c.From, netip.PrefixFrom(d.Addr(), int(d.Uint(32))))
	}
	if len(c.hostKey) != ssh.KeySize {
		d.Fail(errors.New("no host key"))
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
	case opKnown:
		from, key := decodeLogin(r.Decoder), decodeKey(r.Decoder)
		if r.End() != nil {
			break
		}
		reply.Bool(p.authority.Known(from, key))
		return reply.Bytes(), nil
	case opKeyLogin:
		number, from, key := r.Uint(maxID), decodeLogin(r.Decoder), decodeKey(r.Decoder)
		if r.End() != nil {
			break
		}
		if !p.authority.Known(from, key) {
			return nil, errors.New("the key is not known any more")
		}
		return nil, p.admit(number, from)
	case opLogout:
		number := r.Uint(maxID)
		if r.End() != nil {
			break
		}
		p.logout(number)
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

func decodeKey(d *service.Decoder) (key [ssh.KeySize]byte) {
	if copy(key[:], d.String(ssh.KeySize)) != ssh.KeySize {
		d.Fail(errors.New("no key"))
	}
	return key
}

// check begins to check a password. The verdict goes to the process. A right one
// makes the login of that number.
func (p *Process) check(number uint64, from Login, secret string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.checks == maxChecks || p.checking[from.From] == maxChecksOf || p.untold >= maxChecks {
		return errors.New("too many passwords are being checked")
	}
	p.checks++
	p.checking[from.From]++
	go func() {
		v := wrong
		if p.authority.CheckPassword(from, secret) {
			v = right
			if p.admit(number, from) != nil {
				v = full
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
		// Not with callTime: a process that was slow would take the verdict after the logout, and ask for a session
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

// admit makes a login. It is an error if there are too many.
func (p *Process) admit(number uint64, from Login) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.logins[number]; ok {
		return fmt.Errorf("%w: two logins of one number", service.ErrBreach)
	}
	if len(p.logins) >= p.max {
		return errTooMany
	}
	p.logins[number] = from
	p.authority.LoggedIn(from)
	return nil
}

// logout ends a login, if there is one of that number, and its sessions.
func (p *Process) logout(number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
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

// session begins a session of a login.
func (p *Process) session(number uint64, file *os.File) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	from, ok := p.logins[number]
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
	if of >= maxChannels || len(p.sessions) >= maxChannels*ssh.MaxSessions {
		return errors.New("too many sessions")
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return fmt.Errorf("%w: session: %w", service.ErrBreach, err)
	}
	p.sessions[conn] = number
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
	p.max = 0 // a password that is still being checked makes no login
	for conn := range p.sessions {
		conn.Close()
	}
}
