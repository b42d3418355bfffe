package console

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/firewall"
)

func TestUnset(t *testing.T) {
	const config = "/interface ethernet set ether1 mtu=1400 comment=x\n/interface bridge add name=b mtu=1400\n" +
		"/ip dns set servers=10.0.0.1\n/ip socks access\nadd src-address=10.0.0.0/8 dst-port=10 comment=a\nadd dst-port=11\nadd dst-port=12\n"
	for _, test := range []struct{ line, export, err string }{
		{"/ip socks access unset 0 src-address", "add comment=a dst-port=10|add dst-port=11|add dst-port=12", ""},
		{"/ip socks access unset 0,1 dst-po", "add comment=a src-address=10.0.0.0/8|add|add dst-port=12", ""},
		{"/ip socks access unset [find dst-port=10] comment,src-address", "add dst-port=10|add dst-port=11|add dst-port=12", ""},
		{"/ip socks access unset value-name=dst-port numbers=2", "add comment=a dst-port=10 src-address=10.0.0.0/8|add dst-port=11|add", ""},
		{"/ip socks access unset [find dst-port=9] dst-port", "add comment=a dst-port=10 src-address=10.0.0.0/8|add dst-port=11|add dst-port=12", ""},
		{"/ip dns unset servers; /ip dns", "", ""},
		{"/interface ethernet unset ether1 mtu; /interface ethernet", "set ether1 comment=x", ""},
		{"/interface ethernet unset ether1 mtu,comment; /interface ethernet", "", ""},
		{"/interface bridge unset b mtu; /interface bridge", "add name=b", ""},
		{"/system logging action unset remote remote; /system logging action", "", ""},

		{"/ip socks access unset 0 action", "", "property action cannot be unset; expected src-address | src-port | dst-address | dst-port | comment"},
		{"/ip socks access unset 0 src", "", `ambiguous value of value-name, more than one possible value matches input; expected src-address | src-port, not "src"`},
		{"/ip socks access unset 0 dst-port,", "", `input does not match any value of value-name; expected src-address | src-port | dst-address | dst-port | comment, not ""`},
		{"/ip socks access unset 0", "", "missing value(s) of argument(s) value-name"},
		{"/ip socks access unset 3 dst-port", "", "no such item: 3"},
		{"/ip socks access unset 0 !dst-port", "", `input does not match any value of value-name; expected src-address | src-port | dst-address | dst-port | comment, not "!dst-port"`},
		{"/ip socks access unset 0 dst-port dst-address", "", "expected end of command (line 1 column 35)"},
		{"/ip socks unset port", "", "bad command name unset"}, // reset does it
		{"/interface bridge unset b name", "", "property name cannot be unset; expected mtu | admin-mac | comment"},
	} {
		t.Run(test.line, func(t *testing.T) {
			cfg, err := Load("config", strings.NewReader(config))
			require.NoError(t, err)
			line := test.line
			if strings.Contains(line, ";") {
				line += " export"
			} else {
				line += "; /ip socks access export"
			}
			result, err := new(Session).Execute(cfg, fullLive(), line)
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				return
			}
			require.NoError(t, err)
			_, lines, _ := strings.Cut(strings.TrimSuffix(result.Output, "\n"), "\n")
			assert.Equal(t, test.export, strings.ReplaceAll(lines, "\n", "|"))
		})
	}
}

// Everything that "!" unsets, unset does too, and nothing else.
func TestUnsetEverywhere(t *testing.T) {
	_, err := new(Session).Execute(Default(), fullLive(), "/ip service unset nosuch address")
	require.EqualError(t, err, "no such item: nosuch")
	for _, m := range menus() {
		has := slices.ContainsFunc(m.commands, func(c command) bool { return c.name == "unset" })
		assert.Equal(t, len(m.unsettable()) > 0, has, m.path)
		for _, p := range m.properties {
			if !has {
				break
			}
			cfg := Default()
			where := "/" + m.path
			if m.items != nil {
				m.items.add(&cfg)
				if m.isPorts {
					cfg.Links[0].Name, cfg.Links[0].MTU = "ether1", 1400
				}
			}
			numbers := ""
			switch {
			case m.isPorts:
				numbers = " ether1"
			case m.items != nil || m.fixed != nil:
				numbers = " 0"
			}
			one, err := new(Session).Execute(cfg, fullLive(), where+" set"+numbers+" !"+p.name)
			two, other := new(Session).Execute(cfg, fullLive(), where+" unset"+numbers+" "+p.name)
			assert.Equal(t, err == nil, other == nil, "%s %s: %v, %v", where, p.name, err, other)
			assert.True(t, one.Config.Equal(two.Config), "%s %s", where, p.name)
		}
	}
}

