package testnet

import (
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestFreePort: ports differ, can be listened on, and are none that a connection could get.
func TestFreePort(t *testing.T) {
	end, err := firstChosenPort()
	require.NoError(t, err)
	seen := map[uint16]bool{}
	for range 20 {
		port, err := FreePort()
		require.NoError(t, err)
		assert.False(t, seen[port], "%d again", port)
		seen[port] = true
		assert.GreaterOrEqual(t, port, uint16(firstPort))
		assert.Less(t, uint32(port), end)
		// Another program may have it by now, but not always.
		if l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			defer l.Close()
		} else {
			t.Logf("port %d: %v", port, err)
			delete(seen, port)
		}
	}
	assert.NotEmpty(t, seen)
}

// TestFreePortTaken: a port on which somebody listens, at whatever address, is left out.
func TestFreePortTaken(t *testing.T) {
	port, err := FreePort()
	require.NoError(t, err)
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.9:%d", port))
	require.NoError(t, err)
	defer l.Close()
	tried.Add(^uint32(0)) // it is the next to be looked at
	next, err := FreePort()
	require.NoError(t, err)
	assert.NotEqual(t, port, next)
}
