package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/internal/pppoetest"
	"github.com/postern-router/postern/password"
	"github.com/postern-router/postern/upgrade"
)

const (
	// daysVariable says how long the three days of TestThreeDays take: 1h is 72 hours at 72 times their pace. Without it
	// two hours of each day are lived, as fast as they go.
	daysVariable = "POSTERN_TEST_DAYS"

	daysTalkPort = 5170
	// daysGamePort is closed at night, by a rule.
	daysGamePort = 5190
	// daysTalks are connections that are open for an hour, through SOCKS and by masquerade.
	daysTalks = 5
	// daysNames are how many names are asked for at once that nobody has asked for before.
	daysNames = 20
	// daysLook is from one look inside to the next, while something is waited for.
	daysLook = 3 * time.Second
	// daysRenewal is after how long the provider has the router renew its address.
	daysRenewal = 20 * time.Second

	// daysMemory is how much less memory may be free in the last night than in the one before, in KiB, without what the
	// processes have of their own. In the first morning nothing has warmed up.
	daysMemory = 1024
	// daysHeap is how much more a process may have taken than after the upgrade, in KiB: then it has done nothing yet.
	daysHeap = 1024
	// daysDescriptors is how many more descriptors and threads it may have: a thread more is there when several
	// wait at once.
	daysDescriptors = 4
	// daysPipes is how many more descriptors socksd may have: it keeps the pipes that it made, four at the most.
	daysPipes = 8
	// daysGoroutines is how many goroutines of PID 1 may be at the same place: some wait for each of its processes.
	daysGoroutines = 12
)

// threeDays is a household that lives with a router.
type threeDays struct {
	*inside
	h      *household
	ssh    *sshClient
	peer   *pppoetest.Live
	laptop *exec.Cmd // its DHCP client
	said   *logBuffer
	// count is what has been done, by what it is called.
	count map[string]int
}

// TestThreeDays has a household live for three days with a board, the smallest or the one that badDayVariable names, at 72 times their pace: a laptop
// whose lease is renewed, guests who come and go, some without a word, names, pages, files by FTP, logins, hours in which a port
// is closed, at night another address of the provider and another connection by PPPoE, and in the first night an upgrade. When
// it is over and everybody is gone the router has as much memory as a day before, and what each process has taken has not grown.
//
// It looks at the router from inside, by the shell of the debug image, for which the flash has no room. So what starts behind the upgrade
// is that image again, with what was kept; that the one on flash starts is for TestUpgradeInPlace.
func TestThreeDays(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	loads(t)
	b := badDayBoard(t, "malta")
	length := testTime(t, daysVariable, 0)
	hour, hours := length/72, []int{7, 23}
	if hour > 0 {
		hours = nil
		for i := range 24 {
			hours = append(hours, i)
		}
	}
	d := startThreeDays(t, b)
	morning := d.look()
	t.Logf("before anybody is there: %v", morning)
	var before figures
	// A leap day is one of them.
	midnight := time.Date(2032, 2, 28, 0, 0, 0, 0, time.UTC)
	for day := range 3 {
		for _, at := range hours {
			d.hour(t, midnight.AddDate(0, 0, day).Add(time.Duration(at)*time.Hour), hour)
		}
		d.night(t, day)
		if day == 0 {
			d.upgrade(t)
			morning = d.look()
			t.Logf("after the upgrade: %v", morning)
		}
		if hour == 0 && day == 0 {
			continue
		}
		now := d.asleep(t, morning, before)
		t.Logf("night %d: %v", day+1, now)
		if day > 0 {
			before = now
		}
	}
	assert.Equal(t, "0", strings.TrimSpace(d.console(t, "/ip dhcp-server lease print count-only")), "leases of who has gone")
	t.Logf("in three days: %v", d.count)
	t.Logf("the provider has renewed the lease %d times, the router the laptop's %d times",
		strings.Count(d.h.log.String(), "DHCPACK(eth0) "), strings.Count(d.said.String(), "lease of "))
	assert.NotRegexp(t, `(?i)out of memory|page allocation failure|oops|(ended by|hangs: it is ended)|is not well:|not been well|kernel panic`, d.m.screen.all())
	d.goroutines(t)
}

