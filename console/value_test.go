package console

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every kind of value: what is accepted, how it is printed, and the errors of the rest.
func TestValues(t *testing.T) {
	const (
		noChain = "invalid value for argument chain; expected input | forward | output | name of a chain of your own"
		noBool  = "input does not match any value of disabled; expected yes | no"
		noTime  = "invalid value for argument connection-idle-timeout; expected time: 1s..1w"
		overTo  = "value of connection-idle-timeout out of range (1s..1w)"
		noMax   = "invalid value for argument max-connections; expected integer: 1..500"
		overMax = "value of max-connections out of range (1..500)"
		noAddr  = "invalid value for argument src-address; expected [!]IP address, IP address/netmask or IP address-IP address"
		noTo    = "invalid value for argument to-addresses; expected IP address, IP address/netmask or IP address-IP address"
		noPort  = "invalid value for argument dst-port; expected [!]port, port-port or a list of them: 0..65535, at most 15"
		noPorts = "invalid value for argument to-ports; expected port or port-port: 0..65535"
		noPre   = "invalid value for argument address; expected IP address/netmask"
		noNet   = "invalid value for argument dst-address; expected IP address/netmask"
		noGate  = "invalid value for argument gateway; expected IP address | IP address%interface | interface"
		noDNS   = "invalid value for argument servers; expected IP address, or a list of them: at most 3"
		noName  = "invalid value for argument name; expected printable string: 1..64 bytes"
		noNote  = "invalid value for argument comment; expected printable string: 0..255 bytes"
		noIf    = "input does not match any value of interface; expected interface name"
		noIn    = "input does not match any value of in-interface; expected [!]interface name"
		noProto = "input does not match any value of protocol; expected [!]tcp | udp | icmp | igmp | ggp | ipencap | st | egp | pup | hmp | xns-idp | rdp | iso-tp4 | dccp | xtp | ddp | " +
			"idpr-cmtp | ipv6-encap | rsvp | gre | ipsec-esp | ipsec-ah | icmpv6 | rspf | vmtp | ospf | ipip | encap | pim | vrrp | l2tp | sctp | udp-lite | 1..255"
		noState    = "input does not match any value of connection-state; expected [!]established | related | new | invalid | untracked, or a list of them"
		emptyState = "invalid value for argument connection-state; expected [!]established | related | new | invalid | untracked, or a list of them"
		noLimit    = "invalid value for argument limit; expected COUNT[/TIME],BURST[:packet]: TIME as 1s, 5m, 2h or 1d; at most 10000 packets a second, " +
			"and a whole number of them a second, minute, hour or day; BURST 0..10000, and no more packets than COUNT/TIME lets through in a day, not "
		noFlags = `input does not match any value of tcp-flags; expected fin | syn | rst | psh | ack | urg, or a list of them, "!" before each that is not set`
		noICMP  = "invalid value for argument icmp-options; expected type or type:code: 0..254, code 0..255"
	)
	const (
		filter  = "/ip firewall filter add chain=input "
		nat     = "/ip firewall nat add chain=dstnat "
		address = "/ip address add interface=ether1 "
		idle    = "/ip socks set "
	)
	for _, test := range []struct{ line, property, value, want, err string }{
		// boolean
		{filter, "disabled", "yes", "yes", ""},
		{filter, "disabled", "no", "no", ""},
		{filter, "disabled", "y", "yes", ""},
		{filter, "disabled", "true", "", noBool},
		{filter, "disabled", "", "", noBool},
		// enumeration
		{"/ip firewall filter add ", "chain", "forward", "forward", ""},
		{"/ip firewall filter add ", "chain", "forwards", "forwards", ""},
		{"/ip firewall filter add ", "chain", "!forward", "", "input does not match any value of chain; expected input | forward | output | name of a chain of your own"},
		{"/ip firewall filter add ", "chain", "", "", noChain},
		{filter, "jump-target", "tcp-in", "tcp-in", ""},
		{filter, "tcp-flags", "syn,!ack", "syn,!ack", ""},
		{filter, "tcp-flags", "!s,f", "!syn,fin", ""},
		{filter, "tcp-flags", "syn,!syn", "", noFlags},
		{filter, "tcp-flags", "ece", "", noFlags},
		{filter, "port", "53,1000-2000", "53,1000-2000", ""},
		{filter, "log", "yes", "yes", ""},
		{filter, "dst-address-type", "!local", "!local", ""},
		{filter, "limit", "10/1m,5:packet", "10/1m,5:packet", ""},
		{filter, "limit", "10", "", noLimit + `"10"`},
		{filter, "limit", "1/1d,5", "", `invalid value for argument limit; expected a BURST of no more packets than 1/1d lets through in a day, not "5"`},
		{filter, "limit", "5/1y,5", "", `invalid value for argument limit; expected TIME as 1s, 5m, 2h or 1d, not "1y"`},
		{filter, "limit", "10001,5", "", `invalid value for argument limit; expected at most 10000 packets a second, not "10001"`},
		{filter, "limit", "5/7s,5", "", `invalid value for argument limit; expected a whole number of packets a second, minute, hour or day, not "5/7s"`},
		{filter, "limit", "0,5", "", `invalid value for argument limit; expected COUNT, a number of packets from 1 on, not "0"`},
		{filter, "dst-limit", "5,5,source", "", `invalid value for argument dst-limit; expected MODE dst-address | dst-port | src-address | src-and-dst-addresses | dst-address-and-port | addresses-and-dst-port, not "source"`},
		{filter, "dst-limit", "5,5,src-address/2w", "", `invalid value for argument dst-limit; expected EXPIRE 1s..1d, not "2w"`},
		{filter, "dst-limit", "5,x,src-address", "", `invalid value for argument dst-limit; expected BURST 0..10000, not "x"`},
		{filter, "dst-limit", "5,5", "", `invalid value for argument dst-limit; expected COUNT[/TIME],BURST,MODE[/EXPIRE], not "5"`},
		{filter, "time", "8h-25h,mon", "", `invalid value for argument time; expected TIME as 8h30m, 08:30:00 or 1d, not "25h"`},
		{filter, "time", "8-22h", "", `invalid value for argument time; expected TIME as 8h30m or 08:30:00, less than 1d, not "8"`},
		{filter, "time", "8h-22h,mo", "", `invalid value for argument time; expected DAY sun | mon | tue | wed | thu | fri | sat, not "mo"`},
		{filter, "time", "8h-22h,mon,mon", "", `invalid value for argument time; expected each day once, not "mon"`},
		{filter, "per-connection-classifier", "both:2/1", "", `invalid value for argument per-connection-classifier; expected VALUES src-address | dst-address | both-addresses | src-port | dst-port | both-ports | ` +
			`src-address-and-port | dst-address-and-port | both-addresses-and-ports, not "both"`},
		{filter, "per-connection-classifier", "src-address:0/0", "", `invalid value for argument per-connection-classifier; expected DENOMINATOR 1..65535, not "0"`},
		{filter, "ttl", "equal:300", "", `invalid value for argument ttl; expected 0..255, not "300"`},
		{filter, "src-mac-address", "02:00:00:00:00:01", "02:00:00:00:00:01", ""},
		{filter, "log", "no", "", ""},
		{filter, "reject-with", "tcp-reset", "tcp-reset", ""},
		{filter, "reject-with", "", "", ""},
		{"/ip socks access add ", "action", "drop", "", "input does not match any value of action; expected allow | deny"},
		// integer
		{idle, "max-connections", "1", "1", ""},
		{idle, "max-connections", "0500", "500", ""},
		{idle, "max-connections", "0", "", overMax},
		{idle, "max-connections", "501", "", overMax},
		{idle, "max-connections", "99999999999999999999999", "", overMax},
		{idle, "max-connections", "-1", "", noMax},
		{idle, "max-connections", "+1", "", noMax},
		{idle, "max-connections", "0x10", "", noMax},
		{idle, "max-connections", "", "", noMax},
		{idle, "port", "65535", "65535", ""},
		{idle, "port", "65536", "", "value of port out of range (1..65535)"},
		{idle, "port", "0", "", "value of port out of range (1..65535)"},
		{"/interface ethernet set ether1 ", "mtu", "68", "68", ""},
		{"/interface ethernet set ether1 comment=x ", "mtu", "", "", ""},
		{"/interface ethernet set ether1 ", "mtu", "67", "", "value of mtu out of range (68..65535)"},
		{"/interface ethernet set ether1 ", "mtu", "0", "", "value of mtu out of range (68..65535)"},
		// time
		{idle, "connection-idle-timeout", "2m", "2m", ""},
		{idle, "connection-idle-timeout", "1h30m", "1h30m", ""},
		{idle, "connection-idle-timeout", "90m", "1h30m", ""},
		{idle, "connection-idle-timeout", "1d2h", "1d2h", ""},
		{idle, "connection-idle-timeout", "26h", "1d2h", ""},
		{idle, "connection-idle-timeout", "7d", "1w", ""},
		{idle, "connection-idle-timeout", "00:02:00", "2m", ""},
		{idle, "connection-idle-timeout", "1:2:3", "1h2m3s", ""},
		{idle, "connection-idle-timeout", "1d00:02:00", "1d2m", ""},
		{idle, "connection-idle-timeout", "120", "2m", ""},
		{idle, "connection-idle-timeout", "1s500ms", "1s500ms", ""},
		{idle, "connection-idle-timeout", "1500ms", "1s500ms", ""},
		{idle, "connection-idle-timeout", "0", "", overTo},
		{idle, "connection-idle-timeout", "0s", "", overTo},
		{idle, "connection-idle-timeout", "999ms", "", overTo},
		{idle, "connection-idle-timeout", "1w1s", "", overTo},
		{idle, "connection-idle-timeout", "9999999999999999999w9999999999999999999d", "", overTo},
		{idle, "connection-idle-timeout", "", "", noTime},
		{idle, "connection-idle-timeout", "m", "", noTime},
		{idle, "connection-idle-timeout", "2x", "", noTime},
		{idle, "connection-idle-timeout", "-2m", "", noTime},
		{idle, "connection-idle-timeout", "2m1h", "", noTime},
		{idle, "connection-idle-timeout", "2m2m", "", noTime},
		{idle, "connection-idle-timeout", "2m30", "", noTime},
		{idle, "connection-idle-timeout", "1.5s", "", noTime},
		{idle, "connection-idle-timeout", "02:00", "", noTime},
		{idle, "connection-idle-timeout", "00:60:00", "", noTime},
		{idle, "connection-idle-timeout", "00:00:00:01", "", noTime},
		{idle, "connection-idle-timeout", "1h00:02:00", "", noTime},
		{idle, "connection-idle-timeout", "00:02:", "", noTime},
		// addresses to match
		{filter, "src-address", "192.168.0.1", "192.168.0.1", ""},
		{filter, "src-address", "192.168.0.1/24", "192.168.0.0/24", ""},
		{filter, "src-address", "192.168.0.0/255.255.255.0", "192.168.0.0/24", ""},
		{filter, "src-address", "!192.168.0.2-192.168.0.9", "!192.168.0.2-192.168.0.9", ""},
		{filter, "src-address", "0.0.0.0/0", "0.0.0.0/0", ""},
		{filter, "src-address", "", "", ""},
		{filter, "src-address", "192.168.0", "", noAddr},
		{filter, "src-address", "192.168.0.0/33", "", noAddr},
		{filter, "src-address", "192.168.0.0/255.0.255.0", "", noAddr + `, not "192.168.0.0/255.0.255.0": netmask "255.0.255.0" has a hole`},
		{filter, "src-address", "9.0.0.0-8.0.0.0", "", noAddr + `, not "9.0.0.0-8.0.0.0": the range ends before it begins`},
		{filter, "src-address", "::1", "", noAddr},
		{filter, "src-address", "!", "", noAddr},
		// new addresses and ports
		{nat, "to-addresses", "10.0.0.1-10.0.0.9", "10.0.0.1-10.0.0.9", ""},
		{nat, "to-addresses", "!10.0.0.1", "", noTo + `, not "!10.0.0.1": "!" is not possible here`},
		{nat, "to-addresses", "0.0.0.0", "", noTo + `, not "0.0.0.0": no host has the address 0.0.0.0`},
		{nat, "to-addresses", "0.0.0.0/0", "", noTo + `, not "0.0.0.0/0": no host has the address 0.0.0.0`},
		{nat, "to-addresses", "10.0.0.9-10.0.0.1", "", noTo + `, not "10.0.0.9-10.0.0.1": the range ends before it begins`},
		{nat, "to-ports", "8080", "8080", ""},
		{nat, "to-ports", "1024-2048", "1024-2048", ""},
		{nat, "to-ports", "", "", ""},
		{nat, "to-ports", "!8080", "", noPorts},
		{nat, "to-ports", "80,81", "", noPorts},
		// ports to match
		{filter, "dst-port", "21", "21", ""},
		{filter, "dst-port", "!21,1024-65535", "!21,1024-65535", ""},
		{filter, "dst-port", "", "", ""},
		{filter, "dst-port", "65536", "", noPort},
		{filter, "dst-port", "9-8", "", noPort + `, not "9-8": the range ends before it begins`},
		{filter, "dst-port", "ftp", "", noPort},
		{filter, "dst-port", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15-16", "", noPort + `, not "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15-16": more than 15 ports (a range counts twice)`},
		// prefixes
		{address, "address", "192.168.0.1/24", "192.168.0.1/24", ""},
		{address, "address", "192.168.0.1/255.255.0.0", "192.168.0.1/16", ""},
		{address, "address", "192.168.0.1", "192.168.0.1/32", ""},
		{address, "address", "", "", noPre},
		{address, "address", "ether1", "", noPre},
		{"/ip route add gateway=10.0.0.1 ", "dst-address", "10.1.2.3/8", "10.0.0.0/8", ""},
		{"/ip route add gateway=10.0.0.1 ", "dst-address", "", "", noNet},
		// an address, and several
		{"/ip route add ", "gateway", "10.0.0.1", "10.0.0.1", ""},
		{"/ip route add ", "gateway", "10.0.0.1/8", "", noGate},
		{"/ip route add ", "gateway", "10.0.0.1%ether1", "10.0.0.1%ether1", ""},
		{"/ip route add ", "gateway", "10.0.0.1%", "", noGate},
		{"/ip route add ", "gateway", strings.Repeat("x", maxPortName), strings.Repeat("x", maxPortName), ""},
		{"/ip route add ", "gateway", strings.Repeat("x", maxPortName+1), "", noGate},
		{"/ip route add type=blackhole ", "gateway", "10.0.0.1%" + strings.Repeat("x", maxPortName+1), "", noGate},
		{"/ip route add ", "gateway", "", "", "missing value(s) of argument(s) gateway, which only type=blackhole | unreachable | prohibit does without"},
		{"/ip dns set ", "servers", "9.9.9.9", "9.9.9.9", ""},
		{"/ip dns set ", "servers", "9.9.9.9,1.1.1.1,8.8.8.8", "9.9.9.9,1.1.1.1,8.8.8.8", ""},
		{"/ip dns set ", "servers", "", "", ""},
		{"/ip dns set ", "servers", "9.9.9.9,", "", noDNS},
		{"/ip dns set ", "servers", "1.1.1.1,2.2.2.2,3.3.3.3,4.4.4.4", "", noDNS},
		// texts
		{"/system identity set ", "name", "gate", "gate", ""},
		{"/system identity set ", "name", `"my \"gate\" \$1 \\ \_\C3\A9"`, `my "gate" $1 \  é`, ""},
		{"/system identity set ", "name", strings.Repeat("x", 64), strings.Repeat("x", 64), ""},
		{"/system identity set ", "name", strings.Repeat("x", 65), "", noName},
		{"/system identity set ", "name", "", "", noName},
		{"/system identity set ", "name", `"\1B[2J"`, "", noName},
		{filter, "comment", `"a; b # c = d ü"`, "a; b # c = d ü", ""},
		{filter, "comment", "a=b", "a=b", ""},
		{filter, "comment", "", "", ""},
		{filter, "comment", strings.Repeat("x", 256), "", noNote},
		{filter, "comment", `"two\r\nlines"`, "two\r\nlines", ""},
		{filter, "comment", `"\00"`, "", noNote},
		{filter, "comment", `"\1B[2J"`, "", noNote},
		{filter, "comment", `"\7F"`, "", noNote},
		{filter, "comment", `"T\FCr \80"`, "T\xfcr \x80", ""},
		{filter, "comment", "T\xfcr", "T\xfcr", ""},
		{filter, "log-prefix", `"\FF"`, "", "invalid value for argument log-prefix; expected printable string: 0..29 bytes"},
		{filter, "jump-target", `"T\FCr"`, "T\xfcr", ""},
		{filter, "jump-target", `"T\0Ar"`, "", "invalid value for argument jump-target; expected name of a chain of your own"},
		{filter, "log-prefix", strings.Repeat("x", 30), "", "invalid value for argument log-prefix; expected printable string: 0..29 bytes"},
		// interfaces
		{"/ip address add address=10.0.0.1/8 ", "interface", "ether1", "ether1", ""},
		{"/ip address add address=10.0.0.1/8 ", "interface", "", "", noIf},
		{"/ip address add address=10.0.0.1/8 ", "interface", "!ether1", "", noIf},
		{"/ip address add address=10.0.0.1/8 ", "interface", `"ether 1"`, "", noIf},
		{"/ip address add address=10.0.0.1/8 ", "interface", "abcdefghijklmnopabcdefghijklmnopq", "", noIf},
		{filter, "in-interface", "!ether1", "!ether1", ""},
		{filter, "in-interface", "", "", ""},
		{filter, "in-interface", "!", "", noIn},
		{filter, "in-interface", "a/b", "", noIn},
		// protocol
		{filter, "protocol", "tcp", "tcp", ""},
		{filter, "protocol", "6", "tcp", ""},
		{filter, "protocol", "!17", "!udp", ""},
		{filter, "protocol", "047", "gre", ""},
		{filter, "protocol", "", "", ""},
		{filter, "protocol", "0", "", "value of protocol out of range (1..255)"},
		{filter, "protocol", "256", "", "value of protocol out of range (1..255)"},
		{filter, "protocol", "gre", "gre", ""},
		{filter, "protocol", "!ipsec-esp", "!ipsec-esp", ""},
		{filter, "protocol", "!50", "!ipsec-esp", ""},
		{filter, "protocol", "200", "200", ""},
		{filter, "protocol", "none", "", noProto},
		{filter, "protocol", "!", "", noProto},
		// a list of words
		{filter, "connection-state", "established,related", "established,related", ""},
		{filter, "connection-state", "!new", "!new", ""},
		{filter, "connection-state", "", "", emptyState + `, or !connection-state for any, not "": an empty list matches nothing`},
		{filter, "connection-state", "new,new", "", noState},
		{filter, "connection-state", "new,", "", noState},
		// ICMP
		{filter, "icmp-options", "8", "8", ""},
		{filter, "icmp-options", "8:0", "8:0", ""},
		{filter, "icmp-options", "8:0-255", "8", ""},
		{filter, "icmp-options", "03:255", "3:255", ""},
		{filter, "icmp-options", "", "", ""},
		{filter, "icmp-options", "255", "", "value of icmp-options out of range (0..254)"},
		{filter, "icmp-options", "8:256", "", "value of icmp-options out of range (0..255)"},
		{filter, "icmp-options", "8:", "", noICMP},
		{filter, "icmp-options", "8:0:0", "", noICMP},
		{filter, "icmp-options", "echo", "", noICMP},
	} {
		line := test.line + test.property + "=" + test.value
		t.Run(line, func(t *testing.T) {
			result, err := new(Session).Execute(Default(), Live{}, line)
			if test.err != "" {
				want := test.err
				if strings.Contains(want, "; expected ") && !strings.Contains(want, ", not \"") {
					word := test.value
					if len(word) > 40 {
						word = word[:40] + "..."
					}
					want += ", not \"" + Printable(word) + "\""
					if strings.HasPrefix(word, `"`) { // its quotes and escapes are gone by then
						require.ErrorContains(t, err, test.err+`, not "`)
						return
					}
				}
				require.EqualError(t, err, want)
				return
			}
			require.NoError(t, err)
			path, _, _ := strings.Cut(strings.TrimPrefix(line, "/"), " add ")
			path, _, _ = strings.Cut(path, " set ")
			x := execution{menus: menus()}
			p, ok := x.menu(path).property(test.property)
			require.True(t, ok)
			assert.Equal(t, test.want, p.get(&result.Config, 0))
			// What is printed is read back as the same.
			require.NoError(t, p.set(&result.Config, 0, test.want))
			assert.Equal(t, test.want, p.get(&result.Config, 0))
		})
	}
}

func TestFormatDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s":             0,
		"1ms":            time.Millisecond,
		"1w1d1h1m1s1ms":  8*24*time.Hour + time.Hour + time.Minute + time.Second + time.Millisecond,
		"52w":            52 * 7 * 24 * time.Hour,
		"23h59m59s999ms": 24*time.Hour - time.Millisecond,
	} {
		assert.Equal(t, want, formatDuration(d))
		back, err := ParseDuration(want)
		require.NoError(t, err)
		assert.Equal(t, d, back)
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"":               `""`,
		"ether1":         `ether1`,
		"!10.0.0.0/8":    `!10.0.0.0/8`,
		"a b":            `"a b"`,
		"a;b":            `"a;b"`,
		`say "hi"`:       `"say \"hi\""`,
		`back\slash`:     `"back\\slash"`,
		"$5?":            `"\$5\?"`,
		"é":              `"é"`,
		"\n\r\t\x00\x7f": `"\n\r\t\00\7F"`,
		"\xff\xc3":       `"\FF\C3"`,
		"\u202e":         `"\E2\80\AE"`,
		"\ufffd":         "\"\ufffd\"",
	} {
		assert.Equal(t, want, quote(in))
		st, err := parse("x="+quote(in), 1)
		require.NoError(t, err, want)
		assert.Equal(t, in, st[0][0].text)
	}
	st, err := parse(`"\a\b\f\v\_\?\nA\0Z"`, 1)
	require.Error(t, err, st)
	st, err = parse(`"\a\b\f\v\_\?\nA\0A"`, 1)
	require.NoError(t, err)
	assert.Equal(t, "\a\b\f\v ?\nA\n", st[0][0].text)
}
