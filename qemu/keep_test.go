package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/password"
)

// keeper is a machine whose flash outlives it: it is started again and again.
type keeper struct {
	*testing.T
	b    board.Board
	n    network
	dir  string
	m    *machine
	said string // until the last prompt that start has seen
}

// startUnset starts a board on which nothing has been set, with a way to talk to it as a router that is up. memory
// tells how many MiB are free, and logs it.
func startUnset(t *testing.T, b board.Board) (k *keeper, r *router, memory func(when string) float64) {
	t.Helper()
	k = newKeeper(t, b)
	k.start(t, "postern", nil)
	r = &router{T: t, b: b, n: k.n, dir: k.dir, m: k.m}
	require.NoError(t, k.n.awaitPing(client, lanAddress))
	return k, r, func(when string) float64 {
		t.Helper()
		free, _ := r.freeMemory(t)
		t.Logf("%s: %.1f MiB are free %s", b.Name, free, when)
		return free
	}
}

// newKeeper makes a board with blank flash, not started yet. Nobody but its ports'
// links are around it.
func newKeeper(t *testing.T, b board.Board) *keeper {
	k := &keeper{T: t, b: b}
	var err error
	k.dir, err = os.MkdirTemp("", "postern-e2e-")
	require.NoError(t, err)
	used.begin(k.dir, t.Name())
	t.Cleanup(func() {
		if !t.Failed() {
			os.RemoveAll(k.dir)
			return
		}
		if k.m != nil {
			_ = os.WriteFile(filepath.Join(k.dir, "console.log"), []byte(k.m.screen.all()), 0o644)
		}
		t.Logf("the last console and the flash: %s", k.dir)
	})
	k.n, err = newNetwork()
	require.NoError(t, err)
	t.Cleanup(k.n.close)
	_, err = makeFlash(b, machineOptions{image: filepath.Join(imageDir, b.Name)}, k.flash())
	require.NoError(t, err)
	t.Cleanup(func() {
		if k.m != nil {
			k.m.kill()
		}
	})
	return k
}

func (k *keeper) flash() string { return filepath.Join(k.dir, "flash") }

// start boots the router and waits for its prompt, which must name it so.
func (k *keeper) start(t *testing.T, identity string, change func(*machineOptions)) {
	t.Helper()
	require.Equal(t, identity, k.boot(t, change), "the router's name; its console says:\n%s", k.m.screen.all())
}

// boot boots the router, waits for its prompt and returns the name in that.
func (k *keeper) boot(t *testing.T, change func(*machineOptions)) (identity string) {
	t.Helper()
	o := machineOptions{image: filepath.Join(imageDir, k.b.Name), flash: k.flash()}
	if change != nil {
		change(&o)
	}
	var err error
	k.m, err = startMachine(k.b, k.n, k.dir, o)
	require.NoError(t, err)
	k.said, err = k.m.expect("\n[admin@")
	require.NoError(t, err)
	name, err := k.m.expect("] > ")
	require.NoError(t, err)
	return strings.TrimSuffix(name, "] > ")
}

func (k *keeper) command(t *testing.T, line string) string {
	t.Helper()
	out, err := k.m.command(line)
	require.NoError(t, err)
	return out
}

// awaitLog waits until the router's log has a line that matches.
func (k *keeper) awaitLog(t *testing.T, pattern string) {
	t.Helper()
	k.awaitShown(t, "/log print", pattern)
}

// awaitShown waits until what a command shows has a line that matches.
func (k *keeper) awaitShown(t *testing.T, command, pattern string) {
	t.Helper()
	(&router{T: t, b: k.b, n: k.n, dir: k.dir, m: k.m}).awaitShown(t, command, pattern)
}

// partition reads what is on the partition of the configuration.
func (k *keeper) partition(t *testing.T) []byte {
	t.Helper()
	offset, size := keptAt(k.b)
	return k.read(t, offset, size)
}

// read returns what is on the flash, while the machine runs in the order in which it was
// given to QEMU.
func (k *keeper) read(t *testing.T, offset, size int64) []byte {
	t.Helper()
	f, err := os.Open(k.flash())
	require.NoError(t, err)
	defer f.Close()
	data := make([]byte, size)
	_, err = f.ReadAt(data, offset)
	require.NoError(t, err)
	return data
}

// keptAt is where the partition of the configuration is in the file of the flash.
func keptAt(b board.Board) (offset, size int64) {
	for _, p := range b.Flash.Partitions {
		if p.Name == board.ConfigurationPartition {
			return p.Offset, p.Size
		}
	}
	return 0, 0
}

// awaitKept waits until flash holds a text, all of it: package store writes the footer of
// a slot last.
func (k *keeper) awaitKept(t *testing.T, text string) {
	t.Helper()
	require.NoError(t, retry(func() error {
		if !k.holds(t, text) {
			return fmt.Errorf("%q is not on flash; the console says:\n%s", text, k.m.screen.tail(20))
		}
		return nil
	}))
}

