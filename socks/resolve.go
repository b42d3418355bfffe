package socks

import (
	"context"
	"net/netip"

	"github.com/postern-router/postern/resolve"
)

// lookupFunc returns the addresses of a host, at least one, asked of servers or, when there
// are none, of the system's name servers.
type lookupFunc func(ctx context.Context, host string, servers resolve.Servers) ([]netip.Addr, error)

// newLookup returns a lookupFunc that looks up at most limit names at a time.
func newLookup(limit int) lookupFunc {
	r := resolve.New(resolve.Options{Limit: limit})
	return func(ctx context.Context, host string, servers resolve.Servers) ([]netip.Addr, error) {
		if len(servers) == 0 {
			return r.LookupSystem(ctx, host)
		}
		return r.Lookup(ctx, host, servers)
	}
}

// resolve returns the IPv4 addresses of a name, as many as will be tried.
func (s *Server) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	s.mu.Lock()
	servers := resolve.ServersAt(s.cfg.NameServers...)
	s.mu.Unlock()
	addrs, err := s.lookup(ctx, host, servers)
	if err != nil {
		return nil, err
	}
	return addrs[:min(len(addrs), s.limits.addresses)], nil
}
