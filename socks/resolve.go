package socks

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-router/postern/resolve"
)

// lookupFunc returns the addresses of a host, at least one, asked of servers or, when there
// are none, of the system's name servers.
type lookupFunc func(ctx context.Context, host string, servers resolve.Servers) ([]netip.Addr, error)

// newResolver returns a resolver that looks up at most limit names at a time.
func newResolver(limit int) *resolve.Resolver {
	return resolve.New(resolve.Options{Limit: limit, Cache: true})
}

func newLookup(r *resolve.Resolver) lookupFunc {
	return func(ctx context.Context, host string, servers resolve.Servers) ([]netip.Addr, error) {
		if len(servers) == 0 {
			return r.LookupSystem(ctx, host)
		}
		return r.Lookup(ctx, host, servers)
	}
}

// lookUp finds the IPv4 addresses of a host for c, as many as will be tried, and calls found with
// them: at once if they are known, and otherwise when they are, unless c ends before that. The
// attempt of c is set. What is known does not wait for names that must be asked for.
func (s *Server) lookUp(c *conn, host string, found func([]netip.Addr, error)) {
	servers := s.cfg.NameServers
	at := resolve.ServersAt(servers...)
	if addrs, err, ok := s.known(host, at); ok {
		found(s.tried(addrs), err)
		return
	}
	c.attempt.found = found
	if len(servers) > 0 || s.knownSystem == nil {
		s.askFor(c, host, servers, at)
		return
	}
	// Reading files may take its time, so it is not for the loop.
	s.addTask(c, &s.files, &task{}, func(context.Context) {
		addrs, err, ok := s.knownSystem(host)
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.over {
			return
		}
		s.tick()
		c.attempt.task = nil
		if ok {
			found(s.tried(addrs), err)
		} else {
			s.askFor(c, host, servers, at)
		}
	})
}

// tried returns those of the addresses of a name that are tried.
func (s *Server) tried(addrs []netip.Addr) []netip.Addr {
	return addrs[:min(len(addrs), s.limits.addresses)]
}

// askFor has the name of a host asked for. at is where the name servers are.
func (s *Server) askFor(c *conn, host string, servers []netip.Addr, at resolve.Servers) {
	// One question for a name at a time is enough. Only one that has been asked is joined: those
	// that wait have the share of another client.
	for _, t := range s.names.running {
		if len(t.conns) > 0 && sameHost(t.host, host) && slices.Equal(t.servers, servers) {
			t.conns = append(t.conns, c)
			c.attempt.task, c.attempt.queue = t, &s.names
			return
		}
	}
	t := &task{host: host, servers: servers}
	client := c.source.addr
	s.addTask(c, &s.names, t, func(ctx context.Context) {
		// A server on this machine may go on for a while when the client has left: that is to be at his expense.
		addrs, err := s.lookup(resolve.WithClient(ctx, client), host, at)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tick()
		addrs = s.tried(addrs)
		conns := t.conns
		t.conns = nil
		for _, c := range conns {
			c.attempt.task = nil
		}
		for _, c := range conns {
			if !c.over {
				c.attempt.found(addrs, err)
			}
		}
	})
}

// sameHost reports whether names are the same in the DNS.
func sameHost(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}
