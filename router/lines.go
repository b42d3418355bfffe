package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/password"
	"github.com/postern-router/postern/service"
)

// A session's lines run without a lock, on a snapshot of the state: what they ask processes,
// iptables or the kernel may take long, and so may the hash of a password. What they change is
// committed if nobody has changed the configuration meanwhile. Otherwise they run again, on
// the new configuration.
const (
	// freeTries is how often lines run before the session takes the turn: then no other
	// session changes anything until they are done.
	freeTries = 3
	// maxTries is when the session gives up. With the turn, only changes by nobody's line get in
	// its way.
	maxTries = 8
)

// errOutdated means that the configuration has changed since the snapshot of it.
var errOutdated = errors.New("failure: the configuration changes all the time; nothing was done")

// execute runs a line: what it changes is applied, or the line fails.
func (r *Router) execute(s *session.Session, line string) (console.Result, error) {
	return r.run(s, func(s *console.Session, st state, live console.Live) (console.Result, error) {
		return s.Execute(st.config, live, line)
	})
}

// run runs what a person or a program wants (do), and carries it out.
func (r *Router) run(s *session.Session, do func(*console.Session, state, console.Live) (console.Result, error)) (console.Result, error) {
	hashes := console.Hashes{Make: r.logins.hash}
	result, err := r.edit(s, func(s *console.Session, st state) (console.Result, error) {
		return do(s, st, r.liveWith(st, s.User, &hashes))
	})
	if err == nil && result.Request == console.SetClock {
		err = r.setClock(result.Clock, kmsg.Uptime(), actor(s.User, s.Origin))
	}
	if err == nil {
		err = result.Action.CarryOut(r.live(r.snapshot(), s.User))
	}
	if err != nil {
		return console.Result{}, err
	}
	return result, nil
}

// importLines runs lines, or those of a.File: what they change is applied together, or nothing is.
func (r *Router) importLines(s *session.Session, text string, a console.ImportArguments) (console.Result, error) {
	if a.File != "" {
		var err error
		if text, err = r.readFile(r.snapshot().fileUser(s.User), a.File); err != nil {
			return console.Result{}, err
		}
	}
	hashes := console.Hashes{Make: r.logins.hash}
	understood := false
	result, err := r.edit(s, func(s *console.Session, st state) (console.Result, error) {
		result, err := s.ImportBy(a, st.config, r.liveWith(st, s.User, &hashes), text, func(c console.Config) error { return checkConfig(st.config, c, r.board) })
		understood = err == nil
		return result, err
	})
	if err != nil && understood { // the system has refused it
		if line := console.LineOf(text, err); line > 0 {
			err = fmt.Errorf("%w (line %d)", err, line)
		}
	}
	return result, err
}

// runner runs lines of a session on a snapshot of the state.
type runner func(*console.Session, state) (console.Result, error)

// edit runs lines until what they change is committed. They run in a copy of the session, so
// that a run that was in vain leaves no trace.
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

// try runs lines once. It takes the turn only to commit.
func (r *Router) try(s *session.Session, run runner) (console.Result, error) {
	return r.attempt(s, run, r.takeTurn)
}

// tryInTurn runs lines once. It has the turn all the time.
func (r *Router) tryInTurn(s *session.Session, run runner) (console.Result, error) {
	release, err := r.takeTurn()
	if err != nil {
		return console.Result{}, err
	}
	defer release()
	return r.attempt(s, run, func() (func(), error) { return func() {}, nil })
}

// takeTurn waits for the turn and returns what gives it back.
func (r *Router) takeTurn() (release func(), err error) {
	select {
	case r.turn <- struct{}{}:
		return func() { <-r.turn }, nil
	case <-r.stopped:
		return nil, errStopped
	}
}

// attempt runs lines once and commits what they have changed. It calls take before it commits.
func (r *Router) attempt(s *session.Session, run runner, take func() (release func(), err error)) (console.Result, error) {
	st, place := r.snapshot(), s.Session.Clone()
	result, err := run(&place, st)
	if err != nil {
		if r.snapshot().revision != st.revision {
			// The error may come from answers that are about the new configuration.
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
			return r.change(s, st.revision, result)
		}()
		if err != nil {
			return console.Result{}, place.Numbered(result.Config, err)
		}
		result.Output += warning + r.awaitServices()
	}
	s.Session = place
	return result, nil
}

// takeTime is how long a line waits until the processes have its change, so that it is in
// force at the prompt. A slower process takes it later.
const takeTime = 2 * time.Second

// awaitServices waits until the services have the change, at most takeTime, and returns
// warnings from those that refuse it.
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

