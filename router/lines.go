package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/service"
)

// A session's lines run without a lock, on the state that they found: what they ask of a
// process, of iptables or of the kernel may take its time, and so may the hash of a password.
// What they change is committed if nobody has changed the configuration meanwhile. If
// somebody has, the lines run again, on the new one.
const (
	// freeTries is how often that may happen before the session has its turn: until its
	// lines are done no other session changes anything.
	freeTries = 3
	// maxTries is when it gives up. In its turn only what is no session's is in its way.
	maxTries = 8
)

// errOutdated says that the configuration is no longer the one that a change was made of.
var errOutdated = errors.New("failure: the configuration changes all the time; nothing was done")

// execute runs a session's line: the change it makes is applied, or the line fails.
func (r *Router) execute(s *session.Session, line string) (console.Result, error) {
	result, err := r.edit(s, func(s *console.Session, st state) (console.Result, error) {
		return s.Execute(st.config, r.live(st), line)
	})
	if err == nil && result.Request == console.SetClock {
		err = r.setClock(result.Clock, kmsg.Uptime())
	}
	if err != nil {
		return console.Result{}, err
	}
	return result, nil
}

// importLines runs a session's lines: what all of them change is applied together, or
// nothing.
func (r *Router) importLines(s *session.Session, text string) (console.Result, error) {
	return r.edit(s, func(s *console.Session, st state) (console.Result, error) {
		return s.Import(st.config, r.live(st), text)
	})
}

// runner runs lines of a session on a state.
type runner func(*console.Session, state) (console.Result, error)

// edit runs lines in a copy of a session until what they change is committed.
func (r *Router) edit(s *session.Session, run runner) (console.Result, error) {
	for try := 1; ; try++ {
		if err := r.checkSession(s); err != nil {
			return console.Result{}, err
		}
		attempt := r.try
		if try > freeTries {
			attempt = r.tryInTurn
		}
		result, err := attempt(s, run)
		if !errors.Is(err, errOutdated) || try == maxTries {
			return result, err
		}
	}
}

// try runs lines once, and has the turn only for what they change.
func (r *Router) try(s *session.Session, run runner) (console.Result, error) {
	return r.attempt(s, run, r.takeTurn)
}

// tryInTurn runs lines once, and has the turn meanwhile.
func (r *Router) tryInTurn(s *session.Session, run runner) (console.Result, error) {
	release, err := r.takeTurn()
	if err != nil {
		return console.Result{}, err
	}
	defer release()
	return r.attempt(s, run, func() (func(), error) { return func() {}, nil })
}

// takeTurn waits for the turn, which whoever has it releases.
func (r *Router) takeTurn() (release func(), err error) {
	select {
	case r.turn <- struct{}{}:
		return func() { <-r.turn }, nil
	case <-r.stopped:
		return nil, errStopped
	}
}

// attempt runs lines once. To commit what they have changed it takes the turn, unless that
// is taken.
func (r *Router) attempt(s *session.Session, run runner, take func() (release func(), err error)) (console.Result, error) {
	st, place := r.snapshot(), s.Session.Clone()
	result, err := run(&place, st)
	if err != nil {
		if r.snapshot().revision != st.revision {
			// What it was told by the system may have been of the new configuration.
			err = errOutdated
		}
		return console.Result{}, err
	}
	if result.Changed {
		release, err := take()
		if err != nil {
			return console.Result{}, err
		}
		warning, err := func() (string, error) {
			defer release()
			return r.change(s, st.revision, result.Config)
		}()
		if err != nil {
			return console.Result{}, err
		}
		result.Output += warning + r.awaitServices()
	}
	s.Session = place
	return result, nil
}

// takeTime is how long a line waits for the processes to take its change: at the prompt it is
// in force. One that is slower takes it later.
const takeTime = 2 * time.Second

// awaitServices waits until the services have taken a change, or takeTime, and returns a
// warning of those that refuse.
func (r *Router) awaitServices() (warning string) {
	ctx, cancel := service.WithTimeout(context.Background(), takeTime)
	defer cancel()
	for _, s := range r.services {
		if err := s.Taken(ctx); err != nil && ctx.Err() == nil {
			warning += fmt.Sprintf("warning: %s: %v\n", s.Name(), err)
		}
	}
	return warning
}

// change makes next, which was made of the configuration of that revision, the
// configuration for a session. It returns a warning for its user, or why not.
func (r *Router) change(s *session.Session, revision uint64, next console.Config) (warning string, err error) {
	if err := r.lock(); err != nil {
		return "", err
	}
	defer r.unlock()
	if err := r.checkSession(s); err != nil {
		return "", err
	}
	if r.now.revision != revision {
		return "", errOutdated
	}
	if r.trial != nil && r.trial.holder != s {
		return "", fmt.Errorf("%w: nothing can be changed until it leaves that; Ctrl-X takes it over", session.ErrSafeModeHeld)
	}
	if err := checkConfig(next, r.board); err != nil {
		return "", err
	}
	if err := r.commit(next); err != nil {
		return "", err
	}
	r.settle()
	return r.warning(), nil
}

// checkSession reports why a session cannot do anything: the router ends, or the session
// shows Safe Mode and is not in it any more. What it is about to do was meant for that.
func (r *Router) checkSession(s *session.Session) error {
	if r.isStopped() {
		return errStopped
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.Safe && !r.holdsSafeMode(s) {
		s.Safe = false
		return errors.New("failure: Safe Mode has ended meanwhile (see the log); nothing was done now")
	}
	return nil
}

func (r *Router) prompt(s *session.Session) string {
	r.heard(s)
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Safe = r.holdsSafeMode(s)
	return s.Prompt(r.now.config.Identity)
}

// complete and help answer what a user asks while typing.
func (r *Router) complete(s *session.Session, before string) (string, []console.Choice) {
	r.heard(s)
	st := r.snapshot()
	return s.Complete(st.config, r.live(st), before)
}

func (r *Router) help(s *session.Session, before string) string {
	r.heard(s)
	st := r.snapshot()
	return s.Help(st.config, r.live(st), before)
}

// live gives the console what the system alone knows in a state.
func (r *Router) live(st state) console.Live {
	live := console.Live{
		Links:    r.network.State,
		Openings: r.firewall.Openings,
		Now:      time.Now,
		Counters: r.firewall.Counters,
		Log: func() ([]string, error) {
			return r.log.Lines(kmsg.View{Called: st.config.Called, Zone: st.config.TimeZone})
		},
		Resource:  r.resource,
		Invalid:   func(menu string) ([]int, error) { return r.invalid(st, menu) },
		Addresses: func() ([]netcfg.Address, error) { return r.dynamicAddresses(st) },
		Routes:    func() ([]console.DynamicRoute, error) { return r.dynamicRoutes(st) },
		Neighbors: r.neighbors,
		Tracked:   trackedConnections,
		// A hash is made by the line that sets a password.
		HashPassword: r.logins.hash,
		WAN:          r.board.WAN,
		Requests: []console.Request{console.Import, console.ChangePassword, console.ResetConfiguration,
			console.Ping, console.Traceroute, console.SetClock, console.Upgrade},
		Slots: r.slots,
	}
	for _, s := range r.services {
		s.Show(&live)
	}
	return live
}
