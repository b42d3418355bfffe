package router

import (
	"errors"
	"sync"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/password"
)

const (
	// firstRefusal is the pause before the answer to a wrong password. Each further one
	// doubles it, up to longRefusal. After forgetRefusals without one it starts again.
	firstRefusal   = time.Second
	longRefusal    = 16 * time.Second
	forgetRefusals = 10 * time.Minute
	// failureBurst is how many wrong passwords from the network the log is told of at once,
	// failurePause the time after which it is told of one more: somebody who guesses for hours shall
	// not overwrite what else there is.
	failureBurst = 20
	failurePause = time.Minute
	// maxOrigins is how many network addresses are counted separately.
	maxOrigins = 32
)

// logins checks passwords. Wrong ones are counted for each origin over all its sessions, so
// that reconnecting does not help: in longRefusal an origin makes at most as many guesses as it can
// have under way at once, which are maxSessions at the serial lines, and by SSH what sshd allows an
// address. Wrong passwords from one origin do not slow another: above all, those from the network do
// not slow the serial line.
type logins struct {
	matches func(hash password.Hash, secret string) bool
	make    func(secret string) (string, error)

	// A hash takes much memory, so one is made at a time, with hashing held. Sessions of the
	// network take the lock network first, so that the serial line waits for at most one of
	// them.
	hashing, network sync.Mutex

	mu sync.Mutex
	// refusals has the origins that gave a wrong password in the last forgetRefusals.
	refusals map[session.Origin]*refusals
	failures *kmsg.Limited // from the network
}

// refusals are the wrong passwords of one origin.
type refusals struct {
	count int
	last  time.Time
}

func newLogins(log *kmsg.Logger) logins {
	return logins{matches: password.Hash.Matches, make: password.New, refusals: map[session.Origin]*refusals{},
		failures: log.Limited("login failures", kmsg.Limit{Burst: failureBurst, Pause: failurePause})}
}

// logFailure logs that somebody gave a wrong password. Those at the machine are always told of.
func (l *logins) logFailure(log *kmsg.Logger, user string, from session.Origin) {
	write := log.Printf
	if from.Address.IsValid() {
		write = l.failures.Printf
	}
	write(kmsg.Critical, "login failure for user %s%s", user, fromWhere(from))
}

// check reports whether secret is the user's password, whose hash is given. It takes as long
// for a user that does not exist. A refusal comes after a pause.
func (l *logins) check(from session.Origin, hash, user, secret string) bool {
	if l.compare(from, hash, secret) && user == console.Admin {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.refusals, from)
		return true
	}
	time.Sleep(l.refuse(from))
	return false
}

func (l *logins) compare(from session.Origin, hash, secret string) bool {
	h, err := password.Parse(hash)
	if err != nil {
		return false // nobody has the password
	}
	if from.Address.IsValid() {
		l.network.Lock()
		defer l.network.Unlock()
	}
	l.hashing.Lock()
	defer l.hashing.Unlock()
	return l.matches(h, secret)
}

// refuse counts a wrong password and returns how long its origin has to wait.
func (l *logins) refuse(from session.Origin) (pause time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for o, r := range l.refusals {
		if time.Since(r.last) > forgetRefusals {
			delete(l.refusals, o)
		}
	}
	if from.Address.IsValid() && l.refusals[from] == nil && len(l.refusals) >= maxOrigins {
		// All further origins share one entry. No known origin is forgotten for them.
		from = session.Origin{Via: "others"}
	}
	r := l.refusals[from]
	if r == nil {
		r = &refusals{}
		l.refusals[from] = r
	}
	pause = min(firstRefusal<<min(r.count, 10), longRefusal)
	r.count, r.last = r.count+1, time.Now()
	return pause
}

// hash makes a hash of a password.
func (l *logins) hash(secret string) (string, error) {
	l.hashing.Lock()
	defer l.hashing.Unlock()
	return l.make(secret)
}

func (r *Router) hasPassword() bool { return r.snapshot().config.AdminPassword != "" }

// login reports whether a session may begin.
func (r *Router) login(s *session.Session, user, secret string) bool {
	hash := r.snapshot().config.AdminPassword
	if hash == "" {
		return true // it was removed meanwhile
	}
	if !r.judge(s.Origin, hash, user, secret) {
		return false
	}
	r.logLogin(s.Origin, "in")
	return true
}

// logLogin logs that admin has logged in, or out.
func (r *Router) logLogin(from session.Origin, what string) {
	r.log.About("system,account").Printf(kmsg.Info, "user %s logged %s%s", console.Admin, what, fromWhere(from))
}

// judge reports whether secret is the user's password, whose hash is given, and logs it if not.
func (r *Router) judge(from session.Origin, hash, user, secret string) bool {
	if r.logins.check(from, hash, user, secret) {
		return true
	}
	if _, err := password.Parse(hash); err != nil && hash != "" {
		// It came from a file: the console would have refused it.
		r.log.Printf(kmsg.Error, "nobody can log in: %v", err)
	}
	if user != console.Admin {
		// It may be a password that was typed too early.
		user = "unknown"
	}
	r.logins.logFailure(r.log, user, from)
	return false
}

// fromWhere is the part of a log line that names an origin in the network, in RouterOS'
// words.
func fromWhere(o session.Origin) string {
	if !o.Address.IsValid() {
		return ""
	}
	return " from " + o.String() + " via " + o.Via
}

// setPassword changes admin's password if old is the present one.
func (r *Router) setPassword(s *session.Session, old, new string) error {
	present := r.snapshot().config.AdminPassword
	if present != "" && !r.logins.check(s.Origin, present, console.Admin, old) {
		r.log.Printf(kmsg.Critical, "password change failure for user %s", console.Admin)
		return errors.New("failure: old password is wrong")
	}
	hash := ""
	if new != "" {
		var err error
		if hash, err = r.logins.hash(new); err != nil {
			return err
		}
	}
	_, err := r.edit(s, func(_ *console.Session, st state) (console.Result, error) {
		if st.config.AdminPassword != present {
			return console.Result{}, errors.New("failure: the password was changed meanwhile")
		}
		next := st.config.Clone()
		next.AdminPassword = hash
		return console.Result{Config: next, Changed: true}, nil
	})
	return err
}

// logPassword logs that a session has changed admin's password, if it has. It takes the hashes
// before and after.
func (r *Router) logPassword(s *session.Session, before, after string) {
	did := "changed"
	switch after {
	case before:
		return
	case "":
		did = "removed"
	}
	r.log.About("system,account").Printf(kmsg.Info, "password of user %s %s%s", console.Admin, did, fromWhere(s.Origin))
}
