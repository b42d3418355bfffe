package console

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/firewall"
)

// The name of a change is RouterOS's, and the delta leads back to what was before, with the IDs of its items.
func TestDescribe(t *testing.T) {
	const start = "/interface bridge add name=b\n/interface vlan add name=v interface=ether1 vlan-id=7\n/ip address add address=192.168.0.1/24 interface=ether2\n" +
		"/ip firewall filter add chain=input\n/ip firewall filter add chain=forward\n/ip firewall filter add chain=output\n" +
		"/ip firewall address-list add list=a address=10.0.0.1\n/system ntp client set servers=a,b,c"
	for _, test := range []struct{ line, action, policy, others string }{
		{"/ip firewall filter add action=drop chain=input", "filter rule added", "write", "filter rule added"},
		{"/ip firewall filter add chain=input action=drop place-before=1", "filter rule added", "write", "filter rule added"},
		{"/ip firewall filter remove 1", "filter rule removed", "write", "filter rule removed"},
		{"/ip firewall filter remove [find]", "filter rule removed", "write", "filter rule removed"},
		{"/ip firewall filter disable 0,2", "filter rule changed", "write", "filter rule changed"},
		{"/ip firewall filter move 2 0", "filter rule moved", "write", "filter rule moved"},
		{"/ip firewall filter move 0", "filter rule moved", "write", "filter rule moved"},
		{"/ip firewall filter move 0; /ip firewall filter set 1 action=drop", "filter rule changed", "write", "filter rule changed"},
		{"/ip firewall filter remove 0; /ip firewall filter add action=drop chain=input", "filter rule changed", "write", "filter rule changed"},
		{"/ip firewall address-list add list=a address=10.0.0.2", "address list entry 10.0.0.2 added", "write", "address list entry 10.0.0.2 added"},
		{"/ip address set 0 comment=x", "address 192.168.0.1/24 changed", "write", "address 192.168.0.1/24 changed"},
		{"/ip route add gateway=192.168.0.9", "route 0.0.0.0/0 added", "write", "route 0.0.0.0/0 added"},
		{"/ip route add gateway=192.168.0.9; /ip route add gateway=192.168.0.9 dst-address=10.0.0.0/8", "route 0.0.0.0/0,10.0.0.0/8 added", "write", "route 0.0.0.0/0,10.0.0.0/8 added"},
		{"/interface ethernet set ether1 mtu=1400", "device ether1 changed", "write", "device ether1 changed"},
		{"/interface ethernet set ether1 name=wan", "device wan changed", "write", "device wan changed"},
		{"/interface ethernet set ether1,ether2 mtu=1400", "device ether1,ether2 changed", "write", "device ether1,ether2 changed"},
		{"/interface bridge add name=c", "device c added", "write", "device c added"},
		{"/system identity set name=x", "system identity changed", "write", "system identity changed"},
		{"/ip dns set servers=1.1.1.1", "dns changed", "write", "dns changed"},
		{"/ip dhcp-client add interface=ether1", "dhcp client ether1 added", "write", "dhcp client ether1 added"},
		{"/ip arp add address=192.168.0.2 mac-address=02:00:00:00:00:02 interface=ether2", "arp 192.168.0.2 added", "write", "arp 192.168.0.2 added"},
		{"/ip dns static add regexp=x address=10.0.0.1", "static dns entry x added", "write", "static dns entry x added"},
		{"/ip dhcp-server lease add mac-address=02:00:00:00:00:02 address=192.168.0.9", "dhcp lease 192.168.0.9 added", "write", "dhcp lease 192.168.0.9 added"},
		{"/ip dhcp-server network add address=192.168.0.0/24", "dhcp network 192.168.0.0/24 added", "write", "dhcp network 192.168.0.0/24 added"},
		{"/interface bridge port add bridge=b interface=ether2", "bridge port ether2 added", "write", "bridge port ether2 added"},
		{"/interface list add name=l; /interface list member add list=l interface=ether1", "interface list l added, interface list member ether1 added", "write", "interface list l added, interface list member ether1 added"},
		{"/queue simple add name=\"T\\FCr\" target=10.0.0.1 max-limit=1M", "queue simple T\\FCr added", "write", "queue simple T\\FCr added"},
		{"/user group add name=g", "user group g added", "write,policy", ""},
		{"/system ntp client set servers=b,c", "ntp client changed", "write", "ntp client changed"},
		{"/system ntp client servers remove 1", "ntp client changed", "write", "ntp client changed"},
		{"/ip socks set enabled=yes", "ip socks changed", "write", "ip socks changed"},
		{"/ip service set ssh disabled=no", "ip service ssh changed", "write", "ip service ssh changed"},
		{"/user set admin password=secret", "user admin changed", "write,policy", ""},
		{"/system identity set name=x; /ip dns set servers=1.1.1.1; /ip socks set enabled=yes", "system identity changed, dns changed, ip socks changed", "write", "system identity changed, dns changed, ip socks changed"},
		{"/system identity set name=x; /ip dns set servers=1.1.1.1; /ip socks set enabled=yes; /user set admin password=x", "configuration changed", "write,policy", "system identity changed, dns changed, ip socks changed"},
	} {
		t.Run(test.line, func(t *testing.T) {
			cfg, err := Load("start", strings.NewReader(start))
			require.NoError(t, err)
			result, err := new(Session).Execute(cfg, fullLive(), test.line)
			require.NoError(t, err)
			back := DeltaOf(result.Config, cfg)
			d := Describe(cfg, result.Config, back)
			assert.Equal(t, test.action, d.Action)
			assert.Equal(t, test.policy, d.Policy)
			assert.Equal(t, test.others, d.Others)
			assert.Equal(t, d.Others == "", d.OthersKind == "")
			was, err := back.Apply(result.Config)
			require.NoError(t, err)
			assert.Equal(t, cfg.identified(), was)
			again, err := DeltaOf(was, result.Config).Apply(was)
			require.NoError(t, err)
			assert.Equal(t, result.Config.identified(), again)
			_, err = DeltaOf(cfg, Default()).Apply(Default())
			assert.EqualError(t, err, "failure: the configuration was changed meanwhile")
		})
	}
}

