package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
)

// TestBootedExport boots an export of RouterOS and compares what the board's kernel has with what package router's test worked out for it.
func TestBootedExport(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	skipWithout(t, "malta")
	r := startRouter(t, "malta", func(o *machineOptions) {
		text, err := os.ReadFile("../console/testdata/exports/booted7.rsc")
		require.NoError(t, err)
		o.image = filepath.Join(imageDir, "malta-debug")
		o.commandLine = shellLine
		o.configuration = string(text)
		o.capture = false
	})
	r.expect(t, "network is ready")
	r.expect(t, "$")
	want, err := os.ReadFile("../router/testdata/booted7.save")
	require.NoError(t, err)
	var saved strings.Builder
	for _, table := range []string{"raw", "mangle", "nat", "filter"} {
		r.m.screen.forget()
		require.NoError(t, r.m.send("/sbin/iptables-save -t "+table+"; echo mark''s-end\r"))
		screen := strings.ReplaceAll(r.expect(t, "marks-end"), "\r", "")
		rules := regexp.MustCompile(`(?ms)^\*` + table + `\n.*?^COMMIT\n`).FindString(screen)
		require.NotEmpty(t, rules, screen)
		saved.WriteString(regexp.MustCompile(`(?m) \[\d+:\d+\]$`).ReplaceAllString(rules, ""))
	}
	assert.Equal(t, string(want), saved.String())
}
