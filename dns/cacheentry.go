package dns

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/postern-router/postern/service"
)

// CacheEntry is what the server knows of a name and a type, as a person is shown it.
type CacheEntry struct {
	// Name is in lower case, without the last dot. It came from the network: it can have any bytes.
	Name string
	// Type is that of the record; of a negative entry, that of the question.
	Type uint16
	// Data is the record's data as text: an address, a name, a text. A negative entry has none.
	Data string
	// TTL is how long the entry is still kept.
	TTL time.Duration
	// Static says that the entry is the user's, Negative that there is no such record.
	Static, Negative bool
}

// TypeName is the name of the entry's type, as in zone files: "AAAA"; "TYPE999" for one that has no
// name here (RFC 3597, section 5).
func (e CacheEntry) TypeName() string {
	if name := typeNames[e.Type]; name != "" {
		return name
	}
	return "TYPE" + strconv.Itoa(int(e.Type))
}

const typeNS, typeMX, typeSRV, typeDNAME = 2, 15, 33, 39

// typeNames are those of https://www.iana.org/assignments/dns-parameters that hosts ask for.
var typeNames = map[uint16]string{
	typeA: "A", typeNS: "NS", typeCNAME: "CNAME", typeSOA: "SOA", typePTR: "PTR", 13: "HINFO", typeMX: "MX", typeTXT: "TXT", typeAAAA: "AAAA", 29: "LOC",
	typeSRV: "SRV", 35: "NAPTR", typeDNAME: "DNAME", 43: "DS", 44: "SSHFP", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 50: "NSEC3", 52: "TLSA",
	64: "SVCB", 65: "HTTPS", 99: "SPF", typeANY: "ANY", 256: "URI", 257: "CAA",
}

// The limits of a list of cache entries on its way to PID 1.
const (
	// MaxCacheEntries is how many entries a list has at most.
	MaxCacheEntries = 1000
	// maxCacheBytes is how many bytes it takes at most.
	maxCacheBytes = 128 << 10
	// maxCacheData is how many bytes of an entry's data are in it; longer data ends with "...".
	maxCacheData = 255
)

// encodeCache writes the first of all, as many as the limits allow, and how many are left out, with
// those that were left out before.
func encodeCache(e *service.Encoder, all []CacheEntry, left int) {
	count, size := 0, 0
	for _, entry := range all {
		// The numbers have 10 bytes at most each.
		size += len(entry.Name) + min(len(entry.Data), maxCacheData) + 32
		if count == MaxCacheEntries || size > maxCacheBytes {
			break
		}
		count++
	}
	e.Uint(uint64(left + len(all) - count))
	e.Uint(uint64(count))
	for _, entry := range all[:count] {
		e.String(entry.Name)
		e.Uint(uint64(entry.Type))
		e.String(shortened(entry.Data))
		e.Int(int64(entry.TTL))
		e.Bool(entry.Static)
		e.Bool(entry.Negative)
	}
}

// decodeCache reads what encodeCache wrote. The process is not believed: what it says is bounded.
func decodeCache(d *service.Decoder) (list []CacheEntry, left int) {
	left = int(d.Uint(1 << 20))
	for range d.Count(MaxCacheEntries) {
		list = append(list, CacheEntry{Name: d.String(MaxName), Type: uint16(d.Uint(1<<16 - 1)), Data: d.String(maxCacheData), TTL: max(0, d.Duration()),
			Static: d.Bool(), Negative: d.Bool()})
	}
	return list, left
}

// shortened cuts data that is too long, between two characters.
func shortened(data string) string {
	if len(data) <= maxCacheData {
		return data
	}
	const more = "..."
	end := maxCacheData - len(more)
	for end > 0 && !utf8.RuneStart(data[end]) {
		end--
	}
	return data[:end] + more
}
