package console

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/socks"
)

// router is a configuration and a session on it, as init holds them.
type router struct {
	cfg     Config
	live    Live
	session Session
}

// settings is cfg without the identities of its items.
func settings(cfg Config) Config {
	cfg.ids = Config{}.ids
	return cfg
}

// run executes a line and keeps what it made, as init does.
func (r *router) run(line string) (Result, error) {
	result, err := r.session.Execute(r.cfg, r.live, line)
	r.cfg = result.Config
	return result, err
}

// replay types what a screen shows behind the prompts, and returns the screen.
func (r *router) replay(t *testing.T, screen string) string {
	t.Helper()
	var got strings.Builder
	lines := strings.Split(strings.TrimSuffix(screen, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		prompt, line, ok := strings.Cut(lines[i], "> ")
		if !ok || !strings.HasPrefix(prompt, "[admin@") {
			continue
		}
		got.WriteString(r.session.Prompt(r.cfg.Identity) + line + "\n")
		for Continues(line) {
			i++
			more, isMore := strings.CutPrefix(lines[i], `\... `)
			require.True(t, isMore, lines[i])
			got.WriteString(`\... ` + more + "\n")
			line += "\n" + more
		}
		result, err := r.run(line)
		if err != nil {
			result.Output += err.Error() + "\n"
		}
		got.WriteString(result.Output)
	}
	return got.String()
}

func connection(src, dst string, tx, rx uint64) socks.Connection {
	return socks.Connection{Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst), Type: socks.Out, Tx: tx, Rx: rx}
}

// The screens of MikroTik's manual page "SOCKS"
// (https://help.mikrotik.com/docs/spaces/ROS/pages/73826308/SOCKS), word for word.
// The prompt that ends each of them there is left out.
func TestManualScreens(t *testing.T) {
	for _, test := range []struct {
		name        string
		config      string
		connections []socks.Connection
		screen      string
	}{
		{
			name:   "masqueraded network",
			config: "/ip firewall nat add chain=srcnat action=masquerade src-address=192.168.0.0/24; /ip firewall nat",
			screen: `[admin@MikroTik] ip firewall nat> print
Flags: X - disabled, I - invalid, D - dynamic
 0   chain=srcnat action=masquerade src-address=192.168.0.0/24
`,
		},
		{
			name:   "FTP denied",
			config: "/ip firewall filter add chain=forward action=drop src-address=192.168.0.0/24 dst-port=21 protocol=tcp; /ip firewall filter",
			screen: `[admin@MikroTik] ip firewall filter> print
Flags: X - disabled, I - invalid, D - dynamic
 0   chain=forward action=drop src-address=192.168.0.0/24 dst-port=21 protocol=tcp
`,
		},
		{
			name:   "server enabled",
			config: "/ip socks",
			screen: `[admin@MikroTik] ip socks> set enabled=yes
[admin@MikroTik] ip socks> print
                    enabled: yes
                       port: 1080
    connection-idle-timeout: 2m
            max-connections: 200
`,
		},
		{
			name:   "access list",
			config: "/ip socks access",
			screen: `[admin@MikroTik] ip socks access> add src-address=192.168.0.2 dst-port=21 \
\... action=allow
[admin@MikroTik] ip socks access> add dst-port=1024-65535 action=allow
[admin@MikroTik] ip socks access> add action=deny
[admin@MikroTik] ip socks access> print
Flags: X - disabled
 0   src-address=192.168.0.2 dst-port=21 action=allow
 1   dst-port=1024-65535 action=allow
 2   action=deny
`,
		},
		{
			name:   "connections",
			config: "/ip socks connections",
			connections: []socks.Connection{
				connection("192.168.0.2:3242", "159.148.147.196:80", 4847, 2880),
				connection("192.168.0.2:3243", "159.148.147.196:80", 3408, 2127),
				connection("192.168.0.2:3246", "159.148.95.16:80", 10172, 25207),
				connection("192.168.0.2:3248", "194.8.18.26:80", 474, 1629),
				connection("192.168.0.2:3249", "159.148.95.16:80", 6477, 18695),
				connection("192.168.0.2:3250", "159.148.95.16:80", 4137, 27568),
				connection("192.168.0.2:3251", "159.148.95.16:80", 1712, 14296),
				connection("192.168.0.2:3258", "80.91.34.241:80", 314, 208),
				connection("192.168.0.2:3259", "80.91.34.241:80", 934, 524),
				connection("192.168.0.2:3260", "80.91.34.241:80", 930, 524),
				connection("192.168.0.2:3261", "80.91.34.241:80", 312, 158),
				connection("192.168.0.2:3262", "80.91.34.241:80", 312, 158),
			},
			screen: `[admin@MikroTik] ip socks connections> print
 # SRC-ADDRESS                DST-ADDRESS                TX         RX
 0 192.168.0.2:3242           159.148.147.196:80         4847       2880
 1 192.168.0.2:3243           159.148.147.196:80         3408       2127
 2 192.168.0.2:3246           159.148.95.16:80           10172      25207
 3 192.168.0.2:3248           194.8.18.26:80             474        1629
 4 192.168.0.2:3249           159.148.95.16:80           6477       18695
 5 192.168.0.2:3250           159.148.95.16:80           4137       27568
 6 192.168.0.2:3251           159.148.95.16:80           1712       14296
 7 192.168.0.2:3258           80.91.34.241:80            314        208
 8 192.168.0.2:3259           80.91.34.241:80            934        524
 9 192.168.0.2:3260           80.91.34.241:80            930        524
10 192.168.0.2:3261           80.91.34.241:80            312        158
11 192.168.0.2:3262           80.91.34.241:80            312        158
`,
		},
		{
			name:   "connections of FTP",
			config: "/ip socks connections",
			connections: []socks.Connection{
				connection("192.168.0.2:1238", "10.5.8.8:21", 1163, 4625),
				connection("192.168.0.2:1258", "10.5.8.8:3423", 0, 3231744),
			},
			screen: `[admin@MikroTik] ip socks connections> print
 # SRC-ADDRESS                DST-ADDRESS                TX         RX
 0 192.168.0.2:1238           10.5.8.8:21                1163       4625
 1 192.168.0.2:1258           10.5.8.8:3423              0          3231744
`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := router{cfg: Default(), live: Live{Connections: func() ([]socks.Connection, error) { return test.connections, nil }}}
			_, err := r.run("/system identity set name=MikroTik; " + test.config)
			require.NoError(t, err)
			assert.Equal(t, test.screen, r.replay(t, test.screen))
		})
	}
}

