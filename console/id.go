package console

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/postern-router/postern/netcfg"
)

// ID is the identity of an item for as long as the router runs: the item keeps it when it
// is changed or moved, and so do all others. No other item ever has it. The zero ID is
// that of nothing.
//
//   - A port's counts the machine's ports, from 1: they are what they are.
//   - An item that came with the configuration when the router started has one by its
//     place: each list has MaxItems numbers of its own.
//   - An item that was added later has the next number that no item has had.
//   - What the system lists and nobody can change (a connection, a neighbour) has one of
//     the numbers from firstLive on, by what makes it what it is.
type ID uint32

// String is the written form, as RouterOS has it: "*" and the number in upper-case
// hexadecimal digits.
func (id ID) String() string { return "*" + strings.ToUpper(strconv.FormatUint(uint64(id), 16)) }

// ParseID reads what String wrote, and lower-case digits.
func ParseID(s string) (ID, error) {
	digits, ok := strings.CutPrefix(s, "*")
	n, err := strconv.ParseUint(digits, 16, 32)
	if !ok || err != nil || n == 0 {
		return 0, errors.New("not an item's id")
	}
	return ID(n), nil
}

// firstLive is the least ID of what the system lists: no router adds 2^31 items.
const firstLive ID = 1 << 31

// lastID is the greatest ID of an item that was added.
var lastID atomic.Uint32

// newID returns an ID that no item has had.
func newID() ID { return ID(lists*MaxItems + lastID.Add(1)) }

// placeID is the ID of an item of a list that came with the configuration.
func placeID(list, i int) ID { return ID(list*MaxItems + i + 1) }

// key is what the number of an item refers to: an item of the configuration by its ID, a port
// by the board's name for it. The zero key is that of what cannot be changed.
type key struct {
	id   ID
	port string
}

// liveID is the ID of a row that only the system has, in m, by the properties that make it
// what it is. Seen counts those that are alike in these.
func liveID(m *menu, r row, seen map[ID]int) ID {
	hash := uint32(2166136261) // FNV-1a
	add := func(text string) {
		for i := range len(text) {
			hash = (hash ^ uint32(text[i])) * 16777619
		}
	}
	add(m.path)
	for _, p := range r.pairs {
		if m.identify == nil || slices.Contains(m.identify, p.Name) {
			add(" " + p.Value.text)
		}
	}
	id := ID(hash) | firstLive
	n := seen[id]
	seen[id]++
	return (id + ID(n)*0x9E3779B1) | firstLive
}

// keyID is the ID of what a key refers to.
func (x *execution) keyID(k key) (ID, error) {
	if k.port == "" {
		return k.id, nil
	}
	ports, err := x.ports()
	i := slices.IndexFunc(ports, func(p netcfg.LinkState) bool { return p.Name == k.port })
	return placeID(linkItems, i), err
}
