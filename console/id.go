package console

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/socks"
)

// ID identifies an item for as long as the router runs. The item keeps its ID when it, or any
// other, is changed or moved, and no other item ever gets it. No item has the ID 0.
//
//   - A port's ID is its place among the machine's ports, from 1.
//   - An item that was there when the router started has an ID by its list and its place:
//     each list has MaxItems of them, and the last two as many as they can have items.
//   - An item that is added later gets the next ID that no item has had.
//   - What only the system has and nobody can change (a connection, a neighbour) has an ID
//     from firstLive on, by what identifies it (menu.identify): the same again gets the same
//     ID.
type ID uint32

// String writes "*" and the number in upper-case hexadecimal digits, as RouterOS does.
func (id ID) String() string { return "*" + strings.ToUpper(strconv.FormatUint(uint64(id), 16)) }

// ParseID parses what String writes; it accepts lower-case digits too.
func ParseID(s string) (ID, error) {
	digits, ok := strings.CutPrefix(s, "*")
	n, err := strconv.ParseUint(digits, 16, 32)
	if !ok || err != nil || n == 0 {
		return 0, errors.New("not an item's id")
	}
	return ID(n), nil
}

// firstLive is the lowest ID of what only the system has. No router adds 2^31 items.
const firstLive ID = 1 << 31

// lastID counts the items that have been added.
var lastID atomic.Uint32

// newID returns an ID that no item has had.
func newID() ID { return placeID(socksUserItems, socks.MaxUsers) + ID(lastID.Add(1)) }

// placeID is the ID of item i of a list that came from a file or a program.
func placeID(list, i int) ID {
	if list == socksUserItems {
		i += firewall.MaxAddresses - MaxItems // of the list before it
	}
	return ID(list*MaxItems + i + 1)
}

// key is what the number of an item refers to: an item of the configuration by its ID, or a
// port by the board's name. What cannot be changed has the zero key.
type key struct {
	id   ID
	port string
}

// liveID is the ID of a row of m that only the system has: a hash of the properties that
// identify it. seen counts the rows with equal hashes.
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

// keyID is the ID of the item that a key refers to.
func (x *execution) keyID(k key) (ID, error) {
	if k.port == "" {
		return k.id, nil
	}
	ports, err := x.ports()
	i := slices.IndexFunc(ports, func(p netcfg.LinkState) bool { return p.Name == k.port })
	return placeID(linkItems, i), err
}
