package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-routeros/routeros/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

const (
	// floodRate is how many connections a second come to a port, from floodSources addresses, for floodLength at least.
	floodRate    = 1000
	floodSources = 4
	floodLength  = 5 * time.Second
	// floodMost is how many of them are there at once at most: a host has so many descriptors. floodPatience is how long one waits for the
	// router to take it, and floodSlow how many stay until the end.
	floodMost     = 2000
	floodPatience = 2 * time.Second
	floodSlow     = 200
	// floodGuessers is from how many addresses passwords are guessed, and floodGuesses how many guesses are answered until that is enough.
	floodGuessers = 50
	floodGuesses  = 20
	// floodFree is how much memory must be free at each look on the smallest board, in MiB.
	floodFree = 3.0
)

// flooded is a port of /ip service, with what clients send to it that are none.
type flooded struct {
	service string
	port    uint16
	sent    []string
}

var floodedPorts = []flooded{
	{"ssh", 22, []string{"SSH-2.0-x\r\n\xff\xff\xff\xff\x04\x14", "SSH-2.0-x\r\n\x00\x00\x00\x0c\x04\x14xxxxxxxxxxxxxxxx", "GET / HTTP/1.0\r\n\r\n"}},
	{"www", 80, []string{"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967296\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET /" + strings.Repeat("x", 3000)}},
	{"api", 8728, []string{"\xf0\xff\xff\xff\xff", "\x06/login\x0b=name=admin\x00", "\x00\x00\x00\x05/quit"}},
	{"www-ssl", 443, []string{"\x16\x03\x01\xff\xff\x01", "GET / HTTP/1.1\r\n\r\n"}},
	{"api-ssl", 8729, []string{"\x16\x03\x01\xff\xff\x01", "\xf0\xff\xff\xff\xff"}},
}

// TestFloodedServices has 1,000 connections a second come to each port by which the router is managed, half-open ones, slow ones and such
// as no client sends, while somebody manages it by the other ways, and then passwords guessed from many addresses. Nothing of what was in the log
// is lost.
func TestFloodedServices(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range boards() {
		if thorough(b) {
			t.Run(b.Name, func(t *testing.T) {
				t.Parallel()
				testFloodedServices(t, b)
			})
		}
	}
}

func testFloodedServices(t *testing.T, b board.Board) {
	ports := floodedPorts
	if b.Small() {
		ports = ports[:3]
	}
	r := startRouter(t, b.Name, func(o *machineOptions) { o.capture = false })
	r.awaitService(t)
	assert.Empty(t, r.command(t, "/user set admin password=\""+sshPassword+"\""))
	for _, p := range ports {
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
					if by == p.service { // its queue in the kernel is full: a caller is let in by chance
						continue
					}
					begin := time.Now()
					h.do(t, by, "/system identity print")
					t.Logf("by %s while %s is flooded: served after %v", by, p.service, time.Since(begin).Round(time.Millisecond))
				}
			}
			f.end(t)
			for _, by := range []string{"ssh", "api", "www"} {
				h.do(t, by, "/system identity print")
			}
		})
	}
	t.Run("guessed passwords", func(t *testing.T) {
		var guessed atomic.Int64
		stop := r.guess(t, sources, &guessed)
		require.NoError(t, retry(func() error {
			look()
			if n := guessed.Load(); n < floodGuesses {
				return fmt.Errorf("%d guesses are answered", n)
			}
			return nil
		}))
		stop()
		t.Logf("%d guesses were answered", guessed.Load())
	})
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
		"login failure for user admin from ",
	} {
		assert.Contains(t, log, line)
	}
	assert.NotContains(t, log, "were overwritten")
	assert.NotRegexp(t, `(?i)out of memory|oom|page allocation failure|(sshd|api|web|socksd).*(exit|restart)`, r.m.screen.all())
}

// manager manages a router by each way, as clients do.
type manager struct {
	r    *router
	ssh  *sshClient
	echo string
}

func newManager(t *testing.T, r *router) *manager {
	return &manager{r, newSSHClient(t, r.n, r.dir), r.echo(t, sourcePort+50)}
}

// do carries out a line by SSH, or looks at the name of the router by another way. Whoever is refused asks again.
func (h *manager) do(t *testing.T, by, line string) {
	t.Helper()
	require.NoError(t, retry(func() error {
		switch by {
		case "ssh":
			_, err := h.ssh.run(sshPassword, line)
			return err
		case "www":
			out, err := h.r.n.command(client, "curl", "-sS", "--max-time", "60", "-u", "admin:"+sshPassword, "http://"+lanAddress+"/rest/system/identity").CombinedOutput()
			if err == nil && !strings.Contains(string(out), `"postern"`) {
				err = fmt.Errorf("REST says %s", out)
			}
			return err
		}
		conn, err := h.r.n.dial(client, lanAddress+":8728", time.Minute)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
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
	}), "by %s", by)
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

// guess begins to guess passwords by the API, from each of the addresses, until stop is called.
func (r *router) guess(t *testing.T, sources []netip.Addr, answered *atomic.Int64) (stop func()) {
	over := make(chan struct{})
	var running sync.WaitGroup
	for _, from := range sources {
		running.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-over:
					return
				default:
				}
				if r.guessOnce(from, fmt.Sprintf("guess%d", n)) {
					answered.Add(1)
				}
			}
		})
	}
	stop = sync.OnceFunc(func() {
		close(over)
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// guessOnce guesses a password, and reports whether the router has said that it is wrong.
func (r *router) guessOnce(from netip.Addr, password string) bool {
	conn, err := r.n[other].Dial(&net.Dialer{Timeout: time.Minute, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}, lanAddress+":8728")
	if err != nil {
		return false
	}
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(time.Minute)) != nil {
		return false
	}
	c, err := routeros.NewClient(conn)
	if err != nil {
		return false
	}
	err = c.Login("admin", password)
	return err != nil && strings.Contains(err.Error(), "invalid user name or password")
}
