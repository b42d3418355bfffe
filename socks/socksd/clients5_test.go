package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/proxy"

	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/password"
)

// Clients of version 5. Where there is a password, alice has it.
const (
	alice       = "alice"
	alicesOwn   = "s3 cret:/@é"
	simpleUser  = "bob" // for clients whose password cannot have all of these letters
	bobsOwn     = "s3cret"
	openPort    = "1081" // of a socksd that asks for no password
	openAddress = proxyAddress + ":" + openPort
)

// usersFile returns a file of users: alice, bob, and carol, who is disabled.
func usersFile(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	for _, u := range []struct{ name, password, options string }{
		{alice, alicesOwn, ""}, {simpleUser, bobsOwn, ":rate-limit=10G"}, {"carol", "secret", ":disabled"},
	} {
		hash, err := password.New(u.password)
		require.NoError(t, err)
		fmt.Fprintf(&text, "%s:%s%s\n", u.name, hash, u.options)
	}
	path := filepath.Join(t.TempDir(), "users")
	// Nobody but root can read it, and socksd is not root any more when it serves.
	require.NoError(t, os.WriteFile(path, []byte(text.String()), 0o600))
	return path
}

// socksd5 starts two programs that speak version 5: one that asks for a password, and one that
// does not.
func (l *lab) socksd5(t *testing.T, args ...string) (withPassword, open *socksd) {
	t.Helper()
	args = append(args, "--socks-version=5")
	open = l.socksdOn(t, self(t), openAddress, args...)
	return l.socksd(t, self(t), append(args, "--auth-method=password", "--users="+usersFile(t))...), open
}

func TestStreamClients5(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	l := newLab(t, serverAddress)
	addr, open := net.JoinHostPort(proxyAddress, socksdPort), []string{"--socks-version=5"}
	withPassword := append(slices.Clone(open), "--auth-method=password", "--users="+usersFile(t))
	openChain, chain := "socks5 "+proxyAddress+" "+openPort, "socks5 "+proxyAddress+" "+socksdPort+" "+simpleUser+" "+bobsOwn
	dante := []string{"SOCKS_CONF=" + danteClient(t, "socks_v5", openPort, danteTCP)}
	danteUser := []string{"SOCKS_CONF=" + danteClient(t, "socks_v5", socksdPort, danteTCP+"\n\tmethod: username"),
		"SOCKS_USERNAME=" + alice, "SOCKS_PASSWORD=" + alicesOwn}
	tsocks := "TSOCKS_CONF_FILE=" + configuration(t, "server = %s\nserver_port = %s\nserver_type = 5\nlocal = 192.0.2.0/255.255.255.0\n", proxyAddress, openPort)
	tsocksUser := "TSOCKS_CONF_FILE=" + configuration(t, "server = %s\nserver_port = %s\nserver_type = 5\nlocal = 192.0.2.0/255.255.255.0\ndefault_user = %s\ndefault_pass = %s\n",
		proxyAddress, socksdPort, simpleUser, bobsOwn)

	t.Run("open", func(t *testing.T) {
		l.serves(t, openAddress, open, []streamClient{
			{name: "ncat", command: "ncat", args: []string{"--proxy-type", "socks5", "--proxy", openAddress, serverAddress, "%P"}},
			{name: "ncat resolves", command: "ncat",
				args: []string{"--proxy-type", "socks5", "--proxy-dns", "local", "--proxy", openAddress, clientOnlyName, "%P"}},
			{name: "ncat and a name", command: "ncat",
				args: []string{"--proxy-type", "socks5", "--proxy-dns", "remote", "--proxy", openAddress, serverName, "%P"}},
			{name: "nc", command: "nc.openbsd", args: []string{"-N", "-X", "5", "-x", openAddress, serverAddress, "%P"}},
			{name: "nc and a name", command: "nc.openbsd", args: []string{"-N", "-X", "5", "-x", openAddress, serverName, "%P"}},
			{name: "connect-proxy", command: "connect-proxy", args: []string{"-5", "-S", openAddress, serverAddress, "%P"}},
			{name: "proxychains4 nc", command: "proxychains4", args: []string{"-f", proxychains(t, "", openChain), "nc.openbsd", "-N", serverAddress, "%P"}},
			{name: "proxychains4 nc and a name", command: "proxychains4",
				args: []string{"-f", proxychains(t, "proxy_dns", openChain), "nc.openbsd", "-N", serverName, "%P"}},
			{name: "PySocks rdns=False", command: "/usr/bin/python3",
				args: []string{"-c", pySocks, "SOCKS5", proxyAddress, openPort, "False", "", "", clientOnlyName, "%P"}},
			{name: "PySocks rdns=True", command: "/usr/bin/python3",
				args: []string{"-c", pySocks, "SOCKS5", proxyAddress, openPort, "True", "", "", serverName, "%P"}},
			{name: "tsocks nc", command: "tsocks", env: []string{tsocks}, args: []string{"nc.openbsd", "-N", serverAddress, "%P"}},
			{name: "dante-client nc", command: "socksify", env: dante, args: []string{"nc.openbsd", "-N", serverAddress, "%P"}},
		})
	})
	t.Run("password", func(t *testing.T) {
		l.serves(t, addr, withPassword, []streamClient{
			{name: "ncat", user: simpleUser, command: "ncat",
				args: []string{"--proxy-type", "socks5", "--proxy-auth", simpleUser + ":" + bobsOwn, "--proxy", addr, serverAddress, "%P"}},
			{name: "connect-proxy", user: alice, command: "connect-proxy", env: []string{"SOCKS5_PASSWORD=" + alicesOwn},
				args: []string{"-5", "-R", "remote", "-S", alice + "@" + addr, serverName, "%P"}},
			{name: "proxychains4 nc", user: simpleUser, command: "proxychains4",
				args: []string{"-f", proxychains(t, "proxy_dns", chain), "nc.openbsd", "-N", serverName, "%P"}},
			{name: "PySocks", user: alice, command: "/usr/bin/python3",
				args: []string{"-c", pySocks, "SOCKS5", proxyAddress, socksdPort, "True", alice, alicesOwn, serverName, "%P"}},
			{name: "tsocks nc", user: simpleUser, command: "tsocks", env: []string{tsocksUser}, args: []string{"nc.openbsd", "-N", serverAddress, "%P"}},
			{name: "dante-client nc", user: alice, command: "socksify", env: danteUser, args: []string{"nc.openbsd", "-N", serverAddress, "%P"}},
		})
	})
}

