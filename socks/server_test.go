package socks

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/resolve"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// TestMain runs the tests in a network of their own, and fails when they leave goroutines
// or descriptors behind.
func TestMain(m *testing.M) {
	os.Exit(testnet.Isolate(func() int {
		// The poller's and the resolver's own descriptors come once.
		warm, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		warm.Close()
		goroutines, descriptors := runtime.NumGoroutine(), countDescriptors()
		if code := m.Run(); code != 0 || flag.Lookup("test.fuzz").Value.String() != "" {
			return code // a fuzzing process has more of both
		}
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if runtime.NumGoroutine() <= goroutines && countDescriptors() <= descriptors {
				return 0
			}
		}
		fmt.Printf("left behind: %d goroutines where %d were, %d descriptors where %d were\n",
			runtime.NumGoroutine(), goroutines, countDescriptors(), descriptors)
		pprof.Lookup("goroutine").WriteTo(os.Stdout, 1)
		return 1
	}))
}

func countDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(entries)
}

// setup is a server on loopback.
type setup struct {
	*Server
	addr string
	cfg  Config

	mu  sync.Mutex
	log []string
}

type options struct {
	Options
	limits limits
	cfg    Config
	lookup lookupFunc
	// matches, if set, checks passwords.
	matches func(hash, secret string) bool
	clock   clock // the machine's, unless it is set
}

// start starts a server that may connect to loopback, after change.
func start(t *testing.T, change func(*options)) *setup {
	t.Helper()
	o := options{limits: defaultLimits(), cfg: DefaultConfig()}
	o.AllowOwnAddresses = true
	o.cfg.Enabled = true
	u := &setup{}
	o.Logf = func(format string, args ...any) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.log = append(u.log, fmt.Sprintf(format, args...))
	}
	if change != nil {
		change(&o)
	}
	u.Server = newServer(o.Options, o.limits)
	if o.lookup != nil {
		u.Server.lookup, u.Server.knownSystem = o.lookup, nil
	}
	if o.matches != nil {
		u.Server.matches = o.matches
	}
	if o.clock.machine != nil {
		u.Server.clock = o.clock
	}
	l := listen(t, "127.0.0.1")
	u.addr = l.Addr().String()
	u.cfg = o.cfg
	require.NoError(t, u.Configure(o.cfg, l))
	t.Cleanup(func() { u.stop(t) })
	return u
}

// stop ends the server, and checks that nothing of its connections is left in what bounds them.
func (u *setup) stop(t *testing.T) {
	t.Helper()
	u.Shutdown()
	s := u.Server
	s.mu.Lock()
	defer s.mu.Unlock()
	assert.Empty(t, s.conns, "connections")
	assert.Zero(t, s.calls, "calls that wait for a slot")
	assert.Zero(t, s.memoryAny, "bytes of the memory for all connections")
	assert.Zero(t, s.memoryFast, "bytes of the memory for fast directions")
	assert.Zero(t, s.wider, "directions with a wider receive buffer")
	assert.Zero(t, s.holders, "addresses that have slots")
	for at, from := range s.sources { // those whose turn did not come before the end
		assert.True(t, from.agenda.inLine, "%s is kept", at)
		assert.Zero(t, from.slots, "slots of %s", at)
		assert.Zero(t, from.busy, "tasks of %s", at)
		assert.Equal(t, [claims]connList{}, from.of, "claims of %s", at)
	}
	for claim, r := range s.most {
		assert.Empty(t, r.sources, "addresses with connections of claim %d", claim)
	}
	for name, q := range map[string]*queue{"files": &s.files, "lookups": &s.names, "openings": &s.openings} {
		assert.Empty(t, q.tasks, "%s that wait", name)
		assert.Empty(t, q.running, "%s that run", name)
	}
	assert.Equal(t, s.limits.files, s.files.free, "places of files")
	assert.Equal(t, s.limits.lookups, s.names.free, "places of lookups")
	assert.Equal(t, s.limits.openings, s.openings.free, "places of openings")
	assert.Empty(t, s.tries, "passwords that wait")
	u.endings(t)
}

// endingLine is the last line of a connection in the log.
var endingLine = regexp.MustCompile(`^connection (\d+) (?:closed|refused): `)

// endings returns how many connections have a line in the log that says how they ended. None may
// have two.
func (u *setup) endings(t *testing.T) int {
	t.Helper()
	of := map[string][]string{}
	for line := range strings.SplitSeq(u.logged(), "\n") {
		if m := endingLine.FindStringSubmatch(line); m != nil {
			of[m[1]] = append(of[m[1]], line)
		}
	}
	for number, lines := range of {
		assert.Len(t, lines, 1, "endings of connection %s", number)
	}
	return len(of)
}

func listen(t *testing.T, ip string) *net.TCPListener {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp4", ip+":0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

func (u *setup) logged() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return strings.Join(u.log, "\n")
}

// awaitLog waits for a line of the log that has all the parts.
func (u *setup) awaitLog(t *testing.T, parts ...string) {
	t.Helper()
	require.Eventually(t, func() bool {
		for line := range strings.SplitSeq(u.logged(), "\n") {
			all := true
			for _, p := range parts {
				all = all && strings.Contains(line, p)
			}
			if all {
				return true
			}
		}
		return false
	}, patience, 5*time.Millisecond, "no line with %q in the log", parts)
}

// waitForEnd is a lookup of a server that never answers.
func waitForEnd(ctx context.Context, _ string, _ resolve.Servers) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (u *setup) awaitCount(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return len(u.Connections()) == n }, patience, 5*time.Millisecond,
		"%d connections expected", n)
}

// client is a connection with the server, or with anything else.
type client struct {
	*net.TCPConn
	t *testing.T
}

func dial(t *testing.T, addr string) client { return dialFrom(t, "127.0.0.1", addr) }

func dialFrom(t *testing.T, from, addr string) client {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	c, err := d.Dial("tcp4", addr)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return client{c.(*net.TCPConn), t}
}

func accept(t *testing.T, l *net.TCPListener) client {
	t.Helper()
	require.NoError(t, l.SetDeadline(time.Now().Add(patience)))
	c, err := l.AcceptTCP()
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return client{c, t}
}

