package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/e2e"
)

const (
	randomHandshakes = 20_000
	randomAtOnce     = 16
)

// TestRandomHandshakes sends what no client would send. The server must answer or close the
// connection each time, serve the next one, and keep nothing.
func TestRandomHandshakes(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	l := newLab(t, serverAddress)
	s := l.socksd(t, self(t),
		"--access=dst-address="+serverAddress, // the echo, closed ports, and a BIND for the server
		"--access=dst-address=0.0.0.0",        // a BIND for anyone
		"--access=action=deny")                // random addresses
	echo := l.echo(t, serverAddress+":0")
	s.works(t, echo)
	s.awaitQuiet(t)
	before, _ := s.descriptors(t)

	var working sync.WaitGroup
	errs := make(chan error, randomAtOnce)
	for worker := range randomAtOnce {
		working.Go(func() {
			random := rand.New(rand.NewPCG(4, uint64(worker)))
			for i := range randomHandshakes / randomAtOnce {
				h := randomHandshake(random, echo.Addr().String())
				if err := h.play(l, s.addr); err != nil {
					errs <- fmt.Errorf("worker %d, handshake %d: %q: %w", worker, i, h.segments, err)
					return
				}
			}
		})
	}
	working.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	s.works(t, echo)
	s.awaitQuiet(t)
	s.awaitDescriptors(t, before)
}

// handshake is what a client sends, and how it leaves.
type handshake struct {
	segments []string
	leave    string
}

func randomHandshake(r *rand.Rand, echo string) handshake {
	text := func(n int) string {
		b := make([]byte, r.IntN(n))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return string(b)
	}
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	user := strings.ReplaceAll(text(300), "\x00", "u") // too long now and then
	request := pick(
		ask(commandConnect, echo, user),
		ask(commandConnect, serverAddress+":1", user), // nobody listens
		askName(commandConnect, serverName, netip.MustParseAddrPort(echo).Port()),
		askName(byte(1+r.IntN(2)), strings.ReplaceAll(text(300), "\x00", "n"), 80),
		ask(commandBind, serverAddress+":21", user),
		ask(commandBind, "0.0.0.0:0", user),
	)
	switch r.IntN(5) {
	case 0:
		request = text(600)
	case 1:
		request = request[:r.IntN(len(request))]
	case 2:
		b := []byte(request)
		for range 1 + r.IntN(3) {
			b[r.IntN(len(b))] = byte(r.Uint32())
		}
		request = string(b)
	case 3:
		request += text(2000)
	}
	h := handshake{leave: pick("close", "reset", "half-close")}
	for len(request) > 0 && len(h.segments) < 8 {
		n := 1 + r.IntN(len(request))
		h.segments = append(h.segments, request[:n])
		request = request[n:]
	}
	h.segments = append(h.segments, request)
	return h
}

// play returns an error if the connection does not end.
func (h handshake) play(l *lab, addr string) error {
	c, err := l.dial(clientHost, "", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	for _, b := range h.segments {
		if _, err := io.WriteString(c, b); err != nil {
			break // rejected by now
		}
	}
	switch h.leave {
	case "reset":
		return c.SetLinger(0)
	case "half-close":
		c.CloseWrite()
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return nil
}

// TestHalfOpenFlood fills all slots with handshakes that never continue, and adds new ones
// all the time. Clients must be served meanwhile.
func TestHalfOpenFlood(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	const slots = 500
	l := newLab(t, serverAddress)
	s := l.socksd(t, self(t), fmt.Sprintf("--max-connections=%d", slots))
	file := string(randomBytes(100_003, 6))
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, file) })}
	listener := l.listen(t, serverHost, serverAddress+":0")
	var serving sync.WaitGroup
	serving.Go(func() { web.Serve(listener) })
	t.Cleanup(func() { web.Close(); serving.Wait() })

	full, stop := make(chan struct{}), make(chan struct{})
	var flood sync.WaitGroup
	flood.Go(func() {
		var held [slots + 100]*net.TCPConn
		defer func() {
			for _, c := range held {
				if c != nil {
					c.Close()
				}
			}
		}()
		request := ask(commandConnect, listener.Addr().String(), "flood")
		// A client has time until its handshake is the oldest of 500. At this rate that
		// is half a second, which suffices on a busy machine.
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for i := 0; ; i++ {
			if i == slots {
				close(full)
			}
			if i > slots {
				select {
				case <-stop:
					return
				case <-pace.C:
				}
			}
			c, err := l.dial(clientHost, "", s.addr)
			if !assert.NoError(t, err) {
				return
			}
			io.WriteString(c, request[:i%len(request)])
			old := &held[i%len(held)]
			if *old != nil {
				(*old).Close()
			}
			*old = c
		}
	})
	select {
	case <-full:
	case <-time.After(patience):
		require.Fail(t, "the flood does not get in")
	}
	for range 30 {
		got := run(t, l.command(t, clientHost, "curl", "-q", "-sS", "--noproxy", "", "--max-time", "25",
			"--socks4", s.addr, "http://"+listener.Addr().String()+"/"), nil)
		assert.True(t, string(got) == file, "%d bytes that are not the file", len(got))
	}
	s.awaitLog(t, "replaced: the table is full")
	close(stop)
	flood.Wait()
	web.Close()
	s.awaitQuiet(t)
}

