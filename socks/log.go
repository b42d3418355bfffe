package socks

import (
	"fmt"
	"strconv"
	"sync"
	"time"
)

// The log's bounds: lines at once, lines a second from then on, lines that wait to be
// written, and how long the last of them may take at the end.
const (
	logBurst = 20
	logRate  = 10
	logQueue = 128
	logEnd   = time.Second
	// logName is how many bytes of what a client calls itself are in a line.
	logName = 64
)

// limitedLog passes lines on to logf as far as logBurst and logRate allow. If it dropped
// lines, the next one is preceded by how many. It never waits for logf.
type limitedLog struct {
	lines   chan string   // nil without logf
	written chan struct{} // closed when the last line is

	mu      sync.Mutex
	spent   float64 // how many lines of the burst are used
	at      time.Time
	dropped int
	closed  bool
}

func newLimitedLog(logf func(format string, args ...any)) *limitedLog {
	l := &limitedLog{}
	if logf != nil {
		l.lines, l.written = make(chan string, logQueue+MaxMaxConnections), make(chan struct{})
		go func() {
			defer close(l.written)
			for line := range l.lines {
				logf("%s", line)
			}
		}()
	}
	return l
}

// printf formats a line only if it is passed on.
func (l *limitedLog) printf(format string, args ...any) {
	l.line(func() string { return fmt.Sprintf(format, args...) })
}

// line calls text only if the line is passed on.
func (l *limitedLog) line(text func() string) {
	if l.lines == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.spent = max(0, l.spent-now.Sub(l.at).Seconds()*logRate)
	l.at = now
	room := 1.0 // for the line, and for what was dropped before it
	if l.dropped > 0 {
		room++
	}
	if l.spent > logBurst-room || len(l.lines) > logQueue-2 {
		l.dropped++
		return
	}
	l.spent++
	l.pass(text)
}

// unlimited passes a line on whatever the rate is. It is for what was done on purpose, with
// one line for each connection.
func (l *limitedLog) unlimited(text func() string) {
	if l.lines == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pass(text)
}

// pass passes a line on if there is room for it. Callers hold mu.
func (l *limitedLog) pass(text func() string) {
	if l.closed || len(l.lines) > cap(l.lines)-2 {
		l.dropped++
		return
	}
	if l.dropped > 0 {
		l.lines <- fmt.Sprintf("%d log lines dropped: more than %d a second", l.dropped, logRate)
		l.dropped = 0
		l.spent++ // it is a line, too
	}
	l.lines <- text()
}

// close returns when all lines that were passed on are written, but no later than after
// logEnd: logf may be blocked for ever.
func (l *limitedLog) close() {
	if l.lines == nil {
		return
	}
	l.mu.Lock()
	if !l.closed {
		close(l.lines)
	}
	l.closed = true
	l.mu.Unlock()
	select {
	case <-l.written:
	case <-time.After(logEnd):
	}
}

// shortQuote quotes what a client calls itself, and cuts it if it is long.
func shortQuote(name string) string {
	if len(name) > logName {
		return strconv.Quote(name[:logName]) + "..."
	}
	return strconv.Quote(name)
}
