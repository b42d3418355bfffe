package console

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// place is where a word begins. Lines and columns (in characters) count from 1.
type place struct{ line, column int }

// word is a word of a command: text, or key=value. The escapes of a quoted text are resolved.
// A key that ends with one of operators belongs to a condition, as key!=value, key~value or
// key<value. A parenthesis is a word of its own.
type word struct {
	place
	key      string
	assigned bool // key=text
	quoted   bool
	text     string
	// find has the words in brackets, [find ...], or is nil if the word has no brackets.
	find []word
	// value is where the text begins.
	value place
}

// plain reports whether the word is unquoted text without a key.
func (w word) plain() bool { return !w.assigned && !w.quoted && w.find == nil }

func (w word) parenthesis() bool { return w.plain() && (w.text == "(" || w.text == ")") }

func (w word) String() string {
	text := w.text
	if w.quoted {
		text = quote(text)
	}
	if w.find != nil {
		var b strings.Builder
		for _, part := range w.find {
			b.WriteString(" " + part.String())
		}
		text = "[" + strings.TrimPrefix(b.String(), " ") + "]"
	}
	switch {
	case w.assigned && !strings.HasSuffix(w.key, "!") && strings.TrimRight(w.key, operators) != w.key:
		return w.key + text
	case w.assigned:
		return w.key + "=" + text
	}
	return text
}

// lineError is an error at a place, in the words of RouterOS.
type lineError struct {
	message string
	place
	expected string
	// hint is what can be done instead.
	hint string
	// path is set if the statement may have been a path. Then the lines after it in a file are
	// for another menu than the current one.
	path bool
}

func (e *lineError) Error() string {
	s := e.message
	if e.line > 0 { // else it is an argument of Do, or a condition of Query
		s += fmt.Sprintf(" (line %d column %d)", e.line, e.column)
	}
	if e.expected != "" {
		s += "; expected " + e.expected
	}
	if e.hint != "" {
		s += ": " + e.hint
	}
	return s
}

// operators are the characters between the name and the value of a condition.
const operators = "!~<>="

// reserved are characters with a meaning in RouterOS's scripts, of which this language has
// only [find ...]. A value with one of them has to be quoted.
const reserved = `"\[](){}$`

const quotesExpected = `a value with such a character to stand in quotes ("...")`

// scanner reads the words of a text of one or more lines.
type scanner struct {
	text      string
	pos       int
	line      int
	lineStart int
	// inner is set between brackets, and inside has the words there so far: completion needs
	// them if the text ends there.
	inner  bool
	inside []word
	// outer is the word that has the brackets.
	outer word
}

func tooLong(most int, at place) error {
	return &lineError{message: fmt.Sprintf("line longer than %d bytes", most), place: at}
}

// parse splits text into statements, which end at the end of a line or at ";". A line that
// ends with "\" continues in the next line, whose leading blanks are dropped. A statement
// that begins with "#" is a comment up to the end of the line, and so is anything behind ";;;",
// as print shows comments. Scripts are errors that say so.
func parse(text string, firstLine int) ([][]word, error) {
	s := scanner{text: text, line: firstLine}
	if len(text) > maxFileLine {
		return nil, tooLong(maxFileLine, s.here())
	}
	var all [][]word
	var st []word
	end := func() {
		if len(st) > 0 {
			all = append(all, st)
			st = nil
		}
	}
	for {
		s.space()
		if s.pos == len(s.text) {
			end()
			return all, nil
		}
		begins := len(st) == 0
		switch c := s.text[s.pos]; {
		case c == '\n':
			end()
			s.pos++
			s.newLine()
		case begins && strings.IndexByte(":{}$", c) >= 0:
			return nil, &lineError{message: noScripts, place: s.here()}
		case begins && c == '#', strings.HasPrefix(s.text[s.pos:], ";;;"):
			end()
			for s.pos < len(s.text) && s.text[s.pos] != '\n' {
				s.pos++
			}
		case c == ';':
			end()
			s.pos++
		default:
			w, err := s.word()
			if err != nil {
				return nil, err
			}
			st = append(st, w)
		}
	}
}

