package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// The load of TestSlowReceivers, and what the router must hold to.
const (
	slowStreams = 500 // as many as max-connections can be
	// slowTime is how long it lasts, unless slowTimeVariable says otherwise: 10m, say. It is longer than the
	// two minutes after which the router closes what is silent.
	slowTime         = 150 * time.Second
	slowTimeVariable = "POSTERN_TEST_SLOW_TIME"

	// slowRead is the bytes that a receiver takes each slowPause, and slowWindow the
	// buffer that it gives its socket. With 2 kB a second the router held 1 to 2 MB
	// of data, with receivers that read nothing more than 4 MB.
	slowRead   = 256
	slowPause  = time.Second
	slowWindow = 4 << 10

	// usualWindow is no window: a Linux host has 64 kB at first, and more for who reads them. usualTime is how long these last.
	usualWindow = 0
	usualTime   = 45 * time.Second
	// usualStreams is how many of these the router holds. Near 500 it has come to what it keeps free, 1.3 to 1.8 MiB, takes no
	// more, and ends what is silent (socks.tightPart): TestStuckBothWays.
	usualStreams = 400

	slowLook        = 15 * time.Second // from one look at the router to the next
	slowFreeMemory  = 3.8              // MiB that must be free at each, 4 MB: 4.6 was seen, on a busy host
	usualFreeMemory = 2.0              // where nothing moves any more
	fastFreeMemory  = 1.0              // with fast ones; socksd's watch sees to 1.3 or so of these

	// slowAnswer is the most that the console may take. Alone it answers in less than half a
	// second; on a host with as much to do again it has taken 12 s.
	slowAnswer = 30 * time.Second
)

// stream is one of the connections: the server sends numbered words of 8 bytes
// without end, the client reads slowly.
type stream struct {
	number uint64
	client *net.TCPConn
	server atomic.Pointer[net.TCPConn]
	read   atomic.Int64
	failed atomic.Pointer[error]
	// silent is the longest time in nanoseconds from one byte to the next.
	silent atomic.Int64
}

// word is what the stream carries from byte 8*i on: bytes of another stream or
// from another place are seen.
func (s *stream) word(i int64) uint64 { return s.number<<48 | uint64(i) }

// startLoaded boots the smallest board with as many connections allowed as there can be,
// and a server behind it, at to, that sends on each of the streams. prepare is called with
// the server's end of each.
func startLoaded(t *testing.T, prepare func(*net.TCPConn)) (r *router, streams []*stream, to netip.AddrPort) {
	const name = "malta"
	skipWithout(t, name)
	loads(t)
	r = startRouter(t, name, func(o *machineOptions) {
		o.configuration += fmt.Sprintf("/ip socks set max-connections=%d\n", slowStreams)
		o.capture = false
	})
	r.awaitService(t)
	for i := range slowStreams {
		streams = append(streams, &stream{number: uint64(i)})
	}
	l, err := r.n.listen(serverOfSite, sourcePort)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go serveAll(l, func(conn net.Conn) {
		prepare(conn.(*net.TCPConn))
		sendNumbered(conn.(*net.TCPConn), streams)
	})
	return r, streams, netip.MustParseAddrPort(fmt.Sprintf("%s:%d", serverAddress, sourcePort))
}

// testTime is how long a test is to last: as long as the environment's variable says, which may be unset.
func testTime(t *testing.T, variable string, usual time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err, variable)
	return d
}

// skipWithout skips a test of one board if that is not to be tested.
func skipWithout(t *testing.T, name string) {
	t.Helper()
	if !slices.ContainsFunc(boards(), func(b board.Board) bool { return b.Name == name }) {
		// Whoever names boards wants those alone. CI names none, and has all.
		t.Skipf("%s is not among POSTERN_TEST_BOARDS", name)
	}
}

// TestSlowReceivers fills the smallest board with as many connections as it
// takes, each of which has more to deliver than its receiver wants. What is full
// then is the router: its windows are open to a server that always has more, and
// what it received it cannot pass on. The receivers' kernels first take little, so that each
// connection goes on moving; then as much as Linux's do by themselves, and each receiver reads
// a byte a second, so that nothing moves any more.
func TestSlowReceivers(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	length := testTime(t, slowTimeVariable, slowTime)
	r, streams, to := startLoaded(t, func(*net.TCPConn) {})
	t.Run("small windows", func(t *testing.T) {
		slowReceivers(t, r, streams, to, slowWindow, slowRead, slowFreeMemory, length)
	})
	// Of what a kernel holds a byte a second makes no room for a packet within minutes.
	assert.Empty(t, r.command(t, "/ip socks set connection-idle-timeout=1h"))
	t.Run("usual windows", func(t *testing.T) {
		slowReceivers(t, r, streams[:usualStreams], to, usualWindow, 1, usualFreeMemory, usualTime)
	})
	assert.NotRegexp(t, `(?i)out of memory|oom|page allocation failure|table full|socksd.*(ended|exit|restart)`, r.m.screen.all())
}

