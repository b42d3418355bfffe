package main

import (
	"bytes"
	"encoding/binary"
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

// chipBoards are those to test that start from a flash chip by a boot loader on it,
// with two slots or with one place for an image.
func chipBoards(slots bool) []board.Board {
	var chips []board.Board
	for _, b := range boards() {
		if _, two := b.Flash.Partition(board.Slots[0]); two == slots && b.Flash.Chip != "" && b.Image.BootLoader.File != "" {
			chips = append(chips, b)
		}
	}
	return chips
}

// TestChipBoot starts boards from their flash chips by U-Boot: the manual's example
// passes, and what was set outlives a cut of the power.
func TestChipBoot(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range append(chipBoards(false), chipBoards(true)...) {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testFlashBoot(t, b, func(*machineOptions) {})
		})
	}
}

// TestChipReboot starts maltael from its chip again without QEMU's help, which else
// brings the flash into its order, and then with a damaged image.
func TestChipReboot(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range chipBoards(false) {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			k := newFlash(t, b)
			k.start(t, "postern", func(o *machineOptions) { o.fromFlash, o.reboot = true, true })
			require.NoError(t, k.m.send("/system identity set name=first; /system reboot\ry\r"))
			_, err := k.m.expect("U-Boot 20")
			require.NoError(t, err)
			_, err = k.m.expect("\n[admin@first] > ")
			require.NoError(t, err)
			k.m.kill()

			image, _ := b.Flash.Partition("image")
			k.patch(t, image.Offset+1<<20, func(data []byte) { data[0] ^= 1 })
			k.m, err = startMachine(b, k.n, k.dir, machineOptions{image: filepath.Join(imageDir, b.Name), flash: k.flash(), fromFlash: true})
			require.NoError(t, err)
			said, err := k.m.expect("edit: ")
			require.NoError(t, err)
			assert.Contains(t, said, "Bad Data CRC")
			assert.Contains(t, said, "run rescue")
			require.NoError(t, k.m.send("version\r"))
			_, err = k.m.expect("mipsel-linux-gnu-gcc")
			require.NoError(t, err)
			_, err = k.m.expect("edit: ")
			require.NoError(t, err)
		})
	}
}

// newFlash is newKeeper with the flash of the factory.
func newFlash(t *testing.T, b board.Board) *keeper {
	t.Helper()
	k := newKeeper(t, b)
	require.NoError(t, os.Remove(k.flash()))
	_, err := makeFlash(b, machineOptions{image: filepath.Join(imageDir, b.Name), fromFlash: true}, k.flash())
	require.NoError(t, err)
	return k
}

