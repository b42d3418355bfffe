// Package board declares the boards that Postern runs on: one value each, with
// everything that is particular to it — CPU, kernel, ports, console, image and
// QEMU machine. What another package needs to know of a board it reads here; a
// new board is one more value in boards, and for a new SoC one kernel fragment.
//
// It imports nothing of the project and runs nothing.
package board

import (
	"embed"
	"fmt"
	"strings"
)

// Board is one kind of router.
type Board struct {
	// Name is what BOARD= takes.
	Name string
	// Description is a line for a list of boards.
	Description string

	CPU    CPU
	Kernel Kernel
	// Ports in the order of their numbers.
	Ports []Port
	// WAN and LAN are the names of the ports that the default configuration uses. WAN is
	// empty on a board with one port. Bridged are further ports of the LAN.
	WAN, LAN string
	Bridged  []string
	// Consoles are the terminals that a console runs on, as device names in /dev.
	Consoles []string
	// Memory in MiB.
	Memory int
	// LossyTimer is the kernel's name for a timer that loses interrupts on this machine, so
	// that another is used; empty if none does.
	LossyTimer string
	// Flash is what keeps the configuration while the power is off.
	Flash Flash
	// Image is how the boot loader takes kernel and initramfs.
	Image Image
	// ImageLimit is the most that a slot image may take on flash, in bytes; 0 for no
	// limit.
	ImageLimit int64
	// Flashing says how an image gets onto the board; empty for a machine that only QEMU has.
	Flashing string

	QEMU QEMU
}

// CPU is an instruction set, and what compiles for it.
type CPU struct {
	// GOARCH, GOMIPS and GOARM are Go's names; empty where they do not apply.
	GOARCH, GOMIPS, GOARM string
	// Cross is the prefix of the GNU tools.
	Cross string
	// Debian is the architecture's name there.
	Debian string
}

// Host is the GNU name that configure scripts take as --host.
func (c CPU) Host() string { return strings.TrimSuffix(c.Cross, "-") }

// CompilerPackages are the Debian packages of the C compiler and library for
// the CPU, on a machine whose own Debian architecture is host.
func (c CPU) CompilerPackages(host string) []string {
	if c.Debian == host {
		return []string{"gcc", "libc6-dev"}
	}
	return []string{"gcc-" + strings.ReplaceAll(c.Host(), "_", "-"), "libc6-dev-" + c.Debian + "-cross"}
}

// Kernel is how a board's Linux is built.
type Kernel struct {
	// Name is what boards that boot the same kernel have in common.
	Name string
	// Arch is ARCH of the kernel's make.
	Arch string
	// Fragments are names of files in kernel/, without ".config", the later
	// overriding the earlier.
	Fragments []string
	// Target is the make target and Image the file that it leaves, relative to
	// the build folder: compressed, as the boot loader takes it.
	Target, Image string
	// Objects is about how many files the build compiles: for showing progress.
	Objects int
	// Unreserved is memory that the device tree in the kernel's source keeps for a
	// monitor, and this board has none: address and size, as the tree writes them.
	// Reserved is what of it is kept all the same.
	Unreserved, Reserved string
	// CommandLine is what the boot loader passes.
	CommandLine string
}

// Port is a network port as it is labelled on the case.
type Port struct {
	Name string
	// Device is where sysfs has it: the start of its path below /sys/devices, in which
	// a * stands for any part of a name, or the kernel's name for it. The ports of a switch (DSA) are one device together:
	// these have the names that the device tree gives them as labels. The port that
	// joins switch and processor is none of the board's; the kernel brings it up with
	// the first port of the switch (net/dsa/user.c, dsa_user_open).
	Device string
	// QEMU is the -device argument that puts a network card there, without its
	// netdev and mac. OnBoard says that the machine has the card: QEMU is its model.
	QEMU    string
	OnBoard bool
}

// ConfigurationPartition is the name of the partition, on every board, that the
// configuration is kept on. It is for nothing else: it is erased without a look at
// what it holds.
const ConfigurationPartition = "postern-config"

// StatePartition is the name of the partition for what the router itself keeps over a
// restart, where there is room for one.
const StatePartition = "postern-state"

// Flash is a flash chip or a disk.
type Flash struct {
	// Chip is the name that the kernel gives an MTD chip. It is empty for a disk,
	// which names its partitions itself, in a GUID partition table.
	Chip string
	// Size of a chip in bytes; 0 for a disk, and where QEMU's machine says it.
	Size int64
	// Partitions in the order of their places.
	Partitions []Partition
}

