package console

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/resolve"
)

// This file has the menus of name servers. https://help.mikrotik.com/docs/spaces/ROS/pages/37748767/DNS

func staticNames(c *Config) *[]dns.Static { return &c.DNSServer.Static }

var (
	cacheIdentity   = []string{"name", "type", "data"}
	cacheColumns    = []column{{"name", 30}, {"type", 5}, {"data", 24}, {"ttl", 0}}
	cacheProperties = []readOnly{
		{name: "name", help: "the name"},
		{name: "type", help: "what is known of it: A is an address"},
		{name: "data", help: "the address, the name or the text"},
		{name: "ttl", help: "how long it is still kept"},
	}
	flushCache = command{name: "flush", help: "empty the cache", able: func(l Live) bool { return l.FlushDNS != nil },
		run: func(x *execution, m *menu, _ arguments) error {
			x.result.Action.FlushDNS = true
			delete(x.listed, m.path)
			delete(x.listed, m.path+" all")
			return nil
		}}
)

func dnsMenu() *menu {
	return &menu{
		path: "ip dns", help: "name servers that the router asks, and the one that it is",
		commands: unsetCommands, indent: 2,
		properties: bind(func(c *Config, _ int) *Config { return c },
			// resolv.conf(5): three servers are used.
			prop("servers", addressList(3), "", "name servers: the one that last answered is asked first, then the others in this order",
				func(c *Config) *[]netip.Addr { return &c.DNS }),
			prop("allow-remote-requests", boolean(), "no", "whether the router answers questions of others",
				func(c *Config) *bool { return &c.DNSServer.Enabled }),
			prop("max-udp-packet-size", integer(50, 65507), "4096", "bytes of an answer over UDP; more than 1232 are never sent",
				func(c *Config) *int { return &c.DNSServer.MaxUDP }),
			prop("query-server-timeout", duration(100*time.Millisecond, time.Minute), "2s", "how long one server is waited for",
				func(c *Config) *time.Duration { return &c.DNSServer.ServerTimeout }),
			prop("query-total-timeout", duration(100*time.Millisecond, time.Minute), "10s", "how long all of them are waited for",
				func(c *Config) *time.Duration { return &c.DNSServer.TotalTimeout }),
			prop("max-concurrent-queries", integer(1, 65535), "100", "questions that wait for an answer",
				func(c *Config) *int { return &c.DNSServer.MaxQueries }),
			prop("max-concurrent-tcp-sessions", integer(1, 65535), "20", "TCP connections of clients",
				func(c *Config) *int { return &c.DNSServer.MaxSessions }),
			prop("cache-size", kibibytes(64, 64<<20), "2048KiB", fmt.Sprintf("memory for answers; %dKiB at most are used", dns.MaxCacheSize),
				func(c *Config) *int { return &c.DNSServer.CacheSize }),
			prop("cache-max-ttl", duration(time.Second, 52*7*24*time.Hour), "1w", "how long an answer is kept at most",
				func(c *Config) *time.Duration { return &c.DNSServer.MaxTTL }),
		),
		live: (*execution).dnsState,
		warnings: func(x *execution) []string {
			if text := TooMuchDNS(x.cfg); text != "" {
				return []string{text}
			}
			return nil
		},
		readOnly: []readOnly{
			{name: dynamicServers, help: "name servers of a lease: they come after those of servers", after: "servers"},
			{name: cacheUsed, help: "memory that answers take"},
		},
	}
}

func dnsCacheMenu() *menu {
	return &menu{
		path: "ip dns cache", help: "answers that the router keeps, and names that it knows by itself",
		commands: commandsLike(tableCommands, "", flushCache),
		needs:    hasCache, legend: "Flags: S - static", flags: []string{"S"}, warnings: (*execution).cacheWarnings,
		rows: (*execution).cacheRows, identify: cacheIdentity, columns: cacheColumns, readOnly: cacheProperties,
	}
}

