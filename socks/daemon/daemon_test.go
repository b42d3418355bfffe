package daemon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/socks"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// TestMain is socksd when it is started as that, and otherwise fails when the
// tests leave goroutines or descriptors behind.
func TestMain(m *testing.M) {
	if os.Getenv("POSTERN_TEST_SOCKSD") != "" {
		os.Exit(Main(os.Args[1:]))
	}
	// Children of tests that nohup has started would ignore it.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP)
	os.Exit(func() int {
		warm, err := net.Listen("tcp4", "127.0.0.1:0") // the poller's descriptors come once
		if err != nil {
			panic(err)
		}
		warm.Close()
		goroutines, descriptors := runtime.NumGoroutine(), countDescriptors()
		if code := m.Run(); code != 0 || flag.Lookup("test.fuzz").Value.String() != "" {
			return code // fuzzing has goroutines of its own
		}
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if runtime.NumGoroutine() <= goroutines && countDescriptors() <= descriptors {
				return 0
			}
		}
		fmt.Printf("left behind: %d goroutines where %d were, %d descriptors where %d were\n",
			runtime.NumGoroutine(), goroutines, countDescriptors(), descriptors)
		pprof.Lookup("goroutine").WriteTo(os.Stdout, 1)
		return 1
	}())
}

func countDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(entries)
}

func TestParseRule(t *testing.T) {
	addresses := func(s string) match.Addresses {
		a, err := match.ParseAddresses(s)
		require.NoError(t, err)
		return a
	}
	ports := func(s string) match.Ports {
		p, err := match.ParsePorts(s)
		require.NoError(t, err)
		return p
	}
	for _, c := range []struct {
		in   string
		want socks.Rule
		err  string
	}{
		{in: "action=allow", want: socks.Rule{Action: socks.Allow}},
		{in: "", err: `access rule "": expected key=value words, action=allow to allow everything`},
		{in: " ", err: `access rule " ": expected key=value words, action=allow to allow everything`},
		{in: "action=deny", want: socks.Rule{Action: socks.Deny}},
		{in: "src-address=192.168.0.2 dst-port=21 action=allow",
			want: socks.Rule{Action: socks.Allow, SrcAddress: addresses("192.168.0.2"), DstPort: ports("21")}},
		{in: " dst-address=!10.0.0.0/8  src-port=1-5,9 disabled=yes ",
			want: socks.Rule{Action: socks.Allow, DstAddress: addresses("!10.0.0.0/8"), SrcPort: ports("1-5,9"), Disabled: true}},
		{in: "deny", err: `access rule "deny": "deny" is not key=value`},
		{in: "action=drop", err: `access rule "action=drop": action: "drop" is not allow or deny`},
		{in: "disabled=1", err: `access rule "disabled=1": disabled: "1" is not yes or no`},
		{in: "port=1", err: `access rule "port=1": no property "port"; expected src-address, dst-address, src-port, dst-port, action or disabled`},
		{in: "dst-port=1 dst-port=2", err: `access rule "dst-port=1 dst-port=2": dst-port is there twice`},
		{in: "dst-port=x", err: `access rule "dst-port=x": dst-port: "x" is not a port of 0..65535, a range or a list of them`},
	} {
		t.Run(c.in, func(t *testing.T) {
			got, err := parseRule(c.in)
			if c.err != "" {
				require.EqualError(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}

// process is socksd, by this test binary or a built one.
type process struct {
	*exec.Cmd
	stderr *bufio.Reader
}

func run(t *testing.T, program string, files []*os.File, args ...string) process {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "POSTERN_TEST_SOCKSD=1")
	cmd.ExtraFiles = files
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return process{cmd, bufio.NewReader(stderr)}
}

// awaitLine returns the first line of standard error with part in it.
func (p process) awaitLine(t *testing.T, part string) string {
	t.Helper()
	kill := time.AfterFunc(patience, func() { p.Process.Kill() })
	defer kill.Stop()
	var all string
	for {
		line, err := p.stderr.ReadString('\n')
		all += line
		require.NoError(t, err, "no %q in:\n%s", part, all)
		if strings.Contains(line, part) {
			return strings.TrimSpace(line)
		}
	}
}

// awaitExit returns the rest of standard error and the exit code.
func (p process) awaitExit(t *testing.T) (string, int) {
	t.Helper()
	kill := time.AfterFunc(patience, func() { p.Process.Kill() })
	defer kill.Stop()
	rest, err := io.ReadAll(p.stderr)
	require.NoError(t, err)
	p.Wait()
	return string(rest), p.ProcessState.ExitCode()
}

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"no such flag", []string{"--port=1"}, 2, "unknown flag: --port"},
		{"argument", []string{"start"}, 2, `unexpected argument "start"`},
		{"listen", []string{"--listen=localhost"}, 2, `--listen "localhost" is not an IPv4 address:port`},
		{"listen without port", []string{"--listen=127.0.0.1:0", "--max-connections=0"}, 2, "port 0 is not in 1..65535"},
		{"max-connections", []string{"--max-connections=501"}, 2, "max-connections 501 is not in 1..500"},
		{"access", []string{"--access=deny"}, 2, `"deny" is not key=value`},
		{"version", []string{"--socks-version=6"}, 2, "version 6 is not 4 or 5"},
		{"method", []string{"--socks-version=5", "--auth-method=gssapi"}, 2, `auth-method "gssapi" is not none or password`},
		{"passwords of version 4", []string{"--auth-method=password", "--users=x"}, 2, "--auth-method password needs --socks-version 5"},
		{"datagrams of version 4", []string{"--udp"}, 2, "--udp needs --socks-version 5"},
		{"passwords of nobody", []string{"--socks-version=5", "--auth-method=password"}, 2, "--auth-method password needs --users"},
		{"users without passwords", []string{"--socks-version=5", "--users=x"}, 2, "--users needs --auth-method password"},
		{"no file of users", []string{"--socks-version=5", "--auth-method=password", "--users=/nonexistent"}, 1,
			"read the users: open /nonexistent: no such file or directory"},
		{"another file", []string{"--socks-version=5", "--auth-method=password", "--users=/etc/passwd"}, 1,
			`/etc/passwd:1: user "root": the hash is not one that socksd passwd writes: another kind of hash; expected $argon2id$`},
		{"an endless file", []string{"--socks-version=5", "--auth-method=password", "--users=/dev/zero"}, 1,
			"read the users: /dev/zero is longer than 1048576 bytes"},
		{"passwd without a name", []string{"passwd"}, 2, "passwd: expected the name of one user"},
		{"passwd with two", []string{"passwd", "alice", "bob"}, 2, "passwd: expected the name of one user"},
		{"passwd with a flag", []string{"passwd", "--help"}, 2, "socksd passwd NAME (see --help)"},
		{"passwd with a bad name", []string{"passwd", "a:b"}, 2, `user "a:b": a name cannot have a colon`},
		{"not our address", []string{"--listen=192.0.2.1:1080"}, 1, "listen on 192.0.2.1:1080: cannot assign requested address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			says, code := run(t, "/proc/self/exe", nil, c.args...).awaitExit(t)
			assert.Equal(t, c.code, code)
			assert.Contains(t, says, c.says)
		})
	}
	t.Run("help", func(t *testing.T) {
		cmd := exec.Command("/proc/self/exe", "--help")
		cmd.Env = append(os.Environ(), "POSTERN_TEST_SOCKSD=1")
		out, err := cmd.Output()
		require.NoError(t, err)
		for _, flag := range []string{"--listen", "--access", "--socks-version", "--auth-method", "--users", "--udp", "socksd passwd NAME", "--max-connections", "--idle-timeout", "--user", "--allow-own-addresses", "--help"} {
			assert.Contains(t, string(out), flag)
		}
	})
}

