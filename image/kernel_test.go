package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/cache"
	"github.com/postern-router/postern/internal/e2e"
)

// TestDecoder: the kernel's decoder with decoderPatches unpacks what the one without does, and comes to the same end with files
// that are cut off or damaged.
func TestDecoder(t *testing.T) {
	e2e.Needs(t, "gcc", "xz", "/usr/src/"+linuxSource+".tar.xz")
	c, err := cache.Open()
	require.NoError(t, err)
	version, err := packageVersion(linuxSource)
	require.NoError(t, err)
	source, err := kernelSource(c, version)
	require.NoError(t, err)

	// What TestDecoder's program reads, and what it must say; "" for what the decoder without patches says.
	var cases bytes.Buffer
	var expected []string
	add := func(xz []byte, in, out int, says string) {
		require.NoError(t, binary.Write(&cases, binary.NativeEndian, []uint32{uint32(in), uint32(out), uint32(len(xz))}))
		cases.Write(xz)
		expected = append(expected, says)
	}
	random := rand.New(rand.NewPCG(1, 2))
	text, err := os.ReadFile(filepath.Join(source, decoder))
	require.NoError(t, err)
	program, err := os.Executable()
	require.NoError(t, err)
	code, err := os.ReadFile(program)
	require.NoError(t, err)
	noise := make([]byte, 200_000)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	for _, contents := range [][]byte{nil, []byte("a"), text, noise, bytes.Repeat([]byte("ab"), 200_000), code[:3<<19], append(noise[:70_000:70_000], text...)} {
		for _, options := range []string{"preset=9e,dict=1MiB,lc=2,lp=2,pb=2", "preset=0,dict=4KiB,lc=4,lp=0,pb=4", "preset=6,dict=64KiB,lc=0,lp=0,pb=0"} {
			for _, check := range []string{"crc32", "none"} {
				xz := exec.Command("xz", "--stdout", "--check="+check, "--lzma2="+options)
				xz.Stdin = bytes.NewReader(contents)
				packed, err := xz.Output()
				require.NoError(t, err)
				sum := fnv.New32a()
				sum.Write(contents)
				says := fmt.Sprintf("%d %d %08x", streamEnd, len(contents), sum.Sum32())
				add(packed, 4096, 4096, says)
				add(packed, 1, 7, says)
				add(packed, 1, 0, says)
				if len(packed) > 300_000 {
					continue
				}
				for range 40 {
					add(packed[:random.IntN(len(packed))], 4096, 4096, "")
					add(packed[:random.IntN(len(packed))], 1, 0, "")
					bad := bytes.Clone(packed)
					bad[random.IntN(len(bad))] ^= byte(1 << random.IntN(8))
					add(bad, 4096, 4096, "")
					add(bad, 100, 1000, "")
					add(bad, 1, 0, "")
				}
			}
		}
	}

	run := func(decoder string) []string {
		dir := t.TempDir()
		// The one header of the kernel's that is for programs too.
		require.NoError(t, copyFile(filepath.Join(dir, "xz.h"), filepath.Join(source, "include/linux/xz.h"), 0o644))
		compiler := exec.Command("gcc", "-Wall", "-Werror", "-O2", "-fno-strict-aliasing", "-Itestdata", "-I"+dir, "-I"+filepath.Join(source, "lib/xz"),
			"-o", filepath.Join(dir, "unxz"), "testdata/unxz.c", filepath.Join(source, "lib/xz/xz_crc32.c"), filepath.Join(source, "lib/xz/xz_dec_stream.c"), "-x", "c", decoder)
		out, err := compiler.CombinedOutput()
		require.NoError(t, err, "%s", out)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		unxz := exec.CommandContext(ctx, filepath.Join(dir, "unxz"))
		unxz.Stdin = bytes.NewReader(cases.Bytes())
		said, err := unxz.Output()
		require.NoError(t, err)
		return strings.Split(strings.TrimSpace(string(said)), "\n")
	}
	want := run(filepath.Join(source, decoder+unpatched))
	got := run(filepath.Join(source, decoder))
	require.Len(t, want, len(expected))
	failed := 0
	for i, says := range expected {
		if says != "" {
			require.Equal(t, says, want[i], "the decoder without patches, case %d", i)
		}
		if !strings.HasPrefix(want[i], fmt.Sprint(streamEnd)) {
			failed++
		}
	}
	require.Greater(t, failed, len(expected)/2, "most of the files are damaged")
	assert.Equal(t, want, got)
}

// TestPatchKernel: another text of the decoder fails the build, and stays as it is.
func TestPatchKernel(t *testing.T) {
	source := t.TempDir()
	file := filepath.Join(source, decoder)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte("another decoder"), 0o644))
	assert.ErrorContains(t, patchKernel(source), "mend kernelPatches")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "another decoder", string(text))
}

// streamEnd is XZ_STREAM_END of the kernel: all is unpacked.
const streamEnd = 1