// testLive is a machine with three ports, the last of which is unplugged.
func testLive() Live {
	return Live{
		WAN: "ether1",
		Links: func() ([]netcfg.LinkState, error) {
			return []netcfg.LinkState{
				{Name: "ether1", Type: netcfg.Ether, Present: true, Up: true, Running: true, MTU: 1500, MAC: netcfg.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x56}, RxBytes: 8123, TxBytes: 177},
				{Name: "ether2", Type: netcfg.Ether, Present: true, Up: true, MTU: 1500, MAC: netcfg.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x57}},
				{Name: "usb1", Type: netcfg.Ether},
			}, nil
		},
		Counters: func() (filter, nat []firewall.Counter, err error) {
			return []firewall.Counter{{Packets: 12, Bytes: 840}, {Packets: 3, Bytes: 180}, {}}, []firewall.Counter{{Packets: 9, Bytes: 9999}}, nil
		},
		Log: func() ([]string, error) { return []string{"00:00:01 system,info router booted", "bad \x1b[31m"}, nil },
	}
}

func TestScreens(t *testing.T) {
	const config = `
/system identity set name=postern
/interface ethernet
set ether2 mtu=1400 comment="to the LAN"
set usb1 disabled=yes
/ip address
add address=192.168.0.1/24 interface=ether2 comment=LAN
add address=10.1.0.104/24 interface=ether1 disabled=yes
add address=10.2.0.1 interface=usb1
/ip route
add gateway=10.1.0.1
add dst-address=10.5.0.0/16 gateway=192.168.0.254 distance=2 comment="to the lab"
/ip dns set servers=9.9.9.9,1.1.1.1
/ip firewall filter
add chain=input connection-state=established,related
add chain=input action=drop in-interface=!ether2 comment="nothing else from outside, ;)" disabled=yes
add chain=forward action=log log-prefix="ftp: " in-interface=usb1 protocol=tcp dst-port=21 src-address=192.168.0.0/24 dst-address=!10.0.0.0/8
/ip firewall nat add chain=dstnat action=dst-nat to-addresses=192.168.0.10 to-ports=8080 protocol=tcp dst-port=80
/ip socks access add action=deny disabled=yes comment=closed
/
`
	for _, test := range []struct {
		name, screen string
		width        int
	}{
		{name: "identity", screen: `[admin@postern] > /system identity print
  name: postern
`},
		{name: "dns", screen: `[admin@postern] > ip dns print
  servers: 9.9.9.9,1.1.1.1
[admin@postern] > ip dns set servers=""
[admin@postern] > ip dns print
  servers:
`},
		{name: "interface", screen: `[admin@postern] > interface print
Flags: X - disabled, I - invalid, R - running, S - slave
 #     NAME             TYPE   MTU   MAC-ADDRESS
 0  R  ether1           ether  1500  52:54:00:12:34:56
 1     ;;; to the LAN
       ether2           ether  1500  52:54:00:12:34:57
 2 X   usb1             ether
[admin@postern] > interface print stats
Flags: X - disabled, I - invalid, R - running, S - slave
 #     NAME             RX-BYTE         TX-BYTE         RX-PACKET    TX-PACKET
 0  R  ether1           8123            177             0            0
 1     ;;; to the LAN
       ether2           0               0               0            0
 2 X   usb1
`},
		{name: "ethernet", screen: `[admin@postern] > interface ethernet
[admin@postern] interface ethernet> print
Flags: X - disabled, I - invalid, R - running, S - slave
 #     NAME             MTU   MAC-ADDRESS
 0  R  ether1           1500  52:54:00:12:34:56
 1     ;;; to the LAN
       ether2           1400  52:54:00:12:34:57
 2 X   usb1
[admin@postern] interface ethernet> print stats where name=ether1
Flags: X - disabled, I - invalid, R - running, S - slave
 #     NAME             RX-BYTE         TX-BYTE         RX-PACKET    TX-PACKET
 0  R  ether1           8123            177             0            0
[admin@postern] interface ethernet> enable usb1
[admin@postern] interface ethernet> disable ether1
[admin@postern] interface ethernet> set ether1,ether2 mtu=1492 comment=""
[admin@postern] interface ethernet> set ether2 mac-address=02:00:5e:00:53:0a
[admin@postern] interface ethernet> print
Flags: X - disabled, I - invalid, R - running, S - slave
 #     NAME             MTU   MAC-ADDRESS
 0 XR  ether1           1492  52:54:00:12:34:56
 1     ether2           1492  02:00:5E:00:53:0A
 2 I   usb1
[admin@postern] interface ethernet> set ether2 !mac-address
[admin@postern] interface ethernet> set ether2 mac-address=03:00:5e:00:53:0a
invalid value for argument mac-address; expected MAC address: xx:xx:xx:xx:xx:xx, not a group's, not "03:00:5e:00:53:0a"
[admin@postern] interface ethernet> export
/interface ethernet
set ether2 mtu=1492
set usb1
set ether1 mtu=1492 disabled=yes
[admin@postern] interface ethernet> set ether9 mtu=1400
no such item: ether9
[admin@postern] interface ethernet> set 3 mtu=1400
no such item: 3
`},
		{name: "address", screen: `[admin@postern] > ip address print
Flags: X - disabled, I - invalid, D - dynamic
 #   ADDRESS            NETWORK         INTERFACE
 0   ;;; LAN
     192.168.0.1/24     192.168.0.0     ether2
 1 X 10.1.0.104/24      10.1.0.0        ether1
 2 I 10.2.0.1/32        10.2.0.1        usb1
`},
		{name: "route", screen: `[admin@postern] > ip route print
Flags: X - disabled, I - invalid, A - active, D - dynamic, C - connect, S - static
 #     DST-ADDRESS        GATEWAY         DISTANCE
 0   S 0.0.0.0/0          10.1.0.1        1
 1   S ;;; to the lab
       10.5.0.0/16        192.168.0.254   2
`},
		{name: "filter", screen: `[admin@postern] > ip firewall filter print
Flags: X - disabled, I - invalid, D - dynamic
 0   chain=input action=accept connection-state=established,related
 1 X ;;; nothing else from outside, ;)
     chain=input action=drop in-interface=!ether2
 2 I chain=forward action=log src-address=192.168.0.0/24 dst-address=!10.0.0.0/8 dst-port=21 protocol=tcp in-interface=usb1 log-prefix="ftp: "
`},
		{name: "filter wrapped", width: 80, screen: `[admin@postern] > ip firewall filter print
Flags: X - disabled, I - invalid, D - dynamic
 0   chain=input action=accept connection-state=established,related
 1 X ;;; nothing else from outside, ;)
     chain=input action=drop in-interface=!ether2
 2 I chain=forward action=log src-address=192.168.0.0/24
     dst-address=!10.0.0.0/8 dst-port=21 protocol=tcp in-interface=usb1
     log-prefix="ftp: "
`},
		{name: "filter narrow", width: 40, screen: `[admin@postern] > ip firewall nat print
Flags: X - disabled, I - invalid,
       D - dynamic
 0   chain=dstnat action=dst-nat
     to-addresses=192.168.0.10
     to-ports=8080 dst-port=80
     protocol=tcp
`},
		{name: "stats", screen: `[admin@postern] > ip firewall filter print stats
Flags: X - disabled, I - invalid, D - dynamic
 #   CHAIN                  ACTION                  BYTES                PACKETS
 0   input                  accept                  840                  12
 1 X ;;; nothing else from outside, ;)
     input                  drop                    180                  3
 2 I forward                log                     0                    0
[admin@postern] > ip firewall nat print stats
Flags: X - disabled, I - invalid, D - dynamic
 #   CHAIN                  ACTION                  BYTES                PACKETS
 0   dstnat                 dst-nat                 9999                 9
[admin@postern] > ip firewall nat remove 0; print stats
bad command name print (line 1 column 27); expected system, interface, ip, log, quit, export
[admin@postern] > ip firewall nat remove 0; ip firewall nat print stats
failure: counters unavailable
`},
		{name: "access", screen: `[admin@postern] > ip socks access print
Flags: X - disabled
 0 X ;;; closed
     action=deny
[admin@postern] > ip socks access enable 0
[admin@postern] > ip socks access set 0 comment="" dst-port=80,443
[admin@postern] > ip socks access print
Flags: X - disabled
 0   dst-port=80,443 action=deny
`},
		{name: "log", screen: `[admin@postern] > log print
00:00:01 system,info router booted
bad \1B[31m
`},
		{name: "unavailable", screen: `[admin@postern] > ip socks connections print
failure: connections unavailable
`},
		{name: "export", screen: `[admin@postern] > export
/interface ethernet
set ether2 mtu=1400 comment="to the LAN"
set usb1 disabled=yes
/ip address
add address=192.168.0.1/24 interface=ether2 comment=LAN
add address=10.1.0.104/24 interface=ether1 disabled=yes
add address=10.2.0.1/32 interface=usb1
/ip route
add gateway=10.1.0.1
add dst-address=10.5.0.0/16 gateway=192.168.0.254 distance=2 \
    comment="to the lab"
/ip dns
set servers=9.9.9.9,1.1.1.1
/ip firewall filter
add chain=input connection-state=established,related
add chain=input action=drop in-interface=!ether2 disabled=yes \
    comment="nothing else from outside, ;)"
add chain=forward action=log src-address=192.168.0.0/24 \
    dst-address=!10.0.0.0/8 dst-port=21 protocol=tcp in-interface=usb1 \
    log-prefix="ftp: "
/ip firewall nat
add chain=dstnat action=dst-nat to-addresses=192.168.0.10 to-ports=8080 \
    dst-port=80 protocol=tcp
/ip socks access
add action=deny disabled=yes comment=closed
`},
		{name: "export of a menu", screen: `[admin@postern] > ip socks set enabled=yes port=1081 connection-idle-timeout=90 max=500
[admin@postern] > ip socks
[admin@postern] ip socks> export
/ip socks
set enabled=yes port=1081 connection-idle-timeout=1m30s max-connections=500
/ip socks access
add action=deny disabled=yes comment=closed
[admin@postern] ip socks> access
[admin@postern] ip socks access> remove 0
[admin@postern] ip socks access> export
`},
		{name: "moving", screen: `[admin@postern] > ip firewall nat
[admin@postern] ip firewall nat> .. filter
[admin@postern] ip firewall filter> ..
[admin@postern] ip firewall> /ip/socks/access
[admin@postern] ip socks access> ../..
[admin@postern] ip> dns
[admin@postern] ip dns> .. ; socks; print
                    enabled: no
                       port: 1080
    connection-idle-timeout: 2m
            max-connections: 200
[admin@postern] ip socks> /
[admin@postern] > in et; # the shortest that is clear
[admin@postern] interface ethernet> /ip so acc a s=1.2.3.4
ambiguous property name s (line 1 column 14); expected src-address, src-port
[admin@postern] interface ethernet> /ip so acc a src-a=1.2.3.4 act=deny
[admin@postern] interface ethernet> /ip socks access p
Flags: X - disabled
 0 X ;;; closed
     action=deny
 1   src-address=1.2.3.4 action=deny
`},
		{name: "remove several", screen: `[admin@postern] > ip firewall filter
[admin@postern] ip firewall filter> remove 0,2,0
[admin@postern] ip firewall filter> print
Flags: X - disabled, I - invalid, D - dynamic
 0 X ;;; nothing else from outside, ;)
     chain=input action=drop in-interface=!ether2
[admin@postern] ip firewall filter> remove numbers=0
[admin@postern] ip firewall filter> print
Flags: X - disabled, I - invalid, D - dynamic
`},
		{name: "escapes", screen: `[admin@postern] > system identity set name="a \"b\" \\ \$c\? \_d\C3\A9"
[admin@a "b" \ $c?  dé] > system identity print
  name: a "b" \ $c?  dé
[admin@a "b" \ $c?  dé] > system identity export
/system identity
set name="a \"b\" \\ \$c\?  dé"
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			checkScreen(t, config, testLive(), test.width, test.screen)
		})
	}
}

// checkScreen types the commands of a screen on a router with that configuration,
// and compares what comes; what was set must survive an export.
func checkScreen(t *testing.T, config string, live Live, width int, screen string) {
	t.Helper()
	cfg, err := Load("test", strings.NewReader(config))
	require.NoError(t, err)
	r := router{cfg: cfg, live: live, session: Session{Width: width}}
	assert.Equal(t, screen, r.replay(t, screen))
	reloaded, err := Load("export", strings.NewReader(Export(r.cfg)))
	require.NoError(t, err)
	assert.Equal(t, settings(r.cfg), settings(reloaded))
}

func TestNumbersWithThreeDigits(t *testing.T) {
	r := router{cfg: Default()}
	for range 101 {
		_, err := r.run("/ip socks access add")
		require.NoError(t, err)
	}
	result, err := r.run("/ip socks access print")
	require.NoError(t, err)
	lines := strings.Split(result.Output, "\n")
	assert.Equal(t, "  0   action=allow", lines[1])
	assert.Equal(t, "100   action=allow", lines[101])
}

func TestRequests(t *testing.T) {
	for _, test := range []struct {
		line, output string
		want         Request
	}{
		{"/quit", "", Quit},
		{"q", "", Quit},
		{"/system reboot", "", Reboot},
		{"system shutdown", "", Shutdown},
		{"/system reboot; /ip socks set enabled=yes", "", Reboot},
		{"", "", None},
		{" \t # nothing", "", None},
		{"/ip socks; ;", "", None},
	} {
		t.Run(test.line, func(t *testing.T) {
			r := router{cfg: Default()}
			result, err := r.run(test.line)
			require.NoError(t, err)
			assert.Equal(t, test.want, result.Request)
			assert.Equal(t, test.output, result.Output)
			assert.False(t, result.Changed)
			assert.Equal(t, Default(), result.Config)
		})
	}
}

func TestChanged(t *testing.T) {
	r := router{cfg: Default()}
	for _, test := range []struct {
		line string
		want bool
	}{
		{"/ip socks set enabled=yes", true},
		{"/ip socks set enabled=yes", false},
		{"/ip socks print; set enabled=yes", false},
		{"/ip socks access add action=deny", true},
		{"/ip socks access print", false},
		{"/ip socks access set 0", false},
		{"/ip socks access remove 0", true},
		{"/ip socks access add; print; remove 0", false},
		{"/interface ethernet print", false},
	} {
		if strings.Contains(test.line, ";") { // the second command needs the menu
			path, _, _ := strings.Cut(test.line, " print")
			path, _, _ = strings.Cut(path, " add")
			_, err := r.run(path)
			require.NoError(t, err)
		}
		result, err := r.run(test.line)
		require.NoError(t, err, test.line)
		assert.Equal(t, test.want, result.Changed, test.line)
	}
	assert.Nil(t, r.cfg.Socks.Access)
}

// A failed line leaves the configuration and the menu, and says nothing else.
func TestErrors(t *testing.T) {
	const config = `
/interface ethernet set ether1 mtu=1400
/ip address add address=192.168.0.1/24 interface=ether1
/ip socks access add dst-port=21,80
/ip socks`
	for _, test := range []struct{ line, want string }{
		// Commands and menus.
		{"foo", "bad command name foo (line 1 column 1); expected access, connections, set, print, reset, export"},
		{"/ip foo", "bad command name foo (line 1 column 5); expected address, route, dns, firewall, socks, export"},
		{"/ip/foo", "bad command name foo (line 1 column 5); expected address, route, dns, firewall, socks, export"},
		{"/ip\t é/foo", "bad command name é (line 1 column 6); expected address, route, dns, firewall, socks, export"},
		{"/ip //", "bad command name  (line 1 column 5); expected address, route, dns, firewall, socks, export"},
		{"/ip /", "bad command name  (line 1 column 5); expected address, route, dns, firewall, socks, export"},
		{"/..", "bad command name .. (line 1 column 2); expected system, interface, ip, log, quit, export"},
		{"/i", "ambiguous command name i (line 1 column 2); expected interface, ip"},
		{"/ip address e", "ambiguous command name e (line 1 column 13); expected enable, export"},
		{"add=1", "expected command name (line 1 column 1)"},
		{`/ip "socks"`, "expected command name (line 1 column 5)"},
		{"/quit now", "expected end of command (line 1 column 7)"},
		{"/quit/now", "expected end of command (line 1 column 6)"},
		{"/quit; quit", ""},
		{"print; foo", "bad command name foo (line 1 column 8); expected access, connections, set, print, reset, export"},
		{"print\n foo", "bad command name foo (line 2 column 2); expected access, connections, set, print, reset, export"},
		{"print \\\n  foo", "expected end of command (line 2 column 3); expected one of interval="},
		{"set port=1081; set max-connections=0", "value of max-connections out of range (1..500)"},
		{"set port=1081; /ip; foo", "bad command name foo (line 1 column 21); expected address, route, dns, firewall, socks, export"},

		// Arguments.
		{"set foo=1", "expected end of command (line 1 column 5); expected one of enabled, port, connection-idle-timeout, max-connections"},
		{"set enabled", "expected end of command (line 1 column 5); expected one of enabled=, port=, connection-idle-timeout=, max-connections="},
		{"set p=1 port=2", "property port given twice (line 1 column 9)"},
		{"print stats", "expected end of command (line 1 column 7); expected one of interval="},
		{"/ip firewall nat print where comment~\"(\"", "invalid value of comment (line 1 column 30); expected a regular expression without {n}: error parsing regexp: missing closing ): `(`"},
		{"/ip firewall nat print where comment~\"(a{900}|b)*\"", "invalid value of comment (line 1 column 30); expected a regular expression without {n}: counted repetition in a{900}"},
		{"/ip firewall nat print where comment~" + strings.Repeat("a", 201), "invalid value of comment (line 1 column 30); expected a regular expression without {n}: it has 201 characters; 200 at most"},
		{"/ip firewall nat print foo", "expected end of command (line 1 column 24); expected one of detail, terse, count-only, stats, without-paging, where, interval="},
		{"/ip socks access set", "missing value(s) of argument(s) numbers"},
		{"/ip socks access remove", "missing value(s) of argument(s) numbers"},
		{"/ip socks access remove 0 0", "expected end of command (line 1 column 27)"},
		{"/ip socks access set 1 action=deny", "no such item: 1"},
		{"/ip socks access set 0,1 action=deny", "no such item: 1"},
		{"/ip socks access remove 0,", "no such item: "},
		{"/ip socks access enable -1", "no such item: -1"},
		{"/ip socks access disable 99999999999999999999", "no such item: 99999999999999999999"},
		{"/ip socks access disable x", "no such item: x"},
		{"/ip address add", "missing value(s) of argument(s) address, interface"},
		{"/ip address add address=10.0.0.1/8", "missing value(s) of argument(s) interface"},
		{"/ip route add", "missing value(s) of argument(s) gateway"},
		{"/ip firewall filter add action=drop", "missing value(s) of argument(s) chain"},
		{"/interface ethernet add name=ether1", "bad command name add (line 1 column 21); expected set, enable, disable, comment, find, print, export"},
		{"/interface ethernet remove 0", "bad command name remove (line 1 column 21); expected set, enable, disable, comment, find, print, export"},
		{`/interface ethernet set "ether 2" mtu=1500`, "no such item: ether 2"},
		{"/interface ethernet set 1 mtu=1500", "no such item: 1"},

		// Words.
		{"set port=[find]", `syntax error (line 1 column 10); expected a value with such a character to stand in quotes ("...")`},
		{"set port=$x", `syntax error (line 1 column 10); expected a value with such a character to stand in quotes ("...")`},
		{`set port=1"`, `syntax error (line 1 column 11); expected a value with such a character to stand in quotes ("...")`},
		{"set port=1\x07", `syntax error (line 1 column 11); expected a value with such a character to stand in quotes ("...")`},
		{`set port="1`, "syntax error (line 1 column 12); expected a closing quote"},
		{"set port=\"1\n\"", "syntax error (line 1 column 12); expected a closing quote"},
		{`set port="1"2`, "syntax error (line 1 column 13); expected a space behind the closing quote"},
		{`set port="$x"`, `syntax error (line 1 column 11); expected \$ for a dollar sign`},
		{`set port="\q"`, `syntax error (line 1 column 11); expected an escape: \" \\ \$ \? \_ \a \b \f \n \r \t \v or two hexadecimal digits`},
		{`set port="\4`, `syntax error (line 1 column 11); expected an escape: \" \\ \$ \? \_ \a \b \f \n \r \t \v or two hexadecimal digits`},
		{`set port=1\`, `syntax error (line 1 column 11); expected a value with such a character to stand in quotes ("...")`},
		{strings.Repeat("#", MaxLine+1), "line longer than 4096 bytes (line 1 column 1)"},
	} {
		t.Run(test.line[:min(len(test.line), 60)], func(t *testing.T) {
			load := func() Config {
				cfg, err := Load("test", strings.NewReader(config))
				require.NoError(t, err)
				return cfg
			}
			cfg := load()
			session := Session{path: "ip socks"}
			result, err := session.Execute(cfg, Live{}, test.line)
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, test.want)
			assert.Equal(t, load(), cfg)
			assert.Equal(t, Result{Config: cfg}, result)
			assert.Equal(t, "ip socks", session.path)
		})
	}
}

func TestLiveErrors(t *testing.T) {
	broken := errors.New("broken")
	live := Live{
		Links:       func() ([]netcfg.LinkState, error) { return nil, broken },
		Connections: func() ([]socks.Connection, error) { return nil, broken },
		Counters:    func() (filter, nat []firewall.Counter, err error) { return nil, nil, broken },
		Log:         func() ([]string, error) { return nil, broken },
		Resource:    func() (Resource, error) { return Resource{}, broken },
	}
	for _, test := range []struct{ line, want, unavailable string }{
		{"/interface print", "list interfaces: broken", "failure: interfaces unavailable"},
		{"/interface ethernet print", "list interfaces: broken", ""},
		{"/interface ethernet set ether1 mtu=1500", "list interfaces: broken", ""},
		{"/ip socks connections print", "list connections: broken", "failure: connections unavailable"},
		{"/ip firewall filter print stats", "read counters: broken", "failure: counters unavailable"},
		{"/log print", "read log: broken", "failure: log unavailable"},
		{"/system resource print", "read resource: broken", "failure: resource unavailable"},
		{"/ip address print", "", ""},
	} {
		t.Run(test.line, func(t *testing.T) {
			for live, want := range map[*Live]string{&live: test.want, {}: test.unavailable} {
				_, err := new(Session).Execute(Default(), *live, test.line)
				if want == "" {
					require.NoError(t, err)
				} else {
					require.EqualError(t, err, want)
				}
			}
		})
	}
}

func TestResource(t *testing.T) {
	live := Live{Resource: func() (Resource, error) {
		return Resource{Uptime: 3725*time.Second + 1, FreeMemory: 17 << 19, TotalMemory: 32 << 20, CPULoad: 0.0512,
			CPUCount: 1, Architecture: "mips", Board: "malta", Version: "v1-2-gabc"}, nil
	}}
	result, err := new(Session).Execute(Default(), live, "/system resource print")
	require.NoError(t, err)
	assert.Equal(t, `             uptime: 1h2m5s
            version: v1-2-gabc
        free-memory: 8.5MiB
       total-memory: 32.0MiB
          cpu-count: 1
           cpu-load: 5.12%
  architecture-name: mips
         board-name: malta
`, result.Output)
}

func TestUnansweredConnection(t *testing.T) {
	live := Live{Connections: func() ([]socks.Connection, error) {
		return []socks.Connection{{Src: netip.MustParseAddrPort("192.168.0.2:1238"), Type: socks.Unknown}}, nil
	}}
	result, err := new(Session).Execute(Default(), live, "/ip socks connections print")
	require.NoError(t, err)
	assert.Equal(t, ` # SRC-ADDRESS                DST-ADDRESS                TX         RX
 0 192.168.0.2:1238                                      0          0
`, result.Output)
}

func TestTooManyItems(t *testing.T) {
	r := router{cfg: Default()}
	for range MaxItems {
		_, err := r.run("/ip socks access add action=deny")
		require.NoError(t, err)
	}
	_, err := r.run("/ip socks access add action=deny")
	require.EqualError(t, err, "failure: no more than 256 items in /ip socks access")
}

func TestCloneSharesNothing(t *testing.T) {
	cfg, err := Load("test", strings.NewReader(`
/interface ethernet set ether1 mtu=1400
/interface bridge add name=b1
/interface vlan add name=v1 interface=b1
/interface bridge port add bridge=b1 interface=ether2
/ip address add address=192.168.0.1/24 interface=ether1
/ip route add gateway=192.168.0.2
/ip dns set servers=9.9.9.9
/ip firewall filter add chain=input protocol=tcp src-port=1 dst-port=2
/ip firewall nat add chain=dstnat action=redirect protocol=tcp to-ports=3
/system logging add action=remote
/system ntp client set servers=a.example
/ip socks access add src-port=4 dst-port=5`))
	require.NoError(t, err)
	cfg = (&Session{}).execution(cfg, Live{}).cfg // with the items' ids
	c := cfg.Clone()
	require.Equal(t, cfg, c)
	slices := 0
	var compare func(path string, a, b reflect.Value)
	compare = func(path string, a, b reflect.Value) {
		switch a.Kind() {
		case reflect.Slice:
			if a.Len() > 0 {
				slices++
				assert.NotEqual(t, a.Pointer(), b.Pointer(), "%s is shared", path)
			}
			fallthrough
		case reflect.Array:
			for i := range a.Len() {
				compare(fmt.Sprintf("%s[%d]", path, i), a.Index(i), b.Index(i))
			}
		case reflect.Struct:
			for i := range a.NumField() {
				compare(path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
			}
		}
	}
	compare("Config", reflect.ValueOf(cfg), reflect.ValueOf(c))
	assert.GreaterOrEqual(t, slices, 2*lists+7)
	assert.Equal(t, Default(), Default().Clone())
}
