package console

import (
	"slices"
	"strings"
)

// Choice is a word that can be typed, and what it means.
type Choice struct{ Name, Help string }

// cursor describes the end of a line that is being typed: the menu, the command if there is
// one already, its arguments so far, and the beginning of the word at the cursor.
type cursor struct {
	menu    *menu
	command *command
	// given are the names of the arguments so far, and words the plain words.
	given, words []string
	// where is set if the words are conditions.
	where   bool
	partial word
}

// Complete is what the Tab key does. before is the line up to the cursor. insert is what all
// possible words there have in common, with a space after a whole word or "=" after the name
// of a property. choices are the possible words, in the order of the tables; there are none
// if the line is bad, or if anything can be typed.
func (s *Session) Complete(cfg Config, live Live, before string) (insert string, choices []Choice) {
	if live.Denied&MayRead != 0 {
		return "", nil // names of items are among them
	}
	x := s.execution(cfg, live)
	c, err := x.cursor(before)
	if err != nil {
		return "", nil
	}
	prefix, all, suffix := x.possible(c)
	for _, choice := range all {
		// A name in a code page is none that a terminal could show or send.
		if strings.HasPrefix(choice.Name, prefix) && Printable(choice.Name) == choice.Name {
			choices = append(choices, choice)
		}
	}
	if len(choices) == 0 {
		return "", nil
	}
	common := choices[0].Name
	for _, choice := range choices {
		for !strings.HasPrefix(choice.Name, common) {
			common = common[:len(common)-1]
		}
	}
	insert = common[len(prefix):]
	if len(choices) == 1 {
		insert += suffix(common)
	}
	return insert, choices
}

// Help explains what can be typed after before, the line up to the cursor: menus, commands and
// properties, or the type, range and default of a property. The text ends with a line end.
// For a bad line it is the error.
func (s *Session) Help(cfg Config, live Live, before string) string {
	if live.Denied&MayRead != 0 {
		return ErrNotPermitted.Error() + "\n"
	}
	x := s.execution(cfg, live)
	c, err := x.cursor(before)
	if err != nil {
		return err.Error() + "\n"
	}
	line := func(texts ...string) {
		x.out.WriteString(wrap(strings.Fields(strings.Join(texts, " ")), x.width-1, "", "", "    "))
	}
	if p, ok := c.value(); ok {
		line(p.name, "--", p.help)
		line("type:", p.accepts)
		line(p.byDefault())
		return x.out.String()
	}
	prefix, all, _ := x.possible(c)
	if c.partial.text == "" && !c.partial.assigned {
		switch {
		case c.command != nil:
			line(c.command.help)
		default:
			line(c.menu.help)
		}
		x.out.WriteString("\n")
	}
	for _, choice := range all {
		if strings.HasPrefix(choice.Name, prefix) {
			line(choice.Name, "--", choice.Help)
		}
	}
	return x.out.String()
}

// byDefault says what the default of a property is.
func (p property) byDefault() string {
	switch {
	case p.def != "":
		return "default: " + quote(p.def)
	case p.unset != "":
		return "default: unset, which means " + p.unset
	}
	return "default: none, it must be given"
}

// cursor finds out what the end of a line can be.
func (x *execution) cursor(before string) (cursor, error) {
	words, partial, inside, err := lastStatement(before)
	if err != nil {
		return cursor{}, err
	}
	// The part of a path before its last "/" is a word of its own.
	path := words
	if i := strings.LastIndexByte(partial.text, '/'); i >= 0 && partial.plain() {
		head := partial
		head.text = partial.text[:i]
		if i == 0 && len(words) == 0 {
			head.text = "/"
		}
		if _, c, _, err := x.locate(words); err == nil && c == nil {
			path = append(slices.Clone(words), head)
			partial.text = partial.text[i+1:]
		}
	}
	m, command, rest, err := x.locate(path)
	c := cursor{menu: m, command: command, partial: partial}
	if err != nil || command == nil {
		return c, err
	}
	if inside != nil { // in brackets, where the first word is find
		c.where = len(inside) > 0
		c.command = &findItems
		return c, nil
	}
	c.where = command.find
	plain := command.plainWords(m)
	names := command.named(m, nil)
	for _, w := range rest {
		next := command.next(c.given)
		switch {
		case c.where:
		case w.assigned:
			if name, err := complete(w.key, names); err == nil {
				c.given = append(c.given, name)
			}
		case next != "":
			c.given = append(c.given, next)
		case w.plain():
			name, err := complete(w.text, choiceNames(plain))
			if err == nil {
				c.words = append(c.words, name)
			}
			c.where = name == "where" && command.where
		}
	}
	return c, nil
}

// lastStatement parses the last statement of a text that may be cut off anywhere. partial is
// the word at the cut. inside is not nil if that word is in brackets: then it has the words
// before it there.
func lastStatement(text string) (words []word, partial word, inside []word, err error) {
	if len(text) > MaxLine {
		return nil, word{}, nil, &lineError{message: "line too long", place: place{1, 1}}
	}
	s := scanner{text: text, line: 1}
	end := true // the last word is behind the cursor
	for {
		s.space()
		if s.pos == len(s.text) {
			break
		}
		switch c := s.text[s.pos]; {
		case c == '\n' || c == ';':
			words, end = nil, true
			s.pos++
			if c == '\n' {
				s.newLine()
			}
			continue
		case c == '#' && len(words) == 0:
			rest, _, found := strings.Cut(s.text[s.pos:], "\n")
			s.pos += len(rest)
			if !found {
				return nil, word{}, nil, &lineError{message: "a comment", place: s.here()}
			}
			continue
		}
		w, err := s.word()
		if err != nil && s.inner && s.pos == len(s.text) {
			inside = s.inside
			if n := len(inside); n > 0 && !strings.HasSuffix(text, " ") && !inside[n-1].parenthesis() {
				return words, inside[n-1], inside[:n-1], nil
			}
			return words, word{}, inside, nil
		}
		if err != nil {
			return nil, word{}, nil, err
		}
		words = append(words, w)
		end = s.pos < len(s.text) || w.parenthesis()
	}
	if !end {
		return words[:len(words)-1], words[len(words)-1], nil, nil
	}
	return words, word{}, nil, nil
}

