// Package ssh is the public keys of users. The server is package sshd.
package ssh

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

const (
	// MaxKeys is how many keys there may be.
	MaxKeys = 32

	// KeyType is the type of Ed25519's keys (RFC 8709).
	KeyType = "ssh-ed25519"
	// KeySize is the length of a public key of Ed25519 in bytes.
	KeySize = 32
	// maxOwner is the greatest length of a key's comment in bytes.
	maxOwner = 64
)

// Key is a public key of a user.
type Key struct {
	User   string
	Public PublicKey
}

// PublicKey is a public key of Ed25519, or of RSA. The zero value is none.
type PublicKey struct {
	// Key is what stands behind the type in SSH's own form: of Ed25519 the key's KeySize bytes without their length, of RSA the
	// exponent and the modulus with theirs, at most MaxKey bytes. No key of RSA has KeySize.
	Key string
	// Owner is the comment behind the key, which is the name of its owner as a rule.
	Owner string
}

// ParseKey reads a key as OpenSSH writes it to a file .pub (sshd(8), AUTHORIZED_KEYS FILE FORMAT),
// without options: "ssh-ed25519 AAAA... name@host" or "ssh-rsa AAAA...". The error says what is wrong with it.
func ParseKey(text string) (PublicKey, error) {
	fields := strings.Fields(text)
	if len(fields) < 2 {
		return PublicKey{}, errors.New("a key has a type and, behind a blank, its value")
	}
	if fields[0] != KeyType && fields[0] != RSAType {
		return PublicKey{}, fmt.Errorf("the type of a key must be %s or %s", KeyType, RSAType)
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(fields[1])
	if err != nil {
		return PublicKey{}, errors.New("the value of the key is not base64, or a part of it is missing")
	}
	k, err := ParseBlob(blob)
	if known := fields[0] == RSAType && errors.Is(err, errRSA); !known && (err != nil || k.Type() != fields[0]) {
		err = fmt.Errorf("the value of the key is not that of %s", fields[0])
	}
	if err != nil {
		return PublicKey{}, err
	}
	k.Owner = strings.Join(fields[2:], " ")
	if len(k.Owner) > maxOwner || strings.ContainsFunc(k.Owner, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return PublicKey{}, fmt.Errorf("the name behind the key must have at most %d printable characters", maxOwner)
	}
	return k, nil
}

// ParseBlob reads a key in SSH's own form.
func ParseBlob(blob []byte) (PublicKey, error) {
	if key, ok := strings.CutPrefix(string(blob), "\x00\x00\x00\x07"+RSAType); ok {
		return ParseRSA([]byte(key))
	}
	key, ok := strings.CutPrefix(string(blob), "\x00\x00\x00\x0b"+KeyType+"\x00\x00\x00\x20")
	if !ok || len(key) != KeySize {
		return PublicKey{}, fmt.Errorf("the value of the key is not that of %s", KeyType)
	}
	return PublicKey{Key: key}, nil
}

// Type is the type of the key, as its line begins.
func (k PublicKey) Type() string {
	if len(k.Key) == KeySize {
		return KeyType
	}
	return RSAType
}

// Bits is the length of the key in bits.
func (k PublicKey) Bits() int {
	if k.Type() == KeyType {
		return 8 * KeySize
	}
	_, modulus, _ := k.rsa()
	return bitLen(modulus)
}

// String is the key as ParseKey reads it; "" if there is none.
func (k PublicKey) String() string {
	if k.Key == "" {
		return ""
	}
	return strings.TrimSuffix(k.Type()+" "+base64.StdEncoding.EncodeToString(k.Blob())+" "+k.Owner, " ")
}

// Blob is the key in SSH's own form (RFC 8709, section 4; RFC 4253, section 6.6).
func (k PublicKey) Blob() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(k.Type())))
	b = append(b, k.Type()...)
	if k.Type() == RSAType {
		return append(b, k.Key...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(k.Key)))
	return append(b, k.Key...)
}

// Fingerprint is what OpenSSH shows for the key: "SHA256:" and the hash in base64.
func (k PublicKey) Fingerprint() string {
	sum := sha256.Sum256(k.Blob())
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}
