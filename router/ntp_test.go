package router

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/ntp"
	"github.com/postern-router/postern/service"
)

// What the process says is not believed when it cannot be; the test sets no clock.
func TestTimeService(t *testing.T) {
	log, _ := testLog(t)
	supervisor := newSupervisor(log)
	supervisor.Program = "/no-program"
	defer supervisor.Stop()
	s := newTimeService(supervisor, log, time.Now().Add(-time.Hour))
	state, err := s.state()
	require.NoError(t, err)
	assert.Equal(t, console.NTPState{Status: "stopped"}, state)

	c := console.Default()
	c.NTP = ntp.Config{Enabled: true, Servers: []string{"x"}}
	require.NoError(t, s.Apply(c))
	for _, c := range []struct {
		sample  ntp.Sample
		problem string
	}{
		{ntp.Sample{Server: "x", Stratum: 1, Offset: -2 * time.Hour}, "time server x says "},
		{ntp.Sample{Server: "x", Stratum: 1, Offset: 100 * 365 * 24 * time.Hour}, "which cannot be"},
		{ntp.Sample{Server: "y", Stratum: 1}, "time server y is none of the configuration"},
	} {
		require.ErrorContains(t, s.take(c.sample), c.problem)
	}
	assert.Zero(t, s.at, "none of these is an answer")
	state, err = s.state()
	require.NoError(t, err)
	assert.Equal(t, "waiting", state.Status)
	s.last, s.at = ntp.Sample{Server: "x", Stratum: 2, Offset: time.Millisecond}, kmsg.Uptime()
	state, err = s.state()
	require.NoError(t, err)
	assert.Equal(t, console.NTPState{Status: "synchronized", Server: "x", Stratum: 2, Offset: time.Millisecond}, state)

	require.NoError(t, s.Apply(c))
	assert.NotZero(t, s.at, "the same configuration changes nothing")

	require.ErrorContains(t, s.rest(ntp.Rest{Run: s.run + 1, Pause: time.Minute}), "another")
	inState := func(want func(service.State) bool) {
		t.Helper()
		require.Eventually(t, func() bool { return want(s.process.Status().State) }, time.Minute, time.Millisecond)
	}
	off := func(state service.State) bool { return state == service.Off }
	require.NoError(t, s.rest(ntp.Rest{Run: s.run, Pause: time.Hour}))
	inState(off)
	require.True(t, s.wake.Reset(0), "the pause is over")
	inState(func(state service.State) bool { return !off(state) })
	require.NoError(t, s.rest(ntp.Rest{Run: s.run, Pause: time.Hour}))
	inState(off)
	earlier := s.wake
	require.NoError(t, s.rest(ntp.Rest{Run: s.run, Pause: time.Hour}))
	require.False(t, earlier.Stop(), "a process that asks without end leaves one timer")
	c.NTP.Servers = []string{"y"}
	require.NoError(t, s.Apply(c))
	assert.Zero(t, s.at, "another server has not answered yet")
	inState(func(state service.State) bool { return !off(state) }) // it is asked at once
	require.False(t, s.wake.Stop(), "nothing starts it for the servers of before")
	c.NTP.Servers = nil
	require.NoError(t, s.Apply(c))
	state, err = s.state()
	require.NoError(t, err)
	assert.Equal(t, "stopped", state.Status)
	s.Stop()
	assert.Equal(t, service.Stopped, s.process.Status().State)
}
