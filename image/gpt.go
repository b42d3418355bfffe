package main

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"

	"github.com/postern-router/postern/board"
)

// The GUID partition table (UEFI specification 2.10, chapter 5).
const (
	sectorSize   = 512
	gptEntrySize = 128
	// gptReserved is the number of sectors for the table of entries at the disk's end, and at
	// its start unless a boot loader needs some of them.
	gptReserved = 32
)

// Types of partitions.
const (
	grubBoot  = "21686148-6449-6E6F-744E-656564454649" // GRUB for BIOS
	efiSystem = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	basicData = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7" // a file system that any system reads
	linuxData = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
)

// guid returns the 16 bytes on the disk of a GUID in its usual notation: the first three of the
// five numbers are little-endian.
func guid(text string) ([]byte, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != 16 {
		return nil, fmt.Errorf("%q is not a GUID", text)
	}
	return []byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}, nil
}

// writeGPT writes the partition table of a disk of size bytes: at its start after a protective
// MBR, whose code it does not change, and again at its end. types are the partitions' types by
// their names; the default is linuxData. entries is the number of entries in the table, four in
// a sector: 128, unless a boot loader needs some of the first 34 sectors. The GUIDs are the same
// on every disk, so one machine must not have two of these disks.
func writeGPT(disk io.WriterAt, size int64, partitions []board.Partition, types map[string]string, entries int) error {
	little := binary.LittleEndian
	sectors := uint64(size / sectorSize)
	if size%sectorSize != 0 || len(partitions) > entries || entries*gptEntrySize%sectorSize != 0 {
		return fmt.Errorf("partition table of %d entries for %d partitions on %d bytes", entries, len(partitions), size)
	}
	tableSectors := uint64(entries * gptEntrySize / sectorSize)
	table := make([]byte, entries*gptEntrySize)
	end := int64(2+tableSectors) * sectorSize
	for i, p := range partitions {
		if p.Offset < end || p.Size <= 0 || (p.Offset|p.Size)%sectorSize != 0 || p.Offset+p.Size > size-(1+gptReserved)*sectorSize {
			return fmt.Errorf("partition %s, %d bytes at %d, does not fit behind byte %d of a disk of %d", p.Name, p.Size, p.Offset, end, size)
		}
		end = p.Offset + p.Size
		e := table[i*gptEntrySize:][:gptEntrySize]
		kind := types[p.Name]
		if kind == "" {
			kind = linuxData
		}
		id, err := guid(kind)
		if err != nil {
			return err
		}
		copy(e, id)
		copy(e[16:], "postern partition")
		e[31] = byte(i)
		little.PutUint64(e[32:], uint64(p.Offset/sectorSize))
		little.PutUint64(e[40:], uint64((p.Offset+p.Size)/sectorSize-1))
		for j, u := range utf16.Encode([]rune(p.Name)) {
			little.PutUint16(e[56+2*j:], u)
		}
	}
	header := func(own, other, at uint64) []byte {
		h := make([]byte, sectorSize)
		copy(h, "EFI PART")
		little.PutUint32(h[8:], 0x10000)
		little.PutUint32(h[12:], 92)
		little.PutUint64(h[24:], own)
		little.PutUint64(h[32:], other)
		little.PutUint64(h[40:], 2+gptReserved)         // the first that a partition may have
		little.PutUint64(h[48:], sectors-2-gptReserved) // and the last
		copy(h[56:], "postern's disk  ")
		little.PutUint64(h[72:], at)
		little.PutUint32(h[80:], uint32(entries))
		little.PutUint32(h[84:], gptEntrySize)
		little.PutUint32(h[88:], crc32.ChecksumIEEE(table))
		little.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
		return h
	}
	// Bytes 446 to 511: one partition over the whole disk, and the signature.
	mbr := make([]byte, sectorSize-446)
	mbr[4] = 0xEE
	little.PutUint16(mbr[1:], 2<<8) // cylinder, head and sector of its first sector: 0, 0, 2
	mbr[5], mbr[6], mbr[7] = 0xFF, 0xFF, 0xFF
	little.PutUint32(mbr[8:], 1)
	little.PutUint32(mbr[12:], uint32(sectors-1))
	mbr[64], mbr[65] = 0x55, 0xAA
	last := sectors - 1
	for _, w := range []struct {
		at   int64
		data []byte
	}{
		{446, mbr},
		{sectorSize, header(1, last, 2)},
		{2 * sectorSize, table},
		{int64(last-gptReserved) * sectorSize, table},
		{int64(last) * sectorSize, header(last, 1, last-gptReserved)},
	} {
		if _, err := disk.WriteAt(w.data, w.at); err != nil {
			return err
		}
	}
	return nil
}
