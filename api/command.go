package api

import (
	"hash/maphash"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-router/postern/console"
)

// The words that print takes. Those of screens (detail, without-paging) change nothing here.
var printWords = []string{".proplist", "count-only", "follow", "follow-only", "active", "from", "stats", "detail", "terse", "value-list", "brief", "without-paging"}

// monitors are the menus with a command monitor, and the properties that it shows of their rows.
var monitors = map[string][]string{
	"interface ethernet": {"name", "status"},
	"interface pppoe-client": {"status", "uptime", "active-service-name", "active-ac-name", "ac-mac", "mtu", "mru",
		"local-address", "remote-address", "primary-dns", "secondary-dns"},
}

// isEndless reports whether a command goes on until it is cancelled.
func (t *task) isEndless() bool {
	given := map[string]string{}
	for _, a := range t.arguments {
		given[a.Name] = a.Value
	}
	switch t.command {
	case "listen":
		return true
	case "print", "getall":
		return isSet(given, "follow") || isSet(given, "follow-only")
	case "monitor":
		return monitors[t.path] != nil && !isSet(given, "once")
	case monitorTraffic:
		return t.path == interfacePath && !isSet(given, "once") && given["duration"] == ""
	case "ping":
		return t.isPing() && (given["count"] == "" || given["count"] == "0")
	}
	return false
}

// run runs a command. It returns the value of its !done, if there is one.
func (t *task) run() (value string, has bool, err error) {
	switch {
	case t.path == "" && t.command == "execute":
		return t.execute()
	case t.command == "print" || t.command == "getall":
		return t.print()
	case t.command == "listen":
		return "", false, t.listen()
	case t.command == "find":
		return t.find()
	case len(t.query) > 0:
		return "", false, &trap{badValue, "a query is for print, getall, listen and find only"}
	case t.command == "get":
		return t.get()
	case t.command == "monitor" && monitors[t.path] != nil:
		return "", false, t.monitor()
	case t.command == monitorTraffic && t.path == interfacePath:
		return "", false, t.monitorTraffic()
	case t.isPing():
		return "", false, t.ping()
	}
	return t.do()
}

// do changes something.
func (t *task) do() (value string, has bool, err error) {
	err = t.withSession(func(s Session) error {
		added, err := s.Do(t.path, t.command, nil, t.arguments...)
		if added != 0 {
			value, has = added.String(), true
		}
		return err
	})
	return value, has, err
}

// selection is which rows a command is about, and what of them.
type selection struct {
	query query
	// names are the properties that are wanted; none is all.
	names []string
	// counted adds the counters to all properties. active wants only rows that are in use.
	counted, active bool
	// from are the rows that are wanted, by ID, name or place; none is all.
	from []string
}

// selected parses the arguments of a command that shows rows.
func (t *task) selected(words ...string) (given map[string]string, s selection, err error) {
	if given, err = t.take(words...); err != nil {
		return nil, s, err
	}
	if s.query, err = parseQuery(t.query); err != nil {
		return nil, s, err
	}
	for _, name := range list(given[".proplist"]) {
		if !slices.Contains(s.names, name) {
			s.names = append(s.names, name)
		}
		if len(s.names) > maxArguments {
			return nil, s, &trap{badValue, "too many properties"}
		}
	}
	asked := s.query.names()
	if len(asked) > maxArguments {
		return nil, s, &trap{badValue, "too many query words"}
	}
	s.counted = isSet(given, "stats") || t.path == interfacePath ||
		slices.ContainsFunc(asked, func(n string) bool { return slices.Contains(counters, n) })
	s.active = isSet(given, "active")
	s.from = list(given["from"])
	return given, s, nil
}

