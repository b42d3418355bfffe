package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// firmwares are what a PC starts by.
var firmwares = []struct {
	name string
	uefi bool
}{{"BIOS", false}, {"UEFI", true}}

// diskBoards are those to test that start from a disk.
func diskBoards() []board.Board {
	return slices.DeleteFunc(boards(), func(b board.Board) bool { return b.Image.Form != board.Archive })
}

// cardBoards are those to test that start from a card: they are real ones that QEMU
// models, and are tested by their boot loader alone.
func cardBoards() []board.Board {
	return slices.DeleteFunc(allBoards(), func(b board.Board) bool {
		return b.QEMU.Machine == "" || b.Image.Form != board.FIT || b.Flash.Chip != ""
	})
}

// allBoards are the lab's and the real ones, or those that POSTERN_TEST_BOARDS names.
func allBoards() []board.Board {
	if os.Getenv("POSTERN_TEST_BOARDS") != "" {
		return boards()
	}
	return board.All()
}

// TestCardBoot does for a board with a card what TestDiskBoot does for a PC.
func TestCardBoot(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range cardBoards() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testFlashBoot(t, b, func(*machineOptions) {})
		})
	}
}

// TestCardSlots looks which slot U-Boot's script begins with.
func TestCardSlots(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range cardBoards() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			for _, c := range slotCases {
				t.Run(c.name, func(t *testing.T) { testSlots(t, b, c, false) })
			}
		})
	}
}

// TestDiskBoot starts a PC from its disk, by either firmware: the manual's example
// passes, and what was set outlives a cut of the power.
func TestDiskBoot(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range diskBoards() {
		for _, firmware := range firmwares {
			t.Run(b.Name+" by "+firmware.name, func(t *testing.T) {
				t.Parallel()
				testFlashBoot(t, b, func(o *machineOptions) { o.uefi = firmware.uefi })
			})
		}
	}
}

// anyPC is the board that is whatever PC it is plugged into; none if it is not to be tested.
func anyPC() []board.Board {
	return slices.DeleteFunc(allBoards(), func(b board.Board) bool { return b.Name != "x86-64" })
}

// TestAnyPC does what TestDiskBoot does with the disks that a PC may have, and with two
// cards of Intel's.
func TestAnyPC(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range anyPC() {
		for _, disk := range []struct {
			name, device string
			uefi         bool
		}{
			{"SATA by BIOS", "", false},
			{"NVMe by UEFI", "nvme,drive=flash,serial=1", true},
			{"a stick by BIOS", "usb-storage,drive=flash,bus=usb-bus.0", false},
		} {
			t.Run(disk.name, func(t *testing.T) {
				t.Parallel()
				testFlashBoot(t, b, func(o *machineOptions) { o.flashDevice, o.uefi = disk.device, disk.uefi })
			})
		}
	}
}

// testFlashBoot starts a board by the boot loader on its flash.
func testFlashBoot(t *testing.T, b board.Board, change func(*machineOptions)) {
	var options machineOptions
	begin := time.Now()
	r := startRouter(t, b.Name, func(o *machineOptions) {
		o.fromFlash = true
		change(o)
		options = *o
		begin = time.Now()
	})
	r.expect(t, "socks accepts on port 1080")
	t.Logf("%s: from reset to the service %.1f s", b.Name, time.Since(begin).Seconds())
	r.expect(t, "\n[admin@postern] > ")
	r.awaitLinks(t)
	r.fetch(t)
	_, err := r.n.dial(client, serverAddress+":21", 4*time.Second)
	require.Error(t, err, "direct FTP is not dropped")
	r.command(t, "/system identity set name=kept")
	k := &keeper{T: t, b: b, n: r.n, dir: r.dir, m: r.m}
	k.awaitKept(t, "name=kept")
	r.m.kill()
	k.start(t, "kept", func(o *machineOptions) {
		*o = options
		o.flash = k.flash()
	})
	t.Cleanup(func() { k.m.kill() })
	// The prompt may come before that: a start waits for no process.
	require.NoError(t, retry(func() error {
		if !strings.Contains(k.m.screen.all(), "socks accepts on port 1080") {
			return errors.New("socks does not accept")
		}
		return nil
	}))
}

// slotCase is a disk whose slots hold the same image and differ in their state.
type slotCase struct {
	name string
	// states of slots a and b, as a test can write them: sequence, tried, confirmed;
	// nil for a slot without an image.
	states [2][]int
	// damage flips a byte of the kernel in these slots.
	damage []int
	// wipe overwrites the state of these slots with zeros.
	wipe []int
	// starts are the slots that are begun with, one start after the other.
	starts []string
	// alsoUEFI runs it by UEFI too: the same script, another way to the disk.
	alsoUEFI bool
}

