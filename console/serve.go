package console

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// The protocol of a session is frames over a stream socket, in either direction: a
// byte that says what it is, the length of the text in four bytes, high one first,
// and the text, at most maxFrame bytes.
//
// The server sends a prompt. The terminal then asks for completion or help as often
// as it likes, each of which is answered by one frame, and sends a line; the server
// sends any number of outputs and the next prompt. Among the outputs, and ahead of the
// first prompt, it may ask something, which the terminal answers by a line, or by
// leave if the user does not want to. Of a line that repeats itself
// there is a replace or follow behind each output, until the terminal interrupts; of
// one that takes its time, as ping does, a follow ahead of them. An interrupt that
// comes too late for that is ignored. The terminal may tell its width ahead of all
// but an interrupt. After end the server closes. A frame that is none of these ends
// the session.
const (
	frameOutput  = 'O' // server: text to show
	frameReplace = 'R' // server: there will be more, in the place of what was shown since the line
	frameFollow  = 'F' // server: there will be more, below
	frameChoices = 'C' // server: what completion inserts, and behind it, on a line each, the choices
	frameHelp    = 'H' // server: text to show, and go on with the line
	framePrompt  = 'P' // server: ask for a line with this prompt
	frameAsk     = 'A' // server: ask for an answer, a line that is no command, with this prompt
	frameSecret  = 'S' // server: the same, and what is typed is not shown
	frameEnd     = 'E' // server: the session is over

	frameLine      = 'L' // terminal: a line, at most MaxLine bytes
	frameComplete  = 'T' // terminal: complete this line, which is that up to the cursor
	frameExplain   = '?' // terminal: explain what can be typed behind this
	frameSafe      = 'X' // terminal: no line, but into Safe Mode or out of it
	frameLeave     = 'D' // terminal: no line, but an end to the session; no answer
	frameInterrupt = 'I' // terminal: stop what the line does
	frameWidth     = 'W' // terminal: columns in two bytes, high one first; 0 is unknown
)

const (
	// maxFrame bounds what either side holds of the other's. Longer output is cut into
	// several frames.
	maxFrame = 32 << 10
	// writeTimeout ends a session whose terminal takes nothing any more. At 9600 baud
	// a frame takes 34 seconds.
	writeTimeout = 2 * time.Minute
	// longOutput is how many bytes of output are long: either side gives the memory that
	// they took back to the system, which else has it when the next 1 MB is used, maybe
	// never. On a router with 32 MB that is much.
	longOutput = 8 << 10
)

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

// encodeChoices is the text of a frameChoices: as many choices as fit.
func encodeChoices(insert string, choices []Choice) string {
	var b strings.Builder
	b.WriteString(insert)
	for _, c := range choices {
		if b.Len()+1+len(c.Name) > maxFrame {
			break
		}
		b.WriteString("\n" + c.Name)
	}
	return b.String()
}

func decodeChoices(text string) (insert string, names []string) {
	lines := strings.Split(text, "\n")
	return lines[0], lines[1:]
}

// Handler is the router at the server's end of a session: the owner of the
// configuration. Its functions are called one at a time.
type Handler struct {
	// Execute runs a line. If the Result asks to be repeated it is called again with
	// the same line; the session does so, and it obeys Quit. All else in the Result is
	// Execute's to do.
	Execute func(session *Session, line string) (Result, error)
	// Prompt is called ahead of each line.
	Prompt func(session *Session) string
	// Complete and Help are those of the Session.
	Complete func(session *Session, before string) (insert string, choices []Choice)
	Help     func(session *Session, before string) string

	// What follows may be nil, if there is no such thing.

	// Import runs lines, of which it changes the configuration by all or by none.
	Import func(session *Session, text string) (Result, error)
	// Confirmed does what Reboot, Shutdown or ResetConfiguration asks for: the user has
	// said yes.
	Confirmed func(Request) error
	// Stream does what a Result of Ping, Traceroute or Upgrade asks for: it writes lines to out
	// until it is done, or ctx is, because a key was pressed or the session is over.
	Stream func(ctx context.Context, result Result, out io.Writer) error
	// HasPassword reports whether a session has to begin with a login, and Login
	// whether it may: it makes who is wrong wait.
	HasPassword func() bool
	Login       func(user, password string) bool
	// SetPassword changes the password, if old is the present one; "" is none.
	SetPassword func(session *Session, old, new string) error
	// SafeMode does what is asked, or says why not: ErrSafeModeHeld is asked about.
	SafeMode func(session *Session, request SafeRequest) error
	// End is called when the session is over, however it ended.
	End func(session *Session)
}

// Serve holds a session with the terminal at the other end of conn, and closes
// conn when it is over: when a line asks to Quit, or the terminal hangs up. What a
// line puts out is shown and then its error, if any. It returns an error if the
// terminal broke the protocol, takes nothing for a long time, or the connection
// broke, and nil otherwise. A panic of the handler ends the session with an error and
// nothing else: PID 1 lives on.
func Serve(conn net.Conn, handler Handler) (err error) {
	defer conn.Close()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("console session: panic: %v%s", p, panicPlace())
		}
	}()
	s := server{conn: conn, in: bufio.NewReader(conn), handler: handler}
	if handler.End != nil {
		defer handler.End(&s.session)
	}
	if err := s.serve(); err != nil && err != io.EOF {
		return fmt.Errorf("console session: %w", err)
	}
	return nil
}

// panicPlace says where the panic was that the caller, a deferred function,
// recovered from: a stack is too long for a line of the log.
func panicPlace() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	for {
		frame, more := frames.Next()
		if !strings.HasPrefix(frame.Function, "runtime.") {
			return fmt.Sprintf(" in %s (%s:%d)", path.Base(frame.Function), path.Base(frame.File), frame.Line)
		}
		if !more {
			return ""
		}
	}
}

