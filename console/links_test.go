package console

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/netcfg"
)

// linkLive is a machine that has two of its three ports, and the bridge and the VLAN of
// linksConfig.
func linkLive() Live {
	l := fullLive()
	ports := l.Links
	l.Links = func() ([]netcfg.LinkState, error) {
		all, err := ports()
		all[1].Bridge = "bridge1"
		return append(slices.Clone(all),
			netcfg.LinkState{Name: "bridge1", Type: netcfg.BridgeType, Present: true, Up: true, Running: true, MTU: 1500,
				MAC: ether.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x57}, RxBytes: 100, RxPackets: 2},
			netcfg.LinkState{Name: "guests", Type: netcfg.VLANType, Present: true, Up: true, MTU: 1400, MAC: ether.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x57}},
			netcfg.LinkState{Name: "lost", Type: netcfg.VLANType}), err
	}
	l.VLANMembers = func() ([]netcfg.VLANMembers, error) {
		return []netcfg.VLANMembers{
			{Bridge: "bridge1", IDs: netcfg.VLANRange{From: 1, To: 1}, Untagged: []string{"bridge1", "ether2"}},
			{Bridge: "bridge1", IDs: netcfg.VLANRange{From: 20, To: 20}, Tagged: []string{"bridge1"}},
			{Bridge: "bridge1", IDs: netcfg.VLANRange{From: 30, To: 39}, Tagged: []string{"ether2"}},
			{Bridge: "bridge1", IDs: netcfg.VLANRange{From: 40, To: 40}, Tagged: []string{"ether2"}, Untagged: []string{"ether1"}},
		}, nil
	}
	l.Invalid = func(menu string) ([]int, error) {
		if menu == "interface vlan" {
			return []int{1}, nil
		}
		return nil, nil
	}
	return l
}

const linksConfig = `
/system identity set name=postern
/interface bridge add comment=LAN name=bridge1
/interface vlan add interface=bridge1 mtu=1400 name=guests vlan-id=20
/interface vlan add interface=usb1 name=lost vlan-id=4094
/interface bridge port add bridge=bridge1 interface=ether2
/interface bridge port add bridge=bridge1 interface=usb1 disabled=yes
/ip address add address=192.168.0.1/24 interface=bridge1
/ip address add address=192.168.20.1/24 interface=guests
/ip firewall filter add chain=input in-interface=bridge1
/ip firewall filter add chain=input in-interface=ether2
/ip firewall filter add chain=input in-interface=!ether2
/ip firewall filter add chain=input in-interface=lost
`

