package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-routeros/routeros/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// TestSSH manages a router on which nothing has been set over SSH, with OpenSSH, PuTTY and Dropbear.
func TestSSH(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range boards() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testSSH(t, b)
		})
	}
}

const sshPassword = "correct horse"

// sshClient is a person at a host of the LAN with OpenSSH and a key.
type sshClient struct {
	n   network
	dir string
}

func newSSHClient(t *testing.T, n network, dir string) *sshClient {
	c := &sshClient{n, filepath.Join(dir, "ssh")}
	require.NoError(t, os.MkdirAll(c.dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, "answer"), []byte("#!/bin/sh\necho \"$PASSWORD\"\n"), 0o700))
	out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@home", "-f", filepath.Join(c.dir, "key")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return c
}

// command is OpenSSH with a password or, if that is "", with the key. The host key that it has seen first
// is the only one that it takes.
func (c *sshClient) command(from host, password string, args ...string) *exec.Cmd {
	return c.program("ssh", from, password, args...)
}

// program is command for another of OpenSSH's programs.
func (c *sshClient) program(program string, from host, password string, args ...string) *exec.Cmd {
	options := []string{"-F", "none", "-o", "UserKnownHostsFile=" + filepath.Join(c.dir, "hosts"), "-o", "GlobalKnownHostsFile=none",
		"-o", "StrictHostKeyChecking=accept-new", "-o", "IdentitiesOnly=yes", "-o", "NumberOfPasswordPrompts=1", "-o", "LogLevel=ERROR"}
	if password == "" {
		options = append(options, "-i", filepath.Join(c.dir, "key"), "-o", "BatchMode=yes")
	} else {
		options = append(options, "-o", "PubkeyAuthentication=no")
	}
	cmd := c.n.command(from, program, append(options, args...)...)
	cmd.Env = append(cmd.Env, "SSH_ASKPASS="+filepath.Join(c.dir, "answer"), "SSH_ASKPASS_REQUIRE=force", "SSH_AUTH_SOCK=", "PASSWORD="+password)
	return cmd
}

// run runs a command on the router and returns what it says, and the error of the client.
func (c *sshClient) run(password, line string) (string, error) {
	return c.runAs("admin", password, line)
}

func (c *sshClient) runAs(user, password, line string) (string, error) {
	var out, errs bytes.Buffer
	cmd := c.command(client, password, user+"@"+lanAddress, line)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("ssh: %w: %s", err, errs.String())
	}
	return out.String(), nil
}

// loginAgain logs in at the serial line, whose session was ended as a password was set. The terminal
// finds that out when a line is typed.
func loginAgain(t *testing.T, k *keeper, password string) {
	t.Helper()
	require.NoError(t, k.m.send("\r"))
	for _, step := range []struct{ asked, answer string }{{"Login: ", "admin"}, {"Password: ", password}} {
		_, err := k.m.expect(step.asked)
		require.NoError(t, err)
		require.NoError(t, k.m.send(step.answer+"\r"))
	}
	_, err := k.m.expect("[admin@postern] > ")
	require.NoError(t, err)
}

// sshShell is a shell on a terminal.
type sshShell struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.Reader
}

func (c *sshClient) shell(t *testing.T) *sshShell {
	t.Helper()
	return c.shellAs(t, "admin+cet512w")
}

// startShell starts a program that has a shell on the router.
func startShell(t *testing.T, cmd *exec.Cmd) *sshShell {
	t.Helper()
	s := &sshShell{cmd: cmd}
	var err error
	s.in, err = cmd.StdinPipe()
	require.NoError(t, err)
	s.out, err = cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { kill(cmd) })
	return s
}

// shellAs is shell for a user and parameters, by a key.
func (c *sshClient) shellAs(t *testing.T, user string) *sshShell {
	t.Helper()
	s := startShell(t, c.command(client, "", "-tt", user+"@"+lanAddress))
	assert.True(t, strings.HasSuffix(s.expect(t, "] > "), "[admin@postern] > "))
	return s
}

