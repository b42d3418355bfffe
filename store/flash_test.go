package store

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/internal/testnet"
)

// TestMain gives the tests a mount namespace, in which they may mount without being root.
// A router's kernel, on which TestMTD may run, has none.
func TestMain(m *testing.M) {
	if os.Getenv("POSTERN_TEST_MTD") != "" {
		os.Exit(m.Run())
	}
	testnet.Main(m)
}

// boot opens the store at path until the end of the test.
func boot(t *testing.T, path string) *Store {
	st, err := Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, st.Close()) })
	return st
}

// exercise is what a flash must do, whatever it is. It must be of two slots.
func exercise(t *testing.T, path, medium string) {
	reopened := func() *Store {
		st, err := Open(path)
		require.NoError(t, err)
		return st
	}
	st := reopened()
	for n := range 5 {
		require.NoError(t, st.Save(text(n)))
		require.Equal(t, string(text(n)), string(load(t, st)))
		require.NoError(t, st.Close())
		st = reopened()
		got, info, err := st.Load()
		require.NoError(t, err)
		require.Equal(t, string(text(n)), string(got))
		assert.Empty(t, info.Damaged)
		assert.NoError(t, info.ReadOnly)
		assert.Equal(t, medium, info.Medium)
	}
	long := bytes.Repeat([]byte("/ip firewall filter add chain=forward action=drop\n"), 2000)
	require.NoError(t, st.Save(long))
	require.True(t, bytes.Equal(long, load(t, st)))
	require.ErrorIs(t, st.Save(make([]byte, MaxText+1)), ErrTooLong)
	require.NoError(t, st.Erase())
	require.NoError(t, st.Close())
	st = reopened()
	require.Nil(t, load(t, st))
	require.NoError(t, st.Save(text(7)))
	require.Equal(t, string(text(7)), string(load(t, st)))
	require.NoError(t, st.Close())
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "configuration")
	exercise(t, path, "file")
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, int64(fileSize), info.Size())
	assert.Equal(t, fs.FileMode(0o600), info.Mode())
}

func TestTruncatedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "configuration")
	long := bytes.Repeat([]byte("0123456789abcde\n"), 4000)[:60_000]
	st := boot(t, path)
	require.NoError(t, st.Save(text(1)))
	require.NoError(t, st.Save(long))
	require.Equal(t, string(long), string(load(t, st)))
	const slot = 64 << 10
	for size := fileSize; size >= 0; {
		require.NoError(t, os.Truncate(path, int64(size)))
		st, err := Open(path)
		require.NoError(t, err)
		got := load(t, st)
		require.NoError(t, st.Close())
		want := long
		if size < fileSize {
			want = text(1)
		}
		if size < slot {
			want = nil
		}
		require.Equal(t, string(want), string(got), "file cut to %d bytes", size)
		// Each offset near an edge; between, each 251st, which are all alike.
		switch at := size % slot; {
		case at < 200, at > slot-200, at > 59_900 && at < 60_100:
			size--
		default:
			size -= min(251, at-199)
		}
	}
	require.NoError(t, boot(t, path).Save(text(3)))
	require.Equal(t, string(text(3)), string(load(t, boot(t, path))))
}

// Each offset at which a small file can end, in memory.
func TestTruncatedAtEveryOffset(t *testing.T) {
	s := layouts()["disk, 2 slots of four blocks"](t)
	require.NoError(t, s.boot().Save(text(1)))
	require.NoError(t, s.boot().Save(text(2)))
	whole := s.mem
	for _, rest := range []byte{0xFF, 0} {
		for size := range len(whole) {
			s.mem = append(bytes.Clone(whole[:size]), bytes.Repeat([]byte{rest}, len(whole)-size)...)
			want := text(1)
			if size < s.slot {
				want = nil
			}
			require.Equal(t, string(want), string(load(t, s.boot())), "cut to %d bytes", size)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	t.Cleanup(func() { assert.NoFileExists(t, "/dev/no-mtd"); os.Remove("/dev/no-mtd") })
	for _, c := range []struct{ name, path, problem string }{
		{"absent device", "/dev/no-mtd", "open store /dev/no-mtd: stat /dev/no-mtd: no such file or directory"},
		{"absent folder", filepath.Join(dir, "no", "file"), "no such file or directory"},
		{"folder", dir, "neither MTD, block device nor file"},
		{"pipe", fifo, "neither MTD, block device nor file"},
		{"another device", "/dev/null", "a character device that is not MTD"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(c.path)
			require.ErrorContains(t, err, "open store "+c.path+": ")
			require.ErrorContains(t, err, c.problem)
		})
	}
}

// mount makes a file system in memory, which needs root.
func mount(t *testing.T, options string) string {
	dir := t.TempDir()
	require.NoError(t, unix.Mount("store-test", dir, "tmpfs", 0, options), "mount a tmpfs")
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(dir, 0)) })
	return dir
}

