package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/postern-router/postern/board"
)

// ubootKey is the device tree with the key that U-Boot asks for, by package image.
const ubootKey = "uboot-key.dtb"

// controlTree returns QEMU's arguments for the device tree that U-Boot is controlled by
// and hands on to the kernel: the machine's own, and in it the key by which images must
// be signed. A board with flash of its own would have it behind U-Boot's program.
func controlTree(b board.Board, dir string, o machineOptions) ([]string, error) {
	own, tree := filepath.Join(dir, "machine.dtb"), filepath.Join(dir, "control.dtb")
	args := []string{"-nodefaults", "-display", "none", "-m", strconv.Itoa(b.Memory), "-cpu", b.QEMU.CPU,
		// With firmware the machine has other devices: on ARMv8 no GPIO block.
		"-bios", b.Image.BootLoader.File,
		// Else there is a seed for the kernel in it, which would be the same at each start.
		"-machine", b.QEMU.Machine + ",dtb-randomness=off,dumpdtb=" + own}
	if out, err := exec.Command(b.QEMU.Binary, args...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("device tree of QEMU's %s: %w: %s", b.QEMU.Machine, err, out)
	}
	var source strings.Builder
	for i, part := range []string{own, filepath.Join(o.image, ubootKey)} {
		text, err := exec.Command("dtc", "-q", "-I", "dtb", "-O", "dts", part).Output()
		if err != nil {
			return nil, fmt.Errorf("dtc of %s: %w", part, err)
		}
		// What a second node of the same path has is added to the first.
		if i > 0 {
			text = []byte(strings.TrimPrefix(string(text), "/dts-v1/;\n"))
		}
		source.Write(text)
	}
	cmd := exec.Command("dtc", "-q", "-I", "dts", "-O", "dtb", "-o", tree)
	cmd.Stdin = strings.NewReader(source.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("device tree with a key: %w: %s", err, out)
	}
	return []string{"-dtb", tree}, nil
}

// swapped is a flash of which QEMU takes the first bytes for words in the other byte
// order, once, when it starts. What the router writes then arrives in the file as it is.
// So the file is in the other order while the machine runs, but for what was written.
type swapped struct {
	path  string
	given []byte
}

// swapFlash puts the file of a board's flash into the order that QEMU takes it in.
func swapFlash(b board.Board, path string) (swapped, error) {
	s := swapped{path: path}
	if b.QEMU.Swapped == 0 {
		return s, nil
	}
	return s, s.edit(b.QEMU.Swapped, func(data []byte) {
		swapWords(data)
		s.given = append([]byte(nil), data...)
	})
}

// restore puts the file into the router's order, when QEMU has ended. A word that is not
// as QEMU was given it was written by the router.
func (s swapped) restore() error {
	return s.edit(int64(len(s.given)), func(data []byte) {
		for at := 0; at < len(data); at += 4 {
			if word := data[at:][:4]; string(word) == string(s.given[at:][:4]) {
				swapWords(word)
			}
		}
	})
}

// edit changes the first bytes of the file.
func (s swapped) edit(size int64, change func([]byte)) error {
	if size == 0 {
		return nil
	}
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	data := make([]byte, size)
	if _, err = io.ReadFull(f, data); err == nil {
		change(data)
		_, err = f.WriteAt(data, 0)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("flash %s: %w", s.path, err)
	}
	return nil
}

func swapWords(data []byte) {
	for at := 0; at+4 <= len(data); at += 4 {
		word := data[at:]
		binary.LittleEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
}
