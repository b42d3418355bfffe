package session

import (
	"errors"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
)

// SafeRequest is what a session asks of Safe Mode, in which what it changes is undone
// if it ends before it has confirmed the changes. One session at a time can be in it.
type SafeRequest int

const (
	// TakeSafeMode enters it, unless another session holds it: ErrSafeModeHeld.
	TakeSafeMode SafeRequest = iota
	// UnrollAndTake undoes what that other session has changed, and takes its place.
	UnrollAndTake
	// ReleaseAndTake keeps what it has changed, and takes its place.
	ReleaseAndTake
	// ReleaseSafeMode leaves it and keeps what was changed.
	ReleaseSafeMode
	// UnrollSafeMode leaves it and undoes what was changed.
	UnrollSafeMode
)

// ErrSafeModeHeld says that another session is in Safe Mode.
var ErrSafeModeHeld = errors.New("failure: another session is in Safe Mode")

// safeMode enters Safe Mode, or leaves it and keeps what was changed.
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

// leave ends the session or, in Safe Mode, that alone: what was changed is undone.
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
