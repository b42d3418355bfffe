package netcfg

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/testnet"
)

// TestMain runs the tests in a network of their own, where they may do with the real
// kernel what they like. They share it: a Manager's goroutines run on any thread.
func TestMain(m *testing.M) { testnet.Main(m) }

// ip runs ip(8) and returns what it prints, without the spaces at the ends of
// lines.
func ip(t *testing.T, args string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	require.NoError(t, err, "ip %s: %s", args, out)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return strings.Join(lines, "\n")
}

// lab removes all links from the namespace and plugs in the named cables. The other end of
// k0 is x-k0, which is up.
func lab(t *testing.T, cables ...string) {
	t.Helper()
	for _, line := range strings.Split(ip(t, "-o link"), "\n") {
		name, _, _ := strings.Cut(strings.Fields(line)[1], "@")
		if name = strings.TrimSuffix(name, ":"); name != "lo" && exec.Command("ip", "link", "show", name).Run() == nil {
			ip(t, "link del "+name) // a veth takes its other end along
		}
	}
	ip(t, "link set lo down")
	ip(t, "addr flush dev lo")
	require.NoError(t, setForwarding(false))
	for _, c := range cables {
		plug(t, c)
	}
}

func plug(t *testing.T, name string) {
	t.Helper()
	ip(t, "link add "+name+" type veth peer name x-"+name)
	ip(t, "link set x-"+name+" up")
}

// shown returns the network as ip(8) prints it, a line for each item, without what differs
// from run to run.
func shown(t *testing.T) string {
	t.Helper()
	var links, addrs []string
	for _, line := range strings.Split(ip(t, "-o link"), "\n") {
		f := strings.Fields(line)
		name, _, _ := strings.Cut(strings.TrimSuffix(f[1], ":"), "@")
		if strings.HasPrefix(name, "x-") {
			continue
		}
		up := "down"
		if strings.Contains(f[2], ",UP") {
			up = "up"
		}
		links = append(links, fmt.Sprintf("link %s %s mtu %s\n", name, up, f[4]))
	}
	for _, line := range strings.Split(ip(t, "-o -4 addr"), "\n") {
		if f := strings.Fields(line); len(f) > 1 {
			line, _, _ = strings.Cut(strings.Join(f[1:], " "), `\`)
			addrs = append(addrs, fmt.Sprintf("addr %s\n", strings.TrimSpace(line)))
		}
	}
	// ip prints the older link first; ours come and go. lo, the shortest name, is
	// the first anyway.
	byName := func(a, b string) int {
		a, b = strings.Fields(a)[1], strings.Fields(b)[1]
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	}
	slices.SortStableFunc(links, byName)
	slices.SortStableFunc(addrs, byName)
	var b strings.Builder
	b.WriteString(strings.Join(links, "") + strings.Join(addrs, ""))
	for _, line := range strings.Split(ip(t, "-4 route"), "\n") {
		if line != "" {
			fmt.Fprintf(&b, "route %s\n", line)
		}
	}
	on, err := forwarding()
	require.NoError(t, err)
	fmt.Fprintf(&b, "forwarding %v\n", on)
	return b.String()
}

// golden takes the indentation of a test's source off.
func golden(s string) string {
	var b strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(s), "\n") {
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	return b.String()
}

// newManager returns a Manager without sysfs: that in /sys shows the network namespace in
// which it was mounted.
func newManager(t *testing.T, ports ...Port) *Manager {
	t.Helper()
	m, err := New(ports, t.Logf)
	require.NoError(t, err)
	m.sysfs = t.TempDir()
	return m
}

// sysfsDevice adds a network device to the sysfs of a test.
func sysfsDevice(t *testing.T, sysfs, name, device string) {
	t.Helper()
	dir := filepath.Join(sysfs, "class/net")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	link := filepath.Join(dir, name)
	require.NoError(t, os.RemoveAll(link))
	require.NoError(t, os.Symlink("../../devices/"+device+"/net/"+name, link))
}

// running starts m.Run for the length of the test, and checks that it ends.
func running(t *testing.T, m *Manager) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			require.ErrorIs(t, err, context.Canceled)
		case <-time.After(patience):
			t.Error("Run did not return after the end of its context")
		}
	})
}

// patience is how long a test waits for what must happen. Nothing takes as long on a
// machine that is not busy.
const patience = time.Minute

// becomes waits until the network looks as wanted.
func becomes(t *testing.T, want string) {
	t.Helper()
	var got string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got = shown(t); got == golden(want) {
			return
		}
	}
	require.Equal(t, golden(want), got)
}

// looks checks that the network looks as wanted now. Only for the carrier of links it
// waits: the kernel notes that in its own time (net/core/link_watch.c).
func looks(t *testing.T, want string, about ...any) {
	t.Helper()
	got := shown(t)
	for end := time.Now().Add(patience); got != golden(want) && withoutCarrier(got) == withoutCarrier(golden(want)) &&
		time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		got = shown(t)
	}
	require.Equal(t, golden(want), got, about...)
}

// withoutCarrier takes out what shown says of links without carrier.
func withoutCarrier(shown string) string { return strings.ReplaceAll(shown, " linkdown", "") }

// settled waits until the kernel has noted which links have a carrier: on a busy host it does that, and tells everybody, later than the
// change that brought it about (net/core/link_watch.c).
func settled(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if !slices.ContainsFunc(strings.Split(ip(t, "-o link"), "\n"), func(line string) bool {
			if strings.Contains(line, "LOWER_UP") {
				return strings.Contains(line, " state DOWN ") || strings.Contains(line, " state LOWERLAYERDOWN ")
			}
			return strings.Contains(line, " state UP ")
		}) {
			return
		}
	}
	t.Fatal("links without an end: " + ip(t, "-o link"))
}

// monitored returns what `ip monitor` prints while f runs.
func monitored(t *testing.T, f func()) string {
	t.Helper()
	settled(t) // what was changed before is not f's
	cmd := exec.Command("ip", "-4", "monitor", "link", "address", "route", "netconf")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	defer func() {
		cmd.Process.Kill()
		for range lines {
		}
		cmd.Wait()
	}()

	// A change of our own marks where f begins, once the monitor listens, and
	// another where it ends.
	mark := func(name string, again bool) string {
		var b strings.Builder
		ip(t, "link add "+name+" type veth peer name y-"+name)
		for end := time.Now().Add(patience); time.Now().Before(end); {
			select {
			case l := <-lines:
				if strings.Contains(l, " "+name+":") || strings.Contains(l, " "+name+"@") {
					return b.String()
				}
				if !strings.Contains(l, "y-"+name) && !strings.Contains(l, "link/ether") && !strings.HasPrefix(l, "inet "+name) {
					b.WriteString(strings.TrimSpace(l) + "\n")
				}
			case <-time.After(100 * time.Millisecond):
				if again {
					ip(t, "link del "+name)
					ip(t, "link add "+name+" type veth peer name y-"+name)
				}
			}
		}
		t.Fatal("ip monitor did not show the link " + name)
		return ""
	}
	mark("begin", true)
	// What else the first mark set off.
	for quiet := false; !quiet; {
		select {
		case <-lines:
		case <-time.After(200 * time.Millisecond):
			quiet = true
		}
	}
	f()
	printed := mark("end", false)
	ip(t, "link del begin")
	ip(t, "link del end")
	return printed
}