// freePort returns an address that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	port, err := testnet.FreePort()
	require.NoError(t, err)
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// build returns a program, without cgo as it is shipped.
func build(t *testing.T, path string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "socksd")
	cmd := exec.Command("go", "build", "-o", program, path)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return program
}

// TestProgram runs the program as it is shipped, alone.
func TestProgram(t *testing.T) {
	program := build(t, "../socksd")
	curl, err := exec.LookPath("curl")
	require.NoError(t, err, "curl is in Debian's package curl")

	file := strings.Repeat("postern", 100_000)
	web, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer web.Close()
	var serving sync.WaitGroup
	defer serving.Wait()
	defer web.Close()
	serving.Go(func() {
		for {
			c, err := web.Accept()
			if err != nil {
				return
			}
			bufio.NewReader(c).ReadString('\n')
			fmt.Fprintf(c, "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(file), file)
			c.Close()
		}
	})
	_, webPort, err := net.SplitHostPort(web.Addr().String())
	require.NoError(t, err)

	addr := freePort(t)
	p := run(t, program, nil, "--listen", addr, "--allow-own-addresses", "--max-connections=10",
		"--access=dst-port="+webPort, "--access=action=deny")
	p.awaitLine(t, "accepting on "+addr)

	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	require.NoError(t, err)
	assert.Regexp(t, `NoNewPrivs:\s1\n`, string(status))
	if os.Getuid() == 0 {
		assert.Regexp(t, `Uid:\s65534\s65534\s65534\s65534\n`, string(status))
		assert.Regexp(t, `CapEff:\s0+\n`, string(status))
		assert.Regexp(t, `Groups:\s*\n`, string(status))
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.Process.Pid))
	require.NoError(t, err)
	assert.Regexp(t, `Max open files\s+212\s+212\s`, string(limits))

	for _, option := range []string{"--socks4", "--socks4a"} {
		got, err := exec.Command(curl, "-q", "-sS", "--noproxy", "", "--max-time", "20", option, addr, "http://"+web.Addr().String()+"/").CombinedOutput()
		require.NoError(t, err, "curl %s: %s", option, got)
		assert.True(t, string(got) == file, "curl %s: %d bytes", option, len(got))
		p.awaitLine(t, "closed: type=out")
	}
	got, err := exec.Command(curl, "-q", "-sS", "--noproxy", "", "--max-time", "20", "--socks4", addr, "http://127.0.0.1:1/").CombinedOutput()
	require.Error(t, err, "curl to a port that is denied")
	assert.Contains(t, string(got), "91")
	p.awaitLine(t, "rule 1 denies 127.0.0.1:1")

	open, err := net.Dial("tcp4", addr)
	require.NoError(t, err)
	defer open.Close()
	open.SetDeadline(time.Now().Add(patience))
	port := netip.MustParseAddrPort(web.Addr().String()).Port()
	_, err = open.Write([]byte{4, 1, byte(port >> 8), byte(port), 127, 0, 0, 1, 0})
	require.NoError(t, err)
	granted(t, open)
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	says, code := p.awaitExit(t)
	assert.Zero(t, code, "%s", says)
	assert.Contains(t, says, `reason="shutdown"`)
}

