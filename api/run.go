package api

import (
	"context"

	"github.com/postern-router/postern/console"
)

// Pair is a property of a row in the API's form: its name and its value.
type Pair struct{ Name, Value string }

// Run runs a command of the API over a session, for REST, which is the API in another form. Path is the menu, its words separated
// by blanks, and query has words as the API's, with or without the question mark. Each gets the rows, id being 0 where the
// menu has no items. Value is that of the last reply, if it has one.
//
// Errors of menus, commands and items that are not there are those of package console (errors.Is). After one of the session, of
// each, or after one that a command ends with while there are rows left (program.Refused reports false), the session is of no use any more;
// Run has closed it then. A command that goes on until it is cancelled is an error.
func Run(ctx context.Context, s Session, path, command string, arguments []console.Argument, query []string,
	each func(id console.ID, row []Pair) error) (value string, has bool, err error) {
	c := &client{ctx: ctx, account: lent{s}, pinging: make(chan struct{}, 1), running: map[*task]bool{}, sessions: map[Session]bool{}, places: make(chan struct{}, 1), idle: make(chan Session, 1)}
	t := &task{client: c, ctx: ctx, show: each, request: request{path: path, command: command, arguments: arguments, query: query}}
	switch {
	case len(arguments) > maxArguments:
		return "", false, &trap{badValue, "too many arguments"}
	case t.isEndless():
		return "", false, &trap{badValue, "failure: the command goes on until it is cancelled; expected count, duration, once, or a print"}
	}
	value, has, err = t.run()
	switch err {
	case errNoItem:
		err = console.ErrNoSuchItem
	case errNoCommand:
		err = console.ErrNoSuchCommand
	}
	return value, has, err
}

// lent is the Account of a session that somebody else began.
type lent struct{ session Session }

func (l lent) Session() (Session, error) { return l.session, nil }
func (lent) Logout()                     {}
func (lent) OnEnd(func())                {}