// startThreeDays boots the router, and plugs the laptop in.
func startThreeDays(t *testing.T, b board.Board) *threeDays {
	r := layNetwork(t, b.Name)
	h, err := startHousehold(r.n, filepath.Join(r.dir, "household"))
	require.NoError(t, err)
	t.Cleanup(h.close)
	r.site = h.site
	kill(h.provider)
	require.NoError(t, h.startProvider("10.1.0.100", "10.1.0.109", daysRenewal))
	d := &threeDays{inside: &inside{r, t}, h: h, ssh: newSSHClient(t, r.n, r.dir), said: &logBuffer{}, count: map[string]int{}}
	require.NoError(t, r.n.on(gateway, func() (err error) {
		d.peer, err = pppoetest.Serve("eth0", "peer", pppoetest.Config{AC: "ac1", Service: "internet", Auth: "chap", User: "me@isp", Password: "a secret", MRU: 1492,
			Local: netip.MustParseAddr(pppoeServer), Remote: netip.MustParseAddr(pppoeClient)})
		return err
	}))
	t.Cleanup(d.peer.Close)
	require.NoError(t, r.n[gateway].IP("addr add "+pppoeServer+" dev peer", "link set peer mtu 1492 up", "route add 203.0.113.0/24 dev peer"))
	require.NoError(t, r.n[client].Overlay("/etc/resolv.conf", "nameserver "+lanAddress+"\n"))
	require.NoError(t, r.n[other].Overlay("/etc/resolv.conf", "nameserver "+lanAddress+"\n"))
	r.echo(t, daysGamePort)
	hash, err := password.New(sshPassword)
	require.NoError(t, err)
	commandLine := shellLine
	if _, ok := b.Flash.Partition(board.Slots[1]); ok {
		var more string
		r.b, more = withSlots(t, b, filepath.Join(r.dir, "flash"))
		commandLine += more
	}
	r.boot(t, machineOptions{image: filepath.Join(imageDir, b.Name+"-debug"), commandLine: commandLine, memory: insideMemory(b), reboot: true, configuration: r.b.DefaultConfiguration() +
		"/user set admin password-hash=\"" + strings.ReplaceAll(hash, "$", `\$`) + "\"\n" +
		"/ip socks set enabled=yes\n" +
		"/ip dhcp-server set defconf lease-time=1m\n" + // 72 minutes of the household's
		"/interface pppoe-client add name=pppoe-out1 interface=ether1 user=\"me@isp\" password=\"a secret\" disabled=no\n" +
		"/interface list member add list=WAN interface=pppoe-out1\n" +
		"/ip firewall connection tracking set udp-timeout=2s udp-stream-timeout=3s icmp-timeout=2s tcp-time-wait-timeout=2s tcp-close-timeout=2s\n" +
		fmt.Sprintf("/ip firewall filter add chain=forward protocol=tcp dst-port=%d time=22h-6h action=drop\n", daysGamePort)})
	d.up(t)
	return d
}

// up waits until the router is up with what runs always, and teaches its shell to look.
func (d *threeDays) up(t *testing.T) {
	t.Helper()
	d.expect(t, "socks accepts on port 1080")
	d.expect(t, "$")
	d.learnToLook()
	require.NoError(t, retry(func() error {
		if f := d.look(); !slices.Equal(f.names(), always) {
			return fmt.Errorf("these run: %v", f)
		}
		return nil
	}))
}

// always are the processes that run while nobody is there, and the shell.
var always = []string{"dhcpc", "dnsd", "gosh", "init", "pppoe", "socksd"}

// figures are what the router has taken, in KiB.
type figures struct {
	available, slab int
	// tracked is the number of connections that the kernel remembers.
	tracked   int
	processes map[string]taken
}

