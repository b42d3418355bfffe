package console

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/dhcp/server"
	"github.com/postern-router/postern/ether"
)

// testLeases are those of a static lease, of a host, and of one that has just come.
func testLeases() []LeaseState {
	return []LeaseState{
		{server.Binding{Address: netip.MustParseAddr("192.168.0.10"), MAC: ether.MAC{2, 0, 0, 0, 0, 10}, HostName: "printer", Server: "home",
			Status: server.Bound, Left: 1500*time.Second + 1}, 5 * time.Minute},
		{server.Binding{Address: netip.MustParseAddr("192.168.0.50"), MAC: ether.MAC{2, 0, 0, 0, 0, 0x50}, ClientID: "\x01\x02\x00\x00\x00\x00\x50",
			HostName: "laptop", Server: "home", Status: server.Bound, Left: 29 * time.Minute}, time.Minute},
		{server.Binding{Address: netip.MustParseAddr("192.168.0.51"), MAC: ether.MAC{2, 0, 0, 0, 0, 0x51}, Server: "home",
			Status: server.Offered, Left: 19 * time.Second}, time.Second},
	}
}

const homeConfig = `
/ip pool add name=lan ranges=192.168.0.10-192.168.0.99
/ip dhcp-server add name=home interface=ether2 address-pool=lan
/ip dhcp-server lease add address=192.168.0.10 mac-address=02:00:00:00:00:0a
`

// The commands of leases, on dynamic and static ones.
func TestLeaseCommands(t *testing.T) {
	cfg, err := Load("home", strings.NewReader(homeConfig))
	require.NoError(t, err)
	live := testLive()
	live.Leases = func() ([]LeaseState, error) { return testLeases(), nil }
	const menu = "/ip dhcp-server lease"
	for _, test := range []struct {
		name, line, err string
		removed         string
		want            string // the static leases
	}{
		{name: "make-static", line: "make-static 0", want: "address=192.168.0.10 mac-address=02:00:00:00:00:0A;" +
			"address=192.168.0.50 client-id=1:2:0:0:0:0:50 mac-address=02:00:00:00:00:50 server=home"},
		{name: "make-static by a property", line: "make-static [find mac-address=02:00:00:00:00:50]", want: "address=192.168.0.10 mac-address=02:00:00:00:00:0A;" +
			"address=192.168.0.50 client-id=1:2:0:0:0:0:50 mac-address=02:00:00:00:00:50 server=home"},
		{name: "make-static of an offer", line: "make-static 1", err: "failure: 192.168.0.51 is offered; expected a lease that is bound"},
		{name: "make-static of a static one", line: "make-static 2", want: "address=192.168.0.10 mac-address=02:00:00:00:00:0A"},
		{name: "remove a dynamic one", line: "remove 0", removed: "192.168.0.50", want: "address=192.168.0.10 mac-address=02:00:00:00:00:0A"},
		{name: "remove both kinds", line: "remove 0,2", removed: "192.168.0.50"},
		{name: "remove all", line: "remove [find]", removed: "192.168.0.50 192.168.0.51"},
		{name: "change a dynamic one", line: "set 0 comment=x", err: "failure: can not change dynamic item: 0"},
		{name: "disable a dynamic one", line: "disable 1", err: "failure: can not change dynamic item: 1"},
		{name: "no such", line: "remove 7", err: "no such item: 7"},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := new(Session).Execute(cfg, live, menu+" "+test.line)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			var removed []string
			for _, a := range result.Action.Remove {
				removed = append(removed, a.String())
			}
			assert.Equal(t, test.removed, strings.Join(removed, " "))
			text := exportMenus(menus(), &result.Config, "ip dhcp-server lease", "terse")
			text = strings.ReplaceAll(strings.TrimSpace(text), menu+" add ", "")
			assert.Equal(t, test.want, strings.ReplaceAll(text, "\n", ";"))
		})
	}
}

