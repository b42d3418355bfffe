package board

import (
	"fmt"
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
			assert.Contains(t, b.PortNames(), b.LAN)
			if len(b.Ports) > 1 {
				assert.Contains(t, b.PortNames(), b.WAN)
			} else {
				assert.Empty(t, b.WAN)
			}
			assert.NotEqual(t, b.WAN, b.LAN)
			assert.Subset(t, b.PortNames(), b.Bridged)
			assert.NotContains(t, b.Bridged, b.WAN)
			assert.NotContains(t, b.Bridged, b.LAN)
			devices := map[string]bool{}
			for _, p := range b.Ports {
				assert.NotEmpty(t, p.Device, p.Name)
				assert.False(t, devices[p.Device], "two ports are %s", p.Device)
				devices[p.Device] = true
				assert.LessOrEqual(t, len(p.Name), 15, "the kernel's limit")
			}
			assert.Positive(t, b.Memory)
			assert.NotEmpty(t, b.Description)
			assert.NotEmpty(t, b.Image.Form)
			assert.NotEmpty(t, b.Kernel.Name)
			assert.NotEmpty(t, b.Kernel.Target)
			assert.True(t, b.QEMU.Machine != "" || b.Flashing != "", "it says how it is flashed, unless only QEMU has it")
			if b.Flash.Partitions != nil {
				assert.Positive(t, b.ImageLimit)
			}
			switch b.Image.Form {
			case FlatUImage, TPLink, ELF:
				assert.Len(t, b.Image.DeviceTrees, 1)
				assert.Equal(t, "vmlinux", b.Kernel.Image, "with symbols")
			}
			assert.NotEmpty(t, b.Consoles)
			terminal, speed := b.Serial()
			assert.Equal(t, b.Consoles[0], terminal, "the kernel's console is the first")
			assert.Regexp(t, `^[1-9]\d+$`, speed)
			found, err := ByName(b.Name)
			require.NoError(t, err)
			assert.Equal(t, b, found)
			if !strings.HasSuffix(b.CPU.GOARCH, "64") {
				assert.Contains(t, fragments, "CONFIG_COMPAT_32BIT_TIME=y")
			}
		})
	}
}

// TestKernels checks that boards with the same kernel name build the same kernel.
func TestKernels(t *testing.T) {
	first := map[string]Board{}
	for _, b := range All() {
		one, known := first[b.Kernel.Name]
		if !known {
			first[b.Kernel.Name] = b
			continue
		}
		a, c := one.Kernel, b.Kernel
		a.CommandLine, c.CommandLine = "", ""
		assert.Equal(t, a, c, "%s and %s", one.Name, b.Name)
		assert.Equal(t, one.CPU, b.CPU, "%s and %s", one.Name, b.Name)
	}
}

// TestOcteonRamdisk checks that the kernel looks for the initramfs where the image has it.
func TestOcteonRamdisk(t *testing.T) {
	b, err := ByName("edgerouter-lite")
	require.NoError(t, err)
	fragments, err := b.KernelFragments()
	require.NoError(t, err)
	assert.Contains(t, fragments, fmt.Sprintf(`CONFIG_CMDLINE="rd_start=%#x rd_size=%#x `, b.Image.Ramdisk, b.Image.RamdiskSize))
}

// TestDeviceTreeChanges checks that each file of changes belongs to a board.
func TestDeviceTreeChanges(t *testing.T) {
	files, err := deviceTreeChanges.ReadDir("dts")
	require.NoError(t, err)
	for _, f := range files {
		b, err := ByName(strings.TrimSuffix(f.Name(), ".dtsi"))
		require.NoError(t, err)
		assert.NotEmpty(t, b.DeviceTreeChanges())
	}
	malta, err := ByName("malta")
	require.NoError(t, err)
	assert.Empty(t, malta.DeviceTreeChanges())
}

func TestDefaultConfiguration(t *testing.T) {
	for _, c := range []struct {
		board      string
		has, lacks []string
	}{
		{"malta", []string{"list=LAN interface=ether2 ", "list=WAN interface=ether1 ", "192.168.0.1/24 interface=ether2 ",
			"dhcp-client add interface=ether1 ", "dhcp-server add name=defconf interface=ether2 "}, []string{"bridge"}},
		{"tl-mr3020", []string{"list=LAN interface=ether1 ", "dhcp-client add interface=ether1 "}, []string{"ether2", "dhcp-server", "/24"}},
		{"nanopi-r4s", []string{"list=LAN interface=lan ", "list=WAN interface=wan ", "192.168.0.1/24 interface=lan "}, []string{"bridge", "ether"}},
		{"bananapi-r2", []string{"/interface bridge add name=bridge ", "add bridge=bridge interface=lan0 ", "add bridge=bridge interface=lan3 ",
			"list=LAN interface=bridge ", "192.168.0.1/24 interface=bridge ", "dhcp-server add name=defconf interface=bridge "}, []string{"bridge=bridge interface=wan", "ether"}},
	} {
		t.Run(c.board, func(t *testing.T) {
			b, err := ByName(c.board)
			require.NoError(t, err)
			for _, has := range append(c.has, "\n/ip service set ssh disabled=no\n", "\n/ip service set api disabled=no\n") {
				assert.Contains(t, b.DefaultConfiguration(), has)
			}
			for _, lacks := range c.lacks {
				assert.NotContains(t, b.DefaultConfiguration(), lacks)
			}
		})
	}
	malta, err := ByName("malta")
	require.NoError(t, err)
	assert.Equal(t, defaultConfiguration, malta.DefaultConfiguration())
}

// TestFlash checks that the partitions of each board fit on its flash and do not overlap.
func TestFlash(t *testing.T) {
	for _, b := range All() {
		t.Run(b.Name, func(t *testing.T) {
			var end, kept int64
			for _, p := range b.Flash.Partitions {
				assert.GreaterOrEqual(t, p.Offset, end, "%s overlaps the partition before it", p.Name)
				assert.Positive(t, p.Size, p.Name)
				assert.Zero(t, (p.Offset|p.Size)%(64<<10), "%s does not consist of erase blocks", p.Name)
				end = p.Offset + p.Size
				switch p.Name {
				case ConfigurationPartition:
					kept++
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
			if b.Flash.Partitions == nil {
				assert.Equal(t, "tplink-hc220-g5", b.Name, "the one board that keeps nothing")
				return
			}
			assert.EqualValues(t, 1, kept, "one partition is for the configuration")
			size := b.Flash.Size
			if size == 0 {
				size = b.QEMU.FlashSize
			}
			if b.Flash.Chip != "" || b.QEMU.Machine != "" {
				assert.LessOrEqual(t, end, size)
			}
			if b.Flash.Chip == "" {
				assert.NotContains(t, b.Kernel.CommandLine, "mtdparts")
				if b.QEMU.Machine != "" {
					assert.Equal(t, b.Flash.DiskSize(), b.QEMU.FlashSize)
				}
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

// What a small flash has no room for is left out of these boards, and of no others.
func TestSmall(t *testing.T) {
	var small []string
	for _, b := range All() {
		assert.Equal(t, b.Small(), b.GoTags() != "")
		if b.Small() {
			small = append(small, b.Name)
		}
	}
	assert.Equal(t, []string{"malta", "maltael", "tl-mr3020"}, small)
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
