package socks

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/testnet"
)

// withoutPipes makes the server copy, as it does when all pipes are held.
func withoutPipes(s *Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pipesMade = maxPipes
}

// TestStreams moves random bytes in both directions at once, to readers that stop now and
// then, and compares the bytes and the counters.
func TestStreams(t *testing.T) {
	const size, connections = 2 << 20, maxPipes
	for name, prepare := range map[string]func(*Server){
		"spliced":       func(*Server) {},
		"copied":        func(s *Server) { s.mu.Lock(); s.copies = true; s.mu.Unlock() },
		"without pipes": withoutPipes,
	} {
		t.Run(name, func(t *testing.T) {
			u := start(t, nil)
			prepare(u.Server)
			var all sync.WaitGroup
			stream := func(from, to client, seed byte) {
				want := make(chan [32]byte, 1)
				all.Go(func() {
					random := rand.NewChaCha8([32]byte{seed})
					h := sha256.New()
					_, err := io.CopyBuffer(io.MultiWriter(struct{ io.Writer }{from}, h), io.LimitReader(random, size), make([]byte, 50_001))
					assert.NoError(t, err)
					assert.NoError(t, from.CloseWrite())
					want <- [32]byte(h.Sum(nil))
				})
				all.Go(func() {
					h := sha256.New()
					b := make([]byte, 30_011)
					total := 0
					for i := 0; ; i++ {
						n, err := to.Read(b)
						h.Write(b[:n])
						total += n
						if err != nil {
							assert.ErrorIs(t, err, io.EOF)
							break
						}
						if i%50 == 0 {
							time.Sleep(5 * time.Millisecond) // let the buffers fill
						}
					}
					assert.Equal(t, size, total)
					assert.Equal(t, <-want, [32]byte(h.Sum(nil)))
				})
			}
			for i := range connections {
				near, far := u.connect(t)
				stream(near, far, byte(2*i))
				stream(far, near, byte(2*i+1))
			}
			all.Wait()
			for i := range connections {
				u.awaitLog(t, fmt.Sprintf("connection %d closed", i+1), fmt.Sprintf("tx=%d rx=%d", size, size), "both sides ended")
			}
			u.awaitCount(t, 0)
			u.Server.mu.Lock()
			defer u.Server.mu.Unlock()
			if name == "spliced" {
				// One pipe does for all, but for a step now and then that leaves bytes in it.
				assert.Less(t, u.pipesMade, connections, "each connection holds a pipe")
			}
			assert.Len(t, u.pipes, u.pipesMade%maxPipes, "no pipe is held")
		})
	}
}

// TestUrgentByteStaysInTheStream sends urgent bytes between others. The kernel's splice never
// moves past one.
func TestUrgentByteStaysInTheStream(t *testing.T) {
	u := start(t, nil)
	near, far := u.connect(t)
	near.send("ab")
	near.sendUrgent("!")
	near.send("cd")
	assert.Equal(t, "ab!cd", far.receive(5))

	// The last byte that is sent is the urgent one. A later mark replaces one that was not
	// read yet, but the bytes stay.
	var want bytes.Buffer
	for i := range 200 {
		text := fmt.Sprintf("%d\xff\xf2", i) // TELNET's IAC DM
		want.WriteString(text + "x")
		far.sendUrgent(text)
		far.send("x")
	}
	assert.Equal(t, want.String(), near.receive(want.Len()))
	large := bytes.Repeat([]byte("y"), 1<<20)
	go func() { far.Write(large) }()
	assert.True(t, string(large) == near.receive(len(large)), "after the urgent bytes")
}

// TestUrgentByteBeforeTheEnd sends streams that end behind an urgent byte. The kernel's splice
// reports an end at such a byte.
func TestUrgentByteBeforeTheEnd(t *testing.T) {
	bounded := func(o *options) { o.SocketMemory = 64 << 20 }
	for _, c := range []struct {
		name    string
		change  func(*options)
		prepare func(*Server)
		fast    bool // from the beginning
	}{
		{name: "spliced"},
		{name: "copied", change: bounded},
		{name: "spliced, with bounded memory", change: bounded, fast: true},
		{name: "without pipes", prepare: withoutPipes},
	} {
		t.Run(c.name, func(t *testing.T) {
			random := rand.NewChaCha8([32]byte{1})
			for _, before := range []int{0, 1, 1448, 100_000, 1_000_000} {
				// A server for ten streams: the log has no more lines at once.
				u := start(t, c.change)
				if c.prepare != nil {
					c.prepare(u.Server)
				}
				streams := 0
				for _, behind := range []int{0, 1, 1448, 60_000, 200_001} {
					for _, upload := range []bool{true, false} {
						near, far := u.connect(t)
						streams++
						if c.fast {
							u.Server.mu.Lock()
							u.conns[uint64(streams)].tx.fast, u.conns[uint64(streams)].rx.fast = true, true
							u.Server.mu.Unlock()
						}
						from, to := near, far
						if !upload {
							from, to = far, near
						}
						want := make([]byte, before+1+behind)
						random.Read(want)
						sent := make(chan error, 1)
						go func() {
							_, err := from.Write(want[:before])
							if err == nil {
								err = testnet.WriteUrgent(from.TCPConn, want[before:before+1])
							}
							if err == nil {
								_, err = from.Write(want[before+1:])
							}
							sent <- cmp.Or(err, from.CloseWrite())
						}()
						got, err := io.ReadAll(to)
						require.NoError(t, err)
						require.NoError(t, <-sent)
						assert.Equal(t, len(want), len(got), "%d bytes before the urgent byte, %d behind it, upload %v", before, behind, upload)
						assert.True(t, bytes.Equal(want, got), "%d bytes before the urgent byte, %d behind it, upload %v", before, behind, upload)
						to.send("x") // the other direction is still there
						assert.Equal(t, "x", from.receive(1))
						to.CloseWrite()
						from.ended()
						u.awaitCount(t, 0)
					}
				}
			}
		})
	}
}

