package router

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
)

func TestAwaitDisk(t *testing.T) {
	partitions := []board.Partition{{Name: board.ConfigurationPartition, Offset: 1 << 20, Size: 1 << 20}}
	disk := board.Flash{Partitions: partitions}
	took := func(f board.Flash, sys string, limit time.Duration) time.Duration {
		start := time.Now()
		awaitDisk(f, sys, limit)
		return time.Since(start)
	}
	empty := t.TempDir()
	assert.Less(t, took(board.Flash{Chip: "chip", Partitions: partitions}, empty, time.Minute), time.Second, "a chip is not waited for")
	assert.Less(t, took(board.Flash{}, empty, time.Minute), time.Second, "nor what is not there")
	assert.GreaterOrEqual(t, took(disk, empty, 100*time.Millisecond), 100*time.Millisecond, "the end of waiting")

	late := t.TempDir()
	go func() {
		time.Sleep(200 * time.Millisecond)
		folder := filepath.Join(late, "class/block/sda4")
		if os.MkdirAll(folder, 0o755) == nil {
			_ = os.WriteFile(filepath.Join(folder, "uevent"), []byte("DEVNAME=sda4\nPARTNAME=postern-config\n"), 0o644)
		}
	}()
	waited := took(disk, late, time.Minute)
	assert.GreaterOrEqual(t, waited, 200*time.Millisecond)
	assert.Less(t, waited, 30*time.Second)
	_, err := findPartition(late, "/dev", board.ConfigurationPartition)
	require.NoError(t, err)
}
