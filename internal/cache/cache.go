// Package cache keeps, outside the checkout, what takes long to make or is fetched: built kernels and iptables, and what tests
// take from npm's registry.
package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Cache keeps what is slow to make. Each result has a folder, named by a hash of everything
// that went into it, so that an entry is either right or absent.
type Cache struct {
	// Dir is written to.
	Dir string
	// Seed, if not empty, is a cache that is read first and never written.
	Seed string
}

// Open opens the cache at POSTERN_CACHE, or else in the user's cache folder, with
// POSTERN_CACHE_SEED as its seed.
func Open() (Cache, error) {
	c := Cache{Dir: os.Getenv("POSTERN_CACHE"), Seed: os.Getenv("POSTERN_CACHE_SEED")}
	if c.Dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return Cache{}, fmt.Errorf("where to keep what is slow to make: %w (or set POSTERN_CACHE)", err)
		}
		c.Dir = filepath.Join(user, "postern")
	}
	abs, err := filepath.Abs(c.Dir)
	if err != nil {
		return Cache{}, fmt.Errorf("cache folder %s: %w", c.Dir, err)
	}
	c.Dir = abs
	return c, os.MkdirAll(c.Dir, 0o755)
}

// Key hashes the inputs of a build, in order. The length of each is hashed too, so that no
// two lists give the same text.
func Key(inputs ...string) string {
	h := sha256.New()
	for _, in := range inputs {
		fmt.Fprintf(h, "%d:%s\n", len(in), in)
	}
	return hex.EncodeToString(h.Sum(nil))[:24]
}

// Find returns the folder that Get would return, and whether it is there.
func (c Cache) Find(kind, name string, inputs []string) (dir string, ok bool) {
	entry := filepath.Join(kind, name+"-"+Key(inputs...))
	for _, in := range []string{c.Seed, c.Dir} {
		if dir = filepath.Join(in, entry); in != "" && exists(dir) {
			return dir, true
		}
	}
	return dir, false
}

// Get returns the folder kind/name-key, which build makes if there is none yet. build gets an
// empty folder for the result and one to work in; the result is in the cache only if build
// succeeds. A second process that wants the same waits for the first.
func (c Cache) Get(kind, name string, inputs []string, build func(result, work string) error) (string, error) {
	dir, ok := c.Find(kind, name, inputs)
	if ok {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(dir) {
		return dir, nil
	}
	temp, err := os.MkdirTemp(c.Dir, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	result, work := filepath.Join(temp, "result"), filepath.Join(temp, "work")
	for _, d := range []string{result, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return "", err
		}
	}
	if err := build(result, work); err != nil {
		return "", err
	}
	if err := os.Rename(result, dir); err != nil {
		return "", err
	}
	return dir, nil
}

// lock waits for an exclusive lock on a file.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
