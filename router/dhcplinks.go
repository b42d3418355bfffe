package router

import (
	"encoding/binary"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
)

// This file has what the DHCP client and the DHCP server share: the interfaces that they work on.

// linkLook is how often it is looked whether these interfaces are still the same.
const linkLook = 5 * time.Second

// dhcpLink is an interface with a server or a client.
type dhcpLink struct {
	index int
	mac   ether.MAC
	// sockets are for UDP, for ARP with a client, and the one that keeps the kernel from answering.
	sockets []*os.File
}

func (l *dhcpLink) close() {
	for _, f := range l.sockets {
		f.Close()
	}
}

// ifreq is struct ifreq (netdevice(7)).
type ifreq struct {
	name  [unix.IFNAMSIZ]byte
	value [24]byte // a number of 32 bits, or struct sockaddr
}

// findLink returns an interface of the kernel that has an Ethernet address. It is looked for every few seconds, and leaves no
// garbage: package net reads a list of all interfaces with all that the kernel knows of each, 20 KB a time.
func findLink(name string) (int, ether.MAC, bool) {
	var r ifreq
	if len(name) >= len(r.name) || strings.ContainsAny(name, ":\x00") { // the kernel would look for the part in front of that
		return 0, ether.MAC{}, false
	}
	copy(r.name[:], name)
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, ether.MAC{}, false
	}
	defer unix.Close(socket)
	ask := func(what uintptr) bool {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(socket), what, uintptr(unsafe.Pointer(&r)))
		return errno == 0
	}
	if !ask(unix.SIOCGIFINDEX) {
		return 0, ether.MAC{}, false
	}
	index := int(int32(binary.NativeEndian.Uint32(r.value[:])))
	if !ask(unix.SIOCGIFHWADDR) || binary.NativeEndian.Uint16(r.value[:]) != unix.ARPHRD_ETHER {
		return 0, ether.MAC{}, false
	}
	mac := ether.MAC(r.value[2:])
	return index, mac, mac != ether.MAC{}
}

// openSockets opens all of them or none.
func openSockets(all ...func() (*os.File, error)) ([]*os.File, error) {
	var sockets []*os.File
	for _, open := range all {
		f, err := open()
		if err != nil {
			(&dhcpLink{sockets: sockets}).close()
			return nil, err
		}
		sockets = append(sockets, f)
	}
	return sockets, nil
}
