package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/netcfg"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

const secret = "correct horse"

// router is a router with a configuration and without a machine, and those who log in to it.
type router struct {
	testing.TB

	mu       sync.Mutex
	config   console.Config
	sessions int // that are open
	most     int // of them
	wrong    int
	out      int // how many have logged out
	pings    int // that run
	trusted  int
	// holding, unless nil, is received from before a command runs.
	holding chan struct{}
}

func newRouter(t testing.TB, lines ...string) *router {
	return &router{TB: t, config: configured(t, strings.Join(lines, "\n"))}
}

var live = console.Live{
	Links: func() ([]netcfg.LinkState, error) {
		return []netcfg.LinkState{
			{Name: "ether1", Type: netcfg.Ether, Present: true, Up: true, Running: true, MTU: 1500, MAC: ether.MAC{2, 0, 0, 0, 0, 1}, RxBytes: 5000000000},
			{Name: "ether2", Type: netcfg.Ether, Present: true, Up: true, MTU: 1500, MAC: ether.MAC{2, 0, 0, 0, 0, 2}},
		}, nil
	},
	Resource: func() (console.Resource, error) {
		return console.Resource{Uptime: 26 * time.Hour, FreeMemory: 20_000_000, TotalMemory: 1 << 25, CPULoad: 0.5, CPUCount: 1, Architecture: "mipsle", Board: "malta", Version: "v1-5-gabcdef"}, nil
	},
}

// check is the checkPassword of r.
func (r *router) check(_ context.Context, user, text string) (Account, error) {
	if user == "busy" {
		return nil, errors.New("too many passwords are being checked")
	}
	if user != console.Admin || text != secret {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.wrong++
		return nil, nil
	}
	return account{r}, nil
}

type account struct{ *router }

func (a account) Session() (Session, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessions++
	a.most = max(a.most, a.sessions)
	return &fakeSession{router: a.router, closed: make(chan struct{})}, nil
}

func (a account) Logout() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.out++
}

func (account) OnEnd(func()) {}

// fakeSession is a session with r's configuration.
type fakeSession struct {
	*router
	once   sync.Once
	closed chan struct{}
}

func (s *fakeSession) hold() error {
	if s.holding == nil {
		return nil
	}
	select {
	case <-s.holding:
		return nil
	case <-s.closed:
		return net.ErrClosed
	}
}