func (s *scanner) here() place {
	return place{s.line, utf8.RuneCountInString(s.text[s.lineStart:s.pos]) + 1}
}

func (s *scanner) newLine() {
	s.line++
	s.lineStart = s.pos
}

// space skips blanks and continued line ends.
func (s *scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\r':
			s.pos++
		default:
			if !s.continuation() {
				return
			}
		}
	}
}

// continuation skips a "\" at the end of a line and the blanks that begin the next.
func (s *scanner) continuation() bool {
	if !strings.HasPrefix(s.text[s.pos:], "\\\n") {
		return false
	}
	s.pos += 2
	s.newLine()
	for s.pos < len(s.text) && (s.text[s.pos] == ' ' || s.text[s.pos] == '\t') {
		s.pos++
	}
	return true
}

// atEnd reports whether a word ends here.
func (s *scanner) atEnd() bool {
	return s.pos == len(s.text) || strings.IndexByte(" \t\r\n;)", s.text[s.pos]) >= 0 ||
		s.inner && s.text[s.pos] == ']'
}

func (s *scanner) word() (word, error) {
	w := word{place: s.here(), value: s.here()}
	var b strings.Builder
	for {
		for s.continuation() {
		}
		if b.Len() == 0 && !w.assigned && s.pos < len(s.text) && strings.IndexByte("()", s.text[s.pos]) >= 0 {
			w.text = s.text[s.pos : s.pos+1]
			s.pos++
			return w, nil
		}
		if s.atEnd() || s.text[s.pos] == '(' && b.String() == "!" && !w.assigned {
			w.text = b.String()
			return w, nil
		}
		c := s.text[s.pos]
		switch {
		case c == '[' && b.Len() == 0 && !s.inner:
			find, err := s.bracket(w)
			if err != nil {
				return word{}, err
			}
			w.find = find
			if !s.atEnd() {
				return word{}, s.fail("a space behind the closing bracket")
			}
			return w, nil
		case c == '"' && b.Len() == 0:
			text, err := s.quoted()
			if err != nil {
				return word{}, err
			}
			w.text, w.quoted = text, true
			if !s.atEnd() {
				return word{}, s.fail("a space behind the closing quote")
			}
			return w, nil
		case strings.IndexByte("=~<>", c) >= 0 && !w.assigned && b.Len() > 0:
			s.pos++
			if c != '=' {
				b.WriteByte(c)
			}
			if (c == '<' || c == '>') && strings.HasPrefix(s.text[s.pos:], "=") {
				b.WriteByte('=')
				s.pos++
			}
			w.key, w.assigned = b.String(), true
			b.Reset()
			w.value = s.here()
		case strings.IndexByte("${}", c) >= 0:
			return word{}, s.script(quotesExpected)
		case c < ' ' || c == 0x7f || strings.IndexByte(reserved, c) >= 0:
			return word{}, s.fail(quotesExpected)
		default:
			b.WriteByte(c)
			s.pos++
		}
	}
}

// bracket reads the words between brackets in word w. There is always at least one.
func (s *scanner) bracket(w word) ([]word, error) {
	s.pos++ // the opening bracket
	s.inner, s.inside, s.outer = true, []word{}, w
	for {
		s.space()
		if s.pos == len(s.text) || s.text[s.pos] == '\n' || s.text[s.pos] == ';' {
			return nil, &lineError{message: "expected closing brace", place: s.here(), expected: "]"}
		}
		if s.text[s.pos] == ']' {
			break
		}
		inner, err := s.word()
		if err != nil {
			return nil, err
		}
		s.inside = append(s.inside, inner)
	}
	if len(s.inside) == 0 || !s.inside[0].plain() || !strings.HasPrefix("find", s.inside[0].text) {
		message := noScripts
		if len(s.inside) == 0 {
			message = "syntax error"
		}
		return nil, &lineError{message: message, place: w.value, expected: "[find ...]"}
	}
	s.pos++
	s.inner = false
	return s.inside, nil
}

