// Package password makes and checks the hashes of which the router keeps one instead of a
// password: Argon2id (RFC 9106) at a cost that a board with 32 MB can afford.
package password

import (
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/sys/unix"
)

// The cost of a password's hash: Argon2id (RFC 9106) with one lane. Its memory must be free
// beside 500 connections through SOCKS, which leave 4.5 MB of a 32 MB board, and its time
// must be short on a slow processor without 64-bit multiplication.
const (
	hashMemory = 2048 // KiB
	hashPasses = 3
	hashLanes  = 1
	saltLength = 16 // bytes
	keyLength  = 32 // bytes
)

// The bounds of the cost of a hash from a file. With more memory it would take it from the
// rest of the router.
const (
	maxHashMemory = 4096 // KiB
	maxHashPasses = 10
)

// Never is the hash of no password: its key is all zeros, for which nobody finds one.
const Never = "$argon2id$v=19$m=2048,t=3,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// Hash is kept instead of a password.
type Hash struct {
	memory, passes uint32
	salt, key      []byte
}

// New makes a hash of a password with a new salt, in the form of Hash.String. Callers make or
// check one hash at a time, because of its memory.
func New(password string) (string, error) {
	h := Hash{memory: hashMemory, passes: hashPasses, salt: make([]byte, saltLength)}
	// From the kernel: crypto/rand would take 30 kB of flash.
	if n, err := unix.Getrandom(h.salt, 0); err != nil || n != saltLength {
		return "", fmt.Errorf("random salt: %d bytes: %w", n, err)
	}
	h.key = h.derive(password, keyLength)
	return h.String(), nil
}

// derive computes the key of a password.
func (h Hash) derive(password string, length int) []byte {
	// The system needs the memory more than the time that a collection takes.
	defer debug.FreeOSMemory()
	return argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, hashLanes, uint32(length))
}

// Matches reports whether a password has this hash.
func (h Hash) Matches(password string) bool {
	return subtle.ConstantTimeCompare(h.derive(password, len(h.key)), h.key) == 1
}

// String returns the hash in the PHC string format:
//
//	$argon2id$v=19$m=2048,t=3,p=1$SALT$KEY
//
// with salt and key in base64 without padding.
func (h Hash) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.passes, hashLanes,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.key))
}

// Parse reads a hash in the form of String. The error says what is wrong with it.
func Parse(s string) (Hash, error) {
	var h Hash
	bad := func(what string) (Hash, error) {
		return Hash{}, fmt.Errorf("%s; expected $argon2id$v=%d$m=%d,t=%d,p=%d$SALT$KEY",
			what, argon2.Version, hashMemory, hashPasses, hashLanes)
	}
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return bad("another kind of hash")
	}
	var cost [3]uint32
	for i, name := range []string{"m", "t", "p"} {
		words := strings.Split(parts[3], ",")
		if len(words) != len(cost) {
			return bad("its cost cannot be read")
		}
		number, named := strings.CutPrefix(words[i], name+"=")
		n, err := strconv.ParseUint(number, 10, 32)
		if !named || err != nil || number != strconv.FormatUint(n, 10) {
			return bad("its cost cannot be read")
		}
		cost[i] = uint32(n)
	}
	h.memory, h.passes = cost[0], cost[1]
	// RFC 9106, section 3.1: at least 8 KiB a lane.
	if h.memory < 8 || h.memory > maxHashMemory || h.passes < 1 || h.passes > maxHashPasses || cost[2] != hashLanes {
		return bad(fmt.Sprintf("its cost is not within m=8..%d, t=1..%d, p=%d", maxHashMemory, maxHashPasses, hashLanes))
	}
	var err error
	if h.salt, err = base64.RawStdEncoding.Strict().DecodeString(parts[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return bad("its salt is not 8..64 bytes in base64")
	}
	if h.key, err = base64.RawStdEncoding.Strict().DecodeString(parts[5]); err != nil || len(h.key) < 16 || len(h.key) > 64 {
		return bad("its key is not 16..64 bytes in base64")
	}
	return h, nil
}