// patch changes 64 bytes of the flash.
func (k *keeper) patch(t *testing.T, at int64, change func([]byte)) {
	t.Helper()
	f, err := os.OpenFile(k.flash(), os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	data := make([]byte, 64)
	_, err = f.ReadAt(data, at)
	require.NoError(t, err)
	change(data)
	_, err = f.WriteAt(data, at)
	require.NoError(t, err)
}

// The states of a slot.
var (
	confirmed = []uint32{0x50535431, 1, 0, 0}
	fresh     = []uint32{0x50535431, 2, 0xFFFFFFFF, 0xFFFFFFFF}
	failed    = []uint32{0x50535431, 2, 0, 0xFFFFFFFF}
	newer     = []uint32{0x50535431, 2, 0, 0}
	noState   = []uint32{0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}
)

// TestChipSlots looks which slot U-Boot begins with, and that it begins with none that
// was tampered with.
func TestChipSlots(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range chipBoards(true) {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			image := filepath.Join(imageDir, b.Name, slotImage)
			good, err := os.ReadFile(image)
			require.NoError(t, err)
			tools := t.TempDir()
			// edited is the image after a program has changed it.
			edited := func(name string, args ...string) []byte {
				path := filepath.Join(tools, "image")
				require.NoError(t, os.WriteFile(path, good, 0o600))
				for i, a := range args {
					args[i] = strings.ReplaceAll(a, "IMAGE", path)
				}
				cmd := exec.Command(name, args...)
				cmd.Dir = ".."
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, "%s", out)
				data, err := os.ReadFile(path)
				require.NoError(t, err)
				return data
			}
			flipped := func(part string) []byte {
				data := bytes.Clone(good)
				content, err := os.ReadFile(filepath.Join(imageDir, b.Name, part))
				require.NoError(t, err)
				at := bytes.Index(data, content)
				require.Positive(t, at, part)
				data[at+len(content)/2] ^= 1
				return data
			}
			others := filepath.Join(tools, "keys")
			edited("go", "run", "./image", "keys", others)
			k := newFlash(t, b)
			k.keep(t, 1, unwellConfiguration)
			for _, c := range []struct {
				name string
				// images and states of slots a and b.
				images [2][]byte
				states [2][]uint32
				// starts are the slots that are begun with, one start after the other; "" if
				// there is none.
				starts []string
				// says is what U-Boot says then.
				says string
			}{
				{"the only one", [2][]byte{good, nil}, [2][]uint32{confirmed, noState}, []string{"a"}, ""},
				{"the newer of two", [2][]byte{good, good}, [2][]uint32{confirmed, newer}, []string{"b"}, ""},
				{"a new one is tried once", [2][]byte{good, good}, [2][]uint32{confirmed, fresh}, []string{"b", "a", "a"}, ""},
				{"one that was tried in vain", [2][]byte{good, good}, [2][]uint32{confirmed, failed}, []string{"a"}, "Slot b was tried and not confirmed."},
				{"no state, as when somebody wrote an image by hand", [2][]byte{good, nil}, [2][]uint32{noState, noState}, []string{"a"}, ""},
				{"nothing", [2][]byte{nil, nil}, [2][]uint32{noState, noState}, []string{""}, "No slot starts."},
				{"another bit in the kernel", [2][]byte{good, flipped("kernel")}, [2][]uint32{confirmed, newer}, []string{"a"}, "Bad Data Hash"},
				{"another bit in the initramfs", [2][]byte{good, flipped("initramfs.cpio.xz")}, [2][]uint32{confirmed, newer}, []string{"a"}, "Bad Data Hash"},
				{"the signature is missing", [2][]byte{good, edited("fdtput", "-r", "IMAGE", "/configurations/conf/signature")},
					[2][]uint32{confirmed, fresh}, []string{"a"}, "Failed to verify required signature"},
				{"another's signature", [2][]byte{edited("mkimage", "-F", "-k", others, "-r", "IMAGE"), good},
					[2][]uint32{newer, confirmed}, []string{"b"}, "Failed to verify required signature"},
				{"the old form of image, which has no signature", [2][]byte{good, edited("mkimage", "-A", b.Kernel.Arch, "-O", "linux", "-T", "kernel", "-C", "none",
					"-a", "0x41000000", "-e", "0x41000000", "-d", filepath.Join("out", b.Name, "kernel"), "IMAGE")},
					[2][]uint32{confirmed, newer}, []string{"a"}, "Slot b does not start."},
				{"another bit in both", [2][]byte{flipped("kernel"), flipped("kernel")}, [2][]uint32{confirmed, newer}, []string{""}, "No slot starts."},
			} {
				t.Run(c.name, func(t *testing.T) {
					k.writeSlots(t, c.images, c.states)
					for i, want := range c.starts {
						before := k.bank(t)
						k.m, err = startMachine(b, k.n, k.dir, machineOptions{image: filepath.Join(imageDir, b.Name), flash: k.flash(), fromFlash: true})
						require.NoError(t, err)
						until, kernels := "\n=> ", 0
						if want != "" {
							until, kernels = "\n[admin@"+unwell+"] > ", 1
						}
						said, err := k.m.expect(until)
						require.NoError(t, err)
						assert.Equal(t, kernels, strings.Count(said, linuxStarts), "start %d:\n%s", i+1, said)
						if want != "" {
							assert.Equal(t, want, k.slot(t), "the slot of start %d", i+1)
						}
						k.m.kill()
						if i == 0 {
							assert.Contains(t, said, c.says)
						}
						// It is marked before it is started, and nothing else is written.
						for s, state := range c.states {
							if i == 0 && binary.LittleEndian.Uint32(before[k.stateAt(s)+8:]) == 0xFFFFFFFF && state[0] == fresh[0] {
								clear(before[k.stateAt(s)+8:][:4])
							}
						}
						assert.True(t, bytes.Equal(before, k.bank(t)), "the flash after start %d", i+1)
					}
				})
			}
		})
	}
}

// stateAt is where the state of a slot is: in its last erase block.
func (k *keeper) stateAt(slot int) int64 {
	p, _ := k.b.Flash.Partition(board.Slots[slot])
	return p.Offset + k.b.ImageLimit
}

// writeSlots writes the slots of the flash, of which nothing else is changed.
func (k *keeper) writeSlots(t *testing.T, images [2][]byte, states [2][]uint32) {
	t.Helper()
	f, err := os.OpenFile(k.flash(), os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	for i, image := range images {
		p, _ := k.b.Flash.Partition(board.Slots[i])
		slot := bytes.Repeat([]byte{0xFF}, int(p.Size))
		copy(slot, image)
		_, err := binary.Encode(slot[k.b.ImageLimit:], binary.LittleEndian, states[i])
		require.NoError(t, err)
		_, err = f.WriteAt(slot, p.Offset)
		require.NoError(t, err)
	}
}

// bank reads the flash up to the end of the slots.
func (k *keeper) bank(t *testing.T) []byte {
	t.Helper()
	f, err := os.Open(k.flash())
	require.NoError(t, err)
	defer f.Close()
	p, _ := k.b.Flash.Partition(board.Slots[1])
	data := make([]byte, p.Offset+p.Size)
	_, err = f.ReadAt(data, 0)
	require.NoError(t, err)
	return data
}