func TestPrintFrom(t *testing.T) {
	const config = "/interface bridge add name=b\n/ip address add address=10.0.0.1/8 interface=ether1\n/ip socks access\nadd dst-port=10\nadd dst-port=11\nadd dst-port=12\n"
	checkScreen(t, config, fullLive(), 0, `[admin@postern] > ip socks access
[admin@postern] ip socks access> print terse from=2,0
 0   dst-port=10 action=allow
 1   dst-port=12 action=allow
[admin@postern] ip socks access> print count-only from=0-1
2
[admin@postern] ip socks access> print terse from=1 where dst-port=10
[admin@postern] ip socks access> print terse from=0
no such item: 0
[admin@postern] ip socks access> print terse from=*502
 0   dst-port=11 action=allow
[admin@postern] ip socks access> remove 0
[admin@postern] ip socks access> print terse from=[find dst-port>=11]
 0   dst-port=12 action=allow
[admin@postern] ip socks access> print terse from=[find dst-port=99]
[admin@postern] ip socks access> print terse from=1
no such item: 1
[admin@postern] ip socks access> print from=*503 interval=1s
failure: from cannot be with interval or follow: each print numbers the items anew
[admin@postern] ip socks access> /interface print count-only from=ether1,b
2
[admin@postern] ip socks access> /interface ethernet print terse from=ether2
 0     name=ether2 default-name=ether2 mtu=1500 mac-address=52:54:00:12:34:57 arp=enabled auto-negotiation=yes
`)
	// What the system has made cannot be named by a number.
	var s Session
	live := queryLive()
	cfg, err := Load("config", strings.NewReader(config))
	require.NoError(t, err)
	_, err = s.Execute(cfg, live, "/ip address print where dynamic")
	require.NoError(t, err)
	_, err = s.Execute(cfg, live, "/ip address print from=0")
	require.EqualError(t, err, "failure: can not print dynamic item by its number: 0; expected where dynamic, and a condition about it")
}

// Every column of addresses can be compared with a network.
func TestWhereInEverywhere(t *testing.T) {
	cfg, err := Load("base", strings.NewReader(fuzzConfig))
	require.NoError(t, err)
	tried := 0
	for _, m := range menus() {
		if m.items == nil && m.rows == nil {
			continue
		}
		rows, err := Query(cfg, queryLive(), m.path, nil, nil)
		require.NoError(t, err)
		for _, r := range rows {
			for _, p := range r.Pairs {
				if p.Value.Type != Address && p.Value.Type != Prefix && !strings.HasSuffix(p.Name, "-address") || strings.HasSuffix(p.Name, "mac-address") || p.Value.text == "" {
					continue
				}
				tried++
				for network, want := range map[string]bool{"0.0.0.0/0": !strings.HasPrefix(p.Value.text, "!"), "255.255.255.255/32": p.Value.text == "255.255.255.255"} {
					result, err := new(Session).Execute(cfg, queryLive(), "/"+m.path+" print terse where "+p.Name+" in "+network)
					require.NoError(t, err)
					found := strings.Contains(result.Output, p.Name+"="+quote(p.Value.text))
					assert.Equal(t, want, found, "/%s %s=%s in %s", m.path, p.Name, p.Value.text, network)
				}
			}
		}
	}
	assert.Greater(t, tried, 10)
}

func TestGet(t *testing.T) {
	cfg, err := Load("cfg", strings.NewReader("/system identity set name=\"a b\"\n/ip address\nadd address=192.168.0.1/24 interface=ether2 comment=lan\nadd address=10.0.0.1/8 interface=ether1 disabled=yes\n"+
		"/ip firewall filter\nadd action=drop chain=input\nadd chain=input\n"))
	require.NoError(t, err)
	live := fullLive()
	live.Counters = func(firewall.Table) ([]firewall.Counter, error) {
		return []firewall.Counter{{Packets: 1, Bytes: 2}, {Packets: 3, Bytes: 4}}, nil
	}
	for _, test := range []struct{ line, output, err string }{
		{"/system identity get name", "a b\n", ""},
		{"/system identity get value-name=name", "a b\n", ""},
		{"/ip address get 0 address", "192.168.0.1/24\n", ""},
		{"/ip address get [find comment=lan] network", "192.168.0.0\n", ""},
		{"/ip address get 1 comment", "\n", ""},
		{"/ip address get 1 disabled", "yes\n", ""},
		{"/ip address get number=0 value-name=dis", "no\n", ""},
		{"/ip firewall filter get 1 packets", "3\n", ""},
		{"/ip firewall filter get 0 action", "drop\n", ""},
		{"/ip service get ssh port", "22\n", ""},
		{"/ip service get 0 disabled", "yes\n", ""},
		{"/ip service get nosuch port", "", "no such item: nosuch"},
		{"/interface get ether2 type", "ether\n", ""},
		{"/interface ethernet get ether2 mtu", "1500\n", ""},
		{"/ip socks get port", "1080\n", ""},
		{"/ip socks connections get 0 dst-address", "10.5.8.8:21\n", ""},
		{"/system ntp client get status", "synchronized\n", ""},
		{"/system resource get cpu-count", "0\n", ""},
		{"/ip address get 0,1 address", "", "invalid value for argument numbers; expected one item, not several"},
		{"/ip address get [find comment=x] address", "", "no such item: [find comment=x]"},
		{"/ip address get 5 address", "", "no such item: 5"},
		{"/ip address get 0", "", "missing value(s) of argument(s) value-name"},
		{"/ip address get 0 colour", "", `input does not match any value of value-name; expected network | address | interface | disabled | comment | invalid | dynamic, not "colour"`},
	} {
		result, err := new(Session).Execute(cfg, live, test.line)
		if test.err != "" {
			require.EqualError(t, err, test.err, test.line)
			continue
		}
		require.NoError(t, err, test.line)
		assert.Equal(t, test.output, result.Output, test.line)
		assert.False(t, result.Changed)
	}
	var s Session
	_, err = s.Execute(cfg, queryLive(), "/ip address print where dynamic")
	require.NoError(t, err)
	_, err = s.Execute(cfg, queryLive(), "/ip address get 0 address")
	require.EqualError(t, err, "failure: can not get dynamic item by its number: 0; expected print where dynamic")
	_, choices := new(Session).Complete(cfg, live, "/ip address get 0 ")
	assert.Contains(t, choiceNames(choices), "network")
}