func TestFileSystemFull(t *testing.T) {
	path := filepath.Join(mount(t, "size=100k"), "configuration")
	st := boot(t, path)
	require.NoError(t, st.Save(text(1)))
	err := st.Save(text(2))
	require.ErrorIs(t, err, unix.ENOSPC)
	require.ErrorContains(t, err, "save to "+path+": no slot is left to write to: slot 1: erase: ")
	require.Equal(t, string(text(1)), string(load(t, boot(t, path))))
	require.NoError(t, unix.Mount("", filepath.Dir(path), "", unix.MS_REMOUNT, "size=200k"))
	require.NoError(t, st.Save(text(2)))
	require.Equal(t, string(text(2)), string(load(t, boot(t, path))))
	require.NoError(t, unix.Unmount(filepath.Dir(path), unix.MNT_DETACH))
	require.NoError(t, unix.Mount("store-test", filepath.Dir(path), "tmpfs", 0, "")) // for the cleanup
}

func TestFileSystemReadOnly(t *testing.T) {
	path := filepath.Join(mount(t, ""), "configuration")
	st, err := Open(path)
	require.NoError(t, err)
	require.NoError(t, st.Save(text(1)))
	require.NoError(t, st.Close())
	require.NoError(t, unix.Mount("", filepath.Dir(path), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	st, err = Open(path)
	require.NoError(t, err)
	got, info, err := st.Load()
	require.NoError(t, err)
	assert.Equal(t, string(text(1)), string(got))
	assert.ErrorIs(t, info.ReadOnly, unix.EROFS)
	assert.ErrorIs(t, st.Save(text(2)), unix.EROFS)
	require.NoError(t, st.Close())
	_, err = Open(filepath.Join(filepath.Dir(path), "new"))
	require.ErrorIs(t, err, unix.EROFS)
}

// loop makes a block device of a size. It needs root.
func loop(t *testing.T, size int64, options ...string) string {
	file := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Truncate(file, size))
	out, err := exec.Command("losetup", append(options, "--find", "--show", file)...).CombinedOutput()
	require.NoError(t, err, "losetup, as root: %s", out)
	path := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		out, err := exec.Command("losetup", "--detach", path).CombinedOutput()
		assert.NoError(t, err, "%s", out)
	})
	return path
}

func TestBlockDevice(t *testing.T) {
	e2e.Root(t)
	t.Run("two slots", func(t *testing.T) {
		exercise(t, loop(t, 2*wantSlot), "block device")
	})
	t.Run("sectors of 4096 bytes", func(t *testing.T) {
		exercise(t, loop(t, 2*wantSlot, "--sector-size", "4096"), "block device")
	})
	t.Run("larger", func(t *testing.T) {
		path := loop(t, 5*wantSlot+4096)
		_, info, err := boot(t, path).Load()
		require.ErrorIs(t, err, ErrEmpty)
		assert.Empty(t, info.Damaged)
		assert.Equal(t, 5, info.Slots)
	})
	t.Run("too small", func(t *testing.T) {
		_, err := Open(loop(t, 4096))
		require.ErrorContains(t, err, "two slots need two erase blocks")
	})
	t.Run("read-only", func(t *testing.T) {
		st := boot(t, loop(t, 2*wantSlot, "--read-only"))
		_, info, err := st.Load()
		require.ErrorIs(t, err, ErrEmpty)
		require.ErrorIs(t, info.ReadOnly, unix.EROFS)
		require.ErrorIs(t, st.Save(text(1)), unix.EROFS)
	})
	t.Run("in use", func(t *testing.T) {
		path := loop(t, 2*wantSlot)
		boot(t, path)
		_, err := Open(path)
		require.ErrorIs(t, err, unix.EBUSY)
	})
}

// TestMTD overwrites an MTD device, so that it must be named. The kernels of most
// hosts have none; this is for a router in QEMU, whose chip the tests of package qemu
// write, read and wear out by way of the booted image (TestKept, TestWornFlash):
//
//	go test -c ./store && POSTERN_TEST_MTD=/dev/mtd2 ./store.test -test.run MTD
func TestMTD(t *testing.T) {
	path := os.Getenv("POSTERN_TEST_MTD")
	if path == "" {
		t.Skip("no MTD device is named in POSTERN_TEST_MTD, and kernels of hosts have none: TestKept of package qemu covers the ioctls")
	}
	st, err := Open(path)
	require.NoError(t, err)
	_, info, _ := st.Load()
	t.Logf("%+v", info)
	require.NoError(t, st.Close())
	exercise(t, path, info.Medium)
}