// slowReceivers makes a connection for each of the streams, whose receiver has such a window and
// reads so many bytes a second. None is lost for as long as they last, and the router has that much memory left, in MiB.
func slowReceivers(t *testing.T, r *router, streams []*stream, to netip.AddrPort, window, read int, leastFree float64, length time.Duration) {
	before, _ := r.freeMemory(t)
	start := time.Now()
	for i := range streams {
		s := &stream{number: uint64(i)}
		streams[i] = s
		require.NoError(t, r.openSlow(s, to, window, patience), "connection %d", s.number)
		t.Cleanup(func() { s.client.Close() })
		go s.receive(read)
	}
	t.Logf("%d connections after %v; free memory before them: %.1f MiB", len(streams), time.Since(start).Round(time.Millisecond), before)

	lowest, slowest := before, time.Duration(0)
	for start = time.Now(); time.Since(start) < length; time.Sleep(slowLook) {
		free, took := r.freeMemory(t)
		lowest, slowest = min(lowest, free), max(slowest, took)
		lost := 0
		for _, s := range streams {
			if err := s.failed.Load(); err != nil {
				lost++
				t.Errorf("connection %d after %d bytes: %v", s.number, s.read.Load(), *err)
			}
		}
		if lost > 0 {
			// The router's own words for why.
			t.Fatalf("%d connections lost:\n%s", lost, r.command(t, "/log print"))
		}
		delivered, held, err := sum(streams)
		require.NoError(t, err)
		t.Logf("%5.0f s: free %.1f MiB (least %.1f), delivered %.1f MB, held by the router %d kB, longest silence %v, console answers in %v",
			time.Since(start).Seconds(), free, lowest, float64(delivered)/1e6, held>>10, longestSilence(streams), took.Round(time.Millisecond))
		require.GreaterOrEqual(t, free, leastFree, "MiB of free memory")
		require.Less(t, took, slowAnswer, "time that the console took")
	}

	if len(streams) == slowStreams {
		_, reply := r.request(t, client, commandConnect, to.String())
		assert.EqualValues(t, rejected, reply.code, "a connection more than there may be")
		require.NoError(t, retry(func() error {
			if n, err := r.connections(t); err != nil || n != slowStreams {
				return fmt.Errorf("%d connections are listed: %w", n, err)
			}
			return nil
		}))
	}
	was := make([]int64, len(streams))
	for i, s := range streams {
		was[i] = s.read.Load()
	}
	for i, s := range streams {
		require.NoError(t, retry(func() error {
			if s.read.Load() == was[i] {
				return fmt.Errorf("connection %d delivers no more than %d bytes", i, was[i])
			}
			return nil
		}))
	}
	for _, s := range streams {
		if err := s.failed.Load(); err != nil {
			t.Errorf("connection %d after %d bytes: %v", s.number, s.read.Load(), *err)
		}
	}

	for _, s := range streams {
		s.client.Close()
	}
	require.NoError(t, retry(func() error {
		if n, err := r.connections(t); err != nil || n != 0 {
			return fmt.Errorf("%d connections after all were closed: %w", n, err)
		}
		return nil
	}))
	after, _ := r.freeMemory(t)
	t.Logf("free memory: %.1f MiB before, %.1f MiB the least, %.1f MiB after; the console answered in at most %v",
		before, lowest, after, slowest.Round(time.Millisecond))
}

