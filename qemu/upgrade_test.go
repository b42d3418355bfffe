package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
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

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// upgradeImage is what a router is upgraded with, in an image folder, by package image.
const upgradeImage = "sysupgrade.img"

// slotBoards are those to test that have two slots.
func slotBoards() []board.Board {
	return slices.DeleteFunc(boards(), func(b board.Board) bool {
		_, ok := b.Flash.Partition(board.Slots[1])
		return !ok
	})
}

// version is one of the software that a test makes: the image with other files in it.
type version struct {
	name string
	// date orders it, in seconds since 1970.
	date int64
	// bad is what the program of that name does in this version, if it is not empty: hang
	// or end.
	bad, program string
}

// later is a date after that of any commit, in 2033, and labTime what the lab's time server
// says that it is.
const later = 1_990_000_000

var labTime = time.Date(2035, 5, 5, 12, 0, 0, 0, time.UTC)

// makeVersion makes the upgrade image of a version, and returns its path.
func makeVersion(t *testing.T, b board.Board, dir string, v version) string {
	t.Helper()
	folder := filepath.Join(dir, v.name)
	require.NoError(t, os.MkdirAll(folder, 0o755))
	shipped := filepath.Join("..", "out", b.Name)
	require.NoError(t, copyFile(filepath.Join(folder, "kernel"), filepath.Join(shipped, "kernel")))
	initramfs, err := os.ReadFile(filepath.Join(shipped, "initramfs.cpio.xz"))
	require.NoError(t, err)
	text := fmt.Sprintf("%s %d\n", v.name, v.date)
	// One ahead of the shipped archive moves all of that: what an upgrade in place finds on
	// flash as it is to be, it does not write.
	whole := new(bytes.Buffer)
	archive := func(records ...cpio.Record) {
		for whole.Len()%4 != 0 {
			whole.WriteByte(0)
		}
		w := cpio.Newc.Writer(whole)
		for _, r := range records {
			require.NoError(t, w.WriteRecord(r))
		}
		require.NoError(t, cpio.WriteTrailer(w))
	}
	archive(cpio.StaticFile("version", text, 0o644))
	whole.Write(initramfs)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "version"), []byte(text), 0o600))
	records := []cpio.Record{cpio.StaticFile("etc/version", text, 0o644)}
	if v.bad != "" {
		program := filepath.Join(dir, "bad")
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./testdata/bad")
		build.Env = append(os.Environ(), b.GoEnv()...)
		out, err := build.CombinedOutput()
		require.NoError(t, err, "%s", out)
		code, err := os.ReadFile(program)
		require.NoError(t, err)
		records = append(records, cpio.StaticFile("etc/bad", v.bad, 0o644), cpio.StaticFile(v.program, string(code), 0o755))
	}
	archive(records...)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "initramfs.cpio.xz"), whole.Bytes(), 0o600))
	abs, err := filepath.Abs(folder)
	require.NoError(t, err)
	pack := exec.Command("go", "run", "./image", "pack", abs, b.Name)
	pack.Dir = ".."
	out, err := pack.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return filepath.Join(folder, upgradeImage)
}

// upgrading is a router, and a web server and a time server in its LAN.
type upgrading struct {
	*keeper
	files string
}

// newUpgrading starts a board by its boot loader; the client's web server has what is put
// into files, and its time server says that it is labTime.
func newUpgrading(t *testing.T, b board.Board) *upgrading {
	u := &upgrading{keeper: newKeeper(t, b)}
	// As it comes from the factory, but for a name and a time server.
	require.NoError(t, os.Remove(u.flash()))
	_, err := makeFlash(b, machineOptions{image: filepath.Join(imageDir, b.Name), fromFlash: true}, u.flash())
	require.NoError(t, err)
	require.NoError(t, keep(b, u.flash(), 1, b.DefaultConfiguration()+"/system identity set name=upgrading\n"+
		"/system ntp client set enabled=yes servers="+clientAddress+"\n"))
	u.files = filepath.Join(u.dir, "files")
	require.NoError(t, os.MkdirAll(u.files, 0o755))
	server := u.n.command(client, "busybox", "httpd", "-f", "-p", "80", "-h", u.files)
	require.NoError(t, server.Start())
	t.Cleanup(func() { kill(server) })
	u.startClock(t, client)
	return u
}

