package socks

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/postern-router/postern/match"
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
	// NameServers are asked for the names of 4a requests, in this order, on port 53.
	// When there are none here, names are looked up as hosts(5) and resolv.conf(5) of
	// the machine say.
	NameServers []netip.Addr
	// Access is the access list. The first rule that matches decides; if none matches,
	// the connection is allowed.
	Access []Rule
}

// MaxMaxConnections is the highest MaxConnections, as in the manual.
const MaxMaxConnections = 500

// DefaultConfig is the manual's: disabled, port 1080, 2 minutes, 200 connections.
func DefaultConfig() Config {
	return Config{Port: 1080, ConnectionIdleTimeout: 2 * time.Minute, MaxConnections: 200}
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