func (s *fakeSession) Query(path string, where []console.Condition, proplist []string, each func(console.Row) error) error {
	if err := s.hold(); err != nil {
		return err
	}
	s.mu.Lock()
	rows, err := console.Query(s.config, live, path, where, proplist)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

func (s *fakeSession) Do(path, command string, out func(string) error, arguments ...console.Argument) (console.ID, error) {
	if err := s.hold(); err != nil {
		return 0, err
	}
	if command == "ping" && (path == "" || path == "tool") {
		return 0, s.ping(out, arguments)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	result, err := console.Do(s.config, live, path, command, arguments...)
	if err == nil {
		err = console.Validate(result.Config, []string{"ether1", "ether2"})
	}
	if err != nil {
		return 0, err
	}
	s.config = result.Config
	return result.Added, nil
}

func (s *fakeSession) Execute(line string, out func(string) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	result, err := (&console.Session{}).Execute(s.config, live, line)
	if err != nil {
		return out(err.Error() + "\r\n")
	}
	s.config = result.Config
	return out(strings.ReplaceAll(result.Output, "\n", "\r\n"))
}

func (s *fakeSession) Close() error {
	s.once.Do(func() {
		close(s.closed)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sessions--
	})
	return nil
}

// peer is a client.
type peer struct {
	*router
	conn net.Conn
	in   *reader
	over chan struct{} // closed when the server has done with it
}

// connect connects a client that has not logged in.
func (r *router) connect() *peer {
	ours, theirs := net.Pipe()
	p := &peer{router: r, conn: ours, in: &reader{from: bufio.NewReader(ours), limits: limits{1 << 20, 1 << 20, 1 << 20}}, over: make(chan struct{})}
	go func() {
		defer close(p.over)
		serve(context.Background(), theirs, r.check, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.trusted++
		})
	}()
	r.Cleanup(func() {
		ours.Close()
		p.wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		assert.Zero(r, r.sessions, "sessions stay open")
	})
	return p
}

// login connects a client that logs in.
func (r *router) login() *peer {
	p := r.connect()
	p.send("/login", "=name=admin", "=password="+secret)
	p.expect("!done")
	return p
}

// wait waits until the server has done with the client.
func (p *peer) wait() {
	select {
	case <-p.over:
	case <-time.After(patience):
		p.Error("the server goes on")
	}
}

func (p *peer) send(words ...string) {
	_, err := p.conn.Write(sentence(words...))
	require.NoError(p, err)
}

// receive returns the next reply, its words separated by blanks.
func (p *peer) receive() string {
	words, err := p.in.read()
	if err != nil {
		return err.Error()
	}
	assert.NotEmpty(p, words, "an empty sentence")
	return strings.Join(words, " ")
}

// expect compares the next replies.
func (p *peer) expect(replies ...string) {
	p.Helper()
	for _, want := range replies {
		require.Equal(p, want, p.receive())
	}
}

// ask sends a command and returns all replies to it.
func (p *peer) ask(words ...string) []string {
	p.send(words...)
	var replies []string
	for {
		r := p.receive()
		replies = append(replies, r)
		if !strings.HasPrefix(r, "!re") && !strings.HasPrefix(r, "!trap") {
			return replies
		}
	}
}

func TestLogin(t *testing.T) {
	const wrong = "!trap =message=invalid user name or password (6)"
	t.Run("right", func(t *testing.T) {
		r := newRouter(t)
		p := r.connect()
		p.send("/login", "=name=admin", "=password="+secret, ".tag=7")
		p.expect("!done .tag=7")
		p.send("/login", "=name=admin", "=password="+secret)
		p.expect("!trap =category=4 =message=failure: already logged in", "!done")
		p.conn.Close()
		p.wait()
		assert.Equal(t, 1, r.out)
		assert.Equal(t, 1, r.trusted)
	})
	t.Run("wrong, then right", func(t *testing.T) {
		r := newRouter(t)
		p := r.connect()
		p.send("/login", "=name=admin", "=password=wrong")
		p.expect(wrong, "!done")
		p.send("/login", "=name=root", "=password="+secret, ".tag=x")
		p.expect("!trap .tag=x =message=invalid user name or password (6)", "!done .tag=x")
		p.send("/login", "=name=admin", "=password="+secret)
		p.expect("!done")
		assert.Equal(t, 2, r.wrong)
	})
	t.Run("three times wrong", func(t *testing.T) {
		p := newRouter(t).connect()
		for range maxTries {
			p.send("/login", "=name=admin")
			p.expect(wrong, "!done")
		}
		p.expect("EOF")
	})
	t.Run("the way of before 6.43", func(t *testing.T) {
		r := newRouter(t)
		p := r.connect()
		p.send("/login")
		assert.Regexp(t, "^!done =ret=[0-9a-f]{32}$", p.receive())
		p.send("/login", "=name=admin", "=response=00112233445566778899aabbccddeeff00")
		p.expect(wrong, "!done")
		p.send("/login", "=name=admin", "=password="+secret)
		p.expect("!done")
	})
	t.Run("PID 1 says no", func(t *testing.T) {
		p := newRouter(t).connect()
		p.send("/login", "=name=busy", "=password="+secret)
		p.expect("!trap =category=1 =message=too many passwords are being checked", "!done")
	})
	t.Run("another command first", func(t *testing.T) {
		p := newRouter(t).connect()
		p.send("/system/resource/print")
		p.expect("!fatal not logged in", "EOF")
	})
	t.Run("no API", func(t *testing.T) {
		for sent, want := range map[string]string{
			"GET / HTTP/1.1\r\n\r\n": "EOF", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": "EOF", // it waits for more
			"\xf0\xff\xff\xff\xff": "!fatal word too long", "\xff": "EOF",
		} {
			synctest.Test(t, func(t *testing.T) {
				p := newRouter(t).connect()
				go func() { _, _ = p.conn.Write([]byte(sent)) }()
				p.expect(want)
				p.conn.Close()
			})
		}
	})
	t.Run("empty sentences", func(t *testing.T) {
		p := newRouter(t).connect()
		_, err := p.conn.Write(make([]byte, maxStrangerSentences))
		require.NoError(t, err)
		p.expect("EOF")
	})
	t.Run("too late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newRouter(t).connect()
			begin := time.Now()
			p.expect("EOF")
			assert.Equal(t, loginTime, time.Since(begin))
			p.wait()
		})
	})
}

