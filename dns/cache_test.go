package dns

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// kept returns a key and the message of an answer to its question, with so many bytes behind that.
func kept(name string, size int) (key, message []byte) {
	q := &query{name: name, question: appendName(nil, name), typ: typeA, class: classIN}
	q.question = append(q.question, 0, typeA, 0, classIN)
	return q.appendKey(nil), append(q.reply(codeOK), make([]byte, size)...)
}

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
				size := random.IntN(300)
				if i%500 == 0 {
					size = 15_000 // it has a chunk for itself, or no place
				}
				b, message := kept(fmt.Sprint("key", random.IntN(4000)), size)
				key := string(b)
				if a, age, ok := c.get(b, now, 3600); ok {
					hits++
					require.Equal(t, last[key], a, key)
					require.Zero(t, age)
				}
				a := answer{message: message, code: i % 4096, seconds: uint32(1 + i%60), truncated: i%3 == 0, edns: i%2 == 0}
				for j := range size {
					message[len(message)-1-j] = byte(random.Uint32())
				}
				c.put(b, a, now)
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
					var key [maxKey]byte
					a, _, ok := c.get(e.key(&key), now, 3600)
					require.True(t, ok)
					require.Equal(t, last[string(e.key(&key))], a)
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
	put := func(name string) {
		key, message := kept(name, 100)
		c.put(key, answer{message: message, seconds: 60}, now)
	}
	used, _ := kept("used", 0)
	other, _ := kept("not used", 0)
	put("used")
	put("not used")
	for i := range 1 << 17 { // the number of the chunk goes round
		put(fmt.Sprint(i))
		_, _, ok := c.get(used, now, 3600)
		require.True(t, ok, i)
	}
	_, _, ok := c.get(other, now, 3600)
	assert.False(t, ok)
	now = now.Add(time.Minute)
	for i := range 1000 {
		put(fmt.Sprint("other", i))
	}
	for _, chunk := range c.chunks {
		for at := 0; at < len(chunk); at += entry(chunk[at:]).size() {
			var key [maxKey]byte
			require.NotEqual(t, used, entry(chunk[at:]).key(&key), "its time is over")
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
			key, message := kept(fmt.Sprint(n), 1000)
			all[i].put(key, answer{message: message, seconds: 60}, time.Now())
		}
	}
	assert.Less(t, heap()-before, caches*size)
	now := time.Now()
	key, message := kept("again", 1000)
	assert.Zero(t, testing.AllocsPerRun(1000, func() { all[0].put(key, answer{message: message, seconds: 60}, now) }))
	runtime.KeepAlive(all)
}

// What is no answer to the question is not kept as one.
func TestCacheRefuses(t *testing.T) {
	c := cache{limit: 64 << 10}
	key, _ := kept("a.example", 0)
	_, message := kept("b.example", 0)
	_, right := kept("a.example", 0)
	pointer := append(append(right[:headerSize:headerSize], 0xc0, 4), right[len(right)-4:]...)
	_, longer := kept("a.example.b", 0)
	_, split := kept("a.exa.mple", 0)
	for _, m := range [][]byte{message, message[:20], nil, right[:len(right)-1], right[:headerSize], pointer, longer, split} {
		c.put(key, answer{message: m, seconds: 60}, time.Now())
		assert.Zero(t, c.used())
		_, _, ok := c.get(key, time.Now(), 60)
		assert.False(t, ok)
	}
}

// It does not matter which letters are capital, and the root is a name.
func TestCacheLetters(t *testing.T) {
	c := cache{limit: 64 << 10}
	for _, name := range []string{"www.Example.COM", "A", ""} {
		_, message := kept(name, 0)
		key, _ := kept(strings.ToLower(name), 0)
		c.put(key, answer{message: message, seconds: 60}, time.Now())
		a, _, ok := c.get(key, time.Now(), 60)
		require.True(t, ok, name)
		assert.Equal(t, strings.ToLower(string(message[headerSize:])), string(a.message[headerSize:]))
	}
	assert.Len(t, c.index, 3)
}

// An answer from the cache leaves no garbage behind, whichever names it is for.
func TestCachedWithoutGarbage(t *testing.T) {
	s := testServer(t, nil)
	var queries [][]byte
	for i := range 100 {
		name := fmt.Sprint("host", i, ".example")
		keepAnswer(t, s, name, typeA, codeOK, 3600, aRecord(name, typeA, 3600, 192, 0, 2, 1))
		queries = append(queries, message(name, typeA, 0))
	}
	var m scratch
	i := 0
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		i++
		answer, _ := s.take(queries[i%len(queries)], someone, false, &m)
		require.NotNil(t, answer)
	}))
}
