package console

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/firewall"
)

func TestCheck(t *testing.T) {
	const config = `
/ip socks access
add src-address=192.168.0.2 dst-port=21 comment="the lab"
add dst-address=10.0.0.0/8 dst-port=21 disabled=yes
add src-port=1024-65535 dst-port=80 action=deny
add dst-port=1024-65535,80
`
	for _, test := range []struct {
		name, line, want string
		width            int
	}{
		{"first", "check src-address=192.168.0.2 dst-address=10.5.8.8 dst-port=21", ` 0   src-address=192.168.0.2 dst-port=21 action=allow
     -> matches
allow, by rule 0
`, 0},
		{"none", "check src-address=192.168.0.3 src-port=40000 dst-address=10.5.8.8 dst-port=22", ` 0   src-address=192.168.0.2 dst-port=21 action=allow
     -> src-address 192.168.0.3 does not match 192.168.0.2, dst-port 22 does not match 21
 1 X dst-address=10.0.0.0/8 dst-port=21 action=allow
     -> disabled
 2   src-port=1024-65535 dst-port=80 action=deny
     -> dst-port 22 does not match 80
 3   dst-port=1024-65535,80 action=allow
     -> dst-port 22 does not match 1024-65535,80
allow, because no rule matches
`, 0},
		{"by the client's port", "check src-address=192.168.0.3 src-port=1024 dst-address=10.5.8.8 dst-port=80", ` 0   src-address=192.168.0.2 dst-port=21 action=allow
     -> src-address 192.168.0.3 does not match 192.168.0.2, dst-port 80 does not match 21
 1 X dst-address=10.0.0.0/8 dst-port=21 action=allow
     -> disabled
 2   src-port=1024-65535 dst-port=80 action=deny
     -> matches
deny, by rule 2
`, 0},
		{"of unknown port, in 40 columns", "check src-address=192.168.0.3 dst-address=10.5.8.8 dst-port=80", ` 0   src-address=192.168.0.2
     dst-port=21 action=allow
     -> src-address 192.168.0.3 does
        not match 192.168.0.2, dst-port
        80 does not match 21
 1 X dst-address=10.0.0.0/8 dst-port=21
     action=allow
     -> disabled
 2   src-port=1024-65535 dst-port=80
     action=deny
     -> depends on src-port, which was
        not given
 3   dst-port=1024-65535,80
     action=allow
     -> matches
allow, by rule 3; but deny, by rule 2,
  if its src-port matches
`, 40},
		{"missing", "check src-address=192.168.0.3 dst-port=80", "missing value(s) of argument(s) dst-address\n", 0},
		{"bad", "check src-address=192.168.0.3/24 dst-address=1.1.1.1 dst-port=80",
			"invalid value for argument src-address; expected IP address, not \"192.168.0.3/24\"\n", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := Load("test", strings.NewReader(config))
			require.NoError(t, err)
			r := router{cfg: cfg, session: Session{path: "ip socks access", Width: test.width}}
			screen := "[admin@postern] ip socks access> " + test.line + "\n" + test.want
			assert.Equal(t, screen, r.replay(t, screen))
		})
	}
}

