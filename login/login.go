// Package login is how users log in over the network: what SSH and the other ways to manage the
// router share. It has both ends of the control link between PID 1 and the process of such a service.
//
// The process reads what strangers send. PID 1 alone says who is a user: it checks passwords, counts the
// logins, and gives a session only to a login that it has admitted itself.
//
// It promises:
//   - who has not logged in costs little: 10 connections at once, 5 of one address (what one may send, and
//     for how long, is the service's to bound). One more is closed, unless another address has failed more lately, or as much and
//     has at least two more: then the oldest of that is. So neither fewer than 10 addresses nor those that fail again and again keep
//     others out. A failure is a wrong password, also of who has hung up, and a connection that ends without any (Rank);
//   - 12 passwords are being checked at once, 3 of one address, also of those who have hung up. Who has failed once leaves 3 of the 12 to
//     others, and who has failed often 6;
//   - there are no more logins than the configuration says, but for one more of who manages the router, whom the others
//     can therefore not keep out, and one that was left while a request is still carried out (Entry.Leave); each has at most
//     4 sessions;
//   - PID 1 can end a login at any time (Login.End);
//   - a client that has vanished without a word is noticed after some minutes;
//   - clients whose address is not allowed are cut off before a byte of theirs is read;
//   - a service with a certificate speaks TLS 1.2 or 1.3 and nothing else, in the process: PID 1 reads no byte of it. Who has not
//     completed the handshake within 15 seconds is cut off, and counts until then as any other who has not logged in;
//   - the process ends a minute after the last connection. PID 1 then ends all its logins.
package login

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/postern-router/postern/certificate"
)

const (
	// MaxSessions is the greatest Config.MaxSessions, and MaxLogins how many logins a service has at most: one more.
	MaxSessions = 8
	MaxLogins   = MaxSessions + 1
	// MaxPrefixes is how many prefixes of addresses a Config has at most.
	MaxPrefixes = 16
	// MaxUser and MaxPassword are the greatest lengths in bytes of what a client logs in with.
	MaxUser     = 64
	MaxPassword = 256
	// SessionsOf is how many sessions a login may have at once.
	SessionsOf = 4

	// MaxStrangers is how many connections there may be at once that have not logged in, and
	// MaxStrangersOf how many of one address.
	MaxStrangers   = 10
	MaxStrangersOf = 5
	// maxLeaving is how many more there may be that had to leave their places and are not gone yet.
	maxLeaving = 3
	// MaxChecks is how many passwords are being checked at once, the pauses after wrong ones included. checksKept of these are kept
	// for each better Rank.
	MaxChecks  = 12
	checksKept = 3
	// MaxChecksOf is how many of them are of one address: who hangs up does not end the check,
	// nor the pause after a wrong one.
	MaxChecksOf = 3
	// maxID bounds the numbers that the process chooses.
	maxID = 1 << 62
	// maxExtra bounds what a service adds to its configuration, in bytes.
	maxExtra = 1024
	// maxTLS bounds Chain and Key of a TLS, in bytes.
	maxTLS = certificate.MaxText
)

// Config is what can be set of a service that users log in to (a row of /ip service).
type Config struct {
	Disabled bool
	// Port is the TCP port of all addresses of the router.
	Port uint16
	// From has the prefixes of the addresses of clients; nil means all.
	From []netip.Prefix
	// MaxSessions is how many logins there may be at once, besides one of who manages the router (Authority.Manages).
	MaxSessions int
	// Certificate is the name of that of a service over TLS; "" is none.
	Certificate string
}

// TLS is what a service over TLS proves with who it is: Chain and Key of a certificate (package certificate). The zero value is a
// service without.
type TLS struct{ Chain, Key string }

// Allows reports whether a client with that address may connect.
func (c Config) Allows(client netip.Addr) bool {
	return len(c.From) == 0 || slices.ContainsFunc(c.From, func(p netip.Prefix) bool { return p.Contains(client) })
}

// Login is who logs in, and from where.
type Login struct {
	User string
	From netip.Addr // IPv4
	// REST tells a login by REST from one by the page, which one process serves.
	REST bool

	// Proof is what PID 1 let the user in for, in its own form (Authority); Number is that of the login. Neither is in a request.
	Proof  string
	Number uint64
	end    func()
}

// End ends the login and its sessions, each after what it is just doing, and has the process close the connection.
func (l Login) End() {
	if l.end != nil {
		l.end()
	}
}

// Verdict is PID 1's about a password.
type Verdict uint64

const (
	Wrong Verdict = iota
	Right         // there is a login now
	Full          // it is right, and there are too many logins: ErrFull
	Unset         // there is none yet, and this client may set it
)

// ErrFull is the error of a login that is one too many.
var ErrFull = errors.New("failure: there are as many connections as max-sessions allows")

// The requests of PID 1.
const (
	opConfigure = 1
	opVerdict   = 2
	opEnd       = 3
)

// The requests of the process. What a service adds begins with FirstOp.
const (
	opPassword = 1
	opSession  = 2
	opLogout   = 3
	opFirst    = 4
	opLeave    = 5

	FirstOp = 16
)
