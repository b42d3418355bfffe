package router

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/web"
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
		{"a default route of another table", "/routing table add fib name=isp; /ip route add gateway=10.0.0.9 routing-table=isp", viaSSH, admin, true},
		{"a default route of a table that a rule looks in first", "/routing table add fib name=isp; /ip route add gateway=10.0.0.9 routing-table=isp; /routing rule add action=lookup table=isp",
			viaSSH, admin, false},
		{"a rule for other hosts", "/routing table add fib name=isp; /ip route add gateway=10.0.0.9 routing-table=isp; /routing rule add action=lookup dst-address=10.9.0.0/16 table=isp",
			viaSSH, admin, true},
		{"a rule for what comes in", "/routing table add fib name=isp; /ip route add gateway=10.0.0.9 routing-table=isp; /routing rule add action=lookup interface=ether2 table=isp",
			viaSSH, admin, true},
		{"a default route of a table that mangle gives answers", "/routing table add fib name=isp; /ip route add gateway=10.0.0.9 routing-table=isp; " +
			"/ip firewall mangle add chain=output action=mark-routing new-routing-mark=isp", viaSSH, admin, false},
		{"a mark of what comes in", "/routing table add fib name=isp; /ip route add gateway=10.0.0.9 routing-table=isp; " +
			"/ip firewall mangle add chain=prerouting action=mark-routing new-routing-mark=isp", viaSSH, admin, true},
		{"a disabled address", "/ip address disable [find interface=ether2]", viaSSH, admin, false},
		{"no interface is of the LAN", "/interface list member remove [find]", viaSSH, admin, false},
		{"no list", "/interface list member remove [find]; /interface list remove LAN", viaSSH, admin, false},
		{"a port of a bridge of the LAN", "/interface bridge add name=b; /interface bridge port add bridge=b interface=ether2; /interface list member set 0 interface=b; /ip address set [find interface=ether2] interface=b", viaSSH, admin, true},
		{"with a password", "/user set admin password=secret", viaSSH, admin, false},
		{"with another user's password", "/user add name=bob group=read password=secret", viaSSH, admin, false},
		{"with a key", `/user ssh-keys add user=admin key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2"`, viaSSH, admin, false},
		{"another network of the service", "/ip service set ssh address=192.168.0.3/32", viaSSH, admin, false},
		{"another network of the user", "/user set admin address=10.0.0.0/8", viaSSH, admin, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := started(t, lanLines)
				if test.lines != "" {
					g.must(test.lines)
				}
				assert.Equal(t, test.want, g.r.isFirst(way{via: test.via}, test.login))
				proof := g.r.loginAuthority(way{via: test.via}).CheckPassword(test.login, "")
				assert.Equal(t, test.want && test.via == viaSSH, proof != "", "the page asks by its own way")
				assert.Equal(t, test.want, g.r.setFirst(way{via: test.via}, test.login, "new secret") != "")
				assert.Empty(t, g.r.setFirst(way{via: test.via}, test.login, "other"), "once")
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
			assert.Empty(t, g.r.setFirst(way{via: viaWeb}, admin, bad))
		}
		assert.NotEmpty(t, g.r.setFirst(way{via: viaWeb}, admin, "new secret"))
		assert.Equal(t, []string{"ssh", "api", "www"}, open())
		assert.True(t, g.r.login(&session.Session{Origin: session.Origin{Via: session.Console}}, console.Admin, "new secret"))
		assert.Contains(t, g.log(), "password of user admin changed by web:admin@192.168.0.2")
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
	t.Run("another user has a password meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := started(t, lanLines)
			c := begin(g)
			g.must("/user add name=bob group=full password=secret")
			require.Contains(t, answer(c, "mine", "mine", "SP"), "failure: a password or a key was set meanwhile")
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

// Each start tells the log that anybody on the LAN can set the first password.
func TestFirstOpenIsTold(t *testing.T) {
	for _, c := range []struct {
		name, line string
		told       bool
	}{
		{"SSH", "/ip service set ssh disabled=no", true}, {"the page", "/ip service set www disabled=no", true}, {"neither", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := started(t, "/interface list add name=LAN", "/interface list member add list=LAN interface=ether2", c.line)
			g.r.tellFirstOpen()
			assert.Equal(t, c.told, strings.Contains(g.log(), "warning: no password and no key is set"), g.log())
		})
	}
}

