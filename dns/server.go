package dns

import (
	"context"
	"math"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// shares counts what each client has of something.
type shares struct {
	total int
	by    map[netip.Addr]int
}

// enter gives a client one more of max, if it has less than there are free: one client gets half at
// most, and leaves room for the next.
func (s *shares) enter(client netip.Addr, max int) bool {
	if s.by[client] >= max-s.total {
		return false
	}
	if s.by == nil {
		s.by = map[netip.Addr]int{}
	}
	s.total++
	s.by[client]++
	return true
}

func (s *shares) leave(client netip.Addr) {
	s.total--
	if s.by[client]--; s.by[client] == 0 {
		delete(s.by, client)
	}
}

// server answers clients.
type server struct {
	ctx  context.Context
	port uint16 // of upstream servers
	work sync.WaitGroup
	// large has an element for each exchange over TCP, besides for each server that is asked
	// besides another one.
	large, besides chan struct{}

	mu       sync.Mutex
	config   Config
	servers  []netip.Addr
	names    names
	cache    cache
	current  int // of servers: the one that works
	flights  map[string][]*waiter
	waiting  shares
	sessions shares
	// changes counts configurations: what was asked before one is not kept after it.
	changes int
	// asked is how many questions were asked upstream since memory was given back.
	asked int
}

// waiter is a client that waits for an answer of an upstream server, of size bytes at most.
type waiter struct {
	q      *query
	key    string
	client netip.Addr
	stream bool
	size   int
	outcome
	reply func([]byte)
}

// fit returns what of the answer b the client gets. The router's own lookups do not keep what the
// configuration says: it changes at once.
func (w *waiter) fit(b []byte) []byte {
	if w.client.IsLoopback() && (w.outcome.answer != nil || w.alias != nil) {
		_, _ = eachRecord(b, func(_ int, r record) {
			if r.typ != typeOPT {
				clear(b[r.ttlAt:][:4])
			}
		})
	}
	return w.q.fit(b, w.size)
}

func newServer(ctx context.Context) *server {
	return &server{ctx: ctx, port: port, large: make(chan struct{}, maxLarge), besides: make(chan struct{}, maxBesides),
		flights: map[string][]*waiter{}}
}

// configure brings the server to a configuration. Of the cache everything is forgotten, since other
// servers may say something else.
func (s *server) configure(c Config, servers []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hosts := s.names.hosts
	s.config, s.servers, s.names, s.current = c, servers, newNames(c.Static), 0
	s.names.hosts = hosts
	s.forget()
}

// forget empties the cache. The caller holds mu.
func (s *server) forget() {
	s.cache = cache{limit: s.config.CacheSize << 10}
	s.changes++
}

// flush empties the cache.
func (s *server) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
}

// setNames sets the names of hosts that have a lease, in place of those that were set before.
func (s *server) setNames(all map[string]Host) {
	hosts := newHosts(all)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names.hosts = hosts
}

