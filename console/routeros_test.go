package console

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A property that RouterOS has is never taken for the abbreviation of another.
func TestAbsentProperties(t *testing.T) {
	for _, test := range []struct{ name, line, err string }{
		{"log of a rule that drops", "/ip firewall filter add action=drop chain=forward log=yes log-prefix=DROP", ""},
		{"no log", `/ip firewall filter add action=drop chain=input log=no log-prefix=""`, ""},
		{"an abbreviation", "/ip firewall filter add action=log chain=input log-p=DROP", ""},
		{"a matcher that would narrow the rule", "/ip firewall nat add chain=srcnat action=masquerade psd=21,3s,3,1",
			"Postern has no psd (line 1 column 53)"},
		{"no such policy", "/ip firewall filter add chain=forward ipsec-policy=in",
			"ambiguous value of ipsec-policy, more than one possible value matches input; expected in,none | in,ipsec, not \"in\""},
		{"an action", "/ip firewall filter add chain=input protocol=tcp action=tarpit", "Postern has no action=tarpit; expected accept | drop | reject | log | passthrough | " +
			"jump | return | fasttrack-connection | add-src-to-address-list | add-dst-to-address-list"},
		{"an action of another table", "/ip firewall mangle add chain=forward action=sniff-tzsp", "Postern has no action=sniff-tzsp; expected accept | change-dscp | " +
			"change-mss | change-ttl | mark-connection | mark-packet | mark-routing | log | passthrough | jump | return | add-src-to-address-list | add-dst-to-address-list"},
		{"a matcher without a value", `/ip firewall filter add chain=input action=accept hotspot="" content="" layer7-protocol=""`, ""},
		{"a matcher with one", "/ip firewall filter add chain=input action=accept hotspot=auth", `Postern has no hotspot=auth (line 1 column 51); expected hotspot=""`},
		{"a matcher that is unset", "/ip firewall nat add chain=srcnat action=masquerade !psd", ""},
		{"of a card", "/interface ethernet set [ find default-name=ether1 ] arp=enabled disable-running-check=no l2mtu=1598", ""},
		{"of a card, and not the default", "/interface ethernet set [ find default-name=ether1 ] auto-negotiation=no full-duplex=no speed=100Mbps",
			"Postern has no full-duplex=no (line 1 column 74); expected full-duplex=yes"},
		{"of a bridge's port", "/interface bridge add name=b; /interface bridge port add bridge=b interface=ether1 path-cost=10 hw=no trusted=yes", ""},
		{"another tag", "/interface bridge add name=b vlan-filtering=yes ether-type=0x88a8",
			"Postern has no ether-type=0x88a8 (line 1 column 49); expected ether-type=0x8100"},
		{"what came from outside to no host", `/ip firewall filter add action=drop chain=forward comment="defconf: drop all from WAN not DSTNATed" ` +
			"connection-nat-state=!dstnat connection-state=new in-interface=ether1", ""},
		{"of the SOCKS server", "/ip socks set connection-idle-timeout=2m enabled=no max-connections=200 port=1080 vrf=main", ""},
		{"the SOCKS server in a table of its own", "/ip socks set vrf=red", "Postern has no vrf=red (line 1 column 15); expected vrf=main"},
		{"empty or nothing", "/ip dns set use-doh-server=https://1.1.1.1/dns-query",
			`Postern has no use-doh-server=https://1.1.1.1/dns-query (line 1 column 13); expected use-doh-server=""`},
		{"one of several", "/interface vlan add interface=ether1 name=v loop-protect=on",
			"Postern has no loop-protect=on (line 1 column 45); expected loop-protect=default | off"},
		{"of the clock", "/system clock set time-zone-autodetect=no time-zone-name=Europe/Riga", ""},
		{"all speeds", "/interface ethernet set ether1 advertise=10M-baseT-half,10M-baseT-full,100M-baseT-half,100M-baseT-full,1G-baseT-half,1G-baseT-full", ""},
		{"an MTU that is computed", "/interface bridge add name=b mtu=auto", ""},
		{"an address's network", "/ip address add address=192.168.88.1/24 comment=defconf interface=ether2 network=192.168.88.0", ""},
		{"in any order", "/ip address add network=192.168.88.0 interface=ether2 address=192.168.88.1/24", ""},
		{"another network", "/ip address add address=192.168.88.1/24 interface=ether2 network=192.168.89.0",
			`invalid value for argument network; expected 192.168.88.0, not "192.168.89.0"`},
		{"of an address that changes", "/ip address add address=10.0.0.1/8 interface=ether2; /ip address set 0 address=10.1.1.1/16 network=10.1.0.0", ""},
		{"of the address before", "/ip address add address=10.0.0.1/8 interface=ether2; /ip address set 0 address=10.1.1.1/16 network=10.0.0.0",
			`invalid value for argument network; expected 10.1.0.0, not "10.0.0.0"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := Default()
			result, err := new(Session).Execute(before, fullLive(), test.line)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				assert.Equal(t, Default(), result.Config)
				return
			}
			require.NoError(t, err)
			for name := range strings.FieldsSeq("log=no hotspot path-cost hw= network use-doh l2mtu advertise vrf") {
				assert.NotContains(t, Export(result.Config), name)
			}
		})
	}
}

// The menus that exports of RouterOS have most, in lines of them. Each gets one sentence, and none is called a syntax error.
func TestCommonMenus(t *testing.T) {
	for line := range strings.Lines(`/queue tree add name=a parent=global
/queue type set 0 kind=pfifo
/interface wireless set [ find default-name=wlan1 ] ssid=x
/interface wifi configuration add name=x
/caps-man channel add name=a
/ipv6 address add address=::1
/ipv6 nd set [ find default=yes ] disabled=yes
/snmp set enabled=yes
/tool e-mail set address=1.2.3.4
/tool netwatch add host=1.1.1.1 down-script="/ip route disable 0"
/tool sniffer set file-name=x
/tool fetch url=http://x/y
/system script add dont-require-permissions=no name=a source=":log info x"
/system leds set 0 leds=x
/system watchdog set watchdog-timer=no
/system sup-output set name="a \
    b"
/ip hotspot profile set [ find default=yes ] html-directory=hotspot
/ip ipsec peer add name=a
/ip dhcp-server option sets add name=a
/ip dhcp-client option add code=1 name=a
/ip upnp interfaces add interface=ether1 type=external
/ip cloud set ddns-enabled=yes
/ip vrf add name=a
/ip smb shares set [ find default=yes ] directory=/pub
/ppp profile add name=a
/ppp secret add name=x
/radius add address=1.1.1.1
/interface vrrp add interface=ether1
/interface l2tp-server server set enabled=yes
/interface wireguard peers add interface=wg0
/interface ovpn-client add name=a
/interface gre add name=a
/interface bonding add name=b
/interface lte apn set [ find default=yes ] apn=x
/interface ethernet switch port set 0 vlan-mode=secure
/interface ethernet poe set ether1 poe-out=off
/interface bridge filter add chain=forward
/interface detect-internet set detect-interface-list=all
/routing ospf instance add name=a
/routing bgp connection add name=a
/routing filter rule add chain=a
/routing igmp-proxy interface add interface=ether1
/routing pimsm instance add name=a
/mpls ldp set enabled=yes
/user aaa set use-radius=yes
/user-manager set enabled=yes
/lcd pin set hide-pin-number=yes
/container config set ram-high=1
/disk set usb1 name=x
/port set 0 name=serial0
/dude set enabled=yes
/zerotier set zt1 comment=x
`) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, " ") {
			continue // the second half of a note
		}
		if strings.HasSuffix(line, "\\") {
			line += "\n    b\""
		}
		_, err := new(Session).Execute(Default(), fullLive(), line)
		require.Error(t, err, line)
		words := strings.Fields(line)
		assert.Regexp(t, `^Postern has no /[a-z0-9 -]+ \(line 1 column \d+\)(: [A-Za-z /=-]+)?$`, err.Error(), line)
		assert.True(t, strings.HasPrefix(err.Error(), "Postern has no "+words[0]), line)
	}
}

// Each entry is of a menu that is there, and of a property that is not.
func TestAbsentTables(t *testing.T) {
	known := map[string]*menu{}
	for _, m := range menus() {
		known[m.path] = m
	}
	for path, entries := range absentProperties() {
		m := known[path]
		require.NotNil(t, m, path)
		seen := map[string]bool{}
		for entry := range strings.FieldsSeq(entries) {
			name, _, _ := strings.Cut(entry, "=")
			_, own := m.property(name)
			assert.False(t, own || seen[name], "/%s %s", path, name)
			seen[name] = true
		}
	}
}

// Menus that Postern lacks and scripts are told as what they are.
func TestAbsentMenus(t *testing.T) {
	for _, test := range []struct{ line, err string }{
		{"/interface wireless", "Postern has no /interface wireless (line 1 column 12)"},
		{"/interface wireless security-profiles set [ find default=yes ] mode=none", "Postern has no /interface wireless (line 1 column 12)"},
		{"/interface/wifi", "Postern has no /interface wifi (line 1 column 12)"},
		{"/caps-man manager set enabled=yes", "Postern has no /caps-man (line 1 column 2)"},
		{"/ip firewall calea add chain=prerouting action=drop", "Postern has no /ip firewall calea (line 1 column 14)"},
		{"/interface wireles", "bad command name wireles (line 1 column 12); expected ethernet, bridge, vlan, pppoe-client, list, set, enable, disable, comment, find, get, print, monitor-traffic, export"},
		{"/system backup save name=x", "Postern has no /system backup (line 1 column 9): /export show-sensitive shows all that is set, which /import replace=yes takes again"},
		{"/system/backup/load name=x", "Postern has no /system backup (line 1 column 9): /export show-sensitive shows all that is set, which /import replace=yes takes again"},
		{"/system scheduler add name=a on-event=b", "Postern has no /system scheduler (line 1 column 9): Postern runs no scripts"},
		{"/ip firewall mangle add chain=prerouting action=mark-connection new-connection-mark=a per-connection-classifier=both-addresses:2/2",
			"invalid value for argument per-connection-classifier; expected REMAINDER less than DENOMINATOR, 2, not \"2\""},
		{"/import file-name=x.rsc", ""},
		{"/file/print", ""},
		{"/ip address edit 0 address", "edit is for a person at a terminal (line 1 column 13): set changes a value"},
		{"/system identity edit name", "edit is for a person at a terminal (line 1 column 18): set changes a value"},
		{"/log edit", "bad command name edit (line 1 column 6); expected print, export"},
		{"/put x", "Postern runs no scripts (line 1 column 2)"},
		{`:put "hello"`, "Postern runs no scripts (line 1 column 1)"},
		{`:if ([/system identity get name] = "x") do={`, "Postern runs no scripts (line 1 column 1)"},
		{"{", "Postern runs no scripts (line 1 column 1)"},
		{"}", "Postern runs no scripts (line 1 column 1)"},
		{"$f", "Postern runs no scripts (line 1 column 1)"},
		{"/system identity set name=$n", `Postern runs no scripts (line 1 column 27); expected a value with such a character to stand in quotes ("...")`},
		{`/system identity set name="a$n"`, `Postern runs no scripts (line 1 column 29); expected \$ for a dollar sign`},
		{"/system identity set name=[:pick abc 1]", "Postern runs no scripts (line 1 column 27); expected [find ...]"},
		{";;; a comment; /nothing", ""},
		{"/system identity;;; a comment", ""},
	} {
		t.Run(test.line, func(t *testing.T) {
			_, err := new(Session).Execute(Default(), fullLive(), test.line)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
		})
	}
	for path, names := range absentMenus() {
		x := execution{menus: menus(), live: fullLive()}
		m := x.menu(path)
		require.Equal(t, path, m.path)
		below, commands := x.below(m)
		for name := range strings.FieldsSeq(names) {
			for _, child := range below {
				assert.NotEqual(t, name, child.name(), path)
			}
			for _, c := range commands {
				assert.NotEqual(t, name, c.name, path)
			}
		}
	}
}

// Lines of RouterOS's exports that mean something else here than they say, or the same in other words.
func TestOtherWords(t *testing.T) {
	servers := "/system ntp client\nset servers=10.0.0.1,time.example\n"
	for _, test := range []struct{ name, text, output, export, err string }{
		{"a time zone", "/system clock set time-zone-name=Europe/Riga\n",
			"Postern has no time zone Europe/Riga: the clock goes by /system clock manual, which is +00:00\n", "", ""},
		{"no time zone", "/system clock set time-zone-name=Etc/UTC\n", "", "", ""},
		{"not that time zone", "/system clock manual set time-zone=+02:00\n/system clock set time-zone-name=UTC\n",
			"Postern has no time zone UTC: the clock goes by /system clock manual, which is +02:00\n", "/system clock manual\nset time-zone=\"+02:00\"\n", ""},
		{"by hand", "/system clock set time-zone-name=manual time-zone-autodetect=no\n", "", "", ""},
		{"time servers of version 7", "/system/ntp/client/servers\nadd address=10.0.0.1\nadd address=time.example iburst=yes\n", "", servers, ""},
		{"time servers of version 6", "/system ntp client\nset primary-ntp=10.0.0.1 secondary-ntp=time.example\n", "", servers, ""},
		{"one time server of version 6", "/system ntp client\nset enabled=yes primary-ntp=10.0.0.1 secondary-ntp=0.0.0.0\n", "",
			"/system ntp client\nset enabled=yes servers=10.0.0.1\n", ""},
		{"time servers, changed", "/system ntp client set servers=a,b\n/system ntp client servers remove 0\n/system ntp client servers add address=c place-before=[find address=b]\n" +
			"/system ntp client servers set [find address=b] address=d\n", "", "/system ntp client\nset servers=c,d\n", ""},
		{"time servers, by both", "/system ntp client servers; add address=a; set 0 address=b; /system ntp client; set servers=x,y,z; servers print; servers remove 2\n",
			" # ADDRESS\n 0 x\n 1 y\n 2 z\n", "/system ntp client\nset servers=x,y\n", ""},
		{"too many time servers", "/system ntp client set servers=a,b,c,d\n/system ntp client servers add address=e\n", "", "", "failure: no more than 4 items in /system ntp client servers (line 2)"},
		{"where the log goes", "/system logging action\nset 3 remote=10.0.0.9\n/system logging\nadd action=remote prefix=gw topics=firewall\n", "",
			"/system logging\nadd action=remote prefix=gw topics=firewall\n/system logging action\nset remote remote=10.0.0.9\n", ""},
		{"another place for the log", "/system logging action\nset 0 memory-lines=500\n", "", "", "expected end of command (line 2 column 7); expected one of remote, remote-port"},
		{"a long name of a port", "/interface ethernet set [ find default-name=ether1 ] name=ether1-master-local-gateway\n/ip address add address=10.0.0.1/24 interface=ether1-master-local-gateway\n" +
			"/ip address print count-only where interface=ether1-master-local-gateway\n", "2\n",
			"/interface ethernet\nset [find default-name=ether1] name=ether1-master-local-gateway\n/ip address\nadd address=10.0.0.1/24 interface=ether1-master-local-gateway\n", ""},
		{"too long a name of a port", "/interface ethernet set ether1 name=ether1-master-local-gateway-123456789\n", "", "",
			`invalid value for argument name; expected name: 1..32 of a-z, A-Z, 0-9 and ._-, a letter first, not "ether1-master-local-gateway-123456789" (line 1)`},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := new(Session).Import(Default(), fullLive(), test.text, func(c Config) error { return Validate(c, []string{"ether1", "ether2"}) })
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.output, result.Output)
			assert.Equal(t, test.export, strings.ReplaceAll(Export(result.Config), "\\\n    ", ""))
		})
	}
	// The number that RouterOS exports is no number of an item here.
	_, err := new(Session).Execute(Default(), fullLive(), "/system logging action set 3 remote=10.0.0.1")
	require.EqualError(t, err, "no such item: 3")
	// A second server would be the only one.
	for _, name := range []string{"primary-ntp", "secondary-ntp"} {
		_, err = new(Session).Execute(Default(), fullLive(), "/system ntp client set "+name+"=10.0.0.1")
		require.EqualError(t, err, "Postern has no "+name+" (line 1 column 24)")
	}
}

func TestWhereIn(t *testing.T) {
	cfg, err := Load("cfg", strings.NewReader("/ip address\nadd address=10.1.0.1/16 interface=ether1\nadd address=192.168.0.1/24 interface=ether2\n"+
		"/ip firewall filter\nadd chain=input src-address=10.0.0.0/8\nadd chain=input src-address=10.2.0.0/16\nadd chain=input src-address=!10.2.0.0/16\nadd chain=input\n"))
	require.NoError(t, err)
	for _, test := range []struct{ line, output, err string }{
		{"/ip address print count-only where address in 10.1.0.0/16", "1\n", ""},
		{"/ip address print count-only where address in 10.1.0.0/17", "0\n", ""}, // not the whole network
		{"/ip address print count-only where address in 10.0.0.0/8 or interface=ether2", "2\n", ""},
		{"/ip address print count-only where address in 10.0.0.0/8 and interface=ether2", "0\n", ""},
		{"/ip address print count-only where !(address in 10.0.0.0/8)", "1\n", ""},
		{"/ip firewall filter print count-only where src-address in 10.0.0.0/8", "2\n", ""},
		{"/ip firewall filter print count-only where src-address in 10.2.0.0/16", "1\n", ""},
		{"/ip firewall filter print count-only where src-address in 10.2.0.0-10.2.255.255 chain=input", "1\n", ""},
		{"/ip socks connections print count-only where src-address in 192.168.0.0/16", "2\n", ""},
		{"/ip address print where address in x", "", "invalid value of address (line 1 column 25); expected in IP address/netmask"},
		{"/ip address print where address in", "", "ambiguous property name in (line 1 column 33); expected interface, invalid"},
	} {
		t.Run(test.line, func(t *testing.T) {
			result, err := new(Session).Execute(cfg, Live{Connections: fullLive().Connections}, test.line)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.output, result.Output)
		})
	}
}

// RouterOS's home configuration, as version 7 exports it, is taken as it is.
func TestHomeOfRouterOS(t *testing.T) {
	const export = `# 2024-06-01 12:00:00 by RouterOS 7.15.2
# software id = ABCD-EFGH
#
/interface bridge
add admin-mac=18:FD:74:00:00:01 auto-mac=no comment=defconf name=bridge port-cost-mode=short
/interface list
add comment=defconf name=WAN
add comment=defconf name=LAN
/interface wireless security-profiles
set [ find default=yes ] supplicant-identity=MikroTik
/ip pool
add name=default-dhcp ranges=192.168.88.10-192.168.88.254
/ip dhcp-server
add address-pool=default-dhcp disabled=no interface=bridge lease-time=10m name=defconf
/disk settings
set auto-media-interface=bridge auto-media-sharing=yes auto-smb-sharing=yes
/interface bridge port
add bridge=bridge comment=defconf interface=ether2 internal-path-cost=10 path-cost=10
/ip neighbor discovery-settings
set discover-interface-list=LAN
/interface list member
add comment=defconf interface=bridge list=LAN
add comment=defconf interface=ether1 list=WAN
/ip address
add address=192.168.88.1/24 comment=defconf interface=bridge network=192.168.88.0
/ip dhcp-client
add comment=defconf interface=ether1
/ip dhcp-server network
add address=192.168.88.0/24 comment=defconf dns-server=192.168.88.1 gateway=192.168.88.1
/ip dns
set allow-remote-requests=yes
/ip dns static
add address=192.168.88.1 comment=defconf name=router.lan type=A
/ip firewall filter
add action=accept chain=input comment="defconf: accept established,related,untracked" connection-state=established,related,untracked
add action=drop chain=input comment="defconf: drop invalid" connection-state=invalid
add action=accept chain=input comment="defconf: accept ICMP" protocol=icmp
add action=accept chain=input comment="defconf: accept to local loopback (for CAPsMAN)" dst-address=127.0.0.1
add action=drop chain=input comment="defconf: drop all not coming from LAN" in-interface-list=!LAN
add action=accept chain=forward comment="defconf: accept in ipsec policy" ipsec-policy=in,ipsec
add action=accept chain=forward comment="defconf: accept out ipsec policy" ipsec-policy=out,ipsec
add action=fasttrack-connection chain=forward comment="defconf: fasttrack" connection-state=established,related hw-offload=yes
add action=accept chain=forward comment="defconf: accept established,related, untracked" connection-state=established,related,untracked
add action=drop chain=forward comment="defconf: drop invalid" connection-state=invalid
add action=drop chain=forward comment="defconf: drop all from WAN not DSTNATed" connection-nat-state=!dstnat connection-state=new in-interface-list=WAN
/ip firewall nat
add action=masquerade chain=srcnat comment="defconf: masquerade" ipsec-policy=out,none out-interface-list=WAN
/ipv6 firewall address-list
add address=::/128 comment="defconf: unspecified address" list=bad_ipv6
add address=::1/128 comment="defconf: lo" list=bad_ipv6
/ipv6 firewall filter
add action=accept chain=input comment="defconf: accept established,related,untracked" connection-state=established,related,untracked
add action=accept chain=input comment="defconf: accept UDP traceroute" dst-port=\
    33434-33534 protocol=udp
/tool mac-server
set allowed-interface-list=LAN
/tool mac-server mac-winbox
set allowed-interface-list=LAN
`
	ports := []string{"ether1", "ether2"}
	live := Live{RemoteLog: true, Discovered: func() ([]DiscoveredNeighbor, error) { return nil, nil }}
	result, err := new(Session).Import(Default(), live, export, func(c Config) error { return Validate(c, ports) })
	require.NoError(t, err)
	assert.Equal(t, `Postern has no /interface wireless security-profiles, and needs none of its lines (line 9)
Postern has no /disk settings, and needs none of its lines (line 15)
Postern has no /ipv6 firewall address-list, and needs none of its lines (line 48)
Postern has no /ipv6 firewall filter, and needs none of its lines (line 51)
Postern has no /tool mac-server, and needs none of its lines (line 55)
Postern has no /tool mac-server mac-winbox, and needs none of its lines (line 57)
`, result.Output)
	written := Export(result.Config)
	for _, words := range []string{"in-interface-list=!LAN", "ipsec-policy=in,ipsec", "ipsec-policy=out,none", "action=fasttrack-connection",
		"connection-nat-state=!dstnat", "out-interface-list=WAN", "dst-address=127.0.0.1", "admin-mac=18:FD:74:00:00:01 auto-mac=no",
		"lease-time=10m", "dns-server=192.168.88.1 gateway=192.168.88.1", "allow-remote-requests=yes", "name=router.lan"} {
		assert.Contains(t, strings.ReplaceAll(written, "\\\n    ", ""), words)
	}
	again, err := new(Session).Import(Default(), live, written, nil)
	require.NoError(t, err)
	assert.True(t, result.Config.Equal(again.Config))
	rules := result.Config.Rules()
	require.Len(t, rules.Filter, 11)
	for i, want := range map[int]bool{2: true, 4: false, 5: false, 6: false, 7: true} {
		assert.Equal(t, want, rules.InInterfaces(rules.Filter[i]).Has("bridge"), rules.Filter[i].String())
	}
	assert.True(t, closedFrom(rules, "ether1", 1080))
	assert.False(t, closedFrom(rules, "bridge", 1080))
}

// Lines that say nothing to a router without what they are about are left out of an import, and only
// these.
func TestIdleMenus(t *testing.T) {
	for _, test := range []struct{ name, text, err, output string }{
		{"a path of one word", "/ipv6/firewall/filter add action=drop chain=input", "", "Postern has no /ipv6 firewall filter, and needs none of its lines (line 1)\n"},
		{"comments between, and again", "/port\n# a comment\n\nset 0 name=serial0\n/system identity\n/port set 1 name=serial1\n", "", "Postern has no /port, and needs none of its lines (line 1)\n"},
		{"back to what is there", "/tool mac-server\nset allowed-interface-list=LAN\n/system identity\nset name=a", "",
			"Postern has no /tool mac-server, and needs none of its lines (line 1)\n"},
		{"what is off", "/ip upnp\nset enabled=no show-dummy-rule=yes\n/ip/ssh set strong-crypto=yes", "",
			"Postern has no /ip upnp, and is as its lines say (line 2)\nPostern has no /ip ssh, and is as its lines say (line 3)\n"},
		{"a kind of queues", "/queue type\nset 0 pfifo-limit=50\nadd kind=pcq name=x pcq-rate=1M\nset pcq-upload-default pcq-rate=0", "", "Postern has no /queue type, and needs none of its lines (line 1)\n"},
		{"a rate of a kind of queues", "/queue type\nset pcq-upload-default pcq-limit=50KiB pcq-rate=1M",
			"Postern has no /queue type (line 2 column 40); expected pcq-rate=0: /queue simple bounds each host by a queue of its own with max-limit=", ""},
		{"what is on", "/ip upnp\nset enabled=yes", "Postern has no /ip upnp (line 2 column 5); expected enabled=no", ""},
		{"helpers that are off", "/ip firewall service-port\nset sip disabled=yes ports=5060,5061 sip-direct-media=yes sip-timeout=1h\nset ftp disabled=yes ports=21\nset udplite,dccp,sctp disabled=yes", "", ""},
		{"a helper", "/ip firewall service-port\nset ftp disabled=no\nset h323 disabled=no", "Postern has no helper for h323; expected disabled=yes (line 3)", ""},
		{"another property", "/ip ssh set foo=1", "Postern has no /ip ssh (line 1 column 13)", ""},
		{"an item of settings", "/ip upnp\nadd enabled=no", "Postern has no /ip upnp (line 2 column 1)", ""},
		{"a value that is searched", "/ip upnp\nset enabled=[find]", "Postern has no /ip upnp (line 2 column 5); expected enabled=no", ""},
		{"services", "/ip service\nset telnet disabled=yes\nset ssh port=2200\nset telnet port=24\n/ip/service/set www port=81", "",
			"Postern has no service telnet, and needs none of its lines (line 2)\n"},
		{"no service", "/ip service\nset gopher disabled=yes", "no such item: gopher (line 2)", ""},
		{"another command", "/system identity\n/ipv6 firewall filter\nprint", "Postern has no /ipv6 firewall filter (line 3 column 1)", ""},
		{"another command, at once", "/ipv6 firewall filter print", "Postern has no /ipv6 (line 1 column 2)", ""},
		{"several commands", "/system identity\n/port\nset 0 name=a; set name=b", "Postern has no /port (line 3 column 1)", ""},
		{"a script", "/port\n:put 1", "Postern runs no scripts (line 2 column 1)", ""},
		{"a menu beside it", "/ipv6 address\nadd address=fd00::1", "Postern has no /ipv6 (line 1 column 2)", ""},
		{"a name that begins alike", "/system notes\nset a=b", "bad command name notes (line 1 column 9); expected resource, clock, identity, note, logging, history, ntp, routerboard, package, health, reboot, shutdown, reset-configuration, upgrade, export", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := new(Session).Import(Default(), fullLive(), test.text, nil)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.output, result.Output)
			assert.Equal(t, strings.Contains(test.text, "name=a"), result.Config.Identity == "a")
		})
	}
	known := func(path string) bool {
		return slices.ContainsFunc(menus(), func(m *menu) bool { return m.path == path })
	}
	for _, path := range append(slices.Collect(maps.Keys(idleSettings())), idleMenus...) {
		assert.False(t, known(path), path)
		var parts []string
		absent := false
		for part := range strings.FieldsSeq(path) {
			absent = absent || slices.Contains(strings.Fields(absentMenus()[strings.Join(parts, " ")]), part)
			parts = append(parts, part)
		}
		assert.True(t, absent, path)
	}
}
