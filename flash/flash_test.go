package flash

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A device that is not MTD refuses the ioctls. TestMTD of package qemu tests them on one that is.
func TestIoctlErrors(t *testing.T) {
	f, err := os.Open("/dev/null")
	require.NoError(t, err)
	defer f.Close()
	_, err = mtd{f}.geometry()
	require.ErrorIs(t, err, unix.ENOTTY)
	require.ErrorContains(t, err, "MEMGETINFO: ")
	require.ErrorContains(t, mtd{f}.Bad(0x10000), "MEMGETBADBLOCK at 0x10000: ")
	require.ErrorContains(t, mtd{f}.Erase(0x10000, 512), "MEMERASE of 512 bytes at 0x10000: ")
	require.ErrorIs(t, mtd{f}.Program([]byte{1}, 0), unix.EBADF)
}

// TestNew: what a process makes of a file that another has opened for it.
func TestNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, make([]byte, 1000), 0o600))
	file, err := OpenFile(path)
	require.NoError(t, err)
	f, g, err := New(file)
	require.NoError(t, err)
	assert.Equal(t, Geometry{Medium: "file", Size: 1000, EraseBlock: diskBlock, WriteSize: diskSector}, g)
	require.NoError(t, f.Program([]byte("abc"), 512))
	require.NoError(t, f.Close())

	file, err = os.Open(path)
	require.NoError(t, err)
	f, g, err = New(file)
	require.NoError(t, err)
	require.ErrorIs(t, g.ReadOnly, unix.EROFS)
	b := make([]byte, 3)
	_, err = f.ReadAt(b, 512)
	require.NoError(t, err)
	assert.Equal(t, "abc", string(b))
	require.NoError(t, f.Close())

	for path, want := range map[string]string{os.DevNull: "a character device that is not MTD", t.TempDir(): "neither MTD, block device nor file"} {
		_, err = OpenFile(path)
		require.ErrorContains(t, err, want)
		other, err := os.Open(path)
		require.NoError(t, err)
		_, _, err = New(other)
		require.ErrorContains(t, err, want)
		require.NoError(t, other.Close())
	}
	_, _, err = Open("/dev/no-flash", 0)
	require.ErrorIs(t, err, os.ErrNotExist, "in /dev nothing is made")
}
