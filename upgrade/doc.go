// Package upgrade has the format of upgrade images, the slots on flash that hold them, and
// the process that writes an image to its slot. It promises:
//   - Nothing on flash changes before the signature, the board and the version of an image
//     have been checked. Nothing counts as an image before all of it has been read back.
//   - A board with two slots runs the old image or the new one, whenever the power fails.
//     The old image stays until the new one has been confirmed and a third one comes.
//   - An image is at most as long as its slot. It is written as it comes, without taking
//     memory. Only a board with one slot holds the whole image before it begins to write.
//
// # Format
//
// An upgrade image is a header of 256 bytes, followed by the slot image, which is what the
// boot loader of the board reads. Numbers are big-endian. Texts are printable ASCII, filled
// up with zeros.
//
//	  0   8  magic, "POSTERN!"
//	  8   4  version of the format, 1
//	 12   4  zero
//	 16  32  name of the board
//	 48  64  version of the software
//	112   8  date of the version, in seconds since 1970: it orders versions
//	120   8  length of the slot image
//	128  32  SHA-256 of the slot image
//	160  32  zero
//	192  64  Ed25519 signature (RFC 8032) of bytes 0 to 191
//	256      the slot image
//
// So a reader knows from the first 256 bytes whether to go on, and what must follow.
//
// # Slots
//
// A board with two slots runs one and upgrades the other. Each slot has a state for the boot
// loader. On a chip it is in the last erase block of the slot's partition. On a disk the
// states are in a partition of their own, at byte 4096 and at byte 12288; the rest of that
// partition belongs to the boot loader. Of the slots that hold a whole image, the one with
// the higher sequence number is the newer. It is started if it has not been tried, and
// after that only if it has been confirmed. Otherwise the other slot is started.
//
// On a chip the state is words of 32 bits, little-endian. Programming clears bits without
// an erase: tried and confirmed are 0xFFFFFFFF until one word is written, which makes them
// 0. The boot loader writes tried.
//
//	 0   4  magic, 0x50535431, written last
//	 4   4  sequence number
//	 8   4  tried
//	12   4  confirmed
//	16   4  length of the slot image
//	20  32  SHA-256 of the slot image
//	52  64  version, ended by a zero
//
// On a disk the state is an environment block of GRUB, of 4096 bytes: the line "# GRUB
// Environment Block", then lines name=value in any order, then "#" to the end. The names
// are magic (PST1 if there is an image), sequence, tried and confirmed (0 or 1), length,
// sha256 (in hexadecimal) and version. All that changes is in the first sector, which a
// disk writes whole or not at all.
//
// A write of an image first clears the magic. Then it writes the image, reads it back and
// compares its hash, and last it writes the new state. If the power fails before that, the
// slot holds no image.
//
// # In place
//
// A board with room for one image holds the new one in memory, whole and verified. It
// erases the first erase block of the old image, writes all the others, reads them back,
// and writes the first one last. The boot loader looks at the first block: after a power
// cut it sees no image instead of a half-written one, and goes into its recovery.
package upgrade
