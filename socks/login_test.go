package socks

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/password"
)

// greetingPassword is that of a client that has a password, and mayLogIn the answers up to
// the one that lets it in.
const (
	greetingPassword = "\x05\x02\x00\x02"
	chosenPassword   = "\x05\x02"
	mayLogIn         = chosenPassword + "\x01\x00"
	mayNotLogIn      = chosenPassword + "\x01\x01"
)

func login(name, password string) string {
	return "\x01" + string([]byte{byte(len(name))}) + name + string([]byte{byte(len(password))}) + password
}

// hashOf is a hash in the right form which only passwordChecks takes for that of secret.
func hashOf(secret string) string {
	key := make([]byte, max(16, len(secret)))
	copy(key, secret)
	return "$argon2id$v=19$m=2048,t=3,p=1$" + base64.RawStdEncoding.EncodeToString(make([]byte, 16)) + "$" +
		base64.RawStdEncoding.EncodeToString(key)
}

// passwordChecks stands for slow checks: each waits until the test lets it end, if hold is set.
type passwordChecks struct {
	hold chan struct{}
	over <-chan struct{} // closed at the end of the test

	mu     sync.Mutex
	asked  []string // the passwords, in the order in which their checks began
	hashes []string
}

func (p *passwordChecks) matches(hash, secret string) bool {
	p.mu.Lock()
	p.asked, p.hashes = append(p.asked, secret), append(p.hashes, hash)
	p.mu.Unlock()
	if p.hold != nil {
		select {
		case <-p.hold:
		case <-p.over:
		}
	}
	return hash == hashOf(secret)
}

func (p *passwordChecks) began() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.asked...)
}

// awaitBegan waits until those checks, and no others, have begun.
func (p *passwordChecks) awaitBegan(t *testing.T, secrets ...string) {
	t.Helper()
	require.Eventually(t, func() bool { return len(p.began()) >= len(secrets) }, patience, time.Millisecond,
		"%d checks expected", len(secrets))
	require.Equal(t, secrets, p.began())
}

// startWithUsers starts a server for alice, whose password is secret, and bob, whose is hidden.
func startWithUsers(t *testing.T, checks *passwordChecks, change func(*options)) *setup {
	checks.over = t.Context().Done()
	return start(t, func(o *options) {
		o.cfg.Version, o.cfg.AuthMethod = 5, AuthPassword
		o.cfg.Users = []User{{Name: "alice", Password: hashOf("secret")}, {Name: "bob", Password: hashOf("hidden")}}
		o.matches = checks.matches
		if change != nil {
			change(o)
		}
	})
}

// connectAs makes a connection through the server as a user, and returns both ends.
func (u *setup) connectAs(t *testing.T, name, secret string) (near, far client) {
	t.Helper()
	l := listen(t, "127.0.0.1")
	near = dial(t, u.addr)
	near.send(greetingPassword + login(name, secret) + ask5(commandConnect, l.Addr().String()))
	require.Equal(t, mayLogIn, near.receive(4))
	near.reply5(reply5Granted)
	return near, accept(t, l)
}

// tryPassword sends a password from an address, and returns the client, which waits.
func (u *setup) tryPassword(t *testing.T, from, name, secret string) client {
	t.Helper()
	near := dialFrom(t, from, u.addr)
	near.send(greetingPassword + login(name, secret))
	require.Equal(t, chosenPassword, near.receive(2))
	return near
}

func (c client) loginRefused() {
	c.t.Helper()
	assert.Equal(c.t, "\x01\x01", c.receive(2))
	c.ended()
}

func (u *setup) waiting() (tries int) {
	u.Server.mu.Lock()
	defer u.Server.mu.Unlock()
	return len(u.tries)
}

func (u *setup) awaitWaiting(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return u.waiting() == n }, patience, time.Millisecond, "%d tries expected to wait", n)
}