// holds reports whether flash holds a text, all of it.
func (k *keeper) holds(t *testing.T, text string) bool {
	t.Helper()
	for slot := range slices.Chunk(k.partition(t), slotSize(k.b)) {
		if bytes.Contains(slot, []byte(text)) && bytes.HasSuffix(slot, []byte(slotMagic)) {
			return true
		}
	}
	return false
}

// slot asks the router which slot it runs from: a or b. It tells of none if it was not
// started by a boot loader.
func (k *keeper) slot(t *testing.T) string {
	t.Helper()
	screen := k.command(t, "/partitions print")
	name, err := find(screen, `(?m)^ \d A?R +(\w) `)
	require.NoError(t, err, "no slot is marked R, running; the console says:\n%s", k.m.screen.tail(40))
	return name
}

// pass waits until the router's own clock has counted so much time: on a busy host that
// takes longer than by this machine's.
func (k *keeper) pass(t *testing.T, d time.Duration) {
	t.Helper()
	uptime := func() time.Duration {
		word, err := find(k.command(t, "/system resource print"), `uptime: (\S+)`)
		require.NoError(t, err)
		up, err := time.ParseDuration(word) // no test runs for a day
		require.NoError(t, err)
		return up
	}
	start := uptime()
	require.NoError(t, retry(func() error {
		if passed := uptime() - start; passed <= d {
			return fmt.Errorf("only %v have passed for the router", passed)
		}
		return nil
	}))
}

// TestKept checks that what is set survives a restart and a cut of the power, and
// that defaults come back when they are asked for.
func TestKept(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range boards() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testKept(t, b)
		})
	}
}

func testKept(t *testing.T, b board.Board) {
	k := newKeeper(t, b)
	const rule = "chain=forward action=drop src-address=192.168.0.9"

	k.start(t, "postern", nil)
	assert.NotContains(t, k.said, "not kept")
	k.command(t, "/system identity set name=first; /ip firewall filter add comment=kept "+rule)
	// At once: the restart itself has to write it.
	require.NoError(t, k.m.send("/system reboot\ry\r"))
	require.NoError(t, k.m.wait())

	k.start(t, "first", nil)
	assert.Contains(t, k.command(t, "/ip firewall filter print"), rule)
	k.command(t, "/system identity set name=second")
	k.awaitKept(t, "set name=second")
	k.m.kill()

	k.start(t, "second", nil)
	assert.Contains(t, k.command(t, "/ip firewall filter print"), rule)
	k.m.kill()

	if b.Name != boards()[0].Name {
		return
	}
	t.Run("Safe Mode does not outlive the power", func(t *testing.T) {
		k.start(t, "second", nil)
		require.NoError(t, k.m.send("\x18"))
		_, err := k.m.expect("\n[admin@second] <SAFE> > ")
		require.NoError(t, err)
		before := k.partition(t)
		k.command(t, "/system identity set name=trial; /ip firewall filter remove [find comment=kept]")
		assert.NotContains(t, k.command(t, "/ip firewall filter print"), rule)
		k.pass(t, 7*time.Second) // a change is written after 5 at the latest
		assert.True(t, bytes.Equal(before, k.partition(t)), "the flash was written")
		k.m.kill()
		k.start(t, "second", nil)
		assert.Contains(t, k.command(t, "/ip firewall filter print"), rule)
		k.m.kill()
	})
	t.Run("a start with the defaults", func(t *testing.T) {
		k.start(t, "postern", func(o *machineOptions) { o.commandLine = "postern.reset" })
		assert.Contains(t, k.said, "starting with the defaults")
		assert.NotContains(t, k.command(t, "/ip firewall filter print"), "192.168.0.9")
		k.m.kill()
		k.start(t, "second", nil)
	})
	t.Run("a reset", func(t *testing.T) {
		require.NoError(t, k.m.send("/system reset-configuration\r"))
		_, err := k.m.expect("Dangerous! Reset anyway? [y/N]: ")
		require.NoError(t, err)
		require.NoError(t, k.m.send("y\r"))
		require.NoError(t, k.m.wait())
		assert.NotContains(t, string(k.partition(t)), "192.168.0.9", "nothing is left of the old configuration")
		k.start(t, "postern", nil)
		k.m.kill()
	})
}

// keep puts a configuration on flash.
func (k *keeper) keep(t *testing.T, sequence uint64, text string) {
	t.Helper()
	require.NoError(t, keep(k.b, k.flash(), sequence, text))
}

