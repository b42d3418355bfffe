package board

import "fmt"

// U-Boot's environment holds the commands of its shell that choose and start an image. It is
// part of the factory image and never written again, so that a power cut cannot damage it. What
// changes, the state of the slots, is in the slots.

// oneImageEnvironment returns the environment of a board with one image. image is the image's
// address on flash and ramdisk the address for the initramfs in memory, both as U-Boot sees
// them.
//
// bootm does not tell a MIPS kernel where its initramfs is. So imxtract copies the initramfs
// first; it also sets filesize and checks the whole image. If the image is damaged there is a
// prompt, the editor of a variable: U-Boot was told to start without its own prompt
// (BootLoader.Command), and has no other.
func oneImageEnvironment(image, ramdisk uint64, commandLine string) []string {
	return []string{
		// U-Boot sets this variable itself. With an environment its heap is so small that it
		// can only replace a value of the same length.
		"fdtcontroladdr=00000000",
		"args=" + commandLine,
		// bootm must not copy the initramfs again.
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

// A slot's state is in its last erase block, as 32-bit words. These are their offsets and
// values. Flash can clear bits without an erase, so a word is 0 for true.
const (
	slotMagic = 0x50535431

	slotSequence         = 4
	slotTried            = 8
	slotConfirmed        = 12
	slotUntouched uint32 = 0xffffffff
)

// twoSlotEnvironment returns the environment of a board with two slots. U-Boot must see the
// flash at address 0. It starts the newer image if that is confirmed or was not tried yet, then
// the other one. If neither starts it tries any signed image in a slot, such as one that was
// written by hand. The word for "tried" is programmed by mw, since U-Boot's driver finds only
// half of these chips. rescue is an address in memory for an image from the network, which
// U-Boot's stack and bootm leave free.
func twoSlotEnvironment(flash Flash, eraseBlock int64, rescue uint64, commandLine string) []string {
	const fitMagic uint32 = 0xedfe0dd0 // of a device tree, as a little-endian word
	env := []string{
		// A key that is held during power-on stops U-Boot; it does not wait for one.
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
		// For "run rescue" at the prompt: a signed image from a TFTP server at the first port.
		"ipaddr=192.168.0.1",
		"serverip=192.168.0.2",
		fmt.Sprintf("rescue=setenv image %#x; tftpboot ${image} slot.img && run start", rescue),
		fmt.Sprintf("whole=itest.l *${state} == %#x", slotMagic),
		// Intel's command set: program a word of both chips, then return to reading.
		"mark=mw.l ${tried} 0x00400040; mw.l ${tried} 0; mw.l ${tried} 0x00ff00ff",
		// Only a FIT: the legacy image has no signature.
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
