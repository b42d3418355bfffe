package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A visit is a connection through a server, a byte to the target and back, and the
// close. As load generators do, one loop makes all of them, and one is their target:
// a thread for each would cost as much as a fast server does, and hide what servers
// differ in.

// visits keeps as many visits under way as there are addresses until limit, and
// returns the milliseconds that each took but for its close, and what made others
// fail.
func (s *server) visits(ctx context.Context, port uint16, limit time.Time) (latencies []float64, failures []error, err error) {
	w, err := newWaiter()
	if err != nil {
		return nil, nil, err
	}
	defer w.close()
	under := map[int]*visit{} // by descriptor
	defer func() {
		for fd := range under {
			unix.Close(fd)
		}
	}()
	end := func(v *visit, err error) {
		if err != nil {
			failures = append(failures, err)
		} else {
			latencies = append(latencies, time.Since(v.start).Seconds()*1e3)
		}
		if v.fd >= 0 {
			delete(under, v.fd)
			unix.Close(v.fd)
		}
	}
	// begin makes the next visit of an address, or none when time is up.
	begin := func(n int) {
		for ctx.Err() == nil && time.Now().Before(limit) {
			v := &visit{address: n, fd: -1, start: time.Now()}
			if err := v.begin(s, netip.AddrPortFrom(address(n), port), w); err != nil {
				end(v, err)
				continue
			}
			under[v.fd] = v
			return
		}
	}
	for n := range addresses {
		begin(n)
	}
	late := time.Now().Add(patience)
	for len(under) > 0 && ctx.Err() == nil {
		ready, err := w.wait(1000)
		if err != nil {
			return nil, nil, err
		}
		for _, fd := range ready {
			v := under[fd]
			if v == nil {
				continue
			}
			if done, err := v.advance(); done || err != nil {
				end(v, err)
				begin(v.address)
			}
		}
		if now := time.Now(); now.After(late) {
			late = now.Add(time.Second)
			for _, v := range under {
				if now.Sub(v.start) > patience {
					end(v, fmt.Errorf("not done in %v", patience))
					begin(v.address)
				}
			}
		}
	}
	return latencies, failures, ctx.Err()
}

// visit is one that is under way.
type visit struct {
	address int
	fd      int
	start   time.Time
	// turns are those that are left; of the first, said tells whether the question
	// is sent, and got is what has come of the answer.
	turns []turn
	said  bool
	got   []byte
}

func (v *visit) begin(s *server, to netip.AddrPort, w *waiter) (err error) {
	first := s.addr
	if s.socks == 0 {
		first = to
	}
	v.turns = append(handshakeTurns(s.socks, to), echoTurn(byte(v.start.Nanosecond()/1000)))
	v.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		v.fd = -1
		return fmt.Errorf("socket: %w", err)
	}
	if err := unix.SetsockoptInt(v.fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return fmt.Errorf("choose the port late: %w", err)
	}
	if err := unix.Bind(v.fd, &unix.SockaddrInet4{Addr: address(v.address).As4()}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	err = unix.Connect(v.fd, &unix.SockaddrInet4{Addr: first.Addr().As4(), Port: int(first.Port())})
	if err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("connect: %w", err)
	}
	return w.add(v.fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLET)
}

// advance does what can be done without waiting.
func (v *visit) advance() (done bool, err error) {
	for {
		t := &v.turns[0]
		if !v.said {
			// Of so little all is taken, or nothing.
			_, err := unix.Write(v.fd, t.question)
			if err == unix.EAGAIN {
				return false, nil // it is not connected yet
			}
			if err != nil {
				return false, fmt.Errorf("%swrite: %w", t.of, err)
			}
			v.said = true
			return false, nil // the answer takes a while, and is an event
		}
		answer := make([]byte, t.size-len(v.got))
		n, err := unix.Read(v.fd, answer)
		if err == unix.EAGAIN {
			return false, nil
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return false, fmt.Errorf("%sread: %w", t.of, err)
		}
		if v.got = append(v.got, answer[:n]...); len(v.got) < t.size {
			continue
		}
		if err := t.check(v.got); err != nil {
			return false, fmt.Errorf("%s%w", t.of, err)
		}
		v.turns, v.said, v.got = v.turns[1:], false, nil
		if len(v.turns) == 0 {
			return true, nil
		}
	}
}

