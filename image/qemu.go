package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/postern-router/postern/board"
)

// qemuCommand returns the command that starts a board's image, in the folder out/BOARD, in
// QEMU: a shell command in several lines. The serial line is the terminal that it is typed
// at. Each port is on a network of QEMU's own (-netdev user); on the LAN's this machine is
// 192.168.0.2. With -snapshot the image file stays as it was built.
//
// A board with a disk or a card starts by its boot loader, one with a flash chip by the
// kernel: what its boot loader needs, package qemu alone prepares.
func qemuCommand(b board.Board, out string) (string, error) {
	q := b.QEMU
	if q.Machine == "" {
		return "", fmt.Errorf("%s: QEMU has no machine like it", b.Name)
	}
	file := func(name string) string { return filepath.Join(out, b.Name, name) }
	// A Malta would have a graphics card where ether1 is.
	lines := [][]string{{q.Binary, "-nographic", "-vga", "none", "-snapshot", "-machine", q.Machine, "-m", fmt.Sprint(b.Memory)}}
	add := func(words ...string) { lines = append(lines, words) }
	if q.CPU != "" {
		add("-cpu", q.CPU)
	}
	onChip := b.Flash.Chip != ""
	if onChip {
		add("-kernel", file("kernel"), "-initrd", file("initramfs.cpio.xz"))
		add("-append", b.Kernel.CommandLine)
	}
	for _, bank := range q.Banks {
		if bank.Firmware && onChip {
			continue // else QEMU begins with the boot loader in it
		}
		part := ""
		if bank.Size < q.FlashSize {
			part = fmt.Sprintf("offset=%d,size=%d,", bank.Offset, bank.Size)
		}
		add("-drive", fmt.Sprintf("%s,format=raw,%sfile=%s", bank.Drive, part, file(factoryImage)))
	}
	for _, device := range []string{q.FlashDevice, q.Watchdog} {
		if device != "" {
			add("-device", device)
		}
	}
	for _, p := range b.Ports {
		if p.QEMU == "" {
			continue // a port that the machine is without
		}
		network := "user,id=" + p.Name
		if p.Name == b.LAN {
			network += ",net=192.168.0.0/24,host=192.168.0.2"
		}
		if p.OnBoard {
			add("-netdev", network, "-net", fmt.Sprintf("nic,model=%s,netdev=%s", p.QEMU, p.Name))
		} else {
			add("-netdev", network, "-device", fmt.Sprintf("%s,netdev=%s", p.QEMU, p.Name))
		}
	}
	var command strings.Builder
	for i, words := range lines {
		if i > 0 {
			command.WriteString(" \\\n   ")
		}
		for j, w := range words {
			if i > 0 || j > 0 {
				command.WriteByte(' ')
			}
			command.WriteString(shellQuote(w))
		}
	}
	return command.String() + "\n", nil
}

// plainWord matches a word that a shell takes as it is.
var plainWord = regexp.MustCompile(`^[\w./,=:@%+-]+$`)

// shellQuote returns a word as it is typed at a POSIX shell.
func shellQuote(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
