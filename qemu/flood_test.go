package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-routeros/routeros/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

const (
	// floodRate is how many connections a second come to a port, from floodSources addresses, for floodLength at least.
	floodRate    = 1000
	floodSources = 4
	floodLength  = 5 * time.Second
	// floodMost is how many of them are there at once at most: a host has so many descriptors. floodPatience is how long one, or who manages the
	// router meanwhile, waits for the router to take it, and floodSlow how many stay until the end.
	floodMost     = 2000
	floodPatience = 2 * time.Second
	// floodWait is how long one waits until the router serves who manages it by the same port, and floodTaken how many of the flood it lets in
	// by then, unless its host is too slow.
	floodWait  = 4 * time.Minute
	floodTaken = 60000
	floodSlow  = 200
	// floodGuessers is from how many addresses passwords are guessed, floodLogins how often who has the right one logs in meanwhile, and floodAttempts
	// how often he may be refused each time: when others have just had to leave their places.
	floodGuessers = 50
	floodLogins   = 3
	floodAttempts = 5
	// floodFree is how much memory must be free at each look on the smallest board, in MiB.
	floodFree = 3.0
)

// flooded is a port of /ip service, with what clients send to it that are none.
type flooded struct {
	service string
	port    uint16
	sent    []string
}

// withoutTLS is how many of floodedPorts are without TLS, which small boards do not have.
const withoutTLS = 3

var floodedPorts = []flooded{
	{"ssh", 22, []string{"SSH-2.0-x\r\n\xff\xff\xff\xff\x04\x14", "SSH-2.0-x\r\n\x00\x00\x00\x0c\x04\x14xxxxxxxxxxxxxxxx", "GET / HTTP/1.0\r\n\r\n"}},
	{"www", 80, []string{"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967296\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET /" + strings.Repeat("x", 3000)}},
	{"api", 8728, []string{"\xf0\xff\xff\xff\xff", "\x06/login\x0b=name=admin\x00", "\x00\x00\x00\x05/quit"}},
	{"www-ssl", 443, []string{"\x16\x03\x01\xff\xff\x01", "GET / HTTP/1.1\r\n\r\n"}},
	{"api-ssl", 8729, []string{"\x16\x03\x01\xff\xff\x01", "\xf0\xff\xff\xff\xff"}},
}

// TestFloodedServices has 1,000 connections a second come to each port by which the router is managed, half-open ones, slow ones and such
// as no client sends, while somebody manages it by the other ways and by that port too, and then passwords guessed from many addresses. Nothing of
// what was in the log is lost.
func TestFloodedServices(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	loads(t)
	// One after the other, in this test's own turn: in parallel they would come behind all that wait, and the longest stand alone at the end.
	for _, b := range boards() {
		if thorough(b) {
			t.Run(b.Name, func(t *testing.T) { testFloodedServices(t, b) })
		}
	}
}

