package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/dhcp/server"
	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/service"
)

// The sockets are open while it is enabled; without them the change is refused.
func TestDNSService(t *testing.T) {
	log, _ := testLog(t)
	supervisor := newSupervisor(log)
	supervisor.Program = "/no-program"
	defer supervisor.Stop()
	s := newDNSService(supervisor, log)
	opened, fail := 0, error(nil)
	s.listen = func() (udp, tcp *os.File, err error) {
		if fail != nil {
			return nil, nil, fail
		}
		opened++
		udp, tcp, err = os.Pipe()
		return udp, tcp, err
	}
	c := console.Default()
	require.NoError(t, s.Apply(c))
	assert.Nil(t, s.udp)
	fail = errors.New("port in use")
	c.DNSServer.Enabled = true
	require.ErrorIs(t, s.Apply(c), fail)
	fail = nil
	require.NoError(t, s.Apply(c))
	assert.NotNil(t, s.udp)
	c.DNS = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	require.NoError(t, s.Apply(c))
	require.NoError(t, s.Apply(c))
	assert.Equal(t, 1, opened)
	c.DNSServer.Enabled = false
	require.NoError(t, s.Apply(c))
	assert.Nil(t, s.udp)
	s.Stop()
	assert.Equal(t, service.Stopped, s.process.Status().State)
	require.ErrorIs(t, s.Apply(c), service.ErrStopped)
}

// listenDNS is dns.Listen on the loopback interface alone, where the test's upstream server is another one.
func listenDNS(t *testing.T) func() (udp, tcp *os.File, err error) {
	return func() (udp, tcp *os.File, err error) {
		u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53})
		require.NoError(t, err)
		defer u.Close()
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53})
		require.NoError(t, err)
		defer l.Close()
		udp, err = u.File()
		require.NoError(t, err)
		require.NoError(t, unix.SetsockoptInt(int(udp.Fd()), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)) // as dns.Listen does
		tcp, err = l.File()
		return udp, tcp, err
	}
}

// dig asks for records of the types that hosts rarely have of their own, by the process.
func TestDNSRecords(t *testing.T) {
	e2e.Needs(t, "dig")
	log, said := testLog(t)
	s := newDNSService(realSupervisor(t, log, said), log)
	defer s.Stop()
	s.listen = listenDNS(t)
	c, err := console.Load("test", strings.NewReader(`/ip dns set allow-remote-requests=yes
/ip dns static add name=lan type=MX mx-preference=20 mx-exchange=backup.lan
/ip dns static add name=lan type=MX mx-preference=10 mx-exchange=Mail.lan
/ip dns static add name=lan type=NS ns=router.lan
/ip dns static add name=_sip._udp.lan type=SRV srv-priority=1 srv-weight=2 srv-port=5060 srv-target=pbx.lan
/ip dns static add name=office.lan type=CNAME cname=lan
`))
	require.NoError(t, err)
	require.NoError(t, s.Apply(c))
	require.NoError(t, s.Taken(t.Context()))
	for arguments, want := range map[string]string{
		"MX lan":                "10 mail.lan.\n20 backup.lan.",
		"+tcp +dnssec MX LAN":   "10 mail.lan.\n20 backup.lan.",
		"NS lan":                "router.lan.",
		"SRV _sip._udp.lan":     "1 2 5060 pbx.lan.",
		"+noedns MX office.lan": "10 mail.lan.\n20 backup.lan.\nlan.",
		"TXT lan":               "",
	} {
		out, err := exec.Command("dig", append([]string{"@127.0.0.1", "+short", "+tries=5", "+timeout=10"}, strings.Fields(arguments)...)...).CombinedOutput()
		require.NoError(t, err, "dig %s: %s", arguments, out)
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		slices.Sort(lines)
		assert.Equal(t, want, strings.Join(lines, "\n"), "dig %s", arguments)
	}
	list, _, err := s.cache()
	require.NoError(t, err)
	var shown []string
	for _, e := range list {
		shown = append(shown, e.Name+" "+e.TypeName()+" "+e.Data)
	}
	assert.Equal(t, []string{"_sip._udp.lan SRV 1 2 5060 pbx.lan", "lan NS router.lan", "lan MX 10 mail.lan", "lan MX 20 backup.lan", "office.lan CNAME lan"}, shown)
}

