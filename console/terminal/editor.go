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

// editor edits lines on a terminal in raw mode, with golang.org/x/term. x/term knows few keys,
// takes Ctrl-C for the end of input (golang/go#62385) and spins if an escape sequence does not
// end. So the editor reads the keys itself (keys.go) and passes them on to x/term one at a
// time, in a form that it understands.
type editor struct {
	in      *input
	out     io.Writer
	history history
	// size returns the size that the kernel or a client of the network knows. It is 0 on a
	// serial line: then the terminal is asked.
	size func() (columns, rows int)
	// width and height are the size as far as it is known, else 0.
	width, height int
	// unasked is set if the terminal has to be asked with the next prompt.
	unasked bool

	// The following is for one connection.
	term *term.Terminal
	conn *serverConn
	err  error // for which x/term was told to end

	// The following is for one line.
	before    string // the lines that it continues
	editing   bool   // it is a value that was there: Ctrl-O keeps it
	answering bool   // it answers a question: no completion, help or history
	cancelled bool
	safe      bool // Ctrl-X was pressed
	tooLong   bool
	// repeated is set while what was typed ahead are keys for the next pages.
	repeated bool
	pasting  bool // between the marks of a bracketed paste
	returned bool // the last byte was a carriage return, of which a line feed is part
	typed    string
	entered  bool // typed last was the end of the line
	held     bool // a line end at the right margin is not written yet
}

const (
	// unknownWidth is assumed for a terminal that does not tell its width.
	unknownWidth = 80
	// A width outside these bounds is ignored.
	minWidth, maxWidth = 20, 1000
	// With a height outside these bounds there are no pages.
	minHeight, maxHeight = 4, 1000
	// sizeQuery turns wrapping at the margin on, which some terminals leave off, moves the
	// cursor to the right and down as far as it goes, and asks where it is (VT100).
	sizeQuery = "\x1b[?7h\x1b7\x1b[999;999H\x1b[6n\x1b8"
)

func newEditor(in *input, out io.Writer, size func() (columns, rows int)) *editor {
	return &editor{in: in, out: out, size: size, unasked: true}
}

// begin starts to edit lines for a connection.
func (e *editor) begin(conn *serverConn) {
	e.conn, e.err, e.typed = conn, nil, ""
	e.term = term.NewTerminal(e, "")
	e.term.AutoCompleteCallback = e.pressed
	e.term.History = &e.history
	_ = e.term.SetSize(e.columns(), 1) // nothing is shown yet
}

// columns is the width to calculate with.
func (e *editor) columns() int {
	if e.width == 0 {
		return unknownWidth
	}
	return e.width
}

// look takes the size that the kernel or a client of the network knows now.
func (e *editor) look() { e.setSize(e.size()) }

// setSize takes the size that the kernel or the terminal has told.
func (e *editor) setSize(width, height int) {
	if width < minWidth || width > maxWidth {
		return
	}
	if e.height = height; height < minHeight || height > maxHeight {
		e.height = 0
	}
	if width == e.width {
		return
	}
	e.width = width
	_ = e.term.SetSize(width, 1) // Write keeps the error
}

// askSize asks the terminal for its size unless the kernel knows it. It does not wait: the
// answer comes among the keys.
func (e *editor) askSize() error {
	if columns, _ := e.size(); columns > 0 {
		return nil
	}
	return e.write(sizeQuery)
}

func (e *editor) write(text string) error {
	if _, err := io.WriteString(e.out, text); err != nil {
		return fmt.Errorf("%w: write: %w", errTerminal, err)
	}
	return nil
}

// readLine lets the user edit a line; before are the lines that it continues. It returns
// errLeave if the user wants to leave (Ctrl-D), errSafe for Ctrl-X, errCancelled for Ctrl-C,
// and io.EOF at the end of input.
func (e *editor) readLine(before, prompt string) (string, error) {
	e.term.SetPrompt(prompt)
	return e.read(before, e.term.ReadLine)
}

// read reads a line with one of the methods of x/term.
func (e *editor) read(before string, readLine func() (string, error)) (string, error) {
	e.before, e.cancelled, e.safe, e.tooLong, e.entered = before, false, false, false, false
	e.look()
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
		// Users who have just plugged in a terminal, perhaps a narrower one, press Enter first.
		e.unasked = true
	}
	return line, nil
}

// readAnswer reads a line without completion, help and history. A secret one is not shown.
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

// editValue lets the user change a value. Ctrl-O ends that as Enter does. What was typed before, as a paste is, was not meant for it:
// then nothing is changed.
func (e *editor) editValue(prompt, value string) (string, error) {
	if e.skipLineFeed(); len(e.in.ahead) > 0 {
		return "", errLeave
	}
	e.typed, e.editing = value, true
	defer func() { e.editing = false }()
	return e.readAnswer(prompt, false)
}

