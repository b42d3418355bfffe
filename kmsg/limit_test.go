package kmsg

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestLimit(t *testing.T) {
	l := Limit{Burst: 3, Pause: 10 * time.Second}
	pass := func(at time.Duration) (dropped int, passes bool) { return l.Pass(at) }
	for range 3 {
		dropped, passes := pass(time.Minute)
		assert.True(t, passes)
		assert.Zero(t, dropped)
	}
	for range 5 {
		_, passes := pass(time.Minute + 9*time.Second)
		assert.False(t, passes)
	}
	dropped, passes := pass(time.Minute + 10*time.Second)
	assert.True(t, passes)
	assert.Equal(t, 5, dropped)
	_, passes = pass(time.Minute + 10*time.Second)
	assert.False(t, passes)
	for range 3 {
		_, passes = pass(time.Hour)
		assert.True(t, passes)
	}
	_, passes = pass(time.Minute) // the clock of another processor
	assert.False(t, passes)
}
