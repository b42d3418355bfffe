package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The figures. MB and GB are 1e6 and 1e9 bytes.
const (
	bulk1             = "bulk, 1 stream"                          // downloaded, at the sinks
	bulk4             = "bulk, 4 streams"                         // all together
	bulk64            = "bulk, 64 streams"                        // all together
	cpuPerGB          = "CPU per GB"                              // of the server alone, at 4 streams: see cpuTime
	connectionRate    = "new connections"                         // each with a byte there and back, 16 at a time
	cpuPerConnection  = "CPU per new connection"                  // of the server alone: see cpuTime
	loadPerConnection = "the load's CPU per new connection"       // of the one thread that is both ends of all of them
	latency50         = "latency, median"                         // from connect to the byte that came back
	latency99         = "latency, 99th percentile"                // the same
	busyBulk4         = "bulk, 4 streams, busy machine"           // beside busyPrograms
	busyRate          = "new connections, busy machine"           // beside busyPrograms
	connectionsFailed = "connections that failed"                 // of the new connections; the worst round
	idleMemory        = "memory per idle connection"              // PSS at 500, less that at none, by 500
	idleDescriptors   = "descriptors per idle connection"         // likewise
	slowMemory        = "memory, 500 slow receivers"              // PSS in all, slowTime after they started
	slowKernelMemory  = "kernel's TCP memory, 500 slow receivers" // of both ends and the server; without pipes
	othersBusy        = "processors that others keep busy"        // between the measures
)

// machine stands for figures that belong to no server.
const machine = ""

// row is how a figure is shown.
type row struct {
	figure   string
	unit     string
	decimals int
	worst    bool // shows the greatest value of the rounds, not the median
}

func rows() []row {
	return []row{
		{bulk1, "MB/s", 0, false},
		{bulk4, "MB/s", 0, false},
		{bulk64, "MB/s", 0, false},
		{busyBulk4, "MB/s", 0, false},
		{cpuPerGB, "s", 2, false},
		{connectionRate, "per s", 0, false},
		{busyRate, "per s", 0, false},
		{cpuPerConnection, "us", 0, false},
		{loadPerConnection, "us", 0, false},
		{latency50, "ms", 2, false},
		{latency99, "ms", 2, false},
		{connectionsFailed, "", 0, true},
		{idleMemory, "bytes", 0, false},
		{idleDescriptors, "", 1, false},
		{slowMemory, "MB", 1, false},
		{slowKernelMemory, "MB", 0, false},
	}
}

// goal is what a figure of a server should be: a ratio to the figure of a peer or, without a
// peer, the figure itself.
type goal struct {
	server  string
	figure  string
	peer    string
	atLeast bool // or at most
	bound   float64
}

func goals() []goal {
	all := []goal{
		{postern5, bulk4, microsocks5, true, 5},
		{postern4, bulk4, ioCopy4, true, 1},
		{postern4, cpuPerGB, ioCopy4, false, 1},
		{postern5, connectionRate, microsocks5, true, 1.15},
	}
	for _, pair := range [][2]string{{postern4, dante4}, {postern5, dante5}} {
		all = append(all,
			goal{pair[0], bulk4, pair[1], true, 2.5},
			goal{pair[0], cpuPerGB, pair[1], false, 0.3},
			goal{pair[0], connectionRate, pair[1], true, 3.5},
			goal{pair[0], cpuPerConnection, pair[1], false, 0.4},
			goal{pair[0], busyRate, pair[1], true, 3})
	}
	for _, server := range []string{postern4, postern5, postern5Password} {
		all = append(all,
			goal{server, idleMemory, "", false, 1000},
			goal{server, idleDescriptors, "", false, 2},
			goal{server, connectionsFailed, "", false, 0})
	}
	// In the order of the table.
	place := map[string]int{}
	for i, r := range rows() {
		place[r.figure] = i
	}
	slices.SortStableFunc(all, func(a, b goal) int { return place[a.figure] - place[b.figure] })
	return all
}

// results are the values of the figures of the servers, one for each round.
type results map[string]map[string][]float64

func (r results) add(server, figure string, value float64) {
	if r[server] == nil {
		r[server] = map[string][]float64{}
	}
	r[server][figure] = append(r[server][figure], value)
}

