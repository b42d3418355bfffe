package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/password"
)

const (
	endedSocks      = 80
	endedMasquerade = 20
	endedPort       = 5150

	// endedVariable says how many processes TestEndedAndStopped ends or stops by chance: 500, say. Without it, it
	// ends each once and stops each once.
	endedVariable = "POSTERN_TEST_ENDED"
)

// endedRounds is what endedVariable says, 0 if it says nothing.
func endedRounds(t *testing.T) int {
	t.Helper()
	text := os.Getenv(endedVariable)
	if text == "" {
		return 0
	}
	rounds, err := strconv.Atoi(text)
	require.NoError(t, err, endedVariable)
	return rounds
}

// victim is a process of the router.
type victim struct {
	name string
	// label is what the log calls it.
	label string
	// use has it do what it is for, and holds on to that until the test ends. It starts the process if that sleeps.
	use func() error
	// sleeps says that the process is there while it is used.
	sleeps bool
}

// inside is a booted debug image, whose serial line has a shell.
type inside struct {
	*router
	t *testing.T
}

// insideMemory is a board's memory in MiB, and what the tools and the shell of its debug image take: else on malta less than a tenth
// of the memory is left beside ten processes, and SOCKS takes new connections one by one.
func insideMemory(b board.Board) int { return b.Memory + 8 }

// startInside boots a board's debug image with more in its configuration: with users who can log in. memory is in MiB, if it
// is not the board's.
func startInside(t *testing.T, b board.Board, memory int, configuration string) *inside {
	hash, err := password.New(sshPassword)
	require.NoError(t, err)
	r := startRouter(t, b.Name, func(o *machineOptions) {
		o.image = filepath.Join(imageDir, b.Name+"-debug")
		o.commandLine = shellLine
		o.memory = memory
		o.capture = false
		o.configuration += configuration + "/user set admin password-hash=\"" + strings.ReplaceAll(hash, "$", `\$`) + "\"\n/ip service set ssh disabled=no\n"
	})
	r.expect(t, "socks accepts on port 1080")
	r.expect(t, "$")
	r.awaitLinks(t)
	return &inside{r, t}
}

// run types a line and returns what the shell said, the line itself included.
func (s *inside) run(line string) string {
	s.t.Helper()
	// The mark is written so that its echo differs from what it prints.
	s.m.screen.forget()
	require.NoError(s.t, s.m.send(line+"; echo mark''s-end\r"))
	return strings.ReplaceAll(s.expect(s.t, "marks-end"), "\r", "")
}

// processes are the ids of processes by their names, of those that run.
func (s *inside) processes(names ...string) map[string]string {
	s.t.Helper()
	found := map[string]string{}
	// u-root's ps shows nothing when a process ends while it looks.
	require.NoError(s.t, retry(func() error {
		list := s.run("ps -A")
		for _, name := range names {
			match := regexp.MustCompile(`(?m)^\s*(\d+)\b.*\b` + name + `\s*$`).FindStringSubmatch(list)
			if match == nil {
				return fmt.Errorf("no process %s in\n%s", name, list)
			}
			found[name] = match[1]
		}
		return nil
	}))
	return found
}

