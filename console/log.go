package console

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// This file has the menu of the log.

// seenLines is how many lines of the log are remembered to find where it went on.
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

// printLog prints the log. With follow, when the line runs again, it prints what is new.
func (x *execution) printLog(m *menu, a arguments) error {
	x.result.Paged = isPaged(a)
	rows, err := m.rows(x)
	if err != nil {
		return err
	}
	if follows(a) {
		lines := make([]string, len(rows))
		for i, r := range rows {
			lines[i] = r.line
		}
		if x.repeated {
			rows = rows[newFrom(lines, x.seen):]
		}
		if !x.repeated && slices.Contains(a.words, followOnlyWord.Name) {
			rows = nil
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

// follows reports whether print is to continue with what is new.
func follows(a arguments) bool {
	return slices.Contains(a.words, followWord.Name) || slices.Contains(a.words, followOnlyWord.Name)
}

// newFrom is the index of the first of lines that is new. seen are the last lines that were
// there before; if the log has lost some of them since, it begins with the others.
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
