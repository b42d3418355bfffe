package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sessionSteps are what a person at the serial line does besides settings.
func (r *router) sessionSteps(step func(string, func(*testing.T))) {
	step("the log goes to a syslog server", func(t *testing.T) {
		syslog := r.syslog(t)
		r.command(t, "/system logging action set remote remote="+serverAddress)
		r.command(t, "/system logging add topics=socks,!error action=remote")
		_, reply := r.request(t, client, commandConnect, serverAddress+":80")
		require.EqualValues(t, rejected, reply.code)
		syslog(t, "socks,info - .*"+regexp.QuoteMeta(serverAddress+":80"))
		r.command(t, "/system logging remove 0")
		r.command(t, "/system logging action set remote !remote")
		assert.Regexp(t, `(?m)^(jan/\d\d )?\d\d:\d\d:\d\d socks,info .*`+regexp.QuoteMeta(serverAddress+":80"),
			r.command(t, "/log print where topics~socks"))
	})
	step("a packet that a rule logs is in the log", func(t *testing.T) {
		r.command(t, "/ip firewall filter print") // place-before=0 is the first of this
		assert.Empty(t, r.command(t, `/ip firewall filter add chain=input action=log protocol=icmp log-prefix="note " place-before=0`))
		require.NoError(t, r.n.awaitPing(client, lanAddress))
		r.awaitLog(t, `firewall,info note input: in:ether2 out:\(unknown 0\), src-mac `+strings.ToLower(r.mac(t, client))+
			`, proto ICMP \(type 8, code 0\), 192\.168\.0\.2->192\.168\.0\.1, len 84$`)
		r.command(t, "/ip firewall filter print")
		r.command(t, "/ip firewall filter remove [find action=log]")
	})
	step("Safe Mode is undone when its session ends", func(t *testing.T) {
		r.takeSafe(t)
		r.command(t, "/interface ethernet set ether1 disabled=yes")
		require.Error(t, r.http(), "the WAN port is down")
		r.m.screen.forget()
		require.NoError(t, r.m.send("\x04"))
		r.expect(t, "[Safe Mode unrolled]")
		r.expect(t, "\n[admin@postern] > ")
		r.awaitHTTP(t)
	})
	step("changes are undone and done again", func(t *testing.T) {
		r.command(t, "/interface ethernet set ether1 disabled=yes")
		require.Error(t, r.http(), "the WAN port is down")
		r.command(t, "/ip firewall filter add chain=forward action=drop comment=undone")
		assert.Regexp(t, `(?m)^U filter rule added +admin +write +20\d\d-[^\n]*\nU device ether1 changed +admin +write +20`, r.command(t, "/system history print"))
		assert.Empty(t, r.command(t, "/undo"))
		assert.Empty(t, r.command(t, "/undo"))
		r.awaitHTTP(t)
		assert.Empty(t, r.command(t, "/redo"))
		require.Error(t, r.http(), "the WAN port is down again")
		assert.Regexp(t, `(?m)^R filter rule added .*\nU device ether1 changed `, r.command(t, "/system history print"))
		assert.Empty(t, r.command(t, "/undo"))
		r.awaitHTTP(t)
		assert.Empty(t, r.command(t, "/ip firewall filter find where comment=undone"))
	})
	step("Safe Mode is released", func(t *testing.T) {
		r.takeSafe(t)
		r.command(t, "/ip socks set max-connections=123")
		require.NoError(t, r.m.send("\x18"))
		r.expect(t, "[Safe Mode released]")
		r.expect(t, "\n[admin@postern] > ")
		assert.Contains(t, r.command(t, "/ip socks print"), "max-connections: 123")
		r.takeSafe(t)
		r.command(t, "/ip socks set max-connections=124")
		r.m.screen.forget()
		require.NoError(t, r.m.send("/quit\r"))
		r.expect(t, "[Safe Mode released]")
		r.expect(t, "\n[admin@postern] > ")
		assert.Contains(t, r.command(t, "/ip socks print"), "max-connections: 124")
		r.command(t, "/ip socks set max-connections=200")
	})
	step("lines are imported, all or none", func(t *testing.T) {
		before := settings(r.command(t, "/export"))
		paste := func(text string) string {
			t.Helper()
			r.m.screen.forget()
			require.NoError(t, r.m.send("/import\r"))
			r.expect(t, "gives them up.\r\n")
			require.NoError(t, r.m.send(strings.ReplaceAll(text, "\n", "\r")+".\r"))
			return r.expect(t, "\n[admin@postern] > ")
		}
		assert.Contains(t, paste("/ip socks\nset max-connections=9\n/ip socks access\nadd action=deny dst-prot=1\n"),
			"expected end of command (line 4 column 17)")
		assert.Equal(t, before, settings(r.command(t, "/export")))
		assert.Contains(t, paste("/ip socks\nset max-connections=9\n/ip socks access\nadd action=deny \\\n    dst-port=1\n"),
			"Script loaded and executed successfully")
		assert.Contains(t, r.command(t, "/ip socks print"), "max-connections: 9\n")
		assert.Empty(t, r.command(t, "/ip socks set max-connections=200; /ip socks access remove [find dst-port=1]"))
		assert.Equal(t, before, settings(r.command(t, "/export")))
	})
	step("every key answers at once", r.keys)
	step("login", func(t *testing.T) {
		const password = "correct horse"
		typed := func(keys, until string) time.Duration {
			t.Helper()
			r.m.screen.forget()
			start := time.Now()
			require.NoError(t, r.m.send(keys))
			r.expect(t, until)
			return time.Since(start)
		}
		typed("/password\r", "new password: ")
		typed(password+"\r", "retype new password: ")
		set := typed(password+"\r", "\n[admin@postern] > ")
		typed("/quit\r", "Login: ")
		typed("admin\r", "Password: ")
		wrong := typed("horse\r", "Login failed, incorrect username or password")
		r.expect(t, "Login: ")
		typed("admin\r", "Password: ")
		again := typed("horse\r", "Login failed")
		r.expect(t, "Login: ")
		typed("admin\r", "Password: ")
		right := typed(password+"\r", "\n[admin@postern] > ")
		t.Logf("%s: a password takes %v to set, %v to check, wrong ones %v and %v to refuse", r.b.Name,
			set.Round(time.Millisecond), right.Round(time.Millisecond), wrong.Round(time.Millisecond), again.Round(time.Millisecond))
		assert.GreaterOrEqual(t, wrong, time.Second)
		assert.GreaterOrEqual(t, again, 2*time.Second)
		log := r.command(t, "/log print where topics~critical")
		assert.Equal(t, 2, strings.Count(log, "system,error,critical login failure for user admin"), log)
		assert.NotContains(t, settings(r.command(t, "/export")), "argon2")
		r.command(t, `/user set admin password=""`)
		typed("/quit\r", "\n[admin@postern] > ")
		assert.NotContains(t, r.m.screen.all(), password)
	})
}