func TestLogin(t *testing.T) {
	hash, err := password.New("secret")
	require.NoError(t, err)
	for _, c := range ways {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, func(o *options) {
				o.cfg.Version, o.cfg.AuthMethod = 5, AuthPassword
				o.cfg.Users = []User{{Name: "alice", Password: hash}}
			})
			l := listen(t, "127.0.0.1")
			for range 2 { // the second by what is remembered of the first
				near := dial(t, u.addr)
				c.send(near, greetingPassword, login("alice", "secret"), ask5(commandConnect, l.Addr().String()), "early")
				assert.Equal(t, mayLogIn, near.receive(4))
				near.reply5(reply5Granted)
				far := accept(t, l)
				assert.Equal(t, "early", far.receive(5))
				far.send("hello")
				assert.Equal(t, "hello", near.receive(5))
				assert.Equal(t, "alice", u.Connections()[0].UserID)
				near.Close()
				far.Close()
				u.awaitCount(t, 0)
			}
			u.awaitLog(t, "connection 2 opened", `user="alice"`)
			u.awaitLog(t, "connection 2 closed", `user="alice"`)
			near := dial(t, u.addr)
			c.send(near, greetingPassword, login("alice", "wrong"))
			assert.Equal(t, mayNotLogIn, near.receive(4))
			near.ended()
		})
	}
}

func TestLoginRefused(t *testing.T) {
	long := strings.Repeat("\x00", 255)
	for _, c := range []struct {
		name, send, want, reason string
		users                    []User
	}{
		{name: "wrong password", send: login("alice", "hidden"), want: mayNotLogIn, reason: `user="alice" tx=0 rx=0`},
		{name: "nobody of this name", send: login("carol", "secret"), want: mayNotLogIn, reason: `user="carol" tx=0 rx=0`},
		{name: "a disabled user", send: login("dave", "secret"), want: mayNotLogIn, reason: "wrong name or password"},
		{name: "a long name is cut in the log", send: login(long, "secret"), want: mayNotLogIn,
			reason: `user="` + strings.Repeat(`\x00`, 64) + `"... tx=0`},
		{name: "empty name", send: login("", "secret"), want: mayNotLogIn, reason: "empty name or password"},
		{name: "empty password", send: login("alice", ""), want: mayNotLogIn, reason: "empty name or password"},
		{name: "version of the login", send: "\x05\x01\x00\x01", want: mayNotLogIn, reason: "version 5 of the login is not 1"},
		{name: "no users", send: login("alice", "secret"), want: mayNotLogIn, reason: "there are no users", users: []User{}},
		{name: "too slow", send: "\x01\x05al", want: mayNotLogIn, reason: "handshake timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := startWithUsers(t, &passwordChecks{}, func(o *options) {
				o.cfg.Users = append(o.cfg.Users, User{Name: "dave", Password: hashOf("secret"), Disabled: true})
				if c.users != nil {
					o.cfg.Users = c.users
				}
				if c.name == "too slow" {
					o.limits.handshake = 50 * time.Millisecond
				}
			})
			near := dial(t, u.addr)
			near.send(greetingPassword + c.send)
			assert.Equal(t, c.want, near.receive(len(c.want)))
			near.ended()
			u.awaitCount(t, 0)
			u.awaitLog(t, "connection 1 refused: type=unknown", c.reason)
		})
	}
}

// TestUnknownUserIsChecked has a name that nobody has checked like one that somebody has: the
// time must not tell which names there are.
func TestUnknownUserIsChecked(t *testing.T) {
	var checks passwordChecks
	u := startWithUsers(t, &checks, nil)
	u.tryPassword(t, "127.0.0.1", "carol", "hidden").loginRefused()
	checks.awaitBegan(t, "hidden")
	assert.Contains(t, []string{hashOf("secret"), hashOf("hidden")}, checks.hashes[0], "the cost of a user's hash")
}

// TestManyConnectionsPayOnce opens as many connections at once as a browser does.
func TestManyConnectionsPayOnce(t *testing.T) {
	checks := passwordChecks{hold: make(chan struct{})}
	u := startWithUsers(t, &checks, nil)
	var all []client
	for range 30 {
		all = append(all, u.tryPassword(t, "127.0.0.1", "alice", "secret"))
	}
	checks.awaitBegan(t, "secret")
	close(checks.hold)
	for _, near := range all {
		assert.Equal(t, "\x01\x00", near.receive(2))
	}
	assert.Equal(t, "\x01\x00", u.tryPassword(t, "127.0.0.1", "alice", "secret").receive(2))
	assert.Equal(t, "\x01\x00", u.tryPassword(t, "127.0.0.2", "alice", "secret").receive(2))
	checks.awaitBegan(t, "secret")

	// What is remembered is that of a password, not of a user.
	u.tryPassword(t, "127.0.0.3", "alice", "guess").loginRefused()
	checks.awaitBegan(t, "secret", "guess")
	// It is forgotten with the hash.
	u.cfg.Users = []User{{Name: "alice", Password: hashOf("other")}}
	require.NoError(t, u.Configure(u.cfg, nil))
	u.tryPassword(t, "127.0.0.4", "alice", "secret").loginRefused()
	checks.awaitBegan(t, "secret", "guess", "secret")
}