func TestLinkScreens(t *testing.T) {
	for _, test := range []struct {
		name, screen string
		width        int
	}{
		{name: "interface", screen: `[admin@postern] > interface print
Flags: X - disabled, I - invalid, R - running, S - slave
 #     NAME             TYPE      MTU   MAC-ADDRESS
 0  R  ether1           ether     1500  52:54:00:12:34:56
 1   S ether2           ether     1500  52:54:00:12:34:57
 2 I   usb1             ether
 3  R  ;;; LAN
       bridge1          bridge    1500  52:54:00:12:34:57
 4     guests           vlan      1400  52:54:00:12:34:57
 5 I   lost             vlan
[admin@postern] > interface print count-only where slave
1
[admin@postern] > interface disable 0,bridge1
[admin@postern] > interface comment [find type=vlan] "for guests"
[admin@postern] > interface set ether2,guests mtu=1300 disabled=yes
[admin@postern] > interface set [find name=guests] comment="for guests" name=visitors
[admin@postern] > interface set visitors name=guests disabled=no
[admin@postern] > interface set ether2 mtu=20
value of mtu out of range (68..65535)
[admin@postern] > interface set ether2 mtu=[find]
syntax error (line 1 column 26); expected a value with such a character to stand in quotes ("...")
[admin@postern] > interface set ether2 type=vlan
expected end of command (line 1 column 22); expected one of mtu, disabled, comment, name
[admin@postern] > interface set ether2,guests mtu="" disabled=no
[admin@postern] > interface vlan set guests mtu=1400
[admin@postern] > interface print
Flags: X - disabled, I - invalid, R - running, S - slave
 #     NAME             TYPE      MTU   MAC-ADDRESS
 0 XR  ether1           ether     1500  52:54:00:12:34:56
 1   S ether2           ether     1500  52:54:00:12:34:57
 2 I   usb1             ether
 3 XR  ;;; LAN
       bridge1          bridge    1500  52:54:00:12:34:57
 4     ;;; for guests
       guests           vlan      1400  52:54:00:12:34:57
 5 I   ;;; for guests
       lost             vlan
[admin@postern] > interface enable [find disabled]
[admin@postern] > interface comment 4,lost ""
[admin@postern] > interface find invalid
2,5
[admin@postern] > interface disable nothing
no such item: nothing
[admin@postern] > interface disable 6
no such item: 6
[admin@postern] > interface print count-only where disabled
0
[admin@postern] > interface print stats where type=bridge
Flags: X - disabled, I - invalid, R - running, S - slave
 #     NAME             RX-BYTE         TX-BYTE         RX-PACKET    TX-PACKET
 0  R  ;;; LAN
       bridge1          100             0               2            0
`},
		{name: "bridge", width: 80, screen: `[admin@postern] > interface bridge
[admin@postern] interface bridge> print
Flags: X - disabled, I - invalid, R - running, S - slave
 #     NAME             ACTUAL-MTU MAC-ADDRESS       PROTOCOL-MODE
 0  R  ;;; LAN
       bridge1          1500       52:54:00:12:34:57 none
[admin@postern] interface bridge> print detail
Flags: X - disabled, I - invalid, R - running, S - slave
 0  R  ;;; LAN
       name=bridge1 auto-mac=yes arp=enabled protocol-mode=none
       vlan-filtering=no pvid=1 frame-types=admit-all ingress-filtering=yes
       actual-mtu=1500 mac-address=52:54:00:12:34:57
[admin@postern] interface bridge> print stats
Flags: X - disabled, I - invalid, R - running, S - slave
 #     NAME             RX-BYTE         TX-BYTE         RX-PACKET    TX-PACKET
 0  R  ;;; LAN
       bridge1          100             0               2            0
[admin@postern] interface bridge> add name=b2 protocol-mode=stp mtu=1400
[admin@postern] interface bridge> disable b2
[admin@postern] interface bridge> set bridge1 comment=""
[admin@postern] interface bridge> print
Flags: X - disabled, I - invalid, R - running, S - slave
 #     NAME             ACTUAL-MTU MAC-ADDRESS       PROTOCOL-MODE
 0  R  bridge1          1500       52:54:00:12:34:57 none
 1 X   b2                                            stp
[admin@postern] interface bridge> add name=5
invalid value for argument name; expected name: 1..15 of a-z, A-Z, 0-9 and ._-, a letter first, not "5"
[admin@postern] interface bridge> remove nothing
no such item: nothing
[admin@postern] interface bridge> remove [find name=b2]
[admin@postern] interface bridge> export
/interface bridge
add name=bridge1
/interface bridge port
add bridge=bridge1 interface=ether2
add bridge=bridge1 disabled=yes interface=usb1
`},
		{name: "bridge port", screen: `[admin@postern] > interface bridge port print
Flags: X - disabled, I - invalid, D - dynamic
 #   INTERFACE        BRIDGE           PVID FRAME-TYPES
 0   ether2           bridge1          1    admit-all
 1 X usb1             bridge1          1    admit-all
[admin@postern] > interface bridge port enable 1
[admin@postern] > interface bridge port print
Flags: X - disabled, I - invalid, D - dynamic
 #   INTERFACE        BRIDGE           PVID FRAME-TYPES
 0   ether2           bridge1          1    admit-all
 1 I usb1             bridge1          1    admit-all
`},
		{name: "vlan", screen: `[admin@postern] > interface vlan print
Flags: X - disabled, I - invalid, R - running, S - slave
 #     NAME             ACTUAL-MTU VLAN-ID INTERFACE
 0     guests           1400       20      bridge1
 1 I   lost                        4094    usb1
[admin@postern] > interface vlan set guests vlan-id=4095
value of vlan-id out of range (1..4094)
[admin@postern] > interface vlan export
/interface vlan
add interface=bridge1 mtu=1400 name=guests vlan-id=20
add interface=usb1 name=lost vlan-id=4094
`},
		{name: "renamed", screen: `[admin@postern] > interface ethernet set ether1 name=wan
[admin@postern] > interface ethernet set 1 name=ether1 mtu=1400
[admin@postern] > interface ethernet print detail where name=wan
Flags: X - disabled, I - invalid, R - running, S - slave
 0  R  name=wan default-name=ether1 mtu=1500 mac-address=52:54:00:12:34:56 arp=enabled auto-negotiation=yes
[admin@postern] > interface print
Flags: X - disabled, I - invalid, R - running, S - slave
 #     NAME             TYPE      MTU   MAC-ADDRESS
 0  R  wan              ether     1500  52:54:00:12:34:56
 1   S ether1           ether     1500  52:54:00:12:34:57
 2 I   usb1             ether
 3  R  ;;; LAN
       bridge1          bridge    1500  52:54:00:12:34:57
 4     guests           vlan      1400  52:54:00:12:34:57
 5 I   lost             vlan
[admin@postern] > interface bridge set bridge1 name=lan
[admin@postern] > interface vlan set guests name=visitors
[admin@postern] > ip address add address=10.1.0.1/24 interface=wan
[admin@postern] > ip address add address=10.2.0.1/24 interface=ether2
input does not match any value of interface; expected interface name, not "ether2"
[admin@postern] > interface ethernet disable ether2
no such item: ether2
[admin@postern] > interface ethernet set wan name=a/b
invalid value for argument name; expected name: 1..32 of a-z, A-Z, 0-9 and ._-, a letter first, not "a/b"
[admin@postern] > export
/interface ethernet
set [find default-name=ether1] name=wan
set [find default-name=ether2] mtu=1400 name=ether1
/interface bridge
add comment=LAN name=lan
/interface vlan
add interface=lan mtu=1400 name=visitors vlan-id=20
add interface=usb1 name=lost vlan-id=4094
/interface bridge port
add bridge=lan interface=ether1
add bridge=lan disabled=yes interface=usb1
/ip address
add address=192.168.0.1/24 interface=lan
add address=192.168.20.1/24 interface=visitors
add address=10.1.0.1/24 interface=wan
/ip firewall filter
add chain=input in-interface=lan
add chain=input in-interface=ether1
add chain=input in-interface=!ether1
add chain=input in-interface=lost
[admin@postern] > ip firewall filter set [find in-interface=!ether1] !in-interface
[admin@postern] > ip firewall filter print where !in-interface and !dynamic
Flags: X - disabled, I - invalid, D - dynamic
 0   chain=input action=accept
[admin@postern] > interface ethernet set usb1 mtu=1400
[admin@postern] > ip firewall filter set 0 in-interface=""
[admin@postern] > ip firewall filter export
/ip firewall filter
add chain=input in-interface=lan
add chain=input in-interface=ether1
add chain=input
add chain=input in-interface=lost
[admin@postern] > interface ethernet set wan !name
[admin@postern] > interface ethernet set [find default-name=ether2] name=ether2
[admin@postern] > interface ethernet export
/interface ethernet
set ether2 mtu=1400
set usb1 mtu=1400
[admin@postern] > ip address print count-only where interface=ether1
2
`},
		{name: "rules by a port of a bridge or a missing VLAN", screen: `[admin@postern] > ip firewall filter print where !dynamic
Flags: X - disabled, I - invalid, D - dynamic
 0   chain=input action=accept in-interface=bridge1
 1   chain=input action=accept in-interface=ether2
 2   chain=input action=accept in-interface=!ether2
 3 I chain=input action=accept in-interface=lost
`},
	} {
		t.Run(test.name, func(t *testing.T) { checkScreen(t, linksConfig, linkLive(), test.width, test.screen) })
	}
}

