package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/resolve"
	"github.com/postern-router/postern/service"
)

// upstream is a scripted name server.
type upstream struct {
	addr netip.Addr
	mu   sync.Mutex
	// asked are the questions in their order, as "udp NAME".
	asked []string
	ports map[int]bool
}

func (u *upstream) questions() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.asked...)
}

// script returns the answer to a question, nil for none.
type script func(q *query, network string) []byte

// serveAt serves on port 5353 of an address.
func serveAt(t *testing.T, addr string, answer script) *upstream {
	t.Helper()
	u := &upstream{addr: netip.MustParseAddr(addr), ports: map[int]bool{}}
	udp, err := net.ListenPacket("udp4", addr+":5353")
	require.NoError(t, err)
	tcp, err := net.Listen("tcp4", addr+":5353")
	require.NoError(t, err)
	t.Cleanup(func() { udp.Close(); tcp.Close() })
	take := func(b []byte, network string, port int) []byte {
		q, _, err := new(scratch).parseQuery(append([]byte(nil), b...))
		if err != nil {
			return nil
		}
		u.mu.Lock()
		u.asked, u.ports[port] = append(u.asked, network+" "+q.name), true
		u.mu.Unlock()
		return answer(q, network)
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			if a := take(b[:n], "udp", from.(*net.UDPAddr).Port); a != nil {
				_, _ = udp.WriteTo(a, from)
			}
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			if b, err := resolve.ReadTCP(c, 4096); err == nil {
				if a := take(b, "tcp", 0); a != nil {
					_ = resolve.WriteTCP(c, a)
				}
			}
			c.Close()
		}
	}()
	return u
}

// withAddress is an answer with an address.
func withAddress(q *query, ttl uint32) []byte {
	return addRecord(q.reply(codeOK), q.name, typeA, ttl, []byte{192, 0, 2, 7})
}

// testServer is a server that asks upstream.
func testServer(t *testing.T, change func(*Config), all ...*upstream) *server {
	ctx, cancel := context.WithCancel(context.Background())
	s := newServer(ctx)
	t.Cleanup(func() { cancel(); s.work.Wait() })
	s.port = 5353
	c := Default()
	c.ServerTimeout = 300 * time.Millisecond
	if change != nil {
		change(&c)
	}
	var servers []netip.Addr
	for _, u := range all {
		servers = append(servers, u.addr)
	}
	s.configure(c, servers)
	return s
}

var someone = netip.MustParseAddr("192.168.0.9")

// message is a query; size is that of EDNS, 0 for none.
func message(name string, typ uint16, size uint16) []byte {
	q := &query{id: 0xabcd, flags: bitDesired, question: appendName(nil, name), edns: size > 0}
	q.question = binary.BigEndian.AppendUint16(q.question, typ)
	q.question = binary.BigEndian.AppendUint16(q.question, classIN)
	b := q.ask(0xabcd)
	if size > 0 {
		binary.BigEndian.PutUint16(b[len(b)-8:], size)
	}
	return b
}

// ask returns the answer to a query, nil for none.
func ask(s *server, b []byte, stream bool) []byte {
	answer, later := s.take(b, someone, stream, new(scratch))
	if later == nil {
		return answer
	}
	replies := make(chan []byte, 1)
	s.wait(later, func(b []byte) { replies <- b })
	return <-replies
}

func code(b []byte) int        { return int(b[3] & maskCode) }
func truncated(b []byte) bool  { return b[2]&2 != 0 }
func answerCount(b []byte) int { return int(binary.BigEndian.Uint16(b[6:])) }
func idOf(b []byte) uint16     { return binary.BigEndian.Uint16(b) }
func firstTTL(b []byte) (n int) {
	n = -1
	_, _ = eachRecord(b, func(_ int, r record) {
		if n < 0 {
			n = int(r.ttl)
		}
	})
	return n
}

// An answer is kept, and has the letters and the id of each who asks.
func TestCache(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte { return withAddress(q, 3600) })
	s := testServer(t, func(c *Config) { c.MaxTTL = time.Minute }, u)
	for _, name := range []string{"a.example", "A.eXample"} {
		b := ask(s, message(name, typeA, 0), false)
		assert.Equal(t, uint16(0xabcd), idOf(b))
		assert.Equal(t, appendName(nil, name), b[headerSize:headerSize+len(name)+2])
		assert.Equal(t, 1, answerCount(b))
		assert.LessOrEqual(t, firstTTL(b), 60, "cache-max-ttl")
	}
	assert.Equal(t, []string{"udp a.example"}, u.questions())
	ask(s, message("b.example", typeA, 0), false)
	u.mu.Lock()
	defer u.mu.Unlock()
	assert.Len(t, u.ports, 2, "a port for each question")
}

