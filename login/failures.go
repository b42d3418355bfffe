package login

import (
	"net/netip"
	"time"
)

const (
	// someFailures is up to how many failures an address is of rank 1: a person mistypes, and a browser opens a connection in vain.
	someFailures = 5
	// maxFailed is how many addresses are remembered, and forgetTime for how long after the last failure.
	maxFailed  = 128
	forgetTime = 10 * time.Minute
)

// Rank is how somebody is served who has failed that often lately to log in, where there is no place for all: 0, without a failure,
// goes before 1, and that before 2, with which one has failed too often to have mistyped.
func Rank(failures int) int {
	switch {
	case failures == 0:
		return 0
	case failures <= someFailures:
		return 1
	}
	return 2
}

// failures are how often addresses have failed lately to log in.
type failures map[netip.Addr]failed

type failed struct {
	count int
	last  time.Time
}

// add counts a failure. Where there are too many addresses, that of the oldest is forgotten.
func (f failures) add(from netip.Addr) {
	r := f[from]
	if time.Since(r.last) > forgetTime {
		r.count = 0
	}
	if r.last.IsZero() && len(f) >= maxFailed {
		var oldest netip.Addr
		for other, o := range f {
			if !oldest.IsValid() || o.last.Before(f[oldest].last) {
				oldest = other
			}
		}
		delete(f, oldest)
	}
	f[from] = failed{r.count + 1, time.Now()}
}

// rank is that of an address.
func (f failures) rank(from netip.Addr) int {
	r, ok := f[from]
	if !ok || time.Since(r.last) > forgetTime {
		return 0
	}
	return Rank(r.count)
}