func TestCommands(t *testing.T) {
	const addresses = "/ip address add address=192.168.0.1/24 interface=ether2 comment=home\n/ip address add address=10.0.0.1/8 interface=ether1 disabled=yes\n"
	for _, c := range []struct {
		name  string
		lines string
		asked []string
		want  []string
	}{
		{"print", addresses, []string{"/ip/address/print"}, []string{
			"!re =.id=ID1 =address=192.168.0.1/24 =interface=ether2 =network=192.168.0.0 =comment=home =disabled=false =invalid=false =dynamic=false",
			"!re =.id=ID2 =address=10.0.0.1/8 =interface=ether1 =network=10.0.0.0 =disabled=true =invalid=false =dynamic=false", "!done"}},
		{"getall", addresses, []string{"/ip/address/getall", "=.proplist=address,nothing", ".tag=a b"}, []string{"!re .tag=a b =address=192.168.0.1/24", "!re .tag=a b =address=10.0.0.1/8", "!done .tag=a b"}},
		{"proplist behind a query", addresses, []string{"/ip/address/print", "?disabled=yes", "=.proplist=.id,address,address"}, []string{"!re =.id=ID2 =address=10.0.0.1/8", "!done"}},
		{"a row without properties", addresses, []string{"/ip/address/print", "=.proplist=comment"}, []string{"!re =comment=home", "!re", "!done"}},
		{"a query about what is not wanted", addresses, []string{"/ip/address/print", "=.proplist=interface", "?>comment="}, []string{"!re =interface=ether2", "!done"}},
		{"nothing fits", addresses, []string{"/ip/address/print", "?interface=ether9"}, []string{"!done"}},
		{"count", addresses, []string{"/ip/address/print", "=count-only="}, []string{"!done =ret=2"}},
		{"count of a query", addresses, []string{"/ip/address/print", "=count-only", "?disabled=false"}, []string{"!done =ret=1"}},
		{"words of screens", addresses, []string{"/ip/address/print", "=detail", "=without-paging=", "=.proplist=.id"}, []string{"!re =.id=ID1", "!re =.id=ID2", "!done"}},
		{"from", addresses, []string{"/ip/address/print", "=from=ID2", "=.proplist=.id"}, []string{"!re =.id=ID2", "!done"}},
		{"from nothing", addresses, []string{"/ip/address/print", "=from=*99"}, []string{"!trap =category=0 =message=no such item", "!done"}},
		{"find", addresses, []string{"/ip/address/find"}, []string{"!done =ret=ID1;ID2"}},
		{"find by a query", addresses, []string{"/ip/address/find", "?disabled=yes"}, []string{"!done =ret=ID2"}},
		{"get", addresses, []string{"/ip/address/get", "=.id=ID1", "=value-name=interface"}, []string{"!done =ret=ether2"}},
		{"get by a number", addresses, []string{"/ip/address/get", "=numbers=1", "=value-name=disabled"}, []string{"!done =ret=true"}},
		{"get of an item that is not named", addresses, []string{"/ip/address/get", "=value-name=disabled"}, []string{"!trap =category=0 =message=expected item id", "!done"}},
		{"get of none", addresses, []string{"/ip/address/get", "=.id=*9", "=value-name=disabled"}, []string{"!trap =category=0 =message=no such item", "!done"}},
		{"get of a setting", "/system identity set name=gate", []string{"/system/identity/get", "=value-name=name"}, []string{"!done =ret=gate"}},
		{"settings", "/system identity set name=gate", []string{"/system/identity/print"}, []string{"!re =name=gate", "!done"}},
		{"bytes of a code page", "/ip pool add name=a ranges=10.0.0.1 comment=\"T\\FCr\"", []string{"/ip/pool/print", "=.proplist=comment", "?comment=T\xfcr"}, []string{"!re =comment=T\xfcr", "!done"}},
		{"set", "", []string{"/system/identity/set", "=name=gate"}, []string{"!done"}},
		{"the version", "", []string{"/system/resource/print"}, []string{
			"!re =uptime=1d2h =version=7.16 (stable) =postern-version=v1-5-gabcdef =free-memory=20000000 =total-memory=33554432 =cpu-count=1 =cpu-load=50 =architecture-name=mipsle =board-name=malta", "!done"}},
		{"the version of a list", "", []string{"/system/resource/print", "=.proplist=version,postern-version,free-memory"}, []string{
			"!re =version=7.16 (stable) =postern-version=v1-5-gabcdef =free-memory=20000000", "!done"}},
		{"counters of interfaces", "", []string{"/interface/print", "=.proplist=name,rx-byte,running"}, []string{
			"!re =name=ether1 =rx-byte=5000000000 =running=true", "!re =name=ether2 =rx-byte=0 =running=false", "!done"}},
		{"add with a tag", "", []string{"/ip/address/add", ".tag=9", "=address=10.0.0.1/8", "=interface=ether1"}, nil},
		{"no menu", "", []string{"/interface/wireless/print"}, []string{"!trap =category=0 =message=no such command prefix", "!done"}},
		{"no menu for a change", "", []string{"/caps-man/interface/set", "=.id=ID1"}, []string{"!trap =category=0 =message=no such command prefix", "!done"}},
		{"no command", "", []string{"/ip/address/frobnicate"}, []string{"!trap =category=0 =message=no such command", "!done"}},
		{"a menu with nothing to print", "", []string{"/ip/print"}, []string{"!trap =category=0 =message=no such command", "!done"}},
		{"blanks", "", []string{"/ip address print"}, []string{"!trap =category=0 =message=no such command", "!done"}},
		{"no slash", "", []string{"ip"}, []string{"!trap =category=0 =message=no such command", "!done"}},
		{"two slashes", "", []string{"//ip/address/print"}, []string{"!trap =category=0 =message=no such command", "!done"}},
		{"no item", "", []string{"/ip/address/remove", "=.id=*99"}, []string{"!trap =category=0 =message=no such item", "!done"}},
		{"a wrong value", "", []string{"/ip/address/add", "=address=10.0.0.300/8", "=interface=ether1", ".tag=3"}, []string{
			"!trap .tag=3 =category=1 =message=invalid value for argument address; expected IP address/netmask, not \"10.0.0.300/8\"", "!done .tag=3"}},
		{"a value out of range", "", []string{"/ip/socks/set", "=port=99999"}, []string{"!trap =category=1 =message=value of port out of range (1..65535)", "!done"}},
		{"a duplicate", "/ip pool add name=a ranges=10.0.0.1-10.0.0.9", []string{"/ip/pool/add", "=name=a", "=ranges=10.1.0.1"}, nil},
		{"an unknown word", "", []string{"/ip/address/print", "address"}, []string{"!trap =category=5 =message=unknown word address; expected =name=value, ?query or .tag=name", "!done"}},
		{"a query for a change", "", []string{"/ip/address/remove", "?disabled=yes"}, []string{"!trap =category=1 =message=a query is for print, getall, listen and find only", "!done"}},
		{"execute", "", []string{"/execute", "=script=/system identity print", "=as-string="}, []string{"!done =ret=  name: postern"}},
		{"execute without its output", "", []string{"/execute", "=script=/system identity print"}, []string{"!done =ret=*1"}},
		{"the last of two values", "", []string{"/execute", "=script=x", "=script=/system identity print", "=as-string=yes"}, []string{"!done =ret=  name: postern"}},
		{"monitor once", "", []string{"/interface/ethernet/monitor", "=numbers=ether2,0", "=once="}, []string{"!re =name=ether1 =status=link-ok", "!re =name=ether2 =status=no-link", "!done"}},
		{"monitor of none", "", []string{"/interface/ethernet/monitor", "=numbers=ether9", "=once="}, []string{"!trap =category=0 =message=no such item", "!done"}},
		{"cancel of nothing", "", []string{"/cancel", "=tag=x"}, []string{"!done"}},
		{"quit", "", []string{"/quit"}, []string{"!fatal session terminated on request", "EOF"}},
		{"routes have only flags that are true", "/ip route add dst-address=10.0.0.0/8 gateway=192.168.0.9", []string{"/ip/route/print", "?static", "=.proplist=dst-address,static,dynamic,disabled"},
			[]string{"!re =dst-address=10.0.0.0/8 =static=true =disabled=false", "!done"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRouter(t, c.lines)
			p := r.login()
			// ID1 and ID2 stand for the IDs of the addresses.
			rows, err := console.Query(r.config, live, "ip address", nil, nil)
			require.NoError(t, err)
			named := func(words []string) []string {
				words = slices.Clone(words)
				for i := range words {
					for n, row := range rows {
						words[i] = strings.ReplaceAll(words[i], "ID"+string(rune('1'+n)), row.ID.String())
					}
				}
				return words
			}
			replies := p.ask(named(c.asked)...)
			if len(replies) > 0 && strings.HasPrefix(replies[len(replies)-1], "!fatal") {
				replies = append(replies, p.receive())
			}
			if c.want != nil {
				assert.Equal(t, named(c.want), replies)
			} else {
				t.Log(replies)
			}
		})
	}
}

