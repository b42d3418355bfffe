package main

import (
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

// TestFiles makes the cards of boards whose boot loaders read files, and reads them with
// common tools.
func TestFiles(t *testing.T) {
	e2e.Needs(t, "gcc", "dtc", "mkfs.vfat", "mmd", "mdir", "/usr/src/"+linuxSource+".tar.xz")
	for _, c := range []struct {
		board string
		files []string
	}{
		{"rpi-4", []string{"bcm2711-rpi-4-b.dtb", "cmdline.txt", "config.txt", "initramfs.cpio.xz", "kernel"}},
		{"edgerouter-lite", []string{"vmlinux.64"}},
	} {
		t.Run(c.board, func(t *testing.T) {
			b, err := board.ByName(c.board)
			require.NoError(t, err)
			dir, work := t.TempDir(), t.TempDir()
			for _, name := range []string{"kernel", "initramfs.cpio.xz"} {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644))
			}
			if b.Image.Form == board.Files {
				made, err := makeFiles(b, dir, work)
				require.NoError(t, err)
				for _, name := range made {
					assert.FileExists(t, filepath.Join(dir, name))
				}
			} else {
				require.NoError(t, makeStick(b, []byte("elf"), dir, work))
			}
			disk := filepath.Join(dir, factoryImage)
			out, err := exec.Command("partx", "--type", "gpt", "--raw", "--noheadings", "--output", "NAME", disk).CombinedOutput()
			require.NoError(t, err, "%s", out)
			assert.Equal(t, []string{"boot", board.ConfigurationPartition, board.StatePartition}, strings.Fields(string(out)))
			// What a boot loader sees that knows only the MBR. Current tools do not show it,
			// since there is a GPT.
			image, err := os.ReadFile(disk)
			require.NoError(t, err)
			mbr := image[446:510]
			assert.EqualValues(t, 0x0E, mbr[4])
			assert.EqualValues(t, 2048, binary.LittleEndian.Uint32(mbr[8:]))
			assert.EqualValues(t, 65536, binary.LittleEndian.Uint32(mbr[12:]))
			assert.EqualValues(t, 0xEE, mbr[16+4])
			assert.EqualValues(t, 1, binary.LittleEndian.Uint32(mbr[16+8:]), "where Linux looks for it")
			assert.EqualValues(t, 2047, binary.LittleEndian.Uint32(mbr[16+12:]), "up to the file system")
			list := exec.Command("mdir", "-b", "-i", disk+"@@1M")
			list.Env = append(os.Environ(), "MTOOLS_NO_VFAT=1")
			text, err := list.CombinedOutput()
			require.NoError(t, err, "%s", text)
			var names []string
			for _, f := range strings.Fields(string(text)) {
				names = append(names, strings.TrimPrefix(f, "::/"))
			}
			assert.Equal(t, c.files, names)
		})
	}
}
