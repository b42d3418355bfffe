package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/upgrade"
)

func TestSysupgrade(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	require.NoError(t, makeKeys(keys))
	b, err := board.ByName("malta")
	require.NoError(t, err)
	slot, path := filepath.Join(dir, "slot"), filepath.Join(dir, "sysupgrade")
	image := []byte("slot image")
	require.NoError(t, os.WriteFile(slot, image, 0o600))
	v := version{"v1-2-gabc", time.Unix(1_700_000_000, 0).UTC()}
	require.NoError(t, sysupgrade(b, v, keys, slot, path))

	// The router reads it with the public key in its image.
	text, err := publicKeyFile(keys)
	require.NoError(t, err)
	key, err := hex.DecodeString(strings.TrimSpace(text))
	require.NoError(t, err)
	made, err := os.ReadFile(path)
	require.NoError(t, err)
	h, err := upgrade.ParseHeader(made[:upgrade.HeaderSize], ed25519.PublicKey(key))
	require.NoError(t, err)
	assert.Equal(t, upgrade.Header{Board: "malta", Version: "v1-2-gabc", Date: v.date, Length: 10, Sum: sha256.Sum256(image)}, h)
	assert.Equal(t, "slot image", string(made[upgrade.HeaderSize:]))
	assert.Equal(t, "v1-2-gabc 1700000000\n", v.file())

	require.NoError(t, sysupgrade(b, v, keys, slot, path))
	again, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(made, again), "the same image is the same file")

	require.NoError(t, os.WriteFile(slot, make([]byte, b.ImageLimit+1), 0o600))
	require.ErrorContains(t, sysupgrade(b, v, keys, slot, path), "its slot takes")

	for _, name := range []string{upgradeKey, upgradePublic} {
		require.NoError(t, os.WriteFile(filepath.Join(keys, name), []byte("x"), 0o600))
	}
	require.ErrorContains(t, sysupgrade(b, v, keys, slot, path), "expected PEM")
	_, err = publicKeyFile(keys)
	require.ErrorContains(t, err, "expected PEM")
	// A key of another kind.
	require.NoError(t, os.Rename(filepath.Join(keys, fitKey), filepath.Join(keys, upgradeKey)))
	require.ErrorContains(t, sysupgrade(b, v, keys, slot, path), "expected one of Ed25519")
}

func TestReadVersion(t *testing.T) {
	v, err := readVersion()
	require.NoError(t, err)
	again, err := readVersion()
	require.NoError(t, err)
	assert.Equal(t, v, again)
	assert.Regexp(t, `^\S+ \d+\n$`, v.file())
}
