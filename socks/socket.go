package socks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// none is no descriptor.
const none = -1

// The server's sockets are plain descriptors that do not block: one goroutine waits for them
// all, and Go's runtime spends nothing on each.
//
// What is done for each connection uses RawSyscall, here and in poller. None of these calls
// blocks, so Go's scheduler need not know of them, and they need no heap memory, unlike the
// addresses in the functions of package unix.

// newSocket returns a TCP socket.
func newSocket() (int, error) {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return none, fmt.Errorf("socket: %w", errno)
	}
	return int(fd), nil
}

// datagramsOn returns a UDP socket that is bound to a free port of the address local, and where
// it is bound.
func datagramsOn(local netip.Addr) (int, netip.AddrPort, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return none, netip.AddrPort{}, fmt.Errorf("socket for datagrams: %w", err)
	}
	var at netip.AddrPort
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: local.As4()}); err == nil {
		at, err = localAddr(fd)
	}
	if err != nil {
		unix.Close(fd)
		return none, netip.AddrPort{}, fmt.Errorf("bind a socket for datagrams to %s: %w", local, err)
	}
	return fd, at, nil
}

// closeSocket closes a socket (close(2)). The result is ignored: it does not tell whether
// the bytes arrived.
func closeSocket(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// endWriting ends what fd sends (shutdown(2)). It fails if fd has been reset.
func endWriting(fd int) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0); errno != 0 {
		return errno
	}
	return nil
}

// socketOption is an option for setsockopt(2).
type socketOption struct {
	name                string
	level, which, value int
}

func setOptions(fd int, options ...socketOption) error {
	for _, o := range options {
		value := int32(o.value)
		if _, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(o.level), uintptr(o.which),
			uintptr(unsafe.Pointer(&value)), unsafe.Sizeof(value), 0); errno != 0 {
			return fmt.Errorf("set %s: %w", o.name, errno)
		}
	}
	return nil
}

// prepare sets the options of a connection, or of a listener, from which connections inherit
// them: the urgent byte of TELNET stays at its place in the stream, and bytes are sent at
// once instead of waiting for more. They go in packets as long as the path takes (RFC 1191), also
// where sockets are not made so (net.ipv4.ip_no_pmtu_disc).
func prepare(fd int) error {
	return setOptions(fd,
		socketOption{"urgent data in line", unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
		socketOption{"no delay", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		socketOption{"discovery of the path's MTU", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_WANT})
}

// keepAlive has the kernel notice within 2 minutes that a peer has vanished, if the peer has
// acknowledged all that was sent to it. Otherwise the kernel sends that again, by default for
// some 15 minutes (tcp(7), tcp_retries2), and the idle timeout is mostly shorter.
//
// TCP_USER_TIMEOUT would bound that too. But the kernel compares it with a clock that goes on
// while the machine stands still: a connection that was just sending again when a stall began
// would be ended behind it, before anything is tried.
func keepAlive(fd int) error {
	return setOptions(fd,
		socketOption{"keepalive time", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
		socketOption{"keepalive interval", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
		socketOption{"keepalive probes", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
		socketOption{"keepalive", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1})
}

// askWhetherThere switches the probes of keepAlive on or off.
func askWhetherThere(fd int, on bool) error {
	value := 0
	if on {
		value = 1
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, value)
}

// acceptFrom returns a connection from the queue of a listener.
func acceptFrom(fd int) (int, netip.AddrPort, error) {
	for {
		var sa unix.RawSockaddrAny
		size := uint32(unsafe.Sizeof(sa))
		conn, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa)),
			uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			return int(conn), addrPort(&sa), nil
		case unix.EINTR, unix.ECONNABORTED:
		default:
			return none, netip.AddrPort{}, errno
		}
	}
}

// connect starts to connect fd to dst, or asks how far that is: it returns EINPROGRESS or
// EALREADY until fd is connected, and then nil.
func connect(fd int, dst netip.AddrPort) error {
	sa := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: dst.Addr().As4(), Port: hostOrder(dst.Port())}
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	switch errno {
	case 0, unix.EISCONN:
		return nil
	case unix.EINTR:
		return unix.EINPROGRESS
	}
	return errno
}

// listenOn returns a socket that listens on a free port of the address local, and the port.
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

// detach returns a descriptor of the socket of l, and closes l.
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

// localAddr returns the local address of fd.
func localAddr(fd int) (netip.AddrPort, error) {
	var sa unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(sa))
	if _, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)),
		uintptr(unsafe.Pointer(&size))); errno != 0 {
		return netip.AddrPort{}, fmt.Errorf("address of the socket: %w", errno)
	}
	return addrPort(&sa), nil
}

// addrPort converts an address. It is the zero AddrPort if it is not IPv4.
func addrPort(sa *unix.RawSockaddrAny) netip.AddrPort {
	switch sa.Addr.Family {
	case unix.AF_INET:
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), hostOrder(sa4.Port))
	case unix.AF_INET6: // of a listener that takes IPv4 and IPv6
		sa6 := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom16(sa6.Addr).Unmap(), hostOrder(sa6.Port))
	}
	return netip.AddrPort{}
}

