package firewall

import (
	"errors"
	"fmt"
	"io"
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
			read, err := readTracked(strings.NewReader("ipv6 10 tcp 6 nothing of ours\n"+test.line+"\n"), func(c Tracked) { got = append(got, c) })
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, 2, read)
			assert.Equal(t, []Tracked{test.want}, got)
		})
	}
}

func TestReadTrackedBounds(t *testing.T) {
	_, err := readTracked(strings.NewReader("ipv4 "+strings.Repeat("x", 5000)), nil)
	require.ErrorContains(t, err, "tracked connections: ")
}

// A reading leaves out as many connections as ended while it went on, and others have come meanwhile.
func TestEachOfAgain(t *testing.T) {
	for _, c := range []struct {
		name string
		// readings are the ports of the connections that each reading tells of, and how many there are then.
		readings [][]int
		there    []int
		want     []int
		opened   int
	}{
		{name: "all at once", readings: [][]int{{1, 2, 3}}, there: []int{3}, want: []int{1, 2, 3}, opened: 1},
		{name: "more than there are left", readings: [][]int{{1, 2, 3}}, there: []int{1}, want: []int{1, 2, 3}, opened: 1},
		{name: "an empty table", readings: [][]int{{}}, there: []int{0}, opened: 1},
		{name: "some left out", readings: [][]int{{4, 1}, {2, 4, 3, 1}}, there: []int{4, 4}, want: []int{4, 1, 2, 3}, opened: 2},
		{name: "all left out", readings: [][]int{{}, {1, 2}}, there: []int{2, 2}, want: []int{1, 2}, opened: 2},
		{name: "left out again", readings: [][]int{{3}, {2}, {1, 2, 3}}, there: []int{3, 3, 3}, want: []int{3, 2, 1}, opened: 3},
		{name: "those missing are not listed at all", readings: [][]int{{1, 2}, {1, 2}}, there: []int{3, 3}, want: []int{1, 2}, opened: 2},
		{name: "ever new ones", readings: [][]int{{1}, {2}, {3}, {4}}, there: []int{9, 9, 9, 9}, want: []int{1, 2, 3, 4}, opened: maxReadings},
	} {
		t.Run(c.name, func(t *testing.T) {
			opened := 0
			var got []int
			require.NoError(t, eachOf(func() (io.ReadCloser, error) {
				var text strings.Builder
				for _, port := range c.readings[opened] {
					fmt.Fprintf(&text, "ipv4 2 udp 17 9 src=1.2.3.4 dst=5.6.7.8 sport=%d dport=9\n", port)
				}
				opened++
				return io.NopCloser(strings.NewReader(text.String())), nil
			}, func() (int, error) { return c.there[opened-1], nil }, func(tracked Tracked) { got = append(got, int(tracked.Src.Port())) }))
			assert.Equal(t, c.want, got)
			assert.Equal(t, c.opened, opened)
		})
	}
	broken := errors.New("broken")
	empty := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("")), nil }
	assert.ErrorIs(t, eachOf(func() (io.ReadCloser, error) { return nil, broken }, nil, nil), broken)
	assert.ErrorIs(t, eachOf(empty, func() (int, error) { return 0, broken }, nil), broken)
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
