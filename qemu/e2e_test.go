package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
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
)

// imageDir is where TestMain has the images built.
const imageDir = "../out"

// TestMain builds the images that are tested, so that they are what the tree says. Without
// the tag e2e it builds none: the tests that boot one are skipped.
func TestMain(m *testing.M) {
	if !e2e.Enabled {
		os.Exit(m.Run())
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the end-to-end tests need root for network namespaces and taps")
		os.Exit(1)
	}
	var names []string
	for _, b := range boards() {
		names = append(names, b.Name)
	}
	all := slices.Clone(names)
	for _, b := range append(cardBoards(), anyPC()...) {
		if !slices.Contains(all, b.Name) {
			all = append(all, b.Name)
		}
	}
	fmt.Println("end-to-end tests on", strings.Join(all, " "))
	for _, args := range [][]string{append([]string{"build"}, all...), append([]string{"build", "--debug"}, names...)} {
		cmd := exec.Command("go", append([]string{"run", "./image"}, args...)...)
		cmd.Dir = ".."
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build the images:", err)
			os.Exit(1)
		}
	}
	if err := sweep(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	machineEnded = used.add
	code := m.Run()
	used.print()
	os.Exit(code)
}

// boards are those to test: all, or while one is worked on those that
// POSTERN_TEST_BOARDS names.
func boards() []board.Board {
	var some []board.Board
	for _, name := range strings.Fields(os.Getenv("POSTERN_TEST_BOARDS")) {
		b, err := board.ByName(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, "POSTERN_TEST_BOARDS:", err)
			os.Exit(1)
		}
		some = append(some, b)
	}
	if some == nil {
		return board.Lab()
	}
	return some
}

// thorough reports whether a board is one of two on which a test looks at what depends on no processor: malta, the
// smallest, and pc, of the other order of bytes. On those that are left such a test sees that the service's process does
// its work behind its filter of system calls, which each processor has its own numbers for. Whoever names boards wants all.
func thorough(b board.Board) bool {
	return b.Name == "malta" || b.Name == "pc" || os.Getenv("POSTERN_TEST_BOARDS") != ""
}

// loading has an element for each test that loads a processor.
var loading = make(chan struct{}, 2)

// loads is for a test whose machine keeps a processor of the host busy. Two such tests run at a time, one for each processor of CI's
// machine, beside those that mostly wait: what these send goes on until the router has had so much of its own time, and took up to three
// times as much of the processor where seven tests ran.
func loads(t *testing.T) {
	loading <- struct{}{}
	t.Cleanup(func() { <-loading })
}

// router is a booted board in its network.
type router struct {
	*testing.T
	b    board.Board
	n    network
	m    *machine
	site *site
	dir  string
	// listening and open are what TestManual has on the router's connections.
	listening map[netip.AddrPort]net.Listener
	open      []net.Conn
}

// startRouter boots a board in the manual's network, for the length of a test.
func startRouter(t *testing.T, name string, change func(*machineOptions)) *router {
	r := layNetwork(t, name)
	var err error
	r.site, err = startSite(r.n, filepath.Join(r.dir, "site"))
	require.NoError(t, err)
	t.Cleanup(r.site.close)
	o := machineOptions{
		image:         filepath.Join(imageDir, name),
		configuration: manualConfiguration(r.b),
		capture:       true,
	}
	if change != nil {
		change(&o)
	}
	r.boot(t, o)
	return r
}

// layNetwork lays the manual's network around a board that is not started yet.
func layNetwork(t *testing.T, name string) *router {
	b, err := board.ByName(name)
	require.NoError(t, err)
	r := &router{T: t, b: b}
	// Not t.TempDir: what a failed run leaves is for reading, and a socket's path
	// must be short.
	r.dir, err = os.MkdirTemp("", "postern-e2e-")
	require.NoError(t, err)
	used.begin(r.dir, t.Name())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console, QEMU's words and a pcap file of each link: %s", r.dir)
			return
		}
		os.RemoveAll(r.dir)
	})
	r.n, err = newNetwork()
	require.NoError(t, err)
	t.Cleanup(r.n.close)
	return r
}

