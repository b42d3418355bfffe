package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
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
		r.add(postern4, bulk4, 200*speed)
		r.add(dante4, bulk4, 100*speed)
	}
	ratio, ok := goal{server: postern4, figure: bulk4, peer: dante4}.reached(r)
	assert.True(t, ok)
	assert.InDelta(t, 2, ratio, 1e-9)
	_, ok = goal{server: postern4, figure: bulk4, peer: microsocks5}.reached(r)
	assert.False(t, ok)
}

func TestGoals(t *testing.T) {
	fast := goal{postern4, bulk4, dante4, true, 2.5}
	small := goal{postern4, idleMemory, "", false, 1000}
	assert.True(t, fast.met(2.5))
	assert.False(t, fast.met(2.4))
	assert.True(t, small.met(1000))
	assert.False(t, small.met(1001))
	assert.Equal(t, "at least 2.5 x dante 4", fast.bounds())
	assert.Equal(t, "at most 1000 bytes", small.bounds())

	named := names(kinds("", ""))
	for _, g := range goals() {
		assert.Contains(t, named, g.server)
		if g.peer != "" {
			assert.Contains(t, named, g.peer)
		}
		assert.NotPanics(t, func() { rowOf(g.figure) })
	}
	for _, p := range panels() {
		assert.NotPanics(t, func() { rowOf(p.figure) })
	}
}

// example is a run of two rounds of three servers.
func example() results {
	r := results{}
	for _, speed := range []float64{1, 0.5} {
		r.add(direct, bulk4, 9000*speed)
		r.add(postern4, bulk4, 3000*speed)
		r.add(dante4, bulk4, 1000*speed)
	}
	r.add(postern4, idleMemory, 1234)
	r.add(postern4, connectionsFailed, 0)
	r.add(postern4, connectionsFailed, 3)
	return r
}

func TestReport(t *testing.T) {
	report := example().report([]string{direct, postern4, dante4})
	assert.Equal(t, map[string]string{direct: "6750", postern4: "2250", dante4: "750"}, report.values[bulk4])
	assert.Contains(t, report.goals, outcome{postern4, bulk4, "at least 2.5 x dante 4", "3.00", goalMet, missing})
	assert.Contains(t, report.goals, outcome{postern4, bulk4, "at least 1 x io.Copy 4", notMeasured, notMeasured, missing})
	assert.Contains(t, report.goals, outcome{postern4, idleMemory, "at most 1000 bytes", "1234", goalMissed, missing})
	assert.Contains(t, report.goals, outcome{postern4, connectionsFailed, "at most 0", "3", goalMissed, missing}, "the worst round")

	report.caption, report.notes = "A caption.", "A note."
	var out bytes.Buffer
	require.NoError(t, report.markdown(&out))
	for _, line := range []string{
		`(?m)^\| figure +\| unit +\| direct \| postern 4 \| dante 4 \|$`,
		`(?m)^\|-+\|-+\|-+:\|-+:\|-+:\|$`,
		`(?m)^\| bulk, 4 streams +\| MB/s +\| +6750 \| +2250 \| +750 \|$`,
		`(?m)^\| memory per idle connection +\| bytes +\| +- \| +1234 \| +- \|$`,
		`(?m)^\| bulk, 4 streams +\| postern 4 +\| at least 2.5 x dante 4 +\| +3.00 \| +yes \| +- \|$`,
		`(?m)^A caption\. A note\.$`,
	} {
		assert.Regexp(t, line, out.String())
	}
}

// What the load's one thread takes for each connection bounds every server's rate.
func TestPossible(t *testing.T) {
	r := results{}
	r.add(postern4, connectionRate, 14_500)
	r.add(postern4, loadPerConnection, 62.5) // so 16,000 a second
	r.add(dante4, connectionRate, 8_000)
	r.add(dante4, loadPerConnection, 50)
	assert.Contains(t, r.report([]string{postern4, dante4}).goals,
		outcome{postern4, connectionRate, "at least 3.5 x dante 4", "1.81", goalMissed, "2.00"})
}

func TestLoad(t *testing.T) {
	for _, c := range []struct {
		name  string
		busy  []float64
		want  string
		quiet bool
	}{
		{"quiet, with one exception", []float64{0, 0.02, 0.9}, "kept 0.02 of", true},
		{"busy", []float64{0.2, 1.2, 1.3}, "more than 0.1: these are not the machine's figures.", false},
		{"not known", nil, "is not known", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, isQuiet := results{machine: {othersBusy: c.busy}}.load()
			assert.Contains(t, text, c.want)
			assert.Equal(t, c.quiet, isQuiet)
		})
	}
}

