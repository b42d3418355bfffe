package client

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Config is the client of an interface as a user sets it (/ip dhcp-client).
type Config struct {
	Interface string
	// DefaultRoute is yes, no, or special-classless: then option 3 counts beside option 121.
	DefaultRoute string
	// Distance is that of all routes of the lease, 1..255.
	Distance int
	// NoPeerDNS and NoPeerNTP leave out the lease's name servers and time servers.
	NoPeerDNS, NoPeerNTP bool
	// Options are what the client says of itself: hostname and clientid, separated by commas.
	Options  string
	Disabled bool
	Comment  string
}

// The values of Config.DefaultRoute.
const (
	DefaultRouteYes              = "yes"
	DefaultRouteNo               = "no"
	DefaultRouteSpecialClassless = "special-classless"
)

// The words of Config.Options.
const (
	OptionHostName = "hostname"
	OptionClientID = "clientid"
)

// Says reports whether the client says that of itself.
func (c Config) Says(option string) bool {
	return slices.Contains(strings.Split(c.Options, ","), option)
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
		if slices.ContainsFunc(all[:i], func(o Config) bool { return o.Interface == c.Interface }) {
			return errors.New("failure: dhcp-client on that interface already exists")
		}
	}
	return nil
}
