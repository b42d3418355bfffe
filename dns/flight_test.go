package dns

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// limit is how long a test waits for what must happen.
const limit = 30 * time.Second

// forever has a server be waited for longer than any test lasts.
func forever(c *Config) { c.ServerTimeout, c.TotalTimeout = time.Hour, time.Hour }

// begin has a client ask, and returns where the answer will come.
func begin(t *testing.T, s *server, client netip.Addr, b []byte, stream bool) chan []byte {
	t.Helper()
	replies := make(chan []byte, 1)
	answer, later := s.take(b, client, stream, new(scratch))
	if later == nil {
		replies <- answer
		return replies
	}
	s.wait(later, func(b []byte) { replies <- b })
	return replies
}

// await returns the answer that comes.
func await(t *testing.T, replies chan []byte) []byte {
	t.Helper()
	select {
	case b := <-replies:
		return b
	case <-time.After(limit):
		require.FailNow(t, "no answer")
		return nil
	}
}

// Who waits for servers that are the wrong ones by now, or asks for the same again, is answered by what is right.
func TestAnotherConfiguration(t *testing.T) {
	alias := func(c *Config) { c.Static = []Static{{Name: "www.example", Type: "CNAME", CNAME: "nas.lan"}} }
	forward := func(to string) func(c *Config) {
		return func(c *Config) {
			c.Static = []Static{{Name: "www.example", Type: "FWD", ForwardTo: netip.MustParseAddr(to)}}
		}
	}
	for _, c := range []struct {
		name string
		// before and after are parts of the configuration, old and next the server of each; "" for none.
		before, after func(*Config)
		old, next     string
		answers       int
	}{
		{"other servers", nil, nil, "127.0.1.1", "127.0.1.2", 1},
		{"servers where none were silent", nil, nil, "127.0.1.1", "127.0.1.1", 1},
		{"another server for the name", forward("127.0.1.1"), forward("127.0.1.2"), "", "", 1},
		{"an alias", nil, func(c *Config) {
			alias(c)
			c.Static = append(c.Static, Static{Name: "nas.lan", Type: "A", Address: someone})
		}, "127.0.1.1", "", 2},
		{"another target", alias, func(c *Config) { c.Static = []Static{{Name: "www.example", Type: "CNAME", CNAME: "mail.lan"}} }, "127.0.1.1", "127.0.1.2", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked atomic.Int32
			first := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte {
				if asked.Add(1) == 1 {
					return nil
				}
				return withAddress(q, 60)
			})
			serveAt(t, "127.0.1.2", func(q *query, _ string) []byte { return withAddress(q, 60) })
			configure := func(s *server, change func(*Config), server string) {
				config := Default()
				forever(&config)
				if change != nil {
					change(&config)
				}
				var servers []netip.Addr
				if server != "" {
					servers = []netip.Addr{netip.MustParseAddr(server)}
				}
				s.configure(config, servers)
			}
			s := testServer(t, nil)
			configure(s, c.before, c.old)
			waits := begin(t, s, someone, message("www.example", typeA, 0), false)
			require.Eventually(t, func() bool { return len(first.questions()) == 1 }, limit, time.Millisecond)
			configure(s, c.after, c.next)
			for _, replies := range []chan []byte{begin(t, s, someone, message("www.example", typeA, 0), false), waits} {
				b := await(t, replies)
				assert.Equal(t, codeOK, code(b))
				assert.Equal(t, c.answers, answerCount(b))
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			assert.Zero(t, s.waiting.total)
			assert.Empty(t, s.flights)
		})
	}
}

// No other server is asked for a name that a FWD entry has its own server for, be that silent or be it that it fails.
func TestForwardedAlone(t *testing.T) {
	usual := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte { return withAddress(q, 60) })
	for name, reply := range map[string]script{
		"silent": func(*query, string) []byte { return nil },
		"fails":  func(q *query, _ string) []byte { return q.fail(codeFailure) },
	} {
		t.Run(name, func(t *testing.T) {
			own := serveAt(t, "127.0.1.2", reply)
			s := testServer(t, func(c *Config) {
				c.ServerTimeout, c.TotalTimeout = patience/5, 3*patience
				c.Static = []Static{{Name: "corp", Type: "FWD", ForwardTo: own.addr, MatchSubdomain: true}, {Name: "www.lan", Type: "CNAME", CNAME: "www.corp"}}
			}, usual)
			for _, asked := range []string{"nas.corp", "www.lan"} {
				b := ask(s, message(asked, typeA, 0), false)
				require.NotNil(t, b)
				assert.Equal(t, codeFailure, code(b))
			}
			assert.NotEmpty(t, own.questions())
			assert.Empty(t, usual.questions())
		})
	}
}

// With the cache what is on its way is forgotten: it is asked anew.
func TestFlushAsksAnew(t *testing.T) {
	var asked atomic.Int32
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte {
		if asked.Add(1) == 1 {
			return nil
		}
		return withAddress(q, 60)
	})
	s := testServer(t, forever, u)
	waits := begin(t, s, someone, message("a.example", typeA, 0), false)
	require.Eventually(t, func() bool { return len(u.questions()) == 1 }, limit, time.Millisecond)
	s.flush()
	assert.Equal(t, 1, answerCount(await(t, waits)))
	assert.Equal(t, []string{"udp a.example", "udp a.example"}, u.questions())
}

// Names that are aliases of one are one question, with that for their target itself: many of the same at once would help who
// guesses the id of an answer (RFC 5452, section 5).
func TestOneQuestionForATarget(t *testing.T) {
	open := make(chan struct{})
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte { <-open; return withAddress(q, 60) })
	s := testServer(t, func(c *Config) {
		forever(c)
		c.Static = []Static{{Name: "ads.example", Type: "CNAME", CNAME: "T.example", MatchSubdomain: true, TTL: time.Hour}}
	}, u)
	names := []string{"t.example", "T.example"}
	for i := range 40 {
		names = append(names, fmt.Sprintf("host%d.ads.example", i))
	}
	var all []chan []byte
	for _, name := range names {
		all = append(all, begin(t, s, someone, message(name, typeA, 0), false))
	}
	require.Eventually(t, func() bool { return len(u.questions()) > 0 }, limit, time.Millisecond)
	s.mu.Lock()
	assert.Len(t, s.flights, 1)
	s.mu.Unlock()
	close(open)
	for i, replies := range all {
		b := await(t, replies)
		assert.Equal(t, appendName(nil, names[i]), b[headerSize:headerSize+len(names[i])+2])
		assert.Equal(t, map[bool]int{true: 1, false: 2}[i < 2], answerCount(b), "the alias and the address")
	}
	assert.Equal(t, []string{"udp t.example"}, u.questions())
}

// A question is one with each form that an answer depends on: EDNS, and for signatures DO and CD, and RD.
func TestForms(t *testing.T) {
	forms := map[string]bool{}
	for bits := range 16 {
		q := &query{name: "a.example", typ: typeA, class: classIN, edns: bits&1 != 0, do: bits&2 != 0}
		if bits&4 != 0 {
			q.flags |= bitChecked
		}
		if bits&8 != 0 {
			q.flags |= bitDesired
		}
		q.question = binary.BigEndian.AppendUint32(appendName(nil, q.name), typeA<<16|classIN)
		again, _, err := new(scratch).parseQuery(q.ask(1)) // DO comes with EDNS alone
		require.NoError(t, err)
		forms[string(again.appendKey(nil))] = true
	}
	assert.Len(t, forms, 12)
}