// startClock starts a time server on a host, which says that it is labTime.
func (k *keeper) startClock(t *testing.T, h host) {
	t.Helper()
	var clock net.PacketConn
	require.NoError(t, k.n.on(h, func() (err error) {
		clock, err = net.ListenPacket("udp4", ":123")
		return err
	}))
	t.Cleanup(func() { clock.Close() })
	go serveTime(clock, time.Until(labTime))
}

// serveTime answers requests for the time (RFC 4330), which is ahead of the host's.
func serveTime(conn net.PacketConn, ahead time.Duration) {
	request := make([]byte, 512)
	for {
		n, from, err := conn.ReadFrom(request)
		if err != nil {
			return
		}
		if n < 48 {
			continue
		}
		answer := make([]byte, 48)
		answer[0] = 4<<3 | 4                // version, mode of a server
		answer[1] = 1                       // stratum
		copy(answer[24:32], request[40:48]) // whose request this answers
		now := time.Now().Add(ahead)
		seconds, fraction := uint64(now.Unix()+2208988800), uint64(now.Nanosecond())<<32/1e9
		binary.BigEndian.PutUint64(answer[32:], seconds<<32|fraction)
		copy(answer[40:48], answer[32:40])
		_, _ = conn.WriteTo(answer, from)
	}
}

// begin starts the router; it restarts without an end of QEMU.
func (u *upgrading) begin(t *testing.T, identity string) {
	t.Helper()
	u.start(t, identity, func(o *machineOptions) { o.fromFlash, o.reboot = true, true })
}

// upgrade takes a file of the client's web server, see upgradeFrom.
func (u *upgrading) upgrade(t *testing.T, file, more, answer string) string {
	t.Helper()
	return u.upgradeFrom(t, "http://"+clientAddress+"/"+file+more, answer)
}

// upgradeFrom types the command and says yes, and waits for the answer that is expected.
func (u *upgrading) upgradeFrom(t *testing.T, arguments, answer string) string {
	t.Helper()
	u.m.screen.forget()
	require.NoError(t, u.m.send("/system upgrade "+arguments+"\r"))
	_, err := u.m.expect("Upgrade and restart? [y/N]: ")
	require.NoError(t, err)
	require.NoError(t, u.m.send("y\r"))
	said, err := u.m.expect(answer)
	require.NoError(t, err)
	return said
}

// install makes a file of the web server the board's part of a release, and takes it from there.
func (u *upgrading) install(t *testing.T, file string) string {
	t.Helper()
	folder := filepath.Join(u.files, "release", u.b.Name)
	require.NoError(t, os.MkdirAll(folder, 0o755))
	require.NoError(t, os.Link(filepath.Join(u.files, file), filepath.Join(folder, "sysupgrade.img")))
	u.command(t, "/system package update set url=http://"+clientAddress+"/release/")
	assert.Contains(t, u.command(t, "/system package update check-for-updates"), "status: New version is available\n")
	assert.Contains(t, u.command(t, "/system package update print"), "latest-postern-version: "+file+"\n")
	u.m.screen.forget()
	require.NoError(t, u.m.send("/system package update install\r"))
	_, err := u.m.expect("Upgrade and restart? [y/N]: ")
	require.NoError(t, err)
	require.NoError(t, u.m.send("y\r"))
	said, err := u.m.expect("system will reboot shortly")
	require.NoError(t, err)
	return said
}

