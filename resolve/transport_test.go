package resolve

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// TestWithClient: a server of this machine sees an address for each client, over UDP and TCP, and no other server does.
func TestWithClient(t *testing.T) {
	for _, c := range []struct{ client, want string }{
		{"192.168.5.9", "127.168.5.9"},
		{"10.0.0.1", "127.128.0.1"}, // and not 127.0.0.1
		{"203.0.113.7", "127.128.113.7"},
		{"10.255.255.255", "127.191.255.255"}, // and not the broadcast address
		{"fd00::1", "127.0.0.1"},
		{"", "127.0.0.1"},
	} {
		t.Run(c.client, func(t *testing.T) {
			ctx := t.Context()
			if c.client != "" {
				ctx = WithClient(ctx, netip.MustParseAddr(c.client))
			}
			s := serve(t, func(t *testing.T, network string, question []byte) [][]byte {
				if network == "tcp" {
					return good(t, network, question)
				}
				return changed(func(m *dnsmessage.Message) { m.Truncated = true })(t, network, question)
			})
			_, err := patient().Lookup(ctx, "a.test", Servers{s.at})
			require.NoError(t, err)
			assert.Equal(t, map[string]bool{"udp " + c.want: true, "tcp " + c.want: true}, s.clients())
			assert.Zero(t, source(ctx, netip.MustParseAddrPort("192.0.2.1:53")))
			assert.Zero(t, source(ctx, netip.MustParseAddrPort("[::1]:53")))
		})
	}
}
