package ntp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/resolve"
	"github.com/postern-router/postern/service"
)

// stampOf is a time as a server writes it.
func stampOf(t time.Time) stamp {
	return stamp(uint64(uint32(t.Unix()+epoch))<<32 | uint64(t.Nanosecond())<<32/1e9)
}

// reply is a good answer of a server whose clock is ahead by that.
func reply(random stamp, now time.Time, ahead time.Duration) []byte {
	b := make([]byte, packetSize)
	b[0] = version<<3 | modeServer
	b[1] = 2
	big := binary.BigEndian
	big.PutUint32(b[4:], 1<<15) // half a second
	big.PutUint64(b[24:], uint64(random))
	big.PutUint64(b[32:], uint64(stampOf(now.Add(ahead))))
	big.PutUint64(b[40:], uint64(stampOf(now.Add(ahead+time.Microsecond))))
	return b
}

// The seconds are those of RFC 5905, figure 4.
func TestStamp(t *testing.T) {
	for _, test := range []struct {
		seconds, fraction uint64
		want              time.Time
	}{
		{2_208_988_800, 0, time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)},
		{2_272_060_800, 1 << 31, time.Date(1972, 1, 1, 0, 0, 0, 500_000_000, time.UTC)},
		{3_155_587_200, 1 << 30, time.Date(1999, 12, 31, 0, 0, 0, 250_000_000, time.UTC)},
		{1<<32 - 1, 0, time.Date(2036, 2, 7, 6, 28, 15, 0, time.UTC)},
		{0, 0, time.Date(2036, 2, 7, 6, 28, 16, 0, time.UTC)}, // era 1
		{63_104, 0, time.Date(2036, 2, 8, 0, 0, 0, 0, time.UTC)},
		{1<<31 - 1, 0, time.Date(2104, 2, 26, 9, 42, 23, 0, time.UTC)},
	} {
		assert.Equal(t, test.want, stamp(test.seconds<<32|test.fraction).time())
	}
}

func TestParseAnswer(t *testing.T) {
	const random = stamp(0x0123456789ABCDEF)
	sent := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	const took = 20 * time.Millisecond
	for _, c := range []struct {
		name, problem string
		change        func(b []byte) []byte
	}{
		{"good", "", func(b []byte) []byte { return b }},
		{"version 3", "", func(b []byte) []byte { b[0] = 3<<3 | modeServer; return b }},
		{"with an extension", "", func(b []byte) []byte { return append(b, 1, 2, 3, 4) }},
		{"short", "not an answer", func(b []byte) []byte { return b[:47] }},
		{"another's", "not an answer to the request", func(b []byte) []byte { b[31]++; return b }},
		{"mode", "answer of mode 3", func(b []byte) []byte { b[0] = version<<3 | 3; return b }},
		{"version", "answer of version 1", func(b []byte) []byte { b[0] = 1<<3 | modeServer; return b }},
		{"leap", "does not know the time itself", func(b []byte) []byte { b[0] |= 3 << 6; return b }},
		{"stratum", "does not know the time itself", func(b []byte) []byte { b[1] = 16; return b }},
		{"a kiss", "does not want to be asked: DENY", func(b []byte) []byte { b[1] = 0; copy(b[12:], "DENY"); return b }},
		{"an unkind kiss", "does not want to be asked: ?", func(b []byte) []byte { b[1] = 0; copy(b[12:], "\x1b[2J"); return b }},
		{"no time", "answer without a time", func(b []byte) []byte { clear(b[40:48]); return b }},
		{"far", "may be wrong by", func(b []byte) []byte { b[8] = 1; return b }},
		{"longer than it took", "the server took", func(b []byte) []byte { b[43]++; return b }},
		{"backwards", "the server took", func(b []byte) []byte { b[35]++; return b }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := parseAnswer(c.change(reply(random, sent.Add(took/2), time.Hour)), random, sent, took)
			if c.problem != "" {
				require.ErrorContains(t, err, c.problem)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, 2, a.stratum)
			assert.InDelta(t, time.Hour, a.offset, float64(time.Millisecond))
		})
	}
	t.Run("a clock that starts in 1970", func(t *testing.T) {
		a, err := parseAnswer(reply(random, sent, 0), random, time.Unix(5, 0), took)
		require.NoError(t, err)
		assert.WithinDuration(t, sent, time.Unix(5, 0).Add(a.offset), time.Second)
	})
}