// taken is what a process has taken: memory of its own, in KiB, descriptors and threads.
type taken struct{ heap, descriptors, threads int }

func (f figures) names() []string { return slices.Sorted(maps.Keys(f.processes)) }

func (f figures) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d KiB available, %d of the kernel's, %d connections tracked;", f.available, f.slab, f.tracked)
	for _, name := range f.names() {
		p := f.processes[name]
		fmt.Fprintf(&b, " %s %d KiB, %d descriptors, %d threads;", name, p.heap, p.descriptors, p.threads)
	}
	return b.String()
}

var (
	lookProcess = regexp.MustCompile(`process (\S+) (\d+) (\d+) (\d+)\n`)
	lookMemory  = regexp.MustCompile(`MemAvailable: (\d+)\n`)
	lookSlab    = regexp.MustCompile(`SUnreclaim: (\d+)\n`)
	lookTracked = regexp.MustCompile(`tracked: (\d+)\n`)
)

// learnToLook teaches the shell what look needs, which starts no process: that would be seen.
func (s *inside) learnToLook() {
	s.t.Helper()
	s.run(`one() { n=; heap=; threads=; while read name value unit; do case $name in Name:) n=$value;; RssAnon:) heap=$value;; Threads:) threads=$value;; esac; done <$1/status; ` +
		`case $heap in ?*) set -- $1/fd/*; echo "process $n $heap $# $threads";; esac; }`)
	s.run(`look() { for p in /proc/[0-9]*; do one $p; done; while read name value unit; do case $name in MemAvailable:|SUnreclaim:) echo $name $value;; esac; done </proc/meminfo; ` +
		`read value </proc/sys/net/netfilter/nf_conntrack_count; echo tracked: $value; }`)
}

// look reads the figures.
func (s *inside) look() figures {
	s.t.Helper()
	text := s.run("look")
	number := func(word string) int {
		n, err := strconv.Atoi(word)
		require.NoError(s.t, err, text)
		return n
	}
	line := func(pattern *regexp.Regexp) int {
		found := pattern.FindStringSubmatch(text)
		require.NotNil(s.t, found, "%s in:\n%s", pattern, text)
		return number(found[1])
	}
	f := figures{available: line(lookMemory), slab: line(lookSlab), tracked: line(lookTracked), processes: map[string]taken{}}
	for _, found := range lookProcess.FindAllStringSubmatch(text, -1) {
		f.processes[found[1]] = taken{number(found[2]), number(found[3]), number(found[4])}
	}
	return f
}

// more returns an error if the router has taken more than it may have taken since.
func (f figures) more(since figures) error {
	for name, was := range since.processes {
		is, descriptors := f.processes[name], daysDescriptors
		if name == "socksd" {
			descriptors += daysPipes
		}
		if is.heap > was.heap+daysHeap || is.descriptors > was.descriptors+descriptors || is.threads > was.threads+daysDescriptors {
			return fmt.Errorf("%s has more than before:\n%v\n%v", name, since, f)
		}
	}
	return nil
}

// free is what is free, and what the processes have of their own: that goes up and down with their collections of garbage.
func (f figures) free() int {
	n := f.available
	for _, p := range f.processes {
		n += p.heap
	}
	return n
}

// console runs a line over SSH, as the owner who logs in.
func (d *threeDays) console(t *testing.T, line string) string {
	t.Helper()
	var said string
	require.NoError(t, retry(func() (err error) {
		said, err = d.ssh.run(sshPassword, line)
		return err
	}))
	d.count["logins"]++
	return said
}

// dhcp starts a host's DHCP client, which goes on until it is ended, and waits until the host has an address: it returns that.
func (d *threeDays) dhcp(t *testing.T, h host, name string, said io.Writer) (*exec.Cmd, string) {
	t.Helper()
	cmd := d.n.command(h, "busybox", "udhcpc", "-f", "-R", "-t", "60", "-T", "2", "-A", "2", "-i", "eth0", "-x", "hostname:"+name, "-s", d.h.script())
	cmd.Stdout, cmd.Stderr = said, said
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { kill(cmd) })
	var address string
	require.NoError(t, retry(func() (err error) {
		address, err = find(d.inside.router.run(t, h, "ip", "-4", "-o", "addr", "show", "dev", "eth0"), `inet (192\.168\.0\.\d+)/24`)
		return err
	}))
	return cmd, address
}

