package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestStartAllocates checks what every process of the router allocates before main begins,
// whichever of them it is: the program is one, and its packages' variables are in all of them.
func TestStartAllocates(t *testing.T) {
	// TLS has 10 KiB.
	for tags, most := range map[string]int{"small": 96 << 10, "": 106 << 10} {
		testStartAllocates(t, tags, most)
	}
}

func testStartAllocates(t *testing.T, tags string, most int) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "init")
	out, err := exec.Command("go", "build", "-tags="+tags, "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, _ = cmd.CombinedOutput()
	require.Contains(t, string(out), "this is for the kernel to start", "it ended at the end of its start")
	total := 0
	for _, m := range regexp.MustCompile(`(?m)^init (\S+) .* (\d+) bytes`).FindAllStringSubmatch(string(out), -1) {
		n, err := strconv.Atoi(m[2])
		require.NoError(t, err)
		assert.Less(t, n, 32<<10, "%s: variables that only some processes need are made when they are needed (sync.OnceValue)", m[1])
		total += n
	}
	assert.Greater(t, total, 10<<10, "the trace was understood: %s", out)
	assert.Less(t, total, most, tags)
}

// TestLibraries checks that the libraries which the project's user named are in the program.
func TestLibraries(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".", "../socks/socksd").Output()
	require.NoError(t, err)
	modules := strings.Fields(string(out))
	for _, m := range []string{"github.com/u-root/u-root", "github.com/vishvananda/netlink", "github.com/coreos/go-iptables", "github.com/spf13/pflag"} {
		assert.Contains(t, modules, m)
	}
}