func TestExposure(t *testing.T) {
	const access = "\n/ip socks access add src-address=192.168.0.0/24\n"
	for _, test := range []struct {
		name, config string
		warned       bool
	}{
		{"disabled", "/ip socks set enabled=no", false},
		{"open", "", true},
		{"version 5", "/ip socks set version=5", true},
		{"version 5 with passwords", "/ip socks set auth-method=password version=5\n/ip socks users add name=a password-hash=x", false},
		{"passwords that nobody is asked for", "/ip socks set auth-method=password", true},
		{"access list without deny", access, true},
		{"access list that ends with deny", access + "/ip socks access add action=deny", false},
		{"deny of some", access + "/ip socks access add action=deny src-address=10.0.0.0/8", true},
		{"deny of 0.0.0.0/0", access + "/ip socks access add action=deny src-address=0.0.0.0/0", false},
		{"deny out of force", access + "/ip socks access add action=deny disabled=yes", true},
		{"deny before a rule out of force", access + "/ip socks access add action=deny; /ip socks access add disabled=yes", false},
		{"deny in the middle", "/ip socks access add action=deny" + access, true},
		{"the default configuration", `/ip firewall filter
add chain=input action=accept connection-state=established,related
add chain=input action=accept in-interface=ether1 protocol=icmp icmp-options=8:0
add chain=input action=drop in-interface=!ether2`, false},
		{"dropped", "/ip firewall filter add chain=input action=drop in-interface=ether1 protocol=tcp dst-port=1080", false},
		{"rejected", "/ip firewall filter add chain=input action=reject protocol=!udp dst-port=1000-2000", false},
		{"dropped for new ones", "/ip firewall filter add chain=input action=drop connection-state=invalid,new", false},
		{"dropped for others", "/ip firewall filter add chain=input action=drop connection-state=!new", true},
		{"dropped unless translated", "/ip firewall filter add chain=input action=drop connection-nat-state=!dstnat", false},
		{"dropped if translated", "/ip firewall filter add chain=input action=drop connection-nat-state=dstnat", true},
		{"dropped by a port that is a bridge's", "/interface bridge add name=b\n/interface bridge port add bridge=b interface=ether1\n" +
			"/ip firewall filter add chain=input action=drop in-interface=ether1", false},
		{"dropped by the port's bridge", "/interface bridge add name=b\n/interface bridge port add bridge=b interface=ether1\n" +
			"/ip firewall filter add chain=input action=drop in-interface=b", false},
		{"dropped by another port", "/ip firewall filter add chain=input action=drop in-interface=ether2", true},
		{"dropped at another port", "/ip firewall filter add chain=input action=drop dst-port=1081 protocol=tcp", true},
		{"another protocol dropped", "/ip firewall filter add chain=input action=drop protocol=udp", true},
		{"dropped from some", "/ip firewall filter add chain=input action=drop src-address=10.0.0.0/8", true},
		{"drop out of force", "/ip firewall filter add action=drop chain=input disabled=yes", true},
		{"drop of what passes through", "/ip firewall filter add action=drop chain=forward", true},
		{"logged, then dropped", "/ip firewall filter add action=log chain=input; /ip firewall filter add action=drop chain=input", false},
		{"accepted, then dropped", "/ip firewall filter add chain=input; /ip firewall filter add action=drop chain=input", true},
		{"some accepted, then dropped", "/ip firewall filter add chain=input src-address=10.0.0.1; /ip firewall filter add action=drop chain=input", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := Load("test", strings.NewReader("/ip socks set enabled=yes\n"+test.config))
			require.NoError(t, err)
			result, err := new(Session).Execute(cfg, testLive(), "/ip socks print")
			require.NoError(t, err)
			assert.Equal(t, test.warned, strings.Contains(result.Output, ";;; warning"), result.Output)
		})
	}
	cfg := Default()
	cfg.Socks.Enabled = true
	result, err := new(Session).Execute(cfg, Live{}, "/ip socks print")
	require.NoError(t, err)
	assert.NotContains(t, result.Output, "warning", "of a machine that is not known")
	session := Session{Width: 80}
	result, err = session.Execute(cfg, testLive(), "/ip socks print")
	require.NoError(t, err)
	assert.Equal(t, `                    enabled: yes
                       port: 1080
    connection-idle-timeout: 2m
            max-connections: 200
;;; warning: anyone who reaches ether1 can use this server: no filter rule of
;;; chain=input drops dst-port=1080 from there, and the access list does not
;;; end with action=deny
`, result.Output)
}

