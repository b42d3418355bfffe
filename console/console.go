// Package console is the router's command language, and the configuration that the
// language edits. The language is that of MikroTik's RouterOS: a path of menus, a command,
// items by number, properties by name. People type it, Export writes it and Load reads it;
// there is no second format.
//
// Below the text are Query and Do: what a menu lists as rows of typed properties, and
// commands with named arguments. Programs use these two, and so do print and every line
// that is typed.
//
// The package promises:
//   - A line that fails changes nothing. Its error names the word that was wrong and says
//     what was expected.
//   - Load(Export(c)) equals c, for every configuration that the language can make and in
//     which no two interfaces have the same name. Validate accepts no other.
//   - An item's number is the one that the session's last print showed. It never refers to
//     another item, whatever other sessions do. An item's ID is its own for as long as the
//     router runs.
//   - The language is pure: it does no I/O and starts nothing. What only the running system
//     knows comes from the functions in Live; what only the system can do is requested by
//     the Result.
//   - A menu or command that would have no effect is hidden: those that need something of
//     the system are there only if Live says that the system has it.
//   - Everything is bounded: MaxLine, MaxItems, MaxText. Bad input is an error, never a
//     panic.
//
// One table per menu (menu.go) lists the properties with type, range, default and help.
// Parsing, print, export, completion, help, error texts, Query and Do are all driven by it:
// a new menu is a new entry in that table.
//
// Package session serves a person's session over a connection, and package terminal is what
// the person sits at.
package console

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"time"
)

const (
	// MaxLine is the greatest length of a line in bytes, with its continuations.
	MaxLine = 4096
	// maxFileLine is the same for a line of a file, or of an import: certificates are longer than what anybody types.
	maxFileLine = 16 << 10
	// MaxItems is how many items a menu can have; /ip socks users has up to socks.MaxUsers, and
	// /ip firewall address-list up to firewall.MaxAddresses.
	MaxItems = 256
	// MaxText is the greatest length in bytes of a configuration that Load reads. Export
	// never writes that much.
	MaxText = 8 << 20
)

// Request is what a line asks the owner of the session to do.
type Request int

const (
	// None asks for nothing.
	None Request = iota
	// Quit ends the session.
	Quit
	// Reboot asks the user for confirmation, then restarts the router.
	Reboot
	// Shutdown asks the user for confirmation, then turns the router off.
	Shutdown
	// Ping sends what Result.Ping says and shows each answer as it comes, until all is sent
	// or a key is pressed.
	Ping
	// Traceroute does the same with Result.Traceroute.
	Traceroute
	// SetClock sets the time of day to Result.Clock.
	SetClock
	// ChangePassword asks for the old and the new password, and changes the password.
	ChangePassword
	// Import asks for lines, and runs all of them or none.
	Import
	// ResetConfiguration asks the user for confirmation, then goes back to the board's
	// default configuration and restarts the router.
	ResetConfiguration
	// Upgrade asks the user for confirmation, then writes the image that Result.Upgrade
	// names to flash, shows the progress, and restarts the router.
	Upgrade
	// CheckForUpdates asks the server of Config.UpdateURL for its version, and shows it.
	CheckForUpdates
	// Edit has the user of a terminal edit Result.Edit, and runs the line that this makes.
	Edit
)

// PingArguments are the arguments of /ping.
type PingArguments struct {
	Address  string // an IPv4 address or a host name
	Count    int    // 0: until a key is pressed
	Interval time.Duration
	Size     int // of the IP packet, in bytes
	// From, Interface and TTL are what the requests have if they are not left to the kernel, as the zero values do. Interface is
	// the board's name of a port, or that of another link.
	From      netip.Addr
	Interface string
	TTL       int
	// Rows is set if a program reads the answers: see package ping.
	Rows bool
}

// TracerouteArguments are the arguments of /tool traceroute.
type TracerouteArguments struct {
	Address string // an IPv4 address or a host name
	MaxHops int
	Timeout time.Duration // of each probe
	Count   int           // of probes for each router
	From    netip.Addr    // the zero Addr leaves it to the kernel
}

