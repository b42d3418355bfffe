package kmsg

import (
	"sync"
	"time"
)

// Limit lets some lines pass, and counts the others: Burst at once, and one more after each Pause.
// Whoever uses it from several goroutines has a lock for it.
type Limit struct {
	Burst int
	Pause time.Duration

	spent   time.Duration // of Burst*Pause
	at      time.Duration
	dropped int
}

// Pass reports whether a line of the time at, since the start, passes, and how many have not since
// the last that did.
func (l *Limit) Pass(at time.Duration) (dropped int, passes bool) {
	l.spent = max(0, l.spent-max(0, at-l.at))
	l.at = max(l.at, at)
	if l.spent > time.Duration(l.Burst-1)*l.Pause {
		l.dropped++
		return 0, false
	}
	l.spent += l.Pause
	dropped, l.dropped = l.dropped, 0
	return dropped, true
}

// Limited writes to the log what others can cause at will: the lines that a Limit lets pass, and how
// many were left out before each. It may be used by several goroutines.
type Limited struct {
	log  *Logger
	what string

	mu    sync.Mutex
	limit Limit
}

// Limited returns a Limited that writes to l. what names the lines in the plural: "changes of links".
func (l *Logger) Limited(what string, limit Limit) *Limited {
	return &Limited{log: l, what: what, limit: limit}
}

// Printf writes a line of the level, if it passes.
func (l *Limited) Printf(level int, format string, args ...any) {
	l.mu.Lock()
	dropped, passes := l.limit.Pass(Uptime())
	l.mu.Unlock()
	if !passes {
		return
	}
	if dropped > 0 {
		l.log.Printf(level, "%d %s left out", dropped, l.what)
	}
	l.log.Printf(level, format, args...)
}
