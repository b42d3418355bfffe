package session

import (
	"strings"
	"unicode/utf8"

	"github.com/postern-router/postern/console/internal/wire"
)

// morePrompt is what RouterOS shows at the end of a page.
const morePrompt = "-- [Q quit|D dump|down]"

// repeatPrompt is what RouterOS shows below a screen that repeats itself.
const repeatPrompt = "-- [Q quit|D dump|C-z pause]"

// screen shows as much of output as fits on the screen, whose last row is for repeatPrompt.
func (s *server) screen(output string) error {
	if s.height > 1 {
		output = output[:firstRows(output, s.session.Width, s.height-1)]
	}
	return s.show(output)
}

// setSize takes the size that the terminal has told. It reports whether text is one.
func (s *server) setSize(text string) bool {
	columns, rows, ok := wire.DecodeSize(text)
	if ok {
		s.session.Width, s.height = columns, rows
	}
	return ok
}

// page shows output, and stops at the end of each page until the user has read it.
func (s *server) page(output string) error {
	for room := s.height - 1; s.height > 0; {
		n := firstRows(output, s.session.Width, room)
		if n == len(output) {
			break
		}
		if err := s.show(output[:n]); err != nil {
			return err
		}
		output = output[n:]
		answer, ok, err := s.ask(wire.More, morePrompt)
		if err != nil || !ok {
			return err
		}
		switch room = s.height - 1; answer {
		case wire.NextLine:
			room = 1
		case wire.Dump:
			return s.show(output)
		}
	}
	return s.show(output)
}

// firstRows is the length of those lines of text that fit into so many rows, at least of one.
func firstRows(text string, columns, rows int) (n int) {
	for line := range strings.Lines(text) {
		taken := 1
		if columns > 0 {
			taken = max(1, (utf8.RuneCountInString(strings.TrimSuffix(line, "\n"))+columns-1)/columns)
		}
		if rows -= taken; rows < 0 && n > 0 {
			break
		}
		n += len(line)
	}
	return n
}
