package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/u-root/mkuimage/cpio"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/pppoe"
)

// The access concentrator's addresses, beside pppoeServer: on the link before the router, and
// what the addresses of its clients begin with.
const (
	pppdAddress = "10.1.0.9"
	pppdClients = "203.0.113."
)

// pppdPrograms are what the access concentrator runs: of Debian's packages ppp, pppoe and busybox.
var pppdPrograms = []string{"/usr/sbin/pppd", "/usr/lib/pppd/2.4.9/pppoe.so", "/usr/sbin/pppoe-server", "/bin/busybox"}

// pppdInit is what the machine's first process, a shell, does before it takes commands.
const pppdInit = `/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
ip link set lo up
ip link set eth0 up
ip addr add ` + pppdAddress + `/24 dev eth0
ip route add default via ` + gatewayAddress + `
echo 1 > /proc/sys/net/ipv4/ip_forward
pppoe-server -F -I eth0 -C ac1 -S internet -L ` + pppoeServer + ` -R ` + pppdClients + `7 -N 50 -q /bin/kernelpppd &
stty -echo
echo ready''-now
while read -r line; do eval "$line"; done
`

// pppdOptions are those of each session's pppd, with the one that says how the client proves who it
// is in another file.
const pppdOptions = `file /etc/ppp/auth
ms-dns ` + gatewayAddress + `
lcp-echo-interval 5
lcp-echo-failure 20
noccp
noipv6
nomppe
debug
logfile /var/log/pppd
`

// accessConcentrator is a machine in QEMU that runs Debian's pppoe-server and pppd on the kernel of
// the board pc, as this machine's kernel may have no PPP. It is on the link before the router.
type accessConcentrator struct{ *machine }

func startAccessConcentrator(t *testing.T, n network, dir string) *accessConcentrator {
	t.Helper()
	b, err := board.ByName("pc")
	require.NoError(t, err)
	e2e.Needs(t, pppdPrograms...)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	initramfs := filepath.Join(dir, "initramfs")
	require.NoError(t, writePPPDInitramfs(dir, initramfs))
	require.NoError(t, n[switchHost].IP("tuntap add provider mode tap", "link set provider master br-ether1 up"))

	m := &machine{board: b, dir: dir, screen: newScreen(), stderr: newScreen(), exited: make(chan struct{})}
	m.board.Name = "the access concentrator"
	m.serial, err = openSerialLine(filepath.Join(dir, "serial"), m.screen)
	require.NoError(t, err)
	m.cmd = n.command(switchHost, b.QEMU.Binary, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", b.QEMU.Machine, "-accel", "tcg", "-m", "128",
		"-chardev", "pipe,id=serial,path="+m.serial.path, "-serial", "chardev:serial",
		"-kernel", filepath.Join(imageDir, b.Name, "kernel"), "-initrd", initramfs,
		"-append", "console=ttyS0 panic=-1 quiet rdinit=/bin/busybox -- sh /init",
		"-netdev", "tap,id=net,script=no,downscript=no,ifname=provider", "-device", "virtio-net-pci,netdev=net,mac=02:70:6f:73:74:99,romfile=")
	m.cmd.Stderr = m.stderr
	require.NoError(t, m.cmd.Start())
	go func() {
		m.exitErr = m.cmd.Wait()
		m.serial.drain()
		close(m.exited)
	}()
	a := &accessConcentrator{m}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the access concentrator's console ends with:\n%s\n%s", m.screen.tail(40), m.stderr.all())
		}
		m.kill()
	})
	_, err = m.expect("ready-now")
	require.NoError(t, err)
	return a
}

