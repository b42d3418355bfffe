package resolve

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of the cache of a Resolver.
const (
	// maxCached is how many answers are kept. With the longest names and as many addresses as
	// there can be, each takes some 600 bytes.
	maxCached = 256
	// mostTime is the most that an answer holds, and mostNegative that a name has none (RFC 2308,
	// section 5, has one to three hours; a household does not want to wait so long for a name that
	// is new).
	mostTime     = time.Hour
	mostNegative = 5 * time.Minute
	// failureTime is how long it holds that no server gave an answer (RFC 9520, section 3.2, asks
	// for 1 s at least and 5 min at most).
	failureTime = 10 * time.Second
)

// answer is what a server says about a name.
type answer struct {
	addrs []netip.Addr
	// keep is how long it holds, at most: the least TTL of its records or, if there is no
	// address, what the zone says (RFC 2308, section 5).
	keep time.Duration
}

// cache holds answers of the servers that were asked last.
type cache struct {
	mu      sync.Mutex
	servers Servers
	known   map[string]cached // by name, in lower case and without a dot at the end
	order   []string          // of their coming, oldest first
	now     func() time.Time
}

// cached is an answer, or the error instead.
type cached struct {
	addrs [][4]byte
	err   error
	until time.Time
}

func cacheName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// get returns what servers said about a name, if that still holds.
func (c *cache) get(name string, servers Servers) (addrs []netip.Addr, err error, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, ok := c.known[cacheName(name)]
	if !ok || !slices.Equal(servers, c.servers) || !c.now().Before(found.until) {
		return nil, nil, false
	}
	for _, a := range found.addrs {
		addrs = append(addrs, netip.AddrFrom4(a))
	}
	return addrs, found.err, true
}

// put remembers an answer, or the error instead. It forgets what other servers said, and the
// oldest of too many.
func (c *cache) put(name string, servers Servers, a answer, err error) {
	if a.keep <= 0 {
		return
	}
	most := mostTime
	if err != nil {
		most = mostNegative
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(servers, c.servers) {
		c.servers, c.known, c.order = slices.Clone(servers), map[string]cached{}, nil
	}
	name = cacheName(name)
	if _, ok := c.known[name]; ok {
		c.order = slices.DeleteFunc(c.order, func(n string) bool { return n == name })
	} else if len(c.order) == maxCached {
		delete(c.known, c.order[0])
		c.order = append(c.order[:0], c.order[1:]...)
	}
	kept := cached{err: err, until: c.now().Add(min(a.keep, most))}
	for _, addr := range a.addrs {
		kept.addrs = append(kept.addrs, addr.As4())
	}
	c.known[name] = kept
	c.order = append(c.order, name)
}
