package board

// SlotStates is the name of the partition, on boards with two slots on a disk or card,
// that tells of the slots' state. It holds a cpio archive, newc, with the files a and b,
// of which nothing but the contents of these two changes: a boot loader writes there
// without knowing a file system. Each is a text of lines as name=value (docs/DISKS.md).
const SlotStates = "postern-slots"

// SlotStateOffsets are where in that partition the state of each slot is, and
// SlotStateSize the length of one: a sector of any disk, also one of 4096 bytes.
var SlotStateOffsets = [2]int{4096, 12288}

const SlotStateSize = 4096

// DiskSize is the size of a disk's image in bytes: that of the smallest card, a power
// of two as QEMU's are, with room for the copy of the partition table at its end.
func (f Flash) DiskSize() int64 {
	last := f.Partitions[len(f.Partitions)-1]
	size := int64(1 << 20)
	for size < last.Offset+last.Size+1<<20 {
		size *= 2
	}
	return size
}

// pcDisk is that of a PC: GRUB for BIOS, UEFI's system partition, two slots.
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
