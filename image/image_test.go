package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/cache"
	"github.com/postern-router/postern/internal/e2e"
)

func TestCheckConfig(t *testing.T) {
	const config = "CONFIG_NET=y\nCONFIG_HZ=100\n# CONFIG_USB is not set\n"
	for _, c := range []struct{ name, fragments, problem string }{
		{"all there", "# why\nCONFIG_NET=y\n\nCONFIG_HZ=100\n", ""},
		{"the later fragment decides", "CONFIG_HZ=250\nCONFIG_HZ=100\n", ""},
		{"switched off", "CONFIG_USB=n\n", ""},
		{"dropped", "CONFIG_NET=y\nCONFIG_NETFILTER=y\n", "CONFIG_NETFILTER=y (it is n)"},
		{"another value", "CONFIG_HZ=250\n", "CONFIG_HZ=250 (it is 100)"},
		{"no option", "NET=y\n", `"NET=y" is not an option`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := checkConfig(c.fragments, config)
			if c.problem == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.problem)
			}
		})
	}
}

// maltaGoal is the greatest size that malta's image is to have, in bytes: a quarter of a megabyte less than its chip has room for.
const maltaGoal = 3264 << 10

// TestReproducible builds malta's kernel and iptables a second time in another folder, the
// kernel from another source folder too, and then the whole image twice: the bytes must be the
// same. Both kernels stay in the cache, so that only the first run with new inputs takes long.
func TestReproducible(t *testing.T) {
	e2e.Builds(t)
	b, err := board.ByName("malta")
	require.NoError(t, err)
	c, err := cache.Open()
	require.NoError(t, err)
	for _, part := range []struct {
		file  string
		build func(again string) (string, error)
	}{
		{"kernel", func(again string) (string, error) { return kernel(c, b, again) }},
		{"xtables-legacy-multi", func(again string) (string, error) { return iptables(c, b, again) }},
	} {
		t.Run(part.file, func(t *testing.T) {
			first, err := part.build("")
			require.NoError(t, err)
			second, err := part.build("again")
			require.NoError(t, err)
			require.NotEqual(t, first, second)
			assert.Equal(t, hashOf(t, filepath.Join(first, part.file)), hashOf(t, filepath.Join(second, part.file)))
		})
	}
	t.Run("image", func(t *testing.T) {
		var sums [2]string
		for i := range sums {
			out := t.TempDir()
			s, err := build(c, b, out, false, false)
			require.NoError(t, err)
			assert.LessOrEqual(t, s.total, int64(maltaGoal), "bytes on flash")
			text, err := os.ReadFile(filepath.Join(out, b.Name, "SHA256SUMS"))
			require.NoError(t, err)
			sums[i] = string(text)
		}
		assert.Equal(t, sums[0], sums[1])
		for _, name := range []string{"kernel", "kernel.config", "initramfs.cpio.xz", sbomFile, licencesFile, buildInfoFile} {
			assert.Contains(t, sums[0], "  "+name+"\n")
		}
	})
}

// TestDebugTools looks for what TestInside of package qemu types.
func TestDebugTools(t *testing.T) {
	e2e.Builds(t)
	b, err := board.ByName("malta")
	require.NoError(t, err)
	c, err := cache.Open()
	require.NoError(t, err)
	tools, err := debugTools(c, b)
	require.NoError(t, err)
	var names []string
	for _, r := range tools {
		names = append(names, r.Name)
	}
	assert.Subset(t, names, []string{"bbin/bb", "bbin/gosh", "bbin/ip", "bbin/ps", "bbin/ls", "bbin/cat", "bbin/kill"})
}

// TestOverlayText: what is cached depends on the text that an overlay has, and not on where it is.
func TestOverlayText(t *testing.T) {
	b, err := board.ByName("malta")
	require.NoError(t, err)
	text := func(more ...patch) string {
		env, err := goEnv(b, t.TempDir(), more...)
		require.NoError(t, err)
		text, err := overlayText(env)
		require.NoError(t, err)
		return text
	}
	assert.Equal(t, text(), text())
	assert.NotEqual(t, text(), text(patch{file: "src/slices/slices.go", wrong: "package slices\n", right: "package slices // another\n", times: 1}))
}

func hashOf(t *testing.T, path string) string {
	t.Helper()
	h, err := fileHash(path)
	require.NoError(t, err)
	return h
}

// TestLimit builds an image for a chip that is too small.
func TestLimit(t *testing.T) {
	e2e.Builds(t)
	b, err := board.ByName("malta")
	require.NoError(t, err)
	c, err := cache.Open()
	require.NoError(t, err)
	b.ImageLimit = 1 << 20
	_, err = build(c, b, t.TempDir(), false, false)
	require.ErrorContains(t, err, "its flash takes 1048576")
	assert.ErrorContains(t, err, "iptables")
	assert.ErrorContains(t, err, "runtime ", "and the packages of the program")
}

func TestPatchGo(t *testing.T) {
	_, left, err := overlay(map[string]string{}, []patch{{file: pcln, wrong: "no such text", times: 1}}, t.TempDir())
	require.NoError(t, err)
	assert.Len(t, left, 1, "it is told")
	for _, b := range board.All() {
		_, left, err := overlay(map[string]string{}, slices.DeleteFunc(slices.Clone(patches), func(m patch) bool { return !m.appliesTo(b) }), t.TempDir())
		require.NoError(t, err)
		assert.Empty(t, left, b.Name)
		path, err := patchGo(b, t.TempDir())
		require.NoError(t, err)
		list, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, m := range patches {
			// The release of Go that is in use has the text of every patch.
			applies := slices.ContainsFunc(patches, func(other patch) bool { return other.file == m.file && other.appliesTo(b) })
			assert.Equal(t, applies, strings.Contains(string(list), m.file), "%s: %s", b.Name, m.file)
		}
	}
}
