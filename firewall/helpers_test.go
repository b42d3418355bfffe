package firewall

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/internal/testnet"
)

// The helper comes behind the rules of raw, and behind those that accept.
func TestHelperRules(t *testing.T) {
	withEach(t, func(t *testing.T, program string, _ *testnet.Host) {
		f := newFirewall(t, program)
		rules := func() string {
			t.Helper()
			var rules strings.Builder
			for line := range strings.Lines(save(t, program, "-t", "raw")) {
				if strings.HasPrefix(line, "-A ") {
					rules.WriteString(line)
				}
			}
			return rules.String()
		}
		c := Config{FTP: Helper{Ports: []uint16{21}}}
		undone := Config{FTP: Helper{Ports: []uint16{21}, Disabled: true}}
		require.NoError(t, f.Apply(undone))
		assert.Empty(t, rules())
		require.NoError(t, f.Apply(c))
		assert.NotEmpty(t, rules())
		require.NoError(t, f.Apply(undone))
		assert.Empty(t, rules(), "nothing of it is left")
		require.NoError(t, f.Apply(c))
		alone := "-A PREROUTING -j postern-helpers\n-A postern-helpers -p tcp -m tcp --dport 21 -m addrtype ! --src-type LOCAL -j CT --helper ftp\n" +
			"-A postern-helpers-end -j postern-helpers\n-A postern-helpers-end -j ACCEPT\n"
		assert.Equal(t, alone, rules())

		c.FTP.Ports = []uint16{21, 2121}
		c.Raw = []Rule{
			{Chain: "prerouting", Action: "accept", SrcAddress: addresses("192.168.0.2")},
			{Chain: "prerouting", Action: "jump", JumpTarget: "own"},
			{Chain: "own", Action: "accept", SrcAddress: addresses("192.168.0.3")},
			{Chain: "prerouting", Action: "notrack", SrcAddress: addresses("192.168.0.4")},
			{Chain: "output", Action: "accept"},
		}
		require.NoError(t, f.Apply(c))
		for _, want := range []string{
			"-A PREROUTING -s 192.168.0.2/32 -j postern-helpers-end\n", "-s 192.168.0.3/32 -j postern-helpers-end\n", "-A OUTPUT -j ACCEPT\n",
			"-A PREROUTING -s 192.168.0.4/32 -j CT --notrack\n-A PREROUTING -j postern-helpers\n",
			"-A postern-helpers -p tcp -m multiport --dports 21,2121 -m addrtype ! --src-type LOCAL -j CT --helper ftp\n",
		} {
			assert.Contains(t, rules(), want)
		}

		c.FTP.Disabled = true
		require.NoError(t, f.Apply(c))
		assert.NotContains(t, rules(), "postern-helpers")
		assert.Contains(t, rules(), "-A PREROUTING -s 192.168.0.2/32 -j ACCEPT\n")
	})
}

func TestHelperPorts(t *testing.T) {
	var nine []uint16
	for i := range MaxHelperPorts + 1 {
		nine = append(nine, uint16(i+1))
	}
	for _, c := range []struct {
		name   string
		helper Helper
		want   string
	}{
		{"the usual one", Helper{Ports: []uint16{FTPPort}}, ""},
		{"as many as can be", Helper{Ports: nine[1:]}, ""},
		{"too many", Helper{Ports: nine}, "helper: expected at most 8 ports, got 9"},
		{"none", Helper{}, ""},
		{"port 0", Helper{Ports: []uint16{0}}, "helper: ports=0: expected ports of 1..65535, each once"},
		{"one twice", Helper{Ports: []uint16{21, 22, 21}}, "helper: ports=21: expected ports of 1..65535, each once"},
		{"bad ones while it is disabled", Helper{Ports: []uint16{0}, Disabled: true}, "helper: ports=0: expected ports of 1..65535, each once"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Config{FTP: c.helper}.Validate()
			if c.want == "" {
				assert.NoError(t, err)
				return
			}
			assert.ErrorContains(t, err, c.want)
		})
	}
}

