package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// The tests of this file are bad days: what they see is said as figures (-v).

// badDayVariable names the board of the bad days that boot one alone: those of this file, memory taken, processes ended
// and stopped, three days, blocks that go bad. It is one of the lab's.
const badDayVariable = "POSTERN_TEST_BAD_DAY_BOARD"

// badDayBoard is the board that badDayVariable names, else the usual one. If that is not to be tested the test is skipped.
func badDayBoard(t *testing.T, usual string) board.Board {
	t.Helper()
	name := os.Getenv(badDayVariable)
	if name == "" {
		skipWithout(t, usual)
	}
	b, err := chooseBadDayBoard(name, usual, boards())
	require.NoError(t, err)
	return b
}

// chooseBadDayBoard returns the board of that name, or if it is empty the usual one. An error says which of those that are
// tested, with images, it could have been.
func chooseBadDayBoard(name, usual string, tested []board.Board) (board.Board, error) {
	name = cmp.Or(name, usual)
	var names []string
	for _, b := range tested {
		// The other boards have no ports in the lab, or start from their disk alone.
		if !slices.ContainsFunc(board.Lab(), func(l board.Board) bool { return l.Name == b.Name }) {
			continue
		}
		if b.Name == name {
			return b, nil
		}
		names = append(names, b.Name)
	}
	return board.Board{}, fmt.Errorf("%s=%s: this is to be one of the lab's boards that POSTERN_TEST_BOARDS names, or any of them if that is unset: %s",
		badDayVariable, name, strings.Join(names, ", "))
}

// TestChooseBadDayBoard needs no machine.
func TestChooseBadDayBoard(t *testing.T) {
	lab := board.Lab()
	router, err := board.ByName("tl-mr3020")
	require.NoError(t, err)
	for _, c := range []struct {
		name, want string
		tested     []board.Board
		err        string
	}{
		{"", "malta", lab, ""},
		{"virt-arm64", "virt-arm64", lab, ""},
		{"no-board", "", lab, "POSTERN_TEST_BAD_DAY_BOARD=no-board: .*: malta, maltael, virt-armv7, virt-arm64, pc$"},
		{"tl-mr3020", "", append([]board.Board{router}, lab[:2]...), "POSTERN_TEST_BAD_DAY_BOARD=tl-mr3020: .*: malta, maltael$"},
		{"pc", "", lab[:1], "POSTERN_TEST_BAD_DAY_BOARD=pc: .*: malta$"},
	} {
		got, err := chooseBadDayBoard(c.name, "malta", c.tested)
		assert.Equal(t, c.want, got.Name, c.name)
		if c.err != "" {
			require.Error(t, err, c.name)
			assert.Regexp(t, c.err, err.Error())
			continue
		}
		assert.NoError(t, err, c.name)
	}
}

const (
	badDaySocks      = 100
	badDayMasquerade = 20
	badDayPort       = 5131

	// flapTime is how long TestFlappingLink lasts, unless flapTimeVariable says otherwise: 10m, say.
	flapTime         = time.Minute
	flapTimeVariable = "POSTERN_TEST_FLAP_TIME"
	// flapPause is from one change of the link to the next: it goes and comes back twice a second.
	flapPause = 250 * time.Millisecond
)

// talk has connections speak through the router.
func (r *router) talk(t *testing.T, port, socks, masquerade int) []*talk {
	t.Helper()
	l, err := r.n.listen(serverOfSite, port)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return r.openTalks(t, l, netip.MustParseAddrPort(fmt.Sprintf("%s:%d", serverAddress, port)), socks, masquerade)
}

