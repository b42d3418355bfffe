package console

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/socks"
)

// fullLive is a machine on which no function of Live is nil and every Request is carried out.
func testFilled() []firewall.Filled {
	return []firewall.Filled{
		{List: "knocks", Address: netip.MustParseAddr("203.0.113.9"), Left: 59 * time.Second},
		{List: "knocks", Address: netip.MustParseAddr("203.0.113.10")},
	}
}

func fullLive() Live {
	l := testLive()
	l.Connections = func() ([]socks.Connection, error) {
		c := connection("192.168.0.2:1238", "10.5.8.8:21", 1163, 4625)
		c.Age, c.Idle, c.UserID = 65*time.Second, 1500*time.Millisecond, "a user"
		return []socks.Connection{c, {Src: netip.MustParseAddrPort("192.168.0.3:1"), Type: socks.Unknown}}, nil
	}
	offerCertificates(&l)
	l.VLANMembers = func() ([]netcfg.VLANMembers, error) { return nil, nil }
	l.PortModes = func(string) (netcfg.PortModes, error) {
		return netcfg.PortModes{AutoNegotiation: true, Speed: 100, FullDuplex: true}, nil
	}
	l.CloseConnections = func([]uint64) error { return errors.New("called before the line is done") }
	l.Hits = func() ([]uint64, error) { return []uint64{7, 12345}, nil }
	l.Openings = func() []firewall.Opening {
		return []firewall.Opening{{Peer: netip.MustParseAddr("10.5.8.8"), Local: netip.MustParseAddr("10.1.0.104"), Port: 40000}, {Port: 40001}}
	}
	l.Invalid = func(menu string) ([]int, error) {
		if menu == "ip route" {
			return []int{0, 9, -1}, nil
		}
		return nil, errors.New("broken")
	}
	l.Addresses = func() ([]netcfg.Address, error) {
		return []netcfg.Address{{Address: netip.MustParsePrefix("10.9.0.2/24"), Interface: "ether1"}}, nil
	}
	l.Routes = func() ([]DynamicRoute, error) {
		return []DynamicRoute{
			{Destination: netip.MustParsePrefix("192.168.0.0/24"), Interface: "ether2"},
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.9.0.1"), Interface: "ether1", Distance: 1},
		}, nil
	}
	l.Neighbors = func() ([]Neighbor, error) {
		return []Neighbor{
			{Address: netip.MustParseAddr("192.168.0.2"), MAC: ether.MAC{2, 0, 0, 0, 0, 0xab}, Interface: "ether2"},
			{Address: netip.MustParseAddr("192.168.0.77"), Interface: "ether2"},
		}, nil
	}
	l.Discovered = func() ([]DiscoveredNeighbor, error) { return testDiscovered(), nil }
	l.ActiveUsers = func() ([]ActiveUser, error) {
		return []ActiveUser{{Number: 1, Name: "admin", Via: "console", For: 90 * time.Minute}, {Number: 2, Name: "admin", Address: netip.MustParseAddr("192.168.0.2"), Via: "ssh", For: 5 * time.Second}}, nil
	}
	l.Files = func() ([]FileState, error) {
		at := time.Date(2030, 1, 31, 20, 0, 0, 0, time.UTC)
		return []FileState{{Number: 3, Name: "backup.rsc", Size: 1234, Owner: "admin", Modified: at}, {Number: 2, Name: "key.pub", Size: 99, Owner: "bob", Modified: at.Add(time.Minute)}}, nil
	}
	l.MayKeepFile = func(string, int) error { return nil }
	l.KeepFile = func(string, string) error { return errors.New("called before the line is done") }
	l.ReadFile = func(name string) (string, error) {
		if name != "key.pub" {
			return "", errors.New("failure: no such file: " + name)
		}
		return "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKALlEyRPP/XBUzF07yHn11325lSc650S6+PjmCSsim2 me@home\n", nil
	}
	l.MayRemoveFiles = func([]uint32) error { return nil }
	l.RemoveFiles = func([]uint32) error { return errors.New("called before the line is done") }
	l.History = func() []HistoryEntry {
		return []HistoryEntry{
			{Number: 7, Action: "route 0.0.0.0/0 added", By: "admin", Policy: "write", For: time.Hour},
			{Number: 8, Action: "filter rule added", By: "admin", Policy: "write", For: 90 * time.Second, Floating: true},
			{Number: 9, Action: "user admin changed", By: "admin", Policy: "write,policy", For: time.Second, Undone: true},
		}
	}
	l.Undo = func() (Config, error) { return Config{}, errors.New("failure: nothing to undo") }
	l.Redo = func() (Config, error) { return Config{}, errors.New("failure: nothing to redo") }
	l.Logout = func([]uint32) error { return errors.New("called before the line is done") }
	l.ResetQueueCounters = func([]uint16) error { return errors.New("called before the line is done") }
	l.ResetCounters = func(firewall.Table, []int) error { return errors.New("called before the line is done") }
	l.TableSize = func() (int, int, error) { return 123, 4096, nil }
	l.Forget = func([]firewall.Tracked) error { return errors.New("called before the line is done") }
	l.Tracked = func() ([]firewall.Tracked, error) {
		return []firewall.Tracked{
			{Protocol: "tcp", Src: netip.MustParseAddrPort("192.168.0.2:1238"), Dst: netip.MustParseAddrPort("10.5.8.8:21"), State: "established", Timeout: 5 * 24 * time.Hour},
			{Protocol: "icmp", Src: netip.MustParseAddrPort("192.168.0.2:0"), Dst: netip.MustParseAddrPort("10.5.8.8:0"), Timeout: 29*time.Second + 1},
		}, nil
	}
	l.Resource = func() (Resource, error) { return Resource{}, nil }
	l.Now = func() time.Time { return time.Date(2030, 1, 31, 23, 59, 58, 999, time.FixedZone("", 3600)) }
	l.HashPassword = func(p, _ string) (string, error) {
		if p == "bad" {
			return "not a hash", nil
		}
		return "$argon2id$" + strings.Repeat("x", len(p)), nil
	}
	l.Requests = []Request{Import, Ping, Traceroute, SetClock, ChangePassword, ResetConfiguration, Upgrade, CheckForUpdates}
	l.Slots = func() ([]SlotState, error) {
		return []SlotState{
			{Name: "a", Active: true, Running: true, Version: "v1.2-3-gabc", Size: 3 << 20, State: "confirmed"},
			{Name: "b", State: "empty"},
		}, nil
	}
	l.Update = func() UpdateState {
		return UpdateState{Latest: "v1.3", Status: "New version is available"}
	}
	l.NTP = func() (NTPState, error) {
		return NTPState{Status: "synchronized", Server: "10.0.0.5", Stratum: 2, Offset: -1500 * time.Microsecond}, nil
	}
	l.RemoteLog = true
	l.DHCPClients = func() ([]DHCPClientState, error) { return testClients(), nil }
	l.PPPoEClients = func() ([]PPPoEClientState, error) { return testPPPoE(), nil }
	l.RenewLeases = func([]string) error { return errors.New("called before the line is done") }
	l.ReleaseLeases = l.RenewLeases
	l.Leases = func() ([]LeaseState, error) { return testLeases(), nil }
	l.DynamicDNS = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("9.9.9.10")} }
	l.DynamicNTP = func() []string { return []string{"10.0.0.7", "10.0.0.8"} }
	l.CacheUsed = func() (int, error) { return 27000, nil }
	l.DNSCache = func() ([]dns.CacheEntry, int, error) { return testCache(), 0, nil }
	l.FlushDNS = func() error { return errors.New("called before the line is done") }
	l.RemoveLeases = func([]netip.Addr) error { return errors.New("called before the line is done") }
	l.Filled = func(limit int) ([]firewall.Filled, int, error) { return testFilled(), 0, nil }
	l.RemoveFilled = func([]firewall.Filled) error { return errors.New("called before the line is done") }
	return l
}