// boot starts the board, until the test ends.
func (r *router) boot(t *testing.T, o machineOptions) {
	var err error
	r.m, err = startMachine(r.b, r.n, r.dir, o)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() && !strings.HasPrefix(o.commandLine, shellLine) {
			// What the router says of it itself, if it still does.
			_ = r.m.send("\x03")
			if log, err := r.m.command("/log print"); err == nil {
				t.Logf("the log:\n%s", log)
			}
		}
		r.m.kill()
		if t.Failed() {
			t.Logf("the console ends with:\n%s\nQEMU: %s", r.m.screen.tail(60), r.m.stderr.all())
			_ = os.WriteFile(filepath.Join(r.dir, "console.log"), []byte(r.m.screen.all()), 0o644)
		}
	})
}

// expect waits for a text on the console.
func (r *router) expect(t *testing.T, text string) string {
	t.Helper()
	out, err := r.m.expect(text)
	require.NoError(t, err)
	return out
}

// command runs a line at the router's console.
func (r *router) command(t *testing.T, line string) string {
	t.Helper()
	out, err := r.m.command(line)
	require.NoError(t, err)
	return out
}

// settings is an export without the comment at its beginning, which has the time.
func settings(export string) string {
	for strings.HasPrefix(export, "#") {
		_, export, _ = strings.Cut(export, "\n")
	}
	return export
}

// wait waits until QEMU has ended by itself.
func (m *machine) wait() error {
	select {
	case <-m.exited:
		return m.exitErr
	case <-time.After(patience):
		return fmt.Errorf("QEMU for %s has not ended in %v; the console ends with:\n%s", m.board.Name, patience, m.screen.tail(20))
	}
}

// run runs a program on a host, which must succeed, and returns what it printed.
func (r *router) run(t *testing.T, h host, name string, args ...string) string {
	t.Helper()
	out, err := r.n.command(h, name, args...).CombinedOutput()
	require.NoError(t, err, "%s %s on %s: %s", name, strings.Join(args, " "), h, out)
	return string(out)
}

// request sends a SOCKS4 request from a host and returns the connection and the
// reply's code, address and port.
func (r *router) request(t *testing.T, from host, command byte, to string) (net.Conn, socksReply) {
	t.Helper()
	conn, err := r.n.dial(from, socksAddress, patience)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	reply, err := requestSOCKS(conn, command, netip.MustParseAddrPort(to))
	require.NoError(t, err)
	return conn, reply
}

// echo answers on a port of the server with what it is sent.
func (r *router) echo(t *testing.T, port int) string {
	t.Helper()
	l, err := r.n.listen(serverOfSite, port)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return fmt.Sprintf("%s:%d", serverAddress, port)
}

// nameServer answers on the server's DNS port that every name is the server's.
func (r *router) nameServer(t *testing.T) {
	t.Helper()
	var conn net.PacketConn
	require.NoError(t, r.n.on(serverOfSite, func() (err error) {
		conn, err = net.ListenPacket("udp4", ":53")
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			// RFC 1035, 4.1: the first question again, and one answer of type A that
			// points to its name.
			end := bytes.IndexByte(b[12:n], 0)
			if end < 0 || 12+end+5 > n {
				continue
			}
			answer := slices.Clone(b[:12+end+5])
			copy(answer[2:], []byte{0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0})
			answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
			_, _ = conn.WriteTo(append(answer, netip.MustParseAddr(serverAddress).AsSlice()...), from)
		}
	}()
}

// assertEcho checks that a connection to an echo passes data both ways.
func assertEcho(t *testing.T, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err := io.WriteString(conn, "postern")
	require.NoError(t, err)
	answer := make([]byte, 7)
	_, err = io.ReadFull(conn, answer)
	require.NoError(t, err)
	assert.Equal(t, "postern", string(answer))
}

// assertClosed checks that a connection is ended by the router.
func assertClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	_, err := conn.Read(make([]byte, 1))
	require.Error(t, err)
	assert.False(t, errors.Is(err, os.ErrDeadlineExceeded), "still open after %v", patience)
}

func (r *router) awaitService(t *testing.T) {
	t.Helper()
	r.expect(t, "network is ready")
	const prompt = "\n[admin@postern] > "
	if !strings.Contains(r.expect(t, "socks accepts on port 1080"), prompt) { // either may be first
		r.expect(t, prompt)
	}
}

