package match

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestNotHost(t *testing.T) {
	for prefix, want := range map[string]string{
		"192.168.0.1/24": "", "192.168.0.0/24": "address of the network itself", "192.168.0.255/24": "broadcast address of 192.168.0.0/24",
		"10.1.255.255/8": "", "10.255.255.255/8": "broadcast address of 10.0.0.0/8", "10.0.0.3/30": "broadcast address of 10.0.0.0/30",
		"10.0.0.0/31": "", "10.0.0.1/31": "", "10.0.0.0/32": "", "128.0.0.0/1": "address of the network itself",
	} {
		assert.Equal(t, want, NotHost(netip.MustParsePrefix(prefix)), prefix)
	}
}