// writePPPDInitramfs writes the archive of the access concentrator's programs.
func writePPPDInitramfs(dir, path string) error {
	kernelpppd := filepath.Join(dir, "kernelpppd")
	build := exec.Command("go", "build", "-o", kernelpppd, "github.com/postern-router/postern/internal/pppoetest/kernelpppd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build kernelpppd: %w: %s", err, out)
	}
	const secrets = "\"me@isp\" * \"a secret\" *\n"
	files := map[string]cpio.Record{
		"dev/console":                  cpio.CharDev("dev/console", 0o600, 5, 1),
		"init":                         cpio.StaticFile("init", pppdInit, 0o755),
		"etc/ppp/pppoe-server-options": cpio.StaticFile("etc/ppp/pppoe-server-options", pppdOptions, 0o644),
		"etc/ppp/options":              cpio.StaticFile("etc/ppp/options", "", 0o644),
		"etc/ppp/pap-secrets":          cpio.StaticFile("etc/ppp/pap-secrets", secrets, 0o600),
		"etc/ppp/chap-secrets":         cpio.StaticFile("etc/ppp/chap-secrets", secrets, 0o600),
	}
	add := func(name, from string) error {
		data, err := os.ReadFile(from)
		files[name] = cpio.StaticFile(name, string(data), 0o755)
		return err
	}
	if err := add("bin/kernelpppd", kernelpppd); err != nil {
		return err
	}
	for _, program := range pppdPrograms {
		if err := add(program[1:], program); err != nil {
			return err
		}
		out, err := exec.Command("ldd", program).Output()
		if err != nil {
			return fmt.Errorf("ldd %s: %w", program, err)
		}
		for _, found := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllStringSubmatch(string(out), -1) {
			if err := add(found[1][1:], found[1]); err != nil {
				return err
			}
		}
	}
	for name := range files {
		for folder := filepath.Dir(name); folder != "."; folder = filepath.Dir(folder) {
			files[folder] = cpio.Directory(folder, 0o755)
		}
	}
	for _, folder := range []string{"proc", "run", "tmp", "var", "var/log", "var/run", "bin"} {
		files[folder] = cpio.Directory(folder, 0o755)
	}
	var archive bytes.Buffer
	w := cpio.Newc.Writer(&archive)
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names) // folders before what is in them
	for _, name := range names {
		if err := w.WriteRecord(files[name]); err != nil {
			return err
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return err
	}
	return os.WriteFile(path, archive.Bytes(), 0o644)
}

// run runs a line of a shell on the machine and returns what it printed.
func (a *accessConcentrator) run(line string) (string, error) {
	a.screen.forget()
	// The mark is written so that an echo of the line would differ from it.
	if err := a.send(line + "; echo mark''s-end\n"); err != nil {
		return "", err
	}
	out, err := a.expect("marks-end")
	return strings.TrimSuffix(strings.ReplaceAll(out, "\r", ""), "marks-end"), err
}

func (a *accessConcentrator) shell(t *testing.T, line string) string {
	t.Helper()
	out, err := a.run(line)
	require.NoError(t, err)
	return out
}

// demand says how the clients of new sessions are to prove who they are.
func (a *accessConcentrator) demand(t *testing.T, option string) {
	t.Helper()
	a.shell(t, "echo "+option+" > /etc/ppp/auth")
}

// TestPPPD has a household behind a provider that runs Debian's pppoe-server and pppd, the ones that
// many run: each way to prove the password, and the ways in which pppd ends or is silent.
func TestPPPD(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	skipWithout(t, "pc") // the access concentrator has its kernel
	for _, b := range boards() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testPPPD(t, b)
		})
	}
}

// pppdHousehold is a household behind an access concentrator.
type pppdHousehold struct {
	*household
	k  *keeper
	ac *accessConcentrator
}

func newPPPDHousehold(t *testing.T, k *keeper) *pppdHousehold {
	h, err := startHousehold(k.n, filepath.Join(k.dir, "household"))
	require.NoError(t, err)
	t.Cleanup(h.close)
	// The name server stays, on the gateway's address; nobody gives addresses by DHCP.
	kill(h.provider)
	h.provider = k.n.command(gateway, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--user=root", "--group=root",
		"--no-resolv", "--no-hosts", "--listen-address="+gatewayAddress, "--bind-interfaces", "--log-facility=-", "--address=/"+pageName+"/"+serverAddress)
	h.provider.Stdout, h.provider.Stderr = h.log, h.log
	require.NoError(t, h.provider.Start())
	require.NoError(t, k.n[gateway].IP("route add "+pppdClients+"0/24 via "+pppdAddress))
	// Nobody is told of packets that are too long.
	k.run(t, gateway, "iptables-legacy", "-A", "INPUT", "-p", "icmp", "--icmp-type", "fragmentation-needed", "-j", "DROP")
	k.run(t, gateway, "iptables-legacy", "-A", "FORWARD", "-p", "icmp", "--icmp-type", "fragmentation-needed", "-j", "DROP")
	p := &pppdHousehold{household: h, k: k, ac: startAccessConcentrator(t, k.n, filepath.Join(k.dir, "ac"))}
	t.Cleanup(func() {
		if !t.Failed() || k.m == nil {
			return
		}
		out, err := k.m.command("/log print where topics~\"pppoe\"")
		t.Logf("the log: %v\n%s", err, out)
		out, err = p.ac.run("tail -n 150 /var/log/pppd")
		t.Logf("pppd: %v\n%s", err, out)
	})
	return p
}

