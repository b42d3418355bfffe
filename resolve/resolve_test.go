package resolve

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// asLookup has this program look a name up at the server that it names: see TestStopped.
const asLookup = "POSTERN_TEST_LOOKUP"

// stoppedWait is how long that lookup waits for its one answer.
const stoppedWait = 2 * time.Second

// TestMain fails when lookups leave goroutines or descriptors behind.
func TestMain(m *testing.M) {
	if server := os.Getenv(asLookup); server != "" {
		r := New(Options{Wait: stoppedWait, Rounds: 1, Total: stoppedWait})
		fmt.Println(r.LookupOne(context.Background(), "a.test", Servers{netip.MustParseAddrPort(server)}))
		return
	}
	// The poller of package net has descriptors of its own, from its first socket on.
	warm, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	warm.Close()
	goroutines, descriptors := runtime.NumGoroutine(), countDescriptors()
	code := m.Run()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		os.Exit(code) // who fuzzes leaves something behind, in package testing
	}
	for end := time.Now().Add(patience); code == 0 && (runtime.NumGoroutine() > goroutines || countDescriptors() > descriptors); {
		if time.Now().After(end) {
			fmt.Printf("left behind: %d goroutines where %d were, %d descriptors where %d were\n",
				runtime.NumGoroutine(), goroutines, countDescriptors(), descriptors)
			pprof.Lookup("goroutine").WriteTo(os.Stdout, 1)
			code = 1
		}
		time.Sleep(10 * time.Millisecond)
	}
	os.Exit(code)
}

func countDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(entries)
}

// nameServer answers on UDP and TCP, as reply says.
type nameServer struct {
	at  netip.AddrPort
	udp *net.UDPConn
	tcp *net.TCPListener

	asked, answered, askedTCP atomic.Int64
	running                   sync.WaitGroup

	mu  sync.Mutex
	who map[string]bool // has asked: "udp ADDRESS"
}

func (s *nameServer) note(network string, client net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.who[network+" "+netip.MustParseAddrPort(client.String()).Addr().String()] = true
}

func (s *nameServer) clients() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.who)
}

// reply returns the messages to send as the answer to a question, each in a datagram.
type reply func(t *testing.T, network string, question []byte) [][]byte

// serve starts a server on a free port of loopback.
func serve(t *testing.T, r reply) *nameServer {
	s := &nameServer{who: map[string]bool{}}
	require.Eventually(t, func() bool { // until the port is free for both
		var err error
		s.udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(t, err)
		s.at = s.udp.LocalAddr().(*net.UDPAddr).AddrPort()
		if s.tcp, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(s.at)); err != nil {
			s.udp.Close()
		}
		return err == nil
	}, patience, time.Millisecond)
	s.running.Go(func() {
		b := make([]byte, 1500)
		for {
			n, from, err := s.udp.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			s.asked.Add(1)
			s.note("udp", net.UDPAddrFromAddrPort(from))
			for _, m := range r(t, "udp", b[:n]) {
				s.udp.WriteToUDPAddrPort(m, from)
			}
			s.answered.Add(1)
		}
	})
	s.running.Go(func() {
		for {
			conn, err := s.tcp.Accept()
			if err != nil {
				return
			}
			s.askedTCP.Add(1)
			s.note("tcp", conn.RemoteAddr())
			s.running.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(patience))
				var size [2]byte
				if _, err := io.ReadFull(conn, size[:]); err != nil {
					return
				}
				b := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(conn, b); err != nil {
					return
				}
				for _, m := range r(t, "tcp", b) {
					conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
				}
			})
		}
	})
	t.Cleanup(func() {
		s.udp.Close()
		s.tcp.Close()
		s.running.Wait()
	})
	return s
}

// message is an answer to a question, made by the library that other programs use too.
func message(t *testing.T, question []byte, change func(*dnsmessage.Message)) []byte {
	var m dnsmessage.Message
	if !assert.NoError(t, m.Unpack(question)) {
		return nil
	}
	m.Response, m.RecursionAvailable = true, true
	if change != nil {
		change(&m)
	}
	b, err := m.Pack()
	assert.NoError(t, err)
	return b
}

// header is the header of a record of a name.
func header(name string) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: 60}
}

func a(name, address string) dnsmessage.Resource {
	return dnsmessage.Resource{Header: header(name), Body: &dnsmessage.AResource{A: netip.MustParseAddr(address).As4()}}
}