// TestRememberedLoginsTakeNoMemory: what is left behind by each of 500 logins would be as much as
// their connections take.
func TestRememberedLoginsTakeNoMemory(t *testing.T) {
	var checks passwordChecks
	u := startWithUsers(t, &checks, nil)
	u.connectAs(t, "alice", "secret")

	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	require.NoError(t, err)
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	u.Server.mu.Lock()
	defer u.Server.mu.Unlock()
	c := &conn{client: fds[0], remote: none, call: none, src: netip.MustParseAddrPort("127.0.0.1:1")}
	name, secret, answer := []byte("alice"), []byte("secret"), make([]byte, 2)
	// The mark, the byte in front of the name, the answer.
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		u.login(c, name, secret)
		_, err = unix.Read(fds[1], answer)
	}), 3.0)
	require.NoError(t, err)
	assert.Equal(t, "\x01\x00", string(answer))
	assert.Equal(t, "alice", c.user)
	assert.False(t, c.over)
}

// TestOneCheckAtATime has others served while a password is checked.
func TestOneCheckAtATime(t *testing.T) {
	checks := passwordChecks{hold: make(chan struct{})}
	u := startWithUsers(t, &checks, nil)
	go func() { checks.hold <- struct{}{} }()
	near, far := u.connectAs(t, "alice", "secret")

	first := u.tryPassword(t, "127.0.0.2", "bob", "hidden")
	checks.awaitBegan(t, "secret", "hidden")
	second := u.tryPassword(t, "127.0.0.3", "bob", "hidden")
	u.awaitWaiting(t, 1)
	near.send("alive")
	assert.Equal(t, "alive", far.receive(5))
	u.connectAs(t, "alice", "secret")
	checks.awaitBegan(t, "secret", "hidden")

	// A client that hangs up does not end its check, and takes nobody else's place.
	require.NoError(t, first.SetLinger(0))
	first.Close()
	u.awaitLog(t, "refused", "client left")
	assert.Equal(t, 1, u.waiting())
	checks.awaitBegan(t, "secret", "hidden")
	checks.hold <- struct{}{}
	// The check ended as the password of bob, for all who have it.
	assert.Equal(t, "\x01\x00", second.receive(2))
	checks.awaitBegan(t, "secret", "hidden")
}

// TestPauseBetweenChecks guesses from many addresses: checks leave time for the relay.
func TestPauseBetweenChecks(t *testing.T) {
	checks := passwordChecks{hold: make(chan struct{})}
	var clock movedClock
	u := startWithUsers(t, &checks, func(o *options) { clock.use(o); o.limits.handshake = time.Hour })
	wait := func(d time.Duration) {
		for ; d > 0; d -= lateness / 2 {
			clock.forward(min(d, lateness/2))
			clock.awaitTurn(t, u)
		}
	}
	guess := u.tryPassword(t, "127.0.0.1", "alice", "guess 1")
	checks.awaitBegan(t, "guess 1")
	next := u.tryPassword(t, "127.0.0.2", "alice", "secret")
	u.awaitWaiting(t, 1)
	wait(time.Second)
	checks.hold <- struct{}{}
	guess.loginRefused()
	wait(checkPause*time.Second - 1)
	checks.awaitBegan(t, "guess 1")
	wait(1)
	checks.awaitBegan(t, "guess 1", "secret")
	last := u.tryPassword(t, "127.0.0.3", "bob", "hidden")
	u.awaitWaiting(t, 1)
	wait(time.Second)
	checks.hold <- struct{}{}
	assert.Equal(t, "\x01\x00", next.receive(2))
	// No pause behind a right one.
	checks.awaitBegan(t, "guess 1", "secret", "hidden")
	checks.hold <- struct{}{}
	assert.Equal(t, "\x01\x00", last.receive(2))
}

