package flash

import (
	"os"
	"testing"

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
