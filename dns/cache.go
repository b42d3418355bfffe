package dns

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"time"
)

// cache keeps answers, at most limit bytes of them. They lie packed one behind the other in chunks, which hold
// no pointers: the collector has nothing to look for in them, and an answer takes little more than its bytes.
// When there is no more room the oldest chunk becomes the newest: of its answers those stay that were asked for
// since they were put into it, if they are not more than half of it.
type cache struct {
	limit int
	// chunks are in order of their age, each of chunkSize. The first has the number first, which goes round.
	chunks [][]byte
	first  uint16
	// index has the place of the answer to a key by the hash of that: the number of its chunk, and its
	// offset there in the lower half. Of two keys with one hash, which chance may bring, one is kept.
	index map[uint32]uint32
	seed  maphash.Seed
	epoch time.Time
}

const (
	// maxChunk is the size of a chunk, but in a small cache.
	maxChunk = 16 << 10
	// indexCost is about what an answer takes in the index, in bytes.
	indexCost = 16

	// What is ahead of an answer in its chunk: when it came, in seconds of epoch, for how many seconds it holds, the
	// size of the message, the code, flags. The message follows; its question has the name, type and class of the key, in lower case.
	atWhen, atSeconds, atSize, atCode, atFlags, entryHeader = 0, 4, 8, 10, 12, 13

	flagUsed, flagTruncated, flagEDNS = 1, 2, 4
	keyBits                           = 3 // to the left: the rest of the key
)

// entry is an answer in a chunk, with what is ahead of it, to the end of the chunk.
type entry []byte

func (e entry) size() int       { return entryHeader + int(binary.BigEndian.Uint16(e[atSize:])) }
func (e entry) seconds() uint32 { return binary.BigEndian.Uint32(e[atSeconds:]) }

// message is the chunk's: it changes when the caller lets go of the cache.
func (e entry) message() []byte { return e[entryHeader:e.size()] }

// key is what query.appendKey makes of the entry's question, in the memory of b.
func (e entry) key(b *[maxKey]byte) []byte {
	m := e.message()
	name, end, ok := appendNameAt(b[keyHead:keyHead], m, headerSize)
	if !ok || len(m) < end+4 {
		return nil
	}
	copy(b[:], m[end:end+4])
	b[keyHead-1] = e[atFlags] >> keyBits
	return b[:keyHead+len(name)]
}

// answers reports whether key is that of the entry. It is what key says, sooner.
func (e entry) answers(key []byte) bool {
	m, name, at := e.message(), key[keyHead:], headerSize
	for at < len(m) && m[at] != 0 {
		n := int(m[at])
		if at++; n > len(name) || n > len(m)-at || string(m[at:at+n]) != string(name[:n]) {
			return false
		}
		at, name = at+n, name[n:]
		if len(name) > 0 {
			if name[0] != '.' {
				return false
			}
			name = name[1:]
		}
	}
	return len(name) == 0 && len(m)-at > 4 && string(m[at+1:at+5]) == string(key[:4]) && e[atFlags]>>keyBits == key[keyHead-1]
}

// age is how many seconds ago the answer came to a cache of that epoch.
func (e entry) age(epoch, now time.Time) uint32 {
	return max(since(epoch, now), binary.BigEndian.Uint32(e[atWhen:])) - binary.BigEndian.Uint32(e[atWhen:])
}

// since is how many whole seconds of epoch are over.
func since(epoch, now time.Time) uint32 { return uint32(max(0, now.Sub(epoch)) / time.Second) }

func (c *cache) hash(key []byte) uint32 { return uint32(maphash.Bytes(c.seed, key)) }

// at returns what is at a place.
func (c *cache) at(place uint32) entry {
	return c.chunks[uint16(place>>16)-c.first][uint16(place):]
}

// used is how many bytes the answers take.
func (c *cache) used() int {
	n := len(c.index) * indexCost
	for _, chunk := range c.chunks {
		n += len(chunk)
	}
	return n
}

// get returns an answer that still holds, and its age in seconds. Its message is the cache's: it changes
// when the caller lets go of that.
func (c *cache) get(key []byte, now time.Time, most uint32) (a answer, age uint32, ok bool) {
	if c.index == nil {
		return a, 0, false
	}
	h := c.hash(key)
	place, ok := c.index[h]
	if !ok {
		return a, 0, false
	}
	e := c.at(place)
	if !e.answers(key) {
		return a, 0, false
	}
	if age = e.age(c.epoch, now); age >= min(e.seconds(), most) {
		delete(c.index, h)
		return a, 0, false
	}
	e[atFlags] |= flagUsed
	return answer{message: e.message(), code: int(binary.BigEndian.Uint16(e[atCode:])), seconds: e.seconds(),
		truncated: e[atFlags]&flagTruncated != 0, edns: e[atFlags]&flagEDNS != 0}, age, true
}

