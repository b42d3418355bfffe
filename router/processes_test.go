package router

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/console/terminal"
	"github.com/postern-router/postern/fetch"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/ntp"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/upgrade"
)

// These tests run the program that is shipped, by the service's Specs: each process does its
// work under its limits and its list of system calls. It has a user and a root folder of its own
// in the tests of package service alone, which need root for that.

// shipped builds the program, once: without cgo, as it is shipped.
var shipped = sync.OnceValues(func() (string, error) {
	folder, err := os.MkdirTemp("", "postern-program-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, "postern")
	cmd := exec.Command("go", "build", "-o", path, "../init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// realSupervisor runs the program.
func realSupervisor(t *testing.T, log *kmsg.Logger, said func() string) *service.Supervisor {
	t.Helper()
	path, err := shipped()
	require.NoError(t, err)
	s := newSupervisor(log)
	s.Program, s.Roots = path, ""
	t.Cleanup(func() {
		s.Stop()
		assert.NotContains(t, said(), "not permitted", "a process was refused what it needs")
		if t.Failed() {
			t.Logf("the log:\n%s", said())
		}
	})
	return s
}

func TestProcessesHaveUsersOfTheirOwn(t *testing.T) {
	var names []string
	for _, p := range Processes {
		names = append(names, p.Name)
		if p.Name != "neighbor" { // which needs none but those of all processes
			assert.NotEmpty(t, p.Calls, "%s has no list of system calls", p.Name)
		}
	}
	assert.Equal(t, []string{"socksd", "console", "ntp", "ping", "fetch", "upgrade", "dhcpd", "dhcpc", "dnsd", "sshd", "pppoe", "api", "neighbor", "www", "api-ssl", "www-ssl"}, names)
}

// fakeOpenings is a firewall that opens nothing.
type fakeOpenings struct{}

func (fakeOpenings) ChangeOpenings(_, _ []firewall.Opening) error { return nil }

// connectRequest is a SOCKS4 CONNECT to an address.
func connectRequest(to netip.AddrPort) []byte {
	ip := to.Addr().As4()
	b := append(binary.BigEndian.AppendUint16([]byte{4, 1}, to.Port()), ip[:]...)
	return append(b, 0)
}

// TestSocksService: a user enables and disables SOCKS.
func TestSocksService(t *testing.T) {
	log, said := testLog(t)
	supervisor := realSupervisor(t, log, said)
	s := newSocksService(supervisor, log.About("socks"), fakeOpenings{})
	apply := func(c console.Config, why ...any) {
		t.Helper()
		require.NoError(t, s.Apply(c), why...)
		require.NoError(t, s.Taken(t.Context()), why...)
	}
	require.NoError(t, s.Taken(t.Context()), "of nothing")
	c := console.Default()
	apply(c)
	require.NoError(t, s.Health())
	connections, err := s.connections()
	require.NoError(t, err)
	assert.Empty(t, connections)
	hits, err := s.hits()
	require.NoError(t, err)
	assert.Empty(t, hits)
	require.NoError(t, s.closeConnections([]uint64{1}), "without a process there are none")

	// A port that is free: another takes it at once if it is not.
	c.Socks.Enabled, c.Socks.Port = true, freePort(t)
	apply(c)
	address := fmt.Sprintf("127.0.0.1:%d", c.Socks.Port)
	conn, err := net.Dial("tcp4", address)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	// It connects to no address of this machine, and stays while its request is not whole.
	_, err = conn.Write(connectRequest(netip.MustParseAddrPort("127.0.0.1:1"))[:5])
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		connections, err = s.connections()
		return err == nil && len(connections) == 1
	}, 30*time.Second, time.Millisecond)
	require.NoError(t, s.Health())
	other, err := net.Dial("tcp4", address)
	require.NoError(t, err)
	defer other.Close()
	require.NoError(t, other.SetDeadline(time.Now().Add(30*time.Second)))
	require.Eventually(t, func() bool {
		connections, err = s.connections()
		return err == nil && len(connections) == 2
	}, 30*time.Second, time.Millisecond)
	require.NoError(t, s.closeConnections([]uint64{connections[1].Number, 99}))
	connections, err = s.connections()
	require.NoError(t, err)
	assert.Len(t, connections, 1, "it is gone at once")
	_, err = io.ReadAll(other)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return strings.Contains(said(), `reason="removed"`) }, 30*time.Second, time.Millisecond,
		"socksd's line comes when it has a processor")
	assert.Contains(t, said(), fmt.Sprintf("socks accepts on port %d after ", c.Socks.Port))

	// Another port: who is connected stays.
	old := c
	c.Socks.Port = freePort(t)
	apply(c)
	_, err = net.Dial("tcp4", address)
	require.ErrorIs(t, err, unix.ECONNREFUSED)
	connections, err = s.connections()
	require.NoError(t, err)
	assert.Len(t, connections, 1)
	apply(old, "and back")

	// A port that is taken changes nothing.
	taken, err := net.Listen("tcp4", "0.0.0.0:0")
	require.NoError(t, err)
	defer taken.Close()
	c.Socks.Port = uint16(taken.Addr().(*net.TCPAddr).Port)
	require.ErrorContains(t, s.Apply(c), "address already in use")
	again, err := net.Dial("tcp4", address)
	require.NoError(t, err)
	again.Close()

	// Off means off.
	c = old
	c.Socks.Enabled = false
	apply(c)
	_, err = io.ReadAll(conn)
	assert.True(t, err == nil || !os.IsTimeout(err), "the connection has ended: %v", err)
	assert.Contains(t, said(), `reason="shutdown"`)
	_, err = net.Dial("tcp4", address)
	require.ErrorIs(t, err, unix.ECONNREFUSED)
	assert.Equal(t, service.Off, s.process.Status().State)

	// And again, but for the last time.
	apply(old)
	s.Stop()
	require.ErrorIs(t, s.Apply(old), service.ErrStopped)
	_, err = net.Dial("tcp4", address)
	require.ErrorIs(t, err, unix.ECONNREFUSED)
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	port, err := testnet.FreePort()
	require.NoError(t, err)
	return port
}

