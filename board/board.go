// Package board declares the boards that Postern runs on. Each is one value with everything
// that is particular to it: CPU, kernel, ports, serial line, flash, image and QEMU machine. Other
// packages take what they need of a board from here. A new board is one more value, and for a
// new SoC one kernel fragment.
//
// The package imports nothing of the project, and only has data.
package board

import (
	"embed"
	"fmt"
	"strings"
)

// Board is one kind of router. Fields that the router itself needs must be in File and Parse.
type Board struct {
	// Name is the name in BOARD= and in out/BOARD.
	Name string
	// Description is one line for a list of boards.
	Description string

	CPU    CPU
	Kernel Kernel
	// Ports in the order of their numbers.
	Ports []Port
	// WAN and LAN are the names of the ports in the default configuration. WAN is empty on a
	// board with one port. Bridged are further ports of the LAN.
	WAN, LAN string
	Bridged  []string
	// Consoles are the terminals with a console, by their names in /dev.
	Consoles []string
	// Memory in MiB.
	Memory int
	// LossyTimer is the kernel's name for a timer that loses interrupts on this machine and must
	// not be used; empty if there is none.
	LossyTimer string
	// Flash keeps the image and the configuration while the power is off.
	Flash Flash
	// Image says how the boot loader takes kernel and initramfs.
	Image Image
	// ImageLimit is the maximal size of a slot image in bytes; 0 for no limit.
	ImageLimit int64
	// Flashing says how an image gets onto the board; empty for a machine that only QEMU has.
	Flashing string

	QEMU QEMU
}

// CPU is an instruction set with the compilers for it.
type CPU struct {
	// GOARCH, GOMIPS and GOARM are environment variables of go build; empty where they do not
	// apply.
	GOARCH, GOMIPS, GOARM string
	// Cross is the prefix of the GNU tools.
	Cross string
	// Debian is the architecture's name in Debian.
	Debian string
}

// Host is the GNU triplet, which configure scripts take as --host.
func (c CPU) Host() string { return strings.TrimSuffix(c.Cross, "-") }

// CompilerPackages returns the Debian packages of the C compiler and of the C library for the
// CPU, in this order, on a machine of the Debian architecture host.
func (c CPU) CompilerPackages(host string) []string {
	if c.Debian == host {
		return []string{"gcc", "libc6-dev"}
	}
	return []string{"gcc-" + strings.ReplaceAll(c.Host(), "_", "-"), "libc6-dev-" + c.Debian + "-cross"}
}

// Kernel says how a board's Linux is built.
type Kernel struct {
	// Name is the kernel's name in the cache: boards with the same kernel share it.
	Name string
	// Arch is ARCH of the kernel's make.
	Arch string
	// Fragments are names of files in kernel/, without ".config". Later ones override earlier
	// ones.
	Fragments []string
	// Target is the target of make and Image the file that it makes, relative to the build
	// folder.
	Target, Image string
	// Objects is roughly the number of files that the build compiles, to show its progress.
	Objects int
	// Unreserved is memory that the device tree in the kernel's source reserves for a monitor
	// program, which this board does not have: address and size as in the tree. Reserved is the
	// part of it that stays reserved.
	Unreserved, Reserved string
	// CommandLine is the kernel's command line.
	CommandLine string
}

// Port is a network port as it is labelled on the case.
type Port struct {
	Name string
	// Device is the port in sysfs: the start of its path below /sys/devices, where * stands for
	// any part of a name, or else the kernel's name for it. The ports of a switch (DSA) share one
	// device, so they have names, which are their labels in the device tree. The port between
	// switch and processor is not listed: the kernel brings it up with the first port of the
	// switch (net/dsa/user.c, dsa_user_open).
	Device string
	// QEMU is the argument of QEMU's -device for a network card at this place, without netdev
	// and mac. If OnBoard is set the machine has the card itself, and QEMU is its model.
	QEMU    string
	OnBoard bool
}

// ConfigurationPartition is the name of the partition for the configuration, on every board. It
// is erased without a check of its contents, so it must be used for nothing else.
const ConfigurationPartition = "postern-config"

// StatePartition is the name of the partition for what the router itself keeps over a restart:
// the time and a random seed. Boards without room do not have it.
const StatePartition = "postern-state"

// Flash is a flash chip or a disk.
type Flash struct {
	// Chip is the kernel's name for an MTD chip. It is empty for a disk, whose partitions have
	// names in a GUID partition table.
	Chip string
	// Size of a chip in bytes; 0 for a disk, and for a machine of QEMU (QEMU.FlashSize).
	Size int64
	// Partitions in the order of their offsets.
	Partitions []Partition
}

// Partition is a part of a flash: Offset from its start and Size, in bytes, both
// multiples of the chip's erase block or the disk's sector.
type Partition struct {
	Name         string
	Offset, Size int64
}