var slotCases = []slotCase{
	{name: "the newer of two", states: [2][]int{{1, 1, 1}, {2, 1, 1}}, starts: []string{"b"}},
	{name: "a new one is tried once", states: [2][]int{{12, 1, 1}, {13, 0, 0}}, starts: []string{"b", "a"}, alsoUEFI: true},
	{name: "one that was tried in vain", states: [2][]int{{9, 1, 0}, {8, 1, 1}}, starts: []string{"b"}},
	{name: "a damaged one", states: [2][]int{{7, 1, 1}, {6, 1, 1}}, damage: []int{0}, starts: []string{"b"}, alsoUEFI: true},
	{name: "a new and damaged one", states: [2][]int{{7, 1, 1}, {8, 0, 0}}, damage: []int{1}, starts: []string{"a"}},
	{name: "a state that is not whole", states: [2][]int{{7, 1, 1}, {6, 1, 1}}, wipe: []int{0}, starts: []string{"b"}},
	{name: "no state at all", states: [2][]int{nil, nil}, wipe: []int{0, 1}, starts: []string{"a"}},
	{name: "both damaged", states: [2][]int{{7, 1, 1}, {6, 1, 1}}, damage: []int{0, 1}, starts: []string{""}},
}

// TestDiskSlots looks which slot GRUB begins with.
func TestDiskSlots(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range diskBoards() {
		for _, firmware := range firmwares {
			t.Run(b.Name+" by "+firmware.name, func(t *testing.T) {
				t.Parallel()
				for _, c := range slotCases {
					if !firmware.uefi || c.alsoUEFI {
						t.Run(c.name, func(t *testing.T) { testSlots(t, b, c, firmware.uefi) })
					}
				}
			})
		}
	}
}

// linuxStarts is in the kernel's first line, which is shown on every board.
const linuxStarts = "Linux version "

// unwell is the name of a router whose configuration cannot be applied. A new version in it
// is never well, and so never confirmed, however long a busy host takes to look at it.
const (
	unwell              = "unwell"
	unwellConfiguration = "/system identity\nset name=" + unwell + "\n/ip firewall filter\nadd chain=forward action=drop layer7-protocol=x\n"
)

func testSlots(t *testing.T, b board.Board, c slotCase, uefi bool) {
	k := newKeeper(t, b)
	require.NoError(t, keep(b, k.flash(), 1, unwellConfiguration))
	prepareSlots(t, b, k.flash(), c)
	for i, want := range c.starts {
		var err error
		k.m, err = startMachine(b, k.n, k.dir, machineOptions{image: filepath.Join(imageDir, b.Name), flash: k.flash(), fromFlash: true, uefi: uefi})
		require.NoError(t, err)
		if want == "" {
			said, err := k.m.expect("o slot could be started") // N of GRUB's script, n of U-Boot's
			require.NoError(t, err)
			assert.NotContains(t, said, linuxStarts)
			k.m.kill()
			continue
		}
		said, err := k.m.expect("\n[admin@" + unwell + "] > ")
		require.NoError(t, err)
		assert.Equal(t, 1, strings.Count(said, linuxStarts), "start %d begins with one slot:\n%s", i+1, said)
		assert.Equal(t, want, k.slot(t), "the slot of start %d", i+1)
		k.m.kill()
		if want == "b" && c.states[1][2] == 0 {
			assert.Contains(t, slotState(t, b, k.flash(), 1), "\ntried=1\n")
		}
	}
}

// prepareSlots makes the disk of a case from that of the factory.
func prepareSlots(t *testing.T, b board.Board, flash string, c slotCase) {
	t.Helper()
	image, err := os.ReadFile(filepath.Join(imageDir, b.Name, slotImage))
	require.NoError(t, err)
	f, err := os.OpenFile(flash, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	states, ok := b.Flash.Partition(board.SlotStates)
	require.True(t, ok)
	for i, state := range c.states {
		slot, ok := b.Flash.Partition(board.Slots[i])
		require.True(t, ok)
		_, err = f.WriteAt(image, slot.Offset)
		require.NoError(t, err)
		text := "# GRUB Environment Block\nmagic=none\n"
		if state != nil {
			text = fmt.Sprintf("# GRUB Environment Block\nmagic=PST1\nsequence=%d\ntried=%d\nconfirmed=%d\nlength=%d\nsha256=%x\nversion=1.0\n",
				state[0], state[1], state[2], len(image), sha256.Sum256(image))
		}
		block := bytes.Repeat([]byte{'#'}, board.SlotStateSize)
		copy(block, text)
		_, err = f.WriteAt(block, states.Offset+int64(board.SlotStateOffsets[i]))
		require.NoError(t, err)
	}
	for _, i := range c.damage {
		slot, _ := b.Flash.Partition(board.Slots[i])
		at := slot.Offset + 1<<20 // in the kernel
		one := make([]byte, 1)
		_, err = f.ReadAt(one, at)
		require.NoError(t, err)
		one[0] ^= 1
		_, err = f.WriteAt(one, at)
		require.NoError(t, err)
	}
	for _, i := range c.wipe {
		_, err = f.WriteAt(make([]byte, board.SlotStateSize), states.Offset+int64(board.SlotStateOffsets[i]))
		require.NoError(t, err)
	}
}

// slotState reads the state of a slot.
func slotState(t *testing.T, b board.Board, flash string, i int) string {
	t.Helper()
	f, err := os.Open(flash)
	require.NoError(t, err)
	defer f.Close()
	states, _ := b.Flash.Partition(board.SlotStates)
	block := make([]byte, board.SlotStateSize)
	_, err = f.ReadAt(block, states.Offset+int64(board.SlotStateOffsets[i]))
	require.NoError(t, err)
	return string(block)
}
