package ssh

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// rsaBlob is what stands behind the type of a key.
func rsaBlob(e, n *big.Int) []byte {
	var blob []byte
	for _, i := range []*big.Int{e, n} {
		text := i.Bytes()
		if len(text) > 0 && text[0]&0x80 != 0 {
			text = append([]byte{0}, text...)
		}
		blob = append(binary.BigEndian.AppendUint32(blob, uint32(len(text))), text...)
	}
	return blob
}

func publicRSA(t *testing.T, key *rsa.PrivateKey) PublicKey {
	t.Helper()
	k, err := ParseRSA(rsaBlob(big.NewInt(int64(key.E)), key.N))
	require.NoError(t, err)
	return k
}

// What crypto/rsa signs is right, and nothing else is.
func TestVerifyRSA(t *testing.T) {
	for _, size := range []int{2048, 2056, 3072, 4096} {
		key, err := rsa.GenerateKey(rand.Reader, size)
		require.NoError(t, err)
		k := publicRSA(t, key)
		assert.Equal(t, size, k.Bits())
		assert.Equal(t, RSAType, k.Type())
		again, err := ParseKey(k.String() + " me")
		require.NoError(t, err)
		assert.Equal(t, k.Key, again.Key)
		data := []byte("what is signed")
		sum256, sum512, sum1 := sha256.Sum256(data), sha512.Sum512(data), sha1.Sum(data)
		by256, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum256[:])
		require.NoError(t, err)
		by512, err := rsa.SignPKCS1v15(nil, key, crypto.SHA512, sum512[:])
		require.NoError(t, err)
		by1, err := rsa.SignPKCS1v15(nil, key, crypto.SHA1, sum1[:])
		require.NoError(t, err)
		require.NoError(t, k.VerifyRSA(RSASHA256, data, by256))
		require.NoError(t, k.VerifyRSA(RSASHA512, data, by512))
		require.ErrorIs(t, k.VerifyRSA(RSASHA512, data, by256), errSignature)
		require.ErrorIs(t, k.VerifyRSA(RSASHA256, data, by512), errSignature)
		require.ErrorIs(t, k.VerifyRSA(RSASHA256, data, by1), errSignature)
		require.ErrorContains(t, k.VerifyRSA(RSAType, data, by1), "must be rsa-sha2-256 or rsa-sha2-512")
		require.ErrorIs(t, k.VerifyRSA(RSASHA256, []byte("something else"), by256), errSignature)
		require.ErrorIs(t, k.VerifyRSA(RSASHA256, data, nil), errSignature)
		require.ErrorIs(t, k.VerifyRSA(RSASHA256, data, append([]byte{0}, by256...)), errSignature)
		other := new(big.Int).Add(new(big.Int).SetBytes(by256), key.N).Bytes()
		require.ErrorIs(t, k.VerifyRSA(RSASHA256, data, other), errSignature, "one number has one signature")
		for i := range by256 {
			wrong := append([]byte{}, by256...)
			wrong[i] ^= 1 << (i % 8)
			require.ErrorIs(t, k.VerifyRSA(RSASHA256, data, wrong), errSignature)
		}
		// PuTTY leaves leading zeros out.
		for i := 0; ; i++ {
			sum := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
			short, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
			require.NoError(t, err)
			if short[0] == 0 {
				require.NoError(t, k.VerifyRSA(RSASHA256, []byte{byte(i), byte(i >> 8)}, short[1:]))
				break
			}
			if size > 3000 && i == 20 {
				break // each takes long
			}
		}
	}
}

// With the exponent 3, what is behind the hash could be anything if it were parsed (Bleichenbacher, 2006).
func TestRSAPadding(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	k, err := ParseRSA(rsaBlob(big.NewInt(3), key.N))
	require.NoError(t, err)
	data := []byte("x")
	sum := sha256.Sum256(data)
	block := make([]byte, 256)
	copy(block, "\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\x00"+prefixSHA256+string(sum[:]))
	// The greatest cube root below a block that begins so.
	root := cubeRoot(new(big.Int).Add(new(big.Int).SetBytes(block), new(big.Int).Lsh(big.NewInt(1), 1500)))
	cube := new(big.Int).Exp(root, big.NewInt(3), nil).FillBytes(make([]byte, 256))
	require.Equal(t, block[:60], cube[:60], "the forgery is one")
	require.ErrorIs(t, k.VerifyRSA(RSASHA256, data, root.Bytes()), errSignature)
}

