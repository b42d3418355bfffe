package main

import (
	"testing"

	"github.com/postern-router/postern/board"
)

// chipBoards are those to test that start from a flash chip by a boot loader on it.
func chipBoards() []board.Board {
	var chips []board.Board
	for _, b := range boards() {
		if b.Flash.Chip != "" && b.Image.BootLoader.File != "" {
			chips = append(chips, b)
		}
	}
	return chips
}

// TestChipBoot starts boards from their flash chips by U-Boot: the manual's example
// passes, and what was set outlives a cut of the power.
func TestChipBoot(t *testing.T) {
	for _, b := range chipBoards() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testFlashBoot(t, b, func(*machineOptions) {})
		})
	}
}