// state is what the router shows of the connection.
func (p *pppdHousehold) state() (status, address string, err error) {
	shown, err := p.k.m.command("/interface pppoe-client monitor pppoe-out1 once")
	if err != nil {
		return "", "", err
	}
	status, err = find(shown, `(?m)^ +status: (.*)$`)
	address, _ = find(shown, `(?m)^ +local-address: (\S+)$`) // it may have none
	return status, address, err
}

// await waits until the connection is there, a page can be had behind it, and pppd says that the
// password was proved so.
func (p *pppdHousehold) await(t *testing.T, proved string) {
	t.Helper()
	var address string
	require.NoError(t, retry(func() error {
		status, a, err := p.state()
		if err == nil && (status != string(pppoe.Connected) || !strings.HasPrefix(a, pppdClients)) {
			err = fmt.Errorf("%s, address %q", status, a)
		}
		address = a
		return err
	}))
	require.NoError(t, retry(p.page))
	assert.NoError(t, p.site.askedFrom(address), "masqueraded")
	assert.Contains(t, p.ac.shell(t, "grep '^sent .LCP ConfReq' /var/log/pppd | tail -n 1"), proved)
}

// session is the number of the process that is pppd of the only session.
func (p *pppdHousehold) session(t *testing.T) string {
	t.Helper()
	pids := strings.Fields(p.ac.shell(t, "pidof pppd"))
	require.Len(t, pids, 1)
	return pids[0]
}

// awaitLog waits until the router's log has one line more with that text than before act.
func (p *pppdHousehold) awaitLog(t *testing.T, text string, act func()) {
	t.Helper()
	count := func() (int, error) {
		out, err := p.k.m.command("/log print where topics~\"pppoe\"")
		return strings.Count(out, text), err
	}
	before, err := count()
	require.NoError(t, err)
	act()
	require.NoError(t, retry(func() error {
		n, err := count()
		if err == nil && n <= before {
			err = fmt.Errorf("no line %q", text)
		}
		return err
	}))
}