// next waits until the router has started so many times, and for its prompt then. It
// returns what the console said.
func (u *upgrading) next(t *testing.T, starts int) string {
	t.Helper()
	var all strings.Builder
	for range starts {
		// The kernel's first line.
		said, err := u.m.expect(linuxStarts)
		require.NoError(t, err)
		all.WriteString(said)
	}
	said, err := u.m.expect("\n[admin@upgrading] > ")
	require.NoError(t, err)
	return all.String() + said
}

// await waits until the log has a text, and returns it.
func (u *upgrading) await(t *testing.T, text string) string {
	t.Helper()
	var log string
	require.NoError(t, retry(func() error {
		log = u.command(t, "/log print")
		if !strings.Contains(log, text) {
			return fmt.Errorf("%q is not in the log:\n%s", text, log)
		}
		return nil
	}))
	return log
}

// TestUpgrade upgrades boards with two slots over HTTP, and then to versions that are bad
// in each way: the router falls back to the one before and says why.
func TestUpgrade(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range slotBoards() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testUpgrade(t, b)
		})
	}
}

func testUpgrade(t *testing.T, b board.Board) {
	u := newUpgrading(t, b)
	put := func(v version) string {
		data, err := os.ReadFile(makeVersion(t, b, u.dir, v))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(u.files, v.name), data, 0o644))
		return v.name
	}
	good := put(version{name: "v2-good", date: later})
	older := put(version{name: "v1-old", date: 1})
	data, err := os.ReadFile(filepath.Join(u.files, good))
	require.NoError(t, err)
	for name, change := range map[string]func(b []byte) []byte{
		"foreign": func(b []byte) []byte { b[20] ^= 1; return b },
		"damaged": func(b []byte) []byte { b[len(b)-9] ^= 1; return b },
		"short":   func(b []byte) []byte { return b[:len(b)-1000] },
	} {
		require.NoError(t, os.WriteFile(filepath.Join(u.files, name), change(bytes.Clone(data)), 0o644))
	}
	u.begin(t, "upgrading")

	// What depends on no boot loader and no hardware is looked at on one board.
	one := b.Name == slotBoards()[0].Name
	refused := func(t *testing.T) {
		const stays = "the present version stays\r\n"
		assert.Contains(t, u.upgrade(t, "missing", "", stays), "404 Not Found")
		assert.Contains(t, u.upgrade(t, "foreign", "", stays), "wrong signature")
		assert.Contains(t, u.upgrade(t, older, "", stays), "is older than")
		print := u.command(t, "/partitions print")
		assert.Regexp(t, `(?m)^ 0 AR a .* confirmed$`, print)
		assert.Regexp(t, `(?m)^ 1    b .* empty$`, print)
		assert.Contains(t, u.upgrade(t, "damaged", "", stays), "the image is damaged")
		assert.Contains(t, u.upgrade(t, "short", "", stays), "the image ends after")
		assert.Regexp(t, `(?m)^ 1    b .* empty$`, u.command(t, "/partitions print"))
	}
	if one {
		t.Run("what is refused", refused)
	}
	t.Run("a good version", func(t *testing.T) {
		u.await(t, "the clock was set by "+clientAddress+" to "+labTime.Format(time.DateOnly))
		said := ""
		if one {
			said = u.install(t, good)
		} else {
			said = u.upgrade(t, good, "", "system will reboot shortly")
		}
		assert.Contains(t, said, "version v2-good of ")
		assert.Contains(t, said, "writing slot b: 100%")
		u.next(t, 1)
		log := u.await(t, "version v2-good in slot b is confirmed")
		assert.Contains(t, log, "the clock goes on from "+labTime.Format(time.DateOnly))
		assert.Contains(t, log, "random seed: 256 bits from flash", "the first start has left one")
		assert.True(t, u.seedFollows(t), "the start has left the next seed in the place of the one that it used")
		assert.Contains(t, log, "the watchdog resets the router when it is not well for 1m45s")
		assert.Contains(t, u.command(t, "/system resource print"), "version: v2-good")
		assert.Regexp(t, `(?m)^ 1 AR b +v2-good .* confirmed$`, u.command(t, "/partitions print"))
		if one {
			assert.Contains(t, u.command(t, "/system package update check-for-updates"), "status: System is already up to date\n")
		}
	})
	for _, c := range []struct {
		name, says string
		v          version
	}{
		{"panics", "it ended without a word", version{name: "v3-panics", date: later + 1, bad: "end", program: "init"}},
		{"no network", "no configuration is applied", version{name: "v4-no-network", date: later + 2, bad: "end", program: "sbin/xtables-legacy-multi"}},
		{"hangs", "it ended without a word", version{name: "v5-hangs", date: later + 3, bad: "hang", program: "init"}},
	} {
		if !one && c.v.program != "init" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			name := put(c.v)
			u.upgrade(t, name, "", "system will reboot shortly")
			begin := time.Now()
			// It is tried, and then the one before is back.
			u.next(t, 2)
			log := u.await(t, "version "+name+" in slot a was tried and is not started again: ")
			assert.Contains(t, log, c.says)
			t.Logf("%s %s: back after %.0f s", b.Name, c.name, time.Since(begin).Seconds())
			print := u.command(t, "/partitions print")
			assert.Regexp(t, `(?m)^ 0    a +`+name+` .* failed$`, print)
			assert.Regexp(t, `(?m)^ 1 AR b +v2-good .* confirmed$`, print)
		})
	}
	t.Run("an older version, forced", func(t *testing.T) {
		u.upgrade(t, older, " force=yes", "system will reboot shortly")
		u.next(t, 1)
		u.await(t, "version v1-old in slot a is confirmed")
	})
	if b.Name == "pc" {
		t.Run("from a stick", func(t *testing.T) {
			image, err := os.ReadFile(makeVersion(t, b, u.dir, version{name: "v6-stick", date: later + 3}))
			require.NoError(t, err)
			stick := filepath.Join(u.dir, "stick")
			require.NoError(t, os.WriteFile(stick, append(image, make([]byte, 16<<20-len(image))...), 0o600))
			u.plugStick(t, stick)
			assert.Contains(t, u.upgradeFrom(t, "/dev/console", "disks here: "), "/dev/console is neither a disk nor a file")
			u.upgradeFrom(t, "/dev/sda", "system will reboot shortly")
			u.next(t, 1)
			u.await(t, "version v6-stick in slot b is confirmed")
		})
	}
	u.m.kill()
}

