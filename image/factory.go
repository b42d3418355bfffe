package main

import (
	"fmt"

	"github.com/postern-router/postern/board"
)

// Files that makeImages writes besides kernel and initramfs.
const (
	// slotImage is what the boot loader starts and an upgrade replaces: the start of the
	// partition image, image-a or image-b.
	slotImage = "slot.img"
	// factoryImage is the whole flash or disk of a new board.
	factoryImage = "factory.img"
)

// makeImages makes the images that are written to the board's flash from the kernel and the
// initramfs in the folder dir, into dir. It returns the names of the files.
func makeImages(b board.Board, v version, keys, dir, work string) ([]string, error) {
	switch b.Image.Form {
	case board.Archive:
		if err := makeDisk(b, v, dir, work); err != nil {
			return nil, fmt.Errorf("disk for %s: %w", b.Name, err)
		}
		return []string{slotImage, factoryImage}, nil
	case board.UImage, board.FIT:
		if b.Flash.Chip == "" {
			made, err := makeCard(b, v, keys, dir, work)
			if err != nil {
				return nil, fmt.Errorf("card for %s: %w", b.Name, err)
			}
			return made, nil
		}
		made, err := makeUBoot(b, v, keys, dir, work)
		if err != nil {
			return nil, fmt.Errorf("images for %s's U-Boot: %w", b.Name, err)
		}
		return made, nil
	case board.FlatUImage, board.TPLink, board.ELF:
		made, err := makeFlat(b, dir, work)
		if err != nil {
			return nil, fmt.Errorf("image for %s: %w", b.Name, err)
		}
		return made, nil
	case board.Files:
		made, err := makeFiles(b, dir, work)
		if err != nil {
			return nil, fmt.Errorf("files for %s: %w", b.Name, err)
		}
		return made, nil
	}
	return nil, fmt.Errorf("image for %s: unknown form %q", b.Name, b.Image.Form)
}
