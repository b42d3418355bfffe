package socks

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// defaultRouteProbe is an address that only a default route leads to: one of the
// block that RFC 1112 reserves. (Laboratories do use the documentation
// networks.) Nothing is ever sent to it.
var defaultRouteProbe = netip.AddrFrom4([4]byte{240, 0, 0, 1})

// checkForeign returns an error if addr is an address of this machine, of no
// single machine (multicast, broadcast), or not an address to connect to.
//
// The kernel is asked, not a list of interfaces: it lets a UDP socket be bound
// to own, broadcast and multicast addresses and to no other, whichever way they
// came to be (second addresses, local routes, the broadcast of a subnet).
func checkForeign(addr netip.Addr) error {
	if !addr.Is4() || addr.As4()[0] == 0 || addr.IsLoopback() || addr.IsMulticast() ||
		addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("%s is not the address of another machine", addr)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket to check %s: %w", addr, err)
	}
	defer unix.Close(fd)
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.As4()})
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("bind to check %s: %w", addr, err)
	}
	return fmt.Errorf("%s is an address of this machine or a broadcast", addr)
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
