package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// TestCard reads the image of a card with common tools.
func TestCard(t *testing.T) {
	e2e.Needs(t, "mkimage", "dtc", "gcc", "sgdisk", "mkfs.vfat", "fsck.vfat", "mcopy", "/usr/src/"+linuxSource+".tar.xz")
	b, err := board.ByName("bananapi-r2")
	require.NoError(t, err)
	keys := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, makeKeys(keys))
	make := func() string {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "kernel"), bytes.Repeat([]byte("kernel"), 1000), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "initramfs.cpio.xz"), bytes.Repeat([]byte("initramfs"), 999), 0o644))
		made, err := makeImages(b, version{name: "v1"}, keys, dir, t.TempDir())
		require.NoError(t, err)
		require.Equal(t, []string{slotImage, factoryImage, ubootKey, "mt7623n-bananapi-bpi-r2.dtb"}, made)
		return dir
	}
	dir := make()
	card := filepath.Join(dir, factoryImage)

	t.Run("partition table", func(t *testing.T) {
		assert.Contains(t, tool(t, dir, "sgdisk", "--verify", card), "No problems found")
		text, err := os.ReadFile(card)
		require.NoError(t, err)
		// The table has sectors 2 to 15, the boot loader those after it.
		assert.Zero(t, bytes.Trim(text[16*512:b.Flash.Partitions[0].Offset], "\x00"))
	})
	t.Run("script", func(t *testing.T) {
		fat := cut(t, b, dir, "boot")
		tool(t, dir, "fsck.vfat", "-n", fat)
		script := filepath.Join(dir, "boot.scr")
		tool(t, dir, "mcopy", "-i", fat, "::boot.scr", script)
		assert.Contains(t, tool(t, dir, "mkimage", "-l", script), "ARM Linux Script")
		text, err := os.ReadFile(script)
		require.NoError(t, err)
		assert.Contains(t, string(text), `setenv bootargs "`+b.Kernel.CommandLine+` postern.slot=${slot}"`)
		assert.NotContains(t, string(text), "@")
	})
	t.Run("slot", func(t *testing.T) {
		list := tool(t, dir, "mkimage", "-l", filepath.Join(dir, slotImage))
		for _, want := range []string{"Kernel Image", "RAMDisk Image", "Flat Device Tree", "sha256"} {
			assert.Contains(t, list, want)
		}
		image, err := os.ReadFile(filepath.Join(dir, slotImage))
		require.NoError(t, err)
		whole, err := os.ReadFile(cut(t, b, dir, board.Slots[0]))
		require.NoError(t, err)
		assert.True(t, bytes.HasPrefix(whole, image))
	})
	t.Run("state of the slots", func(t *testing.T) {
		states, err := os.ReadFile(cut(t, b, dir, board.SlotStates))
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(string(states[board.SlotStateOffsets[0]:]), "# GRUB Environment Block\nmagic=PST1\nsequence=1\n"))
		assert.Contains(t, string(states), "\nversion=v1\n")
	})
	t.Run("two are the same to the byte", func(t *testing.T) {
		assert.Equal(t, hashOf(t, card), hashOf(t, filepath.Join(make(), factoryImage)))
	})
}
