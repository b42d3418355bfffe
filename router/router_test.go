package router

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/ssh"
)

func TestRescueConfig(t *testing.T) {
	malta, err := board.ByName("malta")
	require.NoError(t, err)
	load := func(text string) console.Config {
		c, _ := console.Load("test", strings.NewReader("/user set admin password-hash=x\n"+text))
		return c
	}
	for _, c := range []struct{ name, refused, at string }{
		{"keeps the LAN's address", "/ip address add address=172.16.0.1/16 interface=ether2\n" +
			"/ip address add address=10.0.0.1/8 interface=ether1\n/ip socks set enabled=yes", "172.16.0.1"},
		{"keeps that of the LAN's bridge", "/interface bridge add name=b\n/interface bridge port add bridge=b interface=ether2\n" +
			"/ip address add address=172.16.0.1/16 interface=b", "172.16.0.1"},
		{"gives one where there is none", "/ip address add address=10.0.0.1/8 interface=ether1", "192.168.0.1"},
		{"gives one where it is disabled", "/ip address add address=172.16.0.1/16 interface=ether2 disabled=yes", "192.168.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rescue, address := rescueConfig(load(c.refused), malta)
			if len(rescue.Addresses) > 0 {
				assert.Empty(t, address, "the user's address holds")
			}
			rescue = layers{rescueSource: address}.merge(rescue, malta.PortNames())
			require.NoError(t, console.Validate(rescue, malta.PortNames()))
			assert.Equal(t, "x", rescue.Users[0].Password)
			assert.Equal(t, c.at, rescue.Addresses[0].Address.Addr().String())
			assert.Len(t, rescue.Addresses, 1)
			assert.False(t, rescue.Socks.Enabled)
			assert.False(t, console.NetworkServices[0].Open(rescue), "SSH was disabled")
			locked := load(c.refused)
			locked.SetPassword(console.Admin, "hash")
			locked.SSH = login.Config{Port: 2222, From: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/16")}, MaxSessions: 2}
			locked.SSHKeys = []ssh.Key{{User: console.Admin, Public: ssh.PublicKey{Key: strings.Repeat("x", ssh.KeySize)}}}
			again, _ := rescueConfig(locked, malta)
			assert.Equal(t, "hash", again.Users[0].Password)
			assert.Equal(t, locked.SSH, again.SSH)
			assert.Equal(t, locked.SSHKeys, again.SSHKeys, "without a key the password would be taken")
			var ups []string
			for _, l := range lanOnly(rescue, malta).Links {
				if !l.Disabled {
					ups = append(ups, l.Name)
				}
			}
			assert.Equal(t, []string{"ether2"}, ups)
			assert.False(t, lanOnly(rescue, malta).Forwarding)
		})
	}
}

// TestShippedConfigurations loads what the boards start with.
func TestShippedConfigurations(t *testing.T) {
	for _, b := range board.All() {
		t.Run(b.Name, func(t *testing.T) {
			c, err := console.Load("default.rsc", strings.NewReader(b.DefaultConfiguration()))
			require.NoError(t, err)
			require.NoError(t, console.Validate(c, b.PortNames()))
		})
	}
}

func TestResource(t *testing.T) {
	now, err := parseUptime("30.50 29.00\n")
	require.NoError(t, err)
	before, err := parseUptime("10.50 9.10")
	require.NoError(t, err)
	assert.InDelta(t, 0.005, now.load(before, 1), 1e-9)
	assert.InDelta(t, 0.5025, now.load(before, 2), 1e-9)
	assert.Zero(t, now.load(now, 1))
	for _, bad := range []string{"", "1", "1 2 3", "x 1"} {
		_, err := parseUptime(bad)
		assert.Error(t, err, "%q", bad)
	}

	const meminfo = "MemTotal:          26692 kB\nMemFree:           12000 kB\nMemAvailable:      16384 kB\n"
	free, err := parseMeminfo(meminfo, "MemAvailable")
	require.NoError(t, err)
	assert.EqualValues(t, 16<<20, free)
	_, err = parseMeminfo(meminfo, "Mem")
	assert.Error(t, err)
	_, err = parseMeminfo("MemTotal: many kB\n", "MemTotal")
	assert.Error(t, err)
}
