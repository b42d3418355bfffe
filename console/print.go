package console

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// row is an item on the screen.
type row struct {
	// key is what the number of the row will refer to; nil for what cannot be changed.
	key     any
	flags   string
	comment string
	fields  []pair
	line    string // of the log
}

type pair struct{ name, value string }

// value is what the row has by that name.
func (r row) value(name string) string {
	if name == "comment" {
		return r.comment
	}
	for _, f := range r.fields {
		if f.name == name {
			return f.value
		}
	}
	return ""
}

// flag is the letter of the flag of that name in m, 0 if there is none.
func (m *menu) flag(name string) byte {
	if i := strings.Index(m.legend+",", " - "+name+","); i > 0 {
		return m.legend[i-1]
	}
	return 0
}

// rows are what a menu lists: what the system made, then the items.
func (x *execution) rows(m *menu) ([]row, error) {
	var rows []row
	if m.dynamic != nil {
		var err error
		if rows, err = m.dynamic(x); err != nil {
			return nil, err
		}
		for i := range rows {
			rows[i].flags = cmp.Or(rows[i].flags, "D")
		}
	}
	items, err := x.itemRows(m)
	return append(rows, items...), err
}

// itemRows are the items of the configuration; or for a menu of what is live, that.
func (x *execution) itemRows(m *menu) ([]row, error) {
	if m.rows != nil {
		return m.rows(x)
	}
	return x.configured(m), nil
}

// configured are the items of the configuration.
func (x *execution) configured(m *menu) []row {
	var rows []row
	known := x.interfaceNames()
	invalid := x.invalid(m)
	for i := range m.items.count(&x.cfg) {
		r := row{key: (*m.items.ids(&x.cfg))[i]}
		for _, p := range m.properties {
			value := p.get(&x.cfg, i)
			switch {
			case p.name == "disabled":
				if value == "yes" {
					r.flags = "X"
				}
				continue
			case p.name == "comment":
				r.comment = value
				continue
			case p.names && value != "" && known != nil && !slices.Contains(known, strings.TrimPrefix(value, "!")):
				r.flags = "I"
			}
			if value != "" {
				r.fields = append(r.fields, pair{p.name, value})
			}
		}
		for _, p := range m.readOnly {
			if p.of != nil {
				r.fields = append(r.fields, pair{p.name, p.of(&x.cfg, i)})
			}
		}
		if r.flags == "" && slices.Contains(invalid, r.key) {
			r.flags = "I"
		}
		if p, ok := m.property("disabled"); ok && p.get(&x.cfg, i) == "yes" {
			r.flags = "X"
		}
		rows = append(rows, r)
	}
	return rows
}

// invalid are the identities of those items of m that have no effect.
func (x *execution) invalid(m *menu) []any {
	if x.live.Invalid == nil {
		return nil
	}
	indices, err := x.live.Invalid(m.path)
	if err != nil {
		return nil // as with interfaceNames
	}
	before := *m.items.ids(&Config{ids: x.before})
	var invalid []any
	for _, i := range indices {
		if i >= 0 && i < len(before) {
			invalid = append(invalid, before[i])
		}
	}
	return invalid
}

// asked are the names that a condition may have in m.
func (m *menu) asked() []string {
	var names []string
	for _, p := range m.shown() {
		names = append(names, p.Name)
	}
	return names
}

