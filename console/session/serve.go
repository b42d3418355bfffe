// Package session is the router's end of a person's session. It serves a terminal (package
// terminal) over a connection: login, prompt, lines, questions, Safe Mode. What is typed is
// passed on to a Handler, the owner of the configuration.
//
// It promises that a terminal which sends anything else than the protocol, sends nothing, or
// reads nothing ends its own session only, and that it gets no further than the login without
// the password.
package session

import (
	"bufio"
	"context"
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

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
)

// writeTimeout ends a session whose terminal has stopped reading. At 9600 baud a frame takes
// 34 seconds.
const writeTimeout = 2 * time.Minute

// Handler is the owner of the configuration, which carries out what a session asks. Its
// functions are called one at a time.
type Handler struct {
	// Execute runs a line and does what the Result says, except for: Repeat, for which the
	// session calls Execute again; Quit; and the Requests that have a function below.
	Execute func(session *Session, line string) (console.Result, error)
	// Prompt is called before each line.
	Prompt func(session *Session) string
	// Complete and Help are the methods of console.Session.
	Complete func(session *Session, before string) (insert string, choices []console.Choice)
	Help     func(session *Session, before string) string

	// Each of the following may be nil, if there is no such thing.

	// Note is shown to who has logged in, before the first prompt.
	Note func(session *Session) string
	// Import runs all lines of text or none, by console.Session.Import or Replace.
	Import func(session *Session, text string, a console.ImportArguments) (console.Result, error)
	// Confirmed carries out Reboot, Shutdown or ResetConfiguration, after the user has said
	// yes.
	Confirmed func(console.Request) error
	// Stream carries out Ping, Traceroute, Upgrade or CheckForUpdates: it writes lines to out until it is done.
	// It stops when ctx is done, because a key was pressed or the session is over.
	Stream func(ctx context.Context, result console.Result, out io.Writer) error
	// User is who has logged in already, by a service of the network, and Login the number of the login; "" if nobody has.
	User  string
	Login uint64
	// NeedsPassword has the session begin with a new password, before anything else.
	NeedsPassword bool
	// Unlocked is the user as whom a session begins without a login; "" if it has to begin with one. CheckPassword reports
	// whether the password is right. It delays the answer to a wrong one, but only for sessions of the same Origin.
	Unlocked      func() (user string)
	CheckPassword func(session *Session, user, password string) bool
	// HasPassword reports whether a user has a password. SetPassword changes that of the session's user if old is the
	// current one. "" means no password.
	HasPassword func(user string) bool
	SetPassword func(session *Session, old, new string) error
	// SafeMode carries out a request about Safe Mode. After ErrSafeModeHeld the user is asked
	// what to do.
	SafeMode func(session *Session, request SafeRequest) error
	// End is called when the session is over, for whatever reason.
	End func(session *Session)
}

// Serve serves a session to the terminal at the other end of conn, and closes conn when it is
// over: when a line asks to Quit, or the terminal hangs up. For each line it shows the output
// and then the error, if any. Serve returns an error if the terminal breaks the protocol or
// stops reading for a long time, or if the connection breaks, and nil otherwise. A panic of
// the handler ends this session with an error, and the process goes on.
func Serve(conn net.Conn, origin Origin, handler Handler) (err error) {
	defer conn.Close()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("console session: panic: %v%s", p, panicPlace())
		}
	}()
	s := server{conn: conn, in: bufio.NewReader(conn), handler: handler, session: Session{Origin: origin}}
	s.session.User, s.session.Login = handler.User, handler.Login
	if handler.End != nil {
		defer handler.End(&s.session)
	}
	if err := s.serve(); err != nil && err != io.EOF {
		return fmt.Errorf("console session: %w", err)
	}
	return nil
}

