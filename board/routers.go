package board

import (
	"fmt"
	"strings"
)

// The boards that one can buy. Their flash layouts and boot loaders are taken from their device
// trees in the kernel's source, or else from their vendors' firmware and from OpenWrt. Nobody
// has started Postern on one of them yet, as Verified says.

// Processors of the boards.
var (
	mipsBE   = CPU{GOARCH: "mips", GOMIPS: "softfloat", Cross: "mips-linux-gnu-", Debian: "mips"}
	mipsLE   = CPU{GOARCH: "mipsle", GOMIPS: "softfloat", Cross: "mipsel-linux-gnu-", Debian: "mipsel"}
	mips64BE = CPU{GOARCH: "mips64", GOMIPS: "softfloat", Cross: "mips64-linux-gnuabi64-", Debian: "mips64"}
	armv7    = CPU{GOARCH: "arm", GOARM: "7", Cross: "arm-linux-gnueabihf-", Debian: "armhf"}
	arm64    = CPU{GOARCH: "arm64", Cross: "aarch64-linux-gnu-", Debian: "arm64"}
	amd64    = CPU{GOARCH: "amd64", Cross: "x86_64-linux-gnu-", Debian: "amd64"}
)

// Kernels that several boards share; each board adds its command line.
var (
	armv7Kernel = Kernel{Name: "armv7", Arch: "arm",
		Fragments: []string{"common", "disk", "arm", "virt", "flash", "spi-nor", "button", "arm-boards", "armv7"},
		Target:    "zImage", Image: "arch/arm/boot/zImage", Objects: 1314}
	arm64Kernel = Kernel{Name: "arm64", Arch: "arm64",
		Fragments: []string{"common", "disk", "arm64", "virt", "flash", "spi-nor", "button", "arm-boards", "arm64-boards"},
		Target:    "Image.gz", Image: "arch/arm64/boot/Image.gz", Objects: 1292}
	pcKernel = Kernel{Name: "x86_64", Arch: "x86", Fragments: []string{"common", "disk", "x86_64"},
		Target: "bzImage", Image: "arch/x86/boot/bzImage", Objects: 1420}
	ath79Kernel = Kernel{Name: "ath79", Arch: "mips",
		Fragments: []string{"common", "mips", "mips-be", "ath79", "spi-nor", "button"},
		Target:    "vmlinux", Image: "vmlinux", Objects: 890}
	mt7621Kernel = Kernel{Name: "mt7621", Arch: "mips",
		Fragments: []string{"common", "mips", "mips-le", "mt7621", "spi-nor", "button"},
		Target:    "vmlinux", Image: "vmlinux", Objects: 945}
	octeonKernel = Kernel{Name: "octeon", Arch: "mips",
		Fragments: []string{"common", "disk", "mips-be", "octeon"},
		Target:    "vmlinux", Image: "vmlinux", Objects: 967}
)

// with returns the kernel with a command line: the serial line, the words for all boards, and
// the partitions of a flash chip.
func (k Kernel) with(console string, f Flash) Kernel {
	k.CommandLine = "console=" + console + " " + commandLine
	if f.Chip != "" {
		k.CommandLine += " " + f.mtdparts()
	}
	return k
}

// switchPorts returns ports of a switch (DSA), which have the names of their labels.
func switchPorts(names ...string) []Port {
	var ports []Port
	for _, n := range names {
		ports = append(ports, Port{Name: n, Device: n})
	}
	return ports
}

// card is the layout of an SD card or an eMMC chip: a file system that the boot loader reads,
// then the partitions of a PC's disk. The space before the file system is the boot loader's.
func card() Flash {
	return Flash{Partitions: []Partition{
		{"boot", 16 << 20, 16 << 20},
		{Slots[0], 32 << 20, slotSize},
		{Slots[1], 32<<20 + slotSize, slotSize},
		{ConfigurationPartition, 80 << 20, 1 << 20},
		{StatePartition, 81 << 20, 1 << 20},
		{SlotStates, 82 << 20, 1 << 20},
	}}
}

// cardFlashing is Board.Flashing of a board that starts from a card by its own boot loader.
const cardFlashing = "write factory.img to the card; the board's own U-Boot runs boot.scr of the first partition"

