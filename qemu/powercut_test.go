package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
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
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/store"
)

// TestPowerCut cuts the router's power 200 times while the configuration changes and is
// written: the next start has the configuration of before or that of after, all of it.
//
// What the emulated flash was given is in its file, also if QEMU is killed in the
// middle of a write, so each cut leaves what was written up to that moment, in the
// order in which it was written: words of a chip, pages of a disk. One cut in five kills QEMU,
// and the router starts. For the others QEMU stands still while its file is copied: that is what a
// kill would have left, and package store reads the copy as it does in a start: 160 of the 200 cuts. A real chip may
// leave a word half programmed, and a real disk lose what it said was written: the
// first is what the tests of package store simulate, at every byte and bit, the second
// is what a sync is for.
func TestPowerCut(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	// A disk, and chips: maltael's is malta's too.
	share := map[string]int{"maltael": 40, "virt-armv7": 60, "virt-arm64": 60, "pc": 40}
	var on []board.Board
	total := 0
	for _, b := range boards() {
		if share[b.Name] > 0 {
			on = append(on, b)
			total += share[b.Name]
		}
	}
	if on == nil {
		on = boards()[:1]
		share[on[0].Name] = 200
	} else {
		// Of fewer boards each has more.
		share[on[0].Name] += 200 - total
	}
	for _, b := range on {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testPowerCut(t, b, share[b.Name])
		})
	}
}

// markers are how often a configuration of testPowerCut says its number.
const markers = 101

// comment is what each rule of a numbered configuration has. Its length makes the writing
// of them all last: with 3 kB in all a chip has it in a millisecond on a fast host, and a
// cut does not hit that.
func comment(number int) string {
	return fmt.Sprintf("comment=g%d-%s", number, strings.Repeat("x", 200))
}

// numbered is a configuration that says its number in many places, from the first
// line of an export to the last.
func numbered(number int) string {
	return fmt.Sprintf("/system identity set name=g%d\n", number) +
		strings.Repeat("/ip socks access add action=deny "+comment(number)+"\n", markers-1)
}

var marker = regexp.MustCompile(`(?:name|comment)=g(\d+)`)

func testPowerCut(t *testing.T, b board.Board, cuts int) {
	// Else a failure could not be repeated; how fast the host is matters as well.
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	k := newKeeper(t, b)
	image := func(o *machineOptions) { o.configuration = numbered(0) }

	// held is the number that the last start had, and sent the last that was typed.
	var held, sent, old, torn int
	change := func() (before []byte) {
		before = k.partition(t)
		sent++
		require.NoError(t, k.m.send(fmt.Sprintf("/system identity set name=g%d; /ip socks access set [find] %s\r", sent, comment(sent))))
		return before
	}
	// check looks for a mixture in a configuration, and says which one it is.
	check := func(export string, cut int) {
		t.Helper()
		found := marker.FindAllStringSubmatch(export, -1)
		require.Len(t, found, markers, "after %d cuts, with %d or later kept:\n%s", cut, held, export)
		for _, f := range found {
			require.Equal(t, found[0][1], f[1], "a mixture after %d cuts:\n%s", cut, export)
		}
		number, err := strconv.Atoi(found[0][1])
		require.NoError(t, err)
		require.GreaterOrEqual(t, number, held, "after %d cuts an older configuration has come back", cut)
		require.LessOrEqual(t, number, sent)
		if number < sent {
			old++
		}
		held = number
	}
	var times []float64 // seconds
	var writeTime time.Duration
	for start := range cuts/cutsOfStart + 1 {
		k.boot(t, image)
		check(settings(k.command(t, "/export")), start*cutsOfStart)
		if start == cuts/cutsOfStart {
			break
		}
		if start == 0 {
			for range timedWrites {
				times = append(times, k.timeWrite(t, change()).Seconds())
			}
			writeTime = time.Duration(median(times) * float64(time.Second))
		}
		before := change()
		within := 2 * time.Second // at any moment, from the first key on
		if start%4 != 0 {
			// While the flash is written, or soon after.
			k.awaitWrite(t, before)
			within = writeTime << (start % 3)
		}
		var left [][]byte // by each cut
		for i := range cutsOfStart - 1 {
			if i > 0 { // the first is at once, so that one is in the write even if this host is busy
				pause(time.Duration(random.Int64N(int64(within / cutsOfStart))))
			}
			left = append(left, k.stopped(t, func() []byte { return k.partition(t) }))
		}
		pause(time.Duration(random.Int64N(int64(within / cutsOfStart))))
		k.m.kill()
		for i, partition := range append(left, k.partition(t)) {
			if isTorn(before, partition, slotSize(b)) {
				torn++
			}
			if i < len(left) {
				check(k.stored(t, partition), start*cutsOfStart+i+1)
			}
		}
	}
	t.Logf("%s: %d cuts, %d of which left a slot half written (a write takes %v); %d starts with the configuration of before",
		b.Name, cuts, torn, writeTime, old)
	// One in four or so is torn, one in three old.
	assert.Positive(t, torn, "no cut was in a write")
	assert.Positive(t, old, "all cuts came after a write")
	assert.Less(t, old, cuts, "all cuts came before a write")
}