// TestProcess: what PID 1 takes from the process, and what it does not.
func TestProcess(t *testing.T) {
	taken, rests := make(chan Sample, 10), make(chan Rest, 10)
	encode := func(s Sample) []byte {
		var e service.Encoder
		e.String(s.Server)
		e.Uint(uint64(s.Stratum))
		e.Int(int64(s.Offset))
		return e.Bytes()
	}
	start := func(t *testing.T) *service.Link {
		var p *Process
		parent, child, err := service.LinkPair(t.Context(), Spec, func(l *service.Link) service.Handler {
			p = NewProcess(l, func(s Sample) error {
				taken <- s
				return errors.New("not believed")
			}, func(r Rest) error {
				rests <- r
				return errors.New("no rest")
			})
			return p.Handle
		}, func(_ context.Context, r *service.Request) ([]byte, error) {
			assert.Equal(t, []string{"a", "b"}, r.Strings(2, 1))
			assert.Equal(t, []netip.Addr{netip.MustParseAddr("10.0.0.1")}, r.Addrs(1))
			assert.EqualValues(t, 7, r.Uint(7))
			assert.Equal(t, "state", r.String(5))
			return nil, nil
		})
		require.NoError(t, err)
		t.Cleanup(func() { parent.Close(); <-parent.Done(); <-child.Done(); p.Ended() })
		require.NoError(t, p.Configure(t.Context(), Config{Servers: []string{"a", "b"}}, []netip.Addr{netip.MustParseAddr("10.0.0.1")}, 7, "state"))
		return child
	}
	sample := Sample{Server: "time.example", Stratum: 2, Offset: -1500 * time.Microsecond}
	child := start(t)
	require.EqualError(t, child.Call(t.Context(), opSample, encode(sample), nil), "not believed")
	assert.Equal(t, sample, <-taken)
	encodeRest := func(r Rest) []byte {
		var e service.Encoder
		e.Uint(r.Run)
		e.Int(int64(r.Pause))
		e.String(r.State)
		return e.Bytes()
	}
	rest := Rest{7, minPoll, "later"}
	require.EqualError(t, child.Call(t.Context(), opRest, encodeRest(rest), nil), "no rest")
	assert.Equal(t, rest, <-rests)
	for _, c := range []struct {
		name string
		op   byte
		body []byte
	}{
		{"nothing", opSample, nil},
		{"another request", opConfigure, encode(sample)},
		{"stratum 0", opSample, encode(Sample{"x", 0, 1})},
		{"stratum 16", opSample, encode(Sample{"x", 16, 1})},
		{"a long name", opSample, encode(Sample{strings.Repeat("x", 254), 2, 1})},
		{"more than a sample", opSample, append(encode(sample), 1)},
		{"no rest", opRest, nil},
		{"a short rest", opRest, encodeRest(Rest{7, minPoll - 1, ""})},
		{"a long rest", opRest, encodeRest(Rest{7, maxPoll + 1, ""})},
		{"too much to know", opRest, encodeRest(Rest{7, minPoll, strings.Repeat("x", maxState+1)})},
		{"more than a rest", opRest, append(encodeRest(rest), 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.ErrorIs(t, start(t).Call(t.Context(), c.op, c.body, nil), service.ErrGone)
		})
	}
	assert.Empty(t, taken)
	assert.Empty(t, rests)
}