// TestStuckBothWays has connections that nobody reads at either end: more than the
// smallest board has memory for. It takes no more of them in time, and stays what it is.
func TestStuckBothWays(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	r, streams, to := startLoaded(t, func(server *net.TCPConn) { server.SetReadBuffer(slowWindow) })
	var err error
	open := 0
	for _, s := range streams {
		if err = r.openSlow(s, to, slowWindow, 20*time.Second); err != nil {
			break // it takes no more
		}
		open++
		go func() {
			for data := make([]byte, 16<<10); ; {
				if _, err := s.client.Write(data); err != nil {
					return
				}
			}
		}()
	}
	free, _ := r.freeMemory(t)
	t.Logf("%d connections; then: %v; free memory: %.1f MiB", open, err, free)
	assert.Greater(t, open, 200)
	time.Sleep(slowLook)
	free, took := r.freeMemory(t)
	t.Logf("%.1f MiB after %v; the console answers in %v", free, slowLook, took.Round(time.Millisecond))
	assert.NotRegexp(t, `(?i)out of memory|oom|page allocation failure|socksd.*(ended|exit|restart)`, r.m.screen.all())
	for _, s := range streams {
		if s.client != nil {
			s.client.Close()
		}
	}
	// Whoever comes now is served.
	require.NoError(t, retry(func() error {
		if n, err := r.connections(t); err != nil || n != 0 {
			return fmt.Errorf("%d connections after all were closed: %w", n, err)
		}
		return nil
	}))
	_, reply := r.request(t, client, commandConnect, to.String())
	assert.EqualValues(t, granted, reply.code)
}

// TestFastThenStuck has connections that were fast, and so have most of the memory that
// there is for sockets, when their receivers stop. As many slow ones as there may be come
// beside them: none of these is lost, and the machine stays what it is, until the stuck ones
// are over, for their silence or for memory that is short.
func TestFastThenStuck(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	r, streams, to := startLoaded(t, func(*net.TCPConn) {})
	const (
		fastStreams = 6
		fastBytes   = 10e6 // of each, before its receiver stops
		fastTime    = 20 * time.Second
		fastBuffer  = 256 << 10 // what its receiver's kernel holds
	)
	fast, slow := streams[:fastStreams], streams[fastStreams:]
	before, _ := r.freeMemory(t)
	var running sync.WaitGroup
	for _, s := range fast {
		conn, err := r.n.dial(client, socksAddress, patience)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		s.client = conn.(*net.TCPConn)
		// The kernel makes room for 6 MB of who reads fast. On a busy host that was not full for ten minutes when nobody read any more: it
		// packs what it holds more closely each time, and takes some more, so that the connection is not silent.
		require.NoError(t, s.client.SetReadBuffer(fastBuffer))
		require.NoError(t, s.ask(to, patience))
		running.Go(func() {
			for start := time.Now(); s.read.Load() < fastBytes && time.Since(start) < patience; {
				assert.NoError(t, conn.SetReadDeadline(time.Now().Add(fastTime)))
				n, err := io.Copy(io.Discard, conn)
				if !assert.ErrorIs(t, err, os.ErrDeadlineExceeded) {
					return
				}
				s.read.Add(n)
			}
		})
	}
	running.Wait()
	for _, s := range fast {
		t.Logf("%.1f MB of a fast stream", float64(s.read.Load())/1e6)
		require.GreaterOrEqual(t, s.read.Load(), int64(fastBytes), "bytes of a fast stream")
	}
	for _, s := range slow {
		require.NoError(t, r.openSlow(s, to, slowWindow, patience), "connection %d", s.number)
		t.Cleanup(func() { s.client.Close() })
		go s.receive(slowRead)
	}
	lowest := before
	require.NoError(t, retry(func() error {
		time.Sleep(slowLook)
		free, took := r.freeMemory(t)
		lowest = min(lowest, free)
		t.Logf("free %.1f MiB; the console answers in %v", free, took.Round(time.Millisecond))
		require.Greater(t, free, fastFreeMemory, "MiB of free memory")
		require.Less(t, took, slowAnswer, "time that the console took")
		if n, err := r.connections(t); err != nil || n != len(slow) {
			return fmt.Errorf("%d connections: %w", n, err)
		}
		return nil
	}))
	free, _ := r.freeMemory(t)
	t.Logf("free memory: %.1f MiB before, %.1f MiB the least, %.1f MiB without the stuck", before, lowest, free)
	for _, s := range slow {
		if err := s.failed.Load(); err != nil {
			t.Errorf("connection %d after %d bytes: %v", s.number, s.read.Load(), *err)
		}
	}
	assert.NotRegexp(t, `(?i)out of memory|oom|page allocation failure|socksd.*(ended|exit|restart)`, r.m.screen.all())
}

