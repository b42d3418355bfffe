package web

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/program"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/socks"
)

// fakeRouter is PID 1, as far as it matters here: a configuration, and who may log in.
type fakeRouter struct {
	mu       sync.Mutex
	config   console.Config
	live     console.Live
	checks   int
	logins   int
	max      int
	sessions int
	// unset is set while there is no password, set is the one that was set.
	unset bool
	set   string
	// ends are called to end logins as PID 1 does.
	ends   []func()
	closed []uint64 // connections of SOCKS that were closed
	// block makes queries of /log wait until it is closed.
	block chan struct{}
}

const testConfig = `
/system identity set name=gate
/ip address add address=192.168.0.1/24 interface=ether2 comment="the \"LAN\""
/ip dns static add name=router.lan address=192.168.0.1
/ip socks set enabled=yes version=5 auth-method=password
/ip socks access add dst-port=21 comment=ftp
/ip socks access add action=deny
/ip socks users add name=alice password-hash="\$argon2id\$v=19\$m=1024,t=1,p=1\$MDEyMzQ1Njc4OWFiY2RlZg\$MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"
`

func newFakeRouter(t *testing.T) *fakeRouter {
	lines := strings.Split(testConfig, "\n")
	cfg, err := console.Load("test", strings.NewReader(strings.Join(lines, "\n")))
	require.NoError(t, err)
	f := &fakeRouter{config: cfg, max: 4}
	f.live = console.Live{
		Requests: []console.Request{console.Ping, console.Traceroute},
		Links: func() ([]netcfg.LinkState, error) {
			return []netcfg.LinkState{
				{Name: "ether1", Type: netcfg.Ether, Present: true, Up: true, Running: true, MTU: 1500, MAC: ether.MAC{2, 0, 0, 0, 0, 1}, RxBytes: 1 << 40, TxBytes: 7, RxPackets: 3, TxPackets: 1},
				{Name: "ether2", Type: netcfg.Ether, Present: true, Up: true, MTU: 1500, MAC: ether.MAC{2, 0, 0, 0, 0, 2}},
			}, nil
		},
		Resource: func() (console.Resource, error) {
			return console.Resource{Uptime: 90*time.Second + 1, FreeMemory: 20_000_000, TotalMemory: 1 << 25, CPULoad: 0.0333, CPUCount: 1, Architecture: "mips", Board: "malta", Version: "v1.2"}, nil
		},
		Connections: func() ([]socks.Connection, error) {
			return []socks.Connection{
				{Number: 1, Src: netip.MustParseAddrPort("192.168.0.2:1000"), Dst: netip.MustParseAddrPort("198.51.100.8:21"), Type: "out", Tx: 5000, Rx: 70, UserID: "alice", Age: time.Minute},
				{Number: 2, Src: netip.MustParseAddrPort("192.168.0.2:1001"), Dst: netip.MustParseAddrPort("198.51.100.8:21"), Type: "out", Tx: 1, Rx: 2, UserID: "alice"},
			}, nil
		},
		CloseConnections: func([]uint64) error { return nil },
		Hits:             func() ([]uint64, error) { return []uint64{12, 3}, nil },
		Tracked:          func() ([]firewall.Tracked, error) { return nil, nil },
		TableSize:        func() (int, int, error) { return 17, 4096, nil },
		Log: func() ([]string, error) {
			var lines []string
			for i := range 300 {
				lines = append(lines, fmt.Sprintf("12:00:00 system,info line %d %s", i, strings.Repeat("x", 90)))
			}
			return lines, nil
		},
	}
	return f
}

// get and add are for its counters.
func (f *fakeRouter) get(n *int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *n
}

func (f *fakeRouter) add(n *int, by int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*n += by
}

// check is a checkPassword.
// first lets admin set the password new, if the router has none.
func (f *fakeRouter) first(_ context.Context, _ netip.Addr, name, new string) (Account, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.unset || name != "admin" {
		return nil, false, nil
	}
	if new == "" {
		return nil, true, nil
	}
	f.unset, f.set = false, new
	f.logins++
	return &fakeAccount{router: f}, false, nil
}

