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
	"time"
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
