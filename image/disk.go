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

// diskPackages are the Debian packages that a PC's disk is made with: GRUB for BIOS and
// UEFI. fatPackages are those for a FAT file system.
var (
	diskPackages = []string{"grub-common", "grub-pc-bin", "grub-efi-amd64-bin"}
	fatPackages  = []string{"dosfstools", "mtools"}
)

// grubModules are what both of GRUB's images hold: GPT, the archives that slots are, the
// state of slots, the hashes of their files, the Linux loader and the serial line.
var grubModules = []string{"part_gpt", "newc", "memdisk", "normal", "linux", "loadenv", "test", "regexp",
	"hashsum", "gcry_sha256", "serial", "terminal", "echo", "sleep", "reboot"}

// grubEarly is what GRUB does before it has its script: where it was started from goes
// into a variable, and the script is in the archive that its image holds.
const grubEarly = "set boot=$root\nset prefix=(memdisk)\n"

//go:embed grub.cfg
var grubScript string

// makeDisk makes the slot image and the disk that a PC starts from, by BIOS or UEFI:
// docs/DISKS.md has its layout.
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
	// The name is the one that a firmware looks for on a disk of which nobody has told it.
	esp, err := fat(system.Size, map[string][]byte{"EFI/BOOT/BOOTX64.EFI": efi}, work)
	if err != nil {
		return err
	}
	boot, _ := b.Flash.Partition("boot")
	mbr, err := startBIOS(core, boot)
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

// writeDisk writes the image of a disk or card: its first bytes, the partition table
// with types and entries as writeGPT takes them, and what the partitions hold. What is
// written nowhere is a hole in the file.
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

// replaceFile writes a new file in the place of one that a QEMU may be reading.
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

// writePartitions writes contents to the starts of the partitions of these names, into
// a file that is empty there.
func writePartitions(f *os.File, b board.Board, contents map[string][]byte) error {
	for name, data := range contents {
		p, ok := b.Flash.Partition(name)
		if !ok || int64(len(data)) > p.Size {
			return fmt.Errorf("partition %s takes %d bytes, not the %d that are for it", name, p.Size, len(data))
		}
		// Zeros are there already, and stay a hole.
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

// archiveSlot is the slot image that GRUB reads, with the hashes that it checks: a
// kernel that is damaged would stop in its own decompressor for good, where neither a
// panic nor a watchdog brings the other slot.
func archiveSlot(kernel, initramfs []byte) []byte {
	var a newc
	a.add("SHA256SUMS", fmt.Appendf(nil, "%x  kernel\n%x  initramfs\n", sha256.Sum256(kernel), sha256.Sum256(initramfs)))
	a.add("kernel", kernel)
	a.add("initramfs", initramfs)
	return a.end()
}

// slotStates is the partition that tells of the slots: GRUB writes to files in an
// archive, and to nothing else that is as simple. Slot a holds an image that needs no
// proof, slot b none.
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

// grub makes GRUB's images for BIOS and for UEFI, with the script for the board inside.
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
		// A memory disk sets the prefix, so that it comes before --prefix. The root is then
		// the disk that the firmware started from.
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

// startBIOS returns the first sector of a disk, whose code loads the first sector of
// GRUB's image from the partition boot, and tells that one in the image where the rest
// of it is: what grub-bios-setup does (include/grub/i386/pc/boot.h of GRUB's source).
func startBIOS(core []byte, boot board.Partition) ([]byte, error) {
	const (
		kernelSector = 0x5C // in the boot code: where the image's first sector is
		driveCheck   = 0x66 // a jump that believes a BIOS when it says that this is a floppy
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

// fat makes a file system of size bytes that firmware and boot loaders read, FAT16, with
// files at these paths, no two of them below one folder; the folders are made too.
func fat(size int64, files map[string][]byte, work string) ([]byte, error) {
	file, image := filepath.Join(work, "fat-file"), filepath.Join(work, "fat")
	if err := os.WriteFile(image, make([]byte, size), 0o644); err != nil {
		return nil, err
	}
	// FAT32 begins at 33 MB. None of these tools puts the time of now into the result.
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
