package main

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/upgrade"
)

// upgradeCuts is how often TestUpgradePowerCut cuts the power, over all boards: each takes
// some 20 seconds. POSTERN_UPGRADE_CUTS is another number.
const upgradeCuts = 24

// TestUpgradePowerCut cuts the power at random moments of upgrades: while the image is
// fetched and written, while the router restarts, while the new version is on trial. After
// each the router starts, with its configuration, from a slot that is whole.
//
// As in TestPowerCut, the file of the flash has what was written up to that moment; what
// a chip makes of a word or an erase that is cut is simulated in package upgrade.
func TestUpgradePowerCut(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	all := upgradeCuts
	if text := os.Getenv("POSTERN_UPGRADE_CUTS"); text != "" {
		var err error
		all, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	// What an upgrade overwrites has no other slot to start from: that is looked at where it is asked for.
	if name := os.Getenv(badDayVariable); name != "" {
		if b := badDayBoard(t, name); !slices.ContainsFunc(slotBoards(), func(s board.Board) bool { return s.Name == b.Name }) {
			testUpgradePowerCutInPlace(t, b, all)
			return
		}
	}
	on := slotBoards()
	for i, b := range on {
		cuts := all / len(on)
		if i < all%len(on) {
			cuts++
		}
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testUpgradePowerCut(t, b, cuts)
		})
	}
}

func testUpgradePowerCut(t *testing.T, b board.Board, cuts int) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	u := newUpgrading(t, b)
	data, err := os.ReadFile(makeVersion(t, b, u.dir, version{name: "v2", date: later}))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(u.files, "v2"), data, 0o644))
	var torn, changed int
	was := 0
	for cut := range cuts + 1 {
		u.begin(t, "upgrading")
		said := u.m.screen.all()
		now := slices.Index(upgrade.SlotNames[:], u.slot(t))
		assert.NotContains(t, said, "not kept", "after %d cuts", cut)
		require.True(t, wholeSlots(t, b, u.flash())[now], "after %d cuts it runs from a slot that is not whole:\n%s", cut, said)
		if now != was {
			changed++
			was = now
		}
		if cut == cuts {
			break
		}
		if strings.Contains(u.command(t, "/partitions print"), "on trial") {
			if cut%3 == 0 {
				// One in three is cut on trial, when it takes no upgrade.
				time.Sleep(time.Duration(random.Int64N(int64(5 * time.Second))))
				u.m.kill()
				continue
			}
			u.await(t, "is confirmed after")
		}
		require.NoError(t, u.m.send("/system upgrade http://"+clientAddress+"/v2\r"))
		_, err := u.m.expect("Upgrade and restart? [y/N]: ")
		require.NoError(t, err)
		u.m.screen.forget()
		require.NoError(t, u.m.send("y\r"))
		within := 1500 * time.Millisecond
		switch cut % 8 {
		case 0, 4: // at any moment, from the key on
		case 1, 2, 5, 6: // while the image is written, or soon after, as fast as this host does it
			_, err = u.m.expect(" 10%")
			require.NoError(t, err)
			start := time.Now()
			_, err = u.m.expect(" 20%")
			within = 9 * time.Since(start)
		case 3: // with the image whole and not yet tried
			_, err = u.m.expect("system will reboot shortly")
			within = time.Second / 2
		case 7: // from the end of writing on, into the trial
			_, err = u.m.expect(" 100%")
			time.Sleep(time.Duration(random.Int64N(int64(10 * time.Second))))
		}
		require.NoError(t, err)
		pause(time.Duration(random.Int64N(int64(within))))
		u.m.kill()
		if w := wholeSlots(t, b, u.flash()); !w[0] || !w[1] {
			torn++
		}
	}
	u.m.kill()
	t.Logf("%s: %d cuts, %d left a slot without an image, %d times the next start was from the other slot", b.Name, cuts, torn, changed)
	assert.Positive(t, torn, "no cut was in a write")
	assert.Positive(t, changed, "no upgrade came to its end")
}

// cutsOfImage is how many cuts there are in one image that is written in place, or beside it.
const cutsOfImage = 25

