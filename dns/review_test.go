package dns

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// AAAA of a static A when upstream says NXDOMAIN, or nobody answers.
func TestReviewStaticAAAA(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte { return q.reply(codeNoName) })
	st := func(c *Config) {
		c.TotalTimeout = time.Second
		c.Static = []Static{{Name: "nas.lan", Type: "A", Address: netip.MustParseAddr("192.168.0.5"), TTL: time.Hour}}
	}
	assert.Equal(t, codeOK, code(ask(testServer(t, st, u), message("nas.lan", typeAAAA, 0), false)), "upstream NXDOMAIN")
	assert.Equal(t, codeOK, code(ask(testServer(t, st), message("nas.lan", typeAAAA, 0), false)), "no servers")
}

// TTL of a cached target behind a static alias.
func TestReviewAliasTTL(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte { return withAddress(q, 100) })
	s := testServer(t, func(c *Config) {
		c.Static = []Static{{Name: "out.lan", Type: "CNAME", CNAME: "a.example", TTL: time.Hour}}
	}, u)
	ask(s, message("a.example", typeA, 0), false)
	s.mu.Lock()
	for _, e := range s.cache.entries {
		e.Value.(*entry).at = time.Now().Add(-60 * time.Second)
	}
	s.mu.Unlock()
	b := ask(s, message("out.lan", typeA, 0), false)
	last := -1
	_, _ = eachRecord(b, func(_ int, r record) { last = int(r.ttl) })
	assert.LessOrEqual(t, last, 40)
	assert.Len(t, u.questions(), 1)
}

// Upstream that does not know EDNS answers FORMERR.
func TestReviewNoEDNS(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte {
		if q.edns {
			p := *q
			p.edns = false
			return p.fail(codeFormat)
		}
		return withAddress(q, 100)
	})
	assert.Equal(t, codeOK, code(ask(testServer(t, nil, u), message("a.example", typeA, 1232), false)))
}

// Negative answer whose SOA says a week.
func TestReviewNegativeWeek(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte {
		b := addRecord(q.reply(codeNoName), "example", typeSOA, 604800, append(make([]byte, 18), 0, 9, 0x3a, 0x80))
		b[7], b[9] = 0, 1
		return b
	})
	s := testServer(t, nil, u)
	ask(s, message("a.example", typeA, 0), false)
	for _, e := range s.cache.entries {
		assert.LessOrEqual(t, e.Value.(*entry).seconds, uint32(3*3600))
	}
}

// One dead server of two: how long the client waits with the defaults.
func TestReviewDead(t *testing.T) {
	dead := serveAt(t, "127.0.1.1", func(*query, string) []byte { return nil })
	u := serveAt(t, "127.0.1.2", func(q *query, _ string) []byte { return withAddress(q, 100) })
	s := testServer(t, func(c *Config) { c.ServerTimeout = 2 * time.Second }, dead, u)
	began := time.Now()
	ask(s, message("a.example", typeA, 0), false)
	t.Logf("first answer with one of two servers dead: %v", time.Since(began))
}

// Truncated upstream whose TCP is closed: TC is handed on to a UDP client.
func TestReviewNoTCP(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, network string) []byte {
		if network == "tcp" {
			return nil
		}
		b := q.reply(codeOK)
		b[2] |= bitTruncated >> 8
		return b
	})
	b := ask(testServer(t, func(c *Config) { c.TotalTimeout = time.Second }, u), message("a.example", typeA, 0), false)
	t.Logf("code %d, truncated %v", code(b), truncated(b))
}
