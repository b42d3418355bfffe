package web

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-router/postern/console"
)

// This file is REST as RouterOS has it: https://help.mikrotik.com/docs/spaces/ROS/pages/47579162/REST+API

// maxLast bounds .last.
const maxLast = 1000

// selection says which rows of a menu are wanted, and what of them.
type selection struct {
	// equal are names and values that a row must have.
	equal    []parameter
	proplist []string
	// last is how many rows are wanted, the last ones; 0 is all.
	last int
}

// rest carries out a request below /rest.
func (s *Server) rest(ctx context.Context, w *response, r *request, u *user, body string) {
	path := r.segments[1:]
	for _, word := range path {
		// A menu's words have none of these. In the name of an item they could be taken for more words.
		if strings.ContainsAny(word, " /") && word != path[len(path)-1] {
			w.fail(404, "")
			return
		}
	}
	var members []member
	if body != "" {
		if r.contentType != jsonType {
			w.fail(415, "expected "+jsonType)
			return
		}
		var err error
		if members, err = parseObject(body); err != nil {
			w.fail(400, err.Error())
			return
		}
	}
	if len(path) == 0 {
		w.fail(400, "no such command or directory; expected the path of a menu, as in /rest/ip/address")
		return
	}
	w.contentType = jsonType
	err := u.with(ctx, func(session Session) error {
		q := restRequest{session, w, path, members}
		switch r.method {
		case "GET", "HEAD":
			return q.get(r.query)
		case "PUT":
			return q.put()
		case "PATCH":
			return q.patch()
		case "DELETE":
			return q.delete()
		case "POST":
			return q.post()
		}
		w.fields = append(w.fields, "Allow: GET, HEAD, PUT, PATCH, DELETE, POST, OPTIONS")
		w.fail(405, "")
		return nil
	})
	if err != nil {
		failure(w, r.method, path, err)
	}
}

// failure is the answer for an error of a session.
func failure(w *response, method string, path []string, err error) {
	last := console.Printable(path[len(path)-1])
	var h *httpError
	switch {
	case errors.As(err, &h):
		w.fail(h.status, h.detail)
	case errors.Is(err, console.ErrNoSuchItem):
		w.fail(404, console.ErrNoSuchItem.Error())
	case errors.Is(err, console.ErrNoSuchCommand) && method != "POST" && method != "GET" && method != "HEAD":
		verb := map[string]string{"PUT": "add", "PATCH": "set", "DELETE": "remove"}[method]
		w.fail(406, "no such command or directory ("+verb+")")
	case errors.Is(err, console.ErrNoSuchMenu), errors.Is(err, console.ErrNoSuchCommand):
		w.fail(400, "no such command or directory ("+last+")")
	case errors.Is(err, errBusy):
		w.fail(503, err.Error())
	default:
		w.fail(400, err.Error())
	}
}

// restRequest is a request for a session.
type restRequest struct {
	session Session
	w       *response
	path    []string
	members []member
}

// menu is the menu of an item, or of a command: the path without its last word.
func (q restRequest) menu() (menu, last string) {
	end := len(q.path) - 1
	return strings.Join(q.path[:end], "/"), q.path[end]
}

// get shows a menu or an item.
func (q restRequest) get(query []parameter) error {
	sel, err := newSelection(query)
	if err != nil {
		return err
	}
	menu, last := q.menu()
	if !strings.HasPrefix(last, "*") && !strings.ContainsAny(last, " /") {
		err := q.list(strings.Join(q.path, "/"), sel)
		if menu == "" || !errors.Is(err, console.ErrNoSuchMenu) {
			return err
		}
	}
	if menu == "" {
		return console.ErrNoSuchMenu
	}
	row, err := q.item(menu, last, sel.proplist)
	if errors.Is(err, console.ErrNoSuchItem) && !strings.HasPrefix(last, "*") {
		// It may be meant for a menu.
		return &httpError{404, "no such item, command or directory (" + console.Printable(last) + ")"}
	}
	if err == nil {
		_, err = q.w.Write(appendRow(nil, row, sel.proplist))
	}
	return err
}

// newSelection is what a query says.
func newSelection(query []parameter) (selection, error) {
	var sel selection
	for _, p := range query {
		switch p.name {
		case ".proplist":
			sel.proplist = append(sel.proplist, strings.Split(p.value, ",")...)
		case ".last":
			n, err := strconv.ParseUint(p.value, 10, 16)
			if err != nil || n == 0 || n > maxLast {
				return sel, errors.New("value of .last out of range (1.." + strconv.Itoa(maxLast) + ")")
			}
			sel.last = int(n)
		default:
			sel.equal = append(sel.equal, p)
		}
	}
	return sel, nil
}

// query calls each with the rows that sel selects. They have more than its properties.
func (q restRequest) query(menu string, sel selection, each func(console.Row) error) error {
	var names []string
	if len(sel.proplist) > 0 {
		for _, p := range sel.proplist {
			names = appendNew(names, p)
		}
		for _, p := range sel.equal {
			names = appendNew(names, p.name)
		}
	}
	return q.session.Query(menu, nil, names, func(r console.Row) error {
		for _, p := range sel.equal {
			if !equals(r, p.name, p.value) {
				return nil
			}
		}
		return each(r)
	})
}

