package console

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/postern-router/postern/firewall"
)

// This file has the removal of what only the running system has, such as a connection. A
// menu has it whose rows have a removal and that has a command like removeConnections.

// Removal is what a line or Do removes of what only the running system has.
type Removal struct {
	// Connections are numbers of connections of the SOCKS server.
	Connections []uint64
	// Tracked are connections that the kernel tracks.
	Tracked []firewall.Tracked
	// Leases are addresses that the DHCP server has given.
	Leases []netip.Addr
	// Renew and Release are interfaces whose DHCP clients renew their leases, or give them back.
	Renew, Release []string
}

func (r Removal) empty() bool {
	return len(r.Connections)+len(r.Tracked)+len(r.Leases)+len(r.Renew)+len(r.Release) == 0
}

// CarryOut removes r from the system of live. It comes after the whole line has succeeded: a
// line that fails removes nothing.
func (r Removal) CarryOut(live Live) error {
	if len(r.Connections) > 0 {
		if err := live.CloseConnections(r.Connections); err != nil {
			return fmt.Errorf("remove connections: %w", err)
		}
	}
	if len(r.Tracked) > 0 {
		if err := live.Forget(r.Tracked); err != nil {
			return fmt.Errorf("remove connections: %w", err)
		}
	}
	if len(r.Leases) > 0 {
		if err := live.RemoveLeases(r.Leases); err != nil {
			return fmt.Errorf("remove leases: %w", err)
		}
	}
	if len(r.Release) > 0 {
		if err := live.ReleaseLeases(r.Release); err != nil {
			return err
		}
	}
	if len(r.Renew) > 0 {
		if err := live.RenewLeases(r.Renew); err != nil {
			return err
		}
	}
	return nil
}

// removeLive removes rows that only the system has.
func (x *execution) removeLive(m *menu, a arguments) error {
	keys, err := x.chosen(m, a.items["numbers"])
	if err != nil {
		return err
	}
	chosen := map[key]bool{}
	for _, k := range keys {
		chosen[k] = true
	}
	x.listed[m.path] = slices.DeleteFunc(slices.Clone(x.listed[m.path]), func(r row) bool {
		if chosen[r.key] {
			r.removal(&x.result.Removal)
		}
		return chosen[r.key]
	})
	return nil
}

// removableRows are the rows of a menu that only the system has and that can be removed. What
// this line has removed already is not among them.
func (x *execution) removableRows(m *menu) ([]row, error) {
	if rows, ok := x.listed[m.path]; ok {
		return rows, nil
	}
	rows, err := m.rows(x)
	if err == nil {
		err = x.identified(m, rows)
	}
	if err != nil {
		return nil, err
	}
	for i := range rows {
		rows[i].key = key{id: rows[i].id}
	}
	x.listed[m.path] = rows
	return rows, nil
}
