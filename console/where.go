package console

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/socks"
)

// where is the conditions after the word where, or after find: a row meets them if it meets
// all conditions of at least one list. Every row meets a nil where.
type where [][]condition

// condition is a comparison, the name of a property that has to be set, or a group in
// parentheses.
type condition struct {
	name, value string
	// test is "=", "!=", "<", "<=", ">", ">=", "~" (matches the pattern), "in" (is within
	// addresses) or "" (is set).
	test    string
	within  match.Addresses // of "in"
	flag    flags           // the flag, if name is that of one
	pattern *regexp.Regexp  // of "~"
	group   where           // nil if the condition is no group
	not     bool
}

const (
	// maxPattern is the greatest length of a pattern in bytes.
	maxPattern = 200
	// maxGroups is how deep groups can be nested.
	maxGroups = 16
)

// pattern compiles the regular expression of a "~".
func pattern(text string) (*regexp.Regexp, error) {
	if err := checkPattern(text, maxPattern); err != nil {
		return nil, err
	}
	return regexp.Compile(text)
}

// checkPattern reports what is wrong with a regular expression. It refuses counted repetitions, as
// a{1000}, and sets of Unicode, as \pL: with them a short text needs megabytes of memory.
func checkPattern(text string, most int) error {
	if len(text) > most {
		return fmt.Errorf("it has %d characters; %d at most", len(text), most)
	}
	tree, err := syntax.Parse(text, syntax.Perl&^syntax.UnicodeGroups)
	if err != nil {
		return err
	}
	for left := []*syntax.Regexp{tree}; len(left) > 0; left = left[1:] {
		if left[0].Op == syntax.OpRepeat {
			return fmt.Errorf("counted repetition in %s", left[0])
		}
		left = append(left, left[0].Sub...)
	}
	return nil
}

// conditions parses the words after where or find.
func (x *execution) conditions(m *menu, words []word) (where, error) {
	if len(words) > 0 && words[0].plain() && words[0].text == "where" {
		words = words[1:]
	}
	w, rest, err := x.alternatives(m, words, 0)
	if err == nil && len(rest) > 0 { // a parenthesis that none has opened
		return nil, unexpected(rest[0], nil)
	}
	return w, err
}

// alternatives parses conditions that are joined by "and", by nothing (which means and) or by
// "or", up to the end or a closing parenthesis. rest begins with the parenthesis.
func (x *execution) alternatives(m *menu, words []word, depth int) (w where, rest []word, err error) {
	var all []condition
	open := false // a condition has to follow
	var last word
	for len(words) > 0 && !(words[0].plain() && words[0].text == ")") {
		last = words[0]
		or := last.plain() && (last.text == "or" || last.text == "||")
		if !or && !(last.plain() && (last.text == "and" || last.text == "&&")) {
			var c condition
			if c, words, err = x.condition(m, words, depth); err != nil {
				return nil, nil, err
			}
			all, open = append(all, c), false
			continue
		}
		if open || all == nil {
			return nil, nil, x.noCondition(m, last)
		}
		if open, words = true, words[1:]; or {
			w, all = append(w, all), nil
		}
	}
	if open {
		return nil, nil, x.noCondition(m, last)
	}
	if all != nil {
		w = append(w, all)
	}
	return w, words, nil
}

func (x *execution) noCondition(m *menu, at word) error {
	return &lineError{message: "expected condition", place: at.place, expected: "property=value, with one of " + strings.Join(m.conditionNames(), ", ")}
}

// condition parses one condition, and returns the words that follow it.
func (x *execution) condition(m *menu, words []word, depth int) (c condition, rest []word, err error) {
	w := words[0]
	if w.find != nil || w.quoted && !w.assigned {
		return c, nil, x.noCondition(m, w)
	}
	if w.text == "!" && w.plain() && len(words) > 1 {
		c.not, words = true, words[1:]
	}
	if words[0].plain() && words[0].text == "(" {
		if depth == maxGroups {
			return c, nil, &lineError{message: "too many groups within groups", place: words[0].place}
		}
		c.group, rest, err = x.alternatives(m, words[1:], depth+1)
		switch {
		case err != nil:
			return c, nil, err
		case len(rest) == 0:
			return c, nil, &lineError{message: "expected closing brace", place: words[0].place, expected: ")"}
		case c.group == nil:
			return c, nil, x.noCondition(m, rest[0])
		}
		return c, rest[1:], nil
	}
	c.name, c.value = w.text, w.text
	if w.assigned {
		c.name = strings.TrimRight(w.key, operators)
		switch c.test = cmp.Or(w.key[len(c.name):], "="); c.test {
		case "!":
			c.test = "!="
		case "=", "~", "<", "<=", ">", ">=":
		default:
			return c, nil, x.noCondition(m, w)
		}
	} else if strings.HasPrefix(w.text, "!") {
		c.name, c.not = w.text[1:], true
	}
	full, err := complete(c.name, m.conditionNames())
	if errors.Is(err, errAmbiguous) {
		return c, nil, &lineError{message: "ambiguous property name " + Printable(c.name), place: w.place, expected: err.Error()}
	}
	if err != nil {
		return c, nil, &lineError{message: "bad property name " + Printable(c.name), place: w.place, expected: "one of " + err.Error()}
	}
	c.name = full
	rest = words[1:]
	if c.test == "" && len(rest) > 1 && rest[0].plain() && rest[0].text == "in" && !rest[1].assigned && rest[1].find == nil {
		c.test, c.value = "in", rest[1].text
		rest = rest[2:]
	}
	c, err = m.checked(c)
	var bad *lineError
	if errors.As(err, &bad) {
		bad.place = w.place
	}
	return c, rest, err
}