// TestWrongPasswordsAreSlowed guesses from one address, by the server's clock.
func TestWrongPasswordsAreSlowed(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(near client)
	}{
		{"and waits for the answer", func(near client) { near.loginRefused() }},
		{"and hangs up", func(near client) { near.SetLinger(0); near.Close() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var checks passwordChecks
			var clock movedClock
			u := startWithUsers(t, &checks, func(o *options) { clock.use(o); o.limits.handshake = time.Hour })
			began := []string{}
			for i, delay := range []time.Duration{0, 1, 2, 4, 8, 8, 8} {
				guess := fmt.Sprint("guess ", i)
				near := u.tryPassword(t, "127.0.0.1", "alice", guess)
				if delay > 0 {
					u.awaitWaiting(t, 1)
					pass(t, u, &clock, delay*time.Second-500*time.Millisecond)
					require.Equal(t, 1, u.waiting(), "guess %d was looked at too early", i)
					checks.awaitBegan(t, began...)
					pass(t, u, &clock, 500*time.Millisecond)
				}
				began = append(began, guess)
				checks.awaitBegan(t, began...)
				c.end(near)
				u.awaitCount(t, 0)
			}
			// Neither another address nor a user who logs in from one has to wait.
			assert.Equal(t, "\x01\x00", u.tryPassword(t, "127.0.0.2", "alice", "secret").receive(2))
			assert.Equal(t, "\x01\x00", u.tryPassword(t, "127.0.0.2", "bob", "hidden").receive(2))

			// From the guesser's, also the right password must wait: its answer would tell that it is
			// right.
			near := u.tryPassword(t, "127.0.0.1", "alice", "secret")
			u.awaitWaiting(t, 1)
			pass(t, u, &clock, maxDelay)
			assert.Equal(t, "\x01\x00", near.receive(2))

			// It is forgotten after a while.
			pass(t, u, &clock, guesserTime)
			assert.Zero(t, wrongOf(u, "127.0.0.1"))
		})
	}
}

func wrongOf(u *setup, address string) int {
	u.Server.mu.Lock()
	defer u.Server.mu.Unlock()
	return u.wrong(netip.MustParseAddr(address))
}

// pass lets that time pass for u, in steps that are no stall.
func pass(t *testing.T, u *setup, clock *movedClock, d time.Duration) {
	t.Helper()
	for d > 0 {
		step := min(d, lateness/2)
		clock.forward(step)
		clock.awaitTurn(t, u)
		d -= step
	}
}

// TestLoginsBetweenGuesses has a user guess another's password between his own logins: they do
// not make up for wrong ones.
func TestLoginsBetweenGuesses(t *testing.T) {
	var checks passwordChecks
	var clock movedClock
	u := startWithUsers(t, &checks, func(o *options) { clock.use(o); o.limits.handshake = time.Hour })
	assert.Equal(t, "\x01\x00", u.tryPassword(t, "127.0.0.1", "bob", "hidden").receive(2))
	assert.Zero(t, wrongOf(u, "127.0.0.1"))
	for i := range 4 {
		near := u.tryPassword(t, "127.0.0.1", "alice", fmt.Sprint("guess ", i))
		pass(t, u, &clock, maxDelay)
		near.loginRefused()
		own := u.tryPassword(t, "127.0.0.1", "bob", "hidden")
		pass(t, u, &clock, maxDelay)
		assert.Equal(t, "\x01\x00", own.receive(2))
		assert.Equal(t, i+1, wrongOf(u, "127.0.0.1"))
	}
}

// TestTriesAreBounded fills the queue from one address: others get in, in its place.
func TestTriesAreBounded(t *testing.T) {
	checks := passwordChecks{hold: make(chan struct{})}
	u := startWithUsers(t, &checks, nil)
	var all []client
	for i := range maxTries + 1 { // the first one is checked
		all = append(all, u.tryPassword(t, "127.0.0.1", "alice", fmt.Sprint("guess ", i)))
		u.awaitWaiting(t, i)
	}
	checks.awaitBegan(t, "guess 0")
	u.tryPassword(t, "127.0.0.1", "alice", "one too many").loginRefused()
	u.awaitLog(t, "refused", "too many passwords wait")
	good := u.tryPassword(t, "127.0.0.2", "bob", "hidden")
	all[len(all)-1].loginRefused()
	assert.Equal(t, maxTries, u.waiting())
	close(checks.hold)
	assert.Equal(t, "\x01\x00", good.receive(2))
	checks.awaitBegan(t, "guess 0", "hidden")
	all[0].loginRefused()
}

