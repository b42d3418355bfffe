package socks

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bufferSize is the most that one step of a relay moves, in bytes.
const bufferSize = 32 << 10

type buffer [bufferSize]byte

// meter counts what a connection moves. Its clock starts with the connection.
type meter struct {
	born time.Time
	tx   atomic.Uint64 // bytes, client to server
	rx   atomic.Uint64 // bytes, server to client
	last atomic.Int64  // when anything last moved, as nanoseconds since born
}

// touch ends a silence.
func (m *meter) touch() { m.last.Store(int64(time.Since(m.born))) }

// lastMoved returns when the silence began.
func (m *meter) lastMoved() time.Time { return m.born.Add(time.Duration(m.last.Load())) }

// relay moves bytes between client and remote, both ways, until each way has
// come to its end, and returns nil; or until one side fails or ctx ends, and
// returns why (the cause of ctx). early is what the client sent behind its
// request. After the failure of one side, closing the other resets it; the
// caller closes both.
//
// io.Copy is not used: between TCP connections it holds a pipe of 1 MiB and four
// descriptors more a connection, and tells nobody what it moves.
func relay(ctx context.Context, buffers *sync.Pool, client, remote *net.TCPConn, early []byte, m *meter) error {
	both, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(both, func() {
		client.SetDeadline(longAgo)
		remote.SetDeadline(longAgo)
	})
	defer stop()

	back := make(chan struct{})
	go func() {
		defer close(back)
		if err := pump(buffers, client, remote, m, &m.rx); err != nil {
			cancel(fmt.Errorf("server to client: %w", err))
		}
	}()
	var err error
	if len(early) > 0 {
		var n int
		n, err = remote.Write(early)
		m.tx.Add(uint64(n))
		m.touch()
	}
	if err == nil {
		err = pump(buffers, remote, client, m, &m.tx)
	}
	if err != nil {
		cancel(fmt.Errorf("client to server: %w", err))
	}
	<-back

	if err := context.Cause(both); err != nil {
		if ctx.Err() == nil {
			client.SetLinger(0)
			remote.SetLinger(0)
		}
		return err
	}
	return nil
}

// longAgo is a deadline that ends whatever waits.
var longAgo = time.Unix(1, 0)

// pump moves bytes from src to dst until the end of src, which it passes on as
// the end of dst.
//
// It looks at what the kernel has received, offers it to dst, and takes from
// src what dst took. So bytes wait in the kernel's bounded buffers alone: a
// buffer of ours is held for the moment of a step, not while src is silent or
// dst is slow.
func pump(buffers *sync.Pool, dst, src *net.TCPConn, m *meter, moved *atomic.Uint64) error {
	in, err := src.SyscallConn()
	if err != nil {
		return err
	}
	out, err := dst.SyscallConn()
	if err != nil {
		return err
	}

	var (
		b        *buffer
		n        int   // bytes seen in src
		w        int   // bytes of them that dst took
		readErr  error // of the last step
		writeErr error
	)
	write := func(fd uintptr) bool {
		w, writeErr = ignoringEINTR(func() (int, error) { return unix.Write(int(fd), b[:n]) })
		return true
	}
	step := func(fd uintptr) bool {
		b = buffers.Get().(*buffer)
		defer buffers.Put(b)
		w, writeErr = 0, nil
		n, readErr = ignoringEINTR(func() (int, error) { return receive(int(fd), b[:], unix.MSG_PEEK) })
		if readErr == unix.EAGAIN {
			return false // wait for more, without the buffer
		}
		if readErr != nil || n == 0 {
			return true
		}
		if err := out.Write(write); err != nil {
			writeErr = err
		}
		if w > 0 {
			_, readErr = ignoringEINTR(func() (int, error) { return receive(int(fd), b[:w], unix.MSG_TRUNC) })
		}
		return true
	}

	for {
		if err := in.Read(step); err != nil {
			return err
		}
		if w > 0 {
			moved.Add(uint64(w))
			m.touch()
		}
		switch {
		case readErr != nil:
			return fmt.Errorf("read: %w", readErr)
		case writeErr != nil && writeErr != unix.EAGAIN:
			return fmt.Errorf("write: %w", writeErr)
		case n == 0:
			if err := dst.CloseWrite(); err != nil {
				return fmt.Errorf("close for writing: %w", err)
			}
			return nil
		case w < n:
			if err := out.Write(writable); err != nil {
				return err
			}
		}
	}
}

// writable reports whether a write to fd would not block. A loop of
// RawConn.Write that asks it waits until then: it has to ask the kernel each
// time, because the loop forgets what the poller said before it began.
func writable(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(p, 0)
	return n != 0 || err != nil
}

// receive is recv(2) of a TCP socket without waiting. With MSG_PEEK the bytes
// stay; with MSG_TRUNC they are dropped and p is not written to.
//
// unix.Recvfrom would allocate room for an address at every call.
func receive(fd int, p []byte, flags int) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)), uintptr(flags|unix.MSG_DONTWAIT), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// awaitEnd waits until conn has been closed by its peer or has failed, and
// returns why. It returns nil when there is data, which it leaves, and when the
// read deadline of conn passes.
func awaitEnd(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, readErr = ignoringEINTR(func() (int, error) { return receive(int(fd), b[:], unix.MSG_PEEK) })
		return readErr != unix.EAGAIN
	})
	switch {
	case err != nil:
		return nil
	case readErr != nil:
		return readErr
	case n == 0:
		return io.EOF
	}
	return nil
}

// reply sends the 8 bytes of a reply. It never waits, deadline or not: they are
// the first or second 8 bytes that the socket has to send.
func reply(conn *net.TCPConn, b []byte) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	var writeErr error
	if err := raw.Control(func(fd uintptr) {
		_, writeErr = ignoringEINTR(func() (int, error) { return unix.Write(int(fd), b) })
	}); err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	if writeErr != nil {
		return fmt.Errorf("reply: %w", writeErr)
	}
	return nil
}

// hangUp closes conn so that its peer can still read what was sent: bytes that
// have arrived unread would turn the close into a reset.
func hangUp(conn *net.TCPConn) {
	conn.CloseWrite()
	if raw, err := conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			var b [maxRequest]byte
			for range 64 {
				if n, err := receive(int(fd), b[:], 0); n <= 0 || err != nil {
					return
				}
			}
		})
	}
	conn.Close()
}

// prepare sets the options of a connection with a client or a server: the
// urgent byte of TELNET stays in its place in the stream, nothing waits to be
// joined with later bytes, and a peer that is gone is noticed.
func prepare(conn *net.TCPConn) error {
	err := conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4})
	if err != nil {
		return fmt.Errorf("set keepalive: %w", err)
	}
	if err := conn.SetNoDelay(true); err != nil {
		return fmt.Errorf("set no delay: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	}); err != nil {
		return err
	}
	if optErr != nil {
		return fmt.Errorf("set urgent data in line: %w", optErr)
	}
	return nil
}
