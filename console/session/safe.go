package session

import (
	"errors"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
)

// SafeRequest is a request about Safe Mode. What a session changes in Safe Mode is undone if
// the session ends before it has confirmed the changes. One session at a time can be in it.
type SafeRequest int

const (
	// TakeSafeMode enters Safe Mode. The error is ErrSafeModeHeld if another session is in it.
	TakeSafeMode SafeRequest = iota
	// UnrollAndTake undoes what the other session has changed, and enters Safe Mode.
	UnrollAndTake
	// ReleaseAndTake keeps what the other session has changed, and enters Safe Mode.
	ReleaseAndTake
	// ReleaseSafeMode leaves Safe Mode and keeps the changes.
	ReleaseSafeMode
	// UnrollSafeMode leaves Safe Mode and undoes the changes.
	UnrollSafeMode
)

// ErrSafeModeHeld is the error if another session is in Safe Mode.
var ErrSafeModeHeld = errors.New("failure: another session is in Safe Mode")

// safeMode enters Safe Mode, or leaves it and keeps the changes.
func (s *server) safeMode() error {
	if s.handler.SafeMode == nil {
		return s.send(wire.Output, "failure: Safe Mode unavailable\n")
	}
	request, done := TakeSafeMode, "[Safe Mode taken]\n"
	if s.session.Safe {
		request, done = ReleaseSafeMode, "[Safe Mode released]\n"
	}
	err := s.handler.SafeMode(&s.session, request)
	if errors.Is(err, ErrSafeModeHeld) {
		answer, _, askErr := s.ask(wire.Ask, "Another session is in Safe Mode: unroll its changes, release it or don't take it [u/r/d]: ")
		if askErr != nil {
			return askErr
		}
		switch answer {
		case "u":
			err = s.handler.SafeMode(&s.session, UnrollAndTake)
		case "r":
			err = s.handler.SafeMode(&s.session, ReleaseAndTake)
		default:
			return nil
		}
	}
	if err != nil {
		done = err.Error() + "\n"
	}
	return s.send(wire.Output, done)
}

// quitSafeMode keeps what was changed in Safe Mode: who types quit, as MikroTik's manual says, means that. A session that
// ends in any other way has it undone.
func (s *server) quitSafeMode() error {
	if !s.session.Safe || s.handler.SafeMode == nil {
		return nil
	}
	done := "[Safe Mode released]\n"
	if err := s.handler.SafeMode(&s.session, ReleaseSafeMode); err != nil {
		done = err.Error() + "\n"
	}
	return s.send(wire.Output, done)
}

// leave ends the session. In Safe Mode it only leaves that, and undoes the changes.
func (s *server) leave() (console.Request, error) {
	if !s.session.Safe {
		return console.Quit, nil
	}
	done := "[Safe Mode unrolled]\n"
	if err := s.handler.SafeMode(&s.session, UnrollSafeMode); err != nil {
		done = err.Error() + "\n"
	}
	return console.None, s.send(wire.Output, done)
}