// mtdparts returns the word of the kernel's command line with a chip's partitions
// (drivers/mtd/parsers/cmdlinepart.c).
func (f Flash) mtdparts() string {
	var parts []string
	for _, p := range f.Partitions {
		parts = append(parts, fmt.Sprintf("%dk@%dk(%s)", p.Size>>10, p.Offset>>10, p.Name))
	}
	return "mtdparts=" + f.Chip + ":" + strings.Join(parts, ",")
}

// QEMU is the machine that emulates a board.
type QEMU struct {
	// Binary is the emulator and Package its Debian package.
	Binary, Package string
	// Machine and CPU are the arguments of -machine and -cpu; CPU may be empty.
	Machine, CPU string
	// Banks are the drives that the flash is divided into. Its file has FlashSize bytes.
	Banks     []Bank
	FlashSize int64
	// BootMemory is the memory in MiB that the boot loader needs, if it is not the board's; else
	// 0.
	BootMemory int
	// Swapped is the number of bytes at the start of the flash that QEMU reads as 32-bit words
	// in the other byte order when it starts a boot loader.
	Swapped int64
	// FlashDevice is the argument of -device for the drive; empty if the machine has it.
	FlashDevice string
	// Watchdog is the argument of -device for a watchdog; empty if there is none.
	Watchdog string
	// HotPlug is whether network cards can be removed and added while the machine runs.
	HotPlug bool
}

func malta(name, order, fragment, binary string, cpu CPU) Board {
	// Those in the kernel's device tree are different; the command line overrides them.
	flash := Flash{Chip: "1e000000.flash", Partitions: []Partition{
		{"boot", 0, 320 << 10},
		{"image", 320 << 10, flash4MB},
		{ConfigurationPartition, 3840 << 10, 128 << 10}, // two erase blocks
		{"environment", 3968 << 10, 128 << 10},          // the boot loader's
	}}
	image := Image{Form: UImage}
	qemu := QEMU{Binary: binary, Package: "qemu-system-mips", Machine: "malta", CPU: "24Kc",
		Banks: []Bank{{Drive: "if=pflash,unit=0", Size: 4 << 20}}, FlashSize: 4 << 20,
		// Without an address it would be in the PCI slot of ether1.
		Watchdog: watchdog + ",addr=0x13"}
	// Without lpj the kernel counts for a tenth of a second how many loops a tick has (4000 BogoMIPS, of a fast
	// host). Only pauses for devices go by it, and QEMU's are ready at once.
	line := "console=ttyS0,115200 lpj=20000000 " + commandLine + " " + flash.mtdparts()
	if name == "maltael" {
		// Debian has U-Boot for this byte order only. The flash is at 0xBE000000 for it, and
		// mem=32M keeps the kernel in the memory of the board.
		image.BootLoader = BootLoader{Package: "u-boot-qemu", File: "/usr/lib/u-boot/maltael/u-boot.bin",
			Environment: oneImageEnvironment(0xbe050000, 0x81000000, line+" mem=32M"), Command: "boot"}
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
			Objects:   874,
			// The memory of YAMON, a real Malta's monitor program. QEMU only has YAMON's
			// environment with the random seed, which the kernel reads when memory is already
			// being allocated.
			Unreserved:  "0x00001000 0x000ef000",
			Reserved:    "0x00002000 0x00002000",
			CommandLine: line,
		},
		// PCI slots 0x12 and 0x14 have an interrupt each (10 and 11). 0x12 and 0x13 share one,
		// and the 8259 of this machine is edge-triggered: if both cards raise it at once an edge
		// is lost, and neither card gets an interrupt again.
		Ports: []Port{
			{Name: "ether1", Device: "pci0000:00/0000:00:12.0", QEMU: pciNIC + ",addr=0x12"},
			{Name: "ether2", Device: "pci0000:00/0000:00:14.0", QEMU: pciNIC + ",addr=0x14"},
		},
		WAN: "ether1", LAN: "ether2",
		Consoles: []string{"ttyS0"},
		Memory:   32,
		// The processor's timer. The guest sets the Compare register while another thread of QEMU
		// still handles the old value, without a lock, so that on a busy host an interrupt is
		// lost now and then. The next one comes when the counter has wrapped, after 2^32 ticks
		// or 25.8 s; until then no timer fires.
		LossyTimer: "MIPS",
		Flash:      flash,
		Image:      image,
		ImageLimit: flash4MB,
		QEMU:       qemu,
	}
}

