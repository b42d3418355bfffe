package console

import (
	"net/netip"
	"time"
)

// ActiveUser is a user who is logged in.
type ActiveUser struct {
	Name string
	// Address is where the user is, the zero Addr at a serial line.
	Address netip.Addr
	// Via is console, ssh, api or web.
	Via string
	// For is how long ago the user has logged in.
	For time.Duration
}

// https://help.mikrotik.com/docs/spaces/ROS/pages/8978504/User
func activeUsersMenu() *menu {
	return &menu{
		path: "user active", help: "users who are logged in", commands: liveCommands,
		needs: func(l Live) bool { return l.ActiveUsers != nil && l.Now != nil }, rows: (*execution).activeRows, identify: []string{"name", "address", "via"},
		columns: []column{{"when", 19}, {"name", 8}, {"address", 15}, {"via", 0}},
		readOnly: []readOnly{
			{name: "when", help: "when the user has logged in"},
			{name: "name", help: "name of the user"},
			{name: "address", help: "where the user is; nothing at a serial line"},
			{name: "via", help: "way in: console, ssh, api or web"},
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
		rows = append(rows, row{pairs: append(pairs, wordPair("via", u.Via), textPair("group", group.Group))})
	}
	return rows, nil
}
