package main

import (
	"fmt"
	"html"
	"io"
	"slices"
	"strings"
)

// The picture is written as text here, without a library for charts: those that draw SVG from Go
// write letters as outlines or have one set of colours, and the bars are the small part.

// panel is a figure as a group of bars.
type panel struct {
	figure     string
	unit       string
	moreBetter bool
}

func panels() []panel {
	return []panel{
		{bulk4, "MB/s", true},
		{connectionRate, "per second", true},
		{busyBulk4, "MB/s", true},
		{busyRate, "per second", true},
		{cpuPerGB, "seconds", false},
		{cpuPerConnection, "microseconds", false},
		{idleMemory, "bytes", false},
		{latency50, "ms, with 16 connections at a time", false},
	}
}

// Sizes of the picture, in its own units: pixels where it is not scaled.
const (
	pictureMargin = 24
	pictureHead   = 92 // title, caption and legend
	panelWidth    = 420
	panelGap      = 24
	panelHead     = 64 // title, unit, goals
	panelFoot     = 16
	barPitch      = 20
	barHeight     = 13
	nameSpace     = 132 // for the names, which end there
	barSpace      = 180 // for the longest bar; the rest is for its value
)

// pictureStyle has the colours of both schemes. The ground is the picture's own, so that it can
// be read wherever it is shown.
const pictureStyle = `
text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 19px; font-weight: 600 }
.figure { font-size: 14px; font-weight: 600 }
.quiet { font-size: 12px; fill: #59636e }
.name { text-anchor: end }
.ground { fill: #ffffff; stroke: #d1d9e0 }
.ours { fill: #0969da }
.peer { fill: #a0a9b3 }
.goal { stroke: #bc4c00; stroke-width: 2.5 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.quiet { fill: #9198a1 }
.ground { fill: #0d1117; stroke: #3d444d }
.ours { fill: #4493f8 }
.peer { fill: #656c76 }
.goal { stroke: #f0883e }
}
`

// draw writes the report as a picture, SVG 1.1 with styles (CSS).
func (r report) draw(out io.Writer) error {
	// Without a server there is nothing to compare, and for no proxy nothing is counted.
	servers := slices.DeleteFunc(slices.Clone(r.servers), func(s string) bool { return s == direct || s == baseline4 })
	height := panelHead + len(servers)*barPitch + panelFoot
	all := panels()
	width := 2*pictureMargin + 2*panelWidth + panelGap
	total := pictureHead + (len(all)+1)/2*height + pictureMargin

	var body, spoken strings.Builder
	for i, p := range all {
		x, y := pictureMargin+i%2*(panelWidth+panelGap), pictureHead+i/2*height
		r.drawPanel(&body, p, servers, x, y)
		fmt.Fprintf(&spoken, "%s, %s: %s.\n", p.figure, p.unit, r.spoken(p, servers))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" aria-labelledby="title desc">
<title id="title">%s</title>
<desc id="desc">%s</desc>
<style>%s</style>
<rect class="ground" x="0.5" y="0.5" width="%d" height="%d" rx="8"/>
`, width, total, html.EscapeString(pictureTitle), html.EscapeString(spoken.String()), pictureStyle, width-1, total-1)
	text(&b, "title", pictureMargin, 38, pictureTitle)
	text(&b, "quiet", pictureMargin, 59, r.caption)
	x := pictureMargin
	for _, entry := range []struct{ class, name string }{{"ours", "postern"}, {"peer", "others"}} {
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="13" height="13" rx="2"/>`+"\n", entry.class, x, 70)
		text(&b, "", x+19, 81, entry.name)
		x += 90
	}
	fmt.Fprintf(&b, `<path class="goal" d="M%d 69v15"/>`+"\n", x)
	text(&b, "", x+8, 81, "goal; the number behind a name is the version of SOCKS")
	b.WriteString(body.String())
	b.WriteString("</svg>\n")
	_, err := io.WriteString(out, b.String())
	return err
}

const pictureTitle = "Postern's socksd beside other SOCKS servers"

