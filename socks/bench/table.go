package main

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
)

// The figures. MB and GB are 1e6 and 1e9 bytes.
const (
	bulk1             = "bulk, 1 stream"                          // downloaded, at the sinks
	bulk4             = "bulk, 4 streams"                         // all together
	bulk64            = "bulk, 64 streams"                        // all together
	cpuPerGB          = "CPU per GB"                              // of the server alone, at 4 streams: see cpuTime
	connectionRate    = "new connections"                         // each with a byte there and back, 16 at a time
	cpuPerConnection  = "CPU per new connection"                  // of the server alone: see cpuTime
	latency50         = "latency, median"                         // from connect to the byte that came back
	latency99         = "latency, 99th percentile"                // the same
	connectionsFailed = "connections that failed"                 // of the new connections
	idleMemory        = "memory per idle connection"              // PSS at 500, less that at none, by 500
	idleDescriptors   = "descriptors per idle connection"         // likewise
	slowMemory        = "memory, 500 slow receivers"              // PSS in all, slowTime after they started
	slowKernelMemory  = "kernel's TCP memory, 500 slow receivers" // of both ends and the server; without pipes
	othersBusy        = "processors that others keep busy"        // before a round
)

// ours is the server that the goals are about. machine stands for figures that belong to no
// server.
const (
	ours    = "postern"
	machine = ""
)

// row is how a figure is shown.
type row struct {
	figure   string
	unit     string
	decimals int
}

func rows() []row {
	return []row{
		{bulk1, "MB/s", 0},
		{bulk4, "MB/s", 0},
		{bulk64, "MB/s", 0},
		{cpuPerGB, "s", 2},
		{connectionRate, "per s", 0},
		{cpuPerConnection, "us", 0},
		{latency50, "ms", 2},
		{latency99, "ms", 2},
		{connectionsFailed, "", 0},
		{idleMemory, "bytes", 0},
		{idleDescriptors, "", 1},
		{slowMemory, "MB", 1},
		{slowKernelMemory, "MB", 0},
	}
}

// nameWidth is the length of the longest name of a figure or goal.
const nameWidth = 42

// goal is what a figure of ours should be: a ratio to the figure of a peer or, without a peer,
// the figure itself.
type goal struct {
	figure  string
	peer    string
	atLeast bool // or at most
	bound   float64
	unit    string
}

func goals() []goal {
	return []goal{
		{bulk4, "dante", true, 2.2, ""},
		{bulk4, "microsocks", true, 5, ""},
		{bulk4, "io.Copy", true, 1, ""},
		{cpuPerGB, "dante", false, 0.3, ""},
		{cpuPerGB, "io.Copy", false, 1, ""},
		{connectionRate, "dante", true, 3, ""},
		{connectionRate, "microsocks", true, 1.15, ""},
		{idleMemory, "", false, 2000, "bytes"},
		{idleDescriptors, "", false, 2, ""},
	}
}

// results are the values of the figures of the servers, one for each round.
type results map[string]map[string][]float64

func (r results) add(server, figure string, value float64) {
	if r[server] == nil {
		r[server] = map[string][]float64{}
	}
	r[server][figure] = append(r[server][figure], value)
}

// median returns the median of the rounds, or false if there is no value.
func (r results) median(server, figure string) (float64, bool) {
	values := r[server][figure]
	if len(values) == 0 {
		return 0, false
	}
	return quantile(values, 0.5), true
}

// ratio returns the median of the rounds' ratios of our figure to that of a peer, or false if
// there is none.
func (r results) ratio(figure, peer string) (float64, bool) {
	a, b := r[ours][figure], r[peer][figure]
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if b[i] != 0 {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	if len(ratios) == 0 {
		return 0, false
	}
	return quantile(ratios, 0.5), true
}

// value returns the value that a goal is about, or false if it was not measured.
func (g goal) value(r results) (float64, bool) {
	if g.peer == "" {
		return r.median(ours, g.figure)
	}
	return r.ratio(g.figure, g.peer)
}

func (g goal) met(value float64) bool {
	if g.atLeast {
		return value >= g.bound
	}
	return value <= g.bound
}

func (g goal) String() string {
	sign := "<="
	if g.atLeast {
		sign = ">="
	}
	text := fmt.Sprintf("%s %s %v", g.figure, sign, g.bound)
	if g.peer != "" {
		text += " x " + g.peer
	}
	if g.unit != "" {
		text += " " + g.unit
	}
	return text
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

// print writes the table, the ratios and the goals.
func (r results) print(out io.Writer, servers []string) error {
	line := func(name, unit string, cell func(server string) string) {
		text := fmt.Sprintf("%-*s%6s", nameWidth, name, unit)
		for _, s := range servers {
			text += fmt.Sprintf("%12s", cell(s))
		}
		fmt.Fprintln(out, text)
	}
	name := func(s string) string { return s }
	line("", "", name)
	for _, f := range rows() {
		line(f.figure, f.unit, func(s string) string {
			value, ok := r.median(s, f.figure)
			if !ok {
				return "-"
			}
			return fmt.Sprintf("%.*f", f.decimals, value)
		})
	}
	fmt.Fprintln(out)
	line(ours+" / the server", "", name)
	for _, f := range rows() {
		line(f.figure, "", func(s string) string {
			value, ok := r.ratio(f.figure, s)
			if !ok {
				return "-"
			}
			return fmt.Sprintf("%.2f", value)
		})
	}
	if busy := r[machine][othersBusy]; len(busy) > 0 {
		fmt.Fprintf(out, "\nBefore a round other programs kept %.1f to %.1f of %d processors busy.\n",
			slices.Min(busy), slices.Max(busy), runtime.NumCPU())
	}
	fmt.Fprintln(out)
	for _, g := range goals() {
		value, ok := g.value(r)
		answer := "not measured"
		if ok {
			answer = fmt.Sprintf("%.3f: missed", value)
			if g.met(value) {
				answer = fmt.Sprintf("%.3f: met", value)
			}
		}
		if _, err := fmt.Fprintf(out, "%-*s %s\n", nameWidth, g, answer); err != nil {
			return err
		}
	}
	return nil
}
