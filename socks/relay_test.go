package socks

import (
	"bytes"
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
	urgent := func(c client, text string) {
		raw, err := c.SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), []byte(text), unix.MSG_OOB, nil) }))
		require.NoError(t, err)
	}
	near.send("ab")
	urgent(near, "!")
	near.send("cd")
	assert.Equal(t, "ab!cd", far.receive(5))

	// The last byte that is sent is the urgent one. A later mark replaces one that was not
	// read yet, but the bytes stay.
	var want bytes.Buffer
	for i := range 200 {
		text := fmt.Sprintf("%d\xff\xf2", i) // TELNET's IAC DM
		want.WriteString(text + "x")
		urgent(far, text)
		far.send("x")
	}
	assert.Equal(t, want.String(), near.receive(want.Len()))
	large := bytes.Repeat([]byte("y"), 1<<20)
	go func() { far.Write(large) }()
	assert.True(t, string(large) == near.receive(len(large)), "after the urgent bytes")
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
	n, p, err := s.step(&f, none, sink)
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
		_, p, err := s.step(&f, source, sink)
		return err == nil && p == atSink
	}, patience, time.Millisecond)
	require.NotNil(t, f.pipe)
	assert.Equal(t, 15, f.pipe.held)
	assert.Zero(t, f.moved)

	to.receive(sent)
	require.Eventually(t, func() bool {
		_, _, err := s.step(&f, source, sink)
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
