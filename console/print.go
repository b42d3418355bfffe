package console

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/netcfg"
)

// row is an item on the screen.
type row struct {
	flags   string
	comment string
	cells   []string
}

func (x *execution) print(m *menu, a arguments) error {
	switch {
	case m.items == nil:
		x.screen(m)
		return nil
	case len(a.words) > 0:
		return x.printStats(m)
	}
	fmt.Fprintln(&x.out, m.legend)
	rows := x.rows(m)
	if m.columns == nil {
		x.wrapped(m, rows)
		return nil
	}
	for i := range rows {
		for _, c := range m.columns {
			rows[i].cells = append(rows[i].cells, c.value(&x.cfg, i))
		}
	}
	x.table(1, m.columns, rows)
	return nil
}

// screen prints the properties of a menu without items, names to the right:
//
//	                enabled: yes
//	                   port: 1080
//	connection-idle-timeout: 2m
func (x *execution) screen(m *menu) {
	var lines [][2]string
	for _, p := range m.properties {
		lines = append(lines, [2]string{p.name, p.get(&x.cfg, 0)})
	}
	x.pairs(m.indent, lines)
}

// pairs prints names, aligned to the right behind the indent, with values.
func (x *execution) pairs(indent int, lines [][2]string) {
	width := 0
	for _, l := range lines {
		width = max(width, len(l[0]))
	}
	for _, l := range lines {
		line := fmt.Sprintf("%*s: %s", width+indent, l[0], printable(l[1]))
		fmt.Fprintln(&x.out, strings.TrimRight(line, " "))
	}
}

// rows are the items of m, with flags and comments, without cells.
func (x *execution) rows(m *menu) []row {
	known := x.portNames()
	rows := make([]row, m.items.count(&x.cfg))
	for i := range rows {
		r := &rows[i]
		for _, p := range m.properties {
			value := p.get(&x.cfg, i)
			switch {
			case p.name == "disabled" && value == "yes":
				r.flags = "X"
			case p.name == "comment":
				r.comment = value
			case p.names && value != "" && known != nil && r.flags == "" &&
				!slices.Contains(known, strings.TrimPrefix(value, "!")):
				r.flags = "I"
			}
		}
	}
	return rows
}

// portNames are the names of the ports that are there, nil if that is not known.
func (x *execution) portNames() []string {
	if x.live.Links == nil {
		return nil
	}
	ports, err := x.live.Links()
	if err != nil {
		return nil // the items are as good without the flag that this is for
	}
	names := make([]string, 0, len(ports))
	for _, p := range ports {
		if p.Present {
			names = append(names, p.Name)
		}
	}
	return names
}