// shown is what the items of m have, with help.
func (m *menu) shown() []Choice {
	var all []Choice
	readOnly := func(counted bool) {
		for _, p := range m.readOnly {
			if p.counted == counted {
				all = append(all, Choice{p.name, p.help})
			}
		}
	}
	readOnly(false)
	for _, p := range m.properties {
		if !p.sensitive && p.hashed == nil {
			all = append(all, Choice{p.name, p.help})
		}
	}
	readOnly(true)
	if m.gathers {
		all = append(all, Choice{"disabled", "whether it is kept without effect"}, Choice{"comment", "a note for people"})
	}
	for _, flag := range []Choice{
		{"invalid", "whether it has no effect for lack of something"},
		{"active", "whether it is the one in use"},
		{"dynamic", "whether the system made it"},
		{"running", "whether there is a carrier"},
		{"slave", "whether it is a port of a bridge"},
		{"complete", "whether the hardware address is known"},
		{"connect", "whether it is the network of an address"},
		{"static", "whether a gateway was set for it"},
	} {
		if m.flag(flag.Name) != 0 {
			all = append(all, flag)
		}
	}
	return all
}

// print lists what a menu has.
func (x *execution) print(m *menu, a arguments) error {
	x.result.Repeat = a.interval
	rows, err := x.rows(m)
	if err != nil {
		return err
	}
	columns := m.columns
	if slices.Contains(a.words, statsWord.Name) {
		if err := m.stats(x, m, rows); err != nil {
			return err
		}
		columns = m.statColumns
	}
	if rows, err = x.matching(m, rows, a.where); err != nil {
		return err
	}
	if slices.Contains(a.words, countWord.Name) {
		fmt.Fprintln(&x.out, len(rows))
		return nil
	}
	if m.items != nil || m.gathers {
		keys := make([]any, len(rows))
		for i, r := range rows {
			keys[i] = r.key
		}
		x.numbers[m.path] = keys
	}
	follow := slices.Contains(a.words, followWord.Name)
	if follow {
		rows = x.news(rows)
		x.result.Repeat, x.result.Follow = cmp.Or(a.interval, time.Second), true
		if x.repeated && len(rows) == 0 {
			return nil
		}
	}
	if m.legend != "" && !(follow && x.repeated) && !slices.Contains(a.words, terseWord.Name) {
		x.out.WriteString(wrap(strings.Split(strings.ReplaceAll(m.legend, ", ", ",\n"), "\n"), x.width-1, "", "", "       "))
	}
	switch {
	case slices.Contains(a.words, terseWord.Name):
		x.terse(m, rows)
	case columns == nil, slices.Contains(a.words, detailWord.Name), !x.table(m, columns, rows):
		x.wrapped(m, rows)
	}
	return nil
}

// news are the rows of a table that were not there when the line was run before: each
// is known by the first of its fields, the addresses.
func (x *execution) news(rows []row) []row {
	var now []string
	fresh := slices.DeleteFunc(slices.Clone(rows), func(r row) bool {
		var known strings.Builder
		for _, f := range r.fields {
			if strings.HasSuffix(f.name, "address") || f.name == "protocol" {
				known.WriteString(f.value + " ")
			}
		}
		now = append(now, known.String())
		return slices.Contains(x.seen, known.String())
	})
	x.seen = now
	return fresh
}

// printScreen prints the properties of a menu without items.
func (x *execution) printScreen(m *menu, a arguments) error {
	x.result.Repeat = a.interval
	x.screen(m)
	if m.warning != nil {
		if text := m.warning(x); text != "" {
			x.out.WriteString(wrap(strings.Fields(text), x.width-1, ";;; ", "", ";;; "))
		}
	}
	return nil
}

// screen prints properties, names to the right:
//
//	                enabled: yes
//	                   port: 1080
//	connection-idle-timeout: 2m
func (x *execution) screen(m *menu) {
	var lines []pair
	for _, p := range m.properties {
		lines = append(lines, pair{p.name, p.get(&x.cfg, 0)})
	}
	x.pairs(m.indent, lines)
}

// pairs prints names, aligned to the right behind the indent, with values.
func (x *execution) pairs(indent int, lines []pair) {
	width := 0
	for _, l := range lines {
		width = max(width, len(l.name))
	}
	for _, l := range lines {
		line := fmt.Sprintf("%*s: %s", width+indent, l.name, Printable(l.value))
		fmt.Fprintln(&x.out, strings.TrimRight(line, " "))
	}
}

