package socks

import (
	"net"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/testnet"
)

// TestReceiveWithSignals reads where urgent data begins while signals come all the time: what
// has arrived must be found by every read, because the poller does not report it again.
func TestReceiveWithSignals(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l := listen(t, "127.0.0.1")
	file, err := l.File()
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, prepare(int(file.Fd())))
	far, err := net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr))
	require.NoError(t, err)
	defer far.Close()
	fd, _, err := acceptFrom(int(file.Fd()))
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, testnet.WriteUrgent(far, []byte("!")))
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for n := 0; n != 1; {
		n, err = unix.Poll(ready, -1)
		if err != unix.EINTR {
			require.NoError(t, err)
		}
	}

	var stop atomic.Bool
	stopped := make(chan struct{})
	thread := unix.Gettid()
	go func() {
		defer close(stopped)
		for !stop.Load() {
			unix.Tgkill(unix.Getpid(), thread, unix.SIGURG) // Go's own: it has no other effect
		}
	}()
	defer func() { stop.Store(true); <-stopped }()
	var b [1]byte
	for i := range 200_000 {
		n, err := receive(fd, b[:], unix.MSG_PEEK)
		require.NoError(t, err, "read %d", i)
		require.Equal(t, 1, n)
	}
}