// OpenSSH sets the first password of a router, and logs in with it afterwards.
func TestFirstOpenSSH(t *testing.T) {
	e2e.Needs(t, "ssh")
	g := newSSHRig(t)
	g.config.InterfaceLists = []console.InterfaceList{{Name: "LAN"}}
	g.config.ListMembers = []console.ListMember{{List: "LAN", Interface: "ether2"}}
	g.apply()
	// No user could set an address of this machine's loopback.
	g.r.now.layers = g.r.now.layers.with("test", Layer{Addresses: []netcfg.Address{{Address: netip.MustParsePrefix("127.0.0.1/8"), Interface: "ether2"}}})
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "answer"), []byte("#!/bin/sh\necho \"$PASSWORD\"\n"), 0o700))
	run := func(from, password, in string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "ssh", append([]string{"-F", "none", "-b", from, "-p", fmt.Sprint(g.config.SSH.Port), "-o", "UserKnownHostsFile=" + filepath.Join(dir, "hosts"),
			"-o", "StrictHostKeyChecking=accept-new", "-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1", "-o", "LogLevel=ERROR"}, args...)...)
		cmd.Env = append(os.Environ(), "SSH_ASKPASS="+filepath.Join(dir, "answer"), "SSH_ASKPASS_REQUIRE=force", "SSH_AUTH_SOCK=", "PASSWORD="+password)
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.Output()
		return string(out), err
	}
	_, err := run("127.0.0.1", "", "", "admin@127.0.0.1", "/export")
	require.Error(t, err, "from the router itself")
	out, err := run("127.0.0.2", "", "", "admin@127.0.0.1", "/system identity print")
	assert.NotContains(t, out, "postern", "%v", err)
	out, err = run("127.0.0.2", "", "/system identity print\n", "-T", "admin@127.0.0.1")
	assert.NotContains(t, out, "name:", "%v", err)
	assert.False(t, g.r.snapshot().running.HasSecret())
	out, err = run("127.0.0.2", "", "correct horse\ncorrect horse\n/system identity print\n/quit\n", "-T", "admin@127.0.0.1")
	require.NoError(t, err, out)
	assert.Contains(t, out, "new password> ")
	assert.Contains(t, out, "  name: postern\n")
	assert.True(t, g.r.snapshot().running.HasSecret())
	_, err = run("127.0.0.2", "", "", "admin@127.0.0.1", "/export")
	require.Error(t, err, "once")
	out, err = run("127.0.0.2", "correct horse", "", "admin@127.0.0.1", "/system identity print")
	require.NoError(t, err)
	assert.Equal(t, "  name: postern\r\n", out)
	g.s.Stop()
}

// The page sets the first password by its form, from the LAN alone; REST waits for it.
func TestFirstByThePage(t *testing.T) {
	fakes := newRig(t)
	r := fakes.r
	s := newWebService(realSupervisor(t, r.log, fakes.log), r.log.About("www"), web.Spec)
	s.attach(r, way{via: viaWeb})
	config := console.Default()
	config.WWW.Disabled, config.WWW.Port = false, freePort(t)
	config.InterfaceLists = []console.InterfaceList{{Name: "LAN"}}
	config.ListMembers = []console.ListMember{{List: "LAN", Interface: "ether2"}}
	require.NoError(t, s.Apply(config))
	r.mu.Lock()
	r.now.config, r.now.running = config, config
	r.now.layers = r.now.layers.with("test", Layer{Addresses: []netcfg.Address{{Address: netip.MustParsePrefix("127.0.0.1/8"), Interface: "ether2"}}})
	r.mu.Unlock()
	login := func(from, form string) int {
		t.Helper()
		client := http.Client{Timeout: time.Minute, Transport: &http.Transport{
			DisableKeepAlives: true, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext,
		}}
		request, err := http.NewRequest("POST", fmt.Sprintf("http://127.0.0.1:%d/login", config.WWW.Port), strings.NewReader(form))
		require.NoError(t, err)
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("X-Postern-Token", "")
		answer, err := client.Do(request)
		require.NoError(t, err)
		answer.Body.Close()
		return answer.StatusCode
	}
	assert.Equal(t, 401, login("127.0.0.1", "user=admin&password=&new=correct+horse"), "from the router itself")
	assert.Equal(t, 428, login("127.0.0.2", "user=admin&password="))
	assert.Equal(t, 401, login("127.0.0.2", "user=root&password=&new=correct+horse"))
	assert.Equal(t, 428, login("127.0.0.2", "user=admin&password=&new=bad%01"))
	assert.False(t, r.snapshot().config.HasSecret())
	assert.Equal(t, 200, login("127.0.0.2", "user=admin&password=&new=correct+horse"))
	assert.Contains(t, fakes.log(), "user admin logged in from 127.0.0.2 via web")
	assert.Equal(t, 401, login("127.0.0.2", "user=admin&password=&new=other"), "once")
	assert.Equal(t, 401, login("127.0.0.2", "user=admin&password=other"))
	assert.Equal(t, 200, login("127.0.0.2", "user=admin&password=correct+horse"))
	s.Stop()
}

// Who opens the first login again, as by one undo too many, is warned.
func TestFirstAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const warning = "warning: no password and no key is set: whoever is on the LAN can set the first one; /password sets it\n"
		g := started(t, lanLines+"/ip firewall filter add chain=input action=drop in-interface=ether1\n")
		assert.Empty(t, g.must("/user set admin password=secret"))
		assert.Equal(t, warning, g.must("/undo"))
		assert.Empty(t, g.must("/system identity set name=x"), "it was so before")
		assert.Empty(t, g.must("/user set admin password=secret"))
		assert.Empty(t, g.must("/interface list member disable 0; /user set admin password=\"\""), "nothing is of the LAN")
		assert.Equal(t, warning, g.must("/interface list member enable 0"))
	})
}
