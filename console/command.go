package console

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/netcfg"
)

// command is what can be done in a menu.
type command struct {
	name, help string
	// unnamed are the arguments that words without a name fill, in this order.
	unnamed []string
	// arguments are those besides the properties of the menu.
	arguments []argument
	// properties: it takes properties of the menu.
	properties bool
	// words are the plain words that it takes.
	words []Choice
	// where: it takes conditions behind the word where; find: it takes nothing else.
	where, find bool
	// shows: it puts out text and does nothing else.
	shows bool
	// needs is the request that it makes, if not everyone carries that out.
	needs Request
	run   func(*execution, *menu, arguments) error
}

// argument is what a command takes besides properties of its menu.
type argument struct {
	property
	// item: it refers to items. Otherwise set reads it.
	item bool
	set  func(*options, string) error
}

// options are the arguments that refer to no items, as read.
type options struct {
	interval   time.Duration
	comment    string
	ping       PingArguments
	traceroute TracerouteArguments
	check      socksRequest
	clock      clock
	upgrade    UpgradeArguments
}

func option(f field[options]) argument { return argument{property: f.property, set: f.set} }

// arguments are what a command was given.
type arguments struct {
	values []assignment
	words  []string
	items  map[string]word
	where  where
	options
}

type assignment struct {
	property property
	value    string
}

func itemArgument(name, unset, help string) argument {
	return argument{item: true, property: property{name: name, help: help, unset: unset,
		accepts: "number, name, list (0,2-4) or [find ...]"}}
}

