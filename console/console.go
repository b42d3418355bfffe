// Package console is the command language of the router, and the configuration
// that the language edits. The language is that of MikroTik's RouterOS: a path of
// menus, a command, items by number, properties by name. The same text is what a
// person types, what Export writes and what Load reads; there is no second format.
//
// It promises:
//   - A line that fails changes nothing, and its error names the word that was
//     wrong and what was expected there.
//   - Load(Export(c)) is c, for every configuration that the language can make and in
//     which no two interfaces have the same name. Validate lets no other through.
//   - The number of an item is that of the session's last print: it never stands for
//     another item, whatever other sessions do.
//   - The language is pure: Session's methods, Load, Export and Validate do no I/O of
//     their own and start nothing. What only the running system knows comes by the
//     functions in Live; what only it can do is asked for in the Result.
//   - What has no effect is not there: a menu or command that needs something of the
//     system can be seen when Live says that the system has it.
//   - Everything is bounded: MaxLine, MaxItems, MaxText. Bad input is an error,
//     never a panic.
//
// One table per menu (menu.go) lists the properties with type, range, default and
// help; parsing, print, export, completion, help and the error texts all come from
// it. A new menu is a new entry in that table.
//
// Packages session and terminal are the two ends of a person's session over a socket.
package console

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/ntp"
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
	// Admin is the name of the one user.
	Admin = "admin"
)

// Config is everything that a person may set on the router.
type Config struct {
	// Identity is the router's name (/system identity), 1..64 bytes.
	Identity string
	// Links are the ports that were set (/interface ethernet). A port that is not
	// among them has the defaults. Here and in all else that is set, a port goes by the
	// board's name for it, whatever users call it.
	Links []Port
	// Bridges, VLANs and BridgePorts are /interface bridge, vlan and bridge port.
	Bridges     []netcfg.Bridge
	VLANs       []netcfg.VLAN
	BridgePorts []netcfg.BridgePort
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
	// TimeZone is how far the time of day, as people see it, is ahead of UTC
	// (/system clock manual): -12:00..14:00 in whole minutes.
	TimeZone time.Duration
	// AdminPassword is the hash of admin's password (/user), as Live.HashPassword made
	// it; "" if there is none.
	AdminPassword string
	// RemoteLog is who is sent the log, and what of it (/system logging).
	RemoteLog RemoteLog
	// NTP is who is asked for the time (/system ntp client).
	NTP ntp.Config

	// ids are those of the items of each list. They are not part of what is set: see Equal.
	// A list without them has those of its places, as one that came from a file or from a
	// program.
	ids [lists][]ID
}

// Port is what is set for a port.
type Port struct {
	netcfg.Link
	// Renamed is what users call the port; "" if that is the board's name.
	Renamed string
}

// RemoteLog is a syslog server (RFC 5424, over UDP).
type RemoteLog struct {
	// Address is the server's; the zero Addr if the log is sent to nobody.
	Address netip.Addr
	Port    uint16
	// Rules say what is sent: a line that one of them matches.
	Rules []LogRule
}

// LogRule is one of /system logging.
type LogRule struct {
	// Topics are words with commas between, "!" perhaps before each. A line matches if it
	// has all of them, and none of those with "!".
	Topics   string
	Action   string // remote
	Disabled bool
}

// Sends reports whether a line with these topics, with commas between, is sent.
func (r RemoteLog) Sends(topics string) bool {
	has := strings.Split(topics, ",")
	return slices.ContainsFunc(r.Rules, func(rule LogRule) bool {
		if rule.Disabled {
			return false
		}
		for topic := range strings.SplitSeq(rule.Topics, ",") {
			if name, not := strings.CutPrefix(topic, "!"); topic != "" && slices.Contains(has, name) == not {
				return false
			}
		}
		return true
	})
}

// Default is the configuration of a router on which nothing was set.
func Default() Config {
	return Config{Identity: "postern", Socks: socks.DefaultConfig(), RemoteLog: RemoteLog{Port: 514}}
}

// Clone returns a copy that shares no memory with c.
func (c Config) Clone() Config {
	for i, l := range itemLists {
		l.clone(&c)
		c.ids[i] = slices.Clone(c.ids[i])
	}
	c.DNS = slices.Clone(c.DNS)
	c.NTP.Servers = slices.Clone(c.NTP.Servers)
	return c
}

