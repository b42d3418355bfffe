package board

// SlotStates is the name of the partition with the state of the slots, on boards with two slots
// on a disk or card. It has a cpio archive, newc, with the files a and b, so that a boot loader
// can write to them without a file system: only their contents change. Each has lines of
// name=value (docs/DISKS.md).
const SlotStates = "postern-slots"

// SlotStateOffsets are the offsets of the two states in that partition, and SlotStateSize is
// the size of each, in bytes: one sector even of a disk with sectors of 4096 bytes.
var SlotStateOffsets = [2]int{4096, 12288}

const SlotStateSize = 4096

// DiskSize returns the size of a disk's image in bytes. It is a power of two, which QEMU needs
// for a card, with room for the second partition table at its end.
func (f Flash) DiskSize() int64 {
	last := f.Partitions[len(f.Partitions)-1]
	size := int64(1 << 20)
	for size < last.Offset+last.Size+1<<20 {
		size *= 2
	}
	return size
}

// pcDisk is the disk of a PC: GRUB for BIOS, the system partition for UEFI, two slots.
func pcDisk() Flash {
	return Flash{Partitions: []Partition{
		{"boot", 1 << 20, 1 << 20},
		{"efi", 2 << 20, 8 << 20},
		{Slots[0], 10 << 20, slotSize},
		{Slots[1], 34 << 20, slotSize},
		{ConfigurationPartition, 58 << 20, 1 << 20},
		{StatePartition, 59 << 20, 1 << 20},
		{SlotStates, 60 << 20, 1 << 20},
	}}
}