func cname(name, target string) dnsmessage.Resource {
	return dnsmessage.Resource{Header: header(name), Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(target)}}
}

// answers has these records in its one answer.
func answers(records ...dnsmessage.Resource) reply {
	// Packing a record writes to it.
	return changed(func(m *dnsmessage.Message) { m.Answers = slices.Clone(records) })
}

// changed is one answer, changed.
func changed(change func(*dnsmessage.Message)) reply {
	return func(t *testing.T, _ string, question []byte) [][]byte {
		return [][]byte{message(t, question, change)}
	}
}

func code(c dnsmessage.RCode) reply {
	return changed(func(m *dnsmessage.Message) { m.RCode = c })
}

func silent(*testing.T, string, []byte) [][]byte { return nil }

// good has the address that no other server has.
var good = answers(a("a.test.", "192.0.2.7"))

// patient waits for servers that answer, however slow this machine is.
func patient() *Resolver { return New(Options{Wait: patience, Total: patience}) }

// impatient gives a silent server up soon. One that answers does not escape it, however
// slow this machine is: it is asked again, and longer.
func impatient() *Resolver {
	return New(Options{Wait: 10 * time.Millisecond, Rounds: 12, Total: patience})
}

func TestLookup(t *testing.T) {
	many := make([]dnsmessage.Resource, 100)
	for i := range many {
		many[i] = a("a.test.", fmt.Sprintf("192.0.2.%d", i))
	}
	for _, c := range []struct {
		name    string
		servers []reply
		want    []string // addresses
		err     string   // with %[1]v for the first server
		asked   []int64  // how often each server was asked by UDP, unless nil
		silent  bool     // a server says nothing
	}{
		{name: "one address", servers: []reply{good}, want: []string{"192.0.2.7"}, asked: []int64{1}},
		{name: "the first server alone is asked", servers: []reply{good, good}, want: []string{"192.0.2.7"}, asked: []int64{1, 0}},
		{name: "two addresses, and another name's", want: []string{"192.0.2.1", "192.0.2.2"},
			servers: []reply{answers(a("b.test.", "192.0.2.9"), a("a.test.", "192.0.2.1"), a("a.test.", "192.0.2.2"))}},
		{name: "letters in another case", servers: []reply{answers(a("A.tEST.", "192.0.2.7"))}, want: []string{"192.0.2.7"}},
		{name: "question in another case", want: []string{"192.0.2.7"}, servers: []reply{changed(func(m *dnsmessage.Message) {
			m.Questions[0].Name = dnsmessage.MustNewName("A.Test.")
			m.Answers = []dnsmessage.Resource{a("a.test.", "192.0.2.7")}
		})}},
		{name: "aliases", want: []string{"192.0.2.7"},
			servers: []reply{answers(cname("a.test.", "b.test."), cname("b.test.", "c.test."), a("c.test.", "192.0.2.7"))}},
		{name: "aliases behind their address", want: []string{"192.0.2.7"},
			servers: []reply{answers(a("c.test.", "192.0.2.7"), cname("b.test.", "c.test."), cname("a.test.", "b.test."))}},
		{name: "IPv6 beside IPv4", want: []string{"192.0.2.7"}, servers: []reply{answers(
			dnsmessage.Resource{Header: header("a.test."), Body: &dnsmessage.AAAAResource{AAAA: [16]byte{15: 1}}}, a("a.test.", "192.0.2.7"))}},
		{name: "an alias that leads nowhere", servers: []reply{answers(cname("a.test.", "b.test.")), good}, err: "it has no IPv4 address", asked: []int64{1, 0}},
		{name: "no address is final", servers: []reply{changed(nil), good}, err: "it has no IPv4 address", asked: []int64{1, 0}},
		{name: "no name is final", servers: []reply{code(dnsmessage.RCodeNameError), good}, err: "no such name", asked: []int64{1, 0}},
		{name: "server failure", servers: []reply{code(dnsmessage.RCodeServerFailure), good}, want: []string{"192.0.2.7"}, asked: []int64{1, 1}},
		{name: "refused", servers: []reply{code(dnsmessage.RCodeRefused), good}, want: []string{"192.0.2.7"}, asked: []int64{1, 1}},
		{name: "not recursive", servers: []reply{changed(func(m *dnsmessage.Message) { m.RecursionAvailable = false }), good},
			want: []string{"192.0.2.7"}},
		{name: "all fail", servers: []reply{code(dnsmessage.RCodeServerFailure), code(dnsmessage.RCodeRefused), code(dnsmessage.RCodeNotImplemented), code(dnsmessage.RCodeFormatError), code(11)},
			err: "name server %[1]v failed to find out (SERVFAIL); name server %[2]v refuses to answer (REFUSED); name server %[3]v does not support the question (NOTIMP); " +
				"name server %[4]v does not understand the question (FORMERR); name server %[5]v answers with error code 11", asked: []int64{1, 1, 1, 1, 1}},
		{name: "silent", silent: true, servers: []reply{silent, good}, want: []string{"192.0.2.7"}},
		{name: "the first 32 of many by TCP", servers: []reply{func(t *testing.T, network string, question []byte) [][]byte {
			return [][]byte{message(t, question, func(m *dnsmessage.Message) {
				if m.Truncated = network == "udp"; !m.Truncated {
					m.Answers = slices.Clone(many)
				}
			})}
		}, good}, want: func() (all []string) {
			for i := range 32 {
				all = append(all, fmt.Sprintf("192.0.2.%d", i))
			}
			return all
		}(), asked: []int64{1, 0}},
		{name: "aliases without end", servers: []reply{answers(cname("a.test.", "b.test."), cname("b.test.", "a.test."))},
			err: "name server %[1]v sent more than 8 aliases"},
		{name: "truncated over TCP too", servers: []reply{changed(func(m *dnsmessage.Message) { m.Truncated = true }), good}, want: []string{"192.0.2.7"}},
		{name: "truncated, and no answer over TCP", want: []string{"192.0.2.7"}, servers: []reply{func(t *testing.T, network string, question []byte) [][]byte {
			if network == "tcp" {
				return nil
			}
			return [][]byte{message(t, question, func(m *dnsmessage.Message) { m.Truncated = true })}
		}, good}},
		{name: "too long over TCP", err: "name server %[1]v sent an answer of 65535 bytes, more than 16384", servers: []reply{func(t *testing.T, network string, question []byte) [][]byte {
			if network == "tcp" {
				return [][]byte{make([]byte, 65535)}
			}
			return [][]byte{message(t, question, func(m *dnsmessage.Message) { m.Truncated = true })}
		}}},
		{name: "another question over TCP", err: "name server %[1]v sent what is not the answer to the question", servers: []reply{func(t *testing.T, network string, question []byte) [][]byte {
			return [][]byte{message(t, question, func(m *dnsmessage.Message) {
				m.Truncated = network == "udp"
				if network == "tcp" {
					m.ID++
				}
			})}
		}}},
		{name: "forged answers come first", want: []string{"192.0.2.7"}, servers: []reply{func(t *testing.T, _ string, question []byte) [][]byte {
			forged := func(change func(*dnsmessage.Message)) []byte {
				return message(t, question, func(m *dnsmessage.Message) {
					m.Answers = []dnsmessage.Resource{a("a.test.", "203.0.113.1")}
					change(m)
				})
			}
			return [][]byte{
				{}, []byte("noise"), question,
				forged(func(m *dnsmessage.Message) { m.ID++ }),
				forged(func(m *dnsmessage.Message) { m.Response = false }),
				forged(func(m *dnsmessage.Message) { m.OpCode = 2 }),
				forged(func(m *dnsmessage.Message) { m.Questions = nil }),
				forged(func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("b.test.") }),
				forged(func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeAAAA }),
				forged(func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS }),
				forged(func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) }),
				message(t, question, func(m *dnsmessage.Message) { m.Answers = []dnsmessage.Resource{a("a.test.", "192.0.2.7")} }),
			}
		}}},
		{name: "malformed", err: "name server %[1]v sent a malformed answer: ", servers: []reply{func(t *testing.T, _ string, question []byte) [][]byte {
			m := message(t, question, func(m *dnsmessage.Message) { m.Answers = []dnsmessage.Resource{a("a.test.", "192.0.2.7")} })
			return [][]byte{m[:len(m)-2]}
		}}},
		{name: "names that point at themselves", err: "name server %[1]v sent a malformed answer: ", servers: []reply{func(t *testing.T, _ string, question []byte) [][]byte {
			m := message(t, question, nil)
			binary.BigEndian.PutUint16(m[6:], 1)
			return [][]byte{append(m, 0xc0, byte(len(m)), 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7)}
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var servers Servers
			var started []*nameServer
			var texts []any
			for _, r := range c.servers {
				s := serve(t, r)
				started, servers, texts = append(started, s), append(servers, s.at), append(texts, s.at)
			}
			r := patient()
			if c.silent {
				r = impatient()
			}
			got, err := r.Lookup(t.Context(), "a.test", servers)
			if c.err != "" {
				want := c.err
				if strings.Contains(want, "%") {
					want = fmt.Sprintf(want, texts...)
				}
				require.ErrorContains(t, err, "address of a.test: "+want)
			} else {
				require.NoError(t, err)
				var all []string
				for _, address := range got {
					all = append(all, address.String())
				}
				assert.Equal(t, c.want, all)
			}
			for i, n := range c.asked {
				assert.Equal(t, n, started[i].asked.Load(), "server %d", i)
			}
		})
	}
}