// firewall remembers the openings of a Client.
type firewall struct {
	mu   sync.Mutex
	log  []string
	runs int // how often it was changed
	fail error
}

func (f *firewall) change(closed, opened []socks.Opening) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs++
	note := func(what string, o socks.Opening) {
		line := fmt.Sprintf("%s %s %s", what, o.Peer, o.Local)
		if o.UDP {
			line += " udp"
		}
		f.log = append(f.log, line)
	}
	for _, o := range closed {
		note("close", o)
	}
	for _, o := range opened {
		note("open", o)
	}
	if len(opened) > 0 {
		return f.fail
	}
	return nil
}

func (f *firewall) noted() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.log, "\n")
}

func (f *firewall) await(t *testing.T, want ...string) {
	t.Helper()
	require.EventuallyWithT(t, func(t *assert.CollectT) { assert.Equal(t, strings.Join(want, "\n"), f.noted()) }, patience, 5*time.Millisecond)
}

// start starts socksd under a Client, confined as it is on a router. The Supervisor's log is
// what socksd says.
func start(t *testing.T, fw *firewall) *parent {
	t.Helper()
	p := &parent{said: &said{}}
	supervisor := &service.Supervisor{Program: build(t, "./testdata/socksd"), Log: func(string) service.Log { return p.said }}
	t.Cleanup(func() {
		supervisor.Stop()
		if t.Failed() {
			t.Logf("socksd said:\n%s", p.said)
		}
	})
	p.Service = supervisor.NewService(Spec, service.Options{Parent: func(l *service.Link) service.Parent {
		return NewClient(l, fw.change)
	}})
	p.configure(t, socks.DefaultConfig(), nil)
	return p
}

// parent is PID 1 with a service.
type parent struct {
	*service.Service
	said *said
}

// client returns that of the present process.
func (p *parent) client(t *testing.T) *Client {
	t.Helper()
	var c *Client
	require.Eventually(t, func() bool {
		parent := p.Parent()
		if parent != nil {
			c = parent.(*Client)
		}
		return parent != nil
	}, patience, time.Millisecond, "there is no process")
	return c
}

// configure has the service take a configuration.
func (p *parent) configure(t *testing.T, cfg socks.Config, listener *os.File) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, p.Set(&service.Desired{Configure: func(ctx context.Context, p service.Parent) error {
		return p.(*Client).Configure(ctx, cfg, listener)
	}}).Wait(ctx))
}

// off turns the service off.
func (p *parent) off(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, p.Set(nil).Wait(ctx))
}

// pid finds the process of this test.
func pid(t *testing.T) int {
	t.Helper()
	var children []int
	for _, task := range tasks(t) {
		text, err := os.ReadFile("/proc/self/task/" + task + "/children")
		require.NoError(t, err)
		for word := range strings.FieldsSeq(string(text)) {
			n, err := strconv.Atoi(word)
			require.NoError(t, err)
			children = append(children, n)
		}
	}
	require.Len(t, children, 1)
	return children[0]
}

// suspend stops a process, and returns when none of its threads runs any more, which is
// after the signal was sent.
func suspend(t *testing.T, pid int) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	require.Eventually(t, func() bool {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		require.NoError(t, err)
		for _, name := range stats {
			text, err := os.ReadFile(name)
			if err != nil {
				return false
			}
			_, state, _ := strings.Cut(string(text), ") ") // proc_pid_stat(5)
			if !strings.HasPrefix(state, "T") {
				return false
			}
		}
		return len(stats) > 0
	}, patience, time.Millisecond)
}