// A name that does not exist is kept as its SOA says, and not at all without one.
func TestNegative(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte {
		b := q.reply(codeNoName)
		if q.name == "kept.example" {
			b = addRecord(b, "example", typeSOA, 3600, append(make([]byte, 21), 30))
			b[7], b[9] = 0, 1 // an authority, not an answer
		}
		return b
	})
	s := testServer(t, nil, u)
	week := answer{message: addRecord((&query{question: message("a", typeA, 0)[headerSize:]}).reply(codeNoName), "example", typeSOA, 604800,
		append(make([]byte, 18), 0, 9, 0x3a, 0x80))}
	week.message[7], week.message[9] = 0, 1
	q, _, err := new(scratch).parseQuery(message("a", typeA, 0))
	require.NoError(t, err)
	a, ok := parseAnswer(week.message, q, 0)
	require.True(t, ok)
	assert.EqualValues(t, longestNegative, a.seconds, "not for a week")
	for range 2 {
		for _, name := range []string{"kept.example", "not.example"} {
			assert.Equal(t, codeNoName, code(ask(s, message(name, typeA, 0), false)))
		}
	}
	assert.Equal(t, []string{"udp kept.example", "udp not.example", "udp not.example"}, u.questions())
}

// Too large an answer is asked for over TCP, and goes truncated to who cannot take it.
func TestTruncated(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, network string) []byte {
		b := q.reply(codeOK)
		if network == "udp" {
			b[2] |= bitTruncated >> 8
			return b
		}
		for i := range byte(40) {
			b = addRecord(b, q.name, typeA, 60, []byte{192, 0, 2, i})
		}
		return b
	})
	s := testServer(t, nil, u)
	for _, c := range []struct {
		size uint16
		cut  bool
	}{{0, true}, {1232, false}, {512, true}, {4096, false}} {
		b := ask(s, message("big.example", typeA, c.size), false)
		assert.Equal(t, c.cut, truncated(b), c.size)
		assert.Equal(t, !c.cut, answerCount(b) == 40, c.size)
	}
	assert.Equal(t, 40, answerCount(ask(s, message("big.example", typeA, 0), true)))
	assert.Equal(t, []string{"udp big.example", "tcp big.example"}, u.questions()[:2])
}

// A server that is silent is left for the next, which is kept; SERVFAIL and REFUSED lead to the next
// server too.
func TestServers(t *testing.T) {
	var silent sync.Map
	first := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte {
		if _, ok := silent.Load("first"); ok {
			return nil
		}
		switch q.name {
		case "failure.example":
			return q.reply(codeFailure)
		case "refused.example":
			return q.reply(codeRefused)
		case "none.example":
			return q.reply(codeNoName)
		}
		return withAddress(q, 60)
	})
	second := serveAt(t, "127.0.1.2", func(q *query, _ string) []byte {
		if _, ok := silent.Load("second"); ok {
			return nil
		}
		return withAddress(q, 60)
	})
	s := testServer(t, nil, first, second)
	for name, want := range map[string]int{"failure.example": codeOK, "refused.example": codeOK, "none.example": codeNoName} {
		assert.Equal(t, want, code(ask(s, message(name, typeA, 0), false)), name)
	}
	assert.Len(t, second.questions(), 2)

	silent.Store("first", true)
	assert.Equal(t, codeOK, code(ask(s, message("1.example", typeA, 0), false)))
	n := len(first.questions())
	assert.Equal(t, codeOK, code(ask(s, message("2.example", typeA, 0), false)))
	assert.Len(t, first.questions(), n, "the one that works is kept")

	silent.Delete("first")
	silent.Store("second", true)
	assert.Equal(t, codeOK, code(ask(s, message("3.example", typeA, 0), false)), "the first is tried again")
}

// Addresses of private networks in answers are handed on, as RouterOS does: a household's own names have them.
func TestPrivateAddresses(t *testing.T) {
	addresses := map[string][]byte{"ten.example": {10, 0, 0, 1}, "home.example": {192, 168, 0, 9}, "carrier.example": {100, 64, 0, 1}, "local.example": {169, 254, 0, 1}, "self.example": {127, 0, 0, 1}}
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte {
		return addRecord(q.reply(codeOK), q.name, typeA, 60, addresses[q.name])
	})
	s := testServer(t, nil, u)
	for name, address := range addresses {
		b := ask(s, message(name, typeA, 0), false)
		assert.Equal(t, codeOK, code(b), name)
		assert.Equal(t, 1, answerCount(b), name)
		assert.Equal(t, address, b[len(b)-4:], name)
	}
}