// TestEndedAndStopped ends processes of a board by SIGKILL, and stops them by SIGSTOP, in an order of
// chance, while connections through SOCKS and by masquerade are in use. Each process is replaced and serves again,
// and nothing is lost but what docs/ARCHITECTURE.md ("When a process ends or stands still") says.
//
// One that stands still is noticed after a minute, so several are stopped together.
func TestEndedAndStopped(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	b := badDayBoard(t, "malta")
	rounds := endedRounds(t)
	r := startInside(t, b, insideMemory(b), "/ip dns set servers="+serverAddress+" allow-remote-requests=yes\n"+
		"/ip service set www disabled=no\n/ip service set api disabled=no\n"+
		"/ip pool add name=lan ranges=192.168.0.100-192.168.0.200\n"+
		"/ip dhcp-server add name=lan interface=ether2 address-pool=lan disabled=no\n"+
		"/ip dhcp-server network add address=192.168.0.0/24 gateway=192.168.0.1\n"+
		"/ip dhcp-client add interface=ether1 disabled=no\n"+ // nobody answers it
		"/interface pppoe-client add name=pppoe-out1 interface=ether1 disabled=no\n") // nor it
	port := endedPort
	open := func(socks, masquerade int) []*talk {
		port++ // what was open before is not heard any more
		l, err := r.n.listen(serverOfSite, port)
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
		return r.openTalks(t, l, netip.MustParseAddrPort(fmt.Sprintf("%s:%d", serverAddress, port)), socks, masquerade)
	}
	// call connects to a port, says something and waits for a word of the answer.
	call := func(port int, words, want string) func() error {
		return func() error {
			conn, err := r.n.dial(client, fmt.Sprintf("%s:%d", lanAddress, port), patience)
			if err != nil {
				return err
			}
			t.Cleanup(func() { conn.Close() })
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				return err
			}
			if _, err := conn.Write([]byte(words)); err != nil {
				return err
			}
			got := make([]byte, len(want))
			for n := 0; n < len(got); {
				more, err := conn.Read(got[n:])
				if err != nil {
					return fmt.Errorf("port %d said %q: %w", port, got[:n], err)
				}
				n += more
			}
			if string(got) != want {
				return fmt.Errorf("port %d said %q, not %q", port, got, want)
			}
			return nil
		}
	}
	r.learnToLook()
	t.Logf("at the beginning: %v", r.look())
	victims := map[string]victim{}
	for _, v := range []victim{
		{name: "socksd", label: "socksd"},
		{name: "dnsd", label: "DNS server"},
		{name: "dhcpc", label: "DHCP client"},
		{name: "pppoe", label: "PPPoE client"},
		{name: "sshd", label: "sshd", sleeps: true, use: call(22, "", "SSH-2.0-")},
		{name: "www", label: "www", sleeps: true, use: call(80, "GET / HTTP/1.1\r\nHost: "+lanAddress+"\r\nAccept-Encoding: gzip\r\n\r\n", "HTTP/1.1 200 ")},
		{name: "api", label: "api", sleeps: true, use: call(8728, "\x06/login\x00", "\x05!done")},
		{name: "dhcpd", label: "DHCP server", sleeps: true, use: func() error {
			out, err := r.n.command(client, "busybox", "udhcpc", "-f", "-q", "-n", "-t", "60", "-T", "5", "-i", "eth0", "-s", "/bin/true").CombinedOutput()
			if err != nil {
				return fmt.Errorf("udhcpc: %w: %s", err, out)
			}
			return nil
		}},
	} {
		victims[v.name] = v
	}
	kill, stop := "9", stopSignal(b)
	words := map[string]string{kill: "ended", stop: "stopped"}

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	masqueraded := open(0, endedMasquerade)
	var throughSOCKS []*talk
	longest := map[string]time.Duration{}
	// signal sends processes a signal at once, waits until each has been replaced and serves, and checks that all
	// goes on that may not be lost.
	signal := func(signal string, names ...string) {
		t.Helper()
		what := strings.Join(names, ", ") + " " + words[signal]
		if throughSOCKS == nil {
			throughSOCKS = open(endedSocks, 0)
		}
		for _, name := range names {
			if v := victims[name]; v.sleeps {
				require.NoError(t, v.use(), "before %s", what)
			}
		}
		old := r.processes(names...)
		start := time.Now()
		r.m.screen.forget()
		require.NoError(t, r.m.send("kill -"+signal+" "+strings.Join(slices.Collect(maps.Values(old)), " ")+"\r"))
		for said := ""; slices.ContainsFunc(names, func(name string) bool {
			return !regexp.MustCompile(regexp.QuoteMeta(victims[name].label) + `: .*starting it again`).MatchString(said)
		}); {
			said += r.expect(t, "starting it again")
		}
		for _, name := range names {
			if v := victims[name]; v.sleeps {
				require.NoError(t, v.use(), "after %s", what)
			}
		}
		now := r.processes(names...)
		for _, name := range names {
			assert.NotEqual(t, old[name], now[name], name)
		}
		longest[words[signal]] = max(longest[words[signal]], time.Since(start))
		mayNotBeLost := [][]*talk{masqueraded, throughSOCKS}
		if slices.Contains(names, "socksd") {
			throughSOCKS, mayNotBeLost = nil, mayNotBeLost[:1]
		}
		for _, talks := range mayNotBeLost {
			lost, err := goOn(talks)
			require.NoError(t, err, what)
			require.Empty(t, lost, what)
		}
		port++
		conn, reply := r.request(t, client, commandConnect, r.echo(t, port))
		assert.EqualValues(t, granted, reply.code, what)
		conn.Close()
	}
	names := slices.Sorted(maps.Keys(victims)) // so that the seed says the order
	chance.Shuffle(len(names), func(i, k int) { names[i], names[k] = names[k], names[i] })
	ended, stopped := 0, make(map[string]int)
	for range rounds {
		if chance.IntN(2) == 0 {
			signal(kill, names[chance.IntN(len(names))])
			if ended++; ended%25 == 0 {
				// So that a run of an hour can be followed.
				t.Logf("%d ended: replaced and serving after at most %v; %v", ended, longest, r.look())
			}
		} else {
			stopped[names[chance.IntN(len(names))]]++
		}
	}
	if rounds == 0 {
		for _, name := range names {
			signal(kill, name)
			ended++
			stopped[name]++
		}
	}
	stops := 0
	for len(stopped) > 0 {
		together := slices.Sorted(maps.Keys(stopped))
		signal(stop, together...)
		if rounds > 0 {
			t.Logf("%d ended, %d stopped, and now %s", ended, stops, strings.Join(together, ", "))
		}
		for _, name := range together {
			stops++
			if stopped[name]--; stopped[name] == 0 {
				delete(stopped, name)
			}
		}
	}
	r.assertTalks(t, masqueraded)
	t.Logf("%d ended and %d stopped; replaced and serving after at most %v", ended, stops, longest)
	assert.NotRegexp(t, `(?i)out of memory|oom-kill|page allocation failure`, r.m.screen.all())
}
