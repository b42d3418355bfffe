package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// TestHousehold plugs in a router on which nothing has been set, and a computer that asks for an
// address: it has a page by its name, also when the power was cut meanwhile and when the provider
// gives the router another address. Nobody outside gets an answer but to an echo.
func TestHousehold(t *testing.T) {
	e2e.Boots(t)
	e2e.Needs(t, "dhclient")
	t.Parallel()
	for _, b := range boards() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testHousehold(t, b)
		})
	}
}

func testHousehold(t *testing.T, b board.Board) {
	k := newKeeper(t, b)
	h, err := startHousehold(k.n, filepath.Join(k.dir, "household"))
	require.NoError(t, err)
	t.Cleanup(h.close)

	k.start(t, "postern", nil)
	first, err := h.connect(client, k.n.command)
	require.NoError(t, err)
	assert.Equal(t, lease{first.address, lanAddress, lanAddress}, first)
	address := netip.MustParseAddr(first.address)
	assert.True(t, netip.MustParsePrefix("192.168.0.0/24").Contains(address) && address.As4()[3] >= 10, "%s is of the pool", address)
	require.NoError(t, retry(h.page))
	wan := k.ownAddress(t, "")
	assert.NoError(t, h.site.askedFrom(wan), "masqueraded")
	assert.NotContains(t, h.site.httpLog.String(), "192.168.0.")
	t.Logf("%s:\n%s", b.Name, k.command(t, "/system resource print"))

	t.Run("the router's own name", func(t *testing.T) {
		// It asks for addresses of IPv6 too, which the provider refuses.
		assert.Contains(t, k.run(t, client, "busybox", "nslookup", "router.lan"), "Address: "+lanAddress)
	})
	t.Run("a computer with dhclient and nothing else", func(t *testing.T) {
		assert.Equal(t, "nameserver "+lanAddress+"\n", h.dhclient(t, other))
	})
	t.Run("nobody outside gets an answer but to an echo", func(t *testing.T) {
		require.NoError(t, k.n[stranger].IP("route add 192.168.0.0/24 via "+wan))
		k.closedOutside(t, stranger, strangerAddress, wan)
		if b.Name == boards()[0].Name { // on one board, for it takes a minute
			k.scanAll(t, wan)
		}
		_, err := k.n.dial(stranger, first.address+":80", 3*time.Second)
		assertSilent(t, err, "the client, from outside")
	})
	t.Run("the power is cut", func(t *testing.T) {
		k.pass(t, 12*time.Second) // until the lease is on flash
		k.m.kill()
		k.start(t, "postern", nil)
		assert.Contains(t, k.command(t, "/ip dhcp-server lease print"), first.address+" ", "kept, though nothing is set")
		assert.NotContains(t, k.command(t, "/log print"), "the defaults hold")
		again, err := h.connect(client, k.n.command)
		require.NoError(t, err)
		assert.Equal(t, first, again)
		require.NoError(t, retry(h.page))
		assert.Equal(t, wan, k.ownAddress(t, ""))
	})
	t.Run("the provider gives another address", func(t *testing.T) {
		k.command(t, "/ip socks set enabled=yes")
		ended := h.startSlowFTP(t)
		kill(h.provider)
		require.NoError(t, os.Remove(h.providerLeases()))
		require.NoError(t, h.startProvider("10.1.0.160", "10.1.0.170", renewalTime))
		k.command(t, "/ip dhcp-client renew 0")
		require.NoError(t, awaitOwnAddress(k.m, "10.1.0.16", "10.1.0.170"))
		at := time.Now()
		moved := k.ownAddress(t, wan)
		select {
		case err := <-ended:
			t.Logf("%s: the FTP client ended %v after the router had another address: %v", b.Name, time.Since(at).Round(10*time.Millisecond), err)
		case <-time.After(patience):
			assert.Fail(t, "the FTP transfer by the old address hangs")
		}
		k.awaitLog(t, "the machine has another address now")
		to := filepath.Join(h.dir, "fetched")
		h.ftp(t, to)
		assertSameFile(t, h.site.file, to)
		require.NoError(t, retry(h.page))
		assert.NoError(t, h.site.askedFrom(moved), "masqueraded behind it")
		assert.NotContains(t, k.command(t, "/ip address print"), wan+"/")
		k.awaitLog(t, "refuses the address")
	})
	// That they sleep is for TestDHCPServerSleeps and TestDHCPClientSleeps, which see the processes.
	t.Run("DHCP goes on behind pauses in which its processes may sleep", func(t *testing.T) {
		if b.Name == boards()[0].Name { // on one board, for it takes minutes
			moved := k.ownAddress(t, "")
			renewals := func() int { return strings.Count(h.log.String(), "DHCPACK(eth0) "+moved+" ") }
			before := renewals()
			t.Logf("%s:\n%s", b.Name, k.command(t, "/system resource print"))
			time.Sleep(45 * time.Second) // half a minute without a message
			t.Logf("%s:\n%s", b.Name, k.command(t, "/system resource print"))
			assert.Regexp(t, `\bbound\b`, k.command(t, "/ip dhcp-client print"))
			// The client renews its lease in time, and by a command.
			require.Eventually(t, func() bool { return renewals() > before }, 5*renewalTime, time.Second, "%s", h.log)
			assert.Equal(t, moved, k.ownAddress(t, ""))
			time.Sleep(45 * time.Second)
			before = renewals()
			k.command(t, "/ip dhcp-client renew 0")
			require.Eventually(t, func() bool { return renewals() > before }, renewalTime, time.Second, "%s", h.log)
			assert.Equal(t, moved, k.ownAddress(t, ""))
			require.NoError(t, retry(h.page))
			assert.Equal(t, 2, strings.Count(k.command(t, "/log print where topics~\"dhcp\""), " got address "), "nothing of it is a change")
		}
		t.Logf("%s:\n%s", b.Name, k.command(t, "/system resource print"))
		again, err := h.connect(client, k.n.command)
		require.NoError(t, err)
		assert.Equal(t, first, again)
		k.awaitShown(t, "/ip dhcp-server lease print", `\bbound\b`)
	})
	if b.Name != boards()[0].Name {
		return
	}
	// The last: the clock of whoever looks at what is above is the host's.
	t.Run("the provider's time server sets the clock", func(t *testing.T) {
		k.startClock(t, serverOfSite)
		assert.Regexp(t, `(?m)^ +dynamic-servers: `+regexp.QuoteMeta(serverAddress)+`$`, k.command(t, "/system ntp client print"))
		assert.Empty(t, k.command(t, "/system ntp client set enabled=yes"))
		k.awaitLog(t, "the clock was set by "+serverAddress+" to "+labTime.Format(time.DateOnly))
		k.awaitShown(t, "/system ntp client print", "synced-server: "+serverAddress)
		assert.Contains(t, k.command(t, "/system clock print"), "date: "+strings.ToLower(labTime.Format("Jan/02/2006"))+"\n")
		assert.Regexp(t, `\bbound\b`, k.command(t, "/ip dhcp-client print"), "leases go by a clock that nobody sets")
	})
}

