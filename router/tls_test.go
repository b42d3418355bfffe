//go:build !small

package router

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-routeros/routeros/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/api"
	"github.com/postern-router/postern/certificate"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/internal/browser"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/password"
	"github.com/postern-router/postern/web"
)

// tlsRouter is a router of which the services over TLS run, as processes, with the router's own certificate.
type tlsRouter struct {
	*rig
	web, api string // addresses
	page     Service
	roots    *x509.CertPool
}

func newTLSRouter(t *testing.T) tlsRouter {
	t.Helper()
	g := tlsRouter{rig: newRig(t), roots: x509.NewCertPool()}
	r := g.r
	supervisor := realSupervisor(t, r.log, g.log)
	programs, page := newProgramService(supervisor, r.log.About("api"), api.TLSSpec), newWebService(supervisor, r.log.About("www"), web.TLSSpec)
	programs.attach(r, way{viaAPI, true})
	page.attach(r, way{viaWeb, true})
	g.page = page
	t.Cleanup(programs.Stop)
	t.Cleanup(page.Stop)
	hash, err := password.New("correct horse")
	require.NoError(t, err)
	config := console.Default()
	config.SetPassword(console.Admin, hash)
	config.Addresses = []netcfg.Address{{Address: netip.MustParsePrefix("127.0.0.1/8"), Interface: "ether2"}, {Address: netip.MustParsePrefix("192.168.0.1/24"), Interface: "ether2"}}
	config.WWWSSL.Port, config.APISSL.Port = freePort(t), freePort(t)
	result, err := new(console.Session).Execute(config, r.live(state{config: config}, console.Admin), "/certificate add name=mine common-name=router subject-alt-name=DNS:localhost,IP:127.0.0.1\n"+
		"/ip service set www-ssl certificate=mine disabled=no\n/ip service enable api-ssl\n/ip service set api-ssl certificate=mine")
	require.NoError(t, err)
	config = result.Config
	require.NoError(t, page.Apply(config))
	require.NoError(t, programs.Apply(config))
	r.mu.Lock()
	r.now.config, r.now.running = config, config
	r.mu.Unlock()
	g.web, g.api = fmt.Sprintf("127.0.0.1:%d", config.WWWSSL.Port), fmt.Sprintf("127.0.0.1:%d", config.APISSL.Port)
	require.True(t, g.roots.AppendCertsFromPEM([]byte(config.Certificates[0].PEM())))
	return g
}

