package neighbor

import (
	"fmt"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
)

// Open opens a packet socket on the interface of that index, for ether.NewConn. It gets the announcements by a
// protocol that come to this machine or to all. It needs CAP_NET_RAW.
func Open(index int, protocol string) (*os.File, error) {
	if protocol == MNDP {
		return dhcp.OpenUDP(index, Port)
	}
	f, err := ether.Open(index, EtherType, []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: unix.PACKET_MULTICAST, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: ether.MaxFrame},
	})
	if err != nil {
		return nil, fmt.Errorf("packet socket for LLDP: %w", err)
	}
	// Else the card drops them.
	group := unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_MULTICAST, Alen: uint16(len(Group))}
	copy(group.Address[:], Group[:])
	raw, err := f.SyscallConn()
	if err == nil {
		var failure error
		err = raw.Control(func(fd uintptr) {
			failure = unix.SetsockoptPacketMreq(int(fd), unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &group)
		})
		if err == nil {
			err = os.NewSyscallError("setsockopt", failure)
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("packet socket for LLDP: %w", err)
	}
	return f, nil
}
