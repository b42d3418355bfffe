package socks

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// defaultRouteProbe is an address that only a default route leads to: one of the
// block that RFC 1112 reserves. (Laboratories do use the documentation
// networks.) Nothing is ever sent to it.
var defaultRouteProbe = netip.AddrFrom4([4]byte{240, 0, 0, 1})

// ownProbe tells the addresses of this machine from others.
//
// The kernel is asked, not a list of interfaces: it lets a UDP socket be bound
// to own, broadcast and multicast addresses and to no other, whichever way they
// came to be (second addresses, local routes, the broadcast of a subnet). A
// socket that it refused to bind can ask again.
type ownProbe struct{ fd int }

// checkForeign returns an error if addr is an address of this machine, of no
// single machine (multicast, broadcast), or not an address to connect to.
func (p *ownProbe) checkForeign(addr netip.Addr) error {
	if !addr.Is4() || addr.As4()[0] == 0 || addr.IsLoopback() || addr.IsMulticast() ||
		addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("%s is not the address of another machine", addr)
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
	return fmt.Errorf("%s is an address of this machine or a broadcast", addr)
}

func (p *ownProbe) close() {
	if p.fd != none {
		unix.Close(p.fd)
		p.fd = none
	}
}

// localTowards returns the address that the kernel would send to addr from.
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