// checked completes a condition about a property or a flag that rows of m have: its value is
// then written as in rows.
func (m *menu) checked(c condition) (condition, error) {
	var err error
	c.flag = m.flag(c.name)
	switch c.test {
	case "~":
		if c.pattern, err = pattern(c.value); err != nil {
			err = &lineError{message: "invalid value of " + c.name, expected: "a regular expression without {n}: " + err.Error()}
		}
	case "in":
		if c.within, err = match.ParseAddresses(c.value); err != nil || c.within.Any() {
			err = &lineError{message: "invalid value of " + c.name, expected: "in IP address/netmask"}
		}
	case "=", "!=":
		if p, ok := m.property(c.name); ok && c.value != "" {
			c.value, err = m.canonical(p, c.value)
		}
	case "":
	default:
		if _, ok := compare(c.value, c.value); !ok {
			err = &lineError{message: "invalid value of " + c.name, expected: "a number, a time, a size or an address"}
		}
	}
	return c, err
}

// canonical writes a value of a property as in rows.
func (m *menu) canonical(p property, value string) (string, error) {
	var scratch Config
	if m.items != nil {
		m.items.add(&scratch)
	}
	err := p.set(&scratch, 0, value)
	return p.get(&scratch, 0), err
}

// meets reports whether a row meets w.
func (w where) meets(r row) bool {
	return w == nil || slices.ContainsFunc(w, func(all []condition) bool {
		return !slices.ContainsFunc(all, func(c condition) bool { return c.meets(r) == c.not })
	})
}

// meets reports whether a row meets c, without regard to c.not.
func (c condition) meets(r row) bool {
	if c.group != nil {
		return c.group.meets(r)
	}
	value := r.value(c.name)
	if c.flag != 0 {
		value = boolean().format(r.flags&c.flag != 0)
	}
	switch c.test {
	case "":
		return value != "" && value != "no"
	case "~":
		return c.pattern.MatchString(value)
	case "in":
		value, _, _ = strings.Cut(value, ":") // the port
		a, err := match.ParseAddresses(value)
		return err == nil && !a.Any() && !a.Not && c.within.Match(a.From) && c.within.Match(a.To)
	case "=":
		return value == c.value
	case "!=":
		return value != c.value
	}
	order, ordered := compare(value, c.value)
	switch c.test {
	case "<":
		return ordered && order < 0
	case "<=":
		return ordered && order <= 0
	case ">":
		return ordered && order > 0
	}
	return ordered && order >= 0
}

// mentions reports whether a condition of w is about the property of that name.
func (w where) mentions(name string) bool {
	return slices.ContainsFunc(w, func(all []condition) bool {
		return slices.ContainsFunc(all, func(c condition) bool { return c.group.mentions(name) || c.name == name })
	})
}

// matching are the rows that meet w. Counters are looked up if there are conditions about
// them, but the rows returned do not have them.
func (x *execution) matching(m *menu, rows []row, w where) ([]row, error) {
	known := rows
	if slices.ContainsFunc(m.readOnly, func(p readOnly) bool { return p.counted && w.mentions(p.name) }) {
		known = slices.Clone(rows)
		for i := range known {
			known[i].pairs = slices.Clip(known[i].pairs)
		}
		if err := m.stats(x, m, known); err != nil {
			return nil, err
		}
	}
	var met []row
	for i, r := range rows {
		if w.meets(known[i]) {
			met = append(met, r)
		}
	}
	return met, nil
}

// compare orders two numbers, sizes, times or addresses. Addresses are compared without
// their port and netmask.
func compare(a, b string) (order int, ok bool) {
	for _, measure := range []func(string) (uint64, error){
		func(s string) (uint64, error) {
			number, isSize := strings.CutSuffix(s, "KiB")
			n, err := socks.ParseRate(number)
			if isSize {
				n <<= 10
			}
			return n, err
		},
		func(s string) (uint64, error) {
			d, err := ParseDuration(s)
			return uint64(d), err
		},
		func(s string) (uint64, error) {
			if i := strings.IndexAny(s, ":/"); i >= 0 {
				s = s[:i]
			}
			addr, err := netip.ParseAddr(s)
			if err != nil || !addr.Is4() {
				return 0, errors.New("not an IPv4 address")
			}
			four := addr.As4()
			return uint64(binary.BigEndian.Uint32(four[:])), nil
		},
	} {
		left, err1 := measure(a)
		right, err2 := measure(b)
		if err1 == nil && err2 == nil {
			return cmp.Compare(left, right), true
		}
	}
	return 0, false
}
