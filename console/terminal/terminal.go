// Package terminal is the user's end of a person's session: it shows what the router sends
// (package session), and reads lines with editing, history, completion and help.
package terminal

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
)

// Terminal is what a user sits at: bytes in, bytes out.
type Terminal struct {
	in  *input
	out io.Writer
	// Either editor is set or, if this is not really a terminal, lines.
	editor *editor
	lines  *bufio.Reader
	done   chan struct{} // closed by Close
}

// New makes a terminal of the bytes of in and out, which it reads from now on. Width returns
// the number of columns, or 0 if only the terminal itself knows them, as on a serial line:
// then it is asked. The terminal must be in raw mode, which is the caller's to see to, and
// its lines are edited, completed and remembered here.
//
// Without width (nil) in and out are files or pipes: lines are read and written as they
// come.
func New(in io.Reader, out io.Writer, width func() int) *Terminal {
	t := &Terminal{out: out, done: make(chan struct{})}
	t.in = readAhead(in, t.done)
	if width != nil {
		t.editor = newEditor(t.in, out, width)
	} else {
		// A line that fills the buffer is too long: MaxLine, its end, and one more.
		t.lines = bufio.NewReaderSize(t.in, console.MaxLine+2)
	}
	return t
}

// Close stops reading. A read of in that is under way may still take bytes away.
func (t *Terminal) Close() { close(t.done) }

var (
	// errTerminal marks an error of the terminal and not of the connection.
	errTerminal = errors.New("terminal")
	// errCancelled is that of a line which the user has given up, errLeave of one with
	// which they want to leave, errSafe of one in which they pressed Ctrl-X.
	errCancelled = errors.New("cancelled")
	errLeave     = errors.New("leave")
	errSafe      = errors.New("safe mode")
)

// show writes text from the left margin on.
func (t *Terminal) show(text string) error {
	if t.editor != nil {
		// A raw terminal does as it is told.
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	if _, err := io.WriteString(t.out, text); err != nil {
		return fmt.Errorf("%w: write: %w", errTerminal, err)
	}
	return nil
}

// frame is one that was received, or the error of receiving.
type frame struct {
	kind byte
	text string
	err  error
}

// serverConn is the terminal's end of a session.
type serverConn struct {
	io.Writer
	frames <-chan frame
	width  int // that the server was told
}

// connect receives frames ahead, so that keys can be heeded meanwhile, until done.
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

// tellWidth tells the server the terminal's width if it is another than before.
func (c *serverConn) tellWidth(width int) error {
	if width == c.width {
		return nil
	}
	c.width = width
	return wire.Send(c, wire.Width, string(binary.BigEndian.AppendUint16(nil, uint16(width))))
}

// ask sends a frame and returns the text of that of kind answer.
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

// Talk holds one session with the server at the other end of conn, which the caller closes
// when Talk has returned: it shows what the server sends and sends it lines. A line that ends
// with "\" is continued behind the prompt "\... ". Talk returns nil when the session is over
// because the user quit or in has ended; otherwise the error of the connection or of the
// terminal.
func (t *Terminal) Talk(conn io.ReadWriter) error {
	done := make(chan struct{})
	defer close(done)
	c := connect(conn, done)
	if t.editor != nil {
		t.editor.begin(c)
	}
	var (
		repeats bool // the line goes on until it is interrupted
		replace bool // the next output is shown in the place of
		rows    int  // so many rows
	)
	for {
		f, err := t.await(c, &repeats)
		if err != nil {
			return err
		}
		switch f.kind {
		case wire.Output:
			text := f.text
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
		case wire.Replace, wire.Follow:
			repeats, replace = true, f.kind == wire.Replace
		case wire.Prompt:
			repeats, replace, rows = false, false, 0
			line, err := t.ask(f.text)
			if err == io.EOF {
				return nil
			}
			if err := t.reply(c, line, err); err != nil {
				return err
			}
		case wire.Ask, wire.Secret:
			line, err := t.answer(f.text, f.kind == wire.Secret)
			if err == io.EOF {
				return nil
			}
			if err := t.reply(c, line, err); err != nil {
				return err
			}
		case wire.End:
			return nil
		default:
			return wire.Unexpected(f.kind, f.text)
		}
	}
}

// reply sends the line that was read, or what the error of reading it means.
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
		if err := c.tellWidth(t.editor.width); err != nil {
			return err
		}
	}
	return wire.Send(c, kind, line)
}

// rowsOf is how many rows of a screen text takes.
func rowsOf(text string, columns int) int {
	rows := 0
	for line := range strings.Lines(text) {
		n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n"))
		rows += max(1, (n+columns-1)/columns)
	}
	return rows
}

// await waits for a frame of the server. Meanwhile what is typed is kept for the
// next prompt; Ctrl-C throws that away and interrupts what the server does, and so
// does any key what repeats itself.
func (t *Terminal) await(c *serverConn, repeats *bool) (frame, error) {
	for {
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

// pressed reports whether a key was pressed, or a line or the end of input is
// there. A key that means no more than that is taken away.
func (t *Terminal) pressed() bool {
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
			// A line that sets a password is not kept for who comes next. No shorter word
			// stands for the property.
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

// readPart reads a line that goes on what is before it. Of one longer than MaxLine it
// returns more than MaxLine bytes, but not all.
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

// answer reads what is no command, and is not remembered: errLeave if it is given up.
func (t *Terminal) answer(prompt string, secret bool) (string, error) {
	line, err := "", error(nil)
	if t.editor != nil {
		line, err = t.editor.readAnswer(prompt, secret)
	} else {
		line, err = t.readPart("", prompt)
	}
	return line[:min(len(line), console.MaxLine)], err
}

// joined is a line with its continuations as one.
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
	// aheadChunks and maxAhead bound what is read ahead of a line that is being carried
	// out: a paste of many lines comes faster than they are done, and the kernel keeps
	// no more than 4 KB of it.
	aheadChunks = 1024
	maxAhead    = 64 << 10
	// chunkSize is the most that is read at once; a UART gives 16 bytes or less.
	chunkSize = 256
)

// input reads ahead what the terminal sends. Its methods are for one goroutine.
type input struct {
	chunks <-chan []byte
	// err is why chunks was closed; it may be read when it is.
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

// add takes what came from chunks.
func (in *input) add(chunk []byte, ok bool) {
	in.ahead = append(in.ahead, chunk...)
	in.ended = in.ended || !ok
}

// peek waits for a byte and leaves it there.
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

// skip takes away the byte that peek has shown.
func (in *input) skip() { in.ahead = in.ahead[1:] }

func (in *input) Read(p []byte) (int, error) {
	if _, err := in.peek(); err != nil {
		return 0, err
	}
	n := copy(p, in.ahead)
	in.ahead = in.ahead[n:]
	return n, nil
}
