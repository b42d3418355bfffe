package console

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

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
		x.number(m, rows)
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
		for _, p := range r.pairs {
			if strings.HasSuffix(p.Name, "address") || p.Name == "protocol" {
				known.WriteString(p.Value.text + " ")
			}
		}
		now = append(now, known.String())
		return slices.Contains(x.seen, known.String())
	})
	x.seen = now
	return fresh
}

// number lets numbers refer to the items of these rows.
func (x *execution) number(m *menu, rows []row) {
	keys := make([]key, len(rows))
	for i, r := range rows {
		keys[i] = r.key
	}
	x.numbers[m.path] = keys
}

// printScreen prints what a menu without items has, names to the right:
//
//	                enabled: yes
//	                   port: 1080
//	connection-idle-timeout: 2m
func (x *execution) printScreen(m *menu, a arguments) error {
	x.result.Repeat = a.interval
	pairs, err := x.screen(m)
	if err != nil {
		return err
	}
	width := m.indent
	for _, p := range pairs {
		width = max(width, len(p.Name)+m.indent)
	}
	for _, p := range pairs {
		line := fmt.Sprintf("%*s: %s", width, p.Name, Printable(p.Value.text))
		fmt.Fprintln(&x.out, strings.TrimRight(line, " "))
	}
	if m.warning != nil {
		if text := m.warning(x); text != "" {
			x.out.WriteString(wrap(strings.Fields(text), x.width-1, ";;; ", "", ";;; "))
		}
	}
	return nil
}

// words are the properties of a row as property=value.
func (r row) words() []string {
	var words []string
	for _, p := range r.pairs {
		words = append(words, p.Name+"="+quote(p.Value.text))
	}
	return words
}

