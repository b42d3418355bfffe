package router

import (
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/internal/testnet"
)

func TestFindLink(t *testing.T) {
	h := testnet.New(t, "links")
	require.NoError(t, h.IP("link add ether1 type veth peer name a-long-name-123", "link set ether1 address 02:00:5e:00:53:01", "link add br0 type bridge"))
	require.NoError(t, h.Do(func() error {
		for _, name := range []string{"ether1", "br0", "a-long-name-123"} {
			want, err := net.InterfaceByName(name)
			require.NoError(t, err, name)
			index, mac, ok := findLink(name)
			require.True(t, ok, name)
			assert.Equal(t, want.Index, index, name)
			assert.Equal(t, ether.MAC(want.HardwareAddr), mac, name)
		}
		for _, name := range []string{"", "lo", "ether9", "ether1:0", "ether1\x00", strings.Repeat("x", 100)} {
			index, mac, ok := findLink(name)
			assert.False(t, ok, "%q", name)
			assert.Zero(t, index, "%q", name)
			assert.Zero(t, mac, "%q", name)
		}
		assert.LessOrEqual(t, testing.AllocsPerRun(100, func() { findLink("ether1") }), 1.0, "what PID 1 asks every few seconds leaves no garbage")
		return nil
	}))
}