// A server that is dead costs a moment, not its whole time, and nothing once another has answered.
func TestDeadServer(t *testing.T) {
	dead := serveAt(t, "127.0.1.1", func(*query, string) []byte { return nil })
	live := serveAt(t, "127.0.1.2", func(q *query, _ string) []byte { return withAddress(q, 60) })
	s := testServer(t, func(c *Config) { c.ServerTimeout, c.TotalTimeout = time.Hour, time.Hour }, dead, live)
	for _, name := range []string{"1.example", "2.example"} {
		assert.Equal(t, codeOK, code(ask(s, message(name, typeA, 0), false)))
	}
	assert.Equal(t, []string{"udp 1.example"}, dead.questions())
	assert.Equal(t, []string{"udp 1.example", "udp 2.example"}, live.questions())
}

// How many servers are asked besides others is bounded: then each has its whole time.
func TestDeadServerBound(t *testing.T) {
	dead := serveAt(t, "127.0.1.1", func(*query, string) []byte { return nil })
	live := serveAt(t, "127.0.1.2", func(q *query, _ string) []byte { return withAddress(q, 60) })
	s := testServer(t, func(c *Config) { c.ServerTimeout, c.TotalTimeout = 2*patience, time.Hour }, dead, live)
	for range maxBesides {
		s.besides <- struct{}{}
	}
	began := time.Now()
	assert.Equal(t, codeOK, code(ask(s, message("1.example", typeA, 0), false)))
	assert.GreaterOrEqual(t, time.Since(began), 2*patience)
	assert.Equal(t, []string{"udp 1.example"}, live.questions())
}

// A server that does not understand EDNS is asked without it, whether or not it repeats the question.
func TestServerWithoutEDNS(t *testing.T) {
	for name, refusal := range map[string]func(*query) []byte{
		"FORMERR":               func(q *query) []byte { return q.reply(codeFormat) },
		"NOTIMP":                func(q *query) []byte { return q.reply(codeNotImplemented) },
		"FORMERR, nothing else": func(q *query) []byte { q.question = nil; return q.reply(codeFormat) },
	} {
		t.Run(name, func(t *testing.T) {
			u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte {
				if q.edns {
					return refusal(q)
				}
				return withAddress(q, 100)
			})
			b := ask(testServer(t, nil, u), message("a.example", typeA, 1232), false)
			assert.Equal(t, codeOK, code(b))
			assert.Equal(t, 1, answerCount(b))
			assert.Len(t, u.questions(), 2)
		})
	}
	u := serveAt(t, "127.0.1.2", func(q *query, _ string) []byte { q.question = nil; return q.reply(codeFormat) })
	q := message("a.example", typeA, 1232)
	b := ask(testServer(t, nil, u), q, false)
	assert.Equal(t, codeFormat, code(b))
	assert.Equal(t, q[headerSize:len(q)-11], b[headerSize:], "the question is repeated")
}

// That an answer is too large is handed on where nobody says more over TCP.
func TestTruncatedWithoutTCP(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, network string) []byte {
		if network == "tcp" {
			return nil
		}
		b := q.reply(codeOK)
		b[2] |= bitTruncated >> 8
		return b
	})
	s := testServer(t, nil, u)
	b := ask(s, message("a.example", typeA, 0), false)
	assert.True(t, truncated(b))
	assert.Equal(t, codeOK, code(b))
	assert.Equal(t, codeFailure, code(ask(s, message("a.example", typeA, 0), true)), "over TCP nothing is too large")
	assert.Zero(t, s.cache.used())
}

// Who asks for everything is told to ask over TCP, where no address is forged.
func TestAny(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte { return withAddress(q, 60) })
	s := testServer(t, nil, u)
	assert.True(t, truncated(ask(s, message("a.example", typeANY, 0), false)))
	assert.Empty(t, u.questions())
	assert.Equal(t, 1, answerCount(ask(s, message("a.example", typeANY, 0), true)))
}

// A cache has no authority.
func TestAuthority(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte {
		b := withAddress(q, 60)
		b[2] |= bitAuthoritative >> 8
		return b
	})
	b := ask(testServer(t, nil, u), message("a.example", typeA, 0), false)
	assert.Zero(t, b[2]&(bitAuthoritative>>8))
}

// All who ask the same at once get the answer to one question.
func TestOneQuestion(t *testing.T) {
	open := make(chan struct{})
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte { <-open; return withAddress(q, 60) })
	s := testServer(t, func(c *Config) { c.ServerTimeout = time.Minute; c.TotalTimeout = time.Minute }, u)
	replies := make(chan []byte, 10)
	for range 10 {
		_, later := s.take(message("a.example", typeA, 0), someone, false, new(scratch))
		s.wait(later, func(b []byte) { replies <- b })
	}
	close(open)
	for range 10 {
		assert.Equal(t, 1, answerCount(<-replies))
	}
	assert.Equal(t, []string{"udp a.example"}, u.questions())
}

