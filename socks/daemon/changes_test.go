package daemon

import (
	"context"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/socks"
)

// TestFirewallRests has a socksd open and close as fast as it can. However long a change takes, PID
// 1 spends a quarter of the time with it, and one change after a pause begins at once.
func TestFirewallRests(t *testing.T) {
	const rounds = 100
	for _, c := range []struct {
		name            string
		takes, shortest time.Duration // a change, and the shortest time in which all rounds may be done
	}{
		{"a fast machine", time.Millisecond, 2 * rounds * 4 * time.Millisecond},
		{"malta", 50 * time.Millisecond, 2 * rounds * 200 * time.Millisecond},
		{"another program has the lock of xtables", 5 * time.Second, 2 * rounds * (5*time.Second + longestRest)},
	} {
		t.Run(c.name, func(t *testing.T) {
			var now, busy, slept atomic.Int64 // nanoseconds
			pass := func(d time.Duration, sum *atomic.Int64) { now.Add(int64(d)); sum.Add(int64(d)) }
			var client *Client
			parent, child, err := service.LinkPair(t.Context(), Spec, func(l *service.Link) service.Handler {
				client = NewClient(l, func(_, _ []socks.Opening) error {
					pass(c.takes, &busy)
					return nil
				})
				client.clock = func() time.Duration { return time.Duration(now.Load()) }
				client.sleep = func(_ context.Context, d time.Duration) { pass(d, &slept) }
				return client.Handle
			}, func(context.Context, *service.Request) ([]byte, error) { return nil, nil })
			require.NoError(t, err)
			defer func() { child.Close(); <-parent.Done(); <-child.Done() }()
			local, _, port := listen(t)
			o := socks.Opening{
				Peer:  netip.IPv4Unspecified(),
				Local: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port),
			}
			require.NoError(t, change(t, child, nil, []socks.Opening{o}, local)[0])
			require.Zero(t, slept.Load())
			change(t, child, []socks.Opening{o}, nil)
			now.Add(int64(longestRest))
			slept.Store(0)
			begin := now.Load()
			for i := range rounds {
				require.NoError(t, change(t, child, nil, []socks.Opening{o}, local)[0])
				if i == 0 {
					require.Zero(t, slept.Load(), "there was a pause")
				}
				change(t, child, []socks.Opening{o}, nil)
				change(t, child, []socks.Opening{o}, nil) // costs nothing: it is not open
			}
			assert.Equal(t, time.Duration(2*rounds+2)*c.takes, time.Duration(busy.Load()))
			assert.GreaterOrEqual(t, time.Duration(now.Load()-begin)+longestRest, c.shortest)
		})
	}
}

// TestChangesTogether has many openings and closings wait for one request: they go with the next
// ones, all closings and eight openings in each. Who leaves before costs no request.
func TestChangesTogether(t *testing.T) {
	type request struct{ closed, opened int }
	var requests []request
	began, answer := make(chan struct{}), make(chan struct{})
	c := changes{
		logf: t.Logf,
		call: func(_ context.Context, body []byte, decode func(*service.Decoder), files ...*os.File) error {
			began <- struct{}{}
			<-answer
			d := service.NewDecoder(body)
			closed, opened := decodeOpenings(d, closingsAtOnce), decodeOpenings(d, openingsAtOnce)
			requests = append(requests, request{len(closed), len(opened)})
			var reply service.Encoder
			encodeFailures(&reply, make([]error, len(opened)))
			decode(service.NewDecoder(reply.Bytes()))
			return d.End()
		},
	}
	opening := func(port int) socks.Opening {
		return socks.Opening{Peer: netip.IPv4Unspecified(), Local: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port))}
	}
	waiting := func(opened, closed int) {
		require.Eventually(t, func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.opened) == opened && len(c.closed) == closed
		}, patience, time.Millisecond)
	}
	var clients sync.WaitGroup
	defer clients.Wait()
	undo := make(chan func(), 100)
	open := func(ctx context.Context, port int) {
		clients.Go(func() {
			u, err := c.open(ctx, opening(port), nil)
			if assert.NoError(t, err) {
				undo <- u
			}
		})
	}
	open(t.Context(), 1)
	<-began
	for n := range 2*openingsAtOnce + 1 {
		open(t.Context(), 2+n)
	}
	waiting(2*openingsAtOnce+1, 0)
	gone, leave := context.WithCancel(t.Context())
	for n := range 20 {
		clients.Go(func() {
			_, err := c.open(gone, opening(100+n), nil)
			assert.ErrorIs(t, err, context.Canceled)
		})
	}
	waiting(2*openingsAtOnce+21, 0)
	leave()
	waiting(2*openingsAtOnce+1, 0)
	answer <- struct{}{}
	<-began
	(<-undo)()
	answer <- struct{}{}
	<-began
	for range openingsAtOnce {
		(<-undo)()
	}
	answer <- struct{}{}
	<-began
	answer <- struct{}{}
	require.Eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return !c.asking
	}, patience, time.Millisecond)
	assert.Equal(t, []request{{0, 1}, {0, openingsAtOnce}, {1, openingsAtOnce}, {openingsAtOnce, 1}}, requests)
}
