package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/cache"
)

// deviceTreePackage is the Debian package of dtc, the compiler of device trees.
const deviceTreePackage = "device-tree-compiler"

// deviceTree compiles one of the board's device trees and returns the flattened tree. source is
// the folder of the kernel's source, tree an element of Image.DeviceTrees. The board's
// DeviceTreeChanges are added, and the lines in chosen to the node of that name.
//
// The commands are those of the kernel's make (scripts/Makefile.lib), which would configure a
// kernel first.
func deviceTree(source string, b board.Board, tree, chosen, work string) ([]byte, error) {
	file := filepath.Join(work, strings.ReplaceAll(tree, "/", "-"))
	text := fmt.Sprintf("#include <%s/%s.dts>\n%s/ {\n\tchosen {\n%s\t};\n};\n", b.Kernel.Arch, tree, b.DeviceTreeChanges(), chosen)
	if err := os.WriteFile(file+".dts", []byte(text), 0o644); err != nil {
		return nil, err
	}
	if err := run(work, nil, "gcc", "-E", "-nostdinc", "-undef", "-D__DTS__", "-x", "assembler-with-cpp",
		"-I", filepath.Join(source, "scripts/dtc/include-prefixes"), "-o", file+".cpp", file+".dts"); err != nil {
		return nil, fmt.Errorf("device tree %s: %w", tree, err)
	}
	// -q: warnings about the kernel's own trees are not ours to mend.
	if err := run(work, nil, "dtc", "-q", "-I", "dts", "-O", "dtb", "-b", "0",
		"-i", filepath.Join(source, "arch", b.Kernel.Arch, "boot/dts", filepath.Dir(tree)),
		"-o", file+".dtb", file+".cpp"); err != nil {
		return nil, fmt.Errorf("device tree %s: %w", tree, err)
	}
	return os.ReadFile(file + ".dtb")
}

// sourceForTrees returns the folder of the kernel's source, for deviceTree.
func sourceForTrees() (string, error) {
	c, err := cache.Open()
	if err != nil {
		return "", err
	}
	version, err := packageVersion(linuxSource)
	if err != nil {
		return "", err
	}
	return kernelSource(c, version)
}