// awaitPing waits until a host has an answer from an address.
func (n network) awaitPing(h host, address string) error {
	return retry(func() error { return n.run(h, "ping", "-c", "1", "-W", "1", address) })
}

// awaitLinks waits until the router answers on both sides: a card negotiates with what
// it is plugged into, three seconds in QEMU's e1000e, while the services are up already.
func (r *router) awaitLinks(t *testing.T) {
	t.Helper()
	for from, address := range map[host]string{client: lanAddress, gateway: wanAddress} {
		require.NoError(t, r.n.awaitPing(from, address))
	}
}

var ftpURL = "ftp://" + serverAddress + "/" + fileName

// fetch gets the file by FTP through SOCKS, and checks it.
func (r *router) fetch(t *testing.T) {
	t.Helper()
	to := filepath.Join(r.dir, "fetched")
	r.run(t, client, "curl", "--silent", "--show-error", "--socks4", lanAddress+":1080", "--output", to, ftpURL)
	got, err := os.ReadFile(to)
	require.NoError(t, err)
	require.True(t, bytes.Equal(r.site.file, got), "the file that arrived has %d bytes and is another", len(got))
}

// http gets the file by HTTP from the client, masqueraded. It gives up if the server is not
// reached in some seconds, which a busy host may be the cause of: what is expected to succeed
// calls it again, by awaitHTTP.
func (r *router) http() error {
	out, err := r.n.command(client, "curl", "--silent", "--show-error", "--connect-timeout", "10", "--output", os.DevNull,
		"http://"+serverAddress+"/"+fileName).CombinedOutput()
	if err != nil {
		return fmt.Errorf("HTTP from the client: %w: %s", err, out)
	}
	return nil
}

// awaitHTTP gets the file as http does, as soon as that is possible.
func (r *router) awaitHTTP(t *testing.T) {
	t.Helper()
	require.NoError(t, retry(r.http))
}

// awaitLog waits until the router's log has a line that matches.
func (r *router) awaitLog(t *testing.T, pattern string) {
	t.Helper()
	r.awaitShown(t, "/log print", pattern)
}

// awaitShown waits until what a command shows has a line that matches: the router's processes tell PID 1
// of what they do, which may come later than its effect.
func (r *router) awaitShown(t *testing.T, command, pattern string) {
	t.Helper()
	line := regexp.MustCompile("(?m)" + pattern)
	require.NoError(t, retry(func() error {
		if shown := r.command(t, command); !line.MatchString(shown) {
			return fmt.Errorf("no line that matches %q; %s:\n%s", pattern, command, shown)
		}
		return nil
	}))
}

func TestRouter(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range boards() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testRouter(t, b)
		})
	}
}

