package web

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// This file has as much of JSON (RFC 8259) as REST needs: an object of texts, numbers, booleans and lists of
// these. encoding/json would be 100 KB of the program.

const (
	// maxMembers bounds the members of an object, maxElements the elements of a list.
	maxMembers  = 256
	maxElements = 256
)

// member is a member of an object: a text, or a list of texts. A number is its text, true and false are yes and no.
type member struct {
	name string
	text string
	list []string
	// isList says that it is a list.
	isList bool
}

var errJSON = errors.New("syntax error in JSON; expected an object of strings, numbers, booleans and lists of these")

// parseObject parses an object. What is empty is one without members.
func parseObject(text string) ([]member, error) {
	p := jsonParser{rest: text}
	p.space()
	if p.rest == "" {
		return nil, nil
	}
	var all []member
	if !p.take('{') {
		return nil, errJSON
	}
	for first := true; ; first = false {
		p.space()
		if p.take('}') {
			if !first {
				return nil, errJSON // a comma before it
			}
			break
		}
		m := member{}
		var ok bool
		if m.name, ok = p.string(); !ok || len(all) == maxMembers {
			return nil, errJSON
		}
		p.space()
		if !p.take(':') {
			return nil, errJSON
		}
		p.space()
		if m.isList = p.take('['); m.isList {
			m.list, ok = p.list()
		} else {
			m.text, ok = p.scalar()
		}
		if !ok {
			return nil, errJSON
		}
		for _, other := range all {
			if other.name == m.name {
				return nil, errors.New("member " + strconv.Quote(m.name) + " twice")
			}
		}
		all = append(all, m)
		p.space()
		if p.take('}') {
			break
		}
		if !p.take(',') {
			return nil, errJSON
		}
	}
	p.space()
	if p.rest != "" {
		return nil, errJSON
	}
	return all, nil
}

type jsonParser struct{ rest string }

func (p *jsonParser) space() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

func (p *jsonParser) take(c byte) bool {
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// list parses the rest of a list.
func (p *jsonParser) list() ([]string, bool) {
	var all []string
	p.space()
	if p.take(']') {
		return nil, true
	}
	for len(all) < maxElements {
		p.space()
		text, ok := p.scalar()
		if !ok {
			return nil, false
		}
		all = append(all, text)
		p.space()
		if p.take(']') {
			return all, true
		}
		if !p.take(',') {
			return nil, false
		}
	}
	return nil, false
}

// scalar parses a string, a number, true or false.
func (p *jsonParser) scalar() (string, bool) {
	if strings.HasPrefix(p.rest, `"`) {
		return p.string()
	}
	n := 0
	for n < len(p.rest) && strings.IndexByte(" \t\r\n,]}", p.rest[n]) < 0 {
		n++
	}
	word := p.rest[:n]
	p.rest = p.rest[n:]
	switch word {
	case "true":
		return "yes", true
	case "false":
		return "no", true
	}
	return word, isNumber(word)
}

// isNumber reports whether s is a number of JSON (RFC 8259, section 6).
func isNumber(s string) bool {
	digits := func() int {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		s = s[n:]
		return n
	}
	s = strings.TrimPrefix(s, "-")
	zero := strings.HasPrefix(s, "0")
	if n := digits(); n == 0 || zero && n > 1 {
		return false
	}
	if rest, ok := strings.CutPrefix(s, "."); ok {
		if s = rest; digits() == 0 {
			return false
		}
	}
	if s != "" && s[0]|0x20 == 'e' {
		if s = s[1:]; s != "" && (s[0] == '+' || s[0] == '-') {
			s = s[1:]
		}
		if digits() == 0 {
			return false
		}
	}
	return s == ""
}

// string parses a string. What is no UTF-8 becomes the character that stands for it.
func (p *jsonParser) string() (string, bool) {
	if !p.take('"') {
		return "", false
	}
	var b strings.Builder
	for {
		n := 0
		for n < len(p.rest) && p.rest[n] != '"' && p.rest[n] != '\\' && p.rest[n] >= ' ' {
			n++
		}
		if n == len(p.rest) || p.rest[n] < ' ' {
			return "", false
		}
		b.WriteString(p.rest[:n])
		end := p.rest[n]
		p.rest = p.rest[n+1:]
		if end == '"' {
			return strings.ToValidUTF8(b.String(), "\uFFFD"), true
		}
		c, ok := p.escape()
		if !ok {
			return "", false
		}
		b.WriteRune(c)
	}
}

// escape parses what is behind a backslash.
func (p *jsonParser) escape() (rune, bool) {
	if p.rest == "" {
		return 0, false
	}
	c := p.rest[0]
	p.rest = p.rest[1:]
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case 'u':
		high, ok := p.hex()
		if !ok || !utf16.IsSurrogate(high) {
			return high, ok
		}
		// The second half of a pair; a half without the other is no character.
		if rest, ok := strings.CutPrefix(p.rest, `\u`); ok {
			second := jsonParser{rest}
			if low, ok := second.hex(); ok {
				if both := utf16.DecodeRune(high, low); both != utf8.RuneError {
					p.rest = second.rest
					return both, true
				}
			}
		}
		return utf8.RuneError, true
	}
	return 0, false
}

func (p *jsonParser) hex() (rune, bool) {
	if len(p.rest) < 4 || strings.Trim(p.rest[:4], "0123456789abcdefABCDEF") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(p.rest[:4], 16, 16)
	p.rest = p.rest[4:]
	return rune(n), err == nil
}

// appendString appends a string of JSON.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, c := range s { // what is no UTF-8 is U+FFFD
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c == '\n':
			b = append(b, '\\', 'n')
		case c < ' ' || c == 0x7F || c == '<':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = utf8.AppendRune(b, c)
		}
	}
	return append(b, '"')
}

// appendObject appends an object of texts: names and values in turn.
func appendObject(b []byte, pairs ...string) []byte {
	b = append(b, '{')
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(appendString(b, pairs[i]), ':'), pairs[i+1])
	}
	return append(b, '}')
}