func testFloodedServices(t *testing.T, b board.Board) {
	there, guessed := floodedPorts, floodedPorts[:withoutTLS]
	if b.Small() {
		there = there[:withoutTLS]
	}
	ports := there
	if !b.Small() && os.Getenv("POSTERN_TEST_BOARDS") == "" {
		ports, guessed = ports[withoutTLS:], nil // what malta does not have
	}
	r := startRouter(t, b.Name, func(o *machineOptions) { o.capture = false })
	r.awaitService(t)
	assert.Empty(t, r.command(t, "/user set admin password=\""+sshPassword+"\""))
	for _, p := range there {
		assert.Empty(t, r.command(t, "/ip service enable "+p.service))
	}
	var sources []netip.Addr
	for i := range floodGuessers {
		sources = append(sources, netip.MustParseAddr(fmt.Sprintf("192.168.0.%d", 10+i)))
		require.NoError(t, r.n[other].IP("addr add "+sources[i].String()+"/24 dev eth0"))
	}
	h := newManager(t, r)
	h.do(t, "ssh", "/system note set note=before")
	before, _ := r.freeMemory(t)
	lowest := before

	// look has the router do what it is for, and its console answer.
	look := func() {
		t.Helper()
		conn, reply := r.request(t, client, commandConnect, h.echo)
		require.EqualValues(t, granted, reply.code)
		assertEcho(t, conn)
		conn.Close()
		free, took := r.freeMemory(t)
		lowest = min(lowest, free)
		t.Logf("%s: free %.1f MiB (least %.1f, %.1f before); the console answers in %v", b.Name, free, lowest, before, took.Round(time.Millisecond))
	}
	for _, p := range ports {
		t.Run(p.service, func(t *testing.T) {
			f := r.flood(t, p, sources[:floodSources])
			for round, start := 0, time.Now(); round < 1 || time.Since(start) < floodLength; round++ {
				look()
				for _, by := range []string{"ssh", "api", "www"} {
					if by != p.service {
						begin := time.Now()
						h.do(t, by, "/system identity print")
						t.Logf("by %s while %s is flooded: served after %v", by, p.service, time.Since(begin).Round(time.Millisecond))
					}
				}
				h.among(t, f)
			}
			f.end(t)
			for _, by := range []string{"ssh", "api", "www"} {
				h.do(t, by, "/system identity print")
			}
		})
	}
	for _, p := range guessed {
		t.Run("passwords guessed by "+p.service, func(t *testing.T) {
			var answered atomic.Int64
			stop := r.guess(t, p.service, sources, &answered)
			for range floodLogins {
				look()
				before, begin := answered.Load(), time.Now()
				refused := h.do(t, p.service, "/system identity print")
				t.Logf("%s: %d guesses are answered; who has the password is served after %v and %d of them, refused %d times before", p.service, before,
					time.Since(begin).Round(time.Millisecond), answered.Load()-before, refused)
				assert.LessOrEqual(t, refused, floodAttempts)
			}
			stop()
		})
	}
	h.do(t, "api", "/system identity print")
	h.do(t, "ssh", "/ip dns set servers="+serverAddress)
	look()
	if b.Small() {
		assert.Greater(t, lowest, floodFree, "MiB of free memory")
	}
	log := r.command(t, "/log print")
	for _, line := range []string{
		"system note changed by ssh:admin@" + clientAddress, // before
		"dns changed by ssh:admin@" + clientAddress,         // after
		"user admin logged in from " + clientAddress + " via ssh",
		"user admin logged in from " + clientAddress + " via api",
		"ssh accepts on port 22",
	} {
		assert.Contains(t, log, line)
	}
	if guessed != nil {
		assert.Contains(t, log, "login failure for user admin from ")
	}
	assert.NotContains(t, log, "were overwritten")
	assert.NotRegexp(t, `(?i)out of memory|oom|page allocation failure|(sshd|api|web|socksd).*(exit|restart)`, r.m.screen.all())
}

// manager manages a router by each way, as clients do.
type manager struct {
	r    *router
	echo string
	// patience is how long it waits for a connection. TCP asks ever more rarely: where the queue of a port in the kernel is full one is served
	// sooner who begins anew.
	patience time.Duration
}

func newManager(t *testing.T, r *router) *manager {
	return &manager{r, r.echo(t, sourcePort+50), time.Minute}
}

// do carries out a line by SSH, or looks at the name of the router by another way, each time with a new login. Whoever is refused asks again:
// it returns how often.
func (h *manager) do(t *testing.T, by, line string) (refused int) {
	t.Helper()
	refused = -1
	var last error
	require.NoError(t, retry(func() error {
		err := h.once(by, line)
		if refused++; err != nil {
			last = err
		}
		return err
	}), "by %s", by)
	if last != nil {
		t.Logf("by %s: refused %d times, at last: %v", by, refused, last)
	}
	return refused
}

// among manages the router by a port that is flooded. Its queue in the kernel is full, so a caller is let in by chance, and then served. If
// he is not within floodWait, the host has no time for the router: it has let in fewer than floodTaken of the flood too.
func (h *manager) among(t *testing.T, f *portFlood) {
	t.Helper()
	h.patience = floodPatience
	defer func() { h.patience = time.Minute }()
	begin, before := time.Now(), f.taken.Load()
	for refused := 0; ; refused++ {
		err := h.once(f.service, "/system identity print")
		taken := f.taken.Load() - before
		if err == nil {
			t.Logf("by %s while it is flooded: served after %v, %d others and %d attempts", f.service, time.Since(begin).Round(time.Millisecond), taken, refused)
			return
		}
		if time.Since(begin) > floodWait {
			require.Less(t, taken, int64(floodTaken), "others were let in, and who manages the router was not: %v", err)
			t.Logf("by %s while it is flooded: the host is too slow: not served in %d attempts, as were %d others: %v", f.service, refused+1, taken, err)
			return
		}
	}
}

func (h *manager) once(by, line string) error {
	switch by {
	case "ssh":
		return h.shell(line)
	case "www":
		return h.page("http")
	case "www-ssl":
		return h.page("https")
	}
	return h.program(by == "api-ssl")
}