// TestGuessersAreBounded has more addresses guess than are remembered.
func TestGuessersAreBounded(t *testing.T) {
	var checks passwordChecks
	u := startWithUsers(t, &checks, nil)
	for i := range maxGuessers + 20 {
		near := u.tryPassword(t, fmt.Sprintf("127.0.%d.%d", 1+i/200, 1+i%200), "alice", "guess")
		near.loginRefused()
		near.Close()
	}
	u.Server.mu.Lock()
	defer u.Server.mu.Unlock()
	assert.Len(t, u.guessers, maxGuessers)
	assert.NotContains(t, u.guessers, netip.MustParseAddr("127.0.1.1"), "the oldest")
}

// TestOnlyOne checks that a user of one connection can have another after each kind of end.
func TestOnlyOne(t *testing.T) {
	reset := func(c client) { c.SetLinger(0); c.Close() }
	for _, c := range []struct {
		name string
		end  func(t *testing.T, u *setup, near, far client)
	}{
		{"both sides ended", func(_ *testing.T, _ *setup, near, far client) { near.Close(); far.Close() }},
		{"the client ended, the server did not", func(t *testing.T, u *setup, near, far client) {
			near.Close()
			far.ended()
		}},
		{"reset by the client", func(_ *testing.T, _ *setup, near, far client) { reset(near) }},
		{"reset by the server", func(_ *testing.T, _ *setup, near, far client) { reset(far) }},
		{"removed by number", func(t *testing.T, u *setup, _, _ client) { require.NoError(t, u.CloseConnection(1)) }},
		{"idle", func(t *testing.T, u *setup, _, _ client) {
			u.cfg.ConnectionIdleTimeout = 50 * time.Millisecond
			require.NoError(t, u.Configure(u.cfg, nil))
			u.awaitCount(t, 0)
			u.cfg.ConnectionIdleTimeout = time.Minute
			require.NoError(t, u.Configure(u.cfg, nil))
		}},
		{"denied by a new list", func(t *testing.T, u *setup, _, _ client) {
			u.cfg.Access = []Rule{{Action: Deny}}
			require.NoError(t, u.Configure(u.cfg, nil))
			u.cfg.Access = nil
			require.NoError(t, u.Configure(u.cfg, nil))
		}},
		{"the user was disabled for a while", func(t *testing.T, u *setup, _, _ client) {
			u.cfg.Users[0].Disabled = true
			require.NoError(t, u.Configure(u.cfg, nil))
			u.cfg.Users[0].Disabled = false
			require.NoError(t, u.Configure(u.cfg, nil))
		}},
		{"the service was disabled for a while", func(t *testing.T, u *setup, _, _ client) {
			u.cfg.Enabled = false
			require.NoError(t, u.Configure(u.cfg, nil))
			u.cfg.Enabled = true
			l := listen(t, "127.0.0.1")
			u.addr = l.Addr().String()
			require.NoError(t, u.Configure(u.cfg, l))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := startWithUsers(t, &passwordChecks{}, func(o *options) { o.cfg.Users[0].OnlyOne = true })
			l := listen(t, "127.0.0.1")
			again := func() client {
				near := dial(t, u.addr)
				near.send(greetingPassword + login("alice", "secret") + ask5(commandConnect, l.Addr().String()))
				require.Equal(t, mayLogIn, near.receive(4))
				return near
			}
			near, far := u.connectAs(t, "alice", "secret")
			again().rejected5(reply5NotAllowed)
			u.awaitLog(t, "connection 2 refused", `user="alice"`, "only-one", "has connection 1")
			other, _ := u.connectAs(t, "bob", "hidden")
			u.connectAs(t, "bob", "hidden")
			other.Close()
			c.end(t, u, near, far)
			require.Eventually(t, func() bool {
				near := again()
				defer near.Close()
				return near.receive(10)[1] == reply5Granted
			}, patience, time.Millisecond)
		})
	}
	t.Run("one that gives way", func(t *testing.T) {
		u := startWithUsers(t, &passwordChecks{}, func(o *options) { o.cfg.Users[0].OnlyOne = true })
		near, far := u.connectAs(t, "alice", "secret")
		require.NoError(t, near.CloseWrite())
		far.ended()
		u.connectAs(t, "alice", "secret")
		u.awaitLog(t, "connection 1 closed", "only-one", "has made the next")
		u.awaitCount(t, 1)
		near.ended()
	})
	t.Run("refused requests do not count", func(t *testing.T) {
		u := startWithUsers(t, &passwordChecks{}, func(o *options) { o.cfg.Users[0].OnlyOne = true })
		closed := listen(t, "127.0.0.1")
		closed.Close()
		for range 3 {
			near := dial(t, u.addr)
			near.send(greetingPassword + login("alice", "secret") + ask5(commandConnect, closed.Addr().String()))
			require.Equal(t, mayLogIn, near.receive(4))
			near.rejected5(reply5Refused)
		}
		u.connectAs(t, "alice", "secret")
	})
	t.Run("a handshake that is not complete does not count", func(t *testing.T) {
		u := startWithUsers(t, &passwordChecks{}, func(o *options) { o.cfg.Users[0].OnlyOne = true })
		near := dial(t, u.addr)
		near.send(greetingPassword + login("alice", "secret"))
		require.Equal(t, mayLogIn, near.receive(4))
		u.connectAs(t, "alice", "secret")
		near.send(ask5(commandConnect, "127.0.0.1:80"))
		near.rejected5(reply5NotAllowed)
	})
}