func testPPPD(t *testing.T, b board.Board) {
	k := newKeeper(t, b)
	p := newPPPDHousehold(t, k)
	p.ac.demand(t, "require-mschap-v2")
	k.start(t, "postern", nil)
	for _, line := range []string{
		"/ip dhcp-client disable 0",
		`/interface pppoe-client add name=pppoe-out1 interface=` + b.WAN + ` user="me@isp" password="a secret" service-name=internet add-default-route=yes use-peer-dns=yes keepalive-timeout=2 disabled=no`,
		"/interface list member add list=WAN interface=pppoe-out1",
	} {
		k.command(t, line) // a busy PC's kernel may say something in between (hpet)
	}
	_, err := p.connect(client, k.n.command)
	require.NoError(t, err)
	p.await(t, "<auth chap MS-v2>")
	t.Logf("%s:\n%s%s%s%s", b.Name, k.command(t, "/interface pppoe-client monitor 0 once"), k.command(t, "/ip address print"),
		k.command(t, "/ip route print"), k.command(t, "/ip dns print"))
	t.Logf("pppd:\n%s", p.ac.shell(t, "cat /var/log/pppd"))
	assert.Regexp(t, `(?m)^ *\d+ A?DS?A?S? +0\.0\.0\.0/0 +pppoe-out1 +1$`, k.command(t, "/ip route print"))
	assert.Regexp(t, `(?m)^ +dynamic-servers: `+regexp.QuoteMeta(gatewayAddress)+`$`, k.command(t, "/ip dns print"))

	t.Run("pppd is terminated", func(t *testing.T) {
		p.ac.demand(t, "require-chap")
		p.awaitLog(t, "the server has ended the connection", func() { p.ac.shell(t, "kill -TERM "+p.session(t)) })
		p.await(t, "<auth chap MD5>")
	})
	t.Run("pppd is killed", func(t *testing.T) {
		p.ac.demand(t, "require-pap")
		p.awaitLog(t, "the server has ended the session: RP-PPPoE: Child pppd process terminated", func() { p.ac.shell(t, "kill -KILL "+p.session(t)) })
		p.await(t, "<auth pap>")
	})
	if !thorough(b) {
		return // each way to prove the password was seen
	}
	t.Run("a large file", func(t *testing.T) {
		fetched := filepath.Join(k.dir, "fetched")
		start := time.Now()
		k.run(t, client, "curl", "--silent", "--show-error", "--max-time", "300", "--output", fetched, "http://"+serverAddress+"/"+fileName)
		t.Logf("%s: %.1f Mbit/s", b.Name, float64(8*fileSize)/1e6/time.Since(start).Seconds())
		assertSameFile(t, p.site.file, fetched)
		l, err := k.n.listen(serverOfSite, 5140)
		require.NoError(t, err)
		defer l.Close()
		near, err := k.n.dial(client, serverAddress+":5140", patience)
		require.NoError(t, err)
		defer near.Close()
		far, err := l.Accept()
		require.NoError(t, err)
		defer far.Close()
		for name, conn := range map[string]net.Conn{"client": near, "server": far} {
			assert.LessOrEqual(t, segmentSize(t, conn), 1452, "what the %s sends", name)
		}
	})
	for _, c := range []struct{ option, proved, reason string }{
		{"require-pap", "<auth pap>", "authentication failed: Login incorrect"},
		{"require-chap", "<auth chap MD5>", "authentication failed: Access denied"},
		{"require-mschap", "<auth chap MS>", "authentication failed\n"},
		{"require-mschap-v2", "<auth chap MS-v2>", "authentication failed: Access denied"},
	} {
		t.Run("a wrong password with "+c.option, func(t *testing.T) {
			p.ac.demand(t, c.option)
			p.awaitLog(t, c.reason, func() {
				k.command(t, "/interface pppoe-client set pppoe-out1 password=\"no secret\"")
			})
			_, address, err := p.state()
			require.NoError(t, err)
			assert.Empty(t, address)
			k.command(t, "/interface pppoe-client set pppoe-out1 password=\"a secret\"")
			p.await(t, c.proved)
		})
	}
	t.Run("pppd is silent", func(t *testing.T) {
		old := p.session(t)
		start := time.Now()
		p.awaitLog(t, "the server does not answer any more", func() { p.ac.shell(t, "kill -STOP "+old) })
		silent := time.Since(start)
		p.await(t, "<auth chap MS-v2>")
		t.Logf("%s: noticed after %.0f s, connected again after %.0f s", b.Name, silent.Seconds(), time.Since(start).Seconds())
		p.ac.shell(t, "kill -CONT "+old+"; kill -KILL "+old)
		p.await(t, "<auth chap MS-v2>") // the session of the one that is gone was another
	})
	t.Run("the client is disabled", func(t *testing.T) {
		k.command(t, "/interface pppoe-client disable pppoe-out1")
		require.NoError(t, retry(func() error {
			if pids := strings.TrimSpace(p.ac.shell(t, "pidof pppd")); pids != "" {
				return errors.New("pppd runs: " + pids)
			}
			return nil
		}))
		log := p.ac.shell(t, "cat /var/log/pppd")
		assert.Contains(t, log[strings.LastIndex(log, "sent [LCP ConfReq"):], "LCP terminated by peer")
		assert.NotContains(t, k.command(t, "/log print where topics~\"pppoe\""), "the session has ended")
		k.command(t, "/interface pppoe-client enable pppoe-out1")
		p.await(t, "<auth chap MS-v2>")
	})
}

// segmentSize is how many bytes of data a connection sends in one segment, at most.
func segmentSize(t *testing.T, conn net.Conn) int {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	size := 0
	require.NoError(t, raw.Control(func(fd uintptr) { size, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) }))
	require.NoError(t, err)
	return size
}
