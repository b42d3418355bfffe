package main

import (
	"bytes"
	"crypto/md5"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/postern-router/postern/board"
)

// flat is a kernel, its device tree and the initramfs as they are in the memory of a MIPS
// processor when the kernel starts, for a boot loader that can only load one file. The zeros
// between them, such as the kernel's variables, take no room once packed.
type flat struct {
	// load is the address of the data in the processor's view, entry that of the first
	// instruction.
	load, entry uint64
	data        []byte
}

const (
	// pageSize is the alignment that the kernel requires of an initramfs.
	pageSize = 64 << 10
	// treeRoom is the room for a device tree that the kernel keeps free after itself
	// (arch/mips/kernel/vmlinux.lds.S, arch/mips/kernel/setup.c).
	treeRoom = 1 << 20
	// mostMemory is the limit for kernel and device tree, in bytes.
	mostMemory = 64 << 20
	// physical is the mask that gives the physical address of one in an unmapped segment.
	physical = 0x1FFF_FFFF
)

// flatten lays out a kernel, which is the path of an ELF file with symbols. tree returns the
// device tree with the given lines in its node chosen. The initramfs follows the kernel's own
// memory, or is at the address ramdisk if that is not 0. If room is not 0, zeros pad it to
// that length.
func flatten(kernel string, initramfs []byte, commandLine string, ramdisk uint64, room int64, tree func(chosen string) ([]byte, error)) (flat, error) {
	f, err := elf.Open(kernel)
	if err != nil {
		return flat{}, err
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		return flat{}, fmt.Errorf("%s: %w", kernel, err)
	}
	address := map[string]uint64{"__appended_dtb": 0, "_end": 0}
	for _, s := range symbols {
		if _, want := address[s.Name]; want {
			address[s.Name] = s.Value
		}
	}
	for name, at := range address {
		if at == 0 {
			return flat{}, fmt.Errorf("%s: no symbol %s", kernel, name)
		}
	}
	image := flat{load: ^uint64(0), entry: f.Entry}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Filesz > 0 {
			image.load = min(image.load, p.Vaddr)
		}
	}
	end := (address["_end"] + pageSize - 1) &^ (pageSize - 1)
	switch {
	case ramdisk == 0:
		ramdisk = end
	case ramdisk < end:
		return flat{}, fmt.Errorf("%s: it ends at %#x, after the start of the initramfs at %#x", kernel, end, ramdisk)
	}
	if room != 0 {
		if int64(len(initramfs)) > room {
			return flat{}, fmt.Errorf("the initramfs has %d bytes, there is room for %d", len(initramfs), room)
		}
		initramfs = append(initramfs[:len(initramfs):len(initramfs)], make([]byte, room-int64(len(initramfs)))...)
	}
	if ramdisk-image.load > mostMemory {
		return flat{}, fmt.Errorf("%s: from %#x to %#x are more than %d bytes", kernel, image.load, ramdisk, mostMemory)
	}
	start := ramdisk & physical
	dtb, err := tree(fmt.Sprintf("\t\tbootargs = %q;\n\t\tlinux,initrd-start = <%#x>;\n\t\tlinux,initrd-end = <%#x>;\n",
		commandLine, start, start+uint64(len(initramfs))))
	if err != nil {
		return flat{}, err
	}
	if len(dtb) > treeRoom {
		return flat{}, fmt.Errorf("the device tree has %d bytes, the kernel has room for %d", len(dtb), treeRoom)
	}
	image.data = make([]byte, ramdisk-image.load+uint64(len(initramfs)))
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD || p.Filesz == 0 {
			continue
		}
		if p.Vaddr+p.Filesz > end {
			return flat{}, fmt.Errorf("%s: a part at %#x is after its end, %#x", kernel, p.Vaddr, end)
		}
		if _, err := p.ReadAt(image.data[p.Vaddr-image.load:][:p.Filesz], 0); err != nil {
			return flat{}, fmt.Errorf("%s: %w", kernel, err)
		}
	}
	copy(image.data[address["__appended_dtb"]-image.load:], dtb)
	copy(image.data[ramdisk-image.load:], initramfs)
	return image, nil
}

