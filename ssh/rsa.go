package ssh

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// This file checks signatures by RSA keys of users: PKCS #1 v1.5 with SHA-2 (RFC 8332, RFC 8017 section 8.2.2), and nothing else of
// RSA. What it computes with is public, so it need not take the same time for all numbers. crypto/rsa and math/big would be
// some 40 KB of a small flash; the tests compare with them.

const (
	// RSAType is the type of RSA keys (RFC 4253, section 6.6). Signatures by them are of RSASHA256 or RSASHA512, never of SHA-1.
	RSAType   = "ssh-rsa"
	RSASHA256 = "rsa-sha2-256"
	RSASHA512 = "rsa-sha2-512"

	// minRSA and maxRSA are how many bits the modulus of a key has.
	minRSA = 2048
	maxRSA = 4096
	// MaxKey is the greatest length of PublicKey.Key in bytes: an exponent of 4 bytes and a modulus, each with its length and a zero.
	MaxKey = 4 + 5 + 4 + 1 + maxRSA/8
)

var errRSA = fmt.Errorf("the value of the key is not that of %s, with a modulus of %d..%d bits", RSAType, minRSA, maxRSA)

// ParseRSA reads what stands behind the type in SSH's own form of an RSA key.
func ParseRSA(text []byte) (PublicKey, error) {
	k := PublicKey{Key: string(text)}
	if len(text) > MaxKey || len(text) == KeySize {
		return PublicKey{}, errRSA
	}
	if _, n, err := k.rsa(); err != nil || n[0]&1 == 0 {
		return PublicKey{}, errRSA
	}
	return k, nil
}

// rsa is the exponent and the modulus of an RSA key, the modulus in words of 32 bits, low one first.
func (k PublicKey) rsa() (exponent uint32, modulus []uint32, err error) {
	e, rest, err := mpint([]byte(k.Key))
	if err != nil || len(e) == 0 || len(e) > 4 {
		return 0, nil, errRSA
	}
	for _, b := range e {
		exponent = exponent<<8 | uint32(b)
	}
	n, rest, err := mpint(rest)
	if err != nil || len(rest) > 0 || exponent < 3 || exponent&1 == 0 {
		return 0, nil, errRSA
	}
	modulus = words(n)
	if size := bitLen(modulus); size < minRSA || size > maxRSA {
		return 0, nil, errRSA
	}
	return exponent, modulus, nil
}

// mpint reads a number that is not negative (RFC 4251, section 5) in the one form that it has, and returns its bytes.
func mpint(text []byte) (number, rest []byte, err error) {
	if len(text) < 4 {
		return nil, nil, errRSA
	}
	n := binary.BigEndian.Uint32(text)
	text = text[4:]
	if uint64(n) > uint64(len(text)) {
		return nil, nil, errRSA
	}
	number, rest = text[:n], text[n:]
	if n > 0 && number[0]&0x80 != 0 || n > 0 && number[0] == 0 && (n == 1 || number[1]&0x80 == 0) {
		return nil, nil, errRSA
	}
	return bytes.TrimLeft(number, "\x00"), rest, nil
}

// words are those of a number in bytes, high one first.
func words(number []byte) []uint32 {
	all := make([]uint32, (len(number)+3)/4)
	for i, b := range number {
		at := len(number) - 1 - i
		all[at/4] |= uint32(b) << (at % 4 * 8)
	}
	return all
}

func bitLen(number []uint32) int {
	for i := len(number) - 1; i >= 0; i-- {
		if number[i] != 0 {
			return 32*i + bits.Len32(number[i])
		}
	}
	return 0
}

// digestPrefixes are DER's beginnings of a hash (RFC 8017, section 9.2, note 1).
const (
	prefixSHA256 = "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
	prefixSHA512 = "\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"
)

var errSignature = errors.New("wrong signature")

