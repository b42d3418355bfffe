package main

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/upgrade"
)

// ubootPackages are the Debian packages that images for U-Boot are made with: mkimage and
// mkenvimage, and the compiler of device trees that mkimage calls for a FIT.
var ubootPackages = []string{"u-boot-tools", "device-tree-compiler"}

// ubootKey is a device tree with the public key for U-Boot, as mkimage writes it. Its node
// /signature belongs into U-Boot's control device tree.
const ubootKey = "uboot-key.dtb"

var errTooLarge = errors.New("too large for the flash")

// makeUBoot makes the slot image that U-Boot starts, and the factory image. It returns the
// names of the files.
func makeUBoot(b board.Board, v version, keys, dir, work string) ([]string, error) {
	made := []string{slotImage}
	var slot []byte
	var err error
	if b.Image.Form == board.FIT {
		slot, err = makeFIT(b, keys, dir, work)
		made = append(made, ubootKey)
	} else {
		slot, err = makeUImage(b, dir, work)
	}
	if err != nil {
		return nil, fmt.Errorf("slot image: %w", err)
	}
	if room, ok := slotRoom(b); ok && int64(len(slot)) > room {
		return nil, fmt.Errorf("%w: the slot image has %d bytes, its place takes %d", errTooLarge, len(slot), room)
	}
	if err := writeSlot(dir, slot); err != nil {
		return nil, err
	}
	chip, err := factoryChip(b, v, slot, work)
	if err != nil {
		return nil, fmt.Errorf("factory image: %w", err)
	}
	if err := replaceFile(filepath.Join(dir, factoryImage), chip.writeTo); err != nil {
		return nil, err
	}
	return append(made, factoryImage), nil
}

// makeUImage returns a legacy image with the kernel, an ELF file, and the initramfs.
// U-Boot copies the kernel to where the ELF file has it.
func makeUImage(b board.Board, dir, work string) ([]byte, error) {
	if b.Kernel.Arch != "mips" {
		return nil, fmt.Errorf("form %s for a kernel of %s: only known for mips", b.Image.Form, b.Kernel.Arch)
	}
	kernel, load, entry, err := loadedELF(filepath.Join(dir, "kernel"))
	if err != nil {
		return nil, err
	}
	initramfs, err := os.ReadFile(filepath.Join(dir, "initramfs.cpio.xz"))
	if err != nil {
		return nil, err
	}
	return uImage(load, entry, "multi", "none", work, kernel, initramfs)
}

// uImage returns U-Boot's legacy image of parts, for Linux on MIPS. kind and compression
// are names that mkimage(1) takes for -T and -C; only the kind "multi" has several parts.
// work is a folder for temporary files.
func uImage(load, entry uint32, kind, compression, work string, parts ...[]byte) ([]byte, error) {
	var names []string
	for i, p := range parts {
		name := fmt.Sprintf("part-%d", i)
		if err := os.WriteFile(filepath.Join(work, name), p, 0o644); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	const image = "uImage"
	if err := run(work, mkimageEnv, "mkimage", "-A", "mips", "-O", "linux", "-T", kind, "-C", compression, "-n", "Postern",
		"-a", fmt.Sprintf("%#x", load), "-e", fmt.Sprintf("%#x", entry), "-d", strings.Join(names, ":"), image); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(work, image))
}

// mkimageEnv has mkimage write the same bytes whenever it is run.
var mkimageEnv = []string{"SOURCE_DATE_EPOCH=0", "TZ=UTC"}

// loadedELF returns the contents of memory after an ELF file was loaded, without zeros at the
// end, with the address of the first byte and the address of the entry.
func loadedELF(path string) (image []byte, load, entry uint32, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("kernel: %w", err)
	}
	defer f.Close()
	var start, end uint64 = math.MaxUint64, 0
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Filesz > 0 {
			start, end = min(start, p.Vaddr), max(end, p.Vaddr+p.Filesz)
		}
	}
	const most = 64 << 20
	if start >= end || end-start > most || f.Entry < start || f.Entry >= end || end > math.MaxUint32 {
		return nil, 0, 0, fmt.Errorf("kernel %s: an ELF file that is loaded from %#x to %#x, with its entry at %#x: expected at most %d MiB of 32-bit addresses", path, start, end, f.Entry, most>>20)
	}
	image = make([]byte, end-start)
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD || p.Filesz == 0 {
			continue
		}
		if _, err := io.ReadFull(p.Open(), image[p.Vaddr-start:][:p.Filesz]); err != nil {
			return nil, 0, 0, fmt.Errorf("kernel %s: %w", path, err)
		}
	}
	return image, uint32(start), uint32(f.Entry), nil
}

