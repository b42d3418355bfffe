package console

import (
	"net/netip"
	"time"
)

// ActiveUser is a user who is logged in.
type ActiveUser struct {
	// Number is that of the login.
	Number uint32
	Name   string
	// Address is where the user is, the zero Addr at a serial line.
	Address netip.Addr
	// Via is console, ssh, api or web.
	Via string
	// For is how long ago the user has logged in.
	For time.Duration
}

var requestLogout = command{name: "request-logout", help: "end logins", positional: []string{"numbers"}, arguments: []argument{numbersArgument},
	able: func(l Live) bool { return l.Logout != nil }, run: (*execution).removeLive}

// https://help.mikrotik.com/docs/spaces/ROS/pages/8978504/User
func activeUsersMenu() *menu {
	return &menu{
		path: "user active", help: "users who are logged in", commands: commandsLike(tableCommands, "", requestLogout, printConnections),
		needs: func(l Live) bool { return l.ActiveUsers != nil && l.Now != nil }, rows: (*execution).activeRows,
		columns: []column{{"when", 19}, {"name", 8}, {"address", 15}, {"via", 0}},
		readOnly: []readOnly{
			{name: "when", help: "when the user has logged in"},
			{name: "name", help: "name of the user"},
			{name: "address", help: "where the user is; nothing at a serial line"},
			{name: "via", help: "way in: console, ssh, api, web or rest-api"},
			{name: "group", help: "what the user may do"},
		},
	}
}

func (x *execution) activeRows() ([]row, error) {
	users, err := x.live.ActiveUsers()
	if err != nil {
		return nil, err
	}
	rows := make([]row, 0, len(users))
	for _, u := range users {
		pairs := []Pair{textPair("when", x.moment(u.For)), textPair("name", u.Name)}
		if u.Address.IsValid() {
			pairs = append(pairs, addressPair("address", u.Address))
		}
		group, _ := x.cfg.User(u.Name)
		rows = append(rows, row{id: firstLive | ID(u.Number), removal: func(a *Action) { a.Logout = append(a.Logout, u.Number) }, pairs: append(pairs, wordPair("via", u.Via), textPair("group", group.Group))})
	}
	return rows, nil
}