// dhclient has a host take an address by ISC's client as Debian ships it, and fetch the page by its name with no more than
// that client has set, of which it returns /etc/resolv.conf. It gives the address back.
func (h *household) dhclient(t *testing.T, from host) string {
	t.Helper()
	dir := filepath.Join(h.dir, "dhclient")
	etc := filepath.Join(dir, "etc")
	require.NoError(t, os.MkdirAll(filepath.Join(etc, "dhcp"), 0o755))
	for name, text := range map[string]string{"fstab": "", "resolv.conf": "", "hosts": "127.0.0.1 localhost\n", "nsswitch.conf": "hosts: files dns\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644))
	}
	settings, err := os.ReadFile("/etc/dhcp/dhclient.conf")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(etc, "dhcp", "dhclient.conf"), settings, 0o644))
	// It may rename the machine, too. When it has an address it goes on in the background. ip complains of names in
	// /run/netns that somebody else has left there.
	const alone = `set -e
mount --bind "$1/etc" /etc
client() { dhclient "$@" -v -lf "$dir/leases" -pf "$dir/pid" eth0 >>"$dir/said" 2>&1; }
dir=$1
client -1
ip -4 addr show dev eth0 >>"$dir/said" 2>&1
curl --silent --show-error --retry 5 --retry-connrefused --max-time 60 "$2" && cp /etc/resolv.conf "$dir/kept" || failed=$?
client -r
exit $failed
`
	out, err := h.command(from, "unshare", "--mount", "--uts", "sh", "-c", alone, "sh", dir, "http://"+pageName+"/").CombinedOutput()
	said, _ := os.ReadFile(filepath.Join(dir, "said"))
	require.NoError(t, err, "%s\n%s", out, said)
	assert.Equal(t, pageText, string(out), "%s", said)
	kept, err := os.ReadFile(filepath.Join(dir, "kept"))
	require.NoError(t, err)
	return string(kept)
}