func (c client) send(s string) {
	c.t.Helper()
	_, err := io.WriteString(c, s)
	require.NoError(c.t, err)
}

func (c client) sendUrgent(s string) {
	c.t.Helper()
	require.NoError(c.t, testnet.WriteUrgent(c.TCPConn, []byte(s)))
}

func (c client) receive(n int) string {
	c.t.Helper()
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	require.NoError(c.t, err)
	return string(b)
}

// ended checks that nothing more comes.
func (c client) ended() {
	c.t.Helper()
	b := make([]byte, 1)
	n, err := c.Read(b)
	require.ErrorIs(c.t, err, io.EOF)
	require.Zero(c.t, n)
}

// wasReset checks that the connection ends by a reset.
func (c client) wasReset() {
	c.t.Helper()
	_, err := io.Copy(io.Discard, c)
	require.ErrorIs(c.t, err, unix.ECONNRESET)
}

// reply reads a reply and returns its address.
func (c client) reply(code byte) netip.AddrPort {
	c.t.Helper()
	b := c.receive(8)
	require.Equal(c.t, []byte{0, code}, []byte(b[:2]), "reply %q", b)
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte([]byte(b[4:]))), uint16(b[2])<<8|uint16(b[3]))
}

func (c client) rejected() {
	c.t.Helper()
	assert.Equal(c.t, netip.MustParseAddrPort("0.0.0.0:0"), c.reply(replyRejected))
	c.ended()
}

func ask(command byte, dst string, user string) string {
	a := netip.MustParseAddrPort(dst)
	ip := a.Addr().As4()
	return string([]byte{4, command, byte(a.Port() >> 8), byte(a.Port())}) + string(ip[:]) + user + "\x00"
}

func askName(command byte, host string, port uint16) string {
	return string([]byte{4, command, byte(port >> 8), byte(port), 0, 0, 0, 1}) + "user\x00" + host + "\x00"
}

// connect makes a connection through the server, and returns both ends.
func (u *setup) connect(t *testing.T) (near, far client) {
	t.Helper()
	l := listen(t, "127.0.0.1")
	near = dial(t, u.addr)
	near.send(ask(commandConnect, l.Addr().String(), "user"))
	near.reply(replyGranted)
	return near, accept(t, l)
}

// TestEndedTwice ends a connection that is over, which changes nothing.
func TestEndedTwice(t *testing.T) {
	u := start(t, func(o *options) { o.SocketMemory = 1 << 20 })
	u.connect(t)
	u.of(1, func(c *conn) {
		u.end(c, errRemoved)
		u.end(c, errIdle)
	})
	assert.Empty(t, u.Connections())
}

func TestConnect(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(near client, request string)
	}{
		{"in one segment", func(near client, request string) { near.send(request + "early") }},
		{"a byte at a time", func(near client, request string) {
			for _, b := range []byte(request + "early") {
				near.send(string([]byte{b}))
				time.Sleep(time.Millisecond) // a segment of its own, most likely
			}
		}},
		{"data behind it", func(near client, request string) { near.send(request); near.send("early") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, nil)
			l := listen(t, "127.0.0.1")
			near := dial(t, u.addr)
			c.send(near, ask(commandConnect, l.Addr().String(), "fred"))
			assert.Equal(t, l.Addr().String(), near.reply(replyGranted).String())
			far := accept(t, l)
			assert.Equal(t, "early", far.receive(5))
			far.send("hello")
			assert.Equal(t, "hello", near.receive(5))

			require.Eventually(t, func() bool { return u.Connections()[0].Rx == 5 }, patience, time.Millisecond)
			got := u.Connections()[0]
			assert.Positive(t, got.Age)
			got.Age, got.Idle = 0, 0
			assert.Equal(t, Connection{
				Number: 1, Src: near.LocalAddr().(*net.TCPAddr).AddrPort(), Dst: netip.MustParseAddrPort(l.Addr().String()),
				Tx: 5, Rx: 5, Type: Out, UserID: "fred",
			}, got)

			near.Close()
			far.ended()
			far.Close()
			u.awaitCount(t, 0)
			about := fmt.Sprintf("type=out src=%s dst=%s rule=none user=\"fred\"", near.LocalAddr(), l.Addr())
			u.awaitLog(t, "connection 1 opened: "+about)
			u.awaitLog(t, "connection 1 closed: "+about, "tx=5 rx=5 duration=", `reason="both sides ended"`)
		})
	}
}

// Both sides find out what packets their path takes, also where sockets are made otherwise, as on the router.
func TestPathMTU(t *testing.T) {
	const parameter = "/proc/sys/net/ipv4/ip_no_pmtu_disc"
	require.NoError(t, os.WriteFile(parameter, []byte("3"), 0)) // of the tests' own namespace
	defer func() { require.NoError(t, os.WriteFile(parameter, []byte("0"), 0)) }()
	u := start(t, nil)
	u.connect(t)
	u.Server.mu.Lock()
	defer u.Server.mu.Unlock()
	c := u.conns[1]
	assert.Equal(t, unix.IP_PMTUDISC_WANT, option(t, c.client, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER), "the client's")
	assert.Equal(t, unix.IP_PMTUDISC_WANT, option(t, c.remote, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER), "the other side's")
}