func dnsCacheAllMenu() *menu {
	return &menu{
		path: "ip dns cache all", help: "the same, and what the router knows not to be there",
		commands: tableCommands,
		needs:    hasCache, legend: "Flags: S - static, N - negative", flags: []string{"SN"}, warnings: (*execution).cacheWarnings,
		rows: (*execution).wholeCacheRows, identify: cacheIdentity, columns: cacheColumns, readOnly: cacheProperties,
	}
}

func dnsStaticMenu() *menu {
	return &menu{
		path: "ip dns static", help: "names that the router knows by itself",
		commands: listCommands, legend: legendItem, flags: []string{"X"},
		items: itemLists[dnsStaticItems],
		columns: []column{{"name", 24}, {"regexp", 24}, {"type", 8}, {"address", 15}, {"cname", 24}, {"forward-to", 15}, {"text", 24},
			{"mx-preference", 13}, {"mx-exchange", 24}, {"ns", 24}, {"srv-priority", 12}, {"srv-weight", 10}, {"srv-port", 8}, {"srv-target", 24}, {"ttl", 0}},
		rare: []string{"name", "regexp", "address", "cname", "forward-to", "text", "mx-preference", "mx-exchange", "ns", "srv-priority", "srv-weight", "srv-port", "srv-target"},
		properties: bindItems(staticNames,
			prop("name", optional(staticName(), "those that regexp matches"), "", "the name", func(s *dns.Static) *string { return &s.Name }),
			prop("regexp", optional(nameRegexp(), "none"), "", "instead of a name: a regular expression for names, which are in lower case",
				func(s *dns.Static) *string { return &s.Regexp }),
			prop("type", enum[string](dns.Types...), "A", "what is known: an IPv4 or IPv6 address, an alias, which server to ask, a mail server, a name server, that there is no such name, a service, a text",
				func(s *dns.Static) *string { return &s.Type }),
			prop("address", optional(ipAddress(), "none"), "", "address, for types A and AAAA", func(s *dns.Static) *netip.Addr { return &s.Address }),
			prop("cname", optional(staticName(), "none"), "", "name that it is an alias of, for type CNAME", func(s *dns.Static) *string { return &s.CNAME }),
			prop("forward-to", optional(address(), "none"), "", "server to ask, for type FWD", func(s *dns.Static) *netip.Addr { return &s.ForwardTo }),
			prop("text", text(0, dns.MaxText), "", "the text, for type TXT", func(s *dns.Static) *string { return &s.Text }),
			prop("mx-preference", upTo65535(), "", "of several mail servers the one with the least is asked first, for type MX",
				func(s *dns.Static) *uint16 { return &s.MXPreference }),
			prop("mx-exchange", optional(staticName(), "none"), "", "mail server, for type MX", func(s *dns.Static) *string { return &s.MXExchange }),
			prop("ns", optional(staticName(), "none"), "", "name server, for type NS", func(s *dns.Static) *string { return &s.NS }),
			prop("srv-priority", upTo65535(), "", "of several servers those with the least are asked first, for type SRV", func(s *dns.Static) *uint16 { return &s.SRVPriority }),
			prop("srv-weight", upTo65535(), "", "share of the clients among servers of one priority", func(s *dns.Static) *uint16 { return &s.SRVWeight }),
			prop("srv-port", upTo65535(), "", "port of the service", func(s *dns.Static) *uint16 { return &s.SRVPort }),
			prop("srv-target", optional(staticName(), "none"), "", "server of the service", func(s *dns.Static) *string { return &s.SRVTarget }),
			prop("ttl", duration(0, 52*7*24*time.Hour), "1d", "how long clients keep it", func(s *dns.Static) *time.Duration { return &s.TTL }),
			prop("match-subdomain", boolean(), "no", "whether it is for all names below this one too", func(s *dns.Static) *bool { return &s.MatchSubdomain }),
			disabled(func(s *dns.Static) *bool { return &s.Disabled }),
			comment(func(s *dns.Static) *string { return &s.Comment }),
		),
	}
}

