// Package terminal is the user's end of a person's session. It shows what the router (package
// session) sends, and reads lines with editing, history, completion and help.
//
// A terminal is any reader and writer with a width: a serial line, or a channel of SSH. The
// package promises that it writes to the terminal only what the router sends, escape sequences
// of its own that a VT100 knows, and the echo of printable characters, and that what it holds
// of either side is bounded.
package terminal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
)

// Terminal is what a user sits at.
type Terminal struct {
	in  *input
	out io.Writer
	// editor is set for a real terminal, and lines for files and pipes.
	editor *editor
	lines  *bufio.Reader
	done   chan struct{} // closed by Close
	// command is the only line that is run, nil if lines are read.
	command *command
	// program is set if a program reads what is shown, so that a note for people is left out.
	program bool
	// replaces is set while screens are shown one in the place of the other, and paused if the one that is there stays.
	replaces, paused bool
}

// New makes a terminal of in and out, and starts to read in. size returns the number of columns
// and rows. Columns are 0 if only the terminal knows them, as on a serial line: then the terminal is
// asked. Rows are 0 if nobody reads the screen page by page.
// The caller must have put the terminal into raw mode. Its lines are edited, completed and
// remembered here.
//
// If size is nil, in and out are files or pipes: lines are read and written as they come.
func New(in io.Reader, out io.Writer, size func() (columns, rows int)) *Terminal {
	t := &Terminal{out: out, done: make(chan struct{})}
	t.in = readAhead(in, t.done)
	if size != nil {
		t.editor = newEditor(t.in, out, size)
	} else {
		// A line that fills the buffer is too long: MaxLine, the line end, and one more.
		t.lines = bufio.NewReaderSize(t.in, console.MaxLine+2)
	}
	return t
}

// command is a line that is run without a person.
type command struct {
	line    string
	columns int
	begun   bool
}

// Exec runs one line in a session with the server at the other end of conn, as a command of SSH: it
// writes to out what the line says, with the line ends of a terminal, as RouterOS does, and reads the
// answers to questions from in. columns is the width of the screen that the line is told. The error is
// as that of Talk.
func Exec(conn io.ReadWriter, line string, columns int, in io.Reader, out io.Writer) error {
	t := New(in, out, nil)
	defer t.Close()
	t.command, t.program = &command{line: line, columns: columns}, true
	return t.Talk(conn)
}

// ForProgram says that a program reads what is shown: a note for people is not for it.
func (t *Terminal) ForProgram() { t.program = true }

// Close stops reading in. A Read that has already started may still consume some bytes.
func (t *Terminal) Close() { close(t.done) }

var (
	// errTerminal marks an error of the terminal and not of the connection.
	errTerminal = errors.New("terminal")
	// errCancelled is the error of a line that the user has given up, errLeave if the user
	// wants to leave, and errSafe if the user has pressed Ctrl-X.
	errCancelled = errors.New("cancelled")
	errLeave     = errors.New("leave")
	errSafe      = errors.New("safe mode")
)