const liveConfig = `
/system identity set name=postern
/ip address add address=192.168.0.1/24 comment=LAN interface=ether2
/ip route add gateway=10.1.0.1
/ip firewall filter add chain=input action=drop in-interface=!ether2
/ip firewall filter add chain=forward action=log in-interface=usb1
/ip firewall filter add chain=forward action=drop disabled=yes
/ip socks access add dst-port=21 src-address=192.168.0.2
/ip socks access add action=deny comment="nobody else"
`

// The screens of what only the running system knows.
func TestLiveScreens(t *testing.T) {
	for _, test := range []struct {
		name, screen string
		width        int
	}{
		{name: "openings of BIND", screen: `[admin@postern] > ip firewall filter print
Flags: X - disabled, I - invalid, D - dynamic
 0 D ;;; socks bind
     chain=input action=accept src-address=10.5.8.8 dst-address=10.1.0.104 dst-port=40000 protocol=tcp
 1 D ;;; socks bind
     chain=input action=accept dst-port=40001 protocol=tcp
 2   chain=input action=drop in-interface=!ether2
 3 I chain=forward action=log in-interface=usb1
 4 X chain=forward action=drop
[admin@postern] > ip firewall filter remove 1
failure: can not change dynamic item: 1
[admin@postern] > ip firewall filter enable 4
[admin@postern] > ip firewall filter print where !dynamic
Flags: X - disabled, I - invalid, D - dynamic
 0   chain=input action=drop in-interface=!ether2
 1 I chain=forward action=log in-interface=usb1
 2   chain=forward action=drop
[admin@postern] > ip firewall filter print stats where !dynamic
Flags: X - disabled, I - invalid, D - dynamic
 #   CHAIN                  ACTION                  BYTES                PACKETS
 0   input                  drop                    840                  12
 1 I forward                log                     180                  3
 2   forward                drop                    0                    0
[admin@postern] > ip firewall filter print count-only where dynamic
2
`},
		{name: "numbers without a print leave out what is dynamic", screen: `[admin@postern] > ip firewall filter set 0 comment=first
[admin@postern] > ip firewall filter print where comment=first
Flags: X - disabled, I - invalid, D - dynamic
 0   ;;; first
     chain=input action=drop in-interface=!ether2
`},
		{name: "partitions", screen: `[admin@postern] > partitions print
Flags: A - active, R - running
 #    NAME   VERSION                  SIZE     STATE
 0 AR a      v1.2-3-gabc              3072KiB  confirmed
 1    b                                        empty
`},
		{name: "time client", screen: `[admin@postern] > system ntp client set enabled=yes servers=10.0.0.5,time.example
[admin@postern] > system ntp client print
          enabled: yes
          servers: 10.0.0.5,time.example
  dynamic-servers: 10.0.0.7,10.0.0.8
           status: synchronized
    synced-server: 10.0.0.5
   synced-stratum: 2
    system-offset: -1.500 ms
[admin@postern] > system ntp client export
/system ntp client
set enabled=yes servers=10.0.0.5,time.example
`},
		{name: "address", screen: `[admin@postern] > ip address print
Flags: X - disabled, I - invalid, D - dynamic
 #   ADDRESS            NETWORK         INTERFACE
 0 D 10.9.0.2/24        10.9.0.0        ether1
 1   ;;; LAN
     192.168.0.1/24     192.168.0.0     ether2
[admin@postern] > ip address print detail where network=192.168.0.0
Flags: X - disabled, I - invalid, D - dynamic
 0   ;;; LAN
     address=192.168.0.1/24 interface=ether2 network=192.168.0.0
`},
		{name: "route", screen: `[admin@postern] > ip route print
Flags: X - disabled, I - inactive, A - active, D - dynamic, C - connect, S - static, B - blackhole, U - unreachable, P - prohibit
 #      DST-ADDRESS        GATEWAY         DISTANCE
 0 ADC  192.168.0.0/24     ether2          0
 1 ADS  0.0.0.0/0          10.9.0.1        1
 2 I S  0.0.0.0/0          10.1.0.1        1
[admin@postern] > ip route print terse
 0 ADC  dst-address=192.168.0.0/24 gateway=ether2 distance=0
 1 ADS  dst-address=0.0.0.0/0 gateway=10.9.0.1 distance=1
 2 I S  dst-address=0.0.0.0/0 gateway=10.1.0.1 distance=1
[admin@postern] > ip route find inactive
2
[admin@postern] > ip route add dst-address=10.7.0.0/16 gateway=192.168.0.7 distance=5
[admin@postern] > ip route add dst-address=10.7.0.0/16 gateway=192.168.0.8 distance=3
[admin@postern] > ip route add dst-address=10.7.0.0/16 gateway=192.168.0.9 disabled=yes
[admin@postern] > ip route print where !dynamic
Flags: X - disabled, I - inactive, A - active, D - dynamic, C - connect, S - static, B - blackhole, U - unreachable, P - prohibit
 #      DST-ADDRESS        GATEWAY         DISTANCE
 0 I S  0.0.0.0/0          10.1.0.1        1
 1   S  10.7.0.0/16        192.168.0.7     5
 2 A S  10.7.0.0/16        192.168.0.8     3
 3 X S  10.7.0.0/16        192.168.0.9     1
[admin@postern] > ip route print count-only where static and active
2
[admin@postern] > ip route print count-only where connect
1
[admin@postern] > ip route print count-only where dst-address>10.0.0.0 and distance<5 and !disabled
2
[admin@postern] > ip route find
0,1,2,3
`},
		{name: "arp", screen: `[admin@postern] > ip arp print
Flags: X - disabled, I - invalid, D - dynamic, H - DHCP, P - published, C - complete
 #    ADDRESS         MAC-ADDRESS       INTERFACE
 0 DC 192.168.0.2     02:00:00:00:00:AB ether2
 1 D  192.168.0.77                      ether2
[admin@postern] > ip arp print count-only where complete
1
`},
		{name: "firewall connection", width: 80, screen: `[admin@postern] > ip firewall connection print
 # PROTOCOL SRC-ADDRESS           DST-ADDRESS           TCP-STATE   TIMEOUT
 0 tcp      192.168.0.2:1238      10.5.8.8:21           established 5d
 1 icmp     192.168.0.2           10.5.8.8                          29s
`},
		{name: "connections in detail", width: 80, screen: `[admin@postern] > ip socks connections print detail
 0 src-address=192.168.0.2:1238 dst-address=10.5.8.8:21 type=out tx=1163
   rx=4625 age=1m5s idle=1s user-id="a user"
 1 src-address=192.168.0.3:1 type=unknown tx=0 rx=0 age=0s idle=0s
[admin@postern] > ip socks connections print where type=unknown
 # SRC-ADDRESS                DST-ADDRESS                TX         RX
 0 192.168.0.3:1                                         0          0
`},
		{name: "a table in 60 columns", width: 60, screen: `[admin@postern] > ip socks connections print
 # SRC-ADDRESS      DST-ADDRESS TX   RX
 0 192.168.0.2:1238 10.5.8.8:21 1163 4625
 1 192.168.0.3:1                0    0
`},
		{name: "a table in 40 columns", width: 40, screen: `[admin@postern] > ip socks connections print
 0 src-address=192.168.0.2:1238
   dst-address=10.5.8.8:21 type=out
   tx=1163 rx=4625 age=1m5s idle=1s
   user-id="a user"
 1 src-address=192.168.0.3:1
   type=unknown tx=0 rx=0 age=0s
   idle=0s
`},
		{name: "hits", screen: `[admin@postern] > ip socks access print stats
Flags: X - disabled
 #   SRC-ADDRESS        DST-ADDRESS        DST-PORT    ACTION HITS
 0   192.168.0.2                           21          allow  7
 1   ;;; nobody else
                                                       deny   12345
[admin@postern] > ip socks access
[admin@postern] ip socks access> move 1 0; /ip socks access print stats
failure: counters unavailable
`},
		{name: "interface", screen: `[admin@postern] > interface print where running
Flags: X - disabled, I - invalid, R - running, S - slave
 #     NAME             TYPE      MTU   MAC-ADDRESS
 0  R  ether1           ether     1500  52:54:00:12:34:56
[admin@postern] > interface print detail where name=ether1
Flags: X - disabled, I - invalid, R - running, S - slave
 0  R  name=ether1 type=ether mtu=1500 mac-address=52:54:00:12:34:56 rx-byte=8123 tx-byte=177 rx-packet=0 tx-packet=0
`},
		{name: "clock", screen: `[admin@postern] > system clock print
            time: 22:59:58
            date: jan/31/2030
  time-zone-name: manual
      gmt-offset: +00:00
[admin@postern] > system clock manual set time-zone=+5:30
[admin@postern] > system clock print
            time: 04:29:58
            date: feb/01/2030
  time-zone-name: manual
      gmt-offset: +05:30
[admin@postern] > system clock manual
[admin@postern] system clock manual> set time-zone=-03:30
[admin@postern] system clock manual> print
  time-zone: -03:30
[admin@postern] system clock manual> set time-zone=+14:01
value of time-zone out of range (-12:00..+14:00)
[admin@postern] system clock manual> set time-zone=2
invalid value for argument time-zone; expected +hh:mm or -hh:mm: -12:00..+14:00, not "2"
[admin@postern] system clock manual> export
/system clock manual
set time-zone=-03:30
`},
		{name: "user", screen: `[admin@postern] > user print
Flags: X - disabled
 #   NAME             GROUP
 0   admin            full
[admin@postern] > user export
[admin@postern] > user set admin password=secret
[admin@postern] > user print detail
Flags: X - disabled
 0   name=admin group=full
[admin@postern] > user export
[admin@postern] > user export show-sensitive
/user
set admin password-hash="\$argon2id\$xxxxxx"
[admin@postern] > user export verbose hide-sensitive
/user group
set read !comment name=read \
    policy=local,telnet,ssh,reboot,read,test,winbox,password,web,sniff,sensitive,api,romon,rest-api,!ftp,!write,!policy
set write !comment name=write \
    policy=local,telnet,ssh,reboot,read,write,test,winbox,password,web,sniff,sensitive,api,romon,rest-api,!ftp,!policy
set full !comment name=full \
    policy=local,telnet,ssh,ftp,reboot,read,write,policy,test,winbox,password,web,sniff,sensitive,api,romon,rest-api
/user
set admin !address !comment disabled=no group=full name=admin
[admin@postern] > ip socks export verbose
/ip socks
set auth-method=none connection-idle-timeout=2m enabled=no max-connections=200 \
    port=1080 udp=no version=4
/ip socks access
add action=allow !comment disabled=no !dst-address dst-port=21 \
    src-address=192.168.0.2 !src-port
add action=deny comment="nobody else" disabled=no !dst-address !dst-port \
    !src-address !src-port
[admin@postern] > ip socks export terse
/ip socks access add dst-port=21 src-address=192.168.0.2
/ip socks access add action=deny comment="nobody else"
[admin@postern] > user set 0 password=bad
invalid value for argument password-hash; expected hash of a password: 1..255 characters of a-z, A-Z, 0-9 and $./+=,-, not "not a hash"
[admin@postern] > user set admin password="\1B"
invalid value for argument password; expected printable string: 0..64 bytes
[admin@postern] > user set [find name=root] password=other
[admin@postern] > user set [find name=admin group=full] password=another
[admin@postern] > user export show-sensitive
/user
set admin password-hash="\$argon2id\$xxxxxxx"
[admin@postern] > user set root password=x
no such item: root
[admin@postern] > user set admin !password
[admin@postern] > user export
[admin@postern] > user print where password=secret
bad property name password (line 1 column 18); expected one of last-logged-in, name, group, address, disabled, comment
`},
		{name: "logging", screen: `[admin@postern] > system logging action print
 # NAME             TARGET REMOTE          REMOTE-PORT
 0 remote           remote                 514
[admin@postern] > system logging add topics=dhcp,debug
[admin@postern] > system logging remove 0
[admin@postern] > system logging add topics=fire,!inf action=remote
[admin@postern] > system logging add action=remote disabled=yes
[admin@postern] > system logging print
Flags: X - disabled, I - invalid
 #   TOPICS                         ACTION
 0 I firewall,!info                 remote
 1 X                                remote
[admin@postern] > system logging action set remote remote=192.168.0.9 remote-port=1514
[admin@postern] > system logging action print where remote=192.168.0.9
 # NAME             TARGET REMOTE          REMOTE-PORT
 0 remote           remote 192.168.0.9     1514
[admin@postern] > system logging print
Flags: X - disabled, I - invalid
 #   TOPICS                         ACTION
 0   firewall,!info                 remote
 1 X                                remote
[admin@postern] > system logging add topics=socks,socks action=remote
input does not match any value of topics; expected [!]topic, or a list of them: system | socks | firewall | interface | disk | ntp | dhcp | dns | pppoe | ssh | api | www | neighbor | account | info | warning | error | critical, not "socks,socks"
[admin@postern] > system logging export
/system logging
add action=remote topics=firewall,!info
add action=remote disabled=yes
/system logging action
set remote remote=192.168.0.9 remote-port=1514
[admin@postern] > system logging set remote=192.168.0.7
expected end of command (line 1 column 20); expected one of topics, action, prefix, disabled, numbers
[admin@postern] > system logging remove [find disabled or topics~"fire"]
[admin@postern] > system logging action set 0 !remote remote-port=514
[admin@postern] > system logging export
`},
		{name: "log", screen: `[admin@postern] > log print where topics~info
00:00:01 system,info router booted
[admin@postern] > log print where message=booted
[admin@postern] > log print where message="router booted"
00:00:01 system,info router booted
[admin@postern] > log print where !topics
bad \1B[31m
[admin@postern] > log print count-only
2
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			checkScreen(t, liveConfig, fullLive(), test.width, test.screen)
		})
	}
}

// A table with follow shows its titles and rows, and later the rows that are new.
func TestFollowTable(t *testing.T) {
	live := testLive()
	var connections []socks.Connection
	live.Connections = func() ([]socks.Connection, error) { return connections, nil }
	var s Session
	const line = "/ip socks connections print follow where dst-address=10.5.8.8:21"
	show := func() string {
		t.Helper()
		result, err := s.Execute(Default(), live, line)
		require.NoError(t, err)
		assert.True(t, result.Follow)
		assert.Equal(t, time.Second, result.Repeat)
		return result.Output
	}
	first, other := connection("192.168.0.2:1", "10.5.8.8:21", 1, 2), connection("192.168.0.2:2", "10.5.8.8:80", 1, 2)
	second := connection("192.168.0.3:1", "10.5.8.8:21", 3, 4)
	const head = " # SRC-ADDRESS                DST-ADDRESS                TX         RX\n"
	assert.Equal(t, head, show())
	connections = []socks.Connection{first, other}
	assert.Equal(t, " 0 192.168.0.2:1              10.5.8.8:21                1          2\n", show())
	connections[0].Tx = 100
	assert.Empty(t, show(), "it is no news that one goes on")
	connections = []socks.Connection{other, second}
	assert.Equal(t, " 0 192.168.0.3:1              10.5.8.8:21                3          4\n", show())
	connections = []socks.Connection{first, second}
	assert.Equal(t, " 0 192.168.0.2:1              10.5.8.8:21                1          2\n", show(), "it had gone")
	s.EndRepeat()
	assert.Contains(t, show(), head, "the line begins anew")
	result, err := s.Execute(Default(), live, "/ip socks connections print follow interval=5s")
	require.NoError(t, err)
	assert.Equal(t, 5*time.Second, result.Repeat)
	s.EndRepeat()
	live.Log = func() ([]string, error) { return []string{"10:00:00 a,b old"}, nil }
	for _, print := range []string{"/ip socks connections print follow-only", "/log print follow-only"} {
		for range 2 {
			result, err = s.Execute(Default(), live, print)
			require.NoError(t, err)
			assert.True(t, result.Follow)
			assert.NotContains(t, result.Output, "192.168.0.2:1")
			assert.NotContains(t, result.Output, "old")
		}
	}
}

// Menus and commands that need something the system lacks are hidden, but a file may have
// their settings.
func TestUnwired(t *testing.T) {
	for _, line := range []string{"/user print", "/system logging print", "/system clock print", "/ip arp print", "/ip firewall connection print",
		"/ping 10.0.0.1", "/tool traceroute 10.0.0.1", "/system reset-configuration", "/system clock set time=00:00:00",
		"/system upgrade http://host/x", "/system ntp client print", "/partitions print", "/ip socks connections remove 0"} {
		_, err := new(Session).Execute(Default(), testLive(), line)
		assert.ErrorContains(t, err, "bad command name", line)
	}
	_, choices := new(Session).Complete(Default(), testLive(), "/")
	assert.Equal(t, []string{"system", "interface", "routing", "ip", "queue", "log", "quit", "export"}, choiceNames(choices))
	cfg, err := Load("file", strings.NewReader("/user set admin password-hash=\"\\$x\"\n/system logging set remote=10.0.0.1\n"))
	require.NoError(t, err)
	assert.Equal(t, "$x", cfg.Users[0].Password)
	assert.Equal(t, "10.0.0.1", cfg.RemoteLog.Address.String())
	assert.Equal(t, []LogRule{{Action: "remote"}}, cfg.RemoteLog.Rules, "a line of an earlier version, which sent all")
	_, err = Load("file", strings.NewReader("/user set admin password=x"))
	require.EqualError(t, err, "file:1: failure: passwords unavailable")
}

func TestLiveRequests(t *testing.T) {
	for _, test := range []struct {
		line string
		want Result
		err  string
	}{
		{line: "/ping 10.0.0.1", want: Result{Request: Ping, Ping: PingArguments{Address: "10.0.0.1", Interval: time.Second, Size: 64}}},
		{line: "/ping example.org count=3 size=1500 interval=20ms", want: Result{Request: Ping,
			Ping: PingArguments{Address: "example.org", Count: 3, Size: 1500, Interval: 20 * time.Millisecond}}},
		{line: "/ping count=3", err: "missing value(s) of argument(s) address"},
		{line: "/ping 10.0.0.1 count=3 10.0.0.2", err: "expected end of command (line 1 column 24); expected one of interval=, size=, src-address=, interface=, ttl="},
		{line: "/tool ping 10.0.0.1 src-address=192.168.0.1 interface=ether2 ttl=9", want: Result{Request: Ping,
			Ping: PingArguments{Address: "10.0.0.1", Interval: time.Second, Size: 64, From: netip.MustParseAddr("192.168.0.1"), Interface: "ether2", TTL: 9}}},
		{line: "/ping 10.0.0.1 interface=ether9", err: `input does not match any value of interface; expected ether1 | ether2, not "ether9"`},
		{line: "/ping 10.0.0.1 size=20", err: "value of size out of range (28..65535)"},
		{line: "/ping -x", err: `invalid value for argument address; expected IP address or host name, not "-x"`},
		{line: "/ping [find]", err: `syntax error (line 1 column 7); expected a value with such a character to stand in quotes ("...")`},
		{line: "/tool traceroute 10.0.0.1 max-hops=5", want: Result{Request: Traceroute,
			Traceroute: TracerouteArguments{Address: "10.0.0.1", MaxHops: 5, Timeout: time.Second, Count: 3}}},
		{line: "/tool traceroute 10.0.0.1 count=101", err: "value of count out of range (1..100)"},
		{line: "/system clock set time=12:30:00", want: Result{Request: SetClock, Clock: time.Date(2030, 1, 31, 12, 30, 0, 0, time.UTC)}},
		{line: "/system clock set date=feb/29/2028 time=00:00:00", want: Result{Request: SetClock, Clock: time.Date(2028, 2, 29, 0, 0, 0, 0, time.UTC)}},
		{line: "/system clock set date=2029-12-24", want: Result{Request: SetClock, Clock: time.Date(2029, 12, 24, 22, 59, 58, 999, time.UTC)}},
		{line: "/system clock set date=feb/29/2027", err: `invalid value for argument date; expected date: mmm/dd/yyyy (jan/31/2030) or yyyy-mm-dd, 1970..2037, not "feb/29/2027"`},
		{line: "/system clock set date=0/1/2027", err: `invalid value for argument date; expected date: mmm/dd/yyyy (jan/31/2030) or yyyy-mm-dd, 1970..2037, not "0/1/2027"`},
		{line: "/system clock set date=2038-01-01", err: `invalid value for argument date; expected date: mmm/dd/yyyy (jan/31/2030) or yyyy-mm-dd, 1970..2037, not "2038-01-01"`},
		{line: "/system clock set time=24:00:00", err: `invalid value for argument time; expected hh:mm:ss: 00:00:00..23:59:59, not "24:00:00"`},
		{line: "/import", want: Result{Request: Import}},
		{line: "/import replace=yes", want: Result{Request: Import, Import: ImportArguments{Replace: true}}},
		{line: "/system reset-configuration", want: Result{Request: ResetConfiguration}},
		{line: "/system upgrade http://192.168.0.2/sysupgrade.img", want: Result{Request: Upgrade,
			Upgrade: UpgradeArguments{From: "http://192.168.0.2/sysupgrade.img"}}},
		{line: "/system upgrade from=http://host:8080/a force=yes", want: Result{Request: Upgrade,
			Upgrade: UpgradeArguments{From: "http://host:8080/a", Force: true}}},
		{line: "/system upgrade", err: "missing value(s) of argument(s) from"},
		{line: "/system upgrade ftp://host/a", err: `invalid value for argument from; expected http://ADDRESS[:PORT]/PATH, or the path of a disk, as /dev/sda, not "ftp://host/a"`},
		{line: "/system upgrade sda", err: `invalid value for argument from; expected http://ADDRESS[:PORT]/PATH, or the path of a disk, as /dev/sda, not "sda"`},
		{line: "/system upgrade /dev/sda force=yes", want: Result{Request: Upgrade,
			Upgrade: UpgradeArguments{From: "/dev/sda", Force: true}}},
		{line: "/system ntp client set servers=10.0.0.1,a,b,c,d", err: `invalid value for argument servers; expected IP address or host name, or a list of them: at most 4, not "10.0.0.1,a,b,c,d"`},
	} {
		t.Run(test.line, func(t *testing.T) {
			result, err := new(Session).Execute(Default(), fullLive(), test.line)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			test.want.Config = Default()
			assert.Equal(t, test.want, result)
		})
	}
}

// An error of a function of Live is shown by the commands that need it, and by no others.
func TestBrokenLive(t *testing.T) {
	broken := errors.New("broken")
	l := fullLive()
	l.Hits = func() ([]uint64, error) { return nil, broken }
	l.Addresses = func() ([]netcfg.Address, error) { return nil, broken }
	l.Routes = func() ([]DynamicRoute, error) { return nil, broken }
	l.Neighbors = func() ([]Neighbor, error) { return nil, broken }
	l.Tracked = func() ([]firewall.Tracked, error) { return nil, broken }
	l.TableSize = func() (int, int, error) { return 0, 0, broken }
	l.HashPassword = func(_, _ string) (string, error) { return "", broken }
	for line, want := range map[string]string{
		"/ip socks access print stats":                   "read counters: broken",
		"/ip socks access print":                         "",
		"/ip address print":                              "list addresses: broken",
		"/ip address set [find address=1.1.1.1/32]":      "",
		"/ip address add address=1.1.1.1 interface=usb1": "",
		"/ip route print":                                "list routes: broken",
		"/ip route find":                                 "",
		"/ip arp print":                                  "list neighbours: broken",
		"/ip firewall connection tracking print":         "read connection tracking: broken",
		"/ip firewall connection print":                  "list connections: broken",
		"/user set admin password=x":                     "hash the password: broken",
	} {
		_, err := new(Session).Execute(Default(), l, line)
		if want == "" {
			assert.NoError(t, err, line)
		} else {
			assert.EqualError(t, err, want)
		}
	}
	l.Hits = func() ([]uint64, error) { return []uint64{1}, nil }
	_, err := new(Session).Execute(Default(), l, "/ip socks access print stats")
	require.EqualError(t, err, "failure: counters unavailable", "they are of other rules")
}

// A line that is repeated replaces its output, or with follow continues it.
func TestRepeat(t *testing.T) {
	var log []string
	live := testLive()
	live.Log = func() ([]string, error) { return log, nil }
	r := router{cfg: Default(), live: live}

	result, err := r.run("/interface print interval=2s")
	require.NoError(t, err)
	assert.Equal(t, 2*time.Second, result.Repeat)
	assert.False(t, result.Follow)
	again, err := r.run("/interface print interval=2s")
	require.NoError(t, err)
	assert.Equal(t, result, again)
	_, err = r.run("/interface print interval=100ms")
	require.EqualError(t, err, "value of interval out of range (500ms..1h)")
	_, err = r.run("/interface print; /interface print interval=1s")
	require.EqualError(t, err, "failure: interval and follow need a line of their own")
	_, err = r.run("/ip socks access add; /ip socks access print interval=1s")
	require.EqualError(t, err, "failure: interval and follow need a line of their own")
	assert.Empty(t, r.cfg.Socks.Access)

	const follow = "/log print follow where message~a"
	for i, step := range []struct {
		log  []string
		want string
	}{
		{nil, ""},
		{[]string{"1 a", "2 b"}, "1 a\n"},
		{[]string{"1 a", "2 b"}, ""},
		{[]string{"1 a", "2 b", "2 b", "3 ab"}, "3 ab\n"},
		{[]string{"2 b", "3 ab", "4 aa", "4 aa"}, "4 aa\n4 aa\n"},
		{[]string{"4 aa", "4 aa", "4 aa"}, "4 aa\n"},
		{[]string{"7 a"}, "7 a\n"}, // all that was seen is gone
		{[]string{"7 a"}, ""},
	} {
		log = step.log
		result, err := r.run(follow)
		require.NoError(t, err)
		assert.Equal(t, step.want, result.Output, i)
		assert.True(t, result.Follow)
		assert.Equal(t, time.Second, result.Repeat)
	}
	r.session.EndRepeat()
	result, err = r.run(follow)
	require.NoError(t, err)
	assert.Equal(t, "7 a\n", result.Output, "typed again, it begins anew")
	_, err = r.run("/log print")
	require.NoError(t, err)
	result, err = r.run(follow)
	require.NoError(t, err)
	assert.Equal(t, "7 a\n", result.Output, "after another line too")
}

// TestOpeningOfUDP: the port of a UDP ASSOCIATE is shown beside those of BIND.
func TestOpeningOfUDP(t *testing.T) {
	cfg, err := Load("empty", strings.NewReader(""))
	require.NoError(t, err)
	live := fullLive()
	live.Openings = func() []firewall.Opening {
		return []firewall.Opening{{Peer: netip.MustParseAddr("192.168.0.2"), Local: netip.MustParseAddr("192.168.0.1"), Port: 40000, UDP: true}}
	}
	result, err := new(Session).Execute(cfg, live, "/ip firewall filter print terse")
	require.NoError(t, err)
	assert.Equal(t, " 0 D comment=\"socks udp\" chain=input action=accept src-address=192.168.0.2 dst-address=192.168.0.1 dst-port=40000 protocol=udp\n", result.Output)
}
