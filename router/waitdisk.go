package router

import (
	"time"

	"github.com/postern-router/postern/board"
)

const (
	// lateDisk is what a disk may take to be found: a stick on USB is looked at for a
	// second, and behind a hub the search takes two more.
	lateDisk = 8 * time.Second
	// lookAgain is the pause between two looks for it.
	lookAgain = 50 * time.Millisecond
)

// awaitDisk waits for the partition with the configuration on a board that has it on a
// disk: the kernel starts PID 1 while it is still looking for cards, sticks and drives.
// A flash chip is there before. If none comes, whoever opens the partition says so.
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
