package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/testnet"
)

// host is a namespace of the lab.
type host string

const (
	clientHost host = "client"
	proxyHost  host = "proxy"
	serverHost host = "server"
)

// Addresses of the lab. strangerAddress is the server's second one: the same
// host can be the peer that a BIND waits for, and another one. Nothing answers what is sent
// to blackHole.
const (
	clientAddress   = "192.0.2.2"
	proxyAddress    = "192.0.2.1"
	outerAddress    = "198.51.100.1"
	serverAddress   = "198.51.100.2"
	strangerAddress = "198.51.100.3"
	blackHole       = "198.51.100.9"
	silentServer    = "198.51.100.10" // the same, as a name server
)

// serverName is a name of serverAddress that only the proxy knows, and clientOnlyName one
// that only the client knows. They show which of the two resolves names.
const (
	serverName     = "server.lab"
	clientOnlyName = "known-to-the-client.lab"
)

// lab is a network of namespaces for one test:
//
//	client 192.0.2.2 --- 192.0.2.1 proxy 198.51.100.1 --- server 198.51.100.2, .3
//
// The client can only reach the server through SOCKS. The proxy has a default route to the
// server, as a router has one.
type lab struct {
	hosts map[host]*testnet.Host
	dir   string
}

// newLab builds a network, which is removed at the end of the test. nameServer is the server
// that its hosts ask: serverAddress, which knows no names, or silentServer.
func newLab(t *testing.T, nameServer string) *lab {
	t.Helper()
	l := &lab{hosts: map[host]*testnet.Host{}, dir: t.TempDir()}
	for h, hosts := range map[host]string{
		clientHost: serverAddress + " " + clientOnlyName,
		proxyHost:  serverAddress + " " + serverName,
		serverHost: "",
	} {
		l.hosts[h] = testnet.New(t, string(h))
		require.NoError(t, l.hosts[h].Overlay("/etc/hosts", "127.0.0.1 localhost\n"+hosts+"\n"))
		require.NoError(t, l.hosts[h].Overlay("/etc/resolv.conf", "nameserver "+nameServer+"\n"))
		require.NoError(t, l.hosts[h].Set("net.ipv4.ip_local_port_range", "2048 65535"))
	}
	require.NoError(t, testnet.Link(l.hosts[proxyHost], "inner", l.hosts[clientHost], "eth0"))
	require.NoError(t, testnet.Link(l.hosts[proxyHost], "outer", l.hosts[serverHost], "eth0"))
	for h, lines := range map[host][]string{
		proxyHost: {
			"addr add " + proxyAddress + "/24 dev inner",
			"addr add " + outerAddress + "/24 dev outer",
			"route add default via " + serverAddress,
			// No host has this Ethernet address: the frames arrive and are dropped.
			"neigh add " + blackHole + " lladdr 02:00:00:00:00:09 dev outer nud permanent",
			"neigh add " + silentServer + " lladdr 02:00:00:00:00:09 dev outer nud permanent",
		},
		clientHost: {"addr add " + clientAddress + "/24 dev eth0"},
		serverHost: {
			"addr add " + serverAddress + "/24 dev eth0",
			"addr add " + strangerAddress + "/24 dev eth0",
		},
	} {
		require.NoError(t, l.hosts[h].IP(lines...))
	}
	l.serveNames(t)
	return l
}

// serveNames makes the server answer all questions with "no such name". (If nothing listened
// on port 53, ICMP would say so, but only at a limited rate.)
func (l *lab) serveNames(t *testing.T) {
	t.Helper()
	var conn *net.UDPConn
	require.NoError(t, l.hosts[serverHost].Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(serverAddress), Port: 53})
		return err
	}))
	var serving sync.WaitGroup
	serving.Go(func() {
		b := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if n >= 12 {
				// The question is the answer too: QR, RD, RA, NXDOMAIN, and no records but
				// the question.
				b[2], b[3] = 0x81, 0x83
				clear(b[6:12])
				conn.WriteToUDPAddrPort(b[:n], from)
			}
		}
	})
	t.Cleanup(func() { conn.Close(); serving.Wait() })
}

// listen returns a listener on an address of a host, port 0 for a free one.
func (l *lab) listen(t *testing.T, h host, addr string) *net.TCPListener {
	t.Helper()
	listener, err := l.hosts[h].Listen(addr)
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	return listener
}

// dial connects a host to an address, from another of its own if from is not "".
func (l *lab) dial(h host, from, to string) (conn *net.TCPConn, err error) {
	d := net.Dialer{Timeout: patience}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	return l.hosts[h].Dial(&d, to)
}

