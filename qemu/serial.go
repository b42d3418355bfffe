package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// serialLine is the far end of a machine's serial line: two named pipes that QEMU opens
// (its -chardev pipe).
//
// They are pipes because a pipe holds what nobody reads yet. A socket, QEMU's usual way,
// is full after 278 letters, as QEMU writes them one by one: then a kernel's driver waits
// 10 ms for each further letter and overwrites it. So a test that did not run for a moment
// on a busy host read "ostern: system,info" and "postern.sot=b".
type serialLine struct {
	// path is what both names begin with, as QEMU wants it.
	path string
	// in takes what is typed.
	in *os.File
	// hold keeps the pipe to read from open while QEMU has not opened it yet.
	hold *os.File
	// read is closed when all that was printed has been read.
	read chan struct{}
}

// serialBuffer is how many bytes of the machine's output wait to be read: more than any
// test prints between two looks.
const serialBuffer = 1 << 20

// openSerialLine makes the pipes path.in and path.out, and copies to screen what the
// machine prints.
func openSerialLine(path string, screen io.Writer) (*serialLine, error) {
	for _, name := range []string{path + ".in", path + ".out"} {
		// Those of an earlier start may hold what was typed then.
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err := unix.Mkfifo(name, 0o600); err != nil {
			return nil, fmt.Errorf("mkfifo %s: %w", name, err)
		}
	}
	// For reading and writing, which does not wait for the other end (fifo(7)).
	in, err := os.OpenFile(path+".in", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	hold, err := os.OpenFile(path+".out", os.O_RDWR, 0)
	if err != nil {
		in.Close()
		return nil, err
	}
	_, err = unix.FcntlInt(hold.Fd(), unix.F_SETPIPE_SZ, serialBuffer)
	if err != nil {
		err = fmt.Errorf("buffer of %s: %w", hold.Name(), err)
	}
	out, openErr := os.OpenFile(path+".out", os.O_RDONLY, 0)
	if err = errors.Join(err, openErr); err != nil {
		in.Close()
		hold.Close()
		return nil, err
	}
	l := &serialLine{path: path, in: in, hold: hold, read: make(chan struct{})}
	go func() {
		defer close(l.read)
		defer out.Close()
		_, _ = io.Copy(screen, out)
	}()
	return l, nil
}

// drain waits, when QEMU has ended, until the screen has all that was printed.
func (l *serialLine) drain() {
	l.hold.Close() // the last that could write
	<-l.read
}

// close ends both directions. It may be called more than once.
func (l *serialLine) close() {
	l.in.Close()
	l.drain()
}