// value returns the property or the argument whose value is at the cursor.
func (c cursor) value() (property, bool) {
	if c.command == nil || !c.partial.assigned {
		return property{}, false
	}
	if c.where {
		name, err := complete(strings.TrimRight(c.partial.key, operators), c.menu.conditionNames())
		if err != nil {
			return property{}, false
		}
		return c.menu.property(name)
	}
	name, err := complete(c.partial.key, c.command.named(c.menu, c.given))
	if err != nil {
		return property{}, false
	}
	if a, ok := c.command.argument(name); ok {
		if name == valueName {
			a.values, a.list = choiceNames(c.menu.unsettable()), true
		}
		return a.property, true
	}
	return c.menu.property(name)
}

// possible lists the words that are possible at the cursor, where prefix is already typed.
// suffix returns what follows a whole word.
func (x *execution) possible(c cursor) (prefix string, all []Choice, suffix func(string) string) {
	space := func(string) string { return " " }
	prefix = c.partial.text
	switch {
	case c.partial.quoted || c.partial.find != nil:
		return prefix, nil, space
	case c.command == nil:
		return prefix, x.choicesOf(c.menu), space
	case c.partial.assigned:
		p, ok := c.value()
		if !ok {
			return prefix, nil, space
		}
		if p.list {
			prefix = prefix[strings.LastIndexByte(prefix, ',')+1:]
		}
		if strings.HasPrefix(p.accepts, "[!]") {
			prefix = strings.TrimPrefix(prefix, "!")
		}
		for _, v := range p.values {
			all = append(all, Choice{Name: v, Help: p.help})
		}
		if p.offers != nil {
			all = append(all, p.offers(x, c.menu)...)
		}
		if p.isInterface {
			all = append(all, x.interfaceChoices(p)...)
		}
		if p.isList {
			all = append(all, x.listChoices()...)
		}
		return prefix, all, space
	case c.where:
		if not, found := strings.CutPrefix(prefix, "!"); found {
			return not, c.menu.rowProperties(), space
		}
		return prefix, c.menu.rowProperties(), func(string) string { return "=" }
	case c.command.find: // in brackets
		return prefix, []Choice{{findItems.name, findItems.help}}, space
	}
	for _, w := range c.command.plainWords(c.menu) {
		if !slices.Contains(c.words, w.Name) {
			all = append(all, w)
		}
	}
	plain := len(all)
	if c.command.next(c.given) == "numbers" {
		switch {
		case c.menu.isPorts:
			all = append(all, x.portChoices()...)
		case c.menu.allLinks:
			all = append(all, x.interfaceChoices(property{})...)
		case c.menu.fixed != nil:
			for _, name := range c.menu.fixed {
				all = append(all, Choice{name, "an item"})
			}
		case c.menu.items != nil:
			if p, ok := c.menu.property("name"); ok {
				for i := range c.menu.items.count(&x.cfg) {
					all = append(all, Choice{p.get(&x.cfg, i), "an item"})
				}
			}
		}
		plain = len(all)
	}
	if c.command.next(c.given) == valueName {
		if c.command.name == getItem.name {
			all = append(all, c.menu.rowProperties()...)
		} else {
			all = append(all, c.menu.unsettable()...)
		}
		plain = len(all)
	}
	// Numbers have to be given first.
	needed := c.command.next(c.given) == "numbers"
	for _, name := range c.command.named(c.menu, c.given) {
		p, ok := c.menu.property(name)
		if a, isArgument := c.command.argument(name); isArgument {
			p, ok = a.property, true
		}
		if ok && (!needed || name == "numbers") {
			all = append(all, Choice{name, p.help})
		}
	}
	return prefix, all, func(name string) string {
		if i := slices.Index(choiceNames(all), name); i >= plain {
			return "="
		}
		return " "
	}
}

// choicesOf are the menus and the commands in m, and the way up.
func (x *execution) choicesOf(m *menu) []Choice {
	var all []Choice
	menus, commands := x.below(m)
	for _, child := range menus {
		all = append(all, Choice{child.name(), child.help})
	}
	for _, c := range commands {
		all = append(all, Choice{c.name, c.help})
	}
	if m.path != "" {
		all = append(all, Choice{"..", "go up to /" + m.parent()})
	}
	return all
}

func (x *execution) portChoices() []Choice {
	var all []Choice
	ports, err := x.ports()
	if err != nil {
		return nil // then users type the names themselves
	}
	for _, p := range ports {
		all = append(all, Choice{x.cfg.Called(p.Name), "a port"})
	}
	return all
}

func choiceNames(all []Choice) []string {
	names := make([]string, len(all))
	for i, c := range all {
		names[i] = c.Name
	}
	return names
}