// peer returns a connection of a host to an address, that ends with the test.
func (l *lab) peer(t *testing.T, h host, from, to string) peer {
	t.Helper()
	c, err := l.dial(h, from, to)
	require.NoError(t, err)
	return newPeer(t, c)
}

// listens reports whether a host listens at an address.
func (l *lab) listens(t *testing.T, h host, addr netip.AddrPort) bool {
	t.Helper()
	var table []byte
	require.NoError(t, l.hosts[h].Do(func() (err error) {
		table, err = os.ReadFile("/proc/thread-self/net/tcp")
		return err
	}))
	ip := addr.Addr().As4()
	const listening = "0A"
	want := fmt.Sprintf("%08X:%04X 00000000:0000 %s", binary.NativeEndian.Uint32(ip[:]), addr.Port(), listening)
	return bytes.Contains(table, []byte(want))
}

// command prepares a program to run on a host, in the folder of the lab.
func (l *lab) command(t *testing.T, h host, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := l.hosts[h].Command(need(t, program), args...)
	cmd.Dir = l.dir
	return cmd
}

// run runs a prepared program to its end, with that input, and returns what it
// wrote to standard output.
func run(t *testing.T, cmd *exec.Cmd, input []byte) []byte {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	// A child that keeps the pipes open must not delay the test for ever.
	cmd.WaitDelay = patience
	require.NoError(t, cmd.Start())
	kill := time.AfterFunc(patience, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer kill.Stop()
	err := cmd.Wait()
	require.NoError(t, err, "%s: %s", cmd, stderr.String())
	return stdout.Bytes()
}

// start starts a prepared program, and ends it at the end of the test.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		if cmd.ProcessState == nil { // otherwise another process may have the id by now
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			cmd.Wait()
		}
	})
}

// debianPackages are the packages of the programs.
var debianPackages = map[string]string{
	"/usr/sbin/sshd":   "openssh-server",
	"connect-proxy":    "connect-proxy",
	"curl":             "curl",
	"danted":           "dante-server",
	"dig":              "bind9-dnsutils",
	"ip":               "iproute2",
	"nc.openbsd":       "netcat-openbsd",
	"ncat":             "ncat",
	"proxychains4":     "proxychains4",
	"/usr/bin/python3": "python3-socks",
	"socat":            "socat",
	"socksify":         "dante-client",
	"ssh":              "openssh-client",
	"ssh-keygen":       "openssh-client",
	"strace":           "strace",
	"tnftp":            "tnftp",
	"tsocks":           "tsocks",
	"vsftpd":           "vsftpd",
}

// need returns the path of a program. The test fails if there is none.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	require.NoError(t, err, "%s is in Debian's package %s", program, debianPackages[program])
	return path
}

// peer is an end of a connection that a test has.
type peer struct {
	*net.TCPConn
	t *testing.T
}

func newPeer(t *testing.T, c *net.TCPConn) peer {
	t.Helper()
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return peer{c, t}
}

// accept returns the next connection that a listener takes.
func accept(t *testing.T, l *net.TCPListener) peer {
	t.Helper()
	require.NoError(t, l.SetDeadline(time.Now().Add(patience)))
	c, err := l.AcceptTCP()
	require.NoError(t, err)
	return newPeer(t, c)
}

func (p peer) send(s string) {
	p.t.Helper()
	_, err := io.WriteString(p, s)
	require.NoError(p.t, err)
}

func (p peer) receive(n int) string {
	p.t.Helper()
	b := make([]byte, n)
	_, err := io.ReadFull(p, b)
	require.NoError(p.t, err)
	return string(b)
}

// reset closes the connection by a reset.
func (p peer) reset() {
	p.t.Helper()
	require.NoError(p.t, p.SetLinger(0))
	require.NoError(p.t, p.Close())
}

// granted reads a reply, which must be "granted", and returns its address.
func (p peer) granted() netip.AddrPort {
	p.t.Helper()
	b := []byte(p.receive(8))
	require.Equal(p.t, []byte{0, 90}, b[:2], "reply %q", b)
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), uint16(b[2])<<8|uint16(b[3]))
}

// The commands of SOCKS4.
const (
	commandConnect = 1
	commandBind    = 2
)

// ask is a request of SOCKS4.
func ask(command byte, dst string, user string) string {
	a := netip.MustParseAddrPort(dst)
	ip := a.Addr().As4()
	return string([]byte{4, command, byte(a.Port() >> 8), byte(a.Port())}) + string(ip[:]) + user + "\x00"
}

// askName is a request of SOCKS4a.
func askName(command byte, name string, port uint16) string {
	return string([]byte{4, command, byte(port >> 8), byte(port), 0, 0, 0, 1}) + "\x00" + name + "\x00"
}

// logBuffer collects what a program writes while others read it.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
