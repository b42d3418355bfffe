package router

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
)

const (
	// maxHistory is how many changes can be undone, as in RouterOS.
	maxHistory = 100
	// historyShare is the part of the machine's memory that they may take, at least minHistory bytes and at most bigHistory.
	historyShare           = 256
	minHistory, bigHistory = 64 << 10, 1 << 20
)

// historyRoom is how many bytes the history may take on a machine with that much memory.
func historyRoom(memory uint64) int {
	return int(min(max(memory/historyShare, minHistory), bigHistory))
}

// history is the changes that sessions made of the configuration, oldest first. It is never changed in place,
// and a restart of the router begins a new one.
type history struct {
	entries []historyEntry
	// done is how many of them are in force: undo takes back the last of these, redo does the next again.
	done int
	// last is the number of the latest entry that there ever was.
	last uint32
}

// historyEntry is a change that can be undone, or done again.
type historyEntry struct {
	number     uint32
	did        change
	by, policy string
	at         time.Time
	// way leads to the configuration without the change; if it is undone, to the one with it.
	way  console.Delta
	size int
}

// after returns the history after a commit that has made next of old, and what that did. What was undone before another change cannot be done
// again. room bounds its size in bytes: the oldest are forgotten.
func (h history) after(s *session.Session, steps int, old, next console.Config, room int) (_ history, did change) {
	back := console.DeltaOf(next, old)
	h.entries = slices.Clone(h.entries)
	switch steps {
	case 0:
		h.last++
		e := historyEntry{number: h.last, by: cmp.Or(s.User, console.Admin), at: time.Now()}
		d := console.Describe(old, next, back)
		e.did, e.policy = change{action{d.Action, d.Kind}, action{d.Others, d.OthersKind}}, d.Policy
		h.entries = append(h.entries[:h.done], e)
	case -1:
		h.done--
	}
	e := &h.entries[h.done]
	did = e.did
	how := ""
	switch {
	case steps < 0:
		how = " undone"
	case steps > 0:
		how = " again"
	}
	did.all.add(how)
	if did.others.text != "" {
		did.others.add(how)
	}
	e.way, e.size = back, back.Size()+e.did.size()+len(e.by)
	if steps >= 0 {
		h.done++
	}
	return h.bounded(room), did
}

// bounded is h without the oldest entries, if there are too many, or they are too big. Those that are undone go first: they
// are worth least.
func (h history) bounded(room int) history {
	size := 0
	for _, e := range h.entries {
		size += e.size
	}
	for len(h.entries) > h.done && size > room {
		last := len(h.entries) - 1
		size -= h.entries[last].size
		h.entries = h.entries[:last]
	}
	from := 0
	for from < len(h.entries) && (len(h.entries)-from > maxHistory || size > room) {
		size -= h.entries[from].size
		from++
	}
	h.entries, h.done = slices.Clone(h.entries[from:]), h.done-from
	return h
}

// afterExpiry is h when entries of address lists have ended: what was changed about lists before, and what before that, can be
// neither undone nor done again, as it leads to lists that had other entries.
func (h history) afterExpiry() history {
	from, to := 0, len(h.entries)
	for i, e := range h.entries {
		switch {
		case !e.way.ChangesAddressLists():
		case i < h.done:
			from = i + 1
		default:
			to = min(to, i)
		}
	}
	h.entries, h.done = slices.Clone(h.entries[from:to]), h.done-from
	return h
}

// undo returns the configuration without the last change of config that is in force.
func (h history) undo(config console.Config) (console.Config, error) {
	if h.done == 0 {
		return console.Config{}, errors.New("failure: nothing to undo")
	}
	return h.entries[h.done-1].way.Apply(config)
}

// redo returns the configuration with the change again that was undone last.
func (h history) redo(config console.Config) (console.Config, error) {
	if h.done == len(h.entries) {
		return console.Config{}, errors.New("failure: nothing to redo")
	}
	return h.entries[h.done].way.Apply(config)
}

// list is the history as the console shows it. Entries after the number safe are undone at the end of Safe Mode.
func (h history) list(safe uint32) []console.HistoryEntry {
	var all []console.HistoryEntry
	for i, e := range h.entries {
		all = append(all, console.HistoryEntry{
			Number: e.number, Action: e.did.all.text, By: e.by, Policy: e.policy, For: time.Since(e.at), Undone: i >= h.done, Floating: e.number > safe,
		})
	}
	return all
}

// safeFrom is the number of the last change before Safe Mode; the greatest if there is no Safe Mode.
func (r *Router) safeFrom() uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.safeMode == nil {
		return ^uint32(0)
	}
	return r.safeMode.before.history.last
}