func virt(name, description, binary, cpuModel string, cpu CPU, kernel Kernel, image Image) Board {
	// Two banks of 64 MiB, which the kernel joins, with erase blocks of 256 KiB. The boot loader
	// is at the start of the first, its environment at the start of the second.
	const bank = 64 << 20
	machine := "virt"
	if cpu.GOARCH == "arm" {
		// The watchdog is on the PCI bus, which a kernel without LPAE cannot reach above 4 GB.
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
	image.BootLoader.Environment = twoSlotEnvironment(flash, 256<<10, 0x41400000, kernel.CommandLine)
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
		// The last erase block of a slot is its state.
		ImageLimit: slotSize - 256<<10,
		QEMU: QEMU{Binary: binary, Package: "qemu-system-arm", Machine: machine, CPU: cpuModel,
			Banks: []Bank{
				{Drive: "if=pflash,unit=0", Size: bank, Firmware: true},
				{Drive: "if=pflash,unit=1", Offset: bank, Size: bank},
			}, FlashSize: 2 * bank, Watchdog: watchdog},
	}
}

const (
	// commandLine is common to all boards. Log lines at notice and above are shown on the
	// console; a panic reboots after 10 s.
	commandLine = "loglevel=6 panic=10"

	// pciNIC is a card without an option ROM, since no board boots from the network.
	pciNIC = "virtio-net-pci,romfile="

	// watchdog is QEMU's device that resets the machine.
	watchdog = "i6300esb"

	// flash4MB is the size of the image's partition on a 4 MB chip.
	flash4MB = 3520 << 10

	// slotSize is the size of each of two slots.
	slotSize = 24 << 20
)

// All returns all boards, those of Lab first.
func All() []Board { return append(Lab(), routers()...) }

// Lab returns the boards that only exist in QEMU. The tests boot them.
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

// ByName returns the board of that name. The error for an unknown name lists the known ones.
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

// PortNames returns the names of the ports in their order.
func (b Board) PortNames() []string {
	var names []string
	for _, p := range b.Ports {
		names = append(names, p.Name)
	}
	return names
}

// smallTag is the build tag of programs without what a small flash has no room for.
const smallTag = "small"

// Small reports whether the flash, of 4 MB, has no room for all that the program can do: TLS and what comes with it is half
// a megabyte on flash. Go files that need the room have the build constraint !small, and those in their place small.
func (b Board) Small() bool { return b.ImageLimit > 0 && b.ImageLimit <= 4<<20 }

// GoTags returns the build tags of the board's program, for go build's -tags; "" is none.
func (b Board) GoTags() string {
	if b.Small() {
		return smallTag
	}
	return ""
}

// GoEnv returns the environment, as name=value, in which go build makes a static program for
// the board.
func (b Board) GoEnv() []string {
	env := []string{"GOOS=linux", "CGO_ENABLED=0", "GOARCH=" + b.CPU.GOARCH}
	if b.CPU.GOMIPS != "" {
		// GOMIPS is for 32 bits, GOMIPS64 for 64.
		env = append(env, "GOMIPS="+b.CPU.GOMIPS, "GOMIPS64="+b.CPU.GOMIPS)
	}
	if b.CPU.GOARM != "" {
		env = append(env, "GOARM="+b.CPU.GOARM)
	}
	return env
}

//go:embed kernel/*.config
var fragments embed.FS

// KernelFragments returns the text of the board's kernel fragments, concatenated.
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

//go:embed one-port.rsc
var onePortConfiguration string

// DefaultConfiguration returns the configuration, in the command language, with which a board
// starts that has kept none.
//
// Several ports of the LAN are one bridge. A single one is none, as in RouterOS it would be: the
// rules are about interface lists, so that a bridge can take its place, and each packet would
// pass it for nothing: masquerade on malta takes 13 to 27 % more of the processor with it.
func (b Board) DefaultConfiguration() string {
	if b.WAN == "" {
		return strings.ReplaceAll(onePortConfiguration, "ether1", b.LAN)
	}
	lan, bridge := b.LAN, ""
	if b.Bridged != nil {
		lan = "bridge"
		bridge = "/interface bridge add name=bridge comment=defconf\n"
		for _, p := range append([]string{b.LAN}, b.Bridged...) {
			bridge += "/interface bridge port add bridge=bridge interface=" + p + " comment=defconf\n"
		}
	}
	text := strings.NewReplacer("ether1", b.WAN, "ether2", lan).Replace(defaultConfiguration)
	comment := strings.Index(text, "/") // ends where the first line begins
	return text[:comment] + bridge + text[comment:]
}

// Verified says in a few words how the board was tested.
func (b Board) Verified() string {
	if machine, _, _ := strings.Cut(b.QEMU.Machine, ","); machine != "" {
		return "booted in QEMU, machine " + machine
	}
	return "built and checked only"
}

// Serial returns the serial line of the kernel and of the first console: its name in /dev and
// its speed in bits per second. The line has 8 data bits, no parity and one stop bit.
func (b Board) Serial() (terminal, speed string) {
	for word := range strings.FieldsSeq(b.Kernel.CommandLine) {
		if console, ok := strings.CutPrefix(word, "console="); ok {
			terminal, speed, _ = strings.Cut(console, ",")
			return terminal, speed
		}
	}
	return "", ""
}