// change commits what a session has made of the configuration with that revision. It returns
// a warning for the user, if there is one.
func (r *Router) change(s *session.Session, revision uint64, result console.Result) (warning string, err error) {
	next := result.Config
	if err := r.beginChange(); err != nil {
		return "", err
	}
	defer r.endChange()
	if err := r.checkSession(s); err != nil {
		return "", err
	}
	if r.now.revision != revision {
		return "", errOutdated
	}
	if r.safeMode != nil && r.safeMode.holder != s {
		return "", fmt.Errorf("%w: nothing can be changed until it leaves that; Ctrl-X takes it over", session.ErrSafeModeHeld)
	}
	if err := checkConfig(r.now.config, next, r.board); err != nil {
		return "", err
	}
	checks := []func(console.Config) string{
		console.UnusableSOCKS, console.FirstOpen,
		func(c console.Config) string { return console.ExposedSOCKS(c, r.board.WAN) },
		console.OutsideDHCP,
		console.TooMuchDNS,
	}
	for _, s := range console.NetworkServices {
		checks = append(checks, func(c console.Config) string { return s.Exposed(c, r.board.WAN) })
	}
	for _, check := range checks {
		// Only who brings it about is warned, and whoever prints the menu.
		if text := check(next); text != "" && text != check(r.now.config) {
			warning += text + "\n"
		}
	}
	before := r.now.config
	r.changer = s
	defer func() { r.changer = nil }()
	history, did := r.now.history.after(s, result.History, r.now.config, next, r.historyRoom)
	if err := r.commit(next, history); err != nil {
		return "", err
	}
	if told := r.logUsers(s, before, next); told {
		did.all = did.others
	}
	r.changes.tell(did.all, actor(s.User, s.Origin))
	r.logCertificates(before, next)
	r.keepConfig()
	return warning + r.warning(), nil
}

// checkSession returns an error if the session must not go on: the router ends, or the user
// still sees Safe Mode, which has ended. What was typed was meant for Safe Mode.
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
	return s.Complete(st.config, r.live(st, s.User), before)
}

func (r *Router) help(s *session.Session, before string) string {
	r.heard(s)
	st := r.snapshot()
	return s.Help(st.config, r.live(st, s.User), before)
}

// liveWith is live for lines that may run again.
func (r *Router) liveWith(st state, user string, hashes *console.Hashes) console.Live {
	live := r.live(st, user)
	live.HashPassword = hashes.Run()
	return live
}

// live is system for a user, as far as he is allowed to.
func (r *Router) live(st state, user string) console.Live {
	live := r.system(st)
	live.Denied = st.config.Denied(cmp.Or(user, console.Admin))
	r.showFiles(&live, st.fileUser(user))
	return live
}

// system gives the console what only the running system knows.
func (r *Router) system(st state) console.Live {
	live := console.Live{
		Links:         r.network.State,
		VLANMembers:   r.network.VLANMembers,
		PortModes:     r.network.PortModes,
		Openings:      r.firewall.Openings,
		Now:           time.Now,
		Counters:      r.firewall.Counters,
		ResetCounters: r.firewall.ResetCounters,
		QueueCounters: r.network.QueueCounters, ResetQueueCounters: r.network.ResetQueueCounters,
		Filled:       r.firewall.Filled,
		RemoveFilled: r.firewall.RemoveFilled,
		Resource:     r.resource,
		Invalid:      func(menu string) ([]int, error) { return r.invalid(st, menu) },
		Addresses:    func() ([]netcfg.Address, error) { return r.dynamicAddresses(st) },
		Routes:       func() ([]console.DynamicRoute, error) { return r.dynamicRoutes(st) },
		History:      func() []console.HistoryEntry { return st.history.list(r.safeFrom()) },
		Undo:         func() (console.Config, error) { return st.history.undo(st.config) },
		Redo:         func() (console.Config, error) { return st.history.redo(st.config) },
		Neighbors:    r.neighbors,
		ForgetNeighbors: func(all []console.Neighbor) error {
			entries := make([]netcfg.Neighbor, len(all))
			for i, n := range all {
				entries[i] = netcfg.Neighbor(n)
			}
			return r.network.ForgetNeighbors(entries)
		},
		ActiveUsers: r.active.list,
		LastLogin:   r.active.last,
		Logout:      r.active.logout,
		Tracked:     firewall.ListTracked,
		Forget:      r.forget,
		// The line that sets a password makes its hash.
		HashPassword: r.logins.hash,
		WAN:          r.board.WAN,
		Requests: []console.Request{console.Import, console.Edit, console.ChangePassword, console.ResetConfiguration,
			console.Ping, console.Traceroute, console.SetClock, console.Upgrade, console.CheckForUpdates},
		Update:     r.updateState,
		Slots:      r.slots,
		DynamicDNS: func() []netip.Addr { return st.layers.effective(st.running, r.board.PortNames()).NameServers },
		DynamicNTP: func() []string { return st.layers.effective(st.running, r.board.PortNames()).TimeServers },
	}
	r.offerCertificates(&live)
	if r.journal != nil {
		live.Log = func() ([]string, error) {
			return r.journal.Lines(kmsg.View{Called: st.config.Called, Zone: st.config.TimeZone})
		}
	}
	for _, s := range r.services {
		s.Show(&live)
	}
	return live
}

// warning is for whoever has changed the configuration: why that may not last, or
// nothing. The caller holds changing.
func (r *Router) warning() string {
	if r.now.incomplete {
		return "warning: forwarding stays closed and changes are not kept until /ip firewall or /interface list is changed\n"
	}
	if err := r.kept.failing(); err != nil {
		return fmt.Sprintf("warning: the configuration is not kept: %v\n", err)
	}
	return ""
}

// checkConfig reports what is wrong with a configuration that a user wants instead of old.
func checkConfig(old, c console.Config, b board.Board) error {
	if err := console.ValidateChange(old, c, b.PortNames()); err != nil {
		return err
	}
	for _, u := range c.Users {
		if u.Password == "" {
			continue
		}
		if _, err := password.Parse(u.Password); err != nil {
			return fmt.Errorf("invalid value for argument password-hash: %w", err)
		}
	}
	return nil
}