// armBoard returns a board that its own U-Boot starts from a card. load is the address of the
// kernel in memory. It must not overlap what U-Boot has loaded by then (around its
// kernel_addr_r) or memory of the firmware, and must be a multiple of 2 MiB for ARMv8.
func armBoard(name, description, tree, console string, cpu CPU, kernel Kernel, load uint64, memory int, ports []Port, wan string, lan ...string) Board {
	flash := card()
	terminal, _, _ := strings.Cut(console, ",")
	b := Board{
		Name: name, Description: description, CPU: cpu, Kernel: kernel.with(console, flash),
		Ports: ports, WAN: wan, LAN: lan[0],
		Consoles: []string{terminal}, Memory: memory, Flash: flash,
		Image:      Image{Form: FIT, Load: load, DeviceTrees: []string{tree}},
		ImageLimit: slotSize,
		Flashing:   cardFlashing,
	}
	if len(lan) > 1 {
		b.Bridged = lan[1:]
	}
	return b
}

func routers() []Board {
	// The first 128 KiB are the boot loader's, the last 64 KiB the radio's calibration.
	mr3020 := Flash{Chip: "spi0.0", Size: 4 << 20, Partitions: []Partition{
		{"boot", 0, 128 << 10},
		{"image", 128 << 10, 3776 << 10},
		{ConfigurationPartition, 3904 << 10, 128 << 10},
		{"art", 4032 << 10, 64 << 10},
	}}
	dpt := Flash{Chip: "spi0.0", Size: 16 << 20, Partitions: []Partition{
		{"boot", 0, 128 << 10},
		{"image", 128 << 10, 15936 << 10},
		{ConfigurationPartition, 16064 << 10, 128 << 10},
		{StatePartition, 16192 << 10, 128 << 10},
		{"art", 16320 << 10, 64 << 10},
	}}
	// The first three partitions are those of the device tree.
	gnubee := Flash{Chip: "spi0.0", Size: 32 << 20, Partitions: []Partition{
		{"boot", 0, 192 << 10},
		{"environment", 192 << 10, 64 << 10},
		{"factory", 256 << 10, 64 << 10},
		{"image", 320 << 10, 32192 << 10},
		{ConfigurationPartition, 32512 << 10, 128 << 10},
		{StatePartition, 32640 << 10, 128 << 10},
	}}
	// The stick in the case. The boot loader reads the image from the FAT file system on its
	// first partition.
	stick := Flash{Partitions: []Partition{
		{"boot", 1 << 20, 32 << 20},
		{ConfigurationPartition, 33 << 20, 1 << 20},
		{StatePartition, 34 << 20, 1 << 20},
	}}
	const uimage = "at the boot loader's prompt, load slot.img from a TFTP server and write it to the partition image; or use the vendor's recovery page"
	return []Board{
		{
			Name: "tl-mr3020", Description: "TP-Link TL-MR3020 v1, AR9331, one port", CPU: mipsBE,
			Kernel: ath79Kernel.with("ttyATH0,115200", mr3020),
			Ports:  []Port{{Name: "ether1", Device: "platform/ahb/19000000.ethernet"}},
			LAN:    "ether1", Consoles: []string{"ttyATH0"}, Memory: 32, Flash: mr3020, ImageLimit: 3776 << 10,
			Image:    Image{Form: TPLink, Hardware: 0x3020_0001, DeviceTrees: []string{"qca/ar9331_tl_mr3020"}},
			Flashing: "give factory.img to the vendor's page for upgrades; after a failure, load slot.img by TFTP at the boot loader's prompt and write it to 0x9f020000",
		},
		{
			Name: "dpt-module", Description: "DPTechnics DPT-Module, AR9331, two ports", CPU: mipsBE,
			Kernel: ath79Kernel.with("ttyATH0,115200", dpt),
			Ports:  append([]Port{{Name: "wan", Device: "platform/ahb/19000000.ethernet"}}, switchPorts("lan0")...),
			WAN:    "wan", LAN: "lan0", Consoles: []string{"ttyATH0"}, Memory: 64, Flash: dpt, ImageLimit: 15936 << 10,
			Image:    Image{Form: FlatUImage, DeviceTrees: []string{"qca/ar9331_dpt_module"}},
			Flashing: uimage,
		},
		{
			// It keeps nothing: the kernel has no driver for its NAND flash.
			Name: "tplink-hc220-g5", Description: "TP-Link HC220 G5 v1, MT7621, three ports", CPU: mipsLE,
			Kernel: mt7621Kernel.with("ttyS0,115200", Flash{}), Ports: switchPorts("wan", "lan1", "lan2"),
			WAN: "wan", LAN: "lan1", Bridged: []string{"lan2"}, Consoles: []string{"ttyS0"}, Memory: 128,
			Image:    Image{Form: FlatUImage, DeviceTrees: []string{"ralink/mt7621-tplink-hc220-g5-v1"}},
			Flashing: "not possible: Linux 6.12 has no driver for its flash. Load slot.img by TFTP at the boot loader's prompt and start it by bootm; settings are lost when the power is off",
		},
		{
			Name: "gnubee-pc1", Description: "GnuBee Personal Cloud 1, MT7621, two ports", CPU: mipsLE,
			Kernel: mt7621Kernel.with("ttyS0,57600", gnubee), Ports: switchPorts("ethblack", "ethblue"),
			WAN: "ethblack", LAN: "ethblue", Consoles: []string{"ttyS0"}, Memory: 512, Flash: gnubee, ImageLimit: 32192 << 10,
			Image:    Image{Form: FlatUImage, DeviceTrees: []string{"ralink/mt7621-gnubee-gb-pc1"}},
			Flashing: uimage,
		},
		{
			Name: "edgerouter-lite", Description: "Ubiquiti EdgeRouter Lite (e100), Octeon, three ports", CPU: mips64BE,
			Kernel: octeonKernel.with("ttyS0,115200", stick),
			// One device has all ports. The driver names them as the case does.
			Ports: switchPorts("eth0", "eth1", "eth2"), WAN: "eth0", LAN: "eth1", Bridged: []string{"eth2"},
			Consoles: []string{"ttyS0"}, Memory: 512, Flash: stick, ImageLimit: 31 << 20,
			Image:    Image{Form: ELF, Ramdisk: octeonRamdisk, RamdiskSize: octeonRamdiskSize, DeviceTrees: []string{"cavium-octeon/ubnt_e100"}},
			Flashing: "write factory.img, in another computer, to the USB stick that is in the case; the boot loader starts vmlinux.64 from it, as the vendor has set",
		},
		orangePiPC(),
		armBoard("bananapi-r2", "Banana Pi R2, MT7623, five ports", "mediatek/mt7623n-bananapi-bpi-r2", "ttyS0,115200",
			armv7, armv7Kernel, 0x8100_0000, 2048, switchPorts("wan", "lan0", "lan1", "lan2", "lan3"), "wan", "lan0", "lan1", "lan2", "lan3"),
		armBoard("turris-omnia", "Turris Omnia, Armada 385, six ports", "marvell/armada-385-turris-omnia", "ttyS0,115200", armv7, armv7Kernel, 0x0100_0000, 1024,
			append([]Port{{Name: "wan", Device: "platform/soc/soc:internal-regs/f1034000.ethernet"}}, switchPorts("lan0", "lan1", "lan2", "lan3", "lan4")...),
			"wan", "lan0", "lan1", "lan2", "lan3", "lan4"),
		armBoard("bananapi-r3", "Banana Pi R3, MT7986, seven ports", "mediatek/mt7986a-bananapi-bpi-r3", "ttyS0,115200", arm64, arm64Kernel, 0x4800_0000, 2048,
			append(switchPorts("wan", "lan0", "lan1", "lan2", "lan3", "lan4"), Port{Name: "sfp1", Device: "eth1"}),
			"wan", "lan0", "lan1", "lan2", "lan3", "lan4"),
		armBoard("espressobin", "Globalscale ESPRESSObin, Armada 3720, three ports", "marvell/armada-3720-espressobin", "ttyMV0,115200",
			arm64, arm64Kernel, 0x0700_0000, 1024, switchPorts("wan", "lan0", "lan1"), "wan", "lan0", "lan1"),
		armBoard("nanopi-r4s", "FriendlyElec NanoPi R4S, RK3399, two ports", "rockchip/rk3399-nanopi-r4s", "ttyS2,1500000", arm64, arm64Kernel, 0x0220_0000, 1024,
			[]Port{{Name: "wan", Device: "platform/fe300000.ethernet"}, {Name: "lan", Device: "platform/f8000000.pcie"}}, "wan", "lan"),
		rpi4(),
		anyPC(),
		apu2(),
	}
}