// receiveVisits is the other end of all visits, on a port of every address.
func receiveVisits(port uint16) error {
	w, err := newWaiter()
	if err != nil {
		return err
	}
	defer w.close()
	listeners := map[int]bool{}
	for n := range addresses {
		l, err := listen(netip.AddrPortFrom(address(n), port))
		if err != nil {
			return err
		}
		defer unix.Close(l)
		if err := w.add(l, unix.EPOLLIN); err != nil {
			return err
		}
		listeners[l] = true
	}
	var b [1]byte
	for {
		ready, err := w.wait(-1)
		if err != nil {
			return err
		}
		for _, fd := range ready {
			if listeners[fd] {
				conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
				if err == unix.EAGAIN || err == unix.ECONNABORTED || err == unix.EINTR {
					continue
				}
				if err != nil {
					return fmt.Errorf("accept: %w", err)
				}
				if err := w.add(conn, unix.EPOLLIN); err != nil {
					return err
				}
				continue
			}
			n, err := unix.Read(fd, b[:])
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if err == nil && n == 1 {
				_, err = unix.Write(fd, b[:])
			}
			if err != nil || n == 0 {
				unix.Close(fd)
			}
		}
	}
}

func listen(at netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())})
	}
	if err == nil {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		return 0, fmt.Errorf("listen on %s: %w", at, err)
	}
	return fd, nil
}

// waiter waits for many descriptors (epoll(7)), on a thread of its own.
type waiter struct {
	epoll  int
	events [64]unix.EpollEvent
	ready  []int
}

func newWaiter() (*waiter, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	runtime.LockOSThread()
	return &waiter{epoll: epoll}, nil
}

func (w *waiter) close() {
	runtime.UnlockOSThread()
	unix.Close(w.epoll)
}

func (w *waiter) add(fd int, events uint32) error {
	if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// wait returns the descriptors that are ready, or none after so many milliseconds, if
// that is not -1. The list is good until the next call.
func (w *waiter) wait(milliseconds int) ([]int, error) {
	n, err := unix.EpollWait(w.epoll, w.events[:], milliseconds)
	if err != nil && err != unix.EINTR {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	w.ready = w.ready[:0]
	for _, e := range w.events[:max(n, 0)] {
		w.ready = append(w.ready, int(e.Fd))
	}
	return w.ready, nil
}

// turn is a question, and what its answer of a size must be.
type turn struct {
	of       string // what begins an error: "SOCKS4: "
	question []byte
	size     int
	check    func(answer []byte) error
}

// handshakeTurns ask a server of a SOCKS version to connect, 0 for none.
func handshakeTurns(version int, to netip.AddrPort) []turn {
	ip := to.Addr().As4()
	port := []byte{byte(to.Port() >> 8), byte(to.Port())}
	switch version {
	case 4:
		return []turn{{"SOCKS4: ", bytes.Join([][]byte{{4, 1}, port, ip[:], {0}}, nil), 8, func(reply []byte) error {
			if reply[0] != 0 || reply[1] != 90 {
				return fmt.Errorf("reply % x", reply)
			}
			return nil
		}}}
	case 5:
		return []turn{{"SOCKS5: ", []byte{5, 1, 0}, 2, func(method []byte) error {
			if method[0] != 5 || method[1] != 0 {
				return fmt.Errorf("method % x", method)
			}
			return nil
		}}, {"SOCKS5: ", bytes.Join([][]byte{{5, 1, 0, 1}, ip[:], port}, nil), 10, func(reply []byte) error {
			if reply[0] != 5 || reply[1] != 0 || reply[3] != 1 {
				return fmt.Errorf("reply % x", reply)
			}
			return nil
		}}}
	}
	return nil
}

// echoTurn is a byte to the target and back.
func echoTurn(b byte) turn {
	return turn{"echo: ", []byte{b}, 1, func(reply []byte) error {
		if reply[0] != b {
			return fmt.Errorf("%#x came back as %#x", b, reply[0])
		}
		return nil
	}}
}

// take has the turns on a connection that waits, one after the other.
func take(conn io.ReadWriter, turns ...turn) error {
	for _, t := range turns {
		if _, err := conn.Write(t.question); err != nil {
			return fmt.Errorf("%s%w", t.of, err)
		}
		answer := make([]byte, t.size)
		if _, err := io.ReadFull(conn, answer); err != nil {
			return fmt.Errorf("%s%w", t.of, err)
		}
		if err := t.check(answer); err != nil {
			return fmt.Errorf("%s%w", t.of, err)
		}
	}
	return nil
}
