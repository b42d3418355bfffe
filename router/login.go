package router

import (
	"cmp"
	"errors"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/password"
	"github.com/postern-router/postern/ssh"
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
	// maxOrigins is how many network addresses are counted separately, for each way in: some fifty that guess by all four of them.
	maxOrigins = 224
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
	// network wait for their turn first, so that the serial line waits for at most one of
	// them.
	hashing sync.Mutex
	network turns

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

// turns lets one of many go on at a time: of those who wait the one of the best rank (login.Rank), and of these who has waited longest.
type turns struct {
	mu      sync.Mutex
	taken   bool
	waiting []turn
}

type turn struct {
	rank func() int
	next chan struct{} // closed when it is this one's turn
}

// take waits for the turn. Rank is asked each time that somebody goes on.
func (t *turns) take(rank func() int) {
	t.mu.Lock()
	if !t.taken {
		t.taken = true
		t.mu.Unlock()
		return
	}
	mine := turn{rank, make(chan struct{})}
	t.waiting = append(t.waiting, mine)
	t.mu.Unlock()
	<-mine.next
}

// pass ends the turn.
func (t *turns) pass() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) == 0 {
		t.taken = false
		return
	}
	best, rank := 0, t.waiting[0].rank()
	for i, w := range t.waiting[1:] {
		if r := w.rank(); r < rank {
			best, rank = i+1, r
		}
	}
	close(t.waiting[best].next)
	t.waiting = slices.Delete(t.waiting, best, best+1)
}

// others is the one entry of all origins beyond maxOrigins.
var others = session.Origin{Via: "others"}

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

// check reports whether secret is the password whose hash is given, and right says that who gives it may log in: it takes as
// long if not. A refusal comes after a pause.
func (l *logins) check(from session.Origin, hash string, right bool, secret string) bool {
	from.TLS = false // who guesses both ways shall not guess twice as much
	// At the machine itself a user who has no password gives an empty one.
	empty := hash == "" && secret == "" && !from.Address.IsValid()
	if (empty || l.compare(from, hash, secret)) && right {
		l.forgive(from)
		return true
	}
	time.Sleep(l.refuse(from))
	return false
}

// forgive forgets the wrong passwords of an origin, from which somebody has logged in.
func (l *logins) forgive(from session.Origin) {
	from.TLS = false
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.refusals, from)
}