// VerifyRSA returns an error unless signature is one of data by the owner of an RSA key, of the type RSASHA256 or RSASHA512. A signature
// without its leading zeros is taken, as PuTTY writes them.
func (k PublicKey) VerifyRSA(signatureType string, data, signature []byte) error {
	exponent, modulus, err := k.rsa()
	if err != nil {
		return err
	}
	var digest string
	switch signatureType {
	case RSASHA256:
		sum := sha256.Sum256(data)
		digest = prefixSHA256 + string(sum[:])
	case RSASHA512:
		sum := sha512.Sum512(data)
		digest = prefixSHA512 + string(sum[:])
	default:
		return fmt.Errorf("the type of a signature must be %s or %s", RSASHA256, RSASHA512)
	}
	size := (bitLen(modulus) + 7) / 8
	if len(signature) > size {
		return errSignature
	}
	s := make([]uint32, len(modulus))
	copy(s, words(signature))
	if !less(s, modulus) {
		return errSignature
	}
	s = power(s, exponent, modulus)
	// The whole block is known: what it should be is compared, not parsed.
	want := bytes.Repeat([]byte{0xff}, size)
	want[0], want[1], want[size-len(digest)-1] = 0, 1, 0
	copy(want[size-len(digest):], digest)
	for i, w := range words(want) {
		if s[i] != w {
			return errSignature
		}
	}
	return nil
}

// less reports whether a < b, of the same length.
func less(a, b []uint32) bool {
	for i := len(a) - 1; i >= 0; i-- {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

// subtract takes b from a, of the same length, and returns what was borrowed.
func subtract(a, b []uint32) (borrow uint32) {
	for i := range a {
		a[i], borrow = bits.Sub32(a[i], b[i], borrow)
	}
	return borrow
}

// power is base to the power of exponent, which is not 0, modulo an odd modulus; base is less than that, and as long.
func power(base []uint32, exponent uint32, modulus []uint32) []uint32 {
	m := newMontgomery(modulus)
	base = m.multiply(base, m.square)
	result := base
	for i := bits.Len32(exponent) - 2; i >= 0; i-- {
		result = m.multiply(result, result)
		if exponent>>i&1 != 0 {
			result = m.multiply(result, base)
		}
	}
	one := make([]uint32, len(modulus))
	one[0] = 1
	return m.multiply(result, one)
}

// montgomery multiplies modulo an odd number without dividing (Montgomery, 1985), numbers that were multiplied by R = 2^(32 words).
type montgomery struct {
	modulus []uint32
	// inverse is -1/modulus modulo 2^32, square is R*R.
	inverse uint32
	square  []uint32
}

func newMontgomery(modulus []uint32) montgomery {
	m := montgomery{modulus: modulus, square: make([]uint32, len(modulus))}
	inverse := modulus[0] // right for 3 bits; each step doubles that
	for range 4 {
		inverse *= 2 - modulus[0]*inverse
	}
	m.inverse = -inverse
	// 1 is doubled as often as R*R has bits.
	m.square[0] = 1
	for range 64 * len(modulus) {
		var carry uint32
		for i, w := range m.square {
			m.square[i] = w<<1 | carry
			carry = w >> 31
		}
		if carry != 0 || !less(m.square, modulus) {
			subtract(m.square, modulus)
		}
	}
	return m
}

// multiply returns a*b/R modulo the modulus.
func (m montgomery) multiply(a, b []uint32) []uint32 {
	n := len(m.modulus)
	t := make([]uint32, 2*n+1)
	for i, w := range a {
		add(t[i:], b, w)
	}
	for i := range n {
		add(t[i:], m.modulus, t[i]*m.inverse)
	}
	result := t[n : 2*n]
	if t[2*n] != 0 || !less(result, m.modulus) {
		subtract(result, m.modulus)
	}
	return result
}

// add adds b times w to t, which is long enough for what is carried.
func add(t, b []uint32, w uint32) {
	var carry uint64
	for i, v := range b {
		carry += uint64(v)*uint64(w) + uint64(t[i])
		t[i] = uint32(carry)
		carry >>= 32
	}
	for i := len(b); carry != 0; i++ {
		carry += uint64(t[i])
		t[i] = uint32(carry)
		carry >>= 32
	}
}