// wrapped prints items as property=value, those properties that are set:
//
//	0   chain=srcnat action=masquerade src-address=192.168.0.0/24
func (x *execution) wrapped(m *menu, rows []row) {
	for i, r := range rows {
		first := prefixOf(len(rows), fmt.Sprint(i), 1, r.flags)
		blank := strings.Repeat(" ", len(first))
		if r.comment != "" {
			fmt.Fprintf(&x.out, "%s;;; %s\n", first, printable(r.comment))
			first = blank
		}
		var words []string
		for _, p := range m.properties {
			value := p.get(&x.cfg, i)
			if value != "" && p.name != "disabled" && p.name != "comment" {
				words = append(words, p.name+"="+quote(value))
			}
		}
		// Not every terminal can end a line behind its last column.
		x.out.WriteString(wrap(words, x.width-1, first, "", blank))
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

// table prints rows under the titles of columns. Flags is how many columns the
// flags take.
func (x *execution) table(flags int, columns []column, rows []row) {
	titles := make([]string, len(columns))
	for i, c := range columns {
		titles[i] = c.title
	}
	x.cells(prefixOf(len(rows), "#", flags, ""), columns, titles)
	for i, r := range rows {
		first := prefixOf(len(rows), fmt.Sprint(i), flags, r.flags)
		if r.comment != "" {
			fmt.Fprintf(&x.out, "%s;;; %s\n", first, printable(r.comment))
			first = strings.Repeat(" ", len(first))
		}
		x.cells(first, columns, r.cells)
	}
}

func (x *execution) cells(first string, columns []column, cells []string) {
	line := first
	for i, c := range columns {
		line += fmt.Sprintf("%-*s ", c.width, printable(cells[i]))
	}
	fmt.Fprintln(&x.out, strings.TrimRight(line, " "))
}

// unavailable is the error of what Live does not tell.
func unavailable(what string) error { return fmt.Errorf("failure: %s unavailable", what) }

// printStats prints what each rule has matched.
func (x *execution) printStats(m *menu) error {
	if x.live.Counters == nil {
		return unavailable("counters")
	}
	filter, nat, err := x.live.Counters()
	if err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	counters := m.counters(filter, nat)
	rows := x.rows(m)
	if len(counters) != len(rows) {
		// The rules are not in force, or the line that is being run has changed them.
		return unavailable("counters")
	}
	chain, _ := m.property("chain")
	action, _ := m.property("action")
	for i, c := range counters {
		rows[i].cells = []string{chain.get(&x.cfg, i), action.get(&x.cfg, i), fmt.Sprint(c.Bytes), fmt.Sprint(c.Packets)}
	}
	fmt.Fprintln(&x.out, m.legend)
	x.table(1, []column{{title: "CHAIN", width: 22}, {title: "ACTION", width: 23},
		{title: "BYTES", width: 20}, {title: "PACKETS"}}, rows)
	return nil
}

// printPorts prints /interface ethernet: the ports and what is set for them, which
// for the MTU may be nothing: then the driver's.
func (x *execution) printPorts(*menu, arguments) error {
	ports, err := x.ports()
	if err != nil {
		return err
	}
	columns := []column{{title: "NAME", width: 16}, {title: "MTU", width: 5}, {title: "MAC-ADDRESS"}}
	x.portTable(columns, ports, func(p netcfg.LinkState, l netcfg.Link) []string {
		mtu := ""
		if n := cmp.Or(l.MTU, p.MTU); n > 0 {
			mtu = fmt.Sprint(n)
		}
		return []string{p.Name, mtu, strings.ToUpper(p.MAC.String())}
	})
	return nil
}

// printInterfaces prints /interface: the ports and how they are.
func (x *execution) printInterfaces(*menu, arguments) error {
	if x.live.Links == nil {
		return unavailable("interfaces")
	}
	ports, err := x.live.Links()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	columns := []column{{title: "NAME", width: 16}, {title: "MTU", width: 5},
		{title: "RX-BYTE", width: 15}, {title: "TX-BYTE"}}
	x.portTable(columns, ports, func(p netcfg.LinkState, _ netcfg.Link) []string {
		if !p.Present {
			return []string{p.Name, "", "", ""}
		}
		return []string{p.Name, fmt.Sprint(p.MTU), fmt.Sprint(p.RxBytes), fmt.Sprint(p.TxBytes)}
	})
	return nil
}

func (x *execution) portTable(columns []column, ports []netcfg.LinkState, cells func(netcfg.LinkState, netcfg.Link) []string) {
	rows := make([]row, len(ports))
	for i, p := range ports {
		var set netcfg.Link
		if n := slices.IndexFunc(x.cfg.Links, func(l netcfg.Link) bool { return l.Name == p.Name }); n >= 0 {
			set = x.cfg.Links[n]
		}
		state, running := " ", " "
		if set.Disabled {
			state = "X"
		} else if !p.Present {
			state = "I"
		}
		if p.Running {
			running = "R"
		}
		rows[i] = row{flags: state + running, comment: set.Comment, cells: cells(p, set)}
	}
	fmt.Fprintln(&x.out, legendPort)
	x.table(2, columns, rows)
}

// printConnections prints /ip socks connections as the manual page shows it.
func (x *execution) printConnections(*menu, arguments) error {
	if x.live.Connections == nil {
		return unavailable("connections")
	}
	connections, err := x.live.Connections()
	if err != nil {
		return fmt.Errorf("list connections: %w", err)
	}
	rows := make([]row, len(connections))
	for i, c := range connections {
		dst := ""
		if c.Dst.IsValid() { // it is not before the client's request
			dst = c.Dst.String()
		}
		rows[i].cells = []string{c.Src.String(), dst, fmt.Sprint(c.Tx), fmt.Sprint(c.Rx)}
	}
	x.table(0, []column{{title: "SRC-ADDRESS", width: 26}, {title: "DST-ADDRESS", width: 26},
		{title: "TX", width: 10}, {title: "RX"}}, rows)
	return nil
}

func (x *execution) printResource(*menu, arguments) error {
	if x.live.Resource == nil {
		return unavailable("resource")
	}
	r, err := x.live.Resource()
	if err != nil {
		return fmt.Errorf("read resource: %w", err)
	}
	mebibytes := func(bytes uint64) string { return fmt.Sprintf("%.1fMiB", float64(bytes)/(1<<20)) }
	x.pairs(2, [][2]string{
		{"uptime", formatDuration(r.Uptime.Truncate(time.Second))},
		{"free-memory", mebibytes(r.FreeMemory)},
		{"total-memory", mebibytes(r.TotalMemory)},
		{"cpu-count", fmt.Sprint(r.CPUCount)},
		{"cpu-load", fmt.Sprintf("%.2f%%", 100*r.CPULoad)},
		{"architecture-name", r.Architecture},
		{"board-name", r.Board},
	})
	return nil
}

func (x *execution) printLog(*menu, arguments) error {
	if x.live.Log == nil {
		return unavailable("log")
	}
	lines, err := x.live.Log()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	for _, line := range lines {
		fmt.Fprintln(&x.out, printable(line))
	}
	return nil
}