// TestUrgentByteBeforeTheEndOfASlowStream is the same with a receiver that is slower than the
// sender: everything, the end too, waits for it in the source.
func TestUrgentByteBeforeTheEndOfASlowStream(t *testing.T) {
	for name, prepare := range map[string]func(*Server){"spliced": func(*Server) {}, "without pipes": withoutPipes} {
		t.Run(name, func(t *testing.T) {
			u := start(t, nil)
			prepare(u.Server)
			for i := range 20 {
				near, far := u.connect(t)
				var want bytes.Buffer
				stop := make(chan struct{})
				go func() { // fills all buffers
					defer close(stop)
					chunk := bytes.Repeat([]byte{'a'}, 1<<20)
					for range 8 {
						near.Write(chunk)
					}
					testnet.WriteUrgent(near.TCPConn, []byte("!"))
					near.Write(chunk[:10_000*i])
					near.CloseWrite()
				}()
				want.Write(bytes.Repeat([]byte{'a'}, 8<<20))
				want.WriteString("!")
				want.Write(bytes.Repeat([]byte{'a'}, 10_000*i))
				var got bytes.Buffer
				b := make([]byte, 100_003)
				for {
					n, err := far.Read(b)
					got.Write(b[:n])
					if err != nil {
						require.ErrorIs(t, err, io.EOF)
						break
					}
				}
				<-stop
				assert.Equal(t, want.Len(), got.Len())
				assert.True(t, bytes.Equal(want.Bytes(), got.Bytes()))
				near.Close()
				far.Close()
			}
		})
	}
}

// awaitFailure waits until the kernel reports that the connection has failed. A read does not
// tell that behind the end of the stream.
func (c client) awaitFailure() {
	c.t.Helper()
	raw, err := c.SyscallConn()
	require.NoError(c.t, err)
	var events int16
	require.NoError(c.t, raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}} // POLLERR and POLLHUP are always reported
		for {
			if _, err = unix.Poll(p, int(patience.Milliseconds())); err != unix.EINTR {
				break
			}
		}
		events = p[0].Revents
	}))
	require.NoError(c.t, err)
	require.NotZero(c.t, events&unix.POLLERR, "no error is reported: %#x", events)
}

// TestResetBehindTheEnd resets a connection one side of which had ended before, while the other
// is silent.
func TestResetBehindTheEnd(t *testing.T) {
	for _, c := range []struct {
		name     string
		upload   bool // the client ends, else the server
		together bool // the reset comes with the end
		reason   string
	}{
		{name: "of the client", upload: true, reason: "client to server: after its end: connection reset by peer"},
		{name: "of the server", reason: "server to client: after its end: connection reset by peer"},
		{name: "of the client, at once", upload: true, together: true, reason: "client to server: "},
		{name: "of the server, at once", together: true, reason: "server to client: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, nil)
			near, far := u.connect(t)
			from, to := near, far
			if !c.upload {
				from, to = far, near
			}
			from.send("the last")
			if c.together {
				u.Server.mu.Lock() // the loop sees both
			}
			require.NoError(t, from.CloseWrite())
			if !c.together {
				assert.Equal(t, "the last", to.receive(8))
				to.ended()
			}
			require.NoError(t, from.SetLinger(0))
			from.Close()
			if c.together {
				u.Server.mu.Unlock()
			}
			to.awaitFailure()
			u.awaitCount(t, 0)
			u.awaitLog(t, "connection 1 closed", c.reason)
		})
	}
}

