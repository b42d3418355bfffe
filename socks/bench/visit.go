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
// would cost as much as a fast server does, and hide the differences between servers. So would
// a loop that makes a system call more than it has to: where other programs keep the processors
// busy, the loop and the server share one, and what the loop takes is added to both sides of
// every ratio.

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
	var all [addresses]visit
	under := make([]*visit, descriptors) // by descriptor; nil if it is none of a visit
	count := 0
	defer func() {
		for i := range all {
			all[i].close(under)
		}
	}()
	// next ends a visit, successfully if err is nil, and makes the next one of its address, or
	// none when time is up.
	next := func(v *visit, err error) {
		for {
			now := time.Now()
			if err != nil {
				failures = append(failures, err)
			} else {
				latencies = append(latencies, now.Sub(v.start).Seconds()*1e3)
			}
			v.close(under)
			if now.After(limit) || ctx.Err() != nil {
				count--
				return
			}
			if err = v.begin(now, under, w); err == nil {
				return
			}
		}
	}
	for n := range all {
		v := &all[n]
		v.fd = -1
		to := netip.AddrPortFrom(address(n), port)
		v.first = s.reachedAt(n, to)
		v.turns = append(s.turns(to), echoTurn(0))
		count++
		if err := v.begin(time.Now(), under, w); err != nil {
			next(v, err)
		}
	}
	late := time.Now().Add(patience)
	for count > 0 && ctx.Err() == nil {
		ready, err := w.wait(1000)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range ready {
			v := under[e.Fd]
			if v == nil {
				if host != nil {
					err = errors.Join(err, host.serve(int(e.Fd), e.Events))
				}
				continue
			}
			if done, err := v.advance(); done || err != nil {
				next(v, err)
			}
		}
		if err != nil {
			return nil, nil, err
		}
		if now := time.Now(); now.After(late) {
			late = now.Add(time.Second)
			for i := range all {
				if v := &all[i]; v.fd >= 0 && now.Sub(v.start) > patience {
					next(v, fmt.Errorf("not done in %v", patience))
				}
			}
		}
	}
	return latencies, failures, ctx.Err()
}

// reachedAt returns where number n connects to in order to reach a target. A server listens on
// all addresses, so each has ports of its own towards it; Linux connects from 127.0.0.1.
func (s *server) reachedAt(n int, to netip.AddrPort) netip.AddrPort {
	if s.version == 0 {
		return to
	}
	return netip.AddrPortFrom(address(n), s.addr.Port())
}

// visit is a visit that is under way, or the place for one. It is used again, so that a visit
// needs no memory.
type visit struct {
	first netip.AddrPort // what it connects to
	turns []turn
	fd    int // -1: none
	start time.Time
	// turn is the one that is due: said tells whether its question has been sent, and got is
	// the part of its answer that has come.
	turn   int
	said   bool
	got    int
	answer [maxAnswer]byte
}

// begin connects, and asks the first question if the connection is made at once.
func (v *visit) begin(now time.Time, under []*visit, w *waiter) error {
	v.start, v.turn, v.said, v.got = now, 0, false, 0
	v.turns[len(v.turns)-1].question[0]++ // another byte for the echo
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if fd >= len(under) {
		unix.Close(fd)
		return fmt.Errorf("socket: descriptor %d is more than the limit", fd)
	}
	v.fd, under[fd] = fd, v
	if err := delayAcknowledgements(fd); err != nil {
		return err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: v.first.Addr().As4(), Port: int(v.first.Port())})
	if err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("connect: %w", err)
	}
	// On loopback it mostly is connected by now. (What has come before add is an event, too.)
	if _, err := v.advance(); err != nil {
		return err
	}
	return w.add(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLET)
}

func (v *visit) close(under []*visit) {
	if v.fd >= 0 {
		under[v.fd] = nil
		unix.Close(v.fd)
		v.fd = -1
	}
}

// advance does everything that can be done without waiting.
func (v *visit) advance() (done bool, err error) {
	for {
		t := &v.turns[v.turn]
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
		n, err := unix.Read(v.fd, v.answer[v.got:t.size])
		if err == unix.EAGAIN {
			return false, nil
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return false, fmt.Errorf("%sread: %w", t.of, err)
		}
		if v.got += n; v.got < t.size {
			continue
		}
		if err := t.check(v.answer[:t.size]); err != nil {
			return false, fmt.Errorf("%s%w", t.of, err)
		}
		v.turn, v.said, v.got = v.turn+1, false, 0
		if v.turn == len(v.turns) {
			return true, nil
		}
	}
}

