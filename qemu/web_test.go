package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// TestWeb manages a router on which nothing has been set by its page's requests and by REST, and has Prometheus
// scrape it.
func TestWeb(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range boards() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testWeb(t, b)
		})
	}
}

func testWeb(t *testing.T, b board.Board) {
	k, r, memory := startUnset(t, b)
	const url = "http://" + lanAddress
	// curl returns the body and, behind it, the status.
	curl := func(args ...string) string {
		t.Helper()
		out, err := k.n.command(client, "curl", append([]string{"-sS", "--max-time", "60", "-w", "%{http_code}"}, args...)...).Output()
		require.NoError(t, err, "%q", args)
		return string(out)
	}
	user := []string{"-u", "admin:" + sshPassword}
	rest := func(path string, args ...string) string {
		t.Helper()
		return curl(append(slices.Concat(user, args), url+"/rest/"+path)...)
	}
	change := func(method, path, body string) string {
		t.Helper()
		return rest(path, "-X", method, "-H", "Content-Type: application/json", "-d", body)
	}

	t.Run("the first login", func(t *testing.T) {
		assert.True(t, strings.HasSuffix(curl("-u", "admin:", url+"/rest/system/identity"), "401"))
		first := func(fields ...string) string {
			args := []string{"-H", "X-Postern-Token;"}
			for _, f := range fields {
				args = append(args, "--data-urlencode", f)
			}
			return curl(append(args, url+"/login")...)
		}
		assert.True(t, strings.HasSuffix(first("user=admin", "password="), "428"))
		assert.True(t, strings.HasSuffix(first("user=root", "password=", "new="+sshPassword), "401"))
		out := first("user=admin", "password=", "new="+sshPassword)
		assert.True(t, strings.HasSuffix(out, "200"), out)
		assert.True(t, strings.HasSuffix(first("user=admin", "password=", "new=other"), "401"), "once")
		loginAgain(t, k, sshPassword)
	})
	before := memory("before anybody connects by HTTP")

	t.Run("REST", func(t *testing.T) {
		assert.Equal(t, `{"name":"postern"}200`, rest("system/identity"))
		k.awaitLog(t, "user admin logged in from "+clientAddress+" via rest-api")
		added := change("PUT", "ip/dns/static", `{"name":"nas.lan","address":"192.168.0.2"}`)
		assert.True(t, strings.HasPrefix(added, `{".id":"*`) && strings.HasSuffix(added, "201"), added)
		assert.Contains(t, change("PATCH", "ip/dns/static/nas.lan", `{"disabled":"yes"}`), `"disabled":"true"`)
		assert.Contains(t, settings(k.command(t, "/export")), "name=nas.lan")
		assert.Equal(t, "204", rest("ip/dns/static/nas.lan", "-X", "DELETE"))
		assert.NotContains(t, settings(k.command(t, "/export")), "name=nas.lan")
		assert.Equal(t, `[{"address":"192.168.0.1/24"}]200`, change("POST", "ip/address/print", `{".proplist":["address"],".query":["interface=ether2"]}`))
		assert.Contains(t, rest("caps-man/interface"), "no such command or directory (interface)")
		start := time.Now()
		rest("interface?.proplist=name,rx-byte")
		t.Logf("%s: a request takes %v with curl's start", b.Name, time.Since(start).Round(time.Millisecond))
	})
	t.Run("a wrong password", func(t *testing.T) {
		assert.True(t, strings.HasSuffix(curl("-u", "admin:wrong", url+"/metrics"), "401"))
		k.awaitLog(t, "login failure for user admin from "+clientAddress+" via rest-api")
	})
	t.Run("a user who may only look", func(t *testing.T) {
		assert.Empty(t, k.command(t, "/user add name=looker group=read password=\""+sshPassword+"\""))
		looker := []string{"-u", "looker:" + sshPassword}
		assert.Equal(t, `{"name":"postern"}200`, curl(append(looker, url+"/rest/system/identity")...))
		assert.Equal(t, `{"error":500,"message":"Internal Server Error","detail":"not enough permissions (9)"}500`,
			curl(append(looker, "-X", "POST", "-H", "Content-Type: application/json", "-d", `{"name":"x"}`, url+"/rest/system/identity/set")...))
		assert.Contains(t, curl(append(looker, url+"/metrics")...), "postern_uptime_seconds ")
		assert.Contains(t, k.command(t, "/user active print detail"), "name=looker address="+clientAddress+" via=rest-api group=read")
	})
	t.Run("the page", func(t *testing.T) {
		assert.Contains(t, curl("--compressed", url), "<title>Router</title>")
		jar := filepath.Join(k.dir, "jar")
		out := curl("-c", jar, "-H", "X-Postern-Token;", "--data-urlencode", "user=admin", "--data-urlencode", "password="+sshPassword, url+"/login")
		require.True(t, strings.HasSuffix(out, "200"), out)
		var session struct{ Token string }
		require.NoError(t, json.Unmarshal([]byte(strings.TrimSuffix(out, "200")), &session))
		assert.True(t, strings.HasSuffix(curl("-b", jar, url+"/rest/log?.last=5"), "]200"))
		assert.True(t, strings.HasSuffix(curl("-b", jar, "-X", "POST", url+"/logout"), "403"), "no token")
		assert.Equal(t, "204", curl("-b", jar, "-X", "POST", "-H", "X-Postern-Token: "+session.Token, url+"/logout"))
		assert.True(t, strings.HasSuffix(curl("-b", jar, url+"/session"), "401"))
	})
	if !thorough(b) {
		return
	}
	t.Run("a connection through SOCKS is ended", func(t *testing.T) {
		assert.Equal(t, "[]200", change("POST", "ip/socks/set", `{"enabled":true}`))
		var conn net.Conn
		require.NoError(t, retry(func() (err error) { conn, err = k.n.dial(client, lanAddress+":1080", patience); return err }))
		defer conn.Close()
		_, err := conn.Write([]byte{4, 1, 0, 21}) // its request is not whole, so it stays for a while
		require.NoError(t, err)
		var list string
		require.NoError(t, retry(func() error {
			if list = rest("ip/socks/connections?.proplist=.id"); !strings.Contains(list, ".id") {
				return errors.New("not there: " + list)
			}
			return nil
		}))
		_, id, _ := strings.Cut(list, `:"`)
		id, _, _ = strings.Cut(id, `"`)
		assert.Equal(t, "204", rest("ip/socks/connections/"+id, "-X", "DELETE"))
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
		_, err = io.Copy(io.Discard, conn)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		r.awaitLog(t, `reason="removed"`)
		assert.Equal(t, "[]200", change("POST", "ip/socks/set", `{"enabled":"no"}`))
	})
	during := memory("with the process of HTTP")
	assert.Less(t, before-during, 3.0)
	t.Run("promtool", func(t *testing.T) {
		check := k.n.command(client, "promtool", "check", "metrics")
		metrics := strings.TrimSuffix(curl(append(user, url+"/metrics")...), "200")
		check.Stdin = strings.NewReader(metrics)
		out, err := check.CombinedOutput()
		require.NoError(t, err, "%s", out)
		assert.Empty(t, string(out))
		assert.Contains(t, metrics, `postern_interface_up{interface="ether2",type="ether"} 1`)
		assert.Contains(t, metrics, "postern_conntrack_entries_limit ")
		assert.NotContains(t, metrics, "success{collector=\"resource\"} 0")
	})
	t.Run("Prometheus", func(t *testing.T) {
		settings := filepath.Join(k.dir, "prometheus.yml")
		require.NoError(t, os.WriteFile(settings, fmt.Appendf(nil, `scrape_configs:
  - job_name: router
    scrape_interval: 1s
    scrape_timeout: 1s
    basic_auth: {username: admin, password: %s}
    static_configs: [{targets: ['%s:80']}]
`, sshPassword, lanAddress), 0o600))
		server := k.n.command(client, "prometheus", "--config.file="+settings, "--storage.tsdb.path="+filepath.Join(k.dir, "tsdb"), "--web.listen-address=127.0.0.1:9090")
		require.NoError(t, server.Start())
		defer kill(server)
		require.NoError(t, retry(func() error {
			out, err := k.n.command(client, "curl", "-sS", "http://127.0.0.1:9090/api/v1/query?query=postern_interface_receive_bytes_total").Output()
			if err != nil {
				return err
			}
			if !strings.Contains(string(out), `"interface":"ether2"`) {
				return errors.New("not yet: " + string(out))
			}
			return nil
		}))
	})
	t.Run("not from outside", func(t *testing.T) {
		assert.Empty(t, k.command(t, "/ip address add interface=ether1 address="+wanAddress+"/24"))
		require.NoError(t, k.n.awaitPing(stranger, wanAddress))
		_, err := k.n.dial(stranger, wanAddress+":80", 3*time.Second)
		assertSilent(t, err, "HTTP, from outside")
	})
	t.Run("the process has ended", func(t *testing.T) {
		assert.Empty(t, k.command(t, "/ip service disable www"))
		require.NoError(t, retry(func() error { // the process has the listening socket too, until it has ended
			conn, err := k.n.dial(client, lanAddress+":80", patience)
			if err == nil {
				conn.Close()
				return errors.New("it listens still")
			}
			return nil
		}))
		memory("when the process has ended")
	})
}
