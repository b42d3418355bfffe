package daemon

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// alone is socksd by itself, whose standard error is a pipe of one page.
type alone struct {
	*exec.Cmd
	addr string
	read *os.File // the reading end of the pipe
}

// errorPipe returns a pipe of one page, for standard error. full has it full.
func errorPipe(t *testing.T, full bool) (read, write *os.File) {
	t.Helper()
	var pipe [2]int
	require.NoError(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	read, write = os.NewFile(uintptr(pipe[0]), "read"), os.NewFile(uintptr(pipe[1]), "write")
	t.Cleanup(func() { read.Close(); write.Close() })
	size, err := unix.FcntlInt(uintptr(pipe[1]), unix.F_SETPIPE_SZ, os.Getpagesize())
	require.NoError(t, err)
	if full {
		_, err := write.Write(make([]byte, size))
		require.NoError(t, err)
	}
	return read, write
}

// startAlone starts socksd by a command line in which $0 and $@ are the program and its
// arguments. full has the pipe full before that.
func startAlone(t *testing.T, command string, full bool) alone {
	t.Helper()
	read, write := errorPipe(t, full)
	defer write.Close()
	self, err := os.Executable()
	require.NoError(t, err)
	addr := freePort(t)
	a := alone{exec.Command("sh", "-c", command, self, "--listen", addr), addr, read}
	a.Env = append(os.Environ(), "POSTERN_TEST_SOCKSD=1")
	a.Stderr = write
	require.NoError(t, a.Start())
	t.Cleanup(func() { a.Process.Kill(); a.Wait() })
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp4", a.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, patience, 10*time.Millisecond)
	return a
}

// serves checks that a request is answered. It is rejected, which is logged.
func (a alone) serves(t *testing.T) {
	t.Helper()
	c, err := net.Dial("tcp4", a.addr)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	fmt.Fprint(c, "\x05")
	reply, err := io.ReadAll(c)
	require.NoError(t, err)
	assert.Equal(t, "\x00\x5b\x00\x00\x00\x00\x00\x00", string(reply))
}

// ends checks that a signal ends the process in order.
func (a alone) ends(t *testing.T, s syscall.Signal) {
	t.Helper()
	require.NoError(t, a.Process.Signal(s))
	ended := make(chan error, 1)
	go func() { ended <- a.Wait() }()
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(patience):
		require.Fail(t, "it does not end")
	}
}

const plain, withoutHangup = `exec "$0" "$@"`, `trap "" HUP; exec "$0" "$@"`

func TestStandardErrorIsFull(t *testing.T) {
	a := startAlone(t, plain, true)
	for range 300 { // more lines than wait to be written
		a.serves(t)
	}
	a.ends(t, syscall.SIGTERM)
}

// TestStandardErrorIsFullAtTheStart has the program say what is wrong, which nobody reads: it ends all the same.
func TestStandardErrorIsFullAtTheStart(t *testing.T) {
	for _, c := range []struct {
		name string
		code int
		args []string
	}{
		{"an unknown flag", 2, []string{"--unknown"}},
		{"a wrong value", 2, []string{"--access", "action=perhaps"}},
		{"no file of users", 1, []string{"--socks-version=5", "--auth-method=password", "--users=/nonexistent"}},
		{"passwd without a name", 2, []string{"passwd"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, write := errorPipe(t, true)
			self, err := os.Executable()
			require.NoError(t, err)
			cmd := exec.Command(self, c.args...)
			cmd.Env, cmd.Stderr = append(os.Environ(), "POSTERN_TEST_SOCKSD=1"), write
			require.NoError(t, cmd.Start())
			kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
			defer kill.Stop()
			cmd.Wait() // the code says it too
			assert.Equal(t, c.code, cmd.ProcessState.ExitCode())
		})
	}
}

func TestStandardErrorHasNoReader(t *testing.T) {
	a := startAlone(t, plain, false)
	require.NoError(t, a.read.Close())
	for range 3 {
		a.serves(t)
	}
	a.ends(t, syscall.SIGTERM)
}

func TestHangup(t *testing.T) {
	t.Run("ends it", func(t *testing.T) {
		a := startAlone(t, plain, false)
		a.ends(t, syscall.SIGHUP)
		said, err := io.ReadAll(a.read)
		require.NoError(t, err)
		assert.Contains(t, string(said), "socksd: hangup: closing\n")
	})
	t.Run("is ignored, as by nohup", func(t *testing.T) {
		a := startAlone(t, withoutHangup, false)
		require.NoError(t, a.Process.Signal(syscall.SIGHUP))
		a.serves(t)
		a.ends(t, syscall.SIGTERM)
		said, err := io.ReadAll(a.read)
		require.NoError(t, err)
		assert.NotContains(t, string(said), "hangup")
	})
}
