package console

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/pppoe"
)

func testPPPoE() []PPPoEClientState {
	at := netip.MustParseAddr
	return []PPPoEClientState{
		{Name: "pppoe-out1", Status: "connected", AC: "ac1", Service: "internet", Server: ether.MAC{2, 0, 0, 0, 0, 9}, Local: at("203.0.113.7"), Remote: at("10.64.0.1"),
			NameServers: []netip.Addr{at("9.9.9.9"), at("9.9.9.10")}, MTU: 1492, MRU: 1492, Uptime: time.Hour + 1500*time.Millisecond},
	}
}

func TestPPPoELines(t *testing.T) {
	ports := []string{"ether1", "ether2"}
	const add = "/interface pppoe-client add name=pppoe-out1 interface=ether1"
	for _, c := range []struct{ name, line, want string }{
		{"RouterOS 6 and 7", "/interface pppoe-client add ac-name=\"\" add-default-route=yes allow=pap,chap,mschap1,mschap2 default-route-distance=1 dial-on-demand=no disabled=no " +
			"interface=ether1 keepalive-timeout=10 max-mru=auto max-mtu=auto mrru=disabled name=pppoe-out1 password=secret profile=default service-name=\"\" use-peer-dns=yes user=me@isp", ""},
		{"a few properties", add + " user=me password=\"a b\" max-mtu=1480 keepalive-timeout=disabled allow=chap comment=isp", ""},
		{"over a VLAN", "/interface vlan add name=isp interface=ether1 vlan-id=7; /interface pppoe-client add name=p interface=isp disabled=no", ""},
		{"lists and rules", add + "; /interface list add name=WAN; /interface list member add list=WAN interface=pppoe-out1; /ip firewall nat add chain=srcnat action=masquerade out-interface=pppoe-out1", ""},
		{"two over one interface", add + " service-name=a disabled=no; /interface pppoe-client add name=p2 interface=ether1 service-name=b disabled=no", ""},
		{"two for one service", add + " disabled=no; /interface pppoe-client add name=p2 interface=ether1 disabled=no", "failure: there is a client for that service on this interface already"},
		{"no interface", "/interface pppoe-client add name=p interface=ether9", "input does not match any value of interface: ether9; expected ether1 | ether2"},
		{"over another", add + "; /interface pppoe-client add name=p2 interface=pppoe-out1", "/interface pppoe-client 1: interface=pppoe-out1: expected a port, a bridge or a VLAN, not a PPPoE client"},
		{"DHCP over it", add + "; /ip dhcp-client add interface=pppoe-out1", "/ip dhcp-client 0: interface=pppoe-out1: expected a port, a bridge or a VLAN, not a PPPoE client"},
		{"in a bridge", add + "; /interface bridge add name=b; /interface bridge port add bridge=b interface=pppoe-out1", "expected a port or a VLAN"},
		{"a name that is taken", "/interface pppoe-client add name=ether2 interface=ether1", "failure: already have interface with such name: ether2"},
		{"a long packet", add + " max-mtu=1500", "value of max-mtu out of range (576..1492)"},
		{"no packet", add + " max-mru=none", `invalid value for argument max-mru; expected integer: 576..1492 | auto, not "none"`},
		{"no way", add + " allow=\"\"", "input does not match any value of allow"},
		{"another way", add + " allow=pap,eap", `input does not match any value of allow; expected pap | chap | mschap1 | mschap2, or a list of them, not "pap,eap"`},
		{"no time", add + " keepalive-timeout=0", "value of keepalive-timeout out of range (1..65535)"},
		{"a profile", add + " profile=fast", "Postern has no profile=fast"},
		{"a password is not shown", add + " password=\"" + strings.Repeat("hush", 70) + "\"", "invalid value for argument password; expected printable string: 0..255 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			result, err := new(Session).Execute(Default(), Live{}, c.line)
			if err == nil {
				err = Validate(result.Config, ports)
			}
			if c.want != "" {
				assert.ErrorContains(t, err, c.want)
				assert.NotContains(t, err.Error(), "hush")
				return
			}
			require.NoError(t, err)
			again, err := Load("again", strings.NewReader(Export(result.Config)))
			require.NoError(t, err)
			assert.True(t, again.Equal(result.Config))
		})
	}
}