// TestTimeClient: the process asks a server, and its answer comes here.
func TestTimeClient(t *testing.T) {
	server, err := net.ListenPacket("udp4", "127.0.0.1:123") // of this test's network
	require.NoError(t, err)
	defer server.Close()
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			// RFC 5905: version 4, server, stratum 1; the time an hour on.
			answer := make([]byte, 48)
			answer[0], answer[1] = 4<<3|4, 1
			copy(answer[24:32], b[n-8:n])
			now := uint64(time.Now().Add(time.Hour).Unix()+2208988800) << 32
			binary.BigEndian.PutUint64(answer[32:], now)
			binary.BigEndian.PutUint64(answer[40:], now)
			_, _ = server.WriteTo(answer, from)
		}
	}()
	log, said := testLog(t)
	supervisor := realSupervisor(t, log, said)
	samples := make(chan ntp.Sample, 1)
	s := supervisor.NewService(ntp.Spec, service.Options{Parent: func(l *service.Link) service.Parent {
		return ntp.NewProcess(l, func(s ntp.Sample) error {
			samples <- s
			return nil
		}, func(ntp.Rest) error { return errors.New("no rest") })
	}})
	ask := func(servers ...string) {
		s.Set(&service.Desired{Configure: func(ctx context.Context, p service.Parent) error {
			return p.(*ntp.Process).Configure(ctx, ntp.Config{Enabled: true, Servers: servers}, nil, 1, "")
		}})
	}
	ask("127.0.0.1")
	select {
	case sample := <-samples:
		assert.Equal(t, "127.0.0.1", sample.Server)
		assert.Equal(t, 1, sample.Stratum)
		assert.InDelta(t, time.Hour, sample.Offset, float64(2*time.Second))
	case <-time.After(30 * time.Second):
		require.Fail(t, "no sample")
	}
	ask("127.0.0.1", "127.0.0.2")
	<-samples // of the newest configuration
	assert.Equal(t, 0, s.Status().Restarts, "by the same process")
}