// hour is one of the household's, which lasts for so long at the least.
func (d *threeDays) hour(t *testing.T, clock time.Time, length time.Duration) {
	t.Helper()
	start := time.Now()
	if d.laptop == nil {
		d.laptop, _ = d.dhcp(t, client, "laptop", d.said)
	}
	assert.Empty(t, d.console(t, "/system clock set date="+strings.ToLower(clock.Format("Jan/02/2006"))+" time="+clock.Format(time.TimeOnly)))
	d.count["hours"]++
	l, err := d.n.listen(serverOfSite, daysTalkPort)
	require.NoError(t, err)
	talks := d.openTalks(t, l, netip.MustParseAddrPort(fmt.Sprintf("%s:%d", serverAddress, daysTalkPort)), daysTalks, daysTalks)
	for again := true; again; again = time.Since(start) < length {
		d.guest(t)
		d.names(t)
		require.NoError(t, retry(d.h.page))
		d.count["pages"]++
		d.h.ftp(t, filepath.Join(d.dir, "active"))
		assertSameFile(t, d.site.file, filepath.Join(d.dir, "active"))
		d.inside.router.run(t, client, "curl", "--silent", "--show-error", "--output", filepath.Join(d.dir, "passive"), ftpURL)
		assertSameFile(t, d.site.file, filepath.Join(d.dir, "passive"))
		d.count["files by FTP"] += 2
		// Without a login, which keeps the process for a quarter of an hour.
		d.inside.router.run(t, client, "curl", "--silent", "--show-error", "--fail", "--compressed", "--output", os.DevNull, "http://"+lanAddress+"/")
		d.count["the router's page"]++
	}
	d.awaitTalks(t, talks)
	d.assertTalks(t, talks)
	l.Close()
	d.count["connections of an hour"] += len(talks)
	conn, err := d.n.dial(client, fmt.Sprintf("%s:%d", serverAddress, daysGamePort), map[bool]time.Duration{true: 3 * time.Second, false: patience}[night(clock)])
	if night(clock) {
		assertSilent(t, err, "the port that is closed at night")
		return
	}
	require.NoError(t, err, "the port that is open by day")
	conn.Close()
}

// night says when a rule closes daysGamePort.
func night(clock time.Time) bool { return clock.Hour() < 6 || clock.Hour() >= 22 }

// guest has a host come that was never there, see a page, and go: every other one without a word.
func (d *threeDays) guest(t *testing.T) {
	t.Helper()
	d.count["guests"]++
	n := d.count["guests"]
	require.NoError(t, d.n[other].IP("addr flush dev eth0", "link set eth0 down", fmt.Sprintf("link set eth0 address 02:00:00:01:%02x:%02x", n>>8, n&0xff), "link set eth0 up"))
	name := fmt.Sprintf("guest%d", n)
	cmd, address := d.dhcp(t, other, name, io.Discard)
	require.NoError(t, retry(func() error { return d.h.pageFrom(other) }))
	// The others find the guest by name.
	require.NoError(t, retry(func() error {
		out, err := d.n.command(client, "busybox", "nslookup", name, lanAddress).CombinedOutput()
		if !strings.Contains(string(out), "Address: "+address+"\n") {
			return fmt.Errorf("%s is at %s: %w: %s", name, address, err, out)
		}
		return nil
	}))
	if n%2 == 0 {
		require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)) // it gives the lease back
		_ = cmd.Wait()
	} else {
		kill(cmd)
	}
}