// testRouter is the manual's example and what surrounds it, on the image as it is
// shipped. The steps build on each other, so the first that fails ends the test.
func testRouter(t *testing.T, b board.Board) {
	r := startRouter(t, b.Name, nil)
	r.awaitService(t)
	step := func(name string, f func(t *testing.T)) {
		t.Helper()
		if !t.Run(name, f) {
			t.FailNow()
		}
	}

	if b.LossyTimer != "" {
		// What else took the host's processors while the kernel measured the timer has no part in it.
		step("the timer is measured", func(t *testing.T) {
			found, err := find(r.m.screen.all(), `CPU frequency (\d+\.\d+) MHz`)
			require.NoError(t, err)
			measured, err := strconv.ParseFloat(found, 64)
			require.NoError(t, err)
			assert.InEpsilon(t, 333.33, measured, 0.05) // QEMU's; newer ones' is 320
		})
	}
	step("answers on both sides", func(t *testing.T) {
		r.awaitLinks(t)
	})
	step("screens of the manual", func(t *testing.T) {
		assert.Equal(t, "                    enabled: yes\n"+
			"                       port: 1080\n"+
			"    connection-idle-timeout: 2m\n"+
			"            max-connections: 200\n", r.command(t, "/ip socks print"))
		assert.Equal(t, "Flags: X - disabled\n"+
			" 0   src-address=192.168.0.2 dst-port=21 action=allow\n"+
			" 1   dst-port=1024-65535 action=allow\n"+
			" 2   action=deny\n", r.command(t, "/ip socks access print"))
		assert.Equal(t, "Flags: X - disabled, I - invalid, D - dynamic\n"+
			" 0   chain=srcnat action=masquerade src-address=192.168.0.0/24\n", r.command(t, "/ip firewall nat print"))
	})
	step("HTTP is masqueraded", func(t *testing.T) {
		r.awaitHTTP(t)
		assert.NoError(t, r.site.askedFrom(wanAddress))
		assert.NotContains(t, r.site.httpLog.String(), clientAddress)
	})
	step("direct FTP is dropped", func(t *testing.T) {
		_, err := r.n.dial(client, serverAddress+":21", 4*time.Second)
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		assert.True(t, timeout.Timeout(), "%v", err)
		// The rule that dropped it has counted.
		assert.Regexp(t, `(?m)^ 6   forward +drop +[1-9]\d+ +[1-9]\d*$`, r.command(t, "/ip firewall filter print stats"))
	})
	step("passive download", func(t *testing.T) {
		r.fetch(t)
		r.awaitLog(t, fmt.Sprintf(`type=out.* rx=%d\b`, fileSize))
	})
	step("live counters", func(t *testing.T) {
		echo := r.echo(t, 3423)
		r.waitForConnections(t, 0)
		conn, reply := r.request(t, client, commandConnect, echo)
		require.EqualValues(t, granted, reply.code)
		assertEcho(t, conn)
		screen := regexp.MustCompile(`^ # SRC-ADDRESS                DST-ADDRESS                TX         RX\n` +
			` 0 192\.168\.0\.2:\d+ +10\.5\.8\.8:3423              7          7\n$`)
		// The answer can be here before the router has counted it.
		require.NoError(t, retry(func() error {
			if got := r.command(t, "/ip socks connections print"); !screen.MatchString(got) {
				return fmt.Errorf("not the screen that is expected:\n%s", got)
			}
			return nil
		}))
		assert.Empty(t, r.command(t, "/ip socks connections remove 0"))
		assert.Equal(t, "0\n", r.command(t, "/ip socks connections print count-only"))
		assertClosed(t, conn)
		r.awaitLog(t, `type=out.*10\.5\.8\.8:3423.*reason="removed"`)
	})
	step("upload", func(t *testing.T) {
		from := filepath.Join(r.dir, "upload")
		require.NoError(t, os.WriteFile(from, r.site.file, 0o644))
		r.run(t, client, "curl", "--silent", "--show-error", "--socks4", lanAddress+":1080",
			"--upload-file", from, "ftp://"+serverAddress+"/incoming/passive")
		assertSameFile(t, r.site.file, filepath.Join(r.site.uploadDir(), "passive"))
		r.awaitLog(t, fmt.Sprintf(`type=out.* tx=%d\b`, fileSize))
	})
	step("active FTP by BIND", func(t *testing.T) {
		to := filepath.Join(r.dir, "active")
		cmd, err := socksify(r.n, client, r.dir, "tnftp", "-A", "-V", "-o", to, ftpURL)
		require.NoError(t, err)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		assertSameFile(t, r.site.file, to)
		r.awaitLog(t, fmt.Sprintf(`type=in.* rx=%d\b`, fileSize))
	})
	step("a name is resolved by the configured name server", func(t *testing.T) {
		r.nameServer(t)
		_, port, err := net.SplitHostPort(r.echo(t, 5003))
		require.NoError(t, err)
		r.command(t, "/ip dns set servers="+serverAddress)
		conn, err := r.n.dial(client, socksAddress, patience)
		require.NoError(t, err)
		defer conn.Close()
		number, err := strconv.Atoi(port)
		require.NoError(t, err)
		reply, err := requestNameSOCKS(conn, "ftp.test", uint16(number))
		require.NoError(t, err)
		require.EqualValues(t, granted, reply.code)
		assertEcho(t, conn)
		assert.Regexp(t, `(?m)^ 1 .*1024-65535 +allow +[1-9]\d*$`, r.command(t, "/ip socks access print stats"))
		r.command(t, "/ip dns set servers=\"\"")
	})
	step("names for the LAN", func(t *testing.T) { r.testNames(t) })
	step("only the peer reaches a BIND", func(t *testing.T) { r.testBind(t, requestSOCKSWithin, readReplySOCKS) })
	step("only the peer reaches a BIND of version 5", func(t *testing.T) {
		assert.Empty(t, r.command(t, "/ip socks set version=5"))
		r.testBind(t, requestSOCKS5Within, readReplySOCKS5)
		assert.Empty(t, r.command(t, "/ip socks set version=4"))
	})
	step("access list", func(t *testing.T) {
		echo := r.echo(t, 5000)
		for _, c := range []struct {
			from host
			to   string
			code byte
			why  string
		}{
			{client, serverAddress + ":21", granted, "rule 0 is for this client"},
			{other, serverAddress + ":21", rejected, "rule 0 is for no other, and rule 2 denies"},
			{other, echo, granted, "rule 1 is for anyone"},
			{client, serverAddress + ":80", rejected, "rule 2 denies the rest"},
		} {
			_, reply := r.request(t, c.from, commandConnect, c.to)
			assert.Equal(t, c.code, reply.code, "%s to %s: %s", c.from, c.to, c.why)
		}
	})
	step("closed to the WAN side", func(t *testing.T) {
		_, err := r.n.dial(stranger, wanAddress+":1080", 3*time.Second)
		require.Error(t, err)
		_, err = r.n.dial(gateway, wanAddress+":1080", 3*time.Second)
		require.Error(t, err)
	})
	step("the WAN address changes", func(t *testing.T) { r.readdress(t) })
	step("idle connection ends", func(t *testing.T) {
		r.command(t, "/ip socks set connection-idle-timeout=10s")
		conn, reply := r.request(t, client, commandConnect, r.echo(t, 5001))
		require.EqualValues(t, granted, reply.code)
		assertEcho(t, conn)
		assertClosed(t, conn)
		r.command(t, "/ip socks set connection-idle-timeout=2m")
	})
	step("max-connections", func(t *testing.T) {
		echo := r.echo(t, 5002)
		r.waitForConnections(t, 0)
		r.command(t, "/ip socks set max-connections=3")
		var conns []net.Conn
		for range 3 {
			conn, reply := r.request(t, client, commandConnect, echo)
			require.EqualValues(t, granted, reply.code)
			conns = append(conns, conn)
		}
		_, reply := r.request(t, client, commandConnect, echo)
		assert.EqualValues(t, rejected, reply.code, "the connection over max-connections")
		for _, c := range conns {
			assertEcho(t, c)
		}
		r.command(t, "/ip socks set max-connections=200")
	})
	r.serviceSteps(step)
	step("a wrong line changes nothing", func(t *testing.T) {
		before := settings(r.command(t, "/export"))
		assert.Contains(t, r.command(t, "/ip socks set max-connections=501"), "1..500")
		assert.Contains(t, r.command(t, "/ip firewall nat add chain=srcnat action=masquerade out-interface=ether9"), "ether9")
		assert.Contains(t, r.command(t, "/ip route add dst-address=10.9.0.0/16 gateway="+lanAddress), lanAddress)
		assert.Equal(t, before, settings(r.command(t, "/export")))
	})
	r.links(step)
	step("a link goes and comes back", func(t *testing.T) {
		r.command(t, "/interface ethernet set ether1 disabled=yes")
		require.Error(t, r.http(), "the WAN port is down")
		r.command(t, "/interface ethernet set ether1 disabled=no")
		r.awaitHTTP(t)
		for _, up := range []bool{false, true} {
			require.NoError(t, r.m.monitor.execute("set_link", map[string]any{"name": "net-ether1", "up": up}))
		}
		r.awaitHTTP(t)
	})
	if b.QEMU.HotPlug {
		step("a network card is pulled and put back", func(t *testing.T) { r.replug(t) })
	}
	r.sessionSteps(step)
	step("memory", func(t *testing.T) {
		out := r.command(t, "/system resource print")
		t.Logf("%s:\n%s", b.Name, out)
		assert.Regexp(t, regexp.MustCompile(`(?m)free-memory: \d`), out)
	})
	step("power off", func(t *testing.T) {
		conn, reply := r.request(t, client, commandConnect, r.echo(t, 5003))
		require.EqualValues(t, granted, reply.code)
		require.NoError(t, r.m.send("/system shutdown\ry\r"))
		assertClosed(t, conn)
		require.NoError(t, r.m.wait())
	})
}