// What refers to a pool or a server follows its name, and needs it.
func TestPoolReferences(t *testing.T) {
	cfg, err := Load("home", strings.NewReader(homeConfig+"/ip pool add name=more ranges=192.168.1.0/28 next-pool=lan\n/ip dhcp-server option add name=tftp code=150 value=\"'x'\"\n/ip dhcp-server lease add address=192.168.0.12 mac-address=02:00:00:00:00:0c server=home dhcp-option=tftp\n"))
	require.NoError(t, err)
	for _, test := range []struct{ line, want, err string }{
		{line: "/ip pool set lan name=house", want: "address-pool=house"},
		{line: "/ip pool set lan name=house", want: "next-pool=house"},
		{line: "/ip dhcp-server set home name=house", want: "server=house"},
		{line: "/ip pool print", want: "192.168.1.0-192.168.1.15"},
		{line: "/ip pool remove lan", err: "failure: pool lan is in use by /ip dhcp-server 0 (home), /ip pool 0 (more)"},
		{line: "/ip pool remove more", want: "name=lan"},
		{line: "/ip dhcp-server remove home", err: "failure: DHCP server home is in use by /ip dhcp-server lease 1 (192.168.0.12)"},
		{line: "/ip dhcp-server lease set 1 server=none", err: "/ip dhcp-server lease 1: server=none: there is no such server"},
		{line: "/ip dhcp-server option remove tftp", err: "failure: DHCP option tftp is in use by /ip dhcp-server lease 1 (192.168.0.12)"},
		{line: "/ip dhcp-server set home address-pool=none", err: "/ip dhcp-server 0 (home): address-pool=none: there is no such pool"},
		{line: "/ip pool set lan next-pool=more", err: "/ip pool 0 (lan): next-pool=more leads back to itself"},
		{line: "/ip pool set lan ranges=10.0.0.1-10.0.0.9,10.0.0.5", err: "invalid value for argument ranges; expected IP address, IP address/netmask or IP address-IP address, or a list of them: at most 8, not \"10.0.0.1-10.0.0.9,10.0.0.5\": two of the ranges have an address in common"},
		{line: "/ip dhcp-server add name=home interface=ether1", err: "/ip dhcp-server 1: name=home: item 0 has this name already"},
		{line: "/ip dhcp-server add name=other interface=ether2", err: "/ip dhcp-server 1 (other): interface=ether2: home (item 0) serves the same clients"},
		{line: "/ip dhcp-server lease add address=192.168.0.10 mac-address=02:00:00:00:00:0d", err: "/ip dhcp-server lease 2: address=192.168.0.10: item 0 has it already"},
		{line: "/ip dhcp-server lease add address=192.168.0.13 mac-address=02:00:00:00:00:0a", err: "/ip dhcp-server lease 2: mac-address=02:00:00:00:00:0A: item 0 has it already"},
		{line: "/ip dhcp-server lease add address=192.168.0.13", err: "/ip dhcp-server lease 2: expected mac-address or client-id"},
		{line: "/ip dhcp-server lease add mac-address=02:00:00:00:00:0d", err: "/ip dhcp-server lease 2: expected address"},
		{line: "/ip dhcp-server network add address=10.0.0.0/8 dhcp-option=x", err: "/ip dhcp-server network 0 (10.0.0.0/8): dhcp-option=x: there is no such option"},
		{line: "/ip dhcp-server option add name=x code=53 value=\"'a'\"", err: "/ip dhcp-server option 1 (x): code=53: the server sets this one itself"},
		{line: "/ip dhcp-server option add name=x code=150 value=word", err: "invalid value for argument value; expected 'text', 'IP address' or 0x and hexadecimal digits, or several of them one behind the other: at most 255 characters, not \"word\""},
		{line: "/ip dhcp-server add name=x interface=ether1 use-radius=accounting", err: "Postern has no use-radius=accounting (line 1 column 45); expected use-radius=no"},
	} {
		t.Run(test.line, func(t *testing.T) {
			result, err := new(Session).Execute(cfg, testLive(), test.line)
			if err == nil {
				err = ValidateChange(cfg, result.Config, []string{"ether1", "ether2"})
			}
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Contains(t, result.Output+Export(result.Config), test.want)
		})
	}
}

func TestOutsideDHCP(t *testing.T) {
	const servers = "/ip pool add name=p ranges=10.0.0.2-10.0.0.9\n/ip dhcp-server\nadd name=lan interface=ether2 address-pool=p disabled=no\n"
	for _, test := range []struct{ name, text, want string }{
		{"none", "", ""},
		{"of the LAN", servers + "/ip dhcp-client add interface=ether1\n/interface list add name=WAN\n/interface list member add list=WAN interface=ether1\n", ""},
		{"of a client's port", servers + "/interface ethernet set ether2 name=wan\n/ip dhcp-client add interface=wan\n",
			"warning: DHCP server lan gives addresses to the hosts of wan, which gets its own address by DHCP; expected an interface of the LAN"},
		{"of a client's port, disabled", servers + "/ip dhcp-client add interface=ether2 disabled=yes\n", ""},
		{"of the WAN", servers + "/interface list add name=WAN\n/interface list member add list=WAN interface=ether2\n",
			"warning: DHCP server lan gives addresses to the hosts of ether2, which is in interface list WAN; expected an interface of the LAN"},
		{"of the WAN, disabled", servers + "/ip dhcp-server disable lan\n/ip dhcp-client add interface=ether2\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := Load("cfg", strings.NewReader(test.text))
			require.NoError(t, err)
			assert.Equal(t, test.want, OutsideDHCP(cfg))
			result, err := new(Session).Execute(cfg, fullLive(), "/ip dhcp-server print")
			require.NoError(t, err)
			assert.Equal(t, test.want != "", strings.Contains(result.Output, ";;; warning: "), result.Output)
		})
	}
}
