package session

import (
	"net/netip"

	"github.com/postern-router/postern/console"
)

// Session is the session of a person or a program on the router.
type Session struct {
	// Session is the place in the menus, and the user who has logged in.
	console.Session
	Origin Origin
	// Login is the number of the login over the network, by one way in; 0 at a serial terminal.
	Login uint64
}

// Console is the Via of a serial terminal.
const Console = "console"

// Origin is where a session comes from. It can be the key of a map, for example to delay
// wrong passwords from one origin without delaying the others.
type Origin struct {
	// Via is the way into the router, in the words of RouterOS's "/user active": Console, or
	// the name of a service (ssh, api).
	Via string
	// TLS says that it is the way over TLS, which is a service of its own.
	TLS bool
	// Terminal is the name of a serial terminal, as ttyS0; "" for a session over the network.
	Terminal string
	// Address is the address of the client; the zero Addr for a serial terminal.
	Address netip.Addr
}

// String is the name of the terminal or the address of the client, for log lines: "login
// failure for user admin from 192.168.0.2 via ssh". If neither is known it is Via.
func (o Origin) String() string {
	switch {
	case o.Terminal != "":
		return o.Terminal
	case o.Address.IsValid():
		return o.Address.String()
	}
	return o.Via
}
