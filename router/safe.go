package router

import (
	"errors"
	"fmt"
	"time"

	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
)

// safeSilence is how long a session can be in Safe Mode without a word. A serial line
// does not tell when it is pulled, nor that a change has locked the person out who made
// it. RouterOS waits about as long, for a session whose connection is dead.
const safeSilence = 9 * time.Minute

// safeMode is one session's trial: what it changes stays only if it says so. While it
// lasts no other session can change anything, so that what is gone back to is the whole
// configuration as it was, and not a mixture; and nothing is kept, so that the power
// switch is a way back too.
type safeMode struct {
	holder *session.Session
	// before is what is gone back to.
	before  state
	silence *time.Timer
}

// safe does what a session asks of Safe Mode.
func (r *Router) safe(s *session.Session, request session.SafeRequest) error {
	if err := r.lock(); err != nil {
		return err
	}
	defer r.unlock()
	if err := r.checkSession(s); err != nil {
		return err
	}
	switch request {
	case session.ReleaseSafeMode, session.UnrollSafeMode:
		switch {
		case r.trial == nil || r.trial.holder != s:
			return errors.New("failure: this session is not in Safe Mode")
		case request == session.UnrollSafeMode:
			return r.unrollSafe("it was given up")
		}
		r.releaseSafe()
		return nil
	}
	if r.trial != nil {
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
	trial := &safeMode{holder: s, before: r.now}
	trial.silence = time.AfterFunc(safeSilence, func() {
		if r.lock() != nil {
			return // nothing is to be undone: nothing of it is kept
		}
		defer r.unlock()
		if r.trial == trial {
			_ = r.unrollSafe(fmt.Sprintf("nothing was heard for %v", safeSilence)) // it logs its error
		}
	})
	r.setTrial(trial)
	s.Safe = true
	r.log.Printf(kmsg.Info, "Safe Mode taken")
	return nil
}

func (r *Router) setTrial(trial *safeMode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trial = trial
}

// releaseSafe ends Safe Mode; what was changed stays. The caller holds changing, and has
// seen that a session is in Safe Mode.
func (r *Router) releaseSafe() {
	r.trial.silence.Stop()
	r.setTrial(nil)
	r.log.Printf(kmsg.Info, "Safe Mode released")
	r.settle()
}

// unrollSafe ends Safe Mode; what was changed is undone. The caller holds changing, and has
// seen that a session is in Safe Mode.
func (r *Router) unrollSafe(why string) error {
	trial := r.trial
	trial.silence.Stop()
	// Until it is undone the session is in Safe Mode: what it does meanwhile was meant for that.
	defer r.setTrial(nil)
	if trial.before.config.Equal(r.now.config) && trial.before.unmended == r.now.unmended {
		r.log.Printf(kmsg.Info, "Safe Mode ended without a change: %s", why)
		return nil
	}
	next := trial.before
	next.revision = r.now.revision + 1
	// What a lease said meanwhile is no change of the session's.
	next.layers = r.now.layers
	if err := r.apply(next); err != nil {
		r.log.Printf(kmsg.Error, "Safe Mode: what was changed cannot be undone: %v", err)
		return fmt.Errorf("undo: %w", err)
	}
	r.log.Printf(kmsg.Warning, "Safe Mode: what was changed is undone: %s", why)
	return nil
}

// endSession is called when a session is over.
func (r *Router) endSession(s *session.Session) {
	if r.lock() != nil {
		return
	}
	defer r.unlock()
	if r.trial != nil && r.trial.holder == s {
		_ = r.unrollSafe("the session has ended") // it logs its error
	}
}

// holdsSafeMode reports whether a session is in Safe Mode. The caller holds mu.
func (r *Router) holdsSafeMode(s *session.Session) bool { return r.trial != nil && r.trial.holder == s }

// heard is called when the user does something: Safe Mode goes on. That a line repeats
// itself shows nobody to be there.
func (r *Router) heard(s *session.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holdsSafeMode(s) {
		r.trial.silence.Reset(safeSilence)
	}
}

// settle hands on what the router shall have after a restart. In Safe Mode that is
// what there was before. The caller holds changing.
func (r *Router) settle() {
	if r.trial == nil && !r.now.unmended {
		r.settled(r.now.config)
	}
}