// testUpgradePowerCutInPlace does so on a board with room for one image, as TestPowerCut does: of all cuts but the last of each image QEMU
// stands still while its file is read. What a cut leaves is the old image or the new one, whole, or none that a boot
// loader takes for one, whose checksums are over all of it; and the configuration. A router that a rescue has started then, as TestUpgradeInPlace
// tells, takes the upgrade again: here the kernel starts from memory each time.
func testUpgradePowerCutInPlace(t *testing.T, b board.Board, cuts int) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	u := newUpgrading(t, b)
	place, ok := b.Flash.Partition("image")
	require.True(t, ok)
	names := []string{"v2", "v3"}
	var images [][]byte
	for _, name := range names {
		path := makeVersion(t, b, u.dir, version{name: name, date: later})
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(u.files, name), data, 0o644))
		image, err := os.ReadFile(filepath.Join(filepath.Dir(path), slotImage))
		require.NoError(t, err)
		images = append(images, image)
	}
	begin := func() {
		t.Helper()
		u.start(t, "upgrading", func(o *machineOptions) { o.reboot = true })
		require.NoError(t, u.n.awaitPing(client, lanAddress))
	}
	flash := func() []byte { return u.read(t, place.Offset, place.Size) }
	// changes waits until the flash begins otherwise than with some bytes: that is the first that is erased, and the last that is written.
	changes := func(from []byte) []byte {
		t.Helper()
		deadline := time.Now().Add(patience)
		for {
			if now := u.read(t, place.Offset, 64); !bytes.Equal(now, from[:64]) {
				return now
			}
			require.Less(t, time.Now(), deadline, "the image is not written; the console says:\n%s", u.m.screen.tail(20))
			pause(50 * time.Microsecond)
		}
	}
	const writes = "do not turn the power off"
	// The first is not cut: it tells how long a write takes on this host.
	begin()
	before := flash()
	u.upgrade(t, names[0], "", writes)
	blank := changes(before)
	start := time.Now()
	changes(blank)
	writeTime := time.Since(start)
	_, err := u.m.expect(linuxStarts)
	require.NoError(t, err)
	u.m.kill()
	var old, torn, whole int
	for done := 0; done < cuts; {
		round := done/cutsOfImage + 1
		name, image := names[round%2], images[round%2]
		begin()
		before := flash()
		check := func(after []byte) {
			t.Helper()
			switch {
			case bytes.Equal(after, before):
				old++
			case bytes.Equal(after[:len(image)], image):
				whole++
			default:
				torn++
				first := after[:slotSize(b)] // an erase block
				assert.False(t, bytes.Equal(first, before[:len(first)]), "cut %d: the old image's beginning is before what is half written", done)
				assert.False(t, bytes.Equal(first, image[:len(first)]), "cut %d: the new image's beginning is before what is half written", done)
			}
			assert.Contains(t, u.stored(t, u.partition(t)), "set name=upgrading\n", "cut %d", done)
			done++
		}
		u.upgrade(t, name, "", writes)
		changes(before)
		for range min(cutsOfImage, cuts-done) - 1 {
			check(u.stopped(t, flash))
			pause(time.Duration(random.Int64N(int64(2*writeTime/cutsOfImage)) + 1))
		}
		u.m.kill()
		check(flash())
		begin()
		u.upgrade(t, name, "", "system will reboot shortly")
		_, err = u.m.expect(linuxStarts)
		require.NoError(t, err)
		require.True(t, bytes.Equal(image, flash()[:len(image)]), "the upgrade behind cut %d", done)
		u.m.kill()
	}
	t.Logf("%s: %d cuts, %d with the image of before, %d with none that is whole, %d with the new one (a write takes %v)",
		b.Name, cuts, old, torn, whole, writeTime.Round(time.Millisecond))
	assert.Positive(t, torn, "no cut was in a write")
	assert.Positive(t, whole, "all cuts came before the end of a write")
}

// wholeSlots tells which slots say that they hold an image.
func wholeSlots(t *testing.T, b board.Board, flash string) (whole [2]bool) {
	t.Helper()
	if b.Flash.Chip == "" {
		for i := range whole {
			whole[i] = strings.Contains(slotState(t, b, flash, i), "\nmagic=PST1\n")
		}
		return whole
	}
	f, err := os.Open(flash)
	require.NoError(t, err)
	defer f.Close()
	for i, name := range board.Slots {
		p, _ := b.Flash.Partition(name)
		word := make([]byte, 4)
		_, err := f.ReadAt(word, p.Offset+b.ImageLimit)
		require.NoError(t, err)
		whole[i] = binary.LittleEndian.Uint32(word) == 0x50535431
	}
	return whole
}