func TestCompleteLinks(t *testing.T) {
	cfg, err := Load("links", strings.NewReader(linksConfig))
	require.NoError(t, err)
	for line, want := range map[string][]string{
		"/ip address add interface=":            {"ether1", "ether2", "usb1", "bridge1", "guests", "lost"},
		"/interface bridge port add bridge=":    {"bridge1"},
		"/interface bridge port add interface=": {"ether1", "ether2", "usb1", "guests", "lost"},
		"/interface vlan set guests interface=": {"ether1", "ether2", "usb1", "bridge1"},
		"/interface bridge set ":                {"bridge1", "numbers"},
		"/interface vlan remove ":               {"guests", "lost", "numbers"},
		"/interface bridge set bridge1 proto":   {"protocol-mode"},
		"/interface bridge add protocol-mode=":  {"none", "stp"},
		"/interface ethernet set ether1 mac-ad": {"mac-address"},
	} {
		_, choices := new(Session).Complete(cfg, linkLive(), line)
		assert.Equal(t, want, choiceNames(choices), line)
	}
}

// The hardware address of a bridge is that of its ports, or one that is set.
func TestBridgeMAC(t *testing.T) {
	for _, test := range []struct{ lines, export, err string }{
		{"add name=b admin-mac=18:fd:74:00:00:01 auto-mac=no", "add admin-mac=18:FD:74:00:00:01 auto-mac=no name=b", ""},
		{"add admin-mac=18:FD:74:00:00:01 name=b", "add admin-mac=18:FD:74:00:00:01 name=b", ""},
		{"add name=b auto-mac=yes protocol-mode=none", "add name=b", ""},
		{"add name=b auto-mac=no admin-mac=2:0:0:0:0:1; set b auto-mac=yes !admin-mac", "", `invalid value for argument admin-mac; expected MAC address: xx:xx:xx:xx:xx:xx, not a group's, not "2:0:0:0:0:1"`},
		{"add name=b auto-mac=no admin-mac=02:00:00:00:00:01; set b auto-mac=yes !admin-mac", "add name=b", ""},
		{"add name=b admin-mac=01:00:00:00:00:01", "", `invalid value for argument admin-mac; expected MAC address: xx:xx:xx:xx:xx:xx, not a group's, not "01:00:00:00:00:01"`},
		{"add name=b auto-mac=no", "", "bridge b: auto-mac=no: expected admin-mac="},
		{"add name=b protocol-mode=rstp", "",
			`invalid value for argument protocol-mode; expected none | stp, not "rstp": Postern has no rstp; a neighbour that speaks it falls back to stp`},
		{"add name=b protocol-mode=r", "", `input does not match any value of protocol-mode; expected none | stp, not "r"`},
	} {
		t.Run(test.lines, func(t *testing.T) {
			result, err := new(Session).Execute(Default(), Live{}, "/interface bridge; "+test.lines)
			if err == nil {
				err = ValidateChange(Default(), result.Config, []string{"ether1"})
			}
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "/interface bridge\n"+test.export+"\n", Export(result.Config))
			again, err := Load("export", strings.NewReader(Export(result.Config)))
			require.NoError(t, err)
			assert.True(t, result.Config.Equal(again))
		})
	}
}

