package router

import (
	"slices"
	"sync"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/kmsg"
)

// activeUsers are the logins that there are, by whatever way in. Each way bounds how many it lets in.
type activeUsers struct {
	mu  sync.Mutex
	all []*activeUser
	// lasts is when each user has logged in last, since the start.
	lasts map[string]time.Duration
}

type activeUser struct {
	user string
	from session.Origin
	at   time.Duration // since the start: the clock may be set later
}

// enter notes a login.
func (a *activeUsers) enter(user string, from session.Origin) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, &activeUser{user, from, kmsg.Uptime()})
	if a.lasts == nil || len(a.lasts) > maxLasts {
		a.lasts = map[string]time.Duration{}
	}
	a.lasts[user] = kmsg.Uptime()
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

// leave forgets one. Of several from the same place it is the oldest, which nobody can tell from the others.
func (a *activeUsers) leave(user string, from session.Origin) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := slices.IndexFunc(a.all, func(u *activeUser) bool { return u.user == user && u.from == from }); i >= 0 {
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
		all = append(all, console.ActiveUser{Name: u.user, Address: u.from.Address, Via: u.from.Via, For: now - u.at})
	}
	return all, nil
}