func tasks(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// said is a service.Log.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) Printf(_ int, format string, args ...any) { fmt.Fprintf(s, format+"\n", args...) }

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *said) await(t *testing.T, part string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(s.String(), part) }, patience, time.Millisecond, "it does not say %q", part)
}

func listen(t *testing.T) (*os.File, string, uint16) {
	t.Helper()
	file, err := service.Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	require.NoError(t, err)
	t.Cleanup(func() { file.Close() })
	raw, err := file.SyscallConn()
	require.NoError(t, err)
	var port uint16
	require.NoError(t, raw.Control(func(fd uintptr) {
		sa, err := unix.Getsockname(int(fd))
		require.NoError(t, err)
		port = uint16(sa.(*unix.SockaddrInet4).Port)
	}))
	return file, fmt.Sprintf("127.0.0.1:%d", port), port
}

// bind asks for a BIND for anyone, and returns where to call.
func bind(t *testing.T, addr string) (net.Conn, netip.AddrPort) {
	t.Helper()
	near, err := net.Dial("tcp4", addr)
	require.NoError(t, err)
	t.Cleanup(func() { near.Close() })
	near.SetDeadline(time.Now().Add(patience))
	_, err = near.Write([]byte("\x04\x02\x00\x00\x00\x00\x00\x00fred\x00"))
	require.NoError(t, err)
	return near, granted(t, near)
}

func granted(t *testing.T, near net.Conn) netip.AddrPort {
	t.Helper()
	b := make([]byte, 8)
	_, err := io.ReadFull(near, b)
	require.NoError(t, err)
	require.Equal(t, []byte{0, 90}, b[:2])
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), uint16(b[2])<<8|uint16(b[3]))
}

func TestUnderParent(t *testing.T) {
	var fw firewall
	p := start(t, &fw)
	client := p.client(t)
	ctx := t.Context()
	cfg := socks.DefaultConfig()
	cfg.Enabled = true
	require.EqualError(t, client.Configure(ctx, cfg, nil), "socksd: configure: configure SOCKS: enabled, but there is no listener")

	listener, addr, port := listen(t)
	cfg.Port = port
	// Nobody answers there: what comes of it is not the filter's doing.
	cfg.NameServers = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	rule, err := parseRule("dst-port=1024-65535")
	require.NoError(t, err)
	rule.Comment = strings.Repeat("long ", 100_000)
	named, err := parseRule("dst-port=80")
	require.NoError(t, err)
	cfg.Access = []socks.Rule{rule, named, {Action: socks.Deny}}
	require.NoError(t, client.Configure(ctx, cfg, listener))

	near, bound := bind(t, addr)
	opened := fmt.Sprintf("open 0.0.0.0 %s", bound)
	closed := fmt.Sprintf("close 0.0.0.0 %s", bound)
	fw.await(t, opened)
	far, err := net.Dial("tcp4", bound.String())
	require.NoError(t, err)
	defer far.Close()
	granted(t, near)
	fw.await(t, opened, closed)
	_, err = far.Write([]byte("file"))
	require.NoError(t, err)
	b := make([]byte, 4)
	_, err = io.ReadFull(near, b)
	require.NoError(t, err)

	var list []socks.Connection
	require.Eventually(t, func() bool {
		list, err = client.Connections(ctx)
		return err == nil && len(list) == 1 && list[0].Rx == 4
	}, patience, 5*time.Millisecond)
	assert.Equal(t, socks.In, list[0].Type)
	assert.Equal(t, far.LocalAddr().String(), list[0].Dst.String())
	assert.Equal(t, "fred", list[0].UserID)
	hits, err := client.Hits(ctx)
	require.NoError(t, err)
	assert.Equal(t, []uint64{1, 0, 0}, hits, "once for the request and the call")

	name, err := net.Dial("tcp4", addr)
	require.NoError(t, err)
	defer name.Close()
	_, err = name.Write([]byte("\x04\x01\x00\x50\x00\x00\x00\x01\x00host.example\x00"))
	require.NoError(t, err)
	p.said.await(t, "connection refused")

	// The port moves, the connection stays.
	moved, addr, port := listen(t)
	cfg.Port = port
	require.NoError(t, client.Configure(ctx, cfg, moved))
	require.NoError(t, client.Configure(ctx, cfg, moved), "the same again, as if the answer had been late")
	for range 2*connectionsAtOnce + 5 { // more than one page, user ids at their longest
		c, err := net.Dial("tcp4", addr)
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Write([]byte("\x04\x02\x00\x00\x00\x00\x00\x00" + strings.Repeat("\xff\x01\xc3", 85) + "\x00"))
		require.NoError(t, err)
		c.SetDeadline(time.Now().Add(patience))
		granted(t, c)
	}
	require.Eventually(t, func() bool {
		list, err = client.Connections(ctx)
		return err == nil && len(list) == 1+2*connectionsAtOnce+5 // the one with a name has ended
	}, patience, 5*time.Millisecond)
	for i, c := range list[1:] {
		assert.Greater(t, c.Number, list[i].Number)
		assert.Equal(t, strings.Repeat("\xff\x01\xc3", 85), c.UserID)
	}

	removed := []uint64{list[1].Number, list[40].Number, 1 << 60}
	require.NoError(t, client.CloseConnections(ctx, removed))
	left, err := client.Connections(ctx)
	require.NoError(t, err)
	assert.Len(t, left, len(list)-2)
	for _, c := range left {
		assert.NotContains(t, removed, c.Number)
	}
	p.said.await(t, fmt.Sprintf("connection %d refused: ", removed[0]))
	assert.Equal(t, 2, strings.Count(p.said.String(), `reason="removed"`))
	list = left

	cfg.MaxConnections = 501
	require.ErrorContains(t, client.Configure(ctx, cfg, nil), "max-connections 501")
	assert.NotContains(t, p.said.String(), "not permitted")

	// Off means off: every connection ends, and the log has a line of each.
	p.off(t)
	_, err = near.Read(b)
	require.Error(t, err)
	assert.Equal(t, len(list), strings.Count(p.said.String(), `reason="shutdown"`))
	assert.Contains(t, p.said.String(), `user="\xff\x01\xc3`)
	assert.NotContains(t, p.said.String(), "\ufffd")
	assert.Equal(t, strings.Count(fw.noted(), "open"), strings.Count(fw.noted(), "close"))
	_, err = client.Hits(ctx)
	require.ErrorIs(t, err, service.ErrGone)
}