// TestUnreadBytes checks that bytes that the sink does not take are kept, in a pipe or in the
// source, and arrive later.
func TestUnreadBytes(t *testing.T) {
	l := listen(t, "127.0.0.1")
	far := dial(t, l.Addr().String())
	near, err := l.File() // any descriptor will do to accept with
	require.NoError(t, err)
	defer near.Close()
	sink, _, err := acceptFrom(int(near.Fd()))
	require.NoError(t, err)
	defer unix.Close(sink)

	s := newServer(Options{}, defaultLimits())
	s.poller, err = newPoller()
	require.NoError(t, err)
	defer s.release()
	s.pipeSize = maxPipe
	f := flow{pipe: s.borrowPipe()}
	full := bytes.Repeat([]byte("z"), 256<<10)
	sent, received := 0, 0
	fill := func() {
		n, err := unix.Write(f.pipe.in, full)
		require.NoError(t, err)
		f.pipe.held += n
	}
	for held := false; !held; { // until the sink is full
		fill()
		for f.pipe != nil {
			n, p, err := s.flush(&f, sink)
			require.NoError(t, err)
			sent += n
			if held = p == atSink; held {
				break
			}
		}
		if f.pipe == nil {
			f.pipe = s.borrowPipe()
		}
	}
	n, p, err := s.step(&f, none, sink, unlimited)
	require.NoError(t, err)
	assert.Zero(t, n)
	assert.Equal(t, atSink, p)

	want := sent + f.pipe.held
	for received < want {
		b := make([]byte, 1<<20)
		n, err := far.Read(b)
		require.NoError(t, err)
		received += n
		if f.pipe != nil {
			_, _, err := s.flush(&f, sink)
			require.NoError(t, err)
		}
	}
	assert.Nil(t, f.pipe)
	assert.Len(t, s.pipes, 1, "given back when it is empty")

	// Bytes in a pipe that is given back must not get into another connection.
	f.pipe = s.borrowPipe()
	fill()
	s.dropPipe(&f)
	assert.Nil(t, f.pipe)
	assert.Empty(t, s.pipes)
	assert.Zero(t, s.pipesMade)
}

// TestCopyRefused checks that bytes that were read, but not taken by a sink that seemed to
// have room, are kept and arrive in their order.
func TestCopyRefused(t *testing.T) {
	pair := func() (end int, other client) {
		l := listen(t, "127.0.0.1")
		other = dial(t, l.Addr().String())
		file, err := l.File()
		require.NoError(t, err)
		defer file.Close()
		end, _, err = acceptFrom(int(file.Fd()))
		require.NoError(t, err)
		t.Cleanup(func() { unix.Close(end) })
		return end, other
	}
	source, from := pair()
	sink, to := pair()
	s := newServer(Options{}, defaultLimits())
	var err error
	s.poller, err = newPoller()
	require.NoError(t, err)
	defer s.release()
	s.pipeSize = minPipe

	sent := 0
	for filler := bytes.Repeat([]byte("z"), 1<<20); ; {
		n, err := send(sink, filler)
		if err == unix.EAGAIN {
			break
		}
		require.NoError(t, err)
		sent += n
	}
	from.send("behind the rest")
	f := flow{room: scratchSize}
	require.Eventually(t, func() bool {
		_, p, err := s.step(&f, source, sink, unlimited)
		return err == nil && p == atSink
	}, patience, time.Millisecond)
	require.NotNil(t, f.pipe)
	assert.Equal(t, 15, f.pipe.held)
	assert.Zero(t, f.moved)

	to.receive(sent)
	require.Eventually(t, func() bool {
		_, _, err := s.step(&f, source, sink, unlimited)
		return err == nil && f.pipe == nil
	}, patience, time.Millisecond)
	assert.Equal(t, "behind the rest", to.receive(15))
	assert.Len(t, s.pipes, 1, "given back")
}

// TestResetBehindUnreadBytes resets a connection whose bytes the other side does
// not take.
func TestResetBehindUnreadBytes(t *testing.T) {
	u := start(t, nil)
	near, far := u.connect(t)
	chunk := make([]byte, 1<<20)
	for {
		near.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := near.Write(chunk); err != nil {
			break
		}
	}
	require.NoError(t, near.SetLinger(0))
	near.Close()
	u.awaitCount(t, 0)
	far.wasReset()
	u.awaitLog(t, "closed", "client to server: read: connection reset")
}

// TestCloseBehindUnreadBytes checks that the kernel keeps nothing of a connection that the
// server closes: a receiver that does not read is reset.
func TestCloseBehindUnreadBytes(t *testing.T) {
	u := start(t, nil)
	near, far := u.connect(t)
	chunk := make([]byte, 1<<20)
	for {
		far.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := far.Write(chunk); err != nil {
			break
		}
	}
	require.NoError(t, u.CloseConnection(1))
	near.wasReset()
	u.awaitLog(t, "connection 1 closed", `reason="removed"`)
}

// TestFairness checks that the stream of one connection does not delay a single byte of
// another.
func TestFairness(t *testing.T) {
	u := start(t, nil)
	stop := make(chan struct{})
	var streams sync.WaitGroup
	for range 4 {
		near, far := u.connect(t)
		for c, work := range map[client]func(c net.Conn, b []byte) (int, error){near: net.Conn.Read, far: net.Conn.Write} {
			streams.Go(func() {
				b := make([]byte, 1<<20)
				for {
					if _, err := work(c, b); err != nil {
						return
					}
					select {
					case <-stop:
						c.Close()
						return
					default:
					}
				}
			})
		}
	}
	near, far := u.connect(t)
	for range 50 {
		near.send("x")
		assert.Equal(t, "x", far.receive(1))
	}
	close(stop)
	streams.Wait()
}
