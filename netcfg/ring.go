package netcfg

import (
	"errors"
	"io/fs"
	"maps"
	"math/bits"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ringShare is the part of memory that the packets of one device's receive ring may take: 64
// packets on 32 MB. A driver fills its rings when the device is set up, and asks for 256 packets and
// more on any machine.
const ringShare = 200

// packetMemory is what a packet of a receive ring takes, in bytes: two share a page.
const packetMemory = 2 << 10

// receiveRing is how many packets the receive ring of a device may have, a power of two, on a
// machine with that much memory in bytes.
func receiveRing(memory uint64) uint32 {
	packets := max(1, memory/ringShare/packetMemory)
	return 1 << min(31, bits.Len64(packets)-1)
}

// ringParameters is struct ethtool_ringparam (linux/ethtool.h): how many packets the rings of a
// device can have and have. A mini ring and a jumbo ring are for packets of other sizes.
type ringParameters struct {
	command                                uint32
	maxReceive, maxMini, maxJumbo, maxSend uint32
	receive, mini, jumbo, send             uint32
}

// ringRequest has a device's driver read or write its ringParameters.
func ringRequest(name string, p *ringParameters) error { return ethtool(name, unsafe.Pointer(p)) }

// ethtool has a device's driver carry out a request of linux/ethtool.h, which begins with its command.
func ethtool(name string, data unsafe.Pointer) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// struct ifreq (netdevice(7)): a name and a union of 16 bytes, 24 where pointers have eight.
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte
	}{data: data}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}

// shortenRings shortens the receive rings that are longer than memory allows, before the devices are
// set up. What a driver refuses is told once.
func (m *Manager) shortenRings(links []link) {
	maps.DeleteFunc(m.ringsSeen, func(index int, _ bool) bool {
		return !slices.ContainsFunc(links, func(l link) bool { return l.index == index })
	})
	for _, l := range links {
		if l.loopback || l.own || m.ringsSeen[l.index] {
			continue
		}
		m.ringsSeen[l.index] = true
		p := ringParameters{command: unix.ETHTOOL_GRINGPARAM}
		err := m.ringRequest(l.name, &p)
		if err == nil && p.receive > m.receiveRing {
			p.command, p.receive = unix.ETHTOOL_SRINGPARAM, m.receiveRing
			err = m.ringRequest(l.name, &p)
		}
		// The device has just vanished, or its driver has no rings whose length can be changed.
		if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, fs.ErrNotExist) {
			m.logf("netcfg: receive ring of %s with %d packets: %v", l.name, m.receiveRing, err)
		}
	}
}
