package dns

import (
	"fmt"
	"math/rand/v2"
	"runtime"
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
					a.message = make([]byte, 15_000) // it has a chunk for itself, or no place
				}
				for j := range a.message {
					a.message[j] = byte(random.Uint32())
				}
				c.put([]byte(key), a, now)
				last[key] = a
				require.LessOrEqual(t, c.taken(), c.limit)
				require.LessOrEqual(t, c.used(), c.limit)
			}
			assert.Positive(t, hits)
			shown := 0
			var chunk []byte
			for number := c.end() - 1; ; number-- {
				var ok bool
				if chunk, ok = c.copyChunk(number, chunk); !ok {
					break
				}
				for at := 0; at < len(chunk); at += entry(chunk[at:]).size() {
					shown++
					e := entry(chunk[at:])
					a, _, ok := c.get(e.key(), now, 3600)
					require.True(t, ok)
					require.Equal(t, last[string(e.key())], a)
					require.Equal(t, a.message, e.message())
				}
			}
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

// What the cache has of the heap is within its limit too, however long it has been full.
func TestCacheMemory(t *testing.T) {
	const size, caches = 8 * maxChunk, 64
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what the first has found is given back by the second
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	all := make([]cache, caches)
	for i := range all {
		all[i].limit = size
		for n := range 1000 {
			all[i].put(fmt.Append(nil, n), answer{message: make([]byte, 1000), seconds: 60}, time.Now())
		}
	}
	assert.Less(t, heap()-before, caches*size)
	now, message := time.Now(), make([]byte, 1000)
	assert.Zero(t, testing.AllocsPerRun(1000, func() { all[0].put([]byte("again"), answer{message: message, seconds: 60}, now) }))
	runtime.KeepAlive(all)
}
