package terminal

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// vt is the screen of a VT100. It knows only what package terminal uses: anything else fails
// the test.
type vt struct {
	width, height int
	rows          [][]rune
	x, y          int
	savedX        int
	savedY        int
	answer        func(string)
	pending       []byte
	unknown       string
}

func newVT(width int, answer func(string)) *vt {
	v := &vt{width: width, height: 24, answer: answer}
	v.clear()
	return v
}

func (v *vt) clear() {
	v.rows = nil
	for range v.height {
		v.rows = append(v.rows, nil)
	}
}

func (v *vt) Write(p []byte) (int, error) {
	v.pending = append(v.pending, p...)
	for len(v.pending) > 0 {
		n := v.one(v.pending)
		if n == 0 {
			break // torn
		}
		v.pending = v.pending[n:]
	}
	return len(p), nil
}

func (v *vt) one(p []byte) int {
	switch c := p[0]; {
	case c == '\r':
		v.x = 0
	case c == '\n':
		v.down()
	case c == 0x1b:
		return v.sequence(p)
	case c < ' ' || c == 0x7f:
		v.unknown += strconv.QuoteRune(rune(c))
	case !utf8.FullRune(p):
		return 0
	default:
		r, n := utf8.DecodeRune(p)
		if v.x == v.width { // it wraps when the next comes
			v.x = 0
			v.down()
		}
		row := v.rows[v.y]
		for len(row) <= v.x {
			row = append(row, ' ')
		}
		row[v.x] = r
		v.rows[v.y] = row
		v.x++
		return n
	}
	return 1
}

func (v *vt) down() {
	if v.y++; v.y == v.height {
		v.rows = append(v.rows[1:], nil)
		v.y--
	}
}

func (v *vt) sequence(p []byte) int {
	if len(p) < 2 {
		return 0
	}
	switch p[1] {
	case '7':
		v.savedX, v.savedY = v.x, v.y
		return 2
	case '8':
		v.x, v.y = v.savedX, v.savedY
		return 2
	case '[':
	default:
		v.unknown += fmt.Sprintf("%q", p)
		return 2
	}
	end := 2
	for end < len(p) && p[end] < '@' {
		end++
	}
	if end == len(p) {
		return 0
	}
	parameter := string(p[2:end])
	n := 1
	if i, err := strconv.Atoi(parameter); err == nil {
		n = i
	}
	v.x = min(v.x, v.width-1)
	switch parameter + string(rune(p[end])) {
	case "?7h":
	case "K":
		v.rows[v.y] = v.rows[v.y][:min(v.x, len(v.rows[v.y]))]
	case "J":
		v.rows[v.y] = v.rows[v.y][:min(v.x, len(v.rows[v.y]))]
		for y := v.y + 1; y < v.height; y++ {
			v.rows[y] = nil
		}
	case "2J":
		v.clear()
	case "999;999H":
		v.x, v.y = v.width-1, v.height-1
	case "H":
		v.x, v.y = 0, 0
	case "6n":
		v.answer(fmt.Sprintf("\x1b[%d;%dR", v.y+1, v.x+1))
	default:
		switch p[end] {
		case 'A':
			v.y = max(0, v.y-n)
		case 'B':
			v.y = min(v.height-1, v.y+n)
		case 'C':
			v.x = min(v.width-1, v.x+n)
		case 'D':
			v.x = max(0, v.x-n)
		default:
			v.unknown += fmt.Sprintf("%q", p[:end+1])
		}
	}
	return end + 1
}

// String is the screen with a "|" at the cursor.
func (v *vt) String() string {
	var b strings.Builder
	for y, row := range v.rows {
		line := strings.TrimRight(string(row), " ")
		if y == v.y {
			for utf8.RuneCountInString(line) < v.x {
				line += " "
			}
			runes := []rune(line)
			line = string(runes[:v.x]) + "|" + string(runes[v.x:])
		}
		b.WriteString(line + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}
