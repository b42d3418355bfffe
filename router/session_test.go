package router

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/password"
)

// Each session sees what the other has done, in the system and in its numbers, and of
// changes at the same time none is lost.
func TestSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		one, two := g.connect(), g.connect()
		assert.Equal(t, "No password is set: /password sets one.\n"+prompt, one.prompt())
		two.prompt()
		assert.Equal(t, prompt, one.run("/ip address add address=192.168.0.1/24 interface=ether2"))
		assert.Contains(t, two.run("/ip address print"), "192.168.0.1/24")
		assert.Len(t, g.network.config.Addresses, 1)
		assert.Equal(t, prompt, two.run("/ip address remove 0"))
		assert.Contains(t, one.run("/ip address remove 0"), "no such item")
		assert.Empty(t, g.network.config.Addresses)

		const each = 20
		var wait sync.WaitGroup
		for i, c := range []*guest{one, two} {
			wait.Go(func() {
				for n := range each {
					assert.Equal(t, prompt, c.run(fmt.Sprintf("/ip address add address=10.%d.%d.1/24 interface=ether%d", i, n, i+1)))
				}
			})
		}
		wait.Wait()
		assert.Contains(t, one.run("/ip address print count-only"), fmt.Sprint(2*each))
		assert.Len(t, g.network.config.Addresses, 2*each)
		assert.Len(t, g.lastKept().Addresses, 2*each)
	})
}

// What a line removes is removed when the whole line has succeeded, and what it changes is
// applied.
func TestRemoveConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.must("/ip socks connections remove [find]")
		assert.Equal(t, []string{"close [7 8]"}, g.calls())
		_, err := g.run(&session.Session{}, "/ip socks connections remove 0; /ip dns set servers=x")
		require.Error(t, err)
		assert.Empty(t, g.calls())
		g.must("/ip socks connections remove 1; /system identity set name=gate")
		calls := g.calls()
		assert.Equal(t, "close [8]", calls[len(calls)-1])
		assert.Contains(t, calls, "names")
		g.fail("close [7]", errFake)
		_, err = g.run(&session.Session{}, "/ip socks connections remove 0")
		require.EqualError(t, err, "remove connections: refused by the test")
	})
}

func TestSessionDiesInALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		c := g.connect()
		c.prompt()
		// The length of more than is sent.
		_, err := c.conn.Write([]byte("L\x00\x00\x00\x30/ip address add address=192.168.0.1/24"))
		require.NoError(t, err)
		c.hangUp()
		assert.Contains(t, g.log(), "read frame of 48 bytes: unexpected EOF")
		assert.Contains(t, g.must("/ip address print count-only"), "0\n")
		assert.Empty(t, g.kept)
	})
}

func TestTooManySessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		var guests []*guest
		for range maxSessions {
			c := g.connect()
			c.prompt()
			guests = append(guests, c)
		}
		assert.Equal(t, "failure: 8 sessions are there, and there can be no more\n", g.connect().until("E"))
		guests[3].send('L', "/quit")
		guests[3].until("E")
		<-guests[3].over
		g.connect().prompt()
	})
}

// A session over a real socket.
func TestServe(t *testing.T) {
	g := started(t)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if assert.NoError(t, err) {
			g.r.Serve(conn, session.Origin{Via: session.Console})
		}
	}()
	conn, err := net.Dial("unix", l.Addr().String())
	require.NoError(t, err)
	c := &guest{g, conn, nil}
	c.prompt()
	conn.Close()
	l.Close()
	<-done
	assert.Empty(t, g.r.sessions)
}

// login tries to log in and returns what the session says, and how long it took.
func (c *guest) login(user, password string) (said string, took time.Duration) {
	c.g.Helper()
	assert.Equal(c.g, "Login: ", c.until("A"))
	c.send('L', user)
	assert.Equal(c.g, "Password: ", c.until("S"))
	start := time.Now()
	c.send('L', password)
	said = c.until("AP")
	return said, time.Since(start)
}

const loginFailed = "\nLogin failed, incorrect username or password\n\nLogin: "

func TestLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t, "/ip firewall filter add chain=input action=drop in-interface=ether1")
		first := g.connect()
		first.prompt()
		assert.Equal(t, prompt, first.run("/user set admin password=secret"))
		assert.NotContains(t, first.run("/export"), "argon2")
		assert.Contains(t, first.run("/export show-sensitive"), "argon2id")
		hash := g.lastKept().Users[0].Password
		assert.Contains(t, hash, "$argon2id$v=19$m=2048,t=3,p=1$")

		// Sessions come and go; the pauses grow, up to the first that knows it.
		for _, c := range []struct {
			user, password, want string
			pause                time.Duration
		}{
			{"admin", "secre", loginFailed, time.Second},
			{"admin", "", loginFailed, 2 * time.Second},
			{"root", "secret", loginFailed, 4 * time.Second},
			{"secret", "secret", loginFailed, 8 * time.Second},
			{"admin", "secret!", loginFailed, 16 * time.Second},
			{"admin", hash, loginFailed, 16 * time.Second},
			{"admin", "secret", prompt, 0},
			{"admin", "wrong", loginFailed, time.Second},
		} {
			terminal := g.connect()
			got, pause := terminal.login(c.user, c.password)
			assert.Equal(t, c.want, got, "%s %s", c.user, c.password)
			assert.Equal(t, c.pause, pause, "%s %s", c.user, c.password)
			terminal.hangUp()
		}
		assert.Contains(t, g.log(), "system,error,critical login failure for user admin\n")
		assert.Contains(t, g.log(), "system,account,info user admin logged in\n")
		assert.NotContains(t, g.log(), "secret", "what was typed for a name may be a password")

		// A password is changed by who knows it.
		assert.Equal(t, "old password: ", func() string { first.send('L', "/password"); return first.until("S") }())
		change := func(old, new string) string {
			first.send('L', old)
			first.until("S")
			first.send('L', new)
			first.until("S")
			return first.run(new)
		}
		assert.Equal(t, "failure: old password is wrong\n"+prompt, change("wrong", "other"))
		first.send('L', "/password")
		first.until("S")
		assert.Equal(t, prompt, change("secret", "other"))
		// The same one again is no change: neither for the history nor for the flash.
		changes, kept := len(g.r.snapshot().history.entries), len(g.kept)
		first.send('L', "/password")
		first.until("S")
		assert.Equal(t, prompt, change("other", "other"))
		assert.Len(t, g.r.snapshot().history.entries, changes)
		assert.Len(t, g.kept, kept)
		got, _ := g.connect().login("admin", "secret")
		assert.Equal(t, loginFailed, got)
		second := g.connect()
		got, _ = second.login("admin", "other")
		assert.Equal(t, prompt, got)
		// Without one there is no question.
		assert.Equal(t, prompt, second.run("/user set admin password=\"\""))
		g.connect().prompt()

		assert.Equal(t, []string{"password of user admin changed by console:admin@ttyS0", "password of user admin changed by console:admin@ttyS0", "password of user admin removed by console:admin@ttyS0"},
			regexp.MustCompile("password of user .*").FindAllString(g.log(), -1))

		// A hash that could never be checked is refused.
		assert.Contains(t, second.run(`/user set admin password-hash="\$argon2id\$v=19\$m=999999,t=3,p=1\$c29tZXNhbHQ\$nf65EOgLrQMR"`),
			"its cost is not within m=8..4096")
		assert.Contains(t, second.run("/user set admin password-hash=x"), "another kind of hash")
		assert.False(t, g.r.hasPassword(console.Admin))
	})
}

// A hash that cannot be read may come from a file all the same: then nobody is let in.
func TestLoginWithABadHash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t, "/user set admin password-hash=x")
		for _, password := range []string{"", "x"} {
			got, _ := g.connect().login("admin", password)
			assert.Equal(t, loginFailed, got)
		}
		assert.Contains(t, g.log(), "system,error nobody can log in: ")
	})
}