// show writes text, each line from the left margin.
func (t *Terminal) show(text string) error {
	if t.editor != nil || t.command != nil {
		// In raw mode a line feed does not move the cursor to the left.
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	if _, err := io.WriteString(t.out, text); err != nil {
		return fmt.Errorf("%w: write: %w", errTerminal, err)
	}
	return nil
}

// frame is a received frame, or the error of receiving one.
type frame struct {
	kind byte
	text string
	err  error
}

// serverConn is the terminal's end of a session.
type serverConn struct {
	io.Writer
	frames <-chan frame
	// columns and rows are what the server was told last.
	columns, rows int
}

// connect receives frames until done, so that the terminal can wait for keys too.
func connect(conn io.ReadWriter, done <-chan struct{}) *serverConn {
	frames := make(chan frame)
	go func() {
		for {
			var f frame
			f.kind, f.text, f.err = wire.Receive(conn)
			select {
			case frames <- f:
			case <-done:
				return
			}
			if f.err != nil {
				return
			}
		}
	}()
	return &serverConn{Writer: conn, frames: frames}
}

// tellSize tells the server the terminal's size if it has changed.
func (c *serverConn) tellSize(columns, rows int) error {
	if columns == c.columns && rows == c.rows {
		return nil
	}
	c.columns, c.rows = columns, rows
	return wire.Send(c, wire.Size, wire.EncodeSize(columns, rows))
}

// ask sends a frame and returns the text of the next, which must be of kind answer.
func (c *serverConn) ask(kind byte, text string, answer byte) (string, error) {
	if err := wire.Send(c, kind, text); err != nil {
		return "", err
	}
	f := <-c.frames
	if f.err == nil && f.kind != answer {
		f.err = wire.Unexpected(f.kind, f.text)
	}
	return f.text, f.err
}

// Talk holds one session with the server at the other end of conn: it shows what the server
// sends, and sends it lines. A line that ends with "\" continues after the prompt "\... ". Talk
// returns nil when the user has quit or in has ended, else the error of the connection or of
// the terminal. The caller then has to close conn.
func (t *Terminal) Talk(conn io.ReadWriter) error {
	done := make(chan struct{})
	defer close(done)
	c := connect(conn, done)
	if t.editor != nil {
		t.editor.begin(c)
	}
	var (
		repeats bool // the line goes on until it is interrupted
		replace bool // the next output is shown in the place of, unless paused,
		rows    int  // so many rows
		// prompted is set while a prompt stands below the screen.
		prompted bool
	)
	for {
		f, err := t.await(c, &repeats)
		if err != nil {
			return err
		}
		if prompted && f.kind != wire.Replace && !(f.kind == wire.Output && t.paused) {
			prompted = false
			if err := t.show("\r\x1b[K"); err != nil {
				return err
			}
		}
		switch f.kind {
		case wire.Output:
			text := f.text
			if replace && t.paused {
				continue
			}
			if t.editor != nil {
				if replace && rows > 0 {
					text = fmt.Sprintf("\x1b[%dA\x1b[J", rows) + text
					rows = 0
				}
				rows += rowsOf(f.text, t.editor.columns())
			}
			replace = false
			if err := t.show(text); err != nil {
				return err
			}
			if len(text) > wire.LongOutput {
				debug.FreeOSMemory()
			}
		case wire.Note:
			if t.program {
				continue
			}
			if err := t.show(f.text); err != nil {
				return err
			}
		case wire.Replace, wire.Follow:
			repeats, replace = true, f.kind == wire.Replace
			if t.editor != nil && replace {
				t.editor.look()
				if err := c.tellSize(t.editor.width, t.editor.height); err != nil {
					return err
				}
			}
			if t.replaces = replace; f.text != "" && t.editor != nil && !prompted {
				prompted = true
				if err := t.show(f.text[:min(len(f.text), t.editor.columns()-1)]); err != nil {
					return err
				}
			}
		case wire.Prompt:
			repeats, replace, rows = false, false, 0
			t.replaces, t.paused = false, false
			if t.command != nil {
				if t.command.begun {
					return nil
				}
				t.command.begun = true
				if err := c.tellSize(t.command.columns, 0); err != nil {
					return err
				}
				if err := wire.Send(c, wire.Line, t.command.line); err != nil {
					return err
				}
				continue
			}
			line, err := t.ask(f.text)
			if err == io.EOF {
				return nil
			}
			if err := t.reply(c, line, err); err != nil {
				return err
			}
		case wire.Ask, wire.Secret:
			line, err := t.answer(f.text, f.kind == wire.Secret)
			if err == io.EOF && t.command != nil {
				err = errLeave // there is nobody to answer
			}
			if err == io.EOF {
				return nil
			}
			if err := t.reply(c, line, err); err != nil {
				return err
			}
		case wire.Edit:
			line, err := "", errLeave
			if t.editor != nil {
				prompt, value, _ := strings.Cut(f.text, "\n")
				line, err = t.editor.editValue(prompt, value)
			} else if err := t.show("failure: edit needs a terminal; set changes a value\n"); err != nil {
				return err
			}
			if err == io.EOF {
				return nil
			}
			if err := t.reply(c, line[:min(len(line), console.MaxLine)], err); err != nil {
				return err
			}
		case wire.More:
			answer, err := wire.Dump, error(nil)
			if t.editor != nil {
				answer, err = t.editor.more(f.text)
			}
			if err == io.EOF {
				return nil
			}
			if err := t.reply(c, answer, err); err != nil {
				return err
			}
		case wire.End:
			return nil
		default:
			return wire.Unexpected(f.kind, f.text)
		}
	}
}

// reply sends the line that was read, or the frame that the error of reading stands for.
func (t *Terminal) reply(c *serverConn, line string, err error) error {
	kind := byte(wire.Line)
	switch err {
	case nil:
	case errSafe:
		kind, line = wire.Safe, ""
	case errLeave, errCancelled:
		kind, line = wire.Leave, ""
	default:
		return err
	}
	if t.editor != nil {
		t.editor.look() // it may have been resized since the prompt
		if err := c.tellSize(t.editor.width, t.editor.height); err != nil {
			return err
		}
	}
	return wire.Send(c, kind, line)
}

// rowsOf is how many rows of the screen text takes.
func rowsOf(text string, columns int) int {
	rows := 0
	for line := range strings.Lines(text) {
		n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n"))
		rows += max(1, (n+columns-1)/columns)
	}
	return rows
}

// await waits for a frame of the server. What is typed meanwhile is kept for the next prompt.
// Ctrl-C discards that and interrupts the server. Any key interrupts a line that repeats
// itself.
func (t *Terminal) await(c *serverConn, repeats *bool) (frame, error) {
	for {
		if whole, err := t.screenKey(c); whole || err != nil {
			if err != nil {
				return frame{}, err
			}
			continue
		}
		if *repeats && t.pressed() {
			*repeats = false
			if err := wire.Send(c, wire.Interrupt, ""); err != nil {
				return frame{}, err
			}
		}
		chunks := t.in.chunks
		if t.in.ended || len(t.in.ahead) > maxAhead {
			chunks = nil
		}
		select {
		case f := <-c.frames:
			return f, f.err
		case chunk, ok := <-chunks:
			t.in.add(chunk, ok)
			if t.editor == nil {
				continue
			}
			if i := bytes.LastIndexByte(chunk, ctrlC); i >= 0 {
				t.in.ahead = bytes.Clone(chunk[i+1:])
				*repeats = false
				if err := wire.Send(c, wire.Interrupt, ""); err != nil {
					return frame{}, err
				}
			}
		}
	}
}

// screenKey acts on the keys of a screen that repeats itself, D and Ctrl-Z, and reports whether it was one.
func (t *Terminal) screenKey(c *serverConn) (bool, error) {
	if t.editor == nil || !t.replaces || len(t.in.ahead) != 1 {
		return false, nil
	}
	switch t.in.ahead[0] {
	case 'd', 'D':
		t.replaces, t.paused, t.in.ahead = false, false, nil
		return true, wire.Send(c, wire.Whole, "")
	case ctrlZ:
		t.paused, t.in.ahead = !t.paused, nil
		return true, nil
	}
	return false, nil
}

// pressed reports whether a key was pressed, or a line or the end of input has come. A key
// that can only be meant as an interrupt is removed.
func (t *Terminal) pressed() bool {
	if t.command != nil {
		return false // what comes is for questions
	}
	if t.editor == nil {
		return t.in.ended || t.lines.Buffered() > 0 || len(t.in.ahead) > 0
	}
	if len(t.in.ahead) == 1 && bytes.IndexByte([]byte("qQ \r\x1b"), t.in.ahead[0]) >= 0 {
		t.in.ahead = nil
		return true
	}
	return t.in.ended || len(t.in.ahead) > 0
}

// ask reads a line with its continuations. At the end of input it returns io.EOF.
func (t *Terminal) ask(prompt string) (string, error) {
	var line strings.Builder
	next := prompt
	for {
		part, err := t.readPart(line.String(), next)
		if err == errCancelled {
			line.Reset()
			next = prompt
			continue
		}
		if err != nil {
			return "", err
		}
		line.WriteString(part)
		if line.Len() <= console.MaxLine && console.Continues(part) {
			line.WriteByte('\n')
			next = `\... `
			continue
		}
		if line.Len() <= console.MaxLine {
			// A line that sets a password is not kept for the next user. The word cannot be
			// shortened.
			if t.editor != nil && !strings.Contains(joined(line.String()), "password") {
				t.editor.history.remember(joined(line.String()))
			}
			return line.String(), nil
		}
		if err := t.show(fmt.Sprintf("line longer than %d bytes\n", console.MaxLine)); err != nil {
			return "", err
		}
		line.Reset()
		next = prompt
	}
}

// readPart reads a line; before are the lines that it continues. Of a line longer than MaxLine
// it returns more than MaxLine bytes, but not all of them.
func (t *Terminal) readPart(before, prompt string) (string, error) {
	if t.editor != nil {
		return t.editor.readLine(before, prompt)
	}
	if err := t.show(prompt); err != nil {
		return "", err
	}
	data, err := t.lines.ReadSlice('\n')
	line := strings.TrimRight(string(data), "\r\n")
	for err == bufio.ErrBufferFull {
		_, err = t.lines.ReadSlice('\n')
	}
	if err == io.EOF && line != "" {
		return line, nil
	}
	return line, err
}

// answer reads the answer to a question, which is not remembered. The error is errLeave if the
// user gives up.
func (t *Terminal) answer(prompt string, secret bool) (string, error) {
	line, err := "", error(nil)
	if t.editor != nil {
		line, err = t.editor.readAnswer(prompt, secret)
	} else {
		line, err = t.readPart("", prompt)
	}
	return line[:min(len(line), console.MaxLine)], err
}

// joined is a line and its continuations as one line.
func joined(line string) string {
	var b strings.Builder
	for i, part := range strings.Split(line, "\n") {
		if i > 0 {
			part = strings.TrimLeft(part, " \t")
		}
		if console.Continues(part) {
			part = strings.TrimSuffix(part, `\`)
		}
		b.WriteString(part)
	}
	return b.String()
}

const (
	// aheadChunks and maxAhead bound what is read while a line is executed. A paste of many
	// lines comes faster than they are executed, and the kernel keeps only 4 KB of it.
	aheadChunks = 1024
	maxAhead    = 64 << 10
	// chunkSize is how much is read at once. A UART gives at most 16 bytes.
	chunkSize = 256
)

// input reads what the terminal sends ahead of its use. One goroutine may call its methods.
type input struct {
	chunks <-chan []byte
	// err is why chunks was closed. It may be read only after that.
	err   error
	ended bool
	ahead []byte
}

// readAhead reads r until its end or done.
func readAhead(r io.Reader, done <-chan struct{}) *input {
	chunks := make(chan []byte, aheadChunks)
	in := &input{chunks: chunks}
	go func() {
		defer close(chunks)
		buf := make([]byte, chunkSize)
		for {
			n, err := r.Read(buf)
			if n > 0 {
				select {
				case chunks <- bytes.Clone(buf[:n]):
				case <-done:
					return
				}
			}
			if err == io.EOF {
				in.err = err
				return
			}
			if err != nil {
				in.err = fmt.Errorf("%w: read: %w", errTerminal, err)
				return
			}
		}
	}()
	return in
}

// add appends what was received from chunks.
func (in *input) add(chunk []byte, ok bool) {
	in.ahead = append(in.ahead, chunk...)
	in.ended = in.ended || !ok
}

// peek waits for a byte and does not consume it.
func (in *input) peek() (byte, error) {
	for len(in.ahead) == 0 {
		if in.ended {
			return 0, in.err
		}
		chunk, ok := <-in.chunks
		in.add(chunk, ok)
	}
	return in.ahead[0], nil
}

// skip consumes the byte that peek has returned.
func (in *input) skip() { in.ahead = in.ahead[1:] }

func (in *input) Read(p []byte) (int, error) {
	if _, err := in.peek(); err != nil {
		return 0, err
	}
	n := copy(p, in.ahead)
	in.ahead = in.ahead[n:]
	return n, nil
}
