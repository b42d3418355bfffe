package console

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestImport(t *testing.T) {
	for _, test := range []struct{ name, text, err, export, output string }{
		{name: "an export", text: "# of a router\n/system identity\nset name=old\n/ip firewall filter\nadd chain=input \\\n    action=drop\n\n",
			export: "/system identity\nset name=old\n/ip firewall filter\nadd action=drop chain=input\n"},
		{name: "on what is there", text: "/system identity set name=a\n/ip socks\nset port=1081\nprint\n",
			export: "/system identity\nset name=a\n/ip socks\nset port=1081\n",
			output: "                    enabled: no\n                       port: 1081\n    connection-idle-timeout: 2m\n            max-connections: 200\n"},
		{name: "of a version without rules for the log", text: "/system logging\nset remote-port=515 remote=10.0.0.1\n",
			export: "/system logging\nadd action=remote\n/system logging action\nset remote remote=10.0.0.1 remote-port=515\n"},
		{name: "nothing"},
		{name: "line ends of Windows", text: "/ip firewall filter\r\nadd chain=input \\\r\n    action=drop\r\n",
			export: "/ip firewall filter\nadd action=drop chain=input\n"},
		{name: "swapped names", text: "/interface ethernet\nset [find default-name=ether1] name=ether2\nset [ find default-name=ether2 ] name=ether1 mtu=1400\n",
			export: "/interface ethernet\nset [find default-name=ether1] name=ether2\nset [find default-name=ether2] mtu=1400 name=ether1\n"},
		{name: "a bad line", text: "/system identity set name=a\n/ip socks set prot=1\n",
			err: "expected end of command (line 2 column 15); expected one of enabled, port, connection-idle-timeout, max-connections, version, auth-method, udp"},
		{name: "a bad value", text: "/system identity set name=a\n\\\n/ip socks\nset port=0\n", err: "value of port out of range (1..65535) (line 4)"},
		{name: "a command", text: "/system identity set name=a\n/system reboot\n", err: "this command does not belong in an import (line 2)"},
		{name: "one that repeats", text: "/ip socks print interval=1s", err: "this command does not belong in an import (line 1)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := Default()
			session := Session{path: "ip dns"}
			result, err := session.Import(before, fullLive(), test.text, nil)
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
	result, err := session.Import(Default(), fullLive(), Export(want), nil)
	require.NoError(t, err)
	assert.Equal(t, Export(want), Export(result.Config))

	again, err := session.Import(result.Config, fullLive(), Export(want), func(Config) error { return errors.New("nothing has changed") })
	require.NoError(t, err, "where it came from")
	assert.False(t, again.Changed)
}

// What is there already is not added again; what is there once, is added a second time.
func TestImportAgain(t *testing.T) {
	const there = "/ip firewall filter\nadd action=log chain=input\nadd action=drop chain=input\n"
	before, err := Load("there", strings.NewReader("/ip address\nadd address=10.0.0.1/24 interface=ether1\n"+there))
	require.NoError(t, err)
	for _, test := range []struct{ name, text, export string }{
		{"a rule and another", "/ip firewall filter\nadd action=drop chain=input\nadd chain=input action=accept\n",
			there + "add chain=input\n"},
		{"a rule twice", "/ip firewall filter\nadd action=log chain=input\nadd action=log chain=input\n",
			there + "add action=log chain=input\n"},
		{"before another", "/ip firewall filter\nadd chain=input action=drop place-before=0\n",
			"/ip firewall filter\nadd action=drop chain=input\nadd action=log chain=input\nadd action=drop chain=input\n"},
		{"not quite the same", "/ip firewall filter\nadd chain=input action=drop disabled=yes\n",
			there + "add action=drop chain=input disabled=yes\n"},
		{"that was removed", "/ip firewall filter\nremove 1\nadd action=drop chain=input\n", there},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := new(Session).Import(before, fullLive(), test.text, nil)
			require.NoError(t, err)
			assert.Equal(t, "/ip address\nadd address=10.0.0.1/24 interface=ether1\n"+test.export, Export(result.Config))
		})
	}
}

