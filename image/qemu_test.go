package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
)

// TestQEMUCommand compares commands with those that were typed and had the board's ports.
func TestQEMUCommand(t *testing.T) {
	for _, c := range []struct{ board, want string }{
		{"pc", `qemu-system-x86_64 -nographic -vga none -snapshot -machine pc -m 64 \
    -drive if=none,id=flash,format=raw,file=out/pc/factory.img \
    -device virtio-blk-pci,drive=flash,addr=0x6 \
    -device i6300esb \
    -netdev user,id=ether1 -device virtio-net-pci,romfile=,addr=0x4,netdev=ether1 \
    -netdev user,id=ether2,net=192.168.0.0/24,host=192.168.0.2 -device virtio-net-pci,romfile=,addr=0x5,netdev=ether2
`},
		{"malta", `qemu-system-mips -nographic -vga none -snapshot -machine malta -m 32 \
    -cpu 24Kc \
    -kernel out/malta/kernel -initrd out/malta/initramfs.cpio.xz \
    -append 'console=ttyS0,115200 lpj=20000000 loglevel=6 panic=10 mtdparts=1e000000.flash:320k@0k(boot),3520k@320k(image),128k@3840k(postern-config),128k@3968k(environment)' \
    -drive if=pflash,unit=0,format=raw,file=out/malta/factory.img \
    -device i6300esb,addr=0x13 \
    -netdev user,id=ether1 -device virtio-net-pci,romfile=,addr=0x12,netdev=ether1 \
    -netdev user,id=ether2,net=192.168.0.0/24,host=192.168.0.2 -device virtio-net-pci,romfile=,addr=0x14,netdev=ether2
`},
		{"orangepi-pc", `qemu-system-arm -nographic -vga none -snapshot -machine orangepi-pc -m 1024 \
    -cpu cortex-a7,cntfrq=24000000 \
    -drive if=sd,format=raw,file=out/orangepi-pc/factory.img \
    -netdev user,id=ether1,net=192.168.0.0/24,host=192.168.0.2 -net nic,model=allwinner-sun8i-emac,netdev=ether1 \
    -netdev user,id=ether2 -device usb-net,bus=usb-bus.5,netdev=ether2
`},
	} {
		t.Run(c.board, func(t *testing.T) {
			b, err := board.ByName(c.board)
			require.NoError(t, err)
			command, err := qemuCommand(b, "out")
			require.NoError(t, err)
			assert.Equal(t, c.want, command)
		})
	}
	t.Run("a board without a machine", func(t *testing.T) {
		b, err := board.ByName("apu2")
		require.NoError(t, err)
		_, err = qemuCommand(b, "out")
		assert.EqualError(t, err, "apu2: QEMU has no machine like it")
	})
}

// Whoever asks for what cannot be is told so before anything is built or installed.
func TestNoMachine(t *testing.T) {
	assert.EqualError(t, logic([]string{"setup", "--lab", "apu2"}), "no lab of apu2: QEMU has no machine like it")
	out := t.TempDir()
	assert.EqualError(t, logic([]string{"qemu", "--out", out, "pc"}), out+"/pc/factory.img is not there: go run ./image build pc makes it")
}

func TestShellQuote(t *testing.T) {
	for _, c := range []struct{ word, want string }{
		{"-m", "-m"},
		{"user,id=a.b:1@c%d+e/f", "user,id=a.b:1@c%d+e/f"},
		{"", "''"},
		{"two words", "'two words'"},
		{"$HOME", "'$HOME'"},
		{"it's", `'it'\''s'`},
	} {
		assert.Equal(t, c.want, shellQuote(c.word))
	}
}

// TestDescribe checks that `image boards` tells of every board what its user needs first.
func TestDescribe(t *testing.T) {
	serial := regexp.MustCompile(`\n +serial line: tty\w+, [1-9]\d+ bit/s, 8N1\n`)
	for _, b := range board.All() {
		t.Run(b.Name, func(t *testing.T) {
			text := describe(b)
			assert.Regexp(t, serial, text)
			flashing := strings.Contains(text, " to flash: ")
			machine := strings.Contains(text, " in QEMU: go run ./image qemu "+b.Name+"\n")
			assert.True(t, flashing || machine, "%s", text)
			assert.Equal(t, b.Flashing != "", flashing)
		})
	}
	for name, ports := range map[string]string{"tl-mr3020": "port: ether1", "nanopi-r4s": "WAN: wan, LAN: lan", "tplink-hc220-g5": "WAN: wan, LAN: lan1 lan2"} {
		b, err := board.ByName(name)
		require.NoError(t, err)
		assert.Contains(t, describe(b), " "+ports+"\n")
	}
	pc, err := board.ByName("pc")
	require.NoError(t, err)
	assert.Contains(t, describe(pc), "for a real one take x86-64", "its ports are where QEMU has them")
}
