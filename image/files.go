package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"github.com/postern-router/postern/board"
)

// piConfig tells the firmware of a Raspberry Pi about the files
// (www.raspberrypi.com/documentation/computers/config_txt.html).
const piConfig = `arm_64bit=1
enable_uart=1
kernel=kernel
initramfs initramfs.cpio.xz followkernel
device_tree=%s
cmdline=cmdline.txt
`

// makeFiles makes the files that a boot loader reads besides kernel and initramfs, and the image
// of a card with all of them. It returns the names of the files.
func makeFiles(b board.Board, dir, work string) ([]string, error) {
	source, err := sourceForTrees()
	if err != nil {
		return nil, err
	}
	tree := b.Image.DeviceTrees[0]
	dtb, err := deviceTree(source, b, tree, "", work)
	if err != nil {
		return nil, err
	}
	treeFile := filepath.Base(tree) + ".dtb"
	files := map[string][]byte{
		treeFile:      dtb,
		"config.txt":  fmt.Appendf(nil, piConfig, treeFile),
		"cmdline.txt": []byte(b.Kernel.CommandLine + "\n"),
	}
	made := []string{treeFile, "config.txt", "cmdline.txt", factoryImage}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"kernel", "initramfs.cpio.xz"} {
		if files[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return made, makeFileDisk(b, files, dir, work)
}

// makeStick makes the image of a stick for a boot loader that loads an ELF file.
func makeStick(b board.Board, image []byte, dir, work string) error {
	// The name that the vendor has set in the boot loader.
	return makeFileDisk(b, map[string][]byte{"vmlinux.64": image}, dir, work)
}

// makeFileDisk makes the image of a disk whose first partition, boot, is a file system with
// these files. Old boot loaders do not know the GPT, so the MBR has that partition too, besides
// the entry that protects the GPT.
func makeFileDisk(b board.Board, files map[string][]byte, dir, work string) error {
	boot, _ := b.Flash.Partition("boot")
	system, err := fat(boot.Size, files, work)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, factoryImage)
	if err := writeDisk(path, b, nil, map[string]string{"boot": basicData}, 128, map[string][]byte{"boot": system}); err != nil {
		return err
	}
	const (
		entries   = 446
		entrySize = 16
		fat16     = 0x0E // by sector numbers
	)
	entry := make([]byte, entrySize)
	entry[4] = fat16
	// Cylinder, head and sector are not used.
	copy(entry[1:], []byte{0xFE, 0xFF, 0xFF})
	copy(entry[5:], []byte{0xFE, 0xFF, 0xFF})
	binary.LittleEndian.PutUint32(entry[8:], uint32(boot.Offset/sectorSize))
	binary.LittleEndian.PutUint32(entry[12:], uint32(boot.Size/sectorSize))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// The first entry is the file system, the second protects the sectors before it.
	protect := make([]byte, entrySize)
	if _, err := f.ReadAt(protect, entries); err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(protect[12:], uint32(boot.Offset/sectorSize-1))
	if _, err := f.WriteAt(append(entry, protect...), entries); err != nil {
		return err
	}
	return f.Close()
}