// syslog makes the server listen for the router's log. What it returns waits for a
// line with topics and message like that.
func (r *router) syslog(t *testing.T) func(t *testing.T, pattern string) {
	t.Helper()
	var server net.PacketConn
	require.NoError(t, r.n.on(serverOfSite, func() (err error) {
		server, err = net.ListenPacket("udp4", ":514")
		return err
	}))
	t.Cleanup(func() { server.Close() })
	return func(t *testing.T, pattern string) {
		t.Helper()
		// RFC 5424: facility daemon, severity critical to informational, version 1.
		want := regexp.MustCompile(`^<(2[6-9]|30)>1 (-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) \S+ postern - ` + pattern)
		buf := make([]byte, 4096)
		for got := ""; !want.MatchString(got); {
			require.NoError(t, server.SetReadDeadline(time.Now().Add(patience)))
			n, from, err := server.ReadFrom(buf)
			require.NoError(t, err, "the last line was %q", got)
			got = string(buf[:n])
			assert.Equal(t, wanAddress, from.(*net.UDPAddr).IP.String())
		}
	}
}

// keys types a line key by key and measures the time to each echo, as it is on a line
// of 115200 baud, where a character takes 87 µs: QEMU's takes none. The time for which QEMU
// had to wait for a processor of this host is not counted.
func (r *router) keys(t *testing.T) {
	const perCharacter = 10 * time.Second / 115200
	var times []time.Duration
	key := func(name, keys, want string) {
		t.Helper()
		r.m.screen.forget()
		start, waited := time.Now(), r.m.waited(t)
		require.NoError(t, r.m.send(keys))
		out, err := r.m.expect(want)
		require.NoError(t, err, name)
		took := max(0, time.Since(start)-(r.m.waited(t)-waited)) + time.Duration(len(keys)+len(out))*perCharacter
		times = append(times, took)
		if len(keys) > 1 || keys < " " || keys == "?" {
			t.Logf("%s: %s takes %v", r.b.Name, name, took.Round(100*time.Microsecond))
		}
	}
	// A comment, so that nothing of it is a question; longer than the screen is wide.
	line := "# " + strings.Repeat("the quick brown fox jumps over the lazy dog ", 3)
	for _, c := range line {
		key("a character", string(c), string(c))
	}
	key("Ctrl-C", "\x03", "\n[admin@postern] > ")
	for _, c := range "/ip so" {
		key("a character", string(c), string(c))
	}
	key("Tab", "\t", "cks ")
	key("Tab with choices", "\t\t", "[admin@postern] > /ip socks ")
	key("help", "?", "[admin@postern] > /ip socks ")
	key("Enter", "\r", "\n[admin@postern] ip socks> ")
	key("history", "\x1b[A", "/ip socks")
	key("Ctrl-L", "\x0c", "[admin@postern] ip socks> /ip socks")
	key("Ctrl-C", "\x03", "\n[admin@postern] ip socks> ")
	r.command(t, "/")
	slices.Sort(times)
	median, worst := times[len(times)/2], times[len(times)-1]
	t.Logf("%s: of %d keys each takes %v (median), %v at worst", r.b.Name, len(times),
		median.Round(100*time.Microsecond), worst.Round(100*time.Microsecond))
	// That the host stood still for some of them is no reason to fail.
	assert.Less(t, median, 100*time.Millisecond)
}

// waited is how long QEMU's threads were ready to run and other programs ran instead, taken
// together: the second number of schedstat (Linux's Documentation/scheduler/sched-stats.rst).
func (m *machine) waited(t *testing.T) time.Duration {
	t.Helper()
	return waitedOf(t, m.cmd.Process.Pid)
}

// waitedOf is the same of the threads of any process.
func waitedOf(t *testing.T, process int) time.Duration {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", process))
	require.NoError(t, err)
	var sum time.Duration
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that has ended
		}
		var ran, waited int64
		_, err = fmt.Sscan(string(text), &ran, &waited)
		require.NoError(t, err)
		sum += time.Duration(waited)
	}
	return sum
}

// takeSafe enters Safe Mode.
func (r *router) takeSafe(t *testing.T) {
	t.Helper()
	r.m.screen.forget()
	require.NoError(t, r.m.send("\x18"))
	r.expect(t, "[Safe Mode taken]")
	r.expect(t, "\n[admin@postern] <SAFE> > ")
}
