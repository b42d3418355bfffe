package terminal

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
)

// editor edits lines on a terminal in raw mode, by golang.org/x/term. That knows few
// keys, takes Ctrl-C for the end of input (golang/go#62385) and spins when an escape
// sequence has no end. So the editor stands between it and the terminal: it reads the
// keys itself (terminal_keys.go), and x/term is given one at a time as it wants them.
type editor struct {
	in      *input
	out     io.Writer
	history history
	// size is the terminal's width as the kernel knows it, 0 if it does not, as on a
	// serial line. Then the terminal is asked.
	size func() int
	// width is what is known of it, else 0.
	width int
	// unasked is set when it is to be asked with the next prompt.
	unasked bool

	// What follows is of one connection.
	term *term.Terminal
	conn *serverConn
	err  error // for which x/term was told to end

	// What follows is of one line.
	before    string // what it goes on
	answering bool   // it is no command, and only characters count
	cancelled bool
	safe      bool // Ctrl-X was pressed
	tooLong   bool
	pasting   bool // between the marks of a bracketed paste
	returned  bool // the last byte was a carriage return, of which a line feed is part
	typed     string
	entered   bool // typed last was the end of the line
	held      bool // a line end at the right margin is not written yet
}

const (
	// unknownWidth is taken for the width of a terminal that does not tell it.
	unknownWidth = 80
	// A terminal that tells another width than these is not believed.
	minWidth, maxWidth = 20, 1000
	// widthQuery asks a VT100 where the cursor is when it is as far right as it goes, and
	// for wrapping at the margin, which not all do unasked.
	widthQuery = "\x1b[?7h\x1b7\x1b[999C\x1b[6n\x1b8"
)

func newEditor(in *input, out io.Writer, size func() int) *editor {
	return &editor{in: in, out: out, size: size, unasked: true}
}

// begin makes the editor one of a connection's lines.
func (e *editor) begin(conn *serverConn) {
	e.conn, e.err, e.typed = conn, nil, ""
	e.term = term.NewTerminal(e, "")
	e.term.AutoCompleteCallback = e.pressed
	e.term.History = &e.history
	_ = e.term.SetSize(e.columns(), 1) // nothing is shown yet
}

// columns is the width to count with.
func (e *editor) columns() int {
	if e.width == 0 {
		return unknownWidth
	}
	return e.width
}

// setWidth heeds what the kernel or the terminal tells.
func (e *editor) setWidth(width int) {
	if width < minWidth || width > maxWidth || width == e.width {
		return
	}
	e.width = width
	_ = e.term.SetSize(width, 1) // Write keeps the error
}

// askWidth asks the terminal unless the kernel knows. The answer is heeded when it
// comes: nobody waits for it.
func (e *editor) askWidth() error {
	if e.size() > 0 {
		return nil
	}
	return e.write(widthQuery)
}

func (e *editor) write(text string) error {
	if _, err := io.WriteString(e.out, text); err != nil {
		return fmt.Errorf("%w: write: %w", errTerminal, err)
	}
	return nil
}

// readLine lets the user edit a line that goes on what is before it. It returns
// errLeave if the user wants to leave, errSafe to enter or leave Safe Mode,
// errCancelled if not this line, and io.EOF if the terminal has gone.
func (e *editor) readLine(before, prompt string) (string, error) {
	e.term.SetPrompt(prompt)
	return e.read(before, e.term.ReadLine)
}

// read reads a line that goes on what is before it.
func (e *editor) read(before string, readLine func() (string, error)) (string, error) {
	e.before, e.cancelled, e.safe, e.tooLong, e.entered = before, false, false, false, false
	e.setWidth(e.size())
	line, err := readLine()
	switch {
	case e.err != nil:
		return "", e.err
	case err == io.EOF: // Ctrl-D
		_, _ = e.Write([]byte("\r\n"))
		e.begin(e.conn) // x/term still stands behind the prompt
		return "", errLeave
	case err != nil:
		return "", fmt.Errorf("%w: %w", errTerminal, err)
	case e.cancelled:
		return "", errCancelled
	case e.safe:
		return "", errSafe
	case e.tooLong:
		line += strings.Repeat(" ", console.MaxLine) // x/term drops what does not fit
	case line == "" && before == "":
		// So begins who has just plugged a terminal in, perhaps a narrower one.
		e.unasked = true
	}
	return line, nil
}

// readAnswer reads a line without completion, help and history, and does not show it
// if it is secret.
func (e *editor) readAnswer(prompt string, secret bool) (string, error) {
	e.answering = true
	e.term.History = &history{}
	defer func() {
		e.answering = false
		e.term.History = &e.history
	}()
	if secret {
		e.term.SetPrompt("")
		return e.read("", func() (string, error) { return e.term.ReadPassword(prompt) })
	}
	e.term.SetPrompt(prompt)
	return e.read("", e.term.ReadLine)
}

