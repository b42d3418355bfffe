package dns

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The cache keeps to its bound, and answers what it was given last or nothing.
func TestCacheBound(t *testing.T) {
	for _, limit := range []int{10_000, 64 << 10, 1 << 20} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			c := cache{limit: limit}
			now := time.Now()
			random := rand.New(rand.NewPCG(1, 2))
			last := map[string]answer{}
			hits := 0
			for i := range 30_000 {
				key := fmt.Sprint("key", random.IntN(4000))
				if a, age, ok := c.get([]byte(key), now, 3600); ok {
					hits++
					require.Equal(t, last[key], a, key)
					require.Zero(t, age)
				}
				a := answer{message: make([]byte, random.IntN(300)), code: i % 4096, seconds: uint32(1 + i%60), truncated: i%3 == 0, edns: i%2 == 0}
				if i%500 == 0 {
					a.message = make([]byte, 40_000) // it has a chunk of its own, or no place
				}
				for j := range a.message {
					a.message[j] = byte(random.Uint32())
				}
				c.put([]byte(key), a, now)
				last[key] = a
				require.LessOrEqual(t, c.capacity+len(c.index)*indexCost, c.limit)
				require.LessOrEqual(t, c.used(), c.limit)
			}
			assert.Positive(t, hits)
			shown := 0
			c.each(func(e entry) bool {
				shown++
				a, _, ok := c.get(e.key(), now, 3600)
				require.True(t, ok)
				require.Equal(t, last[string(e.key())], a)
				return true
			})
			assert.Equal(t, len(c.index), shown)
			assert.Positive(t, shown)
			for key, a := range last {
				_, _, ok := c.get([]byte(key), now.Add(time.Duration(a.seconds)*time.Second), 3600)
				require.False(t, ok, "its time is over")
			}
			assert.Empty(t, c.index)
		})
	}
}

// What is asked for again and again stays, whatever else comes; what was asked for once goes.
func TestCacheKeepsWhatIsUsed(t *testing.T) {
	c := cache{limit: 64 << 10}
	now := time.Now()
	put := func(key string) { c.put([]byte(key), answer{message: make([]byte, 100), seconds: 60}, now) }
	put("used")
	put("not used")
	for i := range 1 << 17 { // the number of the chunk goes round
		put(fmt.Sprint(i))
		_, _, ok := c.get([]byte("used"), now, 3600)
		require.True(t, ok, i)
	}
	_, _, ok := c.get([]byte("not used"), now, 3600)
	assert.False(t, ok)
	now = now.Add(time.Minute)
	for i := range 1000 {
		put(fmt.Sprint("other", i))
	}
	for _, chunk := range c.chunks {
		for at := 0; at < len(chunk); at += entry(chunk[at:]).size() {
			require.NotEqual(t, "used", string(entry(chunk[at:]).key()), "its time is over")
		}
	}
}