// TestFlappingLink has the link of the WAN go and come back twice a second, with connections open. Then
// all go on. What hosts take for that by themselves, whose timers have grown behind lost packets, those
// by masquerade tell. That the router's own buffers add nothing to it is for TestHeardBehindAFullBuffer and TestWindowOfAPacket of
// package socks: times depend on how busy the host is.
func TestFlappingLink(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	b := badDayBoard(t, "malta")
	length := testTime(t, flapTimeVariable, flapTime)
	r := startRouter(t, b.Name, func(o *machineOptions) {
		o.capture = false
		// TCP sends again after times that double, up to two minutes: that is silence, and no fault.
		o.configuration += "/ip socks set connection-idle-timeout=10m\n"
	})
	r.awaitService(t)
	r.awaitLinks(t)
	talks := r.talk(t, badDayPort, badDaySocks, badDayMasquerade)
	before, _ := r.freeMemory(t)
	lowest, flaps, look := before, 0, time.Now()
	for start := time.Now(); time.Since(start) < length; flaps++ {
		for _, up := range []bool{false, true} {
			require.NoError(t, r.m.monitor.execute("set_link", map[string]any{"name": "net-ether1", "up": up}))
			time.Sleep(flapPause) // this is what is tested, no wait for something
		}
		if time.Since(look) > slowLook {
			look = time.Now()
			free, took := r.freeMemory(t)
			lowest = min(lowest, free)
			require.Less(t, took, slowAnswer, "time that the console took")
		}
	}
	back := time.Now()
	since := func() time.Duration { return time.Since(back).Round(100 * time.Millisecond) }
	socks := talks[:badDaySocks]
	sent := said(socks)
	r.awaitTalks(t, talks[badDaySocks:])
	masquerade := since()
	t.Logf("the link went and came back %d times; by masquerade all went on %v later: then %d of %d ends through SOCKS had heard nothing new",
		flaps, masquerade, len(behind(socks, sent).ends), 2*badDaySocks)
	r.awaitTalks(t, talks)
	free, _ := r.freeMemory(t)
	t.Logf("all went on %v later; free memory: %.1f MiB before, %.1f MiB the least, %.1f MiB after", since(), before, min(lowest, free), free)
	assert.GreaterOrEqual(t, min(lowest, free), slowFreeMemory*float64(b.Memory)/32, "MiB of free memory")
	r.awaitHTTP(t)
	r.assertTalks(t, talks)
	assert.NotRegexp(t, `(?i)out of memory|oom|page allocation failure|(ended by|hangs: it is ended)`, r.m.screen.all())
}

// TestThrownClock sets the clock to where programs have erred, and back, with connections open, and has it pass the end of 32 bits.
func TestThrownClock(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	b := badDayBoard(t, "malta")
	r := startRouter(t, b.Name, func(o *machineOptions) {
		o.capture = false
		o.within = buildWithin(t, b)
		o.commandLine = "rdinit=/within"
		o.memory = insideMemory(b) // what testdata/within takes, too
	})
	r.awaitService(t)
	r.awaitLinks(t)
	talks := r.talk(t, badDayPort, badDaySocks, badDayMasquerade)
	now := time.Now().UTC()
	today := strings.ToLower(now.Format("Jan/02/2006"))
	for i, day := range []struct{ date, time string }{
		{"jan/01/1970", "01:00:00"}, // the kernel takes no time of day before its start
		{today, "12:00:00"},
		{"dec/31/2037", "23:59:58"}, // the last that can be set: 2038 begins meanwhile
		{"jan/01/1970", "01:00:00"},
		{"dec/31/2037", "23:59:58"},
		{today, "12:00:00"},
	} {
		start := time.Now()
		assert.Empty(t, r.command(t, "/system clock set date="+day.date+" time="+day.time))
		r.awaitTalks(t, talks)
		took := time.Since(start)
		_, reply := r.request(t, client, commandConnect, r.echo(t, badDayPort+10+i))
		assert.EqualValues(t, granted, reply.code)
		r.awaitHTTP(t)
		want := strings.Replace(day.date, "dec/31/2037", "jan/01/2038", 1)
		require.NoError(t, retry(func() error {
			if shown := r.command(t, "/system clock print"); !strings.Contains(shown, "date: "+want+"\n") {
				return fmt.Errorf("not %s:\n%s", want, shown)
			}
			return nil
		}))
		r.awaitTalks(t, talks)
		t.Logf("%s %s: all %d connections have gone on within %v", day.date, day.time, len(talks), took.Round(100*time.Millisecond))
	}
	// Where 32 bits end nobody can set the clock to, but it gets there by itself.
	const before = 3
	require.Equal(t, "<nil>\n", r.within(t, fmt.Sprint("clock ", 1<<31-before)))
	require.NoError(t, retry(func() error {
		shown := r.command(t, "/system clock print")
		found := regexp.MustCompile(`time: ([\d:]+)\s+date: jan/19/2038\n`).FindStringSubmatch(shown)
		if found == nil || found[1] <= "03:14:07" {
			return fmt.Errorf("32 bits have not ended:\n%s", shown)
		}
		return nil
	}))
	r.awaitTalks(t, talks)
	_, reply := r.request(t, client, commandConnect, r.echo(t, badDayPort+20))
	assert.EqualValues(t, granted, reply.code)
	r.awaitHTTP(t)
	assert.Empty(t, r.command(t, "/system clock set date="+today+" time=12:00:00"))
	assert.Contains(t, r.command(t, "/system clock print"), "date: "+today+"\n")
	r.awaitTalks(t, talks)
	assert.Regexp(t, `uptime: (\d+m)?\d+s`, r.command(t, "/system resource print"))
	r.assertTalks(t, talks)
	free, _ := r.freeMemory(t)
	t.Logf("free memory: %.1f MiB", free)
	assert.NotRegexp(t, `(?i)(ended by|hangs: it is ended|is not well:|not been well)`, r.m.screen.all())
}

