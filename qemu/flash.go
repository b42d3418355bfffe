package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/postern-router/postern/board"
)

// Files of an image folder, by package image.
const (
	slotImage    = "slot.img"
	factoryImage = "factory.img"
)

// makeFlash makes the file of a board's flash, as it comes from the factory, if there is
// none, and reports whether it did. A disk is always the image's, for its partition
// table. A chip is blank, unless the boot loader in it is to start the machine: then its
// blank parts are 0xFF, as a real chip's.
func makeFlash(b board.Board, o machineOptions, path string) (made bool, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = f.Truncate(b.QEMU.FlashSize)
	if err == nil && (o.fromFlash || b.Flash.Chip == "") {
		err = copySparse(f, filepath.Join(o.image, factoryImage), b.QEMU.FlashSize)
	}
	return true, errors.Join(err, f.Close())
}

// copySparse copies a file of size bytes into one of as many zeros, which stay a hole
// where the copied one has zeros.
func copySparse(to *os.File, path string, size int64) error {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	if info, err := from.Stat(); err != nil || info.Size() != size {
		return errors.Join(err, fmt.Errorf("%s has not the %d bytes of the board's flash", path, size))
	}
	block, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; at += int64(len(block)) {
		n, err := io.ReadFull(from, block)
		if !bytes.Equal(block[:n], zeros[:n]) {
			if _, err := to.WriteAt(block[:n], at); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// bootArguments are what tells QEMU what to begin with: the kernel, or the firmware
// that finds a boot loader on the flash.
func bootArguments(b board.Board, dir string, o machineOptions) ([]string, error) {
	memory := cmp.Or(o.memory, b.Memory)
	var args []string
	switch {
	case !o.fromFlash:
		initramfs, err := addConfiguration(o, dir)
		if err != nil {
			return nil, fmt.Errorf("configuration for %s: %w", b.Name, err)
		}
		args = []string{"-kernel", filepath.Join(o.image, "kernel"), "-initrd", initramfs,
			"-append", strings.TrimSpace(b.Kernel.CommandLine + " " + o.commandLine)}
		for _, tree := range b.Image.DeviceTrees {
			args = append(args, "-dtb", filepath.Join(o.image, filepath.Base(tree)+".dtb"))
		}
	case o.commandLine != "":
		return nil, fmt.Errorf("command line %q: the boot loader has its own", o.commandLine)
	case o.uefi:
		// OVMF itself takes 64 MB and more.
		memory = max(memory, 256)
		variables := filepath.Join(dir, "uefi-variables")
		if err := copyFile(variables, ovmfVariables); err != nil {
			return nil, fmt.Errorf("UEFI's variables (Debian package ovmf): %w", err)
		}
		args = []string{"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + ovmfCode,
			"-drive", "if=pflash,unit=1,format=raw,file=" + variables}
	case b.Image.Form == board.FIT && b.Flash.Chip != "":
		tree, err := controlTree(b, dir, o)
		if err != nil {
			return nil, err
		}
		args = tree
	}
	if o.fromFlash && b.QEMU.BootMemory != 0 {
		memory = b.QEMU.BootMemory
	}
	return append(args, "-m", strconv.Itoa(memory)), nil
}

// OVMF, UEFI for QEMU's PCs.
const (
	ovmfCode      = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVariables = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

// slotMagic is the end of a slot of the store that was written whole.
const slotMagic = "POSTERN\n"

// keep puts a configuration into the first slot of the flash's partition for it, in the
// form that package store documents.
func keep(b board.Board, flash string, sequence uint64, text string) error {
	p, ok := b.Flash.Partition(board.ConfigurationPartition)
	if !ok {
		return fmt.Errorf("board %s has no partition %s", b.Name, board.ConfigurationPartition)
	}
	slot := bytes.Repeat([]byte{0xFF}, slotSize(b))
	if len(text) > len(slot)-32 {
		return fmt.Errorf("a configuration of %d bytes for a slot of %d", len(text), len(slot))
	}
	copy(slot, text)
	big := binary.BigEndian
	footer := slot[len(slot)-32:]
	clear(footer)
	big.PutUint64(footer, sequence)
	big.PutUint32(footer[8:], uint32(len(text)))
	big.PutUint32(footer[12:], uint32(len(text)))
	footer[19] = 1 // the version
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(crc32.Checksum(footer[:20], castagnoli), castagnoli, []byte(text))
	big.PutUint32(footer[20:], sum)
	copy(footer[24:], slotMagic)
	f, err := os.OpenFile(flash, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(slot, p.Offset)
	return errors.Join(err, f.Close())
}

// slotSize is that of the store on a board's flash: at least 64 KiB, and an erase
// block.
func slotSize(b board.Board) int {
	if p, _ := b.Flash.Partition(board.ConfigurationPartition); b.Flash.Chip != "" {
		return int(p.Size) / 2
	}
	return 64 << 10
}
