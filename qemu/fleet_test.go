package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

const (
	fleetFolder = "../docs/fleet/"
	// fleetVariable says how many routers TestFleet starts.
	fleetVariable = "POSTERN_TEST_FLEET"
)

// TestFleet manages several routers with the files of docs/fleet: Ansible sets them up, keeps their configurations and
// upgrades them in waves, and Prometheus watches them.
func TestFleet(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	skipWithout(t, "pc")
	size := 2
	if text := os.Getenv(fleetVariable); text != "" {
		var err error
		size, err = strconv.Atoi(text)
		require.NoError(t, err, fleetVariable)
		require.True(t, size >= 2 && size <= 100, "%s: %d; expected 2 to 100", fleetVariable, size)
	}
	b, err := board.ByName("pc")
	require.NoError(t, err)
	start := time.Now()
	figure := func(what string) {
		t.Logf("%d routers: %s: %.0f s", size, what, time.Since(start).Seconds())
		start = time.Now()
	}
	manager := newKeeper(t, b)
	routers := []*keeper{manager}
	for i := 1; i < size; i++ {
		require.NoError(t, manager.n.addRouter(i))
		k := &keeper{T: t, b: b, n: manager.n, dir: filepath.Join(manager.dir, strconv.Itoa(i))}
		require.NoError(t, os.Mkdir(k.dir, 0o755))
		t.Cleanup(func() {
			if k.m != nil {
				k.m.kill()
			}
		})
		routers = append(routers, k)
	}
	keys := newSSHClient(t, manager.n, manager.dir)
	public, err := os.ReadFile(filepath.Join(keys.dir, "key.pub"))
	require.NoError(t, err)
	address := func(i int) string { return fmt.Sprintf("192.168.0.%d", 11+i) }
	inventory, targets := "routers:\n  hosts:\n", ""
	for i := range routers {
		inventory += fmt.Sprintf("    router-%d: {ansible_host: %s}\n", i+1, address(i))
		targets += fmt.Sprintf(", %q", address(i)+":80")
	}
	require.NoError(t, os.Remove(manager.flash()))
	t.Run("start", func(t *testing.T) {
		for i, k := range routers {
			// One after the other: what is t.Parallel waits here for all other tests, and the rest then went on alone, for minutes.
			t.Run(strconv.Itoa(i+1), func(t *testing.T) {
				o := machineOptions{image: filepath.Join(imageDir, b.Name), fromFlash: true}
				_, err := makeFlash(b, o, k.flash())
				require.NoError(t, err)
				require.NoError(t, keep(b, k.flash(), 1, "/ip address add interface=ether2 address="+address(i)+"/24\n"+
					"/ip firewall filter add chain=input action=drop in-interface=ether1\n"+
					"/ip service set ssh disabled=no\n/ip service set api disabled=no\n/ip service set www disabled=no\n"))
				k.start(t, "postern", func(o *machineOptions) { o.fromFlash, o.reboot, o.router = true, true, i })
				assert.Empty(t, k.command(t, "/user set admin password=\""+sshPassword+"\""))
				assert.Empty(t, k.command(t, "/user ssh-keys add user=admin key=\""+strings.TrimSpace(string(public))+"\""))
			})
		}
	})
	require.False(t, t.Failed(), "a router has not started")
	figure("from the boot loader to a password")
	list := filepath.Join(manager.dir, "inventory.yml")
	require.NoError(t, os.WriteFile(list, []byte(inventory), 0o600))
	play := func(file string, more ...string) (string, error) {
		cmd := manager.n.command(client, "ansible-playbook", append([]string{"-i", list, "-e", `{"router_password": "` + sshPassword + `"}`, fleetFolder + file}, more...)...)
		cmd.Env = append(cmd.Env, "HOME="+manager.dir, "LC_ALL=C.UTF-8", "ANSIBLE_NOCOLOR=1")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	// recaps are what Ansible says of each router at the end.
	recaps := func(out, want string) {
		t.Helper()
		assert.Len(t, regexp.MustCompile(`(?m)^router-\d+ +: .*`+want).FindAllString(out, -1), size, out)
	}

	t.Run("configure", func(t *testing.T) {
		out, err := play("configure.yml")
		require.NoError(t, err, out)
		recaps(out, `\schanged=3\s.*failed=0\s`)
		out, err = play("configure.yml")
		require.NoError(t, err, out)
		recaps(out, `\schanged=0\s.*failed=0\s`)
		figure("configured, and again")
	})
	t.Run("backup", func(t *testing.T) {
		folder := filepath.Join(manager.dir, "backups")
		require.NoError(t, os.Mkdir(folder, 0o700))
		out, err := play("backup.yml", "-e", "key="+filepath.Join(keys.dir, "key"), "-e", "folder="+folder)
		require.NoError(t, err, out)
		for i := range routers {
			kept, err := os.ReadFile(fmt.Sprintf("%s/router-%d.rsc", folder, i+1))
			require.NoError(t, err)
			assert.Contains(t, string(kept), fmt.Sprintf("/system identity\nset name=router-%d\n", i+1))
			assert.Contains(t, string(kept), address(i))
		}
		figure("configurations kept")
	})
	t.Run("Prometheus", func(t *testing.T) {
		for _, check := range [][]string{{"check", "config", "prometheus.yml"}, {"test", "rules", "alerts_test.yml"}} {
			cmd := exec.Command("promtool", check...)
			cmd.Dir = fleetFolder
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
		}
		settings, err := os.ReadFile(fleetFolder + "prometheus.yml")
		require.NoError(t, err)
		file := filepath.Join(manager.dir, "prometheus.yml")
		changed := regexp.MustCompile(`targets: \[.*\]`).ReplaceAllString(string(settings), "targets: ["+targets[2:]+"]")
		require.NoError(t, os.WriteFile(file, []byte(strings.Replace(changed, "30s", "1s", 1)), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(manager.dir, "router-password"), []byte(sshPassword), 0o600))
		require.NoError(t, copyFile(filepath.Join(manager.dir, "alerts.yml"), fleetFolder+"alerts.yml"))
		server := manager.n.command(client, "prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(manager.dir, "tsdb"), "--web.listen-address=127.0.0.1:9090")
		require.NoError(t, server.Start())
		defer kill(server)
		ask := func(query string) (string, error) {
			out, err := manager.n.command(client, "curl", "-sS", "--get", "--data-urlencode", "query="+query, "http://127.0.0.1:9090/api/v1/query").Output()
			return string(out), err
		}
		require.NoError(t, retry(func() error {
			out, err := ask(`count(up{job="routers"} == 1)`)
			if err != nil {
				return err
			}
			if !strings.Contains(out, fmt.Sprintf(`,"%d"]`, size)) {
				return errors.New("not all are up: " + out)
			}
			return nil
		}))
		// Prometheus understands each query of the dashboard and finds the metrics, but for what these routers have not.
		text, err := os.ReadFile(fleetFolder + "dashboard.json")
		require.NoError(t, err)
		var dashboard struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		require.NoError(t, json.Unmarshal(text, &dashboard))
		require.NotEmpty(t, dashboard.Panels)
		for _, p := range dashboard.Panels {
			for _, target := range p.Targets {
				query := strings.NewReplacer("$__rate_interval", "10s", "$router", ".*").Replace(target.Expr)
				require.NoError(t, retry(func() error {
					out, err := ask(query)
					if err != nil {
						return err
					}
					if !strings.Contains(out, `"status":"success"`) {
						return errors.New(out)
					}
					if strings.Contains(out, `"result":[]`) && !strings.Contains(query, "_socks_") && !strings.Contains(query, "_leases") {
						return errors.New("nothing found: " + query)
					}
					return nil
				}), p.Title)
			}
		}
		figure("watched")
	})
	files := filepath.Join(manager.dir, "release")
	require.NoError(t, os.MkdirAll(filepath.Join(files, b.Name), 0o755))
	server := manager.n.command(client, "busybox", "httpd", "-f", "-p", "8000", "-h", files)
	require.NoError(t, server.Start())
	t.Cleanup(func() { kill(server) })
	upgrade := func(v version, more ...string) (string, error) {
		image := makeVersion(t, b, manager.dir, v)
		place := filepath.Join(files, b.Name, upgradeImage)
		_ = os.Remove(place)
		require.NoError(t, copyFile(place, image))
		return play("upgrade.yml", append([]string{"-e", "release=http://" + clientAddress + ":8000", "-e", "version=" + v.name}, more...)...)
	}
	// rest asks a router: its serial line wants the password after a restart.
	rest := func(i int, path, want string) {
		t.Helper()
		require.NoError(t, retry(func() error { // it may be about to start
			out, err := manager.n.command(client, "curl", "-sS", "-u", "admin:"+sshPassword, "http://"+address(i)+"/rest/"+path).CombinedOutput()
			if err == nil && !strings.Contains(string(out), want) {
				err = errors.New("not what is wanted")
			}
			if err != nil {
				return fmt.Errorf("%s: %w: %s", path, err, out)
			}
			return nil
		}))
	}
	runs := func(i int, version string) {
		t.Helper()
		rest(i, "system/resource", `"postern-version":"`+version+`"`)
	}
	t.Run("upgrade", func(t *testing.T) {
		start = time.Now()
		out, err := upgrade(version{name: "v2", date: later})
		require.NoError(t, err, out)
		recaps(out, `\sfailed=0\s`)
		for i := range routers {
			runs(i, "v2")
		}
		figure("upgraded in waves")
	})
	t.Run("a version that is no good stops at the first router", func(t *testing.T) {
		start = time.Now()
		// Twelve questions, 5 seconds apart: a version confirms itself in less.
		out, err := upgrade(version{name: "v3", date: later + 1, bad: "end", program: "sbin/xtables-legacy-multi"}, "-e", "health_tries=12")
		require.Error(t, err, out)
		assert.Contains(t, out, "router-1")
		assert.NotRegexp(t, `(?m)^router-2 `, out)
		figure("a bad version is stopped")
		for i := 1; i < size; i++ {
			runs(i, "v2")
		}
		rest(0, "partitions?name=a", `"state":"failed"`) // it has gone back to the one before by itself
		runs(0, "v2")
	})
}
