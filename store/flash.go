package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// flash is what a Store keeps its slots on.
type flash interface {
	io.ReaderAt
	io.Closer
	// bad is why the erase block at off cannot be used, or nil.
	bad(off int64) error
	// erase makes n bytes at off, whole erase blocks, 0xFF.
	erase(off, n int64) error
	// program writes p to an erased place; it is on the medium on return.
	program(p []byte, off int64) error
}

// geometry is what is fixed about a flash.
type geometry struct {
	medium     string
	size       int64
	eraseBlock int
	// writeSize divides the place and the length of each program.
	writeSize int
	// readOnly is why nothing can be written, or nil.
	readOnly error
}

const (
	// fileSize is that of a plain file: two slots.
	fileSize = 2 * wantSlot
	// diskBlock is the erase block of disks and files: what the page cache writes at
	// once.
	diskBlock = 4096
	// diskSector is what a disk writes whole or not at all, as a rule. The footer
	// has one to itself, so that writing it does not touch the text.
	diskSector = 512
	// mtdMajor is the major number of MTD character devices.
	mtdMajor = 90
)

// openFlash finds out what is at path and opens it.
func openFlash(path string) (flash, geometry, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && !strings.HasPrefix(path, "/dev/") {
		// In /dev it is the flash that is absent, and a file there is in memory.
		if err := create(path); err != nil {
			return nil, geometry{}, err
		}
		info, err = os.Stat(path)
	}
	if err != nil {
		return nil, geometry{}, err
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		f, readOnly, err := open(path, 0)
		if err != nil {
			return nil, geometry{}, err
		}
		// A shorter file is as long as it should be when each slot was written once.
		return disk{f}, geometry{"file", max(info.Size(), fileSize), diskBlock, diskSector, readOnly}, nil
	case mode&fs.ModeCharDevice != 0:
		// Others are not even opened: for a watchdog that alone has an effect.
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || unix.Major(uint64(stat.Rdev)) != mtdMajor {
			return nil, geometry{}, errors.New("a character device that is not MTD")
		}
		f, readOnly, err := open(path, 0)
		if err != nil {
			return nil, geometry{}, err
		}
		g, err := mtd{f}.geometry()
		if err != nil {
			return nil, geometry{}, errors.Join(err, f.Close())
		}
		g.readOnly = readOnly
		return mtd{f}, g, nil
	case mode&fs.ModeDevice != 0:
		// O_EXCL refuses what is mounted.
		f, readOnly, err := open(path, unix.O_EXCL)
		if err != nil {
			return nil, geometry{}, err
		}
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return nil, geometry{}, errors.Join(err, f.Close())
		}
		// Linux lets a device be opened for writing that refuses writes.
		if ro, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET); err == nil && ro != 0 && readOnly == nil {
			readOnly = unix.EROFS
		}
		return disk{f}, geometry{"block device", size, diskBlock, diskSector, readOnly}, nil
	default:
		return nil, geometry{}, fmt.Errorf("%v: neither MTD, block device nor file", mode)
	}
}

// open opens for writing, or else for reading: a configuration that cannot be
// changed is better than none.
func open(path string, flags int) (f *os.File, readOnly, err error) {
	f, err = os.OpenFile(path, os.O_RDWR|flags, 0)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		readOnly = err
		f, err = os.OpenFile(path, os.O_RDONLY|flags, 0)
	}
	return f, readOnly, err
}

// create makes an empty file, readable by root alone since it may hold
// secrets, that a power cut does not take away again.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// disk is a block device or a file, which takes writes at any place in any order
// until it is synchronised.
type disk struct{ *os.File }

func (disk) bad(int64) error { return nil }

// ReadAt reads zeros after the end of a file, as if it were extended.
func (d disk) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.File.ReadAt(p, off)
	if err == io.EOF {
		clear(p[n:])
		return len(p), nil
	}
	return n, err
}

func (d disk) erase(off, n int64) error {
	return d.program(bytes.Repeat([]byte{0xFF}, int(n)), off)
}

func (d disk) program(p []byte, off int64) error {
	if _, err := d.WriteAt(p, off); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	// What is read back should come from the medium, not from the page cache. Where
	// the kernel cannot drop that, it is the cache that is read, which does no harm.
	_ = unix.Fadvise(int(d.Fd()), 0, 0, unix.FADV_DONTNEED)
	return nil
}

// mtd is a raw MTD character device. Its writes are synchronous; it has no fsync.
type mtd struct{ *os.File }

func (m mtd) geometry() (geometry, error) {
	var info unix.MtdInfo
	if _, err := m.ioctl(unix.MEMGETINFO, unsafe.Pointer(&info)); err != nil {
		return geometry{}, fmt.Errorf("MEMGETINFO: %w", err)
	}
	g := geometry{medium: "MTD", size: int64(info.Size), eraseBlock: int(info.Erasesize), writeSize: int(info.Writesize)}
	switch info.Type {
	case unix.MTD_NORFLASH:
		g.medium = "NOR flash"
	case unix.MTD_NANDFLASH, unix.MTD_MLCNANDFLASH:
		g.medium = "NAND flash"
	}
	return g, nil
}

func (m mtd) bad(off int64) error {
	isBad, err := m.ioctl(unix.MEMGETBADBLOCK, unsafe.Pointer(&off))
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil // NOR has no such mark
	case err != nil:
		return fmt.Errorf("MEMGETBADBLOCK at %#x: %w", off, err)
	case isBad != 0:
		return fmt.Errorf("bad block at %#x", off)
	}
	return nil
}

func (m mtd) erase(off, n int64) error {
	info := unix.EraseInfo{Start: uint32(off), Length: uint32(n)}
	if _, err := m.ioctl(unix.MEMERASE, unsafe.Pointer(&info)); err != nil {
		return fmt.Errorf("MEMERASE of %d bytes at %#x: %w", n, off, err)
	}
	return nil
}

func (m mtd) program(p []byte, off int64) error {
	_, err := m.WriteAt(p, off)
	return err
}

func (m mtd) ioctl(request uint, arg unsafe.Pointer) (uintptr, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, m.Fd(), uintptr(request), uintptr(arg))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return r, nil
	}
}