// makeFIT returns a flattened image tree (FIT) that is signed with the key in the folder keys.
// It writes the public key, as required for every configuration, to the file ubootKey in dir.
func makeFIT(b board.Board, keys, dir, work string) ([]byte, error) {
	// mkimage looks for relative paths from the folder of the source.
	parts, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	source := filepath.Join(work, "fit.its")
	if err := os.WriteFile(source, []byte(fitSource(b, parts)), 0o644); err != nil {
		return nil, err
	}
	empty := filepath.Join(work, "empty.dts")
	if err := os.WriteFile(empty, []byte("/dts-v1/;\n/ { };\n"), 0o644); err != nil {
		return nil, err
	}
	key, image := filepath.Join(work, ubootKey), filepath.Join(work, "fit.img")
	if err := run("", nil, "dtc", "-q", "-O", "dtb", "-o", key, empty); err != nil {
		return nil, err
	}
	if err := run("", mkimageEnv, "mkimage", "-f", source, "-k", keys, "-K", key, "-r", image); err != nil {
		return nil, err
	}
	if err := copyFile(filepath.Join(dir, ubootKey), key, 0o644); err != nil {
		return nil, err
	}
	return os.ReadFile(image)
}

// fitSource returns the source of a board's FIT with the kernel, the initramfs and the device
// tree in dir.
func fitSource(b board.Board, dir string) string {
	compression := "none"
	if strings.HasSuffix(b.Kernel.Image, ".gz") {
		compression = "gzip"
	}
	var images, parts strings.Builder
	signed := []string{`"kernel"`, `"ramdisk"`}
	image := func(name, file, kind, more string) {
		fmt.Fprintf(&images, "\t\t%s {\n\t\t\tdata = /incbin/(%q);\n\t\t\ttype = %q;\n\t\t\tarch = %q;\n%s\t\t\thash { algo = \"sha256\"; };\n\t\t};\n",
			name, filepath.Join(dir, file), kind, b.Kernel.Arch, more)
	}
	linux := func(compression string) string {
		return fmt.Sprintf("\t\t\tos = \"linux\";\n\t\t\tcompression = %q;\n", compression)
	}
	image("kernel", "kernel", "kernel", linux(compression)+
		fmt.Sprintf("\t\t\tload = <%#x>;\n\t\t\tentry = <%#x>;\n", b.Image.Load, b.Image.Load))
	image("ramdisk", "initramfs.cpio.xz", "ramdisk", linux("none"))
	if len(b.Image.DeviceTrees) > 0 {
		image("fdt", path.Base(b.Image.DeviceTrees[0])+".dtb", "flat_dt", "\t\t\tcompression = \"none\";\n")
		parts.WriteString("\t\t\tfdt = \"fdt\";\n")
		signed = append(signed, `"fdt"`)
	}
	return fmt.Sprintf(`/dts-v1/;

/ {
	description = "Postern for %s";
	#address-cells = <1>;

	images {
%s	};

	configurations {
		default = "conf";
		conf {
			kernel = "kernel";
			ramdisk = "ramdisk";
%s			signature {
				algo = "sha256,rsa2048";
				key-name-hint = %q;
				sign-images = %s;
			};
		};
	};
};
`, b.Name, images.String(), parts.String(), fitKeyName, strings.Join(signed, ", "))
}

// chip is the contents of a flash chip: data by its offset. The rest is erased.
type chip struct {
	size  int64
	flash board.Flash
	at    map[int64][]byte
}

// put writes data to the start of a partition.
func (c chip) put(partition string, data []byte) error {
	p, ok := c.flash.Partition(partition)
	if !ok {
		return fmt.Errorf("no partition %s", partition)
	}
	if int64(len(data)) > p.Size {
		return fmt.Errorf("partition %s takes %d bytes, not %d", partition, p.Size, len(data))
	}
	c.at[p.Offset] = data
	return nil
}