// What is added has an ID, by which it is changed and removed.
func TestChanges(t *testing.T) {
	r := newRouter(t)
	p := r.login()
	add := func(words ...string) string {
		replies := p.ask(words...)
		require.Regexp(t, `^!done =ret=\*[0-9A-F]+$`, replies[0])
		return strings.TrimPrefix(replies[0], "!done =ret=")
	}
	const path = "/ip/firewall/filter/"
	first := add(path+"add", "=chain=input", "=action=accept", "=comment=line 1, with = and ?")
	second := add(path+"add", "=chain=input", "=action=drop", "=disabled=true")
	names := "=.proplist=.id,action,disabled,comment"
	expect := func(rows ...string) {
		t.Helper()
		assert.Equal(t, append(rows, "!done"), p.ask(path+"print", names))
	}
	expect("!re =.id="+first+" =action=accept =disabled=false =comment=line 1, with = and ?", "!re =.id="+second+" =action=drop =disabled=true")
	for _, words := range [][]string{
		{"move", "=numbers=" + second, "=destination=" + first},
		{"enable", "=.id=" + second},
		{"disable", "=numbers=" + first + "," + second},
		{"comment", "=numbers=" + second, "=comment=zw\xf6lf"},
		{"set", "=.id=" + first, "=!comment=", "=disabled=false"},
	} {
		assert.Equal(t, []string{"!done"}, p.ask(append([]string{path + words[0]}, words[1:]...)...), words)
	}
	expect("!re =.id="+second+" =action=drop =disabled=true =comment=zw\xf6lf", "!re =.id="+first+" =action=accept =disabled=false")
	assert.Equal(t, []string{"!done"}, p.ask(path+"unset", "=.id="+second, "=value-name=comment"))
	assert.Equal(t, []string{"!done"}, p.ask(path+"remove", "=.id="+first+","+second))
	expect()
	assert.Equal(t, []string{"!trap =category=0 =message=no such item", "!done"}, p.ask(path+"remove", "=.id="+first))
	third := add(path+"add", "=chain=input", "=action=accept")
	assert.NotContains(t, []string{first, second}, third, "an ID is used again")
}

