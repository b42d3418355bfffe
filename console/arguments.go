package console

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/match"
)

// options are the parsed values of the arguments that refer to no items.
type options struct {
	interval   time.Duration
	comment    string
	valueName  string // names of properties
	ping       PingArguments
	traceroute TracerouteArguments
	check      socksRequest
	clock      clock
	upgrade    UpgradeArguments
	imports    ImportArguments
	file       string
	password   PasswordArguments
	traffic    trafficArguments
	key        keyArguments
}

func option(f field[*options]) argument { return argument{property: f.property, set: f.set} }

// arguments are what a command is run with.
type arguments struct {
	values []assignment
	words  []string
	items  map[string]word
	where  where
	// computed are values for properties that the router computes. They have to be right.
	computed []computed
	options
}

// computed is a value that a line has for a property that cannot be set.
type computed struct {
	property readOnly
	value    string
}

type assignment struct {
	property property
	value    string
}

func itemArgument(name, unset, help string) argument {
	return argument{item: true, property: property{name: name, help: help, unset: unset,
		accepts: "number, name, list (0,2-4) or [find ...]"}}
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

// named are the names of the arguments that c of menu m takes and that are not among given:
// properties first.
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

// sets reports whether c takes properties to set.
func (c command) sets() bool { return c.properties || c.name == setClockCommand.name }

// computedProperty returns the property of that exact name that the router computes from those
// that are set.
func (m *menu) computedProperty(name string) (readOnly, bool) {
	i := slices.IndexFunc(m.readOnly, func(r readOnly) bool { return r.name == name && r.of != nil })
	if i < 0 {
		return readOnly{}, false
	}
	return m.readOnly[i], true
}

// plainWords are the plain words that c of menu m takes.
func (c command) plainWords(m *menu) []Choice {
	words := slices.Clone(c.words)
	if c.where {
		words = append(words, Choice{"where", "only the items that meet conditions: property=value, !=, <, >, ~ (a regular expression that it has), and, or, (...)"})
	}
	if c.name == resetCommand.name {
		words = append(words, m.propertyChoices()...)
	}
	return words
}

// next is the argument that a value without a name would be for, or "".
func (c command) next(given []string) string {
	for _, name := range c.positional {
		if !slices.Contains(given, name) {
			return name
		}
	}
	return ""
}

// arguments parses the words that follow the name of command c of menu m.
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
		if p, ok := m.property(w.text); ok && p.flag && c.properties && !w.assigned && w.plain() && !slices.Contains(given, p.name) {
			given = append(given, p.name)
			a.values = append(a.values, assignment{p, "yes"})
			continue
		}
		switch {
		case w.assigned, isUnset, !w.assigned && next != "" && len(a.values) == 0:
			key, at := w.key, w.place
			if isUnset {
				key = unset
			} else if !w.assigned {
				key = next
			}
			if _, _, absent := m.absentProperty(key); absent && c.sets() {
				if err := m.checkAbsent(key, w, isUnset); err != nil {
					return a, err
				}
				continue
			}
			if r, ok := m.computedProperty(key); ok && c.properties && !isUnset && w.find == nil {
				a.computed = append(a.computed, computed{r, w.text})
				continue
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

// defaults are the arguments of c before any is given.
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

// missing is the error of arguments that c needs and that are not among given, or nil.
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

// unexpected is the error of a word that the command does not take; it takes names.
func unexpected(w word, names []string) error {
	e := &lineError{message: "expected end of command", place: w.place}
	if len(names) > 0 {
		e.expected = "one of " + strings.Join(names, ", ")
	}
	return e
}

// argumentName is the argument that key, whole or shortened, means.
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

// take parses one argument into a.
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
	} else if p.list && p.unset == "any" && value == "" {
		// RouterOS exports connection-state="" of a rule that matches no state. Such a rule must
		// not become one that matches every packet.
		return valueError(p.name, value, p.accepts+", or !"+p.name+" for "+p.unset, false, match.Refusal("an empty list matches nothing"))
	}
	a.values = append(a.values, assignment{p, value})
	return nil
}