// Partition is a part of a flash: Offset from its start and Size, in bytes, both
// multiples of the chip's erase block or the disk's sector.
type Partition struct {
	Name         string
	Offset, Size int64
}

// mtdparts is the word of the kernel's command line that names a chip's partitions
// (drivers/mtd/parsers/cmdlinepart.c).
func (f Flash) mtdparts() string {
	var parts []string
	for _, p := range f.Partitions {
		parts = append(parts, fmt.Sprintf("%dk@%dk(%s)", p.Size>>10, p.Offset>>10, p.Name))
	}
	return "mtdparts=" + f.Chip + ":" + strings.Join(parts, ",")
}

// QEMU is the machine that models a board.
type QEMU struct {
	// Binary is the emulator, and Package the Debian package that has it.
	Binary, Package string
	// Machine and CPU are its -machine and -cpu; CPU may be empty.
	Machine, CPU string
	// Banks are the drives that the file of the flash, FlashSize bytes, is given as.
	Banks     []Bank
	FlashSize int64
	// BootMemory is the memory in MiB that the boot loader asks for, if it is not the
	// board's.
	BootMemory int
	// Swapped is how much of the flash, from its start, QEMU takes for words of 32 bits in
	// the other byte order when it starts the boot loader from there.
	Swapped int64
	// FlashDevice is a -device that takes the drive; empty if the machine has it.
	FlashDevice string
	// Watchdog is a -device; empty if the machine has none.
	Watchdog string
	// HotPlug says that the machine can lose and gain a network card while it runs.
	HotPlug bool
}

func malta(name, order, fragment, binary string, cpu CPU) Board {
	// The kernel's device tree has other partitions; those of the command line win.
	flash := Flash{Chip: "1e000000.flash", Partitions: []Partition{
		{"boot", 0, 320 << 10},
		{"image", 320 << 10, flash4MB},
		{ConfigurationPartition, 3840 << 10, 128 << 10}, // two erase blocks
		{"environment", 3968 << 10, 128 << 10},          // the boot loader's
	}}
	image := Image{Form: UImage}
	qemu := QEMU{Binary: binary, Package: "qemu-system-mips", Machine: "malta", CPU: "24Kc",
		Banks: []Bank{{Drive: "if=pflash,unit=0", Size: 4 << 20}}, FlashSize: 4 << 20,
		// In a slot of its own choice it would be where ether1 is.
		Watchdog: watchdog + ",addr=0x13"}
	line := "console=ttyS0,115200 " + commandLine + " " + flash.mtdparts()
	if name == "maltael" {
		// Debian has U-Boot for this byte order alone. It sees the chip at 0xBE000000, and
		// memory that Postern leaves alone.
		image.BootLoader = BootLoader{Package: "u-boot-qemu", File: "/usr/lib/u-boot/maltael/u-boot.bin",
			Environment: startInPlace(0xbe050000, 0x81000000, line+" mem=32M"), Command: "boot"}
		qemu.BootMemory, qemu.Swapped = 256, 0x3e0000
	}
	return Board{
		Name:        name,
		Description: "MIPS Malta, 24Kc, " + order + "-endian (QEMU)",
		CPU:         cpu,
		Kernel: Kernel{
			Name:      name,
			Arch:      "mips",
			Fragments: []string{"common", "mips", fragment, "malta", "flash"},
			Target:    "vmlinuz",
			Image:     "vmlinuz",
			Objects:   824,
			// YAMON, the board's monitor. QEMU has none but for its environment, which has the
			// random seed: the kernel reads that when it has begun to give memory out.
			Unreserved:  "0x00001000 0x000ef000",
			Reserved:    "0x00002000 0x00002000",
			CommandLine: line,
		},
		// Slots 0x12 and 0x14 have an interrupt each (10 and 11). 0x12 and 0x13 share
		// one, and nothing on this machine makes its 8259 level-triggered: when two
		// cards call at once an edge is lost, and neither is heard again.
		Ports: []Port{
			{Name: "ether1", Device: "pci0000:00/0000:00:12.0", QEMU: pciNIC + ",addr=0x12"},
			{Name: "ether2", Device: "pci0000:00/0000:00:14.0", QEMU: pciNIC + ",addr=0x14"},
		},
		WAN: "ether1", LAN: "ether2",
		Consoles: []string{"ttyS0"},
		Memory:   32,
		// The processor's: it sets its Compare register while QEMU's other thread still handles
		// the old one, without a lock, and when the host is busy an interrupt is lost now and
		// then. The next comes when the counter has wrapped, 2^32 ticks later, which are 25.8 s:
		// until then what waits for a timer waits.
		LossyTimer: "MIPS",
		Flash:      flash,
		Image:      image,
		ImageLimit: flash4MB,
		QEMU:       qemu,
	}
}

