// Package console is the command language of the router, and the configuration
// that the language edits. The language is that of MikroTik's RouterOS: a path of
// menus, a command, items by number, properties by name. The same text is what a
// person types, what Export writes and what Load reads; there is no second format.
//
// It promises:
//   - A line that fails changes nothing, and its error names the word that was
//     wrong and what was expected there.
//   - Load(Export(c)) is c, for every configuration that the language can make.
//   - The language is pure: Session.Execute, Load, Export and Validate do no I/O
//     of their own and start nothing. What only the running system knows comes by
//     the functions in Live.
//   - Everything is bounded: MaxLine, MaxItems, MaxText. Bad input is an error,
//     never a panic.
//
// One table per menu (menu.go) lists the properties with type, range, default and
// help; parsing, print, export and the error texts all come from it. A new menu is
// a new entry in that table.
//
// Serve and RunTerminal (serve.go) are the two ends of a session over a socket.
package console

import (
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/socks"
)

const (
	// MaxLine is the length of a line in bytes, its continuations included.
	MaxLine = 4096
	// MaxItems is how many items a menu can hold.
	MaxItems = 256
	// MaxText is the length in bytes of a whole configuration that Load reads: more
	// than the longest that Export can write.
	MaxText = 2 << 20
)

// Config is everything that a person may set on the router.
type Config struct {
	// Identity is the router's name (/system identity), 1..64 bytes.
	Identity string
	// Links are the ports that were set (/interface ethernet). A port that is not
	// among them has the defaults.
	Links []netcfg.Link
	// Addresses are /ip address.
	Addresses []netcfg.Address
	// Routes are /ip route.
	Routes []netcfg.Route
	// Firewall is /ip firewall filter and nat.
	Firewall firewall.Config
	// Socks is /ip socks and /ip socks access.
	Socks socks.Config
	// DNS are the name servers that the router asks (/ip dns), in this order.
	DNS []netip.Addr
}

// Default is the configuration of a router on which nothing was set.
func Default() Config {
	return Config{Identity: "postern", Socks: socks.DefaultConfig()}
}

// Clone returns a copy that shares no memory with c.
func (c Config) Clone() Config {
	c.Links = slices.Clone(c.Links)
	c.Addresses = slices.Clone(c.Addresses)
	c.Routes = slices.Clone(c.Routes)
	c.DNS = slices.Clone(c.DNS)
	c.Firewall.Filter = cloneFirewallRules(c.Firewall.Filter)
	c.Firewall.NAT = cloneFirewallRules(c.Firewall.NAT)
	c.Socks.Access = slices.Clone(c.Socks.Access)
	for i := range c.Socks.Access {
		clonePorts(&c.Socks.Access[i].SrcPort, &c.Socks.Access[i].DstPort)
	}
	return c
}

func cloneFirewallRules(rules []firewall.Rule) []firewall.Rule {
	rules = slices.Clone(rules)
	for i := range rules {
		clonePorts(&rules[i].SrcPort, &rules[i].DstPort, &rules[i].ToPorts)
	}
	return rules
}

func clonePorts(ports ...*match.Ports) {
	for _, p := range ports {
		p.Ranges = slices.Clone(p.Ranges)
	}
}

// Live gives what only the running system knows. Each function may be nil: what
// it would tell is then said to be unavailable.
type Live struct {
	// Links lists the ports of the machine, in the order of its board.
	Links func() ([]netcfg.LinkState, error)
	// Connections lists the connections of the SOCKS server.
	Connections func() ([]socks.Connection, error)
	// Counters count for each rule of the configuration, in its order.
	Counters func() (filter, nat []firewall.Counter, err error)
	// Log returns the lines of the log, oldest first, without line ends.
	Log func() ([]string, error)
	// Resource tells of the machine as a whole.
	Resource func() (Resource, error)
}

// Resource is what /system resource shows.
type Resource struct {
	Uptime time.Duration
	// FreeMemory is what programs can still have (MemAvailable of /proc/meminfo),
	// TotalMemory what the kernel manages, in bytes.
	FreeMemory, TotalMemory uint64
	// CPULoad is the share of time that the processors were busy since the last
	// look, 0..1; at the first look, since the start.
	CPULoad  float64
	CPUCount int
	// Architecture is a GOARCH.
	Architecture, Board string
}

// Request is what a line asks of whoever runs the session.
type Request int

const (
	// None asks nothing.
	None Request = iota
	// Quit ends the session.
	Quit
	// Reboot restarts the router.
	Reboot
	// Shutdown turns the router off.
	Shutdown
)

// Result is what a line did.
type Result struct {
	// Config is the configuration after the line: a copy, or if the line failed the
	// very one that was given.
	Config Config
	// Changed reports whether Config differs from what was given.
	Changed bool
	// Output is text to show, its lines ended by "\n"; it may be empty.
	Output  string
	Request Request
}

// Session is one user's place in the menus. The zero value is at the root. It is
// not safe for use by two goroutines at once.
type Session struct {
	// Width is the terminal's, in columns. Items that do not fit are wrapped. Zero is
	// unknown, as on a serial line: items are then left whole, as on the manual page.
	Width int

	path string // words of the current menu, "" for the root
}

// Prompt is what stands before the line that a user types in this session.
func (s *Session) Prompt(identity string) string {
	return "[admin@" + printable(identity) + "] " + s.path + "> "
}

// Execute runs a line: one or more commands, separated by ";" or by line ends, on
// cfg, which it leaves alone. The result's Config is checked property by property
// and not as a whole: see Validate. If any command fails, the error says which
// word was wrong, the Result holds cfg, and the session stays in its menu.
func (s *Session) Execute(cfg Config, live Live, line string) (Result, error) {
	result, err := s.execute(cfg, live, line, 1)
	result.Changed = !reflect.DeepEqual(cfg, result.Config)
	return result, err
}

// execute is Execute for a line that is the n-th of a file, but leaves out whether
// it changed anything.
func (s *Session) execute(cfg Config, live Live, line string, n int) (Result, error) {
	unchanged := Result{Config: cfg}
	statements, err := parse(line, n)
	if err != nil {
		return unchanged, err
	}
	x := execution{menus: menus, path: s.path, width: s.Width, cfg: cfg.Clone(), live: live}
	for _, st := range statements {
		if err := x.statement(st); err != nil {
			return unchanged, err
		}
		if x.request != None {
			break
		}
	}
	s.path = x.path
	return Result{
		Config:  x.cfg,
		Output:  x.out.String(),
		Request: x.request,
	}, nil
}