// reset is a reset of a connection by one of its ends, at some step.
type reset struct {
	name string
	play func(t *testing.T, s *socksd, target *net.TCPListener)
	log  string // of the closing line; "" when there may be others
}

var resets = []reset{
	{"client, at once", func(t *testing.T, s *socksd, _ *net.TCPListener) {
		s.client(t, "").reset()
	}, "refused: type=unknown"},
	{"client, in its request", func(t *testing.T, s *socksd, target *net.TCPListener) {
		s.client(t, ask(commandConnect, target.Addr().String(), "user")[:9]).reset()
	}, "refused: type=unknown"},
	{"client, behind its request", func(t *testing.T, s *socksd, target *net.TCPListener) {
		s.client(t, ask(commandConnect, target.Addr().String(), "user")).reset()
	}, ""}, // how far it gets is a race
	{"client, when granted", func(t *testing.T, s *socksd, target *net.TCPListener) {
		near, far := s.connected(t, target)
		near.reset()
		far.wasReset()
	}, "closed: type=out"},
	{"client, while it sends more than is taken", func(t *testing.T, s *socksd, target *net.TCPListener) {
		near, far := s.connected(t, target)
		near.fill()
		near.reset()
		far.wasReset()
	}, "closed: type=out"},
	{"client, while more is sent than it takes", func(t *testing.T, s *socksd, target *net.TCPListener) {
		near, far := s.connected(t, target)
		far.fill()
		near.reset()
		far.wasReset()
	}, "closed: type=out"},
	{"client, behind its half-close", func(t *testing.T, s *socksd, target *net.TCPListener) {
		near, far := s.connected(t, target)
		require.NoError(t, near.CloseWrite())
		far.ended()
		near.reset()
		far.wasReset()
	}, "closed: type=out"},
	{"client, while its BIND waits", func(t *testing.T, s *socksd, _ *net.TCPListener) {
		near, _ := s.bound(t)
		near.reset()
	}, "refused: type=unknown"},
	{"client, when its BIND is called", func(t *testing.T, s *socksd, _ *net.TCPListener) {
		near, at := s.bound(t)
		far := s.lab.peer(t, serverHost, "", at.String())
		near.granted()
		near.reset()
		far.wasReset()
	}, "closed: type=in"},
	{"server, at once", func(t *testing.T, s *socksd, target *net.TCPListener) {
		target.Close()
		near := s.client(t, ask(commandConnect, target.Addr().String(), "user"))
		assert.Equal(t, "\x00\x5b", near.receive(8)[:2])
		near.ended()
	}, "refused: type=unknown"},
	{"server, when connected", func(t *testing.T, s *socksd, target *net.TCPListener) {
		near, far := s.connected(t, target)
		far.reset()
		near.wasReset()
	}, "closed: type=out"},
	{"server, while it sends more than is taken", func(t *testing.T, s *socksd, target *net.TCPListener) {
		near, far := s.connected(t, target)
		far.fill()
		far.reset()
		near.wasReset()
	}, "closed: type=out"},
	{"server, while more is sent than it takes", func(t *testing.T, s *socksd, target *net.TCPListener) {
		near, far := s.connected(t, target)
		near.fill()
		far.reset()
		near.wasReset()
	}, "closed: type=out"},
	{"server, behind its half-close", func(t *testing.T, s *socksd, target *net.TCPListener) {
		near, far := s.connected(t, target)
		require.NoError(t, far.CloseWrite())
		near.ended()
		far.reset()
		near.wasReset()
	}, "closed: type=out"},
	{"caller of a BIND, at once", func(t *testing.T, s *socksd, _ *net.TCPListener) {
		near, at := s.bound(t)
		s.lab.peer(t, serverHost, "", at.String()).reset()
		// The call may be gone before it is accepted. Then the reply is 91, or the wait
		// continues until the client leaves.
		near.Close()
	}, ""},
	{"caller of a BIND, while it sends more than is taken", func(t *testing.T, s *socksd, _ *net.TCPListener) {
		near, at := s.bound(t)
		far := s.lab.peer(t, serverHost, "", at.String())
		near.granted()
		far.fill()
		far.reset()
		near.wasReset()
	}, "closed: type=in"},
}

