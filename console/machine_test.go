package console

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What Ansible, RANCID, Oxidized and Home Assistant type first. Those of the first two fail on
// a menu that is not there, and Oxidized looks for the first digit of installed-version.
func TestMachineScreens(t *testing.T) {
	resource := Resource{Version: "v1.2-3-gabc", Date: time.Date(2026, 11, 29, 17, 0, 0, 0, time.UTC)}
	for _, test := range []struct{ line, screen string }{
		{"/system routerboard print", "       routerboard: no\n"},
		{"/system routerboard print without-paging", "       routerboard: no\n"},
		{"/system routerboard get routerboard", "no\n"},
		{"/system package print detail without-paging", "Flags: X - disabled\n" +
			" 0   name=postern version=v1.2-3-gabc build-time=\"2026-11-29 17:00:00\"\n"},
		{"/system package update print", "                url:\n            channel: stable\n  installed-version: 7.16\n    postern-version: v1.2-3-gabc\n"},
		{"/system health print", " # NAME             VALUE TYPE\n"},
		{"/system identity print without-paging", "  name: postern\n"},
		{"/system resource print without-paging count-only", ""},
	} {
		live := Live{Resource: func() (Resource, error) { return resource, nil }}
		session := Session{Width: 80}
		result, err := session.Execute(Default(), live, test.line)
		if test.screen == "" {
			assert.Error(t, err, test.line)
			continue
		}
		require.NoError(t, err, test.line)
		assert.Equal(t, test.screen, result.Output, test.line)
	}
	rows, err := Query(Default(), Live{Resource: func() (Resource, error) { return Resource{Version: "unknown"}, nil }}, "/system/package", nil, nil)
	require.NoError(t, err)
	require.Len(t, rows, 1)
	_, dated := rows[0].Get("build-time")
	assert.False(t, dated, "a date that nobody knows")
	_, err = (&Session{}).Execute(Default(), Live{}, "/system package print")
	assert.ErrorContains(t, err, "bad command name package")
}

// Every print takes without-paging.
func TestWithoutPaging(t *testing.T) {
	for _, m := range menus() {
		for _, c := range m.commands {
			if c.name == "print" {
				assert.Contains(t, c.words, pagingWord, m.path)
			}
		}
	}
}
