// Package flash gives one interface to all media that keep bytes while the power is off:
// a raw MTD character device, a block device or a plain file.
//
// It promises that the bytes are on the medium when Program returns. What is written
// where, and in which order, is up to the caller: on that order depends what survives a
// power cut.
package flash

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

// Flash is an open medium.
type Flash interface {
	io.ReaderAt
	io.Closer
	// Bad returns why the erase block at off cannot be used, or nil if it can.
	Bad(off int64) error
	// Erase sets n bytes at off to 0xFF. Both must be multiples of the erase block.
	Erase(off, n int64) error
	// Program writes p at off, which must be erased. On return it is on the medium.
	Program(p []byte, off int64) error
}

// Geometry is what never changes about a flash. Sizes are in bytes.
type Geometry struct {
	// Medium is "NOR flash", "NAND flash", "MTD", "block device" or "file".
	Medium     string
	Size       int64
	EraseBlock int
	// WriteSize is what the offset and the length of each Program are multiples of.
	WriteSize int
	// Chip says that this is a raw flash chip: programming only clears bits, so that a
	// place must be erased first. Other media take any write.
	Chip bool
	// ReadOnly is the reason why nothing can be written, or nil.
	ReadOnly error
}

const (
	// diskBlock is the erase block of disks and files: the page cache writes so much at
	// once.
	diskBlock = 4096
	// diskSector is what a disk usually writes whole or not at all.
	diskSector = 512
	// mtdMajor is the major number of MTD character devices.
	mtdMajor = 90
)

// Open opens the medium at path and finds out what kind it is. A plain file counts as at
// least fileSize bytes long; one that does not exist is created, but not in /dev. It
// refuses a block device that is mounted, and devices of other kinds. What can only be
// read is opened for reading: Geometry.ReadOnly tells why.
func Open(path string, fileSize int64) (Flash, Geometry, error) {
	file, readOnly, err := openPath(path)
	if err != nil {
		return nil, Geometry{}, err
	}
	f, g, err := newFlash(file, fileSize)
	if err != nil {
		return nil, Geometry{}, errors.Join(err, file.Close())
	}
	if readOnly != nil {
		g.ReadOnly = readOnly
	}
	return f, g, nil
}

// OpenFile opens the medium at path as Open does. Another process, which may not open it
// itself, can be given the file and pass it to New.
func OpenFile(path string) (*os.File, error) {
	f, _, err := openPath(path)
	return f, err
}

// New returns the medium of a file that OpenFile has opened. Close of the Flash closes the
// file; after an error of New the caller has to close it.
func New(f *os.File) (Flash, Geometry, error) { return newFlash(f, 0) }

// openPath opens the medium at path. readOnly is the reason why it can only be read, or
// nil.
func openPath(path string) (f *os.File, readOnly, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && !strings.HasPrefix(path, "/dev/") {
		// In /dev the flash is missing, and a file made there would be in memory.
		if err := create(path); err != nil {
			return nil, nil, err
		}
		info, err = os.Stat(path)
	}
	if err != nil {
		return nil, nil, err
	}
	// Other devices are not even opened: opening a watchdog, for one, starts it.
	flags := 0
	switch mode := info.Mode(); {
	case mode.IsRegular():
	case mode&fs.ModeCharDevice != 0:
		if !isMTD(info) {
			return nil, nil, errNotMTD
		}
	case mode&fs.ModeDevice != 0:
		flags = unix.O_EXCL // refuses what is mounted
	default:
		return nil, nil, fmt.Errorf("%v: neither MTD, block device nor file", mode)
	}
	return open(path, flags)
}

var errNotMTD = errors.New("a character device that is not MTD")

func isMTD(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && unix.Major(uint64(stat.Rdev)) == mtdMajor
}