// Keepalive is turned on for both peers of a connection once it is old enough.
func TestKeepAlive(t *testing.T) {
	const age = 200 * time.Millisecond
	u := start(t, func(o *options) { o.limits.watch = age })
	u.connect(t)
	// watched is how old the connection is, and for how many of its sockets each option is on.
	watched := func() (old time.Duration, on, idle, interval, probes int) {
		u.Server.mu.Lock()
		defer u.Server.mu.Unlock()
		c := u.conns[1]
		for _, fd := range []int{c.client, c.remote} {
			on += option(t, fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
			idle = option(t, fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
			interval = option(t, fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)
			probes = option(t, fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
		}
		return u.machine() - c.came, on, idle, interval, probes
	}
	var on, idle, interval, probes int
	for on == 0 {
		var old time.Duration
		old, on, idle, interval, probes = watched()
		require.Less(t, old, patience)
		if on > 0 {
			assert.GreaterOrEqual(t, old, age)
		}
	}
	assert.Equal(t, []int{2, 60, 15, 4}, []int{on, idle, interval, probes})
}

func TestRejected(t *testing.T) {
	long := strings.Repeat("u", 256)
	closed := listen(t, "127.0.0.1")
	closed.Close()
	for _, c := range []struct {
		name, request, reason string
		change                func(*options)
	}{
		{name: "SOCKS5", request: "\x05\x01\x00", reason: "version 5 is not 4"},
		{name: "HTTP, much of it", request: "GET / HTTP/1.1\r\n" + strings.Repeat("x", 20000), reason: "version 71"},
		{name: "command", request: "\x04\x03", reason: "command 3"},
		{name: "port 0", request: ask(commandConnect, "127.0.0.1:0", ""), reason: "port 0"},
		{name: "user id", request: ask(commandConnect, "127.0.0.1:80", long), reason: "user id"},
		{name: "host name", request: askName(commandConnect, long, 80), reason: "host name"},
		{name: "nobody there", request: ask(commandConnect, closed.Addr().String(), ""), reason: "connection refused"},
		{name: "denied", request: ask(commandConnect, "127.0.0.1:80", "") + "data", reason: "rule 0 denies 127.0.0.1:80",
			change: func(o *options) { o.cfg.Access = []Rule{{Action: Deny}} }},
		{name: "denied BIND", request: ask(commandBind, "127.0.0.1:80", ""), reason: "rule 0 denies 127.0.0.1:",
			change: func(o *options) { o.cfg.Access = []Rule{rule(t, Deny, "", "", "", "1024-65535")} }},
		{name: "own address", request: ask(commandConnect, "127.0.0.1:80", ""), reason: "127.0.0.1 is not the address of another machine",
			change: func(o *options) { o.AllowOwnAddresses = false }},
		{name: "BIND for own address", request: ask(commandBind, "127.0.0.1:80", ""), reason: "127.0.0.1 is not the address of another machine",
			change: func(o *options) { o.AllowOwnAddresses = false }},
		{name: "own address by name", request: askName(commandConnect, "router", 80), reason: "127.0.0.1 is not the address of another machine",
			change: func(o *options) {
				o.AllowOwnAddresses = false
				o.lookup = func(context.Context, string, resolve.Servers) ([]netip.Addr, error) {
					return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
				}
			}},
		{name: "no such name", request: askName(commandConnect, "nowhere", 80), reason: "no such host",
			change: func(o *options) {
				o.lookup = func(context.Context, string, resolve.Servers) ([]netip.Addr, error) {
					return nil, errors.New("no such host")
				}
			}},
		{name: "firewall refuses", request: ask(commandBind, "127.0.0.1:80", ""), reason: "no firewall",
			change: func(o *options) {
				o.Open = func(context.Context, Opening, *os.File) (func(), error) {
					return nil, errors.New("no firewall")
				}
			}},
		{name: "handshake too slow", request: "\x04\x01", reason: "handshake timeout",
			change: func(o *options) { o.limits.handshake = 50 * time.Millisecond }},
		{name: "name server silent", request: askName(commandConnect, "slow", 80), reason: "connect timeout",
			change: func(o *options) {
				o.limits.connect = 50 * time.Millisecond
				o.lookup = waitForEnd
			}},
		{name: "silent before its request", request: "\x04\x01", reason: "idle timeout",
			change: func(o *options) { o.cfg.ConnectionIdleTimeout = 50 * time.Millisecond }},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, c.change)
			near := dial(t, u.addr)
			near.send(c.request)
			near.rejected()
			u.awaitCount(t, 0)
			u.awaitLog(t, "connection 1 refused: type=unknown", c.reason)
		})
	}
}