// TestPingProcess: both tools of the process, and how they end.
func TestPingProcess(t *testing.T) {
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0\n"), 0o644))
	log, said := testLog(t)
	g := newRig(t)
	g.r.supervisor = realSupervisor(t, log, said)
	var out bytes.Buffer
	request := console.PingArguments{Address: "127.0.0.1", Count: 2, Interval: 10 * time.Millisecond, Size: 64}
	require.NoError(t, g.r.stream(t.Context(), console.Result{Request: console.Ping, Ping: request}, &out))
	assert.Regexp(t, `    sent=2 received=2 packet-loss=0% min-rtt=.*\n$`, out.String())
	out.Reset()
	require.NoError(t, g.r.stream(t.Context(), console.Result{Request: console.Traceroute,
		Traceroute: console.TracerouteArguments{Address: "127.0.0.1", MaxHops: 3, Count: 3, Timeout: time.Second}}, &out))
	assert.Contains(t, out.String(), "127.0.0.1")

	request.Address = "router.test"
	require.EqualError(t, g.r.stream(t.Context(), console.Result{Request: console.Ping, Ping: request}, &out),
		"failure: address of router.test: no name server is set")

	// There are no more at once than there is room for.
	for range maxPings {
		g.r.pings <- struct{}{}
	}
	require.EqualError(t, g.r.stream(t.Context(), console.Result{Request: console.Ping, Ping: request}, &out),
		"failure: 8 pings and traceroutes run, and there can be no more at once")
	for range maxPings {
		<-g.r.pings
	}

	// A program gets names and values.
	out.Reset()
	request = console.PingArguments{Address: "127.0.0.1", Count: 1, Interval: 10 * time.Millisecond, Size: 64}
	result, err := g.r.programHandler(&session.Session{}).Do("", "ping", []console.Argument{{Name: "address", Value: "127.0.0.1"}, {Name: "count", Value: "1"}})
	require.NoError(t, err)
	require.NoError(t, g.r.programHandler(&session.Session{}).Finish(t.Context(), result, &out))
	assert.Regexp(t, `^seq=0;host=127\.0\.0\.1;size=64;ttl=64;time=\S+;sent=1;received=1;packet-loss=0;min-rtt=`, out.String())

	// A key ends it, with its last line.
	request = console.PingArguments{Address: "127.0.0.1", Interval: 10 * time.Millisecond, Size: 64}
	ctx, cancel := context.WithCancel(t.Context())
	lines := &keyAfter{lines: 3, press: cancel}
	require.NoError(t, g.r.stream(ctx, console.Result{Request: console.Ping, Ping: request}, lines))
	assert.Contains(t, lines.text.String(), "    sent=")
}

// keyAfter is a person who presses a key after some lines.
type keyAfter struct {
	lines int
	press func()
	text  strings.Builder
}

func (k *keyAfter) Write(p []byte) (int, error) {
	if k.lines -= strings.Count(string(p), "\n"); k.lines <= 0 {
		k.press()
	}
	return k.text.Write(p)
}

// TestFetchProcess: a file comes through the process as it is, and what went wrong is told.
func TestFetchProcess(t *testing.T) {
	file := bytes.Repeat([]byte("postern"), 300_000) // more than a pipe holds
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/image" {
			http.NotFound(w, r)
			return
		}
		w.Write(file)
	}))
	defer server.Close()
	log, said := testLog(t)
	supervisor := realSupervisor(t, log, said)
	get := func(url string, take int64) ([]byte, error) {
		in, body, err := os.Pipe()
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() {
			err := supervisor.Run(t.Context(), fetch.Job(url, nil, body))
			body.Close()
			done <- err
		}()
		got, err := io.ReadAll(io.LimitReader(in, take))
		require.NoError(t, err)
		in.Close()
		return got, <-done
	}
	got, err := get(server.URL+"/image", 1<<30)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(file, got))
	_, err = get(server.URL+"/other", 1<<30)
	require.EqualError(t, err, "get "+server.URL+"/other: the server answers 404 Not Found")
	_, err = get(server.URL+"/image", 1000)
	require.True(t, err != nil && brokenPipe(err), "who reads has gone: %v", err)
}

