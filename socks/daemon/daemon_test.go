package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/match"
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
	os.Exit(func() int {
		warm, err := net.Listen("tcp4", "127.0.0.1:0") // the poller's descriptors come once
		if err != nil {
			panic(err)
		}
		warm.Close()
		goroutines, descriptors := runtime.NumGoroutine(), countDescriptors()
		if code := m.Run(); code != 0 {
			return code
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
		{in: "", want: socks.Rule{Action: socks.Allow}},
		{in: "action=deny", want: socks.Rule{Action: socks.Deny}},
		{in: "src-address=192.168.0.2 dst-port=21 action=allow",
			want: socks.Rule{Action: socks.Allow, SrcAddress: addresses("192.168.0.2"), DstPort: ports("21")}},
		{in: " dst-address=!10.0.0.0/8  src-port=1-5,9 disabled=yes ",
			want: socks.Rule{Action: socks.Allow, DstAddress: addresses("!10.0.0.0/8"), SrcPort: ports("1-5,9"), Disabled: true}},
		{in: "deny", err: `access rule "deny": "deny" is not key=value`},
		{in: "action=drop", err: `access rule "action=drop": action: "drop" is not allow or deny`},
		{in: "disabled=1", err: `access rule "disabled=1": disabled: "1" is not yes or no`},
		{in: "port=1", err: `access rule "port=1": no property "port"`},
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
		{"control with listen", []string{"--control-fd=3", "--listen=127.0.0.1:1"}, 2, "goes with no other option"},
		{"control is standard error", []string{"--control-fd=2"}, 2, "above 2"},
		{"control is nothing", []string{"--control-fd=99"}, 1, "control descriptor 99"},
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
		for _, flag := range []string{"--listen", "--access", "--max-connections", "--idle-timeout", "--user", "--allow-own-addresses", "--control-fd", "--help"} {
			assert.Contains(t, string(out), flag)
		}
	})
}

// freePort returns an address that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// build returns the program as it is shipped, without cgo.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "socksd")
	cmd := exec.Command("go", "build", "-o", program, "../socksd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return program
}

// TestProgram runs the program as it is shipped, alone.
func TestProgram(t *testing.T) {
	program := build(t)
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
	assert.Regexp(t, `Max open files\s+84\s+84\s`, string(limits))

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
	fail error
}

func (f *firewall) note(what string, o socks.Opening) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, fmt.Sprintf("%s %s %s", what, o.Peer, o.Local))
	if what == "open" {
		return f.fail
	}
	return nil
}

func (f *firewall) open(o socks.Opening) error  { return f.note("open", o) }
func (f *firewall) close(o socks.Opening) error { return f.note("close", o) }

func (f *firewall) noted() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.log, "\n")
}

func (f *firewall) await(t *testing.T, want ...string) {
	t.Helper()
	require.EventuallyWithT(t, func(t *assert.CollectT) { assert.Equal(t, strings.Join(want, "\n"), f.noted()) }, patience, 5*time.Millisecond)
}

// start starts socksd under a Client.
func start(t *testing.T, fw *firewall) (*Client, process) {
	t.Helper()
	parent, file, err := Socketpair()
	require.NoError(t, err)
	p := run(t, "/proc/self/exe", []*os.File{file}, "--control-fd=3")
	file.Close()
	client := NewClient(parent, fw.open, fw.close)
	t.Cleanup(func() { client.Close(); <-client.Done() })
	return client, p
}