func TestCurl5(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	l := newLab(t, serverAddress)
	s, open := l.socksd5(t)
	user := []string{"--proxy-user", alice + ":" + alicesOwn, "--proxy"}
	t.Run("open", func(t *testing.T) {
		open.servesWeb(t, []webClient{
			{"--socks5", "curl", []string{"--socks5", open.addr}, "", serverAddress},
			{"--socks5 resolves", "curl", []string{"--socks5", open.addr}, "", clientOnlyName},
			{"--socks5-hostname", "curl", []string{"--socks5-hostname", open.addr}, "", serverName},
			{"a user that nobody asks for", "curl", append(user, "socks5h://"+open.addr), "", serverName},
			{"--socks4a of a server without passwords", "curl", []string{"--socks4a", open.addr}, "", serverName},
		})
	})
	t.Run("password", func(t *testing.T) {
		s.servesWeb(t, []webClient{
			{"socks5", "curl", append(user, "socks5://"+s.addr), alice, serverAddress},
			{"socks5h", "curl", append(user, "socks5h://"+s.addr), alice, serverName},
		})
	})
	// curl tells 97 for what the proxy refuses.
	listener := l.echo(t, serverAddress+":0")
	for _, c := range []struct {
		name string
		args []string
		says string
	}{
		{"no password", []string{"--socks5", s.addr}, "No authentication method was acceptable"},
		{"a wrong one", []string{"--proxy-user", alice + ":secret", "--proxy", "socks5://" + s.addr}, "User was rejected by the SOCKS5 server"},
		{"of nobody", []string{"--proxy-user", "mallory:secret", "--proxy", "socks5://" + s.addr}, "User was rejected by the SOCKS5 server"},
		{"of who is disabled", []string{"--proxy-user", "carol:secret", "--proxy", "socks5://" + s.addr}, "User was rejected by the SOCKS5 server"},
		{"version 4", []string{"--socks4", s.addr}, "91"},
		{"no such name", []string{"--proxy", "socks5h://" + open.addr, "--connect-to", "::nobody.lab:"}, "Can't complete SOCKS5 connection to nobody.lab. (4)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := l.command(t, clientHost, "curl", append(c.args, "-q", "-sS", "--noproxy", "", "--max-time", "25",
				"http://"+listener.Addr().String()+"/")...).CombinedOutput()
			require.Error(t, err)
			assert.Contains(t, string(out), c.says)
		})
	}
	closed := l.listen(t, serverHost, serverAddress+":0")
	closed.Close()
	out, err := l.command(t, clientHost, "curl", "-q", "-sS", "--noproxy", "", "--max-time", "25", "--socks5", open.addr,
		"http://"+closed.Addr().String()+"/").CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "(5)", "connection refused")
	s.awaitQuiet(t)
	open.awaitQuiet(t)
}

