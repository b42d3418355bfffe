package dns

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/postern-router/postern/resolve"
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
	flights  map[string]*flight
	waiting  shares
	sessions shares
	// changes counts configurations, and how often the cache was emptied. asking ends, by stopAsking, when it grows: what was
	// asked before is not kept after it, and who waits is not answered by it.
	changes    int
	asking     context.Context
	stopAsking context.CancelFunc
	// asked is how many questions were asked upstream since memory was given back.
	asked int
}

// flight is a question on its way to the upstream servers or, if that is valid, to server alone, and who waits for its
// answer: clients that asked this, or for names whose alias leads there.
type flight struct {
	q       *query
	server  netip.Addr
	waiters []*waiter
	// ctx and changes are those of the server when it began.
	ctx     context.Context
	changes int
}

// waiter is a client that waits for an answer of an upstream server, of size bytes at most.
type waiter struct {
	q      *query
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
	s := &server{ctx: ctx, port: port, large: make(chan struct{}, maxLarge), besides: make(chan struct{}, maxBesides), stopAsking: func() {}}
	s.forget()
	return s
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

// forget empties the cache, and has what is asked upstream asked anew. The caller holds mu.
func (s *server) forget() {
	s.cache = cache{limit: s.config.CacheSize << 10}
	s.changes++
	s.flights = map[string]*flight{}
	s.stopAsking()
	s.asking, s.stopAsking = context.WithCancel(s.ctx)
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
	w := waiter{q: q, client: client, stream: stream, size: math.MaxInt}
	if !stream {
		w.size = min(q.size, s.config.MaxUDP, safeSize)
	}
	if answer = s.find(&w, m); answer != nil {
		return answer, nil
	}
	later = &waiter{} // most questions need none
	*later = w
	later.q = q.clone()
	return nil, later
}

// find returns the answer to w that static entries, leases or the cache know, in the memory of m; nil if there is none. Then w
// says what is to be asked for. The caller holds mu.
func (s *server) find(w *waiter, m *scratch) []byte {
	if w.outcome = s.names.answer(w.q); w.outcome.answer != nil {
		return w.fit(w.outcome.answer)
	}
	if w.alias != nil {
		return nil
	}
	var key [maxKey]byte
	most := seconds(s.config.MaxTTL)
	a, age, ok := s.cache.get(w.q.appendKey(key[:0]), time.Now(), most)
	switch {
	case !ok:
		return nil
	case len(a.message) > w.size && !w.known:
		return w.q.tooLarge(a.code & maskCode) // without a copy of what is not sent
	}
	m.answer = w.final(m.answer, w.q, a, age, most)
	return w.fit(m.answer)
}

// wait has what w waits for asked. reply is called once, mostly later, with nil if there is no answer.
func (s *server) wait(w *waiter, reply func([]byte)) {
	w.reply = func(b []byte) { reply(w.fit(b)) }
	s.mu.Lock()
	ok := s.waiting.enter(w.client, s.config.MaxQueries)
	if ok {
		s.join(w)
	}
	s.mu.Unlock()
	switch {
	case ok:
	case w.stream || w.client.IsLoopback():
		reply(w.q.fail(codeFailure)) // the router's own lookups ask another server then, and need not find out by waiting
	default:
		reply(nil) // the client asks again by itself
	}
}

// join has what w waits for asked, if it is not asked already. The caller holds mu.
func (s *server) join(w *waiter) {
	asked := w.q
	if w.target != "" {
		asked = w.q.about(w.target)
	}
	key := string(append(append(asked.appendKey(nil), 0), w.server.AsSlice()...)) // no name has a byte of zero
	f := s.flights[key]
	if f == nil {
		f = &flight{q: asked, server: w.server, ctx: s.asking, changes: s.changes}
		s.flights[key] = f
		s.work.Go(func() { s.fly(key, f) })
	}
	f.waiters = append(f.waiters, w)
}

// fly asks upstream and gives the answer to all who wait for it. If there is another configuration meanwhile, these begin
// anew by that.
func (s *server) fly(key string, f *flight) {
	a, age, err := s.lookup(f)
	s.mu.Lock()
	if s.flights[key] == f {
		delete(s.flights, key)
	}
	if s.asked++; s.asked == manyAsked {
		time.AfterFunc(keepMemory, s.giveBack)
	}
	most := seconds(s.config.MaxTTL)
	var replies []func()
	for _, w := range f.waiters {
		if f.changes != s.changes {
			b := s.find(w, &scratch{})
			if b == nil {
				s.join(w)
				continue
			}
			replies = append(replies, func() { w.reply(b) })
		} else {
			replies = append(replies, func() { w.answer(a, age, most, err) })
		}
		s.waiting.leave(w.client)
	}
	s.mu.Unlock()
	for _, reply := range replies {
		reply()
	}
}

// answer gives w the answer of an upstream server, which was kept for age seconds, or none because of err.
func (w *waiter) answer(a answer, age, most uint32, err error) {
	switch {
	case err == nil && (!a.truncated || !w.stream):
		w.reply(w.final(nil, w.q, a, age, most))
	case w.known:
		w.reply(w.final(nil, w.q, answer{code: codeFailure}, 0, most))
	default:
		b := w.q.fail(codeFailure)
		if errors.Is(err, resolve.ErrNoServers) {
			b[3] &^= bitAvailable // there is nobody to ask for others, as the router's own lookups are to tell
		}
		w.reply(b)
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
func (s *server) lookup(f *flight) (answer, uint32, error) {
	s.mu.Lock()
	key := f.q.appendKey(nil)
	if a, age, ok := s.cache.get(key, time.Now(), seconds(s.config.MaxTTL)); ok {
		a.message = slices.Clone(a.message) // which is the cache's
		s.mu.Unlock()
		return a, age, nil
	}
	servers, first, config := s.servers, s.current, s.config
	s.mu.Unlock()
	if f.server.IsValid() {
		servers, first = []netip.Addr{f.server}, 0
	}
	a, last, err := s.exchangeAny(f.ctx, f.q, servers, first, config)
	if err != nil {
		return a, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == f.changes {
		if !f.server.IsValid() && last >= 0 {
			s.current = last
		}
		s.cache.put(key, a, time.Now())
	}
	return a, 0, nil
}
