package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/docs"
	"github.com/postern-router/postern/internal/browser"
	"github.com/postern-router/postern/internal/e2e"
)

// picturesVariable names a folder for the pictures of the page that README shows.
const picturesVariable = "POSTERN_TEST_PICTURES"

// TestManagers plugs in a household's router, sets its password by the page in a browser, and manages it with what reads
// RouterOS's screens over SSH: RANCID and Ansible.
func TestManagers(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	skipWithout(t, "malta")
	b, err := board.ByName("malta")
	require.NoError(t, err)
	k := newKeeper(t, b)
	h, err := startHousehold(k.n, filepath.Join(k.dir, "household"))
	require.NoError(t, err)
	t.Cleanup(h.close)
	k.start(t, "postern", nil)
	_, err = h.connect(client, k.n.command)
	require.NoError(t, err)
	k.run(t, other, "busybox", "udhcpc", "-f", "-n", "-q", "-i", "eth0", "-x", "hostname:phone", "-s", h.script())
	require.NoError(t, retry(h.page))

	t.Run("the page in a browser", func(t *testing.T) {
		const shown = `!document.querySelector("#status").hidden`
		p := browser.Start(t, k.n[client].Command)
		start := time.Now()
		p.Open("http://" + lanAddress)
		p.Await(`document.activeElement.name == "password"`)
		t.Logf("the page is there after %v", time.Since(start).Round(10*time.Millisecond))
		p.Press("Enter")
		p.Await(`document.activeElement.name == "new"`)
		p.Type(sshPassword)
		p.Press("Tab")
		p.Type(sshPassword)
		start = time.Now()
		p.Press("Enter")
		p.Await(shown)
		t.Logf("the status is there %v after the password", time.Since(start).Round(10*time.Millisecond))
		loginAgain(t, k, sshPassword)
		k.command(t, "/ip socks set enabled=yes")
		h.startSlowFTP(t)
		if pictures := os.Getenv(picturesVariable); pictures != "" {
			// A minute and a half of a household's day.
			for _, rate := range []string{"90k", "300k", "220k", "600k", "150k", "40k", "350k"} {
				_ = k.n.command(client, "curl", "-s", "-o", os.DevNull, "--max-time", "10", "--limit-rate", rate, "http://"+pageName+"/"+fileName).Run()
			}
			p.Await(`plots.get("ether1").data.length > 20`)
			for _, scheme := range []string{"light", "dark"} {
				p.View(960, 760, false, scheme)
				require.NoError(t, os.WriteFile(filepath.Join(pictures, "page-"+scheme+".webp"), p.Picture("webp", false), 0o644))
				require.NoError(t, os.WriteFile(filepath.Join(pictures, "household-"+scheme+".png"), p.Picture("png", true), 0o644))
			}
		}
		p.Await(`document.querySelectorAll("#socks tbody tr").length > 0 && document.querySelectorAll("#leases tbody tr").length == 2`)
		seen := p.Text(`document.querySelector("#status").innerText`)
		for _, text := range []string{"malta", "running", "laptop", "phone", "bound", "192.168.0.1/24", "dhcp,info"} {
			assert.Contains(t, seen, text)
		}
		start = time.Now()
		p.Click("#socks button")
		p.Await(`document.activeElement.id == "h-so"`)
		t.Logf("a connection is ended in %v", time.Since(start).Round(10*time.Millisecond))
		k.awaitLog(t, `reason="removed"`)
		p.Click("#logout")
		p.Await(`document.activeElement.name == "password"`)
		for _, r := range p.Requests() {
			assert.Regexp(t, `^(GET|POST|DELETE) (http://192\.168\.0\.1/|data:image/svg)`, r)
		}
	})
	t.Run("README", func(t *testing.T) {
		pages, err := docs.Pages("..")
		require.NoError(t, err)
		answer := filepath.Join(k.dir, "answer")
		require.NoError(t, os.WriteFile(answer, []byte("#!/bin/sh\necho \"$PASSWORD\"\n"), 0o700))
		require.NoError(t, k.n[client].Overlay("/etc/ssh/ssh_config", "StrictHostKeyChecking accept-new\nPubkeyAuthentication no\nUserKnownHostsFile "+k.dir+"/hosts\n"))
		said := map[string]string{}
		for _, p := range pages {
			for _, block := range p.Blocks {
				for _, c := range block.Commands() {
					name, _, _ := strings.Cut(c.Text, " ")
					if filepath.Base(p.File) != "README.md" || name != "ssh" && name != "ansible" {
						continue
					}
					cmd := k.n.command(client, "bash", "-c", c.Text)
					cmd.Env = append(os.Environ(), "HOME="+k.dir, "LC_ALL=C.UTF-8", "SSH_ASKPASS="+answer, "SSH_ASKPASS_REQUIRE=force", "SSH_AUTH_SOCK=", "PASSWORD="+sshPassword)
					start := time.Now()
					out, err := cmd.Output()
					require.NoError(t, err, "%s: %s", c.Text, out)
					t.Logf("%s takes %v", name, time.Since(start).Round(10*time.Millisecond))
					said[name] = string(out)
				}
			}
		}
		assert.Contains(t, said["ssh"], "\n/ip dhcp-server\r\n")
		assert.Contains(t, said["ansible"], `"changed": true`)
		assert.Contains(t, k.command(t, "/ip dns print"), "9.9.9.9")
	})
	t.Run("RANCID", func(t *testing.T) {
		home := t.TempDir()
		ssh := filepath.Join(home, "ssh")
		require.NoError(t, os.WriteFile(ssh, []byte("#!/bin/sh\nexec ssh -F none -o PubkeyAuthentication=no -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile="+home+"/hosts \"$@\"\n"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(home, ".cloginrc"), fmt.Appendf(nil, "add user * admin\nadd password * {{%s}}\nadd method * ssh\nadd sshcmd * %s\nadd timeout * 120\n", sshPassword, ssh), 0o600))
		keep := func() string {
			cmd := k.n.command(client, "/usr/lib/rancid/bin/rancid", "-d", "-t", "mikrotik", lanAddress)
			cmd.Dir = home
			cmd.Env = append(os.Environ(), "HOME="+home, "PATH=/usr/lib/rancid/bin:"+os.Getenv("PATH"), "TERM=network", "SSH_AUTH_SOCK=")
			start := time.Now()
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
			text, err := os.ReadFile(filepath.Join(home, lanAddress+".new"))
			require.NoError(t, err, string(out))
			t.Logf("RANCID keeps %d bytes in %v", len(text), time.Since(start).Round(10*time.Millisecond))
			return string(text)
		}
		kept := keep()
		assert.Contains(t, kept, "RANCID-CONTENT-TYPE: mikrotik")
		// It joins what is broken into lines.
		_, export, _ := strings.Cut(strings.NewReplacer("\r", "", "\\\n    ", "").Replace(k.command(t, "/export")), "\n/")
		for line := range strings.Lines("/" + strings.TrimSpace(export) + "\n") {
			assert.Contains(t, kept, "\n"+line)
		}
		assert.Equal(t, kept, keep())
	})
	t.Run("Ansible", func(t *testing.T) {
		cmd := k.n.command(client, "ansible-playbook", "-i", "router,", "-e", "ansible_host="+lanAddress+" name=postern", "-e", `{"ansible_password": "`+sshPassword+`"}`,
			"../ssh/sshd/testdata/playbook.yml")
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "LC_ALL=C.UTF-8", "ANSIBLE_NOCOLOR=1", "ANSIBLE_HOST_KEY_CHECKING=False", "SSH_AUTH_SOCK=")
		start := time.Now()
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		assert.Regexp(t, `\sfailed=0\s`, string(out))
		t.Logf("Ansible's facts and commands take %v", time.Since(start).Round(10*time.Millisecond))
		assert.Contains(t, k.command(t, "/ip firewall address-list print"), "203.0.113.7")
	})
}