// TestKeptBadLines boots with lines on flash that this version does not know.
func TestKeptBadLines(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	k := newKeeper(t, boards()[0])
	const good = "/system identity\nset name=old\n/ip address\nadd address=192.168.0.1/24 interface=ether2\n"

	t.Run("of no danger", func(t *testing.T) {
		k.keep(t, 1, good+"/caps-man manager\nset enabled=yes\n/ip firewall nat\nadd chain=srcnat action=masquerade\n")
		k.start(t, "old", nil)
		assert.Contains(t, k.said, "kept configuration:5:")
		assert.Contains(t, k.said, "kept out: set enabled=yes")
		assert.NotContains(t, k.said, "forwarding is closed")
		assert.Contains(t, k.command(t, "/ip firewall nat print stats"), "masquerade", "it is in force")
		k.m.kill()
	})
	t.Run("of the firewall", func(t *testing.T) {
		k.keep(t, 2, good+"/ip firewall filter\nadd chain=forward action=drop layer7-protocol=x\n")
		k.start(t, "old", nil)
		assert.Contains(t, k.said, "kept out: add chain=forward action=drop layer7-protocol=x")
		assert.Contains(t, k.said, "forwarding is closed, the router is at 192.168.0.1")
		before := k.partition(t)
		warning := k.command(t, "/system identity set name=new")
		assert.Contains(t, warning, "forwarding stays closed and changes are not kept")
		k.pass(t, 8*time.Second) // longer than a change waits for the flash
		assert.True(t, bytes.Equal(before, k.partition(t)), "the flash was written")
		assert.Empty(t, k.command(t, "/ip firewall filter add chain=forward action=drop dst-port=25 protocol=tcp"))
		k.awaitKept(t, "dst-port=25")
		assert.Regexp(t, regexp.MustCompile(`(?m)^ 0 +forward +drop`), k.command(t, "/ip firewall filter print stats"), "it is in force")
		k.m.kill()
		k.start(t, "new", nil)
		assert.NotContains(t, k.said, "closed")
		k.m.kill()
	})
	// login boots a router whose serial line asks who is there, and returns what it says to somebody with that password.
	login := func(t *testing.T, said, secret, until string) {
		t.Helper()
		var err error
		k.m, err = startMachine(k.b, k.n, k.dir, machineOptions{image: filepath.Join(imageDir, k.b.Name), flash: k.flash()})
		require.NoError(t, err)
		before, err := k.m.expect("Login: ")
		require.NoError(t, err)
		assert.Contains(t, before, said)
		assert.NotContains(t, before, "forwarding is closed")
		require.NoError(t, k.m.send("admin\r"))
		_, err = k.m.expect("Password: ")
		require.NoError(t, err)
		require.NoError(t, k.m.send(secret+"\r"))
		_, err = k.m.expect(until)
		require.NoError(t, err)
		k.m.kill()
	}
	t.Run("of the only user, who logs in", func(t *testing.T) {
		hash, err := password.New(sshPassword)
		require.NoError(t, err)
		k.keep(t, 100, good+"/user\nset admin later=x password-hash=\""+strings.ReplaceAll(hash, "$", `\$`)+"\"\n")
		login(t, "user admin can log in at a serial line", sshPassword, "[admin@old] > ")
	})
	t.Run("of a user, which is not understood", func(t *testing.T) {
		k.keep(t, 101, good+"/user\nset admin password-hash-2=x\n")
		login(t, "nobody can log in", "", "Login failed")
	})
}

// TestNoFlash boots with a flash that has no partition for the configuration.
func TestNoFlash(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	k := newKeeper(t, boards()[0])
	require.NoError(t, os.WriteFile(k.flash(), make([]byte, k.b.QEMU.FlashSize), 0o600))
	// The later of two such words counts, and this one is for no chip that there is.
	k.start(t, "postern", func(o *machineOptions) { o.commandLine = "mtdparts=none:64k(none)" })
	assert.Contains(t, k.said, "the configuration is not kept: no flash: no partition is named "+board.ConfigurationPartition)
	assert.Contains(t, k.command(t, "/system identity set name=mortal"), "warning: the configuration is not kept: no flash")
	assert.True(t, strings.HasPrefix(settings(k.command(t, "/export")), "/system identity\nset name=mortal\n"))
}

// TestWornFlash boots with a flash that can be read and not be written: a disk says
// so when it is opened. The emulated chip reports an error and is never ready again,
// which is the worst that a chip can do.
func TestWornFlash(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for i, b := range boards() {
		if i > 0 && b.Flash.Chip != "" {
			continue // one chip is enough
		}
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			k := newKeeper(t, b)
			k.keep(t, 7, "/system identity\nset name=old\n")
			worn := func(o *machineOptions) { o.wornFlash = true }
			k.start(t, "old", worn)
			k.command(t, "/system identity set name=new")
			require.NoError(t, retry(func() error {
				if log := k.command(t, "/log print"); !strings.Contains(log, "the configuration is not kept: ") {
					return fmt.Errorf("not in the log:\n%s", log)
				}
				return nil
			}))
			assert.Contains(t, k.m.screen.all(), "postern: system,error the configuration is not kept: ")
			assert.Contains(t, k.command(t, "/system identity set name=newer"), "warning: the configuration is not kept: ")
			k.m.kill()
			k.start(t, "old", worn)
		})
	}
}
