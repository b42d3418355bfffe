package dns

import (
	"encoding/binary"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

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
		for _, name := range []*string{&s.Name, &s.CNAME, &s.NS, &s.MXExchange, &s.SRVTarget} {
			*name = strings.ToLower(*name)
		}
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
		return q.own(typePTR, n.hosts.byName[name].ttl(), appendName(nil, name))
	}
	name := q.name
	var b []byte
	for range maxAliases {
		all := n.find(name)
		host, ok := n.hosts.byName[name]
		if b == nil {
			if len(all) == 0 && !ok { // as most names: there is no answer to begin
				return o
			}
			b = q.reply(codeOK)
		}
		if len(all) == 0 {
			switch {
			case ok && q.typ == typeA:
				a := host.Address.As4()
				b = addRecord(b, name, typeA, host.ttl(), a[:])
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
				b = addRecord(b, name, typeCNAME, seconds(s.TTL), s.data())
				next = s.CNAME
			case s.typ() == q.typ && s.Type != "CNAME" && len(b) < maxOwn:
				b, found = addRecord(b, name, q.typ, seconds(s.TTL), s.data()), true
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

// typ is the type of the record that an entry makes, 0 if it makes none.
func (s Static) typ() uint16 {
	switch s.Type {
	case "A":
		return typeA
	case "AAAA":
		return typeAAAA
	case "CNAME":
		return typeCNAME
	case "MX":
		return typeMX
	case "NS":
		return typeNS
	case "SRV":
		return typeSRV
	case "TXT":
		return typeTXT
	}
	return 0
}

// data is what that record has as its data: RFC 1035, section 3.3, RFC 3596 and, for SRV, RFC 2782.
func (s Static) data() []byte {
	switch s.typ() {
	case typeCNAME:
		return appendName(nil, s.CNAME)
	case typeMX:
		return appendName(binary.BigEndian.AppendUint16(nil, s.MXPreference), s.MXExchange)
	case typeNS:
		return appendName(nil, s.NS)
	case typeSRV:
		b := binary.BigEndian.AppendUint16(nil, s.SRVPriority)
		b = binary.BigEndian.AppendUint16(b, s.SRVWeight)
		return appendName(binary.BigEndian.AppendUint16(b, s.SRVPort), s.SRVTarget)
	case typeTXT:
		return append([]byte{byte(len(s.Text))}, s.Text...)
	}
	return s.Address.AsSlice()
}

// own is an answer with one record of the name that was asked for.
func (q *query) own(typ uint16, ttl uint32, data []byte) outcome {
	return outcome{answer: q.addOPT(addRecord(q.reply(codeOK), q.name, typ, ttl, data), 0)}
}

// final is the answer to q when the servers have said a, which was kept for age seconds. It may be in the memory of b.
func (o outcome) final(b []byte, q *query, a answer, age, most uint32) []byte {
	if o.known && (a.code != codeOK || a.truncated) {
		a = answer{message: q.reply(codeOK)}
	}
	switch {
	case o.target != "":
		return o.follow(q, a, age, most)
	case a.truncated:
		return q.tooLarge(a.code)
	}
	return a.forClient(b, q, age, most)
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