// cutsOfStart is how many cuts there are from one start to the next, in one write or beside it.
const cutsOfStart = 5

// stopped returns what get returns while QEMU stands still.
func (k *keeper) stopped(t *testing.T, get func() []byte) []byte {
	t.Helper()
	process := k.m.cmd.Process
	require.NoError(t, process.Signal(syscall.SIGSTOP))
	defer func() { require.NoError(t, process.Signal(syscall.SIGCONT)) }()
	// Not all of its threads stop at once.
	for deadline := time.Now().Add(patience); ; {
		running := false
		states, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", process.Pid))
		require.NoError(t, err)
		for _, path := range states {
			stat, err := os.ReadFile(path) // proc_pid_stat(5): the state follows the name
			running = running || err == nil && !bytes.Contains(stat, []byte(") T "))
		}
		if !running {
			return get()
		}
		require.Less(t, time.Now(), deadline, "QEMU does not stop")
	}
}

// stored is the configuration that a start reads from a partition.
func (k *keeper) stored(t *testing.T, partition []byte) string {
	t.Helper()
	text, info, err := k.load(t, partition, slotSize(k.b))
	require.NoError(t, err, "%+v", info)
	return text
}

// load is what package store reads from a partition whose slots have so many bytes.
func (k *keeper) load(t *testing.T, partition []byte, slotSize int) (string, store.Info, error) {
	t.Helper()
	// In a file package store has slots of 64 KiB: of longer ones the end of a text's room, which is blank, is
	// left out. What tells of the text is at a slot's end.
	const size, footer = 64 << 10, 32
	var file []byte
	for slot := range slices.Chunk(partition, slotSize) {
		file = append(append(file, slot[:size-footer]...), slot[len(slot)-footer:]...)
	}
	path := filepath.Join(k.dir, "partition")
	require.NoError(t, os.WriteFile(path, file, 0o600))
	s, err := store.Open(path)
	require.NoError(t, err)
	defer s.Close()
	text, info, err := s.Load()
	return string(text), info, err
}

// timedWrites are not cut: they tell how long a write takes on this host.
const timedWrites = 3

// timeWrite waits for a write from its first byte to its last, and returns how long it took.
func (k *keeper) timeWrite(t *testing.T, before []byte) time.Duration {
	t.Helper()
	k.awaitWrite(t, before)
	start := time.Now()
	for isTorn(before, k.partition(t), slotSize(k.b)) {
		require.Less(t, time.Since(start), patience, "the write has no end")
	}
	return time.Since(start)
}

// awaitWrite waits until the flash is no longer what it was.
func (k *keeper) awaitWrite(t *testing.T, before []byte) {
	t.Helper()
	f, err := os.Open(k.flash())
	require.NoError(t, err)
	defer f.Close()
	offset, _ := keptAt(k.b)
	// A write begins with the erasing of a slot, of which its first bytes tell.
	size := slotSize(k.b)
	now := make([]byte, 64)
	deadline := time.Now().Add(patience)
	for {
		for at := 0; at < len(before); at += size {
			_, err := f.ReadAt(now, offset+int64(at))
			require.NoError(t, err)
			if !bytes.Equal(now, before[at:at+len(now)]) {
				return
			}
		}
		require.Less(t, time.Now(), deadline, "the flash was not written; the console says:\n%s", k.m.screen.tail(20))
		pause(50 * time.Microsecond)
	}
}

// pause is time.Sleep, which is as coarse as a millisecond, for less.
func pause(d time.Duration) {
	left := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&left, nil) // that a signal ends it early does no harm
}

// isTorn reports whether a slot was written to and has no footer.
func isTorn(before, after []byte, size int) bool {
	for at := 0; at < len(after); at += size {
		slot := after[at : at+size]
		if !bytes.Equal(slot, before[at:at+size]) && !bytes.HasSuffix(slot, []byte(slotMagic)) {
			return true
		}
	}
	return false
}