func TestHandshakeDeadlineIsAbsolute(t *testing.T) {
	u := start(t, func(o *options) { o.limits.handshake = 200 * time.Millisecond })
	near := dial(t, u.addr)
	stop := make(chan struct{})
	var typing sync.WaitGroup
	typing.Go(func() {
		request := ask(commandConnect, "127.0.0.1:80", strings.Repeat("u", 250))
		for i := 0; i < 250; i++ {
			if _, err := near.Write([]byte{request[i]}); err != nil {
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	near.reply(replyRejected)
	close(stop)
	typing.Wait()
	u.awaitLog(t, "refused", "handshake timeout")
}

func TestNames(t *testing.T) {
	l := listen(t, "127.0.0.2")
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	named := func(addrs ...string) func(*options) {
		return func(o *options) {
			o.cfg.Access = []Rule{rule(t, Deny, "", "", "127.0.0.9", "")}
			o.lookup = func(_ context.Context, host string, _ resolve.Servers) ([]netip.Addr, error) {
				assert.Equal(t, "ftp.example", host)
				var all []netip.Addr
				for _, a := range addrs {
					all = append(all, netip.MustParseAddr(a))
				}
				return all, nil
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(*options)
	}{
		{"one address", named("127.0.0.2")},
		{"the first does not answer", named("127.0.0.3", "127.0.0.2")},
		{"the first is denied", named("127.0.0.9", "127.0.0.2")},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, c.change)
			near := dial(t, u.addr)
			near.send(askName(commandConnect, "ftp.example", port) + "early")
			assert.Equal(t, l.Addr().String(), near.reply(replyGranted).String())
			far := accept(t, l)
			assert.Equal(t, "early", far.receive(5))
		})
	}
}

func TestHalfClose(t *testing.T) {
	t.Run("client first", func(t *testing.T) {
		u := start(t, nil)
		near, far := u.connect(t)
		near.send("question")
		require.NoError(t, near.CloseWrite())
		assert.Equal(t, "question", far.receive(8))
		far.ended()
		far.send("answer")
		assert.Equal(t, "answer", near.receive(6))
		far.Close()
		near.ended()
		u.awaitLog(t, "closed", "tx=8 rx=6", "both sides ended")
	})
	t.Run("server first", func(t *testing.T) {
		u := start(t, nil)
		near, far := u.connect(t)
		far.send("banner")
		require.NoError(t, far.CloseWrite())
		assert.Equal(t, "banner", near.receive(6))
		near.ended()
		near.send("more")
		assert.Equal(t, "more", far.receive(4))
		near.Close()
		far.ended()
		u.awaitLog(t, "closed", "tx=4 rx=6", "both sides ended")
	})
}

func TestReset(t *testing.T) {
	for _, c := range []struct {
		name   string
		choose func(near, far client) (from, to client)
		reason string
	}{
		{"by the client", func(near, far client) (client, client) { return near, far }, "client to server: read: connection reset"},
		{"by the server", func(near, far client) (client, client) { return far, near }, "server to client: read: connection reset"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, nil)
			near, far := u.connect(t)
			from, to := c.choose(near, far)
			from.send("x")
			assert.Equal(t, "x", to.receive(1))
			require.NoError(t, from.SetLinger(0))
			from.Close()
			to.wasReset()
			u.awaitCount(t, 0)
			u.awaitLog(t, "closed", c.reason)
		})
	}
}

// TestSlowReceiver checks that the counters only count what was passed on while the receiver
// reads nothing.
func TestSlowReceiver(t *testing.T) {
	u := start(t, nil)
	near, far := u.connect(t)
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	sent := 0
	for {
		require.NoError(t, far.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
		n, err := far.Write(chunk)
		sent += n
		if err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			break
		}
	}
	stuck := u.Connections()[0].Rx
	assert.Less(t, stuck, uint64(sent))
	far.Close()
	n, err := io.Copy(io.Discard, near)
	require.NoError(t, err)
	assert.EqualValues(t, sent, n)
	require.Eventually(t, func() bool { return u.Connections()[0].Rx == uint64(sent) }, patience, time.Millisecond)
}

func TestIdle(t *testing.T) {
	t.Run("silence ends it", func(t *testing.T) {
		u := start(t, func(o *options) { o.cfg.ConnectionIdleTimeout = time.Second })
		near, far := u.connect(t)
		near.ended()
		far.ended()
		u.awaitCount(t, 0)
		u.awaitLog(t, "closed", "idle timeout")
	})
	t.Run("either direction keeps it", func(t *testing.T) {
		u := start(t, func(o *options) { o.cfg.ConnectionIdleTimeout = 2 * time.Second })
		near, far := u.connect(t)
		for range 25 { // 2.5 s in all
			far.send("x")
			assert.Equal(t, "x", near.receive(1))
			time.Sleep(100 * time.Millisecond)
		}
		assert.Len(t, u.Connections(), 1)
	})
	t.Run("a new timeout counts at once", func(t *testing.T) {
		u := start(t, nil)
		near, _ := u.connect(t)
		u.cfg.ConnectionIdleTimeout = 50 * time.Millisecond
		require.NoError(t, u.Configure(u.cfg, nil))
		near.ended()
		u.awaitLog(t, "closed", "idle timeout")
	})
}

func TestMaxConnections(t *testing.T) {
	small := func(o *options) { o.cfg.MaxConnections = 3 }
	t.Run("one too many", func(t *testing.T) {
		u := start(t, small)
		near, far := u.connect(t)
		u.connect(t)
		waiting := dial(t, u.addr) // a BIND that waits takes a slot too
		waiting.send(ask(commandBind, "127.0.0.1:21", ""))
		waiting.reply(replyGranted)
		for range 5 {
			dial(t, u.addr).rejected()
		}
		u.awaitLog(t, `connection refused: src=127.0.0.1:`, "all 3 connections are taken")
		near.send("alive")
		assert.Equal(t, "alive", far.receive(5))
		assert.Len(t, u.Connections(), 3)

		near.Close()
		far.Close()
		u.awaitCount(t, 2)
		u.connect(t)
	})
	t.Run("the oldest handshake makes room", func(t *testing.T) {
		u := start(t, small)
		u.connect(t)
		first := dial(t, u.addr)
		first.send("\x04")
		u.awaitCount(t, 2)
		second := dial(t, u.addr)
		u.awaitCount(t, 3)
		u.connect(t)
		first.rejected()
		u.connect(t)
		second.rejected()
		dial(t, u.addr).rejected()
		assert.Len(t, u.Connections(), 3)
		u.awaitLog(t, "refused", "replaced: the table is full")
	})
	t.Run("half-open handshakes keep nobody out", func(t *testing.T) {
		// A client is safe for as long as the flood takes to refill the table: 0.4 s.
		u := start(t, func(o *options) { o.cfg.MaxConnections = 200 })
		stop := make(chan struct{})
		var flood sync.WaitGroup
		defer flood.Wait()
		defer close(stop)
		for range u.cfg.MaxConnections {
			dial(t, u.addr)
		}
		flood.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
				if c, err := net.Dial("tcp4", u.addr); assert.NoError(t, err) {
					defer c.Close()
				}
			}
		})
		for range 20 {
			near, far := u.connect(t)
			near.send("x")
			assert.Equal(t, "x", far.receive(1))
			near.Close()
			far.Close()
		}
	})
}

func TestAccessListAtRunTime(t *testing.T) {
	u := start(t, func(o *options) { o.cfg.Access = []Rule{rule(t, Allow, "", "", "127.0.0.0/8", "")} })
	kept, keptFar := u.connect(t)
	denied, deniedFar := u.connect(t)
	waiting := dial(t, u.addr)
	waiting.send(ask(commandBind, "127.0.0.8:21", ""))
	waiting.reply(replyGranted)
	assert.Equal(t, []uint64{2}, u.Hits(), "nothing has decided for good about the one that waits")

	port := deniedFar.LocalAddr().(*net.TCPAddr).AddrPort().Port()
	u.cfg.Access = []Rule{
		rule(t, Deny, "", "", "127.0.0.8", ""),
		rule(t, Deny, "", "", "", fmt.Sprint(port)),
		u.cfg.Access[0],
	}
	require.NoError(t, u.Configure(u.cfg, nil))
	denied.ended()
	deniedFar.ended()
	waiting.rejected()
	u.awaitCount(t, 1)
	u.awaitLog(t, "closed", "rule=1", "denied by the new access list")
	u.awaitLog(t, "refused", "rule=0", "denied by the new access list")
	assert.Equal(t, []uint64{1, 0, 2}, u.Hits())
	kept.send("alive")
	assert.Equal(t, "alive", keptFar.receive(5))

	next := dial(t, u.addr)
	next.send(ask(commandConnect, fmt.Sprintf("127.0.0.1:%d", port), ""))
	next.rejected()
	assert.Equal(t, []uint64{1, 1, 2}, u.Hits())
	kept.Close()
	keptFar.Close()
	u.awaitLog(t, "connection 1 closed", "rule=2")
}

