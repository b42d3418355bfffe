package router

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/kmsg"
)

const (
	// inputDevices are the keys and buttons that the kernel knows.
	inputDevices = "/dev/input/event*"
	// keyRestart is what the device trees of routers call the reset button
	// (KEY_RESTART, linux/input-event-codes.h).
	keyRestart = 0x198
	// keyBytes is the size in bytes of a bit set of all keys; the last one is KEY_MAX, 0x2ff.
	keyBytes = 0x300 / 8
	// resetHold is how long the button must be held, and resetLook how often it is checked.
	resetHold = 5 * time.Second
	resetLook = 100 * time.Millisecond
)

// resetHeld reports whether the reset button is held for resetHold: pressed tells whether it
// is at the moment. It takes no time if it is not held now.
func resetHeld(log *kmsg.Logger, pressed func() bool) bool {
	if !pressed() {
		return false
	}
	log.Printf(kmsg.Notice, "the reset button is held: %v more for a start with the defaults", resetHold)
	for end := time.Now().Add(resetHold); time.Now().Before(end); time.Sleep(resetLook) {
		if !pressed() {
			log.Printf(kmsg.Notice, "the reset button was let go")
			return false
		}
	}
	return true
}

// anyPressed reports whether the key is pressed on any device that matches pattern. A device
// that cannot be read counts as not pressed.
func anyPressed(pattern string, key int, keys func(path string) ([]byte, error)) bool {
	devices, err := filepath.Glob(pattern)
	if err != nil {
		return false
	}
	for _, path := range devices {
		if set, err := keys(path); err == nil && inSet(set, key, bits.UintSize/8, binary.NativeEndian) {
			return true
		}
	}
	return false
}

// pressedKeys asks an input device which of its keys are pressed (EVIOCGKEY,
// linux/input.h).
func pressedKeys(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	set := make([]byte, keyBytes)
	// _IOR('E', 0x18, keyBytes). The bits that mean "read" differ on MIPS: they are taken from
	// another request that reads.
	const read = unix.RNDGETENTCNT & 0xE0000000
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), read|keyBytes<<16|'E'<<8|0x18, uintptr(unsafe.Pointer(&set[0])))
	if errno != 0 {
		return nil, fmt.Errorf("%s: which keys are pressed: %w", path, errno)
	}
	return set, nil
}

// inSet reports whether a bit is set in one of the kernel's bit sets: an array of longs in
// its byte order, lowest bit first.
func inSet(set []byte, element, long int, order binary.ByteOrder) bool {
	at := element / (8 * long) * long
	if at+long > len(set) {
		return false
	}
	word := uint64(0)
	if long == 4 {
		word = uint64(order.Uint32(set[at:]))
	} else {
		word = order.Uint64(set[at:])
	}
	return word>>(element%(8*long))&1 != 0
}
