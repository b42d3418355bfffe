package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-router/postern/resolve"
	"github.com/postern-router/postern/service"
)

const (
	// maxAnswer is how many bytes of an answer over UDP are read: servers are asked for safeSize at
	// most.
	maxAnswer = 2048
	// maxLarge is how many answers can be on their way over TCP at once: each can have 64 KiB.
	maxLarge = 4
	// patience is how long one server is waited for before the next is asked besides: a dead one
	// costs the client no more than that, and a slow one may still answer.
	patience = 500 * time.Millisecond
	// maxBesides is how many such further questions there can be at once.
	maxBesides = 32
)

var errNoServer = errors.New("no server answers")

// exchangeAny asks servers in turn, beginning with the first, until one knows: the next one when one
// fails, or says nothing for a moment. It returns the one to begin with next time, the first that was
// alive; -1 if none was. The error wraps resolve.ErrNoServers if there are none.
func (s *server) exchangeAny(ctx context.Context, q *query, servers []netip.Addr, first int, c Config) (answer, int, error) {
	if len(servers) == 0 {
		return answer{}, -1, resolve.ErrNoServers
	}
	ctx, cancel := service.WithTimeout(ctx, c.TotalTimeout)
	defer cancel()
	type result struct {
		server int
		answer
		err error
	}
	var ask []int // servers, in this order
	for i := range servers {
		ask = append(ask, (first+i)%len(servers))
	}
	var second answer // of a server that lives, but does not know, or cannot say all
	alive, running := -1, 0
	results := make(chan result)
	next := time.NewTimer(0)
	defer next.Stop()
	for len(ask) > 0 || running > 0 {
		select {
		case <-next.C:
			next.Reset(patience)
			if len(ask) == 0 {
				continue
			}
			besides := running > 0
			if besides {
				select {
				case s.besides <- struct{}{}:
				default:
					continue
				}
			}
			n := ask[0]
			ask = ask[1:]
			running++
			s.work.Go(func() {
				a, err := s.exchange(ctx, q, servers[n], c.ServerTimeout)
				if besides {
					<-s.besides
				}
				select {
				case results <- result{n, a, err}:
				case <-ctx.Done():
				}
			})
		case r := <-results:
			running--
			switch {
			case errors.Is(r.err, service.ErrTimeout) && second.message == nil:
				ask = append(ask, r.server) // the message may be lost
			case r.err != nil: // a host that says that it is no server is not asked again
			default:
				if alive < 0 {
					alive = r.server
				}
				if !r.truncated && (r.code == codeOK || r.code == codeNoName) {
					return r.answer, alive, nil
				}
				if second.message == nil || r.truncated {
					second = r.answer
				}
			}
			next.Reset(0)
		case <-ctx.Done():
			ask, running = nil, 0
		}
	}
	if second.message == nil {
		return answer{}, -1, errNoServer
	}
	return second, alive, nil
}

// exchange asks one server: over UDP, and over TCP if the answer is too large for that. If the latter
// fails it returns the truncated answer.
func (s *server) exchange(ctx context.Context, q *query, to netip.Addr, limit time.Duration) (answer, error) {
	ctx, cancel := service.WithTimeout(ctx, limit)
	defer cancel()
	a, err := s.exchangeBy(ctx, "udp", q, to)
	if err == nil && q.edns && !a.edns && (a.code == codeFormat || a.code == codeNotImplemented) {
		plain := *q // without what it may not understand (RFC 6891, section 6.2.2)
		plain.edns = false
		q = &plain
		a, err = s.exchangeBy(ctx, "udp", q, to)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // not that the socket was closed because of that
	}
	if err != nil || !a.truncated {
		return a, err
	}
	select {
	case s.large <- struct{}{}:
	case <-ctx.Done():
		return a, nil
	}
	defer func() { <-s.large }()
	if whole, err := s.exchangeBy(ctx, "tcp", q, to); err == nil && !whole.truncated {
		return whole, nil
	}
	return a, nil
}

// exchangeBy asks over one protocol.
func (s *server) exchangeBy(ctx context.Context, network string, q *query, to netip.Addr) (a answer, err error) {
	var random [2]byte
	rand.Read(random[:])
	id := binary.BigEndian.Uint16(random[:])
	message, server := q.ask(id), netip.AddrPortFrom(to, s.port)
	ok := false
	take := func(b []byte) bool {
		a, ok = parseAnswer(b, q, id)
		return ok
	}
	if network == "udp" {
		err = resolve.AskUDP(ctx, server, message, maxAnswer, take)
		a.message = slices.Clone(a.message)
		return a, err
	}
	b, err := resolve.AskTCP(ctx, server, message, math.MaxUint16)
	if err == nil && !take(b) {
		err = errMalformed
	}
	return a, err
}
