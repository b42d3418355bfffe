package console

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The protocol of a session is frames over a stream socket, in either direction: a
// byte that says what it is, the length of the text in four bytes, high one first,
// and the text, at most maxFrame bytes.
//
// The server sends any number of outputs and then a prompt; the terminal answers a
// prompt with one line, before which it may tell its width. After end the server
// closes. A frame that is none of these ends the session.
const (
	frameOutput = 'O' // server: text to show
	framePrompt = 'P' // server: ask for a line with this prompt
	frameEnd    = 'E' // server: the session is over
	frameLine   = 'L' // terminal: a line, at most MaxLine bytes
	frameWidth  = 'W' // terminal: columns in two bytes, high one first; 0 is unknown
)

// maxFrame bounds what either side holds of the other's. Longer output is cut into
// several frames.
const maxFrame = 32 << 10

func send(w io.Writer, kind byte, text string) error {
	frame := append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(text))), text...)
	_, err := w.Write(frame)
	return err
}

func receive(r io.Reader) (kind byte, text string, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, "", err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, "", fmt.Errorf("frame of %d bytes, more than %d", n, maxFrame)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, "", fmt.Errorf("read frame of %d bytes: %w", n, noEOF(err))
	}
	return head[0], string(body), nil
}

// noEOF makes an end in the middle of something an error that is not io.EOF.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Serve holds a session with the terminal at the other end of conn, and closes
// conn when it is over: when execute asks to Quit, or the terminal hangs up. It
// calls prompt before each line and execute with the line; the output and then the
// error, if any, are shown. It returns an error if the terminal broke the protocol
// or the connection broke, and nil otherwise.
func Serve(conn net.Conn, execute func(session *Session, line string) (output string, request Request, err error), prompt func(*Session) string) error {
	defer conn.Close()
	if err := serve(conn, execute, prompt); err != nil {
		return fmt.Errorf("console session: %w", err)
	}
	return nil
}

func serve(conn net.Conn, execute func(*Session, string) (string, Request, error), prompt func(*Session) string) error {
	session := &Session{}
	for {
		if err := send(conn, framePrompt, prompt(session)); err != nil {
			return err
		}
		line, err := awaitLine(conn, session)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		output, request, err := execute(session, line)
		if err != nil {
			output += err.Error() + "\n"
		}
		for len(output) > 0 {
			n := min(len(output), maxFrame)
			if err := send(conn, frameOutput, output[:n]); err != nil {
				return err
			}
			output = output[n:]
		}
		if request == Quit {
			return send(conn, frameEnd, "")
		}
	}
}

func awaitLine(conn net.Conn, session *Session) (string, error) {
	for {
		kind, text, err := receive(conn)
		switch {
		case err != nil:
			return "", err
		case kind == frameLine && len(text) <= MaxLine:
			return text, nil
		case kind == frameWidth && len(text) == 2:
			session.Width = int(binary.BigEndian.Uint16([]byte(text)))
		default:
			return "", fmt.Errorf("unexpected frame %q of %d bytes", kind, len(text))
		}
	}
}

// retry is the pause between two attempts to reach the server.
const retry = 500 * time.Millisecond

// RunTerminal is the user's end of a session: a thin line client for a terminal
// that edits lines and ends them itself (cooked). It shows what the server at
// socketPath sends on out and sends it the lines of in; a line that ends with "\"
// is continued behind the prompt "\... ". If the server is not there, or goes, it
// says so and tries again for as long as it takes. It returns nil when the session
// is over: the user quit, or in has ended.
func RunTerminal(socketPath string, in io.Reader, out io.Writer) error {
	// A line that fills the buffer is too long: MaxLine, its end, and one more.
	t := terminal{in: bufio.NewReaderSize(in, MaxLine+2), out: out}
	for {
		conn, err := t.dial(socketPath)
		if err != nil {
			return err
		}
		err = t.talk(conn)
		conn.Close()
		if err == nil || errors.Is(err, errTerminal) {
			return err
		}
		if err := t.show("\nConnection to the router lost; the last line may have had no effect.\n"); err != nil {
			return err
		}
		time.Sleep(retry)
	}
}

// terminal is what RunTerminal reads and writes.
type terminal struct {
	in  *bufio.Reader
	out io.Writer
}

// errTerminal marks an error of the terminal and not of the connection.
var errTerminal = errors.New("terminal")

func (t terminal) show(text string) error {
	if _, err := io.WriteString(t.out, text); err != nil {
		return fmt.Errorf("%w: write: %w", errTerminal, err)
	}
	return nil
}

// dial connects to the server, however long that takes.
func (t terminal) dial(socketPath string) (net.Conn, error) {
	for told := false; ; told = true {
		conn, err := net.Dial("unix", socketPath)
		if err == nil {
			return conn, nil
		}
		if !told {
			if err := t.show("Waiting for the router: " + err.Error() + "\n"); err != nil {
				return nil, err
			}
		}
		time.Sleep(retry)
	}
}

// talk holds one session. It returns nil when it is over, an errTerminal, or the
// connection's error.
func (t terminal) talk(conn net.Conn) error {
	width := 0
	for {
		kind, text, err := receive(conn)
		if err != nil {
			return err
		}
		switch kind {
		case frameOutput:
			if err := t.show(text); err != nil {
				return err
			}
		case framePrompt:
			line, err := t.ask(text)
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			if w := columns(t.out); w != width {
				width = w
				if err := send(conn, frameWidth, string(binary.BigEndian.AppendUint16(nil, uint16(w)))); err != nil {
					return err
				}
			}
			if err := send(conn, frameLine, line); err != nil {
				return err
			}
		case frameEnd:
			return nil
		default:
			return fmt.Errorf("unexpected frame %q", kind)
		}
	}
}

// columns is the width of the terminal out, 0 if that is not known, as on a serial
// line.
func columns(out io.Writer) int {
	f, ok := out.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

// ask reads a line with its continuations. At the end of input it returns io.EOF.
func (t terminal) ask(prompt string) (string, error) {
	var line strings.Builder
	next := prompt
	for {
		if err := t.show(next); err != nil {
			return "", err
		}
		part, err := t.readLine()
		if err != nil {
			return "", err
		}
		line.WriteString(part)
		if line.Len() <= MaxLine && continues(part) {
			line.WriteByte('\n')
			next = `\... `
			continue
		}
		if line.Len() <= MaxLine {
			return line.String(), nil
		}
		if err := t.show(fmt.Sprintf("line longer than %d bytes\n", MaxLine)); err != nil {
			return "", err
		}
		line.Reset()
		next = prompt
	}
}

// readLine reads up to the end of a line. Of a line longer than MaxLine it returns
// more than MaxLine bytes, but not all.
func (t terminal) readLine() (string, error) {
	data, err := t.in.ReadSlice('\n')
	line := strings.TrimRight(string(data), "\r\n")
	for err == bufio.ErrBufferFull {
		_, err = t.in.ReadSlice('\n')
	}
	if err == io.EOF && line != "" {
		return line, nil
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%w: read: %w", errTerminal, err)
	}
	return line, err
}