// control is a connection that is like one of FTP to the helper.
type control struct {
	*site
	client, server net.Conn
	heard          map[net.Conn]*bufio.Reader
}

// control opens one to a port of the server. Something was said from both sides, as the helper looks behind a line's end.
func (s *site) control(port int) control {
	s.Helper()
	return s.controlFrom(s.client, port)
}

func (s *site) controlFrom(host *testnet.Host, port int) control {
	s.Helper()
	l, err := s.server.Listen(fmt.Sprintf("%s:%d", serverIP, port))
	require.NoError(s, err)
	defer l.Close()
	c := control{site: s, heard: map[net.Conn]*bufio.Reader{}}
	c.client, err = host.Dial(&net.Dialer{}, l.Addr().String())
	require.NoError(s, err)
	c.server, err = l.Accept()
	require.NoError(s, err)
	for _, conn := range []net.Conn{c.client, c.server} {
		s.Cleanup(func() { conn.Close() })
		require.NoError(s, conn.SetDeadline(time.Now().Add(time.Minute)))
		c.heard[conn] = bufio.NewReader(conn)
	}
	c.say(c.server, "220 ready")
	c.say(c.client, "USER a")
	return c
}

// say sends a line, and returns what comes out at the other end.
func (c control) say(from net.Conn, line string) string {
	c.Helper()
	_, err := io.WriteString(from, line+"\r\n")
	require.NoError(c, err)
	to := c.server
	if from == to {
		to = c.client
	}
	heard, err := c.heard[to].ReadString('\n')
	require.NoError(c, err)
	return strings.TrimSuffix(heard, "\r\n")
}

// numbers writes an address as PORT does.
func numbers(a netip.AddrPort) string {
	b := a.Addr().As4()
	return fmt.Sprintf("%d,%d,%d,%d,%d,%d", b[0], b[1], b[2], b[3], a.Port()>>8, a.Port()&255)
}

// announced is the address that a line has.
func announced(t *testing.T, line string) netip.AddrPort {
	t.Helper()
	var b [4]byte
	var high, low uint16
	_, err := fmt.Sscanf(strings.TrimPrefix(line, "PORT "), "%d,%d,%d,%d,%d,%d", &b[0], &b[1], &b[2], &b[3], &high, &low)
	require.NoError(t, err, line)
	return netip.AddrPortFrom(netip.AddrFrom4(b), high<<8|low)
}

// expected are the connections that the router's helpers expect, one in each line.
func (s *site) expected() (lines []string) {
	s.Helper()
	require.NoError(s, s.router.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/nf_conntrack_expect")
		lines = strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
		return err
	}))
	return lines
}

// A site with a firewall that lets in what is related to connections from within, and resets all else.
func newHelperSite(t *testing.T) (*site, Config) {
	t.Helper()
	s := newSite(t)
	require.NoError(t, s.client.IP("addr add 192.168.0.3/24 dev eth0"))
	require.NoError(t, s.server.IP("addr add 10.5.8.9/24 dev eth0"))
	reset := func(chain string) Rule {
		return Rule{Chain: chain, Action: "reject", Protocol: "tcp", RejectWith: "tcp-reset", InInterface: "ether1"}
	}
	return s, Config{
		Filter: []Rule{
			{Chain: "forward", Action: "accept", ConnectionState: "established,related"}, reset("forward"),
			{Chain: "input", Action: "accept", ConnectionState: "established,related"}, reset("input"),
		},
		NAT: masquerade,
		FTP: Helper{Ports: []uint16{FTPPort}},
	}
}

