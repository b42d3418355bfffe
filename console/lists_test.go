package console

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/firewall"
)

const listConfig = `
/interface bridge add name=bridge
/interface bridge port add bridge=bridge interface=ether2
/interface list add name=WAN comment=defconf
/interface list add name=LAN comment=defconf
/interface list add name=both include=WAN,LAN
/interface list add name=rest include=all exclude=both
/interface list member add list=LAN interface=ether2
/interface list member add list=WAN interface=ether1
/interface list member add list=WAN interface=usb1 disabled=yes
/ip firewall filter add chain=input action=drop in-interface-list=!LAN
/ip firewall nat add chain=srcnat action=masquerade out-interface-list=WAN
`

// A port of a bridge counts as the bridge; a disabled member does not count.
func TestInterfaceSets(t *testing.T) {
	cfg, err := Load("lists", strings.NewReader(listConfig))
	require.NoError(t, err)
	require.NoError(t, Validate(cfg, []string{"ether1", "ether2", "usb1"}))
	rules := cfg.Rules()
	for name, want := range map[string]firewall.Interfaces{
		"all": {Not: true}, "none": {}, "dynamic": {}, "static": {Not: true},
		"WAN": {Names: []string{"ether1"}}, "LAN": {Names: []string{"bridge"}},
		"both": {Names: []string{"bridge", "ether1"}}, "rest": {Not: true, Names: []string{"bridge", "ether1"}},
	} {
		assert.Equal(t, want, rules.Lists[name], name)
	}
	assert.Equal(t, firewall.Interfaces{Not: true, Names: []string{"bridge"}}, rules.InInterfaces(rules.Filter[0]))
}

func TestInterfaceListLines(t *testing.T) {
	for _, c := range []struct{ name, line, want string }{
		{"a name that is taken", "/interface list add name=WAN", "failure: already have interface list with such name: WAN"},
		{"a built-in name", "/interface list add name=all", "failure: already have interface list with such name: all"},
		{"a name with a comma", "/interface list add name=a,b",
			`invalid value for argument name; expected name: 1..64 printable bytes, without "," and no "!" first, not "a,b"`},
		{"no such list", "/interface list member add list=DMZ interface=ether1",
			"/interface list member 3: input does not match any value of list: DMZ; expected all | none | dynamic | static | WAN | LAN | both | rest"},
		{"no such interface", "/interface list member add list=WAN interface=ether9",
			"/interface list member 3: input does not match any value of interface: ether9; expected ether1 | ether2 | usb1 | bridge"},
		{"a member twice", "/interface list member add list=LAN interface=ether2",
			"/interface list member 3: failure: already have such member: ether2 in LAN"},
		{"a rule by no list", "/ip firewall filter set 0 in-interface-list=!DMZ",
			"/ip firewall filter 0: input does not match any value of in-interface-list: !DMZ; expected all | none | dynamic | static | WAN | LAN | both | rest"},
		{"a list in use", "/interface list remove [find name=WAN]",
			"/interface list 1: input does not match any value of include: WAN,LAN; it is in use by /interface list 1 (both), " +
				"/interface list member 1 (WAN), /interface list member 2 (WAN), /ip firewall nat 0 (srcnat)"},
		{"lists in a circle", "/interface list set [find name=WAN] include=rest",
			"/interface list 0: include and exclude of WAN lead back to it; expected other lists"},
		{"the wrong chain", "/ip firewall nat set 0 in-interface-list=LAN", "in-interface-list=LAN: not known in chain=srcnat"},
		{"a bridge that is a member", "/interface bridge port remove 0; /interface list member set 0 interface=bridge; /interface bridge remove 0", "it is in use by /interface list member 0 (LAN)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := Load("lists", strings.NewReader(listConfig))
			require.NoError(t, err)
			next := cfg
			for line := range strings.SplitSeq(c.line, "; ") {
				result, fault := new(Session).Execute(next, Live{}, line)
				if err = fault; err != nil {
					break
				}
				next = result.Config
			}
			if err == nil {
				err = ValidateChange(cfg, next, []string{"ether1", "ether2", "usb1"})
			}
			assert.ErrorContains(t, err, c.want)
		})
	}
}

// What refers to a list follows its name, and an export says it all.
func TestInterfaceListRenamed(t *testing.T) {
	cfg, err := Load("lists", strings.NewReader(listConfig))
	require.NoError(t, err)
	session := new(Session)
	for _, line := range []string{"/interface list set [find name=WAN] name=outside", "/interface list set [find name=LAN] name=\"the house\"",
		"/interface ethernet set [find default-name=ether1] name=uplink"} {
		result, err := session.Execute(cfg, linkLive(), line)
		require.NoError(t, err, line)
		cfg = result.Config
	}
	require.NoError(t, Validate(cfg, []string{"ether1", "ether2", "usb1"}))
	text := Export(cfg)
	for _, want := range []string{
		"add comment=defconf name=outside\n", "add include=\"outside,the house\" name=both\n", "add interface=uplink list=outside\n",
		"add interface=ether2 list=\"the house\"\n", "in-interface-list=\"!the house\"", "out-interface-list=outside",
	} {
		assert.Contains(t, text, want)
	}
	again, err := Load("again", strings.NewReader(text))
	require.NoError(t, err)
	assert.True(t, again.Equal(cfg), text)
}
