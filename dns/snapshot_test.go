package dns

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// keepAnswer puts an answer of these records to a question into the cache.
func keepAnswer(t *testing.T, s *server, name string, typ uint16, code byte, seconds uint32, records ...[]byte) {
	t.Helper()
	q, _, err := new(scratch).parseQuery(message(name, typ, 0))
	require.NoError(t, err)
	b := q.reply(int(code))
	for _, r := range records {
		b = append(b, r...)
	}
	binary.BigEndian.PutUint16(b[6:], uint16(len(records)))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cache.put(q.appendKey(nil), answer{message: b, code: int(code), seconds: seconds}, time.Now())
}

// aRecord is a record by itself.
func aRecord(name string, typ uint16, ttl uint32, data ...byte) []byte {
	return addRecord(make([]byte, headerSize), name, typ, ttl, data)[headerSize:]
}

func TestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testServer(t, func(c *Config) {
			c.MaxTTL = time.Hour
			c.Static = []Static{
				{Name: "NAS.lan", Type: "A", Address: netip.MustParseAddr("192.168.0.5"), TTL: 24 * time.Hour},
				{Name: "nas.lan", Type: "AAAA", Address: netip.MustParseAddr("2001:db8::5"), TTL: time.Hour},
				{Name: "www.lan", Type: "CNAME", CNAME: "nas.lan"}, {Name: "t.lan", Type: "TXT", Text: "hello"},
				{Name: "corp", Type: "FWD", ForwardTo: netip.MustParseAddr("10.0.0.1")}, {Regexp: "^ads", Type: "NXDOMAIN", TTL: time.Minute},
			}
		})
		s.setNames(map[string]Host{"laptop": {Address: netip.MustParseAddr("192.168.0.10")}})
		keepAnswer(t, s, "old.example", typeA, codeOK, 10, aRecord("old.example", typeA, 10, 192, 0, 2, 9))
		keepAnswer(t, s, "gone.example", typeAAAA, codeNoName, 900)
		keepAnswer(t, s, "www.example", typeA, codeOK, 100, aRecord("www.example", typeCNAME, 300, appendName(nil, "cdn.example")...),
			aRecord("cdn.example", typeA, 100, 192, 0, 2, 7))
		keepAnswer(t, s, "long.example", typeA, codeOK, 1<<30, aRecord("long.example", typeA, 1<<30, 192, 0, 2, 8))
		time.Sleep(30 * time.Second)
		all, left := s.snapshot()
		assert.Zero(t, left)
		assert.Equal(t, []CacheEntry{
			{Name: "nas.lan", Type: typeA, Data: "192.168.0.5", TTL: 24 * time.Hour, Static: true},
			{Name: "nas.lan", Type: typeAAAA, Data: "2001:db8::5", TTL: time.Hour, Static: true},
			{Name: "www.lan", Type: typeCNAME, Data: "nas.lan", Static: true},
			{Name: "t.lan", Type: typeTXT, Data: "hello", Static: true},
			{Name: "^ads", Type: typeANY, TTL: time.Minute, Static: true, Negative: true},
			{Name: "long.example", Type: typeA, Data: "192.0.2.8", TTL: 3570 * time.Second},
			{Name: "www.example", Type: typeCNAME, Data: "cdn.example", TTL: 270 * time.Second},
			{Name: "cdn.example", Type: typeA, Data: "192.0.2.7", TTL: 70 * time.Second},
			{Name: "gone.example", Type: typeAAAA, TTL: 870 * time.Second, Negative: true},
			{Name: "laptop", Type: typeA, Data: "192.168.0.10", TTL: time.Minute},
		}, all)
		assert.Positive(t, s.used())
		s.flush()
		assert.Zero(t, s.used())
		all, _ = s.snapshot()
		assert.Len(t, all, 6)
	})
}

func TestRecordText(t *testing.T) {
	name := appendName(nil, "mail.example")
	for _, test := range []struct {
		typ  uint16
		data []byte
		want string
	}{
		{typeA, []byte{192, 0, 2, 1}, "192.0.2.1"},
		{typeA, []byte{192, 0, 2}, "c00002"},
		{typeNS, name, "mail.example"},
		{typePTR, []byte{0}, "."},
		{typeMX, append([]byte{0, 10}, name...), "10 mail.example"},
		{typeMX, []byte{0}, "00"},
		{typeSRV, append([]byte{0, 1, 0, 2, 0x13, 0xc4}, name...), "1 2 5060 mail.example"},
		{typeSRV, []byte{0, 1, 0, 2, 0x13}, "0001000213"},
		{typeCNAME, []byte{0xc0, 0xff}, "c0ff"},
		{typeCNAME, nil, ""},
		{typeTXT, []byte("\x02ab\x01c"), "abc"},
		{typeTXT, []byte("\x09ab"), ""},
		{typeTXT, []byte("\xff" + strings.Repeat("t", 255)), strings.Repeat("t", 255)},
		{65, []byte{0, 1, 0}, "000100"},
	} {
		b := append(make([]byte, headerSize), test.data...)
		assert.Equal(t, test.want, record{typ: test.typ, data: headerSize, end: len(b)}.text(b), "%d %x", test.typ, test.data)
	}
}

