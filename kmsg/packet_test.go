package kmsg

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPacketLine(t *testing.T) {
	called := func(name string) string { return strings.Replace(name, "ether1", "wan", 1) }
	const mac = " MAC=02:70:6f:73:74:02:0a:00:5e:00:53:01:08:00"
	for _, c := range []struct {
		name, message string
		nat           bool
		want          string
	}{
		{"TCP, through the router", "IN=ether2 OUT=ether1" + mac + " SRC=192.168.0.2 DST=10.5.8.8 LEN=60 TOS=0x00 PREC=0x00 TTL=63 ID=1 DF PROTO=TCP SPT=51234 DPT=21 WINDOW=64240 RES=0x00 SYN URGP=0 ", false,
			"forward: in:ether2 out:wan, src-mac 0a:00:5e:00:53:01, proto TCP (SYN), 192.168.0.2:51234->10.5.8.8:21, len 60"},
		{"with a prefix", "note IN=ether1 OUT= SRC=10.1.0.66 DST=10.1.0.104 LEN=40 PROTO=TCP SPT=1 DPT=2 WINDOW=0 RES=0x00 ACK RST URGP=0", false,
			"note input: in:wan out:(unknown 0), proto TCP (ACK,RST), 10.1.0.66:1->10.1.0.104:2, len 40"},
		{"UDP, from the router", "a b  IN= OUT=ether2 SRC=192.168.0.1 DST=192.168.0.2 LEN=78 TOS=0x00 PROTO=UDP SPT=53 DPT=1024 LEN=58", false,
			"a b output: in:(unknown 0) out:ether2, proto UDP, 192.168.0.1:53->192.168.0.2:1024, len 78"},
		{"ICMP", "IN=ether2 OUT=" + mac + " SRC=192.168.0.2 DST=192.168.0.1 LEN=84 PROTO=ICMP TYPE=8 CODE=0 ID=3 SEQ=1", false,
			"input: in:ether2 out:(unknown 0), src-mac 0a:00:5e:00:53:01, proto ICMP (type 8, code 0), 192.168.0.2->192.168.0.1, len 84"},
		{"an ICMP error", "IN=ether1 OUT=ether2 SRC=10.5.8.8 DST=192.168.0.2 LEN=88 PROTO=ICMP TYPE=3 CODE=3 [SRC=192.168.0.2 DST=10.5.8.8 LEN=60 PROTO=UDP SPT=9 DPT=8 LEN=40 ]", false,
			"forward: in:wan out:ether2, proto ICMP (type 3, code 3), 10.5.8.8->192.168.0.2, len 88"},
		{"another protocol", "IN=ether1 OUT= SRC=10.1.0.66 DST=224.0.0.1 LEN=32 PROTO=2", false,
			"input: in:wan out:(unknown 0), proto 2, 10.1.0.66->224.0.0.1, len 32"},
		{"a fragment", "IN=ether1 OUT= SRC=10.1.0.66 DST=10.1.0.104 LEN=32 FRAG:185 PROTO=TCP", false,
			"input: in:wan out:(unknown 0), proto TCP, 10.1.0.66->10.1.0.104, len 32"},
		{"before routing", "IN=ether2 OUT= SRC=192.168.0.2 DST=10.5.8.8 LEN=60 PROTO=UDP SPT=1 DPT=2 LEN=40", true,
			"dstnat: in:ether2 out:(unknown 0), proto UDP, 192.168.0.2:1->10.5.8.8:2, len 60"},
		{"after routing", "IN=ether2 OUT=ether1 SRC=192.168.0.2 DST=10.5.8.8 LEN=60 PROTO=UDP SPT=1 DPT=2 LEN=40", true,
			"srcnat: in:ether2 out:wan, proto UDP, 192.168.0.2:1->10.5.8.8:2, len 60"},
		{"no packet", "Built with IN=3 OUT of 4", false, ""},
		{"nothing", "", false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := packetLine(c.message, c.nat, called)
			assert.Equal(t, c.want != "", ok)
			assert.Equal(t, c.want, got)
		})
	}
}