// TestClosedPort has a server that is not there, which the kernel says at once.
func TestClosedPort(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	closed := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	require.NoError(t, conn.Close())
	r := New(Options{Wait: patience, Total: patience})
	_, err = r.Lookup(t.Context(), "a.test", Servers{closed})
	require.EqualError(t, err, fmt.Sprintf("address of a.test: name server %s cannot be asked: connection refused", closed))
	got, err := r.LookupOne(t.Context(), "a.test", Servers{closed, serve(t, good).at})
	require.NoError(t, err)
	assert.Equal(t, "192.0.2.7", got.String())
}

func TestNothingIsAsked(t *testing.T) {
	s := serve(t, good)
	long := strings.Repeat("a", 63)
	for _, c := range []struct{ host, want, err string }{
		{"192.0.2.1", "192.0.2.1", ""},
		{"::ffff:192.0.2.1", "192.0.2.1", ""},
		{"2001:db8::1", "", `address of "2001:db8::1": not a host name`},
		{"", "", `address of "": not a host name`},
		{".", "", `address of ".": not a host name`},
		{"a..test", "", `address of "a..test": not a host name`},
		{".test", "", `address of ".test": not a host name`},
		{"a test", "", `address of "a test": not a host name`},
		{"a\x1b[2J", "", `address of "a\x1b[2J": not a host name`},
		{"ä.test", "", `address of "ä.test": not a host name`},
		{"10.0.0", "", `address of "10.0.0": not a host name`},
		{long + "a.test", "", "not a host name"},
		{strings.Repeat(long+".", 4), "", "not a host name"},
	} {
		t.Run(c.host, func(t *testing.T) {
			known, knownErr, ok := patient().Known(c.host, Servers{s.at})
			assert.True(t, ok, "it needs no question")
			all, err := patient().Lookup(t.Context(), c.host, Servers{s.at})
			assert.Equal(t, all, known)
			assert.Equal(t, fmt.Sprint(err), fmt.Sprint(knownErr))
			got, err := patient().LookupOne(t.Context(), c.host, Servers{s.at})
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, got.String())
		})
	}
	assert.Zero(t, s.asked.Load())
	_, err := patient().Lookup(t.Context(), "a.test", nil)
	require.EqualError(t, err, "address of a.test: no name server is set")
	require.ErrorIs(t, err, ErrNoServers)
}

