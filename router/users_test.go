package router

import (
	"net"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/program"
	"github.com/postern-router/postern/console/session"
)

// Each way in asks for the policy of its own, and for the user's networks.
func TestWaysIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.must("/user set admin password=secret; /user group add name=phone policy=api,rest-api,read; /user group add name=page policy=web,read; " +
			"/user; add name=app group=phone password=secret; add name=eye group=page password=secret; " +
			"add name=bob group=read password=secret address=192.168.0.0/24; add name=off group=full password=secret disabled=yes; add name=bare group=full")
		near, far := netip.MustParseAddr("192.168.0.2"), netip.MustParseAddr("10.0.0.2")
		for _, user := range []string{"bob", "nobody"} {
			_, ok := g.r.judge(g.r.snapshot().running, session.Origin{Via: viaSSH, Address: far}, user, "secret")
			assert.False(t, ok)
		}
		assert.Contains(t, g.log(), "login failure for user bob from 10.0.0.2 via ssh")
		assert.Contains(t, g.log(), "login failure for user unknown from 10.0.0.2 via ssh")
		for _, test := range []struct {
			user string
			from netip.Addr
			ways string
		}{
			{"admin", far, "console ssh api web rest-api "},
			{"app", far, "api rest-api "},
			{"eye", far, "web "},
			{"bob", near, "console ssh api web rest-api "},
			{"bob", far, "console "},
			{"off", near, ""}, {"nobody", near, ""},
			{"bare", near, "console "}, // with no password, at the machine alone
		} {
			ways := ""
			for _, via := range []string{session.Console, viaSSH, viaAPI, viaWeb, viaREST, "telnet"} {
				from, secret := session.Origin{Via: via, Address: test.from}, "secret"
				if via == session.Console {
					from.Address = netip.Addr{}
				}
				if test.user == "bare" {
					secret = ""
				}
				if _, ok := g.r.judge(g.r.snapshot().running, from, test.user, secret); ok {
					ways += via + " "
				}
				_, ok := g.r.judge(g.r.snapshot().running, from, test.user, "wrong")
				assert.False(t, ok)
			}
			assert.Equal(t, test.ways, ways, "%s from %s", test.user, test.from)
		}
	})
}

// A user at the serial line and a program each do what their group allows, also after that has changed.
func TestUserMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.must("/user set admin password=secret; /user add name=bob group=read password=bobs")
		c := g.connect()
		said, _ := c.login("bob", "bobs")
		assert.Equal(t, "[bob@postern] > ", said)
		const refused = "not enough permissions (9)\n[bob@postern] > "
		assert.Equal(t, refused, c.run("/system identity set name=x"))
		assert.Equal(t, refused, c.run("/user set bob group=full"))
		assert.Equal(t, console.ErrNotPermitted, g.r.safe(&session.Session{Session: console.Session{User: "bob"}}, session.TakeSafeMode))
		assert.Contains(t, c.run("/user print"), "bob")
		assert.Equal(t, []string{"bob console read "}, who(t, g))

		here, there := net.Pipe()
		go g.r.serveProgram(there, session.Origin{Via: viaAPI, Address: netip.MustParseAddr("192.168.0.2")}, "bob", 1)
		p := program.NewClient(here)
		require.NoError(t, p.Query("user", nil, nil, func(console.Row) error { return nil }))
		_, err := p.Do("system identity", "set", nil, console.Argument{Name: "name", Value: "x"})
		require.ErrorIs(t, err, console.ErrNotPermitted)
		require.ErrorIs(t, p.Execute("/system identity set name=x", nil), console.ErrNotPermitted)
		g.must("/user set bob group=write")
		require.NoError(t, p.Execute("/system identity set name=x", nil))
		g.must("/user group add name=blind policy=local,ssh,api; /user set bob group=blind")
		require.ErrorIs(t, p.Query("user", nil, nil, func(console.Row) error { return nil }), console.ErrNotPermitted)
		require.NoError(t, p.Close())

		// Each changes the own password.
		g.must("/user set bob group=read")
		c.send('L', "/password")
		for _, text := range []string{"bobs", "other"} {
			c.until("S")
			c.send('L', text)
		}
		c.until("S")
		assert.Equal(t, "[bob@x] > ", c.run("other"))
		said, _ = g.connect().login("bob", "other")
		assert.Equal(t, "[bob@x] > ", said)
		said, _ = g.connect().login("admin", "secret")
		assert.Equal(t, "[admin@x] > ", said)
		assert.Contains(t, g.log(), "user bob added by admin\n")
		assert.Contains(t, g.log(), "password of user bob changed by console:bob@ttyS0\n")
		g.must("/user remove bob")
		assert.Contains(t, g.log(), "user bob removed by admin\n")
	})
}

