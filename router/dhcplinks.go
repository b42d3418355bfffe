package router

import (
	"net"
	"os"
	"time"

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

// findLink returns an interface of the kernel that has an Ethernet address.
func findLink(name string) (int, ether.MAC, bool) {
	i, err := net.InterfaceByName(name)
	if err != nil || len(i.HardwareAddr) != 6 {
		return 0, ether.MAC{}, false
	}
	return i.Index, ether.MAC(i.HardwareAddr), true
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