// writeTo writes the chip to a file. Partitions are erased where nothing was put; what belongs
// to no partition is a hole in the file.
func (c chip) writeTo(f *os.File) error {
	if err := f.Truncate(c.size); err != nil {
		return err
	}
	blank := bytes.Repeat([]byte{0xFF}, 64<<10) // divides the size of every partition
	for _, p := range c.flash.Partitions {
		for at := p.Offset; at < p.Offset+p.Size; at += int64(len(blank)) {
			if _, err := f.WriteAt(blank, at); err != nil {
				return err
			}
		}
	}
	for at, data := range c.at {
		if _, err := f.WriteAt(data, at); err != nil {
			return err
		}
	}
	return nil
}

// factoryChip returns the chip of a new board: the boot loader, its environment, and the slot
// image in the first slot, confirmed, or in the board's only place for one.
func factoryChip(b board.Board, v version, slot []byte, work string) (chip, error) {
	c := chip{size: b.QEMU.FlashSize, flash: b.Flash, at: map[int64][]byte{}}
	for _, p := range b.Flash.Partitions {
		c.size = max(c.size, p.Offset+p.Size)
	}
	if loader := b.Image.BootLoader; loader.File != "" {
		program, err := bootLoader(loader, work)
		if err != nil {
			return chip{}, err
		}
		if err := c.put("boot", program); err != nil {
			return chip{}, err
		}
		p, _ := b.Flash.Partition("environment")
		environment, err := environment(loader.Environment, p.Size, work)
		if err != nil {
			return chip{}, err
		}
		if err := c.put("environment", environment); err != nil {
			return chip{}, err
		}
	}
	p, two := b.Flash.Partition(board.Slots[0])
	if !two {
		return c, c.put("image", slot)
	}
	if err := c.put(board.Slots[0], slot); err != nil {
		return chip{}, err
	}
	// The second slot has no state, which means empty.
	state := upgrade.State{Sequence: 1, Length: int64(len(slot)), Sum: sha256.Sum256(slot), Version: v.name}
	c.at[p.Offset+b.ImageLimit] = state.Words()
	return c, nil
}

// environment returns U-Boot's environment with variables, as name=value, in size bytes.
func environment(variables []string, size int64, work string) ([]byte, error) {
	text, image := filepath.Join(work, "environment.txt"), filepath.Join(work, "environment")
	if err := os.WriteFile(text, []byte(strings.Join(variables, "\n")+"\n"), 0o644); err != nil {
		return nil, err
	}
	if err := run("", nil, "mkenvimage", "-s", fmt.Sprint(size), "-p", "0xFF", "-o", image, text); err != nil {
		return nil, err
	}
	return os.ReadFile(image)
}

// bootLoader returns the program of U-Boot. If l.Command is set it is written into U-Boot's
// control device tree, which is the end of the program.
func bootLoader(l board.BootLoader, work string) ([]byte, error) {
	program, err := os.ReadFile(l.File)
	if err != nil {
		return nil, fmt.Errorf("U-Boot (Debian package %s): %w", l.Package, err)
	}
	if l.Command == "" {
		return program, nil
	}
	const magic, head = "\xD0\x0D\xFE\xED", 8
	tree := bytes.LastIndex(program, []byte(magic))
	if tree < 0 || len(program)-tree < head || int(binary.BigEndian.Uint32(program[tree+4:])) != len(program)-tree {
		return nil, fmt.Errorf("%s: expected a device tree at its end", l.File)
	}
	file := filepath.Join(work, "u-boot.dtb")
	if err := os.WriteFile(file, program[tree:], 0o644); err != nil {
		return nil, err
	}
	for _, args := range [][]string{
		{"-c", file, "/config"},
		{"-t", "s", file, "/config", "bootcmd", l.Command},
		// Without a delay or a prompt.
		{"-t", "i", file, "/config", "bootsecure", "1"},
	} {
		if err := run("", nil, "fdtput", args...); err != nil {
			return nil, err
		}
	}
	changed, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return append(program[:tree], changed...), nil
}
