package main

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-routeros/routeros/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/internal/npm"
)

// TestAPI manages a router on which nothing has been set by RouterOS's API, with librouteros, Ansible,
// go-routeros and node-routeros.
func TestAPI(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range boards() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testAPI(t, b)
		})
	}
}

func testAPI(t *testing.T, b board.Board) {
	k, _, memory := startUnset(t, b)
	const (
		port    = "8728"
		folder  = "../api/testdata/"
		wrong   = "wrong"
		listing = "/ip/firewall/address-list/"
	)
	_, err := k.n.dial(client, lanAddress+":"+port, patience)
	require.ErrorContains(t, err, "connection refused", "nothing listens before there is a password")
	assert.Empty(t, k.command(t, "/user set admin password=\""+sshPassword+"\""))
	memory("before anybody connects to the API")
	connectAs := func(user, password string) (*routeros.Client, error) {
		conn, err := k.n.dial(client, lanAddress+":"+port, patience)
		require.NoError(t, err)
		c, err := routeros.NewClient(conn)
		require.NoError(t, err)
		return c, c.Login(user, password)
	}
	connect := func(password string) (*routeros.Client, error) { return connectAs("admin", password) }

	t.Run("librouteros", func(t *testing.T) {
		out, err := k.n.command(client, "/usr/bin/python3", folder+"client.py", lanAddress, port, sshPassword).CombinedOutput()
		require.NoError(t, err, string(out))
		want, err := os.ReadFile(folder + "client.txt")
		require.NoError(t, err)
		assert.Equal(t, string(want), string(out))
		log := k.command(t, "/log print")
		assert.Contains(t, log, "login failure for user admin from "+clientAddress+" via api")
		assert.Contains(t, log, "user admin logged in from "+clientAddress+" via api")
	})
	if !thorough(b) {
		return
	}
	t.Run("go-routeros v2 and node-routeros", func(t *testing.T) {
		want, err := os.ReadFile(folder + "manage.txt")
		require.NoError(t, err)
		program := filepath.Join(k.dir, "v2")
		out, err := exec.Command("go", "-C", folder+"v2", "build", "-o", program).CombinedOutput()
		require.NoError(t, err, string(out))
		node := k.n.command(client, "node", folder+"client.js", lanAddress, port, sshPassword)
		node.Env = append(os.Environ(), npm.Needs(t))
		for _, cmd := range []*exec.Cmd{k.n.command(client, program, lanAddress+":"+port, sshPassword), node} {
			var figures strings.Builder
			cmd.Stderr = &figures
			out, err := cmd.Output()
			require.NoError(t, err, "%s%s", figures.String(), out)
			assert.Equal(t, string(want), string(out))
			t.Logf("%s: %s", b.Name, figures.String())
		}
	})
	t.Run("Ansible", func(t *testing.T) {
		play := func() string {
			cmd := k.n.command(client, "ansible-playbook", "-i", "localhost,", "-e", "router="+lanAddress+" api_port="+port,
				"-e", `{"password": "`+sshPassword+`"}`, folder+"playbook.yml")
			cmd.Env = append(cmd.Env, "HOME="+k.dir, "LC_ALL=C.UTF-8", "ANSIBLE_LOCALHOST_WARNING=False", "ANSIBLE_NOCOLOR=1")
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
			return string(out)
		}
		assert.Regexp(t, `\schanged=5\s.*failed=0\s`, play())
		export := settings(k.command(t, "/export"))
		assert.Contains(t, export, "name=gate")
		assert.Regexp(t, `\schanged=0\s.*failed=0\s`, play())
		assert.Equal(t, export, settings(k.command(t, "/export")))
	})
	t.Run("a user who may only look", func(t *testing.T) {
		assert.Empty(t, k.command(t, "/user add name=looker group=read password=\""+sshPassword+"\""))
		c, err := connectAs("looker", sshPassword)
		require.NoError(t, err)
		defer c.Close()
		r, err := c.Run("/system/identity/print")
		require.NoError(t, err)
		require.Len(t, r.Re, 1)
		_, err = c.Run("/system/identity/set", "=name=x")
		require.ErrorContains(t, err, "not enough permissions (9)")
		_, err = c.Run("/system/identity/print")
		require.NoError(t, err, "the connection goes on")
	})
	t.Run("go-routeros", func(t *testing.T) {
		_, err := connect(wrong)
		require.ErrorContains(t, err, "invalid user name or password (6)")
		c, err := connect(sshPassword)
		require.NoError(t, err)
		defer c.Close()
		c.Async()
		l, err := c.Listen(listing+"print", "=follow=", "=.proplist=address", "?list=friends", "?disabled=no")
		require.NoError(t, err)
		next := func() map[string]string {
			t.Helper()
			select {
			case s, ok := <-l.Chan():
				require.True(t, ok, l.Err())
				return s.Map
			case <-time.After(patience):
				require.Fail(t, "nothing is told")
				return nil
			}
		}
		assert.Equal(t, map[string]string{"address": "10.1.0.1"}, next())
		assert.Empty(t, k.command(t, "/ip firewall address-list add list=friends address=10.1.0.7"))
		assert.Equal(t, map[string]string{"address": "10.1.0.7"}, next())
		// The client reads no other answer while nobody takes what a listen tells.
		cancelled := make(chan error, 1)
		cancel := func(l *routeros.ListenReply) { _, err := l.Cancel(); cancelled <- err }
		go cancel(l)
		for range l.Chan() {
			t.Error("the listen goes on")
		}
		require.NoError(t, <-cancelled)
		require.NoError(t, l.Err())
		r, err := c.Run("/ping", "=address="+clientAddress, "=count=2", "=interval=10ms")
		require.NoError(t, err)
		require.Len(t, r.Re, 2)
		last := r.Re[1].Map
		assert.Regexp(t, `^(\d+ms)?\d+us$`, last["time"])
		assert.Equal(t, []string{"1", clientAddress, "64", "64", "2", "2", "0"},
			[]string{last["seq"], last["host"], last["size"], last["ttl"], last["sent"], last["received"], last["packet-loss"]})
		endless, err := c.Listen("/ping", "=address="+clientAddress, "=interval=10ms", "=.proplist=seq")
		require.NoError(t, err)
		for i := range 3 {
			assert.Equal(t, map[string]string{"seq": strconv.Itoa(i)}, (<-endless.Chan()).Map)
		}
		go cancel(endless)
		for range endless.Chan() { // what was on its way
		}
		require.NoError(t, <-cancelled)
		require.NoError(t, endless.Err())
		r, err = c.Run("/interface/monitor-traffic", "=interface=ether2", "=once=")
		require.NoError(t, err)
		require.Len(t, r.Re, 1)
		assert.Regexp(t, `^\d+$`, r.Re[0].Map["rx-bits-per-second"])
		_, err = c.Run("/interface/wireless/print")
		require.ErrorContains(t, err, "no such command prefix")
		memory("while one is logged in")
	})
	t.Run("commands a second", func(t *testing.T) {
		c, err := connect(sshPassword)
		require.NoError(t, err)
		defer c.Close()
		const commands = 200
		for _, line := range []string{"/system/identity/print", "/interface/print", "/ip/firewall/filter/print"} {
			start := time.Now()
			for range commands {
				_, err := c.Run(line)
				require.NoError(t, err)
			}
			t.Logf("%s: %s: %.0f a second", b.Name, line, commands/time.Since(start).Seconds())
		}
	})
	t.Run("strangers", func(t *testing.T) {
		for _, sent := range []string{"\xf0\xff\xff\xff\xff", "\xff", strings.Repeat("\x00", 100), "GET / HTTP/1.0\r\n\r\n"} {
			for range 20 {
				conn, err := k.n.dial(client, lanAddress+":"+port, patience)
				require.NoError(t, err)
				_, _ = conn.Write([]byte(sent))
				conn.Close()
			}
		}
		require.NoError(t, retry(func() error {
			c, err := connect(sshPassword)
			if err == nil {
				err = c.Close()
			}
			return err
		}))
		memory("after strangers")
	})
	t.Run("as many logins as there can be, each with as long a sentence", func(t *testing.T) {
		var conns []net.Conn
		for range 4 {
			require.NoError(t, retry(func() error { // the logins of before may not be over yet
				conn, err := k.n.dial(client, lanAddress+":"+port, patience)
				if err != nil {
					return err
				}
				c, err := routeros.NewClient(conn)
				if err == nil {
					err = c.Login("admin", sshPassword)
				}
				if err != nil {
					conn.Close()
					return err
				}
				conns = append(conns, conn)
				return nil
			}))
			defer conns[len(conns)-1].Close()
		}
		// 16,383 words of 15 bytes; the end is not sent yet.
		for _, conn := range conns {
			_, err := io.WriteString(conn, strings.Repeat("\x0f=123456789abcd=", 16<<10-1))
			require.NoError(t, err)
		}
		memory("while 4 sentences of 240 KiB have no end")
		for _, conn := range conns {
			_, err := conn.Write([]byte{0})
			require.NoError(t, err)
			reply := make([]byte, len("\x05!trap"))
			_, err = io.ReadFull(conn, reply)
			require.NoError(t, err)
			assert.Equal(t, "\x05!trap", string(reply))
		}
	})
	t.Run("not from outside", func(t *testing.T) {
		assert.Empty(t, k.command(t, "/ip address add interface=ether1 address="+wanAddress+"/24"))
		require.NoError(t, k.n.awaitPing(stranger, wanAddress))
		_, err := k.n.dial(stranger, wanAddress+":"+port, 3*time.Second)
		assertSilent(t, err, "the API, from outside")
	})
	t.Run("the process has ended", func(t *testing.T) {
		assert.Empty(t, k.command(t, "/ip service disable api"))
		require.NoError(t, retry(func() error { // the process has the listening socket too, until it has ended
			conn, err := k.n.dial(client, lanAddress+":"+port, patience)
			if err == nil {
				conn.Close()
				return errors.New("it listens still")
			}
			return nil
		}))
		memory("when the process has ended")
	})
}
