package main

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "keys")
	t.Setenv("POSTERN_KEYS", dir)
	opened, err := openKeys()
	require.NoError(t, err)
	assert.Equal(t, dir, opened)

	der := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		block, rest := pem.Decode(text)
		require.NotNil(t, block, name)
		assert.Empty(t, rest)
		return block.Bytes
	}
	private, err := x509.ParsePKCS8PrivateKey(der(upgradeKey))
	require.NoError(t, err)
	public, err := x509.ParsePKIXPublicKey(der(upgradePublic))
	require.NoError(t, err)
	assert.Equal(t, private.(ed25519.PrivateKey).Public(), public)
	private, err = x509.ParsePKCS8PrivateKey(der(fitKey))
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der(fitCertificate))
	require.NoError(t, err)
	assert.True(t, private.(*rsa.PrivateKey).PublicKey.Equal(certificate.PublicKey))
	for _, name := range []string{upgradeKey, fitKey} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o600), info.Mode(), name)
	}

	before := der(upgradeKey)
	require.ErrorIs(t, makeKeys(dir), fs.ErrExist)
	_, err = openKeys()
	require.NoError(t, err)
	assert.Equal(t, before, der(upgradeKey), "keys that are there are used")
	left, err := os.ReadDir(filepath.Dir(dir))
	require.NoError(t, err)
	assert.Len(t, left, 1, "nothing but the keys is left")

	require.NoError(t, os.Remove(filepath.Join(dir, fitKey)))
	_, err = openKeys()
	assert.ErrorContains(t, err, fitKey)
}