// wrapped prints items as property=value:
//
//	0   chain=srcnat action=masquerade src-address=192.168.0.0/24
func (x *execution) wrapped(m *menu, rows []row) {
	for i, r := range rows {
		first := m.prefix(len(rows), fmt.Sprint(i), r.flags)
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
		x.out.WriteString(wrap(words, 0, m.prefix(len(rows), fmt.Sprint(i), r.flags), "", ""))
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

// prefix is what stands before a row that is one of count: its number and, in m's columns,
// its flags.
func (m *menu) prefix(count int, number string, set flags) string {
	width := max(2, len(fmt.Sprint(count-1)))
	s := fmt.Sprintf("%*s ", width, number)
	if len(m.flags) > 0 {
		s += fmt.Sprintf("%-*s ", len(m.flags), m.letters(set))
	}
	return s
}

// table prints rows under the titles of columns. If the terminal is too narrow for
// their usual widths, they are only as wide as they must be; if it is too narrow for
// that as well, table prints nothing and returns false.
func (x *execution) table(m *menu, columns []column, rows []row) bool {
	head := m.prefix(len(rows), "#", 0)
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
		first := m.prefix(len(rows), fmt.Sprint(i), r.flags)
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
		rules[i].pairs = append(rules[i].pairs, bytesPair("bytes", c.Bytes), numberPair("packets", c.Packets))
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
		rules[i].pairs = append(rules[i].pairs, numberPair("hits", n))
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
		r := row{comment: "socks bind", pairs: []Pair{wordPair("chain", "input"), wordPair("action", "accept")}}
		if o.Peer.IsValid() && !o.Peer.IsUnspecified() {
			r.pairs = append(r.pairs, textPair("src-address", o.Peer.String()))
		}
		if o.Local.IsValid() && !o.Local.IsUnspecified() {
			r.pairs = append(r.pairs, textPair("dst-address", o.Local.String()))
		}
		r.pairs = append(r.pairs, textPair("dst-port", fmt.Sprint(o.Port)), wordPair("protocol", "tcp"))
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
		rows = append(rows, row{pairs: []Pair{prefixPair("address", a.Address), textPair("interface", x.cfg.Called(a.Interface)),
			addressPair("network", a.Address.Masked().Addr())}})
	}
	return rows, nil
}

// routeRows are the routes that the system made, and those of the configuration. Of the
// routes to one destination that the kernel has, the one of the least distance is active.
// Those that are set are there if the kernel cannot be asked, too.
func (x *execution) routeRows() (made, set []row, err error) {
	set = x.configured(x.menu("ip route"))
	for i := range set {
		set[i].flags |= flagStatic
	}
	if x.live.Routes == nil {
		return nil, set, nil
	}
	routes, err := x.live.Routes()
	if err != nil {
		return nil, set, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		gateway, set := textPair("gateway", x.cfg.Called(r.Interface)), flagDynamic|flagConnect
		if r.Gateway.IsValid() {
			gateway, set = addressPair("gateway", r.Gateway), flagDynamic|flagStatic
		}
		made = append(made, row{flags: set, pairs: []Pair{prefixPair("dst-address", r.Destination), gateway, numberPair("distance", r.Distance)}})
	}
	best := map[string]*row{}
	for _, rows := range [][]row{made, set} {
		for i := range rows {
			r := &rows[i]
			b := best[r.value("dst-address")]
			if r.flags&(flagDisabled|flagInvalid) == 0 && (b == nil || r.distance() < b.distance()) {
				best[r.value("dst-address")] = r
			}
		}
	}
	for _, r := range best {
		r.flags |= flagActive
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
		pairs := []Pair{textPair("src-address", c.Src.String())}
		if c.Dst.IsValid() { // it is not before the client's request
			pairs = append(pairs, textPair("dst-address", c.Dst.String()))
		}
		pairs = append(pairs, wordPair("type", string(c.Type)), bytesPair("tx", c.Tx), bytesPair("rx", c.Rx),
			durationPair("age", c.Age), durationPair("idle", c.Idle))
		if c.UserID != "" {
			pairs = append(pairs, textPair("user-id", c.UserID))
		}
		rows[i] = row{id: firstLive | ID(c.Number), pairs: pairs}
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
		rows[i] = row{flags: flagDynamic, pairs: []Pair{addressPair("address", n.Address)}}
		if mac := macText(n.MAC); mac != "" {
			rows[i].flags |= flagComplete
			rows[i].pairs = append(rows[i].pairs, textPair("mac-address", mac))
		}
		rows[i].pairs = append(rows[i].pairs, textPair("interface", x.cfg.Called(n.Interface)))
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
		end := func(name string, a, b string, port uint16) Pair {
			if port == 0 { // as with icmp
				return textPair(name, a)
			}
			return textPair(name, b)
		}
		rows[i].pairs = []Pair{wordPair("protocol", c.Protocol),
			end("src-address", c.Src.Addr().String(), c.Src.String(), c.Src.Port()),
			end("dst-address", c.Dst.Addr().String(), c.Dst.String(), c.Dst.Port())}
		if c.State != "" {
			rows[i].pairs = append(rows[i].pairs, wordPair("tcp-state", c.State))
		}
		rows[i].pairs = append(rows[i].pairs, durationPair("timeout", c.Timeout))
	}
	return rows, nil
}

func (x *execution) userRows() ([]row, error) {
	return []row{{id: onlyID, pairs: []Pair{textPair("name", Admin), wordPair("group", "full")}}}, nil
}

// resource is how the machine is.
func (x *execution) resource() ([]Pair, error) {
	if x.live.Resource == nil {
		return nil, unavailable("resource")
	}
	r, err := x.live.Resource()
	if err != nil {
		return nil, fmt.Errorf("read resource: %w", err)
	}
	mebibytes := func(name string, bytes uint64) Pair {
		return Pair{name, Value{Bytes, fmt.Sprintf("%.1fMiB", float64(bytes)/(1<<20)), int64(bytes)}}
	}
	return []Pair{
		durationPair("uptime", r.Uptime),
		textPair("version", r.Version),
		mebibytes("free-memory", r.FreeMemory),
		mebibytes("total-memory", r.TotalMemory),
		numberPair("cpu-count", r.CPUCount),
		{"cpu-load", Value{Integer, fmt.Sprintf("%.2f%%", 100*r.CPULoad), int64(100 * r.CPULoad)}},
		textPair("architecture-name", r.Architecture),
		textPair("board-name", r.Board),
	}, nil
}

// clock is what /system clock was told to be: the zero time and noTime leave a part
// as it is.
type clock struct {
	date time.Time
	time time.Duration
}

const noTime = -1

// clock is the time of day.
func (x *execution) clock() ([]Pair, error) {
	day, since := x.now()
	return []Pair{textPair("time", timeOfDay().format(since)), textPair("date", date().format(day)),
		wordPair("time-zone-name", "manual"), textPair("gmt-offset", offset().format(x.cfg.TimeZone))}, nil
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

// logRows are the lines of the log.
func (x *execution) logRows() ([]row, error) {
	if x.live.Log == nil {
		return nil, unavailable("log")
	}
	lines, err := x.live.Log()
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
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
		rows[i] = row{line: line, pairs: []Pair{textPair("time", at), {"topics", Value{Type: List, text: topics}}, textPair("message", message)}}
	}
	return rows, nil
}

// printLog prints the log; with follow, when the line is run again, what is new in it.
func (x *execution) printLog(m *menu, a arguments) error {
	rows, err := m.rows(x)
	if err != nil {
		return err
	}
	if slices.Contains(a.words, followWord.Name) {
		lines := make([]string, len(rows))
		for i, r := range rows {
			lines[i] = r.line
		}
		if x.repeated {
			rows = rows[newFrom(lines, x.seen):]
		}
		x.result.Repeat, x.result.Follow = time.Second, true
		x.seen = slices.Clone(lines[max(0, len(lines)-seenLines):])
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