func listen(t *testing.T) (*os.File, string, uint16) {
	t.Helper()
	file, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"))
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
	client, p := start(t, &fw)
	t.Cleanup(func() {
		if t.Failed() {
			p.Process.Kill()
			says, _ := io.ReadAll(p.stderr)
			t.Logf("socksd said:\n%s", says)
		}
	})
	ctx := t.Context()
	cfg := socks.DefaultConfig()
	cfg.Enabled = true
	require.EqualError(t, client.Configure(ctx, cfg, nil), "socksd: configure: configure SOCKS: enabled, but there is no listener")

	listener, addr, port := listen(t)
	cfg.Port = port
	rule, err := parseRule("dst-port=1024-65535")
	require.NoError(t, err)
	rule.Comment = strings.Repeat("long ", 100_000)
	cfg.Access = []socks.Rule{rule, {Action: socks.Deny}}
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
	assert.Equal(t, []uint64{2, 0}, hits, "the request and the call")

	// The port moves, the connection stays.
	moved, addr, port := listen(t)
	cfg.Port = port
	require.NoError(t, client.Configure(ctx, cfg, moved))
	for range 2*connectionsAtOnce + 5 { // more than one page, user ids at their worst
		c, err := net.Dial("tcp4", addr)
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Write([]byte("\x04\x02\x00\x00\x00\x00\x00\x00" + strings.Repeat("\x01", 255) + "\x00"))
		require.NoError(t, err)
		c.SetDeadline(time.Now().Add(patience))
		granted(t, c)
	}
	list, err = client.Connections(ctx)
	require.NoError(t, err)
	assert.Len(t, list, 1+2*connectionsAtOnce+5)

	require.EqualError(t, client.CloseConnection(ctx, 999), "socksd: close connection 999: close SOCKS connection 999: no such connection")
	require.NoError(t, client.CloseConnection(ctx, list[0].Number))
	_, err = near.Read(b)
	require.ErrorIs(t, err, io.EOF)

	cfg.Enabled = false
	require.NoError(t, client.Configure(ctx, cfg, nil))
	cfg.MaxConnections = 501
	require.ErrorContains(t, client.Configure(ctx, cfg, nil), "max-connections 501")

	client.Close()
	_, code := p.awaitExit(t)
	assert.Zero(t, code)
	<-client.Done()
	require.NoError(t, client.Err())
	assert.Equal(t, strings.Count(fw.noted(), "open"), strings.Count(fw.noted(), "close"))
	_, err = client.Hits(ctx)
	require.Error(t, err)
}

func TestDeathClosesOpenings(t *testing.T) {
	var fw firewall
	client, p := start(t, &fw)
	cfg := socks.DefaultConfig()
	cfg.Enabled = true
	listener, addr, _ := listen(t)
	require.NoError(t, client.Configure(t.Context(), cfg, listener))
	_, bound := bind(t, addr)
	fw.await(t, "open 0.0.0.0 "+bound.String())

	require.NoError(t, p.Process.Signal(syscall.SIGSTOP))
	failed := make(chan error, 1)
	go func() { _, err := client.Hits(context.Background()); failed <- err }()
	require.NoError(t, p.Process.Kill())
	require.Error(t, <-failed, "a call that waits")
	<-client.Done()
	assert.Equal(t, "open 0.0.0.0 "+bound.String()+"\nclose 0.0.0.0 "+bound.String(), fw.noted())

	// The listening socket lives on here: who connects now waits for the next one.
	waiting, err := net.Dial("tcp4", addr)
	require.NoError(t, err)
	defer waiting.Close()
	_, err = waiting.Write([]byte("\x05"))
	require.NoError(t, err)
	next, _ := start(t, &firewall{})
	require.NoError(t, next.Configure(t.Context(), cfg, listener))
	waiting.SetDeadline(time.Now().Add(patience))
	answer, err := io.ReadAll(waiting)
	require.NoError(t, err)
	assert.Equal(t, "\x00\x5b\x00\x00\x00\x00\x00\x00", string(answer))
}

func TestTermination(t *testing.T) {
	var fw firewall
	client, p := start(t, &fw)
	cfg := socks.DefaultConfig()
	cfg.Enabled = true
	listener, addr, _ := listen(t)
	require.NoError(t, client.Configure(t.Context(), cfg, listener))
	_, bound := bind(t, addr)
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	says, code := p.awaitExit(t)
	assert.Zero(t, code, "%s", says)
	assert.Contains(t, says, `reason="shutdown"`)
	<-client.Done()
	assert.Equal(t, "open 0.0.0.0 "+bound.String()+"\nclose 0.0.0.0 "+bound.String(), fw.noted())
}