// signedImage is an upgrade image for the board of these tests, and the key that it is signed by.
func signedImage(t testing.TB, image []byte) (file []byte, key string) {
	t.Helper()
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	header, err := upgrade.Header{Board: "rig", Version: "v2", Date: time.Unix(2_000_000_000, 0), Length: int64(len(image)),
		Sum: sha256.Sum256(image)}.Sign(private)
	require.NoError(t, err)
	return append(header, image...), fmt.Sprintf("%x\n", private.Public())
}

// TestUpgradeProcess: an image goes from a web server to the other slot of a disk.
func TestUpgradeProcess(t *testing.T) {
	image := bytes.Repeat([]byte("0123456789abcdef"), 30_000)
	file, key := signedImage(t, image)
	var served atomic.Pointer[[]byte]
	serve := func(file []byte) { served.Store(&file) }
	serve(file)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/image" {
			http.NotFound(w, r)
			return
		}
		w.Write(*served.Load())
	}))
	defer server.Close()
	log, said := testLog(t)
	g := newRig(t)
	g.r.supervisor = realSupervisor(t, log, said)
	g.r.root = t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(g.r.root, "etc"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(g.r.root, "etc/upgrade.pub"), []byte(key), 0o600))
	partitions := [3]string{}
	for i, size := range []int{1 << 20, 1 << 20, 16 << 10} {
		partitions[i] = filepath.Join(g.r.root, fmt.Sprintf("partition%d", i))
		require.NoError(t, os.WriteFile(partitions[i], make([]byte, size), 0o600))
	}
	// The state of a slot that was confirmed (package upgrade).
	state := fmt.Sprintf("# GRUB Environment Block\nmagic=PST1\nsequence=4\ntried=1\nconfirmed=1\nlength=1\nsha256=%x\nversion=v1\n", sha256.Sum256(nil))
	states, err := os.OpenFile(partitions[2], os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = states.WriteAt(append([]byte(state), bytes.Repeat([]byte{'#'}, 4096-len(state))...), 4096)
	require.NoError(t, err)
	require.NoError(t, states.Close())
	task := upgrade.Task{Running: upgrade.Running{Board: "rig", Version: "v1", Date: time.Unix(1_000_000_000, 0).UTC()},
		Slots: [2]string(partitions[:2]), States: partitions[2]}
	run := func(path string) (string, error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var out strings.Builder
		err := g.r.runUpgrade(ctx, cancel, task, g.r.fromURL(server.URL+path, nil), &out)
		return out.String(), err
	}
	_, err = run("/other")
	require.EqualError(t, err, "failure: get "+server.URL+"/other: the server answers 404 Not Found; the present version stays")
	serve(append(bytes.Clone(file[:len(file)-1]), 'x'))
	_, err = run("/image")
	require.EqualError(t, err, "failure: the image is damaged: its hash is not the one that was signed; the present version stays")
	serve(append([]byte("not signed"), file...))
	_, err = run("/image")
	require.ErrorContains(t, err, "failure: ")
	assert.NotContains(t, err.Error(), "pipe", "it is the image that is wrong")
	serve(file)
	out, err := run("/image")
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(out, "version v2 of 2033-05-18 03:33:20 for rig; v1 runs\n"), out)
	assert.True(t, strings.HasSuffix(out, "slot b is written and verified\n"), out)
	written, err := os.ReadFile(partitions[1])
	require.NoError(t, err)
	assert.True(t, bytes.Equal(image, written[:len(image)]))

	t.Run("in place", func(t *testing.T) {
		task = upgrade.Task{Running: task.Running, InPlace: partitions[0]}
		out, err := run("/image")
		require.NoError(t, err)
		assert.Contains(t, out, "the image is written and verified\n")
	})
	t.Run("there is no key", func(t *testing.T) {
		require.NoError(t, os.Remove(filepath.Join(g.r.root, "etc/upgrade.pub")))
		_, err := run("/image")
		require.ErrorContains(t, err, "failure: public key: ")
	})
}

