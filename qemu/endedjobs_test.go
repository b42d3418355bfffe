package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/password"
)

const (
	jobsPort   = 5170
	silentPort = jobsPort - 1 // where requests are taken, and nothing is answered
	withinPort = 5199         // of testdata/within
)

// jobsRouter is a board of the image that is shipped, where the program of testdata/within sends processes signals.
type jobsRouter struct {
	*router
	t *testing.T
	// console is a person who has logged in by SSH.
	console *sshShell
	// asked counts the requests for the time.
	asked atomic.Int64
	// other says which of two configurations the time client has.
	other bool
}

// jobSignals are the words of testdata/within for the signals that are sent.
var jobSignals = []string{"ended", "stopped"}

// TestJobsEndedAndStopped ends by SIGKILL and stops by SIGSTOP, in an order of chance, the processes that are there for a while: those of
// what somebody asks for, the time client's, and the console's, while connections through SOCKS and by masquerade are in use.
// Nothing is lost but what docs/ARCHITECTURE.md ("When a process ends or stands still") says, and who asked is told.
func TestJobsEndedAndStopped(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	loads(t)
	b := badDayBoard(t, "malta")
	rounds := endedRounds(t)
	r := startJobs(t, b)
	t.Run("what an unprivileged process sees", func(t *testing.T) {
		assert.Equal(t, "processes: 1 <nil>\nPID 1: open /proc/1/status: no such file or directory\n"+
			"log of the kernel: operation not permitted\nits file: open /dev/kmsg: operation not permitted\n"+
			"kptr_restrict: 2 <nil>\ndmesg_restrict: 1 <nil>\npanic_on_oops: 1 <nil>\n<nil>\n", r.within(t, "look nobody"))
	})
	l, err := r.n.listen(serverOfSite, jobsPort)
	require.NoError(t, err)
	defer l.Close()
	talks := r.openTalks(t, l, netip.MustParseAddrPort(fmt.Sprintf("%s:%d", serverAddress, jobsPort)), endedSocks, endedMasquerade)

	const check = "/system package update check-for-updates"
	type job struct {
		name string
		do   func(signal string)
	}
	jobs := []job{
		{"ping", func(signal string) {
			r.askedFor(signal, "ping", "/ping "+serverAddress, "failure: ping was ended by signal 9")
		}},
		{"fetch", func(signal string) { r.askedFor(signal, "fetch", check, "status: ERROR: fetch was ended by signal 9") }},
		{"upgrade", func(signal string) {
			r.askedFor(signal, "upgrade", check, "status: ERROR: upgrade was ended by signal 9")
		}},
		{"neighbor", r.neighbors},
		{"ntp", r.timeClient},
		{"console", r.serialLine},
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	type step struct {
		job
		signal string
	}
	var steps []step
	for _, j := range jobs {
		for _, signal := range jobSignals {
			steps = append(steps, step{j, signal})
		}
	}
	chance.Shuffle(len(steps), func(i, k int) { steps[i], steps[k] = steps[k], steps[i] })
	for i := range max(rounds, len(steps)) {
		s := steps[i%len(steps)]
		if i >= len(steps) {
			s = steps[chance.IntN(len(steps))]
		}
		start := time.Now()
		s.do(s.signal)
		lost, err := goOn(talks)
		require.NoError(t, err, "%s %s", s.name, s.signal)
		require.Empty(t, lost, "%s %s", s.name, s.signal)
		t.Logf("%d: %s %s: over after %v", i, s.name, s.signal, time.Since(start).Round(100*time.Millisecond))
	}
	r.assertTalks(t, talks)
	assert.NotRegexp(t, `(?i)out of memory|oom-kill|page allocation failure`, r.m.screen.all())
}

func startJobs(t *testing.T, b board.Board) *jobsRouter {
	t.Helper()
	hash, err := password.New(sshPassword)
	require.NoError(t, err)
	r := &jobsRouter{t: t}
	r.router = startRouter(t, b.Name, func(o *machineOptions) {
		o.within = buildWithin(t, b)
		o.commandLine = "rdinit=/within"
		o.memory = insideMemory(b) // what testdata/within takes, too
		o.capture = false
		o.configuration += "/user set admin password-hash=\"" + strings.ReplaceAll(hash, "$", `\$`) + "\"\n/ip service set ssh disabled=no\n" +
			"/ip neighbor discovery-settings set discover-interface-list=all\n" +
			fmt.Sprintf("/system package update set url=http://%s:%d\n", serverAddress, silentPort)
	})
	r.expect(t, "socks accepts on port 1080")
	r.loginAtLine()
	r.awaitLinks(t)
	r.console = startShell(t, newSSHClient(t, r.n, r.dir).command(client, sshPassword, "-tt", "admin+cet512w@"+lanAddress))
	r.console.expect(t, "[admin@postern] > ")

	silent, err := r.n.listen(serverOfSite, silentPort)
	require.NoError(t, err)
	t.Cleanup(func() { silent.Close() })
	var clock net.PacketConn
	require.NoError(t, r.n.on(serverOfSite, func() (err error) {
		clock, err = net.ListenPacket("udp4", ":123")
		return err
	}))
	t.Cleanup(func() { clock.Close() })
	go func() {
		for b := make([]byte, 512); ; r.asked.Add(1) {
			if _, _, err := clock.ReadFrom(b); err != nil {
				return
			}
		}
	}()
	return r
}

// buildWithin compiles testdata/within for a board.
func buildWithin(t *testing.T, b board.Board) []byte {
	t.Helper()
	program := filepath.Join(t.TempDir(), "within")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./testdata/within")
	build.Env = append(os.Environ(), b.GoEnv()...)
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	code, err := os.ReadFile(program)
	require.NoError(t, err)
	return code
}

// loginAtLine logs in at the serial line.
func (r *jobsRouter) loginAtLine() {
	r.t.Helper()
	for _, step := range []struct{ asked, answer string }{{"Login: ", "admin"}, {"Password: ", sshPassword}} {
		r.expect(r.t, step.asked)
		require.NoError(r.t, r.m.send(step.answer+"\r"))
	}
	r.expect(r.t, "[admin@postern] > ")
}

// typed has the person at SSH type a line, and returns what it said.
func (r *jobsRouter) typed(line string) string {
	r.t.Helper()
	_, err := io.WriteString(r.console.in, line+"\r")
	require.NoError(r.t, err)
	r.console.expect(r.t, line+"\r\n")
	return r.console.expect(r.t, "[admin@postern] > ")
}

// within asks the program of testdata/within for something, and returns its answer.
func (r *router) within(t *testing.T, request string) string {
	t.Helper()
	conn, err := r.n.dial(client, fmt.Sprintf("%s:%d", lanAddress, withinPort), patience)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = fmt.Fprintln(conn, request)
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err, request)
	return string(answer)
}