// A first bridge is missing, not the name of a port.
func TestNoBridge(t *testing.T) {
	cfg, err := Load("links", strings.NewReader("/interface bridge port add bridge=nobridge interface=ether1\n"))
	require.NoError(t, err)
	assert.EqualError(t, ValidateChange(Default(), cfg, []string{"ether1"}),
		"/interface bridge port 0: input does not match any value of bridge: nobridge; expected one that there is, and there is none")
}

// An address that no host can have, and one on two interfaces, cannot be set. What is kept with
// one can be loaded, and everything else about it changed.
func TestChangeOfAddresses(t *testing.T) {
	const (
		ofNetwork = "expected the address of a host, this is the address of the network itself"
		twice     = "expected each address on one interface, "
	)
	ports := []string{"ether1", "ether2", "ether3"}
	for _, test := range []struct{ name, before, line, err string }{
		{"network", "", "/ip address add address=192.168.0.0/24 interface=ether1", "/ip address 0: address=192.168.0.0/24: " + ofNetwork},
		{"broadcast", "", "/ip address add address=10.1.255.255/15 interface=ether1",
			"/ip address 0: address=10.1.255.255/15: expected the address of a host, this is the broadcast address of 10.0.0.0/15"},
		{"neither", "", "/ip address add address=10.0.255.255/15 interface=ether1; /ip address add address=10.1.0.0/15 interface=ether2", ""},
		{"the smallest network with a broadcast address", "", "/ip address add address=10.0.0.7/30 interface=ether1",
			"/ip address 0: address=10.0.0.7/30: expected the address of a host, this is the broadcast address of 10.0.0.4/30"},
		{"of two hosts", "", "/ip address add address=10.0.0.0/31 interface=ether1; /ip address add address=10.0.0.3/31 interface=ether1", ""},
		{"of one host", "", "/ip address add address=10.0.0.0/32 interface=ether1", ""},
		{"disabled", "", "/ip address add address=10.0.0.0/24 interface=ether1 disabled=yes", ""},
		{"enabled", "/ip address add address=10.0.0.0/24 interface=ether1 disabled=yes", "/ip address enable 0", "/ip address 0: address=10.0.0.0/24: " + ofNetwork},
		{"kept", "/ip address add address=10.0.0.0/24 interface=ether1", "/ip address set 0 interface=ether2 comment=x; /system identity set name=a", ""},
		{"kept, and another", "/ip address add address=10.0.0.0/24 interface=ether1", "/ip address add address=10.1.0.0/16 interface=ether1",
			"/ip address 1: address=10.1.0.0/16: " + ofNetwork},

		{"twice", "/ip address add address=192.168.0.1/24 interface=ether2", "/ip address add address=192.168.0.1/24 interface=ether1",
			"/ip address 1: address=192.168.0.1/24: " + twice + "ether2 has 192.168.0.1/24 already"},
		{"twice, in another network", "/interface ethernet set ether1 name=wan; /ip address add address=192.168.0.1/24 interface=wan",
			"/ip address add address=192.168.0.1/16 interface=ether2",
			"/ip address 1: address=192.168.0.1/16: " + twice + "wan has 192.168.0.1/24 already"},
		{"twice, on one interface", "/ip address add address=192.168.0.1/24 interface=ether2", "/ip address add address=192.168.0.1/16 interface=ether2",
			"address: address=192.168.0.1/16: expected each address once, ether2 has 192.168.0.1/24 already"},
		{"another of the network", "/ip address add address=192.168.0.1/24 interface=ether2", "/ip address add address=192.168.0.2/24 interface=ether1", ""},
		{"one of both disabled", "/ip address add address=192.168.0.1/24 interface=ether2", "/ip address add address=192.168.0.1/24 interface=ether1 disabled=yes", ""},
		{"instead", "/ip address add address=192.168.0.1/24 interface=ether2", "/ip address remove 0; /ip address add address=192.168.0.1/24 interface=ether1", ""},
		{"kept twice", "/ip address add address=192.168.0.1/24 interface=ether2; /ip address add address=192.168.0.1/24 interface=ether1",
			"/interface ethernet set ether2 name=lan; /ip address set 1 interface=ether3", ""},
		{"kept twice, and once more", "/ip address add address=192.168.0.1/24 interface=ether2; /ip address add address=192.168.0.1/24 interface=ether1",
			"/ip address add address=192.168.0.1/24 interface=ether3", "/ip address 1: address=192.168.0.1/24: " + twice + "ether2 has 192.168.0.1/24 already"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, err := Load("before", strings.NewReader(test.before))
			require.NoError(t, err)
			require.NoError(t, Validate(before, ports), "it can be loaded")
			require.NoError(t, ValidateChange(before, before, ports))
			result, err := new(Session).Execute(before, Live{}, test.line)
			require.NoError(t, err)
			if err = ValidateChange(before, result.Config, ports); test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
		})
	}
}

