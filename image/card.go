package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/cache"
)

// cardEntries is the number of entries in the partition table of a card. Allwinner's processors
// read their first program from sector 16 on, where a table of the usual 128 entries would be.
const cardEntries = 56

// bootCommands are the commands of U-Boot on a card.
//
//go:embed boot.cmd
var bootCommands string

// makeCard makes the slot image and the image of the card that a board's U-Boot starts from
// (docs/DISKS.md), and returns the names of the files.
func makeCard(b board.Board, v version, keys, dir, work string) ([]string, error) {
	made := []string{slotImage, factoryImage, ubootKey}
	source, err := sourceForTrees()
	if err != nil {
		return nil, err
	}
	for _, tree := range b.Image.DeviceTrees {
		flat, err := deviceTree(source, b, tree, "", work)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(tree) + ".dtb"
		if err := os.WriteFile(filepath.Join(dir, name), flat, 0o644); err != nil {
			return nil, err
		}
		made = append(made, name)
	}
	slot, err := makeFIT(b, keys, dir, work)
	if err != nil {
		return nil, err
	}
	if int64(len(slot)) > b.ImageLimit {
		return nil, fmt.Errorf("the slot image has %d bytes, its slot takes %d", len(slot), b.ImageLimit)
	}
	if err := writeSlot(dir, slot); err != nil {
		return nil, err
	}
	states, err := slotStates(slot, v)
	if err != nil {
		return nil, err
	}
	script, err := bootScript(b, work)
	if err != nil {
		return nil, err
	}
	boot, _ := b.Flash.Partition("boot")
	files, err := fat(boot.Size, map[string][]byte{"boot.scr": script}, work)
	if err != nil {
		return nil, err
	}
	var start []byte
	if b.Image.BootLoader.Source != "" {
		loader, err := buildUBoot(b)
		if err != nil {
			return nil, err
		}
		start = append(make([]byte, b.Image.BootLoader.Offset), loader...)
		if int64(len(start)) > boot.Offset {
			return nil, fmt.Errorf("U-Boot ends at byte %d, the first partition begins at %d", len(start), boot.Offset)
		}
	}
	return made, writeDisk(filepath.Join(dir, factoryImage), b, start, map[string]string{"boot": basicData}, cardEntries,
		map[string][]byte{"boot": files, board.Slots[0]: slot, board.SlotStates: states})
}

// bootScript returns bootCommands for a board as the script boot.scr that U-Boot runs.
func bootScript(b board.Board, work string) ([]byte, error) {
	number := func(name string) string {
		return fmt.Sprintf("%x", 1+slices.IndexFunc(b.Flash.Partitions, func(p board.Partition) bool { return p.Name == name }))
	}
	commands, script := filepath.Join(work, "boot.cmd"), filepath.Join(work, "boot.scr")
	text := strings.NewReplacer("@STATES@", number(board.SlotStates), "@A@", number(board.Slots[0]), "@B@", number(board.Slots[1]),
		"@COMMANDLINE@", b.Kernel.CommandLine).Replace(bootCommands)
	if err := os.WriteFile(commands, []byte(text), 0o644); err != nil {
		return nil, err
	}
	if err := run("", mkimageEnv, "mkimage", "-A", b.Kernel.Arch, "-T", "script", "-C", "none",
		"-n", "Postern", "-d", commands, script); err != nil {
		return nil, err
	}
	return os.ReadFile(script)
}

// ubootBuildPackages are the Debian packages that are needed to build U-Boot.
var ubootBuildPackages = []string{"swig", "python3-dev", "python3-setuptools", "libssl-dev", "libgnutls28-dev"}

// ubootRecipe is for U-Boot what kernelRecipe is for the kernel.
const ubootRecipe = "1"

// buildUBoot returns the program of a U-Boot that is built for a board from Debian's source.
func buildUBoot(b board.Board) ([]byte, error) {
	loader := b.Image.BootLoader
	version, err := packageVersion(loader.Package)
	if err != nil {
		return nil, err
	}
	compiler, err := compilerVersion(b)
	if err != nil {
		return nil, err
	}
	c, err := cache.Open()
	if err != nil {
		return nil, err
	}
	dir, err := c.Get("u-boot", b.Name, []string{ubootRecipe, version, compiler, loader.Config, loader.File}, func(result, work string) error {
		source, err := debianSource(c, loader.Source, version)
		if err != nil {
			return err
		}
		say("building U-Boot %s for %s", version, b.Name)
		// U-Boot shows the time of its build.
		env := []string{"ARCH=" + b.Kernel.Arch, "CROSS_COMPILE=" + b.CPU.Cross, "SOURCE_DATE_EPOCH=1767225600", "TZ=UTC", "LC_ALL=C"}
		args := []string{"-C", source, "O=" + work, fmt.Sprintf("-j%d", runtime.NumCPU())}
		for _, target := range []string{loader.Config, "all"} {
			if err := run(work, env, "make", append(args, target)...); err != nil {
				return err
			}
		}
		return copyFile(filepath.Join(result, loader.File), filepath.Join(work, loader.File), 0o644)
	})
	if err != nil {
		return nil, fmt.Errorf("U-Boot for %s: %w", b.Name, err)
	}
	return os.ReadFile(filepath.Join(dir, loader.File))
}
