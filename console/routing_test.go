package console

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/firewall"
)

// A table keeps its number, which packets may have as their mark, whatever tables come, go and are renamed.
func TestTableKeepsNumber(t *testing.T) {
	// Two names of one sum, of which the second is the first by the alphabet.
	first, second := "", ""
	seen := map[uint8]string{}
	for i := 999; second == ""; i-- {
		name := fmt.Sprint("t", i)
		n := firewall.NumberRoutingMark(name, nil)
		if first = seen[n]; first != "" {
			second = name
		}
		seen[n] = name
	}
	require.Less(t, second, first)
	s, cfg := &Session{}, Default()
	numbers := func(lines ...string) map[string]uint8 {
		t.Helper()
		for _, line := range lines {
			result, err := s.Execute(cfg, Live{}, line)
			require.NoError(t, err, line)
			require.NoError(t, ValidateChange(cfg, result.Config, nil), line)
			cfg = result.Config
		}
		kernel := map[string]uint8{}
		for _, table := range cfg.Network().Tables {
			kernel[table.Name] = table.Number
		}
		assert.Equal(t, kernel, cfg.Rules().RoutingTables)
		return kernel
	}
	was := numbers("/routing table add fib name=" + first)[first]
	both := numbers("/routing table add fib name=" + second)
	assert.Equal(t, was, both[first])
	assert.NotEqual(t, was, both[second])
	assert.Equal(t, both[second], numbers("/routing table remove [find name=" + first + "]")[second])
	assert.Equal(t, both[second], numbers("/routing table set [find name=" + second + "] name=renamed")["renamed"])
	assert.Equal(t, both[second], numbers("/routing table add fib name=aaa")["renamed"])
}

// A table's name, and that of a gateway's interface, follow in all that refers to them.
func TestRoutingNames(t *testing.T) {
	cfg, err := Load("test", strings.NewReader(`/interface ethernet set [find default-name=ether1] name=wan
/routing table add name=isp2 fib
/ip address add address=10.0.0.2/24 interface=wan
/ip firewall mangle add chain=prerouting action=mark-routing new-routing-mark=isp2 routing-mark=!isp2
/ip route add gateway=10.0.0.1%wan routing-table=isp2
/ip route add gateway=wan dst-address=10.1.0.0/16
/ip route add gateway=10.0.0.9 dst-address=10.2.0.0/16
/routing rule add interface=wan routing-mark=isp2 table=isp2
`))
	require.NoError(t, err)
	ports := []string{"ether1"}
	require.NoError(t, Validate(cfg, ports))
	network := cfg.Network()
	assert.Equal(t, "ether1 ether1 ", network.Routes[0].Interface+" "+network.Routes[1].Interface+" "+network.Routes[2].Interface)
	assert.Equal(t, "10.0.0.1", network.Routes[0].Gateway.String())
	assert.False(t, network.Routes[1].Gateway.IsValid())
	assert.Equal(t, network.Tables[0].Mark, uint32(cfg.Rules().RoutingTables["isp2"])<<16)

	result, err := new(Session).Execute(cfg, portsLive(ports), "/interface ethernet set wan name=outside; /routing table set isp2 name=second")
	require.NoError(t, err)
	require.NoError(t, Validate(result.Config, ports))
	assert.Equal(t, strings.NewReplacer("wan", "outside", "isp2", "second").Replace(Export(cfg)), Export(result.Config))
	result, err = new(Session).Execute(cfg, portsLive(ports), "/routing table set isp2 !fib")
	require.ErrorContains(t, err, "property fib cannot be unset")
	result, err = new(Session).Execute(cfg, portsLive(ports), "/routing table set isp2 fib=no")
	require.NoError(t, err)
	require.EqualError(t, Validate(result.Config, ports), "routing rule 0: routing-mark=isp2: expected a table that packets with its mark take")

	for line, want := range map[string]string{
		"/ip route add gateway=ether9":                  "/ip route 3: input does not match any value of gateway: ether9; expected an IP address, or wan",
		"/ip route add gateway=10.0.0.1%ether9":         "/ip route 3: input does not match any value of gateway: ether9; expected an IP address, or wan",
		"/ip route add gateway=10.0.0.300":              "invalid value for argument gateway; expected IP address | IP address%interface | interface, not \"10.0.0.300\"",
		"/ip route add gateway=wan%wan":                 "invalid value for argument gateway; expected IP address | IP address%interface | interface, not \"wan%wan\"",
		"/ip route add gateway=10.0.0.1%":               "invalid value for argument gateway; expected IP address | IP address%interface | interface, not \"10.0.0.1%\"",
		"/ip route set 0 routing-table=isp3":            "route 0.0.0.0/0: routing-table=isp3: expected main, isp2",
		"/routing table remove isp2":                    "expected main",
		"/routing table add name=main":                  "routing table: name=\"main\": expected a name of its own, and not main",
		"/routing table add fib fib name=x":             "expected end of command",
		"/ip firewall nat add chain=srcnat fib":         "expected end of command",
		"/ip route add gateway=10.0.0.1 routing-mark=x": "Postern has no routing-mark",
	} {
		result, err := new(Session).Execute(cfg, portsLive(ports), line)
		if err == nil {
			err = Validate(result.Config, ports)
		}
		require.ErrorContains(t, err, want, line)
	}
}