// One client cannot have all places.
func TestShares(t *testing.T) {
	var s shares
	n := 0
	for s.enter(someone, 100) {
		n++
	}
	assert.Equal(t, 50, n)
	other := netip.MustParseAddr("192.168.0.10")
	assert.True(t, s.enter(other, 100))
	s.leave(other)
	for range n {
		s.leave(someone)
	}
	assert.Empty(t, s.by)
	assert.True(t, s.enter(someone, 1))
}

func TestStatic(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte { return withAddress(q, 60) })
	other := serveAt(t, "127.0.1.2", func(q *query, _ string) []byte { return withAddress(q, 60) })
	address, address6 := netip.MustParseAddr("192.168.0.5"), netip.MustParseAddr("fd00::5")
	s := testServer(t, func(c *Config) {
		c.Static = []Static{
			{Regexp: `^ads[0-9]+\.`, Type: "A", Address: address},
			{Name: "ads7.lan", Type: "CNAME", CNAME: "nas.lan"},
			{Name: "both.lan", Type: "A", Address: netip.MustParseAddr("192.168.0.6")},
			{Name: "both.lan", Type: "AAAA", Address: address6},
			{Name: "six.lan", Type: "AAAA", Address: address6},
			{Name: "four.lan", Type: "CNAME", CNAME: "nas.lan"},
			{Name: "NAS.lan", Type: "A", Address: address, TTL: time.Hour},
			{Name: "www.lan", Type: "CNAME", CNAME: "nas.lan", TTL: time.Hour},
			{Name: "out.lan", Type: "CNAME", CNAME: "a.example", TTL: time.Hour},
			{Name: "loop.lan", Type: "CNAME", CNAME: "loop.lan", TTL: time.Hour},
			{Name: "ads.example", Type: "NXDOMAIN", MatchSubdomain: true},
			{Name: "good.ads.example", Type: "A", Address: address},
			{Name: "corp", Type: "FWD", ForwardTo: other.addr, MatchSubdomain: true},
			{Name: "text.lan", Type: "TXT", Text: "v=1"},
			{Name: "alias.lan", Type: "CNAME", CNAME: "Laptop.lan"},
			{Name: "lan", Type: "MX", MXPreference: 10, MXExchange: "Mail.lan"},
			{Name: "lan", Type: "MX", MXPreference: 20, MXExchange: "nas.lan"},
			{Name: "lan", Type: "NS", NS: "router.lan"},
			{Name: "_sip._udp.lan", Type: "SRV", SRVPriority: 1, SRVWeight: 2, SRVPort: 5060, SRVTarget: "pbx.lan"},
			{Name: "office.lan", Type: "CNAME", CNAME: "lan"},
		}
	}, u)
	s.setNames(map[string]Host{"Laptop.lan": {Address: someone}, "laptop": {Address: someone}, "l": {Address: someone}})
	for _, c := range []struct {
		name          string
		typ           uint16
		code, answers int
		asked         string
	}{
		{"nas.lan", typeA, codeOK, 1, ""},
		{"nas.lan", typeTXT, codeOK, 0, ""},
		{"www.lan", typeA, codeOK, 2, ""},
		{"out.lan", typeA, codeOK, 2, "udp a.example"},
		{"loop.lan", typeA, codeFailure, 0, ""},
		{"x.y.ads.example", typeA, codeNoName, 0, ""},
		{"good.ads.example", typeA, codeOK, 1, ""},
		{"text.lan", typeTXT, codeOK, 1, ""},
		{"5.0.168.192.in-addr.arpa", typePTR, codeOK, 1, ""},
		{"nas.lan", typeAAAA, codeOK, 1, "udp nas.lan"},
		{"four.lan", typeAAAA, codeOK, 1, ""}, // the address of IPv4 that upstream gave is none
		{"both.lan", typeA, codeOK, 1, ""},
		{"both.lan", typeAAAA, codeOK, 1, ""},
		{"six.lan", typeAAAA, codeOK, 1, ""},
		{"six.lan", typeA, codeOK, 0, ""},
		{"ADS7.lan", typeA, codeOK, 1, ""},
		{"x.ads7.lan", typeA, codeOK, 1, "udp x.ads7.lan"},
		{"5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", typePTR, codeOK, 1, ""},
		{"laptop.lan", typeA, codeOK, 1, ""},
		{"laptop.lan", typeAAAA, codeOK, 0, ""},
		{"alias.lan", typeA, codeOK, 2, ""},
		{"9.0.168.192.in-addr.arpa", typePTR, codeOK, 1, ""},
		{"lan", typeMX, codeOK, 2, ""},
		{"lan", typeNS, codeOK, 1, ""},
		{"lan", typeA, codeOK, 0, ""},
		{"office.lan", typeMX, codeOK, 3, ""},
		{"_SIP._udp.lan", typeSRV, codeOK, 1, ""},
	} {
		before := len(u.questions())
		b := ask(s, message(c.name, c.typ, 0), false)
		assert.Equal(t, c.code, code(b), c.name)
		assert.Equal(t, c.answers, answerCount(b), c.name)
		assert.Equal(t, c.asked, strings.Join(u.questions()[before:], " "), c.name)
	}
	b := ask(s, message("9.0.168.192.in-addr.arpa", typePTR, 0), false)
	assert.Contains(t, string(b), string(appendName(nil, "laptop.lan")), "with its domain")
	for ending, ttl := range map[bool]uint32{false: 60, true: 0} {
		s.setNames(map[string]Host{"phone": {Address: someone, Ending: ending}})
		for _, m := range [][]byte{message("phone", typeA, 0), message("9.0.168.192.in-addr.arpa", typePTR, 0)} {
			_, err := eachRecord(ask(s, m, false), func(_ int, r record) { assert.Equal(t, ttl, r.ttl, "the lease ends: %v", ending) })
			require.NoError(t, err)
		}
	}
	ask(s, message("host.corp", typeA, 0), false)
	assert.Equal(t, []string{"udp host.corp"}, other.questions())
	var data []string
	for _, typ := range []uint16{typeMX, typeNS, typeSRV} {
		name := map[bool]string{false: "lan", true: "_sip._udp.lan"}[typ == typeSRV]
		b := ask(s, message(name, typ, 0), false)
		_, err := eachRecord(b, func(_ int, r record) {
			assert.Equal(t, typ, r.typ)
			data = append(data, r.text(b))
		})
		require.NoError(t, err)
	}
	assert.Equal(t, []string{"10 mail.lan", "20 nas.lan", "router.lan", "1 2 5060 pbx.lan"}, data)
}

