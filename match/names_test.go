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