// octeonRamdisk is the virtual address of the initramfs on an Octeon, and octeonRamdiskSize its
// size in bytes. They are the same in all images, since its kernel takes them from the command
// line only, and that part of it is compiled in (kernel/octeon.config).
const (
	octeonRamdisk     = 0xFFFF_FFFF_8210_0000
	octeonRamdiskSize = 4 << 20
)

// rpi4 starts by Broadcom's firmware, which reads files.
func rpi4() Board {
	b := armBoard("rpi-4", "Raspberry Pi 4, BCM2711, one port; a second by USB", "broadcom/bcm2711-rpi-4-b", "ttyS1,115200", arm64, arm64Kernel, 0, 1024,
		[]Port{
			{Name: "ether1", Device: "platform/scb/fd580000.ethernet"},
			// The first USB adapter; the USB controller is on PCI Express.
			{Name: "ether2", Device: "platform/scb/fd500000.pcie"},
		}, "ether1", "ether2")
	b.Image.Form = Files
	b.Flash = Flash{Partitions: []Partition{
		{"boot", 1 << 20, 32 << 20},
		{ConfigurationPartition, 33 << 20, 1 << 20},
		{StatePartition, 34 << 20, 1 << 20},
	}}
	// The rest of the partition boot is for the firmware.
	b.ImageLimit = 24 << 20
	b.Flashing = "write factory.img to a card and copy start4.elf and fixup4.dat of the Raspberry Pi's firmware, which is not free, to its first partition"
	return b
}