func (r report) drawPanel(b *strings.Builder, p panel, servers []string, x, y int) {
	better := "less is better"
	if p.moreBetter {
		better = "more is better"
	}
	text(b, "figure", x, y+22, p.figure)
	text(b, "quiet", x, y+38, p.unit+", "+better)
	if goals := r.goalsOf(p.figure); goals != "" {
		text(b, "quiet", x, y+53, "goal: "+goals)
	}
	most := 0.0
	for _, s := range servers {
		value, _ := r.number(p.figure, s)
		goal, _ := r.mark(p, s)
		most = max(most, value, goal)
	}
	for i, s := range servers {
		top := y + panelHead + i*barPitch
		base := top + barHeight - 2
		fmt.Fprintf(b, `<text class="name" x="%d" y="%d">%s</text>`+"\n", x+nameSpace, base, html.EscapeString(s))
		value, ok := r.number(p.figure, s)
		if !ok {
			text(b, "quiet", x+nameSpace+10, base, notMeasured)
			continue
		}
		at := func(v float64) float64 { return float64(x+nameSpace+8) + barSpace*v/max(most, 1e-9) }
		class := "peer"
		if strings.HasPrefix(s, "postern") {
			class = "ours"
		}
		fmt.Fprintf(b, `<rect class="%s" x="%.0f" y="%d" width="%.1f" height="%d" rx="2"/>`+"\n",
			class, at(0), top, max(at(value)-at(0), 1), barHeight)
		end, shown := at(value), grouped(r.values[p.figure][s])
		if goal, ok := r.mark(p, s); ok {
			fmt.Fprintf(b, `<path class="goal" d="M%.1f %dv%d"/>`+"\n", at(goal), top-2, barHeight+4)
			end = max(end, at(goal))
		}
		if r.missed(p.figure, s) {
			shown += " (missed)"
		}
		fmt.Fprintf(b, `<text x="%.0f" y="%d">%s</text>`+"\n", end+7, base, shown)
	}
}

func text(b *strings.Builder, class string, x, y int, words string) {
	if class != "" {
		class = fmt.Sprintf(` class="%s"`, class)
	}
	fmt.Fprintf(b, `<text%s x="%d" y="%d">%s</text>`+"\n", class, x, y, html.EscapeString(words))
}

// mark returns where a server's bar has to reach, or to stay below: the hardest of its goals, or
// false if it has none. It is on the same side of the bar's end as the ratio is of the goal.
func (r report) mark(p panel, server string) (float64, bool) {
	value, _ := r.number(p.figure, server)
	mark, found := 0.0, false
	for i, g := range goals() {
		if g.server != server || g.figure != p.figure || i >= len(r.goals) {
			continue
		}
		at := g.bound
		if g.peer != "" {
			var reached float64
			if _, err := fmt.Sscan(r.goals[i].reached, &reached); err != nil || reached == 0 {
				continue
			}
			at = value / reached * g.bound
		}
		if !found || g.atLeast == (at > mark) {
			mark, found = at, true
		}
	}
	return mark, found
}

// missed reports whether a server has missed one of its goals for a figure.
func (r report) missed(figure, server string) bool {
	return slices.ContainsFunc(r.goals, func(o outcome) bool {
		return o.figure == figure && o.server == server && o.met == goalMissed
	})
}

// goalsOf are the goals for a figure in words, each once for all versions of SOCKS.
func (r report) goalsOf(figure string) string {
	var all []string
	for _, o := range r.goals {
		words := strings.TrimSuffix(strings.TrimSuffix(o.bounds, " 4"), " 5")
		if o.figure == figure && o.reached != notMeasured && !slices.Contains(all, words) {
			all = append(all, words)
		}
	}
	for i := 1; i < len(all); i++ {
		all[i] = strings.TrimPrefix(strings.TrimPrefix(all[i], "at least "), "at most ")
	}
	return strings.Join(all, ", ")
}

// spoken is a panel for those who do not see it.
func (r report) spoken(p panel, servers []string) string {
	var all []string
	for _, s := range servers {
		if value, ok := r.values[p.figure][s]; ok {
			all = append(all, s+" "+grouped(value))
		}
	}
	return strings.Join(all, "; ")
}

// grouped sets commas between the thousands of a number.
func grouped(number string) string {
	whole, rest, ok := strings.Cut(number, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if ok {
		return whole + "." + rest
	}
	return whole
}
