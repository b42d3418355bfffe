package router

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/login"
)

// who are the users that are logged in, as "name address via".
func who(t *testing.T, g *rig) (all []string) {
	rows, err := console.Query(g.r.snapshot().config, g.r.system(g.r.snapshot()), "user active", nil, nil)
	require.NoError(t, err)
	for _, r := range rows {
		text := ""
		for _, p := range r.Pairs {
			if p.Name != "when" {
				text += p.Value.String() + " "
			}
		}
		all = append(all, text)
	}
	return all
}

func TestActiveUsers(t *testing.T) {
	g := newRig(t)
	assert.Empty(t, who(t, g))
	over := map[string]login.Authority{"ssh": g.r.loginAuthority(way{via: "ssh"}), "api": g.r.loginAuthority(way{via: "api"})}
	near := login.Login{User: console.Admin, From: netip.MustParseAddr("192.168.0.2")}
	far := login.Login{User: console.Admin, From: netip.MustParseAddr("192.168.0.3")}
	over["ssh"].LoggedIn(near)
	over["ssh"].LoggedIn(far)
	over["api"].LoggedIn(near)
	over["ssh"].LoggedIn(near)
	assert.Equal(t, []string{"admin 192.168.0.2 ssh full ", "admin 192.168.0.3 ssh full ", "admin 192.168.0.2 api full ", "admin 192.168.0.2 ssh full "}, who(t, g))
	over["ssh"].LoggedOut(near)
	over["ssh"].LoggedOut(far)
	assert.Equal(t, []string{"admin 192.168.0.2 api full ", "admin 192.168.0.2 ssh full "}, who(t, g))
	over["api"].LoggedOut(near)
	over["ssh"].LoggedOut(near)

	// A session at the machine is one from its first prompt on.
	c := g.connectFrom(session.Origin{Via: session.Console, Terminal: "ttyS0"})
	c.prompt()
	assert.Equal(t, []string{"admin console full "}, who(t, g))
	c.hangUp()
	assert.Empty(t, who(t, g))
}