// hostOrder converts a port from network byte order, as the kernel has it, and back.
func hostOrder(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

// receive is recv(2) of a TCP socket. With MSG_PEEK the bytes stay in the socket; with
// MSG_TRUNC they are discarded and p is not written to. The error is EAGAIN only if nothing has
// arrived: then the poller reports what comes.
//
// Where urgent data begins the kernel also says EAGAIN if a signal waits for the thread
// (tcp_recvmsg_locked in its net/ipv4/tcp.c), as those by which Go's scheduler takes a processor
// away, which the program of an image does without. The poller has reported these bytes already, and would not do so again.
func receive(fd int, p []byte, flags int) (int, error) {
	for {
		n, err := transfer(unix.SYS_RECVFROM, fd, p, flags)
		if err != unix.EAGAIN || arrived(fd) == 0 {
			return n, err
		}
	}
}

// arrived returns how many bytes of a TCP socket can be read (tcp(7), SIOCINQ).
func arrived(fd int) int { return queued(fd, unix.SIOCINQ) }

// outstanding returns how many bytes the peer of fd has not acknowledged yet, its end counting
// as one (tcp(7), SIOCOUTQ).
func outstanding(fd int) int { return queued(fd, unix.SIOCOUTQ) }

// queued returns what that request says of a TCP socket, 0 if nothing.
func queued(fd int, request uintptr) int {
	var n int32
	if _, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return 0
	}
	return int(n)
}

// discard removes len(p) bytes, which have arrived, by receive of their socket. It does not write to p.
func discard(p []byte, receive func(p []byte, flags int) (int, error)) error {
	for len(p) > 0 {
		n, err := receive(p, unix.MSG_TRUNC) // stops once where urgent data begins
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		p = p[n:]
	}
	return nil
}

// send is send(2). A peer that is gone is an error, not a signal.
func send(fd int, p []byte) (int, error) {
	return transfer(unix.SYS_SENDTO, fd, p, unix.MSG_NOSIGNAL)
}

// transfer is recvfrom(2) or sendto(2) without an address. The functions of package unix
// would allocate memory for one at every call.
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

// receiveFrom is recvfrom(2) of a UDP socket: the size of a datagram, of which p has as much as
// it has room for, and where it came from.
func receiveFrom(fd int, p []byte) (int, netip.AddrPort, error) {
	for {
		var sa unix.RawSockaddrAny
		size := uint32(unsafe.Sizeof(sa))
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
			uintptr(len(p)), unix.MSG_TRUNC, uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, netip.AddrPort{}, errno
		}
		return int(n), addrPort(&sa), nil
	}
}

// sendTo is sendto(2) of a UDP socket, which sends all of p or nothing.
func sendTo(fd int, p []byte, dst netip.AddrPort) error {
	sa := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: dst.Addr().As4(), Port: hostOrder(dst.Port())}
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
			uintptr(len(p)), unix.MSG_NOSIGNAL, uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
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

// The fields of SO_MEMINFO (sock_diag(7), idiag_mem and its extension), in bytes of the kernel's memory.
const (
	toRead       = 0
	sendBuffer   = 3
	toSend       = 5
	drops        = 8 // packets, not bytes
	memoryFields = 9
)

// memoryOf returns the fields of SO_MEMINFO for a socket.
func memoryOf(fd int) (info [memoryFields]uint32, errno syscall.Errno) {
	size := uint32(unsafe.Sizeof(info))
	_, _, errno = unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info, errno
}

// held returns how much memory the packets of a socket take, those that arrived out of their order too; 0 if
// there is no such socket.
func held(fd int) int {
	info, errno := memoryOf(fd)
	if errno != 0 {
		return 0
	}
	return int(info[toRead]) + int(info[toSend])
}

// room returns how many bytes the send buffer of a TCP socket has room for. It is 0 if the
// socket is so full that it is better to wait: then the poller reports when there is room.
func room(fd int) (int, error) {
	info, errno := memoryOf(fd)
	if errno != 0 {
		return 0, fmt.Errorf("room of the send buffer: %w", errno)
	}
	free := int(info[sendBuffer]) - int(info[toSend])
	// For the kernel a socket is writable if a third of the buffer is free. Calling poll(2)
	// makes it report the change.
	if free < int(info[toSend])/2 {
		p, now := unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT}, unix.Timespec{}
		n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
		if n == 0 && errno == 0 {
			return 0, nil
		}
	}
	// An empty buffer takes one segment, however small the buffer is.
	return max(free, 4096), nil
}

// reset makes the next close of fd reset its connection.
func reset(fd int) {
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// resetUnsent makes the next close of fd reset its connection, if the peer has not taken all
// that was sent.
func resetUnsent(fd int) {
	if outstanding(fd) > 0 {
		reset(fd)
	}
}
