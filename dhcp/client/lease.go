package client

import (
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/service"
)

// Lease is what a server has given, checked.
type Lease struct {
	Address netip.Prefix
	// Server is the server's identifier (option 54).
	Server netip.Addr
	// ServerMAC is the hardware address that the lease came from: the server's, or a relay's.
	ServerMAC ether.MAC
	// Gateway is the first of option 3; the zero Addr if there is none.
	Gateway netip.Addr
	// Routes are those of option 121, and else those of option 33. If HasRoutes is set, they are of option 121, and
	// Gateway does not count (RFC 3442).
	Routes      []dhcp.Route
	HasRoutes   bool
	NameServers []netip.Addr
	TimeServers []netip.Addr
	// Since is when it was given. Renew, Rebind and Expires are T1, T2 and its end, by the clock
	// that only goes on.
	Since, Renew, Rebind, Expires time.Time
	// Infinite is a lease without an end.
	Infinite bool
}

const (
	// maxRoutes and maxServers are how many of a lease's count.
	maxRoutes  = 32
	maxServers = 3
	// shortestLease is the least time that is taken: with less the client would do nothing but
	// ask. Infinite ones are asked for again after longestLease.
	shortestLease = 10 * time.Second
	// shortestMask is the least length of a network's prefix: no network is larger than a class A.
	shortestMask = 8
	// longestTime is more than any time of a lease is away from the machine's start: 2^32 seconds are
	// the longest lease.
	longestTime = 200 * 365 * 24 * time.Hour
)

// readLease reads an offer or an acknowledgement of what was asked for at the time asked: the lease
// counts from then (RFC 2131 4.4.1).
func readLease(m *dhcp.Message, asked time.Time) (*Lease, error) {
	o := m.Options
	l := &Lease{Server: o.Addr(dhcp.OptionServerID)}
	if !usable(l.Server) {
		return nil, errors.New("it does not say which server it comes from")
	}
	if !usable(m.Your) {
		return nil, fmt.Errorf("%v is no address of a host", m.Your)
	}
	size, err := maskSize(o, m.Your)
	if err != nil {
		return nil, err
	}
	l.Address = netip.PrefixFrom(m.Your, size)
	if match.NotHost(l.Address) != "" {
		return nil, fmt.Errorf("%v is no address of a host", l.Address)
	}
	length, ok := o.Seconds(dhcp.OptionLeaseTime)
	if !ok {
		return nil, errors.New("it has no lease time")
	}
	l.Infinite = length == dhcp.Infinite*time.Second
	if length < shortestLease {
		return nil, fmt.Errorf("a lease of %v, expected at least %v", length, shortestLease)
	}
	l.setTimes(asked, length, o)
	for _, g := range o.Addrs(dhcp.OptionRouter, 8) {
		if usable(g) && g != m.Your {
			l.Gateway = g
			break
		}
	}
	routes, has := o.ClasslessRoutes(maxRoutes)
	l.HasRoutes = has
	if !has {
		routes = o.StaticRoutes(maxRoutes)
	}
	for _, r := range routes {
		// A route to the link itself (gateway 0.0.0.0) is there by the address.
		if usable(r.Gateway) && r.Gateway != m.Your && !r.Destination.Addr().IsMulticast() && !r.Destination.Addr().IsLoopback() {
			l.Routes = append(l.Routes, r)
		}
	}
	for code, list := range map[byte]*[]netip.Addr{dhcp.OptionNameServers: &l.NameServers, dhcp.OptionNTPServers: &l.TimeServers} {
		for _, a := range o.Addrs(code, 16) {
			if usable(a) && a != m.Your && len(*list) < maxServers {
				*list = append(*list, a)
			}
		}
	}
	return l, nil
}

// setTimes sets the times of a lease that begins at now. T1 and T2 that make no sense are those of RFC
// 2131 4.4.5.
func (l *Lease) setTimes(now time.Time, length time.Duration, o dhcp.Options) {
	t1, has1 := o.Seconds(dhcp.OptionRenewalTime)
	t2, has2 := o.Seconds(dhcp.OptionRebindingTime)
	if !has2 || t2 >= length || t2 < shortestLease/2 {
		t2 = length / 8 * 7
	}
	if !has1 || t1 >= t2 || t1 < shortestLease/4 {
		t1 = min(length/2, t2/7*4)
	}
	l.Since, l.Renew, l.Rebind, l.Expires = now, now.Add(t1), now.Add(t2), now.Add(length)
}