// Routes that lead nowhere, in the words of RouterOS 6 and 7.
func TestRouteTypes(t *testing.T) {
	ports := []string{"ether1"}
	run := func(text string) (Config, error) {
		result, err := new(Session).Import(Default(), portsLive(ports), text, func(c Config) error { return Validate(c, ports) })
		return result.Config, err
	}
	for _, test := range []struct{ name, lines, export, err string }{
		{"6", "add distance=1 dst-address=10.0.0.0/8 type=blackhole\nadd distance=1 dst-address=10.1.0.0/16 type=unreachable\nadd distance=2 dst-address=10.2.0.0/16 type=prohibit\nadd distance=1 gateway=10.9.0.1 type=unicast",
			"add blackhole dst-address=10.0.0.0/8\nadd dst-address=10.1.0.0/16 type=unreachable\nadd distance=2 dst-address=10.2.0.0/16 type=prohibit\nadd gateway=10.9.0.1", ""},
		{"7", "add blackhole disabled=no distance=1 dst-address=10.0.0.0/8 gateway=\"\" routing-table=main suppress-hw-offload=no",
			"add blackhole dst-address=10.0.0.0/8", ""},
		{"7, the gateway's table", "add disabled=no dst-address=10.0.0.0/8 gateway=10.9.0.1@main\nadd dst-address=10.1.0.0/16 gateway=10.9.0.1%ether1@main",
			"add dst-address=10.0.0.0/8 gateway=10.9.0.1\nadd dst-address=10.1.0.0/16 gateway=\"10.9.0.1%ether1\"", ""},
		{"the API's", "add blackhole=yes dst-address=10.0.0.0/8\nadd blackhole=no gateway=10.9.0.1", "add blackhole dst-address=10.0.0.0/8\nadd gateway=10.9.0.1", ""},
		{"its gateway counts for nothing", "add blackhole dst-address=10.0.0.0/8 gateway=10.9.0.1 check-gateway=ping", "add blackhole check-gateway=ping dst-address=10.0.0.0/8 gateway=10.9.0.1", ""},
		{"no gateway", "add dst-address=10.0.0.0/8", "", "missing value(s) of argument(s) gateway, which only type=blackhole | unreachable | prohibit does without (line 2)"},
		{"no gateway, in words", "add dst-address=10.0.0.0/8 type=unicast gateway=\"\"", "", "missing value(s) of argument(s) gateway, which only type=blackhole | unreachable | prohibit does without (line 2)"},
		{"taken back", "add blackhole dst-address=10.0.0.0/8 gateway=10.9.0.1\nset [find blackhole] !blackhole", "add dst-address=10.0.0.0/8 gateway=10.9.0.1", ""},
		{"taken back without a gateway", "add blackhole dst-address=10.0.0.0/8\nset [find type=blackhole] blackhole=no", "", "route 10.0.0.0/8: expected a gateway, which only type=blackhole | unreachable | prohibit does without (line 3)"},
		{"found by its type", "add blackhole dst-address=10.0.0.0/8\nadd gateway=10.9.0.1\nadd dst-address=10.1.0.0/16 type=prohibit\nremove [find type=blackhole]\nremove [find prohibit]", "add gateway=10.9.0.1", ""},
		{"the others", "add blackhole dst-address=10.0.0.0/8\nadd gateway=10.9.0.1\nremove [find !blackhole]", "add blackhole dst-address=10.0.0.0/8", ""},
		{"made so later", "add dst-address=10.0.0.0/8 gateway=10.9.0.1\nset [find dst-address=10.0.0.0/8] type=unreachable !gateway", "", "property gateway cannot be unset (line 3 column 52)"},
		{"made so later, in words", "add dst-address=10.0.0.0/8 gateway=10.9.0.1\nset [find dst-address=10.0.0.0/8] type=unreachable gateway=\"\"", "add dst-address=10.0.0.0/8 type=unreachable", ""},
		{"several gateways", "add gateway=10.9.0.1,10.9.0.2", "", "invalid value for argument gateway; expected IP address | IP address%interface | interface, not \"10.9.0.1,10.9.0.2\": " +
			"a route is by one gateway: give each a route, with a distance of its own (line 2)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := run("/ip route\n" + test.lines)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "/ip route\n"+test.export+"\n", Export(c))
			again, err := run(Export(c))
			require.NoError(t, err)
			assert.True(t, again.Equal(c))
		})
	}
}
