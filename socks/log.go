package socks

import (
	"fmt"
	"sync"
	"time"
)

// The log's bounds: lines at once, lines a second from then on, and lines that
// wait for who writes them.
const (
	logBurst = 100
	logRate  = 10
	logQueue = 128
)

// limitedLog passes lines on as far as logBurst and logRate allow, and says
// with the next one how many it dropped. It never waits for logf.
type limitedLog struct {
	lines   chan string // nil without logf
	writing sync.WaitGroup

	mu      sync.Mutex
	spent   float64 // lines of the burst that are used
	at      time.Time
	dropped int
	closed  bool
}

func newLimitedLog(logf func(format string, args ...any)) *limitedLog {
	l := &limitedLog{}
	if logf != nil {
		l.lines = make(chan string, logQueue)
		l.writing.Go(func() {
			for line := range l.lines {
				logf("%s", line)
			}
		})
	}
	return l
}

// printf formats only what it passes on.
func (l *limitedLog) printf(format string, args ...any) {
	l.line(func() string { return fmt.Sprintf(format, args...) })
}

// line calls text only for what it passes on.
func (l *limitedLog) line(text func() string) {
	if l.lines == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.spent = max(0, l.spent-now.Sub(l.at).Seconds()*logRate)
	l.at = now
	if l.closed || l.spent > logBurst-1 || len(l.lines) > logQueue-2 {
		l.dropped++
		return
	}
	l.spent++
	if l.dropped > 0 {
		l.lines <- fmt.Sprintf("%d log lines dropped: more than %d a second", l.dropped, logRate)
		l.dropped = 0
	}
	l.lines <- text()
}

// close returns when all that was passed on is written.
func (l *limitedLog) close() {
	l.mu.Lock()
	if l.lines != nil && !l.closed {
		close(l.lines)
	}
	l.closed = true
	l.mu.Unlock()
	l.writing.Wait()
}