// ftp fetches the file of the manual's example by SOCKS, with BIND.
func (h *household) ftp(t *testing.T, to string) {
	t.Helper()
	cmd, err := socksify(h.network, client, h.dir, "tnftp", "-A", "-V", "-o", to, ftpURL)
	require.NoError(t, err)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// startSlowFTP does so at a rate at which it takes minutes, and returns when bytes arrive. The channel says how it ends.
func (h *household) startSlowFTP(t *testing.T) <-chan error {
	t.Helper()
	to := filepath.Join(h.dir, "slow")
	cmd, err := socksify(h.network, client, h.dir, "tnftp", "-A", "-V", "-T", "get,5000", "-o", to, ftpURL)
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }) // it may have ended
	require.NoError(t, retry(func() error {
		if info, err := os.Stat(to); err != nil || info.Size() == 0 {
			return errors.New("nothing has arrived yet")
		}
		return nil
	}))
	return ended
}

// TestOnePort boots a board with one port where nobody gives it an address, until somebody does. It is managed by that port, at
// either address.
func TestOnePort(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	b := boards()[0]
	b.Ports, b.WAN, b.LAN = b.Ports[:1], "", b.Ports[0].Name // in the link of the client
	k := newKeeper(t, b)
	k.start(t, "postern", func(o *machineOptions) { o.configuration, o.boardFile = b.DefaultConfiguration(), b.File() })
	assert.NotContains(t, k.command(t, "/ip address print"), lanAddress)
	require.NoError(t, k.n.awaitPing(client, lanAddress))
	assert.Regexp(t, `(?m)^ 0 D 192\.168\.0\.1/24 `, k.command(t, "/ip address print"))
	assert.Contains(t, k.command(t, "/log print"), b.LAN+" has no address in 30s: the router is at 192.168.0.1")
	assert.NotContains(t, settings(k.command(t, "/export")), lanAddress)
	assert.Empty(t, k.command(t, "/user set admin password=\""+sshPassword+"\""))
	ssh := newSSHClient(t, k.n, k.dir)
	managed := func(from host, address string) {
		t.Helper()
		out, err := ssh.command(from, sshPassword, "admin@"+address, "/system identity print").CombinedOutput()
		require.NoError(t, err, "%s", out)
		assert.Contains(t, string(out), "name: postern")
		assert.Contains(t, k.run(t, from, "curl", "--silent", "--show-error", "--fail", "--compressed", "http://"+address+"/"), "<title>")
	}
	managed(client, lanAddress)

	require.NoError(t, k.n[other].IP("addr add 10.2.0.1/24 dev eth0"))
	provider := k.n.command(other, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--user=root", "--group=root", "--port=0",
		"--interface=eth0", "--bind-interfaces", "--dhcp-range=10.2.0.100,10.2.0.150,255.255.255.0,1h", "--dhcp-authoritative", "--no-ping",
		"--dhcp-leasefile="+filepath.Join(k.dir, "provider.leases"), "--log-facility=-")
	require.NoError(t, provider.Start())
	t.Cleanup(func() { kill(provider) })
	require.NoError(t, awaitOwnAddress(k.m, "10.2.0.1"))
	require.NoError(t, retry(func() error {
		shown, err := k.m.command("/ip address print")
		if err == nil && strings.Contains(shown, lanAddress) {
			err = errors.New(shown)
		}
		return err
	}))
	address, err := find(k.command(t, "/ip address print"), `(?m)^ 0 D (10\.2\.0\.\d+)/24 `)
	require.NoError(t, err)
	require.NoError(t, k.n.awaitPing(other, address))
	managed(other, address)
}

