package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/e2e"
)

// What the clients send and receive: odd sizes, larger than every buffer on the way.
const (
	uploadSize   = 300_007
	downloadSize = 400_009
)

func randomBytes(size int, seed byte) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// exchange is the server's side of a client's test: it takes one connection
// after the other, reads the upload until its end, which is the client's
// half-close, and only then sends the download.
type exchange struct {
	*net.TCPListener
	upload   []byte
	download []byte
	results  chan error
}

func (l *lab) exchange(t *testing.T, upload, download []byte) *exchange {
	t.Helper()
	e := &exchange{
		TCPListener: l.listen(t, serverHost, serverAddress+":0"),
		upload:      upload, download: download, results: make(chan error, 1),
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := e.AcceptTCP()
			if err != nil {
				return
			}
			e.results <- e.serve(c)
		}
	})
	t.Cleanup(func() { e.Close(); serving.Wait() })
	return e
}

func (e *exchange) serve(c *net.TCPConn) error {
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	got, err := io.ReadAll(c)
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	if !bytes.Equal(got, e.upload) {
		return fmt.Errorf("upload: %d bytes that are not the %d that were sent", len(got), len(e.upload))
	}
	if _, err := c.Write(e.download); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	return nil
}

// configuration returns a file with that text.
func configuration(t *testing.T, format string, args ...any) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "configuration")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o644))
	return path
}

// proxychains is a configuration of proxychains4 for a proxy: its type, address, port, user and
// password.
func proxychains(t *testing.T, dns, proxy string) string {
	t.Helper()
	return configuration(t, "strict_chain\nquiet_mode\n%s\n[ProxyList]\n%s\n", dns, proxy)
}

// socks4 is the proxy for proxychains.
const socks4 = "socks4 " + proxyAddress + " " + socksdPort + " fred"

// danteClient is a configuration of socksify, for socks_v4 or socks_v5. Dante's client has no
// 4a: names are resolved on its side.
func danteClient(t *testing.T, version, port, more string) string {
	t.Helper()
	return configuration(t, `route {
	from: 0.0.0.0/0 to: 0.0.0.0/0 via: %s port = %s
	proxyprotocol: %s
	%s
}
`, proxyAddress, port, version, more)
}

// danteTCP is the end of the configuration for TCP.
const danteTCP = "protocol: tcp\n\tcommand: connect bind"

// pySocks moves standard input and output through PySocks. Its arguments: the kind of proxy,
// proxy, its port, rdns, user, password, host, port.
const pySocks = `
import shutil, socket, socks, sys
kind, proxy, proxy_port, rdns, user, password, host, port = sys.argv[1:]
s = socks.socksocket()
s.settimeout(20)
s.set_proxy(getattr(socks, kind), proxy, int(proxy_port), rdns=rdns == "True", username=user or None, password=password or None)
s.connect((host, int(port)))
s.sendall(sys.stdin.buffer.read())
s.shutdown(socket.SHUT_WR)
shutil.copyfileobj(s.makefile("rb"), sys.stdout.buffer)
`

// streamClient is a client that connects standard input and output to a server, whose port is
// %P in the arguments.
type streamClient struct {
	name    string
	user    string // as the log shows it
	command string
	args    []string
	env     []string
}

// serves starts socksd for every few clients, since its log has 20 lines at once and each of them
// two, and has it serve them.
func (l *lab) serves(t *testing.T, addr string, args []string, clients []streamClient) {
	t.Helper()
	for few := range slices.Chunk(clients, 8) {
		t.Run("", func(t *testing.T) { l.socksdOn(t, self(t), addr, args...).serves(t, few) })
	}
}

