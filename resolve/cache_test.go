package resolve

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// lasting sets the TTL of records, in seconds.
func lasting(ttl uint32, records ...dnsmessage.Resource) []dnsmessage.Resource {
	for i := range records {
		records[i].Header.TTL = ttl
	}
	return records
}

func soa(ttl, least uint32) dnsmessage.Resource {
	return dnsmessage.Resource{
		Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("test."), Class: dnsmessage.ClassINET, TTL: ttl},
		Body:   &dnsmessage.SOAResource{NS: dnsmessage.MustNewName("ns.test."), MBox: dnsmessage.MustNewName("mail.test."), MinTTL: least},
	}
}

// TestCacheTimes looks a name up, and again shortly before and when the answer holds no more.
func TestCacheTimes(t *testing.T) {
	negative := func(code dnsmessage.RCode, records ...dnsmessage.Resource) reply {
		return changed(func(m *dnsmessage.Message) { m.RCode, m.Authorities = code, records })
	}
	for _, c := range []struct {
		name  string
		reply reply
		keep  time.Duration
	}{
		{"an address", answers(lasting(60, a("a.test.", "192.0.2.7"))...), time.Minute},
		{"the least TTL", answers(append(lasting(60, a("a.test.", "192.0.2.7")), lasting(30, a("a.test.", "192.0.2.8"))...)...), 30 * time.Second},
		{"an alias that holds shorter", answers(append(lasting(20, cname("a.test.", "b.test.")), lasting(60, a("b.test.", "192.0.2.7"))...)...), 20 * time.Second},
		{"another name's TTL", answers(append(lasting(5, a("c.test.", "192.0.2.9")), lasting(60, a("a.test.", "192.0.2.7"))...)...), time.Minute},
		{"TTL 0", answers(lasting(0, a("a.test.", "192.0.2.7"))...), 0},
		{"a week", answers(lasting(604800, a("a.test.", "192.0.2.7"))...), mostTime},
		{"no name", negative(dnsmessage.RCodeNameError, soa(120, 90)), 90 * time.Second},
		{"no name, and the SOA's own TTL", negative(dnsmessage.RCodeNameError, a("ns.test.", "192.0.2.1"), soa(40, 90)), 40 * time.Second},
		{"no name for a day", negative(dnsmessage.RCodeNameError, soa(86400, 86400)), mostNegative},
		{"no name, without SOA", negative(dnsmessage.RCodeNameError), 0},
		{"no address", negative(dnsmessage.RCodeSuccess, soa(120, 90)), 90 * time.Second},
		{"no server can say", code(dnsmessage.RCodeServerFailure), failureTime},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, c.reply)
			r := New(Options{Wait: patience, Total: patience, Cache: true})
			now := time.Unix(1, 0)
			r.cache.now = func() time.Time { return now }
			first, firstErr := r.Lookup(t.Context(), "a.test", Servers{s.at})
			again := func(name string, asked int64) {
				t.Helper()
				got, err := r.Lookup(t.Context(), name, Servers{s.at})
				assert.Equal(t, first, got)
				if name == "a.test" {
					assert.Equal(t, fmt.Sprint(firstErr), fmt.Sprint(err))
				}
				assert.Equal(t, asked, s.asked.Load())
			}
			if c.keep > 0 {
				now = now.Add(c.keep - 1)
				again("a.test", 1)
				again("A.Test.", 1)
				got, err, ok := r.Known("a.test", Servers{s.at})
				assert.True(t, ok)
				assert.Equal(t, first, got)
				assert.Equal(t, fmt.Sprint(firstErr), fmt.Sprint(err))
				now = now.Add(1)
			}
			_, _, ok := r.Known("a.test", Servers{s.at})
			assert.False(t, ok)
			again("a.test", 2)
		})
	}
}

// TestCacheOfOtherServers checks that nothing is kept of what other servers said.
func TestCacheOfOtherServers(t *testing.T) {
	one, other := serve(t, answers(lasting(60, a("a.test.", "192.0.2.1"))...)), serve(t, answers(lasting(60, a("a.test.", "192.0.2.2"))...))
	r := New(Options{Wait: patience, Total: patience, Cache: true})
	for _, c := range []struct {
		server *nameServer
		want   string
	}{{one, "192.0.2.1"}, {other, "192.0.2.2"}, {one, "192.0.2.1"}} {
		got, err := r.LookupOne(t.Context(), "a.test", Servers{c.server.at})
		require.NoError(t, err)
		assert.Equal(t, c.want, got.String())
	}
	assert.EqualValues(t, 2, one.asked.Load())
}

// TestNoCache: without the option each lookup asks.
func TestNoCache(t *testing.T) {
	s := serve(t, answers(lasting(60, a("a.test.", "192.0.2.1"))...))
	r := patient()
	for range 2 {
		_, err := r.Lookup(t.Context(), "a.test", Servers{s.at})
		require.NoError(t, err)
	}
	assert.EqualValues(t, 2, s.asked.Load())
}

// TestCacheBounds puts more into the cache than it keeps.
func TestCacheBounds(t *testing.T) {
	c := cache{now: time.Now}
	servers := ServersAt(netip.MustParseAddr("192.0.2.1"))
	name := func(i int) string { return fmt.Sprintf("%d.test", i) }
	for i := range 3 * maxCached {
		c.put(name(i), servers, answer{keep: time.Minute, addrs: []netip.Addr{netip.MustParseAddr("192.0.2.7")}}, nil)
		c.put(name(i), servers, answer{keep: time.Minute}, ErrNotFound) // in the same place
		require.Len(t, c.order, len(c.known))
		require.LessOrEqual(t, len(c.known), maxCached)
	}
	for i := range 3 * maxCached {
		_, err, ok := c.get(name(i), servers)
		assert.Equal(t, i >= 2*maxCached, ok, "name %d", i)
		if ok {
			assert.Equal(t, ErrNotFound, err)
		}
	}
}