// TestTinySegments has connections that were fast go on in segments of few bytes, when their
// receivers stop: each holds much more of the router's memory than its bytes.
func TestTinySegments(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	const streams, first = 6, 8 << 20 // bytes
	r, _, _ := startLoaded(t, func(*net.TCPConn) {})
	for i, size := range []int{33, 120, 700} {
		t.Run(fmt.Sprintf("%d bytes", size), func(t *testing.T) {
			l, err := r.n.listen(serverOfSite, sourcePort+10+i)
			require.NoError(t, err)
			defer l.Close()
			go serveAll(l, func(conn net.Conn) {
				// What the client says begins the first bytes, and then the tiny segments:
				// no second passes between them, so that the flow counts as fast still.
				for _, data := range [][]byte{make([]byte, first), nil} {
					if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
						return
					}
					if _, err := conn.Write(data); err != nil {
						return
					}
				}
				for data := make([]byte, size); ; time.Sleep(50 * time.Microsecond) { // else they would be joined
					if _, err := conn.Write(data); err != nil {
						return
					}
				}
			})
			to := netip.MustParseAddrPort(fmt.Sprintf("%s:%d", serverAddress, sourcePort+10+i))
			lowest, _ := r.freeMemory(t)
			before := lowest
			for range streams {
				conn, err := r.dialSlow(64<<10, patience)
				require.NoError(t, err)
				defer conn.Close()
				reply, err := requestSOCKS(conn, commandConnect, to)
				require.NoError(t, err)
				require.EqualValues(t, granted, reply.code)
				require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
				start := time.Now()
				_, err = conn.Write([]byte{0})
				require.NoError(t, err)
				_, err = io.CopyN(io.Discard, conn, first)
				require.NoError(t, err)
				t.Logf("the first %d bytes took %v; slower than 16 s they do not count as fast",
					first, time.Since(start).Round(time.Millisecond))
				_, err = conn.Write([]byte{0})
				require.NoError(t, err)
			}
			for range 10 {
				time.Sleep(time.Second)
				free, took := r.freeMemory(t)
				lowest = min(lowest, free)
				require.Less(t, took, slowAnswer, "time that the console took")
			}
			t.Logf("free memory: %.1f MiB before, %.1f MiB the least", before, lowest)
			assert.Greater(t, lowest, fastFreeMemory, "MiB of free memory")
		})
	}
	assert.NotRegexp(t, `(?i)out of memory|oom|page allocation failure|socksd.*(ended|exit|restart)`, r.m.screen.all())
}

// openSlow opens the connection of s, whose receiver is slow, and has that window. Each step of it is done within limit.
func (r *router) openSlow(s *stream, to netip.AddrPort, window int, limit time.Duration) (err error) {
	if s.client, err = r.dialSlow(window, limit); err != nil {
		return err
	}
	return s.ask(to, limit)
}

// ask asks the SOCKS service for the connection of s, and tells the server which it is.
func (s *stream) ask(to netip.AddrPort, limit time.Duration) error {
	reply, err := requestSOCKSWithin(s.client, commandConnect, to, limit)
	if err != nil {
		return err
	}
	if reply.code != granted {
		return fmt.Errorf("reply %d", reply.code)
	}
	_, err = s.client.Write(binary.BigEndian.AppendUint64(nil, s.number))
	return err
}

// dialSlow connects the client to the SOCKS service with a small window, in bytes, set
// before the connection is made: the first SYN tells how far it may grow. Without
// it the host's megabytes would take what is to wait in the router. usualWindow leaves it to the client's kernel.
func (r *router) dialSlow(window int, limit time.Duration) (*net.TCPConn, error) {
	return r.dialSlowFrom(clientAddress, window, limit)
}

