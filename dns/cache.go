package dns

import (
	"container/list"
	"time"
)

// entryCost is about what an entry takes besides its message and its key, in bytes.
const entryCost = 256

// cache keeps answers, at most limit bytes of them: those that were used last.
type cache struct {
	limit, used int
	entries     map[string]*list.Element // of *entry
	order       list.List                // the one that was used last first
}

type entry struct {
	key string
	answer
	at time.Time // when it came
}

func (e *entry) cost() int { return len(e.key) + cap(e.message) + entryCost }

// get returns an answer that still holds, and its age in seconds.
func (c *cache) get(key string, now time.Time, most uint32) (answer, uint32, bool) {
	e := c.entries[key]
	if e == nil {
		return answer{}, 0, false
	}
	kept := e.Value.(*entry)
	age := uint32(max(0, now.Sub(kept.at)) / time.Second)
	if age >= min(kept.seconds, most) {
		c.remove(e)
		return answer{}, 0, false
	}
	c.order.MoveToFront(e)
	return kept.answer, age, true
}

// put keeps an answer. One that takes more than an eighth of all would drive out too many.
func (c *cache) put(key string, a answer, now time.Time) {
	if e := c.entries[key]; e != nil {
		c.remove(e)
	}
	e := &entry{key, a, now}
	if a.seconds == 0 || e.cost() > c.limit/8 {
		return
	}
	if c.entries == nil {
		c.entries = map[string]*list.Element{}
	}
	c.entries[key] = c.order.PushFront(e)
	c.used += e.cost()
	c.shrink()
}

// shrink removes what is too much.
func (c *cache) shrink() {
	for c.used > c.limit {
		c.remove(c.order.Back())
	}
}

func (c *cache) remove(e *list.Element) {
	kept := c.order.Remove(e).(*entry)
	delete(c.entries, kept.key)
	c.used -= kept.cost()
}
