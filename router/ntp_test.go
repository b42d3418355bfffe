package router

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/ntp"
)

// What the process says is not believed when it cannot be; the test sets no clock.
func TestTimeService(t *testing.T) {
	log, said := testLog(t)
	s := newTimeService(log, time.Now().Add(-time.Hour))
	state, err := s.state()
	require.NoError(t, err)
	assert.Equal(t, console.NTPState{Status: "stopped"}, state)
	for _, c := range []struct{ line, problem string }{
		{ntp.Sample{Server: "x", Stratum: 1, Offset: -2 * time.Hour}.String(), "time server x says "},
		{ntp.Sample{Server: "x", Stratum: 1, Offset: 100 * 365 * 24 * time.Hour}.String(), "which cannot be"},
		{"nonsense", "expected a line of three words"},
		{strings.Repeat("x", 600), ""},
	} {
		s.read(strings.NewReader(c.line + "\n"))
		assert.Contains(t, said(), c.problem)
	}
	assert.Zero(t, s.at, "none of these is an answer")
	s.stop = func() {}
	state, err = s.state()
	require.NoError(t, err)
	assert.Equal(t, "waiting", state.Status)
	s.last, s.at = ntp.Sample{Server: "x", Stratum: 2, Offset: time.Millisecond}, kmsg.Uptime()
	state, err = s.state()
	require.NoError(t, err)
	assert.Equal(t, console.NTPState{Status: "synchronized", Server: "x", Stratum: 2, Offset: time.Millisecond}, state)
}
