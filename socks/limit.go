package socks

import (
	"math"
	"time"
)

// What a user may move at once is what the limit allows in rateBurst, but leastBurst bytes at
// least. A direction that has used that up waits until a part in burstPart of it is there
// again, and those of all users together are looked at each rateTick at most.
const (
	rateBurst  = 250 * time.Millisecond
	leastBurst = 4096
	burstPart  = 4
	rateTick   = 20 * time.Millisecond
)

// bucket bounds what the connections of a user move in one direction (a token bucket). paid
// is the time by which the limit allows all that has moved.
type bucket struct{ paid time.Duration }

// fullBucket is the bucket of a user who has not moved anything.
var fullBucket = bucket{paid: math.MinInt64}

// lasts returns how long n bytes take at a rate in bits per second.
func lasts(n int, rate uint64) time.Duration {
	return time.Duration(uint64(n) * 8 * uint64(time.Second) / rate)
}

// burst returns how many bytes may move at once at that rate.
func burst(rate uint64) int {
	return max(int(rate/8*uint64(rateBurst)/uint64(time.Second)), leastBurst)
}

// credit returns how many bytes may move now. If they are too few to be worth a step, that is
// 0, and at is when there are enough.
func (b *bucket) credit(rate uint64, now time.Duration) (n int, at time.Duration) {
	most := burst(rate)
	b.paid = max(b.paid, now-lasts(most, rate))
	enough := b.paid + lasts(most/burstPart, rate)
	if now < enough {
		return 0, (enough + rateTick - 1).Truncate(rateTick)
	}
	return int(uint64(now-b.paid) * rate / 8 / uint64(time.Second)), 0
}

// spend counts n bytes that have moved, perhaps more than there was credit for.
func (b *bucket) spend(n int, rate uint64) { b.paid += lasts(n, rate) }

// bucket returns the bucket for f, a flow of c, or nil if the user of c has no limit.
func (c *conn) bucket(f *flow) *bucket {
	switch {
	case c.account == nil || c.account.RateLimit == 0:
		return nil
	case f == &c.tx:
		return &c.account.tx
	}
	return &c.account.rx
}

// unlimited is what a step may take of a flow without a limit, in bytes.
const unlimited = math.MaxInt

// credit returns how many bytes f, a flow of c, may move now. If it may move none, it is looked
// at again when it may.
func (s *Server) credit(c *conn, f *flow) int {
	b := c.bucket(f)
	if b == nil {
		return unlimited
	}
	n, at := b.credit(c.account.RateLimit, s.now)
	if n == 0 {
		s.checkAt = min(s.checkAt, at)
	}
	return n
}

// spend counts n bytes that f, a flow of c, has moved.
func (c *conn) spend(f *flow, n int) {
	if b := c.bucket(f); b != nil {
		b.spend(n, c.account.RateLimit)
	}
}