// words are the fields of a row as property=value.
func (r row) words() []string {
	var words []string
	for _, f := range r.fields {
		words = append(words, f.name+"="+quote(f.value))
	}
	return words
}

// wrapped prints items as property=value:
//
//	0   chain=srcnat action=masquerade src-address=192.168.0.0/24
func (x *execution) wrapped(m *menu, rows []row) {
	for i, r := range rows {
		first := prefixOf(len(rows), fmt.Sprint(i), m.flags, r.flags)
		blank := strings.Repeat(" ", len(first))
		if r.comment != "" {
			fmt.Fprintf(&x.out, "%s;;; %s\n", first, Printable(r.comment))
			first = blank
		}
		// Not every terminal can end a line behind its last column.
		x.out.WriteString(wrap(r.words(), x.width-1, first, "", blank))
	}
}

// terse prints items in one line each, whatever their length.
func (x *execution) terse(m *menu, rows []row) {
	for i, r := range rows {
		words := r.words()
		if r.comment != "" {
			words = append([]string{"comment=" + quote(r.comment)}, words...)
		}
		x.out.WriteString(wrap(words, 0, prefixOf(len(rows), fmt.Sprint(i), m.flags, r.flags), "", ""))
	}
}

// wrap joins words to lines of at most width columns, if width is above 0. The first
// line begins with first, the others with indent; a line that goes on ends with more.
func wrap(words []string, width int, first, more, indent string) string {
	var b strings.Builder
	line, empty := first, true
	for _, w := range words {
		if !empty && width > 0 && len([]rune(line))+1+len([]rune(w))+len(more) > width {
			b.WriteString(line + more + "\n")
			line, empty = indent, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+w, false
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
	return b.String()
}

// prefixOf is what stands before an item that is one of count: its number and, in
// so many columns as there are kinds of flags, its flags.
func prefixOf(count int, number string, flags int, set string) string {
	width := max(2, len(fmt.Sprint(count-1)))
	s := fmt.Sprintf("%*s ", width, number)
	if flags > 0 {
		s += fmt.Sprintf("%-*s ", flags, set)
	}
	return s
}

// table prints rows under the titles of columns. If the terminal is too narrow for
// their usual widths, they are only as wide as they must be; if it is too narrow for
// that as well, table prints nothing and returns false.
func (x *execution) table(m *menu, columns []column, rows []row) bool {
	head := prefixOf(len(rows), "#", m.flags, "")
	texts := make([][]string, len(rows)+1)
	widths := make([]int, len(columns))
	usual, needed := len(head)-1, len(head)-1
	for i, c := range columns {
		texts[0] = append(texts[0], strings.ToUpper(c.name))
		for j, r := range rows {
			texts[j+1] = append(texts[j+1], Printable(r.value(c.name)))
		}
		for _, line := range texts {
			widths[i] = max(widths[i], len([]rune(line[i])))
		}
		usual += 1 + max(c.width, widths[i])
		needed += 1 + widths[i]
	}
	if x.width > 0 && needed >= x.width {
		return false
	}
	if x.width == 0 || usual < x.width {
		for i, c := range columns {
			widths[i] = c.width
		}
	}
	if !x.repeated || !x.result.Follow { // it stands above
		x.cells(head, widths, texts[0])
	}
	for i, r := range rows {
		first := prefixOf(len(rows), fmt.Sprint(i), m.flags, r.flags)
		if r.comment != "" {
			fmt.Fprintf(&x.out, "%s;;; %s\n", first, Printable(r.comment))
			first = strings.Repeat(" ", len(first))
		}
		x.cells(first, widths, texts[i+1])
	}
	return true
}

func (x *execution) cells(first string, widths []int, cells []string) {
	line := first
	for i, width := range widths {
		line += fmt.Sprintf("%-*s ", width, cells[i])
	}
	fmt.Fprintln(&x.out, strings.TrimRight(line, " "))
}

// unavailable is the error of what Live does not tell.
func unavailable(what string) error { return fmt.Errorf("failure: %s unavailable", what) }

var (
	ruleColumns   = []column{{"chain", 22}, {"action", 23}, {"bytes", 20}, {"packets", 0}}
	accessColumns = []column{{"src-address", 18}, {"dst-address", 18}, {"dst-port", 11}, {"action", 6}, {"hits", 0}}
)

// counted finds the rows of the items of m, of which there are n counters. It is an
// error if they do not belong together: the rules are not in force, or the line that
// is being run has changed them.
func (x *execution) counted(m *menu, rows []row, n int) ([]row, error) {
	ids := *m.items.ids(&x.cfg)
	if n != len(ids) || !slices.Equal(ids, *m.items.ids(&Config{ids: x.before})) {
		return nil, unavailable("counters")
	}
	return rows[len(rows)-n:], nil
}

// ruleStats adds to rows what each firewall rule has matched.
func (x *execution) ruleStats(m *menu, rows []row) error {
	if x.live.Counters == nil {
		return unavailable("counters")
	}
	counters, nat, err := x.live.Counters()
	if err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	if m.name() == "nat" {
		counters = nat
	}
	rules, err := x.counted(m, rows, len(counters))
	if err != nil {
		return err
	}
	for i, c := range counters {
		rules[i].fields = append(rules[i].fields, pair{"bytes", fmt.Sprint(c.Bytes)}, pair{"packets", fmt.Sprint(c.Packets)})
	}
	return nil
}

// accessStats adds to rows how many requests each access rule has decided.
func (x *execution) accessStats(m *menu, rows []row) error {
	if x.live.Hits == nil {
		return unavailable("counters")
	}
	hits, err := x.live.Hits()
	if err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	rules, err := x.counted(m, rows, len(hits))
	if err != nil {
		return err
	}
	for i, n := range hits {
		rules[i].fields = append(rules[i].fields, pair{"hits", fmt.Sprint(n)})
	}
	return nil
}

// openings are the ports that BIND has open, as the rules that let callers in.
func (x *execution) openings() ([]row, error) {
	if x.live.Openings == nil {
		return nil, nil
	}
	var rows []row
	for _, o := range x.live.Openings() {
		r := row{comment: "socks bind", fields: []pair{{"chain", "input"}, {"action", "accept"}}}
		if o.Peer.IsValid() && !o.Peer.IsUnspecified() {
			r.fields = append(r.fields, pair{"src-address", o.Peer.String()})
		}
		if o.Local.IsValid() && !o.Local.IsUnspecified() {
			r.fields = append(r.fields, pair{"dst-address", o.Local.String()})
		}
		r.fields = append(r.fields, pair{"dst-port", fmt.Sprint(o.Port)}, pair{"protocol", "tcp"})
		rows = append(rows, r)
	}
	return rows, nil
}

func (x *execution) dynamicAddresses() ([]row, error) {
	if x.live.Addresses == nil {
		return nil, nil
	}
	addresses, err := x.live.Addresses()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var rows []row
	for _, a := range addresses {
		rows = append(rows, row{fields: []pair{{"address", a.Address.String()}, {"interface", x.cfg.Called(a.Interface)},
			{"network", a.Address.Masked().Addr().String()}}})
	}
	return rows, nil
}

// routeRows are the routes that the system made, and those of the configuration. Of the
// routes to one destination that the kernel has, the one of the least distance is active.
// Those that are set are there if the kernel cannot be asked, too.
func (x *execution) routeRows() (made, set []row, err error) {
	set = x.configured(x.menu("ip route"))
	for i := range set {
		set[i].flags = fmt.Sprintf("%-2sS", set[i].flags)
	}
	if x.live.Routes == nil {
		return nil, set, nil
	}
	routes, err := x.live.Routes()
	if err != nil {
		return nil, set, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		gateway, flags := x.cfg.Called(r.Interface), " DC"
		if r.Gateway.IsValid() {
			gateway, flags = r.Gateway.String(), " DS"
		}
		made = append(made, row{flags: flags, fields: []pair{{"dst-address", r.Destination.String()}, {"gateway", gateway},
			{"distance", fmt.Sprint(r.Distance)}}})
	}
	best := map[string]*row{}
	for _, rows := range [][]row{made, set} {
		for i := range rows {
			r := &rows[i]
			b := best[r.value("dst-address")]
			if r.flags[0] == ' ' && (b == nil || r.distance() < b.distance()) {
				best[r.value("dst-address")] = r
			}
		}
	}
	for _, r := range best {
		r.flags = "A" + r.flags[1:]
	}
	return made, set, nil
}

func (r row) distance() int64 {
	n, _ := decimal(r.value("distance")) // it is one
	return n
}

// connectionRows are the connections through the SOCKS server.
func (x *execution) connectionRows() ([]row, error) {
	if x.live.Connections == nil {
		return nil, unavailable("connections")
	}
	connections, err := x.live.Connections()
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	rows := make([]row, len(connections))
	for i, c := range connections {
		fields := []pair{{"src-address", c.Src.String()}}
		if c.Dst.IsValid() { // it is not before the client's request
			fields = append(fields, pair{"dst-address", c.Dst.String()})
		}
		fields = append(fields, pair{"type", string(c.Type)}, pair{"tx", fmt.Sprint(c.Tx)}, pair{"rx", fmt.Sprint(c.Rx)},
			pair{"age", formatDuration(c.Age.Truncate(time.Second))}, pair{"idle", formatDuration(c.Idle.Truncate(time.Second))})
		if c.UserID != "" {
			fields = append(fields, pair{"user-id", c.UserID})
		}
		rows[i].fields = fields
	}
	return rows, nil
}

func (x *execution) neighborRows() ([]row, error) {
	neighbors, err := x.live.Neighbors()
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	rows := make([]row, len(neighbors))
	for i, n := range neighbors {
		rows[i] = row{flags: "D", fields: []pair{{"address", n.Address.String()}}}
		if mac := macText(n.MAC); mac != "" {
			rows[i].flags = "DC"
			rows[i].fields = append(rows[i].fields, pair{"mac-address", mac})
		}
		rows[i].fields = append(rows[i].fields, pair{"interface", x.cfg.Called(n.Interface)})
	}
	return rows, nil
}

func (x *execution) trackedRows() ([]row, error) {
	tracked, err := x.live.Tracked()
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	rows := make([]row, len(tracked))
	for i, c := range tracked {
		end := func(name string, a, b string, port uint16) pair {
			if port == 0 { // as with icmp
				return pair{name, a}
			}
			return pair{name, b}
		}
		rows[i].fields = []pair{{"protocol", c.Protocol},
			end("src-address", c.Src.Addr().String(), c.Src.String(), c.Src.Port()),
			end("dst-address", c.Dst.Addr().String(), c.Dst.String(), c.Dst.Port())}
		if c.State != "" {
			rows[i].fields = append(rows[i].fields, pair{"tcp-state", c.State})
		}
		rows[i].fields = append(rows[i].fields, pair{"timeout", formatDuration(c.Timeout.Truncate(time.Second))})
	}
	return rows, nil
}

func (x *execution) userRows() ([]row, error) {
	return []row{{fields: []pair{{"name", Admin}, {"group", "full"}}}}, nil
}

func (x *execution) printResource(_ *menu, a arguments) error {
	x.result.Repeat = a.interval
	if x.live.Resource == nil {
		return unavailable("resource")
	}
	r, err := x.live.Resource()
	if err != nil {
		return fmt.Errorf("read resource: %w", err)
	}
	mebibytes := func(bytes uint64) string { return fmt.Sprintf("%.1fMiB", float64(bytes)/(1<<20)) }
	x.pairs(2, []pair{
		{"uptime", formatDuration(r.Uptime.Truncate(time.Second))},
		{"version", r.Version},
		{"free-memory", mebibytes(r.FreeMemory)},
		{"total-memory", mebibytes(r.TotalMemory)},
		{"cpu-count", fmt.Sprint(r.CPUCount)},
		{"cpu-load", fmt.Sprintf("%.2f%%", 100*r.CPULoad)},
		{"architecture-name", r.Architecture},
		{"board-name", r.Board},
	})
	return nil
}

// clock is what /system clock was told to be: the zero time and noTime leave a part
// as it is.
type clock struct {
	date time.Time
	time time.Duration
}

const noTime = -1

func (x *execution) printClock(_ *menu, a arguments) error {
	x.result.Repeat = a.interval
	day, since := x.now()
	x.pairs(2, []pair{{"time", timeOfDay().format(since)}, {"date", date().format(day)},
		{"time-zone-name", "manual"}, {"gmt-offset", offset().format(x.cfg.TimeZone)}})
	return nil
}

func (x *execution) setClock(_ *menu, a arguments) error {
	day, since := x.now()
	if !a.clock.date.IsZero() {
		day = a.clock.date
	}
	if a.clock.time != noTime {
		since = a.clock.time
	}
	x.result.Clock = day.Add(since - x.cfg.TimeZone)
	return x.ask(SetClock)
}

// now returns the start of the day in the time zone, as if that were UTC, and the time
// since.
func (x *execution) now() (day time.Time, since time.Duration) {
	t := x.live.Now().UTC().Add(x.cfg.TimeZone)
	day = time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	return day, t.Sub(day)
}

// seenLines is how many lines of the log tell where it went on.
const seenLines = 16

// printLog prints the log; with follow, when the line is run again, what is new in it.
func (x *execution) printLog(m *menu, a arguments) error {
	if x.live.Log == nil {
		return unavailable("log")
	}
	lines, err := x.live.Log()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if slices.Contains(a.words, followWord.Name) {
		all := lines
		if x.repeated {
			lines = lines[newFrom(lines, x.seen):]
		}
		x.result.Repeat, x.result.Follow = time.Second, true
		x.seen = slices.Clone(all[max(0, len(all)-seenLines):])
	}
	rows := make([]row, len(lines))
	for i, line := range lines {
		at, rest, _ := strings.Cut(line, " ")
		if strings.Contains(at, "/") { // a day: the time is behind it
			day := at
			at, rest, _ = strings.Cut(rest, " ")
			at = day + " " + at
		}
		topics, message, _ := strings.Cut(rest, " ")
		if !strings.Contains(topics, ",") {
			topics, message = "", rest
		}
		rows[i] = row{line: line, fields: []pair{{"time", at}, {"topics", topics}, {"message", message}}}
	}
	if rows, err = x.matching(m, rows, a.where); err != nil {
		return err
	}
	if slices.Contains(a.words, countWord.Name) {
		fmt.Fprintln(&x.out, len(rows))
		return nil
	}
	for _, r := range rows {
		fmt.Fprintln(&x.out, Printable(r.line))
	}
	return nil
}

// newFrom is where in lines those begin that come after the ones seen, which are the
// last that there were. If the log has lost some of these since, the rest is at its
// start.
func newFrom(lines, seen []string) int {
	for i := 0; i+len(seen) <= len(lines) && len(seen) > 0; i++ {
		if slices.Equal(lines[i:i+len(seen)], seen) {
			return i + len(seen)
		}
	}
	for ; len(seen) > 0; seen = seen[1:] {
		if len(seen) <= len(lines) && slices.Equal(lines[:len(seen)], seen) {
			return len(seen)
		}
	}
	return 0
}
