package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// TestBadBlocks has erase blocks of a booted router's chip go bad one after another, each when the next
// configuration is to be written to it. As long as another is left the configuration is kept there, and the log
// says so. When none is left the router says that, and what was kept last is there after each start.
func TestBadBlocks(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	b := badDayBoard(t, "maltael")
	if b.Flash.Chip == "" {
		t.Skipf("%s has a disk, and no chip: the test of its bad days is TestSlowDisk", b.Name)
	}
	// The board has two blocks for the configuration, so that one that is bad is the last but one. This chip has more
	// of them, in the place of what starts the board otherwise.
	const (
		blocks = 5
		cell   = 0x144 // in the text, and not where the kernel asks the chip how it is
	)
	block := slotSize(b)
	offset := int(b.QEMU.Banks[len(b.QEMU.Banks)-1].Offset) + 1<<20
	var within []byte
	if !strings.HasPrefix(b.CPU.GOARCH, "mips") {
		within = buildWithin(t, b)
	}
	b.Flash.Partitions = []board.Partition{{Name: board.ConfigurationPartition, Offset: int64(offset), Size: int64(blocks * block)}}
	k := newKeeper(t, b)
	var worn []int
	var words *stuckWords
	place := func(slot int) int64 { return int64(offset + slot*block + cell) }
	// chip is where the kernel sees the chip: on MIPS by addresses that are the same at each start (kseg1).
	chip := uint64(0xbe000000)
	start := func(identity string) {
		t.Helper()
		// The file is what QEMU was given, and not what it reads.
		f, err := os.OpenFile(k.flash(), os.O_WRONLY, 0)
		require.NoError(t, err)
		defer f.Close()
		for _, slot := range worn {
			_, err := f.WriteAt(make([]byte, 4), place(slot))
			require.NoError(t, err)
		}
		k.start(t, identity, func(o *machineOptions) {
			o.debugged = true
			o.commandLine = fmt.Sprintf("mtdparts=%s:%dk@%dk(%s)", b.Flash.Chip, blocks*block>>10, offset>>10, board.ConfigurationPartition)
			if within != nil {
				o.within = within
				o.commandLine += " rdinit=/within"
				o.memory = insideMemory(b)
			}
		})
		if within != nil {
			// The processor has the chip at address 0.
			answer := (&router{T: t, b: b, n: k.n, dir: k.dir, m: k.m}).within(t, fmt.Sprintf("mapped %d", offset))
			at, err := strconv.ParseUint(strings.TrimSpace(answer), 10, 64)
			require.NoError(t, err, "where the kernel sees the chip")
			chip = at - uint64(offset)
		}
		words = newStuckWords(t, k.m)
		for _, slot := range worn {
			words.add(t, chip+uint64(place(slot)))
		}
	}
	// kept is what the chip holds: the text, and its slot.
	kept := func() (string, int) {
		t.Helper()
		partition := k.partition(t)
		for _, slot := range worn {
			copy(partition[slot*block+cell:], make([]byte, 4))
		}
		text, info, err := k.load(t, partition, block)
		if err != nil {
			return "", -1
		}
		return text, info.Slot
	}
	changes := 0
	change := func() string {
		t.Helper()
		changes++
		return k.command(t, fmt.Sprintf("/system identity set name=g%d", changes))
	}
	awaitChange := func() (slot int) {
		t.Helper()
		require.NoError(t, retry(func() (err error) {
			var text string
			if text, slot = kept(); !strings.Contains(text, fmt.Sprintf("set name=g%d\n", changes)) {
				return fmt.Errorf("g%d is not kept; slot %d has:\n%s\nthe console says:\n%s", changes, slot, text, k.m.screen.tail(20))
			}
			return nil
		}))
		return slot
	}
	start("postern")
	assert.Empty(t, change())
	newest := awaitChange()
	for len(worn) < blocks-1 {
		next := newest
		for next == newest || slices.Contains(worn, next) {
			next = (next + 1) % blocks
		}
		worn = append(worn, next)
		words.add(t, chip+uint64(place(next)))
		assert.Empty(t, change())
		if len(worn) == blocks-1 {
			break // it was the last
		}
		newest = awaitChange()
		k.awaitLog(t, fmt.Sprintf(`system,warning kept configuration: slot %d: verify: .*: another slot has taken it; slots left: \d`, next))
		t.Logf("block %d went bad: what it was to hold is in block %d", next, newest)
		if len(worn) == 2 {
			k.m.kill()
			start(fmt.Sprintf("g%d", changes))
			assert.Equal(t, 2, strings.Count(k.said, "system,warning kept configuration: slot "), "the log of the start")
		}
	}
	last := changes - 1 // that was kept
	k.awaitLog(t, `system,error the configuration is not kept: save to /dev/mtd\d: no slot is left to write to: slot \d: verify: .* \(and \d more slots?\)`)
	assert.Contains(t, change(), "warning: the configuration is not kept: save to /dev/mtd")
	for range 2 {
		reads := words.count()
		text, slot := kept()
		assert.Contains(t, text, fmt.Sprintf("set name=g%d\n", last))
		assert.Equal(t, newest, slot)
		k.m.kill()
		start(fmt.Sprintf("g%d", last))
		t.Logf("no block was left: %d changes are not kept, and it started with the last that was; stuck words were read %d times", changes-last, reads)
		// It tries again, and says it again.
		assert.Empty(t, change())
		k.awaitLog(t, "system,error the configuration is not kept: ")
	}
	k.m.kill()
}
