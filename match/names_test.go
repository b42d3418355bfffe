package match

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestProtocolName(t *testing.T) {
	for number, want := range map[string]string{"6": "tcp", "17": "udp", "1": "icmp", "47": "47", "tcp": "tcp", "": ""} {
		assert.Equal(t, want, ProtocolName(number))
	}
	for _, number := range []string{"1", "6", "17"} {
		assert.Contains(t, ProtocolNames, ProtocolName(number))
	}
}

func TestRouterOSProtocols(t *testing.T) {
	names := RouterOSProtocols()
	assert.Equal(t, ProtocolNames, names[:len(ProtocolNames)])
	seen := map[string]bool{}
	for _, name := range names {
		protocol := ProtocolFromRouterOS(name)
		assert.False(t, seen[protocol], name)
		seen[protocol] = true
		assert.Equal(t, name, ProtocolToRouterOS(protocol))
	}
	for name, number := range map[string]string{"gre": "47", "ipsec-esp": "50", "ospf": "89", "tcp": "tcp", "": "", "200": "200"} {
		assert.Equal(t, number, ProtocolFromRouterOS(name))
		assert.Equal(t, name, ProtocolToRouterOS(number))
	}
}