// Clients that trust the router's own certificate take REST, the page, metrics and the API over TLS; the cookie is one that a
// browser sends over TLS alone.
func TestServicesOverTLS(t *testing.T) {
	g := newTLSRouter(t)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: g.roots}}
	client := http.Client{Timeout: time.Minute, Transport: transport}
	t.Cleanup(client.CloseIdleConnections)
	ask := func(method, path, body string, head map[string]string) (*http.Response, string) {
		t.Helper()
		request, err := http.NewRequest(method, "https://"+g.web+path, strings.NewReader(body))
		require.NoError(t, err)
		for name, value := range head {
			request.Header.Set(name, value)
		}
		if head == nil {
			request.SetBasicAuth(console.Admin, "correct horse")
		}
		answer, err := client.Do(request)
		require.NoError(t, err)
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return answer, string(text)
	}
	answer, text := ask("GET", "/rest/system/identity", "", nil)
	assert.Equal(t, 200, answer.StatusCode)
	assert.Equal(t, `{"name":"postern"}`, text)
	assert.EqualValues(t, tls.VersionTLS13, answer.TLS.Version)
	answer, _ = ask("GET", "/metrics", "", nil)
	assert.Equal(t, 200, answer.StatusCode)
	assert.Empty(t, answer.Header.Get("Strict-Transport-Security"))

	// The page.
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded", "X-Postern-Token": "", "Origin": "https://" + g.web}
	answer, text = ask("POST", "/login", "user=admin&password=correct+horse", form)
	require.Equal(t, 200, answer.StatusCode, text)
	cookie := answer.Header.Get("Set-Cookie")
	assert.Regexp(t, `^__Host-postern=[^;]+; Path=/; HttpOnly; SameSite=Strict; Secure$`, cookie)
	value, _, _ := strings.Cut(cookie, ";")
	answer, _ = ask("GET", "/session", "", map[string]string{"Cookie": value})
	assert.Equal(t, 200, answer.StatusCode)
	answer, _ = ask("GET", "/session", "", map[string]string{"Cookie": strings.Replace(value, "__Host-", "", 1)})
	assert.Equal(t, 401, answer.StatusCode, "a cookie that a page without TLS could set")
	form["Origin"] = "http://" + g.web
	answer, _ = ask("POST", "/login", "user=admin&password=correct+horse", form)
	assert.Equal(t, 403, answer.StatusCode, "another page")

	// TLS 1.2 too, and nothing older.
	for version, ok := range map[uint16]bool{tls.VersionTLS12: true, tls.VersionTLS11: false, tls.VersionTLS10: false} {
		conn, err := tls.Dial("tcp4", g.web, &tls.Config{RootCAs: g.roots, MinVersion: tls.VersionTLS10, MaxVersion: version})
		assert.Equal(t, ok, err == nil, "%x: %v", version, err)
		if err == nil {
			conn.Close()
		}
	}
	// Who does not trust the certificate goes no further, and a name that is not in it is none of the router's.
	_, err := tls.Dial("tcp4", g.web, &tls.Config{})
	require.ErrorAs(t, err, new(*tls.CertificateVerificationError))
	_, err = tls.Dial("tcp4", g.web, &tls.Config{RootCAs: g.roots, ServerName: "other.lan"})
	require.ErrorAs(t, err, new(x509.HostnameError))

	// The API, by go-routeros.
	c, err := routeros.DialTLSTimeout(g.api, "admin", "correct horse", &tls.Config{RootCAs: g.roots}, time.Minute)
	require.NoError(t, err)
	reply, err := c.Run("/ip/service/print", "?name=api-ssl")
	require.NoError(t, err)
	require.Len(t, reply.Re, 1)
	assert.Equal(t, "mine", reply.Re[0].Map["certificate"])
	reply, err = c.Run("/certificate/print")
	require.NoError(t, err)
	require.Len(t, reply.Re, 1)
	assert.Equal(t, "true", reply.Re[0].Map["private-key"])
	assert.Len(t, reply.Re[0].Map["fingerprint"], 64)
	for name, value := range reply.Re[0].Map {
		assert.Less(t, len(value), 100, "%s is neither the key nor the certificate", name)
	}
	c.Close()
	_, err = routeros.DialTLSTimeout(g.api, "admin", "wrong", &tls.Config{RootCAs: g.roots}, time.Minute)
	require.ErrorContains(t, err, "invalid user name or password")
	assert.Contains(t, g.log(), "user admin logged in from 127.0.0.1 via api\n")
	assert.Contains(t, g.log(), "user admin logged in from 127.0.0.1 via web\n")
	assert.NotContains(t, g.log(), g.r.snapshot().config.Certificates[0].Key)
}