// A name that has an address of IPv4 exists, also where the servers know nothing of it.
func TestStaticExists(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte {
		b := addRecord(q.reply(codeNoName), "example", typeSOA, 3600, append(make([]byte, 21), 30))
		b[7], b[9] = 0, 1
		return b
	})
	static := func(c *Config) {
		c.TotalTimeout = time.Second
		c.Static = []Static{{Name: "nas.lan", Type: "A", Address: netip.MustParseAddr("192.168.0.5")},
			{Name: "www.lan", Type: "CNAME", CNAME: "nas.lan"}}
	}
	for what, s := range map[string]*server{"no such name upstream": testServer(t, static, u), "no servers": testServer(t, static)} {
		for range 2 { // from the cache too
			assert.Equal(t, codeOK, code(ask(s, message("nas.lan", typeAAAA, 0), false)), what)
			b := ask(s, message("www.lan", typeAAAA, 0), false)
			assert.Equal(t, codeOK, code(b), what)
			assert.Equal(t, 1, answerCount(b), "the alias")
		}
	}
	assert.Len(t, u.questions(), 1)
}

// The router itself keeps nothing of what the configuration says.
func TestOwnLookups(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte { return withAddress(q, 60) })
	s := testServer(t, func(c *Config) {
		c.Static = []Static{{Name: "nas.lan", Type: "A", Address: someone, TTL: time.Hour},
			{Name: "out.lan", Type: "CNAME", CNAME: "a.example", TTL: time.Hour}}
	}, u)
	for _, c := range []struct {
		client, name string
		ttl          int
	}{{"127.0.0.1", "nas.lan", 0}, {"127.0.0.1", "out.lan", 0}, {"127.0.0.1", "a.example", 60},
		{"192.168.0.9", "nas.lan", 3600}, {"192.168.0.9", "out.lan", 3600}} {
		m := message(c.name, typeA, 1232)
		b, later := s.take(m, netip.MustParseAddr(c.client), false, new(scratch))
		if later != nil {
			replies := make(chan []byte, 1)
			s.wait(later, func(b []byte) { replies <- b })
			b = <-replies
		}
		assert.InDelta(t, c.ttl, firstTTL(b), 30, "%s for %s", c.name, c.client)
	}
}

