package router

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/kmsg"
)

// The random seed that a start leaves for the next (random(4)). A router has few sources
// of chance in its first seconds, and may need keys then.
//
// A seed is good once: from the one on flash two others are made, by a hash that cannot be
// turned round. One takes its place on flash, and only when it is there the other goes to
// the kernel, which is told to count on it. So no two starts, not even after a cut of the
// power, count on the same bits; and who reads the flash later learns nothing of what a
// start has made of it. One that cannot be replaced is mixed in and not counted on.
const seedSize = sha256.Size

// startSeed gives the kernel the seed from flash, by add, and leaves another there.
func (k *keptState) startSeed(add func(seed []byte, bits int) error) {
	if !k.kept() {
		return
	}
	old, err := hex.DecodeString(k.get(stateSeed))
	if err != nil || len(old) != seedSize {
		// The first start has none. It waits until the kernel has gathered enough.
		go func() {
			seed, err := newSeed()
			if err == nil {
				err = k.put(map[string]string{stateSeed: seed})
			}
			if err != nil {
				k.log.Printf(kmsg.Warning, "random seed: %v", err)
			}
		}()
		return
	}
	next, now := splitSeed(old)
	bits := 8 * seedSize
	if err := k.put(map[string]string{stateSeed: hex.EncodeToString(next)}); err != nil {
		k.log.Printf(kmsg.Warning, "random seed: it stays as it was, and is not counted on: %v", err)
		bits = 0
	}
	if err := add(now, bits); err != nil {
		k.log.Printf(kmsg.Warning, "random seed: %v", err)
		return
	}
	k.log.Printf(kmsg.Info, "random seed: %d bits from flash", bits)
}

// splitSeed makes of a seed the next one and what goes to the kernel.
func splitSeed(old []byte) (next, now []byte) {
	of := func(what string) []byte {
		h := sha256.New()
		h.Write([]byte("postern seed: " + what + "\n"))
		h.Write(old)
		return h.Sum(nil)
	}
	return of("next"), of("now")
}

// newSeed returns one of the kernel's, as the state has it. It waits until the kernel has
// enough chance.
func newSeed() (string, error) {
	seed := make([]byte, seedSize)
	for {
		n, err := unix.Getrandom(seed, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n != len(seed) {
			return "", fmt.Errorf("random numbers of the kernel: %d bytes: %w", n, err)
		}
		return hex.EncodeToString(seed), nil
	}
}

// addEntropy mixes seed into the kernel's random numbers, and has it count so many bits.
func addEntropy(seed []byte, bits int) error {
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// struct rand_pool_info of linux/random.h.
	info := struct {
		bits, size int32
		data       [seedSize]byte
	}{int32(bits), seedSize, [seedSize]byte(seed)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info))); errno != 0 {
		return fmt.Errorf("RNDADDENTROPY: %w", errno)
	}
	return nil
}