// TestGo: golang.org/x/net/proxy.
func TestGo(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	l := newLab(t, serverAddress)
	s, open := l.socksd5(t)
	echo := l.echo(t, serverAddress+":0")
	for _, c := range []struct {
		name string
		s    *socksd
		auth *proxy.Auth
		err  string
	}{
		{"open", open, nil, ""},
		{"password", s, &proxy.Auth{User: alice, Password: alicesOwn}, ""},
		{"the wrong password", s, &proxy.Auth{User: alice, Password: bobsOwn}, "username/password authentication failed"},
		{"no password", s, nil, "no acceptable authentication methods"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := proxy.SOCKS5("tcp", c.s.addr, c.auth, clientDialer{l})
			require.NoError(t, err)
			conn, err := d.Dial("tcp", net.JoinHostPort(serverName, ports(echo)))
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
			_, err = io.WriteString(conn, "hello")
			require.NoError(t, err)
			b := make([]byte, 5)
			_, err = io.ReadFull(conn, b)
			require.NoError(t, err)
			assert.Equal(t, "hello", string(b))
		})
	}
}

// clientDialer connects from the client of a lab.
type clientDialer struct{ *lab }

func (d clientDialer) Dial(_, address string) (net.Conn, error) {
	return d.dial(clientHost, "", address)
}

func (d clientDialer) DialContext(_ context.Context, network, address string) (net.Conn, error) {
	return d.Dial(network, address)
}

// TestSSH: OpenSSH through nc.
func TestSSH(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	l := newLab(t, serverAddress)
	_, open := l.socksd5(t)
	hostKey, userKey := filepath.Join(l.dir, "host_key"), filepath.Join(l.dir, "user_key")
	for _, key := range []string{hostKey, userKey} {
		run(t, l.command(t, clientHost, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key), nil)
	}
	config := configuration(t, "ListenAddress %s\nHostKey %s\nAuthorizedKeysFile %s.pub\nPidFile none\nStrictModes no\n"+
		"AuthenticationMethods publickey\nPermitRootLogin prohibit-password\nUsePAM no\nUseDNS no\n", serverAddress, hostKey, userKey)
	require.NoError(t, os.MkdirAll("/run/sshd", 0o755)) // which sshd needs
	start(t, l.command(t, serverHost, "/usr/sbin/sshd", "-D", "-e", "-f", config))
	require.Eventually(t, func() bool {
		c, err := l.dial(proxyHost, "", serverAddress+":22")
		if err == nil {
			c.Close()
		}
		return err == nil
	}, patience, 20*time.Millisecond, "sshd does not listen")
	file := randomBytes(uploadSize, 6)
	got := run(t, l.command(t, clientHost, "ssh", "-F", "none", "-i", userKey, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ProxyCommand="+need(t, "nc.openbsd")+" -X 5 -x "+open.addr+" %h %p",
		"root@"+serverName, "cat"), file)
	assert.True(t, bytes.Equal(got, file), "%d bytes that are not the %d that were sent", len(got), len(file))
	open.awaitLog(t, "closed: type=out", "dst="+serverAddress+":22")
}

