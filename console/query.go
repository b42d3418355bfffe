package console

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// This file is the language without the text: Query looks at what a menu lists and Do runs a
// command, for programs that have names and values and no line. What a person types comes
// down to the same: print and find show the rows of Query, and a line is parsed to the
// arguments that Do has.

// idName is the name that conditions and arguments have for the ID of a row.
const idName = ".id"

var (
	// ErrNoSuchMenu is the error of a path that leads to no menu, or to one that is not there
	// because the system lacks what it shows. The words are RouterOS's.
	ErrNoSuchMenu = errors.New("no such command prefix")
	// ErrNoSuchCommand is the error of a command that the menu does not have.
	ErrNoSuchCommand = errors.New("no such command")
	// ErrNoSuchItem is the error of an item that is not there.
	ErrNoSuchItem = errors.New("no such item")
)

// Row is what Query finds: an item of a menu, or all that a menu without items has.
type Row struct {
	// ID is the item's; 0 of a menu without items.
	ID ID
	// Pairs are its properties, its comment and its flags (as Booleans). What is not set is
	// not there.
	Pairs []Pair
}

// Get returns the property of that name, if there is one.
func (r Row) Get(name string) (Value, bool) {
	for _, p := range r.Pairs {
		if p.Name == name {
			return p.Value, true
		}
	}
	return Value{}, false
}

// Condition is about a property of a row.
type Condition struct {
	// Name is that of a property or a flag, or ".id".
	Name string
	// Test is "=", "!=", "<", "<=", ">", ">=", "~" for a regular expression that the value
	// matches, or "" for a property that is set, and is not "no".
	Test string
	// Value is written as screens show it.
	Value string
}

// Argument is an argument of a command: a property of the menu, or another that help lists.
type Argument struct {
	// Name is the whole name. "!" before that of a property unsets it. ".id" is another name
	// for numbers.
	Name string
	// Value is written as in a line, but without quotes and escapes. A Boolean can also be true or false.
	Value string
}

// programBooleans are Booleans as RouterOS's API writes them.
var programBooleans = map[string]string{"true": "yes", "false": "no"}

// Properties returns what the rows of a menu can have, with help, in the order of its
// screens.
func Properties(live Live, path string) ([]Choice, error) {
	m, err := (&Session{}).execution(Config{}, live).at(path)
	if err != nil {
		return nil, err
	}
	return m.rowProperties(), nil
}

// Query returns what the menu at path lists ("ip socks access", or with slashes), in its
// order: what the system has made, then the items of cfg. A menu without items is one row.
//
// Where are conditions, all of which a row has to meet. Proplist names the properties that
// are wanted, in their order; without it a row has all but those that are counted (bytes,
// packets, hits), which cost a look at the kernel or a process. The error is one of the path
// (ErrNoSuchMenu, ErrNoSuchCommand), names the property that is wrong, or says what the
// system cannot tell.
func Query(cfg Config, live Live, path string, where []Condition, proplist []string) ([]Row, error) {
	x := (&Session{}).execution(cfg, live)
	m, err := x.at(path)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(m.commands, func(c command) bool { return c.name == "print" }) {
		return nil, fmt.Errorf("%w: print of /%s", ErrNoSuchCommand, m.path)
	}
	if live.Denied&MayRead != 0 {
		return nil, ErrNotPermitted
	}
	conditions, err := m.where(where)
	if err != nil {
		return nil, err
	}
	rows, err := x.rows(m)
	if err == nil {
		err = x.identified(m, rows)
	}
	if err == nil && slices.ContainsFunc(m.readOnly, func(p readOnly) bool { return p.counted && slices.Contains(proplist, p.name) }) {
		err = m.stats(x, m, rows)
	}
	if err == nil {
		rows, err = x.matching(m, rows, conditions)
	}
	if err != nil {
		return nil, err
	}
	all := make([]Row, len(rows))
	for i, r := range rows {
		all[i] = m.row(r, proplist)
	}
	return all, nil
}

// row is what a program gets of r.
func (m *menu) row(r row, proplist []string) Row {
	out := Row{ID: r.id, Pairs: r.pairs}
	if r.comment != "" {
		out.Pairs = append(out.Pairs, textPair("comment", r.comment))
	}
	for _, f := range m.legendFlags() {
		out.Pairs = append(out.Pairs, booleanPair(f.name, r.flags&flagNamed(f.name) != 0))
	}
	if len(proplist) > 0 {
		var wanted []Pair
		for _, name := range proplist {
			if v, ok := out.Get(name); ok {
				wanted = append(wanted, Pair{name, v})
			}
		}
		out.Pairs = wanted
	}
	return out
}

