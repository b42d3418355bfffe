package api

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-routeros/routeros/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/program"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/internal/npm"
	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/service"
)

func TestMain(m *testing.M) {
	if !testnet.Inside() {
		// A module of its own, which go test does not fetch. Without it TestManagingPrograms says what is missing.
		_ = exec.Command("go", "-C", "testdata/v2", "mod", "download").Run()
	}
	testnet.Main(m)
}

// handler is what r's PID 1 does for a program.
func (r *router) handler() program.Handler {
	s := &fakeSession{router: r}
	return program.Handler{
		Query: func(path string, where []console.Condition, proplist []string) ([]console.Row, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return console.Query(r.config, live, path, where, proplist)
		},
		Do: func(path, command string, arguments []console.Argument) (console.Result, error) {
			id, err := s.Do(path, command, nil, arguments...)
			return console.Result{Added: id}, err
		},
		Execute: func(line string) (console.Result, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return (&console.Session{}).Execute(r.config, live, line)
		},
		Finish: func(context.Context, console.Result, io.Writer) error { return nil },
	}
}

// process runs the process, with r as PID 1, and returns the port that it serves.
func (r *router) process() uint16 {
	port, err := testnet.FreePort()
	require.NoError(r, err)
	ctx, cancel := context.WithCancel(context.Background())
	var p *login.Process
	link, ended, err := service.Simulate(ctx, Spec, func(l *service.Link) service.Handler {
		p = login.NewProcess(l, login.Authority{
			CheckPassword: func(l login.Login, text string) string {
				if l.User != console.Admin || text != secret {
					return ""
				}
				return "proof"
			},
			LoggedIn:  func(login.Login) {},
			LoggedOut: func(login.Login) { account{r}.Logout() },
			Serve: func(conn net.Conn, _ login.Login) {
				r.mu.Lock()
				r.sessions++
				r.mu.Unlock()
				_ = program.Serve(conn, r.handler())
				r.mu.Lock()
				r.sessions--
				r.mu.Unlock()
			},
		})
		return p.Handle
	})
	require.NoError(r, err)
	r.Cleanup(func() {
		cancel()
		link.Close()
		select {
		case err := <-ended:
			assert.NoError(r, err)
		case <-time.After(patience):
			r.Error("the process does not end")
		}
		p.Ended()
	})
	l, err := service.Listen(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))
	require.NoError(r, err)
	r.Cleanup(func() { l.Close() })
	require.NoError(r, p.Configure(r.Context(), login.Config{Port: port, MaxSessions: 2}, login.TLS{}, "", l))
	return port
}

func TestLibrouteros(t *testing.T) {
	e2e.Needs(t, "/usr/bin/python3", "/usr/lib/python3/dist-packages/librouteros")
	port := newRouter(t).process()
	out, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/client.py", "127.0.0.1", fmt.Sprint(port), secret).CombinedOutput()
	require.NoError(t, err, string(out))
	want, err := os.ReadFile("testdata/client.txt")
	require.NoError(t, err)
	assert.Equal(t, string(want), string(out))
}

// Programs that use older libraries see the same.
func TestManagingPrograms(t *testing.T) {
	want, err := os.ReadFile("testdata/manage.txt")
	require.NoError(t, err)
	see := func(t *testing.T, cmd *exec.Cmd) {
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		require.NoError(t, err, "%s%s", errs.String(), out)
		assert.Equal(t, string(want), string(out))
		t.Log(errs.String())
	}
	t.Run("go-routeros v2", func(t *testing.T) {
		program := filepath.Join(t.TempDir(), "v2")
		out, err := exec.CommandContext(t.Context(), "go", "-C", "testdata/v2", "build", "-o", program).CombinedOutput()
		require.NoError(t, err, string(out))
		see(t, exec.CommandContext(t.Context(), program, fmt.Sprintf("127.0.0.1:%d", newRouter(t).process()), secret))
	})
	t.Run("node-routeros", func(t *testing.T) {
		modules := npm.Needs(t)
		cmd := exec.CommandContext(t.Context(), "node", "testdata/client.js", "127.0.0.1", fmt.Sprint(newRouter(t).process()), secret)
		cmd.Env = append(os.Environ(), modules)
		see(t, cmd)
	})
}

