package console

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestImport(t *testing.T) {
	for _, test := range []struct{ name, text, err, export, output string }{
		{name: "an export", text: "# of a router\n/system identity\nset name=old\n/ip firewall filter\nadd chain=input \\\n    action=drop\n\n",
			export: "/system identity\nset name=old\n/ip firewall filter\nadd chain=input action=drop\n"},
		{name: "on what is there", text: "/system identity set name=a\n/ip socks\nset port=1081\nprint\n",
			export: "/system identity\nset name=a\n/ip socks\nset port=1081\n",
			output: "                    enabled: no\n                       port: 1081\n    connection-idle-timeout: 2m\n            max-connections: 200\n"},
		{name: "of a version without rules for the log", text: "/system logging\nset remote-port=515 remote=10.0.0.1\n",
			export: "/system logging\nadd action=remote\n/system logging action\nset remote remote=10.0.0.1 remote-port=515\n"},
		{name: "nothing"},
		{name: "swapped names", text: "/interface ethernet\nset [find default-name=ether1] name=ether2\nset [ find default-name=ether2 ] name=ether1 mtu=1400\n",
			export: "/interface ethernet\nset [find default-name=ether1] name=ether2\nset [find default-name=ether2] name=ether1 mtu=1400\n"},
		{name: "a bad line", text: "/system identity set name=a\n/ip socks set prot=1\n",
			err: "expected end of command (line 2 column 15); expected one of enabled, port, connection-idle-timeout, max-connections"},
		{name: "a bad value", text: "/system identity set name=a\n\\\n/ip socks\nset port=0\n", err: "value of port out of range (1..65535) (line 4)"},
		{name: "a command", text: "/system identity set name=a\n/system reboot\n", err: "this command does not belong in an import (line 2)"},
		{name: "one that repeats", text: "/ip socks print interval=1s", err: "this command does not belong in an import (line 1)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := Default()
			session := Session{path: "ip dns"}
			result, err := session.Import(before, fullLive(), test.text)
			assert.Equal(t, Default(), before)
			assert.Equal(t, Session{path: "ip dns"}, session)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				assert.Equal(t, Result{Config: before}, result)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.export, Export(result.Config))
			assert.Equal(t, test.export != "", result.Changed)
			assert.Equal(t, test.output, result.Output)
		})
	}
}

// Any configuration can be imported on a router with the defaults.
func TestImportExport(t *testing.T) {
	want, err := Load("base", strings.NewReader(fuzzConfig))
	require.NoError(t, err)
	var session Session
	result, err := session.Import(Default(), fullLive(), Export(want))
	require.NoError(t, err)
	assert.Equal(t, Export(want), Export(result.Config))
}
