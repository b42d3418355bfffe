package dhcp

import (
	"fmt"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
)

// OpenUDP opens a packet socket on the interface of that index, for ether.NewConn. It gets UDP datagrams
// over IPv4 to port that came to this machine or to all, whole ones; no others, and none that this
// machine sends. It needs CAP_NET_RAW.
func OpenUDP(index int, port uint16) (*os.File, error) {
	f, err := ether.Open(index, ether.IPv4, []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: ether.IPv4, SkipTrue: 9},
		// Those of a VLAN that is not configured here, and those to others on a link that
		// shows them, are none of this machine's.
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: unix.PACKET_MULTICAST, SkipTrue: 7},
		bpf.LoadAbsolute{Off: ether.Header + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolUDP, SkipTrue: 5},
		bpf.LoadAbsolute{Off: ether.Header + 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3FFF, SkipTrue: 3},
		bpf.LoadMemShift{Off: ether.Header},
		bpf.LoadIndirect{Off: ether.Header + 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: ether.MaxFrame},
	})
	if err != nil {
		return nil, fmt.Errorf("packet socket for UDP port %d: %w", port, err)
	}
	return f, nil
}

// OpenARP opens a packet socket on the interface of that index, for ether.NewConn. It gets the ARP packets
// that came to this machine or to all. It needs CAP_NET_RAW.
func OpenARP(index int) (*os.File, error) {
	f, err := ether.Open(index, ether.ARP, []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: ether.ARP, SkipTrue: 2},
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

// Park opens a UDP socket on port of the interface device (the kernel's name), which drops all that
// comes. While it is open the kernel does not reply to such datagrams that the port is
// unreachable, and no other program gets them. It needs
// CAP_NET_BIND_SERVICE, and CAP_NET_RAW before Linux 5.7.
func Park(device string, port uint16) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("UDP port %d: %w", port, os.NewSyscallError("socket", err))
	}
	err = ether.SetFilter(fd, []bpf.Instruction{bpf.RetConstant{Val: 0}})
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