// TestResets checks that a reset at any step leaves nothing behind, and that the other side
// is told.
func TestResets(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	l := newLab(t, serverAddress)
	echo := l.echo(t, serverAddress+":0")
	for _, c := range resets {
		t.Run(c.name, func(t *testing.T) {
			// A socksd for each: all of them would have more lines than the log takes at once.
			s := l.socksd(t, self(t))
			s.works(t, echo)
			s.awaitQuiet(t)
			before, _ := s.descriptors(t)
			said := len(s.log.String())
			c.play(t, s, l.listen(t, serverHost, serverAddress+":0"))
			s.awaitQuiet(t)
			s.awaitDescriptors(t, before)
			require.Eventually(t, func() bool { return strings.Contains(s.log.String()[said:], c.log) },
				patience, 5*time.Millisecond, "no %q in the log", c.log)
			s.works(t, echo)
			s.awaitQuiet(t)
		})
	}
}

// client connects to socksd and sends that.
func (s *socksd) client(t *testing.T, b string) peer {
	t.Helper()
	c := s.lab.peer(t, clientHost, "", s.addr)
	c.send(b)
	return c
}

// connected makes a connection through socksd, and returns both ends.
func (s *socksd) connected(t *testing.T, target *net.TCPListener) (near, far peer) {
	t.Helper()
	near = s.client(t, ask(commandConnect, target.Addr().String(), "user"))
	near.granted()
	return near, accept(t, target)
}

// bound makes a BIND for the server, and returns the address on which it waits.
func (s *socksd) bound(t *testing.T) (near peer, at netip.AddrPort) {
	t.Helper()
	near = s.client(t, ask(commandBind, serverAddress+":21", "user"))
	return near, near.granted()
}

// fill sends until no more is taken.
func (p peer) fill() {
	p.t.Helper()
	chunk := make([]byte, 256<<10)
	for {
		require.NoError(p.t, p.SetWriteDeadline(time.Now().Add(300*time.Millisecond)))
		if _, err := p.Write(chunk); err != nil {
			require.ErrorIs(p.t, err, os.ErrDeadlineExceeded)
			require.NoError(p.t, p.SetWriteDeadline(time.Now().Add(patience)))
			return
		}
	}
}

// wasReset checks that the connection ends by a reset.
func (p peer) wasReset() {
	p.t.Helper()
	_, err := io.Copy(io.Discard, p)
	if err == nil { // the end came before the reset: only a write finds that
		for err == nil {
			_, err = p.Write([]byte("x"))
		}
	}
	require.True(p.t, errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE), "%v", err)
}

// ended checks that nothing more comes.
func (p peer) ended() {
	p.t.Helper()
	got, err := io.ReadAll(p)
	require.NoError(p.t, err)
	require.Empty(p.t, got)
}

// TestNothingAnswers has a name server and a host that never answer. Other clients must not
// wait because of them, each request must be answered in its 30 s, and clients that leave
// before that must leave nothing behind.
func TestNothingAnswers(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	const requestTime = 30 * time.Second
	l := newLab(t, silentServer)
	s := l.socksd(t, self(t))
	echo := l.echo(t, serverAddress+":0")
	s.works(t, echo)
	s.awaitQuiet(t)
	before, _ := s.descriptors(t)

	start := time.Now()
	var waiting []peer
	for i := range 20 { // more than the 16 that are looked up at a time for one address
		waiting = append(waiting, s.client(t, askName(commandConnect, fmt.Sprintf("name%d.lab", i), 80)))
	}
	for range 20 {
		waiting = append(waiting, s.client(t, ask(commandConnect, blackHole+":80", "patient")))
	}
	for i := range 5 {
		name, dst := askName(commandConnect, fmt.Sprintf("left%d.lab", i), 80), ask(commandConnect, blackHole+":80", "leaves")
		s.client(t, name).reset()
		s.client(t, dst).reset()
		s.client(t, name).Close()
		s.client(t, dst).Close()
	}
	for range 20 {
		s.works(t, echo)
	}
	took := time.Since(start)
	assert.NotContains(t, s.log.String(), "reason=\"address of", "names were waited for while others were served")
	assert.NotContains(t, s.log.String(), "connect timeout")
	for _, c := range waiting {
		require.NoError(t, c.SetDeadline(start.Add(requestTime+patience)))
		assert.Equal(t, "\x00\x5b\x00\x00\x00\x00\x00\x00", c.receive(8))
		c.ended()
	}
	t.Logf("others were served in %v, the last was answered after %v", took, time.Since(start))
	s.awaitQuiet(t)
	s.awaitDescriptors(t, before)
	s.works(t, echo)
}