// serves has each client move bytes in both directions, all of which must arrive, and whose exact
// number must be in the closing line.
func (s *socksd) serves(t *testing.T, clients []streamClient) {
	t.Helper()
	upload, download := randomBytes(uploadSize, 1), randomBytes(downloadSize, 2)
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			e := s.lab.exchange(t, upload, download)
			args := make([]string, len(c.args))
			for i, a := range c.args {
				args[i] = strings.ReplaceAll(a, "%P", ports(e))
			}
			cmd := s.lab.command(t, clientHost, c.command, args...)
			cmd.Env = append(os.Environ(), c.env...)
			got := run(t, cmd, upload)
			require.NoError(t, <-e.results)
			assert.True(t, bytes.Equal(got, download), "%d bytes that are not the %d that were sent", len(got), len(download))
			s.awaitLog(t, "closed: type=out", fmt.Sprintf("dst=%s rule=none user=%q", e.Addr(), c.user),
				fmt.Sprintf("tx=%d rx=%d", uploadSize, downloadSize), `reason="both sides ended"`)
		})
	}
	s.awaitQuiet(t)
}

func TestStreamClients(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	l := newLab(t, serverAddress)
	addr := net.JoinHostPort(proxyAddress, socksdPort)
	dns, noDNS, dante := proxychains(t, "proxy_dns", socks4), proxychains(t, "", socks4), danteClient(t, "socks_v4", socksdPort, danteTCP)
	l.serves(t, addr, nil, []streamClient{
		{name: "ncat", command: "ncat",
			args: []string{"--proxy-type", "socks4", "--proxy", addr, serverAddress, "%P"}},
		{name: "ncat with a user", user: "fred", command: "ncat",
			args: []string{"--proxy-type", "socks4", "--proxy-auth", "fred", "--proxy", addr, serverAddress, "%P"}},
		{name: "ncat resolves", command: "ncat",
			args: []string{"--proxy-type", "socks4", "--proxy-dns", "local", "--proxy", addr, clientOnlyName, "%P"}},
		{name: "ncat 4a", command: "ncat",
			args: []string{"--proxy-type", "socks4", "--proxy-dns", "remote", "--proxy", addr, serverName, "%P"}},
		{name: "nc", command: "nc.openbsd",
			args: []string{"-N", "-X", "4", "-x", addr, serverAddress, "%P"}},
		{name: "nc resolves", command: "nc.openbsd",
			args: []string{"-N", "-X", "4", "-x", addr, clientOnlyName, "%P"}},
		{name: "connect-proxy", user: "fred", command: "connect-proxy",
			args: []string{"-4", "-S", "fred@" + addr, serverAddress, "%P"}},
		{name: "connect-proxy 4a", user: "fred", command: "connect-proxy",
			args: []string{"-4", "-R", "remote", "-S", "fred@" + addr, serverName, "%P"}},
		{name: "socat SOCKS4", user: "fred", command: "socat",
			args: []string{"-t30", "-", "SOCKS4:" + proxyAddress + ":" + serverAddress + ":%P,socksport=" + socksdPort + ",socksuser=fred"}},
		{name: "socat SOCKS4A", user: "fred", command: "socat",
			args: []string{"-t30", "-", "SOCKS4A:" + proxyAddress + ":" + serverName + ":%P,socksport=" + socksdPort + ",socksuser=fred"}},
		{name: "proxychains4 nc", user: "fred", command: "proxychains4",
			args: []string{"-f", noDNS, "nc.openbsd", "-N", serverAddress, "%P"}},
		{name: "proxychains4 nc 4a", user: "fred", command: "proxychains4",
			args: []string{"-f", dns, "nc.openbsd", "-N", serverName, "%P"}},
		{name: "PySocks rdns=False", user: "fred", command: "/usr/bin/python3",
			args: []string{"-c", pySocks, "SOCKS4", proxyAddress, socksdPort, "False", "fred", "", clientOnlyName, "%P"}},
		{name: "PySocks rdns=True", user: "fred", command: "/usr/bin/python3",
			args: []string{"-c", pySocks, "SOCKS4", proxyAddress, socksdPort, "True", "fred", "", serverName, "%P"}},
		{name: "dante-client nc", command: "socksify", env: []string{"SOCKS_CONF=" + dante},
			args: []string{"nc.openbsd", "-N", serverAddress, "%P"}},
	})
}

