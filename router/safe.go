package router

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
)

// safeSilence is how long a session can stay in Safe Mode without anything typed. A serial
// line does not tell when its cable is pulled, nor that a change has locked out the person
// who made it. RouterOS waits about as long for a session whose connection is dead.
const safeSilence = 9 * time.Minute

// safeMode is the Safe Mode of one session: what the session changes is undone unless it
// confirms it. Meanwhile no other session can change anything, so that the undo restores the
// whole configuration as it was; and nothing is written to flash, so that switching the power
// off and on undoes it too.
type safeMode struct {
	holder *session.Session
	by     string // whose it is: the holder's user may only be read by the session
	// before is the state to go back to.
	before  state
	silence *time.Timer
}

// safe does what a session asks for: to enter, leave or take over Safe Mode.
func (r *Router) safe(s *session.Session, request session.SafeRequest) error {
	if err := r.beginChange(); err != nil {
		return err
	}
	defer r.endChange()
	if err := r.checkSession(s); err != nil {
		return err
	}
	switch request {
	case session.ReleaseSafeMode, session.UnrollSafeMode:
		switch {
		case r.safeMode == nil || r.safeMode.holder != s:
			return errors.New("failure: this session is not in Safe Mode")
		case request == session.UnrollSafeMode:
			return r.unrollSafe("it was given up")
		}
		r.releaseSafe()
		return nil
	}
	if r.now.config.Denied(cmp.Or(s.User, console.Admin))&console.MayWrite != 0 {
		return console.ErrNotPermitted
	}
	if r.safeMode != nil {
		if changes := !r.safeMode.before.config.SameUsers(r.now.config); changes && request != session.TakeSafeMode &&
			r.now.config.Denied(cmp.Or(s.User, console.Admin))&console.MayPolicy != 0 {
			return console.ErrNotPermitted // it would undo a change of users, or keep it
		}
		switch request {
		case session.UnrollAndTake:
			if err := r.unrollSafe("another session has taken it over"); err != nil {
				return err
			}
		case session.ReleaseAndTake:
			r.releaseSafe()
		default:
			return session.ErrSafeModeHeld
		}
	}
	if !r.now.running.Equal(r.now.config) {
		return errors.New("failure: the rescue configuration is running; Safe Mode would go back to that")
	}
	trial := &safeMode{holder: s, by: actor(s.User, s.Origin), before: r.now}
	trial.silence = time.AfterFunc(safeSilence, func() {
		if r.beginChange() != nil {
			return // the router ends, and nothing of it was kept
		}
		defer r.endChange()
		if r.safeMode == trial {
			_ = r.unrollSafe(fmt.Sprintf("nothing was heard for %v", safeSilence)) // it logs its error
		}
	})
	r.setSafeMode(trial)
	s.Safe = true
	r.log.Printf(kmsg.Info, "Safe Mode taken by %s", actor(s.User, s.Origin))
	return nil
}

func (r *Router) setSafeMode(trial *safeMode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.safeMode = trial
}

// releaseSafe ends Safe Mode and keeps what was changed. The caller holds changing and has
// checked that a session is in Safe Mode.
func (r *Router) releaseSafe() {
	trial := r.safeMode
	trial.silence.Stop()
	r.setSafeMode(nil)
	r.log.Printf(kmsg.Info, "Safe Mode released by %s", trial.by)
	r.keepConfig()
}

// unrollSafe ends Safe Mode and undoes what was changed. The caller holds changing and has
// checked that a session is in Safe Mode.
func (r *Router) unrollSafe(why string) error {
	trial := r.safeMode
	trial.silence.Stop()
	// The session is in Safe Mode until all is undone: what it does meanwhile was meant for it.
	defer r.setSafeMode(nil)
	if trial.before.config.Equal(r.now.config) && trial.before.incomplete == r.now.incomplete {
		r.log.Printf(kmsg.Info, "Safe Mode of %s ended without a change: %s", trial.by, why)
		return nil
	}
	next := trial.before
	next.revision = r.now.revision + 1
	// What a lease has changed meanwhile is not the session's to undo.
	next.layers, next.down = r.now.layers, r.now.down
	if err := r.apply(next); err != nil {
		r.log.Printf(kmsg.Error, "Safe Mode of %s: what was changed cannot be undone: %v", trial.by, err)
		return fmt.Errorf("undo: %w", err)
	}
	r.log.Printf(kmsg.Warning, "Safe Mode of %s: what was changed is undone: %s", trial.by, why)
	return nil
}

// endSession is called when a session is over.
func (r *Router) endSession(s *session.Session) {
	if r.beginChange() != nil {
		return
	}
	defer r.endChange()
	if r.safeMode != nil && r.safeMode.holder == s {
		_ = r.unrollSafe("the session has ended") // it logs its error
	}
}

// holdsSafeMode reports whether a session is in Safe Mode. The caller holds mu.
func (r *Router) holdsSafeMode(s *session.Session) bool {
	return r.safeMode != nil && r.safeMode.holder == s
}

// heard is called when the user types something: Safe Mode goes on. A line that repeats by
// itself does not count.
func (r *Router) heard(s *session.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holdsSafeMode(s) {
		r.safeMode.silence.Reset(safeSilence)
	}
}

// keepConfig has the configuration written to flash. In Safe Mode the one before stays there.
// The caller holds changing.
func (r *Router) keepConfig() {
	if r.safeMode == nil && !r.now.incomplete {
		r.keep(r.now.config)
	}
}