// TestStopped stops socksd for longer than its idle timeout, with open streams. Some of them
// send bytes meanwhile, the others are silent. When it continues, nothing must be lost, and no
// stream may have ended.
func TestStopped(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	const streams, idle, stopped = 100, 8 * time.Second, 12 * time.Second
	l := newLab(t, serverAddress)
	s := l.socksd(t, self(t), "--idle-timeout="+idle.String())
	target := l.listen(t, serverHost, serverAddress+":0")
	near, far := make([]peer, streams), make([]peer, streams)
	for i := range streams {
		near[i], far[i] = s.connected(t, target)
	}
	require.NoError(t, s.Process.Signal(unix.SIGSTOP))
	for i := range streams {
		switch i % 3 {
		case 0:
			near[i].send("meanwhile")
		case 1:
			far[i].send("meanwhile")
		}
	}
	time.Sleep(stopped) // this is how long the process stands still, not a wait for something
	require.NoError(t, s.Process.Signal(unix.SIGCONT))
	for i := range streams {
		for _, p := range []peer{near[i], far[i]} {
			require.NoError(t, p.SetDeadline(time.Now().Add(patience)))
		}
		switch i % 3 {
		case 0:
			assert.Equal(t, "meanwhile", far[i].receive(9), "stream %d", i)
		case 1:
			assert.Equal(t, "meanwhile", near[i].receive(9), "stream %d", i)
		}
		near[i].send("to the server")
		assert.Equal(t, "to the server", far[i].receive(13), "stream %d", i)
		far[i].send("to the client")
		assert.Equal(t, "to the client", near[i].receive(13), "stream %d", i)
	}
	assert.NotContains(t, s.log.String(), "closed")
	// Deadlines work as before: each stream is silent from now on. What the stop excuses, three times its length, is not idle
	// (TestSilenceBehindStall of package socks).
	for i := range streams {
		require.NoError(t, near[i].SetDeadline(time.Now().Add(idle+3*stopped+patience)))
		near[i].ended()
	}
	s.awaitLog(t, "closed", "idle timeout")
}

// TestDescriptorsExhausted lowers the limit of descriptors of socksd to what it has, and
// raises it again.
func TestDescriptorsExhausted(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	l := newLab(t, serverAddress)
	// As root, so that the limit may be changed without CAP_SYS_RESOURCE, which a
	// container's root lacks.
	s := l.socksd(t, build(t), "--user=root")
	target, echo := l.listen(t, serverHost, serverAddress+":0"), l.echo(t, serverAddress+":0")
	near, far := s.connected(t, target)
	alive := func() {
		t.Helper()
		near.send("alive")
		assert.Equal(t, "alive", far.receive(5))
	}
	alive()

	t.Run("one left", func(t *testing.T) {
		s.awaitConnections(t, 1)
		restore := s.squeeze(t, 1)
		for range 5 {
			c := s.client(t, ask(commandConnect, echo.Addr().String(), "user"))
			assert.Equal(t, "\x00\x5b\x00\x00\x00\x00\x00\x00", c.receive(8), "none for the connection to the server")
			c.ended()
		}
		alive()
		restore()
		s.works(t, echo)
	})
	t.Run("none left", func(t *testing.T) {
		s.awaitConnections(t, 1)
		restore := s.squeeze(t, 0)
		var waiting []peer
		for range 20 {
			waiting = append(waiting, s.client(t, ask(commandConnect, echo.Addr().String(), "user")+"early"))
		}
		s.awaitLog(t, "accept", "too many open files", "again in")
		// This measures how much it tries in 2 s.
		used := s.cpu(t)
		time.Sleep(2 * time.Second)
		used = s.cpu(t) - used
		assert.Less(t, used, 400*time.Millisecond, "CPU time in 2 s without descriptors")
		t.Logf("%v of CPU in 2 s", used)
		alive()
		restore()
		for _, c := range waiting {
			c.granted()
			assert.Equal(t, "early", c.receive(5))
			c.Close()
		}
	})
	near.Close()
	far.Close()
	s.awaitQuiet(t)
}

// squeeze lets the process open only that many more descriptors, until restore is called.
func (s *socksd) squeeze(t *testing.T, more uint64) (restore func()) {
	t.Helper()
	// The limit applies to the number of a descriptor, and a new one gets the lowest.
	var free uint64
	for ; ; free++ {
		if _, err := os.Readlink(filepath.Join(s.proc("fd"), strconv.FormatUint(free, 10))); err != nil {
			break
		}
	}
	var old unix.Rlimit
	require.NoError(t, unix.Prlimit(s.Process.Pid, unix.RLIMIT_NOFILE, nil, &old))
	require.NoError(t, unix.Prlimit(s.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: free + more, Max: old.Max}, nil))
	return func() {
		t.Helper()
		require.NoError(t, unix.Prlimit(s.Process.Pid, unix.RLIMIT_NOFILE, &old, nil))
	}
}