// server is the server's end of a session.
type server struct {
	conn    net.Conn
	in      *bufio.Reader
	handler Handler
	session Session
}

// serve returns io.EOF if the terminal has hung up.
func (s *server) serve() error {
	if err := s.login(); err != nil {
		return err
	}
	for {
		if err := s.send(framePrompt, s.handler.Prompt(&s.session)); err != nil {
			return err
		}
		kind, line, err := s.line()
		if err != nil {
			return err
		}
		request := None
		switch kind {
		case frameSafe:
			err = s.safeMode()
		case frameLeave:
			request, err = s.leave()
		default:
			request, err = s.run(line)
		}
		if err == nil && request == ChangePassword {
			err = s.changePassword()
		}
		if err != nil {
			return err
		}
		if request == Quit {
			return s.send(frameEnd, "")
		}
	}
}

// send cuts what is too long.
func (s *server) send(kind byte, text string) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return send(s.conn, kind, text[:min(len(text), maxFrame)])
}

// line waits for a line, or what comes in the place of one, and answers what the
// terminal asks meanwhile.
func (s *server) line() (kind byte, line string, err error) {
	for {
		kind, text, err := receive(s.in)
		switch {
		case err != nil:
			return 0, "", err
		case kind == frameLine && len(text) <= MaxLine, (kind == frameSafe || kind == frameLeave) && text == "":
			return kind, text, nil
		case kind == frameComplete:
			err = s.send(frameChoices, encodeChoices(s.handler.Complete(&s.session, text)))
		case kind == frameExplain:
			err = s.send(frameHelp, s.handler.Help(&s.session, text))
		case kind == frameInterrupt && text == "":
			// It was meant for the line before, which had ended.
		case kind == frameWidth && len(text) == 2:
			s.session.Width = int(binary.BigEndian.Uint16([]byte(text)))
		default:
			err = unexpectedFrame(kind, text)
		}
		if err != nil {
			return 0, "", err
		}
	}
}

func unexpectedFrame(kind byte, text string) error {
	return fmt.Errorf("unexpected frame %q of %d bytes", kind, len(text))
}

// run executes a line, again and again if it asks for that.
func (s *server) run(line string) (Request, error) {
	defer s.session.EndRepeat()
	for {
		result, err := s.handler.Execute(&s.session, line)
		output := result.Output
		if err != nil {
			output += err.Error() + "\n"
		}
		if err := s.show(output); err != nil {
			return None, err
		}
		if err == nil && s.handler.Import != nil && result.Request == Import {
			return None, s.takeImport()
		}
		if c, ok := confirmations[result.Request]; ok && err == nil && s.handler.Confirmed != nil {
			return None, s.confirm(result.Request, c)
		}
		if err == nil && s.handler.Stream != nil && result.Request == Upgrade {
			return None, s.upgrade(result)
		}
		if err == nil && s.handler.Stream != nil && (result.Request == Ping || result.Request == Traceroute) {
			return None, s.stream(result)
		}
		if err != nil || result.Repeat <= 0 {
			return result.Request, nil
		}
		kind := byte(frameReplace)
		if result.Follow {
			kind = frameFollow
		}
		if err := s.send(kind, ""); err != nil {
			return None, err
		}
		if interrupted, err := s.pause(result.Repeat); interrupted || err != nil {
			return None, err
		}
	}
}

// show sends output, however long it is.
func (s *server) show(output string) error {
	long := len(output) > longOutput
	for len(output) > 0 {
		n := min(len(output), maxFrame)
		if err := s.send(frameOutput, output[:n]); err != nil {
			return err
		}
		output = output[n:]
	}
	if long {
		debug.FreeOSMemory()
	}
	return nil
}

// confirmation is what RouterOS asks before it does something, and what it says then.
type confirmation struct{ question, done string }

var confirmations = map[Request]confirmation{
	Reboot:             {"Reboot, yes? [y/N]: ", "system will reboot shortly\n"},
	Shutdown:           {"Shutdown, yes? [y/N]: ", "system will shutdown promptly\n"},
	ResetConfiguration: {"Dangerous! Reset anyway? [y/N]: ", "system configuration will be reset\n"},
}

// confirm asks whether to do what a line asks for, and has it done.
func (s *server) confirm(request Request, c confirmation) error {
	if ok, err := s.agree(c.question); !ok || err != nil {
		return err
	}
	text := c.done
	if err := s.handler.Confirmed(request); err != nil {
		text = err.Error() + "\n"
	}
	return s.send(frameOutput, text)
}

// upgrade asks whether to upgrade, and shows how that goes.
func (s *server) upgrade(result Result) error {
	if ok, err := s.agree("Upgrade and restart? [y/N]: "); !ok || err != nil {
		return err
	}
	return s.stream(result)
}

// agree asks a question; whoever does not say yes is told that nothing was done.
func (s *server) agree(question string) (bool, error) {
	answer, ok, err := s.ask(frameAsk, question)
	if err != nil {
		return false, err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); ok && (answer == "y" || answer == "yes") {
		return true, nil
	}
	return false, s.send(frameOutput, "action cancelled\n")
}

// pause waits for that time or an interrupt.
func (s *server) pause(d time.Duration) (interrupted bool, err error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return false, err
	}
	// The deadline is that of a frame's beginning: none is torn.
	_, err = s.in.Peek(1)
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
		return false, err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	kind, text, err := receive(s.in)
	if err == nil && (kind != frameInterrupt || text != "") {
		err = unexpectedFrame(kind, text)
	}
	return err == nil, err
}