// Wrong passwords from the network slow neither the serial line nor another address.
func TestLoginByOrigin(t *testing.T) {
	network := func(n byte) session.Origin {
		return session.Origin{Via: "ssh", Address: netip.AddrFrom4([4]byte{10, 0, n / 100, n % 100})}
	}
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.must("/user set admin password=secret")
		for range 6 {
			c := g.connectFrom(network(1))
			c.login("admin", "wrong")
			c.hangUp()
		}
		_, pause := g.connectFrom(network(1)).login("admin", "wrong")
		assert.Equal(t, longRefusal, pause)
		assert.Contains(t, g.log(), "login failure for user admin from 10.0.0.1 via ssh\n")
		_, pause = g.connectFrom(network(2)).login("admin", "wrong")
		assert.Equal(t, firstRefusal, pause)
		_, pause = g.connect().login("admin", "wrong")
		assert.Equal(t, firstRefusal, pause)
		said, pause := g.connect().login("admin", "secret")
		assert.Equal(t, prompt, said)
		assert.Zero(t, pause)
	})
	t.Run("the log has room for others", func(t *testing.T) {
		log, said := testLog(t)
		l := newLogins(log)
		for n := range byte(200) {
			l.logFailure(log, "admin", network(n))
		}
		l.logFailure(log, "admin", session.Origin{Via: session.Console, Terminal: "ttyS0"})
		assert.Equal(t, failureBurst+1, strings.Count(said(), "system,error,critical login failure for user admin"))
		assert.Contains(t, said(), "login failure for user admin from 10.0.0.0 via ssh\n")
		assert.Contains(t, said(), "login failure for user admin\n")
	})
	t.Run("origins are bounded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log, _ := testLog(t)
			l := newLogins(log)
			for n := range byte(maxOrigins) {
				assert.Equal(t, firstRefusal, l.refuse(network(n)))
			}
			// The others share one, and nobody is forgotten for them.
			assert.Equal(t, firstRefusal, l.refuse(network(240)))
			assert.Equal(t, 2*firstRefusal, l.refuse(network(241)))
			assert.Equal(t, 2*firstRefusal, l.refuse(network(1)))
			assert.Equal(t, firstRefusal, l.refuse(session.Origin{Via: session.Console, Terminal: "ttyS0"}))
			assert.Len(t, l.refusals, maxOrigins+2)
			time.Sleep(forgetRefusals + time.Second)
			assert.Equal(t, firstRefusal, l.refuse(network(241)))
			assert.Len(t, l.refusals, 1)
		})
	})
}

func TestPasswordChangedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		make := g.r.logins.make
		g.r.logins.make = func(secret string) (string, error) {
			g.r.logins.make = make
			g.r.logins.hashing.Unlock() // the other session's hash is made first
			g.must("/user set admin password=first")
			g.r.logins.hashing.Lock()
			return make(secret)
		}
		require.EqualError(t, g.r.setPassword(&session.Session{}, "", "second"), "failure: the password was changed meanwhile")
		g.r.logins.make = func(string) (string, error) { return "", errFake }
		require.ErrorIs(t, g.r.setPassword(&session.Session{}, "first", "third"), errFake)
		assert.True(t, g.r.login(&session.Session{Origin: session.Origin{Via: session.Console}}, "admin", "first"))
	})
}

// A line that sets passwords runs again when the configuration has changed meanwhile, in the end
// with the turn, for which all others wait. The slow hashes are made once, before that.
func TestHashesAreMadeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		made, make := 0, g.r.logins.make
		g.r.logins.make = func(secret string) (string, error) {
			assert.Empty(t, g.r.turn, "others wait")
			made++
			return make(secret)
		}
		tries, state := 0, g.network.state
		g.network.state = func() ([]netcfg.LinkState, error) {
			if tries++; tries < maxTries {
				require.NoError(t, g.r.beginChange())
				next := g.r.now
				next.revision++
				g.r.set(next)
				g.r.endChange()
			}
			return state()
		}
		g.must("/interface print; /ip socks users; add name=alice password=secret; add name=bob password=secret; add name=carol password=other")
		assert.Equal(t, maxTries, tries)
		assert.Equal(t, 3, made)
		users := g.lastKept().Socks.Users
		require.Len(t, users, 3)
		assert.NotEqual(t, users[0].Password, users[1].Password, "each has its own salt")
		for i, secret := range []string{"secret", "secret", "other"} {
			h, err := password.Parse(users[i].Password)
			require.NoError(t, err)
			assert.True(t, h.Matches(secret), users[i].Name)
		}
	})
}