// put keeps a copy of an answer, whose question is that of the key. One that is larger than a chunk would drive out too many.
func (c *cache) put(key []byte, a answer, now time.Time) {
	if c.index == nil {
		c.index, c.seed, c.epoch = map[uint32]uint32{}, maphash.MakeSeed(), now
	}
	h := c.hash(key)
	delete(c.index, h)
	n := entryHeader + len(a.message)
	if a.seconds == 0 || n+indexCost > c.chunkSize() {
		return
	}
	var header [entryHeader]byte
	binary.BigEndian.PutUint32(header[atWhen:], since(c.epoch, now))
	binary.BigEndian.PutUint32(header[atSeconds:], a.seconds)
	binary.BigEndian.PutUint16(header[atSize:], uint16(len(a.message)))
	binary.BigEndian.PutUint16(header[atCode:], uint16(a.code))
	header[atFlags] = key[keyHead-1] << keyBits
	if a.truncated {
		header[atFlags] |= flagTruncated
	}
	if a.edns {
		header[atFlags] |= flagEDNS
	}
	place := c.room(n, now)
	last := &c.chunks[len(c.chunks)-1]
	*last = append(append(*last, header[:]...), a.message...)
	e := c.at(place)
	name := e.message()
	for i := headerSize; i < min(len(name), headerSize+1+len(key)-keyHead); i++ {
		if c := name[i]; 'A' <= c && c <= 'Z' { // no length of a label is
			name[i] = c + 'a' - 'A'
		}
	}
	if !e.answers(key) {
		*last = (*last)[:len(*last)-n] // the answer to another question
		return
	}
	c.index[h] = place
	for c.taken() > c.limit && len(c.chunks) > 1 { // the index has grown
		k := len(c.chunks) - 1
		into := c.chunks[k]
		into = c.retire(into, c.first+uint16(k), cap(into)-len(into), now)
		c.chunks[k-1] = into
	}
}

// chunkSize is an eighth of all in a small cache: more would go at once.
func (c *cache) chunkSize() int { return min(maxChunk, c.limit/8) }

// taken is how many bytes of the limit chunks and index take, with the room in the chunks that has no answer yet.
func (c *cache) taken() int { return len(c.chunks)*c.chunkSize() + len(c.index)*indexCost }

// room makes room for n bytes in the newest chunk, and returns their place.
func (c *cache) room(n int, now time.Time) uint32 {
	size := c.chunkSize()
	if k := len(c.chunks); k == 0 || size-len(c.chunks[k-1]) < n {
		if k == 0 || c.taken()+size <= c.limit {
			c.chunks = append(c.chunks, make([]byte, 0, size))
		} else {
			oldest := c.chunks[0]
			// retire changes c.chunks: it must have done so before append looks at them.
			newest := c.retire(oldest[:0], c.first+uint16(k), min(len(oldest)/2, size-n), now)
			c.chunks = append(c.chunks, newest)
		}
	}
	last := len(c.chunks) - 1
	return uint32(c.first+uint16(last))<<16 | uint32(len(c.chunks[last]))
}

// holds is the hash of the key of the answer at a place, and whether the index leads there: it does not to one that
// is over, or that has another in its place.
func (c *cache) holds(place uint32) (hash uint32, ok bool) {
	var key [maxKey]byte
	hash = c.hash(c.at(place).key(&key))
	there, ok := c.index[hash]
	return hash, ok && there == place
}

// retire takes the oldest chunk away. Of its answers those that were asked for since they were put into it are appended
// to the chunk into, the one with that number, at most room bytes of them; into may begin where the oldest chunk does.
func (c *cache) retire(into []byte, number uint16, room int, now time.Time) []byte {
	chunk := c.chunks[0]
	for at := 0; at < len(chunk); {
		e := entry(chunk[at:])
		n := e.size()
		if h, ok := c.holds(uint32(c.first)<<16 | uint32(at)); ok {
			if e[atFlags]&flagUsed != 0 && e.age(c.epoch, now) < e.seconds() && n <= room {
				room -= n
				e[atFlags] &^= flagUsed
				c.index[h] = uint32(number)<<16 | uint32(len(into))
				into = append(into, e[:n]...)
			} else {
				delete(c.index, h)
			}
		}
		at += n
	}
	c.chunks, c.first = slices.Delete(c.chunks, 0, 1), c.first+1
	return into
}

// end is the number behind that of the newest chunk.
func (c *cache) end() uint16 { return c.first + uint16(len(c.chunks)) }

// copyChunk copies the answers of the chunk with that number to b, in place of what is there, each with what is ahead of it.
// ok is false if there is no such chunk.
func (c *cache) copyChunk(number uint16, b []byte) (copied []byte, ok bool) {
	i := int(number - c.first)
	if b = b[:0]; i >= len(c.chunks) {
		return b, false
	}
	for at, chunk := 0, c.chunks[i]; at < len(chunk); {
		n := entry(chunk[at:]).size()
		if _, ok := c.holds(uint32(number)<<16 | uint32(at)); ok {
			b = append(b, chunk[at:at+n]...)
		}
		at += n
	}
	return b, true
}
