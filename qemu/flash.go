package main

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"unicode/utf16"

	"github.com/postern-router/postern/board"
)

// makeFlash makes the file of a board's flash, as it comes from the factory, if
// there is none: blank, a disk with its partition table.
func makeFlash(b board.Board, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = f.Truncate(b.QEMU.FlashSize)
	if b.Flash.Chip == "" && err == nil {
		err = writeGPT(f, b.QEMU.FlashSize, b.Flash.Partitions)
	}
	return errors.Join(err, f.Close())
}

// The GUID partition table (UEFI specification 2.10, chapter 5).
const (
	sector     = 512
	gptEntries = 128
	gptEntry   = 128
	// gptSectors are those of the table of entries.
	gptSectors = gptEntries * gptEntry / sector
)

// writeGPT writes the partition table of a disk of size bytes: at its start behind
// a protective MBR, and once more at its end. Its GUIDs are fixed: nobody has two
// of these disks in one machine.
func writeGPT(f *os.File, size int64, partitions []board.Partition) error {
	little := binary.LittleEndian
	sectors := uint64(size / sector)
	entries := make([]byte, gptEntries*gptEntry)
	for i, p := range partitions {
		e := entries[i*gptEntry:][:gptEntry]
		// Linux filesystem data, 0FC63DAF-8483-4772-8E79-3D69D8477DE4.
		copy(e, "\xAF\x3D\xC6\x0F\x83\x84\x72\x47\x8E\x79\x3D\x69\xD8\x47\x7D\xE4")
		copy(e[16:], "postern partition")
		e[31] = byte(i)
		little.PutUint64(e[32:], uint64(p.Offset/sector))
		little.PutUint64(e[40:], uint64((p.Offset+p.Size)/sector-1))
		for j, u := range utf16.Encode([]rune(p.Name)) {
			little.PutUint16(e[56+2*j:], u)
		}
	}
	header := func(own, other, table uint64) []byte {
		h := make([]byte, sector)
		copy(h, "EFI PART")
		little.PutUint32(h[8:], 0x10000)
		little.PutUint32(h[12:], 92)
		little.PutUint64(h[24:], own)
		little.PutUint64(h[32:], other)
		little.PutUint64(h[40:], 2+gptSectors)         // the first that a partition may have
		little.PutUint64(h[48:], sectors-2-gptSectors) // and the last
		copy(h[56:], "postern's disk  ")
		little.PutUint64(h[72:], table)
		little.PutUint32(h[80:], gptEntries)
		little.PutUint32(h[84:], gptEntry)
		little.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		little.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
		return h
	}
	mbr := make([]byte, sector)
	mbr[446+4] = 0xEE
	little.PutUint32(mbr[446+8:], 1)
	little.PutUint32(mbr[446+12:], uint32(sectors-1))
	mbr[510], mbr[511] = 0x55, 0xAA
	last := sectors - 1
	for _, w := range []struct {
		at   uint64
		data []byte
	}{
		{0, mbr}, {1, header(1, last, 2)}, {2, entries},
		{last - gptSectors, entries}, {last, header(last, 1, last-gptSectors)},
	} {
		if _, err := f.WriteAt(w.data, int64(w.at)*sector); err != nil {
			return err
		}
	}
	return nil
}