var (
	numbersArgument  = itemArgument("numbers", "", "which items, as the last print numbered them")
	intervalArgument = option(prop("interval", optional(duration(500*time.Millisecond, time.Hour), "once"), "",
		"print again after each such time, until a key is pressed", func(o *options) *time.Duration { return &o.interval }))

	detailWord = Choice{"detail", "all that is known of each item"}
	terseWord  = Choice{"terse", "each item in one line"}
	countWord  = Choice{"count-only", "how many items there are"}
	statsWord  = Choice{"stats", "what each item has matched"}
	// Tools that read screens type it: RouterOS stops at the end of a page.
	pagingWord = Choice{"without-paging", "all at once, as without this word"}
	followWord = Choice{"follow", "go on with what is new, until a key is pressed"}

	sensitiveWord = Choice{"show-sensitive", "with the hash of the password"}
	verboseWord   = Choice{"verbose", "what is as by default, too"}
	exportWords   = []Choice{{"compact", "what differs from the defaults, as without this word"}, verboseWord,
		{terseWord.Name, "each item in one line, with its menu"},
		{"hide-sensitive", "without the hash of the password, as without this word"}, sensitiveWord}

	printCommand = printScreen("show what is set")
	setCommand   = command{name: "set", help: "change properties", properties: true, run: (*execution).set}
	resetCommand = command{name: "reset", help: "set properties back to their defaults: those named, or all", run: (*execution).reset}

	addItem = command{name: "add", help: "add an item", properties: true, run: (*execution).add, arguments: []argument{
		itemArgument("place-before", "at the end", "the item that it goes before"),
		itemArgument("copy-from", "the defaults", "the item that it starts out like"),
	}}
	setItems = command{name: "set", help: "change properties of items", properties: true, run: (*execution).setItems,
		unnamed: []string{"numbers"}, arguments: []argument{numbersArgument}}
	removeItems = itemCommand("remove", "remove items", (*execution).remove)
	moveItems   = command{name: "move", help: "move items to the place before another", run: (*execution).move,
		unnamed:   []string{"numbers", "destination"},
		arguments: []argument{numbersArgument, itemArgument("destination", "at the end", "the item that they go before")}}
	enableItems  = itemCommand("enable", "let items have effect", (*execution).enable)
	disableItems = itemCommand("disable", "keep items without effect", (*execution).disable)
	commentItems = command{name: "comment", help: "set the comment of items", run: (*execution).comment,
		unnamed: []string{"numbers", "comment"},
		arguments: []argument{numbersArgument, option(prop("comment", text(0, 255), "", "a note for people",
			func(o *options) *string { return &o.comment }))}}
	findItems  = command{name: "find", help: "show the numbers of items", shows: true, find: true, run: (*execution).find}
	printItems = printList("show what is set", detailWord, terseWord, countWord)
	printRules = printList("show what is set", detailWord, terseWord, countWord, statsWord)
	printLive  = printList("show what there is", detailWord, terseWord, countWord)
	printTable = printList("show what there is", detailWord, terseWord, countWord, followWord)

	printResourceCommand = printScreen("show time, memory and load")
	printClockCommand    = printScreen("show the time of day")
	printLogCommand      = command{name: "print", help: "show the log",
		shows: true, words: []Choice{followWord, countWord, pagingWord}, where: true, run: (*execution).printLog}

	rebootCommand = command{name: "reboot", help: "restart the router",
		run: func(x *execution, _ *menu, _ arguments) error { return x.ask(Reboot) }}
	shutdownCommand = command{name: "shutdown", help: "turn the router off",
		run: func(x *execution, _ *menu, _ arguments) error { return x.ask(Shutdown) }}
	resetConfigurationCommand = command{name: "reset-configuration", help: "go back to what the router came with, and restart it",
		needs: ResetConfiguration,
		run:   func(x *execution, _ *menu, _ arguments) error { return x.ask(ResetConfiguration) }}
	quitCommand = command{name: "quit", help: "end the session", run: func(x *execution, _ *menu, _ arguments) error {
		return x.ask(Quit)
	}}
	passwordCommand = command{name: "password", help: "change the password, which is asked for", needs: ChangePassword,
		run: func(x *execution, _ *menu, _ arguments) error { return x.ask(ChangePassword) }}
	// exportCommand is in every menu.
	exportCommand = command{name: "export", help: "show the configuration of this menu and those below as commands",
		shows: true, words: exportWords,
		run: func(x *execution, m *menu, a arguments) error {
			x.out.WriteString(exportMenus(x.menus, &x.cfg, m.path, a.words...))
			return nil
		}}

	pingCommand = command{name: "ping", help: "send ICMP echo requests", needs: Ping,
		unnamed: []string{"address"},
		arguments: []argument{
			option(prop("address", hostName(), "", "who is to answer",
				func(o *options) *string { return &o.ping.Address })),
			option(prop("count", integer(0, 65535), "0", "how many requests; 0 is until a key is pressed",
				func(o *options) *int { return &o.ping.Count })),
			option(prop("interval", duration(10*time.Millisecond, 5*time.Second), "1s", "time between requests",
				func(o *options) *time.Duration { return &o.ping.Interval })),
			option(prop("size", integer(28, 65535), "64", "size of the packet, its headers included",
				func(o *options) *int { return &o.ping.Size })),
		},
		run: func(x *execution, _ *menu, a arguments) error {
			x.result.Ping = a.ping
			return x.ask(Ping)
		}}
	tracerouteCommand = command{name: "traceroute", help: "show the routers on the way to a host", needs: Traceroute,
		unnamed: []string{"address"},
		arguments: []argument{
			option(prop("address", hostName(), "", "where the way leads",
				func(o *options) *string { return &o.traceroute.Address })),
			option(prop("max-hops", integer(1, 255), "30", "how many routers at most",
				func(o *options) *int { return &o.traceroute.MaxHops })),
			option(prop("timeout", duration(10*time.Millisecond, 10*time.Second), "1s", "time to wait for an answer",
				func(o *options) *time.Duration { return &o.traceroute.Timeout })),
		},
		run: func(x *execution, _ *menu, a arguments) error {
			x.result.Traceroute = a.traceroute
			return x.ask(Traceroute)
		}}

	singleCommands = []command{setCommand, printCommand, resetCommand}
	listCommands   = []command{addItem, setItems, removeItems, moveItems, enableItems, disableItems, commentItems, findItems, printItems}
	ruleCommands   = []command{addItem, setItems, removeItems, moveItems, enableItems, disableItems, commentItems, findItems, printRules}
	accessCommands = append(slices.Clone(ruleCommands), checkCommand)
	liveCommands   = []command{printTable}

	setClockCommand = command{name: "set", help: "set the time of day", needs: SetClock, run: (*execution).setClock,
		arguments: []argument{
			option(prop("date", date(), "", "day", func(o *options) *time.Time { return &o.clock.date })),
			option(prop("time", timeOfDay(), "", "time of day",
				func(o *options) *time.Duration { return &o.clock.time })),
		}}
	checkCommand = command{name: "check", help: "show which rule decides about a connection, and why", shows: true, run: (*execution).check,
		arguments: []argument{
			option(prop("src-address", address(), "", "address of the client",
				func(o *options) *netip.Addr { return &o.check.src })),
			option(prop("src-port", optional(integer[uint16](1, 65535), "any"), "", "TCP port of the client",
				func(o *options) *uint16 { return &o.check.srcPort })),
			option(prop("dst-address", address(), "", "address of the server",
				func(o *options) *netip.Addr { return &o.check.dst })),
			option(prop("dst-port", integer[uint16](1, 65535), "", "TCP port of the server",
				func(o *options) *uint16 { return &o.check.dstPort })),
		}}
)