func cubeRoot(n *big.Int) *big.Int {
	low, high := big.NewInt(0), new(big.Int).Lsh(big.NewInt(1), 700)
	for new(big.Int).Sub(high, low).Cmp(big.NewInt(1)) > 0 {
		middle := new(big.Int).Rsh(new(big.Int).Add(low, high), 1)
		if new(big.Int).Exp(middle, big.NewInt(3), nil).Cmp(n) > 0 {
			high = middle
		} else {
			low = middle
		}
	}
	return low
}

func TestParseRSA(t *testing.T) {
	n := new(big.Int).Lsh(big.NewInt(1), 2047)
	n.SetBit(n, 0, 1)
	e := big.NewInt(65537)
	good := rsaBlob(e, n)
	_, err := ParseRSA(good)
	require.NoError(t, err)
	for name, blob := range map[string][]byte{
		"nothing":              nil,
		"no modulus":           good[:7],
		"cut":                  good[:len(good)-1],
		"more":                 append(append([]byte{}, good...), 0),
		"an even modulus":      rsaBlob(e, new(big.Int).Lsh(big.NewInt(1), 2047)),
		"a short modulus":      rsaBlob(e, new(big.Int).SetBit(big.NewInt(1), 2046, 1)),
		"a long modulus":       rsaBlob(e, new(big.Int).SetBit(big.NewInt(1), 4096, 1)),
		"the exponent 1":       rsaBlob(big.NewInt(1), n),
		"an even exponent":     rsaBlob(big.NewInt(65536), n),
		"no exponent":          rsaBlob(big.NewInt(0), n),
		"a long exponent":      rsaBlob(new(big.Int).SetBit(big.NewInt(1), 32, 1), n),
		"a zero too many":      append([]byte{0, 0, 0, 4, 0, 1, 0, 1}, good[7:]...),
		"a negative exponent":  append([]byte{0, 0, 0, 1, 0x81}, good[7:]...),
		"a length of 4 GiB":    append([]byte{0xff, 0xff, 0xff, 0xff}, good[4:]...),
		"as long as Ed25519's": make([]byte, KeySize),
	} {
		_, err := ParseRSA(blob)
		require.ErrorIs(t, err, errRSA, name)
	}
	text := "ssh-rsa " + base64.StdEncoding.EncodeToString(append([]byte("\x00\x00\x00\x07ssh-rsa"), good...)) + " me@home"
	k, err := ParseKey(text)
	require.NoError(t, err)
	assert.Equal(t, text, k.String())
	_, err = ParseKey("ssh-rsa " + strings.TrimPrefix(text, "ssh-rsa AAAAB3NzaC1yc2E"))
	require.Error(t, err)
}

// Powers are those of math/big.
func FuzzPower(f *testing.F) {
	f.Add([]byte{7}, uint32(65537), []byte{9, 1, 0, 0, 0, 1})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint32(3), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff, 0xfe}, uint32(0xffffffff), []byte{0x80, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, base []byte, exponent uint32, modulus []byte) {
		n := new(big.Int).SetBytes(modulus)
		if exponent == 0 || n.Bit(0) == 0 || n.Cmp(big.NewInt(1)) <= 0 || len(modulus) > 64 {
			return
		}
		b := new(big.Int).SetBytes(base)
		b.Mod(b, n)
		want := new(big.Int).Exp(b, new(big.Int).SetUint64(uint64(exponent)), n)
		m := words(modulus)
		padded := make([]uint32, len(m))
		copy(padded, words(b.Bytes()))
		got := new(big.Int)
		for i, w := range power(padded, exponent, m) {
			got.Or(got, new(big.Int).Lsh(new(big.Int).SetUint64(uint64(w)), uint(32*i)))
		}
		require.Zero(t, want.Cmp(got), "%v^%v mod %v: %v, not %v", b, exponent, n, got, want)
	})
}

// Whatever a client sends as a key and a signature, the check ends.
func FuzzVerifyRSA(f *testing.F) {
	n := new(big.Int).SetBit(new(big.Int).SetBit(big.NewInt(1), 2047, 1), 77, 1)
	f.Add(rsaBlob(big.NewInt(3), n), []byte("signature"))
	f.Fuzz(func(t *testing.T, blob, signature []byte) {
		k, err := ParseRSA(blob)
		if err != nil {
			return
		}
		again, err := ParseKey(k.String())
		require.NoError(t, err)
		assert.Equal(t, k, again)
		require.Error(t, k.VerifyRSA(RSASHA256, []byte("x"), signature))
	})
}

func BenchmarkVerifyRSA(b *testing.B) {
	n := new(big.Int).SetBit(new(big.Int).SetBit(big.NewInt(1), 4095, 1), 77, 1)
	k, err := ParseRSA(rsaBlob(big.NewInt(65537), n))
	require.NoError(b, err)
	for b.Loop() {
		_ = k.VerifyRSA(RSASHA512, nil, []byte{7})
	}
}
