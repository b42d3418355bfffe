package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/resolve"
)

const (
	// port is the port of name servers.
	port = 53
	// maxQuery is how many bytes a query has at most over TCP, and maxDatagram over UDP.
	maxQuery, maxDatagram = 4096, safeSize
	// sessionIdle is how long a TCP connection of a client waits for the next query, for the rest
	// of one or for the client to take an answer, sessionQueries how many it can ask.
	sessionIdle    = 10 * time.Second
	sessionQueries = 100
	// pause is from an error of a socket to the next attempt.
	pause = 100 * time.Millisecond
)

// serveUDP answers what comes to a socket, from the address that was asked, until it is closed.
func (s *server) serveUDP(conn *net.UDPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return // it is closed
	}
	b := newBatch()
	n := 0
	receive := func(fd uintptr) bool {
		n, err = b.receive(fd)
		return err != unix.EAGAIN
	}
	send := func(fd uintptr) bool { b.send(fd); return true }
	for {
		switch closed := raw.Read(receive); {
		case closed != nil:
			return
		case err == unix.EINTR:
			continue
		case err != nil:
			time.Sleep(pause)
			continue
		}
		for i := range n {
			message, from, control := b.datagram(i)
			if message == nil {
				continue
			}
			answer, later := s.take(message, from.Addr(), false, &b.scratch[i])
			if answer != nil {
				b.answer(i, answer)
			}
			if later != nil {
				source := slices.Clone(control)
				fromAsked(source)
				s.wait(later, func(answer []byte) {
					if answer != nil {
						// What cannot be sent is lost, as on a cable: the client asks again.
						_, _, _ = conn.WriteMsgUDPAddrPort(answer, source, from)
					}
				})
			}
		}
		if b.answers > 0 && raw.Write(send) != nil {
			return
		}
	}
}

// serveTCP answers the connections of a listener until it is closed.
func (s *server) serveTCP(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(pause)
			continue
		}
		from, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
		client := from.Addr().Unmap()
		s.mu.Lock()
		ok := s.sessions.enter(client, s.config.MaxSessions)
		s.mu.Unlock()
		if !ok {
			conn.Close()
			continue
		}
		s.work.Go(func() {
			defer func() {
				conn.Close()
				s.mu.Lock()
				defer s.mu.Unlock()
				s.sessions.leave(client)
			}()
			defer context.AfterFunc(s.ctx, func() { conn.Close() })()
			s.session(conn, client)
		})
	}
}

// session answers one connection, a query after the other.
func (s *server) session(conn net.Conn, client netip.Addr) {
	var m scratch
	for range sessionQueries {
		if conn.SetDeadline(time.Now().Add(sessionIdle)) != nil {
			return
		}
		b, err := resolve.ReadTCP(conn, maxQuery)
		if err != nil {
			return
		}
		answer, later := s.take(b, client, true, &m)
		if later != nil {
			replies := make(chan []byte, 1)
			s.wait(later, func(b []byte) { replies <- b })
			answer = <-replies // at the latest when the time for upstream servers is over
		}
		if answer == nil || conn.SetDeadline(time.Now().Add(sessionIdle)) != nil || resolve.WriteTCP(conn, answer) != nil {
			return
		}
	}
}

// Listen opens the sockets that the server answers at, UDP and TCP, for Configure: port 53 of all
// addresses, as who may reach it is the firewall's to say.
func Listen() (udp, tcp *os.File, err error) {
	return ListenAt(netip.AddrPortFrom(netip.IPv4Unspecified(), port))
}

// ListenAt is Listen for another address and port. The sockets are not in this process's poller, which would wake at each question.
func ListenAt(at netip.AddrPort) (udp, tcp *os.File, err error) {
	if udp, err = socketAt(at, unix.SOCK_DGRAM); err != nil {
		return nil, nil, err
	}
	if tcp, err = socketAt(at, unix.SOCK_STREAM); err != nil {
		udp.Close()
		return nil, nil, err
	}
	return udp, tcp, nil
}

func socketAt(at netip.AddrPort, typ int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if typ == unix.SOCK_STREAM {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	} else {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())})
	}
	if err == nil && typ == unix.SOCK_STREAM {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("listen for DNS on "+at.String(), err)
	}
	return os.NewFile(uintptr(fd), "DNS at "+at.String()), nil
}
