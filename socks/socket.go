package socks

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// none is no descriptor.
const none = -1

// The server's sockets are bare descriptors that do not block: one goroutine
// waits for them all, and nothing of the Go runtime is spent on each.

// newSocket returns a TCP socket.
func newSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return none, fmt.Errorf("socket: %w", err)
	}
	return fd, nil
}

// prepare sets the options of a connection with a client or a server, or of a
// listener, whose connections inherit them: the urgent byte of TELNET stays in
// its place in the stream, nothing waits to be joined with later bytes, and a
// peer that is gone is noticed (after 2 minutes).
func prepare(fd int) error {
	for _, o := range []struct {
		name                 string
		level, option, value int
	}{
		{"urgent data in line", unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
		{"no delay", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"keepalive time", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
		{"keepalive interval", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
		{"keepalive probes", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
		{"keepalive", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.option, o.value); err != nil {
			return fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	return nil
}

// acceptFrom returns a connection from the queue of a listener.
func acceptFrom(fd int) (int, netip.AddrPort, error) {
	for {
		conn, sa, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == unix.EINTR || err == unix.ECONNABORTED:
		case err != nil:
			return none, netip.AddrPort{}, err
		default:
			return conn, addrPort(sa), nil
		}
	}
}

// connect begins to connect fd to dst, or goes on: it returns EINPROGRESS or
// EALREADY while that takes, and nil once fd is connected.
func connect(fd int, dst netip.AddrPort) error {
	err := unix.Connect(fd, &unix.SockaddrInet4{Addr: dst.Addr().As4(), Port: int(dst.Port())})
	if err == unix.EISCONN {
		return nil
	}
	if err == unix.EINTR {
		return unix.EINPROGRESS
	}
	return err
}

// listenOn returns a socket that listens on a free port of local, and the port.
func listenOn(local netip.Addr) (int, uint16, error) {
	fd, err := newSocket()
	if err != nil {
		return none, 0, err
	}
	err = prepare(fd)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: local.As4()})
	}
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	var at netip.AddrPort
	if err == nil {
		at, err = localAddr(fd)
	}
	if err != nil {
		unix.Close(fd)
		return none, 0, fmt.Errorf("listen for a call on %s: %w", local, err)
	}
	return fd, at.Port(), nil
}

// detach returns the descriptor of l for the server's own use, and closes l.
func detach(l *net.TCPListener) (int, error) {
	defer l.Close()
	raw, err := l.SyscallConn()
	if err != nil {
		return none, err
	}
	fd, dupErr := none, error(nil)
	err = raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, dupErr); err != nil {
		return none, fmt.Errorf("take over the listener: %w", err)
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err == nil && protocol != unix.IPPROTO_TCP {
		err = errors.New("it is not plain TCP: see net.ListenConfig.SetMultipathTCP")
	}
	if err = errors.Join(err, unix.SetNonblock(fd, true), prepare(fd)); err != nil {
		unix.Close(fd)
		return none, fmt.Errorf("listener: %w", err)
	}
	return fd, nil
}

// localAddr returns the address of this end of fd.
func localAddr(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address of the socket: %w", err)
	}
	return addrPort(sa), nil
}

// addrPort returns an IPv4 address as netip has it.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6: // of a listener that takes both
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// receive is recv(2) of a TCP socket. With MSG_PEEK the bytes stay; with
// MSG_TRUNC they are dropped and p is not written to.
func receive(fd int, p []byte, flags int) (int, error) {
	return transfer(unix.SYS_RECVFROM, fd, p, flags)
}

// send is send(2). A peer that is gone is an error, not a signal.
func send(fd int, p []byte) (int, error) {
	return transfer(unix.SYS_SENDTO, fd, p, unix.MSG_NOSIGNAL)
}

// transfer is recvfrom(2) or sendto(2) without an address, for which the
// functions of package unix would allocate room at every call.
//
// Here and below RawSyscall spares telling Go's scheduler of calls that do not
// wait.
func transfer(call uintptr, fd int, p []byte, flags int) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
			uintptr(len(p)), uintptr(flags), 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), nil
	}
}

// splice moves up to n bytes between a socket and a pipe.
func splice(from, to, n int) (int, error) {
	for {
		moved, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n),
			unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		switch errno {
		case 0:
			return int(moved), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// room returns how many bytes the send buffer of a TCP socket has room for, and
// 0 if the socket is so full that it is better to wait: then the poller reports
// when it no longer is.
func room(fd int) (int, error) {
	// The fields of SO_MEMINFO (sock_diag(7), idiag_mem and its extension).
	const (
		sendBuffer = 3
		queued     = 5
		fields     = 9
	)
	var info [fields]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, fmt.Errorf("room of the send buffer: %w", errno)
	}
	free := int(info[sendBuffer]) - int(info[queued])
	// What the kernel calls writable: a third of the buffer is free. Asking by
	// poll(2) makes it report the change.
	if free < int(info[queued])/2 {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(p, 0); n == 0 && err == nil {
			return 0, nil
		}
	}
	// An empty buffer takes a segment however small it is.
	return max(free, 4096), nil
}

// reset makes the close of fd a reset of its connection.
func reset(fd int) {
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// resetUnsent makes the close of fd a reset if its peer has not taken all that it
// was sent. The kernel would go on offering that, for minutes and in memory that
// no bound of the server counts.
func resetUnsent(fd int) {
	if n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ); err == nil && n > 0 {
		reset(fd)
	}
}

// hangUp closes fd so that its peer can still read what was sent: bytes that
// have arrived unread would turn the close into a reset.
func hangUp(fd int) {
	unix.Shutdown(fd, unix.SHUT_WR)
	for range 64 {
		if n, err := receive(fd, make([]byte, maxRequest), unix.MSG_TRUNC); n <= 0 || err != nil {
			break
		}
	}
	unix.Close(fd)
}
