package board

import "fmt"

// What U-Boot is to do is in its environment, as commands of its shell. It is written
// at the factory and never again: a cut of the power cannot damage it, and what does
// change, the state of the slots, is read from the slots.

// startInPlace is the environment of a board with one image, which begins at the address
// image of U-Boot's; ramdisk is where the initramfs goes in memory.
//
// The kernel's bootm does not tell a MIPS kernel of its initramfs: that is taken out
// ahead of it, which sets filesize and checks the whole image, too. If the image is
// damaged there is a prompt, which is the editor of a variable: U-Boot was told to start
// without one (BootLoader.Command), and that is all that it has.
func startInPlace(image, ramdisk uint64, commandLine string) []string {
	return []string{
		// U-Boot's memory is so tight with an environment that to set this, which it does
		// itself, has to take the place of a text as long.
		"fdtcontroladdr=00000000",
		"args=" + commandLine,
		// bootm is not to copy the initramfs a second time.
		"initrd_high=0xffffffff",
		fmt.Sprintf("start=imxtract ${image} 1 %#x && setenv bootargs ${args} rd_start=%#x rd_size=0x${filesize} && bootm ${image}", ramdisk, ramdisk),
		"ipaddr=192.168.0.1",
		"serverip=192.168.0.2",
		fmt.Sprintf("rescue=setenv image %#x; tftpboot ${image} slot.img && run start", ramdisk+16<<20),
		fmt.Sprintf("bootcmd=setenv image %#x; run start; "+
			"echo \"The image does not start. Type a command of U-Boot behind each edit:, such as run rescue\"; "+ // in quotes: a command has 16 words at most
			"while true; do setenv command; editenv command; run command; done", image),
	}
}

// Words of a slot's state, which is in its last erase block: offsets, and the values
// that tell. Flash can clear bits without being erased, so what becomes true later
// becomes 0.
const (
	slotMagic = 0x50535431

	slotSequence         = 4
	slotTried            = 8
	slotConfirmed        = 12
	slotUntouched uint32 = 0xffffffff
)

// startNewest is the environment of a board with two slots in parts of its flash that
// U-Boot sees at their offsets in it: the newer image if it is confirmed, or was not
// tried yet, then the other one, and if neither starts whatever is there and signed,
// which may be one that somebody has written by hand. That an image is tried is
// programmed by hand: U-Boot's driver knows but half of these chips. rescue is a place
// in memory for an image that comes by the network, which U-Boot's stack, bootm and what
// that makes of the image leave free.
func startNewest(flash Flash, eraseBlock int64, rescue uint64, commandLine string) []string {
	const fitMagic uint32 = 0xedfe0dd0 // of a device tree, as a little-endian word
	env := []string{
		// A key that is held while the power comes stops it, and there is no wait for one.
		"bootdelay=0",
		"args=" + commandLine,
	}
	for i, name := range []string{"a", "b"} {
		p, _ := flash.Partition(Slots[i])
		state := p.Offset + p.Size - eraseBlock
		env = append(env, fmt.Sprintf("%s=setenv slot %s; setenv image %#x; setenv state %#x; setenv sequence %#x; setenv tried %#x; setenv confirmed %#x",
			name, name, p.Offset, state, state+slotSequence, state+slotTried, state+slotConfirmed))
	}
	return append(env,
		// By hand, at the prompt: a signed image from a TFTP server on the first port.
		"ipaddr=192.168.0.1",
		"serverip=192.168.0.2",
		fmt.Sprintf("rescue=setenv image %#x; tftpboot ${image} slot.img && run start", rescue),
		fmt.Sprintf("whole=itest.l *${state} == %#x", slotMagic),
		// Intel's command set: program a word of both chips, and read again.
		"mark=mw.l ${tried} 0x00400040; mw.l ${tried} 0; mw.l ${tried} 0x00ff00ff",
		// A FIT and nothing else: the old form of image has no signature to check.
		fmt.Sprintf("start=if itest.l *${image} == %#x; then setenv bootargs ${args} postern.slot=${slot}; "+
			"bootm ${image}#conf ${image}#conf ${fdtcontroladdr}; fi; echo Slot ${slot} does not start.", fitMagic),
		"try=if run whole; then if itest.l *${confirmed} == 0; then run start; "+
			fmt.Sprintf("elif itest.l *${tried} == %#x; then run mark; run start; ", slotUntouched)+
			"else echo Slot ${slot} was tried and not confirmed.; fi; fi",
		"last=if run whole; then run start; fi",
		"swap=setenv newer b; setenv older a",
		"order=setenv newer a; setenv older b; run b; if run whole; then setenv other ${sequence}; run a; "+
			"if run whole; then if itest.l *${other} > *${sequence}; then run swap; fi; else run swap; fi; fi",
		"bootcmd=run order; run ${newer}; run try; run ${older}; run last; "+
			"run ${newer}; run start; run ${older}; run start; echo No slot starts.",
	)
}