func TestDeathClosesOpenings(t *testing.T) {
	var fw firewall
	p := start(t, &fw)
	cfg := socks.DefaultConfig()
	cfg.Enabled = true
	listener, addr, _ := listen(t)
	p.configure(t, cfg, listener)
	_, bound := bind(t, addr)
	fw.await(t, "open 0.0.0.0 "+bound.String())

	process := pid(t)
	suspend(t, process)
	failed := make(chan error, 1)
	client := p.client(t)
	go func() { _, err := client.Hits(context.Background()); failed <- err }()
	// The listening socket lives on here: who connects now waits for the next one.
	waiting, err := net.Dial("tcp4", addr)
	require.NoError(t, err)
	defer waiting.Close()
	_, err = waiting.Write([]byte("\x05"))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(process, syscall.SIGKILL))
	require.Error(t, <-failed, "a call that waits")
	fw.await(t, "open 0.0.0.0 "+bound.String(), "close 0.0.0.0 "+bound.String())
	waiting.SetDeadline(time.Now().Add(patience))
	answer, err := io.ReadAll(waiting)
	require.NoError(t, err)
	assert.Equal(t, "\x00\x5b\x00\x00\x00\x00\x00\x00", string(answer))
	assert.NotEqual(t, process, pid(t))
}

// TestLateLink: socksd does not serve its link for a while, as on a host that stands still. No
// connection ends for it.
func TestLateLink(t *testing.T) {
	var fw firewall
	p := start(t, &fw)
	cfg := socks.DefaultConfig()
	cfg.Enabled = true
	listener, addr, _ := listen(t)
	p.configure(t, cfg, listener)
	near, bound := bind(t, addr)
	far, err := net.Dial("tcp4", bound.String())
	require.NoError(t, err)
	defer far.Close()
	granted(t, near)

	process := pid(t)
	client := p.client(t)
	suspend(t, process)
	for range 3 * service.MaxCalls { // more than may be under way
		ctx, cancel := service.WithTimeout(t.Context(), 2*time.Millisecond)
		_, err := client.Hits(ctx)
		require.ErrorIs(t, err, service.ErrTimeout)
		cancel()
	}
	require.NoError(t, syscall.Kill(process, syscall.SIGCONT))
	hits, err := client.Hits(t.Context())
	require.NoError(t, err)
	assert.Empty(t, hits)
	_, err = far.Write([]byte("on"))
	require.NoError(t, err)
	b := make([]byte, 2)
	_, err = io.ReadFull(near, b)
	require.NoError(t, err)
	assert.Equal(t, "on", string(b))
	bind(t, addr) // socksd asks, too
	assert.Equal(t, process, pid(t))
}