// names asks for names that the router has not in its cache.
func (d *threeDays) names(t *testing.T) {
	t.Helper()
	var conn net.Conn
	require.NoError(t, d.n.on(client, func() (err error) {
		conn, err = net.Dial("udp4", lanAddress+":53")
		return err
	}))
	defer conn.Close()
	for range daysNames {
		d.count["names"]++
		n := d.count["names"]
		name := fmt.Sprintf("n%d.%s", n, pageName)
		question := questionFor(name, uint16(n))
		require.NoError(t, retry(func() error {
			if _, err := conn.Write(question); err != nil {
				return err
			}
			if err := conn.SetReadDeadline(time.Now().Add(3 * time.Second)); err != nil {
				return err
			}
			answer := make([]byte, 512)
			n, err := conn.Read(answer)
			if err != nil {
				return err
			}
			if answer = answer[:n]; !answers(answer) || string(answer[:2]) != string(question[:2]) {
				return fmt.Errorf("to the question for %s: %x", name, answer)
			}
			return nil
		}))
	}
}

// night has the providers give other addresses.
func (d *threeDays) night(t *testing.T, day int) {
	t.Helper()
	kill(d.h.provider)
	require.NoError(t, os.Remove(d.h.providerLeases()))
	range10 := 110 + 10*day
	require.NoError(t, d.h.startProvider(fmt.Sprintf("10.1.0.%d", range10), fmt.Sprintf("10.1.0.%d", range10+9), daysRenewal))
	line := netip.AddrFrom4([4]byte{203, 0, 113, byte(20 + day)})
	d.peer.SetConfig(func(c *pppoetest.Config) { c.Remote = line })
	d.peer.Terminate()
	require.NoError(t, retry(func() error {
		shown, err := d.ssh.run(sshPassword, "/ip address print")
		if err == nil && (!regexp.MustCompile(fmt.Sprintf(`\b10\.1\.0\.%d\d/24 `, range10/10)).MatchString(shown) || !strings.Contains(shown, line.String()+"/")) {
			err = fmt.Errorf("the new addresses are not there:\n%s", shown)
		}
		return err
	}))
	require.NoError(t, d.n.awaitPing(client, pppoeServer), "by PPPoE")
	require.NoError(t, retry(d.h.page))
}

// upgrade has the router install another version from a web server outside, and waits until it is up again.
func (d *threeDays) upgrade(t *testing.T) {
	t.Helper()
	path := makeVersion(t, d.b, d.dir, version{name: "v2", date: later})
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(d.site.dir, "ftp", "v2"), data, 0o644))
	kill(d.laptop) // its lid is closed: nobody asks the router for anything before it is looked at
	d.laptop = nil
	s := startShell(t, d.ssh.command(client, sshPassword, "-tt", "admin+cet512w@"+lanAddress))
	s.expect(t, "] > ")
	start := time.Now()
	d.m.screen.forget()
	s.typed(t, "/system upgrade http://"+serverAddress+"/v2", "[y/N]: ")
	_, err = io.WriteString(s.in, "y\r")
	require.NoError(t, err)
	s.expect(t, "system will reboot shortly")
	kill(s.cmd)
	d.expect(t, linuxStarts)
	slot, err := os.ReadFile(filepath.Join(filepath.Dir(path), slotImage))
	require.NoError(t, err)
	k := &keeper{T: t, b: d.b, n: d.n, dir: d.dir, m: d.m}
	place, ok := d.b.Flash.Partition("image")
	if !ok {
		place, ok = d.b.Flash.Partition(board.Slots[1])
	}
	require.True(t, ok)
	assert.True(t, bytes.Equal(slot, k.read(t, place.Offset, int64(len(slot)))), "what the boot loader starts")
	kept := k.partition(t)
	if p, ok := d.b.Flash.Partition(board.StatePartition); ok {
		kept = k.read(t, p.Offset, p.Size)
	}
	// That of a guest who went without a word may follow, if the board is fast.
	assert.True(t, regexp.MustCompile(`leases=.*,laptop[ \n]`).Match(kept), "the lease is kept")
	d.up(t)
	t.Logf("the router is up again %v after the upgrade was asked for", time.Since(start).Round(time.Second))
}

