package board

import "embed"

// Image says how a board's boot loader takes kernel and initramfs.
type Image struct {
	// Form is the format of a slot image, which is written to the partition image, image-a or
	// image-b.
	Form Form
	// Load is the address in memory where the boot loader puts and starts the kernel; 0 if the
	// kernel's file has it. Ramdisk is the address of the initramfs, if the form needs one.
	Load, Ramdisk uint64
	// RamdiskSize is the number of bytes at Ramdisk, if it is fixed; else 0.
	RamdiskSize int64
	// Hardware is the board's number in TP-Link's header.
	Hardware uint32
	// DeviceTrees are the device trees in the image: paths below arch/ARCH/boot/dts of the
	// kernel's source, without suffix. None if the boot loader or QEMU provides the tree.
	DeviceTrees []string
	// BootLoader is the boot loader in the factory image; none for a board that keeps its own,
	// or that QEMU starts by its kernel.
	BootLoader BootLoader
}

// Form is a format of slot images.
type Form string

const (
	// UImage is U-Boot's legacy image (include/image.h of its source) of the type multi-file:
	// kernel and initramfs, with one CRC-32.
	UImage Form = "uImage"
	// FIT is U-Boot's flattened image tree (doc/uImage.FIT of its source): kernel, initramfs and
	// device trees with hashes, and an RSA signature of the configuration.
	FIT Form = "FIT"
	// Archive is a cpio archive for GRUB: newc, not compressed, with the files kernel and
	// initramfs and their hashes.
	Archive Form = "cpio"
	// FlatUImage is U-Boot's legacy image of one file, packed by LZMA: kernel, device tree and
	// initramfs as they are in memory, for a boot loader that only knows kernels.
	FlatUImage Form = "uImage of one file"
	// TPLink is the same with the header of TP-Link's boot loaders, version 1.
	TPLink Form = "TP-Link v1"
	// ELF is the same in an ELF file, not packed.
	ELF Form = "ELF"
	// Files are separate files for a boot loader that reads a file system: kernel, initramfs and
	// device trees.
	Files Form = "files"
)

// Slots are the names of the partitions for images on a board with two of them: one image runs,
// an upgrade replaces the other.
var Slots = [2]string{"image-a", "image-b"}

// BootLoader is a boot loader from Debian.
type BootLoader struct {
	// Package is its Debian package. File is the file in it that is written to the start of the
	// partition boot.
	Package, File string
	// Source, if set, is a Debian source package from which it is built instead, in the version
	// of Package, with the configuration Config. The result is the file File, which is written to
	// a card at Offset in bytes, before all partitions.
	Source, Config string
	Offset         int64
	// Environment are U-Boot's variables, as name=value, in the partition environment of the
	// factory image. Nothing writes there later.
	Environment []string
	// Command is a command of one word that U-Boot runs at its start, for a U-Boot that was
	// built without autoboot. It is written into the control device tree
	// (doc/device-tree-bindings/config.txt of its source).
	Command string
}

// Partition returns the partition of that name, and whether there is one.
func (f Flash) Partition(name string) (Partition, bool) {
	for _, p := range f.Partitions {
		if p.Name == name {
			return p, true
		}
	}
	return Partition{}, false
}

// Bank is a part of the flash's file that is one drive in QEMU.
type Bank struct {
	// Drive is the argument of -drive without file, format, offset and size.
	Drive string
	// Offset and Size are the part of the file, in bytes.
	Offset, Size int64
	// Firmware is whether QEMU, with this bank, starts the boot loader in it even if it has a
	// kernel to start. To start a kernel the bank is left out.
	Firmware bool
}

//go:embed dts/*.dtsi
var deviceTreeChanges embed.FS

// DeviceTreeChanges returns lines to append to the board's device tree from the kernel's source,
// where that lacks something; "" for most boards.
func (b Board) DeviceTreeChanges() string {
	text, err := deviceTreeChanges.ReadFile("dts/" + b.Name + ".dtsi")
	if err != nil {
		return "" // there are none
	}
	return string(text)
}