// countingListener counts the bytes of its connections, to compare them with the log.
type countingListener struct {
	net.Listener
	read, written atomic.Int64
}

type countingConn struct {
	net.Conn
	l *countingListener
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countingConn{c, l}, err
}

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.l.read.Add(int64(n))
	return n, err
}

func (c countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.l.written.Add(int64(n))
	return n, err
}

// webClient is curl, by itself or through another.
type webClient struct {
	name    string
	command string
	args    []string
	user    string // as the log shows it
	host    string
}

// TestCurl uploads and downloads by HTTP.
func TestCurl(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	l := newLab(t, serverAddress)
	s := l.socksd(t, self(t))
	s.servesWeb(t, []webClient{
		{"--socks4", "curl", []string{"--socks4", s.addr}, "", serverAddress},
		{"--socks4 resolves", "curl", []string{"--socks4", s.addr}, "", clientOnlyName},
		{"--socks4 with a user", "curl", []string{"--socks4", "fred@" + s.addr}, "fred", serverAddress},
		{"--socks4a", "curl", []string{"--socks4a", s.addr}, "", serverName},
		{"proxychains4", "proxychains4", []string{"-f", proxychains(t, "", socks4), "curl"}, "fred", serverAddress},
		{"proxychains4 4a", "proxychains4", []string{"-f", proxychains(t, "proxy_dns", socks4), "curl"}, "fred", serverName},
	})
	t.Run("refused", func(t *testing.T) {
		closed := l.listen(t, serverHost, serverAddress+":0")
		closed.Close()
		out, err := l.command(t, clientHost, "curl", "-q", "-sS", "--noproxy", "", "--max-time", "25", "--socks4", s.addr,
			"http://"+closed.Addr().String()+"/").CombinedOutput()
		require.Error(t, err)
		assert.Contains(t, string(out), "91", "curl says which reply it was given")
	})
	s.awaitQuiet(t)
}

// servesWeb has each client upload and download by HTTP.
func (s *socksd) servesWeb(t *testing.T, clients []webClient) {
	t.Helper()
	l := s.lab
	upload, download := randomBytes(uploadSize, 3), randomBytes(downloadSize, 4)
	uploadFile := filepath.Join(l.dir, "upload")
	require.NoError(t, os.WriteFile(uploadFile, upload, 0o644))
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			listener := &countingListener{Listener: l.listen(t, serverHost, serverAddress+":0")}
			uploaded := make(chan []byte, 1)
			web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				assert.NoError(t, err)
				uploaded <- body
				w.Write(download)
			})}
			var serving sync.WaitGroup
			serving.Go(func() { web.Serve(listener) })
			t.Cleanup(func() { web.Shutdown(context.Background()); serving.Wait() })

			args := append(c.args, "-q", "-sS", "--noproxy", "", "--max-time", "25", "-T", uploadFile,
				"http://"+net.JoinHostPort(c.host, ports(listener.Listener))+"/")
			got := run(t, l.command(t, clientHost, c.command, args...), nil)
			assert.True(t, bytes.Equal(<-uploaded, upload), "the upload differs")
			assert.True(t, bytes.Equal(got, download), "the download differs")
			line := s.awaitLog(t, "closed: type=out", fmt.Sprintf("dst=%s rule=none user=%q", listener.Addr(), c.user))
			assert.Contains(t, line, fmt.Sprintf("tx=%d rx=%d", listener.read.Load(), listener.written.Load()))
		})
	}
}

