package main

import (
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

	r.command(t, "/ip dns static remove [find]")
	r.command(t, "/ip dns set servers=\"\" allow-remote-requests=no")
}