// TestHits: a request counts once, for the rule that has decided about it in the end.
func TestHits(t *testing.T) {
	many := make([]netip.Addr, 40)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)})
	}
	var found atomic.Int32 // how many of them the name has
	u := start(t, func(o *options) {
		o.cfg.Access = []Rule{
			rule(t, Deny, "", "", "127.0.1.1-127.0.1.39", "1-1023"), // some of the addresses
			rule(t, Allow, "", "", "127.0.1.0/24", ""),
			rule(t, Allow, "", "", "0.0.0.0", ""),
			rule(t, Deny, "", "", "127.0.0.9", ""),
		}
		o.limits.addresses = len(many)
		o.lookup = func(context.Context, string, resolve.Servers) ([]netip.Addr, error) { return many[:found.Load()], nil }
	})
	last := listen(t, "127.0.1.40")
	port := uint16(last.Addr().(*net.TCPAddr).Port)

	found.Store(40)
	near := dial(t, u.addr)
	near.send(askName(commandConnect, "host.example", port))
	near.reply(replyGranted)
	assert.Equal(t, []uint64{0, 1, 0, 0}, u.Hits(), "39 addresses refuse the connection, the last one takes it")

	near = dial(t, u.addr)
	near.send(askName(commandConnect, "host.example", 1))
	near.rejected()
	assert.Equal(t, []uint64{0, 2, 0, 0}, u.Hits(), "39 addresses are denied, the last one is allowed and refuses")

	found.Store(39)
	near = dial(t, u.addr)
	near.send(askName(commandConnect, "host.example", 1))
	near.rejected()
	assert.Equal(t, []uint64{1, 2, 0, 0}, u.Hits(), "all addresses are denied")

	near = dial(t, u.addr)
	near.send(ask(commandBind, "0.0.0.0:0", ""))
	bound := near.reply(replyGranted)
	dialFrom(t, "127.0.1.1", bound.String())
	near.reply(replyGranted)
	assert.Equal(t, []uint64{1, 3, 0, 0}, u.Hits(), "the caller is allowed by another rule than anyone is")

	near = dial(t, u.addr)
	near.send(ask(commandBind, "0.0.0.0:0", ""))
	near.reply(replyGranted)
	require.NoError(t, near.CloseWrite())
	near.rejected()
	assert.Equal(t, []uint64{1, 3, 1, 0}, u.Hits(), "nobody has called")

	near = dial(t, u.addr)
	near.send(ask(commandConnect, "127.0.0.9:80", ""))
	near.rejected()
	assert.Equal(t, []uint64{1, 3, 1, 1}, u.Hits())

	near = dial(t, u.addr)
	near.send(ask(commandConnect, "127.0.0.8:1", "")[:4])
	require.NoError(t, near.CloseWrite())
	near.rejected()
	near = dial(t, u.addr)
	near.send(ask(commandConnect, "127.0.0.8:1", ""))
	near.rejected()
	assert.Equal(t, []uint64{1, 3, 1, 1}, u.Hits(), "no rule has decided")

	// Another list meets a request that waits.
	near = dial(t, u.addr)
	near.send(ask(commandBind, "0.0.0.0:0", ""))
	near.reply(replyGranted)
	u.cfg.Access = []Rule{rule(t, Deny, "", "", "0.0.0.0", "")}
	require.NoError(t, u.Configure(u.cfg, nil))
	near.rejected()
	assert.Equal(t, []uint64{1}, u.Hits())

	// A list with fewer rules comes when the service is turned off.
	u.cfg.Access = []Rule{rule(t, Deny, "", "", "127.0.0.9", ""), rule(t, Allow, "", "", "", "")}
	require.NoError(t, u.Configure(u.cfg, nil))
	near = dial(t, u.addr)
	near.send(ask(commandBind, "0.0.0.0:0", ""))
	near.reply(replyGranted)
	u.cfg.Enabled, u.cfg.Access = false, nil
	require.NoError(t, u.Configure(u.cfg, nil))
	near.rejected()
	assert.Empty(t, u.Hits())
}

// TestHitsOfTheOldList ends a request that waits, for another reason than a rule, by a configuration
// that has fewer rules.
func TestHitsOfTheOldList(t *testing.T) {
	u := start(t, func(o *options) {
		byVersion5(o)
		o.cfg.Access = []Rule{rule(t, Deny, "", "", "127.0.0.9", ""), rule(t, Allow, "", "", "", "")}
	})
	near := dial(t, u.addr)
	near.send(greeting + ask5(commandBind, "0.0.0.0:0"))
	require.Equal(t, chosen, near.receive(2))
	near.reply5(reply5Granted)
	u.cfg.Version, u.cfg.Access = 4, u.cfg.Access[1:]
	require.NoError(t, u.Configure(u.cfg, nil))
	u.awaitCount(t, 0)
	assert.Equal(t, []uint64{1}, u.Hits())
}

