package router

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/api"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/program"
	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/password"
	"github.com/postern-router/postern/service"
)

// A program that has logged in sees and changes the router's configuration, and its login is in the log by the name
// of the way in.
func TestProgramService(t *testing.T) {
	rig := newRig(t)
	r := rig.r
	s := newProgramService(realSupervisor(t, r.log, rig.log), r.log, api.Spec)
	s.attach(r, way{via: "api"})
	hash, err := password.New("correct horse")
	require.NoError(t, err)
	r.now.running.SetPassword(console.Admin, hash)
	admin := login.Login{User: console.Admin, From: netip.MustParseAddr("192.168.0.2")}
	assert.Empty(t, s.authority.CheckPassword(admin, "wrong"))
	assert.Contains(t, rig.log(), "login failure for user admin from 192.168.0.2 via api")
	admin.Proof = s.authority.CheckPassword(admin, "correct horse")
	assert.NotEmpty(t, admin.Proof)
	s.authority.LoggedIn(admin)
	assert.Contains(t, rig.log(), "user admin logged in from 192.168.0.2 via api")
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); s.authority.Serve(there, admin) }()
	c := program.NewClient(here)
	added, err := c.Do("ip address", "add", nil, console.Argument{Name: "address", Value: "10.0.0.1/24"}, console.Argument{Name: "interface", Value: "ether2"})
	require.NoError(t, err)
	assert.Len(t, r.snapshot().config.Addresses, 1)
	var ids []console.ID
	require.NoError(t, c.Query("ip address", []console.Condition{{Name: "address", Test: "=", Value: "10.0.0.1/24"}}, nil,
		func(row console.Row) error { ids = append(ids, row.ID); return nil }))
	assert.Equal(t, []console.ID{added}, ids)
	var said string
	require.NoError(t, c.Execute("/system identity print", func(text string) error { said += text; return nil }))
	assert.Equal(t, "  name: postern\n", said)
	_, err = c.Do("", "password", nil)
	require.EqualError(t, err, "failure: expected old-password=, new-password= and confirm-new-password=")
	change := func(old, new, again string) error {
		_, err := c.Do("", "password", nil, console.Argument{Name: "old-password", Value: old}, console.Argument{Name: "new-password", Value: new},
			console.Argument{Name: "confirm-new-password", Value: again})
		return err
	}
	require.NoError(t, change("", "correct horse", "correct horse"))
	assert.True(t, r.hasPassword(console.Admin))
	require.EqualError(t, change("correct horse", "other", "others"), "failure: new passwords do not match")
	require.EqualError(t, change("correct horse", "\a", "\a"), "failure: bad new password; expected printable string: 0..64 bytes")
	require.EqualError(t, change("wrong", "other", "other"), "failure: old password is wrong")
	require.NoError(t, change("correct horse", "other", "other"))
	require.NoError(t, c.Execute("/password old-password=other new-password=\"\" confirm-new-password=\"\"", nil))
	assert.False(t, r.hasPassword(console.Admin))
	require.ErrorContains(t, c.Execute("/import", nil), "asks a person for text")
	require.NoError(t, c.Close())
	<-done
	assert.NotEqual(t, service.Running, s.process.Status().State)
}
