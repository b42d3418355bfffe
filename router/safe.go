package router

import (
	"errors"
	"fmt"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/password"
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
	// before is what is gone back to, and forwarding whether packets were forwarded.
	before     console.Config
	forwarding bool
	silence    *time.Timer
}

// safe does what a session asks of Safe Mode.
func (r *Router) safe(s *session.Session, request session.SafeRequest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.believes(s); err != nil {
		return err
	}
	switch request {
	case session.ReleaseSafeMode:
		r.releaseSafe()
		return nil
	case session.UnrollSafeMode:
		return r.unrollSafe("it was given up")
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
	if !r.running.Equal(r.config) {
		return errors.New("failure: the rescue configuration is running; Safe Mode would go back to that")
	}
	trial := &safeMode{holder: s, before: r.config.Clone(), forwarding: r.forwarding}
	trial.silence = time.AfterFunc(r.safeSilence, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.trial == trial {
			_ = r.unrollSafe(fmt.Sprintf("nothing was heard for %v", r.safeSilence)) // it logs its error
		}
	})
	r.trial, s.Safe = trial, true
	r.log.Printf(kmsg.Info, "Safe Mode taken")
	return nil
}

// releaseSafe ends Safe Mode; what was changed stays. The caller holds mu, and has
// seen that a session is in Safe Mode.
func (r *Router) releaseSafe() {
	r.trial.silence.Stop()
	r.trial = nil
	r.log.Printf(kmsg.Info, "Safe Mode released")
	r.settle()
}

// unrollSafe ends Safe Mode; what was changed is undone. The caller holds mu, and has
// seen that a session is in Safe Mode.
func (r *Router) unrollSafe(why string) error {
	trial := r.trial
	trial.silence.Stop()
	r.trial = nil
	if trial.before.Equal(r.config) {
		r.log.Printf(kmsg.Info, "Safe Mode ended without a change: %s", why)
		return nil
	}
	if err := r.apply(trial.before, trial.forwarding); err != nil {
		r.log.Printf(kmsg.Error, "Safe Mode: what was changed cannot be undone: %v", err)
		return fmt.Errorf("undo: %w", err)
	}
	r.log.Printf(kmsg.Warning, "Safe Mode: what was changed is undone: %s", why)
	return nil
}

// endSession is called when a session is over.
func (r *Router) endSession(s *session.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trial != nil && r.trial.holder == s {
		_ = r.unrollSafe("the session has ended") // it logs its error
	}
}

// heard is called when the user does something: Safe Mode goes on. That a line repeats
// itself shows nobody to be there. The caller holds mu.
func (r *Router) heard(s *session.Session) {
	if r.trial != nil && r.trial.holder == s {
		r.trial.silence.Reset(r.safeSilence)
	}
}

// believes reports an error if the session shows Safe Mode and is not in it any more:
// what it is about to do was meant for that. The caller holds mu.
func (r *Router) believes(s *session.Session) error {
	if s.Safe && (r.trial == nil || r.trial.holder != s) {
		s.Safe = false
		return errors.New("failure: Safe Mode has ended meanwhile (see the log); nothing was done now")
	}
	return nil
}

// change makes next the configuration for a session, or says why not. The caller
// holds mu.
func (r *Router) change(s *session.Session, next console.Config) error {
	if r.trial != nil && r.trial.holder != s {
		return fmt.Errorf("%w: nothing can be changed until it leaves that; Ctrl-X takes it over", session.ErrSafeModeHeld)
	}
	if err := console.Validate(next, r.board.PortNames()); err != nil {
		return err
	}
	if next.AdminPassword != "" {
		if _, err := password.Parse(next.AdminPassword); err != nil {
			return err
		}
	}
	if err := r.commit(next); err != nil {
		return err
	}
	r.settle()
	return nil
}

// settle hands on what the router shall have after a restart. In Safe Mode that is
// what there was before. The caller holds mu.
func (r *Router) settle() {
	if r.settled != nil && r.trial == nil {
		r.settled(r.config)
	}
}
