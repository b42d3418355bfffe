package router

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/firewall"
)

// Entries go when the next one ends, and a list that is full is told once until it has room again.
func TestAddressListService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, said := testLog(t)
		var full atomic.Pointer[[]string]
		full.Store(new([]string))
		s := newAddressListService(log, func() ([]string, int, error) { return *full.Load(), 7, nil })
		var expired atomic.Int32
		c := console.Default()
		var mu sync.Mutex // of c
		s.expire = func() error {
			mu.Lock()
			defer mu.Unlock()
			expired.Add(1)
			c, _ = c.ExpireAddresses(time.Now())
			return s.Apply(c)
		}
		defer s.Stop()
		require.NoError(t, s.Apply(c))
		mu.Lock()
		c.AddressLists = []console.ListedAddress{
			{List: "a", Until: time.Now().Add(2 * time.Hour)}, {List: "b"}, {List: "c", Until: time.Now().Add(time.Hour)},
		}
		require.NoError(t, s.Apply(c))
		mu.Unlock()
		after := func(d time.Duration, left int, ends int32) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			assert.Len(t, c.AddressLists, left)
			assert.Equal(t, ends, expired.Load())
		}
		after(time.Hour-time.Second, 3, 0)
		after(time.Second, 2, 1)
		after(time.Hour, 1, 2)
		after(time.Hour, 1, 2)

		full.Store(&[]string{"knocks"})
		after(time.Hour, 1, 2)
		assert.NotContains(t, said(), "full", "no rule adds to it")
		mu.Lock()
		c.Firewall.Filter = []firewall.Rule{{Chain: "input", Action: "add-src-to-address-list", AddressList: "knocks"}}
		require.NoError(t, s.Apply(c))
		mu.Unlock()
		after(time.Hour, 1, 2)
		const line = "address list knocks is full: rules add no more than 7 addresses to it"
		assert.Equal(t, 1, strings.Count(said(), line))
		full.Store(new([]string))
		after(fullLook, 1, 2)
		full.Store(&[]string{"knocks"})
		after(fullLook, 1, 2)
		assert.Equal(t, 2, strings.Count(said(), line))
	})
}

// What has ended goes from the configuration, and Safe Mode does not bring it back.
func TestExpireAddresses(t *testing.T) {
	g := started(t)
	g.must("/ip firewall address-list add list=a address=10.0.0.1")
	g.must("/ip firewall address-list add list=a address=10.0.0.2 timeout=1h")
	g.must("/ip firewall address-list add list=a address=10.0.0.3 timeout=2h")
	assert.NotContains(t, console.Export(g.lastKept()), "10.0.0.2", "it is not kept")
	require.NoError(t, g.r.expireAddresses())
	assert.Len(t, g.r.snapshot().config.AddressLists, 3)

	holder := &session.Session{}
	require.NoError(t, g.r.safe(holder, session.TakeSafeMode))
	_, err := g.run(holder, "/system identity set name=x")
	require.NoError(t, err)
	for _, c := range []*console.Config{&g.r.now.config, &g.r.now.running, &g.r.safeMode.before.config, &g.r.safeMode.before.running} {
		lists := append([]console.ListedAddress{}, c.AddressLists...)
		lists[1].Until = time.Now()
		c.AddressLists = lists
	}
	require.NoError(t, g.r.expireAddresses())
	assert.Len(t, g.r.snapshot().config.AddressLists, 2)
	assert.Len(t, g.firewall.config.Temporary["a"], 1)
	_, err = g.run(holder, "/undo")
	require.NoError(t, err)
	assert.Equal(t, console.Default().Identity, g.r.snapshot().config.Identity)
	_, err = g.run(holder, "/undo")
	require.ErrorContains(t, err, "nothing to undo", "the lists had other entries")
	_, err = g.run(holder, "/redo")
	require.NoError(t, err)
	require.NoError(t, g.r.unrollSafe("the test"))
	assert.Equal(t, console.Default().Identity, g.r.snapshot().config.Identity)
	assert.Len(t, g.r.snapshot().config.AddressLists, 2)
}
