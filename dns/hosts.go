package dns

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-router/postern/service"
)

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

// The limits of the names of hosts that have a lease.
const (
	// MaxHosts is how many of these names there can be.
	MaxHosts = 1024
	// maxHostBytes is how many bytes they take at most on their way to the process.
	maxHostBytes = 128 << 10
)

// encodeHosts writes names and addresses, the first in alphabetical order if there are too many, and
// returns how many that were.
func encodeHosts(e *service.Encoder, hosts map[string]netip.Addr) int {
	names := slices.Sorted(maps.Keys(hosts))
	count, size := 0, 0
	for _, name := range names {
		size += len(name) + 8
		if count == MaxHosts || size > maxHostBytes {
			break
		}
		count++
	}
	e.Uint(uint64(count))
	for _, name := range names[:count] {
		e.String(name)
		e.Addr(hosts[name])
	}
	return count
}

func decodeHosts(d *service.Decoder) map[string]netip.Addr {
	hosts := map[string]netip.Addr{}
	for range d.Count(MaxHosts) {
		name, a := d.String(MaxName), d.Addr()
		if !a.Is4() {
			d.Fail(errors.New("a host without an IPv4 address"))
			break
		}
		hosts[name] = a
	}
	return hosts
}
