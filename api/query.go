package api

import (
	"cmp"
	"strings"

	"github.com/postern-router/postern/console"
)

// query is the words of a request that begin with a question mark: a program for a stack of truth values,
// which says whether a row is wanted. Below what the program has pushed the stack has trues without end.
type query []step

// step is one word of a query.
type step struct {
	// test is what the word pushes: '+' whether the row has the property, '-' whether it has not, '='
	// whether it has that value, '<' and '>' whether its value is less or greater. '#' is operations on the
	// stack instead, which are value.
	test        byte
	name, value string
}

const (
	// maxSteps is how many words a query can have, and maxOperations how many operations in all: they are
	// done again for each row.
	maxSteps      = 256
	maxOperations = 1024
)

// parseQuery parses the words of a query.
func parseQuery(words []string) (query, error) {
	if len(words) > maxSteps {
		return nil, &trap{badValue, "too many query words"}
	}
	var q query
	operations := 0
	for _, word := range words {
		text := strings.TrimPrefix(word, "?")
		if operators, ok := strings.CutPrefix(text, "#"); ok {
			operations += len(operators)
			if strings.Trim(operators, "0123456789.!&|") != "" || operations > maxOperations {
				return nil, badQuery(word)
			}
			q = append(q, step{test: '#', value: operators})
			continue
		}
		s := step{test: '='}
		var hasValue bool
		if text != "" && strings.IndexByte("-=<>", text[0]) >= 0 {
			s.test, text = text[0], text[1:]
		}
		if s.test == '-' {
			s.name = text
		} else if s.name, s.value, hasValue = strings.Cut(text, "="); !hasValue {
			if s.test != '=' || strings.HasPrefix(word, "?=") {
				return nil, badQuery(word)
			}
			s.test = '+'
		}
		if s.name == "" {
			return nil, badQuery(word)
		}
		q = append(q, s)
	}
	return q, nil
}

func badQuery(word string) error {
	return &trap{badValue, "invalid query " + console.Printable(word) + "; expected ?name, ?-name, ?name=value, ?<name=value, ?>name=value or ?# with ! & | . and indices"}
}

// names are the properties that q is about.
func (q query) names() []string {
	var names []string
	for _, s := range q {
		if s.test != '#' {
			names = append(names, s.name)
		}
	}
	return names
}

// matches reports whether q wants a row.
func (q query) matches(r row) bool {
	var s stack
	for _, step := range q {
		if step.test == '#' {
			s.operate(step.value)
			continue
		}
		p, has := r.get(step.name)
		switch step.test {
		case '+':
			s.push(has)
		case '-':
			s.push(!has)
		case '=':
			// What is unset is as good as empty.
			s.push(has && p.equals(step.value) || !has && step.value == "")
		case '<':
			s.push(has && p.compare(step.value) < 0)
		case '>':
			s.push(has && p.compare(step.value) > 0)
		}
	}
	for _, v := range s {
		if !v {
			return false
		}
	}
	return true
}

// stack is truth values, the top at the end.
type stack []bool

func (s *stack) push(v bool) { *s = append(*s, v) }

func (s *stack) pop() bool {
	v := s.at(0)
	if len(*s) > 0 {
		*s = (*s)[:len(*s)-1]
	}
	return v
}

// at is a value by its index; the top has 0.
func (s *stack) at(index int) bool {
	if index >= len(*s) {
		return true
	}
	return (*s)[len(*s)-1-index]
}

// operate does the operations of one word.
func (s *stack) operate(operations string) {
	for i := 0; i < len(operations); i++ {
		switch c := operations[i]; c {
		case '!':
			s.push(!s.pop())
		case '&':
			a, b := s.pop(), s.pop()
			s.push(a && b)
		case '|':
			a, b := s.pop(), s.pop()
			s.push(a || b)
		case '.':
			if i == 0 || !isDigit(operations[i-1]) {
				s.push(s.at(0))
			}
		default:
			index := 0
			for ; i < len(operations) && isDigit(operations[i]); i++ {
				index = min(index*10+int(operations[i]-'0'), maxOperations+maxSteps)
			}
			v := s.at(index)
			if i == len(operations) {
				*s = (*s)[:0]
			}
			s.push(v)
			i--
		}
	}
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// row is a row in the API's form.
type row struct {
	id         console.ID
	properties []property
}

// property is a property of a row: its text in the API's form, and its value.
type property struct {
	name, text string
	value      console.Value
}

// get returns the property of that name, if there is one.
func (r row) get(name string) (property, bool) {
	if name == idName && r.id != 0 {
		return property{name: idName, text: r.id.String()}, true
	}
	for _, p := range r.properties {
		if p.name == name {
			return p, true
		}
	}
	return property{}, false
}

// equals reports whether p has the value that text means: 1m for 60s, yes for true.
func (p property) equals(text string) bool {
	if p.text == text || p.value.String() == text {
		return true
	}
	if p.name == idName {
		id, err := console.ParseID(text)
		return err == nil && id.String() == p.text
	}
	switch p.value.Type {
	case console.Integer, console.Bytes, console.Duration:
		order, ok := p.value.Compare(text)
		return ok && order == 0
	}
	return false
}

// compare orders p and text: numbers, times and addresses by their value, all else as texts.
func (p property) compare(text string) int {
	if order, ok := p.value.Compare(text); ok {
		return order
	}
	return cmp.Compare(p.text, text)
}
