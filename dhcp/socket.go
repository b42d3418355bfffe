package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
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

// OpenUDP opens a packet socket on the interface of that index, for Conn. It gets UDP datagrams
// over IPv4 to port that came to this machine or to all, whole ones; no others, and none that this
// machine sends. It needs CAP_NET_RAW.
func OpenUDP(index int, port uint16) (*os.File, error) {
	f, err := OpenPackets(index, etherIPv4, []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherIPv4, SkipTrue: 9},
		// Those of a VLAN that is not configured here, and those to others on a link that
		// shows them, are none of this machine's.
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: unix.PACKET_MULTICAST, SkipTrue: 7},
		bpf.LoadAbsolute{Off: etherHeader + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolUDP, SkipTrue: 5},
		bpf.LoadAbsolute{Off: etherHeader + 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3FFF, SkipTrue: 3},
		bpf.LoadMemShift{Off: etherHeader},
		bpf.LoadIndirect{Off: etherHeader + 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: MaxFrame},
	})
	if err != nil {
		return nil, fmt.Errorf("packet socket for UDP port %d: %w", port, err)
	}
	return f, nil
}

// OpenARP opens a packet socket on the interface of that index, for Conn. It gets the ARP packets
// that came to this machine or to all. It needs CAP_NET_RAW.
func OpenARP(index int) (*os.File, error) {
	f, err := OpenPackets(index, etherARP, []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherARP, SkipTrue: 2},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: unix.PACKET_MULTICAST, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 64},
	})
	if err != nil {
		return nil, fmt.Errorf("packet socket for ARP: %w", err)
	}
	return f, nil
}

// OpenPackets opens a packet socket on the interface of that index for an Ethernet protocol, for Conn:
// program says which frames it gets, nil all. It needs CAP_NET_RAW.
func OpenPackets(index int, protocol uint16, program []bpf.Instruction) (*os.File, error) {
	// With protocol 0 it gets nothing until it is bound, behind its filter.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if program == nil {
		program = []bpf.Instruction{bpf.RetConstant{Val: MaxFrame}}
	}
	err = setUp(fd, program)
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

// setUp gives a socket its filter for good and its receive buffer.
func setUp(fd int, program []bpf.Instruction) error {
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

// Park opens a UDP socket on port of the interface device (the kernel's name), which drops all that
// comes. While it is open the kernel does not reply to such datagrams that the port is
// unreachable, and no other program gets them. It needs
// CAP_NET_BIND_SERVICE, and CAP_NET_RAW before Linux 5.7.
func Park(device string, port uint16) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("UDP port %d: %w", port, os.NewSyscallError("socket", err))
	}
	err = setUp(fd, []bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err == nil {
		err = os.NewSyscallError("setsockopt", unix.BindToDevice(fd, device))
	}
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet4{Port: int(port)}))
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("UDP port %d on %s: %w", port, device, err)
	}
	return os.NewFile(uintptr(fd), "UDP socket"), nil
}

// Conn reads and writes the frames of a socket of OpenUDP or OpenARP, in whatever process. Its
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
	var control [128]byte
	var got int
	var failure error
	err = c.raw.Read(func(fd uintptr) bool {
		n, got, _, _, failure = unix.Recvmsg(int(fd), b, control[:], 0)
		return failure != unix.EAGAIN && failure != unix.EINTR
	})
	if err == nil {
		err = os.NewSyscallError("recvmsg", failure)
	}
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