// What is behind a static alias is as old as it is in the cache.
func TestAliasTTL(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte { return withAddress(q, 100) })
	s := testServer(t, func(c *Config) {
		c.MaxTTL = 90 * time.Second
		c.Static = []Static{{Name: "out.lan", Type: "CNAME", CNAME: "a.example", TTL: time.Hour}}
	}, u)
	ttl := func() (last int) {
		_, _ = eachRecord(ask(s, message("out.lan", typeA, 0), false), func(_ int, r record) { last = int(r.ttl) })
		return last
	}
	assert.LessOrEqual(t, ttl(), 90, "cache-max-ttl")
	s.cache.epoch = s.cache.epoch.Add(-60 * time.Second)
	assert.LessOrEqual(t, ttl(), 40)
	assert.Len(t, u.questions(), 1)
}

// What is no query gets FORMERR, NOTIMP or nothing.
func TestBadQueries(t *testing.T) {
	s := testServer(t, nil)
	good := message("a.example", typeA, 1232)
	with := func(at int, v byte) []byte { b := append([]byte(nil), good...); b[at] = v; return b }
	assert.Nil(t, ask(s, good[:11], false))
	assert.Nil(t, ask(s, with(2, 0x80), false), "a response")
	assert.Equal(t, codeNotImplemented, code(ask(s, with(2, 0x28), false)), "an update")
	assert.Equal(t, codeFormat, code(ask(s, with(5, 2), false)), "two questions")
	assert.Equal(t, codeFormat, code(ask(s, good[:20], false)))
	assert.Equal(t, codeFormat, code(ask(s, with(12, 0xc0), false)), "a compressed name")
	assert.Equal(t, codeNotImplemented, code(ask(s, message("a.example", typeAXFR, 0), true)))
	version := ask(s, with(len(good)-5, 1), false)
	assert.Equal(t, byte(1), version[len(version)-6], "BADVERS")
	assert.Equal(t, codeFailure, code(ask(s, good, false)), "no servers")
}

// Sockets of Listen, over UDP and TCP; the answer comes from the address that was asked.
func TestSockets(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte { return withAddress(q, 60) })
	s := testServer(t, nil, u)
	first, second, err := Listen()
	require.NoError(t, err)
	udp, tcp, err := sockets(first, second)
	require.NoError(t, err)
	s.work.Go(func() { s.serveUDP(udp) })
	s.work.Go(func() { s.serveTCP(tcp) })
	defer func() { udp.Close(); tcp.Close() }()
	conn, err := net.Dial("udp4", "127.0.9.9:53") // takes answers of this address only
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write(message("a.example", typeA, 0))
	require.NoError(t, err)
	b := make([]byte, 512)
	n, err := conn.Read(b)
	require.NoError(t, err)
	assert.Equal(t, 1, answerCount(b[:n]))
	stream, err := net.Dial("tcp4", "127.0.9.9:53")
	require.NoError(t, err)
	defer stream.Close()
	for range 2 {
		require.NoError(t, resolve.WriteTCP(stream, message("a.example", typeA, 0)))
		b, err := resolve.ReadTCP(stream, 65535)
		require.NoError(t, err)
		assert.Equal(t, 1, answerCount(b))
	}
}

// Queries that come together are answered each, those too that have to be asked for; one that is too
// large is not.
func TestBatch(t *testing.T) {
	u := serveAt(t, "127.0.1.1", func(q *query, _ string) []byte { return withAddress(q, 60) })
	s := testServer(t, func(c *Config) { c.Static = []Static{{Name: "nas.lan", Type: "A", Address: someone}} }, u)
	first, second, err := Listen()
	require.NoError(t, err)
	udp, tcp, err := sockets(first, second)
	require.NoError(t, err)
	defer func() { udp.Close(); tcp.Close() }()
	conn, err := net.Dial("udp4", "127.0.9.9:53")
	require.NoError(t, err)
	defer conn.Close()
	want := map[uint16]bool{}
	for i := range uint16(3 * batchSize) {
		m := message([]string{"nas.lan", "a.example"}[i%2], typeA, 0)
		binary.BigEndian.PutUint16(m, i)
		if i == 4 {
			m = append(m, make([]byte, maxQuery)...)
		} else {
			want[i] = true
		}
		_, err := conn.Write(m)
		require.NoError(t, err)
	}
	s.work.Go(func() { s.serveUDP(udp) }) // all are there
	for range len(want) {
		b := make([]byte, 512)
		n, err := conn.Read(b)
		require.NoError(t, err)
		assert.Equal(t, 1, answerCount(b[:n]))
		assert.True(t, want[idOf(b)], "answered once")
		delete(want, idOf(b))
	}
}

