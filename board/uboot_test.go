package board

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// variable returns a variable of a board's U-Boot environment.
func variable(t *testing.T, b Board, name string) string {
	t.Helper()
	for _, v := range b.Image.BootLoader.Environment {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	t.Fatalf("%s has no variable %s", b.Name, name)
	return ""
}

// TestEnvironment checks that U-Boot's environment has the addresses of the images.
func TestEnvironment(t *testing.T) {
	for _, b := range All() {
		if len(b.Image.BootLoader.Environment) == 0 {
			continue
		}
		t.Run(b.Name, func(t *testing.T) {
			assert.Contains(t, variable(t, b, "args"), b.Kernel.CommandLine)
			for _, v := range b.Image.BootLoader.Environment {
				assert.Equal(t, 1, min(strings.Index(v, "="), 1), "%q is no variable", v)
				assert.NotContains(t, v, "\x00")
			}
			if p, ok := b.Flash.Partition("image"); ok {
				assert.Contains(t, variable(t, b, "bootcmd"), fmt.Sprintf("setenv image %#x;", 0xbe000000+p.Offset))
				return
			}
			for i, name := range []string{"a", "b"} {
				p, ok := b.Flash.Partition(Slots[i])
				require.True(t, ok)
				commands := variable(t, b, name)
				assert.Contains(t, commands, fmt.Sprintf("setenv image %#x;", p.Offset))
				assert.Contains(t, commands, fmt.Sprintf("setenv state %#x;", p.Offset+b.ImageLimit))
			}
		})
	}
}
