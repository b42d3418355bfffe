package web

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func parse(text string) (*request, error) {
	return readRequest(bufio.NewReaderSize(strings.NewReader(text), maxLine))
}

// statusOf is the status of a refusal, 0 of none.
func statusOf(err error) int {
	var h *httpError
	if errors.As(err, &h) {
		return h.status
	}
	return 0
}

// Requests that two readers could read differently are refused, as are those that are too long.
func TestRefusedRequests(t *testing.T) {
	const start = "POST /rest/x HTTP/1.1\r\nHost: 192.168.0.1\r\n"
	for _, c := range []struct {
		name, text string
		status     int
	}{
		{"a length and a transfer encoding", start + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"the same the other way round", start + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400},
		{"a transfer encoding", start + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411},
		{"one that is none", start + "Transfer-Encoding: xchunked\r\n\r\n", 411},
		{"two of them", start + "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		{"one in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		{"two lengths", start + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400},
		{"two equal lengths", start + "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400},
		{"a list of lengths", start + "Content-Length: 5, 5\r\n\r\n", 400},
		{"a signed length", start + "Content-Length: +5\r\n\r\n", 400},
		{"a negative length", start + "Content-Length: -5\r\n\r\n", 400},
		{"a length with a base", start + "Content-Length: 0x5\r\n\r\n", 400},
		{"a length with underscores", start + "Content-Length: 1_0\r\n\r\n", 400},
		{"an empty length", start + "Content-Length:\r\n\r\n", 400},
		{"a length that overflows", start + "Content-Length: 99999999999999999999\r\n\r\n", 413},
		{"a continued line", start + "X: a\r\n b\r\n\r\n", 400},
		{"a continued line with a tab", start + "X: a\r\n\tContent-Length: 5\r\n\r\n", 400},
		{"a continued request line", "GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400},
		{"a blank before the colon", start + "Content-Length : 5\r\n\r\n", 400},
		{"a tab before the colon", start + "Content-Length\t: 5\r\n\r\n", 400},
		{"no colon", start + "Content-Length 5\r\n\r\n", 400},
		{"no name", start + ": 5\r\n\r\n", 400},
		{"a name with a colon of another script", start + "Content\xef\xbc\x9aLength: 5\r\n\r\n", 400},
		{"CR alone in a value", start + "X: a\rContent-Length: 5\r\n\r\n", 400},
		{"CR alone as the end of the head", start + "\r\r\n", 400},
		{"two CRs", start + "X: a\r\r\n\r\n", 400},
		{"LF alone", start + "X: a\n\r\n", 400},
		{"LF alone as the end of the head", start + "\n", 400},
		{"LF alone behind the request line", "GET / HTTP/1.1\nHost: x\r\n\r\n", 400},
		{"a byte 0 in a value", start + "X: a\x00b\r\n\r\n", 400},
		{"a byte 0 in a name", start + "X\x00: a\r\n\r\n", 400},
		{"DEL", start + "X: \x7f\r\n\r\n", 400},
		{"two hosts", start + "Host: 192.168.0.1\r\n\r\n", 400},
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
		{"a host with a user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400},
		{"a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
		{"a bad port", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400},
		{"two authorizations", start + "Authorization: a\r\nAuthorization: a\r\n\r\n", 400},
		{"two cookies", start + "Cookie: a=b\r\nCookie: a=c\r\n\r\n", 400},
		{"two blanks in the request line", "GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"a blank in the path", "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"a tab in the request line", "GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"a blank before the method", " GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"a method that is none", "G(T / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"no version", "GET /\r\n\r\n", 400},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		{"a version of two digits", "GET / HTTP/1.10\r\nHost: x\r\n\r\n", 505},
		{"a version in lower case", "GET / http/1.1\r\nHost: x\r\n\r\n", 400},
		{"a path without a slash", "GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"another scheme", "GET https://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"a URL without a host", "GET http:///x HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"CONNECT", "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"a fragment", "GET /#x HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"a bad escape", "GET /%2 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"an escaped byte 0", "GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"a path upwards", "GET /rest/%2e%2e/x HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"an empty part of the path", "GET /rest//x HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"another expectation", start + "Expect: x\r\n\r\n", 417},
		{"a long line", "GET /" + strings.Repeat("x", maxLine) + " HTTP/1.1\r\nHost: x\r\n\r\n", 431},
		{"a long head", start + longHead() + "\r\n", 431},
		{"many fields", start + manyFields(maxFields) + "\r\n", 431},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400},
		{"many parameters", "GET /?" + strings.Repeat("a=b&", maxParameters+1) + " HTTP/1.1\r\nHost: x\r\n\r\n", 400},
	} {
		r, err := parse(c.text)
		assert.Equal(t, c.status, statusOf(err), "%s: %v", c.name, err)
		assert.Nil(t, r, c.name)
	}
	for _, text := range []string{"G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: x\r\n"} {
		_, err := parse(text)
		assert.ErrorIs(t, err, io.ErrUnexpectedEOF, text)
	}
	_, err := parse("")
	assert.ErrorIs(t, err, errSilent)
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("X-" + strings.Repeat("y", i) + ": z\r\n")
	}
	return b.String()
}

func longHead() string {
	var b strings.Builder
	for i := range 5 {
		b.WriteString("X-" + strings.Repeat("y", i) + ": " + strings.Repeat("z", 3900) + "\r\n")
	}
	return b.String()
}

func TestRequests(t *testing.T) {
	r, err := parse("\r\nPOST /rest/ip/address/%2A1/?a=b%20c+d&.proplist=x,y&flag HTTP/1.1\r\nhOST:\t Router.LAN.:80 \r\nContent-Length: 007\r\n" +
		"Connection: foo, Close\r\nContent-Type: Application/JSON ; charset=utf-8\r\nAccept: a\r\nAccept: b\r\nAccept-Encoding: br, gzip;q=0.5\r\n" +
		"X-Postern-Token:\r\nExpect: 100-Continue\r\n\r\n")
	require.NoError(t, err)
	assert.Equal(t, []string{"rest", "ip", "address", "*1"}, r.segments)
	assert.Equal(t, []parameter{{"a", "b c d"}, {".proplist", "x,y"}, {"flag", ""}}, r.query)
	assert.Equal(t, "router.lan", r.host)
	assert.EqualValues(t, 7, r.length)
	assert.Equal(t, "application/json", r.contentType)
	assert.Equal(t, "a,b,", r.accept)
	assert.True(t, r.last && !r.old && r.acceptsGzip && r.fromPage && r.continues)

	r, err = parse("GET http://10.0.0.1:8080?x=1 HTTP/1.1\r\nHost: evil.example\r\n\r\n")
	require.NoError(t, err)
	assert.Equal(t, "10.0.0.1", r.host, "the host of the URL counts")
	assert.Empty(t, r.segments)
	assert.Len(t, r.query, 1)

	r, err = parse("GET / HTTP/1.0\r\n\r\n")
	require.NoError(t, err)
	assert.True(t, r.last && r.old)
	r, err = parse("OPTIONS * HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip;q=0\r\n\r\n")
	require.NoError(t, err)
	assert.False(t, r.last || r.acceptsGzip || r.fromPage)
}

// Whatever is read as a request is read as the same one by net/http.
func FuzzRequest(f *testing.F) {
	f.Add("GET /rest/ip/address?x=y HTTP/1.1\r\nHost: 192.168.0.1\r\nAuthorization: Basic YTpi\r\n\r\n")
	f.Add("POST http://a/rest HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\nabc")
	f.Add("POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n")
	f.Add("\r\nOPTIONS * HTTP/1.0\r\nX:\ty\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		in := bufio.NewReaderSize(strings.NewReader(text), maxLine)
		r, err := readRequest(in)
		if err != nil {
			return
		}
		rest, err := io.ReadAll(in)
		require.NoError(t, err)
		other, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.TrimPrefix(text, "\r\n"))))
		if err != nil {
			return // it is stricter in places: names with bytes that are no ASCII, say
		}
		assert.Equal(t, other.Method, r.method)
		assert.Empty(t, other.TransferEncoding)
		assert.Equal(t, max(0, other.ContentLength), r.length)
		body, err := io.ReadAll(other.Body)
		if err == nil {
			require.LessOrEqual(t, r.length, int64(len(rest)))
			assert.Equal(t, string(body), string(rest[:r.length]))
		}
		if host, ok := hostOf(other.Host); ok {
			assert.Equal(t, host, r.host)
		}
		if r.method != "OPTIONS" {
			assert.Equal(t, strings.Trim(other.URL.Path, "/"), strings.Join(r.segments, "/"))
		}
	})
}

// Who sends nothing, or a byte now and then, is cut off.
func TestSlowClients(t *testing.T) {
	for _, c := range []struct {
		name  string
		send  func(net.Conn)
		after time.Duration
	}{
		{"who is silent", func(net.Conn) {}, strangerTime},
		{"who sends a byte now and then", func(c net.Conn) {
			for range 1000 {
				if _, err := c.Write([]byte("G")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, requestTime},
		{"who sends no body", func(c net.Conn) {
			_, _ = io.WriteString(c, "POST /login HTTP/1.1\r\nHost: 10.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"+tokenField+":\r\nContent-Length: 9\r\n\r\n")
		}, requestTime + time.Second},
		{"who makes a request now and then", func(c net.Conn) {
			for range 100 {
				if _, err := io.WriteString(c, "GET /session HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n"); err != nil {
					return
				}
				time.Sleep(10 * time.Second)
			}
		}, strangerTime},
	} {
		synctest.Test(t, func(t *testing.T) {
			router := newFakeRouter(t)
			s := newServer(router.check, nil, func() func() { return func() {} }, func() string { return "" })
			near, far := net.Pipe()
			var client sync.WaitGroup
			defer client.Wait()
			defer far.Close()
			begun := time.Now()
			client.Go(func() { _, _ = io.Copy(io.Discard, far) })
			client.Go(func() { c.send(far) })
			s.serve(t.Context(), near, netip.MustParseAddr("10.0.0.2"), false, func(bool) {})
			near.Close()
			assert.LessOrEqual(t, time.Since(begun), c.after, c.name)
		})
	}
}

// A login ends some time after its last request, and with it the hold of the process.
func TestIdleLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		router := newFakeRouter(t)
		held := 0
		u := newUsers(router.check, nil, func() func() {
			router.add(&held, 1)
			return func() { router.add(&held, -1) }
		})
		from := netip.MustParseAddr("10.0.0.2")
		v, cookie, err := u.byForm(t.Context(), from, "admin", "correct horse")
		require.NoError(t, err)
		assert.Nil(t, u.byCookie(netip.MustParseAddr("10.0.0.3"), cookie), "another address")
		time.Sleep(2 * idleTime) // a long request
		u.done(v)
		time.Sleep(idleTime - time.Second)
		require.Same(t, v, u.byCookie(from, cookie))
		require.NoError(t, v.with(t.Context(), commandTime, func(Session) error { return nil }))
		u.done(v)
		time.Sleep(idleTime - time.Second)
		synctest.Wait()
		assert.Equal(t, 1, router.get(&held))
		assert.Equal(t, 1, router.get(&router.sessions))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.Nil(t, u.byCookie(from, cookie))
		assert.Zero(t, router.get(&held))
		assert.Zero(t, router.get(&router.logins))
		assert.Zero(t, router.get(&router.sessions))
	})
}

// A request that takes too long is ended, and those behind it are refused.
func TestLongRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		router := newFakeRouter(t)
		router.block = make(chan struct{})
		u := newUsers(router.check, nil, func() func() { return func() {} })
		from := netip.MustParseAddr("10.0.0.2")
		v, _, err := u.byForm(t.Context(), from, "admin", "correct horse")
		require.NoError(t, err)
		defer func() { u.done(v); time.Sleep(2 * idleTime) }()
		begun := time.Now()
		results := make(chan error)
		for range maxSessions + 1 {
			go func() {
				results <- v.with(t.Context(), commandTime, func(s Session) error { return s.Query("log", nil, nil, nil) })
			}()
		}
		assert.ErrorIs(t, <-results, errBusy)
		for range maxSessions {
			assert.ErrorIs(t, <-results, errOver)
		}
		assert.Equal(t, commandTime, time.Since(begun))
		close(router.block)
	})
}
