package router

import (
	"time"

	"github.com/postern-router/postern/board"
)

const (
	// lateDisk is how long the kernel may take to find a disk: it examines a USB stick for a
	// second, and behind a hub that takes two more.
	lateDisk = 8 * time.Second
	// lookAgain is the pause between two checks.
	lookAgain = 50 * time.Millisecond
)

// awaitDisk waits for the partition of the configuration, on a board that has it on a disk:
// the kernel starts PID 1 while it still looks for cards, sticks and drives. A flash chip is
// always found before that. If no disk appears, opening the partition reports it.
func awaitDisk(f board.Flash, sys string, limit time.Duration) {
	if _, kept := f.Partition(board.ConfigurationPartition); !kept || f.Chip != "" {
		return
	}
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(lookAgain) {
		if _, err := findPartition(sys, "/dev", board.ConfigurationPartition); err == nil {
			return
		}
	}
}