// TestLongestName asks for a name that is as long as names may be.
func TestLongestName(t *testing.T) {
	label := strings.Repeat("a", 63)
	name := strings.Join([]string{label, label, label, strings.Repeat("b", 61)}, ".")
	require.Len(t, name, 253)
	for _, n := range []string{name, name + ".", "_a-1.test", "x"} {
		s := serve(t, answers(a(strings.TrimSuffix(n, ".")+".", "192.0.2.7")))
		got, err := patient().LookupOne(t.Context(), n, Servers{s.at})
		require.NoError(t, err)
		assert.Equal(t, "192.0.2.7", got.String())
	}
}

// TestQuestions looks at what servers are sent: one question for an address, with an id and
// a port that cannot be guessed from those before.
func TestQuestions(t *testing.T) {
	var mu sync.Mutex
	ids, ports := map[uint16]int{}, map[uint16]int{}
	s, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		b := make([]byte, 1500)
		for {
			n, from, err := s.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if !assert.NoError(t, m.Unpack(b[:n])) {
				continue
			}
			assert.Equal(t, []dnsmessage.Question{{Name: dnsmessage.MustNewName("a.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}, m.Questions)
			assert.Equal(t, dnsmessage.Header{ID: m.ID, RecursionDesired: true}, m.Header)
			assert.Empty(t, m.Additionals)
			mu.Lock()
			ids[m.ID]++
			ports[from.Port()]++
			mu.Unlock()
			s.WriteToUDPAddrPort(good(t, "udp", b[:n])[0], from)
		}
	})
	const lookups = 200
	r := patient()
	for range lookups {
		_, err := r.Lookup(t.Context(), "a.test", Servers{s.LocalAddr().(*net.UDPAddr).AddrPort()})
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	running.Wait()
	// That more than a tenth of 200 are the same of 65,536 or 28,232 never happens by chance.
	assert.Greater(t, len(ids), lookups*9/10)
	assert.Greater(t, len(ports), lookups*9/10)
}

// TestBounds has many more lookups than places, of a server that says nothing, and ends
// them when they have begun: no more run at a time, and what they had is free at once.
func TestBounds(t *testing.T) {
	const limit, lookups = 3, 30
	s := serve(t, silent)
	var cancels []context.CancelFunc
	before := countDescriptors()
	r := New(Options{Limit: limit, Wait: time.Hour, Total: time.Hour})
	var running sync.WaitGroup
	for i := range lookups {
		ctx, cancel := context.WithCancel(t.Context())
		running.Go(func() {
			_, err := r.Lookup(ctx, "a.test", Servers{s.at})
			assert.ErrorIs(t, err, context.Canceled)
		})
		// One after the other: the server has been asked for it, or it has no place.
		require.Eventually(t, func() bool { return s.asked.Load() == int64(min(i+1, limit)) }, patience, time.Millisecond)
		assert.LessOrEqual(t, countDescriptors(), before+limit)
		cancels = append(cancels, cancel)
	}
	for _, cancel := range cancels {
		cancel()
	}
	running.Wait()
	// Not eventually: a lookup is over when it returns.
	assert.Equal(t, before, countDescriptors())
	assert.Empty(t, r.places)
}

// TestCancel ends lookups that wait for an answer, over UDP and over TCP.
func TestCancel(t *testing.T) {
	released := make(chan struct{})
	for _, c := range []struct {
		name    string
		reply   reply
		reached func(*nameServer) bool
	}{
		{"UDP", silent, func(s *nameServer) bool { return s.asked.Load() > 0 }},
		{"TCP", func(t *testing.T, network string, question []byte) [][]byte {
			if network == "tcp" {
				<-released // the connection stays open, and nothing comes
				return nil
			}
			return [][]byte{message(t, question, func(m *dnsmessage.Message) { m.Truncated = true })}
		}, func(s *nameServer) bool { return s.askedTCP.Load() > 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, c.reply)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() {
				_, err := New(Options{Wait: time.Hour, Total: time.Hour}).Lookup(ctx, "a.test", Servers{s.at})
				ended <- err
			}()
			require.Eventually(t, func() bool { return c.reached(s) }, patience, time.Millisecond)
			cancel()
			require.EqualError(t, <-ended, "address of a.test: context canceled")
			if c.name == "TCP" {
				close(released)
			}
		})
	}
}

// TestRounds looks at who is asked when, and for how long.
func TestRounds(t *testing.T) {
	first, second := netip.MustParseAddrPort("10.0.0.1:53"), netip.MustParseAddrPort("10.0.0.2:53")
	type question struct {
		server netip.AddrPort
		wait   time.Duration
	}
	for _, c := range []struct {
		name   string
		answer map[netip.AddrPort]error
		want   []question
		err    string
	}{
		{"all silent", map[netip.AddrPort]error{first: errSilent, second: errSilent},
			[]question{{first, time.Second}, {second, time.Second}, {first, 2 * time.Second}, {second, 2 * time.Second}},
			"name server 10.0.0.1 did not answer; name server 10.0.0.2 did not answer"},
		{"one refuses", map[netip.AddrPort]error{first: refusal(dnsmessage.RCodeRefused), second: errSilent},
			[]question{{first, time.Second}, {second, time.Second}, {second, 2 * time.Second}},
			"name server 10.0.0.1 refuses to answer (REFUSED); name server 10.0.0.2 did not answer"},
		{"one knows", map[netip.AddrPort]error{first: errSilent, second: ErrNotFound},
			[]question{{first, time.Second}, {second, time.Second}}, "no such name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := New(Options{Wait: time.Second, Rounds: 2, Total: time.Hour})
			var asked []question
			r.ask = func(_ context.Context, server netip.AddrPort, name string, wait time.Duration) (answer, error) {
				assert.Equal(t, "a.test", name)
				asked = append(asked, question{server, wait})
				return answer{}, c.answer[server]
			}
			_, err := r.Lookup(t.Context(), "a.test", Servers{first, second})
			require.EqualError(t, err, "address of a.test: "+c.err)
			assert.Equal(t, c.want, asked)
		})
	}
}

// TestOwnServer: who reads that a lookup failed is told what is wrong with the servers that the server of this machine asks, too.
func TestOwnServer(t *testing.T) {
	own, other := netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("10.0.0.2:53")
	unreachable := errors.New("cannot be asked: connection refused")
	for _, c := range []struct {
		name       string
		own, other error
		alone      bool // there is no other
		want       string
	}{
		{"silent", errSilent, errSilent, false, "name server 10.0.0.2 did not answer"},
		{"silent, without other servers", errSilent, nil, true, "name server 127.0.0.1 did not answer"},
		{"no answer", errFailed, refusal(dnsmessage.RCodeRefused), false, "name server 10.0.0.2 refuses to answer (REFUSED)"},
		{"not there", unreachable, errSilent, false, "name server 127.0.0.1 cannot be asked: connection refused; name server 10.0.0.2 did not answer"},
		{"nobody to ask", ErrNoServers, nil, true, "no name server is set"},
		{"nobody to ask, other servers since", ErrNoServers, errSilent, false, "name server 10.0.0.2 did not answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := New(Options{Total: time.Hour})
			r.ask = func(_ context.Context, server netip.AddrPort, _ string, _ time.Duration) (answer, error) {
				if server == own {
					return answer{}, c.own
				}
				return answer{}, c.other
			}
			servers := Servers{own, other}
			if c.alone {
				servers = servers[:1]
			}
			_, err := r.Lookup(t.Context(), "a.test", servers)
			require.EqualError(t, err, "address of a.test: "+c.want)
			assert.Equal(t, c.alone && c.own == ErrNoServers, errors.Is(err, ErrNoServers))
		})
	}
}

