package server

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/match"
)

const (
	// MaxLeases is how many leases and offers there can be, of all servers together. On a machine
	// with 32 MB they take 0.3 MB.
	MaxLeases = 1024
	// offerTime is how long an offer is kept for its client.
	offerTime = 20 * time.Second
	// conflictTime is how long an address is left alone that somebody has without a lease.
	conflictTime = 5 * time.Minute
	// temporaryTime is the longest lease of a client whose reserved address somebody else still
	// holds: it shall ask again soon.
	temporaryTime = 5 * time.Minute
)

// Status is what an address of the table is.
type Status byte

// What an address can be.
const (
	Testing  Status = 1 // asked for by ARP, before it is offered
	Offered  Status = 2
	Bound    Status = 3
	Declined Status = 4 // its client has found it in use
	Conflict Status = 5 // found in use by the server
)

func (s Status) String() string {
	names := [...]string{"", "testing", "offered", "bound", "declined", "conflict"}
	if int(s) >= len(names) {
		return ""
	}
	return names[s]
}

// Binding is an address of the table, and who has it.
type Binding struct {
	Address  netip.Addr
	MAC      ether.MAC
	ClientID string // bytes
	// HostName is what the client calls itself, as it sent it, in printable characters; at most
	// maxHostName bytes.
	HostName string
	Server   string
	Status   Status
	// Left is the rest of the lease or of the offer.
	Left time.Duration
}

const maxHostName = 63

// Change is a Binding that is new or has changed, or, with the zero Status, an address that is free
// again.
type Change = Binding

// entry is an address of the table.
type entry struct {
	Binding
	key     string // of its client; "" if it has none
	expires time.Time
	// waiting is the request that is replied to when the address has been tested.
	waiting *query
	timer   *time.Timer // of the test
}

// table is the addresses in use. An address has one entry at most, and so has a client of a server.
type table struct {
	entries map[netip.Addr]*entry
	clients map[string]*entry
	// dirty are the addresses that have changed since the last call of changes.
	dirty map[netip.Addr]bool
}

func newTable() table {
	return table{map[netip.Addr]*entry{}, map[string]*entry{}, map[netip.Addr]bool{}}
}

func (t *table) add(e *entry) {
	t.entries[e.Address] = e
	if e.key != "" {
		t.clients[e.key] = e
	}
	t.dirty[e.Address] = true
}

func (t *table) drop(e *entry) {
	if e.timer != nil {
		e.timer.Stop()
	}
	delete(t.entries, e.Address)
	if e.key != "" && t.clients[e.key] == e {
		delete(t.clients, e.key)
	}
	t.dirty[e.Address] = true
}

// expire drops what has expired, and returns when the next entry does; the zero time if there is
// none.
func (t *table) expire(now time.Time) (next time.Time) {
	for _, e := range t.entries {
		if !e.expires.After(now) {
			t.drop(e)
		} else if next.IsZero() || e.expires.Before(next) {
			next = e.expires
		}
	}
	return next
}

// changes are what has changed since the last call, in the order of the addresses.
func (t *table) changes(now time.Time) []Change {
	var all []Change
	for a := range t.dirty {
		c := Change{Address: a}
		if e := t.entries[a]; e != nil {
			c = e.Binding
			c.Left = e.expires.Sub(now)
		}
		all = append(all, c)
	}
	clear(t.dirty)
	slices.SortFunc(all, func(a, b Change) int { return a.Address.Compare(b.Address) })
	return all
}

// within are the parts of ranges that lie in one of the prefixes.
func within(ranges []match.Addresses, prefixes []netip.Prefix) []match.Addresses {
	var all []match.Addresses
	for _, r := range ranges {
		for _, p := range prefixes {
			part := match.AddressesFromPrefix(p)
			if part.From.Less(r.From) {
				part.From = r.From
			}
			if r.To.Less(part.To) {
				part.To = r.To
			}
			if !part.To.Less(part.From) {
				all = append(all, part)
			}
		}
	}
	return all
}

func number(a netip.Addr) uint32 {
	four := a.As4()
	return binary.BigEndian.Uint32(four[:])
}

func numbered(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// Size is how many addresses there are in ranges.
func Size(ranges []match.Addresses) uint64 {
	var n uint64
	for _, r := range ranges {
		n += uint64(number(r.To)-number(r.From)) + 1
	}
	return n
}

// search returns the first address of ranges that is good. It begins at a place that depends on the
// client: so one that asks again gets the same address, also when its lease has been forgotten. It
// looks at no more than most addresses.
func search(ranges []match.Addresses, client string, most int, good func(netip.Addr) bool) (netip.Addr, bool) {
	size := Size(ranges)
	if size == 0 {
		return netip.Addr{}, false
	}
	h := fnv.New32a()
	h.Write([]byte(client))
	at := uint64(h.Sum32()) % size
	for range min(uint64(most), size) {
		rest := at
		for _, r := range ranges {
			if n := uint64(number(r.To)-number(r.From)) + 1; rest >= n {
				rest -= n
				continue
			}
			if a := numbered(number(r.From) + uint32(rest)); good(a) {
				return a, true
			}
			break
		}
		at = (at + 1) % size
	}
	return netip.Addr{}, false
}
