package server

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/match"
)

// Plan is a Config as the process has it: what is enabled, with what the router knows besides.
type Plan struct {
	Servers  []PlanServer
	Networks []PlanNetwork
	Leases   []PlanLease
}

// PlanServer is a server whose interface is there.
type PlanServer struct {
	Name string
	// Link is the index of its interface, Prefixes are the router's addresses there.
	Link     int
	Prefixes []netip.Prefix
	// Ranges are those of its pool and of those that follow, in their order.
	Ranges    []match.Addresses
	LeaseTime time.Duration
	Delay     time.Duration
	// After is how long a client has to have asked until the server counts as authoritative, -1
	// for ever.
	After            time.Duration
	Probe, Broadcast bool
	Relay, Address   netip.Addr
}

// PlanNetwork is what the clients of a network are told.
type PlanNetwork struct {
	Prefix  netip.Prefix
	Next    netip.Addr
	Options []PlanOption
}

// PlanOption is an option of a reply. One without Force is left out if the client has not asked for
// it.
type PlanOption struct {
	Code  byte
	Force bool
	Value []byte
}

// PlanLease is a static lease.
type PlanLease struct {
	Address          netip.Addr
	MAC              ether.MAC
	ClientID, Server string
	LeaseTime        time.Duration
	Block, Broadcast bool
	Options          []PlanOption
}

// LinkState is what a Plan needs to know of an interface.
type LinkState struct {
	Index    int
	Prefixes []netip.Prefix // the router's addresses
}

// options that dhcp does not name (RFC 2132).
const (
	optionNetBIOSServers = 44
	optionBootServer     = 66
	optionBootFile       = 67
)

// Compile makes a Plan of a valid c. Links returns the state of an interface, if it is there, and
// names are the router's own name servers. A server whose interface is missing or has no address is
// not in the Plan.
func (c Config) Compile(links func(name string) (LinkState, bool), names []netip.Addr) Plan {
	var plan Plan
	for _, s := range c.Servers {
		link, ok := links(s.Interface)
		if s.Disabled || !ok || len(link.Prefixes) == 0 {
			continue
		}
		p := PlanServer{Name: s.Name, Link: link.Index, Prefixes: link.Prefixes, LeaseTime: s.LeaseTime, Delay: s.Delay,
			After: -1, Probe: !s.NoConflictDetection, Broadcast: s.AlwaysBroadcast, Relay: s.Relay, Address: s.Address}
		switch s.Authoritative {
		case Authoritative:
			p.After = 0
		case AuthoritativeAfter:
			p.After = 2 * time.Second
		case AuthoritativeLater:
			p.After = 10 * time.Second
		}
		for name := s.Pool; name != StaticOnly && name != ""; {
			pool := c.Pools[c.pool(name)]
			p.Ranges = append(p.Ranges, pool.Ranges...)
			name = pool.Next
		}
		plan.Servers = append(plan.Servers, p)
	}
	for _, n := range c.Networks {
		plan.Networks = append(plan.Networks, c.compileNetwork(n, names))
	}
	for _, l := range c.Leases {
		if !l.Disabled {
			plan.Leases = append(plan.Leases, PlanLease{Address: l.Address, MAC: l.MAC, ClientID: l.ClientID, Server: l.Server,
				LeaseTime: l.LeaseTime, Block: l.Block, Broadcast: l.AlwaysBroadcast, Options: c.own(l.Options)})
		}
	}
	return plan
}

func (c Config) compileNetwork(n Network, names []netip.Addr) PlanNetwork {
	p := PlanNetwork{Prefix: n.Address, Next: n.Next}
	bits := n.Netmask
	if bits == 0 {
		bits = n.Address.Bits()
	}
	add := func(code byte, force bool, value []byte) {
		if len(value) > 0 {
			p.Options = append(p.Options, PlanOption{code, force, value})
		}
	}
	add(dhcp.OptionSubnetMask, true, mask(bits))
	add(dhcp.OptionRouter, true, addresses(n.Gateway))
	if len(n.NameServers) > 0 {
		names = n.NameServers
	}
	if !n.NoNameServers {
		add(dhcp.OptionNameServers, true, addresses(names))
	}
	add(dhcp.OptionDomain, true, []byte(n.Domain))
	add(dhcp.OptionNTPServers, false, addresses(n.NTP))
	add(optionNetBIOSServers, false, addresses(n.WINS))
	if n.Next.IsValid() {
		add(optionBootServer, false, []byte(n.Next.String()))
	}
	add(optionBootFile, true, []byte(n.BootFile))
	for _, o := range c.own(n.Options) {
		p.Options = override(p.Options, o)
	}
	return p
}

// own are the user's options of these names.
func (c Config) own(names []string) []PlanOption {
	var all []PlanOption
	for _, name := range names {
		i := slices.IndexFunc(c.Options, func(o Option) bool { return o.Name == name })
		value, err := ParseValue(c.Options[i].Value)
		if err == nil { // a valid configuration has no other
			all = append(all, PlanOption{byte(c.Options[i].Code), c.Options[i].Force, value})
		}
	}
	return all
}

// override replaces the option of the same code, or adds o.
func override(all []PlanOption, o PlanOption) []PlanOption {
	all = slices.Clone(all)
	if i := slices.IndexFunc(all, func(p PlanOption) bool { return p.Code == o.Code }); i >= 0 {
		o.Force = o.Force || all[i].Force
		all[i] = o
		return all
	}
	return append(all, o)
}

func mask(bits int) []byte { return binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-bits)) }

func addresses(all []netip.Addr) []byte {
	var b []byte
	for _, a := range all {
		b = append(b, a.AsSlice()...)
	}
	return b
}
