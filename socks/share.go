package socks

import (
	"container/heap"
	"net/netip"
	"time"
)

// When all slots are taken, a new connection takes that of another one, if there is one that has
// less right to it. So that a client that opens many does not keep the others out, the slot is one
// of the address that has the most. A client with many addresses has the share of many: then
// those that wait for longest are replaced first.

// keptSilence is how long nothing has moved on an established connection before one of another
// address may replace it.
const keptSilence = 10 * time.Second

// claim is how good the right of a connection to its slot is.
type claim uint8

const (
	// unranked is that of a connection without a slot.
	unranked claim = iota
	// kept is that of established connections. It is only replaced if its address has more slots
	// than its share, by one of an address that has not got its share, and if it is quiet: nothing
	// has moved for keptSilence. For an address that has no connection at all, one that is not
	// quiet has to go too: otherwise a byte now and then would keep the whole table.
	kept
	// waiting is that of a connection that waits for a name, a server, a call, or for its peers to
	// take the rest of what they are sent. It is only replaced if its address has more of them
	// than its share of all slots, by one of an address that has not got its share.
	waiting
	// unfinished is that of a connection whose request is not complete, or whose client has
	// ended its side before it was answered. Each new connection may replace it.
	unfinished
	claims
)

// source is an IP address of clients, and their connections.
type source struct {
	addr   netip.Addr
	slots  int // how many connections it has
	agenda agenda
	// busy is how many tasks run for it, of each kind: also for connections that are over.
	busy [queueKinds]int
	// of holds those of each claim.
	of [claims]connList
	// at is its place in Server.most, for each claim of which it has connections.
	at [claims]int
}

// connList is a list of connections, linked by conn.before and conn.after.
type connList struct {
	oldest, newest *conn
	n              int
}

func (l *connList) add(c *conn) {
	c.before, c.after = l.newest, nil
	if l.newest != nil {
		l.newest.after = c
	} else {
		l.oldest = c
	}
	l.newest = c
	l.n++
}

func (l *connList) remove(c *conn) {
	if c.before != nil {
		c.before.after = c.after
	} else {
		l.oldest = c.after
	}
	if c.after != nil {
		c.after.before = c.before
	} else {
		l.newest = c.before
	}
	c.before, c.after = nil, nil
	l.n--
}

// ranking is a heap of the addresses that have connections of a claim: first the one that has the
// most of them or, of several, that which has the oldest (heap.Interface).
type ranking struct {
	claim   claim
	sources []*source
}

func (r *ranking) Len() int { return len(r.sources) }

func (r *ranking) Less(i, j int) bool {
	a, b := &r.sources[i].of[r.claim], &r.sources[j].of[r.claim]
	if a.n != b.n {
		return a.n > b.n
	}
	return a.oldest.number < b.oldest.number
}

func (r *ranking) Swap(i, j int) {
	r.sources[i], r.sources[j] = r.sources[j], r.sources[i]
	r.sources[i].at[r.claim], r.sources[j].at[r.claim] = i, j
}

func (r *ranking) Push(x any) {
	from := x.(*source)
	from.at[r.claim] = len(r.sources)
	r.sources = append(r.sources, from)
}

func (r *ranking) Pop() any {
	last := len(r.sources) - 1
	from := r.sources[last]
	r.sources[last] = nil
	r.sources = r.sources[:last]
	return from
}

// add adds c to those of its address.
func (r *ranking) add(c *conn) {
	l := &c.source.of[r.claim]
	if l.add(c); l.n == 1 {
		heap.Push(r, c.source)
		return
	}
	heap.Fix(r, c.source.at[r.claim])
}

// remove removes c from those of its address.
func (r *ranking) remove(c *conn) {
	l := &c.source.of[r.claim]
	if l.n == 1 {
		heap.Remove(r, c.source.at[r.claim])
		l.remove(c)
		return
	}
	l.remove(c)
	heap.Fix(r, c.source.at[r.claim])
}

// occupy counts c, which is new, among the connections of its address.
func (s *Server) occupy(c *conn) {
	c.source = s.sourceOf(c.src.Addr())
	if c.source.slots++; c.source.slots == 1 {
		s.holders++
	}
}

// sourceOf returns the source with that address.
func (s *Server) sourceOf(addr netip.Addr) *source {
	from := s.sources[addr]
	if from == nil {
		from = &source{addr: addr}
		s.sources[addr] = from
	}
	return from
}

// vacate is the opposite of occupy, when c ends.
func (s *Server) vacate(c *conn) {
	s.setClaim(c, unranked)
	if c.source.slots--; c.source.slots == 0 {
		s.holders--
	}
	s.forget(c.source)
}

// forget forgets an address if nothing is left of its connections, and it is not in the line: otherwise it would be a second
// source when it calls again.
func (s *Server) forget(from *source) {
	if from.slots == 0 && from.agenda.empty() && !from.agenda.inLine && from.busy == [queueKinds]int{} {
		delete(s.sources, from.addr)
	}
}

// judgeClaim finds the claim of c, when its state or its client has changed.
func (s *Server) judgeClaim(c *conn) {
	switch {
	case c.over:
	case c.state == established || c.state == associated:
		s.setClaim(c, kept)
	case c.state == handshaking || c.state < established && c.tx.ending:
		s.setClaim(c, unfinished)
	default:
		s.setClaim(c, waiting)
	}
}

func (s *Server) setClaim(c *conn, to claim) {
	if c.claim == to {
		return
	}
	if c.claim != unranked {
		s.most[c.claim].remove(c)
	}
	if c.claim = to; to != unranked {
		s.most[to].add(c)
	}
}

// replaceable returns the connection whose slot a new one from addr may take, or nil.
func (s *Server) replaceable(addr netip.Addr) *conn {
	own, sources := s.sources[addr], s.holders
	if own == nil {
		own = &source{}
	}
	if own.slots == 0 {
		sources++
	}
	if r := s.most[unfinished].sources; len(r) > 0 {
		// The new one is unfinished too. If its address has the most with it, it is that address
		// which gives way.
		if mine := own.of[unfinished]; mine.n >= r[0].of[unfinished].n {
			return mine.oldest
		}
		return r[0].of[unfinished].oldest
	}
	share := s.cfg.MaxConnections / sources
	if own.slots >= share {
		return nil
	}
	if r := s.most[waiting].sources; len(r) > 0 && r[0].of[waiting].n > share {
		return r[0].of[waiting].oldest
	}
	if r := s.most[kept].sources; len(r) > 0 && r[0].slots > share {
		if c := r[0].of[kept].quietest(); own.slots == 0 || s.now-c.last >= keptSilence {
			return c
		}
	}
	return nil
}

// quietest returns the connection of l on which nothing has moved for longest.
func (l *connList) quietest() *conn {
	quietest := l.oldest
	for c := l.oldest; c != nil; c = c.after {
		if c.last < quietest.last {
			quietest = c
		}
	}
	return quietest
}
