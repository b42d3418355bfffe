package main

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/postern-router/postern/board"
)

// diskPackages are the Debian packages of GRUB for BIOS and UEFI, and fatPackages those of the
// programs that make a FAT file system.
var (
	diskPackages = []string{"grub-common", "grub-pc-bin", "grub-efi-amd64-bin"}
	fatPackages  = []string{"dosfstools", "mtools"}
)

// grubModules are in GRUB's images for BIOS and for UEFI. They read partitions, slots and the
// state of slots, check hashes, load Linux and use the serial line.
var grubModules = []string{"part_gpt", "newc", "memdisk", "normal", "linux", "loadenv", "test", "regexp",
	"hashsum", "gcry_sha256", "serial", "terminal", "echo", "sleep", "reboot"}

// grubEarly are the commands that GRUB runs before its script: they keep the partition that
// GRUB started from in a variable, and set the place of the script, an archive in GRUB's image.
const grubEarly = "set boot=$root\nset prefix=(memdisk)\n"

//go:embed grub.cfg
var grubScript string

// makeDisk makes the slot image and the image of the disk that a PC starts from, by BIOS or UEFI
// (docs/DISKS.md).
func makeDisk(b board.Board, v version, dir, work string) error {
	kernel, err := os.ReadFile(filepath.Join(dir, "kernel"))
	if err != nil {
		return err
	}
	initramfs, err := os.ReadFile(filepath.Join(dir, "initramfs.cpio.xz"))
	if err != nil {
		return err
	}
	slot := archiveSlot(kernel, initramfs)
	states, err := slotStates(slot, v)
	if err != nil {
		return err
	}
	core, efi, err := grub(b, work)
	if err != nil {
		return err
	}
	system, _ := b.Flash.Partition("efi")
	// The path that a firmware tries on a disk without a boot entry.
	esp, err := fat(system.Size, map[string][]byte{"EFI/BOOT/BOOTX64.EFI": efi}, work)
	if err != nil {
		return err
	}
	boot, _ := b.Flash.Partition("boot")
	mbr, err := biosBootSector(core, boot)
	if err != nil {
		return err
	}
	if err := writeSlot(dir, slot); err != nil {
		return err
	}
	return writeDisk(filepath.Join(dir, factoryImage), b, mbr, map[string]string{"boot": grubBoot, "efi": efiSystem}, 128,
		map[string][]byte{"boot": core, "efi": esp, board.Slots[0]: slot, board.SlotStates: states})
}

func writeSlot(dir string, slot []byte) error {
	return replaceFile(filepath.Join(dir, slotImage), func(f *os.File) error {
		_, err := f.Write(slot)
		return err
	})
}

// writeDisk writes the image of a disk or card to path: start at its first byte, the partition
// table, and the contents of partitions by name. types and entries are those of writeGPT. The
// rest of the file is a hole.
func writeDisk(path string, b board.Board, start []byte, types map[string]string, entries int, contents map[string][]byte) error {
	size := b.Flash.DiskSize()
	return replaceFile(path, func(f *os.File) error {
		if err := f.Truncate(size); err != nil {
			return err
		}
		if _, err := f.WriteAt(start, 0); err != nil {
			return err
		}
		if err := writeGPT(f, size, b.Flash.Partitions, types, entries); err != nil {
			return err
		}
		return writePartitions(f, b, contents)
	})
}

// replaceFile writes a file and then renames it to path, where a running QEMU may be reading
// the old one.
func replaceFile(path string, write func(*os.File) error) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	err = write(f)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// writePartitions writes contents, by the names of partitions, to the starts of these, which
// are holes in the file.
func writePartitions(f *os.File, b board.Board, contents map[string][]byte) error {
	for name, data := range contents {
		p, ok := b.Flash.Partition(name)
		if !ok || int64(len(data)) > p.Size {
			return fmt.Errorf("partition %s takes %d bytes, not %d", name, p.Size, len(data))
		}
		// Zeros stay a hole.
		const block = 4096
		zeros := make([]byte, block)
		for at := 0; at < len(data); at += block {
			part := data[at:min(at+block, len(data))]
			if bytes.Equal(part, zeros[:len(part)]) {
				continue
			}
			if _, err := f.WriteAt(part, p.Offset+int64(at)); err != nil {
				return err
			}
		}
	}
	return nil
}

// archiveSlot returns the slot image that GRUB reads, with the hashes that it checks. Without a
// check a damaged kernel would hang in its own decompressor, where neither a panic nor a
// watchdog restarts the machine with the other slot.
func archiveSlot(kernel, initramfs []byte) []byte {
	var a newc
	a.add("SHA256SUMS", fmt.Appendf(nil, "%x  kernel\n%x  initramfs\n", sha256.Sum256(kernel), sha256.Sum256(initramfs)))
	a.add("kernel", kernel)
	a.add("initramfs", initramfs)
	return a.end()
}