// called reports whether a connection from an address of the server's to an address gets to a listener.
func (s *site) called(l net.Listener, from string, to netip.AddrPort) bool {
	s.Helper()
	conn, err := s.server.Dial(&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}, to.String())
	if err != nil {
		return false
	}
	defer conn.Close()
	there, err := l.Accept()
	require.NoError(s, err)
	defer there.Close()
	return there.RemoteAddr().(*net.TCPAddr).IP.String() == from
}

// waiting is a listener at an address of the client's, for data.
func (s *site) waiting(address string) (net.Listener, netip.AddrPort) {
	s.Helper()
	l, err := s.client.Listen(address + ":0")
	require.NoError(s, err)
	s.Cleanup(func() { l.Close() })
	return l, netip.MustParseAddrPort(l.Addr().String())
}

// A client behind address translation can have the server connect to it, by what it says at the helper's ports alone, and nobody else.
func TestFTPHelper(t *testing.T) {
	s, c := newHelperSite(t)
	l, data := s.waiting(clientIP)
	port := "PORT " + numbers(data)
	with := func(change func(*Config)) {
		t.Helper()
		c := c
		change(&c)
		require.NoError(t, s.router.Do(func() error { return s.firewall.Apply(c) })) // a subtest has a thread of its own
	}
	// untouched reports that the router leaves a control connection to a port alone.
	untouched := func(at int) {
		t.Helper()
		control := s.control(at)
		assert.Equal(t, port, control.say(control.client, port))
		assert.Empty(t, s.expected())
		assert.False(t, s.called(l, serverIP, netip.AddrPortFrom(netip.MustParseAddr("10.5.8.1"), data.Port())))
	}
	helps := func(at int) {
		t.Helper()
		control := s.control(at)
		to := announced(t, control.say(control.client, port))
		assert.Equal(t, "10.5.8.1", to.Addr().String(), "the router's address, to which the client's was translated")
		assert.Len(t, s.expected(), 1)
		assert.False(t, s.called(l, "10.5.8.9", to), "another host")
		assert.False(t, s.called(l, serverIP, netip.AddrPortFrom(to.Addr(), to.Port()+1)), "another port")
		assert.True(t, s.called(l, serverIP, to))
		assert.Empty(t, s.expected(), "one connection for one line")
		assert.False(t, s.called(l, serverIP, to))
	}
	for _, test := range []struct {
		name         string
		change       func(*Config)
		help, others []int
	}{
		{"disabled", func(c *Config) { c.FTP.Disabled = true }, nil, []int{21}},
		{"the usual port", func(*Config) {}, []int{21}, []int{2121}},
		{"other ports", func(c *Config) { c.FTP.Ports = []uint16{2121, 990} }, []int{2121, 990}, []int{21}},
		{"accepted by raw", func(c *Config) {
			c.Raw = []Rule{{Chain: "prerouting", Action: "jump", JumpTarget: "own"}, {Chain: "own", Action: "accept", Protocol: "tcp"}}
		}, []int{21}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			with(test.change)
			for _, at := range test.help {
				helps(at)
			}
			for _, at := range test.others {
				untouched(at)
			}
		})
	}
	t.Run("the router's own, accepted by raw", func(t *testing.T) {
		with(func(c *Config) {
			c.Raw = []Rule{{Chain: "prerouting", Action: "jump", JumpTarget: "own"}, {Chain: "output", Action: "jump", JumpTarget: "own"},
				{Chain: "own", Action: "accept", Protocol: "tcp"}}
		})
		helps(21)
		// As who is relayed by SOCKS would open a port of the router.
		own := "PORT " + numbers(netip.MustParseAddrPort("10.5.8.1:22"))
		control := s.controlFrom(s.router, 21)
		assert.Equal(t, own, control.say(control.client, own))
		assert.Empty(t, s.expected())
	})
	t.Run("not tracked", func(t *testing.T) {
		with(func(c *Config) {
			c.NAT, c.Filter = nil, nil
			c.Raw = []Rule{{Chain: "prerouting", Action: "notrack", Protocol: "tcp", Port: ports("21")}}
		})
		control := s.control(21)
		assert.Equal(t, port, control.say(control.client, port))
		assert.Empty(t, s.expected())
	})
}

