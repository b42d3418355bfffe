package console

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// This file has the commands that change the configuration.

// apply sets properties of one item, or of a menu without items (item 0).
func (x *execution) apply(item int, values []assignment) error {
	for _, v := range values {
		if err := v.property.set(&x.cfg, item, v.value); err != nil {
			return err
		}
		if v.property.hashed == nil || v.value == "" {
			continue
		}
		if x.live.HashPassword == nil {
			return unavailable("passwords")
		}
		hash, err := x.live.HashPassword(v.value, v.property.hashed.get(&x.cfg, item))
		if err != nil {
			return fmt.Errorf("hash the password: %w", err)
		}
		if err := v.property.hashed.set(&x.cfg, item, hash); err != nil {
			return err
		}
	}
	return nil
}

// checkComputed compares what a line says about properties that cannot be set with what they
// are for an item.
func (x *execution) checkComputed(item int, values []computed) error {
	for _, v := range values {
		if is := v.property.of(&x.cfg, item).Value.text; v.value != is {
			return valueError(v.property.name, v.value, is, false, nil)
		}
	}
	return nil
}

func (x *execution) set(_ *menu, a arguments) error { return x.apply(0, a.values) }

func (x *execution) reset(m *menu, a arguments) error {
	for _, p := range m.properties {
		if len(a.words) == 0 || slices.Contains(a.words, p.name) {
			if err := p.set(&x.cfg, 0, p.def); err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *execution) setItems(m *menu, a arguments) error {
	which, some, err := m.present(a.items["numbers"], a.values)
	if err != nil || !some {
		return err
	}
	indices, err := x.resolve(m, which)
	if err != nil {
		return err
	}
	for _, i := range indices {
		if err := cmp.Or(x.apply(i, a.values), x.checkComputed(i, a.computed)); err != nil {
			return err
		}
	}
	return nil
}

// unset unsets properties of the items that numbers refers to, or of a menu without items.
func (x *execution) unset(m *menu, a arguments) error {
	for name := range strings.SplitSeq(a.options.valueName, ",") {
		// No abbreviation wins over a property that needs its value.
		full, err := complete(name, choiceNames(m.propertyChoices()))
		if errors.Is(err, errAmbiguous) {
			return valueError(valueName, name, "", true, err)
		}
		if err != nil {
			return valueError(valueName, name, strings.Join(choiceNames(m.unsettable()), " | "), true, errNoMatch)
		}
		p, _ := m.property(full)
		if p.unset == "" {
			return errors.New("property " + full + " cannot be unset; expected " + strings.Join(choiceNames(m.unsettable()), " | "))
		}
		a.values = append(a.values, assignment{p, ""})
	}
	if _, ok := a.items["numbers"]; ok {
		return x.setItems(m, a)
	}
	return x.set(m, a)
}

// propertyChoices are the properties of m, and unsettable those that can be unset.
func (m *menu) propertyChoices() []Choice {
	var all []Choice
	for _, p := range m.properties {
		all = append(all, Choice{p.name, p.help})
	}
	return all
}

func (m *menu) unsettable() []Choice {
	return slices.DeleteFunc(m.propertyChoices(), func(c Choice) bool {
		p, _ := m.property(c.Name)
		return p.unset == ""
	})
}

// setOne sets one property of the items that numbers refers to.
func (x *execution) setOne(m *menu, a arguments, name, value string) error {
	if m.allLinks {
		keys, err := x.chosen(m, a.items["numbers"])
		for _, k := range keys {
			of, i, err := x.gathered(k)
			if err != nil {
				return err
			}
			p, _ := of.property(name)
			if err := x.apply(i, []assignment{{p, value}}); err != nil {
				return err
			}
		}
		return err
	}
	p, _ := m.property(name)
	a.values = []assignment{{p, value}}
	return x.setItems(m, a)
}

func (x *execution) enable(m *menu, a arguments) error { return x.setOne(m, a, "disabled", "no") }

func (x *execution) disable(m *menu, a arguments) error { return x.setOne(m, a, "disabled", "yes") }

func (x *execution) comment(m *menu, a arguments) error {
	return x.setOne(m, a, "comment", a.options.comment)
}

func (x *execution) add(m *menu, a arguments) error {
	from, err := x.one(m, a, "copy-from")
	if err != nil {
		return err
	}
	before, err := x.one(m, a, "place-before")
	if err != nil {
		return err
	}
	i, err := x.append(m)
	if err != nil {
		return err
	}
	if from >= 0 {
		for _, p := range m.properties {
			if p.hashed != nil {
				continue
			}
			if err := p.set(&x.cfg, i, p.get(&x.cfg, from)); err != nil {
				return err
			}
		}
	}
	if err := x.apply(i, a.values); err != nil {
		return err
	}
	var missing []string
	unless := ""
	for _, p := range m.properties {
		given := slices.ContainsFunc(a.values, func(v assignment) bool { return v.property.name == p.name })
		hashGiven := p.hashed != nil && p.hashed.get(&x.cfg, i) != ""
		if p.waived != nil {
			given = p.waived(&x.cfg, i) || p.get(&x.cfg, i) != ""
		}
		if p.required() && !given && !hashGiven && from < 0 {
			missing = append(missing, p.name)
			if p.waivedBy != "" {
				unless = ", which only " + p.waivedBy + " does without"
			}
		}
	}
	if err := missingArguments(missing); err != nil {
		return errors.New(err.Error() + unless)
	}
	if err := x.checkComputed(i, a.computed); err != nil {
		return err
	}
	if old := x.alike(m, i); old >= 0 && before < 0 {
		id := (*m.items.ids(&x.cfg))[old]
		delete(x.there, id)
		m.items.remove(&x.cfg, i)
		x.result.Added = id
		return nil
	}
	if err := x.checkCount(m); err != nil {
		return err
	}
	x.result.Added = (*m.items.ids(&x.cfg))[i]
	if before >= 0 {
		m.items.move(&x.cfg, i, before)
	}
	return nil
}

// alike returns the index of an item that was there before an import, that no line of it has
// added again yet and that has the same properties as item i; -1 if there is none. In a list of
// rules the first match decides, so a rule behind one like it would never decide. What is sensitive may be missing, as
// exports have it only on request.
func (x *execution) alike(m *menu, i int) int {
	for old, id := range *m.items.ids(&x.cfg) {
		differs := func(p property) bool {
			now := p.get(&x.cfg, i)
			return p.get(&x.cfg, old) != now && !(p.sensitive && now == "")
		}
		if x.there[id] && !slices.ContainsFunc(m.properties, differs) {
			return old
		}
	}
	return -1
}

// one returns the index of the single item that an argument refers to, or -1 if the argument
// was not given.
func (x *execution) one(m *menu, a arguments, name string) (int, error) {
	w, given := a.items[name]
	if !given {
		return -1, nil
	}
	indices, err := x.resolve(m, w)
	switch {
	case err != nil:
		return 0, err
	case len(indices) == 0:
		return 0, noSuchItem(w.String())
	case len(indices) > 1:
		return 0, errors.New("invalid value for argument " + name + "; expected one item, not several")
	}
	return indices[0], nil
}

func (x *execution) remove(m *menu, a arguments) error {
	indices, err := x.resolve(m, a.items["numbers"])
	if err != nil {
		return err
	}
	x.removeItems(m, indices)
	return nil
}

// move puts items before another, in the order in which they were named.
func (x *execution) move(m *menu, a arguments) error {
	indices, err := x.resolve(m, a.items["numbers"])
	if err != nil {
		return err
	}
	to, err := x.one(m, a, "destination")
	if err != nil {
		return err
	}
	ids := slices.Clone(*m.items.ids(&x.cfg))
	now := func(id ID) int { return slices.Index(*m.items.ids(&x.cfg), id) }
	for _, i := range indices {
		if i == to {
			continue
		}
		from, place := now(ids[i]), len(ids)-1
		if to >= 0 {
			if place = now(ids[to]); place > from {
				place-- // its own place becomes free
			}
		}
		m.items.move(&x.cfg, from, place)
	}
	return nil
}

// get prints the value of a property or a flag of one item, or of a menu without items. One that is unset
// is an empty line.
func (x *execution) get(m *menu, a arguments) error {
	name, err := complete(a.options.valueName, m.conditionNames())
	if err != nil {
		if !errors.Is(err, errAmbiguous) {
			err = errNoMatch
		}
		return valueError(valueName, a.options.valueName, strings.Join(m.conditionNames(), " | "), true, err)
	}
	rows, err := x.itemRows(m)
	if err != nil {
		return err
	}
	which := 0
	if w, ok := a.items["numbers"]; ok {
		if which, err = x.oneRow(m, w, rows); err != nil {
			return byNumber("get", err, "print where dynamic")
		}
	}
	if slices.ContainsFunc(m.readOnly, func(p readOnly) bool { return p.counted && p.name == name }) {
		if err := m.stats(x, m, rows); err != nil {
			return err
		}
	}
	value := rows[which].value(name)
	if flag := m.flag(name); flag != 0 {
		value = boolean().format(rows[which].flags&flag != 0)
	}
	fmt.Fprintln(&x.out, Printable(value))
	return nil
}

var errSeveral = errors.New("invalid value for argument numbers; expected one item, not several")

// only is the one item that a word refers to, of all that it does; err is that of looking for them.
func only[T any](w word, all []T, err error) (item T, _ error) {
	switch {
	case err != nil:
		return item, err
	case len(all) == 0:
		return item, noSuchItem(w.String())
	case len(all) > 1:
		return item, errSeveral
	}
	return all[0], nil
}

// oneRow returns the index of the one row that a word refers to.
func (x *execution) oneRow(m *menu, w word, rows []row) (int, error) {
	if m.fixed != nil {
		indices, err := x.resolve(m, w)
		return only(w, indices, err)
	}
	keys, err := x.chosen(m, w)
	chosen, err := only(w, keys, err)
	if err != nil {
		return 0, err
	}
	which := slices.IndexFunc(rows, func(r row) bool { return r.key == chosen })
	if which < 0 {
		return 0, dynamicItem(w.String())
	}
	return which, nil
}

// find prints the numbers of the items that meet the conditions.
func (x *execution) find(m *menu, a arguments) error {
	rows, err := x.itemRows(m)
	if err != nil {
		return err
	}
	numbered, err := x.numbered(m)
	if err != nil {
		return err
	}
	var found []string
	if rows, err = x.matching(m, rows, a.where); err != nil {
		return err
	}
	for _, r := range rows {
		if n := slices.Index(numbered, r.key); n >= 0 {
			found = append(found, fmt.Sprint(n))
		}
	}
	if len(found) > 0 {
		fmt.Fprintln(&x.out, strings.Join(found, ","))
	}
	return nil
}
