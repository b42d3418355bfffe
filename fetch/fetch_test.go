package fetch

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/resolve"
	"github.com/postern-router/postern/service"
)

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		url, problem string
		want         URL
	}{
		{"http://192.168.0.2/sysupgrade.img", "", URL{"192.168.0.2", 80, "/sysupgrade.img"}},
		{"http://files.example:8080/a%20b?x=1", "", URL{"files.example", 8080, "/a%20b?x=1"}},
		{"http://host", "", URL{"host", 80, "/"}},
		{"http://host?x", "", URL{"host", 80, "/?x"}},
		{"https://host/", "does not begin with http://", URL{}},
		{"host/file", "does not begin with http://", URL{}},
		{"http:///file", `host "" of the URL`, URL{}},
		{"http://ho st/", "character that is not allowed", URL{}},
		{"http://host/\r\nX: y", "character that is not allowed", URL{}},
		{"http://host:0/", `port "0" of the URL`, URL{}},
		{"http://host:65536/", "expected 1 to 65535", URL{}},
		{"http://user@host/", `host "user@host"`, URL{}},
		{"http://[::1]/", "of the URL", URL{}},
		{"http://-x/", "expected an IPv4 address or a name", URL{}},
		{"http://h/" + strings.Repeat("x", maxURL), "URL of 1033 bytes, at most 1024", URL{}},
	} {
		t.Run(c.url[:min(len(c.url), 40)], func(t *testing.T) {
			got, err := ParseURL(c.url)
			if c.problem != "" {
				require.ErrorContains(t, err, c.problem)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}

func TestReadResponse(t *testing.T) {
	for _, c := range []struct {
		name, text, problem string
		want                response
	}{
		{"a length", "HTTP/1.0 200 OK\r\nContent-Length: 12\r\n\r\n", "", response{200, "OK", "", 12}},
		{"none, and bare line ends", "HTTP/1.1 200 OK\nServer: x\n\n", "", response{200, "OK", "", -1}},
		{"no reason", "HTTP/1.1 404\r\n\r\n", "", response{404, "", "", -1}},
		{"elsewhere", "HTTP/1.1 302 Found\r\nlocation: http://x/\r\n\r\n", "", response{302, "Found", "http://x/", -1}},
		{"the same length twice", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n", "", response{200, "OK", "", 1}},
		{"two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", `content-length "2"`, response{}},
		{"a negative length", "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", `content-length "-1"`, response{}},
		{"a length beyond all", "HTTP/1.1 200 OK\r\ncontent-length: 9223372036854775807\r\n\r\n", "at most", response{}},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "expected none", response{}},
		{"not HTTP", "SSH-2.0-x\r\n", "the server does not speak HTTP", response{}},
		{"no number", "HTTP/1.1 2x0 OK\r\n\r\n", "expected three digits", response{}},
		{"no colon", "HTTP/1.1 200 OK\r\nx\r\n\r\n", "a line without a colon", response{}},
		{"an end", "HTTP/1.1 200 OK\r\nx: y\r\n", "unexpected EOF", response{}},
		{"nothing", "", "unexpected EOF", response{}},
		{"a long line", "HTTP/1.1 200 " + strings.Repeat("x", maxLine), "longer than", response{}},
		{"without end", "HTTP/1.1 200 OK\r\n" + strings.Repeat("x: y\r\n", maxHead), "longer than", response{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := readResponse(bufio.NewReaderSize(strings.NewReader(c.text), maxLine))
			if c.problem != "" {
				require.ErrorContains(t, err, c.problem)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}

// TestRun fetches from the library's server.
func TestRun(t *testing.T) {
	file := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/length":
			assert.Equal(t, "Postern", r.UserAgent())
			w.Header().Set("Content-Length", fmt.Sprint(len(file)))
			_, _ = w.Write(file)
		case "/end":
			w.(http.Flusher).Flush()
			_, _ = w.Write(file)
		case "/short":
			w.Header().Set("Content-Length", fmt.Sprint(len(file)+1))
			_, _ = w.Write(file)
		case "/elsewhere":
			http.Redirect(w, r, "/length", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	for _, c := range []struct{ path, problem string }{
		{"/length", ""},
		{"/end", ""},
		{"/short", "the connection ended after 1600000 of 1600001 bytes"},
		{"/elsewhere", "the server answers 302 Found: it is at /length"},
		{"/missing", "the server answers 404 Not Found"},
	} {
		t.Run(c.path, func(t *testing.T) {
			var out bytes.Buffer
			err := run(t.Context(), server.URL+c.path, resolve.ServersAt(netip.MustParseAddr("10.0.0.1")), &out)
			if c.problem != "" {
				require.ErrorContains(t, err, "get "+server.URL+c.path+": "+c.problem)
				return
			}
			require.NoError(t, err)
			assert.True(t, bytes.Equal(file, out.Bytes()))
		})
	}
	t.Run("refused", func(t *testing.T) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		require.NoError(t, err)
		address := l.Addr().String()
		require.NoError(t, l.Close())
		require.EqualError(t, run(t.Context(), "http://"+address+"/", nil, io.Discard), "connect to "+address+": connection refused")
	})
	t.Run("reset", func(t *testing.T) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return // the test has ended
			}
			_, _ = bufio.NewReader(conn).ReadString('\n')
			_ = conn.(*net.TCPConn).SetLinger(0) // a reset
			conn.Close()
		}()
		url := "http://" + l.Addr().String() + "/"
		require.EqualError(t, run(t.Context(), url, nil, io.Discard), "get "+url+": answer: connection reset by peer")
	})
	t.Run("who reads has gone", func(t *testing.T) {
		r, w := io.Pipe()
		require.NoError(t, r.Close())
		require.ErrorIs(t, run(t.Context(), server.URL+"/length", nil, w), io.ErrClosedPipe)
	})
}

// TestInterrupt ends a fetch from a server that says nothing.
func TestInterrupt(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.ReadFull(conn, make([]byte, 20))
		cancel()
		_, _ = io.Copy(io.Discard, conn)
	}()
	start := time.Now()
	require.Error(t, run(ctx, "http://"+l.Addr().String()+"/", nil, io.Discard))
	assert.Less(t, time.Since(start), 10*time.Second)
}

func FuzzGet(f *testing.F) {
	f.Add([]byte("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte("HTTP/1.1 302 Found\r\nLocation: x\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200\n\nbody"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		in := bufio.NewReaderSize(bytes.NewReader(answer), maxLine)
		r, err := readResponse(in)
		if err != nil {
			return
		}
		if r.status < 100 || r.status > 999 || r.length < -1 || r.length > MaxBody {
			t.Fatalf("%+v", r)
		}
		var out bytes.Buffer
		if err := copyBody(&out, in, r.length); err == nil && r.length >= 0 && int64(out.Len()) != r.length {
			t.Fatalf("%d bytes of %d", out.Len(), r.length)
		}
	})
}

func FuzzParseURL(f *testing.F) {
	f.Add("http://192.168.0.2:8080/x?y")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURL(s)
		if err == nil && strings.Count(u.request(), "\n") != 6 {
			t.Fatalf("%q makes %q", s, u.request())
		}
	})
}

// TestJob has the process fetch a file, without a process.
func TestJob(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "file") }))
	defer server.Close()
	in, body, err := os.Pipe()
	require.NoError(t, err)
	defer in.Close()
	link, ended, err := service.Simulate(t.Context(), Spec, func(*service.Link) service.Handler { return nil })
	require.NoError(t, err)
	job := Job(server.URL+"/", nil, body)
	require.NoError(t, link.Call(t.Context(), job.Op, job.Body, nil, job.Files...))
	body.Close()
	got, err := io.ReadAll(in)
	require.NoError(t, err)
	assert.Equal(t, "file", string(got))
	require.ErrorIs(t, link.Call(t.Context(), job.Op, job.Body, nil), service.ErrGone, "a request without a place for the file")
	require.ErrorIs(t, <-ended, service.ErrBreach)
}
