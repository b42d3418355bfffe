package api

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/netcfg"
)

// ping is what PID 1 does for a ping: it answers as package ping does, one in three not at all.
func (s *fakeSession) ping(out func(string) error, arguments []console.Argument) error {
	requests := live
	requests.Requests = []console.Request{console.Ping}
	result, err := console.Do(s.config, requests, "", "ping", arguments...)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.pings++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pings--
	}()
	for i := 0; result.Ping.Count == 0 || i < result.Ping.Count; i++ {
		line := fmt.Sprintf("seq=%d;host=10.0.0.1;size=64;ttl=63;time=1ms2us;sent=%d;received=%d;packet-loss=0\n", i, i+1, i+1)
		if i%3 == 2 {
			line = fmt.Sprintf("seq=%d;host=10.0.0.1;status=net unreachable;sent=%d;received=%d;packet-loss=33\n", i, i+1, i)
		}
		for _, part := range []string{line[:7], line[7:]} { // it comes in pieces
			if err := out(part); err != nil {
				return err
			}
		}
		timer := time.NewTimer(result.Ping.Interval)
		select {
		case <-s.closed:
			timer.Stop()
			return net.ErrClosed
		case <-timer.C:
		}
	}
	return nil
}

func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t)
		p := r.login()
		assert.Equal(t, []string{
			"!re .tag=p =seq=0 =host=10.0.0.1 =size=64 =ttl=63 =time=1ms2us =sent=1 =received=1 =packet-loss=0",
			"!re .tag=p =seq=1 =host=10.0.0.1 =size=64 =ttl=63 =time=1ms2us =sent=2 =received=2 =packet-loss=0",
			"!re .tag=p =seq=2 =host=10.0.0.1 =status=net unreachable =sent=3 =received=2 =packet-loss=33",
			"!done .tag=p",
		}, p.ask("/ping", "=address=10.0.0.1", "=count=3", ".tag=p"))
		assert.Equal(t, []string{"!re =seq=0 =time=1ms2us", "!done"}, p.ask("/tool/ping", "=address=10.0.0.1", "=count=1", "=.proplist=seq,time"))
		for _, c := range []struct {
			words []string
			want  string
		}{
			{[]string{"/ping", "=count=1"}, "!trap =category=1 =message=missing value(s) of argument(s) address"},
			{[]string{"/ping", "=address=10.0.0.1", "=count=x"}, "!trap =category=1 =message=invalid value for argument count; expected integer: 0..65535, not \"x\""},
			{[]string{"/ping", "=address=10.0.0.1", "=count=1", "=arp-ping=yes"}, "!trap =category=1 =message=unknown parameter arp-ping; expected one of address, count, interval, size, src-address, interface, ttl"},
			{[]string{"/ip/ping", "=address=10.0.0.1", "=count=1"}, "!trap =category=0 =message=no such command"},
		} {
			assert.Equal(t, []string{c.want, "!done"}, p.ask(c.words...))
		}

		// Without a count it goes on until it is cancelled, and keeps nothing else from running.
		p.send("/ping", "=address=10.0.0.1", ".tag=e")
		p.expect("!re .tag=e =seq=0 =host=10.0.0.1 =size=64 =ttl=63 =time=1ms2us =sent=1 =received=1 =packet-loss=0")
		assert.Equal(t, []string{"!re =name=postern", "!done"}, p.ask("/system/identity/print"))
		assert.Equal(t, []string{"!trap .tag=f =category=4 =message=failure: this connection has a ping already", "!done .tag=f"},
			p.ask("/ping", "=address=10.0.0.2", "=count=1", ".tag=f"))
		p.send("/cancel", "=tag=e")
		got := map[string]bool{}
		for range 3 {
			got[p.receive()] = true
		}
		assert.Equal(t, map[string]bool{"!trap .tag=e =category=2 =message=interrupted": true, "!done .tag=e": true, "!done": true}, got)
		synctest.Wait()
		r.mu.Lock()
		assert.Zero(t, r.pings)
		r.mu.Unlock()

		// It ends when the client goes: one that goes on, and one that would be long over by itself otherwise.
		for _, words := range [][]string{{"/ping", "=address=10.0.0.1"}, {"/ping", "=address=10.0.0.1", "=count=60000"}} {
			r := newRouter(t)
			p := r.login()
			p.send(words...)
			p.expect("!re =seq=0 =host=10.0.0.1 =size=64 =ttl=63 =time=1ms2us =sent=1 =received=1 =packet-loss=0")
			p.conn.Close()
			p.wait()
			r.mu.Lock()
			assert.Zero(t, r.pings)
			r.mu.Unlock()
		}
	})
}

