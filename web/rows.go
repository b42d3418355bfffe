package web

import (
	"slices"
	"strconv"

	"github.com/postern-router/postern/console"
)

// idName is the name of the property that a row's ID is.
const idName = ".id"

// counters are the properties that Query looks up only by their names, since that takes time.
var counters = []string{"bytes", "packets", "hits", "rx-byte", "tx-byte", "rx-packet", "tx-packet"}

// text is a value in the form of REST: true and false, numbers without units. All else is as screens show it.
func text(v console.Value) string {
	s := v.String()
	switch v.Type {
	case console.Boolean:
		return strconv.FormatBool(v.Bool())
	case console.Integer, console.Bytes:
		// A word that stands for a number, as auto, has none.
		if n := v.Int(); n != 0 || s != "" && s[0] >= '0' && s[0] <= '9' {
			return strconv.FormatInt(n, 10)
		}
	}
	return s
}

// property returns the property of a row, in the form of REST.
func property(r console.Row, name string) (string, bool) {
	if name == idName {
		return r.ID.String(), r.ID != 0
	}
	v, ok := r.Get(name)
	return text(v), ok
}

// equals reports whether a property of r is what value says. What is unset is as good as empty.
func equals(r console.Row, name, value string) bool {
	p, ok := property(r, name)
	if !ok {
		return value == ""
	}
	v, _ := r.Get(name)
	return p == value || v.String() == value
}

// appendRow appends a row as an object: of its properties those of proplist, or all.
func appendRow(b []byte, r console.Row, proplist []string) []byte {
	b = append(b, '{')
	first := true
	add := func(name, value string) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendString(append(appendString(b, name), ':'), value)
	}
	if r.ID != 0 && (len(proplist) == 0 || slices.Contains(proplist, idName)) {
		add(idName, r.ID.String())
	}
	for _, p := range r.Pairs {
		if len(proplist) == 0 || slices.Contains(proplist, p.Name) {
			add(p.Name, text(p.Value))
		}
	}
	return append(b, '}')
}