// Live gives what only the running system knows, and says what it can do. Each
// function may be nil: what it would tell is then said to be unavailable, or the
// menu that only it fills is not there.
type Live struct {
	// Links lists the ports of the machine, by the board's names and in its order, and
	// the bridges and VLANs of the configuration.
	Links func() ([]netcfg.LinkState, error)
	// Connections lists the connections of the SOCKS server.
	Connections func() ([]socks.Connection, error)
	// Hits counts for each rule of /ip socks access, in its order, the requests that
	// it decided.
	Hits func() ([]uint64, error)
	// Counters count for each rule of the configuration, in its order.
	Counters func() (filter, nat []firewall.Counter, err error)
	// Openings are the ports that are open ahead of the filter rules.
	Openings func() []firewall.Opening
	// Invalid returns which items of a menu of the configuration ("ip address") have no
	// effect though they are not disabled: by their index.
	Invalid func(menu string) ([]int, error)
	// Addresses and Routes list those that the system has and the configuration not.
	Addresses func() ([]netcfg.Address, error)
	Routes    func() ([]DynamicRoute, error)
	// Neighbors lists the table of ARP.
	Neighbors func() ([]Neighbor, error)
	// Tracked lists the connections that the kernel tracks.
	Tracked func() ([]TrackedConnection, error)
	// Log returns the lines of the log, oldest first, without line ends. A line is
	// "TIME TOPICS MESSAGE", where the time may have a day before it (jan/31 23:59:58)
	// and the topics are words with commas between (socks,info), or without topics
	// "TIME MESSAGE".
	Log func() ([]string, error)
	// Resource tells of the machine as a whole.
	Resource func() (Resource, error)
	// Now is the time of day, in any zone.
	Now func() time.Time
	// HashPassword makes what is kept of a password, 1..255 characters of a-z, A-Z,
	// 0-9 and $./+=,-: it is called for one that is not empty.
	HashPassword func(password string) (string, error)
	// Slots lists the places on flash for an image.
	Slots func() ([]SlotState, error)
	// NTP tells of the time client.
	NTP func() (NTPState, error)
	// Requests are those of Ping, Traceroute, SetClock, ChangePassword, Import, ResetConfiguration and Upgrade that are
	// carried out; the commands of the others are not there.
	Requests []Request
	// WAN is the port of the machine that faces the outside, by the board's name; "" if
	// none does.
	WAN string
	// RemoteLog is set if the log is sent to Config.RemoteLog.
	RemoteLog bool
}

// DynamicRoute is a route that the system made.
type DynamicRoute struct {
	Destination netip.Prefix
	// Gateway is the zero Addr if the destination is on the Interface itself.
	Gateway   netip.Addr
	Interface string
	Distance  int
}

// Neighbor is an entry of the table of ARP.
type Neighbor struct {
	Address   netip.Addr
	MAC       netcfg.MAC // none if it is not known
	Interface string
}

// TrackedConnection is a connection that the kernel tracks.
type TrackedConnection struct {
	Protocol string // tcp, udp, icmp or a number
	Src, Dst netip.AddrPort
	// State is that of a TCP connection (established), else "".
	State   string
	Timeout time.Duration
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
	// Version is that of the software, "" if it is not known.
	Version string
}

// Request is what a line asks of whoever runs the session.
type Request int

const (
	// None asks nothing.
	None Request = iota
	// Quit ends the session.
	Quit
	// Reboot asks whether to, then restarts the router.
	Reboot
	// Shutdown asks whether to, then turns the router off.
	Shutdown
	// Ping sends what Result.Ping says until that is done or a key is pressed, and
	// shows each answer as it comes.
	Ping
	// Traceroute does the same with Result.Traceroute.
	Traceroute
	// SetClock sets the time of day to Result.Clock.
	SetClock
	// ChangePassword asks for the old and the new password, and changes it.
	ChangePassword
	// Import asks for lines and runs them together.
	Import
	// ResetConfiguration asks whether to, then goes back to the configuration that the
	// board came with and restarts the router.
	ResetConfiguration
	// Upgrade asks whether to, then writes the image at Result.Upgrade to flash, shows how
	// far it is, and restarts the router.
	Upgrade
)

// PingArguments are what /ping was given.
type PingArguments struct {
	Address  string // an IPv4 address or a host name
	Count    int    // 0 is without end
	Interval time.Duration
	Size     int // of the IP packet, in bytes
}

