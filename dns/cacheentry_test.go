package dns

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/service"
)

// fakeKeeper is a server that keeps what it is told.
type fakeKeeper struct {
	mu      sync.Mutex
	entries []CacheEntry
	left    int
	hosts   map[string]Host
	flushed int
}

func (k *fakeKeeper) snapshot() ([]CacheEntry, int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.entries, k.left
}

func (k *fakeKeeper) flush() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.flushed++
	k.entries = nil
}

func (k *fakeKeeper) setNames(h map[string]Host) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hosts = h
}

func (k *fakeKeeper) used() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return 300 * len(k.entries)
}

func (k *fakeKeeper) names() map[string]Host {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.hosts
}

// processOf is PID 1's end of a process with that server.
func processOf(t *testing.T, k keeper) *Process {
	t.Helper()
	spec := Spec
	spec.Main = func(c *service.Child) error {
		return c.Serve(func(_ context.Context, r *service.Request) ([]byte, error) { return answerParent(k, r) })
	}
	var p *Process
	link, ended, err := service.Simulate(t.Context(), spec, func(l *service.Link) service.Handler {
		p = NewProcess(l)
		return p.Handle
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		link.Close()
		<-ended
	})
	return p
}

func TestCacheOverLink(t *testing.T) {
	entries := []CacheEntry{
		{Name: "nas.lan", Type: typeA, Data: "192.168.0.5", TTL: time.Hour, Static: true},
		{Name: "gone.example", Type: 65, TTL: 1500 * time.Millisecond, Negative: true},
		{Name: "", Type: 0xffff, Data: "\x00\xff"},
	}
	k := &fakeKeeper{entries: entries}
	p := processOf(t, k)
	list, left, err := p.Cache(t.Context())
	require.NoError(t, err)
	assert.Equal(t, entries, list)
	assert.Zero(t, left)
	used, err := p.Used(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 900, used)
	require.NoError(t, p.Flush(t.Context()))
	k.mu.Lock()
	assert.Equal(t, 1, k.flushed)
	k.mu.Unlock()
	list, left, err = p.Cache(t.Context())
	require.NoError(t, err)
	assert.Empty(t, list)
	assert.Zero(t, left)
}

// However much there is, a list has its bounds and says how much is left out.
func TestCacheBounds(t *testing.T) {
	for _, test := range []struct {
		name  string
		count int
		entry CacheEntry
		want  int
	}{
		{"as many as go", MaxCacheEntries, CacheEntry{Name: "a.example", Type: typeA, Data: "192.0.2.1"}, MaxCacheEntries},
		{"one more", MaxCacheEntries + 1, CacheEntry{Name: "a.example", Type: typeA, Data: "192.0.2.1"}, MaxCacheEntries},
		{"the longest", 5000, CacheEntry{Name: strings.Repeat("n", MaxName), Type: typeTXT, Data: strings.Repeat("d", 65535)}, maxCacheBytes / (MaxName + maxCacheData + 32)},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := make([]CacheEntry, test.count)
			for i := range all {
				all[i] = test.entry
				all[i].TTL = time.Duration(i)
			}
			list, left, err := processOf(t, &fakeKeeper{entries: all, left: 7}).Cache(t.Context())
			require.NoError(t, err)
			require.Len(t, list, test.want)
			assert.Equal(t, 7+test.count-test.want, left)
			for i, e := range list {
				assert.Equal(t, time.Duration(i), e.TTL, "the first ones, in their order")
			}
		})
	}
}

func TestShortened(t *testing.T) {
	assert.Equal(t, strings.Repeat("a", 255), shortened(strings.Repeat("a", 255)))
	assert.Equal(t, strings.Repeat("a", 252)+"...", shortened(strings.Repeat("a", 256)))
	long := shortened("a" + strings.Repeat("é", 200))
	assert.True(t, utf8.ValidString(long))
	assert.Len(t, long, 254)
	assert.Equal(t, "...", shortened(strings.Repeat("\x80", 300)), "no text at all")
}

func TestTypeName(t *testing.T) {
	for typ, want := range map[uint16]string{1: "A", 28: "AAAA", 65: "HTTPS", 999: "TYPE999", 0: "TYPE0"} {
		assert.Equal(t, want, CacheEntry{Type: typ}.TypeName())
	}
}

func TestNamesOverLink(t *testing.T) {
	k := &fakeKeeper{}
	p := processOf(t, k)
	hosts := map[string]Host{"laptop": {Address: netip.MustParseAddr("192.168.0.10")}, "laptop.lan": {Address: netip.MustParseAddr("192.168.0.10"), Ending: true}}
	left, err := p.Names(t.Context(), hosts)
	require.NoError(t, err)
	assert.Zero(t, left)
	assert.Equal(t, hosts, k.names())
	left, err = p.Names(t.Context(), nil)
	require.NoError(t, err)
	assert.Zero(t, left)
	assert.Empty(t, k.names())

	many := map[string]Host{}
	for i := range MaxHosts + 3 {
		many[fmt.Sprintf("host%04d", i)] = Host{Address: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
	}
	left, err = p.Names(t.Context(), many)
	require.NoError(t, err)
	assert.Equal(t, 3, left)
	assert.Len(t, k.names(), MaxHosts)
	assert.Contains(t, k.names(), "host0000")
	long := map[string]Host{}
	for i := range MaxHosts {
		long[fmt.Sprintf("%04d.%s", i, strings.Repeat("x", MaxName-5))] = Host{Address: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
	}
	left, err = p.Names(t.Context(), long)
	require.NoError(t, err)
	assert.Equal(t, MaxHosts-maxHostBytes/(MaxName+8), left)
	assert.Len(t, k.names(), MaxHosts-left)
}

// A request that is none ends the link, and changes nothing.
func TestNoSuchRequest(t *testing.T) {
	var v6 service.Encoder
	v6.Uint(1)
	v6.String("laptop")
	v6.Addr(netip.MustParseAddr("2001:db8::1"))
	for name, ask := range map[string]func(*Process) error{
		"unknown":      func(p *Process) error { return p.link.Call(t.Context(), 99, nil, nil) },
		"no body":      func(p *Process) error { return p.link.Call(t.Context(), opNames, nil, nil) },
		"IPv6 address": func(p *Process) error { return p.link.Call(t.Context(), opNames, v6.Bytes(), nil) },
		"too long":     func(p *Process) error { return p.link.Call(t.Context(), opFlush, []byte{1}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			k := &fakeKeeper{}
			p := processOf(t, k)
			require.ErrorIs(t, ask(p), service.ErrGone)
			assert.Nil(t, k.names())
		})
	}
}

// What a process says of its cache is bounded and never more than was sent.
func FuzzDecodeCache(f *testing.F) {
	var e service.Encoder
	encodeCache(&e, []CacheEntry{{Name: "a.example", Type: typeA, Data: "192.0.2.1", TTL: time.Hour}, {Name: "b", Negative: true}}, 3)
	f.Add(e.Bytes())
	f.Add([]byte{0, 0xff, 0x07})
	f.Fuzz(func(t *testing.T, b []byte) {
		d := service.NewDecoder(b)
		list, left := decodeCache(d)
		if d.End() != nil {
			return
		}
		require.LessOrEqual(t, len(list), MaxCacheEntries)
		require.GreaterOrEqual(t, left, 0)
		var again service.Encoder
		encodeCache(&again, list, left)
		same, _ := decodeCache(service.NewDecoder(again.Bytes()))
		if len(same) < len(list) { // by their size
			list = list[:len(same)]
		}
		require.Equal(t, list, same)
	})
}