func TestPPPoEConfig(t *testing.T) {
	cfg, err := Load("pppoe", strings.NewReader(`/interface pppoe-client add name=isp interface=ether1 user=me password=secret disabled=no
/interface pppoe-client add name=spare interface=ether2
/interface list add name=WAN
/interface list member add list=WAN interface=isp
/ip firewall filter add chain=input in-interface=isp
`))
	require.NoError(t, err)
	assert.Equal(t, pppoe.Config{Name: "isp", Interface: "ether1", User: "me", Password: "secret", Distance: 1,
		Allow: pppoe.PAP | pppoe.CHAP | pppoe.MSCHAP1 | pppoe.MSCHAP2, Keepalive: 10 * time.Second}, cfg.PPPoEClients[0])
	assert.Equal(t, []netcfg.PPP{{Name: "isp"}, {Name: "spare", Disabled: true}}, cfg.Network().PPPs)
	assert.Equal(t, []string{"isp"}, cfg.Rules().Clamp)
	assert.Equal(t, firewall.Interfaces{Names: []string{"isp"}}, cfg.Rules().Lists["WAN"])

	run := func(line string) Result {
		result, err := new(Session).Execute(cfg, Live{}, line)
		require.NoError(t, err, line)
		return result
	}
	assert.Contains(t, run("/export show-sensitive").Output, "password=secret")
	for _, line := range []string{"/export", "/export verbose", "/interface pppoe-client print", "/interface pppoe-client print detail"} {
		assert.NotContains(t, run(line).Output, "secret", line)
	}
	renamed := run("/interface pppoe-client set isp name=provider").Config
	assert.Equal(t, "provider", renamed.ListMembers[0].Interface)
	assert.Equal(t, "provider", renamed.Firewall.Filter[0].InInterface)
	// /interface has them too.
	assert.True(t, run("/interface pppoe-client disable isp").Config.PPPoEClients[0].Disabled)
}

func TestPPPoEMonitor(t *testing.T) {
	cfg, err := Load("pppoe", strings.NewReader("/interface pppoe-client add name=pppoe-out1 interface=ether1 disabled=no\n/interface pppoe-client add name=spare interface=ether2\n"))
	require.NoError(t, err)
	live := fullLive()
	live.PPPoEClients = func() ([]PPPoEClientState, error) { return testPPPoE(), nil }
	result, err := new(Session).Execute(cfg, live, "/interface pppoe-client monitor pppoe-out1 once")
	require.NoError(t, err)
	assert.Equal(t, `               status: connected
               uptime: 1h1s
  active-service-name: internet
       active-ac-name: ac1
               ac-mac: 02:00:00:00:00:09
                  mtu: 1492
                  mru: 1492
        local-address: 203.0.113.7
       remote-address: 10.64.0.1
          primary-dns: 9.9.9.9
        secondary-dns: 9.9.9.10
`, result.Output)
	result, err = new(Session).Execute(cfg, live, "/interface pppoe-client monitor 1")
	require.NoError(t, err)
	assert.Equal(t, "  status: disconnected\n", result.Output)

	live.PPPoEClients = func() ([]PPPoEClientState, error) {
		return []PPPoEClientState{{Name: "pppoe-out1", Status: "disconnected", Slave: true}}, nil
	}
	result, err = new(Session).Execute(cfg, live, "/interface pppoe-client print")
	require.NoError(t, err)
	assert.Contains(t, result.Output, " 0 I   ;;; PPPoE client can not run on slave interface!\n")
}

// Who comes in by a PPPoE client comes from outside.
func TestPPPoEExposesSOCKS(t *testing.T) {
	const lines = `/interface pppoe-client add name=isp interface=ether1 disabled=no
/interface list add name=WAN
/interface list member add list=WAN interface=ether1
/ip firewall filter add chain=input in-interface-list=WAN action=drop
/ip socks set enabled=yes
`
	cfg, err := Load("open", strings.NewReader(lines))
	require.NoError(t, err)
	assert.Contains(t, ExposedSOCKS(cfg, "ether1"), "anyone who reaches isp can use this server")
	cfg, err = Load("closed", strings.NewReader(lines+"/interface list member add list=WAN interface=isp\n"))
	require.NoError(t, err)
	assert.Empty(t, ExposedSOCKS(cfg, "ether1"))
}
