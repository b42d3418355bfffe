package console

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/neighbor"
)

func testDiscovered() []DiscoveredNeighbor {
	return []DiscoveredNeighbor{
		{Interface: "ether1", By: "lldp,mndp", Age: 11 * time.Second, Neighbor: neighbor.Neighbor{MAC: ether.MAC{2, 0, 0, 0, 0, 0xAB}, Address: netip.MustParseAddr("192.168.88.1"),
			Identity: "MikroTik", Platform: "MikroTik", Version: "7.16 (stable)", Board: "CHR", Interface: "bridge/ether2", Uptime: 90061 * time.Second, SoftwareID: "AAAA-BBBB",
			Description: "RouterOS CHR", Can: 0x14, Does: 0x10}},
		{Interface: "ether2", By: "lldp", Age: time.Second, Neighbor: neighbor.Neighbor{MAC: ether.MAC{2, 0, 0, 0, 0, 0xAC}}},
	}
}

func TestDiscoverySettings(t *testing.T) {
	lists := "/interface list add name=LAN\n/interface list member add list=LAN interface=ether2\n"
	for _, test := range []struct {
		name, lines, list, protocols, err string
		in, out                           []string
	}{
		{"nothing set", "", "none", "lldp,mndp", "", nil, []string{"ether1", "ether2"}},
		{"a list", lists + "/ip neighbor discovery-settings set discover-interface-list=LAN protocol=mndp,lldp", "LAN", "lldp,mndp", "", []string{"ether2"}, []string{"ether1"}},
		{"what is on no list", lists + "/ip neighbor discovery-settings set discover-interface-list=!LAN", "!LAN", "lldp,mndp", "", []string{"ether1"}, []string{"ether2"}},
		{"all", "/ip neighbor discovery-settings set discover-interface-list=all protocol=mndp", "all", "mndp", "", []string{"ether1", "ether2"}, nil},
		{"another name of the list", lists + "/ip neighbor discovery-settings set discover-interface-list=!LAN\n/interface list set [find] name=inside", "!inside", "lldp,mndp", "", []string{"ether1"}, []string{"ether2"}},
		{"a port of a bridge", lists + "/interface bridge add name=b\n/interface list member add list=LAN interface=b\n/interface bridge port add bridge=b interface=usb1\n" +
			"/ip neighbor discovery-settings set discover-interface-list=LAN", "LAN", "lldp,mndp", "", []string{"ether2", "b", "usb1"}, []string{"ether1"}},
		{"a default of RouterOS", "/ip neighbor discovery-settings set mode=tx-and-rx discover-interval=30s discover-interface-list=static", "static", "lldp,mndp", "", []string{"ether1"}, nil},
		{"CDP", "/ip neighbor discovery-settings set protocol=cdp,lldp,mndp", "", "", "input does not match any value of protocol; expected lldp | mndp, or a list of them, not \"cdp,lldp,mndp\"", nil, nil},
		{"not a protocol", "/ip neighbor discovery-settings set protocol=!mndp", "", "", "input does not match any value of protocol", nil, nil},
		{"no such list", "/ip neighbor discovery-settings set discover-interface-list=LAN", "", "", "input does not match any value of discover-interface-list", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := Load(test.name, strings.NewReader(test.lines))
			if err == nil {
				err = Validate(cfg, []string{"ether1", "ether2", "usb1"})
			}
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, neighbor.Config{List: test.list, Protocols: test.protocols}, cfg.Discovery)
			discovers := cfg.Discovers()
			for _, name := range test.in {
				assert.True(t, discovers(name), name)
			}
			for _, name := range test.out {
				assert.False(t, discovers(name), name)
			}
		})
	}
}