// TracerouteArguments are what /tool traceroute was given.
type TracerouteArguments struct {
	Address string // an IPv4 address or a host name
	MaxHops int
	Timeout time.Duration // of each probe
}

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
	// Repeat, if it is not zero, asks to execute the same line again after that time,
	// and so on until a key is pressed; then call EndRepeat. With Follow the output
	// goes below what is shown already, which it continues; otherwise it replaces that.
	Repeat time.Duration
	Follow bool

	// Added is the item that the line, or the command of Do, has added; of several the last.
	Added ID

	Ping       PingArguments
	Traceroute TracerouteArguments
	Clock      time.Time
	Upgrade    UpgradeArguments
}

// Session is one user's place in the menus. The zero value is at the root. It is
// not safe for use by two goroutines at once.
type Session struct {
	// Width is the terminal's, in columns. Items that do not fit are wrapped. Zero is
	// unknown, as on a serial line: items are then left whole, as on the manual page.
	Width int
	// Safe is set while the session is in Safe Mode: whoever runs it says so.
	Safe bool
	// User is who has logged in; "" is Admin.
	User string

	path string // words of the current menu, "" for the root
	// file is set while a file is read: numbers are then those of the moment. Older: the
	// lines may be of an earlier version.
	file, older bool
	// numbers says for each menu, by its path, what the numbers of its last print refer
	// to.
	numbers map[string][]key
	// repeated is the line that is being repeated, and seen the last lines of the log
	// that it has shown, or what its table had.
	repeated string
	seen     []string
}

// Prompt is what stands before the line that a user types in this session.
func (s *Session) Prompt(identity string) string {
	safe := ""
	if s.Safe {
		safe = "<SAFE> "
	}
	return "[" + Printable(cmp.Or(s.User, Admin)) + "@" + Printable(identity) + "] " + safe + s.path + "> "
}

// Clone returns a copy of s to try a line in: what the line does to the copy leaves s as it
// is.
func (s *Session) Clone() Session {
	c := *s
	c.numbers = maps.Clone(s.numbers)
	return c
}

// EndRepeat ends the repetition of a line that a Result asked for: the same line,
// typed again, begins anew.
func (s *Session) EndRepeat() { s.repeated, s.seen = "", nil }

// Execute runs a line: one or more commands, separated by ";" or by line ends, on
// cfg, which it leaves alone. The result's Config is checked property by property
// and not as a whole: see Validate. If any command fails, the error says which
// word was wrong, the Result holds cfg, and the session stays in its menu.
func (s *Session) Execute(cfg Config, live Live, line string) (Result, error) {
	result, err := s.execute(cfg, live, line, 1)
	result.Changed = !cfg.Equal(result.Config)
	return result, err
}

// Equal reports whether the same is set in both.
func (c Config) Equal(other Config) bool {
	c.ids, other.ids = [lists][]ID{}, [lists][]ID{}
	return reflect.DeepEqual(c, other)
}

// execute is Execute for a line that is the n-th of a file, but leaves out whether
// it changed anything.
func (s *Session) execute(cfg Config, live Live, line string, n int) (Result, error) {
	unchanged := Result{Config: cfg}
	if line != s.repeated {
		s.EndRepeat()
	}
	statements, err := parse(line, n)
	if err != nil {
		return unchanged, err
	}
	x := s.execution(cfg, live)
	for _, st := range statements {
		if err := x.statement(st); err != nil {
			return unchanged, err
		}
		if x.result.Request != None {
			break
		}
	}
	if x.result.Repeat > 0 && len(statements) > 1 {
		// What else the line does would be done again and again.
		return unchanged, errors.New("failure: interval and follow need a line of their own")
	}
	s.path = x.path
	for path, keys := range x.numbers {
		if s.file {
			break
		}
		if s.numbers == nil {
			s.numbers = map[string][]key{}
		}
		s.numbers[path] = keys
	}
	if x.result.Repeat > 0 {
		s.repeated, s.seen = line, x.seen
	}
	x.result.Config, x.result.Output = x.cfg, x.out.String()
	return x.result, nil
}

// execution is a line about to be run in this session.
func (s *Session) execution(cfg Config, live Live) *execution {
	x := &execution{
		menus: menus, path: s.path, width: s.Width, cfg: cfg.Clone(), live: live,
		file: s.file, older: s.older, printed: s.numbers, numbers: map[string][]key{}, repeated: s.repeated != "", seen: s.seen,
	}
	x.identify()
	return x
}
