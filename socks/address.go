package socks

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// defaultRouteProbe is an address that only a default route leads to, from the block that
// RFC 1112 reserves. (The documentation networks are used in test networks.) Nothing is ever
// sent to it.
var defaultRouteProbe = netip.AddrFrom4([4]byte{240, 0, 0, 1})

// ownProbe distinguishes the addresses of this machine from others.
//
// It asks the kernel instead of a list of interfaces: a UDP socket can be bound to the
// machine's own, to broadcast and to multicast addresses and to no others, however they were
// configured (secondary addresses, local routes, the broadcast address of a subnet). A socket
// that could not be bound can be used to ask again.
type ownProbe struct{ fd int }

// checkForeign returns an error unless addr can be the address of another machine: if it is
// an address of this machine, multicast, broadcast, or not IPv4.
func (p *ownProbe) checkForeign(addr netip.Addr) error {
	if !addr.Is4() || addr.As4()[0] == 0 || addr.IsLoopback() || addr.IsMulticast() ||
		addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return notAllowed("%s is not the address of another machine", addr)
	}
	if p.fd == none {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket to check %s: %w", addr, err)
		}
		p.fd = fd
	}
	err := unix.Bind(p.fd, &unix.SockaddrInet4{Addr: addr.As4()})
	if err == unix.EADDRNOTAVAIL {
		return nil
	}
	p.close()
	if err != nil {
		return fmt.Errorf("bind to check %s: %w", addr, err)
	}
	if bindsAnything() {
		return fmt.Errorf("nothing can tell whether %s is an address of this machine: net.ipv4.ip_nonlocal_bind is 1", addr)
	}
	return notAllowed("%s is an address of this machine or a broadcast", addr)
}

// bindsAnything reports whether sockets can be bound to addresses of other machines too (ip(7),
// ip_nonlocal_bind).
func bindsAnything() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{Addr: defaultRouteProbe.As4()}) == nil
}

func (p *ownProbe) close() {
	if p.fd != none {
		unix.Close(p.fd)
		p.fd = none
	}
}

// localTowards returns the address from which the kernel would send to addr.
func localTowards(addr netip.Addr) (netip.Addr, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("socket to find the route to %s: %w", addr, err)
	}
	defer unix.Close(fd)
	// The port does not matter: connecting UDP sends nothing.
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: addr.As4(), Port: 9}); err != nil {
		return netip.Addr{}, fmt.Errorf("route to %s: %w", addr, err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("local address towards %s: %w", addr, err)
	}
	sa4, ok := sa.(*unix.SockaddrInet4)
	if !ok {
		return netip.Addr{}, fmt.Errorf("local address towards %s is no IPv4 address", addr)
	}
	return netip.AddrFrom4(sa4.Addr), nil
}
