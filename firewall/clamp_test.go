package firewall

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/testnet"
)

func TestClamp(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) { testClamp(t, program) })
}

func testClamp(t *testing.T, program string) {
	f := newFirewall(t, program)
	rules := func() string {
		var all []string
		for line := range strings.Lines(save(t, program, "-t", "mangle")) {
			if strings.HasPrefix(line, "-A ") {
				all = append(all, strings.TrimSpace(line))
			}
		}
		return strings.Join(all, "\n")
	}
	require.NoError(t, f.Apply(Config{Clamp: []string{"pppoe-out1", "wan"}}))
	clamped := `-A FORWARD -i pppoe-out1 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-A FORWARD -o pppoe-out1 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-A FORWARD -i wan -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-A FORWARD -o wan -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu`
	assert.Equal(t, clamped, rules())
	filter, nat, err := f.Counters()
	require.NoError(t, err)
	assert.Empty(t, filter)
	assert.Empty(t, nat)

	// What is refused leaves all as it was.
	assert.Error(t, f.Apply(Config{Clamp: []string{"-j DROP"}}))
	restore := f.restoreProgram
	f.restoreProgram = "/no-program"
	assert.Error(t, f.Apply(Config{Clamp: []string{"other"}}))
	f.restoreProgram = restore
	assert.Equal(t, clamped, rules())

	require.NoError(t, f.Lock())
	assert.Equal(t, clamped, rules(), "nothing passes anyway")
	require.NoError(t, f.Apply(Config{Clamp: []string{"wan"}}))
	assert.Equal(t, 2, strings.Count(rules(), "-A "))
	require.NoError(t, f.Apply(Config{}))
	assert.Empty(t, rules())
}