// pseudoTerminal returns the master of a terminal, and the path of its slave.
func pseudoTerminal(t *testing.T) (*os.File, string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}))
	path := fmt.Sprintf("/dev/pts/%d", n)
	// A serial line is there without a process, too.
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { slave.Close() })
	return master, path
}

// TestConsoleProcess: a person at a terminal has a session; one whose console is killed in Safe
// Mode has undone what they did, and has another console.
func TestConsoleProcess(t *testing.T) {
	g := started(t)
	log, said := testLog(t)
	supervisor := realSupervisor(t, log, said)
	master, path := pseudoTerminal(t)
	s := supervisor.NewService(terminal.Spec, service.Options{Terminal: path, Label: "console on test",
		Parent: func(*service.Link) service.Parent {
			return terminal.NewProcess(func(conn net.Conn) { g.r.Serve(conn, session.Origin{Via: session.Console, Terminal: "test"}) })
		}})
	s.Set(&service.Desired{})
	screen := &screen{}
	go io.Copy(screen, master)
	screen.await(t, "[admin@postern] > ")
	_, err := master.WriteString("\x18") // Ctrl-X
	require.NoError(t, err)
	screen.await(t, "<SAFE> > ")
	_, err = master.WriteString("/system identity set name=other\r")
	require.NoError(t, err)
	screen.await(t, "[admin@other] <SAFE> > ")

	killChildren(t, "console")
	screen.await(t, "[admin@postern] > ")
	assert.Contains(t, said(), "console on test: it was ended by signal 9 (killed); starting it again in 50ms")
	assert.Contains(t, g.log(), "what was changed is undone: the session has ended")

	_, err = master.WriteString("/quit\r")
	require.NoError(t, err)
	screen.await(t, "[admin@postern] > ")
	assert.Equal(t, 1, strings.Count(said(), "starting it again"), "to quit is no fault")
}

// killChildren kills this test's own processes of that name.
func killChildren(t *testing.T, name string) {
	t.Helper()
	all, err := os.ReadDir("/proc")
	require.NoError(t, err)
	for _, c := range all {
		stat, err := os.ReadFile("/proc/" + c.Name() + "/stat")
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndex(string(stat), ")")+1:]))
		text, _ := os.ReadFile("/proc/" + c.Name() + "/cmdline")
		if fields[1] == fmt.Sprint(os.Getpid()) && string(text) == name+"\x00" {
			var pid int
			_, err := fmt.Sscan(c.Name(), &pid)
			require.NoError(t, err)
			require.NoError(t, unix.Kill(pid, unix.SIGKILL))
		}
	}
}

// screen is what a terminal shows.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
	read int
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// await waits for a text, behind the one that was waited for before.
func (s *screen) await(t *testing.T, text string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		s.mu.Lock()
		defer s.mu.Unlock()
		shown := s.text.String()[s.read:]
		require.Contains(c, shown, text)
		s.read += strings.Index(shown, text) + len(text)
	}, 30*time.Second, time.Millisecond)
}

// TestUpgradeTo: a user upgrades from a file, which the machine finds its slots for.
func TestUpgradeTo(t *testing.T) {
	image := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	file, key := signedImage(t, image)
	log, said := testLog(t)
	g := started(t)
	g.r.log, g.r.supervisor = log, realSupervisor(t, log, said)
	g.file("etc/upgrade.pub", key)
	g.file("image", string(file))
	path := filepath.Join(g.r.root, "image")
	run := func(from string) (string, error) {
		var out strings.Builder
		err := g.r.stream(t.Context(), console.Result{Request: console.Upgrade, Upgrade: console.UpgradeArguments{From: from}}, &out)
		return out.String(), err
	}
	_, err := run(path)
	require.ErrorContains(t, err, "failure: no flash: ")
	g.slots("a", map[string]string{"tried": "1", "confirmed": "1"}, nil)
	g.r.upgrades.running = upgrade.Running{Board: "rig", Version: "v1", Date: time.Unix(1_000_000_000, 0).UTC()}
	_, err = run(path + ".gone")
	require.ErrorContains(t, err, "image.gone: no such file or directory; disks here: /dev/vda1, /dev/vda2, /dev/vda3")
	_, err = run("http://")
	require.ErrorContains(t, err, "the present version stays")
	assert.Contains(t, said(), "upgrade from http://: it did not succeed")
	assert.Empty(t, g.requests)
	out, err := run(path)
	require.NoError(t, err)
	assert.Contains(t, out, "system will reboot shortly\n")
	assert.Contains(t, said(), "the image is written, restarting")
	assert.Equal(t, console.Reboot, <-g.requests)
	states, err := g.r.slots()
	require.NoError(t, err)
	assert.Equal(t, []string{"confirmed", "untried"}, []string{states[0].State, states[1].State})
	assert.Equal(t, "v2", states[1].Version)
}

