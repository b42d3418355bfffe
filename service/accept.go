package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Acceptor accepts the connections of a process that starts OnConnection, until there has been none for some
// time. Later connections wait in the kernel's queue for the next process, because PID 1 has the listening
// socket too.
type Acceptor struct {
	child   *Child
	admit   func(*net.TCPConn) (serve func())
	serving sync.WaitGroup // the accepting, and each connection
	over    chan struct{}  // closed when there was none for long enough

	activity // whose mu guards the rest, too
	listener *net.TCPListener
	ended    bool
}

// NewAcceptor returns an Acceptor that ends when there has been no connection for idle, or with the Context of
// the Child, which ends the connections too. admit is called for each connection and returns the function that
// serves it in a goroutine of its own, or nil if the connection is to be closed. The next connection is accepted when
// admit has returned.
func (c *Child) NewAcceptor(idle time.Duration, admit func(*net.TCPConn) (serve func())) *Acceptor {
	a := &Acceptor{child: c, admit: admit, over: make(chan struct{})}
	// The deadline ends accept when no connection is being accepted; closing the listener here could lose one.
	a.activity = activity{idle: idle, end: func() {
		if a.listener != nil {
			_ = a.listener.SetDeadline(time.Now())
		}
	}}
	a.wait()
	return a
}

// Listen accepts connections to l from now on, no longer those to an earlier listener. The Acceptor closes l.
func (a *Acceptor) Listen(l *net.TCPListener) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		l.Close()
		return
	}
	a.closeListener()
	a.listener = l
	if a.in == 0 {
		a.stop()
		a.wait()
	}
	a.serving.Go(func() { a.accept(l) })
}

// Wait returns when the Acceptor has ended and all connections have been served.
func (a *Acceptor) Wait() {
	select {
	case <-a.over:
	case <-a.child.ctx.Done():
	}
	a.mu.Lock()
	a.ended = true
	a.closeListener()
	a.stop()
	a.mu.Unlock()
	a.serving.Wait()
}

// closeListener closes the listener, if there is one. The caller holds mu.
func (a *Acceptor) closeListener() {
	if a.listener != nil {
		a.listener.Close()
		a.listener = nil
	}
}

func (a *Acceptor) accept(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		switch {
		case err == nil:
			if serve := a.admit(conn); serve != nil {
				a.serve(conn, serve)
			} else {
				conn.Close()
			}
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			if a.endIfIdle(l) {
				return
			}
		default:
			// It stays in the queue. There is no event for when there is room again.
			a.child.Logf("accept: %v", err)
			select {
			case <-time.After(acceptPause):
			case <-a.child.ctx.Done():
			}
		}
	}
}

func (a *Acceptor) serve(conn net.Conn, serve func()) {
	a.enter()
	a.serving.Go(func() {
		defer a.leave()
		defer conn.Close()
		defer context.AfterFunc(a.child.ctx, func() { conn.Close() })()
		serve()
	})
}

// Hold keeps the Acceptor from ending for want of connections until release is called, as a connection does.
func (a *Acceptor) Hold() (release func()) {
	a.enter()
	return sync.OnceFunc(a.leave)
}

// endIfIdle reports whether accepting at l is over.
func (a *Acceptor) endIfIdle(l *net.TCPListener) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.listener != l {
		return true
	}
	if a.in > 0 {
		_ = l.SetDeadline(time.Time{})
		return false
	}
	a.ended = true
	a.closeListener()
	close(a.over)
	return true
}

// acceptPause is from one attempt to accept a connection to the next, while the kernel lacks
// something.
const acceptPause = time.Second

// activity calls end when nobody has been in for the time idle.
type activity struct {
	idle time.Duration
	end  func()

	mu   sync.Mutex
	in   int
	stop func() // the waiting, if it goes on
}

func (a *activity) enter() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.in++
	a.stop()
}

func (a *activity) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.in--; a.in == 0 {
		a.wait()
	}
}

// wait begins to wait for the end. The caller holds mu, or alone has a.
func (a *activity) wait() {
	a.stop = afterRunning(realClock{}, a.idle, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.in == 0 {
			a.end()
		}
	})
}

// backlog is how many connections the kernel holds until they are accepted.
const backlog = 128

// Listen returns a TCP socket that listens on addr (IPv4; 0.0.0.0 for all own
// addresses), for Desired.Listeners. Unlike a net.Listener's it is not in this process's
// poller, which would wake at each connection that the process accepts.
func Listen(addr netip.AddrPort) (*os.File, error) {
	if !addr.Addr().Is4() {
		return nil, fmt.Errorf("listen on %s: not an IPv4 address", addr)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		// Connections inherit it. Sockets are made otherwise since netcfg has set net.ipv4.ip_no_pmtu_disc.
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_WANT)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())})
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return os.NewFile(uintptr(fd), "listener on "+addr.String()), nil
}
