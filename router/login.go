package router

import (
	"errors"
	"sync"
	"time"

	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/password"
)

const (
	// firstRefusal is how long who gave a wrong password waits for the answer. Each
	// further one doubles it up to longRefusal; forgetRefusals without one ends that.
	firstRefusal   = time.Second
	longRefusal    = 16 * time.Second
	forgetRefusals = 10 * time.Minute
)

// logins checks passwords, one at a time: a hash takes much memory. Wrong ones are
// counted over all sessions, so that it does not help to hang up and call again, nor
// to have several: no more than maxSessions guesses are made in longRefusal.
type logins struct {
	sleep func(time.Duration)

	mu      sync.Mutex
	refused int
	last    time.Time // when it was
}

// check reports whether the password is the user's, of which hash is kept. It takes as
// long for a user whom nobody knows, and is slow to refuse.
func (l *logins) check(hash, user, secret string) bool {
	ok, pause := l.compare(hash, user, secret)
	if !ok {
		l.sleep(pause)
	}
	return ok
}

func (l *logins) compare(hash, user, secret string) (ok bool, pause time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// If it cannot be read, nobody has the password.
	if h, err := password.Parse(hash); err == nil {
		ok = h.Matches(secret) && user == adminName
	}
	if ok {
		l.refused = 0
		return true, 0
	}
	if time.Since(l.last) > forgetRefusals {
		l.refused = 0
	}
	pause = min(firstRefusal<<min(l.refused, 10), longRefusal)
	l.refused++
	l.last = time.Now()
	return false, pause
}

// hash makes a hash of a password.
func (l *logins) hash(secret string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return password.New(secret)
}

// adminName is the one user's.
const adminName = "admin"

func (r *Router) adminPassword() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.config.AdminPassword
}

func (r *Router) hasPassword() bool { return r.adminPassword() != "" }

// login reports whether a session may begin.
func (r *Router) login(_ *session.Session, user, secret string) bool {
	hash := r.adminPassword()
	if hash == "" {
		return true // it was removed meanwhile
	}
	if r.logins.check(hash, user, secret) {
		r.log.About("system,account").Printf(kmsg.Info, "user %s logged in", adminName)
		return true
	}
	if _, err := password.Parse(hash); err != nil {
		// From a file: here it would have been refused.
		r.log.Printf(kmsg.Error, "nobody can log in: %v", err)
	}
	if user != adminName {
		// It may well be a password, typed too soon.
		user = "unknown"
	}
	r.log.Printf(kmsg.Critical, "login failure for user %s", user)
	return false
}

// setPassword changes admin's password if old is the present one.
func (r *Router) setPassword(s *session.Session, old, new string) error {
	if hash := r.adminPassword(); hash != "" && !r.logins.check(hash, adminName, old) {
		r.log.Printf(kmsg.Critical, "password change failure for user %s", adminName)
		return errors.New("failure: old password is wrong")
	}
	hash := ""
	if new != "" {
		var err error
		if hash, err = r.logins.hash(new); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.config.Clone()
	next.AdminPassword = hash
	return r.change(s, next)
}