// A configuration goes through the link as it is, without what is disabled.
func TestConfigOnTheLink(t *testing.T) {
	c := Default()
	c.CacheSize, c.MaxQueries, c.MaxSessions = 20480, 1000, 60
	c.Static = []Static{{Name: "a", Regexp: "b", Type: "TXT", Text: "x", TTL: time.Hour, MatchSubdomain: true}, {Name: "b", Type: "A", Disabled: true},
		{Name: "c", Type: "MX", MXPreference: 65535, MXExchange: "d"}, {Name: "c", Type: "NS", NS: "d"},
		{Name: "c", Type: "SRV", SRVPriority: 1, SRVWeight: 2, SRVPort: 3, SRVTarget: "d"}}
	var e service.Encoder
	c.encode(&e, []netip.Addr{someone})
	d := service.NewDecoder(e.Bytes())
	got, servers := decodeConfig(d)
	require.NoError(t, d.End())
	c.Static = slices.Delete(c.Static, 1, 2)
	c.CacheSize, c.MaxQueries, c.MaxSessions = MaxCacheSize, MaxQueries, MaxSessions // more is not used
	assert.Equal(t, c, got)
	assert.Equal(t, []netip.Addr{someone}, servers)
}

func FuzzParseQuery(f *testing.F) {
	f.Add(message("a.example", typeA, 1232))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, answered, err := new(scratch).parseQuery(b)
		if !answered || err != nil || q.unsupported {
			return
		}
		again, _, err := new(scratch).parseQuery(q.ask(1))
		require.NoError(t, err)
		require.Equal(t, q.appendKey(nil), again.appendKey(nil))
	})
}

func FuzzParseAnswer(f *testing.F) {
	q, _, _ := new(scratch).parseQuery(message("a.example", typeA, 1232))
	f.Add(withAddress(q, 60))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := parseAnswer(b, q, q.id)
		if !ok {
			return
		}
		if whole := !a.truncated && (a.code != codeFormat && a.code != codeNotImplemented); whole {
			require.Len(t, a.forClient(nil, q, 5, 60), len(b))
		}
		for _, o := range []outcome{{}, {known: true}, {alias: q.reply(codeOK), target: "a.example"}} {
			got, _, err := new(scratch).parseQuery(o.final(nil, q, a, 5, 60))
			require.ErrorIs(t, err, errMalformed) // an answer is none
			require.Nil(t, got)
		}
	})
}

// A name that is longer than RFC 1035 allows, by one byte, is none: nothing that has a room for names has one for it.
func TestLongestName(t *testing.T) {
	longest := strings.Repeat(strings.Repeat("x", MaxLabel)+".", 3) + strings.Repeat("y", MaxName-3*(MaxLabel+1))
	for name, want := range map[string]bool{longest: true, longest + "y": false, "x." + longest[1:]: false} {
		_, _, ok := readName(appendName(nil, name), 0)
		assert.Equal(t, want, ok, "%d bytes", len(name))
	}
}

// Behind many questions at once memory is given back, and behind as many again.
func TestGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testServer(t, nil) // which has no server to ask
		asked := func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.asked
		}
		for range 2 {
			for i := range manyAsked + 1 {
				_, later := s.take(message(fmt.Sprint("host", i), typeA, 0), someone, false, new(scratch))
				s.wait(later, func([]byte) {})
				synctest.Wait()
			}
			assert.Equal(t, manyAsked+1, asked())
			time.Sleep(keepMemory)
			synctest.Wait()
			assert.Zero(t, asked())
		}
	})
}

