package socks

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestSocketMemory opens more and more connections: the first have large buffers,
// the last the least, and what ends gives back what it had.
func TestSocketMemory(t *testing.T) {
	const memory = 1 << 20
	u := start(t, func(o *options) { o.SocketMemory = memory })
	near, _ := u.connect(t)
	u.Server.mu.Lock()
	first := u.conns[1]
	assert.Equal(t, memory/6, first.memory)
	for _, fd := range []int{first.client, first.remote} {
		for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
			n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
			require.NoError(t, err)
			assert.InDelta(t, memory/12, n, 4)
		}
	}
	u.Server.mu.Unlock()
	var all []client
	for range 150 {
		c, _ := u.connect(t)
		all = append(all, c)
	}
	u.Server.mu.Lock()
	given := 0
	for _, c := range u.conns {
		given += c.memory
	}
	assert.Equal(t, given, u.memoryGiven)
	assert.LessOrEqual(t, given, memory+len(all)*leastMemory)
	assert.Equal(t, leastMemory, u.conns[151].memory)
	u.Server.mu.Unlock()

	// With the least of windows, all still passes.
	last, far := u.connect(t)
	data := make([]byte, 200_000)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	go func() { far.Write(data) }()
	assert.True(t, string(data) == last.receive(len(data)))

	for _, c := range append(all, near, last) {
		require.NoError(t, c.SetLinger(0))
		c.Close()
	}
	u.awaitCount(t, 0)
	u.Server.mu.Lock()
	defer u.Server.mu.Unlock()
	assert.Zero(t, u.memoryGiven)
}
