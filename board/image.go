package board

import "embed"

// Image is how a board's boot loader takes kernel and initramfs.
type Image struct {
	// Form is the form of a slot image: what is at the start of the partition image,
	// image-a or image-b.
	Form Form
	// Load is where in memory the boot loader puts the kernel and begins it; 0 if the
	// kernel's file says so itself. Ramdisk is where it puts the initramfs, if the form
	// asks for one.
	Load, Ramdisk uint64
	// RamdiskSize is how many bytes there are for the initramfs where the boot loader
	// has to be told; 0 if not.
	RamdiskSize int64
	// Hardware is the number of the board in a header of TP-Link's.
	Hardware uint32
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
	// FlatUImage is U-Boot's legacy image of one file, packed by LZMA: kernel, device
	// tree and initramfs as they lie in memory, for a boot loader that knows of the
	// kernel alone.
	FlatUImage Form = "uImage of one file"
	// TPLink is the same behind the header, version 1, of TP-Link's boot loaders.
	TPLink Form = "TP-Link v1"
	// ELF is the same as an ELF file, not packed.
	ELF Form = "ELF"
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
	// Source is set for one that is built from a Debian source package, of the version
	// that Package is of: with the configuration Config to the file File, which goes to
	// Offset bytes from the start of a card, in front of all partitions.
	Source, Config string
	Offset         int64
	// Environment are U-Boot's variables, as name=value, that go into the partition
	// environment at the factory. Nothing writes there later.
	Environment []string
	// Command is one of U-Boot's, a single word, that its control device tree is to have
	// it run at the start (doc/device-tree-bindings/config.txt of its source), for a
	// U-Boot that was built without autoboot.
	Command string
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

//go:embed dts/*.dtsi
var deviceTreeChanges embed.FS

// DeviceTreeChanges are lines that follow the board's device tree from the kernel's
// source, where that lacks something; empty for most boards.
func (b Board) DeviceTreeChanges() string {
	text, err := deviceTreeChanges.ReadFile("dts/" + b.Name + ".dtsi")
	if err != nil {
		return "" // there are none
	}
	return string(text)
}