// panicPlace says where the panic was from which the caller, a deferred function, has
// recovered. A whole stack would be too long for a line of the log.
func panicPlace() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	for {
		frame, more := frames.Next()
		if !strings.HasPrefix(frame.Function, "runtime.") {
			// In the shipped program the offset is what "go run ./image trace" finds the line by.
			return fmt.Sprintf(" in %s (%s:%d +0x%x)", path.Base(frame.Function), path.Base(frame.File), frame.Line, frame.PC-frame.Entry)
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
	// height is how many rows the terminal has, or 0 if there is nobody at it for whom to stop at the end of a page.
	height int
}

// serve runs the session. It returns io.EOF if the terminal has hung up.
func (s *server) serve() error {
	if s.handler.User == "" {
		if err := s.login(); err != nil {
			return err
		}
	}
	if s.handler.NeedsPassword {
		if err := s.firstPassword(); err != nil {
			return err
		}
	}
	if s.handler.Note != nil {
		if text := s.handler.Note(&s.session); text != "" {
			if err := s.send(wire.Note, text); err != nil {
				return err
			}
		}
	}
	for {
		if err := s.send(wire.Prompt, s.handler.Prompt(&s.session)); err != nil {
			return err
		}
		kind, line, err := s.line()
		if err != nil {
			return err
		}
		request := console.None
		switch kind {
		case wire.Safe:
			err = s.safeMode()
		case wire.Leave:
			request, err = s.leave()
		default:
			request, err = s.run(line)
		}
		if err == nil && request == console.ChangePassword {
			err = s.changePassword()
		}
		if err != nil {
			return err
		}
		if request == console.Quit {
			if err := s.quitSafeMode(); err != nil {
				return err
			}
			return s.send(wire.End, "")
		}
	}
}

// send sends a frame, and cuts a text that is too long.
func (s *server) send(kind byte, text string) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return wire.Send(s.conn, kind, text[:min(len(text), wire.MaxFrame)])
}

// line waits for a line, or for wire.Safe or wire.Leave instead of one, and answers what the
// terminal asks meanwhile.
func (s *server) line() (kind byte, line string, err error) {
	for {
		kind, text, err := wire.Receive(s.in)
		switch {
		case err != nil:
			return 0, "", err
		case kind == wire.Line && len(text) <= console.MaxLine, (kind == wire.Safe || kind == wire.Leave) && text == "":
			return kind, text, nil
		case kind == wire.Complete:
			insert, choices := s.handler.Complete(&s.session, text)
			names := make([]string, len(choices))
			for i, c := range choices {
				names[i] = c.Name
			}
			err = s.send(wire.Choices, wire.EncodeChoices(insert, names))
		case kind == wire.Explain:
			err = s.send(wire.Help, s.handler.Help(&s.session, text))
		case (kind == wire.Interrupt || kind == wire.Whole) && text == "":
			// It was meant for the line before, which has already ended.
		case kind == wire.Size && s.setSize(text):
		default:
			err = wire.Unexpected(kind, text)
		}
		if err != nil {
			return 0, "", err
		}
	}
}

// run executes a line, repeatedly if the Result asks for that.
func (s *server) run(line string) (console.Request, error) {
	defer s.session.EndRepeat()
	whole := false
	for {
		result, err := s.handler.Execute(&s.session, line)
		output := result.Output
		if err != nil {
			output += console.ErrorText(err)
		}
		show := s.show
		switch {
		case result.Repeat > 0 && !result.Follow && !whole:
			show = s.screen
		case result.Repeat <= 0 && result.Paged:
			show = s.page
		}
		if err := show(output); err != nil {
			return console.None, err
		}
		if err == nil && s.handler.Import != nil && result.Request == console.Import {
			return console.None, s.takeImport(result.Import)
		}
		if p := result.Password; err == nil && result.Request == console.ChangePassword && p.Given() {
			if err := s.setPassword(p.Old, p.New, p.Again); err != nil {
				return console.None, s.show(err.Error() + "\n")
			}
			return console.None, nil
		}
		if err == nil && result.Request == console.Edit {
			return console.None, s.edit(result.Edit)
		}
		if c, ok := confirmations[result.Request]; ok && err == nil && s.handler.Confirmed != nil {
			return console.None, s.confirm(result.Request, c)
		}
		if err == nil && s.handler.Stream != nil && result.Request == console.Upgrade {
			return console.None, s.upgrade(result)
		}
		if err == nil && s.handler.Stream != nil && (result.Request == console.Ping || result.Request == console.Traceroute || result.Request == console.CheckForUpdates) {
			return console.None, s.stream(result)
		}
		if err != nil || result.Repeat <= 0 {
			return result.Request, nil
		}
		kind := byte(wire.Replace)
		prompt := ""
		switch {
		case result.Follow || whole:
			kind = wire.Follow
		case s.height > 1:
			prompt = repeatPrompt
		}
		if err := s.send(kind, prompt); err != nil {
			return console.None, err
		}
		key, err := s.pause(result.Repeat)
		if key == wire.Interrupt || err != nil {
			return console.None, err
		}
		whole = whole || key == wire.Whole
	}
}