func TestConfigure(t *testing.T) {
	u := start(t, nil)
	near, far := u.connect(t)

	moved := listen(t, "127.0.0.1")
	require.NoError(t, u.Configure(u.cfg, moved))
	_, err := net.Dial("tcp4", u.addr)
	require.ErrorIs(t, err, unix.ECONNREFUSED, "the port before")
	u.addr = moved.Addr().String()
	u.connect(t)

	bad := u.cfg
	bad.MaxConnections = 501
	unused := listen(t, "127.0.0.1")
	require.EqualError(t, u.Configure(bad, unused), "configure SOCKS: max-connections 501 is not in 1..500")
	_, err = net.Dial("tcp4", unused.Addr().String())
	require.ErrorIs(t, err, unix.ECONNREFUSED, "the listener of a refused configuration")
	u.connect(t)

	near.send("alive")
	assert.Equal(t, "alive", far.receive(5))

	off := u.cfg
	off.Enabled = false
	require.NoError(t, u.Configure(off, nil))
	near.ended()
	far.ended()
	_, err = net.Dial("tcp4", u.addr)
	require.ErrorIs(t, err, unix.ECONNREFUSED, "not enabled")
	require.EqualError(t, u.Configure(u.cfg, nil), "configure SOCKS: enabled, but there is no listener")
	again := listen(t, "127.0.0.1")
	u.addr = again.Addr().String()
	require.NoError(t, u.Configure(u.cfg, again))
	near, far = u.connect(t)
	assert.Len(t, u.Connections(), 1)

	u.Shutdown()
	near.ended()
	far.ended()
	assert.Empty(t, u.Connections())
	require.ErrorIs(t, u.Configure(u.cfg, listen(t, "127.0.0.1")), ErrClosed)
}

// TestDisabled disables a server that has connections in every state. Each must be closed and
// have its line in the log, although there are more than the log takes at once otherwise.
func TestDisabled(t *testing.T) {
	const established = 2 * logBurst
	firewall := &openings{}
	u := start(t, func(o *options) {
		o.cfg.MaxConnections = MaxMaxConnections
		o.lookup = waitForEnd
		o.Open = firewall.Open
	})
	var all []client
	l := listen(t, "127.0.0.1")
	for range established {
		near := dial(t, u.addr)
		near.send(ask(commandConnect, l.Addr().String(), "user"))
		near.reply(replyGranted)
		all = append(all, near, accept(t, l))
	}
	waiting := dial(t, u.addr)
	waiting.send(ask(commandBind, "127.0.0.1:21", ""))
	opening := Opening{Peer: netip.MustParseAddr("127.0.0.1"), Local: waiting.reply(replyGranted)}
	named := dial(t, u.addr)
	named.send(askName(commandConnect, "slow.test", 80))
	silent := dial(t, u.addr)
	u.awaitCount(t, established+3)

	u.cfg.Enabled = false
	require.NoError(t, u.Configure(u.cfg, nil))
	assert.Empty(t, u.Connections())
	for _, c := range all {
		c.ended()
	}
	for _, c := range []client{waiting, named, silent} {
		c.rejected()
	}
	firewall.awaitClosed(t, opening)
	for n := range established + 3 {
		u.awaitLog(t, fmt.Sprintf("connection %d ", n+1), `reason="the service was disabled"`)
	}
}

// TestShutdownWithoutReader ends a server whose log is never written.
func TestShutdownWithoutReader(t *testing.T) {
	blocked := make(chan struct{})
	u := start(t, func(o *options) { o.Logf = func(string, ...any) { <-blocked } })
	near, _ := u.connect(t)
	u.Shutdown()
	near.ended()
	close(blocked)
}

// TestConfigureWithTheSameSocket gives the server the same socket several times, as a parent
// process does that keeps it.
func TestConfigureWithTheSameSocket(t *testing.T) {
	u := start(t, nil)
	kept, err := listen(t, "127.0.0.1").File()
	require.NoError(t, err)
	defer kept.Close()
	for n := range 5 {
		l, err := net.FileListener(kept)
		require.NoError(t, err)
		u.addr = l.Addr().String()
		u.cfg.MaxConnections = n + 1
		require.NoError(t, u.Configure(u.cfg, l.(*net.TCPListener)))
	}
	for range 5 {
		u.connect(t)
	}
	dial(t, u.addr).rejected()
}

// What runs by an address that went ends at once, on both sides, and nothing else.
func TestLeave(t *testing.T) {
	const old = "192.0.2.1"
	address := func(command string) {
		out, err := exec.Command("ip", "addr", command, old+"/32", "dev", "lo").CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	address("add")
	t.Cleanup(func() { _ = exec.Command("ip", "addr", "del", old+"/32", "dev", "lo").Run() }) // it may have gone
	u := start(t, nil)
	stays, staysFar := u.connect(t)
	l := listen(t, old)
	near := dial(t, u.addr)
	near.send(ask(commandConnect, l.Addr().String(), "user"))
	near.reply(replyGranted)
	accept(t, l) // which is told nothing: the address is gone
	waits := dial(t, u.addr)
	waits.send(ask(commandBind, old+":21", "user"))
	waits.reply(replyGranted)

	address("del")
	u.Leave([]netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr(old)})
	near.wasReset()
	waits.rejected()
	u.awaitLog(t, "connection 2 closed", `reason="the machine has another address now"`)
	u.awaitLog(t, "connection 3 refused", `reason="the machine has another address now"`)
	stays.send("alive")
	assert.Equal(t, "alive", staysFar.receive(5))
	u.awaitCount(t, 1)
}

func TestCloseConnection(t *testing.T) {
	u := start(t, nil)
	near, far := u.connect(t)
	other, otherFar := u.connect(t)
	require.EqualError(t, u.CloseConnection(3), "close SOCKS connection 3: no such connection")
	require.NoError(t, u.CloseConnection(1))
	near.ended()
	far.ended()
	u.awaitLog(t, "connection 1 closed", `reason="removed"`)
	other.send("alive")
	assert.Equal(t, "alive", otherFar.receive(5))
	u.awaitCount(t, 1)
}

// openings is a firewall that remembers.
type openings struct {
	mu           sync.Mutex
	open, closed []Opening
}

func (o *openings) Open(_ context.Context, opening Opening, l *os.File) (func(), error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open = append(o.open, opening)
	if at, err := localAddr(int(l.Fd())); err != nil || at != opening.Local {
		return nil, errors.New("another listener")
	}
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.closed = append(o.closed, opening)
	}, nil
}