// ownAddress is the router's WAN address, another than before if that is not "". The router has it a
// moment after its client is bound.
func (k *keeper) ownAddress(t *testing.T, before string) string {
	t.Helper()
	var address string
	require.NoError(t, retry(func() (err error) {
		var shown string
		if shown, err = k.m.command("/ip address print"); err == nil {
			address, err = find(shown, `(?m)^ ?\d+ D (10\.1\.0\.\d+)/24 `)
		}
		if err == nil && address == before {
			err = fmt.Errorf("the address is still %s", before)
		}
		return err
	}))
	return address
}

// TestSeveralPorts boots a board with two ports in the LAN as one starts on which nothing has been set: they are one
// network. A computer at each has an address and the provider's page by its name, and they reach each other.
func TestSeveralPorts(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	skipWithout(t, "pc")
	b, err := board.ByName("pc")
	require.NoError(t, err)
	const third = "ether3"
	b.Ports = append(slices.Clone(b.Ports), board.Port{Name: third, Device: "pci0000:00/0000:00:07.0", QEMU: "virtio-net-pci,romfile=,addr=0x7"})
	b.Bridged = []string{third}
	k := newKeeper(t, b)
	require.NoError(t, k.n.addLink(third, other))
	h, err := startHousehold(k.n, filepath.Join(k.dir, "household"))
	require.NoError(t, err)
	t.Cleanup(h.close)
	k.start(t, "postern", func(o *machineOptions) { o.configuration, o.boardFile = b.DefaultConfiguration(), b.File() })

	leases := map[host]lease{}
	for _, at := range []host{client, other} {
		l, err := h.connect(at, k.n.command)
		require.NoError(t, err)
		assert.Equal(t, lease{l.address, lanAddress, lanAddress}, l)
		require.NoError(t, retry(func() error { return h.pageFrom(at) }))
		leases[at] = l
	}
	assert.NotEqual(t, leases[client], leases[other])
	require.NoError(t, k.n.awaitPing(client, leases[other].address))
	require.NoError(t, k.n.awaitPing(other, leases[client].address))
	for _, port := range []string{b.LAN, third} {
		assert.Regexp(t, `(?m)^ +`+port+` +bridge +1 `, k.command(t, "/interface bridge port print"))
	}
	// By the bridge alone: whoever is at one port has nothing from the other when that is taken out.
	k.command(t, "/interface bridge port disable [find interface="+third+"]")
	assert.Error(t, k.n.run(client, "ping", "-c", "1", "-W", "1", leases[other].address))
	k.command(t, "/interface bridge port enable [find interface="+third+"]")
	require.NoError(t, k.n.awaitPing(client, leases[other].address))
	t.Logf("%s:\n%s%s%s", b.Name, k.command(t, "/interface print"), k.command(t, "/interface bridge port print"), k.command(t, "/ip dhcp-server lease print"))
}

// run runs a program on a host, which must succeed, and returns what it printed.
func (k *keeper) run(t *testing.T, h host, name string, args ...string) string {
	t.Helper()
	out, err := k.n.command(h, name, args...).CombinedOutput()
	require.NoError(t, err, "%s on %s: %s", name, h, out)
	return string(out)
}

// commonPorts are those at which routers have services.
var commonPorts = []uint16{21, 22, 23, 53, 67, 68, 80, 123, 443, 500, 1080, 1723, 2000, 8080, 8291, 8728, 8729}

// closedOutside checks that a host, which has the address from, gets an answer to an echo from the router's address, and to
// nothing else: no reset and no error either.
func (k *keeper) closedOutside(t *testing.T, h host, from, address string) {
	t.Helper()
	require.NoError(t, k.n.awaitPing(h, address))
	s, err := k.n.startScan(h, from, address, 54320)
	require.NoError(t, err)
	t.Cleanup(s.end)
	require.NoError(t, s.send(append(s.knocks(commonPorts), s.strange()...)))
	assert.Empty(t, s.answersSoon())
}

// assertSilent checks that the error is that of somebody who does not answer at all.
func assertSilent(t *testing.T, err error, who string) {
	t.Helper()
	var timeout net.Error
	assert.True(t, errors.As(err, &timeout) && timeout.Timeout(), "%s: %v", who, err)
}