// An upstream server, or who pretends to be it, says what is no answer to the question: nothing of it is believed, the right
// answer that comes behind it is, and the cache has that alone.
func TestHostileUpstream(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 1, 1), Port: 5353})
	require.NoError(t, err)
	defer conn.Close()
	forger, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 1, 1)})
	require.NoError(t, err)
	defer forger.Close()
	forged := func(q *query, change func(b []byte) []byte) []byte {
		return change(addRecord(q.reply(codeOK), q.name, typeA, 3600, []byte{203, 0, 113, 66}))
	}
	wrong := []func(b []byte) []byte{
		func(b []byte) []byte { b[1]++; return b },                                         // another id
		func(b []byte) []byte { b[2] &^= bitResponse >> 8; return b },                      // a question
		func(b []byte) []byte { b[headerSize+1] ^= 3; return b },                           // of another name
		func(b []byte) []byte { b[headerSize+12] = typeAAAA; return b },                    // of another type
		func(b []byte) []byte { b[4], b[5] = 0, 0; return b },                              // of none
		func(b []byte) []byte { b[6], b[7] = 0xff, 0xff; return b },                        // fewer records than it says
		func(b []byte) []byte { return b[:len(b)-1] },                                      // cut off
		func(b []byte) []byte { return b[:headerSize-1] },                                  // not even a header
		func(b []byte) []byte { return append(b[:headerSize:headerSize], 0xc0, 12, 0, 1) }, // a name that leads to itself
		func(b []byte) []byte { return append(b, make([]byte, 2*maxAnswer)...)[1:] },       // more than is read, of nothing
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDP(b)
			if err != nil {
				return
			}
			q, _, err := new(scratch).parseQuery(b[:n])
			if err != nil {
				continue
			}
			_, _ = forger.WriteToUDP(forged(q, func(b []byte) []byte { return b }), from) // from another port
			for _, change := range wrong {
				_, _ = conn.WriteToUDP(forged(q, change), from)
			}
			_, _ = conn.WriteToUDP(withAddress(q, 60), from)
		}
	}()
	s := testServer(t, func(c *Config) { c.ServerTimeout, c.TotalTimeout = time.Minute, time.Minute }, &upstream{addr: netip.MustParseAddr("127.0.1.1")})
	for range 2 {
		b := ask(s, message("a.example", typeA, 0), false)
		assert.Equal(t, 1, answerCount(b))
		assert.Equal(t, []byte{192, 0, 2, 7}, b[len(b)-4:])
	}
	all, _ := s.snapshot()
	require.Len(t, all, 1)
	assert.Equal(t, "192.0.2.7", all[0].Data)
}

// FuzzConfig: no configuration makes the server fail, whatever it is asked, and it is written again as it was read.
func FuzzConfig(f *testing.F) {
	c := Default()
	for _, typ := range Types {
		c.Static = append(c.Static, Static{Name: strings.ToLower(typ) + ".lan", Type: typ, Address: someone, CNAME: "a.lan", ForwardTo: someone, Text: "x", NS: "a.lan",
			MXExchange: "a.lan", SRVTarget: "a.lan", TTL: time.Hour, MatchSubdomain: typ == "A"})
	}
	c.Static = append(c.Static, Static{Regexp: "^b[0-9]", Type: "AAAA", Address: netip.MustParseAddr("fd00::1")})
	var e service.Encoder
	c.encode(&e, []netip.Addr{someone, netip.MustParseAddr("fd00::53")})
	for _, name := range []string{"a.lan", "x.a.lan", "cname.lan", "b7"} {
		f.Add(e.Bytes(), message(name, typeA, 1232))
	}
	f.Fuzz(func(t *testing.T, b, question []byte) {
		d := service.NewDecoder(b)
		c, servers := decodeConfig(d)
		if d.End() != nil {
			return
		}
		var again service.Encoder
		c.encode(&again, servers)
		d = service.NewDecoder(again.Bytes())
		same, sameServers := decodeConfig(d)
		require.NoError(t, d.End())
		require.Equal(t, c, same)
		require.Equal(t, servers, sameServers)
		s := newServer(t.Context())
		s.configure(c, servers)
		answer, later := s.take(question, someone, false, new(scratch))
		require.False(t, answer != nil && later != nil)
		if later != nil {
			later.final(nil, later.q, answerOf(later), 5, 60)
		}
		s.snapshot()
	})
}

// answerOf is what an upstream server says to what w waits for.
func answerOf(w *waiter) answer {
	q := w.q
	if w.target != "" {
		q = q.about(w.target)
	}
	a, ok := parseAnswer(withAddress(q, 60), q, q.id)
	if !ok { // a name that no message can have
		return answer{message: w.q.reply(codeFailure), code: codeFailure}
	}
	return a
}

// FuzzHosts: the names of hosts with a lease are written again as they were read, and each is answered.
func FuzzHosts(f *testing.F) {
	var e service.Encoder
	encodeHosts(&e, map[string]Host{"laptop": {Address: someone}, "laptop.lan": {Address: someone}, "phone": {Address: netip.MustParseAddr("192.168.0.10"), Ending: true}})
	f.Add(e.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		d := service.NewDecoder(b)
		all := decodeHosts(d)
		if d.End() != nil {
			return
		}
		var again service.Encoder
		count := encodeHosts(&again, all)
		d = service.NewDecoder(again.Bytes())
		same := decodeHosts(d)
		require.NoError(t, d.End())
		require.Len(t, same, count)
		for name, h := range same {
			require.Equal(t, all[name], h)
		}
		n := names{hosts: newHosts(all)}
		for name := range all {
			name = strings.ToLower(name)
			o := n.answer(&query{name: name, typ: typeA, class: classIN, question: make([]byte, 5)})
			require.Equal(t, 1, answerCount(o.answer), "%q", name)
		}
	})
}
