package console

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
)

const listedConfig = `
/ip firewall address-list
add list=friends address=10.0.0.0/24
add list=friends address=10.0.1.1-10.0.1.9 comment="the branch"
add list="bad ones" address=192.0.2.1
add list=friends address=10.9.9.9 disabled=yes
/ip firewall filter
add chain=input action=drop src-address-list=!friends
add chain=forward action=jump jump-target=from-outside
add chain=from-outside action=drop dst-address-list="bad ones"
/ip firewall nat
add chain=srcnat action=masquerade dst-address-list=!absent
`

func TestAddressLists(t *testing.T) {
	cfg, err := Load("cfg", strings.NewReader(listedConfig))
	require.NoError(t, err)
	require.NoError(t, Validate(cfg, nil))
	address := func(s string) match.Addresses {
		a, err := match.ParseAddresses(s)
		require.NoError(t, err)
		return a
	}
	rules := cfg.Rules()
	assert.Equal(t, map[string][]match.Addresses{
		"friends": {address("10.0.0.0/24"), address("10.0.1.1-10.0.1.9")}, "bad ones": {address("192.0.2.1")},
	}, rules.AddressLists)
	assert.Equal(t, "!friends", rules.Filter[0].SrcAddressList)
	assert.Equal(t, "bad ones", rules.Filter[2].DstAddressList)
	assert.Equal(t, "!absent", rules.NAT[0].DstAddressList)

	for _, test := range []struct{ line, want, err string }{
		{"/ip firewall address-list add list=a address=example.com", "", `invalid value for argument address; expected IP address, IP address/netmask or IP address-IP address, not "example.com": no name is looked up for a list`},
		{"/ip firewall address-list add list=a address=!10.0.0.1", "", `invalid value for argument address; expected IP address, IP address/netmask or IP address-IP address, not "!10.0.0.1": "!" is not possible here`},
		{`/ip firewall address-list add list=a address=""`, "", `invalid value for argument address; expected IP address, IP address/netmask or IP address-IP address, not "": an entry needs an address`},
		{"/ip firewall address-list add list=a", "", "missing value(s) of argument(s) address"},
		{"/ip firewall address-list add list=!a address=10.0.0.1", "", `invalid value for argument list; expected name of the list: 1..64 bytes, not "!a"`},
		{"/ip firewall address-list add list=a address=10.0.0.1 timeout=4w", "", `value of timeout out of range (1s..3w3d20h31m23s)`},
		{"/ip firewall address-list add list=a address=10.0.0.1 timeout=soon", "", `invalid value for argument timeout; expected time: 1s..3w3d20h31m23s, not "soon"`},
		{"/ip firewall filter add chain=input action=add-src-to-address-list address-list=a address-list-timeout=none-static", "",
			`invalid value for argument address-list-timeout; expected none-dynamic | time: 1s..3w3d20h31m23s, not "none-static": what packets cause is not kept over a restart`},
		{"/ip firewall filter add chain=input src-address-list=!", "", `invalid value for argument src-address-list; expected [!]name of an address list, not "!"`},
		{"/ip firewall address-list print count-only where address in 10.0.0.0/16 and !disabled", "2\n", ""},
		{"/ip firewall address-list remove [find list=friends]; /ip firewall address-list print count-only", "1\n", ""},
		{"/ip firewall address-list add list=all address=0.0.0.0/0; /ip firewall address-list print count-only", "5\n", ""},
	} {
		live := fullLive()
		live.Filled = nil
		result, err := new(Session).Execute(cfg, live, test.line)
		if test.err != "" {
			require.EqualError(t, err, test.err)
			continue
		}
		require.NoError(t, err, test.line)
		assert.Equal(t, test.want, result.Output, test.line)
	}
	for line, want := range map[string][]string{
		"/ip firewall filter add chain=input src-address-list=": {"friends", "bad ones"},
		"/ip firewall address-list add list=f":                  {"friends"},
		"/ip firewall filter add chain=input jump-target=":      {"from-outside"},
		"/ip firewall filter add chain=f":                       {"forward", "from-outside"},
	} {
		_, choices := new(Session).Complete(cfg, fullLive(), line)
		assert.Equal(t, want, choiceNames(choices), line)
	}
}