// serveNames answers on 127.0.0.2 that each name has one address, until the test ends, and counts who asks.
func serveNames(t *testing.T) *atomic.Int32 {
	t.Helper()
	upstream, err := net.ListenPacket("udp4", "127.0.0.2:53")
	require.NoError(t, err)
	t.Cleanup(func() { upstream.Close() })
	asked := &atomic.Int32{}
	go func() {
		b := make([]byte, 512)
		for {
			_, from, err := upstream.ReadFrom(b)
			if err != nil {
				return
			}
			asked.Add(1)
			end := 12
			for b[end] != 0 {
				end += 1 + int(b[end])
			}
			a := append([]byte(nil), b[:end+5]...)
			a[2], a[3], a[7], a[11] = 0x81, 0x80, 1, 0 // one answer and no OPT
			a = append(a, 0xc0, 12, a[len(a)-4], a[len(a)-3], 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7)
			_, _ = upstream.WriteTo(a, from)
		}
	}()
	return asked
}

// dig asks with each of its flags that changes the message, and gets what it may expect. Options of EDNS that the server does
// not know mean nothing to it (RFC 6891, section 6.1.2), and neither do flags of an answer in a question.
func TestDNSFlagsOfDig(t *testing.T) {
	e2e.Needs(t, "dig")
	serveNames(t)
	log, said := testLog(t)
	s := newDNSService(realSupervisor(t, log, said), log)
	defer s.Stop()
	s.listen = listenDNS(t)
	c := console.Default()
	c.DNSServer.Enabled = true
	c.DNS = []netip.Addr{netip.MustParseAddr("127.0.0.2")}
	require.NoError(t, s.Apply(c))
	require.NoError(t, s.Taken(t.Context()))
	const found = "status: NOERROR,.* flags: qr rd ra;.* ANSWER: 1,.*192\\.0\\.2\\.7"
	for flags, want := range map[string]string{
		"":                                 found,
		"+tcp":                             found,
		"+tcp +keepalive":                  found,
		"+aaflag +tcflag +raflag":          found,
		"+zflag":                           found,
		"+adflag":                          found,
		"+noadflag":                        found,
		"+cdflag":                          "status: NOERROR,.* flags: qr rd ra cd; .* ANSWER: 1,",
		"+norecurse":                       "status: NOERROR,.* flags: qr ra; .* ANSWER: 1,",
		"+noedns":                          "status: NOERROR,.* ANSWER: 1, AUTHORITY: 0, ADDITIONAL: 0",
		"+dnssec +multiline":               found,
		"+bufsize=0":                       found,
		"+bufsize=512":                     found,
		"+bufsize=65535":                   found,
		"+nsid":                            found,
		"+nocookie":                        found,
		"+cookie=0123456789abcdef":         found,
		"+cookie=0123456789abcdef01234567": found,
		"+subnet=192.0.2.0/24":             found,
		"+expire":                          found,
		"+padding=400":                     found,
		"+ednsopt=65001:c0ffee":            found,
		"+ednsflags=0x4040":                found,
		"+edns=1 +noednsnegotiation":       "status: BADVERS",
		"+edns=1":                          found, // it asks again by version 0
		"+header-only":                     "status: FORMERR",
		"+opcode=STATUS":                   "status: NOTIMP",
		"+opcode=UPDATE":                   "status: NOTIMP",
		"+qid=0":                           found,
		"+ignore +notcp -t ANY":            "status: NOERROR,.* flags: qr tc rd ra;.* ANSWER: 0,",
		"-t AXFR":                          "Transfer failed",
	} {
		args := append([]string{"@127.0.0.1", "+tries=5", "+timeout=10", "www.example"}, strings.Fields(flags)...)
		out, err := exec.Command("dig", args...).CombinedOutput()
		require.NoError(t, err, "dig %s: %s", flags, out)
		assert.Regexp(t, "(?s)"+want, string(out), "dig %s", flags)
	}
	assert.Zero(t, s.process.Status().Restarts)
}