// TestRunProcess: the process asks as its newest configuration says, until it is told to end.
func TestRunProcess(t *testing.T) {
	var rests chan Rest // of the process that was started last
	start := func(t *testing.T) (*Process, *service.Link, <-chan error) {
		var p *Process
		own := make(chan Rest, 10)
		rests = own
		link, ended, err := service.Simulate(t.Context(), Spec, func(l *service.Link) service.Handler {
			p = NewProcess(l, func(Sample) error { return nil }, func(r Rest) error { own <- r; return nil })
			return p.Handle
		})
		require.NoError(t, err)
		return p, link, ended
	}
	t.Run("told to end", func(t *testing.T) {
		p, link, ended := start(t)
		for range 2 { // nobody is asked twice at a time
			require.NoError(t, p.Configure(t.Context(), Config{Servers: []string{"a.test"}}, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, 1, ""))
		}
		link.Close()
		require.NoError(t, <-ended)
	})
	t.Run("a rest", func(t *testing.T) {
		p, link, ended := start(t)
		first := turn{pause: minPoll, dead: make([]bool, 1), failed: 3}
		// Of no name server it hears at once that the name cannot be resolved.
		require.NoError(t, p.Configure(t.Context(), Config{Servers: []string{"a.test"}}, nil, 9, first.state()))
		first.next(errors.New("no answer"))
		assert.Equal(t, Rest{9, 8 * minPoll, first.state()}, <-rests)
		link.Close()
		require.NoError(t, <-ended)
	})
	t.Run("nobody to ask", func(t *testing.T) {
		p, _, ended := start(t)
		require.ErrorIs(t, p.Configure(t.Context(), Config{}, nil, 1, ""), service.ErrGone)
		require.ErrorIs(t, <-ended, service.ErrBreach)
	})
}

// TestReport: what the process tells is what PID 1 takes.
func TestReport(t *testing.T) {
	want := Sample{Server: "a.test", Stratum: 3, Offset: -time.Hour}
	taken := make(chan Sample, 1)
	reporter := Spec
	reporter.Main = func(c *service.Child) error {
		return c.Serve(func(ctx context.Context, r *service.Request) ([]byte, error) { return nil, report(ctx, c, want) })
	}
	link, ended, err := service.Simulate(t.Context(), reporter, func(l *service.Link) service.Handler {
		return NewProcess(l, func(s Sample) error { taken <- s; return nil }, nil).Handle
	})
	require.NoError(t, err)
	require.NoError(t, link.Call(t.Context(), opConfigure, nil, nil))
	assert.Equal(t, want, <-taken)
	link.Close()
	require.NoError(t, <-ended)
}

func TestTurn(t *testing.T) {
	bad := errors.New("no answer")
	turn := turn{pause: minPoll, dead: make([]bool, 2)}
	next := func(err error, server int, pause time.Duration) {
		t.Helper()
		assert.Equal(t, pause, turn.next(err))
		assert.Equal(t, server, turn.server)
	}
	next(nil, 0, 64*time.Second)
	next(nil, 0, 128*time.Second)
	next(bad, 1, 2*time.Second)
	next(bad, 0, 256*time.Second)
	for range 10 {
		turn.next(bad)
	}
	next(bad, 1, 2*time.Second)
	next(bad, 0, maxPoll)
	next(nil, 0, 256*time.Second)
	next(kiss("RATE"), 1, 2*time.Second)
	next(nil, 1, maxPoll)
	next(kiss("DENY"), 0, 2*time.Second)
	next(kiss("RSTR"), 0, -1)
}

// TestTurnState: a process goes on where the one before it was.
func TestTurnState(t *testing.T) {
	first := turn{pause: minPoll, dead: make([]bool, 3)}
	for _, err := range []error{nil, nil, kiss("DENY"), errors.New("no answer"), nil, kiss("RATE")} {
		first.next(err)
		assert.Equal(t, first, newTurn(3, first.state()))
	}
	assert.LessOrEqual(t, len((&turn{maxServers - 1, maxPoll, make([]bool, maxServers), 1 << 30}).state()), maxState)
	for _, state := range []string{"", "x", first.state() + "x", (&turn{server: 3, pause: minPoll}).state(), (&turn{pause: 1}).state()} {
		assert.Equal(t, turn{pause: minPoll, dead: make([]bool, 3)}, newTurn(3, state))
	}
}