// send has the program within send a signal to a process of that name, as soon as there is one. The function that it returns waits
// for that, for so long at the most, and reports whether it was sent.
func (r *jobsRouter) send(signal, name string) (sent func(time.Duration) bool) {
	r.t.Helper()
	conn, err := r.n.dial(client, fmt.Sprintf("%s:%d", lanAddress, withinPort), patience)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintf(conn, "%s %s\n", signal, name)
	require.NoError(r.t, err)
	return func(limit time.Duration) bool {
		r.t.Helper()
		require.NoError(r.t, conn.SetReadDeadline(time.Now().Add(limit)))
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		require.NoError(r.t, err, "%s %s: %q", name, signal, answer)
		return true
	}
}

// awaitGone waits until no process has that name.
func (r *jobsRouter) awaitGone(name string) {
	r.t.Helper()
	require.True(r.t, r.send("gone", name)(patience), "%s is there still", name)
}

// askedFor has the person at SSH ask for what a process of that name does. If it was ended he is told, and if it
// stands still he ends it, or its time is over. Then it is gone.
func (r *jobsRouter) askedFor(signal, name, line, told string) {
	r.t.Helper()
	sent := r.send(signal, name)
	_, err := io.WriteString(r.console.in, line+"\r")
	require.NoError(r.t, err)
	r.console.expect(r.t, line+"\r\n")
	require.True(r.t, sent(patience), "there was no process")
	if signal == "stopped" {
		_, err := io.WriteString(r.console.in, "\x03")
		require.NoError(r.t, err)
	}
	said := r.console.expect(r.t, "[admin@postern] > ")
	if signal == "ended" {
		assert.Contains(r.t, said, told)
	}
	r.awaitGone(name)
}