// slotStates returns the contents of the partition with the slots' states: slot a has a
// confirmed image, slot b none. It is an archive since that is the simplest form that GRUB
// can write to.
func slotStates(slot []byte, v version) ([]byte, error) {
	var a newc
	for i, text := range []string{
		fmt.Sprintf("magic=PST1\nsequence=1\ntried=1\nconfirmed=1\nlength=%d\nsha256=%x\nversion=%s\n", len(slot), sha256.Sum256(slot), v.name),
		"magic=none\n",
	} {
		state := bytes.Repeat([]byte{'#'}, board.SlotStateSize)
		copy(state, "# GRUB Environment Block\n"+text)
		if err := a.addAt(string("ab"[i]), board.SlotStateOffsets[i], state); err != nil {
			return nil, err
		}
	}
	return a.end(), nil
}

// grub returns GRUB's images for BIOS and for UEFI, which contain the script for the board.
func grub(b board.Board, work string) (core, efi []byte, err error) {
	number := func(name string) int {
		return 1 + slices.IndexFunc(b.Flash.Partitions, func(p board.Partition) bool { return p.Name == name })
	}
	t, err := template.New("grub.cfg").Parse(grubScript)
	if err != nil {
		return nil, nil, err
	}
	var script bytes.Buffer
	if err := t.Execute(&script, struct {
		CommandLine  string
		A, B, States int
	}{b.Kernel.CommandLine, number(board.Slots[0]), number(board.Slots[1]), number(board.SlotStates)}); err != nil {
		return nil, nil, err
	}
	var memdisk newc
	memdisk.add("grub.cfg", script.Bytes())
	early, archive := filepath.Join(work, "grub-early.cfg"), filepath.Join(work, "grub-memdisk")
	if err := os.WriteFile(early, []byte(grubEarly), 0o644); err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(archive, memdisk.end(), 0o644); err != nil {
		return nil, nil, err
	}
	image := func(format string, modules ...string) ([]byte, error) {
		out := filepath.Join(work, "grub-"+format)
		// --memdisk sets the prefix too, so --prefix follows it. Then GRUB's root is the disk
		// that the firmware started from.
		args := append([]string{"--format=" + format, "--output=" + out, "--config=" + early, "--memdisk=" + archive,
			fmt.Sprintf("--prefix=(,gpt%d)/", number(board.SlotStates))}, grubModules...)
		if err := run("", nil, "grub-mkimage", append(args, modules...)...); err != nil {
			return nil, err
		}
		return os.ReadFile(out)
	}
	if core, err = image("i386-pc", "biosdisk"); err != nil {
		return nil, nil, err
	}
	efi, err = image("x86_64-efi")
	return core, efi, err
}

// biosBootSector returns the first sector of a disk. Its code loads the first sector of core,
// GRUB's image, from the partition boot. It also writes into core where the rest of core is.
// grub-bios-setup does the same (include/grub/i386/pc/boot.h of GRUB's source).
func biosBootSector(core []byte, boot board.Partition) ([]byte, error) {
	const (
		kernelSector = 0x5C // in the boot code: where the image's first sector is
		driveCheck   = 0x66 // a jump that trusts a BIOS that calls this disk a floppy
		firstBlock   = sectorSize - 12
	)
	mbr, err := os.ReadFile("/usr/lib/grub/i386-pc/boot.img")
	if err != nil {
		return nil, fmt.Errorf("GRUB's boot code (Debian package grub-pc-bin): %w", err)
	}
	if len(mbr) != sectorSize || len(core) <= sectorSize || int64(len(core)) > boot.Size {
		return nil, fmt.Errorf("GRUB's boot code has %d bytes and its image %d; want %d, and more than that but at most %d",
			len(mbr), len(core), sectorSize, boot.Size)
	}
	little := binary.LittleEndian
	at := uint64(boot.Offset / sectorSize)
	little.PutUint64(mbr[kernelSector:], at)
	mbr[driveCheck], mbr[driveCheck+1] = 0x90, 0x90
	little.PutUint64(core[firstBlock:], at+1)
	return mbr, nil
}

// fat returns a FAT16 file system of size bytes, which firmware and boot loaders can read, with
// files by their paths. Folders are made; no two files may be in one folder.
func fat(size int64, files map[string][]byte, work string) ([]byte, error) {
	file, image := filepath.Join(work, "fat-file"), filepath.Join(work, "fat")
	if err := os.WriteFile(image, make([]byte, size), 0o644); err != nil {
		return nil, err
	}
	// None of these tools writes the current time into the result.
	if err := run("", nil, "mkfs.vfat", "--invariant", "-F", "16", "-s", "1", "-i", "504F5354", "-n", "POSTERN", image); err != nil {
		return nil, err
	}
	env := []string{"SOURCE_DATE_EPOCH=1767225600", "TZ=UTC", "MTOOLS_NO_VFAT=1"}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(file, files[path], 0o644); err != nil {
			return nil, err
		}
		folders := strings.Split(path, "/")
		for i := 1; i < len(folders); i++ {
			if err := run("", env, "mmd", "-i", image, "::"+strings.Join(folders[:i], "/")); err != nil {
				return nil, err
			}
		}
		if err := run("", env, "mcopy", "-i", image, file, "::"+path); err != nil {
			return nil, err
		}
	}
	return os.ReadFile(image)
}
