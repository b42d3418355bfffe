package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/postern-router/postern/api"
	"github.com/postern-router/postern/console/program"
	"github.com/postern-router/postern/login"
)

const (
	// maxUsers is how many logins there are at most. PID 1 may let in fewer.
	maxUsers = login.MaxLogins
	// idleTime is how long a login lasts without a request.
	idleTime = 15 * time.Minute
	// spareTime is how long a login must have been without a request to make room for another.
	spareTime = time.Minute
	// maxSessions is how many requests of a login are carried out at once, sessionTime how long one more
	// waits, and commandTime how long a request may take: upgradeTime if it fetches an image and writes it to flash.
	maxSessions = 3
	sessionTime = 10 * time.Second
	commandTime = time.Minute
	upgradeTime = time.Hour
)

// Session is a session with PID 1, over which one request at a time looks at the router or changes it: see
// package program, whose Client it is.
type Session = api.Session

// Account is a user who has logged in.
type Account interface {
	api.Account
	// Leave says that the user has gone while a request of his is still carried out: another may have the place.
	Leave()
}

// checkPassword says whose password this is; nil is that it is wrong. errFull is that it is right, and that there are too
// many logins.
// Rest says that it is for REST.
type checkPassword func(ctx context.Context, from netip.Addr, name, secret string, rest bool) (Account, error)

// setFirst sets the first password of a router that has none, and says who has logged in by that; nil is that it was not set. Unset is that
// one is needed, and that this client may set it.
type setFirst func(ctx context.Context, from netip.Addr, name, new string) (account Account, unset bool, err error)

var (
	errFull = errors.New("there are as many logins as max-sessions allows")
	errBusy = errors.New("too many requests at once")
	// errOver is that a request took too long, in RouterOS's words.
	errOver = errors.New("Session closed")
)

// secretHash is what is kept of a password or of a cookie: its hash with a random key and the client's address.
type secretHash [sha256.Size]byte

// users are those who have logged in.
type users struct {
	check checkPassword
	first setFirst
	hold  func() (release func()) // keeps the process
	key   [32]byte

	mu  sync.Mutex
	all map[secretHash]*user
	// checking has the passwords that are being checked, each with a channel that is closed afterwards:
	// requests that come at once with one password are one login.
	checking map[secretHash]chan struct{}
}

// user is somebody who has logged in: by the page, with a cookie, or by a request's Basic authentication.
type user struct {
	name    string
	token   string // for changes with the cookie
	account Account
	release func()
	slots   chan struct{} // has an entry for each request that is carried out
	idle    chan Session

	busy  int // guarded by users.mu, as the rest
	used  time.Time
	timer *time.Timer
	ended bool
}

func newUsers(check checkPassword, first setFirst, hold func() func()) *users {
	u := &users{check: check, first: first, hold: hold, all: map[secretHash]*user{}, checking: map[secretHash]chan struct{}{}}
	_, _ = rand.Read(u.key[:]) // never fails
	return u
}

func (u *users) hash(kind byte, from netip.Addr, secret string) secretHash {
	b := append(append(u.key[:], kind), from.AsSlice()...)
	return sha256.Sum256(append(b, secret...))
}