func (f *fakeRouter) check(_ context.Context, _ netip.Addr, name, secret string, _ bool) (Account, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checks++
	if name != "admin" || secret != "correct horse" {
		return nil, nil
	}
	if f.logins >= f.max {
		return nil, errFull
	}
	f.logins++
	return &fakeAccount{router: f}, nil
}

type fakeAccount struct {
	router *fakeRouter
	place  sync.Once // is given back
}

func (a *fakeAccount) Leave() { a.Logout() }

func (a *fakeAccount) OnEnd(f func()) {
	a.router.mu.Lock()
	defer a.router.mu.Unlock()
	a.router.ends = append(a.router.ends, f)
}

func (a *fakeAccount) Logout() {
	a.place.Do(func() {
		a.router.mu.Lock()
		defer a.router.mu.Unlock()
		a.router.logins--
	})
}

func (a *fakeAccount) Session() (Session, error) {
	a.router.mu.Lock()
	defer a.router.mu.Unlock()
	a.router.sessions++
	near, far := net.Pipe()
	go func() {
		_ = program.Serve(far, a.router.handler())
		a.router.mu.Lock()
		defer a.router.mu.Unlock()
		a.router.sessions--
	}()
	return program.NewClient(near), nil
}

// handler is what a session can do.
func (f *fakeRouter) handler() program.Handler {
	return program.Handler{
		Query: func(path string, where []console.Condition, proplist []string) ([]console.Row, error) {
			f.mu.Lock()
			cfg := f.config
			f.mu.Unlock()
			if f.block != nil && path == "log" {
				<-f.block
			}
			return console.Query(cfg, f.live, path, where, proplist)
		},
		Do: func(path, command string, arguments []console.Argument) (console.Result, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			result, err := console.Do(f.config, f.live, path, command, arguments...)
			if err != nil {
				return result, err
			}
			f.config = result.Config
			f.closed = append(f.closed, result.Action.Close...)
			return result, nil
		},
		Finish: func(_ context.Context, r console.Result, out io.Writer) error {
			for i := range r.Ping.Count {
				fmt.Fprintf(out, "seq=%d;host=%s;time=1ms;sent=%d\n", i, r.Ping.Address, i+1)
			}
			return nil
		},
	}
}

// rig is a server on a loopback address.
type rig struct {
	*fakeRouter
	server  *Server
	url     string
	trusted int // connections
	known   int // of somebody who has logged in, that end
}

func newRig(t *testing.T) *rig {
	g := &rig{fakeRouter: newFakeRouter(t)}
	g.server = newServer(g.check, g.first, func() func() { return func() {} }, func() string { return "router.lan" })
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	g.url = "http://" + l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				g.server.serve(ctx, conn, netip.MustParseAddr("127.0.0.1"), false, func(stays bool) {
					if stays {
						g.add(&g.trusted, 1)
					} else {
						g.add(&g.known, 1)
					}
				})
			})
		}
	})
	t.Cleanup(func() { l.Close(); cancel(); serving.Wait() })
	return g
}

// answer is an answer with its body.
type answer struct {
	status int
	header http.Header
	body   string
	closes bool // the connection
}

