package main

import (
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sessionSteps are what a person at the serial line does besides settings.
func (r *router) sessionSteps(step func(string, func(*testing.T))) {
	step("the log goes to a syslog server", func(t *testing.T) {
		var server net.PacketConn
		require.NoError(t, r.n.on(serverOfSite, func() (err error) {
			server, err = net.ListenPacket("udp4", ":514")
			return err
		}))
		defer server.Close()
		r.command(t, "/system logging set remote="+serverAddress)
		_, reply := r.request(t, client, commandConnect, serverAddress+":80")
		require.EqualValues(t, rejected, reply.code)
		// RFC 5424: facility daemon, severity informational, version 1.
		want := regexp.MustCompile(`^<30>1 (-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) \S+ postern - socks,info - .*` +
			regexp.QuoteMeta(serverAddress+":80"))
		buf := make([]byte, 4096)
		for got := ""; !want.MatchString(got); {
			require.NoError(t, server.SetReadDeadline(time.Now().Add(20*time.Second)))
			n, from, err := server.ReadFrom(buf)
			require.NoError(t, err, "the last line was %q", got)
			got = string(buf[:n])
			assert.Equal(t, wanAddress, from.(*net.UDPAddr).IP.String())
		}
		r.command(t, "/system logging set !remote")
		assert.Regexp(t, `(?m)^(jan/\d\d )?\d\d:\d\d:\d\d socks,info .*`+regexp.QuoteMeta(serverAddress+":80"),
			r.command(t, "/log print where topics~socks"))
	})
	step("Safe Mode is undone when its session ends", func(t *testing.T) {
		for _, leave := range []struct{ keys, says string }{
			{"\x04", "[Safe Mode unrolled]"},
			{"/quit\r", "what was changed is undone"},
		} {
			r.takeSafe(t)
			r.command(t, "/interface ethernet set ether1 disabled=yes")
			require.Error(t, r.http(), "the WAN port is down")
			r.m.screen.forget()
			require.NoError(t, r.m.send(leave.keys))
			r.expect(t, leave.says, 20*time.Second)
			r.expect(t, "\n[admin@postern] > ", 20*time.Second)
			require.NoError(t, retry(30*time.Second, r.http))
		}
	})
	step("Safe Mode is released", func(t *testing.T) {
		r.takeSafe(t)
		r.command(t, "/ip socks set max-connections=123")
		require.NoError(t, r.m.send("\x18"))
		r.expect(t, "[Safe Mode released]", 20*time.Second)
		r.expect(t, "\n[admin@postern] > ", 20*time.Second)
		assert.Contains(t, r.command(t, "/ip socks print"), "max-connections: 123")
		r.command(t, "/ip socks set max-connections=200")
	})
	step("login", func(t *testing.T) {
		const password = "correct horse"
		typed := func(keys, until string) time.Duration {
			t.Helper()
			r.m.screen.forget()
			start := time.Now()
			require.NoError(t, r.m.send(keys))
			r.expect(t, until, 60*time.Second)
			return time.Since(start)
		}
		typed("/password\r", "new password: ")
		typed(password+"\r", "retype new password: ")
		set := typed(password+"\r", "\n[admin@postern] > ")
		typed("/quit\r", "Login: ")
		typed("admin\r", "Password: ")
		wrong := typed("horse\r", "Login failed, incorrect username or password")
		r.expect(t, "Login: ", 10*time.Second)
		typed("admin\r", "Password: ")
		again := typed("horse\r", "Login failed")
		r.expect(t, "Login: ", 10*time.Second)
		typed("admin\r", "Password: ")
		right := typed(password+"\r", "\n[admin@postern] > ")
		t.Logf("%s: a password takes %v to set, %v to check, wrong ones %v and %v to refuse", r.b.Name,
			set.Round(time.Millisecond), right.Round(time.Millisecond), wrong.Round(time.Millisecond), again.Round(time.Millisecond))
		assert.GreaterOrEqual(t, wrong, time.Second)
		assert.GreaterOrEqual(t, again, 2*time.Second)
		log := r.command(t, "/log print where topics~critical")
		assert.Equal(t, 2, strings.Count(log, "system,error,critical login failure for user admin"), log)
		assert.NotContains(t, r.command(t, "/export"), "argon2")
		r.command(t, `/user set admin password=""`)
		typed("/quit\r", "\n[admin@postern] > ")
		assert.NotContains(t, r.m.screen.all(), password)
	})
}

// takeSafe enters Safe Mode.
func (r *router) takeSafe(t *testing.T) {
	t.Helper()
	r.m.screen.forget()
	require.NoError(t, r.m.send("\x18"))
	r.expect(t, "[Safe Mode taken]", 20*time.Second)
	r.expect(t, "\n[admin@postern] <SAFE> > ", 20*time.Second)
}
