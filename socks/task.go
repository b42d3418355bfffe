package socks

import (
	"context"
	"net/netip"
	"slices"
)

// queueKind is what the tasks of a queue do.
type queueKind uint8

const (
	ofFiles queueKind = iota
	ofNames
	ofOpenings
	queueKinds
)

// queue holds tasks of one kind. Tasks block, and so run outside the loop, a limited number at a
// time. A client address has never more places than are left for the others: the first one half
// of all, the next one half of the rest.
type queue struct {
	kind    queueKind
	free    int     // places
	tasks   []*task // that wait, oldest first
	running []*task
}

// task is what is done for one connection, or for several that wait for the same name.
type task struct {
	run    func()
	cancel context.CancelFunc
	conns  []*conn
	source *source // whose place it takes; nil if it releases something
	// host is looked up at servers, if it is that.
	host    string
	servers []netip.Addr
}

// left reports whether all clients have ended their side for which t is done. They may still wait
// for it, but mostly do not.
func (t *task) left() bool {
	return len(t.conns) > 0 && !slices.ContainsFunc(t.conns, func(c *conn) bool { return !c.tx.ending })
}

// addTask has a task run for c, which has no other one.
func (s *Server) addTask(c *conn, q *queue, t *task, run func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel, t.run = cancel, func() { defer cancel(); run(ctx) }
	t.conns, t.source = []*conn{c}, c.source
	c.attempt.task, c.attempt.queue = t, q
	q.tasks = append(q.tasks, t)
	s.runTasks(q)
}

// runNext has a task run before those that wait in q. It is for tasks that release
// something.
func (s *Server) runNext(q *queue, run func()) {
	q.tasks = append([]*task{{run: run}}, q.tasks...)
	s.runTasks(q)
}

// leaveTask ends the wait of c for its task. If no other connection waits for it, the task is
// removed from its queue or, if it runs, told to end.
func (s *Server) leaveTask(c *conn) {
	t, q := c.attempt.task, c.attempt.queue
	if t.conns = slices.DeleteFunc(t.conns, func(o *conn) bool { return o == c }); len(t.conns) > 0 {
		return
	}
	t.cancel()
	if i := slices.Index(q.tasks, t); i >= 0 {
		q.tasks = slices.Delete(q.tasks, i, i+1)
	}
}

// runTasks runs the tasks of q for which there is a place, each in a goroutine. If others could use it,
// the place of a client that has left is freed.
func (s *Server) runTasks(q *queue) {
	for t := q.next(); t != nil; t = q.next() {
		q.running = append(q.running, t)
		q.free--
		if t.source != nil {
			t.source.busy[q.kind]++
		}
		s.running.Go(func() {
			t.run()
			s.mu.Lock()
			defer s.mu.Unlock()
			s.tick()
			q.running = slices.DeleteFunc(q.running, func(o *task) bool { return o == t })
			q.free++
			if t.source != nil {
				t.source.busy[q.kind]--
				s.forget(t.source)
			}
			s.runTasks(q)
			if !s.closed {
				s.poller.wake() // there may be more to do, and another time to wait
			}
		})
	}
	if t := q.inTheWay(); t != nil {
		for _, c := range slices.Clone(t.conns) {
			s.end(c, errYielded)
		}
	}
}

// inTheWay returns a task that runs, whose clients have left, and in whose place one could run that waits
// for clients that have not; or nil, also if there will be a place without that, because one ends that
// nobody waits for.
func (q *queue) inTheWay() *task {
	// Others than lookups are short, or their clients end with their side.
	if q.kind != ofNames || !slices.ContainsFunc(q.running, (*task).left) {
		return nil
	}
	free, ending := q.free, map[*source]int{} // once those that nobody waits for have ended
	var other *task                           // whose clients have left
	of := map[*source]*task{}                 // such a one
	for _, t := range slices.Backward(q.running) {
		switch {
		case len(t.conns) == 0:
			free++
			ending[t.source]++
		case t.left():
			other, of[t.source] = t, t
		}
	}
	for _, t := range q.tasks {
		if t.left() {
			continue
		}
		busy := 0
		if t.source != nil {
			busy = t.source.busy[q.kind] - ending[t.source]
		}
		switch own := of[t.source]; {
		case busy < free:
			return nil
		case own != nil && busy-1 < free+1:
			return own
		case busy < free+1:
			return other
		}
	}
	return nil
}

// next removes the task from q that may run next, or returns nil.
func (q *queue) next() *task {
	next := -1
	for i, t := range q.tasks {
		if q.free == 0 || t.source != nil && t.source.busy[q.kind] >= q.free {
			continue
		}
		if !t.left() {
			next = i
			break
		}
		if next < 0 {
			next = i
		}
	}
	if next < 0 {
		return nil
	}
	t := q.tasks[next]
	q.tasks = slices.Delete(q.tasks, next, next+1)
	return t
}