// TestTotal bounds the lookups of many silent servers.
func TestTotal(t *testing.T) {
	s := serve(t, silent)
	servers := Servers{s.at, s.at, s.at}
	r := New(Options{Wait: time.Hour, Total: 40 * time.Millisecond})
	_, err := r.Lookup(t.Context(), "a.test", servers)
	require.EqualError(t, err, fmt.Sprintf("address of a.test: name server %s did not answer", s.at))
}

// TestStopped stops a process that looks a name up for longer than it waits for the answer.
func TestStopped(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	var child *exec.Cmd
	started := make(chan struct{})
	s := serve(t, func(t *testing.T, network string, question []byte) [][]byte {
		<-started
		assert.NoError(t, child.Process.Signal(syscall.SIGSTOP))
		time.Sleep(2 * stoppedWait) // not for something to happen: it is how long the process stands still
		return good(t, network, question)
	})
	child = exec.Command(self)
	child.Env = append(os.Environ(), asLookup+"="+s.at.String())
	var out bytes.Buffer
	child.Stdout, child.Stderr = &out, &out
	require.NoError(t, child.Start())
	close(started)
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	require.Eventually(t, func() bool {
		if s.answered.Load() == 1 {
			child.Process.Signal(syscall.SIGCONT)
		}
		return len(ended) == 1
	}, patience, 10*time.Millisecond)
	require.NoError(t, <-ended)
	assert.Equal(t, "192.0.2.7 <nil>\n", out.String())
}