func TestFirewallRefuses(t *testing.T) {
	fw := firewall{fail: errors.New("iptables is gone")}
	p := start(t, &fw)
	cfg := socks.DefaultConfig()
	cfg.Enabled = true
	listener, addr, _ := listen(t)
	p.configure(t, cfg, listener)
	near, err := net.Dial("tcp4", addr)
	require.NoError(t, err)
	defer near.Close()
	_, err = near.Write([]byte("\x04\x02\x00\x00\x00\x00\x00\x00\x00"))
	require.NoError(t, err)
	near.SetDeadline(time.Now().Add(patience))
	answer, err := io.ReadAll(near)
	require.NoError(t, err)
	assert.Equal(t, "\x00\x5b\x00\x00\x00\x00\x00\x00", string(answer))
	p.said.await(t, "iptables is gone")
	assert.Regexp(t, `^open .*\nclose `, fw.noted(), "half an opening is closed")
}

// TestBadChild plays a socksd that somebody has taken over.
func TestBadChild(t *testing.T) {
	local, _, localPort := listen(t)
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	anyone := netip.MustParseAddr("0.0.0.0")
	here := at(fmt.Sprintf("127.0.0.1:%d", localPort))
	pipe, pipeEnd, err := os.Pipe()
	require.NoError(t, err)
	defer pipe.Close()
	defer pipeEnd.Close()
	unbound, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	silent := os.NewFile(uintptr(unbound), "silent")
	defer silent.Close()
	// datagrams returns a UDP socket that is bound, with an option of SOL_SOCKET on.
	datagrams := func(option int) (*os.File, netip.AddrPort) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		file := os.NewFile(uintptr(fd), "datagrams")
		t.Cleanup(func() { file.Close() })
		require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1))
		require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
		sa, err := unix.Getsockname(fd)
		require.NoError(t, err)
		return file, at(fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port))
	}
	alone, aloneAt := datagrams(unix.SO_BROADCAST)
	shared, sharedAt := datagrams(unix.SO_REUSEADDR)
	balanced, balancedAt := datagrams(unix.SO_REUSEPORT)

	t.Run("refused", func(t *testing.T) {
		for _, c := range []struct {
			name string
			o    socks.Opening
			file *os.File
			err  string
		}{
			{"well-known port", socks.Opening{Peer: anyone, Local: at("127.0.0.1:22")}, local, "port 22 is not for BIND or UDP ASSOCIATE"},
			{"the configured port", socks.Opening{Peer: anyone, Local: at("127.0.0.1:1080")}, local, "port 1080 is not for BIND or UDP ASSOCIATE"},
			{"another's port", socks.Opening{Peer: anyone, Local: at("127.0.0.1:8080")}, local, "the socket listens elsewhere"},
			{"another's address", socks.Opening{Peer: anyone, Local: at(fmt.Sprintf("127.0.0.2:%d", localPort))}, local, "the socket listens elsewhere"},
			{"no socket", socks.Opening{Peer: anyone, Local: here}, nil, "without its socket"},
			{"a pipe", socks.Opening{Peer: anyone, Local: here}, pipe, "not a TCP socket"},
			{"does not listen", socks.Opening{Peer: anyone, Local: here}, silent, "the socket does not listen"},
			{"IPv6", socks.Opening{Peer: netip.MustParseAddr("::"), Local: here}, local, "not IPv4"},
			{"nothing", socks.Opening{}, local, "not IPv4"},
			{"a UDP socket for a TCP port", socks.Opening{Peer: anyone, Local: aloneAt}, alone, "not a TCP socket"},
			{"a TCP socket for a UDP port", socks.Opening{Peer: anyone, Local: here, UDP: true}, local, "not a UDP socket"},
			{"another's UDP port", socks.Opening{Peer: anyone, Local: sharedAt, UDP: true}, alone, "the socket listens elsewhere"},
			{"a UDP port that others may bind", socks.Opening{Peer: anyone, Local: sharedAt, UDP: true}, shared, "the socket may share its port"},
			{"a UDP port in a group", socks.Opening{Peer: anyone, Local: balancedAt, UDP: true}, balanced, "the socket may share its port"},
			{"the configured port by UDP", socks.Opening{Peer: anyone, Local: at("127.0.0.1:1080"), UDP: true}, alone, "port 1080 is not for"},
		} {
			t.Run(c.name, func(t *testing.T) {
				var fw firewall
				child, end := badChild(t, &fw)
				var files []*os.File
				if c.file != nil {
					files = append(files, c.file)
				}
				require.ErrorContains(t, change(t, child, nil, []socks.Opening{c.o}, files...)[0], c.err)
				end()
				assert.Empty(t, fw.noted())
			})
		}
	})

	t.Run("a UDP port is another than the TCP port of the same number", func(t *testing.T) {
		var fw firewall
		child, end := badChild(t, &fw)
		datagrams := socks.Opening{Peer: anyone, Local: aloneAt, UDP: true}
		require.NoError(t, change(t, child, nil, []socks.Opening{datagrams}, alone)[0])
		change(t, child, []socks.Opening{{Peer: anyone, Local: aloneAt}}, nil) // it is not open
		end()
		assert.Equal(t, fmt.Sprintf("open 0.0.0.0 %[1]s udp\nclose 0.0.0.0 %[1]s udp", aloneAt), fw.noted())
	})

	t.Run("twice and too many", func(t *testing.T) {
		var fw firewall
		child, end := badChild(t, &fw)
		for i := range 3 { // max-connections is 2
			o := socks.Opening{Peer: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Local: here}
			err := change(t, child, nil, []socks.Opening{o}, local)[0]
			if i == 2 {
				require.ErrorContains(t, err, "there are 2 already")
				break
			}
			require.NoError(t, err)
			require.ErrorContains(t, change(t, child, nil, []socks.Opening{o}, local)[0], "is open")
		}
		end()
		assert.Equal(t, 2, strings.Count(fw.noted(), "close"))
	})

	t.Run("ends the link", func(t *testing.T) {
		one := socks.Opening{Peer: anyone, Local: here}
		for _, c := range []struct {
			name string
			op   byte
			body []byte
		}{
			{"PID 1's request", opConfigure, changeBody(nil, []socks.Opening{one})},
			{"no opening", opFirewall, nil},
			{"openings and more", opFirewall, append(changeBody(nil, []socks.Opening{one}), 0)},
			{"too many openings", opFirewall, changeBody(nil, slices.Repeat([]socks.Opening{one}, openingsAtOnce+1))},
			{"too many closings", opFirewall, changeBody(slices.Repeat([]socks.Opening{one}, closingsAtOnce+1), nil)},
			{"an address of three bytes", opFirewall, []byte{1, 3, 1, 2, 3, 0, 0, 0}},
		} {
			t.Run(c.name, func(t *testing.T) {
				child, _ := badChild(t, &firewall{})
				require.ErrorIs(t, child.Call(t.Context(), c.op, c.body, nil), service.ErrGone)
			})
		}
	})
}