// testBind asks for a BIND, by the functions of one version. The firewall lets its peer in, and nobody else.
func (r *router) testBind(t *testing.T, request func(net.Conn, byte, netip.AddrPort, time.Duration) (socksReply, error),
	next func(net.Conn, time.Duration) (socksReply, error)) {
	conn, err := r.n.dial(client, socksAddress, patience)
	require.NoError(t, err)
	defer conn.Close()
	reply, err := request(conn, commandBind, netip.MustParseAddrPort(serverAddress+":21"), patience)
	require.NoError(t, err)
	require.EqualValues(t, granted, reply.code)
	require.Equal(t, wanAddress, reply.addr.Addr().String())
	for _, third := range []host{stranger, other} { // on either side
		_, err := r.n.dial(third, reply.addr.String(), 3*time.Second)
		require.Error(t, err, "%s has reached the port of a BIND", third)
	}
	peer, err := r.n.dial(serverOfSite, reply.addr.String(), patience)
	require.NoError(t, err)
	defer peer.Close()
	second, err := next(conn, patience)
	require.NoError(t, err)
	assert.EqualValues(t, granted, second.code)
	assert.Equal(t, serverAddress, second.addr.Addr().String())
	_, err = io.WriteString(peer, "hello")
	require.NoError(t, err)
	greeting := make([]byte, 5)
	_, err = io.ReadFull(conn, greeting)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(greeting))
}

