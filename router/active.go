package router

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/ssh"
)

// activeUsers are the logins that there are, by whatever way in. Each way bounds how many it lets in.
type activeUsers struct {
	mu  sync.Mutex
	all []*activeUser
	// lastID is that of the latest login.
	lastID uint32
	// lasts is when each user has logged in last, since the start.
	lasts map[string]time.Duration
}

// activeUser is a login.
type activeUser struct {
	id   uint32
	user string
	from session.Origin
	// number is that of a login over the network, which is its own among those of one way in.
	number uint64
	at     time.Duration // since the start: the clock may be set later
	// proof is what the user was let in for: see proofOf. It is guarded by activeUsers.mu.
	proof string
	// end ends the login. It does not wait.
	end func()
}

// enter notes a login.
func (a *activeUsers) enter(u *activeUser) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lastID++
	u.id, u.at = a.lastID, kmsg.Uptime()
	a.all = append(a.all, u)
	if a.lasts == nil || len(a.lasts) > maxLasts {
		a.lasts = map[string]time.Duration{}
	}
	a.lasts[u.user] = u.at
}

// maxLasts bounds the users, renamed ones among them, whose last login is known.
const maxLasts = 64

// last is how long ago a user has logged in last.
func (a *activeUsers) last(user string) (ago time.Duration, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, ok := a.lasts[user]
	return kmsg.Uptime() - at, ok
}

// leave forgets a login.
func (a *activeUsers) leave(user string, from session.Origin, number uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := slices.IndexFunc(a.all, func(u *activeUser) bool { return u.user == user && u.from == from && u.number == number }); i >= 0 {
		a.all = slices.Delete(a.all, i, i+1)
	}
}

// list is what the console shows.
func (a *activeUsers) list() ([]console.ActiveUser, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []console.ActiveUser
	now := kmsg.Uptime()
	for _, u := range a.all {
		all = append(all, console.ActiveUser{Number: u.id, Name: u.user, Address: u.from.Address, Via: u.from.Via, For: now - u.at})
	}
	return all, nil
}

// logout ends logins, by their ids. It does not matter if one has ended already.
func (a *activeUsers) logout(ids []uint32) error {
	a.endIf(func(u *activeUser) bool { return slices.Contains(ids, u.id) })
	return nil
}

// endIf ends the logins of which over reports true.
func (a *activeUsers) endIf(over func(*activeUser) bool) {
	var ends []func()
	a.mu.Lock()
	for _, u := range a.all {
		if u.end != nil && over(u) {
			ends = append(ends, u.end)
		}
	}
	a.mu.Unlock()
	for _, end := range ends {
		end()
	}
}

// proofOf is what a user is let in for: the hash of the password that he has now and, if that was it, the key.
func proofOf(c console.Config, user, key string) string {
	u, _ := c.User(user)
	return u.Password + " " + key
}

// holds reports whether a login may go on: the user may still log in so, has the same password, and the key.
func (u *activeUser) holds(c console.Config) bool {
	_, key, _ := strings.Cut(u.proof, " ")
	return c.MayLogIn(u.user, policyOf(u.from.Via), u.from.Address) && u.proof == proofOf(c, u.user, key) && (key == "" || hasKey(c, u.user, key))
}

func hasKey(c console.Config, user, key string) bool {
	return slices.ContainsFunc(c.SSHKeys, func(k ssh.Key) bool { return k.User == user && k.Public.Key == key })
}

// usersOf is the configuration that says who may log in by a way: at the machine what a user has set, also if it could not be
// applied.
func (st state) usersOf(via string) console.Config {
	if via == session.Console {
		return st.config
	}
	return st.running
}

// endStale ends the logins of those who are gone, or have another password, or may not log in so any more. The session that
// has brought that about (changer, nil if none has) goes on if its user may still log in: its answer is to arrive, and who
// changes the own password need not log in again. Programs of REST send the password with each request, so theirs ends.
func (r *Router) endStale(changer *session.Session) {
	st := r.snapshot()
	r.active.endIf(func(u *activeUser) bool {
		c := st.usersOf(u.from.Via)
		if u.holds(c) {
			return false
		}
		if changer != nil && u.user == cmp.Or(changer.User, console.Admin) && u.from == changer.Origin && u.number == changer.Login && u.from.Via != viaREST &&
			c.MayLogIn(u.user, policyOf(u.from.Via), u.from.Address) {
			_, key, _ := strings.Cut(u.proof, " ")
			if !hasKey(c, u.user, key) {
				key = ""
			}
			u.proof = proofOf(c, u.user, key)
			return false
		}
		return true
	})
}