// withSlots returns a board with two slots as one whose kernel starts from memory and runs in the first of them, and more of its command line.
// The slots of a chip are in a bank then that is none of the boot loader's: such QEMU leaves out. flash is the file of its flash, to be made.
func withSlots(t *testing.T, b board.Board, flash string) (board.Board, string) {
	t.Helper()
	line := " postern.slot=" + upgrade.SlotNames[0]
	_, err := makeFlash(b, machineOptions{image: filepath.Join(imageDir, b.Name)}, flash)
	require.NoError(t, err)
	if b.Flash.Chip == "" {
		return b, line
	}
	first, _ := b.Flash.Partition(board.Slots[0])
	f, err := os.Open(filepath.Join(imageDir, b.Name, factoryImage))
	require.NoError(t, err)
	defer f.Close()
	slot := make([]byte, first.Size)
	_, err = f.ReadAt(slot, first.Offset)
	require.NoError(t, err)
	var parts []string
	b.Flash.Partitions = slices.Clone(b.Flash.Partitions)
	at := b.QEMU.Banks[1].Offset + 2<<20
	for i, p := range b.Flash.Partitions {
		if slices.Contains(board.Slots[:], p.Name) {
			p.Offset, at = at, at+p.Size
			b.Flash.Partitions[i] = p
		}
		parts = append(parts, fmt.Sprintf("%dk@%dk(%s)", p.Size>>10, p.Offset>>10, p.Name))
	}
	out, err := os.OpenFile(flash, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer out.Close()
	first, _ = b.Flash.Partition(board.Slots[0])
	_, err = out.WriteAt(slot, first.Offset)
	require.NoError(t, err)
	return b, line + " mtdparts=" + b.Flash.Chip + ":" + strings.Join(parts, ",")
}

// asleep has everybody go, and waits until no lease and no connection is left, what runs is what runs always, and the router has
// as much as in the morning and in the night before, if there is one: what it only uses for a while is given back.
func (d *threeDays) asleep(t *testing.T, morning, before figures) (f figures) {
	t.Helper()
	if d.laptop != nil { // an upgrade has closed its lid
		kill(d.laptop)
		d.laptop = nil
	}
	start := time.Now()
	defer func() { t.Logf("asleep after %v", time.Since(start).Round(time.Second)) }()
	require.NoError(t, retry(func() error {
		// Nothing is to be asked of the router meanwhile, and not too often of its shell.
		time.Sleep(daysLook)
		if f = d.look(); !slices.Equal(f.names(), always) || f.tracked > 2 {
			return fmt.Errorf("not asleep: %v", f)
		}
		if f.free() < before.free()-daysMemory {
			return fmt.Errorf("less is free than in the night before:\n%v\n%v", before, f)
		}
		return errors.Join(f.more(morning), f.more(before))
	}))
	return f
}

// goroutines ends PID 1, the last that the test does with it, so that it says where its goroutines wait: as many at one place as
// there were guests, logins or hours were left behind.
func (d *threeDays) goroutines(t *testing.T) {
	t.Helper()
	d.m.screen.forget()
	require.NoError(t, d.m.send("kill -6 1\r"))
	text := strings.ReplaceAll(d.expect(t, "Kernel panic"), "\r", "")
	stacks, most := map[string]int{}, 0
	all := goroutineHead.Split(text, -1)[1:]
	for _, stack := range all {
		place := strings.Join(goroutinePlace.FindAllString(stack, -1), " ")
		stacks[place]++
		most = max(most, stacks[place])
	}
	t.Logf("PID 1 has %d goroutines, %d of them at the same place", len(all), most)
	assert.NotEmpty(t, all, text)
	assert.LessOrEqual(t, most, daysGoroutines, text)
}

var (
	goroutineHead  = regexp.MustCompile(`(?m)^goroutine \d+ `)
	goroutinePlace = regexp.MustCompile(`(?m)^\t\S+`)
)