// show sends output, however long it is.
func (s *server) show(output string) error {
	long := len(output) > wire.LongOutput
	for len(output) > 0 {
		n := min(len(output), wire.MaxFrame)
		if err := s.send(wire.Output, output[:n]); err != nil {
			return err
		}
		output = output[n:]
	}
	if long {
		debug.FreeOSMemory()
	}
	return nil
}

// confirmation is what RouterOS asks before it does something, and what it prints then.
type confirmation struct{ question, done string }

var confirmations = map[console.Request]confirmation{
	console.Reboot:             {"Reboot, yes? [y/N]: ", "system will reboot shortly\n"},
	console.Shutdown:           {"Shutdown, yes? [y/N]: ", "system will shutdown promptly\n"},
	console.ResetConfiguration: {"Dangerous! Reset anyway? [y/N]: ", "system configuration will be reset\n"},
}

// confirm asks the user whether to carry out a request, and has it carried out.
func (s *server) confirm(request console.Request, c confirmation) error {
	if ok, err := s.agree(c.question); !ok || err != nil {
		return err
	}
	text := c.done
	if err := s.handler.Confirmed(request); err != nil {
		text = err.Error() + "\n"
	}
	return s.send(wire.Output, text)
}

// edit has the user edit a value, until it is one that the router takes or the user has enough.
func (s *server) edit(e console.EditArguments) error {
	for value := e.Value; ; {
		edited, ok, err := s.ask(wire.Edit, e.Property+": \n"+value)
		if err != nil || !ok || edited == e.Value {
			return err
		}
		value = edited
		result, err := s.handler.Execute(&s.session, e.Line(value))
		if err == nil {
			return s.show(result.Output)
		}
		if err := s.show(console.ErrorText(err)); err != nil {
			return err
		}
	}
}

// upgrade asks the user whether to upgrade, and shows the progress.
func (s *server) upgrade(result console.Result) error {
	if ok, err := s.agree("Upgrade and restart? [y/N]: "); !ok || err != nil {
		return err
	}
	return s.stream(result)
}

// agree asks a question. Unless the answer is yes, it says that nothing was done.
func (s *server) agree(question string) (bool, error) {
	answer, ok, err := s.ask(wire.Ask, question)
	if err != nil {
		return false, err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); ok && (answer == "y" || answer == "yes") {
		return true, nil
	}
	return false, s.send(wire.Output, "action cancelled\n")
}

// pause waits for d, or for wire.Interrupt or wire.Whole.
func (s *server) pause(d time.Duration) (key byte, err error) {
	for end := time.Now().Add(d); ; {
		if err := s.conn.SetReadDeadline(end); err != nil {
			return 0, err
		}
		// Only the wait for the first byte of a frame has a deadline, so no frame is cut.
		_, err = s.in.Peek(1)
		if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
			return 0, err
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		kind, text, err := wire.Receive(s.in)
		switch {
		case err != nil:
			return 0, err
		case kind == wire.Size && s.setSize(text):
		case (kind == wire.Interrupt || kind == wire.Whole) && text == "":
			return kind, nil
		default:
			return 0, wire.Unexpected(kind, text)
		}
	}
}
