package console

import (
	"errors"
	"slices"
	"strings"

	"github.com/postern-router/postern/netcfg"
)

// execution is a line while it runs: the configuration as changed so far, and the rest of
// the Result to come.
type execution struct {
	// menus is the variable of that name. Commands must not use the variable itself: it has
	// the commands, and Go does not allow such a cycle.
	menus []*menu
	path  string
	width int
	cfg   Config
	// before are the IDs of the configuration before the line.
	before [lists][]ID
	live   Live
	links  []netcfg.LinkState // of live, once asked
	// listed has for each menu whose rows have numbers and only the system has, by its path, those
	// that are there: once asked, and without what this line removes.
	listed map[string][]row
	// leftOut is how many entries of the DNS cache, or addresses of lists, are too many for its rows, once asked.
	leftOut int
	// looked is what rows of the menu lookedIn are looked for by while [find ...] looks.
	looked   where
	lookedIn *menu
	// leased are the leases of live, once asked.
	leased      []LeaseState
	leasesAsked bool
	// neighbors is the ARP table, if it was asked for.
	neighborsAsked bool
	neighbors      []Neighbor
	// file is set for a line of a file: then no menu with settings is hidden. older is set if
	// an earlier version may have written it.
	file, older bool
	// there are the items of before an import that an add may mean: see Session.there.
	there map[ID]bool
	// printed are the numbers that the session's earlier lines have assigned, numbers those
	// that this line has.
	printed, numbers map[string][]key
	// repeated is set if the line runs again because its Result asked for it. seen is what it
	// has shown: the last lines of the log, or the rows of a table.
	repeated bool
	seen     []string
	// measured is what it has counted when it ran last, nil if it has not.
	measured *measurement
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
	if err := x.permit(m, *c); err != nil {
		return err
	}
	if x.older && m.path == "system logging" && c.name == "set" {
		if action, words := x.olderLogging(rest); words != nil {
			m, rest = action, words
		}
	}
	if x.older && m.path == "system logging" && c.name == "set" && len(rest) > 0 && x.isBuiltinRule(rest[0]) {
		return &lineError{message: "Postern has no such rule of RouterOS's own: the memory has the whole log", place: rest[0].place}
	}
	if x.older && m.path == "system ntp client" && c.name == "set" {
		rest = olderServers(rest)
	}
	if x.older && m.path == routePath && c.sets() {
		if rest, err = x.olderTables(rest); err != nil {
			return err
		}
	}
	a, err := x.arguments(m, *c, rest)
	if err != nil {
		return err
	}
	return c.run(x, m, a)
}

// isBuiltinRule reports whether a word of a file is the number of one of RouterOS's first rules of the log, which it exports when they
// were changed. An export of Postern never names a rule by its number.
func (x *execution) isBuiltinRule(w word) bool {
	n, err := decimal(w.text)
	return w.find == nil && (!w.assigned || w.key == "numbers") && err == nil && n < 4 && int(n) >= len(x.cfg.RemoteLog.Rules)
}

// locate follows words from the current menu to another menu and perhaps to a command. The
// rest of the words are the command's arguments.
func (x *execution) locate(words []word) (*menu, *command, []word, error) {
	m := x.menu(x.path)
	for i, w := range words {
		if !w.plain() {
			return nil, nil, nil, &lineError{message: "expected command name", place: w.place, path: bare(words)}
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
				err.path = bare(words)
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

// bare reports whether words may be a path alone: none of them has a value.
func bare(words []word) bool {
	return !slices.ContainsFunc(words, func(w word) bool { return w.assigned })
}

func (x *execution) menu(path string) *menu {
	for _, m := range x.menus {
		if m.path == path {
			return m
		}
	}
	return x.menus[0]
}

// below are the menus directly below m and the commands of m, without those that are hidden.
func (x *execution) below(m *menu) (menus []*menu, commands []command) {
	for _, child := range x.menus {
		if child.path != "" && child.parent() == m.path &&
			(child.needs == nil || child.needs(x.live) || x.file && x.holds(child)) {
			menus = append(menus, child)
		}
	}
	for _, c := range append(slices.Clone(m.commands), exportCommand) {
		if (c.needs == None || slices.Contains(x.live.Requests, c.needs)) && (c.able == nil || c.able(x.live)) {
			commands = append(commands, c)
		}
	}
	return menus, commands
}

// holds reports whether m or a menu below it has settings.
func (x *execution) holds(m *menu) bool {
	return slices.ContainsFunc(x.menus, func(c *menu) bool {
		return c.properties != nil && (c == m || strings.HasPrefix(c.path, m.path+" "))
	})
}

// findName finds the menu or the command of m that name, whole or shortened, means.
func (x *execution) findName(m *menu, name string, at place) (command, *menu, *lineError) {
	if x.older && m.path == routePath && name == "rule" { // as RouterOS 6 calls it
		return command{}, x.menu(routingRulePath), nil
	}
	if err := m.checkMenu(name, at); err != nil {
		return command{}, nil, err
	}
	menus, commands := x.below(m)
	var names []string
	for _, child := range menus {
		names = append(names, child.name())
	}
	for _, c := range commands {
		names = append(names, c.name)
	}
	if name == editItem.name && slices.Contains(names, setItems.name) && !slices.Contains(names, name) {
		return command{}, nil, &lineError{message: "edit is for a person at a terminal", place: at, hint: "set changes a value"}
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

// errAmbiguous is the error of a shortened word that could mean several.
var errAmbiguous = errors.New("ambiguous")

// choices is the error of a word that is none of names, or that could be several of them.
type choices struct {
	names     []string
	ambiguous bool
}

func (c choices) Error() string { return strings.Join(c.names, ", ") }

func (c choices) Is(err error) bool { return err == errAmbiguous && c.ambiguous }

// complete returns the name that is word, or else the only one that begins with it.
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