// What hosts say opens no more than one connection at a time, between these two hosts.
func TestFTPHelperHostile(t *testing.T) {
	s, c := newHelperSite(t)
	require.NoError(t, s.firewall.Apply(c))
	l, data := s.waiting(clientIP)
	_, neighbor := s.waiting("192.168.0.3")
	passive := func(a netip.AddrPort) string { return "227 Entering Passive Mode (" + numbers(a) + ")." }
	for _, test := range []struct {
		name     string
		byServer bool
		line     string
	}{
		{"a client for its neighbor", false, "PORT " + numbers(neighbor)},
		{"a client for the router", false, "PORT " + numbers(netip.MustParseAddrPort("192.168.0.1:22"))},
		{"a client for the server", false, "PORT " + numbers(netip.MustParseAddrPort(serverIP+":22"))},
		{"a client for nobody", false, "PORT 0,0,0,0,0,0"},
		{"a client that extends", false, "EPRT |1|192.168.0.3|" + fmt.Sprint(neighbor.Port()) + "|"},
		{"numbers that are none", false, "PORT 999,168,0,2,1,2"},
		{"a line in the middle", false, "RETR PORT " + numbers(data)},
		{"a server for another host", true, passive(netip.MustParseAddrPort("10.5.8.9:22"))},
		{"a server for the client's neighbor", true, passive(neighbor)},
		{"a server for the router", true, passive(netip.MustParseAddrPort("10.5.8.1:22"))},
		{"a server with a client's word", true, "PORT " + numbers(data)},
		{"a client with a server's word", false, passive(data)},
	} {
		t.Run(test.name, func(t *testing.T) {
			control := s.control(21)
			from := control.client
			if test.byServer {
				from = control.server
			}
			assert.Equal(t, test.line, control.say(from, test.line))
			assert.Empty(t, s.expected())
		})
	}
	t.Run("many lines", func(t *testing.T) {
		control := s.control(21)
		for i := range 50 {
			announced(t, control.say(control.client, "PORT "+numbers(netip.AddrPortFrom(data.Addr(), uint16(30000+i)))))
			require.Len(t, s.expected(), 1)
		}
		to := announced(t, control.say(control.client, "PORT "+numbers(data)))
		require.Len(t, s.expected(), 1)
		assert.True(t, s.called(l, serverIP, to), "the last one")
	})
}

// A control connection that is open when the helper goes is forgotten, and what it let expect with it. One that was open before
// the helper came is not read.
func TestFTPHelperChanges(t *testing.T) {
	s, c := newHelperSite(t)
	off := c
	off.FTP.Disabled = true
	change := func(old, next Config) (forgotten int) {
		t.Helper()
		require.NoError(t, s.firewall.Apply(next))
		n, err := s.firewall.ForgetRetranslated(old, next)
		require.NoError(t, err)
		return n
	}
	l, data := s.waiting(clientIP)
	require.NoError(t, s.firewall.Apply(off))
	before := s.control(21)
	other := s.control(2121)
	assert.Zero(t, change(off, c))
	assert.Equal(t, "PORT "+numbers(data), before.say(before.client, "PORT "+numbers(data)))
	before.client.Close()

	control := s.control(21)
	to := announced(t, control.say(control.client, "PORT "+numbers(data)))
	require.Len(t, s.expected(), 1)
	wider := c
	wider.FTP.Ports = []uint16{21, 2121}
	assert.Zero(t, change(c, wider), "it is read as before")
	require.Len(t, s.expected(), 1)
	assert.NotZero(t, change(wider, off))
	assert.Empty(t, s.expected())
	assert.False(t, s.called(l, serverIP, to))
	assert.Equal(t, "NOOP", other.say(other.client, "NOOP"), "goes on, taken up in the middle")
}
