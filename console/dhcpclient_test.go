package console

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func testClients() []DHCPClientState {
	at := netip.MustParseAddr
	return []DHCPClientState{
		{Interface: "ether1", Status: "bound", Address: netip.MustParsePrefix("192.0.2.10/24"), Server: at("192.0.2.1"), Gateway: at("192.0.2.1"),
			NameServers: []netip.Addr{at("9.9.9.9"), at("8.8.8.8")}, TimeServers: []netip.Addr{at("192.0.2.3")}, Left: 9*time.Minute + 59*time.Second},
	}
}

func TestDHCPClientLines(t *testing.T) {
	ports := []string{"ether1", "ether2"}
	for _, c := range []struct{ name, line, want string }{
		{"RouterOS 6 and 7", "/ip dhcp-client add comment=defconf dhcp-options=hostname,clientid disabled=no interface=ether1", ""},
		{"an abbreviation", "/ip dhcp-client add interface=ether1 add-default-route=special", ""},
		{"no interface", "/ip dhcp-client add interface=ether9", "/ip dhcp-client 0: input does not match any value of interface: ether9; expected ether1 | ether2"},
		{"twice", "/ip dhcp-client add interface=ether1; /ip dhcp-client add interface=ether1", "failure: dhcp-client on that interface already exists"},
		{"a word that it does not know", "/ip dhcp-client add interface=ether1 dhcp-options=hostname,serial",
			`input does not match any value of dhcp-options; expected hostname | clientid, or a list of them, not "hostname,serial"`},
		{"a distance", "/ip dhcp-client add interface=ether1 default-route-distance=0", "value of default-route-distance out of range (1..255)"},
		{"a script", "/ip dhcp-client add interface=ether1 script=x", "Postern has no script=x (line 1 column 38); expected script=\"\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			result, err := new(Session).Execute(Default(), Live{}, c.line)
			if err == nil {
				err = Validate(result.Config, ports)
			}
			if c.want != "" {
				assert.ErrorContains(t, err, c.want)
				return
			}
			require.NoError(t, err)
			again, err := Load("again", strings.NewReader(Export(result.Config)))
			require.NoError(t, err)
			assert.True(t, again.Equal(result.Config))
		})
	}
}

func TestDHCPClientCommands(t *testing.T) {
	cfg, err := Load("clients", strings.NewReader("/ip dhcp-client add interface=ether1\n/ip dhcp-client add interface=ether2 disabled=yes\n"))
	require.NoError(t, err)
	run := func(line string) (Result, error) { return new(Session).Execute(cfg, fullLive(), line) }
	result, err := run("/ip dhcp-client; release [find interface=ether1]; renew 0")
	require.NoError(t, err)
	var told []string
	live := Live{
		RenewLeases:   func(names []string) error { told = append(told, "renew "+strings.Join(names, ",")); return nil },
		ReleaseLeases: func(names []string) error { told = append(told, "release "+strings.Join(names, ",")); return nil },
	}
	require.NoError(t, result.Action.CarryOut(live))
	assert.Equal(t, []string{"release ether1", "renew ether1"}, told)
	_, err = run("/ip dhcp-client renew 1")
	assert.EqualError(t, err, "failure: the client on ether2 is disabled")

	// A port of a bridge has no address of its own.
	live = fullLive()
	live.DHCPClients = func() ([]DHCPClientState, error) {
		return []DHCPClientState{{Interface: "ether1", Status: "stopped", Slave: true}}, nil
	}
	result, err = new(Session).Execute(cfg, live, "/ip dhcp-client print")
	require.NoError(t, err)
	assert.Contains(t, result.Output, " 0 I ;;; DHCP client can not run on slave or passthrough interface!\n")
}