// TestOpen: the real parts, in the namespaces of the tests, from the start to the end.
func TestOpen(t *testing.T) {
	ip := func(args string) string {
		t.Helper()
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		require.NoError(t, err, "ip %s: %s", args, out)
		return string(out)
	}
	b := board.Board{Name: "real", WAN: "ether1", LAN: "ether2"}
	for i, name := range []string{"ether1", "ether2"} {
		device := fmt.Sprintf("real%d", i)
		ip("link add " + device + " type veth peer name x-" + device)
		ip("link set up dev x-" + device)
		t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "x-"+device).Run() }) // with its other end
		b.Ports = append(b.Ports, board.Port{Name: name, Device: device})
	}
	log, said := testLog(t)
	requests := make(chan console.Request, 1)
	r, err := Open(b, log, requests, func() { t.Error("restarted") })
	require.NoError(t, err)
	assert.Contains(t, said(), "no flash: no partition is named postern-config")
	dir := t.TempDir()
	r.machine = linuxMachine{r.machine.(linuxMachine).restart, filepath.Join(dir, "resolv.conf")}
	r.defaults = filepath.Join(dir, "default.rsc")
	require.NoError(t, os.WriteFile(r.defaults, []byte("/ip address add address=192.168.7.1/24 interface=ether2\n"+
		"/ip firewall filter add chain=forward action=drop comment=real\n"), 0o600))
	t.Cleanup(func() { // its firewall stays closed
		out, err := exec.Command("sh", "-c", "iptables -P INPUT ACCEPT && iptables -F").CombinedOutput()
		assert.NoError(t, err, string(out))
	})
	ctx, cancel := context.WithCancel(t.Context())
	r.Start(ctx)
	require.NoError(t, r.health(), said())
	assert.Contains(t, ip("-4 addr show dev ether2"), "192.168.7.1/24")
	s := &session.Session{}
	for _, line := range []string{"/ip address print", "/ip route print", "/interface print", "/ip firewall filter print stats", "/ip arp print", "/ip socks access print stats",
		"/system ntp client print"} {
		_, err := r.execute(s, line)
		require.NoError(t, err, line)
	}
	_, err = r.execute(s, "/ip address add address=10.9.0.1/8 interface=ether1")
	require.NoError(t, err)
	assert.Contains(t, ip("-4 addr show dev ether1"), "10.9.0.1/8")
	_, err = r.execute(s, "/ip address add address=10.9.0.1/8 interface=ether1")
	require.Error(t, err)
	require.NoError(t, r.SetLayer("test", Layer{Addresses: []netcfg.Address{address("10.9.0.2/8", "ether1")}}))
	result, err := r.execute(s, "/ip address print")
	require.NoError(t, err)
	assert.Equal(t, 1, strings.Count(result.Output, "10.9.0.2/8"), "it is no other dynamic address of the kernel's: %s", result.Output)
	cancel()
	r.Shutdown()
	rules, err := exec.Command("iptables", "-S").CombinedOutput()
	require.NoError(t, err, string(rules))
	assert.NotContains(t, string(rules), "real")
	forwards, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	require.NoError(t, err)
	assert.Equal(t, "0\n", string(forwards))
	assert.Empty(t, requests)
}
