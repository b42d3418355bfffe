package server

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/match"
)

// Config is what a user sets of DHCP servers and of the pools of their addresses. The zero value
// has none.
type Config struct {
	Pools    []Pool
	Servers  []Server
	Networks []Network
	Leases   []Lease
	Options  []Option
}

// Pool is a set of addresses (/ip pool).
type Pool struct {
	Name string
	// Ranges are of addresses, without Not.
	Ranges []match.Addresses
	// Next is the pool that is used when this one is exhausted, "" for none.
	Next    string
	Comment string
}

// StaticOnly is the pool of a server that serves nobody but the clients of static leases.
const StaticOnly = "static-only"

// When a server answers those clients that ask for an address which it does not have for them:
// always, never, or when they say that they have been asking for that long.
const (
	Authoritative      = "yes"
	NotAuthoritative   = "no"
	AuthoritativeAfter = "after-2sec-delay"
	AuthoritativeLater = "after-10sec-delay"
)

// Server serves the clients of one interface (/ip dhcp-server).
type Server struct {
	Name, Interface string
	// Pool is the name of a Pool, or StaticOnly.
	Pool          string
	LeaseTime     time.Duration // whole seconds
	Authoritative string
	// NoConflictDetection is set if addresses are offered without asking for them by ARP.
	NoConflictDetection bool
	AlwaysBroadcast     bool
	// AddARP is whether whoever uses a Config keeps the hardware addresses of clients for as long as their leases.
	AddARP bool
	// Delay is how long a client has to have asked before it is answered; 0 for none.
	Delay time.Duration
	// Relay is the relay whose clients are served: the zero Addr stands for none, so that the
	// clients are those of the interface itself; 255.255.255.255 for any.
	Relay netip.Addr
	// Address is the one by which the server calls itself; the zero Addr stands for the
	// interface's.
	Address  netip.Addr
	Disabled bool
	Comment  string
}

// AnyRelay is the Relay of a server for all relays that have no server of their own.
var AnyRelay = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// Network is what the clients in a network are told (/ip dhcp-server network).
type Network struct {
	Address netip.Prefix
	Gateway []netip.Addr
	Netmask int // in bits; 0 stands for that of Address
	// NameServers are the router's own if they are empty, and NoNameServers is not set.
	NameServers   []netip.Addr
	NoNameServers bool
	WINS          []netip.Addr
	NTP           []netip.Addr
	Domain        string
	// Next and BootFile are for machines that start from the network.
	Next     netip.Addr
	BootFile string
	Options  []string // names of Option
	Comment  string
}

// Lease is an address that is reserved for a client (/ip dhcp-server lease).
type Lease struct {
	Address netip.Addr // the zero Addr for a client that is only blocked
	// MAC or ClientID is the client's; both, if both have to be right.
	MAC      ether.MAC
	ClientID string // bytes
	// Server is the name of the only server that has this lease, "" for all.
	Server    string
	LeaseTime time.Duration // 0 stands for the server's
	// Block is set for a client that gets no address.
	Block           bool
	AlwaysBroadcast bool
	Options         []string
	Disabled        bool
	Comment         string
}

// Option is an option of the user's own (/ip dhcp-server option).
type Option struct {
	Name string
	Code int // 1..254
	// Value is in the form that ParseValue reads.
	Value string
	// Force is set if clients get it that do not ask for it.
	Force   bool
	Comment string
}

// The longest values, in bytes.
const (
	MaxName        = 32
	MaxDomain      = 253
	MaxBootFile    = 127
	MaxClientID    = 64
	maxOptionValue = 255
)

// Uses returns what of c refers to a pool: "/ip dhcp-server 0 (defconf)", counted from 0.
func (c Config) Uses(pool string) []string {
	var all []string
	for i, s := range c.Servers {
		if s.Pool == pool {
			all = append(all, fmt.Sprintf("/ip dhcp-server %d (%s)", i, s.Name))
		}
	}
	for i, p := range c.Pools {
		if p.Next == pool {
			all = append(all, fmt.Sprintf("/ip pool %d (%s)", i, p.Name))
		}
	}
	return all
}

// ServerUses are the leases that name a server.
func (c Config) ServerUses(name string) []string {
	var all []string
	for i, l := range c.Leases {
		if l.Server == name {
			all = append(all, fmt.Sprintf("/ip dhcp-server lease %d (%s)", i, l.Address))
		}
	}
	return all
}