// expect reads up to a text.
func (s *sshShell) expect(t *testing.T, end string) string {
	t.Helper()
	var b bytes.Buffer
	one := make([]byte, 1)
	for !strings.HasSuffix(b.String(), end) {
		_, err := io.ReadFull(s.out, one)
		require.NoError(t, err, b.String())
		b.Write(one)
	}
	return b.String()
}

// typed types a line and returns the prompt after it.
func (s *sshShell) typed(t *testing.T, line, end string) string {
	t.Helper()
	said := s.shown(t, line, end)
	return said[strings.LastIndex(said, "\n")+1:]
}

// shown types a line and returns what follows up to and with end.
func (s *sshShell) shown(t *testing.T, line, end string) string {
	t.Helper()
	_, err := io.WriteString(s.in, line+"\r")
	require.NoError(t, err)
	s.expect(t, line+"\r\n")
	return s.expect(t, end)
}

// TestSessions says how much memory the smallest board has left with its defaults: when nobody is connected, and with a
// session by SSH and one by the API.
func TestSessions(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	skipWithout(t, "malta")
	b, err := board.ByName("malta")
	require.NoError(t, err)
	k, r, _ := startUnset(t, b)
	assert.Empty(t, k.command(t, "/user set admin password=\""+sshPassword+"\""))
	r.awaitFree(t, 13, "when nobody is connected")
	s := startShell(t, newSSHClient(t, k.n, k.dir).command(client, sshPassword, "-tt", "admin@"+lanAddress))
	s.expect(t, "] > ")
	conn, err := k.n.dial(client, lanAddress+":8728", patience)
	require.NoError(t, err)
	c, err := routeros.NewClient(conn)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.Login("admin", sshPassword))
	for range 3 {
		s.typed(t, "/system resource print", "] > ")
		_, err = c.Run("/interface/print")
		require.NoError(t, err)
		r.awaitFree(t, 11, "with a session by SSH and one by the API")
	}
}

