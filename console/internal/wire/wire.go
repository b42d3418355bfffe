// Package wire is the protocol between the two ends of a person's session: the router's
// (package session) and the user's (package terminal).
//
// It is frames over a stream socket, in either direction: a byte that says what the frame
// is, the length of its text in four bytes, high one first, and the text, at most MaxFrame
// bytes.
//
// The server sends Prompt. The terminal then sends Complete or Explain as often as it likes,
// each of which is answered by one frame, and at last Line, to which the server answers with
// any number of Outputs and the next Prompt. Before the first Prompt it can send Note. Between the Outputs, and before the first Prompt,
// the server can send Ask, Secret or Edit, which the terminal answers with Line, or with Leave if the
// user does not want to answer.
//
// For a line that repeats itself the server sends Replace or Follow after each Output, until
// the terminal sends Interrupt. After Whole it is Follow, and nothing is cut any more that does not fit on the screen. For a line that takes a long time, as ping does, it sends
// Follow before the first Output. An Interrupt or a Whole that comes too late is ignored.
//
// At the end of each page of a long output the server sends More, which the terminal answers with
// Line, and one of the answers below, or with Leave if the user has seen enough. What is not shown
// yet stays with the server meanwhile.
//
// The terminal can send Size before any frame but Interrupt and Whole, and after each Replace. After End the server closes the
// connection. Any other frame ends the session.
//
// The sessions of programs (packages program and files) have other frames; they share Send and Receive, and Refusals.
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
	Note    = 'N' // text for a person who has logged in
	Replace = 'R' // there will be more, in the place of what was shown since the line; until then this prompt stands below it
	Follow  = 'F' // there will be more, below
	Choices = 'C' // what completion inserts, and behind it, on a line each, the choices
	Help    = 'H' // text to show, and go on with the line
	Prompt  = 'P' // ask for a line with this prompt
	Ask     = 'A' // ask for an answer, a line that is no command, with this prompt
	Secret  = 'S' // the same, and what is typed is not shown
	Edit    = 'V' // ask for an answer, behind a prompt of one line, to begin with the text below that
	More    = 'M' // wait for a key with this prompt, and remove the prompt
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
	Whole     = 'U' // go on with all that the line shows, below what is there
	Size      = 'W' // columns and rows, in two bytes each, high one first; 0 is unknown
)

// The answers to More.
const (
	NextPage = ""
	NextLine = "line"
	Dump     = "dump" // all the rest at once
)

const (
	// MaxFrame is the greatest length of a text in bytes, so that either end knows how much
	// memory it needs. Longer output is sent in several frames.
	MaxFrame = 32 << 10
	// LongOutput is the length in bytes from which either end gives the memory of an output
	// back to the system at once. Go would keep it until another 1 MB is used, perhaps for
	// ever, and a router may have no more than 32 MB.
	LongOutput = 8 << 10
)

// Send writes a frame.
func Send(w io.Writer, kind byte, text string) error {
	frame := append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(text))), text...)
	_, err := w.Write(frame)
	return err
}

// Receive reads a frame. The error is io.EOF if r ends between two frames.
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

// Unexpected is the error of a frame that must not come now.
func Unexpected(kind byte, text string) error {
	return fmt.Errorf("unexpected frame %q of %d bytes", kind, len(text))
}

// EncodeChoices writes the text of a Choices frame, with as many names as fit.
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

// EncodeSize writes the text of a Size frame.
func EncodeSize(columns, rows int) string {
	return string(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, uint16(columns)), uint16(rows)))
}

// DecodeSize parses the text of a Size frame. It reports false if it is none.
func DecodeSize(text string) (columns, rows int, ok bool) {
	if len(text) != 4 {
		return 0, 0, false
	}
	b := []byte(text)
	return int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:])), true
}

// DecodeChoices parses the text of a Choices frame.
func DecodeChoices(text string) (insert string, names []string) {
	lines := strings.Split(text, "\n")
	return lines[0], lines[1:]
}