// OptionUses are the networks and the leases that name an option of the user's.
func (c Config) OptionUses(name string) []string {
	var all []string
	for i, n := range c.Networks {
		if slices.Contains(n.Options, name) {
			all = append(all, fmt.Sprintf("/ip dhcp-server network %d (%s)", i, n.Address))
		}
	}
	for i, l := range c.Leases {
		if slices.Contains(l.Options, name) {
			all = append(all, fmt.Sprintf("/ip dhcp-server lease %d (%s)", i, l.Address))
		}
	}
	return all
}

// Validate checks what the parts of c have to do with each other. The error names the menu and the
// item, counted from 0.
func (c Config) Validate() error {
	return cmpError(c.validatePools, c.validateCodes, c.validateServers, c.validateNetworks, c.validateLeases)
}

// ownOptions are those by which client and server speak: what kind of message it is, for which
// address and how long, from whom.
var ownOptions = []int{dhcp.OptionRequested, dhcp.OptionLeaseTime, dhcp.OptionOverload, dhcp.OptionType, dhcp.OptionServerID, dhcp.OptionParameters,
	dhcp.OptionMaxSize, dhcp.OptionClientID, dhcp.OptionRelayAgent}

func (c Config) validateCodes() error {
	for i, o := range c.Options {
		if slices.Contains(ownOptions, o.Code) {
			return fmt.Errorf("/ip dhcp-server option %d (%s): code=%d: the server sets this one itself", i, o.Name, o.Code)
		}
	}
	return nil
}