func assertSameFile(t *testing.T, want []byte, path string) {
	t.Helper()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(want, got), "%s has %d bytes and is another file", path, len(got))
}

// waitForConnections waits until the SOCKS service has so many.
func (r *router) waitForConnections(t *testing.T, want int) {
	t.Helper()
	require.NoError(t, retry(func() error {
		screen := r.command(t, "/ip socks connections print")
		if n := strings.Count(screen, clientAddress+":") + strings.Count(screen, otherAddress+":"); n != want {
			return fmt.Errorf("%d connections, not %d:\n%s", n, want, screen)
		}
		return nil
	}))
}

// replug pulls the WAN port's card and puts one back, as a person would.
func (r *router) replug(t *testing.T) {
	require.NoError(t, r.m.monitor.execute("device_del", map[string]any{"id": "ether1"}))
	require.NoError(t, retry(func() error {
		if r.http() == nil {
			return errors.New("the WAN port still works")
		}
		return nil
	}))
	r.missing(t)
	driver, rest, _ := strings.Cut(portDevice(r.b, 0, 0), ",")
	arguments := map[string]any{"driver": driver}
	for _, option := range strings.Split(rest, ",") {
		name, value, _ := strings.Cut(option, "=")
		arguments[name] = value
	}
	require.NoError(t, retry(func() error { return r.m.monitor.execute("device_add", arguments) }))
	r.awaitHTTP(t)
}

// shellLine has a debug image start its shell. The kernel lets a root file system that is a tmpfs have half of the memory,
// and of 32 MB that is less than the files of a debug image: what was left of them did not run, and at one size
// PID 1 could not write /etc/resolv.conf any more. A ramfs has no such limit.
const shellLine = "postern.shell rootfstype=ramfs"

// TestInside looks at the booted system from within, by the shell and tools of
// the debug image.
func TestInside(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range boards() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testInside(t, b)
		})
	}
}

