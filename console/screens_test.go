package console

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/socks"
)

// The screens of MikroTik's manual page "SOCKS"
// (https://help.mikrotik.com/docs/spaces/ROS/pages/73826308/SOCKS), word for word.
// The prompt at the end of each screen there is left out.
func TestManualScreens(t *testing.T) {
	for _, test := range []struct {
		name        string
		config      string
		connections []socks.Connection
		screen      string
	}{
		{
			name:   "masqueraded network",
			config: "/ip firewall nat add action=masquerade chain=srcnat src-address=192.168.0.0/24; /ip firewall nat",
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
			screen: `[admin@MikroTik] ip socks access> add dst-port=21 src-address=192.168.0.2 \
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

func TestScreens(t *testing.T) {
	const config = `
/system identity set name=postern
/interface ethernet
set ether2 comment="to the LAN" mtu=1400
set usb1 disabled=yes
/ip address
add address=192.168.0.1/24 comment=LAN interface=ether2
add address=10.1.0.104/24 disabled=yes interface=ether1
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
/ip socks access add action=deny comment=closed disabled=yes
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
        allow-remote-requests: no
          max-udp-packet-size: 4096
         query-server-timeout: 2s
          query-total-timeout: 10s
       max-concurrent-queries: 100
  max-concurrent-tcp-sessions: 20
                   cache-size: 2048KiB
                cache-max-ttl: 1w
[admin@postern] > ip dns set servers=""
[admin@postern] > ip dns print
                      servers:
        allow-remote-requests: no
          max-udp-packet-size: 4096
         query-server-timeout: 2s
          query-total-timeout: 10s
       max-concurrent-queries: 100
  max-concurrent-tcp-sessions: 20
                   cache-size: 2048KiB
                cache-max-ttl: 1w
`},
		{name: "interface", screen: `[admin@postern] > interface print
Flags: X - disabled, I - invalid, R - running, S - slave
 #     NAME             TYPE      MTU   MAC-ADDRESS
 0  R  ether1           ether     1500  52:54:00:12:34:56
 1     ;;; to the LAN
       ether2           ether     1500  52:54:00:12:34:57
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
set ether1 disabled=yes mtu=1492
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
Flags: X - disabled, I - inactive, A - active, D - dynamic, C - connect, S - static, B - blackhole, U - unreachable, P - prohibit
 #      DST-ADDRESS        GATEWAY         DISTANCE
 0   S  0.0.0.0/0          10.1.0.1        1
 1   S  ;;; to the lab
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
bad command name print (line 1 column 27); expected system, interface, routing, ip, queue, log, quit, export
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
set ether2 comment="to the LAN" mtu=1400
set usb1 disabled=yes
/ip address
add address=192.168.0.1/24 comment=LAN interface=ether2
add address=10.1.0.104/24 disabled=yes interface=ether1
add address=10.2.0.1/32 interface=usb1
/ip route
add gateway=10.1.0.1
add comment="to the lab" distance=2 dst-address=10.5.0.0/16 \
    gateway=192.168.0.254
/ip dns
set servers=9.9.9.9,1.1.1.1
/ip firewall filter
add chain=input connection-state=established,related
add action=drop chain=input comment="nothing else from outside, ;)" \
    disabled=yes in-interface=!ether2
add action=log chain=forward dst-address=!10.0.0.0/8 dst-port=21 \
    in-interface=usb1 log-prefix="ftp: " protocol=tcp \
    src-address=192.168.0.0/24
/ip firewall nat
add action=dst-nat chain=dstnat dst-port=80 protocol=tcp \
    to-addresses=192.168.0.10 to-ports=8080
/ip socks access
add action=deny comment=closed disabled=yes
`},
		{name: "export of a menu", screen: `[admin@postern] > ip socks set enabled=yes port=1081 connection-idle-timeout=90 max=500
[admin@postern] > ip socks
[admin@postern] ip socks> export
/ip socks
set connection-idle-timeout=1m30s enabled=yes max-connections=500 port=1081
/ip socks access
add action=deny comment=closed disabled=yes
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

// checkScreen types the commands of a screen on a router with that configuration, and compares
// the output. The configuration that results must survive an export.
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