// dialSlowFrom does so from one of the client's addresses.
func (r *router) dialSlowFrom(address string, window int, limit time.Duration) (*net.TCPConn, error) {
	var conn net.Conn
	from := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 0))
	err := r.n.on(client, func() (err error) {
		d := net.Dialer{Timeout: limit, LocalAddr: from, Control: func(_, _ string, raw syscall.RawConn) error {
			if window == usualWindow {
				return nil
			}
			var optErr error
			err := raw.Control(func(fd uintptr) {
				optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, window)
			})
			if err == nil {
				err = optErr
			}
			return err
		}}
		conn, err = d.Dial("tcp4", socksAddress)
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// sendNumbered is the server's end: it is told the stream's number, and sends.
func sendNumbered(conn *net.TCPConn, streams []*stream) {
	var number [8]byte
	if _, err := io.ReadFull(conn, number[:]); err != nil {
		return
	}
	s := streams[binary.BigEndian.Uint64(number[:])]
	s.server.Store(conn)
	buf := make([]byte, 16<<10)
	for at := int64(0); ; at += int64(len(buf)) {
		for i := 0; i < len(buf); i += 8 {
			binary.BigEndian.PutUint64(buf[i:], s.word((at+int64(i))/8))
		}
		if _, err := conn.Write(buf); err != nil {
			return
		}
	}
}

// receive is the client's end, which reads so many bytes each slowPause, at most.
func (s *stream) receive(most int) {
	fail := func(err error) { s.failed.Store(&err) }
	buf := make([]byte, most)
	last := time.Now()
	for {
		time.Sleep(slowPause)
		n, err := s.client.Read(buf)
		if err != nil {
			fail(fmt.Errorf("%w, %v after the byte before", err, time.Since(last).Round(time.Second)))
			return
		}
		s.silent.Store(max(s.silent.Load(), int64(time.Since(last))))
		last = time.Now()
		for _, b := range buf[:n] {
			at := s.read.Load()
			if want := byte(s.word(at/8) >> (56 - 8*(at%8))); b != want {
				fail(fmt.Errorf("byte %d is %#x, not %#x", at, b, want))
				return
			}
			s.read.Add(1)
		}
	}
}

// longestSilence is the longest that a stream has waited for a byte. The router
// closes what was silent for connection-idle-timeout.
func longestSilence(streams []*stream) time.Duration {
	longest := time.Duration(0)
	for _, s := range streams {
		longest = max(longest, time.Duration(s.silent.Load()))
	}
	return longest.Round(time.Second)
}

// sum returns what the streams have delivered, and what of them is in the router:
// acknowledged to the server, and not yet at the client.
func sum(streams []*stream) (delivered, held int64, err error) {
	for _, s := range streams {
		server := s.server.Load()
		if server == nil {
			continue // the number has not arrived yet
		}
		delivered += s.read.Load()
		// The client first: what passes between the two looks counts as held.
		there, err := tcpInfo(s.client)
		if err != nil {
			return 0, 0, err
		}
		here, err := tcpInfo(server)
		if err != nil {
			return 0, 0, err
		}
		const reply = 8 // of the router itself
		held += int64(here.Bytes_acked) - (int64(there.Bytes_received) - reply)
	}
	return delivered, held, nil
}

// tcpInfo is what the kernel tells about a connection.
func tcpInfo(conn *net.TCPConn) (*unix.TCPInfo, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var info *unix.TCPInfo
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		info, optErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); err != nil {
		return nil, err
	}
	if optErr != nil {
		return nil, fmt.Errorf("TCP_INFO: %w", optErr)
	}
	return info, nil
}

// freeMemory asks the router's console, and says how long the answer took, without the time
// for which this host let QEMU wait for a processor.
func (r *router) freeMemory(t *testing.T) (mebibytes float64, took time.Duration) {
	t.Helper()
	start, waited := time.Now(), r.m.waited(t)
	out := r.command(t, "/system resource print")
	took = max(0, time.Since(start)-(r.m.waited(t)-waited))
	word, err := find(out, `free-memory: ([\d.]+)MiB`)
	require.NoError(t, err)
	mebibytes, err = strconv.ParseFloat(word, 64)
	require.NoError(t, err)
	return mebibytes, took
}

// memoryPause is from one look at the memory to the next: a look takes some itself, until PID 1 collects its garbage.
const memoryPause = 3 * time.Second

// awaitFree waits until so many MiB are free, and logs how many are: PID 1 gives back what it took for a moment when it has
// nothing to do, which may be late on a busy host.
func (r *router) awaitFree(t *testing.T, least float64, when string) {
	t.Helper()
	var free float64
	require.NoError(t, retry(func() error {
		if free, _ = r.freeMemory(t); free < least {
			time.Sleep(memoryPause)
			return fmt.Errorf("%.1f MiB are free %s, not %.1f", free, when, least)
		}
		return nil
	}))
	t.Logf("%s: %.1f MiB are free %s", r.b.Name, free, when)
}

// connections counts those of the SOCKS service.
func (r *router) connections(t *testing.T) (int, error) {
	t.Helper()
	out := r.command(t, "/ip socks connections print")
	if !strings.HasPrefix(strings.TrimLeft(out, " "), "# SRC-ADDRESS") { // more items, wider numbers
		return 0, fmt.Errorf("connections cannot be listed: %s", out)
	}
	return strings.Count(out, "\n") - 1, nil
}