func testInside(t *testing.T, b board.Board) {
	r := startRouter(t, b.Name, func(o *machineOptions) {
		o.image = filepath.Join(imageDir, b.Name+"-debug")
		o.commandLine = shellLine
		o.configuration += "/system logging action set remote remote=" + serverAddress + "\n/system logging add action=remote\n"
	})
	syslog := r.syslog(t)
	r.expect(t, "socks accepts on port 1080")
	shell := func(t *testing.T, line string) string {
		t.Helper()
		// The mark is written so that its echo differs from what it prints.
		r.m.screen.forget()
		require.NoError(t, r.m.send(line+"; echo mark''s-end\r"))
		return strings.ReplaceAll(r.expect(t, "marks-end"), "\r", "")
	}
	r.expect(t, "$")

	t.Run("a syslog server hears of the start", func(t *testing.T) {
		// What was logged before the server could be reached is sent too.
		syslog(t, "system,info - network is ready after ")
		syslog(t, "socks,info - socks accepts on port 1080 after ")
	})
	t.Run("addresses and routes", func(t *testing.T) {
		addr := shell(t, "ip addr")
		assert.Contains(t, addr, "ether1")
		assert.Regexp(t, `inet 10\.1\.0\.104/24 .*ether1`, addr)
		assert.Regexp(t, `inet 192\.168\.0\.1/24 .*ether2`, addr)
		assert.Regexp(t, `192\.168\.0\.0/24 dev ether2`, shell(t, "ip route"))
		// u-root's ip does not show gateways; proc(5) has them in the CPU's byte order.
		gateway := "0100010A"
		if b.CPU.GOARCH == "mips" {
			gateway = "0A010001"
		}
		assert.Regexp(t, `ether1\s+00000000\s+`+gateway+`\s+0003\b`, shell(t, "cat /proc/net/route"))
	})
	t.Run("packets go before no program", func(t *testing.T) {
		for _, port := range []string{"ether1", "ether2"} {
			assert.Regexp(t, `(?m)^(.*\$ )?1$`, shell(t, "cat /sys/class/net/"+port+"/threaded"))
		}
	})
	if b.LossyTimer != "" {
		t.Run("no timer that loses interrupts", func(t *testing.T) {
			current := shell(t, "cat /sys/devices/system/clockevents/clockevent0/current_device")
			assert.Regexp(t, `(?m)^(.*\$ )?pit$`, current)
		})
	}
	t.Run("the kernel guards itself", func(t *testing.T) { // as SECURITY.md says
		config, err := os.ReadFile(filepath.Join(imageDir, b.Name, "kernel.config"))
		require.NoError(t, err)
		options := []string{"STACKPROTECTOR", "HARDENED_USERCOPY", "INIT_STACK_ALL_ZERO", "LIST_HARDENED", "BUG_ON_DATA_CORRUPTION", "SCHED_STACK_END_CHECK"}
		if !strings.HasPrefix(b.CPU.GOARCH, "mips") {
			options = append(options, "STRICT_KERNEL_RWX", "VMAP_STACK")
		}
		if strings.HasSuffix(b.CPU.GOARCH, "64") {
			options = append(options, "RANDOMIZE_BASE", "RANDOMIZE_KSTACK_OFFSET_DEFAULT")
		}
		options = append(options, map[string][]string{"arm": {"CPU_SW_DOMAIN_PAN"}, "arm64": {"ARM64_PAN", "ARM64_EPAN"}, "amd64": {"X86_UMIP", "LEGACY_VSYSCALL_NONE"}}[b.CPU.GOARCH]...)
		for _, option := range options {
			assert.Contains(t, string(config), "\nCONFIG_"+option+"=y\n")
		}
		for file, want := range map[string]string{"kptr_restrict": "2", "dmesg_restrict": "1", "panic_on_oops": "1"} {
			assert.Regexp(t, `(?m)^(.*\$ )?`+want+"$", shell(t, "cat /proc/sys/kernel/"+file), file)
		}
		assert.Regexp(t, `(?m)^(.*\$ )?proc /proc proc .*\bhidepid=(2|invisible)\b`, shell(t, "cat /proc/mounts"))
	})
	t.Run("socksd has a user of its own and can gain nothing", func(t *testing.T) {
		status := shell(t, "cat /proc/"+r.socksd(t, shell)+"/status")
		assert.Regexp(t, `Uid:\s+64000\s+64000\s+64000\s+64000`, status)
		assert.Regexp(t, `CapEff:\s+0000000000000000`, status)
		assert.Regexp(t, `CapPrm:\s+0000000000000000`, status)
		assert.Regexp(t, `NoNewPrivs:\s+1`, status)
		assert.Regexp(t, `Seccomp:\s+2`, status) // a filter of its system calls
		// Its root holds its program, and no file or socket besides.
		root := shell(t, "ls -a /proc/"+r.socksd(t, shell)+"/root/")
		assert.Regexp(t, `(?m)^(.*\$ )?socksd$`, root)
		assert.NotContains(t, root, "postern")
	})
	t.Run("socksd is killed", func(t *testing.T) {
		echo := r.echo(t, 5000)
		_, reply := r.request(t, client, commandConnect, echo)
		require.EqualValues(t, granted, reply.code)
		_, waiting := r.request(t, client, commandBind, serverAddress+":21")
		require.EqualValues(t, granted, waiting.code)
		first := r.socksd(t, shell)
		// Calls one after the other: some come while only PID 1 has the listener. They wait and are served.
		over, calls := make(chan struct{}), make(chan error, 1)
		go func() {
			for {
				conn, err := r.n.dial(client, socksAddress, patience)
				if err == nil {
					err = conn.Close()
				}
				select {
				case <-over:
					calls <- err
					return
				case <-time.After(5 * time.Millisecond):
				}
				if err != nil {
					calls <- err
					return
				}
			}
		}()
		start := time.Now()
		require.NoError(t, r.m.send("kill -9 "+first+"\r"))
		r.expect(t, "socksd: it was ended by signal 9")
		r.expect(t, "socksd is back")
		close(over)
		require.NoError(t, <-calls, "refused while socksd is away")
		// Only from here on is it sure that the process that was killed takes no call.
		_, reply = r.request(t, client, commandConnect, echo)
		assert.EqualValues(t, granted, reply.code)
		t.Logf("%s: served %v after the kill", b.Name, time.Since(start).Round(time.Millisecond))
		assert.NotEqual(t, first, r.socksd(t, shell))
		// What was open for the BIND is closed: nobody answers, not even with a reset.
		_, err := r.n.dial(serverOfSite, waiting.addr.String(), 3*time.Second)
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		assert.True(t, timeout.Timeout(), "%v", err)
	})
	if b.Name == boards()[0].Name {
		t.Run("socksd hangs", func(t *testing.T) {
			require.NoError(t, r.m.send("kill -"+stopSignal(b)+" "+r.socksd(t, shell)+"\r"))
			start := time.Now()
			r.expect(t, "socksd hangs: it is ended")
			r.expect(t, "socksd is back")
			t.Logf("%s: another one after %.0f s", b.Name, time.Since(start).Seconds())
			_, reply := r.request(t, client, commandConnect, r.echo(t, 5001))
			assert.EqualValues(t, granted, reply.code)
		})
	}
	t.Run("a panic of PID 1 restarts the machine", func(t *testing.T) {
		require.NoError(t, r.m.send("kill -6 1\r"))
		r.expect(t, "Kernel panic")
		require.NoError(t, r.m.wait())
	})
}

