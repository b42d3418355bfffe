package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []float64
		part   float64
		want   float64
	}{
		{"one", []float64{7}, 0.5, 7},
		{"odd, in any order", []float64{9, 1, 5}, 0.5, 5},
		{"even", []float64{4, 1, 2, 3}, 0.5, 2.5},
		{"the greatest", []float64{4, 1, 2, 3}, 1, 4},
		{"between two", []float64{0, 100}, 0.99, 99},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.InDelta(t, c.want, quantile(c.values, c.part), 1e-9)
		})
	}
}

// A machine that is half as fast in the second round changes no ratio.
func TestRatioIsOfTheSameRound(t *testing.T) {
	r := results{}
	for _, speed := range []float64{1, 0.5, 0.9} {
		r.add(ours, bulk4, 200*speed)
		r.add("dante", bulk4, 100*speed)
	}
	ratio, ok := r.ratio(bulk4, "dante")
	assert.True(t, ok)
	assert.InDelta(t, 2, ratio, 1e-9)
	_, ok = r.ratio(bulk4, "microsocks")
	assert.False(t, ok)
}

func TestGoals(t *testing.T) {
	fast := goal{bulk4, "dante", true, 2.2, ""}
	small := goal{idleMemory, "", false, 2000, "bytes"}
	assert.True(t, fast.met(2.2))
	assert.False(t, fast.met(2.1))
	assert.True(t, small.met(2000))
	assert.False(t, small.met(2001))

	r := results{}
	r.add(ours, bulk4, 300)
	r.add("dante", bulk4, 100)
	r.add(ours, idleMemory, 2500)
	var out bytes.Buffer
	require.NoError(t, r.print(&out, []string{ours, "dante"}))
	assert.Regexp(t, `bulk, 4 streams >= 2.2 x dante +3.000: met`, out.String())
	assert.Regexp(t, `bulk, 4 streams >= 1 x io.Copy +not measured`, out.String())
	assert.Regexp(t, `memory per idle connection <= 2000 bytes +2500.000: missed`, out.String())
}

// scripted answers with what a server would say.
type scripted struct {
	sent    bytes.Buffer
	replies io.Reader
}

func (s *scripted) Write(p []byte) (int, error) { return s.sent.Write(p) }
func (s *scripted) Read(p []byte) (int, error)  { return s.replies.Read(p) }

func TestHandshake(t *testing.T) {
	to := netip.MustParseAddrPort("127.0.0.5:258")
	for _, c := range []struct {
		name    string
		version int
		replies string
		sent    string
		err     string
	}{
		{"none", 0, "", "", ""},
		{"SOCKS4", 4, "\x00\x5a\x00\x00\x00\x00\x00\x00", "\x04\x01\x01\x02\x7f\x00\x00\x05\x00", ""},
		{"SOCKS4, rejected", 4, "\x00\x5b\x00\x00\x00\x00\x00\x00", "\x04\x01\x01\x02\x7f\x00\x00\x05\x00", "SOCKS4: reply 00 5b"},
		{"SOCKS4, cut", 4, "\x00\x5a", "\x04\x01\x01\x02\x7f\x00\x00\x05\x00", "SOCKS4: unexpected EOF"},
		{"SOCKS5", 5, "\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x10\x00", "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x05\x01\x02", ""},
		{"SOCKS5, no method", 5, "\x05\xff", "\x05\x01\x00", "SOCKS5: method 05 ff"},
		{"SOCKS5, refused", 5, "\x05\x00\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00", "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x05\x01\x02", "SOCKS5: reply 05 05"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &scripted{replies: bytes.NewReader([]byte(c.replies))}
			err := take(s, handshakeTurns(c.version, to)...)
			assert.Equal(t, c.sent, s.sent.String())
			if c.err == "" {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, c.err)
			}
		})
	}
}

