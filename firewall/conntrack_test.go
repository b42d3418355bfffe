package firewall

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReadTracked(t *testing.T) {
	at := netip.MustParseAddrPort
	for _, test := range []struct {
		name, line string
		want       Tracked
		err        string
	}{
		{name: "TCP", line: "ipv4     2 tcp      6 431999 ESTABLISHED src=192.168.0.2 dst=10.5.8.8 sport=1238 dport=21 " +
			"src=10.5.8.8 dst=10.1.0.104 sport=21 dport=1238 [ASSURED] mark=0 use=2",
			want: Tracked{Protocol: "tcp", Src: at("192.168.0.2:1238"), Dst: at("10.5.8.8:21"), State: "established", Timeout: 431999 * time.Second, ReplySrc: at("10.5.8.8:21"), ReplyDst: at("10.1.0.104:1238"), Assured: true}},
		{name: "UDP without an answer", line: "ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=5 dport=53 [UNREPLIED] " +
			"src=10.0.0.2 dst=10.0.0.1 sport=53 dport=5 mark=0 use=2",
			want: Tracked{Protocol: "udp", Src: at("10.0.0.1:5"), Dst: at("10.0.0.2:53"), State: "", Timeout: 29 * time.Second, ReplySrc: at("10.0.0.2:53"), ReplyDst: at("10.0.0.1:5")}},
		{name: "ICMP", line: "ipv4     2 icmp     1 9 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=77 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=77 mark=0 use=2",
			want: Tracked{Protocol: "icmp", Src: at("10.0.0.1:0"), Dst: at("10.0.0.2:0"), State: "", Timeout: 9 * time.Second, ReplySrc: at("10.0.0.2:0"), ReplyDst: at("10.0.0.1:0"), id: 77, icmpType: 8}},
		{name: "a protocol without a name", line: "ipv4     2 unknown  47 599 src=10.0.0.1 dst=10.0.0.2 src=10.0.0.2 dst=10.0.0.1 use=1",
			want: Tracked{Protocol: "47", Src: at("10.0.0.1:0"), Dst: at("10.0.0.2:0"), State: "", Timeout: 599 * time.Second, ReplySrc: at("10.0.0.2:0"), ReplyDst: at("10.0.0.1:0")}},
		{name: "never forgotten", line: "ipv4     2 udp      17 src=10.0.0.1 dst=10.0.0.2 sport=5 dport=53 src=10.0.0.2 dst=10.0.0.1 sport=53 dport=5 [OFFLOAD] use=2",
			want: Tracked{Protocol: "udp", Src: at("10.0.0.1:5"), Dst: at("10.0.0.2:53"), State: "", Timeout: 0, ReplySrc: at("10.0.0.2:53"), ReplyDst: at("10.0.0.1:5")}},
		{name: "what it carries", line: "ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=5 dport=53 packets=1 bytes=60 " +
			"src=10.0.0.2 dst=10.0.0.1 sport=53 dport=5 packets=2 bytes=5000000000 mark=0 use=2",
			want: Tracked{Protocol: "udp", Src: at("10.0.0.1:5"), Dst: at("10.0.0.2:53"), Timeout: 29 * time.Second, ReplySrc: at("10.0.0.2:53"), ReplyDst: at("10.0.0.1:5"),
				Bytes: 60, ReplyBytes: 5_000_000_000}},
		{name: "a bad counter", line: "ipv4 2 tcp 6 9 NONE src=1.2.3.4 dst=1.2.3.4 bytes=x", err: "bytes=x: "},
		{name: "no protocol", line: "ipv4 2", err: "expected a protocol and its number"},
		{name: "no addresses", line: "ipv4 2 tcp 6 9 NONE", err: "expected src and dst"},
		{name: "a bad port", line: "ipv4 2 tcp 6 9 NONE src=1.2.3.4 dst=1.2.3.4 sport=65536", err: "sport=65536: "},
		{name: "a bad address", line: "ipv4 2 tcp 6 9 NONE src=1.2.3", err: "src=1.2.3: "},
		{name: "a bad time", line: "ipv4 2 tcp 6 x NONE src=1.2.3.4", err: "x: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []Tracked
			err := readTracked(strings.NewReader("ipv6 10 tcp 6 nothing of ours\n"+test.line+"\n"), func(c Tracked) bool {
				got = append(got, c)
				return true
			})
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, []Tracked{test.want}, got)
		})
	}
}

func TestReadTrackedBounds(t *testing.T) {
	const line = "ipv4 2 tcp 6 9 NONE src=1.2.3.4 dst=1.2.3.4\n"
	read := 0
	require.NoError(t, readTracked(strings.NewReader(strings.Repeat(line, 9)), func(Tracked) bool {
		read++
		return read < 5
	}))
	assert.Equal(t, 5, read)
	require.ErrorContains(t, readTracked(strings.NewReader("ipv4 "+strings.Repeat("x", 5000)), nil), "tracked connections: ")
}

func FuzzParseTracked(f *testing.F) {
	f.Add("ipv4     2 tcp      6 431999 ESTABLISHED src=192.168.0.2 dst=10.5.8.8 sport=1238 dport=21 src=10.5.8.8 dst=10.1.0.104")
	f.Add("ipv4     2 unknown  47 599 src=10.0.0.1 dst=10.0.0.2")
	f.Fuzz(func(t *testing.T, line string) {
		c, err := parseTracked(line)
		if err != nil {
			return
		}
		assert.True(t, c.Src.IsValid() && c.Dst.IsValid() && c.Timeout >= 0, fmt.Sprint(c))
	})
}