// A playbook sets the router up, and changes nothing the second time.
func TestAnsible(t *testing.T) {
	e2e.Needs(t, "ansible-playbook", "/usr/lib/python3/dist-packages/librouteros", "/usr/lib/python3/dist-packages/ansible_collections/community/routeros")
	r := newRouter(t, "/ip pool add name=old ranges=10.8.0.1-10.8.0.9\n/ip firewall nat add chain=srcnat action=masquerade out-interface=ether1")
	port := r.process()
	play := func() string {
		cmd := exec.CommandContext(t.Context(), "ansible-playbook", "-i", "localhost,", "-e", fmt.Sprintf("router=127.0.0.1 api_port=%d", port), "-e", `{"password": "`+secret+`"}`, "testdata/playbook.yml")
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "LC_ALL=C.UTF-8", "ANSIBLE_LOCALHOST_WARNING=False", "ANSIBLE_NOCOLOR=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	assert.Regexp(t, `\schanged=5\s.*failed=0\s`, play())
	r.mu.Lock()
	first := r.config.Clone()
	r.mu.Unlock()
	assert.Equal(t, "gate", first.Identity)
	assert.Len(t, first.Firewall.NAT, 2)
	assert.Regexp(t, `\schanged=0\s.*failed=0\s`, play())
	r.mu.Lock()
	defer r.mu.Unlock()
	assert.True(t, first.Equal(r.config))
}

func TestGoRouteros(t *testing.T) {
	r := newRouter(t, "/ip firewall address-list add list=friends address=10.1.0.1")
	address := fmt.Sprintf("127.0.0.1:%d", r.process())
	_, err := routeros.DialTimeout(address, "admin", "wrong", patience)
	require.ErrorContains(t, err, "invalid user name or password (6)")
	// The library loses a reply that is there before it waits for it, if it is asynchronous: so it only listens that way.
	c, err := routeros.DialTimeout(address, "admin", secret, patience)
	require.NoError(t, err)
	defer c.Close()
	listener, err := routeros.DialTimeout(address, "admin", secret, patience)
	require.NoError(t, err)
	defer listener.Close()
	listener.Async()
	const menu = "/ip/firewall/address-list/"
	kept, err := listener.Listen("/system/identity/listen")
	require.NoError(t, err)
	l, err := listener.Listen(menu+"print", "=follow=", "=.proplist=.id,address")
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
	assert.Equal(t, "10.1.0.1", next()["address"])
	added, err := c.Run(menu+"add", "=list=friends", "=address=10.1.0.2")
	require.NoError(t, err)
	id := added.Done.Map["ret"]
	assert.Equal(t, map[string]string{".id": id, "address": "10.1.0.2"}, next())
	_, err = c.Run(menu+"remove", "=.id="+id)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{".id": id, ".dead": "true"}, next())
	_, err = c.Run("/interface/wireless/print")
	require.ErrorContains(t, err, "no such command prefix")
	go func() { _, _ = l.Cancel() }()
	select {
	case _, more := <-l.Chan():
		assert.False(t, more)
	case <-time.After(patience):
		t.Error("the listen goes on")
	}
	assert.NoError(t, l.Err())
	reply, err := c.Run(menu+"print", "=count-only=")
	require.NoError(t, err)
	assert.Equal(t, "1", reply.Done.Map["ret"])
	// The other goes on until the client has gone, without cancelling it.
	assert.NoError(t, kept.Err())
	require.NoError(t, listener.Close())
	require.NoError(t, c.Close())
	assert.Eventually(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.sessions == 0 && r.out == 2
	}, patience, time.Millisecond)
}

// BenchmarkCommand is a command that looks at settings, by way of the process and PID 1's end.
func BenchmarkCommand(b *testing.B) {
	r := newRouter(b)
	c, err := routeros.DialTimeout(fmt.Sprintf("127.0.0.1:%d", r.process()), "admin", secret, patience)
	require.NoError(b, err)
	defer c.Close()
	for b.Loop() {
		if _, err := c.Run("/system/identity/print"); err != nil {
			b.Fatal(err)
		}
	}
}
