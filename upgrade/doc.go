// Package upgrade is the format of upgrade images, the slots on flash that they go
// into, and the process that takes one there. It promises:
//   - Nothing on flash is touched before the signature, the board and the version of an
//     image are right, and nothing counts as an image before all of it was read back.
//   - A board with two slots runs the old image or the new one, whenever the power
//     fails. The old image stays until the new one was confirmed and a third one comes.
//   - An image is at most as long as its slot, is read as it comes, and takes no memory
//     but on a board with one slot, which holds it whole before it begins to write.
//
// # Format
//
// An upgrade image is a header of 256 bytes and behind it the slot image, which is
// what the boot loader of the board reads. Numbers are big-endian, texts are printable
// ASCII, filled up with zeros.
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
// So who reads it knows from the first 256 bytes whether to go on, and what must come.
//
// # Slots
//
// A board with two slots starts one and upgrades the other. What the boot loader is to
// know of a slot is its state: on a chip in the last erase block of the slot's partition, on
// a disk in a partition of its own, at 4096 for the one slot and at 12288 for the other
// (the rest of that partition is the boot loader's). The slot that holds a
// whole image and has the higher sequence number is the newer one. It is started once,
// when it was not yet tried; after that only if it was confirmed. Otherwise the other
// slot is started.
//
// On a chip the state is words of 32 bits, little-endian. Programming clears bits
// without an erase, so tried and confirmed are 0xFFFFFFFF until they become 0, each by
// the writing of one word, the first by the boot loader.
//
//	 0   4  magic, 0x50535431, written last
//	 4   4  sequence number
//	 8   4  tried
//	12   4  confirmed
//	16   4  length of the slot image
//	20  32  SHA-256 of the slot image
//	52  64  version, ended by a zero
//
// On a disk it is an environment block of GRUB's, 4096 bytes: the line "# GRUB Environment
// Block", then name=value lines with magic (PST1, or else there is no image), sequence,
// tried and confirmed (0 or 1), length, sha256 (in hexadecimal) and version, in any order,
// then "#" to the end. All that changes is in its first sector, which a disk writes whole
// or not at all.
//
// A write first takes the magic away, then writes the image, reads it back and compares
// its hash, and last writes the new state. A cut of the power at any moment before the
// last leaves a slot that holds no image.
//
// # In place
//
// A board with room for one image holds the new one in memory, whole and verified. It
// then erases the first erase block of the old one, writes all the others, reads them
// back, and writes the first one last. The boot loader looks at the first block: after
// a cut it sees no image, rather than a torn one, and goes into its recovery.
package upgrade
