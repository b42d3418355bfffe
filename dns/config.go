package dns

import (
	"encoding/binary"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
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

// The limits of a Config. MaxStatic is how many static entries there can be.
const (
	MaxStatic    = 128
	MaxCacheSize = 4096
	MaxServers   = 16
	MaxText      = 255
)

// Types are what a static entry can be.
var Types = []string{"A", "AAAA", "CNAME", "FWD", "NXDOMAIN", "TXT"}

// Static is what is known about a name, or about all names that match Regexp (package regexp). It
// has one of both.
type Static struct {
	Name, Regexp string
	// Type is one of Types. Address is for A and AAAA, CNAME for CNAME, ForwardTo for FWD, Text for
	// TXT.
	Type           string
	Address        netip.Addr
	CNAME          string
	ForwardTo      netip.Addr
	Text           string
	TTL            time.Duration
	MatchSubdomain bool
	Disabled       bool
	Comment        string
}

// encode writes what the process needs: without entries that are disabled, and without comments.
func (c Config) encode(e *service.Encoder, servers []netip.Addr) {
	e.Addrs(servers)
	for _, n := range []int{c.MaxUDP, c.MaxQueries, c.MaxSessions, c.CacheSize} {
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
		e.Int(int64(s.TTL))
		e.Bool(s.MatchSubdomain)
	}
}

func decodeConfig(d *service.Decoder) (c Config, servers []netip.Addr) {
	servers = d.Addrs(MaxServers)
	c.MaxUDP, c.MaxQueries, c.MaxSessions, c.CacheSize = int(d.Uint(65507)), int(d.Uint(1000)), int(d.Uint(100)), int(d.Uint(MaxCacheSize))
	c.ServerTimeout, c.TotalTimeout, c.MaxTTL = d.Duration(), d.Duration(), d.Duration()
	for range d.Count(MaxStatic) {
		c.Static = append(c.Static, Static{Name: d.String(MaxName), Regexp: d.String(MaxText), Type: Types[d.Uint(uint64(len(Types)-1))], Address: d.Addr(),
			CNAME: d.String(MaxName), ForwardTo: d.Addr(), Text: d.String(MaxText), TTL: d.Duration(), MatchSubdomain: d.Bool()})
	}
	return c, servers
}

// names finds what the router knows by itself.
type names struct {
	byName  map[string][]Static
	regexps []pattern
	reverse map[string]Static // A and AAAA by the name of their PTR record
	hosts   hosts
}

type pattern struct {
	*regexp.Regexp
	entry Static
}

func newNames(all []Static) names {
	n := names{byName: map[string][]Static{}, reverse: map[string]Static{}}
	for _, s := range all {
		s.Name, s.CNAME = strings.ToLower(s.Name), strings.ToLower(s.CNAME)
		if s.Regexp != "" {
			if re, err := regexp.Compile(s.Regexp); err == nil { // the console takes no other
				n.regexps = append(n.regexps, pattern{re, s})
			}
			continue
		}
		n.byName[s.Name] = append(n.byName[s.Name], s)
		if s.Type == "A" || s.Type == "AAAA" {
			if name := reverseName(s.Address); n.reverse[name].Name == "" {
				n.reverse[name] = s
			}
		}
	}
	return n
}

// hosts are names of hosts with a lease, and by the names of their PTR records.
type hosts struct {
	byName  map[string]netip.Addr
	reverse map[string]string
}

// hostTTL is how long clients keep the name of a host with a lease.
const hostTTL = 60

func newHosts(all map[string]netip.Addr) hosts {
	h := hosts{map[string]netip.Addr{}, map[string]string{}}
	for name, a := range all {
		name = strings.ToLower(name)
		h.byName[name] = a
		// With its domain, if it has that name too.
		if reverse := reverseName(a); len(name) > len(h.reverse[reverse]) {
			h.reverse[reverse] = name
		}
	}
	return h
}

// reverseName is the name of the PTR record of an address (RFC 1035, section 3.5; RFC 3596, section 2.5).
func reverseName(a netip.Addr) string {
	var text strings.Builder
	b := a.AsSlice()
	slices.Reverse(b)
	if a.Is4() {
		for _, n := range b {
			text.WriteString(strconv.Itoa(int(n)) + ".")
		}
		return text.String() + "in-addr.arpa"
	}
	for _, n := range b {
		text.WriteString(strconv.FormatUint(uint64(n&0xf), 16) + "." + strconv.FormatUint(uint64(n>>4), 16) + ".")
	}
	return text.String() + "ip6.arpa"
}

// find returns the entries of a name: those whose regexp it matches, or its own, or those of the
// nearest name above it with MatchSubdomain.
func (n names) find(name string) []Static {
	var matching []Static
	for _, p := range n.regexps {
		if p.MatchString(name) {
			matching = append(matching, p.entry)
		}
	}
	if matching != nil {
		return matching
	}
	if own := n.byName[name]; len(own) > 0 {
		return own
	}
	for {
		_, above, ok := strings.Cut(name, ".")
		if !ok {
			return nil
		}
		name = above
		var all []Static
		for _, s := range n.byName[name] {
			if s.MatchSubdomain {
				all = append(all, s)
			}
		}
		if len(all) > 0 {
			return all
		}
	}
}

const (
	// maxAliases is how many static aliases may follow from one another.
	maxAliases = 8
	// maxOwn is from how many bytes an answer takes no further record of the configuration,
	// maxFollowed none of the target of an alias.
	maxOwn, maxFollowed = 4096, 8192
)

// outcome is what static entries say about a query: an answer, or which servers to ask instead of
// the usual ones, or an alias whose target is to be asked for.
type outcome struct {
	answer []byte
	server netip.Addr
	// alias is the start of an answer, target the name that it leads to.
	alias  []byte
	target string
	// known says that the name has an address of IPv4 here: it exists, whatever the servers say.
	known bool
}

func seconds(d time.Duration) uint32 { return uint32(min(max(d/time.Second, 0), 1<<31-1)) }

// answer returns what the entries say about q; nothing if they know nothing about it.
func (n names) answer(q *query) (o outcome) {
	if q.class != classIN {
		return o
	}
	if s, ok := n.reverse[q.name]; ok && q.typ == typePTR {
		return q.own(typePTR, seconds(s.TTL), appendName(nil, s.Name))
	}
	if name, ok := n.hosts.reverse[q.name]; ok && q.typ == typePTR {
		return q.own(typePTR, hostTTL, appendName(nil, name))
	}
	b, name := q.reply(codeOK), q.name
	for range maxAliases {
		all := n.find(name)
		if len(all) == 0 {
			host, ok := n.hosts.byName[name]
			switch {
			case ok && q.typ == typeA:
				a := host.As4()
				b = addRecord(b, name, typeA, hostTTL, a[:])
				return outcome{answer: q.addOPT(b, 0)}
			case ok:
				return outcome{answer: q.addOPT(b, 0)}
			case name != q.name:
				return outcome{alias: b, target: name}
			}
			return o
		}
		next, found := "", false
		has := map[string]bool{}
		for _, s := range all {
			has[s.Type] = true
			switch {
			case s.Type == "NXDOMAIN":
				b[3] |= codeNoName
				return outcome{answer: q.addOPT(b, 0)}
			case s.Type == "FWD":
				if name != q.name {
					return outcome{alias: b, target: name, server: s.ForwardTo}
				}
				return outcome{server: s.ForwardTo}
			case s.Type == "CNAME" && !found && next == "":
				b = addRecord(b, name, typeCNAME, seconds(s.TTL), appendName(nil, s.CNAME))
				next = s.CNAME
			case s.Type == "A" && q.typ == typeA || s.Type == "AAAA" && q.typ == typeAAAA:
				if len(b) < maxOwn {
					b, found = addRecord(b, name, q.typ, seconds(s.TTL), s.Address.AsSlice()), true
				}
			case s.Type == "TXT" && q.typ == typeTXT && len(b) < maxOwn:
				b, found = addRecord(b, name, typeTXT, seconds(s.TTL), append([]byte{byte(len(s.Text))}, s.Text...)), true
			}
		}
		if found || next == "" || q.typ == typeCNAME {
			if q.typ == typeAAAA && has["A"] && !has["AAAA"] {
				// Another server may know one, as in RouterOS.
				if name == q.name {
					return outcome{known: true}
				}
				return outcome{alias: b, target: name, known: true}
			}
			return outcome{answer: q.addOPT(b, 0)}
		}
		name = next
	}
	return outcome{answer: q.fail(codeFailure)}
}

// own is an answer with one record of the name that was asked for.
func (q *query) own(typ uint16, ttl uint32, data []byte) outcome {
	return outcome{answer: q.addOPT(addRecord(q.reply(codeOK), q.name, typ, ttl, data), 0)}
}

// final is the answer to q when the servers have said a, which was kept for age seconds.
func (o outcome) final(q *query, a answer, age, most uint32) []byte {
	if o.known && (a.code != codeOK || a.truncated) {
		a = answer{message: q.reply(codeOK)}
	}
	switch {
	case o.target != "":
		return o.follow(q, a, age, most)
	case a.truncated:
		return q.tooLarge(a.code)
	}
	return a.forClient(q, age, most)
}

// follow adds to the alias of an outcome the addresses, or texts, that an answer to its target has.
func (o outcome) follow(q *query, a answer, age, most uint32) []byte {
	b := append(q.reply(codeOK), o.alias[headerSize+len(q.question):]...)
	copy(b[6:8], o.alias[6:8])
	b[3] |= byte(a.code & maskCode)
	if a.truncated {
		b[2] |= bitTruncated >> 8
	}
	if a.code != codeOK || a.truncated {
		return q.addOPT(b, 0)
	}
	_, _ = eachRecord(a.message, func(section int, r record) {
		// The data of these has no names, which could be compressed.
		if section == 0 && r.typ == q.typ && (r.typ == typeA || r.typ == typeAAAA || r.typ == typeTXT) && len(b) < maxFollowed {
			ttl := min(r.ttl, most)
			b = addRecord(b, o.target, r.typ, ttl-min(age, ttl), a.message[r.data:r.end])
		}
	})
	return q.addOPT(b, 0)
}

// about returns q as a question about another name.
func (q *query) about(name string) *query {
	other := *q
	other.name, other.question = name, appendName(nil, name)
	other.question = binary.BigEndian.AppendUint16(other.question, q.typ)
	other.question = binary.BigEndian.AppendUint16(other.question, q.class)
	return &other
}