func virt(name, description, binary, cpuModel string, cpu CPU, kernel Kernel, image Image) Board {
	// Two banks of 64 MiB that the kernel joins, with erase blocks of 256 KiB. The
	// boot loader begins the first and has its environment at the start of the second.
	const bank = 64 << 20
	machine := "virt"
	if cpu.GOARCH == "arm" {
		// Without LPAE the kernel cannot reach a PCI bus, which the watchdog is on, above 4 GB.
		machine += ",highmem=off"
	}
	flash := Flash{Chip: "0.flash", Partitions: []Partition{
		{"boot", 0, 4 << 20},
		{Slots[0], 4 << 20, slotSize},
		{Slots[1], 4<<20 + slotSize, slotSize},
		{"environment", bank, 256 << 10},
		{ConfigurationPartition, bank + 256<<10, 512 << 10},
		{StatePartition, bank + 768<<10, 512 << 10},
	}}
	kernel.CommandLine = "console=ttyAMA0,115200 " + commandLine + " " + flash.mtdparts()
	image.BootLoader.Package = "u-boot-qemu"
	image.BootLoader.Environment = startNewest(flash, 256<<10, 0x41400000, kernel.CommandLine)
	return Board{
		Name:        name,
		Description: description,
		CPU:         cpu,
		Kernel:      kernel,
		Ports: []Port{
			{Name: "ether1", Device: "platform/a000000.virtio_mmio", QEMU: "virtio-net-device,bus=virtio-mmio-bus.0"},
			{Name: "ether2", Device: "platform/a000200.virtio_mmio", QEMU: "virtio-net-device,bus=virtio-mmio-bus.1"},
		},
		WAN: "ether1", LAN: "ether2",
		Consoles: []string{"ttyAMA0"},
		Memory:   64,
		Flash:    flash,
		Image:    image,
		// The last erase block of a slot tells of its state.
		ImageLimit: slotSize - 256<<10,
		QEMU: QEMU{Binary: binary, Package: "qemu-system-arm", Machine: machine, CPU: cpuModel,
			Banks: []Bank{
				{Drive: "if=pflash,unit=0", Size: bank, Firmware: true},
				{Drive: "if=pflash,unit=1", Offset: bank, Size: bank},
			}, FlashSize: 2 * bank, Watchdog: watchdog},
	}
}

const (
	// commandLine is common to all boards: the kernel's own chatter stays in its
	// log, what Postern says at notice and above is shown; a panic reboots.
	commandLine = "loglevel=6 panic=10"

	// pciNIC has no option ROM: nothing boots from the network here.
	pciNIC = "virtio-net-pci,romfile="

	// watchdog is QEMU's: it resets the machine.
	watchdog = "i6300esb"

	// flash4MB is the image's part of a 4 MB chip.
	flash4MB = 3520 << 10

	// slotSize is that of each of two slots on a board with room.
	slotSize = 24 << 20
)

// All returns the boards in the order in which they are listed.
func All() []Board { return append(Lab(), routers()...) }

// Lab returns the boards that are QEMU's machines: those that tests boot.
func Lab() []Board {
	return []Board{
		malta("malta", "big", "mips-be", "qemu-system-mips",
			mipsBE),
		malta("maltael", "little", "mips-le", "qemu-system-mipsel",
			mipsLE),
		virt("virt-armv7", "ARMv7 virtual machine, Cortex-A15 (QEMU)", "qemu-system-arm", "cortex-a15",
			armv7, armv7Kernel,
			Image{Form: FIT, Load: 0x41000000, BootLoader: BootLoader{File: "/usr/lib/u-boot/qemu_arm/u-boot.bin"}}),
		virt("virt-arm64", "ARMv8 virtual machine, Cortex-A53 (QEMU)", "qemu-system-aarch64", "cortex-a53",
			arm64, arm64Kernel,
			Image{Form: FIT, Load: 0x40200000, BootLoader: BootLoader{File: "/usr/lib/u-boot/qemu_arm64/u-boot.bin"}}),
		{
			Name:        "pc",
			Description: "64-bit PC of QEMU (i440FX); for a real one take x86-64 or apu2",
			CPU:         amd64,
			Kernel:      pcKernel.with("ttyS0,115200", Flash{}),
			Ports: []Port{
				{Name: "ether1", Device: "pci0000:00/0000:00:04.0", QEMU: pciNIC + ",addr=0x4"},
				{Name: "ether2", Device: "pci0000:00/0000:00:05.0", QEMU: pciNIC + ",addr=0x5"},
			},
			WAN: "ether1", LAN: "ether2",
			Consoles:   []string{"ttyS0"},
			Memory:     64,
			Flash:      pcDisk(),
			Image:      Image{Form: Archive},
			ImageLimit: slotSize,
			QEMU: QEMU{Binary: "qemu-system-x86_64", Package: "qemu-system-x86", Machine: "pc", HotPlug: true,
				Banks: []Bank{{Drive: "if=none,id=flash", Size: 64 << 20}}, FlashSize: 64 << 20, FlashDevice: "virtio-blk-pci,drive=flash,addr=0x6",
				Watchdog: watchdog},
		},
	}
}