// TestDNSProcess: the real process, confined as on the router, answers by a static name and by what
// a server says, over UDP and TCP.
func TestDNSProcess(t *testing.T) {
	asked := serveNames(t)
	log, said := testLog(t)
	s := newDNSService(realSupervisor(t, log, said), log)
	s.listen = listenDNS(t)
	c := console.Default()
	c.DNSServer.Enabled = true
	c.DNS = []netip.Addr{netip.MustParseAddr("127.0.0.2")}
	c.DNSServer.Static = []dns.Static{{Name: "nas.lan", Type: "A", Address: netip.MustParseAddr("192.168.0.5"), TTL: time.Hour}}
	require.NoError(t, s.Apply(c))
	require.NoError(t, s.Taken(t.Context()))
	lookup := func(network, name string) string {
		resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, "127.0.0.1:53")
		}}
		got, err := resolver.LookupNetIP(t.Context(), "ip4", name)
		require.NoError(t, err, name)
		require.Len(t, got, 1, name)
		return got[0].String()
	}
	for _, network := range []string{"udp4", "tcp4"} {
		for name, want := range map[string]string{"nas.lan.": "192.168.0.5", "www.example.": "192.0.2.7"} {
			assert.Equal(t, want, lookup(network, name), name)
		}
	}
	require.NoError(t, s.Apply(c))
	require.NoError(t, s.Health())

	// Names of hosts come and go, and the cache stays.
	before := asked.Load()
	leased := sync.Map{}
	leased.Store("laptop", netip.MustParseAddr("192.168.0.10"))
	s.nameHosts(func(string) map[string]dns.Host {
		all := map[string]dns.Host{}
		leased.Range(func(name, a any) bool {
			all[name.(string)] = dns.Host{Address: a.(netip.Addr)}
			return true
		})
		return all
	})
	c.DHCPServer.Networks = []server.Network{{Address: netip.MustParsePrefix("192.168.0.0/24"), Domain: "Home.LAN"}}
	require.NoError(t, s.Apply(c))
	require.NoError(t, s.Taken(t.Context()))
	assert.Equal(t, "192.168.0.10", lookup("udp4", "laptop."))
	assert.Equal(t, "192.168.0.10", lookup("udp4", "laptop.home.lan."))
	leased.Store("printer", netip.MustParseAddr("192.168.0.11"))
	s.look()
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.hosts) == 4
	}, time.Minute, time.Millisecond)
	require.NoError(t, s.Taken(t.Context()))
	assert.Equal(t, "192.168.0.11", lookup("tcp4", "printer.home.lan."))
	assert.Equal(t, "192.0.2.7", lookup("udp4", "www.example."))
	assert.Equal(t, before, asked.Load(), "it is in the cache still")

	used, err := s.used()
	require.NoError(t, err)
	assert.Positive(t, used)
	list, left, err := s.cache()
	require.NoError(t, err)
	assert.Zero(t, left)
	var entries []string
	for _, e := range list {
		assert.LessOrEqual(t, e.TTL, time.Hour)
		entries = append(entries, fmt.Sprint(e.Name, " ", e.TypeName(), " ", e.Data, " ", e.Static))
	}
	assert.Equal(t, []string{"laptop A 192.168.0.10 false", "laptop.home.lan A 192.168.0.10 false", "nas.lan A 192.168.0.5 true",
		"printer A 192.168.0.11 false", "printer.home.lan A 192.168.0.11 false", "www.example A 192.0.2.7 false"}, entries, "each once")
	require.NoError(t, s.flush())
	used, err = s.used()
	require.NoError(t, err)
	assert.Zero(t, used)
	assert.Equal(t, "192.0.2.7", lookup("udp4", "www.example."))
	assert.Equal(t, before+1, asked.Load())

	c.DNSServer.Enabled = false
	require.NoError(t, s.Apply(c))
	require.NoError(t, s.Taken(t.Context()))
	list, left, err = s.cache()
	require.NoError(t, err)
	assert.Empty(t, list)
	assert.Zero(t, left)
	used, err = s.used()
	require.NoError(t, err)
	assert.Zero(t, used)
	require.NoError(t, s.flush())
	assert.Equal(t, 0, s.process.Status().Restarts)
	s.Stop()
}

