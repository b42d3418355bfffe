package console

import "slices"

// This file has the removal of what only the running system has, such as a connection. A
// menu has it whose rows have a removal and that has a command like removeConnections. And the choice of rows in menus
// that have both: items of the configuration, and rows of the running system.

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
			r.removal(&x.result.Action)
		}
		return chosen[r.key]
	})
	return nil
}

// numberedRows are the rows of a menu that only the system has and that have numbers. What this
// line has removed already is not among them.
func (x *execution) numberedRows(m *menu) ([]row, error) {
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

// chosenOf are the rows, of those that dynamic returns, and the indices of the items of the configuration that an argument
// refers to, each once.
func (x *execution) chosenOf(m *menu, a arguments, dynamic func() ([]row, error)) (rows []row, items []int, err error) {
	keys, err := x.chosen(m, a.items["numbers"])
	if err != nil {
		return nil, nil, err
	}
	all, err := dynamic()
	if err != nil {
		return nil, nil, err
	}
	for i, k := range keys {
		if slices.Contains(keys[:i], k) {
			continue
		}
		if item := slices.Index(*m.items.ids(&x.cfg), k.id); item >= 0 {
			items = append(items, item)
			continue
		}
		rows = append(rows, all[slices.IndexFunc(all, func(r row) bool { return r.key == k })])
	}
	return rows, items, nil
}

// removeItems removes items of the configuration by their indices.
func (x *execution) removeItems(m *menu, items []int) {
	slices.Sort(items)
	for _, i := range slices.Backward(items) {
		m.items.remove(&x.cfg, i)
	}
}