func changeBody(closed, opened []socks.Opening) []byte {
	var e service.Encoder
	encodeOpenings(&e, closed)
	encodeOpenings(&e, opened)
	return e.Bytes()
}

// change has the other end of the link change the firewall, and returns its replies.
func change(t *testing.T, child *service.Link, closed, opened []socks.Opening, files ...*os.File) (failures []error) {
	t.Helper()
	require.NoError(t, child.Call(t.Context(), opFirewall, changeBody(closed, opened),
		func(d *service.Decoder) { failures = decodeFailures(d) }, files...))
	require.Len(t, failures, len(opened))
	return failures
}

// badChild returns the child's end of the link of a Client whose configuration has room for two
// connections, and a function that ends it.
func badChild(t *testing.T, fw *firewall) (child *service.Link, end func()) {
	t.Helper()
	var client *Client
	parent, child, err := service.LinkPair(t.Context(), Spec, func(l *service.Link) service.Handler {
		client = NewClient(l, fw.change)
		client.cfg.MaxConnections = 2
		return client.Handle
	}, func(context.Context, *service.Request) ([]byte, error) { return nil, nil })
	require.NoError(t, err)
	end = sync.OnceFunc(func() {
		child.Close()
		<-parent.Done()
		<-child.Done()
		client.Ended()
	})
	t.Cleanup(end)
	return child, end
}

// TestWire: what is written is read again, and what is not as agreed is refused.
func TestWire(t *testing.T) {
	rule, err := parseRule("src-address=192.168.0.2 dst-address=!10.0.0.0/8 src-port=!1-5,9 dst-port=21 disabled=yes")
	require.NoError(t, err)
	cfg := socks.Config{Enabled: true, Port: 1, ConnectionIdleTimeout: time.Minute, MaxConnections: -1,
		NameServers: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Version: 5, AuthMethod: socks.AuthPassword, UDP: true,
		Users: []socks.User{{Name: "alice", Password: "$hash", OnlyOne: true, RateLimit: 1 << 40}, {Name: "\xff", Disabled: true}}, Access: []socks.Rule{rule, {ID: 1<<32 - 1, Action: socks.Deny}}}
	var e service.Encoder
	encodeConfig(&e, cfg)
	d := service.NewDecoder(e.Bytes())
	assert.Equal(t, cfg, decodeConfig(d))
	require.NoError(t, d.End())

	list := []socks.Connection{{Number: 1<<64 - 1, Src: netip.MustParseAddrPort("1.2.3.4:5"), Tx: 1, Rx: 2, Type: socks.Out,
		Age: time.Hour, Idle: time.Second, UserID: "\x01\xff"}, {Type: socks.Unknown}}
	e = service.Encoder{}
	encodeConnections(&e, list)
	d = service.NewDecoder(e.Bytes())
	assert.Equal(t, list, decodeConnections(d))
	require.NoError(t, d.End())

	e = service.Encoder{}
	encodeNumbers(&e, []uint64{1, 1<<64 - 1})
	d = service.NewDecoder(e.Bytes())
	assert.Equal(t, []uint64{1, 1<<64 - 1}, decodeNumbers(d, maxListed))
	require.NoError(t, d.End())

	e = service.Encoder{}
	encodeConnections(&e, []socks.Connection{{Type: "other"}})
	d = service.NewDecoder(e.Bytes())
	decodeConnections(d)
	require.ErrorContains(t, d.End(), `a connection of type "other"`)
	e = service.Encoder{}
	encodeConfig(&e, socks.Config{})
	d = service.NewDecoder(append(bytes.Clone(e.Bytes()[:len(e.Bytes())-1]), 1, 0, 0, 0, 1, 'x', 0, 0, 0))
	decodeConfig(d)
	require.ErrorContains(t, d.End(), "matcher: ")
}