// ByName finds a board; an unknown name is an error that lists the known ones.
func ByName(name string) (Board, error) {
	var names []string
	for _, b := range All() {
		if b.Name == name {
			return b, nil
		}
		names = append(names, b.Name)
	}
	return Board{}, fmt.Errorf("no board %q: there are %s", name, strings.Join(names, ", "))
}

// PortNames lists the names of the ports in order.
func (b Board) PortNames() []string {
	var names []string
	for _, p := range b.Ports {
		names = append(names, p.Name)
	}
	return names
}

// GoEnv is the environment in which `go build` makes a program for the board,
// statically linked.
func (b Board) GoEnv() []string {
	env := []string{"GOOS=linux", "CGO_ENABLED=0", "GOARCH=" + b.CPU.GOARCH}
	if b.CPU.GOMIPS != "" {
		// Each width has a variable of its own, and takes no notice of the other's.
		env = append(env, "GOMIPS="+b.CPU.GOMIPS, "GOMIPS64="+b.CPU.GOMIPS)
	}
	if b.CPU.GOARM != "" {
		env = append(env, "GOARM="+b.CPU.GOARM)
	}
	return env
}

//go:embed kernel/*.config
var fragments embed.FS

// KernelFragments returns the text of the board's kernel fragments, joined in
// their order.
func (b Board) KernelFragments() (string, error) {
	var all strings.Builder
	for _, name := range b.Kernel.Fragments {
		text, err := fragments.ReadFile("kernel/" + name + ".config")
		if err != nil {
			return "", fmt.Errorf("board %s: kernel fragment %s: %w", b.Name, name, err)
		}
		all.Write(text)
	}
	return all.String(), nil
}

//go:embed default.rsc
var defaultConfiguration string

// DefaultConfiguration is what the board starts with when nothing else is kept,
// in the command language.
func (b Board) DefaultConfiguration() string {
	wan, lan := b.WAN, b.LAN
	if wan == "" {
		wan = "another" // in a comment
	}
	var text strings.Builder
	for line := range strings.Lines(defaultConfiguration) {
		if b.WAN == "" && strings.Contains(line, " in-interface=ether1 ") {
			continue
		}
		if b.Bridged != nil && strings.HasPrefix(line, "/ip address ") {
			lan = "bridge"
			fmt.Fprintf(&text, "/interface bridge add name=%s\n", lan)
			for _, p := range append([]string{b.LAN}, b.Bridged...) {
				fmt.Fprintf(&text, "/interface bridge port add bridge=%s interface=%s\n", lan, p)
			}
		}
		text.WriteString(strings.NewReplacer("ether1", wan, "ether2", lan).Replace(line))
	}
	return text.String()
}

// Verified says how far the board was tested.
func (b Board) Verified() string {
	if machine, _, _ := strings.Cut(b.QEMU.Machine, ","); machine != "" {
		return "booted in QEMU, machine " + machine
	}
	return "built and checked only"
}

// Serial returns the terminal of the serial line that the kernel and the first console use,
// as its name in /dev, and its speed in bits per second. It has 8 data bits, no parity and
// one stop bit.
func (b Board) Serial() (terminal, speed string) {
	for word := range strings.FieldsSeq(b.Kernel.CommandLine) {
		if console, ok := strings.CutPrefix(word, "console="); ok {
			terminal, speed, _ = strings.Cut(console, ",")
			return terminal, speed
		}
	}
	return "", ""
}
