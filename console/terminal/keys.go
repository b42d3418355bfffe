package terminal

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Control characters, as a terminal sends them.
const (
	ctrlC     = 0x03
	ctrlL     = 0x0c
	ctrlO     = 0x0f
	ctrlX     = 0x18
	ctrlZ     = 0x1a
	keyEscape = 0x1b
)

// Keys for editor.pressed, by characters that x/term does not use. If the terminal sends one
// of these characters, it is dropped.
const (
	keyPage     = 0x1a // Page Down
	keySafe     = 0x1c // Ctrl-X or F4
	keyQuestion = 0x1d // "?", which may be a character
	keyHelp     = 0x1e // F1
	keyCancel   = 0x1f // Ctrl-C
)

// keyDown is the key of that arrow, as x/term knows it.
const keyDown = "\x1b[B"

// controls are the control characters that x/term knows: Ctrl-A, B, D, E, F,
// backspace, Tab, Ctrl-K, L, N, P, T, U, W and delete. All others are dropped.
const controls = "\x01\x02\x04\x05\x06\b\t\x0b\x0c\x0e\x10\x14\x15\x17\x7f"

// key reads one key and returns it in the form that x/term understands, or "" if it has no
// meaning. Bytes that are no key, from an unknown terminal or noise on the line, are dropped.
func (e *editor) key() (string, error) {
	c, err := e.in.peek()
	if err != nil {
		return "", err
	}
	if c >= utf8.RuneSelf {
		return e.character()
	}
	e.in.skip()
	second := e.returned && c == '\n'
	e.returned = c == '\r'
	switch {
	case second: // of "\r\n"
		return "", nil
	case c == '\r' || c == '\n':
		return "\r", nil
	case c == ctrlC:
		e.pasting = false
		return string(rune(keyCancel)), nil
	case c == ctrlO && e.editing && !e.pasting:
		return "\r", nil
	case c == ctrlX && !e.pasting:
		return string(rune(keySafe)), nil
	case c == keyEscape:
		return e.sequence()
	case c == '\t' && e.pasting:
		return " ", nil
	case c == '?' && !e.pasting && !e.answering:
		return string(rune(keyQuestion)), nil
	case c == ctrlL:
		err = e.askSize()
	}
	if (c < ' ' || c == 0x7f) && (e.pasting || strings.IndexByte(controls, c) < 0) {
		return "", err
	}
	return string(rune(c)), err
}

// character reads a character that is not ASCII.
func (e *editor) character() (string, error) {
	var b []byte
	for !utf8.FullRune(b) {
		c, err := e.in.peek()
		if err != nil {
			return "", err
		}
		if len(b) > 0 && utf8.RuneStart(c) {
			return "", nil // c begins the next
		}
		b = append(b, c)
		e.in.skip()
	}
	r, n := utf8.DecodeRune(b)
	if r == utf8.RuneError && n < 2 || !strconv.IsPrint(r) {
		return "", nil
	}
	return string(r), nil
}

// sequence reads what follows an escape character: CSI, parameters and a final character, or
// SS3 and one character. A control character ends it early. Anything else is a key of its own.
func (e *editor) sequence() (string, error) {
	kind, err := e.in.peek()
	if err != nil || kind != '[' && kind != 'O' {
		return "", err
	}
	e.in.skip()
	const longest = 16 // of the parameters that are looked at
	var parameters []byte
	for {
		c, err := e.in.peek()
		if err != nil || c < ' ' || c >= 0x7f {
			return "", err
		}
		e.in.skip()
		switch {
		case kind == '[' && c == '[' && len(parameters) == 0:
			kind = 'O' // the Linux console's function keys: CSI [ A is F1
			parameters = append(parameters, c)
		case kind == 'O' || c >= '@':
			return e.meaning(kind, string(parameters), c), nil
		case len(parameters) < longest:
			parameters = append(parameters, c)
		}
	}
}

// meaning returns an escape sequence in the form that x/term understands.
func (e *editor) meaning(kind byte, parameters string, final byte) string {
	const home, end, remove = "\x01", "\x05", "\x1b[3~"
	first, second, modified := strings.Cut(parameters, ";")
	switch {
	case parameters == "[":
		switch final {
		case 'A':
			return string(rune(keyHelp))
		case 'D':
			return string(rune(keySafe))
		}
	case kind == 'O' && final == 'P':
		return string(rune(keyHelp))
	case kind == 'O' && final == 'S':
		return string(rune(keySafe))
	case final == 'H':
		return home
	case final == 'F':
		return end
	case (final == 'C' || final == 'D') && modified: // with Alt or Ctrl: by a word
		return "\x1b[1;3" + string(rune(final))
	case final >= 'A' && final <= 'D':
		return "\x1b[" + string(rune(final))
	case final == 'R' && kind == '[': // where the cursor is
		height, _ := strconv.Atoi(first)
		if width, err := strconv.Atoi(second); err == nil {
			e.setSize(width, height)
		}
	case final == '~':
		switch first {
		case "1", "7":
			return home
		case "4", "8":
			return end
		case "3":
			return remove
		case "6":
			return string(rune(keyPage))
		case "11":
			return string(rune(keyHelp))
		case "14":
			return string(rune(keySafe))
		case "200", "201":
			e.pasting = first == "200"
		}
	}
	return ""
}
