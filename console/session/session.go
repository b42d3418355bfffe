package session

import (
	"net/netip"

	"github.com/postern-router/postern/console"
)

// Session is one person's, or one program's, session on the router.
type Session struct {
	// Session is the place in the menus, and who the user is: console.Admin until a login
	// says otherwise.
	console.Session
	Origin Origin
}

// Console is the way in of a serial terminal.
const Console = "console"

// Origin is where a session comes from. Origins can be compared and be keys of a map, so
// that wrong passwords from one do not slow the others.
type Origin struct {
	// Via is the way in, by the word that RouterOS has for it in "/user active": Console, or
	// the name of the service (ssh, api).
	Via string
	// Terminal is the name of a serial terminal, as ttyS0; "" for a session of the network.
	Terminal string
	// Address is the other end's in the network; the zero Addr for a terminal.
	Address netip.Addr
}

// String is the terminal's name or the address, for log lines: "login failure for user admin
// from 192.168.0.2 via ssh". Without either it is the way in.
func (o Origin) String() string {
	switch {
	case o.Terminal != "":
		return o.Terminal
	case o.Address.IsValid():
		return o.Address.String()
	}
	return o.Via
}