// A login ends when its user is removed, disabled, or loses the way in, the password or the key; that of who brings it about
// goes on, as long as he may still log in. Others go on.
func TestLoginsEnd(t *testing.T) {
	near := netip.MustParseAddr("192.168.0.2")
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2"
	for _, test := range []struct {
		name, line string
		by         string // a way in of bob's, or ""
		want       []string
	}{
		{"nothing", "/user set admin comment=x; /user set bob comment=y; /user group set read !comment", "", []string{"admin ssh", "bob console", "bob ssh", "bob api", "bob rest-api", "key ssh"}},
		{"removed", "/user remove bob", "", []string{"admin ssh", "key ssh"}},
		{"disabled", "/user disable bob", "", []string{"admin ssh", "key ssh"}},
		{"another password", "/user set bob password=other", "", []string{"admin ssh", "key ssh"}},
		{"another password, by himself", "/user set bob password=other", "ssh", []string{"admin ssh", "bob ssh", "key ssh"}},
		{"another password, by himself at the machine", "/user set bob password=other", "console", []string{"admin ssh", "bob console", "key ssh"}},
		{"another password, by a program of REST", "/user set bob password=other", "rest-api", []string{"admin ssh", "key ssh"}},
		{"removed, by himself", "/user remove bob", "ssh", []string{"admin ssh", "key ssh"}},
		{"a group without ssh", "/user group add name=app policy=api,read; /user set bob group=app", "", []string{"admin ssh", "bob api", "key ssh"}},
		{"the group loses ssh", "/user group set full policy=local,reboot,read,write,policy,password,sensitive,api,rest-api", "", []string{"bob console", "bob api", "bob rest-api"}},
		{"another network", "/user set bob address=10.0.0.0/8", "", []string{"admin ssh", "bob console", "key ssh"}},
		{"without the key", "/user ssh-keys remove [find user=key]", "", []string{"admin ssh", "bob console", "bob ssh", "bob api", "bob rest-api"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := started(t)
				g.must("/user set admin password=secret; /user add name=bob group=full password=bobs; /user add name=key group=full; /user ssh-keys add user=key key=\"" + key + "\"")
				c := g.r.snapshot().running
				enter := func(user, via, key string, number uint64) *session.Session {
					from := session.Origin{Via: via}
					if via != session.Console {
						from.Address = near
					}
					u := &activeUser{user: user, from: from, number: number, proof: proofOf(c, user, key)}
					u.end = func() { go g.r.active.leave(u.user, u.from, u.number) }
					g.r.active.enter(u)
					return &session.Session{Session: console.Session{User: user}, Origin: from, Login: number}
				}
				enter("admin", viaSSH, "", 1)
				sessions := map[string]*session.Session{"": {}}
				for i, via := range []string{session.Console, viaSSH, viaAPI, viaREST} {
					number := uint64(2 + i)
					if via == session.Console {
						number = 0
					}
					sessions[via] = enter("bob", via, "", number)
				}
				enter("key", viaSSH, c.SSHKeys[0].Public.Key, 9)
				_, err := g.run(sessions[test.by], test.line)
				require.NoError(t, err)
				synctest.Wait()
				list, err := g.r.active.list()
				require.NoError(t, err)
				var left []string
				for _, u := range list {
					left = append(left, u.Name+" "+u.Via)
				}
				assert.Equal(t, test.want, left)
			})
		})
	}
}

// A session at the machine, and one of a program, are over when their login ends, also by request-logout.
func TestRequestLogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.must("/user set admin password=secret; /user add name=bob group=read password=bobs")
		c := g.connect()
		c.login("bob", "bobs")
		other := g.connect()
		other.login("admin", "secret")
		assert.Equal(t, prompt, other.run("/user active request-logout [find name=bob]"))
		<-c.over
		assert.Equal(t, []string{"admin console full "}, who(t, g))
		c = g.connect()
		c.login("bob", "bobs")
		assert.Equal(t, prompt, other.run("/user disable bob"))
		<-c.over
		assert.Equal(t, prompt, other.run("/user set admin password=another"))
		assert.Equal(t, prompt, other.run("/system identity set name=postern"), "who has changed it goes on")
	})
}

