package netcfg

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A link that is made together with the route of a table by it, or made anew, has its sources checked loosely.
func TestLooseLinksThatAreMade(t *testing.T) {
	lab(t, "k0", "k1")
	m := newManager(t, twoPorts...)
	require.NoError(t, m.Apply(router()))
	filter := func() string {
		text, err := os.ReadFile("/proc/sys/net/ipv4/conf/lan/rp_filter")
		require.NoError(t, err)
		return strings.TrimSpace(string(text))
	}
	c := tabled()
	c.Bridges = []Bridge{{Name: "lan"}}
	c.Addresses = append(c.Addresses, address("10.8.0.1/24", "lan"))
	c.Routes[2] = by("0.0.0.0/0", "10.8.0.9", 1)
	c.Routes[2].Table = "isp1"
	require.NoError(t, m.Apply(c))
	assert.Equal(t, "2", filter(), "made")
	ip(t, "link del lan")
	_, err := m.repair()
	require.NoError(t, err)
	assert.Equal(t, "2", filter(), "made anew")
	changes, err := m.repair()
	require.NoError(t, err)
	assert.Empty(t, changes)
	c.Routes = c.Routes[:2]
	require.NoError(t, m.Apply(c))
	assert.Equal(t, "1", filter(), "without the route")
	require.NoError(t, m.Apply(router())) // other tests have no rules
}