// TestSlowDisk has a disk that answers a minute late, once to a write and once to a read, while the configuration is written to it
// and read back. Who is at the router does not feel it, the watchdog does not bite, and what was set is there after a start.
func TestSlowDisk(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	b := badDayBoard(t, "pc")
	if b.Flash.Chip != "" {
		t.Skipf("%s has a chip, which answers at once: the tests of its bad days are TestBadBlocks and TestWornFlash", b.Name)
	}
	const late = time.Minute
	r := startRouter(t, b.Name, func(o *machineOptions) { o.capture, o.heldFlash = false, true })
	r.awaitService(t)
	r.awaitLinks(t)
	k := &keeper{T: t, b: r.b, n: r.n, dir: r.dir, m: r.m}
	echo := r.echo(t, badDayPort+20)
	old, reply := r.request(t, client, commandConnect, echo)
	require.EqualValues(t, granted, reply.code)
	for _, held := range []struct{ request, name string }{{"write_aio", "late"}, {"read_aio", "later"}} {
		// It is told that it is not kept, as the power may be cut meanwhile, and so is the end of it.
		const notKept, keptAgain = "the configuration is not kept: the flash has not answered for 20s", "the configuration is kept again"
		before := strings.Count(r.command(t, "/log print"), keptAgain)
		answer, err := r.m.holdFlash(held.request)
		require.NoError(t, err)
		start := time.Now()
		assert.Empty(t, r.command(t, "/system identity set name="+held.name))
		served, longest := 0, time.Duration(0)
		for told := false; !told || time.Since(start) < late; {
			conn, reply := r.request(t, client, commandConnect, echo)
			require.EqualValues(t, granted, reply.code)
			assertEcho(t, conn)
			assertEcho(t, old)
			conn.Close()
			_, took := r.freeMemory(t)
			longest = max(longest, took)
			served++
			require.Less(t, time.Since(start), patience, "it is not told; the console says:\n%s", r.m.screen.tail(20))
			told = strings.Count(r.command(t, "/log print"), notKept) > before
			pause(time.Second) // for the other tests
		}
		assert.Equal(t, before, strings.Count(r.command(t, "/log print"), keptAgain), held.request)
		require.NoError(t, answer())
		k.awaitKept(t, "set name="+held.name)
		require.NoError(t, retry(func() error {
			if n := strings.Count(r.command(t, "/log print"), keptAgain); n == before {
				return fmt.Errorf("%s: not said to be kept again", held.request)
			}
			return nil
		}))
		t.Logf("%s answered after %v; %d connections were served meanwhile, the console answered in at most %v",
			held.request, time.Since(start).Round(time.Second), served, longest.Round(time.Millisecond))
		assert.Less(t, longest, slowAnswer, "time that the console took")
	}
	assert.NotRegexp(t, `(?i)(ended by|hangs: it is ended|is not well:|not been well)`, r.m.screen.all())
	r.m.kill()
	k.start(t, "later", nil)
	k.m.kill()
}
