package router

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/password"
	"github.com/postern-router/postern/web"
)

func TestOwnNames(t *testing.T) {
	c := console.Default()
	c.Addresses = []netcfg.Address{{Address: netip.MustParsePrefix("192.168.0.1/24")}}
	own := netip.MustParseAddr("192.168.0.1")
	c.DNSServer.Static = []dns.Static{
		{Name: "router.lan", Type: "A", Address: own},
		{Name: "nas.lan", Type: "A", Address: netip.MustParseAddr("192.168.0.2")},
		{Name: "off.lan", Type: "A", Address: own, Disabled: true},
		{Regexp: ".*", Type: "A", Address: own},
		{Name: "text.lan", Type: "TXT", Text: "x"},
	}
	assert.Equal(t, []string{"postern", "router.lan"}, ownNames(c))
}

// Nothing listens before there is a password. The process starts with the first connection, serves who has it, and
// stays as long as somebody is logged in; then it knows a new name of the router.
func TestWebService(t *testing.T) {
	fakes := newRig(t)
	r := fakes.r
	s := newWebService(realSupervisor(t, r.log, fakes.log), r.log.About("www"), web.Spec)
	s.attach(r, way{via: viaWeb})
	config := console.Default()
	config.WWW.Disabled, config.WWW.Port = false, freePort(t)
	apply := func() {
		t.Helper()
		require.NoError(t, s.Apply(config))
		r.mu.Lock()
		r.now.config, r.now.running = config, config
		r.mu.Unlock()
		r.endStale(nil)
	}
	apply()
	address := fmt.Sprintf("127.0.0.1:%d", config.WWW.Port)
	_, err := net.Dial("tcp4", address)
	require.ErrorIs(t, err, unix.ECONNREFUSED)

	hash, err := password.New("correct horse")
	require.NoError(t, err)
	config.SetPassword(console.Admin, hash)
	apply()
	client := http.Client{Timeout: time.Minute}
	t.Cleanup(client.CloseIdleConnections)
	ask := func(method, path, secret, body, host string) (int, string) {
		t.Helper()
		request, err := http.NewRequest(method, "http://"+address+path, strings.NewReader(body))
		require.NoError(t, err)
		request.Host = host
		request.SetBasicAuth(console.Admin, secret)
		request.Header.Set("Content-Type", "application/json")
		answer, err := client.Do(request)
		require.NoError(t, err)
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return answer.StatusCode, string(text)
	}
	status, _ := ask("GET", "/rest/system/identity", "wrong", "", "")
	assert.Equal(t, 401, status)
	assert.Contains(t, fakes.log(), "login failure for user admin from 127.0.0.1 via rest-api")
	status, text := ask("GET", "/rest/system/identity", "correct horse", "", "")
	assert.Equal(t, 200, status)
	assert.Equal(t, `{"name":"postern"}`, text)
	assert.Contains(t, fakes.log(), "user admin logged in from 127.0.0.1 via rest-api")
	assert.NotContains(t, fakes.log(), "logged out")

	status, text = ask("PUT", "/rest/ip/address", "correct horse", `{"address":"192.168.0.1/24","interface":"ether2"}`, "")
	assert.Equal(t, 201, status, text)
	assert.Len(t, r.snapshot().config.Addresses, 1)
	status, _ = ask("GET", "/metrics", "correct horse", "", "")
	assert.Equal(t, 200, status)

	config = r.snapshot().config
	status, _ = ask("GET", "/rest/system/identity", "correct horse", "", "gate.example")
	assert.Equal(t, 421, status)
	config.DNSServer.Static = []dns.Static{{Name: "Gate.example", Type: "A", Address: netip.MustParseAddr("192.168.0.1")}}
	apply()
	require.Eventually(t, func() bool {
		status, _ = ask("GET", "/rest/system/identity", "correct horse", "", "gate.EXAMPLE")
		return status == 200
	}, time.Minute, 10*time.Millisecond, "the process takes the name")
	assert.Equal(t, 1, strings.Count(fakes.log(), "logged in"), "it has not started anew")

	hash, err = password.New("battery staple")
	require.NoError(t, err)
	config.SetPassword(console.Admin, hash)
	apply()
	require.Eventually(t, func() bool { // the process is told of it
		status, _ = ask("GET", "/rest/system/identity", "correct horse", "", "")
		return status == 401
	}, time.Minute, 10*time.Millisecond)
	status, _ = ask("GET", "/rest/system/identity", "battery staple", "", "")
	assert.Equal(t, 200, status)

	config.SetPassword(console.Admin, "")
	apply()
	require.Eventually(t, func() bool { return strings.Contains(fakes.log(), "user admin logged out from 127.0.0.1 via rest-api") }, time.Minute, time.Millisecond)
	s.Stop()
}
