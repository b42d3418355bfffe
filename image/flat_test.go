package main

import (
	"bytes"
	"crypto/md5"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// smallKernel compiles a program with the symbols that flatten needs of a kernel.
func smallKernel(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source, script, kernel := filepath.Join(dir, "kernel.s"), filepath.Join(dir, "kernel.lds"), filepath.Join(dir, "kernel")
	require.NoError(t, os.WriteFile(script, []byte(`ENTRY(__start)
PHDRS { text PT_LOAD FLAGS(7); }
SECTIONS {
	. = 0x80060000;
	.text : { *(.text) } :text
	.data : { *(.data) }
	.bss : { *(.bss) }
	_end = .;
	/DISCARD/ : { *(.MIPS.abiflags .reginfo .gnu.attributes .pdr) }
}
`), 0o644))
	require.NoError(t, os.WriteFile(source, []byte(`
.text
.globl __start
	.space 16
__start: nop
.data
.globl __appended_dtb
__appended_dtb: .space 0x100000
	.word 0x12345678
.bss
	.space 0x2345
`), 0o644))
	out, err := exec.Command("mips-linux-gnu-gcc", "-nostdlib", "-static", "-Wl,--build-id=none,-T,"+script, "-mno-abicalls", "-fno-pic", "-G0", "-o", kernel, source).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return kernel
}

func TestFlatten(t *testing.T) {
	e2e.Needs(t, "mips-linux-gnu-gcc")
	kernel := smallKernel(t)
	initramfs := bytes.Repeat([]byte("initramfs"), 1000)
	tree := []byte("\xD0\x0D\xFE\xEDtree")
	var chosen string
	makeTree := func(c string) ([]byte, error) { chosen = c; return tree, nil }

	image, err := flatten(kernel, initramfs, "console=x", 0, 0, makeTree)
	require.NoError(t, err)
	assert.EqualValues(t, 0x80060000, image.load)
	f, err := elf.Open(kernel)
	require.NoError(t, err)
	defer f.Close()
	assert.Equal(t, f.Entry, image.entry)
	symbols, err := f.Symbols()
	require.NoError(t, err)
	for _, s := range symbols {
		switch s.Name {
		case "__appended_dtb":
			assert.True(t, bytes.HasPrefix(image.data[s.Value-image.load:], tree), "the tree is where the kernel looks")
			assert.EqualValues(t, 0x12345678, binary.BigEndian.Uint32(image.data[s.Value-image.load+treeRoom:]), "and the kernel's data behind")
		case "_end":
			at := bytes.Index(image.data, initramfs[:100])
			assert.GreaterOrEqual(t, uint64(at), s.Value-image.load, "nothing of the kernel's lies on the initramfs")
			assert.Zero(t, at%pageSize)
			assert.Equal(t, fmt.Sprintf("\t\tbootargs = \"console=x\";\n\t\tlinux,initrd-start = <%#x>;\n\t\tlinux,initrd-end = <%#x>;\n",
				0x60000+at, 0x60000+at+len(initramfs)), chosen)
		}
	}
	assert.True(t, bytes.HasSuffix(image.data, initramfs))

	image, err = flatten(kernel, initramfs, "", f.Progs[0].Vaddr+8<<20, 1<<20, makeTree)
	require.NoError(t, err)
	assert.Len(t, image.data, 9<<20)
	assert.Equal(t, initramfs, image.data[8<<20:8<<20+len(initramfs)])

	_, err = flatten(kernel, initramfs, "", image.load+4096, 0, makeTree)
	require.ErrorContains(t, err, "after the start of the initramfs at")
	_, err = flatten(kernel, initramfs, "", 0, 100, makeTree)
	require.ErrorContains(t, err, "the initramfs has 9000 bytes, there is room for 100")
	_, err = flatten(kernel, initramfs, "", 0, 0, func(string) ([]byte, error) { return make([]byte, treeRoom+1), nil })
	require.ErrorContains(t, err, "the device tree has 1048577 bytes")
	_, err = flatten("/bin/true", initramfs, "", 0, 0, makeTree)
	require.Error(t, err, "a program without symbols")
}

// TestUImage reads the header by U-Boot's own tool, and the contents by xz.
func TestUImage(t *testing.T) {
	e2e.Needs(t, "mkimage", "xz")
	dir := t.TempDir()
	image := flat{load: 0xFFFFFFFF_80060000, entry: 0xFFFFFFFF_80060400, data: bytes.Repeat([]byte("postern "), 100_000)}
	packed, err := lzma(image.data, dir)
	require.NoError(t, err)
	file := filepath.Join(dir, "uImage")
	packedImage, err := uImage(uint32(image.load), uint32(image.entry), "kernel", "lzma", t.TempDir(), packed)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, packedImage, 0o644))
	out, err := exec.Command("mkimage", "-l", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, has := range []string{"MIPS Linux Kernel Image (lzma compressed)", "Load Address: 80060000", "Entry Point:  80060400",
		fmt.Sprintf("Data Size:    %d Bytes", len(packed))} {
		assert.Contains(t, string(out), has)
	}
	assert.EqualValues(t, len(image.data), binary.LittleEndian.Uint64(packed[5:]), "boot loaders want the length")
	xz := exec.Command("xz", "--format=lzma", "--decompress", "--stdout")
	xz.Stdin = bytes.NewReader(packed)
	unpacked, err := xz.Output()
	require.NoError(t, err)
	assert.True(t, bytes.Equal(image.data, unpacked))
}