// neighbors has the person at SSH list the neighbors, of which one has just announced itself: he is told that this has failed, and the
// next list is there. The router itself reads announcements now and then: if it was first it has to be done again.
func (r *jobsRouter) neighbors(signal string) {
	r.t.Helper()
	const list, told = "/ip neighbor print", "read what neighbors say: "
	require.NoError(r.t, retry(func() error {
		sent := r.send(signal, "neighbor")
		require.NoError(r.t, r.n.on(client, announce))
		said := r.typed(list)
		for !sent(time.Second) { // it lives for less than a second, and was not seen
			require.NoError(r.t, r.n.on(client, announce))
			said = r.typed(list)
		}
		if !strings.Contains(said, told) {
			return fmt.Errorf("%s did not say that it has failed: %s", list, said)
		}
		return nil
	}))
	assert.NotContains(r.t, r.typed(list), told, "the next one")
	r.awaitGone("neighbor")
}

// announce sends everybody an announcement of MNDP that says nothing.
func announce() error {
	conn, err := net.Dial("udp4", "192.168.0.255:5678")
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(make([]byte, 64))
	return err
}

// askTime gives the time client another configuration, so that it asks at once.
func (r *jobsRouter) askTime() {
	r.t.Helper()
	r.other = !r.other
	servers := map[bool]string{false: serverAddress, true: serverAddress + "," + strangerAddress}
	require.NotContains(r.t, r.typed("/system ntp client set enabled=yes servers="+servers[r.other]), "failure")
}

// timeClient: one that was ended is started again a minute later, one that stands still is replaced when it is given another
// configuration.
func (r *jobsRouter) timeClient(signal string) {
	r.t.Helper()
	sent := r.send(signal, "ntp")
	r.askTime()
	require.True(r.t, sent(patience), "there was no process")
	again := "time client: it was ended by signal 9 (killed); starting it again in 1m0s"
	if signal == "stopped" {
		again = "time client: no answer to 5 questions; starting it again in 1m0s"
		r.askTime()
	}
	r.expect(r.t, again)
	before := r.asked.Load()
	require.NoError(r.t, retry(func() error {
		if r.asked.Load() == before {
			return errors.New("no request for the time")
		}
		return nil
	}))
	require.NotContains(r.t, r.typed("/system ntp client set enabled=no"), "failure")
	r.awaitGone("ntp")
}

// serialLine: Safe Mode is undone, and the line that was typed is lost. Who logs in again finds all as it was.
func (r *jobsRouter) serialLine(signal string) {
	r.t.Helper()
	before := r.typed("/ip socks print")
	r.takeSafe(r.t)
	r.m.screen.forget()
	const change = "/ip socks set max-connections=123"
	require.NoError(r.t, r.m.send(change+"\r"))
	r.expect(r.t, change)
	r.expect(r.t, "\n[admin@postern] <SAFE> > ")
	require.NoError(r.t, r.m.send("/system identity set name=lo"))
	r.expect(r.t, "name=lo")
	require.True(r.t, r.send(signal, "console")(patience))
	r.loginAtLine()
	assert.Equal(r.t, before, r.typed("/ip socks print"), "Safe Mode is undone")
	assert.Contains(r.t, r.command(r.t, "/system identity print"), "name: postern\n")
}
