package web

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-router/postern/api"
	"github.com/postern-router/postern/console"
)

// This file is REST as RouterOS has it, which is the API in another form:
// https://help.mikrotik.com/docs/spaces/ROS/pages/47579162/REST+API

const (
	// maxLast bounds .last.
	maxLast = 1000
	idName  = ".id"
)

// rest carries out a request below /rest.
func (s *Server) rest(ctx context.Context, w *response, r *request, u *user, body string) {
	path := r.segments[1:]
	for _, word := range path[:max(0, len(path)-1)] {
		// A menu's words have none of these. In the name of an item they could be taken for more words.
		if strings.ContainsAny(word, " /") {
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
	err := u.with(ctx, timeFor(r.method, path), func(session Session) error {
		q := restRequest{ctx, session, w, path, members}
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

// timeFor is how long a request may take.
func timeFor(method string, path []string) time.Duration {
	switch strings.Join(path, " ") {
	case "system upgrade", "system package update install":
		if method == "POST" {
			return upgradeTime
		}
	}
	return commandTime
}

// failure is the answer for an error of a session.
func failure(w *response, method string, path []string, err error) {
	last := console.Printable(path[len(path)-1])
	var h *httpError
	switch {
	case errors.As(err, &h):
		w.fail(h.status, h.detail)
	case errors.Is(err, console.ErrNotPermitted):
		w.fail(500, console.ErrNotPermitted.Error()) // as RouterOS has it
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
	ctx     context.Context
	session Session
	w       *response
	path    []string
	members []member
}

// menu is the menu of an item, or of a command: the path without its last word.
func (q restRequest) menu() (menu, last string) {
	end := len(q.path) - 1
	return strings.Join(q.path[:end], " "), q.path[end]
}

// run runs a command that shows no rows.
func (q restRequest) run(menu, command string, arguments []console.Argument) (value string, err error) {
	value, _, err = api.Run(q.ctx, q.session, menu, command, arguments, nil, func(console.ID, []api.Pair) error { return nil })
	return value, err
}

// get shows a menu or an item.
func (q restRequest) get(parameters []parameter) error {
	var arguments []console.Argument
	var query, proplist []string
	last := 0
	for _, p := range parameters {
		switch p.name {
		case ".proplist":
			proplist = append(proplist, p.value)
		case ".last":
			n, err := strconv.ParseUint(p.value, 10, 16)
			if err != nil || n == 0 || n > maxLast {
				return errors.New("value of .last out of range (1.." + strconv.Itoa(maxLast) + ")")
			}
			last = int(n)
		default:
			query = append(query, "?="+p.name+"="+p.value)
		}
	}
	if proplist != nil {
		arguments = append(arguments, console.Argument{Name: ".proplist", Value: strings.Join(proplist, ",")})
	}
	menu, which := q.menu()
	if !strings.HasPrefix(which, "*") && !strings.ContainsAny(which, " /") {
		err := q.list(strings.Join(q.path, " "), "print", arguments, query, last)
		if menu == "" || !errors.Is(err, console.ErrNoSuchMenu) {
			return err
		}
	}
	if menu == "" {
		return console.ErrNoSuchMenu
	}
	err := q.item(menu, which, arguments, func(_ console.ID, row []api.Pair) error {
		_, err := q.w.Write(appendRow(nil, row))
		return err
	})
	if errors.Is(err, console.ErrNoSuchItem) && !strings.HasPrefix(which, "*") {
		// It may be meant for a menu.
		return &httpError{404, "no such item, command or directory (" + console.Printable(which) + ")"}
	}
	return err
}

// appendRow appends a row as an object.
func appendRow(b []byte, row []api.Pair) []byte {
	b = append(b, '{')
	for i, p := range row {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(appendString(b, p.Name), ':'), p.Value)
	}
	return append(b, '}')
}

// list shows the rows of a command, or the last ones of them: an array of objects, or an object if the menu has no items. If there is a
// value instead it shows that.
func (q restRequest) list(menu, command string, arguments []console.Argument, query []string, last int) error {
	n, single, isPrint := 0, false, command == "print" || command == "getall"
	write := func(object []byte) error {
		before := byte(',')
		if n == 0 {
			before = '['
		}
		if n++; !single {
			object = append([]byte{before}, object...)
		}
		_, err := q.w.Write(object)
		return err
	}
	var kept [][]byte
	value, has, err := api.Run(q.ctx, q.session, menu, command, arguments, query, func(id console.ID, row []api.Pair) error {
		single = id == 0 && isPrint
		object := appendRow(nil, row)
		if last == 0 {
			return write(object)
		}
		if kept = append(kept, object); len(kept) >= 2*last {
			kept = slices.Delete(kept, 0, len(kept)-last)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, object := range kept[max(0, len(kept)-last):] {
		if err := write(object); err != nil {
			return err
		}
	}
	end := "]"
	switch {
	case has:
		end = string(appendObject(nil, "ret", value))
	case single:
		return nil
	case n == 0:
		end = "[]"
	}
	_, err = q.w.Write([]byte(end))
	return err
}

// item calls found with the item of that ID or name.
func (q restRequest) item(menu, which string, arguments []console.Argument, found func(console.ID, []api.Pair) error) error {
	query := "?=name=" + which
	if id, err := console.ParseID(which); err == nil {
		query = "?=" + idName + "=" + id.String()
	}
	is := false
	_, _, err := api.Run(q.ctx, q.session, menu, "print", arguments, []string{query}, func(id console.ID, row []api.Pair) error {
		if is || id == 0 || which == "" {
			return nil
		}
		is = true
		return found(id, row)
	})
	if err == nil && !is {
		err = console.ErrNoSuchItem
	}
	return err
}

// id is that of the item with that ID or name.
func (q restRequest) id(menu, which string) (string, error) {
	var found console.ID
	err := q.item(menu, which, []console.Argument{{Name: ".proplist", Value: idName}}, func(id console.ID, _ []api.Pair) error {
		found = id
		return nil
	})
	return found.String(), err
}

// show is the answer to a change of an item: the whole of it.
func (q restRequest) show(menu, id string) error {
	return q.item(menu, id, nil, func(_ console.ID, row []api.Pair) error {
		_, err := q.w.Write(appendRow(nil, row))
		return err
	})
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
	menu := strings.Join(q.path, " ")
	id, err := q.run(menu, "add", q.arguments())
	if err != nil {
		return err
	}
	q.w.status = 201
	return q.show(menu, id)
}

// patch changes an item.
func (q restRequest) patch() error {
	menu, which := q.menu()
	id, err := q.id(menu, which)
	if err != nil {
		return err
	}
	if _, err := q.run(menu, "set", q.arguments(console.Argument{Name: idName, Value: id})); err != nil {
		return err
	}
	return q.show(menu, id)
}

// delete removes an item.
func (q restRequest) delete() error {
	menu, which := q.menu()
	id, err := q.id(menu, which)
	if err != nil {
		return err
	}
	if _, err := q.run(menu, "remove", []console.Argument{{Name: idName, Value: id}}); err != nil {
		return err
	}
	q.w.status = 204
	return nil
}

// post runs a command.
func (q restRequest) post() error {
	menu, command := q.menu()
	var query []string
	q.members = slices.DeleteFunc(q.members, func(m member) bool {
		if m.name != ".query" {
			return false
		}
		if query = m.list; !m.isList {
			query = []string{m.text}
		}
		return true
	})
	return q.list(menu, command, q.arguments(), query, 0)
}