func (o *openings) awaitClosed(t *testing.T, want Opening) {
	t.Helper()
	require.Eventually(t, func() bool { o.mu.Lock(); defer o.mu.Unlock(); return len(o.closed) == 1 }, patience, time.Millisecond)
	assert.Equal(t, []Opening{want}, o.open)
	assert.Equal(t, []Opening{want}, o.closed)
}

func TestBind(t *testing.T) {
	for _, c := range []struct {
		name, peer, from string
		granted          bool
		change           func(*options)
		end              func(near client, u *setup) // what ends the wait, instead of a call
		reason           string
		rule             string
	}{
		{name: "called by the peer", peer: "127.0.0.2", from: "127.0.0.2", granted: true, rule: "none"},
		{name: "called by another", peer: "127.0.0.2", from: "127.0.0.3", reason: "not from 127.0.0.2"},
		{name: "anyone may call", peer: "0.0.0.0", from: "127.0.0.3", granted: true, rule: "none"},
		{name: "anyone whom the list allows", peer: "0.0.0.0", from: "127.0.0.3", granted: true, rule: "1",
			change: func(o *options) {
				o.cfg.Access = []Rule{rule(t, Allow, "", "", "0.0.0.0", ""), rule(t, Allow, "", "", "127.0.0.3", ""), {Action: Deny}}
			}},
		{name: "anyone but whom the list denies", peer: "0.0.0.0", from: "127.0.0.3", reason: "call: rule 0 denies 127.0.0.3:",
			change: func(o *options) { o.cfg.Access = []Rule{rule(t, Deny, "", "", "127.0.0.3", "")} }},
		{name: "the manual's rules let FTP data in", peer: "127.0.0.2", from: "127.0.0.2", granted: true, rule: "1",
			change: func(o *options) {
				o.cfg.Access = []Rule{rule(t, Allow, "192.168.0.2", "", "", "21"), rule(t, Allow, "", "", "", "1024-65535"), {Action: Deny}}
			}},
		{name: "nobody calls", peer: "127.0.0.2", reason: "nobody called in time",
			change: func(o *options) { o.limits.bind = 50 * time.Millisecond }},
		{name: "silence", peer: "127.0.0.2", reason: "idle timeout",
			end: func(_ client, u *setup) {
				u.cfg.ConnectionIdleTimeout = 50 * time.Millisecond
				require.NoError(t, u.Configure(u.cfg, nil))
			}},
		{name: "removed", peer: "127.0.0.2", reason: `reason="removed"`,
			end: func(_ client, u *setup) { require.NoError(t, u.CloseConnection(1)) }},
		{name: "client leaves", peer: "127.0.0.2", reason: "client left: EOF",
			end: func(near client, _ *setup) { require.NoError(t, near.CloseWrite()) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var fw openings
			u := start(t, func(o *options) {
				o.Open = fw.Open
				if c.change != nil {
					c.change(o)
				}
			})
			near := dial(t, u.addr)
			early := "early"
			if c.reason == "client left: EOF" {
				early = "" // unread bytes hide the end after them
			}
			near.send(ask(commandBind, c.peer+":21", "fred"))
			bound := near.reply(replyGranted)
			near.send(early)
			assert.GreaterOrEqual(t, bound.Port(), uint16(1024))
			got := u.Connections()
			if len(got) == 1 { // some cases end soon
				assert.Equal(t, Unknown, got[0].Type)
				assert.Equal(t, netip.AddrPortFrom(netip.MustParseAddr(c.peer), bound.Port()), got[0].Dst)
			}

			opening := Opening{Peer: netip.MustParseAddr(c.peer), Local: bound}
			if c.end != nil {
				c.end(near, u)
			}
			if c.from == "" || c.end != nil {
				near.rejected()
				fw.awaitClosed(t, opening)
				u.awaitLog(t, "connection 1 refused: type=unknown", c.reason)
				return
			}
			if !c.granted {
				// The reset may be faster than the caller's connect.
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.from)}, Timeout: patience}
				if wrong, err := d.Dial("tcp4", bound.String()); err != nil {
					require.ErrorIs(t, err, unix.ECONNRESET)
				} else {
					defer wrong.Close()
					client{wrong.(*net.TCPConn), t}.wasReset()
				}
				near.rejected()
				fw.awaitClosed(t, opening)
				u.awaitLog(t, "connection 1 refused: type=unknown", c.reason)
				return
			}
			far := dialFrom(t, c.from, bound.String())
			assert.Equal(t, far.LocalAddr().String(), near.reply(replyGranted).String())
			fw.awaitClosed(t, opening)
			_, err := net.Dial("tcp4", bound.String())
			require.ErrorIs(t, err, unix.ECONNREFUSED, "a second call")
			assert.Equal(t, "early", far.receive(5))
			far.send("file")
			assert.Equal(t, "file", near.receive(4))
			assert.Equal(t, In, u.Connections()[0].Type)
			assert.Equal(t, far.LocalAddr().String(), u.Connections()[0].Dst.String())
			far.Close()
			near.ended()
			near.Close()
			about := fmt.Sprintf("type=in src=%s dst=%s rule=%s user=\"fred\"", near.LocalAddr(), far.LocalAddr(), c.rule)
			u.awaitLog(t, "connection 1 opened: "+about)
			u.awaitLog(t, "connection 1 closed: "+about, "tx=5 rx=4", "both sides ended")
		})
	}
}

func TestBindListensWhereThePeerCanReach(t *testing.T) {
	u := start(t, nil)
	near := dial(t, u.addr)
	near.send(ask(commandBind, "127.0.0.2:21", ""))
	bound := near.reply(replyGranted)
	local, err := localTowards(netip.MustParseAddr("127.0.0.2"))
	require.NoError(t, err)
	assert.Equal(t, local, bound.Addr())
}

