package console

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-router/postern/netcfg"
)

// command is what can be done in a menu.
type command struct {
	name, help string
	// numbers: it takes the numbers of items, which come first.
	numbers bool
	// properties: it takes properties of the menu.
	properties bool
	// words are the plain words that it takes.
	words []string
	run   func(*execution, *menu, arguments) error
}

// arguments are what a command was given.
type arguments struct {
	numbers string
	values  []assignment
	words   []string
}

type assignment struct {
	property property
	value    string
}

var (
	printCommand = command{name: "print", help: "show what is set", run: (*execution).print}
	setCommand   = command{name: "set", help: "change properties", properties: true, run: (*execution).set}
	setItems     = command{name: "set", help: "change properties of items", numbers: true, properties: true, run: (*execution).setItems}
	enableItems  = command{name: "enable", help: "let items have effect", numbers: true, run: (*execution).enable}
	disableItems = command{name: "disable", help: "keep items without effect", numbers: true, run: (*execution).disable}
	addItem      = command{name: "add", help: "add an item at the end", properties: true, run: (*execution).add}
	removeItems  = command{name: "remove", help: "remove items", numbers: true, run: (*execution).remove}
	printRules   = command{name: "print", help: "show what is set; stats: what matched", words: []string{"stats"}, run: (*execution).print}

	printPortsCommand       = command{name: "print", help: "show the ports", run: (*execution).printPorts}
	printInterfacesCommand  = command{name: "print", help: "show the state of the ports", run: (*execution).printInterfaces}
	printConnectionsCommand = command{name: "print", help: "show the connections", run: (*execution).printConnections}
	printResourceCommand    = command{name: "print", help: "show time, memory and load", run: (*execution).printResource}
	printLogCommand         = command{name: "print", help: "show the log", run: (*execution).printLog}

	rebootCommand = command{name: "reboot", help: "restart the router", run: func(x *execution, _ *menu, _ arguments) error {
		x.request = Reboot
		x.out.WriteString("system will reboot shortly\n")
		return nil
	}}
	shutdownCommand = command{name: "shutdown", help: "turn the router off", run: func(x *execution, _ *menu, _ arguments) error {
		x.request = Shutdown
		x.out.WriteString("system will shutdown promptly\n")
		return nil
	}}
	quitCommand = command{name: "quit", help: "end the session", run: func(x *execution, _ *menu, _ arguments) error {
		x.request = Quit
		return nil
	}}
	// exportCommand is in every menu.
	exportCommand = command{name: "export", help: "show the configuration of this menu and those below as commands",
		run: func(x *execution, m *menu, _ arguments) error {
			x.out.WriteString(exportMenus(x.menus, &x.cfg, m.path))
			return nil
		}}

	singleCommands = []command{setCommand, printCommand}
	listCommands   = []command{addItem, setItems, removeItems, enableItems, disableItems, printCommand}
	ruleCommands   = []command{addItem, setItems, removeItems, enableItems, disableItems, printRules}
	portCommands   = []command{setItems, enableItems, disableItems, printPortsCommand}
)

// execution is a line being run: the configuration as changed so far, and the rest
// of what will be its Result.
type execution struct {
	// menus is the language. Commands reach it by this and not by the variable, which
	// holds the commands.
	menus   []*menu
	path    string
	width   int
	cfg     Config
	live    Live
	out     strings.Builder
	request Request
}

// statement runs one command, or enters a menu.
func (x *execution) statement(words []word) error {
	m := x.menu(x.path)
	bare := !slices.ContainsFunc(words, func(w word) bool { return w.assigned })
	for i, w := range words {
		if w.assigned || w.quoted {
			return &lineError{message: "expected command name", place: w.place, path: bare}
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
			c, child, err := x.find(m, part, at)
			if err != nil {
				err.path = bare
				return err
			}
			if child != nil {
				m = child
				continue
			}
			if j < len(parts)-1 {
				at.column += len([]rune(part))
				return &lineError{message: "expected end of command", place: at}
			}
			a, argErr := parseArguments(m, c, words[i+1:])
			if argErr != nil {
				return argErr
			}
			return c.run(x, m, a)
		}
	}
	x.path = m.path
	return nil
}

