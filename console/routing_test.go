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