// value returns the median of the rounds, or the worst of them if the row says so; false if
// there is no value.
func (r results) value(server string, row row) (float64, bool) {
	values := r[server][row.figure]
	if len(values) == 0 {
		return 0, false
	}
	if row.worst {
		return slices.Max(values), true
	}
	return quantile(values, 0.5), true
}

// ratios returns the rounds' ratios of a server's figure to that of a peer.
func (r results) ratios(server, figure, peer string) []float64 {
	a, b := r[server][figure], r[peer][figure]
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if b[i] != 0 {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	return ratios
}

// reached returns the value that a goal is about, or false if it was not measured.
func (g goal) reached(r results) (float64, bool) {
	if g.peer == "" {
		return r.value(g.server, rowOf(g.figure))
	}
	ratios := r.ratios(g.server, g.figure, g.peer)
	if len(ratios) == 0 {
		return 0, false
	}
	return quantile(ratios, 0.5), true
}

// possible returns the greatest ratio that the load leaves room for, or false if the goal is about something else than the
// rate of new connections: one thread makes them all, so there are no more than what it takes for each allows, whatever the
// server does.
func (g goal) possible(r results) (float64, bool) {
	own, peer := r[g.server][loadPerConnection], r[g.peer][g.figure]
	if g.figure != connectionRate && g.figure != busyRate || len(own) == 0 || len(peer) == 0 {
		return 0, false
	}
	return 1e6 / quantile(own, 0.5) / quantile(peer, 0.5), true
}

func rowOf(figure string) row {
	all := rows()
	return all[slices.IndexFunc(all, func(r row) bool { return r.figure == figure })]
}

func (g goal) met(value float64) bool {
	if g.atLeast {
		return value >= g.bound
	}
	return value <= g.bound
}

// bounds is the goal in words: "at least 3.5 x dante 4".
func (g goal) bounds() string {
	text := "at most "
	if g.atLeast {
		text = "at least "
	}
	text += strconv.FormatFloat(g.bound, 'f', -1, 64)
	if g.peer != "" {
		return text + " x " + g.peer
	}
	return strings.TrimSpace(text + " " + rowOf(g.figure).unit)
}

// quantile returns the value that the given part of all values does not exceed, interpolated
// between two neighbours.
func quantile(values []float64, part float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	position := part * float64(len(sorted)-1)
	below := int(position)
	above := min(below+1, len(sorted)-1)
	rest := position - math.Floor(position)
	return sorted[below]*(1-rest) + sorted[above]*rest
}

// report is what is shown of a run, as text and as a picture: values are rounded.
type report struct {
	servers []string
	// values are the figures by their names and the servers'. What was not measured is
	// missing.
	values map[string]map[string]string
	goals  []outcome
	// caption says what was measured and where, notes what else there is to know.
	caption, notes string
}

// outcome is what became of a goal.
type outcome struct {
	server, figure, bounds, reached, met, possible string
}

const (
	goalMet     = "yes"
	goalMissed  = "no"
	notMeasured = "not measured"
)

// number returns a value of the report.
func (r report) number(figure, server string) (float64, bool) {
	value, err := strconv.ParseFloat(r.values[figure][server], 64)
	return value, err == nil
}

// report rounds the results. Without values there are no goals.
func (r results) report(servers []string) report {
	out := report{servers: servers, values: map[string]map[string]string{}}
	for _, row := range rows() {
		out.values[row.figure] = map[string]string{}
		for _, s := range servers {
			if value, ok := r.value(s, row); ok {
				out.values[row.figure][s] = strconv.FormatFloat(value, 'f', row.decimals, 64)
			}
		}
	}
	for _, g := range goals() {
		o := outcome{g.server, g.figure, g.bounds(), notMeasured, notMeasured, missing}
		if most, ok := g.possible(r); ok {
			o.possible = strconv.FormatFloat(most, 'f', 2, 64)
		}
		if value, ok := g.reached(r); ok {
			decimals := rowOf(g.figure).decimals
			if g.peer != "" {
				decimals = 2
			}
			o.reached, o.met = strconv.FormatFloat(value, 'f', decimals, 64), goalMissed
			if g.met(value) {
				o.met = goalMet
			}
		}
		out.goals = append(out.goals, o)
	}
	return out
}

// quiet is the most processors that other programs may keep busy on a machine that is called
// quiet: the median between the measures.
const quiet = 0.1

// load tells how busy other programs kept the machine, and whether it was quiet.
func (r results) load() (text string, isQuiet bool) {
	busy := r[machine][othersBusy]
	if len(busy) == 0 {
		return "How busy the machine was is not known.", false
	}
	median := quantile(busy, 0.5)
	text = fmt.Sprintf("Between the measures other programs kept %.2f of %d processors busy (the median; at most %.2f)",
		median, runtime.NumCPU(), slices.Max(busy))
	if median > quiet {
		return text + fmt.Sprintf(", which is more than %v: these are not the machine's figures.", quiet), false
	}
	return text + ".", true
}

// about tells what was measured, and on which machine.
func about(rounds int, now time.Time) string {
	model := "an unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	var name unix.Utsname
	_ = unix.Uname(&name) // no name, then
	release, _, _ := strings.Cut(unix.ByteSliceToString(name.Release[:]), "-")
	return fmt.Sprintf("Medians of %d rounds on %s, %d x %s, Linux %s, %s.", rounds, now.UTC().Format("2 January 2006"),
		runtime.NumCPU(), model, release, runtime.Version())
}

// markdown writes the report as tables whose source is readable too.
func (r report) markdown(out io.Writer) error {
	header := slices.Concat([]string{"figure", "unit"}, r.servers)
	table := [][]string{header}
	for _, row := range rows() {
		line := []string{row.figure, row.unit}
		for _, s := range r.servers {
			value, ok := r.values[row.figure][s]
			if !ok {
				value = missing
			}
			line = append(line, value)
		}
		table = append(table, line)
	}
	text := markdownTable(table, 2)
	if len(r.goals) > 0 {
		table = [][]string{{"goal", "of", "want", "reached", "met", "possible"}}
		for _, g := range r.goals {
			table = append(table, []string{g.figure, g.server, g.bounds, g.reached, g.met, g.possible})
		}
		text += "\n" + markdownTable(table, 3)
	}
	text += "\n" + strings.TrimSpace(r.caption+" "+r.notes) + "\n"
	_, err := io.WriteString(out, text)
	return err
}

// compare is a table of a server's figures and ratios to those of an earlier one.
func (r results) compare(server, earlier string) string {
	table := [][]string{{"figure", "unit", server, earlier, "ratio", "least", "most"}}
	for _, row := range rows() {
		now, _ := r.value(server, row)
		before, _ := r.value(earlier, row)
		line := []string{row.figure, row.unit, strconv.FormatFloat(now, 'f', row.decimals, 64), strconv.FormatFloat(before, 'f', row.decimals, 64)}
		if ratios := r.ratios(server, row.figure, earlier); len(ratios) > 0 {
			for _, part := range []float64{0.5, 0, 1} {
				line = append(line, strconv.FormatFloat(quantile(ratios, part), 'f', 3, 64))
			}
		} else {
			line = append(line, missing, missing, missing)
		}
		table = append(table, line)
	}
	return markdownTable(table, 2)
}

// missing is shown for what was not measured.
const missing = "-"

// markdownTable aligns the columns from the given one on to the right.
func markdownTable(rows [][]string, right int) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell), 2)
		}
	}
	var b strings.Builder
	for n, row := range rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-len(cell))
			if i >= right {
				cell, pad = pad+cell, ""
			}
			fmt.Fprintf(&b, "| %s%s ", cell, pad)
		}
		b.WriteString("|\n")
		if n > 0 {
			continue
		}
		for i, width := range widths {
			mark := strings.Repeat("-", width+2)
			if i >= right {
				mark = mark[1:] + ":"
			}
			b.WriteString("|" + mark)
		}
		b.WriteString("|\n")
	}
	return b.String()
}

// The lines of a page between which the tables of a run stand.
const (
	tablesBegin = "<!-- Written by go run ./socks/bench: begin -->"
	tablesEnd   = "<!-- Written by go run ./socks/bench: end -->"
)

// replaceTables puts tables between the two lines of a page.
func replaceTables(page, tables string) (string, error) {
	before, rest, ok := strings.Cut(page, tablesBegin+"\n")
	_, after, endOK := strings.Cut(rest, tablesEnd+"\n")
	if !ok || !endOK {
		return "", fmt.Errorf("want the lines %q and %q", tablesBegin, tablesEnd)
	}
	return before + tablesBegin + "\n\n" + tables + "\n" + tablesEnd + "\n" + after, nil
}