func TestTPLink(t *testing.T) {
	packed := []byte("packed")
	image := flat{load: 0xFFFFFFFF_80060000, entry: 0xFFFFFFFF_80060000}
	all := image.tplink(0x30200001, packed, tplinkSize)
	require.Len(t, all, 0x3C0000)
	assert.Equal(t, "TP-LINK Technologies", string(bytes.TrimRight(all[4:28], "\x00")))
	assert.EqualValues(t, 0x30200001, binary.BigEndian.Uint32(all[0x40:]))
	assert.EqualValues(t, 0x80060000, binary.BigEndian.Uint32(all[0x74:]))
	at, n := binary.BigEndian.Uint32(all[0x80:]), binary.BigEndian.Uint32(all[0x84:])
	assert.Equal(t, packed, all[at:at+n])
	assert.Equal(t, byte(0xFF), all[len(all)-1])
	salted := bytes.Clone(all)
	copy(salted[0x4C:], tplinkSalt[:])
	sum := md5.Sum(salted)
	assert.Equal(t, sum[:], all[0x4C:0x5C])
	assert.Len(t, image.tplink(1, packed, 0), 512+len(packed))
}

func TestELF(t *testing.T) {
	image := flat{load: 0xFFFFFFFF_81100000, entry: 0xFFFFFFFF_81101234, data: []byte("kernel")}
	f, err := elf.NewFile(bytes.NewReader(image.elf()))
	require.NoError(t, err)
	assert.Equal(t, elf.EM_MIPS, f.Machine)
	assert.Equal(t, binary.ByteOrder(binary.BigEndian), f.ByteOrder)
	assert.Equal(t, image.entry, f.Entry)
	require.Len(t, f.Progs, 1)
	assert.Equal(t, image.load, f.Progs[0].Vaddr)
	data := make([]byte, f.Progs[0].Filesz)
	_, err = f.Progs[0].ReadAt(data, 0)
	require.NoError(t, err)
	assert.Equal(t, image.data, data)
}

// TestDeviceTrees compiles the device trees of every board and reads some of them back.
func TestDeviceTrees(t *testing.T) {
	e2e.Needs(t, "gcc", "dtc", "/usr/src/"+linuxSource+".tar.xz")
	source, err := sourceForTrees()
	require.NoError(t, err)
	for _, b := range board.All() {
		for _, tree := range b.Image.DeviceTrees {
			t.Run(b.Name, func(t *testing.T) {
				dir := t.TempDir()
				dtb, err := deviceTree(source, b, tree, "\t\tpostern,test;\n", dir)
				require.NoError(t, err)
				file := filepath.Join(dir, "dtb")
				require.NoError(t, os.WriteFile(file, dtb, 0o644))
				out, err := exec.Command("dtc", "-q", "-I", "dtb", "-O", "dts", file).Output()
				require.NoError(t, err)
				text := string(out)
				assert.Contains(t, text, "postern,test;")
				// A switch's port has its name from a label in the tree.
				for _, p := range b.Ports {
					if p.Device == p.Name && !strings.HasPrefix(p.Name, "eth") {
						assert.Contains(t, text, fmt.Sprintf("label = %q;", p.Name))
					}
				}
				if b.Name == "tl-mr3020" {
					assert.Contains(t, text, "macaddr@1fc00")
					assert.Contains(t, text, `compatible = "qca,ar7130-wdt"`)
				}
			})
		}
	}
	malta, err := board.ByName("malta")
	require.NoError(t, err)
	_, err = deviceTree(source, malta, "no/such", "", t.TempDir())
	require.ErrorContains(t, err, "device tree no/such")
}