func cmpError(checks ...func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// twice returns the first two items that have the same value.
func twice[T any, K comparable](items []T, value func(T) (K, bool)) (first, second int, found bool) {
	seen := map[K]int{}
	for i, item := range items {
		v, counts := value(item)
		if !counts {
			continue
		}
		if j, ok := seen[v]; ok {
			return j, i, true
		}
		seen[v] = i
	}
	return 0, 0, false
}

func (c Config) validatePools() error {
	if i, j, ok := twice(c.Pools, func(p Pool) (string, bool) { return p.Name, true }); ok {
		return fmt.Errorf("/ip pool %d: name=%s: item %d has this name already", j, c.Pools[j].Name, i)
	}
	for i, p := range c.Pools {
		// A pool that is reached by itself would never be exhausted.
		next := p
		for range c.Pools {
			if next.Next == "" {
				break
			}
			k := c.pool(next.Next)
			if k < 0 {
				return fmt.Errorf("/ip pool %d (%s): next-pool=%s: there is no such pool", i, p.Name, p.Next)
			}
			if next = c.Pools[k]; k == i {
				return fmt.Errorf("/ip pool %d (%s): next-pool=%s leads back to itself", i, p.Name, p.Next)
			}
		}
	}
	return nil
}

func (c Config) pool(name string) int {
	return slices.IndexFunc(c.Pools, func(p Pool) bool { return p.Name == name })
}

func (c Config) validateServers() error {
	if i, j, ok := twice(c.Servers, func(s Server) (string, bool) { return s.Name, true }); ok {
		return fmt.Errorf("/ip dhcp-server %d: name=%s: item %d has this name already", j, c.Servers[j].Name, i)
	}
	type place struct {
		link  string
		relay netip.Addr
	}
	if i, j, ok := twice(c.Servers, func(s Server) (place, bool) { return place{s.Interface, s.Relay}, !s.Disabled }); ok {
		return fmt.Errorf("/ip dhcp-server %d (%s): interface=%s: %s (item %d) serves the same clients", j, c.Servers[j].Name, c.Servers[j].Interface, c.Servers[i].Name, i)
	}
	for i, s := range c.Servers {
		if s.Pool != StaticOnly && c.pool(s.Pool) < 0 {
			return fmt.Errorf("/ip dhcp-server %d (%s): address-pool=%s: there is no such pool", i, s.Name, s.Pool)
		}
	}
	return nil
}

func (c Config) validateNetworks() error {
	if i, j, ok := twice(c.Networks, func(n Network) (netip.Prefix, bool) { return n.Address, true }); ok {
		return fmt.Errorf("/ip dhcp-server network %d: address=%s: item %d has it already", j, c.Networks[j].Address, i)
	}
	if i, j, ok := twice(c.Options, func(o Option) (string, bool) { return o.Name, true }); ok {
		return fmt.Errorf("/ip dhcp-server option %d: name=%s: item %d has this name already", j, c.Options[j].Name, i)
	}
	for i, n := range c.Networks {
		if err := c.validateOptions(n.Options); err != nil {
			return fmt.Errorf("/ip dhcp-server network %d (%s): %w", i, n.Address, err)
		}
	}
	return nil
}

func (c Config) validateOptions(names []string) error {
	for _, name := range names {
		if !slices.ContainsFunc(c.Options, func(o Option) bool { return o.Name == name }) {
			return fmt.Errorf("dhcp-option=%s: there is no such option", name)
		}
	}
	return nil
}

func (c Config) validateLeases() error {
	for i, l := range c.Leases {
		fail := func(format string, args ...any) error {
			return fmt.Errorf("/ip dhcp-server lease %d: %w", i, fmt.Errorf(format, args...))
		}
		if l.MAC == (ether.MAC{}) && l.ClientID == "" {
			return fail("expected mac-address or client-id")
		}
		if !l.Address.IsValid() && !l.Block {
			return fail("expected address")
		}
		if l.Server != "" && !slices.ContainsFunc(c.Servers, func(s Server) bool { return s.Name == l.Server }) {
			return fail("server=%s: there is no such server", l.Server)
		}
		if err := c.validateOptions(l.Options); err != nil {
			return fail("%w", err)
		}
	}
	// Each is compared with those of the same value only: the list may be long.
	type keys struct {
		address netip.Addr
		mac     ether.MAC
		id      string
	}
	seen := map[keys][]int{}
	for i, l := range c.Leases {
		if l.Disabled {
			continue
		}
		for _, k := range []keys{{address: l.Address}, {mac: l.MAC}, {id: l.ClientID}} {
			if k == (keys{}) || k.mac != (ether.MAC{}) && l.ClientID != "" {
				continue
			}
			for _, j := range seen[k] {
				o := c.Leases[j]
				if o.Server != "" && l.Server != "" && o.Server != l.Server {
					continue
				}
				what := "address=" + l.Address.String()
				switch {
				case k.mac != (ether.MAC{}):
					what = "mac-address=" + strings.ToUpper(k.mac.String())
				case k.id != "":
					what = "client-id=" + FormatClientID(k.id)
				}
				return fmt.Errorf("/ip dhcp-server lease %d: %s: item %d has it already", i, what, j)
			}
			seen[k] = append(seen[k], i)
		}
	}
	return nil
}

// ParseClientID reads bytes in hexadecimal with colons between them, as RouterOS writes them
// (1:2:0:0:a:b:c), or 0x and digits.
func ParseClientID(s string) (string, error) {
	bad := errors.New("not bytes in hexadecimal with colons between them")
	if digits, ok := strings.CutPrefix(s, "0x"); ok {
		b, err := hex.DecodeString(digits)
		if err != nil || len(b) == 0 || len(b) > MaxClientID {
			return "", bad
		}
		return string(b), nil
	}
	var b []byte
	for part := range strings.SplitSeq(s, ":") {
		if len(part) == 1 {
			part = "0" + part
		}
		one, err := hex.DecodeString(part)
		if err != nil || len(one) != 1 || len(b) == MaxClientID {
			return "", bad
		}
		b = append(b, one[0])
	}
	return string(b), nil
}

// FormatClientID writes bytes as ParseClientID reads them.
func FormatClientID(id string) string {
	var b strings.Builder
	for i := range len(id) {
		if i > 0 {
			b.WriteByte(':')
		}
		fmt.Fprintf(&b, "%x", id[i])
	}
	return b.String()
}

// ParseValue reads the value of an Option: pieces one behind the other, each of them bytes in
// hexadecimal (0x01ff), a text in quotation marks ('text'), which is four bytes if it is an IPv4
// address, or a text that is none (s'10.0.0.1').
func ParseValue(s string) ([]byte, error) {
	if s == "" {
		return nil, errors.New("it is empty")
	}
	var value []byte
	for s != "" {
		text, always := s, false
		if rest, ok := strings.CutPrefix(s, "s'"); ok {
			text, always = "'"+rest, true
		}
		switch {
		case strings.HasPrefix(s, "0x"):
			digits := s[2:]
			if n := strings.IndexFunc(digits, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) }); n >= 0 {
				digits = digits[:n]
			}
			b, err := hex.DecodeString(digits)
			if err != nil || len(b) == 0 {
				return nil, errors.New("expected pairs of hexadecimal digits behind 0x")
			}
			value, s = append(value, b...), s[2+len(digits):]
		case text[0] == '\'':
			body, rest, ok := strings.Cut(text[1:], "'")
			if !ok {
				return nil, errors.New("expected a second quotation mark")
			}
			if a, err := match.ParseIPv4(body); err == nil && !always {
				value = append(value, a.AsSlice()...)
			} else {
				value = append(value, body...)
			}
			s = rest
		default:
			return nil, errors.New("expected 'text', 'address' or 0x and digits")
		}
	}
	if len(value) > maxOptionValue {
		return nil, fmt.Errorf("it has %d bytes, expected at most %d", len(value), maxOptionValue)
	}
	return value, nil
}
