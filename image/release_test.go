package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
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

// releaseRig is a folder in which images of two boards were built.
func releaseRig(t *testing.T) (boards []board.Board, out, changelog, key string, sign func(b, v string) []byte) {
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	sign = func(b, v string) []byte {
		image := []byte("slot image of " + b)
		head, err := upgrade.Header{Board: b, Version: v, Date: time.Unix(1_700_000_000, 0), Length: int64(len(image)), Sum: sha256.Sum256(image)}.Sign(private)
		require.NoError(t, err)
		return append(head, image...)
	}
	out = t.TempDir()
	for _, name := range []string{"malta", "pc"} {
		b, err := board.ByName(name)
		require.NoError(t, err)
		boards = append(boards, b)
		require.NoError(t, os.MkdirAll(filepath.Join(out, name), 0o755))
		for file, content := range map[string][]byte{upgradeImage: sign(name, "v2"), factoryImage: []byte("disk"), sbomFile: []byte("{}"), "kernel": []byte("not released")} {
			require.NoError(t, os.WriteFile(filepath.Join(out, name, file), content, 0o644))
		}
	}
	changelog = filepath.Join(t.TempDir(), "changes")
	require.NoError(t, os.WriteFile(changelog, []byte("# Changelog\n"), 0o644))
	return boards, out, changelog, fmt.Sprintf("%x\n", []byte(public)), sign
}

func TestAssemble(t *testing.T) {
	boards, out, changelog, key, sign := releaseRig(t)
	v := version{name: "v2", date: time.Unix(1_700_000_000, 0)}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(out, "release", name))
		require.NoError(t, err)
		return string(text)
	}
	for range 2 { // the second replaces the first
		folder, err := assemble(boards, out, v, key, changelog)
		require.NoError(t, err)
		assert.Equal(t, filepath.Join(out, "release"), folder)
		assert.Equal(t, string(sign("pc", "v2")), read("pc/sysupgrade.img"))
		assert.Equal(t, "# Changelog\n", read("CHANGELOG.md"))
		assert.Equal(t, key, read("upgrade.pub"))
		sum := fmt.Sprintf("%x", sha256.Sum256(sign("malta", "v2")))
		assert.Equal(t, "malta\tv2\t2023-11-14T22:13:20Z\t275\t"+sum+"\tmalta/sysupgrade.img", strings.Split(read("index.txt"), "\n")[0])
		assert.Contains(t, read("malta/SHA256SUMS"), sum+"  sysupgrade.img\n")
		assert.Contains(t, read("index.html"), `<a href="pc/factory.img">factory.img</a>`)
		assert.NoFileExists(t, filepath.Join(folder, "pc", "kernel"))
		assert.NoDirExists(t, folder+".new")
		assert.NoDirExists(t, folder+".old")
	}
	for name, image := range map[string][]byte{
		"it is version v1 for pc, expected v2 for pc":    sign("pc", "v1"),
		"it is version v2 for malta, expected v2 for pc": sign("malta", "v2"),
		"header of 3 bytes":                              []byte("cut"),
		"wrong signature":                                func() []byte { b := sign("pc", "v2"); b[200] ^= 1; return b }(),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(out, "pc", upgradeImage), image, 0o644))
		_, err := assemble(boards, out, v, key, changelog)
		require.ErrorContains(t, err, name)
		assert.Equal(t, string(sign("pc", "v2")), read("pc/sysupgrade.img"), "what was there stays")
	}
	require.NoError(t, os.Remove(filepath.Join(out, "pc", upgradeImage)))
	_, err := assemble(boards, out, v, key, changelog)
	require.ErrorContains(t, err, "release for pc: "+filepath.Join(out, "pc", upgradeImage)+" is not there")
}
