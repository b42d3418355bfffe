package main

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"hash/crc32"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// TestMultiFile takes an image apart by U-Boot's own tool.
func TestMultiFile(t *testing.T) {
	e2e.Needs(t, "mkimage", "dumpimage")
	for _, c := range []struct {
		name              string
		kernel, initramfs int
	}{
		{"whole words", 4096, 2048}, {"not whole words", 4097, 2047}, {"one byte each", 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			random := rand.New(rand.NewSource(int64(c.kernel)))
			parts := [][]byte{make([]byte, c.kernel), make([]byte, c.initramfs)}
			for _, p := range parts {
				random.Read(p)
			}
			path := filepath.Join(dir, "image")
			image, err := uImage(0x80400000, 0x80401000, "multi", "none", t.TempDir(), parts...)
			require.NoError(t, err)
			again, err := uImage(0x80400000, 0x80401000, "multi", "none", t.TempDir(), parts...)
			require.NoError(t, err)
			assert.Equal(t, image, again, "the same bytes from the same parts")
			require.NoError(t, os.WriteFile(path, image, 0o644))
			said := tool(t, dir, "dumpimage", "-l", path)
			assert.Contains(t, said, "MIPS Linux Multi-File Image (uncompressed)")
			assert.Contains(t, said, "Load Address: 80400000\nEntry Point:  80401000\n")
			for i, p := range parts {
				out := filepath.Join(dir, "part")
				tool(t, dir, "dumpimage", "-T", "multi", "-p", string(rune('0'+i)), "-o", out, path)
				got, err := os.ReadFile(out)
				require.NoError(t, err)
				assert.True(t, bytes.Equal(p, got), "part %d", i)
			}
		})
	}
}

// TestLoadedELF reads an ELF file of two segments, and files that are wrong.
func TestLoadedELF(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kernel")
	require.NoError(t, os.WriteFile(path, []byte("no ELF file"), 0o644))
	_, _, _, err := loadedELF(path)
	require.ErrorContains(t, err, "kernel")

	// A 32-bit little-endian ELF file with two segments, 0x100 bytes apart.
	little := binary.LittleEndian
	file := make([]byte, 52+2*32+8)
	copy(file, "\x7FELF\x01\x01\x01")
	little.PutUint16(file[16:], 2)
	little.PutUint16(file[18:], 8)
	little.PutUint32(file[20:], 1)
	little.PutUint32(file[24:], 0x80100004)
	little.PutUint32(file[28:], 52)
	little.PutUint16(file[40:], 52)
	little.PutUint16(file[42:], 32)
	little.PutUint16(file[44:], 2)
	little.PutUint16(file[46:], 40)
	for i, address := range []uint32{0x80100000, 0x80100100} {
		p := file[52+32*i:]
		little.PutUint32(p, 1)
		little.PutUint32(p[4:], uint32(52+2*32+4*i))
		little.PutUint32(p[8:], address)
		little.PutUint32(p[16:], 4)
		little.PutUint32(p[20:], 400)
	}
	copy(file[52+2*32:], "headtail")
	require.NoError(t, os.WriteFile(path, file, 0o644))
	image, load, entry, err := loadedELF(path)
	require.NoError(t, err)
	assert.EqualValues(t, 0x80100000, load)
	assert.EqualValues(t, 0x80100004, entry)
	assert.Len(t, image, 0x104)
	assert.Equal(t, "head", string(image[:4]))
	assert.Equal(t, "tail", string(image[0x100:]))

	little.PutUint32(file[24:], 0x80200000)
	require.NoError(t, os.WriteFile(path, file, 0o644))
	_, _, _, err = loadedELF(path)
	require.ErrorContains(t, err, "its entry at 0x80200000")
}

// writeParts writes files in the place of a kernel and an initramfs, of other contents.
func writeParts(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kernel"), bytes.Repeat([]byte("kernel"), 1000), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "initramfs.cpio.xz"), bytes.Repeat([]byte("initramfs"), 999), 0o644))
	return dir
}