// Which names of hosts the server is told.
func TestDNSHostNames(t *testing.T) {
	log, said := testLog(t)
	supervisor := newSupervisor(log)
	supervisor.Program = "/no-program"
	defer supervisor.Stop()
	s := newDNSService(supervisor, log)
	defer s.Stop()
	s.listen = os.Pipe
	leased := map[string]dns.Host{"a": {Address: netip.MustParseAddr("192.168.0.10")}, "b": {Address: netip.MustParseAddr("192.168.0.200")}, "c": {Address: netip.MustParseAddr("10.0.0.1")}}
	var router string
	s.nameHosts(func(name string) map[string]dns.Host {
		router = name
		return leased
	})
	c := console.Default()
	c.Identity = "Gate"
	c.DHCPServer.Networks = []server.Network{
		{Address: netip.MustParsePrefix("192.168.0.0/16"), Domain: "all.lan"},
		{Address: netip.MustParsePrefix("192.168.0.0/25"), Domain: "Low.LAN."},
		{Address: netip.MustParsePrefix("10.0.0.0/8")},
	}
	require.NoError(t, s.Apply(c))
	assert.Empty(t, s.hosts, "nobody asks")
	c.DNSServer.Enabled = true
	require.NoError(t, s.Apply(c))
	assert.Equal(t, "Gate", router)
	names := func() map[string]string {
		all := map[string]string{}
		for name, a := range s.hosts {
			all[name] = a.Address.String()
		}
		return all
	}
	assert.Equal(t, map[string]string{"a": "192.168.0.10", "a.low.lan": "192.168.0.10", "b": "192.168.0.200", "b.all.lan": "192.168.0.200", "c": "10.0.0.1"}, names())
	change := s.change
	require.NoError(t, s.Apply(c))
	assert.Same(t, change, s.change, "nothing has changed")
	c.DHCPServer.Networks = []server.Network{{Address: netip.MustParsePrefix("0.0.0.0/0"), Domain: strings.Repeat("x", 63) + strings.Repeat(".example", 23) + ".lanx"}}
	require.NoError(t, s.Apply(c))
	assert.NotSame(t, change, s.change)
	assert.Equal(t, map[string]string{"a": "192.168.0.10", "b": "192.168.0.200", "c": "10.0.0.1"}, names(), "a name that would be too long")
	for _, domain := range []string{strings.Repeat("x", 64) + ".lan", "a..lan", "."} {
		c.DHCPServer.Networks[0].Domain = domain
		require.NoError(t, s.Apply(c))
		assert.Len(t, s.hosts, 3, domain)
	}
	c.DNSServer.Enabled = false
	require.NoError(t, s.Apply(c))
	assert.Empty(t, s.hosts)

	s.tellLeftOut(0)
	assert.NotContains(t, said(), "left out")
	s.tellLeftOut(7)
	s.tellLeftOut(8)
	assert.Equal(t, 1, strings.Count(said(), "names of DHCP leases are left out"))
	assert.Contains(t, said(), "7 names of DHCP leases are left out: the server takes 1024")
}
