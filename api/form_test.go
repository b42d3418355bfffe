package api

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Programs get the rates of queues in bits per second, as those of RouterOS do.
func TestQueueRates(t *testing.T) {
	for text, want := range map[string]string{"10M/512k": "10000000/512000", "0/0": "0/0", "1.2Mbps/0bps": "1200000/0", "376bps/2.3Gbps": "376/2300000000", "none": "none"} {
		assert.Equal(t, want, bits(text))
	}
	rows := rowsOf(t, "/queue simple add name=5M target=10.0.0.0/8 max-limit=10M/20M limit-at=512k", "queue simple")
	require.Len(t, rows, 1)
	got := map[string]string{}
	for _, p := range rows[0].properties {
		got[p.name] = p.text
	}
	assert.Equal(t, []string{"5M", "10000000/20000000", "512000/512000", "8/8"}, []string{got["name"], got["max-limit"], got["limit-at"], got["priority"]})
}
