package ping

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/service"
)

// TestMain runs the tests in a network of their own.
func TestMain(m *testing.M) { testnet.Main(m) }

// network makes the network of the tests, once. 10.0.0.1 answers. 10.0.0.2 is on a link on
// which nobody answers.
var network = sync.OnceValue(func() error {
	for _, line := range []string{
		"link set lo up", "link add k0 type veth peer name k1", "link set k1 up", "link set k0 up", "addr add 10.0.0.1/24 dev k0",
		"route add prohibit 10.9.0.0/24", "route add blackhole 10.7.0.0/24",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	// It is the parameter of the network namespace of the thread that opens the file.
	return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0\n"), 0o644)
})

// open returns a ping socket in that network.
func open(t *testing.T) *os.File {
	t.Helper()
	require.NoError(t, network())
	socket, err := Open(From{})
	require.NoError(t, err)
	t.Cleanup(func() { socket.Close() })
	return socket
}

// Requests come from where they are to come from, or are not sent at all.
func TestFrom(t *testing.T) {
	require.NoError(t, network())
	for _, test := range []struct {
		from From
		err  string
	}{
		{From{Address: netip.MustParseAddr("10.0.0.1"), TTL: 7}, ""},
		{From{Interface: "lo", TTL: 9}, ""},
		{From{Address: netip.MustParseAddr("10.0.0.99")}, "ping from 10.0.0.99: cannot assign requested address"},
		{From{Interface: "none9"}, "ping by none9: no such device"},
		{From{TTL: 256}, "ping with ttl=256: invalid argument"},
	} {
		socket, err := Open(test.from)
		if test.err != "" {
			require.EqualError(t, err, test.err)
			continue
		}
		require.NoError(t, err)
		ttl, err := unix.GetsockoptInt(int(socket.Fd()), unix.IPPROTO_IP, unix.IP_TTL)
		require.NoError(t, err)
		assert.Equal(t, test.from.TTL, ttl)
		var out strings.Builder
		host := netip.MustParseAddr("127.0.0.1") // what is sent by lo comes back by it
		if test.from.Address.IsValid() {
			host = test.from.Address
		}
		require.NoError(t, Run(context.Background(), socket, Request{Host: host, Count: 1, Interval: time.Second, Size: 64}, &out))
		assert.Contains(t, out.String(), "sent=1 received=1")
		socket.Close()
	}
}

func TestRun(t *testing.T) {
	for _, test := range []struct {
		name string
		r    Request
		want string
	}{
		{"answers", Request{Host: netip.MustParseAddr("10.0.0.1"), Count: 3, Interval: 10 * time.Millisecond, Size: 64},
			`^  SEQ HOST             SIZE TTL TIME       STATUS
    0 10\.0\.0\.1           64  64 \S+
    1 10\.0\.0\.1           64  64 \S+
    2 10\.0\.0\.1           64  64 \S+
    sent=3 received=3 packet-loss=0% min-rtt=\S+us avg-rtt=\S+us max-rtt=\S+us
$`},
		{"the smallest", Request{Host: netip.MustParseAddr("10.0.0.1"), Count: 1, Size: 28},
			`\n    0 10\.0\.0\.1           28  64 \S+\n    sent=1 received=1 packet-loss=0% `},
		{"the largest", Request{Host: netip.MustParseAddr("10.0.0.1"), Count: 1, Size: 65535},
			`\n    0 10\.0\.0\.1        65535  64 \S+\n    sent=1 received=1 packet-loss=0% `},
		{"no answer", Request{Host: netip.MustParseAddr("10.0.0.2"), Count: 1, Size: 64},
			`\n    0 10\.0\.0\.2                             timeout\n    sent=1 received=0 packet-loss=100%\n$`},
		{"no route", Request{Host: netip.MustParseAddr("10.8.0.1"), Count: 2, Size: 64},
			`\n    0 10\.8\.0\.1                             no route to host\n    1 10\.8\.0\.1                             no route to host\n    sent=2 received=0 packet-loss=100%\n$`},
		{"not allowed", Request{Host: netip.MustParseAddr("10.9.0.1"), Count: 1, Size: 64},
			`\n    0 10\.9\.0\.1                             packet rejected\n    sent=1 `},
		{"a route that leads nowhere", Request{Host: netip.MustParseAddr("10.7.0.1"), Count: 1, Size: 64},
			`\n    0 10\.7\.0\.1                             packet dropped\n    sent=1 `},
		{"for a program", Request{Host: netip.MustParseAddr("10.0.0.1"), Count: 2, Interval: 10 * time.Millisecond, Size: 64, Rows: true},
			`^seq=0;host=10\.0\.0\.1;size=64;ttl=64;time=\S+us;sent=1;received=1;packet-loss=0;min-rtt=\S+us;avg-rtt=\S+us;max-rtt=\S+us
seq=1;host=10\.0\.0\.1;size=64;ttl=64;time=\S+us;sent=2;received=2;packet-loss=0;min-rtt=\S+us;avg-rtt=\S+us;max-rtt=\S+us\n$`},
		{"no answer, for a program", Request{Host: netip.MustParseAddr("10.0.0.2"), Count: 1, Size: 64, Rows: true},
			`^seq=0;host=10\.0\.0\.2;status=timeout;sent=1;received=0;packet-loss=100\n$`},
	} {
		t.Run(test.name, func(t *testing.T) {
			socket := open(t)
			var out strings.Builder
			require.NoError(t, Run(context.Background(), socket, test.r, &out))
			assert.Regexp(t, test.want, out.String())
		})
	}
}

// After three seconds the kernel reports that a host cannot be reached on its link. By then
// two more requests have been sent, and the report does not count for them.
func TestLateFailures(t *testing.T) {
	socket := open(t)
	var out strings.Builder
	require.NoError(t, Run(context.Background(), socket, Request{Host: netip.MustParseAddr("10.0.0.3"), Count: 5, Interval: time.Second, Size: 64}, &out))
	assert.Contains(t, out.String(), "sent=5 received=0 packet-loss=100%\n")
	assert.NotContains(t, out.String(), "no route")
	t.Log(out.String())
}

func TestRunIsInterrupted(t *testing.T) {
	for _, host := range []string{"10.0.0.1", "10.0.0.2"} {
		socket := open(t)
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		var out strings.Builder
		start := time.Now()
		require.NoError(t, Run(ctx, socket, Request{Host: netip.MustParseAddr(host), Interval: time.Hour, Size: 64}, &out))
		assert.Less(t, time.Since(start), time.Hour)
		assert.Regexp(t, `\n    sent=[01] received=[01] packet-loss=0%`, out.String())
	}
}

func TestTrace(t *testing.T) {
	trace := func(host string, hops int) string {
		socket := open(t)
		var out strings.Builder
		require.NoError(t, Trace(context.Background(), socket,
			TraceRequest{Host: netip.MustParseAddr(host), MaxHops: hops, Probes: 3, Timeout: 50 * time.Millisecond}, &out))
		return out.String()
	}
	assert.Regexp(t, `^  # ADDRESS         LOSS SENT     LAST      AVG     BEST    WORST STATUS
  1 10\.0\.0\.1          0%    3    \d\.\dms    \d\.\dms    \d\.\dms    \d\.\dms
$`, trace("10.0.0.1", 30))
	assert.Regexp(t, `\n  1                 100%    3                                     timeout\n  2                 100%    3                                     timeout\n$`,
		trace("10.0.0.2", 2))
	assert.Regexp(t, `\n  1                 100%    3                                     no route to host\n$`, trace("10.8.0.1", 9))
}

// failureMessage returns an entry of the error queue as the kernel writes it.
func failureMessage(origin, typ, code byte, seq uint16) (packet, oob []byte) {
	packet = []byte{icmpEcho, 0, 0, 0, 0, 0, byte(seq >> 8), byte(seq)}
	data := make([]byte, 32)
	binary.NativeEndian.PutUint32(data, uint32(unix.EHOSTUNREACH))
	data[4], data[5], data[6] = origin, typ, code
	binary.NativeEndian.PutUint16(data[16:], unix.AF_INET)
	copy(data[20:], []byte{10, 1, 0, 1})
	oob = make([]byte, unix.CmsgSpace(len(data)))
	head := unix.Cmsghdr{Level: unix.IPPROTO_IP, Type: unix.IP_RECVERR}
	head.SetLen(unix.CmsgLen(len(data)))
	_, err := binary.Encode(oob, binary.NativeEndian, head)
	if err != nil {
		panic(err)
	}
	copy(oob[unix.CmsgLen(0):], data)
	return packet, oob
}

func TestParseFailure(t *testing.T) {
	router := netip.MustParseAddr("10.1.0.1")
	for _, test := range []struct {
		origin, typ, code byte
		want              echo
	}{
		{unix.SO_EE_ORIGIN_ICMP, 11, 0, echo{from: router, status: "TTL exceeded"}},
		{unix.SO_EE_ORIGIN_ICMP, 11, 1, echo{from: router, status: "fragment reassembly time exceeded"}},
		{unix.SO_EE_ORIGIN_ICMP, 3, 1, echo{from: router, status: "host unreachable"}},
		{unix.SO_EE_ORIGIN_ICMP, 3, 13, echo{from: router, status: "admin prohibited"}},
		{unix.SO_EE_ORIGIN_ICMP, 3, 77, echo{from: router, status: "ICMP type 3 code 77"}},
		{unix.SO_EE_ORIGIN_ICMP, 12, 0, echo{from: router, status: "ICMP type 12 code 0"}},
		{unix.SO_EE_ORIGIN_LOCAL, 0, 0, echo{status: "no route to host"}},
	} {
		t.Run(test.want.status, func(t *testing.T) {
			packet, oob := failureMessage(test.origin, test.typ, test.code, 0x1234)
			seq, e, found := parseFailure(packet, oob)
			assert.True(t, found)
			assert.EqualValues(t, 0x1234, seq)
			assert.Equal(t, test.want, e)
		})
	}
	_, _, found := parseFailure([]byte{icmpEcho, 0, 0}, nil)
	assert.False(t, found)
	packet, _ := failureMessage(0, 0, 0, 1)
	_, _, found = parseFailure(packet, nil)
	assert.False(t, found)
}

func TestFormatTime(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0us", 999: "0us", 453 * time.Microsecond: "453us", 12007 * time.Microsecond: "12ms7us", 1003 * time.Millisecond: "1s3ms",
	} {
		assert.Equal(t, want, formatTime(d))
	}
}

