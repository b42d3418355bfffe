package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/internal/dhcptest"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/internal/testnet"
)

// TestDHCPServer has a real client take an address of the router, before and after a restart.
func TestDHCPServer(t *testing.T) {
	e2e.Boots(t)
	e2e.Needs(t, "busybox")
	t.Parallel()
	for _, b := range boards() {
		if !thorough(b) {
			continue // TestHousehold has the process there
		}
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testDHCPServer(t, b)
		})
	}
}

// join has a client that remembers nothing ask for an address, and returns it.
func (k *keeper) join(t *testing.T, h host) string {
	t.Helper()
	folder := t.TempDir()
	script, told := filepath.Join(folder, "script"), filepath.Join(folder, "told")
	text := "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr flush dev $interface\nip addr add $ip/$mask dev $interface\n" +
		"ip route replace default via $router\necho $ip $mask $router $dns $domain > " + told + "\n"
	require.NoError(t, os.WriteFile(script, []byte(text), 0o755))
	var out []byte
	require.NoError(t, retry(func() (err error) { // it gives up after three answers that came too late, on a busy host
		out, err = k.n.command(h, "busybox", "udhcpc", "-f", "-q", "-n", "-t", "60", "-T", "5", "-i", "eth0", "-x", "hostname:"+string(h), "-s", script).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}))
	got, err := os.ReadFile(told)
	require.NoError(t, err, "%s", out)
	address, rest, _ := strings.Cut(strings.TrimSpace(string(got)), " ")
	assert.Equal(t, "24 192.168.0.1 192.168.0.1 lan", rest)
	return address
}

func testDHCPServer(t *testing.T, b board.Board) {
	k := newKeeper(t, b)
	k.start(t, "postern", nil)
	for _, line := range []string{
		"/ip pool set default-dhcp ranges=192.168.0.10-192.168.0.99", // of the default configuration
		"/ip dhcp-server network set 0 domain=lan",
	} {
		assert.Empty(t, k.command(t, line))
	}
	first := k.join(t, client)
	require.NoError(t, k.n.awaitPing(client, lanAddress))
	screen := ""
	bound := func() error {
		screen = k.command(t, "/ip dhcp-server lease print")
		if !strings.Contains(screen, first+" ") || !strings.Contains(screen, " client ") || !strings.Contains(screen, " bound ") {
			return errors.New("the lease is not shown:\n" + screen)
		}
		return nil
	}
	require.NoError(t, retry(bound))
	assert.Regexp(t, `(?m)^ 0 D `+first, screen)
	// The first write comes at once; then they are 5 minutes apart.
	k.pass(t, 12*time.Second)
	k.m.kill() // as when the power is cut
	k.start(t, "postern", nil)
	require.NoError(t, bound(), "before anybody has asked")
	second := k.join(t, other)
	assert.NotEqual(t, first, second)
	require.NoError(t, k.n.awaitPing(other, lanAddress))
	require.NoError(t, retry(func() error {
		if used := k.command(t, "/ip pool print"); !strings.Contains(used, " 90       2      88") {
			return fmt.Errorf("two addresses are used:\n%s", used)
		}
		return nil
	}))
	t.Logf("%s:\n%s%s", b.Name, k.command(t, "/ip dhcp-server lease print"), k.command(t, "/system resource print"))

	require.NoError(t, k.m.send("/system reboot\ry\r"))
	require.NoError(t, k.m.wait())
	k.start(t, "postern", nil)
	require.NoError(t, bound(), "before anybody has asked")
	assert.Equal(t, second, k.join(t, other), "the other asks first")
	assert.Equal(t, first, k.join(t, client))
	k.command(t, "/ip dhcp-server lease make-static [find host-name=other]")
	assert.Contains(t, settings(k.command(t, "/export")), "add address="+second+" ")
	if b.Name == boards()[0].Name {
		t.Run("behind a relay", func(t *testing.T) { testDHCPRelay(t, k) })
		t.Run("load", func(t *testing.T) { testDHCPLoad(t, k, first) })
	}
	k.m.kill()
}

// testDHCPRelay has a host behind ISC's relay, on the other host of the LAN, take an address of its network, renew it and give
// it back.
func testDHCPRelay(t *testing.T, k *keeper) {
	e2e.Needs(t, "dhcrelay")
	for _, line := range []string{
		"/ip pool add name=far ranges=10.9.0.10-10.9.0.19",
		"/ip dhcp-server add name=far interface=" + k.b.LAN + " address-pool=far relay=10.9.0.1",
		"/ip dhcp-server network add address=10.9.0.0/24 gateway=10.9.0.1 dns-server=192.168.0.1",
		"/ip route add dst-address=10.9.0.0/24 gateway=" + otherAddress,
	} {
		require.Empty(t, k.command(t, line))
	}
	far := testnet.New(t, "far")
	require.NoError(t, testnet.Link(k.n[other], "eth1", far, "eth0"))
	require.NoError(t, k.n[other].IP("addr add "+otherAddress+"/24 dev eth0", "addr add 10.9.0.1/24 dev eth1"))
	require.NoError(t, k.n[other].Set("net.ipv4.ip_forward", "1"))
	relay := k.n.command(other, "dhcrelay", "-4", "-d", "--no-pid", "-id", "eth1", "-iu", "eth0", lanAddress)
	said := &logBuffer{}
	relay.Stdout, relay.Stderr = said, said
	require.NoError(t, relay.Start())
	endRelay := sync.OnceFunc(func() { kill(relay) })
	t.Cleanup(endRelay)
	line, err := dhcptest.Clients[0].Line(t.TempDir())
	require.NoError(t, err)
	udhcpc := far.Command(line[0], line[1:]...)
	told := &logBuffer{}
	udhcpc.Stdout, udhcpc.Stderr = told, told
	require.NoError(t, udhcpc.Start())
	t.Cleanup(func() { kill(udhcpc) })
	k.awaitShown(t, "/ip dhcp-server lease print", `10\.9\.0\.1\d .* udhcpc .* bound `)
	require.NoError(t, retry(func() error { return far.Run("ping", "-c", "1", "-W", "1", lanAddress) }), "%s%s", told, said)

	// It renews, and gives back, without the relay.
	endRelay()
	require.NoError(t, udhcpc.Process.Signal(dhcptest.Clients[0].Renew))
	require.NoError(t, retry(func() error {
		if strings.Count(told.String(), " obtained from ") < 2 {
			return errors.New("no renewal: " + told.String())
		}
		return nil
	}))
	require.NoError(t, udhcpc.Process.Signal(dhcptest.Clients[0].Release))
	require.NoError(t, retry(func() error {
		if shown := k.command(t, "/ip dhcp-server lease print"); strings.Contains(shown, " udhcpc ") {
			return errors.New("it is not given back:\n" + shown)
		}
		return nil
	}))
}

