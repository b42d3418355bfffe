package board

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBoards(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range All() {
		t.Run(b.Name, func(t *testing.T) {
			assert.False(t, seen[b.Name], "two boards of one name")
			seen[b.Name] = true
			fragments, err := b.KernelFragments()
			require.NoError(t, err)
			assert.Contains(t, fragments, "CONFIG_INET=y")
			assert.Contains(t, b.PortNames(), b.WAN)
			assert.Contains(t, b.PortNames(), b.LAN)
			assert.NotEqual(t, b.WAN, b.LAN)
			assert.NotEmpty(t, b.Consoles)
			assert.True(t, strings.Contains(b.Kernel.CommandLine, "console="+b.Consoles[0]), "the kernel's console is the first")
			found, err := ByName(b.Name)
			require.NoError(t, err)
			assert.Equal(t, b, found)
			if b.CPU.GOARCH != "arm64" && b.CPU.GOARCH != "amd64" {
				assert.Contains(t, fragments, "CONFIG_COMPAT_32BIT_TIME=y")
			}
		})
	}
}

func TestUnknownBoard(t *testing.T) {
	_, err := ByName("wrt54g")
	require.ErrorContains(t, err, "wrt54g")
	assert.ErrorContains(t, err, "malta, maltael, virt-armv7, virt-arm64, pc")
}

func TestCompilerPackages(t *testing.T) {
	pc, err := ByName("pc")
	require.NoError(t, err)
	assert.Equal(t, []string{"gcc", "libc6-dev"}, pc.CPU.CompilerPackages("amd64"))
	assert.Equal(t, []string{"gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"}, pc.CPU.CompilerPackages("arm64"))
}