// serveTime is a server at 127.0.0.1, which also sends what nobody has asked for. It returns its port.
func serveTime(t *testing.T) uint16 {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := server.ReadFromUDP(b)
			if err != nil {
				return
			}
			if n != packetSize || b[0] != version<<3|modeClient {
				continue
			}
			random := stamp(binary.BigEndian.Uint64(b[40:]))
			_, _ = server.WriteToUDP(reply(random+1, time.Now(), 0), from)
			_, _ = server.WriteToUDP(b[:5], from)
			_, _ = server.WriteToUDP(reply(random, time.Now().Add(-time.Millisecond), time.Hour), from)
		}
	}()
	return uint16(server.LocalAddr().(*net.UDPAddr).Port)
}

// TestClient asks a server on loopback; the first two do not answer at all.
func TestClient(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var said []string
	samples := make(chan Sample, 1)
	c := client{servers: []string{"bad", "closed", "good"}, port: serveTime(t),
		report: func(_ context.Context, s Sample) error {
			samples <- s
			return nil
		},
		logf: func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, fmt.Sprintf(format, args...))
		},
		lookup: func(_ context.Context, host string, _ resolve.Servers) (netip.Addr, error) {
			switch host {
			case "bad":
				return netip.Addr{}, errors.New("no such host")
			case "closed":
				return netip.MustParseAddr("127.0.0.2"), nil
			}
			return netip.MustParseAddr("127.0.0.1"), nil
		},
		rest: func(context.Context, time.Duration, string) error { return errors.New("no rest") }}
	done := make(chan error)
	go func() { done <- c.run(ctx) }()
	s := <-samples
	cancel()
	require.NoError(t, <-done)
	assert.Equal(t, "good", s.Server)
	assert.InDelta(t, time.Hour, s.Offset, float64(time.Second))
	assert.Equal(t, []string{"time server bad: no such host", "time server closed: connection refused"}, said)
}

// At the start nobody can look a name up yet: it is looked up again after a pause, also by another process.
func TestLookedUpLater(t *testing.T) {
	port, state := serveTime(t), ""
	var said []string
	for _, known := range []bool{false, false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		var sample Sample
		c := client{servers: []string{"late"}, port: port, state: state,
			report: func(_ context.Context, s Sample) error {
				sample = s
				return nil
			},
			logf: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) },
			lookup: func(context.Context, string, resolve.Servers) (netip.Addr, error) {
				if !known {
					return netip.Addr{}, resolve.ErrNoServers
				}
				return netip.MustParseAddr("127.0.0.1"), nil
			},
			rest: func(_ context.Context, pause time.Duration, next string) error {
				assert.LessOrEqual(t, pause, 8*minPoll)
				state = next
				cancel()
				return nil
			}}
		require.NoError(t, c.run(ctx))
		assert.Equal(t, known, sample.Server == "late")
	}
	assert.Equal(t, []string{"time server late: no name server is set", "time server late: no name server is set"}, said)
}

func FuzzParseAnswer(f *testing.F) {
	sent := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	f.Add(reply(7, sent, time.Hour), int64(time.Second))
	f.Fuzz(func(t *testing.T, b []byte, took int64) {
		if took < 0 || took > int64(answerTime) {
			return
		}
		if len(b) >= 32 {
			binary.BigEndian.PutUint64(b[24:], 7)
		}
		a, err := parseAnswer(b, 7, sent, time.Duration(took))
		if err == nil && (a.stratum < 1 || a.stratum > maxStratum) {
			t.Fatalf("%+v", a)
		}
	})
}
