package pppoetest

import (
	"bytes"
	"crypto/des"
	"crypto/sha1"
	"fmt"
	"unicode/utf16"

	"golang.org/x/crypto/md4" //lint:ignore SA1019 MS-CHAP is made of it
)

func hashOf(b []byte) []byte {
	h := md4.New()
	h.Write(b)
	return h.Sum(nil)
}

// checkMSCHAP2 is the server's side of RFC 2759: whether the response is right, and what is told the
// client.
func checkMSCHAP2(response, challenge []byte, user, password string) (bool, string) {
	if len(response) != 49 {
		return false, ""
	}
	var wide []byte
	for _, c := range utf16.Encode([]rune(password)) {
		wide = append(wide, byte(c), byte(c>>8))
	}
	hash := hashOf(wide)
	h := sha1.New()
	h.Write(response[:16])
	h.Write(challenge)
	h.Write([]byte(user))
	both := h.Sum(nil)[:8]
	keys := append(append([]byte(nil), hash...), 0, 0, 0, 0, 0)
	var want []byte
	for i := 0; i < 21; i += 7 {
		key := make([]byte, 8)
		for bit := range 56 {
			if keys[i+bit/8]>>(7-bit%8)&1 == 1 {
				key[bit/7] |= 1 << (7 - bit%7)
			}
		}
		c, _ := des.NewCipher(key)
		block := make([]byte, 8)
		c.Encrypt(block, both)
		want = append(want, block...)
	}
	d := sha1.New()
	d.Write(hashOf(hash))
	d.Write(want)
	d.Write([]byte("Magic server to client signing constant"))
	first := d.Sum(nil)
	d = sha1.New()
	d.Write(first)
	d.Write(both)
	d.Write([]byte("Pad to make it do more than one iteration"))
	return bytes.Equal(want, response[24:48]), fmt.Sprintf("S=%X M=welcome", d.Sum(nil))
}