// What only the whole configuration shows has a line too.
func TestImportCheck(t *testing.T) {
	before, err := Load("before", strings.NewReader("/ip address\nadd address=10.0.0.1/24 interface=ether1\n"))
	require.NoError(t, err)
	check := func(c Config) error { return Validate(c, []string{"ether1", "ether2"}) }
	for _, test := range []struct{ name, text, err string }{
		{"a rule", "/system identity set name=a\n/ip firewall filter\nadd chain=input\nadd chain=input \\\n    reject-with=tcp-reset\nadd action=drop chain=input\n",
			"/ip firewall: filter rule 1: reject-with=tcp-reset: needs action=reject (line 4)"},
		{"the first line", "/ip firewall filter add chain=input out-interface=ether1",
			"/ip firewall: filter rule 0: out-interface=ether1: not known in chain=input (line 1)"},
		{"an address that another line has", "/ip address\nadd address=10.0.1.1/24 interface=ether1\nadd address=10.0.0.1/16 interface=ether1\n\n",
			"address: address=10.0.0.1/16: expected each address once, ether1 has 10.0.0.1/24 already (line 3)"},
		{"a port of a bridge that comes later", "/interface bridge port\nadd bridge=b interface=ether2\n/interface bridge\nadd name=b\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := new(Session).Import(before, Live{}, test.text, check)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				assert.Equal(t, Result{Config: before}, result)
				return
			}
			require.NoError(t, err)
		})
	}
	bad := errors.New("whatever it is")
	_, err = new(Session).Import(before, Live{}, "/system identity set name=a", func(Config) error { return bad })
	require.EqualError(t, err, "whatever it is", "it is not of the import")
}

// A password's hash is made once, however often the lines run to find the one that is wrong.
func TestImportHashes(t *testing.T) {
	made := 0
	live := fullLive()
	live.HashPassword = func(_, _ string) (string, error) {
		made++
		return fmt.Sprintf("$%d", made), nil
	}
	text := "/ip socks users\n"
	for i := range 20 {
		text += fmt.Sprintf("add name=user%d password=secret\n", i)
	}
	check := func(c Config) error {
		if len(c.Socks.Users) > 13 {
			return errors.New("too many")
		}
		return nil
	}
	_, err := new(Session).Import(Default(), live, text, check)
	require.EqualError(t, err, "too many (line 15)")
	assert.Equal(t, 20, made)
	result, err := new(Session).Import(Default(), live, text, nil)
	require.NoError(t, err)
	hashes := map[string]bool{}
	for _, u := range result.Config.Socks.Users {
		hashes[u.Password] = true
	}
	assert.Len(t, hashes, 20, "each user has one of its own")
}

// What an export says is what there is after it has replaced all that was set, whatever that was.
func TestReplaceRandom(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	live := fullLive()
	live.Links = nil // all ports are there
	for range rounds(200) {
		saved, before := randomConfig(t, r), randomConfig(t, r)
		for _, text := range []string{Export(saved), exportMenus(menus(), &saved, "", "terse", "verbose", sensitiveWord.Name)} {
			result, err := new(Session).Replace(before, live, text, nil)
			require.NoError(t, err, text)
			assert.True(t, result.Changed)
			want := saved.Clone()
			want.keepUsers(before) // of which an export without passwords says nothing
			require.Equal(t, Export(want), Export(result.Config))
			require.Equal(t, settings(want), settings(result.Config))
		}
	}
}

func TestReplace(t *testing.T) {
	const there = "/ip address\nadd address=10.0.0.1/24 interface=ether1\n"
	before, err := Load("before", strings.NewReader("/user\nset admin password-hash=kept\n/interface bridge\nadd name=b\n"+there))
	require.NoError(t, err)
	check := func(c Config) error { return ValidateChange(before, c, []string{"ether1", "ether2"}) }
	for _, test := range []struct{ name, text, export, err string }{
		{"what is there is gone, but for the password", "/system identity set name=x\n", "/system identity\nset name=x\n/user\nset admin password-hash=kept\n", ""},
		{"a password", "/user set admin password-hash=other\n", "/user\nset admin password-hash=other\n", ""},
		{"what is there already", there, "/user\nset admin password-hash=kept\n" + there, ""},
		{"nothing", "# of a router\n\n", "", "failure: the lines set nothing that could replace what is set"},
		{"what is set otherwise", "/system identity set name=postern\n", "", "failure: the lines set nothing that could replace what is set"},
		{"a wrong line", "/system identity set name=x\n/ip socks set prot=1\n", "", "(line 2 column 15)"},
		{"a wrong whole", "/system identity set name=x\n/ip address\nadd address=10.0.0.1/24 interface=ether9\n", "",
			"/ip address 0: input does not match any value of interface: ether9; expected ether1 | ether2 (line 3)"},
		{"a bridge that was there", "/ip address\nadd address=10.0.0.1/24 interface=b\n", "", "(line 2)"},
		{"numbers of what was there", "/ip address\nset 0 interface=ether2\n", "", "no such item: 0 (line 2)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := new(Session).Replace(before, Live{HashPassword: fullLive().HashPassword}, test.text, check)
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				assert.Equal(t, Result{Config: before}, result)
				return
			}
			require.NoError(t, err)
			assert.True(t, result.Changed)
			assert.Equal(t, test.export, Export(result.Config))
		})
	}
	result, err := new(Session).Replace(before, Live{HashPassword: fullLive().HashPassword}, Export(before), func(Config) error { return errors.New("nothing has changed") })
	require.NoError(t, err)
	assert.False(t, result.Changed)
}
