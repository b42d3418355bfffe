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

// startAlone starts socksd by a command line in which $0 and $@ are the program and its
// arguments. full has the pipe full before that.
func startAlone(t *testing.T, command string, full bool) alone {
	t.Helper()
	var pipe [2]int
	require.NoError(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	read, write := os.NewFile(uintptr(pipe[0]), "read"), os.NewFile(uintptr(pipe[1]), "write")
	defer write.Close()
	t.Cleanup(func() { read.Close() })
	size, err := unix.FcntlInt(uintptr(pipe[1]), unix.F_SETPIPE_SZ, os.Getpagesize())
	require.NoError(t, err)
	if full {
		_, err := write.Write(make([]byte, size))
		require.NoError(t, err)
	}
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