// dial connects to a port of the router. A minute is then left for all that follows.
func (h *manager) dial(port string) (net.Conn, error) {
	conn, err := h.r.n.dial(client, net.JoinHostPort(lanAddress, port), h.patience)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// shell carries out a line by SSH.
func (h *manager) shell(line string) error {
	conn, err := h.dial("22")
	if err != nil {
		return err
	}
	defer conn.Close()
	c, channels, requests, err := ssh.NewClientConn(conn, "", &ssh.ClientConfig{User: "admin", Auth: []ssh.AuthMethod{ssh.Password(sshPassword)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		return err
	}
	session, err := ssh.NewClient(c, channels, requests).NewSession()
	if err != nil {
		return err
	}
	out, err := session.CombinedOutput(line)
	if err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, out)
	}
	return nil
}

// page logs in to the page, and out.
func (h *manager) page(scheme string) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return h.dial(port)
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	defer transport.CloseIdleConnections()
	browser := &http.Client{Transport: transport, Jar: jar, Timeout: time.Minute}
	post := func(path, token string, form url.Values) (string, error) {
		q, err := http.NewRequest("POST", scheme+"://"+lanAddress+path, strings.NewReader(form.Encode()))
		if err != nil {
			return "", err
		}
		q.Header.Set("X-Postern-Token", token)
		q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		a, err := browser.Do(q)
		if err != nil {
			return "", err
		}
		defer a.Body.Close()
		text, err := io.ReadAll(a.Body)
		if err == nil && a.StatusCode/100 != 2 {
			err = fmt.Errorf("%s: %s: %s", path, a.Status, text)
		}
		return string(text), err
	}
	text, err := post("/login", "", url.Values{"user": {"admin"}, "password": {sshPassword}})
	if err != nil {
		return err
	}
	token, err := find(text, `"token":"([^"]+)"`)
	if err != nil {
		return err
	}
	_, err = post("/logout", token, nil)
	return err
}