// Sentences come in any pieces, and many at a time.
func TestPieces(t *testing.T) {
	r := newRouter(t)
	p := r.login()
	for _, n := range []int{0x7F, 0x80, 0xFF} {
		comment := strings.Repeat("c", n)
		var b []byte
		b = append(b, sentence("/ip/address/add", "=address=10.0.0.1/8", "=interface=ether1", "=comment="+comment)...)
		b = append(b, 0, 0) // an empty sentence is passed over
		b = append(b, sentence("/ip/address/print", "=.proplist=comment", "?comment="+comment)...)
		b = append(b, sentence("/ip/address/remove", "=numbers=0")...)
		go func() { _, _ = io.Copy(p.conn, iotest.OneByteReader(strings.NewReader(string(b)))) }()
		assert.Regexp(t, `^!done =ret=\*`, p.receive())
		p.expect("!re =comment="+comment, "!done", "!done")
	}
	// A sentence of 10,000 words is answered, and the connection lives.
	words := []string{"/ip/address/print"}
	for range 10000 {
		words = append(words, "=.proplist=address")
	}
	assert.Equal(t, []string{"!done"}, p.ask(words...))
	for i := range words[1:] {
		words[1+i] = "=p" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i%11) + "="
	}
	assert.Equal(t, []string{"!trap =category=1 =message=too many arguments", "!done"}, p.ask(words...))
	go func() { _, _ = p.conn.Write([]byte(sentence("/ip/address/print", "=x="+strings.Repeat("x", 64<<10)))) }()
	p.expect("!fatal word too long", "EOF")
}

func TestListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, "/ip address add address=192.168.0.1/24 interface=ether2")
		p, other := r.login(), r.login()
		id := strings.TrimPrefix(p.ask("/ip/address/find")[0], "!done =ret=")
		// collect compares the next replies, in any order.
		collect := func(want ...string) {
			t.Helper()
			for len(want) > 0 {
				got := p.receive()
				i := slices.Index(want, got)
				require.GreaterOrEqual(t, i, 0, "%s is none of %s", got, want)
				want = slices.Delete(want, i, i+1)
			}
		}
		p.send("/ip/address/listen", ".tag=a", "=.proplist=.id,address,disabled")
		p.send("/ip/address/print", ".tag=b", "=follow=", "=.proplist=address", "?disabled=no")
		collect("!re .tag=b =address=192.168.0.1/24")
		synctest.Wait() // both have looked at the rows
		assert.Equal(t, []string{"!done"}, other.ask("/ip/address/disable", "=.id="+id))
		collect("!re .tag=a =.id="+id+" =address=192.168.0.1/24 =disabled=true", "!re .tag=b =.id="+id+" =.dead=true")
		assert.Equal(t, []string{"!done"}, other.ask("/ip/address/remove", "=.id="+id))
		collect("!re .tag=a =.id=" + id + " =.dead=true")
		// One is cancelled, with no effect on the other.
		p.send("/cancel", "=tag=b", ".tag=c")
		collect("!trap .tag=b =category=2 =message=interrupted", "!done .tag=b", "!done .tag=c")
		added := strings.TrimPrefix(other.ask("/ip/address/add", "=address=10.0.0.1/8", "=interface=ether1")[0], "!done =ret=")
		collect("!re .tag=a =.id=" + added + " =address=10.0.0.1/8 =disabled=false")
		assert.Equal(t, []string{"!re =address=10.0.0.1/8", "!done"}, p.ask("/ip/address/print", "=.proplist=address"))
		// Without a tag all are cancelled.
		p.send("/cancel")
		collect("!trap .tag=a =category=2 =message=interrupted", "!done .tag=a", "!done")
		// And one that has no tag itself, which keeps nothing else from running.
		p.send("/ip/address/listen")
		assert.Equal(t, []string{"!done =ret=1"}, p.ask("/ip/address/print", "=count-only="))
		p.send("/cancel")
		collect("!trap =category=2 =message=interrupted", "!done", "!done")
		// A menu without items is listened to as well.
		p.send("/system/identity/listen", ".tag=i")
		synctest.Wait()
		other.ask("/system/identity/set", "=name=gate")
		collect("!re .tag=i =name=gate")
		// Monitors go on too.
		p.send("/interface/ethernet/monitor", "=numbers=ether1", ".tag=m")
		collect("!re .tag=m =name=ether1 =status=link-ok =.section=0", "!re .tag=m =name=ether1 =status=link-ok =.section=1")
		p.send("/cancel", "=tag=m")
		collect("!trap .tag=m =category=2 =message=interrupted", "!done .tag=m", "!done")
		// There is a bound, counting that of the identity.
		for range maxEndless - 1 {
			p.send("/ip/address/listen", ".tag=n")
		}
		p.send("/ip/address/listen", ".tag=o")
		collect("!trap .tag=o =category=4 =message=failure: too many commands that go on until they are cancelled", "!done .tag=o")
		// The client goes without cancelling.
		p.conn.Close()
		p.wait()
		synctest.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		assert.Equal(t, 1, r.out)
		assert.LessOrEqual(t, r.most, maxSessions+1)
	})
}