// host is the other end of visits, on a port of every address.
type host struct {
	port      uint16
	waiter    *waiter
	listeners map[int]bool // descriptors
	guests    map[int]bool // whether their byte has been answered
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
func (h *host) serve(fd int, events uint32) error {
	switch {
	case h.listeners[fd]:
		guest, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err == unix.EAGAIN || err == unix.ECONNABORTED || err == unix.EINTR {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		h.guests[guest] = false
		return h.waiter.add(guest, unix.EPOLLIN|unix.EPOLLRDHUP)
	default:
		answered, ok := h.guests[fd]
		if !ok {
			return nil
		}
		// The end behind the byte needs no look.
		if ended := answered && events&unix.EPOLLRDHUP != 0; !ended {
			var b [1]byte
			n, err := unix.Read(fd, b[:])
			if err == unix.EAGAIN || err == unix.EINTR {
				return nil
			}
			if err == nil && n == 1 {
				_, err = unix.Write(fd, b[:])
			}
			if err == nil && n == 1 {
				h.guests[fd] = true
				return nil
			}
		}
		// A visit that failed is counted where it was made.
		delete(h.guests, fd)
		unix.Close(fd)
	}
	return nil
}

// delayAcknowledgements has a socket, and those that a listener accepts, acknowledge with the
// next bytes that they send (tcp(7), TCP_QUICKACK), which here follow at once. New connections
// otherwise acknowledge each segment by one of its own: two for each visit, and none of them
// is the server's doing.
func delayAcknowledgements(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0); err != nil {
		return fmt.Errorf("delay acknowledgements: %w", err)
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
	if err == nil {
		err = delayAcknowledgements(fd) // listen(2) would undo it (inet_csk_listen_start)
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

// wait returns the events of descriptors that are ready, or none after that many milliseconds;
// -1 is without a limit. The list is valid until the next call.
func (w *waiter) wait(milliseconds int) ([]unix.EpollEvent, error) {
	n, err := unix.EpollWait(w.epoll, w.events[:], milliseconds)
	if err != nil && err != unix.EINTR {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return w.events[:max(n, 0)], nil
}

// maxAnswer is the size of the longest answer, in bytes.
const maxAnswer = 10

// turn is a question, the size of its answer, and what that must be.
type turn struct {
	of       string // what begins an error: "SOCKS4: "
	question []byte
	size     int // of the answer, at most maxAnswer
	check    func(answer []byte) error
}

// dialect is how a server is spoken to.
type dialect struct {
	version  int  // of SOCKS, 0 for no proxy at all
	password bool // with userName and userPassword (RFC 1929)
}

// The user of a server that asks for a password.
const (
	userName     = "bench"
	userPassword = "correct horse battery staple"
)

// turns returns those that ask a server to connect.
func (d dialect) turns(to netip.AddrPort) []turn {
	ip := to.Addr().As4()
	port := []byte{byte(to.Port() >> 8), byte(to.Port())}
	switch d.version {
	case 4:
		return []turn{{"SOCKS4: ", bytes.Join([][]byte{{4, 1}, port, ip[:], {0}}, nil), 8, func(reply []byte) error {
			if reply[0] != 0 || reply[1] != 90 {
				return fmt.Errorf("reply % x", reply)
			}
			return nil
		}}}
	case 5:
		method := byte(0)
		if d.password {
			method = 2
		}
		all := []turn{{"SOCKS5: ", []byte{5, 1, method}, 2, func(reply []byte) error {
			if reply[0] != 5 || reply[1] != method {
				return fmt.Errorf("method % x", reply)
			}
			return nil
		}}}
		if d.password {
			login := bytes.Join([][]byte{{1, byte(len(userName))}, []byte(userName), {byte(len(userPassword))}, []byte(userPassword)}, nil)
			all = append(all, turn{"SOCKS5: ", login, 2, func(reply []byte) error {
				if reply[0] != 1 || reply[1] != 0 {
					return fmt.Errorf("password: % x", reply)
				}
				return nil
			}})
		}
		return append(all, turn{"SOCKS5: ", bytes.Join([][]byte{{5, 1, 0, 1}, ip[:], port}, nil), 10, func(reply []byte) error {
			if reply[0] != 5 || reply[1] != 0 || reply[3] != 1 {
				return fmt.Errorf("reply % x", reply)
			}
			return nil
		}})
	}
	return nil
}

// echoTurn is a byte to the target and back: the one that its question holds at that time.
func echoTurn(b byte) turn {
	question := []byte{b}
	return turn{"echo: ", question, 1, func(reply []byte) error {
		if reply[0] != question[0] {
			return fmt.Errorf("%#x came back as %#x", question[0], reply[0])
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