// quoted reads a string in quotes, with the escapes of RouterOS.
func (s *scanner) quoted() (string, error) {
	s.pos++ // the opening quote
	var b strings.Builder
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == '"':
			s.pos++
			return b.String(), nil
		case c == '\\':
			if s.continuation() {
				continue
			}
			c, n, ok := unescape(s.text[s.pos+1:])
			if !ok {
				return "", s.fail(`an escape: \" \\ \$ \? \_ \a \b \f \n \r \t \v or two hexadecimal digits`)
			}
			b.WriteByte(c)
			s.pos += 1 + n
		case c == '$':
			return "", s.script(`\$ for a dollar sign`)
		case c < ' ' && c != '\t' || c == 0x7f:
			return "", s.fail("a closing quote")
		default:
			b.WriteByte(c)
			s.pos++
		}
	}
	return "", s.fail("a closing quote")
}

// script is the error of what only a script can have.
func (s *scanner) script(expected string) error {
	return &lineError{message: noScripts, place: s.here(), expected: expected, path: !strings.Contains(s.text, "=")}
}

func (s *scanner) fail(expected string) error {
	return &lineError{message: "syntax error", place: s.here(), expected: expected, path: !strings.Contains(s.text, "=")}
}

const (
	escapes  = `"\$?_abfnrtv`
	escaped  = "\"\\$? \a\b\f\n\r\t\v"
	hexDigit = "0123456789ABCDEF"
)

// unescape reads what follows a backslash: the byte that it means, and how long it is.
func unescape(s string) (c byte, n int, ok bool) {
	if s == "" {
		return 0, 0, false
	}
	// RouterOS writes hexadecimal digits in upper case, so \a and \b are no digits.
	if len(s) >= 2 && strings.IndexByte(hexDigit, s[0]) >= 0 {
		v, err := strconv.ParseUint(s[:2], 16, 8)
		return byte(v), 2, err == nil
	}
	if i := strings.IndexByte(escapes, s[0]); i >= 0 {
		return escaped[i], 1, true
	}
	return 0, 0, false
}

// quote writes s as a word of the language, in quotes if it needs them.
func quote(s string) string {
	if s != "" && strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._:/,!") == "" {
		return s
	}
	return `"` + escape(s, `"\$?`) + `"`
}

// Printable writes s for the screen: no byte of it can control a terminal.
func Printable(s string) string { return escape(s, "") }

// ErrorText is an error as lines for the screen. The names and values in it may be in any encoding.
func ErrorText(err error) string {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = Printable(line)
	}
	return strings.Join(lines, "\n") + "\n"
}

// escape replaces those characters of s that are special or not printable by escapes.
func escape(s, special string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case n == 1 && strings.IndexByte(special, s[i]) >= 0:
			b.WriteByte('\\')
			b.WriteByte(s[i])
		case n == 1 && s[i] == '\n', n == 1 && s[i] == '\r', n == 1 && s[i] == '\t':
			b.WriteByte('\\')
			b.WriteByte(escapes[strings.IndexByte(escaped, s[i])])
		case strconv.IsPrint(r) && (r != utf8.RuneError || n > 1):
			b.WriteString(s[i : i+n])
		default:
			for _, c := range []byte(s[i : i+n]) {
				b.WriteByte('\\')
				b.WriteByte(hexDigit[c>>4])
				b.WriteByte(hexDigit[c&15])
			}
		}
		i += n
	}
	return b.String()
}

// Continues reports whether a line continues in the next: whether it ends with a backslash
// that is not itself escaped.
func Continues(line string) bool {
	return (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
}
