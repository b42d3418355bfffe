// Package wire is the protocol between the two ends of a person's session: the router's
// (package session) and the user's (package terminal).
//
// It is frames over a stream socket, in either direction: a byte that says what the frame
// is, the length of its text in four bytes, high one first, and the text, at most MaxFrame
// bytes.
//
// The server sends a prompt. The terminal then asks for completion or help as often as it
// likes, each of which is answered by one frame, and sends a line; the server sends any
// number of outputs and the next prompt. Among the outputs, and ahead of the first prompt,
// it may ask something, which the terminal answers by a line, or by leave if the user does
// not want to answer. Of a line that repeats itself there is a replace or follow behind each
// output, until the terminal interrupts; of one that takes its time, as ping does, a follow
// ahead of them. An interrupt that comes too late for that is ignored. The terminal may tell
// its width ahead of everything but an interrupt. After end the server closes. A frame that
// is none of these ends the session.
package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// What the server sends.
const (
	Output  = 'O' // text to show
	Replace = 'R' // there will be more, in the place of what was shown since the line
	Follow  = 'F' // there will be more, below
	Choices = 'C' // what completion inserts, and behind it, on a line each, the choices
	Help    = 'H' // text to show, and go on with the line
	Prompt  = 'P' // ask for a line with this prompt
	Ask     = 'A' // ask for an answer, a line that is no command, with this prompt
	Secret  = 'S' // the same, and what is typed is not shown
	End     = 'E' // the session is over
)

// What the terminal sends.
const (
	Line      = 'L' // a line, at most console.MaxLine bytes
	Complete  = 'T' // complete this line, which is that up to the cursor
	Explain   = '?' // explain what can be typed behind this
	Safe      = 'X' // no line, but into Safe Mode or out of it
	Leave     = 'D' // no line, but an end to the session; no answer
	Interrupt = 'I' // stop what the line does
	Width     = 'W' // columns in two bytes, high one first; 0 is unknown
)

const (
	// MaxFrame bounds what either end holds of the other's. Longer output is cut into
	// several frames.
	MaxFrame = 32 << 10
	// LongOutput is how many bytes of output are long: either end gives the memory that
	// they took back to the system, which otherwise has it when the next 1 MB is used, maybe
	// never. On a router with 32 MB that is much.
	LongOutput = 8 << 10
)

// Send writes a frame.
func Send(w io.Writer, kind byte, text string) error {
	frame := append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(text))), text...)
	_, err := w.Write(frame)
	return err
}

// Receive reads a frame. At the end of r, between two frames, the error is io.EOF.
func Receive(r io.Reader) (kind byte, text string, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, "", err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxFrame {
		return 0, "", fmt.Errorf("frame of %d bytes, more than %d", n, MaxFrame)
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

// Unexpected is the error of a frame that must not come at this point.
func Unexpected(kind byte, text string) error {
	return fmt.Errorf("unexpected frame %q of %d bytes", kind, len(text))
}

// EncodeChoices is the text of Choices: as many names as fit.
func EncodeChoices(insert string, names []string) string {
	var b strings.Builder
	b.WriteString(insert)
	for _, name := range names {
		if b.Len()+1+len(name) > MaxFrame {
			break
		}
		b.WriteString("\n" + name)
	}
	return b.String()
}

// DecodeChoices reads what EncodeChoices made.
func DecodeChoices(text string) (insert string, names []string) {
	lines := strings.Split(text, "\n")
	return lines[0], lines[1:]
}
