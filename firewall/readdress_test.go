package firewall

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The kernel itself forgets what was masqueraded behind an address that goes, and nothing else (nf_nat_masquerade.c).
func TestAddressGoes(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  []string // of the router's addresses
		forgets bool
	}{
		{"another network", []string{"addr del 10.5.8.1/24 dev ether1", "addr add 10.5.9.1/24 dev ether1", "route add 10.5.8.8 dev ether1"}, true},
		{"of the same network", []string{"addr add 10.5.8.9/24 dev ether1", "addr del 10.5.8.1/24 dev ether1"}, true},
		{"another that goes", []string{"addr add 10.5.8.9/24 dev ether1", "addr del 10.5.8.9/24 dev ether1"}, false},
		{"one of another link", []string{"addr add 192.168.7.1/24 dev ether2", "addr del 192.168.7.1/24 dev ether2"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			require.NoError(t, s.router.Set("net.ipv4.conf.ether1.promote_secondaries", "1"))
			s.udp()
			s.tcp()
			before := s.list()
			require.Len(t, before, 2)
			require.NoError(t, s.router.IP(c.change...))
			if !c.forgets {
				assert.Len(t, s.list(), 2)
				return
			}
			require.Eventually(t, func() bool { return len(s.list()) == 0 }, time.Minute, 10*time.Millisecond)
		})
	}
}
