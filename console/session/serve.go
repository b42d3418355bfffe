// Package session is the router's end of a person's session: it serves a terminal over a
// connection, and asks the owner of the configuration to do what is typed.
package session

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

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
)

// writeTimeout ends a session whose terminal takes nothing any more. At 9600 baud
// a frame takes 34 seconds.
const writeTimeout = 2 * time.Minute

// Handler is the router at the server's end of a session: the owner of the
// configuration. Its functions are called one at a time.
type Handler struct {
	// Execute runs a line. If the Result asks to be repeated it is called again with
	// the same line; the session does so, and it obeys Quit. All else in the Result is
	// Execute's to do.
	Execute func(session *Session, line string) (console.Result, error)
	// Prompt is called ahead of each line.
	Prompt func(session *Session) string
	// Complete and Help are those of the Session.
	Complete func(session *Session, before string) (insert string, choices []console.Choice)
	Help     func(session *Session, before string) string

	// What follows may be nil, if there is no such thing.

	// Import runs lines, of which it changes the configuration by all or by none.
	Import func(session *Session, text string) (console.Result, error)
	// Confirmed does what Reboot, Shutdown or ResetConfiguration asks for: the user has
	// said yes.
	Confirmed func(console.Request) error
	// Stream does what a Result of Ping, Traceroute or Upgrade asks for: it writes lines to out
	// until it is done, or ctx is, because a key was pressed or the session is over.
	Stream func(ctx context.Context, result console.Result, out io.Writer) error
	// HasPassword reports whether a session has to begin with a login. Login reports
	// whether the password is the user's, and makes who is wrong wait: by the session's
	// Origin, so that no other is held up.
	HasPassword func() bool
	Login       func(session *Session, user, password string) bool
	// SetPassword changes the password, if old is the present one; "" is none.
	SetPassword func(session *Session, old, new string) error
	// SafeMode does what is asked, or says why not: ErrSafeModeHeld is asked about.
	SafeMode func(session *Session, request SafeRequest) error
	// End is called when the session is over, however it ended.
	End func(session *Session)
}

// Serve holds a session with the terminal at the other end of conn, which is at origin, and closes
// conn when it is over: when a line asks to Quit, or the terminal hangs up. What a
// line puts out is shown and then its error, if any. It returns an error if the
// terminal broke the protocol, takes nothing for a long time, or the connection
// broke, and nil otherwise. A panic of the handler ends the session with an error and
// nothing else: PID 1 lives on.
func Serve(conn net.Conn, origin Origin, handler Handler) (err error) {
	defer conn.Close()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("console session: panic: %v%s", p, panicPlace())
		}
	}()
	s := server{conn: conn, in: bufio.NewReader(conn), handler: handler, session: Session{Origin: origin}}
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
			return s.send(wire.End, "")
		}
	}
}

// send cuts what is too long.
func (s *server) send(kind byte, text string) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return wire.Send(s.conn, kind, text[:min(len(text), wire.MaxFrame)])
}

// line waits for a line, or what comes in the place of one, and answers what the
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
		case kind == wire.Interrupt && text == "":
			// It was meant for the line before, which had ended.
		case kind == wire.Width && len(text) == 2:
			s.session.Width = int(binary.BigEndian.Uint16([]byte(text)))
		default:
			err = wire.Unexpected(kind, text)
		}
		if err != nil {
			return 0, "", err
		}
	}
}

// run executes a line, again and again if it asks for that.
func (s *server) run(line string) (console.Request, error) {
	defer s.session.EndRepeat()
	for {
		result, err := s.handler.Execute(&s.session, line)
		output := result.Output
		if err != nil {
			output += err.Error() + "\n"
		}
		if err := s.show(output); err != nil {
			return console.None, err
		}
		if err == nil && s.handler.Import != nil && result.Request == console.Import {
			return console.None, s.takeImport()
		}
		if c, ok := confirmations[result.Request]; ok && err == nil && s.handler.Confirmed != nil {
			return console.None, s.confirm(result.Request, c)
		}
		if err == nil && s.handler.Stream != nil && result.Request == console.Upgrade {
			return console.None, s.upgrade(result)
		}
		if err == nil && s.handler.Stream != nil && (result.Request == console.Ping || result.Request == console.Traceroute) {
			return console.None, s.stream(result)
		}
		if err != nil || result.Repeat <= 0 {
			return result.Request, nil
		}
		kind := byte(wire.Replace)
		if result.Follow {
			kind = wire.Follow
		}
		if err := s.send(kind, ""); err != nil {
			return console.None, err
		}
		if interrupted, err := s.pause(result.Repeat); interrupted || err != nil {
			return console.None, err
		}
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

// confirmation is what RouterOS asks before it does something, and what it says then.
type confirmation struct{ question, done string }

var confirmations = map[console.Request]confirmation{
	console.Reboot:             {"Reboot, yes? [y/N]: ", "system will reboot shortly\n"},
	console.Shutdown:           {"Shutdown, yes? [y/N]: ", "system will shutdown promptly\n"},
	console.ResetConfiguration: {"Dangerous! Reset anyway? [y/N]: ", "system configuration will be reset\n"},
}

// confirm asks whether to do what a line asks for, and has it done.
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

// upgrade asks whether to upgrade, and shows how that goes.
func (s *server) upgrade(result console.Result) error {
	if ok, err := s.agree("Upgrade and restart? [y/N]: "); !ok || err != nil {
		return err
	}
	return s.stream(result)
}

// agree asks a question; whoever does not say yes is told that nothing was done.
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
	kind, text, err := wire.Receive(s.in)
	if err == nil && (kind != wire.Interrupt || text != "") {
		err = wire.Unexpected(kind, text)
	}
	return err == nil, err
}
