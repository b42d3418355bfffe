package socks

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
)

// lookupFunc returns the addresses of a host, asked of servers, or of the
// system's name servers when there are none.
type lookupFunc func(ctx context.Context, host string, servers []netip.Addr) ([]netip.Addr, error)

// Lookup returns the IPv4 addresses of a host, asked of servers, or of the system's
// name servers when there are none. It is Go's own resolver, which needs no thread for
// each name, unlike libc's. It asks four times at most, 5 s each.
func Lookup(ctx context.Context, host string, servers []netip.Addr) ([]netip.Addr, error) {
	resolver := &net.Resolver{PreferGo: true}
	if len(servers) > 0 {
		// The resolver takes its servers from a file, which it need not find: it
		// tries again as often without one, and each time the next is asked.
		var tries atomic.Int64
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			server := servers[int(tries.Add(1)-1)%len(servers)]
			var d net.Dialer
			return d.DialContext(ctx, network, netip.AddrPortFrom(server, 53).String())
		}
	}
	return resolver.LookupNetIP(ctx, "ip4", host)
}

// resolve returns the IPv4 addresses of a name, as many as will be tried.
func (s *Server) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	s.mu.Lock()
	servers := slices.Clone(s.cfg.NameServers)
	s.mu.Unlock()
	found, err := s.lookup(ctx, host, servers)
	if err != nil {
		return nil, fmt.Errorf("resolve %q: %w", host, err)
	}
	var addrs []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); a.Is4() && len(addrs) < s.limits.addresses {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("resolve %q: no IPv4 address", host)
	}
	return addrs, nil
}