// TestChangedUsers changes the configuration while connections are open.
func TestChangedUsers(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		reason string // of the end of alice's connection; none if it stays
		bob    string // the same of bob's
	}{
		{name: "nothing of it", change: func(c *Config) { c.Users[0].Comment = "new" }},
		{name: "a limit and only-one", change: func(c *Config) { c.Users[0].RateLimit, c.Users[0].OnlyOne = 1e9, true }},
		{name: "removed", change: func(c *Config) { c.Users = c.Users[1:] }, reason: "the user was removed"},
		{name: "disabled", change: func(c *Config) { c.Users[0].Disabled = true }, reason: "the user was disabled"},
		{name: "another password", change: func(c *Config) { c.Users[0].Password = hashOf("other") }, reason: "another password"},
		{name: "renamed", change: func(c *Config) { c.Users[0].Name = "carol" }, reason: "the user was removed"},
		{name: "version 4", change: func(c *Config) { c.Version = 4 }, reason: "not speak version 5", bob: "not speak version 5"},
		{name: "no passwords", change: func(c *Config) { c.AuthMethod = AuthNone }},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := startWithUsers(t, &passwordChecks{}, nil)
			near, far := u.connectAs(t, "alice", "secret")
			other, otherFar := u.connectAs(t, "bob", "hidden")
			cfg := u.cfg
			cfg.Users = append([]User{}, cfg.Users...)
			c.change(&cfg)
			require.NoError(t, u.Configure(cfg, nil))
			for number, one := range []struct {
				near, far client
				reason    string
			}{{near, far, c.reason}, {other, otherFar, c.bob}} {
				if one.reason != "" {
					u.awaitLog(t, fmt.Sprintf("connection %d closed", number+1), one.reason)
					one.far.ended()
					continue
				}
				one.near.send("alive")
				assert.Equal(t, "alive", one.far.receive(5))
			}
		})
	}
	t.Run("passwords from now on", func(t *testing.T) {
		u := start(t, byVersion5)
		_, far := u.connect5(t)
		_, far4 := u.connect(t)
		half := dial(t, u.addr)
		half.send(greeting)
		assert.Equal(t, chosen, half.receive(2))
		u.cfg.AuthMethod, u.cfg.Users = AuthPassword, []User{{Name: "alice", Password: hashOf("secret")}}
		require.NoError(t, u.Configure(u.cfg, nil))
		far.ended()
		far4.ended()
		u.awaitLog(t, "connection 1 closed", "asks for a password now")
		half.send(ask5(commandConnect, "127.0.0.1:80"))
		half.rejected5(reply5NotAllowed)
	})
	t.Run("while the password is checked", func(t *testing.T) {
		checks := passwordChecks{hold: make(chan struct{})}
		u := startWithUsers(t, &checks, nil)
		near := u.tryPassword(t, "127.0.0.1", "alice", "secret")
		checks.awaitBegan(t, "secret")
		u.cfg.Users = []User{{Name: "alice", Password: hashOf("other")}}
		require.NoError(t, u.Configure(u.cfg, nil))
		close(checks.hold)
		near.loginRefused()
	})
}