// TestFIT has U-Boot's own tool list a signed image. The tests of package qemu show that
// U-Boot starts it, and starts none that was tampered with: Debian has no package with the
// program that checks it on the host.
func TestFIT(t *testing.T) {
	e2e.Needs(t, "mkimage", "mkenvimage", "dumpimage", "dtc", "fdtget")
	b, err := board.ByName("virt-armv7")
	require.NoError(t, err)
	keys := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, makeKeys(keys))
	dir := writeParts(t)
	made, err := makeImages(b, version{name: "v1"}, keys, dir, t.TempDir())
	require.NoError(t, err)
	assert.Equal(t, []string{slotImage, ubootKey, factoryImage}, made)
	slot, err := os.ReadFile(filepath.Join(dir, slotImage))
	require.NoError(t, err)
	said := tool(t, "", "dumpimage", "-l", filepath.Join(dir, slotImage))
	assert.Contains(t, said, "Default Configuration: 'conf'")
	assert.Contains(t, said, "Load Address: 0x41000000")
	assert.Regexp(t, `Sign algo: +sha256,rsa2048:fit\n +Sign value: +[0-9a-f]{512}\n`, said)
	key := filepath.Join(dir, ubootKey)
	assert.Equal(t, "conf\n", tool(t, "", "fdtget", key, "/signature/key-fit", "required"))
	text, err := os.ReadFile(filepath.Join(keys, fitCertificate))
	require.NoError(t, err)
	block, _ := pem.Decode(text)
	certificate, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	modulus := strings.Fields(tool(t, "", "fdtget", "-t", "x", key, "/signature/key-fit", "rsa,modulus"))
	for i, word := range modulus {
		modulus[i] = strings.Repeat("0", 8-len(word)) + word
	}
	assert.Equal(t, certificate.PublicKey.(*rsa.PublicKey).N.Text(16), strings.Join(modulus, ""))

	t.Run("the same again", func(t *testing.T) {
		again := writeParts(t)
		_, err := makeImages(b, version{name: "v1"}, keys, again, t.TempDir())
		require.NoError(t, err)
		for _, name := range made {
			assert.Equal(t, hashOf(t, filepath.Join(dir, name)), hashOf(t, filepath.Join(again, name)), name)
		}
	})
	t.Run("on the flash", func(t *testing.T) {
		chip, err := os.ReadFile(filepath.Join(dir, factoryImage))
		require.NoError(t, err)
		assert.Len(t, chip, int(b.QEMU.FlashSize))
		a, _ := b.Flash.Partition(board.Slots[0])
		other, _ := b.Flash.Partition(board.Slots[1])
		assert.True(t, bytes.HasPrefix(chip[a.Offset:], slot))
		state := chip[a.Offset+a.Size-256<<10:]
		var words [5]uint32
		_, err = binary.Decode(state, binary.LittleEndian, &words)
		require.NoError(t, err)
		assert.EqualValues(t, [5]uint32{0x50535431, 1, 0, 0, uint32(len(slot))}, words)
		sum := sha256.Sum256(slot)
		assert.Equal(t, sum[:], state[20:52])
		assert.True(t, bytes.HasPrefix(state[52:], []byte("v1\x00")))
		for _, p := range []board.Partition{other, {Offset: 64<<20 + 256<<10, Size: 1 << 20}} {
			blank := chip[p.Offset:][:p.Size]
			assert.Equal(t, len(blank), bytes.Count(blank, []byte{0xFF}))
		}
		environment := chip[64<<20:][:256<<10]
		assert.Equal(t, crc32.ChecksumIEEE(environment[4:]), binary.LittleEndian.Uint32(environment))
		assert.True(t, bytes.HasPrefix(environment[4:], []byte("bootdelay=0\x00args=console=ttyAMA0")))
	})
	t.Run("too large", func(t *testing.T) {
		b.ImageLimit = 1000
		_, err := makeImages(b, version{}, keys, dir, t.TempDir())
		assert.ErrorContains(t, err, "its place takes 1000")
	})
}

func TestEnvironment(t *testing.T) {
	e2e.Needs(t, "mkenvimage")
	env, err := environment([]string{"a=1", "b=2"}, 16, t.TempDir())
	require.NoError(t, err)
	assert.Equal(t, "a=1\x00b=2\x00\x00\xFF\xFF\xFF", string(env[4:]))
	assert.Equal(t, crc32.ChecksumIEEE(env[4:]), binary.LittleEndian.Uint32(env))
	_, err = environment([]string{"a=1", "b=23"}, 13, t.TempDir())
	assert.ErrorContains(t, err, "mkenvimage -s 13")
}

// TestBootLoader reads the changed device tree of U-Boot.
func TestBootLoader(t *testing.T) {
	e2e.Needs(t, "fdtget", "fdtput", "/usr/lib/u-boot/maltael/u-boot.bin")
	b, err := board.ByName("maltael")
	require.NoError(t, err)
	loader := b.Image.BootLoader
	program, err := bootLoader(loader, t.TempDir())
	require.NoError(t, err)
	plain, err := os.ReadFile(loader.File)
	require.NoError(t, err)
	tree := bytes.LastIndex(program, []byte("\xD0\x0D\xFE\xED"))
	assert.True(t, bytes.HasPrefix(plain, program[:tree]), "the program is Debian's")
	path := filepath.Join(t.TempDir(), "tree")
	require.NoError(t, os.WriteFile(path, program[tree:], 0o644))
	assert.Equal(t, "boot\n", tool(t, "", "fdtget", path, "/config", "bootcmd"))
	assert.Equal(t, "1\n", tool(t, "", "fdtget", path, "/config", "bootsecure"))
	place, _ := b.Flash.Partition("boot")
	assert.LessOrEqual(t, int64(len(program)), place.Size)

	require.NoError(t, os.WriteFile(path, []byte("no device tree"), 0o644))
	loader.File = path
	_, err = bootLoader(loader, t.TempDir())
	assert.ErrorContains(t, err, "expected a device tree")
	loader.File = filepath.Join(t.TempDir(), "none")
	_, err = bootLoader(loader, t.TempDir())
	assert.ErrorContains(t, err, "u-boot-qemu")
}
