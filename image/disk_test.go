package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// writeTestDisk makes the disk of a board with other bytes for kernel and initramfs.
func writeTestDisk(t *testing.T, b board.Board) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kernel"), bytes.Repeat([]byte("kernel"), 1000), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "initramfs.cpio.xz"), bytes.Repeat([]byte("initramfs"), 999), 0o644))
	made, err := makeImages(b, version{}, "", dir, t.TempDir())
	require.NoError(t, err)
	require.Equal(t, []string{slotImage, factoryImage}, made)
	return dir
}

// tool runs a program of this machine and returns what it prints.
func tool(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %s: %s", name, strings.Join(args, " "), out)
	return string(out)
}

// cut copies a partition of the disk into its own file.
func cut(t *testing.T, b board.Board, dir, name string) string {
	t.Helper()
	disk, err := os.ReadFile(filepath.Join(dir, factoryImage))
	require.NoError(t, err)
	p, ok := b.Flash.Partition(name)
	require.True(t, ok, name)
	path := filepath.Join(dir, "partition-"+name)
	require.NoError(t, os.WriteFile(path, disk[p.Offset:p.Offset+p.Size], 0o644))
	return path
}

// TestDisk reads the image of a PC's disk with common tools.
func TestDisk(t *testing.T) {
	e2e.Needs(t, "grub-mkimage", "/usr/lib/grub/i386-pc", "/usr/lib/grub/x86_64-efi", "mkfs.vfat", "fsck.vfat", "mmd", "mdir", "sgdisk", "cpio")
	b, err := board.ByName("pc")
	require.NoError(t, err)
	dir := writeTestDisk(t, b)
	disk := filepath.Join(dir, factoryImage)

	t.Run("partition table", func(t *testing.T) {
		var want strings.Builder
		for _, p := range b.Flash.Partitions {
			fmt.Fprintf(&want, "%s %d %d\n", p.Name, p.Offset/512, p.Size)
		}
		assert.Equal(t, want.String(), tool(t, dir, "partx", "--raw", "--noheadings", "--bytes", "--output", "NAME,START,SIZE", disk))
		assert.Equal(t, "gpt\n", tool(t, dir, "blkid", "-p", "-o", "value", "-s", "PTTYPE", disk))
		assert.Contains(t, tool(t, dir, "sgdisk", "--verify", disk), "No problems found")
		types := tool(t, dir, "partx", "--raw", "--noheadings", "--output", "TYPE", disk)
		assert.True(t, strings.HasPrefix(types, "21686148-6449-6e6f-744e-656564454649\nc12a7328-f81f-11d2-ba4b-00a0c93ec93b\n0fc63daf-"), types)
	})
	t.Run("slot", func(t *testing.T) {
		slot := cut(t, b, dir, board.Slots[0])
		into := filepath.Join(dir, "slot")
		require.NoError(t, os.Mkdir(into, 0o755))
		tool(t, into, "sh", "-c", "cpio --quiet --extract < "+slot)
		assert.Equal(t, "kernel: OK\ninitramfs: OK\n", tool(t, into, "sha256sum", "--check", "SHA256SUMS"))
		image, err := os.ReadFile(filepath.Join(dir, slotImage))
		require.NoError(t, err)
		whole, err := os.ReadFile(slot)
		require.NoError(t, err)
		assert.True(t, bytes.HasPrefix(whole, image), "slot a is not %s", slotImage)
	})
	t.Run("state of the slots", func(t *testing.T) {
		path := cut(t, b, dir, board.SlotStates)
		assert.Equal(t, "a\nb\n", tool(t, dir, "sh", "-c", "cpio --quiet --list < "+path))
		states, err := os.ReadFile(path)
		require.NoError(t, err)
		for i, want := range []string{"magic=PST1\nsequence=1\ntried=1\nconfirmed=1\n", "magic=none\n"} {
			state := filepath.Join(dir, "state")
			at := board.SlotStateOffsets[i]
			require.NoError(t, os.WriteFile(state, states[at:at+board.SlotStateSize], 0o644))
			assert.True(t, strings.HasPrefix(tool(t, dir, "grub-editenv", state, "list"), want), "slot %d", i)
		}
		sum := tool(t, dir, "sha256sum", slotImage)
		assert.Contains(t, string(states), "\nsha256="+sum[:64]+"\n")
	})
	t.Run("system partition", func(t *testing.T) {
		esp := cut(t, b, dir, "efi")
		tool(t, dir, "fsck.vfat", "-n", esp)
		assert.Contains(t, tool(t, dir, "mdir", "-b", "-i", esp, "::EFI/BOOT"), "BOOTX64.EFI")
	})
	t.Run("two are the same to the byte", func(t *testing.T) {
		assert.Equal(t, hashOf(t, disk), hashOf(t, filepath.Join(writeTestDisk(t, b), factoryImage)))
	})
	t.Run("GRUB's script", func(t *testing.T) {
		_, _, err := grub(b, dir)
		require.NoError(t, err)
		archive := filepath.Join(dir, "grub-memdisk")
		script := tool(t, dir, "sh", "-c", "cpio --quiet --extract --to-stdout grub.cfg < "+archive)
		assert.Contains(t, script, "linux $slot/kernel "+b.Kernel.CommandLine+" postern.slot=$1 $3\n")
		file := filepath.Join(dir, "grub.cfg")
		require.NoError(t, os.WriteFile(file, []byte(script), 0o644))
		tool(t, dir, "grub-script-check", file)
	})
}

func TestWriteGPTRefuses(t *testing.T) {
	for _, c := range []struct {
		name       string
		partitions []board.Partition
	}{
		{"over the table", []board.Partition{{Name: "a", Offset: 512, Size: 512}}},
		{"one over another", []board.Partition{{Name: "a", Offset: 1 << 20, Size: 1 << 20}, {Name: "b", Offset: 1 << 20, Size: 512}}},
		{"over the copy at the end", []board.Partition{{Name: "a", Offset: 1 << 20, Size: 3 << 20}}},
		{"half a sector", []board.Partition{{Name: "a", Offset: 1 << 20, Size: 100}}},
		{"no size", []board.Partition{{Name: "a", Offset: 1 << 20}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
			require.NoError(t, err)
			defer f.Close()
			require.ErrorContains(t, writeGPT(f, 4<<20, c.partitions, nil, 128), "does not fit")
			info, err := f.Stat()
			require.NoError(t, err)
			assert.Zero(t, info.Size(), "a part was written")
		})
	}
}