// staticName is a name in the DNS, without the last dot.
func staticName() kind[string] {
	return kind[string]{
		accepts: "domain name",
		parse: func(s string) (string, error) {
			if !resolve.ValidName(s) || strings.HasSuffix(s, ".") {
				return "", errors.New("not a name")
			}
			return s, nil
		},
		format: func(v string) string { return v },
	}
}

// nameRegexp is a regular expression for names.
func nameRegexp() kind[string] {
	return kind[string]{
		accepts: fmt.Sprintf("regular expression: at most %d characters", dns.MaxText),
		parse: func(s string) (string, error) {
			if Printable(s) != s {
				return "", errors.New("not printable")
			}
			if err := checkPattern(s, dns.MaxText); err != nil {
				return "", match.Refusal(Printable(err.Error()))
			}
			return s, nil
		},
		format: func(v string) string { return v },
	}
}

// upTo65535 is a number of a record. 0 is what it is without, and is not shown.
func upTo65535() kind[uint16] { return optional(integer[uint16](0, 65535), "0") }

// ipAddress is one address of IPv4 or IPv6.
func ipAddress() kind[netip.Addr] {
	k := address()
	k.accepts = "IP or IPv6 address"
	k.parse = func(s string) (netip.Addr, error) {
		if !strings.Contains(s, ":") {
			return match.ParseIPv4(s)
		}
		a, err := netip.ParseAddr(s)
		switch {
		case err != nil:
			return a, err
		case a.Zone() != "":
			return a, match.Refusal("an address with a zone is of use on one machine only")
		case a.Is4In6():
			return a, match.Refusal("this is an IPv4 address")
		}
		return a, nil
	}
	return k
}

// kibibytes is a size of low..high KiB.
func kibibytes(low, high int) kind[int] {
	k := integer(low, high)
	number := k.parse
	limits := rangeError{k.format(low) + "KiB", k.format(high) + "KiB"}
	k.accepts = "size: " + limits.Error()
	k.typ = Text
	k.parse = func(s string) (int, error) {
		v, err := number(strings.TrimSuffix(s, "KiB"))
		if errors.As(err, new(rangeError)) {
			err = limits
		}
		return v, err
	}
	k.format = func(v int) string { return strconv.Itoa(v) + "KiB" }
	return k
}

// Properties of /ip dns that cannot be set; /system ntp client has the first too.
const (
	dynamicServers = "dynamic-servers"
	cacheUsed      = "cache-used"
)

// dnsState is what the system knows of name servers.
func (x *execution) dnsState() ([]Pair, error) {
	var pairs []Pair
	if x.live.DynamicDNS != nil {
		pairs = append(pairs, Pair{dynamicServers, Value{Type: List, text: addressList(0).format(x.live.DynamicDNS())}})
	}
	if x.live.CacheUsed != nil {
		// A server that does not answer keeps nobody from seeing what is set.
		if used, err := x.live.CacheUsed(); err == nil {
			pairs = append(pairs, textPair(cacheUsed, strconv.Itoa((used+1023)>>10)+"KiB"))
		}
	}
	return pairs, nil
}

func hasCache(l Live) bool { return l.DNSCache != nil }

// cacheRows are what the DNS server knows to be there, wholeCacheRows everything.
func (x *execution) cacheRows() ([]row, error) {
	rows, err := x.wholeCacheRows()
	return slices.DeleteFunc(rows, func(r row) bool { return r.flags&flagNegative != 0 }), err
}