func appendNew(names []string, name string) []string {
	if slices.Contains(names, name) {
		return names
	}
	return append(names, name)
}

// list shows a menu: an array of objects, or an object if the menu has no items.
func (q restRequest) list(menu string, sel selection) error {
	n := 0
	write := func(r console.Row) error {
		before := byte(',')
		if n == 0 {
			before = '['
		}
		n++
		b := make([]byte, 0, 256)
		if r.ID != 0 {
			b = append(b, before)
		}
		_, err := q.w.Write(appendRow(b, r, sel.proplist))
		return err
	}
	var kept []console.Row // the last ones, in a ring
	var single bool
	err := q.query(menu, sel, func(r console.Row) error {
		single = r.ID == 0
		if sel.last == 0 {
			return write(r)
		}
		if kept = append(kept, r); len(kept) >= 2*sel.last {
			kept = append(kept[:0], kept[len(kept)-sel.last:]...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range kept[max(0, len(kept)-sel.last):] {
		if err := write(r); err != nil {
			return err
		}
	}
	switch {
	case single:
	case n == 0:
		_, err = q.w.Write([]byte("[]"))
	default:
		_, err = q.w.Write([]byte("]"))
	}
	return err
}

// item is the item with that ID or name.
func (q restRequest) item(menu, which string, proplist []string) (item console.Row, err error) {
	sel := selection{proplist: proplist, equal: []parameter{{"name", which}}}
	if id, err := console.ParseID(which); err == nil {
		sel.equal = []parameter{{idName, id.String()}}
	} else if which == "" {
		return item, console.ErrNoSuchItem
	}
	found := false
	err = q.query(menu, sel, func(r console.Row) error {
		if !found && r.ID != 0 {
			item, found = r, true
		}
		return nil
	})
	if err == nil && !found {
		err = console.ErrNoSuchItem
	}
	return item, err
}

// show is the answer to a change of an item: the whole of it.
func (q restRequest) show(menu string, id console.ID) error {
	row, err := q.item(menu, id.String(), nil)
	if err == nil {
		_, err = q.w.Write(appendRow(nil, row, nil))
	}
	return err
}

// arguments are the members of the body.
func (q restRequest) arguments(more ...console.Argument) []console.Argument {
	all := more
	for _, m := range q.members {
		a := console.Argument{Name: m.name, Value: m.text}
		if m.isList {
			a.Value = strings.Join(m.list, ",")
		}
		all = append(all, a)
	}
	return all
}

// put adds an item.
func (q restRequest) put() error {
	menu := strings.Join(q.path, "/")
	id, err := q.session.Do(menu, "add", nil, q.arguments()...)
	if err != nil {
		return err
	}
	q.w.status = 201
	return q.show(menu, id)
}

// patch changes an item.
func (q restRequest) patch() error {
	menu, which := q.menu()
	item, err := q.item(menu, which, []string{"name"})
	if err != nil {
		return err
	}
	if _, err := q.session.Do(menu, "set", nil, q.arguments(console.Argument{Name: idName, Value: item.ID.String()})...); err != nil {
		return err
	}
	return q.show(menu, item.ID)
}

// delete removes an item.
func (q restRequest) delete() error {
	menu, which := q.menu()
	item, err := q.item(menu, which, []string{"name"})
	if err != nil {
		return err
	}
	if _, err := q.session.Do(menu, "remove", nil, console.Argument{Name: idName, Value: item.ID.String()}); err != nil {
		return err
	}
	q.w.status = 204
	return nil
}

// post runs a command.
func (q restRequest) post() error {
	menu, command := q.menu()
	if command == "print" || command == "getall" {
		return q.print(menu)
	}
	id, err := q.session.Do(menu, command, nil, q.arguments()...)
	if err != nil {
		return err
	}
	answer := []byte("[]")
	if id != 0 {
		answer = appendObject(nil, "ret", id.String())
	}
	_, err = q.w.Write(answer)
	return err
}

// print is the command of that name.
func (q restRequest) print(menu string) error {
	var sel selection
	count := false
	for _, m := range q.members {
		switch m.name {
		case ".proplist":
			sel.proplist = m.list
			if !m.isList {
				sel.proplist = strings.Split(m.text, ",")
			}
		case ".query":
			for _, word := range m.list {
				name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(word, "?"), "="), "=")
				if !ok || strings.ContainsAny(name[:min(1, len(name))], "#<>-") {
					return errors.New("invalid query " + console.Printable(word) + "; expected name=value")
				}
				sel.equal = append(sel.equal, parameter{name, value})
			}
		case "count-only":
			count = m.text != "no"
		case "detail", "stats", "without-paging":
		default:
			return errors.New("unknown parameter " + console.Printable(m.name))
		}
	}
	if !count {
		return q.list(menu, sel)
	}
	n := 0
	err := q.query(menu, sel, func(console.Row) error { n++; return nil })
	if err == nil {
		_, err = q.w.Write(appendObject(nil, "ret", strconv.Itoa(n)))
	}
	return err
}
