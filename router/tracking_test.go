package router

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/firewall"
)

// fakeTable is a kernel's table of connections.
type fakeTable struct {
	mu      sync.Mutex
	entries int
	hosts   []firewall.Trimmed // who loses at the next trim
	limits  []int              // of all trims
	err     error              // of all but trims
	trimErr error
	false   uint64
	set     []firewall.Tracking
}

func (f *fakeTable) change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func watchedTable(t *testing.T) (*fakeTable, *trackingService, func() string) {
	log, said := testLog(t)
	f := &fakeTable{}
	s := newTrackingService(log.About("firewall"))
	s.set = func(c firewall.Tracking) error { f.set = append(f.set, c); return f.err }
	s.size = func() (int, int, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.entries, 4096, f.err
	}
	s.trim = func(limit int, own []netip.Addr) ([]firewall.Trimmed, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.limits = append(f.limits, limit)
		if f.trimErr == nil {
			f.entries = limit
		}
		return f.hosts, f.trimErr
	}
	s.falseSources = func() (uint64, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.false, nil
	}
	return f, s, said
}

func TestTrackingSettings(t *testing.T) {
	f, s, _ := watchedTable(t)
	c := console.Default()
	f.err = errFake
	require.ErrorIs(t, s.Apply(c), errFake)
	s.Stop() // nothing runs yet
	f.err = nil
	require.NoError(t, s.Apply(c))
	require.NoError(t, s.Apply(c))
	assert.Len(t, f.set, 2, "what is the same is not set again")
	c.Tracking.Strict = true
	require.NoError(t, s.Apply(c))
	assert.True(t, f.set[2].Strict)
	s.Stop()
}

func TestTableIsKeptFromFilling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s, said := watchedTable(t)
		require.NoError(t, s.Apply(console.Default()))
		defer s.Stop()
		lines := func(word string) int { return strings.Count(said(), word) }

		f.change(func() { f.entries = 3000 })
		time.Sleep(time.Minute)
		synctest.Wait()
		f.change(func() { assert.Empty(t, f.limits) })

		client, other := netip.MustParseAddr("192.168.0.2"), netip.MustParseAddr("192.168.0.3")
		f.change(func() {
			f.entries, f.hosts = 3072, []firewall.Trimmed{{Source: client, Had: 3000, Lost: 512}}
		})
		time.Sleep(trackingLook)
		synctest.Wait()
		f.change(func() { assert.Equal(t, []int{2560}, f.limits) })
		assert.Contains(t, said(), "firewall,warning connection tracking: the table of 4096 entries is nearly full: 512 connections of 192.168.0.2 forgotten\n")

		// A host that goes on is told of now and then, with the sum.
		f.hosts = append(f.hosts, firewall.Trimmed{Source: other, Lost: 5})
		time.Sleep(trackingSoon / 2) // between two looks
		for range 10 {
			f.change(func() { f.entries = 4096 })
			time.Sleep(trackingSoon)
		}
		synctest.Wait()
		f.change(func() { assert.Len(t, f.limits, 11) })
		assert.Equal(t, 1, lines("nearly full"))
		time.Sleep(trimLog)
		synctest.Wait()
		assert.Equal(t, 2, lines("nearly full"))
		assert.Contains(t, said(), "5120 connections of 192.168.0.2 forgotten, and some of 1 other hosts\n")

		// The table is full of what the kernel makes room in the place of.
		f.change(func() { f.hosts, f.limits = nil, nil })
		for range 50 {
			f.change(func() { f.entries = 4096 })
			time.Sleep(trackingSoon)
		}
		synctest.Wait()
		f.change(func() { assert.InDelta(t, 50*trackingSoon/trackingLook, len(f.limits), 1) })

		// No room can be made.
		f.change(func() {
			f.entries, f.limits, f.trimErr = 4096, nil, errors.New("none of 512 connections could be forgotten")
		})
		time.Sleep(10 * trackingRetry)
		synctest.Wait()
		f.change(func() { assert.InDelta(t, 10, len(f.limits), 1) })
		assert.Equal(t, 1, lines("keep room for connections: none of 512 connections could be forgotten"))
		assert.Equal(t, 2, lines("nearly full"))
		f.change(func() { f.trimErr = nil })
		time.Sleep(trackingRetry)
		synctest.Wait()

		// What the kernel refuses is said once.
		f.change(func() { f.err = errors.New("the kernel has none") })
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, 1, lines("keep room for connections: the kernel has none"))
	})
}

func TestFalseSourcesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s, said := watchedTable(t)
		require.NoError(t, s.Apply(console.Default()))
		defer s.Stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Empty(t, said())
		f.change(func() { f.false = 3 })
		time.Sleep(falseSourceLook)
		synctest.Wait()
		assert.Contains(t, said(), "firewall,warning 3 packets with a false source dropped: an address of the router, of loopback or multicast, or one to which the way back ")
		f.change(func() { f.false = 1003 })
		time.Sleep(falseSourceLog - 2*falseSourceLook)
		synctest.Wait()
		assert.NotContains(t, said(), "1000 packets")
		time.Sleep(2 * falseSourceLook)
		synctest.Wait()
		assert.Contains(t, said(), "firewall,warning 1000 packets with a false source dropped: ")
		f.change(func() { f.false = 7 }) // it has begun anew
		time.Sleep(falseSourceLog + falseSourceLook)
		synctest.Wait()
		assert.Contains(t, said(), "firewall,warning 7 packets with a false source dropped: ")
	})
}

// A change of nat reaches open connections, also when Safe Mode undoes it; another change does not
// touch them.
func TestNATReachesOpenConnections(t *testing.T) {
	g := started(t)
	g.calls()
	g.must("/ip firewall nat add chain=srcnat action=masquerade")
	assert.Contains(t, g.calls(), "forget")
	assert.Contains(t, g.log(), "firewall,info 1 tracked connections forgotten, as nat treats them otherwise now")
	g.must("/ip firewall filter add chain=input action=drop")
	g.must("/system identity set name=x")
	assert.NotContains(t, g.calls(), "forget")
	g.fail("forget", errFake)
	g.must("/ip firewall nat remove 0")
	assert.Contains(t, g.log(), "firewall,warning open connections keep the address translation that they had: refused by the test")
}