// The lists are as long as package firewall takes them, and an export of them comes back.
func TestManyListedAddresses(t *testing.T) {
	var text strings.Builder
	text.WriteString("/ip firewall address-list\n")
	for i := range 1000 {
		text.WriteString("add list=many address=10.0." + strconv.Itoa(i/250) + "." + strconv.Itoa(i%250) + "\n")
	}
	result, err := new(Session).Import(Default(), Live{}, text.String(), func(c Config) error { return Validate(c, nil) })
	require.NoError(t, err)
	again, err := new(Session).Import(result.Config, Live{}, Export(result.Config), func(c Config) error { return Validate(c, nil) })
	require.NoError(t, err)
	assert.False(t, again.Changed)
	_, err = new(Session).Execute(result.Config, Live{}, "/ip firewall address-list add list=many address=10.1.1.1")
	require.EqualError(t, err, "failure: no more than 1000 items in /ip firewall address-list")
	seen := map[ID]bool{}
	for list := range itemLists {
		for i := range itemLists[list].max {
			id := placeID(list, i)
			assert.False(t, seen[id], "item %d of list %d", i, list)
			seen[id] = true
		}
	}
	assert.False(t, seen[newID()])
}

// Nobody adds an entry of a list, or a key, that is there already: who removes one of two would take it for gone. A kept
// configuration may have it.
func TestTwice(t *testing.T) {
	const (
		key   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2"
		other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPhJUyyKRr1cjQmTp7FnpVXgFJnZfy9Phe1Sbs1g8VV8"
	)
	cfg, err := Load("cfg", strings.NewReader(listedConfig+"/ip firewall address-list add list=twice address=10.1.1.1\n/ip firewall address-list add list=twice address=10.1.1.1\n"+
		"/user ssh-keys add user=admin key=\""+key+" me@home\"\n"))
	require.NoError(t, err)
	for _, test := range []struct{ line, err string }{
		{"/ip firewall address-list add list=friends address=10.0.0.0/24", "/ip firewall address-list 6: failure: already have such entry: 10.0.0.0/24 in friends"},
		{"/ip firewall address-list add list=friends address=10.9.9.9 comment=new", "/ip firewall address-list 6: failure: already have such entry: 10.9.9.9 in friends"},
		{"/ip firewall address-list set 2 list=friends address=10.0.0.0/24", "/ip firewall address-list 2: failure: already have such entry: 10.0.0.0/24 in friends"},
		{"/ip firewall address-list add list=twice address=10.1.1.1", "/ip firewall address-list 6: failure: already have such entry: 10.1.1.1 in twice"},
		{"/ip firewall address-list add list=friends address=10.0.0.0/25", ""},
		{"/ip firewall address-list add list=others address=10.0.0.0/24", ""},
		{"/ip firewall address-list remove 5", ""},
		{"/user ssh-keys add user=admin key=\"" + key + " other name\"", "/user ssh-keys 1: failure: already have such key of user admin"},
		{"/user ssh-keys add user=admin key=\"" + other + "\"", ""},
	} {
		live := fullLive()
		live.Filled = nil
		result, err := new(Session).Execute(cfg, live, test.line)
		require.NoError(t, err, test.line)
		err = ValidateChange(cfg, result.Config, nil)
		if test.err != "" {
			require.EqualError(t, err, test.err)
			continue
		}
		require.NoError(t, err, test.line)
	}
}

// A rule that is refused has a number in the error if it was there before.
func TestRefusedRules(t *testing.T) {
	cfg, err := Load("cfg", strings.NewReader(listedConfig))
	require.NoError(t, err)
	const nowhere = "jump-target=typo: no rule has chain=typo; expected a chain that has rules"
	for line, want := range map[string]string{
		"/ip firewall filter add chain=input action=jump jump-target=typo":                "/ip firewall filter, the new rule: " + nowhere,
		"/ip firewall filter add chain=input action=jump jump-target=typo place-before=0": "/ip firewall filter, the new rule: " + nowhere,
		"/ip firewall nat add chain=srcnat action=jump jump-target=typo":                  "/ip firewall nat, the new rule: " + nowhere,
		"/ip firewall filter set 1 jump-target=typo":                                      "/ip firewall: filter rule 1: " + nowhere,
		"/ip firewall nat set 0 action=jump jump-target=typo":                             "/ip firewall: nat rule 0: " + nowhere,
	} {
		result, err := new(Session).Execute(cfg, fullLive(), line)
		require.NoError(t, err, line)
		assert.EqualError(t, ValidateChange(cfg, result.Config, nil), want, line)
	}
}

