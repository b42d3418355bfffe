package socks

import (
	"sync"
	"time"
)

// The log's bound: lines at once, and lines a second from then on.
const (
	logBurst = 100
	logRate  = 10
)

// limitedLog passes lines on as far as logBurst and logRate allow, and says
// with the next one how many it dropped.
type limitedLog struct {
	logf func(format string, args ...any)

	mu      sync.Mutex
	spent   float64 // lines of the burst that are used
	at      time.Time
	dropped int
}

func (l *limitedLog) printf(format string, args ...any) {
	if l.logf == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.spent = max(0, l.spent-now.Sub(l.at).Seconds()*logRate)
	l.at = now
	if l.spent > logBurst-1 {
		l.dropped++
		return
	}
	l.spent++
	if l.dropped > 0 {
		l.logf("%d log lines dropped: more than %d a second", l.dropped, logRate)
		l.dropped = 0
	}
	l.logf(format, args...)
}
