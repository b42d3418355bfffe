package daemon

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/socks"
)

// TestNoNewPrivileges looks at every thread of socksd, as it is shipped and as go run builds
// it where there is a C compiler.
func TestNoNewPrivileges(t *testing.T) {
	for _, cgo := range []string{"0", "1"} {
		t.Run("CGO_ENABLED="+cgo, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "socksd")
			build := exec.Command("go", "build", "-o", program, "../socksd")
			build.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
			out, err := build.CombinedOutput()
			require.NoError(t, err, "%s", out)

			p := exec.Command(program, "--listen", freePort(t))
			var said lockedBuffer
			p.Stderr = &said
			require.NoError(t, p.Start())
			t.Cleanup(func() {
				p.Process.Signal(syscall.SIGTERM)
				assert.NoError(t, p.Wait())
			})
			require.Eventually(t, func() bool { return strings.Contains(said.String(), "accepting on ") }, time.Minute, 10*time.Millisecond)
			assert.NotContains(t, said.String(), "no_new_privs")
			threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.Process.Pid))
			require.NoError(t, err)
			require.Greater(t, len(threads), 1)
			for _, path := range threads {
				status, err := os.ReadFile(path)
				require.NoError(t, err)
				assert.Regexp(t, `NoNewPrivs:\s1\n`, string(status), path)
			}
		})
	}
}

// lockedBuffer is what a process says, read while it says more.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestDescriptors(t *testing.T) {
	assert.Equal(t, 400+spareDescriptors, descriptors(200, false))
	assert.Equal(t, 1000+socks.MaxAssociations+spareDescriptors, descriptors(500, true))
	assert.Equal(t, 30+spareDescriptors, descriptors(10, true), "no more of them than connections")
}