// Hostile handshakes cost a place among those who have not logged in, and only for a while: a client is served in spite of them,
// and afterwards the process is as it was.
func TestHostileHandshakes(t *testing.T) {
	g := newTLSRouter(t)
	works := func() bool {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp4", g.web, &tls.Config{RootCAs: g.roots})
		if err != nil {
			return false
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n")
		line, err := bufio.NewReader(conn).ReadString('\n')
		return err == nil && line == "HTTP/1.1 200 OK\r\n"
	}
	require.True(t, works())
	record := func(kind byte, length int, body []byte) []byte {
		return append([]byte{kind, 3, 1, byte(length >> 8), byte(length)}, body...)
	}
	garbage := make([]byte, 20000)
	_, _ = rand.Read(garbage)
	hello := func(length int) []byte { // a ClientHello that says how long it is
		return record(22, 4+32, append([]byte{1, byte(length >> 16), byte(length >> 8), byte(length)}, garbage[:32]...))
	}
	for name, bytes := range map[string][]byte{
		"plain HTTP":                []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"garbage":                   garbage,
		"a record of 64 KiB":        record(22, 65535, garbage[:65535%20000]),
		"records of nothing":        []byte(strings.Repeat("\x16\x03\x01\x00\x00", 2000)),
		"alerts":                    []byte(strings.Repeat("\x15\x03\x01\x00\x02\x01\x64", 2000)),
		"a hello of 16 MB":          append(hello(1<<24-1), garbage...),
		"a hello that is no hello":  hello(32),
		"data before the handshake": record(23, 1000, garbage[:1000]),
		"SSL 2":                     append([]byte{0x80, 46, 1, 3, 1}, garbage[:43]...),
	} {
		conn, err := net.Dial("tcp4", g.web)
		require.NoError(t, err, name)
		_, _ = conn.Write(bytes)
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		_, err = io.Copy(io.Discard, conn)
		var timeout net.Error
		assert.False(t, err != nil && assert.ErrorAs(t, err, &timeout) && timeout.Timeout(), "%s: the router ends the connection", name)
		conn.Close()
	}
	require.Eventually(t, works, time.Minute, 10*time.Millisecond)

	// A thousand that come as fast as they can, half of which go on.
	var all sync.WaitGroup
	places := make(chan struct{}, 50)
	for i := range 1000 {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			conn, err := net.Dial("tcp4", g.web)
			if err != nil {
				return
			}
			defer conn.Close()
			if i%2 == 0 {
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				_ = tls.Client(conn, &tls.Config{RootCAs: g.roots, ServerName: "localhost"}).Handshake()
			}
		})
	}
	all.Wait()
	require.Eventually(t, works, time.Minute, 10*time.Millisecond)

	// Those that begin and wait are cut off, and more of one address than there may be at once. Then there is room again.
	var slow []net.Conn
	for range 8 {
		conn, err := net.Dial("tcp4", g.web)
		require.NoError(t, err)
		_, _ = conn.Write(hello(1000)[:20])
		slow = append(slow, conn)
	}
	for _, conn := range slow {
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
		_, err := io.Copy(io.Discard, conn)
		var timeout net.Error
		assert.False(t, err != nil && assert.ErrorAs(t, err, &timeout) && timeout.Timeout(), "the router ends the connection")
		conn.Close()
	}
	require.Eventually(t, works, time.Minute, 10*time.Millisecond)
	assert.NotContains(t, g.log(), "ended unexpectedly")
	assert.NotContains(t, g.log(), "panic")
}

// A browser that trusts the router's own certificate has the page over TLS, whose cookie goes over TLS alone; and one that does not
// trust it has not.
func TestPageOverTLS(t *testing.T) {
	const secret = "correct horse"
	g := newPageRig(t, web.TLSSpec, func(g *rig) []string {
		g.must("/user set admin password=\"" + secret + "\"")
		g.must("/ip service enable www-ssl")
		pair, err := g.r.snapshot().config.Certificates[0].KeyPair()
		require.NoError(t, err)
		leaf, err := x509.ParseCertificate(pair.Chain[0])
		require.NoError(t, err)
		sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
		return []string{"--ignore-certificate-errors-spki-list=" + base64.StdEncoding.EncodeToString(sum[:])}
	})
	g.Open("https://192.168.0.1")
	g.Await(`document.activeElement.name == "password" && isSecureContext`)
	g.Type(secret)
	g.Press("Enter")
	g.Await(`document.title == "home" && document.activeElement.id == "name"`)
	assert.Contains(t, g.log(), "user admin logged in from 192.168.0.2 via web")
	assert.Empty(t, g.Text("document.cookie"), "no script has it")
	g.Await(`[...document.querySelectorAll("#active tbody tr")].some(e => e.innerText.includes("192.168.0.2"))`)
	g.Open("https://192.168.0.1") // the cookie is sent
	g.Await(`document.title == "home" && !document.querySelector("#status").hidden`)
	for _, r := range g.Requests() {
		assert.Regexp(t, `^(GET|POST) (https://192\.168\.0\.1/|data:image/svg)`, r)
	}
	for _, p := range g.Problems() {
		assert.Regexp(t, `status of (401 .*/session|400 .*/rest/partitions)$`, p)
	}

	// Another key is one that the browser does not know: it shows nothing of the page.
	g.must("/certificate sign router")
	g.Browser = browser.Start(t, g.lan.Command)
	assert.Contains(t, g.Refused("https://192.168.0.1"), "ERR_CERT_AUTHORITY_INVALID")
}

