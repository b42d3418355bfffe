package main

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/cache"
	"github.com/postern-router/postern/internal/e2e"
)

// TestBuildKernelsBy checks which boards are left when there is no time for a kernel.
func TestBuildKernelsBy(t *testing.T) {
	e2e.Needs(t, "x86_64-linux-gnu-gcc", "mips-linux-gnu-gcc", "aarch64-linux-gnu-gcc", "/usr/src/"+linuxSource+".tar.xz")
	c := cache.Cache{Dir: t.TempDir()}
	var boards []board.Board
	for _, name := range []string{"pc", "malta", "virt-arm64"} {
		b, err := board.ByName(name)
		require.NoError(t, err)
		boards = append(boards, b)
	}
	ready, err := buildKernelsBy(c, boards, time.Now())
	require.NoError(t, err)
	assert.Empty(t, ready)

	_, _, inputs, err := kernelInputs(boards[1], "")
	require.NoError(t, err)
	dir, ok := c.Find("kernel", boards[1].Kernel.Name, inputs)
	require.False(t, ok)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	ready, err = buildKernelsBy(c, boards, time.Now())
	require.NoError(t, err)
	require.Len(t, ready, 1)
	assert.Equal(t, "malta", ready[0].Name)
}

// TestBoardsByName: a board that is named twice is built once, as boards are built beside each other.
func TestBoardsByName(t *testing.T) {
	boards, err := boardsByName([]string{"malta", "pc", "malta"})
	require.NoError(t, err)
	var names []string
	for _, b := range boards {
		names = append(names, b.Name)
	}
	assert.Equal(t, []string{"malta", "pc"}, names)
	_, err = boardsByName([]string{"malta", "nothing"})
	assert.ErrorContains(t, err, "nothing")
}
