package router

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
)

// The machine of the tests is one of their own: see TestMain.
func TestLinuxMachine(t *testing.T) {
	restarted := false
	m := linuxMachine{func() { restarted = true }, filepath.Join(t.TempDir(), "resolv.conf")}
	require.NoError(t, m.SetNames("gate", addrs("10.0.0.1", "10.0.0.2")))
	name, err := os.Hostname()
	require.NoError(t, err)
	assert.Equal(t, "gate", name)
	text, err := os.ReadFile(m.resolver)
	require.NoError(t, err)
	assert.Equal(t, "nameserver 10.0.0.1\nnameserver 10.0.0.2\n", string(text))
	require.ErrorContains(t, m.SetNames(string(make([]byte, 65)), nil), "set the host name to ")
	m.resolver += "/x"
	require.ErrorContains(t, m.SetNames("gate", nil), "name servers: ")
	// A time that no kernel takes.
	require.ErrorContains(t, m.SetClock(time.Unix(-1, 0)), "set the clock: ")
	// An offset that no kernel takes.
	require.ErrorContains(t, m.SetZone(16*time.Hour), "set the time zone: ")
	m.Restart()
	assert.True(t, restarted)
}

// The start says which ports of the board are missing, and what there is instead.
func TestMissingPorts(t *testing.T) {
	g := newRig(t)
	g.r.tellMissingPorts()
	assert.Empty(t, g.log())
	g.network.state = func() ([]netcfg.LinkState, error) {
		return []netcfg.LinkState{{Name: "ether1", Present: true}, {Name: "ether2"}}, nil
	}
	g.r.tellMissingPorts()
	assert.Contains(t, g.log(), "system,warning ether2: there is no network device at pci0/2, where board rig has this port; devices that are no port: none\n")
	for device, place := range map[string]string{"eth0": "pci0/3/virtio0", "ether1": "pci0/1"} {
		dir := filepath.Join(g.r.root, "sys/devices", place)
		require.NoError(t, os.MkdirAll(dir, 0o755))
		class := filepath.Join(g.r.root, "sys/class/net", device)
		require.NoError(t, os.MkdirAll(class, 0o755))
		require.NoError(t, os.Symlink(dir, filepath.Join(class, "device")))
	}
	require.NoError(t, os.MkdirAll(filepath.Join(g.r.root, "sys/class/net/lo"), 0o755))
	g.r.tellMissingPorts()
	assert.Contains(t, g.log(), "devices that are no port: eth0 at pci0/3/virtio0\n")
	g.network.state = func() ([]netcfg.LinkState, error) { return nil, errFake }
	g.r.tellMissingPorts()
	assert.Contains(t, g.log(), "system,error ports: refused by the test")
}

// The items that wait are the user's, and those that the kernel made are dynamic.
func TestWhatTheKernelHas(t *testing.T) {
	g := started(t, "/interface bridge add name=b", "/interface bridge port add bridge=b interface=ether2",
		"/interface vlan add name=v interface=ether1 vlan-id=7", "/ip address add address=10.0.0.2/8 interface=ether1",
		"/ip route add gateway=10.0.0.1", "/ip arp add address=10.9.0.1 interface=ether1 mac-address=02:00:00:00:00:01")
	g.network.wait = netcfg.Waiting{Neighbors: []int{0, 1}, VLANs: []int{0}, BridgePorts: []int{0, 1}, Addresses: []int{0, 1, 2}, Routes: []int{0, 1}}
	g.network.other = []netcfg.Address{address("169.254.0.1/16", "ether2")}
	g.network.routes = []netcfg.KernelRoute{{Destination: address("10.0.0.0/8", "").Address, Interface: "ether1"}}
	for menu, want := range map[string][]int{"interface vlan": {0}, "interface bridge port": {0}, "ip address": {0}, "ip route": {0}, "ip arp": {0}, "ip dns": nil} {
		got, err := g.r.invalid(g.r.snapshot(), menu)
		require.NoError(t, err)
		assert.Equal(t, want, got, menu)
	}
	assert.Contains(t, g.must("/ip address print"), " D 169.254.0.1/16")
	assert.Contains(t, g.must("/ip route print"), "ADC  10.0.0.0/8")
	// The machine may lack connection tracking, and the root of a user namespace may not read it.
	if _, err := firewall.ListTracked(); !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		require.NoError(t, err)
	}
}

// Start applies the configuration and runs until it is told to end.
func TestRunning(t *testing.T) {
	g := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	g.r.Start(ctx)
	assert.True(t, g.network.config.Forwarding)
	require.Eventually(t, func() bool { return g.r.health() == nil }, time.Minute, time.Millisecond)
	cancel()
	g.r.Shutdown()
	assert.True(t, g.firewall.locked)
}