// A link that is in use cannot be removed: the error says what uses it.
func TestUsedLinks(t *testing.T) {
	ports := []string{"ether1", "ether2", "usb1"}
	for line, want := range map[string]string{
		"/interface bridge remove bridge1":                                      "/interface vlan 0: input does not match any value of interface: bridge1; it is in use by /interface vlan 0 (guests), /interface bridge port 0 (ether2), /interface bridge port 1 (usb1), /ip address 0 (192.168.0.1/24), ...",
		"/interface bridge set bridge1 name=lan":                                "",
		"/interface vlan remove guests":                                         "/ip address 1: input does not match any value of interface: guests; it is in use by /ip address 1 (192.168.20.1/24)",
		"/interface vlan remove lost":                                           "/ip firewall filter 3: input does not match any value of in-interface: lost; it is in use by /ip firewall filter 3 (input)",
		"/ip address remove 1; /interface vlan remove guests":                   "",
		"/interface ethernet set ether1 name=bridge1":                           "failure: already have interface with such name: bridge1",
		"/interface ethernet set ether1 name=ether2":                            "failure: already have interface with such name: ether2",
		"/interface ethernet set ether1 name=wan":                               "",
		"/interface bridge add name=ether1":                                     "failure: already have interface with such name: ether1",
		"/interface bridge port add bridge=bridge1 interface=guests":            "bridge port: interface=guests: this VLAN of bridge1 would make a loop",
		"/interface bridge port add bridge=guests interface=ether1":             "bridge port ether1: bridge=guests: expected a bridge",
		"/interface vlan add name=v interface=ether2":                           "VLAN v: interface=ether2: expected no port of a bridge, it is one of bridge1",
		"/interface vlan add name=v interface=ether1; /interface vlan remove v": "",
		"/interface bridge port set 0 bridge=nobridge":                          "/interface bridge port 0: input does not match any value of bridge: nobridge; expected bridge1",
		"/interface bridge port add bridge=bridge1 interface=ether9":            "/interface bridge port 2: input does not match any value of interface: ether9; expected ether1 | ether2 | usb1 | guests | lost",
		"/interface vlan add name=v interface=ether9":                           "/interface vlan 2: input does not match any value of interface: ether9; expected ether1 | ether2 | usb1 | bridge1",
		"/ip firewall filter add chain=input in-interface=!ether9":              "/ip firewall filter 4: input does not match any value of in-interface: !ether9; expected ether1 | ether2 | usb1 | bridge1 | guests | lost",
		"/interface bridge port remove [find]; /interface bridge remove bridge1; /ip address remove 0; /ip firewall filter remove 0": "/interface vlan 0: input does not match any value of interface: bridge1; it is in use by /interface vlan 0 (guests)",
	} {
		cfg, err := Load("links", strings.NewReader(linksConfig))
		require.NoError(t, err)
		require.NoError(t, Validate(cfg, ports))
		result, err := new(Session).Execute(cfg, linkLive(), line)
		require.NoError(t, err)
		err = ValidateChange(cfg, result.Config, ports)
		if want == "" {
			assert.NoError(t, err, line)
		} else {
			assert.EqualError(t, err, want, line)
		}
	}
}