// Result is what a line did.
type Result struct {
	// Config is the configuration after the line: a copy, or the given one if the line
	// failed.
	Config Config
	// Changed reports whether Config differs from the given one.
	Changed bool
	// Output is text to show, each line with "\n" at its end. It may be empty.
	Output  string
	Request Request
	// Repeat, unless it is zero, asks to execute the same line again after that time, and
	// so on until a key is pressed; then call EndRepeat. With Follow the new output
	// continues the old; otherwise it replaces it.
	Repeat time.Duration
	Follow bool
	// Paged asks to show the Output page by page, if it is longer than the screen of a person. With Repeat it means nothing.
	Paged bool

	// Action is what the line does to what only the system has: see Action.CarryOut.
	Action Action
	// History is -1 if the line undid the last change, and 1 if it did one again that was undone.
	History int
	// Added is the item that the line or Do has added, the last if there are several, or 0.
	Added ID

	Ping       PingArguments
	Traceroute TracerouteArguments
	Clock      time.Time
	Upgrade    UpgradeArguments
	Import     ImportArguments
	Edit       EditArguments
	Password   PasswordArguments
}

// Session is a user's place in the menus. The zero value is at the root. Only one goroutine
// may use it at a time.
type Session struct {
	// Width is the terminal's width in columns. Items that do not fit are wrapped. Zero
	// means unknown, as on a serial line: items are then not wrapped.
	Width int
	// Safe is set by the owner of the session while it is in Safe Mode.
	Safe bool
	// User is the name of who has logged in; "" means Admin.
	User string

	path string // words of the current menu, "" for the root
	// file is set while a file is read: there is no print, so numbers mean the items as they
	// are. older is set if the lines may have been written by an earlier version.
	file, older bool
	// there are, during an import, the items that were there before it and that no line has
	// named again yet.
	there map[ID]bool
	// numbers has for each menu, by its path, the items that its last print numbered.
	numbers map[string][]key
	// repeated is the line that is being repeated, and seen what it has shown: the last
	// lines of the log, or the rows of a table.
	repeated string
	seen     []string
	// measured is what the line has counted when it ran last.
	measured *measurement
}

// Prompt is the prompt of this session on a router with that name.
func (s *Session) Prompt(identity string) string {
	safe := ""
	if s.Safe {
		safe = "<SAFE> "
	}
	return "[" + Printable(cmp.Or(s.User, Admin)) + "@" + Printable(identity) + "] " + safe + s.path + "> "
}

// Clone returns a copy of s in which a line can be tried: s stays as it is.
func (s *Session) Clone() Session {
	c := *s
	c.numbers = maps.Clone(s.numbers)
	return c
}

// EndRepeat ends the repetition that a Result asked for. The same line, typed again, starts
// from the beginning.
func (s *Session) EndRepeat() { s.repeated, s.seen, s.measured = "", nil, nil }

// Execute runs a line on cfg, which stays as it is. A line is one or more commands,
// separated by ";" or line ends. Each property of the result's Config is checked, but not the
// configuration as a whole: see Validate. If a command fails, the error says which word was
// wrong, the Result has cfg, and the session stays in its menu.
func (s *Session) Execute(cfg Config, live Live, line string) (Result, error) {
	if len(line) > MaxLine {
		return Result{Config: cfg}, tooLong(MaxLine, place{1, 1})
	}
	result, err := s.execute(cfg, live, line, 1)
	if err == nil {
		if err = result.Config.completeCertificates(live); err != nil {
			return Result{Config: cfg}, err
		}
	}
	if err == nil {
		result.Config.share(cfg)
	}
	result.Changed = !cfg.Equal(result.Config)
	return result, err
}

// execute is Execute for line n of a file, without Result.Changed.
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
		// The other commands would be repeated too.
		return unchanged, errors.New("failure: interval and follow need a line of their own")
	}
	if x.result.History != 0 && len(statements) > 1 {
		return unchanged, errors.New("failure: undo and redo need a line of their own")
	}
	x.dropUnchanged()
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
		s.repeated, s.seen, s.measured = line, x.seen, x.measured
	}
	x.cfg.borrowed = nil
	x.result.Config, x.result.Output = x.cfg, x.out.String()
	return x.result, nil
}

// execution prepares to run a line in this session.
func (s *Session) execution(cfg Config, live Live) *execution {
	x := &execution{
		menus: menus(), path: s.path, width: s.Width, cfg: cfg.borrow(), live: live,
		file: s.file, older: s.older, there: s.there, printed: s.numbers, numbers: map[string][]key{}, repeated: s.repeated != "", seen: s.seen, measured: s.measured,
		listed: map[string][]row{},
	}
	x.identify()
	return x
}
