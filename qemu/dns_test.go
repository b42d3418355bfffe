package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
)

// testNames asks the router's DNS server with dig, as hosts of the LAN do, and has the router itself
// ask it.
func (r *router) testNames(t *testing.T) {
	e2e.Needs(t, "dig")
	r.nameServer(t)
	r.command(t, "/ip dns set servers="+serverAddress+" allow-remote-requests=yes")
	r.command(t, "/ip dns static add name=nas.lan address=192.168.0.5")
	r.command(t, "/ip dns static add name=files.lan type=CNAME cname=ftp.test")
	r.command(t, "/ip dns static add regexp=\"^ads[0-9]+[.]\" type=NXDOMAIN")
	r.command(t, "/ip dns static add name=lan type=MX mx-preference=10 mx-exchange=nas.lan")
	for _, c := range []struct{ arguments, want string }{
		{"MX lan", "10 nas.lan."},
		{"ftp.test", serverAddress},
		{"+tcp ftp.test", serverAddress},
		{"+dnssec +bufsize=4096 FTP.test", serverAddress},
		{"+noedns ftp.test", serverAddress},
		{"+noedns +tcp +keepopen ftp.test files.lan", serverAddress + "\nftp.test.\n" + serverAddress},
		{"nas.lan", "192.168.0.5"},
		{"-x 192.168.0.5", "nas.lan."},
		{"files.lan", "ftp.test.\n" + serverAddress},
		{"ads7.example", ""},
	} {
		arguments := append([]string{"@" + lanAddress, "+short", "+tries=5", "+timeout=10"}, strings.Fields(c.arguments)...)
		out, err := r.n[client].Command("dig", arguments...).CombinedOutput()
		require.NoError(t, err, "dig %s: %s", c.arguments, out)
		assert.Equal(t, c.want, strings.TrimSpace(string(out)), "dig %s", c.arguments)
	}
	status, err := r.n[client].Command("dig", "@"+lanAddress, "+tries=5", "+timeout=10", "ads7.example").CombinedOutput()
	require.NoError(t, err)
	assert.Contains(t, string(status), "status: NXDOMAIN")
	cache := r.command(t, "/ip dns cache print")
	assert.Regexp(t, `ftp\.test +A +10\.5\.8\.8 `, cache)
	t.Logf("%s:%s", r.b.Name, cache)

	// The router's own lookups know static names.
	r.command(t, "/ip dns static add name=server.lan address="+serverAddress)
	conn, err := r.n.dial(client, socksAddress, patience)
	require.NoError(t, err)
	defer conn.Close()
	reply, err := requestNameSOCKS(conn, "server.lan", 21)
	require.NoError(t, err)
	assert.EqualValues(t, granted, reply.code)

	// A name that has a server of its own is asked of that alone: the client has none, and the usual one would know the name.
	r.command(t, "/ip dns static add name=ftp.test type=FWD forward-to="+clientAddress)
	assert.Contains(t, r.command(t, "/ping ftp.test count=1"), "address of ftp.test: name server 127.0.0.1 failed to find out (SERVFAIL)")
	r.command(t, "/ip dns static remove [find]")
	assert.Contains(t, r.command(t, "/ping ftp.test count=1"), "sent=1 ")
	r.testNoNameServer(t)
	r.command(t, "/ip dns set allow-remote-requests=no")
}

// testNoNameServer sets no name server: who asks for a name is told so, at the console and by the router's DNS server, and the client
// of SOCKS by the log.
func (r *router) testNoNameServer(t *testing.T) {
	r.command(t, "/ip dns set servers=\"\"")
	const reason = "address of nowhere.test: no name server is set"
	assert.Contains(t, r.command(t, "/ping nowhere.test count=1"), reason)
	out, err := r.n[client].Command("dig", "@"+lanAddress, "+tries=5", "+timeout=10", "nowhere.test").CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "status: SERVFAIL")
	assert.Contains(t, string(out), "flags: qr rd;", "and there is nobody whom it could ask")
	conn, err := r.n.dial(client, socksAddress, patience)
	require.NoError(t, err)
	defer conn.Close()
	reply, err := requestNameSOCKS(conn, "nowhere.test", 21)
	require.NoError(t, err)
	assert.EqualValues(t, rejected, reply.code)
	r.awaitLog(t, `connection \d+ refused: .* reason="`+regexp.QuoteMeta(reason)+`"`)
}
