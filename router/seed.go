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

// The random seed that one start leaves for the next (random(4)). A router has little entropy
// in its first seconds, and may need keys then.
//
// A seed is used once: two new ones are derived from the seed on flash by a one-way hash. One
// replaces it on flash; once that is written, the other goes to the kernel and is credited as
// entropy. So no two starts credit the same bits, not even after a power cut, and whoever
// reads the flash later cannot compute what the kernel got. If the seed on flash cannot be
// replaced, it is mixed in without credit.
const seedSize = sha256.Size

// startSeed gives the kernel the seed from flash, by calling add, and writes the next one.
func (k *stateStore) startSeed(add func(seed []byte, bits int) error) {
	if !k.kept() {
		return
	}
	old, err := hex.DecodeString(k.get(stateSeed))
	if err != nil || len(old) != seedSize {
		// The first start has none: one is made as soon as the kernel has enough entropy.
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

// splitSeed derives from a seed the next one, and the one for the kernel.
func splitSeed(old []byte) (next, now []byte) {
	of := func(what string) []byte {
		h := sha256.New()
		h.Write([]byte("postern seed: " + what + "\n"))
		h.Write(old)
		return h.Sum(nil)
	}
	return of("next"), of("now")
}

// newSeed returns a seed of the kernel's random numbers, in hexadecimal. It waits until the
// kernel has enough entropy.
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

// addEntropy mixes seed into the kernel's random numbers and credits that many bits.
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
