package socks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/resolve"
)

// TestRandomClients has clients of a few addresses ask for all there is, at once and for more than
// there are places and slots, and leave in every way at every time. In the end nothing of them is
// left in what bounds them, and none has ended twice (setup.stop).
func TestRandomClients(t *testing.T) {
	const workers, rounds, addresses = 24, 60, 3
	random := rand.New(rand.NewPCG(1, 2))
	silent := deaf(t)
	u := start(t, func(o *options) {
		withUDP(o)
		o.SocketMemory = 4 << 20
		o.limits.lookups, o.limits.openings = 6, 2
		o.cfg.MaxConnections = workers - 4
		o.cfg.Access = []Rule{rule(t, Allow, "127.0.0.2", "", "", ""), rule(t, Allow, "", "", "", "")}
		o.lookup = func(ctx context.Context, host string, _ resolve.Servers) ([]netip.Addr, error) {
			switch {
			case strings.HasPrefix(host, "slow"):
				<-ctx.Done()
				return nil, context.Cause(ctx)
			case strings.HasPrefix(host, "none"):
				return nil, resolve.ErrNotFound
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.1")}, nil
		}
		o.Open = func(ctx context.Context, o Opening, _ *os.File) (func(), error) {
			switch o.Local.Port() % 3 {
			case 0:
				<-ctx.Done()
				return nil, context.Cause(ctx)
			case 1:
				return nil, errors.New("not this one")
			}
			return func() {}, nil
		}
	})
	l := listen(t, "127.0.0.1")
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(time.Second / 10))
			go func() {
				defer c.Close()
				io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) // Go keeps the pipes of its own splice
			}()
		}
	}()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	requests := []func() string{
		func() string { return askName(commandConnect, fmt.Sprintf("slow%d.test", random.IntN(100)), 80) },
		func() string {
			return greeting + askName5(commandConnect, fmt.Sprintf("slow%d.test", random.IntN(8)), 80)
		},
		func() string { return askName(commandConnect, "none.test", 80) },
		func() string { return askName(commandConnect, "good.test", port) },
		func() string { return ask(commandConnect, l.Addr().String(), "user") },
		func() string { return greeting + ask5(commandConnect, silent) },
		func() string { return ask(commandBind, "127.0.0.9:21", "") },
		func() string { return greeting + askName5(commandBind, "good.test", 21) },
		func() string { return greeting + ask5(commandAssociate, anywhere) },
		func() string { return ask(commandConnect, l.Addr().String(), "user")[:5] },
	}
	// visit is what one client does.
	type visit struct {
		from, request string
		more          bool // sends something behind the request, and waits for what comes
		patience      time.Duration
		half, reset   bool // ends its side first; ends by a reset
	}
	next := func() visit {
		return visit{
			from:    fmt.Sprintf("127.0.0.%d", 2+random.IntN(addresses)),
			request: requests[random.IntN(len(requests))](),
			more:    random.IntN(3) == 0, patience: time.Duration(random.IntN(20)) * time.Millisecond,
			half: random.IntN(2) == 0, reset: random.IntN(2) == 0,
		}
	}
	var all sync.WaitGroup
	for range workers {
		var visits []visit
		for range rounds {
			visits = append(visits, next())
		}
		all.Go(func() {
			for _, v := range visits {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(v.from)}, Timeout: patience}
				dialed, err := d.Dial("tcp4", u.addr)
				if err != nil {
					continue // it was reset at once
				}
				c := dialed.(*net.TCPConn)
				// Whatever fails from here on: others may take its slot at any time.
				c.Write([]byte(v.request))
				if v.more {
					c.Write([]byte("more"))
				}
				if v.half {
					c.CloseWrite()
				}
				c.SetReadDeadline(time.Now().Add(v.patience))
				b := make([]byte, 64)
				for _, err := c.Read(b); err == nil && v.more; {
					_, err = c.Read(b)
				}
				if v.reset {
					c.SetLinger(0)
				}
				c.Close()
			}
		})
	}
	all.Wait()
	// Who has only closed is waited for, as it may have ended its side alone.
	u.Server.mu.Lock()
	for _, c := range u.conns {
		u.end(c, errRemoved)
	}
	u.Server.mu.Unlock()
	require.Eventually(t, func() bool {
		u.Server.mu.Lock()
		defer u.Server.mu.Unlock()
		return len(u.sources) == 0 && len(u.names.running) == 0 && len(u.openings.running) == 0
	}, patience, time.Millisecond, "something is left of clients that have gone")
	var hits uint64
	for _, n := range u.Hits() {
		hits += n
	}
	assert.Positive(t, hits)
}