func itemCommand(name, help string, run func(*execution, *menu, arguments) error) command {
	return command{name: name, help: help, unnamed: []string{"numbers"}, arguments: []argument{numbersArgument}, run: run}
}

func printScreen(help string) command {
	return command{name: "print", help: help, shows: true, arguments: []argument{intervalArgument}, run: (*execution).printScreen}
}

func printList(help string, words ...Choice) command {
	return command{name: "print", help: help, shows: true, words: append(words, pagingWord), where: true, arguments: []argument{intervalArgument}, run: (*execution).print}
}

// execution is a line being run: the configuration as changed so far, and the rest
// of what will be its Result.
type execution struct {
	// menus is the language. Commands reach it by this and not by the variable, which
	// holds the commands.
	menus []*menu
	path  string
	width int
	cfg   Config
	// before are the identities of the configuration before the line.
	before [lists][]ID
	live   Live
	links  []netcfg.LinkState // of live, once asked
	// file: the line is one of a file. All that can be set is there then. Older: it may be
	// one of an earlier version.
	file, older bool
	// printed are the numbers of the session, numbers those that the line has assigned.
	printed, numbers map[string][]key
	// repeated: the line is run again because its Result asked for it. Seen are the last
	// lines of the log that it has shown, or what its table had.
	repeated bool
	seen     []string
	out      strings.Builder
	result   Result
}

func (x *execution) ask(r Request) error {
	x.result.Request = r
	return nil
}

// statement runs one command, or enters a menu.
func (x *execution) statement(words []word) error {
	m, c, rest, err := x.locate(words)
	if err != nil {
		return err
	}
	if c == nil {
		x.path = m.path
		return nil
	}
	if x.older && m.path == "system logging" && c.name == "set" {
		if action, words := x.olderLogging(rest); words != nil {
			m, rest = action, words
		}
	}
	a, err := x.arguments(m, *c, rest)
	if err != nil {
		return err
	}
	return c.run(x, m, a)
}

// locate follows words from the present menu to a menu and, if there is one, a
// command, of which the rest of the words are the arguments.
func (x *execution) locate(words []word) (*menu, *command, []word, error) {
	m := x.menu(x.path)
	bare := !slices.ContainsFunc(words, func(w word) bool { return w.assigned })
	for i, w := range words {
		if !w.plain() {
			return nil, nil, nil, &lineError{message: "expected command name", place: w.place, path: bare}
		}
		parts := strings.Split(w.text, "/")
		at := w.place
		for j, part := range parts {
			if j > 0 {
				at.column += len([]rune(parts[j-1])) + 1
			}
			switch {
			case part == "" && i == 0 && (j == 0 || w.text == "/"):
				m = x.menu("")
				continue
			case part == ".." && m.path != "":
				m = x.menu(m.parent())
				continue
			}
			c, child, err := x.findName(m, part, at)
			if err != nil {
				err.path = bare
				return nil, nil, nil, err
			}
			if child != nil {
				m = child
				continue
			}
			if j < len(parts)-1 {
				at.column += len([]rune(part))
				return nil, nil, nil, &lineError{message: "expected end of command", place: at}
			}
			return m, &c, words[i+1:], nil
		}
	}
	return m, nil, nil, nil
}

func (x *execution) menu(path string) *menu {
	for _, m := range x.menus {
		if m.path == path {
			return m
		}
	}
	return x.menus[0]
}

// below are the menus and the commands of m that are there.
func (x *execution) below(m *menu) (menus []*menu, commands []command) {
	for _, child := range x.menus {
		if child.path != "" && child.parent() == m.path &&
			(child.needs == nil || child.needs(x.live) || x.file && x.holds(child)) {
			menus = append(menus, child)
		}
	}
	for _, c := range append(slices.Clone(m.commands), exportCommand) {
		if c.needs == None || slices.Contains(x.live.Requests, c.needs) {
			commands = append(commands, c)
		}
	}
	return menus, commands
}

