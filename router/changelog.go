package router

import (
	"sync"
	"time"

	"github.com/postern-router/postern/kmsg"
)

const (
	// changeBurst is how many changes of the configuration the log is told of at once, changePause the time after which it
	// is told of one more: a program that changes something each second shall not overwrite what else there is.
	changeBurst = 50
	changePause = 10 * time.Second
	// sameTime is for how long changes that read the same are counted, before the log is told how many there were.
	sameTime = time.Minute
)

// change is what a change of the configuration did, as the history names it: all of it, and what is not about users.
type change struct{ all, others string }

// changeLog tells the log who changes the configuration, and by what way. The lines have no values, of which some are
// secret: what was changed is named, and by whom. An import is one change. A program that adds 500 entries one by one is two
// lines: one, and how many more of the same came within sameTime.
type changeLog struct {
	lines *kmsg.Limited

	mu    sync.Mutex
	last  string // the line of the latest change
	more  int    // how many times it came again
	until *time.Timer
}

func newChangeLog(log *kmsg.Logger) changeLog {
	return changeLog{lines: log.Limited("changes of the configuration", kmsg.Limit{Burst: changeBurst, Pause: changePause})}
}

// tell tells of a change, unless there is nothing to tell: did is "".
func (l *changeLog) tell(did, by string) {
	if did == "" {
		return
	}
	line := did + " by " + by
	l.mu.Lock()
	defer l.mu.Unlock()
	if line == l.last {
		l.more++
		return
	}
	l.end()
	l.last = line
	l.lines.Printf(kmsg.Info, "%s", line)
	l.until = time.AfterFunc(sameTime, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.last == line {
			l.end()
		}
	})
}

// end ends the count of the same changes. The caller holds mu.
func (l *changeLog) end() {
	if l.until != nil {
		l.until.Stop()
	}
	if l.more > 0 {
		l.lines.Printf(kmsg.Info, "%s (%d more)", l.last, l.more)
	}
	l.last, l.more = "", 0
}