func (x *execution) menu(path string) *menu {
	for _, m := range x.menus {
		if m.path == path {
			return m
		}
	}
	return x.menus[0]
}

// find looks name, whole or shortened, up among the menus and commands of m.
func (x *execution) find(m *menu, name string, at place) (command, *menu, *lineError) {
	var names []string
	found := map[string]*menu{}
	for _, child := range x.menus {
		if child.path != "" && child.parent() == m.path {
			names = append(names, child.name())
			found[child.name()] = child
		}
	}
	commands := append(slices.Clone(m.commands), exportCommand)
	for _, c := range commands {
		names = append(names, c.name)
	}
	full, err := complete(name, names)
	if err != nil {
		message := "bad command name "
		if errors.Is(err, errAmbiguous) {
			message = "ambiguous command name "
		}
		return command{}, nil, &lineError{message: message + printable(name), place: at, expected: err.Error()}
	}
	if child := found[full]; child != nil {
		return command{}, child, nil
	}
	return commands[slices.IndexFunc(commands, func(c command) bool { return c.name == full })], nil, nil
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

// parseArguments reads what stands behind the name of command c of menu m.
func parseArguments(m *menu, c command, words []word) (arguments, error) {
	var a arguments
	var names []string
	if c.properties {
		for _, p := range m.properties {
			names = append(names, p.name)
		}
	}
	hasNumbers := false
	for _, w := range words {
		switch {
		case w.assigned && w.key == "numbers" && c.numbers && !hasNumbers,
			!w.assigned && c.numbers && !hasNumbers && len(a.values) == 0:
			a.numbers, hasNumbers = w.text, true
		case w.assigned && c.properties:
			name, err := complete(w.key, names)
			if errors.Is(err, errAmbiguous) {
				return a, &lineError{message: "ambiguous property name " + printable(w.key), place: w.place, expected: err.Error()}
			}
			if err != nil {
				return a, &lineError{message: "expected end of command", place: w.place, expected: "one of " + err.Error()}
			}
			if slices.ContainsFunc(a.values, func(v assignment) bool { return v.property.name == name }) {
				return a, &lineError{message: "property " + name + " given twice", place: w.place}
			}
			p, _ := m.property(name)
			a.values = append(a.values, assignment{p, w.text})
		case !w.assigned && !w.quoted && len(c.words) > 0:
			name, err := complete(w.text, c.words)
			if err != nil {
				return a, &lineError{message: "expected end of command", place: w.place, expected: "one of " + err.Error()}
			}
			a.words = append(a.words, name)
		default:
			e := &lineError{message: "expected end of command", place: w.place}
			if c.properties {
				e.expected = "one of " + strings.Join(names, "=, ") + "="
			}
			return a, e
		}
	}
	if c.numbers && !hasNumbers {
		return a, errors.New("missing value(s) of argument(s) numbers")
	}
	return a, nil
}

// apply sets values of one item, or of a menu that has none (item 0).
func (x *execution) apply(item int, values []assignment) error {
	for _, v := range values {
		if err := v.property.set(&x.cfg, item, v.value); err != nil {
			return err
		}
	}
	return nil
}

func (x *execution) set(_ *menu, a arguments) error { return x.apply(0, a.values) }

func (x *execution) setItems(m *menu, a arguments) error {
	indices, err := x.resolve(m, a.numbers)
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

func (x *execution) enable(m *menu, a arguments) error { return x.setDisabled(m, a, "no") }

func (x *execution) disable(m *menu, a arguments) error { return x.setDisabled(m, a, "yes") }

func (x *execution) setDisabled(m *menu, a arguments, value string) error {
	p, _ := m.property("disabled")
	a.values = []assignment{{p, value}}
	return x.setItems(m, a)
}

func (x *execution) add(m *menu, a arguments) error {
	i, err := x.append(m)
	if err != nil {
		return err
	}
	if err := x.apply(i, a.values); err != nil {
		return err
	}
	var missing []string
	for _, p := range m.properties {
		given := slices.ContainsFunc(a.values, func(v assignment) bool { return v.property.name == p.name })
		if p.required() && !given {
			missing = append(missing, p.name)
		}
	}
	if len(missing) > 0 {
		return errors.New("missing value(s) of argument(s) " + strings.Join(missing, ", "))
	}
	return nil
}

// append adds an item with the defaults to m and returns its index.
func (x *execution) append(m *menu) (int, error) {
	i := m.items.count(&x.cfg)
	if i >= MaxItems {
		return 0, fmt.Errorf("failure: no more than %d items in /%s", MaxItems, m.path)
	}
	m.items.add(&x.cfg)
	for _, p := range m.properties {
		if p.def != "" {
			if err := p.set(&x.cfg, i, p.def); err != nil {
				return 0, err
			}
		}
	}
	return i, nil
}

func (x *execution) remove(m *menu, a arguments) error {
	indices, err := x.resolve(m, a.numbers)
	if err != nil {
		return err
	}
	slices.SortFunc(indices, func(a, b int) int { return cmp.Compare(b, a) })
	for _, i := range indices {
		m.items.remove(&x.cfg, i)
	}
	return nil
}

var errNoSuchItem = errors.New("no such item")

// resolve returns the indices of the items that numbers, as "0" or "0,2", or for
// ports names, refer to; each of them once.
func (x *execution) resolve(m *menu, numbers string) ([]int, error) {
	var indices []int
	for item := range strings.SplitSeq(numbers, ",") {
		i, err := x.item(m, item)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(indices, i) {
			indices = append(indices, i)
		}
	}
	return indices, nil
}

func (x *execution) item(m *menu, item string) (int, error) {
	if m.names {
		return x.link(m, item)
	}
	n, err := decimal(item)
	if err != nil || n >= int64(m.items.count(&x.cfg)) {
		return 0, fmt.Errorf("%w: %s", errNoSuchItem, printable(item))
	}
	return int(n), nil
}

// link returns the index of a port's settings, which are made if nothing was set
// for it yet. If it is not known which ports there are, as in a file, any name is
// taken, and Validate tells.
func (x *execution) link(m *menu, item string) (int, error) {
	ports, err := x.ports()
	if err != nil {
		return 0, err
	}
	name := item
	if n, err := decimal(item); err == nil {
		if n >= int64(len(ports)) {
			return 0, fmt.Errorf("%w: %s", errNoSuchItem, item)
		}
		name = ports[n].Name
	}
	_, bad := portName().parse(name)
	if bad != nil || x.live.Links != nil &&
		!slices.ContainsFunc(ports, func(p netcfg.LinkState) bool { return p.Name == name }) {
		return 0, fmt.Errorf("%w: %s", errNoSuchItem, printable(item))
	}
	for i, l := range x.cfg.Links {
		if l.Name == name {
			return i, nil
		}
	}
	i, err := x.append(m)
	if err != nil {
		return 0, err
	}
	x.cfg.Links[i].Name = name
	return i, nil
}

// ports lists the ports of the machine, in its order, then those that it does not
// have but that have settings: all of these if the machine cannot be asked.
func (x *execution) ports() ([]netcfg.LinkState, error) {
	var ports []netcfg.LinkState
	if x.live.Links != nil {
		states, err := x.live.Links()
		if err != nil {
			return nil, fmt.Errorf("list interfaces: %w", err)
		}
		ports = append(ports, states...)
	}
	for _, l := range x.cfg.Links {
		if !slices.ContainsFunc(ports, func(p netcfg.LinkState) bool { return p.Name == l.Name }) {
			ports = append(ports, netcfg.LinkState{Name: l.Name, Present: x.live.Links == nil})
		}
	}
	return ports, nil
}
