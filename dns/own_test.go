package dns

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/resolve"
)

// What the router's own lookups tell when a name is not found: not that their own server has failed.
func TestOwnFailures(t *testing.T) {
	own, there := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1") // which no route leads to here
	for _, c := range []struct {
		name    string
		servers []netip.Addr
		none    bool
		want    string
	}{
		{"none is set", nil, true, "no name server is set"},
		{"one that cannot be asked", []netip.Addr{there}, false, "name server 192.0.2.1 cannot be asked: network is unreachable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testServer(t, nil)
			s.configure(Default(), c.servers)
			serveSockets(t, s)
			_, err := resolve.New(resolve.Options{Wait: limit, Total: limit}).Lookup(t.Context(), "a.example", resolve.ServersAt(append([]netip.Addr{own}, c.servers...)...))
			require.EqualError(t, err, "address of a.example: "+c.want)
			assert.Equal(t, c.none, errors.Is(err, resolve.ErrNoServers))
		})
	}
}