// ask makes a request as admin, by Basic authentication; "-user" in fields leaves that out. Fields are names and values.
func (g *rig) ask(t *testing.T, method, path, body string, fields ...string) answer {
	t.Helper()
	r, err := http.NewRequest(method, g.url+path, strings.NewReader(body))
	require.NoError(t, err)
	r.SetBasicAuth("admin", "correct horse")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(fields); i += 2 {
		switch fields[i] {
		case "-user":
			r.Header.Del("Authorization")
		case "Host":
			r.Host = fields[i+1]
		default:
			r.Header.Set(fields[i], fields[i+1])
		}
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	a, err := client.Do(r)
	require.NoError(t, err)
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	require.NoError(t, err)
	return answer{a.StatusCode, a.Header, string(text), a.Close}
}

func TestREST(t *testing.T) {
	g := newRig(t)
	add := g.ask(t, "PUT", "/rest/ip/address", `{"address":"10.0.0.1/8","interface":"ether1","disabled":true,"comment":"a \"b\"\u20ac"}`)
	require.Equal(t, 201, add.status, add.body)
	row, err := parseObject(add.body)
	require.NoError(t, err)
	id := row[0].text
	assert.Equal(t, `{".id":"`+id+`","address":"10.0.0.1/8","interface":"ether1","network":"10.0.0.0","comment":"a \"b\"€","disabled":"true","invalid":"false","dynamic":"false"}`, add.body)

	for _, c := range []struct {
		name, method, path, body string
		status                   int
		answer                   string
	}{
		{"a menu", "GET", "/rest/ip/dns/static?.proplist=name,address", "", 200, `[{"name":"router.lan","address":"192.168.0.1"}]`},
		{"settings", "GET", "/rest/system/identity", "", 200, `{"name":"gate"}`},
		{"numbers without units", "GET", "/rest/system/resource?.proplist=free-memory,cpu-load,uptime", "", 200, `{"free-memory":"20000000","cpu-load":"3","uptime":"1m30s"}`},
		{"an item by its id", "GET", "/rest/ip/address/" + id + "?.proplist=.id", "", 200, `{".id":"` + id + `"}`},
		{"an item by its name", "GET", "/rest/interface/ether2?.proplist=name,running", "", 200, `{"name":"ether2","running":"false"}`},
		{"counters", "GET", "/rest/interface?.proplist=rx-byte&name=ether1", "", 200, `[{"rx-byte":"1099511627776"}]`},
		{"a filter", "GET", "/rest/ip/address?interface=ether1&.proplist=address", "", 200, `[{"address":"10.0.0.1/8"}]`},
		{"a filter of a boolean", "GET", "/rest/ip/address?disabled=yes&.proplist=address", "", 200, `[{"address":"10.0.0.1/8"}]`},
		{"a filter that nothing meets", "GET", "/rest/ip/address?network=1.2.3.4", "", 200, `[]`},
		{"an escaped path", "GET", "/rest/ip/address/%2A" + id[1:] + "?.proplist=interface", "", 200, `{"interface":"ether1"}`},
		{"no such item", "GET", "/rest/ip/address/*FFFF", "", 404, `{"error":404,"message":"Not Found","detail":"no such item"}`},
		{"no such name", "GET", "/rest/interface/ether9", "", 404, `{"error":404,"message":"Not Found","detail":"no such item, command or directory (ether9)"}`},
		{"no such menu", "GET", "/rest/caps-man/interface", "", 400, `{"error":400,"message":"Bad Request","detail":"no such command or directory (interface)"}`},
		{"nothing", "GET", "/rest", "", 400, `{"error":400,"message":"Bad Request","detail":"no such command or directory; expected the path of a menu, as in /rest/ip/address"}`},
		{"print", "POST", "/rest/ip/address/print", `{".proplist":["address"],".query":["interface=ether1"]}`, 200, `[{"address":"10.0.0.1/8"}]`},
		{"a query with operations", "POST", "/rest/ip/address/print", `{".proplist":"address",".query":["interface=ether1","#!"]}`, 200, `[{"address":"192.168.0.1/24"}]`},
		{"a bad query", "POST", "/rest/ip/address/print", `{".query":["#x"]}`, 400, ""},
		{"ping", "POST", "/rest/ping", `{"address":"10.0.0.1","count":"1"}`, 200, `[{"seq":"0","host":"10.0.0.1","time":"1ms","sent":"1"}]`},
		{"ping of the other menu", "POST", "/rest/tool/ping", `{"address":"10.0.0.1","count":2,".proplist":["seq"]}`, 200, `[{"seq":"0"},{"seq":"1"}]`},
		{"a ping without end", "POST", "/rest/ping", `{"address":"10.0.0.1"}`, 400, `{"error":400,"message":"Bad Request","detail":"failure: the command goes on until it is cancelled; expected count, duration, once, or a print"}`},
		{"traffic", "POST", "/rest/interface/monitor-traffic", `{"interface":"ether1","once":""}`, 200,
			`[{"name":"ether1","rx-packets-per-second":"0","rx-bits-per-second":"0","tx-packets-per-second":"0","tx-bits-per-second":"0"}]`},
		{"get", "POST", "/rest/system/identity/get", `{"value-name":"name"}`, 200, `{"ret":"gate"}`},
		{"a command without end", "POST", "/rest/interface/print", `{"follow":""}`, 400, ""},
		{"the version that programs expect", "GET", "/rest/system/resource?.proplist=version,postern-version", "", 200, `{"version":"7.16 (stable)","postern-version":"v1.2"}`},
		{"count", "POST", "/rest/ip/address/print", `{"count-only":""}`, 200, `{"ret":"2"}`},
		{"set of an item", "PATCH", "/rest/ip/address/" + id, `{"comment":"","disabled":"false"}`, 200,
			`{".id":"` + id + `","address":"10.0.0.1/8","interface":"ether1","network":"10.0.0.0","disabled":"false","invalid":"false","dynamic":"false"}`},
		{"set of settings", "POST", "/rest/system/identity/set", `{"name":"postern"}`, 200, `[]`},
		{"that was set", "GET", "/rest/system/identity", "", 200, `{"name":"postern"}`},
		{"add as a command", "POST", "/rest/ip/dns/static/add", `{"name":"a.lan","address":"1.2.3.4"}`, 200, ""},
		{"a wrong value", "PUT", "/rest/ip/address", `{"address":"10.0.0.256","interface":"ether1"}`, 400, ""},
		{"a verb that the menu lacks", "PUT", "/rest/ip/socks/connections", `{}`, 406, `{"error":406,"message":"Not Acceptable","detail":"no such command or directory (add)"}`},
		{"a command on a menu", "POST", "/rest/ip/address", `{}`, 400, `{"error":400,"message":"Bad Request","detail":"no such command or directory (address)"}`},
		{"remove", "DELETE", "/rest/ip/address/" + id, "", 204, ""},
		{"remove it again", "DELETE", "/rest/ip/address/" + id, "", 404, `{"error":404,"message":"Not Found","detail":"no such item"}`},
		{"end a connection", "DELETE", "/rest/ip/socks/connections/*80000002", "", 204, ""},
		{"no object", "PUT", "/rest/ip/address", `[]`, 400, ""},
		{"too many rows for .last", "GET", "/rest/log?.last=1001", "", 400, `{"error":400,"message":"Bad Request","detail":"value of .last out of range (1..1000)"}`},
		{"another method", "TRACE", "/rest/log", "", 405, `{"error":405,"message":"Method Not Allowed"}`},
	} {
		a := g.ask(t, c.method, c.path, c.body)
		assert.Equal(t, c.status, a.status, "%s: %s", c.name, a.body)
		if c.answer != "" || c.status == 204 {
			assert.Equal(t, c.answer, a.body, c.name)
		}
	}
	assert.Equal(t, []uint64{2}, g.closed)
	assert.Equal(t, 415, g.ask(t, "PUT", "/rest/ip/address", `{}`, "Content-Type", "text/plain").status)
	assert.Equal(t, 201, g.ask(t, "PUT", "/rest/ip/dns/static", `{"name":"b.lan","address":"1.2.3.4"}`, "Content-Type", "application/json; charset=utf-8").status)
	assert.Equal(t, 1, g.checks, "the password is checked once")
}

// A long answer goes out in chunks, and .last leaves the first rows out.
func TestLongAnswers(t *testing.T) {
	g := newRig(t)
	whole := g.ask(t, "GET", "/rest/log", "")
	assert.Equal(t, 300, strings.Count(whole.body, `"message"`))
	assert.Empty(t, whole.header.Get("Content-Length"))
	assert.True(t, strings.HasPrefix(whole.body, "[{") && strings.HasSuffix(whole.body, "}]"))
	last := g.ask(t, "GET", "/rest/log?.last=2&.proplist=message", "")
	assert.Equal(t, 2, strings.Count(last.body, `"message"`))
	assert.Contains(t, last.body, "line 298")
	assert.Contains(t, last.body, "line 299")
	head := g.ask(t, "HEAD", "/rest/log", "")
	assert.Equal(t, 200, head.status)
	assert.Empty(t, head.body)
}

func TestPageLogin(t *testing.T) {
	g := newRig(t)
	page := g.ask(t, "GET", "/", "", "-user", "", "Accept-Encoding", "gzip, deflate")
	assert.Equal(t, 200, page.status)
	assert.Equal(t, packedPage, page.body)
	assert.Equal(t, pagePolicy, page.header.Get("Content-Security-Policy"))
	assert.Equal(t, "nosniff", page.header.Get("X-Content-Type-Options"))
	assert.Equal(t, 406, g.ask(t, "GET", "/", "", "-user", "").status)

	form := []string{"-user", "", "Content-Type", "application/x-www-form-urlencoded", tokenField, ""}
	wrong := g.ask(t, "POST", "/login", "user=admin&password=wrong", form...)
	assert.Equal(t, 401, wrong.status)
	assert.Empty(t, wrong.header.Get("WWW-Authenticate"), "the browser would ask too")
	assert.Equal(t, 403, g.ask(t, "POST", "/login", "user=admin&password=correct+horse", form[:4]...).status, "a form of another page")
	in := g.ask(t, "POST", "/login", "user=admin&password=correct+horse", form...)
	require.Equal(t, 200, in.status, in.body)
	set := in.header.Get("Set-Cookie")
	assert.Contains(t, set, "; HttpOnly; SameSite=Strict")
	cookie, _, _ := strings.Cut(set, ";")
	session, err := parseObject(in.body)
	require.NoError(t, err)
	assert.Equal(t, "admin", session[0].text)
	token := session[1].text

	with := func(more ...string) []string {
		return append([]string{"-user", "", "Cookie", "a=b; " + cookie}, more...)
	}
	assert.Equal(t, in.body, g.ask(t, "GET", "/session", "", with()...).body, "a page that is loaded again goes on")
	assert.Equal(t, 200, g.ask(t, "GET", "/rest/system/identity", "", with()...).status)
	remove := "/rest/ip/socks/connections/*80000001"
	assert.Equal(t, 403, g.ask(t, "DELETE", remove, "", with()...).status, "no token")
	assert.Equal(t, 403, g.ask(t, "DELETE", remove, "", with(tokenField, token+"x")...).status, "a wrong token")
	assert.Equal(t, 403, g.ask(t, "DELETE", remove, "", with(tokenField, token, "Origin", "http://evil.example")...).status)
	assert.Empty(t, g.closed)
	assert.Equal(t, 204, g.ask(t, "DELETE", remove, "", with(tokenField, token, "Origin", g.url)...).status)
	assert.Equal(t, []uint64{1}, g.closed)
	assert.Equal(t, 401, g.ask(t, "GET", "/session", "", "-user", "", "Cookie", cookie+"x").status)

	assert.Equal(t, 403, g.ask(t, "POST", "/logout", "", with()...).status)
	out := g.ask(t, "POST", "/logout", "", with(tokenField, token)...)
	assert.Equal(t, 204, out.status)
	assert.Contains(t, out.header.Get("Set-Cookie"), "Max-Age=0")
	assert.Equal(t, 401, g.ask(t, "GET", "/session", "", with()...).status)
	require.Eventually(t, func() bool { return g.get(&g.logins) == 0 }, time.Minute, time.Millisecond)
}

// Who logs out while a request is still carried out, such as an upgrade, leaves the place to others at once.
func TestLogoutDuringARequest(t *testing.T) {
	g := newRig(t)
	g.max, g.block = 1, make(chan struct{})
	form := []string{"-user", "", "Content-Type", "application/x-www-form-urlencoded", tokenField, ""}
	in := g.ask(t, "POST", "/login", "user=admin&password=correct+horse", form...)
	require.Equal(t, 200, in.status, in.body)
	session, err := parseObject(in.body)
	require.NoError(t, err)
	cookie, _, _ := strings.Cut(in.header.Get("Set-Cookie"), ";")
	fields := []string{"-user", "", "Cookie", cookie, tokenField, session[1].text}
	var long answer
	var asking sync.WaitGroup
	asking.Go(func() { long = g.ask(t, "GET", "/rest/log", "", fields...) })
	require.Eventually(t, func() bool { return g.get(&g.sessions) == 1 }, time.Minute, time.Millisecond)
	assert.Equal(t, 503, g.ask(t, "POST", "/login", "user=admin&password=correct+horse", form...).status)
	assert.Equal(t, 204, g.ask(t, "POST", "/logout", "", fields...).status)
	assert.Equal(t, 200, g.ask(t, "POST", "/login", "user=admin&password=correct+horse", form...).status)
	close(g.block)
	asking.Wait()
	assert.Equal(t, 200, long.status, "it is answered all the same")
	require.Eventually(t, func() bool { return g.get(&g.sessions) == 0 }, time.Minute, time.Millisecond)
}

// What a page of somebody else's can make a browser send does nothing.
func TestOtherPages(t *testing.T) {
	g := newRig(t)
	body := `{"name":"x"}`
	for _, c := range []struct {
		name   string
		status int
		fields []string
	}{
		{"no browser", 200, nil},
		{"an own name", 200, []string{"Host", "ROUTER.lan:80"}},
		{"a name of one word", 200, []string{"Host", "gate"}},
		{"another name (DNS rebinding)", 421, []string{"Host", "evil.example"}},
		{"another page", 403, []string{"Origin", "http://evil.example"}},
		{"a page without an origin", 403, []string{"Origin", "null"}},
		{"a page on another port", 403, []string{"Origin", "http://127.0.0.1:1"}},
		{"a page by TLS", 403, []string{"Origin", strings.Replace(g.url, "http", "https", 1)}},
		{"by what the browser says of the page", 403, []string{"Sec-Fetch-Site", "cross-site"}},
		{"a form", 415, []string{"Content-Type", "text/plain"}},
	} {
		assert.Equal(t, c.status, g.ask(t, "POST", "/rest/system/identity/set", body, c.fields...).status, c.name)
	}
	options := g.ask(t, "OPTIONS", "/rest/system/identity", "", "-user", "", "Access-Control-Request-Method", "PUT")
	assert.Equal(t, 204, options.status)
	for name := range options.header {
		assert.NotContains(t, name, "Access-Control", "no page of another origin may look")
	}
}

func TestUnknown(t *testing.T) {
	g := newRig(t)
	for _, path := range []string{"/rest/ip/address", "/metrics", "/session"} {
		a := g.ask(t, "GET", path, "", "-user", "")
		assert.Equal(t, 401, a.status, path)
		assert.Contains(t, a.header.Get("WWW-Authenticate"), "Basic", path)
	}
	assert.Zero(t, g.checks)
	assert.Equal(t, 401, g.ask(t, "GET", "/metrics", "", "Authorization", "Basic !!!").status)
	assert.Equal(t, 401, g.ask(t, "GET", "/metrics", "", "Authorization", "Bearer x").status)
	assert.Equal(t, 404, g.ask(t, "GET", "/favicon.ico", "").status)
	assert.Equal(t, 404, g.ask(t, "GET", "/session/x", "").status)
	assert.Zero(t, g.checks)
}

// When there are as many logins as can be, one that has long been idle makes room.
func TestFull(t *testing.T) {
	g := newRig(t)
	g.max = 1
	assert.Equal(t, 200, g.ask(t, "GET", "/metrics", "").status)
	form := []string{"-user", "", "Content-Type", "application/x-www-form-urlencoded", tokenField, ""}
	in := g.ask(t, "POST", "/login", "user=admin&password=correct+horse", form...)
	assert.Equal(t, 503, in.status)
	assert.Contains(t, in.body, "max-sessions")
	g.server.users.mu.Lock()
	for _, u := range g.server.users.all {
		u.used = u.used.Add(-spareTime)
	}
	g.server.users.mu.Unlock()
	assert.Equal(t, 200, g.ask(t, "POST", "/login", "user=admin&password=correct+horse", form...).status)
}

// Who makes room is rather a login of the same user: nobody ends those of others by logging in again and again.
func TestOwnLoginMakesRoom(t *testing.T) {
	u := newUsers(nil, nil, func() func() { return func() {} })
	account := func(name string) *endedAccount { return &endedAccount{name: name} }
	now, accounts := time.Now(), map[string]*endedAccount{}
	for i, name := range []string{"admin", "bob", "bob2"} { // the oldest first
		a := account(name)
		accounts[name] = a
		v, err := u.enter(u.hash('c', netip.MustParseAddr("10.0.0.1"), name), name, a)
		require.NoError(t, err)
		u.done(v)
		v.used = now.Add(-time.Hour + time.Duration(i)*time.Minute)
	}
	require.True(t, u.makeRoom("bob"))
	assert.True(t, accounts["bob"].out.Load())
	require.True(t, u.makeRoom("bob"))
	assert.True(t, accounts["admin"].out.Load(), "else it is the oldest")

	v, err := u.enter(u.hash('c', netip.MustParseAddr("10.0.0.1"), "eve"), "eve", account("eve"))
	require.NoError(t, err)
	u.done(v)
	assert.False(t, u.makeRoom("eve"), "the own one was just used")
	assert.False(t, accounts["bob2"].out.Load())
}

// endedAccount is an account that knows that it has ended.
type endedAccount struct {
	Account
	name string
	out  atomic.Bool
}

func (a *endedAccount) Logout()        { a.out.Store(true) }
func (a *endedAccount) OnEnd(f func()) {}

// PID 1 ends logins, as after a change of the password: who has the old one is not let in any more.
func TestEndedLogin(t *testing.T) {
	g := newRig(t)
	for range 2 {
		assert.Equal(t, 200, g.ask(t, "GET", "/metrics", "").status)
	}
	assert.Equal(t, 1, g.get(&g.checks))
	g.mu.Lock()
	ends := g.ends
	g.mu.Unlock()
	require.Len(t, ends, 1)
	ends[0]()
	assert.Equal(t, 200, g.ask(t, "GET", "/metrics", "").status)
	assert.Equal(t, 2, g.get(&g.checks), "it is checked anew")
	require.Eventually(t, func() bool { return g.get(&g.logins) == 1 }, time.Minute, time.Millisecond)
}

// Requests that come at once with one password are one check and one login.
func TestOneCheck(t *testing.T) {
	g := newRig(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { assert.Equal(t, 200, g.ask(t, "GET", "/rest/system/identity", "").status) })
	}
	all.Wait()
	assert.Equal(t, 1, g.checks)
	assert.Equal(t, 1, g.logins)
	assert.LessOrEqual(t, g.sessions, maxSessions)
}