// TestLargestConfig: the largest configuration that the console lets a user make reaches socksd.
func TestLargestConfig(t *testing.T) {
	cfg := socks.DefaultConfig()
	cfg.ConnectionIdleTimeout, cfg.MaxConnections = math.MaxInt64, socks.MaxMaxConnections
	cfg.NameServers = slices.Repeat([]netip.Addr{netip.MustParseAddr("255.255.255.255")}, maxServers)
	cfg.Version, cfg.AuthMethod = 5, socks.AuthPassword
	encoded := base64.RawStdEncoding.EncodeToString(make([]byte, 64))
	hash := "$argon2id$v=19$m=4096,t=10,p=1$" + encoded + "$" + encoded // the longest that package password reads
	bytes := 0
	for i := 0; i < socks.MaxUsers; i++ {
		u := socks.User{Name: fmt.Sprintf("%04d", i), Password: hash, OnlyOne: true, RateLimit: socks.MaxRateLimit, Disabled: true}
		if left := socks.MaxUserBytes - bytes; left < len(u.Name)+len(hash) {
			break
		}
		bytes += len(u.Name) + len(hash)
		cfg.Users = append(cfg.Users, u)
	}
	addresses, ports := "!100.100.100.101-200.200.200.200", "!"+strings.TrimSuffix(strings.Repeat("10000,", match.MaxPorts), ",")
	rule, err := parseRule("src-address=" + addresses + " dst-address=" + addresses + " src-port=" + ports + " dst-port=" + ports + " disabled=yes")
	require.NoError(t, err)
	cfg.Access = slices.Repeat([]socks.Rule{rule}, console.MaxItems)
	require.NoError(t, cfg.Validate())

	got := make(chan socks.Config, 1)
	var client *Client
	parent, child, err := service.LinkPair(t.Context(), Spec, func(l *service.Link) service.Handler {
		client = NewClient(l, nil)
		return client.Handle
	}, func(_ context.Context, r *service.Request) ([]byte, error) {
		got <- decodeConfig(r.Decoder)
		return nil, nil
	})
	require.NoError(t, err)
	require.NoError(t, client.Configure(t.Context(), cfg, nil))
	assert.Equal(t, cfg, <-got)
	child.Close()
	<-parent.Done()
	<-child.Done()
}

// FuzzDecode: nothing that a process sends makes PID 1 panic, or take what it would not write
// itself.
func FuzzDecode(f *testing.F) {
	var e service.Encoder
	encodeConnections(&e, []socks.Connection{{Number: 1, Src: netip.MustParseAddrPort("1.2.3.4:5"), Type: socks.In, UserID: "fred"}})
	f.Add(e.Bytes())
	e = service.Encoder{}
	encodeNumbers(&e, []uint64{1, 2})
	f.Add(e.Bytes())
	e = service.Encoder{}
	encodeOpenings(&e, []socks.Opening{{Peer: netip.MustParseAddr("1.2.3.4"), Local: netip.MustParseAddrPort("1.2.3.4:5"), UDP: true}})
	f.Add(e.Bytes())
	f.Fuzz(func(t *testing.T, body []byte) {
		d := service.NewDecoder(body)
		if list := decodeConnections(d); d.End() == nil {
			var e service.Encoder
			encodeConnections(&e, list)
			again := service.NewDecoder(e.Bytes())
			require.Equal(t, list, decodeConnections(again))
			require.LessOrEqual(t, len(list), connectionsAtOnce)
		}
		d = service.NewDecoder(body)
		decodeNumbers(d, maxRules)
		_ = d.End()
		d = service.NewDecoder(body)
		decodeOpenings(d, closingsAtOnce)
		_ = d.End()
	})
}
