package board

// Image is how a board's boot loader takes kernel and initramfs.
type Image struct {
	// Form is the form of a slot image: what is at the start of the partition image,
	// image-a or image-b.
	Form Form
	// Load is where in memory the boot loader puts the kernel and begins it, and
	// Ramdisk where it puts the initramfs, if the form asks for one.
	Load, Ramdisk uint64
	// DeviceTrees are those that travel with the kernel: paths below
	// arch/ARCH/boot/dts of its source, without suffix. None if the machine or the
	// boot loader has it.
	DeviceTrees []string
	// BootLoader is what the factory image begins with; none for a board that keeps
	// its own, or that is started by QEMU.
	BootLoader BootLoader
}

// Form is a form of slot image.
type Form string

const (
	// UImage is U-Boot's legacy image (include/image.h of its source), type
	// multi-file: kernel and initramfs, each as it is, under one CRC-32.
	UImage Form = "uImage"
	// FIT is U-Boot's flattened image tree (doc/uImage.FIT there): kernel, initramfs
	// and device trees with hashes, and an RSA signature of the configuration.
	FIT Form = "FIT"
	// Archive is a cpio archive, newc, not compressed, with the files kernel and
	// initramfs: GRUB reads it.
	Archive Form = "cpio"
	// Files is a folder for a boot loader that reads a file system: kernel, initramfs
	// and device trees.
	Files Form = "files"
)

// Slots are the names of the partitions for images on a board that has two of them:
// one runs, an upgrade goes into the other.
var Slots = [2]string{"image-a", "image-b"}

// BootLoader is one that Debian has.
type BootLoader struct {
	// Package is its Debian package, and File the file in it that goes to the start of
	// the partition boot.
	Package, File string
	// Environment are U-Boot's variables, as name=value, that go into the partition
	// environment at the factory. Nothing writes there later.
	Environment []string
}

// Partition returns the partition of a name, and whether there is one.
func (f Flash) Partition(name string) (Partition, bool) {
	for _, p := range f.Partitions {
		if p.Name == name {
			return p, true
		}
	}
	return Partition{}, false
}

// Bank is a part of the flash's file that QEMU takes as one drive.
type Bank struct {
	// Drive is a -drive without file, format, offset and size.
	Drive string
	// Offset and Size are the part of the file, in bytes.
	Offset, Size int64
	// Firmware says that with this bank QEMU begins with the boot loader in it, also if
	// it is given a kernel: without a boot loader the bank is left out.
	Firmware bool
}
