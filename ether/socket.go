package ether

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// receiveBuffer is how many bytes a packet socket keeps of what nobody has read; the kernel counts
// its own part of each packet, too, and allows twice as much for it.
const receiveBuffer = 32 << 10

// Open opens a packet socket on the interface of that index for an Ethernet protocol, for NewConn:
// program says which frames it gets, nil all. It needs CAP_NET_RAW.
func Open(index int, protocol uint16, program []bpf.Instruction) (*os.File, error) {
	// With protocol 0 it gets nothing until it is bound, behind its filter.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if program == nil {
		program = []bpf.Instruction{bpf.RetConstant{Val: MaxFrame}}
	}
	err = SetFilter(fd, program)
	if err == nil {
		err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1))
	}
	if err == nil {
		network := binary.BigEndian.AppendUint16(nil, protocol)
		err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(network), Ifindex: index}))
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packet socket"), nil
}

// SetFilter gives a socket a filter for good (bpf(4), in the classic form), and a small receive buffer.
func SetFilter(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	for option, value := range map[int]int{unix.SO_LOCK_FILTER: 1, unix.SO_RCVBUF: receiveBuffer} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// Conn reads and writes the frames of a socket of Open, in whatever process. Its
// methods may be called from several goroutines.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
}

// NewConn takes over the socket file.
func NewConn(file *os.File) (*Conn, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Conn{file, raw}, nil
}

// Close ends Read, too.
func (c *Conn) Close() error { return c.file.Close() }

// SetReadDeadline is as net.Conn's: Read fails with os.ErrDeadlineExceeded then.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.file.SetReadDeadline(t) }

// Read waits for a frame, and puts it into b, which has MaxFrame bytes. sumReady is false if its
// UDP checksum is yet to be computed: it comes from this machine, or from the host of this virtual
// one, and was on no cable (PACKET_AUXDATA, packet(7)). An interface that was set down is an error
// that Temporary knows; Read can be called again.
func (c *Conn) Read(b []byte) (n int, sumReady bool, err error) {
	var failure error
	err = c.raw.Read(func(fd uintptr) bool {
		n, sumReady, failure = receive(fd, b)
		return failure != unix.EAGAIN && failure != unix.EINTR
	})
	if err == nil {
		err = os.NewSyscallError("recvmsg", failure)
	}
	if err != nil {
		return 0, false, err
	}
	return n, sumReady, nil
}

// ReadNow is Read of a frame that is there. If there is none the error is one that Temporary knows.
func (c *Conn) ReadNow(b []byte) (n int, sumReady bool, err error) {
	var failure error
	err = c.raw.Control(func(fd uintptr) { n, sumReady, failure = receive(fd, b) })
	if err == nil {
		err = os.NewSyscallError("recvmsg", failure)
	}
	if err != nil {
		return 0, false, err
	}
	return n, sumReady, nil
}

// receive takes a frame from a socket that does not wait.
func receive(fd uintptr, b []byte) (n int, sumReady bool, err error) {
	var control [128]byte
	n, got, _, _, err := unix.Recvmsg(int(fd), b, control[:], 0)
	if err != nil {
		return 0, false, err
	}
	return n, sumIsReady(control[:got]), nil
}

// ReadAll gives each frame to take, which must not keep it, until the socket is closed or fails for
// good.
func (c *Conn) ReadAll(take func(frame []byte, sumReady bool)) {
	b := make([]byte, MaxFrame)
	for {
		n, sumReady, err := c.Read(b)
		switch {
		case err == nil:
			take(b[:n], sumReady)
		case !Temporary(err):
			return
		}
	}
}

func sumIsReady(control []byte) bool {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return true
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= int(unsafe.Sizeof(uint32(0))) {
			// struct tpacket_auxdata of linux/if_packet.h begins with the status.
			return binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_CSUMNOTREADY == 0
		}
	}
	return true
}

// Write sends a frame over the interface of the socket. It does not wait: where the interface has
// no room the frame is lost, as on a cable.
func (c *Conn) Write(frame []byte) error {
	var failure error
	err := c.raw.Control(func(fd uintptr) {
		failure = unix.Send(int(fd), frame, unix.MSG_DONTWAIT)
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("send", failure)
}

// Temporary reports whether an error of Read or Write is that of an interface that is down, or has
// no room now: it can be up again, and the socket then works.
func Temporary(err error) bool {
	return errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENETUNREACH)
}