// holds reports whether m, or a menu below it, has something that can be set.
func (x *execution) holds(m *menu) bool {
	return slices.ContainsFunc(x.menus, func(c *menu) bool {
		return c.properties != nil && (c == m || strings.HasPrefix(c.path, m.path+" "))
	})
}

// findName looks name, whole or shortened, up among the menus and commands of m.
func (x *execution) findName(m *menu, name string, at place) (command, *menu, *lineError) {
	menus, commands := x.below(m)
	var names []string
	for _, child := range menus {
		names = append(names, child.name())
	}
	for _, c := range commands {
		names = append(names, c.name)
	}
	full, err := complete(name, names)
	if err != nil {
		message := "bad command name "
		if errors.Is(err, errAmbiguous) {
			message = "ambiguous command name "
		}
		return command{}, nil, &lineError{message: message + Printable(name), place: at, expected: err.Error()}
	}
	if i := slices.Index(names, full); i < len(menus) {
		return command{}, menus[i], nil
	} else {
		return commands[i-len(menus)], nil, nil
	}
}

// errAmbiguous is the error of a shortened word that could be several.
var errAmbiguous = errors.New("ambiguous")

// choices is the error of a word that is not, or not clearly, one of some names.
type choices struct {
	names     []string
	ambiguous bool
}

func (c choices) Error() string { return strings.Join(c.names, ", ") }

func (c choices) Is(err error) bool { return err == errAmbiguous && c.ambiguous }

// complete returns the one of names that is word or, if there is only one, begins
// with it.
func complete(word string, names []string) (string, error) {
	var fits []string
	for _, n := range names {
		if n == word {
			return n, nil
		}
		if word != "" && strings.HasPrefix(n, word) {
			fits = append(fits, n)
		}
	}
	switch len(fits) {
	case 0:
		return "", choices{names: names}
	case 1:
		return fits[0], nil
	}
	return "", choices{names: fits, ambiguous: true}
}

// argument returns the argument of that exact name.
func (c command) argument(name string) (argument, bool) {
	for _, a := range c.arguments {
		if a.name == name {
			return a, true
		}
	}
	return argument{}, false
}

// named are the names of the arguments, properties first, that c of menu m takes and
// that are not given yet.
func (c command) named(m *menu, given []string) []string {
	var names []string
	if c.properties {
		for _, p := range m.properties {
			names = append(names, p.name)
		}
	}
	for _, a := range c.arguments {
		names = append(names, a.name)
	}
	return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(given, n) })
}

// plainWords are the words that c takes as they are, in menu m.
func (c command) plainWords(m *menu) []Choice {
	words := slices.Clone(c.words)
	if c.where {
		words = append(words, Choice{"where", "only the items that meet conditions: property=value, !=, <, >, ~ (a regular expression that it has), and, or, (...)"})
	}
	if c.name == resetCommand.name {
		for _, p := range m.properties {
			words = append(words, Choice{p.name, p.help})
		}
	}
	return words
}

// next is the argument that a word without a name would fill, "" if none.
func (c command) next(given []string) string {
	for _, name := range c.unnamed {
		if !slices.Contains(given, name) {
			return name
		}
	}
	return ""
}

// arguments reads what stands behind the name of command c of menu m.
func (x *execution) arguments(m *menu, c command, words []word) (arguments, error) {
	a, err := c.defaults()
	if err != nil {
		return a, err
	}
	if c.find {
		where, err := x.conditions(m, words)
		a.where = where
		return a, err
	}
	var plain []string
	for _, w := range c.plainWords(m) {
		plain = append(plain, w.Name)
	}
	var given []string
	for i, w := range words {
		unset, isUnset := strings.CutPrefix(w.text, "!")
		isUnset = isUnset && w.plain() && c.properties
		next := c.next(given)
		switch {
		case w.assigned, isUnset, !w.assigned && next != "" && len(a.values) == 0:
			key, at := w.key, w.place
			if isUnset {
				key = unset
			} else if !w.assigned {
				key = next
			}
			name, err := c.argumentName(m, key, given, at)
			if err != nil {
				return a, err
			}
			given = append(given, name)
			if err := x.take(m, c, name, w, isUnset, &a); err != nil {
				return a, err
			}
		case w.plain() && len(plain) > 0:
			name, err := complete(w.text, plain)
			if errors.Is(err, errAmbiguous) {
				return a, &lineError{message: "ambiguous word " + Printable(w.text), place: w.place, expected: err.Error()}
			}
			if err != nil {
				return a, unexpected(w, append(plain, withEquals(c.named(m, given))...))
			}
			if name == "where" && c.where {
				where, err := x.conditions(m, words[i+1:])
				a.where = where
				return a, err
			}
			a.words = append(a.words, name)
		default:
			return a, unexpected(w, withEquals(c.named(m, given)))
		}
	}
	return a, c.missing(given)
}

