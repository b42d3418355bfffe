package dns

import (
	"net/netip"
	"slices"
	"time"

	"github.com/postern-router/postern/service"
)

// Config is how the LAN's questions are answered.
type Config struct {
	// Enabled says that there is a server at all (allow-remote-requests).
	Enabled bool
	// MaxUDP is how many bytes an answer over UDP has at most: 50..65507. More than 1232 are
	// never sent.
	MaxUDP int
	// ServerTimeout is how long one server is waited for, TotalTimeout all of them.
	ServerTimeout, TotalTimeout time.Duration
	// MaxQueries is how many questions can wait for an answer, MaxSessions how many TCP
	// connections of clients there can be.
	MaxQueries, MaxSessions int
	// CacheSize is in KiB. MaxTTL is how long an answer is kept at most.
	// Of MaxQueries, MaxSessions and CacheSize no more is used than the constants of these names.
	CacheSize int
	MaxTTL    time.Duration
	Static    []Static
}

// Default is the configuration of a router on which nothing was set. Cache and queries are for a
// machine of 32 MB.
func Default() Config {
	return Config{MaxUDP: 4096, ServerTimeout: 2 * time.Second, TotalTimeout: 10 * time.Second, MaxQueries: 100, MaxSessions: 20,
		CacheSize: 2048, MaxTTL: 7 * 24 * time.Hour}
}

// The limits of a Config. MaxStatic is how many static entries there can be. MaxCacheSize is in KiB: half of the heap that
// the process has.
const (
	MaxStatic    = 128
	MaxCacheSize = 4096
	MaxServers   = 16
	MaxText      = 255
)

// Types are what a static entry can be.
var Types = []string{"A", "AAAA", "CNAME", "FWD", "MX", "NS", "NXDOMAIN", "SRV", "TXT"}

// Static is what is known about a name, or about all names that match Regexp (package regexp). It
// has one of both.
type Static struct {
	Name, Regexp string
	// Type is one of Types. Address is for A and AAAA, CNAME for CNAME, ForwardTo for FWD, Text for
	// TXT, NS for NS.
	Type      string
	Address   netip.Addr
	CNAME     string
	ForwardTo netip.Addr
	Text      string
	NS        string
	// MXExchange is the host that takes mail for the name, of several that with the least MXPreference first.
	MXExchange   string
	MXPreference uint16
	// SRVTarget and SRVPort are where a service is (RFC 2782).
	SRVTarget                       string
	SRVPriority, SRVWeight, SRVPort uint16
	TTL                             time.Duration
	MatchSubdomain                  bool
	Disabled                        bool
	Comment                         string
}

// encode writes what the process needs: without entries that are disabled, and without comments.
func (c Config) encode(e *service.Encoder, servers []netip.Addr) {
	e.Addrs(servers)
	for _, n := range []int{c.MaxUDP, min(c.MaxQueries, MaxQueries), min(c.MaxSessions, MaxSessions), min(c.CacheSize, MaxCacheSize)} {
		e.Uint(uint64(n))
	}
	e.Int(int64(c.ServerTimeout))
	e.Int(int64(c.TotalTimeout))
	e.Int(int64(c.MaxTTL))
	on := slices.DeleteFunc(slices.Clone(c.Static), func(s Static) bool { return s.Disabled })
	e.Uint(uint64(len(on)))
	for _, s := range on {
		e.String(s.Name)
		e.String(s.Regexp)
		e.Uint(uint64(slices.Index(Types, s.Type)))
		e.Addr(s.Address)
		e.String(s.CNAME)
		e.Addr(s.ForwardTo)
		e.String(s.Text)
		e.String(s.NS)
		e.String(s.MXExchange)
		e.String(s.SRVTarget)
		for _, n := range []uint16{s.MXPreference, s.SRVPriority, s.SRVWeight, s.SRVPort} {
			e.Uint(uint64(n))
		}
		e.Int(int64(s.TTL))
		e.Bool(s.MatchSubdomain)
	}
}

func decodeConfig(d *service.Decoder) (c Config, servers []netip.Addr) {
	servers = d.Addrs(MaxServers)
	c.MaxUDP, c.MaxQueries, c.MaxSessions, c.CacheSize = int(d.Uint(65507)), int(d.Uint(MaxQueries)), int(d.Uint(MaxSessions)), int(d.Uint(MaxCacheSize))
	c.ServerTimeout, c.TotalTimeout, c.MaxTTL = d.Duration(), d.Duration(), d.Duration()
	for range d.Count(MaxStatic) {
		number := func() uint16 { return uint16(d.Uint(1<<16 - 1)) }
		c.Static = append(c.Static, Static{Name: d.String(MaxName), Regexp: d.String(MaxText), Type: Types[d.Uint(uint64(len(Types)-1))], Address: d.Addr(),
			CNAME: d.String(MaxName), ForwardTo: d.Addr(), Text: d.String(MaxText), NS: d.String(MaxName), MXExchange: d.String(MaxName), SRVTarget: d.String(MaxName),
			MXPreference: number(), SRVPriority: number(), SRVWeight: number(), SRVPort: number(), TTL: d.Duration(), MatchSubdomain: d.Bool()})
	}
	return c, servers
}