// A ping for REST needs an end.
func TestRunPing(t *testing.T) {
	r := newRouter(t)
	session, err := account{r}.Session()
	require.NoError(t, err)
	defer session.Close()
	arguments := []console.Argument{{Name: "address", Value: "10.0.0.1"}, {Name: "interval", Value: "10ms"}}
	rows := 0
	each := func(_ console.ID, row []Pair) error {
		assert.Equal(t, Pair{"seq", fmt.Sprint(rows)}, row[0])
		rows++
		return nil
	}
	_, _, err = Run(t.Context(), session, "", "ping", append(arguments, console.Argument{Name: "count", Value: "2"}), nil, each)
	require.NoError(t, err)
	assert.Equal(t, 2, rows)
	_, _, err = Run(t.Context(), session, "", "ping", arguments, nil, each)
	require.EqualError(t, err, "failure: the command goes on until it is cancelled; expected count, duration, once, or a print")
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err = Run(ctx, session, "tool", "ping", append(arguments, console.Argument{Name: "count", Value: "60000"}), nil,
		func(console.ID, []Pair) error { cancel(); return nil })
	require.ErrorIs(t, err, context.Canceled)
}

func TestMonitorTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		old := live.Links
		defer func() { live.Links = old }()
		live.Links = func() ([]netcfg.LinkState, error) {
			s := uint64(time.Since(began) / time.Second)
			return []netcfg.LinkState{
				{Name: "ether1", Type: netcfg.Ether, Present: true, RxBytes: 5_000_000_000 + 1000*s, RxPackets: 7 * s, TxBytes: 50 * s, TxPackets: s},
				{Name: "ether2", Type: netcfg.Ether, Present: true, RxBytes: 1000 - min(1000, 100*s)},
			}, nil
		}
		p := newRouter(t).login()
		const first = "=name=ether1 =rx-packets-per-second=7 =rx-bits-per-second=8000 =tx-packets-per-second=1 =tx-bits-per-second=400"
		assert.Equal(t, []string{"!re " + first, "!done"}, p.ask("/interface/monitor-traffic", "=interface=ether1", "=once="))
		// A counter that goes back counts anew.
		assert.Equal(t, []string{
			"!re =name=ether1 =rx-bits-per-second=8000 =.section=0", "!re =name=ether2 =rx-bits-per-second=2800 =.section=0",
			"!re =name=ether1 =rx-bits-per-second=8000 =.section=1", "!re =name=ether2 =rx-bits-per-second=2000 =.section=1", "!done",
		}, p.ask("/interface/monitor-traffic", "=interface=ether1,ether2", "=interval=2s", "=duration=4s", "=.proplist=name,rx-bits-per-second"))
		assert.Len(t, p.ask("/interface/monitor-traffic", "=interface=ether1", "=.id=ether2", "=once="), 3, "all that are named")
		p.send("/interface/monitor-traffic", "=.id=ether1", ".tag=m")
		p.expect("!re .tag=m "+first+" =.section=0", "!re .tag=m "+first+" =.section=1")
		p.send("/cancel")
		replies := []string{p.receive(), p.receive(), p.receive()}
		assert.Contains(t, replies, "!trap .tag=m =category=2 =message=interrupted")
		for words, want := range map[string]string{
			"=once=":                     "missing value(s) of argument(s) interface",
			"=interface=ether9 =once=":   "no such item",
			"=interface=ether1 =x=":      "unknown parameter x",
			"=interface=0 =interval=1ms": "value of interval out of range (1s..1m)",
			"=interface=0 =interval=61s": "value of interval out of range (1s..1m)",
		} {
			got := p.ask(append([]string{"/interface/monitor-traffic", "=duration=1s"}, strings.Fields(words)...)...)
			require.Len(t, got, 2, words)
			assert.Contains(t, got[0], want)
		}
	})
}
