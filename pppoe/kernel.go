package pppoe

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
)

// OpenDiscovery opens a packet socket on the interface of that index. It gets the answers of access
// concentrators: PADO, PADS and PADT that came to this machine. It needs CAP_NET_RAW.
func OpenDiscovery(index int) (*os.File, error) {
	f, err := ether.Open(index, ether.PPPoEDiscovery, []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: ether.PPPoEDiscovery, SkipTrue: 6},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_HOST, SkipTrue: 4},
		bpf.LoadAbsolute{Off: ether.Header + 1, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: codePADO, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: codePADS, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: codePADT, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: ether.MaxFrame},
	})
	if err != nil {
		return nil, fmt.Errorf("packet socket for PPPoE: %w", err)
	}
	return f, nil
}

// pppDevice is the kernel's PPP (Documentation/networking/ppp_generic.rst). To open it needs
// CAP_NET_ADMIN.
const pppDevice = "/dev/ppp"

// protocolPPPoE is PX_PROTO_OE of linux/if_pppox.h.
const protocolPPPoE = 0

// Channel is a session in the kernel. While it is open the kernel takes the session's packets.
type Channel struct {
	socket int
	// Control is read and written by packets of PPP, each behind its protocol: those of LCP and of
	// the password, and until there is a Unit all others too.
	Control *os.File
}

// OpenChannel opens a session over an interface, by the kernel's name.
func OpenChannel(device string, s Session) (*Channel, error) {
	fd, err := unix.Socket(unix.AF_PPPOX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocolPPPoE)
	if err != nil {
		return nil, fmt.Errorf("open the session: %w", os.NewSyscallError("socket", err))
	}
	c := &Channel{socket: fd}
	err = os.NewSyscallError("connect", unix.Connect(fd, &unix.SockaddrPPPoE{SID: s.ID, Remote: s.Server[:], Dev: device}))
	var number int
	if err == nil {
		number, err = unix.IoctlGetInt(fd, unix.PPPIOCGCHAN)
	}
	if err == nil {
		c.Control, err = openPPP()
	}
	if err == nil {
		err = control(c.Control, func(fd int) error {
			return os.NewSyscallError("PPPIOCATTCHAN", unix.IoctlSetPointerInt(fd, unix.PPPIOCATTCHAN, number))
		})
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("open the session: %w", err)
	}
	return c, nil
}

// Close ends the session in the kernel. The server is not told.
func (c *Channel) Close() {
	if c.Control != nil {
		c.Control.Close()
	}
	unix.Close(c.socket)
}

// OpenUnit makes an interface that sends and receives by the session: make makes it for a descriptor
// of /dev/ppp. It is gone when the file, which is read by packets of IPCP and others of the kind, is
// closed everywhere.
func (c *Channel) OpenUnit(make func(fd int) error) (*os.File, error) {
	f, err := openPPP()
	if err != nil {
		return nil, fmt.Errorf("make the interface: %w", err)
	}
	var unit int
	err = control(f, func(fd int) (err error) {
		// The kernel refuses while somebody else makes one.
		for range unitTries {
			if err = make(fd); !errors.Is(err, unix.EBUSY) {
				break
			}
		}
		if err == nil {
			unit, err = unix.IoctlGetInt(fd, unix.PPPIOCGUNIT)
		}
		return err
	})
	if err == nil {
		err = control(c.Control, func(fd int) error {
			return os.NewSyscallError("PPPIOCCONNECT", unix.IoctlSetPointerInt(fd, unix.PPPIOCCONNECT, unit))
		})
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make the interface: %w", err)
	}
	return f, nil
}

const unitTries = 100

func openPPP() (*os.File, error) {
	fd, err := unix.Open(pppDevice, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", pppDevice, err)
	}
	return os.NewFile(uintptr(fd), pppDevice), nil
}

// control calls f with the descriptor of a file, which stays as it is.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	if err := raw.Control(func(fd uintptr) { failure = f(int(fd)) }); err != nil {
		return err
	}
	return failure
}
