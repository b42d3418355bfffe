package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A visit is a connection through a server, a byte to the target and back, and the close. One
// loop makes all visits and is their target. A thread for each, or a process for each side,
// would cost as much as a fast server does, and hide the differences between servers.

// visits keeps as many visits under way as there are addresses, until limit. It returns how
// many milliseconds each took, without its close, and the errors of those that failed. Their
// target is the port, or the loop itself if that is 0.
func (s *server) visits(ctx context.Context, port uint16, limit time.Time) (latencies []float64, failures []error, err error) {
	w, err := newWaiter()
	if err != nil {
		return nil, nil, err
	}
	defer w.close()
	var host *host
	if port == 0 {
		if host, err = newHost(w); err != nil {
			return nil, nil, err
		}
		defer host.close()
		port = host.port
	}
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
				if host != nil {
					err = errors.Join(err, host.serve(fd))
				}
				continue
			}
			if done, err := v.advance(); done || err != nil {
				end(v, err)
				begin(v.address)
			}
		}
		if err != nil {
			return nil, nil, err
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

// visit is a visit that is under way.
type visit struct {
	address int
	fd      int
	start   time.Time
	// turns are those that are left. Of the first one, said tells whether the question has
	// been sent, and got is the part of the answer that has come.
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

// advance does everything that can be done without waiting.
func (v *visit) advance() (done bool, err error) {
	for {
		t := &v.turns[0]
		if !v.said {
			// The kernel takes all of so few bytes, or nothing.
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

// host is the other end of visits, on a port of every address.
type host struct {
	port      uint16
	waiter    *waiter
	listeners map[int]bool // descriptors
	guests    map[int]bool
}

func newHost(w *waiter) (*host, error) {
	free, err := freePort()
	if err != nil {
		return nil, err
	}
	h := &host{port: free.Port(), waiter: w, listeners: map[int]bool{}, guests: map[int]bool{}}
	for n := range addresses {
		l, err := listen(netip.AddrPortFrom(address(n), h.port))
		if err == nil {
			h.listeners[l] = true
			err = w.add(l, unix.EPOLLIN)
		}
		if err != nil {
			h.close()
			return nil, err
		}
	}
	return h, nil
}

func (h *host) close() {
	for _, all := range []map[int]bool{h.listeners, h.guests} {
		for fd := range all {
			unix.Close(fd)
		}
	}
}

// serve does everything that can be done without waiting, if fd is the host's.
func (h *host) serve(fd int) error {
	switch {
	case h.listeners[fd]:
		guest, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err == unix.EAGAIN || err == unix.ECONNABORTED || err == unix.EINTR {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		h.guests[guest] = true
		return h.waiter.add(guest, unix.EPOLLIN)
	case h.guests[fd]:
		var b [1]byte
		n, err := unix.Read(fd, b[:])
		if err == unix.EAGAIN || err == unix.EINTR {
			return nil
		}
		if err == nil && n == 1 {
			_, err = unix.Write(fd, b[:])
		}
		if err != nil || n == 0 { // a visit that failed is counted where it was made
			delete(h.guests, fd)
			unix.Close(fd)
		}
	}
	return nil
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

// waiter waits for many descriptors (epoll(7)), with a thread of its own.
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

// wait returns the descriptors that are ready, or none after that many milliseconds; -1 is
// without a limit. The list is valid until the next call.
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

// turn is a question, the size of its answer, and what that must be.
type turn struct {
	of       string // what begins an error: "SOCKS4: "
	question []byte
	size     int
	check    func(answer []byte) error
}

// handshakeTurns returns the turns that ask a server to connect, by its SOCKS version; 0 is no
// proxy.
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

// take has the turns on a blocking connection, one after the other.
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
