package cache

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCache(t *testing.T) {
	c := Cache{Dir: t.TempDir(), Seed: t.TempDir()}
	builds := 0
	make := func(result, work string) error {
		builds++
		return os.WriteFile(filepath.Join(result, "made"), []byte("x"), 0o644)
	}
	first, err := c.Get("kind", "name", []string{"a", "b"}, make)
	require.NoError(t, err)
	again, err := c.Get("kind", "name", []string{"a", "b"}, make)
	require.NoError(t, err)
	assert.Equal(t, first, again)
	assert.Equal(t, 1, builds)
	other, err := c.Get("kind", "name", []string{"ab", ""}, make)
	require.NoError(t, err)
	assert.NotEqual(t, first, other)

	t.Run("the seed is looked in first", func(t *testing.T) {
		seeded := filepath.Join(c.Seed, "kind", filepath.Base(first))
		require.NoError(t, os.MkdirAll(seeded, 0o755))
		found, ok := Cache{Dir: t.TempDir(), Seed: c.Seed}.Find("kind", "name", []string{"a", "b"})
		assert.True(t, ok)
		assert.Equal(t, seeded, found)
		got, err := c.Get("kind", "name", []string{"a", "b"}, make)
		require.NoError(t, err)
		assert.Equal(t, seeded, got)
	})
	t.Run("a build that fails leaves nothing", func(t *testing.T) {
		_, err := c.Get("kind", "name", []string{"c"}, func(result, _ string) error {
			require.NoError(t, os.WriteFile(filepath.Join(result, "half"), nil, 0o644))
			return os.ErrInvalid
		})
		require.ErrorIs(t, err, os.ErrInvalid)
		left, err := filepath.Glob(filepath.Join(c.Dir, "build-*"))
		require.NoError(t, err)
		assert.Empty(t, left)
		builds = 0
		_, err = c.Get("kind", "name", []string{"c"}, make)
		require.NoError(t, err)
		assert.Equal(t, 1, builds)
	})
}