// where is a list of conditions, all of which have to be met, as the language has them.
func (m *menu) where(conditions []Condition) (where, error) {
	var all []condition
	for _, c := range conditions {
		if c.Name != idName && !slices.Contains(m.conditionNames(), c.Name) {
			return nil, errors.New("bad property name " + Printable(c.Name) + "; expected one of " + strings.Join(m.conditionNames(), ", "))
		}
		if !slices.Contains([]string{"", "=", "!=", "<", "<=", ">", ">=", "~"}, c.Test) {
			return nil, errors.New("bad comparison " + Printable(c.Test) + " of " + c.Name)
		}
		if id, err := ParseID(c.Value); err == nil && c.Name == idName {
			c.Value = id.String()
		}
		checked, err := m.checked(condition{name: c.Name, test: c.Test, value: c.Value})
		if err != nil {
			return nil, err
		}
		all = append(all, checked)
	}
	if all == nil {
		return nil, nil
	}
	return where{all}, nil
}

// Do runs a command of the menu at path on cfg, which it leaves alone. The Result is as
// Session.Execute's, without output: commands that only show something (print, find, export,
// check) are Query's. Items are named by numbers (as the menu lists them now), ids, or names,
// or lists of these.
//
// The error is one of the path or the command (ErrNoSuchMenu, ErrNoSuchCommand), of an item
// (ErrNoSuchItem), or names the argument and says what was expected; the Result then holds
// cfg. The changed configuration is not checked as a whole: see Validate.
func Do(cfg Config, live Live, path, command string, given ...Argument) (Result, error) {
	x := (&Session{}).execution(cfg, live)
	err := x.do(path, command, given)
	if err == nil {
		err = x.cfg.completeCertificates(live)
	}
	if err != nil {
		return Result{Config: cfg}, err
	}
	x.cfg.borrowed = nil
	x.cfg.share(cfg)
	x.result.Config, x.result.Changed = x.cfg, !cfg.Equal(x.cfg)
	return x.result, nil
}

func (x *execution) do(path, command string, given []Argument) error {
	m, err := x.at(path)
	if err != nil {
		return err
	}
	_, commands := x.below(m)
	for _, c := range commands {
		if c.name == command && !c.shows {
			if err := x.permit(m, c); err != nil {
				return err
			}
			a, err := x.named(m, c, given)
			if err != nil {
				return err
			}
			return c.run(x, m, a)
		}
	}
	return fmt.Errorf("%w: %s of /%s", ErrNoSuchCommand, Printable(command), m.path)
}

// at is the menu of that path, whose words are whole.
func (x *execution) at(path string) (*menu, error) {
	m := x.menu("")
	for _, name := range strings.Fields(strings.ReplaceAll(path, "/", " ")) {
		menus, _ := x.below(m)
		i := slices.IndexFunc(menus, func(child *menu) bool { return child.name() == name })
		if i < 0 {
			return nil, fmt.Errorf("%w: /%s", ErrNoSuchMenu, Printable(strings.TrimPrefix(path, "/")))
		}
		m = menus[i]
	}
	return m, nil
}

// named are the arguments of command c of menu m, which a program has given by their names.
func (x *execution) named(m *menu, c command, given []Argument) (arguments, error) {
	a, err := c.defaults()
	if err != nil {
		return a, err
	}
	names := c.named(m, nil)
	var seen []string
	for _, g := range given {
		name, unset := strings.CutPrefix(g.Name, "!")
		if name == idName {
			name = "numbers"
		}
		p, isProperty := m.property(name)
		if i := slices.IndexFunc(c.arguments, func(a argument) bool { return a.name == name }); i >= 0 {
			p = c.arguments[i].property
		}
		if word, ok := programBooleans[g.Value]; ok && p.typ == Boolean {
			g.Value = word
		}
		switch {
		case slices.Contains(seen, name):
			return a, errors.New("property " + Printable(name) + " given twice")
		case slices.Contains(names, name) && (!unset || c.properties && isProperty):
			err = x.take(m, c, name, word{text: g.Value}, unset, &a)
		case !unset && g.Value == "" && slices.Contains(choiceNames(c.plainWords(m)), name):
			a.words = append(a.words, name)
		default:
			err = errors.New("unknown parameter " + Printable(g.Name) + "; expected one of " +
				strings.Join(append(names, choiceNames(c.plainWords(m))...), ", "))
		}
		if err != nil {
			return a, err
		}
		seen = append(seen, name)
	}
	return a, c.missing(seen)
}
