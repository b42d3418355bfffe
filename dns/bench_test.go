package dns

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An answer from the cache: what most questions of a LAN take.
func BenchmarkCached(b *testing.B) {
	s := newServer(b.Context())
	s.configure(Default(), nil)
	m := message("a.example", typeA, 1232)
	q, _, err := new(scratch).parseQuery(m)
	require.NoError(b, err)
	a, ok := parseAnswer(withAddress(q, 3600), q, q.id)
	require.True(b, ok)
	s.cache.put(q.appendKey(nil), a, time.Now())
	var memory scratch
	b.ReportAllocs()
	for b.Loop() {
		if answer, _ := s.take(m, someone, false, &memory); answer == nil {
			b.Fatal("no answer")
		}
	}
}
