package router

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/login"
)

const lanLines = "/interface list add name=LAN\n/interface list member add list=LAN interface=ether2\n" +
	"/ip address add address=192.168.0.1/24 interface=ether2\n/ip address add address=10.0.0.1/24 interface=ether1\n" +
	"/ip service set ssh disabled=no\n/ip service set www disabled=no\n/ip service set api disabled=no\n"

// Before there is any password or key, the router's owner may come in from the LAN by SSH and the page, and nobody else.
func TestMaySetFirst(t *testing.T) {
	admin := login.Login{User: console.Admin, From: netip.MustParseAddr("192.168.0.2")}
	for _, test := range []struct {
		name, lines, via string
		login            login.Login
		want             bool
	}{
		{"by SSH", "", viaSSH, admin, true},
		{"by the page", "", viaWeb, admin, true},
		{"by REST", "", viaWeb, login.Login{User: admin.User, From: admin.From, REST: true}, false},
		{"by the API", "", viaAPI, admin, false},
		{"another user", "/user add name=bob group=full", viaSSH, login.Login{User: "bob", From: admin.From}, false},
		{"from outside", "", viaSSH, login.Login{User: admin.User, From: netip.MustParseAddr("10.0.0.2")}, false},
		{"from far away", "", viaSSH, login.Login{User: admin.User, From: netip.MustParseAddr("172.16.0.2")}, false},
		{"from the router itself", "", viaSSH, login.Login{User: admin.User, From: netip.MustParseAddr("192.168.0.1")}, false},
		{"a network of both", "/ip address add address=192.168.0.129/25 interface=ether1", viaSSH, login.Login{User: admin.User, From: netip.MustParseAddr("192.168.0.130")}, false},
		{"a host that a route leads elsewhere", "/ip route add dst-address=192.168.0.2/32 gateway=10.0.0.9", viaSSH, admin, false},
		{"a host of the LAN, with a default route", "/ip route add gateway=10.0.0.9", viaSSH, admin, true},
		{"a disabled address", "/ip address disable [find interface=ether2]", viaSSH, admin, false},
		{"no interface is of the LAN", "/interface list member remove [find]", viaSSH, admin, false},
		{"no list", "/interface list member remove [find]; /interface list remove LAN", viaSSH, admin, false},
		{"a port of a bridge of the LAN", "/interface bridge add name=b; /interface bridge port add bridge=b interface=ether2; /interface list member set 0 interface=b; /ip address set [find interface=ether2] interface=b", viaSSH, admin, true},
		{"with a password", "/user set admin password=secret", viaSSH, admin, false},
		{"with another user's password", "/user add name=bob group=read password=secret", viaSSH, admin, false},
		{"with a key", `/user ssh-keys add user=admin key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2"`, viaSSH, admin, false},
		{"another network of the user", "/user set admin address=10.0.0.0/8", viaSSH, admin, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := started(t, lanLines)
				if test.lines != "" {
					g.must(test.lines)
				}
				assert.Equal(t, test.want, g.r.isFirst(test.via, test.login))
				proof := g.r.loginAuthority(test.via).CheckPassword(test.login, "")
				assert.Equal(t, test.want && test.via == viaSSH, proof != "", "the page asks by its own way")
				assert.Equal(t, test.want, g.r.setFirst(test.via, test.login, "new secret") != "")
				assert.Empty(t, g.r.setFirst(test.via, test.login, "other"), "once")
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		g := started(t, lanLines)
		open := func() (names []string) {
			for _, s := range console.NetworkServices {
				if s.Open(g.r.snapshot().config) {
					names = append(names, s.Name)
				}
			}
			return names
		}
		assert.Equal(t, []string{"ssh", "www"}, open())
		for _, bad := range []string{"", "bad\x01"} {
			assert.Empty(t, g.r.setFirst(viaWeb, admin, bad))
		}
		assert.NotEmpty(t, g.r.setFirst(viaWeb, admin, "new secret"))
		assert.Equal(t, []string{"ssh", "api", "www"}, open())
		assert.True(t, g.r.login(&session.Session{Origin: session.Origin{Via: session.Console}}, console.Admin, "new secret"))
		assert.Contains(t, g.log(), "password of user admin changed from 192.168.0.2 via web")
	})
}

// A session that begins without a password does nothing before one is set, and not for long.
func TestFirstSession(t *testing.T) {
	begin := func(g *rig) *guest {
		c := g.connectAs(session.Origin{Via: viaSSH, Address: netip.MustParseAddr("192.168.0.2")}, console.Admin, 1, true)
		assert.Equal(g, "Change your password\n\nnew password> ", c.until("S"))
		return c
	}
	answer := func(c *guest, new, again, until string) string {
		c.send('L', new)
		assert.Equal(c.g, "repeat new password> ", c.until("S"))
		c.send('L', again)
		return c.until(until)
	}
	t.Run("a password is set", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := started(t, lanLines)
			c := begin(g)
			assert.Equal(t, "failure: a password is needed\nnew password> ", answer(c, "", "", "S"))
			assert.Equal(t, "failure: new passwords do not match\nnew password> ", answer(c, "a", "b", "S"))
			assert.Equal(t, prompt, answer(c, "new secret", "new secret", "P"))
			assert.Equal(t, prompt, c.run("/system identity set name=postern"))
			time.Sleep(10 * time.Minute)
			assert.Equal(t, prompt, c.run("/system identity set name=postern"), "it is a session as any other")
		})
	})
	t.Run("three tries", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := started(t, lanLines)
			c := begin(g)
			answer(c, "", "", "S")
			answer(c, "", "", "S")
			assert.Equal(t, "failure: a password is needed\n", answer(c, "", "", "E"))
			<-c.over
		})
	})
	t.Run("two minutes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := started(t, lanLines)
			c := begin(g)
			start := time.Now()
			<-c.over
			assert.Equal(t, 2*time.Minute, time.Since(start))
		})
	})
	t.Run("somebody else was faster", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := started(t, lanLines)
			c := begin(g)
			g.must("/user set admin password=secret")
			require.Contains(t, answer(c, "mine", "mine", "S"), "failure: old password is wrong")
			assert.False(t, g.r.login(&session.Session{Origin: session.Origin{Via: session.Console}}, console.Admin, "mine"))
		})
	})
	t.Run("a command is none", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := started(t, lanLines)
			c := begin(g)
			c.send('T', "/user ") // completion
			<-c.over
		})
	})
}
