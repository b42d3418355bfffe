package sshd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/netcfg"
)

// managed is a router with a configuration, for programs that manage RouterOS by its screens.
func managed(t *testing.T) *rig {
	g := newRig(t, nil)
	g.mu.Lock()
	defer g.mu.Unlock()
	var err error
	g.config, err = console.Load("test", strings.NewReader("/system identity set name=gate\n/interface bridge add name=bridge\n"+
		"/ip address add address=192.168.0.1/24 interface=ether2 comment=\"the LAN\"\n/ip firewall filter add chain=input action=drop in-interface=ether1\n"))
	require.NoError(t, err)
	g.live.Resource = func() (console.Resource, error) {
		return console.Resource{Uptime: 90 * time.Second, FreeMemory: 20_000_000, TotalMemory: 1 << 25, CPULoad: 0.0333, CPUCount: 1,
			Architecture: "mips", Board: "malta", Version: "v1.2"}, nil
	}
	g.live.Now = time.Now // the head of an export has the time
	g.live.Links = func() ([]netcfg.LinkState, error) {
		return []netcfg.LinkState{
			{Name: "ether1", Type: netcfg.Ether, Present: true, Up: true, Running: true, MTU: 1500},
			{Name: "ether2", Type: netcfg.Ether, Present: true, Up: true, Running: true, MTU: 1500},
		}, nil
	}
	g.live.Discovered = func() ([]console.DiscoveredNeighbor, error) { return nil, nil }
	return g
}

// RANCID keeps the configuration, and what it keeps is the same as long as nothing has changed.
func TestRANCID(t *testing.T) {
	const program = "/usr/lib/rancid/bin/rancid"
	e2e.Needs(t, "ssh", program)
	g := managed(t)
	home := t.TempDir()
	client := filepath.Join(home, "ssh")
	require.NoError(t, os.WriteFile(client, []byte("#!/bin/sh\nexec ssh -F none -o PubkeyAuthentication=no -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile="+
		home+"/hosts \"$@\"\n"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(home, ".cloginrc"), fmt.Appendf(nil, "add user * admin\nadd password * {{%s}}\nadd method * ssh:%d\nadd sshcmd * %s\n",
		secret, g.port, client), 0o600))
	keep := func() string {
		cmd := exec.CommandContext(t.Context(), program, "-d", "-t", "mikrotik", "127.0.0.1")
		cmd.Dir = home
		cmd.Env = append(os.Environ(), "HOME="+home, "PATH=/usr/lib/rancid/bin:"+os.Getenv("PATH"), "TERM=network", "SSH_AUTH_SOCK=")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		text, err := os.ReadFile(filepath.Join(home, "127.0.0.1.new"))
		require.NoError(t, err, string(out))
		return string(text)
	}
	kept := keep()
	assert.Contains(t, kept, "RANCID-CONTENT-TYPE: mikrotik")
	assert.Contains(t, kept, "/ip firewall filter\nadd action=drop chain=input in-interface=ether1\n")
	assert.NotContains(t, kept, "by RouterOS", "the time is left out")
	assert.Equal(t, kept, keep())
}

// Ansible types commands and reads the screens.
func TestAnsible(t *testing.T) {
	e2e.Needs(t, "ansible-playbook", "/usr/lib/python3/dist-packages/paramiko", "/usr/lib/python3/dist-packages/ansible_collections/community/routeros")
	g := managed(t)
	cmd := exec.CommandContext(t.Context(), "ansible-playbook", "-i", "router,", "-e", fmt.Sprintf("ansible_host=127.0.0.1 ansible_port=%d", g.port),
		"-e", `{"ansible_password": "`+secret+`"}`, "testdata/playbook.yml")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "LC_ALL=C.UTF-8", "ANSIBLE_NOCOLOR=1", "ANSIBLE_HOST_KEY_CHECKING=False", "SSH_AUTH_SOCK=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Regexp(t, `\sfailed=0\s`, string(out))
	g.mu.Lock()
	defer g.mu.Unlock()
	assert.Contains(t, console.Export(g.config), "203.0.113.7")
}

// Netmiko sends commands to a shell and reads up to the prompt.
func TestNetmiko(t *testing.T) {
	e2e.Needs(t, "/usr/bin/python3", "/usr/lib/python3/dist-packages/netmiko")
	g := managed(t)
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-W", "ignore", "testdata/manage.py", "127.0.0.1", fmt.Sprint(g.port), secret, "gate")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "SSH_AUTH_SOCK=")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(t, err, errs.String())
	want, err := os.ReadFile("testdata/manage.txt")
	require.NoError(t, err)
	assert.Equal(t, strings.ReplaceAll(string(want), "IDENTITY", "gate"), string(out))
}