// usable reports whether a host, a gateway or a server can have the address.
func usable(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a.As4()[0] != 0 && a.As4()[0] < 240
}

// maskSize is the length of the network's prefix: that of option 1, or else of the address's class.
func maskSize(o dhcp.Options, a netip.Addr) (int, error) {
	if v, has := o.Get(dhcp.OptionSubnetMask); has {
		mask, ok := o.Uint32(dhcp.OptionSubnetMask)
		size := bits.LeadingZeros32(^mask)
		switch {
		case !ok:
			return 0, fmt.Errorf("a netmask of %d bytes", len(v))
		case size < shortestMask || mask<<size != 0:
			return 0, fmt.Errorf("%v is no netmask", net.IP(v))
		}
		return size, nil
	}
	switch first := a.As4()[0]; {
	case first < 128:
		return 8, nil
	case first < 192:
		return 16, nil
	}
	return 24, nil
}

// from is where the lease came from.
func (l *Lease) from() hop { return hop{l.ServerMAC, l.Server} }

// sinceBoot is the machine's clock that nobody sets (CLOCK_MONOTONIC), by which time.Time counts too
// and which is the same in all processes.
func sinceBoot() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // which every Linux has
	return time.Duration(now.Nano())
}

// encode writes the lease for the other side of the link, PID 1 or a process. Times are by sinceBoot:
// a message that is long on its way lengthens no lease.
func (l *Lease) encode(e *service.Encoder) {
	e.Addr(l.Address.Addr())
	e.Uint(uint64(l.Address.Bits()))
	e.Addr(l.Server)
	e.String(string(l.ServerMAC[:]))
	e.Addr(l.Gateway)
	e.Bool(l.HasRoutes)
	e.Uint(uint64(len(l.Routes)))
	for _, r := range l.Routes {
		e.Addr(r.Destination.Addr())
		e.Uint(uint64(r.Destination.Bits()))
		e.Addr(r.Gateway)
	}
	e.Addrs(l.NameServers)
	e.Addrs(l.TimeServers)
	e.Bool(l.Infinite)
	now, clock := time.Now(), sinceBoot()
	for _, t := range l.times() {
		e.Int(int64(clock + t.Sub(now)))
	}
}

// times are the lease's times, in the order in which they come.
func (l *Lease) times() []*time.Time {
	return []*time.Time{&l.Since, &l.Renew, &l.Rebind, &l.Expires}
}

// decodeLease reads what encode wrote. Whoever wrote it need not be believed: all that readLease
// promises is checked again.
func decodeLease(d *service.Decoder) *Lease {
	l := &Lease{}
	prefix := func() netip.Prefix {
		a := d.Addr()
		return netip.PrefixFrom(a, int(d.Uint(32)))
	}
	l.Address, l.Server = prefix(), d.Addr()
	mac := d.String(len(l.ServerMAC))
	copy(l.ServerMAC[:], mac)
	l.Gateway, l.HasRoutes = d.Addr(), d.Bool()
	for range d.Count(maxRoutes) {
		l.Routes = append(l.Routes, dhcp.Route{Destination: prefix(), Gateway: d.Addr()})
	}
	l.NameServers, l.TimeServers, l.Infinite = d.Addrs(maxServers), d.Addrs(maxServers), d.Bool()
	now, clock := time.Now(), sinceBoot()
	wrong := len(mac) != len(l.ServerMAC)
	last := -longestTime
	for _, t := range l.times() {
		at := d.Duration()
		wrong = wrong || at < last || at > longestTime
		*t, last = now.Add(at-clock), at
	}
	wrong = wrong || !usable(l.Address.Addr()) || !l.Address.IsValid() || l.Address.Bits() < shortestMask || match.NotHost(l.Address) != "" || !usable(l.Server) || l.Gateway.IsValid() && !usable(l.Gateway)
	for _, r := range l.Routes {
		wrong = wrong || !r.Destination.IsValid() || !r.Destination.Addr().Is4() || r.Destination != r.Destination.Masked() || !usable(r.Gateway)
	}
	for _, a := range append(l.NameServers, l.TimeServers...) {
		wrong = wrong || !usable(a)
	}
	if wrong {
		d.Fail(errors.New("no lease"))
	}
	return l
}