// Read passes one key on to x/term, which calls it when the prompt is shown.
func (e *editor) Read(p []byte) (int, error) {
	if e.unasked {
		// After the prompt, so that the prompt is at the beginning of its line, where
		// programs look for it.
		e.unasked = false
		e.err = e.askSize()
	}
	for e.typed == "" && e.err == nil {
		e.typed, e.err = e.key()
		e.look()
		if e.tooLong && e.typed != "" && e.typed[0] >= ' ' && e.typed[0] != 0x7f {
			// x/term copies the whole line for each character, also of those that it drops.
			e.typed = ""
		}
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

// Write shows what x/term writes. When a line reaches the right margin, x/term writes a line
// end, so that it knows where the cursor is. Write holds that back until the cursor has to
// move, and lets the terminal wrap the line: whoever copies the line from the screen, a person
// or a test, then gets no line end within it.
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
	// x/term ignores the error of Write, so its next Read returns it.
	if err := e.write(text); err != nil && e.err == nil {
		e.err = err
	}
	return len(p), nil
}

// pressed is called by x/term for each key that is not one of its own. Its result always says
// that x/term shall go on: it inserts the key if that is a character.
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

// complete types what must follow, or shows what can follow.
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

// ask asks the server. If that fails, the line ends with the error.
func (e *editor) ask(kind byte, before string, answer byte) (string, bool) {
	err := e.conn.tellSize(e.width, e.height)
	var text string
	if err == nil {
		text, err = e.conn.ask(kind, before, answer)
	}
	if err != nil {
		e.err = err
	}
	return text, err == nil
}

// more shows the prompt at the end of a page, waits for a key and removes the prompt. It returns the answer to the server, or
// errLeave if the user has seen enough. What was typed before or is pasted was not meant for it, and stays for the next line.
func (e *editor) more(prompt string) (answer string, err error) {
	e.skipLineFeed() // of the line
	repeated := e.repeated && pageKeys(e.in.ahead)
	if e.repeated = false; len(e.in.ahead) > 0 && !repeated {
		return wire.Dump, nil
	}
	if err := e.write(prompt[:min(len(prompt), e.columns()-1)]); err != nil {
		return "", err
	}
	for {
		key, err := e.key()
		if err != nil {
			return "", err
		}
		e.skipLineFeed()
		const cancel = string(rune(keyCancel))
		known := true
		switch key {
		case "q", "Q", cancel:
			err = errLeave
		case "d", "D":
			answer = wire.Dump
		case " ", string(rune(keyPage)):
			answer = wire.NextPage
		case "\r", keyDown:
			answer = wire.NextLine
		default:
			known = false
		}
		// Nobody pastes Ctrl-C: what comes behind it is for the next line.
		again := pageKeys(e.in.ahead)
		e.repeated = known && again && (answer == wire.NextPage || answer == wire.NextLine)
		if known = known && (again || key == cancel); !known {
			if key == "" || key[0] < ' ' || key[0] == 0x7f {
				continue
			}
			// The next line has begun.
			if e.in.ahead = append([]byte(key), e.in.ahead...); len(e.in.ahead) > len(key) {
				answer, err = wire.Dump, nil
			} else {
				err = errLeave
			}
		}
		if e := e.write("\r\x1b[K"); e != nil {
			err = e
		}
		return answer, err
	}
}

// pageKeys reports whether what was typed are keys that go down, and nothing else: who holds one down sends several at once, and
// nobody pastes them.
func pageKeys(typed []byte) bool {
	text := string(typed)
	for _, key := range []string{" ", "\r", "\n", "\x1b[B", "\x1bOB", "\x1b[6~"} {
		text = strings.ReplaceAll(text, key, "")
	}
	return text == ""
}

// skipLineFeed removes the second byte of an Enter that is "\r\n", if it has come.
func (e *editor) skipLineFeed() {
	if e.returned && len(e.in.ahead) > 0 && e.in.ahead[0] == '\n' {
		e.in.skip()
		e.returned = false
	}
}

// above shows text in the place of the line, and the line again below it.
func (e *editor) above(text string) {
	// x/term clears only the rows down to the cursor.
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

// literal reports whether a "?" after before is a character of the line, because it is in
// quotes or in a comment.
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

// history is the lines that were typed. It implements term.History.
type history struct {
	lines []string // oldest first
	bytes int
}

// The bounds of the history, in lines and in bytes.
const (
	maxHistory      = 100
	maxHistoryBytes = 32 << 10
)

// Add does nothing: x/term calls it for lines that are cancelled and for parts of lines too.
func (h *history) Add(string) {}

// remember adds a line, unless it is empty or equal to the last.
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

// Len and At are called by x/term. The latest line is at 0.
func (h *history) Len() int        { return len(h.lines) }
func (h *history) At(i int) string { return h.lines[len(h.lines)-1-i] }