// TestManyUsers has as many users as there may be, and some of them log in. That takes no more than where there is one: a check of one
// hash, and only the first time.
func TestManyUsers(t *testing.T) {
	const conns = 100
	one := 0 // bytes that are allocated for a connection where there is one user
	for _, users := range []int{1, MaxUsers} {
		t.Run(fmt.Sprint(users), func(t *testing.T) {
			name := func(user int) string { return fmt.Sprint("user ", user) }
			secret := func(user int) string { return fmt.Sprint("secret ", user) }
			logIn := slices.Compact([]int{0, users / 2, users - 1})
			var checks atomic.Int64
			u := start(t, func(o *options) {
				o.cfg.Version, o.cfg.AuthMethod, o.cfg.MaxConnections = version5, AuthPassword, MaxMaxConnections
				o.matches = func(hash, secret string) bool {
					checks.Add(1)
					return matches(hash, secret)
				}
				other, err := password.New("other")
				require.NoError(t, err)
				for i := range users {
					o.cfg.Users = append(o.cfg.Users, User{Name: name(i), Password: other})
				}
				for _, i := range logIn {
					o.cfg.Users[i].Password, err = password.New(secret(i))
					require.NoError(t, err)
				}
			})
			for n, i := range logIn {
				near, far := u.connectAs(t, name(i), secret(i))
				assert.EqualValues(t, n+1, checks.Load(), "checks of hashes")
				require.NoError(t, u.Configure(u.cfg, nil))
				near.send("x")
				assert.Equal(t, "x", far.receive(1))
			}
			to := listen(t, "127.0.0.1").Addr().String()
			for _, i := range logIn {
				each := u.allocated(t, conns, []string{greetingPassword, login(name(i), secret(i)), ask5(commandConnect, to)}, []int{2, 2, maxReply})
				if one == 0 {
					one = each
				}
				assert.Less(t, each, one+one/4, "bytes for a connection, of which there are %d with one user", one)
			}
			assert.EqualValues(t, len(logIn), checks.Load(), "a password that was right is checked again")
			near := u.tryPassword(t, "127.0.0.1", name(users-1), "wrong")
			near.loginRefused()
			assert.EqualValues(t, len(logIn)+1, checks.Load(), "checks of hashes for a wrong password")
		})
	}
}

// TestEndWhileChecking ends connections whose password is being checked, or waits.
func TestEndWhileChecking(t *testing.T) {
	for _, c := range []struct {
		name   string
		end    func(t *testing.T, u *setup)
		reason string
	}{
		{"handshake timeout", func(*testing.T, *setup) {}, "handshake timeout"},
		{"removed", func(t *testing.T, u *setup) {
			require.NoError(t, u.CloseConnection(1))
			require.NoError(t, u.CloseConnection(2))
		}, ""},
		{"disabled", func(t *testing.T, u *setup) {
			u.cfg.Enabled = false
			require.NoError(t, u.Configure(u.cfg, nil))
		}, "disabled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			checks := passwordChecks{hold: make(chan struct{})}
			u := startWithUsers(t, &checks, func(o *options) {
				if c.name == "handshake timeout" {
					o.limits.handshake = 500 * time.Millisecond
				}
			})
			first := u.tryPassword(t, "127.0.0.1", "alice", "secret")
			checks.awaitBegan(t, "secret")
			second := u.tryPassword(t, "127.0.0.2", "bob", "hidden")
			c.end(t, u)
			first.loginRefused()
			second.loginRefused()
			u.awaitLog(t, "connection 1 refused", c.reason)
			u.awaitLog(t, "connection 2 refused", c.reason)
			assert.Zero(t, u.waiting())
		})
	}
}

func TestGuessesOfAFullTable(t *testing.T) {
	checks := passwordChecks{hold: make(chan struct{})}
	u := startWithUsers(t, &checks, func(o *options) { o.cfg.MaxConnections = 1 })
	first := u.tryPassword(t, "127.0.0.1", "alice", "secret")
	checks.awaitBegan(t, "secret")
	// Its handshake is not complete: it makes room.
	conn, err := net.Dial("tcp4", u.addr)
	require.NoError(t, err)
	defer conn.Close()
	first.loginRefused()
}