// rows calls each with the rows of a selection.
func (t *task) rows(s selection, each func(row) error) error {
	var wanted []string
	if len(s.names) > 0 {
		wanted = slices.Concat(s.names, s.query.names())
		if s.active {
			wanted = append(wanted, "active", "status")
		}
		if len(s.from) > 0 {
			wanted = append(wanted, "name")
		}
		wanted = queried(wanted)
	}
	found := make([]bool, len(s.from))
	place := 0
	err := t.withSession(func(session Session) error {
		counts := map[console.ID][]property{}
		if s.counted && len(s.names) == 0 {
			err := session.Query(t.path, nil, counters, func(r console.Row) error {
				counts[r.ID] = newRow(t.path, r).properties
				return t.ctx.Err()
			})
			if err != nil {
				return err
			}
		}
		return session.Query(t.path, nil, wanted, func(r console.Row) error {
			if err := t.ctx.Err(); err != nil {
				return err
			}
			row := newRow(t.path, r)
			row.properties = append(row.properties, counts[r.ID]...)
			isFrom := row.isOneOf(s.from, place, found)
			place++
			if !isFrom || s.active && !row.isActive() || !s.query.matches(row) {
				return nil
			}
			return each(row)
		})
	})
	if err == nil && slices.Contains(found, false) {
		return errNoItem
	}
	return err
}

// isOneOf reports whether some of words, or no words at all, mean the row at that place, and notes which do.
func (r row) isOneOf(words []string, place int, found []bool) bool {
	name, named := r.get("name")
	is := len(words) == 0
	for i, w := range words {
		if r.id != 0 && idMeans(w, r.id) || named && name.text == w || w == strconv.Itoa(place) {
			is, found[i] = true, true
		}
	}
	return is
}

func idMeans(word string, id console.ID) bool {
	parsed, err := console.ParseID(word)
	return err == nil && parsed == id
}

// isActive reports whether a row is in use: a route, or a lease that a host has.
func (r row) isActive() bool {
	if p, ok := r.get("active"); ok {
		return p.text == "true"
	}
	p, ok := r.get("status")
	return ok && p.text == "bound"
}

// send sends a row: the properties that are named, or all; more are names and values behind them.
func (t *task) send(r row, names []string, more ...string) error {
	pairs := make([]Pair, 0, len(r.properties)+1+len(more)/2)
	if len(names) == 0 {
		if r.id != 0 {
			pairs = append(pairs, Pair{idName, r.id.String()})
		}
		for _, p := range r.properties {
			pairs = append(pairs, Pair{p.name, p.text})
		}
	}
	for _, name := range names {
		if p, ok := r.get(name); ok {
			pairs = append(pairs, Pair{name, p.text})
		}
	}
	for i := 0; i < len(more); i += 2 {
		pairs = append(pairs, Pair{more[i], more[i+1]})
	}
	if t.show != nil {
		return t.show(r.id, pairs)
	}
	b := t.replyHead("!re")
	for _, p := range pairs {
		b = appendWord(b, "=", p.Name, "=", p.Value)
	}
	return t.out.send(false, append(b, 0))
}

func (t *task) print() (value string, has bool, err error) {
	given, s, err := t.selected(printWords...)
	if err != nil {
		return "", false, err
	}
	switch {
	case isSet(given, "follow-only"):
		return "", false, t.follow(s, false)
	case isSet(given, "follow"):
		return "", false, t.follow(s, true)
	case isSet(given, "count-only"):
		n := 0
		err = t.rows(s, func(row) error { n++; return nil })
		return strconv.Itoa(n), err == nil, err
	}
	return "", false, t.rows(s, func(r row) error { return t.send(r, s.names) })
}

func (t *task) listen() error {
	_, s, err := t.selected(".proplist", "stats", "detail")
	if err != nil {
		return err
	}
	return t.follow(s, false)
}

// maxFollowed is how many rows a listen can be about: it keeps 16 bytes of each.
const maxFollowed = 4096

// passing are properties that change while nothing happens. A listen does not tell of it.
var passing = append([]string{"uptime", "expires-after", "last-seen", "age", "timeout", "ttl", "cpu-load", "free-memory", "time", "cache-used"}, counters...)