// defaults are the arguments of c that it has without being given any.
func (c command) defaults() (arguments, error) {
	a := arguments{items: map[string]word{}, options: options{clock: clock{time: noTime}}}
	for _, arg := range c.arguments {
		if arg.def != "" {
			if err := arg.set(&a.options, arg.def); err != nil {
				return a, err
			}
		}
	}
	return a, nil
}

// missing is the error of arguments that c needs besides those given.
func (c command) missing(given []string) error {
	var missing []string
	for _, arg := range c.arguments {
		if arg.required() && !slices.Contains(given, arg.name) {
			missing = append(missing, arg.name)
		}
	}
	return missingArguments(missing)
}

func missingArguments(names []string) error {
	if len(names) == 0 {
		return nil
	}
	return errors.New("missing value(s) of argument(s) " + strings.Join(names, ", "))
}

func withEquals(names []string) []string {
	var out []string
	for _, n := range names {
		out = append(out, n+"=")
	}
	return out
}

// unexpected is the error of a word that the command does not take.
func unexpected(w word, names []string) error {
	e := &lineError{message: "expected end of command", place: w.place}
	if len(names) > 0 {
		e.expected = "one of " + strings.Join(names, ", ")
	}
	return e
}

// argumentName is the name that key, whole or shortened, stands for.
func (c command) argumentName(m *menu, key string, given []string, at place) (string, error) {
	name, err := complete(key, c.named(m, nil))
	switch {
	case errors.Is(err, errAmbiguous):
		return "", &lineError{message: "ambiguous property name " + Printable(key), place: at, expected: err.Error()}
	case err != nil:
		e := &lineError{message: "expected end of command", place: at}
		if rest := c.named(m, given); len(rest) > 0 {
			e.expected = "one of " + strings.Join(rest, ", ")
		}
		return "", e
	case slices.Contains(given, name):
		return "", &lineError{message: "property " + name + " given twice", place: at}
	}
	return name, nil
}

// take reads one argument.
func (x *execution) take(m *menu, c command, name string, w word, unset bool, a *arguments) error {
	arg, isArgument := c.argument(name)
	if isArgument && arg.item && !unset {
		a.items[name] = w
		return nil
	}
	if w.find != nil {
		return &lineError{message: "syntax error", place: w.value, expected: quotesExpected}
	}
	if isArgument && !unset {
		return arg.set(&a.options, w.text)
	}
	p, _ := m.property(name)
	value := w.text
	if unset {
		if p.unset == "" {
			return &lineError{message: "property " + Printable(name) + " cannot be unset", place: w.place}
		}
		value = ""
	}
	a.values = append(a.values, assignment{p, value})
	return nil
}

// apply sets values of one item, or of a menu that has none (item 0).
func (x *execution) apply(item int, values []assignment) error {
	for _, v := range values {
		if err := v.property.set(&x.cfg, item, v.value); err != nil {
			return err
		}
		if v.property.hashed == nil || v.value == "" {
			continue
		}
		if x.live.HashPassword == nil {
			return unavailable("passwords")
		}
		hash, err := x.live.HashPassword(v.value)
		if err != nil {
			return fmt.Errorf("hash the password: %w", err)
		}
		if err := v.property.hashed(&x.cfg, hash); err != nil {
			return err
		}
	}
	return nil
}

func (x *execution) set(_ *menu, a arguments) error { return x.apply(0, a.values) }