// stopSignal is the number of SIGSTOP on a board, by signal(7).
func stopSignal(b board.Board) string {
	if strings.HasPrefix(b.CPU.GOARCH, "mips") {
		return "23"
	}
	return "19"
}

// socksd returns the process id of socksd.
func (r *router) socksd(t *testing.T, shell func(*testing.T, string) string) string {
	t.Helper()
	var pid string
	// u-root's ps shows nothing when a process ends while it looks.
	require.NoError(t, retry(func() error {
		list := shell(t, "ps -A")
		found := regexp.MustCompile(`(?m)^\s*(\d+)\b.*socksd`).FindStringSubmatch(list)
		if found == nil {
			return fmt.Errorf("no socksd in the list of processes:\n%s", list)
		}
		pid = found[1]
		return nil
	}))
	return pid
}

// TestBrokenConfiguration boots with a line that is wrong.
func TestBrokenConfiguration(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	r := startRouter(t, boards()[0].Name, func(o *machineOptions) {
		o.configuration = "/ip address add address=192.168.0.1/24 interface=ether2\n" +
			"/ip address add address=10.1.0.104/24 interface=ether1\n" +
			"/ip firewall nat add chain=srcnat action=masquerate\n" +
			"/ip route add gateway=10.1.0.1\n" +
			"/ip socks set enabled=yes\n"
	})
	said := r.expect(t, "\n[admin@")
	assert.Contains(t, said, "default.rsc:3:")
	assert.Contains(t, said, "masquerate")
	require.NoError(t, r.n.awaitPing(client, lanAddress))
	assert.Error(t, r.http(), "forwarding is to be closed")
	_, err := r.n.dial(gateway, wanAddress+":1080", 2*time.Second)
	assert.Error(t, err)
}