// Who sets the password that there is changes nothing: no write to flash, no login that ends.
func TestSamePassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		g.must("/user set admin password=secret; /user add name=bob group=read password=secret; /ip socks users add name=alice password=secret")
		before, log := g.r.snapshot(), g.log()
		for _, line := range []string{"/user set admin password=secret", "/user set [find] password=secret", "/ip socks users set alice password=secret"} {
			g.must(line)
			assert.Equal(t, before.revision, g.r.snapshot().revision, line)
		}
		assert.Equal(t, log, g.log())
		g.must("/user set bob password=other")
		users := g.r.snapshot().config.Users
		assert.Equal(t, before.config.Users[0].Password, users[0].Password)
		assert.NotEqual(t, before.config.Users[1].Password, users[1].Password)
	})
}

// Whoever makes the SOCKS server useless is told so, once.
func TestUnusableSocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		const warning = "warning: nobody can use this server: auth-method=password, and /ip socks users has no user that is enabled\n"
		for _, c := range []struct{ line, want string }{
			{"/ip socks set version=5 auth-method=password", ""},
			{"/ip socks set enabled=yes", warning},
			{"/ip socks set port=1081", ""},
			{"/ip socks users add name=alice password=secret", ""},
			{"/ip socks users disable alice", warning},
			{"/ip socks users enable alice", ""},
			{"/ip firewall filter add chain=input action=drop", ""},
			{"/ip socks set version=4", "warning: auth-method=password has no effect with version=4, which has no passwords\n"},
		} {
			assert.Equal(t, c.want, g.must(c.line), c.line)
		}
		result, err := g.r.importLines(&session.Session{}, "/ip socks users remove alice\n/ip socks\nset auth-method=password enabled=yes version=5\n"+
			"/ip socks users\nadd name=bob password=secret\n", console.ImportArguments{})
		require.NoError(t, err)
		assert.Empty(t, result.Output, "in the end there is a user")
	})
}

// Whoever opens the SOCKS server to everybody outside is told so, once.
func TestExposedSocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		const warning = "warning: anyone who reaches ether1 can use this server: no filter rule of chain=input drops " +
			"dst-port=1080 from there, and the access list does not end with action=deny\n"
		for _, c := range []struct{ line, want string }{
			{"/ip socks set enabled=yes", warning},
			{"/ip socks set max-connections=100", ""},
			{"/ip socks access add action=deny", ""},
			{"/ip socks access remove 0", warning},
			{"/ip firewall filter add chain=input action=drop in-interface=!ether2", ""},
			{"/ip socks access add src-address=192.168.0.2", ""},
			{"/ip firewall filter disable 0", warning},
			{"/ip firewall filter enable 0", ""},
			{"/ip firewall filter remove 0; /ip firewall filter add chain=input action=drop in-interface=ether1", ""},
			{"/ip firewall filter remove 0; /ip socks set enabled=no", ""},
		} {
			assert.Equal(t, c.want, g.must(c.line), c.line)
		}
	})
}

// So is whoever has the router give addresses to the hosts outside.
func TestOutsideDHCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		const warning = "warning: DHCP server outside gives addresses to the hosts of ether1, which is in interface list WAN; expected an interface of the LAN\n"
		for _, c := range []struct{ line, want string }{
			{"/ip pool add name=p ranges=10.77.0.2-10.77.0.9; /ip dhcp-server add name=outside interface=ether1 address-pool=p disabled=no", ""},
			{"/interface list add name=WAN; /interface list member add list=WAN interface=ether1", warning},
			{"/ip dhcp-server set outside lease-time=1h", ""},
			{"/ip dhcp-server disable outside", ""},
		} {
			assert.Equal(t, c.want, g.must(c.line), c.line)
		}
	})
}

func TestConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t)
		c := g.connect()
		c.prompt()
		for _, test := range []struct {
			line, question string
			want           console.Request
		}{
			{"/system identity set name=other; /system reboot", "Reboot, yes? [y/N]: ", console.Reboot},
			{"/system shutdown", "Shutdown, yes? [y/N]: ", console.Shutdown},
			{"/system reset-configuration", "Dangerous! Reset anyway? [y/N]: ", console.Reboot},
		} {
			for _, answer := range []string{"n", "y"} {
				c.send('L', test.line)
				assert.Equal(t, test.question, c.until("A"))
				assert.Empty(t, g.requests)
				c.run(answer)
				assert.Len(t, g.requests, map[string]int{"y": 1}[answer])
			}
			assert.Equal(t, test.want, <-g.requests)
		}
		assert.Equal(t, "other", g.lastKept().Identity, "what stands before it in the line is done")
		assert.Contains(t, g.log(), "the configuration is reset")
		for _, what := range []string{"restart", "shutdown", "reset of the configuration"} {
			assert.Equal(t, 1, strings.Count(g.log(), " "+what+" by console:admin@ttyS0\n"), what)
		}
	})
}

// The clock's range is that of the kernel, which the error says.
func TestSetClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t, "/system clock manual set time-zone=+02:00")
		g.must("/system clock set date=jan/31/2030 time=12:00:00")
		assert.Equal(t, time.Date(2030, 1, 31, 10, 0, 0, 0, time.UTC), g.machine.clock)
		assert.Contains(t, g.log(), "the clock was set to 2030-01-31 10:00:00 by ")
		for _, c := range []struct {
			at, want string
		}{
			{"1970-01-01 00:00:30", "value of date and time out of range: jan/01/1970 02:00:30; expected jan/01/1970 02:01:01..jan/01/2038 01:59:59"},
			{"1969-12-31 23:00:00", "value of date and time out of range: jan/01/1970 01:00:00; expected "},
			{"2038-01-01 00:00:00", "value of date and time out of range: jan/01/2038 02:00:00; expected "},
		} {
			at, err := time.Parse(time.DateTime, c.at)
			require.NoError(t, err)
			require.ErrorContains(t, g.r.setClock(at, time.Minute, ""), c.want)
		}
		_, err := g.run(&session.Session{}, "/system clock set date=jan/01/1970 time=00:30:00")
		require.ErrorContains(t, err, "out of range")
		g.fail("clock", errFake)
		_, err = g.run(&session.Session{}, "/system clock set time=12:00:00")
		require.ErrorIs(t, err, errFake)
	})
}

func TestTyping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := started(t, "/ip address add address=192.168.0.1/24 interface=ether2")
		insert, _ := g.r.complete(&session.Session{}, "/ip addr")
		assert.Equal(t, "ess ", insert)
		assert.Contains(t, g.r.help(&session.Session{}, "/ip "), "address")
		result, err := g.r.importLines(&session.Session{}, "/system identity set name=x\n/ip dns set servers=10.0.0.1\n", console.ImportArguments{})
		require.NoError(t, err)
		assert.True(t, result.Changed)
		assert.Equal(t, "x", g.machine.name)
		assert.Equal(t, []netip.Addr{netip.MustParseAddr("10.0.0.1")}, g.machine.servers)
		_, err = g.r.importLines(&session.Session{}, "/system identity set name=y\n/nothing\n", console.ImportArguments{})
		require.Error(t, err)
		assert.Equal(t, "x", g.r.snapshot().config.Identity)
		assert.Contains(t, g.must("/ip arp print"), "ether1")

		_, err = g.run(&session.Session{}, "/system resource print")
		require.ErrorContains(t, err, "proc/uptime: no such file")
		g.file("proc/uptime", "20.00 10.00\n")
		_, err = g.run(&session.Session{}, "/system resource print")
		require.ErrorContains(t, err, "proc/meminfo: no such file")
		g.file("proc/meminfo", "MemTotal: 26692 kB\nMemAvailable: 16384 kB\n")
		assert.Contains(t, g.must("/system resource print"), "16.0MiB")
	})
}
