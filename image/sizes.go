package main

import (
	"cmp"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-router/postern/board"
)

// topPackages is how many packages of the Go program a table lists.
const topPackages = 15

// part is a share of an image.
type part struct {
	name string
	// raw is its size in the router's memory and packed its size on flash, in bytes; 0 where
	// that has no meaning.
	raw, packed int64
}

// sizes are the sizes of an image's parts.
type sizes struct {
	board board.Board
	parts []part
	// packages are those of the Go program, the largest first; nil unless asked for.
	packages []part
	total    int64
}

// String returns a table of the parts and of the room left on flash.
func (s sizes) String() string {
	var b strings.Builder
	line := func(p part) {
		raw, packed := "-", "-"
		if p.raw > 0 {
			raw = fmt.Sprint(p.raw)
		}
		if p.packed > 0 {
			packed = fmt.Sprint(p.packed)
		}
		fmt.Fprintf(&b, "  %-50s %12s %12s\n", p.name, raw, packed)
	}
	fmt.Fprintf(&b, "%s\n  %-50s %12s %12s\n", s.board.Name, "part", "unpacked", "on flash")
	for _, p := range s.parts {
		line(p)
	}
	line(part{"image", 0, s.total})
	if limit := s.board.ImageLimit; limit > 0 {
		line(part{"limit", 0, limit})
		fmt.Fprintf(&b, "  %-50s %12s %12d\n", "room", "", limit-s.total)
	}
	if s.packages != nil {
		fmt.Fprintf(&b, "  The Go program; the size of a package on flash is estimated from the whole:\n")
		for _, p := range s.packages {
			line(part{"  " + p.name, p.raw, p.packed})
		}
	}
	return b.String()
}

// measure finds the size of an image and of what can be told apart without packing it again. slot is the
// path of the slot image, or "" for a board without one.
func measure(b board.Board, kernel, initramfs, slot string) (sizes, error) {
	s := sizes{board: b}
	kernelSize, err := fileSize(kernel)
	if err != nil {
		return s, err
	}
	initramfsSize, err := fileSize(initramfs)
	if err != nil {
		return s, err
	}
	s.total = kernelSize + initramfsSize
	if slot != "" {
		if s.total, err = fileSize(slot); err != nil {
			return s, err
		}
	}
	if packsKernel(b) {
		s.parts = append(s.parts, part{"kernel, device tree, padding", 0, s.total - initramfsSize})
	} else {
		s.parts = append(s.parts, part{"kernel", 0, kernelSize})
		if rest := s.total - kernelSize - initramfsSize; rest > 0 {
			s.parts = append(s.parts, part{"headers, device trees, padding", 0, rest})
		}
	}
	s.parts = append(s.parts, part{"initramfs, with", 0, initramfsSize})
	return s, nil
}

func fileSize(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// packsKernel reports whether the kernel is packed only when the slot image is made. The
// kernel's file is then larger than its part of the image: it has symbols.
func packsKernel(b board.Board) bool {
	switch b.Image.Form {
	case board.FlatUImage, board.TPLink, board.ELF:
		return true
	}
	return false
}

// detailed adds the two programs, and the packages of the Go program. Each program is packed alone, so that the
// sum is a little more than the whole. It links the Go program again, with symbols.
func (s sizes) detailed(work, program, xtables string) (sizes, error) {
	var packed int64 // of the Go program
	for _, p := range []struct{ name, path string }{{"  Go program", program}, {"  iptables", xtables}} {
		alone := filepath.Join(work, "part-"+filepath.Base(p.path))
		if err := copyFile(alone, p.path, 0o644); err != nil {
			return s, err
		}
		xz, err := compress(alone)
		if err != nil {
			return s, err
		}
		added := part{name: p.name}
		if added.raw, err = fileSize(p.path); err != nil {
			return s, err
		}
		if added.packed, err = fileSize(xz); err != nil {
			return s, err
		}
		s.parts = append(s.parts, added)
		if p.path == program {
			packed = added.packed
		}
	}
	withSymbols := filepath.Join(work, "postern-symbols")
	if err := compileProgram(s.board, work, withSymbols, "-buildid="); err != nil {
		return s, err
	}
	packages, err := packageSizes(withSymbols)
	if err != nil {
		return s, err
	}
	var raw int64
	for _, p := range packages {
		raw += p.raw
	}
	rest := part{name: "the other packages"}
	for i, p := range packages {
		p.packed = p.raw * packed / max(1, raw)
		if i < topPackages {
			s.packages = append(s.packages, p)
		} else {
			rest.raw += p.raw
			rest.packed += p.packed
		}
	}
	s.packages = append(s.packages, rest)
	return s, nil
}

// packageSizes sums the sizes of a Go program's symbols by package, the largest first. Bytes
// that belong to no package, such as tables of the linker, are summed by section.
func packageSizes(program string) ([]part, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	left := map[elf.SectionIndex]int64{}
	for i, section := range f.Sections {
		if section.Flags&elf.SHF_ALLOC != 0 && section.Type != elf.SHT_NOBITS {
			left[elf.SectionIndex(i)] = int64(section.Size)
		}
	}
	sums := map[string]int64{}
	type place struct{ at, size uint64 }
	counted := map[place]bool{}
	for _, s := range symbols {
		there := place{s.Value, s.Size}
		if left[s.Section] <= 0 || s.Size == 0 || counted[there] {
			continue
		}
		if name := packageOf(s.Name); name != "" {
			counted[there] = true
			size := min(int64(s.Size), left[s.Section])
			sums[name] += size
			left[s.Section] -= size
		}
	}
	for i, size := range left {
		sums["section "+f.Sections[i].Name] += size
	}
	var parts []part
	for name, size := range sums {
		if size > 0 {
			parts = append(parts, part{name: name, raw: size})
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Or(cmp.Compare(b.raw, a.raw), cmp.Compare(a.name, b.name)) })
	return parts, nil
}

// packageOf returns the package of a symbol of a Go program: the text up to the first dot after
// the last slash. Names of the linker, such as go:func.* and type:*, and names without a dot
// have none.
func packageOf(symbol string) string {
	if i := strings.IndexAny(symbol, "[("); i >= 0 {
		// Type arguments and receivers contain other paths.
		symbol = symbol[:i]
	}
	if strings.Contains(symbol, ":") {
		return ""
	}
	slash := strings.LastIndexByte(symbol, '/') + 1
	dot := strings.IndexByte(symbol[slash:], '.')
	if dot < 0 {
		return ""
	}
	return strings.ReplaceAll(symbol[:slash+dot], "%2e", ".")
}
