package socks

import "time"

const (
	// longestWait is the most that the loop waits at a time while there are connections, so
	// that it notices when it has not run.
	longestWait = time.Second
	// lateness is how much later than it asked for the loop may go on before that is a stall.
	// A busy machine has it wait for some tenths of a second.
	lateness = time.Second
	// stallCredit is what a stall counts. It is not nothing, so that deadlines come also where
	// each wait is a stall.
	stallCredit = 10 * time.Millisecond
	// longestRetry is the longest that TCP waits until it sends again what was not acknowledged
	// (RFC 6298, section 2.5; TCP_RTO_MAX of Linux is 120 s).
	longestRetry = 2 * time.Minute
)

// clock is the time by which connections are judged. It leaves out the time in which this
// process did not run, because it was stopped or the machine stood still: what came from
// the peers meanwhile is seen first, and what was left of each deadline is left still.
type clock struct {
	// machine is the time since the server was made, by the machine's clock.
	machine func() time.Duration
	// seen is machine at the last tick, now what of it counts.
	seen, now time.Duration
	// asked is the most that the next tick may be later than the last: what the loop waits.
	asked time.Duration
	// stalled is how long the stalls were that excuseSilence has not seen yet.
	stalled time.Duration
}

func newClock() clock {
	start := time.Now()
	return clock{machine: func() time.Duration { return time.Since(start) }, asked: never}
}

// tick reads the clock.
func (c *clock) tick() {
	at := c.machine()
	passed := at - c.seen
	c.seen = at
	if passed-lateness > c.asked {
		c.stalled += passed
		passed = stallCredit
	}
	c.now += passed
}

// excuseSilence gives each connection the time in which its peers may be silent because of a
// stall that is over. Nobody acknowledged what they sent meanwhile, so they try again at growing
// intervals: they may now wait for as long as the stall was, and for twice that if the next try is
// lost too, as happens when all try at once.
func (s *Server) excuseSilence() {
	pause := min(s.stalled, longestRetry) + min(2*s.stalled, longestRetry)
	s.stalled = 0
	for _, c := range s.conns {
		c.last = min(c.last, s.now) + pause
	}
}

// heard says that c was not silent at a time of the clock. What a stall excuses stays excused: a few bytes that come at once, as they had
// been on their way, do not tell that the others' next try is over.
func (c *conn) heard(now time.Duration) { c.last = max(c.last, now) }