// follow tells of each change of the rows, until the command is cancelled; if all is set, of all rows first.
// Of a row that has gone it tells the ID.
func (t *task) follow(s selection, all bool) error {
	seed := maphash.MakeSeed()
	var known map[console.ID]uint64
	for {
		now := make(map[console.ID]uint64, len(known))
		err := t.rows(s, func(r row) error {
			if len(now) == maxFollowed {
				return &trap{general, "failure: too many items to listen to: " + strconv.Itoa(maxFollowed) + " at most"}
			}
			sum := r.sum(seed, s.names)
			now[r.id] = sum
			before, was := known[r.id]
			if known == nil && all || known != nil && (!was || before != sum) {
				return t.send(r, s.names)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for id := range known {
			if _, is := now[id]; !is && id != 0 {
				if err := t.out.send(false, t.reply("!re", idName, id.String(), ".dead", "true")); err != nil {
					return err
				}
			}
		}
		known = now
		if err := t.pause(); err != nil {
			return err
		}
	}
}

// pause sends what there is, and waits for the next look.
func (t *task) pause() error {
	if err := t.out.send(true, nil); err != nil {
		return err
	}
	return t.wait(pollTime)
}

// sum is a hash of what a listen tells of a row.
func (r row) sum(seed maphash.Seed, names []string) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, p := range r.properties {
		if len(names) > 0 && !slices.Contains(names, p.name) || slices.Contains(passing, p.name) {
			continue
		}
		_, _ = h.WriteString(p.name) // never fails
		_ = h.WriteByte(0)
		_, _ = h.WriteString(p.text)
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}

// find returns the IDs of rows.
func (t *task) find() (value string, has bool, err error) {
	_, s, err := t.selected()
	if err != nil {
		return "", false, err
	}
	s.names = []string{idName}
	var ids []string
	err = t.rows(s, func(r row) error {
		if r.id != 0 {
			ids = append(ids, r.id.String())
		}
		return nil
	})
	return strings.Join(ids, ";"), err == nil, err
}

// get returns a property of a row, or all of them.
func (t *task) get() (value string, has bool, err error) {
	given, err := t.take(idName, "numbers", "value-name")
	if err != nil {
		return "", false, err
	}
	s := selection{}
	if which := given[idName] + given["numbers"]; which != "" {
		s.from = []string{which}
	}
	name, one := given["value-name"]
	if one {
		s.names = []string{name}
	}
	rows := 0
	err = t.rows(s, func(r row) error {
		if rows++; rows > 1 || len(s.from) == 0 && r.id != 0 {
			return &trap{missing, "expected item id"}
		}
		if one {
			p, _ := r.get(name)
			value = p.text
			return nil
		}
		var all []string
		if r.id != 0 {
			all = append(all, idName+"="+r.id.String())
		}
		for _, p := range r.properties {
			all = append(all, p.name+"="+p.text)
		}
		value = strings.Join(all, ";")
		return nil
	})
	if err == nil && rows == 0 {
		err = errNoItem
	}
	return value, err == nil, err
}

// monitor shows what some interfaces do, once or each second until it is cancelled.
func (t *task) monitor() error {
	given, err := t.take(idName, "numbers", "once", ".proplist")
	if err != nil {
		return err
	}
	s := selection{from: slices.Concat(list(given[idName]), list(given["numbers"]))}
	if len(s.from) == 0 {
		return &trap{missing, "expected item id"}
	}
	names := monitors[t.path]
	if wanted := list(given[".proplist"]); len(wanted) > 0 {
		names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !slices.Contains(wanted, n) })
	}
	once := isSet(given, "once")
	for section := 0; ; section++ {
		var more []string
		if !once {
			more = []string{".section", strconv.Itoa(section)}
		}
		err := t.rows(s, func(r row) error {
			if running, ok := r.get("running"); ok && t.path == "interface ethernet" {
				status := "no-link"
				if running.text == "true" {
					status = "link-ok"
				}
				r.properties = append(r.properties, property{name: "status", text: status})
			}
			return t.send(r, names, more...)
		})
		if err != nil || once {
			return err
		}
		if err := t.pause(); err != nil {
			return err
		}
	}
}

// maxScript bounds what the output of a script can have.
const maxScript = 64 << 10

// execute runs a line of the console. Its output is the value, if that is wanted; else the value is the number of
// the job, which has ended.
func (t *task) execute() (value string, has bool, err error) {
	given, err := t.take("script", "as-string")
	if err != nil {
		return "", false, err
	}
	var out strings.Builder
	err = t.withSession(func(s Session) error {
		return s.Execute(given["script"], func(text string) error {
			if out.Len()+len(text) > maxScript {
				return &trap{general, "failure: the output is too long"}
			}
			out.WriteString(text)
			return nil
		})
	})
	if _, wanted := given["as-string"]; wanted {
		return strings.TrimRight(out.String(), "\r\n"), err == nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.jobs++
	return console.ID(t.jobs).String(), err == nil, err
}