// TestServe: what the process does with what it is asked, up to the first packet.
func TestServe(t *testing.T) {
	servers := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
	socket, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer socket.Close()
	ping := Request{Count: 1, Interval: time.Second, Size: 64}
	change := func(j service.Job, f func(*service.Job)) service.Job {
		f(&j)
		return j
	}
	for _, c := range []struct {
		name string
		job  service.Job
		err  string
	}{
		{"no name server", Job("a.test", ping, nil, socket, nil), "address of a.test: no name server is set"},
		{"no name", Job("a..test", ping, servers, socket, nil), `address of "a..test": not a host name`},
		{"no name to trace", TraceJob("a..test", TraceRequest{MaxHops: 5, Timeout: time.Second, Probes: 3}, servers, socket, nil), `address of "a..test": not a host name`},
		{"no ping socket", Job("127.0.0.1", ping, nil, socket, nil), "ping socket: "},
		{"no ping socket to trace by", TraceJob("127.0.0.1", TraceRequest{MaxHops: 5, Timeout: time.Second, Probes: 3}, nil, socket, nil), "ping socket: "},
		{"another request", change(Job("a", ping, nil, socket, nil), func(j *service.Job) { j.Op = 9 }), "gone"},
		{"no socket", change(Job("a", ping, nil, socket, nil), func(j *service.Job) { j.Files = nil }), "gone"},
		{"a packet too small", Job("a", Request{Size: headers - 1}, nil, socket, nil), "gone"},
		{"no request for a hop", TraceJob("a", TraceRequest{MaxHops: 5}, nil, socket, nil), "gone"},
		{"too many hops", TraceJob("a", TraceRequest{MaxHops: 256}, nil, socket, nil), "gone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent, child, err := service.LinkPair(t.Context(), Spec, func(*service.Link) service.Handler { return nil },
				func(ctx context.Context, r *service.Request) ([]byte, error) { return nil, serve(ctx, r, io.Discard) })
			require.NoError(t, err)
			require.ErrorContains(t, parent.Call(t.Context(), c.job.Op, c.job.Body, nil, c.job.Files...), c.err)
			parent.Close()
			<-parent.Done()
			<-child.Done()
		})
	}
}

// What the network sends reaches these: nothing makes them panic or read beyond it.
func FuzzParseFailure(f *testing.F) {
	packet, oob := failureMessage(unix.SO_EE_ORIGIN_ICMP, 11, 0, 7)
	f.Add(packet, oob)
	f.Add(packet[:3], oob[:20])
	f.Fuzz(func(t *testing.T, packet, oob []byte) {
		_, e, found := parseFailure(packet, oob)
		assert.Equal(t, found, e.status != "")
		parseTTL(oob)
		p := pinger{request: make([]byte, 16)}
		if p.answers(packet) {
			assert.Len(t, packet, 16)
		}
	})
}