// plugStick puts a stick into the router, and the controller that it is on.
func (u *upgrading) plugStick(t *testing.T, path string) {
	for _, c := range []struct {
		command   string
		arguments map[string]any
	}{
		{"blockdev-add", map[string]any{"driver": "raw", "node-name": "stick", "read-only": true,
			"file": map[string]any{"driver": "file", "filename": path, "read-only": true}}},
		{"device_add", map[string]any{"driver": "qemu-xhci", "id": "xhci"}},
		{"device_add", map[string]any{"driver": "usb-storage", "bus": "xhci.0", "drive": "stick"}},
	} {
		require.NoError(t, u.m.monitor.execute(c.command, c.arguments))
	}
	// It is there a second or two later.
	require.NoError(t, retry(func() error {
		if said := u.upgradeFrom(t, "/dev/none", "\n[admin@upgrading] > "); !strings.Contains(said, "/dev/sda") {
			return fmt.Errorf("no stick among the disks:\n%s", said)
		}
		return nil
	}))
}

// seedFollows reports whether the partition of the state holds a random seed and the one
// that a start makes of it for the next (seed.go in package init).
func (u *upgrading) seedFollows(t *testing.T) bool {
	t.Helper()
	p, ok := u.b.Flash.Partition(board.StatePartition)
	require.True(t, ok)
	var seeds []string
	for _, found := range regexp.MustCompile(`seed=([0-9a-f]{64})\n`).FindAllSubmatch(u.read(t, p.Offset, p.Size), -1) {
		seeds = append(seeds, string(found[1]))
	}
	return slices.ContainsFunc(seeds, func(seed string) bool {
		raw, err := hex.DecodeString(seed)
		require.NoError(t, err)
		next := sha256.Sum256(append([]byte("postern seed: next\n"), raw...))
		return slices.Contains(seeds, hex.EncodeToString(next[:]))
	})
}