// An entry with a timeout ends, is shown as dynamic, and is in no export. What rules have added is among the rows.
func TestTemporaryAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, err := Load("cfg", strings.NewReader(listedConfig))
		require.NoError(t, err)
		kept := Export(cfg)
		live := fullLive()
		s := new(Session)
		run := func(line string) string {
			t.Helper()
			result, err := s.Execute(cfg, live, line)
			require.NoError(t, err, line)
			cfg = result.Config
			return result.Output
		}
		run("/ip firewall address-list add list=friends address=10.7.7.7 timeout=1h30m; /ip firewall address-list add list=friends address=10.8.0.0/16 timeout=1m")
		assert.Equal(t, kept, Export(cfg))
		assert.Equal(t, map[string][]firewall.Temporary{"friends": {
			{Addresses: cfg.AddressLists[4].Address, Until: time.Now().Add(90 * time.Minute)}, {Addresses: cfg.AddressLists[5].Address, Until: time.Now().Add(time.Minute)},
		}}, cfg.Rules().Temporary)
		time.Sleep(time.Second)
		assert.Equal(t, `Flags: X - disabled, D - dynamic
 #   LIST             ADDRESS            TIMEOUT
 0 D knocks           203.0.113.9        59s
 1 D knocks           203.0.113.10
 2   friends          10.0.0.0/24
 3   ;;; the branch
     friends          10.0.1.1-10.0.1.9
 4   bad ones         192.0.2.1
 5 X friends          10.9.9.9
 6 D friends          10.7.7.7           1h29m59s
 7 D friends          10.8.0.0/16        59s
`, run("/ip firewall address-list print"))
		assert.Equal(t, "4\n", run("/ip firewall address-list print count-only where dynamic"))
		_, err = s.Execute(cfg, live, "/ip firewall address-list set 0 list=friends")
		require.EqualError(t, err, "failure: can not change dynamic item: 0")

		run("/ip firewall address-list set 7 timeout=1h")
		left, next := cfg.ExpireAddresses(time.Now().Add(2 * time.Minute))
		assert.Len(t, left.AddressLists, 6)
		assert.Equal(t, time.Now().Add(time.Hour), next)
		left, next = cfg.ExpireAddresses(time.Now().Add(time.Hour))
		assert.Len(t, left.AddressLists, 5)
		assert.Equal(t, time.Now().Add(90*time.Minute-time.Second), next)
		assert.Len(t, cfg.AddressLists, 6)
		left, next = left.ExpireAddresses(time.Now().Add(2 * time.Hour))
		assert.Equal(t, kept, Export(left))
		assert.Zero(t, next)

		result, err := s.Execute(cfg, live, "/ip firewall address-list remove 1,6; /ip firewall address-list print count-only")
		require.NoError(t, err)
		assert.Equal(t, "6\n", result.Output)
		assert.Equal(t, []firewall.Filled{testFilled()[1]}, result.Action.RemoveFilled)
		assert.Len(t, result.Config.AddressLists, 5)
		run("/ip firewall address-list unset 7 timeout")
		live.Filled = func(limit int) ([]firewall.Filled, int, error) {
			assert.Equal(t, maxFilled, limit)
			return testFilled(), 3, nil
		}
		assert.Contains(t, run("/ip firewall address-list print"), "\n;;; 3 more addresses that rules have added are left out\n")
		assert.Equal(t, strings.Replace(kept, "/ip firewall filter\n", "add address=10.8.0.0/16 list=friends\n/ip firewall filter\n", 1), Export(cfg))
	})
}

// Rules may add to so many sets, each counted once for each timeout. What an earlier version has kept, which counted lists, still holds.
func TestFilledTimeoutsAreBounded(t *testing.T) {
	ports := []string{"ether1", "ether2"}
	run := func(cfg Config, line string) (Config, error) {
		result, err := new(Session).Execute(cfg, fullLive(), line)
		require.NoError(t, err)
		return result.Config, ValidateChange(cfg, result.Config, ports)
	}
	lines := ""
	for i := range 17 {
		lines += fmt.Sprintf("/ip firewall filter add chain=input action=add-src-to-address-list address-list=shut address-list-timeout=%dm\n", i+1)
	}
	const refused = "/ip firewall: address lists: expected at most 16 lists that rules add to, each counted once for each address-list-timeout, got "
	result, err := new(Session).Import(Default(), fullLive(), lines, nil)
	require.NoError(t, err)
	kept := result.Config
	assert.NoError(t, Validate(kept, ports))
	assert.EqualError(t, ValidateChange(Default(), kept, ports), refused+"17")
	_, err = run(kept, "/ip firewall filter set 0 comment=x")
	assert.NoError(t, err)
	_, err = run(kept, "/ip firewall filter add chain=input action=add-src-to-address-list address-list=shut address-list-timeout=18m")
	assert.EqualError(t, err, refused+"18")
	fewer, err := run(kept, "/ip firewall filter remove 0,1")
	assert.NoError(t, err)
	_, err = run(fewer, "/ip firewall filter set 0 address-list=other")
	assert.NoError(t, err)
}