func TestCompare(t *testing.T) {
	r := results{}
	for i, before := range []float64{100, 50, 80} {
		r.add(baseline4, bulk4, before)
		r.add(postern4, bulk4, before*[]float64{1, 1.1, 1.2}[i])
	}
	assert.Regexp(t, `(?m)^\| bulk, 4 streams +\| MB/s +\| +96 \| +80 \| 1.100 \| 1.000 \| 1.200 \|$`, r.compare(postern4, baseline4))
}

func TestReplaceTables(t *testing.T) {
	page, err := replaceTables("a\n"+tablesBegin+"\nold\n"+tablesEnd+"\nb\n", "new\n")
	require.NoError(t, err)
	assert.Equal(t, "a\n"+tablesBegin+"\n\nnew\n\n"+tablesEnd+"\nb\n", page)
	again, err := replaceTables(page, "new\n")
	require.NoError(t, err)
	assert.Equal(t, page, again)
	for _, bad := range []string{"", tablesBegin + "\n", tablesEnd + "\n" + tablesBegin + "\n"} {
		_, err := replaceTables(bad, "new\n")
		assert.ErrorContains(t, err, "want the lines")
	}
}

func TestOptions(t *testing.T) {
	good := options{rounds: 1, busy: 1}
	assert.NoError(t, good.check())
	for _, c := range []struct {
		name   string
		change func(*options)
		err    string
	}{
		{"no round", func(o *options) { o.rounds = 0 }, "--rounds 0"},
		{"a server that is not known", func(o *options) { o.only = []string{"dante"} }, `--only "dante": want some of direct, postern 4`},
		{"a baseline without a file", func(o *options) { o.only = []string{baseline4} }, "--only"},
		{"nobody busy", func(o *options) { o.busy = 0 }, "--busy 0"},
		{"no number", func(o *options) { o.busy = math.NaN() }, "--busy NaN"},
		{"more than there are", func(o *options) { o.busy = 1e6 }, "the processors of this machine"},
		{"no page", func(o *options) { o.page = "none.md" }, "--page"},
		{"a page without a place", func(o *options) { o.page = "main.go" }, "want the lines"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := good
			c.change(&o)
			assert.ErrorContains(t, o.check(), c.err)
		})
	}
}

func TestGrouped(t *testing.T) {
	for number, want := range map[string]string{"0": "0", "999": "999", "1000": "1,000", "12345678.90": "12,345,678.90", "-123": "-123"} {
		assert.Equal(t, want, grouped(number))
	}
}

func TestPicture(t *testing.T) {
	report := example().report([]string{direct, postern4, dante4})
	report.caption = "Medians of 2 rounds on <this> & that."
	var out bytes.Buffer
	require.NoError(t, report.draw(&out))
	svg := out.String()

	var words []string
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		if chars, ok := token.(xml.CharData); ok {
			words = append(words, strings.TrimSpace(string(chars)))
		}
	}
	for _, want := range []string{
		pictureTitle, "Medians of 2 rounds on <this> & that.", "2,250", "750", "1,234 (missed)", notMeasured,
		"MB/s, more is better", "goal: at least 2.5 x dante",
	} {
		assert.Contains(t, words, want)
	}
	assert.NotContains(t, words, "6,750", "no proxy has no bar")
	assert.Contains(t, svg, "prefers-color-scheme: dark")
	assert.Contains(t, svg, "bulk, 4 streams, MB/s: postern 4 2,250; dante 4 750.")

	// The mark is at the goal: 2.5 times dante's 750 of the longest bar's 2250.
	at, ok := report.mark(panels()[0], postern4)
	assert.True(t, ok)
	assert.InDelta(t, 1875, at, 1e-9)
	_, ok = report.mark(panels()[0], dante4)
	assert.False(t, ok)
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
		dialect dialect
		replies string
		sent    string
		err     string
	}{
		{"none", dialect{}, "", "", ""},
		{"SOCKS4", dialect{version: 4}, "\x00\x5a\x00\x00\x00\x00\x00\x00", "\x04\x01\x01\x02\x7f\x00\x00\x05\x00", ""},
		{"SOCKS4, rejected", dialect{version: 4}, "\x00\x5b\x00\x00\x00\x00\x00\x00", "\x04\x01\x01\x02\x7f\x00\x00\x05\x00", "SOCKS4: reply 00 5b"},
		{"SOCKS4, cut", dialect{version: 4}, "\x00\x5a", "\x04\x01\x01\x02\x7f\x00\x00\x05\x00", "SOCKS4: unexpected EOF"},
		{"SOCKS5", dialect{version: 5}, "\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x10\x00", "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x05\x01\x02", ""},
		{"SOCKS5, no method", dialect{version: 5}, "\x05\xff", "\x05\x01\x00", "SOCKS5: method 05 ff"},
		{"SOCKS5, refused", dialect{version: 5}, "\x05\x00\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00", "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x05\x01\x02", "SOCKS5: reply 05 05"},
		{"password", dialect{5, true}, "\x05\x02\x01\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x10\x00",
			"\x05\x01\x02\x01\x05bench\x1ccorrect horse battery staple\x05\x01\x00\x01\x7f\x00\x00\x05\x01\x02", ""},
		{"password, not asked for", dialect{5, true}, "\x05\x00", "\x05\x01\x02", "SOCKS5: method 05 00"},
		{"password, wrong", dialect{5, true}, "\x05\x02\x01\x01",
			"\x05\x01\x02\x01\x05bench\x1ccorrect horse battery staple", "SOCKS5: password: 01 01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &scripted{replies: bytes.NewReader([]byte(c.replies))}
			err := take(s, c.dialect.turns(to)...)
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

// What the host accepts acknowledges with its next bytes, so that a visit costs no packet that is not the server's doing.
func TestHostDelaysAcknowledgements(t *testing.T) {
	to, err := freePort()
	require.NoError(t, err)
	l, err := listen(to)
	require.NoError(t, err)
	defer unix.Close(l)
	near, err := net.Dial("tcp4", to.String())
	require.NoError(t, err)
	defer near.Close()
	require.Eventually(t, func() bool {
		guest, _, err := unix.Accept(l)
		if err != nil {
			return false
		}
		defer unix.Close(guest)
		at, err := unix.GetsockoptInt(guest, unix.IPPROTO_TCP, unix.TCP_QUICKACK)
		require.NoError(t, err)
		assert.Zero(t, at, "acknowledges at once")
		return true
	}, patience, time.Millisecond)
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
	}, time.Minute, 20*time.Millisecond)
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
	}, time.Minute, 10*time.Millisecond)
	p.stop()
	for _, found := range all {
		assert.Eventually(t, func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/%d/exe", found.id))
			return err != nil
		}, time.Minute, 10*time.Millisecond)
	}
}

