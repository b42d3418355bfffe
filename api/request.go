package api

import (
	"strings"

	"github.com/postern-router/postern/console"
)

// category is the kind of an error, which clients get with it.
type category int

const (
	missing     category = 0 // a menu, a command or an item
	badValue    category = 1
	interrupted category = 2
	general     category = 4
	protocol    category = 5
	// noCategory is that of errors that RouterOS sends without one.
	noCategory category = -1
)

// trap is an error as clients get it.
type trap struct {
	category category
	message  string
}

func (t *trap) Error() string { return t.message }

const (
	// maxArguments is how many arguments a command can have.
	maxArguments = 200
	// maxTag is the greatest length of a tag, which each reply repeats.
	maxTag = 255
)

// argument is an argument of a command.
type argument = console.Argument

// request is a sentence of a client.
type request struct {
	// path is the menu, its words separated by blanks.
	path, command string
	// tag is what marks the replies, if tagged.
	tag       string
	tagged    bool
	arguments []argument
	query     []string
}

// parseRequest parses a sentence of at least one word. The request has its tag also if there is an error.
func parseRequest(words []string) (request, error) {
	var r request
	places := map[string]int{}
	var bad error
	for _, word := range words[1:] {
		switch {
		case strings.HasPrefix(word, "="):
			a := argument{}
			a.Name, a.Value, _ = strings.Cut(word[1:], "=")
			if a.Name == "" {
				bad = &trap{protocol, "expected =name=value"}
				continue
			}
			if i, twice := places[a.Name]; twice { // the last one counts
				r.arguments[i] = a
				continue
			}
			if len(r.arguments) == maxArguments {
				bad = &trap{badValue, "too many arguments"}
				continue
			}
			places[a.Name] = len(r.arguments)
			r.arguments = append(r.arguments, a)
		case strings.HasPrefix(word, "?"):
			r.query = append(r.query, word)
		case strings.HasPrefix(word, ".tag="):
			r.tag, r.tagged = word[len(".tag="):], true
		default:
			bad = &trap{protocol, "unknown word " + console.Printable(word) + "; expected =name=value, ?query or .tag=name"}
		}
	}
	if len(r.tag) > maxTag {
		r.tag, bad = r.tag[:maxTag], &trap{protocol, "tag too long"}
	}
	if bad != nil {
		return r, bad
	}
	parts := strings.Split(words[0], "/")
	if len(parts) < 2 || parts[0] != "" || strings.ContainsAny(words[0], " \t\r\n") {
		return r, errNoCommand
	}
	last := len(parts) - 1
	for _, p := range parts[1:] {
		if p == "" {
			return r, errNoCommand
		}
	}
	r.path, r.command = strings.Join(parts[1:last], " "), parts[last]
	return r, nil
}

var (
	errNoPrefix  = &trap{missing, console.ErrNoSuchMenu.Error()}
	errNoCommand = &trap{missing, console.ErrNoSuchCommand.Error()}
	errNoItem    = &trap{missing, console.ErrNoSuchItem.Error()}
	errCancelled = &trap{interrupted, "interrupted"}
)

// take removes the arguments of these names and returns their values. The others are an error.
func (r *request) take(names ...string) (map[string]string, error) {
	given := map[string]string{}
	for _, a := range r.arguments {
		known := false
		for _, name := range names {
			known = known || a.Name == name
		}
		if !known {
			return nil, &trap{badValue, "unknown parameter " + console.Printable(a.Name) + "; expected one of " + strings.Join(names, ", ")}
		}
		given[a.Name] = a.Value
	}
	return given, nil
}

// isSet reports whether a word such as detail is given, and is not no.
func isSet(given map[string]string, name string) bool {
	v, ok := given[name]
	return ok && v != "no" && v != "false"
}

// list are the parts of a list separated by commas; none, if it is empty.
func list(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}
