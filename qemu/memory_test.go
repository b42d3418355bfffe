package main

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
)

const (
	takenPort       = 5160
	takenSocks      = 40
	takenMasquerade = 20
	// takenLeft is how much memory TestMemoryTaken leaves, in KiB, and takenStep what it takes at once.
	takenLeft = 1 << 10
	takenStep = 64
)

// killed is what the kernel says when it ends a process for want of memory: which, and its oom_score_adj.
var killed = regexp.MustCompile(`Out of memory: Killed process (\d+) \((\w+)\).*oom_score_adj:(-?\d+)`)

// TestMemoryTaken takes the memory of the smallest board, or of the one that badDayVariable names, away, by files in /dev and by the shell of the debug image, until 1 MiB is
// left, until the kernel ends a process, and by a process that takes ever more. What runs goes on, a person at the
// router is answered, the watchdog does not bite, and when the memory is given back all is as before. Which process was
// ended is in the log and at the syslog server.
func TestMemoryTaken(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	b := badDayBoard(t, "malta")
	r := startInside(t, b, 0, "/ip dns set servers="+serverAddress+" allow-remote-requests=yes\n"+
		"/system logging action set remote remote="+serverAddress+"\n/system logging add topics=system,error action=remote\n")
	syslog := r.syslog(t)
	l, err := r.n.listen(serverOfSite, takenPort)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	talks := r.openTalks(t, l, netip.MustParseAddrPort(fmt.Sprintf("%s:%d", serverAddress, takenPort)), takenSocks, takenMasquerade)
	c := newSSHClient(t, r.n, r.dir)
	login := func() *sshShell {
		s := startShell(t, c.command(client, sshPassword, "-tt", "admin+cet512w@"+lanAddress))
		assert.True(t, strings.HasSuffix(s.expect(t, "] > "), "[admin@postern] > "))
		return s
	}
	// goesOn checks that what runs goes on, and what is forwarded.
	goesOn := func(when string) {
		t.Helper()
		lost, err := goOn(talks)
		require.NoError(t, err, when)
		require.Empty(t, lost, when)
		r.awaitHTTP(t)
	}
	port := takenPort
	// serves checks also that there are new connections through SOCKS, which wait while memory is short.
	serves := func(when string) {
		t.Helper()
		goesOn(when)
		port++
		conn, reply := r.request(t, client, commandConnect, r.echo(t, port))
		require.EqualValues(t, granted, reply.code, when)
		assertEcho(t, conn)
	}
	// None of these lines starts a process: there may be no room for one.
	r.run("left() { while read name size unit; do case $name in MemAvailable:) left=$size;; esac; done </proc/meminfo; }")
	r.run("take() { left; while [ $left -gt $1 ]; do echo $block >>/dev/taken; left; done; }")
	r.run("block=0123456789abcde; for i in 0 1 2 3 4 5 6 7 8 9 10 11; do block=$block$block; done") // 15 << 12 bytes
	left := func() int {
		t.Helper()
		word, err := find(r.run("left; echo left is $left"), `left is (\d+)`)
		require.NoError(t, err)
		n, err := strconv.Atoi(word)
		require.NoError(t, err)
		return n
	}
	console := login()
	before := left()
	stays := []string{"socksd", "dnsd"}
	old := r.processes(append(stays, "sshd")...)

	r.run(fmt.Sprintf("take %d", takenLeft))
	t.Logf("KiB that programs can still get: %d before, %d now", before, left())
	goesOn("with 1 MiB left")
	assert.Contains(t, console.typed(t, "/system resource print", "] > "), "[admin@postern] > ")
	assert.NotRegexp(t, killed, r.m.screen.all())

	// More is taken until the kernel ends a process. That of the shell it must not be: it would give nothing back.
	r.run("echo -1000 >/proc/self/oom_score_adj")
	steps := 0
	for ; !killed.MatchString(r.m.screen.all()); steps++ {
		require.Less(t, steps, b.Memory<<10/takenStep, "steps, of all of the memory")
		r.run("echo $block >>/dev/taken")
	}
	first := killed.FindStringSubmatch(r.m.screen.all())
	t.Logf("after %d KiB more the kernel has ended %s: %d can be got now", steps*takenStep, first[2], left())
	assert.Equal(t, "sshd", first[2], "the process with least to lose")
	assert.Equal(t, "300", first[3])
	goesOn("after the kernel has ended a process")
	r.run("echo >/dev/taken; echo 400 >/proc/self/oom_score_adj")
	console = login() // sshd is started by it
	serves("with the memory back")
	// told checks that the log and the syslog server have a line about each process that was ended.
	told := func(all ...[]string) {
		t.Helper()
		log := console.shown(t, `/log print where topics~"error"`, "] > ")
		for _, of := range all {
			line := "kernel: Out of memory: Killed process " + of[1] + " (" + of[2] + ")"
			assert.Contains(t, log, " system,error "+line)
			syslog(t, "system,error - "+regexp.QuoteMeta(line))
		}
	}
	told(first)
	assert.Len(t, killed.FindAllString(r.m.screen.all(), -1), 1)

	// A process that takes ever more ends, and no other does.
	r.m.screen.forget()
	require.NoError(t, r.m.send("while true; do block=$block$block; done\r"))
	r.expect(t, "shell on "+b.Consoles[0])
	r.expect(t, "$")
	serves("after a process has taken all")
	assert.Contains(t, console.typed(t, "/system resource print", "] > "), "[admin@postern] > ")
	now := r.processes(append(stays, "sshd")...)
	for _, name := range stays {
		assert.Equal(t, old[name], now[name], "%s was not ended", name)
	}
	assert.NotEqual(t, old["sshd"], now["sshd"])
	all := killed.FindAllStringSubmatch(r.m.screen.all(), -1)
	t.Logf("the kernel has ended: %q", all)
	told(all[1:]...)
	r.assertTalks(t, talks)
	assert.NotRegexp(t, `(?i)kernel panic|hangs: it is ended|not been well`, r.m.screen.all())
	// A packet for which there is no page then is dropped, and sent again. For all else there is one, or a process ends.
	for _, line := range regexp.MustCompile(`.*page allocation failure.*`).FindAllString(r.m.screen.all(), -1) {
		assert.Regexp(t, `order:0, mode:0x[0-9a-f]+\(GFP_ATOMIC[|)]`, line)
	}
}
