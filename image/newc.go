package main

import (
	"bytes"
	"fmt"
)

// newc is a cpio archive in the format newc (cpio(5)), which GRUB can read. It can place a file
// at a given offset, which the usual programs cannot: GRUB and the router write there later.
type newc struct{ bytes.Buffer }

// add appends a file.
func (a *newc) add(name string, data []byte) { a.record(name, len(name)+1, 0o100644, data) }

// addAt appends a file whose data start at offset at of the archive, a multiple of four. The
// gap is filled with NULs after the name: readers take the name up to the first NUL.
func (a *newc) addAt(name string, at int, data []byte) error {
	length := at - a.Len() - newcHeader
	if length <= len(name) || at%4 != 0 {
		return fmt.Errorf("%s at byte %d of an archive of %d", name, at, a.Len())
	}
	a.record(name, length, 0o100644, data)
	return nil
}

// end appends the trailer and returns the archive.
func (a *newc) end() []byte {
	a.record("TRAILER!!!", len("TRAILER!!!")+1, 0, nil)
	return a.Bytes()
}

// newcHeader is the length of a file's header: the magic and 13 numbers.
const newcHeader = 6 + 13*8

// record appends a header, a name padded to length bytes, and the data, each aligned to four.
func (a *newc) record(name string, length int, mode uint32, data []byte) {
	links := min(mode, 1)
	// inode, mode, uid, gid, links, time, size, device, device of a node, name, checksum
	fmt.Fprintf(a, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		0, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, length, 0)
	a.WriteString(name)
	a.Write(make([]byte, length-len(name)))
	a.align()
	a.Write(data)
	a.align()
}

func (a *newc) align() {
	for a.Len()%4 != 0 {
		a.WriteByte(0)
	}
}
