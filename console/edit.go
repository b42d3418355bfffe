package console

import (
	"errors"
	"strings"
)

// This file has the command edit, which lets a person change a value where he sees it.

var (
	editSetting = command{name: "edit", help: "change a value where it stands: Ctrl-O or Enter keeps it, Ctrl-C leaves it as it was",
		positional: []string{valueName}, arguments: []argument{valueArgument}, needs: Edit, run: (*execution).edit}
	editItem = command{name: "edit", help: editSetting.help, positional: []string{"numbers", valueName},
		arguments: []argument{numbersArgument, valueArgument}, needs: Edit, run: (*execution).edit}
)

// EditArguments are what the user of a terminal is to edit.
type EditArguments struct {
	Property, Value string
	// set is the line without the property, and unset is whether "" means to unset it.
	set   string
	unset bool
}

// Line is the line that makes value the new one.
func (e EditArguments) Line(value string) string {
	if value == "" && e.unset {
		return e.set + " !" + e.Property
	}
	return e.set + " " + e.Property + "=" + quote(value)
}

// edit asks for another value of a property of one item, or of a menu without items.
func (x *execution) edit(m *menu, a arguments) error {
	name, err := complete(a.options.valueName, choiceNames(m.propertyChoices()))
	if err != nil {
		if !errors.Is(err, errAmbiguous) {
			err = errNoMatch
		}
		return valueError(valueName, a.options.valueName, strings.Join(choiceNames(m.propertyChoices()), " | "), true, err)
	}
	p, _ := m.property(name)
	if p.sensitive || p.hashed != nil {
		return errors.New("failure: " + name + " is not shown; set changes it")
	}
	e := EditArguments{Property: name, set: "/" + m.path + " set", unset: p.unset != ""}
	item := 0
	if w, ok := a.items["numbers"]; ok {
		indices, err := x.resolve(m, w)
		switch {
		case err != nil:
			return byNumber("edit", err, "an item that was not made by the system")
		case len(indices) == 0:
			return noSuchItem(w.String())
		case len(indices) > 1:
			return errSeveral
		}
		item = indices[0]
		w.key, w.assigned = "", false
		e.set += " " + w.String()
	}
	e.Value = p.get(&x.cfg, item)
	if Printable(e.Value) != e.Value {
		return errors.New("failure: " + name + " has characters that no terminal shows; set changes it")
	}
	x.result.Edit = e
	return x.ask(Edit)
}