// Commands with tags run at once, as many as there are sessions; the client then has to wait.
func TestManyCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t)
		r.holding = make(chan struct{})
		p := r.login()
		sent := make(chan struct{}, 100)
		go func() {
			for range 100 {
				if _, err := p.conn.Write(sentence("/system/identity/print", ".tag=x")); err != nil {
					return
				}
				sent <- struct{}{}
			}
		}()
		synctest.Wait()
		// One more is being handled, and its successor may be in the reader's buffer.
		assert.LessOrEqual(t, len(sent), maxCommands+2)
		assert.GreaterOrEqual(t, len(sent), maxCommands)
		r.mu.Lock()
		assert.Equal(t, maxSessions, r.sessions)
		r.mu.Unlock()
		close(r.holding)
		replies := map[string]int{}
		for range 200 {
			replies[p.receive()]++
		}
		assert.Equal(t, map[string]int{"!re .tag=x =name=postern": 100, "!done .tag=x": 100}, replies)
	})
}

// A cancelled command that has not begun does not begin, and one that PID 1 is working at ends with the connection.
func TestCancelledBeforeItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t)
		r.holding = make(chan struct{})
		p := r.login()
		for range maxSessions {
			p.send("/system/identity/set", "=name=first", ".tag=x")
		}
		synctest.Wait()
		p.send("/system/identity/set", "=name=second", ".tag=y")
		synctest.Wait()
		p.send("/cancel", "=tag=y")
		got := []string{p.receive(), p.receive(), p.receive()}
		slices.Sort(got)
		assert.Equal(t, []string{"!done", "!done .tag=y", "!trap .tag=y =category=2 =message=interrupted"}, got)
		p.conn.Close()
		p.wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		assert.Equal(t, "postern", r.config.Identity)
	})
}

// A client that does not read is waited for, but not for ever.
func TestSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newRouter(t).login()
		p.send("/system/identity/print")
		time.Sleep(writeTime - time.Second)
		p.expect("!re =name=postern", "!done")
		begin := time.Now()
		p.send("/system/identity/print")
		p.wait()
		assert.Equal(t, writeTime, time.Since(begin))
	})
}

// Whatever a client sends, it is answered in sentences, and all ends when it has gone.
func FuzzClient(f *testing.F) {
	login := string(sentence("/login", "=name=admin", "=password="+secret))
	for _, sent := range []string{
		string(sentence("/login")), string(sentence("/ip/address/print")),
		login + string(sentence("/ip/address/print", "?disabled=no", "=.proplist=.id,address", ".tag=1")),
		login + string(sentence("/ip/address/listen", ".tag=1")) + string(sentence("/cancel", "=tag=1")),
		login + string(sentence("/ip/address/add", "=address=10.0.0.1/8", "=interface=ether1")) + string(sentence("/ip/address/remove", "=numbers=0")),
		login + string(sentence("/interface/ethernet/monitor", "=numbers=0")) + string(sentence("/quit")),
		login + string(sentence("/interface/monitor-traffic", "=interface=ether1,ether2", "=interval=1s", ".tag=m")) + string(sentence("/ping", "=address=10.0.0.1", ".tag=p")),
		login + string(sentence("/execute", "=script=/export", "=as-string=")) + string(sentence("/system/identity/get", "=value-name=name")),
		login + string(sentence("/ip/address/print", "=follow=", "?#1.!|")) + "\xff",
	} {
		f.Add([]byte(sent))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		r := newRouter(t, "/ip address add address=192.168.0.1/24 interface=ether2")
		c := &recorded{in: bytes.NewReader(sent)}
		serve(t.Context(), c, r.check, func() {})
		if r.sessions != 0 || r.trusted > 1 {
			t.Fatalf("%d sessions stay open", r.sessions)
		}
		replies := newReader(bytes.NewReader(c.out.Bytes()))
		replies.limits = limits{1 << 20, 1 << 20, 1 << 20}
		for {
			words, err := replies.read()
			if err == io.EOF {
				break
			}
			if err != nil || len(words) == 0 || !strings.HasPrefix(words[0], "!") {
				t.Fatalf("%q: %v", words, err)
			}
			for _, w := range words[1:] {
				if words[0] != "!fatal" && !strings.HasPrefix(w, ".tag=") && strings.Count(w, "=") < 2 {
					t.Fatalf("a word that clients do not understand: %q", w)
				}
			}
		}
	})
}

// recorded is a connection whose client sends something and goes.
type recorded struct {
	in  io.Reader
	mu  sync.Mutex
	out bytes.Buffer
}

func (r *recorded) Read(p []byte) (int, error) { return r.in.Read(p) }

func (r *recorded) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

func (*recorded) Close() error { return nil }