// random is a text that nobody guesses.
func random() string {
	var b [18]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// byCookie returns the user of a cookie, for a request: done is to be called after it. It is nil if there is none.
func (u *users) byCookie(from netip.Addr, cookie string) *user {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.begin(u.hash('c', from, cookie))
}

// begin returns the user of that hash for a request. The caller holds mu.
func (u *users) begin(h secretHash) *user {
	v := u.all[h]
	if v != nil {
		v.busy++
	}
	return v
}

// done is the end of a request.
func (u *users) done(v *user) {
	u.mu.Lock()
	defer u.mu.Unlock()
	v.busy--
	v.used = time.Now()
	switch {
	case !v.ended:
		v.timer.Reset(idleTime)
	case v.busy == 0:
		go v.leave()
	}
}

// byPassword returns the user of Basic authentication, for a request. The password is checked if it was not in the last
// idleTime. It is nil if it is wrong.
func (u *users) byPassword(ctx context.Context, from netip.Addr, name, secret string) (*user, error) {
	h := u.hash('b', from, name+":"+secret)
	for {
		u.mu.Lock()
		if v := u.begin(h); v != nil {
			u.mu.Unlock()
			return v, nil
		}
		wait, isChecked := u.checking[h]
		if !isChecked {
			u.checking[h] = make(chan struct{})
		}
		u.mu.Unlock()
		if !isChecked {
			break
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	v, err := u.login(ctx, h, from, name, secret, true)
	u.mu.Lock()
	defer u.mu.Unlock()
	close(u.checking[h])
	delete(u.checking, h)
	return v, err
}

// byForm returns the user of the page's login, for a request, with the cookie. It is nil if the password is wrong.
func (u *users) byForm(ctx context.Context, from netip.Addr, name, secret string) (v *user, cookie string, err error) {
	cookie = random()
	v, err = u.login(ctx, u.hash('c', from, cookie), from, name, secret, false)
	return v, cookie, err
}

// byFirst is byForm of who sets the first password.
func (u *users) byFirst(ctx context.Context, from netip.Addr, name, new string) (v *user, cookie string, unset bool, err error) {
	if len(name) > login.MaxUser || len(new) > login.MaxPassword {
		return nil, "", false, nil
	}
	account, unset, err := u.first(ctx, from, name, new)
	if err != nil || account == nil {
		return nil, "", unset, err
	}
	cookie = random()
	v, err = u.enter(u.hash('c', from, cookie), name, account)
	return v, cookie, false, err
}

// login makes a user who is known by that hash.
func (u *users) login(ctx context.Context, h secretHash, from netip.Addr, name, secret string, rest bool) (*user, error) {
	if len(name) > login.MaxUser || len(secret) > login.MaxPassword {
		return nil, nil
	}
	account, err := u.check(ctx, from, name, secret, rest)
	if errors.Is(err, errFull) && u.makeRoom(name) {
		account, err = u.check(ctx, from, name, secret, rest)
	}
	if err != nil || account == nil {
		return nil, err
	}
	return u.enter(h, name, account)
}

// enter makes a user of an account.
func (u *users) enter(h secretHash, name string, account Account) (*user, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.all) >= maxUsers {
		go account.Logout()
		return nil, errFull
	}
	v := &user{name: name, token: random(), account: account, release: u.hold(), busy: 1,
		slots: make(chan struct{}, maxSessions), idle: make(chan Session, maxSessions)}
	v.timer = time.AfterFunc(idleTime, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if left := idleTime - time.Since(v.used); v.busy > 0 || left > 0 {
			v.timer.Reset(max(left, time.Second))
			return
		}
		u.end(h, v)
	})
	u.all[h] = v
	account.OnEnd(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.end(h, v)
	})
	return v, nil
}

// makeRoom ends the login that has been without a request for the longest time, if that is long enough: one of the same user,
// if he has any, so that who logs in again and again ends none of others.
func (u *users) makeRoom(name string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	var oldest secretHash
	var found *user
	hasOwn := false
	for _, v := range u.all {
		hasOwn = hasOwn || v.name == name
	}
	for h, v := range u.all {
		if (v.name == name || !hasOwn) && v.busy == 0 && time.Since(v.used) >= spareTime && (found == nil || v.used.Before(found.used)) {
			oldest, found = h, v
		}
	}
	if found == nil {
		return false
	}
	// It waits: PID 1 is to know before it checks the next one.
	u.mu.Unlock()
	found.account.Logout()
	u.mu.Lock()
	u.end(oldest, found)
	return true
}

// logout ends the login of a cookie.
func (u *users) logout(from netip.Addr, cookie string) {
	h := u.hash('c', from, cookie)
	u.mu.Lock()
	v := u.all[h]
	isLeft := false
	if v != nil {
		u.end(h, v)
		isLeft = v.busy > 1 // by others than the request that ends it
	}
	u.mu.Unlock()
	if isLeft {
		v.account.Leave() // it waits: whoever logs in next finds the place
	}
}

// end ends a login; its requests are answered first. The caller holds mu.
func (u *users) end(h secretHash, v *user) {
	if v.ended {
		return
	}
	v.ended = true
	delete(u.all, h)
	v.timer.Stop()
	if v.busy == 0 {
		go v.leave()
	}
}

// leave tells PID 1 that the login is over.
func (v *user) leave() {
	v.account.Logout() // which ends the sessions
	for range maxSessions {
		select {
		case s := <-v.idle:
			s.Close()
		default:
		}
	}
	v.release()
}

// with calls f with a session that no other request uses meanwhile, for that time at most.
func (v *user) with(ctx context.Context, most time.Duration, f func(Session) error) error {
	wait := time.NewTimer(sessionTime)
	defer wait.Stop()
	select {
	case v.slots <- struct{}{}:
	case <-wait.C:
		return errBusy
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-v.slots }()
	var s Session
	select {
	case s = <-v.idle:
	default:
		var err error
		if s, err = v.account.Session(); err != nil {
			return err
		}
	}
	end := time.AfterFunc(most, func() { s.Close() })
	err := f(s)
	if !end.Stop() {
		if err != nil {
			err = errOver
		}
		return err
	}
	if isRefusal(err) {
		select {
		case v.idle <- s:
			return err
		default:
		}
	}
	s.Close()
	return err
}

// isRefusal reports whether a session is still of use after this error of it, or none: it is PID 1's answer.
func isRefusal(err error) bool { return err == nil || program.Refused(err) }
