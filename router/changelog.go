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
	// sameTime is for how long changes of the same kind are counted, before the log is told how many there were. The first sameNamed of
	// them are told by the names of their items.
	sameTime  = time.Minute
	sameNamed = 5
)

// change is what a change of the configuration did: all of it, and what is not about users.
type change struct{ all, others action }

// action is what was done, as the history names it, and of what kind that is: the same without the names of items.
type action struct{ text, kind string }

func (a *action) add(how string) {
	a.text += how
	a.kind += how
}

func (c change) size() int {
	return len(c.all.text) + len(c.all.kind) + len(c.others.text) + len(c.others.kind)
}

// changeLog tells the log who changes the configuration, and by what way. The lines have no values, of which some are
// secret: what was changed is named, and by whom. An import is one change. A program that adds 500 entries one by one is six
// lines: sameNamed, and how many more of the same kind came within sameTime.
type changeLog struct {
	lines *kmsg.Limited

	mu sync.Mutex
	// last and kind are the lines of the latest change that was told, with the names of items and without; named is how many of its kind
	// were told in a row, and more how many were not.
	last, kind  string
	named, more int
	until       *time.Timer
}

func newChangeLog(log *kmsg.Logger) changeLog {
	return changeLog{lines: log.Limited("changes of the configuration", kmsg.Limit{Burst: changeBurst, Pause: changePause})}
}

// tell tells of a change, unless there is nothing to tell: its text is "".
func (l *changeLog) tell(did action, by string) {
	if did.text == "" {
		return
	}
	line, kind := did.text+" by "+by, did.kind+" by "+by
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case kind != l.kind:
		l.end()
	case line == l.last || l.named == sameNamed:
		l.more++
		return
	}
	l.last, l.kind = line, kind
	l.named++
	l.lines.Printf(kmsg.Info, "%s", line)
	if l.until == nil {
		l.until = time.AfterFunc(sameTime, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.kind == kind {
				l.end()
			}
		})
	}
}

// end ends the count of changes of the same kind. The caller holds mu.
func (l *changeLog) end() {
	if l.until != nil {
		l.until.Stop()
	}
	switch {
	case l.more > 0 && l.named == 1:
		l.lines.Printf(kmsg.Info, "%s (%d more)", l.last, l.more)
	case l.more > 0:
		l.lines.Printf(kmsg.Info, "%s (%d more)", l.kind, l.more)
	}
	l.last, l.kind, l.named, l.more, l.until = "", "", 0, 0, nil
}