// TestNoDescriptors leaves the server without descriptors. It must pause accepting, and
// continue when there are some again.
func TestNoDescriptors(t *testing.T) {
	u := start(t, nil)
	near, far := u.connect(t)
	l := listen(t, "127.0.0.1")
	late, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(late)
	addr := netip.MustParseAddrPort(u.addr)

	var before syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: before.Max}))
	restore := func() { require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)) }
	err = unix.Connect(late, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())})
	if err != nil {
		restore()
		require.NoError(t, err)
	}
	assert.Eventually(t, func() bool { return strings.Contains(u.logged(), "too many open files; again in 20ms") },
		patience, 5*time.Millisecond)
	near.send("alive")
	assert.Equal(t, "alive", far.receive(5))
	restore()

	request := ask(commandConnect, l.Addr().String(), "")
	_, err = unix.Write(late, []byte(request))
	require.NoError(t, err)
	accept(t, l)
	assert.Less(t, strings.Count(u.logged(), "too many open files"), 30)
}

func TestLogIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines []string
		l := newLimitedLog(func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) })
		for i := range 1000 {
			l.printf("line %d", i)
		}
		synctest.Wait()
		assert.Len(t, lines, logBurst)
		// From then on so many a second, with the notices of those that were dropped.
		const seconds = 60
		for range seconds * 100 {
			time.Sleep(10 * time.Millisecond)
			l.printf("on and on")
		}
		synctest.Wait()
		assert.InDelta(t, logBurst+seconds*logRate, len(lines), 2)
		for range logBurst {
			l.printf("all at once")
		}
		time.Sleep(time.Second)
		l.printf("later")
		l.close()
		assert.Contains(t, lines[len(lines)-2], "log lines dropped: more than 10 a second")
		assert.Equal(t, "later", lines[len(lines)-1])
	})
}

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	require.NoError(t, err, "curl is in Debian's package curl")
	page := bytes.Repeat([]byte("postern"), 461_678) // 3,231,746 bytes
	l := listen(t, "127.0.0.1")
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(page) })}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(l) })
	t.Cleanup(func() { server.Close(); serving.Wait() })
	port := l.Addr().(*net.TCPAddr).Port
	for _, c := range []struct{ option, host string }{
		{"--socks4", "127.0.0.1"},
		{"--socks4a", "localhost"},
		{"--socks4a", "127.0.0.1"},
	} {
		t.Run(c.option+" "+c.host, func(t *testing.T) {
			u := start(t, nil)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var stderr bytes.Buffer
			cmd := exec.CommandContext(ctx, curl, "-q", "--silent", "--show-error", "--noproxy", "", c.option, u.addr,
				fmt.Sprintf("http://%s:%d/", c.host, port))
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			require.NoError(t, err, "%s", &stderr)
			assert.True(t, bytes.Equal(page, out), "%d bytes, not the page's %d", len(out), len(page))
			u.awaitLog(t, "closed: type=out", fmt.Sprintf("dst=127.0.0.1:%d", port), "both sides ended")
		})
	}
}

// TestOpeningsWait makes more BINDs than may ask the firewall at a time, ends them all, and
// checks that nothing is left and that the firewall was not asked in vain.
func TestOpeningsWait(t *testing.T) {
	asked := make(chan Opening, 100)
	answer := make(chan struct{})
	u := start(t, func(o *options) {
		o.limits.openings = 4 // one client gets half of them
		o.Open = func(ctx context.Context, opening Opening, _ *os.File) (func(), error) {
			asked <- opening
			<-answer // it may be slow to notice that it need not
			return nil, ctx.Err()
		}
	})
	answered := sync.OnceFunc(func() { close(answer) })
	t.Cleanup(answered)
	before := countDescriptors()
	var all []client
	for range 10 {
		near := dial(t, u.addr)
		near.send(ask(commandBind, "127.0.0.2:21", ""))
		all = append(all, near)
	}
	u.awaitCount(t, 10)
	require.Eventually(t, func() bool { return len(asked) == 2 }, patience, time.Millisecond)
	for _, near := range all {
		require.NoError(t, near.CloseWrite())
		near.rejected()
		near.Close()
	}
	u.awaitCount(t, 0)
	answered()
	require.Eventually(t, func() bool { return countDescriptors() <= before }, patience, time.Millisecond)
	assert.Len(t, asked, 2)
}

// TestDescriptorsOfWaiting has as many connections as there may be wait for the firewall, which does not
// answer. They have the descriptors that doc.go says, and no more.
func TestDescriptorsOfWaiting(t *testing.T) {
	for _, c := range []struct {
		name, request string
		n, each       int
	}{
		{"BIND", ask(commandBind, "127.0.0.2:21", ""), MaxMaxConnections, 2},
		{"UDP ASSOCIATE", greeting + ask5(commandAssociate, anywhere), MaxAssociations, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, func(o *options) {
				withUDP(o)
				o.cfg.MaxConnections = MaxMaxConnections
				o.limits.connect = never // however slow the host is
				o.Open = func(ctx context.Context, _ Opening, _ *os.File) (func(), error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
			})
			before := countDescriptors()
			for range c.n {
				dial(t, u.addr).send(c.request)
			}
			require.Eventually(t, func() bool {
				u.Server.mu.Lock()
				defer u.Server.mu.Unlock()
				n := 0
				for _, c := range u.conns {
					if c.state == opening {
						n++
					}
				}
				return n == c.n
			}, patience, 5*time.Millisecond)
			const ofClient = 1
			assert.LessOrEqual(t, countDescriptors()-before, c.n*(ofClient+c.each)+u.limits.openings)
		})
	}
}

// TestBindOfAClientThatLeft has clients that hang up right behind their request: it ends
// without the firewall's answer, also where the server has heard of both at once.
func TestBindOfAClientThatLeft(t *testing.T) {
	answer := make(chan struct{})
	u := start(t, func(o *options) {
		o.Open = func(context.Context, Opening, *os.File) (func(), error) {
			<-answer
			return nil, errors.New("test")
		}
	})
	t.Cleanup(func() { close(answer) })
	for range 100 {
		near := dial(t, u.addr)
		u.awaitCount(t, 1)
		u.Server.mu.Lock() // the server looks at nothing meanwhile
		near.send(ask(commandBind, "127.0.0.2:21", ""))
		assert.NoError(t, near.CloseWrite())
		u.Server.mu.Unlock()
		near.rejected()
		u.awaitCount(t, 0)
	}
}