// However much is in the cache, a snapshot is bounded: names that are short in a message are long here.
func TestSnapshotBounds(t *testing.T) {
	s := testServer(t, func(c *Config) { c.CacheSize = MaxCacheSize })
	long := strings.TrimSuffix(strings.Repeat(strings.Repeat("x", 61)+".", 4), ".")
	for i := range 20 {
		records := [][]byte{aRecord(long, typeTXT, 60, []byte("\xff"+strings.Repeat("t", 255)+"\xff"+strings.Repeat("t", 255))...)}
		for range 900 {
			records = append(records, append([]byte{0xc0, headerSize}, aRecord("", typeA, 60, 192, 0, 2, 1)[1:]...))
		}
		keepAnswer(t, s, fmt.Sprintf("%c.%s", 'a'+i, long[2:]), typeA, codeOK, 60, records...)
	}
	hosts := map[string]Host{}
	for i := range 30 {
		hosts[fmt.Sprint("host", i)] = Host{Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}
	}
	s.setNames(hosts)
	all, left := s.snapshot()
	assert.Len(t, all, MaxCacheEntries)
	assert.Equal(t, 18+30, left)
	for _, e := range all {
		assert.LessOrEqual(t, len(e.Name)+len(e.Data), MaxName+2*256)
	}
	list, more, err := processOf(t, s).Cache(t.Context())
	require.NoError(t, err)
	assert.Less(t, len(list), MaxCacheEntries)
	assert.Equal(t, MaxCacheEntries+left, len(list)+more)
}

// A person who looks at the cache keeps nobody waiting, and sees what there is although it changes.
func TestSnapshotHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testServer(t, func(c *Config) { c.CacheSize = MaxCacheSize })
		const most = 5000
		keep := func(i int) {
			name := fmt.Sprintf("host%d.example", i)
			keepAnswer(t, s, name, typeA, codeOK, 60, aRecord(name, typeA, 60, 192, 0, 2, 1))
		}
		for i := range most {
			keep(i)
		}
		require.Greater(t, len(s.cache.chunks), 20)
		names := func(f func(i int)) (all []string) {
			s.eachCached(func(e entry, age uint32, cached int) bool {
				require.True(t, s.mu.TryLock(), "a question would wait")
				s.mu.Unlock()
				if f(len(all)); cached > 0 {
					var key [maxKey]byte
					all = append(all, string(e.key(&key)[keyHead:]))
				}
				return true
			})
			return all
		}
		all := names(func(int) {})
		require.Len(t, all, most)
		assert.Equal(t, "host4999.example", all[0])
		assert.Equal(t, "host0.example", all[most-1])

		// What comes meanwhile drives out the oldest: of the others each is listed once.
		s.cache.limit = s.cache.taken()
		all = names(func(i int) { keep(most + i) })
		assert.Less(t, len(all), most)
		assert.Greater(t, len(all), most/3)
		for i, name := range all {
			require.Equal(t, fmt.Sprintf("host%d.example", most-1-i), name)
		}

		all = names(func(i int) {
			if i == 0 {
				s.flush()
			}
		})
		assert.NotEmpty(t, all)
		assert.Less(t, len(all), 1000, "the cache is empty")
	})
}

// Whatever an answer is that the cache may get, it can be listed.
func FuzzEntries(f *testing.F) {
	q, _, err := new(scratch).parseQuery(message("a.example", typeMX, 0))
	require.NoError(f, err)
	f.Add(withAddress(q, 60))
	f.Add(addRecord(q.reply(codeOK), "a.example", typeMX, 60, append([]byte{0, 10}, appendName(nil, "b.example")...)))
	f.Add(addRecord(q.reply(codeOK), "a.example", typeTXT, 60, []byte("\xffabc")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerSize {
			return
		}
		a, ok := parseAnswer(b, q, binary.BigEndian.Uint16(b))
		if !ok || a.seconds == 0 {
			return
		}
		c := cache{limit: 8 * (maxKey + 2*entryHeader + len(a.message))}
		if c.chunkSize() == maxChunk {
			return
		}
		c.put(q.appendKey(nil), a, time.Now())
		var all []CacheEntry
		chunk, ok := c.copyChunk(c.end()-1, nil)
		require.True(t, ok)
		all = entry(chunk).appendTo(nil, 0, 3600)
		require.Len(t, c.index, 1)
		for _, e := range all {
			require.LessOrEqual(t, e.TTL, time.Hour)
			require.LessOrEqual(t, len(e.Name), MaxName)
			require.LessOrEqual(t, len(e.Data), 2*maxCacheData+256)
		}
	})
}
