package firewall

import (
	"slices"
	"strings"
)

// Interfaces is a set of interfaces: those with these names or, if Not is set, all others. So
// the zero value has none, and Interfaces{Not: true} has all.
type Interfaces struct {
	Not   bool
	Names []string
}

// And returns the interfaces that are in both sets, with their names sorted.
func (s Interfaces) And(other Interfaces) Interfaces {
	if s.Not && !other.Not {
		s, other = other, s
	}
	both := Interfaces{Not: s.Not, Names: slices.Clone(s.Names)}
	if both.Not {
		both.Names = append(both.Names, other.Names...)
	} else {
		both.Names = slices.DeleteFunc(both.Names, func(name string) bool { return !other.Has(name) })
	}
	slices.Sort(both.Names)
	if both.Names = slices.Compact(both.Names); len(both.Names) == 0 {
		both.Names = nil
	}
	return both
}

// Or returns the interfaces that are in at least one of the sets, with their names sorted.
func (s Interfaces) Or(other Interfaces) Interfaces { return s.Others().And(other.Others()).Others() }

// Others returns all interfaces that are not in the set.
func (s Interfaces) Others() Interfaces { return Interfaces{!s.Not, s.Names} }

// Has reports whether an interface is in the set.
func (s Interfaces) Has(name string) bool { return slices.Contains(s.Names, name) != s.Not }

func (s Interfaces) all() bool  { return s.Not && len(s.Names) == 0 }
func (s Interfaces) none() bool { return !s.Not && len(s.Names) == 0 }

// String writes the names with commas between them, and "!" before them if Not is set.
func (s Interfaces) String() string {
	text := strings.Join(s.Names, ",")
	if s.Not {
		text = "!" + text
	}
	return text
}

// interfaces returns the interfaces by which a packet that the rule matches can come in and
// leave.
func (r *Rule) interfaces(lists map[string]Interfaces) (in, out Interfaces) {
	if strings.HasSuffix(r.IPsecPolicy, ",ipsec") {
		return in, out // there is no such packet
	}
	side := func(name, list string) Interfaces {
		return named(name, func(name string) Interfaces { return Interfaces{Names: []string{name}} }).
			And(named(list, func(name string) Interfaces { return lists[name] }))
	}
	return side(r.InInterface, r.InInterfaceList), side(r.OutInterface, r.OutInterfaceList)
}

// named returns the set that a matcher means: set of its name or, with "!" before that, all
// others. An empty matcher means all.
func named(word string, set func(name string) Interfaces) Interfaces {
	name, not := strings.CutPrefix(word, "!")
	switch {
	case name == "":
		return Interfaces{Not: true}
	case not:
		return set(name).Others()
	}
	return set(name)
}

// InInterfaces returns the interfaces by which a packet that r matches can come in.
func (c Config) InInterfaces(r Rule) Interfaces {
	in, _ := r.interfaces(c.Lists)
	return in
}