// A connection goes on after a request, and one whose user is not known is not kept for long.
func TestConnections(t *testing.T) {
	g := newRig(t)
	conn, err := net.Dial("tcp4", strings.TrimPrefix(g.url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	in := bufio.NewReader(conn)
	read := func() *http.Response {
		r, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, r.Body)
		require.NoError(t, err)
		return r
	}
	const basic = "Authorization: Basic YWRtaW46Y29ycmVjdCBob3JzZQ==\r\n"
	_, err = io.WriteString(conn, strings.Repeat("GET /rest/log HTTP/1.1\r\nHost: 127.0.0.1\r\n"+basic+"\r\n", 2*maxStrangerRequests))
	require.NoError(t, err)
	for range 2 * maxStrangerRequests {
		assert.Equal(t, 200, read().StatusCode)
	}
	assert.Equal(t, 1, g.get(&g.trusted))
	_, err = io.WriteString(conn, "PUT /rest/ip/dns/static HTTP/1.1\r\nHost: 127.0.0.1\r\n"+basic+"Expect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 35\r\n\r\n")
	require.NoError(t, err)
	line, err := in.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
	_, err = in.ReadString('\n')
	require.NoError(t, err)
	_, err = io.WriteString(conn, `{"name":"c.lan","address":"1.2.3.4"}`[:35]+"")
	require.NoError(t, err)
	assert.Equal(t, 400, read().StatusCode, "a letter is missing")
	_, err = io.WriteString(conn, "GET /rest/log HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
	require.NoError(t, err)
	r := read()
	assert.Equal(t, 401, r.StatusCode)
	assert.True(t, r.Close, "its place is for those who have logged in")
}

// A body that is too long is not read.
func TestLongBodies(t *testing.T) {
	g := newRig(t)
	assert.Equal(t, 413, g.ask(t, "POST", "/rest/system/identity/set", strings.Repeat(" ", maxBody+1)).status)
	assert.Equal(t, 413, g.ask(t, "POST", "/login", strings.Repeat(" ", maxStrangerBody+1), "Content-Type", "application/x-www-form-urlencoded", tokenField, "").status)
	a := g.ask(t, "POST", "/rest/system/identity/set", strings.Repeat(" ", maxBody), "-user", "")
	assert.Equal(t, 401, a.status)
	assert.True(t, a.closes)
	assert.Equal(t, 200, g.ask(t, "POST", "/rest/system/identity/set", `{"name":"`+strings.Repeat("x", 64)+`"}`).status)
}

func TestManyTrusted(t *testing.T) {
	g := newRig(t)
	g.server.trusted = maxTrusted
	a := g.ask(t, "GET", "/rest/system/identity", "", "Connection", "keep-alive")
	assert.Equal(t, 200, a.status)
	assert.True(t, a.closes)
	assert.Zero(t, g.get(&g.trusted))
	assert.Equal(t, 1, g.get(&g.known))
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
	}{
		{errBusy, 503}, {errOver, 400}, {errors.New("failure: x"), 400}, {&httpError{404, "x"}, 404},
		{fmt.Errorf("%w: x", console.ErrNoSuchItem), 404},
	} {
		w := newResponse(nil, nil)
		failure(w, "GET", []string{"log"}, c.err)
		assert.Equal(t, c.status, w.status, c.err)
	}
}

// Who may set the first password is asked for one, and is logged in with it; nothing else is there before.
func TestFirstPassword(t *testing.T) {
	g := newRig(t)
	form := []string{"-user", "", "Content-Type", "application/x-www-form-urlencoded", "X-Postern-Token", ""}
	assert.Equal(t, 401, g.ask(t, "POST", "/login", "user=admin&password=", form...).status)
	g.mu.Lock()
	g.unset = true
	g.mu.Unlock()
	answer := g.ask(t, "POST", "/login", "user=admin&password=", form...)
	assert.Equal(t, 428, answer.status)
	assert.Equal(t, 401, g.ask(t, "POST", "/login", "user=root&password=", form...).status)
	assert.Equal(t, 403, g.ask(t, "POST", "/login", "user=admin&password=&new=battery+staple", form[:4]...).status, "the form of another page")
	assert.Equal(t, 200, g.ask(t, "POST", "/login", "user=admin&password=&new=battery+staple&again=battery+staple", form...).status)
	assert.Equal(t, "battery staple", g.set)
	assert.Equal(t, 401, g.ask(t, "POST", "/login", "user=admin&password=&new=other", form...).status, "once")
}