// The flag I is of what stands on a port that is missing, by whatever name: here that of another port of the board.
func TestInvalidByOtherNames(t *testing.T) {
	cfg, err := Load("cfg", strings.NewReader("/interface ethernet\nset ether1 name=wan\nset usb1 name=ether1\n"+
		"/interface vlan\nadd name=v1 interface=wan vlan-id=5\nadd name=v2 interface=ether1 vlan-id=5\n"+
		"/interface pppoe-client\nadd name=p1 interface=v1 disabled=no\nadd name=p2 interface=v2 disabled=no\n"+
		"/ip firewall filter\nadd chain=forward in-interface=wan\nadd chain=forward in-interface=!ether1\nadd chain=forward in-interface=v1\n"+
		"add chain=forward in-interface=v2\nadd chain=forward in-interface=p1\nadd chain=forward in-interface=p2\n"))
	require.NoError(t, err)
	live := fullLive()
	require.NoError(t, Validate(cfg, []string{"ether1", "ether2", "usb1"}))
	result, err := new(Session).Execute(cfg, live, "/ip firewall filter print terse where invalid !dynamic")
	require.NoError(t, err)
	var invalid []string
	for word := range strings.FieldsSeq(result.Output) {
		if name, ok := strings.CutPrefix(word, "in-interface="); ok {
			invalid = append(invalid, name)
		}
	}
	assert.Equal(t, []string{"!ether1", "v2", "p2"}, invalid)
}
