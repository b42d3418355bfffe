package board

// orangePiPC has one port. The second is a USB adapter. It is the WAN, so that the port that is
// always there leads to the LAN.
func orangePiPC() Board {
	b := armBoard("orangepi-pc", "Orange Pi PC, Allwinner H3, one port; a second by USB", "allwinner/sun8i-h3-orangepi-pc", "ttyS0,115200",
		armv7, armv7Kernel, 0x4200_0000, 1024, []Port{
			{Name: "ether1", Device: "platform/soc/1c30000.ethernet", QEMU: "allwinner-sun8i-emac", OnBoard: true},
			// Each USB socket has two controllers, one per speed.
			{Name: "ether2", Device: "platform/soc/*.usb", QEMU: "usb-net,bus=usb-bus.5"},
		}, "ether2", "ether1")
	b.Image.BootLoader = BootLoader{
		Package: "u-boot-tools", // of the same source
		Source:  "u-boot", Config: "orangepi_pc_defconfig", File: "u-boot-sunxi-with-spl.bin", Offset: 8 << 10,
	}
	b.Flashing = "write factory.img to an SD card"
	// Without cntfrq the machine's timers would run 2.6 times too fast.
	b.QEMU = QEMU{Binary: "qemu-system-arm", Package: "qemu-system-arm", Machine: "orangepi-pc", CPU: "cortex-a7,cntfrq=24000000",
		Banks: []Bank{{Drive: "if=sd", Size: 128 << 20}}, FlashSize: 128 << 20}
	return b
}
