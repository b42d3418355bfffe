package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// TestLinkedTypes: a program does as that of Go's own linker, and both have pointers at the same places of their variables.
func TestLinkedTypes(t *testing.T) {
	e2e.Builds(t)
	dir := t.TempDir()
	linker, err := boardLinker(board.Board{}, dir)
	require.NoError(t, err)
	require.NotEmpty(t, linker.toolexec)
	list, left, err := overlay(map[string]string{}, linker.runtime, dir)
	require.NoError(t, err)
	require.Empty(t, left)
	for _, arch := range []string{"amd64", "386", "mips"} {
		build := func(name string, flags ...string) string {
			program := filepath.Join(dir, name+"-"+arch)
			args := append([]string{"build", "-ldflags=-w", "-gcflags=all=-l", "-o", program}, flags...)
			require.NoError(t, run("", append([]string{"CGO_ENABLED=0", "GOARCH=" + arch}, linker.env...), "go", append(args, "./testdata/linked")...))
			return program
		}
		usual, short := build("usual"), build("short", "-toolexec="+linker.toolexec, "-overlay="+list)
		for _, name := range []string{"runtime.gcdata", "runtime.gcbss"} {
			want := pointers(t, usual, name)
			assert.Greater(t, len(want), 1000)
			assert.True(t, bytes.Equal(want, pointers(t, short, name)), "%s of %s", name, arch)
		}
		if arch == "mips" || runtime.GOARCH != "amd64" {
			continue
		}
		output := func(program string, env ...string) string {
			cmd := exec.Command(program)
			cmd.Env = append(os.Environ(), env...)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			return string(out)
		}
		assert.Equal(t, output(usual), output(short, "GODEBUG=gccheckmark=1"), arch)
	}
}

// pointers returns a byte for each word of a program's variables, 1 for a pointer, from the garbage collector's
// program of that name (see runGCProg of Go's runtime).
func pointers(t *testing.T, program, name string) []byte {
	f, err := elf.Open(program)
	require.NoError(t, err)
	defer f.Close()
	symbols, err := f.Symbols()
	require.NoError(t, err)
	at := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == name })
	require.NotEqual(t, -1, at, name)
	s := symbols[at]
	section := f.Sections[s.Section]
	p := make([]byte, s.Size)
	_, err = section.ReadAt(p, int64(s.Value-section.Addr))
	require.NoError(t, err)
	number := func() int {
		u, size := binary.Uvarint(p)
		p = p[size:]
		return int(u)
	}
	var words []byte
	for {
		n, repeat := int(p[0]&0x7f), p[0]&0x80 != 0
		p = p[1:]
		switch {
		case repeat:
			if n == 0 {
				n = number()
			}
			for range number() {
				words = append(words, words[len(words)-n:]...)
			}
		case n == 0:
			return words
		default:
			for i := range n {
				words = append(words, p[i/8]>>(i%8)&1)
			}
			p = p[(n+7)/8:]
		}
	}
}
