package board

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBoards(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range All() {
		t.Run(b.Name, func(t *testing.T) {
			assert.False(t, seen[b.Name], "two boards of one name")
			seen[b.Name] = true
			fragments, err := b.KernelFragments()
			require.NoError(t, err)
			assert.Contains(t, fragments, "CONFIG_INET=y")
			assert.Contains(t, b.PortNames(), b.WAN)
			assert.Contains(t, b.PortNames(), b.LAN)
			assert.NotEqual(t, b.WAN, b.LAN)
			assert.NotEmpty(t, b.Consoles)
			assert.True(t, strings.Contains(b.Kernel.CommandLine, "console="+b.Consoles[0]), "the kernel's console is the first")
			found, err := ByName(b.Name)
			require.NoError(t, err)
			assert.Equal(t, b, found)
			if b.CPU.GOARCH != "arm64" && b.CPU.GOARCH != "amd64" {
				assert.Contains(t, fragments, "CONFIG_COMPAT_32BIT_TIME=y")
			}
		})
	}
}

// TestFlash checks that the partitions of each board lie on its flash, apart.
func TestFlash(t *testing.T) {
	for _, b := range All() {
		t.Run(b.Name, func(t *testing.T) {
			var end, kept int64
			for _, p := range b.Flash.Partitions {
				assert.GreaterOrEqual(t, p.Offset, end, "%s begins before the one ahead of it ends", p.Name)
				assert.Positive(t, p.Size, p.Name)
				assert.Zero(t, (p.Offset|p.Size)%(64<<10), "%s is not made of erase blocks", p.Name)
				end = p.Offset + p.Size
				switch p.Name {
				case ConfigurationPartition:
					kept++
					assert.LessOrEqual(t, end, b.QEMU.FlashSize)
				case "image":
					assert.Equal(t, b.ImageLimit, p.Size)
				case Slots[0], Slots[1]:
					room := p.Size
					if b.Flash.Chip != "" {
						room-- // for the slot's state
					}
					assert.LessOrEqual(t, b.ImageLimit, room)
				}
			}
			assert.EqualValues(t, 1, kept, "one partition is for the configuration")
			if b.Flash.Chip == "" {
				assert.NotContains(t, b.Kernel.CommandLine, "mtdparts")
				assert.Equal(t, b.Flash.DiskSize(), b.QEMU.FlashSize)
				return
			}
			assert.Contains(t, b.Kernel.CommandLine, "mtdparts="+b.Flash.Chip+":")
		})
	}
	malta, err := ByName("malta")
	require.NoError(t, err)
	assert.Equal(t, "mtdparts=1e000000.flash:320k@0k(boot),3520k@320k(image),128k@3840k(postern-config),128k@3968k(environment)",
		malta.Flash.mtdparts())
	assert.EqualValues(t, malta.QEMU.FlashSize, 4<<20)
}

func TestUnknownBoard(t *testing.T) {
	_, err := ByName("wrt54g")
	require.ErrorContains(t, err, "wrt54g")
	assert.ErrorContains(t, err, "malta, maltael, virt-armv7, virt-arm64, pc")
}

func TestCompilerPackages(t *testing.T) {
	pc, err := ByName("pc")
	require.NoError(t, err)
	assert.Equal(t, []string{"gcc", "libc6-dev"}, pc.CPU.CompilerPackages("amd64"))
	assert.Equal(t, []string{"gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"}, pc.CPU.CompilerPackages("arm64"))
}