func TestFirewallRefuses(t *testing.T) {
	fw := firewall{fail: errors.New("iptables is gone")}
	client, p := start(t, &fw)
	cfg := socks.DefaultConfig()
	cfg.Enabled = true
	listener, addr, _ := listen(t)
	require.NoError(t, client.Configure(t.Context(), cfg, listener))
	near, err := net.Dial("tcp4", addr)
	require.NoError(t, err)
	defer near.Close()
	_, err = near.Write([]byte("\x04\x02\x00\x00\x00\x00\x00\x00\x00"))
	require.NoError(t, err)
	near.SetDeadline(time.Now().Add(patience))
	answer, err := io.ReadAll(near)
	require.NoError(t, err)
	assert.Equal(t, "\x00\x5b\x00\x00\x00\x00\x00\x00", string(answer))
	p.awaitLine(t, "iptables is gone")
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

	t.Run("refused", func(t *testing.T) {
		for _, c := range []struct {
			name string
			op   string
			o    socks.Opening
			file syscall.Conn
			err  string
		}{
			{"well-known port", opOpen, socks.Opening{Peer: anyone, Local: at("127.0.0.1:22")}, local, "port 22 is not for BIND"},
			{"the configured port", opOpen, socks.Opening{Peer: anyone, Local: at("127.0.0.1:1080")}, local, "port 1080 is not for BIND"},
			{"another's port", opOpen, socks.Opening{Peer: anyone, Local: at("127.0.0.1:8080")}, local, "the socket listens elsewhere"},
			{"another's address", opOpen, socks.Opening{Peer: anyone, Local: at(fmt.Sprintf("127.0.0.2:%d", localPort))}, local, "the socket listens elsewhere"},
			{"no socket", opOpen, socks.Opening{Peer: anyone, Local: here}, nil, "without its socket"},
			{"a pipe", opOpen, socks.Opening{Peer: anyone, Local: here}, pipe, "not a TCP socket"},
			{"does not listen", opOpen, socks.Opening{Peer: anyone, Local: here}, silent, "the socket does not listen"},
			{"IPv6", opOpen, socks.Opening{Peer: netip.MustParseAddr("::"), Local: here}, local, "not IPv4"},
			{"nothing", opOpen, socks.Opening{}, local, "not IPv4"},
			{"close what is not open", opClose, socks.Opening{Peer: anyone, Local: here}, nil, "is not open"},
		} {
			t.Run(c.name, func(t *testing.T) {
				var fw firewall
				child, client := badChild(t, &fw)
				_, err := child.call(t.Context(), message{Op: c.op, Opening: &c.o}, c.file)
				require.ErrorContains(t, err, c.err)
				client.Close()
				<-client.Done()
				assert.Empty(t, fw.noted())
			})
		}
	})

	t.Run("twice and too many", func(t *testing.T) {
		var fw firewall
		child, client := badChild(t, &fw)
		for i := range 3 { // max-connections is 2
			o := socks.Opening{Peer: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Local: here}
			_, err := child.call(t.Context(), message{Op: opOpen, Opening: &o}, local)
			if i == 2 {
				require.ErrorContains(t, err, "there are 2 already")
				break
			}
			require.NoError(t, err)
			_, err = child.call(t.Context(), message{Op: opOpen, Opening: &o}, local)
			require.ErrorContains(t, err, "is open")
		}
		client.Close()
		<-client.Done()
		assert.Equal(t, 2, strings.Count(fw.noted(), "close"))
	})

	t.Run("ends the connection", func(t *testing.T) {
		for _, c := range []struct{ name, line, err string }{
			{"not JSON", "hello\n", "invalid character"},
			{"a parent's request", `{"id":1,"op":"configure"}` + "\n", `unexpected request "configure"`},
			{"no opening", `{"id":1,"op":"open"}` + "\n", `unexpected request "open"`},
			{"no descriptor", `{"id":1,"op":"open","file":true}` + "\n", "without its descriptor"},
			{"endless line", strings.Repeat("x", maxLineToParent+1), "a line of more than 65536 bytes"},
		} {
			t.Run(c.name, func(t *testing.T) {
				child, client := badChild(t, &firewall{})
				child.conn.SetWriteDeadline(time.Now().Add(patience))
				child.conn.Write([]byte(c.line))
				require.ErrorContains(t, client.Err(), c.err)
			})
		}
	})

	t.Run("descriptors that no message takes", func(t *testing.T) {
		child, client := badChild(t, &firewall{})
		for range 2 {
			require.NoError(t, rights(child.conn, local, " "))
		}
		require.ErrorContains(t, client.Err(), "a descriptor that no message takes")
	})
}

// rights sends text with the descriptor of file.
func rights(conn *net.UnixConn, file *os.File, text string) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) { _, _, sendErr = conn.WriteMsgUnix([]byte(text), unix.UnixRights(int(fd)), nil) })
	return errors.Join(err, sendErr)
}

// badChild returns the child's end of a Client whose configuration has room for
// two connections.
func badChild(t *testing.T, fw *firewall) (*link, *Client) {
	t.Helper()
	parent, file, err := Socketpair()
	require.NoError(t, err)
	conn, err := net.FileConn(file)
	require.NoError(t, err)
	file.Close()
	child := newLink(conn.(*net.UnixConn), 1<<20, maxLineToChild)
	var running sync.WaitGroup
	running.Go(func() {
		child.run(func(m message, f *os.File) error {
			if f != nil {
				f.Close()
			}
			return child.answer(m.ID, message{}, nil)
		})
	})
	client := NewClient(parent, fw.open, fw.close)
	t.Cleanup(func() { client.Close(); <-client.Done(); conn.Close(); running.Wait() })
	cfg := socks.DefaultConfig()
	cfg.MaxConnections = 2
	require.NoError(t, client.Configure(t.Context(), cfg, nil))
	return child, client
}
