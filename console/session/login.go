package session

import (
	"cmp"
	"errors"
	"io"
	"net"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
)

// ask asks the user a question: kind is wire.Ask or wire.Secret. ok is false if there was no
// answer.
func (s *server) ask(kind byte, prompt string) (answer string, ok bool, err error) {
	if err := s.send(kind, prompt); err != nil {
		return "", false, err
	}
	for {
		kind, text, err := wire.Receive(s.in)
		switch {
		case err != nil:
			return "", false, err
		case kind == wire.Line && len(text) <= console.MaxLine:
			return text, true, nil
		case kind == wire.Leave && text == "":
			return "", false, nil
		case kind == wire.Interrupt && text == "":
			// It was meant for what came before.
		case kind == wire.Size && s.setSize(text):
		default:
			return "", false, wire.Unexpected(kind, text)
		}
	}
}

// login returns when the user has given the password. A user who gives up is asked again:
// there is nothing else to do on the terminal.
func (s *server) login() error {
	if s.handler.Unlocked == nil {
		return nil
	}
	for {
		if s.session.User = s.handler.Unlocked(); s.session.User != "" {
			return s.send(wire.Output, "No password is set: /password sets one.\n")
		}
		user, ok, err := s.ask(wire.Ask, "Login: ")
		if err != nil {
			return err
		}
		if !ok || user == "" {
			continue
		}
		password, ok, err := s.ask(wire.Secret, "Password: ")
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if s.handler.CheckPassword(&s.session, user, password) {
			s.session.User = user
			return nil
		}
		if err := s.send(wire.Output, "\nLogin failed, incorrect username or password\n\n"); err != nil {
			return err
		}
	}
}

// changePassword asks for the old password and, twice, for the new one.
func (s *server) changePassword() error {
	prompts := []string{"old password: ", "new password: ", "retype new password: "}
	if !s.handler.HasPassword(cmp.Or(s.session.User, console.Admin)) {
		prompts = prompts[1:]
	}
	var answers []string
	for _, prompt := range prompts {
		answer, ok, err := s.ask(wire.Secret, prompt)
		if err != nil || !ok {
			return err
		}
		answers = append(answers, answer)
	}
	if len(answers) < 3 {
		answers = append([]string{""}, answers...)
	}
	if err := s.setPassword(answers[0], answers[1], answers[2]); err != nil {
		return s.send(wire.Output, err.Error()+"\n")
	}
	return nil
}

const (
	// firstTries is how often a session that needs a password asks for it, and firstTime how long it waits in all.
	firstTries = 3
	firstTime  = 2 * time.Minute
)

// firstPassword asks for a password, and ends the session if none is set.
func (s *server) firstPassword() error {
	if err := s.conn.SetReadDeadline(time.Now().Add(firstTime)); err != nil {
		return err
	}
	if err := s.send(wire.Output, "Change your password\n\n"); err != nil {
		return err
	}
	for range firstTries {
		var answers [2]string
		for i, prompt := range []string{"new password> ", "repeat new password> "} {
			answer, ok, err := s.ask(wire.Secret, prompt)
			if err != nil {
				return err
			}
			if !ok {
				return cmp.Or(s.send(wire.End, ""), io.EOF)
			}
			answers[i] = answer
		}
		err := errors.New("failure: a password is needed")
		if answers[0] != "" {
			err = s.setPassword("", answers[0], answers[1])
		}
		if err == nil {
			return s.conn.SetReadDeadline(time.Time{})
		}
		if err := s.send(wire.Output, err.Error()+"\n"); err != nil {
			return err
		}
	}
	return cmp.Or(s.send(wire.End, ""), io.EOF)
}

func (s *server) setPassword(old, new, again string) error {
	if err := (console.PasswordArguments{Old: old, New: new, Again: again}).Check(); err != nil {
		return err
	}
	return s.handler.SetPassword(&s.session, old, new)
}

// Refuse shows why on the terminal at the other end of conn, ends the session and closes
// conn.
func Refuse(conn net.Conn, why string) {
	defer conn.Close()
	// It does not wait for a terminal that does not read.
	if conn.SetWriteDeadline(time.Now().Add(time.Second)) == nil && wire.Send(conn, wire.Output, why+"\n") == nil {
		_ = wire.Send(conn, wire.End, "")
	}
}