// lying is an echo that changes a byte far from the start.
func lying(conn net.Conn) {
	buf := make([]byte, 1<<20)
	for changed := false; ; changed = true {
		n, err := io.ReadFull(conn, buf)
		if err != nil {
			return
		}
		if changed {
			buf[n/2]++
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

func TestCheck(t *testing.T) {
	data := block()
	source := func(c net.Conn) { sendBlocks(c, data) }
	for _, c := range []struct {
		name         string
		source, echo func(net.Conn)
		err          string
	}{
		{"right", source, sendBack, ""},
		{"wrong echo", source, lying, "echo: the data was changed"},
		{"wrong source", func(c net.Conn) { sendBlocks(c, data[1:]) }, sendBack, "download: the data was changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var to target
			for port, serve := range map[*uint16]func(net.Conn){&to.source: c.source, &to.echo: c.echo} {
				// Without a proxy it connects to the addresses of the numbers 0 and 1.
				free, err := freePort()
				require.NoError(t, err)
				*port = free.Port()
				for n := range 2 {
					l, err := net.Listen("tcp4", netip.AddrPortFrom(address(n), *port).String())
					require.NoError(t, err)
					defer l.Close()
					go acceptAll(l, serve)
				}
			}
			err := check(context.Background(), &server{}, &to)
			if c.err == "" {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, c.err)
			}
		})
	}
}

// Without a proxy, visits get exactly what the target does.
func TestVisits(t *testing.T) {
	changed := func(c net.Conn) {
		var b [1]byte
		if _, err := c.Read(b[:]); err == nil {
			b[0]++
			_, _ = c.Write(b[:])
		}
	}
	for _, c := range []struct {
		name  string
		serve func(net.Conn) // nil: the loop itself, or nobody if there is an err
		err   string
	}{
		{"right", nil, ""},
		{"right, of a thread each", sendBack, ""},
		{"another byte", changed, "came back as"},
		{"closed at once", func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }, "echo: read: unexpected EOF"},
		{"nobody listens", nil, "connection refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var port uint16
			if c.serve != nil || c.err != "" {
				to, err := freePort()
				require.NoError(t, err)
				port = to.Port()
			}
			if c.serve != nil {
				for n := range addresses {
					l, err := net.Listen("tcp4", netip.AddrPortFrom(address(n), port).String())
					require.NoError(t, err)
					defer l.Close()
					go acceptAll(l, c.serve)
				}
			}
			latencies, failures, err := (&server{}).visits(context.Background(), port, time.Now().Add(100*time.Millisecond))
			require.NoError(t, err)
			if c.err == "" {
				assert.Empty(t, failures)
				require.GreaterOrEqual(t, len(latencies), addresses)
				assert.Positive(t, slices.Min(latencies))
				return
			}
			assert.Empty(t, latencies)
			require.NotEmpty(t, failures)
			assert.ErrorContains(t, failures[0], c.err)
		})
	}
}

func TestParseStat(t *testing.T) {
	p, err := parseStat(42, "42 (a ) (b) S 7 42 42 0 -1 4194560 100 200 0 0 150 50 300 500 20 0 1 0 12345 1 2 3\n")
	require.NoError(t, err)
	assert.Equal(t, process{id: 42, parent: 7, started: 12345, cpu: 10 * time.Second}, p)
	_, err = parseStat(42, "42 (cut) S 7 42")
	assert.ErrorContains(t, err, "too short")
}

// The time of a server's children counts while they run and after they have ended.
func TestCPUTimeCountsChildren(t *testing.T) {
	cmd := exec.Command("sh", "-c", "(i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done); read end")
	input, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer cmd.Wait()
	defer input.Close()
	s := &server{programs: []*program{{cmd: cmd}}}
	assert.Eventually(t, func() bool {
		all, err := tree(cmd.Process.Pid)
		used, usedErr := s.cpuTime()
		return err == nil && usedErr == nil && len(all) == 1 && used >= 30*time.Millisecond
	}, 10*time.Second, 20*time.Millisecond)
}

func TestField(t *testing.T) {
	text := []byte("sockets: used 12\nTCP: inuse 1 orphan 0 tw 2 alloc 3 mem 256\nUDP: inuse 4 mem 5\n")
	for _, c := range []struct {
		words []string
		want  int
	}{
		{[]string{"TCP:", "inuse"}, 1},
		{[]string{"TCP:", "mem"}, 256},
		{[]string{"UDP:", "mem"}, 5},
	} {
		got, err := field(text, c.words...)
		require.NoError(t, err)
		assert.Equal(t, c.want, got)
	}
	got, err := field([]byte("5580 - 7ffe [rollup]\nRss: 900 kB\nPss:  884 kB\n"), "Pss:")
	require.NoError(t, err)
	assert.Equal(t, 884, got)
	_, err = field(text, "TCP:", "none")
	assert.Error(t, err)
}

// A program ends with all its processes, also those of other process groups.
func TestStop(t *testing.T) {
	p, err := startProgram(t.TempDir(), "/bin/sh", "-c", "setsid sh -c 'trap \"\" TERM; sleep 60; sleep 60' & wait")
	require.NoError(t, err)
	var all []process
	require.Eventually(t, func() bool {
		all, err = tree(p.cmd.Process.Pid)
		return err == nil && len(all) == 3
	}, 5*time.Second, 10*time.Millisecond)
	p.stop()
	for _, found := range all {
		assert.Eventually(t, func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/%d/exe", found.id))
			return err != nil
		}, 5*time.Second, 10*time.Millisecond)
	}
}