// Read gives x/term what one key means. It is called when the prompt is there.
func (e *editor) Read(p []byte) (int, error) {
	if e.unasked {
		// Behind the prompt, which thus begins its line: there are programs that look
		// for it there.
		e.unasked = false
		e.err = e.askWidth()
	}
	for e.typed == "" && e.err == nil {
		e.typed, e.err = e.key()
	}
	if e.typed == "" {
		return 0, e.err
	}
	if key, _ := utf8.DecodeRuneInString(e.typed); e.answering && key == keyCancel {
		e.cancelled, e.typed = true, "\r"
	}
	e.entered = e.typed == "\r"
	n := copy(p, e.typed)
	e.typed = e.typed[n:]
	return n, nil
}

// Write shows what x/term wants to be seen, but for the line end that it writes when a
// line has come to the right margin, in order to know where the cursor is. That is
// kept back until the cursor has to move: a line that is typed to its end then appears
// as it was typed, the terminal wraps it, and what copies it from there, a person or
// a test, finds no line end in it.
func (e *editor) Write(p []byte) (int, error) {
	const lineEnd = "\r\n"
	text := string(p)
	if text == "" {
		return 0, nil
	}
	if e.held && text[0] < ' ' && text != lineEnd {
		text = lineEnd + text
	}
	e.held = !e.entered && len(text) > len(lineEnd) && strings.HasSuffix(text, lineEnd)
	if e.held {
		text = strings.TrimSuffix(text, lineEnd)
	}
	// x/term does not look at the error: its next Read is told.
	if err := e.write(text); err != nil && e.err == nil {
		e.err = err
	}
	return len(p), nil
}

// pressed is called by x/term for each key that is not one of its own, and what it
// returns says that x/term shall deal with it: put it into the line if it is a
// character, else nothing.
func (e *editor) pressed(line string, pos int, key rune) (string, int, bool) {
	before := e.before + line[:pos]
	switch {
	case e.answering:
	case key == '\t':
		e.complete(before)
	case key == keyHelp, key == keyQuestion && !literal(before):
		if text, ok := e.ask(wire.Explain, before, wire.Help); ok {
			e.above(text)
		}
	case key == keyQuestion:
		e.typed = "?"
	case key == keyCancel:
		e.cancelled, e.typed = true, "\r"
	case key == keySafe:
		e.safe, e.typed = true, "\r"
	case len(line) >= console.MaxLine:
		e.tooLong = true
	}
	return "", 0, false
}

// complete types what can only follow, or shows what can.
func (e *editor) complete(before string) {
	text, ok := e.ask(wire.Complete, before, wire.Choices)
	if !ok {
		return
	}
	insert, names := wire.DecodeChoices(text)
	switch {
	case insert != "":
		e.typed = insert
	case len(names) > 1:
		e.above(inColumns(names, e.columns()))
	}
}

// ask asks the server something. If that fails, the line ends with the error.
func (e *editor) ask(kind byte, before string, answer byte) (string, bool) {
	err := e.conn.tellWidth(e.width)
	var text string
	if err == nil {
		text, err = e.conn.ask(kind, before, answer)
	}
	if err != nil {
		e.err = err
	}
	return text, err == nil
}

// above shows text where the line is, and the line again below.
func (e *editor) above(text string) {
	// x/term clears the rows down to that of the cursor.
	_, _ = e.Write([]byte("\x1b[J"))
	_, _ = e.term.Write([]byte(text)) // Write keeps the error
}

// inColumns arranges names in rows of at most width-1 characters.
func inColumns(names []string, width int) string {
	cell := 1
	for _, name := range names {
		cell = max(cell, len(name)+2)
	}
	perRow := max(1, (width+1)/cell)
	var b strings.Builder
	for i, name := range names {
		if i%perRow == perRow-1 || i == len(names)-1 {
			b.WriteString(name + "\n")
		} else {
			fmt.Fprintf(&b, "%-*s", cell, name)
		}
	}
	return b.String()
}

// literal reports whether "?" behind before is a character of the line: in quotes
// or in a comment.
func literal(before string) bool {
	quoted, comment, start := false, false, true // start: of a statement
	for i := 0; i < len(before); i++ {
		c := before[i]
		switch {
		case comment:
			comment = c != '\n'
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted, start = !quoted, false
		case quoted:
		case c == '\n' || c == ';':
			start = true
		case c == '#' && start:
			comment = true
		case c != ' ' && c != '\t':
			start = false
		}
	}
	return quoted || comment
}

// history is the lines that were typed, as x/term wants it.
type history struct {
	lines []string // oldest first
	bytes int
}

// The history keeps as many lines, and as many bytes in all.
const (
	maxHistory      = 100
	maxHistoryBytes = 32 << 10
)

// Add is x/term's and does nothing: what it is given may be cancelled, or a part of a
// line.
func (h *history) Add(string) {}

// remember adds a line that is not empty nor the same as the last.
func (h *history) remember(line string) {
	if strings.TrimSpace(line) == "" || len(h.lines) > 0 && h.lines[len(h.lines)-1] == line {
		return
	}
	h.lines = append(h.lines, line)
	h.bytes += len(line)
	for len(h.lines) > maxHistory || h.bytes > maxHistoryBytes {
		h.bytes -= len(h.lines[0])
		h.lines = h.lines[1:]
	}
}

// Len and At are x/term's: the latest line is at 0.
func (h *history) Len() int        { return len(h.lines) }
func (h *history) At(i int) string { return h.lines[len(h.lines)-1-i] }