// newFlash finds out which kind of medium an open file is.
func newFlash(f *os.File, fileSize int64) (Flash, Geometry, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, Geometry{}, err
	}
	var readOnly error
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err == nil && flags&unix.O_ACCMODE == unix.O_RDONLY {
		readOnly = unix.EROFS
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		// A shorter file grows to that size as it is written.
		return disk{f}, Geometry{Medium: "file", Size: max(info.Size(), fileSize), EraseBlock: diskBlock, WriteSize: diskSector, ReadOnly: readOnly}, nil
	case mode&fs.ModeCharDevice != 0:
		if !isMTD(info) {
			return nil, Geometry{}, errNotMTD
		}
		g, err := mtd{f}.geometry()
		if err != nil {
			return nil, Geometry{}, err
		}
		g.ReadOnly = readOnly
		return mtd{f}, g, nil
	case mode&fs.ModeDevice != 0:
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return nil, Geometry{}, err
		}
		// Linux lets a read-only block device be opened for writing.
		if ro, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET); err == nil && ro != 0 && readOnly == nil {
			readOnly = unix.EROFS
		}
		return disk{f}, Geometry{Medium: "block device", Size: size, EraseBlock: diskBlock, WriteSize: diskSector, ReadOnly: readOnly}, nil
	default:
		return nil, Geometry{}, fmt.Errorf("%v: neither MTD, block device nor file", mode)
	}
}

// open opens path for writing, or else for reading: a configuration that can only be
// read is better than none.
func open(path string, flags int) (f *os.File, readOnly, err error) {
	f, err = os.OpenFile(path, os.O_RDWR|flags, 0)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		readOnly = err
		f, err = os.OpenFile(path, os.O_RDONLY|flags, 0)
	}
	return f, readOnly, err
}

// create makes an empty file that survives a power cut. Only root may read it, since it
// may hold secrets.
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

// disk is a block device or a file. The kernel may write to it in any order until it is
// synchronised.
type disk struct{ *os.File }

func (disk) Bad(int64) error { return nil }

// ReadAt reads zeros behind the end of a file, as if the file were longer.
func (d disk) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.File.ReadAt(p, off)
	if err == io.EOF {
		clear(p[n:])
		return len(p), nil
	}
	return n, err
}

func (d disk) Erase(off, n int64) error {
	return d.Program(bytes.Repeat([]byte{0xFF}, int(n)), off)
}

func (d disk) Program(p []byte, off int64) error {
	if _, err := d.WriteAt(p, off); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	// What is read back should come from the medium, not from the page cache. If the
	// kernel cannot drop the pages, they are read from the cache, which does no harm.
	_ = unix.Fadvise(int(d.Fd()), 0, 0, unix.FADV_DONTNEED)
	return nil
}

// mtd is a raw MTD character device. Its writes are synchronous, and it has no fsync.
type mtd struct{ *os.File }

func (m mtd) geometry() (Geometry, error) {
	var info unix.MtdInfo
	if _, err := m.ioctl(unix.MEMGETINFO, unsafe.Pointer(&info)); err != nil {
		return Geometry{}, fmt.Errorf("MEMGETINFO: %w", err)
	}
	g := Geometry{Medium: "MTD", Size: int64(info.Size), EraseBlock: int(info.Erasesize), WriteSize: int(info.Writesize), Chip: true}
	switch info.Type {
	case unix.MTD_NORFLASH:
		g.Medium = "NOR flash"
	case unix.MTD_NANDFLASH, unix.MTD_MLCNANDFLASH:
		g.Medium = "NAND flash"
	}
	return g, nil
}

func (m mtd) Bad(off int64) error {
	isBad, err := m.ioctl(unix.MEMGETBADBLOCK, unsafe.Pointer(&off))
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil // NOR flash has no bad block marks
	case err != nil:
		return fmt.Errorf("MEMGETBADBLOCK at %#x: %w", off, err)
	case isBad != 0:
		return fmt.Errorf("bad block at %#x", off)
	}
	return nil
}

func (m mtd) Erase(off, n int64) error {
	info := unix.EraseInfo{Start: uint32(off), Length: uint32(n)}
	if _, err := m.ioctl(unix.MEMERASE, unsafe.Pointer(&info)); err != nil {
		return fmt.Errorf("MEMERASE of %d bytes at %#x: %w", n, off, err)
	}
	return nil
}

func (m mtd) Program(p []byte, off int64) error {
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