// The picture of docs/SOCKS.md is of the tables beside it. POSTERN_GOLDEN=write draws it anew from
// them, when only the way it is drawn has changed.
func TestPictureIsOfTheTables(t *testing.T) {
	const page, picture = "../../docs/SOCKS.md", "../../docs/socks.svg"
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	var drawn bytes.Buffer
	require.NoError(t, readReport(t, string(text)).draw(&drawn))
	if os.Getenv("POSTERN_GOLDEN") == "write" {
		require.NoError(t, os.WriteFile(picture, drawn.Bytes(), 0o644))
	}
	want, err := os.ReadFile(picture)
	require.NoError(t, err)
	assert.Equal(t, string(want), drawn.String())
	assert.Less(t, len(want), 30_000)
}

// readReport reads the tables of a page.
func readReport(t *testing.T, page string) report {
	t.Helper()
	_, text, ok := strings.Cut(page, tablesBegin)
	require.True(t, ok)
	text, _, ok = strings.Cut(text, tablesEnd)
	require.True(t, ok)
	parts := strings.Split(strings.TrimSpace(text), "\n\n")
	require.Len(t, parts, 3)
	table := func(part string) (rows [][]string) {
		for line := range strings.Lines(part) {
			var row []string
			for _, cell := range strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|") {
				row = append(row, strings.TrimSpace(cell))
			}
			rows = append(rows, row)
		}
		return rows
	}
	figures := table(parts[0])
	r := report{servers: figures[0][2:], values: map[string]map[string]string{}}
	for _, row := range figures[2:] {
		r.values[row[0]] = map[string]string{}
		for i, value := range row[2:] {
			if value != missing {
				r.values[row[0]][r.servers[i]] = value
			}
		}
	}
	for _, row := range table(parts[1])[2:] {
		r.goals = append(r.goals, outcome{figure: row[0], server: row[1], bounds: row[2], reached: row[3], met: row[4]})
	}
	r.caption, r.notes, ok = strings.Cut(parts[2], " Between ")
	require.True(t, ok)
	return r
}

// Dante's ports are those of an address that nobody else connects from, nor it itself in another
// round: the connections of a fast machine's round have them all.
func TestDanteExternal(t *testing.T) {
	a, b := danteExternal(1080), danteExternal(1081)
	assert.True(t, a.IsLoopback() && b.IsLoopback())
	assert.NotEqual(t, a, b)
	assert.NotEqual(t, loopback, a)
	for n := range addresses {
		assert.NotEqual(t, address(n), a)
	}
}

func TestKeepBusy(t *testing.T) {
	for _, part := range []string{"", "x", "0", "-1", "1.1", "NaN"} {
		assert.ErrorContains(t, keepBusy(part), "is no part of a processor", part)
	}
}