// Who may not change users takes over no Safe Mode in which they were changed: that would undo it, or keep it.
func TestSafeModeOfUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.must("/user set admin password=secret; /user add name=bob group=full password=bobs")
		admin, bob := g.connect(), g.connect()
		admin.login("admin", "secret")
		bob.login("bob", "bobs")
		admin.send('X', "")
		admin.prompt()
		admin.run("/user set bob group=write")
		for _, answer := range []string{"u", "r"} {
			bob.send('X', "")
			bob.until("A")
			bob.send('L', answer)
			assert.Equal(t, "not enough permissions (9)\n[bob@postern] > ", bob.prompt())
		}
		u, _ := g.r.snapshot().config.User("bob")
		assert.Equal(t, "write", u.Group)
		admin.send('X', "")
		assert.Contains(t, admin.prompt(), "[Safe Mode released]")
		admin.send('X', "")
		admin.prompt()
		admin.run("/system identity set name=x")
		bob.send('X', "")
		bob.until("A")
		bob.send('L', "u")
		assert.Equal(t, "[Safe Mode taken]\n[bob@postern] <SAFE> > ", bob.prompt())
	})
}

// Who may not change users cannot remove the own password: if it is the only one, anybody could set the first.
func TestOwnPasswordStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t, lanLines)
		g.must("/user add name=bob group=write password=bobs")
		bob := &session.Session{Session: console.Session{User: "bob"}, Origin: session.Origin{Via: viaSSH, Address: netip.MustParseAddr("192.168.0.2")}}
		require.ErrorContains(t, g.r.setPassword(bob, "bobs", ""), "failure: a password is needed")
		assert.True(t, g.r.snapshot().config.HasSecret())
		require.NoError(t, g.r.setPassword(bob, "bobs", "other"))
		g.must("/user set bob group=full")
		require.NoError(t, g.r.setPassword(bob, "other", ""))
	})
}

// What asks a question first is permitted when it is answered.
func TestMayStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.must("/user set admin password=secret; /user group add name=none policy=local,read; /user add name=bob group=full password=bobs")
		for _, test := range []struct {
			line, until, group string
			answers            []string
		}{
			{"/system reset-configuration", "A", "write", []string{"y"}},
			{"/system reboot", "A", "none", []string{"y"}},
			{"/system upgrade http://192.0.2.1/image", "A", "none", []string{"y"}},
			{"/system upgrade http://192.0.2.1/image force=yes", "A", "write", []string{"y"}},
			{"/import replace=yes", "A", "write", []string{"/system identity set name=x", ".", "y"}},
			{"/password", "S", "none", []string{"bobs", "other", "other"}},
		} {
			g.must("/user set bob group=full")
			c := g.connect()
			c.login("bob", "bobs")
			c.send('L', test.line)
			c.until(test.until)
			g.must("/user set bob group=" + test.group)
			for i, answer := range test.answers {
				if i > 0 {
					c.until(test.until)
				}
				c.send('L', answer)
			}
			assert.Contains(t, c.prompt(), "not enough permissions (9)", test.line)
			assert.Empty(t, g.requests)
			c.hangUp()
		}
	})
}

// The log tells who was given more, or another way in.
func TestUsersAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.must("/user add name=bob group=read")
		for _, test := range []struct{ line, want string }{
			{"/user set bob group=full", "info user bob changed by admin\n"},
			{"/user group add name=app policy=api", "group app added by admin\n"},
			{"/user group set app policy=api,write", "group app changed by admin\n"},
			{"/user group remove app", "group app removed by admin\n"},
			{`/user ssh-keys add user=bob key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2"`, "ssh key of user bob added by admin\n"},
			{"/user ssh-keys remove 0", "ssh key of user bob removed by admin\n"},
		} {
			assert.NotContains(t, g.log(), test.want)
			g.must(test.line)
			assert.Contains(t, g.log(), test.want)
		}
		// By which way, and where: at a serial line too.
		c := g.connect()
		c.prompt()
		c.run("/user set bob group=write")
		assert.Contains(t, g.log(), "user bob changed by console:admin@ttyS0\n")
		_, err := g.run(&session.Session{Origin: session.Origin{Via: viaSSH, Address: netip.MustParseAddr("192.168.0.2")}}, "/user set bob group=full")
		require.NoError(t, err)
		assert.Contains(t, g.log(), "user bob changed by ssh:admin@192.168.0.2\n")
		before := g.log()
		g.must("/user set bob comment=x password=secret")
		assert.NotContains(t, g.log()[len(before):], "info user bob changed")
	})
}