// perfdhcp has Kea's program of that name, which plays a relay on the client's host, ask 100 times a second for 250
// hosts. It tells the figures.
func (k *keeper) perfdhcp(t *testing.T) {
	e2e.Needs(t, "perfdhcp")
	for _, line := range []string{
		"/ip address add address=10.8.0.1/16 interface=" + k.b.LAN,
		"/ip pool add name=load ranges=10.8.1.0-10.8.63.255",
		"/ip dhcp-server add name=load interface=" + k.b.LAN + " address-pool=load relay=10.8.0.2",
		"/ip dhcp-server network add address=10.8.0.0/16 gateway=10.8.0.1",
	} {
		require.Empty(t, k.command(t, line))
	}
	require.NoError(t, k.n[client].IP("addr add 10.8.0.2/16 dev eth0"))
	start, waited := time.Now(), k.m.waited(t)
	report, err := k.n.command(client, "perfdhcp", "-4", "-l", "10.8.0.2", "-r", "100", "-R", "250", "-n", "500", "-W", "5000000", "10.8.0.1").CombinedOutput()
	waits := (k.m.waited(t) - waited).Seconds() / time.Since(start).Seconds()
	all, wrong := dhcptest.Exchanges(report)
	require.NoError(t, wrong, "%v\n%s", err, report) // an error is that some had no reply
	t.Logf("%s, 100 a second of 250 hosts, while QEMU waited %.0f %% of the time for a processor: %v", k.b.Name, 100*waits, all)
	least := 100
	if waits < 0.1 {
		least = 95 * (all[0].Sent + all[1].Sent) / 100
	}
	assert.GreaterOrEqual(t, all[0].Received+all[1].Received, least, "while the host stands still some are lost")
	shown := k.command(t, "/ip dhcp-server lease print count-only where server=load status=bound")
	leases, err := strconv.Atoi(strings.TrimSpace(shown))
	require.NoError(t, err, shown)
	// Of 500 that are drawn from 250 some are the same.
	assert.True(t, leases >= min(150, all[1].Received/4) && leases <= 250, "%d leases", leases)
}

// testDHCPLoad has perfdhcp ask, and then floods the server with 10,000 MAC addresses, while the host with the address
// first keeps that. It tells the figures.
func testDHCPLoad(t *testing.T, k *keeper, first string) {
	r := &router{T: t, b: k.b, n: k.n, dir: k.dir, m: k.m}
	before, _ := r.freeMemory(t)
	k.perfdhcp(t)
	loaded, _ := r.freeMemory(t)

	var conn *ether.Conn
	require.NoError(t, k.n.on(client, func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		f, err := dhcp.OpenUDP(i.Index, dhcp.ClientPort)
		if err == nil {
			conn, err = ether.NewConn(f)
		}
		return err
	}))
	defer conn.Close()
	start := time.Now()
	const hosts = 10_000
	var joined atomic.Bool
	begun, flooding := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; i < hosts || !joined.Load(); i++ {
			mac := ether.MAC{2, 0, 0, 1, byte(i >> 8), byte(i)}
			m := dhcp.Message{Op: dhcp.BootRequest, XID: uint32(i), HardwareType: 1, Hardware: net.HardwareAddr(mac[:])}
			m.Options.SetByte(dhcp.OptionType, byte(dhcp.Discover))
			payload, err := m.Marshal(dhcp.MaxMessage)
			if err != nil {
				flooding <- err
				return
			}
			_ = conn.Write(dhcp.Packet{FromMAC: mac, ToMAC: ether.Broadcast, From: netip.MustParseAddrPort("0.0.0.0:68"),
				To: netip.MustParseAddrPort("255.255.255.255:67"), Payload: payload}.Append(nil)) // one that has no room is lost
			if i%100 == 0 {
				time.Sleep(50 * time.Millisecond)
			}
			if i == hosts/10 {
				close(begun)
			}
		}
		flooding <- nil
	}()
	defer joined.Store(true)
	<-begun
	assert.Equal(t, first, k.join(t, client), "in the middle of it")
	joined.Store(true)
	require.NoError(t, <-flooding)
	sent := time.Since(start)
	flooded, _ := r.freeMemory(t)
	t.Logf("%s: %.1f MiB free before, %.1f with the leases of perfdhcp, %.1f behind at least 10,000 new hosts in %v", k.b.Name, before, loaded, flooded, sent.Round(time.Second))
	assert.Greater(t, flooded, before-3)
	assert.Equal(t, 1, strings.Count(k.command(t, "/log print where topics~\"dhcp\""), "the pool is exhausted"), "told once")
	require.NoError(t, k.n.awaitPing(client, lanAddress))
}