func (l *logins) compare(from session.Origin, hash, secret string) bool {
	h, err := password.Parse(hash)
	if err != nil {
		return false // nobody has the password
	}
	if from.Address.IsValid() {
		l.network.take(func() int { return login.Rank(l.wrong(from)) })
		defer l.network.pass()
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
		from = others
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

// wrong is how many wrong passwords an origin has given in the last forgetRefusals.
func (l *logins) wrong(from session.Origin) int {
	from.TLS = false
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.refusals[from]
	if r == nil && len(l.refusals) >= maxOrigins {
		r = l.refusals[others]
	}
	if r == nil || time.Since(r.last) > forgetRefusals {
		return 0
	}
	return r.count
}

// hash makes a hash of a password, unless now is one: see console.Live.HashPassword.
func (l *logins) hash(secret, now string) (string, error) {
	l.hashing.Lock()
	defer l.hashing.Unlock()
	if h, err := password.Parse(now); err == nil && l.matches(h, secret) {
		return now, nil
	}
	return l.make(secret)
}

// unlocked is the user as whom a session at a serial line begins without a login; "" if it needs one.
func (r *Router) unlocked() string { return r.snapshot().config.Unlocked() }

func (r *Router) hasPassword(user string) bool {
	u, _ := r.snapshot().config.User(user)
	return u.Password != ""
}

// login reports whether a session may begin.
func (r *Router) login(s *session.Session, user, secret string) bool {
	if _, ok := r.judge(r.snapshot().config, s.Origin, user, secret); !ok {
		return false
	}
	r.logLogin(user, s.Origin, "in")
	return true
}

// logLogin logs that a user has logged in, or out.
func (r *Router) logLogin(user string, from session.Origin, what string) {
	r.log.About("system,account").Printf(kmsg.Info, "user %s logged %s%s", user, what, fromWhere(from))
}

// policyOf is the policy that lets a user log in by a way.
func policyOf(via string) console.Policies {
	switch via {
	case session.Console:
		return console.MayLocal
	case viaSSH:
		return console.MaySSH
	case viaAPI:
		return console.MayAPI
	case viaWeb:
		return console.MayWeb
	case viaREST:
		return console.MayREST
	}
	return 0
}

// judge reports whether secret is a user's password with which he may log in from there, and logs it if not. Hash is that of
// the password.
func (r *Router) judge(c console.Config, from session.Origin, user, secret string) (hash string, ok bool) {
	u, known := c.User(user)
	hash = u.Password
	// The process of a service hears a moment later than the user that its addresses have changed.
	right := c.MayLogIn(user, policyOf(from.Via), from.Address) && c.AllowsFrom(from.Address, policyOf(from.Via), from.TLS)
	if from.Via == viaSSH && slices.ContainsFunc(c.SSHKeys, func(k ssh.Key) bool { return k.User == user }) {
		// As in RouterOS who has a key has no password by SSH: it is asked for in vain.
		right = false
	}
	tried := hash
	if tried == "" && (!right || from.Address.IsValid()) {
		// It takes as long for who is not there, or has no password.
		right = false
		for _, other := range c.Users {
			tried = cmp.Or(tried, other.Password)
		}
	}
	if r.logins.check(from, tried, right, secret) {
		return hash, true
	}
	if _, err := password.Parse(hash); err != nil && hash != "" {
		// It came from a file: the console would have refused it.
		r.log.Printf(kmsg.Error, "nobody can log in: %v", err)
	}
	if !known {
		// It may be a password that was typed too early.
		user = "unknown"
	}
	r.logins.logFailure(r.log, user, from)
	return "", false
}

// fromWhere is the part of a log line that names an origin in the network, in RouterOS'
// words.
func fromWhere(o session.Origin) string {
	if !o.Address.IsValid() {
		return ""
	}
	return " from " + o.String() + " via " + o.Via
}

// actor is who does something in a session, and by what way, in RouterOS's words: "ssh:admin@192.168.0.2", "console:admin@ttyS0".
func actor(user string, from session.Origin) string {
	user = cmp.Or(user, console.Admin)
	switch where := from.String(); {
	case from.Via == "":
		return user
	case where == from.Via:
		return from.Via + ":" + user
	default:
		return from.Via + ":" + user + "@" + where
	}
}

// logRequest logs who has the router restart, or replaces its software or its configuration.
func (r *Router) logRequest(request console.Request, user string, from session.Origin) {
	what := map[console.Request]string{console.Reboot: "restart", console.Shutdown: "shutdown", console.Upgrade: "upgrade",
		console.ResetConfiguration: "reset of the configuration"}[request]
	if what != "" {
		r.log.Printf(kmsg.Notice, "%s by %s", what, actor(user, from))
	}
}

// errPasswordStays is the error of who removes the own password and may not change users: without any password and key, whoever is on
// the LAN could set the first one, as the user who owns the router.
var errPasswordStays = errors.New("failure: a password is needed")

// setPassword changes the password of a session's user if old is the present one.
func (r *Router) setPassword(s *session.Session, old, new string) error {
	return r.changePassword(s, old, new, func(st state) error {
		switch lacks := st.config.Denied(cmp.Or(s.User, console.Admin)); {
		case lacks&console.MayPassword != 0:
			return console.ErrNotPermitted
		case new == "" && lacks&console.MayPolicy != 0:
			return errPasswordStays
		}
		return nil
	})
}

// changePassword is setPassword, if may says nothing against it: also when it is done, as a hash takes a while.
func (r *Router) changePassword(s *session.Session, old, new string, may func(state) error) error {
	user := cmp.Or(s.User, console.Admin)
	u, _ := r.snapshot().config.User(user)
	if u.Password != "" && !r.logins.check(s.Origin, u.Password, true, old) {
		r.log.Printf(kmsg.Critical, "password change failure for user %s%s", user, fromWhere(s.Origin))
		return errors.New("failure: old password is wrong")
	}
	if err := may(r.snapshot()); err != nil {
		return err
	}
	if u.Password != "" && new == old {
		return nil // with another salt it would be a change, to be kept on flash
	}
	hash := ""
	if new != "" {
		var err error
		if hash, err = r.logins.hash(new, ""); err != nil {
			return err
		}
	}
	_, err := r.edit(s, func(_ *console.Session, st state) (console.Result, error) {
		if now, _ := st.config.User(user); now.Password != u.Password {
			return console.Result{}, errors.New("failure: the password was changed meanwhile")
		}
		if err := may(st); err != nil {
			return console.Result{}, err
		}
		next := st.config.Clone()
		if !next.SetPassword(user, hash) {
			return console.Result{}, console.ErrNotPermitted
		}
		return console.Result{Config: next, Changed: true}, nil
	})
	return err
}

// logUsers logs which users, groups and keys, and whose passwords, a session has changed, and reports whether it has any.
func (r *Router) logUsers(s *session.Session, before, after console.Config) (told bool) {
	by := actor(s.User, s.Origin)
	did := func(format, user, what string) {
		told = true
		r.log.About("system,account").Printf(kmsg.Info, format, user, what, by)
	}
	for _, u := range before.Users {
		switch now, ok := after.User(u.Name); {
		case !ok:
			did("user %s %s by %s", u.Name, "removed")
		case u.Password != now.Password && now.Password == "":
			did("password of user %s %s by %s", u.Name, "removed")
		case u.Password != now.Password:
			did("password of user %s %s by %s", u.Name, "changed")
		}
	}
	for _, u := range after.Users {
		old, ok := before.User(u.Name)
		if !ok {
			did("user %s %s by %s", u.Name, "added")
		}
		if old.Password, old.Comment = u.Password, u.Comment; ok && !reflect.DeepEqual(old, u) {
			did("user %s %s by %s", u.Name, "changed") // what he may do
		}
	}
	isNamed := func(name string) func(console.Group) bool {
		return func(g console.Group) bool { return g.Name == name }
	}
	for _, g := range before.Groups {
		switch i := slices.IndexFunc(after.Groups, isNamed(g.Name)); {
		case i < 0:
			did("group %s %s by %s", g.Name, "removed")
		case after.Groups[i].Policy != g.Policy:
			did("group %s %s by %s", g.Name, "changed")
		}
	}
	for _, g := range after.Groups {
		if !slices.ContainsFunc(before.Groups, isNamed(g.Name)) {
			did("group %s %s by %s", g.Name, "added")
		}
	}
	for _, k := range before.SSHKeys {
		if !hasKey(after, k.User, k.Public.Key) {
			did("ssh key of user %s %s by %s", k.User, "removed")
		}
	}
	for _, k := range after.SSHKeys {
		if !hasKey(before, k.User, k.Public.Key) {
			did("ssh key of user %s %s by %s", k.User, "added")
		}
	}
	return told
}