// Whether strangers are kept out can be decided in a chain that rules jump to.
func TestClosedByChains(t *testing.T) {
	for _, test := range []struct {
		name, rules string
		closed      bool
	}{
		{"a chain that drops", "add chain=input action=jump jump-target=x in-interface=ether1\nadd chain=x action=drop", true},
		{"a chain that drops others", "add chain=input action=jump jump-target=x in-interface=ether1\nadd chain=x action=drop protocol=udp", false},
		{"packets that do not come there", "add chain=input action=jump jump-target=x in-interface=ether2\nadd chain=x action=drop", false},
		{"a chain that returns", "add chain=input action=jump jump-target=x\nadd chain=x action=return in-interface=ether1\nadd chain=x action=drop", false},
		{"a chain that returns to a rule that drops", "add chain=input action=jump jump-target=x\nadd chain=x action=return in-interface=ether1\nadd action=drop chain=input", true},
		{"a chain that some packets return from", "add chain=input action=jump jump-target=x\nadd chain=x action=return protocol=tcp src-address=10.0.0.0/8\nadd chain=x action=drop", false},
		{"a chain that accepts those that do not return", "add chain=input action=jump jump-target=x\nadd chain=x action=return src-address=10.0.0.0/8\nadd chain=x action=accept\nadd action=drop chain=input", false},
		{"a chain that drops those that do not return, and then all", "add chain=input action=jump jump-target=x\nadd chain=x action=return src-address=10.0.0.0/8\nadd chain=x action=drop\nadd action=drop chain=input", true},
		{"a chain that leads to one that drops, behind a return", "add chain=input action=jump jump-target=x\nadd chain=x action=return src-address=10.0.0.0/8\nadd chain=x action=jump jump-target=y\nadd chain=y action=drop", false},
		{"a chain that leads to one that accepts, behind a return", "add chain=input action=jump jump-target=x\nadd chain=x action=return src-address=10.0.0.0/8\nadd chain=x action=jump jump-target=y\nadd chain=y action=accept\nadd action=drop chain=input", false},
		{"a chain that returns what it does not take", "add chain=input action=jump jump-target=x\nadd chain=x action=return protocol=udp\nadd chain=x action=drop", true},
		{"a chain that returns other packets", "add chain=input action=jump jump-target=x\nadd chain=x action=return protocol=tcp tcp-flags=ack\nadd chain=x action=drop", true},
		{"a chain that accepts", "add chain=input action=jump jump-target=x\nadd chain=x action=accept\nadd action=drop chain=input", false},
		{"two chains", "add chain=input action=jump jump-target=x\nadd chain=x action=jump jump-target=y\nadd chain=y action=log\nadd chain=x action=reject", true},
		{"not these ports", "add chain=input action=drop protocol=tcp port=!1080", false},
		{"these ports", "add chain=input action=drop protocol=tcp port=1080", true},
		{"first packets", "add chain=input action=drop protocol=tcp tcp-flags=syn,!ack", true},
		{"other packets", "add chain=input action=drop protocol=tcp tcp-flags=!syn", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := Load("cfg", strings.NewReader("/ip firewall filter\n"+test.rules+"\n"))
			require.NoError(t, err)
			require.NoError(t, Validate(c, []string{"ether1", "ether2"}))
			assert.Equal(t, test.closed, closedFrom(c.Rules(), "ether1", 1080))
		})
	}
}

// Rules that are not checked yet, as those of a line that shows the warning too, may lead back, or lead on in
// more ways than can be followed.
func TestClosedByUncheckedChains(t *testing.T) {
	rules := []firewall.Rule{{Chain: "input", Action: "jump", JumpTarget: "input"}}
	for i := range 127 {
		for range 2 {
			rules = append(rules, firewall.Rule{Chain: fmt.Sprint(i), Action: "jump", JumpTarget: fmt.Sprint(i + 1)})
		}
	}
	rules = append(rules, firewall.Rule{Chain: "127", Action: "jump", JumpTarget: "0"}, firewall.Rule{Chain: "input", Action: "jump", JumpTarget: "0"})
	assert.False(t, closedFrom(firewall.Config{Filter: rules}, "ether1", 1080))
	assert.True(t, closedFrom(firewall.Config{Filter: append(rules, firewall.Rule{Chain: "input", Action: "drop"})}, "ether1", 1080))
}