// program asks for the name of the router by the API, over TLS or not.
func (h *manager) program(overTLS bool) error {
	port := "8728"
	if overTLS {
		port = "8729"
	}
	conn, err := h.dial(port)
	if err != nil {
		return err
	}
	defer conn.Close()
	if overTLS {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	c, err := routeros.NewClient(conn)
	if err != nil {
		return err
	}
	if err := c.Login("admin", sshPassword); err != nil {
		return err
	}
	_, err = c.Run("/system/identity/print")
	return err
}

// portFlood is a flood of a port.
type portFlood struct {
	flooded
	stop                   chan struct{}
	places, slow           chan struct{} // have an entry for each connection, and each slow one
	running                sync.WaitGroup
	start                  time.Time
	tried, taken, halfOpen atomic.Int64
}

// flood begins to send floodRate connections a second to a port: of four one is half-open, one hangs up at once, one sends what it must not,
// and one is slow. Where the host has no room for one it waits.
func (r *router) flood(t *testing.T, p flooded, sources []netip.Addr) *portFlood {
	f := &portFlood{flooded: p, stop: make(chan struct{}), start: time.Now(), places: make(chan struct{}, floodMost), slow: make(chan struct{}, floodSlow)}
	to := netip.AddrPortFrom(netip.MustParseAddr(lanAddress), p.port)
	f.running.Go(func() {
		// All sockets are made by one thread, which stays in the host.
		assert.NoError(t, r.n.on(other, func() error {
			for i := 0; ; i++ {
				for time.Since(f.start) < time.Duration(i)*time.Second/floodRate {
					time.Sleep(time.Millisecond)
				}
				if i%4 == 0 {
					absent := netip.AddrFrom4([4]byte{192, 168, 0, byte(100 + i/4%100)})
					if err := sendRawFast(1, func(int) []byte { return synPacket(absent, to.Addr(), uint16(1024+i), p.port) }); err != nil {
						return err
					}
					f.halfOpen.Add(1)
				}
				select {
				case <-f.stop:
					return nil
				case f.places <- struct{}{}:
				}
				if i%4 == 0 {
					<-f.places
					continue
				}
				conn, err := beginConnect(sources[i%len(sources)], to)
				if err != nil {
					return err
				}
				f.tried.Add(1)
				f.running.Go(func() {
					defer func() { <-f.places }()
					defer conn.Close()
					f.be(i, conn)
				})
			}
		}))
	})
	t.Cleanup(f.halt)
	return f
}

// beginConnect begins to connect. The kernel keeps nothing of the connection when it is closed.
func beginConnect(from netip.Addr, to netip.AddrPort) (*os.File, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	err = unix.SetsockoptLinger(s, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err == nil {
		err = unix.Bind(s, &unix.SockaddrInet4{Addr: from.As4()})
	}
	if err == nil {
		if err = unix.Connect(s, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err == unix.EINPROGRESS {
			err = nil
		}
	}
	if err != nil {
		unix.Close(s)
		return nil, fmt.Errorf("connect from %s to %s: %w", from, to, err)
	}
	return os.NewFile(uintptr(s), to.String()), nil
}

// connected waits for a connection to be complete, floodPatience at most.
func connected(conn *os.File) bool {
	raw, err := conn.SyscallConn()
	if err != nil || conn.SetWriteDeadline(time.Now().Add(floodPatience)) != nil {
		return false
	}
	waited, failed := false, 0
	err = raw.Write(func(fd uintptr) bool {
		if !waited {
			waited = true
			return false
		}
		failed, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		return true
	})
	return err == nil && failed == 0
}

// be is a client, the i-th.
func (f *portFlood) be(i int, conn *os.File) {
	if !connected(conn) {
		return
	}
	f.taken.Add(1)
	text := f.sent[i%len(f.sent)]
	switch i % 4 {
	case 2:
		_, _ = io.WriteString(conn, text)
		_ = conn.SetReadDeadline(time.Now().Add(floodPatience))
		_, _ = io.Copy(io.Discard, conn)
	case 3:
		select {
		case f.slow <- struct{}{}:
			defer func() { <-f.slow }()
		default:
			return
		}
		ended := make(chan struct{})
		f.running.Go(func() { // the router ends it
			defer close(ended)
			_, _ = io.Copy(io.Discard, conn)
		})
		for n := 0; ; n++ {
			select {
			case <-f.stop:
				return
			case <-ended:
				return
			case <-time.After(time.Second):
			}
			if n < len(text) {
				if _, err := io.WriteString(conn, text[n:n+1]); err != nil {
					return
				}
			}
		}
	}
}

// halt ends the flood. It may be called again.
func (f *portFlood) halt() {
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
	f.running.Wait()
}

// end ends the flood and says what there was of it.
func (f *portFlood) end(t *testing.T) {
	took := time.Since(f.start)
	f.halt()
	all := f.tried.Load() + f.halfOpen.Load()
	t.Logf("%s: %d connections in %v, %.0f a second: %d half-open, %d of %d others were taken", f.service, all, took.Round(100*time.Millisecond),
		float64(all)/took.Seconds(), f.halfOpen.Load(), f.taken.Load(), f.tried.Load())
	assert.Positive(t, f.taken.Load())
}

// guess has each of the addresses guess a password by a service, some at a time, and then all of them without a pause, until stop is called.
func (r *router) guess(t *testing.T, by string, sources []netip.Addr, answered *atomic.Int64) (stop func()) {
	over, all := make(chan struct{}), make(chan struct{})
	var running, first sync.WaitGroup
	some := make(chan struct{}, floodSources)
	for _, from := range sources {
		guess := func(n int) bool {
			told := r.guessOnce(by, from, fmt.Sprintf("guess%d", n))
			if told {
				answered.Add(1)
			}
			return told
		}
		first.Add(1)
		running.Go(func() {
			some <- struct{}{}
			assert.NoError(t, retry(func() error {
				if !guess(0) {
					return fmt.Errorf("%s is not told that it is wrong", from)
				}
				return nil
			}))
			<-some
			first.Done()
			<-all
			for n := 1; ; n++ {
				select {
				case <-over:
					return
				default:
					guess(n)
				}
			}
		})
	}
	stop = sync.OnceFunc(func() {
		close(over)
		running.Wait()
	})
	t.Cleanup(stop)
	first.Wait()
	close(all)
	return stop
}

// guessOnce guesses a password, and reports whether the router has said that it is wrong.
func (r *router) guessOnce(by string, from netip.Addr, password string) bool {
	port := map[string]string{"ssh": ":22", "www": ":80", "api": ":8728"}[by]
	conn, err := r.n[other].Dial(&net.Dialer{Timeout: time.Minute, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}, lanAddress+port)
	if err != nil {
		return false
	}
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(time.Minute)) != nil {
		return false
	}
	switch by {
	case "ssh":
		_, _, _, err := ssh.NewClientConn(conn, "", &ssh.ClientConfig{User: "admin", Auth: []ssh.AuthMethod{ssh.Password(password)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		return err != nil && strings.Contains(err.Error(), "unable to authenticate")
	case "www":
		q, err := http.NewRequest("GET", "http://"+lanAddress+"/rest/system/identity", nil)
		if err != nil {
			return false
		}
		q.SetBasicAuth("admin", password)
		if q.Write(conn) != nil {
			return false
		}
		a, err := http.ReadResponse(bufio.NewReader(conn), q)
		return err == nil && a.StatusCode == http.StatusUnauthorized
	}
	c, err := routeros.NewClient(conn)
	if err != nil {
		return false
	}
	err = c.Login("admin", password)
	return err != nil && strings.Contains(err.Error(), "invalid user name or password")
}