func (x *execution) reset(m *menu, a arguments) error {
	for _, p := range m.properties {
		if len(a.words) == 0 || slices.Contains(a.words, p.name) {
			if err := p.set(&x.cfg, 0, p.def); err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *execution) setItems(m *menu, a arguments) error {
	indices, err := x.resolve(m, a.items["numbers"])
	if err != nil {
		return err
	}
	for _, i := range indices {
		if err := x.apply(i, a.values); err != nil {
			return err
		}
	}
	return nil
}

// setOne sets one property of items.
func (x *execution) setOne(m *menu, a arguments, name, value string) error {
	if m.gathers {
		keys, err := x.chosen(m, a.items["numbers"])
		for _, k := range keys {
			of, i, err := x.gathered(k)
			if err != nil {
				return err
			}
			p, _ := of.property(name)
			if err := x.apply(i, []assignment{{p, value}}); err != nil {
				return err
			}
		}
		return err
	}
	p, _ := m.property(name)
	a.values = []assignment{{p, value}}
	return x.setItems(m, a)
}

func (x *execution) enable(m *menu, a arguments) error { return x.setOne(m, a, "disabled", "no") }

func (x *execution) disable(m *menu, a arguments) error { return x.setOne(m, a, "disabled", "yes") }

func (x *execution) comment(m *menu, a arguments) error {
	return x.setOne(m, a, "comment", a.options.comment)
}

func (x *execution) add(m *menu, a arguments) error {
	from, err := x.one(m, a, "copy-from")
	if err != nil {
		return err
	}
	before, err := x.one(m, a, "place-before")
	if err != nil {
		return err
	}
	i, err := x.append(m)
	if err != nil {
		return err
	}
	if from >= 0 {
		for _, p := range m.properties {
			if err := p.set(&x.cfg, i, p.get(&x.cfg, from)); err != nil {
				return err
			}
		}
	}
	if err := x.apply(i, a.values); err != nil {
		return err
	}
	var missing []string
	for _, p := range m.properties {
		given := slices.ContainsFunc(a.values, func(v assignment) bool { return v.property.name == p.name })
		if p.required() && !given && from < 0 {
			missing = append(missing, p.name)
		}
	}
	x.result.Added = (*m.items.ids(&x.cfg))[i]
	if before >= 0 {
		m.items.move(&x.cfg, i, before)
	}
	return missingArguments(missing)
}

// one returns the index of the one item that an argument refers to, -1 if it was not
// given.
func (x *execution) one(m *menu, a arguments, name string) (int, error) {
	w, given := a.items[name]
	if !given {
		return -1, nil
	}
	indices, err := x.resolve(m, w)
	switch {
	case err != nil:
		return 0, err
	case len(indices) == 0:
		return 0, noSuchItem(w.String())
	case len(indices) > 1:
		return 0, errors.New("invalid value for argument " + name + "; expected one item, not several")
	}
	return indices[0], nil
}

func (x *execution) remove(m *menu, a arguments) error {
	indices, err := x.resolve(m, a.items["numbers"])
	if err != nil {
		return err
	}
	slices.SortFunc(indices, func(a, b int) int { return cmp.Compare(b, a) })
	for _, i := range indices {
		m.items.remove(&x.cfg, i)
	}
	return nil
}

// move puts items, in the order in which they were named, before another.
func (x *execution) move(m *menu, a arguments) error {
	indices, err := x.resolve(m, a.items["numbers"])
	if err != nil {
		return err
	}
	to, err := x.one(m, a, "destination")
	if err != nil {
		return err
	}
	ids := slices.Clone(*m.items.ids(&x.cfg))
	now := func(id ID) int { return slices.Index(*m.items.ids(&x.cfg), id) }
	for _, i := range indices {
		if i == to {
			continue
		}
		from, place := now(ids[i]), len(ids)-1
		if to >= 0 {
			if place = now(ids[to]); place > from {
				place-- // its own place becomes free
			}
		}
		m.items.move(&x.cfg, from, place)
	}
	return nil
}

// find prints the numbers of the items that meet conditions.
func (x *execution) find(m *menu, a arguments) error {
	rows, err := x.itemRows(m)
	if err != nil {
		return err
	}
	numbered, err := x.numbered(m)
	if err != nil {
		return err
	}
	var found []string
	if rows, err = x.matching(m, rows, a.where); err != nil {
		return err
	}
	for _, r := range rows {
		if n := slices.Index(numbered, r.key); n >= 0 {
			found = append(found, fmt.Sprint(n))
		}
	}
	if len(found) > 0 {
		fmt.Fprintln(&x.out, strings.Join(found, ","))
	}
	return nil
}