// Ports that have all defaults again are named, and those between that are what they were are not.
func TestDescribePorts(t *testing.T) {
	const start = "/interface ethernet\nset ether1 comment=a\nset ether2 comment=b\nset ether3 comment=c\n"
	for _, test := range []struct{ line, action string }{
		{"set ether1,ether3 comment=\"\"", "device ether1,ether3 changed"},
		{"set ether1 comment=\"\"; set ether3 comment=d", "device ether1,ether3 changed"},
		{"set ether1 comment=d; set ether3 comment=\"\"", "device ether1,ether3 changed"},
		{"set ether3 comment=\"\" name=x", "device x changed"},
		{"set ether1,ether2,ether3 comment=\"\"", "device ether1,ether2,ether3 changed"},
	} {
		cfg, err := Load("start", strings.NewReader(start))
		require.NoError(t, err)
		line := strings.ReplaceAll("/interface ethernet "+test.line, "; ", "; /interface ethernet ")
		result, err := new(Session).Execute(cfg, Live{}, line)
		require.NoError(t, err, line)
		assert.Equal(t, test.action, Describe(cfg, result.Config, DeltaOf(result.Config, cfg)).Action, line)
	}
}

// The kinds of changes of many items are the same. With more than a few items none is named.
func TestKind(t *testing.T) {
	describe := func(lines string) Description {
		result, err := new(Session).Execute(Default(), fullLive(), lines)
		require.NoError(t, err)
		return Describe(Default(), result.Config, DeltaOf(result.Config, Default()))
	}
	const add = "/ip firewall address-list add list=a address=10.0.0."
	assert.Equal(t, Description{Action: "address list entry 10.0.0.1 added", Kind: "address list entry added", Others: "address list entry 10.0.0.1 added",
		OthersKind: "address list entry added", Policy: "write"}, describe(add+"1"))
	assert.Equal(t, "address list entry 10.0.0.1,10.0.0.2,10.0.0.3 added", describe(add+"1;"+add+"2;"+add+"3").Action)
	assert.Equal(t, "address list entry added", describe(add+"1;"+add+"2;"+add+"3;"+add+"4").Action)
}

// A delta leads from any configuration to any other.
func TestDeltaOfExports(t *testing.T) {
	files, err := filepath.Glob("testdata/exports/*.rsc")
	require.NoError(t, err)
	cfg := Default()
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		result, err := new(Session).ImportBy(ImportArguments{SkipErrors: true}, cfg, fullLive(), string(text), nil)
		require.NoError(t, err, file)
		for _, pair := range [][2]Config{{cfg, result.Config}, {result.Config, cfg}, {Default(), result.Config}} {
			d := DeltaOf(pair[0], pair[1])
			to, err := d.Apply(pair[0])
			require.NoError(t, err)
			require.Equal(t, pair[1].identified(), to, file)
			require.Less(t, DeltaOf(to, to).Size(), 100)
		}
		cfg = result.Config
	}
}

// One change of many rules takes little memory, wherever they stand.
func TestDeltaSize(t *testing.T) {
	cfg := Default()
	for i := range 250 {
		cfg.Firewall.Filter = append(cfg.Firewall.Filter, firewall.Rule{Chain: "input", Action: "accept", Comment: fmt.Sprint(i)})
	}
	for _, line := range []string{"add chain=input place-before=0", "remove 0", "move 249 0", "move 0 249", "disable 0,100,249", "add chain=input"} {
		result, err := new(Session).Execute(cfg, Live{}, "/ip firewall filter "+line)
		require.NoError(t, err)
		assert.Less(t, DeltaOf(result.Config, cfg).Size(), 4500, line)
	}
}

func TestUndoLine(t *testing.T) {
	before := Default()
	before.Identity = "before"
	live := Live{Undo: func() (Config, error) { return before, nil }, Redo: func() (Config, error) { return Config{}, errors.New("failure: nothing to redo") }}
	result, err := new(Session).Execute(Default(), live, "undo")
	require.NoError(t, err)
	assert.True(t, result.Changed)
	assert.Equal(t, -1, result.History)
	assert.True(t, before.Equal(result.Config))
	result, err = Do(Default(), live, "", "undo")
	require.NoError(t, err)
	assert.True(t, result.Changed)
	assert.Equal(t, -1, result.History)
	// Who may not change users may not undo what others have changed of them.
	live.Denied = MayPolicy
	_, err = new(Session).Execute(Default(), live, "/undo")
	require.NoError(t, err)
	before.SetPassword(Admin, "x")
	_, err = new(Session).Execute(Default(), live, "/undo")
	assert.Equal(t, ErrNotPermitted, err)
	live.Denied = MayWrite
	_, err = new(Session).Execute(Default(), live, "/undo")
	assert.Equal(t, ErrNotPermitted, err)
	live.Denied = 0
	_, err = new(Session).Execute(Default(), live, "/undo")
	require.NoError(t, err)
	_, err = new(Session).Execute(Default(), live, "/redo")
	assert.EqualError(t, err, "failure: nothing to redo")
	_, err = new(Session).Execute(Default(), live, "/system identity set name=x; /undo")
	assert.EqualError(t, err, "failure: undo and redo need a line of their own")
	_, err = new(Session).Execute(Default(), Live{}, "/undo")
	assert.ErrorContains(t, err, "bad command name undo")
}
