package dns

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// used is how many bytes the cache takes.
func (s *server) used() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cache.used()
}

// snapshot lists what the server knows, at most MaxCacheEntries, and counts what is left out: static
// entries, what is in the cache, the newest first, and names of hosts with a lease.
func (s *server) snapshot() (all []CacheEntry, left int) {
	s.mu.Lock()
	static, hosts, most := s.config.Static, s.names.hosts.byName, seconds(s.config.MaxTTL)
	s.mu.Unlock()
	for _, e := range static {
		all = appendStatic(all, e)
	}
	shown := 0
	s.eachCached(func(e entry, age uint32, cached int) bool {
		if len(all) >= MaxCacheEntries {
			left = max(0, cached-shown)
			return false
		}
		all = e.appendTo(all, age, most)
		shown++
		return true
	})
	for name, h := range hosts {
		if len(all) >= MaxCacheEntries {
			left++
			continue
		}
		all = append(all, CacheEntry{Name: name, Type: typeA, Data: h.Address.String(), TTL: time.Duration(h.ttl()) * time.Second})
	}
	return all, left
}

// breath is a pause in which questions are answered that have come while a chunk was listed.
const breath = time.Millisecond

// eachCached calls f for the answers in the cache, the one that was put last first, until it returns false: with the age of
// the answer in seconds, and how many there are. f may take its time: it gets a copy, of one chunk after the other, and nobody
// waits for it meanwhile. What comes, goes or stays on in another chunk meanwhile may be missed, and an emptied cache has no more.
func (s *server) eachCached(f func(e entry, age uint32, cached int) bool) {
	now := time.Now()
	s.mu.Lock()
	changes, number := s.changes, s.cache.end()
	s.mu.Unlock()
	var chunk []byte
	var places []int
	for {
		number--
		s.mu.Lock()
		ok := s.changes == changes
		if ok {
			chunk, ok = s.cache.copyChunk(number, chunk)
		}
		epoch, cached := s.cache.epoch, len(s.cache.index)
		s.mu.Unlock()
		if !ok {
			return
		}
		places = places[:0]
		for at := 0; at < len(chunk); at += entry(chunk[at:]).size() {
			places = append(places, at)
		}
		for _, at := range slices.Backward(places) {
			if e := entry(chunk[at:]); !f(e, e.age(epoch, now), cached) {
				return
			}
		}
		time.Sleep(breath)
	}
}

// appendStatic appends what a static entry says to be there, or not to be there. One that only says
// whom to ask is left out.
func appendStatic(all []CacheEntry, s Static) []CacheEntry {
	e := CacheEntry{Name: strings.ToLower(s.Name), TTL: s.TTL, Static: true}
	if s.Regexp != "" {
		e.Name = s.Regexp
	}
	switch {
	case s.Type == "NXDOMAIN":
		e.Type, e.Negative = typeANY, true
	case s.typ() == 0:
		return all
	default:
		b := s.data()
		r := record{typ: s.typ(), end: len(b)}
		e.Type, e.Data = r.typ, r.text(b)
	}
	return append(all, e)
}

// appendTo appends what the entry says after age seconds, of which most is the longest that counts,
// up to MaxCacheEntries in all.
func (e entry) appendTo(all []CacheEntry, age, most uint32) []CacheEntry {
	left := min(e.seconds(), most)
	if age >= left {
		return all
	}
	b, first := e.message(), len(all)
	name, at, ok := readName(b, headerSize)
	typ := binary.BigEndian.Uint16(b[at:])
	at += 4
	for range binary.BigEndian.Uint16(b[6:]) {
		owner, _, named := readName(b, at)
		r, whole := readRecord(b, at)
		if !named || !whole || len(all) == MaxCacheEntries {
			break // a name may have a dot in a label
		}
		at = r.end
		ttl := min(r.ttl, most)
		all = append(all, CacheEntry{Name: dotted(owner), Type: r.typ, Data: r.text(b), TTL: time.Duration(ttl-min(age, ttl)) * time.Second})
	}
	if ok && len(all) == first {
		all = append(all, CacheEntry{Name: dotted(name), Type: typ, TTL: time.Duration(left-age) * time.Second, Negative: true})
	}
	return all
}

// dotted is a name as it is shown: the root is a dot.
func dotted(name string) string {
	if name == "" {
		return "."
	}
	return name
}

// text is the data of a record of message b, as a zone file has it (RFC 1035, section 5.1); a type
// that is not known here is in hexadecimal digits.
func (r record) text(b []byte) string {
	data := b[r.data:r.end]
	// words are numbers of two bytes ahead of a name.
	words := 0
	switch r.typ {
	case typeA, typeAAAA:
		if a, ok := netip.AddrFromSlice(data); ok {
			return a.String()
		}
	case typeTXT:
		var text strings.Builder
		for len(data) > 0 && int(data[0]) < len(data) && text.Len() <= maxCacheData { // more is cut
			end := 1 + int(data[0])
			text.Write(data[1:end])
			data = data[end:]
		}
		return text.String()
	case typeSRV:
		words = 3
		fallthrough
	case typeMX:
		words = max(words, 1)
		fallthrough
	case typeCNAME, typePTR, typeNS, typeDNAME, typeSOA:
		if len(data) < 2*words {
			break
		}
		var text strings.Builder
		for i := range words {
			text.WriteString(strconv.Itoa(int(binary.BigEndian.Uint16(data[2*i:]))) + " ")
		}
		if name, _, ok := readName(b[:r.end], r.data+2*words); ok {
			return text.String() + dotted(name)
		}
	}
	// Longer data is cut on its way, too.
	return hex.EncodeToString(data[:min(len(data), maxCacheData)])
}