// anyPC is any PC. It has the disk of the machine pc and starts by BIOS or UEFI. Its ports are
// numbered in the order in which the kernel finds them.
func anyPC() Board {
	b := Board{
		Name: "x86-64", Description: "Any 64-bit PC, BIOS or UEFI, serial console, up to eight ports",
		CPU: amd64, Kernel: pcKernel.with("ttyS0,115200", Flash{}), WAN: "ether1", LAN: "ether2",
		Consoles: []string{"ttyS0"}, Memory: 64, Flash: pcDisk(),
		Image: Image{Form: Archive}, ImageLimit: slotSize,
		Flashing: "write factory.img to a disk: SATA, NVMe, SD card or USB stick",
	}
	for i := range 8 {
		b.Ports = append(b.Ports, Port{Name: fmt.Sprintf("ether%d", i+1), Device: fmt.Sprintf("eth%d", i)})
	}
	// A machine with another chip set than pc's, and with cards and disks that PCs have.
	b.QEMU = QEMU{Binary: "qemu-system-x86_64", Package: "qemu-system-x86", Machine: "q35,usb=on",
		Banks: []Bank{{Drive: "if=none,id=flash", Size: 64 << 20}}, FlashSize: 64 << 20, FlashDevice: "ide-hd,drive=flash,bus=ide.0"}
	b.Ports[0].QEMU, b.Ports[1].QEMU = "e1000e,romfile=", "e1000e,romfile="
	return b
}

// apu2 is a PC whose own three ports are named, whatever cards are plugged in.
func apu2() Board {
	b := anyPC()
	b.Name, b.Description, b.Memory = "apu2", "PC Engines apu2, AMD GX-412TC, three ports", 2048
	b.Ports = []Port{
		{Name: "ether1", Device: "pci0000:00/0000:00:02.2"},
		{Name: "ether2", Device: "pci0000:00/0000:00:02.3"},
		{Name: "ether3", Device: "pci0000:00/0000:00:02.4"},
	}
	b.Bridged = []string{"ether3"}
	b.QEMU = QEMU{} // it has no such cards at these places
	return b
}
