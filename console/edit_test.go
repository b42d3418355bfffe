package console

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEditArguments(t *testing.T) {
	cfg := Default()
	live := fullLive()
	live.Requests = append(live.Requests, Edit)
	var s Session
	run := func(line string) Result {
		t.Helper()
		result, err := s.Execute(cfg, live, line)
		require.NoError(t, err, line)
		cfg = result.Config
		return result
	}
	run("/ip firewall filter add chain=input comment=\"the first\"; /ip firewall filter add chain=forward comment=second dst-port=80 protocol=tcp")
	run("/ip firewall filter print where !dynamic")
	for _, test := range []struct{ line, property, value, new, then string }{
		{"/ip firewall filter edit 1 comment", "comment", "second", "two \"words\" $x", "/ip firewall filter set 1 comment=\"two \\\"words\\\" \\$x\""},
		{"/ip firewall filter edit number=1 value-name=dst-port", "dst-port", "80", "", "/ip firewall filter set 1 !dst-port"},
		{"/ip firewall filter edit [find chain=input] comm", "comment", "the first", "", "/ip firewall filter set [find chain=input] !comment"},
		{"/ip socks edit port", "port", "1080", "1081", "/ip socks set port=1081"},
		{"/interface ethernet edit ether2 mtu", "mtu", "", "1400", "/interface ethernet set ether2 mtu=1400"},
	} {
		result := run(test.line)
		assert.Equal(t, Edit, result.Request, test.line)
		assert.False(t, result.Changed, test.line)
		assert.Equal(t, test.property+" "+test.value, result.Edit.Property+" "+result.Edit.Value, test.line)
		assert.Equal(t, test.then, result.Edit.Line(test.new), test.line)
		run(result.Edit.Line(test.new))
	}
	for line, want := range map[string]string{
		"/ip firewall filter edit 0,1 comment": "invalid value for argument numbers; expected one item, not several",
		"/ip firewall filter edit 9 comment":   "no such item: 9",
		"/user edit admin password":            "failure: password is not shown; set changes it",
		"/ip socks edit color":                 "input does not match any value of value-name",
	} {
		_, err := s.Execute(cfg, live, line)
		assert.ErrorContains(t, err, want, line)
	}
	_, err := s.Import(cfg, live, "/ip socks edit port", nil)
	assert.ErrorContains(t, err, "this command does not belong in an import")
	live.Denied = MayWrite
	_, err = s.Execute(cfg, live, "/ip socks edit port")
	assert.ErrorIs(t, err, ErrNotPermitted)
}
