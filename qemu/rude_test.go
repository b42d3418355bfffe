package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
)

// rudeTime is how long TestRudeClients lasts, unless rudeTimeVariable says otherwise: 10m, say.
const (
	rudeTime         = time.Minute
	rudeTimeVariable = "POSTERN_TEST_RUDE_TIME"

	// rudeAddresses is how many addresses the rude clients have.
	rudeAddresses = 4

	// rudeStay is how long a rude client waits for what does not come.
	rudeStay = 20 * time.Second

	// rudeFreeMemory is what must be free at each look, in MiB: 4 MB. In ten minutes on a quiet host it was 4.4, on a
	// busy host, where fewer get through, 8.9.
	rudeFreeMemory = 4e6 / (1 << 20)

	// rudeLate is how long an honest client is to wait at the most, without the time for which the host had the router or this
	// program wait. One of latePart may wait for longer.
	rudeLate = time.Second
	latePart = 20
)

// rudeness is one way to take more of the SOCKS service than one gives.
type rudeness struct {
	name string
	do   func(conn *net.TCPConn, version5 bool) error
	// stay is how long the connection is left alone then, at most.
	stay time.Duration
	// reset ends it by a reset.
	reset bool
}

// TestRudeClients has 500 connections at a time of some addresses, each of which tries to hold slots,
// lookups or memory by hanging up early, by version 4 or 5. A client at another address is served beside them, and the
// smallest board stays what it is.
func TestRudeClients(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	length := testTime(t, rudeTimeVariable, rudeTime)
	r, _, _ := startLoaded(t, func(*net.TCPConn) {})
	const echoPort, endPort = sourcePort + 30, sourcePort + 31
	at := func(host string, port int) netip.AddrPort {
		return netip.MustParseAddrPort(fmt.Sprintf("%s:%d", host, port))
	}
	serve := func(port int, do func(net.Conn)) {
		l, err := r.n.listen(serverOfSite, port)
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
		go serveAll(l, do)
	}
	serve(echoPort, func(conn net.Conn) { io.Copy(conn, conn) })
	// The end comes right behind more than the router holds.
	serve(endPort, func(conn net.Conn) { conn.Write(make([]byte, 600_000)) })
	// A name server that takes questions and says nothing.
	require.NoError(t, r.n.on(serverOfSite, func() error {
		silent, err := net.ListenPacket("udp4", serverAddress+":53")
		if err == nil {
			t.Cleanup(func() { silent.Close() })
		}
		return err
	}))
	r.command(t, "/ip dns set servers="+serverAddress)
	assert.Empty(t, r.command(t, "/ip socks set version=5"))
	rude := []string{clientAddress}
	for i := range rudeAddresses - 1 {
		address := fmt.Sprintf("192.168.0.%d", 20+i)
		require.NoError(t, r.n[client].IP("addr add "+address+"/24 dev eth0"))
		rude = append(rude, address)
	}

	var names atomic.Int64
	askName := func(conn *net.TCPConn, version5 bool) error {
		name := fmt.Sprintf("x%d.test", names.Add(1))
		request := "\x04\x01\x04\x00\x00\x00\x00\x01\x00" + name + "\x00"
		if version5 {
			request = "\x05\x01\x00" + "\x05\x01\x00\x03" + string([]byte{byte(len(name))}) + name + "\x04\x00"
		}
		_, err := io.WriteString(conn, request)
		return err
	}
	kinds := []rudeness{
		{name: "a silent name", do: askName, stay: rudeStay},
		{name: "a silent name, and a reset", do: askName, stay: 3 * time.Millisecond, reset: true},
		{name: "what it does not read", do: func(conn *net.TCPConn, version5 bool) error {
			ask := requestSOCKSWithin
			if version5 {
				ask = requestSOCKS5Within
			}
			if reply, err := ask(conn, commandConnect, at(serverAddress, endPort), rudeStay); err != nil || reply.code != granted {
				return fmt.Errorf("reply %d: %w", reply.code, err)
			}
			return conn.CloseWrite()
		}, stay: rudeStay, reset: true},
		{name: "leaving during CONNECT", do: func(conn *net.TCPConn, version5 bool) error {
			request := []byte{4, commandConnect, 8, 0, 10, 1, 0, 200, 0} // nobody has 10.1.0.200
			if version5 {
				request = []byte{5, 1, 0, 5, commandConnect, 0, 1, 10, 1, 0, 200, 8, 0}
			}
			_, err := conn.Write(request)
			return err
		}},
		{name: "half a request", do: func(conn *net.TCPConn, version5 bool) error {
			request := []byte{4, commandConnect, 8}
			if version5 {
				request = []byte{5, 1, 0, 5, commandConnect, 0}
			}
			_, err := conn.Write(request)
			return err
		}, stay: rudeStay},
	}
	var done [5]atomic.Int64
	stop := make(chan struct{})
	var running sync.WaitGroup
	ended := sync.OnceFunc(func() {
		close(stop)
		running.Wait()
	})
	t.Cleanup(ended)
	for range slowStreams {
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := r.dialSlowFrom(rude[rand.IntN(len(rude))], slowWindow, rudeStay)
				if err != nil {
					continue
				}
				k := rand.IntN(len(kinds))
				if kinds[k].do(conn, rand.IntN(2) == 0) == nil {
					done[k].Add(1)
				}
				select {
				case <-stop:
				case <-time.After(kinds[k].stay):
				}
				if kinds[k].reset {
					conn.SetLinger(0)
				}
				conn.Close()
			}
		})
	}

	lowest, _ := r.freeMemory(t)
	waited := func() time.Duration { return r.m.waited(t) + waitedOf(t, os.Getpid()) }
	var times, work []time.Duration
	late := 0 // how often the router was
	for start, look := time.Now(), time.Now(); time.Since(start) < length; time.Sleep(time.Second) {
		worked, err := r.m.processorTime()
		require.NoError(t, err)
		hostWaited := waited()
		begin := time.Now()
		var conn net.Conn
		require.NoError(t, retry(func() (err error) { // on a busy host the router may not even answer ARP in time
			conn, err = r.n.dial(other, socksAddress, patience)
			return err
		}), "after %v", time.Since(start))
		dialed := time.Since(begin)
		reply, err := requestSOCKS(conn, commandConnect, at(serverAddress, echoPort))
		require.NoError(t, err, "after %v", time.Since(start))
		replied := time.Since(begin)
		require.EqualValues(t, granted, reply.code, "after %v", time.Since(start)) // a test that fails prints the log
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		_, err = conn.Write([]byte("honest"))
		require.NoError(t, err)
		_, err = io.ReadFull(conn, make([]byte, 6))
		require.NoError(t, err)
		took := time.Since(begin)
		workedThen, err := r.m.processorTime()
		require.NoError(t, err)
		hostWaited = max(0, waited()-hostWaited) // what threads waited that have ended is not in it any more
		times, work = append(times, took), append(work, workedThen-worked)
		if took > rudeLate {
			t.Logf("%4.0f s: served in %v: connected after %v, granted after %v; the router ran for %v of it, and the host had programs wait for %v", begin.Sub(start).Seconds(),
				took.Round(time.Millisecond), dialed.Round(time.Millisecond), replied.Round(time.Millisecond), (workedThen - worked).Round(time.Millisecond), hostWaited.Round(time.Millisecond))
		}
		if took-hostWaited > rudeLate && workedThen-worked > rudeLate {
			late++
		}
		conn.Close()
		if time.Since(look) > slowLook {
			look = time.Now()
			free, took := r.freeMemory(t)
			lowest = min(lowest, free)
			tracked, err := find(r.command(t, "/ip firewall connection tracking print"), `total-entries: (\d+)`)
			require.NoError(t, err)
			t.Logf("%4.0f s: free %.1f MiB (least %.1f), %s connections tracked, the console answers in %v; served %d times, the last in %v",
				time.Since(start).Seconds(), free, lowest, tracked, took.Round(time.Millisecond), len(times), times[len(times)-1].Round(time.Millisecond))
			require.Less(t, took, slowAnswer, "time that the console took")
		}
	}
	ended()
	slices.Sort(times)
	longer, _ := slices.BinarySearch(times, rudeLate+1)
	slices.Sort(work)
	t.Logf("the honest client was served %d times: in %v at the median, %v at the most, %d times in more than a second, %d times for the router's own sake; the router ran for %v of it at the median, %v at the most; least free memory %.1f MiB",
		len(times), times[len(times)/2].Round(time.Millisecond), times[len(times)-1].Round(time.Millisecond), len(times)-longer, late,
		work[len(work)/2].Round(time.Millisecond), work[len(work)-1].Round(time.Millisecond), lowest)
	for k := range kinds {
		t.Logf("%d times %s", done[k].Load(), kinds[k].name)
		assert.Positive(t, done[k].Load(), kinds[k].name)
	}
	assert.LessOrEqual(t, late, 1+len(times)/latePart, "times that the router kept an honest client waiting for more than %v", rudeLate)
	assert.GreaterOrEqual(t, lowest, rudeFreeMemory, "MiB of free memory")
	assert.NotRegexp(t, `(?i)out of memory|oom|page allocation failure|table full|socksd.*(ended|exit|restart)`, r.m.screen.all())
	require.NoError(t, retry(func() error {
		if n, err := r.connections(t); err != nil || n != 0 {
			return fmt.Errorf("%d connections after all were closed: %w", n, err)
		}
		return nil
	}))
}