func (x *execution) wholeCacheRows() ([]row, error) {
	list, left, err := x.live.DNSCache()
	if err != nil {
		return nil, fmt.Errorf("list the DNS cache: %w", err)
	}
	x.leftOut = left
	flushed := x.result.Action.FlushDNS
	if flushed {
		x.leftOut = 0
	}
	var rows []row
	for _, e := range list {
		if flushed && !e.Static {
			continue
		}
		r := row{pairs: []Pair{textPair("name", e.Name), textPair("type", e.TypeName())}}
		if e.Data != "" {
			r.pairs = append(r.pairs, textPair("data", e.Data))
		}
		r.pairs = append(r.pairs, durationPair("ttl", e.TTL))
		if e.Static {
			r.flags |= flagStatic
		}
		if e.Negative {
			r.flags |= flagNegative
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// cacheWarnings says that not all entries are shown.
func (x *execution) cacheWarnings() []string {
	if x.leftOut == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d more entries are left out", x.leftOut)}
}

// TooMuchDNS returns a warning if the DNS server is to use more than it can have, else "": RouterOS's boards have more memory.
func TooMuchDNS(c Config) string {
	for _, n := range []struct {
		name      string
		set, used int
		unit      string
	}{
		{"cache-size", c.DNSServer.CacheSize, dns.MaxCacheSize, "KiB"},
		{"max-concurrent-queries", c.DNSServer.MaxQueries, dns.MaxQueries, ""},
		{"max-concurrent-tcp-sessions", c.DNSServer.MaxSessions, dns.MaxSessions, ""},
	} {
		if n.set > n.used {
			return fmt.Sprintf("warning: of %s=%d%s in /ip dns %d%s are used, as memory is small", n.name, n.set, n.unit, n.used, n.unit)
		}
	}
	return ""
}

// sameStatic is the same for entries that say the same of the same names.
func sameStatic(s dns.Static) dns.Static {
	s.TTL, s.Disabled, s.Comment = 0, false, ""
	for _, name := range []*string{&s.Name, &s.CNAME, &s.NS, &s.MXExchange, &s.SRVTarget} {
		*name = strings.ToLower(*name)
	}
	return s
}

// checkStatic refuses static entries that lack what their type is about, or are about no name.
func (cfg Config) checkStatic() error {
	for i, s := range cfg.DNSServer.Static {
		lacks := ""
		switch {
		case s.Name == "" && s.Regexp == "":
			return fmt.Errorf("/ip dns static %d: expected name or regexp", i)
		case s.Name != "" && s.Regexp != "":
			return fmt.Errorf("/ip dns static %d: expected name or regexp, not both", i)
		case s.Regexp != "" && s.MatchSubdomain:
			return fmt.Errorf("/ip dns static %d: match-subdomain=yes needs name, not regexp", i)
		case (s.Type == "A" || s.Type == "AAAA") && !s.Address.IsValid():
			lacks = "address"
		case s.Type == "A" && !s.Address.Is4():
			return fmt.Errorf("/ip dns static %d: address=%s: type=A needs an IPv4 address; an IPv6 address needs type=AAAA", i, s.Address)
		case s.Type == "AAAA" && !s.Address.Is6():
			return fmt.Errorf("/ip dns static %d: address=%s: type=AAAA needs an IPv6 address; an IPv4 address needs type=A", i, s.Address)
		case s.Type == "CNAME" && s.CNAME == "":
			lacks = "cname"
		case s.Type == "CNAME" && strings.EqualFold(strings.TrimSuffix(s.CNAME, "."), strings.TrimSuffix(s.Name, ".")):
			return fmt.Errorf("/ip dns static %d: cname=%s: the name would be an alias of itself", i, s.CNAME)
		case s.Type == "FWD" && !s.ForwardTo.IsValid():
			lacks = "forward-to"
		case s.Type == "MX" && s.MXExchange == "":
			lacks = "mx-exchange"
		case s.Type == "NS" && s.NS == "":
			lacks = "ns"
		case s.Type == "SRV" && s.SRVTarget == "":
			lacks = "srv-target"
		}
		if lacks != "" {
			return fmt.Errorf("/ip dns static %d: type=%s needs %s", i, s.Type, lacks)
		}
	}
	return nil
}
