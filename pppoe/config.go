package pppoe

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Config is a client as a user sets it (/interface pppoe-client).
type Config struct {
	// Name is that of the client and of its interface.
	Name string
	// Interface is the Ethernet interface that it dials over.
	Interface string
	// User and Password are what the provider knows the user by.
	User, Password string
	// Service and AC are as in Settings.
	Service, AC string
	// MaxMTU and MaxMRU are 576..1492; 0 is 1492.
	MaxMTU, MaxMRU int
	// DefaultRoute makes the connection the default route, with Distance 1..255.
	DefaultRoute bool
	Distance     int
	// PeerDNS asks the server for name servers.
	PeerDNS bool
	Allow   Methods
	// Keepalive is as in Settings.
	Keepalive time.Duration
	Disabled  bool
	Comment   string
}

// MTU is the longest packet that the client sends, and MRU that it receives, in bytes.
func (c Config) MTU() int { return orMax(c.MaxMTU) }

// MRU is described at MTU.
func (c Config) MRU() int { return orMax(c.MaxMRU) }

func orMax(n int) int {
	if n == 0 {
		return MaxMTU
	}
	return n
}

// Validate checks all clients of a router.
func Validate(all []Config) error {
	if len(all) > MaxClients {
		return fmt.Errorf("%d clients, expected at most %d", len(all), MaxClients)
	}
	for i, c := range all {
		if c.Distance < 1 || c.Distance > 255 {
			return fmt.Errorf("client %d: default-route-distance=%d: expected 1..255", i, c.Distance)
		}
		if c.Allow == 0 {
			return fmt.Errorf("client %d: allow: expected at least one way to prove the password", i)
		}
		if !c.Disabled && slices.ContainsFunc(all[:i], func(o Config) bool {
			return !o.Disabled && o.Interface == c.Interface && o.Service == c.Service && o.AC == c.AC
		}) {
			return errors.New("failure: there is a client for that service on this interface already")
		}
	}
	return nil
}