func TestServers(t *testing.T) {
	for _, c := range []struct{ text, want, err string }{
		{"10.0.0.1", "10.0.0.1:53", ""},
		{"10.0.0.1:5353", "10.0.0.1:5353", ""},
		{"fd00::1", "[fd00::1]:53", ""},
		{"[fd00::1]:5353", "[fd00::1]:5353", ""},
		{"", "", `name server "": expected ADDRESS or ADDRESS:PORT`},
		{"dns.test", "", `name server "dns.test": expected ADDRESS or ADDRESS:PORT`},
		{"10.0.0.1:0", "", "expected ADDRESS or ADDRESS:PORT"},
		{"10.0.0.1:65536", "", "expected ADDRESS or ADDRESS:PORT"},
	} {
		t.Run(c.text, func(t *testing.T) {
			var s Servers
			err := s.Set(c.text)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				assert.Empty(t, s)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, s[0].String())
			assert.Equal(t, c.text, s.String())
			assert.Equal(t, []string{"--name-server=" + c.text}, s.Arguments())
		})
	}
	two := ServersAt(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"))
	assert.Equal(t, "10.0.0.1,10.0.0.2", two.String())
}

func TestSystem(t *testing.T) {
	dir := t.TempDir()
	f := files{hosts: filepath.Join(dir, "hosts"), resolv: filepath.Join(dir, "resolv.conf")}
	_, err := f.plan("a.test")
	require.EqualError(t, err, "no name server is set")
	require.NoError(t, os.WriteFile(f.hosts, []byte("127.0.0.1 localhost # own\n::1 six\n# 10.0.0.1 b.test\nx y\n\n10.0.0.2\tc.test A.test\n10.0.0.3 a.test a.test\n"), 0o600))
	require.NoError(t, os.WriteFile(f.resolv, []byte("; comment\nnameserver\nnameserver 10.0.0.53 #first\nnameserver fd00::1\nnameserver x\ndomain old.test\nsearch one.test two.test.\noptions ndots:2\n"), 0o600))
	servers := Servers{netip.MustParseAddrPort("10.0.0.53:53"), netip.MustParseAddrPort("[fd00::1]:53")}
	for _, c := range []struct {
		name string
		want plan
	}{
		{"localhost", plan{known: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}},
		{"a.test", plan{known: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")}}},
		{"A.TEST.", plan{known: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")}}},
		{"six", plan{names: []string{"six.one.test", "six.two.test.", "six"}, servers: servers}},
		{"b.test", plan{names: []string{"b.test", "b.test.one.test", "b.test.two.test."}, servers: servers}},
		{"b.test.", plan{names: []string{"b.test."}, servers: servers}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := f.plan(c.name)
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
	t.Run("a file that cannot be read", func(t *testing.T) {
		_, err := files{hosts: f.hosts, resolv: dir}.plan("b.test")
		require.ErrorIs(t, err, ErrNoServers)
		require.ErrorContains(t, err, "no name server is set: read "+dir)
	})
	t.Run("known", func(t *testing.T) {
		r := patient()
		r.system = f
		got, err := r.LookupSystem(t.Context(), "localhost")
		require.NoError(t, err)
		assert.Equal(t, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, got)
	})
}

// TestKnownSystem: what needs no question is known before it is looked up, and what was answered behind that.
func TestKnownSystem(t *testing.T) {
	dir := t.TempDir()
	r := patient()
	r.options.Cache = true
	r.system = files{hosts: filepath.Join(dir, "hosts"), resolv: filepath.Join(dir, "resolv.conf")}
	_, err, ok := r.KnownSystem("a.test")
	assert.True(t, ok)
	require.EqualError(t, err, "address of a.test: no name server is set")
	require.NoError(t, os.WriteFile(r.system.hosts, []byte("10.0.0.2 near\n"), 0o600))
	resolv := func(text string) { require.NoError(t, os.WriteFile(r.system.resolv, []byte(text), 0o600)) }
	resolv("nameserver 10.0.0.53\nsearch one.test two.test\n")
	r.ask = func(_ context.Context, _ netip.AddrPort, name string, _ time.Duration) (answer, error) {
		if name == "far.two.test" {
			return answer{addrs: []netip.Addr{netip.MustParseAddr("10.0.0.3")}, keep: time.Minute}, nil
		}
		return answer{keep: time.Minute}, ErrNotFound
	}
	for _, c := range []struct {
		host, want, err string
		asked           bool
	}{
		{host: "near", want: "[10.0.0.2]"},
		{host: "192.0.2.1", want: "[192.0.2.1]"},
		{host: "a..test", want: "[]", err: `address of "a..test": not a host name`},
		{host: "far", want: "[10.0.0.3]", asked: true},
		{host: "nowhere", want: "[]", err: "address of nowhere: no such name", asked: true},
	} {
		t.Run(c.host, func(t *testing.T) {
			_, _, ok := r.KnownSystem(c.host)
			assert.Equal(t, !c.asked, ok)
			r.LookupSystem(t.Context(), c.host)
			got, err, ok := r.KnownSystem(c.host)
			assert.True(t, ok)
			assert.Equal(t, c.want, fmt.Sprint(got))
			if c.err != "" {
				require.EqualError(t, err, c.err)
			} else {
				require.NoError(t, err)
			}
		})
	}
	resolv("nameserver 10.0.0.54\nsearch one.test two.test\n")
	_, _, ok = r.KnownSystem("far")
	assert.False(t, ok, "other servers have not said so")
}

// TestSearch asks for the names of a search list in turn.
func TestSearch(t *testing.T) {
	s := serve(t, func(t *testing.T, _ string, question []byte) [][]byte {
		return [][]byte{message(t, question, func(m *dnsmessage.Message) {
			if m.Questions[0].Name.String() == "host.two.test." {
				m.Answers = []dnsmessage.Resource{a("host.two.test.", "192.0.2.7")}
			} else {
				m.RCode = dnsmessage.RCodeNameError
			}
		})}
	})
	p := plan{names: []string{"host.one.test", "host.two.test", "host"}, servers: Servers{s.at}}
	got, err := patient().carryOut(t.Context(), func() (plan, error) { return p, nil })
	require.NoError(t, err)
	assert.Equal(t, []netip.Addr{netip.MustParseAddr("192.0.2.7")}, got)
	p.names = []string{"host.one.test", "host"}
	_, err = patient().carryOut(t.Context(), func() (plan, error) { return p, nil })
	require.ErrorIs(t, err, ErrNotFound)
}

// FuzzAnswer has a message of any bytes: it never is the answer unless it says so, and
// never more addresses than are returned.
func FuzzAnswer(f *testing.F) {
	q, err := newQuestion(0x1234, "a.test")
	require.NoError(f, err)
	question, err := q.append(nil)
	require.NoError(f, err)
	t := &testing.T{}
	f.Add(question)
	for _, r := range []reply{good, code(dnsmessage.RCodeNameError), changed(nil),
		changed(func(m *dnsmessage.Message) { m.Truncated = true }),
		answers(cname("a.test.", "b.test."), a("b.test.", "192.0.2.7"), cname("b.test.", "a.test."))} {
		f.Add(r(t, "udp", question)[0])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := q.answer(b)
		if err != nil {
			assert.Empty(t, got.addrs)
			return
		}
		assert.Equal(t, []byte{0x12, 0x34}, b[:2])
		assert.NotZero(t, b[2]&0x80, "it is a question")
		assert.Zero(t, b[3]&15, "it says that something is wrong")
		assert.NotEmpty(t, got.addrs)
		assert.LessOrEqual(t, len(got.addrs), maxAddresses)
		for _, address := range got.addrs {
			assert.True(t, address.Is4())
		}
	})
}

// FuzzValidName: what may be a host's name can be asked for, and it is that name which is asked for.
func FuzzValidName(f *testing.F) {
	for _, s := range []string{"a.test", "_a-1.test.", "10.0.0", "a..b", strings.Repeat("a", 63) + ".x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if !ValidName(host) {
			return
		}
		q, err := newQuestion(1, host)
		require.NoError(t, err)
		b, err := q.append(nil)
		require.NoError(t, err)
		var m dnsmessage.Message
		require.NoError(t, m.Unpack(b))
		require.Equal(t, strings.TrimSuffix(host, ".")+".", m.Questions[0].Name.String())
	})
}

// FuzzParseServer: a server is written as it can be read again.
func FuzzParseServer(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "10.0.0.1:5353", "fd00::1", "[fd00::1]:5353", "fe80::1%eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		server, err := ParseServer(text)
		if err != nil {
			return
		}
		again, err := ParseServer(serverText(server))
		require.NoError(t, err)
		require.Equal(t, server, again)
	})
}

// FuzzSystem: whatever is in the files, what comes of them can be asked for, and is bounded.
func FuzzSystem(f *testing.F) {
	f.Add("127.0.0.1 localhost\n10.0.0.1 a.test b # c", "nameserver 10.0.0.53\nsearch one.test .two\noptions x", "a.test")
	f.Fuzz(func(t *testing.T, hosts, resolv, name string) {
		if !ValidName(name) {
			return
		}
		dir := t.TempDir()
		at := files{hosts: filepath.Join(dir, "hosts"), resolv: filepath.Join(dir, "resolv.conf")}
		require.NoError(t, os.WriteFile(at.hosts, []byte(hosts), 0o600))
		require.NoError(t, os.WriteFile(at.resolv, []byte(resolv), 0o600))
		p, err := at.plan(name)
		if err != nil {
			return
		}
		assert.LessOrEqual(t, len(p.known), maxAddresses)
		assert.LessOrEqual(t, len(p.names), 1+maxSearch)
		for _, n := range p.names {
			assert.True(t, ValidName(n), n)
		}
		for _, s := range p.servers {
			assert.True(t, s.IsValid())
		}
	})
}
