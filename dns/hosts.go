package dns

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/service"
)

// Host is a host that has a lease. Ending says that the lease may be over within HostTTL: its name is not to be kept by who
// asks.
type Host struct {
	Address netip.Addr
	Ending  bool
}

// ttl is how many seconds who asks keeps what is said about the host.
func (h Host) ttl() uint32 {
	if h.Ending {
		return 0
	}
	return seconds(HostTTL)
}

// hosts are names of hosts with a lease, and by the names of their PTR records.
type hosts struct {
	byName  map[string]Host
	reverse map[string]string
}

// HostTTL is how long clients keep the name of a host with a lease.
const HostTTL = time.Minute

func newHosts(all map[string]Host) hosts {
	h := hosts{map[string]Host{}, map[string]string{}}
	for name, host := range all {
		name = strings.ToLower(name)
		h.byName[name] = host
		// With its domain, if it has that name too.
		if reverse := reverseName(host.Address); len(name) > len(h.reverse[reverse]) {
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
func encodeHosts(e *service.Encoder, hosts map[string]Host) int {
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
		e.Addr(hosts[name].Address)
		e.Bool(hosts[name].Ending)
	}
	return count
}

func decodeHosts(d *service.Decoder) map[string]Host {
	hosts := map[string]Host{}
	for range d.Count(MaxHosts) {
		name, h := d.String(MaxName), Host{d.Addr(), d.Bool()}
		if !h.Address.Is4() {
			d.Fail(errors.New("a host without an IPv4 address"))
			break
		}
		hosts[name] = h
	}
	return hosts
}