// TestForms: the greetings and requests of clients that are too large to be run here, as they send
// them.
func TestForms(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	l := newLab(t, serverAddress)
	s, open := l.socksd5(t)
	echo := l.echo(t, serverAddress+":0")
	at := netip.MustParseAddrPort(echo.Addr().String())
	port := string([]byte{byte(at.Port() >> 8), byte(at.Port())})
	name := "\x05\x01\x00\x03" + string(byte(len(serverName))) + serverName + port
	address := "\x05\x01\x00\x01" + string(at.Addr().AsSlice()) + port
	login := "\x01" + string(byte(len(alice))) + alice + string(byte(len(alicesOwn))) + alicesOwn
	const granted = "\x05\x00\x00\x01"

	t.Run("Chromium has no passwords", func(t *testing.T) {
		near := l.peer(t, clientHost, "", open.addr)
		near.send("\x05\x01\x00")
		assert.Equal(t, "\x05\x00", near.receive(2))
		near.send(name)
		assert.Equal(t, granted, near.receive(10)[:4])
		near.send("GET / HTTP/1.1\r\n")
		assert.Equal(t, "GET / HTTP/1.1\r\n", near.receive(16))

		near = l.peer(t, clientHost, "", s.addr)
		near.send("\x05\x01\x00")
		end, err := io.ReadAll(near)
		require.NoError(t, err)
		assert.Equal(t, "\x05\xff", string(end))
	})
	t.Run("Firefox offers both methods", func(t *testing.T) {
		near := l.peer(t, clientHost, "", open.addr)
		near.send("\x05\x02\x00\x02")
		assert.Equal(t, "\x05\x00", near.receive(2))
		near.send(name)
		assert.Equal(t, granted, near.receive(10)[:4])

		near = l.peer(t, clientHost, "", s.addr)
		near.send("\x05\x02\x00\x02")
		assert.Equal(t, "\x05\x02", near.receive(2))
		near.send(login)
		assert.Equal(t, "\x01\x00", near.receive(2))
		near.send(name)
		assert.Equal(t, granted, near.receive(10)[:4])
		near.send("GET / HTTP/1.1\r\n")
		assert.Equal(t, "GET / HTTP/1.1\r\n", near.receive(16))
	})
	t.Run("Java connects", func(t *testing.T) {
		near := l.peer(t, clientHost, "", s.addr)
		near.send("\x05\x02\x00\x02")
		assert.Equal(t, "\x05\x02", near.receive(2))
		near.send(login)
		assert.Equal(t, "\x01\x00", near.receive(2))
		near.send(address)
		assert.Equal(t, granted, near.receive(10)[:4])
		near.send("hello")
		assert.Equal(t, "hello", near.receive(5))
	})
	t.Run("Java binds", func(t *testing.T) {
		near := l.peer(t, clientHost, "", s.addr)
		near.send("\x05\x02\x00\x02")
		assert.Equal(t, "\x05\x02", near.receive(2))
		near.send(login)
		assert.Equal(t, "\x01\x00", near.receive(2))
		near.send("\x05\x02\x00\x01" + string(at.Addr().AsSlice()) + port)
		reply := []byte(near.receive(10))
		require.Equal(t, granted, string(reply[:4]))
		waits := netip.AddrPortFrom(netip.AddrFrom4([4]byte(reply[4:])), uint16(reply[8])<<8|uint16(reply[9]))
		far := l.peer(t, serverHost, serverAddress, waits.String())
		from := netip.MustParseAddrPort(far.LocalAddr().String())
		assert.Equal(t, granted+string(from.Addr().AsSlice())+string([]byte{byte(from.Port() >> 8), byte(from.Port())}), near.receive(10))
		far.send("file")
		assert.Equal(t, "file", near.receive(4))
	})
	// Whoever knows a server without passwords need not wait for its answers.
	t.Run("all at once", func(t *testing.T) {
		near := l.peer(t, clientHost, "", open.addr)
		near.send("\x05\x01\x00" + name + "early")
		assert.Equal(t, "\x05\x00"+granted, near.receive(12)[:6])
		assert.Equal(t, "early", near.receive(5))
		near = l.peer(t, clientHost, "", s.addr)
		near.send("\x05\x01\x02" + login + name + "early")
		assert.Equal(t, "\x05\x02\x01\x00"+granted, near.receive(14)[:8])
		assert.Equal(t, "early", near.receive(5))
	})
}

// TestDatagramsOfAUser: UDP ASSOCIATE behind a password.
func TestDatagramsOfAUser(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	l := newLab(t, serverAddress)
	s, _ := l.socksd5(t, "--udp")
	question := "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06nobody\x03lab\x00\x00\x01\x00\x01"
	got := run(t, l.command(t, clientHost, "/usr/bin/python3", "-c", pySocksUDP, proxyAddress, socksdPort, serverName, "53", alice, alicesOwn), []byte(question))
	assert.Equal(t, strings.Replace(question, "\x01\x00", "\x81\x83", 1), string(got), "as serveNames says it")
	s.awaitLog(t, "closed: type=out", `user="alice"`, "udp=")
}
