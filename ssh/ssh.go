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

	// KeyType is the type of all keys here (RFC 8709).
	KeyType = "ssh-ed25519"
	// KeySize is the length of a public key in bytes.
	KeySize = 32
	// maxOwner is the greatest length of a key's comment in bytes.
	maxOwner = 64
)

// Key is a public key of a user.
type Key struct {
	User   string
	Public PublicKey
}

// PublicKey is a public key of Ed25519. The zero value is none.
type PublicKey struct {
	// Key is the key's KeySize bytes.
	Key string
	// Owner is the comment behind the key, which is the name of its owner as a rule.
	Owner string
}

// ParseKey reads a key as OpenSSH writes it to a file .pub (sshd(8), AUTHORIZED_KEYS FILE FORMAT),
// without options: "ssh-ed25519 AAAA... name@host". The error says what is wrong with it.
func ParseKey(text string) (PublicKey, error) {
	fields := strings.Fields(text)
	if len(fields) < 2 {
		return PublicKey{}, errors.New("a key has a type and, behind a blank, its value")
	}
	if fields[0] != KeyType {
		return PublicKey{}, fmt.Errorf("the type of a key must be %s", KeyType)
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(fields[1])
	if err != nil {
		return PublicKey{}, errors.New("the value of the key is not base64, or a part of it is missing")
	}
	k := PublicKey{Owner: strings.Join(fields[2:], " ")}
	key, ok := strings.CutPrefix(string(blob), string(PublicKey{}.Blob()[:4+len(KeyType)]))
	if !ok || len(key) != 4+KeySize || binary.BigEndian.Uint32([]byte(key)) != KeySize {
		return PublicKey{}, fmt.Errorf("the value of the key is not that of %s", KeyType)
	}
	if len(k.Owner) > maxOwner || strings.ContainsFunc(k.Owner, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return PublicKey{}, fmt.Errorf("the name behind the key must have at most %d printable characters", maxOwner)
	}
	k.Key = key[4:]
	return k, nil
}

// String is the key as ParseKey reads it; "" if there is none.
func (k PublicKey) String() string {
	if k.Key == "" {
		return ""
	}
	return strings.TrimSuffix(KeyType+" "+base64.StdEncoding.EncodeToString(k.Blob())+" "+k.Owner, " ")
}

// Blob is the key in SSH's own form (RFC 8709, section 4).
func (k PublicKey) Blob() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(KeyType)))
	b = append(b, KeyType...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(k.Key)))
	return append(b, k.Key...)
}

// Fingerprint is what OpenSSH shows for the key: "SHA256:" and the hash in base64.
func (k PublicKey) Fingerprint() string {
	sum := sha256.Sum256(k.Blob())
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}
