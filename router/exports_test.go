package router

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/internal/testnet"
)

// The kernel has exactly the rules that an export of RouterOS means, as iptables-save prints them: each rule of testdata/booted7.save was read against what RouterOS's words mean.
// Package qemu boots the same export.
func TestExportInKernel(t *testing.T) {
	h := testnet.New(t, "router")
	require.NoError(t, h.Enter())
	text, err := os.ReadFile("../console/testdata/exports/booted7.rsc")
	require.NoError(t, err)
	cfg, err := console.Load("booted7.rsc", strings.NewReader(string(text)))
	require.NoError(t, err)
	require.NoError(t, console.Validate(cfg, []string{"ether1", "ether2"}))
	f, err := firewall.New("iptables-legacy")
	require.NoError(t, err)
	require.NoError(t, f.Apply(cfg.Rules()))
	var saved strings.Builder
	for _, table := range []string{"raw", "mangle", "nat", "filter"} {
		out, err := exec.Command("iptables-legacy-save", "-t", table).CombinedOutput()
		require.NoError(t, err, "%s", out)
		saved.Write(out)
	}
	want, err := os.ReadFile("testdata/booted7.save")
	require.NoError(t, err)
	assert.Equal(t, string(want), plainRules(saved.String()))
}

// plainRules is what iptables-save prints without comments and counters, with the names of chains and sets as they come.
func plainRules(saved string) string {
	var b strings.Builder
	for line := range strings.Lines(saved) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(regexp.MustCompile(` \[\d+:\d+\]`).ReplaceAllString(line, ""))
		}
	}
	return b.String()
}
