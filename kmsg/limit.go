package kmsg

import "time"

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
