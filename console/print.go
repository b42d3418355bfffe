package console

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// print prints the rows of a menu.
func (x *execution) print(m *menu, a arguments) error {
	x.result.Repeat, x.result.Paged = a.interval, isPaged(a)
	rows, err := x.rows(m)
	if err != nil {
		return err
	}
	if w, given := a.items[fromArgument.name]; given {
		if a.interval > 0 || follows(a) {
			// What is printed is numbered anew each time.
			return errors.New("failure: from cannot be with interval or follow: each print numbers the items anew")
		}
		if rows, err = x.from(m, rows, w); err != nil {
			return err
		}
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
	follow := follows(a)
	if follow {
		if rows = x.news(rows); !x.repeated && slices.Contains(a.words, followOnlyWord.Name) {
			rows = nil
		}
		x.result.Repeat, x.result.Follow = cmp.Or(a.interval, time.Second), true
		if x.repeated && len(rows) == 0 {
			return nil
		}
	}
	if m.items != nil || m.allLinks || m.numbersLive() {
		x.number(m, rows)
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
	x.warn(m)
	return nil
}

// isPaged reports whether a print stops at the end of each page.
func isPaged(a arguments) bool { return !slices.Contains(a.words, pagingWord.Name) }

// warn prints the warnings of a menu.
func (x *execution) warn(m *menu) {
	if m.warnings == nil {
		return
	}
	for _, text := range m.warnings(x) {
		x.out.WriteString(wrap(strings.Fields(text), x.width-1, ";;; ", "", ";;; "))
	}
}

// from are those of rows that a word refers to.
func (x *execution) from(m *menu, rows []row, w word) ([]row, error) {
	keys, err := x.chosen(m, w)
	if err != nil {
		return nil, byNumber("print", err, "where dynamic, and a condition about it")
	}
	return slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return !slices.Contains(keys, r.key) }), nil
}

// news are the rows of a table that were not there when the line ran last. A row is known by
// its protocol and addresses.
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

// number assigns numbers to these rows, from 0.
func (x *execution) number(m *menu, rows []row) {
	keys := make([]key, len(rows))
	for i, r := range rows {
		keys[i] = r.key
	}
	x.numbers[m.path] = keys
}

// printScreen prints the one row of a menu without items, with names aligned to the right:
//
//	                enabled: yes
//	                   port: 1080
//	connection-idle-timeout: 2m
func (x *execution) printScreen(m *menu, a arguments) error {
	x.result.Repeat, x.result.Paged = a.interval, isPaged(a)
	pairs, err := x.screen(m)
	if err != nil {
		return err
	}
	if !slices.Contains(a.words, detailWord.Name) {
		pairs = x.withoutDetail(m, pairs)
	}
	width := m.indent
	for _, p := range pairs {
		width = max(width, len(p.Name)+m.indent)
	}
	for _, p := range pairs {
		line := fmt.Sprintf("%*s: %s", width, p.Name, Printable(p.Value.text))
		fmt.Fprintln(&x.out, strings.TrimRight(line, " "))
	}
	x.warn(m)
	return nil
}

// withoutDetail leaves out of pairs the properties that print shows on request, unless one of
// them was set.
func (x *execution) withoutDetail(m *menu, pairs []Pair) []Pair {
	if slices.ContainsFunc(m.properties, func(p property) bool { return p.detail && p.get(&x.cfg, 0) != p.def }) {
		return pairs
	}
	return slices.DeleteFunc(pairs, func(pair Pair) bool {
		p, _ := m.property(pair.Name)
		return p.detail
	})
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
		// Not every terminal can end a line after its last column.
		x.out.WriteString(wrap(r.words(), x.width-1, first, "", blank))
	}
}

// terse prints each item in one line, however long.
func (x *execution) terse(m *menu, rows []row) {
	for i, r := range rows {
		words := r.words()
		if r.comment != "" {
			words = append([]string{"comment=" + quote(r.comment)}, words...)
		}
		x.out.WriteString(wrap(words, 0, m.prefix(len(rows), fmt.Sprint(i), r.flags), "", ""))
	}
}

// wrap joins words to lines of at most width columns; 0 is no limit. The first line begins
// with first and the others with indent; every line but the last ends with more.
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

// prefix is the beginning of a row's line: its number, as wide as count rows need, and its
// flags in m's columns.
func (m *menu) prefix(count int, number string, set flags) string {
	s := ""
	if !m.unnumbered {
		s = fmt.Sprintf("%*s ", max(2, len(fmt.Sprint(count-1))), number)
	}
	if len(m.flags) > 0 {
		s += fmt.Sprintf("%-*s ", len(m.flags), m.letters(set))
	}
	return s
}

// table prints rows under the titles of columns. If the terminal is too narrow for their
// usual widths, or more if a row needs more, columns are only as wide as these rows need. If it is too narrow for that
// too, table prints nothing and returns false.
func (x *execution) table(m *menu, columns []column, rows []row) bool {
	columns = slices.DeleteFunc(slices.Clone(columns), func(c column) bool {
		return slices.Contains(m.rare, c.name) && !slices.ContainsFunc(rows, func(r row) bool { return r.value(c.name) != "" })
	})
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
			if x.result.Follow { // rows that come later stand below the same titles
				widths[i] = c.width
			} else {
				widths[i] = max(widths[i], c.width)
			}
		}
	}
	if !x.repeated || !x.result.Follow { // else the titles are already there
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

// unavailable is the error of something that Live does not tell.
func unavailable(what string) error { return fmt.Errorf("failure: %s unavailable", what) }