// vsftpd serves a file and takes uploads, in active mode only: the server makes the data
// connection, from port 20.
func (l *lab) vsftpd(t *testing.T, file []byte) (incoming string) {
	t.Helper()
	dir := t.TempDir()
	root, empty := filepath.Join(dir, "ftp"), filepath.Join(dir, "empty")
	incoming = filepath.Join(root, "incoming")
	for _, d := range []string{root, empty, incoming} {
		require.NoError(t, os.Mkdir(d, 0o755))
	}
	require.NoError(t, os.Chmod(incoming, 0o777))
	// It runs as the user ftp of its package, who must be able to enter the folder.
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		require.NoError(t, os.Chmod(d, 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "file"), file, 0o644))
	config := filepath.Join(dir, "vsftpd.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `listen=YES
background=NO
anonymous_enable=YES
anon_root=%s
no_anon_password=YES
write_enable=YES
anon_upload_enable=YES
anon_umask=022
pasv_enable=NO
connect_from_port_20=YES
nopriv_user=nobody
secure_chroot_dir=%s
seccomp_sandbox=NO
`, root, empty), 0o644))
	cmd := l.command(t, serverHost, "vsftpd", config)
	start(t, cmd)
	require.Eventually(t, func() bool {
		c, err := l.dial(proxyHost, "", serverAddress+":21")
		if err == nil {
			c.Close()
		}
		return err == nil
	}, patience, 20*time.Millisecond, "vsftpd does not listen")
	return incoming
}

// TestActiveFTP has tnftp fetch and store a file by active FTP: dante-client
// turns its listening socket into a BIND for anyone (DSTIP 0.0.0.0).
func TestActiveFTP(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	for _, c := range []struct{ name, version, arg string }{
		{"version 4", "socks_v4", "--socks-version=4"},
		{"version 5", "socks_v5", "--socks-version=5"},
	} {
		t.Run(c.name, func(t *testing.T) { activeFTP(t, c.version, c.arg) })
	}
}

func activeFTP(t *testing.T, version, arg string) {
	l := newLab(t, serverAddress)
	s := l.socksd(t, self(t), arg,
		"--access=src-address="+clientAddress+" dst-port=21 action=allow", // the manual's example
		"--access=dst-port=1024-65535 action=allow",
		"--access=action=deny")
	file := randomBytes(1_234_567, 5)
	incoming := l.vsftpd(t, file)
	config := danteClient(t, version, socksdPort, danteTCP)
	tnftp := func(args ...string) *exec.Cmd {
		cmd := l.command(t, clientHost, "socksify", append([]string{"tnftp", "-A", "-V"}, args...)...)
		cmd.Env = append(os.Environ(), "SOCKS_CONF="+config, "HOME="+l.dir)
		return cmd
	}

	t.Run("download", func(t *testing.T) {
		to := filepath.Join(l.dir, "download")
		run(t, tnftp("-o", to, "ftp://"+serverAddress+"/file"), nil)
		got, err := os.ReadFile(to)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(got, file), "%d bytes that are not the %d of the file", len(got), len(file))
		s.awaitLog(t, "closed: type=in", "dst="+serverAddress+":20 rule=1", fmt.Sprintf("tx=0 rx=%d", len(file)))
	})
	t.Run("upload", func(t *testing.T) {
		from := filepath.Join(l.dir, "upload")
		require.NoError(t, os.WriteFile(from, file, 0o644))
		run(t, tnftp("-u", "ftp://"+serverAddress+"/incoming/upload", from), nil)
		got, err := os.ReadFile(filepath.Join(incoming, "upload"))
		require.NoError(t, err)
		assert.True(t, bytes.Equal(got, file), "%d bytes that are not the %d of the file", len(got), len(file))
		s.awaitLog(t, "closed: type=in", "dst="+serverAddress+":20 rule=1", fmt.Sprintf("tx=%d rx=0", len(file)))
	})
	s.awaitLog(t, "closed: type=out", "dst="+serverAddress+":21 rule=0")
	s.awaitQuiet(t)
}