// TestUpgradeInPlace upgrades a board with room for one image. The power fails in the
// middle of the write; the boot loader's rescue brings a router that upgrades itself again.
func TestUpgradeInPlace(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range chipBoards(false) {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testUpgradeInPlace(t, b)
		})
	}
}

func testUpgradeInPlace(t *testing.T, b board.Board) {
	u := newUpgrading(t, b)
	image := makeVersion(t, b, u.dir, version{name: "v2", date: later})
	data, err := os.ReadFile(image)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(u.files, "v2"), data, 0o644))
	data[len(data)-9] ^= 1
	require.NoError(t, os.WriteFile(filepath.Join(u.files, "damaged"), data, 0o644))
	u.begin(t, "upgrading")
	place, ok := b.Flash.Partition("image")
	require.True(t, ok)
	assert.Contains(t, u.upgrade(t, "damaged", "", "the present version stays\r\n"), "the image is damaged")

	// The console is behind what it tells of: the cut is when a block in the middle changes.
	middle := place.Offset + int64(len(data))*2/3
	old := u.read(t, middle, 64)
	u.upgrade(t, "v2", "", "do not turn the power off")
	require.Eventually(t, func() bool { return !bytes.Equal(old, u.read(t, middle, 64)) }, patience, 5*time.Millisecond,
		"the image is not written; the console says:\n%s", u.m.screen.tail(20))
	u.m.kill()
	assert.Equal(t, bytes.Repeat([]byte{0xFF}, 64), u.read(t, place.Offset, 64), "the boot loader is to see no image")

	begin := time.Now()
	u.m, err = startMachine(b, u.n, u.dir, machineOptions{image: filepath.Join(imageDir, b.Name), flash: u.flash(),
		fromFlash: true, reboot: true, rescue: filepath.Dir(image)})
	require.NoError(t, err)
	_, err = u.m.expect("edit: ")
	require.NoError(t, err)
	require.NoError(t, u.m.send("run rescue\r"))
	u.next(t, 1)
	t.Logf("%s: rescued %.0f s after the cut", b.Name, time.Since(begin).Seconds())
	assert.Contains(t, u.command(t, "/system resource print"), "version: v2")
	// The image is uploaded by SFTP, by a user for whom nobody has to log in at the serial line.
	assert.Empty(t, u.command(t, "/user group add name=upload policy=ssh,ftp,read,write,reboot"))
	assert.Empty(t, u.command(t, "/user add name=uploader group=upload password=\""+sshPassword+"\""))
	c := newSSHClient(t, u.n, u.dir)
	begin = time.Now()
	out, err := c.program("scp", client, sshPassword, filepath.Join(u.files, "damaged"), "uploader@"+lanAddress+":new.img").CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "the image is damaged")
	t.Logf("%s: a damaged image was uploaded and refused in %.0f s", b.Name, time.Since(begin).Seconds())
	begin = time.Now()
	out, err = c.program("scp", client, sshPassword, filepath.Join(u.files, "v2"), "uploader@"+lanAddress+":new.img").CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s: uploaded and written in %.0f s", b.Name, time.Since(begin).Seconds())
	require.NoError(t, u.m.send("/system reboot\ry\r"))
	u.next(t, 1)
	assert.Contains(t, u.command(t, "/system resource print"), "version: v2")
	u.m.kill()
}