func testSSH(t *testing.T, b board.Board) {
	k, r, memory := startUnset(t, b)
	c := newSSHClient(t, k.n, k.dir)

	more := func(name string, f func(*testing.T)) {
		if thorough(b) {
			t.Run(name, f)
		}
	}

	assert.Contains(t, k.command(t, "/ip service print"), " 0   ssh", "for the first login")
	assert.Contains(t, k.command(t, "/ip service print"), " 1 I api")
	t.Run("the first login", func(t *testing.T) {
		empty := func(args ...string) *exec.Cmd {
			cmd := c.command(client, "none", args...)
			cmd.Env = append(cmd.Env, "PASSWORD=")
			return cmd
		}
		_, err := c.run("wrong", "/export")
		require.ErrorContains(t, err, "Permission denied")
		cmd := empty("admin@"+lanAddress, "/export")
		out, err := cmd.Output()
		assert.NotContains(t, string(out), "/ip", "nothing but a password is taken: %v", err)
		s := startShell(t, empty("-tt", "admin@"+lanAddress))
		for _, prompt := range []string{"\nnew password> ", "repeat new password> "} {
			s.expect(t, prompt)
			_, err = io.WriteString(s.in, sshPassword+"\r")
			require.NoError(t, err)
		}
		s.expect(t, "[admin@postern] > ")
		_, err = io.WriteString(s.in, "/quit\r")
		require.NoError(t, err)
		require.NoError(t, s.cmd.Wait())
		loginAgain(t, k, sshPassword)
		_, err = empty("admin@"+lanAddress, "/export").Output()
		require.Error(t, err, "once")
	})
	assert.Contains(t, k.command(t, "/ip service print"), " 1   api")
	before := memory("before anybody connects by SSH")

	t.Run("a command by a password", func(t *testing.T) {
		start := time.Now()
		out, err := c.run(sshPassword, "/export")
		require.NoError(t, err)
		t.Logf("/export by SSH, with the first start of the process: %v", time.Since(start).Round(10*time.Millisecond))
		assert.Contains(t, out, "/ip dhcp-server\r\n")
		assert.NotContains(t, out, "argon2")
		assert.Equal(t, settings(k.command(t, "/export terse")), func() string {
			out, err := c.run(sshPassword, "/export terse")
			require.NoError(t, err)
			return settings(strings.ReplaceAll(out, "\r\n", "\n"))
		}())
		k.awaitLog(t, "user admin logged in from "+clientAddress+" via ssh")
	})
	t.Run("a command that is none", func(t *testing.T) {
		out, err := c.run(sshPassword, "/system foo")
		require.NoError(t, err, "the exit status is 0, as in RouterOS")
		assert.Contains(t, out, "bad command name foo (line 1 column 9)")
	})
	t.Run("a wrong password", func(t *testing.T) {
		_, err := c.run("wrong", "/export")
		require.ErrorContains(t, err, "Permission denied")
		k.awaitLog(t, "login failure for user admin from "+clientAddress+" via ssh")
	})
	t.Run("a user who may only look", func(t *testing.T) {
		assert.Empty(t, k.command(t, "/user add name=looker group=read password=\"looks only\""))
		out, err := c.runAs("looker", "looks only", "/system identity print")
		require.NoError(t, err)
		assert.Equal(t, "  name: postern\r\n", out)
		for _, line := range []string{"/system identity set name=x", "/user set looker group=full", "/system upgrade http://192.168.0.2/x"} {
			out, err = c.runAs("looker", "looks only", line)
			require.NoError(t, err)
			assert.Equal(t, "not enough permissions (9)\r\n", out)
		}
		assert.Empty(t, k.command(t, "/user disable looker"))
		_, err = c.runAs("looker", "looks only", "/system identity print")
		require.ErrorContains(t, err, "Permission denied")
		assert.Empty(t, k.command(t, "/user remove looker"))
	})
	t.Run("others keep nobody out who manages the router", func(t *testing.T) {
		assert.Empty(t, k.command(t, "/user add name=looker group=read password=\"looks only\""))
		assert.Regexp(t, `user looker added by console:admin@tty\S+`, k.command(t, "/log print"))
		var idle []*exec.Cmd
		for range 4 { // max-sessions
			s := startShell(t, c.command(client, "looks only", "-tt", "looker@"+lanAddress))
			s.expect(t, "[looker@postern] > ")
			idle = append(idle, s.cmd)
		}
		_, err := c.runAs("looker", "looks only", "/system identity print")
		require.ErrorContains(t, err, "Permission denied")
		out, err := c.run(sshPassword, "/user active print")
		require.NoError(t, err)
		assert.Equal(t, 4, strings.Count(out, "looker"), out)
		_, err = c.run(sshPassword, "/user remove looker")
		require.NoError(t, err)
		for _, cmd := range idle {
			_ = cmd.Wait() // their logins end
		}
		assert.Regexp(t, `user looker removed by ssh:admin@`+clientAddress, k.command(t, "/log print"))
	})
	t.Run("PuTTY and Dropbear", func(t *testing.T) {
		known, err := os.ReadFile(filepath.Join(c.dir, "hosts"))
		require.NoError(t, err)
		fields := strings.Fields(string(known))
		require.GreaterOrEqual(t, len(fields), 3)
		require.NoError(t, os.WriteFile(filepath.Join(c.dir, "public"), []byte(strings.Join(fields[1:3], " ")+"\n"), 0o600))
		fingerprint, err := exec.Command("ssh-keygen", "-l", "-f", filepath.Join(c.dir, "public")).Output()
		require.NoError(t, err)
		cmd := k.n.command(client, "plink", "-ssh", "-batch", "-hostkey", strings.Fields(string(fingerprint))[1], "-pw", sshPassword, "admin@"+lanAddress, "/system identity print")
		cmd.Env = append(cmd.Env, "HOME="+c.dir)
		out, err := cmd.Output()
		require.NoError(t, err)
		assert.Equal(t, "  name: postern\r\n", string(out))
		cmd = k.n.command(client, "dbclient", "-y", "admin@"+lanAddress, "/system identity print")
		cmd.Env = append(cmd.Env, "HOME="+c.dir, "DROPBEAR_PASSWORD="+sshPassword)
		out, err = cmd.Output()
		require.NoError(t, err)
		assert.Equal(t, "  name: postern\r\n", string(out))
	})
	more("Netmiko", func(t *testing.T) {
		const program = "../ssh/sshd/testdata/manage."
		cmd := k.n.command(client, "/usr/bin/python3", "-W", "ignore", program+"py", lanAddress, "22", sshPassword, "postern")
		cmd.Env = append(cmd.Env, "HOME="+c.dir, "SSH_AUTH_SOCK=")
		var figures bytes.Buffer
		cmd.Stderr = &figures
		out, err := cmd.Output()
		require.NoError(t, err, figures.String())
		t.Logf("%s: %s", b.Name, figures.String())
		want, err := os.ReadFile(program + "txt")
		require.NoError(t, err)
		assert.Equal(t, strings.ReplaceAll(string(want), "IDENTITY", "postern"), string(out))
	})
	t.Run("a shell by a key", func(t *testing.T) {
		public, err := os.ReadFile(filepath.Join(c.dir, "key.pub"))
		require.NoError(t, err)
		out, err := c.run(sshPassword, "/user ssh-keys add user=admin key=\""+strings.TrimSpace(string(public))+"\"")
		require.NoError(t, err)
		assert.Empty(t, out)
		_, err = c.run(sshPassword, "/export")
		require.ErrorContains(t, err, "Permission denied", "who has a key needs no password")
		s := c.shell(t)
		assert.Equal(t, "[admin@postern] > ", s.typed(t, "/ip address print count-only", "> "))
		during := memory("during one session by SSH")
		// 2.4 to 2.7 on malta, 0.8 to 1.2 on boards with more memory. A process that slept may have woken up meanwhile.
		assert.Less(t, before-during, 3.5)
		_, err = io.WriteString(s.in, "/quit\r")
		require.NoError(t, err)
		require.NoError(t, s.cmd.Wait())
	})
	t.Run("files", func(t *testing.T) {
		got := filepath.Join(c.dir, "got.rsc")
		begin := time.Now()
		out, err := c.program("scp", client, "", "admin@"+lanAddress+":export.rsc", got).CombinedOutput()
		require.NoError(t, err, "%s", out)
		t.Logf("export.rsc by scp: %v", time.Since(begin).Round(10*time.Millisecond))
		text, err := os.ReadFile(got)
		require.NoError(t, err)
		export, err := c.run("", "/export")
		require.NoError(t, err)
		assert.Equal(t, settings(strings.ReplaceAll(export, "\r\n", "\n")), settings(string(text)))
		put := func(name, text string) (string, error) {
			path := filepath.Join(c.dir, name)
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			out, err := c.program("scp", client, "", path, "admin@"+lanAddress+":").CombinedOutput()
			return string(out), err
		}
		said, err := put("note.auto.rsc", "/system identity set name=wrong\n/system identity set nme=x\n")
		require.Error(t, err)
		assert.Contains(t, said, "(line 2 column 22)")
		said, err = put("note.auto.rsc", "/interface ethernet\nset ether1 comment=\"by SFTP\"\n")
		require.NoError(t, err, said)
		assert.Contains(t, k.command(t, "/interface ethernet print"), "by SFTP")
		said, err = put("note.rsc", "/interface ethernet set ether1 comment=\"\"\n")
		require.NoError(t, err, said)
		answer, err := c.run("", "/import file-name=note.rsc")
		require.NoError(t, err)
		assert.Equal(t, "Script file loaded and executed successfully\r\n", answer)
		assert.NotContains(t, k.command(t, "/interface ethernet print"), "by SFTP")
		assert.Empty(t, k.command(t, "/file remove note.rsc"))
		said, err = put("note.img", strings.Repeat("x", 1000))
		require.Error(t, err)
		assert.Contains(t, said, "failure: ")
		// A session that goes on.
		s := startShell(t, c.program("sftp", client, "", "admin@"+lanAddress))
		_, err = io.WriteString(s.in, "pwd\n")
		require.NoError(t, err)
		s.expect(t, "Remote working directory: /\n")
		during := memory("during one session of SFTP")
		assert.Less(t, before-during, 3.5)
		_, err = io.WriteString(s.in, "bye\n")
		require.NoError(t, err)
		require.NoError(t, s.cmd.Wait())
	})
	more("a pasted line of 100,000 bytes", func(t *testing.T) {
		// It is longer than a line may be. A small router once took half a minute to leave out the rest.
		pasted := "#" + strings.Repeat("x", 100_000)
		took := func(where string, paste func()) {
			t.Helper()
			start, waited := time.Now(), k.m.waited(t)
			paste()
			took, waits := time.Since(start), k.m.waited(t)-waited
			t.Logf("%s: a line of %d bytes that is pasted %s takes %v; for %v this host let QEMU's threads wait", b.Name, len(pasted), where,
				took.Round(10*time.Millisecond), waits.Round(10*time.Millisecond))
			assert.Less(t, took-waits, 10*time.Second)
		}
		took("at the serial line", func() {
			k.m.screen.forget()
			require.NoError(t, k.m.send(pasted+"\r"))
			said, err := k.m.expect("\n[admin@postern] > ")
			require.NoError(t, err)
			assert.Contains(t, said, "line longer than 4096 bytes")
		})
		s := c.shell(t)
		took("by SSH", func() {
			_, err := io.WriteString(s.in, pasted+"\r")
			require.NoError(t, err)
			assert.Contains(t, s.expect(t, "\n[admin@postern] > "), "line longer than 4096 bytes")
		})
		_, err := io.WriteString(s.in, "/quit\r")
		require.NoError(t, err)
		require.NoError(t, s.cmd.Wait())
	})
	t.Run("page by page", func(t *testing.T) {
		s := c.shellAs(t, "admin+80w12h")
		const more = "-- [Q quit|D dump|down]"
		key := func(key, end string) string {
			_, err := io.WriteString(s.in, key)
			require.NoError(t, err)
			return s.expect(t, end)
		}
		assert.Equal(t, 11, strings.Count(key("/ip firewall filter print detail\r", more), "\r\n")-1, "as many rows as the screen has, but for the last")
		assert.Equal(t, 1, strings.Count(key("\x1b[B", more), "\r\n"))
		assert.NotContains(t, key("d", "[admin@postern] > "), more)
		assert.NotContains(t, key("/ip firewall filter print detail without-paging\r", "\n[admin@postern] > "), more)
		key("/ip firewall filter print detail\r", more)
		assert.NotContains(t, key("q", "[admin@postern] > "), "\n")
		out, err := c.run("", "/ip firewall filter print detail")
		require.NoError(t, err)
		assert.NotContains(t, out, more)
		key("/quit\r", "\n")
		require.NoError(t, s.cmd.Wait())
	})
	t.Run("what goes through an interface", func(t *testing.T) {
		out, err := c.run("", "/interface monitor-traffic ether1,ether2 once")
		require.NoError(t, err)
		assert.Regexp(t, `^ {21}name: +ether1 +ether2\r\n    rx-packets-per-second: +\d+ +\d+\r\n       rx-bits-per-second: +\S+bps +\S+bps\r\n`, out)
		// What torch says goes by the interface too. Before that it has counted nothing of the connection but its login.
		out, err = c.run("", "/tool torch ether2 ip-protocol=tcp duration=5s")
		require.NoError(t, err)
		assert.Regexp(t, `\ntcp +192\.168\.0\.2:\d+ +192\.168\.0\.1:22 +\S+bps +\S+bps\r\n`, out)
		assert.NotContains(t, out, "\n[admin")
		t.Log(out)
		out, err = c.run("", "/tool torch ether1 once")
		require.NoError(t, err)
		assert.NotContains(t, out, ":22 ")
	})
	more("many who say nothing", func(t *testing.T) {
		var silent []net.Conn
		for range 40 {
			conn, err := k.n.dial(client, lanAddress+":22", patience)
			require.NoError(t, err)
			defer conn.Close()
			silent = append(silent, conn)
		}
		// The answer to each is known, so those that are not closed at once have their places.
		held := 0
		for _, conn := range silent {
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
			_, err := io.ReadFull(conn, make([]byte, len("SSH-2.0-")))
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
			if err == nil {
				held++
			}
		}
		assert.GreaterOrEqual(t, held, 5, "an address has 5 places")
		assert.Less(t, held, len(silent), "and the others are closed at once")
		memory(fmt.Sprintf("with %d connections of SSH that say nothing, of %d", held, len(silent)))
		fromOther := c.command(other, "", "admin@"+lanAddress, "/system identity print")
		out, err := fromOther.Output()
		require.NoError(t, err, "another address has its own share")
		assert.Equal(t, "  name: postern\r\n", string(out))
		for _, conn := range silent {
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
			_, err := io.Copy(io.Discard, conn)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it is ended in 30 seconds")
		}
		_, err = c.run("", "/system identity print")
		require.NoError(t, err)
	})
	more("many who hang up", func(t *testing.T) {
		start := time.Now()
		const calls = 1000
		for range calls {
			conn, err := k.n.dial(client, lanAddress+":22", patience)
			require.NoError(t, err)
			_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
			conn.Close()
		}
		t.Logf("%.0f connections a second that are hung up", calls/time.Since(start).Seconds())
		memory("after them")
		require.NoError(t, retry(func() error {
			_, err := c.run("", "/system identity print")
			return err
		}), "as soon as they are gone")
	})
	more("not from outside", func(t *testing.T) {
		const closing = `[find comment="defconf: drop all not coming from LAN"]`
		assert.Empty(t, k.command(t, "/ip address add interface=ether1 address="+wanAddress+"/24"))
		require.NoError(t, k.n.awaitPing(stranger, wanAddress))
		_, err := k.n.dial(stranger, wanAddress+":22", 3*time.Second)
		assertSilent(t, err, "SSH, from outside")
		warnings := ""
		for _, s := range []struct {
			name string
			port int
		}{{"ssh", 22}, {"api", 8728}, {"www", 80}} {
			warnings += fmt.Sprintf("warning: anyone who reaches ether1 can try to log in: no filter rule of chain=input drops dst-port=%d from there, "+
				"and address= of /ip service %s keeps nobody out\n", s.port, s.name)
		}
		assert.Equal(t, warnings, k.command(t, "/ip firewall filter disable "+closing))
		conn, err := k.n.dial(stranger, wanAddress+":22", patience)
		require.NoError(t, err)
		conn.Close()
		assert.Empty(t, k.command(t, "/ip firewall filter enable "+closing))
	})
	more("only from some addresses", func(t *testing.T) {
		assert.Empty(t, k.command(t, "/ip service set ssh address="+otherAddress+"/32"))
		_, err := c.run("", "/system identity print")
		require.Error(t, err)
		out, err := c.command(other, "", "admin@"+lanAddress, "/system identity print").Output()
		require.NoError(t, err)
		assert.Equal(t, "  name: postern\r\n", string(out))
		assert.Empty(t, k.command(t, "/ip service unset ssh address"))
	})
	// That it ends when it has been idle is shown by TestIdle of package sshd, which need not wait a minute.
	more("the process has ended", func(t *testing.T) {
		assert.Empty(t, k.command(t, "/ip service disable ssh"))
		require.NoError(t, retry(func() error { // the process has the listening socket too, until it has ended
			conn, err := k.n.dial(client, lanAddress+":22", patience)
			if err == nil {
				conn.Close()
				return errors.New("it listens still")
			}
			return nil
		}))
		memory("when the process has ended")
		assert.Empty(t, k.command(t, "/ip service enable ssh"))
		out, err := c.run("", "/system identity print")
		require.NoError(t, err, "the next connection starts it")
		assert.Equal(t, "  name: postern\r\n", out)
	})
	t.Run("after a restart", func(t *testing.T) {
		require.NoError(t, k.m.send("/system reboot\ry\r"))
		require.NoError(t, k.m.wait())
		m, err := startMachine(k.b, k.n, k.dir, machineOptions{image: filepath.Join(imageDir, k.b.Name), flash: k.flash()})
		require.NoError(t, err)
		k.m, r.m = m, m
		_, err = m.expect("Login: ")
		require.NoError(t, err)
		require.NoError(t, retry(func() error {
			_, err := c.run("", "/system identity print")
			var exit *exec.ExitError
			if errors.As(err, &exit) && strings.Contains(err.Error(), "HOST IDENTIFICATION") {
				t.Fatal(err)
			}
			return err
		}), "the host key is the same")
	})
}