// makeFlat makes the slot image of a board whose boot loader takes one file, and the factory
// image: for TP-Link's boards that is the one that the vendor's firmware takes. It returns the
// names of the files.
func makeFlat(b board.Board, dir, work string) ([]string, error) {
	source, err := sourceForTrees()
	if err != nil {
		return nil, err
	}
	initramfs, err := os.ReadFile(filepath.Join(dir, "initramfs.cpio.xz"))
	if err != nil {
		return nil, err
	}
	image, err := flatten(filepath.Join(dir, "kernel"), initramfs, b.Kernel.CommandLine, b.Image.Ramdisk, b.Image.RamdiskSize, func(chosen string) ([]byte, error) {
		return deviceTree(source, b, b.Image.DeviceTrees[0], chosen, work)
	})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	if b.Image.Form == board.ELF {
		files[slotImage] = image.elf()
	} else {
		packed, err := lzma(image.data, work)
		if err != nil {
			return nil, err
		}
		if b.Image.Form == board.TPLink {
			files[slotImage] = image.tplink(b.Image.Hardware, packed, 0)
			files[factoryImage] = image.tplink(b.Image.Hardware, packed, tplinkSize)
		} else {
			files[slotImage], err = uImage(uint32(image.load), uint32(image.entry), "kernel", "lzma", work, packed)
			if err != nil {
				return nil, err
			}
		}
	}
	names := []string{}
	if b.Image.Form == board.ELF {
		if err := makeStick(b, files[slotImage], dir, work); err != nil {
			return nil, err
		}
		names = append(names, factoryImage)
	}
	for name, data := range files {
		names = append(names, name)
		if err := replaceFile(filepath.Join(dir, name), func(f *os.File) error {
			_, err := f.Write(data)
			return err
		}); err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return names, nil
}

// lzma packs data in the old .lzma format, with the length in its header: boot loaders need the
// length, and xz does not write it.
func lzma(data []byte, work string) ([]byte, error) {
	const sizeField = 5 // after the properties and the size of the dictionary
	file := filepath.Join(work, "flat")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return nil, err
	}
	// A machine with 32 MB has no memory for a dictionary as large as the data.
	if err := run(work, nil, "xz", "--force", "--format=lzma", "--lzma1=preset=9e,dict=8MiB,lc=1,lp=2,pb=2", file); err != nil {
		return nil, err
	}
	packed, err := os.ReadFile(file + ".lzma")
	if err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint64(packed[sizeField:], uint64(len(data)))
	return packed, nil
}

// tplinkSalt stands in the header's field for the MD5 sum while the sum is computed, in an image
// without a boot loader.
var tplinkSalt = [md5.Size]byte{0xDC, 0xD7, 0x3A, 0xA5, 0xC3, 0x95, 0x98, 0xFB, 0xDD, 0xF9, 0xE7, 0xF4, 0x0E, 0xAE, 0x47, 0x38}

// tplinkSize is the length of an image that the vendor's web page for upgrades accepts on a
// board with 4 MB.
const tplinkSize = 0x3C_0000

// tplink returns packed behind the header of TP-Link's boot loaders, version 1: 512 bytes,
// big-endian. If size is not 0 the image is padded to it with 0xFF, as erased flash. The
// vendor's page for upgrades checks the hardware's number and the MD5 sum over everything, the
// boot loader checks neither. TP-Link has not documented it; the fields are those that
// OpenWrt's mktplinkfw writes.
func (f flat) tplink(hardware uint32, packed []byte, size int) []byte {
	const (
		headerSize = 512
		sumField   = 76
	)
	all := make([]byte, headerSize, headerSize+len(packed))
	big := binary.BigEndian
	big.PutUint32(all[0:], 0x0100_0000) // version of the header
	copy(all[4:28], "TP-LINK Technologies")
	copy(all[28:64], "ver. 1.0")
	big.PutUint32(all[64:], hardware)
	big.PutUint32(all[68:], 1) // revision of the hardware
	copy(all[sumField:], tplinkSalt[:])
	big.PutUint32(all[116:], uint32(f.load))
	big.PutUint32(all[120:], uint32(f.entry))
	big.PutUint32(all[124:], tplinkSize)
	big.PutUint32(all[128:], headerSize)
	big.PutUint32(all[132:], uint32(len(packed)))
	// The file system after the kernel is empty.
	big.PutUint32(all[136:], uint32(headerSize+len(packed)))
	all = append(all, packed...)
	all = append(all, bytes.Repeat([]byte{0xFF}, max(0, size-len(all)))...)
	sum := md5.Sum(all)
	copy(all[sumField:], sum[:])
	return all
}

// elf returns the data as a 64-bit big-endian ELF file with one loadable segment.
func (f flat) elf() []byte {
	const (
		headers = 64 + 56
		offset  = pageSize
	)
	var file bytes.Buffer
	// binary.Write cannot fail with a buffer and these types.
	_ = binary.Write(&file, binary.BigEndian, elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7F, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2MSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_MIPS), Version: uint32(elf.EV_CURRENT),
		Entry: f.entry, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
		Flags: 0x8000_0000, // EF_MIPS_ARCH_64R2 of <elf.h>
	})
	_ = binary.Write(&file, binary.BigEndian, elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W | elf.PF_X), Off: offset,
		Vaddr: f.load, Paddr: f.load, Filesz: uint64(len(f.data)), Memsz: uint64(len(f.data)), Align: pageSize,
	})
	file.Write(make([]byte, offset-headers))
	file.Write(f.data)
	return file.Bytes()
}
