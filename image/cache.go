package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// cache keeps what is slow to build. Each result has a folder, named by a hash of everything
// that went into it, so that an entry is either right or absent.
type cache struct {
	// dir is written to.
	dir string
	// seed, if not empty, is a cache that is read first and never written.
	seed string
}

// openCache opens the cache at POSTERN_CACHE, or else in the user's cache folder, with
// POSTERN_CACHE_SEED as its seed.
func openCache() (cache, error) {
	c := cache{dir: os.Getenv("POSTERN_CACHE"), seed: os.Getenv("POSTERN_CACHE_SEED")}
	if c.dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return cache{}, fmt.Errorf("where to keep built kernels: %w (or set POSTERN_CACHE)", err)
		}
		c.dir = filepath.Join(user, "postern")
	}
	abs, err := filepath.Abs(c.dir)
	if err != nil {
		return cache{}, fmt.Errorf("cache folder %s: %w", c.dir, err)
	}
	c.dir = abs
	return c, os.MkdirAll(c.dir, 0o755)
}

// key hashes the inputs of a build, in order. The length of each is hashed too, so that no
// two lists give the same text.
func key(inputs ...string) string {
	h := sha256.New()
	for _, in := range inputs {
		fmt.Fprintf(h, "%d:%s\n", len(in), in)
	}
	return hex.EncodeToString(h.Sum(nil))[:24]
}

// have reports whether get would find the folder.
func (c cache) have(kind, name string, inputs []string) bool {
	entry := filepath.Join(kind, name+"-"+key(inputs...))
	return c.seed != "" && exists(filepath.Join(c.seed, entry)) || exists(filepath.Join(c.dir, entry))
}

// get returns the folder kind/name-key, which build makes if there is none yet. build gets an
// empty folder for the result and one to work in; the result is in the cache only if build
// succeeds. A second process that wants the same waits for the first.
func (c cache) get(kind, name string, inputs []string, build func(result, work string) error) (string, error) {
	entry := filepath.Join(kind, name+"-"+key(inputs...))
	if c.seed != "" {
		if dir := filepath.Join(c.seed, entry); exists(dir) {
			return dir, nil
		}
	}
	dir := filepath.Join(c.dir, entry)
	if exists(dir) {
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
	temp, err := os.MkdirTemp(c.dir, "build-")
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

func copyFile(dst, src string, mode fs.FileMode) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return fmt.Errorf("copy %s to %s: %w", src, dst, err)
	}
	// O_CREATE applied the umask, on which an image must not depend.
	if err := out.Chmod(mode); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

func fileHash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// tail returns the last n lines of text.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