// A certificate that is replaced is that of the next connection; those that are there go on with the old one, and so do logins.
func TestRenewedCertificate(t *testing.T) {
	g := newTLSRouter(t)
	dial := func() (*tls.Conn, string) {
		t.Helper()
		conn, err := tls.Dial("tcp4", g.web, &tls.Config{InsecureSkipVerify: true}) // its fingerprint is compared
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		return conn, fmt.Sprintf("%x", sha256.Sum256(conn.ConnectionState().PeerCertificates[0].Raw))
	}
	ask := func(conn *tls.Conn) int {
		t.Helper()
		request, err := http.NewRequest("GET", "https://"+g.web+"/rest/system/identity", nil)
		require.NoError(t, err)
		request.SetBasicAuth(console.Admin, "correct horse")
		require.NoError(t, request.Write(conn))
		answer, err := http.ReadResponse(bufio.NewReader(conn), request)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, answer.Body)
		require.NoError(t, err)
		return answer.StatusCode
	}
	shown := func() string {
		info, err := g.r.snapshot().config.Certificates[0].Info()
		require.NoError(t, err)
		return info.Fingerprint
	}
	old, before := dial()
	assert.Equal(t, shown(), before)
	assert.Equal(t, 200, ask(old))
	st := g.r.snapshot()
	result, err := new(console.Session).Execute(st.config, g.r.live(st, console.Admin), "/certificate sign mine")
	require.NoError(t, err)
	require.NoError(t, g.page.Apply(result.Config))
	g.r.mu.Lock()
	g.r.now.config, g.r.now.running = result.Config, result.Config
	g.r.mu.Unlock()
	assert.NotEqual(t, before, shown())
	require.Eventually(t, func() bool { _, now := dial(); return now == shown() }, time.Minute, 10*time.Millisecond)
	assert.Equal(t, 200, ask(old), "nobody is cut off")
	conn, _ := dial()
	assert.Equal(t, 200, ask(conn))
	assert.Equal(t, 1, strings.Count(g.log(), "user admin logged in"), "the login goes on")
}

// The log is warned of a certificate before it runs out, once at each step, and of none that no service uses.
func TestCertificateRunsOut(t *testing.T) {
	g := started(t)
	_, err := g.run(&session.Session{}, "/certificate add name=mine days-valid=100; /certificate add name=unused days-valid=1; /certificate sign unused; /user set admin password=x; "+
		"/ip service set www-ssl disabled=no certificate=mine")
	require.NoError(t, err)
	log, said := testLog(t)
	c := g.r.snapshot().config
	info, err := c.Certificates[0].Info()
	require.NoError(t, err)
	watch := certificateWatch{}
	var lines []string
	for _, left := range []time.Duration{99 * day, 31 * day, 30 * day, 20 * day, 7*day - time.Hour, 6 * day, day, time.Hour, -time.Hour, -day} {
		before := len(said())
		watch.look(c, info.To.Add(-left), log)
		watch.look(c, info.To.Add(-left), log)
		lines = append(lines, strings.TrimSpace(said()[before:]))
	}
	end := info.To.Format(time.DateTime)
	soon := "<4>postern: system,warning certificate mine of www-ssl runs out at " + end + ", in %d days: it needs another, as by /certificate sign"
	assert.Equal(t, []string{"", "", fmt.Sprintf(soon, 30), "", fmt.Sprintf(soon, 6), "", fmt.Sprintf(soon, 1), "",
		"<3>postern: system,error certificate mine of www-ssl has run out at " + end + ": clients refuse it", ""}, lines)

	// Another is warned of anew.
	_, err = g.run(&session.Session{}, "/certificate sign mine")
	require.NoError(t, err)
	c = g.r.snapshot().config
	before := len(said())
	watch.look(c, info.To.Add(-40*day), log)
	assert.Empty(t, said()[before:])
	watch.look(c, info.To.Add(-20*day), log)
	assert.Contains(t, said()[before:], "runs out at")

	// It is looked at when the router starts.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err = g.run(&session.Session{}, "/certificate set mine days-valid=3; /certificate sign mine")
	require.NoError(t, err)
	go g.r.watchCertificates(ctx)
	require.Eventually(t, func() bool { return strings.Contains(g.log(), "certificate mine of www-ssl runs out at") }, time.Minute, time.Millisecond)
}

// The log tells of a new certificate, and no key.
func TestCertificateIsLogged(t *testing.T) {
	g := started(t)
	s := &session.Session{}
	_, err := g.run(s, "/ip service enable www-ssl")
	require.NoError(t, err)
	c := g.r.snapshot().config.Certificates[0]
	info, err := c.Info()
	require.NoError(t, err)
	assert.Contains(t, g.log(), "certificate router: fingerprint "+info.Fingerprint+"\n")
	assert.Contains(t, g.log(), "certificate router added, ip service www-ssl changed by admin\n")
	assert.NotContains(t, g.log(), c.Key)
	var _ certificate.Certificate = c
}