// take answers the query b of a client, with nil if it gets no answer. What has to be asked for is
// not answered yet: that is for wait. stream says that the query came over TCP, where an answer has
// any size. The answer is m's.
func (s *server) take(b []byte, client netip.Addr, stream bool, m *scratch) (answer []byte, later *waiter) {
	q, answered, err := m.parseQuery(b)
	switch {
	case !answered:
		return nil, nil
	case q.unsupported:
		return q.reply(codeNotImplemented), nil
	case err != nil:
		return q.reply(codeFormat), nil
	case q.badVersion:
		return q.addOPT(q.reply(codeOK), 1), nil // BADVERS
	case q.typ == typeAXFR || q.typ == typeIXFR: // is no question for a cache
		return q.fail(codeNotImplemented), nil
	case q.typ == typeANY && !stream:
		// Its large answers are for who forges the address of another (RFC 8482, section 4.4).
		return q.tooLarge(codeOK), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := waiter{q: q, client: client, stream: stream, outcome: s.names.answer(q), size: math.MaxInt}
	if !stream {
		w.size = min(q.size, s.config.MaxUDP, safeSize)
	}
	if w.outcome.answer != nil {
		return w.fit(w.outcome.answer), nil
	}
	var key [maxKey]byte
	if w.alias == nil {
		most := seconds(s.config.MaxTTL)
		if a, age, ok := s.cache.get(q.appendKey(key[:0]), time.Now(), most); ok {
			if len(a.message) > w.size && !w.known {
				return q.tooLarge(a.code & maskCode), nil // without a copy of what is not sent
			}
			m.answer = w.final(m.answer, q, a, age, most)
			return w.fit(m.answer), nil
		}
	}
	later = &waiter{} // most questions need none
	*later = w
	later.q = q.clone()
	later.key = string(q.appendKey(key[:0]))
	return nil, later
}

// wait has what w waits for asked. reply is called once, mostly later, with nil if there is no answer.
func (s *server) wait(w *waiter, reply func([]byte)) {
	w.reply = func(b []byte) { reply(w.fit(b)) }
	s.mu.Lock()
	if !s.waiting.enter(w.client, s.config.MaxQueries) {
		s.mu.Unlock()
		if w.stream {
			reply(w.q.fail(codeFailure))
		} else {
			reply(nil) // the client asks again by itself
		}
		return
	}
	others, asked := s.flights[w.key]
	s.flights[w.key] = append(others, w)
	s.mu.Unlock()
	if !asked {
		s.work.Go(func() { s.fly(w.key, w.q, w.outcome) })
	}
}

// fly asks upstream and gives the answer to all who wait for it.
func (s *server) fly(key string, q *query, o outcome) {
	asked := q
	if o.target != "" {
		asked = q.about(o.target)
	}
	a, age, err := s.lookup(asked, o.server)
	s.mu.Lock()
	waiters := s.flights[key]
	delete(s.flights, key)
	if s.asked++; s.asked == manyAsked {
		time.AfterFunc(keepMemory, s.giveBack)
	}
	for _, w := range waiters {
		s.waiting.leave(w.client)
	}
	most := seconds(s.config.MaxTTL)
	s.mu.Unlock()
	for _, w := range waiters {
		switch {
		case err == nil && (!a.truncated || !w.stream):
			w.reply(o.final(nil, w.q, a, age, most))
		case o.known:
			w.reply(o.final(nil, w.q, answer{code: codeFailure}, 0, most))
		default:
			w.reply(w.q.fail(codeFailure))
		}
	}
}

// A question that is asked upstream takes some 10 KB until its answer comes, and many at once what Go then keeps for
// the next. It is given back to the kernel keepMemory after manyAsked questions.
const (
	manyAsked  = 32
	keepMemory = 3 * time.Second
)

func (s *server) giveBack() {
	s.mu.Lock()
	s.asked = 0
	s.mu.Unlock()
	debug.FreeOSMemory()
}

// lookup returns the answer of an upstream server, or of the cache.
func (s *server) lookup(q *query, forward netip.Addr) (answer, uint32, error) {
	s.mu.Lock()
	key, changes := q.appendKey(nil), s.changes
	if a, age, ok := s.cache.get(key, time.Now(), seconds(s.config.MaxTTL)); ok {
		a.message = slices.Clone(a.message) // which is the cache's
		s.mu.Unlock()
		return a, age, nil
	}
	servers, first, config := s.servers, s.current, s.config
	s.mu.Unlock()
	if forward.IsValid() {
		servers, first = []netip.Addr{forward}, 0
	}
	a, last, err := s.exchangeAny(q, servers, first, config)
	if err != nil {
		return a, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == changes {
		if !forward.IsValid() && last >= 0 {
			s.current = last
		}
		s.cache.put(key, a, time.Now())
	}
	return a, 0, nil
}
