package socks

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/password"
)

// Config is what a user can set, with the names, ranges and defaults of MikroTik's manual
// page.
type Config struct {
	Enabled bool
	// Port the server listens on, 1..65535.
	Port uint16
	// ConnectionIdleTimeout is the silence, in both directions together, after
	// which a connection is closed.
	ConnectionIdleTimeout time.Duration
	// MaxConnections is how many connections there may be at once, in any state, 1..500.
	MaxConnections int
	// Version of the protocol, 4 or 5.
	Version int
	// AuthMethod is how clients of version 5 say who they are.
	AuthMethod AuthMethod
	// Users may use the server with AuthPassword; see MaxUsers and MaxUserBytes.
	Users []User
	// UDP allows UDP ASSOCIATE of version 5. RouterOS does not document it.
	UDP bool
	// NameServers are asked for the names of 4a requests, in this order, on port 53.
	// When there are none here, names are looked up as hosts(5) and resolv.conf(5) of
	// the machine say.
	NameServers []netip.Addr
	// Access is the access list. The first rule that matches decides; if none matches,
	// the connection is allowed.
	Access []Rule
}

const (
	// MaxUsers is how many users there may be.
	MaxUsers = 1000
	// MaxUserBytes is how many bytes their names and the hashes of their passwords may have
	// together: on a router the configuration is held by two processes and on flash. The hash
	// of package password has 96 bytes, so 1,000 users may have names of 35 bytes.
	MaxUserBytes = 128 << 10
)

// MaxMaxConnections is the highest MaxConnections, as in the manual.
const MaxMaxConnections = 500

// DefaultConfig is the manual's: disabled, port 1080, 2 minutes, 200 connections, version 4.
func DefaultConfig() Config {
	return Config{
		Port: 1080, ConnectionIdleTimeout: 2 * time.Minute, MaxConnections: 200,
		Version: 4, AuthMethod: AuthNone,
	}
}

// AuthMethod is a method of authentication of version 5, as the manual names them.
type AuthMethod string

const (
	// AuthNone asks for nothing (RFC 1928, method 0).
	AuthNone AuthMethod = "none"
	// AuthPassword asks for a name and password of Config.Users (RFC 1929, method 2).
	AuthPassword AuthMethod = "password"
)

// User is one of /ip socks users.
type User struct {
	// Name is 1..255 bytes.
	Name string
	// Password is the hash of the password, as package password writes it.
	Password string
	// OnlyOne allows the user one connection at a time. The next is refused.
	OnlyOne bool
	// RateLimit, in bits per second, bounds what the user's connections move together,
	// each direction by itself: MinRateLimit..MaxRateLimit, or 0 for no limit.
	RateLimit uint64
	Disabled  bool
	Comment   string
}

// Validate returns an error that names the first value out of range: port
// 1..65535, max-connections 1..500, connection-idle-timeout more than 0, an
// action other than allow and deny.
func (c Config) Validate() error {
	if c.Port == 0 {
		return fmt.Errorf("port %d is not in 1..65535", c.Port)
	}
	if c.MaxConnections < 1 || c.MaxConnections > MaxMaxConnections {
		return fmt.Errorf("max-connections %d is not in 1..%d", c.MaxConnections, MaxMaxConnections)
	}
	if c.ConnectionIdleTimeout <= 0 {
		return fmt.Errorf("connection-idle-timeout %v is not more than 0", c.ConnectionIdleTimeout)
	}
	if c.Version != 4 && c.Version != 5 {
		return fmt.Errorf("version %d is not 4 or 5", c.Version)
	}
	if c.AuthMethod != AuthNone && c.AuthMethod != AuthPassword {
		return fmt.Errorf("auth-method %q is not none or password", c.AuthMethod)
	}
	if len(c.Users) > MaxUsers {
		return fmt.Errorf("%d users are more than %d", len(c.Users), MaxUsers)
	}
	named, bytes := map[string]bool{}, 0
	for i, u := range c.Users {
		if u.Name == "" || len(u.Name) > maxField {
			return fmt.Errorf("user %d: a name has 1..%d bytes", i, maxField)
		}
		if named[u.Name] {
			return fmt.Errorf("user %d: there is another %q", i, u.Name)
		}
		named[u.Name] = true
		if _, err := password.Parse(u.Password); err != nil {
			return fmt.Errorf("user %q: invalid value for argument password-hash: %w", u.Name, err)
		}
		if u.RateLimit != 0 && (u.RateLimit < MinRateLimit || u.RateLimit > MaxRateLimit) {
			return fmt.Errorf("user %q: rate-limit %d is not in %s..%s", u.Name, u.RateLimit, FormatRate(MinRateLimit), FormatRate(MaxRateLimit))
		}
		if bytes += len(u.Name) + len(u.Password); bytes > MaxUserBytes {
			return fmt.Errorf("user %d: the names and password hashes up to here have more than %d bytes together", i, MaxUserBytes)
		}
	}
	for i, r := range c.Access {
		if r.Action != Allow && r.Action != Deny {
			return fmt.Errorf("access rule %d: action %q is not allow or deny", i, r.Action)
		}
	}
	return nil
}

// Action is what an access rule does with what it matches.
type Action string

const (
	Allow Action = "allow"
	Deny  Action = "deny"
)

// Rule is one line of the access list.
type Rule struct {
	// ID says which rule of the list before this one is: it keeps its hits if it matches the
	// same as before. 0 is a rule of which nobody knows that; then the first of those that match
	// the same is it.
	ID                     uint32
	Action                 Action
	SrcAddress, DstAddress match.Addresses
	SrcPort, DstPort       match.Ports
	Disabled               bool
	Comment                string
}

// Type of a connection, as the manual's property of that name.
type Type string

const (
	// Unknown is a connection that has just been initiated.
	Unknown Type = "unknown"
	// Out is one that the server opened for a client (CONNECT).
	Out Type = "out"
	// In is one that a peer opened to the server for a client (BIND).
	In Type = "in"
)
